/*
 * fuzz_record.c: makes the start corpus of fuzz_source and fuzz_target: real migrations between
 * both ends, with a proxy between that writes down what each says.
 *
 *     fuzz_record CORPUS     writes CORPUS/fuzz_source/NAME and CORPUS/fuzz_target/NAME
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_link.h"

#define WIRES    3u
#define STEP_MAX 65535u
#define LIMIT_MS 10000
#define SCRIPT   (1u << 20)

/* What one end said, as an input for the other. */
struct script {
    uint8_t bytes[SCRIPT];
    size_t size, step; /* where the open step begins; 0: none */
};

struct proxy {
    int listen_fd;
    uint16_t target_port;
    unsigned count;
    struct wire {
        int source, target;
        size_t hello, reply;         /* bytes of greetings still to come */
        size_t to_source, to_target; /* of the frame under way: bytes still to come */
    } wires[WIRES];
    struct script to_target, to_source;
};

static void open_step(struct script *script, unsigned kind)
{
    script->step = script->size;
    if (script->size + 3 > sizeof(script->bytes))
        abort();
    script->bytes[script->size] = (uint8_t)kind;
    script->bytes[script->size + 1] = script->bytes[script->size + 2] = 0;
    script->size += 3;
}

static void append(struct script *script, unsigned kind, const uint8_t *data, size_t size)
{
    while (size > 0) {
        uint8_t *step = script->bytes + script->step;
        size_t have = (size_t)step[1] | (size_t)step[2] << 8;
        if (script->step == 0 || step[0] != kind || have == STEP_MAX) {
            open_step(script, kind);
            step = script->bytes + script->step;
            have = 0;
        }
        size_t now = STEP_MAX - have < size ? STEP_MAX - have : size;
        if (script->size + now > sizeof(script->bytes))
            abort();
        memcpy(script->bytes + script->size, data, now);
        script->size += now;
        have += now;
        step[1] = (uint8_t)have;
        step[2] = (uint8_t)(have >> 8);
        data += now;
        size -= now;
    }
}

/* Steps to hear the frames that begin in @data. */
static void hear(struct script *script, size_t *left, const uint8_t *data, size_t size)
{
    while (size > 0) {
        if (*left == 0) {
            if (size < STREAM_HEADER_BYTES)
                abort(); /* a header in pieces: never seen on loopback */
            *left = STREAM_HEADER_BYTES + link_payload(data);
            open_step(script, STEP_HEAR);
        }
        size_t now = *left < size ? *left : size;
        *left -= now;
        data += now;
        size -= now;
    }
}

static void note(struct proxy *proxy, unsigned index, bool to_target, const uint8_t *data,
                 size_t size)
{
    struct wire *wire = &proxy->wires[index];
    size_t *greeting = to_target ? &wire->hello : &wire->reply;
    size_t skipped = *greeting < size ? *greeting : size;
    *greeting -= skipped;
    data += skipped;
    size -= skipped;
    append(to_target ? &proxy->to_target : &proxy->to_source, index, data, size);
    if (index == 0)
        hear(to_target ? &proxy->to_source : &proxy->to_target,
             to_target ? &wire->to_target : &wire->to_source, data, size);
}

static int listen_somewhere(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 8) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        abort();
    *port = ntohs(address.sin_port);
    return fd;
}

static void take_new(struct proxy *proxy)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(proxy->target_port)};
    struct wire wire = {.hello = STREAM_HELLO_BYTES, .reply = STREAM_REPLY_BYTES};
    wire.source = accept(proxy->listen_fd, NULL, NULL);
    wire.target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (wire.source < 0 || proxy->count == WIRES ||
        connect(wire.target, (struct sockaddr *)&address, sizeof(address)) < 0)
        abort();
    proxy->wires[proxy->count++] = wire;
}

static void forward(struct proxy *proxy, unsigned index, bool to_target)
{
    uint8_t data[16384];
    struct wire *wire = &proxy->wires[index];
    ssize_t got = recv(to_target ? wire->source : wire->target, data, sizeof(data), MSG_DONTWAIT);
    if (got <= 0) {
        close(wire->source);
        close(wire->target);
        wire->source = wire->target = -1;
        return;
    }
    note(proxy, index, to_target, data, (size_t)got);
    (void)!send(to_target ? wire->target : wire->source, data, (size_t)got, MSG_NOSIGNAL);
}

/* One look at all connections. */
static void work(struct proxy *proxy)
{
    struct pollfd polls[1 + 2 * WIRES] = {{proxy->listen_fd, POLLIN, 0}};
    for (unsigned i = 0; i < proxy->count; i++) {
        polls[1 + 2 * i] = (struct pollfd){proxy->wires[i].source, POLLIN, 0};
        polls[2 + 2 * i] = (struct pollfd){proxy->wires[i].target, POLLIN, 0};
    }
    unsigned count = proxy->count;
    if (poll(polls, 1 + 2 * count, 10) <= 0)
        return;
    if (polls[0].revents)
        take_new(proxy);
    for (unsigned i = 0; i < count; i++) {
        if (polls[1 + 2 * i].revents && proxy->wires[i].source >= 0)
            forward(proxy, i, true);
        if (polls[2 + 2 * i].revents && proxy->wires[i].target >= 0)
            forward(proxy, i, false);
    }
}

