/*
 * fuzz_guest.h: a machine for the fuzzers of both ends of a migration: 64 pages of RAM between two
 * that nobody may touch, a machine state of a few bytes, and a record of what the engine did. What
 * must never happen aborts.
 */
#pragma once

#include <stdatomic.h>

#include "node-agent/migration/migration.h"

#define FUZZ_RAM_PAGES  64u
#define FUZZ_FULL_PAGES 12u /* of a source, with several kinds of contents */
#define FUZZ_EPOCH      4u  /* the source's; the target's is the next */

struct fuzz_guest {
    struct migration_guest guest;
    struct migration_guest_ops ops;
    uint8_t *mapping;
    unsigned dirty_rounds; /* so many calls of dirty_sync() find a page that was written */
    _Atomic unsigned loads, runs;
    _Atomic bool paused, gave_up;
};

/* @full: a source's; @watched: with a userfaultfd, where this process may have one. */
void fuzz_guest_make(struct fuzz_guest *fuzz, bool full, bool watched);
void fuzz_guest_free(struct fuzz_guest *fuzz);
