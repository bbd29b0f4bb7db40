#include "node-agent/vmm/devices/virtio_blk_request.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"

int blk_file_init(struct blk_file *file, int fd, bool read_only, const char *serial,
                  struct error *err)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_errno(err, errno, "cannot look at a disk");
    *file = (struct blk_file){.fd = fd, .read_only = read_only, .block_bytes = BLK_SECTOR};
    uint64_t bytes = (uint64_t)status.st_size;
    if (S_ISBLK(status.st_mode)) {
        int block = 0;
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0 || ioctl(fd, BLKSSZGET, &block) < 0)
            return error_errno(err, errno, "cannot ask a block device for its size");
        file->is_device = true;
        file->block_bytes = block > (int)BLK_SECTOR ? (uint32_t)block : BLK_SECTOR;
    } else if (!S_ISREG(status.st_mode)) {
        return error_set(err, ERROR_USAGE, "a disk must be a regular file or a block device");
    }
    int flags = fcntl(fd, F_GETFL);
    file->direct = flags >= 0 && (flags & O_DIRECT);
    file->sectors = bytes / BLK_SECTOR;
    if (bytes % BLK_SECTOR != 0)
        log_warn("the last %u bytes of a disk are no whole sector; the guest does not see them",
                 (unsigned)(bytes % BLK_SECTOR));
    if (serial)
        memcpy(file->serial, serial, strnlen(serial, sizeof file->serial));
    return 0;
}

int blk_file_flush(struct blk_file *file)
{
    uint64_t change = atomic_load(&file->changes);
    if (fdatasync(file->fd) < 0) {
        int none = 0;
        int number = errno;
        log_error("a disk cannot be flushed: %s; its flushes fail from now on", strerror(number));
        (void)atomic_compare_exchange_strong(&file->flush_error, &none, number);
    }
    if (atomic_load(&file->flush_error) != 0)
        return atomic_load(&file->flush_error);
    uint64_t safe = atomic_load(&file->safe_change);
    while (safe < change && !atomic_compare_exchange_weak(&file->safe_change, &safe, change))
        ;
    return 0;
}

bool blk_file_clean(struct blk_file *file)
{
    return atomic_load(&file->safe_change) == atomic_load(&file->changes);
}

/* The disk's byte range of @bytes at @sector, checked; false where it isn't all on the disk. */
static bool on_disk(const struct blk_file *file, uint64_t sector, uint64_t bytes)
{
    return bytes % BLK_SECTOR == 0 && sector <= file->sectors &&
           bytes / BLK_SECTOR <= file->sectors - sector;
}

/* Moves all of @bytes, which the segments hold exactly, in as many calls as it takes. */
static uint8_t transfer(const struct blk_file *file, const struct iovec *iov, unsigned count,
                        uint64_t sector, uint64_t bytes, bool write)
{
    struct iovec left[VIRTQUEUE_SIZE_MAX];
    uint64_t done = 0;
    while (done < bytes) {
        off_t at = (off_t)(sector * BLK_SECTOR + done);
        int segments = (int)iov_slice(iov, count, done, bytes - done, left);
        ssize_t moved =
            write ? pwritev(file->fd, left, segments, at) : preadv(file->fd, left, segments, at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0) {
            log_warn("disk %s at sector %llu: %s", write ? "write" : "read",
                     (unsigned long long)(sector + done / BLK_SECTOR),
                     moved == 0 ? "the file has become shorter" : strerror(errno));
            return VIRTIO_BLK_S_IOERR;
        }
        done += (uint64_t)moved;
    }
    return VIRTIO_BLK_S_OK;
}

static uint8_t handle_read(struct blk_file *file, struct guest_memory *memory,
                           const struct virtqueue_chain *chain, uint64_t sector)
{
    const struct iovec *iov = chain->iov + chain->readable;
    uint64_t bytes = chain->writable_bytes - 1;
    if (!on_disk(file, sector, bytes))
        return VIRTIO_BLK_S_IOERR;
    uint8_t status = transfer(file, iov, chain->writable, sector, bytes, false);
    if (status == VIRTIO_BLK_S_OK)
        atomic_fetch_add(&file->read_bytes, bytes);
    else
        iov_mark_dirty(memory, iov, chain->writable, 0, bytes); /* part of it may be there */
    return status;
}

static uint8_t handle_write(struct blk_file *file, const struct virtqueue_chain *chain,
                            uint64_t sector)
{
    struct iovec data[VIRTQUEUE_SIZE_MAX];
    const size_t header = sizeof(struct virtio_blk_outhdr);
    uint64_t bytes = chain->readable_bytes - header;
    if (file->read_only || !on_disk(file, sector, bytes))
        return VIRTIO_BLK_S_IOERR;
    unsigned segments = iov_slice(chain->iov, chain->readable, header, bytes, data);
    uint8_t status = transfer(file, data, segments, sector, bytes, true);
    atomic_fetch_add(&file->changes, 1);
    if (status != VIRTIO_BLK_S_OK)
        return status;
    atomic_fetch_add(&file->written_bytes, bytes);
    if (atomic_load(&file->write_through) && blk_file_flush(file) != 0)
        return VIRTIO_BLK_S_IOERR;
    return VIRTIO_BLK_S_OK;
}

