/* A hash map from byte strings to pointers, for millions of entries: 16 bytes a slot.
 *
 * The key's bytes are owned by the value; the map asks a function for them. Open addressing with
 * linear probing at a load of at most 3/4, whole 64-bit hashes stored, so growing never touches a
 * value and a lookup compares keys only where 64 bits agree. Removing shifts followers back: no
 * tombstones. Hashes are seeded, so keys from outside cannot be chosen to collide.
 *
 * Not thread-safe: the owner's lock guards it. Nothing blocks. */
#ifndef ESC_BASE_MAP_H
#define ESC_BASE_MAP_H

#include <escqrs/base.h>

/* The key of a value: the same bytes for as long as the value is in the map. */
typedef escqrs_slice (*esc_map_key)(const void *value);

typedef struct esc_map_entry {
    void *value; /* NULL: the slot is free */
    uint64_t hash;
} esc_map_entry;

typedef struct esc_map {
    esc_map_entry *entries; /* NULL while capacity is 0 */
    size_t capacity;        /* a power of two, or 0 */
    size_t count;
    uint64_t seed;
    esc_map_key key;
} esc_map;

/* Allocates nothing. `random` may be NULL. */
void esc_map_init(esc_map *map, esc_map_key key, const escqrs_random *random);
void esc_map_fini(esc_map *map);  /* frees the slots; the values are the caller's */
void esc_map_clear(esc_map *map); /* forgets the values, keeps the slots */

static inline size_t esc_map_count(const esc_map *map)
{
    return map->count;
}

/* Make room for `count` entries altogether, so that inserting cannot fail. NO_MEMORY. */
escqrs_status esc_map_reserve(esc_map *map, size_t count) ESCQRS_MUST_USE;

/* The value of that key, or NULL. */
void *esc_map_get(const esc_map *map, escqrs_slice key);

/* Put a value (not NULL) under its key. NO_MEMORY; NAME_EXISTS if the key is taken (nothing
 * changes). */
escqrs_status esc_map_insert(esc_map *map, void *value) ESCQRS_MUST_USE;

/* Take out and return the value of that key; NULL if there is none. */
void *esc_map_remove(esc_map *map, escqrs_slice key);

/* Each value once in no particular order: begin with *cursor = 0, ends with NULL. The map may not
 * change meanwhile. */
void *esc_map_next(const esc_map *map, size_t *cursor);

#endif
