/* Plans: what they move and why, that they cost what the formula says, settle, and leave the pool
 * as it was. */
#include "scheduler/plan.h"
#include "scheduler/search.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const struct plan_config plain;

static struct scheduler *pool_of(enum sched_policy policy, unsigned nodes,
                                 struct sched_resources capacity)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(&(struct sched_config){.policy = policy}, &err);
    for (unsigned i = 0; i < nodes; i++) {
        char name[16];
        struct sched_node node = {.name = name, .capacity = capacity};
        (void)snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(scheduler_set_node(pool, &node, &err), 0);
    }
    return pool;
}

static void place(struct scheduler *pool, const char *vm, struct sched_resources need,
                  const char *node, const char *group)
{
    struct error err = ERROR_INIT;
    struct sched_request request = {.vm = vm, .need = need, .anti_affinity_group = group};
    cr_assert_eq(scheduler_place(pool, &request, node, &err), 0);
}

/* Carries the moves out, as jobs would: each must fit. */
static void carry_out(struct scheduler *pool, const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        struct error err = ERROR_INIT;
        struct sched_decision decision;
        struct vm *vm = pool_find_vm(pool, plan->moves[i].vm);
        cr_assert_str_eq(vm->node->name, plan->moves[i].from);
        struct sched_request request = pool_request_of(vm);
        request.only_node = plan->moves[i].to;
        request.not_node = plan->moves[i].from;
        cr_assert_eq(scheduler_choose(pool, &request, &decision, &err), 0, "move %zu: %s", i,
                     err.text);
        pool_move_vm(pool, vm, pool_find_node(pool, plan->moves[i].to));
    }
}

static const struct sched_resources host = {64000, 1000, 10000000000u};

/* ---- cost ---- */

Test(plan, a_move_costs_what_the_formula_says)
{
    /* 1024 MiB at 1 Gbit/s, a tenth dirtied each round: 8.59 s + 0.86 s, 0.0859 s in the pause. */
    struct plan_cost cost = plan_cost_of(1024, 100000000, 1000000000);
    cr_expect_eq(cost.duration_ms, 1000 + 9534);
    cr_expect_eq(cost.pause_us, 20000 + 85899);
    cr_expect_eq(cost.bytes, 1191853424);
    cr_expect(cost.dirty_known);
    struct plan_cost unknown = plan_cost_of(1024, 0, 1000000000);
    cr_expect_eq(unknown.duration_ms, cost.duration_ms, "a tenth is what is assumed");
    cr_expect_not(unknown.dirty_known);
    cr_expect_eq(plan_cost_of(1024, 0, 0).duration_ms, cost.duration_ms,
                 "an unknown link counts as 1 Gbit/s");
}

Test(plan, a_guest_that_dirties_faster_than_the_link_pauses_for_all_of_it)
{
    struct plan_cost cost = plan_cost_of(1024, 2000000000, 1000000000);
    cr_expect_eq(cost.pause_us, 20000 + 8589934);
    cr_expect_eq(cost.duration_ms, 1000 + 17179);
}

/* ---- fingerprint ---- */

Test(plan, the_fingerprint_is_of_the_pool_not_of_its_history)
{
    struct scheduler *a = pool_of(SCHED_SPREAD, 3, host), *b = pool_of(SCHED_SPREAD, 3, host);
    place(a, "x", (struct sched_resources){1000, 10, 0}, "n0", NULL);
    place(a, "y", (struct sched_resources){1000, 20, 0}, "n1", "g");
    place(b, "y", (struct sched_resources){1000, 20, 0}, "n2", "g");
    cr_expect_neq(scheduler_fingerprint(a), scheduler_fingerprint(b));
    place(b, "y", (struct sched_resources){1000, 20, 0}, "n1", "g");
    place(b, "x", (struct sched_resources){1000, 10, 0}, "n0", NULL);
    cr_expect_eq(scheduler_fingerprint(a), scheduler_fingerprint(b));
    place(b, "x", (struct sched_resources){1000, 11, 0}, "n0", NULL);
    cr_expect_neq(scheduler_fingerprint(a), scheduler_fingerprint(b), "a VM's size counts");
    place(b, "x", (struct sched_resources){1000, 10, 0}, "n0", "g");
    cr_expect_neq(scheduler_fingerprint(a), scheduler_fingerprint(b), "its rules count");
    place(b, "x", (struct sched_resources){1000, 10, 0}, "n0", NULL);
    struct error err = ERROR_INIT;
    struct sched_node node = {.name = "n2", .capacity = host, .used = {5, 5, 5}};
    cr_assert_eq(scheduler_set_node(b, &node, &err), 0);
    cr_expect_eq(scheduler_fingerprint(a), scheduler_fingerprint(b), "measured use does not count");
    node.drained = true;
    cr_assert_eq(scheduler_set_node(b, &node, &err), 0);
    cr_expect_neq(scheduler_fingerprint(a), scheduler_fingerprint(b), "a drain counts");
    scheduler_free(a);
    scheduler_free(b);
}

