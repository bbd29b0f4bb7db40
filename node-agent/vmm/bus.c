#include "node-agent/vmm/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A handler that runs now; lives on the stack of its thread. */
struct access {
    pthread_t thread;
    struct access *next;
};

struct range {
    uint64_t start;
    uint64_t length;
    const struct bus_ops *ops;
    void *device;
    struct access *accesses;
    unsigned references; /* one for the table, one an access; freed at 0 */
};

struct bus {
    pthread_mutex_t lock;  /* guards everything below; never held while a handler runs */
    pthread_cond_t left;   /* an access ended */
    struct range **ranges; /* sorted by start */
    size_t count;
    size_t capacity;
};

struct bus *bus_new(struct error *err)
{
    struct bus *bus = calloc(1, sizeof *bus);
    if (!bus) {
        (void)error_errno(err, ENOMEM, "bus");
        return NULL;
    }
    (void)pthread_mutex_init(&bus->lock, NULL);
    (void)pthread_cond_init(&bus->left, NULL);
    return bus;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    for (size_t i = 0; i < bus->count; i++)
        free(bus->ranges[i]);
    free(bus->ranges);
    (void)pthread_mutex_destroy(&bus->lock);
    (void)pthread_cond_destroy(&bus->left);
    free(bus);
}

/* Index of the first range that starts above @address. */
static size_t upper_bound(const struct bus *bus, uint64_t address)
{
    size_t low = 0;
    size_t high = bus->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bus->ranges[middle]->start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The lock is held. Whether [@start, @start + @length) touches a range next to @place. */
static bool overlaps(const struct bus *bus, size_t place, uint64_t start, uint64_t length)
{
    if (place > 0) {
        const struct range *before = bus->ranges[place - 1];
        if (start - before->start < before->length)
            return true;
    }
    return place < bus->count && bus->ranges[place]->start - start < length;
}

/* The lock is held. */
static int reserve_one(struct bus *bus)
{
    if (bus->count < bus->capacity)
        return 0;
    size_t capacity = bus->capacity ? bus->capacity * 2 : 16;
    struct range **ranges = realloc(bus->ranges, capacity * sizeof(struct range *));
    if (!ranges)
        return -1;
    bus->ranges = ranges;
    bus->capacity = capacity;
    return 0;
}

int bus_add(struct bus *bus, uint64_t start, uint64_t length, const struct bus_ops *ops,
            void *device, struct error *err)
{
    if (length == 0 || start > UINT64_MAX - (length - 1))
        return error_set(err, ERROR_USAGE, "a bus range of %llu bytes at 0x%llx is impossible",
                         (unsigned long long)length, (unsigned long long)start);
    struct range *range = malloc(sizeof *range);
    if (!range)
        return error_errno(err, ENOMEM, "bus range");
    *range = (struct range){
        .start = start, .length = length, .ops = ops, .device = device, .references = 1};
    (void)pthread_mutex_lock(&bus->lock);
    size_t place = upper_bound(bus, start);
    int status = 0;
    if (overlaps(bus, place, start, length))
        status = error_set(err, ERROR_CONFLICT, "bus range 0x%llx+0x%llx is taken",
                           (unsigned long long)start, (unsigned long long)length);
    else if (reserve_one(bus) < 0)
        status = error_errno(err, ENOMEM, "bus range");
    if (status == 0) {
        memmove(bus->ranges + place + 1, bus->ranges + place,
                (bus->count - place) * sizeof(struct range *));
        bus->ranges[place] = range;
        bus->count++;
    }
    (void)pthread_mutex_unlock(&bus->lock);
    if (status < 0)
        free(range);
    return status;
}

/* The lock is held. */
static bool used_by_others(const struct range *range)
{
    for (const struct access *access = range->accesses; access; access = access->next)
        if (!pthread_equal(access->thread, pthread_self()))
            return true;
    return false;
}

/* The lock is held. */
static void release(struct range *range)
{
    if (--range->references == 0)
        free(range);
}

void bus_remove(struct bus *bus, uint64_t start)
{
    (void)pthread_mutex_lock(&bus->lock);
    size_t place = upper_bound(bus, start);
    if (place > 0 && bus->ranges[place - 1]->start == start) {
        struct range *range = bus->ranges[place - 1];
        memmove(bus->ranges + place - 1, bus->ranges + place,
                (bus->count - place) * sizeof(struct range *));
        bus->count--;
        while (used_by_others(range))
            (void)pthread_cond_wait(&bus->left, &bus->lock);
        release(range);
    }
    (void)pthread_mutex_unlock(&bus->lock);
}

/* Finds who answers [@address, @address + @length) and notes that @access runs its handler. */
static struct range *enter(struct bus *bus, uint64_t address, unsigned length,
                           struct access *access)
{
    struct range *found = NULL;
    (void)pthread_mutex_lock(&bus->lock);
    size_t place = upper_bound(bus, address);
    if (place > 0) {
        struct range *range = bus->ranges[place - 1];
        uint64_t offset = address - range->start;
        if (offset < range->length && length <= range->length - offset)
            found = range;
    }
    if (found) {
        *access = (struct access){.thread = pthread_self(), .next = found->accesses};
        found->accesses = access;
        found->references++;
    }
    (void)pthread_mutex_unlock(&bus->lock);
    return found;
}

static void leave(struct bus *bus, struct range *range, struct access *access)
{
    (void)pthread_mutex_lock(&bus->lock);
    struct access **place = &range->accesses;
    while (*place != access)
        place = &(*place)->next;
    *place = access->next;
    release(range);
    (void)pthread_cond_broadcast(&bus->left);
    (void)pthread_mutex_unlock(&bus->lock);
}

void bus_read(struct bus *bus, uint64_t address, void *data, unsigned length)
{
    struct access access;
    memset(data, 0xff, length);
    struct range *range = enter(bus, address, length, &access);
    if (!range)
        return;
    if (range->ops->read)
        range->ops->read(range->device, address - range->start, data, length);
    leave(bus, range, &access);
}

void bus_write(struct bus *bus, uint64_t address, const void *data, unsigned length)
{
    struct access access;
    struct range *range = enter(bus, address, length, &access);
    if (!range)
        return;
    if (range->ops->write)
        range->ops->write(range->device, address - range->start, data, length);
    leave(bus, range, &access);
}
