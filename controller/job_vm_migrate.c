/*
 * vm-migrate: place -> queue -> prepare -> ready -> stream -> accept, the handover of
 * docs/architecture.md. In queue and ready it waits for its turn (migrate_queue.h).
 *
 * Whatever goes wrong in "stream" is decided by handover_decide() from what both ends say; each
 * decision is a step of its own, so that a restart goes on with it:
 *
 *     prepare refused        undo        discard the target, ask the next host
 *     source keeps the VM    abandon     discard the target, end
 *     source is lost or has
 *       died, target has
 *       nothing              leave       make sure of it, end; the VM is unknown or has failed
 *     target may run         run-target  RUN at the new epoch
 *     target has nothing     take-back   DISCARD; on its word run-source at an epoch above
 *     nobody can go on       gone        discard the target, the VM has failed
 *     target runs            accept      record it, discard the source; in post-copy, once it has
 *                                        delivered all pages: see migrate_postcopy.c
 */
#include "controller/job_vm_migrate.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/migrate.h"
#include "controller/migrate_review.h"
#include "controller/migration_words.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/uuid.h"

#define HOSTS_MAX 5
/* Times --lost-after. */
#define LONG_LOST 4

struct job *job_vm_migrate_begin(struct controller *controller, struct vm *vm,
                                 const char *wanted_node, const Vmpool__MigrationLimits *limits,
                                 const char *admin, uint64_t parent)
{
    Vmpool__Store__Job *journal = job_journal(vm->stored->spec->name, admin);
    const struct node *source = vm_node(controller, vm);
    pb_set(&journal->source_node, source->stored->id);
    pb_set(&journal->from_name, source->stored->name);
    pb_set(&journal->wanted_node, wanted_node);
    journal->limits = limits ? pb_copy(&limits->base) : NULL;
    if (vm->stored->spec->no_postcopy) {
        const Vmpool__MigrationLimits none = VMPOOL__MIGRATION_LIMITS__INIT;
        if (!journal->limits)
            journal->limits = pb_copy(&none.base);
        journal->limits->no_postcopy = true;
    }
    journal->parent = parent;
    return job_begin(controller, &job_vm_migrate, "place", journal, vm);
}

/* ---- place ---- */

static void on_place(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct error err = ERROR_INIT;
    struct vm *vm = job->vm;
    uint8_t key[32];
    char id[UUID_SIZE];
    if (event->what == JOB_CANCEL) {
        migrate_fail_at_source(controller, job);
        return;
    }
    if (event->what != JOB_ENTER && event->what != JOB_NODE)
        return;
    if (vm->stored->phase != VMPOOL__VM_PHASE__PHASE_RUNNING) {
        job_keep_failure(job, ERROR_CONFLICT, "it does not run any more");
        migrate_fail_at_source(controller, job);
        return;
    }
    struct placement_question question = {
        .spec = vm->stored->spec,
        .selector = vm->stored->selector,
        .selector_count = vm->stored->n_selector,
        .only_node = job->stored->wanted_node[0] ? job->stored->wanted_node : NULL,
        .not_node = job->stored->from_name,
        .tried = job->stored->tried_nodes,
        .tried_count = job->stored->n_tried_nodes,
    };
    Vmpool__Placement *answer = NULL;
    struct node *target = job->stored->n_tried_nodes < HOSTS_MAX
                              ? placement_choose(controller, &question, &answer, &err)
                              : NULL;
    if (target && getrandom(key, sizeof key, 0) != (ssize_t)sizeof key) {
        (void)error_set(&err, ERROR_FAILED, "no random bytes for the migration's key");
        target = NULL;
    }
    if (!target && nodes_settling(controller)) {
        pb_free(answer);
        job_say(controller, job, "waiting until all nodes have reported");
        return; /* JOB_NODE comes as each does */
    }
    if (!target) {
        pb_free(answer);
        if (!job->stored->failure)
            job_keep_failure(job, err.kind, err.text);
        migrate_fail_at_source(controller, job);
        return;
    }
    pb_free(job->stored->failure); /* of a host that refused before */
    job->stored->failure = NULL;
    pb_free(job->stored->placement);
    job->stored->placement = answer;
    pb_set(&job->stored->target_node, target->stored->id);
    pb_set(&job->stored->to_name, target->stored->name);
    pb_set(&job->stored->migration_id, uuid_make(id));
    pb_set_bytes(&job->stored->migration_key, key, sizeof key);
    job_go(controller, job, "queue");
}

/* ---- prepare ---- */

