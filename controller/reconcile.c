#include "controller/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/uuid.h"

/* A copy that was told to go is told again after so many reports that still name it. */
#define REPEAT_REPORTS 2
/* Every so many lists of a node, the first included. */
#define FULL_LOOK 12

static bool guest_runs(Vmpool__VmState state)
{
    return state == VMPOOL__VM_STATE__VM_RUNNING || state == VMPOOL__VM_STATE__VM_PAUSED ||
           state == VMPOOL__VM_STATE__VM_MIGRATING;
}

static bool should_run(Vmpool__VmPhase phase)
{
    return phase == VMPOOL__VM_PHASE__PHASE_RUNNING || phase == VMPOOL__VM_PHASE__PHASE_UNKNOWN ||
           phase == VMPOOL__VM_PHASE__PHASE_STARTING || phase == VMPOOL__VM_PHASE__PHASE_STOPPING ||
           phase == VMPOOL__VM_PHASE__PHASE_MIGRATING || phase == VMPOOL__VM_PHASE__PHASE_HANDOVER;
}

static enum reconcile_action decide_owner(const struct reconcile_view *view)
{
    if (!view->present)
        return should_run(view->phase) ? RECONCILE_MISSING : RECONCILE_NOTHING;
    if (view->said_epoch < view->epoch)
        return RECONCILE_DISCARD; /* an older life of the VM, found on the node it is on now */
    /* Its job ended because the missing pages are lost: it can never run again. */
    if (guest_runs(view->said_state) && view->lacks &&
        view->phase == VMPOOL__VM_PHASE__PHASE_FAILED)
        return RECONCILE_DISCARD;
    if (guest_runs(view->said_state))
        return view->phase == VMPOOL__VM_PHASE__PHASE_RUNNING ? RECONCILE_NOTHING
                                                              : RECONCILE_RUNNING;
    switch (view->said_state) {
    case VMPOOL__VM_STATE__VM_STOPPED:
        return should_run(view->phase) ? RECONCILE_STOPPED : RECONCILE_NOTHING;
    case VMPOOL__VM_STATE__VM_PANICKED:
    case VMPOOL__VM_STATE__VM_FAILED:
        return should_run(view->phase) ? RECONCILE_FAILED : RECONCILE_NOTHING;
    case VMPOOL__VM_STATE__VM_GAVE_UP:
        /* Where the VM has ended, it may have run at the target: this copy is of the past. */
        return should_run(view->phase) ? RECONCILE_TAKE_BACK : RECONCILE_DISCARD;
    default:
        return RECONCILE_NOTHING;
    }
}

enum reconcile_action reconcile_decide(const struct reconcile_view *view)
{
    if (view->job)
        return RECONCILE_NOTHING;
    if (view->present && view->said_epoch > view->last_epoch)
        return RECONCILE_AHEAD;
    if (view->present && view->said_epoch > view->epoch && guest_runs(view->said_state))
        return RECONCILE_OWNER;
    if (view->owner)
        return decide_owner(view);
    if (view->serves && should_run(view->phase))
        return RECONCILE_NOTHING;
    return view->present ? RECONCILE_DISCARD : RECONCILE_NOTHING;
}

/* ---- acting ---- */

static bool lacks_pages(const Vmpool__NodeVm *said)
{
    return said && said->migration && guest_runs(said->state) &&
           said->migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY;
}

static void send_action(struct controller *controller, const struct node *node, const char *vm_id,
                        Vmpool__NodeVmCommand__Action action, uint64_t epoch)
{
    Vmpool__ControllerToNode command = VMPOOL__CONTROLLER_TO_NODE__INIT;
    Vmpool__NodeVmCommand body = VMPOOL__NODE_VM_COMMAND__INIT;
    auto_free char *id = text_copy(vm_id);
    body.vm_id = id;
    body.epoch = epoch;
    body.action = action;
    command.request_id = ++controller->next_request;
    command.body_case = VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND;
    command.vm_command = &body;
    (void)node_send(controller, node, &command);
}

static bool was_told(const struct controller *controller, const struct claim *claim, int64_t now_ms)
{
    return claim->told_ms != 0 &&
           now_ms - claim->told_ms <
               (int64_t)controller->config.report_interval_ms * REPEAT_REPORTS;
}

