/* usage.h: what this process and its guest have used, for VmUsage. */
#pragma once

#include "node-agent/vmm/machine.h"
#include "proto/common.pb-c.h"

/* Fills @usage; what can't be read stays 0. */
void usage_read(const struct machine *machine, Vmpool__VmUsage *usage);
