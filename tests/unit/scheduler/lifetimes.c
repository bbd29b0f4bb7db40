/* What is learned of lifetimes, and whether it is believed. */
#include "scheduler/lifetimes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

static const struct sched_resources small = {1000, 2048, 0}, large = {8000, 65536, 0};

static struct lifetimes *made(void)
{
    struct error err = ERROR_INIT;
    struct lifetimes *lifetimes = lifetimes_new(&err);
    cr_assert(lifetimes);
    return lifetimes;
}

/* One comes and is gone before the next one comes. */
static void stay(struct lifetimes *lifetimes, const struct sched_resources *need,
                 const char *tenant, uint64_t lifetime_s)
{
    const struct guess guess = lifetimes_guess(lifetimes, need, tenant);
    lifetimes_note(lifetimes, need, tenant, &guess, lifetime_s);
}

static double guessed_s(const struct lifetimes *lifetimes, const struct sched_resources *need,
                        const char *tenant)
{
    return exp(lifetimes_guess(lifetimes, need, tenant).kind);
}

Test(lifetimes, nothing_is_known_before_anybody_left)
{
    struct lifetimes *lifetimes = made();
    cr_assert_not(lifetimes_guess(lifetimes, &small, NULL).known);
    cr_assert_float_eq(lifetimes_explained(lifetimes), 0, 0);
    cr_assert_not(lifetimes_worth_using(lifetimes, true));
    lifetimes_free(lifetimes);
}

Test(lifetimes, a_size_and_a_tenant_have_their_own)
{
    struct lifetimes *lifetimes = made();
    for (unsigned i = 0; i < 1000; i++) {
        stay(lifetimes, &small, "batch", 600);
        stay(lifetimes, &small, "web", 864000);
        stay(lifetimes, &large, NULL, 7200);
    }
    cr_assert_float_eq(guessed_s(lifetimes, &small, "batch"), 600, 60);
    cr_assert_float_eq(guessed_s(lifetimes, &small, "web"), 864000, 86400);
    cr_assert_float_eq(guessed_s(lifetimes, &large, "unheard of"), 7200, 720);
    double unknown = guessed_s(lifetimes, &small, "unheard of");
    cr_assert(unknown > 6000 && unknown < 60000, "%f: neither of the two", unknown);
    cr_assert_gt(lifetimes_explained(lifetimes), 0.95);
    cr_assert(lifetimes_worth_using(lifetimes, false));
    lifetimes_free(lifetimes);
}

Test(lifetimes, a_kind_that_few_were_of_is_drawn_to_the_wider_one)
{
    struct lifetimes *lifetimes = made();
    for (unsigned i = 0; i < 100; i++)
        stay(lifetimes, &small, NULL, 1000);
    stay(lifetimes, &small, "new", 100000);
    double said = guessed_s(lifetimes, &small, "new");
    cr_assert(said > 1000 && said < 10000, "%f", said);
    lifetimes_free(lifetimes);
}

Test(lifetimes, kinds_that_tell_nothing_are_not_believed)
{
    struct lifetimes *lifetimes = made();
    uint64_t random = 88172645463325252u;
    for (unsigned i = 0; i < 20000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        stay(lifetimes, i % 2 ? &small : &large, i % 3 ? "a" : "b",
             (uint64_t)exp(5 + (double)(random >> 40) / (1 << 22)));
    }
    cr_assert_lt(lifetimes_explained(lifetimes), 0.1);
    cr_assert_not(lifetimes_worth_using(lifetimes, true));
    lifetimes_free(lifetimes);
}

Test(lifetimes, trust_ends_when_kinds_change_their_ways)
{
    struct lifetimes *lifetimes = made();
    for (unsigned i = 0; i < 2000; i++) {
        stay(lifetimes, &small, NULL, 300);
        stay(lifetimes, &large, NULL, 300000);
    }
    cr_assert(lifetimes_worth_using(lifetimes, false));
    for (unsigned i = 0; i < 1500; i++) {
        stay(lifetimes, &small, NULL, i % 2 ? 300 : 300000);
        stay(lifetimes, &large, NULL, i % 2 ? 300 : 300000);
    }
    cr_assert_not(lifetimes_worth_using(lifetimes, true), "%f", lifetimes_explained(lifetimes));
    lifetimes_free(lifetimes);
}

Test(lifetimes, more_kinds_than_are_kept_push_out_the_rarest)
{
    struct lifetimes *lifetimes = made();
    char tenant[16];
    for (unsigned i = 0; i < 100; i++)
        stay(lifetimes, &small, "regular", 50);
    for (unsigned i = 0; i < 50000; i++) {
        (void)snprintf(tenant, sizeof tenant, "t%u", i);
        stay(lifetimes, &small, tenant, 5000);
    }
    cr_assert_lt(guessed_s(lifetimes, &small, "regular"), 100);
    lifetimes_free(lifetimes);
}
