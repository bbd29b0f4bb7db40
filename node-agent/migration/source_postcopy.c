#include "node-agent/migration/source_postcopy.h"

#include <endian.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/faults.h"
#include "node-agent/migration/pages.h"

#define DROPS_MAX      4u   /* before the pause; each finds fewer pages that are new */
#define FRESH_FEW      256u /* so few are left to the pause */
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 2000u
#define LACKS_WAIT_NS  10000000000

static uint64_t pages_of(const struct migration_source *source)
{
    return source->guest.ram_bytes / PAGE_BYTES;
}

/* ---------------------------------------------------------------- whether */

int source_check_postcopy(const struct migration_source_options *options, struct error *err)
{
    const struct migration_limits *limits = &options->limits;
    if (limits->mode > MIGRATION_MODE_POSTCOPY)
        return error_set(err, ERROR_USAGE, "mode %u of migration is not known",
                         (unsigned)limits->mode);
    if (limits->mode != MIGRATION_MODE_POSTCOPY)
        return 0;
    if (limits->verify)
        return error_set(err, ERROR_USAGE,
                         "verify compares all RAM within the pause, and in post-copy RAM is not "
                         "complete then: choose one of them");
    if (limits->no_postcopy)
        return error_set(err, ERROR_USAGE,
                         "the VM was made with --no-post-copy: move it by pre-copy");
    return 0;
}

int source_check_target(const struct migration_source *source, struct error *err)
{
    if (source->options.limits.mode != MIGRATION_MODE_POSTCOPY || source->can_postcopy)
        return 0;
    return error_set(err, ERROR_FAILED,
                     "the target cannot do post-copy: its kernel or its rights give it no "
                     "userfaultfd; move the VM by pre-copy");
}

bool source_wants_postcopy(const struct migration_source *source)
{
    const struct migration_limits *limits = &source->options.limits;
    return limits->mode != MIGRATION_MODE_PRECOPY && !limits->verify && !limits->no_postcopy;
}

/* ---------------------------------------------------------------- before and in the pause */

struct stale {
    struct migration_source *source;
    uint32_t runs;
    uint8_t bytes[STREAM_CHUNK_MAX];
};

static int send_stale(struct stale *stale, struct error *err)
{
    uint32_t length = stale->runs * STREAM_RUN_BYTES;
    stale->runs = 0;
    return length ? source_queue(stale->source, FRAME_STALE, 0, stale->bytes, length, err) : 0;
}

static int add_stale(struct stale *stale, struct run run, struct error *err)
{
    stream_put_run(stale->bytes + (size_t)stale->runs * STREAM_RUN_BYTES, run);
    return ++stale->runs == STREAM_LIST_MAX ? send_stale(stale, err) : 0;
}

/* Queues the pages of source->bitmap that are not in source->told, as runs. */
static int list_fresh(struct stale *stale, struct error *err)
{
    struct migration_source *source = stale->source;
    struct run run = {0};
    for (uint64_t word = 0; word < bitmap_words(pages_of(source)); word++) {
        uint64_t fresh = source->bitmap[word] & ~source->told[word];
        source->told[word] |= fresh;
        source->told_pages += (uint64_t)__builtin_popcountll(fresh);
        for (; fresh; fresh &= fresh - 1) {
            uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(fresh);
            if (run.count > 0 && run.first + run.count == page &&
                run.count < STREAM_RUN_PAGES_MAX) {
                run.count++;
                continue;
            }
            if (run.count > 0 && add_stale(stale, run, err) < 0)
                return -1;
            run = (struct run){.first = page, .count = 1};
        }
    }
    if (run.count > 0 && add_stale(stale, run, err) < 0)
        return -1;
    return send_stale(stale, err);
}

static int tell_fresh(struct migration_source *source, struct error *err)
{
    struct stale *stale = malloc(sizeof(*stale));
    if (!stale)
        return error_set(err, ERROR_FAILED, "out of memory for a list of pages");
    stale->source = source;
    stale->runs = 0;
    int result = list_fresh(stale, err);
    free(stale);
    return result;
}

