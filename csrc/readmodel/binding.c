/* Parameters of statements bound to events; see the header. */
#include "readmodel/binding.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "readmodel/sql.h"

/* ---- plan ------------------------------------------------------------------------------------- */

static bool recorded_source(const char *name, esc_binding_source *source)
{
    static const struct {
        const char *name;
        esc_binding_source source;
    } known[] = {
        {"_stream", ESC_BINDING_STREAM},   {"_position", ESC_BINDING_POSITION},
        {"_version", ESC_BINDING_VERSION}, {"_time", ESC_BINDING_TIME},
        {"_id", ESC_BINDING_ID},           {"_type", ESC_BINDING_TYPE},
        {"_part", ESC_BINDING_PART},       {"_event", ESC_BINDING_EVENT},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) {
            *source = known[i].source;
            return true;
        }
    }
    return false;
}

/* The schema of a list's or map's items; NULL where they are no messages. */
static const escqrs_schema *item_schema(const escqrs_field *each)
{
    const escqrs_field *value =
        each->label == ESCQRS_MAP ? escqrs_schema_field(each->entry, 1) : each;
    return value->kind == ESCQRS_KIND_MESSAGE ? value->message : NULL;
}

/* Parameters of an item. False: it is none of them. */
static bool item_source(esc_binding *binding, const char *name, const escqrs_field *each)
{
    if (each == NULL) {
        return false;
    }
    if (strcmp(name, "_index") == 0) {
        binding->source = ESC_BINDING_INDEX;
    } else if (strcmp(name, "_key") == 0 && each->label == ESCQRS_MAP) {
        binding->source = ESC_BINDING_KEY;
    } else if (strcmp(name, "_item") == 0) {
        binding->source = ESC_BINDING_ITEM;
    } else if (strncmp(name, "_item_", 6) == 0 && item_schema(each) != NULL) {
        binding->source = ESC_BINDING_ITEM_FIELD;
        binding->field = escqrs_schema_find(item_schema(each), escqrs_slice_of(name + 6));
        return binding->field != NULL;
    } else {
        return false;
    }
    return true;
}

static escqrs_status say_unknown(const char *parameter, const escqrs_field *each,
                                 escqrs_error *error)
{
    if (each != NULL) {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "unknown parameter %s; of an item of %s there are :_index, :_item%s%s", parameter,
            each->name, each->label == ESCQRS_MAP ? ", :_key" : "",
            item_schema(each) != NULL ? " and :_item_{field}" : "");
    }
    return escqrs_error_set(error, ESCQRS_INVALID,
                            "unknown parameter %s; what is recorded with an event is :_stream, "
                            ":_position, :_version, :_time, :_id, :_type, :_part and :_event",
                            parameter);
}

static escqrs_status binding_make(esc_binding *binding, const char *parameter,
                                  const escqrs_schema *schema, const escqrs_field *each,
                                  escqrs_error *error)
{
    const char *of = schema == NULL ? "every event" : escqrs_schema_name(schema);
    if (parameter == NULL || parameter[0] == '?') {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a parameter without a name; write :field, for a field of %s", of);
    }
    const char *name = parameter + 1; /* behind : @ or $ */
    if (name[0] == '_') {
        return recorded_source(name, &binding->source) || item_source(binding, name, each)
                   ? ESCQRS_OK
                   : say_unknown(parameter, each, error);
    }
    binding->source = ESC_BINDING_FIELD;
    binding->field = schema == NULL ? NULL : escqrs_schema_find(schema, escqrs_slice_of(name));
    if (binding->field == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "unknown parameter %s; %s has no field of that name; what is "
                                "recorded with an event begins with an underscore, as :_stream",
                                parameter, of);
    }
    return ESCQRS_OK;
}

static escqrs_status find_each(const escqrs_schema *schema, escqrs_slice name,
                               const escqrs_field **each, escqrs_error *error)
{
    *each = name.size == 0 || schema == NULL ? NULL : escqrs_schema_find(schema, name);
    if (name.size > 0 &&
        (*each == NULL || ((*each)->label != ESCQRS_LIST && (*each)->label != ESCQRS_MAP))) {
        return escqrs_error_set(error, ESCQRS_INVALID, "each: %s has no list or map %.*s",
                                schema == NULL ? "every event" : escqrs_schema_name(schema),
                                (int)(name.size > 100 ? 100 : name.size), (const char *)name.data);
    }
    return ESCQRS_OK;
}

