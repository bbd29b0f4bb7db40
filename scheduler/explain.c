/* explain.c: see explain.h. The reader is an operator who wants to know what to do next. */
#include "scheduler/explain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

/* A text that grows and is cut where it is full. */
struct text {
    char *out;
    size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int wrote = vsnprintf(text->out + text->length, text->size - text->length, format, list);
    va_end(list);
    size_t room = text->size - text->length - 1;
    if (wrote > 0)
        text->length += (size_t)wrote < room ? (size_t)wrote : room;
}

static uint64_t amount(const struct sched_resources *r, enum filter dimension)
{
    return dimension == FILTER_MEMORY ? r->memory_mib
           : dimension == FILTER_CPU  ? r->cpu_milli
                                      : r->bandwidth_bps;
}

static const char *format_amount(enum filter dimension, uint64_t value, char *out, size_t size)
{
    if (dimension == FILTER_MEMORY)
        return units_format_bytes(value << 20, out, size);
    if (dimension == FILTER_BANDWIDTH)
        return units_format_bps(value, out, size);
    if (value % 1000)
        (void)snprintf(out, size, "%.1f CPUs", (double)value / 1000);
    else
        (void)snprintf(out, size, "%" PRIu64 " CPU%s", value / 1000, value == 1000 ? "" : "s");
    return out;
}

static uint64_t free_of(const struct query *query, const struct node *node, enum filter dimension)
{
    const struct sched_resources reserved = query_reserved(query, node);
    uint64_t limit = amount(&node->limit, dimension);
    uint64_t taken = amount(&reserved, dimension);
    return limit > taken ? limit - taken : 0;
}

static uint64_t shortage(const struct query *query, const struct node *node, enum filter dimension)
{
    uint64_t need = amount(&query->need, dimension);
    uint64_t left = free_of(query, node, dimension);
    return need > left ? need - left : 0;
}

/* What one filter found on @node. */
static void add_reason(struct text *text, const struct query *query, const struct node *node,
                       enum filter filter)
{
    const struct sched_request *request = query->request;
    char need[32], left[32];
    switch (filter) {
    case FILTER_NODE:
        add(text, request->not_node && strcmp(request->not_node, node->name) == 0
                      ? "is excluded by the request"
                      : "is not the node asked for");
        break;
    case FILTER_DRAINED:
        add(text, "is drained");
        break;
    case FILTER_LOST:
        add(text, "is lost: its agent does not report");
        break;
    case FILTER_DEDICATED:
        add(text, "is dedicated to %s", node_label(node, SCHED_DEDICATED_LABEL));
        break;
    case FILTER_LABEL: {
        const struct sched_label *label = filter_missing_label(query, node);
        const char *value = node_label(node, label->key);
        add(text, "lacks label %s=%s", label->key, label->value);
        if (value)
            add(text, ": has %s=%s", label->key, value);
        break;
    }
    case FILTER_AFFINITY:
        add(text, "holds no VM of group %s", request->affinity_group);
        break;
    case FILTER_ANTI_AFFINITY:
        add(text, "holds VM %s of group %s", filter_group_member(query, node)->name,
            request->anti_affinity_group);
        break;
    case FILTER_SPREAD: {
        const char *value = node_label(node, request->spread_label);
        if (value)
            add(text, "is in %s=%s, which has %zu VMs of group %s: at most %zu now",
                request->spread_label, value, filter_domain_count(query, node),
                request->spread_group, query->domain_most + 1);
        else
            add(text, "lacks label %s, which group %s is spread over", request->spread_label,
                request->spread_group);
        break;
    }
    case FILTER_MEMORY:
    case FILTER_CPU:
    case FILTER_BANDWIDTH:
        add(text, "lacks %s: needs %s, %s free", filter_name(filter),
            format_amount(filter, amount(&query->need, filter), need, sizeof need),
            format_amount(filter, free_of(query, node, filter), left, sizeof left));
        break;
    }
}

