/* Reading the feed: cursors that are kept, and events copied and decoded before a transaction
 * begins.
 *
 * Design
 *   - All that can be done without the writing connection is done here: reading, verifying,
 *     unpacking. The transaction then only binds and steps, so commits wait as short as can be.
 *   - Each event is decoded once, however many read models take it.
 *   - Positions have no gaps; one would mean that an event was lost on the way, and is CORRUPT.
 * One thread at a time; nothing here takes a lock. */
#include "readmodel/projector.h"

#include <string.h>

#include "base/assert.h"
#include "base/error.h"

/* ---- feeds ------------------------------------------------------------------------------------------ */

static void feed_close(esc_feed *feed)
{
    escqrs_cursor_close(feed->cursor);
    *feed = (esc_feed){NULL, 0};
}

void esc_projector_close_feeds(escqrs_projector *projector)
{
    for (size_t i = 0; i < ESC_FEED_COUNT; i++) {
        feed_close(&projector->feeds[i]);
    }
}

/* The feed that stands there, or a new one. A kept one ends where the store ended when it was
 * opened. */
static escqrs_status feed_open(escqrs_projector *projector, int64_t after, esc_feed **feed,
                               bool *kept, escqrs_error *error)
{
    *kept = true;
    for (size_t i = 0; i < ESC_FEED_COUNT; i++) {
        if (projector->feeds[i].cursor != NULL && projector->feeds[i].position == after) {
            *feed = &projector->feeds[i];
            return ESCQRS_OK;
        }
    }
    *kept = false;
    *feed = &projector->feeds[projector->next_feed];
    projector->next_feed = (projector->next_feed + 1) % ESC_FEED_COUNT;
    feed_close(*feed);
    escqrs_range range = {.after = after};
    (*feed)->position = after;
    return escqrs_store_events(projector->store, &range, &(*feed)->cursor, error);
}

/* ---- items -------------------------------------------------------------------------------------------- */

static bool copy_slice(esc_arena *arena, escqrs_slice *slice)
{
    char *text = esc_arena_strdup(arena, *slice);
    slice->data = text;
    return text != NULL;
}

static bool copy_slices(esc_arena *arena, const escqrs_slice **slices, size_t count)
{
    escqrs_slice *copies = esc_arena_alloc(arena, count * sizeof(escqrs_slice) + 1);
    if (copies == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        copies[i] = (*slices)[i];
        if (!copy_slice(arena, &copies[i])) {
            return false;
        }
    }
    *slices = copies;
    return true;
}

static bool copy_pairs(esc_arena *arena, const escqrs_pair **pairs, size_t count)
{
    escqrs_pair *copies = esc_arena_alloc(arena, count * sizeof(escqrs_pair) + 1);
    if (copies == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        copies[i] = (*pairs)[i];
        if (!copy_slice(arena, &copies[i].key) || !copy_slice(arena, &copies[i].value)) {
            return false;
        }
    }
    *pairs = copies;
    return true;
}

/* The cursor's memory ends with its next call. */
static bool copy_recorded(esc_arena *arena, const esc_topic *topic, escqrs_recorded *recorded)
{
    if (!copy_slice(arena, &recorded->stream) || !copy_slice(arena, &recorded->id_text)) {
        return false;
    }
    if (topic->whole) {
        return copy_slice(arena, &recorded->data) &&
               copy_slice(arena, &recorded->correlation_text) &&
               copy_slice(arena, &recorded->causation_text) &&
               copy_pairs(arena, &recorded->metadata, recorded->metadata_count) &&
               copy_slices(arena, &recorded->tags, recorded->tag_count);
    }
    recorded->data = (escqrs_slice){NULL, 0};
    recorded->correlation_text = recorded->causation_text = (escqrs_slice){NULL, 0};
    recorded->metadata = NULL;
    recorded->metadata_count = 0;
    if (topic->tagged) {
        return copy_slices(arena, &recorded->tags, recorded->tag_count);
    }
    recorded->tags = NULL;
    recorded->tag_count = 0;
    return true;
}

