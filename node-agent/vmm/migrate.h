/*
 * migrate.h: live migration as pool-vmm does it: the machine given to the engine
 * (node-agent/migration), and the engine's course told to the control socket.
 */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "node-agent/vmm/vmm_internal.h"

struct migrate;

/* @listen_fd: where a migration may arrive, taken over; -1: this VMM boots its guest itself. */
struct migrate *migrate_new(struct vmm *vmm, int listen_fd, struct error *err);

/* Nothing may run the guest any more but who asks the machine directly. For a VMM that ends. */
void migrate_close(struct migrate *migrate);
/* Waits for the engine (a second or two at most) and frees. NULL is fine. */
void migrate_free(struct migrate *migrate);

int migrate_out(struct migrate *migrate, const Vmpool__VmmMigrateOut *request, struct error *err);
int migrate_in(struct migrate *migrate, const Vmpool__VmmMigrateIn *request, struct error *err);
int migrate_cancel(struct migrate *migrate, const Vmpool__VmmMigrateCancel *request,
                   struct error *err);

/* Before a source that gave up runs again at @epoch: ends what still serves a target in post-copy.
 * Refused where the guest is known to have run there: what is here is older than its disks. */
int migrate_take_back(struct migrate *migrate, uint64_t epoch, struct error *err);

/* The controller lets a target in VM_READY run at @epoch. Answers @ticket later. */
int migrate_run(struct migrate *migrate, uint64_t epoch, const struct control_ticket *ticket,
                struct error *err);

/* Samples the dirty rate; answers @ticket later. */
int migrate_sample(struct migrate *migrate, uint64_t duration_ms,
                   const struct control_ticket *ticket, struct error *err);

/* Whether an engine thread may look at the machine now; where it does, it is asked to end, and
 * vmm_migration_over() is called once none does. */
bool migrate_busy(struct migrate *migrate);

/* Fills @progress of the current or the last migration; false where there was none. Its texts and
 * lists live until the next call. */
bool migrate_progress(struct migrate *migrate, Vmpool__MigrationProgress **progress);
