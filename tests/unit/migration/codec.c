/* Page codecs: what goes in comes out, and what is no encoding is refused and harms nothing. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "node-agent/migration/codec.h"
#include "node-agent/migration/delta.h"
#include "node-agent/migration/pages.h"

#define PAGES 32u
#define BYTES (PAGES * 4096u)

enum content { RANDOM, TEXT, ZEROS, HALF };

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void fill_bytes(uint8_t *at, size_t size, enum content content, uint64_t seed)
{
    static const char *const words[] = {"migrate ", "the pool", " of page", "s sent  "};
    uint64_t x = seed * 2654435761u + 88172645463325252ull;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = next_random(&x);
        if (content == TEXT)
            memcpy(at + i, words[word % 4], 8);
        else if (content == ZEROS || (content == HALF && i % 4096 < 2048))
            memset(at + i, 0, 8);
        else
            memcpy(at + i, &word, 8);
    }
}

struct bench {
    struct codec_memory *memory;
    uint8_t *in, *packed, *ram; /* @ram has one more page, a guard */
};

static void make_bench(struct bench *bench)
{
    struct error err = ERROR_INIT;
    bench->memory = codec_memory_new(&err);
    bench->in = aligned_alloc(4096, BYTES);
    bench->packed = malloc(BYTES);
    bench->ram = aligned_alloc(4096, BYTES + 4096);
    memset(bench->ram, 0xa5, BYTES + 4096);
}

static void free_bench(struct bench *bench)
{
    codec_memory_free(bench->memory);
    free(bench->in);
    free(bench->packed);
    free(bench->ram);
}

static int decode(struct bench *bench, enum codec codec, size_t size, unsigned runs)
{
    struct error err = ERROR_INIT;
    struct run table[2] = {{.first = 0, .count = runs == 1 ? PAGES : 5},
                           {.first = 5, .count = PAGES - 5}};
    struct frame frame = {.type = FRAME_PAGES, .codec = (uint8_t)codec, .runs = (uint16_t)runs};
    /* a copy of exactly that size, so that reading beyond it is seen by the sanitizer */
    uint8_t *in = malloc(size ? size : 1);
    memcpy(in, bench->packed, size);
    int result = codec_decode(bench->memory, &frame, in, size, table, PAGES, bench->ram, &err);
    free(in);
    cr_assert_eq(result < 0, err.kind != ERROR_NONE);
    for (unsigned i = 0; i < 4096; i++)
        cr_assert_eq(bench->ram[BYTES + i], 0xa5, "written beyond the pages");
    return result;
}

/* ---------------------------------------------------------------- LZ4 and zstd */

ParameterizedTestParameters(codec, pages_survive)
{
    static enum content contents[] = {RANDOM, TEXT, ZEROS, HALF};
    return cr_make_param_array(enum content, contents, 4);
}

ParameterizedTest(enum content *content, codec, pages_survive)
{
    for (enum codec codec = CODEC_LZ4; codec <= CODEC_ZSTD; codec++)
        for (unsigned runs = 1; runs <= 2; runs++) {
            struct bench bench;
            make_bench(&bench);
            fill_bytes(bench.in, BYTES, *content, 1);
            size_t size =
                codec_compress(bench.memory, codec, bench.in, BYTES, bench.packed, BYTES - 1);
            cr_assert_eq(size == 0, *content == RANDOM, "%s: %zu", codec_name(codec), size);
            if (size) {
                cr_assert_lt(size, BYTES * 2 / 3);
                cr_assert_eq(decode(&bench, codec, size, runs), 0);
                cr_assert_eq(memcmp(bench.ram, bench.in, BYTES), 0);
            }
            free_bench(&bench);
        }
}

Test(codec, what_is_not_exactly_the_pages_is_refused)
{
    for (enum codec codec = CODEC_LZ4; codec <= CODEC_ZSTD; codec++) {
        struct bench bench;
        make_bench(&bench);
        fill_bytes(bench.in, BYTES, TEXT, 1);
        size_t less = codec_compress(bench.memory, codec, bench.in, BYTES - 1, bench.packed, BYTES);
        cr_assert_eq(decode(&bench, codec, less, 1), -1, "a byte too few");
        size_t size = codec_compress(bench.memory, codec, bench.in, BYTES, bench.packed, BYTES);
        cr_assert_eq(decode(&bench, codec, size - 1, 1), -1, "cut short");
        cr_assert_eq(decode(&bench, codec, 0, 1), -1, "nothing");
        bench.packed[size] = 0;
        cr_assert_eq(decode(&bench, codec, size + 1, 1), -1, "and something more");
        uint8_t *twice = aligned_alloc(4096, 2 * BYTES);
        memcpy(twice, bench.in, BYTES);
        memcpy(twice + BYTES, bench.in, BYTES);
        size = codec_compress(bench.memory, codec, twice, 2 * BYTES, bench.packed, BYTES);
        cr_assert_gt(size, 0);
        cr_assert_eq(decode(&bench, codec, size, 1), -1, "twice as many pages");
        free(twice);
        free_bench(&bench);
    }
}

