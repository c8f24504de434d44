/* See stream_index.h. */
#include "store/stream_index.h"

#include <string.h>

#include "base/assert.h"
#include "base/checksum.h"

static escqrs_slice key_of_name(const void *value)
{
    const esc_stream *stream = value;
    return (escqrs_slice){stream->name, stream->name_size};
}

static escqrs_slice key_of_id(const void *value)
{
    const esc_stream *stream = value;
    return (escqrs_slice){&stream->id, sizeof stream->id};
}

static void free_tail(esc_stream *stream)
{
    if (stream->tail_capacity > 1) {
        escqrs_free(stream->tail.positions);
    }
    stream->tail_capacity = 1;
}

static void free_stream(esc_stream *stream)
{
    escqrs_free(stream->name);
    free_tail(stream);
    escqrs_free(stream);
}

void esc_stream_index_init(esc_stream_index *index)
{
    memset(index, 0, sizeof *index);
    esc_mutex_init(&index->mutex);
    esc_map_init(&index->by_name, key_of_name, NULL);
    esc_map_init(&index->by_id, key_of_id, NULL);
    esc_list_init(&index->recent);
    esc_vector_init(&index->touched, sizeof(esc_stream *));
    esc_vector_init(&index->frozen, sizeof(esc_stream *));
}

static void clear_locked(esc_stream_index *index)
{
    esc_list_node *node;
    while ((node = esc_list_pop_front(&index->recent)) != NULL) {
        free_stream(ESC_CONTAINER_OF(node, esc_stream, recent));
    }
    esc_map_clear(&index->by_name);
    esc_map_clear(&index->by_id);
    esc_vector_clear(&index->touched);
    esc_vector_clear(&index->frozen);
    index->tail_events = index->frozen_upto = 0;
    index->frozen_next = 0;
}

void esc_stream_index_clear(esc_stream_index *index)
{
    esc_mutex_lock(&index->mutex);
    clear_locked(index);
    esc_mutex_unlock(&index->mutex);
}

void esc_stream_index_replace(esc_stream_index *index, esc_stream_index *fresh)
{
    ESC_ASSERT(fresh->touched.count == 0 && fresh->frozen_upto == 0);
    esc_mutex_lock(&index->mutex);
    clear_locked(index);
    esc_map names = index->by_name, ids = index->by_id;
    index->by_name = fresh->by_name;
    index->by_id = fresh->by_id;
    fresh->by_name = names;
    fresh->by_id = ids;
    esc_list_node *node;
    while ((node = esc_list_pop_front(&fresh->recent)) != NULL) {
        esc_list_push_back(&index->recent, node);
    }
    index->tail_events = fresh->tail_events;
    index->watermark = fresh->watermark;
    fresh->tail_events = 0;
    esc_mutex_unlock(&index->mutex);
}

void esc_stream_index_fini(esc_stream_index *index)
{
    clear_locked(index);
    esc_map_fini(&index->by_name);
    esc_map_fini(&index->by_id);
    esc_vector_fini(&index->touched);
    esc_vector_fini(&index->frozen);
    esc_mutex_fini(&index->mutex);
}

/* ---- the leader ------------------------------------------------------------------------------- */

static void mark_used(esc_stream_index *index, esc_stream *stream)
{
    esc_list_remove(&stream->recent);
    esc_list_push_back(&index->recent, &stream->recent);
}

esc_stream *esc_stream_index_find(esc_stream_index *index, escqrs_slice name)
{
    esc_stream *stream = esc_map_get(&index->by_name, name);
    if (stream != NULL) {
        mark_used(index, stream);
    }
    return stream;
}

esc_stream *esc_stream_index_find_id(esc_stream_index *index, int64_t id)
{
    return esc_map_get(&index->by_id, (escqrs_slice){&id, sizeof id});
}

