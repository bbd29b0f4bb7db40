/*
 * vm_report.h: VMs as the controller is told of them.
 */
#pragma once

#include "node-agent/agent/vm.h"

/* A NodeVm with what its pointers point to; valid while the VM is and no packet of it is read. */
struct vm_description {
    Vmpool__NodeVm message;
    Vmpool__MigrationProgress migration;
    Vmpool__VmUsage usage;
};

/* @rounds: with each round of its migration, as events and answers carry it; reports don't. */
void vm_describe(struct vm *vm, bool rounds, struct vm_description *out);

/* All VMs, for reports and hellos: an array of @count pointers, to be given to vm_describe_free().
 */
Vmpool__NodeVm **vm_describe_all(struct agent *agent, size_t *count);
void vm_describe_free(Vmpool__NodeVm **table);

/* Sends an event about the VM now. @what as in NodeVmEvent. */
void vm_send_event(struct vm *vm, const char *what);

/* The VMM said something new: takes it over, and sends an event where the controller should know.
 * Changes are told at once, a migration's progress at most every VM_PROGRESS_INTERVAL_MS. */
void vm_take_status(struct vm *vm, const Vmpool__VmmStatus *status);
#define VM_PROGRESS_INTERVAL_MS 200

/* Answers a command with the VM as it is now. */
void vm_answer(struct agent *agent, uint64_t request_id, struct vm *vm);
