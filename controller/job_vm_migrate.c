/*
 * vm-migrate: place -> prepare -> stream -> accept, the handover of docs/architecture.md.
 *
 * Whatever goes wrong in "stream" is decided by handover_decide() from what both ends say; each
 * decision is a step of its own, so that a restart goes on with it:
 *
 *     prepare refused        undo        discard the target, ask the next host
 *     source keeps the VM    abandon     discard the target, end
 *     source is lost, target
 *       has nothing          leave       make sure of it, end; the VM is as unknown as its node
 *     target may run         run-target  RUN at the new epoch
 *     target has nothing     take-back   DISCARD; on its word run-source at an epoch above
 *     nobody can go on       gone        discard the target, the VM has failed
 *     target runs            accept      record it, discard the source
 */
#include "controller/job_vm_migrate.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/migration_words.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/uuid.h"

#define HOSTS_MAX 5
/* Times --lost-after. */
#define LONG_LOST 4

static struct node *source_of(const struct controller *controller, const struct job *job)
{
    return node_by_id(controller, job->stored->source_node);
}

static struct node *target_of(const struct controller *controller, const struct job *job)
{
    return node_by_id(controller, job->stored->target_node);
}

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
    journal->parent = parent;
    return job_begin(controller, &job_vm_migrate, "place", journal, vm);
}

/* ---- commands ---- */

static void send_vm_command(struct controller *controller, struct job *job, const struct node *node,
                            Vmpool__NodeVmCommand__Action action, uint64_t epoch)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand body = VMPOOL__NODE_VM_COMMAND__INIT;
    body.vm_id = job->stored->vm_id;
    body.epoch = epoch;
    body.action = action;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    command.vm_command = &body;
    if (node)
        job_command(controller, job, node, &command);
}

static void send_prepare(struct controller *controller, struct job *job, const struct node *target)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeMigratePrepare body = VMPOOL__NODE_MIGRATE_PREPARE__INIT;
    body.migration_id = job->stored->migration_id;
    body.spec = job->vm->stored->spec;
    body.next_epoch = job->stored->next_epoch;
    body.key = job->stored->migration_key;
    body.limits = job->stored->limits;
    body.source_node = job->stored->from_name;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_PREPARE;
    command.migrate_prepare = &body;
    job_command(controller, job, target, &command);
}

static void send_out(struct controller *controller, struct job *job, const struct node *source)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeMigrateOut body = VMPOOL__NODE_MIGRATE_OUT__INIT;
    body.migration_id = job->stored->migration_id;
    body.vm_id = job->stored->vm_id;
    body.epoch = job->vm->stored->epoch;
    body.next_epoch = job->stored->next_epoch;
    body.address = job->stored->address;
    body.port = job->stored->port;
    body.key = job->stored->migration_key;
    body.limits = job->stored->limits;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_OUT;
    command.migrate_out = &body;
    job_command(controller, job, source, &command);
}

static void send_cancel(struct controller *controller, struct job *job, const struct node *source)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeMigrateCancel body = VMPOOL__NODE_MIGRATE_CANCEL__INIT;
    body.migration_id = job->stored->migration_id;
    body.vm_id = job->stored->vm_id;
    body.epoch = job->vm->stored->epoch;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_CANCEL;
    command.migrate_cancel = &body;
    job_command(controller, job, source, &command);
}

/* ---- ends ---- */

