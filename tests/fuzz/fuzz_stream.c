/*
 * fuzz_stream.c: the migration stream against hostile bytes. The first byte says what they are:
 * a hello, a reply, a frame of the control connection, a whole page connection, which a real
 * receiver thread reads from a socket into RAM of 64 pages, or the encoding of one frame.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node-agent/migration/event.h"
#include "node-agent/migration/page_receiver.h"
#include "tests/fuzz/fuzz.h"

#define RAM_PAGES 64u

static void fuzz_hello(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct hello hello;
    uint8_t bytes[STREAM_HELLO_BYTES] = {0};
    memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
    if (stream_get_hello(bytes, &hello, &err) == 0 &&
        (strlen(hello.vm_id) >= STREAM_ID_BYTES || hello.index > hello.streams))
        abort();
}

static void fuzz_reply(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct hello_reply reply;
    uint8_t bytes[STREAM_REPLY_BYTES] = {0};
    memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
    if (stream_get_reply(bytes, &reply, &err) == 0 && strlen(reply.text) > STREAM_TEXT_MAX)
        abort();
}

/* Feeds a plain control connection as the poll loop does. */
static void fuzz_control(const uint8_t *data, size_t size, enum stream_path path)
{
    struct error err = ERROR_INIT;
    struct channel channel;
    struct frame frame;
    const uint8_t *payload;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return;
    if (size > 65536)
        size = 65536; /* what a socket takes with nobody reading */
    ssize_t done = send(pair[0], data, size, MSG_DONTWAIT);
    (void)done;
    close(pair[0]);
    if (channel_open(&channel, pair[1], -1, &err) < 0)
        return;
    while (channel_fill(&channel, &err) > 0)
        while (channel_next(&channel, path, &frame, &payload, &err) > 0)
            if (frame.length > STREAM_PAYLOAD_MAX)
                abort();
    channel_close(&channel);
}

static void fuzz_pages(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct page_receiver receiver;
    struct migration_guest guest = {.pagemap_fd = -1, .uffd = -1, .ram_bytes = RAM_PAGES * 4096};
    struct demand demand;
    int pair[2], stop_fd = event_new(&err), wake_fd = event_new(&err);
    guest.ram =
        mmap(NULL, guest.ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ||
        page_receiver_init(&receiver, &guest, stop_fd, wake_fd, &err) < 0 ||
        channel_open(&receiver.inlets[0].channel, pair[1], stop_fd, &err) < 0)
        abort();
    demand_init(&demand, &guest, wake_fd);
    receiver.demand = &demand;
    receiver.count = 1;
    if (page_receiver_start(&receiver, &err) < 0)
        abort();
    while (size > 0) { /* fails once the receiver has seen enough */
        ssize_t done = send(pair[0], data, size, MSG_NOSIGNAL);
        if (done <= 0)
            break;
        data += done;
        size -= (size_t)done;
        if (page_receiver_round(&receiver, &err) < 0)
            break;
    }
    shutdown(pair[0], SHUT_WR);
    /* Raised at each end of a round, and when the thread ends. */
    (void)channel_wait(wake_fd, POLLIN, -1, 0, &err);
    event_raise(stop_fd);
    page_receiver_stop(&receiver);
    demand_destroy(&demand);
    close(pair[0]);
    close(stop_fd);
    close(wake_fd);
    munmap(guest.ram, guest.ram_bytes);
}

/* The codec, a run of up to 8 pages, perhaps a second one, and what they are encoded to: in rooms
 * of just that size, so that a byte beside them is seen. */
static void fuzz_codec(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    if (size < 2)
        return;
    struct run runs[2] = {{.first = 0, .count = data[1] % 8 + 1u}};
    runs[1] = (struct run){.first = runs[0].count, .count = data[1] / 16 + 1u};
    struct frame frame = {
        .type = FRAME_PAGES, .codec = data[0] % CODECS, .runs = data[1] % 16 < 8 ? 1 : 2};
    uint64_t pages = runs[0].count + (frame.runs > 1 ? runs[1].count : 0);
    data += 2;
    size -= 2;
    uint8_t *ram = calloc(pages, STREAM_PAGE_BYTES), *in = malloc(size ? size : 1);
    struct codec_memory *memory = codec_memory_new(&err);
    if (!ram || !in || !memory)
        abort();
    memcpy(in, data, size);
    bool refused = codec_decode(memory, &frame, in, size, runs, pages, ram, &err) < 0;
    if (refused != (err.kind != ERROR_NONE))
        abort();
    codec_memory_free(memory);
    free(ram);
    free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 6) {
    case 0:
        fuzz_hello(data + 1, size - 1);
        break;
    case 1:
        fuzz_reply(data + 1, size - 1);
        break;
    case 2:
        fuzz_control(data + 1, size - 1, PATH_TO_TARGET);
        break;
    case 3:
        fuzz_control(data + 1, size - 1, PATH_TO_SOURCE);
        break;
    case 4:
        fuzz_pages(data + 1, size - 1);
        break;
    default:
        fuzz_codec(data + 1, size - 1);
        break;
    }
    return 0;
}
