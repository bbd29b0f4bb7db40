#include "scheduler/scheduler.h"

#include <criterion/criterion.h>
#include <string.h>

#define GBPS UINT64_C(1000000000)

static struct sched_resources size_of(uint64_t cpus, uint64_t memory_gib, uint64_t gbps)
{
    return (struct sched_resources){cpus * 1000, memory_gib * 1024, gbps * GBPS};
}

static struct scheduler *pool_of(enum sched_policy policy)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(&(struct sched_config){.policy = policy}, &err);
    cr_assert(pool, "%s", err.text);
    return pool;
}

static void node(struct scheduler *pool, const char *name, struct sched_resources capacity)
{
    struct error err = ERROR_INIT;
    struct sched_node node = {.name = name, .capacity = capacity};
    cr_assert_eq(scheduler_set_node(pool, &node, &err), 0, "%s", err.text);
}

static void place(struct scheduler *pool, const char *vm, const char *group,
                  struct sched_resources need, const char *on)
{
    struct error err = ERROR_INIT;
    struct sched_request request = {.vm = vm, .need = need, .anti_affinity_group = group};
    cr_assert_eq(scheduler_place(pool, &request, on, &err), 0, "%s", err.text);
}

/* Where @request goes; the refusal's text where nowhere. */
static const char *chosen(const struct scheduler *pool, struct sched_request request)
{
    static struct sched_decision decision;
    struct error err = ERROR_INIT;
    if (scheduler_choose(pool, &request, &decision, &err) == 0)
        return decision.node;
    cr_assert_str_empty(decision.node);
    cr_assert_eq(err.kind, ERROR_NO_CAPACITY);
    cr_assert_str_eq(err.text, decision.summary);
    return decision.summary;
}

/* Three equal hosts of 16 CPUs, 64 GiB, 10 Gbit/s, with 0, 8 and 4 CPUs taken. */
static struct scheduler *three_nodes(enum sched_policy policy)
{
    struct scheduler *pool = pool_of(policy);
    node(pool, "n1", size_of(16, 64, 10));
    node(pool, "n2", size_of(16, 64, 10));
    node(pool, "n3", size_of(16, 64, 10));
    place(pool, "a", NULL, size_of(8, 16, 1), "n2");
    place(pool, "b", NULL, size_of(4, 16, 1), "n3");
    return pool;
}

Test(choose, pack_fills_the_fullest_that_fits)
{
    struct scheduler *pool = three_nodes(SCHED_PACK);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(4, 4, 1)}), "n2");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(12, 4, 1)}), "n3");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(16, 4, 1)}), "n1");
    scheduler_free(pool);
}

Test(choose, spread_takes_the_emptiest_and_the_first_among_equals)
{
    struct scheduler *pool = three_nodes(SCHED_SPREAD);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(4, 4, 1)}), "n1");
    scheduler_remove_vm(pool, "a");
    scheduler_remove_vm(pool, "b");
    cr_assert_str_eq(
        chosen(pool, (struct sched_request){.need = size_of(4, 4, 1), .not_node = "n1"}), "n2");
    scheduler_free(pool);
}

Test(choose, balance_joins_what_needs_cpu_with_what_needs_memory)
{
    struct scheduler *pool = pool_of(SCHED_BALANCE);
    node(pool, "n1", size_of(16, 64, 10));
    node(pool, "n2", size_of(16, 64, 10));
    place(pool, "cpu", NULL, size_of(8, 4, 1), "n1");
    place(pool, "memory", NULL, size_of(1, 32, 1), "n2");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(1, 24, 1)}), "n1");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(6, 2, 1)}), "n2");
    scheduler_free(pool);
}

Test(choose, measured_use_counts_beside_reservations)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = three_nodes(SCHED_SPREAD);
    struct sched_node hot = {
        .name = "n1", .capacity = size_of(16, 64, 10), .used = size_of(15, 0, 0)};
    cr_assert_eq(scheduler_set_node(pool, &hot, &err), 0);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(1, 1, 1)}), "n3");
    scheduler_free(pool);

    pool = three_nodes(SCHED_PACK);
    hot.name = "n2";
    cr_assert_eq(scheduler_set_node(pool, &hot, &err), 0);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(1, 1, 1)}), "n3");
    scheduler_free(pool);
}

Test(choose, each_dimension_binds)
{
    struct scheduler *pool = pool_of(SCHED_PACK);
    node(pool, "n1", size_of(16, 64, 10));
    place(pool, "a", NULL, size_of(8, 62, 9), "n1");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(8, 2, 1)}), "n1");
    cr_assert(strstr(chosen(pool, (struct sched_request){.need = size_of(9, 2, 1)}), "lacks cpu"));
    cr_assert(
        strstr(chosen(pool, (struct sched_request){.need = size_of(8, 3, 1)}), "lacks memory"));
    cr_assert(
        strstr(chosen(pool, (struct sched_request){.need = size_of(8, 2, 2)}), "lacks bandwidth"));
    scheduler_free(pool);
}

