/* state.c: see state.h. */
#include "scheduler/state.h"

#include <string.h>

bool state_matches(const struct state *state, const struct node *node)
{
    return state->label_bits == node->label_bits &&
           memcmp(&state->point, &node->point, sizeof state->point) == 0;
}

static uint64_t priority(const struct node *node)
{
    uint64_t hash = (uint64_t)node->position * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 32);
}

/* Divides a treap into what lies before @position and the rest. */
static void divide(struct node *root, size_t position, struct node **before, struct node **rest)
{
    while (root) {
        if (root->position < position) {
            *before = root;
            before = &root->state_right;
            root = root->state_right;
        } else {
            *rest = root;
            rest = &root->state_left;
            root = root->state_left;
        }
    }
    *before = NULL;
    *rest = NULL;
}

/* Joins two treaps of which all of @a lies before all of @b. */
static struct node *join(struct node *a, struct node *b)
{
    struct node *root = NULL, **place = &root;
    while (a && b) {
        if (priority(a) > priority(b)) {
            *place = a;
            place = &a->state_right;
            a = a->state_right;
        } else {
            *place = b;
            place = &b->state_left;
            b = b->state_left;
        }
    }
    *place = a ? a : b;
    return root;
}

static struct node *leftmost(struct node *root)
{
    while (root && root->state_left)
        root = root->state_left;
    return root;
}

void state_join(struct state *state, struct node *node)
{
    struct node **place = &state->members;
    while (*place && priority(*place) > priority(node))
        place =
            node->position < (*place)->position ? &(*place)->state_left : &(*place)->state_right;
    divide(*place, node->position, &node->state_left, &node->state_right);
    *place = node;
    node->state = state;
    if (!state->first || node->position < state->first->position)
        state->first = node;
}

void state_leave(struct state *state, struct node *node)
{
    struct node **place = &state->members;
    while (*place != node)
        place =
            node->position < (*place)->position ? &(*place)->state_left : &(*place)->state_right;
    *place = join(node->state_left, node->state_right);
    node->state = NULL;
    if (state->first == node)
        state->first = leftmost(state->members);
}

struct node *state_next(const struct state *state, const struct node *node)
{
    struct node *next = NULL;
    for (struct node *at = state->members; at;) {
        if (at->position > node->position) {
            next = at;
            at = at->state_left;
        } else {
            at = at->state_right;
        }
    }
    return next;
}
