/* See argument.h. */
#include "python/argument.h"

int esc_py_text_slice(PyObject *object, const char *what, escqrs_slice *slice)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is a str, not %s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    Py_ssize_t size;
    slice->data = PyUnicode_AsUTF8AndSize(object, &size);
    slice->size = slice->data == NULL ? 0 : (size_t)size;
    if (slice->data == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s holds a lone surrogate, which is no Unicode text: %A",
                     what, object);
    }
    return slice->data == NULL ? -1 : 0;
}

int esc_py_number(PyObject *object, const char *what, int64_t missing, int64_t *value)
{
    if (object == Py_None) {
        *value = missing;
        return 0;
    }
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is an int, not %s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow < 0 || (overflow == 0 && *value < 0)) {
        PyErr_Format(PyExc_ValueError, "%s is not negative: %S", what, object);
        return -1;
    }
    if (overflow > 0) {
        *value = INT64_MAX;
    }
    return 0;
}
