#include "node-agent/migration/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/migration/pages.h"

int uffd_open(bool user_only, struct error *err)
{
    int flags = O_CLOEXEC | O_NONBLOCK | (user_only ? UFFD_USER_MODE_ONLY : 0);
    auto_fd int fd = (int)syscall(SYS_userfaultfd, flags);
    if (fd < 0)
        return error_errno(err, errno, "cannot make a userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return error_errno(err, errno, "this kernel's userfaultfd speaks another version");
    return take_fd(&fd);
}

int uffd_watch(int fd, const void *start, size_t size, struct error *err)
{
    struct uffdio_register range = {.range = {.start = (uintptr_t)start, .len = size},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(fd, UFFDIO_REGISTER, &range) < 0)
        return error_errno(err, errno, "cannot watch the guest's RAM");
    return 0;
}

int uffd_unwatch(int fd, const void *start, size_t size, struct error *err)
{
    struct uffdio_range range = {.start = (uintptr_t)start, .len = size};
    if (ioctl(fd, UFFDIO_UNREGISTER, &range) < 0)
        return error_errno(err, errno, "cannot end watching the guest's RAM");
    return 0;
}

int uffd_next(int fd, uint64_t *address, struct error *err)
{
    struct uffd_msg message;
    for (;;) {
        ssize_t done = read(fd, &message, sizeof(message));
        if (done < 0 && errno == EAGAIN)
            return 0;
        if (done < 0 && errno != EINTR)
            return error_errno(err, errno, "cannot read a page fault");
        if (done != (ssize_t)sizeof(message) || message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        *address = message.arg.pagefault.address & ~(PAGE_BYTES - 1);
        return 1;
    }
}

/* One call; returns the bytes put, or a negative errno value. */
static int64_t put_once(int fd, uintptr_t to, const void *from, size_t size)
{
    if (from) {
        struct uffdio_copy copy = {.dst = to, .src = (uintptr_t)from, .len = size};
        return ioctl(fd, UFFDIO_COPY, &copy) == 0 ? (int64_t)size
               : copy.copy != 0                   ? copy.copy
                                                  : -errno;
    }
    struct uffdio_zeropage zero = {.range = {.start = to, .len = size}};
    return ioctl(fd, UFFDIO_ZEROPAGE, &zero) == 0 ? (int64_t)size
           : zero.zeropage != 0                   ? zero.zeropage
                                                  : -errno;
}

int uffd_put(int fd, void *to, const void *from, size_t pages, struct error *err)
{
    uint8_t *at = to;
    const uint8_t *source = from;
    for (size_t left = pages * PAGE_BYTES; left > 0;) {
        int64_t done = put_once(fd, (uintptr_t)at, source, left);
        if (done == -EEXIST) {
            /* Who faulted before it was there may still be waiting. */
            struct uffdio_range range = {.start = (uintptr_t)at, .len = PAGE_BYTES};
            (void)ioctl(fd, UFFDIO_WAKE, &range);
            done = PAGE_BYTES;
        } else if (done == -EAGAIN || done == -EINTR) {
            continue;
        } else if (done < 0) {
            return error_errno(err, (int)-done, "cannot put a page into the guest's RAM");
        }
        at += done;
        source = source ? source + done : NULL;
        left -= (size_t)done;
    }
    return 0;
}
