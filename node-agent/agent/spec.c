#include "node-agent/agent/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "node-agent/agent/names.h"

#define MEMORY_MIB_MAX (16u << 20) /* 16 TiB */
#define DISK_MIB_MAX   (64u << 20) /* 64 TiB */
#define FILE_BYTES_MAX (1ull << 44)

static int check_file(const char *what, const char *sha256, uint64_t bytes, struct error *err)
{
    if (!name_is_sha256(sha256))
        return error_set(err, ERROR_USAGE, "the image's %s is not named by a SHA-256", what);
    if (bytes == 0 || bytes > FILE_BYTES_MAX)
        return error_set(err, ERROR_USAGE, "the image's %s has an impossible size", what);
    return 0;
}

static int check_image(const Vmpool__ImageSpec *image, struct error *err)
{
    if (!image)
        return error_set(err, ERROR_USAGE, "the VM has no image");
    if (check_file("kernel", image->kernel_sha256, image->kernel_bytes, err) < 0)
        return -1;
    if (image->initrd_sha256[0] &&
        check_file("initrd", image->initrd_sha256, image->initrd_bytes, err) < 0)
        return -1;
    if (image->disk_sha256[0] && check_file("disk", image->disk_sha256, image->disk_bytes, err) < 0)
        return -1;
    if (!text_is_printable(image->cmdline, SPEC_CMDLINE_MAX))
        return error_set(err, ERROR_USAGE,
                         "the kernel command line must be printable and at most %d characters",
                         SPEC_CMDLINE_MAX);
    return 0;
}

static int check_disk(const Vmpool__DiskSpec *disk, struct error *err)
{
    bool shared = disk->path[0] != '\0';
    if (shared == (disk->size_mib != 0))
        return error_set(err, ERROR_USAGE, "a disk has either a path or a size");
    if (disk->size_mib > DISK_MIB_MAX)
        return error_set(err, ERROR_USAGE, "a disk of %llu MiB is larger than this node accepts",
                         (unsigned long long)disk->size_mib);
    if (shared && (disk->path[0] != '/' || !text_is_printable(disk->path, 1023)))
        return error_set(err, ERROR_USAGE, "a disk's path must be absolute and printable");
    return 0;
}

int spec_check(const Vmpool__VmSpec *spec, struct error *err)
{
    if (!spec)
        return error_set(err, ERROR_USAGE, "the command carries no VM");
    if (!name_is_uuid(spec->id))
        return error_set(err, ERROR_USAGE, "the VM's id is not a UUID");
    if (!name_is_vm(spec->name))
        return error_set(err, ERROR_USAGE, "the VM's name has characters that are not allowed");
    if (spec->vcpus == 0 || spec->vcpus > SPEC_VCPUS_MAX)
        return error_set(err, ERROR_USAGE, "a VM has 1 to %d vCPUs, not %u", SPEC_VCPUS_MAX,
                         spec->vcpus);
    if (spec->memory_mib == 0 || spec->memory_mib > MEMORY_MIB_MAX)
        return error_set(err, ERROR_USAGE, "a VM cannot have %llu MiB of memory",
                         (unsigned long long)spec->memory_mib);
    if (spec->mac[0] && !name_is_mac(spec->mac, NULL))
        return error_set(err, ERROR_USAGE, "the VM's MAC address is not one");
    size_t image_disks = spec->image && spec->image->disk_sha256[0] ? 1 : 0;
    if (spec->n_disks + image_disks > SPEC_DISKS_MAX)
        return error_set(err, ERROR_USAGE, "a VM has at most %d disks, its image's included",
                         SPEC_DISKS_MAX);
    for (size_t i = 0; i < spec->n_disks; i++)
        if (check_disk(spec->disks[i], err) < 0)
            return -1;
    return check_image(spec->image, err);
}

Vmpool__VmSpec *spec_copy(const Vmpool__VmSpec *spec, struct error *err)
{
    size_t size = vmpool__vm_spec__get_packed_size(spec);
    auto_free uint8_t *packed = malloc(size + 1);
    Vmpool__VmSpec *copy = NULL;
    if (packed) {
        (void)vmpool__vm_spec__pack(spec, packed);
        copy = vmpool__vm_spec__unpack(NULL, size, packed);
    }
    if (!copy)
        (void)error_errno(err, ENOMEM, "copying the VM's description");
    return copy;
}

bool spec_has_local_disk(const Vmpool__VmSpec *spec)
{
    for (size_t i = 0; i < spec->n_disks; i++)
        if (spec->disks[i]->path[0] == '\0')
            return true;
    return spec->image && spec->image->disk_sha256[0] != '\0';
}
