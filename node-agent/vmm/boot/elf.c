#include "node-agent/vmm/boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node-agent/vmm/layout.h"

#define SEGMENTS_MAX      32u
#define HEAD_SIZE         (16u << 10) /* ELF and program headers must lie in the first part */
#define NOTES_SIZE        (64u << 10)
#define NOTE_PHYS32_ENTRY 18u /* XEN_ELFNOTE_PHYS32_ENTRY */
#define LINUX_INITRD_MAX  0x7fffffffull

struct segment {
    uint32_t type;
    uint64_t offset;
    uint64_t file_size;
    uint64_t address; /* physical */
    uint64_t memory_size;
};

struct elf_loader {
    struct guest_memory *memory;
    uint64_t position;
    uint64_t needed; /* file bytes up to the end of the last segment */
    bool parsed;
    unsigned count;
    struct segment segments[SEGMENTS_MAX];
    size_t notes_used; /* of notes, shared by all PT_NOTE segments, in order of the headers */
    uint8_t notes[NOTES_SIZE];
    uint8_t head[HEAD_SIZE];
};

struct elf_loader *elf_loader_new(struct guest_memory *memory, struct error *err)
{
    struct elf_loader *loader = calloc(1, sizeof *loader);
    if (!loader)
        (void)error_errno(err, ENOMEM, "ELF loader");
    else
        loader->memory = memory;
    return loader;
}

void elf_loader_free(struct elf_loader *loader)
{
    free(loader);
}

static int refuse(struct error *err, const char *why)
{
    return error_set(err, ERROR_USAGE, "the kernel's ELF headers are broken: %s", why);
}

static int check_load(const struct elf_loader *loader, const struct segment *segment,
                      struct error *err)
{
    if (segment->file_size > segment->memory_size)
        return refuse(err, "a segment is larger in the file than in memory");
    if (segment->address < LAYOUT_KERNEL_START)
        return error_set(err, ERROR_USAGE,
                         "the kernel wants to be loaded at 0x%llx, below 1 MiB, where the boot "
                         "tables are",
                         (unsigned long long)segment->address);
    if (!guest_memory_at(loader->memory, segment->address, segment->memory_size))
        return error_set(err, ERROR_USAGE,
                         "the kernel needs memory from 0x%llx to 0x%llx, the guest has %llu MiB "
                         "below 4 GiB: give it more",
                         (unsigned long long)segment->address,
                         (unsigned long long)segment->address + segment->memory_size,
                         (unsigned long long)(guest_memory_low_size(loader->memory) >> 20));
    return 0;
}

/* Keeps @segment where it matters; -1 where it is impossible. */
static int take_segment(struct elf_loader *loader, const struct segment *segment, struct error *err)
{
    if (segment->type != PT_LOAD && segment->type != PT_NOTE)
        return 0;
    if (segment->type == PT_LOAD && segment->memory_size == 0)
        return 0;
    if (segment->offset > UINT64_MAX / 2 || segment->file_size > UINT64_MAX / 2)
        return refuse(err, "a segment lies beyond any file");
    if (segment->type == PT_LOAD && check_load(loader, segment, err) < 0)
        return -1;
    if (segment->type == PT_NOTE) {
        if (segment->file_size > NOTES_SIZE - loader->notes_used)
            return refuse(err, "more than 64 KiB of notes");
        loader->notes_used += (size_t)segment->file_size;
    }
    if (loader->count == SEGMENTS_MAX)
        return refuse(err, "more than 32 segments");
    loader->segments[loader->count++] = *segment;
    uint64_t end = segment->offset + segment->file_size;
    if (end > loader->needed)
        loader->needed = end;
    return 0;
}

static struct segment segment_of_64(const uint8_t *at)
{
    Elf64_Phdr header;
    memcpy(&header, at, sizeof header);
    return (struct segment){header.p_type, header.p_offset, header.p_filesz, header.p_paddr,
                            header.p_memsz};
}

static struct segment segment_of_32(const uint8_t *at)
{
    Elf32_Phdr header;
    memcpy(&header, at, sizeof header);
    return (struct segment){header.p_type, header.p_offset, header.p_filesz, header.p_paddr,
                            header.p_memsz};
}

/* Reads the headers out of head, of which @have bytes are there. Returns 1 where they were
 * complete, 0 where more bytes are needed. */
static int parse_headers(struct elf_loader *loader, size_t have, struct error *err)
{
    if (have < sizeof(Elf64_Ehdr))
        return 0;
    Elf64_Ehdr wide;
    Elf32_Ehdr narrow;
    memcpy(&wide, loader->head, sizeof wide);
    memcpy(&narrow, loader->head, sizeof narrow);
    if (memcmp(wide.e_ident, ELFMAG, SELFMAG) != 0)
        return error_set(err, ERROR_USAGE, "the kernel is neither a Linux bzImage nor an ELF file");
    bool is_64 = wide.e_ident[EI_CLASS] == ELFCLASS64;
    uint16_t machine = is_64 ? wide.e_machine : narrow.e_machine;
    if (wide.e_ident[EI_DATA] != ELFDATA2LSB || (machine != EM_X86_64 && machine != EM_386))
        return error_set(err, ERROR_USAGE, "the kernel is an ELF file for another processor");
    uint64_t table = is_64 ? wide.e_phoff : narrow.e_phoff;
    unsigned count = is_64 ? wide.e_phnum : narrow.e_phnum;
    size_t entry_size = is_64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if ((is_64 ? wide.e_phentsize : narrow.e_phentsize) != entry_size)
        return refuse(err, "program headers of an unknown size");
    if (count == 0)
        return refuse(err, "no program headers");
    if (table > HEAD_SIZE || count > (HEAD_SIZE - table) / entry_size)
        return refuse(err, "the program headers are not at the start of the file");
    if (have < table + count * entry_size)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *at = loader->head + table + i * entry_size;
        struct segment segment = is_64 ? segment_of_64(at) : segment_of_32(at);
        if (take_segment(loader, &segment, err) < 0)
            return -1;
    }
    loader->parsed = true;
    return 1;
}

