#include "poolctl/session.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/link.h"
#include "common/units.h"
#include "poolctl/context.h"

#define UUID_SIZE 37
/* A refusal may come from a controller that is just stopping: another try is made, no more. */
#define REFUSED_MS 1000

struct answer {
    struct answer *next;
    Vmpool__AdminReply *reply;
};

/* A request that may still be answered, kept packed so that it can be sent again as it was. */
struct session_request {
    struct session_request *next;
    char id[UUID_SIZE];
    uint8_t *packed;
    size_t size;
    bool sent;      /* on the connection that stands */
    bool ever_sent; /* on any */
    bool ended;     /* the last answer came */
    struct answer *first;
    struct answer **last;
};

struct session {
    struct loop *loop;
    struct link_client *client;
    struct context context;
    struct session_request *requests;
    Vmpool__AdminReply *failed; /* see session_failed() */
    bool connected;
    bool interrupted;
    int64_t down_since_ms;
    uint64_t patience_ms;
    uint64_t answer_ms;
    int64_t refused_at_ms; /* of the first refusal since it was last connected */
    char refused[512];
};

/* ---- what the link tells --------------------------------------------------------------------- */

static void send_pending(struct session *session)
{
    struct error err = ERROR_INIT;
    for (struct session_request *request = session->requests; request; request = request->next)
        if (!request->sent && !request->ended)
            request->ever_sent |= request->sent =
                link_client_send(session->client, request->packed, request->size, &err) == 0;
}

static void on_connected(void *context)
{
    struct session *session = context;
    session->connected = true;
    session->refused[0] = '\0';
    send_pending(session);
}

static void on_disconnected(void *context)
{
    struct session *session = context;
    session->connected = false;
    session->down_since_ms = clock_monotonic_ms();
    for (struct session_request *request = session->requests; request; request = request->next)
        request->sent = false;
}

static void on_refused(void *context, const char *reason)
{
    struct session *session = context;
    if (!session->refused[0])
        session->refused_at_ms = clock_monotonic_ms();
    (void)snprintf(session->refused, sizeof session->refused, "%s", reason);
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct session *session = context;
    Vmpool__AdminReply *reply = vmpool__admin_reply__unpack(NULL, size, data);
    struct session_request *request = session->requests;
    while (reply && request && strcmp(request->id, reply->request_id) != 0)
        request = request->next;
    struct answer *answer = reply && request && !request->ended ? malloc(sizeof *answer) : NULL;
    if (!answer) { /* garbage, or the answer to a request that was given up */
        vmpool__admin_reply__free_unpacked(reply, NULL);
        return;
    }
    *answer = (struct answer){.reply = reply};
    *request->last = answer;
    request->last = &answer->next;
    request->ended = reply->done;
}

static void on_signal(void *context, int signal_number)
{
    struct session *session = context;
    (void)signal_number;
    session->interrupted = true;
}

/* ---- opening -------------------------------------------------------------------------------- */

static const char *context_words(const struct session *session, char *out, size_t size)
{
    if (session->context.name[0])
        (void)snprintf(out, size, "context '%s'", session->context.name);
    else
        (void)snprintf(out, size, "context file %.200s", session->context.file);
    return out;
}

static int unreachable(const struct session *session, struct error *err)
{
    char words[256];
    char time[32];
    context_words(session, words, sizeof words);
    if (session->refused[0])
        return error_set(err, ERROR_UNREACHABLE,
                         "%s (%s): get a new admin.context from the controller's state folder",
                         session->refused, words);
    units_format_ms(session->patience_ms, time, sizeof time);
    if (session->requests && session->requests->ever_sent)
        return error_set(err, ERROR_UNREACHABLE,
                         "the controller at %s (%s) went away and is not back within %s: whether "
                         "it did what was asked is seen with 'poolctl job ls' when it is",
                         session->context.address, words, time);
    return error_set(err, ERROR_UNREACHABLE,
                     "the controller at %s (%s) did not answer within %s: is pool-controller "
                     "running there, and is the key in the context its own?",
                     session->context.address, words, time);
}

