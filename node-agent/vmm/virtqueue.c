#include "node-agent/vmm/virtqueue.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "node-agent/vmm/layout.h"

#define CHAIN_BYTES_MAX 0xffffffffull

/* Offsets in 16-bit words of the driver and the device area. */
#define AREA_FLAGS 0
#define AREA_INDEX 1
#define AREA_RING  2

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

static int broken(struct virtqueue *queue, const char *why)
{
    queue->fault = why;
    return -1;
}

static uint16_t load16(const uint16_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* What the driver may change against what we just stored: see virtqueue_publish(). */
static uint16_t load_ordered(const uint16_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* Device area: the flags, the index, and behind the ring the event word. */
static void store_device16(const struct virtqueue *queue, size_t word, uint16_t value)
{
    __atomic_store_n(queue->device + word, value, __ATOMIC_SEQ_CST);
    guest_memory_mark_dirty(queue->memory, queue->device_area + 2 * word, sizeof value);
}

static size_t avail_event_word(const struct virtqueue *queue)
{
    return AREA_RING + 4 * (size_t)queue->size;
}

static size_t used_event_word(const struct virtqueue *queue)
{
    return AREA_RING + (size_t)queue->size;
}

bool virtqueue_start(struct virtqueue *queue)
{
    uint64_t size = queue->size;
    if (size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)) != 0)
        return broken(queue, "its size is not a power of two within bounds") == 0;
    if ((queue->descriptors & 15) || (queue->driver_area & 1) || (queue->device_area & 3))
        return broken(queue, "a ring is not aligned") == 0;
    queue->table = guest_memory_at(queue->memory, queue->descriptors, 16 * size);
    queue->driver = guest_memory_at(queue->memory, queue->driver_area, 6 + 2 * size);
    queue->device = guest_memory_at(queue->memory, queue->device_area, 6 + 8 * size);
    if (!queue->table || !queue->driver || !queue->device)
        return broken(queue, "a ring is not in RAM") == 0;
    queue->published = queue->used;
    queue->signalled_valid = false;
    queue->ready = true;
    return true;
}

void virtqueue_reset(struct virtqueue *queue)
{
    *queue = (struct virtqueue){.memory = queue->memory};
}

/* One 16-byte descriptor, in two loads the compiler may neither repeat nor split. */
static struct descriptor load_descriptor(const uint64_t *table, unsigned index)
{
    uint64_t low = __atomic_load_n(&table[2 * (size_t)index], __ATOMIC_RELAXED);
    uint64_t high = __atomic_load_n(&table[2 * (size_t)index + 1], __ATOMIC_RELAXED);
    return (struct descriptor){
        .address = low,
        .length = (uint32_t)high,
        .flags = (uint16_t)(high >> 32),
        .next = (uint16_t)(high >> 48),
    };
}

static int add_segment(struct virtqueue *queue, struct virtqueue_chain *chain,
                       const struct descriptor *descriptor)
{
    bool writable = descriptor->flags & VRING_DESC_F_WRITE;
    if (!writable && chain->writable > 0)
        return broken(queue, "a readable segment follows a writable one");
    if (descriptor->length == 0)
        return 0;
    void *host = guest_memory_at(queue->memory, descriptor->address, descriptor->length);
    if (!host)
        return broken(queue, "a segment is not in RAM");
    uint64_t *bytes = writable ? &chain->writable_bytes : &chain->readable_bytes;
    *bytes += descriptor->length;
    if (*bytes > CHAIN_BYTES_MAX)
        return broken(queue, "a chain is longer than 4 GiB");
    unsigned count = chain->readable + chain->writable;
    if (count >= chain->capacity)
        return broken(queue, "a chain has too many segments");
    chain->iov[count] = (struct iovec){.iov_base = host, .iov_len = descriptor->length};
    if (writable)
        chain->writable++;
    else
        chain->readable++;
    return 0;
}

