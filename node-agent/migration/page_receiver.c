#include "node-agent/migration/page_receiver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/migration/event.h"
#include "node-agent/migration/pages.h"

/* ---------------------------------------------------------------- one frame */

/* Notes that pages are written to. */
static void touch(struct page_receiver *receiver, struct run run)
{
    for (uint64_t page = run.first; page < run.first + run.count;) {
        uint64_t bits = ~0ull << (page % 64);
        uint64_t next = (page / 64 + 1) * 64;
        if (next > run.first + run.count) {
            bits &= ~0ull >> (next - run.first - run.count);
            next = run.first + run.count;
        }
        atomic_fetch_or_explicit(&receiver->touched[page / 64], bits, memory_order_relaxed);
        page = next;
    }
}

/* Zeros are written only where something else may be: other pages are holes and stay so. */
static void put_zeros(struct page_receiver *receiver, const struct run *runs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (uint64_t page = runs[i].first; page < runs[i].first + runs[i].count; page++)
            if (atomic_load_explicit(&receiver->touched[page / 64], memory_order_relaxed) >>
                    (page % 64) &
                1)
                memset(receiver->guest->ram + page * PAGE_BYTES, 0, PAGE_BYTES);
}

/* The ciphertext is in the in buffer: it is opened straight into RAM. A tag that is wrong in the
 * end fails the migration, and RAM with it. */
static void put_sealed(struct page_inlet *inlet, const uint8_t *data, const struct run *runs,
                       unsigned count)
{
    uint8_t *ram = inlet->receiver->guest->ram;
    for (unsigned i = 0; i < count; i++) {
        size_t size = runs[i].count * PAGE_BYTES;
        seal_update(inlet->channel.open, data, size, ram + runs[i].first * PAGE_BYTES);
        data += size;
    }
}

static int put_plain(struct page_inlet *inlet, const struct run *runs, unsigned count,
                     struct error *err)
{
    struct iovec parts[STREAM_RUNS_MAX];
    for (unsigned i = 0; i < count; i++)
        parts[i] = (struct iovec){inlet->receiver->guest->ram + runs[i].first * PAGE_BYTES,
                                  runs[i].count * PAGE_BYTES};
    return channel_read(&inlet->channel, parts, count, err);
}

/* Whether the pages of @frame are put by demand.h: the guest may run, or RAM is watched still after
 * a pause in post-copy was taken back. Looked at once a frame. */
static bool is_on_demand(const struct page_receiver *receiver, const struct frame *frame)
{
    return frame->argument == STREAM_POSTCOPY_ROUND || atomic_load(&receiver->demand->watching);
}

static int put_on_demand(struct page_inlet *inlet, const struct frame *frame, const uint8_t *table,
                         struct error *err)
{
    struct page_receiver *receiver = inlet->receiver;
    struct run runs[STREAM_RUNS_MAX];
    uint64_t pages = 0;
    const uint8_t *data = frame->type == FRAME_PAGES ? inlet->bounce : NULL;
    bool replace = frame->argument != STREAM_POSTCOPY_ROUND;
    if (stream_get_runs(table, frame, receiver->guest->ram_bytes / PAGE_BYTES, runs, &pages, err) <
        0)
        return -1;
    for (unsigned i = 0; i < frame->runs; i++) {
        if (demand_put(receiver->demand, runs[i], data, replace, err) < 0)
            return -1;
        data = data ? data + runs[i].count * PAGE_BYTES : NULL;
    }
    return 0;
}

/* An encoded frame is taken whole into the in buffer (plain) or opened to one of its own. */
static int put_encoded(struct page_inlet *inlet, const struct frame *frame,
                       const uint8_t *sealed_data, const struct run *runs, uint64_t pages,
                       uint8_t *to, struct error *err)
{
    struct channel *channel = &inlet->channel;
    size_t size = frame->length - stream_table_bytes(frame->runs);
    if (!inlet->codec)
        inlet->codec = codec_memory_new(err);
    if (!inlet->codec)
        return -1;
    const uint8_t *data = sealed_data;
    if (sealed_data) {
        if (!inlet->encoded)
            inlet->encoded = malloc(STREAM_PAYLOAD_MAX);
        if (!inlet->encoded)
            return error_set(err, ERROR_FAILED, "out of memory for an encoded frame");
        seal_update(channel->open, sealed_data, size, inlet->encoded);
        data = inlet->encoded;
    } else {
        if (channel_need(channel, size, 0, err) <= 0)
            return -1;
        data = channel->in + channel->in_start;
        channel->in_start += size;
    }
    return codec_decode(inlet->codec, frame, data, size, runs, pages, to, err);
}

/* Takes the pages into the inlet's own room, one after the other; they count only once the whole
 * frame did. What only tells changes has nothing to be changed there. */
