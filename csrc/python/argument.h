/* python/argument.h - what Python passes to the binding, checked and as C has it.
 *
 * All need the GIL, and return 0, or -1 with TypeError or ValueError set; `what` names the argument
 * in it. */
#ifndef ESC_PYTHON_ARGUMENT_H
#define ESC_PYTHON_ARGUMENT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/base.h>

/* A str as UTF-8 that lives as long as it. */
int esc_py_text_slice(PyObject *object, const char *what, escqrs_slice *slice);
/* A position, version or count: an int of 0 or more, not a bool; None is `missing`. One beyond 64
 * bits is beyond all that there is: INT64_MAX. */
int esc_py_number(PyObject *object, const char *what, int64_t missing, int64_t *value);

#endif
