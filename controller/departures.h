/*
 * departures.h: how long VMs stayed that have been removed: what the scheduler learns lifetimes
 * from, kept over restarts.
 *
 * Kept are the last DEPARTURES_MAX, under the numbers in which they left.
 */
#pragma once

#include "controller/vms.h"

#define DEPARTURES_MAX 4096

/* Teaches the scheduler what the store has. */
int departures_load(struct controller *controller, struct error *err);
/* @vm is about to be removed because somebody wanted it to end. */
void departures_note(struct controller *controller, const struct vm *vm);
