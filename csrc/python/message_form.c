/* python/message_form.c - values that are written as text (date, time, naive datetime, Decimal,
 * UUID), and timedelta.
 *
 * Their texts are those of isoformat() and str(); schema/form.h has proved what is read. Decimal
 * and uuid are imported when the first field of that type is sealed. Making a Decimal and printing
 * one may run Python code. No locks; the GIL is held.
 */
#include "python/message_parts.h"

#include <datetime.h>
#include <stdio.h>
#include <string.h>

#include "base/varint.h"
#include "schema/form.h"

#define DATE_SIZE 10
#define TEXT_SIZE 64          /* of all but decimals, with room for what snprintf expects */
#define SPAN_DAYS_MAX 3652500 /* 315,576,000,000 seconds, the range of google.protobuf.Duration */

int esc_py_form_exec(PyObject *module)
{
    (void)module;
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

static int import_type(PyObject **slot, const char *module, const char *name)
{
    if (*slot != NULL) {
        return 0;
    }
    PyObject *imported = PyImport_ImportModule(module);
    *slot = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);
    Py_XDECREF(imported);
    return *slot == NULL ? -1 : 0;
}

int esc_py_form_load(esc_py_state *state, escqrs_kind kind)
{
    esc_py_message_state *section = &state->message;
    if (kind == ESCQRS_KIND_DECIMAL) {
        return import_type(&section->decimal, "decimal", "Decimal");
    }
    if (kind != ESCQRS_KIND_UUID || section->uuid_safety != NULL) {
        return 0;
    }
    PyObject *safety = NULL;
    if (import_type(&section->uuid, "uuid", "UUID") < 0 ||
        import_type(&safety, "uuid", "SafeUUID") < 0) {
        return -1;
    }
    section->uuid_safety = PyObject_GetAttrString(safety, "unknown");
    Py_DECREF(safety);
    return section->uuid_safety == NULL ? -1 : 0;
}

/* ---- checks ----------------------------------------------------------------------------------- */

static PyObject *check_date(PyObject *value)
{
    if (!PyDate_Check(value) || PyDateTime_Check(value)) {
        return NULL;
    }
    if (PyDate_CheckExact(value)) {
        return Py_NewRef(value);
    }
    return PyDate_FromDate(PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value),
                           PyDateTime_GET_DAY(value));
}

static PyObject *check_clock(PyObject *value, const char **fault)
{
    if (!PyTime_Check(value)) {
        return NULL;
    }
    if (PyDateTime_TIME_GET_TZINFO(value) != Py_None) {
        *fault = "has a time zone, which a time of day cannot keep; use a datetime";
        return NULL;
    }
    if (PyTime_CheckExact(value) && PyDateTime_TIME_GET_FOLD(value) == 0) {
        return Py_NewRef(value);
    }
    return PyTime_FromTime(PyDateTime_TIME_GET_HOUR(value), PyDateTime_TIME_GET_MINUTE(value),
                           PyDateTime_TIME_GET_SECOND(value),
                           PyDateTime_TIME_GET_MICROSECOND(value));
}

static PyObject *check_local(PyObject *value, const char **fault)
{
    if (!PyDateTime_Check(value)) {
        return NULL;
    }
    if (PyDateTime_DATE_GET_TZINFO(value) != Py_None) {
        *fault = "has a time zone, and the field is an es.naive_datetime; annotate it as datetime";
        return NULL;
    }
    if (PyDateTime_CheckExact(value) && PyDateTime_DATE_GET_FOLD(value) == 0) {
        return Py_NewRef(value);
    }
    return PyDateTime_FromDateAndTime(
        PyDateTime_GET_YEAR(value), PyDateTime_GET_MONTH(value), PyDateTime_GET_DAY(value),
        PyDateTime_DATE_GET_HOUR(value), PyDateTime_DATE_GET_MINUTE(value),
        PyDateTime_DATE_GET_SECOND(value), PyDateTime_DATE_GET_MICROSECOND(value));
}

static PyObject *check_duration(PyObject *value, const char **fault)
{
    if (!PyDelta_Check(value)) {
        return NULL;
    }
    int days = PyDateTime_DELTA_GET_DAYS(value);
    bool rest =
        PyDateTime_DELTA_GET_SECONDS(value) != 0 || PyDateTime_DELTA_GET_MICROSECONDS(value) != 0;
    if (days < -SPAN_DAYS_MAX || days > SPAN_DAYS_MAX || (days == SPAN_DAYS_MAX && rest)) {
        *fault = "is beyond the 10,000 years of a protobuf Duration";
        return NULL;
    }
    if (PyDelta_CheckExact(value)) {
        return Py_NewRef(value);
    }
    return PyDelta_FromDSU(days, PyDateTime_DELTA_GET_SECONDS(value),
                           PyDateTime_DELTA_GET_MICROSECONDS(value));
}