static void discard(struct controller *controller, struct claim *claim)
{
    const struct vm *vm = claim->vm;
    int64_t now_ms = clock_monotonic_ms();
    if (was_told(controller, claim, now_ms))
        return;
    if (claim->told_ms == 0)
        event_add(controller, "warning", "vm.discarded", vm->stored->spec->name, 0,
                  "a copy left over on %s, of epoch %llu, is thrown away: the VM's epoch is %llu",
                  claim->node->stored->name, (unsigned long long)claim->said->epoch,
                  (unsigned long long)vm->stored->epoch);
    claim->told_ms = now_ms;
    /* On the VM's own node only what is below its epoch may go, or what will never run again. */
    bool owner = claim->node == vm_node(controller, vm) &&
                 claim->said->state != VMPOOL__VM_STATE__VM_GAVE_UP && !lacks_pages(claim->said);
    send_action(controller, claim->node, vm->stored->spec->id,
                VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD,
                owner ? vm->stored->epoch - 1 : vm->stored->last_epoch);
}

static void missing(struct controller *controller, struct claim *claim)
{
    char text[256];
    (void)snprintf(text, sizeof text,
                   "it does not run on %s any more: the host restarted, or its "
                   "VMM died; start it again",
                   claim->node->stored->name);
    (void)vm_happens(controller, claim->vm, VM_EVENT_CRASHED, text);
}

