/* python/system.c - es.System: open, close, and what belongs to the whole. See system.h for its
 * life.
 *
 * close(), in this order: refuse commands from outside; wait until all that was accepted, and what
 * that sent, is answered (or the timeout has passed); end the read models; drop what is left; close
 * the store; wait for the calls that are under way. Waiting is done without the GIL and in slices,
 * so Ctrl-C works; an interrupted close leaves the system open.
 */
#include "python/system.h"

#include <limits.h>
#include <structmember.h>
#include <string.h>

#include "base/thread.h"
#include "python/actor.h"
#include "python/cursor.h"
#include "python/handle.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/state.h"

/* ---- entering ------------------------------------------------------------------------------------------ */

static int refuse(esc_py_system *self)
{
    return esc_py_refuse_file(self->state, self->path, esc_py_is_own(self->fork_generation));
}

static int enter(esc_py_system *self, uint32_t closed_min)
{
    if (!esc_py_is_own(self->fork_generation) ||
        atomic_load_explicit(&self->closed, memory_order_relaxed) >= closed_min) {
        return refuse(self);
    }
    /* relaxed: only close(), which has the GIL when it looks, waits for it */
    (void)atomic_fetch_add_explicit(&self->pins, 1, memory_order_relaxed);
    return 0;
}

int esc_py_system_pin(esc_py_system *self)
{
    return enter(self, 1);
}

int esc_py_system_pin_inside(esc_py_system *self)
{
    return enter(self, 2);
}

void esc_py_system_unpin(esc_py_system *self)
{
    uint32_t before = atomic_fetch_sub_explicit(&self->pins, 1, memory_order_relaxed);
    if (before == 1 && atomic_load_explicit(&self->closed, memory_order_relaxed) != 0) {
        esc_futex_wake(&self->pins, INT_MAX);
    }
}

esc_py_system *esc_py_system_cast(PyObject *object)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    if (state == NULL || !PyObject_TypeCheck(object, state->system.type)) {
        PyErr_Format(PyExc_TypeError, "this is no system of escqrs: %R", object);
        return NULL;
    }
    return (esc_py_system *)object;
}

PyTypeObject *esc_py_system_event_class(esc_py_system *self, PyObject *name)
{
    return (PyTypeObject *)PyDict_GetItemWithError(self->events, name);
}

/* Whether this thread is in a handler of this system, or in a callback or worker of it. */
static bool is_inside(const esc_py_system *self)
{
    for (const esc_py_turn *turn = esc_py_turn_current(); turn != NULL; turn = turn->outer) {
        if (turn->system == self) {
            return true;
        }
    }
    return esc_py_host_is_own_thread(self) || esc_py_in_projection();
}

/* ---- open ---------------------------------------------------------------------------------------------- */

static int open_core(esc_py_system *self, size_t in_flight_max, size_t live_max)
{
    escqrs_error error = {0};
    escqrs_log log = {esc_py_log_write, &self->keeper->log};
    escqrs_system_options options = {
        .in_flight_max = in_flight_max, .live_max = live_max, .log = log, .runtime = {.log = log}};
    if (self->keeper->simulation != NULL) {
        esc_py_seeded *seeded = self->keeper->simulation->seeded;
        options.manual = true;
        options.clock = esc_py_seeded_clock(seeded);
        options.random = esc_py_seeded_ids(seeded);
        options.runtime.random = esc_py_seeded_order(seeded);
    }
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_system_create(self->store, &options, &self->system, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_host_create(escqrs_system_runtime(self->system), &esc_py_host_ops, self,
                                    &self->host, &error);
    }
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    esc_py_log_set_host(&self->keeper->log, self->host);
    return 0;
}

/* The store is the first thing it holds; `owned`: to be closed with it. */
static void take_store(esc_py_system *self, esc_py_store *keeper, bool owned)
{
    self->keeper = (esc_py_store *)Py_NewRef((PyObject *)keeper);
    self->owns_store = owned;
    self->store = keeper->core;
    self->readonly = keeper->readonly;
    self->message_bytes_max = keeper->backing->message_bytes_max;
    self->path = Py_NewRef(keeper->path);
    self->events = Py_NewRef(keeper->backing->events);
}