/* What would have to change for one filter to let the VM onto @node, as the end of a sentence. */
static void add_remedy(struct text *text, const struct query *query, const struct node *node,
                       enum filter filter)
{
    const struct sched_request *request = query->request;
    char less[32];
    switch (filter) {
    case FILTER_NODE:
        add(text, "if the request allowed that");
        break;
    case FILTER_DRAINED:
        add(text, "if that were not drained");
        break;
    case FILTER_LOST:
        add(text, "once that is back");
        break;
    case FILTER_DEDICATED:
        add(text, "for tenant %s", node_label(node, SCHED_DEDICATED_LABEL));
        break;
    case FILTER_LABEL: {
        const struct sched_label *label = filter_missing_label(query, node);
        add(text, "if that had label %s=%s", label->key, label->value);
        break;
    }
    case FILTER_AFFINITY:
        add(text, "without affinity to group %s", request->affinity_group);
        break;
    case FILTER_ANTI_AFFINITY:
        add(text, "without group %s", request->anti_affinity_group);
        break;
    case FILTER_SPREAD:
        if (node_label(node, request->spread_label))
            add(text, "with group %s spread over %s by %zu apart", request->spread_group,
                request->spread_label, filter_domain_skew(query, node));
        else
            add(text, "if that had a label %s", request->spread_label);
        break;
    case FILTER_MEMORY:
    case FILTER_CPU:
    case FILTER_BANDWIDTH:
        add(text, "with %s less%s%s",
            format_amount(filter, shortage(query, node, filter), less, sizeof less),
            filter == FILTER_CPU ? "" : " ", filter == FILTER_CPU ? "" : filter_name(filter));
        break;
    }
}

static void add_remedies(struct text *text, const struct query *query, const struct node *node,
                         unsigned failed)
{
    for (unsigned rest = failed; rest; rest &= rest - 1) {
        add_remedy(text, query, node, filter_first(rest));
        if (rest & (rest - 1))
            add(text, " and ");
    }
}

void explain_failure(const struct query *query, const struct node *node, unsigned failed,
                     struct sched_verdict *verdict)
{
    struct text reason = {verdict->reason, sizeof verdict->reason, 0};
    struct text change = {verdict->change, sizeof verdict->change, 0};
    (void)snprintf(verdict->filter, sizeof verdict->filter, "%s",
                   filter_name(filter_first(failed)));
    add_reason(&reason, query, node, filter_first(failed));
    add_remedies(&change, query, node, failed);
}

void explain_choice(const struct scheduler *pool, const struct query *query,
                    const struct node *node, char *out, size_t size)
{
    const struct sched_resources others = query_reserved(query, node);
    const struct point point = point_make(node, &others);
    double load[DIMENSIONS];
    load_with(&query->need, &point, load);
    struct text text = {out, size, 0};
    add(&text, "%s by %s: with it %.0f%% of memory, %.0f%% of CPU and %.0f%% of bandwidth reserved",
        node->name, sched_policy_name(pool->config.policy), load[MEMORY] * 100, load[CPU] * 100,
        load[BANDWIDTH] * 100);
}

/* How hard it is to change what a filter asks: undoing a drain changes nothing of the request, a
 * smaller VM comes before a broken rule, waiting for a lost node comes last. */
static double cost_of(enum filter filter)
{
    switch (filter) {
    case FILTER_DRAINED:
        return 1;
    case FILTER_MEMORY:
    case FILTER_CPU:
    case FILTER_BANDWIDTH:
        return 5;
    case FILTER_ANTI_AFFINITY:
    case FILTER_SPREAD:
        return 20;
    case FILTER_LABEL:
        return 25;
    case FILTER_AFFINITY:
        return 26;
    case FILTER_DEDICATED:
        return 27;
    case FILTER_NODE:
        return 28;
    case FILTER_LOST:
        return 30;
    }
    return 0;
}

/* Where more would have to change than this, one more host is the easier way. */
#define COST_MAX 40.0

/* What a look over all nodes found. */
struct survey {
    size_t count[FILTER_COUNT];               /* nodes by the filter they report */
    const struct node *closest[FILTER_COUNT]; /* per dimension: the smallest shortage */
    const struct node *easiest;               /* the smallest change */
    double cost;
};

