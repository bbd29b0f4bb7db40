/*
 * guest_memory.h: the guest's RAM, and the VMM's own record of what it wrote there.
 *
 * RAM is one anonymous mapping; KVM sees it as one or two slots (layout.h). It is anonymous and not
 * a memfd because only there huge pages come without the administrator's doing: what a page of 4
 * KiB costs when it is first touched, a thousand of them cost (docs/migration.md has figures).
 * What was never touched is found by the process's pagemap (kernel,
 * Documentation/admin-guide/mm/pagemap.rst). Whatever the VMM itself
 * writes (rings, read buffers, completions) KVM's dirty log does not show, so each writer calls
 * guest_memory_mark_dirty(). The guest owns the contents and may change them at any time: copy,
 * then check, then use the copy.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct guest_memory {
    uint8_t *base;   /* of the mapping; RAM offset 0 */
    uint64_t size;   /* bytes, a multiple of 2 MiB is not required, of 4 KiB is */
    uint64_t mapped; /* bytes from @mapping on, a piece more than @size so that @base is aligned */
    void *mapping;
    int pagemap_fd;
    uint64_t others_bytes;       /* of anonymous memory this process had before the guest's RAM */
    _Atomic uint64_t *own_dirty; /* one bit a page of RAM offset, set by mark_dirty */
};

/* Creates and maps RAM of @size bytes. @huge asks for transparent huge pages. */
int guest_memory_create(struct guest_memory *memory, uint64_t size, bool huge, struct error *err);
/* Asks for transparent huge pages from now on, or for none. A wish, as in create. */
void guest_memory_wish_huge(const struct guest_memory *memory, bool huge);
void guest_memory_destroy(struct guest_memory *memory);

/* Bytes of RAM that have memory of the host: within the little that the VMM itself has grown. */
uint64_t guest_memory_resident(const struct guest_memory *memory);
/* Gives [@gpa, @gpa + @length) back to the host, whole pages: it is zeros when next touched. Marks
 * it dirty. 0, or -1 with errno set; ranges outside RAM are ignored. */
int guest_memory_drop(struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* Bytes of RAM below the PCI window, and above 4 GiB. */
uint64_t guest_memory_low_size(const struct guest_memory *memory);
uint64_t guest_memory_high_size(const struct guest_memory *memory);

/* The host address of [@gpa, @gpa + @length), or NULL unless all of it is RAM and in one piece. */
void *guest_memory_at(const struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* Copies out of and into the guest; -1 where the range is not RAM. write marks dirty. */
int guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *to, size_t length);
int guest_memory_write(struct guest_memory *memory, uint64_t gpa, const void *from, size_t length);

/* Records that [@gpa, @gpa + @length) was written by the VMM, after the write. Any thread. Ranges
 * outside RAM are ignored: they were refused when the address was looked up. */
void guest_memory_mark_dirty(struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* Forgets the pages marked so far. A page marked meanwhile may be forgotten, too: it was written
 * before it was marked, so who reads RAM only afterwards has it. */
void guest_memory_forget_own_dirty(struct guest_memory *memory);
/* ORs the pages marked since the last take into @bitmap (one bit a page of RAM offset) and forgets
 * them. A page marked meanwhile is in this take or in the next. */
void guest_memory_take_own_dirty(struct guest_memory *memory, uint64_t *bitmap);
