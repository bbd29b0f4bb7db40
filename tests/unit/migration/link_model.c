#include "node-agent/migration/link_model.h"

#include <criterion/criterion.h>

#define MB 1000000ull

/* A link that takes @latency_us and carries @rate bytes a second. */
static void send_over(struct link_model *model, uint64_t bytes, uint64_t latency_us, uint64_t rate)
{
    link_model_note(model, bytes, latency_us + bytes * MB / rate + 1);
}

static void expect_near(uint64_t have, uint64_t want, const char *what)
{
    cr_expect(have >= want * 3 / 4 && have <= want * 4 / 3, "%s: %lu, not %lu", what,
              (unsigned long)have, (unsigned long)want);
}

Test(link_model, large_rounds_tell_the_rate_and_small_ones_the_latency)
{
    static const uint64_t rates[] = {12 * MB, 125 * MB, 1250 * MB};
    static const uint64_t latencies[] = {500, 5000, 50000};
    for (unsigned r = 0; r < 3; r++)
        for (unsigned l = 0; l < 3; l++) {
            struct link_model model = {0};
            send_over(&model, 200 * MB, latencies[l], rates[r]);
            for (unsigned i = 0; i < 8; i++)
                send_over(&model, 40960, latencies[l], rates[r]);
            send_over(&model, 100 * MB, latencies[l], rates[r]);
            expect_near(model.rate, rates[r], "rate");
            expect_near(model.latency_us, latencies[l], "latency");
        }
}

Test(link_model, tiny_rounds_alone_never_lower_the_rate)
{
    struct link_model model = {0};
    send_over(&model, 200 * MB, 1000, 100 * MB);
    uint64_t before = model.rate;
    for (unsigned i = 0; i < 100; i++)
        send_over(&model, 16384, 20000, 100 * MB);
    cr_assert_eq(model.rate, before);
    expect_near(model.latency_us, 20000, "latency");
}

Test(link_model, a_link_that_becomes_slow_or_fast_is_noticed_within_a_few_rounds)
{
    struct link_model model = {0};
    send_over(&model, 200 * MB, 1000, 100 * MB);
    for (unsigned i = 0; i < 6; i++)
        send_over(&model, 5 * MB, 1000, 10 * MB);
    expect_near(model.rate, 10 * MB, "slow");
    for (unsigned i = 0; i < 6; i++)
        send_over(&model, 5 * MB, 1000, 100 * MB);
    expect_near(model.rate, 100 * MB, "fast");
}

Test(link_model, a_rough_rate_is_replaced_by_the_next_one)
{
    struct link_model model = {0};
    send_over(&model, 200 * MB, 500, 100 * MB);
    model.rough = true;
    send_over(&model, 16384, 500, 100 * MB); /* tells nothing of the rate */
    cr_assert(model.rough);
    send_over(&model, 8 * MB, 500, 400 * MB);
    expect_near(model.rate, 400 * MB, "rate");
    cr_assert_not(model.rough);
}

Test(link_model, it_knows_nothing_before_the_first_round_of_some_size)
{
    struct link_model model = {0};
    link_model_note(&model, 4096, 900);
    cr_assert_eq(model.rate, 0);
    cr_assert_eq(model.latency_us, 900);
}
