/* python/message_value.c - values in stored form: copies for readers, defaults, zero values.
 *
 * No locks; the GIL is held. A default's factory runs Python code.
 */
#include "python/message_parts.h"

#include <datetime.h>

int esc_py_message_value_exec(PyObject *module)
{
    (void)module;
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

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

const esc_py_literal *esc_py_zero_literal(const esc_py_field *field)
{
    for (size_t i = 0; i < field->literal_count; i++) {
        if (field->literals[i].size == 0 && field->literals[i].number == 0) {
            return &field->literals[i];
        }
    }
    return NULL;
}

PyObject *esc_py_zero(esc_py_state *state, const esc_py_field *field)
{
    switch (field->label) {
    case ESCQRS_OPTIONAL:
        return Py_NewRef(Py_None);
    case ESCQRS_LIST:
        return esc_py_is_set(field) ? PyFrozenSet_New(NULL) : PyTuple_New(0);
    case ESCQRS_MAP:
        return PyDict_New();
    default:
        break;
    }
    if (field->literals != NULL) {
        const esc_py_literal *zero = esc_py_zero_literal(field);
        return zero == NULL ? NULL : Py_NewRef(zero->object);
    }
    switch (field->kind) {
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
        return PyLong_FromLong(0);
    case ESCQRS_KIND_DECIMAL:
        return PyObject_CallNoArgs(state->message.decimal);
    case ESCQRS_KIND_DURATION:
        return PyDelta_FromDSU(0, 0, 0);
    case ESCQRS_KIND_FLOAT:
    case ESCQRS_KIND_FLOAT32:
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

PyObject *esc_py_absent_value(esc_py_layout *layout, uint32_t index)
{
    const esc_py_field *field = &layout->fields[index];
    bool container = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
    if (!container && field->label != ESCQRS_OPTIONAL) {
        PyObject *value = esc_py_default(layout, index);
        if (value != NULL || PyErr_Occurred()) {
            return value;
        }
    }
    return esc_py_zero(layout->state, field);
}

PyObject *esc_py_value_initial(esc_py_layout *layout, uint32_t index)
{
    PyObject *stored = esc_py_default(layout, index);
    if (stored == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        stored = esc_py_zero(layout->state, &layout->fields[index]);
    }
    if (stored == NULL) {
        return NULL;
    }
    PyObject *value = esc_py_value_copy(&layout->fields[index], stored);
    Py_DECREF(stored);
    return value;
}
