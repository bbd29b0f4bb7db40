#include "node-agent/migration/page_sender.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/page_packer.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/supply.h"

#define PIECE_MAX          1024u    /* pages claimed at once: 4 MiB */
#define PIECE_MIN          64u      /* a word of the bitmap */
#define PIECE_NS           50000000 /* all streams' pieces together: what goes out in this time */
#define HOLE_PIECE_PAGES   1048576u /* of a hole: 4 GiB */
#define SEALED_FRAME_PAGES 32u      /* 128 KiB: the ciphertext is still in the cache when sent */

struct page_frame {
    struct packer *packer; /* of pages that are not zeros */
    struct run zeros[STREAM_RUNS_MAX];
    unsigned zero_runs;
    uint8_t head[STREAM_HEADER_BYTES + STREAM_RUNS_MAX * STREAM_RUN_BYTES];
    uint8_t *sealed; /* room for one sealed frame; NULL where plain */
};

/* ---------------------------------------------------------------- sending frames */

static int wait_for_bandwidth(struct page_stream *stream, uint64_t bytes, struct error *err)
{
    int64_t wait_ns = pacer_take(&stream->sender->pacer, bytes, clock_monotonic_ns());
    if (wait_ns <= 0 || stream->urgent)
        return 0;
    struct pollfd stop = {.fd = stream->sender->stop_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
    if (ppoll(&stop, 1, &timeout, NULL) > 0)
        return error_set(err, ERROR_CONFLICT, "stopped");
    stream->channel.waited_ns += (uint64_t)wait_ns;
    return 0;
}

/* Payload: the run table at head + header, then @body, which is copied first: the guest may change
 * its pages while the seal looks at them twice. */
static int send_sealed(struct page_stream *stream, const struct frame *frame,
                       const struct iovec *body, size_t count, struct error *err)
{
    struct page_frame *own = stream->frame;
    struct seal *seal = stream->channel.seal;
    size_t table = stream_table_bytes(frame->runs);
    uint8_t *at = own->sealed;
    memcpy(at, own->head, STREAM_HEADER_BYTES);
    seal_begin(seal, at);
    at += STREAM_HEADER_BYTES;
    seal_update(seal, own->head + STREAM_HEADER_BYTES, table, at);
    at += table;
    uint8_t *end = at;
    for (size_t i = 0; i < count; end += body[i++].iov_len)
        memcpy(end, body[i].iov_base, body[i].iov_len);
    seal_update(seal, at, (size_t)(end - at), at);
    at = end;
    if (seal_end(seal, at, err) < 0)
        return -1;
    at += STREAM_TAG_BYTES;
    struct iovec part = {own->sealed, (size_t)(at - own->sealed)};
    return channel_write(&stream->channel, &part, 1, err);
}

/* What is sent of a frame besides header and run table: @pages, or nothing where that is NULL. */
static size_t list_body(const struct page_stream *stream, const struct packed *pages,
                        struct iovec *body)
{
    if (!pages)
        return 0;
    if (pages->body) {
        body[0] = (struct iovec){(void *)(uintptr_t)pages->body, pages->body_bytes};
        return 1;
    }
    for (unsigned i = 0; i < pages->runs_count; i++)
        body[i] = (struct iovec){stream->sender->guest->ram + pages->runs[i].first * PAGE_BYTES,
                                 pages->runs[i].count * PAGE_BYTES};
    return pages->runs_count;
}

static int send_frame(struct page_stream *stream, enum frame_type type, const struct run *runs,
                      unsigned count, const struct packed *pages, struct error *err)
{
    struct page_frame *own = stream->frame;
    uint64_t length = stream_table_bytes(count) + (pages ? pages->body_bytes : 0);
    struct frame frame = {.type = (uint8_t)type,
                          .codec = pages ? (uint8_t)pages->codec : 0,
                          .runs = (uint16_t)count,
                          .length = (uint32_t)length,
                          .argument = stream->sender->round.number};
    stream_put_frame(own->head, &frame);
    stream_put_runs(own->head + STREAM_HEADER_BYTES, runs, count);
    if (wait_for_bandwidth(stream, STREAM_HEADER_BYTES + length, err) < 0)
        return -1;
    struct iovec parts[STREAM_RUNS_MAX + 1];
    parts[0] = (struct iovec){own->head, STREAM_HEADER_BYTES + stream_table_bytes(count)};
    size_t body = list_body(stream, pages, parts + 1);
    return stream->channel.seal ? send_sealed(stream, &frame, parts + 1, body, err)
                                : channel_write(&stream->channel, parts, body + 1, err);
}

static int send_pages(struct page_stream *stream, const struct packed *pages, struct error *err)
{
    struct page_sender *sender = stream->sender;
    struct channel *channel = &stream->channel;
    if (!pages)
        return 0;
    int64_t begin_ns = clock_monotonic_ns();
    uint64_t waited_ns = channel->waited_ns, sent = atomic_load(&channel->sent);
    if (send_frame(stream, FRAME_PAGES, pages->runs, pages->runs_count, pages, err) < 0)
        return -1;
    atomic_fetch_add(&sender->pages_sent, pages->pages);
    atomic_fetch_add(&sender->pages_by[pages->codec], pages->pages);
    packer_note_sent(stream->frame->packer, (uint64_t)(clock_monotonic_ns() - begin_ns),
                     channel->waited_ns - waited_ns, atomic_load(&channel->sent) - sent);
    return 0;
}

static int flush_data(struct page_stream *stream, struct error *err)
{
    const struct packed *pages;
    while ((pages = packer_flush(stream->frame->packer)))
        if (send_pages(stream, pages, err) < 0)
            return -1;
    return 0;
}

static int flush_zeros(struct page_stream *stream, struct error *err)
{
    struct page_frame *own = stream->frame;
    if (own->zero_runs == 0)
        return 0;
    if (send_frame(stream, FRAME_ZEROS, own->zeros, own->zero_runs, NULL, err) < 0)
        return -1;
    own->zero_runs = 0;
    return 0;
}

/* Appends @page to the runs; false where the table is full. */
static bool append(struct run *runs, unsigned *count, uint64_t page)
{
    if (*count > 0) {
        struct run *last = &runs[*count - 1];
        if (last->first + last->count == page && last->count < STREAM_RUN_PAGES_MAX) {
            last->count++;
            return true;
        }
    }
    if (*count == STREAM_RUNS_MAX)
        return false;
    runs[(*count)++] = (struct run){.first = page, .count = 1};
    return true;
}

static int send_data(struct page_stream *stream, uint64_t page, struct error *err)
{
    return send_pages(stream, packer_add(stream->frame->packer, page), err);
}

static int send_zero(struct page_stream *stream, uint64_t page, struct error *err)
{
    struct page_frame *own = stream->frame;
    packer_note_zeros(own->packer, page);
    if (append(own->zeros, &own->zero_runs, page))
        return 0;
    if (flush_zeros(stream, err) < 0)
        return -1;
    (void)append(own->zeros, &own->zero_runs, page);
    return 0;
}

/* ---------------------------------------------------------------- pieces of a round */

struct piece {
    uint64_t first, end; /* pages; first is a multiple of 64 */
};

/* What is claimed is re-protected at once, and sent only when its turn has come: over a slow link
 * little is claimed, so that what the guest writes meanwhile is not sent in vain. */
static uint64_t piece_pages(const struct page_sender *sender)
{
    uint64_t elapsed_ns = (uint64_t)(clock_monotonic_ns() - sender->round_ns) + 1;
    uint64_t sent = page_sender_bytes(sender) - sender->round_bytes;
    uint64_t pages = sent / PAGE_BYTES * PIECE_NS / elapsed_ns / sender->count & ~63ull;
    pages = pages > PIECE_MIN ? pages : PIECE_MIN;
    return pages < PIECE_MAX ? pages : PIECE_MAX;
}

/* Takes the next piece that has dirty pages; in the first round a big hole is one piece. */
static bool claim(struct page_sender *sender, struct piece *piece)
{
    uint64_t pages = sender->guest->ram_bytes / PAGE_BYTES;
    (void)pthread_mutex_lock(&sender->lock);
    uint64_t first = sender->cursor;
    while (first < pages && sender->round.bitmap[first / 64] == 0)
        first += 64;
    uint64_t size = piece_pages(sender);
    if (sender->round.first && first < pages) {
        uint64_t most = pages - first < HOLE_PIECE_PAGES ? pages - first : HOLE_PIECE_PAGES;
        uint64_t hole = (page_next_data(sender->guest, first, first + most) - first) & ~63ull;
        size = hole > size ? hole : size;
    }
    piece->first = first;
    piece->end = first + size < pages ? first + size : pages;
    if (first < pages)
        sender->cursor = piece->end;
    else
        sender->cursor = pages;
    (void)pthread_mutex_unlock(&sender->lock);
    return first < pages;
}

/* The first round: every page is in the bitmap, holes are skipped, and zeros need not be told, for
 * the target's RAM is zeros. Holes are looked for after the piece was re-protected, so that a page
 * written there from now on is in the log. */
static int send_first(struct page_stream *stream, const struct piece *piece, struct error *err)
{
    const struct migration_guest *guest = stream->sender->guest;
    uint64_t data = 0;
    uint64_t page = page_next_data(guest, piece->first, piece->end);
    while (page < piece->end) {
        if (!bitmap_test(stream->sender->round.bitmap, page)) { /* hot.h */
            page++;
            data++;
            continue;
        }
        if (page_is_zero(guest->ram + page * PAGE_BYTES)) {
            page = page_next_data(guest, page + 1, piece->end);
            continue;
        }
        if (send_data(stream, page++, err) < 0)
            return -1;
        data++;
    }
    atomic_fetch_add(&stream->sender->pages_zero, piece->end - piece->first - data);
    return 0;
}

static int send_dirty(struct page_stream *stream, const struct piece *piece, struct error *err)
{
    struct page_sender *sender = stream->sender;
    uint64_t zeros = 0;
    for (uint64_t first = piece->first; first < piece->end; first += 64) {
        uint64_t word = sender->round.bitmap[first / 64];
        for (; word; word &= word - 1) {
            uint64_t page = first + (uint64_t)__builtin_ctzll(word);
            bool zero = page_is_zero(sender->guest->ram + page * PAGE_BYTES);
            if ((zero ? send_zero(stream, page, err) : send_data(stream, page, err)) < 0)
                return -1;
            zeros += zero;
        }
    }
    atomic_fetch_add(&sender->pages_zero, zeros);
    return 0;
}

static int send_round(struct page_stream *stream, struct error *err)
{
    struct page_sender *sender = stream->sender;
    const struct page_round *round = &sender->round;
    struct piece piece;
    packer_begin_round(stream->frame->packer, sender->round_cache, round->clear);
    while (claim(sender, &piece)) {
        if (round->clear &&
            sender->guest->ops->dirty_clear(sender->guest->self, round->bitmap, piece.first,
                                            piece.end - piece.first, err) < 0)
            return error_wrap(err, "cannot clear the dirty log");
        if ((round->first ? send_first(stream, &piece, err) : send_dirty(stream, &piece, err)) < 0)
            return -1;
    }
    if (flush_data(stream, err) < 0 || flush_zeros(stream, err) < 0)
        return -1;
    return send_frame(stream, FRAME_ROUND_END, NULL, 0, NULL, err);
}

/* ---------------------------------------------------------------- post-copy */

int page_stream_send(struct page_stream *stream, uint64_t page, struct error *err)
{
    if (!page_is_zero(stream->sender->guest->ram + page * PAGE_BYTES))
        return send_data(stream, page, err);
    atomic_fetch_add(&stream->sender->pages_zero, 1);
    return send_zero(stream, page, err);
}

int page_stream_flush(struct page_stream *stream, struct error *err)
{
    return flush_data(stream, err) < 0 ? -1 : flush_zeros(stream, err);
}

/* Without deltas: the target has nothing to apply them to. */
static int serve(struct page_stream *stream, struct error *err)
{
    struct page_sender *sender = stream->sender;
    packer_begin_round(stream->frame->packer, NULL, false);
    return supply_serve(sender->round.supply, stream, stream == sender->streams, err);
}

/* ---------------------------------------------------------------- threads */

static bool wait_for_round(struct page_sender *sender, uint32_t last)
{
    (void)pthread_mutex_lock(&sender->lock);
    while (!sender->quit && sender->round.number == last)
        (void)pthread_cond_wait(&sender->changed, &sender->lock);
    bool quit = sender->quit;
    (void)pthread_mutex_unlock(&sender->lock);
    return !quit;
}

static void *run_stream(void *argument)
{
    struct page_stream *stream = argument;
    struct page_sender *sender = stream->sender;
    uint32_t last = 0;
    while (wait_for_round(sender, last)) {
        struct error err = ERROR_INIT;
        last = sender->round.number; /* stands still until all threads have finished it */
        int sent = sender->round.supply ? serve(stream, &err) : send_round(stream, &err);
        (void)pthread_mutex_lock(&sender->lock);
        sender->busy--;
        if (sent < 0 && sender->failure.kind == ERROR_NONE)
            sender->failure = err;
        bool tell = sender->busy == 0 || sent < 0;
        (void)pthread_mutex_unlock(&sender->lock);
        if (tell)
            event_raise(sender->wake_fd);
        if (sent < 0)
            break;
    }
    return NULL;
}

void page_sender_init(struct page_sender *sender, const struct migration_guest *guest,
                      uint64_t bandwidth_bps, int stop_fd, int wake_fd)
{
    *sender = (struct page_sender){.guest = guest, .stop_fd = stop_fd, .wake_fd = wake_fd};
    pacer_init(&sender->pacer, bandwidth_bps);
    codec_meter_init(&sender->meter);
    (void)pthread_mutex_init(&sender->lock, NULL);
    (void)pthread_cond_init(&sender->changed, NULL);
    for (unsigned i = 0; i < MIGRATION_STREAMS_MAX; i++)
        sender->streams[i] = (struct page_stream){.sender = sender, .channel = {.fd = -1}};
}

static int make_frame(struct page_stream *stream, struct error *err)
{
    size_t sealed = STREAM_HEADER_BYTES + STREAM_RUNS_MAX * STREAM_RUN_BYTES +
                    SEALED_FRAME_PAGES * PAGE_BYTES + STREAM_TAG_BYTES;
    bool seal = stream->channel.seal != NULL;
    struct packer_options options = {.ram = stream->sender->guest->ram,
                                     .compress = stream->sender->compress,
                                     .meter = &stream->sender->meter,
                                     .plain_pages =
                                         seal ? SEALED_FRAME_PAGES : STREAM_FRAME_PAGES_MAX};
    stream->frame = calloc(1, sizeof(*stream->frame));
    if (stream->frame && seal)
        stream->frame->sealed = malloc(sealed);
    if (!stream->frame || (seal && !stream->frame->sealed))
        return error_set(err, ERROR_FAILED, "out of memory for a page stream");
    stream->frame->packer = packer_new(&options, err);
    return stream->frame->packer ? 0 : -1;
}

int page_sender_start(struct page_sender *sender, struct error *err)
{
    codec_meter_order(&sender->meter, sender->compress, sender->count);
    for (unsigned i = 0; i < sender->count; i++) {
        struct page_stream *stream = &sender->streams[i];
        if (make_frame(stream, err) < 0)
            return -1;
        int number = event_thread(&stream->thread, run_stream, stream);
        if (number != 0)
            return error_errno(err, number, "cannot start a page stream");
        stream->started = true;
    }
    return 0;
}

static void free_frame(struct page_frame *frame)
{
    if (!frame)
        return;
    packer_free(frame->packer);
    free(frame->sealed);
    free(frame);
}

void page_sender_stop(struct page_sender *sender)
{
    (void)pthread_mutex_lock(&sender->lock);
    sender->quit = true;
    (void)pthread_cond_broadcast(&sender->changed);
    (void)pthread_mutex_unlock(&sender->lock);
    for (unsigned i = 0; i < MIGRATION_STREAMS_MAX; i++) {
        struct page_stream *stream = &sender->streams[i];
        if (stream->started)
            (void)pthread_join(stream->thread, NULL);
        free_frame(stream->frame);
        channel_close(&stream->channel);
        stream->frame = NULL;
        stream->started = false;
    }
}

void page_sender_hang_up(struct page_sender *sender)
{
    for (unsigned i = 0; i < sender->count; i++)
        if (sender->streams[i].started)
            (void)shutdown(sender->streams[i].channel.fd, SHUT_RDWR);
    page_sender_stop(sender);
    sender->quit = false;
    sender->round = (struct page_round){0};
    sender->failure = (struct error)ERROR_INIT;
    sender->busy = 0;
}

void page_sender_destroy(struct page_sender *sender)
{
    pacer_destroy(&sender->pacer);
    codec_meter_destroy(&sender->meter);
    page_cache_free(sender->cache);
    (void)pthread_cond_destroy(&sender->changed);
    (void)pthread_mutex_destroy(&sender->lock);
}

/* Copies are kept of what is sent in the second round and later: what the guest writes again. */
static void begin_cache(struct page_sender *sender, const struct page_round *round)
{
    uint64_t ram_bytes = sender->guest->ram_bytes;
    struct error ignored = ERROR_INIT; /* without memory for it all goes on, if slower */
    sender->round_cache = NULL;
    if (round->first || sender->no_deltas || sender->compress == MIGRATION_COMPRESS_OFF)
        return;
    if (!sender->cache && round->clear)
        sender->cache = page_cache_new(ram_bytes, page_cache_bytes(ram_bytes), &ignored);
    if (sender->cache && page_cache_begin_round(sender->cache, round->bitmap, !round->clear))
        sender->round_cache = sender->cache;
}

void page_sender_forget(struct page_sender *sender)
{
    sender->no_deltas = true;
    sender->round_cache = NULL;
    page_cache_free(sender->cache);
    sender->cache = NULL;
}

void page_sender_begin_round(struct page_sender *sender, const struct page_round *round)
{
    begin_cache(sender, round); /* the threads stand still */
    (void)pthread_mutex_lock(&sender->lock);
    sender->round = *round;
    sender->cursor = 0;
    sender->round_ns = clock_monotonic_ns();
    sender->round_bytes = page_sender_bytes(sender);
    sender->busy = sender->count;
    (void)pthread_cond_broadcast(&sender->changed);
    (void)pthread_mutex_unlock(&sender->lock);
}

int page_sender_round_sent(struct page_sender *sender, struct error *err)
{
    (void)pthread_mutex_lock(&sender->lock);
    int result = sender->failure.kind != ERROR_NONE ? -1 : sender->busy == 0;
    if (result < 0)
        *err = sender->failure;
    (void)pthread_mutex_unlock(&sender->lock);
    return result;
}

uint64_t page_sender_bytes(const struct page_sender *sender)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < sender->count; i++)
        bytes += atomic_load(&sender->streams[i].channel.sent);
    return bytes;
}
