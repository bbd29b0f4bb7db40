/* Nodes: list, drain, undrain, remove. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "controller/api.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/keys.h"
#include "controller/pb.h"
#include "controller/placement.h"

static void reply_nodes(const struct controller *controller, struct api_call *call,
                        const struct node *only)
{
    Vmpool__NodeTable *table = mem_new(sizeof *table);
    vmpool__node_table__init(table);
    for (const struct node *node = only ? only : controller->nodes; node;
         node = only ? NULL : node->next)
        pb_push(&table->nodes, &table->n_nodes, node_describe(controller, node));
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_NODES;
    call->reply.nodes = table;
}

int api_node_list(struct controller *controller, struct api_call *call, struct error *err)
{
    const char *name = call->request->node_list->name;
    struct node *only = name[0] ? api_find_node(controller, name, err) : NULL;
    if (name[0] && !only)
        return -1;
    reply_nodes(controller, call, only);
    return 0;
}

/* ---- drain ---- */

static unsigned vms_on(const struct controller *controller, const struct node *node,
                       bool running_only)
{
    unsigned count = 0;
    for (const struct vm *vm = controller->vms; vm; vm = vm->next)
        count += strcmp(vm->stored->node_id, node->stored->id) == 0 &&
                 (!running_only || vm_phase_holds_host(vm->stored->phase));
    return count;
}

/* Where each VM would go if all moved now: a summary for --dry-run. */
static void plan_drain(struct controller *controller, struct api_call *call,
                       const struct node *node)
{
    Vmpool__Placement *plan = mem_new(sizeof *plan);
    unsigned total = 0, fit = 0;
    vmpool__placement__init(plan);
    for (struct vm *vm = controller->vms; vm; vm = vm->next) {
        struct error err = ERROR_INIT;
        if (strcmp(vm->stored->node_id, node->stored->id) != 0 ||
            !vm_phase_holds_host(vm->stored->phase))
            continue;
        struct placement_question question = {.spec = vm->stored->spec,
                                              .selector = vm->stored->selector,
                                              .selector_count = vm->stored->n_selector,
                                              .not_node = node->stored->name};
        const struct node *target =
            vm_has_local_disks(vm) ? NULL : placement_choose(controller, &question, NULL, &err);
        Vmpool__HostVerdict *verdict = mem_new(sizeof *verdict);
        vmpool__host_verdict__init(verdict);
        pb_set(&verdict->node, target ? target->stored->name : "");
        verdict->fits = target != NULL;
        pb_set(&verdict->vm, vm->stored->spec->name);
        if (!target)
            pb_set(&verdict->reason, vm_has_local_disks(vm) ? "has local disks" : err.text);
        pb_push(&plan->verdicts, &plan->n_verdicts, verdict);
        total++;
        fit += target != NULL;
        /* The next one is asked with this one's place taken; a VM that moves has one already. */
        if (target && !vm->job)
            placement_hold_target(controller, vm, target);
    }
    for (struct vm *vm = controller->vms; vm; vm = vm->next)
        if (strcmp(vm->stored->node_id, node->stored->id) == 0 && !vm->job)
            placement_release_target(controller, vm);
    pb_setf(&plan->summary, "%u of %u running VMs can move away from %s", fit, total,
            node->stored->name);
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_PLACEMENT;
    call->reply.placement = plan;
}

