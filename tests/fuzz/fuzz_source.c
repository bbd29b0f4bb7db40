/*
 * fuzz_source.c: a whole source against a target that knows the key: what that answers to
 * greetings, says on the control connection and asks for on the page streams. Whatever comes, a
 * guest that was given up never runs on here, and one that was not does.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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
    int listen_fd;
    struct migration_source *source;
};

static void start(struct fuzzed *fuzzed, unsigned flags)
{
    struct error err = ERROR_INIT;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    fuzzed->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fuzzed->listen_fd < 0 || bind(fuzzed->listen_fd, (struct sockaddr *)&address, size) < 0 ||
        listen(fuzzed->listen_fd, 8) < 0 ||
        getsockname(fuzzed->listen_fd, (struct sockaddr *)&address, &size) < 0)
        abort();
    struct migration_source_options options = {.migration_id = LINK_MIGRATION_ID,
                                               .host = "127.0.0.1",
                                               .port = ntohs(address.sin_port),
                                               .epoch = FUZZ_EPOCH,
                                               .next_epoch = FUZZ_EPOCH + 1,
                                               .limits = link_limits(flags)};
    memcpy(options.key, link_key, sizeof(options.key));
    fuzzed->source = migration_source_start(&fuzzed->guest.guest, &options, &err);
    if (!fuzzed->source)
        fuzz_fail(err.text);
}

static int accept_one(const struct fuzzed *fuzzed, int wait_ms)
{
    struct pollfd listener = {.fd = fuzzed->listen_fd, .events = POLLIN};
    struct linger linger = {.l_onoff = 1}; /* leaves no port behind that nobody may use for long */
    while (poll(&listener, 1, wait_ms) < 0 && errno == EINTR)
        ;
    int fd = accept4(fuzzed->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && errno == EAGAIN)
        return -1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) < 0)
        abort();
    return fd;
}

/* The answer to the greeting of connection @index: what is right or, of @strange, its bytes. */
static bool answer(struct fuzzed *fuzzed, unsigned index, const struct input *strange, int wait_ms)
{
    struct error err = ERROR_INIT;
    uint8_t in[STREAM_HELLO_BYTES], out[STREAM_REPLY_BYTES] = {0};
    struct hello hello;
    struct hello_reply reply = {.version = STREAM_VERSION,
                                .accepted = true,
                                .postcopy = fuzzed->link.flags & LINK_POSTCOPY};
    int fd = fuzzed->link.fds[index] = accept_one(fuzzed, wait_ms);
    if (fd < 0 || !link_receive(fd, in, sizeof(in), wait_ms))
        return false;
    if (stream_get_hello(in, &hello, &err) < 0 || hello.index != index)
        fuzz_fail("it says what it would not take");
    if (index == 0 ? hello.resume < fuzzed->link.resume : hello.resume != fuzzed->link.resume)
        fuzz_fail("it goes on as another attempt than it began");
    fuzzed->link.resume = hello.resume;
    stream_put_reply(out, &reply);
    size_t signed_bytes = STREAM_REPLY_BYTES - STREAM_MAC_BYTES;
    if (strange)
        memcpy(out, strange->data, strange->size < signed_bytes ? strange->size : signed_bytes);
    if (seal_mac(link_key, in, sizeof(in), out, signed_bytes, out + signed_bytes, &err) < 0)
        abort();
    if (send(fd, out, sizeof(out), MSG_NOSIGNAL) != (ssize_t)sizeof(out))
        return false;
    if (!strange)
        link_seal(&fuzzed->link, index, hello.nonce, reply.nonce, SEAL_TO_SOURCE);
    return true;
}

/* The source waits where nobody takes its pages. */
static void drain(const struct fuzzed *fuzzed)
{
    uint8_t some[65536];
    for (unsigned i = 1; i <= LINK_STREAMS_MAX; i++)
        while (fuzzed->link.fds[i] >= 0 &&
               recv(fuzzed->link.fds[i], some, sizeof(some), MSG_DONTWAIT) > 0)
            ;
}

