/* python/actor_stream.c - es.Stream: a reference to send to, and a queue to read from outside.
 *
 * It is the core's escqrs_stream. Who awaits it in an event loop is a StreamAwait, which the
 * stream's bell has while it waits: a block of its own, as references to the stream may outlive the
 * Python object. A delivery rings the bell: it takes who waits off, and puts it on the queue of its
 * loop (loop.h), from any thread and without the GIL. Who stops waiting takes itself off. Whoever
 * has taken it has its reference, so each is woken, or given up, once. Locks: none; reading needs
 * the GIL.
 */

#include "python/actor.h"

#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/loop.h"
#include "python/state.h"

typedef struct stream_await stream_await;

typedef struct bell {
    _Atomic(stream_await *) awaiter; /* strong: it is to hear of the next delivery; or NULL */
} bell;

typedef struct stream {
    esc_py_ref ref;
    escqrs_stream *core;
    bell *bell; /* the core's to free */
} stream;

struct stream_await {
    PyObject_HEAD
    esc_py_loop_errand errand;
    stream *stream;     /* strong */
    PyObject *queue;    /* LoopQueue of its loop; NULL: the loop of a seeded system, or none yet */
    PyObject *future;   /* while it waits */
    PyObject *iterator; /* of the future */
    bool lent;          /* a reference: to the bell, or to the queue of the loop; with the GIL */
};

/* With the bell's reference; or NULL: somebody else has it, or nobody waits. */
static stream_await *take_awaiter(bell *self)
{
    /* acquire: pairs with the release in begin_wait */
    return atomic_exchange_explicit(&self->awaiter, NULL, memory_order_acquire);
}

/* Any thread, with or without the GIL. */
static void bell_ring(void *data)
{
    stream_await *awaiter = take_awaiter(data);
    if (awaiter != NULL && awaiter->queue != NULL) {
        esc_py_loop_push_errand(awaiter->queue, &awaiter->errand);
    } else if (awaiter != NULL) {
        esc_py_errand_push(awaiter->errand.system, &awaiter->errand.errand);
    }
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
    self->bell = made;
    self->ref.core = escqrs_stream_ref(
        self->core); /* the stream's one reference, which its release gives back */
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
        escqrs_stream_release(self->core); /* nobody waits: who does holds this object */
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

/* ---- awaiting ----------------------------------------------------------------------------------- */

/* On the loop's thread, with the reference that the sink had. */
static void await_woken(esc_py_errand *errand)
{
    stream_await *self = ESC_CONTAINER_OF(errand, stream_await, errand.errand);
    self->lent = false;
    if (self->future != NULL) {
        esc_py_loop_settle(self->future);
    }
    Py_DECREF((PyObject *)self);
}

/* It does not wait any more. */
static void end_wait(stream_await *self)
{
    bell *hung = self->stream->bell;
    /* relaxed: with the GIL, under which it came there */
    if (self->lent && atomic_load_explicit(&hung->awaiter, memory_order_relaxed) == self &&
        take_awaiter(hung) != NULL) {
        self->lent = false;
        Py_DECREF((PyObject *)self); /* the caller has one */
    }
    Py_CLEAR(self->iterator);
    Py_CLEAR(self->future);
}

static int refuse_second(void)
{
    PyErr_SetString(PyExc_RuntimeError, "somebody else awaits this stream already");
    return -1;
}

/* 0: it waits, or there is something already; -1 with an exception. */
static int begin_wait(stream_await *self)
{
    bell *hung = self->stream->bell;
    esc_py_actor_system *system = self->stream->ref.system;
    stream_await *nobody = NULL;
    if (self->lent) { /* somebody steps it who was not woken */
        return refuse_second();
    }
    Py_CLEAR(self->queue);
    if (system->manual) { /* a seeded loop watches no descriptor, and all is on its thread */
        PyObject *checked = PyObject_CallMethod((PyObject *)system, "_check_loop", NULL);
        Py_XDECREF(checked);
        self->future = checked == NULL ? NULL : esc_py_loop_future(system->state, NULL);
    } else {
        self->future = esc_py_loop_future(system->state, &self->queue);
    }
    if (self->future == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "a stream can be awaited only while an event loop "
                                                "runs; elsewhere use stream.get()");
        }
        return -1;
    }
    self->iterator = PyObject_GetIter(self->future);
    if (self->iterator == NULL) {
        Py_CLEAR(self->future);
        return -1;
    }
    self->lent = true;
    Py_INCREF((PyObject *)self); /* the bell's */
    /* release: who takes it sees its queue */
    if (!atomic_compare_exchange_strong_explicit(&hung->awaiter, &nobody, self,
                                                 memory_order_release, memory_order_relaxed)) {
        self->lent = false;
        Py_DECREF((PyObject *)self);
        Py_CLEAR(self->iterator);
        Py_CLEAR(self->future);
        return refuse_second();
    }
    stream_await *awaiter = escqrs_stream_arm(self->stream->core) ? NULL : take_awaiter(hung);
    if (awaiter != NULL) {
        await_woken(&awaiter->errand.errand);
    }
    return 0;
}