static uint64_t count_fresh(const struct migration_source *source)
{
    uint64_t fresh = 0;
    for (uint64_t word = 0; word < bitmap_words(pages_of(source)); word++)
        fresh += (uint64_t)__builtin_popcountll(source->bitmap[word] & ~source->told[word]);
    return fresh;
}

int source_drop_stale(struct migration_source *source, struct error *err)
{
    size_t size = bitmap_words(pages_of(source)) * sizeof(*source->told);
    fault_point("source.drop");
    if (!source->supply.pending && supply_init(&source->supply, pages_of(source), err) < 0)
        return -1;
    if (!source->told)
        source->told = malloc(size);
    if (!source->told)
        return error_set(err, ERROR_FAILED, "out of memory for a page bitmap");
    memset(source->told, 0, size);
    source->told_pages = 0;
    page_sender_forget(&source->sender);
    /* The bits stay set in the log, so that what is in the set already costs the guest nothing. */
    for (unsigned i = 0; i < DROPS_MAX && (i == 0 || count_fresh(source) > FRESH_FEW); i++) {
        source->dropped_pages = UINT64_MAX;
        if (tell_fresh(source, err) < 0)
            return -1;
        if (source->told_pages > 0 && source_wait(source, SOURCE_DROPPED, 0, err) < 0)
            return -1;
        if (source->guest.ops->dirty_sync(source->guest.self, source->bitmap, err) < 0)
            return error_wrap(err, "cannot read the dirty log");
    }
    return 0;
}

static void begin_supply(struct migration_source *source, const uint64_t *lacking)
{
    struct page_round round = {.number = STREAM_POSTCOPY_ROUND, .supply = &source->supply};
    supply_fill(&source->supply, lacking);
    page_sender_begin_round(&source->sender, &round);
}

int source_switch(struct migration_source *source, struct error *err)
{
    if (tell_fresh(source, err) < 0)
        return -1;
    source->postcopy = true;
    report_edit(&source->report)->postcopy.used = true;
    report_done(&source->report);
    begin_supply(source, source->bitmap);
    return source_queue(source, FRAME_POSTCOPY, source->told_pages, NULL, 0, err);
}

int source_unswitch(struct migration_source *source, struct error *err)
{
    source->postcopy = false;
    supply_end(&source->supply);
    /* The streams are idle again; the last round was done before. */
    return source_wait(source, SOURCE_ROUND_DONE, 0, err) < 0 ? -1 : 0;
}

/* ---------------------------------------------------------------- after it */

bool source_may_reconnect(struct migration_source *source)
{
    (void)pthread_mutex_lock(&source->lock);
    bool leaving = source->leaving;
    (void)pthread_mutex_unlock(&source->lock);
    return source->postcopy && source->gave_up && !source->refused && !leaving;
}

int source_serve(struct migration_source *source, struct error *err)
{
    fault_point("source.serve");
    report_phase(&source->report, MIGRATION_PHASE_POSTCOPY);
    source->backoff_ms = 0;
    source->last_progress_ns = clock_monotonic_ns();
    supply_push(&source->supply);
    /* With its last word the target closes the link. */
    bool served = source->complete || source_wait(source, SOURCE_COMPLETE, 0, err) >= 0;
    return served || source->complete ? 0 : -1;
}

static void hang_up(struct migration_source *source)
{
    source->bytes_before += page_sender_bytes(&source->sender) + atomic_load(&source->control.sent);
    supply_end(&source->supply);
    page_sender_hang_up(&source->sender);
    channel_close(&source->control);
    for (unsigned i = 0; i < source->sender.count; i++)
        atomic_store(&source->sender.streams[i].channel.sent, 0);
    atomic_store(&source->control.sent, 0);
}

/* Grows, so that a host that is away is not knocked at all the time. */
static void back_off(struct migration_source *source)
{
    struct pollfd stop = {.fd = source->stop_fd, .events = POLLIN};
    (void)poll(&stop, 1, (int)source->backoff_ms);
    source->backoff_ms = source->backoff_ms == 0 ? BACKOFF_MIN_MS : source->backoff_ms * 2;
    if (source->backoff_ms > BACKOFF_MAX_MS)
        source->backoff_ms = BACKOFF_MAX_MS;
}

