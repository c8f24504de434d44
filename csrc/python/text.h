/* python/text.h - text of the core as str. */
#ifndef ESC_PYTHON_TEXT_H
#define ESC_PYTHON_TEXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/base.h>

/* A new str. What is not UTF-8, as in a damaged file, becomes U+FFFD: for text that is shown. */
PyObject *esc_py_text(escqrs_slice text);

#endif
