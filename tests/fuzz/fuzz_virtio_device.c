/*
 * A virtio device against a hostile state and hostile rings: the first byte chooses the device and
 * how its state is made (the input as it is, or fields of a good one replaced by the input's, wild
 * or tamed), the rest is state and RAM. The device is loaded, resumed, served, paused, saved and
 * reset.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/layout.h"
#include "proto/devices.pb-c.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/vmm/virtio_driver.h"

#define RAM_BYTES (1u << 18)

struct fuzz {
    struct machine machine;
    int network; /* the other end of the card's socket; -1: no card */
};

struct input {
    const uint8_t *data;
    size_t size;
};

static uint64_t take(struct input *input, unsigned bytes)
{
    uint64_t value = 0;
    if (bytes > input->size)
        bytes = (unsigned)input->size;
    memcpy(&value, input->data, bytes);
    input->data += bytes;
    input->size -= bytes;
    return value;
}

static void add_device(struct fuzz *fuzz, unsigned kind)
{
    struct error err = ERROR_INIT;
    struct machine *machine = &fuzz->machine;
    const uint8_t mac[6] = {2};
    int ends[2];
    int fd;
    fuzz->network = -1;
    switch (kind) {
    case 0:
        fd = memfd_create("disk", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, 65536) < 0 ||
            !virtio_blk_new(machine->pci, fd, false, NULL, &err))
            abort();
        break;
    case 1:
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0 ||
            !virtio_net_new(machine->pci, machine->loop, ends[0], mac, &err))
            abort();
        fuzz->network = ends[1];
        break;
    case 2:
        if (!virtio_balloon_new(machine->pci, machine->loop, &err))
            abort();
        break;
    default:
        if (virtio_rng_new(machine->pci, machine->loop, &err) < 0)
            abort();
    }
}

static void open_machine(struct fuzz *fuzz, unsigned kind)
{
    struct error err = ERROR_INIT;
    struct machine *machine = &fuzz->machine;
    if (guest_memory_create(&machine->memory, RAM_BYTES, false, &err) < 0)
        abort();
    machine->ports = bus_new(&err);
    machine->mmio = bus_new(&err);
    machine->irqs = irq_chip_new(-1, &err);
    machine->loop = loop_new(&err);
    const struct pci_host host = {.memory = &machine->memory,
                                  .ports = machine->ports,
                                  .mmio = machine->mmio,
                                  .irqs = machine->irqs,
                                  .vm_fd = -1};
    machine->pci = pci_bus_new(&host, &err);
    add_device(fuzz, kind);
}

static void close_machine(struct fuzz *fuzz)
{
    struct machine *machine = &fuzz->machine;
    pci_bus_free(machine->pci);
    loop_free(machine->loop);
    irq_chip_free(machine->irqs);
    bus_free(machine->ports);
    bus_free(machine->mmio);
    guest_memory_destroy(&machine->memory);
    if (fuzz->network >= 0)
        (void)close(fuzz->network);
}

/* Values a driver could have set, so that the rings are reached. */
static void tame_queue(Vmpool__Device__Virtqueue *queue)
{
    queue->size = 1u << (queue->size % 9);
    queue->ready = true;
    queue->descriptors &= (RAM_BYTES / 4 - 1) & ~15u;
    queue->driver_area &= (RAM_BYTES / 4 - 1) & ~1u;
    queue->device_area &= (RAM_BYTES / 4 - 1) & ~3u;
    queue->last_avail &= 0xffff;
    queue->used &= 0xffff;
    queue->vector &= 0xffff;
}

static void tame(Vmpool__Device__Virtio *virtio, unsigned kind)
{
    static const uint64_t features[] = {1u << 9 | 1u << 13 | 1u << 14,
                                        1u << 15 | 1u << 17 | 1u << 21, 1u << 2 | 1u << 5, 0};
    const uint64_t version_1 = 1ull << 32;
    virtio->features = version_1 | (virtio->features & (features[kind] | 3u << 28));
    virtio->status = 15;
    for (size_t i = 0; i < virtio->n_queues; i++)
        tame_queue(virtio->queues[i]);
}

