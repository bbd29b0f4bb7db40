#include "node-agent/agent/local_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/disk.h"
#include "node-agent/agent/files.h"
#include "node-agent/agent/names.h"

#define PORTION_BYTES (8u << 20)
#define SUFFIX        ".part"
/* Room left for the host when a disk is made without taking its space (see reserve()). */
#define SPARE_BYTES (64u << 20)

struct local_disk {
    struct loop *loop;
    struct loop_source *step;
    char vm_id[VM_ID_LENGTH + 1];
    char name[32], part[40];
    int dir_fd, fd, image_fd;
    bool created;
    uint64_t bytes, copied;
    local_disk_fn done;
    void *context;
};

static void release(struct local_disk *disk)
{
    loop_remove(disk->step);
    close_fd(&disk->fd);
    close_fd(&disk->dir_fd);
    free(disk);
}

static int open_folder(const char *storage, const char *vm_id, struct error *err)
{
    auto_fd int storage_fd = files_open_dir(AT_FDCWD, storage, err);
    if (storage_fd < 0)
        return -1;
    if (mkdirat(storage_fd, vm_id, 0700) < 0 && errno != EEXIST)
        return error_errno(err, errno, "cannot create %s/%s", storage, vm_id);
    return files_open_dir(storage_fd, vm_id, err);
}

static int out_of_space(struct error *err, const struct local_disk *disk)
{
    return error_set(err, ERROR_NO_CAPACITY,
                     "no space for disk %s of %llu MiB: free some below --storage, or start the VM "
                     "on another node",
                     disk->name, (unsigned long long)(disk->bytes >> 20));
}

/* Takes the disk's space. Where the file system cannot (network ones), the size is set and the
 * space that is free now compared: the best that can be had there. */
static int reserve(struct local_disk *disk, struct error *err)
{
    struct statvfs space;
    if (fallocate(disk->fd, 0, 0, (off_t)disk->bytes) == 0)
        return 0;
    if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)
        return out_of_space(err, disk);
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return error_errno(err, errno, "cannot make disk %s", disk->name);
    if (fstatvfs(disk->fd, &space) == 0 &&
        (uint64_t)space.f_bavail * space.f_frsize < disk->bytes + SPARE_BYTES)
        return out_of_space(err, disk);
    if (ftruncate(disk->fd, (off_t)disk->bytes) < 0)
        return error_errno(err, errno, "cannot make disk %s", disk->name);
    return 0;
}

/* An existing whole disk: 1 with disk->fd open, 0 where there is none. */
static int reuse(struct local_disk *disk, struct error *err)
{
    struct stat info;
    disk->fd = openat(disk->dir_fd, disk->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (disk->fd < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "cannot open disk %s", disk->name);
    if (fstat(disk->fd, &info) < 0)
        return error_errno(err, errno, "disk %s", disk->name);
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != disk->bytes)
        return error_set(err, ERROR_CONFLICT,
                         "disk %s is there with another size; remove the VM to make it anew",
                         disk->name);
    return 1;
}

