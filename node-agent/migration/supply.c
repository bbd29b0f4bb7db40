#include "node-agent/migration/supply.h"

#include <poll.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/page_sender.h"
#include "node-agent/migration/pages.h"

#define AROUND_PAGES 8u /* of the rest of a block at once; then wants are looked for again */

int supply_init(struct supply *supply, uint64_t pages, struct error *err)
{
    *supply = (struct supply){.pages = pages, .push_fd = -1, .over_fd = -1};
    supply->pending = calloc(bitmap_words(pages), sizeof(*supply->pending));
    if (!supply->pending)
        return error_set(err, ERROR_FAILED, "out of memory for a page bitmap");
    supply->push_fd = event_new(err);
    supply->over_fd = supply->push_fd >= 0 ? event_new(err) : -1;
    return supply->over_fd >= 0 ? 0 : -1;
}

void supply_destroy(struct supply *supply)
{
    if (!supply->pending)
        return;
    close_fd(&supply->push_fd);
    close_fd(&supply->over_fd);
    free(supply->pending);
    supply->pending = NULL;
}

void supply_fill(struct supply *supply, const uint64_t *bitmap)
{
    event_clear(supply->push_fd);
    event_clear(supply->over_fd);
    for (uint64_t i = 0; i < bitmap_words(supply->pages); i++)
        atomic_store(&supply->pending[i], bitmap[i]);
    atomic_store(&supply->cursor, 0);
}

void supply_push(struct supply *supply)
{
    event_raise(supply->push_fd);
}

void supply_end(struct supply *supply)
{
    event_raise(supply->over_fd);
}

uint64_t supply_left(const struct supply *supply)
{
    uint64_t left = 0;
    for (uint64_t i = 0; i < bitmap_words(supply->pages); i++)
        left += (uint64_t)__builtin_popcountll(atomic_load(&supply->pending[i]));
    return left;
}

/* ---------------------------------------------------------------- the urgent stream */

/* The rest of blocks that somebody wanted a page of; the newest is served first. */
struct around {
    uint64_t blocks[SUPPLY_AROUND];
    unsigned count;
};

static void note_around(struct around *around, uint64_t block)
{
    if (around->count > 0 && around->blocks[around->count - 1] == block)
        return;
    if (around->count == SUPPLY_AROUND) { /* the oldest is left to the others */
        for (unsigned i = 1; i < SUPPLY_AROUND; i++)
            around->blocks[i - 1] = around->blocks[i];
        around->count--;
    }
    around->blocks[around->count++] = block;
}

static int answer(struct supply *supply, struct page_stream *stream, struct around *around,
                  uint64_t page, struct error *err)
{
    if (page >= supply->pages)
        return error_set(err, ERROR_FAILED, "the target wants a page beyond the guest's RAM");
    uint64_t bit = 1ull << (page % 64);
    bool pending = atomic_fetch_and(&supply->pending[page / 64], ~bit) & bit;
    atomic_fetch_add(&supply->wanted, 1);
    note_around(around, page / 64);
    if (!pending)
        return 0; /* another stream is sending it: twice would cost a full link a third more */
    stream->urgent = true; /* bandwidth is accounted for, not waited for */
    int sent = page_stream_send(stream, page, err);
    if (sent == 0)
        sent = page_stream_flush(stream, err);
    stream->urgent = false;
    return sent;
}

static int answer_wants(struct supply *supply, struct page_stream *stream, struct around *around,
                        struct error *err)
{
    const uint8_t *payload = NULL;
    struct frame frame;
    int got = channel_fill(&stream->channel, err);
    while (got > 0) {
        got = channel_next(&stream->channel, PATH_WANTS, &frame, &payload, err);
        if (got > 0 && answer(supply, stream, around, frame.argument, err) < 0)
            return -1;
    }
    return got;
}

static int send_around(struct supply *supply, struct page_stream *stream, struct around *around,
                       struct error *err)
{
    uint64_t block = around->blocks[around->count - 1];
    uint64_t bits = atomic_load(&supply->pending[block]), taken = 0;
    for (unsigned i = 0; i < AROUND_PAGES && bits; i++, bits &= bits - 1)
        taken |= bits & -bits;
    taken &= atomic_fetch_and(&supply->pending[block], ~taken);
    if (!bits)
        around->count--;
    for (; taken; taken &= taken - 1)
        if (page_stream_send(stream, block * 64 + (uint64_t)__builtin_ctzll(taken), err) < 0)
            return -1;
    return page_stream_flush(stream, err);
}

static int serve_wants(struct supply *supply, struct page_stream *stream, struct error *err)
{
    struct around around = {.count = 0};
    for (;;) {
        struct pollfd polls[3] = {{.fd = stream->channel.fd, .events = POLLIN},
                                  {.fd = supply->over_fd, .events = POLLIN},
                                  {.fd = stream->channel.stop_fd, .events = POLLIN}};
        (void)poll(polls, 3, around.count > 0 ? 0 : -1);
        if (polls[1].revents)
            return 0;
        if (polls[2].revents)
            return error_set(err, ERROR_CONFLICT, "stopped");
        if (polls[0].revents && answer_wants(supply, stream, &around, err) < 0)
            return -1;
        if (around.count > 0 && send_around(supply, stream, &around, err) < 0)
            return -1;
    }
}

/* ---------------------------------------------------------------- the others */

static bool is_over(const struct supply *supply)
{
    struct pollfd over = {.fd = supply->over_fd, .events = POLLIN};
    return poll(&over, 1, 0) > 0;
}

static int push_all(struct supply *supply, struct page_stream *stream, struct error *err)
{
    struct pollfd polls[3] = {{.fd = supply->push_fd, .events = POLLIN},
                              {.fd = supply->over_fd, .events = POLLIN},
                              {.fd = stream->channel.stop_fd, .events = POLLIN}};
    while (poll(polls, 3, -1) <= 0)
        continue;
    if (polls[2].revents)
        return error_set(err, ERROR_CONFLICT, "stopped");
    uint64_t words = bitmap_words(supply->pages);
    for (;;) {
        uint64_t word = atomic_fetch_add(&supply->cursor, 1);
        if (word >= words || is_over(supply))
            return page_stream_flush(stream, err);
        uint64_t bits = atomic_exchange(&supply->pending[word], 0);
        for (; bits; bits &= bits - 1)
            if (page_stream_send(stream, word * 64 + (uint64_t)__builtin_ctzll(bits), err) < 0)
                return -1;
    }
}

int supply_serve(struct supply *supply, struct page_stream *stream, bool urgent, struct error *err)
{
    return urgent ? serve_wants(supply, stream, err) : push_all(supply, stream, err);
}
