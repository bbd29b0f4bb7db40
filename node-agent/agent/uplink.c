#include "node-agent/agent/uplink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"

#define REFUSAL_LOG_INTERVAL_MS 10000

enum uplink_phase { UPLINK_JOINING, UPLINK_TRYING_OWN_KEY, UPLINK_JOINED };

struct uplink {
    struct loop *loop;
    const char *state_dir;
    struct identity *identity;
    struct link_token token;
    struct link_client *client;
    struct uplink_events events;
    void *context;
    enum uplink_phase phase;
    bool spare_token; /* joined, but not welcomed since the start: perhaps removed meanwhile */
    bool welcomed;
    int64_t refusal_logged_ms;
};

static int connect_link(struct uplink *uplink, struct error *err);

static void give_up(struct uplink *uplink, const struct error *err)
{
    link_client_close(uplink->client);
    uplink->client = NULL;
    uplink->events.failed(uplink->context, err);
}

/* Leaves the present connection and starts the one of the present phase. */
static void reconnect(struct uplink *uplink)
{
    struct error err = ERROR_INIT;
    link_client_close(uplink->client);
    uplink->client = NULL;
    uplink->welcomed = false;
    if (connect_link(uplink, &err) < 0)
        give_up(uplink, &err);
}

static void on_connected(void *context)
{
    struct uplink *uplink = context;
    log_info("connected to the controller at %s", uplink->identity->address);
    uplink->events.greet(uplink->context, uplink->phase == UPLINK_JOINING);
}

static void on_disconnected(void *context)
{
    struct uplink *uplink = context;
    log_warn("lost the controller at %s; guests run on, reconnecting", uplink->identity->address);
    uplink->welcomed = false;
    uplink->events.disconnected(uplink->context);
}

static void try_own_key(struct uplink *uplink, const char *reason)
{
    log_debug("the token was refused (%s); trying the node's own key", reason);
    uplink->phase = UPLINK_TRYING_OWN_KEY;
    reconnect(uplink);
}

static void refuse_join(struct uplink *uplink, enum error_kind kind, const char *reason)
{
    struct error err;
    (void)error_set(&err, kind, "cannot join: %s", reason);
    give_up(uplink, &err);
}

/* A node that was removed from the pool comes back with a new token, and needs nothing else. */
static bool join_anew(struct uplink *uplink)
{
    if (uplink->phase != UPLINK_JOINED || !uplink->spare_token)
        return false;
    log_info("the pool does not know this node any more: joining it again with the token");
    uplink->spare_token = false;
    uplink->phase = UPLINK_JOINING;
    reconnect(uplink);
    return true;
}

static void on_refused(void *context, const char *reason)
{
    struct uplink *uplink = context;
    int64_t now_ms = clock_monotonic_ms();
    if (uplink->phase == UPLINK_JOINING) {
        try_own_key(uplink, reason);
        return;
    }
    if (uplink->phase == UPLINK_TRYING_OWN_KEY) {
        char text[ERROR_TEXT_MAX];
        (void)snprintf(text, sizeof text,
                       "%s. A token works once and expires; make a new one with: poolctl node "
                       "token",
                       reason);
        refuse_join(uplink, ERROR_UNREACHABLE, text);
        return;
    }
    if (join_anew(uplink))
        return;
    if (uplink->refusal_logged_ms && now_ms - uplink->refusal_logged_ms < REFUSAL_LOG_INTERVAL_MS)
        return;
    uplink->refusal_logged_ms = now_ms;
    log_error("%s; if the node was removed from the pool, start pool-agent with --join and a new "
              "token (from: poolctl node token)",
              reason);
}

static void now_joined(struct uplink *uplink)
{
    struct error err = ERROR_INIT;
    if (identity_save_context(uplink->state_dir, uplink->identity, &err) < 0) {
        give_up(uplink, &err);
        return;
    }
    log_info("joined the pool of the controller at %s", uplink->identity->address);
    if (uplink->phase == UPLINK_JOINING) {
        uplink->phase = UPLINK_JOINED;
        reconnect(uplink);
        return;
    }
    uplink->phase = UPLINK_JOINED;
}

static void on_welcome(struct uplink *uplink, const Vmpool__NodeWelcome *welcome)
{
    if (welcome->protocol_version == 0 ||
        welcome->protocol_version > VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT) {
        log_error("the controller speaks protocol %u, this agent up to %u; upgrade pool-agent",
                  welcome->protocol_version, VMPOOL__PROTOCOL_VERSION__PROTOCOL_CURRENT);
        return;
    }
    if (uplink->phase == UPLINK_TRYING_OWN_KEY) {
        now_joined(uplink);
        if (!uplink->client)
            return;
    }
    uplink->welcomed = true;
    uplink->spare_token = false;
    uplink->events.welcome(uplink->context, welcome);
}

static void on_refusal_message(struct uplink *uplink, const Vmpool__Failure *failure)
{
    if (uplink->phase == UPLINK_JOINED)
        log_error("the controller refuses this node: %s", failure->text);
    else
        refuse_join(uplink, failure->kind ? (enum error_kind)failure->kind : ERROR_FAILED,
                    failure->text);
}

