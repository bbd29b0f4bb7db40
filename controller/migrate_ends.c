/* The steps after a migration's fate was decided; see job_vm_migrate.c for how they are reached. */
#include <stdio.h>

#include "controller/events.h"
#include "controller/migrate.h"
#include "controller/migrate_review.h"
#include "controller/migration_words.h"
#include "controller/pb.h"
#include "controller/placement.h"

/* How long the source, which gave up, may take to say what the pause was made of. */
#define LAST_WORD_MS 2000

/* ---- discarding the target: undo, abandon, gone ---- */

/* A DISCARD at the new epoch also throws away a target that runs: right only where the source has
 * said that it never gave up, or nobody can. At the epoch below, an agent refuses it for a copy
 * that is ready, runs, or ran before it failed. */
static void send_discard(struct controller *controller, struct job *job, const struct node *target,
                         bool also_running)
{
    uint64_t epoch = job->stored->next_epoch;
    migrate_send(controller, job, target, VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD,
                 also_running ? epoch : epoch - 1);
}

typedef void (*after_fn)(struct controller *controller, struct job *job);

/* The end does not depend on the target's word here: the source never gave up, and without its GO
 * the copy never runs; what is left of it is discarded when its node reports (reconcile.h). */
static void discard_target(struct controller *controller, struct job *job,
                           const struct job_event *event, after_fn after)
{
    struct node *target = migrate_target(controller, job);
    bool lost = !target || target->phase == VMPOOL__NODE_PHASE__NODE_LOST;
    switch (event->what) {
    case JOB_ENTER:
        if (lost) {
            after(controller, job);
            break;
        }
        if (job->deadline_ms == 0)
            job_limit(job, controller->config.command_timeout_ms);
        send_discard(controller, job, target, true);
        break;
    case JOB_ANSWER:
    case JOB_TIMEOUT:
        after(controller, job);
        break;
    case JOB_NODE:
        if (lost)
            after(controller, job);
        break;
    default:
        break;
    }
}

static void after_undo(struct controller *controller, struct job *job)
{
    const struct claim *claim = vm_claim_of(job->vm, job->stored->source_node);
    const struct node *source = migrate_source(controller, job);
    bool runs = source && source->phase != VMPOOL__NODE_PHASE__NODE_LOST && claim && claim->said &&
                claim->said->state == VMPOOL__VM_STATE__VM_RUNNING;
    placement_release_target(controller, job->vm);
    if (job->stored->cancelled || job->stored->wanted_node[0] || !runs) {
        migrate_fail_at_source(controller, job);
        return;
    }
    event_add(controller, "warning", "migration.refused", job->stored->subject, job->stored->id,
              "%s", job->stored->failure ? job->stored->failure->text : "");
    pb_push_text(&job->stored->tried_nodes, &job->stored->n_tried_nodes, job->stored->target_node);
    (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
    job_go(controller, job, "place");
}

void migrate_on_undo(struct controller *controller, struct job *job, const struct job_event *event)
{
    discard_target(controller, job, event, after_undo);
}

void migrate_on_abandon(struct controller *controller, struct job *job,
                        const struct job_event *event)
{
    discard_target(controller, job, event, migrate_fail_at_source);
}

static void after_gone(struct controller *controller, struct job *job)
{
    const struct claim *claim = vm_claim_of(job->vm, job->stored->source_node);
    migrate_keep_progress(job);
    placement_release_target(controller, job->vm);
    if (claim && claim->said && claim->said->state == VMPOOL__VM_STATE__VM_STOPPED)
        (void)vm_happens(controller, job->vm, VM_EVENT_STOPPED, "powered off while it migrated");
    else
        (void)vm_happens(controller, job->vm, VM_EVENT_CRASHED,
                         "it ended while it migrated; start it again");
    job_fail(controller, job, ERROR_FAILED, "the VM ended while it migrated: it is %s",
             vm_phase_name(job->vm->stored->phase));
}

/* GO may still be on its way to a target that was ready, so "it runs nowhere" takes the target's
 * word, or the operator's that its node is gone for good. */
void migrate_on_gone(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    if (!target) {
        after_gone(controller, job);
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "waiting for the word of %s that it holds no copy",
                job->stored->to_name);
        job_limit(job, controller->config.command_timeout_ms);
        send_discard(controller, job, target, true);
        break;
    case JOB_ANSWER:
        if (event->answer->discarded && !event->answer->failure)
            after_gone(controller, job);
        break; /* a refusal: asked again once the time is over */
    case JOB_TIMEOUT:
        job_go(controller, job, "gone");
        break;
    default:
        break;
    }
}

/* ---- deciding a handover: run-target, take-back, leave, run-source ---- */

/* In the steps below a decision was made, but the ends may still prove that it isn't needed. */
static bool target_runs(struct controller *controller, struct job *job,
                        const struct job_event *event)
{
    if (event->what == JOB_CLAIM)
        (void)migration_note_progress(job, event->claim->said);
    return migration_target_word(controller, job) == TARGET_RAN;
}

void migrate_on_run_target(struct controller *controller, struct job *job,
                           const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    if (target_runs(controller, job, event)) {
        job_go(controller, job, "accept");
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "letting %s run", job->stored->to_name);
        migrate_send(controller, job, target, VMPOOL__NODE_VM_COMMAND__ACTION__RUN,
                     job->stored->next_epoch);
        break;
    case JOB_ANSWER:
        job_go(controller, job, event->answer->failure ? "stream" : "accept");
        break;
    case JOB_NODE:
        if (!target)
            job_go(controller, job, "stream");
        break;
    default:
        break;
    }
}

