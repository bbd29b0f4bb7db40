/* Both ends of a link over real sockets, in one loop. */
#include "common/link.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"

static struct loop *loop;
static struct link_keys server_keys, client_keys;

struct server {
    struct link_server *link;
    unsigned messages, refusals;
    size_t bytes;
    char user[LINK_USER_MAX], refused_address[64], refused_reason[128];
    bool echo, close_on_message;
};

struct client {
    struct link_client *link;
    unsigned messages, connects, disconnects, refusals;
    size_t bytes;
    char last[64], reason[256];
};

static bool authorise(void *context, const uint8_t key[32], const char *address, char *user)
{
    (void)context;
    cr_assert_str_eq(address, "127.0.0.1");
    if (memcmp(key, client_keys.public_key, 32) != 0)
        return false;
    (void)snprintf(user, LINK_USER_MAX, "node:n1");
    return true;
}

static void server_message(void *context, const struct link_peer *peer, const uint8_t *data,
                           size_t size)
{
    struct server *server = context;
    struct error err = ERROR_INIT;
    server->messages++;
    server->bytes += size;
    (void)snprintf(server->user, sizeof server->user, "%s", peer->user);
    cr_assert_str_eq(peer->address, "127.0.0.1");
    if (server->echo)
        cr_assert_eq(link_server_send(server->link, peer, data, size, &err), 0, "%s", err.text);
    if (server->close_on_message) {
        link_server_close(server->link);
        server->link = NULL;
    }
}

static void server_refused(void *context, const char *address, const char *reason)
{
    struct server *server = context;
    server->refusals++;
    (void)snprintf(server->refused_address, sizeof server->refused_address, "%s", address);
    (void)snprintf(server->refused_reason, sizeof server->refused_reason, "%s", reason);
}

static const struct link_server_events server_events = {authorise, server_message, server_refused};

static void on_connected(void *context)
{
    ((struct client *)context)->connects++;
}

static void on_disconnected(void *context)
{
    ((struct client *)context)->disconnects++;
}

static void client_message(void *context, const uint8_t *data, size_t size)
{
    struct client *client = context;
    client->messages++;
    client->bytes += size;
    (void)snprintf(client->last, sizeof client->last, "%.*s", (int)(size < 60 ? size : 60),
                   (const char *)data);
}

static void client_refused(void *context, const char *reason)
{
    struct client *client = context;
    client->refusals++;
    (void)snprintf(client->reason, sizeof client->reason, "%s", reason);
}

static const struct link_client_events client_events = {on_connected, on_disconnected,
                                                        client_message, client_refused};

static void start(void)
{
    struct error err = ERROR_INIT;
    loop = loop_new(&err);
    cr_assert(loop);
    cr_assert_eq(link_keys_generate(&server_keys, &err), 0);
    cr_assert_eq(link_keys_generate(&client_keys, &err), 0);
}

static void finish(void)
{
    loop_free(loop);
}

TestSuite(link, .init = start, .fini = finish, .timeout = 40);

static void open_server(struct server *server, const char *address)
{
    struct error err = ERROR_INIT;
    server->link = link_server_open(loop, address, &server_keys, &server_events, server, &err);
    cr_assert(server->link, "%s", err.text);
}

static void open_client(struct client *client, const char *address, const struct link_keys *keys,
                        const uint8_t server_key[32])
{
    struct error err = ERROR_INIT;
    client->link = link_client_open(loop, address, server_key, keys, &client_events, client, &err);
    cr_assert(client->link, "%s", err.text);
}

/* Runs the loop until *@count reaches @value, at most @limit_ms. */
static bool await(const unsigned *count, unsigned value, int limit_ms)
{
    struct error err = ERROR_INIT;
    int64_t end_ms = clock_monotonic_ms() + limit_ms;
    while (*count < value && clock_monotonic_ms() < end_ms)
        cr_assert_eq(loop_run_once(loop, 50, &err), 0);
    return *count >= value;
}

static const unsigned never;

static void send_text(struct client *client, const char *text)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(link_client_send(client->link, text, strlen(text), &err), 0, "%s", err.text);
}

Test(link, a_known_key_speaks_and_is_answered_by_name)
{
    struct server server = {.echo = true};
    struct client client = {0};
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    send_text(&client, "hello");
    cr_assert(await(&client.messages, 1, 5000));
    cr_assert_str_eq(server.user, "node:n1");
    cr_assert_str_eq(client.last, "hello");
    cr_assert_eq(server.refusals, 0);
    link_client_close(client.link);
    link_server_close(server.link);
}

