#include "node-agent/agent/vm_action.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/ledger.h"
#include "node-agent/agent/local_disk.h"
#include "node-agent/agent/vm_report.h"
#include "node-agent/agent/vmm_log.h"

#define LOG_TAIL_BYTES (16u << 10)

typedef Vmpool__NodeVmCommand Command;

/* ---- passed on to the VMM -------------------------------------------------------------------- */

/* A command the VMM is asked about; the VM may be gone by the time it answers. */
struct asked {
    struct agent *agent;
    uint64_t request_id;
    char vm_id[VM_ID_LENGTH + 1];
};

static struct asked *note_asked(struct agent *agent, uint64_t request_id, const char *vm_id)
{
    struct asked *asked = calloc(1, sizeof *asked);
    if (!asked)
        return NULL;
    asked->agent = agent;
    asked->request_id = request_id;
    (void)snprintf(asked->vm_id, sizeof asked->vm_id, "%s", vm_id);
    return asked;
}

static void on_vmm_answer(void *context, const Vmpool__VmmReply *reply, const struct error *err)
{
    struct asked *asked = context;
    struct vm *vm = vm_find(asked->agent, asked->vm_id);
    (void)reply;
    if (err)
        agent_answer_error(asked->agent, asked->request_id, err);
    else if (vm)
        vm_answer(asked->agent, asked->request_id, vm);
    free(asked);
}

static void ask_vmm(struct agent *agent, uint64_t request_id, struct vm *vm,
                    Vmpool__VmmRequest *request)
{
    struct error err = ERROR_INIT;
    struct asked *asked = NULL;
    if (!vm->control || vm->bringup)
        (void)error_set(&err, ERROR_CONFLICT, "VM %s does not run here now", vm->spec->name);
    else if ((asked = note_asked(agent, request_id, vm->id)) != NULL &&
             vmm_control_send(vm->control, request, agent->options->vmm_timeout_ms, on_vmm_answer,
                              asked, &err) == 0)
        return;
    free(asked);
    if (err.kind == ERROR_NONE)
        (void)error_set(&err, ERROR_FAILED, "out of memory");
    agent_answer_error(agent, request_id, &err);
}

void vm_action_run(struct agent *agent, uint64_t request_id, struct vm *vm, uint64_t epoch)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmRun run = VMPOOL__VMM_RUN__INIT;
    struct error err = ERROR_INIT;
    /* Noted before it runs: a command of an older epoch that comes late must find this one. */
    if (ledger_raise(agent->epochs_fd, vm->id, epoch, 0, &err) < 0) {
        agent_answer_error(agent, request_id, &err);
        return;
    }
    run.epoch = epoch;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_RUN;
    request.run = &run;
    ask_vmm(agent, request_id, vm, &request);
}

static void power_button(struct agent *agent, uint64_t request_id, struct vm *vm)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmPowerButton button = VMPOOL__VMM_POWER_BUTTON__INIT;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_POWER_BUTTON;
    request.power_button = &button;
    ask_vmm(agent, request_id, vm, &request);
}

static void pause_vm(struct agent *agent, uint64_t request_id, struct vm *vm, uint64_t epoch)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmPause pause = VMPOOL__VMM_PAUSE__INIT;
    pause.epoch = epoch;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_PAUSE;
    request.pause = &pause;
    ask_vmm(agent, request_id, vm, &request);
}

static void balloon(struct agent *agent, uint64_t request_id, struct vm *vm, uint64_t mib)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmBalloon body = VMPOOL__VMM_BALLOON__INIT;
    body.target_mib = mib;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_BALLOON;
    request.balloon = &body;
    ask_vmm(agent, request_id, vm, &request);
}

/* ---- ending a VM ----------------------------------------------------------------------------- */

struct end_command {
    struct agent *agent;
    uint64_t request_id;
    uint64_t epoch;
    Vmpool__NodeVmCommand__Action action;
    char vm_id[VM_ID_LENGTH + 1];
};

