/*
 * plan-bench: how long plans take on a large pool, and what they bring.
 *
 * The pool is made uneven on purpose: each VM goes to a random node that has room, the first tenth
 * of the nodes three times as often, and a VM's measured CPU is 10 to 90 % of its vCPUs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "scheduler/snapshot.h"

struct pool {
    struct scheduler *scheduler;
    uint64_t nodes, vms;
    uint64_t random;
    struct sched_resources *used;    /* of each node */
    struct sched_resources *vm_used; /* of each VM */
};

static const struct sched_resources capacity = {64000, 196608, 25000000000};
static const struct sched_resources flavours[] = {
    {1000, 2048, 250000000},   {2000, 4096, 500000000},   {2000, 8192, 500000000},
    {4000, 8192, 1000000000},  {4000, 16384, 1000000000}, {2000, 16384, 500000000},
    {4000, 32768, 1000000000}, {8000, 16384, 2000000000},
};

static uint64_t draw(struct pool *pool, uint64_t below)
{
    pool->random ^= pool->random >> 12;
    pool->random ^= pool->random << 25;
    pool->random ^= pool->random >> 27;
    return ((pool->random * UINT64_C(2685821657736338717)) >> 33) % below;
}

static void fail(const struct error *err)
{
    (void)fprintf(stderr, "plan-bench: %s\n", err->text);
    exit((int)err->kind);
}

static void set_node(struct pool *pool, uint64_t number)
{
    struct error err = ERROR_INIT;
    char name[24];
    struct sched_node node = {.name = name, .capacity = capacity, .used = pool->used[number]};
    (void)snprintf(name, sizeof name, "n%" PRIu64, number);
    if (scheduler_set_node(pool->scheduler, &node, &err) < 0)
        fail(&err);
}

static void place_vm(struct pool *pool, uint64_t number)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    char name[24], node[24];
    struct sched_request request = {.vm = name,
                                    .need =
                                        flavours[draw(pool, sizeof flavours / sizeof *flavours)],
                                    .only_node = node};
    uint64_t at = 0;
    (void)snprintf(name, sizeof name, "v%" PRIu64, number);
    do {
        at = draw(pool, 4) ? draw(pool, pool->nodes) : draw(pool, pool->nodes / 10 + 1);
        (void)snprintf(node, sizeof node, "n%" PRIu64, at);
    } while (scheduler_choose(pool->scheduler, &request, &decision, &err) < 0);
    if (scheduler_place(pool->scheduler, &request, node, &err) < 0)
        fail(&err);
    struct sched_resources *used = &pool->vm_used[number];
    used->cpu_milli = request.need.cpu_milli * (10 + draw(pool, 80)) / 100;
    used->memory_mib = request.need.memory_mib * (30 + draw(pool, 70)) / 100;
    pool->used[at].cpu_milli += used->cpu_milli;
    pool->used[at].memory_mib += used->memory_mib;
}

static void make_pool(struct pool *pool)
{
    struct error err = ERROR_INIT;
    pool->scheduler = scheduler_new(&(struct sched_config){.policy = SCHED_BALANCE}, &err);
    pool->used = calloc(pool->nodes, sizeof *pool->used);
    pool->vm_used = calloc(pool->vms, sizeof *pool->vm_used);
    if (!pool->scheduler || !pool->used || !pool->vm_used) {
        (void)error_set(&err, ERROR_FAILED, "out of memory");
        fail(&err);
    }
    for (uint64_t i = 0; i < pool->nodes; i++)
        set_node(pool, i);
    for (uint64_t i = 0; i < pool->vms; i++)
        place_vm(pool, i);
    for (uint64_t i = 0; i < pool->nodes; i++)
        set_node(pool, i);
}

static void look(void *context, const char *vm, struct plan_vm *out)
{
    const struct pool *pool = context;
    if (vm[0] == 'v')
        out->used = pool->vm_used[strtoull(vm + 1, NULL, 10)];
    out->copy_mib = out->used.memory_mib;
}

