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

void explain_failure(const struct query *query, const struct node *node, unsigned failed,
                     struct sched_verdict *verdict)
{
    enum filter filter = filter_first(failed);
    char need[32], left[32];
    struct text text = {verdict->reason, sizeof verdict->reason, 0};
    (void)snprintf(verdict->filter, sizeof verdict->filter, "%s", filter_name(filter));
    switch (filter) {
    case FILTER_NODE:
        add(&text, query->request->not_node && strcmp(query->request->not_node, node->name) == 0
                       ? "is excluded by the request"
                       : "is not the node asked for");
        break;
    case FILTER_DRAINED:
        add(&text, "is drained");
        break;
    case FILTER_LOST:
        add(&text, "is lost: its agent does not report");
        break;
    case FILTER_LABEL: {
        const struct sched_label *label = filter_missing_label(query, node);
        const char *value = node_label(node, label->key);
        add(&text, "lacks label %s=%s", label->key, label->value);
        if (value)
            add(&text, ": has %s=%s", label->key, value);
        break;
    }
    case FILTER_ANTI_AFFINITY:
        add(&text, "holds VM %s of group %s", filter_group_member(query, node)->name,
            query->request->anti_affinity_group);
        break;
    case FILTER_MEMORY:
    case FILTER_CPU:
    case FILTER_BANDWIDTH:
        add(&text, "lacks %s: needs %s, %s free", filter_name(filter),
            format_amount(filter, amount(&query->need, filter), need, sizeof need),
            format_amount(filter, free_of(query, node, filter), left, sizeof left));
        break;
    }
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

/* What a look over all nodes found. */
struct survey {
    size_t count[FILTER_COUNT];               /* nodes by the filter they report */
    const struct node *closest[FILTER_COUNT]; /* per dimension: the smallest shortage */
    const struct node *easiest[FILTER_COUNT]; /* nodes that fail nothing but this filter */
    const struct node *nearest;               /* fails resources only, several of them */
    double nearest_cost;
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
        if (failed & (unsigned)~FILTER_RESOURCES) {
            if (failed == first && !survey->easiest[index])
                survey->easiest[index] = node;
            continue;
        }
        double cost = filter_shortage(query, node);
        if (!survey->nearest || cost < survey->nearest_cost) {
            survey->nearest = node;
            survey->nearest_cost = cost;
        }
    }
}

static void add_counts(struct text *text, const struct survey *survey, const struct query *query)
{
    const char *group = query->request->anti_affinity_group;
    static const int order[FILTER_COUNT] = {5, 6, 7, 4, 3, 1, 2, 0};
    const char *comma = "";
    for (size_t i = 0; i < FILTER_COUNT; i++) {
        int index = order[i];
        enum filter filter = (enum filter)(1 << index);
        size_t count = survey->count[index];
        const char *is = count == 1 ? "is" : "are";
        char less[32];
        if (count == 0)
            continue;
        add(text, "%s%zu ", comma, count);
        comma = ", ";
        if (filter & FILTER_RESOURCES)
            add(text, "lack%s %s (closest: %s, %s short)", count == 1 ? "s" : "",
                filter_name(filter), survey->closest[index]->name,
                format_amount(filter, shortage(query, survey->closest[index], filter), less,
                              sizeof less));
        else if (filter == FILTER_ANTI_AFFINITY)
            add(text, "hold%s a VM of group %s", count == 1 ? "s" : "", group);
        else if (filter == FILTER_LABEL)
            add(text, "lack%s a label", count == 1 ? "s" : "");
        else if (filter == FILTER_NODE)
            add(text, "%s ruled out by the request", is);
        else
            add(text, "%s %s", is, filter_name(filter));
    }
}

/* Ends the sentence with the change that costs least: undoing a drain changes nothing of the
 * request; a smaller VM comes before a broken rule; waiting for a lost node comes last. */
static void add_change(struct text *text, const struct survey *survey, const struct query *query)
{
    const struct node *node;
    if ((node = survey->easiest[__builtin_ctz(FILTER_DRAINED)])) {
        add(text, "; it would fit on %s if that were not drained", node->name);
    } else if ((node = survey->nearest)) {
        const char *comma = "";
        unsigned failed = filter_node(query, node);
        add(text, "; it would fit on %s with ", node->name);
        for (unsigned rest = failed; rest; rest &= rest - 1) {
            char less[32];
            enum filter filter = filter_first(rest);
            add(text, "%s%s less%s%s", comma,
                format_amount(filter, shortage(query, node, filter), less, sizeof less),
                filter == FILTER_CPU ? "" : " ", filter == FILTER_CPU ? "" : filter_name(filter));
            comma = " and ";
        }
    } else if ((node = survey->easiest[__builtin_ctz(FILTER_ANTI_AFFINITY)])) {
        add(text, "; it would fit on %s without group %s", node->name,
            query->request->anti_affinity_group);
    } else if ((node = survey->easiest[__builtin_ctz(FILTER_LABEL)])) {
        const struct sched_label *label = filter_missing_label(query, node);
        add(text, "; it would fit on %s if that had label %s=%s", node->name, label->key,
            label->value);
    } else if ((node = survey->easiest[__builtin_ctz(FILTER_NODE)])) {
        add(text, "; it would fit on %s if the request allowed that", node->name);
    } else if ((node = survey->easiest[__builtin_ctz(FILTER_LOST)])) {
        add(text, "; it would fit on %s once that is back", node->name);
    } else {
        char memory[32], cpu[32];
        add(text, "; it would fit on one more host with %s and %s free",
            format_amount(FILTER_CPU, query->need.cpu_milli, cpu, sizeof cpu),
            format_amount(FILTER_MEMORY, query->need.memory_mib, memory, sizeof memory));
    }
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
