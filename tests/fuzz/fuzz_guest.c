#include "tests/fuzz/fuzz_guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "node-agent/migration/uffd.h"

#define PAGE        4096u
#define RAM_BYTES   (FUZZ_RAM_PAGES * PAGE)
#define STATE_BYTES 200u

static int dirty_start(void *self, struct error *err)
{
    (void)self;
    (void)err;
    return 0;
}

static void dirty_stop(void *self)
{
    (void)self;
}

static int dirty_sync(void *self, uint64_t *bitmap, struct error *err)
{
    struct fuzz_guest *fuzz = self;
    (void)err;
    if (fuzz->dirty_rounds == 0 || atomic_load(&fuzz->paused))
        return 0;
    fuzz->dirty_rounds--;
    fuzz->guest.ram[2 * PAGE + 9]++;
    bitmap[0] |= 1u << 2;
    return 0;
}

static int dirty_clear(void *self, const uint64_t *bitmap, uint64_t first, uint64_t count,
                       struct error *err)
{
    (void)self;
    (void)bitmap;
    (void)err;
    if (first % 64 || first + count > FUZZ_RAM_PAGES)
        abort();
    return 0;
}

static int throttle(void *self, unsigned percent, struct error *err)
{
    (void)self;
    (void)err;
    if (percent > 99)
        abort();
    return 0;
}

static int pause_guest(void *self, struct error *err)
{
    struct fuzz_guest *fuzz = self;
    (void)err;
    atomic_store(&fuzz->paused, true);
    return 0;
}

static int resume_guest(void *self, struct error *err)
{
    struct fuzz_guest *fuzz = self;
    (void)err;
    if (atomic_load(&fuzz->gave_up))
        abort();
    atomic_store(&fuzz->paused, false);
    return 0;
}

static int save(void *self, uint8_t **state, size_t *size, struct error *err)
{
    (void)self;
    (void)err;
    *state = malloc(STATE_BYTES);
    if (!*state)
        abort();
    memset(*state, 's', STATE_BYTES);
    *size = STATE_BYTES;
    return 0;
}

static void give_up(void *self)
{
    struct fuzz_guest *fuzz = self;
    if (!atomic_load(&fuzz->paused))
        abort();
    atomic_store(&fuzz->gave_up, true);
}

/* Each byte is read, so that one beside it is seen. One that begins with a 0 is refused. */
static int load(void *self, const uint8_t *state, size_t size, struct error *err)
{
    struct fuzz_guest *fuzz = self;
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += state[i];
    if (atomic_load(&fuzz->runs) > 0 || size == 0)
        abort(); /* over a guest that runs */
    if (sum == 0 || state[0] == 0)
        return error_set(err, ERROR_FAILED, "no machine state");
    atomic_fetch_add(&fuzz->loads, 1);
    return 0;
}

static int run(void *self, uint64_t epoch, int64_t *running_ns, struct error *err)
{
    struct fuzz_guest *fuzz = self;
    (void)err;
    if (epoch <= FUZZ_EPOCH || atomic_load(&fuzz->loads) == 0 ||
        atomic_fetch_add(&fuzz->runs, 1) > 0)
        abort();
    *running_ns = clock_monotonic_ns();
    return 0;
}

/* Zeros, a word, text and what looks random, so that each codec has something. */
static void fill(uint8_t *ram)
{
    uint32_t x = 1;
    for (unsigned page = 0; page < FUZZ_FULL_PAGES; page++) {
        uint8_t *at = ram + (size_t)page * PAGE;
        for (unsigned i = 0; i < PAGE; i++) {
            x = x * 1664525u + 1013904223u;
            at[i] = page % 4 == 0   ? 0
                    : page % 4 == 1 ? 0x77
                    : page % 4 == 2 ? (uint8_t) "a guest moves. "[i % 15]
                                    : (uint8_t)(i < 1024 ? x >> 24 : 0);
        }
    }
}

void fuzz_guest_make(struct fuzz_guest *fuzz, bool full, bool watched)
{
    struct error ignored = ERROR_INIT;
    size_t size = RAM_BYTES + 2 * PAGE;
    *fuzz = (struct fuzz_guest){.ops = {.dirty_start = dirty_start,
                                        .dirty_stop = dirty_stop,
                                        .dirty_sync = dirty_sync,
                                        .dirty_clear = dirty_clear,
                                        .throttle = throttle,
                                        .pause = pause_guest,
                                        .resume = resume_guest,
                                        .save = save,
                                        .give_up = give_up,
                                        .load = load,
                                        .run = run}};
    fuzz->mapping = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fuzz->mapping == MAP_FAILED ||
        mprotect(fuzz->mapping + PAGE, RAM_BYTES, PROT_READ | PROT_WRITE) < 0)
        abort();
    fuzz->guest = (struct migration_guest){.ops = &fuzz->ops,
                                           .self = fuzz,
                                           .ram = fuzz->mapping + PAGE,
                                           .ram_bytes = RAM_BYTES,
                                           .pagemap_fd = -1,
                                           .uffd = watched ? uffd_open(true, &ignored) : -1,
                                           .vm_id = "8d7a1fb2-0000-4000-8000-00000000beef"};
    if (full)
        fill(fuzz->guest.ram);
}

void fuzz_guest_free(struct fuzz_guest *fuzz)
{
    if (munmap(fuzz->mapping, RAM_BYTES + 2 * PAGE) < 0)
        abort();
    if (fuzz->guest.uffd >= 0)
        close(fuzz->guest.uffd);
}
