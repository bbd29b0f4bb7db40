/*
 * netlink.h: network interfaces by rtnetlink: the bridge, its ports, their counters.
 *
 * Calls block for the kernel's answer, which comes at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct netlink;

struct netlink_link {
    char name[16];
    char kind[16]; /* "bridge", "tun", "veth", ...; empty for hardware */
    char alias[128];
    int index;
    int master; /* index of the bridge it is a port of; 0: none */
    unsigned mtu;
    bool up;
    uint64_t rx_bytes, tx_bytes;
};

struct netlink *netlink_open(struct error *err);
void netlink_close(struct netlink *netlink);

/* ERROR_NOT_FOUND where there is no such interface. */
int netlink_find(struct netlink *netlink, const char *name, struct netlink_link *link,
                 struct error *err);

/* Calls @call for each interface until it returns false. */
int netlink_each(struct netlink *netlink,
                 bool (*call)(void *context, const struct netlink_link *link), void *context,
                 struct error *err);

/* Makes sure a bridge @name exists and is up. One that is there is left as it is, except that it is
 * brought up; an interface of that name that is no bridge is ERROR_CONFLICT. No uplink is ever
 * added to it: that would cut the host's own connection. @made tells whether it is new. */
int netlink_ensure_bridge(struct netlink *netlink, const char *name, bool *made, struct error *err);

/* Gives interface @name the MAC @mac, the @alias, the bridge's MTU, no IPv6 address of its own,
 * puts it into @bridge and brings it up, in one request. */
int netlink_add_port(struct netlink *netlink, const char *name, const char *bridge,
                     const unsigned char mac[6], const char *alias, struct error *err);

/* Removes an interface; one that is not there is fine. */
int netlink_remove(struct netlink *netlink, const char *name, struct error *err);
