/* Strangers, wrong keys, spoiled and forged streams: refused, and the guest never runs. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <endian.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/migration/codec.h"
#include "node-agent/migration/seal.h"
#include "node-agent/migration/stream.h"
#include "rig.h"

/* ---------------------------------------------------------------- disagreement */

static void expect_refusal(struct rig *rig, const char *words)
{
    rig_start(rig);
    cr_assert_eq(rig_wait(rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert(strstr(rig->end.text, words), "%s", rig->end.text);
    cr_assert(!rig->from->logging && !rig->to->running);
    rig_free(rig);
}

Test(hostile, a_wrong_key_is_dropped_without_an_answer)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.key[31] ^= 1;
    expect_refusal(&rig, "is the key right?");
}

Test(hostile, another_vm_is_refused)
{
    struct rig rig;
    rig_make(&rig);
    rig.to->guest.vm_id[0] = 'x';
    expect_refusal(&rig, "another VM");
}

Test(hostile, another_migration_is_refused)
{
    struct rig rig;
    rig_make(&rig);
    rig.in.migration_id[0] = 'x';
    expect_refusal(&rig, "another migration");
}

Test(hostile, another_epoch_is_refused)
{
    struct rig rig;
    rig_make(&rig);
    rig.in.next_epoch = 6;
    expect_refusal(&rig, "epoch");
}

Test(hostile, another_memory_size_is_refused)
{
    struct rig rig;
    rig_make(&rig);
    fake_guest_free(rig.to);
    rig.to = fake_guest_new(8, false);
    expect_refusal(&rig, "memory size");
}

Test(hostile, a_source_that_does_not_encrypt_is_refused)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.unencrypted = true;
    expect_refusal(&rig, "encryption");
}

Test(hostile, too_many_streams_are_refused)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.streams = 3;
    expect_refusal(&rig, "too many streams");
}

/* ---------------------------------------------------------------- spoiled on the way */

struct spoil {
    unsigned connection;
    uint64_t offset;
};

ParameterizedTestParameters(hostile, one_flipped_bit_fails_the_migration)
{
    static struct spoil spoils[] = {
        {0, 100},                           /* hello */
        {0, 240 + 3},                       /* the state's first header */
        {0, 240 + 16 + 8 + 16 + 16 + 5000}, /* the state itself */
        {1, 240},                           /* type of the first frame */
        {1, 240 + 2},                       /* its runs */
        {1, 240 + 6},                       /* its length */
        {1, 240 + 9},                       /* its argument */
        {1, 240 + 20},                      /* its run table */
        {1, 240 + 70000},                   /* a page */
        {1, 1000000},                       /* some later frame */
    };
    return cr_make_param_array(struct spoil, spoils, sizeof(spoils) / sizeof(spoils[0]));
}

