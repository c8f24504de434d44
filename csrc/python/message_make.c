/* python/message_make.c - making messages: the call of a class.
 *
 * Every slot is filled with a checked value, so that what was made can be stored. Checks, defaults
 * and __post_init__ may run Python code. No locks; the GIL is held.
 */
#include "python/message_parts.h"

/* The common case of a plain value first; everything else goes the long way. */
static inline PyObject *checked(esc_py_layout *layout, uint32_t index, PyObject *value)
{
    bool good = false;
    switch (layout->fields[index].plain) {
    case ESCQRS_KIND_STRING:
        good = PyUnicode_CheckExact(value) && PyUnicode_IS_READY(value) &&
               PyUnicode_KIND(value) == PyUnicode_1BYTE_KIND;
        break;
    case ESCQRS_KIND_INT:
        good = esc_py_is_small(value);
        break;
    case ESCQRS_KIND_FLOAT:
        good = PyFloat_CheckExact(value);
        break;
    case ESCQRS_KIND_BOOL:
        good = PyBool_Check(value);
        break;
    default:
        break;
    }
    return good ? Py_NewRef(value) : esc_py_value_check(layout, index, value);
}

PyObject *esc_py_joined(PyObject *names)
{
    PyObject *comma = PyUnicode_FromString(", ");
    PyObject *text = comma == NULL ? NULL : PyUnicode_Join(comma, names);
    Py_XDECREF(comma);
    return text;
}

static void raise_too_many(esc_py_message_type *type, Py_ssize_t given)
{
    const esc_py_layout *layout = type->layout;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < layout->count; i++) {
        if (!layout->fields[i].keyword_only && PyList_Append(list, layout->fields[i].name) < 0) {
            Py_CLEAR(list);
        }
    }
    PyObject *names = list == NULL ? NULL : esc_py_joined(list);
    if (names != NULL) {
        const char *kind = layout->positional < layout->count ? " by position" : "";
        PyErr_Format(PyExc_TypeError, "%U takes %u value%s%s (%U), got %zd", layout->title,
                     layout->positional, layout->positional == 1 ? "" : "s", kind, names, given);
        Py_DECREF(names);
    }
    Py_XDECREF(list);
}

static void raise_unknown(esc_py_message_type *type, PyObject *name)
{
    PyObject *names = esc_py_joined(type->field_names);
    if (names != NULL) {
        PyErr_Format(PyExc_TypeError, "%U has no field %R; its fields are: %U", type->layout->title,
                     name, names);
        Py_DECREF(names);
    }
}

static void raise_missing(esc_py_message *message, esc_py_message_type *type)
{
    PyObject *missing = PyList_New(0);
    esc_py_layout *layout = type->layout;
    for (uint32_t i = 0; missing != NULL && i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (message->slots[i] == NULL && field->default_value == NULL &&
            field->default_factory == NULL) {
            PyObject *name = PyUnicode_FromFormat("%R", field->name);
            if (name == NULL || PyList_Append(missing, name) < 0) {
                Py_CLEAR(missing);
            }
            Py_XDECREF(name);
        }
    }
    PyObject *names = missing == NULL ? NULL : esc_py_joined(missing);
    if (names != NULL) {
        PyErr_Format(PyExc_TypeError, "%U: missing %s %U", layout->title,
                     PyList_GET_SIZE(missing) == 1 ? "field" : "fields", names);
    }
    Py_XDECREF(names);
    Py_XDECREF(missing);
}

/* Index of a field by name, tried first at `guess`; -1 without an exception. */
static Py_ssize_t find_field(const esc_py_layout *layout, PyObject *name, Py_ssize_t guess)
{
    if (guess < (Py_ssize_t)layout->count && layout->fields[guess].name == name) {
        return guess;
    }
    return esc_py_layout_find(layout, name);
}

int esc_py_message_keywords(esc_py_message *message, esc_py_message_type *type,
                            PyObject *const *values, PyObject *names, Py_ssize_t guess)
{
    esc_py_layout *layout = type->layout;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        Py_ssize_t index = find_field(layout, name, guess);
        if (index < 0) {
            raise_unknown(type, name);
            return -1;
        }
        if (message->slots[index] != NULL) {
            PyErr_Format(PyExc_TypeError, "%U: the field %R is given twice", layout->title, name);
            return -1;
        }
        message->slots[index] = checked(layout, (uint32_t)index, values[i]);
        if (message->slots[index] == NULL) {
            return -1;
        }
        guess = index + 1;
    }
    return 0;
}

static int take_defaults(esc_py_message *message, esc_py_message_type *type)
{
    esc_py_layout *layout = type->layout;
    for (uint32_t i = 0; i < layout->count; i++) {
        if (message->slots[i] != NULL) {
            continue;
        }
        message->slots[i] = esc_py_default(layout, i);
        if (message->slots[i] == NULL) {
            if (!PyErr_Occurred()) {
                raise_missing(message, type);
            }
            return -1;
        }
    }
    return 0;
}

PyObject *esc_py_message_finish(esc_py_message *message, esc_py_message_type *type)
{
    const esc_py_layout *layout = type->layout;
    if (layout->nests) {
        if (esc_py_message_measure(message, layout) < 0) {
            goto fail;
        }
    } else {
        message->depth = layout->leaf_depth;
    }
    if (type->post_init != NULL) {
        PyObject *result = PyObject_CallOneArg(type->post_init, (PyObject *)message);
        if (result == NULL) {
            goto fail;
        }
        Py_DECREF(result);
    }
    return (PyObject *)message;
fail:
    Py_DECREF(message);
    return NULL;
}

static int can_be_made(esc_py_message_type *type)
{
    if (type->abstract) {
        PyErr_Format(PyExc_TypeError, "es.%s is a base class: derive your own from it",
                     type->base.ht_type.tp_name);
        return -1;
    }
    return esc_py_class_resolve(type);
}

PyObject *esc_py_message_vectorcall(PyObject *cls, PyObject *const *args, size_t nargsf,
                                    PyObject *kwnames)
{
    esc_py_message_type *type = (esc_py_message_type *)cls;
    esc_py_layout *layout = type->layout;
    if ((layout == NULL || !layout->ready || type->abstract)) {
        if (can_be_made(type) < 0) {
            return NULL;
        }
        layout = type->layout;
    }
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    if (given > (Py_ssize_t)layout->positional) {
        raise_too_many(type, given);
        return NULL;
    }
    esc_py_message *message = esc_py_message_alloc(type);
    if (message == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < given; i++) {
        uint32_t index = layout->positions == NULL ? (uint32_t)i : layout->positions[i];
        message->slots[index] = checked(layout, index, args[i]);
        if (message->slots[index] == NULL) {
            goto fail;
        }
    }
    if (kwnames != NULL) {
        if (esc_py_message_keywords(message, type, args + given, kwnames, given) < 0) {
            goto fail;
        }
        given += PyTuple_GET_SIZE(kwnames);
    }
    if (given < (Py_ssize_t)layout->count && take_defaults(message, type) < 0) {
        goto fail;
    }
    return esc_py_message_finish(message, type);
fail:
    Py_DECREF(message);
    return NULL;
}

PyObject *esc_py_message_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModuleByDef(cls, &esc_py_module);
    if (module == NULL) {
        return NULL;
    }
    if (esc_py_class_kind(esc_py_state_of(module), (PyObject *)cls) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "%s cannot be instantiated", cls->tp_name);
        return NULL;
    }
    return PyVectorcall_Call((PyObject *)cls, args, kwargs);
}
