/*
 * fuzz_target.c: a whole target against a source that knows the key: its greetings, its control
 * connection and its page streams, from the first byte to a guest that runs, or never will.
 * Whatever comes, a guest that ran is never said to be gone, and one that was thrown away never
 * ran.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_link.h"

#define GREET_MS 5000
#define END_MS   5000

struct fuzzed {
    struct fuzz_guest guest;
    struct link link;
    struct sockaddr_un address;
    socklen_t address_size;
    int listen_fd;
    struct migration_target *target;
};

static int connect_to(const struct fuzzed *fuzzed)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&fuzzed->address, fuzzed->address_size) < 0)
        fuzz_fail("cannot connect");
    return fd;
}

static void start(struct fuzzed *fuzzed, unsigned flags)
{
    struct error err = ERROR_INIT;
    struct migration_target_options options = {.migration_id = LINK_MIGRATION_ID,
                                               .next_epoch = FUZZ_EPOCH + 1,
                                               .limits = link_limits(flags)};
    memcpy(options.key, link_key, sizeof(options.key));
    fuzzed->address = (struct sockaddr_un){.sun_family = AF_UNIX};
    fuzzed->address_size = sizeof(fuzzed->address);
    fuzzed->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Linux finds a free name in its abstract namespace: unix(7), autobind. */
    if (fuzzed->listen_fd < 0 ||
        bind(fuzzed->listen_fd, (struct sockaddr *)&fuzzed->address, sizeof(sa_family_t)) < 0 ||
        getsockname(fuzzed->listen_fd, (struct sockaddr *)&fuzzed->address, &fuzzed->address_size) <
            0 ||
        listen(fuzzed->listen_fd, 8) < 0)
        fuzz_fail("cannot listen");
    fuzzed->target =
        migration_target_start(&fuzzed->guest.guest, fuzzed->listen_fd, &options, &err);
    if (!fuzzed->target)
        fuzz_fail(err.text);
}

/* A greeting as is right; false where the target hung up. */
static bool greet(struct fuzzed *fuzzed, unsigned index, int wait_ms)
{
    struct error err = ERROR_INIT;
    uint8_t out[STREAM_HELLO_BYTES], in[STREAM_REPLY_BYTES];
    struct migration_limits limits = link_limits(fuzzed->link.flags);
    struct hello_reply reply;
    struct hello hello = {.version = STREAM_VERSION,
                          .index = (uint16_t)index,
                          .streams = (uint16_t)fuzzed->link.streams,
                          .encrypted = !limits.unencrypted,
                          .verify = limits.verify,
                          .ram_bytes = fuzzed->guest.guest.ram_bytes,
                          .next_epoch = FUZZ_EPOCH + 1,
                          .postcopy = fuzzed->link.flags & LINK_POSTCOPY,
                          .resume = fuzzed->link.resume,
                          .migration_id = LINK_MIGRATION_ID};
    memcpy(hello.vm_id, fuzzed->guest.guest.vm_id, sizeof(hello.vm_id));
    stream_put_hello(out, &hello);
    size_t signed_bytes = STREAM_HELLO_BYTES - STREAM_MAC_BYTES;
    if (seal_mac(link_key, out, signed_bytes, NULL, 0, out + signed_bytes, &err) < 0)
        abort();
    int fd = fuzzed->link.fds[index] = connect_to(fuzzed);
    if (send(fd, out, sizeof(out), MSG_NOSIGNAL) != (ssize_t)sizeof(out) ||
        !link_receive(fd, in, sizeof(in), wait_ms))
        return false;
    if (stream_get_reply(in, &reply, &err) < 0)
        fuzz_fail("it says what it would not take");
    if (reply.accepted)
        link_seal(&fuzzed->link, index, hello.nonce, reply.nonce, SEAL_TO_TARGET);
    if (!reply.accepted)
        (void)fprintf(stderr, "fuzz: refused: %s\n", reply.text);
    return reply.accepted;
}

/* Says the bytes of the step to the door, and waits until it hangs up or has answered. */
static void greet_strangely(struct fuzzed *fuzzed, struct input bytes)
{
    uint8_t in[1];
    int fd = connect_to(fuzzed);
    (void)!send(fd, bytes.data, bytes.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)shutdown(fd, SHUT_WR);
    if (link_receive(fd, in, 1, LINK_WAIT_MS))
        fuzz_fail("it answers who does not know the key");
    close(fd);
}

static bool in_postcopy(const struct fuzzed *fuzzed)
{
    struct migration_progress progress;
    return migration_target_progress(fuzzed->target, &progress, NULL) == MIGRATION_TARGET_POSTCOPY;
}

