/* Whole migrations between two fake guests: contents, limits, cancel, pause deadline. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sched.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/codec.h"
#include "rig.h"

struct variant {
    bool unencrypted, verify, plain_ram;
    unsigned streams;
    uint64_t pages_per_ms;
    uint64_t bandwidth_bps;
    enum migration_compress compress;
};

ParameterizedTestParameters(transfer, contents_are_equal)
{
    static struct variant variants[] = {
        {.streams = 1},
        {.streams = 2, .pages_per_ms = 20},
        {.streams = 3, .pages_per_ms = 200, .verify = true},
        {.streams = 16, .pages_per_ms = 20},
        {.streams = 2, .pages_per_ms = 200, .unencrypted = true},
        {.streams = 2, .pages_per_ms = 20, .unencrypted = true, .verify = true},
        {.streams = 2, .pages_per_ms = 20, .plain_ram = true, .verify = true},
        {.streams = 2, .pages_per_ms = 5, .bandwidth_bps = 200000000},
        {.streams = 2, .pages_per_ms = 20, .compress = MIGRATION_COMPRESS_OFF},
        {.streams = 2, .pages_per_ms = 200, .compress = MIGRATION_COMPRESS_LZ4, .verify = true},
        {.streams = 3, .pages_per_ms = 20, .compress = MIGRATION_COMPRESS_ZSTD},
        {.streams = 2,
         .pages_per_ms = 200,
         .compress = MIGRATION_COMPRESS_ZSTD,
         .unencrypted = true},
        {.streams = 1,
         .pages_per_ms = 20,
         .compress = MIGRATION_COMPRESS_LZ4,
         .unencrypted = true,
         .verify = true},
    };
    return cr_make_param_array(struct variant, variants, sizeof(variants) / sizeof(variants[0]));
}

ParameterizedTest(struct variant *variant, transfer, contents_are_equal)
{
    struct rig rig;
    rig_make(&rig);
    if (variant->plain_ram) {
        fake_guest_free(rig.from);
        rig.from = fake_guest_new(16, true);
        fake_guest_fill(rig.from, 2048);
    }
    rig.out.limits.unencrypted = rig.in.limits.unencrypted = variant->unencrypted;
    rig.out.limits.verify = rig.in.limits.verify = variant->verify;
    rig.out.limits.streams = variant->streams;
    rig.in.limits.streams = 0;
    rig.out.limits.bandwidth_bps = variant->bandwidth_bps;
    rig.out.limits.compress = variant->compress;
    if (variant->pages_per_ms)
        fake_guest_write(rig.from, 1000, variant->pages_per_ms);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    cr_assert_eq(rig.end.verified, variant->verify);
    cr_assert_eq(rig.end.encrypted, !variant->unencrypted);
    cr_assert_gt(rig.end.pages_sent, 1500 - 1);
    cr_assert_gt(rig.end.pages_zero, 2048 + 512 - 1000);
    const struct migration_pause *pause = &rig.end.pause;
    cr_assert_eq(pause->total_us, pause->stop_us + pause->last_pages_us + pause->device_state_us +
                                      pause->verify_us + pause->handover_us + pause->activate_us);
    cr_assert_gt(pause->total_us, 0);
    if (variant->bandwidth_bps) /* 6 MiB at 25 MB/s; the burst is 10 ms */
        cr_assert_gt(rig.end.elapsed_us, 230000);
    rig_free(&rig);
}

static void fill_text(struct fake_guest *fake, uint64_t pages)
{
    static const char *const words[] = {"migrate ", "the pool", " of page", "s sent  "};
    uint64_t x = 88172645463325252ull;
    for (uint64_t i = 0; i < pages * 512; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        memcpy(fake->guest.ram + i * 8, words[x >> 62], 8);
    }
}

/* 8 MiB of text at 40 Mbit/s: 1.7 s as they are. */
Test(transfer, a_slow_link_is_made_up_for_by_compression)
{
    uint64_t wire[2];
    for (unsigned i = 0; i < 2; i++) {
        struct rig rig;
        rig_make(&rig);
        fill_text(rig.from, 2048);
        rig.out.limits.bandwidth_bps = 40000000;
        rig.out.limits.compress = i == 0 ? MIGRATION_COMPRESS_OFF : MIGRATION_COMPRESS_AUTO;
        rig_start(&rig);
        rig_wait(&rig);
        rig_assert_moved(&rig);
        wire[i] = rig.end.wire_bytes;
        cr_assert_eq(rig.end.page_bytes, rig.end.pages_sent * 4096);
        cr_assert_eq(rig.end.rounds[0].page_bytes, 2048 * 4096);
        cr_assert_eq(rig.end.rounds[0].codec == CODEC_NONE, i == 0);
        rig_free(&rig);
    }
    cr_assert_lt(wire[1], wire[0] * 2 / 3);
}

