/* The handover under faults: messages lost, links held and cut, orders from outside. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "rig.h"

/* ---------------------------------------------------------------- lost words */

static void make_with_faults(struct rig *rig, const char *faults)
{
    setenv("VMPOOL_FAULTS", faults, 1);
    rig_make(rig);
    rig->out.limits.stall_timeout_ms = rig->in.limits.stall_timeout_ms = 2000;
    fake_guest_write(rig->from, 500, 5);
    rig_start(rig);
}

Test(handover, without_go_the_target_waits_and_an_order_lets_it_run)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    make_with_faults(&rig, "source.gave-up=drop");
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert_eq(rig.end.phase, MIGRATION_PHASE_HANDOVER);
    cr_assert(rig.from->gave_up);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_READY));
    cr_assert(!rig.to->running);
    cr_assert_eq(migration_target_run(rig.target, 4, &err), -1); /* an old epoch */
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), 0);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), 0, "a repeat is harmless");
    cr_assert_eq(migration_target_run(rig.target, 6, &err), -1);
    cr_assert_eq(migration_target_discard(rig.target, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    cr_assert_eq(atomic_load(&rig.to->events[FAKE_RUN]), 1);
    fake_guest_assert_equal(rig.from, rig.to);
    rig_free(&rig);
}

Test(handover, without_go_the_target_can_be_discarded_for_good)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    make_with_faults(&rig, "source.gave-up=drop");
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert_eq(migration_target_discard(rig.target, &err), 0);
    cr_assert_eq(migration_target_discard(rig.target, &err), 0);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), -1);
    cr_assert_eq(atomic_load(&rig.to->events[FAKE_RUN]), 0);
    rig_free(&rig);
}

Test(handover, go_lost_at_the_target_is_as_go_not_sent)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    make_with_faults(&rig, "target.go=drop");
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert(!rig.to->running);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), 0);
    rig_free(&rig);
}

Test(handover, the_targets_word_lost_leaves_it_running)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    make_with_faults(&rig, "target.running=drop");
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert(rig.from->gave_up);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_RUNNING));
    cr_assert_eq(migration_target_discard(rig.target, &err), -1);
    fake_guest_assert_equal(rig.from, rig.to);
    rig_free(&rig);
}

Test(handover, ready_lost_resumes_the_source_at_the_deadline)
{
    struct rig rig;
    setenv("VMPOOL_FAULTS", "target.ready=drop", 1);
    rig_make(&rig);
    rig.out.limits.downtime_limit_ms = 100;
    fake_guest_write(rig.from, 100, 1);
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    rig_assert_stayed(&rig);
    cr_assert_gt(rig.end.pauses_failed, 0);
    cr_assert_lt(rig.from->longest_pause_ns, 250000000);
    rig_free(&rig);
}

Test(handover, state_lost_resumes_the_source_and_may_be_sent_again)
{
    struct rig rig;
    setenv("VMPOOL_FAULTS", "source.state=drop", 1);
    rig_make(&rig);
    rig.out.limits.downtime_limit_ms = 100;
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    rig_assert_stayed(&rig);
    cr_assert_gt(rig.end.pauses_failed, 0, "%s", rig.end.text);
    cr_assert_eq(atomic_load(&rig.to->events[FAKE_LOAD]), 0);
    rig_free(&rig);
}

