/* python/json.c - see json.h.
 *
 * Texts, numbers and bytes are written by the core's own printers (schema/json.h); a message is
 * packed and unpacked, and printed by the core as a whole. Locks: none; the GIL guards the objects.
 */
#include "python/json.h"

#include <datetime.h>
#include <math.h>
#include <string.h>

#include "python/message_parts.h"
#include "schema/json.h"

typedef struct printer {
    esc_py_state *state;
    esc_writer writer;
} printer;

int esc_py_json_exec(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

static int print_value(printer *p, PyObject *value, unsigned depth);

/* ---- single values ---------------------------------------------------------------------------- */

static int print_text(printer *p, PyObject *value)
{
    Py_ssize_t size = 0;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            PyErr_Format(PyExc_ValueError, "text that is not valid Unicode: %R", value);
        }
        return -1;
    }
    esc_json_text(&p->writer, (const uint8_t *)text, (size_t)size);
    return 0;
}

static int print_integer(printer *p, PyObject *value)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        PyErr_Format(PyExc_ValueError, "an integer beyond 64 bits: %R", value);
        return -1;
    }
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    esc_writer_format(&p->writer, "%lld", number);
    return 0;
}

static int print_float(printer *p, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    if (!isfinite(number)) {
        PyErr_SetString(PyExc_ValueError, "NaN and infinities cannot be written as JSON");
        return -1;
    }
    esc_json_double(&p->writer, number);
    return 0;
}

static int print_bytes(printer *p, PyObject *value)
{
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    esc_json_bytes(&p->writer, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return 0;
}

PyObject *esc_py_json_time(PyObject *value, const char *between)
{
    PyObject *zone = PyObject_GetAttrString(value, "tzinfo");
    if (zone == NULL) {
        return NULL;
    }
    bool naive = zone == Py_None;
    Py_DECREF(zone);
    if (naive) {
        PyErr_Format(PyExc_ValueError,
                     "a datetime without a time zone: %R; events hold times in UTC", value);
        return NULL;
    }
    PyObject *utc = PyObject_CallMethod(value, "astimezone", "O", PyDateTime_TimeZone_UTC);
    PyObject *text =
        utc == NULL ? NULL : PyObject_CallMethod(utc, "isoformat", "ss", between, "microseconds");
    Py_XDECREF(utc);
    if (text != NULL && !PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "isoformat() of a datetime is no str: %R", text);
        Py_CLEAR(text);
    }
    return text;
}

/* Decimal and UUID are known once a class has a field of that type. */
static int is_printed_whole(esc_py_state *state, PyObject *value)
{
    PyObject *types[] = {state->message.decimal, state->message.uuid};
    int found = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types && found == 0; i++) {
        found = types[i] == NULL ? 0 : PyObject_IsInstance(value, types[i]);
    }
    return found;
}

int esc_py_json_stored_text(esc_py_state *state, PyObject *value, PyObject **text)
{
    *text = NULL;
    if (PyTime_Check(value) && PyDateTime_TIME_GET_TZINFO(value) != Py_None) {
        PyErr_Format(PyExc_ValueError, "a time with a time zone: %R; events hold none", value);
        return -1;
    }
    if (PyTime_Check(value) || (PyDate_Check(value) && !PyDateTime_Check(value))) {
        *text = PyObject_CallMethod(value, "isoformat", NULL);
        return *text == NULL ? -1 : 0;
    }
    int whole = is_printed_whole(state, value);
    if (whole > 0) {
        *text = PyObject_Str(value);
    }
    return whole < 0 || (whole > 0 && *text == NULL) ? -1 : 0;
}

static int print_time(printer *p, PyObject *value)
{
    PyObject *text = esc_py_json_time(value, "T");
    Py_ssize_t size = 0;
    const char *data = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
    if (data != NULL) {
        Py_ssize_t zone = size >= 6 && strcmp(data + size - 6, "+00:00") == 0 ? 6 : 0;
        esc_writer_text(&p->writer, "\"");
        esc_writer_put(&p->writer, data, (size_t)(size - zone));
        esc_writer_text(&p->writer, "Z\"");
    }
    Py_XDECREF(text);
    return data == NULL ? -1 : 0;
}

