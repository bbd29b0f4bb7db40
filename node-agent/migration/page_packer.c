#include "node-agent/migration/page_packer.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/delta.h"
#include "node-agent/migration/pages.h"

#define PACKED_PAGES  32u /* of a frame to compress: 128 KiB stay in the processor's cache */
#define PACKED_BYTES  ((size_t)PACKED_PAGES * STREAM_PAGE_BYTES)
#define SAMPLE_PAGES  8u
#define SKIP_MAX      32u  /* frames not tried after some that got no smaller */
#define WON_PER_MILLE 950u /* of its size: a frame that gets no smaller goes as it is */
#define DELTA_ROOM    ((size_t)64 << 10)
#define DELTA_MOST    (STREAM_PAGE_BYTES / 2)

/* Pages that go into one frame. */
struct batch {
    struct run runs[STREAM_RUNS_MAX];
    unsigned runs_count;
    uint64_t pages;
};

struct packer {
    struct packer_options options;
    struct page_cache *cache; /* of this round */
    bool calm; /* else the guest stands still: no page need be copied, none is remembered */
    struct codec_memory *memory;
    struct packed out;

    struct batch data; /* pages to compress, or as they are */
    uint8_t *pages;    /* copies of those of @data, PACKED_BYTES; where the round needs them */
    uint8_t *packed;   /* the same compressed */
    bool copies;       /* @pages is used for the batch that is being filled */

    struct batch deltas;
    uint8_t *delta; /* DELTA_ROOM */
    size_t delta_bytes;
    uint32_t ratio;                    /* of pages sent otherwise, in this round: per mille */
    uint64_t deltas_tried, deltas_won; /* of this round */

    struct batch fills;
    uint64_t words[STREAM_RUNS_MAX]; /* per run of @fills */

    enum codec chosen;        /* for the batch that is being filled */
    unsigned skip, next_skip; /* frames that are not tried */
    struct codec_frame sent;  /* the last */
};

/* ---------------------------------------------------------------- batches */

static void append(struct batch *batch, uint64_t page, bool may_join)
{
    struct run *last = batch->runs_count ? &batch->runs[batch->runs_count - 1] : NULL;
    batch->pages++;
    if (last && may_join && last->first + last->count == page)
        last->count++;
    else
        batch->runs[batch->runs_count++] = (struct run){.first = page, .count = 1};
}

/* Each page adds one run at most, so a batch that is not full has room for one. */
static bool is_full(const struct batch *batch, unsigned pages)
{
    return batch->pages >= pages || batch->runs_count == STREAM_RUNS_MAX;
}

/* The frame is complete; its batch begins anew with the next page. */
static const struct packed *give(struct packer *packer, struct batch *batch, enum codec codec,
                                 const void *body, size_t body_bytes)
{
    packer->out = (struct packed){.codec = codec,
                                  .runs = batch->runs,
                                  .runs_count = batch->runs_count,
                                  .pages = batch->pages,
                                  .body = body,
                                  .body_bytes = body_bytes};
    batch->runs_count = 0;
    batch->pages = 0;
    return &packer->out;
}

/* ---------------------------------------------------------------- compressing */

