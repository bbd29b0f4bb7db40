#include "node-agent/migration/pages.h"

#include <errno.h>
#include <immintrin.h>
#include <string.h>
#include <unistd.h>

/* SSE2 is part of x86-64; AVX2 is looked for. Most pages that aren't zero differ within the first
 * 64 bytes, so both look there first. */
static bool is_zero_sse2(const uint8_t *page)
{
    const __m128i *at = (const __m128i *)(const void *)page;
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(__m128i); i += 4) {
        __m128i any =
            _mm_or_si128(_mm_or_si128(_mm_load_si128(at + i), _mm_load_si128(at + i + 1)),
                         _mm_or_si128(_mm_load_si128(at + i + 2), _mm_load_si128(at + i + 3)));
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) != 0xffff)
            return false;
    }
    return true;
}

__attribute__((target("avx2"))) static bool is_zero_avx2(const uint8_t *page)
{
    const __m256i *at = (const __m256i *)(const void *)page;
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(__m256i); i += 4) {
        __m256i any = _mm256_or_si256(
            _mm256_or_si256(_mm256_load_si256(at + i), _mm256_load_si256(at + i + 1)),
            _mm256_or_si256(_mm256_load_si256(at + i + 2), _mm256_load_si256(at + i + 3)));
        if (!_mm256_testz_si256(any, any))
            return false;
    }
    return true;
}

bool page_is_zero(const uint8_t *page)
{
    uint64_t first;
    memcpy(&first, page, sizeof(first));
    if (first != 0)
        return false;
    return __builtin_cpu_supports("avx2") ? is_zero_avx2(page) : is_zero_sse2(page);
}

bool page_is_filled(const uint8_t *page, uint64_t *word)
{
    uint64_t head[2];
    memcpy(head, page, sizeof(head));
    if (head[0] != head[1]) /* of nearly all pages this is all that is looked at */
        return false;
    const __m128i *at = (const __m128i *)(const void *)page;
    const __m128i want = _mm_set1_epi64x((long long)head[0]);
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(__m128i); i++)
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128(at + i), want)) != 0xffff)
            return false;
    *word = head[0];
    return true;
}

/* SEEK_HOLE, which would tell where the data ends, walks over each page of it; so does not this. */
uint64_t page_next_data(const struct migration_guest *guest, uint64_t page)
{
    uint64_t pages = guest->ram_bytes / PAGE_BYTES;
    if (guest->ram_fd < 0 || page >= pages)
        return page < pages ? page : pages;
    off_t data = lseek(guest->ram_fd, (off_t)(page * PAGE_BYTES), SEEK_DATA);
    if (data < 0) /* ENXIO: nothing but a hole up to the end; else it is no file with holes */
        return errno == ENXIO ? pages : page;
    return (uint64_t)data / PAGE_BYTES < pages ? (uint64_t)data / PAGE_BYTES : pages;
}

void bitmap_fill(uint64_t *bitmap, uint64_t pages)
{
    uint64_t words = bitmap_words(pages);
    memset(bitmap, 0xff, words * sizeof(*bitmap));
    if (pages % 64)
        bitmap[words - 1] = (1ull << (pages % 64)) - 1;
}

uint64_t bitmap_count(const uint64_t *bitmap, uint64_t pages)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < bitmap_words(pages); i++)
        count += (uint64_t)__builtin_popcountll(bitmap[i]);
    return count;
}
