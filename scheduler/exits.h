/*
 * exits.h: when VMs are expected to leave, and the memory of a node with them: the mean of its VMs,
 * weighted by memory. A VM is best put with others that leave when it does, so that what they leave
 * free is one large room and not many small ones. The time the last of them leaves, which NILAS
 * goes by, needed more hosts in measurements (docs/scheduler.md). Only kept for SCHED_BEST, and
 * only acted on while forecasts are good (lifetimes.h); until then no node has an exit and no
 * placement asks for one. Private to scheduler/.
 *
 * A VM that outlives its forecast is taken to stay as long again as it has been there. Time counts
 * in slots, so that nodes remain equal to the index and VMs need to be looked at once a slot.
 */
#pragma once

#include "scheduler/pool.h"

#define EXIT_SLOT_S 900

int exits_init(struct scheduler *pool, struct error *err);
/* A VM that is new to the pool, there since @since_s. */
void exits_begin(const struct scheduler *pool, struct vm *vm, uint64_t since_s);
/* Finds node.exit_slot anew. O(its VMs). */
void exits_refresh(const struct scheduler *pool, struct node *node);
/* The slot in which a VM of such a kind would leave, or the one it is now; 0: not to be asked. */
uint32_t exits_of_request(const struct scheduler *pool, const struct sched_request *request,
                          const struct vm *self);
/* Makes @to, whose VMs are those of @from and whose nodes are not in the index yet, know what @from
 * does. */
int exits_copy(struct scheduler *to, const struct scheduler *from, struct error *err);
