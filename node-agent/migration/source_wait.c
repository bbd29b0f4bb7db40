/* source_wait.c: how the source waits: its poll loop, and what the target says. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/limits.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source_postcopy.h"

#define CONNECT_TIMEOUT_MS 10000u
#define TICK_NS            100000000 /* how often the progress is told */
#define STALL_WARN_NS      5000000000
#define REASON_WAIT_NS     300000000
#define SILENCE_MS         5000u
#define REHEARSED_MAX_US   10000000u

/* ---------------------------------------------------------------- greeting */

/* The shortest answer ever is the link; what is longer is somebody being busy. */
void source_note_rtt(struct migration_source *source, uint64_t us)
{
    if (source->rtt_us == 0 || us < source->rtt_us)
        source->rtt_us = us;
}

static int exchange(struct migration_source *source, struct channel *channel, unsigned index,
                    uint8_t hello_out[STREAM_HELLO_BYTES], struct hello_reply *reply,
                    struct error *err)
{
    const struct migration_source_options *options = &source->options;
    uint8_t in[STREAM_REPLY_BYTES], mac[STREAM_MAC_BYTES];
    struct hello hello = {.version = STREAM_VERSION,
                          .index = (uint16_t)index,
                          .streams = (uint16_t)options->limits.streams,
                          .encrypted = !options->limits.unencrypted,
                          .verify = options->limits.verify,
                          .ram_bytes = source->guest.ram_bytes,
                          .next_epoch = options->next_epoch,
                          .postcopy = source_wants_postcopy(source),
                          .resume = source->resume};
    (void)snprintf(hello.migration_id, sizeof(hello.migration_id), "%s", options->migration_id);
    (void)snprintf(hello.vm_id, sizeof(hello.vm_id), "%s", source->guest.vm_id);
    if (seal_random(hello.nonce, sizeof(hello.nonce), err) < 0)
        return -1;
    hello.realtime_ns = (uint64_t)clock_wall_ns();
    stream_put_hello(hello_out, &hello);
    size_t signed_bytes = STREAM_HELLO_BYTES - STREAM_MAC_BYTES;
    if (seal_mac(options->key, hello_out, signed_bytes, NULL, 0, hello_out + signed_bytes, err) < 0)
        return -1;
    int64_t sent_ns = clock_monotonic_ns();
    struct iovec part = {hello_out, STREAM_HELLO_BYTES};
    if (channel_write(channel, &part, 1, err) < 0 ||
        channel_wait(channel->fd, POLLIN, source->stop_fd,
                     sent_ns + (int64_t)CONNECT_TIMEOUT_MS * 1000000, err) < 0)
        return -1;
    part = (struct iovec){in, sizeof(in)};
    if (channel_read(channel, &part, 1, err) < 0)
        return error_wrap(err, "the target refused the migration (is the key right?)");
    source_note_rtt(source, (uint64_t)(clock_monotonic_ns() - sent_ns) / 1000);
    signed_bytes = STREAM_REPLY_BYTES - STREAM_MAC_BYTES;
    if (stream_get_reply(in, reply, err) < 0 ||
        seal_mac(options->key, hello_out, STREAM_HELLO_BYTES, in, signed_bytes, mac, err) < 0)
        return -1;
    if (seal_compare(mac, in + signed_bytes, sizeof(mac)) != 0)
        return error_set(err, ERROR_FAILED, "the target does not know the migration's key");
    if (!reply->accepted)
        return error_set(err, ERROR_FAILED, "the target refused: %s", reply->text);
    if (index == 0 && source->resume == 0)
        source->can_postcopy = hello.postcopy && reply->postcopy;
    return 0;
}

static int greet(struct migration_source *source, struct channel *channel, unsigned index,
                 struct error *err)
{
    const struct migration_source_options *options = &source->options;
    uint8_t hello[STREAM_HELLO_BYTES];
    struct hello_reply reply;
    if (exchange(source, channel, index, hello, &reply, err) < 0)
        return -1;
    if (options->limits.unencrypted)
        return 0;
    const uint8_t *nonce = hello + STREAM_HELLO_BYTES - STREAM_MAC_BYTES - 16 - STREAM_NONCE_BYTES;
    channel->seal =
        seal_new(options->key, nonce, reply.nonce, index, SEAL_TO_TARGET, SEAL_ENCRYPT, err);
    channel->open =
        seal_new(options->key, nonce, reply.nonce, index, SEAL_TO_SOURCE, SEAL_DECRYPT, err);
    return channel->seal && channel->open ? 0 : -1;
}

