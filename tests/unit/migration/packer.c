/* Frames as a source packs them, unpacked as a target does: RAM is equal after each round. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "node-agent/migration/page_packer.h"
#include "node-agent/migration/pages.h"

#define PAGES 1024u
#define BYTES (PAGES * 4096u)

struct bench {
    struct packer *packer;
    struct codec_meter meter;
    struct page_cache *cache;
    struct codec_memory *memory;
    uint8_t *from, *to;
    uint64_t bitmap[PAGES / 64];
    uint64_t send_ps, wait_ps; /* what sending takes per byte, as the packer is told */
    uint64_t pages[CODECS], bytes, copied;
};

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static uint8_t *map(void)
{
    void *ram = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(ram, MAP_FAILED);
    return ram;
}

static void make_bench(struct bench *bench, enum migration_compress compress, uint64_t cache_pages)
{
    struct error err = ERROR_INIT;
    *bench = (struct bench){.from = map(), .to = map(), .send_ps = 300};
    codec_meter_init(&bench->meter);
    codec_meter_order(&bench->meter, compress, 1);
    struct packer_options options = {.ram = bench->from,
                                     .compress = compress,
                                     .meter = &bench->meter,
                                     .plain_pages = STREAM_FRAME_PAGES_MAX};
    bench->packer = packer_new(&options, &err);
    bench->memory = codec_memory_new(&err);
    if (cache_pages)
        bench->cache = page_cache_new(BYTES, cache_pages * 4096, &err);
    cr_assert(bench->packer && bench->memory && (bench->cache || !cache_pages), "%s", err.text);
}

static void free_bench(struct bench *bench)
{
    packer_free(bench->packer);
    codec_meter_destroy(&bench->meter);
    page_cache_free(bench->cache);
    codec_memory_free(bench->memory);
    munmap(bench->from, BYTES);
    munmap(bench->to, BYTES);
}

/* What the target does with a frame, by way of the bytes on the wire. */
static void take(struct bench *bench, const struct packed *packed)
{
    struct error err = ERROR_INIT;
    uint8_t table[STREAM_RUNS_MAX * STREAM_RUN_BYTES], header[STREAM_HEADER_BYTES];
    struct run runs[STREAM_RUNS_MAX];
    uint64_t pages;
    size_t length = stream_table_bytes(packed->runs_count) + packed->body_bytes;
    struct frame frame = {.type = FRAME_PAGES,
                          .codec = (uint8_t)packed->codec,
                          .runs = (uint16_t)packed->runs_count,
                          .length = (uint32_t)length};
    stream_put_runs(table, packed->runs, packed->runs_count);
    stream_put_frame(header, &frame);
    cr_assert_eq(stream_get_frame(header, PATH_PAGES, &frame, &err), 0, "%s", err.text);
    cr_assert_eq(stream_get_runs(table, &frame, PAGES, runs, &pages, &err), 0, "%s", err.text);
    cr_assert_eq(pages, packed->pages);
    const uint8_t *body = packed->body;
    if (packed->codec != CODEC_NONE)
        cr_assert_eq(codec_decode(bench->memory, &frame, body, packed->body_bytes, runs, pages,
                                  bench->to, &err),
                     0, "%s", err.text);
    for (unsigned i = 0; packed->codec == CODEC_NONE && i < frame.runs; i++) {
        size_t at = runs[i].first * 4096, size = runs[i].count * 4096;
        memcpy(bench->to + at, body ? body : bench->from + at, size);
        body = body ? body + size : NULL;
    }
    bench->copied += packed->codec == CODEC_NONE && packed->body ? pages : 0;
    bench->pages[packed->codec] += pages;
    bench->bytes += length;
    uint64_t send_ns = length * (bench->send_ps + bench->wait_ps) / 1000;
    packer_note_sent(bench->packer, send_ns, length * bench->wait_ps / 1000, length);
}

static void touch(struct bench *bench, uint64_t page)
{
    bench->bitmap[page / 64] |= 1ull << page % 64;
}

static void move_round(struct bench *bench, bool calm)
{
    struct page_cache *cache = bench->cache;
    const struct packed *packed;
    memset(bench->pages, 0, sizeof(bench->pages));
    bench->bytes = bench->copied = 0;
    if (cache && !page_cache_begin_round(cache, bench->bitmap, !calm))
        cache = NULL;
    packer_begin_round(bench->packer, cache, calm);
    for (uint64_t page = 0; page < PAGES; page++) {
        if (!bitmap_test(bench->bitmap, page))
            continue;
        if (page_is_zero(bench->from + page * 4096)) {
            packer_note_zeros(bench->packer, page);
            memset(bench->to + page * 4096, 0, 4096);
        } else if ((packed = packer_add(bench->packer, page))) {
            take(bench, packed);
        }
    }
    while ((packed = packer_flush(bench->packer)))
        take(bench, packed);
    memset(bench->bitmap, 0, sizeof(bench->bitmap));
    cr_assert_eq(memcmp(bench->from, bench->to, BYTES), 0, "RAM differs");
}

static void fill_random(struct bench *bench, uint64_t first, uint64_t count, uint64_t seed)
{
    uint64_t x = seed + 88172645463325252ull;
    for (uint64_t page = first; page < first + count; page++) {
        for (unsigned i = 0; i < 512; i++)
            ((uint64_t *)bench->from)[page * 512 + i] = next_random(&x);
        touch(bench, page);
    }
}

