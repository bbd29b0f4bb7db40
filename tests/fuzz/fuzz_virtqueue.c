/*
 * A virtqueue against hostile rings. The input is the queue's parameters, then the start of RAM, in
 * which all areas and buffers lie; between two pops the "guest" overwrites some of it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node-agent/vmm/virtqueue.h"
#include "tests/fuzz/fuzz.h"

#define RAM_BYTES 65536u

struct parameters {
    uint16_t size;
    uint16_t last_avail;
    uint16_t used;
    uint16_t table;
    uint16_t driver_area;
    uint16_t device_area;
    uint8_t features;
    uint8_t pops;
    struct {
        uint16_t at;
        uint16_t value;
    } pokes[8];
};

static struct guest_memory memory;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct error err = ERROR_INIT;
    return guest_memory_create(&memory, RAM_BYTES, false, &err);
}

/* Touches each byte a device would, so that a segment outside RAM is found. */
static void use(struct virtqueue *queue, const struct virtqueue_chain *chain)
{
    uint8_t byte;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < chain->readable + chain->writable; i++) {
        const struct iovec *segment = &chain->iov[i];
        const uint8_t *start = segment->iov_base;
        if (start < memory.base || start + segment->iov_len > memory.base + RAM_BYTES)
            abort();
        bytes += segment->iov_len;
    }
    if (bytes != chain->readable_bytes + chain->writable_bytes)
        abort();
    (void)iov_read(chain->iov, chain->readable, chain->readable_bytes / 2, &byte, 1);
    (void)iov_write(&memory, chain->iov + chain->readable, chain->writable,
                    chain->writable_bytes / 2, "x", 1);
    virtqueue_push(queue, chain, (uint32_t)chain->writable_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parameters parameters = {0};
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    if (size < sizeof parameters)
        return 0;
    memcpy(&parameters, data, sizeof parameters);
    data += sizeof parameters;
    size -= sizeof parameters;
    memset(memory.base, 0, RAM_BYTES);
    memcpy(memory.base, data, size < RAM_BYTES ? size : RAM_BYTES);
    struct virtqueue queue = {
        .memory = &memory,
        .size = parameters.size,
        .descriptors = parameters.table,
        .driver_area = parameters.driver_area,
        .device_area = parameters.device_area,
        .last_avail = parameters.last_avail,
        .used = parameters.used,
        .indirect = parameters.features & 1,
        .event_index = parameters.features & 2,
    };
    if (!virtqueue_start(&queue))
        return 0;
    for (unsigned i = 0; i < parameters.pops % 32u; i++) {
        uint16_t before = queue.last_avail;
        if (virtqueue_pop(&queue, &chain) > 0) {
            use(&queue, &chain);
        } else if (queue.last_avail != before) {
            abort();
        }
        (void)virtqueue_publish(&queue);
        virtqueue_suppress_kicks(&queue);
        (void)virtqueue_await_kick(&queue);
        memcpy(memory.base + parameters.pokes[i % 8].at % (RAM_BYTES - 1),
               &parameters.pokes[i % 8].value, 2);
    }
    return 0;
}
