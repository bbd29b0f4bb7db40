/* Rules of placement: what each keeps a VM from, how it is said, and what would help. */
#include "scheduler/scheduler.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct scheduler *pool_of(const struct sched_config *config)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool = scheduler_new(config, &err);
    cr_assert(pool, "%s", err.text);
    return pool;
}

static void add_node(struct scheduler *pool, const char *name, const char *key, const char *value)
{
    struct error err = ERROR_INIT;
    struct sched_label label = {key, value};
    struct sched_node node = {
        .name = name, .capacity = {8000, 8192, 1000}, .labels = &label, .label_count = key != NULL};
    cr_assert_eq(scheduler_set_node(pool, &node, &err), 0, "%s", err.text);
}

static void set_drained(struct scheduler *pool, const char *name, const char *key,
                        const char *value)
{
    struct error err = ERROR_INIT;
    struct sched_label label = {key, value};
    struct sched_node node = {.name = name,
                              .capacity = {8000, 8192, 1000},
                              .labels = &label,
                              .label_count = 1,
                              .drained = true};
    cr_assert_eq(scheduler_set_node(pool, &node, &err), 0, "%s", err.text);
}

/* Where it goes, or the words of the refusal. */
static const char *ask(const struct scheduler *pool, struct sched_request request)
{
    static struct sched_decision decision;
    static struct error err;
    err = (struct error)ERROR_INIT;
    if (!request.need.cpu_milli)
        request.need = (struct sched_resources){1000, 1024, 0};
    return scheduler_choose(pool, &request, &decision, &err) == 0 ? decision.node : err.text;
}

static void place(struct scheduler *pool, const char *node, struct sched_request request)
{
    struct error err = ERROR_INIT;
    if (!request.need.cpu_milli)
        request.need = (struct sched_resources){1000, 1024, 0};
    cr_assert_eq(scheduler_place(pool, &request, node, &err), 0, "%s", err.text);
}

#define REQUEST(...) ((struct sched_request){__VA_ARGS__})

static struct scheduler *three_nodes(void)
{
    struct scheduler *pool = pool_of(&(struct sched_config){.policy = SCHED_SPREAD});
    add_node(pool, "n1", NULL, NULL);
    add_node(pool, "n2", NULL, NULL);
    add_node(pool, "n3", NULL, NULL);
    return pool;
}

Test(rules, affinity_goes_where_the_group_is)
{
    struct scheduler *pool = three_nodes();
    cr_assert_str_eq(ask(pool, REQUEST(.affinity_group = "web")), "n1", "the first goes anywhere");
    place(pool, "n2", REQUEST(.vm = "a", .affinity_group = "web"));
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "b", .affinity_group = "web")), "n2");
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a", .affinity_group = "web", .not_node = "n2")), "n1",
                     "a group of one may move");
    place(pool, "n2", REQUEST(.vm = "full", .need = {7000, 1, 0}));
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "b", .affinity_group = "web")),
                     "no host fits: 1 lacks cpu (closest: n2, 1 CPU short), 2 hold no VM of group "
                     "web; it would fit on n2 with 1 CPU less");
    scheduler_free(pool);
}

Test(rules, soft_anti_affinity_takes_the_host_with_the_fewest)
{
    struct scheduler *pool = three_nodes();
    struct sched_request request = {.vm = "x", .anti_affinity_group = "db"};
    request.anti_affinity_soft = true;
    place(pool, "n1", REQUEST(.vm = "a", .anti_affinity_group = "db"));
    place(pool, "n2", REQUEST(.vm = "big", .need = {6000, 1024, 0}));
    place(pool, "n3", REQUEST(.vm = "bigger", .need = {7000, 1024, 0}));
    cr_assert_str_eq(ask(pool, request), "n2", "fuller than n1, but without a VM of db");
    place(pool, "n2", REQUEST(.vm = "b", .anti_affinity_group = "db"));
    place(pool, "n3", REQUEST(.vm = "c", .anti_affinity_group = "db"));
    cr_assert_str_eq(ask(pool, request), "n1", "all hold one: n1 has most room");
    place(pool, "n1", REQUEST(.vm = "d", .anti_affinity_group = "db"));
    cr_assert_str_eq(ask(pool, request), "n2", "n1 holds two by now, and n3 is full");
    request.anti_affinity_soft = false;
    cr_assert_str_eq(ask(pool, request), "no host fits: 3 hold a VM of group db; it would fit on "
                                         "n1 without group db");
    scheduler_free(pool);
}

