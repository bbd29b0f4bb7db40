/*
 * vm-stop: press the power button -> wait -> with force, kill. vm-kill: kill. vm-remove: remove.
 */
#include <string.h>

#include "common/units.h"
#include "controller/departures.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/pb.h"

static void send_action(struct controller *controller, struct job *job,
                        Vmpool__NodeVmCommand__Action action)
{
    struct node *node = vm_node(controller, job->vm);
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand body = VMPOOL__NODE_VM_COMMAND__INIT;
    body.vm_id = job->vm->stored->spec->id;
    /* Whatever the node has seen of it, as the target of a handover that failed, goes too. */
    body.epoch = action == VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE ? job->vm->stored->last_epoch
                                                                   : job->vm->stored->epoch;
    body.action = action;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    command.vm_command = &body;
    if (job->deadline_ms == 0)
        job_limit(job, controller->config.command_timeout_ms);
    if (node)
        job_command(controller, job, node, &command);
}

static const char *node_text(const struct controller *controller, const struct job *job)
{
    const char *name = node_name_of(controller, job->vm->stored->node_id);
    return name[0] ? name : "its node";
}

/* The node doesn't answer: what it did of it is told by its next report. */
static void no_answer(struct controller *controller, struct job *job)
{
    const char *node = node_text(controller, job);
    if (!vm_happens(controller, job->vm, VM_EVENT_NODE_LOST, "its node did not answer") &&
        job->vm->stored->phase == VMPOOL__VM_PHASE__PHASE_REMOVING)
        (void)vm_happens(controller, job->vm, VM_EVENT_REMOVE_REFUSED, "its node did not answer");
    job_fail(controller, job, ERROR_UNREACHABLE, "%s does not answer: try again when it is back",
             node);
}

static bool node_gone(const struct controller *controller, const struct job *job)
{
    const struct node *node = vm_node(controller, job->vm);
    return !node || node->phase == VMPOOL__NODE_PHASE__NODE_LOST;
}

/* True where the VM's own node says that no guest runs any more. */
static bool has_ended(const struct job *job, const struct claim *claim)
{
    if (!claim || strcmp(claim->node->stored->id, job->vm->stored->node_id) != 0)
        return false;
    return !claim->said || claim->said->state == VMPOOL__VM_STATE__VM_STOPPED ||
           claim->said->state == VMPOOL__VM_STATE__VM_PANICKED ||
           claim->said->state == VMPOOL__VM_STATE__VM_FAILED;
}

static void stopped(struct controller *controller, struct job *job, const char *how)
{
    (void)vm_happens(controller, job->vm, VM_EVENT_STOPPED, how);
    job_done(controller, job, "%s", how);
}

/* ---- vm-stop ---- */

static void refused(struct controller *controller, struct job *job, const Vmpool__Failure *why)
{
    (void)vm_happens(controller, job->vm, VM_EVENT_STOP_REFUSED, NULL);
    job_fail(controller, job, (enum error_kind)why->kind, "%s: %s", node_text(controller, job),
             why->text);
}

static void on_button(struct controller *controller, struct job *job, const struct job_event *event)
{
    switch (event->what) {
    case JOB_ENTER:
        send_action(controller, job, VMPOOL__NODE_VM_COMMAND__ACTION__POWER_BUTTON);
        break;
    case JOB_ANSWER:
        if (!event->answer->failure)
            job_go(controller, job, "wait");
        else if (job->stored->force)
            job_go(controller, job, "kill");
        else
            refused(controller, job, event->answer->failure);
        break;
    case JOB_CLAIM:
        if (has_ended(job, event->claim))
            stopped(controller, job, "powered off");
        break;
    case JOB_TIMEOUT:
        no_answer(controller, job);
        break;
    case JOB_NODE:
        if (node_gone(controller, job))
            no_answer(controller, job);
        break;
    default:
        break;
    }
}

