/* bzimage.h: the Linux boot image: setup header, and the 64-bit boot protocol. */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/boot/boot.h"
#include "node-agent/vmm/guest_memory.h"

/* What the setup header says, checked against the file's size. */
struct bzimage {
    uint8_t header[0x300 - 0x1f1]; /* the file from 0x1f1: struct setup_header and behind */
    uint64_t code_offset;          /* of the protected-mode part in the file */
    uint64_t code_size;
    uint64_t payload_offset; /* of the compressed vmlinux in the file; 0: none given */
    uint64_t payload_size;
    struct boot_kernel limits; /* initrd_max and cmdline_max are set */
};

/* Returns 1 and fills @image where @fd is a bzImage, 0 where it is something else, -1 where it is a
 * broken or too old one. */
int bzimage_probe(int fd, uint64_t size, struct bzimage *image, struct error *err);

/* Loads it for the 64-bit entry. */
int bzimage_load(struct guest_memory *memory, int fd, const struct bzimage *image,
                 struct boot_kernel *kernel, struct error *err);

/* Fills the zero page and the page tables. @initrd_size 0: no initrd. */
int bzimage_set_up(struct guest_memory *memory, const struct bzimage *image, uint64_t initrd,
                   uint64_t initrd_size, uint64_t rsdp, struct error *err);
