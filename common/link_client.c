/*
 * The connecting end of a link: a DEALER and its monitor. Only the monitor knows whether the
 * encrypted connection stands, so connected() and disconnected() come from there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/link.h"
#include "common/link_socket.h"

#define RECONNECT_MS     100
#define RECONNECT_MAX_MS 2000
#define CONNECT_MS       5000
/* libzmq gives up for good on a peer that refused it or spoke something else; we don't: a key may
 * become known, a port may be taken over by the right program. */
#define REFUSED_RETRY_MS 2000
/* How long closing waits for what was already queued to leave. */
#define LINGER_MS 500

struct link_client {
    void *zmq_context;
    bool shared_context;
    struct link_socket dealer, monitor;
    struct loop_source *retry;
    struct link_client_events events;
    void *context;
    char address[256];
    char endpoint[300];
    bool connected;
    bool in_call;
    bool closed; /* inside a callback: freed when it returns */
};

static void free_client(struct link_client *client)
{
    if (client->dealer.zmq && !client->connected) {
        int none = 0;
        (void)zmq_setsockopt(client->dealer.zmq, ZMQ_LINGER, &none, sizeof none);
    }
    loop_remove(client->retry);
    link_socket_close(&client->monitor);
    link_socket_close(&client->dealer);
    if (client->zmq_context && !client->shared_context)
        (void)zmq_ctx_term(client->zmq_context);
    free(client);
}

void link_client_close(struct link_client *client)
{
    if (!client)
        return;
    client->closed = true;
    if (!client->in_call)
        free_client(client);
}

static enum link_read after_call(struct link_client *client)
{
    client->in_call = false;
    if (!client->closed)
        return LINK_READ_ONE;
    free_client(client);
    return LINK_READ_CLOSED;
}

static enum link_read read_message(void *context)
{
    struct link_client *client = context;
    zmq_msg_t body;
    (void)zmq_msg_init(&body);
    if (zmq_msg_recv(&body, client->dealer.zmq, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&body);
        return LINK_READ_NONE;
    }
    /* The server sends single frames; each frame of anything else fails to parse on its own. */
    client->in_call = true;
    client->events.message(client->context, zmq_msg_data(&body), zmq_msg_size(&body));
    (void)zmq_msg_close(&body);
    return after_call(client);
}

static void connect_again(void *context)
{
    struct link_client *client = context;
    client->retry = NULL;
    (void)zmq_disconnect(client->dealer.zmq, client->endpoint); /* mostly gone already */
    (void)zmq_connect(client->dealer.zmq, client->endpoint);
}

static void refused_for_good(struct link_client *client)
{
    if (!client->retry)
        client->retry =
            loop_add_timer(client->dealer.loop, REFUSED_RETRY_MS, 0, connect_again, client);
}

static void refused(struct link_client *client, const char *reason)
{
    char text[512];
    (void)snprintf(text, sizeof text, "the controller at %s %s", client->address, reason);
    if (client->events.refused)
        client->events.refused(client->context, text);
}

static void on_event(struct link_client *client, uint16_t event)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        client->connected = true;
        if (client->events.connected)
            client->events.connected(client->context);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (client->connected) {
            client->connected = false;
            if (client->events.disconnected)
                client->events.disconnected(client->context);
        }
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        refused_for_good(client);
        refused(client, "does not know our key");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        refused_for_good(client);
        refused(client, "is not a vmpool controller, or not the one whose key we have");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        refused(client, "ended the connection during the handshake: it is just stopping, or not "
                        "the one whose key we have");
        break;
    default:
        break;
    }
}

static enum link_read read_monitor(void *context)
{
    struct link_client *client = context;
    uint16_t event = 0;
    uint32_t value = 0;
    if (!link_monitor_read(&client->monitor, &event, &value))
        return LINK_READ_NONE;
    client->in_call = true;
    on_event(client, event);
    return after_call(client);
}

