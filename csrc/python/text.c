/* python/text.c - see text.h. Locks: none. */
#include "python/text.h"

PyObject *esc_py_text(escqrs_slice text)
{
    return PyUnicode_DecodeUTF8(text.size > 0 ? text.data : "", (Py_ssize_t)text.size, "replace");
}

escqrs_slice esc_py_slice_of(PyObject *text)
{
    Py_ssize_t size = 0;
    const char *data = PyUnicode_AsUTF8AndSize(text, &size);
    return (escqrs_slice){data, data == NULL ? 0 : (size_t)size};
}
