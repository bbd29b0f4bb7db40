/* tree.c: see tree.h. */
#include "scheduler/tree.h"

#include <stdlib.h>
#include <string.h>

/* A branch with fewer nodes than this becomes one leaf again; well below TREE_LEAF, so that a node
 * that comes and goes does not split and join each time. */
#define JOIN_BELOW (TREE_LEAF / 2)
/* A child with more than this share of its parent's nodes makes the parent be built anew. */
#define LEAN_PERCENT 75
/* Enough for the root's leaf, and for split(): a leaf that falls apart into leaves of one. */
#define INSERT_NEEDS (2 * TREE_LEAF)
#define SPARES_MAX   (2 * INSERT_NEEDS)

static double coordinate(const struct node *node, int axis)
{
    if (axis < DIMENSIONS)
        return node->point.load[axis];
    if (axis < 2 * DIMENSIONS)
        return node->point.measured[axis - DIMENSIONS];
    return (double)node->position;
}

/* ---- branches in store ---- */

/* NULL where memory is short; never where reserve() promised it. */
static struct branch *take_branch(struct tree *tree)
{
    struct branch *branch = tree->spare;
    if (branch) {
        tree->spare = branch->parent;
        tree->spares--;
        *branch = (struct branch){0};
    } else {
        branch = calloc(1, sizeof *branch);
    }
    tree->branches += branch != NULL;
    return branch;
}

static void give_branch(struct tree *tree, struct branch *branch)
{
    tree->branches--;
    if (tree->spares >= SPARES_MAX) {
        free(branch);
        return;
    }
    branch->parent = tree->spare;
    tree->spare = branch;
    tree->spares++;
}

/* Sees to it that @wanted branches, at most SPARES_MAX, can be taken. */
static bool reserve(struct tree *tree, size_t wanted)
{
    while (tree->spares < wanted) {
        struct branch *branch = calloc(1, sizeof *branch);
        if (!branch)
            return false;
        branch->parent = tree->spare;
        tree->spare = branch;
        tree->spares++;
    }
    return true;
}

static void give_subtree(struct tree *tree, struct branch *branch)
{
    if (branch->below)
        give_subtree(tree, branch->below);
    if (branch->above)
        give_subtree(tree, branch->above);
    give_branch(tree, branch);
}

void tree_free(struct tree *tree)
{
    if (tree->root)
        give_subtree(tree, tree->root);
    while (tree->spare) {
        struct branch *branch = tree->spare;
        tree->spare = branch->parent;
        free(branch);
    }
    *tree = (struct tree){0};
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
}

