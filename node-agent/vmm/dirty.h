/*
 * dirty.h: which pages of RAM were written: KVM's dirty log, and the VMM's own record.
 *
 * From any thread; start and stop one at a time. Bitmaps are of all RAM, one bit a page of RAM
 * offset (layout.h), in 64-bit words.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/machine.h"

int dirty_start(struct machine *machine, struct error *err);
void dirty_stop(struct machine *machine);
/* ORs what was written since it was last cleared into @bitmap. */
int dirty_sync(struct machine *machine, uint64_t *bitmap, struct error *err);
/* Of pages [@first, @first + @count), both multiples of 64 or the end of RAM, forgets those set in
 * @bitmap, so that their next write is seen. */
int dirty_clear(struct machine *machine, const uint64_t *bitmap, uint64_t first, uint64_t count,
                struct error *err);