static PyObject *system_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"store", "owned", "max_in_flight", "max_entities", NULL};
    PyObject *store;
    int owned;
    Py_ssize_t in_flight_max, live_max;
    esc_py_state *state = esc_py_state_of_type(type);
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "Opnn", names, &store, &owned,
                                                      &in_flight_max, &live_max)) {
        return NULL;
    }
    esc_py_store *keeper = esc_py_store_cast(state, store);
    esc_py_system *self = keeper == NULL ? NULL : (esc_py_system *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    atomic_init(&self->closed, 2); /* until it is open */
    self->state = state;
    self->interpreter = PyInterpreterState_Get();
    self->fork_generation = escqrs_fork_generation();
    take_store(self, keeper, owned);
    esc_queue_init(&self->released);
    esc_queue_init(&self->completed);
    esc_list_init(&self->replies);
    self->definitions = PyDict_New();
    self->readmodels = PyDict_New();
    if (self->definitions == NULL || self->readmodels == NULL ||
        esc_py_simulation_enter(self) < 0 ||
        open_core(self, (size_t)in_flight_max, (size_t)live_max) < 0) {
        esc_py_log_drain(&keeper->log);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    atomic_store_explicit(&self->closed, 0, memory_order_relaxed);
    return (PyObject *)self;
}

/* ---- close --------------------------------------------------------------------------------------------- */

typedef struct draining {
    escqrs_system *system;
    uint64_t ticket;
    _Atomic int64_t *until_ns; /* another thread may make it sooner; NULL: never */
} draining;

/* OK: drained; DONE: `until_ns` has passed; TIMEOUT: the slice has ended. */
static escqrs_status drain_slice(void *context, int64_t deadline_ns)
{
    draining *self = context;
    /* relaxed: a number; one that comes late is seen in the next slice */
    int64_t until_ns = self->until_ns == NULL
                           ? INT64_MAX
                           : atomic_load_explicit(self->until_ns, memory_order_relaxed);
    bool last = until_ns <= deadline_ns;
    escqrs_status status =
        escqrs_system_drain_wait(self->system, self->ticket, last ? until_ns : deadline_ns, NULL);
    return status == ESCQRS_DONE && (!last || self->until_ns == NULL) ? ESCQRS_TIMEOUT : status;
}

static escqrs_status drain_look(void *context, int64_t Py_UNUSED(deadline_ns))
{
    const draining *self = context;
    return escqrs_system_is_drained(self->system, self->ticket) ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

/* Wait until what was accepted so far is answered: as esc_py_wait; DONE as drain_slice. */
static int wait_drained(esc_py_system *self, _Atomic int64_t *until_ns, int64_t deadline_ns)
{
    draining wait = {self->system, 0, until_ns};
    Py_BEGIN_ALLOW_THREADS
    wait.ticket = escqrs_system_drain_begin(self->system);
    Py_END_ALLOW_THREADS
    if (esc_py_simulation_is_here(self->keeper->simulation)) {
        return esc_py_actor_wait(self->keeper->simulation, drain_look, &wait, NULL, deadline_ns);
    }
    /* in slices on any thread: `until_ns` may change */
    return until_ns != NULL ? esc_py_wait_in_slices(drain_slice, &wait, deadline_ns)
                            : esc_py_wait(drain_slice, &wait, deadline_ns);
}

static escqrs_status wait_unpinned(void *context, int64_t deadline_ns)
{
    _Atomic uint32_t *pins = context;
    uint32_t now;
    /* acquire: what the calls did comes before what close does next */
    while ((now = atomic_load_explicit(pins, memory_order_acquire)) != 0) {
        if (!esc_futex_wait(pins, now, deadline_ns)) {
            return ESCQRS_TIMEOUT;
        }
    }
    return ESCQRS_OK;
}

static escqrs_status wait_closed(void *context, int64_t deadline_ns)
{
    _Atomic uint32_t *closed = context;
    while (atomic_load_explicit(closed, memory_order_acquire) == 1) {
        if (!esc_futex_wait(closed, 1, deadline_ns)) {
            return ESCQRS_TIMEOUT;
        }
    }
    return ESCQRS_OK;
}

static void set_closed(esc_py_system *self, uint32_t value)
{
    atomic_store_explicit(&self->closed, value, memory_order_release); /* pairs with wait_closed */
    esc_futex_wake(&self->closed, INT_MAX);
}

/* Threads are left that may use the system at any time: it stays for ever. */
static void leave_behind(esc_py_system *self)
{
    if (!self->left_behind) {
        self->left_behind = true;
        Py_INCREF((PyObject *)self);
    }
}

/* TIMEOUT: the slice has ended; DONE: it is time to give up. */
static escqrs_status pause_slice(void *context, int64_t deadline_ns)
{
    esc_py_system *self = context;
    /* relaxed: as in drain_slice */
    int64_t until_ns = atomic_load_explicit(&self->close_until_ns, memory_order_relaxed);
    bool last = until_ns <= deadline_ns;
    escqrs_status status = escqrs_projector_pause(self->projector, last ? until_ns : deadline_ns);
    return status == ESCQRS_TIMEOUT && last ? ESCQRS_DONE : status;
}

/* Take the parts down, whatever is still under way in them: it is dropped and said so. Where a read
 * model's handler does not come back (`rests` is false) it has the writer, and the store stays
 * open. */
static void shut(esc_py_system *self, int64_t deadline_ns, bool rests)
{
    escqrs_error error = {0};
    escqrs_status status = ESCQRS_OK;
    esc_py_simulation_leave(self);
    Py_BEGIN_ALLOW_THREADS
    if (self->projector != NULL && rests) {
        escqrs_projector_stop(self->projector);
    }
    if (self->keeper->simulation == NULL) {
        status = escqrs_system_close(self->system, deadline_ns, &error);
    }
    Py_END_ALLOW_THREADS
    if (self->keeper->simulation != NULL) { /* it runs what is left on this thread */
        status = escqrs_system_close(self->system, deadline_ns, &error);
    }
    if (rests) {
        esc_py_log_set_host(&self->keeper->log, NULL);
        if (self->owns_store) {
            esc_py_store_close(self->keeper);
        }
    } else {
        /* to close it would wait for the handler */
        atomic_store_explicit(&self->keeper->closed, 1, memory_order_relaxed);
        esc_py_log_write(
            &self->keeper->log, ESCQRS_LOG_ERROR,
            "a read model's handler has not come back; it holds the file, which stays open");
    }
    if (status != ESCQRS_OK) {
        esc_py_log_write(&self->keeper->log, ESCQRS_LOG_ERROR, error.message);
    }
    if (status != ESCQRS_OK || !rests) {
        leave_behind(self);
        esc_py_system_drop_replies(self);
    }
}

/* Somebody else closes. */
static int close_with(esc_py_system *self, int64_t deadline_ns)
{
    if (deadline_ns < atomic_load_explicit(&self->close_until_ns, memory_order_relaxed)) {
        atomic_store_explicit(&self->close_until_ns, deadline_ns, memory_order_relaxed);
    }
    return esc_py_wait(wait_closed, &self->closed, INT64_MAX) < 0 ? -1 : 0;
}

static int close_first(esc_py_system *self, int64_t deadline_ns)
{
    atomic_store_explicit(&self->close_until_ns, deadline_ns, memory_order_relaxed);
    set_closed(self, 1);
    int status = wait_drained(self, &self->close_until_ns, INT64_MAX);
    if (status >= 0 && self->projector != NULL) {
        status = esc_py_wait_in_slices(pause_slice, self, INT64_MAX);
    }
    if (status < 0) {
        if (self->projector != NULL) {
            escqrs_projector_resume(self->projector);
        }
        set_closed(self, 0);
        return -1;
    }
    bool rests = self->projector == NULL || status == ESCQRS_OK;
    deadline_ns = atomic_load_explicit(&self->close_until_ns, memory_order_relaxed);
    shut(self, deadline_ns, rests);
    esc_py_system_tidy(self);
    /* Whoever waited for a reply has been told and is on its way out; queries and iterations end
     * by themselves. */
    int64_t grace_ns = esc_deadline_after(self->left_behind ? 0 : ESC_PY_SLICE_NS);
    status =
        esc_py_wait(wait_unpinned, &self->pins, deadline_ns > grace_ns ? deadline_ns : grace_ns);
    if (status != ESCQRS_OK) {
        leave_behind(self);
    }
    set_closed(self, 2);
    esc_py_system_tidy(self);
    return status < 0 ? -1 : 0;
}

static int close_system(esc_py_system *self, PyObject *timeout)
{
    int64_t deadline_ns;
    if (esc_py_deadline(timeout, &deadline_ns) < 0) {
        return -1;
    }
    if (!esc_py_is_own(self->fork_generation)) {
        return 0; /* the parent's; nothing here is ours */
    }
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) < 2 && is_inside(self)) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "close() waits for every handler, so it cannot be called by one");
        return -1;
    }
    uint32_t closed;
    int result = 0;
    /* `closed` is written with the GIL. Where Ctrl-C stops another closer it is open again. */
    while (result == 0 &&
           (closed = atomic_load_explicit(&self->closed, memory_order_relaxed)) < 2) {
        result = closed == 1 ? close_with(self, deadline_ns) : close_first(self, deadline_ns);
    }
    return result;
}

