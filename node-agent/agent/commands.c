#include "node-agent/agent/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/agent/bringup.h"
#include "node-agent/agent/faults.h"
#include "node-agent/agent/ledger.h"
#include "node-agent/agent/spec.h"
#include "node-agent/agent/vm_action.h"
#include "node-agent/agent/vm_report.h"

/* A copy that cannot run any more, or never did and is of an older epoch, makes way for a new one
 * even while its process still exists. */
static bool makes_way(const struct vm *vm, uint64_t epoch)
{
    switch (vm->state) {
    case VMPOOL__VM_STATE__VM_STOPPED:
    case VMPOOL__VM_STATE__VM_PANICKED:
    case VMPOOL__VM_STATE__VM_FAILED:
    case VMPOOL__VM_STATE__VM_GAVE_UP:
    case VMPOOL__VM_STATE__VM_INCOMING:
        return !vm->bringup && vm->record.epoch < epoch;
    default:
        return false;
    }
}

static int check_place(const struct vm *vm, uint64_t epoch, struct error *err)
{
    if (!vm || (!vm_has_process(vm) && !vm->bringup))
        return 0;
    return error_set(err, ERROR_CONFLICT,
                     "VM %s is already on this node, at epoch %" PRIu64 ", asked for %" PRIu64,
                     vm->id, vm->record.epoch, epoch);
}

/* Answers a command that brought this very copy up before: the agent was restarted since, and the
 * controller asks again. */
static bool answer_repeat(struct agent *agent, uint64_t request_id, struct vm *vm)
{
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    struct vm_description description;
    if (!vm || vm->record.request_id != request_id || vm->bringup)
        return false;
    if (vm->state == VMPOOL__VM_STATE__VM_PAUSED && !vm->record.incoming)
        return false; /* started, and the agent died before it let it run */
    vm_describe(vm, false, &description);
    answer.vm = &description.message;
    if (vm->record.incoming) {
        answer.address = agent->migration_address;
        answer.port = vm->record.port;
    }
    agent_answer(agent, request_id, &answer);
    return true;
}

/* What start and prepare have in common: checks, epoch noted, an ended copy's record removed. NULL
 * where the command was refused or answered. */
static struct vm *make_copy(struct agent *agent, const Vmpool__VmSpec *spec,
                            const struct vm_record *record, struct error *err)
{
    if (spec_check(spec, err) < 0 || record->epoch == 0) {
        if (err->kind == ERROR_NONE)
            (void)error_set(err, ERROR_USAGE, "the command carries no epoch");
        return NULL;
    }
    struct vm *old = vm_find(agent, spec->id);
    if (ledger_check(agent->epochs_fd, spec->id, record->epoch, 1, err) < 0 ||
        check_place(old, record->epoch, err) < 0 ||
        ledger_raise(agent->epochs_fd, spec->id, record->epoch, 0, err) < 0)
        return NULL;
    if (!agent->facts.kvm) {
        (void)error_set(err, ERROR_FAILED, "this node has no usable /dev/kvm");
        return NULL;
    }
    if (old)
        vm_forget(old);
    return vm_new(agent, spec, record, err);
}

static void handle_start(struct agent *agent, uint64_t request_id, const Vmpool__NodeVmStart *start)
{
    struct error err = ERROR_INIT;
    struct vm_record record = {.request_id = request_id, .epoch = start->epoch};
    struct vm *old = start->spec ? vm_find(agent, start->spec->id) : NULL;
    if (answer_repeat(agent, request_id, old))
        return;
    if (old && old->record.request_id == request_id && vm_has_process(old)) {
        vm_action_run(agent, request_id, old, start->epoch);
        return;
    }
    struct vm *vm = make_copy(agent, start->spec, &record, &err);
    if (!vm) {
        agent_answer_error(agent, request_id, &err);
        return;
    }
    log_info("VM %s (%s): starting at epoch %" PRIu64, vm->spec->name, vm->id, start->epoch);
    bringup_start(vm, request_id);
}

static void handle_prepare(struct agent *agent, uint64_t request_id,
                           const Vmpool__NodeMigratePrepare *prepare)
{
    struct error err = ERROR_INIT;
    struct vm_record record = {
        .request_id = request_id, .epoch = prepare->next_epoch, .incoming = true};
    struct vm *old = prepare->spec ? vm_find(agent, prepare->spec->id) : NULL;
    if (answer_repeat(agent, request_id, old))
        return;
    if (!prepare->migration_id[0] || !text_is_printable(prepare->migration_id, 60))
        (void)error_set(&err, ERROR_USAGE, "the migration has no usable id");
    else if (prepare->spec && spec_has_local_disk(prepare->spec))
        (void)error_set(&err, ERROR_USAGE,
                        "a VM with a disk of its own node cannot migrate; use disks on shared "
                        "storage (--disk PATH)");
    (void)snprintf(record.migration_id, sizeof record.migration_id, "%s", prepare->migration_id);
    struct vm *vm = err.kind == ERROR_NONE ? make_copy(agent, prepare->spec, &record, &err) : NULL;
    if (!vm) {
        agent_answer_error(agent, request_id, &err);
        return;
    }
    log_info("VM %s (%s): preparing to receive it at epoch %" PRIu64, vm->spec->name, vm->id,
             prepare->next_epoch);
    bringup_prepare(vm, request_id, prepare);
}

