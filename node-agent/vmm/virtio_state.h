/*
 * virtio_state.h: what of a virtio device is saved, whatever its transport.
 */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/virtio.h"
#include "proto/devices.pb-c.h"

/* Fills @message; the device is paused. virtio_state_free() frees what it points to. */
int virtio_save(struct virtio_device *device, Vmpool__Device__Virtio *message, struct error *err);
void virtio_state_free(Vmpool__Device__Virtio *message);
/* Takes a hostile @message into a new device, which is paused afterwards. */
int virtio_load(struct virtio_device *device, const Vmpool__Device__Virtio *message,
                struct error *err);