static void dispatch(struct uplink *uplink, const Vmpool__ControllerToNode *message)
{
    switch (message->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_JOINED:
        if (uplink->phase == UPLINK_JOINING)
            now_joined(uplink);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_WELCOME:
        if (uplink->phase != UPLINK_JOINING)
            on_welcome(uplink, message->welcome);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_REFUSED:
        on_refusal_message(uplink, message->refused);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY__NOT_SET:
        log_warn("the controller sent a message this agent does not know; upgrade pool-agent");
        break;
    default:
        if (uplink->welcomed)
            uplink->events.command(uplink->context, message);
        break;
    }
}

static void on_message(void *context, const uint8_t *data, size_t size)
{
    struct uplink *uplink = context;
    Vmpool__ControllerToNode *message = vmpool__controller_to_node__unpack(NULL, size, data);
    if (!message) {
        log_warn("the controller sent %zu bytes that are no message", size);
        return;
    }
    dispatch(uplink, message);
    vmpool__controller_to_node__free_unpacked(message, NULL);
}

static const struct link_client_events link_events = {
    .connected = on_connected,
    .disconnected = on_disconnected,
    .message = on_message,
    .refused = on_refused,
};

static int connect_link(struct uplink *uplink, struct error *err)
{
    const struct identity *identity = uplink->identity;
    const struct link_keys *keys =
        uplink->phase == UPLINK_JOINING ? &uplink->token.join_keys : &identity->keys;
    uplink->client = link_client_open(uplink->loop, identity->address, identity->server_key, keys,
                                      &link_events, uplink, err);
    return uplink->client ? 0 : -1;
}

/* A token for a pool the node is in already: its address counts, as the controller may have moved,
 * and all of it where the pool has forgotten the node. */
static int follow_token(struct uplink *uplink, struct error *err)
{
    struct identity *identity = uplink->identity;
    uplink->spare_token = true;
    if (strcmp(identity->address, uplink->token.address) == 0) {
        log_info("already in this pool: the token of --join is used only if the pool has forgotten "
                 "this node");
        return 0;
    }
    log_info("already in this pool, whose controller is now at %s", uplink->token.address);
    (void)snprintf(identity->address, sizeof identity->address, "%s", uplink->token.address);
    return identity_save_context(uplink->state_dir, identity, err);
}

static int read_token(struct uplink *uplink, const char *text, struct error *err)
{
    struct identity *identity = uplink->identity;
    if (!text)
        return identity->joined
                   ? 0
                   : error_set(err, ERROR_USAGE,
                               "this node is in no pool; join one with --join TOKEN (from: poolctl "
                               "node token)");
    if (link_token_parse(text, &uplink->token, err) < 0)
        return error_wrap(err, "--join");
    if (identity->joined) {
        if (memcmp(identity->server_key, uplink->token.server_key, 32) != 0)
            return error_set(err, ERROR_CONFLICT,
                             "this node is in another pool, of the controller at %s; to leave it, "
                             "remove %s and join again",
                             identity->address, uplink->state_dir);
        return follow_token(uplink, err);
    }
    uplink->phase = UPLINK_JOINING;
    (void)snprintf(identity->address, sizeof identity->address, "%s", uplink->token.address);
    memcpy(identity->server_key, uplink->token.server_key, 32);
    return 0;
}

struct uplink *uplink_open(struct loop *loop, const char *state_dir, struct identity *identity,
                           const char *token_text, const struct uplink_events *events,
                           void *context, struct error *err)
{
    struct uplink *uplink = calloc(1, sizeof *uplink);
    if (!uplink) {
        (void)error_errno(err, ENOMEM, "uplink");
        return NULL;
    }
    uplink->loop = loop;
    uplink->state_dir = state_dir;
    uplink->identity = identity;
    uplink->events = *events;
    uplink->context = context;
    uplink->phase = UPLINK_JOINED;
    if (read_token(uplink, token_text, err) < 0 || connect_link(uplink, err) < 0) {
        free(uplink);
        return NULL;
    }
    return uplink;
}

void uplink_close(struct uplink *uplink)
{
    if (!uplink)
        return;
    link_client_close(uplink->client);
    explicit_bzero(&uplink->token, sizeof uplink->token);
    free(uplink);
}

bool uplink_ready(const struct uplink *uplink)
{
    return uplink && uplink->welcomed;
}

int uplink_send(struct uplink *uplink, const Vmpool__NodeToController *message, struct error *err)
{
    if (!uplink || !uplink->client)
        return error_set(err, ERROR_UNREACHABLE, "no connection to the controller");
    size_t size = vmpool__node_to_controller__get_packed_size(message);
    auto_free uint8_t *packed = malloc(size + 1);
    if (!packed)
        return error_errno(err, ENOMEM, "sending to the controller");
    (void)vmpool__node_to_controller__pack(message, packed);
    return link_client_send(uplink->client, packed, size, err);
}
