/*
 * virtio.h: a virtio device without its transport, and what each kind of device gives for it.
 *
 * A device embeds struct virtio_device as its first member. The core keeps what every device has:
 * features, status (virtio 1.2 §2.1, §3.1), queues with their kick eventfds, configuration space
 * and its generation, pause and state. The transport (virtio_pci.c) turns register accesses into
 * the calls under "for transports" and delivers interrupts.
 *
 * One lock a device guards all of it: rings, status, configuration. Callbacks are called with the
 * lock held. A guest that breaks a rule gets DEVICE_NEEDS_RESET, and the device rests until then.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "node-agent/vmm/guest_memory.h"
#include "node-agent/vmm/virtqueue.h"

#define VIRTIO_QUEUES_MAX 8u
#define VIRTIO_NO_VECTOR  0xffffu
#define VIRTIO_CONFIG_MAX 256u

#define VIRTIO_BIT(feature) (1ull << (feature))

struct virtio_device;

/* All but name and type may be NULL. The lock is held in all but free(). */
struct virtio_device_ops {
    const char *name; /* "virtio-blk" */
    uint16_t type;    /* VIRTIO_ID_BLOCK */
    /* Handles what waits in queue @index; for devices on the loop. */
    void (*serve)(struct virtio_device *device, unsigned index);
    /* The driver is ready (DRIVER_OK), features are settled; again after load(). */
    void (*activate)(struct virtio_device *device);
    /* Before a reset: returns when no chain is in flight; may give the lock up while it waits. No
     * new one is begun: virtio_may_serve() is false by now. */
    void (*quiesce)(struct virtio_device *device);
    /* After a reset: back to what it was when new. */
    void (*reset)(struct virtio_device *device);
    /* The driver wrote [@offset, @offset + @length) of the configuration, within its size. */
    void (*config_write)(struct virtio_device *device, uint32_t offset, const void *data,
                         unsigned length);
    /* device.h's settle(). */
    void (*settle)(struct virtio_device *device);
    /* Returns when no chain is in flight and what was acknowledged is durable; -1 where that takes
     * too long or can't be. May give the lock up while it waits. */
    int (*pause)(struct virtio_device *device, struct error *err);
    /* State of its own: a packed message. */
    int (*save)(struct virtio_device *device, uint8_t **data, size_t *size, struct error *err);
    int (*load)(struct virtio_device *device, const uint8_t *data, size_t size, struct error *err);
    void (*resumed)(struct virtio_device *device, bool moved);
    /* Stops its threads and sources, virtio_destroy()s and frees itself. */
    void (*free)(struct virtio_device *device);
};

struct virtio_queue {
    struct virtqueue ring;
    int kick_fd;     /* eventfd, non-blocking: written by the transport, read by the device */
    uint16_t vector; /* VIRTIO_NO_VECTOR: none */
    struct loop_source *source;
    struct virtio_device *device;
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    struct guest_memory *memory;
    pthread_mutex_t lock;

    uint64_t offered;  /* features */
    uint64_t features; /* what the driver accepted */
    uint8_t status;
    uint8_t generation; /* of the configuration */
    uint8_t isr;        /* bit 0: queue, bit 1: configuration */
    uint16_t config_vector;
    bool paused;

    uint8_t config[VIRTIO_CONFIG_MAX];
    uint32_t config_size;

    unsigned queue_count;
    uint16_t queue_size; /* largest, of each queue */
    struct virtio_queue queues[VIRTIO_QUEUES_MAX];

    /* Set by the transport: interrupts with vector @vector. */
    void (*signal)(void *transport, uint16_t vector);
    void *transport;
};

/* ---- for devices ---- */

/* @features without the core's own (VERSION_1, RING_INDIRECT_DESC, RING_EVENT_IDX). */
int virtio_init(struct virtio_device *device, const struct virtio_device_ops *ops,
                struct guest_memory *memory, uint64_t features, unsigned queue_count,
                struct error *err);
/* Undoes virtio_init(): sources, eventfds and the lock. */
void virtio_destroy(struct virtio_device *device);
/* Calls ops->serve from @loop on each kick. */
int virtio_serve_on_loop(struct virtio_device *device, struct loop *loop, struct error *err);

/* DRIVER_OK, not broken, not paused. */
bool virtio_may_serve(const struct virtio_device *device);
static inline bool virtio_has(const struct virtio_device *device, unsigned feature)
{
    return device->features & VIRTIO_BIT(feature);
}
/* Takes a chain of queue @index; false where there is none, or where the guest broke the rules and
 * the device now needs a reset. */
bool virtio_pop(struct virtio_device *device, unsigned index, struct virtqueue_chain *chain);
/* Shows the driver what was pushed and interrupts it where it wants that. */
void virtio_publish(struct virtio_device *device, unsigned index);
/* The configuration changed: new generation and an interrupt. */
void virtio_config_changed(struct virtio_device *device);
/* DEVICE_NEEDS_RESET; @why goes to the log. */
void virtio_break(struct virtio_device *device, const char *why);
/* Serves queue @index (again) soon. Any thread, lock not needed. */
void virtio_kick(const struct virtio_device *device, unsigned index);

/* ---- for transports; each takes the lock itself ---- */

void virtio_config_read(struct virtio_device *device, uint32_t offset, void *data, unsigned length);
void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *data,
                         unsigned length);
/* The driver wrote the status register; 0 is a reset, done when this returns. */
void virtio_set_status(struct virtio_device *device, uint8_t status);
/* The driver accepts word @word (0 or 1) of the features. */
void virtio_set_features(struct virtio_device *device, unsigned word, uint32_t bits);
void virtio_enable_queue(struct virtio_device *device, unsigned index);
/* Whether queue @index may be changed: it exists and isn't ready. The lock is held. */
bool virtio_queue_open(const struct virtio_device *device, unsigned index);

void virtio_settle(struct virtio_device *device);
int virtio_pause(struct virtio_device *device, struct error *err);
void virtio_resume(struct virtio_device *device, bool moved);
