#include "poolctl/progress.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/units.h"
#include "poolctl/text.h"

#define BAR_WIDTH       20
#define COLUMNS_DEFAULT 80

void progress_begin(struct progress *progress, const struct invocation *call)
{
    memset(progress, 0, sizeof *progress);
    progress->terminal = call->terminal;
    progress->quiet = invocation_has(call, "quiet");
    progress->started_ms = clock_monotonic_ms();
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn)
        (void)fprintf(progress->terminal.err, "\r\033[K");
    progress->drawn = false;
    (void)fflush(progress->terminal.err);
}

void progress_note(struct progress *progress, const char *format, ...)
{
    char text[1024];
    va_list args;
    if (progress->quiet)
        return;
    progress_clear(progress);
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_print_safe(progress->terminal.err, text, true);
    (void)fputc('\n', progress->terminal.err);
    (void)fflush(progress->terminal.err);
}

/* Draws one line over the last one, cut to the terminal's width. */
static void draw(struct progress *progress, const char *line)
{
    struct winsize size = {0};
    FILE *out = progress->terminal.err;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col
                                                                                  : COLUMNS_DEFAULT;
    char cut[512];
    (void)snprintf(cut, sizeof cut, "%.*s", (int)text_fit(line, columns - 1), line);
    (void)fprintf(out, "\r");
    text_print_safe(out, cut, false);
    (void)fprintf(out, "\033[K");
    (void)fflush(out);
    progress->drawn = true;
}

static void bar(const struct progress *progress, double share, char *out, size_t size)
{
    int full = (int)(share * BAR_WIDTH + 0.5);
    size_t used = 0;
    for (int i = 0; i < BAR_WIDTH && used + 8 < size; i++) {
        const char *cell = i < full ? (progress->terminal.utf8 ? "█" : "#")
                                    : (progress->terminal.utf8 ? "░" : "-");
        used += (size_t)snprintf(out + used, size - used, "%s", cell);
    }
}

static const char *phase_word(Vmpool__MigrationPhase phase)
{
    switch (phase) {
    case VMPOOL__MIGRATION_PHASE__MIGRATION_CONNECTING:
        return "connecting";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_PRECOPY:
        return "copying";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_PAUSED:
        return "paused";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_HANDOVER:
        return "handing over";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_COMPLETED:
        return "completed";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_FAILED:
        return "failed";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_CANCELLED:
        return "cancelled";
    case VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY:
        return "fetching";
    default:
        return "preparing";
    }
}

/* "copying, round 2: 412M left, dirtied 34 Mbit/s, sending 940 Mbit/s, 3.2 s to go" */
static void migration_words(const Vmpool__MigrationProgress *migration, char *out, size_t size)
{
    char left[24];
    char dirty[32];
    char rate[32];
    char eta[32];
    size_t used = (size_t)snprintf(out, size, "%s", phase_word(migration->phase));
    bool copying = migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_PRECOPY ||
                   migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY;
    if (copying && used < size)
        used += (size_t)snprintf(out + used, size - used,
                                 ", round %u: %s left, dirtied %s, sending %s", migration->round,
                                 units_format_bytes(migration->remaining_bytes, left, sizeof left),
                                 units_format_bps(migration->dirty_bps, dirty, sizeof dirty),
                                 units_format_bps(migration->bandwidth_bps, rate, sizeof rate));
    if (copying && migration->eta_ms && used < size)
        used += (size_t)snprintf(out + used, size - used, ", %s to go",
                                 units_format_ms(migration->eta_ms, eta, sizeof eta));
    if (migration->text && migration->text[0] && used < size)
        (void)snprintf(out + used, size - used, " (%s)", migration->text);
}

static double job_share(const Vmpool__Job *job)
{
    const Vmpool__MigrationProgress *migration = job->migration;
    if (migration && migration->ram_bytes)
        return migration->remaining_bytes >= migration->ram_bytes
                   ? 0
                   : 1 - (double)migration->remaining_bytes / (double)migration->ram_bytes;
    if (!job->steps_total || job->steps_done >= job->steps_total)
        return job->steps_total ? 1 : 0;
    return (double)job->steps_done / job->steps_total;
}

static void job_words(const Vmpool__Job *job, char *out, size_t size)
{
    if (job->migration && job->migration->phase != VMPOOL__MIGRATION_PHASE__MIGRATION_NONE)
        migration_words(job->migration, out, size);
    else if (job->text[0])
        (void)snprintf(out, size, "%s", job->text);
    else
        (void)snprintf(out, size, "%s", job->step[0] ? job->step : "waiting");
}

/* What makes a change worth a line in a log: not each figure, but each phase, round and text. */
static void change_key(const Vmpool__Job *job, char *out, size_t size)
{
    const Vmpool__MigrationProgress *migration = job->migration;
    (void)snprintf(out, size, "%s/%s/%d/%u/%s", job->step, migration ? "" : job->text,
                   migration ? (int)migration->phase : 0, migration ? migration->round : 0,
                   migration ? migration->text : "");
}

void progress_job(struct progress *progress, const Vmpool__Job *job)
{
    char words[320];
    char line[512];
    char graph[BAR_WIDTH * 4 + 1] = "";
    char time[32];
    if (progress->quiet)
        return;
    job_words(job, words, sizeof words);
    if (!progress->terminal.err_is_terminal) {
        change_key(job, line, sizeof line);
        if (strcmp(line, progress->last) != 0)
            progress_note(progress, "%s %s: %s", job->kind, job->subject, words);
        (void)snprintf(progress->last, sizeof progress->last, "%s", line);
        return;
    }
    double share = job_share(job);
    bar(progress, share, graph, sizeof graph);
    uint64_t elapsed_ms = (uint64_t)(clock_monotonic_ms() - progress->started_ms);
    (void)snprintf(line, sizeof line, "%s %s %3.0f%% %s | %s | %s", job->subject, graph,
                   share * 100, units_format_ms(elapsed_ms / 100 * 100, time, sizeof time),
                   job->kind, words);
    draw(progress, line);
}

void progress_bytes(struct progress *progress, const char *what, uint64_t done, uint64_t total)
{
    char line[512];
    char graph[BAR_WIDTH * 4 + 1] = "";
    char have[24];
    char whole[24];
    double share = total ? (double)done / (double)total : 1;
    if (progress->quiet)
        return;
    units_format_bytes(total, whole, sizeof whole);
    if (!progress->terminal.err_is_terminal) {
        if (done == total)
            progress_note(progress, "%s: %s", what, whole);
        return;
    }
    bar(progress, share, graph, sizeof graph);
    (void)snprintf(line, sizeof line, "%s %s %3.0f%% %s of %s", what, graph, share * 100,
                   units_format_bytes(done, have, sizeof have), whole);
    draw(progress, line);
}
