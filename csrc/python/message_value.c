/* python/message_value.c - values of fields: strict checks, the stored form, copies for readers,
 * defaults, and what a decoded struct holds.
 *
 * The stored form (message.h) is what slots hold: immutable, exact types, nothing that the caller
 * can still change. Checking makes it; reading copies lists and dicts out of it. No locks; the GIL
 * is held. The check of decoded bytes (esc_py_layout_verify) reads layouts only and needs no GIL.
 */
#include "python/message_parts.h"

#include <datetime.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

int esc_py_message_value_exec(PyObject *module)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL) {
        return -1;
    }
    section->utc = Py_NewRef(PyDateTime_TimeZone_UTC);
    return 0;
}

/* ---- errors ----------------------------------------------------------------------------------- */

/* Where in a field a value stands: by itself, or as an item or key of a container. */
typedef struct place {
    esc_py_layout *layout;
    const esc_py_field *field;
    PyObject *key;    /* of a dict, or NULL */
    Py_ssize_t index; /* of a list, or -1 */
} place;

static PyObject *place_name(const place *at)
{
    if (at->key != NULL) {
        return PyUnicode_FromFormat("%U.%U[%R]", at->layout->title, at->field->name, at->key);
    }
    if (at->index >= 0) {
        return PyUnicode_FromFormat("%U.%U[%zd]", at->layout->title, at->field->name, at->index);
    }
    return PyUnicode_FromFormat("%U.%U", at->layout->title, at->field->name);
}

/* The value as error texts show it: its repr, cut. New reference; never NULL without an exception.
 */
static PyObject *shown(PyObject *value)
{
    PyObject *text = PyObject_Repr(value);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* a repr that fails must not hide what is wrong with the value */
        return PyUnicode_FromFormat("an object of %s", Py_TYPE(value)->tp_name);
    }
    if (text != NULL && PyUnicode_GET_LENGTH(text) > 100) {
        PyObject *cut = PyUnicode_Substring(text, 0, 100);
        Py_DECREF(text);
        text = cut == NULL ? NULL : PyUnicode_FromFormat("%U...", cut);
        Py_XDECREF(cut);
    }
    return text;
}

static PyObject *value_error(const place *at, const char *what, PyObject *value)
{
    PyObject *name = place_name(at);
    PyObject *text = name == NULL ? NULL : shown(value);
    if (text != NULL) {
        PyErr_Format(PyExc_ValueError, "%U: %U %s", name, text, what);
    }
    Py_XDECREF(name);
    Py_XDECREF(text);
    return NULL;
}

#define KIND_TEXT_SIZE 200

/* The classes of a union; returns `text`. */
static const char *union_text(const esc_py_field *field, char text[KIND_TEXT_SIZE])
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < field->member_count && used < KIND_TEXT_SIZE; i++) {
        const char *name = ((PyTypeObject *)field->by_number[i].object)->tp_name;
        used +=
            (size_t)snprintf(text + used, KIND_TEXT_SIZE - used, "%s%s", i > 0 ? " | " : "", name);
    }
    return text;
}

/* As it is annotated; may return `text`. */
static const char *kind_name(const esc_py_field *field, escqrs_kind kind, char text[KIND_TEXT_SIZE])
{
    switch (kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SINT64:
        return "int";
    case ESCQRS_KIND_DATE:
        return "date";
    case ESCQRS_KIND_CLOCK:
        return "time";
    case ESCQRS_KIND_LOCAL:
        return "datetime";
    case ESCQRS_KIND_DURATION:
        return "timedelta";
    case ESCQRS_KIND_DECIMAL:
        return "Decimal";
    case ESCQRS_KIND_UUID:
        return "UUID";
    case ESCQRS_KIND_FLOAT:
        return "float";
    case ESCQRS_KIND_BOOL:
        return "bool";
    case ESCQRS_KIND_STRING:
        return "str";
    case ESCQRS_KIND_BYTES:
        return "bytes";
    case ESCQRS_KIND_TIME:
        return "datetime";
    case ESCQRS_KIND_ENUM:
    case ESCQRS_KIND_MESSAGE:
        if (field->is_union) {
            return union_text(field, text);
        }
        ESC_ASSERT(field->type != NULL); /* no key is of such a kind */
        return ((PyTypeObject *)field->type)->tp_name;
    }
    return "?";
}