Test(handover, a_lost_end_of_round_is_a_stall)
{
    struct rig rig;
    make_with_faults(&rig, "target.round-done=drop");
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert_eq(rig.end.error, ERROR_TIMEOUT, "%s", rig.end.text);
    rig_assert_stayed(&rig);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- links */

struct link_at {
    struct rig *rig;
    enum fake_event event;
    enum rig_link link;
};

static void link_hook(struct fake_guest *fake, enum fake_event event, void *context)
{
    struct link_at *at = context;
    if (event != at->event || atomic_load(&fake->events[event]) > 1)
        return;
    rig_link(at->rig, at->link);
    struct timespec heard = {.tv_nsec = 20000000}; /* the proxy looks every 2 ms */
    nanosleep(&heard, NULL);
}

static void start_with_link(struct rig *rig, struct link_at *at, bool at_target)
{
    rig_make(rig);
    rig_add_proxy(rig);
    at->rig = rig;
    struct fake_guest *fake = at_target ? rig->to : rig->from;
    fake->hook_context = at;
    fake->hook = link_hook;
    rig->out.limits.downtime_limit_ms = 200;
    rig->out.limits.stall_timeout_ms = 1500;
    fake_guest_write(rig->from, 500, 5);
    rig_start(rig);
}

ParameterizedTestParameters(handover, a_link_cut_before_giving_up_leaves_the_guest_here)
{
    static struct link_at at[] = {
        {.event = FAKE_DIRTY_START, .link = LINK_CUT},
        {.event = FAKE_DIRTY_CLEAR, .link = LINK_CUT},
        {.event = FAKE_PAUSE, .link = LINK_CUT},
        {.event = FAKE_SAVE, .link = LINK_CUT},
        {.event = FAKE_PAUSE, .link = LINK_HELD},
        {.event = FAKE_DIRTY_CLEAR, .link = LINK_HELD},
    };
    return cr_make_param_array(struct link_at, at, sizeof(at) / sizeof(at[0]));
}

ParameterizedTest(struct link_at *at, handover, a_link_cut_before_giving_up_leaves_the_guest_here)
{
    struct rig rig;
    start_with_link(&rig, at, false);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert(!rig.from->gave_up && !atomic_load(&rig.from->stopped));
    cr_assert_lt(rig.from->longest_pause_ns, 350000000);
    cr_assert(!rig.to->running);
    rig_link(&rig, LINK_CUT); /* a held link would leave the target waiting */
    cr_assert(!rig_wait_target(&rig, MIGRATION_TARGET_RUNNING));
    rig_free(&rig);
}

ParameterizedTestParameters(handover, a_link_cut_after_giving_up_never_makes_two)
{
    static struct link_at at[] = {
        {.event = FAKE_GIVE_UP, .link = LINK_CUT},
        {.event = FAKE_GIVE_UP, .link = LINK_HELD},
    };
    return cr_make_param_array(struct link_at, at, sizeof(at) / sizeof(at[0]));
}

ParameterizedTest(struct link_at *at, handover, a_link_cut_after_giving_up_never_makes_two)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    start_with_link(&rig, at, false);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert(rig.from->gave_up && atomic_load(&rig.from->stopped));
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_READY));
    cr_assert(!rig.to->running);
    cr_assert_eq(migration_target_discard(rig.target, &err), 0);
    rig_link(&rig, LINK_UP); /* now GO arrives, late */
    cr_assert(!rig_wait_target(&rig, MIGRATION_TARGET_RUNNING));
    cr_assert(!rig.to->running);
    rig_free(&rig);
}

Test(handover, a_link_cut_while_the_target_runs_leaves_it_running)
{
    struct rig rig;
    struct link_at at = {.event = FAKE_RUN, .link = LINK_CUT};
    start_with_link(&rig, &at, true);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_RUNNING));
    fake_guest_assert_equal(rig.from, rig.to);
    rig_free(&rig);
}

static void *heal_later(void *context)
{
    struct rig *rig = context;
    struct timespec wait = {.tv_nsec = 700000000};
    nanosleep(&wait, NULL);
    rig_link(rig, LINK_UP);
    return NULL;
}

ParameterizedTestParameters(handover, a_link_that_comes_back_in_time_goes_on)
{
    static enum fake_event events[] = {FAKE_DIRTY_CLEAR, FAKE_PAUSE, FAKE_SAVE};
    return cr_make_param_array(enum fake_event, events, 3);
}

ParameterizedTest(enum fake_event *event, handover, a_link_that_comes_back_in_time_goes_on)
{
    struct rig rig;
    pthread_t healer;
    struct link_at at = {.event = *event, .link = LINK_HELD};
    start_with_link(&rig, &at, false);
    while (atomic_load(&rig.from->events[*event]) == 0) {
        struct timespec wait = {.tv_nsec = 1000000};
        nanosleep(&wait, NULL);
    }
    cr_assert_eq(pthread_create(&healer, NULL, heal_later, &rig), 0);
    rig_wait(&rig);
    pthread_join(healer, NULL);
    rig_assert_moved(&rig);
    cr_assert_lt(rig.from->longest_pause_ns, 350000000);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- orders at other times */

Test(handover, an_early_order_to_run_is_refused)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    rig_make(&rig);
    rig_start_target(&rig);
    cr_assert_eq(migration_target_run(rig.target, 5, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    rig_start_source(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(handover, discarding_the_target_under_way_fails_the_source_cleanly)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    rig_make(&rig);
    rig.out.limits.bandwidth_bps = 16000000;
    rig_start(&rig);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_INCOMING));
    cr_assert_eq(migration_target_discard(rig.target, &err), 0);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert(strstr(rig.end.text, "discarded"), "%s", rig.end.text);
    rig_assert_stayed(&rig);
    rig_free(&rig);
}

Test(handover, a_target_nobody_connects_to_gives_up_waiting)
{
    struct rig rig;
    rig_make(&rig);
    rig.in.limits.stall_timeout_ms = 1; /* it may be prepared long before its turn comes */
    rig.in.limits.timeout_ms = 300;
    rig_start_target(&rig);
    int64_t begin_ms = clock_monotonic_ms();
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_FAILED));
    cr_assert_geq(clock_monotonic_ms() - begin_ms, 250);
    rig_free(&rig);
}