static int take_bounced(struct page_inlet *inlet, const struct frame *frame, const struct run *runs,
                        uint64_t pages, const uint8_t *sealed_data, struct error *err)
{
    struct run own[STREAM_RUNS_MAX];
    uint64_t first = 0;
    if (!inlet->bounce)
        inlet->bounce = malloc(STREAM_FRAME_PAGES_MAX * PAGE_BYTES);
    if (!inlet->bounce || pages > STREAM_FRAME_PAGES_MAX)
        return error_set(err, ERROR_FAILED, "out of memory for a page stream");
    if (frame->codec == CODEC_DELTA)
        return error_set(err, ERROR_FAILED, "changes of pages that were dropped");
    for (unsigned i = 0; i < frame->runs; first += runs[i++].count)
        own[i] = (struct run){.first = first, .count = runs[i].count};
    if (frame->codec != CODEC_NONE)
        return put_encoded(inlet, frame, sealed_data, own, pages, inlet->bounce, err);
    if (sealed_data) {
        seal_update(inlet->channel.open, sealed_data, pages * PAGE_BYTES, inlet->bounce);
        return 0;
    }
    struct iovec part = {inlet->bounce, pages * PAGE_BYTES};
    return channel_read(&inlet->channel, &part, 1, err);
}

/* Pages of @runs; the table has been read and, where sealed, opened. */
static int take_pages(struct page_inlet *inlet, const struct frame *frame, const uint8_t *table,
                      const uint8_t *sealed_data, struct error *err)
{
    struct page_receiver *receiver = inlet->receiver;
    struct run runs[STREAM_RUNS_MAX];
    uint64_t pages = 0;
    if (stream_get_runs(table, frame, receiver->guest->ram_bytes / PAGE_BYTES, runs, &pages, err) <
        0)
        return -1;
    if (frame->type == FRAME_ZEROS) {
        if (!inlet->on_demand)
            put_zeros(receiver, runs, frame->runs);
        atomic_fetch_add(&receiver->pages_zero, pages);
        return 0;
    }
    for (unsigned i = 0; i < frame->runs; i++)
        touch(receiver, runs[i]);
    atomic_fetch_add(&receiver->pages_received, pages);
    if (inlet->on_demand)
        return take_bounced(inlet, frame, runs, pages, sealed_data, err);
    if (frame->codec != CODEC_NONE)
        return put_encoded(inlet, frame, sealed_data, runs, pages, receiver->guest->ram, err);
    if (!sealed_data)
        return put_plain(inlet, runs, frame->runs, err);
    put_sealed(inlet, sealed_data, runs, frame->runs);
    return 0;
}

static int end_round(struct page_inlet *inlet, const struct frame *frame, struct error *err)
{
    uint32_t last = atomic_load(&inlet->round);
    if (frame->argument != (uint64_t)last + 1)
        return error_set(err, ERROR_FAILED, "round %llu ends after round %u",
                         (unsigned long long)frame->argument, last);
    atomic_store(&inlet->round, last + 1);
    event_raise(inlet->receiver->wake_fd);
    return 0;
}

static int take_sealed(struct page_inlet *inlet, const struct frame *frame, struct error *err)
{
    struct channel *channel = &inlet->channel;
    size_t whole = STREAM_HEADER_BYTES + frame->length + STREAM_TAG_BYTES;
    /* With the next header, but no more: what is read is opened while it is in the cache. */
    if (channel_need(channel, whole, STREAM_HEADER_BYTES, err) <= 0)
        return -1;
    const uint8_t *at = channel->in + channel->in_start;
    const uint8_t *body = at + STREAM_HEADER_BYTES;
    uint8_t table[STREAM_RUNS_MAX * STREAM_RUN_BYTES];
    size_t table_bytes = stream_table_bytes(frame->runs);
    seal_begin(channel->open, at);
    seal_update(channel->open, body, table_bytes, table);
    if (frame->runs && take_pages(inlet, frame, table, body + table_bytes, err) < 0)
        return -1;
    if (seal_open_end(channel->open, body + frame->length, err) < 0)
        return -1;
    channel->in_start += whole;
    if (frame->runs && inlet->on_demand)
        return put_on_demand(inlet, frame, table, err);
    return frame->type == FRAME_ROUND_END ? end_round(inlet, frame, err) : 0;
}

static int take_plain(struct page_inlet *inlet, const struct frame *frame, struct error *err)
{
    struct channel *channel = &inlet->channel;
    size_t head = STREAM_HEADER_BYTES + stream_table_bytes(frame->runs);
    if (channel_need(channel, head, 0, err) <= 0)
        return -1;
    uint8_t table[STREAM_RUNS_MAX * STREAM_RUN_BYTES]; /* what follows may move the buffer */
    memcpy(table, channel->in + channel->in_start + STREAM_HEADER_BYTES,
           head - STREAM_HEADER_BYTES);
    channel->in_start += head;
    if (frame->type == FRAME_ROUND_END)
        return end_round(inlet, frame, err);
    if (take_pages(inlet, frame, table, NULL, err) < 0)
        return -1;
    return inlet->on_demand ? put_on_demand(inlet, frame, table, err) : 0;
}

