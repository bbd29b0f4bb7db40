/*
 * image_check.c: whether a kernel, an initrd or a disk is one, and whole.
 *
 * bzImage (Documentation/arch/x86/boot.rst): "HdrS" at 0x202, the protocol's version at 0x206 (2.12
 * or later for the 64-bit entry, XLF_KERNEL_64 at 0x236), the real-mode part of setup_sects + 1
 * sectors, and behind it syssize paragraphs of 16 bytes.
 * ELF: 64-bit x86-64 whose segments lie inside the file, with the note that holds the PVH entry
 * (Xen's xen/include/public/elfnote.h): name size, descriptor size, type, name, descriptor, each
 * padded to 4. MBR and GPT (UEFI 2.10, 5.2 and 5.3): partitions and the backup header lie inside
 * the disk.
 */
#include <elf.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "poolctl/image_file.h"
#include "poolctl/image_stream.h"

#define SECTOR            512u
#define BOOT_MAGIC        0x202
#define BOOT_VERSION      0x206
#define BOOT_XLOADFLAGS   0x236
#define BOOT_SETUP_SECTS  0x1f1
#define BOOT_SYSSIZE      0x1f4
#define BOOT_VERSION_2_12 0x020c
#define XLF_KERNEL_64     1u
#define ELF_SEGMENTS_MAX  128
#define ELF_NOTES_MAX     (64u << 10)
#define PVH_NOTE_TYPE     18
#define MBR_PARTITIONS    0x1be
#define MBR_TYPE_GPT      0xee

static uint64_t little(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

static int truncated(const struct image_file *file, uint64_t needs, struct error *err)
{
    return error_set(err, ERROR_USAGE,
                     "%s is truncated: it has %" PRIu64 " bytes and needs %" PRIu64
                     ": copy it again",
                     file->path, file->bytes, needs);
}

/* ---- kernel --------------------------------------------------------------------------------- */

static int check_bzimage(const struct image_file *file, const unsigned char *head,
                         struct error *err)
{
    uint64_t version = little(head + BOOT_VERSION, 2);
    uint64_t setup = head[BOOT_SETUP_SECTS] ? head[BOOT_SETUP_SECTS] : 4;
    uint64_t needs = (setup + 1) * SECTOR + little(head + BOOT_SYSSIZE, 4) * 16;
    if (version < BOOT_VERSION_2_12 || !(head[BOOT_XLOADFLAGS] & XLF_KERNEL_64))
        return error_set(err, ERROR_USAGE,
                         "%s is a Linux kernel without the 64-bit entry: an x86-64 kernel of "
                         "version 3.8 or later is needed",
                         file->path);
    return file->bytes < needs ? truncated(file, needs, err) : 0;
}

static bool has_pvh_note(const unsigned char *notes, size_t size)
{
    Elf64_Nhdr note;
    for (size_t at = 0; at + sizeof note <= size;) {
        memcpy(&note, notes + at, sizeof note);
        at += sizeof note;
        if (note.n_type == PVH_NOTE_TYPE && note.n_namesz == 4 && size - at >= 4 &&
            memcmp(notes + at, "Xen", 4) == 0)
            return true;
        at += (((uint64_t)note.n_namesz + 3) & ~3ull) + (((uint64_t)note.n_descsz + 3) & ~3ull);
    }
    return false;
}

/* Whether @segment, whose end lies inside the file, is of notes and has the PVH entry among them.
 */
static int find_pvh(const struct image_file *file, const Elf64_Phdr *segment, bool *found,
                    struct error *err)
{
    size_t got = 0;
    if (segment->p_type != PT_NOTE || segment->p_filesz > ELF_NOTES_MAX)
        return 0;
    auto_free unsigned char *notes = malloc(segment->p_filesz + 1);
    if (!notes)
        return error_set(err, ERROR_FAILED, "out of memory");
    if (image_file_read(file, segment->p_offset, notes, segment->p_filesz, &got, err) < 0)
        return -1;
    *found = *found || has_pvh_note(notes, got);
    return 0;
}

static int check_elf(const struct image_file *file, const unsigned char *head, struct error *err)
{
    Elf64_Ehdr elf;
    memcpy(&elf, head, sizeof elf);
    if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_machine != EM_X86_64 ||
        elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum == 0 || elf.e_phnum > ELF_SEGMENTS_MAX)
        return error_set(err, ERROR_USAGE, "%s is an ELF file, but not an x86-64 kernel",
                         file->path);
    bool has_entry = false;
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr segment;
        size_t got = 0;
        uint64_t at = elf.e_phoff + (uint64_t)i * sizeof segment;
        if (at < elf.e_phoff || at > file->bytes)
            return truncated(file, at + sizeof segment, err);
        if (image_file_read(file, at, &segment, sizeof segment, &got, err) < 0)
            return -1;
        uint64_t end = segment.p_offset + segment.p_filesz;
        if (got < sizeof segment || end < segment.p_offset || end > file->bytes)
            return truncated(file, end, err);
        if (find_pvh(file, &segment, &has_entry, err) < 0)
            return -1;
    }
    if (!has_entry)
        return error_set(err, ERROR_USAGE,
                         "%s is an ELF file without a PVH note, so it cannot be started: give the "
                         "bzImage (vmlinuz) or a kernel built with CONFIG_PVH",
                         file->path);
    return 0;
}

