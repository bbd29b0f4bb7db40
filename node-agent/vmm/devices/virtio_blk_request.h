/*
 * virtio_blk_request.h: one request of virtio-blk (virtio 1.2 §5.2.6) against a file.
 *
 *   readable: header (16 bytes), data to write      writable: data read, status (1 byte)
 *
 * The driver may cut these into segments as it likes.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "node-agent/vmm/virtqueue.h"

#define BLK_SECTOR     512u
#define BLK_SERIAL_MAX 20u

struct blk_file {
    int fd;
    bool read_only;
    bool is_device;
    bool direct;                /* opened with O_DIRECT */
    _Atomic bool write_through; /* the driver has no FLUSH: each write is made durable */
    _Atomic bool no_nowait;     /* the file system cannot read without blocking */
    uint64_t sectors;           /* of 512 bytes; the file's odd rest is left out */
    uint32_t block_bytes;       /* smallest unit of I/O: 512, or more for a device that wants so */
    char serial[BLK_SERIAL_MAX];
    _Atomic uint64_t changes;     /* writes done so far */
    _Atomic uint64_t safe_change; /* up to this one all are durable */
    _Atomic int flush_error;      /* errno value of a flush that failed; stays */
    _Atomic uint64_t read_bytes;
    _Atomic uint64_t written_bytes;
};

/* @fd is a regular file or a block device; it stays the caller's. */
int blk_file_init(struct blk_file *file, int fd, bool read_only, const char *serial,
                  struct error *err);

/* Makes durable what was written; 0 or the errno value. A failure stays: the kernel reports it once
 * and forgets the pages it could not write. Several at a time are fine. */
int blk_file_flush(struct blk_file *file);
/* Whether all that was written is durable. */
bool blk_file_clean(struct blk_file *file);

#define BLK_DISCARD_SECTORS (1u << 22) /* 2 GiB: most in one DISCARD or WRITE_ZEROES */

/* As blk_handle(), but only where it can be done without waiting for the disk: a read of what the
 * page cache holds. False where it can't; nothing was done then. */
bool blk_handle_cached(struct blk_file *file, struct guest_memory *memory,
                       const struct virtqueue_chain *chain, uint32_t *written);

/* Does what @chain asks, blocking, and writes its status; @written gets the bytes of the writable
 * part the driver may look at. False where the chain is no request: too short for a header or a
 * status. Any thread, several at a time. */
bool blk_handle(struct blk_file *file, struct guest_memory *memory,
                const struct virtqueue_chain *chain, uint32_t *written);