static int print_enum(printer *p, PyObject *value)
{
    PyObject *name = PyObject_GetAttrString(value, "name");
    int failed = -1;
    if (name != NULL && PyUnicode_Check(name)) {
        failed = print_text(p, name);
    } else if (name != NULL) {
        PyErr_Format(PyExc_TypeError, "an enum value without a name: %R", value);
    }
    Py_XDECREF(name);
    return failed;
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool pass_on(void *context, const char *text, size_t size)
{
    esc_writer_put(context, text, size);
    return true;
}

static int print_message(printer *p, PyObject *value)
{
    const escqrs_schema *schema = esc_py_message_schema(Py_TYPE(value));
    esc_buffer packed = {0};
    ProtobufCMessage *message = NULL;
    escqrs_error error = {0};
    int failed = schema == NULL ? -1 : esc_py_message_pack(value, &packed);
    if (!failed) {
        escqrs_status status =
            escqrs_message_unpack(schema, esc_buffer_slice(&packed), NULL, &message, &error);
        if (status == ESCQRS_OK) {
            status = escqrs_message_to_json(schema, message, pass_on, &p->writer, &error);
        }
        if (status != ESCQRS_OK) {
            esc_py_raise(p->state, &error);
            failed = -1;
        }
    }
    escqrs_message_free(message);
    esc_buffer_fini(&packed);
    return failed;
}

/* ---- containers ------------------------------------------------------------------------------ */

static int print_list(printer *p, PyObject *value, unsigned depth)
{
    PyObject *items = PySequence_Tuple(value); /* the list may change while Python code runs */
    int failed = items == NULL ? -1 : 0;
    esc_writer_text(&p->writer, "[");
    for (Py_ssize_t i = 0; !failed && i < PyTuple_GET_SIZE(items); i++) {
        esc_writer_text(&p->writer, i > 0 ? "," : "");
        failed = print_value(p, PyTuple_GET_ITEM(items, i), depth + 1);
    }
    esc_writer_text(&p->writer, "]");
    Py_XDECREF(items);
    return failed;
}

static int print_key(printer *p, PyObject *key)
{
    if (PyUnicode_Check(key)) {
        return print_text(p, key);
    }
    if (!PyLong_Check(key) || PyBool_Check(key)) {
        PyErr_Format(PyExc_TypeError, "the keys of a dict are str or int, not %.200s",
                     Py_TYPE(key)->tp_name);
        return -1;
    }
    esc_writer_text(&p->writer, "\"");
    int failed = print_integer(p, key);
    esc_writer_text(&p->writer, "\"");
    return failed;
}

static int print_dict(printer *p, PyObject *value, unsigned depth)
{
    PyObject *items = PyDict_Items(value);
    int failed = items == NULL ? -1 : 0;
    esc_writer_text(&p->writer, "{");
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        esc_writer_text(&p->writer, i > 0 ? "," : "");
        failed = print_key(p, PyTuple_GET_ITEM(pair, 0));
        if (!failed) {
            esc_writer_text(&p->writer, ":");
            failed = print_value(p, PyTuple_GET_ITEM(pair, 1), depth + 1);
        }
    }
    esc_writer_text(&p->writer, "}");
    Py_XDECREF(items);
    return failed;
}

static int print_value(printer *p, PyObject *value, unsigned depth)
{
    if (depth > ESC_PY_DEPTH_MAX) {
        PyErr_SetString(PyExc_ValueError, "nested too deep for JSON");
        return -1;
    }
    if (value == Py_None || PyBool_Check(value)) {
        esc_writer_text(&p->writer, value == Py_None   ? "null"
                                    : value == Py_True ? "true"
                                                       : "false");
        return 0;
    }
    int is_enum = PyObject_IsInstance(value, p->state->rows.enum_type);
    if (is_enum != 0) {
        return is_enum < 0 ? -1 : print_enum(p, value);
    }
    if (PyLong_Check(value)) {
        return print_integer(p, value);
    }
    if (PyFloat_Check(value)) {
        return print_float(p, value);
    }
    if (PyUnicode_Check(value)) {
        return print_text(p, value);
    }
    if (PyBytes_Check(value) || PyByteArray_Check(value)) {
        return print_bytes(p, value);
    }
    if (PyDateTime_Check(value)) {
        return print_time(p, value);
    }
    if (PyList_Check(value) || PyTuple_Check(value)) {
        return print_list(p, value, depth);
    }
    if (PyDict_Check(value)) {
        return print_dict(p, value, depth);
    }
    if (esc_py_message_kind(p->state, value) != ESC_PY_NONE) {
        return print_message(p, value);
    }
    PyObject *text;
    int failed = esc_py_json_stored_text(p->state, value, &text);
    if (text != NULL) {
        failed = print_text(p, text);
        Py_DECREF(text);
    } else if (failed == 0) {
        PyErr_Format(PyExc_TypeError, "JSON cannot hold a %.200s", Py_TYPE(value)->tp_name);
        failed = -1;
    }
    return failed;
}

static bool append(void *context, const char *text, size_t size)
{
    return esc_buffer_append(context, text, size) == ESCQRS_OK;
}

int esc_py_json_write(esc_py_state *state, PyObject *value, esc_buffer *out)
{
    printer p = {.state = state};
    esc_writer_init(&p.writer, append, out);
    int failed = print_value(&p, value, 0);
    if (!esc_writer_finish(&p.writer) && !failed) {
        PyErr_NoMemory();
        failed = -1;
    }
    return failed;
}
