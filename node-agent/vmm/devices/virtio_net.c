/*
 * virtio-net (virtio 1.2 §5.1) on a tap. Frames move between the tap and guest RAM by one readv()
 * or writev() each, with the guest's offload header in front, which the tap understands
 * (IFF_VNET_HDR): checksums and segmentation are left to whoever has to do them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "node-agent/vmm/devices/virtio_net_private.h"
#include "node-agent/vmm/virtio_pci.h"
#include "proto/devices.pb-c.h"

/* ---- from the guest ---- */

/* Passes a frame on. What the tap refuses is lost, as on any network. */
static void send_frame(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    if (chain->readable_bytes < NET_HEADER) {
        virtio_break(&net->virtio, "a frame without its header");
        return;
    }
    if (chain->readable_bytes > NET_HEADER + NET_FRAME_MAX)
        return;
    ssize_t sent;
    do
        sent = writev(net->tap_fd, chain->iov, (int)chain->readable);
    while (sent < 0 && errno == EINTR);
    if (sent > 0)
        atomic_fetch_add(&net->out_bytes, chain->readable_bytes - NET_HEADER);
}

static void serve_tx(struct virtio_net *net)
{
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    struct virtqueue *ring = &net->virtio.queues[NET_QUEUE_TX].ring;
    unsigned sent = 0;
    virtqueue_suppress_kicks(ring);
    do {
        while (sent < ring->size && virtio_pop(&net->virtio, NET_QUEUE_TX, &chain)) {
            send_frame(net, &chain);
            virtqueue_push(ring, &chain, 0);
            sent++;
        }
        virtio_publish(&net->virtio, NET_QUEUE_TX);
        if (sent >= ring->size) {
            virtio_kick(&net->virtio, NET_QUEUE_TX); /* others have their turn first */
            return;
        }
    } while (virtio_may_serve(&net->virtio) && virtqueue_await_kick(ring));
}

/* ---- control: readable class, command, data; writable one byte of answer ---- */

static uint8_t control(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    struct virtio_net_ctrl_hdr header;
    if (iov_read(chain->iov, chain->readable, 0, &header, sizeof header) != sizeof header)
        return VIRTIO_NET_ERR;
    if (header.class != VIRTIO_NET_CTRL_ANNOUNCE || header.cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
        return VIRTIO_NET_ERR;
    net_set_announcing(net, false);
    return VIRTIO_NET_OK;
}

static void serve_control(struct virtio_net *net)
{
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    struct virtqueue *ring = &net->virtio.queues[NET_QUEUE_CONTROL].ring;
    if (virtio_pop(&net->virtio, NET_QUEUE_CONTROL, &chain)) {
        uint8_t answer = control(net, &chain);
        uint32_t written = (uint32_t)iov_write(net->virtio.memory, chain.iov + chain.readable,
                                               chain.writable, 0, &answer, sizeof answer);
        virtqueue_push(ring, &chain, written);
        virtio_publish(&net->virtio, NET_QUEUE_CONTROL);
    }
    if (virtio_may_serve(&net->virtio) && virtqueue_await_kick(ring))
        virtio_kick(&net->virtio, NET_QUEUE_CONTROL);
}

static void net_serve(struct virtio_device *device, unsigned index)
{
    if (index == NET_QUEUE_RX)
        net_receive(net_of(device));
    else if (index == NET_QUEUE_TX)
        serve_tx(net_of(device));
    else
        serve_control(net_of(device));
}

static void on_tap(void *context, int fd, uint32_t events)
{
    (void)fd;
    struct virtio_net *net = context;
    (void)pthread_mutex_lock(&net->virtio.lock);
    if (events & (EPOLLERR | EPOLLHUP)) {
        log_warn("virtio-net: the tap has gone; the guest hears nothing any more");
        loop_remove(net->tap_source);
        net->tap_source = NULL;
    } else if (virtio_may_serve(&net->virtio)) {
        net_receive(net);
    } else {
        net_watch_tap(net, false); /* until the next kick */
    }
    (void)pthread_mutex_unlock(&net->virtio.lock);
}

/* ---- device ---- */

static void set_offloads(const struct virtio_net *net)
{
    static const struct {
        unsigned feature;
        unsigned flag;
    } map[] = {{VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
               {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
               {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
               {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN}};
    unsigned long flags = 0;
    if (!net->is_tap)
        return;
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (virtio_has(&net->virtio, map[i].feature))
            flags |= map[i].flag;
    if (!(flags & TUN_F_CSUM))
        flags = 0; /* segmentation without checksums makes no sense to the kernel */
    if (ioctl(net->tap_fd, TUNSETOFFLOAD, flags) < 0)
        log_warn("virtio-net: TUNSETOFFLOAD: %s", strerror(errno));
}

static void net_activate(struct virtio_device *device)
{
    set_offloads(net_of(device));
}

static void net_quiesce(struct virtio_device *device)
{
    net_watch_tap(net_of(device), false);
}

static int net_pause(struct virtio_device *device, struct error *err)
{
    (void)err;
    net_watch_tap(net_of(device), false);
    net_announce_stop(net_of(device));
    return 0;
}

static void net_reset(struct virtio_device *device)
{
    net_set_announcing(net_of(device), false);
    set_offloads(net_of(device)); /* no features, so none */
}

static int net_save(struct virtio_device *device, uint8_t **data, size_t *size, struct error *err)
{
    struct virtio_net *net = net_of(device);
    Vmpool__Device__Net message = VMPOOL__DEVICE__NET__INIT;
    message.mac = (ProtobufCBinaryData){.len = sizeof net->mac, .data = net->mac};
    message.announcing = net_announcing(net);
    *size = vmpool__device__net__get_packed_size(&message);
    *data = malloc(*size);
    if (!*data)
        return error_errno(err, ENOMEM, "state of a network card");
    (void)vmpool__device__net__pack(&message, *data);
    return 0;
}

static int net_load(struct virtio_device *device, const uint8_t *data, size_t size,
                    struct error *err)
{
    struct virtio_net *net = net_of(device);
    Vmpool__Device__Net *message = vmpool__device__net__unpack(NULL, size, data);
    if (!message)
        return error_set(err, ERROR_FAILED, "its own state is garbled");
    int status = 0;
    if (message->mac.len != sizeof net->mac || memcmp(message->mac.data, net->mac, 6) != 0)
        status = error_set(err, ERROR_CONFLICT, "the guest's card has another MAC address");
    else
        net_set_announcing(net, message->announcing);
    vmpool__device__net__free_unpacked(message, NULL);
    return status;
}

static void net_resumed(struct virtio_device *device, bool moved)
{
    if (moved)
        net_announce_start(net_of(device));
}

static void net_free(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    loop_remove(net->tap_source);
    loop_remove(net->timer_source);
    close_fd(&net->timer_fd);
    close_fd(&net->tap_fd);
    virtio_destroy(device);
    free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "virtio-net",
    .type = VIRTIO_ID_NET,
    .serve = net_serve,
    .activate = net_activate,
    .quiesce = net_quiesce,
    .pause = net_pause,
    .reset = net_reset,
    .save = net_save,
    .load = net_load,
    .resumed = net_resumed,
    .free = net_free,
};

/* Makes the descriptor ready: non-blocking, headers of virtio 1's length. */
static int prepare_tap(int fd, bool *is_tap, struct error *err)
{
    struct ifreq request = {0};
    int type = 0;
    socklen_t size = sizeof type;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(err, errno, "cannot use the tap's descriptor");
    *is_tap = ioctl(fd, TUNGETIFF, &request) == 0;
    if (!*is_tap) {
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type != SOCK_STREAM)
            return 0;
        return error_set(err, ERROR_USAGE, "not a tap: open /dev/net/tun and TUNSETIFF it first");
    }
    if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_VNET_HDR) ||
        !(request.ifr_flags & IFF_NO_PI))
        return error_set(err, ERROR_USAGE, "%s must be opened with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR",
                         request.ifr_name);
    int header = NET_HEADER;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETOFFLOAD, 0ul) < 0)
        return error_errno(err, errno, "cannot set up %s", request.ifr_name);
    return 0;
}

