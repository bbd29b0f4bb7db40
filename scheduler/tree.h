/*
 * tree.h: the states of all nodes that take VMs, ordered in space so that the best is found without
 * looking at all: a k-d tree whose leaves hold up to TREE_LEAF states and whose branches know the
 * box around the points below them. Private to scheduler/.
 *
 *     branch                box of both children
 *     |- below  coordinate[axis] <  cut
 *     `- above  coordinate[axis] >= cut
 *
 * A state never moves: a node that changes leaves one state and joins another, which is made where
 * it is new and dropped with its last node. So there are never more states than nodes, and in a
 * pool of a few VM sizes far fewer.
 *
 * Cost: O(log S) for S states as long as the tree is in balance; a part that leans too far is built
 * anew, which comes to O(log^2 S) a change on average.
 */
#pragma once

#include "scheduler/score.h"
#include "scheduler/state.h"

#define TREE_LEAF 12

struct branch {
    struct box box;
    size_t first_position; /* the lowest of the nodes below */
    uint64_t labels;       /* node.label_bits of the nodes below, or'ed */
    uint64_t common;       /* and and'ed */
    size_t count;          /* states below */
    struct branch *parent;
    struct branch *below, *above; /* NULL: a leaf */
    int axis;
    double cut;
    struct state *states[TREE_LEAF]; /* of a leaf */
};

struct tree {
    struct branch *root; /* NULL: no states */
    size_t branches;
};

void tree_free(struct tree *tree);
/* Puts a node that is not in yet into the state it has. */
int tree_insert(struct tree *tree, struct node *node, struct error *err);
void tree_remove(struct tree *tree, struct node *node);
/* Brings a node that is in into the state it has now. Where memory is short it is out afterwards
 * (node.state is NULL) and -1 is returned. */
int tree_update(struct tree *tree, struct node *node, struct error *err);
