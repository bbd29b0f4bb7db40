/* cmos.h: the clock and 128 bytes of memory behind ports 0x70 and 0x71 (MC146818). The time is the
 * host's, UTC, read-only; there are no alarms. */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"

int cmos_new(struct bus *ports, struct device *device, struct error *err);
