#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "probe.h"

// Where guests run in emulated hosts each waking costs some hundred microseconds of them: once a
// millisecond kept them busy with nothing else.
#define LOOK_EVERY_NS 5000000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct clock_report seen;

static int64_t now_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

// The wall clock is read between two readings of the monotonic one: if the guest stood still in
// between, the pair is worthless for a jump and is taken again with the next look.
static void look(int64_t *last_monotonic, int64_t *last_wall)
{
    int64_t before = now_ns(CLOCK_MONOTONIC);
    int64_t wall = now_ns(CLOCK_REALTIME);
    int64_t after = now_ns(CLOCK_MONOTONIC);
    int64_t gap_us = (before - *last_monotonic) / 1000;

    pthread_mutex_lock(&lock);
    if (before < *last_monotonic || after < before) {
        seen.backwards++;
    }
    if (gap_us > 0 && (uint64_t)gap_us > seen.longest_gap_us) {
        seen.longest_gap_us = (uint64_t)gap_us;
        seen.gap_at_ms = (uint64_t)before / 1000000;
    }
    if (after - before < 200000) {
        int64_t jump_us = ((wall - *last_wall) - (before - *last_monotonic)) / 1000;
        int64_t most = seen.largest_wall_jump_us;
        if ((jump_us < 0 ? -jump_us : jump_us) > (most < 0 ? -most : most)) {
            seen.largest_wall_jump_us = jump_us;
        }
        *last_wall = wall;
        *last_monotonic = before;
    } else {
        // Keep the difference of the clocks as it was, so that a jump hidden here shows in the next
        // look.
        *last_wall += before - *last_monotonic;
        *last_monotonic = before;
    }
    pthread_mutex_unlock(&lock);
}

static void *watch(void *unused)
{
    (void)unused;
    int64_t monotonic = now_ns(CLOCK_MONOTONIC);
    int64_t wall = now_ns(CLOCK_REALTIME);
    for (;;) {
        struct timespec pause = {.tv_nsec = LOOK_EVERY_NS};
        nanosleep(&pause, NULL);
        look(&monotonic, &wall);
    }
    return NULL;
}

int clock_watch_start(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, NULL) != 0) {
        return -1;
    }
    // Ahead of the loads, so that a gap is the machine's and not the guest's own scheduler's.
    struct sched_param first = {.sched_priority = 50};
    (void)pthread_setschedparam(thread, SCHED_FIFO, &first);
    return 0;
}

void clock_watch_reset(void)
{
    pthread_mutex_lock(&lock);
    seen = (struct clock_report){.backwards = seen.backwards};
    pthread_mutex_unlock(&lock);
}

void clock_watch_report(struct clock_report *out)
{
    pthread_mutex_lock(&lock);
    *out = seen;
    pthread_mutex_unlock(&lock);
    out->uptime_ms = (uint64_t)now_ns(CLOCK_MONOTONIC) / 1000000;
}
