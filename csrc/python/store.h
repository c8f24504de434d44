/* python/store.h - the Python object around an open store (es.Store), below es.open.
 *
 * Life. es.Store makes it and opens the file; a System holds the one it runs on, and so do
 * iterations and feeds. close() closes the core's store, whose gate lets calls that
 * are inside end first; the core's memory goes with the Python object. In a child of fork() every
 * entry point raises Forked and dealloc touches nothing.
 *
 * A subclass of es.Store that is a provider of its own never opens it: `core` stays NULL, and
 * what needs the file raises TypeError.
 */
#ifndef ESC_PYTHON_STORE_H
#define ESC_PYTHON_STORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/store.h>

#include "python/log.h"

struct esc_py_state;
struct esc_py_watch;

/* What a store and the events read from it share. It goes with the last of them, and so the memory
 * of the core does, to which the events point. An event does not hold the store itself: an event is
 * not looked at by the collector of cycles, so that a million of them cost it nothing, and a store
 * that keeps its last event would never be freed. */
typedef struct esc_py_backing {
    Py_ssize_t references; /* with the GIL */
    struct esc_py_state *state;
    escqrs_store *core; /* as in the store */
    unsigned fork_generation;
    size_t message_bytes_max;
    PyObject *events; /* dict: stored name -> event class */
    /* see upcast.h */
    PyObject *plan;       /* of _upcast.py; NULL: there is none yet */
    PyObject **readings;  /* by escqrs_type_id; NULL: not made yet */
    size_t reading_count; /* places in it */
    uint64_t learned;     /* plans so far */
    bool evolves;         /* some type has upcasters or former names */
} esc_py_backing;

typedef struct esc_py_store {
    PyObject_HEAD
    struct esc_py_state *state;
    escqrs_store *core; /* NULL until it is open; then never changes */
    unsigned fork_generation;
    _Atomic uint32_t closed; /* read and written with the GIL: relaxed */
    bool readonly;
    esc_py_backing *backing;
    PyObject *path;  /* str */
    PyObject *names; /* list of str: names of stored types by escqrs_type_id, a cache */
    PyObject *types; /* dict: name or event class -> escqrs_type as an int, a cache */
    esc_py_log log;
    struct esc_py_actor_system *simulation; /* that runs it, strong; or NULL */
    struct esc_py_watch *watch; /* feed.c: made with the first feed that a loop awaits; or NULL */
    PyObject *weakrefs;
} esc_py_store;

typedef struct esc_py_store_state {
    PyTypeObject *type;      /* StoreBase */
    PyTypeObject *new_event; /* NewEvent */
    PyTypeObject *feed;      /* FeedBase */
    PyObject *claim;         /* functions of _store.py: claim(store, event class) */
    PyObject *abandoned;     /* abandoned(store): dropped without close */
} esc_py_store_state;

esc_py_backing *esc_py_backing_hold(esc_py_backing *self);
void esc_py_backing_release(esc_py_backing *self);
/* 0 where it may be used; -1 with Closed, Forked or TypeError raised. */
int esc_py_store_check(esc_py_store *self);
/* Close the core's store; waits without the GIL. */
void esc_py_store_close(esc_py_store *self);
/* Borrowed cast; NULL with TypeError where `object` is no Store that is open. */
esc_py_store *esc_py_store_cast(struct esc_py_state *state, PyObject *object);
/* Raise what the core said, once its log is handed over. NULL always. */
PyObject *esc_py_store_raise(esc_py_store *self, const escqrs_error *error);
/* What a seeded system (None: there is none) decides for a store that it runs; 0, or -1. */
int esc_py_store_take_simulation(esc_py_store *self, PyObject *given,
                                 escqrs_store_options *options);
/* -1 with Deadlock raised where this thread is a read model's that holds the writer. */
int esc_py_store_refuse_in_projection(esc_py_store *self);

int esc_py_store_exec(PyObject *module);
int esc_py_store_traverse_state(esc_py_store_state *section, visitproc visit, void *arg);
void esc_py_store_clear_state(esc_py_store_state *section);

#endif
