#include "node-agent/vmm/migrate_progress.h"

static void fill_pause(Vmpool__MigrationPause *pause, const struct migration_pause *from)
{
    vmpool__migration_pause__init(pause);
    pause->total_us = from->total_us;
    pause->stop_us = from->stop_us;
    pause->last_pages_us = from->last_pages_us;
    pause->device_state_us = from->device_state_us;
    pause->verify_us = from->verify_us;
    pause->handover_us = from->handover_us;
    pause->activate_us = from->activate_us;
    pause->announce_us = from->announce_us;
}

static void fill_round(Vmpool__MigrationRound *round, const struct migration_round *from)
{
    vmpool__migration_round__init(round);
    round->number = from->number;
    round->pages_sent = from->pages_sent;
    round->pages_zero = from->pages_zero;
    round->wire_bytes = from->wire_bytes;
    round->duration_us = from->duration_us;
    round->dirtied_pages = from->dirtied_pages;
    round->page_bytes = from->page_bytes;
    round->pages_delta = from->pages_delta;
    round->codec = (Vmpool__MigrationCodec)from->codec;
}

static void fill_postcopy(Vmpool__MigrationPostcopy *postcopy,
                          const struct migration_postcopy *from)
{
    vmpool__migration_postcopy__init(postcopy);
    postcopy->faults = from->faults;
    postcopy->fault_mean_us = from->fault_mean_us;
    postcopy->fault_max_us = from->fault_max_us;
    postcopy->links_lost = from->links_lost;
    postcopy->held = from->held;
}

void migrate_progress_fill(struct progress_message *message, struct migration_progress *from)
{
    Vmpool__MigrationProgress *progress = &message->progress;
    vmpool__migration_progress__init(progress);
    progress->migration_id = from->migration_id;
    progress->phase = (Vmpool__MigrationPhase)from->phase;
    progress->round = from->round;
    progress->ram_bytes = from->ram_bytes;
    progress->wire_bytes = from->wire_bytes;
    progress->pages_sent = from->pages_sent;
    progress->pages_zero = from->pages_zero;
    progress->page_bytes = from->page_bytes;
    progress->remaining_bytes = from->remaining_bytes;
    progress->dirty_bps = from->dirty_bps;
    progress->bandwidth_bps = from->bandwidth_bps;
    progress->eta_ms = from->eta_ms;
    progress->predicted_pause_us = from->predicted_pause_us;
    progress->elapsed_us = from->elapsed_us;
    progress->verified = from->verified;
    progress->encrypted = from->encrypted;
    progress->streams = from->streams;
    progress->pauses_failed = from->pauses_failed;
    progress->throttle_percent = from->throttle_percent;
    progress->text = from->text;
    if (from->pause.total_us > 0) {
        fill_pause(&message->pause, &from->pause);
        progress->pause = &message->pause;
    }
    if (from->postcopy.used) {
        fill_postcopy(&message->postcopy, &from->postcopy);
        progress->postcopy = &message->postcopy;
    }
    for (uint32_t i = 0; i < from->rounds_count && i < MIGRATION_ROUNDS_KEPT; i++) {
        fill_round(&message->rounds[i], &from->rounds[i]);
        message->round_list[i] = &message->rounds[i];
        progress->n_rounds = i + 1;
    }
    progress->rounds = message->round_list;
}

struct migration_limits migrate_limits(const Vmpool__MigrationLimits *limits)
{
    if (!limits)
        return (struct migration_limits){0};
    return (struct migration_limits){.downtime_limit_ms = limits->downtime_limit_ms,
                                     .bandwidth_bps = limits->bandwidth_bps,
                                     .streams = limits->streams,
                                     .verify = limits->verify,
                                     .unencrypted = limits->unencrypted,
                                     .timeout_ms = limits->timeout_ms,
                                     .no_throttle = limits->no_throttle,
                                     .stall_timeout_ms = limits->stall_timeout_ms,
                                     .compress = (enum migration_compress)limits->compress,
                                     .mode = (enum migration_mode)limits->mode,
                                     .no_postcopy = limits->no_postcopy,
                                     .recovery_timeout_ms = limits->recovery_timeout_ms};
}
