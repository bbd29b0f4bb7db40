/*
 * rebalance.h: the controller looks by itself whether VMs should move: it says so (recommend) or
 * does it (on), a batch at a time.
 *
 * What keeps it from chasing noise: a node must be hot for the hold time; between two batches, and
 * two moves of one VM, the cooldown passes; a move must pay and makes no node hot (plan.h). What a
 * restart forgets (since when a node is hot, what moved when) only makes it wait longer.
 */
#pragma once

#include "controller/controller.h"

/* free() it. */
struct rebalance *rebalance_new(void);
/* Called by the tick; does something once in rebalance_interval_ms. */
void rebalance_check(struct controller *controller);
