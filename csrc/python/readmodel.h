/* python/readmodel.h - read models: the projector's functions in Python, queries, status.
 *
 * A ReadModelCore joins an instance of the user's class to its escqrs_readmodel. The system holds
 * the instance, the instance its core; the core knows the system by a weak reference, so that
 * neither a handle that somebody kept nor a cycle keeps a system alive.
 *
 * An @es.on method runs on the projector's thread, attached, within the transaction. While it runs,
 * whatever would wait for the system raises Deadlock: it would wait for the transaction that it is
 * in. */
#ifndef ESC_PYTHON_READMODEL_H
#define ESC_PYTHON_READMODEL_H

#include "python/system.h"

typedef struct esc_py_readmodel_state {
    PyTypeObject *core;       /* ReadModelCore */
    PyTypeObject *comparison; /* Comparison */
    PyObject *failed;         /* function of _readmodel.py: failed(name, position, exception) */
} esc_py_readmodel_state;

/* How the system's read models read events of old versions. */
escqrs_event_reader esc_py_readmodel_reader(esc_py_system *system);

/* Whether this thread is inside an @es.on method. */
bool esc_py_in_projection(void);

int esc_py_readmodel_exec(PyObject *module);
int esc_py_readmodel_traverse_state(esc_py_readmodel_state *section, visitproc visit, void *arg);
void esc_py_readmodel_clear_state(esc_py_readmodel_state *section);

#endif