static void fill_text(struct bench *bench, uint64_t seed)
{
    static const char *const words[] = {"migrate ", "the pool", " of page", "s sent  "};
    uint64_t x = seed + 88172645463325252ull;
    for (uint64_t i = 0; i < BYTES; i += 8)
        memcpy(bench->from + i, words[next_random(&x) % 4], 8);
    memset(bench->bitmap, 0xff, sizeof(bench->bitmap));
}

ParameterizedTestParameters(packer, ram_is_equal_after_each_round)
{
    static enum migration_compress modes[] = {MIGRATION_COMPRESS_AUTO, MIGRATION_COMPRESS_OFF,
                                              MIGRATION_COMPRESS_LZ4, MIGRATION_COMPRESS_ZSTD};
    return cr_make_param_array(enum migration_compress, modes, 4);
}

/* Pages change in every way there is, for many rounds, with a cache that is too small. */
ParameterizedTest(enum migration_compress *mode, packer, ram_is_equal_after_each_round)
{
    struct bench bench;
    uint64_t x = 99;
    make_bench(&bench, *mode, *mode == MIGRATION_COMPRESS_OFF ? 0 : 300);
    bench.wait_ps = 8000;
    fill_text(&bench, 1);
    move_round(&bench, true);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 600; i++) {
            uint64_t page = next_random(&x) % (round % 20 < 10 ? PAGES : 400);
            uint8_t *at = bench.from + page * 4096;
            switch (next_random(&x) % 8) {
            case 0:
                memset(at, 0, 4096);
                break;
            case 1:
                memset(at, (int)(x >> 8 & 3), 4096);
                break;
            case 2:
                fill_random(&bench, page, 1, x);
                break;
            default:
                memcpy(at + (x >> 8) % 500 * 8, &x, 8);
                break;
            }
            touch(&bench, page);
        }
        move_round(&bench, round % 7 != 6);
    }
    free_bench(&bench);
}

Test(packer, what_is_sent_as_it_is_is_not_copied)
{
    struct bench bench;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, 0);
    for (unsigned round = 0; round < 20; round++) {
        fill_random(&bench, 0, PAGES, round);
        move_round(&bench, true);
        cr_assert_eq(bench.pages[CODEC_NONE], PAGES);
        cr_assert_eq(bench.copied, 0);
    }
    free_bench(&bench);
}

/* Rounds of new contents until a whole one is compressed, or none of it, as is wanted. How many it
 * takes depends on how busy this machine is. */
static bool settles(struct bench *bench, void (*fill)(struct bench *bench, uint64_t seed),
                    uint64_t plain_pages)
{
    for (unsigned round = 0; round < 200; round++) {
        fill(bench, round);
        move_round(bench, true);
        if (bench->pages[CODEC_NONE] == plain_pages && bench->copied == 0)
            return true;
    }
    return false;
}

static void fill_noise(struct bench *bench, uint64_t seed)
{
    fill_random(bench, 0, PAGES, seed);
}

Test(packer, a_slow_link_makes_it_compress_text_and_not_noise)
{
    struct bench bench;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, 0);
    bench.wait_ps = 80000; /* 100 Mbit/s */
    cr_assert(settles(&bench, fill_text, 0));
    cr_assert_lt(bench.bytes, BYTES / 2);
    cr_assert(settles(&bench, fill_noise, PAGES), "it goes on trying");
    cr_assert(settles(&bench, fill_text, 0), "it does not begin again");
    free_bench(&bench);
}

Test(packer, pages_of_one_word_cost_next_to_nothing)
{
    struct bench bench;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, 0);
    for (uint64_t page = 0; page < PAGES; page++)
        memset(bench.from + page * 4096, page < 1000 ? 0xcc : (int)page | 1, 4096);
    memset(bench.bitmap, 0xff, sizeof(bench.bitmap));
    move_round(&bench, true);
    cr_assert_eq(bench.pages[CODEC_FILL], PAGES);
    cr_assert_lt(bench.bytes, 1000);
    free_bench(&bench);
}

Test(packer, pages_written_again_are_sent_as_what_changed)
{
    struct bench bench;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, 512);
    fill_random(&bench, 0, PAGES, 1);
    move_round(&bench, true);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t page = 0; page < 512; page++) {
            bench.from[page * 4096]++;
            touch(&bench, page);
        }
        move_round(&bench, round < 2);
        cr_assert_eq(bench.pages[CODEC_DELTA], 512);
        cr_assert_lt(bench.bytes, 512 * 20);
    }
    free_bench(&bench);
}

/* The working set moves to other pages: the copies of the old ones make room. */
Test(packer, copies_follow_the_working_set)
{
    struct bench bench;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, 128);
    fill_random(&bench, 0, PAGES, 1);
    for (unsigned round = 0; round < 12; round++) {
        move_round(&bench, true);
        for (uint64_t page = 0; page < 128; page++) {
            uint64_t at = page + (round < 5 ? 0 : 600);
            bench.from[at * 4096 + 8]++;
            touch(&bench, at);
        }
    }
    move_round(&bench, true);
    cr_assert_eq(bench.pages[CODEC_DELTA], 128);
    free_bench(&bench);
}

/* Pages that change entirely are not worth a copy. */
Test(packer, copies_that_do_not_help_are_given_up)
{
    struct bench bench;
    unsigned copied = 0;
    make_bench(&bench, MIGRATION_COMPRESS_AUTO, PAGES);
    for (unsigned round = 0; round < 16; round++) {
        fill_random(&bench, 0, PAGES, round * 1000);
        move_round(&bench, true);
        cr_assert_eq(bench.pages[CODEC_DELTA], 0);
        copied += bench.copied > 0;
    }
    cr_assert_leq(copied, 8, "copied in %u rounds of 16", copied);
    free_bench(&bench);
}
