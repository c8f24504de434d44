/* Records: what one command gives to the journal, in one piece of memory.
 *
 * A turn fills a record while it decides, the journal reads it, and it is recycled when the commit
 * is answered - by another thread than the one that took it, as a rule. So the pool takes under a
 * lock from a list of its own and gets back through a lock-free queue: neither side waits for the
 * other.
 *
 * Every record has an escqrs_error, which is large (1.3 KB) and seldom needed. They lie in memory
 * of their own that nobody touches until a commit fails, so that 100,000 records in flight do not
 * cost the errors' 130 MB.
 *
 * Slabs are kept until the pool ends: their number is bounded by the commands that were ever in
 * flight at once. Lock order: `lock` is a leaf. */
#include "entity/record.h"

#include <string.h>

#define SLAB_RECORDS 64

struct esc_record_slab {
    esc_record_slab *next;
    escqrs_error *errors;
    esc_record records[SLAB_RECORDS];
};

void esc_record_pool_init(esc_record_pool *pool)
{
    esc_mutex_init(&pool->lock);
    pool->ready = NULL;
    pool->slabs = NULL;
    esc_queue_init(&pool->returned);
}

void esc_record_pool_fini(esc_record_pool *pool)
{
    while (pool->slabs != NULL) {
        esc_record_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        escqrs_free(slab->errors);
        escqrs_free(slab);
    }
    pool->ready = NULL;
    esc_mutex_fini(&pool->lock);
}

/* Under the lock. */
static bool pool_grow(esc_record_pool *pool)
{
    esc_record_slab *slab = escqrs_alloc(sizeof *slab);
    escqrs_error *errors = escqrs_alloc_array(SLAB_RECORDS, sizeof *errors);
    if (slab == NULL || errors == NULL) {
        escqrs_free(slab);
        escqrs_free(errors);
        return false;
    }
    slab->errors = errors;
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (size_t i = SLAB_RECORDS; i-- > 0;) {
        slab->records[i].error = &errors[i];
        slab->records[i].free.next = pool->ready;
        pool->ready = &slab->records[i].free;
    }
    return true;
}

static void record_reset(esc_record *record)
{
    record->commit = (escqrs_commit){0};
    record->entity = NULL;
    record->command = NULL;
    record->outbox = NULL;
    record->result = ESCQRS_OK;
    record->waits = false;
    record->finished = false;
    record->events = record->inline_events;
    record->event_count = 0;
    record->event_capacity = ESC_RECORD_EVENTS_INLINE;
    record->data = record->inline_data;
    record->data_size = 0;
    record->data_capacity = ESC_RECORD_DATA_INLINE;
    record->reply_offset = 0;
    record->reply_size = 0;
    record->snapshot.data = (escqrs_slice){NULL, 0};
}

esc_record *esc_record_acquire(esc_record_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    if (pool->ready == NULL) {
        pool->ready = esc_queue_take_all(&pool->returned);
    }
    if (pool->ready == NULL && !pool_grow(pool)) {
        esc_mutex_unlock(&pool->lock);
        return NULL;
    }
    esc_queue_node *node = pool->ready;
    pool->ready = node->next;
    esc_mutex_unlock(&pool->lock);
    esc_record *record = ESC_CONTAINER_OF(node, esc_record, free);
    record_reset(record);
    return record;
}

void esc_record_recycle(esc_record_pool *pool, esc_record *record)
{
    if (record->events != record->inline_events) {
        escqrs_free(record->events);
    }
    if (record->data != record->inline_data) {
        escqrs_free(record->data);
    }
    escqrs_free((void *)(uintptr_t)record->snapshot.data.data);
    esc_queue_push(&pool->returned, &record->free);
}

static escqrs_status grow_events(esc_record *record, escqrs_error *error)
{
    bool inlined = record->events == record->inline_events;
    size_t capacity = record->event_capacity * 4;
    escqrs_new_event *events =
        escqrs_realloc(inlined ? NULL : record->events, capacity * sizeof *events);
    if (events == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a command's events");
    }
    if (inlined) {
        memcpy(events, record->inline_events, record->event_count * sizeof *events);
    }
    record->events = events;
    record->event_capacity = capacity;
    return ESCQRS_OK;
}

static escqrs_status append_data(esc_record *record, escqrs_slice data, size_t *offset,
                                 escqrs_error *error)
{
    if (data.size > (size_t)ESCQRS_COMMIT_BYTES_MAX - record->data_size) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "the events of one command are larger than %lld bytes together",
                                ESCQRS_COMMIT_BYTES_MAX);
    }
    size_t needed = record->data_size + data.size;
    if (needed > record->data_capacity) {
        bool inlined = record->data == record->inline_data;
        size_t capacity = record->data_capacity * 2 > needed ? record->data_capacity * 2 : needed;
        uint8_t *grown = escqrs_realloc(inlined ? NULL : record->data, capacity);
        if (grown == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a command's events");
        }
        if (inlined) {
            memcpy(grown, record->inline_data, record->data_size);
        }
        record->data = grown;
        record->data_capacity = capacity;
    }
    *offset = record->data_size;
    if (data.size > 0) {
        memcpy(record->data + record->data_size, data.data, data.size);
        record->data_size = needed;
    }
    return ESCQRS_OK;
}

escqrs_status esc_record_add_event(esc_record *record, escqrs_type *type, escqrs_slice data,
                                   escqrs_error *error)
{
    if (record->event_count >= ESCQRS_COMMIT_EVENTS_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "a command may emit %d events, not more",
                                ESCQRS_COMMIT_EVENTS_MAX);
    }
    escqrs_status status = ESCQRS_OK;
    if (record->event_count == record->event_capacity) {
        status = grow_events(record, error);
    }
    size_t offset = 0;
    if (status == ESCQRS_OK) {
        status = append_data(record, data, &offset, error);
    }
    if (status == ESCQRS_OK) {
        record->events[record->event_count++] =
            (escqrs_new_event){.type = type, .data = {(void *)(uintptr_t)offset, data.size}};
    }
    return status;
}

escqrs_status esc_record_set_reply(esc_record *record, escqrs_slice reply, escqrs_error *error)
{
    escqrs_status status = append_data(record, reply, &record->reply_offset, error);
    if (status == ESCQRS_OK) {
        record->reply_size = reply.size;
    }
    return status;
}

void esc_record_seal(esc_record *record)
{
    for (size_t i = 0; i < record->event_count; i++) {
        record->events[i].data.data = record->data + (uintptr_t)record->events[i].data.data;
    }
    record->commit.reply = (escqrs_slice){record->data + record->reply_offset, record->reply_size};
}
