/*
 * pages.h: looking at the guest's pages: zero pages, holes, and the bitmap of a round.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "node-agent/migration/guest.h"

#define PAGE_BYTES 4096ull

/* Whether a page (4 KiB, aligned to 64 bytes) is all zeros. The guest may write meanwhile: then the
 * dirty log tells of it. */
bool page_is_zero(const uint8_t *page);

/* Whether a page (as above) is one 8-byte word again and again; @word gets it. */
bool page_is_filled(const uint8_t *page, uint64_t *word);

/* The first page of [@page, @end) that may hold data, skipping holes, pages that never were
 * touched: they are zeros, but reading them would map them. @end where there is none. What follows
 * the page that is returned may be a hole again: ask again after each page found to be zeros. */
uint64_t page_next_data(const struct migration_guest *guest, uint64_t page, uint64_t end);

/* The kernel makes no huge pages of the guest's RAM from now on. 0, or -1 with errno set. */
int page_keep_small(const struct migration_guest *guest);
/* Makes holes of @count pages from @page on. 0, or -1 with errno set. */
int page_drop(const struct migration_guest *guest, uint64_t page, uint64_t count);

static inline uint64_t bitmap_words(uint64_t pages)
{
    return (pages + 63) / 64;
}

static inline bool bitmap_test(const uint64_t *bitmap, uint64_t page)
{
    return bitmap[page / 64] >> (page % 64) & 1;
}

/* Sets the first @pages bits and clears the rest of the last word. */
void bitmap_fill(uint64_t *bitmap, uint64_t pages);
uint64_t bitmap_count(const uint64_t *bitmap, uint64_t pages);
