/*
 * bringup.h: brings a VM up, for a start or as the target of a migration.
 *
 *     images  ->  disks  ->  VMM launched  ->  its first status  ->  RUN, or MIGRATE_IN  ->
 * answered
 *
 * One runs at a time for a VM. Whatever fails, everything this attempt made is undone: the VMM
 * ended, new disks removed, the run folder removed; then the command is answered with the reason.
 * Should the agent die in the middle, adopt.h does the same at the next start.
 */
#pragma once

#include "node-agent/agent/vm.h"

/* Starts @vm at its record's epoch; @request_id is answered when it runs or failed. The VM's spec
 * must have been checked. */
void bringup_start(struct vm *vm, uint64_t request_id);

/* Prepares @vm as the target of @prepare; answered with the address to migrate to. */
void bringup_prepare(struct vm *vm, uint64_t request_id, const Vmpool__NodeMigratePrepare *prepare);

/* The VM is to end: the command is answered as cancelled. The VMM is the caller's to end. NULL is
 * fine. */
void bringup_cancel(struct bringup *bringup);
/* The VMM died in the middle. */
void bringup_vmm_died(struct bringup *bringup);
/* The agent ends: everything of its own is freed, nothing is undone. NULL is fine. */
void bringup_abandon(struct bringup *bringup);