Test(codec, spoiled_bytes_never_write_elsewhere)
{
    uint64_t x = 4711;
    struct bench bench;
    make_bench(&bench);
    fill_bytes(bench.in, BYTES, TEXT, 1);
    for (unsigned i = 0; i < 2000; i++) {
        enum codec codec = CODEC_LZ4 + i % 4;
        size_t size = codec <= CODEC_ZSTD ? codec_compress(bench.memory, codec, bench.in, BYTES,
                                                           bench.packed, BYTES)
                                          : BYTES / 8;
        for (unsigned k = 0; k <= i % 8; k++)
            bench.packed[next_random(&x) % size] = (uint8_t)next_random(&x);
        (void)decode(&bench, codec, size, 1 + i % 2);
    }
    free_bench(&bench);
}

Test(codec, a_fill_is_of_whole_runs)
{
    struct bench bench;
    make_bench(&bench);
    uint64_t words[3] = {0x1122334455667788, 0xcccccccccccccccc};
    memcpy(bench.packed, words, sizeof(words));
    cr_assert_eq(decode(&bench, CODEC_FILL, 16, 2), 0);
    for (unsigned i = 0; i < BYTES; i += 8)
        cr_assert_eq(memcmp(bench.ram + i, &words[i >= 5 * 4096], 8), 0);
    cr_assert_eq(decode(&bench, CODEC_FILL, 15, 2), -1);
    cr_assert_eq(decode(&bench, CODEC_FILL, 24, 2), -1);
    cr_assert_eq(decode(&bench, CODEC_NONE, 16, 2), -1, "plain pages are no encoding");
    cr_assert_eq(decode(&bench, CODECS, 16, 2), -1);
    free_bench(&bench);
}

Test(pages, one_bit_anywhere_is_another_word)
{
    static _Alignas(4096) uint8_t page[4096];
    uint64_t word = 0;
    memset(page, 0xcc, sizeof(page));
    cr_assert(page_is_filled(page, &word));
    cr_assert_eq(word, 0xcccccccccccccccc);
    for (unsigned i = 0; i < 4096; i++) {
        page[i] ^= 1;
        cr_assert(!page_is_filled(page, &word), "byte %u", i);
        page[i] ^= 1;
    }
}

/* ---------------------------------------------------------------- deltas */

struct change {
    unsigned first, step, count; /* words */
};

ParameterizedTestParameters(delta, changes_survive)
{
    static struct change changes[] = {
        {0, 1, 0}, {0, 1, 1},   {511, 1, 1}, {0, 1, 512}, {0, 2, 256},   {1, 2, 256}, {7, 1, 2},
        {8, 1, 8}, {0, 511, 2}, {100, 1, 3}, {0, 64, 8},  {256, 1, 256}, {500, 1, 12}};
    return cr_make_param_array(struct change, changes, sizeof(changes) / sizeof(changes[0]));
}

ParameterizedTest(struct change *change, delta, changes_survive)
{
    static _Alignas(4096) uint8_t page[4096], copy[4096], target[4096];
    uint8_t out[DELTA_PAGE_MAX];
    fill_bytes(page, sizeof(page), RANDOM, 3);
    memcpy(copy, page, sizeof(page));
    memcpy(target, page, sizeof(page));
    for (unsigned i = 0; i < change->count; i++)
        page[(change->first + i * change->step) * 8 + i % 8] ^= 0x40;
    size_t size = delta_encode(page, copy, out, sizeof(out));
    cr_assert_gt(size, 0);
    cr_assert_leq(size, change->count * 12 + 4);
    cr_assert_eq(memcmp(copy, page, sizeof(page)), 0, "the copy is what was encoded");
    cr_assert_eq(delta_decode(out, size, target), size);
    cr_assert_eq(memcmp(target, page, sizeof(page)), 0);
    for (size_t less = 0; less < size; less++) {
        uint8_t *cut = malloc(less ? less : 1);
        memcpy(cut, out, less);
        cr_assert_eq(delta_decode(cut, less, target), 0, "%zu bytes of %zu", less, size);
        free(cut);
    }
}

Test(delta, no_more_than_the_room_is_written)
{
    static _Alignas(4096) uint8_t page[4096], copy[4096];
    uint8_t out[256];
    for (size_t room = 0; room < 200; room++) {
        fill_bytes(page, sizeof(page), RANDOM, room + 1);
        memset(copy, 0, sizeof(copy));
        memset(out, 0xa5, sizeof(out));
        cr_assert_eq(delta_encode(page, copy, out, room), 0);
        for (size_t i = room; i < sizeof(out); i++)
            cr_assert_eq(out[i], 0xa5);
    }
}

ParameterizedTestParameters(delta, what_is_no_page_is_refused)
{
    static struct change heads[] = {
        {0, 0, 4},    /* a record of nothing: it would never end */
        {513, 0, 4},  /* more than a page */
        {512, 1, 12}, /* likewise, and words beyond it */
        {65535, 65535, 4096},
        {0, 512, 4}, /* words that are not there */
        {511, 0, 4}, /* the page does not end */
    };
    return cr_make_param_array(struct change, heads, sizeof(heads) / sizeof(heads[0]));
}

ParameterizedTest(struct change *head, delta, what_is_no_page_is_refused)
{
    struct {
        uint8_t page[4096], guard[4096];
    } target = {0};
    uint8_t in[4096 + 8] = {(uint8_t)head->first, (uint8_t)(head->first >> 8), (uint8_t)head->step,
                            (uint8_t)(head->step >> 8)};
    memset(in + 4, 0xff, sizeof(in) - 4);
    cr_assert_eq(delta_decode(in, head->count, target.page), 0);
    for (unsigned i = 0; i < sizeof(target.guard); i++)
        cr_assert_eq(target.guard[i], 0);
}
