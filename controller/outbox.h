/* outbox.h: messages that leave only after what they tell of is in the store. */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "proto/admin.pb-c.h"
#include "proto/node.pb-c.h"

struct outbox *outbox_new(void);
void outbox_free(struct outbox *outbox);

/* Queues a message to an agent; it is packed at once, so @message stays the caller's. */
void outbox_node(struct controller *controller, const struct link_peer *peer,
                 const Vmpool__ControllerToNode *message);
/* Called where an admin can no longer be reached, so that streams to it end. */
typedef void (*outbox_gone_fn)(struct controller *controller, const struct link_peer *peer);
/* Queues a reply to an admin. */
void outbox_admin(struct controller *controller, const struct link_peer *peer,
                  const Vmpool__AdminReply *reply);

/* Sends all that waits. */
void outbox_send(struct controller *controller, outbox_gone_fn gone);
/* Tells the admins whose replies wait that @err has undone what they asked for, and forgets the
 * rest. */
void outbox_fail(struct controller *controller, const struct error *err);