/* A guest that writes a few words again and again: what is written is sent, not its pages. */
Test(transfer, pages_written_again_are_sent_as_what_changed)
{
    struct rig rig;
    uint64_t deltas = 0;
    rig_make(&rig);
    rig.out.limits.bandwidth_bps = 100000000;
    rig.out.limits.downtime_limit_ms = 80; /* so that it takes some rounds */
    fake_guest_write(rig.from, 1500, 2);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    for (unsigned i = 0; i < rig.end.rounds_count; i++) {
        cr_assert_leq(rig.end.rounds[i].pages_delta, rig.end.rounds[i].pages_sent);
        deltas += rig.end.rounds[i].pages_delta;
    }
    cr_assert_gt(deltas, 10);
    rig_free(&rig);
}

Test(transfer, holes_of_the_source_stay_holes_at_both_ends)
{
    struct rig rig;
    rig_make(&rig);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    /* Half of RAM was never written, and the pages between the filled ones cost at most one a hole.
     */
    cr_assert_lt(rig.end.wire_bytes, 1600 * 4096);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- cancel */

struct cancel_at {
    _Atomic(struct migration_source *) source; /* the hook waits for it */
    enum fake_event event;
    int result; /* of migration_source_cancel() */
};

static void cancel_hook(struct fake_guest *fake, enum fake_event event, void *context)
{
    struct cancel_at *at = context;
    struct error err = ERROR_INIT;
    if (event != at->event || atomic_load(&fake->events[event]) != 1)
        return;
    struct migration_source *source;
    while (!(source = atomic_load(&at->source)))
        sched_yield();
    at->result = migration_source_cancel(source, &err);
}

static void start_and_cancel(struct rig *rig, struct cancel_at *at)
{
    rig_make(rig);
    rig->from->hook_context = at;
    rig->from->hook = cancel_hook;
    fake_guest_write(rig->from, 500, 5);
    rig_start(rig);
    atomic_store(&at->source, rig->source);
    rig_wait(rig);
}

ParameterizedTestParameters(transfer, cancel_lets_the_guest_run_on)
{
    static enum fake_event events[] = {FAKE_DIRTY_START, FAKE_DIRTY_CLEAR, FAKE_PAUSE, FAKE_SAVE};
    return cr_make_param_array(enum fake_event, events, 4);
}

ParameterizedTest(enum fake_event *event, transfer, cancel_lets_the_guest_run_on)
{
    struct rig rig;
    struct cancel_at at = {.event = *event, .result = -1};
    start_and_cancel(&rig, &at);
    cr_assert_eq(at.result, 0);
    rig_assert_stayed(&rig);
    cr_assert_eq(rig.end.phase, MIGRATION_PHASE_CANCELLED);
    rig_free(&rig);
}

Test(transfer, cancel_after_giving_up_is_refused)
{
    struct rig rig;
    struct cancel_at at = {.event = FAKE_GIVE_UP};
    start_and_cancel(&rig, &at);
    cr_assert_eq(at.result, -1);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

Test(transfer, cancel_while_nobody_answers)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    rig_make(&rig); /* listens, but there is no target */
    rig_start_source(&rig);
    int64_t begin_ms = clock_monotonic_ms();
    cr_assert_eq(migration_source_cancel(rig.source, &err), 0);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert_eq(rig.end.phase, MIGRATION_PHASE_CANCELLED);
    cr_assert_lt(clock_monotonic_ms() - begin_ms, 2000);
    cr_assert_eq(migration_source_cancel(rig.source, &err), -1);
    cr_assert_eq(err.kind, ERROR_CONFLICT);
    rig_free(&rig);
}

Test(transfer, freeing_a_source_under_way_cancels_it)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.bandwidth_bps = 8000000; /* it would take 6 s */
    rig.in.limits.timeout_ms = 5000;        /* where it had not even said hello */
    rig_start(&rig);
    migration_source_free(rig.source);
    rig.source = NULL;
    cr_assert(!rig.from->gave_up && !rig.from->logging);
    cr_assert(!rig_wait_target(&rig, MIGRATION_TARGET_RUNNING));
    rig_free(&rig);
}

/* ---------------------------------------------------------------- what the guest cannot do */

ParameterizedTestParameters(transfer, a_failing_machine_stays_or_resumes)
{
    static enum fake_event events[] = {FAKE_DIRTY_START, FAKE_DIRTY_CLEAR, FAKE_PAUSE, FAKE_SAVE,
                                       FAKE_LOAD};
    return cr_make_param_array(enum fake_event, events, 5);
}

