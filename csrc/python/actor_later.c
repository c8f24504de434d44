/* python/actor_later.c - what an actor does later: continuations, timers, the receive timeout.
 *
 * A continuation shares its message with the core until the reply is there; timers end with the
 * instance that set them. Locks: none; the GIL.
 */
#include "python/actor.h"

#include <string.h>

#include "python/actor_context.h"
#include "python/actor_persist.h"
#include "python/errors.h"
#include "python/state.h"

/* ---- continuations ------------------------------------------------------------------------------- */

/* A callable that lets the actor go on: what reply.add_done_callback gets. */
typedef struct reentry {
    PyObject_HEAD
    escqrs_continuation continuation;
    esc_py_errand errand;
    esc_py_actor_system *system; /* strong */
    PyObject *function;
    PyObject *argument;
    bool posted;
} reentry;

static escqrs_turn_end reentry_run(escqrs_context *core, void *state,
                                   escqrs_continuation *continuation)
{
    reentry *again = ESC_CONTAINER_OF(continuation, reentry, continuation);
    esc_py_context *self = state;
    escqrs_envelope *envelope = escqrs_context_message(core);
    self->core = core;
    self->message = envelope != NULL && envelope->type == &esc_py_mail_type
                        ? Py_NewRef(esc_py_mail_object(esc_py_mail_of(envelope)))
                        : Py_NewRef(Py_None);
    PyObject *result = NULL;
    /* what was to be restarted ends here, and its message with it: it began in the old instance */
    int opened = self->persist == NULL ? 0 : esc_py_persist_open(self, NULL);
    if (opened >= 0) {
        result = opened == 0 ? PyObject_CallOneArg(again->function, again->argument)
                             : Py_NewRef(Py_None);
    }
    escqrs_turn_end end = esc_py_context_finish(self, result);
    if (end != ESCQRS_TURN_SUSPEND) {
        Py_CLEAR(self->message);
    }
    return end;
}

static void reentry_errand(esc_py_errand *errand)
{
    Py_DECREF((PyObject *)ESC_CONTAINER_OF(errand, reentry, errand));
}

static void reentry_done(escqrs_continuation *continuation)
{
    reentry *self = ESC_CONTAINER_OF(continuation, reentry, continuation);
    self->errand.run = reentry_errand;
    if (esc_py_is_attached()) {
        reentry_errand(&self->errand);
    } else {
        esc_py_errand_push(self->system, &self->errand);
    }
}

static PyObject *reentry_call(PyObject *object, PyObject *Py_UNUSED(args),
                              PyObject *Py_UNUSED(kwargs))
{
    reentry *self = (reentry *)object;
    if (!self->posted) {
        self->posted = true;
        escqrs_continuation_post(&self->continuation);
    }
    Py_RETURN_NONE;
}

static int reentry_traverse(PyObject *object, visitproc visit, void *arg)
{
    reentry *self = (reentry *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT(self->function);
    Py_VISIT(self->argument);
    return 0;
}

static void reentry_dealloc(PyObject *object)
{
    reentry *self = (reentry *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->function);
    Py_XDECREF(self->argument);
    Py_XDECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot reentry_slots[] = {
    {Py_tp_dealloc, reentry_dealloc},
    {Py_tp_traverse, reentry_traverse},
    {Py_tp_call, reentry_call},
    {0, NULL},
};

PyType_Spec esc_py_reentry_spec = {
    .name = "escqrs._core.Reentry",
    .basicsize = sizeof(reentry),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reentry_slots,
};

/* ---- timers -------------------------------------------------------------------------------------- */

typedef struct actor_timer {
    PyObject_HEAD
    escqrs_timer *core;
    unsigned fork_generation;
} actor_timer;

static PyObject *timer_cancel(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    actor_timer *self = (actor_timer *)object;
    return PyBool_FromLong(esc_py_is_own(self->fork_generation) && escqrs_timer_cancel(self->core));
}

static void timer_dealloc(PyObject *object)
{
    actor_timer *self = (actor_timer *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (esc_py_is_own(self->fork_generation)) {
        escqrs_timer_release(self->core);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nWhether there was something left to cancel. The actor that made it "
     "gets nothing of it any more."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, "Made by ctx.schedule_once and ctx.schedule_every; it ends with its actor."},
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_methods, timer_methods},
    {0, NULL},
};

PyType_Spec esc_py_timer_spec = {
    .name = "escqrs._core.ActorTimer",
    .basicsize = sizeof(actor_timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

/* ---- methods: time --------------------------------------------------------------------------------- */

static int seconds_of(PyObject *object, const char *what, bool zero, int64_t *ns)
{
    double seconds = -1;
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object))) {
        if (esc_py_as_double(object, &seconds) < 0) {
            return -1;
        }
    } else {
        PyErr_Format(PyExc_TypeError, "%s is a number of seconds, not %s", what,
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    if (!(zero ? seconds >= 0 : seconds > 0)) {
        PyErr_Format(PyExc_ValueError, "%s is a %s number of seconds, not %R", what,
                     zero ? "non-negative" : "positive", object);
        return -1;
    }
    *ns = seconds >= 9e9 ? INT64_MAX : (int64_t)(seconds * 1e9 + 0.5);
    *ns += *ns == 0 && !zero; /* less than a nanosecond is not never */
    return 0;
}

static PyObject *do_set_receive_timeout(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"seconds", NULL};
    PyObject *seconds;
    int64_t ns = 0;
    escqrs_error error = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &seconds) ||
        (seconds != Py_None && seconds_of(seconds, "the receive timeout", false, &ns) < 0)) {
        return NULL;
    }
    escqrs_status status = escqrs_context_set_receive_timeout(self->core, ns, &error);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_context_raise(self, status, &error);
}
ESC_PY_ENTERED(esc_py_context_set_receive_timeout, set_receive_timeout)