static PyObject *type_error(const place *at, const char *expected, PyObject *value)
{
    PyObject *name = place_name(at);
    PyObject *text = name == NULL ? NULL : shown(value);
    if (text != NULL) {
        PyObject *type = PyType_GetName(Py_TYPE(value));
        if (type != NULL) {
            const char *none = at->field->label == ESCQRS_OPTIONAL ? " or None" : "";
            PyErr_Format(PyExc_TypeError, "%U: expected %s%s, got %U (%U)", name, expected, none,
                         text, type);
            Py_DECREF(type);
        }
    }
    Py_XDECREF(name);
    Py_XDECREF(text);
    return NULL;
}

/* ---- checks: one value ------------------------------------------------------------------------ */

static bool has_surrogates(PyObject *text)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    if (PyUnicode_KIND(text) == PyUnicode_2BYTE_KIND) {
        const Py_UCS2 *data = PyUnicode_2BYTE_DATA(text);
        for (Py_ssize_t i = 0; i < length; i++) {
            if (Py_UNICODE_IS_SURROGATE(data[i])) {
                return true;
            }
        }
    } else if (PyUnicode_KIND(text) == PyUnicode_4BYTE_KIND) {
        const Py_UCS4 *data = PyUnicode_4BYTE_DATA(text);
        for (Py_ssize_t i = 0; i < length; i++) {
            if (Py_UNICODE_IS_SURROGATE(data[i])) {
                return true;
            }
        }
    }
    return false; /* Latin-1 has none */
}

static PyObject *check_text(const place *at, PyObject *value)
{
    if (!PyUnicode_Check(value)) {
        return type_error(at, "str", value);
    }
    if (PyUnicode_READY(value) < 0) {
        return NULL;
    }
    if (has_surrogates(value)) {
        return value_error(at, "is not valid Unicode: it holds lone surrogates", value);
    }
    if (PyUnicode_CheckExact(value)) {
        return Py_NewRef(value);
    }
    return PyUnicode_FromObject(value); /* of a subclass: an exact copy */
}

static PyObject *check_uint64(const place *at, PyObject *value)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return NULL;
        }
        PyErr_Clear();
        return value_error(at, "does not fit in 64 bits without a sign", value);
    }
    return PyLong_CheckExact(value) ? Py_NewRef(value) : PyLong_FromUnsignedLongLong(number);
}

static PyObject *check_int(const place *at, escqrs_kind kind, PyObject *value)
{
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        return type_error(at, "int", value);
    }
    if (kind == ESCQRS_KIND_UINT64) {
        return check_uint64(at, value);
    }
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (kind == ESCQRS_KIND_UINT32) {
        if (overflow != 0 || number < 0 || number > UINT32_MAX) {
            return value_error(at, "does not fit in 32 bits without a sign", value);
        }
    } else if (kind == ESCQRS_KIND_INT32 || kind == ESCQRS_KIND_SINT32) {
        if (overflow != 0 || number < INT32_MIN || number > INT32_MAX) {
            return value_error(at, "does not fit in 32 bits", value);
        }
    } else if (overflow != 0) {
        return value_error(at, "does not fit in 64 bits", value);
    }
    return PyLong_CheckExact(value) ? Py_NewRef(value) : PyLong_FromLongLong(number);
}

static PyObject *check_float(const place *at, PyObject *value)
{
    if (PyFloat_CheckExact(value)) {
        return Py_NewRef(value);
    }
    if (PyFloat_Check(value)) {
        return PyFloat_FromDouble(PyFloat_AS_DOUBLE(value));
    }
    if (!PyLong_Check(value) || PyBool_Check(value)) {
        return type_error(at, "float", value);
    }
    double number = PyLong_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return NULL;
        }
        PyErr_Clear();
        return value_error(at, "is too large for a float", value);
    }
    return PyFloat_FromDouble(number);
}

static PyObject *check_bytes(const place *at, PyObject *value)
{
    if (PyBytes_CheckExact(value)) {
        return Py_NewRef(value);
    }
    if (!PyBytes_Check(value)) {
        return type_error(at, "bytes", value);
    }
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
}

