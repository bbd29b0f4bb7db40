#include "controller/migrate.h"

#include <stdio.h>

#include "controller/pb.h"
#include "controller/placement.h"

struct node *migrate_source(const struct controller *controller, const struct job *job)
{
    return node_by_id(controller, job->stored->source_node);
}

struct node *migrate_target(const struct controller *controller, const struct job *job)
{
    return node_by_id(controller, job->stored->target_node);
}

/* ---- commands ---- */

void migrate_send(struct controller *controller, struct job *job, const struct node *node,
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

void migrate_send_prepare(struct controller *controller, struct job *job, const struct node *target)
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

void migrate_send_out(struct controller *controller, struct job *job, const struct node *source)
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

void migrate_send_cancel(struct controller *controller, struct job *job, const struct node *source)
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
    const struct node *source = migrate_source(controller, job);
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

void migrate_keep_progress(struct job *job)
{
    const Vmpool__MigrationReview *review = job->stored->review;
    Vmpool__Store__Vm *vm = job->vm->stored;
    if (!job->stored->migration)
        return;
    pb_free(vm->last_migration);
    vm->last_migration = pb_copy(&job->stored->migration->base);
    pb_free(vm->last_review);
    vm->last_review = review && review->duration_us ? pb_copy(&review->base) : NULL;
}

void migrate_fail_at_source(struct controller *controller, struct job *job)
{
    const Vmpool__Failure *why = job->stored->failure;
    const Vmpool__MigrationProgress *progress = job->stored->migration;
    char text[ERROR_TEXT_MAX];
    enum error_kind kind = why ? (enum error_kind)why->kind : ERROR_FAILED;
    const char *reason = job->stored->cancelled          ? "cancelled"
                         : why                           ? why->text
                         : progress && progress->text[0] ? progress->text
                                                         : "the source gave no reason";
    migrate_keep_progress(job);
    settle_at_source(controller, job);
    const char *word = job->vm->stored->text;
    (void)snprintf(text, sizeof text, "%s; the VM is %s on %s%s%s", reason,
                   vm_phase_name(job->vm->stored->phase), job->stored->from_name,
                   word[0] ? ": " : "", word);
    job_fail(controller, job, kind, "%s", text);
}
