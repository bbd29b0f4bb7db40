/* score.h: how good is a node that fits? Private to scheduler/. */
#pragma once

#include "scheduler/filter.h"

/* The smallest region with faces along the axes that holds some points. */
struct box {
    struct point low, high;
};

/* How full each dimension would be with the VM on the node, 0 to 1 (more where it is overfull). */
void load_with(const struct sched_resources *need, const struct point *point,
               double load[DIMENSIONS]);

/* Larger is better. Compare only scores of one policy and one request. */
double score_point(enum sched_policy policy, const struct query *query, const struct point *point);
/* At least the score of every point in the box that the VM fits. */
double score_bound(enum sched_policy policy, const struct query *query, const struct box *box);
