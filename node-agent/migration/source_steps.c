/*
 * source_steps.c: the source of a migration, as a table of steps.
 *
 *   CONNECT --> ROUND --> DECIDE --> PAUSE --> LAST --> GIVE_UP --> HANDOVER --> (end)
 *                 ^        |  |       ^         |                    |  ^          ^
 *                 +--------+  +-DROP--+         | deadline passed    |  |          |
 *                 +----------- RETRACT <--------+                    v  |          |
 *                                                 link lost: RECONNECT <---- SERVE-+
 *
 * Post-copy goes by DROP before the pause, and by SERVE after the handover: see source_postcopy.c.
 *
 * Every step may fail, and cancel is heard in every step before GIVE_UP: then the guest runs on
 * here and the end is FAILED or CANCELLED. GIVE_UP is the point of no return; after it the end is
 * COMPLETED or IN_DOUBT. One thread takes the steps; the page streams (page_sender.h) only send.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/memory_hash.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_postcopy.h"

#define WORD_TIMEOUT_NS  10000000000 /* from GO to RUNNING; then the controller must decide */
#define ANNOUNCE_WAIT_NS 1000000000
#define GOODBYE_NS       1000000000 /* for CANCEL to leave */
#define PAUSES_MAX       5u         /* that led to nothing, before giving up */
#define FIXED_US         2000u      /* first guess of a pause without its pages */
#define SPEED_BYTES      1048576u   /* on the wire; a smaller round says nothing of its speed */
#define VERIFY_MARGIN_NS 100000000
#define HASH_THREADS     2u

enum step {
    STEP_CONNECT,
    STEP_ROUND,
    STEP_DECIDE,
    STEP_PAUSE,
    STEP_LAST,
    STEP_RETRACT,
    STEP_GIVE_UP,
    STEP_HANDOVER,
    STEP_DROP,
    STEP_SERVE,
    STEP_RECONNECT,
    STEP_END,
    STEP_FAIL, /* @err is set */
};

/* ---------------------------------------------------------------- reporting */

void source_report_counters(struct migration_source *source)
{
    uint64_t sent = atomic_load(&source->sender.pages_sent);
    uint64_t zero = atomic_load(&source->sender.pages_zero);
    uint64_t done = sent + zero - source->round_sent - source->round_zero;
    uint64_t left = source->remaining > done ? source->remaining - done : 0;
    if (source->postcopy)
        left = supply_left(&source->supply);
    struct migration_progress *progress = report_edit(&source->report);
    progress->wire_bytes = source->bytes_before + page_sender_bytes(&source->sender) +
                           atomic_load(&source->control.sent);
    progress->pages_sent = sent;
    progress->pages_zero = zero;
    progress->page_bytes = sent * PAGE_BYTES;
    progress->remaining_bytes = left * PAGE_BYTES;
    progress->round = source->round;
    report_done(&source->report);
}

/* ---------------------------------------------------------------- pre-copy */

static enum step step_connect(struct migration_source *source, struct error *err)
{
    fault_point("source.connect");
    source->last_progress_ns = clock_monotonic_ns();
    if (source_greet(source, &source->control, 0, err) < 0)
        return STEP_FAIL;
    source->greeted = true;
    if (source_check_target(source, err) < 0)
        return STEP_FAIL;
    for (unsigned i = 0; i < source->options.limits.streams; i++) {
        source->sender.count = i + 1;
        if (source_greet(source, &source->sender.streams[i].channel, i + 1, err) < 0)
            return STEP_FAIL;
    }
    if (page_sender_start(&source->sender, err) < 0)
        return STEP_FAIL;
    fault_point("source.log");
    if (source->guest.ops->dirty_start(source->guest.self, err) < 0)
        return STEP_FAIL;
    source->logging = true;
    source->remaining = source->guest.ram_bytes / PAGE_BYTES;
    bitmap_fill(source->bitmap, source->remaining);
    report_phase(&source->report, MIGRATION_PHASE_PRECOPY);
    return STEP_ROUND;
}

