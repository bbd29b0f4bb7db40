#include "node-agent/migration/hot.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/source.h"

#define BEGIN_NS    250000000 /* a shorter first round is not worth it */
#define INTERVAL_NS 150000000
#define RATE_NS     400000000 /* a guest that writes in bursts is not as fast as one of them */
#define PIECE_PAGES 4096u     /* whose log is cleared while the streams can claim nothing */

/* Clears the log of what no stream has claimed: a claimed page may have been read already, and its
 * record must not be lost. */
static int protect_rest(struct migration_source *source, struct error *err)
{
    struct page_sender *sender = &source->sender;
    uint64_t pages = source->guest.ram_bytes / PAGE_BYTES, next = 0;
    while (next < pages) {
        (void)pthread_mutex_lock(&sender->lock);
        uint64_t first = sender->cursor > next ? sender->cursor : next;
        uint64_t count = pages - first < PIECE_PAGES ? pages - first : PIECE_PAGES;
        int cleared = count == 0 ? 0
                                 : source->guest.ops->dirty_clear(
                                       source->guest.self, source->bitmap, first, count, err);
        (void)pthread_mutex_unlock(&sender->lock);
        if (next == 0)
            source->hot.first = first;
        if (cleared < 0)
            return -1;
        next = first + count;
    }
    return 0;
}

static int begin(struct migration_source *source, struct error *err)
{
    struct hot *hot = &source->hot;
    uint64_t words = bitmap_words(source->guest.ram_bytes / PAGE_BYTES);
    hot->seen = calloc(words, sizeof(*hot->seen));
    hot->slice = calloc(words, sizeof(*hot->slice));
    if (!hot->seen || !hot->slice) {
        hot_free(hot); /* it is only an improvement */
        hot->next_ns = INT64_MAX;
        return 0;
    }
    hot->begin_ns = clock_monotonic_ns();
    if (protect_rest(source, err) < 0)
        return error_wrap(err, "cannot clear the dirty log");
    hot->next_ns = clock_monotonic_ns() + INTERVAL_NS;
    return 0;
}

/* Takes what is hot out of the part of the round that nobody has claimed. */
static int look(struct migration_source *source, struct error *err)
{
    struct hot *hot = &source->hot;
    struct page_sender *sender = &source->sender;
    uint64_t words = bitmap_words(source->guest.ram_bytes / PAGE_BYTES), fresh = 0;
    memset(hot->slice, 0, words * sizeof(*hot->slice));
    if (source->guest.ops->dirty_sync(source->guest.self, hot->slice, err) < 0)
        return error_wrap(err, "cannot read the dirty log");
    (void)pthread_mutex_lock(&sender->lock);
    for (uint64_t word = sender->cursor / 64; word < words; word++)
        source->bitmap[word] &= ~hot->slice[word];
    (void)pthread_mutex_unlock(&sender->lock);
    for (uint64_t word = 0; word < words; word++) {
        if (word >= hot->first / 64)
            fresh += (uint64_t)__builtin_popcountll(hot->slice[word] & ~hot->seen[word]);
        hot->seen[word] |= hot->slice[word];
    }
    int64_t now_ns = clock_monotonic_ns();
    hot->pages += fresh;
    uint64_t rate = hot->pages * 1000000000 / (uint64_t)(now_ns - hot->begin_ns);
    if (now_ns - hot->begin_ns >= RATE_NS && rate > hot->pages_per_second)
        hot->pages_per_second = rate;
    hot->next_ns = now_ns + INTERVAL_NS;
    return 0;
}

int hot_watch(struct migration_source *source, struct error *err)
{
    struct hot *hot = &source->hot;
    int64_t now_ns = clock_monotonic_ns();
    if (source->round != 1 || source->paused || now_ns - source->round_ns < BEGIN_NS ||
        now_ns < hot->next_ns)
        return 0;
    return hot->seen ? look(source, err) : begin(source, err);
}

void hot_collect(struct migration_source *source)
{
    struct hot *hot = &source->hot;
    uint64_t words = bitmap_words(source->guest.ram_bytes / PAGE_BYTES);
    for (uint64_t word = 0; hot->seen && word < words; word++)
        source->bitmap[word] |= hot->seen[word];
    hot_free(hot);
    hot->next_ns = INT64_MAX;
}

void hot_free(struct hot *hot)
{
    free(hot->seen);
    free(hot->slice);
    hot->seen = hot->slice = NULL;
}
