/* python/recorded.h - stored events as Python sees them (es.Recorded), and iterations over them. */
#ifndef ESC_PYTHON_RECORDED_H
#define ESC_PYTHON_RECORDED_H

#include "python/system.h"

typedef struct esc_py_recorded_state {
    PyTypeObject *type;   /* Recorded */
    PyTypeObject *cursor; /* EventIterator */
    PyObject *matches;    /* matches(match) of _match.py -> list of (types, tags) */
    PyObject *epoch;      /* datetime of 1970 in UTC */
} esc_py_recorded_state;

/* A copy of all that `recorded` says; its event is decoded when read. New reference. */
PyObject *esc_py_recorded_new(esc_py_system *system, const escqrs_recorded *recorded);
/* An iterator over the events of a stream (or of the whole store: stream empty), from the Python
 * arguments (*, after=0, upto=None, match=(), reverse=False, limit=None). New reference. */
PyObject *esc_py_cursor_new(esc_py_system *system, escqrs_slice stream, PyObject *args,
                            PyObject *kwargs);

int esc_py_recorded_exec(PyObject *module);
int esc_py_recorded_traverse_state(esc_py_recorded_state *section, visitproc visit, void *arg);
void esc_py_recorded_clear_state(esc_py_recorded_state *section);

#endif
