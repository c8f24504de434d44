/* python/errors.h - from a status of the core to an exception of escqrs.errors. */
#ifndef ESC_PYTHON_ERRORS_H
#define ESC_PYTHON_ERRORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <escqrs/base.h>

struct esc_py_state;

#define ESC_PY_STATUS_MAX 32 /* above every escqrs_status */

/* Section of the module's state: the exception classes by status (NULL where there is none). */
typedef struct esc_py_errors_state {
    PyObject *classes[ESC_PY_STATUS_MAX];
    PyObject *error; /* escqrs.errors.Error */
} esc_py_errors_state;

int esc_py_errors_exec(PyObject *module);
int esc_py_errors_traverse(esc_py_errors_state *section, visitproc visit, void *arg);
void esc_py_errors_clear(esc_py_errors_state *section);

/* Set the exception that `error` describes, with its attributes (.stream, .expected, ...):
 * NO_MEMORY is MemoryError, INVALID is ValueError, all else a class of escqrs.errors. Returns NULL
 * always. */
void *esc_py_raise(struct esc_py_state *state, const escqrs_error *error);

/* The same exception as a new object, without setting it; NULL with an exception set on failure. */
PyObject *esc_py_error_new(struct esc_py_state *state, const escqrs_error *error);

/* The class that stands for a status, borrowed; escqrs.errors.Error for one that has none. */
PyObject *esc_py_error_class(struct esc_py_state *state, escqrs_status status);

#endif
