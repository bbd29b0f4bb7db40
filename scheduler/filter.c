/* filter.c: see filter.h. */
#include "scheduler/filter.h"

#include <string.h>

int query_init(struct query *query, const struct scheduler *pool,
               const struct sched_request *request, struct error *err)
{
    const struct sched_resources *need = &request->need;
    if (need->cpu_milli == 0 && need->memory_mib == 0 && need->bandwidth_bps == 0)
        return error_set(err, ERROR_USAGE, "the request asks for nothing: state CPU and memory");
    *query = (struct query){
        .request = request,
        .need = *need,
        .self = request->vm ? pool_find_vm(pool, request->vm) : NULL,
        .group = pool_find_group(pool, request->anti_affinity_group),
    };
    return 0;
}

struct sched_resources query_reserved(const struct query *query, const struct node *node)
{
    struct sched_resources reserved = node->reserved;
    if (query->self && query->self->node == node) {
        reserved.cpu_milli -= query->self->need.cpu_milli;
        reserved.memory_mib -= query->self->need.memory_mib;
        reserved.bandwidth_bps -= query->self->need.bandwidth_bps;
    }
    return reserved;
}

static bool lacks(uint64_t reserved, uint64_t need, uint64_t limit)
{
    return need > limit || reserved > limit - need;
}

/* Needs nothing of a dimension: fits even where that one is overfull already. */
static bool short_of(uint64_t reserved, uint64_t need, uint64_t limit)
{
    return need > 0 && lacks(reserved, need, limit);
}

const struct sched_label *filter_missing_label(const struct query *query, const struct node *node)
{
    for (size_t i = 0; i < query->request->selector_count; i++) {
        const struct sched_label *wanted = &query->request->selector[i];
        const char *value = node_label(node, wanted->key);
        if (!value || strcmp(value, wanted->value) != 0)
            return wanted;
    }
    return NULL;
}

const struct vm *filter_group_member(const struct query *query, const struct node *node)
{
    if (!query->group)
        return NULL;
    for (const struct vm *vm = query->group->members; vm; vm = vm->group_next)
        if (vm->node == node && vm != query->self)
            return vm;
    return NULL;
}

static bool wrong_node(const struct sched_request *request, const struct node *node)
{
    return (request->only_node && strcmp(request->only_node, node->name) != 0) ||
           (request->not_node && strcmp(request->not_node, node->name) == 0);
}

unsigned filter_node(const struct query *query, const struct node *node)
{
    const struct sched_resources reserved = query_reserved(query, node);
    unsigned failed = 0;
    if (wrong_node(query->request, node))
        failed |= FILTER_NODE;
    if (node->drained)
        failed |= FILTER_DRAINED;
    if (node->lost)
        failed |= FILTER_LOST;
    if (filter_missing_label(query, node))
        failed |= FILTER_LABEL;
    if (filter_group_member(query, node))
        failed |= FILTER_ANTI_AFFINITY;
    if (short_of(reserved.memory_mib, query->need.memory_mib, node->limit.memory_mib))
        failed |= FILTER_MEMORY;
    if (short_of(reserved.cpu_milli, query->need.cpu_milli, node->limit.cpu_milli))
        failed |= FILTER_CPU;
    if (short_of(reserved.bandwidth_bps, query->need.bandwidth_bps, node->limit.bandwidth_bps))
        failed |= FILTER_BANDWIDTH;
    return failed;
}

enum filter filter_first(unsigned failed)
{
    return (enum filter)(failed & -failed);
}

const char *filter_name(enum filter filter)
{
    switch (filter) {
    case FILTER_NODE:
        return "node";
    case FILTER_DRAINED:
        return "drained";
    case FILTER_LOST:
        return "lost";
    case FILTER_LABEL:
        return "label";
    case FILTER_ANTI_AFFINITY:
        return "anti-affinity";
    case FILTER_MEMORY:
        return "memory";
    case FILTER_CPU:
        return "cpu";
    case FILTER_BANDWIDTH:
        return "bandwidth";
    }
    return "";
}

double filter_shortage(const struct query *query, const struct node *node)
{
    const struct sched_resources reserved = query_reserved(query, node);
    double sum = 0;
    for (int d = 0; d < DIMENSIONS; d++) {
        uint64_t need = resource(&query->need, d), limit = resource(&node->limit, d);
        uint64_t taken = resource(&reserved, d), left = limit > taken ? limit - taken : 0;
        if (need > left)
            sum += (double)(need - left) / (double)need;
    }
    return sum;
}
