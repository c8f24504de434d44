/* python/actor_reply.c - see actor_reply.h for states and references. Locks: none. */
#include "python/actor_reply.h"

#include <limits.h>
#include <string.h>

#include "base/thread.h"
#include "python/actor_persist.h"
#include "python/reply.h"
#include "python/loop.h"
#include "python/state.h"

static const escqrs_future_ops answer_ops;

esc_py_answer *esc_py_answer_new(esc_py_actor_system *system, esc_py_ref *target)
{
    esc_py_answer *self = PyObject_GC_New(esc_py_answer, system->state->actor.reply_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->system = (esc_py_actor_system *)Py_NewRef((PyObject *)system);
    self->target = Py_NewRef((PyObject *)target);
    escqrs_future_init(&self->future, &answer_ops, target->core);
    Py_INCREF((PyObject *)self); /* the core's */
    PyObject_GC_Track((PyObject *)self);
    return self;
}

esc_py_answer *esc_py_answer_of(escqrs_ref *ref)
{
    if (ref == NULL || escqrs_ref_kind_of(ref) != ESCQRS_REF_FUTURE) {
        return NULL;
    }
    escqrs_future *future = ESC_CONTAINER_OF(ref, escqrs_future, ref);
    return future->future_ops != &answer_ops ? NULL
                                             : ESC_CONTAINER_OF(future, esc_py_answer, future);
}

static int answer_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_answer *self = (esc_py_answer *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT(self->target);
    Py_VISIT(self->exception);
    Py_VISIT(self->callbacks);
    return 0;
}

static int answer_clear(PyObject *object)
{
    esc_py_answer *self = (esc_py_answer *)object;
    Py_CLEAR(self->exception);
    Py_CLEAR(self->callbacks);
    return 0;
}

static void answer_dealloc(PyObject *object)
{
    esc_py_answer *self = (esc_py_answer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)answer_clear(object);
    if (self->mail != NULL) {
        escqrs_envelope_destroy(&self->mail->envelope);
    }
    esc_py_fault_release(self->fault);
    escqrs_free(self->error);
    Py_XDECREF(self->target);
    Py_XDECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- the core's side: any thread, with or without the GIL ---------------------------------------- */

bool esc_py_answer_is_done(esc_py_answer *self)
{
    /* acquire: pairs with the release in answer_complete */
    return (atomic_load_explicit(&self->word, memory_order_acquire) & ESC_PY_ANSWER_DONE) != 0;
}

static void keep_failure(esc_py_answer *self, const escqrs_failure *failure)
{
    if (failure->detail != NULL) {
        self->fault = failure->detail;
        esc_py_fault_hold(self->fault);
        return;
    }
    self->error = escqrs_alloc_zero(sizeof *self->error);
    (void)escqrs_error_set(self->error, failure->status, "%s", failure->text);
}

static void answer_complete(escqrs_future *future, escqrs_envelope *answer,
                            const escqrs_failure *failure)
{
    esc_py_answer *self = ESC_CONTAINER_OF(future, esc_py_answer, future);
    if (failure != NULL) {
        keep_failure(self, failure);
    } else if (answer->type == &esc_py_mail_type) {
        self->mail = esc_py_mail_of(answer);
    } else {
        escqrs_envelope_destroy(answer);
    }
    /* acq_rel: release pairs with the acquire of esc_py_answer_is_done; acquire with the release of
     * NOTIFY, so that the errand sees the callbacks */
    uint32_t before =
        atomic_fetch_or_explicit(&self->word, ESC_PY_ANSWER_DONE, memory_order_acq_rel);
    if (before & ESC_PY_ANSWER_SLEEPERS) {
        esc_futex_wake(&self->word, INT_MAX);
    }
    if (before & ESC_PY_ANSWER_NOTIFY) {
        esc_py_errand_push(self->system, &self->completed);
    }
}

static void answer_released_errand(esc_py_errand *errand)
{
    Py_DECREF((PyObject *)ESC_CONTAINER_OF(errand, esc_py_answer, released));
}

static void answer_released(escqrs_future *future)
{
    esc_py_answer *self = ESC_CONTAINER_OF(future, esc_py_answer, future);
    if (esc_py_is_attached()) {
        Py_DECREF((PyObject *)self);
    } else {
        self->released.run = answer_released_errand;
        esc_py_errand_push(self->system, &self->released);
    }
}

static const escqrs_future_ops answer_ops = {.complete = answer_complete,
                                             .released = answer_released};

void esc_py_answer_raise(esc_py_actor_system *system, escqrs_ref *asker)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    esc_py_mail *mail = value == NULL ? NULL : esc_py_mail_new(system, value, NULL);
    if (mail != NULL) {
        mail->is_exception = true;
        if (esc_py_persist_holds() != NULL) {
            esc_py_persist_hold(asker, mail, NULL);
        } else {
            (void)escqrs_tell(asker, &mail->envelope, NULL);
        }
    }
    PyErr_Clear();
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* ---- callbacks ---------------------------------------------------------------------------------- */

static void notify(esc_py_answer *self)
{
    PyObject *callbacks = self->callbacks;
    self->callbacks = NULL;
    for (Py_ssize_t i = 0; callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *item = PyList_GET_ITEM(callbacks, i);
        PyObject *result = PyObject_CallOneArg(item, (PyObject *)self);
        if (result == NULL) {
            PyErr_WriteUnraisable(item);
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(callbacks);
}

static void answer_completed_errand(esc_py_errand *errand)
{
    esc_py_answer *self = ESC_CONTAINER_OF(errand, esc_py_answer, completed);
    notify(self);
    Py_DECREF((PyObject *)self);
}

/* ---- waiting ------------------------------------------------------------------------------------ */

static escqrs_status answer_sleep(void *context, int64_t deadline_ns)
{
    esc_py_answer *self = context;
    /* acq_rel: as is_done; and complete, coming later, sees SLEEPERS */
    uint32_t word =
        atomic_fetch_or_explicit(&self->word, ESC_PY_ANSWER_SLEEPERS, memory_order_acq_rel) |
        ESC_PY_ANSWER_SLEEPERS;
    while (!(word & ESC_PY_ANSWER_DONE)) {
        if (!esc_futex_wait(&self->word, word, deadline_ns)) {
            return esc_py_answer_is_done(self) ? ESCQRS_OK : ESCQRS_TIMEOUT;
        }
        word = atomic_load_explicit(&self->word, memory_order_acquire);
    }
    return ESCQRS_OK;
}

static int raise_waiting(esc_py_answer *self, escqrs_status status, const char *format)
{
    PyErr_Format(esc_py_error_class(self->system->state, status), format, self->target);
    return -1;
}

/* Whether the wait was for an actor that waits itself, to be restarted: Timeout says why. */
static bool target_failed(esc_py_answer *self)
{
    char words[512];
    escqrs_ref *target = ((esc_py_ref *)self->target)->core;
    if (escqrs_ref_failure(target, words, sizeof words) == 0) {
        return false;
    }
    PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TIMEOUT),
                 "%S has not answered in time: it has failed, and waits to be restarted (%s); the "
                 "message may still be handled",
                 self->target, words);
    return true;
}

int esc_py_waiting_begin(esc_py_waiting *self, esc_py_answer *reply)
{
    esc_py_state *state = reply->system->state;
    escqrs_actor *actor = escqrs_actor_current();
    escqrs_actor *target = esc_py_ref_actor(reply->target);
    if (actor != NULL && actor == (escqrs_actor *)reply->system->loop) {
        actor = NULL; /* of those that wait, it is the one whose task this is */
    }
    *self = (esc_py_waiting){0};
    int running = esc_py_loop_is_running(state);
    if (running > 0) {
        self->loop = PyObject_CallFunctionObjArgs(state->actor.begin_blocking,
                                                  (PyObject *)reply->system, (PyObject *)reply,
                                                  actor == NULL ? Py_True : Py_False, NULL);
    }
    if (running < 0 || (running > 0 && self->loop == NULL)) {
        return -1;
    }
    if (actor != NULL && target != NULL) {
        escqrs_error error = {0};
        if (escqrs_actor_wait_begin(actor, target, &error) != ESCQRS_OK) {
            esc_py_raise(state, &error);
            esc_py_waiting_end(self, reply);
            return -1;
        }
        self->actor = actor;
    }
    return 0;
}

void esc_py_waiting_end(esc_py_waiting *self, esc_py_answer *reply)
{
    escqrs_actor_wait_end(self->actor);
    self->actor = NULL;
    if (self->loop == NULL) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallObject(reply->system->state->actor.end_blocking, self->loop);
    if (result == NULL) {
        PyErr_WriteUnraisable(reply->target);
    }
    Py_XDECREF(result);
    Py_CLEAR(self->loop);
    PyErr_Restore(type, value, traceback);
}

/* Async actors may need the event loop that this thread keeps: who waits for them is told. */
static int look_at_blocked(esc_py_answer *self)
{
    PyObject *result =
        PyObject_CallOneArg(self->system->state->actor.look_at_blocked, (PyObject *)self->system);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int wait_for_answer(esc_py_answer *self, const esc_py_waiting *waiting, escqrs_actor *first,
                           int64_t deadline_ns)
{
    for (;;) {
        int64_t slice_ns = esc_deadline_after(ESC_PY_SLICE_NS);
        bool last = waiting->loop == NULL || self->system->manual || slice_ns >= deadline_ns;
        int result = esc_py_actor_wait(self->system, answer_sleep, self, first,
                                       last ? deadline_ns : slice_ns);
        if (result != ESCQRS_TIMEOUT || last) {
            return result;
        }
        if (look_at_blocked(self) < 0) {
            return -1;
        }
    }
}

int esc_py_answer_wait(esc_py_answer *self, int64_t deadline_ns)
{
    if (esc_py_answer_is_done(self)) {
        return 0;
    }
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return -1;
    }
    if (self->held_by != NULL && esc_py_persist_is_open(self->held_by)) {
        return raise_waiting(self, ESCQRS_DEADLOCK,
                             "this handler waits for its own message to %S, which leaves only when "
                             "the handler has finished and its events are durable; use ask");
    }
    esc_py_waiting waiting;
    if (esc_py_waiting_begin(&waiting, self) < 0) {
        return -1;
    }
    if (!self->system->manual) { /* which runs others meanwhile, on this stack */
        escqrs_actor_wait_until(waiting.actor, &waiting.wait, &self->word);
    }
    escqrs_actor *first = escqrs_actor_current() == NULL ? NULL : esc_py_ref_actor(self->target);
    int result = wait_for_answer(self, &waiting, first, deadline_ns);
    esc_py_waiting_end(&waiting, self);
    if (result == ESCQRS_NO_MEMORY) {
        return raise_waiting(self, ESCQRS_NO_MEMORY,
                             "no thread can be started to handle the message to %S, for which this "
                             "one waits; it may still be handled");
    }
    if (result == ESCQRS_TIMEOUT && target_failed(self)) {
        return -1;
    }
    if (result == ESCQRS_TIMEOUT) {
        return raise_waiting(self, ESCQRS_TIMEOUT,
                             "%S has not answered in time; the message may still be handled");
    }
    return result == ESCQRS_OK ? 0 : -1;
}

/* The exception of a failed reply, or NULL without one where it succeeded; borrowed. */
static PyObject *failure(esc_py_answer *self)
{
    if (self->exception != NULL) {
        return self->exception;
    }
    if (self->mail != NULL && self->mail->is_exception) {
        self->exception = Py_NewRef(esc_py_mail_object(self->mail));
    } else if (self->fault != NULL) {
        self->exception = Py_NewRef(self->fault->exception);
    } else if (self->mail == NULL || self->mail->error != NULL) {
        escqrs_error plain = {0};
        const escqrs_error *error = self->mail != NULL ? self->mail->error : self->error;
        if (error == NULL) {
            (void)escqrs_error_set(&plain, ESCQRS_NO_MEMORY, "no memory for the answer");
            error = &plain;
        }
        self->exception = esc_py_error_new(self->system->state, error);
    }
    return self->exception;
}

PyObject *esc_py_answer_result(esc_py_answer *self)
{
    PyObject *exception = failure(self);
    if (exception != NULL) {
        esc_py_exception_raise(exception);
        return NULL;
    }
    return PyErr_Occurred() ? NULL : Py_NewRef(esc_py_mail_object(self->mail));
}

/* ---- methods ------------------------------------------------------------------------------------ */

static int wait_argument(esc_py_answer *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *names, const char *method)
{
    Py_ssize_t given = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    if (given > 1 ||
        (given == 1 && count == 0 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
        PyErr_Format(PyExc_TypeError, "ActorReply.%s(timeout=None) takes one argument", method);
        return -1;
    }
    int64_t deadline_ns;
    if (esc_py_actor_deadline(self->system, given == 1 ? args[0] : Py_None, &deadline_ns) < 0) {
        return -1;
    }
    return esc_py_answer_wait(self, deadline_ns);
}

static PyObject *answer_result_method(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                      PyObject *names)
{
    esc_py_answer *self = (esc_py_answer *)object;
    return wait_argument(self, args, count, names, "result") < 0 ? NULL
                                                                 : esc_py_answer_result(self);
}

static PyObject *answer_exception(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                  PyObject *names)
{
    esc_py_answer *self = (esc_py_answer *)object;
    if (wait_argument(self, args, count, names, "exception") < 0) {
        return NULL;
    }
    PyObject *exception = failure(self);
    return exception == NULL && PyErr_Occurred()
               ? NULL
               : Py_NewRef(exception == NULL ? Py_None : exception);
}

static PyObject *answer_done(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(esc_py_answer_is_done((esc_py_answer *)object));
}

static PyObject *answer_false(PyObject *Py_UNUSED(object), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static PyObject *answer_add_done_callback(PyObject *object, PyObject *function)
{
    esc_py_answer *self = (esc_py_answer *)object;
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "add_done_callback takes a function of one argument, not %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    if (self->callbacks == NULL && (self->callbacks = PyList_New(0)) == NULL) {
        return NULL;
    }
    if (PyList_Append(self->callbacks, function) < 0) {
        return NULL;
    }
    /* before the bit is set: complete pushes it as soon as it sees that */
    self->completed.run = answer_completed_errand;
    /* acq_rel: release publishes the callback to complete; acquire as in is_done */
    uint32_t before =
        atomic_fetch_or_explicit(&self->word, ESC_PY_ANSWER_NOTIFY, memory_order_acq_rel);
    if (before & ESC_PY_ANSWER_DONE) {
        notify(self);
    } else if (!(before & ESC_PY_ANSWER_NOTIFY)) {
        Py_INCREF((PyObject *)self); /* the errand's, which needs the GIL to drop it */
    }
    Py_RETURN_NONE;
}

/* _refuse(exception): whoever waits for it gets that, unless it is done. */
static PyObject *answer_refuse(PyObject *object, PyObject *exception)
{
    esc_py_answer *self = (esc_py_answer *)object;
    if (!esc_py_answer_is_done(self)) {
        const void *turn = esc_py_persist_suspend(); /* it leaves at once */
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        esc_py_answer_raise(self->system, &self->future.ref);
        esc_py_persist_resume(turn);
    }
    Py_RETURN_NONE;
}

static PyObject *get_target(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((esc_py_answer *)object)->target);
}

static PyObject *answer_repr(PyObject *object)
{
    esc_py_answer *self = (esc_py_answer *)object;
    PyObject *target = self->target;
    if (!esc_py_answer_is_done(self)) {
        return PyUnicode_FromFormat("<ActorReply of %S: pending>", target);
    }
    PyObject *exception = failure(self);
    if (exception == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return PyUnicode_FromFormat("<ActorReply of %S: %R>", target,
                                exception != NULL ? exception : esc_py_mail_object(self->mail));
}

static PyObject *answer_await(PyObject *object)
{
    PyObject *function = ((esc_py_answer *)object)->system->state->actor.await_reply;
    return PyObject_CallOneArg(function, object);
}

static PyMethodDef answer_methods[] = {
    {"result", _PyCFunction_CAST(answer_result_method), METH_FASTCALL | METH_KEYWORDS,
     "result($self, timeout=None)\n--\n\nWait and return the answer; of a persistent actor once "
     "its events are durable.\n\n"
     "timeout: seconds; None waits for ever. Raises what the actor raised, es.Unanswered where "
     "nobody can answer any\nmore, es.Closed where the actor has stopped, es.Timeout, or "
     "es.Deadlock where waiting here would never end."},
    {"exception", _PyCFunction_CAST(answer_exception), METH_FASTCALL | METH_KEYWORDS,
     "exception($self, timeout=None)\n--\n\nWait and return the exception, or None where there is "
     "an answer."},
    {"done", answer_done, METH_NOARGS,
     "done($self, /)\n--\n\nWhether result() would return at once."},
    {"cancel", answer_false, METH_NOARGS,
     "cancel($self, /)\n--\n\nFalse: a message that was sent cannot be called back."},
    {"cancelled", answer_false, METH_NOARGS, "cancelled($self, /)\n--\n\nFalse, always."},
    {"add_done_callback", answer_add_done_callback, METH_O,
     "add_done_callback($self, function, /)\n--\n\nCall function(reply) once it is done: at once "
     "if it is, else on a thread of the engine."},
    {"_refuse", answer_refuse, METH_O, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef answer_getset[] = {
    {"_target", get_target, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot answer_slots[] = {
    {Py_tp_doc,
     "The answer to a message that was submitted to an actor; awaitable in any event loop, "
     "as often as one likes."},
    {Py_tp_dealloc, answer_dealloc},
    {Py_tp_traverse, answer_traverse},
    {Py_tp_clear, answer_clear},
    {Py_tp_repr, answer_repr},
    {Py_tp_methods, answer_methods},
    {Py_tp_getset, answer_getset},
    {Py_am_await, answer_await},
    {0, NULL},
};

PyType_Spec esc_py_answer_spec = {
    .name = "escqrs._core.ActorReply",
    .basicsize = sizeof(esc_py_answer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = answer_slots,
};
