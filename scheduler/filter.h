/* filter.h: may this VM live on this node at all? Private to scheduler/. */
#pragma once

#include "scheduler/pool.h"

/* A bit each; a node can fail several. The lowest one set is the one reported. */
enum filter {
    FILTER_NODE = 1 << 0,
    FILTER_DRAINED = 1 << 1,
    FILTER_LOST = 1 << 2,
    FILTER_DEDICATED = 1 << 3,
    FILTER_LABEL = 1 << 4,
    FILTER_AFFINITY = 1 << 5,
    FILTER_ANTI_AFFINITY = 1 << 6,
    FILTER_SPREAD = 1 << 7,
    FILTER_MEMORY = 1 << 8,
    FILTER_CPU = 1 << 9,
    FILTER_BANDWIDTH = 1 << 10,
};
#define FILTER_COUNT     11
#define FILTER_RESOURCES (FILTER_MEMORY | FILTER_CPU | FILTER_BANDWIDTH)

/* A request with its names resolved, so that each node costs no lookup. */
struct query {
    const struct sched_request *request;
    struct sched_resources need;
    const struct vm *self;        /* where it is placed already; NULL: new */
    const struct group *apart;    /* hard anti-affinity */
    const struct group *avoided;  /* soft anti-affinity */
    const struct group *together; /* affinity; NULL also where no other VM of it is placed */
    const struct group *spread;
    size_t domain_most;   /* VMs of the spread group that a domain may have before this one */
    uint64_t label_bits;  /* a node must have all of these */
    uint64_t domain_bits; /* and one of these, unless 0 */
    uint64_t tenant_bit;  /* a dedicated node must have this; 0: none will do */
    uint32_t exit_slot;   /* when it would leave (exits.h); 0: does not matter */
};

/* Names that cannot be, such as a spread without its label, are ERROR_USAGE. */
int request_check_names(const struct sched_request *request, struct error *err);

/* A request without a need at all, with names that cannot be, or with rules that contradict each
 * other is ERROR_USAGE. The query points into the request and the pool and owns nothing. */
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
/* The VMs of @group on @node besides the one asked about; @group may be NULL. */
size_t query_others(const struct query *query, enum group_kind kind, const struct group *group,
                    const struct node *node);
/* A VM of the request's anti-affinity group on @node, or NULL. */
const struct vm *filter_group_member(const struct query *query, const struct node *node);
/* VMs of the spread group where @node is, and how far apart domains would be with one more there.
 * Only for nodes with the label. */
size_t filter_domain_count(const struct query *query, const struct node *node);
size_t filter_domain_skew(const struct query *query, const struct node *node);
/* Whether label bits, of a node or of all nodes of a state, rule it out. */
bool filter_bits(const struct query *query, uint64_t label_bits);

/* How much of what it needs the VM would lack on @node: 0 where its size fits, 1 for each dimension
 * of which nothing is free. */
double filter_shortage(const struct query *query, const struct node *node);
