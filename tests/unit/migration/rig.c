#include "rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define CONNECTIONS_MAX 20
#define WAIT_MS         30000

/* ---------------------------------------------------------------- proxy */

struct wire {
    int source, target;
    uint64_t offset; /* of source -> target */
};

struct proxy {
    int listen_fd;
    uint16_t target_port;
    pthread_t thread;
    _Atomic bool quit;
    _Atomic int link;
    unsigned count;
    struct wire wires[CONNECTIONS_MAX];
    _Atomic int spoil_connection; /* -1: none */
    uint64_t spoil_offset;
};

static int listen_somewhere(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(listen(fd, 64), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void cut_wire(struct wire *wire)
{
    if (wire->source >= 0)
        close(wire->source);
    if (wire->target >= 0)
        close(wire->target);
    wire->source = wire->target = -1;
}

static bool send_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done <= 0)
            return false;
        data += done;
        size -= (size_t)done;
    }
    return true;
}

static void forward(struct proxy *proxy, struct wire *wire, int from, int to)
{
    static __thread uint8_t buffer[65536];
    ssize_t done = recv(from, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (done < 0 && errno == EAGAIN)
        return;
    if (done > 0 && from == wire->source) {
        uint64_t at = proxy->spoil_offset - wire->offset;
        if (atomic_load(&proxy->spoil_connection) == wire - proxy->wires && at < (uint64_t)done)
            buffer[at] ^= 0x10;
        wire->offset += (uint64_t)done;
    }
    if (done <= 0 || !send_all(to, buffer, (size_t)done))
        cut_wire(wire);
}

static void *run_proxy(void *context)
{
    struct proxy *proxy = context;
    while (!atomic_load(&proxy->quit)) {
        struct pollfd polls[1 + 2 * CONNECTIONS_MAX];
        int link = atomic_load(&proxy->link);
        polls[0] = (struct pollfd){.fd = proxy->listen_fd, .events = POLLIN};
        for (unsigned i = 0; i < proxy->count; i++) {
            if (link == LINK_CUT)
                cut_wire(&proxy->wires[i]);
            int held = link == LINK_HELD;
            polls[1 + 2 * i] = (struct pollfd){held ? -1 : proxy->wires[i].source, POLLIN, 0};
            polls[2 + 2 * i] = (struct pollfd){held ? -1 : proxy->wires[i].target, POLLIN, 0};
        }
        if (poll(polls, 1 + 2 * proxy->count, 2) <= 0)
            continue;
        for (unsigned i = 0; i < proxy->count; i++) {
            struct wire *wire = &proxy->wires[i];
            if (polls[1 + 2 * i].revents && wire->source >= 0)
                forward(proxy, wire, wire->source, wire->target);
            if (polls[2 + 2 * i].revents && wire->target >= 0)
                forward(proxy, wire, wire->target, wire->source);
        }
        if (polls[0].revents && proxy->count < CONNECTIONS_MAX) {
            struct wire *wire = &proxy->wires[proxy->count++];
            *wire = (struct wire){.source = accept(proxy->listen_fd, NULL, NULL),
                                  .target = connect_to(proxy->target_port)};
        }
    }
    return NULL;
}

void rig_add_proxy(struct rig *rig)
{
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    proxy->target_port = rig->port;
    proxy->spoil_connection = -1;
    proxy->listen_fd = listen_somewhere(&rig->out.port);
    cr_assert_eq(pthread_create(&proxy->thread, NULL, run_proxy, proxy), 0);
    rig->proxy = proxy;
}

void rig_link(struct rig *rig, enum rig_link link)
{
    atomic_store(&rig->proxy->link, link);
}

void rig_spoil(struct rig *rig, unsigned connection, uint64_t offset)
{
    rig->proxy->spoil_offset = offset;
    atomic_store(&rig->proxy->spoil_connection, (int)connection);
}

/* ---------------------------------------------------------------- rig */

void rig_make(struct rig *rig)
{
    *rig = (struct rig){.from = fake_guest_new(16, false), .to = fake_guest_new(16, false)};
    fake_guest_fill(rig->from, 2048);
    rig->listen_fd = listen_somewhere(&rig->port);
    struct migration_limits limits = {
        .downtime_limit_ms = 1000, .stall_timeout_ms = 5000, .streams = 2};
    rig->out = (struct migration_source_options){
        .host = "127.0.0.1", .port = rig->port, .epoch = 4, .next_epoch = 5, .limits = limits};
    strcpy(rig->out.migration_id, "m-1");
    memset(rig->out.key, 0x5a, sizeof(rig->out.key));
    rig->in = (struct migration_target_options){.next_epoch = 5, .limits = limits};
    strcpy(rig->in.migration_id, "m-1");
    memset(rig->in.key, 0x5a, sizeof(rig->in.key));
}

void rig_start_target(struct rig *rig)
{
    struct error err = ERROR_INIT;
    rig->target = migration_target_start(&rig->to->guest, rig->listen_fd, &rig->in, &err);
    cr_assert(rig->target, "%s", err.text);
}

void rig_start_source(struct rig *rig)
{
    struct error err = ERROR_INIT;
    rig->source = migration_source_start(&rig->from->guest, &rig->out, &err);
    cr_assert(rig->source, "%s", err.text);
}

void rig_start(struct rig *rig)
{
    rig_start_target(rig);
    rig_start_source(rig);
}

static void wait_event(int fd, int64_t until_ms)
{
    struct pollfd event = {.fd = fd, .events = POLLIN};
    uint64_t count;
    cr_assert(clock_monotonic_ms() < until_ms, "nothing happened in time");
    if (poll(&event, 1, 1000) > 0)
        cr_assert(read(fd, &count, sizeof(count)) > 0);
}

enum migration_outcome rig_wait(struct rig *rig)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;
    for (;;) {
        migration_source_progress(rig->source, &rig->end);
        if (rig->end.outcome != MIGRATION_OUTCOME_PENDING)
            return rig->end.outcome;
        wait_event(migration_source_event_fd(rig->source), until_ms);
    }
}