/* An aware datetime, as an exact one in UTC. */
static PyObject *check_time(const place *at, PyObject *value)
{
    if (!PyDateTime_Check(value)) {
        return type_error(at, "datetime", value);
    }
    PyObject *utc = at->layout->state->message.utc;
    PyObject *zone = PyDateTime_DATE_GET_TZINFO(value);
    if (zone == Py_None) {
        return value_error(
            at,
            "has no time zone; use an aware datetime, e.g. datetime.now(timezone.utc), or annotate "
            "the field as es.naive_datetime",
            value);
    }
    PyObject *moved = NULL;
    if (zone == utc) {
        if (PyDateTime_CheckExact(value) && PyDateTime_DATE_GET_FOLD(value) == 0) {
            return Py_NewRef(value);
        }
        moved = Py_NewRef(value);
    } else {
        PyObject *offset = PyObject_CallMethod(value, "utcoffset", NULL);
        if (offset == NULL) {
            return NULL;
        }
        bool naive = offset == Py_None; /* a zone that does not know */
        Py_DECREF(offset);
        if (naive) {
            return value_error(at, "has a time zone without offset; use one in UTC", value);
        }
        moved = PyObject_CallMethod(value, "astimezone", "O", utc);
        if (moved == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
                return NULL;
            }
            PyErr_Clear();
            return value_error(at, "is outside the years 1 to 9999 in UTC", value);
        }
        if (!PyDateTime_Check(moved)) {
            type_error(at, "datetime", moved);
            Py_DECREF(moved);
            return NULL;
        }
    }
    PyObject *exact = PyDateTimeAPI->DateTime_FromDateAndTime(
        PyDateTime_GET_YEAR(moved), PyDateTime_GET_MONTH(moved), PyDateTime_GET_DAY(moved),
        PyDateTime_DATE_GET_HOUR(moved), PyDateTime_DATE_GET_MINUTE(moved),
        PyDateTime_DATE_GET_SECOND(moved), PyDateTime_DATE_GET_MICROSECOND(moved), utc,
        PyDateTimeAPI->DateTimeType);
    Py_DECREF(moved);
    return exact;
}

/* A member of an older definition of the same enum (a notebook's cell run again) becomes the member
 * of that name. */
static PyObject *check_enum(const place *at, PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)at->field->type;
    if (Py_IS_TYPE(value, type)) {
        return Py_NewRef(value);
    }
    if (PyType_IsSubtype(Py_TYPE(Py_TYPE(value)), Py_TYPE(type)) &&
        esc_py_same_name(Py_TYPE(value), type)) {
        PyObject *name = PyObject_GetAttrString(value, "name");
        PyObject *member = name == NULL ? NULL : PyObject_GetItem((PyObject *)type, name);
        Py_XDECREF(name);
        if (member != NULL && Py_IS_TYPE(member, type)) {
            return member;
        }
        Py_XDECREF(member);
        PyErr_Clear();
    }
    return type_error(at, type->tp_name, value);
}

/* Derived classes are refused: what is read back would be of the field's class. One of an older
 * definition of the same class is read anew. */
static PyObject *check_message(const place *at, PyObject *value)
{
    const esc_py_field *field = at->field;
    PyTypeObject *type = (PyTypeObject *)field->type;
    if (field->is_union ? esc_py_member_find(field, (PyObject *)Py_TYPE(value)) != NULL
                        : Py_IS_TYPE(value, type)) {
        return Py_NewRef(value);
    }
    esc_py_state *state = at->layout->state;
    bool is_message = esc_py_message_kind(state, value) != ESC_PY_NONE;
    for (size_t i = 0; is_message && field->is_union && type == NULL && i < field->member_count;
         i++) {
        PyTypeObject *member = (PyTypeObject *)field->by_number[i].object;
        type = esc_py_same_name(Py_TYPE(value), member) ? member : NULL;
    }
    if (is_message && type != NULL && esc_py_same_name(Py_TYPE(value), type)) {
        esc_buffer bytes = {0};
        PyObject *copy = NULL;
        if (esc_py_message_pack(value, &bytes) == 0) {
            escqrs_limits limits = {.bytes_max = bytes.size + 1};
            copy = esc_py_message_decode(type, esc_buffer_slice(&bytes), &limits);
        }
        esc_buffer_fini(&bytes);
        if (copy != NULL || !PyErr_ExceptionMatches(state->errors.error)) {
            return copy;
        }
        PyErr_Clear();
    }
    char text[KIND_TEXT_SIZE];
    return type_error(at, kind_name(field, ESCQRS_KIND_MESSAGE, text), value);
}

static PyObject *check_form(const place *at, escqrs_kind kind, PyObject *value)
{
    const char *fault = NULL;
    PyObject *stored = esc_py_form_check(at->layout->state, kind, value, &fault);
    if (stored != NULL || PyErr_Occurred()) {
        return stored;
    }
    if (fault != NULL) {
        return value_error(at, fault, value);
    }
    char text[KIND_TEXT_SIZE];
    return type_error(at, kind_name(at->field, kind, text), value);
}

