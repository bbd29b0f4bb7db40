#include "node-agent/vmm/virtio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

#define CORE_FEATURES                                                                              \
    (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) |                    \
     VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX))

static void lock(struct virtio_device *device)
{
    (void)pthread_mutex_lock(&device->lock);
}

static void unlock(struct virtio_device *device)
{
    (void)pthread_mutex_unlock(&device->lock);
}

int virtio_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                struct guest_memory *memory, uint64_t features, unsigned queue_count,
                struct error *err)
{
    device->ops = ops;
    device->memory = memory;
    device->offered = features | CORE_FEATURES;
    device->config_vector = VIRTIO_NO_VECTOR;
    device->queue_size = VIRTQUEUE_SIZE_MAX;
    (void)pthread_mutex_init(&device->lock, NULL);
    for (unsigned i = 0; i < queue_count; i++) {
        struct virtio_queue *queue = &device->queues[i];
        queue->ring = (struct virtqueue){.memory = memory, .size = device->queue_size};
        queue->vector = VIRTIO_NO_VECTOR;
        queue->device = device;
        queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        device->queue_count = i + 1;
        if (queue->kick_fd < 0) {
            (void)error_errno(err, errno, "eventfd for a queue of %s", ops->name);
            virtio_destroy(device);
            return -1;
        }
    }
    return 0;
}

void virtio_destroy(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        loop_remove(device->queues[i].source);
        close_fd(&device->queues[i].kick_fd);
    }
    device->queue_count = 0;
    (void)pthread_mutex_destroy(&device->lock);
}

static void on_kick(void *context, int fd, uint32_t events)
{
    (void)events;
    struct virtio_queue *queue = context;
    struct virtio_device *device = queue->device;
    uint64_t kicks;
    (void)!read(fd, &kicks, sizeof kicks); /* empty already: somebody else was faster */
    lock(device);
    if (virtio_may_serve(device))
        device->ops->serve(device, (unsigned)(queue - device->queues));
    unlock(device);
}

int virtio_serve_on_loop(struct virtio_device *device, struct loop *loop, struct error *err)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtio_queue *queue = &device->queues[i];
        queue->source = loop_add_fd(loop, queue->kick_fd, EPOLLIN, on_kick, queue, err);
        if (!queue->source)
            return -1;
    }
    return 0;
}

bool virtio_may_serve(const struct virtio_device *device)
{
    const uint8_t bad = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
    return (device->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(device->status & bad) &&
           !device->paused;
}

static void signal_vector(struct virtio_device *device, uint16_t vector)
{
    if (vector != VIRTIO_NO_VECTOR && device->signal)
        device->signal(device->transport, vector);
}

bool virtio_pop(struct virtio_device *device, unsigned index, struct virtqueue_chain *chain)
{
    if (!virtio_may_serve(device))
        return false;
    struct virtqueue *ring = &device->queues[index].ring;
    int found = virtqueue_pop(ring, chain);
    if (found < 0)
        virtio_break(device, ring->fault);
    return found > 0;
}

void virtio_publish(struct virtio_device *device, unsigned index)
{
    struct virtio_queue *queue = &device->queues[index];
    if (!virtqueue_publish(&queue->ring))
        return;
    device->isr |= ISR_QUEUE;
    signal_vector(device, queue->vector);
}

static void signal_config(struct virtio_device *device)
{
    device->isr |= ISR_CONFIG;
    signal_vector(device, device->config_vector);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->generation++;
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        signal_config(device);
}

void virtio_break(struct virtio_device *device, const char *why)
{
    if (device->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    log_warn("%s: the guest's driver broke a rule: %s; the device needs a reset", device->ops->name,
             why);
    device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        signal_config(device);
}

void virtio_kick(const struct virtio_device *device, unsigned index)
{
    const uint64_t one = 1;
    (void)!write(device->queues[index].kick_fd, &one, sizeof one); /* full: it is kicked anyway */
}

void virtio_config_read(struct virtio_device *device, uint32_t offset, void *data, unsigned length)
{
    memset(data, 0, length);
    lock(device);
    if (offset < device->config_size) {
        uint32_t left = device->config_size - offset;
        memcpy(data, device->config + offset, length < left ? length : left);
    }
    unlock(device);
}

void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *data,
                         unsigned length)
{
    lock(device);
    if (device->ops->config_write && offset < device->config_size &&
        length <= device->config_size - offset)
        device->ops->config_write(device, offset, data, length);
    unlock(device);
}

static void reset(struct virtio_device *device)
{
    device->status = 0; /* first: nobody begins a chain any more */
    if (device->ops->quiesce)
        device->ops->quiesce(device);
    device->status = 0; /* again: another vCPU may have written it while we waited */
    device->features = 0;
    device->isr = 0;
    device->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < device->queue_count; i++) {
        virtqueue_reset(&device->queues[i].ring);
        device->queues[i].ring.size = device->queue_size;
        device->queues[i].vector = VIRTIO_NO_VECTOR;
    }
    if (device->ops->reset)
        device->ops->reset(device);
}

