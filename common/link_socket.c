#include "common/link_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <zmq.h>

#include "common/link.h"

/* A peer is dead after HEARTBEAT + TIMEOUT, within the 10 s that link.h promises. */
#define HEARTBEAT_MS         3000
#define HEARTBEAT_TIMEOUT_MS 6500
#define HANDSHAKE_MS         8000
/* Messages a peer may have waiting; with LINK_MESSAGE_MAX this bounds its memory. */
#define RECEIVE_QUEUE 64
#define SEND_QUEUE    1024
/* A MESSAGE command of CURVE holds its name, a nonce, flags and an authenticator besides the text.
 */
#define CURVE_OVERHEAD 64

static void drain(struct link_socket *socket);

static void go_on(void *context)
{
    struct link_socket *socket = context;
    socket->again = NULL;
    drain(socket);
}

static void look_again(struct link_socket *socket)
{
    int events = 0;
    size_t size = sizeof events;
    if (socket->again || zmq_getsockopt(socket->zmq, ZMQ_EVENTS, &events, &size) < 0)
        return;
    if (events & ZMQ_POLLIN)
        socket->again = loop_add_timer(socket->loop, 0, 0, go_on, socket);
}

static void drain(struct link_socket *socket)
{
    for (unsigned i = 0; i < LINK_BATCH; i++) {
        enum link_read read = socket->read_one(socket->context);
        if (read == LINK_READ_CLOSED)
            return;
        if (read == LINK_READ_NONE)
            break;
    }
    look_again(socket);
}

static void on_ready(void *context, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    drain(context);
}

void link_socket_sent(struct link_socket *socket)
{
    look_again(socket);
}

int link_socket_attach(struct link_socket *socket, struct loop *loop, void *zmq,
                       link_socket_fn read_one, void *context, struct error *err)
{
    int fd = -1;
    size_t size = sizeof fd;
    *socket =
        (struct link_socket){.zmq = zmq, .loop = loop, .read_one = read_one, .context = context};
    if (zmq_getsockopt(zmq, ZMQ_FD, &fd, &size) < 0)
        return error_set(err, ERROR_FAILED, "ZMQ_FD: %s", zmq_strerror(zmq_errno()));
    socket->watch = loop_add_fd(loop, fd, EPOLLIN, on_ready, socket, err);
    if (!socket->watch)
        return -1;
    socket->again = loop_add_timer(loop, 0, 0, go_on, socket);
    return socket->again ? 0 : error_errno(err, ENOMEM, "event loop");
}

void link_socket_close(struct link_socket *socket)
{
    loop_remove(socket->again);
    loop_remove(socket->watch);
    if (socket->zmq)
        (void)zmq_close(socket->zmq);
    memset(socket, 0, sizeof *socket);
}

int link_option_bytes(void *zmq, int option, const void *value, size_t size, struct error *err)
{
    if (zmq_setsockopt(zmq, option, value, size) == 0)
        return 0;
    return error_set(err, ERROR_FAILED, "ZeroMQ refuses option %d: %s", option,
                     zmq_strerror(zmq_errno()));
}

int link_option_int(void *zmq, int option, int value, struct error *err)
{
    return link_option_bytes(zmq, option, &value, sizeof value, err);
}

int link_socket_limits(void *zmq, struct error *err)
{
    int64_t max = LINK_MESSAGE_MAX + CURVE_OVERHEAD;
    if (link_option_bytes(zmq, ZMQ_MAXMSGSIZE, &max, sizeof max, err) < 0 ||
        link_option_int(zmq, ZMQ_RCVHWM, RECEIVE_QUEUE, err) < 0 ||
        link_option_int(zmq, ZMQ_SNDHWM, SEND_QUEUE, err) < 0 ||
        link_option_int(zmq, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS, err) < 0)
        return -1;
    return 0;
}

int link_endpoint(const char *address, bool server, void *zmq, char *out, size_t size,
                  struct error *err)
{
    const char *colon = strrchr(address, ':');
    const char *after_host = address[0] == '[' ? strchr(address, ']') : NULL;
    char *end = NULL;
    long port = colon && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : -1;
    bool bad_host = !colon || colon == address ||
                    (address[0] == '[' ? !after_host || after_host + 1 != colon
                                       : memchr(address, ':', (size_t)(colon - address)) != NULL) ||
                    strpbrk(address, " /;@*\t\n") != NULL;
    if (bad_host || port < (server ? 0 : 1) || port > 65535 || (end && *end))
        return error_set(err, ERROR_USAGE,
                         "\"%.100s\" is no address: write HOST:PORT, an IPv6 host in brackets, "
                         "such as 10.0.0.1:%d",
                         address, LINK_DEFAULT_PORT);
    if (address[0] == '[' && link_option_int(zmq, ZMQ_IPV6, 1, err) < 0)
        return -1;
    int length = port == 0 ? snprintf(out, size, "tcp://%.*s:*", (int)(colon - address), address)
                           : snprintf(out, size, "tcp://%s", address);
    if (length < 0 || (size_t)length >= size)
        return error_set(err, ERROR_USAGE, "the address \"%.100s...\" is too long", address);
    return 0;
}

int link_monitor_attach(struct link_socket *monitor, struct loop *loop, void *zmq_context,
                        void *zmq, int events, link_socket_fn read_one, void *context,
                        struct error *err)
{
    char endpoint[64];
    void *pair = NULL;
    (void)snprintf(endpoint, sizeof endpoint, "inproc://monitor-%p", zmq);
    if (zmq_socket_monitor(zmq, endpoint, events) < 0 ||
        !(pair = zmq_socket(zmq_context, ZMQ_PAIR)) || zmq_connect(pair, endpoint) < 0) {
        (void)error_set(err, ERROR_FAILED, "cannot watch a ZeroMQ socket: %s",
                        zmq_strerror(zmq_errno()));
        if (pair)
            (void)zmq_close(pair);
        return -1;
    }
    return link_socket_attach(monitor, loop, pair, read_one, context, err);
}

bool link_monitor_read(struct link_socket *monitor, uint16_t *event, uint32_t *value)
{
    /* Two frames (zmq_socket_monitor(3)): 16 bits of event and 32 of value, then the endpoint. */
    uint8_t frame[6] = {0};
    char endpoint[256];
    if (zmq_recv(monitor->zmq, frame, sizeof frame, ZMQ_DONTWAIT) < 0)
        return false;
    (void)zmq_recv(monitor->zmq, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(event, frame, sizeof *event);
    memcpy(value, frame + 2, sizeof *value);
    return true;
}