static int create(struct local_disk *disk, struct error *err)
{
    disk->fd =
        openat(disk->dir_fd, disk->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (disk->fd < 0)
        return error_errno(err, errno, "cannot create disk %s", disk->name);
    disk->created = true;
    /* On a file system that shares blocks (btrfs, XFS) the copy is made at once. */
    if (disk->image_fd >= 0 && ioctl(disk->fd, FICLONE, disk->image_fd) == 0) {
        disk->copied = disk->bytes;
        return ftruncate(disk->fd, (off_t)disk->bytes) < 0
                   ? error_errno(err, errno, "cannot make disk %s", disk->name)
                   : 0;
    }
    if (disk->image_fd < 0)
        disk->copied = disk->bytes;
    return reserve(disk, err);
}

static int copy_portion(struct local_disk *disk, struct error *err)
{
    uint64_t left = disk->bytes - disk->copied;
    off_t from = (off_t)disk->copied, to = (off_t)disk->copied;
    ssize_t count = copy_file_range(disk->image_fd, &from, disk->fd, &to,
                                    left < PORTION_BYTES ? left : PORTION_BYTES, 0);
    if (count < 0 && errno == ENOSPC)
        return out_of_space(err, disk);
    if (count < 0)
        return error_errno(err, errno, "cannot copy the image to disk %s", disk->name);
    if (count == 0)
        return error_set(err, ERROR_FAILED, "the image ended before disk %s was full", disk->name);
    /* Written out portion by portion, or the fsync at the end would hold up the loop for long. */
    (void)sync_file_range(disk->fd, (off_t)disk->copied, count,
                          SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    disk->copied += (uint64_t)count;
    return 0;
}

static int finish(struct local_disk *disk, struct error *err)
{
    if (fsync(disk->fd) < 0)
        return errno == ENOSPC ? out_of_space(err, disk)
                               : error_errno(err, errno, "cannot write disk %s", disk->name);
    if (renameat(disk->dir_fd, disk->part, disk->dir_fd, disk->name) < 0 || fsync(disk->dir_fd) < 0)
        return error_errno(err, errno, "cannot name disk %s", disk->name);
    return 0;
}

static void on_step(void *context)
{
    struct local_disk *disk = context;
    struct error err = ERROR_INIT;
    disk->step = NULL;
    int status = disk->fd >= 0 ? 0 : reuse(disk, &err);
    bool ready = status == 1;
    if (status == 0 && disk->fd < 0)
        status = create(disk, &err);
    else if (status == 0)
        status = copy_portion(disk, &err);
    if (status == 0 && disk->copied == disk->bytes) {
        status = finish(disk, &err);
        ready = status == 0;
    }
    if (status >= 0 && ready)
        status = disk_lock(disk->fd, false, disk->vm_id, &err);
    if (status >= 0 && !ready) {
        disk->step = loop_add_timer(disk->loop, 1, 0, on_step, disk);
        if (disk->step)
            return;
        status = error_errno(&err, ENOMEM, "disk %s", disk->name);
    }
    int fd = status < 0 ? -1 : take_fd(&disk->fd);
    local_disk_fn done = disk->done;
    void *done_context = disk->context;
    bool created = disk->created;
    if (fd < 0)
        (void)unlinkat(disk->dir_fd, disk->part, 0);
    release(disk);
    done(done_context, fd, created, fd < 0 ? &err : NULL);
}

struct local_disk *local_disk_make(struct loop *loop, const char *storage, const char *vm_id,
                                   const char *name, uint64_t bytes, int image_fd,
                                   local_disk_fn done, void *context, struct error *err)
{
    struct local_disk *disk = calloc(1, sizeof *disk);
    if (!disk) {
        (void)error_errno(err, ENOMEM, "disk %s", name);
        return NULL;
    }
    *disk = (struct local_disk){.loop = loop,
                                .fd = -1,
                                .image_fd = image_fd,
                                .bytes = bytes,
                                .done = done,
                                .context = context};
    (void)snprintf(disk->vm_id, sizeof disk->vm_id, "%s", vm_id);
    (void)snprintf(disk->name, sizeof disk->name, "%s", name);
    (void)snprintf(disk->part, sizeof disk->part, "%s" SUFFIX, disk->name);
    disk->dir_fd = open_folder(storage, vm_id, err);
    if (disk->dir_fd >= 0) {
        disk->step = loop_add_timer(loop, 0, 0, on_step, disk);
        if (disk->step)
            return disk;
        (void)error_errno(err, ENOMEM, "disk %s", name);
    }
    release(disk);
    return NULL;
}

void local_disk_cancel(struct local_disk *disk)
{
    if (!disk)
        return;
    (void)unlinkat(disk->dir_fd, disk->part, 0);
    release(disk);
}

int local_disk_remove_all(const char *storage, const char *vm_id, struct error *err)
{
    auto_fd int storage_fd = files_open_dir(AT_FDCWD, storage, err);
    if (storage_fd < 0 || files_remove_tree(storage_fd, vm_id, err) < 0)
        return error_wrap(err, "removing the disks of VM %s", vm_id);
    return 0;
}

void local_disk_remove(const char *storage, const char *vm_id, const char *name)
{
    struct error err = ERROR_INIT;
    auto_fd int storage_fd = files_open_dir(AT_FDCWD, storage, &err);
    auto_fd int dir_fd = storage_fd < 0 ? -1 : files_open_dir(storage_fd, vm_id, &err);
    if (dir_fd >= 0)
        (void)unlinkat(dir_fd, name, 0);
}

void local_disk_tidy(const char *storage, const char *vm_id)
{
    struct error err = ERROR_INIT;
    auto_fd int storage_fd = files_open_dir(AT_FDCWD, storage, &err);
    int dir_fd = storage_fd < 0 ? -1 : files_open_dir(storage_fd, vm_id, &err);
    DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
    if (!dir) {
        close_fd(&dir_fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        if (length > strlen(SUFFIX) && strcmp(entry->d_name + length - strlen(SUFFIX), SUFFIX) == 0)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    (void)closedir(dir);
    (void)unlinkat(storage_fd, vm_id, AT_REMOVEDIR); /* fails, rightly, where disks are left */
}
