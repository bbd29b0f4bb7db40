/*
 * lifecycle.h: what state the VM is in and which command may change it: the epoch rules as pure
 * logic.
 *
 * An epoch is a fencing token: the controller's store only ever raises it. A command that carries a
 * lower one than was seen comes from a past that is over, and is refused. A source that gave up has
 * seen the epoch it gave up to; only a higher one lets it run again, because at that very epoch the
 * target may be running.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/common.pb-c.h"

struct lifecycle {
    Vmpool__VmState state;
    uint64_t epoch; /* the one the guest runs at here, or ran at last */
    uint64_t seen;  /* the highest any accepted command carried */
    char text[256]; /* why, in FAILED and PANICKED, and while held */
    bool held;      /* PAUSED because part of its RAM cannot be had now */
};

/* Starts in PREPARING, or INCOMING where a migration is awaited. */
void lifecycle_init(struct lifecycle *life, uint64_t epoch, bool incoming);

/* Whether a command carrying @epoch is of the present; notes it. 0: no epoch was given, as by a
 * person at the socket; taken as the highest seen. */
int lifecycle_see(struct lifecycle *life, uint64_t epoch, struct error *err);

/* VmmRun: on 0 the guest is to run at life->epoch (it may run already). In READY the caller asks
 * the engine, then calls lifecycle_run_at(). Nothing is changed where it is refused. */
int lifecycle_run(struct lifecycle *life, uint64_t epoch, struct error *err);

/* The target of a migration runs at @epoch. */
void lifecycle_run_at(struct lifecycle *life, uint64_t epoch);

/* VmmPause: RUNNING becomes PAUSED. Refused within a migration. */
int lifecycle_pause(struct lifecycle *life, uint64_t epoch, struct error *err);

/* VmmMigrateOut: RUNNING becomes MIGRATING. */
int lifecycle_migrate(struct lifecycle *life, uint64_t epoch, uint64_t next_epoch,
                      struct error *err);
/* The migration came to nothing: MIGRATING becomes RUNNING. */
void lifecycle_migrate_failed(struct lifecycle *life);
/* The source's point of no return: the target may run at @next_epoch. */
void lifecycle_give_up(struct lifecycle *life, uint64_t next_epoch);

/* The target has everything and waits for the source's word. */
void lifecycle_ready(struct lifecycle *life);
/* The source took it back and sends on: READY becomes INCOMING. */
void lifecycle_unready(struct lifecycle *life);

/* Post-copy's link is lost, @text says so, or it is there again. RUNNING becomes PAUSED and back;
 * no command lets the guest run meanwhile. */
void lifecycle_hold(struct lifecycle *life, bool held, const char *text);

/* STOPPED, PANICKED or FAILED, for good. */
void lifecycle_end(struct lifecycle *life, Vmpool__VmState state, const char *text);

/* "running", for logs and errors. */
const char *lifecycle_name(Vmpool__VmState state);
