#include "node-agent/agent/netlink.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/link/inet6.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct netlink {
    struct nl_sock *socket;
};

/* libnl numbers its errors by itself; ours say what the kernel meant. */
static int netlink_error(struct error *err, int number, const char *what, const char *name)
{
    enum error_kind kind = ERROR_FAILED;
    if (number == -NLE_NODEV || number == -NLE_OBJ_NOTFOUND)
        kind = ERROR_NOT_FOUND;
    else if (number == -NLE_EXIST)
        kind = ERROR_CONFLICT;
    return error_set(err, kind, "%s %s: %s", what, name, nl_geterror(number));
}

struct netlink *netlink_open(struct error *err)
{
    struct netlink *netlink = calloc(1, sizeof *netlink);
    if (netlink)
        netlink->socket = nl_socket_alloc();
    if (!netlink || !netlink->socket) {
        free(netlink);
        (void)error_errno(err, ENOMEM, "netlink");
        return NULL;
    }
    int status = nl_connect(netlink->socket, NETLINK_ROUTE);
    if (status < 0) {
        (void)netlink_error(err, status, "cannot open", "rtnetlink");
        netlink_close(netlink);
        return NULL;
    }
    return netlink;
}

void netlink_close(struct netlink *netlink)
{
    if (!netlink)
        return;
    nl_socket_free(netlink->socket);
    free(netlink);
}

static void describe(struct rtnl_link *from, struct netlink_link *link)
{
    const char *name = rtnl_link_get_name(from);
    const char *kind = rtnl_link_get_type(from);
    const char *alias = rtnl_link_get_ifalias(from);
    *link = (struct netlink_link){
        .index = rtnl_link_get_ifindex(from),
        .master = rtnl_link_get_master(from),
        .mtu = rtnl_link_get_mtu(from),
        .up = (rtnl_link_get_flags(from) & IFF_UP) != 0,
        .rx_bytes = rtnl_link_get_stat(from, RTNL_LINK_RX_BYTES),
        .tx_bytes = rtnl_link_get_stat(from, RTNL_LINK_TX_BYTES),
    };
    (void)snprintf(link->name, sizeof link->name, "%s", name ? name : "");
    (void)snprintf(link->kind, sizeof link->kind, "%s", kind ? kind : "");
    (void)snprintf(link->alias, sizeof link->alias, "%s", alias ? alias : "");
}

int netlink_find(struct netlink *netlink, const char *name, struct netlink_link *link,
                 struct error *err)
{
    struct rtnl_link *found = NULL;
    int status = rtnl_link_get_kernel(netlink->socket, 0, name, &found);
    if (status < 0)
        return netlink_error(err, status, "network interface", name);
    describe(found, link);
    rtnl_link_put(found);
    return 0;
}

int netlink_each(struct netlink *netlink,
                 bool (*call)(void *context, const struct netlink_link *link), void *context,
                 struct error *err)
{
    struct nl_cache *cache = NULL;
    int status = rtnl_link_alloc_cache(netlink->socket, AF_UNSPEC, &cache);
    if (status < 0)
        return netlink_error(err, status, "cannot list", "network interfaces");
    struct nl_object *object = nl_cache_get_first(cache);
    for (; object; object = nl_cache_get_next(object)) {
        struct netlink_link link;
        describe((struct rtnl_link *)(void *)object, &link);
        if (!call(context, &link))
            break;
    }
    nl_cache_free(cache);
    return 0;
}

/* Applies @change to the interface @index and frees it. */
static int apply(struct netlink *netlink, int index, struct rtnl_link *change, const char *name,
                 struct error *err)
{
    struct rtnl_link *which = rtnl_link_alloc();
    if (!which || !change) {
        rtnl_link_put(which);
        rtnl_link_put(change);
        return error_errno(err, ENOMEM, "netlink");
    }
    rtnl_link_set_ifindex(which, index);
    int status = rtnl_link_change(netlink->socket, which, change, 0);
    rtnl_link_put(which);
    rtnl_link_put(change);
    return status < 0 ? netlink_error(err, status, "cannot set up", name) : 0;
}