/* The link is lost, and the source comes again until it is let in: the target may not have noticed
 * yet. */
static void meet_again(struct fuzzed *fuzzed)
{
    const uint64_t tries = fuzzed->link.resume + 10;
    bool met = false;
    for (unsigned i = 0; i <= LINK_STREAMS_MAX; i++)
        link_cut(&fuzzed->link, i);
    while (!met && in_postcopy(fuzzed) && fuzzed->link.resume < tries) {
        fuzzed->link.resume++;
        met = greet(fuzzed, 0, LINK_AGAIN_MS);
        if (!met)
            (void)poll(NULL, 0, LINK_WAIT_MS);
    }
    for (unsigned i = 1; met && i <= fuzzed->link.streams; i++)
        met = greet(fuzzed, i, LINK_AGAIN_MS);
}

static void take_steps(struct fuzzed *fuzzed, struct input input)
{
    struct error err = ERROR_INIT;
    struct input bytes;
    int step;
    while ((step = input_step(&input, &bytes)) >= 0) {
        if (step < STEP_HEAR && (unsigned)step <= fuzzed->link.streams)
            link_say(&fuzzed->link, (unsigned)step, bytes);
        else if (step == STEP_HEAR)
            link_hear(&fuzzed->link);
        else if (step >= STEP_CUT && step < STEP_ORDER)
            link_cut(&fuzzed->link, (unsigned)(step - STEP_CUT));
        else if (step == STEP_AGAIN)
            meet_again(fuzzed);
        else if (step == STEP_ORDER)
            (void)migration_target_run(fuzzed->target, FUZZ_EPOCH + 2, &err);
    }
}

/* Waits until it has heard all and stands still. */
static void settle(struct fuzzed *fuzzed)
{
    struct pollfd event = {.fd = migration_target_event_fd(fuzzed->target), .events = POLLIN};
    int64_t until_ms = clock_monotonic_ms() + END_MS;
    for (;;) {
        uint64_t count;
        struct migration_progress progress;
        enum migration_target_state state =
            migration_target_progress(fuzzed->target, &progress, NULL);
        if (state >= MIGRATION_TARGET_READY)
            return;
        int left_ms = (int)(until_ms - clock_monotonic_ms());
        if (left_ms <= 0)
            fuzz_fail("the link is over, and it does not notice");
        if (poll(&event, 1, left_ms) > 0)
            (void)!read(event.fd, &count, sizeof(count));
    }
}

static void check(struct fuzzed *fuzzed)
{
    struct error err = ERROR_INIT;
    struct migration_progress progress;
    uint64_t epoch = 0;
    bool discarded = migration_target_discard(fuzzed->target, &err) == 0;
    enum migration_target_state state =
        migration_target_progress(fuzzed->target, &progress, &epoch);
    bool ran = atomic_load(&fuzzed->guest.runs) > 0;
    bool runs = state == MIGRATION_TARGET_RUNNING || state == MIGRATION_TARGET_POSTCOPY;
    if (runs && (!ran || discarded || epoch <= FUZZ_EPOCH))
        fuzz_fail("it says that the guest runs");
    if (ran && !runs && progress.outcome != MIGRATION_OUTCOME_LOST)
        fuzz_fail("it says that the guest never ran");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct fuzzed fuzzed = {0};
    log_init("fuzz", LOG_LEVEL_ERROR);
    struct input input = {data + 1, size - 1}, bytes;
    unsigned flags = data[0];
    fuzz_guest_make(&fuzzed.guest, false, flags & LINK_POSTCOPY);
    link_make(&fuzzed.link, flags);
    start(&fuzzed, flags);
    if (flags & LINK_STRANGE && input_step(&input, &bytes) >= 0)
        greet_strangely(&fuzzed, bytes);
    bool greeted = true;
    for (unsigned i = 0; greeted && i <= fuzzed.link.streams; i++)
        greeted = greet(&fuzzed, i, GREET_MS);
    if (!greeted)
        fuzz_fail("it does not take a greeting that is right");
    take_steps(&fuzzed, input);
    link_end(&fuzzed.link);
    settle(&fuzzed);
    check(&fuzzed);
    unsigned ran = atomic_load(&fuzzed.guest.runs);
    migration_target_free(fuzzed.target);
    if (atomic_load(&fuzzed.guest.runs) != ran)
        fuzz_fail("a guest that was thrown away runs");
    link_free(&fuzzed.link);
    close(fuzzed.listen_fd);
    fuzz_guest_free(&fuzzed.guest);
    return 0;
}
