/*
 * search.c: branch and bound over the tree of states.
 *
 * What comes first is few VMs of a group that is to be avoided, then the score, then the node added
 * first. A host without any of them is looked for in the tree; only where there is none, and for
 * affinity, the hosts that hold VMs of the group are looked at, which the group counts.
 *
 * A branch is left out where its labels or the most that any of its nodes has free rule out a fit,
 * or where the bound of its box says that no node in it beats the best so far. The child with the
 * better bound is looked at first, so that most of the tree is left out.
 */
#include "scheduler/search.h"

#include "scheduler/group.h"
#include "scheduler/tree.h"

/* What makes a node better than another that fits as well. */
struct rank {
    const struct node *node; /* NULL: none yet */
    size_t avoided;          /* VMs of the group that is to be avoided */
    double score;
};

struct search {
    const struct scheduler *pool;
    const struct query *query;
    struct rank best;
};

double search_score(const struct scheduler *pool, const struct query *query,
                    const struct node *node)
{
    if (query->self && query->self->node == node) {
        const struct sched_resources others = query_reserved(query, node);
        const struct point point = point_make(node, &others);
        return score_point(pool->config.policy, query, &point);
    }
    return score_point(pool->config.policy, query, &node->point);
}

static bool is_better(const struct rank *a, const struct rank *b)
{
    if (!b->node)
        return true;
    if (a->avoided != b->avoided)
        return a->avoided < b->avoided;
    if (a->score < b->score || a->score > b->score)
        return a->score > b->score;
    return a->node->position < b->node->position;
}

/* Takes @node where it fits and is better than the best so far. */
static void try_node(struct search *search, const struct node *node)
{
    const struct query *query = search->query;
    if (filter_node(query, node))
        return;
    const struct rank rank = {node, search_avoided(query, node),
                              search_score(search->pool, query, node)};
    if (is_better(&rank, &search->best))
        search->best = rank;
}

size_t search_avoided(const struct query *query, const struct node *node)
{
    return query_others(query, GROUP_ANTI_AFFINITY, query->avoided, node);
}

/* Whether a node without a VM to be avoided would be taken. */
static bool beats(const struct search *search, double score, size_t position)
{
    const struct rank *best = &search->best;
    return !best->node || best->avoided || score > best->score ||
           (score == best->score && position < best->node->position);
}

static bool lacks_room(const struct query *query, const struct point *point)
{
    return query->need.memory_mib > point->free[MEMORY] ||
           query->need.cpu_milli > point->free[CPU] ||
           query->need.bandwidth_bps > point->free[BANDWIDTH];
}

/* The first node of the state that no filter rejects, if it beats the best. Scores come first: most
 * states are no better, and filters cost more. */
static void try_state(struct search *search, const struct state *state)
{
    const struct query *query = search->query;
    double score = score_point(search->pool->config.policy, query, &state->point);
    const struct node *home = query->self ? query->self->node : NULL; /* tried beforehand */
    const struct node *node = state->first;
    while (node && beats(search, score, node->position)) {
        if (node != home && !filter_node(query, node) && !search_avoided(query, node)) {
            search->best = (struct rank){node, 0, score};
            return;
        }
        node = state_next(state, node);
    }
}

static void look_into_leaf(struct search *search, const struct branch *leaf)
{
    for (size_t i = 0; i < leaf->count; i++)
        if (!lacks_room(search->query, &leaf->states[i]->point) &&
            !filter_bits(search->query, leaf->states[i]->label_bits))
            try_state(search, leaf->states[i]);
}

static bool ruled_out(const struct search *search, const struct branch *branch)
{
    const struct query *query = search->query;
    return lacks_room(query, &branch->box.high) ||
           filter_bits(query, (branch->labels & ~DEDICATED_BIT) | (branch->common & DEDICATED_BIT));
}

static double bound_of(const struct search *search, const struct branch *branch)
{
    return score_bound(search->pool->config.policy, search->query, &branch->box);
}

/* The recursion is as deep as the tree, which is kept in balance. */
static void look_into(struct search *search,
                      const struct branch *branch) /* NOLINT(misc-no-recursion) */
{
    if (!branch->below) {
        look_into_leaf(search, branch);
        return;
    }
    const struct branch *first = branch->below, *second = branch->above;
    bool has_first = !ruled_out(search, first), has_second = !ruled_out(search, second);
    double first_bound = has_first ? bound_of(search, first) : 0;
    double second_bound = has_second ? bound_of(search, second) : 0;
    if (has_first && has_second &&
        (second_bound > first_bound ||
         (second_bound == first_bound && second->first_position < first->first_position))) {
        const struct branch *other = first;
        double other_bound = first_bound;
        first = second;
        first_bound = second_bound;
        second = other;
        second_bound = other_bound;
    }
    if (has_first && beats(search, first_bound, first->first_position))
        look_into(search, first);
    if (has_second && beats(search, second_bound, second->first_position))
        look_into(search, second);
}

static void try_group(struct search *search, const struct group *group)
{
    for (size_t i = 0; i < group->slots; i++)
        if (group->tally[i].node)
            try_node(search, group->tally[i].node);
}

const struct node *search_best(const struct scheduler *pool, const struct query *query)
{
    struct search search = {.pool = pool, .query = query};
    const struct sched_request *request = query->request;
    if (request->only_node) {
        const struct node *only = pool_find_node(pool, request->only_node);
        return only && !filter_node(query, only) ? only : NULL;
    }
    if (query->together) {
        try_group(&search, query->together);
        return search.best.node;
    }
    /* Where it is placed already it has more room than the index knows. */
    if (query->self)
        try_node(&search, query->self->node);
    if (pool->tree->root && !ruled_out(&search, pool->tree->root))
        look_into(&search, pool->tree->root);
    if (query->avoided && (!search.best.node || search.best.avoided))
        try_group(&search, query->avoided);
    return search.best.node;
}

const struct node *search_by_scan(const struct scheduler *pool, const struct query *query)
{
    struct search search = {.pool = pool, .query = query};
    for (size_t i = 0; i < pool->node_count; i++)
        try_node(&search, pool->nodes[i]);
    return search.best.node;
}
