#include "node-agent/vmm/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

struct client {
    struct control *control;
    uint64_t number; /* 0: free place; never used again, so that an old ticket meets nobody */
    int fd;
    bool missed; /* an event did not fit */
    struct loop_source *source;
};

struct control {
    struct loop *loop;
    struct control_events events;
    int listen_fd;
    struct loop_source *listen_source;
    uint64_t next_number;
    struct client clients[CONTROL_CLIENTS];
    uint8_t packet[CONTROL_PACKET_MAX];
};

static void drop(struct client *client)
{
    loop_remove(client->source);
    close_fd(&client->fd);
    client->source = NULL;
    client->number = 0;
}

static void send_packet(struct client *client, const uint8_t *data, size_t size, bool is_event)
{
    if (send(client->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size)
        return;
    if (errno == EAGAIN && is_event) {
        client->missed = true;
        loop_set_events(client->source, EPOLLIN | EPOLLOUT);
        return;
    }
    if (errno == EAGAIN)
        log_warn("control: a client does not read its answers and was dropped");
    drop(client);
}

static void send_reply(struct client *client, Vmpool__VmmReply *reply, uint64_t request_id)
{
    reply->request_id = request_id;
    size_t size = vmpool__vmm_reply__get_packed_size(reply);
    auto_free uint8_t *data = malloc(size);
    if (!data) {
        drop(client);
        return;
    }
    (void)vmpool__vmm_reply__pack(reply, data);
    send_packet(client, data, size, request_id == 0);
}

void control_answer(struct control *control, const struct control_ticket *ticket,
                    Vmpool__VmmReply *reply)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].number == ticket->client)
            send_reply(&control->clients[i], reply, ticket->request_id);
}

void control_broadcast(struct control *control, Vmpool__VmmReply *reply)
{
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].number != 0 && !control->clients[i].missed)
            send_reply(&control->clients[i], reply, 0);
}

static void on_packet(void *context, int fd, uint32_t events)
{
    struct client *client = context;
    struct control *control = client->control;
    if ((events & EPOLLOUT) && client->missed) {
        const struct control_ticket behind = {client->number, 0};
        client->missed = false;
        loop_set_events(client->source, EPOLLIN);
        control->events.missed(control->events.context, &behind);
    }
    if (client->number == 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t size = recv(fd, control->packet, sizeof control->packet, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        drop(client);
        return;
    }
    Vmpool__VmmRequest *request = NULL;
    if (size <= (ssize_t)sizeof control->packet)
        request = vmpool__vmm_request__unpack(NULL, (size_t)size, control->packet);
    if (!request || request->request_id == 0 ||
        request->body_case == VMPOOL__VMM_REQUEST__BODY__NOT_SET) {
        /* At most once a connection, so it can't fill the log faster than one can connect. */
        log_warn("control: a packet of %zd bytes is no request; its sender was disconnected", size);
        vmpool__vmm_request__free_unpacked(request, NULL);
        drop(client);
        return;
    }
    const struct control_ticket ticket = {client->number, request->request_id};
    control->events.request(control->events.context, &ticket, request);
    vmpool__vmm_request__free_unpacked(request, NULL);
}

static void on_connect(void *context, int fd, uint32_t events)
{
    (void)events;
    struct control *control = context;
    struct error err = ERROR_INIT;
    auto_fd int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0)
        return;
    struct client *client = control->clients;
    while (client < control->clients + CONTROL_CLIENTS && client->number != 0)
        client++;
    if (client == control->clients + CONTROL_CLIENTS) {
        log_warn("control: more than %u clients; one was turned away", CONTROL_CLIENTS);
        return;
    }
    client->source = loop_add_fd(control->loop, connection, EPOLLIN, on_packet, client, &err);
    if (!client->source) {
        log_warn("control: %s", err.text);
        return;
    }
    client->control = control;
    client->number = ++control->next_number;
    client->missed = false;
    client->fd = take_fd(&connection);
}

struct control *control_new(struct loop *loop, int listen_fd, const struct control_events *events,
                            struct error *err)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control) {
        (void)error_errno(err, ENOMEM, "control socket");
        return NULL;
    }
    control->loop = loop;
    control->events = *events;
    control->listen_fd = listen_fd;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        control->clients[i].fd = -1;
    control->listen_source = loop_add_fd(loop, listen_fd, EPOLLIN, on_connect, control, err);
    if (!control->listen_source) {
        free(control);
        return NULL;
    }
    return control;
}

void control_free(struct control *control)
{
    if (!control)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].number != 0)
            drop(&control->clients[i]);
    loop_remove(control->listen_source);
    close_fd(&control->listen_fd);
    free(control);
}
