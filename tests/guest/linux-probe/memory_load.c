#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

#include "probe.h"

#define PAGE_WORDS  512
#define PAGES_A_MIB 256
// Words of a page that carry the pattern: enough to see a page that is old, torn or another's.
#define STRIDE 64

static struct {
    uint64_t *words;
    uint64_t mib;
    uint64_t mib_per_second;
    _Atomic uint64_t passes;
    _Atomic uint64_t pages;
    _Atomic uint64_t errors;
} load;

static void write_page(uint64_t page, uint64_t pass)
{
    uint64_t *words = load.words + page * PAGE_WORDS;
    for (uint64_t i = 0; i < PAGE_WORDS; i += STRIDE) {
        words[i] = pattern_word(page * PAGE_WORDS + i, pass);
    }
}

static bool page_is(uint64_t page, uint64_t pass)
{
    const uint64_t *words = load.words + page * PAGE_WORDS;
    for (uint64_t i = 0; i < PAGE_WORDS; i += STRIDE) {
        if (words[i] != pattern_word(page * PAGE_WORDS + i, pass)) {
            return false;
        }
    }
    return true;
}

// Each @mib_per_second-th of a second a MiB, counted from @start, so that lost time is caught up.
static void keep_rate(const struct timespec *start, uint64_t mib_done)
{
    if (load.mib_per_second == 0) {
        return;
    }
    uint64_t due_ns = mib_done * 1000000000 / load.mib_per_second + (uint64_t)start->tv_nsec;
    struct timespec due = {.tv_sec = start->tv_sec + (time_t)(due_ns / 1000000000),
                           .tv_nsec = (long)(due_ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) {
    }
}

static void *run(void *unused)
{
    (void)unused;
    uint64_t pages = load.mib * PAGES_A_MIB;
    for (uint64_t page = 0; page < pages; page++) {
        write_page(page, 0);
    }
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t mib_done = 0;
    for (uint64_t pass = 1;; pass++) {
        for (uint64_t page = 0; page < pages; page++) {
            if (!page_is(page, pass - 1)) {
                load.errors++;
            }
            write_page(page, pass);
            load.pages++;
            if (page % PAGES_A_MIB == PAGES_A_MIB - 1) {
                keep_rate(&start, ++mib_done);
            }
        }
        load.passes++;
    }
    return NULL;
}

int memory_load_start(uint64_t mib, uint64_t mib_per_second)
{
    if (load.words != NULL || mib == 0 || mib > 1024 * 1024) {
        errno = load.words != NULL ? EBUSY : EINVAL;
        return -1;
    }
    void *area = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return -1;
    }
    load.words = area;
    load.mib = mib;
    load.mib_per_second = mib_per_second;
    pthread_t thread;
    errno = pthread_create(&thread, NULL, run, NULL);
    return errno == 0 ? 0 : -1;
}

void memory_load_report(struct memory_report *out)
{
    *out = (struct memory_report){
        .mib = load.mib, .passes = load.passes, .pages = load.pages, .errors = load.errors};
}