/* ---- rebalance ---- */

/* n0 is full to 60 %, the others are empty. */
static struct scheduler *lopsided(void)
{
    struct scheduler *pool = pool_of(SCHED_SPREAD, 3, host);
    for (int i = 0; i < 6; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "v%d", i);
        place(pool, name, (struct sched_resources){1000, 100, 0}, "n0", NULL);
    }
    return pool;
}

Test(plan, rebalance_cools_the_hot_node_and_then_rests)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = lopsided();
    uint64_t before = scheduler_fingerprint(pool);
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0, "%s", err.text);
    cr_expect_eq(plan.count, 3, "60 %% must come to at most 20 + 10 %%: %zu moves", plan.count);
    cr_expect_eq(plan.before.hot, 1);
    cr_expect_eq(plan.after.hot, 0);
    cr_expect_lt(plan.after.imbalance, plan.before.imbalance / 2);
    cr_expect_str_eq(plan.moves[0].from, "n0");
    cr_expect(strstr(plan.moves[0].why, "n0 is at 60%, the mean is 20%"), "%s", plan.moves[0].why);
    cr_expect_gt(plan.bytes, 300u << 20);
    cr_expect_eq(scheduler_fingerprint(pool), before, "planning changes nothing");
    cr_expect_eq(plan.fingerprint, before);
    carry_out(pool, &plan);
    plan_free(&plan);
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
    cr_expect_eq(plan.count, 0, "a balanced pool is left alone");
    cr_expect(strstr(plan.summary, "nothing to do"));
    plan_free(&plan);
    scheduler_free(pool);
}

Test(plan, rebalance_moves_only_what_pays)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = lopsided();
    struct plan_config config = {.payback_s = 1};
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 0, "within a second no migration pays");
    plan_free(&plan);
    config.payback_s = 3600;
    config.threshold_permille = 500;
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 0, "60 %% is not 50 above the mean of 20");
    plan_free(&plan);
    config.threshold_permille = 100;
    config.move_max = 2;
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 2);
    plan_free(&plan);
    scheduler_free(pool);
}

static uint64_t hot_for(void *context, const char *node)
{
    (void)node;
    return *(uint64_t *)context;
}

Test(plan, rebalance_waits_for_the_hold_time)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    uint64_t hot_ms = 4999;
    struct scheduler *pool = lopsided();
    struct plan_config config = {.context = &hot_ms, .hot_ms = hot_for, .hold_ms = 5000};
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 0);
    plan_free(&plan);
    hot_ms = 5000;
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_gt(plan.count, 0);
    plan_free(&plan);
    scheduler_free(pool);
}

static void all_but_v5(void *context, const char *vm, struct plan_vm *out)
{
    (void)context;
    if (strcmp(vm, "v5") != 0)
        *out = (struct plan_vm){.freedom = PLAN_FIXED, .why = "moved a minute ago"};
    out->used.cpu_milli = 10000;
}

Test(plan, rebalance_leaves_alone_what_may_not_move)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = lopsided();
    struct plan_config config = {.look = all_but_v5};
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_assert_eq(plan.count, 1);
    cr_expect_str_eq(plan.moves[0].vm, "v5");
    plan_free(&plan);
    scheduler_free(pool);
}

