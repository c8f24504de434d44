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
} esc_binding_source;

typedef struct esc_binding {
    int index; /* of the parameter, from 1 */
    esc_binding_source source;
    const escqrs_field *field; /* source FIELD */
} esc_binding;

typedef struct esc_binding_plan {
    esc_binding *bindings;
    size_t count;
} esc_binding_plan;

/* The plan of a prepared statement. INVALID names the parameter that is unknown or has no name. */
escqrs_status esc_binding_plan_make(esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const escqrs_schema *schema,
                                    escqrs_error *error) ESCQRS_MUST_USE;
void esc_binding_plan_fini(esc_binding_plan *plan);

/* Bind an event's values. They are borrowed from `recorded` and `message` until the statement is
 * reset or bound again. `defaults` (or NULL) holds the defaults of fields that are absent. `json`
 * is room to work in. INVALID names the field whose value cannot be bound; `*code` is SQLite's code
 * where it was SQLite that refused. */
escqrs_status esc_binding_plan_bind(const esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const escqrs_recorded *recorded,
                                    const ProtobufCMessage *message,
                                    const ProtobufCMessage *defaults, esc_buffer *json, int *code,
                                    escqrs_error *error) ESCQRS_MUST_USE;

/* "2026-01-31 12:00:00.000000+00:00". Times outside the years 1 to 9999: false. */
#define ESC_BINDING_TIME_SIZE 33
bool esc_binding_format_time(int64_t seconds, int32_t micros, char text[ESC_BINDING_TIME_SIZE]);

#endif
