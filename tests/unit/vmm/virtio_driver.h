/*
 * virtio_driver.h: a guest for unit tests: RAM, buses, a PCI bus, interrupts without KVM, and a
 * virtio driver that does everything by register accesses and rings in RAM as a real one would.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/loop.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/guest_memory.h"
#include "node-agent/vmm/irq.h"
#include "node-agent/vmm/pci.h"

struct machine {
    struct guest_memory memory;
    struct bus *ports;
    struct bus *mmio;
    struct irq_chip *irqs;
    struct pci_bus *pci;
    struct loop *loop;
};

void machine_init(struct machine *machine);
/* The same around a KVM VM with an irqchip, whose slot 0 becomes the RAM. */
void machine_init_kvm(struct machine *machine, int vm_fd);
void machine_destroy(struct machine *machine);
const struct device *machine_device(const struct machine *machine, unsigned slot);
/* Pauses all devices of @from and brings them, and RAM, into @to, where they wait for resume(). */
void machine_migrate(struct machine *from, struct machine *to);
/* Runs the loop until nothing happens any more. */
void machine_settle(struct machine *machine);

/* Interrupts delivered (not masked) since last asked; see fake_irq.c. */
unsigned fake_irq_take(const struct irq_chip *chip, unsigned route);

uint32_t config_get(struct machine *machine, unsigned slot, uint32_t offset, unsigned length);
void config_set(struct machine *machine, unsigned slot, uint32_t offset, uint32_t value,
                unsigned length);

struct segment {
    uint64_t gpa;
    uint32_t length;
    bool writable;
};

struct driver_queue {
    uint64_t table;
    uint64_t avail;
    uint64_t used;
    uint16_t size;
    uint16_t next_descriptor;
    uint16_t avail_index;
    uint16_t seen_used;
};

struct driver {
    struct machine *machine;
    unsigned slot;
    uint64_t bar;
    uint64_t features;
    unsigned first_route; /* of its MSI-X vectors among the machine's routes */
    struct driver_queue queues[4];
};

uint32_t driver_read(const struct driver *driver, uint32_t offset, unsigned length);
void driver_write(const struct driver *driver, uint32_t offset, uint32_t value, unsigned length);
uint8_t driver_status(const struct driver *driver);

/* Maps the BAR, negotiates @features (VERSION_1 is added), sets @queues queues of @size up with a
 * vector each (0 the configuration's, 1.. the queues'), and DRIVER_OK. */
void driver_start(struct driver *driver, struct machine *machine, unsigned slot, uint64_t features,
                  unsigned queues, uint16_t size);
/* Writes a chain and shows it to the device; returns its head. No kick. */
uint16_t driver_add(struct driver *driver, unsigned queue, const struct segment *segments,
                    unsigned count);
void driver_kick(const struct driver *driver, unsigned queue);
/* Takes the next used element, waiting up to 5 s with the machine's loop running; false: none. */
bool driver_used(struct driver *driver, unsigned queue, uint32_t *head, uint32_t *length);
