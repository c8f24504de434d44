/* python/loop.c - see loop.h. */
#include "python/loop.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "python/state.h"

typedef struct loop_queue {
    PyObject_HEAD
    esc_queue queue;
    int descriptor;
    _Atomic uint32_t dead; /* the loop is gone: nobody drains any more */
    _Atomic uint32_t
        pushing;    /* threads in esc_py_loop_push: memory and descriptor stay until they are out */
    PyObject *loop; /* weak reference, whose callback is `forget`; NULL once the loop is gone */
    PyObject *weakrefs;
} loop_queue;

typedef struct reply_await {
    PyObject_HEAD
    esc_py_reply *reply;
    PyObject *iterator; /* of the future; NULL before the first step */
} reply_await;

static PyObject *running_loop(esc_py_state *state) /* new reference or None */
{
    if (state->reply.get_running_loop == NULL) {
        PyObject *asyncio = PyImport_ImportModule("asyncio");
        if (asyncio == NULL) {
            return NULL;
        }
        state->reply.get_running_loop = PyObject_GetAttrString(asyncio, "_get_running_loop");
        Py_DECREF(asyncio);
        if (state->reply.get_running_loop == NULL) {
            return NULL;
        }
    }
    return PyObject_CallNoArgs(state->reply.get_running_loop);
}

int esc_py_loop_is_running(esc_py_state *state)
{
    PyObject *loop = running_loop(state);
    if (loop == NULL) {
        return -1;
    }
    int result = loop != Py_None;
    Py_DECREF(loop);
    return result;
}

/* ---- LoopQueue ---------------------------------------------------------------------------------- */

/* The loop must not watch a descriptor that is about to be closed: its number will be somebody
 * else's. */
static void remove_reader(PyObject *loop, int descriptor)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallMethod(loop, "remove_reader", "i", descriptor);
    if (result == NULL) {
        PyErr_WriteUnraisable(loop);
    }
    Py_XDECREF(result);
    PyErr_Restore(type, value, traceback);
}

static loop_queue *queue_new(esc_py_state *state, PyObject *loop)
{
    PyObject *drain = NULL, *forget = NULL, *result = NULL;
    loop_queue *self = PyObject_New(loop_queue, state->reply.loop_type);
    if (self == NULL) {
        return NULL;
    }
    esc_queue_init(&self->queue);
    atomic_init(&self->dead, 0);
    atomic_init(&self->pushing, 0);
    self->weakrefs = NULL;
    self->loop = NULL;
    self->descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->descriptor < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto fail;
    }
    /* queue -> weak reference -> forget -> queue: a cycle that ends when the loop does */
    forget = PyObject_GetAttrString((PyObject *)self, "forget");
    if (forget == NULL || (self->loop = PyWeakref_NewRef(loop, forget)) == NULL) {
        goto fail;
    }
    drain = PyObject_GetAttrString((PyObject *)self, "drain");
    if (drain == NULL) {
        goto fail;
    }
    result = PyObject_CallMethod(loop, "add_reader", "iO", self->descriptor, drain);
    if (result == NULL) {
        goto fail;
    }
    if (PyObject_SetItem(state->reply.loops, loop, (PyObject *)self) < 0) {
        remove_reader(loop, self->descriptor);
        goto fail;
    }
    Py_DECREF(result);
    Py_DECREF(drain);
    Py_DECREF(forget);
    return self;
fail:
    Py_XDECREF(result);
    Py_XDECREF(drain);
    Py_XDECREF(forget);
    Py_CLEAR(self->loop);
    Py_DECREF((PyObject *)self);
    return NULL;
}

static PyObject *weak_target(PyObject *reference) /* new reference, or NULL without an exception */
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target = NULL;
    if (PyWeakref_GetRef(reference, &target) < 0) {
        PyErr_Clear(); /* it is one of our own weak references */
    }
    return target;
#else
    PyObject *target = PyWeakref_GetObject(reference);
    return target == NULL || target == Py_None ? NULL : Py_NewRef(target);
#endif
}

/* New reference. */
static PyObject *queue_of(esc_py_state *state, PyObject *loop)
{
    loop_queue *last = (loop_queue *)state->reply.loop_cache;
    if (last != NULL) {
        PyObject *target = last->loop == NULL ? NULL : weak_target(last->loop);
        Py_XDECREF(target);
        if (target == loop) {
            return Py_NewRef((PyObject *)last);
        }
    }
    PyObject *queue = PyObject_GetItem(state->reply.loops, loop);
    if (queue == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
            return NULL;
        }
        PyErr_Clear();
        queue = (PyObject *)queue_new(state, loop);
        if (queue == NULL) {
            return NULL;
        }
    }
    Py_XSETREF(state->reply.loop_cache, Py_NewRef(queue));
    return queue;
}

/* Any thread: give what is in a dead loop's queue to the system. */
static void queue_pass_on(loop_queue *self)
{
    esc_queue_node *node = esc_queue_take_all(&self->queue);
    while (node != NULL) {
        esc_queue_node *next = node->next;
        esc_py_reply *reply = (esc_py_reply *)((char *)node - offsetof(esc_py_reply, queued));
        esc_py_system_push_completed(reply->system, reply);
        node = next;
    }
}

