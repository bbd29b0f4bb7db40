/*
 * plan_consolidate.c: how few nodes would do. The emptiest node is tried first: all its VMs must
 * have a place on nodes that are in use and stay so, or none moves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/plan_work.h"

/* The emptier first. */
static int by_reserved(const void *a, const void *b)
{
    const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;
    if (x->reserved.memory_mib != y->reserved.memory_mib)
        return x->reserved.memory_mib < y->reserved.memory_mib ? -1 : 1;
    return x->position < y->position ? -1 : 1;
}

/* Moves all VMs away, or none. */
static int try_to_empty(struct plan_work *work, struct node *node, struct error *err)
{
    size_t before = work->count, count = node->vm_count;
    struct vm **vms = plan_vms_of(node);
    bool possible = true;
    int status = vms ? 0 : error_set(err, ERROR_FAILED, "out of memory for a plan");
    for (size_t i = 0; status == 0 && possible && i < count; i++) {
        struct plan_vm seen = plan_look(work, vms[i]);
        /* What came from another node would move twice. */
        struct node *to =
            seen.freedom == PLAN_FREE && work->count < work->move_max && !plan_moved(vms[i])
                ? plan_target(work, vms[i], NULL, 0)
                : NULL;
        possible = to != NULL;
        if (to)
            status = plan_move(work, vms[i], to, &seen, "empties its node", err);
    }
    free((void *)vms);
    if (status < 0)
        return -1;
    if (!possible) {
        plan_undo(work, before);
        return 0;
    }
    return plan_hide(work, node, err);
}

static int empty_nodes(struct plan_work *work, struct error *err)
{
    struct scheduler *pool = work->pool;
    struct node **nodes = calloc(pool->node_count + 1, sizeof(struct node *));
    int status = 0;
    if (!nodes)
        return error_set(err, ERROR_FAILED, "out of memory for a plan");
    memcpy((void *)nodes, (void *)pool->nodes, pool->node_count * sizeof(struct node *));
    qsort((void *)nodes, pool->node_count, sizeof(struct node *), by_reserved);
    for (size_t i = 0; status == 0 && i < pool->node_count; i++)
        if (nodes[i]->vm_count == 0)
            status = plan_hide(work, nodes[i], err);
    for (size_t i = 0; status == 0 && i < pool->node_count; i++)
        if (nodes[i]->vm_count > 0 && !nodes[i]->drained && !nodes[i]->lost)
            status = try_to_empty(work, nodes[i], err);
    free((void *)nodes);
    return status;
}

int plan_consolidate(struct scheduler *pool, const struct plan_config *config, struct plan *plan,
                     struct error *err)
{
    struct plan_work work;
    int status = plan_begin(&work, pool, config, PLAN_CONSOLIDATE, plan, err);
    pool->config.policy = SCHED_BEST;
    if (status == 0)
        status = empty_nodes(&work, err);
    status = plan_end(&work, status);
    if (status < 0)
        return -1;
    plan->wanted = plan->placed = plan->count;
    (void)snprintf(plan->summary, sizeof plan->summary,
                   "%zu of %zu nodes could sleep after %zu moves; %zu are empty now",
                   plan->after.empty, plan->after.nodes, plan->count, plan->before.empty);
    return 0;
}