escqrs_status esc_binding_plan_make(esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const escqrs_schema *schema, escqrs_slice each,
                                    escqrs_error *error)
{
    *plan = (esc_binding_plan){0};
    size_t count = (size_t)sqlite3_bind_parameter_count(statement);
    escqrs_status status = find_each(schema, each, &plan->each, error);
    if (status != ESCQRS_OK || count == 0) {
        return status;
    }
    plan->bindings = escqrs_alloc_zero(count * sizeof(esc_binding));
    if (plan->bindings == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a statement's parameters");
    }
    for (size_t i = 0; i < count; i++) {
        esc_binding *binding = &plan->bindings[i];
        binding->index = (int)i + 1;
        status = binding_make(binding, sqlite3_bind_parameter_name(statement, binding->index),
                              schema, plan->each, error);
        if (status != ESCQRS_OK) {
            esc_binding_plan_fini(plan);
            return status;
        }
        plan->wants_event = plan->wants_event || binding->source == ESC_BINDING_EVENT;
    }
    plan->count = count;
    return ESCQRS_OK;
}

void esc_binding_plan_fini(esc_binding_plan *plan)
{
    escqrs_free(plan->bindings);
    *plan = (esc_binding_plan){0};
}

/* ---- times ------------------------------------------------------------------------------------ */

#define TIME_SIZE 33

/* "2026-01-31 12:00:00.000000+00:00". Times outside the years 1 to 9999: false. */
static bool format_time(int64_t seconds, int32_t micros, char text[TIME_SIZE])
{
    /* Days to civil date, proleptic Gregorian: eras of 400 years that begin on the first of
     * March. */
    int64_t days = seconds / 86400;
    int64_t rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days -= 1;
    }
    days += 719468;
    if (days < 306 || days > 3652364) { /* 0001-01-01 to 9999-12-31 */
        return false;
    }
    int64_t era = days / 146097;
    int64_t day_of_era = days % 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153; /* months since March */
    int64_t day = day_of_year - (153 * shifted + 2) / 5 + 1;
    int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    char wide[96];
    int size = snprintf(wide, sizeof wide, "%04d-%02d-%02d %02d:%02d:%02d.%06d+00:00", (int)year,
                        (int)month, (int)day, (int)(rest / 3600), (int)(rest / 60 % 60),
                        (int)(rest % 60), (int)micros);
    if (size != TIME_SIZE - 1) {
        return false;
    }
    memcpy(text, wide, TIME_SIZE);
    return true;
}

/* ---- values ----------------------------------------------------------------------------------- */

static const void *value_at(const ProtobufCMessage *message, size_t offset)
{
    return (const char *)message + offset;
}

static bool is_absent(const escqrs_field *field, const ProtobufCMessage *message)
{
    if (field->label == ESCQRS_LIST || field->label == ESCQRS_MAP) {
        size_t count = 0;
        memcpy(&count, value_at(message, field->count_offset), sizeof count);
        return count == 0;
    }
    if (escqrs_kind_is_pointer(field->kind)) {
        const void *pointer = NULL;
        memcpy(&pointer, value_at(message, field->value_offset), sizeof pointer);
        return pointer == NULL;
    }
    return *(const protobuf_c_boolean *)value_at(message, field->has_offset) == 0;
}

static bool write_json(void *context, const char *text, size_t size)
{
    return esc_buffer_append(context, text, size) == ESCQRS_OK;
}

static int bind_enum(sqlite3_stmt *statement, int index, const escqrs_field *field, int number,
                     escqrs_error *error)
{
    for (size_t i = 0; i < field->enum_value_count; i++) {
        if (field->enum_values[i].number == number) {
            return sqlite3_bind_text(statement, index, field->enum_values[i].name, -1,
                                     SQLITE_STATIC);
        }
    }
    (void)escqrs_error_set(error, ESCQRS_CORRUPT, "field %s: %s has no member with the number %d",
                           field->name, field->enum_name, number);
    return -1;
}

static int bind_text_or_blob(sqlite3_stmt *statement, int index, const void *value, bool text)
{
    const ProtobufCBinaryData *data = value;
    const void *bytes = data->data == NULL ? (const void *)"" : data->data;
    if (text) {
        return sqlite3_bind_text64(statement, index, bytes, data->len, SQLITE_STATIC, SQLITE_UTF8);
    }
    return sqlite3_bind_blob64(statement, index, bytes, data->len, SQLITE_STATIC);
}

