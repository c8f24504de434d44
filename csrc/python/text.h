/* python/text.h - text of the core as str, and back. The GIL is needed. */
#ifndef ESC_PYTHON_TEXT_H
#define ESC_PYTHON_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/base.h>

/* A new str. What is not UTF-8, as in a damaged file, becomes U+FFFD: for text that is shown. */
PyObject *esc_py_text(escqrs_slice text);

/* A str as UTF-8 that lives as long as it; data is NULL, with an exception set, where it has a lone
 * surrogate or memory runs out. */
escqrs_slice esc_py_slice_of(PyObject *text);

#endif