static escqrs_status add_item(esc_batch *batch, esc_topic *topic, const escqrs_recorded *recorded,
                              escqrs_error *error)
{
    esc_item item = {
        .recorded = *recorded, .topic = topic, .schema = esc_topic_schema(topic, recorded->type)};
    if (!copy_recorded(&batch->arena, topic, &item.recorded)) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
    }
    if (item.schema != NULL) {
        escqrs_error failure;
        esc_error_init(&failure);
        escqrs_status status =
            escqrs_message_unpack(item.schema, recorded->data, NULL, &item.message, &failure);
        if (status == ESCQRS_NO_MEMORY) {
            return escqrs_error_set(error, status, "no memory to unpack an event");
        }
        if (status != ESCQRS_OK) {
            escqrs_error *kept = esc_arena_alloc(&batch->arena, sizeof failure);
            if (kept == NULL) {
                return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
            }
            *kept = failure;
            item.failure = kept;
        }
    }
    if (esc_vector_push(&batch->items, &item) != ESCQRS_OK) {
        escqrs_message_free(item.message);
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
    }
    return ESCQRS_OK;
}

/* Nobody who wants it can have it, and `failure` says why. */
static escqrs_status add_blocked(esc_batch *batch, const esc_topic *topic,
                                 const escqrs_recorded *recorded, const escqrs_error *failure,
                                 escqrs_error *error)
{
    esc_item item = {.recorded = *recorded, .topic = topic, .blocked = true};
    escqrs_error *kept = esc_arena_alloc(&batch->arena, sizeof *kept);
    if (kept == NULL || !copy_recorded(&batch->arena, topic, &item.recorded) ||
        esc_vector_push(&batch->items, &item) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
    }
    *kept = *failure;
    ESC_VECTOR_AT(&batch->items, esc_item, batch->items.count - 1).failure = kept;
    return ESCQRS_OK;
}

/* Where the events go that an upcaster makes of a stored one. */
typedef struct sink {
    escqrs_projector *projector;
    const escqrs_recorded *stored;
    bool full; /* there was no memory for one */
} sink;

static escqrs_status add_part(void *context, const escqrs_recorded *part, escqrs_error *error)
{
    sink *to = context;
    escqrs_recorded event = *to->stored;
    event.type = part->type;
    event.data = part->data;
    event.part = part->part;
    event.part_count = part->part_count;
    if (part->id_text.size > 0) {
        event.id_text = part->id_text;
    }
    esc_topic *topic = NULL;
    escqrs_status status = esc_topic_set_find(&to->projector->topics, event.type, &topic);
    if (status != ESCQRS_OK) {
        (void)escqrs_error_set(error, status, "no memory for a batch of events");
    } else if (topic != NULL) {
        status = add_item(&to->projector->batch, topic, &event, error);
    }
    to->full = to->full || status != ESCQRS_OK;
    return status;
}

static escqrs_status take_upcast(escqrs_projector *projector, const escqrs_recorded *recorded,
                                 escqrs_error *error)
{
    sink to = {.projector = projector, .stored = recorded};
    esc_batch *batch = &projector->batch;
    size_t before = batch->items.count;
    escqrs_error failure = {0};
    escqrs_status status =
        projector->reader.upcast(projector->reader.context, recorded, add_part, &to, &failure);
    if (status == ESCQRS_OK) {
        return ESCQRS_OK;
    }
    if (to.full || status == ESCQRS_NO_MEMORY) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
    }
    while (batch->items.count > before) {
        escqrs_message_free(ESC_VECTOR_AT(&batch->items, esc_item, batch->items.count - 1).message);
        esc_vector_pop(&batch->items);
    }
    esc_topic *all = NULL;
    if (esc_readings_all(&projector->readings, projector, &all) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
    }
    return add_blocked(batch, all, recorded, &failure, error);
}

/* ---- batch -------------------------------------------------------------------------------------------- */

void esc_batch_clear(esc_batch *batch)
{
    for (size_t i = 0; i < batch->items.count; i++) {
        escqrs_message_free(ESC_VECTOR_AT(&batch->items, esc_item, i).message);
    }
    esc_vector_clear(&batch->items);
    esc_arena_reset(&batch->arena);
    batch->upto = 0;
}

void esc_batch_fini(esc_batch *batch)
{
    esc_batch_clear(batch);
    esc_vector_fini(&batch->items);
    esc_arena_fini(&batch->arena);
}

/* Of the event before, whose type is mostly the same. */
typedef struct looked_up {
    const escqrs_type *type;
    const esc_reading *reading;
    esc_topic *topic;
} looked_up;

static escqrs_status look_up(escqrs_projector *projector, const escqrs_type *type, looked_up *last,
                             escqrs_error *error)
{
    if (type == last->type) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_readings_find(&projector->readings, projector, type, &last->reading, error);
    if (status == ESCQRS_OK) {
        const escqrs_type *as = last->reading == NULL ? type : last->reading->as;
        if (esc_topic_set_find(&projector->topics, as, &last->topic) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a batch of events");
        }
        last->type = type;
    }
    return status;
}