Test(plan, measured_use_makes_a_hot_spot_where_reservations_do_not)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_BEST, 2, host);
    for (int i = 0; i < 6; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "v%d", i);
        place(pool, name, (struct sched_resources){1000, 150, 0}, "n0", NULL);
    }
    struct plan_config config = {.look = all_but_v5};
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 0, "best fills nodes on purpose");
    plan_free(&plan);
    struct sched_node hot = {.name = "n0", .capacity = host, .used = {60000, 100, 0}};
    cr_assert_eq(scheduler_set_node(pool, &hot, &err), 0);
    cr_assert_eq(plan_rebalance(pool, &config, &plan, &err), 0);
    cr_expect_eq(plan.count, 1);
    cr_expect_lt(plan.after.highest, plan.before.highest);
    plan_free(&plan);
    cr_expect_eq(pool_find_node(pool, "n0")->used.cpu_milli, 60000);
    cr_expect_eq(pool_find_node(pool, "n1")->used.cpu_milli, 0);
    scheduler_free(pool);
}

Test(plan, a_broken_rule_improves_step_by_step)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 2, host);
    for (int i = 0; i < 3; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "g%d", i);
        place(pool, name, (struct sched_resources){1000, 10, 0}, "n0", "g");
    }
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
    cr_assert_eq(plan.count, 1, "one goes to n1; two must stay on n0");
    cr_expect(strstr(plan.moves[0].why, "breaks its rule anti-affinity on n0"));
    cr_expect_gt(plan.left_count, 0);
    cr_expect(strstr(plan.left[0].why, "anti-affinity"), "%s", plan.left[0].why);
    carry_out(pool, &plan);
    plan_free(&plan);
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
    cr_expect_eq(plan.count, 0, "and nothing flips back");
    plan_free(&plan);
    scheduler_free(pool);
}

Test(plan, stranded_room_is_freed_without_waking_empty_nodes)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_BEST, 3, host);
    /* n0 has its CPU taken, n1 its memory; n2 is empty. */
    for (int i = 0; i < 4; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "c%d", i);
        place(pool, name, (struct sched_resources){12800, 50, 0}, "n0", NULL);
        (void)snprintf(name, sizeof name, "m%d", i);
        place(pool, name, (struct sched_resources){3200, 200, 0}, "n1", NULL);
    }
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
    cr_expect_gt(plan.count, 0);
    cr_expect_lt(plan.after.stranded, plan.before.stranded / 2, "%.3f to %.3f",
                 plan.before.stranded, plan.after.stranded);
    cr_expect_geq(plan.after.empty, 1);
    carry_out(pool, &plan);
    plan_free(&plan);
    cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
    cr_expect_eq(plan.count, 0);
    plan_free(&plan);
    scheduler_free(pool);
}

/* Random pools of every policy: each move fits when its turn comes, and plans come to rest. */
Test(plan, plans_settle_on_random_pools)
{
    uint64_t random = 88172645463325252u;
    for (unsigned round = 0; round < 80; round++) {
        struct error err = ERROR_INIT;
        struct plan plan;
        struct scheduler *pool = pool_of((enum sched_policy)(round % SCHED_POLICIES), 8,
                                         (struct sched_resources){16000, 256, 1000});
        for (unsigned i = 0; i < 60; i++) {
            char name[16], node[16], group[8] = "";
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (void)snprintf(name, sizeof name, "v%u", i);
            (void)snprintf(node, sizeof node, "n%u", (unsigned)(random % 3 * (random >> 20) % 8));
            if (i % 4 == 0)
                (void)snprintf(group, sizeof group, "g%u", i / 12);
            struct sched_request request = {
                .vm = name,
                .need = {1000 * (1 + random % 3), 1 + (random >> 9) % 24, random % 7},
                .anti_affinity_group = group,
                .only_node = round % 2 ? node : NULL};
            struct sched_decision decision;
            if (scheduler_choose(pool, &request, &decision, &err) == 0)
                cr_assert_eq(scheduler_place(pool, &request, decision.node, &err), 0);
        }
        for (unsigned pass = 0;; pass++) {
            cr_assert_lt(pass, 4, "round %u: plans go on and on", round);
            cr_assert_eq(plan_rebalance(pool, &plain, &plan, &err), 0);
            cr_assert_eq(plan.fingerprint, scheduler_fingerprint(pool));
            cr_assert_leq(plan.after.hot, plan.before.hot);
            carry_out(pool, &plan);
            size_t count = plan.count;
            plan_free(&plan);
            if (count == 0)
                break;
        }
        scheduler_free(pool);
    }
}

