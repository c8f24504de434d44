/* See stream_names.h. Names are found by the low bits of the id with linear probing: ids count from
 * 1, so they do not collide while the table is larger than they are many, and neighbours share
 * cache lines. */
#include "store/stream_names.h"

#include <string.h>

#include "base/assert.h"

#define CAPACITY_MIN 64

void esc_stream_names_fini(esc_stream_names *names)
{
    esc_arena_fini(&names->arena);
    escqrs_free(names->table);
    memset(names, 0, sizeof *names);
}

void esc_stream_names_trim(esc_stream_names *names)
{
    if (names->bytes > ESC_STREAM_NAMES_BYTES_MAX) {
        esc_stream_names_fini(names);
    }
}

static esc_stream_name *slot_of(esc_stream_name *table, size_t capacity, int64_t id)
{
    size_t slot = (size_t)id & (capacity - 1);
    while (table[slot].id != 0 && table[slot].id != id) {
        slot = (slot + 1) & (capacity - 1);
    }
    return &table[slot];
}

const esc_stream_name *esc_stream_names_look(const esc_stream_names *names, int64_t id)
{
    if (names->capacity == 0) {
        return NULL;
    }
    const esc_stream_name *name = slot_of(names->table, names->capacity, id);
    return name->id != 0 ? name : NULL;
}

static bool grow(esc_stream_names *names)
{
    size_t capacity = names->capacity == 0 ? CAPACITY_MIN : names->capacity * 2;
    esc_stream_name *table = escqrs_alloc_zero(capacity * sizeof *table);
    if (table == NULL) {
        return false;
    }
    for (size_t i = 0; i < names->capacity; i++) {
        if (names->table[i].id != 0) {
            *slot_of(table, capacity, names->table[i].id) = names->table[i];
        }
    }
    escqrs_free(names->table);
    names->table = table;
    names->capacity = capacity;
    return true;
}

const esc_stream_name *esc_stream_names_keep(esc_stream_names *names, int64_t id, escqrs_slice text,
                                             uint64_t hash)
{
    ESC_ASSERT(id > 0 && esc_stream_names_look(names, id) == NULL);
    if (names->count * 2 >= names->capacity && !grow(names)) {
        return NULL;
    }
    char *copy = esc_arena_strdup(&names->arena, text);
    if (copy == NULL) {
        return NULL;
    }
    esc_stream_name *name = slot_of(names->table, names->capacity, id);
    *name = (esc_stream_name){id, {copy, text.size}, hash};
    names->count++;
    names->bytes += text.size + 2 * sizeof *name;
    return name;
}
