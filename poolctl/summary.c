#include "poolctl/summary.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"
#include "poolctl/text.h"

#define LABEL_WIDTH 10

/* "  time      4.2 s in all" */
static void line(FILE *out, const char *label, const char *text)
{
    (void)fprintf(out, "  %-*s", LABEL_WIDTH, label);
    text_print_safe(out, text, false);
    (void)fputc('\n', out);
}

static const char *milliseconds(uint64_t us, char *out, size_t size)
{
    (void)snprintf(out, size, us < 100000 ? "%.1f ms" : "%.0f ms", (double)us / 1000);
    return out;
}

/* The items of the pause that took any time; they add up to the whole. */
static void pause_text(const Vmpool__MigrationPause *pause, char *out, size_t size)
{
    const struct {
        const char *name;
        uint64_t us;
    } items[] = {
        {"stop", pause->stop_us},
        {"last pages", pause->last_pages_us},
        {"device state", pause->device_state_us},
        {"verify", pause->verify_us},
        {"handover", pause->handover_us},
        {"activate", pause->activate_us},
    };
    char time[32];
    const char *before = ": ";
    size_t used =
        (size_t)snprintf(out, size, "%s", milliseconds(pause->total_us, time, sizeof time));
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        if (items[i].us == 0 || used >= size)
            continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s %s", before, items[i].name,
                                 milliseconds(items[i].us, time, sizeof time));
        before = ", ";
    }
    if (pause->announce_us && used < size)
        (void)snprintf(out + used, size - used, "; network told %s after the guest ran again",
                       milliseconds(pause->announce_us, time, sizeof time));
}

/* "8% more" */
static const char *error_text(int32_t permille, char *out, size_t size)
{
    (void)snprintf(out, size, "%.0f%% %s", (permille < 0 ? -permille : permille) / 10.0,
                   permille < 0 ? "less" : "more");
    return out;
}

/* How good the prediction was that the pause began with. */
static void engine_line(FILE *out, const Vmpool__MigrationReview *review)
{
    char text[128], error[32];
    if (review->engine_pause_us == 0)
        return;
    (void)snprintf(text, sizeof text, "a pause of %.1f ms, %s than it was, by the engine",
                   (double)review->engine_pause_us / 1000,
                   error_text(review->engine_pause_error_permille, error, sizeof error));
    line(out, "predicted", text);
}

/* And the one that --dry-run gives. */
static void forecast_lines(FILE *out, const Vmpool__MigrationReview *review)
{
    const Vmpool__MigrationForecast *predicted = review->predicted;
    char text[256], error[32], said[32], was[32];
    if (!predicted || review->duration_us == 0)
        return;
    (void)snprintf(text, sizeof text, "%s, %s than the %s it took with preparing and cleaning up",
                   units_format_ms(predicted->duration_us / 1000, said, sizeof said),
                   error_text(review->duration_error_permille, error, sizeof error),
                   units_format_ms(review->duration_us / 1000, was, sizeof was));
    line(out, "predicted", text);
    (void)snprintf(text, sizeof text, "%s to send, %s than it was",
                   units_format_bytes(predicted->bytes, said, sizeof said),
                   error_text(review->bytes_error_permille, error, sizeof error));
    line(out, "", text);
    if (review->pause_us == 0)
        return;
    (void)snprintf(text, sizeof text, "a pause of %s, %s than it was%s",
                   milliseconds(predicted->pause_us, said, sizeof said),
                   error_text(review->pause_error_permille, error, sizeof error),
                   predicted->dirty_rate_known
                       ? ""
                       : " (how fast the guest writes was not known and assumed)");
    line(out, "", text);
}

