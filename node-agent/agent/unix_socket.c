#include "node-agent/agent/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BACKLOG 16

static int make_address(int dir_fd, const char *name, struct sockaddr_un *address,
                        struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length =
        snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", dir_fd, name);
    if (length >= (int)sizeof address->sun_path)
        return error_set(err, ERROR_USAGE, "socket name %s is too long", name);
    return 0;
}

int unix_socket_listen(int dir_fd, const char *name, int type, struct error *err)
{
    struct sockaddr_un address;
    auto_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (make_address(dir_fd, name, &address, err) < 0)
        return -1;
    (void)unlinkat(dir_fd, name, 0);
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, BACKLOG) < 0)
        return error_errno(err, errno, "cannot listen on %s", name);
    return take_fd(&fd);
}

int unix_socket_connect(int dir_fd, const char *name, int type, struct error *err)
{
    struct sockaddr_un address;
    auto_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, errno, "socket");
    if (make_address(dir_fd, name, &address, err) < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_errno(err, errno == EAGAIN ? ETIMEDOUT : errno, "cannot connect to %s", name);
    return take_fd(&fd);
}
