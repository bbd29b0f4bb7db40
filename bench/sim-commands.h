/* sim-commands.h: what a simulated agent does with the controller's commands. Internal to
 * sim-agent. */
#pragma once

#include "bench/sim-agent.h"

struct sim_description {
    Vmpool__NodeVm vm;
    Vmpool__MigrationProgress migration;
    Vmpool__MigrationPause pause;
    Vmpool__MigrationPostcopy postcopy;
};

/* @out points into @vm. */
void sim_describe(struct sim_vm *vm, struct sim_description *out);
void sim_vm_free(struct sim_agent *agent, struct sim_vm *vm);
void sim_command(struct sim_agent *agent, const Vmpool__ControllerToNode *command);
void sim_send(struct sim_agent *agent, const Vmpool__NodeToController *message);
void sim_send_event(struct sim_agent *agent, struct sim_vm *vm, const char *what);
