/* The bytes of column `header`: message escqrs.v1.EventHeader of proto/escqrs/v1/store.proto,
 * written and read without copies, and the ids that are derived where the header has none.
 *
 * Any thread; nothing blocks. */
#ifndef ESC_STORE_EVENT_HEADER_H
#define ESC_STORE_EVENT_HEADER_H

#include <escqrs/store.h>

#include "base/arena.h"
#include "base/buffer.h"

#define ESC_EVENT_HEADER_BYTES_MAX (16u << 20)
#define ESC_EVENT_HEADER_ITEMS_MAX 100000 /* pairs and tags together */

/* Append the header of that event of the commit; nothing where all of it is derived. NO_MEMORY. */
escqrs_status esc_event_header_encode(const escqrs_commit *commit, const escqrs_new_event *event,
                                      esc_buffer *buffer) ESCQRS_MUST_USE;

/* Fill the ids, metadata and tags; all slices point into `header`, the lists into the arena.
 * `position` and `time_us` are set in `recorded`, `ordinal` counts the events of the commit before
 * this one. CORRUPT for bytes that are no header, NO_MEMORY; says nothing more. */
escqrs_status esc_event_header_decode(escqrs_slice header, int64_t ordinal, uint32_t salt,
                                      esc_arena *arena, escqrs_recorded *recorded) ESCQRS_MUST_USE;

/* The id of the event at a position: a version 7 UUID of its millisecond, the low 40 bits of the
 * position and the store's salt, so that ids sort like positions and differ between stores. */
escqrs_uuid esc_event_id(int64_t time_us, int64_t position, uint32_t salt);
/* The position in an id that this store may have made; 0 for others. */
int64_t esc_event_id_position(const escqrs_uuid *id, uint32_t salt);

#endif
