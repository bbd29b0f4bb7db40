#include "node-agent/migration/demand.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "node-agent/migration/event.h"
#include "node-agent/migration/pages.h"
#include "node-agent/migration/uffd.h"

#define TICK_MS   100
#define SILENT_NS 5000000000 /* a fault of a load that nobody serves */

static uint64_t pages_of(const struct demand *demand)
{
    return demand->guest->ram_bytes / PAGE_BYTES;
}

static bool is_set(const _Atomic uint64_t *bits, uint64_t page)
{
    return atomic_load(&bits[page / 64]) >> (page % 64) & 1;
}

/* Both return whether the bit was set before. */
static bool set(_Atomic uint64_t *bits, uint64_t page)
{
    uint64_t bit = 1ull << (page % 64);
    return atomic_fetch_or(&bits[page / 64], bit) & bit;
}

static bool clear(_Atomic uint64_t *bits, uint64_t page)
{
    uint64_t bit = 1ull << (page % 64);
    return atomic_fetch_and(&bits[page / 64], ~bit) & bit;
}

static uint8_t *address_of(const struct demand *demand, uint64_t page)
{
    return demand->guest->ram + page * PAGE_BYTES;
}

/* ---------------------------------------------------------------- before the guest runs */

bool demand_is_possible(const struct migration_guest *guest)
{
    return guest->uffd >= 0;
}

void demand_init(struct demand *demand, const struct migration_guest *guest, int wake_fd)
{
    *demand = (struct demand){.guest = guest, .wake_fd = wake_fd, .quit_fd = -1};
    (void)pthread_mutex_init(&demand->lock, NULL);
}

void demand_destroy(struct demand *demand)
{
    (void)pthread_mutex_destroy(&demand->lock);
    free(demand->lacking);
    free(demand->asked);
    demand->lacking = demand->asked = NULL;
}

static int allocate(struct demand *demand, struct error *err)
{
    uint64_t words = bitmap_words(pages_of(demand));
    if (!demand_is_possible(demand->guest))
        return error_set(err, ERROR_FAILED, "pages are dropped where post-copy is not possible");
    /* From the first page that is dropped until RAM is whole: the kernel, making one huge page of
     * many small ones, would fill what is lacking with zeros, and nobody would wait for it. */
    if (!demand->lacking && page_keep_small(demand->guest) < 0)
        return error_errno(err, errno, "cannot keep the guest's RAM in small pages");
    if (!demand->lacking)
        demand->lacking = calloc(words, sizeof(*demand->lacking));
    if (!demand->asked)
        demand->asked = calloc(words, sizeof(*demand->asked));
    return demand->lacking && demand->asked
               ? 0
               : error_set(err, ERROR_FAILED, "out of memory for a page bitmap");
}

int demand_stale(struct demand *demand, struct run run, struct error *err)
{
    if (allocate(demand, err) < 0)
        return -1;
    if (page_drop(demand->guest, run.first, run.count) < 0)
        return error_errno(err, errno, "cannot drop pages of the guest's RAM");
    for (uint64_t page = run.first; page < run.first + run.count; page++)
        if (!set(demand->lacking, page))
            atomic_fetch_add(&demand->left, 1);
    return 0;
}

void demand_forget(struct demand *demand)
{
    uint64_t words = demand->lacking ? bitmap_words(pages_of(demand)) : 0;
    demand_stop(demand);
    for (uint64_t i = 0; i < words; i++) {
        uint64_t gone = atomic_exchange(&demand->lacking[i], 0);
        atomic_fetch_sub(&demand->left, (uint64_t)__builtin_popcountll(gone));
        atomic_store(&demand->asked[i], 0);
    }
    demand->waiting_count = 0;
    atomic_store(&demand->cut, false);
    atomic_store(&demand->loaded, false);
}

/* ---------------------------------------------------------------- faults */

/* The lock is held. What cannot be sent now stays queued for the next flush; a link that is broken
 * is noticed by who reads from it. */
static void ask(struct demand *demand, uint64_t page)
{
    struct error ignored = ERROR_INIT;
    struct frame frame = {.type = FRAME_WANT, .argument = page};
    if (demand->urgent && channel_queue(demand->urgent, &frame, NULL, &ignored) == 0)
        (void)channel_flush(demand->urgent, &ignored);
}

