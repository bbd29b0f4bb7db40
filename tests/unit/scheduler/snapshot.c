/* A snapshot is the pool it was taken of, and stays so. */
#include "scheduler/snapshot.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "scheduler/pool.h"

/* Zones, a dedicated node, a reserve, a drained and a lost node, and VMs with rules. */
static struct scheduler *make_pool(void)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(
        &(struct sched_config){.policy = SCHED_BALANCE, .cpu_overcommit_percent = 200}, &err);
    for (unsigned i = 0; i < 12; i++) {
        char name[16], zone[16];
        const struct sched_label labels[] = {{"zone", zone}, {SCHED_DEDICATED_LABEL, "blue"}};
        const struct sched_node node = {.name = name,
                                        .capacity = {16000, 65536, 10000000000},
                                        .reserve = {1000, 2048, 0},
                                        .used = {i * 700, i * 3000, 0},
                                        .labels = labels,
                                        .label_count = i == 11 ? 2 : 1,
                                        .drained = i == 9,
                                        .lost = i == 10};
        (void)snprintf(name, sizeof name, "n%u", i);
        (void)snprintf(zone, sizeof zone, "z%u", i % 3);
        cr_assert_eq(scheduler_set_node(pool, &node, &err), 0, "%s", err.text);
    }
    for (unsigned i = 0; i < 60; i++) {
        char name[16], node[16];
        const struct sched_label selector = {"zone", "z0"};
        struct sched_request request = {.vm = name, .need = {1000 + i % 3 * 1000, 1024, 0}};
        (void)snprintf(name, sizeof name, "v%u", i);
        (void)snprintf(node, sizeof node, "n%u", i < 36 ? i % 2 : i % 12);
        if (i % 5 == 0)
            request.anti_affinity_group = "apart";
        if (i % 7 == 0) {
            request.spread_group = "wide";
            request.spread_label = "zone";
        }
        if (i % 12 == 11)
            request.tenant = "blue";
        if (i == 13) {
            request.selector = &selector;
            request.selector_count = 1;
        }
        cr_assert_eq(scheduler_place(pool, &request, node, &err), 0, "%s", err.text);
    }
    return pool;
}

static void look(void *context, const char *vm, struct plan_vm *out)
{
    (void)context;
    out->used.cpu_milli = (uint64_t)strlen(vm) * 100;
    out->copy_mib = 512;
    if (strcmp(vm, "v3") == 0) {
        out->freedom = PLAN_FIXED;
        out->why = "the test wants it so";
    }
}

static uint64_t hot_ms(void *context, const char *node)
{
    (void)context;
    return strcmp(node, "n0") == 0 ? 1000 : 0;
}

static void assert_same(const struct plan *a, const struct plan *b)
{
    cr_assert_eq(a->fingerprint, b->fingerprint);
    cr_assert_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        cr_assert_str_eq(a->moves[i].vm, b->moves[i].vm);
        cr_assert_str_eq(a->moves[i].to, b->moves[i].to);
        cr_assert_str_eq(a->moves[i].why, b->moves[i].why);
        cr_assert_eq(a->moves[i].cost.bytes, b->moves[i].cost.bytes);
    }
    cr_assert_str_eq(a->summary, b->summary);
    cr_assert_eq(a->left_count, b->left_count);
}

static void assert_plans_alike(struct scheduler *pool, const struct plan_config *config,
                               const struct snapshot *snapshot)
{
    struct error err = ERROR_INIT;
    struct plan here, there;
    cr_assert_eq(plan_rebalance(pool, config, &here, &err), 0);
    cr_assert_eq(plan_rebalance(snapshot->pool, &snapshot->config, &there, &err), 0);
    cr_assert_gt(here.count, 0);
    assert_same(&here, &there);
    plan_free(&here);
    plan_free(&there);
    cr_assert_eq(plan_consolidate(pool, config, &here, &err), 0);
    cr_assert_eq(plan_consolidate(snapshot->pool, &snapshot->config, &there, &err), 0);
    cr_assert_gt(here.count, 0);
    assert_same(&here, &there);
    plan_free(&here);
    plan_free(&there);
}

Test(snapshot, plans_on_it_are_those_of_the_pool)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = make_pool();
    const struct plan_config config = {.look = look, .hot_ms = hot_ms, .hold_ms = 500};
    struct snapshot *snapshot = snapshot_take(pool, &config, &err);
    cr_assert(snapshot, "%s", err.text);
    assert_plans_alike(pool, &config, snapshot);
    const struct plan_config plain = {0};
    struct snapshot *other = snapshot_take(pool, &plain, &err);
    cr_assert(other, "%s", err.text);
    assert_plans_alike(pool, &plain, other);
    snapshot_free(other);
    snapshot_free(snapshot);
    scheduler_free(pool);
}

Test(snapshot, it_outlives_the_pool)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = make_pool();
    const struct plan_config config = {.look = look};
    struct snapshot *snapshot = snapshot_take(pool, &config, &err);
    cr_assert(snapshot, "%s", err.text);
    uint64_t fingerprint = scheduler_fingerprint(pool);
    scheduler_remove_vm(pool, "v1");
    cr_expect_neq(scheduler_fingerprint(pool), fingerprint);
    scheduler_free(pool);
    cr_expect_eq(scheduler_fingerprint(snapshot->pool), fingerprint);
    struct plan plan;
    cr_assert_eq(plan_drain(snapshot->pool, &snapshot->config, "n0", &plan, &err), 0);
    cr_expect_gt(plan.count, 0);
    plan_free(&plan);
    snapshot_free(snapshot);
}
