/* python/actor_stream.c - es.Stream: a reference to send to, and a queue to read from outside.
 *
 * It is the core's escqrs_stream. For event loops it is armed with a bell, a block of its own, as
 * references to the stream may outlive the Python object: who delivers pushes the bell's errand,
 * which calls the waker. Locks: none; reading needs the GIL.
 */

#include "python/actor.h"

#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/state.h"

typedef struct bell {
    esc_py_errand errand;
    esc_py_actor_system *system;
    escqrs_ref *ref; /* the stream's; held by the errand, from being armed until it has run */
    PyObject *waker; /* function, or NULL where nobody waits any more; with the GIL */
    bool armed;      /* the stream is, or the errand is under way; with the GIL */
} bell;

typedef struct stream {
    esc_py_ref ref;
    escqrs_stream *core;
    bell *bell; /* the core's to free */
} stream;

static void call_waker(bell *self)
{
    PyObject *waker = self->waker;
    self->waker = NULL;
    PyObject *result = waker == NULL ? NULL : PyObject_CallNoArgs(waker);
    if (result == NULL && waker != NULL) {
        PyErr_WriteUnraisable(waker);
    }
    Py_XDECREF(result);
    Py_XDECREF(waker);
}

static void wake_errand(esc_py_errand *errand)
{
    bell *self = ESC_CONTAINER_OF(errand, bell, errand);
    self->armed = false;
    call_waker(self);
    escqrs_ref_release(self->ref); /* the errand's */
}

/* Any thread, with or without the GIL. */
static void bell_ring(void *data)
{
    bell *self = data;
    esc_py_errand_push(self->system, &self->errand);
}

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    esc_py_state *state = esc_py_state_of_type(type);
    PyObject *system;
    if (state == NULL || !PyArg_ParseTuple(args, "O!", state->actor.system_type, &system)) {
        return NULL;
    }
    esc_py_actor_system *core = (esc_py_actor_system *)system;
    if (esc_py_actor_system_check_fork(core) < 0) {
        return NULL;
    }
    stream *self = (stream *)type->tp_alloc(type, 0);
    bell *made = self == NULL ? NULL : escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        Py_XDECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    self->ref.system = (esc_py_actor_system *)Py_NewRef(system);
    escqrs_stream_options options = {.ready = bell_ring, .released = escqrs_free, .data = made};
    escqrs_error error = {0};
    if (escqrs_stream_open(core->core, &options, &self->core, &error) != ESCQRS_OK) {
        escqrs_free(made);
        Py_DECREF((PyObject *)self);
        return esc_py_raise(state, &error);
    }
    made->errand.run = wake_errand;
    made->system = core;
    made->ref = escqrs_stream_ref(self->core);
    self->bell = made;
    self->ref.core = made->ref; /* the stream's one reference, which its release gives back */
    return (PyObject *)self;
}

static int stream_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)((stream *)object)->ref.system);
    return 0;
}