static PyObject *system_close(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &timeout) ||
        close_system((esc_py_system *)object, timeout) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static void system_finalize(PyObject *object)
{
    esc_py_system *self = (esc_py_system *)object;
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) == 2 ||
        !esc_py_is_own(self->fork_generation)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    /* on a thread of the system itself it cannot be closed: the function then starts another */
    PyObject *result = PyObject_CallFunction(self->state->system.abandoned, "OO", object,
                                             is_inside(self) ? Py_True : Py_False);
    if (result == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(result);
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) != 2 && !is_inside(self)) {
        leave_behind(self); /* its threads run: to join them with the GIL held would never end */
    }
    PyErr_Restore(type, value, traceback);
}

static int system_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_system *self = (esc_py_system *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->definitions);
    Py_VISIT(self->events);
    Py_VISIT(self->readmodels);
    Py_VISIT(self->beside);
    Py_VISIT((PyObject *)self->keeper);
    return 0;
}

static int system_clear(PyObject *object)
{
    esc_py_system *self = (esc_py_system *)object;
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) == 2 &&
        esc_py_is_own(self->fork_generation)) {
        Py_CLEAR(self->readmodels);
        Py_CLEAR(self->beside);
    }
    return 0;
}

static void system_dealloc(PyObject *object)
{
    esc_py_system *self = (esc_py_system *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (!esc_py_dealloc_begin(object, &self->weakrefs)) {
        return;
    }
    bool own = esc_py_is_own(self->fork_generation);
    Py_CLEAR(self->readmodels);
    Py_CLEAR(self->beside);
    if (own) {
        if (self->keeper != NULL) {
            esc_py_simulation_leave(self);
        }
        escqrs_projector_destroy(self->projector);
        escqrs_system_destroy(self->system); /* with the GIL: states are Python objects */
        Py_XDECREF((PyObject *)self->keeper);
        Py_XDECREF(self->definitions);
    }
    Py_XDECREF(self->events);
    Py_XDECREF(self->path);
    if (own) {
        type->tp_free(object);
    }
    Py_DECREF(type);
}

/* ---- methods ------------------------------------------------------------------------------------------- */

static PyObject *system_subscript(PyObject *object, PyObject *key)
{
    esc_py_system *self = (esc_py_system *)object;
    PyObject *cls = key, *found;
    bool entity = PyTuple_CheckExact(key) && PyTuple_GET_SIZE(key) == 2;
    if (entity) {
        cls = PyTuple_GET_ITEM(key, 0);
    }
    if (esc_py_system_pin_inside(self) < 0) {
        return NULL;
    }
    found = Py_XNewRef(PyDict_GetItemWithError(entity ? self->definitions : self->readmodels, cls));
    if (found == NULL && !PyErr_Occurred()) {
        found = PyObject_CallFunctionObjArgs(self->state->system.find, object, key, NULL);
    }
    PyObject *result = found;
    if (found != NULL && entity) {
        result = esc_py_handle_new(self, found, PyTuple_GET_ITEM(key, 1));
        Py_DECREF(found);
    }
    esc_py_system_unpin(self);
    return result;
}

static PyObject *system_add_aggregate(PyObject *object, PyObject *cls)
{
    esc_py_system *self = (esc_py_system *)object;
    PyObject *definition =
        PyObject_CallFunctionObjArgs((PyObject *)self->state->definition.type, object, cls, NULL);
    if (definition == NULL || PyDict_SetItem(self->definitions, cls, definition) < 0) {
        Py_XDECREF(definition);
        return NULL;
    }
    return definition;
}

static PyObject *system_events(PyObject *object, PyObject *args, PyObject *kwargs)
{
    esc_py_system *self = (esc_py_system *)object;
    if (esc_py_system_pin_inside(self) < 0) {
        return NULL;
    }
    PyObject *cursor =
        esc_py_cursor_new(self->keeper, object, (escqrs_slice){NULL, 0}, args, kwargs);
    esc_py_system_unpin(self);
    return cursor;
}

/* Wait until what was sent is answered; the read models are the facade's to wait for. */
static PyObject *system_drain(PyObject *object, PyObject *args)
{
    esc_py_system *self = (esc_py_system *)object;
    PyObject *timeout;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "O", &timeout) ||
        esc_py_actor_deadline(self->keeper->simulation, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    if (is_inside(self)) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "flush() waits for every handler, so it cannot be called by one");
        return NULL;
    }
    if (esc_py_system_pin(self) < 0) {
        return NULL;
    }
    int status = wait_drained(self, NULL, deadline_ns);
    esc_py_system_tidy(self);
    if (status == ESCQRS_OK &&
        !esc_py_is_tidying()) { /* the log lines and callbacks of what has failed or ended */
        status = esc_py_system_wait_completed(self, deadline_ns);
    }
    esc_py_system_unpin(self);
    if (status < 0) {
        return NULL;
    }
    if (status == ESCQRS_TIMEOUT) {
        PyErr_Format(esc_py_error_class(self->state, ESCQRS_TIMEOUT),
                     "%zu commands are still under way", escqrs_system_in_flight(self->system));
        return NULL;
    }
    if (status != ESCQRS_OK) {
        PyErr_Format(esc_py_error_class(self->state, (escqrs_status)status),
                     "flush() could not wait for the "
                     "commands of %U",
                     self->path);
        return NULL;
    }
    return PyLong_FromLongLong(escqrs_store_head(self->store));
}

