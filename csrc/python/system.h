/* python/system.h - the Python object behind es.open(): a store, its entities and its read models.
 *
 * Life. es.open makes it; close() refuses new work, waits until the calls that are under way
 * without the GIL (`pins`) have ended, and then takes the parts down in the order projector,
 * system, store. The C parts are destroyed with the Python object, which handles, replies and
 * frozen states keep alive. What must not keep it alive: live aggregates (the core owns them) and
 * definitions; they borrow. In a child of fork() every entry point raises Forked and dealloc
 * touches nothing.
 */
#ifndef ESC_PYTHON_SYSTEM_H
#define ESC_PYTHON_SYSTEM_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/entity.h>
#include <escqrs/readmodel.h>
#include <escqrs/store.h>

#include "base/list.h"
#include "base/queue.h"
#include "python/wait.h"
#include "python/store.h"

struct esc_py_state;
struct esc_py_reply;

/* Pointers are set once by open and never change. */
typedef struct esc_py_system {
    PyObject_HEAD
    struct esc_py_state *state;
    PyInterpreterState *interpreter;
    esc_py_store *keeper; /* of the store; strong */
    bool owns_store;      /* es.open opened it, and so closes it */
    escqrs_store *store;
    escqrs_system *system;
    escqrs_projector *projector;
    escqrs_host *host; /* of the runtime: Python, one worker at a time */
    unsigned fork_generation;
    _Atomic uint32_t pins; /* calls that are under way without the GIL; close() sleeps on it */
    /* 0 open, 1 closing, 2 closed; read and written with the GIL: relaxed. Without it a second
     * closer sleeps on it: acquire, which pairs with the release that ends the closing. */
    _Atomic uint32_t closed;
    _Atomic int64_t close_until_ns; /* monotonic; when the thread that closes gives up */
    bool readonly;
    bool left_behind; /* a handler did not come back: the C parts are never destroyed */
    size_t message_bytes_max;
    esc_queue released;  /* replies that the core has let go; any thread pushes */
    esc_queue completed; /* replies whose completion runs Python code */
    _Atomic uint32_t
        completing;        /* of these, not yet run to the end; flush() and close() sleep on it */
    esc_list replies;      /* esc_py_reply.listed, all that were sent; with the GIL */
    PyObject *definitions; /* dict: aggregate class -> Definition */
    PyObject *events;      /* dict: stored name -> event class; the store's */
    PyObject *readmodels;  /* dict: read-model class -> its instance */
    /* Of a simulation, see simulation.h: a place in its list; what it steps besides, a tuple of
     * objects with take_turn() and due_in(), or NULL; and the thread that runs the projector, which
     * left Python for that; NULL: none does. */
    esc_list_node simulated;
    PyObject *beside;
    PyThreadState *outside;
    PyObject *path; /* str */
    PyObject *weakrefs;
} esc_py_system;

typedef struct esc_py_system_state {
    PyTypeObject *type; /* SystemBase */
    PyObject
        *find; /* functions of _system.py: find(system, key) for a key that is not in the dicts */
    PyObject *abandoned;   /* abandoned(system): dropped without close */
    PyObject *log_failure; /* log_failure(stream, command, exception) */
} esc_py_system_state;

/* Enter and leave Python on C threads. Their context is the esc_py_system. */
extern const escqrs_host_ops esc_py_host_ops;
/* Whether this thread is a worker of that system. */
bool esc_py_host_is_own_thread(const esc_py_system *system);

/* 0 and pinned; or -1 with Closed or Forked raised. */
int esc_py_system_pin(esc_py_system *self);
/* The same while closing is under way: for work inside handlers, which close() waits for. */
int esc_py_system_pin_inside(esc_py_system *self);
void esc_py_system_unpin(esc_py_system *self);
/* Borrowed cast; NULL with TypeError where `object` is no System. */
esc_py_system *esc_py_system_cast(PyObject *object);
/* The newest class of an event's stored name, or NULL without an exception; borrowed. */
PyTypeObject *esc_py_system_event_class(esc_py_system *self, PyObject *name);
/* Drop the references that the core has let go, and run completions (not inside a handler: what a
 * callback sends is not the handler's). Holds the GIL. */
void esc_py_system_tidy(esc_py_system *self);
/* Whether this thread is in a callback that tidying runs. */
bool esc_py_is_tidying(void);
/* Wait until the callbacks and log lines of all that is done have run: as esc_py_wait. */
int esc_py_system_wait_completed(esc_py_system *self, int64_t deadline_ns);
/* What the core has not answered says so now. Holds the GIL; runs callbacks. */
void esc_py_system_drop_replies(esc_py_system *self);
/* A reply whose completion runs Python code, from any thread: one with the GIL is woken for it. */
void esc_py_system_push_completed(esc_py_system *self, struct esc_py_reply *reply);

int esc_py_system_exec(PyObject *module);
int esc_py_system_traverse_state(esc_py_system_state *section, visitproc visit, void *arg);
void esc_py_system_clear_state(esc_py_system_state *section);

#endif
