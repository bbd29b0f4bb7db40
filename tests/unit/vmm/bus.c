#include "node-agent/vmm/bus.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct recorder {
    struct bus *bus;
    uint64_t offset;
    uint64_t written;
    unsigned length;
    unsigned calls;
    uint64_t remove_at; /* removes this range from inside its handler */
    _Atomic bool inside;
    _Atomic bool go_on;
};

static void record_read(void *device, uint64_t offset, void *data, unsigned length)
{
    struct recorder *recorder = device;
    recorder->offset = offset;
    recorder->length = length;
    recorder->calls++;
    memset(data, 0x42, length);
}

static void record_write(void *device, uint64_t offset, const void *data, unsigned length)
{
    struct recorder *recorder = device;
    recorder->offset = offset;
    recorder->length = length;
    recorder->calls++;
    memcpy(&recorder->written, data, length);
    if (recorder->remove_at)
        bus_remove(recorder->bus, recorder->remove_at);
}

static const struct bus_ops record_ops = {record_read, record_write};

Test(bus, finds_the_one_who_claims)
{
    struct error err = ERROR_INIT;
    struct bus *bus = bus_new(&err);
    struct recorder low = {0}, high = {0};
    cr_assert_eq(bus_add(bus, 0x100, 0x10, &record_ops, &low, &err), 0);
    cr_assert_eq(bus_add(bus, 0x110, 0x10, &record_ops, &high, &err), 0);

    uint32_t value = 0;
    bus_read(bus, 0x10c, &value, 4);
    cr_assert_eq(value, 0x42424242);
    cr_assert_eq(low.offset, 0xc);
    bus_write(bus, 0x110, &(uint16_t){0xbeef}, 2);
    cr_assert_eq(high.written, 0xbeef);
    cr_assert_eq(high.offset, 0);
    cr_assert_eq(low.calls, 1);
    bus_free(bus);
}

Test(bus, nobody_reads_as_ones)
{
    struct error err = ERROR_INIT;
    struct bus *bus = bus_new(&err);
    struct recorder device = {0};
    cr_assert_eq(bus_add(bus, 0x100, 0x10, &record_ops, &device, &err), 0);

    const uint64_t nobody[] = {0, 0xff, 0x110, 0x10e, UINT64_MAX, UINT64_MAX - 2};
    for (unsigned i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        uint32_t value = 0;
        bus_read(bus, nobody[i], &value, 4);
        cr_expect_eq(value, 0xffffffff, "0x%lx", nobody[i]);
        bus_write(bus, nobody[i], &value, 4);
    }
    cr_assert_eq(device.calls, 0);
    bus_free(bus);
}

Test(bus, overlaps_are_refused)
{
    struct error err = ERROR_INIT;
    struct bus *bus = bus_new(&err);
    struct recorder device = {0};
    cr_assert_eq(bus_add(bus, 0x100, 0x10, &record_ops, &device, &err), 0);
    const uint64_t bad[][2] = {{0x100, 0x10}, {0x10f, 1}, {0xf0, 0x11}, {0, 0x1000}, {0x104, 4}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(bus_add(bus, bad[i][0], bad[i][1], &record_ops, &device, &err), -1);
        cr_expect_eq(err.kind, ERROR_CONFLICT);
    }
    cr_expect_eq(bus_add(bus, 0x200, 0, &record_ops, &device, &err), -1);
    cr_expect_eq(bus_add(bus, UINT64_MAX, 2, &record_ops, &device, &err), -1);
    cr_expect_eq(bus_add(bus, UINT64_MAX, 1, &record_ops, &device, &err), 0);
    cr_expect_eq(bus_add(bus, 0xf0, 0x10, &record_ops, &device, &err), 0);
    bus_free(bus);
}

Test(bus, a_handler_may_remove_its_own_range_and_others)
{
    struct error err = ERROR_INIT;
    struct bus *bus = bus_new(&err);
    struct recorder self = {.bus = bus, .remove_at = 0x100};
    struct recorder other = {.bus = bus, .remove_at = 0x300};
    struct recorder victim = {0};
    cr_assert_eq(bus_add(bus, 0x100, 0x10, &record_ops, &self, &err), 0);
    cr_assert_eq(bus_add(bus, 0x200, 0x10, &record_ops, &other, &err), 0);
    cr_assert_eq(bus_add(bus, 0x300, 0x10, &record_ops, &victim, &err), 0);
    uint8_t byte = 1;
    bus_write(bus, 0x100, &byte, 1);
    bus_write(bus, 0x100, &byte, 1);
    cr_assert_eq(self.calls, 1);
    bus_write(bus, 0x200, &byte, 1);
    bus_write(bus, 0x300, &byte, 1);
    cr_assert_eq(victim.calls, 0);
    bus_free(bus);
}

static void wait_inside(void *device, uint64_t offset, const void *data, unsigned length)
{
    (void)offset, (void)data, (void)length;
    struct recorder *recorder = device;
    atomic_store(&recorder->inside, true);
    while (!atomic_load(&recorder->go_on))
        sched_yield();
    recorder->calls++;
}

static void *write_thread(void *context)
{
    struct bus *bus = context;
    bus_write(bus, 0x100, &(uint8_t){0}, 1);
    return NULL;
}

static void *release_thread(void *context)
{
    struct recorder *recorder = context;
    atomic_store(&recorder->go_on, true);
    return NULL;
}

Test(bus, remove_waits_for_handlers_of_other_threads)
{
    struct error err = ERROR_INIT;
    struct bus *bus = bus_new(&err);
    struct recorder device = {0};
    const struct bus_ops ops = {NULL, wait_inside};
    cr_assert_eq(bus_add(bus, 0x100, 1, &ops, &device, &err), 0);
    pthread_t writer, releaser;
    pthread_create(&writer, NULL, write_thread, bus);
    while (!atomic_load(&device.inside))
        sched_yield();
    pthread_create(&releaser, NULL, release_thread, &device);
    bus_remove(bus, 0x100);
    cr_assert_eq(device.calls, 1, "remove returned while the handler ran");
    pthread_join(writer, NULL);
    pthread_join(releaser, NULL);
    bus_free(bus);
}