/* FEATURES_OK is kept only where the driver's choice is one we can work with (§3.1.1). */
static bool features_fit(const struct virtio_device *device)
{
    return (device->features & ~device->offered) == 0 && virtio_has(device, VIRTIO_F_VERSION_1);
}

static void kick_ready_queues(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        if (device->queues[i].ring.ready)
            virtio_kick(device, i);
}

void virtio_set_status(struct virtio_device *device, uint8_t status)
{
    lock(device);
    uint8_t old = device->status;
    if (status == 0) {
        reset(device);
    } else {
        if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !(old & VIRTIO_CONFIG_S_FEATURES_OK) &&
            !features_fit(device))
            status = (uint8_t)(status & ~VIRTIO_CONFIG_S_FEATURES_OK);
        if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
            status = (uint8_t)(status & ~VIRTIO_CONFIG_S_DRIVER_OK);
        /* The driver can neither set nor clear NEEDS_RESET, and clears bits only by a reset. */
        status = (uint8_t)((status & ~VIRTIO_CONFIG_S_NEEDS_RESET) | old);
        device->status = status;
        if ((status & ~old) & VIRTIO_CONFIG_S_DRIVER_OK) {
            if (device->ops->activate)
                device->ops->activate(device);
            kick_ready_queues(device);
        }
    }
    unlock(device);
}

void virtio_set_features(struct virtio_device *device, unsigned word, uint32_t bits)
{
    lock(device);
    if (word < 2 && !(device->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
        unsigned shift = 32 * word;
        device->features &= ~(0xffffffffull << shift);
        device->features |= (uint64_t)bits << shift;
    }
    unlock(device);
}

bool virtio_queue_open(const struct virtio_device *device, unsigned index)
{
    return index < device->queue_count && !device->queues[index].ring.ready;
}

void virtio_enable_queue(struct virtio_device *device, unsigned index)
{
    lock(device);
    if (virtio_queue_open(device, index) && (device->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
        struct virtqueue *ring = &device->queues[index].ring;
        ring->indirect = virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC);
        ring->event_index = virtio_has(device, VIRTIO_RING_F_EVENT_IDX);
        if (!virtqueue_start(ring))
            virtio_break(device, ring->fault);
    }
    unlock(device);
}

void virtio_settle(struct virtio_device *device)
{
    lock(device);
    if (device->ops->settle)
        device->ops->settle(device);
    unlock(device);
}

int virtio_pause(struct virtio_device *device, struct error *err)
{
    lock(device);
    device->paused = true;
    int status = device->ops->pause ? device->ops->pause(device, err) : 0;
    unlock(device);
    return status;
}

void virtio_resume(struct virtio_device *device, bool moved)
{
    lock(device);
    device->paused = false;
    if (device->ops->resumed)
        device->ops->resumed(device, moved);
    /* A kick or an interrupt may have been lost with the host we came from: one too many is
     * harmless, one too few hangs the guest. */
    kick_ready_queues(device);
    if (moved && (device->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        for (unsigned i = 0; i < device->queue_count; i++)
            if (device->queues[i].ring.ready)
                signal_vector(device, device->queues[i].vector);
        signal_config(device);
    }
    unlock(device);
}
