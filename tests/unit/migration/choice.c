/* Which compression is used: the table of situations, and that it stays with its choice. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "node-agent/migration/codec_choice.h"

/* A stream in a world where each thing has its price; times are what it would measure. */
struct world {
    char name[64];                  /* no pointer: parameters go to another process */
    uint64_t link_ps, own_ps;       /* per byte sent */
    uint64_t lz4_ps, zstd_ps;       /* per byte of page, to encode */
    uint32_t lz4_ratio, zstd_ratio; /* per mille */
    enum codec best;
};

#define MIB (1ull << 20)

/* One window of 4 MiB of pages. Encoding and sending overlap with the link carrying what was sent
 * before. */
static enum codec live(const struct world *world, enum codec now, struct choice_memory *memory)
{
    uint64_t ratio = now == CODEC_NONE  ? 1000
                     : now == CODEC_LZ4 ? world->lz4_ratio
                                        : world->zstd_ratio;
    uint64_t encode_ps = now == CODEC_NONE ? 0 : now == CODEC_LZ4 ? world->lz4_ps : world->zstd_ps;
    struct choice_input input = {.now = now,
                                 .page_bytes = 4 * MIB,
                                 .wire_bytes = 4 * MIB * ratio / 1000,
                                 .encode_ns = 4 * MIB * encode_ps / 1000,
                                 .codecs = {[CODEC_LZ4] = {world->lz4_ps, world->lz4_ratio},
                                            [CODEC_ZSTD] = {world->zstd_ps, world->zstd_ratio}}};
    uint64_t own_ns = input.wire_bytes * world->own_ps / 1000;
    uint64_t link_ns = input.wire_bytes * world->link_ps / 1000;
    uint64_t busy_ns = input.encode_ns + own_ns;
    input.waited_ns = link_ns > busy_ns ? link_ns - busy_ns : 0;
    input.send_ns = own_ns + input.waited_ns;
    return codec_choose(&input, memory);
}

ParameterizedTestParameters(choice, the_best_is_found_and_kept)
{
    static struct world worlds[] = {
        {"loopback, random", 350, 300, 400, 700, 1000, 1000, CODEC_NONE},
        {"loopback, text", 350, 300, 1400, 2500, 450, 90, CODEC_NONE},
        {"loopback, encrypted, text", 600, 700, 1400, 2500, 450, 90, CODEC_NONE},
        {"1 Gbit/s by two streams, random", 16000, 300, 400, 700, 1000, 1000, CODEC_NONE},
        {"1 Gbit/s by two streams, text", 16000, 300, 1400, 2500, 450, 90, CODEC_ZSTD},
        {"1 Gbit/s, programs: zstd would do, but is not needed", 8000, 300, 1400, 8000, 500, 400,
         CODEC_LZ4},
        {"10 Gbit/s by two streams, text", 1600, 300, 900, 2500, 450, 90, CODEC_LZ4},
        {"25 Gbit/s by four streams, text", 1280, 300, 1400, 2500, 450, 90, CODEC_NONE},
        {"100 Mbit/s, nearly incompressible", 80000, 300, 1400, 2500, 980, 960, CODEC_NONE},
        {"a slow CPU", 8000, 1000, 9000, 20000, 450, 90, CODEC_NONE},
        {"nearly all the same, a receiver that is slow", 700, 300, 200, 300, 10, 5, CODEC_LZ4},
    };
    return cr_make_param_array(struct world, worlds, sizeof(worlds) / sizeof(worlds[0]));
}

ParameterizedTest(struct world *world, choice, the_best_is_found_and_kept)
{
    for (enum codec first = CODEC_NONE; first <= CODEC_ZSTD; first++) {
        struct choice_memory memory = {0};
        enum codec now = first;
        unsigned changes = 0;
        for (unsigned window = 0; window < 300; window++) {
            enum codec next = live(world, now, &memory);
            changes += next != now;
            now = next;
        }
        cr_assert_eq(now, world->best, "%s: began with %s, ends with %s", world->name,
                     codec_name(first), codec_name(now));
        /* two to find it, and two for each time it looks at the link: twice */
        cr_assert_leq(changes, 6, "%s: %u changes", world->name, changes);
    }
}

Test(choice, nothing_is_used_untried)
{
    struct choice_memory memory = {0};
    struct world world = {"slow", 80000, 300, 0, 0, 0, 0, CODEC_NONE};
    for (unsigned window = 0; window < 10; window++)
        cr_assert_eq(live(&world, CODEC_NONE, &memory), CODEC_NONE);
    world.lz4_ps = 1400;
    world.lz4_ratio = 500;
    cr_assert_eq(live(&world, CODEC_NONE, &memory), CODEC_LZ4);
}

/* A gain within the noise is no reason to change. */
Test(choice, noise_is_no_reason)
{
    struct choice_memory memory = {0};
    struct world world = {"near", 4000, 300, 1400, 2500, 900, 880, CODEC_NONE};
    for (unsigned window = 0; window < 100; window++)
        cr_assert_eq(live(&world, CODEC_NONE, &memory), CODEC_NONE);
}

Test(choice, a_link_that_becomes_slow_or_fast_is_noticed)
{
    struct choice_memory memory = {0};
    struct world fast = {"fast", 350, 300, 1400, 2500, 450, 90, CODEC_NONE}, slow = fast;
    slow.link_ps = 16000;
    enum codec now = CODEC_NONE;
    for (unsigned window = 0; window < 20; window++)
        now = live(&fast, now, &memory);
    cr_assert_eq(now, CODEC_NONE);
    for (unsigned window = 0; window < 20; window++)
        now = live(&slow, now, &memory);
    cr_assert_eq(now, CODEC_ZSTD);
    for (unsigned window = 0; window < 200; window++)
        now = live(&fast, now, &memory);
    cr_assert_eq(now, CODEC_NONE);
}

/* What was worse than predicted when it was used is not tried again at once. */
Test(choice, a_measurement_counts_more_than_a_prediction)
{
    struct choice_memory memory = {0};
    struct choice_input input = {.now = CODEC_NONE,
                                 .page_bytes = MIB,
                                 .wire_bytes = MIB,
                                 .send_ns = 1000000,
                                 .waited_ns = 700000,
                                 .codecs = {[CODEC_LZ4] = {100, 100}}};
    cr_assert_eq(codec_choose(&input, &memory), CODEC_LZ4);
    input.now = CODEC_LZ4; /* the target takes long to decode: three times as slow as before */
    input.wire_bytes = MIB / 10;
    input.encode_ns = 100000;
    input.send_ns = 3000000;
    input.waited_ns = 2900000;
    unsigned used = 0;
    for (unsigned window = 0; window < 40; window++) {
        struct choice_input now = input;
        if (input.now == CODEC_NONE)
            now.wire_bytes = MIB, now.encode_ns = 0, now.send_ns = 1000000, now.waited_ns = 700000;
        input.now = codec_choose(&now, &memory);
        used += input.now == CODEC_LZ4;
    }
    cr_assert_leq(used, 2, "used in %u windows of 40", used);
}

Test(choice, an_empty_window_changes_nothing)
{
    struct choice_memory memory = {0};
    struct choice_input input = {.now = CODEC_ZSTD};
    cr_assert_eq(codec_choose(&input, &memory), CODEC_ZSTD);
}
