/* python/new_event.h - an event that is to be stored (es.NewEvent): a value, checked when made. */
#ifndef ESC_PYTHON_NEW_EVENT_H
#define ESC_PYTHON_NEW_EVENT_H

#include "python/store.h"

/* All strong and immutable. Texts are valid UTF-8. */
typedef struct esc_py_new_event {
    PyObject_HEAD
    PyObject *type; /* str, not empty */
    PyObject *data; /* bytes */
    PyObject *id;   /* str or None, as the next two */
    PyObject *correlation_id;
    PyObject *causation_id;
    PyObject *tags;     /* tuple of str */
    PyObject *metadata; /* dict of str to str; NULL: empty */
} esc_py_new_event;

int esc_py_new_event_exec(PyObject *module);

#endif