/* One turn of the loop; fails where the connection is refused or stays lost. */
static int turn(struct session *session, int64_t until_ms, struct error *err)
{
    int64_t now = clock_monotonic_ms();
    if (!session->connected) {
        int64_t limit = session->down_since_ms + (int64_t)session->patience_ms;
        if (session->refused[0] && session->refused_at_ms + REFUSED_MS < limit)
            limit = session->refused_at_ms + REFUSED_MS;
        if (now >= limit)
            return unreachable(session, err);
        until_ms = limit < until_ms ? limit : until_ms;
    }
    int64_t wait_ms = until_ms > now ? until_ms - now : 0;
    return loop_run_once(session->loop, wait_ms > 60000 ? 60000 : (int)wait_ms, err);
}

struct session *session_open_within(const struct invocation *call, uint64_t connect_ms,
                                    uint64_t answer_ms, struct error *err)
{
    static const struct link_client_events events = {.connected = on_connected,
                                                     .disconnected = on_disconnected,
                                                     .message = on_message,
                                                     .refused = on_refused};
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        (void)error_set(err, ERROR_FAILED, "out of memory");
        return NULL;
    }
    session->down_since_ms = clock_monotonic_ms();
    session->patience_ms = connect_ms;
    session->answer_ms = answer_ms;
    if (context_resolve(call, &session->context, err) < 0 || !(session->loop = loop_new(err)))
        goto fail;
    session->client =
        link_client_open(session->loop, session->context.address, session->context.server_key,
                         &session->context.keys, &events, session, err);
    if (!session->client)
        goto fail;
    while (!session->connected)
        if (turn(session, INT64_MAX, err) < 0)
            goto fail;
    return session;
fail:
    session_close(session);
    return NULL;
}

struct session *session_open(const struct invocation *call, struct error *err)
{
    uint64_t connect_ms = SESSION_CONNECT_MS;
    if (invocation_ms(call, "connect-timeout", &connect_ms, err) < 0)
        return NULL;
    return session_open_within(call, connect_ms, SESSION_ANSWER_MS, err);
}

void session_close(struct session *session)
{
    if (!session)
        return;
    while (session->requests)
        session_end(session, session->requests);
    vmpool__admin_reply__free_unpacked(session->failed, NULL);
    if (session->client)
        link_client_close(session->client);
    loop_free(session->loop);
    explicit_bzero(&session->context.keys, sizeof session->context.keys);
    free(session);
}

/* ---- requests ------------------------------------------------------------------------------- */

/* A random UUID, version 4 (RFC 4122, 4.4). */
static int make_uuid(char out[UUID_SIZE], struct error *err)
{
    uint8_t bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return error_set(err, ERROR_FAILED, "the kernel gives no random numbers");
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
    size_t used = 0;
    for (int i = 0; i < 16; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t)snprintf(out + used, UUID_SIZE - used, dash ? "-%02x" : "%02x", bytes[i]);
    }
    return 0;
}

static uint8_t *pack(Vmpool__AdminRequest *request, char *id, size_t *size, struct error *err)
{
    request->protocol_version = VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT;
    request->request_id = id;
    *size = vmpool__admin_request__get_packed_size(request);
    uint8_t *packed = *size <= LINK_MESSAGE_MAX ? malloc(*size ? *size : 1) : NULL;
    if (packed)
        (void)vmpool__admin_request__pack(request, packed);
    else
        (void)error_set(err, ERROR_FAILED, "a request of %zu bytes is too large", *size);
    request->request_id = NULL;
    return packed;
}

struct session_request *session_begin(struct session *session, Vmpool__AdminRequest *request,
                                      struct error *err)
{
    struct session_request *made = calloc(1, sizeof *made);
    if (!made) {
        (void)error_set(err, ERROR_FAILED, "out of memory");
        return NULL;
    }
    made->last = &made->first;
    if (make_uuid(made->id, err) < 0 ||
        !(made->packed = pack(request, made->id, &made->size, err))) {
        free(made);
        return NULL;
    }
    made->next = session->requests;
    session->requests = made;
    if (session->connected)
        send_pending(session);
    return made;
}

