#include "tests/unit/vmm/virtio_driver.h"

#include <criterion/criterion.h>
#include <linux/kvm.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/clock.h"
#include "node-agent/vmm/layout.h"

#define RAM_BYTES    (16u << 20)
#define NOTIFY       0x3000u
#define TABLE        0x4000u
#define COMMON(name) offsetof(struct virtio_pci_common_cfg, name)

static void build(struct machine *machine, int vm_fd)
{
    struct error err = ERROR_INIT;
    cr_assert_eq(guest_memory_create(&machine->memory, RAM_BYTES, false, &err), 0);
    machine->ports = bus_new(&err);
    machine->mmio = bus_new(&err);
    machine->irqs = irq_chip_new(vm_fd, &err);
    machine->loop = loop_new(&err);
    const struct pci_host host = {.memory = &machine->memory,
                                  .ports = machine->ports,
                                  .mmio = machine->mmio,
                                  .irqs = machine->irqs,
                                  .vm_fd = vm_fd};
    machine->pci = pci_bus_new(&host, &err);
    cr_assert(machine->pci != NULL, "%s", err.text);
}

void machine_init(struct machine *machine)
{
    build(machine, -1);
}

void machine_init_kvm(struct machine *machine, int vm_fd)
{
    build(machine, vm_fd);
    struct kvm_userspace_memory_region slot = {.memory_size = RAM_BYTES,
                                               .userspace_addr = (uintptr_t)machine->memory.base};
    cr_assert_eq(ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot), 0);
}

void machine_destroy(struct machine *machine)
{
    pci_bus_free(machine->pci);
    loop_free(machine->loop);
    irq_chip_free(machine->irqs);
    bus_free(machine->ports);
    bus_free(machine->mmio);
    guest_memory_destroy(&machine->memory);
}

const struct device *machine_device(const struct machine *machine, unsigned slot)
{
    const struct device *devices;
    cr_assert(pci_bus_devices(machine->pci, &devices) > slot);
    return &devices[slot];
}

static void move_device(struct machine *from, struct machine *to, unsigned slot)
{
    struct error err = ERROR_INIT;
    struct device_state state = {0};
    const struct device *source = machine_device(from, slot);
    const struct device *target = machine_device(to, slot);
    cr_assert_str_eq(source->name, target->name);
    cr_assert(source->ops->save(source->self, &state, &err) == 0, "%s", err.text);
    cr_assert(target->ops->load(target->self, &state, &err) == 0, "%s", err.text);
    free(state.data);
}

void machine_migrate(struct machine *from, struct machine *to)
{
    struct error err = ERROR_INIT;
    const struct device *devices;
    unsigned count = pci_bus_devices(from->pci, &devices);
    for (unsigned slot = 0; slot < count; slot++)
        cr_assert(devices[slot].ops->pause(devices[slot].self, &err) == 0, "%s", err.text);
    memcpy(to->memory.base, from->memory.base, RAM_BYTES);
    for (unsigned slot = 0; slot < count; slot++)
        move_device(from, to, slot);
}

void machine_settle(struct machine *machine)
{
    struct error err = ERROR_INIT;
    for (unsigned i = 0; i < 10; i++)
        cr_assert(loop_run_once(machine->loop, 0, &err) == 0);
}

uint32_t config_get(struct machine *machine, unsigned slot, uint32_t offset, unsigned length)
{
    uint32_t value = 0;
    bus_read(machine->mmio, LAYOUT_ECAM_START + ((uint64_t)slot << 15) + offset, &value, length);
    return value;
}

void config_set(struct machine *machine, unsigned slot, uint32_t offset, uint32_t value,
                unsigned length)
{
    bus_write(machine->mmio, LAYOUT_ECAM_START + ((uint64_t)slot << 15) + offset, &value, length);
}

uint32_t driver_read(const struct driver *driver, uint32_t offset, unsigned length)
{
    uint32_t value = 0;
    bus_read(driver->machine->mmio, driver->bar + offset, &value, length);
    return value;
}

void driver_write(const struct driver *driver, uint32_t offset, uint32_t value, unsigned length)
{
    bus_write(driver->machine->mmio, driver->bar + offset, &value, length);
}

uint8_t driver_status(const struct driver *driver)
{
    return (uint8_t)driver_read(driver, COMMON(device_status), 1);
}

static void write64(const struct driver *driver, uint32_t offset, uint64_t value)
{
    driver_write(driver, offset, (uint32_t)value, 4);
    driver_write(driver, offset + 4, (uint32_t)(value >> 32), 4);
}

static unsigned find_msix(struct machine *machine, unsigned slot)
{
    unsigned at = config_get(machine, slot, PCI_CAPABILITY_LIST, 1);
    while (at && config_get(machine, slot, at, 1) != PCI_CAP_ID_MSIX)
        at = config_get(machine, slot, at + 1, 1);
    cr_assert(at != 0);
    return at;
}

