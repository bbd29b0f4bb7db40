#include "tests/fuzz/fuzz_link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

const uint8_t link_key[MIGRATION_KEY_BYTES] = "the key of the migration that is";

int input_step(struct input *input, struct input *bytes)
{
    if (input->size < 3)
        return -1;
    int kind = input->data[0] % LINK_STEPS;
    size_t length = (size_t)input->data[1] | (size_t)input->data[2] << 8;
    input->data += 3;
    input->size -= 3;
    if (length > input->size)
        length = input->size;
    *bytes = (struct input){input->data, length};
    input->data += length;
    input->size -= length;
    return kind;
}

void link_make(struct link *link, unsigned flags)
{
    *link = (struct link){.flags = flags, .streams = flags & LINK_TWO_STREAMS ? 2 : 1};
    if (flags & LINK_POSTCOPY)
        link->streams = 2; /* as the engine wants it */
    struct error err = ERROR_INIT;
    if (flags & LINK_SEALED && seal_ready(&err) < 0)
        abort();
    for (unsigned i = 0; i <= LINK_STREAMS_MAX; i++)
        link->fds[i] = -1;
}

void link_free(struct link *link)
{
    for (unsigned i = 0; i <= LINK_STREAMS_MAX; i++) {
        link_cut(link, i);
        seal_free(link->seals[i]);
    }
}

struct migration_limits link_limits(unsigned flags)
{
    bool postcopy = flags & LINK_POSTCOPY;
    return (struct migration_limits){
        .downtime_limit_ms = 100,
        .streams = flags & (LINK_TWO_STREAMS | LINK_POSTCOPY) ? 2 : 1,
        .verify = flags & LINK_VERIFY && !postcopy,
        .unencrypted = !(flags & LINK_SEALED),
        .timeout_ms = 3000,
        .stall_timeout_ms = 1000,
        .compress = MIGRATION_COMPRESS_LZ4,
        .mode = postcopy ? MIGRATION_MODE_POSTCOPY : MIGRATION_MODE_PRECOPY,
    };
}

void link_seal(struct link *link, unsigned index, const uint8_t *source_nonce,
               const uint8_t *target_nonce, enum seal_direction direction)
{
    struct error err = ERROR_INIT;
    if (!(link->flags & LINK_SEALED))
        return;
    seal_free(link->seals[index]); /* of a connection that was lost */
    link->seals[index] =
        seal_new(link_key, source_nonce, target_nonce, index, direction, SEAL_ENCRYPT, &err);
    if (!link->seals[index])
        abort();
}

uint32_t link_payload(const uint8_t *header)
{
    return (uint32_t)header[4] | (uint32_t)header[5] << 8 | (uint32_t)header[6] << 16 |
           (uint32_t)header[7] << 24;
}

static void say(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done <= 0)
            return;
        data += done;
        size -= (size_t)done;
    }
}

/* One frame of @bytes after the other, each with its tag. */
static void say_sealed(int fd, struct seal *seal, struct input bytes)
{
    struct error err = ERROR_INIT;
    uint8_t *out = malloc(bytes.size + STREAM_TAG_BYTES);
    if (!out)
        abort();
    while (bytes.size >= STREAM_HEADER_BYTES) {
        size_t rest = bytes.size - STREAM_HEADER_BYTES;
        size_t size = link_payload(bytes.data) < rest ? link_payload(bytes.data) : rest;
        memcpy(out, bytes.data, STREAM_HEADER_BYTES);
        seal_begin(seal, out);
        if (size > 0)
            seal_update(seal, bytes.data + STREAM_HEADER_BYTES, size, out + STREAM_HEADER_BYTES);
        if (seal_end(seal, out + STREAM_HEADER_BYTES + size, &err) < 0)
            abort();
        say(fd, out, STREAM_HEADER_BYTES + size + STREAM_TAG_BYTES);
        bytes.data += STREAM_HEADER_BYTES + size;
        bytes.size -= STREAM_HEADER_BYTES + size;
    }
    free(out);
}

void link_say(struct link *link, unsigned index, struct input bytes)
{
    if (link->fds[index] < 0)
        return;
    if (link->seals[index])
        say_sealed(link->fds[index], link->seals[index], bytes);
    else
        say(link->fds[index], bytes.data, bytes.size);
}

bool link_receive(int fd, void *out, size_t size, int limit_ms)
{
    int64_t until_ms = clock_monotonic_ms() + limit_ms;
    size_t have = 0;
    while (have < size) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        int64_t left_ms = until_ms - clock_monotonic_ms();
        if (left_ms < 0)
            return false;
        /* libFuzzer's clock interrupts: only a look at the socket says whether it is over. */
        (void)poll(&readable, 1, (int)left_ms);
        ssize_t done = recv(fd, (uint8_t *)out + have, size - have, MSG_DONTWAIT);
        if (done == 0 || (done < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        have += done > 0 ? (size_t)done : 0;
    }
    return true;
}

void link_hear(struct link *link)
{
    uint8_t header[STREAM_HEADER_BYTES], some[4096];
    if (link->fds[0] < 0 || !link_receive(link->fds[0], header, sizeof(header), LINK_WAIT_MS))
        return;
    size_t left = link_payload(header) + (link->flags & LINK_SEALED ? STREAM_TAG_BYTES : 0);
    while (left > 0) {
        size_t now = left < sizeof(some) ? left : sizeof(some);
        if (!link_receive(link->fds[0], some, now, LINK_WAIT_MS))
            return;
        left -= now;
    }
}

void link_cut(struct link *link, unsigned index)
{
    if (link->fds[index] >= 0)
        close(link->fds[index]);
    link->fds[index] = -1;
}

void link_end(struct link *link)
{
    if (link->fds[0] >= 0)
        (void)shutdown(link->fds[0], SHUT_WR);
}
