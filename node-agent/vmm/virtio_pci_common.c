#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "node-agent/vmm/virtio_pci_private.h"

#define COMMON(field) offsetof(struct virtio_pci_common_cfg, field)

static struct virtio_queue *selected_queue(struct virtio_pci *pci)
{
    struct virtio_device *device = pci->device;
    return pci->queue_select < device->queue_count ? &device->queues[pci->queue_select] : NULL;
}

static uint32_t read_queue_field(struct virtio_pci *pci, uint32_t offset)
{
    const struct virtio_queue *queue = selected_queue(pci);
    if (!queue)
        return offset == COMMON(queue_msix_vector) ? VIRTIO_NO_VECTOR : 0;
    switch (offset) {
    case COMMON(queue_size):
        return queue->ring.size;
    case COMMON(queue_msix_vector):
        return queue->vector;
    case COMMON(queue_enable):
        return queue->ring.ready;
    case COMMON(queue_notify_off):
        return pci->queue_select;
    case COMMON(queue_desc_lo):
        return (uint32_t)queue->ring.descriptors;
    case COMMON(queue_desc_hi):
        return (uint32_t)(queue->ring.descriptors >> 32);
    case COMMON(queue_avail_lo):
        return (uint32_t)queue->ring.driver_area;
    case COMMON(queue_avail_hi):
        return (uint32_t)(queue->ring.driver_area >> 32);
    case COMMON(queue_used_lo):
        return (uint32_t)queue->ring.device_area;
    case COMMON(queue_used_hi):
        return (uint32_t)(queue->ring.device_area >> 32);
    default:
        return 0;
    }
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static uint32_t read_common(struct virtio_pci *pci, uint32_t offset)
{
    const struct virtio_device *device = pci->device;
    switch (offset) {
    case COMMON(device_feature_select):
        return pci->device_feature_select;
    case COMMON(device_feature):
        return feature_word(device->offered, pci->device_feature_select);
    case COMMON(guest_feature_select):
        return pci->driver_feature_select;
    case COMMON(guest_feature):
        return feature_word(device->features, pci->driver_feature_select);
    case COMMON(msix_config):
        return device->config_vector;
    case COMMON(num_queues):
        return device->queue_count;
    case COMMON(device_status):
        return device->status;
    case COMMON(config_generation):
        return device->generation;
    case COMMON(queue_select):
        return pci->queue_select;
    default:
        return read_queue_field(pci, offset);
    }
}

/* A vector that does not exist reads back as none: so the driver learns it (§4.1.5.1.2.1). */
static uint16_t checked_vector(const struct virtio_pci *pci, uint32_t value)
{
    return value < pci->msix.count ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void set_low(uint64_t *address, uint32_t value)
{
    *address = (*address & ~0xffffffffull) | value;
}

static void set_high(uint64_t *address, uint32_t value)
{
    *address = (*address & 0xffffffffull) | (uint64_t)value << 32;
}

static void write_queue_field(struct virtio_pci *pci, uint32_t offset, uint32_t value)
{
    struct virtio_queue *queue = selected_queue(pci);
    if (!queue)
        return;
    if (offset == COMMON(queue_msix_vector)) {
        queue->vector = checked_vector(pci, value);
        return;
    }
    if (!virtio_queue_open(pci->device, pci->queue_select))
        return;
    struct virtqueue *ring = &queue->ring;
    switch (offset) {
    case COMMON(queue_size):
        /* Checked when the queue is started; what is larger than ours can't be kept. */
        if (value <= pci->device->queue_size)
            ring->size = (uint16_t)value;
        break;
    case COMMON(queue_desc_lo):
        set_low(&ring->descriptors, value);
        break;
    case COMMON(queue_desc_hi):
        set_high(&ring->descriptors, value);
        break;
    case COMMON(queue_avail_lo):
        set_low(&ring->driver_area, value);
        break;
    case COMMON(queue_avail_hi):
        set_high(&ring->driver_area, value);
        break;
    case COMMON(queue_used_lo):
        set_low(&ring->device_area, value);
        break;
    case COMMON(queue_used_hi):
        set_high(&ring->device_area, value);
        break;
    default:
        break;
    }
}

static void write_common_locked(struct virtio_pci *pci, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case COMMON(device_feature_select):
        pci->device_feature_select = value;
        break;
    case COMMON(guest_feature_select):
        pci->driver_feature_select = value;
        break;
    case COMMON(msix_config):
        pci->device->config_vector = checked_vector(pci, value);
        break;
    case COMMON(queue_select):
        pci->queue_select = (uint16_t)value;
        break;
    default:
        write_queue_field(pci, offset, value);
    }
}

/* The width of the register at @offset; 0 where none begins. Other accesses are refused (§4.1.3.1),
 * except that two 32-bit halves may come as one. */
static unsigned common_width(uint32_t offset)
{
    if (offset < COMMON(msix_config) ||
        (offset >= COMMON(queue_desc_lo) && offset <= COMMON(queue_used_hi)))
        return offset % 4 == 0 ? 4 : 0;
    if (offset == COMMON(device_status) || offset == COMMON(config_generation))
        return 1;
    return offset < COMMON(queue_desc_lo) && offset % 2 == 0 ? 2 : 0;
}

void virtio_pci_common_read(struct virtio_pci *pci, uint32_t offset, void *data, unsigned length)
{
    memset(data, 0, length);
    if (length != common_width(offset))
        return;
    (void)pthread_mutex_lock(&pci->device->lock);
    uint32_t value = read_common(pci, offset);
    (void)pthread_mutex_unlock(&pci->device->lock);
    memcpy(data, &value, length);
}

void virtio_pci_common_write(struct virtio_pci *pci, uint32_t offset, const void *data,
                             unsigned length)
{
    uint32_t value = 0;
    if (length != common_width(offset))
        return;
    memcpy(&value, data, length);
    struct virtio_device *device = pci->device;
    (void)pthread_mutex_lock(&device->lock);
    uint32_t feature_select = pci->driver_feature_select;
    uint16_t queue_select = pci->queue_select;
    if (offset != COMMON(device_status))
        write_common_locked(pci, offset, value);
    (void)pthread_mutex_unlock(&device->lock);
    if (offset == COMMON(device_status))
        virtio_set_status(device, (uint8_t)value);
    else if (offset == COMMON(guest_feature))
        virtio_set_features(device, feature_select, value);
    else if (offset == COMMON(queue_enable) && value == 1)
        virtio_enable_queue(device, queue_select);
}