/* Frees (@punch) or zeroes a range; on a file a hole reads as zeros, too. */
static int clear_range(const struct blk_file *file, bool punch, uint64_t start, uint64_t bytes)
{
    if (file->is_device) {
        uint64_t range[2] = {start, bytes};
        return ioctl(file->fd, punch ? BLKDISCARD : BLKZEROOUT, range);
    }
    int mode = punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int status = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)bytes);
    if (status < 0 && errno == EOPNOTSUPP && !punch)
        status = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                           (off_t)bytes);
    return status;
}

/* DISCARD is a hint, so a file that can't is no error; WRITE_ZEROES must leave zeros. */
static uint8_t handle_range(struct blk_file *file, const struct virtqueue_chain *chain,
                            uint32_t type)
{
    struct virtio_blk_discard_write_zeroes range;
    const size_t header = sizeof(struct virtio_blk_outhdr);
    if (file->read_only || chain->readable_bytes != header + sizeof range ||
        iov_read(chain->iov, chain->readable, header, &range, sizeof range) != sizeof range)
        return VIRTIO_BLK_S_IOERR;
    bool discard = type == VIRTIO_BLK_T_DISCARD;
    uint32_t known = discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (range.flags & ~known)
        return VIRTIO_BLK_S_UNSUPP;
    uint64_t bytes = (uint64_t)range.num_sectors * BLK_SECTOR;
    if (range.num_sectors > BLK_DISCARD_SECTORS || !on_disk(file, range.sector, bytes))
        return VIRTIO_BLK_S_IOERR;
    if (bytes == 0)
        return VIRTIO_BLK_S_OK;
    bool punch = discard || (!file->is_device && (range.flags & known));
    int cleared = clear_range(file, punch, range.sector * BLK_SECTOR, bytes);
    int number = errno;
    atomic_fetch_add(&file->changes, 1);
    if (cleared == 0 || discard)
        return VIRTIO_BLK_S_OK;
    return number == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static uint8_t handle_get_id(const struct blk_file *file, struct guest_memory *memory,
                             const struct virtqueue_chain *chain)
{
    const struct iovec *iov = chain->iov + chain->readable;
    uint64_t room = chain->writable_bytes - 1;
    size_t size = room < sizeof file->serial ? (size_t)room : sizeof file->serial;
    (void)iov_write(memory, iov, chain->writable, 0, file->serial, size);
    return VIRTIO_BLK_S_OK;
}

static uint8_t dispatch(struct blk_file *file, struct guest_memory *memory,
                        const struct virtqueue_chain *chain, const struct virtio_blk_outhdr *header)
{
    switch (header->type) {
    case VIRTIO_BLK_T_IN:
        return handle_read(file, memory, chain, header->sector);
    case VIRTIO_BLK_T_OUT:
        return handle_write(file, chain, header->sector);
    case VIRTIO_BLK_T_FLUSH:
        /* Covers what was completed before; requests still in flight may miss it (§5.2.6.2). */
        return file->read_only || blk_file_flush(file) == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        return handle_range(file, chain, header->type);
    case VIRTIO_BLK_T_GET_ID:
        return handle_get_id(file, memory, chain);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

static bool read_header(const struct virtqueue_chain *chain, struct virtio_blk_outhdr *header)
{
    return iov_read(chain->iov, chain->readable, 0, header, sizeof *header) == sizeof *header &&
           chain->writable_bytes > 0;
}

static void finish(struct guest_memory *memory, const struct virtqueue_chain *chain, uint8_t status,
                   uint32_t *written)
{
    (void)iov_write(memory, chain->iov + chain->readable, chain->writable,
                    chain->writable_bytes - 1, &status, sizeof status);
    /* Promised bytes begin at the front, so a failure, whose status comes last, promises none. */
    *written = status == VIRTIO_BLK_S_OK ? (uint32_t)chain->writable_bytes : 0;
}

bool blk_handle(struct blk_file *file, struct guest_memory *memory,
                const struct virtqueue_chain *chain, uint32_t *written)
{
    struct virtio_blk_outhdr header;
    *written = 0;
    if (!read_header(chain, &header))
        return false;
    finish(memory, chain, dispatch(file, memory, chain, &header), written);
    return true;
}

bool blk_handle_cached(struct blk_file *file, struct guest_memory *memory,
                       const struct virtqueue_chain *chain, uint32_t *written)
{
    struct virtio_blk_outhdr header;
    struct iovec data[VIRTQUEUE_SIZE_MAX];
    if (file->direct || atomic_load(&file->no_nowait) || !read_header(chain, &header) ||
        header.type != VIRTIO_BLK_T_IN)
        return false;
    uint64_t bytes = chain->writable_bytes - 1;
    if (!on_disk(file, header.sector, bytes))
        return false;
    int segments = (int)iov_slice(chain->iov + chain->readable, chain->writable, 0, bytes, data);
    ssize_t got =
        preadv2(file->fd, data, segments, (off_t)(header.sector * BLK_SECTOR), RWF_NOWAIT);
    if (got != (ssize_t)bytes) {
        if (got < 0 && errno == EOPNOTSUPP)
            atomic_store(&file->no_nowait, true);
        return false; /* what was read is read again, and marked dirty then */
    }
    atomic_fetch_add(&file->read_bytes, bytes);
    finish(memory, chain, VIRTIO_BLK_S_OK, written);
    return true;
}
