/*
 * virtqueue.h: one split virtqueue (virtio 1.2 §2.7), seen from the device.
 *
 * The rings lie in guest RAM and the guest may write there at any moment. Each index, descriptor
 * and event word is read once into a local and checked before use. What the specification forbids
 * (a chain longer than the queue, an address outside RAM, a readable segment behind a writable one)
 * breaks the queue: pop returns -1 with the reason in @fault, and only a reset mends it.
 *
 * A queue does no locking and sends no interrupt: its device does (virtio.h). Everything written to
 * RAM is marked dirty after the write.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "node-agent/vmm/guest_memory.h"

#define VIRTQUEUE_SIZE_MAX 256u

struct virtqueue {
    struct guest_memory *memory;
    const char *fault; /* why the queue is broken; NULL: it isn't */

    /* What the driver set. */
    uint16_t size; /* entries, a power of two */
    bool ready;
    uint64_t descriptors; /* guest-physical addresses of the three areas */
    uint64_t driver_area;
    uint64_t device_area;
    bool indirect; /* negotiated: RING_INDIRECT_DESC, RING_EVENT_IDX */
    bool event_index;

    /* Where the areas are mapped, while ready. */
    const uint64_t *table;  /* two words a descriptor */
    const uint16_t *driver; /* flags, idx, ring[size], used_event */
    uint16_t *device;       /* flags, idx, {id, length}[size], avail_event */

    /* How far we are. */
    uint16_t last_avail;
    uint16_t used; /* index of the next used element; published by publish() */
    uint16_t published;
    uint16_t signalled;    /* @published at the last interrupt ... */
    bool signalled_valid;  /* ... where we know it */
    bool kicks_suppressed; /* our flags say NO_NOTIFY, as far as we know */
};

/* One request: @readable segments, then @writable ones, in @iov. The caller sets iov and
 * capacity; virtqueue_pop() fills the rest. Segments of length 0 are left out. */
struct virtqueue_chain {
    struct iovec *iov;
    unsigned capacity; /* of iov; VIRTQUEUE_SIZE_MAX always suffices */
    uint16_t head;
    unsigned readable;
    unsigned writable;
    uint64_t readable_bytes;
    uint64_t writable_bytes; /* both below 4 GiB */
};

/* Maps the rings and starts the queue at the indices it has. Returns false and sets fault where
 * size, alignment or place are wrong. */
bool virtqueue_start(struct virtqueue *queue);
/* Forgets all the driver set, the indices too. */
void virtqueue_reset(struct virtqueue *queue);

/* Takes the next chain: 1, or 0 where there is none, or -1 where the queue is broken. */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Gives the last @chains popped ones back, none of them pushed. */
void virtqueue_unpop(struct virtqueue *queue, unsigned chains);
/* Puts a chain into the used ring, unpublished, and marks the first @written bytes of its writable
 * segments dirty. */
void virtqueue_push(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written);
/* Shows the driver what was pushed. True where it wants an interrupt for that. */
bool virtqueue_publish(struct virtqueue *queue);
/* Asks the driver not to kick, as we are looking anyway. */
void virtqueue_suppress_kicks(struct virtqueue *queue);
/* Asks for the next kick. True where chains arrived meanwhile, for which none may come. */
bool virtqueue_await_kick(struct virtqueue *queue);
/* True where a pop would return something other than 0. */
bool virtqueue_has_chain(const struct virtqueue *queue);

/* Copies up to @size bytes, from byte @offset of the segments; returns how many. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t size);
/* The part of @iov from @offset on, at most @size bytes, into @part; returns its segments. */
unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t size,
                   struct iovec *part);
/* Marks @size bytes from @offset on dirty; the segments are guest RAM. */
void iov_mark_dirty(struct guest_memory *memory, const struct iovec *iov, unsigned count,
                    size_t offset, size_t size);
/* Copies into guest RAM at @offset of the segments, and marks it dirty; returns how much fitted. */
size_t iov_write(struct guest_memory *memory, const struct iovec *iov, unsigned count,
                 size_t offset, const void *from, size_t size);