/* ---- one node ---- */

static void v0_is_local(void *context, const char *vm, struct plan_vm *out)
{
    (void)context;
    if (strcmp(vm, "v0") == 0)
        *out = (struct plan_vm){.freedom = PLAN_LOCAL, .why = "has local disks"};
    if (strcmp(vm, "v1") == 0)
        *out = (struct plan_vm){.freedom = PLAN_FIXED, .why = "is being stopped"};
    if (strcmp(vm, "v2") == 0)
        *out = (struct plan_vm){.freedom = PLAN_GHOST};
}

Test(plan, drain_and_lose_say_what_stays_behind)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = lopsided();
    struct plan_config config = {.look = v0_is_local};
    cr_assert_eq(plan_drain(pool, &config, "n0", &plan, &err), 0);
    cr_expect_eq(plan.count, 3);
    cr_expect_eq(plan.left_count, 2);
    cr_expect_str_eq(plan.summary, "3 of 5 VMs can move away from n0");
    cr_expect_str_eq(plan.left[0].why, "has local disks");
    plan_free(&plan);
    cr_assert_eq(plan_lose(pool, &config, "n0", &plan, &err), 0);
    cr_expect_eq(plan.count, 4, "what is being stopped would start again too");
    cr_expect_eq(plan.left_count, 1);
    cr_expect_eq(plan.moves[0].cost.bytes, 0, "nothing is copied");
    plan_free(&plan);
    cr_expect_eq(plan_lose(pool, &config, "n9", &plan, &err), -1);
    cr_expect_eq(err.kind, ERROR_NOT_FOUND);
    scheduler_free(pool);
}

Test(plan, lose_names_the_vm_that_fits_nowhere_and_why)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 2, host);
    place(pool, "big", (struct sched_resources){1000, 600, 0}, "n0", NULL);
    place(pool, "small", (struct sched_resources){1000, 100, 0}, "n0", NULL);
    place(pool, "other", (struct sched_resources){1000, 500, 0}, "n1", NULL);
    cr_assert_eq(plan_lose(pool, &plain, "n0", &plan, &err), 0);
    cr_expect_eq(plan.count, 1);
    cr_assert_eq(plan.left_count, 1);
    cr_expect_str_eq(plan.left[0].vm, "big");
    cr_expect(strstr(plan.left[0].why, "memory"), "%s", plan.left[0].why);
    cr_expect_str_eq(plan.summary, "if n0 were lost, 1 of its 2 VMs could start again elsewhere");
    plan_free(&plan);
    scheduler_free(pool);
}

/* ---- consolidate ---- */

Test(plan, consolidate_empties_whole_nodes_or_leaves_them)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 5, host);
    place(pool, "a", (struct sched_resources){1000, 600, 0}, "n0", NULL);
    place(pool, "b", (struct sched_resources){1000, 300, 0}, "n1", NULL);
    place(pool, "c", (struct sched_resources){1000, 50, 0}, "n2", NULL);
    place(pool, "d", (struct sched_resources){1000, 700, 0}, "n3", NULL);
    uint64_t before = scheduler_fingerprint(pool);
    cr_assert_eq(plan_consolidate(pool, &plain, &plan, &err), 0);
    cr_expect_eq(plan.before.empty, 1);
    cr_expect_eq(plan.after.empty, 3, "%s", plan.summary);
    cr_expect_eq(plan.count, 2);
    cr_expect_eq(scheduler_fingerprint(pool), before);
    carry_out(pool, &plan);
    plan_free(&plan);
    cr_assert_eq(plan_consolidate(pool, &plain, &plan, &err), 0);
    cr_expect_eq(plan.count, 0);
    plan_free(&plan);
    scheduler_free(pool);
}