static void begin_round(struct migration_source *source)
{
    source->round++;
    source->round_ns = clock_monotonic_ns();
    source->round_bytes = page_sender_bytes(&source->sender);
    source->round_sent = atomic_load(&source->sender.pages_sent);
    source->round_zero = atomic_load(&source->sender.pages_zero);
    struct page_round round = {.number = source->round,
                               .bitmap = source->bitmap,
                               .clear = !source->paused,
                               .first = source->round == 1};
    page_sender_begin_round(&source->sender, &round);
}

/* How the pages of the round were encoded. */
static void count_codecs(struct migration_source *source, struct migration_round *round)
{
    uint64_t most = 0;
    for (unsigned codec = 0; codec < CODECS; codec++) {
        uint64_t pages = atomic_load(&source->sender.pages_by[codec]);
        uint64_t now = pages - source->round_by[codec];
        source->round_by[codec] = pages;
        if (codec == CODEC_DELTA)
            round->pages_delta = now;
        if (now > most) {
            most = now;
            round->codec = (uint8_t)codec;
        }
    }
    round->page_bytes = round->pages_sent * PAGE_BYTES;
}

/* The round is with the target: takes its statistics and collects what was dirtied meanwhile. */
static struct migration_round count_round(struct migration_source *source)
{
    struct migration_round round = {
        .number = source->round,
        .pages_sent = atomic_load(&source->sender.pages_sent) - source->round_sent,
        .pages_zero = atomic_load(&source->sender.pages_zero) - source->round_zero,
        .wire_bytes = page_sender_bytes(&source->sender) - source->round_bytes,
        .duration_us = (uint64_t)(clock_monotonic_ns() - source->round_ns) / 1000 + 1,
    };
    count_codecs(source, &round);
    return round;
}

static int end_round(struct migration_source *source, struct error *err)
{
    struct migration_round round = count_round(source);
    uint64_t us = round.duration_us;
    uint64_t pages = source->guest.ram_bytes / PAGE_BYTES;
    memset(source->bitmap, 0, bitmap_words(pages) * sizeof(*source->bitmap));
    if (source->guest.ops->dirty_sync(source->guest.self, source->bitmap, err) < 0)
        return error_wrap(err, "cannot read the dirty log");
    hot_collect(source);
    round.dirtied_pages = bitmap_count(source->bitmap, pages);
    source->remaining = round.dirtied_pages;
    source->round_sent += round.pages_sent;
    source->round_zero += round.pages_zero;
    /* Of pages, not of what they were encoded to: dirty memory is counted in pages, too. */
    link_model_note(&source->link, round.page_bytes, us);
    report_add_round(&source->report, &round);
    struct migration_progress *progress = report_edit(&source->report);
    uint64_t dirty = round.dirtied_pages * 1000000 / us;
    if (source->round == 1 && dirty < source->hot.pages_per_second)
        dirty = source->hot.pages_per_second;
    progress->dirty_bps = dirty * PAGE_BYTES * 8;
    if (round.wire_bytes >= SPEED_BYTES || progress->bandwidth_bps == 0)
        progress->bandwidth_bps = round.wire_bytes * 8 * 1000000 / us;
    report_done(&source->report);
    source_report_counters(source);
    return 0;
}

static enum step step_round(struct migration_source *source, struct error *err)
{
    fault_point("source.round");
    begin_round(source);
    if (source_wait(source, SOURCE_ROUND_DONE, 0, err) < 0 || end_round(source, err) < 0)
        return STEP_FAIL;
    return STEP_DECIDE;
}

static enum step give_up_text(struct migration_source *source, const struct policy_input *input,
                              const struct policy_output *output, struct error *err)
{
    if (output->reason == POLICY_REASON_TIMEOUT)
        error_set(err, ERROR_TIMEOUT, "not done within %llu s: allow it more time",
                  (unsigned long long)source->options.limits.timeout_ms / 1000);
    else
        error_set(
            err, ERROR_FAILED,
            "the guest dirties %llu Mbit/s and the link carries %llu: the pause would stay at "
            "%llu ms, the limit is %llu; raise the limit or slow the guest",
            (unsigned long long)input->dirty * 8 / 1000000,
            (unsigned long long)input->bandwidth * 8 / 1000000,
            (unsigned long long)output->predicted_pause_us / 1000,
            (unsigned long long)input->limit_us / 1000);
    return STEP_FAIL;
}

