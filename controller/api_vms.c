/* VMs: create, list, start, stop, kill, remove, migrate, explain. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/units.h"
#include "controller/api.h"
#include "controller/events.h"
#include "controller/images.h"
#include "controller/job_vm_migrate.h"
#include "controller/pb.h"
#include "controller/placement.h"
#include "controller/plans.h"
#include "controller/uuid.h"
#include "controller/validate.h"

static void reply_placement(struct api_call *call, Vmpool__Placement *placement)
{
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_PLACEMENT;
    call->reply.placement = placement;
}

/* ---- create ---- */

/* A locally administered address, made from the VM's id: QEMU's and KVM's well-known 52:54:00. */
static void set_mac(const struct controller *controller, Vmpool__VmSpec *spec)
{
    char id[UUID_SIZE];
    do {
        unsigned a = 0, b = 0, c = 0;
        (void)sscanf(uuid_make(id), "%2x%2x%2x", &a, &b, &c);
        pb_setf(&spec->mac, "52:54:00:%02x:%02x:%02x", a, b, c);
    } while (name_map_get(&controller->vms_by_mac, spec->mac));
}

static void copy_lists(Vmpool__VmSpec *spec, const Vmpool__VmCreate *create)
{
    for (size_t i = 0; i < create->n_disks; i++)
        pb_push(&spec->disks, &spec->n_disks, pb_copy(&create->disks[i]->base));
    for (size_t i = 0; i < create->n_labels; i++)
        pb_push(&spec->labels, &spec->n_labels, pb_copy(&create->labels[i]->base));
}

static Vmpool__Store__Vm *make_vm(const struct controller *controller,
                                  const Vmpool__VmCreate *create, const struct image *image)
{
    char id[UUID_SIZE];
    Vmpool__Store__Vm *stored = mem_new(sizeof *stored);
    vmpool__store__vm__init(stored);
    Vmpool__VmSpec *spec = mem_new(sizeof *spec);
    vmpool__vm_spec__init(spec);
    stored->spec = spec;
    pb_set(&spec->id, uuid_make(id));
    pb_set(&spec->name, create->name);
    spec->vcpus = create->vcpus;
    spec->memory_mib = create->memory_mib;
    spec->bandwidth_bps = create->bandwidth_bps;
    spec->image = pb_copy(&image->stored->spec->base);
    if (create->cmdline_extra[0])
        pb_setf(&spec->image->cmdline, "%s%s%s", image->stored->spec->cmdline,
                image->stored->spec->cmdline[0] ? " " : "", create->cmdline_extra);
    copy_lists(spec, create);
    pb_set(&spec->anti_affinity_group, create->anti_affinity_group);
    spec->no_postcopy = create->no_postcopy;
    if (create->rules)
        spec->rules = pb_copy(&create->rules->base);
    set_mac(controller, spec);
    for (size_t i = 0; i < create->n_node_selector; i++)
        pb_push(&stored->selector, &stored->n_selector, pb_copy(&create->node_selector[i]->base));
    stored->phase = VMPOOL__VM_PHASE__PHASE_STOPPED;
    stored->created_wall_ms = (uint64_t)clock_wall_ms();
    return stored;
}

static struct placement_question question_of(const Vmpool__Store__Vm *stored, const char *only)
{
    return (struct placement_question){.spec = stored->spec,
                                       .selector = stored->selector,
                                       .selector_count = stored->n_selector,
                                       .only_node = only && only[0] ? only : NULL};
}

/* The image it boots; NULL with the error where the request can't be met. */
static const struct image *check_create(const struct controller *controller,
                                        const Vmpool__VmCreate *create, struct error *err)
{
    if (validate_create(create, err) < 0)
        return NULL;
    const struct image *image = image_by_name(controller, create->image);
    if (vm_by_name(controller, create->name))
        (void)error_set(err, ERROR_CONFLICT,
                        "a VM named %s exists: choose another name, or remove it with \"poolctl "
                        "vm rm %s\"",
                        create->name, create->name);
    else if (!image)
        (void)error_set(err, ERROR_NOT_FOUND,
                        "there is no image %.80s: \"poolctl image ls\" shows them, \"poolctl "
                        "image import\" adds one",
                        create->image);
    else if (!create->on_node[0] || api_find_node(controller, create->on_node, err))
        return image;
    return NULL;
}

