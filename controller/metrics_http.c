#include "controller/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#define CONNECTIONS_MAX 16
#define SILENCE_MAX_S   10
#define AGE_MAX_MS      60000
#define HEAD_MAX        8192
#define ANSWER_MAX      (64u << 20)
#define ANSWERS_MAX     4
#define SHARED_MS       1000
#define BACKLOG         64

/* A page of measurements while anybody reads it; libmicrohttpd counts its readers. */
struct answer {
    struct metrics_http *http;
    struct MHD_Response *response;
    int64_t made_ms;
    char *text;
};

struct client {
    struct MHD_Connection *connection; /* NULL: a free place */
    int fd;
    int64_t since_ms;
};

struct metrics_http {
    struct loop *loop;
    struct loop_source *watch, *timer;
    struct MHD_Daemon *daemon;
    metrics_write_fn write;
    const void *context;
    struct answer *latest; /* NULL: nobody reads it any more */
    unsigned answers;      /* in memory */
    struct client clients[CONNECTIONS_MAX];
    unsigned port;
};

/* ---- answers ---- */

static void free_answer(void *context)
{
    struct answer *answer = context;
    if (answer->http->latest == answer)
        answer->http->latest = NULL;
    answer->http->answers--;
    free(answer->text);
    free(answer);
}

/* Takes @text's bytes. NULL where memory ran out. */
static struct answer *new_answer(struct metrics_http *http, struct metric_text *text)
{
    struct answer *answer = calloc(1, sizeof *answer);
    if (!answer)
        return NULL;
    answer->response = MHD_create_response_from_buffer_with_free_callback_cls(
        text->size, text->data, free_answer, answer);
    if (!answer->response) {
        free(answer);
        return NULL;
    }
    answer->http = http;
    answer->made_ms = clock_monotonic_ms();
    answer->text = text->data;
    text->data = NULL;
    http->answers++;
    http->latest = answer;
    return answer;
}

static enum MHD_Result queue(struct MHD_Connection *connection, unsigned status,
                             struct MHD_Response *response)
{
    /* Each question has a connection of its own, so that few places are enough for many clients. */
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *words)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(words), (void *)(uintptr_t)words, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET);
    return queue(connection, status, response);
}

static enum MHD_Result answer_metrics(struct metrics_http *http, struct MHD_Connection *connection)
{
    struct answer *answer = http->latest;
    if (answer && clock_monotonic_ms() - answer->made_ms < SHARED_MS)
        return MHD_queue_response(connection, MHD_HTTP_OK, answer->response);
    if (http->answers >= ANSWERS_MAX)
        return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "too many clients are reading: try again\n");
    struct metric_text text = {.limit = ANSWER_MAX};
    http->write(http->context, &text);
    answer = text.failed ? NULL : new_answer(http, &text);
    if (!answer) {
        log_error("metrics: the answer is longer than %u MiB, or there is no memory for it",
                  ANSWER_MAX >> 20);
        metric_text_free(&text);
        return refuse(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "the answer is too long\n");
    }
    (void)MHD_add_response_header(answer->response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                  METRIC_CONTENT_TYPE);
    return queue(connection, MHD_HTTP_OK, answer->response);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    struct metrics_http *http = context;
    (void)version;
    (void)upload;
    (void)upload_size;
    (void)request;
    if (strcmp(url, "/metrics") != 0)
        return refuse(connection, MHD_HTTP_NOT_FOUND, "there is only /metrics\n");
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "there is only GET\n");
    return answer_metrics(http, connection);
}

/* ---- connections ---- */

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct metrics_http *http = context;
    (void)socket_context;
    const struct MHD_Connection *wanted = what == MHD_CONNECTION_NOTIFY_STARTED ? NULL : connection;
    struct client *client = http->clients, *end = http->clients + CONNECTIONS_MAX;
    while (client < end && client->connection != wanted)
        client++;
    if (client == end)
        return;
    *client = (struct client){0};
    const union MHD_ConnectionInfo *info =
        wanted ? NULL : MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        *client = (struct client){connection, info->connect_fd, clock_monotonic_ms()};
}

static unsigned count_clients(const struct metrics_http *http)
{
    unsigned count = 0;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        count += http->clients[i].connection != NULL;
    return count;
}

/* One that trickles would never be silent. */
static void end_the_old(struct metrics_http *http)
{
    int64_t oldest_ms = clock_monotonic_ms() - AGE_MAX_MS;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (http->clients[i].connection && http->clients[i].since_ms < oldest_ms)
            (void)shutdown(http->clients[i].fd, SHUT_RDWR);
}

