/* The small parts: zero pages, holes, bitmaps, hashes, the pacer, seals, the stream's codec. */
#include <criterion/criterion.h>
#include <string.h>

#include "fake_guest.h"
#include "node-agent/migration/memory_hash.h"
#include "node-agent/migration/pacer.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/seal.h"
#include "node-agent/migration/stream.h"

Test(pages, one_bit_anywhere_is_not_zero)
{
    static _Alignas(4096) uint8_t page[4096];
    cr_assert(page_is_zero(page));
    for (unsigned i = 0; i < 4096; i++) {
        page[i] = 1;
        cr_assert(!page_is_zero(page), "byte %u", i);
        page[i] = 0;
    }
}

Test(pages, holes_are_jumped_over_and_not_filled)
{
    struct fake_guest *fake = fake_guest_new(16, false);
    fake->guest.ram[100 * 4096] = 1;
    fake->guest.ram[4000 * 4096] = 1;
    cr_assert_eq(page_next_data(&fake->guest, 0, 4096), 100);
    cr_assert_eq(page_next_data(&fake->guest, 100, 4096), 100);
    cr_assert_eq(page_next_data(&fake->guest, 101, 4096), 4000);
    cr_assert_eq(page_next_data(&fake->guest, 101, 3000), 3000);
    cr_assert_eq(page_next_data(&fake->guest, 4001, 4096), 4096);
    cr_assert_eq(page_next_data(&fake->guest, 4096, 4096), 4096);
    fake_guest_free(fake);
    fake = fake_guest_new(16, true);
    cr_assert_eq(page_next_data(&fake->guest, 17, 4096), 17,
                 "where holes are not known all is data");
    fake_guest_free(fake);
}

Test(pages, a_bitmap_ends_with_ram)
{
    uint64_t bitmap[2];
    bitmap_fill(bitmap, 70);
    cr_assert_eq(bitmap[1], 0x3f);
    cr_assert_eq(bitmap_count(bitmap, 70), 70);
    cr_assert(bitmap_test(bitmap, 69));
}

Test(hash, is_of_the_contents_alone)
{
    struct fake_guest *a = fake_guest_new(16, false), *b = fake_guest_new(16, true);
    uint8_t one[MEMORY_HASH_BYTES], two[MEMORY_HASH_BYTES];
    struct error err = ERROR_INIT;
    fake_guest_fill(a, 3000);
    fake_guest_fill(b, 3000);
    cr_assert_eq(memory_hash_ram(&a->guest, 1, one, &err), 0);
    cr_assert_eq(memory_hash_ram(&b->guest, 3, two, &err), 0);
    cr_assert_eq(memcmp(one, two, sizeof(one)), 0);
    /* A hole and a page of zeros are the same; the same page elsewhere is not. */
    a->guest.ram[4095 * 4096ull] = 0;
    cr_assert_eq(memory_hash_ram(&a->guest, 2, one, &err), 0);
    cr_assert_eq(memcmp(one, two, sizeof(one)), 0);
    a->guest.ram[4095 * 4096ull + 17] = 1;
    b->guest.ram[4094 * 4096ull + 17] = 1;
    cr_assert_eq(memory_hash_ram(&a->guest, 2, one, &err), 0);
    cr_assert_eq(memory_hash_ram(&b->guest, 2, two, &err), 0);
    cr_assert_neq(memcmp(one, two, sizeof(one)), 0);
    fake_guest_free(a);
    fake_guest_free(b);
}

Test(pacer, holds_the_rate)
{
    struct pacer pacer;
    pacer_init(&pacer, 8000000); /* 1 MB/s */
    int64_t now_ns = 1000000000, begin_ns = now_ns;
    for (unsigned i = 0; i < 100; i++)
        now_ns += pacer_take(&pacer, 10000, now_ns);
    /* 99 of the 100 pieces of 10 ms are over, less the burst */
    cr_assert_geq(now_ns - begin_ns, 970000000);
    cr_assert_leq(now_ns - begin_ns, 1000000000);
    now_ns += 5000000000; /* a long silence gives no more than the burst */
    cr_assert_eq(pacer_take(&pacer, 30000, now_ns), 0);
    cr_assert_eq(pacer_take(&pacer, 1, now_ns), 20000000);
    pacer_destroy(&pacer);
    pacer_init(&pacer, 0);
    cr_assert_eq(pacer_take(&pacer, 1ull << 40, now_ns), 0);
    pacer_destroy(&pacer);
}

/* ---------------------------------------------------------------- seals */

static void make_ready(void)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(seal_ready(&err), 0, "%s", err.text);
}