void migrate_on_take_back(struct controller *controller, struct job *job,
                          const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    if (target_runs(controller, job, event)) {
        job_go(controller, job, "accept");
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "asking %s for its word that it holds no copy",
                job->stored->to_name);
        if (target)
            send_discard(controller, job, target, false);
        break;
    case JOB_ANSWER:
        if (event->answer->discarded && !event->answer->failure)
            target = NULL;
        else
            job_go(controller, job, "stream");
        break;
    default:
        break;
    }
    /* Its word, or the operator's that the node is gone for good. */
    if (!target && job->kind->steps[job->step].on == migrate_on_take_back) {
        job->stored->next_epoch = vm_grant_epoch(controller, job->vm);
        job_go(controller, job, "run-source");
    }
}

void migrate_on_leave(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    if (target_runs(controller, job, event)) {
        job_go(controller, job, "accept");
        return;
    }
    if (event->what == JOB_ENTER && target)
        send_discard(controller, job, target, false);
    else if (event->what == JOB_ANSWER && event->answer->failure)
        job_go(controller, job, "stream");
    else if ((event->what == JOB_ANSWER || !target) &&
             migration_source_word(controller, job) == SOURCE_DIED)
        after_gone(controller, job);
    else if (event->what == JOB_ANSWER || !target) {
        if (!job->stored->failure)
            job_keep_failure(job, ERROR_UNREACHABLE, "the source was lost");
        migrate_fail_at_source(controller, job);
    }
}

void migrate_on_run_source(struct controller *controller, struct job *job,
                           const struct job_event *event)
{
    struct node *source = migrate_source(controller, job);
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "letting %s run on", job->stored->from_name);
        migrate_send(controller, job, source, VMPOOL__NODE_VM_COMMAND__ACTION__RUN,
                     job->stored->next_epoch);
        break;
    case JOB_ANSWER:
        /* A VMM that was too slow to answer may still obey: what both ends say decides again. */
        if (event->answer->failure) {
            job_go(controller, job, "stream");
            break;
        }
        vm_set_owner(controller, job->vm, source, job->stored->next_epoch);
        (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
        job_keep_failure(job, ERROR_FAILED, "the target lost its copy before it ran");
        migrate_fail_at_source(controller, job);
        break;
    case JOB_NODE:
        if (!source)
            job_go(controller, job, "gone");
        break;
    default:
        break;
    }
}

/* ---- accept ---- */

static void enter_accept(struct controller *controller, struct job *job)
{
    struct node *target = migrate_target(controller, job);
    if (target && job->vm->stored->epoch != job->stored->next_epoch) {
        placement_release_target(controller, job->vm);
        vm_set_owner(controller, job->vm, target, job->stored->next_epoch);
        (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
        event_add(controller, "info", "migration.completed", job->stored->subject, job->stored->id,
                  "runs on %s, came from %s", job->stored->to_name, job->stored->from_name);
    }
}

/* The source ends, now that it has said what the pause was made of, or did not say it in time. */
static void discard_source(struct controller *controller, struct job *job)
{
    job_limit(job, controller->config.command_timeout_ms);
    job_say(controller, job, "runs on %s; cleaning up on %s", job->stored->to_name,
            job->stored->from_name);
    migrate_send(controller, job, migrate_source(controller, job),
                 VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD, job->stored->next_epoch);
}

static bool pause_known(const struct job *job)
{
    return job->stored->migration && job->stored->migration->pause;
}

static void accepted(struct controller *controller, struct job *job)
{
    if (job->stored->migration)
        job->stored->migration->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
    migrate_review_end(job);
    migrate_keep_progress(job);
    vm_save(controller, job->vm);
    job->stored->cancelled = false; /* it came too late */
    job_done(controller, job, "runs on %s", job->stored->to_name);
}

void migrate_on_accept(struct controller *controller, struct job *job,
                       const struct job_event *event)
{
    const struct node *source = migrate_source(controller, job);
    bool lost = !source || source->phase == VMPOOL__NODE_PHASE__NODE_LOST, noted = false;
    switch (event->what) {
    case JOB_ENTER:
        enter_accept(controller, job);
        if (migrate_awaits_pages(controller, job))
            break;
        if (lost)
            accepted(controller, job);
        else if (pause_known(job))
            discard_source(controller, job);
        else
            job_limit(job, LAST_WORD_MS);
        break;
    case JOB_CLAIM:
        noted = migration_note_progress(job, event->claim->said);
        if (noted)
            job_show(controller, job);
        if (job->awaiting || migrate_awaits_pages(controller, job))
            break;
        if (noted && pause_known(job))
            discard_source(controller, job);
        else if (lost)
            accepted(controller, job);
        break;
    case JOB_ANSWER:
        (void)migration_note_progress(job, event->answer->vm);
        accepted(controller, job);
        break;
    case JOB_TIMEOUT:
        if (job->awaiting)
            accepted(controller, job);
        else if (!migrate_awaits_pages(controller, job))
            discard_source(controller, job);
        break;
    case JOB_NODE:
        if (!job->awaiting && migrate_awaits_pages(controller, job))
            break;
        if (lost)
            accepted(controller, job);
        break;
    default:
        break;
    }
}
