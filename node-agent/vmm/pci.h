/*
 * pci.h: one PCI Express root bus with the virtio devices on it.
 *
 * Configuration space by ECAM at LAYOUT_ECAM_START and by ports 0xcf8/0xcfc; BARs from the window
 * LAYOUT_PCI_MMIO_START, assigned by us before the guest looks, movable by the guest. All devices
 * use MSI-X. There are no bridges, no INTx and no hot plug yet.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/guest_memory.h"
#include "node-agent/vmm/irq.h"

struct pci_bus;

/* What a PCI device needs of the machine it sits in. Everything is the machine's and outlives it.
 */
struct pci_host {
    struct guest_memory *memory;
    struct bus *ports;
    struct bus *mmio;
    struct irq_chip *irqs;
    int vm_fd; /* for KVM_IOEVENTFD */
};

/* Registers ECAM, 0xcf8/0xcfc and the host bridge. @host is copied. */
struct pci_bus *pci_bus_new(const struct pci_host *host, struct error *err);
/* Stops and frees every device on it. */
void pci_bus_free(struct pci_bus *bus);
const struct pci_host *pci_bus_host(const struct pci_bus *bus);

/* The devices on the bus in slot order, for machine.c to pause, save, load and resume. */
unsigned pci_bus_devices(const struct pci_bus *bus, const struct device **devices);
