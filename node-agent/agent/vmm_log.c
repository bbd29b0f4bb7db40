#include "node-agent/agent/vmm_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/agent/files.h"

#define FILE_NAME "vmm.log"
#define OLD_NAME  "vmm.log.1"

int vmm_log_open(int dir_fd, struct error *err)
{
    int fd =
        openat(dir_fd, FILE_NAME, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(err, errno, "cannot create " FILE_NAME);
    return fd;
}

/* The VMM holds the file open for appending, so it is emptied, not replaced; a line written between
 * the copy and the cut is lost, which a log can bear. */
void vmm_log_bound(int dir_fd)
{
    char tail[VMM_LOG_MAX_BYTES / 4];
    struct stat info;
    struct error err = ERROR_INIT;
    if (fstatat(dir_fd, FILE_NAME, &info, AT_SYMLINK_NOFOLLOW) < 0 ||
        info.st_size <= (off_t)VMM_LOG_MAX_BYTES)
        return;
    size_t size = vmm_log_tail(dir_fd, tail, sizeof tail);
    (void)files_write(dir_fd, OLD_NAME, tail, size, 0600, &err);
    auto_fd int fd = openat(dir_fd, FILE_NAME, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && ftruncate(fd, 0) < 0)
        return; /* tried again at the next report */
}

size_t vmm_log_tail(int dir_fd, char *out, size_t size)
{
    struct stat info;
    out[0] = '\0';
    auto_fd int fd = openat(dir_fd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &info) < 0)
        return 0;
    off_t start = info.st_size > (off_t)size - 1 ? info.st_size - (off_t)size + 1 : 0;
    ssize_t count = pread(fd, out, size - 1, start);
    if (count < 0)
        count = 0;
    out[count] = '\0';
    char *newline = start > 0 ? memchr(out, '\n', (size_t)count) : NULL;
    if (newline) {
        count -= newline + 1 - out;
        memmove(out, newline + 1, (size_t)count + 1);
    }
    return (size_t)count;
}

void vmm_log_last_line(int dir_fd, char *out, size_t size)
{
    char tail[2048];
    size_t length = vmm_log_tail(dir_fd, tail, sizeof tail);
    while (length > 0 && tail[length - 1] == '\n')
        tail[--length] = '\0';
    const char *line = strrchr(tail, '\n');
    line = line ? line + 1 : tail;
    const char *message = strstr(line, "pool-vmm: ");
    (void)snprintf(out, size, "%s", message ? message + strlen("pool-vmm: ") : line);
}
