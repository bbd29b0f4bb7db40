#include "node-agent/vmm/boot/boot.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node-agent/vmm/boot/bzimage.h"
#include "node-agent/vmm/boot/elf.h"
#include "node-agent/vmm/boot/unpack.h"
#include "node-agent/vmm/layout.h"

#define KERNEL_FILE_MAX  (1ull << 30)
#define E820_RAM         1u
#define E820_RESERVED    2u
#define START_INFO_MAGIC 0x336ec578u
#define PIECE_SIZE       (1u << 20)

/* Xen's start_info.h, version 1. */
struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t modules;
    uint64_t modules_address;
    uint64_t cmdline_address;
    uint64_t rsdp_address;
    uint64_t map_address;
    uint32_t map_entries;
    uint32_t reserved;
};

struct start_module {
    uint64_t address;
    uint64_t size;
    uint64_t cmdline_address;
    uint64_t reserved;
};

struct start_map {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

int boot_read(int fd, uint64_t offset, void *to, size_t size, const char *what, struct error *err)
{
    uint8_t *at = to;
    while (size > 0) {
        ssize_t got = pread(fd, at, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, errno, "cannot read the %s", what);
        if (got == 0)
            return error_set(err, ERROR_USAGE, "the %s file is truncated", what);
        at += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

int boot_protocol_parse(const char *word, enum boot_protocol *protocol, struct error *err)
{
    static const char *const words[] = {"auto", "pvh", "linux64"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(word, words[i]) == 0) {
            *protocol = (enum boot_protocol)i;
            return 0;
        }
    }
    return error_set(err, ERROR_USAGE, "--boot: '%s' is none of auto, pvh, linux64", word);
}

unsigned boot_memory_map(const struct guest_memory *memory, struct boot_range *ranges)
{
    unsigned count = 0;
    uint64_t low = guest_memory_low_size(memory);
    ranges[count++] = (struct boot_range){0, 0xa0000, E820_RAM};
    ranges[count++] = (struct boot_range){LAYOUT_ACPI_START, LAYOUT_ACPI_SIZE, E820_RESERVED};
    ranges[count++] = (struct boot_range){LAYOUT_KERNEL_START, low - LAYOUT_KERNEL_START, E820_RAM};
    ranges[count++] = (struct boot_range){LAYOUT_ECAM_START, LAYOUT_ECAM_SIZE, E820_RESERVED};
    if (guest_memory_high_size(memory) > 0)
        ranges[count++] =
            (struct boot_range){LAYOUT_HIGH_RAM_START, guest_memory_high_size(memory), E820_RAM};
    return count;
}

static int file_size(int fd, const char *what, uint64_t *size, struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return error_errno(err, errno, "cannot look at the %s file", what);
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERROR_USAGE, "the %s is not a regular file", what);
    *size = (uint64_t)info.st_size;
    return 0;
}

static int feed(void *context, const void *data, size_t size, struct error *err)
{
    return elf_loader_feed(context, data, size, err);
}

/* Loads the ELF that is inside [@offset, @offset + @length) of the file, packed or plain. */
static int load_elf(struct guest_memory *memory, int fd, uint64_t offset, uint64_t length,
                    struct boot_kernel *kernel, struct error *err)
{
    struct elf_loader *loader = elf_loader_new(memory, err);
    if (!loader)
        return -1;
    int status = unpack_stream(fd, offset, length, feed, loader, err);
    if (status == 0)
        status = elf_loader_finish(loader, kernel, err);
    elf_loader_free(loader);
    return status;
}

/* Puts the initrd as high as the kernel takes it; *@address and *@size are 0 where there is none.
 */
static int load_initrd(struct guest_memory *memory, int fd, const struct boot_kernel *kernel,
                       uint64_t *address, uint64_t *size, struct error *err)
{
    *address = 0;
    *size = 0;
    if (fd < 0)
        return 0;
    if (file_size(fd, "initrd", size, err) < 0)
        return -1;
    uint64_t top = guest_memory_low_size(memory);
    if (kernel->initrd_max < top)
        top = kernel->initrd_max + 1;
    if (*size > top || ((top - *size) & ~4095ull) < kernel->end)
        return error_set(err, ERROR_USAGE,
                         "kernel and initrd need %llu MiB of memory below 4 GiB, the guest has "
                         "%llu: give it more",
                         (unsigned long long)((kernel->end + *size) >> 20) + 1,
                         (unsigned long long)(top >> 20));
    *address = (top - *size) & ~4095ull;
    for (uint64_t done = 0; done < *size; done += PIECE_SIZE) {
        size_t piece = *size - done < PIECE_SIZE ? (size_t)(*size - done) : PIECE_SIZE;
        uint8_t *to = guest_memory_at(memory, *address + done, piece);
        if (!to)
            return error_set(err, ERROR_USAGE, "the initrd does not fit into the guest's memory");
        if (boot_read(fd, done, to, piece, "initrd", err) < 0)
            return -1;
    }
    guest_memory_mark_dirty(memory, *address, *size);
    return 0;
}

static int write_cmdline(struct guest_memory *memory, const char *cmdline, uint32_t max,
                         struct error *err)
{
    size_t length = strlen(cmdline);
    if (length > max)
        return error_set(err, ERROR_USAGE,
                         "the kernel takes a command line of at most %u bytes, "
                         "this one has %zu",
                         max, length);
    if (guest_memory_write(memory, BOOT_CMDLINE, cmdline, length + 1) < 0)
        return error_set(err, ERROR_USAGE, "the guest has too little memory");
    return 0;
}

/* The segments registers.c puts into the vCPU, for a kernel that loads them again. */
static int write_gdt(struct guest_memory *memory, enum boot_protocol protocol, struct error *err)
{
    const uint64_t code_32 = 0x00cf9b000000ffff;
    const uint64_t code_64 = 0x00af9b000000ffff;
    const uint64_t data = 0x00cf93000000ffff;
    const uint64_t table[BOOT_GDT_BYTES / 8] = {0, 0, protocol == BOOT_PVH ? code_32 : code_64,
                                                data};
    if (guest_memory_write(memory, BOOT_GDT, table, sizeof table) < 0)
        return error_set(err, ERROR_USAGE, "the guest has too little memory");
    return 0;
}

static int write_start_info(struct guest_memory *memory, uint64_t initrd, uint64_t initrd_size,
                            struct error *err)
{
    struct {
        struct start_info info;
        struct start_module module;
        struct start_map map[BOOT_RANGES_MAX];
    } block = {0};
    struct boot_range ranges[BOOT_RANGES_MAX];
    block.info = (struct start_info){
        .magic = START_INFO_MAGIC,
        .version = 1,
        .modules = initrd_size ? 1 : 0,
        .modules_address = BOOT_START_INFO + sizeof block.info,
        .cmdline_address = BOOT_CMDLINE,
        .rsdp_address = LAYOUT_ACPI_START,
        .map_address = BOOT_START_INFO + sizeof block.info + sizeof block.module,
        .map_entries = boot_memory_map(memory, ranges),
    };
    block.module = (struct start_module){.address = initrd, .size = initrd_size};
    for (unsigned i = 0; i < block.info.map_entries; i++)
        block.map[i] = (struct start_map){ranges[i].start, ranges[i].length, ranges[i].type, 0};
    if (guest_memory_write(memory, BOOT_START_INFO, &block, sizeof block) < 0)
        return error_set(err, ERROR_USAGE, "the guest has too little memory");
    return 0;
}

/* Decides how to enter the kernel and loads it. *@is_bzimage tells whether @image is filled. */
static int load_kernel(struct guest_memory *memory, const struct boot_request *request,
                       struct bzimage *image, enum boot_protocol *protocol,
                       struct boot_kernel *kernel, struct error *err)
{
    uint64_t size = 0;
    if (file_size(request->kernel_fd, "kernel", &size, err) < 0)
        return -1;
    if (size == 0 || size > KERNEL_FILE_MAX)
        return error_set(err, ERROR_USAGE, "a kernel file of %llu bytes is no kernel",
                         (unsigned long long)size);
    int is_bzimage = bzimage_probe(request->kernel_fd, size, image, err);
    if (is_bzimage < 0)
        return -1;
    *protocol = BOOT_PVH;
    if (!is_bzimage) {
        if (request->protocol == BOOT_LINUX64)
            return error_set(err, ERROR_USAGE, "--boot linux64 needs a Linux bzImage");
        char magic[4];
        if (boot_read(request->kernel_fd, 0, magic, sizeof magic, "kernel", err) < 0)
            return -1;
        if (memcmp(magic,
                   "\x7f"
                   "ELF",
                   sizeof magic) != 0)
            return error_set(err, ERROR_USAGE,
                             "the kernel file is neither a Linux bzImage nor an ELF file");
        return load_elf(memory, request->kernel_fd, 0, size, kernel, err);
    }
    if (request->protocol != BOOT_LINUX64 && image->payload_size > 0) {
        if (load_elf(memory, request->kernel_fd, image->payload_offset, image->payload_size, kernel,
                     err) == 0)
            return 0;
        /* Not found: no PVH entry or a compression not read. Anything else is a bad file. */
        if (err->kind != ERROR_NOT_FOUND)
            return -1;
    }
    if (request->protocol == BOOT_PVH)
        return error_set(err, ERROR_USAGE, "the bzImage has no kernel inside with a PVH entry");
    error_clear(err);
    *protocol = BOOT_LINUX64;
    return bzimage_load(memory, request->kernel_fd, image, kernel, err);
}

int boot_load(struct guest_memory *memory, const struct boot_request *request,
              struct boot_entry *entry, struct error *err)
{
    struct bzimage image = {0};
    struct boot_kernel kernel = {0};
    enum boot_protocol protocol = BOOT_PVH;
    uint64_t initrd = 0;
    uint64_t initrd_size = 0;
    if (load_kernel(memory, request, &image, &protocol, &kernel, err) < 0 ||
        load_initrd(memory, request->initrd_fd, &kernel, &initrd, &initrd_size, err) < 0 ||
        write_cmdline(memory, request->cmdline, kernel.cmdline_max, err) < 0 ||
        write_gdt(memory, protocol, err) < 0)
        return -1;
    *entry = (struct boot_entry){.protocol = protocol, .address = kernel.entry};
    if (protocol == BOOT_PVH) {
        entry->info = BOOT_START_INFO;
        return write_start_info(memory, initrd, initrd_size, err);
    }
    entry->info = BOOT_ZERO_PAGE;
    return bzimage_set_up(memory, &image, initrd, initrd_size, LAYOUT_ACPI_START, err);
}