/* A Decimal's text is its form if it is finite and not too long. */
static PyObject *check_decimal(esc_py_state *state, PyObject *value, const char **fault)
{
    PyObject *type = state->message.decimal;
    if (!PyObject_TypeCheck(value, (PyTypeObject *)type)) {
        return NULL;
    }
    PyObject *exact = Py_IS_TYPE(value, (PyTypeObject *)type) ? Py_NewRef(value)
                                                              : PyObject_CallOneArg(type, value);
    PyObject *text = exact == NULL ? NULL : PyObject_Str(exact);
    Py_ssize_t size = 0;
    const char *data = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
    if (data == NULL) {
        Py_CLEAR(exact);
    } else if (!esc_form_valid(ESCQRS_KIND_DECIMAL, (const uint8_t *)data, (size_t)size)) {
        *fault = "is not a finite number of at most 4,096 characters and 6 digits of exponent";
        Py_CLEAR(exact);
    }
    Py_XDECREF(text);
    return exact;
}

static PyObject *check_uuid(esc_py_state *state, PyObject *value)
{
    PyObject *type = state->message.uuid;
    if (Py_IS_TYPE(value, (PyTypeObject *)type)) {
        return Py_NewRef(value);
    }
    if (!PyObject_TypeCheck(value, (PyTypeObject *)type)) {
        return NULL;
    }
    PyObject *text = PyObject_GetAttrString(value, "hex");
    PyObject *exact = text == NULL ? NULL : PyObject_CallOneArg(type, text);
    Py_XDECREF(text);
    return exact;
}

PyObject *esc_py_form_check(esc_py_state *state, escqrs_kind kind, PyObject *value,
                            const char **fault)
{
    *fault = NULL;
    switch (kind) {
    case ESCQRS_KIND_DATE:
        return check_date(value);
    case ESCQRS_KIND_CLOCK:
        return check_clock(value, fault);
    case ESCQRS_KIND_LOCAL:
        return check_local(value, fault);
    case ESCQRS_KIND_DURATION:
        return check_duration(value, fault);
    case ESCQRS_KIND_DECIMAL:
        return check_decimal(state, value, fault);
    default:
        return check_uuid(state, value);
    }
}

/* ---- packing ---------------------------------------------------------------------------------- */

static int append(esc_buffer *out, const char *text, size_t size)
{
    uint8_t length[ESC_VARINT_SIZE_MAX];
    size_t length_size = esc_varint_encode(size, length);
    if (esc_buffer_append(out, length, length_size) != ESCQRS_OK ||
        esc_buffer_append(out, text, size) != ESCQRS_OK) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static size_t print_date(char *text, PyObject *value)
{
    return (size_t)snprintf(text, TEXT_SIZE, "%04d-%02d-%02d", PyDateTime_GET_YEAR(value),
                            PyDateTime_GET_MONTH(value), PyDateTime_GET_DAY(value));
}

static size_t print_clock(char *text, int hour, int minute, int second, int micros)
{
    if (micros == 0) {
        return (size_t)snprintf(text, TEXT_SIZE, "%02d:%02d:%02d", hour, minute, second);
    }
    return (size_t)snprintf(text, TEXT_SIZE, "%02d:%02d:%02d.%06d", hour, minute, second, micros);
}

/* The 128 bits of a UUID, which are its attribute `int`. */
static int pack_uuid(PyObject *value, esc_buffer *out)
{
    static const char digits[] = "0123456789abcdef";
    PyObject *number = PyObject_GetAttrString(value, "int");
    PyObject *shift = number == NULL ? NULL : PyLong_FromLong(64);
    PyObject *upper = shift == NULL ? NULL : PyNumber_Rshift(number, shift);
    uint64_t words[2] = {0, 0};
    if (upper != NULL) {
        words[0] = PyLong_AsUnsignedLongLongMask(upper);
        words[1] = PyLong_AsUnsignedLongLongMask(number);
    }
    Py_XDECREF(upper);
    Py_XDECREF(shift);
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        return -1;
    }
    char text[36];
    size_t used = 0;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            text[used++] = '-';
        }
        text[used++] = digits[words[i / 16] >> (60 - 4 * (i % 16)) & 15];
    }
    return append(out, text, used);
}

static int pack_decimal(PyObject *value, esc_buffer *out)
{
    PyObject *text = PyObject_Str(value);
    Py_ssize_t size = 0;
    const char *data = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
    int result = data == NULL ? -1 : append(out, data, (size_t)size);
    Py_XDECREF(text);
    return result;
}

