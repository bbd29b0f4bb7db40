/*
 * vm_verdict.h: how a VM whose process is gone has ended.
 *
 * Three witnesses, the best first: the state the VMM kept in its file up to its last moment
 * (common/last_state.h), what it last said on its control socket, and its exit status where it was
 * this agent's child. The last line of its log explains.
 */
#pragma once

#include <stdbool.h>

#include "node-agent/agent/vm.h"

#define VM_EXIT_UNKNOWN (-1)

/* Whether a guest in that state has run in this process. */
bool vm_state_has_run(Vmpool__VmState state);

/* Sets the VM's final state, its text and whether it ran, and notes them in its record. @how: said
 * of an end that nobody saw, such as "while no agent ran"; NULL where it was seen. */
void vm_judge(struct vm *vm, int exit_status, const char *how);
