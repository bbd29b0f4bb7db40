#include "scheduler/search.h"
#include "scheduler/tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct scheduler *pool_of(unsigned nodes, struct sched_resources capacity)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(&(struct sched_config){.policy = SCHED_BEST}, &err);
    for (unsigned i = 0; i < nodes; i++) {
        char name[16];
        struct sched_label zone = {"zone", i % 2 ? "b" : "a"};
        struct sched_node node = {
            .name = name, .capacity = capacity, .labels = &zone, .label_count = 1};
        (void)snprintf(name, sizeof name, "n%u", i);
        cr_assert_eq(scheduler_set_node(pool, &node, &err), 0);
    }
    return pool;
}

static void place(struct scheduler *pool, const char *vm, uint64_t mib, const char *node,
                  const char *group, const struct sched_label *selector)
{
    struct error err = ERROR_INIT;
    struct sched_request request = {.vm = vm,
                                    .need = {1000, mib, 0},
                                    .anti_affinity_group = group,
                                    .selector = selector,
                                    .selector_count = selector != NULL};
    cr_assert_eq(scheduler_place(pool, &request, node, &err), 0);
}

Test(room, moves_the_one_vm_that_makes_enough_room)
{
    struct error err = ERROR_INIT;
    struct sched_plan plan;
    struct scheduler *pool = pool_of(3, (struct sched_resources){64000, 100, 1});
    place(pool, "a", 30, "n0", NULL, NULL);
    place(pool, "b", 40, "n0", NULL, NULL);
    place(pool, "c", 60, "n1", NULL, NULL);
    place(pool, "d", 70, "n2", NULL, NULL);
    struct sched_request request = {.vm = "big", .need = {1000, 50, 0}};
    cr_assert_eq(scheduler_make_room(pool, &request, 5, &plan, &err), 0, "%s", err.text);
    cr_assert_eq(plan.count, 1);
    cr_assert_str_eq(plan.node, "n0", "n1 is closer, but c is larger than any hole");
    cr_assert_str_eq(plan.moves[0].vm, "a", "the smallest that is enough");
    cr_assert_str_eq(plan.moves[0].to, "n2", "where it fits best");
    cr_assert_eq(plan.moves[0].memory_mib, 30);
    sched_plan_free(&plan);
    cr_assert_eq(scheduler_make_room(pool, &request, 0, &plan, &err), -1);
    cr_assert_eq(err.kind, ERROR_NO_CAPACITY);
    scheduler_free(pool);
}

Test(room, what_moves_keeps_its_rules)
{
    struct error err = ERROR_INIT;
    struct sched_plan plan;
    struct sched_label zone_a = {"zone", "a"};
    struct scheduler *pool = pool_of(4, (struct sched_resources){64000, 100, 1});
    place(pool, "a", 60, "n0", NULL, &zone_a);
    place(pool, "b", 90, "n2", NULL, NULL);
    place(pool, "c", 60, "n1", "g", NULL);
    place(pool, "d", 60, "n3", "g", NULL);
    struct sched_request request = {.vm = "big", .need = {1000, 70, 0}};
    cr_assert_eq(scheduler_make_room(pool, &request, 5, &plan, &err), -1,
                 "a may only go to n2, which is full; b fits nowhere; c and d may not meet");
    scheduler_remove_vm(pool, "b");
    request.need.memory_mib = 101;
    cr_assert_eq(scheduler_make_room(pool, &request, 5, &plan, &err), -1);
    scheduler_free(pool);
}

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return ((*state * UINT64_C(2685821657736338717)) >> 33) % below;
}

/* Whether the node is where the request fits now. */
static bool fits(const struct scheduler *pool, const struct sched_request *request,
                 const char *node)
{
    struct error err = ERROR_INIT;
    struct query query;
    cr_assert_eq(query_init(&query, pool, request, &err), 0);
    return filter_node(&query, pool_find_node(pool, node)) == 0;
}

static size_t carry_out(struct scheduler *pool, const struct sched_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        struct vm *vm = pool_find_vm(pool, plan->moves[i].vm);
        struct sched_request request = pool_request_of(vm);
        cr_assert_str_eq(vm->node->name, plan->moves[i].from);
        cr_assert(fits(pool, &request, plan->moves[i].to));
        pool_move_vm(pool, vm, pool_find_node(pool, plan->moves[i].to));
    }
    return plan->count;
}

Test(room, plans_can_be_carried_out_and_change_nothing_by_themselves)
{
    size_t plans = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
        struct error err = ERROR_INIT;
        unsigned nodes = 3 + (unsigned)draw(&random, 20);
        struct scheduler *pool = pool_of(nodes, (struct sched_resources){32000, 1000, 1});
        for (unsigned i = 0; i < 40 * nodes; i++) {
            char name[16], group[16];
            struct sched_request request = {
                .vm = name,
                .need = {draw(&random, 4000), 1 + draw(&random, 400), 0},
                .anti_affinity_group = group};
            struct sched_decision decision;
            struct sched_plan plan;
            struct sched_resources before[32];
            (void)snprintf(name, sizeof name, "v%u", i);
            (void)snprintf(group, sizeof group, "g%u", (unsigned)draw(&random, 10 * nodes));
            for (unsigned n = 0; n < nodes; n++)
                before[n] = pool->nodes[n]->reserved;
            const char *to = decision.node;
            if (scheduler_choose(pool, &request, &decision, &err) < 0) {
                if (scheduler_make_room(pool, &request, 1 + draw(&random, 8), &plan, &err) < 0)
                    continue;
                for (unsigned n = 0; n < nodes; n++)
                    cr_assert_eq(memcmp(&before[n], &pool->nodes[n]->reserved, sizeof *before), 0);
                plans += carry_out(pool, &plan) > 0;
                to = plan.node;
                sched_plan_free(&plan);
            }
            cr_assert(fits(pool, &request, to));
            cr_assert_eq(scheduler_place(pool, &request, to, &err), 0);
        }
        scheduler_free(pool);
    }
    cr_assert_gt(plans, 50, "%zu", plans);
}