static double since_s(int64_t start_ns)
{
    return (double)(clock_monotonic_ns() - start_ns) / 1e9;
}

static void show_plan(const char *what, double seconds, const struct plan *plan)
{
    char bytes[32], time[32];
    (void)printf(
        "%-12s %6.3f s  %5zu moves, %s, %s one after the other, longest pause %.0f ms\n"
        "             imbalance %.2f %% -> %.2f %%, highest %.1f %% -> %.1f %%, hot %zu -> "
        "%zu, stranded %.2f %% -> %.2f %%, empty %zu -> %zu\n",
        what, seconds, plan->count, units_format_bytes(plan->bytes, bytes, sizeof bytes),
        units_format_ms(plan->duration_ms, time, sizeof time), (double)plan->pause_us / 1000,
        100 * plan->before.imbalance, 100 * plan->after.imbalance, 100 * plan->before.highest,
        100 * plan->after.highest, plan->before.hot, plan->after.hot, 100 * plan->before.stranded,
        100 * plan->after.stranded, plan->before.empty, plan->after.empty);
    (void)fflush(stdout);
}

static void measure(struct pool *pool)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct plan_n1 n1;
    struct plan_capacity room;
    struct plan_config config = {.context = pool, .look = look, .move_max = 100000};
    int64_t start = clock_monotonic_ns();
    struct snapshot *snapshot = snapshot_take(pool->scheduler, &config, &err);
    if (!snapshot)
        fail(&err);
    (void)printf("snapshot     %6.3f s\n", since_s(start));
    snapshot_free(snapshot);
    start = clock_monotonic_ns();
    if (plan_rebalance(pool->scheduler, &config, &plan, &err) < 0)
        fail(&err);
    show_plan("rebalance", since_s(start), &plan);
    plan_free(&plan);
    start = clock_monotonic_ns();
    if (plan_consolidate(pool->scheduler, &config, &plan, &err) < 0)
        fail(&err);
    show_plan("consolidate", since_s(start), &plan);
    plan_free(&plan);
    start = clock_monotonic_ns();
    if (plan_lose(pool->scheduler, &config, "n0", &plan, &err) < 0)
        fail(&err);
    (void)printf("lose n0      %6.3f s  %s\n", since_s(start), plan.summary);
    plan_free(&plan);
    start = clock_monotonic_ns();
    if (plan_check_n1(pool->scheduler, &config, &n1, &err) < 0)
        fail(&err);
    (void)printf("N+1          %6.3f s  %s\n", since_s(start),
                 n1.holds ? "holds" : "does not hold");
    start = clock_monotonic_ns();
    struct sched_request request = {.need = {4000, 8192, 1000000000}};
    if (plan_capacity(pool->scheduler, &config, &request, true, &room, &err) < 0)
        fail(&err);
    (void)printf("capacity     %6.3f s  %zu more of 4c,8G,1Gbps; %zu with N+1\n", since_s(start),
                 room.count, room.count_n1);
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    struct pool pool = {.nodes = 1000, .vms = 10000, .random = 88172645463325252u};
    if (argc > 3 ||
        (argc > 1 && units_parse_number(argv[1], "NODES", 2, 100000, &pool.nodes, &err) < 0) ||
        (argc > 2 && units_parse_number(argv[2], "VMS", 1, pool.nodes * 10, &pool.vms, &err) < 0)) {
        (void)fprintf(stderr, "usage: plan-bench [NODES [VMS]]: %s\n", err.text);
        return ERROR_USAGE;
    }
    make_pool(&pool);
    (void)printf("%" PRIu64 " nodes of 64c,192G,25Gbps, %" PRIu64 " VMs, policy balance\n",
                 pool.nodes, pool.vms);
    measure(&pool);
    scheduler_free(pool.scheduler);
    free(pool.used);
    free(pool.vm_used);
    return 0;
}
