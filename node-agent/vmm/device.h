/*
 * device.h: what a machine knows of any device: how to quiet it, save it and bring it back.
 *
 * Order, all vCPUs stopped: pause() each (stop taking requests, finish those in flight, flush) ->
 * save() each -> the stream -> load() each on a machine built from the same command line ->
 * resume() each. resume(moved = true) means the guest has moved to this host: re-kick queues,
 * re-signal interrupts, announce. A source that runs on gets resume(moved = false).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Bytes a device saved: a packed protobuf message of its own. Owned by the holder, free()d. */
struct device_state {
    uint32_t version; /* of this device's format */
    uint8_t *data;
    size_t size;
};

/* pause and resume may be NULL where there is nothing to do. */
struct device_ops {
    /* Optional. A pause() may come soon: begins what would make it long. Returns at once; again and
     * again while pre-copy goes on. Any thread. */
    void (*settle)(void *device);
    int (*pause)(void *device, struct error *err);
    int (*save)(void *device, struct device_state *state, struct error *err);
    /* @state comes from another host: bound every value before use. */
    int (*load)(void *device, const struct device_state *state, struct error *err);
    void (*resume)(void *device, bool moved);
    void (*free)(void *device);
};

/* How a machine keeps it. @name is its place and type ("pci-02 virtio-blk"), unique in the machine
 * and the same on both hosts, because it names the state in the stream. */
struct device {
    char name[48];
    const struct device_ops *ops;
    void *self;
};