static PyObject *system_get_head(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_system *self = (esc_py_system *)object;
    if (esc_py_system_pin_inside(self) < 0) {
        return NULL;
    }
    int64_t head;
    Py_BEGIN_ALLOW_THREADS
    head = escqrs_store_head(self->store);
    Py_END_ALLOW_THREADS
    esc_py_system_unpin(self);
    return PyLong_FromLongLong(head);
}

static PyObject *system_get_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(
        atomic_load_explicit(&((esc_py_system *)object)->closed, memory_order_relaxed) != 0);
}

static PyObject *system_get_forked(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!esc_py_is_own(((esc_py_system *)object)->fork_generation));
}

static PyObject *system_get_object(PyObject *object, void *closure)
{
    PyObject *value = *(PyObject **)((char *)object + (size_t)closure);
    return Py_NewRef(value == NULL ? Py_None : value);
}

static PyObject *system_get_readonly(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_system *)object)->readonly);
}

static PyObject *system_get_in_flight(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(escqrs_system_in_flight(((esc_py_system *)object)->system));
}

static PyObject *system_get_live(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(escqrs_system_live(((esc_py_system *)object)->system));
}

/* The functions of the facade that C calls; each once, at import. */
static PyObject *bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"find",  "abandoned",    "log_failure", "describe", "encode_reply",
                            "check", "decode_reply", "set_future",  "matches",  NULL};
    esc_py_state *state = esc_py_state_of(module);
    PyObject *given[9];
    PyObject **slots[] = {
        &state->system.find,         &state->system.abandoned,        &state->system.log_failure,
        &state->definition.describe, &state->definition.encode_reply, &state->definition.check,
        &state->reply.decode_reply,  &state->reply.set_future,        &state->recorded.matches,
    };
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOOOOOOO", names, &given[0], &given[1],
                                     &given[2], &given[3], &given[4], &given[5], &given[6],
                                     &given[7], &given[8])) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        Py_XSETREF(*slots[i], Py_NewRef(given[i]));
    }
    Py_RETURN_NONE;
}