void summary_migration(const struct invocation *call, const Vmpool__MigrationProgress *migration,
                       const Vmpool__MigrationReview *review)
{
    FILE *out = call->terminal.out;
    char text[512];
    char bytes[24];
    char ram[24];
    char pages[24];
    char time[32];
    (void)snprintf(
        text, sizeof text,
        "%u; %s sent of %s RAM: %" PRIu64 " pages of %s, and %" PRIu64 " zero pages as such",
        migration->round, units_format_bytes(migration->wire_bytes, bytes, sizeof bytes),
        units_format_bytes(migration->ram_bytes, ram, sizeof ram), migration->pages_sent,
        units_format_bytes(migration->page_bytes, pages, sizeof pages), migration->pages_zero);
    line(out, "rounds", text);
    (void)snprintf(text, sizeof text, "%s in all, over %u stream%s%s",
                   units_format_ms(migration->elapsed_us / 1000, time, sizeof time),
                   migration->streams, migration->streams == 1 ? "" : "s",
                   migration->encrypted ? ", encrypted" : ", NOT encrypted");
    line(out, "time", text);
    if (migration->pause) {
        pause_text(migration->pause, text, sizeof text);
        line(out, "pause", text);
    }
    if (review) {
        forecast_lines(out, review);
        engine_line(out, review);
    }
    if (migration->postcopy) {
        char mean[32];
        (void)snprintf(text, sizeof text,
                       "%" PRIu64 " pages were waited for, %s on average, at most %s; the link was "
                       "lost %u times",
                       migration->postcopy->faults,
                       milliseconds(migration->postcopy->fault_mean_us, mean, sizeof mean),
                       milliseconds(migration->postcopy->fault_max_us, time, sizeof time),
                       migration->postcopy->links_lost);
        line(out, "post-copy", text);
    }
    if (migration->throttle_percent) {
        (void)snprintf(text, sizeof text,
                       "the vCPUs that wrote most, by up to %u%%, for the link to keep up",
                       migration->throttle_percent);
        line(out, "slowed", text);
    }
    line(out, "verified",
         migration->verified              ? "yes: RAM and device state are equal on both sides"
         : invocation_has(call, "verify") ? "no: the target did not report it"
                                          : "no (ask for it with --verify)");
    if (migration->text[0])
        line(out, "note", migration->text);
}

static void migrated(const struct invocation *call, const Vmpool__Job *job, const char *from)
{
    FILE *out = call->terminal.out;
    const char *source = job->from_node[0] ? job->from_node : from;
    const char *target = job->to_node[0]  ? job->to_node
                         : job->placement ? job->placement->node
                                          : "";
    text_print_safe(out, job->subject, false);
    (void)fprintf(out, " moved");
    if (source && source[0])
        (void)fprintf(out, " from %s", source);
    if (target[0])
        (void)fprintf(out, " to %s", target);
    (void)fprintf(out, ".\n");
    if (job->placement && job->placement->summary[0])
        line(out, "why", job->placement->summary);
    if (job->migration)
        summary_migration(call, job->migration, job->review);
}

static void created(const struct invocation *call, const Vmpool__Job *job)
{
    FILE *out = call->terminal.out;
    const Vmpool__Placement *placement = job->placement;
    (void)fprintf(out, "%s ", job->subject);
    if (placement && placement->node[0])
        (void)fprintf(out, "is on %s.\n", placement->node);
    else
        (void)fprintf(out, "is created.\n");
    if (placement && placement->summary[0])
        line(out, "why", placement->summary);
    (void)fflush(out);
    if (!invocation_has(call, "quiet"))
        (void)fprintf(call->terminal.err, "Its console: poolctl vm console %s\n", job->subject);
}

void summary_print(const struct invocation *call, const Vmpool__Job *job, const char *from)
{
    FILE *out = call->terminal.out;
    char time[32];
    if (invocation_has(call, "quiet"))
        return;
    if (strcmp(job->kind, "vm-migrate") == 0) {
        migrated(call, job, from);
    } else if (strcmp(job->kind, "vm-create") == 0) {
        created(call, job);
    } else {
        uint64_t took_ms = job->ended_wall_ms > job->created_wall_ms
                               ? job->ended_wall_ms - job->created_wall_ms
                               : 0;
        (void)fprintf(out, "%s %s: done in %s", job->kind, job->subject,
                      units_format_ms(took_ms, time, sizeof time));
        if (job->text[0]) {
            (void)fprintf(out, ": ");
            text_print_safe(out, job->text, false);
        }
        (void)fputc('\n', out);
    }
}
