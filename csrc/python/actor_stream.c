/* python/actor_stream.c - es.Stream: a reference to send to, and a queue to read from outside.
 *
 * The core delivers on any thread, with or without the GIL: the mail goes on a lock-free queue and
 * `word` counts; readers sleep on it. The sink is a block of its own, as references to it may
 * outlive the Python object; what comes then is a dead letter. Locks: none; reading needs the GIL.
 */

#include "python/actor.h"

#include <limits.h>
#include <string.h>

#include "base/thread.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/state.h"

typedef struct stream_sink {
    escqrs_sink sink;
    esc_queue mails;
    _Atomic uint32_t word;   /* counts deliveries; a futex */
    _Atomic uint32_t closed; /* nothing is taken any more */
    _Atomic uint32_t notify; /* an event loop wants to hear of the next delivery */
    esc_py_errand errand;
    esc_py_actor_system *system;
    PyObject *waker; /* function, or NULL where nobody waits any more; with the GIL */
    bool armed;      /* `notify`, or the errand is under way; with the GIL */
} stream_sink;

typedef struct stream {
    esc_py_ref ref;
    stream_sink *sink;
    esc_queue_node *pending; /* taken from the sink, oldest first */
} stream;

static void wake_errand(esc_py_errand *errand)
{
    stream_sink *self = ESC_CONTAINER_OF(errand, stream_sink, errand);
    PyObject *waker = self->waker;
    self->waker = NULL;
    self->armed = false;
    PyObject *result = waker == NULL ? NULL : PyObject_CallNoArgs(waker);
    if (result == NULL && waker != NULL) {
        PyErr_WriteUnraisable(waker);
    }
    Py_XDECREF(result);
    Py_XDECREF(waker);
    escqrs_ref_release(&self->sink.ref); /* the errand's */
}

/* Somebody may sleep. */
static void wake(stream_sink *self)
{
    /* release: pairs with the acquire of the readers */
    (void)atomic_fetch_add_explicit(&self->word, 1, memory_order_release);
    esc_futex_wake(&self->word, INT_MAX);
    /* seq_cst: Dekker with stream_arm: either it sees the mail, or we see that it wants to hear */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_exchange_explicit(&self->notify, 0, memory_order_relaxed)) {
        esc_py_errand_push(self->system, &self->errand);
    }
}

static bool sink_deliver(escqrs_sink *sink, escqrs_envelope *envelope)
{
    stream_sink *self = ESC_CONTAINER_OF(sink, stream_sink, sink);
    if (atomic_load_explicit(&self->closed, memory_order_acquire) ||
        envelope->type != &esc_py_mail_type) {
        return false;
    }
    esc_queue_push(&self->mails, (esc_queue_node *)&envelope->message);
    wake(self);
    return true;
}

static void destroy_chain(esc_queue_node *node)
{
    while (node != NULL) {
        esc_queue_node *next = node->next;
        escqrs_envelope_destroy((escqrs_envelope *)node);
        node = next;
    }
}

static void sink_released(escqrs_sink *sink)
{
    stream_sink *self = ESC_CONTAINER_OF(sink, stream_sink, sink);
    destroy_chain(esc_queue_take_all(&self->mails));
    escqrs_free(self);
}

