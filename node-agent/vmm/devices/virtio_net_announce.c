/*
 * After a move the switches on the way still send the guest's frames to its old host. Two things
 * tell them otherwise: a RARP frame in the guest's name, sent by us at once, and the guest's own
 * announcement (gratuitous ARP for each of its addresses), asked for by VIRTIO_NET_S_ANNOUNCE
 * (virtio 1.2 §5.1.6.5.4). Frames get lost, so there are five rounds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "node-agent/vmm/devices/virtio_net_private.h"

#define ROUNDS       5u
#define FRAME_BYTES  60u /* the shortest Ethernet allows, without its checksum */
#define TYPE_RARP    0x8035
#define RARP_REQUEST 3

/* Milliseconds from each round to the next. */
static const unsigned pauses_ms[ROUNDS - 1] = {50, 150, 350, 550};

struct rarp_frame {
    uint8_t destination[6];
    uint8_t source[6];
    uint16_t type;
    uint16_t hardware_type;
    uint16_t protocol_type;
    uint8_t hardware_size;
    uint8_t protocol_size;
    uint16_t operation;
    uint8_t sender_hardware[6];
    uint8_t sender_protocol[4];
    uint8_t target_hardware[6];
    uint8_t target_protocol[4];
} __attribute__((packed));

static void send_rarp(const struct virtio_net *net)
{
    uint8_t packet[NET_HEADER + FRAME_BYTES] = {0};
    struct rarp_frame frame = {
        .destination = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        .type = htons(TYPE_RARP),
        .hardware_type = htons(1),
        .protocol_type = htons(0x0800),
        .hardware_size = 6,
        .protocol_size = 4,
        .operation = htons(RARP_REQUEST),
    };
    memcpy(frame.source, net->mac, 6);
    memcpy(frame.sender_hardware, net->mac, 6);
    memcpy(frame.target_hardware, net->mac, 6);
    memcpy(packet + NET_HEADER, &frame, sizeof frame);
    (void)!write(net->tap_fd, packet, sizeof packet); /* the next round makes good for this one */
}

#define STATUS_OFFSET offsetof(struct virtio_net_config, status)

bool net_announcing(const struct virtio_net *net)
{
    return net->virtio.config[STATUS_OFFSET] & VIRTIO_NET_S_ANNOUNCE;
}

void net_set_announcing(struct virtio_net *net, bool announcing)
{
    net->virtio.config[STATUS_OFFSET] =
        VIRTIO_NET_S_LINK_UP | (announcing ? VIRTIO_NET_S_ANNOUNCE : 0);
}

static void set_timer(const struct virtio_net *net, unsigned delay_ms)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = delay_ms / 1000, .tv_nsec = (long)(delay_ms % 1000) * 1000000}};
    (void)timerfd_settime(net->timer_fd, 0, &when, NULL); /* 0 disarms */
}

/* One round. The lock is held. */
static void announce(struct virtio_net *net)
{
    send_rarp(net);
    if (virtio_has(&net->virtio, VIRTIO_NET_F_GUEST_ANNOUNCE) && virtio_may_serve(&net->virtio)) {
        net_set_announcing(net, true);
        virtio_config_changed(&net->virtio);
    }
    set_timer(net, net->round < ROUNDS - 1 ? pauses_ms[net->round] : 0);
    net->round++;
}

static void on_timer(void *context, int fd, uint32_t events)
{
    (void)events;
    struct virtio_net *net = context;
    uint64_t expirations;
    bool due = read(fd, &expirations, sizeof expirations) > 0;
    (void)pthread_mutex_lock(&net->virtio.lock);
    if (due && !net->virtio.paused && net->round < ROUNDS)
        announce(net);
    (void)pthread_mutex_unlock(&net->virtio.lock);
}

int net_announce_init(struct virtio_net *net, struct loop *loop, struct error *err)
{
    net->round = ROUNDS;
    net->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (net->timer_fd < 0)
        return error_errno(err, errno, "timerfd for virtio-net");
    net->timer_source = loop_add_fd(loop, net->timer_fd, EPOLLIN, on_timer, net, err);
    return net->timer_source ? 0 : -1;
}

void net_announce_start(struct virtio_net *net)
{
    net->round = 0;
    announce(net);
}

void net_announce_stop(struct virtio_net *net)
{
    net->round = ROUNDS;
    set_timer(net, 0);
}
