/*
 * bus.h: who answers at which address. Two instances in a machine: I/O ports and MMIO.
 *
 * Ranges are registered while no vCPU runs, except PCI BARs, which the guest may move at any time.
 * No lock is held while a handler runs, so a handler may add and remove ranges, its own included.
 * Handlers are called from vCPU threads, several at a time; each device guards its own state. An
 * address nobody claims, or an access that runs over the end of its range, reads as all ones.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct bus;

/* @offset is relative to the range; @length is 1, 2, 4 or 8. read fills @data, write takes it. */
struct bus_ops {
    void (*read)(void *device, uint64_t offset, void *data, unsigned length);
    void (*write)(void *device, uint64_t offset, const void *data, unsigned length);
};

struct bus *bus_new(struct error *err);
void bus_free(struct bus *bus);

/* Claims [@start, @start + @length); overlapping an existing range is ERROR_CONFLICT. */
int bus_add(struct bus *bus, uint64_t start, uint64_t length, const struct bus_ops *ops,
            void *device, struct error *err);
/* Gives the range that starts at @start back. Returns when no handler runs any more for it, unless
 * called from that handler itself. */
void bus_remove(struct bus *bus, uint64_t start);

void bus_read(struct bus *bus, uint64_t address, void *data, unsigned length);
void bus_write(struct bus *bus, uint64_t address, const void *data, unsigned length);