static const escqrs_sink_ops sink_ops = {.deliver = sink_deliver, .released = sink_released};

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
    stream_sink *sink = self == NULL ? NULL : escqrs_alloc_zero(sizeof *sink);
    if (sink == NULL) {
        Py_XDECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    esc_queue_init(&sink->mails);
    sink->system = core;
    sink->errand.run = wake_errand;
    escqrs_sink_init(&sink->sink, &sink_ops, core->core);
    self->ref.system = (esc_py_actor_system *)Py_NewRef(system);
    self->ref.core = &sink->sink.ref; /* the one reference that init gave */
    self->sink = sink;
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
    if (self->sink != NULL && esc_py_is_own(self->ref.system->fork_generation)) {
        atomic_store_explicit(&self->sink->closed, 1, memory_order_release);
        destroy_chain(self->pending);
        escqrs_ref_release(self->ref.core);
    }
    Py_XDECREF((PyObject *)self->ref.system);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- reading ------------------------------------------------------------------------------------ */

/* The next mail, or NULL. */
static esc_py_mail *take(stream *self)
{
    if (self->pending == NULL) {
        self->pending = esc_queue_take_all(&self->sink->mails);
    }
    esc_queue_node *node = self->pending;
    if (node != NULL) {
        self->pending = node->next;
    }
    return node == NULL ? NULL : esc_py_mail_of((escqrs_envelope *)node);
}

static PyObject *give(esc_py_mail *mail)
{
    PyObject *object = Py_NewRef(esc_py_mail_object(mail));
    escqrs_envelope_destroy(&mail->envelope);
    return object;
}

typedef struct reading {
    stream_sink *sink;
    uint32_t seen;
} reading;

static escqrs_status await_delivery(void *context, int64_t deadline_ns)
{
    reading *self = context;
    while (atomic_load_explicit(&self->sink->word, memory_order_acquire) == self->seen) {
        if (!esc_futex_wait(&self->sink->word, self->seen, deadline_ns)) {
            return ESCQRS_TIMEOUT;
        }
    }
    return ESCQRS_OK;
}

/* The next message; NULL with Closed (or, `ends`, without an exception), Timeout or Ctrl-C. */
static PyObject *next_message(stream *self, int64_t deadline_ns, bool ends)
{
    esc_py_state *state = self->ref.system->state;
    if (esc_py_actor_system_check_fork(self->ref.system) < 0) {
        return NULL;
    }
    for (;;) {
        reading wait = {self->sink, atomic_load_explicit(&self->sink->word, memory_order_acquire)};
        bool closed = atomic_load_explicit(&self->sink->closed, memory_order_acquire);
        esc_py_mail *mail = take(self);
        if (mail != NULL) {
            return give(mail);
        }
        if (closed) {
            if (!ends) {
                PyErr_SetString(esc_py_error_class(state, ESCQRS_CLOSED), "the stream is closed");
            }
            return NULL;
        }
        int status = esc_py_actor_wait(self->ref.system, await_delivery, &wait, NULL, deadline_ns);
        if (status < 0) {
            return NULL;
        }
        if (status != ESCQRS_OK) {
            PyErr_SetString(esc_py_error_class(state, (escqrs_status)status),
                            status == ESCQRS_TIMEOUT ? "nothing came to the stream in time"
                                                     : "the stream could not be waited for");
            return NULL;
        }
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
        atomic_store_explicit(&self->sink->closed, 1, memory_order_release);
        wake(self->sink);
    }
    Py_RETURN_NONE;
}

/* _take(): (message,), or None where there is nothing yet, or () where it is closed. */
static PyObject *stream_take(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    stream *self = (stream *)object;
    bool closed = atomic_load_explicit(&self->sink->closed, memory_order_acquire);
    esc_py_mail *mail = take(self);
    if (mail == NULL) {
        return closed ? PyTuple_New(0) : Py_NewRef(Py_None);
    }
    PyObject *message = give(mail);
    PyObject *result = PyTuple_Pack(1, message);
    Py_DECREF(message);
    return result;
}

/* _arm(function): it is called once, when there is something to take. */
static PyObject *stream_arm(PyObject *object, PyObject *function)
{
    stream *self = (stream *)object;
    stream_sink *sink = self->sink;
    if (sink->waker != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "somebody else awaits this stream already");
        return NULL;
    }
    sink->waker = Py_NewRef(function);
    if (sink->armed) { /* for somebody who has gone; the errand that is under way wakes this one */
        Py_RETURN_NONE;
    }
    sink->armed = true;
    escqrs_ref_hold(self->ref.core); /* the errand's */
    atomic_store_explicit(&sink->notify, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* see wake */
    if ((self->pending != NULL || !esc_queue_is_empty(&sink->mails) ||
         atomic_load_explicit(&sink->closed, memory_order_relaxed)) &&
        atomic_exchange_explicit(&sink->notify, 0, memory_order_relaxed)) {
        wake_errand(&sink->errand);
    }
    Py_RETURN_NONE;
}

/* _disarm(function): it is not to be called any more. */
static PyObject *stream_disarm(PyObject *object, PyObject *function)
{
    stream_sink *sink = ((stream *)object)->sink;
    if (sink->waker != function) {
        Py_RETURN_NONE;
    }
    Py_CLEAR(sink->waker);
    /* relaxed: whoever sees it set, here or in wake, has what it stands for */
    if (atomic_exchange_explicit(&sink->notify, 0, memory_order_relaxed)) {
        sink->armed = false;
        escqrs_ref_release(&sink->sink.ref); /* the errand's */
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
