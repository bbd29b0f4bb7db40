/*
 * uplink.h: the node's connection to its controller, from the join to every later welcome.
 *
 *     token given, not joined:  connect with the token's key -> JOIN -> joined -> context saved
 *                               (refused: perhaps this node joined and died before it could
 *                               note so: the node's own key is tried before giving up)
 *     joined:                   connect with the node's key -> HELLO -> welcome -> reports,
 *                               commands, and again HELLO after each reconnect
 *                               (refused at the first attempt and a token given: the node was
 *                               removed from the pool, and joins it again)
 *
 * Commands are delivered only after the welcome of the present connection.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/agent/identity.h"
#include "proto/node.pb-c.h"

struct uplink;

struct uplink_events {
    /* The connection stands: send a JOIN (@joining) or a HELLO with uplink_send(). */
    void (*greet)(void *context, bool joining);
    void (*welcome)(void *context, const Vmpool__NodeWelcome *welcome);
    void (*command)(void *context, const Vmpool__ControllerToNode *command);
    void (*disconnected)(void *context);
    /* The node cannot take part in the pool: its join was refused. The agent should end. */
    void (*failed)(void *context, const struct error *err);
};

/* Connects with @identity, or joins first where it is not joined and @token_text is not NULL.
 * @identity and @state_dir must outlive the uplink. A node already joined needs a token of its own
 * controller only where that has forgotten it, and refuses one of another (ERROR_CONFLICT). */
struct uplink *uplink_open(struct loop *loop, const char *state_dir, struct identity *identity,
                           const char *token_text, const struct uplink_events *events,
                           void *context, struct error *err);
void uplink_close(struct uplink *uplink);

/* Whether the controller has welcomed this node on the present connection. */
bool uplink_ready(const struct uplink *uplink);

/* Packs and queues one message; ERROR_UNREACHABLE while there is no connection. */
int uplink_send(struct uplink *uplink, const Vmpool__NodeToController *message, struct error *err);