ParameterizedTest(struct spoil *spoil, hostile, one_flipped_bit_fails_the_migration)
{
    struct rig rig;
    rig_make(&rig);
    rig.out.limits.streams = 1; /* so that it surely carries as much */
    rig_add_proxy(&rig);
    rig_spoil(&rig, spoil->connection, spoil->offset);
    rig_start(&rig);
    cr_assert_eq(rig_wait(&rig), MIGRATION_OUTCOME_SOURCE_RUNS);
    cr_assert(!rig.from->gave_up && !atomic_load(&rig.from->stopped));
    cr_assert(!rig.to->running);
    cr_assert_eq(atomic_load(&rig.to->events[FAKE_RUN]), 0);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- strangers */

static int connect_stranger(const struct rig *rig)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(rig->port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

Test(hostile, strangers_do_not_disturb)
{
    struct rig rig;
    rig_make(&rig);
    rig_start_target(&rig);
    int strangers[40];
    uint8_t garbage[STREAM_HELLO_BYTES], answer[16];
    memset(garbage, 'G', sizeof(garbage));
    for (unsigned i = 0; i < 40; i++) {
        strangers[i] = connect_stranger(&rig);
        (void)!write(strangers[i], garbage, i % 2 ? sizeof(garbage) : 3);
    }
    cr_assert_leq(read(strangers[1], answer, sizeof(answer)), 0, "strangers get no answer");
    for (unsigned i = 0; i < 40; i++)
        close(strangers[i]);
    rig_start_source(&rig);
    rig_wait(&rig);
    rig_assert_moved(&rig);
    rig_free(&rig);
}

/* ---------------------------------------------------------------- a source that knows the key */

struct forger {
    struct rig rig;
    int control, pages;
};

static int forge_hello(struct rig *rig, unsigned index)
{
    uint8_t out[STREAM_HELLO_BYTES], in[STREAM_REPLY_BYTES];
    struct error err = ERROR_INIT;
    struct hello hello = {.version = STREAM_VERSION,
                          .index = (uint16_t)index,
                          .streams = 1,
                          .ram_bytes = rig->to->guest.ram_bytes,
                          .next_epoch = 5,
                          .postcopy = rig->to->guest.uffd >= 0,
                          .migration_id = "m-1"};
    strcpy(hello.vm_id, rig->to->guest.vm_id);
    stream_put_hello(out, &hello);
    size_t signed_bytes = STREAM_HELLO_BYTES - STREAM_MAC_BYTES;
    cr_assert_eq(seal_mac(rig->in.key, out, signed_bytes, NULL, 0, out + signed_bytes, &err), 0);
    int fd = connect_stranger(rig);
    cr_assert_eq(write(fd, out, sizeof(out)), (ssize_t)sizeof(out));
    cr_assert_eq(recv(fd, in, sizeof(in), MSG_WAITALL), (ssize_t)sizeof(in));
    cr_assert_eq(in[10], 1, "%s", in + 16);
    return fd;
}

static void make_forger(struct forger *forger, bool watched)
{
    rig_make(&forger->rig);
    if (watched)
        fake_guest_watch(forger->rig.to);
    forger->rig.in.limits.unencrypted = true;
    rig_start_target(&forger->rig);
    forger->control = forge_hello(&forger->rig, 0);
    forger->pages = forge_hello(&forger->rig, 1);
}

static void start_forger(struct forger *forger)
{
    make_forger(forger, false);
}

static void forge_frame(int fd, const struct frame *frame, const void *payload, size_t size)
{
    uint8_t header[STREAM_HEADER_BYTES];
    stream_put_frame(header, frame);
    (void)!write(fd, header, sizeof(header));
    if (size)
        (void)!write(fd, payload, size);
}

static void forge(int fd, uint8_t type, uint16_t runs, uint32_t length, uint64_t argument,
                  const void *payload, size_t size)
{
    struct frame frame = {.type = type, .runs = runs, .length = length, .argument = argument};
    forge_frame(fd, &frame, payload, size);
}

static void expect_failed(struct forger *forger)
{
    cr_assert(rig_wait_target(&forger->rig, MIGRATION_TARGET_FAILED));
    cr_assert_eq(atomic_load(&forger->rig.to->events[FAKE_RUN]), 0);
    close(forger->control);
    close(forger->pages);
    rig_free(&forger->rig);
}

struct forgery {
    bool on_control;
    uint8_t type;
    uint16_t runs;
    uint32_t length;
    uint64_t argument;
    uint64_t payload[2];
    size_t size;
};

#define RUN(first, count) ((uint64_t)(first) << 16 | ((count)-1))

ParameterizedTestParameters(hostile, impossible_frames_are_refused)
{
    static struct forgery forgeries[] = {
        /* pages beyond RAM (4096 of them), at its edge, and far away */
        {false, FRAME_PAGES, 1, 16 + 4096, 1, {RUN(4096, 1)}, 16},
        {false, FRAME_PAGES, 1, 16 + 8192, 1, {RUN(4095, 2)}, 16},
        {false, FRAME_ZEROS, 1, 16, 1, {RUN(4095, 2)}, 16},
        {false, FRAME_ZEROS, 1, 16, 1, {RUN(0xffffffffffff, 65536)}, 16},
        /* lengths that lie */
        {false, FRAME_PAGES, 1, 16 + 4096, 1, {RUN(0, 2)}, 16},
        {false, FRAME_PAGES, 1, 0xffffffff, 1, {0}, 0},
        {false, FRAME_PAGES, 0, 4096 + 16, 1, {0}, 0},
        {false, FRAME_PAGES, 257, 258 * 8 + 4096, 1, {0}, 0},
        {false, FRAME_PAGES, 2, 16 + 257 * 4096, 1, {RUN(0, 256), RUN(256, 1)}, 16},
        {false, FRAME_ZEROS, 1, 32, 1, {RUN(0, 1), 0}, 32},
        {false, FRAME_ZEROS, 1, 16, 1, {RUN(0, 1), 1}, 16},
        {false, FRAME_ROUND_END, 0, 0, 2, {0}, 0}, /* round 1 was not ended */
        {false, FRAME_ROUND_END, 0, 1, 1, {0}, 0},
        /* frames on the wrong path, of no known type */
        {false, FRAME_GO, 0, 8, 5, {0}, 8},
        {false, 0, 0, 0, 0, {0}, 0},
        {true, FRAME_PAGES, 1, 16 + 4096, 1, {RUN(0, 1)}, 16},
        {true, 255, 0, 0, 0, {0}, 0},
        {true, FRAME_READY, 0, 24, 0, {0}, 0},
        /* out of order */
        {true, FRAME_GO, 0, 8, 5, {0}, 8},
        {true, FRAME_STATE, 0, 8, 0, {0}, 8},
        {true, FRAME_HASH, 0, 32, 0, {0}, 0},
        {true, FRAME_RETRACT, 0, 0, 7, {0}, 0},
        {true, FRAME_STATE_BEGIN, 0, 8, 100, {0x0000000100000002}, 8}, /* pause 2 before 1 */
        {true, FRAME_STATE_BEGIN, 0, 8, 0, {0x0000000100000001}, 8},
        {true, FRAME_STATE_BEGIN, 0, 8, 1ull << 40, {0x0000000100000001}, 8},
        {true, FRAME_CANCEL, 0, 0, 0, {0}, 0},
    };
    return cr_make_param_array(struct forgery, forgeries, sizeof(forgeries) / sizeof(forgeries[0]));
}

ParameterizedTest(struct forgery *forgery, hostile, impossible_frames_are_refused)
{
    struct forger forger;
    uint8_t payload[64] = {0};
    start_forger(&forger);
    uint64_t words[2] = {htole64(forgery->payload[0]), htole64(forgery->payload[1])};
    memcpy(payload, words, sizeof(words));
    forge(forgery->on_control ? forger.control : forger.pages, forgery->type, forgery->runs,
          forgery->length, forgery->argument, payload,
          forgery->type == FRAME_HASH ? 32 : forgery->size);
    expect_failed(&forger);
}

struct encoding {
    uint8_t type, codec;
    uint16_t runs;
    uint32_t bytes; /* of the encoding */
    uint64_t run;
    uint64_t payload; /* its first 8 bytes */
};

ParameterizedTestParameters(hostile, impossible_encodings_are_refused)
{
    static struct encoding encodings[] = {
        {FRAME_PAGES, CODECS, 1, 4, RUN(0, 1), 0}, /* unknown */
        {FRAME_PAGES, 255, 1, 4, RUN(0, 1), 0},
        {FRAME_ZEROS, CODEC_LZ4, 1, 0, RUN(0, 1), 0}, /* where there is nothing to encode */
        {FRAME_ROUND_END, CODEC_LZ4, 0, 0, 0, 0},
        {FRAME_PAGES, CODEC_LZ4, 1, 0, RUN(0, 1), 0},    /* of nothing */
        {FRAME_PAGES, CODEC_LZ4, 1, 4096, RUN(0, 1), 0}, /* no shorter than its pages */
        {FRAME_PAGES, CODEC_LZ4, 1, 8, RUN(4096, 1), 0}, /* beyond RAM */
        {FRAME_PAGES, CODEC_FILL, 1, 8, RUN(4095, 2), 0},
        {FRAME_PAGES, CODEC_FILL, 1, 8, RUN(0, 257), 0},  /* too many pages */
        {FRAME_PAGES, CODEC_FILL, 1, 4, RUN(0, 1), 0},    /* half a word */
        {FRAME_PAGES, CODEC_FILL, 1, 16, RUN(0, 1), 0},   /* two for one run */
        {FRAME_PAGES, CODEC_DELTA, 1, 8, RUN(0, 1), 512}, /* something after the page */
        {FRAME_PAGES, CODEC_DELTA, 1, 4, RUN(0, 2), 512}, /* a page missing */
        {FRAME_PAGES, CODEC_DELTA, 1, 4, RUN(0, 1), 0},   /* a record of nothing */
        {FRAME_PAGES, CODEC_DELTA, 1, 4, RUN(0, 1), 513}, /* beyond the page */
        {FRAME_PAGES, CODEC_DELTA, 1, 4, RUN(0, 1), 511}, /* not up to its end */
        {FRAME_PAGES, CODEC_LZ4, 1, 8, RUN(0, 1), 0x4141414141414141},
        {FRAME_PAGES, CODEC_ZSTD, 1, 8, RUN(0, 1), 0x4141414141414141},
    };
    return cr_make_param_array(struct encoding, encodings,
                               sizeof(encodings) / sizeof(encodings[0]));
}

ParameterizedTest(struct encoding *encoding, hostile, impossible_encodings_are_refused)
{
    struct forger forger;
    uint8_t payload[16 + 4096] = {0};
    uint64_t words[3] = {htole64(encoding->run), 0, htole64(encoding->payload)};
    memcpy(payload, words, sizeof(words));
    start_forger(&forger);
    struct frame frame = {.type = encoding->type,
                          .codec = encoding->codec,
                          .runs = encoding->runs,
                          .length = stream_table_bytes(encoding->runs) + encoding->bytes,
                          .argument = 1};
    forge_frame(forger.pages, &frame, payload, frame.length);
    expect_failed(&forger);
}

static void forge_state(struct forger *forger, uint32_t attempt, uint32_t round, size_t size)
{
    uint32_t numbers[2] = {htole32(attempt), htole32(round)};
    uint8_t state[4096] = {1};
    forge(forger->control, FRAME_STATE_BEGIN, 0, 8, size, numbers, sizeof(numbers));
    forge(forger->control, FRAME_STATE, 0, (uint32_t)size, 0, state, size);
}

Test(hostile, go_without_all_pages_does_not_run)
{
    struct forger forger;
    uint32_t numbers[2] = {htole32(1), 0};
    start_forger(&forger);
    forge_state(&forger, 1, 1, 100); /* round 1 has not ended */
    forge(forger.control, FRAME_GO, 0, 8, 5, numbers, sizeof(numbers));
    expect_failed(&forger);
}

Test(hostile, go_of_another_pause_or_epoch_does_not_run)
{
    for (unsigned i = 0; i < 2; i++) {
        struct forger forger;
        uint32_t numbers[2] = {htole32(i == 0 ? 2 : 1), 0};
        start_forger(&forger);
        forge(forger.pages, FRAME_ROUND_END, 0, 0, 1, NULL, 0);
        forge_state(&forger, 1, 1, 100);
        cr_assert(rig_wait_target(&forger.rig, MIGRATION_TARGET_READY));
        forge(forger.control, FRAME_GO, 0, 8, i == 0 ? 5 : 6, numbers, sizeof(numbers));
        expect_failed(&forger);
    }
}

Test(hostile, more_state_than_announced_is_refused)
{
    struct forger forger;
    uint32_t numbers[2] = {htole32(1), htole32(1)};
    uint8_t state[200] = {0};
    start_forger(&forger);
    forge(forger.control, FRAME_STATE_BEGIN, 0, 8, 100, numbers, sizeof(numbers));
    forge(forger.control, FRAME_STATE, 0, 200, 0, state, sizeof(state));
    expect_failed(&forger);
}

Test(hostile, a_stream_that_ends_early_fails)
{
    struct forger forger;
    start_forger(&forger);
    forge(forger.pages, FRAME_PAGES, 1, 16 + 4096, 1, NULL, 0);
    shutdown(forger.pages, SHUT_WR);
    expect_failed(&forger);
}

Test(hostile, bytes_that_dribble_in_are_still_a_frame)
{
    struct forger forger;
    uint8_t bytes[STREAM_HEADER_BYTES + 16 + 4096] = {0};
    struct frame frame = {.type = FRAME_PAGES, .runs = 1, .length = 16 + 4096, .argument = 1};
    start_forger(&forger);
    stream_put_frame(bytes, &frame);
    stream_put_run(bytes + STREAM_HEADER_BYTES, (struct run){.first = 9, .count = 1});
    memset(bytes + STREAM_HEADER_BYTES + 16, 'x', 4096);
    for (size_t i = 0; i < sizeof(bytes); i += i < 40 ? 1 : 1000) {
        size_t size = i < 40 ? 1 : sizeof(bytes) - i < 1000 ? sizeof(bytes) - i : 1000;
        cr_assert_eq(write(forger.pages, bytes + i, size), (ssize_t)size);
    }
    forge(forger.pages, FRAME_ROUND_END, 0, 0, 1, NULL, 0);
    forge_state(&forger, 1, 1, 100);
    cr_assert(rig_wait_target(&forger.rig, MIGRATION_TARGET_READY));
    cr_assert_eq(forger.rig.to->guest.ram[9 * 4096 + 4095], 'x');
    forge(forger.control, FRAME_CANCEL, 0, 0, 0, NULL, 0);
    expect_failed(&forger);
}

/* A pause that is taken back once the guest runs would have it run on with zeros for the pages that
 * are lacking. */
Test(hostile, a_pause_cannot_be_taken_back_once_the_guest_runs)
{
    static uint8_t state[100000];
    struct forger forger;
    uint32_t numbers[2] = {htole32(1), htole32(1)};
    uint64_t lacking = htole64(RUN(3, 1));
    make_forger(&forger, true);
    for (size_t i = 0; i < sizeof(state); i++)
        state[i] = (uint8_t)(i * 7 + i / 256); /* as the fake guest wants it */
    forge(forger.pages, FRAME_ROUND_END, 0, 0, 1, NULL, 0);
    forge(forger.control, FRAME_STALE, 0, 8, 0, &lacking, sizeof(lacking));
    forge(forger.control, FRAME_STATE_BEGIN, 0, 8, sizeof(state), numbers, sizeof(numbers));
    forge(forger.control, FRAME_POSTCOPY, 0, 0, 1, NULL, 0);
    forge(forger.control, FRAME_STATE, 0, sizeof(state), 0, state, sizeof(state));
    cr_assert(rig_wait_target(&forger.rig, MIGRATION_TARGET_READY));
    numbers[1] = 0;
    forge(forger.control, FRAME_GO, 0, 8, 5, numbers, sizeof(numbers));
    cr_assert(rig_wait_target(&forger.rig, MIGRATION_TARGET_POSTCOPY));
    forge(forger.control, FRAME_RETRACT, 0, 0, 1, NULL, 0);
    for (unsigned i = 0; i < 500 && !atomic_load(&forger.rig.to->held); i++)
        usleep(10000);
    cr_assert(atomic_load(&forger.rig.to->held), "the guest waits for its page");
    cr_assert(rig_wait_target(&forger.rig, MIGRATION_TARGET_POSTCOPY));
    close(forger.control);
    close(forger.pages);
    rig_free(&forger.rig);
}
