/* Values as JSON text (RFC 8259): for parameters of SQL, and for people.
 *
 * Printing follows the schema, so names are those of the declaration. Recursion is bounded by the
 * limit that no message may pass; what goes wrong is remembered in the printer, and printing goes
 * on to the end of nothing. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "schema/check.h"
#include "schema/json.h"

#define DOUBLE_TEXT_SIZE 40
#define SECONDS_A_DAY 86400
#define MAP_QUADRATIC_MAX 8 /* entries; above, equal keys are found with a hash map */

typedef struct printer {
    esc_writer writer;
    escqrs_status status; /* the first failure */
    const char *message;  /* where it was: the message's name ... */
    const char *field;    /* ... and the field's */
} printer;

static void print_fields(printer *p, const escqrs_schema *schema, const ProtobufCMessage *message,
                         unsigned depth);

static const void *member(const ProtobufCMessage *message, size_t offset)
{
    return (const uint8_t *)message + offset;
}

static void fail(printer *p, escqrs_status status, const ProtobufCMessage *message,
                 const escqrs_field *field)
{
    if (p->status == ESCQRS_OK) {
        p->status = status;
        p->message = message->descriptor->name;
        p->field = field->name;
    }
}

/* ---- single values ---------------------------------------------------------------------------- */

void esc_json_text(esc_writer *w, const uint8_t *text, size_t size)
{
    esc_writer_put(w, "\"", 1);
    size_t start = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        esc_writer_put(w, (const char *)text + start, i - start);
        start = i + 1;
        switch (c) {
        case '"':
            esc_writer_text(w, "\\\"");
            break;
        case '\\':
            esc_writer_text(w, "\\\\");
            break;
        case '\n':
            esc_writer_text(w, "\\n");
            break;
        case '\r':
            esc_writer_text(w, "\\r");
            break;
        case '\t':
            esc_writer_text(w, "\\t");
            break;
        default:
            esc_writer_format(w, "\\u%04x", c);
            break;
        }
    }
    if (size > start) {
        esc_writer_put(w, (const char *)text + start, size - start);
    }
    esc_writer_put(w, "\"", 1);
}

void esc_json_bytes(esc_writer *w, const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    esc_writer_put(w, "\"", 1);
    for (size_t i = 0; i < size; i += 3) {
        size_t rest = size - i;
        uint32_t bits = (uint32_t)data[i] << 16;
        bits |= rest > 1 ? (uint32_t)data[i + 1] << 8 : 0;
        bits |= rest > 2 ? data[i + 2] : 0;
        char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63],
                        digits[bits & 63]};
        if (rest < 3) {
            four[3] = '=';
            four[2] = (char)(rest < 2 ? '=' : four[2]);
        }
        esc_writer_put(w, four, sizeof four);
    }
    esc_writer_put(w, "\"", 1);
}

void esc_json_double(esc_writer *w, double value)
{
    char text[DOUBLE_TEXT_SIZE];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    bool is_float = false;
    for (char *c = text; *c != '\0'; c++) {
        bool digit = (*c >= '0' && *c <= '9') || *c == '-' || *c == '+';
        if (!digit && *c != 'e') {
            *c = '.'; /* whatever the locale has there */
        }
        is_float |= !digit;
    }
    esc_writer_text(w, text);
    if (!is_float) {
        esc_writer_text(w, ".0");
    }
}

/* The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years begin in
 * March here, so that the leap day is the last of a year, and eras of 400 years all look the same.
 */
static void print_time(esc_writer *w, const escqrs_timestamp *time)
{
    int64_t seconds = time->has_seconds ? time->seconds : 0;
    int32_t nanos = time->has_nanos ? time->nanos : 0;
    int64_t day = seconds / SECONDS_A_DAY;
    int64_t second = seconds % SECONDS_A_DAY;
    if (second < 0) {
        second += SECONDS_A_DAY;
        day--;
    }
    const int64_t days_to_1970 = 719468; /* from 0000-03-01 */
    const int64_t days_an_era = 146097;
    day += days_to_1970;
    int64_t era = (day >= 0 ? day : day - (days_an_era - 1)) / days_an_era;
    int64_t day_of_era = day - era * days_an_era;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    int64_t day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    esc_writer_format(w, "\"%04" PRId64 "-%02d-%02dT%02d:%02d:%02d.%06ldZ\"", year, (int)month,
                      (int)day_of_month, (int)(second / 3600), (int)(second / 60 % 60),
                      (int)(second % 60), (long)(nanos / 1000));
}

/* As seconds, to the microsecond. Parts of different signs count as their sum. */
static void print_duration(esc_writer *w, const escqrs_duration *duration)
{
    int64_t seconds = duration->has_seconds ? duration->seconds : 0;
    int32_t nanos = duration->has_nanos ? duration->nanos : 0;
    int64_t micros = seconds * 1000000 + nanos / 1000;
    uint64_t size = micros < 0 ? 0 - (uint64_t)micros : (uint64_t)micros;
    esc_writer_format(w, "%s%" PRIu64 ".%06" PRIu64, micros < 0 ? "-" : "", size / 1000000,
                      size % 1000000);
}

