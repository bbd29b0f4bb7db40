/* name_map.h: which object carries a name. Open addressing with linear probing; the keys belong to
 * the objects and must live and stay unchanged while they are in the map. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

struct name_slot {
    const char *name; /* NULL: free */
    void *object;
    uint64_t hash;
};

struct name_map {
    struct name_slot *slots; /* a power of two of them, at most three quarters taken */
    size_t capacity;
    size_t count;
};

void name_map_free(struct name_map *map);
/* The object called @name, or NULL. */
void *name_map_get(const struct name_map *map, const char *name);
/* Adds a name that is not there yet. */
int name_map_add(struct name_map *map, const char *name, void *object, struct error *err);
/* Takes a name out; an unknown one is fine. */
void name_map_remove(struct name_map *map, const char *name);
/* The hash the map uses; the same in every process. */
uint64_t name_map_hash(const char *name);