int api_vm_create(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__VmCreate *create = call->request->vm_create;
    const struct image *image = check_create(controller, create, err);
    if (!image)
        return -1;
    Vmpool__Store__Vm *stored = make_vm(controller, create, image);
    struct placement_question question = question_of(stored, create->on_node);
    if (placement_check(&question, err) < 0) {
        pb_free(stored);
        return -1;
    }
    if (!create->stopped || create->dry_run) {
        Vmpool__Placement *placement = NULL;
        question.adds = true;
        bool fits = placement_choose(controller, &question, &placement, err) != NULL;
        if (create->dry_run || (!fits && !nodes_settling(controller))) {
            /* Who only asks is told why and why not; who orders is refused with a reason. */
            pb_free(stored);
            reply_placement(call, placement);
            return fits ? 0 : -1;
        }
        pb_free(placement);
    }
    struct vm *vm = vm_add(controller, stored);
    vm_save(controller, vm);
    event_add(controller, "info", "vm.created", create->name, 0, "by %s", call->admin);
    Vmpool__Store__Job *journal = job_journal(create->name, call->admin);
    journal->created_vm = true;
    pb_set(&journal->wanted_node, create->on_node);
    struct job *job = job_begin(controller, &job_vm_create, "place", journal, vm);
    if (create->stopped)
        job_done(controller, job, "created, not started");
    api_reply_job(call, job);
    return 0;
}

/* ---- list ---- */

int api_vm_list(struct controller *controller, struct api_call *call, struct error *err)
{
    const char *name = call->request->vm_list->name;
    const struct vm *only = name[0] ? api_find_vm(controller, name, err) : NULL;
    if (name[0] && !only)
        return -1;
    Vmpool__VmTable *table = mem_new(sizeof *table);
    vmpool__vm_table__init(table);
    call->reply.body_case = VMPOOL__ADMIN_REPLY__BODY_VMS;
    call->reply.vms = table;
    for (const struct vm *vm = only ? only : controller->vms; vm; vm = only ? NULL : vm->next) {
        if (table->n_vms == TABLE_ROWS_MAX)
            api_send_part(controller, call);
        pb_push(&table->vms, &table->n_vms, vm_describe(controller, vm));
    }
    return 0;
}

/* ---- start, stop, kill, remove ---- */

static int check_idle(const struct vm *vm, struct error *err)
{
    if (!vm->job)
        return 0;
    return error_set(err, ERROR_CONFLICT,
                     "VM %s is busy: job %llu (%s) works on it; wait for it, or cancel it with "
                     "\"poolctl job cancel %llu\"",
                     vm->stored->spec->name, (unsigned long long)vm->job->stored->id,
                     vm->job->kind->name, (unsigned long long)vm->job->stored->id);
}

static int wrong_phase(const struct vm *vm, const char *way_out, struct error *err)
{
    return error_set(err, ERROR_CONFLICT, "VM %s is %s: %s", vm->stored->spec->name,
                     vm_phase_name(vm->stored->phase), way_out);
}

static int start(struct controller *controller, struct api_call *call, struct vm *vm,
                 struct error *err)
{
    Vmpool__VmPhase phase = vm->stored->phase;
    if (phase == VMPOOL__VM_PHASE__PHASE_UNKNOWN)
        return wrong_phase(vm,
                           "it may still run on its lost node; wait for the node, or remove it "
                           "with --force if it is dead for good",
                           err);
    if (vm_phase_after(phase, VM_EVENT_START) == VMPOOL__VM_PHASE__PHASE_NONE ||
        vm_phase_holds_host(phase))
        return wrong_phase(vm, "only one that is stopped or failed can be started", err);
    if (vm->stored->disk_node_id[0] && !node_by_id(controller, vm->stored->disk_node_id))
        return error_set(err, ERROR_CONFLICT,
                         "VM %s has local disks on a node that was removed: it can't start again",
                         vm->stored->spec->name);
    struct placement_question question =
        question_of(vm->stored, node_name_of(controller, vm->stored->disk_node_id));
    if (!placement_choose(controller, &question, NULL, err) && !nodes_settling(controller))
        return -1;
    Vmpool__Store__Job *journal = job_journal(vm->stored->spec->name, call->admin);
    api_reply_job(call, job_begin(controller, &job_vm_start, "place", journal, vm));
    return 0;
}

static int stop(struct controller *controller, struct api_call *call, struct vm *vm, bool kill,
                struct error *err)
{
    const Vmpool__VmChange *change = call->request->vm_change;
    Vmpool__VmPhase phase = vm->stored->phase;
    if (phase != VMPOOL__VM_PHASE__PHASE_RUNNING &&
        !(kill && phase == VMPOOL__VM_PHASE__PHASE_FAILED))
        return wrong_phase(vm, "only one that runs can be stopped", err);
    Vmpool__Store__Job *journal = job_journal(vm->stored->spec->name, call->admin);
    journal->timeout_ms =
        change->timeout_ms ? change->timeout_ms : controller->config.stop_timeout_ms;
    journal->force = change->force;
    (void)vm_happens(controller, vm, VM_EVENT_STOP, "");
    api_reply_job(call, job_begin(controller, kill ? &job_vm_kill : &job_vm_stop,
                                  kill ? "kill" : "button", journal, vm));
    return 0;
}