static struct scheduler *three_zones(void)
{
    struct scheduler *pool = pool_of(&(struct sched_config){.policy = SCHED_PACK});
    add_node(pool, "a1", "zone", "a");
    add_node(pool, "a2", "zone", "a");
    add_node(pool, "b1", "zone", "b");
    add_node(pool, "c1", "zone", "c");
    add_node(pool, "bare", NULL, NULL);
    return pool;
}

static struct sched_request spread(const char *vm, uint32_t skew)
{
    return REQUEST(.vm = vm, .spread_group = "db", .spread_label = "zone", .spread_skew = skew);
}

Test(rules, spread_keeps_zones_at_most_so_far_apart)
{
    struct scheduler *pool = three_zones();
    cr_assert_str_eq(ask(pool, spread("1", 1)), "a1");
    place(pool, "a1", spread("1", 1));
    cr_assert_str_eq(ask(pool, spread("2", 1)), "b1", "pack would take a1");
    cr_assert_str_eq(ask(pool, spread("2", 2)), "a1");
    place(pool, "b1", spread("2", 1));
    cr_assert_str_eq(ask(pool, spread("3", 1)), "c1");
    place(pool, "c1", REQUEST(.vm = "full", .need = {8000, 1, 0}));
    cr_assert_str_eq(ask(pool, spread("3", 1)),
                     "no host fits: 1 lacks cpu (closest: c1, 1 CPU short), 4 are where group db "
                     "has too many for its spread over zone; it would fit on c1 with 1 CPU less");
    set_drained(pool, "c1", "zone", "c");
    cr_assert_str_eq(ask(pool, spread("3", 1)), "a1", "a zone that takes nothing does not count");
    scheduler_free(pool);
}

Test(rules, spread_follows_vms_that_move_and_nodes_that_change_their_zone)
{
    struct scheduler *pool = three_zones();
    place(pool, "a1", spread("1", 1));
    place(pool, "b1", spread("1", 1));
    cr_assert_str_eq(ask(pool, spread("2", 1)), "a1", "b holds the only one now");
    add_node(pool, "b1", "zone", "a");
    cr_assert_str_eq(ask(pool, spread("2", 1)), "c1", "that one is in a now, and b is no more");
    cr_assert_str_eq(ask(pool, spread("1", 1)), "a1", "its own place does not count against it");
    scheduler_remove_vm(pool, "1");
    cr_assert_str_eq(ask(pool, spread("2", 1)), "a1");
    scheduler_free(pool);
}

Test(rules, dedicated_nodes_take_their_tenant_and_no_other)
{
    struct scheduler *pool = pool_of(&(struct sched_config){.policy = SCHED_PACK});
    struct sched_label dedicated = {SCHED_DEDICATED_LABEL, "acme"};
    add_node(pool, "n1", SCHED_DEDICATED_LABEL, "acme");
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a")), "no host fits: 1 is dedicated to others; it "
                                                    "would fit on n1 for tenant acme");
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a", .tenant = "acme")), "n1");
    add_node(pool, "n2", NULL, NULL);
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a")), "n2");
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a", .tenant = "other")), "n2");
    place(pool, "n2", REQUEST(.vm = "b"));
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a", .tenant = "acme")), "n2", "may use open ones");
    cr_assert_str_eq(ask(pool, REQUEST(.vm = "a", .tenant = "acme", .selector = &dedicated,
                                       .selector_count = 1)),
                     "n1");
    scheduler_free(pool);
}

