/*
 * virtio-blk (virtio 1.2 §5.2). A few worker threads share the one queue. One listens for the kick;
 * before it waits for the disk it wakes another to listen in its place. So what the page cache
 * holds is served by one thread without a switch, and several requests are in flight where the disk
 * is what takes the time. Data goes by preadv() and pwritev() straight between file and guest RAM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/devices/devices.h"
#include "node-agent/vmm/devices/virtio_blk_request.h"
#include "node-agent/vmm/virtio.h"
#include "node-agent/vmm/virtio_pci.h"
#include "proto/devices.pb-c.h"

#define WORKERS      4u
#define SEGMENTS_MAX (VIRTQUEUE_SIZE_MAX - 2) /* less header and status */

/* A pause that takes longer fails: the guest had better run on than stand still for dead storage.
 */
#define PAUSE_LIMIT_S 5u

struct virtio_blk {
    struct virtio_device virtio; /* first */
    struct blk_file file;
    int wake_fd; /* eventfd: wakes the worker that waits for a kick */
    pthread_t workers[WORKERS];
    unsigned started;

    /* Guarded by virtio.lock. */
    bool stopping;
    bool listening; /* a worker waits for the kick */
    unsigned idle;  /* workers that wait for work */
    unsigned in_flight;
    bool flush_wanted; /* a worker shall flush the file ... */
    bool flushing;     /* ... or is about it */
    pthread_cond_t work;
    pthread_cond_t done; /* a request or a flush is */
};

/* ---- workers ---- */

/* Waits, the lock given up, until the driver kicks or the device ends. */
static void listen_for_kick(struct virtio_blk *blk)
{
    int kick_fd = blk->virtio.queues[0].kick_fd;
    struct pollfd fds[2] = {{.fd = kick_fd, .events = POLLIN},
                            {.fd = blk->wake_fd, .events = POLLIN}};
    uint64_t kicks;
    blk->listening = true;
    (void)pthread_mutex_unlock(&blk->virtio.lock);
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    for (unsigned i = 0; i < 2; i++)
        if (fds[i].revents & POLLIN)
            (void)!read(fds[i].fd, &kicks, sizeof kicks);
    (void)pthread_mutex_lock(&blk->virtio.lock);
    blk->listening = false;
}

/* Somebody should listen while we are busy. The lock is held. */
static void promote_listener(struct virtio_blk *blk)
{
    if (!blk->listening && blk->idle > 0)
        (void)pthread_cond_signal(&blk->work);
}

/* The lock is held, and given up meanwhile. */
static void flush_file(struct virtio_blk *blk)
{
    blk->flush_wanted = false;
    blk->flushing = true;
    promote_listener(blk);
    (void)pthread_mutex_unlock(&blk->virtio.lock);
    (void)blk_file_flush(&blk->file); /* a failure stays in it */
    (void)pthread_mutex_lock(&blk->virtio.lock);
    blk->flushing = false;
    (void)pthread_cond_broadcast(&blk->done);
}

/* Takes the next request. False where there was none: the worker has waited, or the device stops.
 */
static bool next_request(struct virtio_blk *blk, struct virtqueue_chain *chain)
{
    struct virtqueue *ring = &blk->virtio.queues[0].ring;
    if (blk->flush_wanted && !blk->flushing) {
        flush_file(blk);
        return false;
    }
    if (virtio_pop(&blk->virtio, 0, chain)) {
        virtqueue_suppress_kicks(ring);
        blk->in_flight++;
        return true;
    }
    if (blk->listening) {
        blk->idle++;
        (void)pthread_cond_wait(&blk->work, &blk->virtio.lock);
        blk->idle--;
    } else if (!virtio_may_serve(&blk->virtio) || !virtqueue_await_kick(ring)) {
        listen_for_kick(blk);
    }
    return false;
}

/* Does the request, the lock given up; false where it is none. */
static bool do_request(struct virtio_blk *blk, const struct virtqueue_chain *chain,
                       uint32_t *written)
{
    (void)pthread_mutex_unlock(&blk->virtio.lock);
    bool sound = blk_handle_cached(&blk->file, blk->virtio.memory, chain, written);
    if (!sound) {
        (void)pthread_mutex_lock(&blk->virtio.lock);
        promote_listener(blk);
        (void)pthread_mutex_unlock(&blk->virtio.lock);
        sound = blk_handle(&blk->file, blk->virtio.memory, chain, written);
    }
    (void)pthread_mutex_lock(&blk->virtio.lock);
    return sound;
}