/* The answer given before, sent again as it was. */
static void answer_again(struct agent *agent, uint64_t request_id, const uint8_t *data, size_t size)
{
    Vmpool__NodeAnswer *answer = vmpool__node_answer__unpack(NULL, size, data);
    if (!answer)
        return;
    agent_send_answer(agent, request_id, answer);
    vmpool__node_answer__free_unpacked(answer, NULL);
}

/* A start or prepare that waits until the copy before it has ended. */
struct waiting_command {
    struct agent *agent;
    size_t size;
    uint8_t packed[];
};

static void carry_out(struct agent *agent, const Vmpool__ControllerToNode *command);

static void on_made_way(void *context, const struct error *err)
{
    struct waiting_command *waiting = context;
    struct agent *agent = waiting->agent;
    Vmpool__ControllerToNode *command =
        vmpool__controller_to_node__unpack(NULL, waiting->size, waiting->packed);
    free(waiting);
    if (!command)
        return; /* out of memory: it stays unanswered, and is sent again */
    if (err)
        agent_answer_error(agent, command->request_id, err);
    else
        carry_out(agent, command);
    vmpool__controller_to_node__free_unpacked(command, NULL);
}

/* Ends what is in the way of a start or prepare of @vm_id at @epoch; true where the command has to
 * wait for that and is carried out later. */
static bool clear_way(struct agent *agent, const Vmpool__ControllerToNode *command,
                      const Vmpool__VmSpec *spec, uint64_t epoch)
{
    struct vm *vm = spec ? vm_find(agent, spec->id) : NULL;
    if (!vm || !vm_has_process(vm) || !makes_way(vm, epoch))
        return false;
    size_t size = vmpool__controller_to_node__get_packed_size(command);
    struct waiting_command *waiting = malloc(sizeof *waiting + size);
    if (!waiting)
        return false;
    waiting->agent = agent;
    waiting->size = vmpool__controller_to_node__pack(command, waiting->packed);
    log_info("VM %s (%s): the copy that ended here makes way", vm->spec->name, vm->id);
    vm_end(vm, epoch, true, on_made_way, waiting);
    return true;
}

static void handle_unknown(struct agent *agent, uint64_t request_id)
{
    struct error err;
    (void)error_set(&err, ERROR_FAILED, "this pool-agent does not know the command; upgrade it");
    agent_answer_error(agent, request_id, &err);
}

static void carry_out(struct agent *agent, const Vmpool__ControllerToNode *command)
{
    uint64_t id = command->request_id;
    switch (command->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_START:
        if (!clear_way(agent, command, command->vm_start->spec, command->vm_start->epoch))
            handle_start(agent, id, command->vm_start);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND:
        vm_action_handle(agent, id, command->vm_command);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_PREPARE:
        if (!clear_way(agent, command, command->migrate_prepare->spec,
                       command->migrate_prepare->next_epoch))
            handle_prepare(agent, id, command->migrate_prepare);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_OUT:
        vm_action_migrate_out(agent, id, command->migrate_out);
        break;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_CANCEL:
        vm_action_migrate_cancel(agent, id, command->migrate_cancel);
        break;
    default:
        handle_unknown(agent, id);
        break;
    }
}

static const char *fault_point_of(const Vmpool__ControllerToNode *command)
{
    switch (command->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_START:
        return "agent.command.start";
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_PREPARE:
        return "agent.command.prepare";
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_OUT:
        return "agent.command.migrate-out";
    case VMPOOL__CONTROLLER_TO_NODE__BODY_MIGRATE_CANCEL:
        return "agent.command.cancel";
    case VMPOOL__CONTROLLER_TO_NODE__BODY_VM_COMMAND:
        if (command->vm_command->action == VMPOOL__NODE_VM_COMMAND__ACTION__RUN)
            return "agent.command.run";
        if (command->vm_command->action == VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD)
            return "agent.command.discard";
        return "agent.command.other";
    default:
        return "agent.command.other";
    }
}

/* Carries a command out once, however often it comes. */
static void handle_once(struct agent *agent, const Vmpool__ControllerToNode *command)
{
    struct error err = ERROR_INIT;
    const uint8_t *known;
    size_t size;
    switch (answers_begin(agent->answers, command->request_id, &known, &size)) {
    case ANSWER_NEW:
        carry_out(agent, command);
        break;
    case ANSWER_KNOWN:
        answer_again(agent, command->request_id, known, size);
        break;
    case ANSWER_BUSY:
        (void)error_set(&err, ERROR_FAILED, "this node has too many commands under way");
        agent_answer_error(agent, command->request_id, &err);
        break;
    case ANSWER_RUNNING:
        break;
    }
}

void commands_handle(struct agent *agent, const Vmpool__ControllerToNode *command)
{
    /* These are not answered: pieces and console data, and housekeeping. */
    switch (command->body_case) {
    case VMPOOL__CONTROLLER_TO_NODE__BODY_IMAGE_PIECE:
        image_cache_piece(agent->images, command->image_piece);
        return;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_CONSOLE:
        relay_handle(agent, command->console);
        return;
    case VMPOOL__CONTROLLER_TO_NODE__BODY_IMAGE_PRUNE:
        image_cache_prune(agent->images, command->image_prune->keep_sha256,
                          command->image_prune->n_keep_sha256);
        return;
    default:
        break;
    }
    for (unsigned copies = fault_message(fault_point_of(command)); copies > 0; copies--)
        handle_once(agent, command);
}