Test(rules, the_hosts_reserve_is_taken_off_before_overcommit)
{
    struct error err = ERROR_INIT;
    struct scheduler *pool =
        pool_of(&(struct sched_config){.policy = SCHED_PACK, .cpu_overcommit_percent = 200});
    struct sched_node node = {
        .name = "n1", .capacity = {8000, 8192, 1000}, .reserve = {1000, 1024, 100}};
    cr_assert_eq(scheduler_set_node(pool, &node, &err), 0);
    cr_assert_str_eq(ask(pool, REQUEST(.need = {14000, 7168, 900})), "n1");
    cr_assert(strstr(ask(pool, REQUEST(.need = {14001, 1, 0})), "lacks cpu"));
    cr_assert(strstr(ask(pool, REQUEST(.need = {1, 7169, 0})), "lacks memory"));
    cr_assert(strstr(ask(pool, REQUEST(.need = {1, 1, 901})), "lacks bandwidth"));
    node.reserve.memory_mib = 9000;
    cr_assert_eq(scheduler_set_node(pool, &node, &err), 0, "%s", err.text);
    cr_assert(strstr(ask(pool, REQUEST(.need = {1, 1, 0})), "lacks memory"));
    scheduler_free(pool);
}

static void refused(const struct scheduler *pool, struct sched_request request, const char *why)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    request.need = (struct sched_resources){1000, 1024, 0};
    cr_assert_eq(scheduler_choose(pool, &request, &decision, &err), -1);
    cr_assert_eq(err.kind, ERROR_USAGE);
    cr_assert_str_eq(err.text, why);
}

Test(rules, contradictions_are_refused_with_both_sides)
{
    struct scheduler *pool = three_nodes();
    struct sched_label disks[] = {{"disk", "ssd"}, {"disk", "hdd"}};
    struct sched_label dedicated = {SCHED_DEDICATED_LABEL, "acme"};
    refused(pool, REQUEST(.only_node = "n1", .not_node = "n1"),
            "the rules contradict each other: only on node n1, and not on node n1");
    refused(pool, REQUEST(.affinity_group = "g", .anti_affinity_group = "g"),
            "the rules contradict each other: with the VMs of group g, and never on a node with "
            "one of them");
    refused(pool, REQUEST(.selector = disks, .selector_count = 2),
            "the rules contradict each other: a node has one value of label disk, not both ssd "
            "and hdd");
    refused(pool, REQUEST(.selector = &dedicated, .selector_count = 1, .tenant = "x"),
            "the rules contradict each other: only on nodes dedicated to acme, which take no VM "
            "of x");
    refused(pool, REQUEST(.spread_group = "g"),
            "a spread needs both a group and the node label to spread it over");
    char name[400];
    memset(name, 'g', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    refused(pool, REQUEST(.affinity_group = name),
            "the affinity group has 399 letters: expected at most 256");
    scheduler_free(pool);
}

Test(rules, a_verdict_tells_all_that_would_have_to_change)
{
    struct error err = ERROR_INIT;
    struct sched_decision decision;
    struct scheduler *pool = three_nodes();
    place(pool, "n1", REQUEST(.vm = "a", .anti_affinity_group = "db", .need = {1000, 7168, 0}));
    set_drained(pool, "n2", "zone", "a");
    struct sched_request request = {.need = {1000, 2048, 0}, .anti_affinity_group = "db"};
    cr_assert_eq(scheduler_explain(pool, &request, &decision, &err), 0);
    cr_assert_str_eq(decision.node, "n3");
    cr_assert_str_eq(decision.verdicts[0].filter, "anti-affinity");
    cr_assert_str_eq(decision.verdicts[0].reason, "holds VM a of group db");
    cr_assert_str_eq(decision.verdicts[0].change, "without group db and with 1G less memory");
    cr_assert_str_eq(decision.verdicts[1].change, "if that were not drained");
    cr_assert_str_empty(decision.verdicts[2].change);
    sched_decision_free(&decision);
    scheduler_free(pool);
}
