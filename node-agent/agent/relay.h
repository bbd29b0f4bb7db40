/*
 * relay.h: console sessions between the controller and VMs' consoles.
 *
 * The controller opens a session by a number of its choice; all sessions of a VM share the agent's
 * one connection to its console (vm_console.h). A new one gets the last output first. Sessions end
 * with the VM, with the connection to the controller, or when either side says so.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/node.pb-c.h"

#define RELAY_SESSIONS_MAX  64
#define RELAY_SESSIONS_A_VM 8

struct agent;
struct relay;

struct relay *relay_new(void);
void relay_free(struct relay *relay);

/* The controller opens, feeds or closes a session. */
void relay_handle(struct agent *agent, const Vmpool__NodeConsole *message);
/* Output of a VM. */
void relay_output(struct agent *agent, const char *vm_id, const uint8_t *data, size_t size);
/* Ends a VM's sessions and tells the controller why. */
void relay_close_vm(struct agent *agent, const char *vm_id, const char *why);
/* The controller is gone, and its sessions with it. */
void relay_drop_all(struct agent *agent);
