/*
 * report.h: what the agent tells the controller by itself: who it is, and how it is.
 */
#pragma once

#include <stdbool.h>

#include "node-agent/agent/agent.h"

/* The first message of a connection: a JOIN with the node's name and key, or a HELLO with all VMs.
 */
void report_greet(struct agent *agent, bool joining);

/* Measures the host and its VMs and sends a report. */
void report_send(struct agent *agent);
