#include "node-agent/agent/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/image_cache.h"
#include "node-agent/agent/names.h"

#define LOCK_BASE    (1ll << 62)
#define LOCK_READERS LOCK_BASE
#define LOCK_IDS     (1ll << 40)

static struct flock lock_on(short type, off_t start, off_t length)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

/* The VM's own byte: from the first ten digits of its random id. */
static off_t own_byte(const char *vm_id)
{
    uint64_t value = 0;
    for (size_t i = 0, digits = 0; digits < 10; i++) {
        if (vm_id[i] == '-')
            continue;
        char c = vm_id[i];
        value = value * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        digits++;
    }
    return LOCK_BASE + 1 + (off_t)value;
}

/* Whether somebody else holds a lock within [@start, @end). */
static int look_for_others(int fd, off_t start, off_t end, struct error *err)
{
    struct flock lock = lock_on(F_WRLCK, start, end - start);
    if (start == end)
        return 0;
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
        return error_errno(err, errno, "cannot look at locks");
    if (lock.l_type != F_UNLCK)
        return error_set(err, ERROR_CONFLICT, "another VM uses it");
    return 0;
}

int disk_lock(int fd, bool read_only, const char *vm_id, struct error *err)
{
    const off_t ids = LOCK_BASE + 1, end = ids + LOCK_IDS;
    off_t own = read_only ? LOCK_READERS : own_byte(vm_id);
    struct flock lock = lock_on(F_RDLCK, own, 1);
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
        return error_errno(err, errno, "cannot lock it");
    if (read_only)
        return look_for_others(fd, ids, end, err);
    if (look_for_others(fd, LOCK_BASE, own, err) < 0)
        return -1;
    return look_for_others(fd, own + 1, end, err);
}

/* @path relative to folder @dir, or NULL where it does not lie in it. */
static const char *path_below(const char *path, const char *dir)
{
    size_t length = strlen(dir);
    while (length > 1 && dir[length - 1] == '/')
        length--;
    if (strncmp(path, dir, length) != 0 || path[length] != '/')
        return NULL;
    const char *rest = path + length;
    rest += strspn(rest, "/");
    return *rest ? rest : NULL;
}

/* Whether @path is one of the agent's own files below @storage. */
static bool is_agents_own(const char *path, const char *storage)
{
    const char *rest = path_below(path, storage);
    if (!rest)
        return false;
    char first[64];
    size_t length = strcspn(rest, "/");
    if (length >= sizeof first)
        return false;
    memcpy(first, rest, length);
    first[length] = '\0';
    return strcmp(first, IMAGE_CACHE_FOLDER) == 0 || name_is_uuid(first);
}

static int open_below(const char *dir, const char *rest, struct error *err)
{
    auto_fd int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return error_errno(err, errno, "allowed folder %s", dir);
    /* First only as a name: opening a FIFO or device would already have an effect. */
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, dir_fd, rest, &how, sizeof how);
    if (fd >= 0)
        return fd;
    if (errno == EXDEV || errno == ELOOP)
        return error_set(err, ERROR_USAGE, "it leads out of the allowed folder %s", dir);
    return error_errno(err, errno, "cannot open it");
}

static int check_type(int fd, const char *dir, bool *block, struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return error_errno(err, errno, "cannot look at it");
    *block = S_ISBLK(info.st_mode);
    bool in_dev = strcmp(dir, "/dev") == 0 || strncmp(dir, "/dev/", 5) == 0;
    if (S_ISREG(info.st_mode) || (*block && in_dev)) {
        if (!*block && info.st_size < 512)
            return error_set(err, ERROR_USAGE, "it is smaller than one sector");
        return 0;
    }
    if (*block)
        return error_set(err, ERROR_USAGE,
                         "block devices are used only below an --allow-disk-dir in /dev");
    return error_set(err, ERROR_USAGE, "it is neither a file nor a block device");
}

/* Opens for real what @name_fd names. A device the host itself uses (mounted, say) is refused: an
 * exclusive open fails then. */
static int open_for_use(int name_fd, bool read_only, bool block, struct error *err)
{
    char path[64];
    int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", name_fd);
    if (block && !read_only) {
        auto_fd int probe = open(path, O_RDONLY | O_CLOEXEC | O_EXCL);
        if (probe < 0 && errno == EBUSY)
            return error_set(err, ERROR_CONFLICT, "this host itself uses the device");
    }
    int fd = open(path, flags);
    if (fd < 0)
        return error_errno(err, errno, "cannot open it");
    return fd;
}

static int open_allowed(const char *path, bool read_only, const char *const *allowed,
                        unsigned allowed_count, struct error *err)
{
    for (unsigned i = 0; i < allowed_count; i++) {
        bool block = false;
        const char *rest = path_below(path, allowed[i]);
        if (!rest)
            continue;
        auto_fd int name_fd = open_below(allowed[i], rest, err);
        if (name_fd < 0 || check_type(name_fd, allowed[i], &block, err) < 0)
            return -1;
        auto_fd int fd = open_for_use(name_fd, read_only, block, err);
        if (fd < 0)
            return -1;
        /* What this host cached when the VM last ran here may be old by now. Both are hints. */
        if (block && !read_only)
            (void)ioctl(fd, BLKFLSBUF, 0);
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        return take_fd(&fd);
    }
    return error_set(
        err, ERROR_USAGE,
        "it lies in no folder this node allows disks in (pool-agent --allow-disk-dir)");
}

int disk_open_shared(const char *path, bool read_only, const char *vm_id,
                     const char *const *allowed, unsigned allowed_count, const char *storage,
                     struct error *err)
{
    if (is_agents_own(path, storage))
        return error_set(err, ERROR_USAGE, "disk %s belongs to the agent itself", path);
    auto_fd int fd = open_allowed(path, read_only, allowed, allowed_count, err);
    if (fd < 0 || disk_lock(fd, read_only, vm_id, err) < 0)
        return error_wrap(err, "disk %s", path);
    return take_fd(&fd);
}
