#include "node-agent/vmm/boot/boot.h"

#include <asm/bootparam.h>
#include <criterion/criterion.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "node-agent/vmm/layout.h"

#define MIB (1ull << 20)

/* A small kernel as an ELF file: one segment at 1 MiB and the PVH note, to be spoilt by tests. */
struct kernel {
    Elf64_Ehdr header;
    Elf64_Phdr load;
    Elf64_Phdr note;
    struct {
        uint32_t name_size, data_size, type;
        char name[4];
        uint64_t entry;
    } pvh;
    uint8_t code[4096];
};

static struct kernel good_kernel(void)
{
    struct kernel kernel = {0};
    memcpy(kernel.header.e_ident, ELFMAG, SELFMAG);
    kernel.header.e_ident[EI_CLASS] = ELFCLASS64;
    kernel.header.e_ident[EI_DATA] = ELFDATA2LSB;
    kernel.header.e_machine = EM_X86_64;
    kernel.header.e_phoff = offsetof(struct kernel, load);
    kernel.header.e_phnum = 2;
    kernel.header.e_phentsize = sizeof(Elf64_Phdr);
    kernel.load = (Elf64_Phdr){.p_type = PT_LOAD,
                               .p_offset = offsetof(struct kernel, code),
                               .p_filesz = sizeof kernel.code,
                               .p_memsz = 8192,
                               .p_paddr = MIB};
    kernel.note = (Elf64_Phdr){
        .p_type = PT_NOTE, .p_offset = offsetof(struct kernel, pvh), .p_filesz = sizeof kernel.pvh};
    kernel.pvh.name_size = 4;
    kernel.pvh.data_size = 8;
    kernel.pvh.type = 18;
    memcpy(kernel.pvh.name, "Xen", 4);
    kernel.pvh.entry = MIB + 16;
    memset(kernel.code, 0x90, sizeof kernel.code);
    return kernel;
}

static int file_of(const void *bytes, size_t size)
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    return fd;
}

static struct error boot_error;

/* Boots @size bytes in a machine of 64 MiB; returns what boot_load() did. */
static int boot(const void *bytes, size_t size, struct boot_entry *entry,
                struct guest_memory *memory)
{
    struct boot_request request = {
        .kernel_fd = file_of(bytes, size), .initrd_fd = -1, .cmdline = "console=ttyS0"};
    error_clear(&boot_error);
    cr_assert_eq(guest_memory_create(memory, 64 * MIB, false, &boot_error), 0);
    int status = boot_load(memory, &request, entry, &boot_error);
    close(request.kernel_fd);
    return status;
}

static void expect_refused(const void *bytes, size_t size, const char *what, const char *words)
{
    struct guest_memory memory;
    struct boot_entry entry;
    cr_expect_eq(boot(bytes, size, &entry, &memory), -1, "%s was taken", what);
    cr_expect_not_null(strstr(boot_error.text, words), "%s: '%s' lacks '%s'", what, boot_error.text,
                       words);
    guest_memory_destroy(&memory);
}

Test(boot, an_elf_with_a_pvh_entry)
{
    struct kernel kernel = good_kernel();
    struct guest_memory memory;
    struct boot_entry entry;
    cr_assert_eq(boot(&kernel, sizeof kernel, &entry, &memory), 0, "%s", boot_error.text);
    cr_expect_eq(entry.protocol, BOOT_PVH);
    cr_expect_eq(entry.address, MIB + 16);
    cr_expect_eq(entry.info, BOOT_START_INFO);
    cr_expect_arr_eq(memory.base + MIB, kernel.code, sizeof kernel.code);
    cr_expect_str_eq((char *)memory.base + BOOT_CMDLINE, "console=ttyS0");
    uint32_t magic;
    memcpy(&magic, memory.base + BOOT_START_INFO, 4);
    cr_expect_eq(magic, 0x336ec578);
    guest_memory_destroy(&memory);
}

Test(boot, files_that_are_no_kernel)
{
    expect_refused("", 0, "an empty file", "no kernel");
    expect_refused("#!/bin/sh\n", 10, "a script", "neither a Linux bzImage nor an ELF");
    uint8_t zeros[8192] = {0};
    expect_refused(zeros, sizeof zeros, "zeros", "neither");
    struct kernel kernel = good_kernel();
    for (size_t size = 4; size < sizeof kernel; size += 61)
        expect_refused(&kernel, size, "a truncated ELF", "truncated");
}