Test(choose, overcommit_raises_what_may_be_reserved)
{
    struct error err = ERROR_INIT;
    struct sched_config config = {.policy = SCHED_PACK, .cpu_overcommit_percent = 250};
    struct scheduler *pool = scheduler_new(&config, &err);
    node(pool, "n1", size_of(4, 64, 10));
    place(pool, "a", NULL, size_of(8, 1, 1), "n1");
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(2, 1, 1)}), "n1");
    cr_assert(strstr(chosen(pool, (struct sched_request){.need = size_of(3, 1, 1)}), "lacks cpu"));
    scheduler_free(pool);
    config.memory_overcommit_percent = UINT32_MAX;
    cr_assert_null(scheduler_new(&config, &err));
    cr_assert_eq(err.kind, ERROR_USAGE);
}

Test(choose, labels_groups_drain_and_loss_keep_a_vm_away)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = pool_of(SCHED_PACK);
    struct sched_label ssd = {"disk", "ssd"}, hdd = {"disk", "hdd"};
    struct sched_node nodes[] = {
        {.name = "n1", .capacity = size_of(16, 64, 10), .labels = &hdd, .label_count = 1},
        {.name = "n2", .capacity = size_of(16, 64, 10), .labels = &ssd, .label_count = 1},
        {.name = "n3", .capacity = size_of(16, 64, 10), .labels = &ssd, .label_count = 1},
    };
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(scheduler_set_node(pool, &nodes[i], &err), 0);
    struct sched_request request = {.vm = "db-2",
                                    .need = size_of(1, 1, 1),
                                    .selector = &ssd,
                                    .selector_count = 1,
                                    .anti_affinity_group = "db"};
    cr_assert_str_eq(chosen(pool, request), "n2");
    place(pool, "db-1", "db", size_of(1, 1, 1), "n2");
    cr_assert_str_eq(chosen(pool, request), "n3");
    nodes[2].drained = true;
    cr_assert_eq(scheduler_set_node(pool, &nodes[2], &err), 0);
    cr_assert_str_eq(chosen(pool, request),
                     "no host fits: 1 holds a VM of group db, 1 lacks a label, 1 is drained; "
                     "it would fit on n3 if that were not drained");
    nodes[2].drained = false;
    nodes[2].lost = true;
    cr_assert_eq(scheduler_set_node(pool, &nodes[2], &err), 0);
    cr_assert_str_eq(chosen(pool, request),
                     "no host fits: 1 holds a VM of group db, 1 lacks a label, 1 is lost; "
                     "it would fit on n2 without group db");
    scheduler_remove_vm(pool, "db-1");
    cr_assert_str_eq(chosen(pool, request), "n2");
    scheduler_free(pool);
}

Test(choose, a_migration_does_not_count_the_vm_twice)
{
    struct scheduler *pool = pool_of(SCHED_PACK);
    node(pool, "n1", size_of(16, 64, 10));
    node(pool, "n2", size_of(16, 64, 10));
    place(pool, "big", "g", size_of(12, 48, 1), "n1");
    struct sched_request request = {
        .vm = "big", .need = size_of(12, 48, 1), .anti_affinity_group = "g"};
    cr_assert_str_eq(chosen(pool, request), "n1");
    request.not_node = "n1";
    cr_assert_str_eq(chosen(pool, request), "n2");
    place(pool, "big", "g", size_of(12, 48, 1), "n2");
    struct sched_resources reserved;
    struct error err = ERROR_INIT;
    cr_assert_eq(scheduler_reserved(pool, "n1", &reserved, &err), 0);
    cr_assert_eq(reserved.memory_mib, 0);
    cr_assert_eq(scheduler_reserved(pool, "n2", &reserved, &err), 0);
    cr_assert_eq(reserved.memory_mib, 48 * 1024);
    scheduler_free(pool);
}

Test(choose, a_refusal_says_the_closest_and_the_smallest_change)
{
    struct scheduler *pool = pool_of(SCHED_PACK);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(4, 64, 1)}),
                     "no host fits: the pool has no hosts yet");
    node(pool, "n1", size_of(16, 48, 10));
    node(pool, "n2", size_of(16, 62, 10));
    node(pool, "n3", size_of(2, 96, 10));
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(4, 64, 1)}),
                     "no host fits: 2 lack memory (closest: n2, 2G short), "
                     "1 lacks cpu (closest: n3, 2 CPUs short); "
                     "it would fit on n2 with 2G less memory");
    cr_assert_str_eq(
        chosen(pool, (struct sched_request){.need = size_of(4, 64, 1), .only_node = "n3"}),
        "no host fits: 1 lacks cpu (closest: n3, 2 CPUs short), "
        "2 are ruled out by the request; it would fit on n3 with 2 CPUs less");
    scheduler_free(pool);
}