void esc_py_loop_push(PyObject *object, esc_py_reply *reply)
{
    loop_queue *self = (loop_queue *)object;
    /* The reply holds the queue, but once pushed it may be drained at once and both may go: from
     * here on `pushing` keeps the queue. relaxed: the push orders it before the drain. */
    (void)atomic_fetch_add_explicit(&self->pushing, 1, memory_order_relaxed);
    if (esc_queue_push(&self->queue, &reply->queued)) {
        uint64_t one = 1;
        ssize_t written;
        do {
            written = write(self->descriptor, &one, sizeof one);
        } while (written < 0 && errno == EINTR);
    }
    /* seq_cst: pairs with the fence in queue_forget: either its drain finds the reply or we see
     * that it came */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&self->dead, memory_order_relaxed)) {
        queue_pass_on(self);
    }
    /* release: pairs with the acquire in queue_dealloc */
    (void)atomic_fetch_sub_explicit(&self->pushing, 1, memory_order_release);
}

static void queue_drain(loop_queue *self)
{
    esc_queue_node *node = esc_queue_take_all(&self->queue);
    while (node != NULL) {
        esc_queue_node *next = node->next;
        esc_py_reply_complete((esc_py_reply *)((char *)node - offsetof(esc_py_reply, queued)));
        node = next;
    }
}

static PyObject *queue_drain_method(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    loop_queue *self = (loop_queue *)object;
    uint64_t count;
    ssize_t got = read(self->descriptor, &count, sizeof count);
    (void)got; /* EAGAIN: somebody drained before */
    queue_drain(self);
    Py_RETURN_NONE;
}