static PySendResult await_send(PyObject *object, PyObject *Py_UNUSED(sent), PyObject **result)
{
    stream_await *self = (stream_await *)object;
    *result = NULL;
    if (esc_py_actor_system_check_fork(self->stream->ref.system) < 0) {
        return PYGEN_ERROR;
    }
    for (;;) {
        if (self->iterator != NULL) {
            PySendResult step = PyIter_Send(self->iterator, Py_None, result);
            if (step == PYGEN_NEXT) {
                return step;
            }
            end_wait(self); /* keeps an exception */
            if (step == PYGEN_ERROR) {
                return step;
            }
            Py_CLEAR(*result);
        }
        escqrs_status status = take(self->stream, result);
        if (status == ESCQRS_OK) {
            return PYGEN_RETURN;
        }
        if (status == ESCQRS_CLOSED) {
            PyErr_SetNone(PyExc_StopAsyncIteration);
            return PYGEN_ERROR;
        }
        if (begin_wait(self) < 0) {
            return PYGEN_ERROR;
        }
    }
}

static PyObject *await_next(PyObject *object)
{
    PyObject *result;
    return await_send(object, Py_None, &result) == PYGEN_RETURN ? esc_py_loop_return(result)
                                                                : result;
}

/* Its task is cancelled, or another exception is thrown into it. */
static PyObject *await_throw(PyObject *object, PyObject *args)
{
    PyObject *type, *value = NULL, *traceback = NULL;
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback)) {
        return NULL;
    }
    end_wait((stream_await *)object);
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    } else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
    } else {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
    }
    return NULL;
}

static PyObject *await_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    end_wait((stream_await *)object);
    Py_RETURN_NONE;
}

/* _next(): an awaitable of the next message, which raises StopAsyncIteration at the end. */
static PyObject *stream_await_next(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    stream *of = (stream *)object;
    stream_await *self =
        PyObject_GC_New(stream_await, of->ref.system->state->actor.stream_await_type);
    if (self == NULL) {
        return NULL;
    }
    self->errand.errand.run = await_woken;
    self->errand.system = of->ref.system; /* which the stream holds */
    self->stream = (stream *)Py_NewRef(object);
    self->queue = self->future = self->iterator = NULL;
    self->lent = false;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int await_traverse(PyObject *object, visitproc visit, void *arg)
{
    stream_await *self = (stream_await *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->stream);
    Py_VISIT(self->queue);
    Py_VISIT(self->future);
    Py_VISIT(self->iterator);
    return 0;
}

static void await_dealloc(PyObject *object)
{
    stream_await *self = (stream_await *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->queue);
    Py_XDECREF(self->future);
    Py_XDECREF(self->iterator);
    Py_XDECREF((PyObject *)self->stream);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMethodDef await_methods[] = {
    {"throw", await_throw, METH_VARARGS, NULL},
    {"close", await_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot await_slots[] = {
    {Py_tp_dealloc, await_dealloc}, {Py_tp_traverse, await_traverse},
    {Py_tp_methods, await_methods}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, await_next},   {Py_am_await, PyObject_SelfIter},
    {Py_am_send, await_send},       {0, NULL},
};

PyType_Spec esc_py_stream_await_spec = {
    .name = "escqrs._core.StreamAwait",
    .basicsize = sizeof(stream_await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = await_slots,
};

/* ---- the type ----------------------------------------------------------------------------------- */

static PyMethodDef stream_methods[] = {
    {"get", _PyCFunction_CAST(stream_get), METH_VARARGS | METH_KEYWORDS,
     "get($self, timeout=None)\n--\n\nWait for the next message and return it; es.Timeout, and "
     "es.Closed once it is closed and empty."},
    {"close", stream_close, METH_NOARGS,
     "close($self, /)\n--\n\nTake no more; what has come can still be read. From any thread."},
    {"_next", stream_await_next, METH_NOARGS, NULL},
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