/* More than a batch, and more than one edge of ZMQ_FD can tell of. */
Test(link, a_thousand_messages_all_arrive_in_both_directions)
{
    struct server server = {.echo = true};
    struct client client = {0};
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    for (unsigned i = 0; i < 1000; i++)
        send_text(&client, "0123456789");
    cr_assert(await(&client.messages, 1000, 10000), "%u of 1000", client.messages);
    cr_assert_eq(server.messages, 1000);
    link_client_close(client.link);
    link_server_close(server.link);
}

Test(link, an_unknown_key_is_refused_told_and_reported_once_with_its_address)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    struct client client = {0};
    struct link_keys stranger;
    cr_assert_eq(link_keys_generate(&stranger, &err), 0);
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &stranger, server_keys.public_key);
    cr_assert(await(&client.refusals, 3, 10000)); /* it tries again and again */
    cr_assert(strstr(client.reason, "does not know our key"), "%s", client.reason);
    cr_assert_eq(client.connects, 0);
    cr_assert_eq(server.refusals, 1);
    cr_assert_str_eq(server.refused_address, "127.0.0.1");
    cr_assert(strstr(server.refused_reason, "key"), "%s", server.refused_reason);
    cr_assert_eq(link_client_send(client.link, "x", 1, &err), -1);
    cr_assert_eq(err.kind, ERROR_UNREACHABLE);
    cr_assert_eq(server.messages, 0);
    link_client_close(client.link);
    link_server_close(server.link);
}

Test(link, a_client_with_the_wrong_server_key_learns_it)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    struct client client = {0};
    struct link_keys other;
    cr_assert_eq(link_keys_generate(&other, &err), 0);
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, other.public_key);
    cr_assert(await(&client.refusals, 1, 10000));
    cr_assert(strstr(client.reason, "not the one whose key we have"), "%s", client.reason);
    cr_assert_eq(client.connects, 0);
    cr_assert_eq(server.messages, 0);
    link_client_close(client.link);
    link_server_close(server.link);
}

Test(link, a_client_without_encryption_is_refused)
{
    struct server server = {0};
    char endpoint[320];
    open_server(&server, "127.0.0.1:0");
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", link_server_address(server.link));
    void *context = zmq_ctx_new();
    void *plain = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    cr_assert_eq(zmq_setsockopt(plain, ZMQ_LINGER, &linger, sizeof linger), 0);
    cr_assert_eq(zmq_connect(plain, endpoint), 0);
    cr_assert_eq(zmq_send(plain, "hello", 5, 0), 5);
    cr_assert(await(&server.refusals, 1, 10000));
    cr_assert_eq(await(&never, 1, 300), false);
    cr_assert_eq(server.messages, 0);
    (void)zmq_close(plain);
    (void)zmq_ctx_term(context);
    link_server_close(server.link);
}