bool rig_wait_target(struct rig *rig, enum migration_target_state state)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;
    for (;;) {
        struct migration_progress progress;
        enum migration_target_state now = migration_target_progress(rig->target, &progress, NULL);
        if (now == state)
            return true;
        if (now >= MIGRATION_TARGET_RUNNING)
            return false;
        wait_event(migration_target_event_fd(rig->target), until_ms);
    }
}

void rig_free(struct rig *rig)
{
    migration_source_free(rig->source);
    migration_target_free(rig->target);
    if (rig->proxy) {
        atomic_store(&rig->proxy->quit, true);
        pthread_join(rig->proxy->thread, NULL);
        for (unsigned i = 0; i < rig->proxy->count; i++)
            cut_wire(&rig->proxy->wires[i]);
        close(rig->proxy->listen_fd);
        free(rig->proxy);
    }
    close(rig->listen_fd);
    fake_guest_free(rig->from);
    fake_guest_free(rig->to);
}

void rig_assert_moved(struct rig *rig)
{
    cr_assert_eq(rig->end.outcome, MIGRATION_OUTCOME_TARGET_RUNS, "%s", rig->end.text);
    cr_assert_eq(rig->end.phase, MIGRATION_PHASE_COMPLETED);
    cr_assert(rig->from->gave_up && atomic_load(&rig->from->stopped) && !rig->from->logging);
    cr_assert(rig_wait_target(rig, MIGRATION_TARGET_RUNNING));
    cr_assert(rig->to->running);
    cr_assert_eq(rig->to->run_epoch, 5);
    fake_guest_assert_equal(rig->from, rig->to);
}

void rig_assert_stayed(struct rig *rig)
{
    cr_assert_eq(rig->end.outcome, MIGRATION_OUTCOME_SOURCE_RUNS, "%s", rig->end.text);
    cr_assert(!rig->from->gave_up && !atomic_load(&rig->from->stopped) && !rig->from->logging);
    cr_assert(!rig_wait_target(rig, MIGRATION_TARGET_RUNNING));
    cr_assert(!rig->to->running);
}
