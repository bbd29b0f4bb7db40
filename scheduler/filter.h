/* filter.h: may this VM live on this node at all? Private to scheduler/. */
#pragma once

#include "scheduler/pool.h"

/* A bit each; a node can fail several. The lowest one set is the one reported. */
enum filter {
    FILTER_NODE = 1 << 0,
    FILTER_DRAINED = 1 << 1,
    FILTER_LOST = 1 << 2,
    FILTER_LABEL = 1 << 3,
    FILTER_ANTI_AFFINITY = 1 << 4,
    FILTER_MEMORY = 1 << 5,
    FILTER_CPU = 1 << 6,
    FILTER_BANDWIDTH = 1 << 7,
};
#define FILTER_COUNT     8
#define FILTER_RESOURCES (FILTER_MEMORY | FILTER_CPU | FILTER_BANDWIDTH)

/* A request with its names resolved, so that each node costs no lookup. */
struct query {
    const struct sched_request *request;
    struct sched_resources need;
    const struct vm *self; /* where it is placed already; NULL: new */
    const struct group *group;
};

/* A request without a need at all, or with names that cannot be, is ERROR_USAGE. */
int query_init(struct query *query, const struct scheduler *pool,
               const struct sched_request *request, struct error *err);

/* What is reserved on @node by others than the VM asked about. */
struct sched_resources query_reserved(const struct query *query, const struct node *node);

/* The filters that say no, or'ed; 0: it fits. */
unsigned filter_node(const struct query *query, const struct node *node);

/* The one filter to report of several. */
enum filter filter_first(unsigned failed);
/* "memory", "anti-affinity", ... */
const char *filter_name(enum filter filter);
/* The label of the selector that @node lacks, or NULL. */
const struct sched_label *filter_missing_label(const struct query *query, const struct node *node);
/* The VM of the request's group on @node, or NULL. */
const struct vm *filter_group_member(const struct query *query, const struct node *node);

/* How much of what it needs the VM would lack on @node: 0 where its size fits, 1 for each dimension
 * of which nothing is free. */
double filter_shortage(const struct query *query, const struct node *node);