static void failed(struct controller *controller, struct claim *claim)
{
    const Vmpool__NodeVm *said = claim->said;
    const char *what =
        said->state == VMPOOL__VM_STATE__VM_PANICKED ? "the guest panicked" : "its VMM failed";
    char text[ERROR_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s%s%s", what, said->text[0] ? ": " : "", said->text);
    (void)vm_happens(controller, claim->vm, VM_EVENT_CRASHED, text);
}

/* A migration that ended without a new owner has its target's word, or the operator's, that no copy
 * is left there; so the old owner may run on, at an epoch of its own. */
static void take_back(struct controller *controller, struct claim *claim)
{
    struct vm *vm = claim->vm;
    int64_t now_ms = clock_monotonic_ms();
    if (was_told(controller, claim, now_ms))
        return;
    claim->told_ms = now_ms;
    uint64_t epoch = vm_grant_epoch(controller, vm);
    event_add(controller, "warning", "vm.taken-back", vm->stored->spec->name, 0,
              "it had given up for a migration that failed; it runs on at epoch %llu",
              (unsigned long long)epoch);
    send_action(controller, claim->node, vm->stored->spec->id, VMPOOL__NODE_VM_COMMAND__ACTION__RUN,
                epoch);
}

static void adopt(struct controller *controller, struct claim *claim)
{
    struct vm *vm = claim->vm;
    event_add(controller, "warning", "vm.owner", vm->stored->spec->name, 0,
              "runs on %s at epoch %llu, newer than what was known: noted",
              claim->node->stored->name, (unsigned long long)claim->said->epoch);
    vm_set_owner(controller, vm, claim->node, claim->said->epoch);
    if (!vm_happens(controller, vm, VM_EVENT_SEEN, ""))
        (void)(vm_happens(controller, vm, VM_EVENT_START, "") &&
               vm_happens(controller, vm, VM_EVENT_STARTED, ""));
}

static void ahead(struct controller *controller, struct claim *claim)
{
    struct vm *vm = claim->vm;
    vm->stored->last_epoch = claim->said->epoch;
    store_raise_epoch(controller->store, vm->stored->spec->id, claim->said->epoch);
    event_add(controller, "error", "store.behind", vm->stored->spec->name, 0,
              "%s reports epoch %llu, which this store never gave out: was an old copy of it "
              "restored?",
              claim->node->stored->name, (unsigned long long)claim->said->epoch);
    if (guest_runs(claim->said->state))
        adopt(controller, claim);
    vm_save(controller, vm);
}

static void act(struct controller *controller, struct claim *claim, enum reconcile_action action)
{
    struct vm *vm = claim->vm;
    switch (action) {
    case RECONCILE_NOTHING:
        break;
    case RECONCILE_RUNNING:
        if (vm->stored->epoch != claim->said->epoch)
            vm_set_owner(controller, vm, claim->node, claim->said->epoch);
        if (!vm_happens(controller, vm, VM_EVENT_SEEN, ""))
            adopt(controller, claim);
        break;
    case RECONCILE_STOPPED:
        (void)vm_happens(controller, vm, VM_EVENT_STOPPED, "the guest powered off");
        break;
    case RECONCILE_FAILED:
        failed(controller, claim);
        break;
    case RECONCILE_MISSING:
        missing(controller, claim);
        break;
    case RECONCILE_TAKE_BACK:
        take_back(controller, claim);
        break;
    case RECONCILE_OWNER:
        adopt(controller, claim);
        break;
    case RECONCILE_AHEAD:
        ahead(controller, claim);
        break;
    case RECONCILE_DISCARD:
        discard(controller, claim);
        break;
    }
}

/* True where the VM's job counts on this node, so that its steps hear of it. */
static bool job_involves(const struct vm *vm, const struct node *node)
{
    const struct job *job = vm->job;
    return job && (strcmp(vm->stored->node_id, node->stored->id) == 0 ||
                   strcmp(job->stored->source_node, node->stored->id) == 0 ||
                   strcmp(job->stored->target_node, node->stored->id) == 0);
}

/* A source of post-copy whose target has not said that it has everything. */
static bool serves_pages(const struct vm *vm, const Vmpool__NodeVm *said)
{
    const Vmpool__MigrationProgress *own = said ? said->migration : NULL;
    if (!own || !own->postcopy || said->state != VMPOOL__VM_STATE__VM_GAVE_UP ||
        own->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED)
        return false;
    const struct claim *claim = vm_claim_of(vm, vm->stored->node_id);
    const Vmpool__MigrationProgress *owner = claim && claim->said ? claim->said->migration : NULL;
    if (!claim)
        return true; /* its owner's node has said nothing yet */
    return owner && strcmp(owner->migration_id, own->migration_id) == 0 &&
           owner->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY;
}

static void settle(struct controller *controller, struct claim *claim)
{
    const struct vm *vm = claim->vm;
    const Vmpool__NodeVm *said = claim->said;
    struct reconcile_view view = {
        .phase = vm->stored->phase,
        .job = job_involves(vm, claim->node),
        .owner = strcmp(vm->stored->node_id, claim->node->stored->id) == 0,
        .epoch = vm->stored->epoch,
        .last_epoch = vm->stored->last_epoch,
        .present = said != NULL,
        .said_epoch = said ? said->epoch : 0,
        .said_state = said ? said->state : VMPOOL__VM_STATE__VM_UNKNOWN,
        .lacks = lacks_pages(said),
        .serves = serves_pages(vm, said),
    };
    act(controller, claim, reconcile_decide(&view));
    jobs_claim(controller, claim);
}

/* A VM the store does not hold. One that was removed is thrown away; one that never was is left
 * alone, as the store may be an old copy, and the operator is told. */
static void unknown_vm(struct controller *controller, struct node *node, const Vmpool__NodeVm *said)
{
    struct error err = ERROR_INIT;
    uint64_t epoch = 0;
    if (!uuid_valid(said->vm_id))
        return;
    if (store_read_epoch(controller->store, said->vm_id, &epoch, &err) < 0) {
        log_error("%s", err.text);
        return;
    }
    if (epoch == 0) {
        log_warn("node %s reports VM %s (%s), which was never made here: it is left alone",
                 node->stored->name, said->vm_id, said->name);
        return;
    }
    log_info("VM %s was removed: what is left of it on %s goes", said->vm_id, node->stored->name);
    send_action(controller, node, said->vm_id, VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE,
                epoch > said->epoch ? epoch : said->epoch);
}

void reconcile_one(struct controller *controller, struct node *node, const Vmpool__NodeVm *said)
{
    struct vm *vm = vm_by_id(controller, said->vm_id);
    if (!vm) {
        unknown_vm(controller, node, said);
        return;
    }
    struct claim *claim = vm_note_claim(vm, node, said);
    if (vm_node(controller, vm) == node && guest_runs(said->state))
        placement_note_use(controller, vm, said);
    claim->mark = node->marks;
    settle(controller, claim);
}

static void settle_if_silent(struct controller *controller, struct node *node, struct vm *vm)
{
    if (!vm_claim_of(vm, node->stored->id))
        settle(controller, vm_note_claim(vm, node, NULL));
}

/* VMs that should be on the node, or whose job counts on it, and of which it never said anything.
 * Costs what the node and the jobs hold, whatever the pool does. */
static void settle_unmentioned(struct controller *controller, struct node *node)
{
    for (struct vm *next, *vm = node->counted; vm; vm = next) {
        next = vm->next_counted;
        settle_if_silent(controller, node, vm);
    }
    for (struct job *next, *job = controller->jobs; job; job = next) {
        next = job->next;
        if (job->vm && job_involves(job->vm, node))
            settle_if_silent(controller, node, job->vm);
    }
}

void reconcile_list(struct controller *controller, struct node *node, Vmpool__NodeVm *const *vms,
                    size_t count)
{
    node->marks++;
    for (size_t i = 0; i < count; i++)
        reconcile_one(controller, node, vms[i]);
    /* Now and then only, as reports are many. */
    if (node->marks % FULL_LOOK == 1)
        settle_unmentioned(controller, node);
    for (struct claim *next, *claim = node->claims; claim; claim = next) {
        next = claim->next_of_node;
        if (claim->mark != node->marks) {
            claim = vm_note_claim(claim->vm, node, NULL);
            claim->mark = node->marks;
            settle(controller, claim);
        }
    }
}