static int bind_time(sqlite3_stmt *statement, int index, const char *name, int64_t seconds,
                     int32_t micros, escqrs_error *error)
{
    char text[TIME_SIZE];
    if (!format_time(seconds, micros, text)) {
        (void)escqrs_error_set(error, ESCQRS_INVALID, "%s: a time outside the years 1 to 9999",
                               name);
        return -1;
    }
    return sqlite3_bind_text(statement, index, text, TIME_SIZE - 1, SQLITE_TRANSIENT);
}

static int bind_uint64(sqlite3_stmt *statement, int index, const escqrs_field *field,
                       uint64_t value, escqrs_error *error)
{
    if (value > INT64_MAX) {
        (void)escqrs_error_set(error, ESCQRS_INVALID,
                               "field %s is %llu, beyond the 63 bits of an integer in SQL",
                               field->name, (unsigned long long)value);
        return -1;
    }
    return sqlite3_bind_int64(statement, index, (int64_t)value);
}

static int bind_json(sqlite3_stmt *statement, int index, const escqrs_field *field,
                     const ProtobufCMessage *message, esc_buffer *json, escqrs_error *error)
{
    esc_buffer_reset(json);
    if (escqrs_field_to_json(field, message, write_json, json, error) != ESCQRS_OK) {
        return -1;
    }
    return sqlite3_bind_text64(statement, index, (const char *)json->data, json->size,
                               SQLITE_TRANSIENT, SQLITE_UTF8);
}

static int bind_message(sqlite3_stmt *statement, int index, const escqrs_schema *schema,
                        const ProtobufCMessage *message, esc_buffer *json, escqrs_error *error)
{
    esc_buffer_reset(json);
    if (escqrs_message_to_json(schema, message, write_json, json, error) != ESCQRS_OK) {
        return -1;
    }
    return sqlite3_bind_text64(statement, index, (const char *)json->data, json->size,
                               SQLITE_TRANSIENT, SQLITE_UTF8);
}

static int bind_double(sqlite3_stmt *statement, int index, const escqrs_field *field, double value,
                       escqrs_error *error)
{
    if (isnan(value)) {
        (void)escqrs_error_set(error, ESCQRS_INVALID, "field %s is NaN, which SQL cannot hold",
                               field->name);
        return -1;
    }
    return sqlite3_bind_double(statement, index, value);
}

/* One value of a field's kind, which stands there. SQLite's code, or -1 with the error filled. */
static int bind_value(sqlite3_stmt *statement, int index, const escqrs_field *field,
                      const void *value, esc_buffer *json, escqrs_error *error)
{
    switch (field->kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_SINT64:
    case ESCQRS_KIND_SFIXED64:
        return sqlite3_bind_int64(statement, index, *(const int64_t *)value);
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SFIXED32:
        return sqlite3_bind_int64(statement, index, *(const int32_t *)value);
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_FIXED32:
        return sqlite3_bind_int64(statement, index, *(const uint32_t *)value);
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_FIXED64:
        return bind_uint64(statement, index, field, *(const uint64_t *)value, error);
    case ESCQRS_KIND_FLOAT:
        return bind_double(statement, index, field, *(const double *)value, error);
    case ESCQRS_KIND_FLOAT32:
        return bind_double(statement, index, field, (double)*(const float *)value, error);
    case ESCQRS_KIND_BOOL:
        return sqlite3_bind_int(statement, index, *(const protobuf_c_boolean *)value != 0);
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        return bind_text_or_blob(statement, index, value, true);
    case ESCQRS_KIND_BYTES:
        return bind_text_or_blob(statement, index, value, false);
    case ESCQRS_KIND_TIME: {
        const escqrs_timestamp *time = *(escqrs_timestamp *const *)value;
        return bind_time(statement, index, field->name, time->seconds, time->nanos / 1000, error);
    }
    case ESCQRS_KIND_DURATION: {
        const escqrs_duration *duration = *(escqrs_duration *const *)value;
        return sqlite3_bind_double(statement, index,
                                   (double)duration->seconds + duration->nanos / 1e9);
    }
    case ESCQRS_KIND_ENUM:
        return bind_enum(statement, index, field, *(const int *)value, error);
    case ESCQRS_KIND_MESSAGE:
        return bind_message(statement, index, field->message, *(ProtobufCMessage *const *)value,
                            json, error);
    }
    (void)escqrs_error_set(error, ESCQRS_INVALID, "field %s is of an unknown kind", field->name);
    return -1;
}

