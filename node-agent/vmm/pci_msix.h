/*
 * pci_msix.h: the MSI-X table and pending bits of one function (PCI 3.0 §6.8.2).
 *
 * Each vector has an irqfd route, so a device signals with one write() and no lock. A vector that
 * is masked (by itself, by the function, or because MSI-X is off) is out of the kernel's table;
 * what is signalled meanwhile shows in the pending bits and is delivered on unmask.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/irq.h"
#include "proto/devices.pb-c.h"

#define PCI_MSIX_VECTORS_MAX 16u

struct pci_msix_entry {
    uint32_t address_low;
    uint32_t address_high;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
};

struct pci_msix {
    pthread_mutex_t lock; /* guards all but the routes' descriptors */
    unsigned count;
    bool open; /* enabled and the function not masked */
    uint64_t pending;
    struct pci_msix_entry entries[PCI_MSIX_VECTORS_MAX];
    struct irq_route *routes[PCI_MSIX_VECTORS_MAX];
};

int pci_msix_init(struct pci_msix *msix, struct irq_chip *irqs, unsigned count, struct error *err);
void pci_msix_destroy(struct pci_msix *msix);

/* Interrupts with @vector; one that does not exist is ignored. Any thread. */
void pci_msix_signal(const struct pci_msix *msix, unsigned vector);

/* Guest accesses to the table and the pending bits, relative to their start. */
void pci_msix_table_read(struct pci_msix *msix, uint32_t offset, void *data, unsigned length);
void pci_msix_table_write(struct pci_msix *msix, uint32_t offset, const void *data,
                          unsigned length);
void pci_msix_pending_read(struct pci_msix *msix, uint32_t offset, void *data, unsigned length);
/* The guest wrote message control (PCI_MSIX_FLAGS_*). */
void pci_msix_set_control(struct pci_msix *msix, uint16_t control);

/* Save and load; a message saved stays valid until pci_msix_state_free(). load() leaves the vectors
 * masked: pci_msix_set_control() comes next. */
int pci_msix_save(struct pci_msix *msix, Vmpool__Device__Msix *message, struct error *err);
void pci_msix_state_free(Vmpool__Device__Msix *message);
int pci_msix_load(struct pci_msix *msix, const Vmpool__Device__Msix *message, struct error *err);