static PyObject *schedule(esc_py_context *self, PyObject *args, PyObject *kwargs, bool every)
{
    static char *names[] = {"seconds", "message", "to", NULL};
    PyObject *seconds, *message, *to = Py_None;
    int64_t ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$O", names, &seconds, &message, &to) ||
        seconds_of(seconds, every ? "the interval" : "the delay", !every, &ns) < 0) {
        return NULL;
    }
    esc_py_ref *target = NULL;
    if (to != Py_None && (target = esc_py_ref_cast(self->system->state, to, "to")) == NULL) {
        return NULL;
    }
    actor_timer *timer = PyObject_New(actor_timer, self->system->state->actor.timer_type);
    esc_py_mail *mail = timer == NULL ? NULL : esc_py_mail_new(self->system, message, NULL);
    if (timer != NULL) {
        timer->core = NULL;
        timer->fork_generation = escqrs_fork_generation();
    }
    if (mail == NULL) {
        Py_XDECREF((PyObject *)timer);
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status =
        escqrs_context_schedule(self->core, target == NULL ? NULL : target->core, &mail->envelope,
                                ns, every ? ns : 0, &timer->core, &error);
    if (status != ESCQRS_OK) {
        Py_DECREF((PyObject *)timer);
        return esc_py_context_raise(self, status, &error);
    }
    return (PyObject *)timer;
}

static PyObject *do_schedule_once(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    return schedule(self, args, kwargs, false);
}
ESC_PY_ENTERED(esc_py_context_schedule_once, schedule_once)

static PyObject *do_schedule_every(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    return schedule(self, args, kwargs, true);
}
ESC_PY_ENTERED(esc_py_context_schedule_every, schedule_every)

static PyObject *do_reenter_after(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"reply", "function", NULL};
    PyObject *reply, *function;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO", names, &reply, &function)) {
        return NULL;
    }
    if (self->suspended) {
        PyErr_SetString(self->system->state->errors.error,
                        "an async receive awaits a reply; ctx.reenter_after is for the others");
        return NULL;
    }
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError,
                     "ctx.reenter_after takes a reply and a function of it, not %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    PyObject *add = PyObject_GetAttrString(reply, "add_done_callback");
    if (add == NULL) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "ctx.reenter_after takes a reply (what submit returns, or another future), "
                     "not %s",
                     Py_TYPE(reply)->tp_name);
        return NULL;
    }
    reentry *again = PyObject_GC_New(reentry, self->system->state->actor.reentry_type);
    if (again == NULL) {
        Py_DECREF(add);
        return NULL;
    }
    memset((char *)again + sizeof(PyObject), 0, sizeof *again - sizeof(PyObject));
    again->system = (esc_py_actor_system *)Py_NewRef((PyObject *)self->system);
    again->function = Py_NewRef(function);
    again->argument = Py_NewRef(reply);
    again->continuation.run = reentry_run;
    again->continuation.done = reentry_done;
    PyObject_GC_Track((PyObject *)again);
    Py_INCREF((PyObject *)again); /* until `done` */
    escqrs_error error = {0};
    if (escqrs_context_continuation_init(self->core, &again->continuation, &error) != ESCQRS_OK) {
        Py_DECREF(add);
        Py_DECREF((PyObject *)again);
        Py_DECREF((PyObject *)again);
        return esc_py_raise(self->system->state, &error);
    }
    self->continued = true;
    PyObject *result = PyObject_CallOneArg(add, (PyObject *)again);
    if (result == NULL) { /* it is not to come: let it end */
        again->posted = true;
        escqrs_continuation_post(&again->continuation);
    }
    Py_DECREF(add);
    Py_DECREF((PyObject *)again);
    return result;
}
ESC_PY_ENTERED(esc_py_context_reenter_after, reenter_after)
