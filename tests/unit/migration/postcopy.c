/* Post-copy between two fake guests: pages on demand, the link lost and found, the ends that die.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "rig.h"

static void rest_ms(unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* A guest that rewrites 2000 pages, and a target that can do post-copy. */
static void make(struct rig *rig, enum migration_mode mode, uint64_t bandwidth_bps)
{
    rig_make(rig);
    fake_guest_watch(rig->to);
    rig->out.limits.mode = rig->in.limits.mode = mode;
    rig->out.limits.bandwidth_bps = bandwidth_bps;
    fake_guest_write(rig->from, 2000, 200);
}

/* Reads all of the target's RAM as a guest does, from the last page on, and compares it: waits for
 * what is lacking. */
static void compare_on_demand(struct rig *rig)
{
    uint64_t pages = rig->from->guest.ram_bytes / 4096;
    for (uint64_t page = pages; page-- > 0;)
        cr_assert_eq(
            memcmp(rig->from->guest.ram + page * 4096, rig->to->guest.ram + page * 4096, 4096), 0,
            "page %llu differs", (unsigned long long)page);
}

Test(postcopy, a_round_then_the_guest_runs_and_the_rest_follows)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 100000000);
    rig_start(&rig);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_POSTCOPY));
    cr_assert(rig.to->running && rig.from->gave_up);
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    struct migration_progress progress;
    migration_target_progress(rig.target, &progress, NULL);
    cr_assert_gt(progress.postcopy.faults, 0);
    cr_assert_gt(progress.postcopy.fault_max_us, 0);
    cr_assert_geq(progress.postcopy.fault_max_us, progress.postcopy.fault_mean_us);
    cr_assert_eq(progress.remaining_bytes, 0);
    rig_free(&rig);
}

Test(postcopy, unencrypted_and_with_many_streams)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 200000000);
    rig.out.limits.unencrypted = rig.in.limits.unencrypted = true;
    rig.out.limits.streams = rig.in.limits.streams = 5;
    rig_start(&rig);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_POSTCOPY));
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(postcopy, one_stream_ordered_of_both_ends_is_two)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 200000000);
    rig.out.limits.streams = rig.in.limits.streams = 1;
    rig_start(&rig);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_POSTCOPY));
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(postcopy, untouched_pages_come_by_themselves)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 0);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(postcopy, auto_chooses_it_where_pre_copy_does_not_converge)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_AUTO, 30000000);
    rig.out.limits.downtime_limit_ms = 100;
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    cr_assert_gt(rig.end.elapsed_us, 1000000);
    cr_assert_lt(rig.end.elapsed_us, 9000000, "it took %llu us, more than the diverging rounds",
                 (unsigned long long)rig.end.elapsed_us);
    cr_assert_lt(rig.end.pause.total_us, 100000);
    rig_free(&rig);
}

Test(postcopy, auto_does_without_where_pre_copy_converges)
{
    struct rig rig;
    rig_make(&rig);
    fake_guest_watch(rig.to);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    struct migration_progress progress;
    migration_target_progress(rig.target, &progress, NULL);
    cr_assert_eq(progress.postcopy.faults, 0);
    rig_free(&rig);
}

struct without {
    bool verify, no_postcopy, no_uffd;
    enum migration_mode mode;
};

ParameterizedTestParameters(postcopy, auto_does_without_where_it_must)
{
    static struct without withouts[] = {
        {.verify = true},
        {.no_postcopy = true},
        {.no_uffd = true},
        {.mode = MIGRATION_MODE_PRECOPY},
    };
    return cr_make_param_array(struct without, withouts, sizeof(withouts) / sizeof(withouts[0]));
}

ParameterizedTest(struct without *without, postcopy, auto_does_without_where_it_must)
{
    struct rig rig;
    make(&rig, without->mode, 30000000);
    rig.out.limits.verify = rig.in.limits.verify = without->verify;
    rig.out.limits.no_postcopy = without->no_postcopy;
    rig.out.limits.downtime_limit_ms = 10;
    rig.out.limits.timeout_ms = 5000;
    if (without->no_uffd) {
        close(rig.to->guest.uffd);
        rig.to->guest.uffd = -1;
    }
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    rig_assert_stayed(&rig);
    rig_free(&rig);
}

Test(postcopy, demanded_where_it_cannot_be_is_refused)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    make(&rig, MIGRATION_MODE_POSTCOPY, 0);
    rig.out.limits.verify = true;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    cr_assert_eq(err.kind, ERROR_USAGE);
    rig.out.limits.verify = false;
    rig.out.limits.no_postcopy = true;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    cr_assert_eq(err.kind, ERROR_USAGE);
    rig.out.limits.no_postcopy = false;
    close(rig.to->guest.uffd);
    rig.to->guest.uffd = -1;
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert(strstr(rig.end.text, "cannot do post-copy"), "%s", rig.end.text);
    rig_assert_stayed(&rig);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- the pause taken back */

/* The first pause takes too long. */
static void slow_hook(struct fake_guest *fake, enum fake_event event, void *context)
{
    (void)context;
    if (event == FAKE_LOAD && atomic_load(&fake->events[FAKE_LOAD]) == 1)
        rest_ms(1500);
}

