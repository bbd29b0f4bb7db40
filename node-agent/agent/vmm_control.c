#include "node-agent/agent/vmm_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/cleanup.h"

#define PACKETS_A_TURN  32
#define PACKETS_DRAINED 4096

struct pending {
    uint64_t request_id; /* 0: the place is free */
    struct vmm_control *control;
    struct loop_source *timeout;
    vmm_control_done_fn done;
    void *context;
};

struct vmm_control {
    struct loop *loop;
    int fd;
    struct loop_source *watch;
    struct vmm_control_events events;
    void *context;
    uint64_t last_id;
    Vmpool__VmmReply *last;
    bool lost;
    unsigned in_call; /* depth of callbacks; closing waits for 0 */
    bool closed;
    struct pending pending[VMM_REQUESTS_MAX];
    uint8_t packet[VMM_PACKET_MAX];
};

static void release(struct vmm_control *control)
{
    if (!control->closed || control->in_call)
        return;
    for (size_t i = 0; i < VMM_REQUESTS_MAX; i++)
        if (control->pending[i].request_id)
            loop_remove(control->pending[i].timeout);
    loop_remove(control->watch);
    if (control->last)
        vmpool__vmm_reply__free_unpacked(control->last, NULL);
    close_fd(&control->fd);
    free(control);
}

void vmm_control_close(struct vmm_control *control)
{
    if (!control)
        return;
    control->closed = true;
    release(control);
}

/* Frees the place before the call, so that the callee may send the next request. */
static void settle(struct pending *pending, const Vmpool__VmmReply *reply, const struct error *err)
{
    struct pending copy = *pending;
    loop_remove(pending->timeout);
    *pending = (struct pending){0};
    if (copy.done && !copy.control->closed)
        copy.done(copy.context, reply, err);
}

static void lose(struct vmm_control *control, const char *why)
{
    struct error err;
    if (control->lost || control->closed)
        return;
    control->lost = true;
    loop_remove(control->watch);
    control->watch = NULL;
    (void)error_set(&err, ERROR_UNREACHABLE, "the VMM's control connection ended: %s", why);
    for (size_t i = 0; i < VMM_REQUESTS_MAX && !control->closed; i++)
        if (control->pending[i].request_id)
            settle(&control->pending[i], NULL, &err);
    if (!control->closed)
        control->events.lost(control->context, why);
}

static void on_timeout(void *context)
{
    struct pending *pending = context;
    struct vmm_control *control = pending->control;
    struct error err;
    (void)error_set(&err, ERROR_TIMEOUT, "the VMM did not answer in time");
    pending->timeout = NULL;
    control->in_call++;
    settle(pending, NULL, &err);
    control->in_call--;
    release(control);
}

static void bound_text(char *text)
{
    size_t length = strnlen(text, VMM_TEXT_MAX);
    if (text[length] != '\0') /* an empty string is protobuf-c's constant: never written to */
        text[length] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

/* Checks a reply's content; the strings of a VMM end in front of an operator. */
static int check_reply(const Vmpool__VmmReply *reply)
{
    const Vmpool__VmmStatus *status = reply->status;
    if (!status || status->state < VMPOOL__VM_STATE__VM_UNKNOWN ||
        status->state > VMPOOL__VM_STATE__VM_FAILED)
        return -1;
    bound_text(status->text);
    if (reply->failure)
        bound_text(reply->failure->text);
    if (status->migration)
        bound_text(status->migration->text);
    return 0;
}

static void answer_pending(struct vmm_control *control, const Vmpool__VmmReply *reply)
{
    struct error err = ERROR_INIT;
    for (size_t i = 0; i < VMM_REQUESTS_MAX; i++) {
        struct pending *pending = &control->pending[i];
        if (!pending->request_id || pending->request_id != reply->request_id)
            continue;
        if (reply->failure) {
            uint32_t kind = reply->failure->kind;
            bool known = kind > ERROR_NONE && kind <= ERROR_UNREACHABLE;
            (void)error_set(&err, known ? (enum error_kind)kind : ERROR_FAILED, "%s",
                            reply->failure->text);
        }
        settle(pending, reply, reply->failure ? &err : NULL);
        return;
    }
}

static void take_packet(struct vmm_control *control, size_t size)
{
    Vmpool__VmmReply *reply = vmpool__vmm_reply__unpack(NULL, size, control->packet);
    if (!reply || check_reply(reply) < 0) {
        if (reply)
            vmpool__vmm_reply__free_unpacked(reply, NULL);
        lose(control, "it sent a packet that is no reply");
        return;
    }
    if (control->last)
        vmpool__vmm_reply__free_unpacked(control->last, NULL);
    control->last = reply;
    control->events.status(control->context);
    /* The callee may have taken the reply over; it lives at least until this function ends then. */
    if (!control->closed && control->last == reply && reply->request_id)
        answer_pending(control, reply);
}

static void read_packets(struct vmm_control *control, unsigned limit)
{
    control->in_call++;
    for (unsigned i = 0; i < limit && !control->lost && !control->closed; i++) {
        ssize_t size =
            recv(control->fd, control->packet, sizeof control->packet, MSG_DONTWAIT | MSG_TRUNC);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size <= 0)
            lose(control, size < 0 ? strerror(errno) : "the VMM closed it");
        else if ((size_t)size > sizeof control->packet)
            lose(control, "it sent a packet too large");
        else
            take_packet(control, (size_t)size);
    }
    control->in_call--;
    release(control);
}

