/* python/metadata.c - see metadata.h. Locks: none. */
#include "python/metadata.h"

#include "python/text.h"

PyObject *esc_py_metadata_items(PyObject *given, const char *where)
{
    /* what has an index alone is a mapping to C: str, list, and any class with __getitem__ */
    PyObject *items = PyMapping_Check(given) && PyObject_HasAttrString(given, "items")
                          ? PyMapping_Items(given)
                          : NULL;
    if (items == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "%smetadata is a mapping of str to str, not %s", where,
                     Py_TYPE(given)->tp_name);
    }
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_Format(PyExc_TypeError,
                         "%smetadata is a mapping of str to str: items() of %s gives %R", where,
                         Py_TYPE(given)->tp_name, pair);
            Py_CLEAR(items);
        }
    }
    return items;
}

PyObject *esc_py_metadata_dict(const escqrs_pair *pairs, size_t count)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < count; i++) {
        PyObject *key = esc_py_text(pairs[i].key), *value = esc_py_text(pairs[i].value);
        if (key == NULL || value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}
