/*
 * sched-bench: how long a placement decision takes, in pools of several sizes.
 *
 * Each pool is filled to 85 % of its memory with VMs of eight flavours; then a random VM leaves, a
 * new one is decided on and placed, again and again. Timed is scheduler_choose() alone, its words
 * included; "naive" is the linear scan the index is held to by the unit tests.
 */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "scheduler/search.h"

#define GROUP_SIZE 5

/* Groups of GROUP_SIZE; zones are three. */
enum rule { RULE_NONE, RULE_APART, RULE_AVOID, RULE_SPREAD };

struct bench {
    struct scheduler *pool;
    size_t nodes;
    enum rule rule; /* on every VM */
    bool naive;
    uint64_t random;
    char (*vms)[24]; /* the names of those that run */
    size_t vm_count, vm_space;
    uint64_t next_vm;
    uint64_t memory_mib; /* reserved in all */
};

struct figures {
    double per_second;
    uint64_t p50_ns, p99_ns, p999_ns;
};

static const struct sched_resources flavours[] = {
    {1000, 2048, 250000000},   {2000, 4096, 500000000},    {2000, 8192, 500000000},
    {4000, 8192, 1000000000},  {4000, 16384, 1000000000},  {8000, 16384, 2000000000},
    {8000, 32768, 2000000000}, {16000, 57344, 4000000000},
};

static uint64_t draw(struct bench *bench, uint64_t below)
{
    bench->random ^= bench->random >> 12;
    bench->random ^= bench->random << 25;
    bench->random ^= bench->random >> 27;
    return ((bench->random * UINT64_C(2685821657736338717)) >> 33) % below;
}

static void fail(const struct error *err)
{
    (void)fprintf(stderr, "sched-bench: %s\n", err->text);
    exit((int)err->kind);
}

static const char *const zones[] = {"a", "b", "c"};

static void make_pool(struct bench *bench, enum sched_policy policy)
{
    struct error err = ERROR_INIT;
    struct sched_config config = {.policy = policy};
    bench->pool = scheduler_new(&config, &err);
    if (!bench->pool)
        fail(&err);
    for (size_t i = 0; i < bench->nodes; i++) {
        char name[24];
        const struct sched_label zone = {"zone", zones[i % 3]};
        struct sched_node node = {.name = name,
                                  .capacity = {64000, 131072, 25000000000},
                                  .labels = &zone,
                                  .label_count = 1};
        (void)snprintf(name, sizeof name, "n%zu", i);
        if (scheduler_set_node(bench->pool, &node, &err) < 0)
            fail(&err);
    }
}

/* Decides by index or by scan; returns nanoseconds, 0 where nothing fits. */
static uint64_t decide(const struct bench *bench, const struct sched_request *request,
                       char node[SCHED_NAME_MAX])
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    int64_t start = clock_monotonic_ns();
    if (bench->naive) {
        struct query query;
        const struct node *best = NULL;
        if (query_init(&query, bench->pool, request, &err) == 0)
            best = search_by_scan(bench->pool, &query);
        (void)snprintf(node, SCHED_NAME_MAX, "%s", best ? best->name : "");
    } else {
        if (scheduler_choose(bench->pool, request, &decision, &err) < 0 &&
            err.kind != ERROR_NO_CAPACITY)
            fail(&err);
        memcpy(node, decision.node, SCHED_NAME_MAX);
    }
    uint64_t took = (uint64_t)(clock_monotonic_ns() - start);
    return node[0] ? took : 0;
}

/* One VM more; returns what decide() did. */
static uint64_t arrive(struct bench *bench)
{
    struct error err = ERROR_INIT;
    char group[32] = "", node[SCHED_NAME_MAX];
    char *name = bench->vms[bench->vm_count];
    struct sched_request request = {
        .vm = name,
        .need = flavours[draw(bench, sizeof flavours / sizeof *flavours)],
        .anti_affinity_group = bench->rule != RULE_SPREAD ? group : NULL,
        .anti_affinity_soft = bench->rule == RULE_AVOID,
        .spread_group = bench->rule == RULE_SPREAD ? group : NULL,
        .spread_label = bench->rule == RULE_SPREAD ? "zone" : NULL,
    };
    (void)snprintf(name, sizeof *bench->vms, "v%" PRIu64, bench->next_vm);
    if (bench->rule != RULE_NONE)
        (void)snprintf(group, sizeof group, "g%" PRIu64, bench->next_vm / GROUP_SIZE);
    bench->next_vm++;
    uint64_t took = decide(bench, &request, node);
    if (!took)
        return 0;
    if (scheduler_place(bench->pool, &request, node, &err) < 0)
        fail(&err);
    bench->vm_count++;
    bench->memory_mib += request.need.memory_mib;
    return took;
}