/* ---- the loop ---- */

#define LOOK_MS 1000

static void on_timer(void *context);

static void run(struct metrics_http *http)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = LOOK_MS;
    bool was_full = count_clients(http) == CONNECTIONS_MAX;
    end_the_old(http);
    (void)MHD_run(http->daemon);
    /* At its limit the daemon stops listening, and listens again in the run after a place is free,
     * which no descriptor would ask for. */
    if (was_full && count_clients(http) < CONNECTIONS_MAX)
        (void)MHD_run(http->daemon);
    bool waits = MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES || count_clients(http) > 0;
    if (wait_ms > LOOK_MS)
        wait_ms = LOOK_MS;
    loop_remove(http->timer);
    http->timer = waits ? loop_add_timer(http->loop, wait_ms, 0, on_timer, http) : NULL;
}

static void on_timer(void *context)
{
    struct metrics_http *http = context;
    http->timer = NULL; /* it frees itself */
    run(http);
}

static void on_ready(void *context, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    run(context);
}

/* ---- opening ---- */

/* Splits "HOST:PORT" and "[HOST]:PORT". Numbers only: a name would have to be asked for. */
static int parse(const char *address, struct addrinfo **found, struct error *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    char host[64];
    const char *colon = strrchr(address, ':');
    bool bracketed = address[0] == '[' && colon && colon[-1] == ']';
    size_t length = colon ? (size_t)(colon - address) : 0, cut = bracketed ? 1 : 0;
    if (length > 2 * cut && length < sizeof host && colon[1]) {
        memcpy(host, address + cut, length - 2 * cut);
        host[length - 2 * cut] = '\0';
        if ((bracketed || !strchr(host, ':')) && getaddrinfo(host, colon + 1, &hints, found) == 0)
            return 0;
    }
    return error_set(err, ERROR_USAGE,
                     "--metrics is a numeric ADDRESS:PORT, such as 127.0.0.1:7401, not \"%.80s\"",
                     address);
}

int metrics_http_check(const char *address, struct error *err)
{
    struct addrinfo *found = NULL;
    if (parse(address, &found, err) < 0)
        return -1;
    freeaddrinfo(found);
    return 0;
}

static int listen_at(const char *address, unsigned *port, struct error *err)
{
    struct addrinfo *found = NULL;
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    char service[8];
    const int on = 1;
    if (parse(address, &found, err) < 0)
        return -1;
    auto_fd int fd =
        socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    /* A port whose last connections are still being closed is free. */
    bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0 &&
                getsockname(fd, (struct sockaddr *)&bound, &size) == 0;
    int number = errno;
    freeaddrinfo(found);
    if (!good && number == EADDRINUSE)
        return error_set(err, ERROR_CONFLICT,
                         "--metrics %s is in use by another program: choose another port", address);
    if (!good)
        return error_errno(err, number, "cannot serve metrics at %s", address);
    if (getnameinfo((struct sockaddr *)&bound, size, NULL, 0, service, sizeof service,
                    NI_NUMERICSERV) == 0)
        *port = (unsigned)strtoul(service, NULL, 10);
    return take_fd(&fd);
}

/* The daemon owns @fd from here on. */
static struct MHD_Daemon *start(struct metrics_http *http, int fd)
{
    return MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SILENCE_MAX_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_MAX,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
}

struct metrics_http *metrics_http_open(struct loop *loop, const char *address,
                                       metrics_write_fn write, const void *context,
                                       struct error *err)
{
    unsigned port = 0;
    int fd = listen_at(address, &port, err);
    struct metrics_http *http = fd < 0 ? NULL : calloc(1, sizeof *http);
    if (!http) {
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    *http = (struct metrics_http){.loop = loop, .write = write, .context = context, .port = port};
    http->daemon = start(http, fd);
    const union MHD_DaemonInfo *info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        (void)error_set(err, ERROR_FAILED, "cannot serve metrics at %s: libmicrohttpd refuses",
                        address);
    else
        http->watch = loop_add_fd(loop, info->epoll_fd, EPOLLIN, on_ready, http, err);
    if (!http->watch) {
        metrics_http_close(http);
        return NULL;
    }
    return http;
}

void metrics_http_close(struct metrics_http *http)
{
    if (!http)
        return;
    loop_remove(http->timer);
    loop_remove(http->watch);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    free(http);
}

unsigned metrics_http_port(const struct metrics_http *http)
{
    return http->port;
}
