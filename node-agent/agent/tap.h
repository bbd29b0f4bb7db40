/*
 * tap.h: a guest's network interface on the host: a tap on the bridge.
 *
 * The tap is not persistent: it lives exactly as long as a descriptor of it is open, so it ends
 * with the VMM that holds it and no crash of anything can leave one behind. (A persistent one would
 * be left by each VMM that dies while no agent runs.) Its name is "vp-" and the first eight digits
 * of the VM's id, its alias "vmpool VM_ID". Its MAC on the host's side is the guest's with the
 * first byte 0xfe: a bridge takes the lowest MAC of its ports for its own, which must not be a
 * guest's.
 */
#pragma once

#include "common/error.h"
#include "node-agent/agent/netlink.h"

#define TAP_NAME_SIZE 16

/* The name of the VM's tap. @vm_id is a checked UUID. */
void tap_name(const char *vm_id, char name[TAP_NAME_SIZE]);

/* Makes the tap with IFF_VNET_HDR, joins it to @bridge with the bridge's MTU, brings it up. Returns
 * its descriptor. ERROR_CONFLICT where an interface of that name exists. */
int tap_open(struct netlink *netlink, const char *vm_id, const unsigned char guest_mac[6],
             const char *bridge, struct error *err);

/* Removes taps of vmpool's name and alias whose VM @known does not know: what an orphaned VMM holds
 * or an older version made persistent. */
void tap_remove_strays(struct netlink *netlink, bool (*known)(void *context, const char *vm_id),
                       void *context);
