#include "node-agent/agent/vm_verdict.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/agent/vmm_log.h"

bool vm_state_has_run(Vmpool__VmState state)
{
    return state == VMPOOL__VM_STATE__VM_RUNNING || state == VMPOOL__VM_STATE__VM_MIGRATING ||
           state == VMPOOL__VM_STATE__VM_GAVE_UP || state == VMPOOL__VM_STATE__VM_STOPPED ||
           state == VMPOOL__VM_STATE__VM_PANICKED;
}

static bool is_final(Vmpool__VmState state)
{
    return state == VMPOOL__VM_STATE__VM_STOPPED || state == VMPOOL__VM_STATE__VM_PANICKED ||
           state == VMPOOL__VM_STATE__VM_FAILED;
}

/* Takes over what the VMM kept in its file. A target that never ran is known as such by it; a VM
 * that was paused may have run before. */
static void hear_kept_state(struct vm *vm)
{
    struct last_state kept;
    struct error err = ERROR_INIT;
    if (record_load_state(vm->dir_fd, &kept) < 0)
        return;
    vm->state = (Vmpool__VmState)kept.state;
    (void)snprintf(vm->text, sizeof vm->text, "%s", kept.text);
    bool waited = vm->state == VMPOOL__VM_STATE__VM_INCOMING ||
                  vm->state == VMPOOL__VM_STATE__VM_READY ||
                  vm->state == VMPOOL__VM_STATE__VM_PREPARING;
    if (waited || vm_state_has_run(vm->state))
        vm->ran = !waited;
    if (kept.epoch > vm->record.epoch && vm_raise_epoch(vm, kept.epoch, &err) < 0)
        log_warn("VM %s: %s", vm->id, err.text);
}

static void explain(struct vm *vm, int exit_status, const char *how)
{
    char line[200], cause[80];
    const char *when =
        vm->state == VMPOOL__VM_STATE__VM_GAVE_UP ? " after it had given the VM up" : "";
    vmm_log_last_line(vm->dir_fd, line, sizeof line);
    if (how)
        (void)snprintf(cause, sizeof cause, "%s", how);
    else if (exit_status > 128)
        (void)snprintf(cause, sizeof cause, "its VMM was ended by signal %d", exit_status - 128);
    else if (exit_status >= 0)
        (void)snprintf(cause, sizeof cause, "its VMM ended with status %d", exit_status);
    else
        (void)snprintf(cause, sizeof cause, "its VMM ended");
    (void)snprintf(vm->text, sizeof vm->text, "%s%s%s%s", cause, when, line[0] ? ": " : "", line);
}

void vm_judge(struct vm *vm, int exit_status, const char *how)
{
    struct error err = ERROR_INIT;
    hear_kept_state(vm);
    if (!is_final(vm->state) && exit_status == 0 && vm->ran) {
        vm->state = VMPOOL__VM_STATE__VM_STOPPED;
    } else if (!is_final(vm->state)) {
        explain(vm, exit_status, how);
        vm->state = VMPOOL__VM_STATE__VM_FAILED;
    }
    vm->record.ended = vm->state;
    (void)snprintf(vm->record.text, sizeof vm->record.text, "%.255s", vm->text);
    if (record_save(vm->dir_fd, &vm->record, &err) < 0)
        log_warn("VM %s: %s", vm->id, err.text);
}
