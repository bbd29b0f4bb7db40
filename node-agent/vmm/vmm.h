/* vmm.h: the process: one machine, its console and its control socket, and what becomes of them. */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/options.h"

/* Opens everything, drops privileges, and runs the VM to its end. Returns the process's exit
 * status: 0 where the guest powered off or the VM was ended on request; else @err says why. */
int vmm_run(const struct options *options, struct error *err);
