/*
 * target_steps.h: the parts of the target's steps, whose states are drawn at the top of
 * target_steps.c. All are the engine thread's.
 */
#pragma once

#include "node-agent/migration/target.h"

/* ---- target_states.c */

/* Into @state, reported as its usual meaning; @text: why, or "". */
void target_enter(struct migration_target *target, enum migration_target_state state,
                  const char *text);
/* The guest ran here, and part of its memory will never come. */
void target_enter_lost(struct migration_target *target, const char *text);
/* No step follows. */
bool target_is_final(const struct migration_target *target);
void target_tell_progress(struct migration_target *target);

/* ---- target_load.c */

/* Whether RAM and machine state are there, @round being the last whose end all streams reached. */
bool target_is_complete(struct migration_target *target, int64_t round);
/* Verifies, loads, and says READY. */
int target_get_ready(struct migration_target *target, struct error *err);
/* The guest runs, or @err says why it never will. */
int target_run_guest(struct migration_target *target, uint64_t epoch, struct error *err);
void target_forget_machine(struct migration_target *target);

/* ---- target_hear.c */

/* Reads the control connection. A link lost while READY is no failure: -1 with @lost set. */
int target_hear_all(struct migration_target *target, bool *lost, struct error *err);

/* ---- target_orders.c */

/* Carries out what was ordered from outside. */
void target_obey(struct migration_target *target);
