/*
 * vm-create and vm-start: place -> start, and where a host refuses: undo -> the next host.
 *
 * A host that was told to start the VM and is then lost may be running it. The job ends there and
 * the VM is "unknown": starting it elsewhere could make two.
 */
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/pb.h"
#include "controller/placement.h"

/* Hosts asked before the job gives up. */
#define HOSTS_MAX 5

/* ---- the end ---- */

static void fail(struct controller *controller, struct job *job, enum error_kind kind,
                 const char *text)
{
    struct vm *vm = job->vm;
    char kept[ERROR_TEXT_MAX];
    (void)snprintf(kept, sizeof kept, "%s", text);
    if (vm && job->stored->created_vm && vm->stored->phase != VMPOOL__VM_PHASE__PHASE_UNKNOWN) {
        vm_delete(controller, vm);
    } else if (vm && vm->stored->phase == VMPOOL__VM_PHASE__PHASE_STARTING) {
        (void)vm_happens(controller, vm, VM_EVENT_START_UNDONE, kept);
    }
    job_fail(controller, job, kind, "%s", kept);
}

static void fail_as_kept(struct controller *controller, struct job *job)
{
    const Vmpool__Failure *why = job->stored->failure;
    if (job->stored->cancelled)
        fail(controller, job, ERROR_FAILED, "cancelled");
    else if (why)
        fail(controller, job, (enum error_kind)why->kind, why->text);
    else
        fail(controller, job, ERROR_FAILED, "the start failed");
}

static void node_is_lost(struct controller *controller, struct job *job)
{
    const char *name = node_name_of(controller, job->stored->target_node);
    (void)vm_happens(controller, job->vm, VM_EVENT_NODE_LOST, "its node was lost while it started");
    job_fail(controller, job, ERROR_UNREACHABLE,
             "node %s was lost while it started the VM; whether it runs is known when %s is back, "
             "or \"poolctl node rm %s --force\" if it never will be",
             name, name, name);
}

/* ---- place ---- */

static const char *disk_node(const struct controller *controller, const struct job *job)
{
    const struct node *node = node_by_id(controller, job->vm->stored->disk_node_id);
    return node ? node->stored->name : NULL;
}

static void on_place(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct error err = ERROR_INIT;
    struct vm *vm = job->vm;
    if (event->what == JOB_CANCEL) {
        fail_as_kept(controller, job);
        return;
    }
    if (event->what != JOB_ENTER && event->what != JOB_NODE)
        return;
    const char *only = job->stored->wanted_node[0] ? job->stored->wanted_node : NULL;
    struct placement_question question = {
        .spec = vm->stored->spec,
        .selector = vm->stored->selector,
        .selector_count = vm->stored->n_selector,
        .only_node = only ? only : disk_node(controller, job),
        .tried = job->stored->tried_nodes,
        .tried_count = job->stored->n_tried_nodes,
        .adds = true,
    };
    Vmpool__Placement *answer = NULL;
    struct node *node = job->stored->n_tried_nodes < HOSTS_MAX
                            ? placement_choose(controller, &question, &answer, &err)
                            : NULL;
    if (!node && nodes_settling(controller)) {
        pb_free(answer);
        job_say(controller, job, "waiting until all nodes have reported");
        return; /* JOB_NODE comes as each does */
    }
    if (!node) {
        pb_free(answer);
        if (job->stored->failure)
            fail_as_kept(controller, job);
        else
            fail(controller, job, err.kind, err.text);
        return;
    }
    pb_free(job->stored->failure); /* of a host that refused before */
    job->stored->failure = NULL;
    pb_free(job->stored->placement);
    job->stored->placement = answer;
    pb_free(vm->stored->placement);
    vm->stored->placement = pb_copy(&answer->base);
    uint64_t epoch = vm_grant_epoch(controller, vm);
    (void)vm_happens(controller, vm, VM_EVENT_START, "");
    vm_set_owner(controller, vm, node, epoch);
    pb_set(&job->stored->target_node, node->stored->id);
    pb_set(&job->stored->to_name, node->stored->name);
    job_say(controller, job, "starting on %s", node->stored->name);
    job_go(controller, job, "start");
}

/* ---- start ---- */

static void send_start(struct controller *controller, struct job *job, const struct node *node)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmStart start = VMPOOL__NODE_VM_START__INIT;
    start.spec = job->vm->stored->spec;
    start.epoch = job->vm->stored->epoch;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_START;
    command.vm_start = &start;
    job_command(controller, job, node, &command);
}