ParameterizedTest(enum fake_event *event, transfer, a_failing_machine_stays_or_resumes)
{
    struct rig rig;
    rig_make(&rig);
    (*event == FAKE_LOAD ? rig.to : rig.from)->fail[*event] = true;
    rig_start(&rig);
    rig_wait(&rig);
    cr_assert_eq(rig.end.phase, MIGRATION_PHASE_FAILED);
    cr_assert(strstr(rig.end.text, "the test wants it so"), "%s", rig.end.text);
    cr_assert(!rig.from->gave_up && !atomic_load(&rig.from->stopped));
    cr_assert(!rig.to->running);
    rig_free(&rig);
}

Test(transfer, a_target_that_cannot_run_leaves_the_decision_to_others)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    rig_make(&rig);
    rig.to->fail[FAKE_RUN] = true;
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_IN_DOUBT);
    cr_assert(rig.from->gave_up);
    cr_assert(rig_wait_target(&rig, MIGRATION_TARGET_FAILED));
    cr_assert_eq(migration_target_discard(rig.target, &err), 0); /* it never ran */
    rig_free(&rig);
}

/* ---------------------------------------------------------------- deadline of the pause */

static void slow_first_load(struct fake_guest *fake, enum fake_event event, void *context)
{
    (void)context;
    if (event != FAKE_LOAD || atomic_load(&fake->events[event]) > 1)
        return;
    struct timespec slow = {.tv_nsec = 400000000};
    nanosleep(&slow, NULL);
}

Test(transfer, a_pause_over_its_limit_is_taken_back_and_tried_again)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.downtime_limit_ms = rig.in.limits.downtime_limit_ms = 150;
    rig.to->hook = slow_first_load;
    fake_guest_write(rig.from, 800, 20);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    cr_assert_eq(rig.end.pauses_failed, 1);
    cr_assert_eq(atomic_load(&rig.from->events[FAKE_RESUME]), 1);
    cr_assert_lt(rig.from->longest_pause_ns, 300000000, "paused for %lld ns",
                 (long long)rig.from->longest_pause_ns);
    rig_free(&rig);
}

static void slow_load(struct fake_guest *fake, enum fake_event event, void *context)
{
    (void)context;
    (void)fake;
    struct timespec slow = {.tv_nsec = 100000000};
    if (event == FAKE_LOAD)
        nanosleep(&slow, NULL);
}

Test(transfer, a_target_always_too_slow_ends_the_migration)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.downtime_limit_ms = rig.in.limits.downtime_limit_ms = 30;
    rig.to->hook = slow_load;
    fake_guest_write(rig.from, 100, 1);
    rig_start(&rig);
    rig_wait(&rig);
    rig_assert_stayed(&rig);
    cr_assert_eq(rig.end.phase, MIGRATION_PHASE_FAILED);
    cr_assert_eq(rig.end.error == ERROR_TIMEOUT || rig.end.error == ERROR_FAILED, 1);
    cr_assert_leq(rig.end.pauses_failed, 5);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- options */

Test(transfer, wrong_options_are_refused)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    rig_make(&rig);
    rig.out.next_epoch = rig.out.epoch;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    cr_assert_eq(err.kind, ERROR_USAGE);
    rig.out.next_epoch = 5;
    rig.out.limits.streams = 17;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    rig.out.limits.streams = 2;
    rig.out.limits.compress = MIGRATION_COMPRESS_ZSTD + 1;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    rig.out.limits.compress = MIGRATION_COMPRESS_AUTO;
    rig.from->guest.ram_bytes -= 1;
    cr_assert_null(migration_source_start(&rig.from->guest, &rig.out, &err));
    rig.from->guest.ram_bytes += 1;
    rig_free(&rig);
}

Test(transfer, an_unreachable_target_is_a_clean_failure)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.port = 1; /* nobody listens there */
    rig_start_source(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert_eq(rig.end.error, ERROR_UNREACHABLE, "%s", rig.end.text);
    cr_assert(!rig.from->logging);
    rig_free(&rig);
}

Test(transfer, the_dirty_rate_is_sampled)
{
    struct rig rig;
    struct error err = ERROR_INIT;
    struct migration_dirty_sample sample = {0};
    rig_make(&rig);
    fake_guest_write(rig.from, 1000, 2);
    cr_assert_eq(migration_sample_dirty(&rig.from->guest, 500, &sample, &err), 0);
    cr_assert_gt(sample.pages_per_second, 200);
    cr_assert_lt(sample.pages_per_second, 2500);
    cr_assert_gt(sample.set_pages, 100);
    cr_assert_leq(sample.set_pages, 1000);
    cr_assert(!rig.from->logging);
    rig_free(&rig);
}
