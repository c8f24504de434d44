/* python/message_read.c - what a decoded struct holds, in stored form; the slots of messages.
 *
 * A slot is filled when its field is first read. What can be wrong was found when the bytes were
 * checked and verified (message_verify.c). No locks; the GIL is held.
 */
#include "python/message_parts.h"

#include <datetime.h>
#include <stdlib.h>
#include <string.h>

int esc_py_message_read_exec(PyObject *module)
{
    (void)module;
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

static int compare_numbers(const void *key, const void *member)
{
    int32_t a = *(const int32_t *)key;
    int32_t b = ((const esc_py_member *)member)->number;
    return (a > b) - (a < b);
}

const esc_py_member *esc_py_member_numbered(const esc_py_field *field, int32_t number)
{
    return bsearch(&number, field->by_number, field->member_count, sizeof *field->by_number,
                   compare_numbers);
}

static PyObject *member_of(esc_py_layout *layout, const esc_py_field *field, int32_t number)
{
    const esc_py_member *found = esc_py_member_numbered(field, number);
    if (found == NULL) { /* verified when decoded; a field of a wider message that was not */
        PyErr_Format(esc_py_error_class(layout->state, ESCQRS_CORRUPT),
                     "%U.%U: %d is not the number of a member of %s", layout->title, field->name,
                     (int)number, ((PyTypeObject *)field->type)->tp_name);
        return NULL;
    }
    return Py_NewRef(found->object);
}

/* Days since 1970-01-01 to a date of the proleptic Gregorian calendar, by 400-year eras. */
static void date_of_days(int64_t days, int *year, int *month, int *day)
{
    days += 719468; /* from 0000-03-01 */
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153; /* months from March */
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2 ? 1 : 0));
}

static PyObject *corrupt(esc_py_layout *layout, const esc_py_field *field, const char *what)
{
    PyErr_Format(esc_py_error_class(layout->state, ESCQRS_CORRUPT), "%U.%U: %s", layout->title,
                 field->name, what);
    return NULL;
}

static PyObject *time_of(esc_py_layout *layout, const esc_py_field *field,
                         const escqrs_timestamp *stamp)
{
    if (stamp->seconds < ESC_PY_SECONDS_MIN || stamp->seconds > ESC_PY_SECONDS_MAX) {
        PyErr_Format(esc_py_error_class(layout->state, ESCQRS_CORRUPT),
                     "%U.%U: a time outside the years 1 to 9999", layout->title, field->name);
        return NULL;
    }
    int64_t days = stamp->seconds / ESC_PY_SECONDS_A_DAY;
    int seconds = (int)(stamp->seconds % ESC_PY_SECONDS_A_DAY);
    if (seconds < 0) {
        seconds += ESC_PY_SECONDS_A_DAY;
        days--;
    }
    int year, month, day;
    date_of_days(days, &year, &month, &day);
    return PyDateTimeAPI->DateTime_FromDateAndTime(
        year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60, stamp->nanos / 1000,
        layout->state->message.utc, PyDateTimeAPI->DateTimeType);
}

ProtobufCMessage *esc_py_union_value(const esc_py_field *field, const ProtobufCMessage *packed,
                                     const esc_py_member **member)
{
    ProtobufCMessage *found = NULL;
    for (size_t i = 0; i < field->member_count; i++) {
        const escqrs_field *in = escqrs_schema_field(field->in->message, i);
        ProtobufCMessage *value =
            *(ProtobufCMessage *const *)((const char *)packed + in->value_offset);
        if (value != NULL) {
            if (found != NULL) {
                return NULL;
            }
            found = value;
            *member = &field->by_number[i];
        }
    }
    return found;
}

static PyObject *parts_of(esc_py_layout *parts, const ProtobufCMessage *packed,
                          esc_py_message *from)
{
    PyObject *result = PyTuple_New(parts->count);
    for (uint32_t i = 0; result != NULL && i < parts->count; i++) {
        PyObject *item = esc_py_value_read(parts, i, packed, from);
        if (item == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, i, item);
    }
    return result;
}

