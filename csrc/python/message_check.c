/* python/message_check.c - from what an author gives to the stored form: strict checks of values,
 * with errors that name class, field and item.
 *
 * The stored form (message.h) is immutable, of exact types, and nothing that the caller can still
 * change. Checks may run Python code (of time zones, of enums). No locks; the GIL is held.
 */
#include "python/message_parts.h"

#include <datetime.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"

#define KIND_TEXT_SIZE 200

int esc_py_message_check_exec(PyObject *module)
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
    if (at->layout->is_parts) {
        return PyUnicode_FromFormat("%U[%zd]", at->layout->title,
                                    (Py_ssize_t)(at->field - at->layout->fields));
    }
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

static const char *kind_name(const esc_py_field *field, escqrs_kind kind,
                             char text[KIND_TEXT_SIZE]);

/* "tuple[int, str]"; returns `text`. */
static const char *parts_text(const esc_py_field *field, char text[KIND_TEXT_SIZE])
{
    char part[KIND_TEXT_SIZE];
    size_t used = (size_t)snprintf(text, KIND_TEXT_SIZE, "tuple[");
    for (uint32_t i = 0; i < field->parts->count && used < KIND_TEXT_SIZE; i++) {
        const esc_py_field *one = &field->parts->fields[i];
        const char *none = one->label == ESCQRS_OPTIONAL ? " | None" : "";
        used += (size_t)snprintf(text + used, KIND_TEXT_SIZE - used, "%s%s%s", i > 0 ? ", " : "",
                                 kind_name(one, one->kind, part), none);
    }
    if (used < KIND_TEXT_SIZE) {
        (void)snprintf(text + used, KIND_TEXT_SIZE - used, "]");
    }
    return text;
}

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
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED32:
    case ESCQRS_KIND_SFIXED64:
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
    case ESCQRS_KIND_FLOAT32:
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
        if (field->parts != NULL) {
            return parts_text(field, text);
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
    if (kind == ESCQRS_KIND_UINT64 || kind == ESCQRS_KIND_FIXED64) {
        return check_uint64(at, value);
    }
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (kind == ESCQRS_KIND_UINT32 || kind == ESCQRS_KIND_FIXED32) {
        if (overflow != 0 || number < 0 || number > UINT32_MAX) {
            return value_error(at, "does not fit in 32 bits without a sign", value);
        }
    } else if (kind == ESCQRS_KIND_INT32 || kind == ESCQRS_KIND_SINT32 ||
               kind == ESCQRS_KIND_SFIXED32) {
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

/* As it will be read: rounded to 32 bits. */
static PyObject *check_float32(const place *at, PyObject *value)
{
    PyObject *wide = check_float(at, value);
    if (wide == NULL) {
        return NULL;
    }
    double number = PyFloat_AS_DOUBLE(wide);
    Py_DECREF(wide);
    if (isfinite(number) && (number > FLT_MAX || number < -FLT_MAX)) {
        return value_error(at, "is too large for a float of 32 bits", value);
    }
    return PyFloat_FromDouble((double)(float)number);
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

/* The items of a tuple of fixed size, each as the field that it is of. */
static PyObject *check_parts(const place *at, PyObject *value)
{
    esc_py_layout *parts = at->field->parts;
    char text[KIND_TEXT_SIZE];
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != (Py_ssize_t)parts->count) {
        return type_error(at, parts_text(at->field, text), value);
    }
    PyObject *result = PyTuple_New(parts->count);
    for (uint32_t i = 0; result != NULL && i < parts->count; i++) {
        PyObject *item = esc_py_value_check(parts, i, PyTuple_GET_ITEM(value, i));
        if (item == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyTuple_SET_ITEM(result, i, item);
    }
    return result;
}

/* Derived classes are refused: what is read back would be of the field's class. One of an older
 * definition of the same class is read anew. */
static PyObject *check_message(const place *at, PyObject *value)
{
    const esc_py_field *field = at->field;
    PyTypeObject *type = (PyTypeObject *)field->type;
    if (field->parts != NULL) {
        return check_parts(at, value);
    }
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
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED32:
    case ESCQRS_KIND_SFIXED64:
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
    case ESCQRS_KIND_FLOAT32:
        return check_float32(at, value);
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

static const char *key_name(const esc_py_field *field, char text[KIND_TEXT_SIZE])
{
    return field->keys != NULL ? Py_TYPE(field->keys[0].object)->tp_name
                               : kind_name(field, field->key_kind, text);
}

static PyObject *check_key(const place *at, PyObject *key)
{
    if (at->field->keys == NULL) {
        return check_one(at, at->field->key_kind, key);
    }
    const esc_py_literal *found = esc_py_key_of_object(at->field, key);
    char text[KIND_TEXT_SIZE];
    return found != NULL ? Py_NewRef(found->object)
                         : type_error(at, key_name(at->field, text), key);
}

static PyObject *check_dict(place *at, PyObject *value)
{
    if (!PyDict_Check(value)) {
        char texts[2][KIND_TEXT_SIZE];
        char expected[3 * KIND_TEXT_SIZE];
        PyOS_snprintf(expected, sizeof expected, "dict[%s, %s]", key_name(at->field, texts[0]),
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
        PyObject *stored_key = check_key(&in_key, key);
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
    return check_key(&where, key);
}
