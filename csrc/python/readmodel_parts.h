/* python/readmodel_parts.h - what the readmodel*.c files share among themselves.
 *
 * The GIL guards every object here. */
#ifndef ESC_PYTHON_READMODEL_PARTS_H
#define ESC_PYTHON_READMODEL_PARTS_H

#include "base/buffer.h"
#include "python/readmodel.h"
#include "python/state.h"

typedef struct esc_py_readmodel esc_py_readmodel;

/* Of one projection: the context of its function. */
typedef struct esc_py_handler {
    esc_py_readmodel *core; /* borrowed */
    PyObject *function;     /* strong */
    /* the event's class, strong: its schema is the projection's; NULL: every event */
    PyObject *cls;
    escqrs_slice *tags; /* of the description alone */
    bool wants_recorded;
} esc_py_handler;

/* A ReadModelCore. */
struct esc_py_readmodel {
    PyObject_HEAD
    /* borrowed; only for the projector's thread, which the system outlives */
    esc_py_system *system;
    PyObject *reference; /* weak, to the system */
    PyObject *instance;  /* of the user's class: `self` of its methods */
    PyObject *failure;   /* of a handler, the last: (position, traceback, exception), or NULL */
    escqrs_readmodel *model;
    PyObject *name;
    esc_py_handler *handlers;
    size_t handler_count;
};

/* ---- readmodel.c ---- */
/* The system, pinned, a new reference; NULL with Closed or Forked. */
esc_py_system *esc_py_readmodel_enter(esc_py_readmodel *self);
/* Ends what esc_py_readmodel_enter began. */
void esc_py_readmodel_leave(esc_py_system *system);

/* ---- readmodel_handler.c ---- */
/* The escqrs_projection's `apply` of a function in Python; `context` is its esc_py_handler. Called
 * by the core, attached. */
escqrs_status esc_py_handler_run(void *context, const escqrs_recorded *recorded, void *sqlite,
                                 escqrs_error *error);
/* -1 with Deadlock where this thread is inside an @es.on method. */
int esc_py_refuse_in_projection(esc_py_system *system, const char *what);

/* ---- readmodel_description.c ---- */
/* A read model as Python describes it, with the memory that its escqrs_readmodel_spec
 * borrows. */
typedef struct esc_py_description {
    esc_py_readmodel *core; /* strong; has the contexts of the handlers */
    escqrs_projection *projections;
    esc_buffer *defaults;
    size_t count;
} esc_py_description;

/* `given`: (name, schema, version, file, manual, inline, policy, projections, stream column). What
 * `spec` borrows lives as long as `given` and the description. 0, or -1 with an exception; fini
 * also then. */
int esc_py_description_init(esc_py_description *self, esc_py_state *state, PyObject *given,
                            escqrs_readmodel_spec *spec);
void esc_py_description_fini(esc_py_description *self);

/* ---- readmodel_query.c ---- */
/* query(function, instance, args, kwargs, timeout): a method of ReadModelCore. */
PyObject *esc_py_readmodel_query(PyObject *object, PyObject *args);

#endif