static PyObject *compare_schema(PyObject *module, PyObject *args)
{
    esc_py_state *state = esc_py_state_of(module);
    PyObject *cls;
    Py_buffer record;
    if (!PyArg_ParseTuple(args, "Oy*", &cls, &record)) {
        return NULL;
    }
    if (esc_py_class_kind(state, cls) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "%R is no message class", cls);
        PyBuffer_Release(&record);
        return NULL;
    }
    const escqrs_schema *schema = esc_py_message_schema((PyTypeObject *)cls);
    escqrs_error error = {0};
    escqrs_status status =
        schema == NULL
            ? ESCQRS_INVALID
            : escqrs_schema_compare(schema, (escqrs_slice){record.buf, (size_t)record.len}, &error);
    PyBuffer_Release(&record);
    if (schema == NULL || status != ESCQRS_OK) {
        return schema == NULL ? NULL : esc_py_raise(state, &error);
    }
    Py_RETURN_NONE;
}

static PyMethodDef module_functions[] = {
    {"_bind_system", _PyCFunction_CAST(bind), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_compare_schema", compare_schema, METH_VARARGS,
     "_compare_schema($module, cls, record, /)\n--\n\nSchemaMismatch where the class would misread "
     "what `record` wrote."},
    {NULL, NULL, 0, NULL},
};

