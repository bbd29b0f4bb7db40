/* plan_capacity.c: how many more VMs of a size fit, and whether any one node may be lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/plan_work.h"

/* ---- N+1 ---- */

/* Starts all VMs of @node elsewhere; the first that finds no place is put into @n1. */
static int lose_node(struct plan_work *work, const struct node *node, struct plan_n1 *n1,
                     struct error *err)
{
    size_t count = node->vm_count;
    struct vm **vms = plan_vms_of(node);
    int status = vms ? 0 : error_set(err, ERROR_FAILED, "out of memory for a plan");
    for (size_t i = 0; status == 0 && n1->holds && i < count; i++) {
        struct plan_vm seen = plan_look(work, vms[i]);
        if (seen.freedom == PLAN_GHOST || seen.freedom == PLAN_LOCAL)
            continue;
        struct node *to = plan_target(work, vms[i], NULL, 0);
        if (to)
            status = plan_move(work, vms[i], to, &seen, "", err);
        else
            *n1 = (struct plan_n1){false, node->name, vms[i]->name};
    }
    free((void *)vms);
    plan_undo(work, 0);
    return status;
}

int plan_check_n1(struct scheduler *pool, const struct plan_config *config, struct plan_n1 *n1,
                  struct error *err)
{
    struct plan_work work;
    struct plan plan;
    *n1 = (struct plan_n1){.holds = true};
    int status = plan_begin(&work, pool, config, PLAN_LOSE, &plan, err);
    for (size_t i = 0; status == 0 && n1->holds && i < pool->node_count; i++)
        if (!pool->nodes[i]->lost)
            status = lose_node(&work, pool->nodes[i], n1, err);
    status = plan_end(&work, status);
    plan_free(&plan);
    return status;
}

int plan_check_n1_with(struct scheduler *pool, const struct plan_config *config,
                       const struct sched_request *request, const char *node, struct plan_n1 *n1,
                       struct error *err)
{
    if (pool_find_vm(pool, request->vm))
        return error_set(err, ERROR_CONFLICT, "VM %s is placed already", request->vm);
    if (scheduler_place(pool, request, node, err) < 0)
        return -1;
    int status = plan_check_n1(pool, config, n1, err);
    /* Its name dies with it. */
    if (status == 0 && n1->vm && strcmp(n1->vm, request->vm) == 0)
        n1->vm = request->vm;
    scheduler_remove_vm(pool, request->vm);
    return status;
}

/* ---- capacity ---- */

struct filling {
    struct scheduler *pool;
    const struct plan_config *config;
    struct sched_request request;
    struct node **nodes; /* where each of the new VMs went */
    size_t count, space; /* of nodes */
    size_t placed;       /* of them, now */
};

static const char *name_of(char out[32], size_t number)
{
    (void)snprintf(out, 32, "?%zu", number);
    return out;
}

/* Makes the first @count of the new VMs be there and no more. */
static int set_placed(struct filling *filling, size_t count, struct error *err)
{
    char name[32];
    while (filling->placed > count)
        scheduler_remove_vm(filling->pool, name_of(name, --filling->placed));
    for (; filling->placed < count; filling->placed++) {
        filling->request.vm = name_of(name, filling->placed);
        if (scheduler_place(filling->pool, &filling->request, filling->nodes[filling->placed]->name,
                            err) < 0)
            return -1;
    }
    return 0;
}

static int keep_node(struct filling *filling, struct node *node, struct error *err)
{
    if (filling->count == filling->space) {
        size_t space = filling->space ? filling->space * 2 : 64;
        struct node **more = reallocarray((void *)filling->nodes, space, sizeof(struct node *));
        if (!more)
            return error_set(err, ERROR_FAILED, "out of memory for %zu VMs", space);
        filling->nodes = more;
        filling->space = space;
    }
    filling->nodes[filling->count++] = node;
    return set_placed(filling, filling->count, err);
}

static int fill(struct filling *filling, char *why, size_t size, struct error *err)
{
    struct sched_decision decision;
    struct error refused = ERROR_INIT;
    struct query query;
    while (filling->count < PLAN_CAPACITY_MAX) {
        char name[32];
        filling->request.vm = name_of(name, filling->count);
        if (query_init(&query, filling->pool, &filling->request, err) < 0)
            return -1;
        const struct node *best = search_best(filling->pool, &query);
        if (!best) {
            (void)scheduler_choose(filling->pool, &filling->request, &decision, &refused);
            (void)snprintf(why, size, "%.500s", refused.text);
            return 0;
        }
        if (keep_node(filling, pool_find_node(filling->pool, best->name), err) < 0)
            return -1;
    }
    (void)snprintf(why, size, "nobody counts further than %d", PLAN_CAPACITY_MAX);
    return 0;
}

static int holds_with(struct filling *filling, size_t count, struct plan_n1 *n1, struct error *err)
{
    if (set_placed(filling, count, err) < 0)
        return -1;
    return plan_check_n1(filling->pool, filling->config, n1, err);
}

/* The most that still hold: one more never makes a pool safer. */
static int find_n1(struct filling *filling, struct plan_capacity *capacity, struct error *err)
{
    size_t low = 0, high = filling->count + 1; /* holds with low, not with high */
    struct plan_n1 n1;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (holds_with(filling, middle, &n1, err) < 0)
            return -1;
        if (n1.holds)
            low = middle;
        else
            high = middle;
    }
    if (holds_with(filling, low, &n1, err) < 0)
        return -1;
    capacity->count_n1 = n1.holds ? low : 0;
    if (low < filling->count && n1.holds && holds_with(filling, low + 1, &n1, err) < 0)
        return -1;
    if (!n1.holds)
        (void)snprintf(capacity->why_n1, sizeof capacity->why_n1,
                       "%sif node %.64s were lost, %s%.64s would have no place",
                       low < filling->count && filling->placed > low ? "with one more, " : "",
                       n1.node, n1.vm[0] == '?' ? "a new one" : "VM ",
                       n1.vm[0] == '?' ? "" : n1.vm);
    return 0;
}

int plan_capacity(struct scheduler *pool, const struct plan_config *config,
                  const struct sched_request *request, bool n1, struct plan_capacity *capacity,
                  struct error *err)
{
    struct filling filling = {.pool = pool, .config = config, .request = *request};
    *capacity = (struct plan_capacity){0};
    int status = fill(&filling, capacity->why, sizeof capacity->why, err);
    capacity->count = filling.count;
    if (status == 0 && n1)
        status = find_n1(&filling, capacity, err);
    struct error ignored = ERROR_INIT;
    (void)set_placed(&filling, 0, &ignored);
    free((void *)filling.nodes);
    return status;
}