static struct seal *make_seal(unsigned index, enum seal_direction direction, enum seal_use use)
{
    uint8_t key[SEAL_KEY_BYTES] = {1}, source[STREAM_NONCE_BYTES] = {2},
            target[STREAM_NONCE_BYTES] = {3};
    struct error err = ERROR_INIT;
    struct seal *seal = seal_new(key, source, target, index, direction, use, &err);
    cr_assert(seal, "%s", err.text);
    return seal;
}

static void close_frame(struct seal *seal, const uint8_t header[16], const char text[8],
                        uint8_t out[8], uint8_t tag[16])
{
    struct error err = ERROR_INIT;
    seal_begin(seal, header);
    seal_update(seal, text, 8, out);
    cr_assert_eq(seal_end(seal, tag, &err), 0, "%s", err.text);
}

static int open_frame(struct seal *seal, const uint8_t header[16], const uint8_t in[8],
                      const uint8_t tag[16], char text[8])
{
    struct error err = ERROR_INIT;
    seal_begin(seal, header);
    seal_update(seal, in, 8, text);
    return seal_open_end(seal, tag, &err);
}

TestSuite(seal, .init = make_ready);

/* How the payload is cut into pieces of whole blocks is not part of the format. */
Test(seal, pieces_of_whole_blocks_make_the_same_frame)
{
    enum { BYTES = 10008 }; /* ends with half a block */
    static const size_t cuts[] = {16, 48, 4096, 9008, BYTES};
    struct error err = ERROR_INIT;
    uint8_t header[16] = {7}, tag[16], whole_tag[16];
    uint8_t *text = malloc(BYTES), *whole = malloc(BYTES), *out = malloc(BYTES);
    cr_assert(text && whole && out);
    for (size_t i = 0; i < BYTES; i++)
        text[i] = (uint8_t)(i * 31);
    struct seal *seal = make_seal(1, SEAL_TO_TARGET, SEAL_ENCRYPT);
    seal_begin(seal, header);
    seal_update(seal, text, BYTES, whole);
    cr_assert_eq(seal_end(seal, whole_tag, &err), 0, "%s", err.text);
    seal_free(seal);
    for (size_t c = 0; c < sizeof(cuts) / sizeof(cuts[0]); c++) {
        seal = make_seal(1, SEAL_TO_TARGET, SEAL_ENCRYPT);
        seal_begin(seal, header);
        for (size_t at = 0, size; at < BYTES; at += size) {
            size = BYTES - at < cuts[c] ? BYTES - at : cuts[c];
            seal_update(seal, text + at, size, out + at);
        }
        cr_assert_eq(seal_end(seal, tag, &err), 0, "%s", err.text);
        seal_free(seal);
        cr_assert_eq(memcmp(out, whole, BYTES), 0, "pieces of %zu", cuts[c]);
        cr_assert_eq(memcmp(tag, whole_tag, sizeof(tag)), 0, "pieces of %zu", cuts[c]);
        struct seal *open = make_seal(1, SEAL_TO_TARGET, SEAL_DECRYPT);
        seal_begin(open, header);
        seal_update(open, out, 32, out);
        seal_update(open, out + 32, BYTES - 32, out + 32);
        cr_assert_eq(seal_open_end(open, tag, &err), 0, "%s", err.text);
        cr_assert_eq(memcmp(out, text, BYTES), 0);
        seal_free(open);
    }
    free(text);
    free(whole);
    free(out);
}

/* A frame that is whole blocks, and one of no payload at all. */
Test(seal, what_ends_with_a_block_opens_and_is_watched_over)
{
    static const size_t sizes[] = {0, 16, 4096};
    struct error err = ERROR_INIT;
    uint8_t header[16] = {7}, text[4096] = {5}, out[4096], tag[16];
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct seal *seal = make_seal(1, SEAL_TO_TARGET, SEAL_ENCRYPT);
        struct seal *open = make_seal(1, SEAL_TO_TARGET, SEAL_DECRYPT);
        for (int spoilt = 0; spoilt < 2; spoilt++) {
            seal_begin(seal, header);
            seal_update(seal, text, sizes[i], out);
            cr_assert_eq(seal_end(seal, tag, &err), 0, "%s", err.text);
            if (spoilt)
                *(sizes[i] ? &out[sizes[i] - 1] : &tag[3]) ^= 1;
            seal_begin(open, header);
            seal_update(open, out, sizes[i], out);
            cr_assert_eq(seal_open_end(open, tag, &err), spoilt ? -1 : 0, "%zu bytes", sizes[i]);
        }
        seal_free(seal);
        seal_free(open);
    }
}

