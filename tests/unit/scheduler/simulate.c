#include "scheduler/simulate.h"

#include <criterion/criterion.h>
#include <string.h>

static struct sim_arrival vm(uint64_t at_s, uint64_t lifetime_s, uint64_t cpus, uint64_t mib)
{
    return (struct sim_arrival){at_s, lifetime_s, {cpus * 1000, mib, 0}, NULL};
}

static struct sim_result run(const struct sim_config *config, const struct sim_arrival *arrivals,
                             size_t count)
{
    struct error err = ERROR_INIT;
    struct sim_result result;
    cr_assert_eq(simulate(config, arrivals, count, &result, &err), 0, "%s", err.text);
    return result;
}

static const struct sim_config growing = {.host = {4000, 1000, 1000}};

Test(simulate, grows_by_a_host_where_none_fits_and_reuses_empty_ones)
{
    const struct sim_arrival arrivals[] = {
        vm(0, 10, 1, 600),
        vm(0, 20, 1, 600),
        vm(5, SIM_STAYS, 1, 400),
        vm(15, SIM_STAYS, 1, 600),
    };
    struct sim_result result = run(&growing, arrivals, 4);
    cr_assert_eq(result.placed, 4);
    cr_assert_eq(result.hosts, 2);
    cr_assert_eq(result.peak_hosts, 2);
    cr_assert_eq(result.peak_at_s, 0);
    cr_assert_eq(result.lower_bound, 2, "1600 of 1000 MiB at second 5");
    sim_result_free(&result);
}

Test(simulate, who_leaves_at_a_second_makes_room_for_who_comes_then)
{
    const struct sim_arrival arrivals[] = {vm(0, 300, 1, 1000), vm(300, 300, 1, 1000),
                                           vm(600, 0, 1, 1000), vm(600, 1, 1, 1000)};
    struct sim_result result = run(&growing, arrivals, 4);
    cr_assert_eq(result.peak_hosts, 1);
    sim_result_free(&result);
}

Test(simulate, counts_what_a_fixed_pool_refuses)
{
    struct sim_config fixed = growing;
    fixed.host_count = 1;
    const struct sim_arrival arrivals[] = {vm(0, 10, 1, 600), vm(5, 10, 1, 600), vm(12, 10, 1, 600),
                                           vm(13, 10, 5, 1)};
    struct sim_result result = run(&fixed, arrivals, 4);
    cr_assert_eq(result.placed, 2);
    cr_assert_eq(result.refused, 2);
    cr_assert_eq(result.lower_bound, 0);
    sim_result_free(&result);
}

Test(simulate, refuses_what_no_host_could_hold_without_growing)
{
    const struct sim_arrival arrivals[] = {vm(0, 10, 1, 1001)};
    struct sim_result result = run(&growing, arrivals, 1);
    cr_assert_eq(result.refused, 1);
    cr_assert_eq(result.hosts, 0);
    sim_result_free(&result);
}

Test(simulate, samples_show_hosts_in_use_and_what_is_stranded)
{
    struct sim_config config = growing;
    config.sample_s = 10;
    const struct sim_arrival arrivals[] = {vm(0, 15, 1, 1000), vm(1, SIM_STAYS, 1, 1000),
                                           vm(12, SIM_STAYS, 1, 1), vm(30, SIM_STAYS, 1, 1)};
    struct sim_result result = run(&config, arrivals, 4);
    cr_assert_eq(result.sample_count, 3, "at 0, 12 and 30: found %zu", result.sample_count);
    const struct sim_sample *sample = &result.samples[1];
    cr_assert_eq(sample->time_s, 12);
    cr_assert_eq(sample->vms, 2);
    cr_assert_eq(sample->hosts_used, 2);
    cr_assert_float_eq(sample->load[1], 1.0, 1e-9);
    cr_assert_float_eq(sample->stranded[0], 0.75, 1e-9, "CPU beside full memory");
    sample = &result.samples[2];
    cr_assert_eq(sample->hosts_empty, 1);
    sim_result_free(&result);
}

Test(simulate, many_departures_leave_in_order)
{
    enum { COUNT = 2000 };
    static struct sim_arrival arrivals[COUNT];
    for (uint64_t i = 0; i < COUNT; i++)
        arrivals[i] = vm(i, (i * 7919) % 501, 1, 1);
    struct sim_config config = growing;
    config.host = (struct sched_resources){1000000, 1000000, 1};
    struct sim_result result = run(&config, arrivals, COUNT);
    /* The demand at its highest, counted the plain way. */
    size_t most = 0;
    for (uint64_t now = 0; now < COUNT; now++) {
        size_t alive = 0;
        for (uint64_t i = 0; i <= now; i++)
            alive += i == now || arrivals[i].arrival_s + arrivals[i].lifetime_s > now;
        most = alive > most ? alive : most;
    }
    cr_assert_float_eq(result.bound[1], (double)most / 1000000, 1e-12);
    sim_result_free(&result);
}

/* Sizes tell nothing, tenants all. */
static struct sim_result two_tenants(bool known)
{
    enum { COUNT = 8000 };
    static struct sim_arrival arrivals[COUNT];
    for (uint64_t i = 0; i < COUNT; i++) {
        bool stays = i * 7 % 10 < 3;
        arrivals[i] = vm(i * 60, stays ? 86400 : 3600, 1, 64);
        arrivals[i].tenant = !known ? NULL : stays ? "days" : "hours";
    }
    struct sim_config config = growing;
    config.scheduler.policy = SCHED_BEST;
    config.host = (struct sched_resources){64000, 1024, 1000};
    return run(&config, arrivals, COUNT);
}

Test(simulate, places_by_lifetimes_once_they_are_foreseen)
{
    struct sim_result known = two_tenants(true), blind = two_tenants(false);
    cr_assert_gt(known.lifetimes_explained, 0.9, "%f", known.lifetimes_explained);
    cr_assert_gt(known.placed_by_lifetime, 1000);
    cr_assert_lt(known.placed_by_lifetime, known.placed, "not before anybody left");
    cr_assert_lt(blind.lifetimes_explained, 0.1);
    cr_assert_eq(blind.placed_by_lifetime, 0);
    sim_result_free(&known);
    sim_result_free(&blind);
}