Test(boot, hostile_elf_headers)
{
    struct kernel kernel = good_kernel();
    kernel.header.e_machine = EM_AARCH64;
    expect_refused(&kernel, sizeof kernel, "another machine", "another processor");

    kernel = good_kernel();
    kernel.header.e_phoff = UINT64_MAX - 8;
    expect_refused(&kernel, sizeof kernel, "headers far away", "not at the start");

    kernel = good_kernel();
    kernel.header.e_phnum = 0xffff;
    expect_refused(&kernel, sizeof kernel, "many headers", "not at the start");

    kernel = good_kernel();
    kernel.header.e_phentsize = 1;
    expect_refused(&kernel, sizeof kernel, "tiny headers", "unknown size");

    kernel = good_kernel();
    kernel.load.p_paddr = 0x1000;
    expect_refused(&kernel, sizeof kernel, "below 1 MiB", "below 1 MiB");

    const uint64_t addresses[] = {64 * MIB, UINT64_MAX, UINT64_MAX - 4096, 0xe0000000, 1ull << 32};
    for (unsigned i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        kernel = good_kernel();
        kernel.load.p_paddr = addresses[i];
        expect_refused(&kernel, sizeof kernel, "outside RAM", "needs memory");
    }

    kernel = good_kernel();
    kernel.load.p_memsz = UINT64_MAX;
    expect_refused(&kernel, sizeof kernel, "endless", "needs memory");

    kernel = good_kernel();
    kernel.load.p_filesz = 9000;
    expect_refused(&kernel, sizeof kernel, "more in file than in memory", "larger in the file");

    kernel = good_kernel();
    kernel.load.p_offset = UINT64_MAX - 100;
    expect_refused(&kernel, sizeof kernel, "offset that wraps", "beyond any file");

    kernel = good_kernel();
    kernel.note.p_filesz = 1 << 20;
    expect_refused(&kernel, sizeof kernel, "a large note", "64 KiB of notes");
}

Test(boot, hostile_notes)
{
    struct kernel kernel = good_kernel();
    kernel.pvh.entry = 0x1000;
    expect_refused(&kernel, sizeof kernel, "entry outside", "outside the kernel");
    kernel.pvh.entry = UINT64_MAX;
    expect_refused(&kernel, sizeof kernel, "entry beyond", "outside the kernel");
    kernel = good_kernel();
    kernel.pvh.name_size = UINT32_MAX;
    expect_refused(&kernel, sizeof kernel, "an endless name", "no PVH entry");
    kernel = good_kernel();
    kernel.pvh.data_size = 0xfffffff0;
    expect_refused(&kernel, sizeof kernel, "endless data", "no PVH entry");
    kernel = good_kernel();
    kernel.pvh.type = 1;
    expect_refused(&kernel, sizeof kernel, "another note", "no PVH entry");
}

/* A bzImage around @payload: 1 KiB of setup code, then the payload. */
static size_t make_bzimage(uint8_t *out, size_t capacity, const void *payload, size_t size)
{
    struct setup_header header = {.setup_sects = 1,
                                  .boot_flag = 0xaa55,
                                  .header = 0x53726448,
                                  .version = 0x020f,
                                  .xloadflags = XLF_KERNEL_64,
                                  .initrd_addr_max = 0x7fffffff,
                                  .cmdline_size = 2047,
                                  .pref_address = 16 * MIB,
                                  .init_size = 1 << 20,
                                  .payload_offset = 512,
                                  .payload_length = (uint32_t)size};
    cr_assert_leq(1024 + 512 + size, capacity);
    memset(out, 0, capacity);
    header.syssize = (uint32_t)((512 + size + 15) / 16);
    memcpy(out + 0x1f1, &header, sizeof header);
    memcpy(out + 1024 + 512, payload, size);
    return 1024 + 512 + size;
}

static size_t gzip(void *data, size_t size, uint8_t *out, size_t capacity)
{
    z_stream z = {0};
    cr_assert_eq(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = data;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)capacity;
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t used = capacity - z.avail_out;
    deflateEnd(&z);
    return used;
}

