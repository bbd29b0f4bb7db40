/*
 * elf.h: puts an ELF executable into guest RAM while it streams by, so that an unpacked kernel is
 * never held in the VMM's own memory.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/boot/boot.h"
#include "node-agent/vmm/guest_memory.h"

struct elf_loader;

struct elf_loader *elf_loader_new(struct guest_memory *memory, struct error *err);
void elf_loader_free(struct elf_loader *loader);

/* Takes the next bytes of the file. Returns 1 once all that is needed was seen, 0 for more, -1 on a
 * file that is refused. */
int elf_loader_feed(struct elf_loader *loader, const void *data, size_t size, struct error *err);

/* After the last byte: checks that everything was there, and finds the PVH entry. An ELF without
 * one is ERROR_NOT_FOUND, all other faults ERROR_USAGE. */
int elf_loader_finish(struct elf_loader *loader, struct boot_kernel *kernel, struct error *err);
