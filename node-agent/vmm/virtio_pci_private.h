/*
 * virtio_pci_private.h: what the files virtio_pci*.c share.
 */
#pragma once

#include <stdint.h>

#include "node-agent/vmm/device.h"
#include "node-agent/vmm/pci_function.h"
#include "node-agent/vmm/pci_msix.h"
#include "node-agent/vmm/virtio.h"

struct virtio_pci {
    struct pci_bus *bus;
    struct pci_function function;
    struct pci_msix msix;
    struct virtio_device *device;
    uint8_t msix_capability; /* offsets */
    uint8_t window_capability;
    uint64_t notify_gpa; /* where the ioeventfds are; 0: nowhere */

    /* Registers of the common configuration; guarded by device->lock. */
    uint32_t device_feature_select;
    uint32_t driver_feature_select;
    uint16_t queue_select;
};

/* The common configuration structure (§4.1.4.3). */
void virtio_pci_common_read(struct virtio_pci *pci, uint32_t offset, void *data, unsigned length);
void virtio_pci_common_write(struct virtio_pci *pci, uint32_t offset, const void *data,
                             unsigned length);

/* For struct device_ops. */
int virtio_pci_save(void *self, struct device_state *state, struct error *err);
int virtio_pci_load(void *self, const struct device_state *state, struct error *err);