/* `stored` is of the right type; takes it over. */
static PyObject *check_literal(const place *at, PyObject *stored)
{
    const esc_py_field *field = at->field;
    for (size_t i = 0; i < field->literal_count; i++) {
        int same = PyObject_RichCompareBool(field->literals[i].object, stored, Py_EQ);
        if (same != 0) {
            Py_DECREF(stored);
            return same < 0 ? NULL : Py_NewRef(field->literals[i].object);
        }
    }
    PyObject *values = PyList_New(0);
    for (size_t i = 0; values != NULL && i < field->literal_count; i++) {
        if (PyList_Append(values, field->literals[i].object) < 0) {
            Py_CLEAR(values);
        }
    }
    PyObject *text = values == NULL ? NULL : PyUnicode_FromFormat("is not one of %R", values);
    const char *fault = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    if (fault != NULL) {
        (void)value_error(at, fault, stored);
    }
    Py_XDECREF(values);
    Py_XDECREF(text);
    Py_DECREF(stored);
    return NULL;
}

static PyObject *check_one(const place *at, escqrs_kind kind, PyObject *value)
{
    switch (kind) {
    case ESCQRS_KIND_STRING:
        return check_text(at, value);
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SINT64:
        return check_int(at, kind, value);
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DURATION:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        return check_form(at, kind, value);
    case ESCQRS_KIND_FLOAT:
        return check_float(at, value);
    case ESCQRS_KIND_BOOL:
        return PyBool_Check(value) ? Py_NewRef(value) : type_error(at, "bool", value);
    case ESCQRS_KIND_BYTES:
        return check_bytes(at, value);
    case ESCQRS_KIND_TIME:
        return check_time(at, value);
    case ESCQRS_KIND_ENUM:
        return check_enum(at, value);
    case ESCQRS_KIND_MESSAGE:
        return check_message(at, value);
    }
    Py_UNREACHABLE();
}

/* A value of the field itself, or of its items. */
static PyObject *check_value(const place *at, PyObject *value)
{
    PyObject *stored = check_one(at, at->field->kind, value);
    return stored == NULL || at->field->literals == NULL ? stored : check_literal(at, stored);
}

/* ---- checks: containers ----------------------------------------------------------------------- */

static PyObject *container_error(const place *at, PyObject *value)
{
    static const char *const names[] = {"list", "tuple", "set", "frozenset"};
    char text[KIND_TEXT_SIZE];
    char expected[2 * KIND_TEXT_SIZE];
    esc_py_collection collection = at->field->collection;
    PyOS_snprintf(expected, sizeof expected, "%s[%s%s]", names[collection],
                  kind_name(at->field, at->field->kind, text),
                  collection == ESC_PY_TUPLE ? ", ..." : "");
    return type_error(at, expected, value);
}

static bool is_collection(esc_py_collection collection, PyObject *value)
{
    switch (collection) {
    case ESC_PY_TUPLE:
        return PyTuple_Check(value);
    case ESC_PY_SET:
        return PySet_Check(value);
    case ESC_PY_FROZENSET:
        return PyFrozenSet_Check(value);
    default:
        return PyList_Check(value);
    }
}

static PyObject *check_set(place *at, PyObject *value)
{
    /* A tuple of its own first: checks may run Python code that changes the set. */
    PyObject *items = PySequence_Tuple(value);
    PyObject *checked = items == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; checked != NULL && i < PyTuple_GET_SIZE(items); i++) {
        at->key = PyTuple_GET_ITEM(items, i);
        PyObject *item = check_value(at, at->key);
        if (item == NULL || PyList_Append(checked, item) < 0) {
            Py_CLEAR(checked);
        }
        Py_XDECREF(item);
    }
    at->key = NULL;
    PyObject *result = checked == NULL ? NULL : PyFrozenSet_New(checked);
    Py_XDECREF(checked);
    Py_XDECREF(items);
    return result;
}

static PyObject *check_list(place *at, PyObject *value)
{
    if (!is_collection(at->field->collection, value)) {
        return container_error(at, value);
    }
    if (at->field->collection == ESC_PY_SET || at->field->collection == ESC_PY_FROZENSET) {
        return check_set(at, value);
    }
    /* A tuple of its own first: checks may run Python code that changes the list. */
    PyObject *items = PySequence_Tuple(value);
    if (items == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    PyObject *result = PyTuple_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        at->index = i;
        PyObject *item = check_value(at, PyTuple_GET_ITEM(items, i));
        if (item == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, i, item);
    }
    Py_DECREF(items);
    return result;
}

