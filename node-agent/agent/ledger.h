/*
 * ledger.h: the highest epoch this node has seen of each VM, and the highest it has thrown away.
 *
 * It outlives the VM and the agent: a late command of an old epoch must be refused even after the
 * VM left this node, or a second copy could start. It need not outlive the host: with the host all
 * VMs died, and the controller's connection with every message still in it. One file a VM in
 * RUN_DIR/epochs, "SEEN DISCARDED\n", replaced by rename; ones older than a week whose VM is not
 * here are removed at start.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct ledger_entry {
    uint64_t seen;
    uint64_t discarded; /* copies up to this epoch were thrown away here; 0: none */
};

/* The file's content; zeroes where nothing was noted. A damaged file is an error: starting anyway
 * could break the invariant. @dir_fd is RUN_DIR/epochs. */
int ledger_read(int dir_fd, const char *vm_id, struct ledger_entry *entry, struct error *err);

/* Notes that @epoch was seen, and discarded where @discarded is not 0; both only rise. Must succeed
 * before the command is carried out. */
int ledger_raise(int dir_fd, const char *vm_id, uint64_t seen, uint64_t discarded,
                 struct error *err);

/* ERROR_CONFLICT where @epoch is older than the newest seen, or, for commands that bring up a copy
 * (@new_copy), not above what was thrown away. */
int ledger_check(int dir_fd, const char *vm_id, uint64_t epoch, int new_copy, struct error *err);

/* Removes entries not touched for @age_s seconds, except those for which @keep returns true. */
void ledger_prune(int dir_fd, int64_t age_s, int (*keep)(void *context, const char *vm_id),
                  void *context);