static void print_enum(esc_writer *w, const escqrs_field *field, int number)
{
    size_t low = 0;
    size_t high = field->enum_value_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (field->enum_values[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < field->enum_value_count && field->enum_values[low].number == number) {
        const char *name = field->enum_values[low].name;
        esc_json_text(w, (const uint8_t *)name, strlen(name));
    } else {
        esc_writer_format(w, "%d", number); /* of a newer definition */
    }
}

static void print_double(printer *p, const ProtobufCMessage *message, const escqrs_field *field,
                         double value)
{
    if (!isfinite(value)) {
        fail(p, ESCQRS_INVALID, message, field);
    } else {
        esc_json_double(&p->writer, value);
    }
}

/* One value of the field's kind at `at`, in a message or in a list's array. */
static void print_value(printer *p, const ProtobufCMessage *message, const escqrs_field *field,
                        const void *at, unsigned depth)
{
    esc_writer *w = &p->writer;
    switch (field->kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_SINT64:
    case ESCQRS_KIND_SFIXED64:
        esc_writer_format(w, "%" PRId64, *(const int64_t *)at);
        break;
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SFIXED32:
        esc_writer_format(w, "%" PRId32, *(const int32_t *)at);
        break;
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_FIXED32:
        esc_writer_format(w, "%" PRIu32, *(const uint32_t *)at);
        break;
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_FIXED64:
        esc_writer_format(w, "%" PRIu64, *(const uint64_t *)at);
        break;
    case ESCQRS_KIND_FLOAT:
        print_double(p, message, field, *(const double *)at);
        break;
    case ESCQRS_KIND_FLOAT32:
        print_double(p, message, field, (double)*(const float *)at);
        break;
    case ESCQRS_KIND_BOOL:
        esc_writer_text(w, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID: {
        const ProtobufCBinaryData *text = at;
        esc_json_text(w, text->data, text->len);
        break;
    }
    case ESCQRS_KIND_BYTES: {
        const ProtobufCBinaryData *bytes = at;
        esc_json_bytes(w, bytes->data, bytes->len);
        break;
    }
    case ESCQRS_KIND_TIME:
        print_time(w, *(const escqrs_timestamp *const *)at);
        break;
    case ESCQRS_KIND_DURATION:
        print_duration(w, *(const escqrs_duration *const *)at);
        break;
    case ESCQRS_KIND_ENUM:
        print_enum(w, field, *(const int *)at);
        break;
    case ESCQRS_KIND_MESSAGE:
        if (depth >= ESC_LIMIT_DEPTH_MAX) {
            fail(p, ESCQRS_TOO_LARGE, message, field);
            break;
        }
        print_fields(p, field->message, *(const ProtobufCMessage *const *)at, depth + 1);
        break;
    }
}

/* ---- maps ------------------------------------------------------------------------------------- */

/* An entry's key as bytes to compare. The descriptor's first field is the key, for its number is 1.
 */
static escqrs_slice entry_key(const void *value)
{
    const ProtobufCMessage *entry = value;
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
    const void *at = member(entry, key->offset);
    switch (key->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return (escqrs_slice){at, sizeof(int64_t)};
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return (escqrs_slice){at, sizeof(int32_t)};
    case PROTOBUF_C_TYPE_BOOL:
        return (escqrs_slice){at, sizeof(protobuf_c_boolean)};
    default:
        break;
    }
    const ProtobufCBinaryData *text = at;
    return (escqrs_slice){text->data, text->len};
}

/* Is a later entry's key the same? Then that one counts. */
static bool is_replaced(ProtobufCMessage *const *entries, size_t count, size_t index,
                        const esc_map *last)
{
    if (count > MAP_QUADRATIC_MAX) {
        return esc_map_get(last, entry_key(entries[index])) != entries[index];
    }
    for (size_t i = index + 1; i < count; i++) {
        if (escqrs_slice_equal(entry_key(entries[i]), entry_key(entries[index]))) {
            return true;
        }
    }
    return false;
}

static bool index_entries(esc_map *last, ProtobufCMessage *const *entries, size_t count)
{
    if (esc_map_reserve(last, count) != ESCQRS_OK) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        esc_map_remove(last, entry_key(entries[i]));
        if (esc_map_insert(last, entries[i]) != ESCQRS_OK) {
            return false;
        }
    }
    return true;
}

static void print_entry(printer *p, const escqrs_field *field, const ProtobufCMessage *entry,
                        unsigned depth)
{
    esc_writer *w = &p->writer;
    const escqrs_field *value = &field->entry->fields[1];
    const escqrs_field *key = &field->entry->fields[0];
    bool is_text = escqrs_kind_is_text(key->kind);
    esc_writer_put(w, "\"", is_text ? 0 : 1);
    print_value(p, entry, key, member(entry, key->value_offset), depth);
    esc_writer_text(w, is_text ? ":" : "\":");
    const void *at = member(entry, value->value_offset);
    if (escqrs_kind_is_pointer(value->kind) && *(const void *const *)at == NULL) {
        /* An absent value of a map stands for one with nothing in it. */
        escqrs_timestamp zero = {.base = PROTOBUF_C_MESSAGE_INIT(&escqrs_timestamp_descriptor)};
        if (value->kind == ESCQRS_KIND_TIME) {
            print_time(w, &zero);
        } else if (value->kind == ESCQRS_KIND_DURATION) {
            print_duration(w, &zero);
        } else {
            esc_writer_text(w, "{}");
        }
        return;
    }
    print_value(p, entry, value, at, depth + 1);
}

static void print_map(printer *p, const ProtobufCMessage *message, const escqrs_field *field,
                      unsigned depth)
{
    size_t count = *(const size_t *)member(message, field->count_offset);
    ProtobufCMessage *const *entries =
        *(ProtobufCMessage *const *const *)member(message, field->value_offset);
    esc_map last;
    esc_map_init(&last, entry_key, NULL);
    if (count > MAP_QUADRATIC_MAX && !index_entries(&last, entries, count)) {
        fail(p, ESCQRS_NO_MEMORY, message, field);
        count = 0;
    }
    const char *separator = "";
    esc_writer_put(&p->writer, "{", 1);
    for (size_t i = 0; i < count && p->status == ESCQRS_OK; i++) {
        if (!is_replaced(entries, count, i, &last)) {
            esc_writer_text(&p->writer, separator);
            separator = ",";
            print_entry(p, field, entries[i], depth);
        }
    }
    esc_writer_put(&p->writer, "}", 1);
    esc_map_fini(&last);
}

/* ---- fields and messages ---------------------------------------------------------------------- */

static void print_list(printer *p, const ProtobufCMessage *message, const escqrs_field *field,
                       unsigned depth)
{
    size_t count = *(const size_t *)member(message, field->count_offset);
    const uint8_t *items = *(const uint8_t *const *)member(message, field->value_offset);
    size_t item_size = escqrs_kind_size(field->kind);
    esc_writer_put(&p->writer, "[", 1);
    for (size_t i = 0; i < count && p->status == ESCQRS_OK; i++) {
        if (i > 0) {
            esc_writer_put(&p->writer, ",", 1);
        }
        print_value(p, message, field, items + i * item_size, depth);
    }
    esc_writer_put(&p->writer, "]", 1);
}

static bool is_present(const ProtobufCMessage *message, const escqrs_field *field)
{
    if (field->has_offset != 0) {
        return *(const protobuf_c_boolean *)member(message, field->has_offset) != 0;
    }
    return *(const void *const *)member(message, field->value_offset) != NULL;
}

static void print_field(printer *p, const ProtobufCMessage *message, const escqrs_field *field,
                        unsigned depth)
{
    if (field->label == ESCQRS_LIST) {
        print_list(p, message, field, depth);
        return;
    }
    if (field->label == ESCQRS_MAP) {
        print_map(p, message, field, depth);
        return;
    }
    if (is_present(message, field)) {
        print_value(p, message, field, member(message, field->value_offset), depth);
    } else {
        esc_writer_text(&p->writer, "null");
    }
}

static void print_fields(printer *p, const escqrs_schema *schema, const ProtobufCMessage *message,
                         unsigned depth)
{
    const char *separator = "";
    esc_writer_put(&p->writer, "{", 1);
    for (size_t i = 0; i < schema->field_count && p->status == ESCQRS_OK; i++) {
        const escqrs_field *field = &schema->fields[i];
        if (schema->is_union && !is_present(message, field)) {
            continue;
        }
        esc_writer_text(&p->writer, separator);
        separator = ",";
        esc_json_text(&p->writer, (const uint8_t *)field->name, strlen(field->name));
        esc_writer_put(&p->writer, ":", 1);
        print_field(p, message, field, depth);
    }
    esc_writer_put(&p->writer, "}", 1);
}

static escqrs_status finish(printer *p, escqrs_error *error)
{
    bool written = esc_writer_finish(&p->writer);
    switch (p->status) {
    case ESCQRS_OK:
        if (written) {
            return ESCQRS_OK;
        }
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for JSON text");
    case ESCQRS_INVALID:
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s.%s: NaN and infinities cannot be written as JSON", p->message,
                                p->field);
    case ESCQRS_TOO_LARGE:
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "%s.%s: messages nested too deep for JSON",
                                p->message, p->field);
    default:
        return escqrs_error_set(error, p->status, "%s.%s: out of memory for JSON text", p->message,
                                p->field);
    }
}

escqrs_status escqrs_field_to_json(const escqrs_field *field, const ProtobufCMessage *message,
                                   escqrs_write_function write, void *context, escqrs_error *error)
{
    printer p = {.status = ESCQRS_OK};
    esc_writer_init(&p.writer, write, context);
    print_field(&p, message, field, 0);
    return finish(&p, error);
}

escqrs_status escqrs_message_to_json(const escqrs_schema *schema, const ProtobufCMessage *message,
                                     escqrs_write_function write, void *context,
                                     escqrs_error *error)
{
    printer p = {.status = ESCQRS_OK};
    esc_writer_init(&p.writer, write, context);
    print_fields(&p, schema, message, 0);
    return finish(&p, error);
}
