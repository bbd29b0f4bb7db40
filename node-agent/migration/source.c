/* source.c: a migration's source as its caller sees it: options, start, cancel, end. */
#include "node-agent/migration/source.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/limits.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_postcopy.h"

static int check_options(const struct migration_guest *guest,
                         const struct migration_source_options *options, struct error *err)
{
    if (guest->ram_bytes == 0 || guest->ram_bytes % PAGE_BYTES)
        return error_set(err, ERROR_USAGE, "RAM of %llu bytes is not a number of pages",
                         (unsigned long long)guest->ram_bytes);
    if (options->next_epoch <= options->epoch)
        return error_set(err, ERROR_USAGE, "the target's epoch must be higher than the source's");
    if (options->limits.streams > MIGRATION_STREAMS_MAX)
        return error_set(err, ERROR_USAGE, "at most %d streams", MIGRATION_STREAMS_MAX);
    if (options->limits.compress > MIGRATION_COMPRESS_ZSTD)
        return error_set(err, ERROR_USAGE, "a compression that is not known");
    return source_check_postcopy(options, err);
}

static void destroy(struct migration_source *source)
{
    page_sender_stop(&source->sender);
    page_sender_destroy(&source->sender);
    channel_close(&source->control);
    report_destroy(&source->report);
    (void)pthread_mutex_destroy(&source->lock);
    close_fd(&source->wake_fd);
    close_fd(&source->stop_fd);
    free(source->bitmap);
    free(source->rest);
    free(source->state);
    free(source->told);
    supply_destroy(&source->supply);
    hot_free(&source->hot);
    explicit_bzero(source->options.key, sizeof(source->options.key));
    free(source);
}

static void *run_source(void *argument)
{
    source_run(argument);
    return NULL;
}

/* A stream is a thread at each end, and a claim to the processor beside the guest's vCPUs: with too
 * few of them a busy guest leaves little to the migration, with too many it has little left itself.
 */
static uint32_t choose_streams(const struct migration_limits *limits)
{
    bool slow = limits->bandwidth_bps > 0 && limits->bandwidth_bps <= MIGRATION_SLOW_BPS;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return slow || processors <= 1 ? MIGRATION_SLOW_STREAMS : MIGRATION_DEFAULT_STREAMS;
}

struct migration_source *migration_source_start(const struct migration_guest *guest,
                                                const struct migration_source_options *options,
                                                struct error *err)
{
    if (check_options(guest, options, err) < 0)
        return NULL;
    struct migration_source *source = calloc(1, sizeof(*source));
    if (!source) {
        error_set(err, ERROR_FAILED, "out of memory for a migration");
        return NULL;
    }
    source->guest = *guest;
    source->options = *options;
    source->options.limits = limits_resolve(options->limits);
    if (source->options.limits.streams == 0)
        source->options.limits.streams = choose_streams(&options->limits);
    if (source->options.limits.streams < 2 && source_wants_postcopy(source))
        source->options.limits.streams = 2; /* an urgent one, and one for all the rest */
    source->control.fd = source->wake_fd = source->stop_fd = source->report.event_fd = -1;
    (void)pthread_mutex_init(&source->lock, NULL);
    page_sender_init(&source->sender, &source->guest, options->limits.bandwidth_bps, -1, -1);
    uint64_t words = bitmap_words(guest->ram_bytes / PAGE_BYTES);
    source->bitmap = calloc(words, sizeof(*source->bitmap));
    if (!source->bitmap)
        error_set(err, ERROR_FAILED, "out of memory for a dirty bitmap");
    if (!source->bitmap ||
        report_init(&source->report, options->migration_id, guest->ram_bytes, err) < 0 ||
        (source->wake_fd = event_new(err)) < 0 || (source->stop_fd = event_new(err)) < 0 ||
        (!options->limits.unencrypted && seal_ready(err) < 0))
        goto failed;
    source->sender.wake_fd = source->wake_fd;
    source->sender.stop_fd = source->stop_fd;
    source->sender.compress = source->options.limits.compress;
    source->report.progress.phase = MIGRATION_PHASE_CONNECTING;
    source->report.progress.encrypted = !options->limits.unencrypted;
    source->report.progress.streams = source->options.limits.streams;
    int number = event_thread(&source->thread, run_source, source);
    if (number != 0) {
        error_errno(err, number, "cannot start a migration");
        goto failed;
    }
    return source;
failed:
    destroy(source);
    return NULL;
}

int migration_source_event_fd(const struct migration_source *source)
{
    return source->report.event_fd;
}

void migration_source_progress(struct migration_source *source, struct migration_progress *out)
{
    report_read(&source->report, out);
}

int migration_source_cancel(struct migration_source *source, struct error *err)
{
    (void)pthread_mutex_lock(&source->lock);
    bool late = source->gave_up || source->ended;
    if (!late)
        source->cancelled = true;
    (void)pthread_mutex_unlock(&source->lock);
    if (late)
        return error_set(err, ERROR_CONFLICT, "the migration is past the point of return");
    event_raise(source->wake_fd);
    /* A connection that is being made waits on the stop descriptor only. */
    event_raise(source->stop_fd);
    return 0;
}

void migration_source_free(struct migration_source *source)
{
    if (!source)
        return;
    struct error ignored = ERROR_INIT;
    (void)migration_source_cancel(source, &ignored);
    (void)pthread_mutex_lock(&source->lock);
    source->leaving = true;
    (void)pthread_mutex_unlock(&source->lock);
    event_raise(source->wake_fd);
    event_raise(source->stop_fd);
    (void)pthread_join(source->thread, NULL);
    destroy(source);
}
