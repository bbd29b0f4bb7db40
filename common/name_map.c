/* name_map.c: see name_map.h. Removal shifts followers back, so lookups never meet tombstones. */
#include "common/name_map.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a, folded once more so that the low bits depend on all of them. */
uint64_t name_map_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *at = name; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
    return hash ^ (hash >> 29);
}

/* The slot that holds @name, or the free one where it would go. */
static size_t find_slot(const struct name_map *map, const char *name, uint64_t hash)
{
    size_t mask = map->capacity - 1;
    size_t at = hash & mask;
    while (map->slots[at].name &&
           (map->slots[at].hash != hash || strcmp(map->slots[at].name, name) != 0))
        at = (at + 1) & mask;
    return at;
}

void name_map_free(struct name_map *map)
{
    free(map->slots);
    *map = (struct name_map){0};
}

void *name_map_get(const struct name_map *map, const char *name)
{
    if (map->count == 0)
        return NULL;
    return map->slots[find_slot(map, name, name_map_hash(name))].object;
}

static int grow(struct name_map *map, struct error *err)
{
    struct name_map larger = {.capacity = map->capacity ? map->capacity * 2 : 16};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return error_set(err, ERROR_FAILED, "out of memory for %zu names", larger.capacity);
    for (size_t i = 0; i < map->capacity; i++) {
        const struct name_slot *slot = &map->slots[i];
        if (slot->name)
            larger.slots[find_slot(&larger, slot->name, slot->hash)] = *slot;
    }
    larger.count = map->count;
    free(map->slots);
    *map = larger;
    return 0;
}

int name_map_add(struct name_map *map, const char *name, void *object, struct error *err)
{
    if ((map->count + 1) * 4 > map->capacity * 3 && grow(map, err) < 0)
        return -1;
    uint64_t hash = name_map_hash(name);
    map->slots[find_slot(map, name, hash)] = (struct name_slot){name, object, hash};
    map->count++;
    return 0;
}

void name_map_remove(struct name_map *map, const char *name)
{
    if (map->count == 0)
        return;
    size_t mask = map->capacity - 1;
    size_t hole = find_slot(map, name, name_map_hash(name));
    if (!map->slots[hole].name)
        return;
    map->count--;
    /* A follower may fill the hole unless its home lies behind the hole. */
    for (size_t at = (hole + 1) & mask; map->slots[at].name; at = (at + 1) & mask) {
        size_t home = map->slots[at].hash & mask;
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        map->slots[hole] = map->slots[at];
        hole = at;
    }
    map->slots[hole] = (struct name_slot){0};
}
