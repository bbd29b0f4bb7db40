/* nodes.h: the hosts of the pool: what the store knows of each, and what its agent last said. */
#pragma once

#include "common/link.h"
#include "controller/controller.h"
#include "controller/states.h"
#include "proto/admin.pb-c.h"
#include "proto/node.pb-c.h"
#include "proto/store.pb-c.h"

#define NAME_MAX_LENGTH 63

/* Of migrate_queue.h. */
#define NODE_DOORS 2

struct claim;

struct node {
    struct node *next;
    Vmpool__Store__Node *stored;
    Vmpool__NodePhase phase;
    bool connected; /* said hello to this controller; @peer is where it is */
    struct link_peer peer;
    int64_t heard_ms; /* monotonic; of a node not heard of yet: since when we listen */
    int64_t heard_wall_ms;
    Vmpool__NodeReport *report; /* the latest, without its VMs; NULL: none yet */
    struct claim *claims;       /* what it says of VMs we know */
    uint64_t vms;               /* that count on it */
    struct vm *counted;         /* a list of them, through vm.next_counted */
    int64_t hot_ms;             /* monotonic; since when it is hot; 0: it is not */
    uint64_t marks;             /* counts its full lists of VMs */
    unsigned sends[NODE_DOORS], receives[NODE_DOORS]; /* migrations, counted by migrate_queue.c */
};

/* Adds a node to the tables; takes @stored. */
struct node *node_add(struct controller *controller, Vmpool__Store__Node *stored);
void node_save(struct controller *controller, const struct node *node);
/* Takes it out of tables and store. Its VMs must have been dealt with. */
void node_delete(struct controller *controller, struct node *node);
void nodes_free(struct controller *controller);

struct node *node_by_name(const struct controller *controller, const char *name);
/* "" or an unknown id: NULL. */
struct node *node_by_id(const struct controller *controller, const char *id);
const char *node_name_of(const struct controller *controller, const char *id);

/* A message to the agent; false where it isn't connected and nothing was queued. */
bool node_send(struct controller *controller, const struct node *node,
               const Vmpool__ControllerToNode *message);

/* Its phase changes by @event; events, jobs and the scheduler learn of it. */
void node_happens(struct controller *controller, struct node *node, enum node_event event);
/* True while nodes are known that have neither been heard of nor been given up since the controller
 * started: what does not fit now may fit in a moment. Ends within lost_after_ms. */
bool nodes_settling(const struct controller *controller);
/* Marks nodes not heard of as lost. Called by the tick. */
void nodes_check(struct controller *controller);
void node_set_draining(struct controller *controller, struct node *node, bool draining,
                       bool drained);

/* For poolctl; free with pb_free(). */
Vmpool__Node *node_describe(const struct controller *controller, const struct node *node);
