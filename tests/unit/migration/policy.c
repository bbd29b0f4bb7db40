#include "node-agent/migration/policy.h"

#include <criterion/criterion.h>

#define MIB (1ull << 20)

/* Runs the policy over rounds of a guest that dirties @dirty bytes/s within a working set of @ws
 * bytes, on a link of @bandwidth bytes/s; returns the last choice and the number of rounds. */
static struct policy_output simulate_with(bool postcopy_allowed, uint64_t ram, uint64_t ws,
                                          uint64_t dirty, uint64_t bandwidth, uint64_t limit_us,
                                          uint64_t timeout_ms, uint32_t *rounds,
                                          uint64_t *elapsed_ms)
{
    struct policy_memory memory = {0};
    struct policy_output output = {0};
    uint64_t to_send = ram;
    double elapsed = 0;
    for (*rounds = 1; *rounds < 10000; ++*rounds) {
        double seconds = (double)to_send / (double)bandwidth + 0.001;
        elapsed += seconds;
        double written = (double)dirty * seconds;
        to_send = written > (double)ws ? ws : (uint64_t)written;
        struct policy_input input = {.round = *rounds,
                                     .elapsed_ms = (uint64_t)(elapsed * 1000),
                                     .remaining_bytes = to_send,
                                     .bandwidth = bandwidth,
                                     .dirty = (uint64_t)((double)to_send / seconds),
                                     .fixed_us = 2000,
                                     .limit_us = limit_us,
                                     .timeout_ms = timeout_ms,
                                     .postcopy_allowed = postcopy_allowed};
        output = policy_decide(&input, &memory);
        if (output.choice != POLICY_CONTINUE)
            break;
    }
    *elapsed_ms = (uint64_t)(elapsed * 1000);
    return output;
}

static struct policy_output simulate(uint64_t ram, uint64_t ws, uint64_t dirty, uint64_t bandwidth,
                                     uint64_t limit_us, uint64_t timeout_ms, uint32_t *rounds,
                                     uint64_t *elapsed_ms)
{
    return simulate_with(false, ram, ws, dirty, bandwidth, limit_us, timeout_ms, rounds,
                         elapsed_ms);
}

struct scenario {
    const char *name;
    uint64_t ram_mib, ws_mib, dirty_mib, bandwidth_mib, limit_ms;
    enum policy_choice choice;
    enum policy_reason reason;
    uint32_t rounds_max;
};

static const struct scenario scenarios[] = {
    {"idle", 1024, 0, 0, 1000, 100, POLICY_PAUSE, POLICY_REASON_NONE, 1},
    {"gentle", 1024, 512, 50, 1000, 100, POLICY_PAUSE, POLICY_REASON_NONE, 5},
    {"small set at full speed", 1024, 64, 5000, 1000, 100, POLICY_PAUSE, POLICY_REASON_NONE, 3},
    {"just converges", 1024, 1024, 800, 1000, 100, POLICY_PAUSE, POLICY_REASON_NONE, 20},
    {"outruns the link", 1024, 512, 2000, 100, 100, POLICY_GIVE_UP, POLICY_REASON_DIVERGES, 40},
    {"a generous limit", 1024, 512, 2000, 100, 6000, POLICY_PAUSE, POLICY_REASON_NONE, 3},
};

Test(policy, scenarios_end_as_they_must)
{
    for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        const struct scenario *s = &scenarios[i];
        uint32_t rounds;
        uint64_t elapsed_ms;
        struct policy_output output =
            simulate(s->ram_mib * MIB, s->ws_mib * MIB, s->dirty_mib * MIB, s->bandwidth_mib * MIB,
                     s->limit_ms * 1000, 3600000, &rounds, &elapsed_ms);
        cr_expect_eq(output.choice, s->choice, "%s: choice %d", s->name, output.choice);
        cr_expect_eq(output.reason, s->reason, "%s", s->name);
        cr_expect_leq(rounds, s->rounds_max, "%s: %u rounds", s->name, rounds);
        if (output.choice == POLICY_PAUSE)
            cr_expect_leq(output.predicted_pause_us, s->limit_ms * 1000, "%s", s->name);
    }
}