static void setup_queue(struct driver *driver, unsigned index, uint16_t size)
{
    struct driver_queue *queue = &driver->queues[index];
    uint64_t base = 0x10000u * (1 + index) + 0x100000ull * driver->slot;
    *queue = (struct driver_queue){
        .table = base, .avail = base + 0x4000, .used = base + 0x8000, .size = size};
    memset(driver->machine->memory.base + base, 0, 0x10000);
    driver_write(driver, COMMON(queue_select), index, 2);
    driver_write(driver, COMMON(queue_size), size, 2);
    driver_write(driver, COMMON(queue_msix_vector), index + 1, 2);
    cr_assert_eq(driver_read(driver, COMMON(queue_msix_vector), 2), index + 1);
    write64(driver, COMMON(queue_desc_lo), queue->table);
    write64(driver, COMMON(queue_avail_lo), queue->avail);
    write64(driver, COMMON(queue_used_lo), queue->used);
    driver_write(driver, COMMON(queue_enable), 1, 2);
}

void driver_start(struct driver *driver, struct machine *machine, unsigned slot, uint64_t features,
                  unsigned queues, uint16_t size)
{
    *driver = (struct driver){.machine = machine, .slot = slot};
    config_set(machine, slot, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    driver->bar = config_get(machine, slot, PCI_BASE_ADDRESS_0, 4) & ~0xfu;
    driver->features = features | 1ull << VIRTIO_F_VERSION_1;
    driver_write(driver, COMMON(device_status), 0, 1);
    driver_write(driver, COMMON(device_status), 3, 1);
    for (unsigned word = 0; word < 2; word++) {
        driver_write(driver, COMMON(guest_feature_select), word, 4);
        driver_write(driver, COMMON(guest_feature), (uint32_t)(driver->features >> (32 * word)), 4);
    }
    driver_write(driver, COMMON(device_status), 11, 1);
    cr_assert(driver_status(driver) & VIRTIO_CONFIG_S_FEATURES_OK);
    for (unsigned vector = 0; vector <= queues; vector++) {
        driver_write(driver, TABLE + 16 * vector, LAYOUT_LAPIC, 4);
        driver_write(driver, TABLE + 16 * vector + 8, 0x40 + vector, 4);
        driver_write(driver, TABLE + 16 * vector + 12, 0, 4);
    }
    config_set(machine, slot, find_msix(machine, slot) + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
    driver_write(driver, COMMON(msix_config), 0, 2);
    for (unsigned i = 0; i < queues; i++)
        setup_queue(driver, i, size);
    driver_write(driver, COMMON(device_status), 15, 1);
    cr_assert_eq(driver_status(driver), 15);
}

uint16_t driver_add(struct driver *driver, unsigned index, const struct segment *segments,
                    unsigned count)
{
    struct driver_queue *queue = &driver->queues[index];
    uint8_t *ram = driver->machine->memory.base;
    struct vring_desc *table = (struct vring_desc *)(ram + queue->table);
    struct vring_avail *avail = (struct vring_avail *)(ram + queue->avail);
    uint16_t head = queue->next_descriptor;
    for (unsigned i = 0; i < count; i++) {
        unsigned at = (head + i) % queue->size;
        table[at] = (struct vring_desc){
            .addr = segments[i].gpa,
            .len = segments[i].length,
            .flags = (uint16_t)((segments[i].writable ? VRING_DESC_F_WRITE : 0) |
                                (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
            .next = (uint16_t)((at + 1) % queue->size),
        };
    }
    queue->next_descriptor = (uint16_t)((head + count) % queue->size);
    avail->ring[queue->avail_index % queue->size] = head;
    queue->avail_index++;
    __atomic_store_n(&avail->idx, queue->avail_index, __ATOMIC_RELEASE);
    return head;
}

void driver_kick(const struct driver *driver, unsigned index)
{
    driver_write(driver, NOTIFY + 4 * index, index, 2);
}

bool driver_used(struct driver *driver, unsigned index, uint32_t *head, uint32_t *length)
{
    struct driver_queue *queue = &driver->queues[index];
    struct error err = ERROR_INIT;
    struct vring_used *used = (struct vring_used *)(driver->machine->memory.base + queue->used);
    int64_t give_up_ms = clock_monotonic_ms() + 5000;
    while (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == queue->seen_used) {
        if (clock_monotonic_ms() > give_up_ms)
            return false;
        cr_assert(loop_run_once(driver->machine->loop, 1, &err) == 0);
    }
    *head = used->ring[queue->seen_used % queue->size].id;
    *length = used->ring[queue->seen_used % queue->size].len;
    queue->seen_used++;
    return true;
}
