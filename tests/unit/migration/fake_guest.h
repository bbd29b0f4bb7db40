/*
 * fake_guest.h: a machine for the engine's tests: an array of RAM, a thread that writes to it, a
 * dirty log as KVM keeps it, and a record of what the engine did.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/migration.h"

enum fake_event {
    FAKE_DIRTY_START,
    FAKE_DIRTY_CLEAR,
    FAKE_PAUSE,
    FAKE_RESUME,
    FAKE_SAVE,
    FAKE_GIVE_UP,
    FAKE_LOAD,
    FAKE_RUN,
    FAKE_HOLD,
    FAKE_EVENTS
};

struct fake_guest {
    struct migration_guest guest;
    pthread_mutex_t lock; /* a write and its mark in the log are one step */
    uint64_t *log;        /* KVM's: stays until cleared */
    uint64_t *own;        /* the VMM's: given once */
    pthread_t writer;
    bool writing; /* the thread exists */
    _Atomic bool quit, stopped;
    uint64_t ws_pages; /* what the writer writes to */
    uint64_t pages_per_ms;
    bool logging, gave_up, running;
    uint64_t run_epoch;
    uint8_t *loaded;
    size_t loaded_size;
    _Atomic unsigned events[FAKE_EVENTS]; /* how often */
    int64_t paused_ns, longest_pause_ns;
    _Atomic bool held; /* by the engine, in post-copy */

    /* Called at the begin of each operation, from the engine's thread; may be NULL. */
    void (*hook)(struct fake_guest *fake, enum fake_event event, void *context);
    void *hook_context;
    bool fail[FAKE_EVENTS]; /* the operation fails */
};

/* RAM of @mib, whose holes are known unless it is @plain. */
struct fake_guest *fake_guest_new(unsigned mib, bool plain);
void fake_guest_free(struct fake_guest *fake);
/* Gives it a userfaultfd, so that it can be the target of post-copy. */
void fake_guest_watch(struct fake_guest *fake);
/* Fills @pages pages with random contents (every fourth stays a hole). */
void fake_guest_fill(struct fake_guest *fake, uint64_t pages);
/* Starts the writer. */
void fake_guest_write(struct fake_guest *fake, uint64_t ws_pages, uint64_t pages_per_ms);
/* Asserts that all RAM is equal. The source must be stopped. */
void fake_guest_assert_equal(const struct fake_guest *a, const struct fake_guest *b);