static int bring_up(struct netlink *netlink, const struct netlink_link *link, struct error *err)
{
    if (link->up)
        return 0;
    struct rtnl_link *change = rtnl_link_alloc();
    if (change)
        rtnl_link_set_flags(change, IFF_UP);
    return apply(netlink, link->index, change, link->name, err);
}

static int set_mac(struct rtnl_link *link, const unsigned char mac[6])
{
    struct nl_addr *address = nl_addr_build(AF_LLC, mac, 6);
    if (!address)
        return -1;
    rtnl_link_set_addr(link, address);
    nl_addr_put(address);
    return 0;
}

/* With an address of its own the bridge keeps it when ports come and go: the kernel otherwise takes
 * the lowest of its ports', and the host's neighbours would lose it for a while. */
static int make_bridge(struct netlink *netlink, const char *name, struct error *err)
{
    unsigned char mac[6];
    struct rtnl_link *bridge = rtnl_link_bridge_alloc();
    if (!bridge || getrandom(mac, sizeof mac, 0) != (ssize_t)sizeof mac) {
        rtnl_link_put(bridge);
        return error_errno(err, ENOMEM, "netlink");
    }
    mac[0] = (unsigned char)((mac[0] & 0xfc) | 0x02); /* unicast, locally administered */
    rtnl_link_set_name(bridge, name);
    int status = set_mac(bridge, mac);
    if (status == 0)
        status = rtnl_link_add(netlink->socket, bridge, NLM_F_CREATE | NLM_F_EXCL);
    rtnl_link_put(bridge);
    return status < 0 ? netlink_error(err, status, "cannot create bridge", name) : 0;
}

int netlink_ensure_bridge(struct netlink *netlink, const char *name, bool *made, struct error *err)
{
    struct netlink_link link = {0};
    *made = false;
    if (netlink_find(netlink, name, &link, err) < 0) {
        if (err->kind != ERROR_NOT_FOUND)
            return -1;
        error_clear(err);
        if (make_bridge(netlink, name, err) < 0 || netlink_find(netlink, name, &link, err) < 0)
            return -1;
        *made = true;
    }
    if (strcmp(link.kind, "bridge") != 0)
        return error_set(err, ERROR_CONFLICT,
                         "interface %s is no bridge; name another with --bridge", name);
    return bring_up(netlink, &link, err);
}

int netlink_add_port(struct netlink *netlink, const char *name, const char *bridge,
                     const unsigned char mac[6], const char *alias, struct error *err)
{
    struct netlink_link port = {0}, master = {0};
    if (netlink_find(netlink, name, &port, err) < 0 ||
        netlink_find(netlink, bridge, &master, err) < 0)
        return -1;
    struct rtnl_link *change = rtnl_link_alloc();
    if (!change || set_mac(change, mac) < 0) {
        rtnl_link_put(change);
        return error_errno(err, ENOMEM, "netlink");
    }
    rtnl_link_set_ifalias(change, alias);
    rtnl_link_set_mtu(change, master.mtu);
    rtnl_link_set_master(change, master.index);
    rtnl_link_set_flags(change, IFF_UP);
    if (apply(netlink, port.index, change, name, err) < 0)
        return error_wrap(err, "joining bridge %s", bridge);
    return 0;
}

int netlink_remove(struct netlink *netlink, const char *name, struct error *err)
{
    struct rtnl_link *link = rtnl_link_alloc();
    if (!link)
        return error_errno(err, ENOMEM, "netlink");
    rtnl_link_set_name(link, name);
    int status = rtnl_link_delete(netlink->socket, link);
    rtnl_link_put(link);
    if (status < 0 && status != -NLE_NODEV && status != -NLE_OBJ_NOTFOUND)
        return netlink_error(err, status, "cannot remove", name);
    return 0;
}
