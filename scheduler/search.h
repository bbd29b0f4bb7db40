/* search.h: the best node for a request. Private to scheduler/. */
#pragma once

#include "scheduler/filter.h"

/* The node that fits with the fewest VMs of a group that is to be avoided, of those the one with
 * the highest score, the first added among equals; NULL: none fits. Looks only where the index says
 * that a better one may be. */
const struct node *search_best(const struct scheduler *pool, const struct query *query);

/* The same by looking at each node: what search_best() is held to. */
const struct node *search_by_scan(const struct scheduler *pool, const struct query *query);

/* The score of @node, which may be where the VM is placed already. */
double search_score(const struct scheduler *pool, const struct query *query,
                    const struct node *node);

/* The VMs on @node that the request would rather not be with. */
size_t search_avoided(const struct query *query, const struct node *node);
