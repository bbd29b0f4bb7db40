#include "fake_guest.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "node-agent/migration/uffd.h"

#define STATE_BYTES 100000u

static uint64_t pages_of(const struct fake_guest *fake)
{
    return fake->guest.ram_bytes / 4096;
}

static int note(struct fake_guest *fake, enum fake_event event, struct error *err)
{
    atomic_fetch_add(&fake->events[event], 1);
    if (fake->hook)
        fake->hook(fake, event, fake->hook_context);
    return fake->fail[event] ? error_set(err, ERROR_FAILED, "the test wants it so") : 0;
}

static int dirty_start(void *self, struct error *err)
{
    struct fake_guest *fake = self;
    fake->logging = true;
    return note(fake, FAKE_DIRTY_START, err);
}

static void dirty_stop(void *self)
{
    ((struct fake_guest *)self)->logging = false;
}

static int dirty_sync(void *self, uint64_t *bitmap, struct error *err)
{
    struct fake_guest *fake = self;
    (void)err;
    pthread_mutex_lock(&fake->lock);
    for (uint64_t i = 0; i < (pages_of(fake) + 63) / 64; i++) {
        bitmap[i] |= fake->log[i] | fake->own[i];
        fake->own[i] = 0;
    }
    pthread_mutex_unlock(&fake->lock);
    return 0;
}

static int dirty_clear(void *self, const uint64_t *bitmap, uint64_t first, uint64_t count,
                       struct error *err)
{
    struct fake_guest *fake = self;
    if (note(fake, FAKE_DIRTY_CLEAR, err) < 0)
        return -1;
    cr_assert(first % 64 == 0);
    cr_assert(count % 64 == 0 || first + count == pages_of(fake));
    pthread_mutex_lock(&fake->lock);
    for (uint64_t i = first / 64; i < (first + count + 63) / 64; i++)
        fake->log[i] &= ~bitmap[i];
    pthread_mutex_unlock(&fake->lock);
    return 0;
}

static int pause_guest(void *self, struct error *err)
{
    struct fake_guest *fake = self;
    if (note(fake, FAKE_PAUSE, err) < 0)
        return -1;
    pthread_mutex_lock(&fake->lock);
    atomic_store(&fake->stopped, true);
    fake->paused_ns = clock_monotonic_ns();
    pthread_mutex_unlock(&fake->lock);
    return 0;
}

static int resume_guest(void *self, struct error *err)
{
    struct fake_guest *fake = self;
    cr_assert(!fake->gave_up);
    if (note(fake, FAKE_RESUME, err) < 0)
        return -1;
    pthread_mutex_lock(&fake->lock);
    int64_t pause_ns = clock_monotonic_ns() - fake->paused_ns;
    if (pause_ns > fake->longest_pause_ns)
        fake->longest_pause_ns = pause_ns;
    atomic_store(&fake->stopped, false);
    pthread_mutex_unlock(&fake->lock);
    return 0;
}

/* Saving writes to RAM itself, as real devices do. */
static int save(void *self, uint8_t **state, size_t *size, struct error *err)
{
    struct fake_guest *fake = self;
    if (note(fake, FAKE_SAVE, err) < 0)
        return -1;
    pthread_mutex_lock(&fake->lock);
    fake->guest.ram[4096 * 7 + 5]++;
    fake->own[0] |= 1ull << 7;
    pthread_mutex_unlock(&fake->lock);
    *state = malloc(STATE_BYTES);
    *size = STATE_BYTES;
    for (size_t i = 0; i < STATE_BYTES; i++)
        (*state)[i] = (uint8_t)(i * 7 + i / 256);
    return 0;
}

static void give_up(void *self)
{
    struct fake_guest *fake = self;
    struct error ignored = ERROR_INIT;
    (void)note(fake, FAKE_GIVE_UP, &ignored);
    fake->gave_up = true;
}

static int load(void *self, const uint8_t *state, size_t size, struct error *err)
{
    struct fake_guest *fake = self;
    if (note(fake, FAKE_LOAD, err) < 0)
        return -1;
    free(fake->loaded);
    fake->loaded = malloc(size);
    memcpy(fake->loaded, state, size);
    fake->loaded_size = size;
    return 0;
}

static int run(void *self, uint64_t epoch, int64_t *running_ns, struct error *err)
{
    struct fake_guest *fake = self;
    if (note(fake, FAKE_RUN, err) < 0)
        return -1;
    cr_assert_eq(fake->loaded_size, STATE_BYTES);
    for (size_t i = 0; i < STATE_BYTES; i++)
        cr_assert_eq(fake->loaded[i], (uint8_t)(i * 7 + i / 256));
    fake->running = true;
    fake->run_epoch = epoch;
    *running_ns = clock_monotonic_ns();
    return 0;
}

