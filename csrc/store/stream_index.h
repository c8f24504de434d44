/* Which positions a stream's events have: the part that is in memory.
 *
 * On disk the index is written late and in bulk (sqlite_index.c): every position up to the
 * watermark is in it. The events above it are the tail; their positions are kept here, by stream.
 * When the tail is long enough it is frozen, and the frozen part is merged into the index on disk,
 * sorted by stream, in slices that ride in later commits; then the watermark moves and the frozen
 * positions are forgotten here.
 *
 * Reading a stream combines both: what the tail has is taken first, the rest is looked up on disk
 * afterwards, in a transaction that began later; so nothing can move from one to the other unseen.
 * A merge that a crash cut short leaves positions in both places, which harms nobody: the tail is
 * asked first.
 *
 * It is also the cache of the streams' names, numbers and versions; streams without a tail are
 * dropped when there are too many, the longest unused first.
 *
 * Threads: the leader alone changes it, holding `mutex` for what readers look at; readers hold it
 * to look. The leader may look without it. In a read-only store whoever refreshes is the leader.
 * The mutex is a leaf. */
#ifndef ESC_STORE_STREAM_INDEX_H
#define ESC_STORE_STREAM_INDEX_H

#include <escqrs/store.h>

#include "base/list.h"
#include "base/map.h"
#include "base/thread.h"
#include "base/vector.h"

#define ESC_TAIL_EVENTS_MAX 131072 /* that many are frozen, unless options say otherwise */
#define ESC_CACHED_STREAMS_MAX 262144

typedef struct esc_stream {
    int64_t id;
    int64_t version;    /* durable */
    int64_t pending;    /* the leader's: with the running batch */
    int64_t tail_first; /* version of the tail's first */
    union {
        int64_t *positions; /* tail_capacity > 1 */
        int64_t position;   /* most have one, which needs no memory of its own */
    } tail;                 /* see esc_stream_tail */
    uint32_t tail_count;
    uint32_t tail_capacity;
    uint32_t planned; /* the leader's: events of the commit being checked */
    uint16_t name_size;
    bool stored : 1;    /* the leader's: its row is durable */
    bool made : 1;      /* the leader's: its row is written in the running batch */
    bool touched : 1;   /* the leader's: in the running batch */
    bool closed : 1;    /* the leader's: it was deleted, and nothing is written to it */
    bool closes : 1;    /* the leader's: by the running batch */
    uint64_t name_hash; /* as in the checksum */
    char *name;         /* NULL: not known yet (tail read at open) */
    esc_list_node recent;
} esc_stream;

/* Positions of consecutive versions; behind tail_count those of the batch. */
static inline int64_t *esc_stream_tail(esc_stream *stream)
{
    return stream->tail_capacity > 1 ? stream->tail.positions : &stream->tail.position;
}

typedef struct esc_stream_index {
    esc_mutex mutex;
    esc_map by_name;
    esc_map by_id;
    esc_list recent;     /* the leader's: last used at the back */
    esc_vector touched;  /* the leader's: esc_stream * of the running batch */
    int64_t tail_events; /* the leader's: durable events in the tail, frozen ones included */
    int64_t frozen_upto; /* the leader's: position up to which is being merged; 0: nothing is */
    esc_vector frozen;   /* the leader's: esc_stream *, sorted by number */
    size_t frozen_next;  /* the leader's: merged up to here, durably */
    int64_t watermark;   /* changes under the mutex once anybody may look */
} esc_stream_index;

void esc_stream_index_init(esc_stream_index *index);
void esc_stream_index_fini(esc_stream_index *index);
/* Forget all streams (read-only stores, when the writer has moved on too far). */
void esc_stream_index_clear(esc_stream_index *index);
/* In one step become what `fresh` is, which is empty then. Readers meet the one or the other. */
void esc_stream_index_replace(esc_stream_index *index, esc_stream_index *fresh);

/* ---- the leader ------------------------------------------------------------------------------- */

esc_stream *esc_stream_index_find(esc_stream_index *index,
                                  escqrs_slice name); /* and mark as used */
esc_stream *esc_stream_index_find_id(esc_stream_index *index, int64_t id);
/* A stream known on disk (`stored`) or that may be written; no tail yet. The name may be empty (not
 * known yet). NO_MEMORY. */
escqrs_status esc_stream_index_add(esc_stream_index *index, int64_t id, escqrs_slice name,
                                   int64_t version, bool stored,
                                   esc_stream **stream) ESCQRS_MUST_USE;
/* Give a stream that was found by number its name. NO_MEMORY. */
escqrs_status esc_stream_index_name(esc_stream_index *index, esc_stream *stream,
                                    escqrs_slice name) ESCQRS_MUST_USE;
/* The stream takes part in the batch: publish and revert will see it. NO_MEMORY. */
escqrs_status esc_stream_index_touch(esc_stream_index *index, esc_stream *stream) ESCQRS_MUST_USE;
/* Note the position of the stream's next event in the batch. NO_MEMORY. */
escqrs_status esc_stream_index_push(esc_stream_index *index, esc_stream *stream,
                                    int64_t position) ESCQRS_MUST_USE;
/* Make room so that `count` pushes cannot fail. NO_MEMORY. */
escqrs_status esc_stream_index_reserve(esc_stream_index *index, esc_stream *stream,
                                       size_t count) ESCQRS_MUST_USE;
void esc_stream_index_publish(esc_stream_index *index); /* the batch is durable */
void esc_stream_index_revert(esc_stream_index *index);  /* the batch is gone */

/* Freeze the tail. Nothing may be frozen already. NO_MEMORY. */
escqrs_status esc_stream_index_freeze(esc_stream_index *index, int64_t head) ESCQRS_MUST_USE;
/* How many positions of the stream's tail are frozen. */
uint32_t esc_stream_frozen_count(const esc_stream_index *index, esc_stream *stream);
/* All that was frozen is on disk and the watermark has moved, durably: forget it. */
void esc_stream_index_thaw(esc_stream_index *index);
/* Drop the streams that are too many. */
void esc_stream_index_trim(esc_stream_index *index);

/* ---- readers ---------------------------------------------------------------------------------- */

/* What memory knows of a stream. False: nothing, ask the disk (for the number, and then here again
 * by it). */
bool esc_stream_index_look(esc_stream_index *index, escqrs_slice name, int64_t *id,
                           int64_t *version);
bool esc_stream_index_look_id(esc_stream_index *index, int64_t id, int64_t *version);
/* While it stays, nothing has been forgotten here that was not on disk before. */
int64_t esc_stream_index_watermark(esc_stream_index *index);
/* Positions of versions first .. first + count - 1 as far as the tail has them, in
 * positions[version - first], the others 0. Returns the number of leading ones that are to be
 * looked up on disk. */
size_t esc_stream_index_positions(esc_stream_index *index, int64_t id, int64_t first, size_t count,
                                  int64_t *positions);

#endif
