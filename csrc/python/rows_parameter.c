/* python/rows_parameter.c - the values of a statement's parameters, from Python.
 *
 * A value is bound as the same value of an event is by es.sql (see readmodel/binding.h), so that
 * what a query asks for compares with what a projection has stored. Threads: the GIL guards all of
 * it; it may run Python code (a mapping's, an enum's, a time zone's). No locks.
 */
#include "python/rows_parts.h"

#define PY_SSIZE_T_CLEAN
#include <datetime.h>
#include <math.h>
#include <string.h>

#include "python/json.h"

/* ---- values -------------------------------------------------------------------------------- */

static int bind_text(sqlite3_stmt *statement, int index, PyObject *value)
{
    Py_ssize_t size = 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(value, &size);
    if (bytes == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "text that is not valid Unicode: %R", value);
        }
        return -1;
    }
    return sqlite3_bind_text64(statement, index, bytes, (sqlite3_uint64)size, SQLITE_TRANSIENT,
                               SQLITE_UTF8);
}

static int bind_time(sqlite3_stmt *statement, int index, PyObject *value)
{
    PyObject *text = esc_py_json_time(value, " ");
    int code = text == NULL ? -1 : bind_text(statement, index, text);
    Py_XDECREF(text);
    return code;
}

/* Its seconds, as protobuf's Duration splits it: both parts have the same sign. */
static int bind_duration(sqlite3_stmt *statement, int index, PyObject *value)
{
    int64_t seconds =
        (int64_t)PyDateTime_DELTA_GET_DAYS(value) * 86400 + PyDateTime_DELTA_GET_SECONDS(value);
    int64_t nanos = (int64_t)PyDateTime_DELTA_GET_MICROSECONDS(value) * 1000;
    if (seconds < 0 && nanos > 0) {
        seconds++;
        nanos -= 1000000000;
    }
    return sqlite3_bind_double(statement, index, (double)seconds + (double)nanos / 1e9);
}

static int bind_integer(sqlite3_stmt *statement, int index, PyObject *value)
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
    return sqlite3_bind_int64(statement, index, number);
}

static int bind_bytes(sqlite3_stmt *statement, int index, PyObject *value)
{
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int code = sqlite3_bind_blob64(statement, index, view.len == 0 ? "" : view.buf,
                                   (sqlite3_uint64)view.len, SQLITE_TRANSIENT);
    PyBuffer_Release(&view);
    return code;
}

