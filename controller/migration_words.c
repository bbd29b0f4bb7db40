#include "controller/migration_words.h"

#include <string.h>

#include "controller/pb.h"

static bool ended(const Vmpool__NodeVm *said)
{
    return !said || said->state == VMPOOL__VM_STATE__VM_STOPPED ||
           said->state == VMPOOL__VM_STATE__VM_PANICKED ||
           said->state == VMPOOL__VM_STATE__VM_FAILED;
}

const Vmpool__MigrationProgress *migration_progress_of(const struct job *job,
                                                       const Vmpool__NodeVm *said)
{
    const Vmpool__MigrationProgress *progress = said ? said->migration : NULL;
    return progress && strcmp(progress->migration_id, job->stored->migration_id) == 0 ? progress
                                                                                      : NULL;
}

bool migration_source_lives(const struct claim *claim)
{
    return !ended(claim->said);
}

/* A source that neither gave up nor ended: does it still work on this migration? */
static enum source_word running_source(const struct job *job, const struct claim *claim)
{
    const Vmpool__MigrationProgress *progress = migration_progress_of(job, claim->said);
    if (progress)
        return progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_FAILED ||
                       progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_CANCELLED
                   ? SOURCE_RUNS_ON
                   : SOURCE_STREAMING;
    /* It knows nothing of it: not yet, or not any more. */
    return job->settled_ms != 0 && claim->at_ms > job->settled_ms ? SOURCE_RUNS_ON
                                                                  : SOURCE_STREAMING;
}

enum source_word migration_source_word(const struct controller *controller, const struct job *job)
{
    const struct node *node = node_by_id(controller, job->stored->source_node);
    const struct claim *claim = vm_claim_of(job->vm, job->stored->source_node);
    bool gave_up = job->stored->gave_up;
    if (!node)
        return gave_up ? SOURCE_DIED_LATE : SOURCE_FENCED;
    if (claim && claim->said && claim->said->state == VMPOOL__VM_STATE__VM_GAVE_UP)
        return SOURCE_GAVE_UP;
    if (node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        return gave_up ? SOURCE_GAVE_UP : SOURCE_LOST;
    if (!claim || claim->at_ms < job->entered_ms)
        return gave_up ? SOURCE_GAVE_UP : SOURCE_SILENT;
    if (ended(claim->said))
        return gave_up ? SOURCE_DIED_LATE : SOURCE_DIED;
    return gave_up ? SOURCE_GAVE_UP : running_source(job, claim);
}

enum target_word migration_target_word(const struct controller *controller, const struct job *job)
{
    const struct node *node = node_by_id(controller, job->stored->target_node);
    const struct claim *claim = vm_claim_of(job->vm, job->stored->target_node);
    if (!node)
        return TARGET_FENCED;
    if (node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        return TARGET_LOST;
    if (!claim || claim->at_ms < job->entered_ms)
        return TARGET_SILENT;
    const Vmpool__NodeVm *said = claim->said;
    if (!said || said->epoch > job->stored->next_epoch)
        return said ? TARGET_SILENT : TARGET_NONE;
    const Vmpool__MigrationProgress *progress = migration_progress_of(job, said);
    switch (said->state) {
    case VMPOOL__VM_STATE__VM_PREPARING:
    case VMPOOL__VM_STATE__VM_INCOMING:
        return TARGET_PREPARING;
    case VMPOOL__VM_STATE__VM_READY:
        return TARGET_READY;
    case VMPOOL__VM_STATE__VM_RUNNING:
    case VMPOOL__VM_STATE__VM_PAUSED:
    case VMPOOL__VM_STATE__VM_MIGRATING:
    case VMPOOL__VM_STATE__VM_STOPPED: /* only a guest that ran powers off or panics */
    case VMPOOL__VM_STATE__VM_PANICKED:
        return said->epoch == job->stored->next_epoch ? TARGET_RAN : TARGET_SILENT;
    case VMPOOL__VM_STATE__VM_FAILED:
        /* Post-copy: the guest ran there, and its memory will never be complete. */
        return progress && (progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED ||
                            progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY)
                   ? TARGET_BROKE
                   : TARGET_NONE;
    default:
        return TARGET_SILENT;
    }
}

/* The target alone knows when the guest ran again. */
static void complete_pause(Vmpool__MigrationProgress *into, const Vmpool__MigrationProgress *from)
{
    if (!from->pause)
        return;
    if (!into->pause) {
        into->pause = pb_copy(&from->pause->base);
        return;
    }
    Vmpool__MigrationPause *pause = into->pause;
    if (pause->activate_us == 0)
        pause->activate_us = from->pause->activate_us;
    if (pause->announce_us == 0)
        pause->announce_us = from->pause->announce_us;
    if (pause->total_us < from->pause->total_us)
        pause->total_us = from->pause->total_us;
}

/* Faults are the target's to count, and only it knows that the guest is held. */
static void complete_postcopy(Vmpool__MigrationProgress *into,
                              const Vmpool__MigrationProgress *from)
{
    if (!from->postcopy)
        return;
    if (!into->postcopy)
        into->postcopy = pb_copy(&from->postcopy->base);
    Vmpool__MigrationPostcopy *postcopy = into->postcopy;
    if (from->postcopy->faults >= postcopy->faults) {
        postcopy->faults = from->postcopy->faults;
        postcopy->fault_mean_us = from->postcopy->fault_mean_us;
        postcopy->fault_max_us = from->postcopy->fault_max_us;
    }
    if (postcopy->links_lost < from->postcopy->links_lost)
        postcopy->links_lost = from->postcopy->links_lost;
    postcopy->held = from->postcopy->held;
}

/* Whether the source has pages that the target lacks: from the first word of post-copy until either
 * end says that all has come. */
static void note_pages_to_come(struct job *job, const Vmpool__MigrationProgress *progress)
{
    if (progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED)
        job->stored->pages_to_come = false;
    else if (progress->postcopy)
        job->stored->pages_to_come = true;
}

bool migration_note_progress(struct job *job, const Vmpool__NodeVm *said)
{
    const Vmpool__MigrationProgress *progress = migration_progress_of(job, said);
    if (!progress)
        return false;
    Vmpool__MigrationProgress *known = job->stored->migration;
    note_pages_to_come(job, progress);
    /* The source counts rounds and bytes; of the target's view only what is missing is taken. */
    if (!known || progress->n_rounds >= known->n_rounds) {
        Vmpool__MigrationProgress *copy = pb_copy(&progress->base);
        if (known) {
            complete_pause(copy, known);
            complete_postcopy(copy, known);
            copy->verified = copy->verified || known->verified;
            if (copy->n_rounds == 0 && copy->wire_bytes < known->wire_bytes)
                copy->wire_bytes = known->wire_bytes;
        }
        pb_free(known);
        job->stored->migration = copy;
    } else {
        complete_pause(known, progress);
        complete_postcopy(known, progress);
        if (progress->postcopy && progress->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY)
            known->remaining_bytes = progress->remaining_bytes;
        known->verified = known->verified || progress->verified;
    }
    return true;
}
