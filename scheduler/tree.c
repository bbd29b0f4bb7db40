/* tree.c: see tree.h. */
#include "scheduler/tree.h"

#include <stdlib.h>
#include <string.h>

/* A branch with fewer states than this becomes one leaf again; well below TREE_LEAF, so that a
 * state that comes and goes does not split and join each time. */
#define JOIN_BELOW (TREE_LEAF / 2)
/* A child with more than this share of its parent's states makes the parent be built anew. */
#define LEAN_PERCENT 75

/* Axes that tell any two states apart. Loads come first: they are what scores and filters go by. */
enum {
    AXIS_LOAD = 0,
    AXIS_MEASURED = DIMENSIONS,
    AXIS_FREE = 2 * DIMENSIONS,
    AXIS_PER_UNIT = 3 * DIMENSIONS,
    AXIS_LABELS = 4 * DIMENSIONS, /* the lower half of the bits, then the upper */
    AXIS_EXIT = AXIS_LABELS + 2,
    AXES,
};

static double coordinate(const struct point *point, uint64_t label_bits, int axis)
{
    if (axis < AXIS_MEASURED)
        return point->load[axis - AXIS_LOAD];
    if (axis < AXIS_FREE)
        return point->measured[axis - AXIS_MEASURED];
    if (axis < AXIS_PER_UNIT)
        return (double)point->free[axis - AXIS_FREE];
    if (axis < AXIS_LABELS)
        return point->per_unit[axis - AXIS_PER_UNIT];
    if (axis == AXIS_EXIT)
        return (double)point->exit_slot;
    return (double)(axis == AXIS_LABELS ? label_bits & UINT32_MAX : label_bits >> 32);
}

static double state_at(const struct state *state, int axis)
{
    return coordinate(&state->point, state->label_bits, axis);
}

static void free_subtree(struct tree *tree, struct branch *branch)
{
    if (!branch)
        return;
    free_subtree(tree, branch->below);
    free_subtree(tree, branch->above);
    free(branch);
    tree->branches--;
}

static void free_states(struct branch *branch)
{
    if (branch->below) {
        free_states(branch->below);
        free_states(branch->above);
        return;
    }
    for (size_t i = 0; i < branch->count; i++)
        free(branch->states[i]);
}

void tree_free(struct tree *tree)
{
    if (tree->root)
        free_states(tree->root);
    free_subtree(tree, tree->root);
    tree->root = NULL;
}

/* ---- boxes ---- */

static void enclose(struct box *box, const struct point *low, const struct point *high)
{
    for (int d = 0; d < DIMENSIONS; d++) {
        if (low->load[d] < box->low.load[d])
            box->low.load[d] = low->load[d];
        if (high->load[d] > box->high.load[d])
            box->high.load[d] = high->load[d];
        if (low->measured[d] < box->low.measured[d])
            box->low.measured[d] = low->measured[d];
        if (high->measured[d] > box->high.measured[d])
            box->high.measured[d] = high->measured[d];
        if (low->per_unit[d] < box->low.per_unit[d])
            box->low.per_unit[d] = low->per_unit[d];
        if (high->per_unit[d] > box->high.per_unit[d])
            box->high.per_unit[d] = high->per_unit[d];
        if (low->free[d] < box->low.free[d])
            box->low.free[d] = low->free[d];
        if (high->free[d] > box->high.free[d])
            box->high.free[d] = high->free[d];
    }
    if (low->exit_slot < box->low.exit_slot)
        box->low.exit_slot = low->exit_slot;
    if (high->exit_slot > box->high.exit_slot)
        box->high.exit_slot = high->exit_slot;
}

static void measure_leaf(struct branch *leaf)
{
    const struct state *first = leaf->states[0];
    leaf->box = (struct box){first->point, first->point};
    leaf->first_position = first->first->position;
    leaf->labels = leaf->common = first->label_bits;
    for (size_t i = 1; i < leaf->count; i++) {
        const struct state *state = leaf->states[i];
        enclose(&leaf->box, &state->point, &state->point);
        leaf->labels |= state->label_bits;
        leaf->common &= state->label_bits;
        if (state->first->position < leaf->first_position)
            leaf->first_position = state->first->position;
    }
}

static void measure(struct branch *branch)
{
    if (!branch->below) {
        measure_leaf(branch);
        return;
    }
    const struct branch *a = branch->below, *b = branch->above;
    branch->box = a->box;
    enclose(&branch->box, &b->box.low, &b->box.high);
    branch->first_position =
        a->first_position < b->first_position ? a->first_position : b->first_position;
    branch->labels = a->labels | b->labels;
    branch->common = a->common & b->common;
    branch->count = a->count + b->count;
}