static void finish_request(struct virtio_blk *blk, const struct virtqueue_chain *chain,
                           uint32_t written)
{
    virtqueue_push(&blk->virtio.queues[0].ring, chain, written);
    virtio_publish(&blk->virtio, 0);
    if (--blk->in_flight == 0)
        (void)pthread_cond_broadcast(&blk->done);
}

static void *work(void *context)
{
    struct virtio_blk *blk = context;
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain = {.iov = iov, .capacity = VIRTQUEUE_SIZE_MAX};
    (void)pthread_mutex_lock(&blk->virtio.lock);
    while (!blk->stopping) {
        if (!next_request(blk, &chain))
            continue;
        uint32_t written = 0;
        bool sound = do_request(blk, &chain, &written);
        finish_request(blk, &chain, written);
        if (!sound)
            virtio_break(&blk->virtio, "a request without header or status");
    }
    /* The one that waits for work must hear of the end, too. */
    (void)pthread_cond_broadcast(&blk->work);
    (void)pthread_mutex_unlock(&blk->virtio.lock);
    return NULL;
}

/* ---- device ---- */

static struct virtio_blk *blk_of(struct virtio_device *device)
{
    return (struct virtio_blk *)device;
}

static void blk_activate(struct virtio_device *device)
{
    atomic_store(&blk_of(device)->file.write_through, !virtio_has(device, VIRTIO_BLK_F_FLUSH));
}

static void blk_quiesce(struct virtio_device *device)
{
    struct virtio_blk *blk = blk_of(device);
    while (blk->in_flight > 0)
        (void)pthread_cond_wait(&blk->done, &device->lock);
}

/* Lets a worker flush, if there is something to flush and none does already. */
static void request_flush(struct virtio_blk *blk)
{
    if (blk->file.read_only || blk->flushing || blk->flush_wanted || blk_file_clean(&blk->file))
        return;
    blk->flush_wanted = true;
    if (blk->idle > 0)
        (void)pthread_cond_signal(&blk->work);
    else
        (void)!write(blk->wake_fd, &(uint64_t){1}, sizeof(uint64_t)); /* or a busy one finds it */
}

static void blk_settle(struct virtio_device *device)
{
    request_flush(blk_of(device));
}

/* Waits until a request or a flush is done; false where @deadline has passed. */
static bool wait_done(struct virtio_blk *blk, const struct timespec *deadline)
{
    return pthread_cond_timedwait(&blk->done, &blk->virtio.lock, deadline) != ETIMEDOUT;
}

/* Something written is neither durable nor known to be lost. */
static bool is_unsafe(struct blk_file *file)
{
    return !file->read_only && !blk_file_clean(file) && atomic_load(&file->flush_error) == 0;
}

static int blk_pause(struct virtio_device *device, struct error *err)
{
    struct virtio_blk *blk = blk_of(device);
    struct timespec deadline = {0};
    bool in_time = true;
    (void)clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += PAUSE_LIMIT_S;
    while (in_time && (blk->in_flight > 0 || is_unsafe(&blk->file))) {
        if (blk->in_flight == 0)
            request_flush(blk);
        in_time = wait_done(blk, &deadline);
    }
    if (!in_time)
        return error_set(
            err, ERROR_TIMEOUT,
            "a disk did not finish what it was given within %u s: is its storage gone?",
            PAUSE_LIMIT_S);
    int number = atomic_load(&blk->file.flush_error);
    return number == 0 ? 0 : error_errno(err, number, "what the guest wrote to a disk is lost");
}

static int blk_save(struct virtio_device *device, uint8_t **data, size_t *size, struct error *err)
{
    const struct virtio_blk *blk = blk_of(device);
    Vmpool__Device__Block message = VMPOOL__DEVICE__BLOCK__INIT;
    message.capacity = blk->file.sectors;
    message.read_only = blk->file.read_only;
    *size = vmpool__device__block__get_packed_size(&message);
    *data = malloc(*size + 1); /* may be 0 */
    if (!*data)
        return error_errno(err, ENOMEM, "state of a disk");
    (void)vmpool__device__block__pack(&message, *data);
    return 0;
}