Test(policy, never_pauses_when_the_prediction_is_over_the_limit)
{
    for (uint64_t remaining = 0; remaining < 300 * MIB; remaining += 7 * MIB) {
        struct policy_memory memory = {.last_remaining = remaining};
        struct policy_input input = {.round = 3,
                                     .elapsed_ms = 100,
                                     .remaining_bytes = remaining,
                                     .bandwidth = 1000 * MIB,
                                     .dirty = 1000 * MIB,
                                     .fixed_us = 5000,
                                     .limit_us = 100000,
                                     .timeout_ms = 1000000};
        struct policy_output output = policy_decide(&input, &memory);
        cr_assert_eq(output.choice == POLICY_PAUSE, output.predicted_pause_us <= 100000);
    }
}

static enum policy_choice choose_within(uint64_t remaining, uint64_t dirty, uint32_t within)
{
    struct policy_memory memory = {.within = within};
    struct policy_input input = {.round = 3,
                                 .elapsed_ms = 100,
                                 .remaining_bytes = remaining,
                                 .bandwidth = 1000 * MIB,
                                 .dirty = dirty,
                                 .fixed_us = 2000,
                                 .limit_us = 100000,
                                 .timeout_ms = 1000000};
    return policy_decide(&input, &memory).choice;
}

/* 16 MiB are 16 ms here, and a round of them 18. */
Test(policy, a_permitted_pause_is_made_shorter_while_a_round_leaves_less)
{
    cr_expect_eq(choose_within(16 * MIB, 100 * MIB, 0), POLICY_CONTINUE);
    cr_expect_eq(choose_within(16 * MIB, 600 * MIB, 0), POLICY_CONTINUE);
    cr_expect_eq(choose_within(16 * MIB, 700 * MIB, 0), POLICY_PAUSE, "it would leave 12.6 MiB");
    cr_expect_eq(choose_within(16 * MIB, 0, POLICY_POLISH_MAX), POLICY_PAUSE, "not for ever");
    cr_expect_eq(choose_within(MIB / 4, 0, 0), POLICY_PAUSE, "it is latency");
    cr_expect_eq(choose_within(0, 0, 0), POLICY_PAUSE);
}

/* The guest writes @dirty bytes/s over @ws bytes at full speed; what slows it slows that. */
static uint32_t throttle_until_paused(double dirty, double ws, double bandwidth, uint32_t *rounds)
{
    struct policy_memory memory = {0};
    uint32_t throttle = 0;
    double left = 4 * ws;
    for (*rounds = 1; *rounds < 1000; ++*rounds) {
        double seconds = left / bandwidth + 0.002;
        double written = dirty * (100 - throttle) / 100 * seconds;
        left = written > ws ? ws : written;
        struct policy_input input = {.round = *rounds,
                                     .elapsed_ms = *rounds,
                                     .remaining_bytes = (uint64_t)left,
                                     .bandwidth = (uint64_t)bandwidth,
                                     .fixed_us = 5000,
                                     .limit_us = 100000,
                                     .timeout_ms = 1000000,
                                     .may_throttle = true};
        struct policy_output output = policy_decide(&input, &memory);
        cr_assert_neq(output.choice, POLICY_GIVE_UP);
        cr_assert_geq(output.throttle_percent, throttle, "it never speeds up before the end");
        throttle = output.throttle_percent;
        if (output.choice == POLICY_PAUSE)
            break;
    }
    return throttle;
}

Test(policy, a_guest_is_slowed_only_as_far_as_the_link_needs)
{
    uint32_t rounds;
    cr_expect_eq(throttle_until_paused(20e6, 256e6, 100e6, &rounds), 0);
    cr_expect_eq(throttle_until_paused(150e6, 256e6, 100e6, &rounds), 60);
    cr_expect_leq(throttle_until_paused(1000e6, 512e6, 100e6, &rounds), 97);
    cr_expect_leq(rounds, 20);
    cr_expect_leq(throttle_until_paused(4000e6, 512e6, 100e6, &rounds), 99);
    cr_expect_leq(rounds, 20);
}

Test(policy, the_timeout_ends_it)
{
    uint32_t rounds;
    uint64_t elapsed_ms;
    struct policy_output output =
        simulate(1024 * MIB, 512 * MIB, 99 * MIB, 100 * MIB, 1000, 12000, &rounds, &elapsed_ms);
    cr_assert_eq(output.choice, POLICY_GIVE_UP);
    cr_assert_eq(output.reason, POLICY_REASON_TIMEOUT);
}

Test(policy, an_unknown_bandwidth_predicts_nothing)
{
    struct policy_memory memory = {0};
    struct policy_input input = {.round = 1, .limit_us = 100000, .timeout_ms = 1000};
    struct policy_output output = policy_decide(&input, &memory);
    cr_assert_eq(output.choice, POLICY_CONTINUE);
    cr_assert_eq(output.predicted_pause_us, UINT64_MAX);
    cr_assert_eq(output.eta_ms, 0);
}

