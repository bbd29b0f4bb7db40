#include "node-agent/vmm/virtio_state.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

static void save_queue(const struct virtio_queue *queue, Vmpool__Device__Virtqueue *message)
{
    const struct virtqueue *ring = &queue->ring;
    vmpool__device__virtqueue__init(message);
    message->size = ring->size;
    message->ready = ring->ready;
    message->descriptors = ring->descriptors;
    message->driver_area = ring->driver_area;
    message->device_area = ring->device_area;
    message->last_avail = ring->last_avail;
    message->used = ring->used;
    message->vector = queue->vector;
}

static int save_queues(const struct virtio_device *device, Vmpool__Device__Virtio *message)
{
    message->queues = calloc(device->queue_count, sizeof(Vmpool__Device__Virtqueue *));
    if (!message->queues)
        return -1;
    for (unsigned i = 0; i < device->queue_count; i++) {
        Vmpool__Device__Virtqueue *queue = malloc(sizeof *queue);
        if (!queue)
            return -1;
        save_queue(&device->queues[i], queue);
        message->queues[message->n_queues++] = queue;
    }
    return 0;
}

int virtio_save(struct virtio_device *device, Vmpool__Device__Virtio *message, struct error *err)
{
    vmpool__device__virtio__init(message);
    (void)pthread_mutex_lock(&device->lock);
    message->features = device->features;
    message->status = device->status;
    message->generation = device->generation;
    message->isr = device->isr;
    message->config_vector = device->config_vector;
    int status = save_queues(device, message);
    if (status < 0)
        (void)error_errno(err, ENOMEM, "state of %s", device->ops->name);
    if (status == 0 && device->ops->save)
        status = device->ops->save(device, &message->own.data, &message->own.len, err);
    (void)pthread_mutex_unlock(&device->lock);
    if (status < 0)
        virtio_state_free(message);
    return status;
}

void virtio_state_free(Vmpool__Device__Virtio *message)
{
    for (size_t i = 0; i < message->n_queues; i++)
        free(message->queues[i]);
    free(message->queues);
    free(message->own.data);
    message->queues = NULL;
    message->n_queues = 0;
    message->own = (ProtobufCBinaryData){0};
}

static int load_queue(struct virtio_device *device, unsigned index,
                      const Vmpool__Device__Virtqueue *message, struct error *err)
{
    struct virtio_queue *queue = &device->queues[index];
    struct virtqueue *ring = &queue->ring;
    if (message->size > device->queue_size || message->last_avail > UINT16_MAX ||
        message->used > UINT16_MAX || message->vector > UINT16_MAX)
        return error_set(err, ERROR_FAILED, "queue %u has a value out of range", index);
    *ring = (struct virtqueue){
        .memory = device->memory,
        .size = (uint16_t)message->size,
        .descriptors = message->descriptors,
        .driver_area = message->driver_area,
        .device_area = message->device_area,
        .last_avail = (uint16_t)message->last_avail,
        .used = (uint16_t)message->used,
        .indirect = virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC),
        .event_index = virtio_has(device, VIRTIO_RING_F_EVENT_IDX),
    };
    queue->vector = (uint16_t)message->vector;
    if (message->ready && !virtqueue_start(ring))
        return error_set(err, ERROR_FAILED, "queue %u: %s", index, ring->fault);
    return 0;
}

static int load_common(struct virtio_device *device, const Vmpool__Device__Virtio *message,
                       struct error *err)
{
    if (message->features & ~device->offered)
        return error_set(err, ERROR_CONFLICT, "the guest uses features 0x%llx we do not have",
                         (unsigned long long)(message->features & ~device->offered));
    if (message->status > UINT8_MAX || message->generation > UINT8_MAX ||
        message->isr > UINT8_MAX || message->config_vector > UINT16_MAX)
        return error_set(err, ERROR_FAILED, "a value is out of range");
    const uint32_t both = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK;
    if ((message->status & VIRTIO_CONFIG_S_DRIVER_OK) && (message->status & both) != both)
        return error_set(err, ERROR_FAILED, "status 0x%x is impossible", message->status);
    if (message->n_queues != device->queue_count)
        return error_set(err, ERROR_CONFLICT, "%zu queues, not %u", message->n_queues,
                         device->queue_count);
    device->features = message->features;
    device->generation = (uint8_t)message->generation;
    device->isr = (uint8_t)message->isr;
    device->config_vector = (uint16_t)message->config_vector;
    for (unsigned i = 0; i < device->queue_count; i++)
        if (load_queue(device, i, message->queues[i], err) < 0)
            return -1;
    device->status = (uint8_t)message->status;
    return 0;
}

int virtio_load(struct virtio_device *device, const Vmpool__Device__Virtio *message,
                struct error *err)
{
    if (!message)
        return error_set(err, ERROR_FAILED, "the state of %s is missing", device->ops->name);
    (void)pthread_mutex_lock(&device->lock);
    device->paused = true;
    int status = load_common(device, message, err);
    if (status == 0 && device->ops->load)
        status = device->ops->load(device, message->own.data, message->own.len, err);
    if (status < 0)
        device->status = 0; /* rests: nothing of it may be served */
    else if ((device->status & VIRTIO_CONFIG_S_DRIVER_OK) && device->ops->activate)
        device->ops->activate(device);
    (void)pthread_mutex_unlock(&device->lock);
    return status < 0 ? error_wrap(err, "%s", device->ops->name) : 0;
}