static void on_start(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *node = node_by_id(controller, job->stored->target_node);
    char text[ERROR_TEXT_MAX], limit[32];
    switch (event->what) {
    case JOB_ENTER:
        if (job->deadline_ms == 0)
            job_limit(job, controller->config.start_timeout_ms);
        if (node)
            send_start(controller, job, node);
        break;
    case JOB_ANSWER:
        if (event->answer->failure) {
            (void)snprintf(text, sizeof text, "%s: %s", node->stored->name,
                           event->answer->failure->text);
            job_keep_failure(job, event->answer->failure->kind, text);
            job_go(controller, job, "undo");
            break;
        }
        (void)vm_happens(controller, job->vm, VM_EVENT_STARTED, "");
        job_done(controller, job, "runs on %s", node->stored->name);
        break;
    case JOB_TIMEOUT:
        if (!node || node->phase == VMPOOL__NODE_PHASE__NODE_LOST) {
            node_is_lost(controller, job);
            break;
        }
        (void)snprintf(text, sizeof text, "%s did not start it within %s", node->stored->name,
                       units_format_ms(controller->config.start_timeout_ms, limit, sizeof limit));
        job_keep_failure(job, ERROR_TIMEOUT, text);
        job_go(controller, job, "undo");
        break;
    case JOB_CANCEL:
        job_go(controller, job, "undo");
        break;
    case JOB_NODE:
        if (!node || node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
            node_is_lost(controller, job);
        break;
    default:
        break;
    }
}

/* ---- undo ---- */

/* A new VM leaves nothing behind; one that existed keeps its disks. */
static void send_undo(struct controller *controller, struct job *job, const struct node *node)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand undo = VMPOOL__NODE_VM_COMMAND__INIT;
    undo.vm_id = job->vm->stored->spec->id;
    undo.epoch = job->vm->stored->epoch;
    undo.action = job->stored->created_vm ? VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE
                                          : VMPOOL__NODE_VM_COMMAND__ACTION__KILL;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    command.vm_command = &undo;
    job_command(controller, job, node, &command);
}

/* A refusal that another host would answer with too, or where no other may be asked. */
static bool is_final(const struct job *job)
{
    const Vmpool__Failure *why = job->stored->failure;
    return job->stored->cancelled || job->stored->wanted_node[0] ||
           (why && why->kind == ERROR_USAGE) ||
           (!job->stored->created_vm && job->vm->stored->disk_node_id[0]);
}

static void undone(struct controller *controller, struct job *job)
{
    if (is_final(job)) {
        fail_as_kept(controller, job);
        return;
    }
    event_add(controller, "warning", "vm.refused", job->stored->subject, job->stored->id, "%s",
              job->stored->failure ? job->stored->failure->text : "");
    pb_push_text(&job->stored->tried_nodes, &job->stored->n_tried_nodes, job->stored->target_node);
    if (job->stored->created_vm)
        pb_set(&job->vm->stored->disk_node_id, "");
    job_go(controller, job, "place");
}

static void on_undo(struct controller *controller, struct job *job, const struct job_event *event)
{
    struct node *node = node_by_id(controller, job->stored->target_node);
    switch (event->what) {
    case JOB_ENTER:
        if (job->deadline_ms == 0)
            job_limit(job, controller->config.command_timeout_ms);
        if (node)
            send_undo(controller, job, node);
        break;
    case JOB_ANSWER:
        if (!event->answer->failure || event->answer->failure->kind == ERROR_NOT_FOUND) {
            undone(controller, job);
            break;
        }
        (void)vm_happens(controller, job->vm, VM_EVENT_NODE_LOST, event->answer->failure->text);
        job_fail(controller, job, ERROR_FAILED, "the start failed and %s could not undo it: %s",
                 node->stored->name, event->answer->failure->text);
        break;
    case JOB_TIMEOUT:
        node_is_lost(controller, job);
        break;
    case JOB_NODE:
        if (!node || node->phase == VMPOOL__NODE_PHASE__NODE_LOST)
            node_is_lost(controller, job);
        break;
    default:
        break;
    }
}

static const struct job_step steps[] = {
    {"place", on_place}, {"start", on_start}, {"undo", on_undo}};

const struct job_kind job_vm_create = {"vm-create", steps, 3, 2, true};
const struct job_kind job_vm_start = {"vm-start", steps, 3, 2, true};
