/*
 * adopt.h: what an agent finds when it starts: VMs of the agent before it.
 *
 * Each folder in RUN_DIR/vms is read (record.h says what its states mean):
 *   - its VMM lives: it is watched and connected to, and goes on as if nothing had been;
 *   - its VMM died meanwhile: noted as ended and reported; its cgroup is removed, its tap and disk
 *     locks went with it;
 *   - it was never started: the folder, half-made disks and the cgroup are removed. The controller,
 *     which got no answer, sends the command again.
 */
#pragma once

#include "node-agent/agent/agent.h"

/* Adopts, and waits at most ADOPT_WAIT_MS for the VMMs to tell their state. */
int adopt_all(struct agent *agent, struct error *err);
#define ADOPT_WAIT_MS 2000
