/* python/metadata.c - see metadata.h. Locks: none. */
#include "python/metadata.h"

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
