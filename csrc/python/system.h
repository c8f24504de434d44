/* system.h - the Python object behind es.open(): a store, its entities and its read models. */
#ifndef ESC_PYTHON_SYSTEM_H
#define ESC_PYTHON_SYSTEM_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/entity.h>
#include <escqrs/readmodel.h>
#include <escqrs/store.h>

/* Pointers are set once by open and never change; `closed` is set first thing in close. Whoever uses one of them without
 * the GIL has pinned the system (esc_py_system_pin), so that destroy waits for him. */
typedef struct esc_py_system {
    PyObject_HEAD
    escqrs_store *store;
    escqrs_system *system;
    escqrs_projector *projector;
    escqrs_host *host;      /* of the runtime: Python, one worker at a time */
    unsigned fork_generation;
    int pins;               /* guarded by the GIL: calls that are under way without it */
    int closed;             /* guarded by the GIL: 0 open, 1 closing, 2 closed */
    bool readonly;
    PyObject *facade;       /* python: dict of the facade's own things */
    PyObject *path;         /* str */
    PyObject *weakrefs;
} esc_py_system;

/* The functions by which C threads enter Python (state per worker thread: its PyThreadState). Context: the module's interpreter. */
extern const escqrs_host_ops esc_py_host_ops;

/* 0 and pinned; or -1 with Closed or Forked raised. */
int esc_py_system_pin(esc_py_system *self);
void esc_py_system_unpin(esc_py_system *self);
/* Whether `object` is a System of this module; borrowed cast. */
esc_py_system *esc_py_system_cast(PyObject *object); /* NULL with TypeError */

/* Wait in slices of at most 100 ms, checking signals between: `wait` gets a deadline (monotonic ns) and answers
 * TIMEOUT when the slice ended. Called detached. Returns the status, or -1 with an exception set (Ctrl-C). `deadline_ns`
 * INT64_MAX: no end. Marks the worker as blocked (escqrs_runtime_block). */
int esc_py_wait(esc_py_system *self, escqrs_status (*wait)(void *context, int64_t deadline_ns),
                void *context, int64_t deadline_ns);
/* Seconds from Python (None: never) as a monotonic deadline; -1 on error with an exception set. */
int esc_py_deadline(PyObject *timeout, int64_t *deadline_ns);

int esc_py_system_exec(PyObject *module);

#endif
