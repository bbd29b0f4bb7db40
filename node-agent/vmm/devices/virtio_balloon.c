/*
 * virtio-balloon (virtio 1.2 §5.5). Pages the guest gives, for good (inflate) or just because they
 * are free (free page reporting), go back to the host: a page is zeros again when next touched. As
 * that changes RAM, each page is marked dirty.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/virtio.h"
#include "node-agent/vmm/virtio_pci.h"
#include "proto/devices.pb-c.h"

#define QUEUE_INFLATE 0u
#define QUEUE_DEFLATE 1u
/* Free page reporting is queue 4 by the specification, and 2 for drivers that leave out the numbers
 * of queues not offered (Linux before 6.11). We offer neither of the two between, so all of them
 * report. */
#define QUEUES 5u

#define PFN_SHIFT    12u
#define PFNS_MAX     1024u /* in one chain */
#define PAGES_IN_MIB (1u << (20 - PFN_SHIFT))

struct virtio_balloon {
    struct virtio_device virtio; /* first */
    uint32_t target_pages;       /* the guest should give; guarded by virtio.lock */
    uint32_t actual_pages;       /* and says it gave */
    _Atomic uint64_t kept_mib;   /* for virtio_balloon_kept() */
    bool drop_failed;            /* logged once */
};

static struct virtio_balloon *balloon_of(struct virtio_device *device)
{
    return (struct virtio_balloon *)device;
}

static uint32_t ram_pages(const struct virtio_balloon *balloon)
{
    return (uint32_t)(balloon->virtio.memory->size >> PFN_SHIFT);
}

static void publish_numbers(struct virtio_balloon *balloon)
{
    const struct virtio_balloon_config config = {.num_pages = balloon->target_pages,
                                                 .actual = balloon->actual_pages};
    memcpy(balloon->virtio.config, &config, sizeof config);
    bool attached = balloon->virtio.status & VIRTIO_CONFIG_S_DRIVER_OK;
    uint32_t pages = ram_pages(balloon);
    uint32_t given = balloon->actual_pages < pages ? balloon->actual_pages : pages;
    atomic_store(&balloon->kept_mib, attached ? (pages - given) / PAGES_IN_MIB : 0);
}

/* ---- giving memory back to the host ---- */

static void release(struct virtio_balloon *balloon, uint64_t gpa, uint64_t length)
{
    if (guest_memory_drop(balloon->virtio.memory, gpa, length) == 0 || balloon->drop_failed)
        return;
    log_warn("the balloon cannot give memory back: %s", strerror(errno));
    balloon->drop_failed = true;
}

static int compare_pfns(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a;
    uint32_t second = *(const uint32_t *)b;
    return (first > second) - (first < second);
}

/* Releases the pages by runs, as a call a page would be slow. */
static void release_pfns(struct virtio_balloon *balloon, uint32_t *pfns, size_t count)
{
    qsort(pfns, count, sizeof *pfns, compare_pfns);
    for (size_t i = 0; i < count;) {
        size_t end = i + 1;
        while (end < count && pfns[end] - pfns[end - 1] <= 1)
            end++;
        uint64_t pages = pfns[end - 1] - pfns[i] + 1;
        release(balloon, (uint64_t)pfns[i] << PFN_SHIFT, pages << PFN_SHIFT);
        i = end;
    }
}

static void inflate(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    uint32_t pfns[PFNS_MAX];
    if (chain->readable_bytes > sizeof pfns || chain->readable_bytes % sizeof *pfns != 0) {
        virtio_break(&balloon->virtio, "a list of pages of a wrong length");
        return;
    }
    size_t size = iov_read(chain->iov, chain->readable, 0, pfns, sizeof pfns);
    release_pfns(balloon, pfns, size / sizeof *pfns);
}

/* The chain's segments are the free memory itself. */
static void report(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    const struct guest_memory *memory = balloon->virtio.memory;
    const uint64_t page = LAYOUT_PAGE_SIZE;
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++) {
        uint64_t offset = (uint64_t)((uint8_t *)chain->iov[i].iov_base - memory->base);
        uint64_t start = (offset + page - 1) & ~(page - 1);
        uint64_t end = (offset + chain->iov[i].iov_len) & ~(page - 1);
        uint64_t gpa =
            start < LAYOUT_LOW_RAM_MAX ? start : start - LAYOUT_LOW_RAM_MAX + LAYOUT_HIGH_RAM_START;
        if (start < end)
            release(balloon, gpa, end - start);
    }
}

