/* job_vm_migrate.h: begins a migration, for the admin API and for drains. */
#pragma once

#include "controller/jobs.h"

/* @wanted_node: a node's name; "": the scheduler chooses. @parent: a drain's job; 0: none. */
struct job *job_vm_migrate_begin(struct controller *controller, struct vm *vm,
                                 const char *wanted_node, const Vmpool__MigrationLimits *limits,
                                 const char *admin, uint64_t parent);
