#include "scheduler/forecast.h"

#include <criterion/criterion.h>

#define MINUTE_MS UINT64_C(60000)
#define HOUR_MS   (60 * MINUTE_MS)

static const struct sched_resources most = {4000, 1000, 1000};

/* Uses @cpu for @minutes from *@now_ms on. */
static void use(struct forecast *forecast, uint64_t *now_ms, uint64_t cpu, unsigned minutes)
{
    const struct sched_resources used = {cpu, 500, 2000};
    for (unsigned i = 0; i < minutes; i++, *now_ms += MINUTE_MS)
        forecast_add(forecast, &most, &used, *now_ms, MINUTE_MS);
}

static struct sched_resources mean_of(const struct forecast *forecast)
{
    struct sched_resources mean, peak;
    forecast_expect(forecast, &most, &mean, &peak);
    return mean;
}

static struct sched_resources peak_of(const struct forecast *forecast)
{
    struct sched_resources mean, peak;
    forecast_expect(forecast, &most, &mean, &peak);
    return peak;
}

Test(forecast, nothing_is_known_before_the_first_sample)
{
    struct forecast forecast = {0};
    cr_assert_eq(mean_of(&forecast).cpu_milli, 0);
    cr_assert_eq(peak_of(&forecast).cpu_milli, 0);
}

Test(forecast, a_steady_vm_is_expected_to_go_on)
{
    struct forecast forecast = {0};
    uint64_t now_ms = HOUR_MS;
    use(&forecast, &now_ms, 1000, 300);
    cr_assert_float_eq((double)mean_of(&forecast).cpu_milli, 1000, 2);
    cr_assert_geq(peak_of(&forecast).cpu_milli, 1000);
    cr_assert_leq(peak_of(&forecast).cpu_milli, 1200, "a bucket is 5 %% of 4000");
    cr_assert_eq(mean_of(&forecast).bandwidth_bps, 1000, "more than all counts as all");
}

Test(forecast, the_last_sample_alone_changes_little)
{
    struct forecast forecast = {0};
    uint64_t now_ms = HOUR_MS;
    use(&forecast, &now_ms, 400, 600);
    use(&forecast, &now_ms, 4000, 1);
    cr_assert_lt(mean_of(&forecast).cpu_milli, 420);
    cr_assert_lt(peak_of(&forecast).cpu_milli, 700);
}

Test(forecast, a_vm_that_peaks_often_enough_has_its_peak)
{
    struct forecast forecast = {0};
    uint64_t now_ms = HOUR_MS;
    for (int i = 0; i < 30; i++) {
        use(&forecast, &now_ms, 400, 18);
        use(&forecast, &now_ms, 3000, 2);
    }
    cr_assert_geq(peak_of(&forecast).cpu_milli, 3000, "a tenth of the time");
    cr_assert_float_eq((double)mean_of(&forecast).cpu_milli, 660, 60);
}

Test(forecast, what_is_long_past_is_forgotten)
{
    struct forecast forecast = {0};
    uint64_t now_ms = HOUR_MS;
    use(&forecast, &now_ms, 4000, 24 * 60);
    use(&forecast, &now_ms, 400, 36 * 60);
    cr_assert_lt(mean_of(&forecast).cpu_milli, 500);
    cr_assert_lt(peak_of(&forecast).cpu_milli, 700);
}

Test(forecast, a_gap_counts_as_one_interval_and_time_that_goes_back_as_none)
{
    struct forecast forecast = {0};
    uint64_t now_ms = HOUR_MS;
    const struct sched_resources busy = {4000, 500, 0};
    use(&forecast, &now_ms, 400, 60);
    forecast_add(&forecast, &most, &busy, now_ms + HOUR_MS, MINUTE_MS);
    cr_assert_lt(mean_of(&forecast).cpu_milli, 500);
    struct sched_resources before = mean_of(&forecast);
    forecast_add(&forecast, &most, &busy, now_ms, MINUTE_MS);
    cr_assert_eq(mean_of(&forecast).cpu_milli, before.cpu_milli);
}

Test(forecast, peaks_of_many_vms_do_not_add_up)
{
    struct forecast_sum sum = {0};
    struct sched_resources total;
    const struct sched_resources mean = {1000, 100, 0}, peak = {2000, 100, 0};
    forecast_sum_total(&sum, &total);
    cr_assert_eq(total.cpu_milli, 0);
    forecast_sum_add(&sum, &mean, &peak);
    forecast_sum_total(&sum, &total);
    cr_assert_eq(total.cpu_milli, 2000, "one VM reaches its own peak");
    for (int i = 0; i < 99; i++)
        forecast_sum_add(&sum, &mean, &peak);
    forecast_sum_total(&sum, &total);
    cr_assert_eq(total.cpu_milli, 110000, "100 means and 10 times the distance");
    cr_assert_eq(total.memory_mib, 10000);
}
