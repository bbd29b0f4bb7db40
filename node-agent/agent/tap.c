#include "node-agent/agent/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/agent/names.h"

#define ALIAS_PREFIX "vmpool "
#define STRAYS_MAX   64

void tap_name(const char *vm_id, char name[TAP_NAME_SIZE])
{
    (void)snprintf(name, TAP_NAME_SIZE, "vp-%.8s", vm_id);
}

int tap_open(struct netlink *netlink, const char *vm_id, const unsigned char guest_mac[6],
             const char *bridge, struct error *err)
{
    struct ifreq request = {.ifr_flags =
                                (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)};
    char alias[64];
    unsigned char mac[6];
    tap_name(vm_id, request.ifr_name);
    auto_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_errno(err, errno, "/dev/net/tun");
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        if (errno == EBUSY)
            return error_set(err, ERROR_CONFLICT, "network interface %s exists already",
                             request.ifr_name);
        return error_errno(err, errno, "cannot make tap %s", request.ifr_name);
    }
    (void)snprintf(alias, sizeof alias, ALIAS_PREFIX "%s", vm_id);
    memcpy(mac, guest_mac, sizeof mac);
    mac[0] = 0xfe;
    if (netlink_add_port(netlink, request.ifr_name, bridge, mac, alias, err) < 0)
        return error_wrap(err, "tap %s", request.ifr_name);
    return take_fd(&fd);
}

struct stray_search {
    bool (*known)(void *context, const char *vm_id);
    void *context;
    char names[STRAYS_MAX][TAP_NAME_SIZE];
    size_t count;
};

static bool look_at(void *context, const struct netlink_link *link)
{
    struct stray_search *search = context;
    const char *vm_id = link->alias + strlen(ALIAS_PREFIX);
    if (strncmp(link->name, "vp-", 3) == 0 &&
        strncmp(link->alias, ALIAS_PREFIX, strlen(ALIAS_PREFIX)) == 0 && name_is_uuid(vm_id) &&
        !search->known(search->context, vm_id))
        (void)snprintf(search->names[search->count++], TAP_NAME_SIZE, "%s", link->name);
    return search->count < STRAYS_MAX;
}

void tap_remove_strays(struct netlink *netlink, bool (*known)(void *context, const char *vm_id),
                       void *context)
{
    struct stray_search search = {.known = known, .context = context};
    struct error err = ERROR_INIT;
    if (netlink_each(netlink, look_at, &search, &err) < 0)
        log_warn("cannot look for taps left over: %s", err.text);
    for (size_t i = 0; i < search.count; i++) {
        if (netlink_remove(netlink, search.names[i], &err) < 0)
            log_warn("%s", err.text);
        else
            log_warn("removed tap %s, whose VM is not here", search.names[i]);
    }
}
