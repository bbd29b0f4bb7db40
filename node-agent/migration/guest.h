/*
 * guest.h: what the migration engine needs of a machine, and all it knows of one.
 *
 * The engine moves RAM pages and one block of machine state; it does not know KVM. pool-vmm gives
 * it the real machine, unit tests give it an array. Page numbers are RAM offset / 4096
 * (vmm/layout.h). Functions return 0 or -1 with @err set, and are called from the engine's own
 * threads: one at a time, except dirty_clear(), which the page streams call at the same time for
 * different ranges.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct migration_guest_ops {
    /* Source. Starts recording writes; from then on each page written by anyone is reported once by
     * a later dirty_sync(). */
    int (*dirty_start)(void *guest, struct error *err);
    /* Source. Stops recording. Slow: never inside the pause. */
    void (*dirty_stop)(void *guest);
    /* Source. ORs the pages written since they were last cleared into @bitmap (one bit a page,
     * little-endian 64-bit words, RAM size / 4096 bits): KVM's log and the VMM's own writes. */
    int (*dirty_sync)(void *guest, uint64_t *bitmap, struct error *err);
    /* Source. Of pages [@first, @first + @count), both multiples of 64 (or the end of RAM),
     * re-protects those set in @bitmap (of all RAM, as from dirty_sync()), so that their next write
     * is seen: called just before they are read. The others must keep what was recorded of them: a
     * page written since the last sync would be lost. (KVM_CLEAR_DIRTY_LOG takes just this.) */
    int (*dirty_clear)(void *guest, const uint64_t *bitmap, uint64_t first, uint64_t count,
                       struct error *err);

    /* Source, may be NULL. The vCPUs that write most run for only 100 - @percent of the time from
     * now on, the others as ever; dirty_stop() lets all run at full speed again. */
    int (*throttle)(void *guest, unsigned percent, struct error *err);

    /* Source. Stops all vCPUs and quiets the devices: when it returns nothing writes to RAM. */
    int (*pause)(void *guest, struct error *err);
    /* Source. Lets the guest run on after a pause that led to nothing. Refused after give_up(). */
    int (*resume)(void *guest, struct error *err);
    /* Source. Packs the machine state; @state is free()d by the engine. May dirty RAM. */
    int (*save)(void *guest, uint8_t **state, size_t *size, struct error *err);
    /* Source. The point of no return: from here on this process never runs the guest by itself. */
    void (*give_up)(void *guest);

    /* Target, may be NULL. A greeting of the source said that its CLOCK_REALTIME is @ahead_ns ahead
     * of ours, less what the greeting took on its way: of several the largest is the best. Called
     * before load(). */
    void (*peer_clock)(void *guest, int64_t ahead_ns);
    /* Target, may be NULL. Saves and loads the state of the machine as it is, newly made: takes as
     * long as the real thing and changes nothing. Called before load(). */
    int (*rehearse)(void *guest, struct error *err);
    /* Target, whose RAM nobody wrote to before: a page never received counts as zeros.
     * Loads the machine state; RAM is complete, or, in post-copy, whoever touches what is lacking
     * waits until it came. The guest does not run. Called once more,
     * with newer RAM and state, where a pause led to nothing and the source tried again. */
    int (*load)(void *guest, const uint8_t *state, size_t size, struct error *err);
    /* Target. The source has given up: run at @epoch. @running_ns gets the CLOCK_MONOTONIC time the
     * vCPUs were let go. */
    int (*run)(void *guest, uint64_t epoch, int64_t *running_ns, struct error *err);
    /* Target, may be NULL; only called where there is a @uffd. The link to the source is lost while
     * pages are lacking (@hold), or it is there again. While held no vCPU enters the guest, which
     * is told as paused. From the engine's thread, at once: it waits for nobody. */
    void (*hold)(void *guest, bool hold);
    /* Target, may be NULL. Called right after run(): tells the network where the guest now lives;
     * returns when the first announcement is out. */
    void (*announce)(void *guest);
};

struct migration_guest {
    const struct migration_guest_ops *ops;
    void *self;
    uint8_t *ram;       /* private, anonymous memory */
    uint64_t ram_bytes; /* multiple of 4096 */
    int pagemap_fd;     /* /proc/self/pagemap, which tells holes; -1: all counts as data */
    int uffd;           /* target: of uffd_open(), for post-copy; -1: none */
    char vm_id[64];
};
