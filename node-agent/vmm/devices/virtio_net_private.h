/*
 * virtio_net_private.h: what the files virtio_net*.c share.
 *
 * Queues: 0 to the guest, 1 from the guest, 2 control. All of it runs on the machine's loop, under
 * the device's lock; only pause and resume come from elsewhere.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/loop.h"
#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/virtio.h"

#define NET_QUEUE_RX      0u
#define NET_QUEUE_TX      1u
#define NET_QUEUE_CONTROL 2u
#define NET_QUEUES        3u

#define NET_HEADER    sizeof(struct virtio_net_hdr_v1)
#define NET_FRAME_MAX (65535u + 18u) /* an IP packet, Ethernet header and VLAN tag */

/* One read takes 1024 segments (IOV_MAX), of which the last is for what does not fit. */
#define NET_WINDOW_SEGMENTS (1023u - VIRTQUEUE_SIZE_MAX)
#define NET_WINDOW_CHAINS   VIRTQUEUE_SIZE_MAX

/* Receive buffers taken from the queue and not used yet. Their segments lie one behind the other,
 * so that one read can fill several buffers. */
struct net_window {
    unsigned first; /* chain not used yet */
    unsigned count; /* chains in all */
    uint64_t bytes; /* room in those not used yet */
    struct virtqueue_chain chains[NET_WINDOW_CHAINS];
    unsigned segments;
    struct iovec iov[NET_WINDOW_SEGMENTS + VIRTQUEUE_SIZE_MAX + 1];
};

struct virtio_net {
    struct virtio_device virtio; /* first */
    int tap_fd;
    bool is_tap;                    /* else a datagram socket: no offloads */
    struct loop_source *tap_source; /* NULL: the tap has gone */
    bool tap_watched;
    uint8_t mac[6];
    struct net_window window;
    uint8_t overflow[NET_FRAME_MAX]; /* the end of frames that do not fit */

    int timer_fd; /* of the announcements */
    struct loop_source *timer_source;
    unsigned round; /* announcements made since the move */

    _Atomic uint64_t in_bytes;
    _Atomic uint64_t out_bytes;
};

static inline struct virtio_net *net_of(struct virtio_device *device)
{
    return (struct virtio_net *)device;
}

/* Moves frames from the tap into the guest while there are frames and buffers. */
void net_receive(struct virtio_net *net);
/* Hears the tap, or stops hearing it while there is no buffer to put a frame into. */
void net_watch_tap(struct virtio_net *net, bool watch);

/* Announcements: opens the timer; begins anew after a move; stops. */
int net_announce_init(struct virtio_net *net, struct loop *loop, struct error *err);
void net_announce_start(struct virtio_net *net);
void net_announce_stop(struct virtio_net *net);
/* Whether the guest was asked to announce itself, and has not yet. */
bool net_announcing(const struct virtio_net *net);
void net_set_announcing(struct virtio_net *net, bool announcing);
