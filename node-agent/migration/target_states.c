/* target_states.c: the target's states as they are reported. */
#include <stdio.h>

#include "node-agent/migration/target_steps.h"

static const struct {
    enum migration_phase phase;
    enum migration_outcome outcome;
} meanings[] = {
    [MIGRATION_TARGET_WAITING] = {MIGRATION_PHASE_CONNECTING, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_INCOMING] = {MIGRATION_PHASE_PRECOPY, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_READY] = {MIGRATION_PHASE_HANDOVER, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_POSTCOPY] = {MIGRATION_PHASE_POSTCOPY, MIGRATION_OUTCOME_PENDING},
    [MIGRATION_TARGET_RUNNING] = {MIGRATION_PHASE_COMPLETED, MIGRATION_OUTCOME_TARGET_RUNS},
    [MIGRATION_TARGET_FAILED] = {MIGRATION_PHASE_FAILED, MIGRATION_OUTCOME_SOURCE_RUNS},
    [MIGRATION_TARGET_DISCARDED] = {MIGRATION_PHASE_CANCELLED, MIGRATION_OUTCOME_SOURCE_RUNS},
};

static void enter_as(struct migration_target *target, enum migration_target_state state,
                     enum migration_phase phase, enum migration_outcome outcome, const char *text)
{
    struct migration_progress *progress = report_edit(&target->report);
    progress->phase = phase;
    progress->outcome = outcome;
    progress->streams = target->streams;
    if (state == MIGRATION_TARGET_FAILED)
        progress->error = ERROR_FAILED;
    (void)snprintf(progress->text, sizeof(progress->text), "%s", text);
    (void)pthread_mutex_lock(&target->lock);
    target->state = state;
    (void)pthread_mutex_unlock(&target->lock);
    report_done(&target->report);
}

void target_enter(struct migration_target *target, enum migration_target_state state,
                  const char *text)
{
    enter_as(target, state, meanings[state].phase, meanings[state].outcome, text);
}

/* The guest ran here, and part of its memory will never come: nobody has all of it. The phase stays
 * post-copy, which tells it from a target that never ran. */
void target_enter_lost(struct migration_target *target, const char *text)
{
    enter_as(target, MIGRATION_TARGET_FAILED, MIGRATION_PHASE_POSTCOPY, MIGRATION_OUTCOME_LOST,
             text);
}

bool target_is_final(const struct migration_target *target)
{
    return target->state >= MIGRATION_TARGET_RUNNING;
}

void target_tell_progress(struct migration_target *target)
{
    struct migration_progress *progress = report_edit(&target->report);
    progress->wire_bytes = page_receiver_bytes(&target->receiver);
    progress->pages_sent = atomic_load(&target->receiver.pages_received);
    progress->pages_zero = atomic_load(&target->receiver.pages_zero);
    progress->round = target->round_done + 1;
    report_done(&target->report);
}
