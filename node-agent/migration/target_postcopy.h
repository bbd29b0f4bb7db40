/*
 * target_postcopy.h: post-copy at the target: what it hears of it before and in the pause, the time
 * in which the guest runs and pages are lacking, and the link that is lost and found.
 */
#pragma once

#include "node-agent/migration/target.h"

/* Whether post-copy is possible here, and nobody forbade it. */
bool target_wants_postcopy(const struct migration_target *target);

/* STALE: drops what the list says. Tells the source how many pages are lacking then. */
int target_hear_stale(struct migration_target *target, const struct frame *frame,
                      const uint8_t *payload, struct error *err);
/* POSTCOPY: the pause in hand ends with pages lacking. */
int target_hear_postcopy(struct migration_target *target, const struct frame *frame,
                         struct error *err);
/* RETRACT: everything will be sent again. */
void target_forget_postcopy(struct migration_target *target);

/* Before the machine state is loaded, and after: whoever touches a lacking page from the one on
 * waits for it. */
int target_begin_postcopy(struct migration_target *target, struct error *err);
int target_check_postcopy(struct migration_target *target, struct error *err);

/* One look while the link is lost; -1: it has been for too long. */
int target_await_link(struct migration_target *target, struct error *err);
/* One look in MIGRATION_TARGET_POSTCOPY. @heard is what reading the control connection came to: -1
 * with @err where the link is lost. 1: nothing is lacking any more; 0; -1: the guest's memory is
 * lost. */
int target_step_postcopy(struct migration_target *target, int heard, struct error *err);

/* Whether the source may connect anew. */
bool target_may_resume(const struct migration_target *target);
/* What speaks against a greeting to go on; NULL: nothing. */
const char *target_object_to_resume(const struct migration_target *target,
                                    const struct hello *hello);
/* The source begins an attempt to go on: what is left of the link before is closed. */
void target_begin_resume(struct migration_target *target, uint64_t number);
void target_lose_link(struct migration_target *target, const char *why);
