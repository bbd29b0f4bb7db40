/* filter.c: see filter.h. */
#include "scheduler/filter.h"

#include <string.h>

#include "scheduler/exits.h"
#include "scheduler/group.h"

static bool is_given(const char *name)
{
    return name && *name;
}

static int check_name(const char *name, const char *what, struct error *err)
{
    if (is_given(name) && strlen(name) > GROUP_NAME_MAX)
        return error_set(err, ERROR_USAGE, "%s has %zu letters: expected at most %d", what,
                         strlen(name), GROUP_NAME_MAX);
    return 0;
}

int request_check_names(const struct sched_request *request, struct error *err)
{
    if (check_name(request->anti_affinity_group, "the anti-affinity group", err) < 0 ||
        check_name(request->affinity_group, "the affinity group", err) < 0 ||
        check_name(request->spread_group, "the spread group", err) < 0 ||
        check_name(request->spread_label, "the label to spread over", err) < 0)
        return -1;
    if (is_given(request->spread_group) != is_given(request->spread_label))
        return error_set(err, ERROR_USAGE,
                         "a spread needs both a group and the node label to spread it over");
    return 0;
}

static bool same(const char *a, const char *b)
{
    return is_given(a) && is_given(b) && strcmp(a, b) == 0;
}

/* Rules that no pool whatever could satisfy. */
static int check_contradictions(const struct sched_request *request, struct error *err)
{
    if (same(request->only_node, request->not_node))
        return error_set(err, ERROR_USAGE,
                         "the rules contradict each other: only on node %s, and not on node %s",
                         request->only_node, request->not_node);
    if (same(request->affinity_group, request->anti_affinity_group) && !request->anti_affinity_soft)
        return error_set(err, ERROR_USAGE,
                         "the rules contradict each other: with the VMs of group %s, and never on "
                         "a node with one of them",
                         request->affinity_group);
    for (size_t i = 0; i < request->selector_count; i++) {
        const struct sched_label *a = &request->selector[i];
        for (size_t j = 0; j < i; j++)
            if (strcmp(a->key, request->selector[j].key) == 0 &&
                strcmp(a->value, request->selector[j].value) != 0)
                return error_set(err, ERROR_USAGE,
                                 "the rules contradict each other: a node has one value of label "
                                 "%s, not both %s and %s",
                                 a->key, request->selector[j].value, a->value);
        if (strcmp(a->key, SCHED_DEDICATED_LABEL) == 0 && !same(a->value, request->tenant))
            return error_set(err, ERROR_USAGE,
                             "the rules contradict each other: only on nodes dedicated to %s, "
                             "which take no VM of %s",
                             a->value, is_given(request->tenant) ? request->tenant : "others");
    }
    return 0;
}

int sched_request_check(const struct sched_request *request, struct error *err)
{
    return request_check_names(request, err) < 0 ? -1 : check_contradictions(request, err);
}

size_t query_others(const struct query *query, enum group_kind kind, const struct group *group,
                    const struct node *node)
{
    const struct vm *self = query->self;
    size_t count = group_count(group, node);
    return count && self && self->node == node && self->groups[kind] == group ? count - 1 : count;
}

/* The VMs of the spread group in a domain besides the one asked about. */
static size_t domain_others(const struct query *query, const struct domain *domain)
{
    const struct vm *self = query->self;
    size_t count = query->spread->in_domain[domain->index];
    return count && self && self->groups[GROUP_SPREAD] == query->spread &&
                   domain_of(query->spread->key, self->node) == domain
               ? count - 1
               : count;
}

/* How many VMs a domain may have before this one, and which labels say that one has not. */
static void prepare_spread(struct query *query)
{
    size_t least = SIZE_MAX;
    uint32_t skew = query->request->spread_skew;
    const struct domain *domains = query->spread->key->domains;
    for (const struct domain *domain = domains; domain; domain = domain->next)
        if (domain->open_nodes && domain_others(query, domain) < least)
            least = domain_others(query, domain);
    query->domain_most = least == SIZE_MAX ? 0 : least + (skew ? skew : 1) - 1;
    for (const struct domain *domain = domains; domain; domain = domain->next)
        if (domain->open_nodes && domain_others(query, domain) <= query->domain_most)
            query->domain_bits |= domain->bit;
}