static int connect_all(struct migration_source *source, struct error *err)
{
    source->resume++;
    if (source_greet(source, &source->control, 0, err) < 0)
        return -1;
    for (unsigned i = 0; i < source->sender.count; i++)
        if (source_greet(source, &source->sender.streams[i].channel, i + 1, err) < 0)
            return -1;
    memset(source->told, 0, bitmap_words(pages_of(source)) * sizeof(*source->told));
    source->lacks_told = false;
    int seen = source_wait(source, SOURCE_LACKS | SOURCE_DEADLINE,
                           clock_monotonic_ns() + LACKS_WAIT_NS, err);
    if (seen >= 0 && !(seen & SOURCE_LACKS))
        return error_set(err, ERROR_TIMEOUT, "the target does not say what it lacks");
    return seen < 0 || page_sender_start(&source->sender, err) < 0 ? -1 : 0;
}

/* GO may have been lost with the link. A repeat is harmless: the target hears it only where it has
 * been ready all the time, and what the controller decided since is not ready. */
static int repeat_go(struct migration_source *source, struct error *err)
{
    uint32_t numbers[2] = {htole32(source->attempt), 0};
    return source->running ? 0
                           : source_queue(source, FRAME_GO, source->options.next_epoch, numbers,
                                          sizeof(numbers), err);
}

int source_reconnect(struct migration_source *source, struct error *err)
{
    char text[MIGRATION_TEXT_MAX];
    struct error why = *err;
    error_clear(err);
    hang_up(source);
    (void)snprintf(text, sizeof(text), "the link is lost in post-copy: connecting again (%.150s)",
                   why.kind == ERROR_NONE ? "no answer" : why.text);
    if (source->backoff_ms == 0) {
        log_warn("migration %s: %s", source->options.migration_id, text);
        report_edit(&source->report)->postcopy.links_lost++;
        report_done(&source->report);
    }
    report_warn(&source->report, text);
    back_off(source);
    if (connect_all(source, err) < 0)
        return -1;
    begin_supply(source, source->told);
    report_warn(&source->report, NULL);
    log_info("migration %s: connected again, %llu pages are lacking", source->options.migration_id,
             (unsigned long long)bitmap_count(source->told, pages_of(source)));
    return repeat_go(source, err);
}

/* ---------------------------------------------------------------- the target's words */

static int hear_lacks(struct migration_source *source, const struct frame *frame,
                      const uint8_t *payload, struct error *err)
{
    struct run run;
    uint32_t at = 0;
    int got = 0;
    if (!source->told || source->lacks_told)
        return error_set(err, ERROR_FAILED, "the target says what it lacks out of turn");
    while ((got = stream_get_list(payload, frame->length, &at, pages_of(source), &run, err)) > 0)
        for (uint64_t page = run.first; page < run.first + run.count; page++)
            source->told[page / 64] |= 1ull << (page % 64);
    source->lacks_told = got == 0 && frame->argument == 0;
    return got;
}

/* Who says that he has all runs the guest, should the word of that have been lost; how long its
 * steps took is lost with it. */
static int hear_complete(struct migration_source *source, struct error *err)
{
    if (!source->postcopy || !source->gave_up)
        return error_set(err, ERROR_FAILED, "the target has all before it runs");
    if (!source->running)
        source->running_ns = clock_monotonic_ns();
    source->running = source->complete = true;
    return 0;
}

int source_hear_postcopy(struct migration_source *source, const struct frame *frame,
                         const uint8_t *payload, struct error *err)
{
    switch (frame->type) {
    case FRAME_DROPPED:
        source->dropped_pages = frame->argument;
        return 0;
    case FRAME_LACKS:
        return hear_lacks(source, frame, payload, err);
    case FRAME_COMPLETE:
        return hear_complete(source, err);
    default:
        return error_set(err, ERROR_FAILED, "unexpected frame of type %u", frame->type);
    }
}