int link_client_send(struct link_client *client, const void *data, size_t size, struct error *err)
{
    if (!client->connected)
        return error_set(err, ERROR_UNREACHABLE, "the controller at %s is not connected",
                         client->address);
    if (size > LINK_MESSAGE_MAX)
        return error_set(err, ERROR_FAILED, "a message of %zu bytes is longer than the limit of %u",
                         size, LINK_MESSAGE_MAX);
    int status = zmq_send(client->dealer.zmq, data, size, ZMQ_DONTWAIT);
    int reason = status < 0 ? zmq_errno() : 0;
    link_socket_sent(&client->dealer);
    if (status >= 0)
        return 0;
    return error_set(err, ERROR_UNREACHABLE, "the controller at %s does not take messages: %s",
                     client->address,
                     reason == EAGAIN ? "the queue is full" : zmq_strerror(reason));
}

static int set_options(void *zmq, const uint8_t server_key[32], const struct link_keys *keys,
                       struct error *err)
{
    /* IMMEDIATE: nothing is queued for a connection that does not stand. */
    if (link_socket_limits(zmq, err) < 0 || link_option_int(zmq, ZMQ_LINGER, LINGER_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_IMMEDIATE, 1, err) < 0 ||
        link_option_int(zmq, ZMQ_RECONNECT_IVL, RECONNECT_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS, err) < 0 ||
        link_option_int(zmq, ZMQ_CONNECT_TIMEOUT, CONNECT_MS, err) < 0 ||
        link_option_bytes(zmq, ZMQ_CURVE_SERVERKEY, server_key, 32, err) < 0 ||
        link_option_bytes(zmq, ZMQ_CURVE_PUBLICKEY, keys->public_key, 32, err) < 0 ||
        link_option_bytes(zmq, ZMQ_CURVE_SECRETKEY, keys->secret_key, 32, err) < 0)
        return -1;
    return 0;
}

static int open_dealer(struct link_client *client, struct loop *loop, const uint8_t server_key[32],
                       const struct link_keys *keys, struct error *err)
{
    const int monitored = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                          ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    void *zmq = zmq_socket(client->zmq_context, ZMQ_DEALER);
    if (!zmq)
        return error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    if (link_socket_attach(&client->dealer, loop, zmq, read_message, client, err) < 0 ||
        set_options(zmq, server_key, keys, err) < 0 ||
        link_endpoint(client->address, false, zmq, client->endpoint, sizeof client->endpoint, err) <
            0 ||
        link_monitor_attach(&client->monitor, loop, client->zmq_context, zmq, monitored,
                            read_monitor, client, err) < 0)
        return -1;
    if (zmq_connect(zmq, client->endpoint) < 0)
        return error_set(err, ERROR_UNREACHABLE, "cannot connect to %s: %s", client->address,
                         zmq_strerror(zmq_errno()));
    return 0;
}

struct link_context *link_context_new(void)
{
    void *context = zmq_ctx_new();
    /* The default is 1023 sockets; each client has three. */
    if (context)
        (void)zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 65536);
    return context;
}

void link_context_free(struct link_context *context)
{
    if (context)
        (void)zmq_ctx_term(context);
}

struct link_client *link_client_open_in(struct link_context *in, struct loop *loop,
                                        const char *address, const uint8_t server_key[32],
                                        const struct link_keys *keys,
                                        const struct link_client_events *events, void *context,
                                        struct error *err)
{
    struct link_client *client = calloc(1, sizeof *client);
    if (!client) {
        (void)error_errno(err, ENOMEM, "link");
        return NULL;
    }
    client->events = *events;
    client->context = context;
    (void)snprintf(client->address, sizeof client->address, "%s", address);
    client->shared_context = in != NULL;
    client->zmq_context = in ? (void *)in : zmq_ctx_new();
    if (!client->zmq_context)
        (void)error_set(err, ERROR_FAILED, "ZeroMQ: %s", zmq_strerror(zmq_errno()));
    else if (open_dealer(client, loop, server_key, keys, err) == 0)
        return client;
    free_client(client);
    return NULL;
}

struct link_client *link_client_open(struct loop *loop, const char *address,
                                     const uint8_t server_key[32], const struct link_keys *keys,
                                     const struct link_client_events *events, void *context,
                                     struct error *err)
{
    return link_client_open_in(NULL, loop, address, server_key, keys, events, context, err);
}
