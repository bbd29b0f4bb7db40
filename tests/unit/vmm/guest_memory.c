#include "node-agent/vmm/guest_memory.h"

#include <criterion/criterion.h>
#include <string.h>

#include "node-agent/vmm/layout.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

Test(guest_memory, addresses_below_and_above_the_hole)
{
    struct error err = ERROR_INIT;
    struct guest_memory memory;
    cr_assert_eq(guest_memory_create(&memory, 3 * GIB + 16 * MIB, false, &err), 0);
    cr_assert_eq(guest_memory_low_size(&memory), 3 * GIB);
    cr_assert_eq(guest_memory_high_size(&memory), 16 * MIB);
    cr_expect_eq(guest_memory_at(&memory, 0, 1), memory.base);
    cr_expect_eq(guest_memory_at(&memory, 3 * GIB - 1, 1), memory.base + 3 * GIB - 1);
    cr_expect_eq(guest_memory_at(&memory, 4 * GIB, 16 * MIB), memory.base + 3 * GIB);
    const uint64_t bad[][2] = {
        {3 * GIB - 1, 2},        {3 * GIB, 1},        {4 * GIB - 1, 2}, {4 * GIB + 16 * MIB, 1},
        {4 * GIB, 16 * MIB + 1}, {UINT64_MAX, 1},     {1, UINT64_MAX},  {4 * GIB, UINT64_MAX},
        {0, 3 * GIB + 1},        {UINT64_MAX - 1, 4},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_null(guest_memory_at(&memory, bad[i][0], bad[i][1]), "0x%lx+0x%lx", bad[i][0],
                       bad[i][1]);
    guest_memory_destroy(&memory);
}

Test(guest_memory, small_machines_have_no_high_part)
{
    struct error err = ERROR_INIT;
    struct guest_memory memory;
    cr_assert_eq(guest_memory_create(&memory, 64 * MIB, true, &err), 0);
    cr_expect_eq(guest_memory_high_size(&memory), 0);
    cr_expect_null(guest_memory_at(&memory, 4 * GIB, 0));
    cr_expect_null(guest_memory_at(&memory, 64 * MIB, 1));
    guest_memory_destroy(&memory);
}

Test(guest_memory, sizes_are_checked)
{
    struct error err = ERROR_INIT;
    struct guest_memory memory;
    cr_expect_eq(guest_memory_create(&memory, 0, false, &err), -1);
    cr_expect_eq(guest_memory_create(&memory, 4097, false, &err), -1);
    cr_expect_eq(err.kind, ERROR_USAGE);
    cr_expect_eq(guest_memory_create(&memory, UINT64_MAX - 4095, false, &err), -1);
    guest_memory_destroy(&memory);
}

Test(guest_memory, writes_of_our_own_are_recorded_once)
{
    struct error err = ERROR_INIT;
    struct guest_memory memory;
    cr_assert_eq(guest_memory_create(&memory, 3 * GIB + 16 * MIB, false, &err), 0);
    size_t words = (size_t)(memory.size / 4096 / 64);
    uint64_t *bitmap = calloc(words, 8);

    cr_assert_eq(guest_memory_write(&memory, 4095, "ab", 2), 0);
    cr_assert_eq(guest_memory_write(&memory, 4 * GIB + 4096, "c", 1), 0);
    char back[2];
    cr_assert_eq(guest_memory_read(&memory, 4095, back, 2), 0);
    cr_assert_arr_eq(back, "ab", 2);
    guest_memory_mark_dirty(&memory, 3 * GIB, 10); /* the hole: ignored */
    guest_memory_mark_dirty(&memory, 8192, 0);     /* nothing was written */
    guest_memory_take_own_dirty(&memory, bitmap);
    cr_expect_eq(bitmap[0], 3);
    uint64_t high_page = 3 * GIB / 4096 + 1;
    cr_expect_eq(bitmap[high_page / 64], 1ull << (high_page % 64));

    memset(bitmap, 0, words * 8);
    guest_memory_take_own_dirty(&memory, bitmap);
    for (size_t i = 0; i < words; i++)
        cr_assert_eq(bitmap[i], 0);
    cr_expect_eq(guest_memory_write(&memory, 3 * GIB, "x", 1), -1);
    free(bitmap);
    guest_memory_destroy(&memory);
}