/* 1: a frame was taken, 0: the source closed the stream, -1: failed. */
static int take_frame(struct page_inlet *inlet, struct error *err)
{
    struct channel *channel = &inlet->channel;
    bool sealed = channel->open != NULL;
    int got = channel_need(channel, STREAM_HEADER_BYTES, 0, err);
    if (got <= 0)
        return got;
    struct frame frame;
    if (stream_get_frame(channel->in + channel->in_start, PATH_PAGES, &frame, err) < 0)
        return -1;
    inlet->on_demand = is_on_demand(inlet->receiver, &frame);
    return (sealed ? take_sealed(inlet, &frame, err) : take_plain(inlet, &frame, err)) < 0 ? -1 : 1;
}

/* ---------------------------------------------------------------- threads */

static void *run_inlet(void *argument)
{
    struct page_inlet *inlet = argument;
    struct page_receiver *receiver = inlet->receiver;
    struct error err = ERROR_INIT;
    int taken;
    while ((taken = take_frame(inlet, &err)) > 0)
        continue;
    if (taken == 0)
        error_set(&err, ERROR_UNREACHABLE, "the source closed a page stream");
    (void)pthread_mutex_lock(&receiver->lock);
    if (receiver->failure.kind == ERROR_NONE)
        receiver->failure = err.kind == ERROR_NONE
                                ? (struct error){ERROR_FAILED, "a page stream ended inside a frame"}
                                : err;
    (void)pthread_mutex_unlock(&receiver->lock);
    demand_cut(receiver->demand);
    event_raise(receiver->wake_fd);
    return NULL;
}

int page_receiver_init(struct page_receiver *receiver, const struct migration_guest *guest,
                       int stop_fd, int wake_fd, struct error *err)
{
    *receiver = (struct page_receiver){.guest = guest, .stop_fd = stop_fd, .wake_fd = wake_fd};
    (void)pthread_mutex_init(&receiver->lock, NULL);
    for (unsigned i = 0; i < MIGRATION_STREAMS_MAX; i++)
        receiver->inlets[i] = (struct page_inlet){.receiver = receiver, .channel = {.fd = -1}};
    receiver->touched =
        calloc(bitmap_words(guest->ram_bytes / PAGE_BYTES), sizeof(*receiver->touched));
    return receiver->touched ? 0 : error_set(err, ERROR_FAILED, "out of memory for a page bitmap");
}

int page_receiver_start(struct page_receiver *receiver, struct error *err)
{
    for (unsigned i = 0; i < receiver->count; i++) {
        struct page_inlet *inlet = &receiver->inlets[i];
        int number = event_thread(&inlet->thread, run_inlet, inlet);
        if (number != 0)
            return error_errno(err, number, "cannot start a page stream");
        inlet->started = true;
    }
    return 0;
}

/* Waits for the threads, which have a reason to end. */
static void end_inlets(struct page_receiver *receiver)
{
    for (unsigned i = 0; i < MIGRATION_STREAMS_MAX; i++) {
        struct page_inlet *inlet = &receiver->inlets[i];
        if (inlet->started)
            (void)pthread_join(inlet->thread, NULL);
        channel_close(&inlet->channel);
        free(inlet->bounce);
        codec_memory_free(inlet->codec);
        free(inlet->encoded);
        inlet->bounce = inlet->encoded = NULL;
        inlet->codec = NULL;
        inlet->started = inlet->connected = false;
        atomic_store(&inlet->round, 0);
    }
}

void page_receiver_hang_up(struct page_receiver *receiver)
{
    for (unsigned i = 0; i < receiver->count; i++)
        if (receiver->inlets[i].connected)
            (void)shutdown(receiver->inlets[i].channel.fd, SHUT_RDWR);
    end_inlets(receiver);
    receiver->failure = (struct error)ERROR_INIT;
}

void page_receiver_stop(struct page_receiver *receiver)
{
    end_inlets(receiver);
    free(receiver->touched);
    receiver->touched = NULL;
    (void)pthread_mutex_destroy(&receiver->lock);
}

int64_t page_receiver_round(struct page_receiver *receiver, struct error *err)
{
    (void)pthread_mutex_lock(&receiver->lock);
    bool failed = receiver->failure.kind != ERROR_NONE;
    if (failed)
        *err = receiver->failure;
    (void)pthread_mutex_unlock(&receiver->lock);
    if (failed)
        return -1;
    uint32_t round = UINT32_MAX;
    for (unsigned i = 0; i < receiver->count; i++) {
        uint32_t own = atomic_load(&receiver->inlets[i].round);
        if (own < round)
            round = own;
    }
    return receiver->count ? round : 0;
}

uint64_t page_receiver_bytes(const struct page_receiver *receiver)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < receiver->count; i++)
        bytes += atomic_load(&receiver->inlets[i].channel.received);
    return bytes;
}
