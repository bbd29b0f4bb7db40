#include "node-agent/vmm/pci.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/layout.h"
#include "tests/unit/vmm/virtio_driver.h"

#define TABLE   0x4000u
#define PENDING 0x5000u

static void add_disk(struct machine *machine)
{
    struct error err = ERROR_INIT;
    int fd = memfd_create("disk", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    cr_assert_not_null(virtio_blk_new(machine->pci, fd, false, "serial", &err), "%s", err.text);
}

static uint32_t port_in(struct machine *machine, uint16_t port, unsigned length)
{
    uint32_t value = 0;
    bus_read(machine->ports, port, &value, length);
    return value;
}

static void port_out(struct machine *machine, uint16_t port, uint32_t value, unsigned length)
{
    bus_write(machine->ports, port, &value, length);
}

Test(pci, both_doors_show_the_host_bridge_and_nobody_else)
{
    struct machine machine;
    machine_init(&machine);
    cr_assert_eq(config_get(&machine, 0, PCI_CLASS_REVISION, 4) >> 8, 0x060000);
    port_out(&machine, 0xcf8, 0x80000000u | PCI_VENDOR_ID, 4);
    cr_assert_eq(port_in(&machine, 0xcf8, 4), 0x80000000u);
    cr_assert_eq(port_in(&machine, 0xcfc, 4), config_get(&machine, 0, PCI_VENDOR_ID, 4));
    cr_assert_eq(port_in(&machine, 0xcfe, 2), config_get(&machine, 0, PCI_DEVICE_ID, 2));
    cr_assert_eq(config_get(&machine, 1, PCI_VENDOR_ID, 4), 0xffffffff);
    port_out(&machine, 0xcf8, 0x80000000u | 1 << 11, 4);
    cr_assert_eq(port_in(&machine, 0xcfc, 4), 0xffffffff);
    port_out(&machine, 0xcf8, 0x80010000u, 4); /* bus 1 */
    cr_assert_eq(port_in(&machine, 0xcfc, 4), 0xffffffff);
    machine_destroy(&machine);
}

Test(pci, a_bar_is_sized_and_moved)
{
    struct machine machine;
    machine_init(&machine);
    add_disk(&machine);
    add_disk(&machine);
    uint32_t first = config_get(&machine, 1, PCI_BASE_ADDRESS_0, 4);
    uint32_t second = config_get(&machine, 2, PCI_BASE_ADDRESS_0, 4);
    cr_assert_geq(first, LAYOUT_PCI_MMIO_START);
    cr_assert_eq(second - first, 0x8000);
    config_set(&machine, 1, PCI_BASE_ADDRESS_0, 0xffffffff, 4);
    cr_assert_eq(config_get(&machine, 1, PCI_BASE_ADDRESS_0, 4), 0xffff8000);
    config_set(&machine, 1, PCI_BASE_ADDRESS_1, 0xffffffff, 4);
    cr_assert_eq(config_get(&machine, 1, PCI_BASE_ADDRESS_1, 4), 0);

    uint32_t probe = 0; /* num_queues */
    bus_read(machine.mmio, first + 18, &probe, 2);
    cr_assert_eq(probe, 0xffff, "decoding is off");
    config_set(&machine, 1, PCI_BASE_ADDRESS_0, first + 0x100000, 4);
    config_set(&machine, 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    bus_read(machine.mmio, first + 0x100000 + 18, &probe, 2);
    cr_assert_eq(probe, 1);
    config_set(&machine, 1, PCI_BASE_ADDRESS_0, LAYOUT_ECAM_START, 4); /* not in the window */
    bus_read(machine.mmio, first + 0x100000 + 18, &probe, 2);
    cr_assert_eq(probe, 0xffff);
    cr_assert_eq(config_get(&machine, 0, PCI_CLASS_REVISION, 4) >> 8, 0x060000);
    machine_destroy(&machine);
}

Test(pci, a_bar_laid_over_another_waits_until_that_one_leaves)
{
    struct machine machine;
    machine_init(&machine);
    add_disk(&machine);
    add_disk(&machine);
    uint32_t place = config_get(&machine, 1, PCI_BASE_ADDRESS_0, 4);
    config_set(&machine, 1, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    config_set(&machine, 2, PCI_BASE_ADDRESS_0, place, 4);
    config_set(&machine, 2, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    uint8_t acknowledge = 1;
    bus_write(machine.mmio, place + 20, &acknowledge, 1);
    config_set(&machine, 1, PCI_COMMAND, 0, 2);
    uint8_t status = 0xff;
    bus_read(machine.mmio, place + 20, &status, 1);
    cr_assert_eq(status, 0, "the second disk answers now");
    machine_destroy(&machine);
}

Test(pci, read_only_bits_stay)
{
    struct machine machine;
    machine_init(&machine);
    add_disk(&machine);
    uint32_t id = config_get(&machine, 1, PCI_VENDOR_ID, 4);
    cr_assert_eq(id, 0x10421af4);
    for (unsigned offset = 0; offset < 256; offset += 4)
        if (offset != PCI_BASE_ADDRESS_0)
            config_set(&machine, 1, offset, 0xffffffff, 4);
    cr_assert_eq(config_get(&machine, 1, PCI_VENDOR_ID, 4), id);
    cr_assert_eq(config_get(&machine, 1, PCI_CLASS_REVISION, 4), 0x01800001);
    cr_assert_eq(config_get(&machine, 1, PCI_HEADER_TYPE, 1), 0);
    cr_assert_eq(config_get(&machine, 1, 0x100, 4), 0, "no extended capabilities");
    cr_assert_eq(config_get(&machine, 1, 0xffe, 4), 0);
    machine_destroy(&machine);
}

Test(pci, the_window_reaches_the_bar_without_decoding)
{
    struct machine machine;
    machine_init(&machine);
    add_disk(&machine);
    unsigned at = config_get(&machine, 1, PCI_CAPABILITY_LIST, 1);
    while (config_get(&machine, 1, at, 1) != PCI_CAP_ID_VNDR ||
           config_get(&machine, 1, at + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG) {
        at = config_get(&machine, 1, at + 1, 1);
        cr_assert_neq(at, 0);
    }
    config_set(&machine, 1, at + VIRTIO_PCI_CAP_BAR, 0, 1);
    config_set(&machine, 1, at + VIRTIO_PCI_CAP_OFFSET, 20, 4);
    config_set(&machine, 1, at + VIRTIO_PCI_CAP_LENGTH, 1, 4);
    config_set(&machine, 1, at + 16, 3, 1);
    cr_assert_eq(config_get(&machine, 1, at + 16, 1), 3, "the status register");
    config_set(&machine, 1, at + VIRTIO_PCI_CAP_OFFSET, 0x8000, 4); /* behind the BAR */
    config_set(&machine, 1, at + 16, 0, 1);
    config_set(&machine, 1, at + VIRTIO_PCI_CAP_OFFSET, 20, 4);
    cr_assert_eq(config_get(&machine, 1, at + 16, 1), 3);
    machine_destroy(&machine);
}

/* Signals the queue's vector by a request the disk refuses to know. */
static void cause_interrupt(struct driver *driver)
{
    memset(driver->machine->memory.base + 0x80000, 0xee, 16);
    const struct segment chain[] = {{0x80000, 16, false}, {0x81000, 1, true}};
    uint32_t head, length;
    (void)driver_add(driver, 0, chain, 2);
    driver_kick(driver, 0);
    cr_assert(driver_used(driver, 0, &head, &length));
}

Test(pci, a_masked_vector_is_pending_until_unmasked)
{
    struct machine machine;
    struct driver driver;
    machine_init(&machine);
    add_disk(&machine);
    driver_start(&driver, &machine, 1, 0, 1, 8);
    cause_interrupt(&driver);
    const struct device *disk = machine_device(&machine, 1);
    struct error err = ERROR_INIT;
    cr_assert_eq(disk->ops->pause(disk->self, &err), 0); /* the worker is through */
    disk->ops->resume(disk->self, false);
    cr_assert_eq(fake_irq_take(machine.irqs, 1), 1);
    cr_assert_eq(driver_read(&driver, PENDING, 4), 0);
    driver_write(&driver, TABLE + 16 + 12, 1, 4);
    cause_interrupt(&driver);
    cr_assert_eq(disk->ops->pause(disk->self, &err), 0);
    disk->ops->resume(disk->self, false);
    cr_assert_eq(fake_irq_take(machine.irqs, 1), 0);
    cr_assert_eq(driver_read(&driver, PENDING, 4), 2);
    driver_write(&driver, TABLE + 16 + 12, 0, 4);
    cr_assert_eq(driver_read(&driver, PENDING, 4), 0);
    cr_assert_eq(fake_irq_take(machine.irqs, 1), 1);
    machine_destroy(&machine);
}

Test(pci, pending_bits_masks_and_places_survive_a_migration)
{
    struct machine source, target;
    struct driver driver;
    machine_init(&source);
    machine_init(&target);
    add_disk(&source);
    add_disk(&target);
    uint32_t place = config_get(&source, 1, PCI_BASE_ADDRESS_0, 4) + 0x200000;
    config_set(&source, 1, PCI_BASE_ADDRESS_0, place, 4);
    driver_start(&driver, &source, 1, 0, 1, 8);
    cr_assert_eq(driver.bar, place);
    driver_write(&driver, TABLE + 16 + 12, 1, 4);
    cause_interrupt(&driver);
    port_out(&source, 0xcf8, 0x80000804, 4);
    machine_migrate(&source, &target); /* a pause that led to nothing, then another */
    machine_migrate(&source, &target);
    machine_destroy(&source);

    driver.machine = &target;
    cr_assert_eq(port_in(&target, 0xcf8, 4), 0x80000804);
    cr_assert_eq(config_get(&target, 1, PCI_BASE_ADDRESS_0, 4), place);
    cr_assert_eq(driver_status(&driver), 15);
    cr_assert_eq(driver_read(&driver, PENDING, 4), 2);
    cr_assert_eq(driver_read(&driver, TABLE + 16 + 8, 4), 0x41);
    driver_write(&driver, TABLE + 16 + 12, 0, 4);
    cr_assert_eq(fake_irq_take(target.irqs, 1), 1);
    const struct device *disk = machine_device(&target, 1);
    disk->ops->resume(disk->self, true);
    cr_assert_geq(fake_irq_take(target.irqs, 0), 1, "the configuration's, in case it was lost");
    cause_interrupt(&driver);
    machine_destroy(&target);
}
