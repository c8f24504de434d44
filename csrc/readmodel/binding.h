/* readmodel/binding.h - the parameters of a statement, and where in an event their values stand.
 *
 * A plan is made once for a statement: for each parameter the offset of its field in the unpacked
 * message. Binding an event then takes no look-up and copies nothing (but JSON).
 *
 *   field                        bound as int, bool                    integer (a bool as 0 or 1)
 *   float                        real; NaN is refused, the event fails str; bytes
 *   text; blob datetime, and :_time         text "2026-01-31 12:00:00.000000+00:00", in UTC: it
 *   sorts, SQLite's date functions
 *                                take it, and so does Python's datetime.fromisoformat
 *   Enum                         text: the member's name list, dict, message          text: JSON
 *   (see escqrs_field_to_json) absent: T | None             NULL absent: with a default       the
 *   default (the event is older than the field) absent: neither              zero or empty, as
 *   protobuf reads it; a datetime or message fails the event
 *
 * Any thread; nothing blocks. */
#ifndef ESC_READMODEL_BINDING_H
#define ESC_READMODEL_BINDING_H

#include <escqrs/schema.h>
#include <escqrs/store.h>
#include <sqlite3.h>

#include "base/buffer.h"

typedef enum esc_binding_source {
    ESC_BINDING_FIELD = 0,
    ESC_BINDING_STREAM,
    ESC_BINDING_POSITION,
    ESC_BINDING_VERSION,
    ESC_BINDING_TIME,
    ESC_BINDING_ID,
    ESC_BINDING_TYPE,
    ESC_BINDING_PART,
    ESC_BINDING_EVENT,
    ESC_BINDING_INDEX, /* of an item, and what follows */
    ESC_BINDING_KEY,
    ESC_BINDING_ITEM,
    ESC_BINDING_ITEM_FIELD,
} esc_binding_source;

typedef struct esc_binding {
    int index; /* of the parameter, from 1 */
    esc_binding_source source;
    const escqrs_field *field; /* source FIELD, ITEM_FIELD */
} esc_binding;

typedef struct esc_binding_plan {
    esc_binding *bindings;
    size_t count;
    const escqrs_field *each; /* the statement runs once for each item of this field; or NULL */
    bool wants_event;         /* a parameter is the whole event */
} esc_binding_plan;

/* The event that is bound. */
typedef struct esc_binding_event {
    const escqrs_recorded *recorded;
    const ProtobufCMessage *message;  /* NULL where the plan needs none */
    const escqrs_schema *schema;      /* of `message` */
    const ProtobufCMessage *defaults; /* of fields that are absent; or NULL */
} esc_binding_event;

/* The plan of a prepared statement. `schema`: NULL for every event, which has no parameters of its
 * fields. `each`: empty for none. INVALID names the parameter that is unknown or has no name. */
escqrs_status esc_binding_plan_make(esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const escqrs_schema *schema, escqrs_slice each,
                                    escqrs_error *error) ESCQRS_MUST_USE;
void esc_binding_plan_fini(esc_binding_plan *plan);

/* How often the statement runs for the event. */
size_t esc_binding_plan_times(const esc_binding_plan *plan, const ProtobufCMessage *message);
/* Bind an event's values, and those of its item at `item`. They are borrowed from the event until
 * the statement is reset or bound again. `json` is room to work in. INVALID names the field whose
 * value cannot be bound; `*code` is SQLite's code where it was SQLite that refused. */
escqrs_status esc_binding_plan_bind(const esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const esc_binding_event *event, size_t item, esc_buffer *json,
                                    int *code, escqrs_error *error) ESCQRS_MUST_USE;

#endif
