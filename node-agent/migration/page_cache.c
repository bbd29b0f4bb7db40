#include "node-agent/migration/page_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "node-agent/migration/pages.h"

#define BYTES_MIN   (64ull << 20)
#define BYTES_MAX   (1ull << 30)
#define RAM_SHARE   16u  /* of RAM, between the two */
#define JUDGE_PAGES 256u /* fewer say nothing */
#define WON_SHARE   4u   /* of the pages tried, where it helps */

uint64_t page_cache_bytes(uint64_t ram_bytes)
{
    uint64_t bytes = ram_bytes / RAM_SHARE;
    if (bytes < BYTES_MIN)
        bytes = BYTES_MIN;
    if (bytes > BYTES_MAX)
        bytes = BYTES_MAX;
    return bytes < ram_bytes ? bytes : ram_bytes;
}

static void fill_free(struct page_cache *cache)
{
    for (uint32_t i = 0; i < cache->slots; i++)
        cache->free[i] = cache->slots - 1 - i;
    atomic_store(&cache->left, cache->slots);
}

struct page_cache *page_cache_new(uint64_t ram_bytes, uint64_t bytes, struct error *err)
{
    struct page_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        goto failed;
    cache->ram_pages = ram_bytes / PAGE_BYTES;
    cache->slots = (uint32_t)(bytes / PAGE_BYTES);
    cache->next_rest = 2;
    cache->slot_of = calloc(cache->ram_pages, sizeof(*cache->slot_of));
    cache->page_of = calloc(cache->slots, sizeof(*cache->page_of));
    cache->free = calloc(cache->slots, sizeof(*cache->free));
    void *copies = mmap(NULL, cache->slots * PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (copies == MAP_FAILED)
        goto failed;
    cache->copies = copies;
    (void)madvise(copies, cache->slots * PAGE_BYTES, MADV_HUGEPAGE); /* fewer faults, if it can */
    if (!cache->slot_of || !cache->page_of || !cache->free)
        goto failed;
    fill_free(cache);
    return cache;
failed:
    page_cache_free(cache);
    error_set(err, ERROR_FAILED, "out of memory for copies of pages");
    return NULL;
}

void page_cache_free(struct page_cache *cache)
{
    if (!cache)
        return;
    if (cache->copies)
        (void)munmap(cache->copies, cache->slots * PAGE_BYTES);
    free(cache->slot_of);
    free(cache->page_of);
    free(cache->free);
    free(cache);
}

void page_cache_clear(struct page_cache *cache)
{
    for (uint32_t slot = 0; slot < cache->slots; slot++) {
        uint32_t page = cache->page_of[slot];
        if (cache->slot_of[page] == slot + 1)
            cache->slot_of[page] = 0;
    }
    fill_free(cache);
}

static void take_back(struct page_cache *cache, const uint64_t *bitmap)
{
    uint32_t left = 0;
    for (uint32_t slot = 0; slot < cache->slots; slot++) {
        uint32_t page = cache->page_of[slot];
        if (cache->slot_of[page] == slot + 1 && bitmap_test(bitmap, page))
            continue;
        if (cache->slot_of[page] == slot + 1)
            cache->slot_of[page] = 0;
        cache->free[left++] = slot;
    }
    atomic_store(&cache->left, left);
}

bool page_cache_begin_round(struct page_cache *cache, const uint64_t *bitmap, bool hurry)
{
    uint64_t tried = atomic_exchange(&cache->tried, 0), won = atomic_exchange(&cache->won, 0);
    if (cache->rest > 0)
        return --cache->rest == 0;
    if (tried >= JUDGE_PAGES && won < tried / WON_SHARE) {
        cache->rest = cache->next_rest;
        cache->next_rest *= 2;
        page_cache_clear(cache);
        return false;
    }
    if (!hurry && atomic_load(&cache->left) <= 0)
        take_back(cache, bitmap);
    return true;
}

static uint8_t *copy_at(const struct page_cache *cache, uint32_t slot)
{
    return cache->copies + (size_t)slot * PAGE_BYTES;
}

uint8_t *page_cache_find(const struct page_cache *cache, uint64_t page)
{
    uint32_t slot = cache->slot_of[page];
    return slot ? copy_at(cache, slot - 1) : NULL;
}

uint8_t *page_cache_add(struct page_cache *cache, uint64_t page)
{
    if (atomic_load_explicit(&cache->left, memory_order_relaxed) <= 0)
        return NULL;
    int64_t left = atomic_fetch_sub(&cache->left, 1);
    if (left <= 0)
        return NULL;
    uint32_t slot = cache->free[left - 1];
    cache->slot_of[page] = slot + 1;
    cache->page_of[slot] = (uint32_t)page;
    return copy_at(cache, slot);
}
