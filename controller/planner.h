/*
 * planner.h: plans are made by a thread of their own, on a snapshot of the pool, while the event
 * loop serves everybody else. One at a time; others wait in their order.
 *
 * The thread sees the snapshot and the work's own context, and nothing of the controller.
 */
#pragma once

#include "controller/controller.h"
#include "scheduler/snapshot.h"

#define PLANNER_WAITING_MAX 64

struct planner_work {
    struct plan_config config; /* what the snapshot is taken with */
    void *context;
    /* In the thread: fills @context from the snapshot. -1 with @err set goes to done(). */
    int (*make)(void *context, const struct snapshot *snapshot, struct error *err);
    /* On the loop: takes what was made, or why it was not (@err of another kind than ERROR_NONE).
     * The snapshot lives until it returns. */
    void (*done)(struct controller *controller, void *context, const struct error *err);
    /* Called last in every case, also where the controller closes before it was made. */
    void (*free)(void *context);
};

struct planner *planner_open(struct controller *controller, struct error *err);
/* Waits for the plan that is being made. */
void planner_close(struct planner *planner);
/* Takes over the context; -1 where too many wait, and it is freed. */
int planner_begin(struct controller *controller, const struct planner_work *work,
                  struct error *err);
