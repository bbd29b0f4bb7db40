/*
 * search.c: branch and bound over the tree of states.
 *
 * A branch is left out where its labels or the most that any of its nodes has free rule out a fit,
 * or where the bound of its box says that no node in it beats the best so far. The child with the
 * better bound is looked at first, so that most of the tree is left out.
 */
#include "scheduler/search.h"

#include "scheduler/tree.h"

struct search {
    const struct scheduler *pool;
    const struct query *query;
    uint64_t labels; /* bits a node must have */
    const struct node *best;
    double best_score;
};

double search_score(const struct scheduler *pool, const struct query *query,
                    const struct node *node)
{
    if (query->self && query->self->node == node) {
        const struct sched_resources others = query_reserved(query, node);
        const struct point point = point_make(node, &others);
        return score_point(pool->config.policy, &query->need, &point);
    }
    return score_point(pool->config.policy, &query->need, &node->point);
}

static bool beats(const struct search *search, double score, size_t position)
{
    return !search->best || score > search->best_score ||
           (score == search->best_score && position < search->best->position);
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
    double score = score_point(search->pool->config.policy, &query->need, &state->point);
    const struct node *home = query->self ? query->self->node : NULL; /* tried beforehand */
    const struct node *node = state->first;
    while (node && beats(search, score, node->position)) {
        if (node != home && !filter_node(query, node)) {
            search->best = node;
            search->best_score = score;
            return;
        }
        node = state_next(state, node);
    }
}

static void look_into_leaf(struct search *search, const struct branch *leaf)
{
    for (size_t i = 0; i < leaf->count; i++)
        if (!lacks_room(search->query, &leaf->states[i]->point))
            try_state(search, leaf->states[i]);
}

static bool ruled_out(const struct search *search, const struct branch *branch)
{
    return lacks_room(search->query, &branch->box.high) ||
           (branch->labels & search->labels) != search->labels;
}

static double bound_of(const struct search *search, const struct branch *branch)
{
    return score_bound(search->pool->config.policy, &search->query->need, &branch->box);
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

const struct node *search_best(const struct scheduler *pool, const struct query *query)
{
    struct search search = {.pool = pool, .query = query};
    const struct sched_request *request = query->request;
    if (request->only_node) {
        const struct node *only = pool_find_node(pool, request->only_node);
        return only && !filter_node(query, only) ? only : NULL;
    }
    for (size_t i = 0; i < request->selector_count; i++)
        search.labels |= label_bit(request->selector[i].key, request->selector[i].value);
    /* Where it is placed already it has more room than the index knows. */
    if (query->self && !filter_node(query, query->self->node)) {
        search.best = query->self->node;
        search.best_score = search_score(pool, query, search.best);
    }
    if (pool->tree->root && !ruled_out(&search, pool->tree->root))
        look_into(&search, pool->tree->root);
    return search.best;
}

const struct node *search_by_scan(const struct scheduler *pool, const struct query *query)
{
    const struct node *best = NULL;
    double best_score = 0;
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        if (filter_node(query, node))
            continue;
        double score = search_score(pool, query, node);
        if (!best || score > best_score) {
            best = node;
            best_score = score;
        }
    }
    return best;
}
