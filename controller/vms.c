#include "controller/vms.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "controller/events.h"
#include "controller/jobs.h"
#include "controller/pb.h"
#include "controller/placement.h"

static void uncount(struct vm *vm)
{
    struct node *node = vm->counted_on;
    if (!node)
        return;
    if (vm->next_counted)
        vm->next_counted->previous_counted = vm->previous_counted;
    if (vm->previous_counted)
        vm->previous_counted->next_counted = vm->next_counted;
    else
        node->counted = vm->next_counted;
    vm->next_counted = vm->previous_counted = NULL;
    vm->counted_on = NULL;
    node->vms--;
}

static void count_on(struct vm *vm, struct node *node)
{
    vm->counted_on = node;
    vm->next_counted = node->counted;
    if (node->counted)
        node->counted->previous_counted = vm;
    node->counted = vm;
    node->vms++;
}

void vms_forget_node(struct node *node)
{
    while (node->counted)
        uncount(node->counted);
}

/* Counts the VM on the node that its phase says it holds. */
static void follow_node(struct controller *controller, struct vm *vm)
{
    struct node *node = vm_node(controller, vm);
    bool holds = node && vm_phase_holds_host(vm->stored->phase);
    if (vm->counted_on != (holds ? node : NULL)) {
        uncount(vm);
        if (holds)
            count_on(vm, node);
    }
    if (holds)
        placement_hold(controller, vm, node);
    else
        placement_release(controller, vm);
}

struct vm *vm_add(struct controller *controller, Vmpool__Store__Vm *stored)
{
    struct error err = ERROR_INIT;
    struct vm *vm = mem_new(sizeof *vm);
    vm->stored = stored;
    vm->next = controller->vms;
    controller->vms = vm;
    if (name_map_add(&controller->vms_by_name, stored->spec->name, vm, &err) < 0 ||
        name_map_add(&controller->vms_by_id, stored->spec->id, vm, &err) < 0 ||
        (!name_map_get(&controller->vms_by_mac, stored->spec->mac) &&
         name_map_add(&controller->vms_by_mac, stored->spec->mac, vm, &err) < 0))
        abort();
    follow_node(controller, vm);
    return vm;
}

void vm_save(struct controller *controller, const struct vm *vm)
{
    store_put(controller->store, STORE_VM, vm->stored->spec->id, &vm->stored->base);
    controller_touch(controller);
}

static void unlink_claim(struct claim *claim)
{
    struct claim **at = &claim->vm->claims;
    while (*at != claim)
        at = &(*at)->next_of_vm;
    *at = claim->next_of_vm;
    at = &claim->node->claims;
    while (*at != claim)
        at = &(*at)->next_of_node;
    *at = claim->next_of_node;
    pb_free(claim->said);
    free(claim);
}

static void free_vm(struct vm *vm)
{
    for (struct claim *next, *claim = vm->claims; claim; claim = next) {
        next = claim->next_of_vm;
        unlink_claim(claim);
    }
    pb_free(vm->stored);
    free(vm);
}

void vm_delete(struct controller *controller, struct vm *vm)
{
    struct vm **at = &controller->vms;
    while (*at != vm)
        at = &(*at)->next;
    *at = vm->next;
    name_map_remove(&controller->vms_by_name, vm->stored->spec->name);
    name_map_remove(&controller->vms_by_id, vm->stored->spec->id);
    if (name_map_get(&controller->vms_by_mac, vm->stored->spec->mac) == vm)
        name_map_remove(&controller->vms_by_mac, vm->stored->spec->mac);
    vm->stored->phase = VMPOOL__VM_PHASE__PHASE_NONE;
    follow_node(controller, vm);
    if (vm->job)
        vm->job->vm = NULL;
    store_delete(controller->store, STORE_VM, vm->stored->spec->id);
    controller_touch(controller);
    free_vm(vm);
}

void vms_free(struct controller *controller)
{
    while (controller->vms) {
        struct vm *vm = controller->vms;
        controller->vms = vm->next;
        free_vm(vm);
    }
    name_map_free(&controller->vms_by_name);
    name_map_free(&controller->vms_by_id);
    name_map_free(&controller->vms_by_mac);
}

struct vm *vm_by_name(const struct controller *controller, const char *name)
{
    return name_map_get(&controller->vms_by_name, name);
}

struct vm *vm_by_id(const struct controller *controller, const char *id)
{
    return name_map_get(&controller->vms_by_id, id);
}

struct node *vm_node(const struct controller *controller, const struct vm *vm)
{
    return node_by_id(controller, vm->stored->node_id);
}

static void announce(struct controller *controller, const struct vm *vm, enum vm_event event)
{
    const char *name = vm->stored->spec->name;
    const char *text = vm->stored->text;
    const char *node = node_name_of(controller, vm->stored->node_id);
    uint64_t job = vm->job ? vm->job->stored->id : 0;
    switch (event) {
    case VM_EVENT_STARTED:
        event_add(controller, "info", "vm.started", name, job, "runs on %s", node);
        break;
    case VM_EVENT_STOPPED:
        event_add(controller, "info", "vm.stopped", name, job, "%s", text[0] ? text : "stopped");
        break;
    case VM_EVENT_CRASHED:
        event_add(controller, "error", "vm.failed", name, job, "%s", text);
        break;
    case VM_EVENT_NODE_LOST:
        event_add(controller, "error", "vm.unknown", name, job, "its node %s is lost", node);
        break;
    case VM_EVENT_SEEN:
        event_add(controller, "info", "vm.seen", name, job, "runs on %s", node);
        break;
    default:
        break;
    }
}