static void measure_up(struct branch *branch)
{
    for (; branch; branch = branch->parent)
        measure(branch);
}

/* After the first node of a state has changed, which no box depends on. */
static void reorder_up(struct branch *leaf)
{
    size_t first = leaf->states[0]->first->position;
    for (size_t i = 1; i < leaf->count; i++)
        if (leaf->states[i]->first->position < first)
            first = leaf->states[i]->first->position;
    for (struct branch *at = leaf; at; at = at->parent) {
        if (at->below)
            first = at->below->first_position < at->above->first_position
                        ? at->below->first_position
                        : at->above->first_position;
        if (at->first_position == first)
            return;
        at->first_position = first;
    }
}

/* ---- building ---- */

static void put_child(struct tree *tree, struct branch *parent, const struct branch *old,
                      struct branch *new)
{
    if (new)
        new->parent = parent;
    if (!parent)
        tree->root = new;
    else if (parent->below == old)
        parent->below = new;
    else
        parent->above = new;
}

static double extent(struct state *const *states, size_t count, int axis)
{
    double low = state_at(states[0], axis), high = low;
    for (size_t i = 1; i < count; i++) {
        double at = state_at(states[i], axis);
        low = at < low ? at : low;
        high = at > high ? at : high;
    }
    return high - low;
}

/* The axis to cut along: the loads in turn, since boxes must be narrow in each of them to bound
 * well; the others where the loads tell nothing apart. */
static int choose_axis(struct state *const *states, size_t count, int previous)
{
    for (int i = 1; i <= AXIS_FREE; i++) {
        int axis = (previous + i) % AXIS_FREE;
        if (extent(states, count, axis) > 0)
            return axis;
    }
    for (int axis = AXIS_FREE; axis < AXES - 1; axis++)
        if (extent(states, count, axis) > 0)
            return axis;
    return AXES - 1;
}

