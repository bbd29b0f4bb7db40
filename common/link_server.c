/*
 * The listening end of a link. Three ZeroMQ sockets share the loop's thread: the ROUTER itself, the
 * ZAP handler libzmq asks about each CURVE key (RFC 27), and the ROUTER's monitor, which tells of
 * connections that never got as far as a key.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/link.h"
#include "common/link_socket.h"

/* A connection whose other host does not answer ends after 10 s. */
#define KEEPALIVE_IDLE_S      4
#define KEEPALIVE_INTERVAL_S  2
#define KEEPALIVE_PROBES      3
#define UNACKNOWLEDGED_MAX_MS 10000

#define ZAP_DOMAIN "vmpool"
/* refused() runs at most once per address and REFUSED_MS, and for at most REFUSED_MAX addresses in
 * that time, so that many strangers cannot fill a log either. */
#define REFUSED_MS  10000
#define REFUSED_MAX 32
#define ADDRESS_MAX 64
/* A ROUTER names its peers with a zero byte and a counter. Names chosen by the peer itself are not
 * taken: one could claim the name another had before. */
#define ROUTING_ID_LENGTH 5

struct refusal {
    char address[ADDRESS_MAX];
    int64_t at_ms;
};

struct link_server {
    struct loop *loop;
    void *zmq_context;
    struct link_socket router, zap, monitor;
    struct link_server_events events;
    void *context;
    char address[300]; /* as bound */
    struct refusal refusals[REFUSED_MAX];
    char (*addresses)[ADDRESS_MAX]; /* of accepted connections, by descriptor */
    size_t address_count;
    bool handshake_failed; /* the monitor's next disconnection is that of a stranger */
    bool in_call;
    bool closed; /* inside a callback: freed when it returns */
};

static void refuse(struct link_server *server, const char *address, const char *reason)
{
    int64_t now_ms = clock_monotonic_ms();
    struct refusal *free_slot = NULL;
    for (unsigned i = 0; i < REFUSED_MAX; i++) {
        struct refusal *slot = &server->refusals[i];
        bool old = slot->at_ms == 0 || now_ms - slot->at_ms >= REFUSED_MS;
        if (!old && strcmp(slot->address, address) == 0)
            return;
        if (old)
            free_slot = slot;
    }
    if (!free_slot)
        return;
    (void)snprintf(free_slot->address, sizeof free_slot->address, "%s", address);
    free_slot->at_ms = now_ms;
    if (server->events.refused)
        server->events.refused(server->context, address, reason);
}

static void free_server(struct link_server *server)
{
    link_socket_close(&server->monitor);
    link_socket_close(&server->router);
    link_socket_close(&server->zap);
    if (server->zmq_context)
        (void)zmq_ctx_term(server->zmq_context);
    free(server->addresses);
    free(server);
}

void link_server_close(struct link_server *server)
{
    if (!server)
        return;
    server->closed = true;
    if (!server->in_call)
        free_server(server);
}

/* ---- messages ---- */

static void copy_metadata(zmq_msg_t *message, const char *name, char *out, size_t size)
{
    const char *value = zmq_msg_gets(message, name);
    (void)snprintf(out, size, "%s", value ? value : "");
}

/* The rest of a message that is not what we speak. */
static void skip_frames(void *zmq, zmq_msg_t *frame)
{
    while (zmq_msg_more(frame)) {
        (void)zmq_msg_close(frame);
        (void)zmq_msg_init(frame);
        if (zmq_msg_recv(frame, zmq, ZMQ_DONTWAIT) < 0)
            return;
    }
}

static bool read_message(struct link_server *server)
{
    struct link_peer peer = {.routing_length = ROUTING_ID_LENGTH};
    uint8_t routing_id[256];
    int length = zmq_recv(server->router.zmq, routing_id, sizeof routing_id, ZMQ_DONTWAIT);
    if (length < 0)
        return false;
    zmq_msg_t body;
    (void)zmq_msg_init(&body);
    if (zmq_msg_recv(&body, server->router.zmq, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&body);
        return true;
    }
    copy_metadata(&body, "User-Id", peer.user, sizeof peer.user);
    copy_metadata(&body, "Peer-Address", peer.address, sizeof peer.address);
    bool good = length == ROUTING_ID_LENGTH && routing_id[0] == 0 && !zmq_msg_more(&body) &&
                zmq_msg_size(&body) <= LINK_MESSAGE_MAX && peer.user[0];
    if (good) {
        memcpy(peer.routing_id, routing_id, ROUTING_ID_LENGTH);
        server->events.message(server->context, &peer, zmq_msg_data(&body), zmq_msg_size(&body));
    } else {
        refuse(server, peer.address, "its messages are not those of a vmpool program");
        skip_frames(server->router.zmq, &body);
    }
    (void)zmq_msg_close(&body);
    return true;
}