static void balloon_serve(struct virtio_device *device, unsigned index)
{
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    struct virtqueue *ring = &device->queues[index].ring;
    if (virtio_pop(device, index, &chain)) {
        if (index == QUEUE_INFLATE)
            inflate(balloon_of(device), &chain);
        else if (index != QUEUE_DEFLATE) /* pages come back by being touched */
            report(balloon_of(device), &chain);
        virtqueue_push(ring, &chain, 0);
        virtio_publish(device, index);
    }
    /* One chain a turn, as each can take long. */
    if (virtio_may_serve(device) && virtqueue_await_kick(ring))
        virtio_kick(device, index);
}

/* ---- device ---- */

static void balloon_activate(struct virtio_device *device)
{
    publish_numbers(balloon_of(device));
}

static void balloon_reset(struct virtio_device *device)
{
    balloon_of(device)->actual_pages = 0;
    publish_numbers(balloon_of(device));
}

static void balloon_config_write(struct virtio_device *device, uint32_t offset, const void *data,
                                 unsigned length)
{
    struct virtio_balloon *balloon = balloon_of(device);
    if (offset != offsetof(struct virtio_balloon_config, actual) || length != sizeof(uint32_t))
        return;
    memcpy(&balloon->actual_pages, data, sizeof balloon->actual_pages);
    publish_numbers(balloon);
}

static int balloon_save(struct virtio_device *device, uint8_t **data, size_t *size,
                        struct error *err)
{
    Vmpool__Device__Balloon message = VMPOOL__DEVICE__BALLOON__INIT;
    message.target_pages = balloon_of(device)->target_pages;
    message.actual_pages = balloon_of(device)->actual_pages;
    *size = vmpool__device__balloon__get_packed_size(&message);
    *data = malloc(*size + 1); /* may be 0 */
    if (!*data)
        return error_errno(err, ENOMEM, "state of a balloon");
    (void)vmpool__device__balloon__pack(&message, *data);
    return 0;
}

static int balloon_load(struct virtio_device *device, const uint8_t *data, size_t size,
                        struct error *err)
{
    struct virtio_balloon *balloon = balloon_of(device);
    Vmpool__Device__Balloon *message = vmpool__device__balloon__unpack(NULL, size, data);
    if (!message)
        return error_set(err, ERROR_FAILED, "its own state is garbled");
    int status = 0;
    if (message->target_pages > ram_pages(balloon)) {
        status = error_set(err, ERROR_FAILED, "%u pages to give of %u", message->target_pages,
                           ram_pages(balloon));
    } else {
        balloon->target_pages = message->target_pages;
        balloon->actual_pages = message->actual_pages; /* the guest's word, bounded where used */
        publish_numbers(balloon);
    }
    vmpool__device__balloon__free_unpacked(message, NULL);
    return status;
}

static void balloon_free(struct virtio_device *device)
{
    virtio_destroy(device);
    free(balloon_of(device));
}

static const struct virtio_device_ops balloon_ops = {
    .name = "virtio-balloon",
    .type = VIRTIO_ID_BALLOON,
    .serve = balloon_serve,
    .activate = balloon_activate,
    .reset = balloon_reset,
    .config_write = balloon_config_write,
    .save = balloon_save,
    .load = balloon_load,
    .free = balloon_free,
};

struct virtio_balloon *virtio_balloon_new(struct pci_bus *bus, struct loop *loop, struct error *err)
{
    const uint64_t features = VIRTIO_BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) |
                              VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                              VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING);
    struct virtio_balloon *balloon = calloc(1, sizeof *balloon);
    if (!balloon) {
        (void)error_errno(err, ENOMEM, "virtio-balloon");
        return NULL;
    }
    if (virtio_init(&balloon->virtio, &balloon_ops, pci_bus_host(bus)->memory, features, QUEUES,
                    err) < 0) {
        free(balloon);
        return NULL;
    }
    /* Only the two numbers: what follows belongs to features not offered. */
    balloon->virtio.config_size = offsetof(struct virtio_balloon_config, actual) + sizeof(uint32_t);
    if (virtio_serve_on_loop(&balloon->virtio, loop, err) < 0 ||
        virtio_pci_add(bus, &balloon->virtio, err) < 0) {
        balloon_free(&balloon->virtio);
        return NULL;
    }
    return balloon;
}

void virtio_balloon_set(struct virtio_balloon *balloon, uint64_t keep_mib)
{
    (void)pthread_mutex_lock(&balloon->virtio.lock);
    uint32_t pages = ram_pages(balloon);
    uint32_t keep = keep_mib < pages / PAGES_IN_MIB ? (uint32_t)keep_mib * PAGES_IN_MIB : pages;
    if (balloon->target_pages != pages - keep) {
        balloon->target_pages = pages - keep;
        publish_numbers(balloon);
        virtio_config_changed(&balloon->virtio);
    }
    (void)pthread_mutex_unlock(&balloon->virtio.lock);
}

uint64_t virtio_balloon_kept(const struct virtio_balloon *balloon)
{
    return atomic_load(&balloon->kept_mib);
}