static double middle_of(double a, double b, double c)
{
    double low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

static void swap(struct state **states, size_t a, size_t b)
{
    struct state *kept = states[a];
    states[a] = states[b];
    states[b] = kept;
}

/* Those below @pivot come first, then those at it: [*below, *above) of them. */
static void part(struct state **states, size_t count, int axis, double pivot, size_t *below,
                 size_t *above)
{
    size_t low = 0, high = count;
    for (size_t i = 0; i < high;) {
        double at = state_at(states[i], axis);
        if (at < pivot)
            swap(states, i++, low++);
        else if (at > pivot)
            swap(states, i, --high);
        else
            i++;
    }
    *below = low;
    *above = high;
}

/* Parts @states along @axis and returns how many go below: about half, and such that equal
 * coordinates stay together. By quickselect (Hoare's FIND, 1961), as nobody asks for their order:
 * O(count) on average. */
static size_t divide(struct state **states, size_t count, int axis)
{
    size_t begin = 0, end = count, before, after, half = count / 2;
    for (;;) {
        size_t length = end - begin, low, high;
        double pivot =
            middle_of(state_at(states[begin], axis), state_at(states[begin + length / 2], axis),
                      state_at(states[end - 1], axis));
        part(states + begin, length, axis, pivot, &low, &high);
        before = begin + low;
        after = begin + high;
        if (half < before)
            end = before;
        else if (half >= after)
            begin = after;
        else
            break;
    }
    /* [before, after) are equal to the one in the middle. */
    if (before == half)
        return half;
    return after < count && (before == 0 || after - half <= half - before) ? after : before;
}

/* A tree of @states; NULL where memory is short, and state.leaf is spoilt then. */
static struct branch *build(struct tree *tree, struct state **states, size_t count, int previous)
{
    struct branch *branch = calloc(1, sizeof *branch);
    if (!branch)
        return NULL;
    tree->branches++;
    branch->count = count;
    if (count <= TREE_LEAF * 3 / 4) {
        memcpy(branch->states, states, count * sizeof(struct state *));
        for (size_t i = 0; i < count; i++)
            states[i]->leaf = branch;
    } else {
        branch->axis = choose_axis(states, count, previous);
        size_t below = divide(states, count, branch->axis);
        branch->cut = state_at(states[below], branch->axis);
        branch->below = build(tree, states, below, branch->axis);
        branch->above = build(tree, states + below, count - below, branch->axis);
        if (!branch->below || !branch->above) {
            free_subtree(tree, branch);
            return NULL;
        }
        branch->below->parent = branch;
        branch->above->parent = branch;
    }
    measure(branch);
    return branch;
}

static size_t collect(const struct branch *branch, struct state **states)
{
    if (branch->below) {
        size_t below = collect(branch->below, states);
        return below + collect(branch->above, states + below);
    }
    memcpy(states, branch->states, branch->count * sizeof(struct state *));
    return branch->count;
}

/* Tells the states below @branch which leaf they are in. */
static void claim(struct branch *branch)
{
    if (branch->below) {
        claim(branch->below);
        claim(branch->above);
        return;
    }
    for (size_t i = 0; i < branch->count; i++)
        branch->states[i]->leaf = branch;
}

/* Builds the part below @branch anew and returns it; where memory is short it stays as it is and
 * NULL is returned. */
static struct branch *rebuild(struct tree *tree, struct branch *branch)
{
    struct state **states = reallocarray(NULL, branch->count, sizeof(struct state *));
    if (!states)
        return NULL;
    struct branch *parent = branch->parent;
    struct branch *new =
        build(tree, states, collect(branch, states), parent ? parent->axis : AXIS_FREE - 1);
    free(states);
    if (!new) {
        claim(branch);
        return NULL;
    }
    put_child(tree, parent, branch, new);
    free_subtree(tree, branch);
    return new;
}

static bool leans(const struct branch *branch)
{
    if (!branch->below || branch->count < 4 * TREE_LEAF)
        return false;
    size_t larger =
        branch->below->count > branch->above->count ? branch->below->count : branch->above->count;
    return larger * 100 > branch->count * LEAN_PERCENT;
}

/* ---- changes ---- */

static struct branch *leaf_for(struct branch *at, const struct node *node)
{
    while (at && at->below)
        at = coordinate(&node->point, node->label_bits, at->axis) < at->cut ? at->below : at->above;
    return at;
}

/* A leaf with room for the state of @node; NULL where memory is short. */
static struct branch *leaf_with_room(struct tree *tree, const struct node *node)
{
    if (!tree->root) {
        tree->root = calloc(1, sizeof *tree->root);
        tree->branches += tree->root != NULL;
    }
    struct branch *leaf = leaf_for(tree->root, node);
    if (leaf && leaf->count == TREE_LEAF)
        leaf = leaf_for(rebuild(tree, leaf), node);
    return leaf;
}

static void drop_empty_leaf(struct tree *tree, struct branch *leaf)
{
    struct branch *parent = leaf->parent;
    if (!parent) {
        tree->root = NULL;
    } else {
        struct branch *sibling = parent->below == leaf ? parent->above : parent->below;
        put_child(tree, parent->parent, parent, sibling);
        measure_up(sibling->parent);
        free(parent);
        tree->branches--;
    }
    free(leaf);
    tree->branches--;
}

int tree_insert(struct tree *tree, struct node *node, struct error *err)
{
    struct branch *leaf = leaf_for(tree->root, node);
    for (size_t i = 0; leaf && i < leaf->count; i++)
        if (state_matches(leaf->states[i], node)) {
            state_join(leaf->states[i], node);
            reorder_up(leaf);
            return 0;
        }
    struct state *state = calloc(1, sizeof *state);
    leaf = state ? leaf_with_room(tree, node) : NULL;
    if (!leaf) {
        free(state);
        return error_set(err, ERROR_FAILED, "out of memory for the index of nodes");
    }
    state->point = node->point;
    state->label_bits = node->label_bits;
    state->leaf = leaf;
    state_join(state, node);
    leaf->states[leaf->count++] = state;
    measure_up(leaf);
    struct branch *leaning = NULL;
    for (struct branch *at = leaf; at; at = at->parent)
        if (leans(at))
            leaning = at;
    if (leaning)
        (void)rebuild(tree, leaning);
    return 0;
}

/* Two leaves that hold few states become one. */
static void join_leaves(struct tree *tree, struct branch *branch)
{
    struct branch *a = branch->below, *b = branch->above;
    if (a->below || b->below)
        return;
    memcpy(branch->states, a->states, a->count * sizeof(struct state *));
    memcpy(branch->states + a->count, b->states, b->count * sizeof(struct state *));
    branch->below = branch->above = NULL;
    claim(branch);
    free(a);
    free(b);
    tree->branches -= 2;
}

void tree_remove(struct tree *tree, struct node *node)
{
    struct state *state = node->state;
    struct branch *leaf = state->leaf;
    state_leave(state, node);
    if (state->members) {
        reorder_up(leaf);
        return;
    }
    size_t at = 0;
    while (leaf->states[at] != state)
        at++;
    leaf->states[at] = leaf->states[--leaf->count];
    free(state);
    if (leaf->count == 0) {
        drop_empty_leaf(tree, leaf);
        return;
    }
    measure_up(leaf);
    if (leaf->parent && leaf->parent->count < JOIN_BELOW)
        join_leaves(tree, leaf->parent);
}

int tree_update(struct tree *tree, struct node *node, struct error *err)
{
    if (state_matches(node->state, node))
        return 0;
    tree_remove(tree, node);
    return tree_insert(tree, node, err);
}