static uint64_t thread_ns(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Compresses @bytes at packer->pages; 0 where they get no smaller. What that costs is told in CPU
 * time: that another process had the CPU meanwhile says nothing of the codec. */
static size_t compress(struct packer *packer, enum codec codec, size_t bytes)
{
    uint64_t begin_ns = thread_ns();
    size_t made = codec_compress(packer->memory, codec, packer->pages, bytes, packer->packed,
                                 bytes * WON_PER_MILLE / 1000);
    codec_meter_note_encoded(packer->options.meter, codec, bytes, made, thread_ns() - begin_ns);
    return made;
}

/* Brings the first @pages pages of the batch to packer->pages, unless they are there. */
static void gather(struct packer *packer, uint64_t pages)
{
    uint8_t *at = packer->pages;
    for (unsigned i = 0; !packer->copies && i < packer->data.runs_count && pages > 0; i++) {
        uint64_t count = packer->data.runs[i].count < pages ? packer->data.runs[i].count : pages;
        memcpy(at, packer->options.ram + packer->data.runs[i].first * PAGE_BYTES,
               count * PAGE_BYTES);
        at += count * PAGE_BYTES;
        pages -= count;
    }
}

/* Tries a codec on a few pages of the batch, when its time has come. */
static void sample(struct packer *packer)
{
    if (!packer->calm || packer->data.pages < SAMPLE_PAGES)
        return;
    enum codec codec = codec_meter_sample(packer->options.meter);
    if (codec == CODEC_NONE)
        return;
    uint64_t begin_ns = thread_ns();
    gather(packer, SAMPLE_PAGES);
    (void)compress(packer, codec, SAMPLE_PAGES * PAGE_BYTES);
    codec_meter_note_sample(packer->options.meter, thread_ns() - begin_ns);
}

static bool wants_to_compress(const struct packer *packer)
{
    return packer->chosen != CODEC_NONE && packer->skip == 0;
}

/* After a frame that got no smaller some are not tried, each time twice as many. */
static void note_compressed(struct packer *packer, bool smaller)
{
    if (smaller || packer->options.compress != MIGRATION_COMPRESS_AUTO)
        packer->next_skip = 1;
    else
        packer->skip = packer->next_skip;
    if (!smaller && packer->next_skip < SKIP_MAX)
        packer->next_skip *= 2;
}

static const struct packed *give_data(struct packer *packer)
{
    size_t bytes = packer->data.pages * PAGE_BYTES;
    const uint8_t *plain = packer->copies ? packer->pages : NULL;
    packer->sent = (struct codec_frame){.chosen = packer->chosen, .page_bytes = bytes};
    sample(packer);
    if (packer->copies && wants_to_compress(packer)) {
        int64_t begin_ns = clock_monotonic_ns();
        size_t made = compress(packer, packer->chosen, bytes);
        packer->sent.encode_ns = (uint64_t)(clock_monotonic_ns() - begin_ns);
        note_compressed(packer, made > 0);
        if (made > 0)
            return give(packer, &packer->data, packer->chosen, packer->packed, made);
    } else if (packer->skip > 0) {
        packer->skip--;
    }
    return give(packer, &packer->data, CODEC_NONE, plain, bytes);
}

static const struct packed *add_data(struct packer *packer, uint64_t page, uint8_t *copy)
{
    struct batch *data = &packer->data;
    const uint8_t *from = packer->options.ram + page * PAGE_BYTES;
    bool remember = packer->cache && packer->calm;
    if (data->pages == 0) {
        packer->chosen = codec_meter_now(packer->options.meter);
        packer->copies = remember || wants_to_compress(packer);
    }
    if (packer->copies) {
        uint8_t *own = packer->pages + data->pages * PAGE_BYTES;
        from = memcpy(own, from, PAGE_BYTES);
    }
    if (remember && !copy)
        copy = page_cache_add(packer->cache, page);
    if (copy)
        memcpy(copy, from, PAGE_BYTES);
    append(data, page, true);
    return is_full(data, packer->copies ? PACKED_PAGES : packer->options.plain_pages)
               ? give_data(packer)
               : NULL;
}

/* ---------------------------------------------------------------- deltas and fills */

static const struct packed *give_deltas(struct packer *packer)
{
    size_t bytes = packer->delta_bytes;
    packer->delta_bytes = 0;
    return give(packer, &packer->deltas, CODEC_DELTA, packer->delta, bytes);
}

/* A delta is worth it where it takes at most half of what the page would. */
static size_t delta_most(const struct packer *packer)
{
    return DELTA_MOST * packer->ratio / (CHOICE_RATIO_ONE + 1);
}

/* Whether the page is with the deltas now. */
static bool add_delta(struct packer *packer, uint64_t page, uint8_t *copy)
{
    size_t made = delta_encode(packer->options.ram + page * PAGE_BYTES, copy,
                               packer->delta + packer->delta_bytes, delta_most(packer));
    packer->deltas_tried++;
    if (made == 0)
        return false;
    packer->deltas_won++;
    packer->delta_bytes += made;
    append(&packer->deltas, page, true);
    return true;
}

static const struct packed *give_fills(struct packer *packer)
{
    return give(packer, &packer->fills, CODEC_FILL, packer->words,
                packer->fills.runs_count * sizeof(packer->words[0]));
}

static const struct packed *add_fill(struct packer *packer, uint64_t page, uint64_t word)
{
    struct batch *fills = &packer->fills;
    append(fills, page, fills->runs_count && packer->words[fills->runs_count - 1] == word);
    packer->words[fills->runs_count - 1] = word;
    uint8_t *copy = packer->cache ? page_cache_find(packer->cache, page) : NULL;
    for (size_t at = 0; copy && at < PAGE_BYTES; at += sizeof(word))
        memcpy(copy + at, &word, sizeof(word));
    return is_full(fills, STREAM_FRAME_PAGES_MAX) ? give_fills(packer) : NULL;
}

/* ---------------------------------------------------------------- interface */

const struct packed *packer_add(struct packer *packer, uint64_t page)
{
    uint64_t word;
    if (packer->options.compress != MIGRATION_COMPRESS_OFF &&
        page_is_filled(packer->options.ram + page * PAGE_BYTES, &word))
        return add_fill(packer, page, word);
    uint8_t *copy = packer->cache ? page_cache_find(packer->cache, page) : NULL;
    if (!copy || !add_delta(packer, page, copy))
        return add_data(packer, page, copy);
    bool full = is_full(&packer->deltas, STREAM_FRAME_PAGES_MAX) ||
                DELTA_ROOM - packer->delta_bytes < DELTA_MOST;
    return full ? give_deltas(packer) : NULL;
}

void packer_note_zeros(struct packer *packer, uint64_t page)
{
    uint8_t *copy = packer->cache ? page_cache_find(packer->cache, page) : NULL;
    if (copy)
        memset(copy, 0, PAGE_BYTES);
}

const struct packed *packer_flush(struct packer *packer)
{
    if (packer->data.pages > 0)
        return give_data(packer);
    if (packer->deltas.pages > 0)
        return give_deltas(packer);
    if (packer->fills.pages > 0)
        return give_fills(packer);
    if (packer->cache) {
        atomic_fetch_add(&packer->cache->tried, packer->deltas_tried);
        atomic_fetch_add(&packer->cache->won, packer->deltas_won);
        packer->deltas_tried = packer->deltas_won = 0;
    }
    return NULL;
}

void packer_note_sent(struct packer *packer, uint64_t send_ns, uint64_t waited_ns,
                      uint64_t wire_bytes)
{
    if (packer->out.codec > CODEC_ZSTD)
        return; /* says nothing of the three the choice is between */
    packer->sent.send_ns = send_ns;
    packer->sent.waited_ns = waited_ns;
    packer->sent.wire_bytes = wire_bytes;
    codec_meter_note_sent(packer->options.meter, &packer->sent);
}

void packer_begin_round(struct packer *packer, struct page_cache *cache, bool calm)
{
    packer->cache = cache;
    packer->calm = calm;
    enum codec codec = codec_meter_now(packer->options.meter);
    uint32_t ratio = codec_meter_ratio(packer->options.meter, codec);
    packer->ratio = codec == CODEC_NONE || ratio == 0 ? CHOICE_RATIO_ONE : ratio;
}

struct packer *packer_new(const struct packer_options *options, struct error *err)
{
    struct packer *packer = calloc(1, sizeof(*packer));
    if (!packer) {
        error_set(err, ERROR_FAILED, "out of memory for a page packer");
        return NULL;
    }
    packer->options = *options;
    packer->next_skip = 1;
    packer->pages = aligned_alloc(PAGE_BYTES, PACKED_BYTES);
    packer->packed = malloc(PACKED_BYTES);
    packer->delta = malloc(DELTA_ROOM);
    packer->memory = codec_memory_new(err);
    if (packer->pages && packer->packed && packer->delta && packer->memory)
        return packer;
    packer_free(packer);
    error_set(err, ERROR_FAILED, "out of memory for a page packer");
    return NULL;
}

void packer_free(struct packer *packer)
{
    if (!packer)
        return;
    codec_memory_free(packer->memory);
    free(packer->pages);
    free(packer->packed);
    free(packer->delta);
    free(packer);
}