static PyObject *check_dict(place *at, PyObject *value)
{
    if (!PyDict_Check(value)) {
        char texts[2][KIND_TEXT_SIZE];
        char expected[3 * KIND_TEXT_SIZE];
        PyOS_snprintf(expected, sizeof expected, "dict[%s, %s]",
                      kind_name(at->field, at->field->key_kind, texts[0]),
                      kind_name(at->field, at->field->kind, texts[1]));
        return type_error(at, expected, value);
    }
    PyObject *copy =
        PyDict_Copy(value); /* as above; also of a subclass, without running its code */
    PyObject *result = copy == NULL ? NULL : PyDict_New();
    Py_ssize_t position = 0;
    PyObject *key;
    PyObject *item;
    while (result != NULL && PyDict_Next(copy, &position, &key, &item)) {
        place in_key = {at->layout, at->field, key, -1};
        PyObject *stored_key = check_one(&in_key, at->field->key_kind, key);
        PyObject *stored = stored_key == NULL ? NULL : check_value(&in_key, item);
        if (stored == NULL || PyDict_SetItem(result, stored_key, stored) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(stored_key);
        Py_XDECREF(stored);
    }
    Py_XDECREF(copy);
    return result;
}

PyObject *esc_py_value_check(esc_py_layout *layout, uint32_t index, PyObject *value)
{
    const esc_py_field *field = &layout->fields[index];
    place at = {layout, field, NULL, -1};
    switch (field->label) {
    case ESCQRS_OPTIONAL:
        if (value == Py_None) {
            return Py_NewRef(value);
        }
        return check_value(&at, value);
    case ESCQRS_LIST:
        return check_list(&at, value);
    case ESCQRS_MAP:
        return check_dict(&at, value);
    default:
        return check_value(&at, value);
    }
}

PyObject *esc_py_item_check(esc_py_layout *layout, uint32_t index, PyObject *key, Py_ssize_t at,
                            PyObject *item)
{
    const esc_py_field *field = &layout->fields[index];
    place where = {layout, field, key, at};
    return check_value(&where, item);
}

PyObject *esc_py_key_check(esc_py_layout *layout, uint32_t index, PyObject *key)
{
    const esc_py_field *field = &layout->fields[index];
    place where = {layout, field, key, -1};
    return check_one(&where, field->key_kind, key);
}

/* ---- reading ---------------------------------------------------------------------------------- */

PyObject *esc_py_value_copy(const esc_py_field *field, PyObject *value)
{
    switch (field->label) {
    case ESCQRS_LIST:
        switch (field->collection) {
        case ESC_PY_TUPLE:
            return PySequence_Tuple(value);
        case ESC_PY_SET:
            return PySet_New(value);
        case ESC_PY_FROZENSET:
            return PyFrozenSet_New(value);
        default:
            return PySequence_List(value);
        }
    case ESCQRS_MAP:
        return PyDict_Copy(value);
    default:
        return Py_NewRef(value);
    }
}

PyObject *esc_py_default(esc_py_layout *layout, uint32_t index)
{
    esc_py_field *field = &layout->fields[index];
    if (field->default_factory != NULL) {
        PyObject *made = PyObject_CallNoArgs(field->default_factory);
        PyObject *stored = made == NULL ? NULL : esc_py_value_check(layout, index, made);
        Py_XDECREF(made);
        return stored;
    }
    if (field->default_value == NULL) {
        return NULL;
    }
    if (!field->default_ready) {
        PyObject *stored = esc_py_value_check(layout, index, field->default_value);
        if (stored == NULL) {
            return NULL;
        }
        Py_SETREF(field->default_value, stored);
        field->default_ready = true;
    }
    return Py_NewRef(field->default_value);
}

static bool is_set(const esc_py_field *field)
{
    return field->collection == ESC_PY_SET || field->collection == ESC_PY_FROZENSET;
}

/* The literal that is the zero value of its type, or NULL. */
static const esc_py_literal *zero_literal(const esc_py_field *field)
{
    for (size_t i = 0; i < field->literal_count; i++) {
        if (field->literals[i].size == 0 && field->literals[i].number == 0) {
            return &field->literals[i];
        }
    }
    return NULL;
}

static PyObject *zero_of(esc_py_state *state, const esc_py_field *field)
{
    switch (field->label) {
    case ESCQRS_OPTIONAL:
        return Py_NewRef(Py_None);
    case ESCQRS_LIST:
        return is_set(field) ? PyFrozenSet_New(NULL) : PyTuple_New(0);
    case ESCQRS_MAP:
        return PyDict_New();
    default:
        break;
    }
    if (field->literals != NULL) {
        const esc_py_literal *zero = zero_literal(field);
        return zero == NULL ? NULL : Py_NewRef(zero->object);
    }
    switch (field->kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SINT64:
        return PyLong_FromLong(0);
    case ESCQRS_KIND_DECIMAL:
        return PyObject_CallNoArgs(state->message.decimal);
    case ESCQRS_KIND_DURATION:
        return PyDelta_FromDSU(0, 0, 0);
    case ESCQRS_KIND_FLOAT:
        return PyFloat_FromDouble(0.0);
    case ESCQRS_KIND_BOOL:
        return Py_NewRef(Py_False);
    case ESCQRS_KIND_STRING:
        return PyUnicode_New(0, 0);
    case ESCQRS_KIND_BYTES:
        return PyBytes_FromStringAndSize(NULL, 0);
    case ESCQRS_KIND_ENUM:
        for (size_t i = 0; i < field->member_count; i++) {
            if (field->by_number[i].number == 0) {
                return Py_NewRef(field->by_number[i].object);
            }
        }
        return NULL;
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_UUID:
    case ESCQRS_KIND_MESSAGE:
        return NULL;
    }
    Py_UNREACHABLE();
}

/* Stored form of an absent field: default, else zero, else NULL without an exception. */
static PyObject *absent_value(esc_py_layout *layout, uint32_t index)
{
    const esc_py_field *field = &layout->fields[index];
    bool container = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
    if (!container && field->label != ESCQRS_OPTIONAL) {
        PyObject *value = esc_py_default(layout, index);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return zero_of(layout->state, field);
}

PyObject *esc_py_value_initial(esc_py_layout *layout, uint32_t index)
{
    PyObject *stored = esc_py_default(layout, index);
    if (stored == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        stored = zero_of(layout->state, &layout->fields[index]);
    }
    if (stored == NULL) {
        return NULL;
    }
    PyObject *value = esc_py_value_copy(&layout->fields[index], stored);
    Py_DECREF(stored);
    return value;
}

static int compare_numbers(const void *key, const void *member)
{
    int32_t a = *(const int32_t *)key;
    int32_t b = ((const esc_py_member *)member)->number;
    return (a > b) - (a < b);
}

static PyObject *member_of(esc_py_layout *layout, const esc_py_field *field, int32_t number)
{
    const esc_py_member *found = bsearch(&number, field->by_number, field->member_count,
                                         sizeof *field->by_number, compare_numbers);
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

#define NO_KEY "an entry has no key"
#define NO_VALUE "an entry has no value"
#define NOT_ONE "the stored union is none of the classes that the field may hold, or several"

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

static PyObject *nested_of(esc_py_layout *layout, const esc_py_field *field,
                           ProtobufCMessage *packed, esc_py_message *from)
{
    PyTypeObject *cls = (PyTypeObject *)field->type;
    if (field->is_union) {
        const esc_py_member *member = NULL;
        packed = esc_py_union_value(field, packed, &member);
        if (packed == NULL) { /* verified when decoded */
            return corrupt(layout, field, NOT_ONE);
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

/* One value of the field's kind at `at`. */
static PyObject *read_one(esc_py_layout *layout, const esc_py_field *field, escqrs_kind kind,
                          const void *at, esc_py_message *from)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_SINT64:
        return PyLong_FromLongLong(*(const int64_t *)at);
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_SINT32:
        return PyLong_FromLong(*(const int32_t *)at);
    case ESCQRS_KIND_UINT32:
        return PyLong_FromUnsignedLong(*(const uint32_t *)at);
    case ESCQRS_KIND_UINT64:
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
    case ESCQRS_KIND_BOOL:
        return PyBool_FromLong(*(const protobuf_c_boolean *)at);
    case ESCQRS_KIND_STRING: {
        const ProtobufCBinaryData *text = at;
        return PyUnicode_DecodeUTF8((const char *)text->data, (Py_ssize_t)text->len, NULL);
    }
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
    if (result != NULL && is_set(field)) {
        Py_SETREF(result, PyFrozenSet_New(result));
    }
    return result;
}

static bool is_absent(const escqrs_field *field, const ProtobufCMessage *packed)
{
    const char *base = (const char *)packed;
    if (escqrs_kind_is_pointer(field->kind)) {
        return *(void *const *)(base + field->value_offset) == NULL;
    }
    return !*(const protobuf_c_boolean *)(base + field->has_offset);
}

/* Key or value of an entry; what another writer left out is the kind's zero value. */
static PyObject *read_entry(esc_py_layout *layout, const esc_py_field *field, bool is_key,
                            const ProtobufCMessage *entry, esc_py_message *from)
{
    const escqrs_field *in = escqrs_schema_field(field->in->entry, is_key ? 0 : 1);
    if (is_absent(in, entry)) {
        esc_py_field zero = *field;
        zero.label = ESCQRS_ONE;
        zero.kind = is_key ? field->key_kind : field->kind;
        zero.literals = is_key ? NULL : field->literals;
        PyObject *value = zero_of(layout->state, &zero);
        if (value == NULL && !PyErr_Occurred()) {
            return corrupt(layout, field, is_key ? NO_KEY : NO_VALUE);
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
    if (!is_absent(field->in, packed)) {
        return read_one(layout, field, field->kind, (const char *)packed + field->in->value_offset,
                        from);
    }
    PyObject *value = absent_value(layout, index);
    if (value == NULL && !PyErr_Occurred()) {
        return corrupt(layout, field,
                       "the stored message does not have this field; give it a default");
    }
    return value;
}

PyObject *esc_py_value_unpack(esc_py_layout *layout, uint32_t index, const ProtobufCMessage *packed)
{
    return esc_py_value_read(layout, index, packed, NULL);
}

int esc_py_values_unpack(esc_py_layout *layout, const ProtobufCMessage *packed, PyObject **values)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        values[i] = NULL;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        bool one = field->label == ESCQRS_ONE || field->label == ESCQRS_OPTIONAL;
        if (one && is_absent(field->in, packed)) {
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

size_t esc_py_value_depth(const esc_py_field *field, PyObject *value)
{
    size_t deepest = 0;
    if (field->kind != ESCQRS_KIND_MESSAGE || value == Py_None) {
        return 0;
    }
    size_t own = field->is_union ? 1 : 0;
    if (field->label == ESCQRS_LIST && is_set(field)) {
        PyObject *iterator = PyObject_GetIter(value);
        PyObject *item;
        while (iterator != NULL && (item = PyIter_Next(iterator)) != NULL) {
            size_t depth = esc_py_message_depth(item) + own;
            deepest = depth > deepest ? depth : deepest;
            Py_DECREF(item);
        }
        Py_XDECREF(iterator);
        return deepest;
    }
    if (field->label == ESCQRS_LIST) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
            size_t depth = esc_py_message_depth(PyTuple_GET_ITEM(value, i)) + own;
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest;
    }
    if (field->label == ESCQRS_MAP) {
        Py_ssize_t position = 0;
        PyObject *key;
        PyObject *item;
        while (PyDict_Next(value, &position, &key, &item)) {
            size_t depth = esc_py_message_depth(item) + own + 1; /* the entry */
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest;
    }
    return esc_py_message_depth(value) + own;
}

/* ---- verifying what was decoded --------------------------------------------------------------- */

static escqrs_status bad(const esc_py_layout *layout, const esc_py_field *field, const char *what,
                         escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_CORRUPT, "%s.%s: %s", escqrs_schema_name(layout->schema),
                            field->in->name, what);
}

static bool is_literal(const esc_py_field *field, const void *at)
{
    for (size_t i = 0; i < field->literal_count; i++) {
        const esc_py_literal *literal = &field->literals[i];
        if (field->kind == ESCQRS_KIND_INT) {
            if (*(const int64_t *)at == literal->number) {
                return true;
            }
            continue;
        }
        const ProtobufCBinaryData *text = at;
        if (text->len == literal->size &&
            (text->len == 0 || memcmp(text->data, literal->text, text->len) == 0)) {
            return true;
        }
    }
    return false;
}

static escqrs_status verify_one(const esc_py_layout *layout, const esc_py_field *field,
                                const void *at, escqrs_error *error)
{
    if (field->kind == ESCQRS_KIND_ENUM) {
        int32_t number = *(const int *)at;
        if (bsearch(&number, field->by_number, field->member_count, sizeof *field->by_number,
                    compare_numbers) == NULL) {
            return escqrs_error_set(error, ESCQRS_CORRUPT,
                                    "%s.%s: %ld is not the number of a member of the enum %s",
                                    escqrs_schema_name(layout->schema), field->in->name,
                                    (long)number, field->in->enum_name);
        }
    } else if (field->kind == ESCQRS_KIND_TIME) {
        const escqrs_timestamp *stamp = *(escqrs_timestamp *const *)at;
        if (stamp->seconds < ESC_PY_SECONDS_MIN || stamp->seconds > ESC_PY_SECONDS_MAX ||
            stamp->nanos < 0 || stamp->nanos > 999999999) {
            return bad(layout, field, "a time outside the years 1 to 9999", error);
        }
    } else if (field->kind == ESCQRS_KIND_MESSAGE) {
        const ProtobufCMessage *inner = *(ProtobufCMessage *const *)at;
        if (!field->is_union) {
            return esc_py_layout_verify(((const esc_py_message_type *)field->type)->layout, inner,
                                        error);
        }
        const esc_py_member *member = NULL;
        inner = esc_py_union_value(field, inner, &member);
        if (inner == NULL) {
            return bad(layout, field, NOT_ONE, error);
        }
        return esc_py_layout_verify(esc_py_member_layout(member), inner, error);
    } else if (field->literals != NULL && !is_literal(field, at)) {
        return bad(layout, field, "the stored value is none of those of its Literal", error);
    }
    return ESCQRS_OK;
}

static bool may_be_absent(const esc_py_field *field)
{
    if (field->label == ESCQRS_OPTIONAL || field->default_value != NULL ||
        field->default_factory != NULL) {
        return true;
    }
    if (field->kind == ESCQRS_KIND_ENUM) {
        int32_t zero = 0;
        return bsearch(&zero, field->by_number, field->member_count, sizeof *field->by_number,
                       compare_numbers) != NULL;
    }
    if (field->literals != NULL) {
        return zero_literal(field) != NULL;
    }
    switch (field->kind) {
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_UUID:
    case ESCQRS_KIND_MESSAGE:
        return false;
    default:
        return true;
    }
}

static escqrs_status verify_map(const esc_py_layout *layout, const esc_py_field *field,
                                const ProtobufCMessage *packed, escqrs_error *error)
{
    const char *base = (const char *)packed;
    size_t count = *(const size_t *)(base + field->in->count_offset);
    ProtobufCMessage *const *entries =
        *(ProtobufCMessage *const *const *)(base + field->in->value_offset);
    const escqrs_field *key = escqrs_schema_field(field->in->entry, 0);
    const escqrs_field *value = escqrs_schema_field(field->in->entry, 1);
    esc_py_field alone = *field; /* an entry's value has no default */
    alone.label = ESCQRS_ONE;
    alone.default_value = NULL;
    alone.default_factory = NULL;
    esc_py_field key_alone = alone;
    key_alone.kind = field->key_kind;
    key_alone.literals = NULL;
    for (size_t i = 0; i < count; i++) {
        escqrs_status status = ESCQRS_OK;
        if (!is_absent(value, entries[i])) {
            status =
                verify_one(layout, field, (const char *)entries[i] + value->value_offset, error);
        } else if (!may_be_absent(&alone)) {
            status = bad(layout, field, NO_VALUE, error);
        }
        if (status == ESCQRS_OK && is_absent(key, entries[i]) && !may_be_absent(&key_alone)) {
            status = bad(layout, field, NO_KEY, error);
        }
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

static escqrs_status verify_field(const esc_py_layout *layout, const esc_py_field *field,
                                  const ProtobufCMessage *packed, escqrs_error *error)
{
    const char *base = (const char *)packed;
    if (field->label == ESCQRS_MAP) {
        return verify_map(layout, field, packed, error);
    }
    if (field->label == ESCQRS_LIST) {
        size_t count = *(const size_t *)(base + field->in->count_offset);
        const char *items = *(const char *const *)(base + field->in->value_offset);
        size_t step = escqrs_kind_size(field->kind);
        for (size_t i = 0; i < count; i++) {
            escqrs_status status = verify_one(layout, field, items + i * step, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
        return ESCQRS_OK;
    }
    if (!is_absent(field->in, packed)) {
        return verify_one(layout, field, base + field->in->value_offset, error);
    }
    if (!may_be_absent(field)) {
        return bad(layout, field, "the stored message does not have this field; give it a default",
                   error);
    }
    return ESCQRS_OK;
}

escqrs_status esc_py_layout_verify(const esc_py_layout *layout, const ProtobufCMessage *packed,
                                   escqrs_error *error)
{
    if (!layout->checked) {
        return ESCQRS_OK;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (esc_py_field_is_verified(field)) {
            escqrs_status status = verify_field(layout, field, packed, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    return ESCQRS_OK;
}
