/* Names of streams by their ids, as one reader has met them; names never change.
 *
 * Not thread-safe: whoever holds the reader. Memory is bounded by forgetting all of them, at a
 * moment when nobody looks at one. */
#ifndef ESC_STORE_STREAM_NAMES_H
#define ESC_STORE_STREAM_NAMES_H

#include <escqrs/base.h>

#include "base/arena.h"

#define ESC_STREAM_NAMES_BYTES_MAX (8u << 20)

typedef struct esc_stream_name {
    int64_t id;
    escqrs_slice text;
    uint64_t hash; /* as in the checksum */
} esc_stream_name;

typedef struct esc_stream_names { /* all zero is an empty one */
    esc_arena arena;
    esc_stream_name *table; /* open addressing by id; id 0 is free */
    size_t capacity;        /* a power of two, or 0 */
    size_t count;
    size_t bytes;
} esc_stream_names;

void esc_stream_names_fini(esc_stream_names *names); /* usable again */
/* Forget them if they are too many. */
void esc_stream_names_trim(esc_stream_names *names);
/* NULL: not known. Valid until the next one is kept; its text until trim or fini. */
const esc_stream_name *esc_stream_names_look(const esc_stream_names *names, int64_t id);
/* Keep one that is not known (copied). NULL when out of memory. */
const esc_stream_name *esc_stream_names_keep(esc_stream_names *names, int64_t id, escqrs_slice text,
                                             uint64_t hash);

#endif