/* ---- add, capacity, N+1 ---- */

Test(plan, add_makes_room_where_it_can)
{
    struct error err = ERROR_INIT;
    struct plan plan;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 2, host);
    place(pool, "a", (struct sched_resources){1000, 300, 0}, "n0", NULL);
    place(pool, "b", (struct sched_resources){1000, 300, 0}, "n1", NULL);
    struct sched_request request = {.need = {1000, 800, 0}};
    cr_assert_eq(plan_add(pool, &plain, &request, 1, &plan, &err), 0);
    cr_expect_eq(plan.placed, 1);
    cr_expect_eq(plan.count, 1);
    cr_expect_str_eq(plan.summary, "1 of 1 fit once the moves are made");
    plan_free(&plan);
    cr_assert_eq(plan_add(pool, &plain, &request, 2, &plan, &err), 0);
    cr_expect_eq(plan.placed, 1);
    cr_expect(strstr(plan.summary, "1 of 2 fit: "), "%s", plan.summary);
    plan_free(&plan);
    cr_expect_null(pool_find_vm(pool, "?0"));
    scheduler_free(pool);
}

Test(plan, capacity_with_and_without_a_lost_node)
{
    struct error err = ERROR_INIT;
    struct plan_capacity capacity;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 3, host);
    uint64_t before = scheduler_fingerprint(pool);
    struct sched_request request = {.need = {1000, 100, 0}};
    cr_assert_eq(plan_capacity(pool, &plain, &request, true, &capacity, &err), 0);
    cr_expect_eq(capacity.count, 30);
    cr_expect_eq(capacity.count_n1, 20, "%zu", capacity.count_n1);
    cr_expect(strstr(capacity.why, "memory"), "%s", capacity.why);
    cr_expect(strstr(capacity.why_n1, "would have no place"), "%s", capacity.why_n1);
    cr_expect_eq(scheduler_fingerprint(pool), before);
    place(pool, "a", (struct sched_resources){1000, 950, 0}, "n0", NULL);
    place(pool, "b", (struct sched_resources){1000, 950, 0}, "n1", NULL);
    place(pool, "c", (struct sched_resources){1000, 100, 0}, "n2", NULL);
    cr_assert_eq(plan_capacity(pool, &plain, &request, true, &capacity, &err), 0);
    cr_expect_eq(capacity.count, 9);
    cr_expect_eq(capacity.count_n1, 0);
    cr_expect(strstr(capacity.why_n1, "n0"), "%s", capacity.why_n1);
    scheduler_free(pool);
}

Test(plan, n_plus_1_is_kept_or_the_first_hole_named)
{
    struct error err = ERROR_INIT;
    struct plan_n1 n1;
    struct scheduler *pool = pool_of(SCHED_SPREAD, 2, host);
    place(pool, "a", (struct sched_resources){1000, 500, 0}, "n0", NULL);
    cr_assert_eq(plan_check_n1(pool, &plain, &n1, &err), 0);
    cr_expect(n1.holds);
    struct sched_request request = {.vm = "new", .need = {1000, 600, 0}};
    cr_assert_eq(plan_check_n1_with(pool, &plain, &request, "n1", &n1, &err), 0);
    cr_expect_not(n1.holds);
    cr_expect_str_eq(n1.node, "n0");
    cr_expect_str_eq(n1.vm, "a");
    request.need.memory_mib = 500;
    cr_assert_eq(plan_check_n1_with(pool, &plain, &request, "n1", &n1, &err), 0);
    cr_expect(n1.holds);
    cr_expect_null(pool_find_vm(pool, "new"));
    cr_expect_eq(
        plan_check_n1_with(pool, &plain, &(struct sched_request){.vm = "a"}, "n1", &n1, &err), -1);
    scheduler_free(pool);
}
