/*
 * state.h: nodes that are the same to a placement: equal points, equal labels. Scores, bounds and
 * the filters of size need to look at a state once, however many nodes are in it. In it they are
 * ordered by position, for the first of equals is the one to take. Private to scheduler/.
 *
 * The order is a treap (Seidel and Aragon, "Randomized search trees", 1996) through node.state_left
 * and state_right, whose priorities are a hash of the position: O(log n) expected, and the same
 * shape in every run.
 */
#pragma once

#include "scheduler/pool.h"

struct state {
    struct point point;
    uint64_t label_bits;
    struct node *members; /* the treap's root; never NULL in the tree */
    struct node *first;   /* the member with the lowest position */
    struct branch *leaf;
};

/* Whether @node is in this state by its point and labels. */
bool state_matches(const struct state *state, const struct node *node);
void state_join(struct state *state, struct node *node);
void state_leave(struct state *state, struct node *node);
/* The member behind @node in the order; NULL: it is the last. O(log n). */
struct node *state_next(const struct state *state, const struct node *node);
