#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>

#include "node-agent/vmm/virtio_pci_private.h"
#include "node-agent/vmm/virtio_state.h"

#define STATE_VERSION 1u

int virtio_pci_save(void *self, struct device_state *state, struct error *err)
{
    struct virtio_pci *pci = self;
    Vmpool__Device__VirtioPci message = VMPOOL__DEVICE__VIRTIO_PCI__INIT;
    Vmpool__Device__Virtio virtio;
    Vmpool__Device__Msix msix;
    if (virtio_save(pci->device, &virtio, err) < 0)
        return -1;
    int status = pci_msix_save(&pci->msix, &msix, err);
    if (status == 0) {
        message.config =
            (ProtobufCBinaryData){.len = PCI_CONFIG_SIZE, .data = pci->function.config.bytes};
        message.msix = &msix;
        message.virtio = &virtio;
        message.device_feature_select = pci->device_feature_select;
        message.driver_feature_select = pci->driver_feature_select;
        message.queue_select = pci->queue_select;
        state->version = STATE_VERSION;
        state->size = vmpool__device__virtio_pci__get_packed_size(&message);
        state->data = malloc(state->size);
        if (state->data)
            (void)vmpool__device__virtio_pci__pack(&message, state->data);
        else
            status = error_errno(err, ENOMEM, "state of %s", pci->device->ops->name);
    }
    pci_msix_state_free(&msix);
    virtio_state_free(&virtio);
    return status;
}

static int load_message(struct virtio_pci *pci, const Vmpool__Device__VirtioPci *message,
                        struct error *err)
{
    if (pci_bus_load_config(pci->bus, &pci->function, message->config.data, message->config.len,
                            err) < 0 ||
        pci_msix_load(&pci->msix, message->msix, err) < 0 ||
        virtio_load(pci->device, message->virtio, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&pci->device->lock);
    pci->device_feature_select = message->device_feature_select;
    pci->driver_feature_select = message->driver_feature_select;
    pci->queue_select = (uint16_t)message->queue_select;
    (void)pthread_mutex_unlock(&pci->device->lock);
    uint8_t control = (uint8_t)(pci->msix_capability + PCI_MSIX_FLAGS);
    pci_msix_set_control(&pci->msix, pci_config_get16(&pci->function.config, control));
    return 0;
}

int virtio_pci_load(void *self, const struct device_state *state, struct error *err)
{
    struct virtio_pci *pci = self;
    if (state->version != STATE_VERSION)
        return error_set(err, ERROR_CONFLICT, "state format %u of %s, not %u", state->version,
                         pci->device->ops->name, STATE_VERSION);
    Vmpool__Device__VirtioPci *message =
        vmpool__device__virtio_pci__unpack(NULL, state->size, state->data);
    if (!message)
        return error_set(err, ERROR_FAILED, "the state of %s is garbled", pci->device->ops->name);
    int status = load_message(pci, message, err);
    vmpool__device__virtio_pci__free_unpacked(message, NULL);
    return status;
}