static PyObject *nested_of(esc_py_layout *layout, const esc_py_field *field,
                           ProtobufCMessage *packed, esc_py_message *from)
{
    PyTypeObject *cls = (PyTypeObject *)field->type;
    if (field->parts != NULL) {
        return parts_of(field->parts, packed, from);
    }
    if (field->is_union) {
        const esc_py_member *member = NULL;
        packed = esc_py_union_value(field, packed, &member);
        if (packed == NULL) { /* verified when decoded */
            return corrupt(layout, field, ESC_PY_NOT_ONE);
        }
        cls = (PyTypeObject *)member->object;
    }
    if (from != NULL) {
        return esc_py_message_inside(cls, packed, from);
    }
    /* The struct belongs to somebody else: read a copy of it. */
    esc_buffer bytes = {0};
    size_t size = protobuf_c_message_get_packed_size(packed);
    uint8_t *data = NULL;
    PyObject *copy = NULL;
    if (esc_buffer_extend(&bytes, size, &data) != ESCQRS_OK) {
        PyErr_NoMemory();
    } else {
        protobuf_c_message_pack(packed, data);
        escqrs_limits limits = {.bytes_max = size + 1};
        copy = esc_py_message_decode(cls, esc_buffer_slice(&bytes), &limits);
    }
    esc_buffer_fini(&bytes);
    return copy;
}

/* Most text is ASCII, which is copied as it is; that it is UTF-8 was proved when it was decoded. */
static PyObject *text_of(const ProtobufCBinaryData *text)
{
    uint64_t word;
    uint64_t bits = 0;
    size_t at = 0;
    for (; at + sizeof word <= text->len; at += sizeof word) {
        memcpy(&word, text->data + at, sizeof word);
        bits |= word;
    }
    for (; at < text->len; at++) {
        bits |= text->data[at];
    }
    bool ascii = (bits & UINT64_C(0x8080808080808080)) == 0;
    if (!ascii || text->len < 2) { /* Python has a single object for each shorter one */
        return PyUnicode_DecodeUTF8((const char *)text->data, (Py_ssize_t)text->len, NULL);
    }
    PyObject *result = PyUnicode_New((Py_ssize_t)text->len, 127);
    if (result != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(result), text->data, text->len);
    }
    return result;
}

/* One value of the field's kind at `at`. */
static PyObject *read_one(esc_py_layout *layout, const esc_py_field *field, escqrs_kind kind,
                          const void *at, esc_py_message *from)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_SINT64:
    case ESCQRS_KIND_SFIXED64:
        return PyLong_FromLongLong(*(const int64_t *)at);
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SFIXED32:
        return PyLong_FromLong(*(const int32_t *)at);
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_FIXED32:
        return PyLong_FromUnsignedLong(*(const uint32_t *)at);
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_FIXED64:
        return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        return esc_py_form_read(layout->state, kind, at);
    case ESCQRS_KIND_DURATION:
        return esc_py_duration_read(*(escqrs_duration *const *)at);
    case ESCQRS_KIND_FLOAT:
        return PyFloat_FromDouble(*(const double *)at);
    case ESCQRS_KIND_FLOAT32:
        return PyFloat_FromDouble((double)*(const float *)at);
    case ESCQRS_KIND_BOOL:
        return PyBool_FromLong(*(const protobuf_c_boolean *)at);
    case ESCQRS_KIND_STRING:
        return text_of(at);
    case ESCQRS_KIND_BYTES: {
        const ProtobufCBinaryData *bytes = at;
        return PyBytes_FromStringAndSize((const char *)bytes->data, (Py_ssize_t)bytes->len);
    }
    case ESCQRS_KIND_TIME:
        return time_of(layout, field, *(escqrs_timestamp *const *)at);
    case ESCQRS_KIND_ENUM:
        return member_of(layout, field, *(const int *)at);
    case ESCQRS_KIND_MESSAGE:
        return nested_of(layout, field, *(ProtobufCMessage *const *)at, from);
    }
    Py_UNREACHABLE();
}

static PyObject *read_list(esc_py_layout *layout, const esc_py_field *field,
                           const ProtobufCMessage *packed, esc_py_message *from)
{
    const char *base = (const char *)packed;
    size_t count = *(const size_t *)(base + field->in->count_offset);
    const char *items = *(const char *const *)(base + field->in->value_offset);
    size_t step = escqrs_kind_size(field->kind);
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; result != NULL && i < count; i++) {
        PyObject *item = read_one(layout, field, field->kind, items + i * step, from);
        if (item == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, (Py_ssize_t)i, item);
    }
    if (result != NULL && esc_py_is_set(field)) {
        Py_SETREF(result, PyFrozenSet_New(result));
    }
    return result;
}