int link_server_send(struct link_server *server, const struct link_peer *peer, const void *data,
                     size_t size, struct error *err)
{
    if (size > LINK_MESSAGE_MAX)
        return error_set(err, ERROR_FAILED, "a message of %zu bytes is longer than the limit of %u",
                         size, LINK_MESSAGE_MAX);
    int status = zmq_send(server->router.zmq, peer->routing_id, peer->routing_length,
                          ZMQ_SNDMORE | ZMQ_DONTWAIT);
    if (status >= 0)
        status = zmq_send(server->router.zmq, data, size, ZMQ_DONTWAIT);
    int reason = status < 0 ? zmq_errno() : 0;
    link_socket_sent(&server->router);
    if (status >= 0)
        return 0;
    if (reason == EHOSTUNREACH)
        return 1;
    return error_set(err, ERROR_UNREACHABLE, "%s does not take its messages: %s", peer->user,
                     reason == EAGAIN ? "its queue is full" : zmq_strerror(reason));
}

/* ---- who may speak ---- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_IN_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_KEY };
#define ZAP_FRAMES    7
#define ZAP_FRAME_MAX 256

static bool read_zap(struct link_server *server)
{
    uint8_t frames[ZAP_FRAMES][ZAP_FRAME_MAX + 1] = {{0}};
    size_t sizes[ZAP_FRAMES] = {0};
    int more = 1;
    unsigned count = 0;
    for (; more; count++) {
        uint8_t surplus[ZAP_FRAME_MAX];
        bool keep = count < ZAP_FRAMES;
        int length =
            zmq_recv(server->zap.zmq, keep ? frames[count] : surplus, ZAP_FRAME_MAX, ZMQ_DONTWAIT);
        if (length < 0)
            return false;
        if (keep)
            sizes[count] = (size_t)length > ZAP_FRAME_MAX ? ZAP_FRAME_MAX : (size_t)length;
        size_t size = sizeof more;
        if (zmq_getsockopt(server->zap.zmq, ZMQ_RCVMORE, &more, &size) < 0)
            return false;
    }
    char user[LINK_USER_MAX] = "";
    const char *address = (const char *)frames[ZAP_ADDRESS];
    bool curve = count == ZAP_FRAMES && sizes[ZAP_MECHANISM] == 5 && sizes[ZAP_KEY] == 32 &&
                 memcmp(frames[ZAP_MECHANISM], "CURVE", 5) == 0;
    bool good = curve && server->events.authorise(server->context, frames[ZAP_KEY], address, user);
    if (!good)
        refuse(server, address, "its key is not known here");
    user[LINK_USER_MAX - 1] = '\0';
    const char *status = good ? "200" : "400";
    const struct {
        const void *data;
        size_t size;
    } answer[] = {{"1.0", 3},
                  {frames[ZAP_REQUEST], sizes[ZAP_REQUEST]},
                  {status, 3},
                  {good ? "OK" : "unknown key", good ? 2 : 11},
                  {user, good ? strlen(user) : 0},
                  {"", 0}};
    for (unsigned i = 0; i < 6; i++)
        (void)zmq_send(server->zap.zmq, answer[i].data, answer[i].size,
                       ZMQ_DONTWAIT | (i < 5 ? ZMQ_SNDMORE : 0));
    return true;
}

/* ---- connections that never reach a key ---- */

/* Called at once on "accepted", while the peer is still there in all but the shortest attempts. */
static void remember_address(struct link_server *server, size_t fd)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof peer;
    if (fd >= server->address_count) {
        size_t count = fd + 64;
        void *grown = realloc(server->addresses, count * sizeof *server->addresses);
        if (!grown)
            return;
        server->addresses = grown;
        memset(server->addresses + server->address_count, 0,
               (count - server->address_count) * sizeof *server->addresses);
        server->address_count = count;
    }
    char *out = server->addresses[fd];
    out[0] = '\0';
    if (getpeername((int)fd, (struct sockaddr *)&peer, &size) < 0)
        return;
    if (peer.ss_family == AF_INET)
        (void)inet_ntop(AF_INET, &((struct sockaddr_in *)&peer)->sin_addr, out, ADDRESS_MAX);
    else if (peer.ss_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&peer)->sin6_addr, out, ADDRESS_MAX);
}

/* libzmq reports a failed handshake without saying whose, and the end of that very connection,
 * with its descriptor, right behind it. */
static bool read_monitor(struct link_server *server)
{
    uint16_t event = 0;
    uint32_t value = 0;
    if (!link_monitor_read(&server->monitor, &event, &value))
        return false;
    if (event == ZMQ_EVENT_ACCEPTED) {
        remember_address(server, value);
    } else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ||
               event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
        server->handshake_failed = true;
    } else if (event == ZMQ_EVENT_DISCONNECTED && server->handshake_failed) {
        server->handshake_failed = false;
        const char *address = value < server->address_count ? server->addresses[value] : "";
        refuse(server, address[0] ? address : "unknown",
               "it does not speak the encrypted protocol of vmpool, or holds a wrong server key");
    }
    return true;
}

