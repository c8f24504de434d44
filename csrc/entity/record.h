/* A record: one commit of one command on its way to disk, with room for its events. See record.c.
 */
#ifndef ESC_ENTITY_RECORD_H
#define ESC_ENTITY_RECORD_H

#include <escqrs/entity.h>

#include "base/list.h"
#include "base/queue.h"
#include "base/thread.h"

#define ESC_RECORD_EVENTS_INLINE 2
#define ESC_RECORD_DATA_INLINE 128

typedef struct esc_record {
    escqrs_commit commit;
    escqrs_write write;
    escqrs_new_snapshot snapshot;

    esc_queue_node free;   /* the pool's */
    escqrs_error *error;   /* its slot for life; the memory is not touched unless something fails */
    escqrs_entity *entity; /* the command's reference keeps it */
    escqrs_command *command;
    escqrs_command *outbox; /* to be sent when durable */
    escqrs_status result;   /* of the handler; its error is in *error if not OK */
    uint8_t epoch;          /* of a snapshot that an entity leaves behind: where it is counted */
    bool waits;             /* a thread waits for the commit and recycles the record */
    bool finished;          /* `done` was called; written there, read by who waited for it */

    escqrs_new_event *events; /* while it is filled, data.data is an offset into `data` */
    size_t event_count;
    size_t event_capacity;
    uint8_t *data;
    size_t data_size;
    size_t data_capacity;
    size_t reply_offset;
    size_t reply_size;
    escqrs_new_event inline_events[ESC_RECORD_EVENTS_INLINE];
    uint8_t inline_data[ESC_RECORD_DATA_INLINE];
} esc_record;

typedef struct esc_record_slab esc_record_slab;

typedef struct esc_record_pool {
    esc_mutex lock;
    esc_queue_node *ready;  /* lock; records to take */
    esc_record_slab *slabs; /* lock */
    esc_queue returned;     /* by any thread */
} esc_record_pool;

void esc_record_pool_init(esc_record_pool *pool);
void esc_record_pool_fini(esc_record_pool *pool);

/* An empty record, or NULL when out of memory. Any thread. */
esc_record *esc_record_acquire(esc_record_pool *pool);
void esc_record_recycle(esc_record_pool *pool, esc_record *record);

/* NO_MEMORY, TOO_LARGE. The data is copied. */
escqrs_status esc_record_add_event(esc_record *record, escqrs_type *type, escqrs_slice data,
                                   escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_record_set_reply(esc_record *record, escqrs_slice reply,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* Offsets become pointers: nothing is added afterwards. */
void esc_record_seal(esc_record *record);

#endif