static void leave(struct bench *bench)
{
    size_t at = (size_t)draw(bench, bench->vm_count);
    const struct vm *vm = pool_find_vm(bench->pool, bench->vms[at]);
    bench->memory_mib -= vm->need.memory_mib;
    scheduler_remove_vm(bench->pool, bench->vms[at]);
    bench->vm_count--;
    memcpy(bench->vms[at], bench->vms[bench->vm_count], sizeof *bench->vms);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct figures measure(struct bench *bench, size_t decisions)
{
    struct figures figures = {0};
    uint64_t *times = calloc(decisions, sizeof *times);
    uint64_t sum = 0;
    size_t count = 0;
    for (size_t i = 0; times && i < decisions; i++) {
        leave(bench);
        uint64_t took = arrive(bench);
        if (!took)
            continue;
        times[count++] = took;
        sum += took;
    }
    if (count) {
        qsort(times, count, sizeof *times, by_size);
        figures = (struct figures){
            .per_second = 1e9 * (double)count / (double)sum,
            .p50_ns = times[count / 2],
            .p99_ns = times[count * 99 / 100],
            .p999_ns = times[count * 999 / 1000],
        };
    }
    free(times);
    return figures;
}

static struct figures run(size_t nodes, enum sched_policy policy, enum rule rule, bool naive,
                          size_t decisions)
{
    struct bench bench = {
        .nodes = nodes, .rule = rule, .random = 88172645463325252u, .vm_space = nodes * 64};
    bench.vms = calloc(bench.vm_space, sizeof *bench.vms);
    make_pool(&bench, policy);
    while (bench.vms && bench.memory_mib < nodes * 131072 / 100 * 85 &&
           bench.vm_count + 1 < bench.vm_space)
        (void)arrive(&bench);
    (void)measure(&bench, nodes / 2); /* lets departures leave their holes */
    bench.naive = naive;
    struct figures figures = measure(&bench, decisions);
    scheduler_free(bench.pool);
    free(bench.vms);
    return figures;
}

static void row(const char *what, size_t nodes, const char *policy, const struct figures *figures)
{
    (void)printf("%-28s %-8s %7zu %12.0f %9.2f %9.2f %9.2f %7.1f\n", what, policy, nodes,
                 figures->per_second, (double)figures->p50_ns / 1000,
                 (double)figures->p99_ns / 1000, (double)figures->p999_ns / 1000,
                 (double)figures->p99_ns / (double)figures->p50_ns);
    (void)fflush(stdout);
}

/* @only: one policy's name; NULL: all. */
static void compare_policies(size_t decisions, const char *only)
{
    for (int policy = 0; policy < SCHED_POLICIES; policy++) {
        enum sched_policy of = (enum sched_policy)policy;
        const char *name = sched_policy_name(of);
        if (only && strcmp(only, name) != 0)
            continue;
        struct figures naive = run(5000, of, RULE_NONE, true, decisions / 20);
        struct figures index = run(5000, of, RULE_NONE, false, decisions);
        struct figures groups = run(5000, of, RULE_APART, false, decisions);
        struct figures soft = run(5000, of, RULE_AVOID, false, decisions);
        struct figures spread = run(5000, of, RULE_SPREAD, false, decisions);
        struct figures small = run(1000, of, RULE_NONE, false, decisions);
        struct figures large = run(100000, of, RULE_NONE, false, decisions);
        row("naive scan", 5000, name, &naive);
        row("index", 5000, name, &index);
        row("index, groups of 5 apart", 5000, name, &groups);
        row("index, of 5 softly apart", 5000, name, &soft);
        row("index, of 5 over 3 zones", 5000, name, &spread);
        row("index", 1000, name, &small);
        row("index", 100000, name, &large);
        (void)printf("  %s: %.0f x the naive scan, groups at %.2f x, median %.2f x from 1,000 to "
                     "100,000 hosts\n",
                     name, index.per_second / naive.per_second,
                     groups.per_second / index.per_second,
                     (double)large.p50_ns / (double)small.p50_ns);
    }
}

static size_t heap_bytes(void)
{
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* What a node and a VM take of memory, names and index included. */
static void weigh(enum rule rule, const char *what)
{
    struct bench bench = {.nodes = 10000, .rule = rule, .random = 1, .vm_space = 640000};
    bench.vms = calloc(bench.vm_space, sizeof *bench.vms);
    if (!bench.vms)
        return;
    size_t before = heap_bytes();
    make_pool(&bench, SCHED_PACK);
    size_t with_nodes = heap_bytes();
    while (bench.memory_mib < bench.nodes * 131072 / 100 * 85)
        (void)arrive(&bench);
    (void)printf("memory, %s: %.0f bytes a node, %.0f bytes a VM\n", what,
                 (double)(with_nodes - before) / (double)bench.nodes,
                 (double)(heap_bytes() - with_nodes) / (double)bench.vm_count);
    scheduler_free(bench.pool);
    free(bench.vms);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    uint64_t decisions = 100000;
    if (argc > 3 || (argc > 1 && units_parse_number(argv[1], "DECISIONS", 1000, 100000000,
                                                    &decisions, &err) < 0)) {
        (void)fprintf(stderr, "usage: sched-bench [DECISIONS [POLICY]]: %s\n", err.text);
        return ERROR_USAGE;
    }
    weigh(RULE_NONE, "no rules");
    weigh(RULE_APART, "groups of 5 apart");
    (void)printf("%-28s %-8s %7s %12s %9s %9s %9s %7s\n", "", "policy", "hosts", "decisions/s",
                 "p50 us", "p99 us", "p99.9 us", "p99/p50");
    compare_policies((size_t)decisions, argc > 2 ? argv[2] : NULL);
    return 0;
}