static void prepare_groups(struct query *query, const struct scheduler *pool)
{
    const struct sched_request *request = query->request;
    const struct group *apart =
        group_find(pool, GROUP_ANTI_AFFINITY, request->anti_affinity_group, NULL);
    const struct group *together = group_find(pool, GROUP_AFFINITY, request->affinity_group, NULL);
    *(request->anti_affinity_soft ? &query->avoided : &query->apart) = apart;
    if (together &&
        together->members > (query->self && query->self->groups[GROUP_AFFINITY] == together))
        query->together = together;
    if (is_given(request->spread_group))
        query->spread =
            group_find(pool, GROUP_SPREAD, request->spread_group, request->spread_label);
    if (query->spread)
        prepare_spread(query);
}

int query_init(struct query *query, const struct scheduler *pool,
               const struct sched_request *request, struct error *err)
{
    const struct sched_resources *need = &request->need;
    if (need->cpu_milli == 0 && need->memory_mib == 0 && need->bandwidth_bps == 0)
        return error_set(err, ERROR_USAGE, "the request asks for nothing: state CPU and memory");
    if (sched_request_check(request, err) < 0)
        return -1;
    *query = (struct query){
        .request = request,
        .need = *need,
        .self = request->vm ? pool_find_vm(pool, request->vm) : NULL,
    };
    query->exit_slot = exits_of_request(pool, request, query->self);
    prepare_groups(query, pool);
    for (size_t i = 0; i < request->selector_count; i++)
        query->label_bits |= label_bit(request->selector[i].key, request->selector[i].value);
    if (is_given(request->tenant))
        query->tenant_bit = label_bit(SCHED_DEDICATED_LABEL, request->tenant);
    return 0;
}

bool filter_bits(const struct query *query, uint64_t label_bits)
{
    return (label_bits & query->label_bits) != query->label_bits ||
           (query->domain_bits && !(label_bits & query->domain_bits)) ||
           (label_bits & DEDICATED_BIT && !(label_bits & query->tenant_bit));
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
    const struct group *group = query->apart ? query->apart : query->avoided;
    if (!query_others(query, GROUP_ANTI_AFFINITY, group, node))
        return NULL;
    const struct vm *vm = node->vms;
    while (vm && (vm->groups[GROUP_ANTI_AFFINITY] != group || vm == query->self))
        vm = vm->next;
    return vm;
}

size_t filter_domain_count(const struct query *query, const struct node *node)
{
    const struct domain *domain = query->spread ? domain_of(query->spread->key, node) : NULL;
    return domain ? domain_others(query, domain) : 0;
}

size_t filter_domain_skew(const struct query *query, const struct node *node)
{
    uint32_t skew = query->request->spread_skew;
    size_t least = query->domain_most + 1 - (skew ? skew : 1);
    return filter_domain_count(query, node) + 1 - least;
}

/* Kept for a tenant that is not the request's. */
static bool is_dedicated_to_others(const struct query *query, const struct node *node)
{
    const char *tenant =
        node->label_bits & DEDICATED_BIT ? node_label(node, SCHED_DEDICATED_LABEL) : NULL;
    return tenant && !same(tenant, query->request->tenant);
}

static bool spreads_badly(const struct query *query, const struct node *node)
{
    const struct sched_request *request = query->request;
    if (!is_given(request->spread_group))
        return false;
    if (!query->spread)
        return !node_label(node, request->spread_label);
    const struct domain *domain = domain_of(query->spread->key, node);
    return !domain || domain_others(query, domain) > query->domain_most;
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
    if (is_dedicated_to_others(query, node))
        failed |= FILTER_DEDICATED;
    if (filter_missing_label(query, node))
        failed |= FILTER_LABEL;
    if (query->together && !query_others(query, GROUP_AFFINITY, query->together, node))
        failed |= FILTER_AFFINITY;
    if (query_others(query, GROUP_ANTI_AFFINITY, query->apart, node))
        failed |= FILTER_ANTI_AFFINITY;
    if (spreads_badly(query, node))
        failed |= FILTER_SPREAD;
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
    case FILTER_DEDICATED:
        return "dedicated";
    case FILTER_LABEL:
        return "label";
    case FILTER_AFFINITY:
        return "affinity";
    case FILTER_ANTI_AFFINITY:
        return "anti-affinity";
    case FILTER_SPREAD:
        return "spread";
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