static int raw_connection(const struct server *server)
{
    const char *colon = strrchr(link_server_address(server->link), ':');
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(colon + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

Test(link, garbage_on_the_port_is_refused_once_and_others_are_served_on)
{
    struct server server = {.echo = true};
    struct client client = {0};
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    static const char *const garbage[] = {
        "GET / HTTP/1.1\r\nHost: pool\r\n\r\n",
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x03garbage garbage garbage garbage garbage",
        "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c",
    };
    for (unsigned i = 0; i < 30; i++) {
        const char *text = garbage[i % 3];
        int fd = raw_connection(&server);
        (void)send(fd, text, strlen(text), MSG_NOSIGNAL);
        (void)await(&never, 1, 20);
        (void)close(fd);
    }
    cr_assert(await(&server.refusals, 1, 5000));
    (void)await(&never, 1, 300);
    /* Once per address; the address of one that was gone too soon is "unknown". */
    cr_assert_leq(server.refusals, 2);
    send_text(&client, "still here");
    cr_assert(await(&client.messages, 1, 5000));
    cr_assert_eq(server.messages, 1);
    link_client_close(client.link);
    link_server_close(server.link);
}

/* A peer with a good key that breaks the limit: a plain ZeroMQ socket without one of its own. */
Test(link, an_oversized_frame_never_arrives)
{
    struct server server = {0};
    char endpoint[320];
    open_server(&server, "127.0.0.1:0");
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", link_server_address(server.link));
    void *context = zmq_ctx_new();
    void *dealer = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    cr_assert_eq(zmq_setsockopt(dealer, ZMQ_LINGER, &linger, sizeof linger), 0);
    cr_assert_eq(zmq_setsockopt(dealer, ZMQ_CURVE_SERVERKEY, server_keys.public_key, 32), 0);
    cr_assert_eq(zmq_setsockopt(dealer, ZMQ_CURVE_PUBLICKEY, client_keys.public_key, 32), 0);
    cr_assert_eq(zmq_setsockopt(dealer, ZMQ_CURVE_SECRETKEY, client_keys.secret_key, 32), 0);
    cr_assert_eq(zmq_connect(dealer, endpoint), 0);
    size_t size = 4 * LINK_MESSAGE_MAX;
    char *big = calloc(1, size);
    cr_assert_eq(zmq_send(dealer, big, LINK_MESSAGE_MAX + 1, 0), LINK_MESSAGE_MAX + 1);
    cr_assert_eq(zmq_send(dealer, big, size, 0), (int)size);
    (void)await(&never, 1, 500);
    cr_assert_eq(server.messages, 0);
    /* And several frames are no message of ours; the next good one is. */
    cr_assert_eq(zmq_send(dealer, "a", 1, ZMQ_SNDMORE), 1);
    cr_assert_eq(zmq_send(dealer, "b", 1, ZMQ_SNDMORE), 1);
    cr_assert_eq(zmq_send(dealer, "c", 1, 0), 1);
    cr_assert_eq(zmq_send(dealer, "good", 4, 0), 4);
    cr_assert(await(&server.messages, 1, 8000));
    cr_assert_eq(server.bytes, 4);
    free(big);
    (void)zmq_close(dealer);
    (void)zmq_ctx_term(context);
    link_server_close(server.link);
}

Test(link, the_largest_message_passes_and_a_larger_one_is_not_sent)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    struct client client = {0};
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    char *big = calloc(1, LINK_MESSAGE_MAX + 1);
    cr_assert_eq(link_client_send(client.link, big, LINK_MESSAGE_MAX + 1, &err), -1);
    cr_assert_eq(link_client_send(client.link, big, LINK_MESSAGE_MAX, &err), 0, "%s", err.text);
    cr_assert(await(&server.messages, 1, 8000));
    cr_assert_eq(server.bytes, LINK_MESSAGE_MAX);
    free(big);
    link_client_close(client.link);
    link_server_close(server.link);
}

Test(link, a_client_finds_a_restarted_server_again)
{
    struct error err = ERROR_INIT;
    struct server server = {.echo = true};
    struct client client = {0};
    char address[300];
    open_server(&server, "127.0.0.1:0");
    (void)snprintf(address, sizeof address, "%s", link_server_address(server.link));
    open_client(&client, address, &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    link_server_close(server.link);
    cr_assert(await(&client.disconnects, 1, 5000));
    cr_assert_eq(link_client_send(client.link, "x", 1, &err), -1);
    cr_assert_eq(err.kind, ERROR_UNREACHABLE);
    open_server(&server, address);
    cr_assert(await(&client.connects, 2, 10000));
    send_text(&client, "again");
    cr_assert(await(&client.messages, 1, 5000));
    cr_assert_str_eq(client.last, "again");
    link_client_close(client.link);
    link_server_close(server.link);
}

Test(link, a_port_in_use_says_what_to_change)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    open_server(&server, "127.0.0.1:0");
    cr_assert_null(link_server_open(loop, link_server_address(server.link), &server_keys,
                                    &server_events, &server, &err));
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert(strstr(err.text, "--listen"), "%s", err.text);
    link_server_close(server.link);
}

Test(link, addresses_that_are_none_are_refused)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    static const char *const bad[] = {"",      "7400",          "host",      ":7400",
                                      "a b:1", "127.0.0.1:",    "::1:7400",  "127.0.0.1:65536",
                                      "*:1",   "127.0.0.1:7x0", "[::1]7400", "h:-1"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_null(link_server_open(loop, bad[i], &server_keys, &server_events, &server, &err),
                       "\"%s\" was taken", bad[i]);
        cr_assert_eq(err.kind, ERROR_USAGE, "\"%s\": %s", bad[i], err.text);
    }
    cr_assert_null(link_client_open(loop, "127.0.0.1:0", server_keys.public_key, &client_keys,
                                    &client_events, NULL, &err));
}

Test(link, sending_to_a_peer_that_left_is_told_and_no_error)
{
    struct error err = ERROR_INIT;
    struct server server = {0};
    struct link_peer gone = {.routing_id = {0, 1, 2, 3, 4}, .routing_length = 5};
    open_server(&server, "127.0.0.1:0");
    cr_assert_eq(link_server_send(server.link, &gone, "x", 1, &err), 1, "%s", err.text);
    link_server_close(server.link);
}

Test(link, a_server_may_be_closed_inside_its_own_callback)
{
    struct server server = {.close_on_message = true};
    struct client client = {0};
    open_server(&server, "127.0.0.1:0");
    open_client(&client, link_server_address(server.link), &client_keys, server_keys.public_key);
    cr_assert(await(&client.connects, 1, 5000));
    send_text(&client, "one");
    send_text(&client, "two");
    cr_assert(await(&client.disconnects, 1, 5000));
    cr_assert_eq(server.messages, 1);
    link_client_close(client.link);
}
