#include "node-agent/migration/report.h"

#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "node-agent/migration/event.h"

int report_init(struct report *report, const char *migration_id, uint64_t ram_bytes,
                struct error *err)
{
    *report = (struct report){.start_ns = clock_monotonic_ns()};
    report->event_fd = event_new(err);
    if (report->event_fd < 0)
        return -1;
    (void)pthread_mutex_init(&report->lock, NULL);
    report->progress.ram_bytes = ram_bytes;
    (void)snprintf(report->progress.migration_id, sizeof(report->progress.migration_id), "%s",
                   migration_id);
    return 0;
}

void report_destroy(struct report *report)
{
    close_fd(&report->event_fd);
    (void)pthread_mutex_destroy(&report->lock);
}

struct migration_progress *report_edit(struct report *report)
{
    (void)pthread_mutex_lock(&report->lock);
    if (report->progress.outcome == MIGRATION_OUTCOME_PENDING)
        report->progress.elapsed_us = (uint64_t)(clock_monotonic_ns() - report->start_ns) / 1000;
    return &report->progress;
}

void report_done(struct report *report)
{
    (void)pthread_mutex_unlock(&report->lock);
    event_raise(report->event_fd);
}

void report_read(struct report *report, struct migration_progress *out)
{
    *out = *report_edit(report);
    (void)pthread_mutex_unlock(&report->lock);
}

void report_phase(struct report *report, enum migration_phase phase)
{
    report_edit(report)->phase = phase;
    report_done(report);
}

void report_add_round(struct report *report, const struct migration_round *round)
{
    struct migration_progress *progress = report_edit(report);
    if (progress->rounds_count == MIGRATION_ROUNDS_KEPT) {
        memmove(progress->rounds, progress->rounds + 1,
                (MIGRATION_ROUNDS_KEPT - 1) * sizeof(progress->rounds[0]));
        progress->rounds_count--;
    }
    progress->rounds[progress->rounds_count++] = *round;
    report_done(report);
}

void report_warn(struct report *report, const char *text)
{
    struct migration_progress *progress = report_edit(report);
    (void)snprintf(progress->text, sizeof(progress->text), "%s", text ? text : "");
    report_done(report);
}

const char *migration_phase_name(enum migration_phase phase)
{
    static const char *const names[] = {"none",   "connecting", "pre-copy",
                                        "paused", "handover",   "completed",
                                        "failed", "cancelled",  "post-copy"};
    return (size_t)phase < sizeof(names) / sizeof(names[0]) ? names[phase] : "unknown";
}