/* A pause without its pages: the latency of the last round, the state saved here and loaded there
 * as the target rehearsed it, and the words READY and GO. */
static uint64_t fixed_us(const struct migration_source *source)
{
    return FIXED_US + source->link.latency_us + source->rehearsed_us + 2 * source->rtt_us;
}

static int slow_down(struct migration_source *source, uint32_t percent, struct error *err)
{
    if (percent == source->throttle_percent)
        return 0;
    if (source->guest.ops->throttle(source->guest.self, percent, err) < 0)
        return error_wrap(err, "cannot slow the guest");
    source->throttle_percent = percent;
    report_edit(&source->report)->throttle_percent = percent;
    report_done(&source->report);
    return 0;
}

static enum step step_decide(struct migration_source *source, struct error *err)
{
    const struct migration_limits *limits = &source->options.limits;
    struct migration_progress now;
    report_read(&source->report, &now);
    struct policy_input input = {
        .round = source->round,
        .elapsed_ms = now.elapsed_us / 1000,
        .remaining_bytes = source->remaining * PAGE_BYTES,
        .bandwidth = source->link.rate ? source->link.rate : UINT64_MAX, /* all was zeros */
        .dirty = now.dirty_bps / 8,
        .fixed_us = fixed_us(source),
        .limit_us = limits->downtime_limit_ms * 1000,
        .timeout_ms = limits->timeout_ms,
        .pauses_failed = now.pauses_failed,
        .since_failed_ms = (uint64_t)(clock_monotonic_ns() - source->failed_ns) / 1000000,
        .postcopy_allowed = source->can_postcopy,
        .may_throttle = !limits->no_throttle && source->guest.ops->throttle,
    };
    if (limits->mode == MIGRATION_MODE_POSTCOPY && source->can_postcopy)
        return STEP_DROP;
    struct policy_output output = policy_decide(&input, &source->memory);
    struct migration_progress *progress = report_edit(&source->report);
    progress->predicted_pause_us = output.predicted_pause_us;
    progress->eta_ms = output.eta_ms;
    report_done(&source->report);
    if (slow_down(source, output.throttle_percent, err) < 0)
        return STEP_FAIL;
    switch (output.choice) {
    case POLICY_PAUSE:
        return STEP_PAUSE;
    case POLICY_POSTCOPY:
        return STEP_DROP;
    case POLICY_CONTINUE:
        if (output.wait_ms &&
            source_wait(source, SOURCE_DEADLINE,
                        clock_monotonic_ns() + (int64_t)output.wait_ms * 1000000, err) < 0)
            return STEP_FAIL;
        return STEP_ROUND;
    case POLICY_GIVE_UP:
    default:
        return give_up_text(source, &input, &output, err);
    }
}

/* ---------------------------------------------------------------- the pause */

static enum step step_drop(struct migration_source *source, struct error *err)
{
    source->dropping = true;
    return source_drop_stale(source, err) < 0 ? STEP_FAIL : STEP_PAUSE;
}

static int queue_state(struct migration_source *source, struct error *err)
{
    uint32_t numbers[2] = {htole32(source->attempt), htole32(source->round)};
    if (fault_point("source.state"))
        return 0;
    if (source_queue(source, FRAME_STATE_BEGIN, source->state_size, numbers, sizeof(numbers), err) <
        0)
        return -1;
    if (source->dropping && source_switch(source, err) < 0)
        return -1;
    for (size_t at = 0; at < source->state_size;) {
        size_t size = source->state_size - at;
        if (size > STREAM_CHUNK_MAX)
            size = STREAM_CHUNK_MAX;
        if (source_queue(source, FRAME_STATE, at, source->state + at, (uint32_t)size, err) < 0)
            return -1;
        at += size;
    }
    return 0;
}