static void on_wait(struct controller *controller, struct job *job, const struct job_event *event)
{
    uint64_t limit_ms = job->stored->timeout_ms;
    char limit[32];
    switch (event->what) {
    case JOB_ENTER:
        job_say(controller, job, "the power button is pressed; waiting for the guest");
        job_limit(job, limit_ms);
        break;
    case JOB_CLAIM:
        if (has_ended(job, event->claim))
            stopped(controller, job, "powered off");
        break;
    case JOB_CANCEL:
        (void)vm_happens(controller, job->vm, VM_EVENT_STOP_REFUSED, "");
        job_fail(controller, job, ERROR_FAILED,
                 "cancelled; the guest may still answer the power button");
        break;
    case JOB_TIMEOUT:
        if (job->stored->force) {
            job_go(controller, job, "kill");
            break;
        }
        (void)vm_happens(controller, job->vm, VM_EVENT_STOP_REFUSED, "");
        job_fail(controller, job, ERROR_TIMEOUT,
                 "the guest did not power off within %s: give it more --timeout, or end it "
                 "with --force",
                 units_format_ms(limit_ms, limit, sizeof limit));
        break;
    case JOB_NODE:
        if (node_gone(controller, job))
            no_answer(controller, job);
        break;
    default:
        break;
    }
}

static void on_kill(struct controller *controller, struct job *job, const struct job_event *event)
{
    switch (event->what) {
    case JOB_ENTER:
        send_action(controller, job, VMPOOL__NODE_VM_COMMAND__ACTION__KILL);
        break;
    case JOB_ANSWER:
        if (!event->answer->failure || event->answer->failure->kind == ERROR_NOT_FOUND)
            stopped(controller, job, "ended by force");
        else
            refused(controller, job, event->answer->failure);
        break;
    case JOB_TIMEOUT:
        no_answer(controller, job);
        break;
    case JOB_NODE:
        if (node_gone(controller, job))
            no_answer(controller, job);
        break;
    default:
        break;
    }
}

static const struct job_step stop_steps[] = {
    {"button", on_button}, {"wait", on_wait}, {"kill", on_kill}};
static const struct job_step kill_steps[] = {{"kill", on_kill}};

const struct job_kind job_vm_stop = {"vm-stop", stop_steps, 3, 2, true};
const struct job_kind job_vm_kill = {"vm-kill", kill_steps, 1, 1, false};

/* ---- vm-remove ---- */

static void removed(struct controller *controller, struct job *job)
{
    event_add(controller, "info", "vm.removed", job->stored->subject, job->stored->id, "removed");
    departures_note(controller, job->vm);
    vm_delete(controller, job->vm);
    job_done(controller, job, "removed");
}

static void on_remove(struct controller *controller, struct job *job, const struct job_event *event)
{
    bool nowhere = !vm_node(controller, job->vm);
    switch (event->what) {
    case JOB_ENTER:
        if (nowhere || (job->stored->force && node_gone(controller, job)))
            /* What a lost node still holds is cleaned when it reports (reconcile.h). */
            removed(controller, job);
        else
            send_action(controller, job, VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE);
        break;
    case JOB_ANSWER:
        if (!event->answer->failure || event->answer->failure->kind == ERROR_NOT_FOUND) {
            removed(controller, job);
            break;
        }
        (void)vm_happens(controller, job->vm, VM_EVENT_REMOVE_REFUSED,
                         event->answer->failure->text);
        job_fail(controller, job, (enum error_kind)event->answer->failure->kind, "%s: %s",
                 node_text(controller, job), event->answer->failure->text);
        break;
    case JOB_TIMEOUT:
        no_answer(controller, job);
        break;
    case JOB_NODE:
        if (nowhere || (job->stored->force && node_gone(controller, job)))
            removed(controller, job);
        else if (node_gone(controller, job))
            no_answer(controller, job);
        break;
    default:
        break;
    }
}

static const struct job_step remove_steps[] = {{"remove", on_remove}};
const struct job_kind job_vm_remove = {"vm-remove", remove_steps, 1, 1, false};
