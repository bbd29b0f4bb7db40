#include "node-agent/agent/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define TREE_DEPTH_MAX 4

int files_make_dirs(const char *path, mode_t mode, struct error *err)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part)
        return error_set(err, ERROR_USAGE, "path '%.200s' is empty or too long", path);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return error_errno(err, errno, "cannot create folder %s", part);
    }
    struct stat info;
    if (stat(path, &info) < 0)
        return error_errno(err, errno, "cannot use folder %s", path);
    if (!S_ISDIR(info.st_mode))
        return error_set(err, ERROR_CONFLICT, "%s is there and is no folder", path);
    return 0;
}

int files_open_dir(int dir_fd, const char *name, struct error *err)
{
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (dir_fd == AT_FDCWD ? 0 : O_NOFOLLOW);
    int fd = openat(dir_fd, name, flags);
    if (fd < 0)
        return error_errno(err, errno, "cannot open folder %s", name);
    return fd;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

int files_write(int dir_fd, const char *name, const void *data, size_t size, mode_t mode,
                struct error *err)
{
    char temporary[NAME_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.new", name) >= (int)sizeof temporary)
        return error_set(err, ERROR_USAGE, "file name %s is too long", name);
    auto_fd int fd =
        openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return error_errno(err, errno, "cannot create %s", temporary);
    if (write_all(fd, data, size) < 0 || fdatasync(fd) < 0 ||
        renameat(dir_fd, temporary, dir_fd, name) < 0) {
        int number = errno;
        (void)unlinkat(dir_fd, temporary, 0);
        return error_errno(err, number, "cannot write %s", name);
    }
    return 0;
}

int files_read(int dir_fd, const char *name, size_t max, char **data, size_t *size,
               struct error *err)
{
    auto_fd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", name);
    char *buffer = malloc(max + 2);
    if (!buffer)
        return error_errno(err, ENOMEM, "reading %s", name);
    size_t length = 0;
    while (length <= max) {
        ssize_t count = read(fd, buffer + length, max + 1 - length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            (void)error_errno(err, errno, "cannot read %s", name);
            free(buffer);
            return -1;
        }
        if (count == 0)
            break;
        length += (size_t)count;
    }
    if (length > max) {
        free(buffer);
        return error_set(err, ERROR_FAILED, "%s is longer than %zu bytes", name, max);
    }
    buffer[length] = '\0';
    *data = buffer;
    *size = length;
    return 0;
}

/* Empties the folder behind @dir_fd, which it closes. */
static int empty_tree(int dir_fd, unsigned depth, struct error *err) // NOLINT(misc-no-recursion)
{
    DIR *dir = fdopendir(dir_fd);
    if (!dir) {
        close_fd(&dir_fd);
        return error_errno(err, errno, "cannot list a folder");
    }
    int status = 0;
    for (struct dirent *entry; status == 0 && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) == 0 || errno == ENOENT)
            continue;
        int number = errno;
        if ((number != EISDIR && number != EPERM) || depth == TREE_DEPTH_MAX) {
            status = error_errno(err, number, "cannot remove %s", entry->d_name);
            continue;
        }
        int inner = files_open_dir(dirfd(dir), entry->d_name, err);
        status = inner < 0 ? -1 : empty_tree(inner, depth + 1, err);
        if (status == 0 && unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR) < 0)
            status = error_errno(err, errno, "cannot remove folder %s", entry->d_name);
    }
    (void)closedir(dir);
    return status;
}

int files_remove_tree(int dir_fd, const char *name, struct error *err)
{
    int inner = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (inner < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "cannot open folder %s", name);
    if (empty_tree(inner, 1, err) < 0)
        return error_wrap(err, "removing %s", name);
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return error_errno(err, errno, "cannot remove folder %s", name);
    return 0;
}