static uint64_t features_of(bool is_tap)
{
    uint64_t features = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |
                        VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
                        VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);
    if (!is_tap)
        return features;
    return features | VIRTIO_BIT(VIRTIO_NET_F_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) |
           VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) |
           VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) |
           VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) | VIRTIO_BIT(VIRTIO_NET_F_HOST_ECN);
}

struct virtio_net *virtio_net_new(struct pci_bus *bus, struct loop *loop, int tap_fd,
                                  const uint8_t mac[6], struct error *err)
{
    auto_fd int owned = tap_fd;
    bool is_tap = false;
    if (prepare_tap(tap_fd, &is_tap, err) < 0)
        return NULL;
    struct virtio_net *net = calloc(1, sizeof *net);
    if (!net) {
        (void)error_errno(err, ENOMEM, "virtio-net");
        return NULL;
    }
    if (virtio_init(&net->virtio, &net_ops, pci_bus_host(bus)->memory, features_of(is_tap),
                    NET_QUEUES, err) < 0) {
        free(net);
        return NULL;
    }
    net->is_tap = is_tap;
    net->timer_fd = -1;
    net->tap_fd = take_fd(&owned);
    memcpy(net->mac, mac, sizeof net->mac);
    memcpy(net->virtio.config, mac, sizeof net->mac);
    net->virtio.config_size = offsetof(struct virtio_net_config, status) +
                              sizeof(((struct virtio_net_config *)0)->status);
    net_set_announcing(net, false);
    net->tap_source = loop_add_fd(loop, net->tap_fd, 0, on_tap, net, err);
    if (!net->tap_source || net_announce_init(net, loop, err) < 0 ||
        virtio_serve_on_loop(&net->virtio, loop, err) < 0 ||
        virtio_pci_add(bus, &net->virtio, err) < 0) {
        net_free(&net->virtio);
        return NULL;
    }
    return net;
}

void virtio_net_counters(const struct virtio_net *net, struct device_counters *counters)
{
    counters->in_bytes = atomic_load(&net->in_bytes);
    counters->out_bytes = atomic_load(&net->out_bytes);
}
