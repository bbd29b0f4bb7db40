/* The controller's command line: what it takes of rebalancing and N+1, and what it refuses. */
#include "controller/options.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static int parse(struct options *options, struct error *err, const char *a, const char *b)
{
    static char name[] = "pool-controller", first[64], second[64]; /* options point into them */
    char *argv[] = {name, first, second, NULL};
    (void)snprintf(first, sizeof first, "%s", a);
    (void)snprintf(second, sizeof second, "%s", b ? b : "");
    return options_parse(b ? 3 : 2, argv, options, err);
}

Test(options, rebalancing_recommends_unless_told_otherwise)
{
    struct options options;
    struct error err = ERROR_INIT;
    cr_assert_eq(parse(&options, &err, "--keep-n1", NULL), 0, "%s", err.text);
    cr_expect_eq(options.config.rebalance, REBALANCE_RECOMMEND);
    cr_expect(options.config.keep_n1);
    cr_assert_eq(parse(&options, &err, "--rebalance", "on"), 0);
    cr_expect_eq(options.config.rebalance, REBALANCE_ON);
    cr_expect_not(options.config.keep_n1);
    cr_assert_eq(parse(&options, &err, "--rebalance-hold", "0s"), 0, "%s", err.text);
    cr_expect_eq(options.config.rebalance_hold_ms, 0);
    cr_assert_eq(parse(&options, &err, "--rebalance-threshold", "15"), 0);
    cr_expect_eq(options.config.rebalance_threshold_permille, 150);
}

Test(options, a_host_sends_and_receives_one_migration_unless_told_otherwise)
{
    struct options options;
    struct error err = ERROR_INIT;
    cr_assert_eq(parse(&options, &err, "--migrations-out", "2"), 0, "%s", err.text);
    cr_expect_eq(options.config.migrations_out, 2);
    cr_expect_eq(options.config.migrations_in, 1);
    cr_expect_eq(options.config.migrations_pool, 16);
    cr_assert_eq(parse(&options, &err, "--migrations-in", "3"), 0, "%s", err.text);
    cr_expect_eq(options.config.migrations_in, 3);
    cr_assert_eq(parse(&options, &err, "--migrations-pool", "400"), 0, "%s", err.text);
    cr_expect_eq(options.config.migrations_pool, 400);
}

Test(options, places_by_each_policy_that_can_be_simulated)
{
    struct options options;
    struct error err = ERROR_INIT;
    for (unsigned i = 0; i < SCHED_POLICIES; i++) {
        const char *name = sched_policy_name((enum sched_policy)i);
        cr_assert_eq(parse(&options, &err, "--policy", name), 0, "%s", err.text);
        cr_expect_eq(options.config.scheduler.policy, (enum sched_policy)i);
    }
}

Test(options, metrics_are_off_unless_told_otherwise)
{
    struct options options;
    struct error err = ERROR_INIT;
    cr_assert_eq(parse(&options, &err, "--keep-n1", NULL), 0, "%s", err.text);
    cr_expect_null(options.config.metrics);
    cr_assert_eq(parse(&options, &err, "--metrics", "[::1]:7401"), 0, "%s", err.text);
    cr_expect_str_eq(options.config.metrics, "[::1]:7401");
}

Test(options, what_makes_no_sense_is_refused_with_what_was_expected)
{
    static const char *const lines[][3] = {
        {"--policy", "worst", "--policy: a policy is pack, spread, balance or best, not \"worst\""},
        {"--rebalance", "maybe", "rebalancing is off, recommend or on, not \"maybe\""},
        {"--rebalance-batch", "0", "--rebalance-batch"},
        {"--rebalance-threshold", "101", "--rebalance-threshold"},
        {"--migrations-out", "0", "--migrations-out"},
        {"--migrations-in", "65", "--migrations-in"},
        {"--migrations-pool", "many", "--migrations-pool"},
        {"--rebalance-hold", "30d", "--rebalance-hold is 0s to 7d"},
        {"--rebalance-cooldown", "soon", "--rebalance-cooldown"},
        {"--metrics", "7401", "--metrics is a numeric ADDRESS:PORT"},
        {"--metrics", "localhost:7401", "not \"localhost:7401\""},
        {"--rebalance-interval", "1ms", "--rebalance-interval is 100ms to 1h"},
        {NULL, NULL, NULL},
    };
    for (const char *const(*line)[3] = lines; (*line)[0]; line++) {
        struct options options;
        struct error err = ERROR_INIT;
        cr_expect_eq(parse(&options, &err, (*line)[0], (*line)[1]), -1, "%s %s", (*line)[0],
                     (*line)[1]);
        cr_expect_eq(err.kind, ERROR_USAGE);
        cr_expect(strstr(err.text, (*line)[2]), "%s", err.text);
    }
}
