#include "node-agent/vmm/virtqueue.h"

#include <criterion/criterion.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"

#define RAM_BYTES (4u << 20)
#define SIZE      8u
#define TABLE     0x1000u
#define AVAIL     0x2000u
#define USED      0x3000u
#define INDIRECT  0x4000u
#define BUFFER    0x10000u

/* A queue over RAM of its own, driven by hand. */
struct ring {
    struct guest_memory memory;
    struct virtqueue queue;
    struct vring_desc *table;
    struct vring_avail *avail;
    struct vring_used *used;
    struct iovec iov[VIRTQUEUE_SIZE_MAX];
    struct virtqueue_chain chain;
};

static struct ring *ring_new(void)
{
    struct error err = ERROR_INIT;
    struct ring *ring = calloc(1, sizeof *ring);
    cr_assert_eq(guest_memory_create(&ring->memory, RAM_BYTES, false, &err), 0);
    ring->queue = (struct virtqueue){
        .memory = &ring->memory,
        .size = SIZE,
        .descriptors = TABLE,
        .driver_area = AVAIL,
        .device_area = USED,
        .indirect = true,
        .event_index = true,
    };
    cr_assert(virtqueue_start(&ring->queue));
    ring->table = (struct vring_desc *)(ring->memory.base + TABLE);
    ring->avail = (struct vring_avail *)(ring->memory.base + AVAIL);
    ring->used = (struct vring_used *)(ring->memory.base + USED);
    ring->chain = (struct virtqueue_chain){.iov = ring->iov, .capacity = VIRTQUEUE_SIZE_MAX};
    return ring;
}

static void ring_free(struct ring *ring)
{
    guest_memory_destroy(&ring->memory);
    free(ring);
}

static void put(struct vring_desc *table, unsigned at, uint64_t address, uint32_t length,
                uint16_t flags, uint16_t next)
{
    table[at] = (struct vring_desc){.addr = address, .len = length, .flags = flags, .next = next};
}

static void offer(struct ring *ring, uint16_t head)
{
    ring->avail->ring[ring->avail->idx % SIZE] = head;
    ring->avail->idx++;
}

static bool is_dirty(const struct guest_memory *memory, uint64_t gpa)
{
    return memory->own_dirty[gpa / 4096 / 64] & (1ull << (gpa / 4096 % 64));
}

static void clear_dirty(struct guest_memory *memory)
{
    for (unsigned i = 0; i < RAM_BYTES / 4096 / 64; i++)
        memory->own_dirty[i] = 0;
}

Test(virtqueue, a_chain_comes_with_its_segments_in_order)
{
    struct ring *ring = ring_new();
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 0);
    put(ring->table, 0, BUFFER, 16, VRING_DESC_F_NEXT, 5);
    put(ring->table, 5, BUFFER + 0x1000, 0, VRING_DESC_F_NEXT, 3); /* empty: left out */
    put(ring->table, 3, BUFFER + 0x2000, 512, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    put(ring->table, 1, BUFFER + 0x3000, 1, VRING_DESC_F_WRITE, 0);
    offer(ring, 0);
    cr_assert(virtqueue_has_chain(&ring->queue));
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
    cr_assert_eq(ring->chain.head, 0);
    cr_assert_eq(ring->chain.readable, 1);
    cr_assert_eq(ring->chain.writable, 2);
    cr_assert_eq(ring->chain.readable_bytes, 16);
    cr_assert_eq(ring->chain.writable_bytes, 513);
    cr_assert_eq(ring->iov[1].iov_base, ring->memory.base + BUFFER + 0x2000);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 0);
    ring_free(ring);
}

Test(virtqueue, push_marks_what_was_written_and_publish_the_ring)
{
    struct ring *ring = ring_new();
    put(ring->table, 2, BUFFER, 0x3000, VRING_DESC_F_WRITE, 0);
    offer(ring, 2);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
    clear_dirty(&ring->memory);
    virtqueue_push(&ring->queue, &ring->chain, 0x1001);
    cr_assert_eq(ring->used->idx, 0, "not published yet");
    cr_assert(is_dirty(&ring->memory, BUFFER));
    cr_assert(is_dirty(&ring->memory, BUFFER + 0x1000));
    cr_assert_not(is_dirty(&ring->memory, BUFFER + 0x2000));
    cr_assert(is_dirty(&ring->memory, USED));
    cr_assert(virtqueue_publish(&ring->queue), "the first time an interrupt is always due");
    cr_assert_eq(ring->used->idx, 1);
    cr_assert_eq(ring->used->ring[0].id, 2);
    cr_assert_eq(ring->used->ring[0].len, 0x1001);
    cr_assert_not(virtqueue_publish(&ring->queue), "nothing new");
    ring_free(ring);
}