Test(boot, a_bzimage_is_unpacked_and_entered_by_pvh)
{
    struct kernel kernel = good_kernel();
    uint8_t packed[8192], image[16384];
    size_t packed_size = gzip(&kernel, sizeof kernel, packed, sizeof packed);
    size_t size = make_bzimage(image, sizeof image, packed, packed_size);
    struct guest_memory memory;
    struct boot_entry entry;
    cr_assert_eq(boot(image, size, &entry, &memory), 0, "%s", boot_error.text);
    cr_expect_eq(entry.protocol, BOOT_PVH);
    cr_expect_eq(entry.address, MIB + 16);
    cr_expect_arr_eq(memory.base + MIB, kernel.code, sizeof kernel.code);
    guest_memory_destroy(&memory);

    for (size_t cut = 1600; cut < size; cut += 37)
        expect_refused(image, cut, "a truncated bzImage", "truncated");
    for (size_t at = 1536 + 20; at < size - 10; at += 3) {
        image[at] ^= 0x5a;
        struct guest_memory other;
        (void)boot(image, size, &entry, &other); /* anything but a crash */
        guest_memory_destroy(&other);
        image[at] ^= 0x5a;
    }
}

Test(boot, a_bzimage_without_pvh_falls_back_to_its_64_bit_entry)
{
    uint8_t image[16384];
    struct guest_memory memory;
    struct boot_entry entry;
    size_t size = make_bzimage(image, sizeof image, "BZh9 a format we do not read", 28);
    cr_assert_eq(boot(image, size, &entry, &memory), 0, "%s", boot_error.text);
    cr_expect_eq(entry.protocol, BOOT_LINUX64);
    cr_expect_eq(entry.address, 16 * MIB + 0x200);
    cr_expect_arr_eq(memory.base + 16 * MIB, image + 1024, size - 1024);
    struct boot_params params;
    memcpy(&params, memory.base + BOOT_ZERO_PAGE, sizeof params);
    cr_expect_eq(params.acpi_rsdp_addr, LAYOUT_ACPI_START);
    cr_expect_eq(params.hdr.type_of_loader, 0xff);
    cr_expect_geq(params.e820_entries, 4);
    guest_memory_destroy(&memory);
}

Test(boot, hostile_setup_headers)
{
    uint8_t image[16384];
    struct setup_header header;
    size_t size = make_bzimage(image, sizeof image, "BZh9 a format we do not read", 28);
    memcpy(&header, image + 0x1f1, sizeof header);
    struct setup_header bad = header;
    bad.version = 0x0204;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "an old one", "no 64-bit entry");
    bad = header;
    bad.setup_sects = 255;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "setup code beyond the file", "truncated");
    bad = header;
    bad.payload_length = UINT32_MAX;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "a payload beyond the file", "truncated");
    bad = header;
    bad.pref_address = UINT64_MAX & ~4095ull;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "a place beyond RAM", "needs memory");
    bad = header;
    bad.init_size = UINT32_MAX;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "a huge one", "needs memory");
    bad = header;
    bad.cmdline_size = 5;
    memcpy(image + 0x1f1, &bad, sizeof bad);
    expect_refused(image, size, "a short command line", "at most 5 bytes");
}

Test(boot, an_initrd_that_does_not_fit)
{
    struct kernel kernel = good_kernel();
    struct guest_memory memory;
    struct boot_entry entry;
    struct error err = ERROR_INIT;
    struct boot_request request = {.kernel_fd = file_of(&kernel, sizeof kernel),
                                   .initrd_fd = memfd_create("initrd", 0),
                                   .cmdline = ""};
    cr_assert_eq(ftruncate(request.initrd_fd, 63 * MIB), 0);
    cr_assert_eq(guest_memory_create(&memory, 64 * MIB, false, &err), 0);
    cr_expect_eq(boot_load(&memory, &request, &entry, &err), -1);
    cr_expect_not_null(strstr(err.text, "give it more"), "%s", err.text);
    cr_assert_eq(ftruncate(request.initrd_fd, 60 * MIB), 0);
    cr_expect_eq(boot_load(&memory, &request, &entry, &err), 0, "%s", err.text);
    close(request.kernel_fd);
    close(request.initrd_fd);
    guest_memory_destroy(&memory);
}
