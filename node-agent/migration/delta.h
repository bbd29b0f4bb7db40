/*
 * delta.h: a page as what differs from an older copy of it, which the other end has.
 *
 * An encoded page is a sequence of records until its 512 words (of 8 bytes) are accounted for:
 *
 *     u16 words that are as they were    u16 words that follow    the words, as they are now
 *
 * A record accounts for at least one word. All numbers are little-endian.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define DELTA_PAGE_MAX (4096u + 4u * 257u) /* no page takes more: every second word changed */

/* Writes what differs between @page and @copy to @out and makes @copy equal to what was encoded.
 * @page (aligned to 16 bytes) may change meanwhile: each word is read once. Returns the number of
 * bytes, or 0 where more than @room were needed: then @copy is a mixture and must be filled anew.
 */
size_t delta_encode(const uint8_t *page, uint8_t *copy, uint8_t *out, size_t room);

/* Reads one page of @in and changes @page, the older copy. Returns the number of bytes read, 0
 * where they are no page; @page is a mixture then. Nothing outside of it is touched. */
size_t delta_decode(const uint8_t *in, size_t size, uint8_t *page);