static PyObject *queue_forget(PyObject *object, PyObject *Py_UNUSED(reference))
{
    loop_queue *self = (loop_queue *)object;
    atomic_store_explicit(&self->dead, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* see esc_py_loop_push */
    queue_drain(self); /* the descriptor is not read: after fork the parent has it too */
    Py_CLEAR(self->loop);
    Py_RETURN_NONE;
}

static void queue_dealloc(PyObject *object)
{
    loop_queue *self = (loop_queue *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    /* acquire: pairs with the release in esc_py_loop_push. Those who push never wait for the GIL.
     */
    while (atomic_load_explicit(&self->pushing, memory_order_acquire) != 0) {
        sched_yield();
    }
    if (self->descriptor >= 0) {
        close(self->descriptor);
    }
    Py_XDECREF(self->loop);
    PyObject_Free(self);
    Py_DECREF(type);
}

void esc_py_loop_settle(PyObject *future)
{
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    PyObject *result = NULL;
    if (done == Py_False) {
        result = PyObject_CallMethod(future, "set_result", "O", Py_None);
    }
    if (done == NULL || (done == Py_False && result == NULL)) {
        PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(done);
    Py_XDECREF(result);
}

static PyMethodDef queue_methods[] = {
    {"drain", queue_drain_method, METH_NOARGS,
     "Wake the futures whose replies are done; called by the loop."},
    {"forget", queue_forget, METH_O, "The loop is gone."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_methods, queue_methods},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "escqrs._core.LoopQueue",
    .basicsize = sizeof(loop_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = queue_slots,
};

/* ---- the awaiter -------------------------------------------------------------------------------- */

/* What a seeded system does goes on while its own loop waits, and not while another one does. */
static int refuse_other_loop(esc_py_reply *reply)
{
    PyObject *simulation = (PyObject *)reply->system->keeper->simulation;
    if (simulation == NULL || esc_py_reply_is_done(reply)) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(simulation, "_check_loop", NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *esc_py_loop_await(PyObject *object)
{
    esc_py_reply *reply = (esc_py_reply *)object;
    if (refuse_other_loop(reply) < 0) {
        return NULL;
    }
    reply_await *self = PyObject_GC_New(reply_await, reply->system->state->reply.await_type);
    if (self == NULL) {
        return NULL;
    }
    self->reply = (esc_py_reply *)Py_NewRef(object);
    self->iterator = NULL;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int add_pair(esc_py_reply *reply, PyObject *loop, PyObject *future)
{
    if (reply->callbacks == NULL && (reply->callbacks = PyList_New(0)) == NULL) {
        return -1;
    }
    PyObject *pair = PyTuple_Pack(2, loop, future);
    int result = pair == NULL ? -1 : PyList_Append(reply->callbacks, pair);
    Py_XDECREF(pair);
    return result;
}

int esc_py_loop_leave(esc_py_reply *reply)
{
    if (reply->future == NULL) {
        return 0;
    }
    PyObject *reference = ((loop_queue *)reply->loop)->loop;
    PyObject *loop = reference == NULL ? NULL : weak_target(reference);
    int result = loop == NULL ? 0 : add_pair(reply, loop, reply->future);
    Py_XDECREF(loop);
    if (result == 0) {
        Py_CLEAR(reply->future);
        /* relaxed: `done` either came before (then notify_later finds DONE) or sees the bit gone;
         * what it then reads was written with the GIL and is read with the GIL */
        (void)atomic_fetch_and_explicit(&reply->word, ~ESC_PY_REPLY_LOOP, memory_order_relaxed);
    }
    return result;
}

/* Register a future of the running loop with the reply; new reference to its iterator. */
static PyObject *await_future(esc_py_reply *reply)
{
    esc_py_state *state = reply->system->state;
    PyObject *queue = NULL, *future = NULL, *iterator = NULL;
    if (esc_py_reply_refuse_own(reply) < 0) {
        return NULL;
    }
    PyObject *loop = running_loop(state);
    if (loop == NULL) {
        return NULL;
    }
    if (loop == Py_None) {
        PyErr_SetString(PyExc_RuntimeError, "a reply can be awaited only while an event loop runs; "
                                            "elsewhere use reply.result()");
        goto fail;
    }
    future = PyObject_CallMethod(loop, "create_future", NULL);
    if (future == NULL) {
        goto fail;
    }
    iterator = PyObject_GetIter(future);
    if (iterator == NULL) {
        goto fail;
    }
    /* a seeded loop watches no descriptor, and all is on its thread. relaxed: only threads with the
     * GIL set NOTIFY, and we have it */
    if (reply->system->keeper->simulation != NULL ||
        (atomic_load_explicit(&reply->word, memory_order_relaxed) & ESC_PY_REPLY_NOTIFY) != 0) {
        if (esc_py_loop_leave(reply) < 0 || add_pair(reply, loop, future) < 0) {
            Py_CLEAR(iterator);
            goto fail;
        }
        (void)esc_py_reply_notify_later(reply, 0);
    } else {
        queue = queue_of(state, loop);
        if (queue == NULL) {
            Py_CLEAR(iterator);
            goto fail;
        }
        reply->future = Py_NewRef(future);
        reply->loop = Py_NewRef(queue);
        (void)esc_py_reply_notify_later(reply, ESC_PY_REPLY_LOOP);
    }
fail:
    Py_XDECREF(queue);
    Py_XDECREF(future);
    Py_DECREF(loop);
    return iterator;
}

/* A handler's StopIteration would end the coroutine that awaits as if it had returned: as Python
 * does for generators (PEP 479), a RuntimeError carries it. */
static void replace_stop_iteration(void)
{
    PyObject *type, *value, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    PyObject *error =
        PyObject_CallFunction(PyExc_RuntimeError, "s", "the handler raised StopIteration");
    if (error == NULL) {
        Py_XDECREF(value);
        return;
    }
    PyException_SetCause(error, value); /* takes the reference */
    PyErr_SetObject(PyExc_RuntimeError, error);
    Py_DECREF(error);
}

static PySendResult await_send(PyObject *object, PyObject *Py_UNUSED(sent), PyObject **result)
{
    reply_await *self = (reply_await *)object;
    *result = NULL;
    if (self->iterator == NULL && !esc_py_reply_is_done(self->reply)) {
        self->iterator = await_future(self->reply);
        if (self->iterator == NULL) {
            return PYGEN_ERROR;
        }
    }
    if (self->iterator != NULL) {
        PySendResult step = PyIter_Send(self->iterator, Py_None, result);
        if (step != PYGEN_RETURN) {
            return step;
        }
        Py_CLEAR(*result);
    }
    if (!esc_py_reply_is_done(self->reply)) {
        PyErr_SetString(PyExc_RuntimeError, "the future of a reply was settled by somebody else");
        return PYGEN_ERROR;
    }
    *result = esc_py_reply_result(self->reply);
    if (*result == NULL) {
        replace_stop_iteration();
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

static PyObject *await_next(PyObject *object)
{
    PyObject *result;
    PySendResult step = await_send(object, Py_None, &result);
    if (step == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        return NULL;
    }
    return result;
}

static int await_traverse(PyObject *object, visitproc visit, void *arg)
{
    reply_await *self = (reply_await *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->reply);
    Py_VISIT(self->iterator);
    return 0;
}

static void await_dealloc(PyObject *object)
{
    reply_await *self = (reply_await *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF((PyObject *)self->reply);
    Py_XDECREF(self->iterator);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot await_slots[] = {
    {Py_tp_dealloc, await_dealloc},  {Py_tp_traverse, await_traverse},
    {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, await_next},
    {Py_am_send, await_send},        {0, NULL},
};

static PyType_Spec await_spec = {
    .name = "escqrs._core.ReplyAwait",
    .basicsize = sizeof(reply_await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = await_slots,
};

int esc_py_loop_exec(PyObject *module)
{
    esc_py_reply_state *section = &esc_py_state_of(module)->reply;
    section->loop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &queue_spec, NULL);
    section->await_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &await_spec, NULL);
    if (section->loop_type == NULL || section->await_type == NULL) {
        return -1;
    }
    PyObject *weakref = PyImport_ImportModule("weakref");
    if (weakref == NULL) {
        return -1;
    }
    section->loops = PyObject_CallMethod(weakref, "WeakKeyDictionary", NULL);
    Py_DECREF(weakref);
    return section->loops == NULL ? -1 : 0;
}
