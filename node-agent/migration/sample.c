/* sample.c: how much a guest dirties, measured while it runs and nothing is sent. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "node-agent/migration/migration.h"
#include "node-agent/migration/pages.h"

#define SLICE_MS 100u /* a page counts once a slice */

static int take_slices(const struct migration_guest *guest, uint64_t duration_ms, uint64_t *slice,
                       uint64_t *seen, struct migration_dirty_sample *sample, struct error *err)
{
    uint64_t pages = guest->ram_bytes / PAGE_BYTES, words = bitmap_words(pages), total = 0;
    int64_t begin_ns = clock_monotonic_ns();
    int64_t end_ns = begin_ns + (int64_t)duration_ms * 1000000;
    /* The first sync gives what is dirty from the start, which may be everything: it only clears.
     */
    for (bool first = true; first || clock_monotonic_ns() < end_ns; first = false) {
        memset(slice, 0, words * sizeof(*slice));
        if (guest->ops->dirty_sync(guest->self, slice, err) < 0)
            return -1;
        if (guest->ops->dirty_clear(guest->self, slice, 0, pages, err) < 0)
            return -1;
        for (uint64_t i = 0; !first && i < words; i++) {
            total += (uint64_t)__builtin_popcountll(slice[i]);
            seen[i] |= slice[i];
        }
        (void)poll(NULL, 0, SLICE_MS);
    }
    uint64_t took_ms = (uint64_t)(clock_monotonic_ns() - begin_ns) / 1000000;
    sample->pages_per_second = total * 1000 / (took_ms ? took_ms : 1);
    sample->set_pages = bitmap_count(seen, pages);
    return 0;
}

int migration_sample_dirty(const struct migration_guest *guest, uint64_t duration_ms,
                           struct migration_dirty_sample *sample, struct error *err)
{
    uint64_t words = bitmap_words(guest->ram_bytes / PAGE_BYTES);
    auto_free uint64_t *slice = calloc(words, sizeof(*slice));
    auto_free uint64_t *seen = calloc(words, sizeof(*seen));
    if (!slice || !seen)
        return error_set(err, ERROR_FAILED, "out of memory for a dirty bitmap");
    if (guest->ops->dirty_start(guest->self, err) < 0)
        return -1;
    int result = take_slices(guest, duration_ms, slice, seen, sample, err);
    guest->ops->dirty_stop(guest->self);
    return result;
}