/* Serves @count chains and says whether the last one asked for an interrupt. */
static bool serve(struct ring *ring, unsigned count)
{
    bool wanted = false;
    for (unsigned i = 0; i < count; i++) {
        offer(ring, 0);
        cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
        virtqueue_push(&ring->queue, &ring->chain, 0);
        wanted = virtqueue_publish(&ring->queue);
    }
    return wanted;
}

Test(virtqueue, event_index_says_when_to_interrupt)
{
    struct ring *ring = ring_new();
    put(ring->table, 0, BUFFER, 1, 0, 0);
    uint16_t *used_event = &ring->avail->ring[SIZE];
    cr_assert(serve(ring, 1));
    *used_event = 3;
    cr_assert_not(serve(ring, 1));
    cr_assert_not(serve(ring, 1));
    cr_assert(serve(ring, 1), "element 3 is used now");
    cr_assert_not(serve(ring, 1));
    ring_free(ring);
}

Test(virtqueue, indices_wrap)
{
    struct ring *ring = ring_new();
    ring->queue.last_avail = ring->queue.used = 0xfffe;
    cr_assert(virtqueue_start(&ring->queue));
    ring->avail->idx = 0xfffe;
    put(ring->table, 0, BUFFER, 1, 0, 0);
    (void)serve(ring, 5);
    cr_assert_eq(ring->used->idx, 3);
    ring_free(ring);
}

Test(virtqueue, without_event_index_flags_rule)
{
    struct ring *ring = ring_new();
    ring->queue.event_index = false;
    put(ring->table, 0, BUFFER, 1, 0, 0);
    cr_assert(serve(ring, 1));
    ring->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    cr_assert_not(serve(ring, 1));
    virtqueue_suppress_kicks(&ring->queue);
    cr_assert_eq(ring->used->flags, VRING_USED_F_NO_NOTIFY);
    cr_assert_not(virtqueue_await_kick(&ring->queue));
    cr_assert_eq(ring->used->flags, 0);
    ring_free(ring);
}

Test(virtqueue, waiting_for_a_kick_sees_what_came_meanwhile)
{
    struct ring *ring = ring_new();
    put(ring->table, 0, BUFFER, 1, 0, 0);
    cr_assert_not(virtqueue_await_kick(&ring->queue));
    (void)serve(ring, 2);
    offer(ring, 0);
    cr_assert(virtqueue_await_kick(&ring->queue));
    const uint16_t *avail_event = (const uint16_t *)&ring->used->ring[SIZE];
    cr_assert_eq(*avail_event, 2);
    ring_free(ring);
}

Test(virtqueue, unpop_gives_a_chain_back)
{
    struct ring *ring = ring_new();
    put(ring->table, 4, BUFFER, 1, 0, 0);
    offer(ring, 4);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
    virtqueue_unpop(&ring->queue, 1);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
    cr_assert_eq(ring->chain.head, 4);
    ring_free(ring);
}

Test(virtqueue, an_indirect_table_may_end_a_chain)
{
    struct ring *ring = ring_new();
    struct vring_desc *indirect = (struct vring_desc *)(ring->memory.base + INDIRECT);
    put(indirect, 0, BUFFER + 0x1000, 8, VRING_DESC_F_NEXT, 2);
    put(indirect, 2, BUFFER + 0x2000, 8, VRING_DESC_F_WRITE, 0);
    put(ring->table, 0, BUFFER, 16, VRING_DESC_F_NEXT, 1);
    put(ring->table, 1, INDIRECT, 48, VRING_DESC_F_INDIRECT, 0);
    offer(ring, 0);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), 1);
    cr_assert_eq(ring->chain.readable, 2);
    cr_assert_eq(ring->chain.writable, 1);
    ring_free(ring);
}

/* What the guest may do to us: each breaks the queue for good and nothing else. */
static void expect_broken(struct ring *ring)
{
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), -1);
    cr_assert_not_null(ring->queue.fault);
    cr_assert_eq(virtqueue_pop(&ring->queue, &ring->chain), -1);
    ring_free(ring);
}

Test(virtqueue, a_loop_breaks_it)
{
    struct ring *ring = ring_new();
    put(ring->table, 0, BUFFER, 1, VRING_DESC_F_NEXT, 1);
    put(ring->table, 1, BUFFER, 1, VRING_DESC_F_NEXT, 0);
    offer(ring, 0);
    expect_broken(ring);
}

Test(virtqueue, a_loop_of_empty_segments_breaks_it)
{
    struct ring *ring = ring_new();
    put(ring->table, 0, BUFFER, 0, VRING_DESC_F_NEXT, 0);
    offer(ring, 0);
    expect_broken(ring);
}