static void replace_queue(Vmpool__Device__Virtqueue *queue, struct input *input)
{
    queue->size = (uint32_t)take(input, 2);
    queue->ready = take(input, 1) & 1;
    queue->descriptors = take(input, 3);
    queue->driver_area = take(input, 3);
    queue->device_area = take(input, 3);
    queue->last_avail = (uint32_t)take(input, 3);
    queue->used = (uint32_t)take(input, 3);
    queue->vector = (uint32_t)take(input, 3);
}

/* Replaces the fields of a good state by the input's. */
static struct device_state replace(const struct device *device, unsigned choice,
                                   struct input *input)
{
    struct error err = ERROR_INIT;
    struct device_state state = {0};
    if (device->ops->save(device->self, &state, &err) < 0)
        abort();
    Vmpool__Device__VirtioPci *message =
        vmpool__device__virtio_pci__unpack(NULL, state.size, state.data);
    free(state.data);
    Vmpool__Device__Virtio *virtio = message->virtio;
    virtio->features = take(input, 5);
    virtio->status = (uint32_t)take(input, 1);
    virtio->isr = (uint32_t)take(input, 1);
    virtio->config_vector = (uint32_t)take(input, 2);
    for (size_t i = 0; i < virtio->n_queues; i++)
        replace_queue(virtio->queues[i], input);
    if (choice & 0x40)
        tame(virtio, choice % 4);
    else if (virtio->own.len > 0)
        virtio->own.data[take(input, 1) % virtio->own.len] ^= (uint8_t)take(input, 1);
    message->config.data[4] = (uint8_t)take(input, 1);
    message->msix->words[take(input, 1) % message->msix->n_words] = (uint32_t)take(input, 4);
    message->msix->pending = take(input, 1);
    state.size = vmpool__device__virtio_pci__get_packed_size(message);
    state.data = malloc(state.size);
    vmpool__device__virtio_pci__pack(message, state.data);
    vmpool__device__virtio_pci__free_unpacked(message, NULL);
    return state;
}

static struct device_state make_state(const struct device *device, unsigned choice,
                                      struct input *input)
{
    if (!(choice & 0x80))
        return replace(device, choice, input);
    size_t size = take(input, 2) % (input->size + 1);
    struct device_state state = {.version = 1, .size = size, .data = malloc(size + 1)};
    memcpy(state.data, input->data, size);
    input->data += size;
    input->size -= size;
    return state;
}

static void run(struct fuzz *fuzz, const struct device *device)
{
    struct error err = ERROR_INIT;
    const uint8_t frame[200] = {0};
    device->ops->resume(device->self, true);
    for (unsigned i = 0; i < 4; i++) {
        if (fuzz->network >= 0)
            (void)!write(fuzz->network, frame, sizeof frame);
        (void)loop_run_once(fuzz->machine.loop, 0, &err);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz", LOG_LEVEL_ERROR);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    struct fuzz fuzz;
    struct error err = ERROR_INIT;
    const struct device *devices;
    unsigned choice = (unsigned)take(&input, 1);
    open_machine(&fuzz, choice % 4);
    if (pci_bus_devices(fuzz.machine.pci, &devices) != 2)
        abort();
    const struct device *device = &devices[1];
    struct device_state state = make_state(device, choice, &input);
    memcpy(fuzz.machine.memory.base, input.data, input.size < RAM_BYTES ? input.size : RAM_BYTES);
    if (device->ops->load(device->self, &state, &err) == 0) {
        run(&fuzz, device);
        if (device->ops->pause(device->self, &err) < 0)
            abort();
        free(state.data);
        if (device->ops->save(device->self, &state, &err) < 0)
            abort();
    }
    free(state.data);
    close_machine(&fuzz);
    return 0;
}