Test(postcopy, a_pause_over_its_limit_is_taken_back_and_tried_again)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 100000000);
    rig.out.limits.downtime_limit_ms = 1200;
    rig.to->hook = slow_hook;
    rig_start(&rig);
    rig_wait(&rig);
    cr_assert_eq(rig.end.pauses_failed, 1);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

/* The load of the state touches pages that are lacking, again and again. */
static void touch_hook(struct fake_guest *fake, enum fake_event event, void *context)
{
    volatile uint8_t sum = 0;
    slow_hook(fake, event, context);
    for (uint64_t page = 0; event == FAKE_LOAD && page < 2000; page += 100)
        sum = (uint8_t)(sum + fake->guest.ram[page * 4096]);
}

Test(postcopy, the_load_may_touch_what_is_lacking)
{
    struct rig rig;
    make(&rig, MIGRATION_MODE_POSTCOPY, 50000000);
    rig.out.limits.downtime_limit_ms = 1200; /* what it touches comes over a slow link */
    rig.to->hook = touch_hook;
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    cr_assert_geq(atomic_load(&rig.to->events[FAKE_LOAD]), 2);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- links */

static void start_slow(struct rig *rig)
{
    make(rig, MIGRATION_MODE_POSTCOPY, 20000000);
    rig_add_proxy(rig);
    rig_start(rig);
    cr_assert(rig_wait_target(rig, MIGRATION_TARGET_POSTCOPY));
}

static uint64_t lacking(struct rig *rig)
{
    struct migration_progress progress;
    migration_target_progress(rig->target, &progress, NULL);
    return progress.remaining_bytes;
}

static void wait_held(struct rig *rig, bool held)
{
    int64_t until_ms = clock_monotonic_ms() + 20000;
    while (atomic_load(&rig->to->held) != held) {
        cr_assert_lt(clock_monotonic_ms(), until_ms, "the guest was not %s in time",
                     held ? "held" : "let go");
        rest_ms(5);
    }
}

Test(postcopy, a_link_lost_holds_the_guest_until_it_is_there_again)
{
    struct rig rig;
    struct migration_progress progress;
    start_slow(&rig);
    rig_link(&rig, LINK_CUT);
    wait_held(&rig, true);
    migration_target_progress(rig.target, &progress, NULL);
    cr_assert(strstr(progress.text, "paused"), "%s", progress.text);
    cr_assert_gt(lacking(&rig), 0);
    rest_ms(500);
    cr_assert_eq(migration_source_cancel(rig.source, &(struct error)ERROR_INIT), -1);
    rig_link(&rig, LINK_UP);
    wait_held(&rig, false);
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    cr_assert_geq(rig.end.postcopy.links_lost, 1);
    rig_free(&rig);
}

Test(postcopy, a_link_that_is_lost_again_and_again_loses_nothing)
{
    struct rig rig;
    start_slow(&rig);
    for (unsigned i = 0; i < 3; i++) {
        rig_link(&rig, LINK_CUT);
        wait_held(&rig, true);
        rig_link(&rig, LINK_UP);
        wait_held(&rig, false);
        rest_ms(100);
    }
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(postcopy, a_silent_link_counts_as_lost)
{
    struct rig rig;
    start_slow(&rig);
    rig_link(&rig, LINK_HELD);
    wait_held(&rig, true);
    rig_link(&rig, LINK_UP);
    wait_held(&rig, false);
    compare_on_demand(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

ParameterizedTestParameters(postcopy, a_lost_word_is_said_again)
{
    static char faults[][40] = {"source.gave-up=drop", "target.running=drop"};
    return cr_make_param_array(char[40], faults, 2);
}

/* The link breaks with the word; in pre-copy the controller would have to decide. */
ParameterizedTest(char (*fault)[40], postcopy, a_lost_word_is_said_again)
{
    struct rig rig;
    setenv("VMPOOL_FAULTS", *fault, 1);
    make(&rig, MIGRATION_MODE_POSTCOPY, 50000000);
    rig.out.limits.stall_timeout_ms = 3000;
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- the end of an end */

Test(postcopy, memory_lost_with_the_source_is_said)
{
    struct rig rig;
    struct migration_progress progress;
    make(&rig, MIGRATION_MODE_POSTCOPY, 20000000);
    rig.in.limits.recovery_timeout_ms = 500;
    rig_start(&rig);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_POSTCOPY));
    migration_source_free(rig.source);
    rig.source = NULL;
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_FAILED));
    migration_target_progress(rig.target, &progress, NULL);
    cr_assert(atomic_load(&rig.to->held), "a guest without its memory must not run");
    cr_assert_eq(progress.outcome, MIGRATION_OUTCOME_LOST);
    cr_assert_eq(progress.phase, MIGRATION_PHASE_POSTCOPY);
    cr_assert(strstr(progress.text, "memory was lost"), "%s", progress.text);
    cr_assert_gt(progress.remaining_bytes, 0);
    rig_free(&rig);
}

Test(postcopy, orders_find_a_guest_that_runs)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    start_slow(&rig);
    cr_assert_eq(migration_target_discard(rig.target, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), 0, "a repeat is harmless");
    cr_assert_eq(migration_target_run(rig.target, 6, &err), -1);
    rig_free(&rig); /* both ends leave in the middle of it */
}
