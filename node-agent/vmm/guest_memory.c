#include "node-agent/vmm/guest_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/layout.h"

static size_t dirty_words(const struct guest_memory *memory)
{
    return (size_t)((memory->size / LAYOUT_PAGE_SIZE + 63) / 64);
}

int guest_memory_create(struct guest_memory *memory, uint64_t size, bool huge, struct error *err)
{
    *memory = (struct guest_memory){.memfd = -1};
    if (size == 0 || size % LAYOUT_PAGE_SIZE != 0 || size > SIZE_MAX / 2)
        return error_set(err, ERROR_USAGE, "guest RAM of %llu bytes is not a multiple of 4 KiB",
                         (unsigned long long)size);
    auto_fd int fd = memfd_create("guest-ram", MFD_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "memfd_create for guest RAM");
    if (ftruncate(fd, (off_t)size) < 0)
        return error_errno(err, errno, "cannot size guest RAM to %llu MiB",
                           (unsigned long long)(size >> 20));
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (base == MAP_FAILED)
        return error_errno(err, errno, "cannot map guest RAM of %llu MiB",
                           (unsigned long long)(size >> 20));
    /* Both are wishes: a kernel without them still runs the guest. RAM in a core dump of the VMM
     * would hand the guest's secrets to whoever reads it. */
    (void)madvise(base, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    (void)madvise(base, size, MADV_DONTDUMP);
    memory->base = base;
    memory->size = size;
    /* calloc of this size is untouched zero pages: it costs memory only where bits get set. */
    memory->own_dirty = calloc(dirty_words(memory), sizeof *memory->own_dirty);
    if (!memory->own_dirty) {
        (void)munmap(base, size);
        *memory = (struct guest_memory){.memfd = -1};
        return error_errno(err, ENOMEM, "dirty bitmap of guest RAM");
    }
    memory->memfd = take_fd(&fd);
    return 0;
}

void guest_memory_wish_huge(const struct guest_memory *memory, bool huge)
{
    (void)madvise(memory->base, memory->size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void guest_memory_destroy(struct guest_memory *memory)
{
    if (memory->base)
        (void)munmap(memory->base, memory->size);
    free(memory->own_dirty);
    close_fd(&memory->memfd);
    *memory = (struct guest_memory){.memfd = -1};
}

uint64_t guest_memory_low_size(const struct guest_memory *memory)
{
    return memory->size < LAYOUT_LOW_RAM_MAX ? memory->size : LAYOUT_LOW_RAM_MAX;
}

uint64_t guest_memory_high_size(const struct guest_memory *memory)
{
    return memory->size - guest_memory_low_size(memory);
}

/* Finds the RAM offset of [@gpa, @gpa + @length); false unless the range is RAM in one piece. */
static bool find_offset(const struct guest_memory *memory, uint64_t gpa, uint64_t length,
                        uint64_t *offset)
{
    uint64_t start = 0;
    uint64_t size = guest_memory_low_size(memory);
    uint64_t first_offset = 0;
    if (gpa >= LAYOUT_HIGH_RAM_START) {
        start = LAYOUT_HIGH_RAM_START;
        size = guest_memory_high_size(memory);
        first_offset = LAYOUT_LOW_RAM_MAX;
    }
    if (gpa - start >= size || length > size - (gpa - start))
        return false;
    *offset = first_offset + (gpa - start);
    return true;
}

void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t length)
{
    uint64_t offset = 0;
    return find_offset(memory, gpa, length, &offset) ? memory->base + offset : NULL;
}

int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t length)
{
    const void *from = guest_memory_at(memory, gpa, length);
    if (!from)
        return -1;
    memcpy(to, from, length);
    return 0;
}

int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *from, size_t length)
{
    void *to = guest_memory_at(memory, gpa, length);
    if (!to)
        return -1;
    memcpy(to, from, length);
    guest_memory_mark_dirty(memory, gpa, length);
    return 0;
}

void guest_memory_mark_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t length)
{
    uint64_t offset = 0;
    if (length == 0 || !find_offset(memory, gpa, length, &offset))
        return;
    uint64_t last = (offset + length - 1) / LAYOUT_PAGE_SIZE;
    for (uint64_t page = offset / LAYOUT_PAGE_SIZE; page <= last; page++) {
        _Atomic uint64_t *word = &memory->own_dirty[page / 64];
        uint64_t bit = 1ull << (page % 64);
        /* The plain look first spares the bus lock where a ring's page is marked over and over. It
         * must not be reordered before the write being reported, or a concurrent take could clear
         * the bit in between and lose the page; the fence forbids that. */
        atomic_thread_fence(memory_order_seq_cst);
        if (!(atomic_load_explicit(word, memory_order_relaxed) & bit))
            atomic_fetch_or(word, bit);
    }
}

void guest_memory_forget_own_dirty(struct guest_memory *memory)
{
    for (size_t i = 0; i < dirty_words(memory); i++)
        atomic_store(&memory->own_dirty[i], 0);
}

void guest_memory_take_own_dirty(struct guest_memory *memory, uint64_t *bitmap)
{
    for (size_t i = 0; i < dirty_words(memory); i++)
        if (atomic_load_explicit(&memory->own_dirty[i], memory_order_relaxed) != 0)
            bitmap[i] |= atomic_exchange(&memory->own_dirty[i], 0);
}