static int queue_hashes(struct migration_source *source, struct error *err)
{
    uint8_t hashes[STREAM_HASH_BYTES];
    int64_t begin_ns = clock_monotonic_ns();
    if (memory_hash_ram(&source->guest, HASH_THREADS, hashes, err) < 0)
        return -1;
    memory_hash_block(source->state, source->state_size, hashes + MEMORY_HASH_BYTES);
    int64_t took_ns = clock_monotonic_ns() - begin_ns;
    /* The target hashes as much, perhaps slower, and after the last page only. */
    source->at.deadline += 3 * took_ns + VERIFY_MARGIN_NS;
    return source_queue(source, FRAME_HASH, 0, hashes, sizeof(hashes), err);
}

static enum step step_pause(struct migration_source *source, struct error *err)
{
    const struct migration_guest_ops *ops = source->guest.ops;
    void *self = source->guest.self;
    fault_point("source.pause");
    report_phase(&source->report, MIGRATION_PHASE_PAUSED);
    source->attempt++;
    source->at = (struct pause_times){.begin = clock_monotonic_ns()};
    source->at.deadline =
        source->at.begin + (int64_t)source->options.limits.downtime_limit_ms * 1000000;
    source->paused = true; /* even half a pause must be undone */
    if (ops->pause(self, err) < 0)
        return STEP_FAIL;
    source->at.stopped = clock_monotonic_ns();
    fault_point("source.paused");
    free(source->state);
    source->state = NULL;
    if (ops->save(self, &source->state, &source->state_size, err) < 0)
        return STEP_FAIL;
    if (source->state_size == 0 || source->state_size > STREAM_STATE_MAX) {
        error_set(err, ERROR_FAILED, "a machine state of %zu bytes cannot be sent",
                  source->state_size);
        return STEP_FAIL;
    }
    source->at.saved = clock_monotonic_ns();
    /* What the last sync gave is still in the bitmap and not yet sent: it is only added to. */
    if (ops->dirty_sync(self, source->bitmap, err) < 0)
        return STEP_FAIL;
    source->remaining = bitmap_count(source->bitmap, source->guest.ram_bytes / PAGE_BYTES);
    if (!source->dropping)
        begin_round(source);
    if (queue_state(source, err) < 0)
        return STEP_FAIL;
    if (source->options.limits.verify && queue_hashes(source, err) < 0)
        return STEP_FAIL;
    return STEP_LAST;
}

static enum step step_last(struct migration_source *source, struct error *err)
{
    int seen = source_wait(source, SOURCE_READY | SOURCE_DEADLINE, source->at.deadline, err);
    if (seen < 0)
        return STEP_FAIL;
    if (!(seen & SOURCE_READY) || fault_point("source.ready"))
        return STEP_RETRACT;
    source->at.ready = clock_monotonic_ns();
    source->last_round = count_round(source);
    return source->at.ready < source->at.deadline ? STEP_GIVE_UP : STEP_RETRACT;
}

/* The pause took longer than it may: the guest runs on here and now, then pre-copy goes on. */
static enum step step_retract(struct migration_source *source, struct error *err)
{
    fault_point("source.retract");
    if (source->guest.ops->resume(source->guest.self, err) < 0)
        return STEP_FAIL;
    source->paused = false;
    source->failed_ns = clock_monotonic_ns();
    uint64_t pause_us = (uint64_t)(source->failed_ns - source->at.begin) / 1000;
    struct migration_progress *progress = report_edit(&source->report);
    progress->phase = MIGRATION_PHASE_PRECOPY;
    uint32_t failed = ++progress->pauses_failed;
    report_done(&source->report);
    if (source_queue(source, FRAME_RETRACT, source->attempt, NULL, 0, err) < 0)
        return STEP_FAIL;
    if (failed >= PAUSES_MAX) {
        error_set(
            err, ERROR_TIMEOUT,
            "%u pauses were not over within the limit, the last after %llu ms: raise the limit",
            failed, (unsigned long long)pause_us / 1000);
        return STEP_FAIL;
    }
    if (source->dropping) {
        source->dropping = false;
        return source_unswitch(source, err) < 0 ? STEP_FAIL : STEP_ROUND;
    }
    if (source_wait(source, SOURCE_ROUND_DONE, 0, err) < 0 || end_round(source, err) < 0)
        return STEP_FAIL;
    return STEP_DECIDE;
}