/* The link is lost. One that gave its guest up comes again, by itself. */
static void meet_again(struct fuzzed *fuzzed)
{
    bool met = true;
    for (unsigned i = 0; i <= LINK_STREAMS_MAX; i++)
        link_cut(&fuzzed->link, i);
    for (unsigned i = 0; met && i <= fuzzed->link.streams; i++)
        met = answer(fuzzed, i, NULL, LINK_AGAIN_MS);
}

static void take_steps(struct fuzzed *fuzzed, struct input input)
{
    struct error err = ERROR_INIT;
    struct input bytes;
    int step;
    while ((step = input_step(&input, &bytes)) >= 0) {
        drain(fuzzed);
        if (step < STEP_HEAR)
            link_say(&fuzzed->link, (unsigned)step, bytes);
        else if (step == STEP_HEAR)
            link_hear(&fuzzed->link);
        else if (step < STEP_ORDER)
            link_cut(&fuzzed->link, (unsigned)(step - STEP_CUT));
        else if (step == STEP_AGAIN)
            meet_again(fuzzed);
        else
            (void)migration_source_cancel(fuzzed->source, &err);
    }
}

/* Until it has an outcome, or is in post-copy, where it would knock for ever. */
static void settle(struct fuzzed *fuzzed)
{
    struct migration_progress progress;
    struct pollfd event = {.fd = migration_source_event_fd(fuzzed->source), .events = POLLIN};
    int64_t until_ms = clock_monotonic_ms() + END_MS;
    for (;;) {
        uint64_t count;
        migration_source_progress(fuzzed->source, &progress);
        if (progress.outcome != MIGRATION_OUTCOME_PENDING || progress.postcopy.links_lost > 0)
            return;
        int left_ms = (int)(until_ms - clock_monotonic_ms());
        if (left_ms <= 0)
            fuzz_fail("the link is over, and it does not notice");
        if (poll(&event, 1, left_ms) > 0)
            (void)!read(event.fd, &count, sizeof(count));
        drain(fuzzed);
    }
}

static void check(const struct fuzzed *fuzzed)
{
    struct migration_progress progress;
    migration_source_progress(fuzzed->source, &progress);
    bool gave_up = atomic_load(&fuzzed->guest.gave_up);
    switch (progress.outcome) {
    case MIGRATION_OUTCOME_SOURCE_RUNS:
        if (gave_up || atomic_load(&fuzzed->guest.paused))
            fuzz_fail("it says that the guest runs on");
        break;
    case MIGRATION_OUTCOME_TARGET_RUNS:
    case MIGRATION_OUTCOME_IN_DOUBT:
    case MIGRATION_OUTCOME_LOST:
        if (!gave_up)
            fuzz_fail("it says that the guest was given up");
        break;
    case MIGRATION_OUTCOME_PENDING:
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct fuzzed fuzzed = {0};
    log_init("fuzz", LOG_LEVEL_ERROR);
    struct input input = {data + 1, size - 1}, bytes, *strange = NULL;
    unsigned flags = data[0];
    fuzz_guest_make(&fuzzed.guest, true, false);
    fuzzed.guest.dirty_rounds = flags & LINK_DIRTY ? 2 : 0;
    link_make(&fuzzed.link, flags);
    start(&fuzzed, flags);
    if (flags & LINK_STRANGE && input_step(&input, &bytes) >= 0)
        strange = &bytes;
    bool greeted = answer(&fuzzed, 0, strange, GREET_MS);
    for (unsigned i = 1; greeted && !strange && i <= fuzzed.link.streams; i++)
        greeted = answer(&fuzzed, i, NULL, GREET_MS);
    if (!greeted && !strange)
        fuzz_fail("it does not greet");
    take_steps(&fuzzed, input);
    close(fuzzed.listen_fd);
    link_end(&fuzzed.link);
    settle(&fuzzed);
    check(&fuzzed);
    migration_source_free(fuzzed.source);
    link_free(&fuzzed.link);
    fuzz_guest_free(&fuzzed.guest);
    return 0;
}
