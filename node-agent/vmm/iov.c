#include <string.h>

#include "node-agent/vmm/layout.h"
#include "node-agent/vmm/virtqueue.h"

/* Steps through the segments: sets @at to the piece of [*offset, *offset + *size) that lies in
 * @segment and shortens the range by it. False where none does. */
static bool next_piece(const struct iovec *segment, size_t *offset, size_t *size, struct iovec *at)
{
    if (*offset >= segment->iov_len) {
        *offset -= segment->iov_len;
        return false;
    }
    size_t length = segment->iov_len - *offset;
    if (length > *size)
        length = *size;
    *at = (struct iovec){.iov_base = (uint8_t *)segment->iov_base + *offset, .iov_len = length};
    *offset = 0;
    *size -= length;
    return true;
}

static void mark(struct guest_memory *memory, const struct iovec *piece)
{
    uint64_t offset = (uint64_t)((const uint8_t *)piece->iov_base - memory->base);
    uint64_t gpa =
        offset < LAYOUT_LOW_RAM_MAX ? offset : offset - LAYOUT_LOW_RAM_MAX + LAYOUT_HIGH_RAM_START;
    guest_memory_mark_dirty(memory, gpa, piece->iov_len);
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t size)
{
    size_t left = size;
    uint8_t *out = to;
    for (unsigned i = 0; i < count && left > 0; i++) {
        struct iovec piece;
        if (!next_piece(&iov[i], &offset, &left, &piece))
            continue;
        memcpy(out, piece.iov_base, piece.iov_len);
        out += piece.iov_len;
    }
    return size - left;
}

unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t size,
                   struct iovec *part)
{
    unsigned used = 0;
    for (unsigned i = 0; i < count && size > 0; i++)
        if (next_piece(&iov[i], &offset, &size, &part[used]))
            used++;
    return used;
}

void iov_mark_dirty(struct guest_memory *memory, const struct iovec *iov, unsigned count,
                    size_t offset, size_t size)
{
    for (unsigned i = 0; i < count && size > 0; i++) {
        struct iovec piece;
        if (next_piece(&iov[i], &offset, &size, &piece))
            mark(memory, &piece);
    }
}

size_t iov_write(struct guest_memory *memory, const struct iovec *iov, unsigned count,
                 size_t offset, const void *from, size_t size)
{
    size_t left = size;
    const uint8_t *in = from;
    for (unsigned i = 0; i < count && left > 0; i++) {
        struct iovec piece;
        if (!next_piece(&iov[i], &offset, &left, &piece))
            continue;
        memcpy(piece.iov_base, in, piece.iov_len);
        in += piece.iov_len;
        mark(memory, &piece);
    }
    return size - left;
}