bool vm_happens(struct controller *controller, struct vm *vm, enum vm_event event, const char *text)
{
    Vmpool__VmPhase before = vm->stored->phase;
    Vmpool__VmPhase after = vm_phase_after(before, event);
    if (after == VMPOOL__VM_PHASE__PHASE_NONE) {
        log_debug("VM %s: \"%s\" means nothing while %s", vm->stored->spec->name,
                  vm_event_name(event), vm_phase_name(before));
        return false;
    }
    vm->stored->phase = after;
    if (text)
        pb_set(&vm->stored->text, text);
    if (event == VM_EVENT_STARTED)
        vm->stored->started_wall_ms = (uint64_t)clock_wall_ms();
    follow_node(controller, vm);
    vm_save(controller, vm);
    if (after != before)
        announce(controller, vm, event);
    return true;
}

uint64_t vm_grant_epoch(struct controller *controller, struct vm *vm)
{
    uint64_t epoch = ++vm->stored->last_epoch;
    store_raise_epoch(controller->store, vm->stored->spec->id, epoch);
    vm_save(controller, vm);
    return epoch;
}

void vm_set_owner(struct controller *controller, struct vm *vm, const struct node *node,
                  uint64_t epoch)
{
    if (vm->stored->node_id[0] && strcmp(vm->stored->node_id, node->stored->id) != 0)
        vm->moved_ms = clock_monotonic_ms();
    pb_set(&vm->stored->node_id, node->stored->id);
    vm->stored->epoch = epoch;
    if (vm_has_local_disks(vm))
        pb_set(&vm->stored->disk_node_id, node->stored->id);
    follow_node(controller, vm);
    vm_save(controller, vm);
}

bool vm_has_local_disks(const struct vm *vm)
{
    const Vmpool__VmSpec *spec = vm->stored->spec;
    if (spec->image && spec->image->disk_sha256[0])
        return true;
    for (size_t i = 0; i < spec->n_disks; i++)
        if (!spec->disks[i]->path[0])
            return true;
    return false;
}

static struct claim *find_claim(const struct vm *vm, const struct node *node)
{
    struct claim *claim = vm->claims;
    while (claim && claim->node != node)
        claim = claim->next_of_vm;
    return claim;
}

struct claim *vm_note_claim(struct vm *vm, struct node *node, const Vmpool__NodeVm *said)
{
    struct claim *claim = find_claim(vm, node);
    if (!claim) {
        claim = mem_new(sizeof *claim);
        claim->vm = vm;
        claim->node = node;
        claim->next_of_vm = vm->claims;
        claim->next_of_node = node->claims;
        vm->claims = node->claims = claim;
    }
    Vmpool__NodeVm *copy = said ? pb_copy(&said->base) : NULL;
    pb_free(claim->said);
    claim->said = copy;
    claim->at_ms = clock_monotonic_ms();
    return claim;
}

const struct claim *vm_claim_of(const struct vm *vm, const char *node_id)
{
    const struct claim *claim = vm->claims;
    while (claim && strcmp(claim->node->stored->id, node_id) != 0)
        claim = claim->next_of_vm;
    return claim;
}

void claims_forget_node(struct node *node)
{
    for (struct claim *next, *claim = node->claims; claim; claim = next) {
        next = claim->next_of_node;
        unlink_claim(claim);
    }
}

void vms_of_lost_node(struct controller *controller, const struct node *node)
{
    for (struct vm *vm = controller->vms; vm; vm = vm->next)
        if (strcmp(vm->stored->node_id, node->stored->id) == 0 && !vm->job)
            (void)vm_happens(controller, vm, VM_EVENT_NODE_LOST, "its node is lost");
}

const Vmpool__NodeVm *vm_said(const struct vm *vm)
{
    const struct claim *claim = vm_claim_of(vm, vm->stored->node_id);
    return claim && vm_phase_holds_host(vm->stored->phase) ? claim->said : NULL;
}

static void describe_claim(Vmpool__Vm *out, const Vmpool__NodeVm *said)
{
    if (said->usage)
        out->usage = pb_copy(&said->usage->base);
    out->cpu_permille = said->cpu_permille;
    out->net_rx_bps = said->net_rx_bps;
    out->net_tx_bps = said->net_tx_bps;
    out->balloon_mib = said->balloon_mib;
}

Vmpool__Vm *vm_describe(const struct controller *controller, const struct vm *vm)
{
    const Vmpool__Store__Vm *stored = vm->stored;
    Vmpool__Vm *out = mem_new(sizeof *out);
    vmpool__vm__init(out);
    pb_set(&out->id, stored->spec->id);
    pb_set(&out->name, stored->spec->name);
    pb_set(&out->node, node_name_of(controller, stored->node_id));
    pb_set(&out->text, stored->text);
    out->phase = stored->phase;
    out->epoch = stored->epoch;
    out->spec = pb_copy(&stored->spec->base);
    out->created_wall_ms = stored->created_wall_ms;
    out->started_wall_ms = stored->started_wall_ms;
    if (stored->last_migration)
        out->last_migration = pb_copy(&stored->last_migration->base);
    if (stored->last_review)
        out->last_review = pb_copy(&stored->last_review->base);
    out->job = vm->job ? vm->job->stored->id : 0;
    if (vm_said(vm))
        describe_claim(out, vm_said(vm));
    return out;
}
