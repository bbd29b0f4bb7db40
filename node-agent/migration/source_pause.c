/* source_pause.c: the source's steps of the pause, and of one that is taken back. */
#include <endian.h>
#include <stdlib.h>

#include "common/clock.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/memory_hash.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_postcopy.h"
#include "node-agent/migration/source_steps.h"

#define PAUSES_MAX       5u /* that led to nothing, before giving up */
#define VERIFY_MARGIN_NS 100000000
#define HASH_THREADS     2u

enum step source_step_drop(struct migration_source *source, struct error *err)
{
    source->dropping = true;
    return source_drop_stale(source, err) < 0 ? STEP_FAIL : STEP_PAUSE;
}

static int queue_state(struct migration_source *source, struct error *err)
{
    uint32_t numbers[2] = {htole32(source->attempt), htole32(source->round)};
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

/* A state that comes twice is what a target must refuse, and no state what it must not wait for. */
static int queue_states(struct migration_source *source, struct error *err)
{
    for (unsigned copies = fault_message("source.state"); copies > 0; copies--)
        if (queue_state(source, err) < 0)
            return -1;
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

enum step source_step_pause(struct migration_source *source, struct error *err)
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
        source_begin_round(source);
    if (queue_states(source, err) < 0)
        return STEP_FAIL;
    if (source->options.limits.verify && queue_hashes(source, err) < 0)
        return STEP_FAIL;
    return STEP_LAST;
}

enum step source_step_last(struct migration_source *source, struct error *err)
{
    int seen = source_wait(source, SOURCE_READY | SOURCE_DEADLINE, source->at.deadline, err);
    if (seen < 0)
        return STEP_FAIL;
    if (!(seen & SOURCE_READY) || fault_point("source.ready"))
        return STEP_RETRACT;
    source->at.ready = clock_monotonic_ns();
    source->last_round = source_count_round(source);
    return source->at.ready < source->at.deadline ? STEP_GIVE_UP : STEP_RETRACT;
}

/* The pause took longer than it may: the guest runs on here and now, then pre-copy goes on. */
enum step source_step_retract(struct migration_source *source, struct error *err)
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
    for (unsigned copies = fault_message("source.retracted"); copies > 0; copies--)
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
    if (source_wait(source, SOURCE_ROUND_DONE, 0, err) < 0 || source_end_round(source, err) < 0)
        return STEP_FAIL;
    return STEP_DECIDE;
}
