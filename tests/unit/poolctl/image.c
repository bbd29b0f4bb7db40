/* Image files: whole ones are taken and sent piece by piece, others refused before anything is. */
#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "fake_controller.h"
#include "poolctl/image_file.h"

#define KERNEL_SECTORS 3000u /* 1.5 MiB: two pieces */

static char folder[] = "/tmp/vmpool-image-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[4][128];
    static unsigned next;
    char *out = path[next++ % 4];
    (void)snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(path_of(name), "w");
    cr_assert(file);
    cr_assert_eq(fwrite(data, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

static void cut_file(const char *from, const char *to, long bytes)
{
    static char data[4 << 20];
    FILE *file = fopen(path_of(from), "r");
    cr_assert(file);
    size_t size = fread(data, 1, sizeof data, file);
    (void)fclose(file);
    write_file(to, data, bytes < 0 ? size - (size_t)-bytes : (size_t)bytes);
}

static void put_little(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

/* The header of a bzImage, and the bytes it promises. */
static void make_kernel(const char *name)
{
    static unsigned char data[KERNEL_SECTORS * 512];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    data[0x1f1] = 15;
    put_little(data + 0x1f4, (sizeof data - 16 * 512) / 16, 4);
    memcpy(data + 0x202, "HdrS", 4);
    put_little(data + 0x206, 0x20f, 2);
    put_little(data + 0x236, 1, 2);
    write_file(name, data, sizeof data);
}

/* One file and the trailer, as cpio(5) newc. */
static size_t make_cpio(char *out)
{
    size_t used = 0;
    const char *const names[] = {"init", "TRAILER!!!"};
    for (int i = 0; i < 2; i++) {
        used += (size_t)sprintf(
            out + used, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", i, 0100755, 0,
            0, 1, 0, i ? 0 : 100, 0, 0, 0, 0, (unsigned)strlen(names[i]) + 1, 0);
        memcpy(out + used, names[i], strlen(names[i]) + 1);
        used += strlen(names[i]) + 1;
        for (; used % 4; used++)
            out[used] = 0;
        if (i == 0) {
            memset(out + used, 'x', 100);
            used += 100;
        }
    }
    return used;
}

/* An ELF file that is its headers and one note of @type, by Xen. */
static void make_elf(const char *name, unsigned type)
{
    struct {
        Elf64_Ehdr head;
        Elf64_Phdr segment;
        Elf64_Nhdr note;
        char owner[4];
        uint32_t entry;
    } elf = {.head = {.e_machine = EM_X86_64,
                      .e_phoff = sizeof elf.head,
                      .e_phentsize = sizeof elf.segment,
                      .e_phnum = 1},
             .segment = {.p_type = PT_NOTE,
                         .p_offset = sizeof elf.head + sizeof elf.segment,
                         .p_filesz = sizeof elf.note + 8},
             .note = {.n_namesz = 4, .n_descsz = 4, .n_type = type},
             .owner = "Xen",
             .entry = 0x100000};
    memcpy(elf.head.e_ident, ELFMAG, SELFMAG);
    elf.head.e_ident[EI_CLASS] = ELFCLASS64;
    write_file(name, &elf, sizeof elf.head + sizeof elf.segment + elf.segment.p_filesz);
}

static void make_files(void)
{
    char cpio[1024];
    cr_assert_not_null(mkdtemp(folder));
    make_kernel("vmlinuz");
    make_elf("vmlinux", 18);
    make_elf("program", 5);
    size_t size = make_cpio(cpio);
    memset(cpio + size, 0, 512); /* padding */
    write_file("initrd.cpio", cpio, size + 512 - size % 512);
    gzFile gz = gzopen(path_of("initrd.gz"), "wb");
    cr_assert_eq(gzwrite(gz, cpio, (unsigned)size), (int)size);
    cr_assert_eq(gzclose(gz), Z_OK);
    static unsigned char disk[64 * 512];
    disk[0x1be + 4] = 0x83;
    put_little(disk + 0x1be + 8, 8, 4);
    put_little(disk + 0x1be + 12, 56, 4);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    write_file("disk.raw", disk, sizeof disk);
    write_file("empty", "", 0);
    write_file("text", "hello, world\n", 13);
    write_file("disk.qcow2", "QFI\xfb disk", 9);
    cut_file("vmlinuz", "vmlinuz.cut", -100);
    cut_file("initrd.cpio", "cpio.cut", 150);
    cut_file("initrd.gz", "gz.cut", -9);
    cut_file("disk.raw", "disk.cut", 40 * 512);
    cut_file("disk.raw", "disk.odd", 63 * 512 + 1);
}

static void remove_files(void)
{
    static const char *const names[] = {"vmlinuz",  "initrd.cpio", "initrd.gz",  "disk.raw",
                                        "empty",    "text",        "disk.qcow2", "vmlinuz.cut",
                                        "cpio.cut", "gz.cut",      "disk.cut",   "disk.odd",
                                        "fifo",     "vmlinux",     "program"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unlink(path_of(names[i]));
    (void)rmdir(folder);
}

Test(image, what_is_not_whole_is_refused, .init = make_files, .fini = remove_files)
{
    static const struct {
        enum image_part part;
        const char *file;
        const char *said; /* NULL: it is taken */
    } cases[] = {
        {IMAGE_KERNEL, "vmlinuz", NULL},
        {IMAGE_KERNEL, "vmlinuz.cut", "is truncated"},
        {IMAGE_KERNEL, "vmlinux", NULL},
        {IMAGE_KERNEL, "program", "without a PVH note"},
        {IMAGE_KERNEL, "text", "is not a kernel"},
        {IMAGE_KERNEL, "empty", "is empty"},
        {IMAGE_KERNEL, "nosuch", "No such file"},
        {IMAGE_KERNEL, "fifo", "not a regular file"},
        {IMAGE_KERNEL, "", "not a regular file"},
        {IMAGE_INITRD, "initrd.cpio", NULL},
        {IMAGE_INITRD, "initrd.gz", NULL},
        {IMAGE_INITRD, "cpio.cut", "truncated or damaged"},
        {IMAGE_INITRD, "gz.cut", "truncated or damaged"},
        {IMAGE_INITRD, "text", "is not an initrd"},
        {IMAGE_INITRD, "empty", "is empty"},
        {IMAGE_DISK, "disk.raw", NULL},
        {IMAGE_DISK, "disk.cut", "is truncated"},
        {IMAGE_DISK, "disk.odd", "truncated or not a raw disk"},
        {IMAGE_DISK, "disk.qcow2", "qemu-img convert"},
    };
    cr_assert_eq(mkfifo(path_of("fifo"), 0600), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct image_file file;
        struct error err = ERROR_INIT;
        int result = image_file_open(&file, cases[i].part, path_of(cases[i].file), &err);
        cr_expect_eq(result, cases[i].said ? -1 : 0, "%s: %s", cases[i].file, err.text);
        if (cases[i].said)
            cr_expect_not_null(strstr(err.text, cases[i].said), "%s: %s", cases[i].file, err.text);
        image_file_close(&file);
    }
}

static bool keep_on(void *context, uint64_t done, uint64_t total)
{
    (void)total;
    *(uint64_t *)context = done;
    return true;
}

Test(image, a_file_that_changes_meanwhile_is_noticed, .init = make_files, .fini = remove_files)
{
    struct image_file file;
    struct error err = ERROR_INIT;
    uint64_t seen = 0;
    write_file("disk.raw", "\0", 1);
    cr_assert_eq(truncate(path_of("disk.raw"), 3 * 512), 0);
    cr_assert_eq(image_file_open(&file, IMAGE_DISK, path_of("disk.raw"), &err), 0, "%s", err.text);
    cr_expect_eq(image_file_hash(&file, keep_on, &seen, &err), 0);
    cr_expect_eq(seen, 1536);
    /* sha256 of 1536 zero bytes */
    cr_expect_str_eq(file.sha256,
                     "80422bc3d307b4a25bdafcc84ac7fb01cb55a09810e8b0f37bb12e0edb5c48ca");
    cr_assert_eq(truncate(path_of("disk.raw"), 2 * 512), 0);
    cr_expect_eq(image_file_hash(&file, keep_on, &seen, &err), -1);
    cr_expect_eq(err.kind, ERROR_CONFLICT);
    image_file_close(&file);
}

/* Lacks all files at first; has them once all their bytes came. */
static bool lacks_all(struct fake *fake, const Vmpool__AdminRequest *request,
                      Vmpool__AdminReply *reply)
{
    static Vmpool__ImageAccepted accepted = VMPOOL__IMAGE_ACCEPTED__INIT;
    static char *missing[2];
    if (request->body_case != VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT)
        return false;
    const Vmpool__ImageSpec *image = request->image_put->image;
    bool complete = fake_piece_bytes(fake) >= image->kernel_bytes + image->initrd_bytes;
    missing[0] = image->kernel_sha256;
    missing[1] = image->initrd_sha256;
    accepted.missing_sha256 = missing;
    accepted.n_missing_sha256 = complete ? 0 : 2;
    reply->body_case = VMPOOL__ADMIN_REPLY__BODY_IMAGE_ACCEPTED;
    reply->image_accepted = &accepted;
    return true;
}

Test(image, only_what_is_missing_is_sent, .init = make_files, .fini = remove_files)
{
    char line[512];
    (void)snprintf(line, sizeof line,
                   "image import deb --kernel %s --initrd %s --cmdline 'console=ttyS0 quiet'",
                   path_of("vmlinuz"), path_of("initrd.gz"));
    struct fake *fake = fake_start(lacks_all);
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, 0, "%s", run.err);
    cr_expect_not_null(strstr(run.out, "Image deb is ready"));
    run_free(&run);
    const Vmpool__ImageSpec *image =
        fake_last(fake, VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT)->image_put->image;
    cr_expect_eq(fake_piece_bytes(fake), image->kernel_bytes + image->initrd_bytes);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PUT), 2);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE), 3);
    cr_expect_str_eq(image->cmdline, "console=ttyS0 quiet");
    run = run_poolctl(line);
    cr_expect_eq(run.status, 0);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY_IMAGE_PIECE), 3, "sent once only");
    run_free(&run);
    fake_stop(fake);
}

Test(image, nothing_is_sent_of_a_bad_image, .init = make_files, .fini = remove_files)
{
    char line[512];
    struct fake *fake = fake_start(lacks_all);
    (void)snprintf(line, sizeof line, "image import deb --kernel %s --initrd %s",
                   path_of("vmlinuz"), path_of("gz.cut"));
    struct run run = run_poolctl(line);
    cr_expect_eq(run.status, ERROR_USAGE);
    cr_expect_eq(strncmp(run.err, "poolctl: --initrd: ", 19), 0, "%s", run.err);
    cr_expect_eq(fake_count(fake, VMPOOL__ADMIN_REQUEST__BODY__NOT_SET), 0);
    run_free(&run);
    fake_stop(fake);
}