/* Both ends lose each other, and what comes next is said on new connections. */
static void lose_link(struct proxy *proxy)
{
    for (unsigned i = 0; i < proxy->count; i++)
        if (proxy->wires[i].source >= 0) {
            close(proxy->wires[i].source);
            close(proxy->wires[i].target);
        }
    proxy->count = 0;
    open_step(&proxy->to_source, STEP_AGAIN);
    open_step(&proxy->to_target, STEP_AGAIN);
}

static void write_script(const char *corpus, const char *fuzzer, const char *name,
                         const struct script *script)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s/%s", corpus, fuzzer, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(script->bytes, 1, script->size, file) != script->size ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* @lossy: the link is lost once, as soon as the target runs the guest. */
static void run_migration(struct proxy *proxy, unsigned flags, bool lossy, uint16_t port)
{
    struct error err = ERROR_INIT;
    struct fuzz_guest from, to;
    struct migration_progress end;
    struct migration_source_options out = {.migration_id = LINK_MIGRATION_ID,
                                           .host = "127.0.0.1",
                                           .port = port,
                                           .epoch = FUZZ_EPOCH,
                                           .next_epoch = FUZZ_EPOCH + 1,
                                           .limits = link_limits(flags)};
    struct migration_target_options in = {.migration_id = LINK_MIGRATION_ID,
                                          .next_epoch = FUZZ_EPOCH + 1,
                                          .limits = link_limits(flags)};
    memcpy(out.key, link_key, sizeof(out.key));
    memcpy(in.key, link_key, sizeof(in.key));
    fuzz_guest_make(&from, true, false);
    fuzz_guest_make(&to, false, flags & LINK_POSTCOPY);
    from.dirty_rounds = flags & LINK_DIRTY ? 2 : 0;
    int listen_fd = listen_somewhere(&proxy->target_port);
    struct migration_target *target = migration_target_start(&to.guest, listen_fd, &in, &err);
    struct migration_source *source =
        target ? migration_source_start(&from.guest, &out, &err) : NULL;
    if (!source)
        abort();
    int64_t until_ms = clock_monotonic_ms() + LIMIT_MS;
    do {
        work(proxy);
        if (lossy && atomic_load(&to.runs) > 0) {
            lose_link(proxy);
            lossy = false;
        }
        migration_source_progress(source, &end);
    } while (end.outcome == MIGRATION_OUTCOME_PENDING && clock_monotonic_ms() < until_ms);
    if (end.outcome != MIGRATION_OUTCOME_TARGET_RUNS ||
        memcmp(from.guest.ram, to.guest.ram, from.guest.ram_bytes) != 0) {
        (void)fprintf(stderr, "fuzz_record: the migration failed: %s\n", end.text);
        exit(1);
    }
    migration_source_free(source);
    migration_target_free(target);
    close(listen_fd);
    fuzz_guest_free(&from);
    fuzz_guest_free(&to);
}

static void record(const char *corpus, const char *name, unsigned flags, bool lossy)
{
    uint16_t port;
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    if (!proxy)
        abort();
    proxy->to_source.bytes[0] = proxy->to_target.bytes[0] = (uint8_t)flags;
    proxy->to_source.size = proxy->to_target.size = 1;
    proxy->listen_fd = listen_somewhere(&port);
    run_migration(proxy, flags, lossy, port);
    for (unsigned i = 0; i < proxy->count; i++)
        if (proxy->wires[i].source >= 0) {
            close(proxy->wires[i].source);
            close(proxy->wires[i].target);
        }
    close(proxy->listen_fd);
    write_script(corpus, "fuzz_source", name, &proxy->to_source);
    write_script(corpus, "fuzz_target", name, &proxy->to_target);
    /* What was said plainly is as good to be sealed: the peers of both fuzzers do that. */
    char sealed[64];
    (void)snprintf(sealed, sizeof(sealed), "%s-sealed", name);
    proxy->to_source.bytes[0] |= LINK_SEALED;
    proxy->to_target.bytes[0] |= LINK_SEALED;
    write_script(corpus, "fuzz_source", sealed, &proxy->to_source);
    write_script(corpus, "fuzz_target", sealed, &proxy->to_target);
    free(proxy);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: fuzz_record CORPUS\n");
        return 2;
    }
    record(argv[1], "precopy", 0, false);
    record(argv[1], "two-streams-dirty", LINK_TWO_STREAMS | LINK_DIRTY, false);
    record(argv[1], "verify", LINK_VERIFY, false);
    record(argv[1], "postcopy", LINK_POSTCOPY | LINK_DIRTY, false);
    record(argv[1], "postcopy-lost", LINK_POSTCOPY | LINK_DIRTY, true);
    return 0;
}