Test(policy, huge_numbers_do_not_overflow)
{
    struct policy_memory memory = {0};
    struct policy_input input = {.round = 1,
                                 .remaining_bytes = 1ull << 46,
                                 .bandwidth = 1,
                                 .limit_us = 100000,
                                 .timeout_ms = UINT64_MAX};
    struct policy_output output = policy_decide(&input, &memory);
    cr_assert_eq(output.choice, POLICY_CONTINUE);
    cr_assert_eq(output.predicted_pause_us, UINT64_MAX);
}

Test(policy, after_a_failed_pause_it_waits_longer_each_time)
{
    for (uint32_t failed = 1; failed <= 4; failed++)
        for (uint64_t since_ms = 0; since_ms < 10000; since_ms += 100) {
            struct policy_memory memory = {0};
            struct policy_input input = {.round = 9,
                                         .elapsed_ms = 20000,
                                         .bandwidth = MIB,
                                         .limit_us = 100000,
                                         .timeout_ms = 1000000,
                                         .pauses_failed = failed,
                                         .since_failed_ms = since_ms};
            struct policy_output output = policy_decide(&input, &memory);
            bool waits = since_ms < 500ull << (failed - 1);
            cr_assert_eq(output.choice, waits ? POLICY_CONTINUE : POLICY_PAUSE);
            cr_assert_eq(output.wait_ms != 0, waits);
        }
}

/* With post-copy the same scenarios end in it where they would be given up, and soon; the others
 * end as they did. */
Test(policy, post_copy_takes_the_place_of_giving_up)
{
    for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        const struct scenario *s = &scenarios[i];
        uint32_t rounds;
        uint64_t elapsed_ms;
        struct policy_output output = simulate_with(
            true, s->ram_mib * MIB, s->ws_mib * MIB, s->dirty_mib * MIB, s->bandwidth_mib * MIB,
            s->limit_ms * 1000, 3600000, &rounds, &elapsed_ms);
        bool given_up = s->choice == POLICY_GIVE_UP;
        cr_expect_eq(output.choice, given_up ? POLICY_POSTCOPY : s->choice, "%s: choice %d",
                     s->name, output.choice);
        cr_expect_leq(rounds, given_up ? 3u : s->rounds_max, "%s: %u rounds", s->name, rounds);
    }
}

/* A burst is no reason; nor is anything while a pause that failed is being recovered from. */
Test(policy, post_copy_needs_a_guest_that_outruns_the_link_for_a_while)
{
    struct policy_memory memory = {0};
    struct policy_input input = {.remaining_bytes = 500 * MIB,
                                 .bandwidth = 100 * MIB,
                                 .limit_us = 100000,
                                 .timeout_ms = 1000000,
                                 .postcopy_allowed = true};
    for (input.round = 1; input.round <= 12; input.round++) {
        input.elapsed_ms += 300;
        input.dirty = input.round % 3 ? 200 * MIB : 10 * MIB;
        input.remaining_bytes = input.round % 3 ? 500 * MIB : 400 * MIB;
        cr_assert_eq(policy_decide(&input, &memory).choice, POLICY_CONTINUE);
    }
    input.dirty = 200 * MIB;
    input.pauses_failed = 1;
    input.elapsed_ms += 2000;
    cr_assert_eq(policy_decide(&input, &memory).choice, POLICY_CONTINUE);
    input.since_failed_ms = 2000;
    cr_assert_eq(policy_decide(&input, &memory).choice, POLICY_POSTCOPY);
}

/* A working set that is dirty again long before the round is over: over a slow link its rate looks
 * like the link's. What the short first round saw of it counts. */
Test(policy, a_guest_faster_than_a_long_round_can_tell_goes_by_post_copy)
{
    struct policy_memory memory = {0};
    struct policy_input input = {.round = 1,
                                 .elapsed_ms = 700,
                                 .remaining_bytes = 512 * MIB,
                                 .bandwidth = 119 * MIB,
                                 .dirty = 731 * MIB,
                                 .limit_us = 50000,
                                 .timeout_ms = 1000000,
                                 .postcopy_allowed = true,
                                 .may_throttle = true};
    cr_assert_eq(policy_decide(&input, &memory).choice, POLICY_CONTINUE);
    input.round = 2;
    input.elapsed_ms += 4300;
    input.dirty = 119 * MIB;
    cr_assert_eq(policy_decide(&input, &memory).choice, POLICY_POSTCOPY);
}
