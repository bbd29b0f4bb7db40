/*
 * state.h: a stopped machine without its RAM, packed into one message (proto/state.proto) and back.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/machine.h"

/* Packs the state of a paused machine; free() it. Saving may dirty RAM. */
int state_save(struct machine *machine, uint8_t **data, size_t *size, struct error *err);

/* Loads a state that came from elsewhere, as hostile input, into a machine that was made from the
 * same configuration and never ran. May be called again with a newer state. After a failure the
 * machine is of no use. @peer_ahead_ns: see clock_state.h. */
int state_load(struct machine *machine, const uint8_t *data, size_t size, int64_t peer_ahead_ns,
               struct error *err);