/* ---------------------------------------------------------------- handover */

static enum step step_give_up(struct migration_source *source, struct error *err)
{
    (void)pthread_mutex_lock(&source->lock);
    source->gave_up = !source->cancelled;
    (void)pthread_mutex_unlock(&source->lock);
    if (!source->gave_up) {
        error_set(err, ERROR_CONFLICT, "cancelled");
        return STEP_FAIL;
    }
    source->guest.ops->give_up(source->guest.self);
    source->at.go = clock_monotonic_ns();
    bool lose = fault_point("source.gave-up");
    report_phase(&source->report, MIGRATION_PHASE_HANDOVER);
    uint32_t numbers[2] = {htole32(source->attempt), 0};
    if (!lose && source_queue(source, FRAME_GO, source->options.next_epoch, numbers,
                              sizeof(numbers), err) < 0)
        return STEP_FAIL;
    fault_point("source.go");
    return STEP_HANDOVER;
}

static void itemise(struct migration_source *source, struct migration_pause *pause)
{
    const struct pause_times *at = &source->at;
    const struct stream_times *ready = &source->ready_times, *run = &source->running_times;
    uint64_t until_ready = (uint64_t)(at->ready - at->stopped) / 1000;
    uint64_t save = (uint64_t)(at->saved - at->stopped) / 1000;
    uint64_t answer = (uint64_t)(source->running_ns - at->go) / 1000;
    uint64_t way = answer > run->activate_us ? (answer - run->activate_us) / 2 : 0;
    pause->stop_us = (uint64_t)(at->stopped - at->begin) / 1000;
    pause->device_state_us = save + ready->load_us;
    pause->verify_us = ready->verify_us;
    uint64_t known = pause->device_state_us + pause->verify_us;
    pause->last_pages_us = until_ready > known ? until_ready - known : 0;
    /* The guest runs before its word arrives: half of the way there and back was within the pause.
     */
    pause->handover_us = (uint64_t)(at->go - at->ready) / 1000 + way;
    pause->activate_us = run->activate_us;
    pause->announce_us = source->announce_us;
    pause->total_us = pause->stop_us + pause->device_state_us + pause->verify_us +
                      pause->last_pages_us + pause->handover_us + pause->activate_us;
}

/* After giving up: in post-copy nobody else has what the target lacks, so that the source never
 * leaves by itself. */
static enum step after_loss(struct migration_source *source)
{
    return source_may_reconnect(source) ? STEP_RECONNECT : STEP_FAIL;
}

static enum step step_handover(struct migration_source *source, struct error *err)
{
    int64_t word_ns = (int64_t)source->options.limits.stall_timeout_ms * 1000000;
    int64_t deadline_ns =
        clock_monotonic_ns() + (word_ns < WORD_TIMEOUT_NS ? word_ns : WORD_TIMEOUT_NS);
    int seen = source_wait(source, SOURCE_RUNNING | SOURCE_DEADLINE, deadline_ns, err);
    if (seen < 0)
        return after_loss(source);
    if (!(seen & SOURCE_RUNNING) || fault_point("source.running")) {
        error_set(err, ERROR_TIMEOUT, "the target's word did not come");
        return after_loss(source);
    }
    if (source->postcopy)
        supply_push(&source->supply);
    struct error ignored = ERROR_INIT; /* the guest runs there: nothing can fail any more */
    (void)source_wait(source, SOURCE_ANNOUNCED | SOURCE_DEADLINE,
                      clock_monotonic_ns() + ANNOUNCE_WAIT_NS, &ignored);
    source_report_counters(source);
    if (!source->postcopy) /* whose pause has no round */
        report_add_round(&source->report, &source->last_round);
    struct migration_progress *progress = report_edit(&source->report);
    itemise(source, &progress->pause);
    source->itemised = true;
    progress->verified = source->options.limits.verify;
    progress->remaining_bytes = source->postcopy ? progress->remaining_bytes : 0;
    progress->text[0] = 0;
    report_done(&source->report);
    return source->postcopy ? STEP_SERVE : STEP_END;
}

