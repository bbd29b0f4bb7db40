/*
 * fuzz_vmm_reply.c: what a VMM that was taken over may send its agent on the control socket:
 * packets one after the other, each behind its length in two bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/agent/vmm_control.h"
#include "tests/fuzz/fuzz.h"

struct listener {
    struct vmm_control *control;
    bool lost;
};

/* What the agent does with a status: every string is read, all of it is packed for the controller.
 */
static void on_status(void *context)
{
    const struct listener *listener = context;
    const Vmpool__VmmStatus *status = vmm_control_status(listener->control);
    if (!status || strlen(status->text) > VMM_TEXT_MAX)
        abort();
    size_t size = vmpool__vmm_status__get_packed_size(status);
    uint8_t *packed = malloc(size + 1);
    if (!packed || vmpool__vmm_status__pack(status, packed) != size)
        abort();
    free(packed);
}

static void on_lost(void *context, const char *why)
{
    struct listener *listener = context;
    if (listener->lost || why[0] == '\0')
        abort(); /* told once, with a reason */
    listener->lost = true;
}

static void on_answer(void *context, const Vmpool__VmmReply *reply, const struct error *err)
{
    unsigned *answers = context;
    if (++*answers > 1 || (!reply && !err) || (err && err->text[0] == '\0' && !reply))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vmm_control_events events = {.status = on_status, .lost = on_lost};
    struct error err = ERROR_INIT;
    struct listener listener = {0};
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmQuery query = VMPOOL__VMM_QUERY__INIT;
    unsigned answers = 0;
    int ends[2];
    struct loop *loop = loop_new(&err);
    if (!loop || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    listener.control = vmm_control_open(loop, ends[0], &events, &listener, &err);
    if (!listener.control)
        abort();
    request.body_case = VMPOOL__VMM_REQUEST__BODY_QUERY;
    request.query = &query;
    if (vmm_control_send(listener.control, &request, 60000, on_answer, &answers, &err) < 0)
        abort();
    while (size >= 2) {
        size_t length = (size_t)data[0] | (size_t)data[1] << 8;
        data += 2;
        size -= 2;
        if (length > size)
            length = size;
        (void)send(ends[1], data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        data += length;
        size -= length;
        vmm_control_drain(listener.control);
    }
    (void)close(ends[1]);
    vmm_control_drain(listener.control);
    if (!listener.lost || answers != 1)
        abort(); /* whatever came, the question was answered and the end was seen */
    vmm_control_close(listener.control);
    loop_free(loop);
    return 0;
}