static int blk_load(struct virtio_device *device, const uint8_t *data, size_t size,
                    struct error *err)
{
    const struct virtio_blk *blk = blk_of(device);
    Vmpool__Device__Block *message = vmpool__device__block__unpack(NULL, size, data);
    if (!message)
        return error_set(err, ERROR_FAILED, "its own state is garbled");
    int status = 0;
    if (message->capacity != blk->file.sectors || message->read_only != blk->file.read_only)
        status = error_set(
            err, ERROR_CONFLICT,
            "the disk here has %llu sectors%s, the guest's %llu%s: not the same",
            (unsigned long long)blk->file.sectors, blk->file.read_only ? ", read-only" : "",
            (unsigned long long)message->capacity, message->read_only ? ", read-only" : "");
    vmpool__device__block__free_unpacked(message, NULL);
    return status;
}

static void blk_resumed(struct virtio_device *device, bool moved)
{
    /* Until now the other host wrote to the disk: what our page cache holds of it may be old. */
    if (moved)
        (void)posix_fadvise(blk_of(device)->file.fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void blk_free(struct virtio_device *device)
{
    struct virtio_blk *blk = blk_of(device);
    const uint64_t one = 1;
    (void)pthread_mutex_lock(&device->lock);
    blk->stopping = true;
    (void)pthread_cond_broadcast(&blk->work);
    (void)pthread_mutex_unlock(&device->lock);
    (void)!write(blk->wake_fd, &one, sizeof one);
    for (unsigned i = 0; i < blk->started; i++)
        (void)pthread_join(blk->workers[i], NULL);
    (void)pthread_cond_destroy(&blk->work);
    (void)pthread_cond_destroy(&blk->done);
    close_fd(&blk->wake_fd);
    close_fd(&blk->file.fd);
    virtio_destroy(device);
    free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .name = "virtio-blk",
    .type = VIRTIO_ID_BLOCK,
    .activate = blk_activate,
    .quiesce = blk_quiesce,
    .settle = blk_settle,
    .pause = blk_pause,
    .save = blk_save,
    .load = blk_load,
    .resumed = blk_resumed,
    .free = blk_free,
};

static void fill_config(struct virtio_blk *blk)
{
    struct virtio_blk_config config = {
        .capacity = blk->file.sectors,
        .seg_max = SEGMENTS_MAX,
        .blk_size = blk->file.block_bytes,
        .max_discard_sectors = BLK_DISCARD_SECTORS,
        .max_discard_seg = 1,
        .discard_sector_alignment = blk->file.block_bytes / BLK_SECTOR,
        .max_write_zeroes_sectors = BLK_DISCARD_SECTORS,
        .max_write_zeroes_seg = 1,
        .write_zeroes_may_unmap = 1,
    };
    memcpy(blk->virtio.config, &config, sizeof config);
    blk->virtio.config_size = sizeof config;
}

static uint64_t features_of(const struct blk_file *file)
{
    uint64_t features = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        VIRTIO_BIT(VIRTIO_BLK_F_FLUSH);
    if (file->read_only)
        return features | VIRTIO_BIT(VIRTIO_BLK_F_RO);
    return features | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

static int start_workers(struct virtio_blk *blk, struct error *err)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        int status = pthread_create(&blk->workers[i], NULL, work, blk);
        if (status != 0)
            return error_errno(err, status, "cannot start a disk's thread");
        (void)pthread_setname_np(blk->workers[i], "disk");
        blk->started = i + 1;
    }
    return 0;
}

struct virtio_blk *virtio_blk_new(struct pci_bus *bus, int fd, bool read_only, const char *serial,
                                  struct error *err)
{
    auto_fd int owned = fd;
    struct blk_file file;
    if (blk_file_init(&file, fd, read_only, serial, err) < 0)
        return NULL;
    struct virtio_blk *blk = calloc(1, sizeof *blk);
    if (!blk) {
        (void)error_errno(err, ENOMEM, "virtio-blk");
        return NULL;
    }
    if (virtio_init(&blk->virtio, &blk_ops, pci_bus_host(bus)->memory, features_of(&file), 1, err) <
        0) {
        free(blk);
        return NULL;
    }
    blk->file = file;
    (void)take_fd(&owned);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&blk->work, NULL);
    (void)pthread_cond_init(&blk->done, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    fill_config(blk);
    blk->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (blk->wake_fd < 0)
        (void)error_errno(err, errno, "eventfd for a disk");
    if (blk->wake_fd < 0 || start_workers(blk, err) < 0 ||
        virtio_pci_add(bus, &blk->virtio, err) < 0) {
        blk_free(&blk->virtio);
        return NULL;
    }
    return blk;
}

void virtio_blk_counters(const struct virtio_blk *blk, struct device_counters *counters)
{
    counters->in_bytes = atomic_load(&blk->file.read_bytes);
    counters->out_bytes = atomic_load(&blk->file.written_bytes);
}
