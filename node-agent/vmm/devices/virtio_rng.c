/* virtio-rng (virtio 1.2 §5.4): entropy for the guest from the host's getrandom(). */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <sys/random.h>

#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/virtio.h"
#include "node-agent/vmm/virtio_pci.h"

/* Most bytes for one request; less than was asked is allowed, and keeps the loop free. */
#define REQUEST_MAX 1024u

/* Fills the front of the chain; returns how much. */
static uint32_t fill(struct virtio_device *device, const struct virtqueue_chain *chain)
{
    uint8_t random[REQUEST_MAX];
    size_t size = chain->writable_bytes < sizeof random ? chain->writable_bytes : sizeof random;
    ssize_t got = getrandom(random, size, GRND_NONBLOCK);
    if (got <= 0)
        return 0; /* the host has none yet: the guest asks again */
    return (uint32_t)iov_write(device->memory, chain->iov + chain->readable, chain->writable, 0,
                               random, (size_t)got);
}

static void rng_serve(struct virtio_device *device, unsigned index)
{
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    struct virtqueue *ring = &device->queues[index].ring;
    unsigned served = 0;
    do {
        while (served < ring->size && virtio_pop(device, index, &chain)) {
            virtqueue_push(ring, &chain, fill(device, &chain));
            served++;
        }
        virtio_publish(device, index);
        if (served >= ring->size) {
            virtio_kick(device, index); /* others have their turn first */
            return;
        }
    } while (virtio_may_serve(device) && virtqueue_await_kick(ring));
}

static void rng_free(struct virtio_device *device)
{
    virtio_destroy(device);
    free(device);
}

static const struct virtio_device_ops rng_ops = {
    .name = "virtio-rng", .type = VIRTIO_ID_RNG, .serve = rng_serve, .free = rng_free};

int virtio_rng_new(struct pci_bus *bus, struct loop *loop, struct error *err)
{
    struct virtio_device *device = calloc(1, sizeof *device);
    if (!device)
        return error_errno(err, ENOMEM, "virtio-rng");
    if (virtio_init(device, &rng_ops, pci_bus_host(bus)->memory, 0, 1, err) < 0) {
        free(device);
        return -1;
    }
    if (virtio_serve_on_loop(device, loop, err) < 0 || virtio_pci_add(bus, device, err) < 0) {
        rng_free(device);
        return -1;
    }
    return 0;
}
