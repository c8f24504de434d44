/* python/message_pack.c - the encoder: from slots straight to protobuf bytes.
 *
 * A message that was decoded is packed by protobuf-c from the struct it reads from, unknown fields
 * included. One that was made in Python has no struct: its bytes are written here from the stored
 * forms, fields by number, every one of them (see the presence rule in escqrs/schema.h), without
 * building a struct first. Nested messages reserve one byte for their length and move up if it
 * needs more. The items of a set are sorted by their bytes, so that equal messages have equal ones.
 */
#include "python/message_parts.h"

#include <datetime.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/varint.h"
#include "schema/wire.h"

#define WIRE_VARINT 0u
#define WIRE_64BIT 1u
#define WIRE_BYTES 2u
#define WIRE_32BIT 5u

int esc_py_message_pack_exec(PyObject *module)
{
    (void)module;
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

/* Room first, then the put_ functions write without asking. */
static int room(esc_buffer *out, size_t size)
{
    if (out->capacity - out->size >= size) {
        return 0;
    }
    if (esc_buffer_reserve(out, size) != ESCQRS_OK) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static void put_varint(esc_buffer *out, uint64_t value)
{
    out->size += esc_varint_encode(value, out->data + out->size);
}

static void put_bytes(esc_buffer *out, const void *data, size_t size)
{
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_byte(esc_buffer *out, uint8_t byte)
{
    out->data[out->size++] = byte;
}

static void put_fixed32(esc_buffer *out, uint32_t bits)
{
    bits = htole32(bits);
    put_bytes(out, &bits, sizeof bits);
}

static void put_fixed64(esc_buffer *out, uint64_t bits)
{
    bits = htole64(bits);
    put_bytes(out, &bits, sizeof bits);
}

static void put_float(esc_buffer *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_fixed32(out, bits);
}

static void put_double(esc_buffer *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_fixed64(out, bits);
}

/* ---- text: without making Python keep its UTF-8 ------------------------------------------------ */

static size_t utf8_size(PyObject *text)
{
    size_t length = (size_t)PyUnicode_GET_LENGTH(text);
    size_t size = 0;
    switch (PyUnicode_KIND(text)) {
    case PyUnicode_1BYTE_KIND: {
        const Py_UCS1 *data = PyUnicode_1BYTE_DATA(text);
        for (size_t i = 0; i < length; i++) {
            size += 1u + (data[i] >= 0x80);
        }
        return size;
    }
    case PyUnicode_2BYTE_KIND: {
        const Py_UCS2 *data = PyUnicode_2BYTE_DATA(text);
        for (size_t i = 0; i < length; i++) {
            size += 1u + (data[i] >= 0x80) + (data[i] >= 0x800);
        }
        return size;
    }
    default: {
        const Py_UCS4 *data = PyUnicode_4BYTE_DATA(text);
        for (size_t i = 0; i < length; i++) {
            size += 1u + (data[i] >= 0x80) + (data[i] >= 0x800) + (data[i] >= 0x10000);
        }
        return size;
    }
    }
}

static void put_character(esc_buffer *out, Py_UCS4 c)
{
    if (c < 0x80) {
        put_byte(out, (uint8_t)c);
    } else if (c < 0x800) {
        put_byte(out, (uint8_t)(0xC0 | c >> 6));
        put_byte(out, (uint8_t)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        put_byte(out, (uint8_t)(0xE0 | c >> 12));
        put_byte(out, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        put_byte(out, (uint8_t)(0x80 | (c & 0x3F)));
    } else {
        put_byte(out, (uint8_t)(0xF0 | c >> 18));
        put_byte(out, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        put_byte(out, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        put_byte(out, (uint8_t)(0x80 | (c & 0x3F)));
    }
}

static int pack_text(PyObject *text, esc_buffer *out)
{
    size_t length = (size_t)PyUnicode_GET_LENGTH(text);
    if (PyUnicode_IS_ASCII(text)) {
        if (room(out, length + ESC_VARINT_SIZE_MAX) < 0) {
            return -1;
        }
        put_varint(out, length);
        put_bytes(out, PyUnicode_1BYTE_DATA(text), length);
        return 0;
    }
    size_t size = utf8_size(text);
    if (room(out, size + ESC_VARINT_SIZE_MAX) < 0) {
        return -1;
    }
    put_varint(out, size);
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    for (size_t i = 0; i < length; i++) {
        put_character(out, PyUnicode_READ(kind, data, (Py_ssize_t)i));
    }
    return 0;
}

/* ---- lengths that are known afterwards --------------------------------------------------------- */

/* Reserve the byte of a length; the position after it. */
static int begin_length(esc_buffer *out, size_t *start)
{
    if (room(out, 1) < 0) {
        return -1;
    }
    put_byte(out, 0);
    *start = out->size;
    return 0;
}

static int end_length(esc_buffer *out, size_t start)
{
    size_t size = out->size - start;
    if (size < 0x80) {
        out->data[start - 1] = (uint8_t)size;
        return 0;
    }
    size_t extra = esc_varint_size(size) - 1;
    if (room(out, extra) < 0) {
        return -1;
    }
    memmove(out->data + start + extra, out->data + start, size);
    (void)esc_varint_encode(size, out->data + start - 1);
    out->size += extra;
    return 0;
}

/* ---- one value -------------------------------------------------------------------------------- */

/* Days from 1970-01-01 of a date of the proleptic Gregorian calendar, by 400-year eras. */
static int64_t days_of_date(int year, int month, int day)
{
    int64_t shifted_year = year - (month <= 2 ? 1 : 0);
    int64_t era = (shifted_year >= 0 ? shifted_year : shifted_year - 399) / 400;
    int64_t year_of_era = shifted_year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

/* Zero parts are left out, as every other writer of Timestamps does. */
/* The body of a Timestamp or a Duration, with its length before it. */
static int pack_seconds(int64_t seconds, int64_t nanos, esc_buffer *out)
{
    if (room(out, 1 + 2 * (1 + ESC_VARINT_SIZE_MAX)) < 0) {
        return -1;
    }
    uint8_t *length = out->data + out->size;
    put_byte(out, 0);
    if (seconds != 0) {
        put_byte(out, 1u << 3 | WIRE_VARINT);
        put_varint(out, (uint64_t)seconds);
    }
    if (nanos != 0) {
        put_byte(out, 2u << 3 | WIRE_VARINT);
        put_varint(out, (uint64_t)nanos);
    }
    *length = (uint8_t)(out->data + out->size - length - 1);
    return 0;
}

static int pack_time(PyObject *value, esc_buffer *out)
{
    int64_t days = days_of_date(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                                PyDateTime_GET_DAY(value));
    int64_t seconds = days * ESC_PY_SECONDS_A_DAY + PyDateTime_DATE_GET_HOUR(value) * 3600 +
                      PyDateTime_DATE_GET_MINUTE(value) * 60 + PyDateTime_DATE_GET_SECOND(value);
    int nanos = PyDateTime_DATE_GET_MICROSECOND(value) * 1000;
    return pack_seconds(seconds, nanos, out);
}

/* Seconds and nanoseconds of one sign, zero parts left out, as every other writer of Durations. */
static int pack_duration(PyObject *value, esc_buffer *out)
{
    int64_t seconds = (int64_t)PyDateTime_DELTA_GET_DAYS(value) * ESC_PY_SECONDS_A_DAY +
                      PyDateTime_DELTA_GET_SECONDS(value);
    int64_t nanos = (int64_t)PyDateTime_DELTA_GET_MICROSECONDS(value) * 1000;
    if (seconds < 0 && nanos > 0) {
        seconds++;
        nanos -= 1000000000;
    }
    return pack_seconds(seconds, nanos, out);
}

const esc_py_member *esc_py_member_find(const esc_py_field *field, const PyObject *object)
{
    size_t low = 0;
    size_t high = field->member_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uintptr_t)field->by_object[middle].object < (uintptr_t)object) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < field->member_count && field->by_object[low].object == object;
    return found ? &field->by_object[low] : NULL;
}

static int64_t member_number(const esc_py_field *field, PyObject *value)
{
    const esc_py_member *member = esc_py_member_find(field, value);
    ESC_ASSERT(member != NULL); /* stored forms are checked */
    return member->number;
}

static int pack_parts(const esc_py_layout *parts, PyObject *value, esc_buffer *out)
{
    size_t start = 0;
    if (begin_length(out, &start) < 0) {
        return -1;
    }
    for (uint32_t i = 0; i < parts->count; i++) {
        if (esc_py_field_pack(&parts->fields[i], PyTuple_GET_ITEM(value, i), out) < 0) {
            return -1;
        }
    }
    return end_length(out, start);
}

static int pack_message(const esc_py_field *field, PyObject *value, esc_buffer *out)
{
    if (field->parts != NULL) {
        return pack_parts(field->parts, value, out);
    }
    size_t outer = 0;
    size_t start = 0;
    if (field->is_union) {
        int64_t number = member_number(field, (PyObject *)Py_TYPE(value));
        if (begin_length(out, &outer) < 0 || room(out, ESC_VARINT_SIZE_MAX) < 0) {
            return -1;
        }
        put_varint(out, (uint64_t)number << 3 | WIRE_BYTES);
    }
    if (begin_length(out, &start) < 0 || esc_py_message_pack(value, out) < 0 ||
        end_length(out, start) < 0) {
        return -1;
    }
    return field->is_union ? end_length(out, outer) : 0;
}

/* The bits of a checked integer of that kind as they are written. */
static uint64_t integer_bits(escqrs_kind kind, PyObject *value)
{
    if (kind == ESCQRS_KIND_UINT64 || kind == ESCQRS_KIND_FIXED64) {
        return PyLong_AsUnsignedLongLong(value);
    }
    int64_t number = PyLong_AsLongLong(value);
    bool zigzag = kind == ESCQRS_KIND_SINT32 || kind == ESCQRS_KIND_SINT64;
    return zigzag ? esc_wire_zigzag(number) : (uint64_t)number;
}

/* The value without its tag. */
static int pack_one(const esc_py_field *field, escqrs_kind kind, PyObject *value, esc_buffer *out)
{
    switch (kind) {
    case ESCQRS_KIND_STRING:
        return pack_text(value, out);
    case ESCQRS_KIND_BYTES: {
        size_t size = (size_t)PyBytes_GET_SIZE(value);
        if (room(out, size + ESC_VARINT_SIZE_MAX) < 0) {
            return -1;
        }
        put_varint(out, size);
        put_bytes(out, PyBytes_AS_STRING(value), size);
        return 0;
    }
    case ESCQRS_KIND_TIME:
        return pack_time(value, out);
    case ESCQRS_KIND_DURATION:
        return pack_duration(value, out);
    case ESCQRS_KIND_MESSAGE:
        return pack_message(field, value, out);
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        return esc_py_form_pack(kind, value, out);
    default:
        break;
    }
    if (room(out, ESC_VARINT_SIZE_MAX) < 0) {
        return -1;
    }
    switch (kind) {
    case ESCQRS_KIND_INT:
        put_varint(out, (uint64_t)PyLong_AsLongLong(value)); /* checked: fits */
        return 0;
    case ESCQRS_KIND_FLOAT:
        put_double(out, PyFloat_AS_DOUBLE(value));
        return 0;
    case ESCQRS_KIND_BOOL:
        put_byte(out, value == Py_True);
        return 0;
    case ESCQRS_KIND_ENUM:
        put_varint(out, (uint64_t)member_number(field, value));
        return 0;
    case ESCQRS_KIND_FLOAT32:
        put_float(out, (float)PyFloat_AS_DOUBLE(value));
        return 0;
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_SFIXED32:
        put_fixed32(out, (uint32_t)integer_bits(kind, value));
        return 0;
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED64:
        put_fixed64(out, integer_bits(kind, value));
        return 0;
    default:
        put_varint(out, integer_bits(kind, value));
        return 0;
    }
}

uint8_t esc_py_wire_of(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_FLOAT:
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED64:
        return WIRE_64BIT;
    case ESCQRS_KIND_FLOAT32:
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_SFIXED32:
        return WIRE_32BIT;
    default:
        break;
    }
    bool varint =
        escqrs_kind_is_integer(kind) || kind == ESCQRS_KIND_BOOL || kind == ESCQRS_KIND_ENUM;
    return varint ? WIRE_VARINT : WIRE_BYTES;
}

static int pack_tag(const esc_py_field *field, esc_buffer *out)
{
    if (room(out, sizeof field->tag) < 0) {
        return -1;
    }
    put_bytes(out, field->tag, field->tag_size);
    return 0;
}

static int pack_items(const esc_py_field *field, PyObject *items, bool packed, esc_buffer *out)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        if ((!packed && pack_tag(field, out) < 0) ||
            pack_one(field, field->kind, PyTuple_GET_ITEM(items, i), out) < 0) {
            return -1;
        }
    }
    return 0;
}

typedef struct piece {
    size_t offset; /* in the buffer */
    size_t size;
    const uint8_t *data; /* once the buffer has stopped growing */
} piece;

static int compare_pieces(const void *a, const void *b)
{
    const piece *x = a;
    const piece *y = b;
    int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

/* The pieces, which stand behind each other at the end of the buffer, in the order of their bytes.
 */
static int sort_pieces(piece *pieces, size_t count, esc_buffer *out)
{
    size_t start = pieces[0].offset;
    uint8_t *sorted = PyMem_Malloc(out->size - start + 1);
    if (sorted == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        size_t end = i + 1 < count ? pieces[i + 1].offset : out->size;
        pieces[i].size = end - pieces[i].offset;
        pieces[i].data = out->data + pieces[i].offset;
    }
    qsort(pieces, count, sizeof *pieces, compare_pieces);
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(sorted + used, pieces[i].data, pieces[i].size);
        used += pieces[i].size;
    }
    memcpy(out->data + start, sorted, used);
    PyMem_Free(sorted);
    return 0;
}

static int pack_set_items(const esc_py_field *field, PyObject *set, bool packed, esc_buffer *out)
{
    size_t count = 0;
    piece *pieces = PyMem_Calloc((size_t)PySet_GET_SIZE(set), sizeof *pieces);
    if (pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *iterator = PyObject_GetIter(set);
    PyObject *item;
    int result = iterator == NULL ? -1 : 0;
    while (result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        pieces[count++].offset = out->size;
        if ((!packed && pack_tag(field, out) < 0) || pack_one(field, field->kind, item, out) < 0) {
            result = -1;
        }
        Py_DECREF(item);
    }
    if (result == 0) {
        result = PyErr_Occurred() ? -1 : sort_pieces(pieces, count, out);
    }
    Py_XDECREF(iterator);
    PyMem_Free(pieces);
    return result;
}

static int pack_list(const esc_py_field *field, PyObject *value, esc_buffer *out)
{
    bool is_set = PyFrozenSet_CheckExact(value);
    if ((is_set ? PySet_GET_SIZE(value) : PyTuple_GET_SIZE(value)) == 0) {
        return 0;
    }
    bool packed = esc_py_wire_of(field->kind) != WIRE_BYTES;
    size_t start = 0;
    if (packed && (pack_tag(field, out) < 0 || begin_length(out, &start) < 0)) {
        return -1;
    }
    int result =
        is_set ? pack_set_items(field, value, packed, out) : pack_items(field, value, packed, out);
    return result == 0 && packed ? end_length(out, start) : result;
}

static int pack_map(const esc_py_field *field, PyObject *value, esc_buffer *out)
{
    Py_ssize_t position = 0;
    PyObject *key;
    PyObject *item;
    while (PyDict_Next(value, &position, &key, &item)) {
        size_t start = 0;
        if (pack_tag(field, out) < 0 || begin_length(out, &start) < 0 || room(out, 1) < 0) {
            return -1;
        }
        put_byte(out, (uint8_t)(1u << 3 | esc_py_wire_of(field->key_kind)));
        if (field->keys != NULL) {
            const esc_py_literal *found = esc_py_key_of_object(field, key);
            ESC_ASSERT(found != NULL); /* stored forms are checked */
            key = found->name;
        }
        if (pack_one(field, field->key_kind, key, out) < 0 || room(out, 1) < 0) {
            return -1;
        }
        put_byte(out, (uint8_t)(2u << 3 | esc_py_wire_of(field->kind)));
        if (pack_one(field, field->kind, item, out) < 0 || end_length(out, start) < 0) {
            return -1;
        }
    }
    return 0;
}

int esc_py_field_pack(const esc_py_field *field, PyObject *value, esc_buffer *out)
{
    switch (field->label) {
    case ESCQRS_LIST:
        return pack_list(field, value, out);
    case ESCQRS_MAP:
        return pack_map(field, value, out);
    case ESCQRS_OPTIONAL:
        if (value == Py_None) {
            return 0;
        }
        break;
    default:
        break;
    }
    return pack_tag(field, out) < 0 ? -1 : pack_one(field, field->kind, value, out);
}

/* ---- whole messages --------------------------------------------------------------------------- */

static int pack_struct(const ProtobufCMessage *packed, esc_buffer *out)
{
    size_t size = protobuf_c_message_get_packed_size(packed);
    if (room(out, size) < 0) {
        return -1;
    }
    if (size > 0) {
        out->size += protobuf_c_message_pack(packed, out->data + out->size);
    }
    return 0;
}

static inline void put_tag(esc_buffer *out, const esc_py_field *field)
{
    out->data[out->size++] = field->tag[0];
    for (uint8_t i = 1; i < field->tag_size; i++) {
        out->data[out->size++] = field->tag[i];
    }
}

/* The commonest fields with one look at the room they need; 1 where it is none of them. */
static inline int pack_common(const esc_py_field *field, PyObject *value, esc_buffer *out)
{
    size_t extra = ESC_VARINT_SIZE_MAX;
    if (field->plain == ESCQRS_KIND_STRING && PyUnicode_IS_COMPACT_ASCII(value)) {
        extra += (size_t)PyUnicode_GET_LENGTH(value);
    } else if (field->plain == 0 || field->plain == ESCQRS_KIND_STRING) {
        return 1;
    }
    if (room(out, sizeof field->tag + extra) < 0) {
        return -1;
    }
    put_tag(out, field);
    switch (field->plain) {
    case ESCQRS_KIND_STRING:
        put_varint(out, extra - ESC_VARINT_SIZE_MAX);
        put_bytes(out, PyUnicode_1BYTE_DATA(value), extra - ESC_VARINT_SIZE_MAX);
        return 0;
    case ESCQRS_KIND_INT: /* checked: fits */
        put_varint(out, (uint64_t)(esc_py_is_small(value) ? esc_py_small_value(value)
                                                          : PyLong_AsLongLong(value)));
        return 0;
    case ESCQRS_KIND_FLOAT:
        put_double(out, PyFloat_AS_DOUBLE(value));
        return 0;
    default:
        put_byte(out, value == Py_True);
        return 0;
    }
}

int esc_py_message_pack(PyObject *object, esc_buffer *out)
{
    esc_py_message *message = (esc_py_message *)object;
    if (message->packed != NULL) {
        return pack_struct(message->packed, out);
    }
    const esc_py_layout *layout = esc_py_type_of(object)->layout;
    for (uint32_t i = 0; i < layout->count; i++) {
        uint32_t index = layout->order == NULL ? i : layout->order[i];
        const esc_py_field *field = &layout->fields[index];
        int result = pack_common(field, message->slots[index], out);
        if (result > 0) {
            result = esc_py_field_pack(field, message->slots[index], out);
        }
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

int esc_py_values_pack(esc_py_layout *layout, PyObject *const *values, esc_buffer *out)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        uint32_t index = layout->order == NULL ? i : layout->order[i];
        if (values[index] == NULL) {
            continue;
        }
        PyObject *stored = esc_py_value_check(layout, index, values[index]);
        if (stored == NULL) {
            return -1;
        }
        int result = esc_py_field_pack(&layout->fields[index], stored, out);
        Py_DECREF(stored);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}