static void hold(void *self, bool held)
{
    struct fake_guest *fake = self;
    struct error ignored = ERROR_INIT;
    (void)note(fake, FAKE_HOLD, &ignored);
    atomic_store(&fake->held, held);
}

static const struct migration_guest_ops fake_ops = {
    .dirty_start = dirty_start,
    .dirty_stop = dirty_stop,
    .dirty_sync = dirty_sync,
    .dirty_clear = dirty_clear,
    .pause = pause_guest,
    .resume = resume_guest,
    .save = save,
    .give_up = give_up,
    .load = load,
    .run = run,
    .hold = hold,
};

struct fake_guest *fake_guest_new(unsigned mib, bool plain)
{
    struct fake_guest *fake = calloc(1, sizeof(*fake));
    uint64_t bytes = (uint64_t)mib << 20;
    pthread_mutex_init(&fake->lock, NULL);
    int fd = plain ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    cr_assert(plain || fd >= 0);
    void *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(ram, MAP_FAILED);
    fake->guest = (struct migration_guest){.ops = &fake_ops,
                                           .self = fake,
                                           .ram = ram,
                                           .ram_bytes = bytes,
                                           .pagemap_fd = fd,
                                           .uffd = -1};
    strcpy(fake->guest.vm_id, "8d7a1fb2-0000-4000-8000-00000000beef");
    fake->log = calloc(bytes / 4096 / 64 + 1, sizeof(uint64_t));
    fake->own = calloc(bytes / 4096 / 64 + 1, sizeof(uint64_t));
    return fake;
}

void fake_guest_watch(struct fake_guest *fake)
{
    struct error err = ERROR_INIT;
    fake->guest.uffd = uffd_open(true, &err);
    cr_assert_geq(fake->guest.uffd, 0, "%s", err.text);
}

void fake_guest_free(struct fake_guest *fake)
{
    atomic_store(&fake->quit, true);
    if (fake->writing)
        pthread_join(fake->writer, NULL);
    munmap(fake->guest.ram, fake->guest.ram_bytes);
    if (fake->guest.uffd >= 0)
        close(fake->guest.uffd);
    if (fake->guest.pagemap_fd >= 0)
        close(fake->guest.pagemap_fd);
    free(fake->log);
    free(fake->own);
    free(fake->loaded);
    free(fake);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

void fake_guest_fill(struct fake_guest *fake, uint64_t pages)
{
    uint64_t x = 88172645463325252ull;
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t *words = (uint64_t *)(fake->guest.ram + page * 4096);
        for (unsigned i = 0; page % 4 != 3 && i < 512; i++)
            words[i] = next_random(&x);
    }
}

/* The guest's own write, which races with who reads RAM, as it shall. ThreadSanitizer must not see
 * it: even a report that is suppressed takes longer than the migration that is tested. */
__attribute__((noinline, no_sanitize("thread"))) static void write_ram(volatile uint8_t *page,
                                                                       uint64_t x)
{
    bool zeros = x % 8 == 0; /* pages become zeros, too */
    volatile uint8_t *at = zeros ? page : page + x / 8 % 4000;
    for (unsigned i = 0; i < (zeros ? 4096 : 64); i++)
        at[i] = zeros ? 0 : (uint8_t)(x / 4096);
}

static void write_one(struct fake_guest *fake, uint64_t *x)
{
    uint64_t page = next_random(x) % fake->ws_pages;
    pthread_mutex_lock(&fake->lock);
    if (!atomic_load(&fake->stopped)) {
        write_ram(fake->guest.ram + page * 4096, *x);
        uint64_t bit = 1ull << page % 64;
        if (*x % 16 == 1)
            fake->own[page / 64] |= bit;
        else
            fake->log[page / 64] |= bit;
    }
    pthread_mutex_unlock(&fake->lock);
}

static void *run_writer(void *context)
{
    struct fake_guest *fake = context;
    uint64_t x = 1234567;
    while (!atomic_load(&fake->quit)) {
        for (uint64_t i = 0; i < fake->pages_per_ms; i++)
            write_one(fake, &x);
        struct timespec pace = {.tv_nsec = 1000000};
        nanosleep(&pace, NULL);
    }
    return NULL;
}

void fake_guest_write(struct fake_guest *fake, uint64_t ws_pages, uint64_t pages_per_ms)
{
    fake->ws_pages = ws_pages;
    fake->pages_per_ms = pages_per_ms;
    fake->writing = true;
    cr_assert_eq(pthread_create(&fake->writer, NULL, run_writer, fake), 0);
}

void fake_guest_assert_equal(const struct fake_guest *a, const struct fake_guest *b)
{
    for (uint64_t page = 0; page < pages_of(a); page++)
        cr_assert_eq(memcmp(a->guest.ram + page * 4096, b->guest.ram + page * 4096, 4096), 0,
                     "page %llu differs", (unsigned long long)page);
}
