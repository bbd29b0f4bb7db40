/* virtio-rng and virtio-balloon. */
#include <criterion/criterion.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node-agent/vmm/devices/devices.h"
#include "tests/unit/vmm/virtio_driver.h"

#define CONFIG 0x2000u
#define BUFFER 0x300000u
#define PAGES  0x400000u

Test(virtio_rng, it_fills_what_it_says)
{
    struct machine machine;
    struct driver driver;
    struct error err = ERROR_INIT;
    uint32_t head, length;
    machine_init(&machine);
    cr_assert_eq(virtio_rng_new(machine.pci, machine.loop, &err), 0);
    driver_start(&driver, &machine, 1, 0, 1, 8);
    const struct segment chain[] = {{BUFFER, 40, true}, {BUFFER + 0x1000, 4000, true}};
    (void)driver_add(&driver, 0, chain, 2);
    driver_kick(&driver, 0);
    cr_assert(driver_used(&driver, 0, &head, &length));
    cr_assert_eq(length, 1024);
    const uint8_t *ram = machine.memory.base;
    unsigned zeros = 0;
    for (unsigned i = 0; i < 40; i++)
        zeros += ram[BUFFER + i] == 0;
    for (unsigned i = 0; i < 984; i++)
        zeros += ram[BUFFER + 0x1000 + i] == 0;
    cr_assert_lt(zeros, 40, "about 4 are expected");
    cr_assert_eq(ram[BUFFER + 0x1000 + 984], 0, "not more than said");
    const struct segment readable = {BUFFER, 40, false};
    (void)driver_add(&driver, 0, &readable, 1);
    driver_kick(&driver, 0);
    cr_assert(driver_used(&driver, 0, &head, &length));
    cr_assert_eq(length, 0);
    machine_destroy(&machine);
}

struct inflatable {
    struct machine machine;
    struct driver driver;
    struct virtio_balloon *balloon;
};

static void open_balloon(struct inflatable *balloon)
{
    struct error err = ERROR_INIT;
    machine_init(&balloon->machine);
    balloon->balloon = virtio_balloon_new(balloon->machine.pci, balloon->machine.loop, &err);
    cr_assert_not_null(balloon->balloon, "%s", err.text);
}

static struct inflatable *balloon_new(void)
{
    struct inflatable *balloon = calloc(1, sizeof *balloon);
    open_balloon(balloon);
    cr_assert_eq(virtio_balloon_kept(balloon->balloon), 0, "no driver yet");
    driver_start(&balloon->driver, &balloon->machine, 1,
                 1ull << VIRTIO_BALLOON_F_REPORTING | 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM, 3,
                 8);
    return balloon;
}

static void balloon_free(struct inflatable *balloon)
{
    machine_destroy(&balloon->machine);
    free(balloon);
}

static bool resident(const struct inflatable *balloon, uint64_t gpa)
{
    unsigned char there;
    cr_assert_eq(mincore(balloon->machine.memory.base + gpa, 4096, &there), 0);
    return there & 1;
}

static bool is_dirty(const struct inflatable *balloon, uint64_t gpa)
{
    return balloon->machine.memory.own_dirty[gpa >> 18] & (1ull << ((gpa >> 12) & 63));
}

Test(virtio_balloon, given_pages_go_back_to_the_host)
{
    struct inflatable *balloon = balloon_new();
    uint8_t *ram = balloon->machine.memory.base;
    uint32_t head, length;
    memset(ram + PAGES, 0x77, 16 * 4096);
    const uint32_t pfns[] = {(PAGES >> 12) + 3, (PAGES >> 12) + 1, (PAGES >> 12) + 2,
                             0xffffffff /* not RAM */, (PAGES >> 12) + 9};
    memcpy(ram + BUFFER, pfns, sizeof pfns);
    const struct segment chain = {BUFFER, sizeof pfns, false};
    (void)driver_add(&balloon->driver, 0, &chain, 1);
    driver_kick(&balloon->driver, 0);
    cr_assert(driver_used(&balloon->driver, 0, &head, &length));
    for (unsigned page = 0; page < 16; page++) {
        bool given = (page >= 1 && page <= 3) || page == 9;
        cr_assert_eq(resident(balloon, PAGES + 4096 * page), !given, "page %u", page);
        cr_assert_eq(is_dirty(balloon, PAGES + 4096 * page), given, "page %u", page);
    }
    cr_assert_eq(ram[PAGES + 4096], 0);
    balloon_free(balloon);
}

