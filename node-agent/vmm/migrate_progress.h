/* migrate_progress.h: the engine's progress as a message. */
#pragma once

#include "node-agent/migration/migration.h"
#include "proto/common.pb-c.h"

/* The message and what it points to. */
struct progress_message {
    Vmpool__MigrationProgress progress;
    Vmpool__MigrationPause pause;
    Vmpool__MigrationPostcopy postcopy;
    Vmpool__MigrationRound rounds[MIGRATION_ROUNDS_KEPT];
    Vmpool__MigrationRound *round_list[MIGRATION_ROUNDS_KEPT];
};

/* @message points into @from and itself afterwards. */
void migrate_progress_fill(struct progress_message *message, struct migration_progress *from);

/* NULL gives the defaults. */
struct migration_limits migrate_limits(const Vmpool__MigrationLimits *limits);
