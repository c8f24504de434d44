/* See map.h. */
#include "base/map.h"

#include <string.h>

#include "base/assert.h"
#include "base/checksum.h"

#define CAPACITY_MIN 16

void esc_map_init(esc_map *map, esc_map_key key, const escqrs_random *random)
{
    *map = (esc_map){.key = key};
    escqrs_random_fill(random, &map->seed, sizeof map->seed);
}

void esc_map_fini(esc_map *map)
{
    escqrs_free(map->entries);
    map->entries = NULL;
    map->capacity = 0;
    map->count = 0;
}

void esc_map_clear(esc_map *map)
{
    if (map->count > 0) {
        memset(map->entries, 0, map->capacity * sizeof *map->entries);
        map->count = 0;
    }
}

/* How many entries a table of that many slots takes. */
static size_t load_max(size_t capacity)
{
    return capacity / 4 * 3;
}

/* The slot where an absent entry of that hash goes. The table has a free slot. */
static size_t free_slot(const esc_map_entry *entries, size_t capacity, uint64_t hash)
{
    size_t slot = (size_t)hash & (capacity - 1);
    while (entries[slot].value != NULL) {
        slot = (slot + 1) & (capacity - 1);
    }
    return slot;
}

static escqrs_status resize(esc_map *map, size_t capacity)
{
    if (capacity > SIZE_MAX / sizeof *map->entries) {
        return ESCQRS_NO_MEMORY;
    }
    esc_map_entry *entries = escqrs_alloc_zero(capacity * sizeof *entries);
    if (entries == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    for (size_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].value != NULL) {
            entries[free_slot(entries, capacity, map->entries[i].hash)] = map->entries[i];
        }
    }
    escqrs_free(map->entries);
    map->entries = entries;
    map->capacity = capacity;
    return ESCQRS_OK;
}

escqrs_status esc_map_reserve(esc_map *map, size_t count)
{
    size_t capacity = map->capacity == 0 ? CAPACITY_MIN : map->capacity;
    while (load_max(capacity) < count) {
        if (capacity > SIZE_MAX / 2) {
            return ESCQRS_NO_MEMORY;
        }
        capacity *= 2;
    }
    return capacity == map->capacity ? ESCQRS_OK : resize(map, capacity);
}

/* The slot that holds the key, or SIZE_MAX. */
static size_t find(const esc_map *map, escqrs_slice key, uint64_t hash)
{
    if (map->count == 0) {
        return SIZE_MAX;
    }
    size_t mask = map->capacity - 1;
    for (size_t slot = (size_t)hash & mask;; slot = (slot + 1) & mask) {
        const esc_map_entry *entry = &map->entries[slot];
        if (entry->value == NULL) {
            return SIZE_MAX;
        }
        if (entry->hash == hash && escqrs_slice_equal(map->key(entry->value), key)) {
            return slot;
        }
    }
}

void *esc_map_get(const esc_map *map, escqrs_slice key)
{
    size_t slot = find(map, key, esc_hash(key, map->seed));
    return slot == SIZE_MAX ? NULL : map->entries[slot].value;
}

escqrs_status esc_map_insert(esc_map *map, void *value)
{
    ESC_ASSERT(value != NULL);
    escqrs_slice key = map->key(value);
    uint64_t hash = esc_hash(key, map->seed);
    if (find(map, key, hash) != SIZE_MAX) {
        return ESCQRS_NAME_EXISTS;
    }
    escqrs_status status = esc_map_reserve(map, map->count + 1);
    if (status != ESCQRS_OK) {
        return status;
    }
    map->entries[free_slot(map->entries, map->capacity, hash)] = (esc_map_entry){value, hash};
    map->count++;
    return ESCQRS_OK;
}

void *esc_map_remove(esc_map *map, escqrs_slice key)
{
    size_t hole = find(map, key, esc_hash(key, map->seed));
    if (hole == SIZE_MAX) {
        return NULL;
    }
    void *value = map->entries[hole].value;
    size_t mask = map->capacity - 1;
    /* Whoever stands behind the hole and could not be found over it moves into it. */
    for (size_t slot = (hole + 1) & mask; map->entries[slot].value != NULL;
         slot = (slot + 1) & mask) {
        size_t home = (size_t)map->entries[slot].hash & mask;
        if (((slot - home) & mask) >= ((slot - hole) & mask)) {
            map->entries[hole] = map->entries[slot];
            hole = slot;
        }
    }
    map->entries[hole] = (esc_map_entry){0};
    map->count--;
    return value;
}

void *esc_map_next(const esc_map *map, size_t *cursor)
{
    while (*cursor < map->capacity) {
        void *value = map->entries[(*cursor)++].value;
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}
