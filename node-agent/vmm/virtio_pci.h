/*
 * virtio_pci.h: a virtio device as a PCI function (virtio 1.2 §4.1), modern interface only.
 *
 *   BAR 0 (32 KiB)   0x0000  common configuration
 *                    0x1000  ISR status, cleared by the read
 *                    0x2000  device configuration
 *                    0x3000  notification: queue N at 0x3000 + 4 N, an ioeventfd each
 *                    0x4000  MSI-X table, one vector a queue and one for the configuration
 *                    0x5000  MSI-X pending bits
 */
#pragma once

#include "common/error.h"
#include "node-agent/vmm/pci.h"
#include "node-agent/vmm/virtio.h"

/* Puts @device on the bus, which owns it from then on (ops->free). On failure it stays the
 * caller's. */
int virtio_pci_add(struct pci_bus *bus, struct virtio_device *device, struct error *err);
