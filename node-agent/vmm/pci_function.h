/*
 * pci_function.h: what the bus needs of a function that sits on it, and gives to it.
 *
 * The bus owns configuration accesses and BAR placement, under one lock of its own. A function's
 * BAR handlers run outside that lock (several vCPUs at a time); its other callbacks inside it.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/bus.h"
#include "node-agent/vmm/device.h"
#include "node-agent/vmm/pci.h"
#include "node-agent/vmm/pci_config.h"

struct pci_function_ops {
    struct bus_ops bar; /* offsets are within BAR 0, the only one our devices have */
    /* Optional. BAR 0 now answers at @gpa; 0: nowhere. */
    void (*moved)(void *self, uint64_t gpa);
    /* Optional. The guest is about to read, or has written, [@offset, @offset + @length). */
    void (*config_reading)(void *self, uint32_t offset, unsigned length);
    void (*config_written)(void *self, uint32_t offset, unsigned length);
};

struct pci_function {
    struct pci_config config;
    const struct pci_function_ops *ops;
    void *self;
    uint64_t mapped; /* where BAR 0 answers now; 0: nowhere */
};

/* Puts @function into the next slot and gives BAR 0 a place in the PCI window. @type names it, with
 * the slot, in struct device; on success @device_ops->free(@self) is called by pci_bus_free(). */
int pci_bus_add(struct pci_bus *bus, struct pci_function *function, const char *type,
                const struct device_ops *device_ops, void *self, struct error *err);

/* Loads the writable bits of a saved configuration space of @size bytes and moves the BAR; refused
 * where the rest differs, as it is another device then. */
int pci_bus_load_config(struct pci_bus *bus, struct pci_function *function, const uint8_t *bytes,
                        size_t size, struct error *err);
