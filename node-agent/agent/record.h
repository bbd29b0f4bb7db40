/*
 * record.h: what the next agent must know about a VM of this node: RUN_DIR/vms/VM_ID/record.
 *
 * Lines "KEY VALUE", replaced as a whole by rename. Together with spec.pb beside it, it is written
 * before anything else is made for the VM, and again before its VMM runs (spawn.h). So after a
 * crash
 *
 *     no folder              nothing was made
 *     record without a pid   nothing runs: disks half made, perhaps; the start failed
 *     record with a pid      that process, if it still lives, is the VMM; adopt it
 *     record with "ended"    the VMM is gone, and this is how it ended
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/last_state.h"
#include "proto/common.pb-c.h"

struct vm_record {
    uint64_t request_id; /* the command that brought it up */
    uint64_t epoch;
    bool incoming; /* started as the target of a migration */
    char migration_id[64];
    uint16_t port; /* where it waits for the migration */
    pid_t pid;     /* 0: not started yet */
    uint64_t start_ticks;
    char boot_id[40];
    Vmpool__VmState ended; /* VM_UNKNOWN: has not */
    char text[256];        /* why it ended */
};

int record_save(int dir_fd, const struct vm_record *record, struct error *err);
/* A damaged record is an error. */
int record_load(int dir_fd, struct vm_record *record, struct error *err);

/* Opens the file the VMM keeps its last state in (common/last_state.h), empty, for it to write. */
int record_open_state(int dir_fd, struct error *err);
/* What is in it; -1 where the VMM wrote nothing. */
int record_load_state(int dir_fd, struct last_state *state);

/* The VM's description beside it, spec.pb. */
int record_save_spec(int dir_fd, const Vmpool__VmSpec *spec, struct error *err);
Vmpool__VmSpec *record_load_spec(int dir_fd, struct error *err);