/* What is no value of SQL's own. */
static int bind_json(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    esc_py_state *state = rows->system->state;
    if (!PyList_Check(value) && !PyTuple_Check(value) && !PyDict_Check(value) &&
        esc_py_message_kind(state, value) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError,
                     "a parameter is None, bool, int, float, str, bytes, datetime, date, time, "
                     "timedelta, Decimal, UUID, an Enum, a list, a dict or a message, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    esc_buffer text = {0};
    int code = esc_py_json_write(state, value, &text);
    if (code == 0) {
        code = sqlite3_bind_text64(statement, index, (const char *)text.data, text.size,
                                   SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    esc_buffer_fini(&text);
    return code;
}

/* SQLite's code, or -1 with an exception. As the parameters of es.sql are bound, so that the two
 * compare. */
static int bind_value(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    if (value == Py_None) {
        return sqlite3_bind_null(statement, index);
    }
    if (PyBool_Check(value)) {
        return sqlite3_bind_int(statement, index, value == Py_True);
    }
    int is_enum = PyObject_IsInstance(value, rows->system->state->rows.enum_type);
    if (is_enum != 0) {
        PyObject *name = is_enum < 0 ? NULL : PyObject_GetAttrString(value, "name");
        int code = -1;
        if (name != NULL && PyUnicode_Check(name)) {
            code = bind_text(statement, index, name);
        } else if (name != NULL) {
            PyErr_Format(PyExc_TypeError, "an enum value without a name: %R", value);
        }
        Py_XDECREF(name);
        return code;
    }
    if (PyLong_Check(value)) {
        return bind_integer(statement, index, value);
    }
    if (PyFloat_Check(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        if (isnan(number)) {
            PyErr_SetString(PyExc_ValueError, "NaN, which SQL cannot hold");
            return -1;
        }
        return sqlite3_bind_double(statement, index, number);
    }
    if (PyUnicode_Check(value)) {
        return bind_text(statement, index, value);
    }
    if (PyBytes_Check(value) || PyByteArray_Check(value) || PyMemoryView_Check(value)) {
        return bind_bytes(statement, index, value);
    }
    if (PyDateTime_Check(value)) {
        return bind_time(statement, index, value);
    }
    if (PyDelta_Check(value)) {
        return bind_duration(statement, index, value);
    }
    PyObject *text;
    if (esc_py_json_stored_text(rows->system->state, value, &text) < 0) {
        return -1;
    }
    if (text != NULL) {
        int code = bind_text(statement, index, text);
        Py_DECREF(text);
        return code;
    }
    return bind_json(rows, statement, index, value);
}

/* Say which parameter an exception is about. */
static void name_parameter(const char *name, int index)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type != NULL && value != NULL &&
        (PyErr_GivenExceptionMatches(type, PyExc_TypeError) ||
         PyErr_GivenExceptionMatches(type, PyExc_ValueError))) {
        PyObject *text = PyObject_Str(value);
        if (text != NULL) {
            if (name != NULL) {
                PyErr_Format(type, "parameter %s: %U", name, text);
            } else {
                PyErr_Format(type, "parameter %d: %U", index, text);
            }
            Py_DECREF(text);
            Py_DECREF(type);
            Py_DECREF(value);
            Py_XDECREF(traceback);
            return;
        }
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

static int bind_at(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    int code = bind_value(rows, statement, index, value);
    if (code == -1) {
        name_parameter(sqlite3_bind_parameter_name(statement, index), index);
        return -1;
    }
    if (code != SQLITE_OK) {
        esc_py_rows_raise(rows, code, sqlite3_sql(statement));
        return -1;
    }
    return 0;
}

/* Every key has its parameter. */
static int check_keys(sqlite3_stmt *statement, PyObject *keys)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        const char *text = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
        if (text == NULL) {
            PyErr_Clear();
            PyErr_Format(PyExc_TypeError, "the name of a parameter is a str, not %R", key);
            return -1;
        }
        bool known = false;
        int count = sqlite3_bind_parameter_count(statement);
        for (int j = 1; j <= count && !known; j++) {
            const char *name = sqlite3_bind_parameter_name(statement, j);
            known = name != NULL && strcmp(name + 1, text) == 0;
        }
        if (!known) {
            PyErr_Format(PyExc_ValueError, "the statement has no parameter :%s: %.500s", text,
                         sqlite3_sql(statement));
            return -1;
        }
    }
    return 0;
}

static int bind_mapping(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *mapping)
{
    PyObject *keys = PyMapping_Keys(mapping);
    if (keys == NULL) {
        return -1;
    }
    int failed = check_keys(statement, keys);
    Py_DECREF(keys);
    int count = sqlite3_bind_parameter_count(statement);
    for (int i = 1; failed == 0 && i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name == NULL || name[0] == '?') {
            PyErr_Format(PyExc_ValueError,
                         "a parameter without a name cannot be had from a mapping: %.500s",
                         sqlite3_sql(statement));
            return -1;
        }
        PyObject *value = PyMapping_GetItemString(mapping, name + 1);
        if (value == NULL) {
            if (PyErr_ExceptionMatches(PyExc_KeyError)) {
                PyErr_Format(PyExc_ValueError, "no value for the parameter %s: %.500s", name,
                             sqlite3_sql(statement));
            }
            return -1;
        }
        failed = bind_at(rows, statement, i, value);
        Py_DECREF(value);
    }
    return failed;
}

static int bind_sequence(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *sequence)
{
    int count = sqlite3_bind_parameter_count(statement);
    for (int i = 1; i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name != NULL && name[0] != '?') {
            PyErr_Format(PyExc_ValueError,
                         "the parameter %s has a name: give the values as a mapping: %.500s", name,
                         sqlite3_sql(statement));
            return -1;
        }
    }
    Py_ssize_t given = PySequence_Size(sequence);
    if (given < 0) {
        return -1;
    }
    if (given != count) {
        PyErr_Format(PyExc_ValueError, "%zd values for %d parameters: %.500s", given, count,
                     sqlite3_sql(statement));
        return -1;
    }
    for (int i = 1; i <= count; i++) {
        PyObject *value = PySequence_GetItem(sequence, i - 1);
        if (value == NULL) {
            return -1;
        }
        int failed = bind_at(rows, statement, i, value);
        Py_DECREF(value);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

int esc_py_rows_bind(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *parameters)
{
    if (parameters == NULL || parameters == Py_None ||
        (PyTuple_CheckExact(parameters) && PyTuple_GET_SIZE(parameters) == 0)) {
        if (sqlite3_bind_parameter_count(statement) == 0) {
            return 0;
        }
        const char *name = sqlite3_bind_parameter_name(statement, 1);
        PyErr_Format(PyExc_ValueError, "no value for the parameter %s: %.500s",
                     name == NULL ? "?" : name, sqlite3_sql(statement));
        return -1;
    }
    if (PyUnicode_Check(parameters) || PyBytes_Check(parameters)) {
        PyErr_SetString(PyExc_TypeError,
                        "parameters are a mapping or a sequence of values, not one text");
        return -1;
    }
    if (PyTuple_Check(parameters) || PyList_Check(parameters)) {
        return bind_sequence(rows, statement, parameters);
    }
    if (PyMapping_Check(parameters) && PyObject_HasAttrString(parameters, "keys")) {
        return bind_mapping(rows, statement, parameters);
    }
    if (PySequence_Check(parameters)) {
        return bind_sequence(rows, statement, parameters);
    }
    PyErr_Format(PyExc_TypeError, "parameters are a mapping or a sequence of values, not %.200s",
                 Py_TYPE(parameters)->tp_name);
    return -1;
}

int esc_py_rows_parameter_exec(PyObject *module)
{
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL || esc_py_json_exec() < 0) {
        return -1;
    }
    PyObject *found = PyImport_ImportModule("enum");
    if (found != NULL) {
        esc_py_state_of(module)->rows.enum_type = PyObject_GetAttrString(found, "Enum");
        Py_DECREF(found);
    }
    return esc_py_state_of(module)->rows.enum_type == NULL ? -1 : 0;
}