/* _run_beside(tuple): what a simulation steps besides. */
static PyObject *system_run_beside(PyObject *object, PyObject *given)
{
    if (!PyTuple_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "_run_beside takes a tuple");
        return NULL;
    }
    Py_XSETREF(((esc_py_system *)object)->beside, Py_NewRef(given));
    Py_RETURN_NONE;
}

static PyMethodDef system_methods[] = {
    {"close", _PyCFunction_CAST(system_close), METH_VARARGS | METH_KEYWORDS,
     "close($self, timeout=None)\n--\n\nRefuse new commands, finish those accepted and what they "
     "send, "
     "and let go of the file.\n\n"
     "timeout: seconds; what is not finished then is dropped, and its reply says so. Twice is "
     "once. es.Deadlock in a\n"
     "handler."},
    {"events", _PyCFunction_CAST(system_events), METH_VARARGS | METH_KEYWORDS,
     "events($self, *, after=0, upto=None, match=(), reverse=False, limit=None, "
     "deleted='raise')\n--\n\n"
     "Iterate over all stored events in global order; after and upto are positions. It ends at the "
     "head as it is now."},
    {"_add_aggregate", system_add_aggregate, METH_O, NULL},
    {"_drain", system_drain, METH_VARARGS, NULL},
    {"_run_beside", system_run_beside, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef system_getset[] = {
    {"head", system_get_head, NULL, "Position of the last event; 0 in an empty store.", NULL},
    {"path", system_get_object, NULL, "The file's path, or \":memory:\".",
     (void *)offsetof(esc_py_system, path)},
    {"closed", system_get_closed, NULL, "Whether close() was called.", NULL},
    {"readonly", system_get_readonly, NULL, "Whether it was opened with readonly=True.", NULL},
    {"in_flight", system_get_in_flight, NULL, "Commands accepted and not yet answered.", NULL},
    {"live", system_get_live, NULL, "Entities whose state is in memory.", NULL},
    {"_forked", system_get_forked, NULL, NULL, NULL},
    {"store", system_get_object, NULL, "The es.Store below it.",
     (void *)offsetof(esc_py_system, keeper)},
    {"_definitions", system_get_object, NULL, NULL, (void *)offsetof(esc_py_system, definitions)},
    {"_events", system_get_object, NULL, NULL, (void *)offsetof(esc_py_system, events)},
    {"_readmodels", system_get_object, NULL, NULL, (void *)offsetof(esc_py_system, readmodels)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef system_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_system, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot system_slots[] = {
    {Py_tp_doc, "The part of es.System that is written in C."},
    {Py_tp_new, system_new},
    {Py_tp_dealloc, system_dealloc},
    {Py_tp_finalize, system_finalize},
    {Py_tp_traverse, system_traverse},
    {Py_tp_clear, system_clear},
    {Py_tp_methods, system_methods},
    {Py_tp_getset, system_getset},
    {Py_tp_members, system_members},
    {Py_mp_subscript, system_subscript},
    {0, NULL},
};

static PyType_Spec system_spec = {
    .name = "escqrs._core.SystemBase",
    .basicsize = sizeof(esc_py_system),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = system_slots,
};

int esc_py_system_exec(PyObject *module)
{
    esc_py_system_state *section = &esc_py_state_of(module)->system;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &system_spec, NULL);
    return section->type == NULL || PyModule_AddType(module, section->type) < 0 ||
                   PyModule_AddFunctions(module, module_functions) < 0
               ? -1
               : 0;
}

int esc_py_system_traverse_state(esc_py_system_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->find);
    Py_VISIT(section->abandoned);
    Py_VISIT(section->log_failure);
    return 0;
}

void esc_py_system_clear_state(esc_py_system_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->find);
    Py_CLEAR(section->abandoned);
    Py_CLEAR(section->log_failure);
}
