/* requests.h: questions to agents on behalf of an admin that belong to no job, such as a VM's log.
 */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "controller/nodes.h"

#define REQUESTS_MAX 256

/* Asks @node with @command (its request_id is made here); the answer goes to the admin. -1 where
 * the node isn't there or too many ask. */
int request_log(struct controller *controller, struct node *node, const char *vm_id, uint64_t epoch,
                const struct link_peer *peer, const char *request_id, struct error *err);
void requests_answer(struct controller *controller, const struct node *node, uint64_t request_id,
                     const Vmpool__NodeAnswer *answer);
/* Ends those that waited too long. Called by the tick. */
void requests_check(struct controller *controller);
void requests_free(struct controller *controller);
