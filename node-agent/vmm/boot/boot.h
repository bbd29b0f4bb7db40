/*
 * boot.h: from a kernel file to a guest that is ready for its first instruction.
 *
 * Two kinds of file are taken: an ELF with the PVH entry note, and a Linux bzImage. Of a bzImage
 * the compressed vmlinux inside is unpacked here, straight into guest RAM, and entered by PVH: that
 * saves the guest its own decompressor, which is the longest part of a boot under nested
 * virtualisation. Where that can't be done (no PVH note, a compression we do not read), or is not
 * wanted, the bzImage is entered by the 64-bit boot protocol, as its boot loader would.
 *
 * The files are outside bytes: each count and address in them is bounded before use, and what is
 * refused is refused with one sentence.
 *
 * Sources: Linux Documentation/arch/x86/boot.rst; Xen docs/misc/pvh.pandoc and
 * xen/include/public/arch-x86/hvm/start_info.h; ELF-64 Object File Format 1.5.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/guest_memory.h"

/* Where the structures handed to the kernel lie. */
#define BOOT_START_INFO   0x7000ull /* PVH: hvm_start_info, then modules and memory map */
#define BOOT_GDT          0x7800ull
#define BOOT_GDT_BYTES    32u       /* two empty, 0x10 code, 0x18 data */
#define BOOT_ZERO_PAGE    0x8000ull /* 64-bit protocol: struct boot_params */
#define BOOT_PAGE_TABLES  0x9000ull /* 64-bit protocol: PML4, PDPT, four PDs: 4 GiB identity */
#define BOOT_CMDLINE      0x20000ull
#define BOOT_CMDLINE_SIZE 2048u /* with the final NUL; what Linux takes on x86 */

enum boot_protocol { BOOT_AUTO, BOOT_PVH, BOOT_LINUX64 };

struct boot_request {
    int kernel_fd; /* regular file, read with pread() */
    int initrd_fd; /* -1: none */
    const char *cmdline;
    enum boot_protocol protocol;
};

/* What the first vCPU starts with. */
struct boot_entry {
    enum boot_protocol protocol; /* PVH or LINUX64 */
    uint64_t address;
    uint64_t info; /* BOOT_START_INFO or BOOT_ZERO_PAGE */
};

/* Loads kernel, initrd, command line and tables into @memory, which is all zeroes. */
int boot_load(struct guest_memory *memory, const struct boot_request *request,
              struct boot_entry *entry, struct error *err);

/* Reads "auto", "pvh" or "linux64". */
int boot_protocol_parse(const char *word, enum boot_protocol *protocol, struct error *err);

/* Sets the registers of the first vCPU. The others wait for the guest's INIT and SIPI. */
int boot_set_registers(int vcpu_fd, const struct boot_entry *entry, struct error *err);

/* ---- shared by the loaders ---- */

/* What a loader found and put into RAM. */
struct boot_kernel {
    uint64_t entry;
    uint64_t end;         /* first byte behind everything the kernel needs at its place */
    uint64_t initrd_max;  /* highest address an initrd may reach, inclusive */
    uint32_t cmdline_max; /* bytes without the NUL */
};

/* One part of the guest's address map, as e820 types: 1 RAM, 2 reserved. */
struct boot_range {
    uint64_t start;
    uint64_t length;
    uint32_t type;
};
#define BOOT_RANGES_MAX 8
/* Returns how many of @ranges (BOOT_RANGES_MAX) were filled. */
unsigned boot_memory_map(const struct guest_memory *memory, struct boot_range *ranges);

/* Reads exactly @size bytes at @offset; -1 with "truncated" where the file ends before. */
int boot_read(int fd, uint64_t offset, void *to, size_t size, const char *what, struct error *err);