/* Nothing runs here any more: removes what the action says, and answers. */
static void finish_end(struct end_command *end)
{
    struct agent *agent = end->agent;
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    struct error err = ERROR_INIT;
    struct vm *vm = vm_find(agent, end->vm_id);
    bool discard = end->action == VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD;
    if (vm)
        vm_forget(vm);
    /* Only now that no copy is left, and before the controller is told so. */
    int status =
        ledger_raise(agent->epochs_fd, end->vm_id, end->epoch, discard ? end->epoch : 0, &err);
    if (status == 0 && end->action == VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE)
        status = local_disk_remove_all(agent->options->storage, end->vm_id, &err);
    if (status < 0) {
        agent_answer_error(agent, end->request_id, &err);
    } else {
        answer.discarded = discard;
        agent_answer(agent, end->request_id, &answer);
    }
    free(end);
}

static void on_ended(void *context, const struct error *err)
{
    struct end_command *end = context;
    if (!err) {
        finish_end(end);
        return;
    }
    agent_answer_error(end->agent, end->request_id, err);
    free(end);
}

/* DISCARD is for copies that do not run at an epoch above the command's; one that does is the VM's
 * owner, and the command is stale. Nor is one that ran at such an epoch before it failed "no copy":
 * an older one must not run on from before that. */
static int check_discard(const struct vm *vm, uint64_t epoch, struct error *err)
{
    bool may_run = vm->state != VMPOOL__VM_STATE__VM_INCOMING &&
                   vm->state != VMPOOL__VM_STATE__VM_PREPARING && vm_has_process(vm);
    bool ran = vm->record.ended && vm->ran;
    if ((may_run || ran) && vm->record.epoch > epoch)
        return error_set(err, ERROR_CONFLICT, "VM %s %s here at epoch %" PRIu64 ", above %" PRIu64,
                         vm->id, may_run ? "runs" : "ran", vm->record.epoch, epoch);
    return 0;
}

/* Whether the command is of the present; a DISCARD of what is not here always is. */
static int check_end(struct agent *agent, const struct vm *vm, const Command *command,
                     struct error *err)
{
    if (command->action != VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD)
        return ledger_check(agent->epochs_fd, command->vm_id, command->epoch, 0, err);
    return vm ? check_discard(vm, command->epoch, err) : 0;
}

static void end_vm(struct agent *agent, uint64_t request_id, const Command *command)
{
    struct error err = ERROR_INIT;
    struct vm *vm = vm_find(agent, command->vm_id);
    struct end_command *end = calloc(1, sizeof *end);
    if (!end)
        (void)error_set(&err, ERROR_FAILED, "out of memory");
    if (!end || check_end(agent, vm, command, &err) < 0) {
        agent_answer_error(agent, request_id, &err);
        free(end);
        return;
    }
    *end = (struct end_command){.agent = agent,
                                .request_id = request_id,
                                .epoch = command->epoch,
                                .action = command->action};
    (void)snprintf(end->vm_id, sizeof end->vm_id, "%s", command->vm_id);
    if (!vm) {
        finish_end(end);
        return;
    }
    log_info("VM %s (%s) is to end here", vm->spec->name, vm->id);
    uint64_t epoch = command->epoch > vm->record.epoch ? command->epoch : vm->record.epoch;
    vm_end(vm, epoch, false, on_ended, end);
}

/* ---- logs ------------------------------------------------------------------------------------ */

/* What an operator's terminal may be shown: no escape sequence of a guest's choosing. */
static size_t make_printable(char *text, size_t size)
{
    size_t to = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\r')
            continue;
        text[to++] = c == '\n' || c == '\t' || (c >= 0x20 && c < 0x7f) ? (char)c : '.';
    }
    return to;
}

static void send_log(struct agent *agent, uint64_t request_id, struct vm *vm)
{
    static const char heading[] = "\n---- pool-vmm ----\n";
    Vmpool__NodeAnswer answer = VMPOOL__NODE_ANSWER__INIT;
    struct vm_description description;
    auto_free char *text = malloc(CONSOLE_TAIL_BYTES + sizeof heading + LOG_TAIL_BYTES);
    if (!text)
        return;
    size_t size = vm->console ? vm_console_tail(vm->console, (uint8_t *)text) : 0;
    memcpy(text + size, heading, sizeof heading);
    size += sizeof heading - 1;
    size += vmm_log_tail(vm->dir_fd, text + size, LOG_TAIL_BYTES);
    text[make_printable(text, size)] = '\0';
    vm_describe(vm, false, &description);
    answer.vm = &description.message;
    answer.console_tail = text;
    agent_answer(agent, request_id, &answer);
}

/* ---- the commands ---------------------------------------------------------------------------- */