escqrs_status esc_stream_index_name(esc_stream_index *index, esc_stream *stream, escqrs_slice name)
{
    ESC_ASSERT(stream->name == NULL && name.size <= UINT16_MAX);
    char *copy = escqrs_strdup(name);
    if (copy == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    uint64_t hash = esc_hash(name, 0);
    esc_mutex_lock(&index->mutex);
    stream->name = copy;
    stream->name_size = (uint16_t)name.size;
    stream->name_hash = hash;
    escqrs_status status = esc_map_insert(&index->by_name, stream);
    if (status != ESCQRS_OK) {
        stream->name = NULL;
    }
    esc_mutex_unlock(&index->mutex);
    if (status != ESCQRS_OK) {
        escqrs_free(copy);
    }
    return status;
}

escqrs_status esc_stream_index_add(esc_stream_index *index, int64_t id, escqrs_slice name,
                                   int64_t version, bool stored, esc_stream **result)
{
    esc_stream *stream = escqrs_alloc_zero(sizeof *stream);
    if (stream == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    stream->id = id;
    stream->version = stream->pending = version;
    stream->tail_first = version + 1;
    stream->tail_capacity = 1;
    stream->stored = stored;
    esc_mutex_lock(&index->mutex);
    escqrs_status status = esc_map_insert(&index->by_id, stream);
    esc_mutex_unlock(&index->mutex);
    if (status != ESCQRS_OK) {
        escqrs_free(stream);
        return status;
    }
    if (name.size > 0) {
        status = esc_stream_index_name(index, stream, name);
        if (status != ESCQRS_OK) {
            esc_mutex_lock(&index->mutex);
            esc_map_remove(&index->by_id, key_of_id(stream));
            esc_mutex_unlock(&index->mutex);
            escqrs_free(stream);
            return status;
        }
    }
    esc_list_push_back(&index->recent, &stream->recent);
    *result = stream;
    return ESCQRS_OK;
}

escqrs_status esc_stream_index_reserve(esc_stream_index *index, esc_stream *stream, size_t count)
{
    size_t pending = (size_t)(stream->pending - stream->version);
    size_t needed = stream->tail_count + pending + count;
    if (needed <= stream->tail_capacity) {
        return ESCQRS_OK;
    }
    size_t capacity = (size_t)stream->tail_capacity * 2;
    if (capacity < needed) {
        capacity = needed;
    }
    if (capacity > UINT32_MAX) {
        return ESCQRS_NO_MEMORY;
    }
    esc_mutex_lock(&index->mutex);
    bool alone = stream->tail_capacity == 1;
    int64_t *tail = escqrs_realloc(alone ? NULL : stream->tail.positions, capacity * sizeof *tail);
    if (tail != NULL) {
        if (alone) {
            tail[0] = stream->tail.position;
        }
        stream->tail.positions = tail;
        stream->tail_capacity = (uint32_t)capacity;
    }
    esc_mutex_unlock(&index->mutex);
    return tail == NULL ? ESCQRS_NO_MEMORY : ESCQRS_OK;
}

escqrs_status esc_stream_index_touch(esc_stream_index *index, esc_stream *stream)
{
    escqrs_status status = stream->touched ? ESCQRS_OK : esc_vector_push(&index->touched, &stream);
    stream->touched = status == ESCQRS_OK;
    return status;
}

escqrs_status esc_stream_index_push(esc_stream_index *index, esc_stream *stream, int64_t position)
{
    escqrs_status status = esc_stream_index_reserve(index, stream, 1);
    if (status == ESCQRS_OK) {
        status = esc_stream_index_touch(index, stream);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    /* Behind tail_count, where no reader looks. */
    int64_t *tail = esc_stream_tail(stream);
    tail[stream->tail_count + (stream->pending - stream->version)] = position;
    stream->pending++;
    return ESCQRS_OK;
}

void esc_stream_index_publish(esc_stream_index *index)
{
    esc_mutex_lock(&index->mutex);
    for (size_t i = 0; i < index->touched.count; i++) {
        esc_stream *stream = ESC_VECTOR_AT(&index->touched, esc_stream *, i);
        int64_t added = stream->pending - stream->version;
        stream->tail_count += (uint32_t)added;
        stream->version = stream->pending;
        stream->stored = stream->stored || stream->made;
        stream->touched = stream->made = false;
        index->tail_events += added;
    }
    esc_mutex_unlock(&index->mutex);
    esc_vector_clear(&index->touched);
}

static void drop(esc_stream_index *index, esc_stream *stream)
{
    esc_mutex_lock(&index->mutex);
    esc_map_remove(&index->by_id, key_of_id(stream));
    if (stream->name != NULL) {
        esc_map_remove(&index->by_name, key_of_name(stream));
    }
    esc_mutex_unlock(&index->mutex);
    esc_list_remove(&stream->recent);
    free_stream(stream);
}

void esc_stream_index_revert(esc_stream_index *index)
{
    for (size_t i = 0; i < index->touched.count; i++) {
        esc_stream *stream = ESC_VECTOR_AT(&index->touched, esc_stream *, i);
        stream->pending = stream->version;
        stream->touched = stream->made = false;
    }
    esc_vector_clear(&index->touched);
}

/* Sort by number: byte-wise radix sort, as 131,072 of them would take qsort 15 ms in the middle of
 * a commit. NO_MEMORY. */
static escqrs_status sort_by_id(esc_vector *streams)
{
    size_t count = streams->count;
    if (count < 2) {
        return ESCQRS_OK;
    }
    esc_stream **from = streams->items;
    esc_stream **spare = escqrs_alloc_array(count, sizeof *spare);
    if (spare == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    esc_stream **to = spare;
    int64_t highest = 0;
    for (size_t i = 0; i < count; i++) {
        highest = from[i]->id > highest ? from[i]->id : highest;
    }
    for (unsigned shift = 0; shift < 63 && (highest >> shift) > 0; shift += 8) {
        size_t starts[257] = {0};
        for (size_t i = 0; i < count; i++) {
            starts[((from[i]->id >> shift) & 0xff) + 1]++;
        }
        for (size_t i = 1; i < 257; i++) {
            starts[i] += starts[i - 1];
        }
        for (size_t i = 0; i < count; i++) {
            to[starts[(from[i]->id >> shift) & 0xff]++] = from[i];
        }
        esc_stream **swap = from;
        from = to;
        to = swap;
    }
    if (from != (esc_stream **)streams->items) {
        memcpy(streams->items, from, count * sizeof *from);
    }
    escqrs_free(spare);
    return ESCQRS_OK;
}

escqrs_status esc_stream_index_freeze(esc_stream_index *index, int64_t head)
{
    ESC_ASSERT(index->frozen_upto == 0 && index->touched.count == 0);
    esc_vector_clear(&index->frozen);
    index->frozen_next = 0;
    size_t cursor = 0;
    esc_stream *stream;
    while ((stream = esc_map_next(&index->by_id, &cursor)) != NULL) {
        if (stream->tail_count > 0) {
            escqrs_status status = esc_vector_push(&index->frozen, &stream);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    escqrs_status status = sort_by_id(&index->frozen);
    if (status == ESCQRS_OK) {
        index->frozen_upto = head;
    }
    return status;
}

uint32_t esc_stream_frozen_count(const esc_stream_index *index, esc_stream *stream)
{
    const int64_t *tail = esc_stream_tail(stream);
    uint32_t low = 0, high = stream->tail_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (tail[middle] <= index->frozen_upto) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void esc_stream_index_thaw(esc_stream_index *index)
{
    ESC_ASSERT(index->touched.count == 0);
    esc_mutex_lock(&index->mutex);
    for (size_t i = 0; i < index->frozen.count; i++) {
        esc_stream *stream = ESC_VECTOR_AT(&index->frozen, esc_stream *, i);
        uint32_t gone = esc_stream_frozen_count(index, stream);
        stream->tail_count -= gone;
        stream->tail_first += gone;
        index->tail_events -= gone;
        if (stream->tail_count == 0) {
            free_tail(stream);
        } else {
            int64_t *tail = esc_stream_tail(stream);
            memmove(tail, tail + gone, stream->tail_count * sizeof *tail);
        }
    }
    index->watermark = index->frozen_upto;
    esc_mutex_unlock(&index->mutex);
    index->frozen_upto = 0;
    index->frozen_next = 0;
    esc_vector_clear(&index->frozen);
}

void esc_stream_index_trim(esc_stream_index *index)
{
    size_t looked_at = 0;
    while (esc_map_count(&index->by_id) > ESC_CACHED_STREAMS_MAX && looked_at++ < 64) {
        esc_stream *stream = ESC_CONTAINER_OF(esc_list_first(&index->recent), esc_stream, recent);
        if (stream->tail_count > 0 || stream->touched) {
            mark_used(index, stream);
        } else {
            drop(index, stream);
        }
    }
}

/* ---- readers ---------------------------------------------------------------------------------- */

bool esc_stream_index_look(esc_stream_index *index, escqrs_slice name, int64_t *id,
                           int64_t *version)
{
    esc_mutex_lock(&index->mutex);
    const esc_stream *stream = esc_map_get(&index->by_name, name);
    bool found = stream != NULL;
    if (found) {
        *id = stream->version > 0 ? stream->id : 0;
        *version = stream->version;
    }
    esc_mutex_unlock(&index->mutex);
    return found;
}

bool esc_stream_index_look_id(esc_stream_index *index, int64_t id, int64_t *version)
{
    esc_mutex_lock(&index->mutex);
    const esc_stream *stream = esc_map_get(&index->by_id, (escqrs_slice){&id, sizeof id});
    if (stream != NULL) {
        *version = stream->version;
    }
    esc_mutex_unlock(&index->mutex);
    return stream != NULL;
}

int64_t esc_stream_index_watermark(esc_stream_index *index)
{
    esc_mutex_lock(&index->mutex);
    int64_t watermark = index->watermark;
    esc_mutex_unlock(&index->mutex);
    return watermark;
}

size_t esc_stream_index_positions(esc_stream_index *index, int64_t id, int64_t first, size_t count,
                                  int64_t *positions)
{
    size_t from_disk = count;
    esc_mutex_lock(&index->mutex);
    esc_stream *stream = esc_map_get(&index->by_id, (escqrs_slice){&id, sizeof id});
    if (stream != NULL && stream->tail_count > 0 && first + (int64_t)count > stream->tail_first) {
        from_disk = stream->tail_first > first ? (size_t)(stream->tail_first - first) : 0;
        const int64_t *tail = esc_stream_tail(stream);
        for (size_t i = from_disk; i < count; i++) {
            int64_t place = first + (int64_t)i - stream->tail_first;
            positions[i] = place < stream->tail_count ? tail[place] : 0;
        }
    }
    esc_mutex_unlock(&index->mutex);
    for (size_t i = 0; i < from_disk; i++) {
        positions[i] = 0;
    }
    return from_disk;
}