Test(virtqueue, an_address_outside_ram_breaks_it)
{
    const uint64_t addresses[] = {RAM_BYTES, RAM_BYTES - 1, UINT64_MAX, UINT64_MAX - 1, 1ull << 32};
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        struct ring *ring = ring_new();
        put(ring->table, 0, addresses[i], 2, 0, 0);
        offer(ring, 0);
        expect_broken(ring);
    }
}

Test(virtqueue, indices_out_of_range_break_it)
{
    struct ring *ring = ring_new();
    offer(ring, SIZE);
    expect_broken(ring);
    ring = ring_new();
    put(ring->table, 0, BUFFER, 1, VRING_DESC_F_NEXT, SIZE);
    offer(ring, 0);
    expect_broken(ring);
    ring = ring_new();
    ring->avail->idx = SIZE + 1;
    expect_broken(ring);
}

Test(virtqueue, readable_after_writable_breaks_it)
{
    struct ring *ring = ring_new();
    put(ring->table, 0, BUFFER, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    put(ring->table, 1, BUFFER, 1, 0, 0);
    offer(ring, 0);
    expect_broken(ring);
}

Test(virtqueue, bad_indirect_tables_break_it)
{
    static const struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags;
    } bad[] = {
        {INDIRECT, 0, VRING_DESC_F_INDIRECT},
        {INDIRECT, 24, VRING_DESC_F_INDIRECT},
        {INDIRECT + 4, 32, VRING_DESC_F_INDIRECT},
        {RAM_BYTES - 16, 32, VRING_DESC_F_INDIRECT},
        {INDIRECT, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT},
        {INDIRECT, 16, VRING_DESC_F_INDIRECT}, /* its entry 0 is indirect itself */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ring *ring = ring_new();
        struct vring_desc *indirect = (struct vring_desc *)(ring->memory.base + INDIRECT);
        put(indirect, 0, INDIRECT, 16, VRING_DESC_F_INDIRECT, 0);
        put(ring->table, 0, bad[i].address, bad[i].length, bad[i].flags, 0);
        offer(ring, 0);
        expect_broken(ring);
    }
}

Test(virtqueue, indirect_without_the_feature_breaks_it)
{
    struct ring *ring = ring_new();
    ring->queue.indirect = false;
    put(ring->table, 0, INDIRECT, 16, VRING_DESC_F_INDIRECT, 0);
    offer(ring, 0);
    expect_broken(ring);
}

Test(virtqueue, bad_rings_do_not_start)
{
    static const struct virtqueue bad[] = {
        {.size = 0, .descriptors = TABLE, .driver_area = AVAIL, .device_area = USED},
        {.size = 3, .descriptors = TABLE, .driver_area = AVAIL, .device_area = USED},
        {.size = 512, .descriptors = TABLE, .driver_area = AVAIL, .device_area = USED},
        {.size = 8, .descriptors = TABLE + 8, .driver_area = AVAIL, .device_area = USED},
        {.size = 8, .descriptors = TABLE, .driver_area = AVAIL + 1, .device_area = USED},
        {.size = 8, .descriptors = TABLE, .driver_area = AVAIL, .device_area = USED + 2},
        {.size = 8, .descriptors = RAM_BYTES - 16, .driver_area = AVAIL, .device_area = USED},
        {.size = 8, .descriptors = TABLE, .driver_area = UINT64_MAX - 1, .device_area = USED},
        {.size = 8, .descriptors = TABLE, .driver_area = AVAIL, .device_area = RAM_BYTES - 8},
    };
    struct ring *ring = ring_new();
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct virtqueue queue = bad[i];
        queue.memory = &ring->memory;
        cr_assert_not(virtqueue_start(&queue), "case %u", i);
        cr_assert_not_null(queue.fault);
        cr_assert_not(queue.ready);
    }
    ring_free(ring);
}

Test(virtqueue, iov_helpers_cut_where_asked)
{
    struct ring *ring = ring_new();
    uint8_t *base = ring->memory.base + BUFFER;
    struct iovec iov[3] = {{base, 3}, {base + 100, 4}, {base + 200, 5}};
    struct iovec part[3];
    char out[16] = {0};
    cr_assert_eq(iov_write(&ring->memory, iov, 3, 2, "abcdefghijklmno", 15), 10);
    cr_assert_eq(iov_read(iov, 3, 2, out, sizeof out), 10);
    cr_assert_str_eq(out, "abcdefghij");
    cr_assert_eq(iov_slice(iov, 3, 3, 5, part), 2);
    cr_assert_eq(part[0].iov_len, 4);
    cr_assert_eq(part[1].iov_len, 1);
    cr_assert_eq(part[1].iov_base, base + 200);
    cr_assert_eq(iov_slice(iov, 3, 12, 5, part), 0);
    ring_free(ring);
}