static void refuse_absent(struct agent *agent, uint64_t request_id, const char *vm_id)
{
    struct error err;
    (void)error_set(&err, ERROR_NOT_FOUND, "VM %.40s is not on this node", vm_id);
    agent_answer_error(agent, request_id, &err);
}

/* The VM a command names, its epoch checked; NULL where it was refused. */
static struct vm *find_for(struct agent *agent, uint64_t request_id, const char *vm_id,
                           uint64_t epoch)
{
    struct error err = ERROR_INIT;
    struct vm *vm = name_is_uuid(vm_id) ? vm_find(agent, vm_id) : NULL;
    if (!vm) {
        refuse_absent(agent, request_id, vm_id);
        return NULL;
    }
    if (ledger_check(agent->epochs_fd, vm_id, epoch, 0, &err) < 0) {
        agent_answer_error(agent, request_id, &err);
        return NULL;
    }
    return vm;
}

static void act_on(struct agent *agent, uint64_t request_id, struct vm *vm, const Command *command)
{
    switch (command->action) {
    case VMPOOL__NODE_VM_COMMAND__ACTION__POWER_BUTTON:
        power_button(agent, request_id, vm);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__PAUSE:
        pause_vm(agent, request_id, vm, command->epoch);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__RUN:
        vm_action_run(agent, request_id, vm, command->epoch);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__LOG:
        send_log(agent, request_id, vm);
        break;
    case VMPOOL__NODE_VM_COMMAND__ACTION__BALLOON:
        balloon(agent, request_id, vm, command->value);
        break;
    default: {
        struct error err;
        (void)error_set(&err, ERROR_USAGE, "unknown action %d on a VM", (int)command->action);
        agent_answer_error(agent, request_id, &err);
    }
    }
}

void vm_action_handle(struct agent *agent, uint64_t request_id,
                      const Vmpool__NodeVmCommand *command)
{
    bool ends = command->action == VMPOOL__NODE_VM_COMMAND__ACTION__KILL ||
                command->action == VMPOOL__NODE_VM_COMMAND__ACTION__REMOVE ||
                command->action == VMPOOL__NODE_VM_COMMAND__ACTION__DISCARD;
    if (ends && name_is_uuid(command->vm_id)) {
        end_vm(agent, request_id, command);
        return;
    }
    struct vm *vm = find_for(agent, request_id, command->vm_id, command->epoch);
    if (vm)
        act_on(agent, request_id, vm, command);
}

void vm_action_migrate_out(struct agent *agent, uint64_t request_id,
                           const Vmpool__NodeMigrateOut *command)
{
    struct error err = ERROR_INIT;
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmMigrateOut out = VMPOOL__VMM_MIGRATE_OUT__INIT;
    struct vm *vm = find_for(agent, request_id, command->vm_id, command->epoch);
    if (!vm)
        return;
    if (command->key.len != 32 || command->port == 0 || command->port > 65535 ||
        command->next_epoch <= command->epoch || !text_is_printable(command->address, 63) ||
        !text_is_printable(command->migration_id, 60) || !command->migration_id[0]) {
        (void)error_set(&err, ERROR_USAGE, "the migration's key, address, epoch or id is unusable");
        agent_answer_error(agent, request_id, &err);
        return;
    }
    out.migration_id = command->migration_id;
    out.host = command->address;
    out.port = command->port;
    out.key = command->key;
    out.epoch = command->epoch;
    out.next_epoch = command->next_epoch;
    out.limits = command->limits;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_MIGRATE_OUT;
    request.migrate_out = &out;
    ask_vmm(agent, request_id, vm, &request);
}

void vm_action_migrate_cancel(struct agent *agent, uint64_t request_id,
                              const Vmpool__NodeMigrateCancel *command)
{
    Vmpool__VmmRequest request = VMPOOL__VMM_REQUEST__INIT;
    Vmpool__VmmMigrateCancel cancel = VMPOOL__VMM_MIGRATE_CANCEL__INIT;
    struct vm *vm = find_for(agent, request_id, command->vm_id, command->epoch);
    if (!vm)
        return;
    cancel.migration_id = command->migration_id;
    request.body_case = VMPOOL__VMM_REQUEST__BODY_MIGRATE_CANCEL;
    request.migrate_cancel = &cancel;
    ask_vmm(agent, request_id, vm, &request);
}
