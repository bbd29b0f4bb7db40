#include "poolctl/progress.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/units.h"
#include "poolctl/text.h"

#define BAR_MIN         5
#define BAR_MAX         20
#define COLUMNS_DEFAULT 80

void progress_begin(struct progress *progress, const struct invocation *call)
{
    memset(progress, 0, sizeof *progress);
    progress->terminal = call->terminal;
    progress->quiet = invocation_has(call, "quiet");
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

static int terminal_columns(void)
{
    struct winsize size = {0};
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : COLUMNS_DEFAULT;
}

/* Draws "web [bar] 42% words" over the last line; the bar takes the room the words leave. */
static void draw(struct progress *progress, const char *subject, double share, const char *words)
{
    FILE *out = progress->terminal.err;
    int room = terminal_columns() - 1;
    int width = room - text_width(subject) - text_width(words) - (int)strlen(" 100%  ");
    width = width < BAR_MIN ? BAR_MIN : width > BAR_MAX ? BAR_MAX : width;
    int full = (int)(share * width + 0.5);
    char line[1024];
    size_t used = (size_t)snprintf(line, 256, "%s ", subject);
    used = used < 256 ? used : 255;
    for (int i = 0; i < width; i++) {
        const char *cell = i < full ? (progress->terminal.utf8 ? "█" : "#")
                                    : (progress->terminal.utf8 ? "░" : "-");
        used += (size_t)snprintf(line + used, sizeof line - used, "%s", cell);
    }
    (void)snprintf(line + used, sizeof line - used, " %3.0f%% %s", share * 100, words);
    line[text_fit(line, room)] = '\0';
    (void)fprintf(out, "\r");
    text_print_safe(out, line, false);
    (void)fprintf(out, "\033[K");
    (void)fflush(out);
    progress->drawn = true;
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

/* "copying round 2, 412M left, ETA 3.2 s, 940 Mbit/s, dirtied 34 Mbit/s" */
static void migration_words(const Vmpool__MigrationProgress *migration, char *out, size_t size)
{
    char left[24];
    char dirty[32];
    char rate[32];
    char eta[32] = "not known";
    size_t used = (size_t)snprintf(out, size, "%s", phase_word(migration->phase));
    bool copying =
        migration->round > 0 && (migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_PRECOPY ||
                                 migration->phase == VMPOOL__MIGRATION_PHASE__MIGRATION_POSTCOPY);
    if (migration->eta_ms)
        units_format_ms(migration->eta_ms, eta, sizeof eta);
    if (copying && used < size)
        used += (size_t)snprintf(out + used, size - used,
                                 " round %u, %s left, ETA %s, %s, dirtied %s", migration->round,
                                 units_format_bytes(migration->remaining_bytes, left, sizeof left),
                                 eta, units_format_bps(migration->bandwidth_bps, rate, sizeof rate),
                                 units_format_bps(migration->dirty_bps, dirty, sizeof dirty));
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
static void change_key(const Vmpool__Job *job, const char *words, char *out, size_t size)
{
    const Vmpool__MigrationProgress *migration = job->migration;
    if (migration && migration->phase != VMPOOL__MIGRATION_PHASE__MIGRATION_NONE)
        (void)snprintf(out, size, "%d/%u/%s", (int)migration->phase, migration->round,
                       migration->text);
    else
        (void)snprintf(out, size, "%s", words);
}

void progress_job(struct progress *progress, const Vmpool__Job *job)
{
    char words[320];
    char line[512];
    if (progress->quiet)
        return;
    job_words(job, words, sizeof words);
    if (progress->terminal.err_is_terminal) {
        draw(progress, job->subject, job_share(job), words);
        return;
    }
    if (!job->text[0] && !job->migration)
        return; /* the names of steps say little to people */
    change_key(job, words, line, sizeof line);
    if (strcmp(line, progress->last) != 0)
        progress_note(progress, "%s %s: %s", job->kind, job->subject, words);
    (void)snprintf(progress->last, sizeof progress->last, "%s", line);
}

void progress_bytes(struct progress *progress, const char *what, uint64_t done, uint64_t total)
{
    char words[80];
    char have[24];
    char whole[24];
    if (progress->quiet)
        return;
    units_format_bytes(total, whole, sizeof whole);
    if (progress->terminal.err_is_terminal) {
        (void)snprintf(words, sizeof words, "%s of %s", units_format_bytes(done, have, sizeof have),
                       whole);
        draw(progress, what, total ? (double)done / (double)total : 1, words);
    } else if (done == total) {
        progress_note(progress, "%s: %s", what, whole);
    }
}

void progress_count(struct progress *progress, const char *what, uint64_t done, uint64_t total,
                    const char *things)
{
    char words[80];
    if (progress->quiet || !progress->terminal.err_is_terminal)
        return;
    (void)snprintf(words, sizeof words, "%" PRIu64 " of %" PRIu64 " %s", done, total, things);
    draw(progress, what, total ? (double)done / (double)total : 1, words);
}