Test(virtio_balloon, reported_memory_leaves_whole_pages_only)
{
    struct inflatable *balloon = balloon_new();
    uint8_t *ram = balloon->machine.memory.base;
    uint32_t head, length;
    memset(ram + PAGES, 0x77, 16 * 4096);
    const struct segment chain[] = {{PAGES + 100, 4096 * 3, true}, {PAGES + 8 * 4096, 4096, true}};
    (void)driver_add(&balloon->driver, 2, chain, 2);
    driver_kick(&balloon->driver, 2);
    cr_assert(driver_used(&balloon->driver, 2, &head, &length));
    const bool gone[] = {false, true, true, false, false, false, false, false, true, false};
    for (unsigned page = 0; page < 10; page++)
        cr_assert_eq(resident(balloon, PAGES + 4096 * page), !gone[page], "page %u", page);
    balloon_free(balloon);
}

Test(virtio_balloon, the_target_reaches_the_guest_and_its_answer_us)
{
    struct inflatable *balloon = balloon_new();
    cr_assert_eq(virtio_balloon_kept(balloon->balloon), 16);
    cr_assert_eq(driver_read(&balloon->driver, CONFIG, 4), 0);
    (void)fake_irq_take(balloon->machine.irqs, 0);
    virtio_balloon_set(balloon->balloon, 10);
    cr_assert_eq(fake_irq_take(balloon->machine.irqs, 0), 1);
    cr_assert_eq(driver_read(&balloon->driver, CONFIG, 4), 6 * 256);
    driver_write(&balloon->driver, CONFIG + 4, 6 * 256, 4);
    cr_assert_eq(virtio_balloon_kept(balloon->balloon), 10);
    driver_write(&balloon->driver, CONFIG + 4, 0xffffffff, 4); /* a lie */
    cr_assert_eq(virtio_balloon_kept(balloon->balloon), 0);
    driver_write(&balloon->driver, CONFIG, 1, 4);
    cr_assert_eq(driver_read(&balloon->driver, CONFIG, 4), 6 * 256, "ours alone");
    virtio_balloon_set(balloon->balloon, UINT64_MAX);
    cr_assert_eq(driver_read(&balloon->driver, CONFIG, 4), 0);
    driver_write(&balloon->driver, 20, 0, 1);
    cr_assert_eq(virtio_balloon_kept(balloon->balloon), 0, "no driver after a reset");
    balloon_free(balloon);
}

Test(virtio_balloon, the_numbers_move_with_the_guest)
{
    struct inflatable *balloon = balloon_new();
    struct inflatable *target = calloc(1, sizeof *target);
    open_balloon(target);
    virtio_balloon_set(balloon->balloon, 12);
    driver_write(&balloon->driver, CONFIG + 4, 512, 4);
    machine_migrate(&balloon->machine, &target->machine);
    target->driver = balloon->driver;
    target->driver.machine = &target->machine;
    cr_assert_eq(driver_read(&target->driver, CONFIG, 4), 1024);
    cr_assert_eq(driver_read(&target->driver, CONFIG + 4, 4), 512);
    cr_assert_eq(virtio_balloon_kept(target->balloon), 14);
    balloon_free(target);
    balloon_free(balloon);
}

Test(virtio_balloon, a_list_too_long_needs_a_reset)
{
    struct inflatable *balloon = balloon_new();
    const struct segment chain = {BUFFER, 4100, false};
    (void)driver_add(&balloon->driver, 0, &chain, 1);
    driver_kick(&balloon->driver, 0);
    machine_settle(&balloon->machine);
    cr_assert(driver_status(&balloon->driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    balloon_free(balloon);
}