Test(choose, explain_gives_a_verdict_for_each_node)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    struct scheduler *pool = three_nodes(SCHED_PACK);
    place(pool, "full", NULL, size_of(4, 47, 1), "n2");
    struct sched_request request = {.need = size_of(1, 2, 1)};
    cr_assert_eq(scheduler_explain(pool, &request, &decision, &err), 0);
    cr_assert_str_eq(decision.node, "n3");
    cr_assert_eq(decision.verdict_count, 3);
    cr_assert(decision.verdicts[0].fits);
    cr_assert_str_eq(decision.verdicts[1].node, "n2");
    cr_assert_str_eq(decision.verdicts[1].filter, "memory");
    cr_assert_str_eq(decision.verdicts[1].reason, "lacks memory: needs 2G, 1G free");
    cr_assert_gt(decision.verdicts[2].score, decision.verdicts[0].score);
    sched_decision_free(&decision);

    request.need = size_of(64, 2, 1);
    cr_assert_eq(scheduler_explain(pool, &request, &decision, &err), -1);
    cr_assert_eq(err.kind, ERROR_NO_CAPACITY);
    cr_assert_eq(decision.verdict_count, 3);
    sched_decision_free(&decision);
    scheduler_free(pool);
}

Test(choose, nodes_and_requests_are_checked)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    struct scheduler *pool = three_nodes(SCHED_PACK);
    struct sched_request nothing = {0};
    cr_assert_eq(scheduler_choose(pool, &nothing, &decision, &err), -1);
    cr_assert_eq(err.kind, ERROR_USAGE);
    struct sched_node absurd = {.name = "n9", .capacity = {UINT64_MAX, 1, 1}};
    cr_assert_eq(scheduler_set_node(pool, &absurd, &err), -1);
    cr_assert_eq(err.kind, ERROR_USAGE);
    char name[SCHED_NAME_MAX + 1];
    memset(name, 'n', SCHED_NAME_MAX);
    name[SCHED_NAME_MAX] = '\0';
    struct sched_node long_name = {.name = name};
    cr_assert_eq(scheduler_set_node(pool, &long_name, &err), -1);
    cr_assert_eq(scheduler_remove_node(pool, "n2", &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(scheduler_remove_node(pool, "n1", &err), 0);
    cr_assert_eq(scheduler_remove_node(pool, "n1", &err), -1);
    cr_assert_eq(err.kind, ERROR_NOT_FOUND);
    cr_assert_str_eq(chosen(pool, (struct sched_request){.need = size_of(1, 1, 1)}), "n2");
    scheduler_remove_vm(pool, "nobody");
    scheduler_free(pool);
}

/* Two hundred times over, so that there is no doubt of it. */
static void teach(struct scheduler *pool, const char *tenant, uint64_t lifetime_s)
{
    const struct sched_request left = {.need = size_of(1, 1, 0), .tenant = tenant};
    for (unsigned i = 0; i < 200; i++)
        scheduler_note_lifetime(pool, &left, lifetime_s);
}

/* Two hosts alike, one with VMs that leave within the hour, one with VMs that stay for days. */
static struct scheduler *two_lives(enum sched_policy policy, bool known)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = pool_of(policy);
    scheduler_set_time(pool, 1000000);
    node(pool, "n1", size_of(64, 64, 10));
    node(pool, "n2", size_of(64, 64, 10));
    for (unsigned i = 0; i < 2; i++) { /* in turn, as one tenant alone would be the mean */
        teach(pool, "batch", 1800);
        teach(pool, "web", known ? 400000 : 1800);
    }
    for (unsigned i = 0; i < 8; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        const struct sched_request request = {
            .vm = name, .need = size_of(1, 1, 0), .tenant = i % 2 ? "web" : "batch"};
        cr_assert_eq(scheduler_place(pool, &request, i % 2 ? "n2" : "n1", &err), 0);
    }
    scheduler_set_time(pool, 1000000 + 900);
    return pool;
}

Test(choose, best_puts_a_vm_with_those_that_leave_when_it_does)
{
    struct scheduler *pool = two_lives(SCHED_BEST, true);
    bool used = false;
    cr_assert_gt(scheduler_lifetimes_explained(pool, &used), 0.9);
    cr_assert(used);
    struct sched_request request = {.vm = "new", .need = size_of(1, 1, 0), .tenant = "web"};
    cr_assert_str_eq(chosen(pool, request), "n2");
    request.tenant = "batch";
    cr_assert_str_eq(chosen(pool, request), "n1");
    scheduler_free(pool);
}

Test(choose, lifetimes_that_tell_nothing_change_nothing)
{
    const struct sched_request request = {.vm = "new", .need = size_of(1, 1, 0), .tenant = "web"};
    struct scheduler *pool = two_lives(SCHED_BEST, false);
    cr_assert_str_eq(chosen(pool, request), "n1");
    scheduler_free(pool);
    pool = two_lives(SCHED_PACK, true);
    cr_assert_str_eq(chosen(pool, request), "n1", "nor do they where the policy does not ask");
    scheduler_free(pool);
}
