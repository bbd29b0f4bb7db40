/* source_handover.c: the source's steps from giving up to its end. */
#include <endian.h>

#include "common/clock.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/source_postcopy.h"
#include "node-agent/migration/source_steps.h"

#define WORD_TIMEOUT_NS  10000000000 /* from GO to RUNNING; then the controller must decide */
#define ANNOUNCE_WAIT_NS 1000000000

enum step source_step_give_up(struct migration_source *source, struct error *err)
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
    unsigned copies = fault_message("source.gave-up");
    report_phase(&source->report, MIGRATION_PHASE_HANDOVER);
    uint32_t numbers[2] = {htole32(source->attempt), 0};
    for (; copies > 0; copies--)
        if (source_queue(source, FRAME_GO, source->options.next_epoch, numbers, sizeof(numbers),
                         err) < 0)
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

enum step source_step_handover(struct migration_source *source, struct error *err)
{
    int64_t word_ns = (int64_t)source->options.limits.stall_timeout_ms * 1000000;
    int64_t deadline_ns =
        clock_monotonic_ns() + (word_ns < WORD_TIMEOUT_NS ? word_ns : WORD_TIMEOUT_NS);
    int seen = source_wait(source, SOURCE_RUNNING | SOURCE_DEADLINE, deadline_ns, err);
    if (seen < 0 && !source->complete)
        return after_loss(source);
    if (!source->running || fault_point("source.running")) {
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

enum step source_step_serve(struct migration_source *source, struct error *err)
{
    return source_serve(source, err) < 0 ? after_loss(source) : STEP_END;
}

enum step source_step_reconnect(struct migration_source *source, struct error *err)
{
    if (source_reconnect(source, err) < 0)
        return after_loss(source);
    return source->itemised ? STEP_SERVE : STEP_HANDOVER;
}
