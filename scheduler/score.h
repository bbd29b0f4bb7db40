/* score.h: how good is a node that fits? Private to scheduler/. */
#pragma once

#include "scheduler/filter.h"

/* How full a node would be in each dimension, 0 to 1 (more where it is overfull). */
struct load {
    double cpu;
    double memory;
    double bandwidth;
};

/* By reservations, with the VM on it, of what may be reserved. */
struct load load_reserved(const struct query *query, const struct node *node);
/* As measured now, of the capacity. */
struct load load_measured(const struct node *node);

/* Larger is better. Compare only scores of one policy and one request. */
double score_node(enum sched_policy policy, const struct query *query, const struct node *node);

/* "pack", "spread", "balance" */
const char *policy_name(enum sched_policy policy);
