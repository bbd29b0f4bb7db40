#include "node-agent/vmm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "node-agent/vmm/layout.h"

#define HUGE_PAGE_BYTES (2ull << 20)

static size_t dirty_words(const struct guest_memory *memory)
{
    return (size_t)((memory->size / LAYOUT_PAGE_SIZE + 63) / 64);
}

/* Anonymous memory of this process, in bytes; 0 where it cannot be read. */
static uint64_t anonymous_bytes(void)
{
    char line[256];
    auto_file FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long kib = 0;
        if (sscanf(line, "RssAnon: %llu", &kib) == 1)
            return kib << 10;
    }
    return 0;
}

/* Reserves @size bytes at a multiple of a huge page: a guest's huge page can then be one of ours.
 */
static int map_aligned(struct guest_memory *memory, uint64_t size, struct error *err)
{
    uint64_t mapped = size + HUGE_PAGE_BYTES;
    void *mapping = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return error_errno(err, errno, "cannot map guest RAM of %llu MiB",
                           (unsigned long long)(size >> 20));
    uintptr_t skip = -(uintptr_t)mapping % HUGE_PAGE_BYTES;
    memory->mapping = mapping;
    memory->mapped = mapped;
    memory->base = (uint8_t *)mapping + skip;
    memory->size = size;
    return 0;
}

int guest_memory_create(struct guest_memory *memory, uint64_t size, bool huge, struct error *err)
{
    *memory = (struct guest_memory){.pagemap_fd = -1, .others_bytes = anonymous_bytes()};
    if (size == 0 || size % LAYOUT_PAGE_SIZE != 0 || size > SIZE_MAX / 2)
        return error_set(err, ERROR_USAGE, "guest RAM of %llu bytes is not a multiple of 4 KiB",
                         (unsigned long long)size);
    if (map_aligned(memory, size, err) < 0)
        return -1;
    /* All are wishes: a kernel without them still runs the guest. RAM in a core dump of the VMM
     * would hand the guest's secrets to whoever reads it; a child has no business there. */
    guest_memory_wish_huge(memory, huge);
    (void)madvise(memory->mapping, memory->mapped, MADV_DONTDUMP);
    (void)madvise(memory->mapping, memory->mapped, MADV_DONTFORK);
    /* calloc of this size is untouched zero pages: it costs memory only where bits get set. */
    memory->own_dirty = calloc(dirty_words(memory), sizeof *memory->own_dirty);
    if (!memory->own_dirty) {
        guest_memory_destroy(memory);
        return error_errno(err, ENOMEM, "dirty bitmap of guest RAM");
    }
    /* Now, while we may still read our own /proc. Without it all of RAM counts as touched. */
    memory->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return 0;
}

void guest_memory_wish_huge(const struct guest_memory *memory, bool huge)
{
    (void)madvise(memory->base, memory->size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void guest_memory_destroy(struct guest_memory *memory)
{
    if (memory->mapping)
        (void)munmap(memory->mapping, memory->mapped);
    free(memory->own_dirty);
    close_fd(&memory->pagemap_fd);
    *memory = (struct guest_memory){.pagemap_fd = -1};
}

uint64_t guest_memory_resident(const struct guest_memory *memory)
{
    uint64_t all = anonymous_bytes();
    uint64_t bytes = all > memory->others_bytes ? all - memory->others_bytes : 0;
    return bytes < memory->size ? bytes : memory->size;
}

int guest_memory_drop(struct guest_memory *memory, uint64_t gpa, uint64_t length)
{
    uint8_t *host = guest_memory_at(memory, gpa, length);
    if (!host || length == 0)
        return 0;
    if (madvise(host, length, MADV_DONTNEED) < 0)
        return -1;
    guest_memory_mark_dirty(memory, gpa, length);
    return 0;
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