/* ---- the three sockets on the loop ---- */

/* A callback may close the server; it is freed here, when nothing of it is in use any more. */
static enum link_read read_one(struct link_server *server, bool (*read)(struct link_server *server))
{
    server->in_call = true;
    bool one = read(server);
    server->in_call = false;
    if (server->closed) {
        free_server(server);
        return LINK_READ_CLOSED;
    }
    return one ? LINK_READ_ONE : LINK_READ_NONE;
}

static enum link_read on_router(void *context)
{
    return read_one(context, read_message);
}

static enum link_read on_zap(void *context)
{
    return read_one(context, read_zap);
}

static enum link_read on_monitor(void *context)
{
    return read_one(context, read_monitor);
}

static int open_zap(struct link_server *server, struct error *err)
{
    void *zmq = zmq_socket(server->zmq_context, ZMQ_REP);
    if (!zmq)
        return error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    if (link_option_int(zmq, ZMQ_LINGER, 0, err) < 0 ||
        link_socket_attach(&server->zap, server->loop, zmq, on_zap, server, err) < 0)
        return -1;
    if (zmq_bind(zmq, "inproc://zeromq.zap.01") < 0)
        return error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    return 0;
}

static int bind_router(struct link_server *server, const char *address, struct error *err)
{
    char endpoint[300], bound[300] = "";
    size_t size = sizeof bound;
    void *zmq = server->router.zmq;
    if (link_endpoint(address, true, zmq, endpoint, sizeof endpoint, err) < 0)
        return -1;
    if (zmq_bind(zmq, endpoint) < 0) {
        if (zmq_errno() == EADDRINUSE)
            return error_set(err, ERROR_CONFLICT,
                             "%s is in use by another program: stop it, or choose another port "
                             "with --listen",
                             address);
        return error_set(err, ERROR_FAILED, "cannot listen on %s: %s", address,
                         zmq_strerror(zmq_errno()));
    }
    (void)zmq_getsockopt(zmq, ZMQ_LAST_ENDPOINT, bound, &size);
    (void)snprintf(server->address, sizeof server->address, "%s",
                   strncmp(bound, "tcp://", 6) == 0 ? bound + 6 : bound);
    return 0;
}

static int open_router(struct link_server *server, const char *address,
                       const struct link_keys *keys, struct error *err)
{
    const int monitored = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                          ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    void *zmq = zmq_socket(server->zmq_context, ZMQ_ROUTER);
    if (!zmq)
        return error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    if (link_socket_attach(&server->router, server->loop, zmq, on_router, server, err) < 0)
        return -1;
    /* A domain makes libzmq insist on our handler's answer. */
    /* Clients send the heartbeats and we answer. Our own would cost O(peers) each, as libzmq looks
     * for a timer among all of them; that a peer's host is gone the kernel tells us as soon. */
    if (link_socket_limits(zmq, err) < 0 || link_option_int(zmq, ZMQ_HEARTBEAT_IVL, 0, err) < 0 ||
        link_option_int(zmq, ZMQ_TCP_KEEPALIVE, 1, err) < 0 ||
        link_option_int(zmq, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S, err) < 0 ||
        link_option_int(zmq, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S, err) < 0 ||
        link_option_int(zmq, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES, err) < 0 ||
        link_option_int(zmq, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MAX_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_LINGER, 200, err) < 0 ||
        link_option_int(zmq, ZMQ_BACKLOG, 512, err) < 0 ||
        link_option_int(zmq, ZMQ_ROUTER_MANDATORY, 1, err) < 0 ||
        link_option_int(zmq, ZMQ_CURVE_SERVER, 1, err) < 0 ||
        link_option_bytes(zmq, ZMQ_CURVE_SECRETKEY, keys->secret_key, 32, err) < 0 ||
        link_option_bytes(zmq, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, strlen(ZAP_DOMAIN), err) < 0 ||
        link_monitor_attach(&server->monitor, server->loop, server->zmq_context, zmq, monitored,
                            on_monitor, server, err) < 0)
        return -1;
    return bind_router(server, address, err);
}

struct link_server *link_server_open(struct loop *loop, const char *address,
                                     const struct link_keys *keys,
                                     const struct link_server_events *events, void *context,
                                     struct error *err)
{
    struct link_server *server = calloc(1, sizeof *server);
    if (!server) {
        (void)error_errno(err, ENOMEM, "link");
        return NULL;
    }
    server->loop = loop;
    server->events = *events;
    server->context = context;
    server->zmq_context = zmq_ctx_new();
    if (!server->zmq_context) {
        (void)error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
        free_server(server);
        return NULL;
    }
    if (open_zap(server, err) < 0 || open_router(server, address, keys, err) < 0) {
        free_server(server);
        return NULL;
    }
    return server;
}

const char *link_server_address(const struct link_server *server)
{
    return server->address;
}