int source_greet(struct migration_source *source, struct channel *channel, unsigned index,
                 struct error *err)
{
    const struct migration_source_options *options = &source->options;
    auto_fd int fd =
        channel_connect(options->host, options->port, CONNECT_TIMEOUT_MS, source->stop_fd, err);
    if (fd < 0)
        return -1;
    channel_tune(fd, options->limits.stall_timeout_ms + LIMITS_DEAD_MARGIN_MS);
    if (channel_open(channel, fd, source->stop_fd, err) < 0)
        return -1;
    (void)take_fd(&fd);
    return greet(source, channel, index, err);
}

/* ---------------------------------------------------------------- the target's words */

static int hear(struct migration_source *source, const struct frame *frame, const uint8_t *payload,
                struct error *err)
{
    switch (frame->type) {
    case FRAME_ROUND_DONE:
        if (frame->argument > source->round)
            return error_set(err, ERROR_FAILED, "the target has a round that was not sent");
        source->round_done = (uint32_t)frame->argument;
        return 0;
    case FRAME_REHEARSED:
        source->rehearsed_us =
            frame->argument < REHEARSED_MAX_US ? frame->argument : REHEARSED_MAX_US;
        return 0;
    case FRAME_READY:
        source->ready_attempt = (uint32_t)frame->argument;
        stream_get_times(payload, &source->ready_times);
        return 0;
    case FRAME_RUNNING:
        if (!source->running)
            source->running_ns = clock_monotonic_ns();
        source->running = true;
        stream_get_times(payload, &source->running_times);
        if (!source->gave_up)
            return error_set(err, ERROR_CONFLICT,
                             "the target runs the guest before it was given up");
        return 0;
    case FRAME_ANNOUNCED:
        source->announced = true;
        source->announce_us = frame->argument;
        return 0;
    case FRAME_FAILED:
        source->refused = true;
        return error_set(err, ERROR_FAILED, "the target failed: %.*s", (int)frame->length, payload);
    default:
        return source_hear_postcopy(source, frame, payload, err);
    }
}

static int hear_all(struct migration_source *source, struct error *err)
{
    const uint8_t *payload = NULL;
    struct frame frame;
    int got = channel_fill(&source->control, err);
    while (got > 0) {
        got = channel_next(&source->control, PATH_TO_SOURCE, &frame, &payload, err);
        if (got > 0 && hear(source, &frame, payload, err) < 0)
            return -1;
    }
    return got;
}

int source_queue(struct migration_source *source, enum frame_type type, uint64_t argument,
                 const void *payload, uint32_t length, struct error *err)
{
    struct frame frame = {.type = (uint8_t)type, .length = length, .argument = argument};
    if (channel_queue(&source->control, &frame, payload, err) < 0)
        return -1;
    return channel_flush(&source->control, err);
}

/* ---------------------------------------------------------------- waiting */

static int check_cancel(struct migration_source *source, struct error *err)
{
    (void)pthread_mutex_lock(&source->lock);
    bool cancelled = source->cancelled, leaving = source->leaving;
    (void)pthread_mutex_unlock(&source->lock);
    return cancelled || leaving ? error_set(err, ERROR_CONFLICT, "cancelled") : 0;
}

/*
 * Fails where nothing has moved for the stall timeout. Pages found to be zero are progress too: a
 * slow host looks at much empty RAM before the next byte flows.
 */
static int watch_progress(struct migration_source *source, struct error *err)
{
    uint64_t moved = page_sender_bytes(&source->sender) + atomic_load(&source->control.sent) +
                     atomic_load(&source->control.received) +
                     atomic_load(&source->sender.pages_zero);
    int64_t now_ns = clock_monotonic_ns();
    if (moved != source->last_moved) {
        if (source->stalled)
            report_warn(&source->report, NULL);
        source->stalled = false;
        source->last_moved = moved;
        source->last_progress_ns = now_ns;
        return 0;
    }
    uint64_t still_ms = (uint64_t)(now_ns - source->last_progress_ns) / 1000000;
    /* In post-copy a link that is silent is made anew. */
    if (still_ms >= (source->gave_up ? SILENCE_MS : source->options.limits.stall_timeout_ms))
        return error_set(err, ERROR_TIMEOUT,
                         "no progress for %llu s: is the link to %s up, and the target alive?",
                         (unsigned long long)still_ms / 1000, source->options.host);
    if (still_ms * 1000000 >= STALL_WARN_NS) {
        char text[MIGRATION_TEXT_MAX];
        (void)snprintf(text, sizeof(text), "stalled: nothing has moved for %llu s",
                       (unsigned long long)still_ms / 1000);
        source->stalled = true;
        report_warn(&source->report, text);
    }
    return 0;
}