void session_end(struct session *session, struct session_request *request)
{
    struct session_request **link = &session->requests;
    while (*link && *link != request)
        link = &(*link)->next;
    if (!request || !*link)
        return;
    *link = request->next;
    while (request->first) {
        struct answer *answer = request->first;
        request->first = answer->next;
        vmpool__admin_reply__free_unpacked(answer->reply, NULL);
        free(answer);
    }
    free(request->packed);
    free(request);
}

static Vmpool__AdminReply *take_answer(struct session_request *request)
{
    struct answer *answer = request->first;
    if (!answer)
        return NULL;
    request->first = answer->next;
    if (!request->first)
        request->last = &request->first;
    Vmpool__AdminReply *reply = answer->reply;
    free(answer);
    return reply;
}

int session_next(struct session *session, struct session_request *request, int timeout_ms,
                 Vmpool__AdminReply **reply, struct error *err)
{
    vmpool__admin_reply__free_unpacked(session->failed, NULL);
    session->failed = NULL;
    *reply = take_answer(request);
    if (!*reply) {
        if (session->connected)
            send_pending(session); /* where the link's queue was full */
        if (turn(session, clock_monotonic_ms() + timeout_ms, err) < 0)
            return -1;
        *reply = take_answer(request);
    }
    if (!*reply)
        return 0;
    const Vmpool__Failure *failure = (*reply)->failure;
    if (!failure || failure->kind == ERROR_NONE)
        return 1;
    (void)error_set(
        err, failure->kind <= ERROR_UNREACHABLE ? (enum error_kind)failure->kind : ERROR_FAILED,
        "%s", failure->text);
    session->failed = *reply;
    *reply = NULL;
    return -1;
}

int session_await(struct session *session, struct session_request *request,
                  Vmpool__AdminReply **reply, struct error *err)
{
    char time[32];
    int64_t until_ms = clock_monotonic_ms() + (int64_t)session->answer_ms;
    int got = 0;
    while (got == 0) {
        int64_t left_ms = until_ms - clock_monotonic_ms();
        if (left_ms <= 0)
            return error_set(err, ERROR_TIMEOUT,
                             "the controller at %s took the request but did not answer it within "
                             "%s",
                             session->context.address,
                             units_format_ms(session->answer_ms, time, sizeof time));
        got = session_next(session, request, (int)left_ms, reply, err);
    }
    return got;
}

int session_call(struct session *session, Vmpool__AdminRequest *request, Vmpool__AdminReply **reply,
                 struct error *err)
{
    struct session_request *made = session_begin(session, request, err);
    int got = made ? session_await(session, made, reply, err) : -1;
    if (got < 0)
        *reply = NULL;
    session_end(session, made);
    return got < 0 ? -1 : 0;
}

const Vmpool__AdminReply *session_failed(const struct session *session)
{
    return session->failed;
}

int session_post(struct session *session, Vmpool__AdminRequest *request, struct error *err)
{
    char id[UUID_SIZE];
    size_t size = 0;
    if (make_uuid(id, err) < 0)
        return -1;
    auto_free uint8_t *packed = pack(request, id, &size, err);
    return packed ? link_client_send(session->client, packed, size, err) : -1;
}

/* ---- the rest ------------------------------------------------------------------------------- */

int session_catch_interrupts(struct session *session, struct error *err)
{
    if (loop_add_signal(session->loop, SIGINT, on_signal, session, err) < 0)
        return -1;
    return loop_add_signal(session->loop, SIGTERM, on_signal, session, err);
}

bool session_interrupted(const struct session *session)
{
    return session->interrupted;
}

bool session_connected(const struct session *session)
{
    return session->connected;
}

void session_set_patience(struct session *session, uint64_t patience_ms)
{
    session->patience_ms = patience_ms;
}

struct loop *session_loop(struct session *session)
{
    return session->loop;
}

const char *session_address(const struct session *session)
{
    return session->context.address;
}

const char *session_request_id(const struct session_request *request)
{
    return request->id;
}