static int remove_vm(struct controller *controller, struct api_call *call, struct vm *vm,
                     struct error *err)
{
    bool force = call->request->vm_change->force;
    const struct node *node = vm_node(controller, vm);
    if (vm_phase_holds_host(vm->stored->phase) && !force)
        return wrong_phase(vm, "stop it first, or use --force", err);
    if (node && node->phase == VMPOOL__NODE_PHASE__NODE_LOST && !force)
        return error_set(err, ERROR_UNREACHABLE,
                         "node %s, which holds what is left of VM %s, is lost: wait for it, or "
                         "use --force to forget the VM now and clean up when the node is back",
                         node->stored->name, vm->stored->spec->name);
    if (!vm_happens(controller, vm, VM_EVENT_REMOVE, ""))
        return wrong_phase(vm, "it can't be removed now", err);
    Vmpool__Store__Job *journal = job_journal(vm->stored->spec->name, call->admin);
    journal->force = force;
    api_reply_job(call, job_begin(controller, &job_vm_remove, "remove", journal, vm));
    return 0;
}

int api_vm_change(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__VmChange *change = call->request->vm_change;
    struct vm *vm = api_find_vm(controller, change->name, err);
    if (!vm || check_idle(vm, err) < 0)
        return -1;
    if (change->timeout_ms > 24ull * 3600 * 1000)
        return error_set(err, ERROR_USAGE, "a timeout is at most 24 hours");
    switch (change->action) {
    case VMPOOL__VM_CHANGE__ACTION__START:
        return start(controller, call, vm, err);
    case VMPOOL__VM_CHANGE__ACTION__STOP:
        return stop(controller, call, vm, false, err);
    case VMPOOL__VM_CHANGE__ACTION__KILL:
        return stop(controller, call, vm, true, err);
    case VMPOOL__VM_CHANGE__ACTION__REMOVE:
        return remove_vm(controller, call, vm, err);
    default:
        return error_set(err, ERROR_USAGE, "a VM is started, stopped, killed or removed");
    }
}

/* ---- migrate ---- */

static int check_migrate(const struct controller *controller, const struct vm *vm,
                         const Vmpool__VmMigrate *migrate, struct error *err)
{
    const struct node *source = vm_node(controller, vm);
    if (validate_limits(migrate->limits, err) < 0)
        return -1;
    if (vm->stored->phase != VMPOOL__VM_PHASE__PHASE_RUNNING || !source)
        return wrong_phase(vm, "only one that runs can migrate", err);
    if (vm->stored->spec->no_postcopy && migrate->limits &&
        migrate->limits->mode == VMPOOL__MIGRATION_MODE__MODE_POSTCOPY)
        return error_set(err, ERROR_CONFLICT,
                         "VM %s was made with --no-post-copy: move it by another mode",
                         vm->stored->spec->name);
    if (vm_has_local_disks(vm))
        return error_set(err, ERROR_CONFLICT,
                         "VM %s has disks in its node's own folder, which do not move: give VMs "
                         "that shall migrate a --disk PATH that all hosts see",
                         vm->stored->spec->name);
    if (!migrate->to_node[0])
        return 0;
    if (!api_find_node(controller, migrate->to_node, err))
        return -1;
    if (strcmp(migrate->to_node, source->stored->name) == 0)
        return error_set(err, ERROR_CONFLICT, "VM %s runs on %s already", vm->stored->spec->name,
                         migrate->to_node);
    return 0;
}

int api_vm_migrate(struct controller *controller, struct api_call *call, struct error *err)
{
    const Vmpool__VmMigrate *migrate = call->request->vm_migrate;
    Vmpool__Placement *placement = NULL;
    struct vm *vm = api_find_vm(controller, migrate->name, err);
    if (!vm || check_idle(vm, err) < 0 || check_migrate(controller, vm, migrate, err) < 0)
        return -1;
    struct placement_question question = question_of(vm->stored, migrate->to_node);
    question.not_node = node_name_of(controller, vm->stored->node_id);
    bool fits = placement_choose(controller, &question, &placement, err) != NULL;
    if (migrate->dry_run || (!fits && !nodes_settling(controller))) {
        if (fits)
            placement->forecast = plans_forecast(controller, vm, placement->node);
        reply_placement(call, placement);
        return fits ? 0 : -1;
    }
    pb_free(placement);
    api_reply_job(call, job_vm_migrate_begin(controller, vm, migrate->to_node, migrate->limits,
                                             call->admin, 0));
    return 0;
}

int api_vm_explain(struct controller *controller, struct api_call *call, struct error *err)
{
    const struct vm *vm = api_find_vm(controller, call->request->vm_explain->name, err);
    if (!vm)
        return -1;
    if (!vm->stored->placement)
        return error_set(err, ERROR_NOT_FOUND, "VM %s was never placed: it was not started yet",
                         vm->stored->spec->name);
    reply_placement(call, pb_copy(&vm->stored->placement->base));
    return 0;
}
