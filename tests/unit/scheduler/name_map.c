#include "common/name_map.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define NAMES 3000

/* Adds and removes in an order that mixes long probe sequences with holes. */
Test(name_map, finds_what_is_in_and_nothing_else)
{
    static char names[NAMES][16];
    static bool present[NAMES];
    struct error err = ERROR_INIT;
    struct name_map map = {0};
    unsigned random = 1;
    for (unsigned i = 0; i < NAMES; i++)
        (void)snprintf(names[i], sizeof names[i], "vm-%u", i);
    for (unsigned round = 0; round < 40000; round++) {
        random = random * 1664525 + 1013904223;
        unsigned i = (random >> 8) % NAMES;
        if (present[i])
            name_map_remove(&map, names[i]);
        else
            cr_assert_eq(name_map_add(&map, names[i], names[i], &err), 0);
        present[i] = !present[i];
    }
    size_t count = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        count += present[i];
        cr_assert_eq(name_map_get(&map, names[i]), present[i] ? names[i] : NULL);
    }
    cr_assert_eq(map.count, count);
    name_map_remove(&map, "never added");
    cr_assert_eq(map.count, count);
    name_map_free(&map);
}
