/*
 * last_state.h: what a VMM was in last, in a file that outlives it: "pool-vmm --status".
 *
 * A VMM that dies while no agent runs has nobody to tell. What must be known of it then is whether
 * its guest may have run (a migration's target), whether it had given up (a source), and whether it
 * simply powered off. One line of text at the file's start, written by one pwrite(2) that a dying
 * process either does or does not do, and padded with spaces to a fixed length:
 *
 *     STATE EPOCH TEXT\n       numbers in decimal; STATE is enum VmState of proto/common.proto
 */
#pragma once

#include <stdint.h>

#define LAST_STATE_BYTES 384

struct last_state {
    int state;
    uint64_t epoch;
    char text[256]; /* one line */
};

/* 0, or -1 with errno. */
int last_state_write(int fd, const struct last_state *state);
/* -1 where the file holds none: it is empty or damaged. */
int last_state_read(int fd, struct last_state *state);