static void stream_dealloc(PyObject *object)
{
    stream *self = (stream *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->ref.weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    if (self->core != NULL && esc_py_is_own(self->ref.system->fork_generation)) {
        if (escqrs_stream_disarm(self->core)) {
            Py_CLEAR(self->bell->waker);
            escqrs_ref_release(self->ref.core); /* the errand's */
        }
        escqrs_stream_release(self->core);
    }
    Py_XDECREF((PyObject *)self->ref.system);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- reading ------------------------------------------------------------------------------------ */

/* OK: *object is a new reference; TIMEOUT: there is nothing; CLOSED. */
static escqrs_status take(stream *self, PyObject **object)
{
    escqrs_envelope *envelope;
    escqrs_status status = escqrs_stream_try_next(self->core, &envelope);
    if (status == ESCQRS_OK) {
        *object = Py_NewRef(esc_py_mail_object(esc_py_mail_of(envelope)));
        escqrs_envelope_destroy(envelope);
    }
    return status;
}

static escqrs_status await_delivery(void *context, int64_t deadline_ns)
{
    return escqrs_stream_wait(context, deadline_ns, NULL);
}

/* The next message; NULL with Closed (or, `ends`, without an exception), Timeout or Ctrl-C. */
static PyObject *next_message(stream *self, int64_t deadline_ns, bool ends)
{
    esc_py_state *state = self->ref.system->state;
    if (esc_py_actor_system_check_fork(self->ref.system) < 0) {
        return NULL;
    }
    for (;;) {
        PyObject *object = NULL;
        int status = (int)take(self, &object);
        if (status == ESCQRS_OK) {
            return object;
        }
        if (status == ESCQRS_TIMEOUT) {
            status =
                esc_py_actor_wait(self->ref.system, await_delivery, self->core, NULL, deadline_ns);
        }
        if (status == ESCQRS_OK) {
            continue;
        }
        if (status > 0 && !(ends && status == ESCQRS_CLOSED)) {
            PyErr_SetString(esc_py_error_class(state, (escqrs_status)status),
                            status == ESCQRS_TIMEOUT  ? "nothing came to the stream in time"
                            : status == ESCQRS_CLOSED ? "the stream is closed"
                                                      : "the stream could not be waited for");
        }
        return NULL;
    }
}

static PyObject *stream_get(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &timeout) ||
        esc_py_actor_deadline(((stream *)object)->ref.system, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    return next_message((stream *)object, deadline_ns, false);
}

static PyObject *stream_next(PyObject *object)
{
    return next_message((stream *)object, INT64_MAX, true);
}

static PyObject *stream_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    stream *self = (stream *)object;
    if (esc_py_is_own(self->ref.system->fork_generation)) {
        escqrs_stream_close(self->core);
    }
    Py_RETURN_NONE;
}

/* _take(): (message,), or None where there is nothing yet, or () where it is closed. */
static PyObject *stream_take(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *message = NULL;
    escqrs_status status = take((stream *)object, &message);
    if (status != ESCQRS_OK) {
        return status == ESCQRS_CLOSED ? PyTuple_New(0) : Py_NewRef(Py_None);
    }
    PyObject *result = PyTuple_Pack(1, message);
    Py_DECREF(message);
    return result;
}

/* Whether another one waits, and goes on waiting. Whose errand is under way is woken now. */
static bool is_awaited(stream *self)
{
    bell *other = self->bell;
    while (other->waker != NULL) {
        if (!escqrs_stream_disarm(self->core)) {
            call_waker(other);
        } else if (escqrs_stream_arm(self->core)) {
            return true;
        } else {
            wake_errand(&other->errand); /* something came meanwhile */
        }
    }
    return false;
}

/* _arm(function): it is called once, when there is something to take. */
static PyObject *stream_arm(PyObject *object, PyObject *function)
{
    stream *self = (stream *)object;
    bell *armed = self->bell;
    if (is_awaited(self)) {
        PyErr_SetString(PyExc_RuntimeError, "somebody else awaits this stream already");
        return NULL;
    }
    armed->waker = Py_NewRef(function);
    if (armed->armed) { /* for somebody who has gone; the errand that is under way wakes this one */
        Py_RETURN_NONE;
    }
    armed->armed = true;
    escqrs_ref_hold(armed->ref); /* the errand's */
    if (!escqrs_stream_arm(self->core)) {
        wake_errand(&armed->errand);
    }
    Py_RETURN_NONE;
}

/* _disarm(function): it is not to be called any more. */
static PyObject *stream_disarm(PyObject *object, PyObject *function)
{
    stream *self = (stream *)object;
    bell *armed = self->bell;
    if (armed->waker != function) {
        Py_RETURN_NONE;
    }
    Py_CLEAR(armed->waker);
    if (escqrs_stream_disarm(self->core)) {
        armed->armed = false;
        escqrs_ref_release(armed->ref); /* the errand's */
    }
    Py_RETURN_NONE;
}

static PyMethodDef stream_methods[] = {
    {"get", _PyCFunction_CAST(stream_get), METH_VARARGS | METH_KEYWORDS,
     "get($self, timeout=None)\n--\n\nWait for the next message and return it; es.Timeout, and "
     "es.Closed once it is closed and empty."},
    {"close", stream_close, METH_NOARGS,
     "close($self, /)\n--\n\nTake no more; what has come can still be read. From any thread."},
    {"_take", stream_take, METH_NOARGS, NULL},
    {"_arm", stream_arm, METH_O, NULL},
    {"_disarm", stream_disarm, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, "The part of es.Stream that is written in C."},
    {Py_tp_new, stream_new},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, stream_next},
    {Py_tp_methods, stream_methods},
    {0, NULL},
};

PyType_Spec esc_py_stream_spec = {
    .name = "escqrs._core.StreamBase",
    .basicsize = sizeof(stream),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = stream_slots,
};