static int bind_present(sqlite3_stmt *statement, int index, const escqrs_field *field,
                        const ProtobufCMessage *message, esc_buffer *json, escqrs_error *error)
{
    if (field->label == ESCQRS_LIST || field->label == ESCQRS_MAP) {
        return bind_json(statement, index, field, message, json, error);
    }
    return bind_value(statement, index, field, value_at(message, field->value_offset), json, error);
}

static int bind_absent(sqlite3_stmt *statement, int index, const escqrs_field *field,
                       escqrs_error *error)
{
    if (field->label == ESCQRS_LIST) {
        return sqlite3_bind_text(statement, index, "[]", 2, SQLITE_STATIC);
    }
    if (field->label == ESCQRS_MAP) {
        return sqlite3_bind_text(statement, index, "{}", 2, SQLITE_STATIC);
    }
    if (field->label == ESCQRS_OPTIONAL) {
        return sqlite3_bind_null(statement, index);
    }
    switch (field->kind) { /* foreign data: protobuf's zero values */
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_BOOL:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SINT64:
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED32:
    case ESCQRS_KIND_SFIXED64:
        return sqlite3_bind_int(statement, index, 0);
    case ESCQRS_KIND_FLOAT32:
    case ESCQRS_KIND_FLOAT:
        return sqlite3_bind_double(statement, index, 0.0);
    case ESCQRS_KIND_STRING:
        return sqlite3_bind_text(statement, index, "", 0, SQLITE_STATIC);
    case ESCQRS_KIND_BYTES:
        return sqlite3_bind_zeroblob(statement, index, 0);
    case ESCQRS_KIND_ENUM:
        return bind_enum(statement, index, field, 0, error);
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DURATION:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
    case ESCQRS_KIND_MESSAGE:
        break;
    }
    (void)escqrs_error_set(error, ESCQRS_CORRUPT, "field %s is absent and has no default",
                           field->name);
    return -1;
}

static int bind_field(sqlite3_stmt *statement, int index, const escqrs_field *field,
                      const ProtobufCMessage *message, const ProtobufCMessage *defaults,
                      esc_buffer *json, escqrs_error *error)
{
    if (!is_absent(field, message)) {
        return bind_present(statement, index, field, message, json, error);
    }
    /* An empty container and an absent optional are values; only a field that is always written can
     * be newer than the event. */
    if (field->label == ESCQRS_ONE && field->has_default && defaults != NULL &&
        !is_absent(field, defaults)) {
        return bind_present(statement, index, field, defaults, json, error);
    }
    return bind_absent(statement, index, field, error);
}

static int bind_recorded_time(sqlite3_stmt *statement, int index, int64_t time_us,
                              escqrs_error *error)
{
    int64_t seconds = time_us / 1000000;
    int64_t micros = time_us % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds -= 1;
    }
    return bind_time(statement, index, "_time", seconds, (int32_t)micros, error);
}

static int bind_id(sqlite3_stmt *statement, int index, const escqrs_recorded *recorded)
{
    char text[ESCQRS_UUID_TEXT_SIZE];
    if (recorded->id_text.size > 0) {
        return sqlite3_bind_text64(statement, index, recorded->id_text.data, recorded->id_text.size,
                                   SQLITE_STATIC, SQLITE_UTF8);
    }
    escqrs_uuid_format(&recorded->id, text);
    return sqlite3_bind_text(statement, index, text, -1, SQLITE_TRANSIENT);
}

static int bind_slice(sqlite3_stmt *statement, int index, escqrs_slice text)
{
    return sqlite3_bind_text64(statement, index, text.data, text.size, SQLITE_STATIC, SQLITE_UTF8);
}

/* ---- items of a list or map ------------------------------------------------------------------- */

size_t esc_binding_plan_times(const esc_binding_plan *plan, const ProtobufCMessage *message)
{
    size_t count = 1;
    if (plan->each != NULL) {
        memcpy(&count, value_at(message, plan->each->count_offset), sizeof count);
    }
    return count;
}

/* Where the value of an item stands, and the field that says of what kind it is. NULL: a map's
 * entry does not say it. */