static void note_latency(struct demand *demand, uint64_t page)
{
    int64_t now_ns = clock_monotonic_ns();
    (void)pthread_mutex_lock(&demand->lock);
    for (unsigned i = 0; i < demand->waiting_count; i++) {
        if (demand->waiting[i].page != page)
            continue;
        uint64_t us = (uint64_t)(now_ns - demand->waiting[i].since_ns) / 1000;
        demand->latency_sum_us += us;
        if (us > demand->latency_max_us)
            demand->latency_max_us = us;
        demand->waiting[i] = demand->waiting[--demand->waiting_count];
        break;
    }
    (void)pthread_mutex_unlock(&demand->lock);
}

static int serve_fault(struct demand *demand, uint64_t address, struct error *err)
{
    uint64_t page = (address - (uintptr_t)demand->guest->ram) / PAGE_BYTES;
    if (page >= pages_of(demand))
        return error_set(err, ERROR_FAILED, "a fault outside the guest's RAM");
    if (!is_set(demand->lacking, page))
        return uffd_put(demand->guest->uffd, address_of(demand, page), NULL, 1, err);
    if (set(demand->asked, page))
        return 0;
    (void)pthread_mutex_lock(&demand->lock);
    demand->faults++;
    if (demand->waiting_count < DEMAND_WAITING_MAX)
        demand->waiting[demand->waiting_count++] =
            (struct waiting){.page = page, .since_ns = clock_monotonic_ns()};
    ask(demand, page);
    (void)pthread_mutex_unlock(&demand->lock);
    if (is_set(demand->lacking, page))
        return 0;
    /* It came between the two looks, and who put it may not have seen that it was waited for. */
    clear(demand->asked, page);
    note_latency(demand, page);
    return uffd_put(demand->guest->uffd, address_of(demand, page), NULL, 1, err);
}

static void break_down(struct demand *demand, const struct error *err)
{
    (void)pthread_mutex_lock(&demand->lock);
    if (!atomic_load(&demand->broken))
        demand->failure = *err;
    atomic_store(&demand->broken, true);
    (void)pthread_mutex_unlock(&demand->lock);
    event_raise(demand->wake_fd);
}

/* The thread cannot go on. The load of a state that waits is let go, for what it finds counts
 * for nothing; a guest that runs must never see zeros instead of its memory. */
static void give_way(struct demand *demand, const struct error *err)
{
    const struct migration_guest *guest = demand->guest;
    struct error ignored = ERROR_INIT;
    log_error("post-copy: %s", err->text);
    break_down(demand, err);
    if (!atomic_load(&demand->loaded))
        (void)uffd_unwatch(guest->uffd, guest->ram, guest->ram_bytes, &ignored);
}

static void flush_asked(struct demand *demand)
{
    struct error ignored = ERROR_INIT;
    (void)pthread_mutex_lock(&demand->lock);
    if (demand->urgent && channel_has_queued(demand->urgent))
        (void)channel_flush(demand->urgent, &ignored);
    (void)pthread_mutex_unlock(&demand->lock);
}

/* While the state is loaded: whether the load waits for a page that will not come. */
static bool is_in_vain(struct demand *demand)
{
    if (atomic_load(&demand->loaded))
        return false;
    (void)pthread_mutex_lock(&demand->lock);
    bool late =
        demand->waiting_count > 0 && clock_monotonic_ns() - demand->waiting[0].since_ns > SILENT_NS;
    (void)pthread_mutex_unlock(&demand->lock);
    return late || atomic_load(&demand->cut);
}

static void *run_demand(void *context)
{
    struct demand *demand = context;
    struct error err = ERROR_INIT;
    struct pollfd polls[2] = {{.fd = demand->guest->uffd, .events = POLLIN},
                              {.fd = demand->quit_fd, .events = POLLIN}};
    for (;;) {
        /* The time-out: for what a full socket left in the queue, and for a link that is lost. */
        (void)poll(polls, 2, TICK_MS);
        if (polls[1].revents)
            return NULL;
        uint64_t address = 0;
        int got = 0;
        if (is_in_vain(demand))
            got = error_set(&err, ERROR_UNREACHABLE, "the link was lost as the state was loaded");
        while (got == 0 && (got = uffd_next(demand->guest->uffd, &address, &err)) > 0)
            got = serve_fault(demand, address, &err);
        if (got < 0) {
            give_way(demand, &err);
            return NULL;
        }
        flush_asked(demand);
    }
}

int demand_start(struct demand *demand, struct channel *urgent, struct error *err)
{
    const struct migration_guest *guest = demand->guest;
    if (allocate(demand, err) < 0)
        return -1;
    demand->quit_fd = event_new(err);
    if (demand->quit_fd < 0)
        return -1;
    demand->urgent = urgent;
    int number = 0;
    if (uffd_watch(guest->uffd, guest->ram, guest->ram_bytes, err) == 0) {
        number = event_thread(&demand->thread, run_demand, demand);
        if (number == 0) {
            atomic_store(&demand->watching, true);
            return 0;
        }
        struct error ignored = ERROR_INIT;
        (void)uffd_unwatch(guest->uffd, guest->ram, guest->ram_bytes, &ignored);
        error_errno(err, number, "cannot start a thread for page faults");
    }
    close_fd(&demand->quit_fd);
    return -1;
}