/* Follows the chain from @index of the queue's own table, into one indirect table at most. */
static int walk(struct virtqueue *queue, struct virtqueue_chain *chain, unsigned index)
{
    const uint64_t *table = queue->table;
    unsigned entries = queue->size;
    bool in_indirect = false;
    /* An indirect descriptor is not itself a segment: one step more than the queue is long. */
    for (unsigned steps = 0; steps <= queue->size; steps++) {
        struct descriptor descriptor = load_descriptor(table, index);
        if (descriptor.flags & VRING_DESC_F_INDIRECT) {
            if (!queue->indirect || in_indirect || (descriptor.flags & VRING_DESC_F_NEXT))
                return broken(queue, "an indirect descriptor where none may be");
            entries = descriptor.length / 16;
            if (entries == 0 || descriptor.length % 16 != 0 || (descriptor.address & 15))
                return broken(queue, "an indirect table of a wrong size or alignment");
            table = guest_memory_at(queue->memory, descriptor.address, descriptor.length);
            if (!table)
                return broken(queue, "an indirect table is not in RAM");
            in_indirect = true;
            index = 0;
            continue;
        }
        if (add_segment(queue, chain, &descriptor) < 0)
            return -1;
        if (!(descriptor.flags & VRING_DESC_F_NEXT))
            return 0;
        index = descriptor.next;
        if (index >= entries)
            return broken(queue, "a descriptor's index is out of range");
    }
    return broken(queue, "a chain is longer than the queue");
}

/* Chains waiting; more than the queue holds is a lie, which pop reports. */
static uint16_t waiting(const struct virtqueue *queue)
{
    uint16_t index = load_ordered(&queue->driver[AREA_INDEX]);
    return (uint16_t)(index - queue->last_avail);
}

bool virtqueue_has_chain(const struct virtqueue *queue)
{
    return queue->ready && (queue->fault || waiting(queue) != 0);
}

int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    if (queue->fault)
        return -1;
    if (!queue->ready)
        return 0;
    uint16_t count = waiting(queue);
    if (count == 0)
        return 0;
    if (count > queue->size)
        return broken(queue, "the driver's index ran away");
    unsigned slot = queue->last_avail & (queue->size - 1u);
    chain->head = load16(&queue->driver[AREA_RING + slot]);
    if (chain->head >= queue->size)
        return broken(queue, "a chain's head is out of range");
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (walk(queue, chain, chain->head) < 0)
        return -1;
    queue->last_avail++;
    return 1;
}

void virtqueue_unpop(struct virtqueue *queue, unsigned chains)
{
    queue->last_avail = (uint16_t)(queue->last_avail - chains);
}

void virtqueue_push(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written)
{
    iov_mark_dirty(queue->memory, chain->iov + chain->readable, chain->writable, 0, written);
    size_t word = AREA_RING + 4 * (size_t)(queue->used & (queue->size - 1u));
    uint64_t element = (uint64_t)written << 32 | chain->head;
    /* Four-byte aligned only: the ring begins at word 2 of an area aligned to 4. */
    memcpy(queue->device + word, &element, sizeof element);
    guest_memory_mark_dirty(queue->memory, queue->device_area + 2 * word, sizeof element);
    queue->used++;
}

bool virtqueue_publish(struct virtqueue *queue)
{
    if (!queue->ready || queue->published == queue->used)
        return false;
    store_device16(queue, AREA_INDEX, queue->used);
    queue->published = queue->used;
    /* The driver re-arms its event word, then looks at our index; we the other way round. As both
     * accesses are sequentially consistent, one of us sees the other. */
    if (!queue->event_index)
        return !(load_ordered(&queue->driver[AREA_FLAGS]) & VRING_AVAIL_F_NO_INTERRUPT);
    uint16_t event = load_ordered(&queue->driver[used_event_word(queue)]);
    bool wanted =
        !queue->signalled_valid || vring_need_event(event, queue->published, queue->signalled);
    queue->signalled = queue->published;
    queue->signalled_valid = true;
    return wanted;
}

void virtqueue_suppress_kicks(struct virtqueue *queue)
{
    /* With event indices a stale avail_event is suppression enough. */
    if (!queue->ready || queue->event_index || queue->kicks_suppressed)
        return;
    store_device16(queue, AREA_FLAGS, VRING_USED_F_NO_NOTIFY);
    queue->kicks_suppressed = true;
}

bool virtqueue_await_kick(struct virtqueue *queue)
{
    if (!queue->ready || queue->fault)
        return false;
    if (queue->event_index)
        store_device16(queue, avail_event_word(queue), queue->last_avail);
    else
        store_device16(queue, AREA_FLAGS, 0);
    queue->kicks_suppressed = false;
    /* Ask first, look afterwards: see virtqueue_publish(). */
    return waiting(queue) != 0;
}