static int drain(struct controller *controller, struct api_call *call, struct node *node,
                 struct error *err)
{
    for (const struct job *job = controller->jobs; job; job = job->next)
        if (job_running(job) && strcmp(job->stored->node_id, node->stored->id) == 0)
            return error_set(err, ERROR_CONFLICT, "job %llu drains %s already",
                             (unsigned long long)job->stored->id, node->stored->name);
    if (node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
        return error_set(err, ERROR_UNREACHABLE,
                         "node %s is lost: nothing can be moved from it until it is back",
                         node->stored->name);
    if (call->request->node_change->dry_run) {
        plan_drain(controller, call, node);
        return 0;
    }
    Vmpool__Store__Job *journal = job_journal(node->stored->name, call->admin);
    pb_set(&journal->node_id, node->stored->id);
    journal->total = vms_on(controller, node, true);
    node_set_draining(controller, node, true, false);
    api_reply_job(call, job_begin(controller, &job_node_drain, "move", journal, NULL));
    return 0;
}

static int undrain(struct controller *controller, struct api_call *call, struct node *node)
{
    struct error err = ERROR_INIT;
    if (!call->request->node_change->dry_run && node->stored->draining) {
        for (struct job *job = controller->jobs; job; job = job->next)
            if (job_running(job) && strcmp(job->stored->node_id, node->stored->id) == 0)
                (void)job_cancel(controller, job, &err);
        node_set_draining(controller, node, false, false);
        event_add(controller, "info", "node.undrained", node->stored->name, 0, "takes VMs again");
    }
    reply_nodes(controller, call, node);
    return 0;
}

/* ---- remove ---- */

static int check_remove(const struct controller *controller, const struct node *node, bool force,
                        struct error *err)
{
    const char *name = node->stored->name;
    bool lost = node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
    unsigned vms = vms_on(controller, node, false);
    if (force && !lost)
        return error_set(err, ERROR_CONFLICT,
                         "node %s reports: --force is for one that is gone for good; drain it, "
                         "then remove it",
                         name);
    if (vms > 0 && !force)
        return error_set(err, ERROR_CONFLICT, "%u VM%s on node %s: %s", vms,
                         vms == 1 ? " is" : "s are", name,
                         lost ? "if the host is dead for good (not only cut off), use --force"
                              : "drain it and remove stopped VMs, then remove it");
    return 0;
}

/* The operator's word that the host is dead: what ran there does not run any more. */
static void lose_vms(struct controller *controller, const struct node *node)
{
    for (struct vm *vm = controller->vms; vm; vm = vm->next) {
        if (strcmp(vm->stored->node_id, node->stored->id) != 0)
            continue;
        if (strcmp(vm->stored->disk_node_id, node->stored->id) == 0) {
            (void)vm_happens(controller, vm, VM_EVENT_CRASHED,
                             "its local disks were on a node that was removed for good");
        } else if (!vm->job) {
            (void)vm_happens(controller, vm, VM_EVENT_CRASHED,
                             "its node was removed for good; start it again");
            if (!vm_phase_holds_host(vm->stored->phase))
                pb_set(&vm->stored->node_id, "");
        }
        vm_save(controller, vm);
    }
}

static int remove_node(struct controller *controller, struct api_call *call, struct node *node,
                       struct error *err)
{
    const Vmpool__NodeChange *change = call->request->node_change;
    if (check_remove(controller, node, change->force, err) < 0)
        return -1;
    reply_nodes(controller, call, node);
    if (change->dry_run)
        return 0;
    lose_vms(controller, node);
    Vmpool__ControllerToNode message = VMPOOL__CONTROLLER_TO_NODE__INIT;
    struct error removed = ERROR_INIT;
    (void)error_set(&removed, ERROR_NOT_FOUND,
                    "this node was removed from the pool: join again with a new token");
    message.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_REFUSED;
    message.refused = pb_failure(&removed);
    (void)node_send(controller, node, &message);
    pb_free(message.refused);
    event_add(controller, "info", "node.removed", node->stored->name, 0, "by %s%s", call->admin,
              change->force ? ", as gone for good" : "");
    keys_remove(controller->keys, node->stored->public_key.data);
    node_delete(controller, node);
    jobs_node_changed(controller);
    return 0;
}

int api_node_change(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__NodeChange *change = call->request->node_change;
    struct node *node = api_find_node(controller, change->name, err);
    if (!node)
        return -1;
    switch (change->action) {
    case VMPOOL__NODE_CHANGE__ACTION__DRAIN:
        return drain(controller, call, node, err);
    case VMPOOL__NODE_CHANGE__ACTION__UNDRAIN:
        return undrain(controller, call, node);
    case VMPOOL__NODE_CHANGE__ACTION__REMOVE:
        return remove_node(controller, call, node, err);
    default:
        return error_set(err, ERROR_USAGE, "a node is drained, undrained or removed");
    }
}
