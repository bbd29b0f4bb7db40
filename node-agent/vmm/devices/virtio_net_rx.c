#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "node-agent/vmm/devices/virtio_net_private.h"

/* Frames in one turn of the loop, so that others have theirs. */
#define FRAMES_PER_TURN 256u

void net_watch_tap(struct virtio_net *net, bool watch)
{
    if (!net->tap_source || net->tap_watched == watch)
        return;
    net->tap_watched = watch;
    loop_set_events(net->tap_source, watch ? EPOLLIN : 0);
}

/* Gives back what was not used, in the order it came. */
static void return_window(struct virtio_net *net)
{
    struct net_window *window = &net->window;
    virtqueue_unpop(&net->virtio.queues[NET_QUEUE_RX].ring, window->count - window->first);
    window->first = window->count = window->segments = 0;
    window->bytes = 0;
}

/* Takes one more buffer into the window. False where there is none, or it is no receive buffer. */
static bool extend_window(struct virtio_net *net)
{
    struct net_window *window = &net->window;
    struct virtqueue_chain *chain = &window->chains[window->count];
    chain->iov = window->iov + window->segments;
    chain->capacity = VIRTQUEUE_SIZE_MAX;
    if (!virtio_pop(&net->virtio, NET_QUEUE_RX, chain))
        return false;
    if (chain->readable > 0 || chain->writable_bytes < NET_HEADER) {
        virtio_break(&net->virtio, "a receive buffer that cannot hold a header");
        return false;
    }
    window->count++;
    window->segments += chain->writable;
    window->bytes += chain->writable_bytes;
    return true;
}

/* With MRG_RXBUF a frame may fill several buffers, so there is room for the largest that may come;
 * without it a frame gets one. */
static bool window_suffices(const struct virtio_net *net)
{
    const struct net_window *window = &net->window;
    bool large = virtio_has(&net->virtio, VIRTIO_NET_F_GUEST_TSO4) ||
                 virtio_has(&net->virtio, VIRTIO_NET_F_GUEST_TSO6);
    if (!virtio_has(&net->virtio, VIRTIO_NET_F_MRG_RXBUF))
        return window->first < window->count;
    return window->bytes >= NET_HEADER + (large ? NET_FRAME_MAX : 1518u);
}

static bool window_full(const struct net_window *window)
{
    return window->count == NET_WINDOW_CHAINS || window->segments >= NET_WINDOW_SEGMENTS;
}

/* False where there is no buffer at all. */
static bool fill_window(struct virtio_net *net)
{
    struct net_window *window = &net->window;
    if (!window_suffices(net) && window_full(window))
        return_window(net); /* and begin again at its front */
    while (!window_suffices(net) && !window_full(window))
        if (!extend_window(net))
            break;
    return window->first < window->count;
}

/* Reads one frame behind what was used; its length, 0 where there is none. */
static size_t read_frame(struct virtio_net *net)
{
    struct net_window *window = &net->window;
    struct iovec *iov = window->chains[window->first].iov;
    unsigned count = (unsigned)(window->iov + window->segments - iov);
    iov[count] = (struct iovec){.iov_base = net->overflow, .iov_len = sizeof net->overflow};
    ssize_t got;
    do
        got = readv(net->tap_fd, iov, (int)count + 1);
    while (got < 0 && errno == EINTR);
    return got < 0 ? 0 : (size_t)got;
}

/* Hands the frame of @size bytes that lies in the window's first buffers to the guest. */
static void deliver(struct virtio_net *net, size_t size)
{
    struct net_window *window = &net->window;
    struct virtqueue *ring = &net->virtio.queues[NET_QUEUE_RX].ring;
    const struct virtqueue_chain *first = &window->chains[window->first];
    unsigned segments = (unsigned)(window->iov + window->segments - first->iov);
    if (size < NET_HEADER || size > window->bytes) {
        /* Not a frame, or longer than the buffers, whose bytes are overwritten all the same. */
        iov_mark_dirty(net->virtio.memory, first->iov, segments, 0, size);
        return;
    }
    atomic_fetch_add(&net->in_bytes, size - NET_HEADER);
    size_t left = size;
    uint16_t buffers = 0;
    for (unsigned i = window->first; left > 0; i++, buffers++)
        left -= left < window->chains[i].writable_bytes ? left : window->chains[i].writable_bytes;
    (void)iov_write(net->virtio.memory, first->iov, segments,
                    offsetof(struct virtio_net_hdr_v1, num_buffers), &buffers, sizeof buffers);
    for (left = size; left > 0; window->first++) {
        const struct virtqueue_chain *chain = &window->chains[window->first];
        size_t part = left < chain->writable_bytes ? left : chain->writable_bytes;
        virtqueue_push(ring, chain, (uint32_t)part);
        window->bytes -= chain->writable_bytes;
        left -= part;
    }
}

void net_receive(struct virtio_net *net)
{
    struct virtqueue *ring = &net->virtio.queues[NET_QUEUE_RX].ring;
    bool buffers = true;
    virtqueue_suppress_kicks(ring);
    for (unsigned frames = 0; frames < FRAMES_PER_TURN; frames++) {
        buffers = fill_window(net);
        if (!buffers)
            break;
        size_t size = read_frame(net);
        if (size == 0)
            break;
        deliver(net, size);
    }
    return_window(net);
    virtio_publish(&net->virtio, NET_QUEUE_RX);
    /* Without a buffer the tap isn't heard until the driver kicks with new ones. */
    if (!buffers && virtio_may_serve(&net->virtio))
        buffers = virtqueue_await_kick(ring);
    net_watch_tap(net, buffers && virtio_may_serve(&net->virtio));
}
