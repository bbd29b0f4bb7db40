#include "node-agent/vmm/boot/bzimage.h"

#include <asm/bootparam.h>
#include <string.h>

#include "node-agent/vmm/layout.h"

#define HEADER_OFFSET 0x1f1u
#define BOOT_FLAG     0xaa55u
#define HEADER_MAGIC  0x53726448u /* "HdrS" */
#define VERSION_MIN   0x020cu     /* the first with xloadflags */
#define ENTRY_64      0x200u
#define LOADER_OTHER  0xffu
#define PAGE_PRESENT  0x3u  /* present and writable */
#define PAGE_LARGE    0x83u /* and 2 MiB */

_Static_assert(sizeof(struct setup_header) <= sizeof((struct bzimage *)0)->header,
               "the setup header fits");

static struct setup_header header_of(const struct bzimage *image)
{
    struct setup_header header;
    memcpy(&header, image->header, sizeof header);
    return header;
}

static int find_payload(struct bzimage *image, const struct setup_header *header, struct error *err)
{
    if (header->payload_offset == 0 || header->payload_length == 0)
        return 0;
    if (header->payload_offset > image->code_size ||
        header->payload_length > image->code_size - header->payload_offset)
        return error_set(err, ERROR_USAGE,
                         "the bzImage is truncated: its compressed kernel ends behind the file");
    image->payload_offset = image->code_offset + header->payload_offset;
    image->payload_size = header->payload_length;
    return 0;
}

int bzimage_probe(int fd, uint64_t size, struct bzimage *image, struct error *err)
{
    *image = (struct bzimage){0};
    if (size < HEADER_OFFSET + sizeof image->header)
        return 0;
    if (boot_read(fd, HEADER_OFFSET, image->header, sizeof image->header, "kernel", err) < 0)
        return -1;
    struct setup_header header = header_of(image);
    if (header.boot_flag != BOOT_FLAG || header.header != HEADER_MAGIC)
        return 0;
    if (header.version < VERSION_MIN || !(header.xloadflags & XLF_KERNEL_64))
        return error_set(err, ERROR_USAGE,
                         "the bzImage has no 64-bit entry (boot protocol %u.%02u): a 64-bit Linux "
                         "3.8 or newer is needed",
                         header.version >> 8, header.version & 0xffu);
    unsigned sectors = header.setup_sects ? header.setup_sects : 4;
    image->code_offset = (sectors + 1ull) * 512;
    if (image->code_offset >= size)
        return error_set(err, ERROR_USAGE, "the bzImage is truncated behind its setup code");
    image->code_size = size - image->code_offset;
    uint64_t stated = (uint64_t)header.syssize * 16;
    /* syssize is rounded up to a paragraph, so the file may be up to 15 bytes short of it. */
    if (stated > image->code_size + 15)
        return error_set(err, ERROR_USAGE,
                         "the bzImage is truncated: %llu bytes of kernel, its header says %llu",
                         (unsigned long long)image->code_size, (unsigned long long)stated);
    if (find_payload(image, &header, err) < 0)
        return -1;
    image->limits.initrd_max = header.initrd_addr_max;
    image->limits.cmdline_max =
        header.cmdline_size < BOOT_CMDLINE_SIZE - 1 ? header.cmdline_size : BOOT_CMDLINE_SIZE - 1;
    return 1;
}

int bzimage_load(struct guest_memory *memory, int fd, const struct bzimage *image,
                 struct boot_kernel *kernel, struct error *err)
{
    struct setup_header header = header_of(image);
    uint64_t start = header.pref_address;
    uint64_t needed = header.init_size > image->code_size ? header.init_size : image->code_size;
    if (start < LAYOUT_KERNEL_START || start % LAYOUT_PAGE_SIZE != 0)
        return error_set(err, ERROR_USAGE, "the bzImage wants to be loaded at 0x%llx",
                         (unsigned long long)start);
    uint8_t *to = guest_memory_at(memory, start, needed);
    if (!to)
        return error_set(err, ERROR_USAGE,
                         "the kernel needs memory from 0x%llx to 0x%llx, the guest has %llu MiB "
                         "below 4 GiB: give it more",
                         (unsigned long long)start, (unsigned long long)start + needed,
                         (unsigned long long)(guest_memory_low_size(memory) >> 20));
    if (boot_read(fd, image->code_offset, to, image->code_size, "kernel", err) < 0)
        return -1;
    guest_memory_mark_dirty(memory, start, image->code_size);
    *kernel = image->limits;
    kernel->entry = start + ENTRY_64;
    kernel->end = start + needed;
    return 0;
}

/* Identity-maps the first 4 GiB with 2 MiB pages. */
static int write_page_tables(struct guest_memory *memory, struct error *err)
{
    uint64_t *tables = guest_memory_at(memory, BOOT_PAGE_TABLES, 6 * 4096ull);
    if (!tables)
        return error_set(err, ERROR_USAGE, "the guest has too little memory for page tables");
    uint64_t *pml4 = tables;
    uint64_t *pdpt = tables + 512;
    uint64_t *directories = tables + 1024;
    pml4[0] = (BOOT_PAGE_TABLES + 4096) | PAGE_PRESENT;
    for (uint64_t i = 0; i < 4; i++)
        pdpt[i] = (BOOT_PAGE_TABLES + (2 + i) * 4096) | PAGE_PRESENT;
    for (uint64_t i = 0; i < 2048; i++)
        directories[i] = (i << 21) | PAGE_LARGE;
    guest_memory_mark_dirty(memory, BOOT_PAGE_TABLES, 6 * 4096ull);
    return 0;
}

int bzimage_set_up(struct guest_memory *memory, const struct bzimage *image, uint64_t initrd,
                   uint64_t initrd_size, uint64_t rsdp, struct error *err)
{
    struct boot_params params;
    memset(&params, 0, sizeof params);
    params.hdr = header_of(image);
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.cmd_line_ptr = (uint32_t)BOOT_CMDLINE;
    params.hdr.ramdisk_image = (uint32_t)initrd;
    params.hdr.ramdisk_size = (uint32_t)initrd_size;
    params.acpi_rsdp_addr = rsdp;
    struct boot_range ranges[BOOT_RANGES_MAX];
    unsigned count = boot_memory_map(memory, ranges);
    for (unsigned i = 0; i < count; i++)
        params.e820_table[i] =
            (struct boot_e820_entry){ranges[i].start, ranges[i].length, ranges[i].type};
    params.e820_entries = (uint8_t)count;
    if (guest_memory_write(memory, BOOT_ZERO_PAGE, &params, sizeof params) < 0)
        return error_set(err, ERROR_USAGE, "the guest has too little memory for the zero page");
    return write_page_tables(memory, err);
}