/* Copies the part of [@position, @position + @size) that belongs to @segment to its place. */
static void place_part(struct elf_loader *loader, const struct segment *segment, size_t note_start,
                       uint64_t position, const uint8_t *data, size_t size)
{
    uint64_t start = position > segment->offset ? position : segment->offset;
    uint64_t end = segment->offset + segment->file_size;
    if (end > position + size)
        end = position + size;
    if (start >= end)
        return;
    const uint8_t *from = data + (start - position);
    uint64_t within = start - segment->offset;
    if (segment->type == PT_NOTE)
        memcpy(loader->notes + note_start + within, from, (size_t)(end - start));
    else /* the whole segment was found to be RAM */
        (void)guest_memory_write(loader->memory, segment->address + within, from,
                                 (size_t)(end - start));
}

static void place(struct elf_loader *loader, uint64_t position, const uint8_t *data, size_t size)
{
    size_t note_start = 0;
    for (unsigned i = 0; i < loader->count; i++) {
        const struct segment *segment = &loader->segments[i];
        place_part(loader, segment, note_start, position, data, size);
        if (segment->type == PT_NOTE)
            note_start += (size_t)segment->file_size;
    }
}

int elf_loader_feed(struct elf_loader *loader, const void *data, size_t size, struct error *err)
{
    const uint8_t *bytes = data;
    if (!loader->parsed) {
        size_t have = (size_t)loader->position;
        size_t fresh = size < HEAD_SIZE - have ? size : HEAD_SIZE - have;
        memcpy(loader->head + have, bytes, fresh);
        loader->position += fresh;
        int status = parse_headers(loader, have + fresh, err);
        if (status < 0)
            return -1;
        if (status == 0)
            return have + fresh == HEAD_SIZE ? refuse(err, "headers too long") : 0;
        place(loader, 0, loader->head, have + fresh);
        bytes += fresh;
        size -= fresh;
    }
    place(loader, loader->position, bytes, size);
    loader->position += size;
    return loader->position >= loader->needed;
}

/* Finds the PVH entry in @notes; false where there is none. Notes are name size, descriptor size,
 * type, then name and descriptor, each padded to 4 bytes. */
static bool find_entry(const uint8_t *notes, size_t size, uint64_t *entry)
{
    size_t at = 0;
    while (size - at >= 12) {
        uint32_t header[3];
        memcpy(header, notes + at, sizeof header);
        at += sizeof header;
        uint64_t name_size = ((uint64_t)header[0] + 3) & ~3ull;
        uint64_t data_size = ((uint64_t)header[1] + 3) & ~3ull;
        if (name_size + data_size > size - at)
            return false;
        const uint8_t *name = notes + at;
        const uint8_t *data = name + name_size;
        at += (size_t)(name_size + data_size);
        if (header[2] != NOTE_PHYS32_ENTRY || header[0] != 4 || memcmp(name, "Xen", 4) != 0)
            continue;
        *entry = 0;
        if (header[1] == 8 || header[1] == 4) {
            memcpy(entry, data, header[1]);
            return true;
        }
    }
    return false;
}

static bool inside_load(const struct elf_loader *loader, uint64_t address)
{
    for (unsigned i = 0; i < loader->count; i++) {
        const struct segment *segment = &loader->segments[i];
        if (segment->type == PT_LOAD && address >= segment->address &&
            address - segment->address < segment->memory_size)
            return true;
    }
    return false;
}

int elf_loader_finish(struct elf_loader *loader, struct boot_kernel *kernel, struct error *err)
{
    if (!loader->parsed || loader->position < loader->needed)
        return error_set(err, ERROR_USAGE,
                         "the kernel file is truncated: %llu bytes, its headers "
                         "speak of %llu",
                         (unsigned long long)loader->position, (unsigned long long)loader->needed);
    *kernel =
        (struct boot_kernel){.initrd_max = LINUX_INITRD_MAX, .cmdline_max = BOOT_CMDLINE_SIZE - 1};
    if (!find_entry(loader->notes, loader->notes_used, &kernel->entry))
        return error_set(err, ERROR_NOT_FOUND,
                         "the kernel has no PVH entry note (Linux: CONFIG_PVH=y): use its bzImage");
    if (kernel->entry > UINT32_MAX || !inside_load(loader, kernel->entry))
        return error_set(err, ERROR_USAGE, "the kernel's PVH entry 0x%llx is outside the kernel",
                         (unsigned long long)kernel->entry);
    for (unsigned i = 0; i < loader->count; i++) {
        const struct segment *segment = &loader->segments[i];
        if (segment->type == PT_LOAD && segment->address + segment->memory_size > kernel->end)
            kernel->end = segment->address + segment->memory_size;
    }
    return 0;
}