/* Key or value of an entry; what another writer left out is the kind's zero value. */
static PyObject *read_entry(esc_py_layout *layout, const esc_py_field *field, bool is_key,
                            const ProtobufCMessage *entry, esc_py_message *from)
{
    const escqrs_field *in = escqrs_schema_field(field->in->entry, is_key ? 0 : 1);
    if (is_key && field->keys != NULL) { /* verified when decoded */
        const void *text = (const char *)entry + in->value_offset;
        const esc_py_literal *found =
            esc_py_is_absent(in, entry) ? NULL : esc_py_key_of_text(field, text);
        return found != NULL ? Py_NewRef(found->object)
                             : corrupt(layout, field, ESC_PY_UNKNOWN_KEY);
    }
    if (esc_py_is_absent(in, entry)) {
        esc_py_field zero = *field;
        zero.label = ESCQRS_ONE;
        zero.kind = is_key ? field->key_kind : field->kind;
        zero.literals = is_key ? NULL : field->literals;
        PyObject *value = esc_py_zero(layout->state, &zero);
        if (value == NULL && !PyErr_Occurred()) {
            return corrupt(layout, field, is_key ? ESC_PY_NO_KEY : ESC_PY_NO_VALUE);
        }
        return value;
    }
    return read_one(layout, field, is_key ? field->key_kind : field->kind,
                    (const char *)entry + in->value_offset, from);
}

static PyObject *read_dict(esc_py_layout *layout, const esc_py_field *field,
                           const ProtobufCMessage *packed, esc_py_message *from)
{
    const char *base = (const char *)packed;
    size_t count = *(const size_t *)(base + field->in->count_offset);
    ProtobufCMessage *const *entries =
        *(ProtobufCMessage *const *const *)(base + field->in->value_offset);
    PyObject *result = PyDict_New();
    for (size_t i = 0; result != NULL && i < count; i++) {
        PyObject *key = read_entry(layout, field, true, entries[i], from);
        PyObject *value = key == NULL ? NULL : read_entry(layout, field, false, entries[i], from);
        if (value == NULL || PyDict_SetItem(result, key, value) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return result;
}

PyObject *esc_py_value_read(esc_py_layout *layout, uint32_t index, const ProtobufCMessage *packed,
                            esc_py_message *from)
{
    const esc_py_field *field = &layout->fields[index];
    switch (field->label) {
    case ESCQRS_LIST:
        return read_list(layout, field, packed, from);
    case ESCQRS_MAP:
        return read_dict(layout, field, packed, from);
    default:
        break;
    }
    if (!esc_py_is_absent(field->in, packed)) {
        return read_one(layout, field, field->kind, (const char *)packed + field->in->value_offset,
                        from);
    }
    PyObject *value = esc_py_absent_value(layout, index);
    if (value == NULL && !PyErr_Occurred()) {
        return corrupt(layout, field,
                       "the stored message does not have this field; give it a default");
    }
    return value;
}

int esc_py_values_unpack(esc_py_layout *layout, const ProtobufCMessage *packed, PyObject **values)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        values[i] = NULL;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        bool one = field->label == ESCQRS_ONE || field->label == ESCQRS_OPTIONAL;
        if (one && esc_py_is_absent(field->in, packed)) {
            values[i] = field->label == ESCQRS_OPTIONAL ? Py_NewRef(Py_None)
                                                        : esc_py_value_initial(layout, i);
            if (values[i] == NULL && PyErr_Occurred()) {
                goto fail;
            }
            continue;
        }
        PyObject *stored = esc_py_value_read(layout, i, packed, NULL);
        if (stored == NULL) {
            goto fail;
        }
        values[i] =
            field->label == ESCQRS_LIST ? esc_py_value_copy(field, stored) : Py_NewRef(stored);
        Py_DECREF(stored); /* a dict was made for this call: nobody else has it */
        if (values[i] == NULL) {
            goto fail;
        }
    }
    return 0;
fail:
    for (uint32_t i = 0; i < layout->count; i++) {
        Py_CLEAR(values[i]);
    }
    return -1;
}

PyObject *esc_py_message_slot(esc_py_message *message, uint32_t index)
{
    PyObject *value = message->slots[index];
    if (value == NULL && message->packed != NULL) {
        esc_py_layout *layout = esc_py_type_of((PyObject *)message)->layout;
        value = esc_py_value_read(layout, index, message->packed, message);
        if (value != NULL && message->slots[index] != NULL) {
            Py_DECREF(value); /* a factory's Python code read the same field first */
            return message->slots[index];
        }
        message->slots[index] = value;
    } else if (value == NULL) {
        PyErr_Format(PyExc_AttributeError, "%s: a field that is not set yet",
                     Py_TYPE(message)->tp_name);
    }
    return value;
}