static void measure_leaf(struct branch *leaf)
{
    const struct node *first = leaf->nodes[0];
    leaf->box = (struct box){first->point, first->point};
    leaf->first_position = first->position;
    leaf->labels = first->label_bits;
    for (size_t i = 1; i < leaf->count; i++) {
        const struct node *node = leaf->nodes[i];
        enclose(&leaf->box, &node->point, &node->point);
        leaf->labels |= node->label_bits;
        if (node->position < leaf->first_position)
            leaf->first_position = node->position;
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
    branch->count = a->count + b->count;
}

static void measure_up(struct branch *branch)
{
    for (; branch; branch = branch->parent)
        measure(branch);
}

/* ---- shape ---- */

static void put_child(struct tree *tree, struct branch *parent, const struct branch *old,
                      struct branch *new)
{
    new->parent = parent;
    if (!parent)
        tree->root = new;
    else if (parent->below == old)
        parent->below = new;
    else
        parent->above = new;
}

static int by_coordinate(const void *a, const void *b, void *axis)
{
    double x = coordinate(*(struct node *const *)a, *(int *)axis);
    double y = coordinate(*(struct node *const *)b, *(int *)axis);
    return (x > y) - (x < y);
}

/* The axis along which @nodes lie widest apart; position where nothing else differs. */
static int widest_axis(struct node *const *nodes, size_t count)
{
    int widest = TREE_AXES - 1;
    double width = 0;
    for (int axis = 0; axis < TREE_AXES - 1; axis++) {
        double low = coordinate(nodes[0], axis), high = low;
        for (size_t i = 1; i < count; i++) {
            double at = coordinate(nodes[i], axis);
            low = at < low ? at : low;
            high = at > high ? at : high;
        }
        if (high - low > width) {
            width = high - low;
            widest = axis;
        }
    }
    return widest;
}

/* Sorts @nodes along @axis and returns how many go below: about half, and such that nodes with
 * equal coordinates stay together. */
static size_t divide(struct node **nodes, size_t count, int axis)
{
    qsort_r(nodes, count, sizeof(struct node *), by_coordinate, &axis);
    size_t after = count / 2, before = count / 2;
    while (after < count && coordinate(nodes[after], axis) == coordinate(nodes[after - 1], axis))
        after++;
    while (before > 0 && coordinate(nodes[before], axis) == coordinate(nodes[before - 1], axis))
        before--;
    return after < count && (before == 0 || after - count / 2 <= count / 2 - before) ? after
                                                                                     : before;
}

/* A tree of @nodes; NULL where memory is short, node.leaf is spoilt then. */
static struct branch *build(struct tree *tree, struct node **nodes, size_t count)
{
    struct branch *branch = take_branch(tree);
    if (!branch)
        return NULL;
    branch->count = count;
    if (count <= TREE_LEAF * 3 / 4) {
        memcpy(branch->nodes, nodes, count * sizeof(struct node *));
        for (size_t i = 0; i < count; i++)
            nodes[i]->leaf = branch;
    } else {
        branch->axis = widest_axis(nodes, count);
        size_t below = divide(nodes, count, branch->axis);
        branch->cut = coordinate(nodes[below], branch->axis);
        branch->below = build(tree, nodes, below);
        branch->above = build(tree, nodes + below, count - below);
        if (!branch->below || !branch->above) {
            give_subtree(tree, branch);
            return NULL;
        }
        branch->below->parent = branch;
        branch->above->parent = branch;
    }
    measure(branch);
    return branch;
}

static size_t collect(const struct branch *branch, struct node **nodes)
{
    if (branch->below) {
        size_t below = collect(branch->below, nodes);
        return below + collect(branch->above, nodes + below);
    }
    memcpy(nodes, branch->nodes, branch->count * sizeof *nodes);
    return branch->count;
}

/* Tells the nodes below @branch which leaf they are in. */
static void claim(struct branch *branch)
{
    if (branch->below) {
        claim(branch->below);
        claim(branch->above);
        return;
    }
    for (size_t i = 0; i < branch->count; i++)
        branch->nodes[i]->leaf = branch;
}

/* Builds the part below @branch anew; where memory is short it stays as it is. */
static void rebuild(struct tree *tree, struct branch *branch)
{
    struct node **nodes = reallocarray(NULL, branch->count, sizeof *nodes);
    if (!nodes)
        return;
    struct branch *new = build(tree, nodes, collect(branch, nodes));
    free(nodes);
    if (!new) {
        claim(branch);
        return;
    }
    put_child(tree, branch->parent, branch, new);
    give_subtree(tree, branch);
}

static bool leans(const struct branch *branch)
{
    if (!branch->below || branch->count < 4 * TREE_LEAF)
        return false;
    size_t larger =
        branch->below->count > branch->above->count ? branch->below->count : branch->above->count;
    return larger * 100 > branch->count * LEAN_PERCENT;
}

static struct branch *child_for(const struct branch *branch, const struct node *node)
{
    return coordinate(node, branch->axis) < branch->cut ? branch->below : branch->above;
}

/* A full leaf becomes a branch; INSERT_NEEDS must be reserved. */
static void split(struct tree *tree, struct branch *leaf)
{
    struct node *nodes[TREE_LEAF];
    struct branch *parent = leaf->parent;
    memcpy(nodes, leaf->nodes, sizeof nodes);
    struct branch *new = build(tree, nodes, leaf->count);
    put_child(tree, parent, leaf, new);
    give_branch(tree, leaf);
}

/* INSERT_NEEDS must be reserved. */
static void insert(struct tree *tree, struct node *node)
{
    if (!tree->root)
        tree->root = take_branch(tree);
    struct branch *at = tree->root;
    while (at->below)
        at = child_for(at, node);
    if (at->count == TREE_LEAF) {
        struct branch *parent = at->parent;
        bool is_below = parent && parent->below == at;
        split(tree, at);
        at = !parent ? tree->root : is_below ? parent->below : parent->above;
        while (at->below)
            at = child_for(at, node);
    }
    at->nodes[at->count++] = node;
    node->leaf = at;
    measure_up(at);
    struct branch *leaning = NULL;
    for (; at; at = at->parent)
        if (leans(at))
            leaning = at;
    if (leaning)
        rebuild(tree, leaning);
}

int tree_insert(struct tree *tree, struct node *node, struct error *err)
{
    if (!reserve(tree, INSERT_NEEDS))
        return error_set(err, ERROR_FAILED, "out of memory for the index of nodes");
    insert(tree, node);
    return 0;
}

/* Two leaves that hold few nodes become one. */
static void join(struct tree *tree, struct branch *branch)
{
    if (branch->below->below || branch->above->below)
        return;
    struct branch *a = branch->below, *b = branch->above;
    memcpy(branch->nodes, a->nodes, a->count * sizeof(struct node *));
    memcpy(branch->nodes + a->count, b->nodes, b->count * sizeof(struct node *));
    for (size_t i = 0; i < branch->count; i++)
        branch->nodes[i]->leaf = branch;
    branch->below = branch->above = NULL;
    give_branch(tree, a);
    give_branch(tree, b);
}

void tree_remove(struct tree *tree, struct node *node)
{
    struct branch *leaf = node->leaf;
    size_t at = 0;
    while (leaf->nodes[at] != node)
        at++;
    leaf->nodes[at] = leaf->nodes[--leaf->count];
    node->leaf = NULL;
    if (leaf->count) {
        measure_up(leaf);
        struct branch *parent = leaf->parent;
        if (parent && parent->count < JOIN_BELOW)
            join(tree, parent);
        return;
    }
    struct branch *parent = leaf->parent;
    if (!parent) {
        tree->root = NULL;
    } else {
        struct branch *sibling = parent->below == leaf ? parent->above : parent->below;
        put_child(tree, parent->parent, parent, sibling);
        measure_up(sibling->parent);
        give_branch(tree, parent);
    }
    give_branch(tree, leaf);
}

/* Whether the cuts above would lead to the leaf it is in. */
static bool still_belongs(const struct node *node)
{
    const struct branch *at = node->leaf;
    for (; at->parent; at = at->parent)
        if (child_for(at->parent, node) != at)
            return false;
    return true;
}

void tree_update(struct tree *tree, struct node *node)
{
    if (still_belongs(node) || !reserve(tree, INSERT_NEEDS)) {
        measure_up(node->leaf);
        return;
    }
    tree_remove(tree, node);
    insert(tree, node);
}
