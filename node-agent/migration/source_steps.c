/*
 * source_steps.c: the source of a migration, as a table of steps.
 *
 *   CONNECT --> ROUND --> DECIDE --> PAUSE --> LAST --> GIVE_UP --> HANDOVER --> (end)
 *                 ^        |  |       ^         |                    |  ^          ^
 *                 +--------+  +-DROP--+         | deadline passed    |  |          |
 *                 +----------- RETRACT <--------+                    v  |          |
 *                                                 link lost: RECONNECT <---- SERVE-+
 *
 * After the first round, and before the first pause, DECIDE may go to PROBE, a small round, and be
 * back.
 * Post-copy goes by DROP before the pause, and by SERVE after the handover: see source_postcopy.c.
 *
 * Every step may fail, and cancel is heard in every step before GIVE_UP: then the guest runs on
 * here and the end is FAILED or CANCELLED. GIVE_UP is the point of no return; after it the end is
 * COMPLETED or IN_DOUBT. One thread takes the steps; the page streams (page_sender.h) only send.
 */
#include <endian.h>
#include <stdio.h>

#include "common/clock.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/source_steps.h"

#define GOODBYE_NS 1000000000 /* for CANCEL to leave */

static const struct {
    enum step (*take)(struct migration_source *source, struct error *err);
} steps[] = {
    [STEP_CONNECT] = {source_step_connect},   [STEP_ROUND] = {source_step_round},
    [STEP_DECIDE] = {source_step_decide},     [STEP_PROBE] = {source_step_probe},
    [STEP_PAUSE] = {source_step_pause},       [STEP_LAST] = {source_step_last},
    [STEP_RETRACT] = {source_step_retract},   [STEP_GIVE_UP] = {source_step_give_up},
    [STEP_HANDOVER] = {source_step_handover}, [STEP_DROP] = {source_step_drop},
    [STEP_SERVE] = {source_step_serve},       [STEP_RECONNECT] = {source_step_reconnect},
};

/* The guest runs at the source: at once, then the target is told. */
static void let_run(struct migration_source *source, struct error *err)
{
    struct error why = ERROR_INIT, ignored = ERROR_INIT;
    if (source->paused && source->guest.ops->resume(source->guest.self, &why) < 0)
        error_wrap(err, "and the guest cannot be resumed (%s)", why.text);
    source->paused = false;
    bool queued = false;
    for (unsigned copies = source->greeted ? fault_message("source.cancel") : 0; copies > 0;
         copies--)
        queued = source_queue(source, FRAME_CANCEL, 0, NULL, 0, &ignored) == 0;
    if (queued)
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
