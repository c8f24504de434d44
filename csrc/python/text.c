/* python/text.c - see text.h. Locks: none. */
#include "python/text.h"

PyObject *esc_py_text(escqrs_slice text)
{
    return PyUnicode_DecodeUTF8(text.size > 0 ? text.data : "", (Py_ssize_t)text.size, "replace");
}
