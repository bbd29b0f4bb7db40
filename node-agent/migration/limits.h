/* limits.h: struct migration_limits with its defaults filled in. */
#pragma once

#include "node-agent/migration/migration.h"

/* The kernel's patience with a dead peer, beyond ours: our own timeout must be the one that acts.
 */
#define LIMITS_DEAD_MARGIN_MS 30000u

static inline struct migration_limits limits_resolve(struct migration_limits limits)
{
    if (limits.downtime_limit_ms == 0)
        limits.downtime_limit_ms = MIGRATION_DEFAULT_DOWNTIME_MS;
    if (limits.timeout_ms == 0)
        limits.timeout_ms = MIGRATION_DEFAULT_TIMEOUT_MS;
    if (limits.stall_timeout_ms == 0)
        limits.stall_timeout_ms = MIGRATION_DEFAULT_STALL_MS;
    return limits;
}
