#include "node-agent/agent/address.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"

static int split(const char *peer, char *host, size_t host_size, const char **port)
{
    const char *colon = strrchr(peer, ':');
    if (!colon || colon == peer)
        return -1;
    size_t length = (size_t)(colon - peer);
    if (peer[0] == '[' && peer[length - 1] == ']') {
        peer++;
        length -= 2;
    }
    if (length >= host_size)
        return -1;
    memcpy(host, peer, length);
    host[length] = '\0';
    *port = colon + 1;
    return 0;
}

int address_towards(const char *peer, char *out, size_t size, struct error *err)
{
    char host[256];
    const char *port;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found = NULL;
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    if (split(peer, host, sizeof host, &port) < 0)
        return error_set(err, ERROR_USAGE, "'%s' is not HOST:PORT", peer);
    int status = getaddrinfo(host, port, &hints, &found);
    if (status != 0)
        return error_set(err, ERROR_UNREACHABLE, "%s: %s", host, gai_strerror(status));
    auto_fd int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (!connected || getsockname(fd, (struct sockaddr *)&local, &length) < 0)
        return error_errno(err, errno, "no route to %s", host);
    status = getnameinfo((struct sockaddr *)&local, length, out, (socklen_t)size, NULL, 0,
                         NI_NUMERICHOST);
    return status == 0 ? 0 : error_set(err, ERROR_FAILED, "own address: %s", gai_strerror(status));
}
