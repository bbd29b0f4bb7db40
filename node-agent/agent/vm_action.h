/*
 * vm_action.h: commands on a VM that is here: NodeVmCommand's actions, and a migration's source
 * side.
 */
#pragma once

#include "node-agent/agent/vm.h"

void vm_action_handle(struct agent *agent, uint64_t request_id,
                      const Vmpool__NodeVmCommand *command);
void vm_action_migrate_out(struct agent *agent, uint64_t request_id,
                           const Vmpool__NodeMigrateOut *command);
void vm_action_migrate_cancel(struct agent *agent, uint64_t request_id,
                              const Vmpool__NodeMigrateCancel *command);
/* Lets @vm run at @epoch, which is noted first. */
void vm_action_run(struct agent *agent, uint64_t request_id, struct vm *vm, uint64_t epoch);
