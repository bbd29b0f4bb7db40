/*
 * commands.h: the controller's commands, each checked whole before anything is done.
 */
#pragma once

#include "node-agent/agent/agent.h"

void commands_handle(struct agent *agent, const Vmpool__ControllerToNode *command);