static const void *item_at(const escqrs_field *each, const ProtobufCMessage *message, size_t item,
                           const escqrs_field **kind)
{
    const char *array = NULL;
    memcpy(&array, value_at(message, each->value_offset), sizeof array);
    if (each->label == ESCQRS_LIST) {
        *kind = each;
        return array + item * escqrs_kind_size(each->kind);
    }
    const ProtobufCMessage *entry = ((ProtobufCMessage *const *)(const void *)array)[item];
    *kind = escqrs_schema_field(each->entry, 1);
    return is_absent(*kind, entry) ? NULL : value_at(entry, (*kind)->value_offset);
}

static int bind_key(sqlite3_stmt *statement, int index, const escqrs_field *each,
                    const ProtobufCMessage *message, size_t item, esc_buffer *json,
                    escqrs_error *error)
{
    ProtobufCMessage *const *entries = NULL;
    memcpy(&entries, value_at(message, each->value_offset), sizeof entries);
    return bind_field(statement, index, escqrs_schema_field(each->entry, 0), entries[item], NULL,
                      json, error);
}

static int bind_item(sqlite3_stmt *statement, const esc_binding *binding, const escqrs_field *each,
                     const ProtobufCMessage *message, size_t item, esc_buffer *json,
                     escqrs_error *error)
{
    const escqrs_field *kind = NULL;
    const void *value = item_at(each, message, item, &kind);
    if (value == NULL) {
        return bind_absent(statement, binding->index, kind, error);
    }
    if (binding->source == ESC_BINDING_ITEM_FIELD) {
        return bind_field(statement, binding->index, binding->field,
                          *(ProtobufCMessage *const *)value, NULL, json, error);
    }
    return bind_value(statement, binding->index, kind, value, json, error);
}

/* ---- binding ---------------------------------------------------------------------------------- */

static int bind_one(const esc_binding_plan *plan, sqlite3_stmt *statement,
                    const esc_binding *binding, const esc_binding_event *event, size_t item,
                    esc_buffer *json, escqrs_error *error)
{
    int index = binding->index;
    const escqrs_recorded *recorded = event->recorded;
    switch (binding->source) {
    case ESC_BINDING_FIELD:
        return bind_field(statement, index, binding->field, event->message, event->defaults, json,
                          error);
    case ESC_BINDING_STREAM:
        return bind_slice(statement, index, recorded->stream);
    case ESC_BINDING_POSITION:
        return sqlite3_bind_int64(statement, index, recorded->position);
    case ESC_BINDING_VERSION:
        return sqlite3_bind_int64(statement, index, recorded->version);
    case ESC_BINDING_TIME:
        return bind_recorded_time(statement, index, recorded->time_us, error);
    case ESC_BINDING_ID:
        return bind_id(statement, index, recorded);
    case ESC_BINDING_TYPE:
        return bind_slice(statement, index, escqrs_type_name(recorded->type));
    case ESC_BINDING_PART:
        return sqlite3_bind_int64(statement, index, (int64_t)recorded->part);
    case ESC_BINDING_EVENT:
        return event->message == NULL || event->schema == NULL
                   ? sqlite3_bind_null(statement, index)
                   : bind_message(statement, index, event->schema, event->message, json, error);
    case ESC_BINDING_INDEX:
        return sqlite3_bind_int64(statement, index, (int64_t)item);
    case ESC_BINDING_KEY:
        return bind_key(statement, index, plan->each, event->message, item, json, error);
    case ESC_BINDING_ITEM:
    case ESC_BINDING_ITEM_FIELD:
        return bind_item(statement, binding, plan->each, event->message, item, json, error);
    }
    (void)escqrs_error_set(error, ESCQRS_INVALID, "a parameter of an unknown kind");
    return -1;
}

escqrs_status esc_binding_plan_bind(const esc_binding_plan *plan, sqlite3_stmt *statement,
                                    const esc_binding_event *event, size_t item, esc_buffer *json,
                                    int *code, escqrs_error *error)
{
    *code = SQLITE_OK;
    for (size_t i = 0; i < plan->count; i++) {
        int result = bind_one(plan, statement, &plan->bindings[i], event, item, json, error);
        if (result == -1) {
            return error == NULL ? ESCQRS_INVALID : error->status;
        }
        if (result != SQLITE_OK) {
            *code = result;
            return esc_rmsql_error(error, sqlite3_db_handle(statement), result,
                                   "binding parameter %d", plan->bindings[i].index);
        }
    }
    return ESCQRS_OK;
}
