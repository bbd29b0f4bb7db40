#include "node-agent/migration/pages.h"

#include <immintrin.h>
#include <string.h>
#include <sys/mman.h>
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

/* An entry of pagemap: present, or swapped out (kernel, Documentation/admin-guide/mm/pagemap.rst).
 */
#define ENTRY_USED  (1ull << 63 | 1ull << 62)
#define ENTRIES_MAX 2048u /* read at once */

uint64_t page_next_data(const struct migration_guest *guest, uint64_t page, uint64_t end)
{
    uint64_t entries[ENTRIES_MAX];
    uint64_t base = (uintptr_t)guest->ram / PAGE_BYTES;
    /* Mostly the first is data. The longer a hole is, the more is read at once. */
    for (uint64_t most = 64; guest->pagemap_fd >= 0 && page < end; most = ENTRIES_MAX) {
        uint64_t want = end - page < most ? end - page : most;
        ssize_t got = pread(guest->pagemap_fd, entries, want * sizeof(entries[0]),
                            (off_t)((base + page) * sizeof(entries[0])));
        if (got < (ssize_t)sizeof(entries[0]))
            return page; /* without knowing, it is data */
        for (size_t i = 0; i < (size_t)got / sizeof(entries[0]); i++, page++)
            if (entries[i] & ENTRY_USED)
                return page;
    }
    return page;
}

int page_keep_small(const struct migration_guest *guest)
{
    return madvise(guest->ram, guest->ram_bytes, MADV_NOHUGEPAGE);
}

int page_drop(const struct migration_guest *guest, uint64_t page, uint64_t count)
{
    return madvise(guest->ram + page * PAGE_BYTES, count * PAGE_BYTES, MADV_DONTNEED);
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
