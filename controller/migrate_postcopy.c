/*
 * The end of a migration by post-copy: the VM runs at the target and is the target's, and the
 * source still has pages of it. Neither end has all of the guest, so that the death of either is
 * its end.
 *
 *     accept:  the pages have come            discard the source, as ever
 *              an end's node is lost          wait: it may come back with what it has
 *              the source's process is gone   "lost": the target ends what it cannot complete
 *              the target's process is gone   "lost"
 */
#include <stdio.h>

#include "common/clock.h"
#include "controller/events.h"
#include "controller/migrate.h"
#include "controller/migration_words.h"
#include "controller/pb.h"

static const struct claim *target_claim(const struct job *job)
{
    return vm_claim_of(job->vm, job->stored->target_node);
}

static bool is_lost(const struct node *node)
{
    return node && node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
}

/* Times --lost-after, for a target that says nothing new. */
#define LONG_SILENT 4

static bool source_is_gone(const struct controller *controller, const struct job *job)
{
    const struct node *source = migrate_source(controller, job);
    const struct claim *here = vm_claim_of(job->vm, job->stored->source_node);
    if (!source)
        return true;
    return !is_lost(source) && here && !migration_source_lives(here) &&
           here->at_ms > job->entered_ms;
}

/* The source's process has ended, and the target, asked after that, still misses pages and its
 * link; or says nothing new for long. One that has just delivered the last page may end, too. */
static bool source_took_pages_along(const struct controller *controller, struct job *job)
{
    const struct claim *here = vm_claim_of(job->vm, job->stored->source_node);
    const struct claim *there = target_claim(job);
    const Vmpool__MigrationProgress *progress =
        there && there->said ? migration_progress_of(job, there->said) : NULL;
    int64_t now_ms = clock_monotonic_ms();
    if (!source_is_gone(controller, job)) {
        job->decide_ms = 0;
        return false;
    }
    if (job->decide_ms == 0) {
        job->decide_ms = now_ms + (int64_t)controller->config.lost_after_ms * LONG_SILENT;
        job_limit(job, controller->config.lost_after_ms * LONG_SILENT);
    }
    if (!progress || is_lost(migrate_target(controller, job)))
        return false;
    bool holds = progress->postcopy && progress->postcopy->held &&
                 (!migrate_source(controller, job) || there->at_ms > here->at_ms);
    return holds || now_ms >= job->decide_ms;
}

static bool target_ended(const struct controller *controller, const struct job *job)
{
    const struct node *target = migrate_target(controller, job);
    const struct claim *there = target_claim(job);
    if (!target)
        return true;
    return !is_lost(target) && there && there->at_ms > job->entered_ms &&
           (!there->said || there->said->state == VMPOOL__VM_STATE__VM_FAILED);
}

/* Why, while both claims are as fresh as when it was decided. */
static void note_why_lost(struct controller *controller, struct job *job)
{
    const struct claim *there = target_claim(job);
    const Vmpool__MigrationProgress *progress = job->stored->migration;
    const char *said = there && there->said ? there->said->text : "";
    char text[ERROR_TEXT_MAX];
    if (source_took_pages_along(controller, job))
        (void)snprintf(text, sizeof text,
                       "its memory was lost with host %s in post-copy: %llu MiB of it were missing",
                       job->stored->from_name,
                       (unsigned long long)(progress ? progress->remaining_bytes >> 20 : 0));
    else
        (void)snprintf(text, sizeof text, "it was lost on host %s in post-copy%s%s",
                       job->stored->to_name, said[0] ? ": " : "", said);
    job_keep_failure(job, ERROR_FAILED, text);
}

bool migrate_awaits_pages(struct controller *controller, struct job *job)
{
    const struct node *source = migrate_source(controller, job);
    const char *from = job->stored->from_name, *to = job->stored->to_name;
    if (!job->stored->pages_to_come)
        return false;
    if (target_ended(controller, job) || source_took_pages_along(controller, job)) {
        note_why_lost(controller, job);
        job_go(controller, job, "lost");
        return true;
    }
    const struct claim *there = target_claim(job);
    bool held = there && there->said && there->said->state == VMPOOL__VM_STATE__VM_PAUSED;
    if (is_lost(migrate_target(controller, job)))
        job_say(controller, job,
                "waiting: %s is lost, where the VM is, in post-copy: with it the guest is lost",
                to);
    else if (is_lost(source))
        job_say(controller, job,
                "waiting: %s is lost and has pages of the VM, which is paused on %s until it is "
                "back; if it is gone for good: poolctl node rm %s --force",
                from, to, from);
    else if (held)
        job_say(controller, job, "paused on %s: its link to %s, which has pages of it, is lost", to,
                from);
    else
        job_say(controller, job, "runs on %s; fetching the rest of its memory from %s", to, from);
    return true;
}

/* ---- the guest is lost ---- */

static void after_lost(struct controller *controller, struct job *job)
{
    job->stored->cancelled = false; /* it came too late */
    migrate_keep_progress(job);
    (void)vm_happens(controller, job->vm, VM_EVENT_CRASHED, job->stored->failure->text);
    event_add(controller, "error", "migration.lost", job->stored->subject, job->stored->id, "%s",
              job->stored->failure->text);
    job_fail(controller, job, ERROR_FAILED, "%s", job->stored->failure->text);
}

void migrate_on_lost(struct controller *controller, struct job *job, const struct job_event *event)
{
    const struct node *target = migrate_target(controller, job);
    switch (event->what) {
    case JOB_ENTER:
        if (!target || is_lost(target)) {
            after_lost(controller, job);
            break;
        }
        job_limit(job, controller->config.command_timeout_ms);
        migrate_send(controller, job, target, VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD,
                     job->stored->next_epoch);
        break;
    case JOB_ANSWER:
    case JOB_TIMEOUT:
        after_lost(controller, job);
        break;
    case JOB_NODE:
        if (!target || is_lost(target))
            after_lost(controller, job);
        break;
    default:
        break;
    }
}
