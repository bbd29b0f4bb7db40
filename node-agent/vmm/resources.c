#include "node-agent/vmm/resources.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "common/units.h"

/* Takes "fd:N". Returns 1 and the descriptor, 0 where @text is something else. */
static int take_inherited(const char *text, const char *what, int *fd, struct error *err)
{
    uint64_t number = 0;
    if (strncmp(text, "fd:", 3) != 0)
        return 0;
    if (units_parse_number(text + 3, what, 0, INT32_MAX, &number, err) < 0)
        return -1;
    *fd = (int)number;
    if (fcntl(*fd, F_SETFD, FD_CLOEXEC) < 0)
        return error_errno(err, errno, "%s: %s", what, text);
    return 1;
}

int resources_open_file(const char *text, const char *what, bool read_only, struct error *err)
{
    int fd = -1;
    int inherited = take_inherited(text, what, &fd, err);
    if (inherited != 0)
        return inherited < 0 ? -1 : fd;
    fd = open(text, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    return fd >= 0 ? fd : error_errno(err, errno, "%s: cannot open %s", what, text);
}

int resources_open_tap(const char *text, struct error *err)
{
    int inherited_fd = -1;
    int inherited = take_inherited(text, "--tap", &inherited_fd, err);
    if (inherited != 0)
        return inherited < 0 ? -1 : inherited_fd;
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (strlen(text) == 0 || strlen(text) >= sizeof request.ifr_name)
        return error_set(err, ERROR_USAGE, "--tap: '%s' is no interface name", text);
    memcpy(request.ifr_name, text, strlen(text));
    auto_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "--tap: cannot open /dev/net/tun");
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return error_errno(err, errno, "--tap: cannot attach to %s", text);
    return take_fd(&fd);
}

int resources_listen_unix(const char *text, int type, const char *what, struct error *err)
{
    int inherited_fd = -1;
    int inherited = take_inherited(text, what, &inherited_fd, err);
    if (inherited != 0)
        return inherited < 0 ? -1 : inherited_fd;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(text) >= sizeof address.sun_path)
        return error_set(err, ERROR_USAGE, "%s: a socket's path has at most %zu bytes", what,
                         sizeof address.sun_path - 1);
    memcpy(address.sun_path, text, strlen(text));
    auto_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_errno(err, errno, "%s: socket", what);
    struct stat info;
    if (lstat(text, &info) == 0 && S_ISSOCK(info.st_mode)) {
        /* Someone who answers is a VMM that lives; else the socket is a leftover. */
        auto_fd int probe = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        if (probe >= 0 && connect(probe, (struct sockaddr *)&address, sizeof address) == 0)
            return error_set(err, ERROR_CONFLICT, "%s: %s is in use by a running VMM", what, text);
        (void)unlink(text);
    }
    mode_t before = umask(0177);
    int status = bind(fd, (struct sockaddr *)&address, sizeof address);
    int number = errno;
    (void)umask(before);
    if (status < 0)
        return error_errno(err, number, "%s: cannot bind %s", what, text);
    if (listen(fd, 16) < 0)
        return error_errno(err, errno, "%s: listen", what);
    return take_fd(&fd);
}

int resources_listen_tcp(const char *text, struct error *err)
{
    int inherited_fd = -1;
    int inherited = take_inherited(text, "--incoming", &inherited_fd, err);
    if (inherited != 0)
        return inherited < 0 ? -1 : inherited_fd;
    char host[64];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    if (!colon || length == 0 || length >= sizeof host)
        return error_set(err, ERROR_USAGE, "--incoming: '%s' is not ADDRESS:PORT", text);
    bool bracketed = text[0] == '[' && text[length - 1] == ']';
    (void)snprintf(host, sizeof host, "%.*s", (int)(length - (bracketed ? 2 : 0)),
                   text + (bracketed ? 1 : 0));
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return error_set(err, ERROR_USAGE, "--incoming: '%s' is not a numeric ADDRESS:PORT", text);
    auto_fd int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    int status = fd;
    if (status >= 0)
        status = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (status >= 0)
        status = bind(fd, found->ai_addr, found->ai_addrlen);
    if (status >= 0)
        status = listen(fd, 64);
    int number = errno;
    freeaddrinfo(found);
    if (status < 0)
        return error_errno(err, number, "--incoming: cannot listen on %s", text);
    return take_fd(&fd);
}
