/* target_hear.c: what the target does at each message of the control connection. */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/target_postcopy.h"
#include "node-agent/migration/target_steps.h"

static int hear_state_begin(struct migration_target *target, const struct frame *frame,
                            const uint8_t *payload, struct error *err)
{
    uint32_t numbers[2];
    memcpy(numbers, payload, sizeof(numbers));
    uint32_t attempt = le32toh(numbers[0]), round = le32toh(numbers[1]);
    if (target->machine || attempt != target->attempt + 1)
        return error_set(err, ERROR_FAILED, "pause %u follows pause %u", attempt, target->attempt);
    if (frame->argument == 0 || frame->argument > STREAM_STATE_MAX)
        return error_set(err, ERROR_FAILED, "a machine state of %llu bytes is impossible",
                         (unsigned long long)frame->argument);
    target->machine = malloc(frame->argument);
    if (!target->machine)
        return error_set(err, ERROR_FAILED, "out of memory for the machine state");
    target->machine_size = frame->argument;
    target->attempt = attempt;
    target->last_round = round;
    report_phase(&target->report, MIGRATION_PHASE_PAUSED);
    return 0;
}

static int hear_state(struct migration_target *target, const struct frame *frame,
                      const uint8_t *payload, struct error *err)
{
    if (!target->machine || frame->argument != target->machine_have ||
        frame->length > target->machine_size - target->machine_have)
        return error_set(err, ERROR_FAILED, "a piece of machine state is out of place");
    memcpy(target->machine + target->machine_have, payload, frame->length);
    target->machine_have += frame->length;
    return 0;
}

static int hear_hash(struct migration_target *target, const uint8_t *payload, struct error *err)
{
    if (!target->verify || !target->machine || target->have_hashes)
        return error_set(err, ERROR_FAILED, "a hash nobody asked for");
    memcpy(target->hashes, payload, sizeof(target->hashes));
    target->have_hashes = true;
    return 0;
}

static int hear_retract(struct migration_target *target, const struct frame *frame,
                        struct error *err)
{
    if (frame->argument != target->attempt && frame->argument != (uint64_t)target->attempt + 1)
        return error_set(err, ERROR_FAILED, "a pause that never was is taken back");
    target->attempt = (uint32_t)frame->argument; /* its state may have been lost */
    target_forget_machine(target);
    target_forget_postcopy(target);
    target_enter(target, MIGRATION_TARGET_INCOMING, "");
    return 0;
}

static int hear_go(struct migration_target *target, const struct frame *frame,
                   const uint8_t *payload, struct error *err)
{
    uint32_t attempt;
    memcpy(&attempt, payload, sizeof(attempt));
    if (fault_point("target.go"))
        return 0;
    if (target->state != MIGRATION_TARGET_READY || le32toh(attempt) != target->attempt ||
        frame->argument != target->options.next_epoch)
        return error_set(err, ERROR_FAILED, "GO for something else");
    target->go_ns = clock_monotonic_ns();
    return target_run_guest(target, frame->argument, err);
}

static int hear(struct migration_target *target, const struct frame *frame, const uint8_t *payload,
                struct error *err)
{
    bool ready = target->state >= MIGRATION_TARGET_READY;
    switch (frame->type) {
    case FRAME_RETRACT:
        if (target->state != MIGRATION_TARGET_POSTCOPY)
            return hear_retract(target, frame, err);
        break; /* the guest runs: what it lacks would become zeros */
    case FRAME_GO:
        return hear_go(target, frame, payload, err);
    case FRAME_CANCEL:
        return error_set(err, ERROR_CONFLICT, "the source took the migration back");
    case FRAME_STATE_BEGIN:
        if (!ready)
            return hear_state_begin(target, frame, payload, err);
        break;
    case FRAME_STATE:
        if (!ready)
            return hear_state(target, frame, payload, err);
        break;
    case FRAME_HASH:
        if (!ready)
            return hear_hash(target, payload, err);
        break;
    case FRAME_STALE:
        if (!ready)
            return target_hear_stale(target, frame, payload, err);
        break;
    case FRAME_POSTCOPY:
        if (!ready)
            return target_hear_postcopy(target, frame, err);
        break;
    default:
        break;
    }
    return error_set(err, ERROR_FAILED, "a frame of type %u cannot come now", frame->type);
}

/* Reads the control connection. A link lost while READY is no failure: -1 with @lost set. */
int target_hear_all(struct migration_target *target, bool *lost, struct error *err)
{
    const uint8_t *payload = NULL;
    struct frame frame;
    if (channel_flush(&target->control, err) < 0) {
        *lost = true;
        return -1;
    }
    int got = channel_fill(&target->control, err);
    *lost = got < 0;
    while (got > 0) {
        got = channel_next(&target->control, PATH_TO_TARGET, &frame, &payload, err);
        if (got > 0 && hear(target, &frame, payload, err) < 0)
            return -1;
        if (target_is_final(target))
            return 0;
    }
    return got;
}
