/*
 * plan: carries out the moves of a plan in their order, as migrations get their turn.
 *
 * A move waits until it fits, as an earlier one may make its room; where it doesn't fit although
 * none is under way, or its VM is no longer where the plan found it, it is left out and the job
 * fails at the end and says so. Each move is a migration of its own.
 */
#include <stdio.h>
#include <string.h>

#include "controller/events.h"
#include "controller/job_children.h"
#include "controller/job_vm_migrate.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/plans.h"

#define LOOK_AGAIN_MS 1000

struct job *job_plan_begin(struct controller *controller, const Vmpool__Plan *plan,
                           const char *admin)
{
    const struct node *node = strcmp(plan->kind, plan_kind_name(PLAN_DRAIN)) == 0
                                  ? node_by_name(controller, plan->node)
                                  : NULL;
    Vmpool__Store__Job *journal = job_journal(plan->kind, admin);
    for (size_t i = 0; i < plan->n_moves; i++)
        pb_push(&journal->moves, &journal->n_moves, pb_copy(&plan->moves[i]->base));
    journal->total = (uint32_t)plan->n_moves;
    if (node)
        pb_set(&journal->node_id, node->stored->id);
    return job_begin(controller, &job_plan, "move", journal, NULL);
}

struct job *job_plan_running(const struct controller *controller)
{
    struct job *job = controller->jobs;
    while (job && (job->kind != &job_plan || !job_running(job)))
        job = job->next;
    return job;
}

static void leave_out(struct job *job, const char *vm)
{
    pb_push_text(&job->stored->failed_vms, &job->stored->n_failed_vms, vm);
    job->stored->next_move++;
}

static bool fits(struct controller *controller, const struct vm *vm, const Vmpool__PlanMove *move)
{
    struct error err = ERROR_INIT;
    struct placement_question question = {.spec = vm->stored->spec,
                                          .selector = vm->stored->selector,
                                          .selector_count = vm->stored->n_selector,
                                          .only_node = move->to,
                                          .not_node = move->from};
    return placement_choose(controller, &question, NULL, &err) != NULL;
}

/* Begins the next move, or leaves it out; false: it has to wait. */
static bool take_next(struct controller *controller, struct job *job)
{
    const Vmpool__PlanMove *move = job->stored->moves[job->stored->next_move];
    struct vm *vm = vm_by_name(controller, move->vm);
    if (vm && vm->job)
        return false;
    if (!vm || vm->stored->phase != VMPOOL__VM_PHASE__PHASE_RUNNING ||
        strcmp(node_name_of(controller, vm->stored->node_id), move->from) != 0) {
        leave_out(job, move->vm);
        return true;
    }
    if (!fits(controller, vm, move)) {
        if (job->children > 0 || nodes_settling(controller))
            return false;
        leave_out(job, move->vm);
        return true;
    }
    job->stored->next_move++;
    (void)job_vm_migrate_begin(controller, vm, move->to, NULL, job->stored->admin, job->stored->id);
    return true;
}

static void name_failed(const struct job *job, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < job->stored->n_failed_vms && i < 5; i++) {
        int length =
            snprintf(out + used, size - used, "%s%s", i ? ", " : "", job->stored->failed_vms[i]);
        if (length > 0 && (size_t)length < size - used)
            used += (size_t)length;
    }
}

static void finish(struct controller *controller, struct job *job)
{
    const Vmpool__Store__Job *stored = job->stored;
    struct node *node = node_by_id(controller, stored->node_id);
    char failed[384] = "";
    name_failed(job, failed, sizeof failed);
    if (stored->cancelled) {
        job_fail(controller, job, ERROR_FAILED, "cancelled after %u of %u moves", stored->moved,
                 stored->total);
    } else if (stored->n_failed_vms > 0) {
        job_fail(controller, job, ERROR_CONFLICT,
                 "%u of %u moved; not moved, as the pool changed or the move failed: %s%s",
                 stored->moved, stored->total, failed, stored->n_failed_vms > 5 ? ", ..." : "");
    } else {
        job_done(controller, job, "%u moved", stored->moved);
        if (node && node->stored->draining && node->vms == 0)
            node_set_draining(controller, node, true, true);
    }
}

static void go_on(struct controller *controller, struct job *job)
{
    const Vmpool__Store__Job *stored = job->stored;
    bool more = !stored->cancelled && stored->next_move < stored->n_moves;
    /* One a time: the next one's room is what this one leaves. */
    if (more && job_may_begin_child(controller, job) && take_next(controller, job)) {
        job_save(controller, job);
        job_again(controller, job);
        return;
    }
    if (job->children == 0 && !more) {
        finish(controller, job);
        return;
    }
    job_say_children(controller, job);
    job_limit(job, LOOK_AGAIN_MS);
}

static void on_move(struct controller *controller, struct job *job, const struct job_event *event)
{
    if (job_tend_children(controller, job, event))
        go_on(controller, job);
}

static const struct job_step steps[] = {{"move", on_move}};
const struct job_kind job_plan = {"plan", steps, 1, 1, true};
