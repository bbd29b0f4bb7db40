/* Migrations: how many, how long, and how well they were predicted. */
#include "controller/metrics.h"

#include "controller/migrate_queue.h"
#include "controller/tallies.h"

static void write_now(const struct controller *controller, struct metric_text *text)
{
    const struct migrate_queue_counts counts = migrate_queue_count(controller);
    metric_family(text, "vmpool_migrations_streaming", METRIC_GAUGE,
                  "Migrations that use a link now.");
    metric_sample(text, NULL, 0, counts.streaming);
    metric_family(text, "vmpool_migrations_waiting", METRIC_GAUGE,
                  "Migrations that wait for their turn.");
    metric_sample(text, NULL, 0, counts.waiting);
}

static void write_ended(const struct tallies *tallies, struct metric_text *text)
{
    static const char *const modes[TALLY_MODES] = {
        [TALLY_PRECOPY] = "precopy", [TALLY_POSTCOPY] = "postcopy"};
    metric_family(text, "vmpool_migrations_total", METRIC_COUNTER,
                  "Migrations ended, by how they went and by outcome.");
    for (unsigned mode = 0; mode < TALLY_MODES; mode++)
        for (unsigned outcome = 0; outcome < TALLY_OUTCOMES; outcome++) {
            const struct metric_label labels[] = {{"mode", modes[mode]},
                                                  {"outcome", metrics_outcome_name(outcome)}};
            metric_sample(text, labels, 2, (double)tallies->migrations[mode][outcome]);
        }
}

static void write_errors(struct metric_text *text, const char *name, const char *help,
                         const struct histogram sides[TALLY_SIDES])
{
    static const char *const names[TALLY_SIDES] = {
        [TALLY_LESS] = "too_short", [TALLY_MORE] = "long_enough"};
    metric_family(text, name, METRIC_HISTOGRAM, help);
    for (unsigned side = 0; side < TALLY_SIDES; side++) {
        const struct metric_label label = {"predicted", names[side]};
        metric_histogram(text, &label, 1, &sides[side]);
    }
}

void metrics_write_migrations(const struct controller *controller, struct metric_text *text)
{
    const struct tallies *tallies = controller->tallies;
    write_now(controller, text);
    write_ended(tallies, text);
    metric_family(text, "vmpool_migration_duration_seconds", METRIC_HISTOGRAM,
                  "What migrations that succeeded took, waiting for their turn left out.");
    metric_histogram(text, NULL, 0, &tallies->duration_s);
    metric_family(text, "vmpool_migration_pause_seconds", METRIC_HISTOGRAM,
                  "How long they paused the guest, hashing included.");
    metric_histogram(text, NULL, 0, &tallies->pause_s);
    write_errors(text, "vmpool_migration_duration_error_ratio",
                 "How far off the predicted duration was, as a share of the real one.",
                 tallies->duration_error);
    write_errors(text, "vmpool_migration_pause_error_ratio",
                 "How far off the predicted pause was, as a share of the real one.",
                 tallies->pause_error);
}
