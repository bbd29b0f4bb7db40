/*
 * snapshot.h: a copy of a pool, and of what is known of its VMs, that a plan can be made on while
 * the pool itself goes on changing: by another thread, as nothing in it points to the original.
 */
#pragma once

#include "scheduler/plan.h"

struct snapshot {
    struct scheduler *pool;
    struct plan_config config; /* answers from the snapshot */
};

/* @config is asked now about every VM and node. Reasons it gives must be literals. NULL: out of
 * memory. O(VMs). Free with snapshot_free(), after the plans made on it. */
struct snapshot *snapshot_take(const struct scheduler *pool, const struct plan_config *config,
                               struct error *err);
void snapshot_free(struct snapshot *snapshot);