Test(seal, a_piece_of_half_a_block_before_another_is_told)
{
    struct error err = ERROR_INIT;
    uint8_t header[16] = {7}, text[64] = {5}, out[64], tag[16];
    struct seal *seal = make_seal(1, SEAL_TO_TARGET, SEAL_ENCRYPT);
    seal_begin(seal, header);
    seal_update(seal, text, 8, out);
    seal_update(seal, text, 16, out + 8);
    cr_assert_eq(seal_end(seal, tag, &err), -1);
    seal_free(seal);
}

Test(seal, opens_what_was_sealed_in_order_and_nothing_else)
{
    struct seal *seal = make_seal(1, SEAL_TO_TARGET, SEAL_ENCRYPT);
    struct seal *open = make_seal(1, SEAL_TO_TARGET, SEAL_DECRYPT);
    uint8_t header[16] = {9}, first[8], second[8], tag1[16], tag2[16];
    char text[8];
    close_frame(seal, header, "one    ", first, tag1);
    close_frame(seal, header, "two    ", second, tag2);
    cr_assert_eq(open_frame(open, header, first, tag1, text), 0);
    cr_assert_str_eq(text, "one    ");
    cr_assert_eq(open_frame(open, header, first, tag1, text), -1, "repeated");
    seal_free(open);
    open = make_seal(1, SEAL_TO_TARGET, SEAL_DECRYPT);
    cr_assert_eq(open_frame(open, header, second, tag2, text), -1, "out of order");
    seal_free(open);
    open = make_seal(1, SEAL_TO_TARGET, SEAL_DECRYPT);
    header[0] = 8;
    cr_assert_eq(open_frame(open, header, first, tag1, text), -1, "another header");
    header[0] = 9;
    seal_free(open);
    open = make_seal(2, SEAL_TO_TARGET, SEAL_DECRYPT);
    cr_assert_eq(open_frame(open, header, first, tag1, text), -1, "another stream");
    seal_free(open);
    open = make_seal(1, SEAL_TO_SOURCE, SEAL_DECRYPT);
    cr_assert_eq(open_frame(open, header, first, tag1, text), -1, "the other direction");
    seal_free(open);
    seal_free(seal);
}

/* ---------------------------------------------------------------- codec */

Test(stream, frames_and_hellos_survive_the_wire)
{
    uint8_t bytes[STREAM_REPLY_BYTES];
    struct error err = ERROR_INIT;
    struct frame frame = {.type = FRAME_PAGES, .runs = 3, .length = 32 + 5 * 4096, .argument = 7};
    struct frame back;
    stream_put_frame(bytes, &frame);
    cr_assert_eq(stream_get_frame(bytes, PATH_PAGES, &back, &err), 0);
    cr_assert_eq(memcmp(&frame, &back, sizeof(frame)), 0);
    struct hello hello = {.version = 1,
                          .index = 2,
                          .streams = 4,
                          .encrypted = true,
                          .verify = true,
                          .ram_bytes = 1ull << 40,
                          .next_epoch = 77,
                          .migration_id = "m",
                          .vm_id = "v"};
    struct hello hello_back;
    stream_put_hello(bytes, &hello);
    cr_assert_eq(stream_get_hello(bytes, &hello_back, &err), 0);
    cr_assert_eq(hello_back.next_epoch, 77);
    cr_assert(hello_back.encrypted && hello_back.verify);
    cr_assert_str_eq(hello_back.vm_id, "v");
    memset(bytes + 96, 'x', 64); /* a VM id without an end */
    cr_assert_eq(stream_get_hello(bytes, &hello_back, &err), -1);
}

Test(stream, runs_survive_the_wire)
{
    uint8_t table[2 * STREAM_RUN_BYTES];
    struct error err = ERROR_INIT;
    struct run runs[2];
    uint64_t pages;
    struct frame frame = {.type = FRAME_ZEROS, .runs = 2, .length = sizeof(table)};
    stream_put_run(table, (struct run){.first = 5, .count = 65536});
    stream_put_run(table + 8, (struct run){.first = 99999, .count = 1});
    cr_assert_eq(stream_get_runs(table, &frame, 100000, runs, &pages, &err), 0);
    cr_assert_eq(pages, 65537);
    cr_assert_eq(runs[0].count, 65536);
    cr_assert_eq(runs[1].first, 99999);
    cr_assert_eq(stream_get_runs(table, &frame, 99999, runs, &pages, &err), -1);
    frame.runs = 1; /* the second is where zeros belong */
    cr_assert_eq(stream_get_runs(table, &frame, 100000, runs, &pages, &err), -1);
    stream_put_runs(table, runs, 1);
    cr_assert_eq(stream_get_runs(table, &frame, 100000, runs, &pages, &err), 0, "%s", err.text);
    cr_assert_eq(pages, 65536);
}