static void survey_pool(struct survey *survey, const struct scheduler *pool,
                        const struct query *query)
{
    *survey = (struct survey){0};
    for (size_t i = 0; i < pool->node_count; i++) {
        const struct node *node = pool->nodes[i];
        unsigned failed = filter_node(query, node);
        enum filter first = filter_first(failed);
        int index = __builtin_ctz(failed);
        survey->count[index]++;
        if (first & FILTER_RESOURCES &&
            (!survey->closest[index] ||
             shortage(query, node, first) < shortage(query, survey->closest[index], first)))
            survey->closest[index] = node;
        double cost = 0;
        for (unsigned rest = failed & (unsigned)~FILTER_RESOURCES; rest; rest &= rest - 1)
            cost += cost_of(filter_first(rest));
        if (failed & FILTER_RESOURCES)
            cost += cost_of(FILTER_MEMORY) + filter_shortage(query, node);
        if (!survey->easiest || cost < survey->cost) {
            survey->easiest = node;
            survey->cost = cost;
        }
    }
}

static void add_count(struct text *text, const struct survey *survey, const struct query *query,
                      enum filter filter)
{
    const struct sched_request *request = query->request;
    int index = __builtin_ctz(filter);
    size_t count = survey->count[index];
    const char *plural = count == 1 ? "s" : "";
    const char *is = count == 1 ? "is" : "are";
    char less[32];
    add(text, "%zu ", count);
    if (filter & FILTER_RESOURCES)
        add(text, "lack%s %s (closest: %s, %s short)", plural, filter_name(filter),
            survey->closest[index]->name,
            format_amount(filter, shortage(query, survey->closest[index], filter), less,
                          sizeof less));
    else if (filter == FILTER_ANTI_AFFINITY)
        add(text, "hold%s a VM of group %s", plural, request->anti_affinity_group);
    else if (filter == FILTER_AFFINITY)
        add(text, "hold%s no VM of group %s", plural, request->affinity_group);
    else if (filter == FILTER_SPREAD)
        add(text, "%s where group %s has too many for its spread over %s", is,
            request->spread_group, request->spread_label);
    else if (filter == FILTER_LABEL)
        add(text, "lack%s a label", plural);
    else if (filter == FILTER_DEDICATED)
        add(text, "%s dedicated to others", is);
    else if (filter == FILTER_NODE)
        add(text, "%s ruled out by the request", is);
    else
        add(text, "%s %s", is, filter_name(filter));
}

static void add_counts(struct text *text, const struct survey *survey, const struct query *query)
{
    static const enum filter order[FILTER_COUNT] = {
        FILTER_MEMORY,   FILTER_CPU,    FILTER_BANDWIDTH, FILTER_ANTI_AFFINITY,
        FILTER_AFFINITY, FILTER_SPREAD, FILTER_LABEL,     FILTER_DEDICATED,
        FILTER_DRAINED,  FILTER_LOST,   FILTER_NODE,
    };
    const char *comma = "";
    for (size_t i = 0; i < FILTER_COUNT; i++) {
        if (survey->count[__builtin_ctz(order[i])] == 0)
            continue;
        add(text, "%s", comma);
        add_count(text, survey, query, order[i]);
        comma = ", ";
    }
}

static void add_change(struct text *text, const struct survey *survey, const struct query *query)
{
    char memory[32], cpu[32];
    if (survey->cost <= COST_MAX) {
        add(text, "; it would fit on %s ", survey->easiest->name);
        add_remedies(text, query, survey->easiest, filter_node(query, survey->easiest));
        return;
    }
    add(text, "; it would fit on one more host with %s and %s free",
        format_amount(FILTER_CPU, query->need.cpu_milli, cpu, sizeof cpu),
        format_amount(FILTER_MEMORY, query->need.memory_mib, memory, sizeof memory));
}

void explain_refusal(const struct scheduler *pool, const struct query *query, char *out,
                     size_t size)
{
    struct text text = {out, size, 0};
    struct survey survey;
    if (pool->node_count == 0) {
        add(&text, "no host fits: the pool has no hosts yet");
        return;
    }
    survey_pool(&survey, pool, query);
    add(&text, "no host fits: ");
    add_counts(&text, &survey, query);
    add_change(&text, &survey, query);
}
