/* migrate_guest.h: the machine as the migration engine sees it (node-agent/migration/guest.h). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "node-agent/migration/guest.h"
#include "node-agent/vmm/gate.h"
#include "node-agent/vmm/vmm_internal.h"

/* What the engine's operations need; owned by migrate.c. */
struct migrate_guest {
    struct vmm *vmm;
    struct gate *gate;
    uint64_t next_epoch; /* of the migration going out */
    bool has_peer_clock;
    int64_t peer_ahead_ns; /* the source's clock less ours; of the engine's thread */
    _Atomic bool ended;    /* the guest has ended, or the process does: fail what can fail */
};

/* Fills @guest for the engine; @self and the machine must outlive it. */
void migrate_guest_init(struct migration_guest *guest, struct migrate_guest *self);