static int check_kernel(const struct image_file *file, const unsigned char *head, size_t length,
                        struct error *err)
{
    if (length >= 0x260 && memcmp(head + BOOT_MAGIC, "HdrS", 4) == 0)
        return check_bzimage(file, head, err);
    if (length >= sizeof(Elf64_Ehdr) && memcmp(head, ELFMAG, SELFMAG) == 0)
        return check_elf(file, head, err);
    return error_set(err, ERROR_USAGE,
                     "%s is not a kernel: a bzImage (vmlinuz) or an x86-64 ELF file is needed",
                     file->path);
}

/* ---- disk ----------------------------------------------------------------------------------- */

static int check_mbr(const struct image_file *file, const unsigned char *mbr, struct error *err)
{
    for (int i = 0; i < 4; i++) {
        const unsigned char *entry = mbr + MBR_PARTITIONS + (size_t)16 * (size_t)i;
        uint64_t end = little(entry + 8, 4) + little(entry + 12, 4);
        if (entry[4] != 0 && entry[4] != MBR_TYPE_GPT && end * SECTOR > file->bytes)
            return truncated(file, end * SECTOR, err);
    }
    return 0;
}

static int check_disk(const struct image_file *file, const unsigned char *head, size_t length,
                      struct error *err)
{
    if (memcmp(head, "QFI\xfb", 4) == 0)
        return error_set(err, ERROR_USAGE,
                         "%s is a qcow2 image, and a raw disk is needed: qemu-img convert -O raw "
                         "%s disk.raw",
                         file->path, file->path);
    if (file->bytes % SECTOR)
        return error_set(err, ERROR_USAGE,
                         "%s is truncated or not a raw disk: %" PRIu64
                         " bytes are no whole number of %u-byte sectors",
                         file->path, file->bytes, SECTOR);
    if (length >= 2ul * SECTOR && memcmp(head + SECTOR, "EFI PART", 8) == 0) {
        uint64_t backup = little(head + SECTOR + 32, 8);
        if (backup >= UINT64_MAX / SECTOR - 1 || (backup + 1) * SECTOR > file->bytes)
            return truncated(file, (backup + 1) * SECTOR, err);
        return 0;
    }
    if (length >= SECTOR && head[510] == 0x55 && head[511] == 0xaa)
        return check_mbr(file, head, err);
    return 0;
}

int image_check(const struct image_file *file, struct error *err)
{
    unsigned char head[4 * SECTOR] = {0};
    size_t length = 0;
    if (image_file_read(file, 0, head, sizeof head, &length, err) < 0)
        return -1;
    switch (file->part) {
    case IMAGE_KERNEL:
        return check_kernel(file, head, length, err);
    case IMAGE_INITRD:
        return image_stream_check(file, err);
    case IMAGE_DISK:
        return check_disk(file, head, length, err);
    }
    return 0;
}