int esc_py_form_pack(escqrs_kind kind, PyObject *value, esc_buffer *out)
{
    char text[2 * TEXT_SIZE];
    size_t size = 0;
    switch (kind) {
    case ESCQRS_KIND_DATE:
        size = print_date(text, value);
        break;
    case ESCQRS_KIND_CLOCK:
        size =
            print_clock(text, PyDateTime_TIME_GET_HOUR(value), PyDateTime_TIME_GET_MINUTE(value),
                        PyDateTime_TIME_GET_SECOND(value), PyDateTime_TIME_GET_MICROSECOND(value));
        break;
    case ESCQRS_KIND_LOCAL:
        size = print_date(text, value);
        text[size++] = 'T';
        size += print_clock(text + size, PyDateTime_DATE_GET_HOUR(value),
                            PyDateTime_DATE_GET_MINUTE(value), PyDateTime_DATE_GET_SECOND(value),
                            PyDateTime_DATE_GET_MICROSECOND(value));
        break;
    case ESCQRS_KIND_DECIMAL:
        return pack_decimal(value, out);
    default:
        return pack_uuid(value, out);
    }
    return append(out, text, size);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static int digits_at(const uint8_t *text, size_t count)
{
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static int micros_at(const uint8_t *text, size_t size)
{
    if (size <= 8) {
        return 0;
    }
    int value = digits_at(text + 9, size - 9);
    for (size_t digits = size - 9; digits < 6; digits++) {
        value *= 10;
    }
    return value;
}

static PyObject *read_local(const uint8_t *text, size_t size)
{
    const uint8_t *clock = text + DATE_SIZE + 1;
    return PyDateTime_FromDateAndTime(
        digits_at(text, 4), digits_at(text + 5, 2), digits_at(text + 8, 2), digits_at(clock, 2),
        digits_at(clock + 3, 2), digits_at(clock + 6, 2), micros_at(clock, size - DATE_SIZE - 1));
}

static int set_slot(PyObject *object, const char *name, PyObject *value)
{
    PyObject *key = PyUnicode_InternFromString(name);
    int result = key == NULL ? -1 : PyObject_GenericSetAttr(object, key, value);
    Py_XDECREF(key);
    return result;
}

/* As UUID.__init__ leaves it, at a fraction of its cost: the attributes are set past __setattr__,
 * which refuses. */
static PyObject *read_uuid(const esc_py_message_state *section, const uint8_t *text, size_t size)
{
    char hex[33];
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '-') {
            hex[used++] = (char)text[i];
        }
    }
    hex[used] = '\0';
    PyTypeObject *type = (PyTypeObject *)section->uuid;
    PyObject *number = PyLong_FromString(hex, NULL, 16);
    PyObject *arguments = number == NULL ? NULL : PyTuple_New(0);
    PyObject *value = arguments == NULL ? NULL : type->tp_new(type, arguments, NULL);
    if (value != NULL && (set_slot(value, "int", number) < 0 ||
                          set_slot(value, "is_safe", section->uuid_safety) < 0)) {
        Py_CLEAR(value);
    }
    Py_XDECREF(arguments);
    Py_XDECREF(number);
    return value;
}

PyObject *esc_py_form_read(esc_py_state *state, escqrs_kind kind, const ProtobufCBinaryData *text)
{
    const uint8_t *data = text->data;
    if (!esc_form_valid(kind, data, text->len)) { /* proved when decoded */
        PyErr_SetString(esc_py_error_class(state, ESCQRS_CORRUPT), esc_form_fault(kind));
        return NULL;
    }
    switch (kind) {
    case ESCQRS_KIND_DATE:
        return PyDate_FromDate(digits_at(data, 4), digits_at(data + 5, 2), digits_at(data + 8, 2));
    case ESCQRS_KIND_CLOCK:
        return PyTime_FromTime(digits_at(data, 2), digits_at(data + 3, 2), digits_at(data + 6, 2),
                               micros_at(data, text->len));
    case ESCQRS_KIND_LOCAL:
        return read_local(data, text->len);
    case ESCQRS_KIND_UUID:
        return read_uuid(&state->message, data, text->len);
    default:
        break;
    }
    PyObject *string = PyUnicode_FromStringAndSize((const char *)data, (Py_ssize_t)text->len);
    PyObject *value = string == NULL ? NULL : PyObject_CallOneArg(state->message.decimal, string);
    Py_XDECREF(string);
    return value;
}

/* Parts of different signs, which another writer may leave, count as their sum; what is finer than
 * a microsecond is cut off towards zero. */
PyObject *esc_py_duration_read(const escqrs_duration *duration)
{
    int64_t days = duration->seconds / ESC_PY_SECONDS_A_DAY;
    int64_t seconds = duration->seconds % ESC_PY_SECONDS_A_DAY;
    return PyDelta_FromDSU((int)days, (int)seconds, duration->nanos / 1000); /* normalizes */
}