static escqrs_status take_one(escqrs_projector *projector, const escqrs_recorded *event,
                              looked_up *last, escqrs_error *error)
{
    esc_batch *batch = &projector->batch;
    escqrs_status status = look_up(projector, event->type, last, error);
    const esc_reading *reading = last->reading;
    if (status != ESCQRS_OK) {
        return status;
    }
    if (reading != NULL && reading->how == ESCQRS_READING_UPCAST) {
        return take_upcast(projector, event, error);
    }
    if (last->topic == NULL) {
        return ESCQRS_OK;
    }
    if (reading != NULL && reading->how == ESCQRS_READING_REFUSED) {
        return add_blocked(batch, last->topic, event, &reading->failure, error);
    }
    escqrs_recorded named = *event;
    if (reading != NULL) {                       /* the type may have another name now */
        named.type = (escqrs_type *)reading->as; /* only read */
    }
    return add_item(batch, last->topic, &named, error);
}

/* Take the events of one read of the cursor. */
static escqrs_status take(escqrs_projector *projector, const escqrs_recorded *recorded,
                          size_t count, size_t *bytes, escqrs_error *error)
{
    esc_batch *batch = &projector->batch;
    looked_up last = {0};
    for (size_t i = 0; i < count; i++) {
        const escqrs_recorded *event = &recorded[i];
        if (event->position != batch->upto + 1) {
            escqrs_status status =
                escqrs_error_set(error, ESCQRS_CORRUPT,
                                 "event %lld follows event %lld: events between them are missing",
                                 (long long)event->position, (long long)batch->upto);
            if (error != NULL) {
                error->position = batch->upto + 1;
            }
            return status;
        }
        escqrs_status status = take_one(projector, event, &last, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        *bytes += event->data.size;
        batch->upto = event->position;
    }
    return ESCQRS_OK;
}

escqrs_status esc_batch_read(escqrs_projector *projector, int64_t after, int64_t bound,
                             escqrs_error *error)
{
    ESC_ASSERT(bound > after);
    esc_batch *batch = &projector->batch;
    esc_batch_clear(batch);
    batch->upto = after;
    esc_feed *feed = NULL;
    bool kept = false;
    escqrs_status status = feed_open(projector, after, &feed, &kept, error);
    size_t bytes = 0;
    while (status == ESCQRS_OK && batch->upto < bound &&
           batch->upto - after < ESC_BATCH_EVENTS_MAX && bytes < ESC_BATCH_BYTES_MAX) {
        int64_t wanted = ESC_BATCH_EVENTS_MAX - (batch->upto - after);
        wanted = bound - batch->upto < wanted ? bound - batch->upto : wanted;
        const escqrs_recorded *recorded = NULL;
        size_t count = 0;
        status = escqrs_cursor_read(feed->cursor, (size_t)wanted, &recorded, &count, error);
        if (status == ESCQRS_OK && count == 0) {
            status = ESCQRS_DONE;
        }
        if (status == ESCQRS_DONE && kept && batch->upto == after) {
            feed_close(feed);
            status = feed_open(projector, after, &feed, &kept, error);
            continue;
        }
        if (status == ESCQRS_OK) {
            status = take(projector, recorded, count, &bytes, error);
        }
        feed->position = batch->upto;
    }
    if (status != ESCQRS_OK) {
        feed_close(feed); /* at its end, or unusable */
    }
    if (batch->upto > after) {
        return ESCQRS_OK; /* what was read is good; an error comes again with the next read */
    }
    return status;
}

escqrs_status esc_batch_read_stream(escqrs_projector *projector, escqrs_cursor *cursor,
                                    int64_t upto, int64_t *version, escqrs_error *error)
{
    const escqrs_recorded *recorded = NULL;
    size_t count = 0;
    looked_up last = {0};
    esc_batch_clear(&projector->batch);
    escqrs_status status =
        escqrs_cursor_read(cursor, ESC_BATCH_EVENTS_MAX, &recorded, &count, error);
    for (size_t i = 0; status == ESCQRS_OK && i < count && recorded[i].position <= upto; i++) {
        status = take_one(projector, &recorded[i], &last, error);
        projector->batch.upto = recorded[i].position;
        *version = recorded[i].version;
    }
    return status == ESCQRS_OK && projector->batch.upto == 0 ? ESCQRS_DONE : status;
}