static void tell_progress(struct migration_source *source)
{
    int64_t now_ns = clock_monotonic_ns();
    if (now_ns - source->last_told_ns < TICK_NS)
        return;
    source->last_told_ns = now_ns;
    source_report_counters(source);
}

/* Which of the wanted events are there now; -1 where a page stream failed. */
static int look(struct migration_source *source, unsigned wanted, int64_t deadline_ns,
                struct error *err)
{
    int sent = page_sender_round_sent(&source->sender, err);
    if (sent < 0 && (!source->gave_up || source->postcopy))
        return -1;
    unsigned seen = 0;
    if (sent > 0 && source->round_done == source->round)
        seen |= SOURCE_ROUND_DONE;
    if (source->ready_attempt == source->attempt && source->attempt > 0)
        seen |= SOURCE_READY;
    if (source->running)
        seen |= SOURCE_RUNNING;
    if (source->announced)
        seen |= SOURCE_ANNOUNCED;
    if (!channel_has_queued(&source->control))
        seen |= SOURCE_QUEUE_SENT;
    if (source->dropped_pages == source->told_pages)
        seen |= SOURCE_DROPPED;
    if (source->lacks_told)
        seen |= SOURCE_LACKS;
    if (source->complete)
        seen |= SOURCE_COMPLETE;
    if (deadline_ns && clock_monotonic_ns() >= deadline_ns)
        seen |= SOURCE_DEADLINE;
    return (int)(seen & wanted);
}

/* A page stream broke: mostly because the target failed, and is just telling why. */
static void hear_reason(struct migration_source *source, struct error *err)
{
    int64_t until_ns = clock_monotonic_ns() + REASON_WAIT_NS;
    struct error reason = ERROR_INIT;
    while (clock_monotonic_ns() < until_ns && check_cancel(source, &reason) == 0 &&
           hear_all(source, &reason) == 0) {
        struct pollfd control = {.fd = source->control.fd, .events = POLLIN};
        if (poll(&control, 1, REASON_WAIT_NS / 1000000) <= 0)
            return;
    }
    if (reason.kind == ERROR_FAILED)
        *err = reason;
}

void source_goodbye(struct migration_source *source, int64_t deadline_ns)
{
    struct error ignored = ERROR_INIT;
    while (channel_flush(&source->control, &ignored) == 0 && channel_has_queued(&source->control)) {
        struct pollfd control = {.fd = source->control.fd, .events = POLLOUT};
        int64_t left_ns = deadline_ns - clock_monotonic_ns();
        if (left_ns <= 0 || poll(&control, 1, (int)(left_ns / 1000000) + 1) <= 0)
            return;
    }
}

static void sleep_until_something(struct migration_source *source, int64_t deadline_ns)
{
    short events = channel_has_queued(&source->control) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd polls[2] = {{.fd = source->control.fd, .events = events},
                              {.fd = source->wake_fd, .events = POLLIN}};
    int64_t left_ns = TICK_NS;
    if (deadline_ns) {
        int64_t until_ns = deadline_ns - clock_monotonic_ns();
        if (until_ns < left_ns)
            left_ns = until_ns > 0 ? until_ns : 0;
    }
    struct timespec timeout = {.tv_nsec = left_ns == TICK_NS ? TICK_NS : left_ns};
    (void)ppoll(polls, 2, &timeout, NULL); /* whatever the reason: look again */
    event_clear(source->wake_fd);
}

int source_wait(struct migration_source *source, unsigned wanted, int64_t deadline_ns,
                struct error *err)
{
    for (;;) {
        if (channel_flush(&source->control, err) < 0 || hear_all(source, err) < 0)
            return -1;
        int seen = look(source, wanted, deadline_ns, err);
        if (seen < 0)
            hear_reason(source, err);
        if (seen != 0)
            return seen;
        if (check_cancel(source, err) < 0)
            return -1;
        /* A wait with a deadline has its own bound: the target may be hashing or loading. */
        if (deadline_ns == 0 && watch_progress(source, err) < 0)
            return -1;
        tell_progress(source);
        if (hot_watch(source, err) < 0)
            return -1;
        sleep_until_something(source, deadline_ns);
    }
}
