/* python/message_keys.c - dicts whose keys are members of an enum.
 *
 * Protobuf has no such keys, so a member is written as its name, which neither another value nor
 * another place in the enum changes. There are few members: they are gone over one by one. No
 * locks; the GIL is held, but for esc_py_key_of_text, which reads the layout alone.
 */
#include "python/message_parts.h"

#include <string.h>

int esc_py_keys_load(esc_py_field *field, PyObject *keys)
{
    Py_ssize_t count = PyTuple_GET_SIZE(keys);
    if (count == 0) {
        return 0;
    }
    field->keys = PyMem_Calloc((size_t)count, sizeof *field->keys);
    if (field->keys == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        esc_py_literal *key = &field->keys[i];
        PyObject *object = NULL;
        PyObject *name = NULL;
        Py_ssize_t size = 0;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(keys, i), "OU", &object, &name) ||
            (key->text = PyUnicode_AsUTF8AndSize(name, &size)) == NULL) {
            return -1;
        }
        key->object = Py_NewRef(object);
        key->name = Py_NewRef(name);
        key->size = (size_t)size;
        field->key_count++;
    }
    return 0;
}

const esc_py_literal *esc_py_key_of_text(const esc_py_field *field, const ProtobufCBinaryData *text)
{
    for (size_t i = 0; i < field->key_count; i++) {
        const esc_py_literal *key = &field->keys[i];
        if (key->size == text->len && memcmp(key->text, text->data, text->len) == 0) {
            return key;
        }
    }
    return NULL;
}

/* A member of an older definition of the enum (a notebook's cell run again), by its name. */
static const esc_py_literal *namesake(const esc_py_field *field, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(field->keys[0].object);
    if (!PyType_IsSubtype(Py_TYPE(Py_TYPE(object)), Py_TYPE(type)) ||
        !esc_py_same_name(Py_TYPE(object), type)) {
        return NULL;
    }
    PyObject *name = PyObject_GetAttrString(object, "name");
    const esc_py_literal *found = NULL;
    for (size_t i = 0; name != NULL && PyUnicode_Check(name) && i < field->key_count; i++) {
        if (PyUnicode_Compare(name, field->keys[i].name) == 0) {
            found = &field->keys[i];
        }
    }
    Py_XDECREF(name);
    PyErr_Clear();
    return found;
}

const esc_py_literal *esc_py_key_of_object(const esc_py_field *field, PyObject *object)
{
    for (size_t i = 0; i < field->key_count; i++) {
        if (field->keys[i].object == object) {
            return &field->keys[i];
        }
    }
    return namesake(field, object);
}
