/*
 * devices.h: the virtio devices a machine can be given, each a function of the PCI bus it is put
 * on.
 *
 * Slots are taken in the order of the calls, so the same command line gives the same machine on
 * both hosts of a migration. Descriptors are taken over (closed with the device). Queues are served
 * by threads of the device's own (blk) or by the machine's event loop (the rest).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/vmm/pci.h"

/* Bytes that passed, for VmUsage; read at any time from any thread. */
struct device_counters {
    uint64_t in_bytes;  /* net: to the guest; blk: read */
    uint64_t out_bytes; /* net: from the guest; blk: written */
};

/* virtio-blk on an open raw file or block device. VIRTIO_BLK_F_FLUSH: a flush is fdatasync(). */
struct virtio_blk;
struct virtio_blk *virtio_blk_new(struct pci_bus *bus, int fd, bool read_only, const char *serial,
                                  struct error *err);
void virtio_blk_counters(const struct virtio_blk *blk, struct device_counters *counters);

/* virtio-net on a tap opened with IFF_NO_PI | IFF_VNET_HDR, or on a datagram socket that carries
 * the same frames, without offloads. Quiet until resume(): a target of a migration must not speak
 * before it owns the VM. On resume(moved) it announces: RARP by itself, and
 * VIRTIO_NET_F_GUEST_ANNOUNCE for the guest, in 5 rounds from 50 to 550 ms. */
struct virtio_net;
struct virtio_net *virtio_net_new(struct pci_bus *bus, struct loop *loop, int tap_fd,
                                  const uint8_t mac[6], struct error *err);
void virtio_net_counters(const struct virtio_net *net, struct device_counters *counters);

/* virtio-rng fed by getrandom(). */
int virtio_rng_new(struct pci_bus *bus, struct loop *loop, struct error *err);

/* virtio-balloon; freed pages go back to the host. */
struct virtio_balloon;
struct virtio_balloon *virtio_balloon_new(struct pci_bus *bus, struct loop *loop,
                                          struct error *err);
/* Asks the guest to keep only @keep_mib. The guest follows when it can. */
void virtio_balloon_set(struct virtio_balloon *balloon, uint64_t keep_mib);
/* What the guest keeps now in MiB; 0 where no driver has attached. */
uint64_t virtio_balloon_kept(const struct virtio_balloon *balloon);