void migrate_undo_because(struct controller *controller, struct job *job, enum error_kind kind,
                          const char *text)
{
    const struct node *target = migrate_target(controller, job);
    char whole[ERROR_TEXT_MAX];
    (void)snprintf(whole, sizeof whole, "%s: %s", target ? target->stored->name : "the target",
                   text);
    job_keep_failure(job, kind, whole);
    job_go(controller, job, "undo");
}

static void on_prepare(struct controller *controller, struct job *job,
                       const struct job_event *event)
{
    struct node *target = migrate_target(controller, job);
    if (!target && event->what != JOB_NODE) {
        migrate_undo_because(controller, job, ERROR_UNREACHABLE, "it was removed");
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        placement_hold_target(controller, job->vm, target);
        if (job->deadline_ms == 0)
            job_limit(job, controller->config.command_timeout_ms);
        migrate_send_prepare(controller, job, target);
        break;
    case JOB_ANSWER:
        if (event->answer->failure) {
            migrate_undo_because(controller, job, (enum error_kind)event->answer->failure->kind,
                                 event->answer->failure->text);
        } else if (event->answer->port == 0 || event->answer->port > 65535) {
            migrate_undo_because(controller, job, ERROR_FAILED, "it named no port to migrate to");
        } else {
            pb_set(&job->stored->address, event->answer->address);
            job->stored->port = event->answer->port;
            migrate_review_ready(job);
            job_go(controller, job, "ready");
        }
        break;
    case JOB_TIMEOUT:
        migrate_undo_because(controller, job, ERROR_TIMEOUT, "it did not get ready in time");
        break;
    case JOB_CANCEL:
        job_go(controller, job, "undo");
        break;
    case JOB_NODE:
        if (!target || target->phase == VMPOOL__NODE_PHASE__NODE_LOST)
            migrate_undo_because(controller, job, ERROR_UNREACHABLE, "it was lost");
        break;
    default:
        break;
    }
}

/* ---- stream and what it comes to ---- */

static void say_waiting(struct controller *controller, struct job *job, enum source_word source,
                        enum target_word target)
{
    const char *to = job->stored->to_name, *from = job->stored->from_name;
    if (source == SOURCE_STREAMING && target != TARGET_LOST)
        job_say(controller, job, "streaming from %s to %s", from, to);
    else
        job_say(controller, job, "waiting: the source %s %s, the target %s %s", from,
                handover_source_name(source), to, handover_target_name(target));
}

/* Gives the normal course time to end by itself before we decide; true where that time is over. */
static bool time_to_decide(struct controller *controller, struct job *job)
{
    int64_t now_ms = clock_monotonic_ms();
    if (job->decide_ms == 0) {
        job->decide_ms = now_ms + (int64_t)controller->config.handover_grace_ms;
        job_limit(job, controller->config.handover_grace_ms);
    }
    return now_ms >= job->decide_ms;
}

/* A source that is lost may only be restarting its agent: what the target receives is thrown away
 * only after a while. */
static bool source_is_long_lost(struct controller *controller, struct job *job)
{
    const struct node *source = migrate_source(controller, job);
    int64_t limit_ms = (int64_t)controller->config.lost_after_ms * LONG_LOST;
    int64_t silent_ms = source ? clock_monotonic_ms() - source->heard_ms : limit_ms;
    if (silent_ms < limit_ms)
        job_limit(job, (uint64_t)(limit_ms - silent_ms));
    return silent_ms >= limit_ms;
}

static void note_gave_up(struct controller *controller, struct job *job)
{
    if (job->stored->gave_up)
        return;
    job->stored->gave_up = true;
    (void)vm_happens(controller, job->vm, VM_EVENT_GAVE_UP, "the handover is under way");
    job_save(controller, job);
}

