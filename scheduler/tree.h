/*
 * tree.h: the nodes that take VMs, ordered in space so that the best is found without looking at
 * all: a k-d tree whose leaves hold up to TREE_LEAF nodes and whose branches know the box around
 * the points below them. Private to scheduler/.
 *
 *     branch                box of both children, count
 *     |- below  coordinate[axis] <  cut
 *     `- above  coordinate[axis] >= cut
 *
 * The axes are the loads, reserved and measured, and last the node's position in the order of being
 * added, which tells equal nodes apart. Cuts only guide where a node goes; what a search relies on
 * are the boxes, and these are exact after every call. So where memory is short a node may simply
 * stay in its old leaf.
 *
 * Cost: O(log N) for an update as long as the tree is in balance; a part that leans too far is
 * built anew, which costs O(log^2 N) an update on average.
 */
#pragma once

#include "scheduler/score.h"

#define TREE_LEAF 16
#define TREE_AXES (2 * DIMENSIONS + 1)

struct branch {
    struct box box;
    size_t first_position; /* the lowest of the nodes below */
    uint64_t labels;       /* node.label_bits of the nodes below, or'ed */
    size_t count;          /* nodes below */
    struct branch *parent;
    struct branch *below, *above; /* NULL: a leaf */
    int axis;
    double cut;
    struct node *nodes[TREE_LEAF]; /* of a leaf */
};

struct tree {
    struct branch *root;
    struct branch *spare; /* a list through branch.parent */
    size_t spares;
    size_t branches; /* in use */
};

void tree_free(struct tree *tree);
/* Puts a node in that is not in yet. */
int tree_insert(struct tree *tree, struct node *node, struct error *err);
void tree_remove(struct tree *tree, struct node *node);
/* To be called after node->point, its labels or its position changed. */
void tree_update(struct tree *tree, struct node *node);