void demand_stop(struct demand *demand)
{
    struct error err = ERROR_INIT;
    const struct migration_guest *guest = demand->guest;
    if (demand->quit_fd < 0)
        return;
    atomic_store(&demand->watching, false);
    if (uffd_unwatch(guest->uffd, guest->ram, guest->ram_bytes, &err) < 0)
        log_error("post-copy: %s", err.text);
    event_raise(demand->quit_fd);
    (void)pthread_join(demand->thread, NULL);
    close_fd(&demand->quit_fd);
    demand_link(demand, NULL);
}

void demand_link(struct demand *demand, struct channel *urgent)
{
    (void)pthread_mutex_lock(&demand->lock);
    demand->urgent = urgent;
    for (uint64_t word = 0; urgent && word < bitmap_words(pages_of(demand)); word++) {
        uint64_t bits = atomic_load(&demand->asked[word]) & atomic_load(&demand->lacking[word]);
        for (; bits; bits &= bits - 1)
            ask(demand, word * 64 + (uint64_t)__builtin_ctzll(bits));
    }
    (void)pthread_mutex_unlock(&demand->lock);
}

/* ---------------------------------------------------------------- pages that come */

static void note_here(struct demand *demand, struct run run)
{
    uint64_t here = 0;
    for (uint64_t page = run.first; page < run.first + run.count; page++) {
        here += clear(demand->lacking, page);
        if (clear(demand->asked, page))
            note_latency(demand, page);
    }
    if (here && atomic_fetch_sub(&demand->left, here) == here)
        event_raise(demand->wake_fd);
}

static void overwrite(struct demand *demand, struct run run, const uint8_t *data)
{
    size_t size = run.count * PAGE_BYTES;
    if (data)
        memcpy(address_of(demand, run.first), data, size);
    else
        memset(address_of(demand, run.first), 0, size);
}

/* The watch may end meanwhile where a page may be replaced, and then it simply is. */
static int put_lacking(struct demand *demand, struct run run, const uint8_t *data, bool replace,
                       struct error *err)
{
    int put = uffd_put(demand->guest->uffd, address_of(demand, run.first), data, run.count, err);
    if (put < 0 && !replace && !atomic_load(&demand->watching)) {
        error_clear(err); /* the pause was taken back: the page will come again */
        return 0;
    }
    if (put < 0 && !replace) {
        break_down(demand, err);
        return -1;
    }
    if (replace)
        overwrite(demand, run, data); /* what was put before may have been older */
    error_clear(err);
    note_here(demand, run);
    return 0;
}

int demand_put(struct demand *demand, struct run run, const uint8_t *data, bool replace,
               struct error *err)
{
    if (!demand->lacking)
        return error_set(err, ERROR_FAILED, "a page of post-copy before there is any");
    uint64_t end = run.first + run.count;
    for (uint64_t page = run.first; page < end;) {
        bool lacking = is_set(demand->lacking, page);
        uint64_t next = page + 1;
        while (next < end && is_set(demand->lacking, next) == lacking)
            next++;
        struct run part = {.first = page, .count = (uint32_t)(next - page)};
        const uint8_t *from = data ? data + (page - run.first) * PAGE_BYTES : NULL;
        if (lacking && put_lacking(demand, part, from, replace, err) < 0)
            return -1;
        if (!lacking && replace)
            overwrite(demand, part, from);
        page = next;
    }
    return 0;
}

int demand_list(const struct demand *demand,
                int (*take)(void *context, struct run run, struct error *err), void *context,
                struct error *err)
{
    struct run run = {0};
    for (uint64_t page = 0; demand->lacking && page < pages_of(demand); page++) {
        if (page % 64 == 0 && atomic_load(&demand->lacking[page / 64]) == 0) {
            page += 63;
            continue;
        }
        if (!is_set(demand->lacking, page))
            continue;
        if (run.count > 0 && run.first + run.count == page && run.count < STREAM_RUN_PAGES_MAX) {
            run.count++;
            continue;
        }
        int taken = run.count > 0 ? take(context, run, err) : 0;
        if (taken != 0)
            return taken;
        run = (struct run){.first = page, .count = 1};
    }
    return run.count > 0 ? take(context, run, err) : 0;
}