static enum step step_serve(struct migration_source *source, struct error *err)
{
    return source_serve(source, err) < 0 ? after_loss(source) : STEP_END;
}

static enum step step_reconnect(struct migration_source *source, struct error *err)
{
    if (source_reconnect(source, err) < 0)
        return after_loss(source);
    return source->itemised ? STEP_SERVE : STEP_HANDOVER;
}

/* ---------------------------------------------------------------- the table and its end */

static const struct {
    enum step (*take)(struct migration_source *source, struct error *err);
} steps[] = {
    [STEP_CONNECT] = {step_connect},     [STEP_ROUND] = {step_round},
    [STEP_DECIDE] = {step_decide},       [STEP_PAUSE] = {step_pause},
    [STEP_LAST] = {step_last},           [STEP_RETRACT] = {step_retract},
    [STEP_GIVE_UP] = {step_give_up},     [STEP_HANDOVER] = {step_handover},
    [STEP_DROP] = {step_drop},           [STEP_SERVE] = {step_serve},
    [STEP_RECONNECT] = {step_reconnect},
};

/* The guest runs at the source: at once, then the target is told. */
static void let_run(struct migration_source *source, struct error *err)
{
    struct error why = ERROR_INIT, ignored = ERROR_INIT;
    if (source->paused && source->guest.ops->resume(source->guest.self, &why) < 0)
        error_wrap(err, "and the guest cannot be resumed (%s)", why.text);
    source->paused = false;
    if (source->greeted && source_queue(source, FRAME_CANCEL, 0, NULL, 0, &ignored) == 0)
        source_goodbye(source, clock_monotonic_ns() + GOODBYE_NS);
}

/* Someone let the target run although this source had not given up. It must never happen; should
 * it, two copies are worse than none that is right: this one stops. */
static void yield_to_target(struct migration_source *source)
{
    struct error ignored = ERROR_INIT;
    if (!source->paused)
        (void)source->guest.ops->pause(source->guest.self, &ignored);
    source->guest.ops->give_up(source->guest.self);
}

static void finish(struct migration_source *source, enum step last, struct error *err)
{
    enum migration_phase phase = MIGRATION_PHASE_COMPLETED;
    enum migration_outcome outcome = MIGRATION_OUTCOME_TARGET_RUNS;
    if (last == STEP_FAIL && source->gave_up) {
        phase = MIGRATION_PHASE_HANDOVER;
        outcome = MIGRATION_OUTCOME_IN_DOUBT;
        if (source->postcopy && source->running) {
            phase = MIGRATION_PHASE_POSTCOPY;
            outcome = MIGRATION_OUTCOME_LOST;
        } else {
            error_wrap(err, "given up, and no word that the guest runs at the target");
        }
    } else if (last == STEP_FAIL && source->running) {
        phase = MIGRATION_PHASE_FAILED;
        yield_to_target(source);
    } else if (last == STEP_FAIL) {
        let_run(source, err);
        (void)pthread_mutex_lock(&source->lock);
        phase = source->cancelled ? MIGRATION_PHASE_CANCELLED : MIGRATION_PHASE_FAILED;
        (void)pthread_mutex_unlock(&source->lock);
        outcome = MIGRATION_OUTCOME_SOURCE_RUNS;
    }
    event_raise(source->stop_fd);
    page_sender_stop(&source->sender); /* they use the log */
    if (source->logging)
        source->guest.ops->dirty_stop(source->guest.self);
    (void)pthread_mutex_lock(&source->lock);
    source->ended = true;
    (void)pthread_mutex_unlock(&source->lock);
    struct migration_progress *progress = report_edit(&source->report);
    progress->phase = phase;
    progress->outcome = outcome;
    progress->error = err->kind;
    if (last == STEP_FAIL)
        (void)snprintf(progress->text, sizeof(progress->text), "%.*s",
                       (int)sizeof(progress->text) - 1, err->text);
    report_done(&source->report);
}

void source_run(struct migration_source *source)
{
    struct error err = ERROR_INIT;
    enum step step = STEP_CONNECT;
    while (step < STEP_END)
        step = steps[step].take(source, &err);
    finish(source, step, &err);
}
