/*
 * page_cache.h: contents of pages as the target has them: what a delta is made against.
 *
 * The copy of a page is what was sent of it in a round that is over, never what the guest has now.
 * Slots are given to whoever asks first; the pages the guest writes again and again ask soonest.
 * In a round each page belongs to one thread, which alone uses its copy; taking a slot is safe from
 * all threads. page_cache_begin_round() and page_cache_clear() want all of them to stand still.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct page_cache {
    uint64_t ram_pages;
    uint32_t slots;
    uint8_t *copies;      /* slots * 4 KiB, mapped, used as they are taken */
    uint32_t *slot_of;    /* per page of RAM: its slot + 1; 0: none */
    uint32_t *page_of;    /* per slot */
    uint32_t *free;       /* the first @left are free slots */
    _Atomic int64_t left; /* below 0: that often nobody got one */

    _Atomic uint64_t tried, won; /* in this round: pages with a copy, and those it helped */
    uint32_t rest, next_rest;    /* rounds that go without, since it did not help */
};

/* How much of the host's memory may be used for a guest of @ram_bytes, in bytes. */
uint64_t page_cache_bytes(uint64_t ram_bytes);

struct page_cache *page_cache_new(uint64_t ram_bytes, uint64_t bytes, struct error *err);
void page_cache_free(struct page_cache *cache);

/* Forgets all. */
void page_cache_clear(struct page_cache *cache);

/* Before a round of the pages in @bitmap. Judges by the last round whether the cache helps; false:
 * this round goes without, and what the cache had is forgotten. Where no slots are left, those of
 * pages the guest has stopped writing to are taken back, unless there is @hurry. */
bool page_cache_begin_round(struct page_cache *cache, const uint64_t *bitmap, bool hurry);

/* The copy of @page, or NULL. */
uint8_t *page_cache_find(const struct page_cache *cache, uint64_t page);
/* Room for a copy of @page, which has none yet; NULL where there is no room. */
uint8_t *page_cache_add(struct page_cache *cache, uint64_t page);