/* The VM stays where it was: what it is there now is what its node last said. */
static void settle_at_source(struct controller *controller, struct job *job)
{
    const struct node *source = source_of(controller, job);
    const struct claim *claim = vm_claim_of(job->vm, job->stored->source_node);
    placement_release_target(controller, job->vm);
    if (!source)
        (void)vm_happens(controller, job->vm, VM_EVENT_CRASHED, "its node was removed for good");
    else if (source->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        (void)vm_happens(controller, job->vm, VM_EVENT_NODE_LOST, "its node is lost");
    else if (claim && claim->said && claim->said->state == VMPOOL__VM_STATE__VM_STOPPED)
        (void)vm_happens(controller, job->vm, VM_EVENT_STOPPED, "powered off");
    else if (claim && (!claim->said || claim->said->state == VMPOOL__VM_STATE__VM_PANICKED ||
                       claim->said->state == VMPOOL__VM_STATE__VM_FAILED))
        (void)vm_happens(controller, job->vm, VM_EVENT_CRASHED,
                         claim->said && claim->said->text[0] ? claim->said->text
                                                             : "its VMM is gone");
    else
        (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
}

static void keep_migration(struct job *job)
{
    if (!job->stored->migration)
        return;
    pb_free(job->vm->stored->last_migration);
    job->vm->stored->last_migration = pb_copy(&job->stored->migration->base);
}

static void fail_at_source(struct controller *controller, struct job *job)
{
    const Vmpool__Failure *why = job->stored->failure;
    const Vmpool__MigrationProgress *progress = job->stored->migration;
    char text[ERROR_TEXT_MAX];
    enum error_kind kind = why ? (enum error_kind)why->kind : ERROR_FAILED;
    const char *reason = job->stored->cancelled          ? "cancelled"
                         : why                           ? why->text
                         : progress && progress->text[0] ? progress->text
                                                         : "the source gave no reason";
    keep_migration(job);
    settle_at_source(controller, job);
    (void)snprintf(text, sizeof text, "%s; the VM is %s on %s", reason,
                   vm_phase_name(job->vm->stored->phase), job->stored->from_name);
    job_fail(controller, job, kind, "%s", text);
}

/* ---- place ---- */

static void on_place(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct error err = ERROR_INIT;
    struct vm *vm = job->vm;
    uint8_t key[32];
    char id[UUID_SIZE];
    if (event->what == JOB_CANCEL) {
        fail_at_source(controller, job);
        return;
    }
    if (event->what != JOB_ENTER)
        return;
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
    if (!target) {
        pb_free(answer);
        if (!job->stored->failure)
            job_keep_failure(job, err.kind, err.text);
        fail_at_source(controller, job);
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
    job->stored->next_epoch = vm_grant_epoch(controller, vm);
    (void)vm_happens(controller, vm, VM_EVENT_MIGRATE, "");
    placement_hold_target(controller, vm, target);
    job_say(controller, job, "preparing %s", target->stored->name);
    job_go(controller, job, "prepare");
}

/* ---- prepare ---- */

static void undo_because(struct controller *controller, struct job *job, enum error_kind kind,
                         const char *text)
{
    const struct node *target = target_of(controller, job);
    char whole[ERROR_TEXT_MAX];
    (void)snprintf(whole, sizeof whole, "%s: %s", target ? target->stored->name : "the target",
                   text);
    job_keep_failure(job, kind, whole);
    job_go(controller, job, "undo");
}

static void on_prepare(struct controller *controller, struct job *job,
                       const struct job_event *event)
{
    struct node *target = target_of(controller, job);
    if (!target && event->what != JOB_NODE) {
        undo_because(controller, job, ERROR_UNREACHABLE, "it was removed");
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        placement_hold_target(controller, job->vm, target);
        if (job->deadline_ms == 0)
            job_limit(job, controller->config.command_timeout_ms);
        send_prepare(controller, job, target);
        break;
    case JOB_ANSWER:
        if (event->answer->failure) {
            undo_because(controller, job, (enum error_kind)event->answer->failure->kind,
                         event->answer->failure->text);
        } else if (event->answer->port == 0 || event->answer->port > 65535) {
            undo_because(controller, job, ERROR_FAILED, "it named no port to migrate to");
        } else {
            pb_set(&job->stored->address, event->answer->address);
            job->stored->port = event->answer->port;
            job_go(controller, job, "stream");
        }
        break;
    case JOB_TIMEOUT:
        undo_because(controller, job, ERROR_TIMEOUT, "it did not get ready in time");
        break;
    case JOB_CANCEL:
        job_go(controller, job, "undo");
        break;
    case JOB_NODE:
        if (!target || target->phase == VMPOOL__NODE_PHASE__NODE_LOST)
            undo_because(controller, job, ERROR_UNREACHABLE, "it was lost");
        break;
    default:
        break;
    }
}

/* ---- discarding the target: undo, abandon, gone ---- */

/* A DISCARD at the new epoch also throws away a target that runs: right only where the source has
 * said that it never gave up, or nobody can. At the epoch below, an agent refuses it for a copy
 * that is ready or runs. */
static void send_discard(struct controller *controller, struct job *job, const struct node *target,
                         bool also_running)
{
    uint64_t epoch = job->stored->next_epoch;
    send_vm_command(controller, job, target, VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD,
                    also_running ? epoch : epoch - 1);
}

typedef void (*after_fn)(struct controller *controller, struct job *job);

/* The end does not depend on the target's word here: without the source's GO its copy never runs,
 * and what is left of it is discarded when its node reports (reconcile.h). */
static void discard_target(struct controller *controller, struct job *job,
                           const struct job_event *event, after_fn after)
{
    struct node *target = target_of(controller, job);
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
    bool runs = claim && claim->said && claim->said->state == VMPOOL__VM_STATE__VM_RUNNING;
    placement_release_target(controller, job->vm);
    if (job->stored->cancelled || job->stored->wanted_node[0] || !runs) {
        fail_at_source(controller, job);
        return;
    }
    event_add(controller, "warning", "migration.refused", job->stored->subject, job->stored->id,
              "%s", job->stored->failure ? job->stored->failure->text : "");
    pb_push_text(&job->stored->tried_nodes, &job->stored->n_tried_nodes, job->stored->target_node);
    job_go(controller, job, "place");
}

static void on_undo(struct controller *controller, struct job *job, const struct job_event *event)
{
    discard_target(controller, job, event, after_undo);
}

static void on_abandon(struct controller *controller, struct job *job,
                       const struct job_event *event)
{
    discard_target(controller, job, event, fail_at_source);
}

static void after_gone(struct controller *controller, struct job *job)
{
    const struct claim *claim = vm_claim_of(job->vm, job->stored->source_node);
    keep_migration(job);
    placement_release_target(controller, job->vm);
    if (claim && claim->said && claim->said->state == VMPOOL__VM_STATE__VM_STOPPED)
        (void)vm_happens(controller, job->vm, VM_EVENT_STOPPED, "powered off while it migrated");
    else
        (void)vm_happens(controller, job->vm, VM_EVENT_CRASHED,
                         "it ended while it migrated; start it again");
    job_fail(controller, job, ERROR_FAILED, "the VM ended while it migrated: it is %s",
             vm_phase_name(job->vm->stored->phase));
}

static void on_gone(struct controller *controller, struct job *job, const struct job_event *event)
{
    discard_target(controller, job, event, after_gone);
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
    const struct node *source = source_of(controller, job);
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
        job_go(controller, job, source == SOURCE_LOST ? "leave" : "abandon");
        break;
    case HANDOVER_GONE:
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
    struct node *source = source_of(controller, job);
    struct node *target = target_of(controller, job);
    if (target)
        placement_hold_target(controller, job->vm, target);
    if (job->deadline_ms == 0 && job->decide_ms == 0)
        job_limit(job, whole_limit_ms(controller, job));
    if (source && !job->stored->gave_up) {
        if (job->stored->cancelled || job->stored->failure)
            send_cancel(controller, job, source);
        else
            send_out(controller, job, source);
    }
    decide(controller, job);
}

static void cancel_stream(struct controller *controller, struct job *job)
{
    const struct node *source = source_of(controller, job);
    if (!source || job->stored->gave_up)
        return; /* too late: the handover decides */
    job_next_command(controller, job);
    job_say(controller, job, "cancelling");
    send_cancel(controller, job, source);
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

/* In the steps below a decision was made, but the ends may still prove that it isn't needed. */
static bool target_runs(struct controller *controller, struct job *job,
                        const struct job_event *event)
{
    if (event->what == JOB_CLAIM)
        (void)migration_note_progress(job, event->claim->said);
    return migration_target_word(controller, job) == TARGET_RAN;
}

static void on_run_target(struct controller *controller, struct job *job,
                          const struct job_event *event)
{
    struct node *target = target_of(controller, job);
    if (target_runs(controller, job, event)) {
        job_go(controller, job, "accept");
        return;
    }
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "letting %s run", job->stored->to_name);
        send_vm_command(controller, job, target, VMPOOL__NODE_VM_COMMAND__ACTION__RUN,
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

static void on_take_back(struct controller *controller, struct job *job,
                         const struct job_event *event)
{
    struct node *target = target_of(controller, job);
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
    if (!target && job->kind->steps[job->step].on == on_take_back) {
        job->stored->next_epoch = vm_grant_epoch(controller, job->vm);
        job_go(controller, job, "run-source");
    }
}

static void on_leave(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *target = target_of(controller, job);
    if (target_runs(controller, job, event)) {
        job_go(controller, job, "accept");
        return;
    }
    if (event->what == JOB_ENTER && target)
        send_discard(controller, job, target, false);
    else if (event->what == JOB_ANSWER && event->answer->failure)
        job_go(controller, job, "stream");
    else if (event->what == JOB_ANSWER || !target) {
        if (!job->stored->failure)
            job_keep_failure(job, ERROR_UNREACHABLE, "the source was lost");
        fail_at_source(controller, job);
    }
}

static void on_run_source(struct controller *controller, struct job *job,
                          const struct job_event *event)
{
    struct node *source = source_of(controller, job);
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "letting %s run on", job->stored->from_name);
        send_vm_command(controller, job, source, VMPOOL__NODE_VM_COMMAND__ACTION__RUN,
                        job->stored->next_epoch);
        break;
    case JOB_ANSWER:
        if (event->answer->failure) {
            job_keep_failure(job, event->answer->failure->kind, event->answer->failure->text);
            job_go(controller, job, "gone");
            break;
        }
        vm_set_owner(controller, job->vm, source, job->stored->next_epoch);
        (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
        job_keep_failure(job, ERROR_FAILED, "the target lost its copy before it ran");
        fail_at_source(controller, job);
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
    struct node *target = target_of(controller, job);
    struct node *source = source_of(controller, job);
    if (target && job->vm->stored->epoch != job->stored->next_epoch) {
        placement_release_target(controller, job->vm);
        vm_set_owner(controller, job->vm, target, job->stored->next_epoch);
        (void)vm_happens(controller, job->vm, VM_EVENT_MIGRATED, "");
        event_add(controller, "info", "migration.completed", job->stored->subject, job->stored->id,
                  "runs on %s, came from %s", job->stored->to_name, job->stored->from_name);
    }
    if (job->deadline_ms == 0)
        job_limit(job, controller->config.command_timeout_ms);
    job_say(controller, job, "runs on %s; cleaning up on %s", job->stored->to_name,
            job->stored->from_name);
    send_vm_command(controller, job, source, VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD,
                    job->stored->next_epoch);
}

static void accepted(struct controller *controller, struct job *job)
{
    if (job->stored->migration)
        job->stored->migration->phase = VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED;
    keep_migration(job);
    vm_save(controller, job->vm);
    job->stored->cancelled = false; /* it came too late */
    job_done(controller, job, "runs on %s", job->stored->to_name);
}

static void on_accept(struct controller *controller, struct job *job, const struct job_event *event)
{
    const struct node *source = source_of(controller, job);
    bool lost = !source || source->phase == VMPOOL__NODE_PHASE__NODE_LOST;
    switch (event->what) {
    case JOB_ENTER:
        enter_accept(controller, job);
        if (lost)
            accepted(controller, job);
        break;
    case JOB_CLAIM:
        (void)migration_note_progress(job, event->claim->said);
        break;
    case JOB_ANSWER:
        (void)migration_note_progress(job, event->answer->vm);
        accepted(controller, job);
        break;
    case JOB_TIMEOUT:
        accepted(controller, job);
        break;
    case JOB_NODE:
        if (lost)
            accepted(controller, job);
        break;
    default:
        break;
    }
}

static const struct job_step steps[] = {
    {"place", on_place},           {"prepare", on_prepare},       {"undo", on_undo},
    {"stream", on_stream},         {"run-target", on_run_target}, {"take-back", on_take_back},
    {"run-source", on_run_source}, {"abandon", on_abandon},       {"gone", on_gone},
    {"accept", on_accept},         {"leave", on_leave},
};

const struct job_kind job_vm_migrate = {"vm-migrate", steps, sizeof steps / sizeof *steps, true};
