/*
 * node-drain: moves every running VM away, as fast as migrations get their turn. The node takes no
 * new VM from the moment the job is written; where some can't move, the job fails and says which,
 * and the node stays draining.
 */
#include <stdio.h>
#include <string.h>

#include "controller/events.h"
#include "controller/job_children.h"
#include "controller/job_vm_migrate.h"
#include "controller/pb.h"

/* How often VMs that other jobs work on are looked at again. */
#define LOOK_AGAIN_MS 1000

static bool has_failed(const struct job *job, const struct vm *vm)
{
    for (size_t i = 0; i < job->stored->n_failed_vms; i++)
        if (strcmp(job->stored->failed_vms[i], vm->stored->spec->name) == 0)
            return true;
    return false;
}

static bool is_here(const struct vm *vm, const struct node *node)
{
    return strcmp(vm->stored->node_id, node->stored->id) == 0 &&
           vm_phase_holds_host(vm->stored->phase);
}

static bool can_move(const struct job *job, const struct vm *vm)
{
    return vm->stored->phase == VMPOOL__VM_PHASE__PHASE_RUNNING && !vm->job &&
           !vm_has_local_disks(vm) && !has_failed(job, vm);
}

/* One a time, as each takes room that the next one's choice must know of. */
static bool start_child(struct controller *controller, struct job *job, const struct node *node)
{
    if (!job_may_begin_child(controller, job))
        return false;
    for (struct vm *vm = controller->vms; vm; vm = vm->next)
        if (is_here(vm, node) && can_move(job, vm)) {
            (void)job_vm_migrate_begin(controller, vm, "", job->stored->limits, job->stored->admin,
                                       job->stored->id);
            return true;
        }
    return false;
}

/* VMs still on the node that another job may yet move or end. */
static unsigned busy(const struct controller *controller, const struct node *node)
{
    unsigned count = 0;
    for (const struct vm *vm = controller->vms; vm; vm = vm->next)
        count += is_here(vm, node) && vm->job;
    return count;
}

static unsigned describe_rest(const struct controller *controller, const struct node *node,
                              char *out, size_t size)
{
    unsigned count = 0;
    size_t used = 0;
    for (const struct vm *vm = controller->vms; vm; vm = vm->next) {
        if (!is_here(vm, node))
            continue;
        const char *why = vm_has_local_disks(vm) ? "has local disks: stop it"
                          : vm->stored->phase == VMPOOL__VM_PHASE__PHASE_RUNNING
                              ? "could not be moved: see its job"
                              : vm_phase_name(vm->stored->phase);
        int length = count < 5 ? snprintf(out + used, size - used, "%s%s (%s)", count ? ", " : "",
                                          vm->stored->spec->name, why)
                               : 0;
        if (length > 0 && (size_t)length < size - used)
            used += (size_t)length;
        count++;
    }
    return count;
}

static void finish(struct controller *controller, struct job *job, struct node *node)
{
    char rest[512] = "";
    unsigned left = describe_rest(controller, node, rest, sizeof rest);
    if (job->stored->cancelled) {
        job_fail(controller, job, ERROR_FAILED,
                 "cancelled after %u moved; %s still takes no new VM: \"poolctl node undrain %s\" "
                 "ends that",
                 job->stored->moved, node->stored->name, node->stored->name);
    } else if (left > 0) {
        job_fail(controller, job, ERROR_CONFLICT, "%u moved, %u still on %s: %s%s",
                 job->stored->moved, left, node->stored->name, rest, left > 5 ? ", ..." : "");
    } else {
        event_add(controller, "info", "node.drained", node->stored->name, job->stored->id,
                  "nothing runs on it");
        job_done(controller, job, "%u moved; nothing runs on %s", job->stored->moved,
                 node->stored->name);
        /* Last, as running jobs hear of it. */
        node_set_draining(controller, node, true, true);
    }
}

static void go_on(struct controller *controller, struct job *job)
{
    struct node *node = node_by_id(controller, job->stored->node_id);
    if (!node) {
        job_fail(controller, job, ERROR_NOT_FOUND, "the node was removed");
        return;
    }
    if (!job->stored->cancelled && node->phase != VMPOOL__NODE_PHASE__NODE_LOST &&
        start_child(controller, job, node)) {
        job_again(controller, job);
        return;
    }
    if (job->children > 0 || (!job->stored->cancelled && busy(controller, node) > 0)) {
        job_say_children(controller, job);
        job_limit(job, LOOK_AGAIN_MS);
        return;
    }
    finish(controller, job, node);
}

static void on_move(struct controller *controller, struct job *job, const struct job_event *event)
{
    if (job_tend_children(controller, job, event))
        go_on(controller, job);
}

static const struct job_step steps[] = {{"move", on_move}};
const struct job_kind job_node_drain = {"node-drain", steps, 1, 1, true};
