/*
 * room.c: which VMs to move so that one fits that fits nowhere.
 *
 * Tried are the hosts that are closest to fitting. From each of them VMs are moved away, to where
 * the policy puts them, until the request fits: first the smallest VM that makes enough room by
 * itself, else the one that leaves the least shortage. What was tried is put back, so the pool is
 * at the end what it was; the plan with the fewest moves is returned.
 */
#include <stdlib.h>
#include <string.h>

#include "scheduler/search.h"

#define CANDIDATES 24
#define MOVES_MAX  16 /* more than this is a rebalance, and not worth it for one VM */

struct step {
    struct vm *vm;
    struct node *from, *to;
};

struct steps {
    struct step step[MOVES_MAX];
    size_t count;
};

struct candidate {
    struct node *node;
    double shortage;
};

/* The hosts that lack nothing but size, the closest first; of equals the one added first. */
static size_t find_candidates(const struct scheduler *pool, const struct query *query,
                              struct candidate found[CANDIDATES])
{
    size_t count = 0;
    for (size_t i = 0; i < pool->node_count; i++) {
        struct node *node = pool->nodes[i];
        if (filter_node(query, node) & (unsigned)~FILTER_RESOURCES)
            continue;
        double shortage = filter_shortage(query, node);
        if (count == CANDIDATES && shortage >= found[count - 1].shortage)
            continue;
        size_t at = count < CANDIDATES ? count++ : count - 1;
        for (; at > 0 && found[at - 1].shortage > shortage; at--)
            found[at] = found[at - 1];
        found[at] = (struct candidate){node, shortage};
    }
    return count;
}

/* Where @vm goes when it leaves its node; NULL: nowhere. */
static struct node *way_out(const struct scheduler *pool, const struct vm *vm)
{
    struct error ignored = ERROR_INIT;
    struct sched_request request = pool_request_of(vm);
    struct query query;
    request.not_node = vm->node->name;
    if (query_init(&query, pool, &request, &ignored) < 0)
        return NULL;
    const struct node *best = search_best(pool, &query);
    return best ? pool_find_node(pool, best->name) : NULL;
}

/* The shortage that would be left on @vm's node without it. */
static double shortage_without(const struct query *query, const struct vm *vm)
{
    struct query without = *query;
    without.self = vm; /* its share counts as free */
    return filter_shortage(&without, vm->node);
}

/* Whether to move @vm (leaving shortage @left) rather than @other: enough room first, and then as
 * little memory as possible; else the least shortage. */
static bool is_better(const struct vm *vm, double left, const struct vm *other, double other_left)
{
    if (!other)
        return true;
    if (left <= 0 && other_left <= 0)
        return vm->need.memory_mib < other->need.memory_mib;
    return left < other_left;
}

/* Chooses the next VM to leave @node; false: no VM there can help. */
static bool choose_step(const struct scheduler *pool, const struct query *query, struct node *node,
                        struct step *step)
{
    double best_left = 0;
    double now = filter_shortage(query, node);
    *step = (struct step){0};
    for (struct vm *vm = node->vms; vm; vm = vm->next) {
        double left = shortage_without(query, vm);
        if (vm == query->self || left >= now || !is_better(vm, left, step->vm, best_left))
            continue;
        struct node *to = way_out(pool, vm);
        if (!to)
            continue;
        *step = (struct step){vm, node, to};
        best_left = left;
    }
    return step->vm != NULL;
}

static void undo(struct scheduler *pool, const struct steps *steps)
{
    for (size_t i = steps->count; i > 0; i--)
        pool_move_vm(pool, steps->step[i - 1].vm, steps->step[i - 1].from);
}

/* Fills @steps with at most @limit moves that make room on @node; false: there are none. */
static bool try_node(struct scheduler *pool, const struct query *query, struct node *node,
                     size_t limit, struct steps *steps)
{
    steps->count = 0;
    while (filter_node(query, node)) {
        struct step *step = &steps->step[steps->count];
        if (steps->count == limit || !choose_step(pool, query, node, step)) {
            undo(pool, steps);
            return false;
        }
        pool_move_vm(pool, step->vm, step->to);
        steps->count++;
    }
    undo(pool, steps);
    return true;
}

static int fill_plan(struct sched_plan *plan, const struct node *node, const struct steps *steps,
                     struct error *err)
{
    plan->moves = calloc(steps->count + 1, sizeof *plan->moves);
    if (!plan->moves)
        return error_set(err, ERROR_FAILED, "out of memory for %zu moves", steps->count);
    plan->node = node->name;
    plan->count = steps->count;
    for (size_t i = 0; i < steps->count; i++) {
        const struct step *step = &steps->step[i];
        plan->moves[i] = (struct sched_move){step->vm->name, step->from->name, step->to->name,
                                             step->vm->need.memory_mib};
    }
    return 0;
}

int scheduler_make_room(struct scheduler *pool, const struct sched_request *request,
                        size_t move_max, struct sched_plan *plan, struct error *err)
{
    struct query query;
    struct candidate found[CANDIDATES];
    struct steps best = {0}, steps;
    const struct node *node = NULL;
    *plan = (struct sched_plan){0};
    if (query_init(&query, pool, request, err) < 0)
        return -1;
    size_t count = find_candidates(pool, &query, found);
    size_t limit = move_max < MOVES_MAX ? move_max : MOVES_MAX;
    for (size_t i = 0; i < count && (!node || best.count > 1); i++) {
        if (!try_node(pool, &query, found[i].node, node ? best.count - 1 : limit, &steps))
            continue;
        best = steps;
        node = found[i].node;
    }
    if (!node)
        return error_set(err, ERROR_NO_CAPACITY, "no host fits, not even after %zu moves", limit);
    return fill_plan(plan, node, &best, err);
}

void sched_plan_free(struct sched_plan *plan)
{
    free(plan->moves);
    *plan = (struct sched_plan){0};
}