static void decide(struct controller *controller, struct job *job)
{
    enum source_word source = migration_source_word(controller, job);
    enum target_word target = migration_target_word(controller, job);
    enum handover_decision decision = handover_decide(source, target);
    if (source == SOURCE_GAVE_UP)
        note_gave_up(controller, job);
    if (decision != HANDOVER_WAIT && decision != HANDOVER_ACCEPT && decision != HANDOVER_ABANDON &&
        !time_to_decide(controller, job))
        return;
    /* A target that is ready by post-copy needs its source's process. */
    if (source == SOURCE_DIED_LATE && target == TARGET_READY && job->stored->pages_to_come)
        decision = HANDOVER_GONE;
    if (source == SOURCE_LOST && target == TARGET_PREPARING &&
        !source_is_long_lost(controller, job))
        decision = HANDOVER_WAIT;
    if (decision != HANDOVER_WAIT && decision != HANDOVER_ACCEPT)
        log_info("job %llu: the source %s, the target %s: %s", (unsigned long long)job->stored->id,
                 handover_source_name(source), handover_target_name(target),
                 handover_decision_name(decision));
    switch (decision) {
    case HANDOVER_WAIT:
        say_waiting(controller, job, source, target);
        break;
    case HANDOVER_ACCEPT:
        job_go(controller, job, "accept");
        break;
    case HANDOVER_RUN_TARGET:
        job_go(controller, job, "run-target");
        break;
    case HANDOVER_TAKE_BACK:
        job_go(controller, job, "take-back");
        break;
    case HANDOVER_ABANDON:
        job_go(controller, job, "abandon");
        break;
    case HANDOVER_LEAVE:
        job_go(controller, job, "leave");
        break;
    case HANDOVER_GONE:
        /* Where it ran the guest wrote to its disks: what the source has is never taken back. */
        if (target == TARGET_BROKE && migrate_target(controller, job))
            vm_set_owner(controller, job->vm, migrate_target(controller, job),
                         job->stored->next_epoch);
        job_go(controller, job, "gone");
        break;
    }
}

static uint64_t whole_limit_ms(const struct controller *controller, const struct job *job)
{
    uint64_t asked_ms = job->stored->limits ? job->stored->limits->timeout_ms : 0;
    return asked_ms ? asked_ms : controller->config.migrate_timeout_ms;
}

static void enter_stream(struct controller *controller, struct job *job)
{
    struct node *source = migrate_source(controller, job);
    struct node *target = migrate_target(controller, job);
    if (target)
        placement_hold_target(controller, job->vm, target);
    if (job->deadline_ms == 0 && job->decide_ms == 0)
        job_limit(job, whole_limit_ms(controller, job));
    if (source && !job->stored->gave_up) {
        if (job->stored->cancelled || job->stored->failure)
            migrate_send_cancel(controller, job, source);
        else
            migrate_send_out(controller, job, source);
    }
    decide(controller, job);
}

static void cancel_stream(struct controller *controller, struct job *job)
{
    const struct node *source = migrate_source(controller, job);
    if (!source || job->stored->gave_up)
        return; /* too late: the handover decides */
    job_next_command(controller, job);
    job_say(controller, job, "cancelling");
    migrate_send_cancel(controller, job, source);
}

static void on_stream(struct controller *controller, struct job *job, const struct job_event *event)
{
    switch (event->what) {
    case JOB_ENTER:
        enter_stream(controller, job);
        break;
    case JOB_ANSWER:
        job->settled_ms = clock_monotonic_ms();
        if (event->answer->failure && !job->stored->failure && !job->stored->cancelled) {
            char text[ERROR_TEXT_MAX];
            (void)snprintf(text, sizeof text, "%s: %s", job->stored->from_name,
                           event->answer->failure->text);
            job_keep_failure(job, event->answer->failure->kind, text);
            job_save(controller, job);
        }
        break;
    case JOB_CLAIM:
        if (migration_note_progress(job, event->claim->said))
            job_show(controller, job);
        decide(controller, job);
        break;
    case JOB_NODE:
        decide(controller, job);
        break;
    case JOB_TIMEOUT:
        if (clock_monotonic_ms() - job->entered_ms >= (int64_t)whole_limit_ms(controller, job)) {
            job_keep_failure(job, ERROR_TIMEOUT,
                             "it took longer than its limit: lighten the guest's load or give it "
                             "more --timeout");
            cancel_stream(controller, job);
        }
        decide(controller, job);
        break;
    case JOB_CANCEL:
        cancel_stream(controller, job);
        break;
    default:
        break;
    }
}

static const struct job_step steps[] = {
    {"place", on_place},
    {"queue", migrate_on_queue},
    {"prepare", on_prepare},
    {"ready", migrate_on_ready},
    {"stream", on_stream},
    {"accept", migrate_on_accept},
    {"undo", migrate_on_undo},
    {"run-target", migrate_on_run_target},
    {"take-back", migrate_on_take_back},
    {"run-source", migrate_on_run_source},
    {"abandon", migrate_on_abandon},
    {"leave", migrate_on_leave},
    {"gone", migrate_on_gone},
    {"lost", migrate_on_lost},
};

const struct job_kind job_vm_migrate = {"vm-migrate", steps, sizeof steps / sizeof *steps, 6, true};