/* In portions, so that a VMM that talks without end does not keep the agent from the others. */
static void on_readable(void *context, int fd, uint32_t events)
{
    (void)fd, (void)events;
    read_packets(context, PACKETS_A_TURN);
}

void vmm_control_drain(struct vmm_control *control)
{
    read_packets(control, PACKETS_DRAINED);
}

struct vmm_control *vmm_control_open(struct loop *loop, int fd,
                                     const struct vmm_control_events *events, void *context,
                                     struct error *err)
{
    struct vmm_control *control = calloc(1, sizeof *control);
    if (!control) {
        (void)error_errno(err, ENOMEM, "control connection");
        return NULL;
    }
    control->loop = loop;
    control->fd = -1;
    control->events = *events;
    control->context = context;
    control->watch = loop_add_fd(loop, fd, EPOLLIN, on_readable, control, err);
    if (!control->watch) {
        free(control);
        return NULL;
    }
    control->fd = fd;
    return control;
}

static struct pending *free_place(struct vmm_control *control)
{
    for (size_t i = 0; i < VMM_REQUESTS_MAX; i++)
        if (!control->pending[i].request_id)
            return &control->pending[i];
    return NULL;
}

int vmm_control_send(struct vmm_control *control, Vmpool__VmmRequest *request, uint64_t timeout_ms,
                     vmm_control_done_fn done, void *context, struct error *err)
{
    struct pending *place = free_place(control);
    if (control->lost || !place)
        return error_set(err, control->lost ? ERROR_UNREACHABLE : ERROR_FAILED,
                         control->lost ? "the VMM's control connection has ended"
                                       : "the VMM has too many requests to answer");
    request->request_id = ++control->last_id;
    size_t size = vmpool__vmm_request__get_packed_size(request);
    auto_free uint8_t *packed = malloc(size + 1);
    if (!packed)
        return error_errno(err, ENOMEM, "request to the VMM");
    (void)vmpool__vmm_request__pack(request, packed);
    if (send(control->fd, packed, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        return error_errno(err, errno, "the VMM does not take requests");
    *place = (struct pending){
        .request_id = request->request_id, .control = control, .done = done, .context = context};
    place->timeout = loop_add_timer(control->loop, timeout_ms, 0, on_timeout, place);
    return 0;
}

void vmm_control_forget(struct vmm_control *control, const void *context)
{
    for (size_t i = 0; control && i < VMM_REQUESTS_MAX; i++)
        if (control->pending[i].request_id && control->pending[i].context == context)
            control->pending[i].done = NULL;
}

const Vmpool__VmmStatus *vmm_control_status(const struct vmm_control *control)
{
    return control && control->last ? control->last->status : NULL;
}

Vmpool__VmmReply *vmm_control_take_last(struct vmm_control *control)
{
    Vmpool__VmmReply *last = control->last;
    control->last = NULL;
    return last;
}
