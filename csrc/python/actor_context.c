/* python/actor_context.c - an actor's own side: the core's callbacks, and es.Context.
 *
 * A Context belongs to the thread that handles a message of its actor. An async receive runs on an
 * event loop's thread while the core keeps the actor suspended: what needs the core then is sent
 * inside, run at a resume, and waited for. Locks: none; the GIL.
 */

#include "python/actor.h"

#include <string.h>
#include <structmember.h>

#include "python/actor_persist.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/reply.h"
#include "python/state.h"

/* ---- calling the actor -------------------------------------------------------------------------- */

/* The receiver alone, without middleware. */
static PyObject *call_receiver(esc_py_context *self, PyObject *message)
{
    if (self->receiver == NULL) {
        PyErr_SetString(self->system->state->errors.error,
                        "this actor has no instance: it could not be made anew");
        return NULL;
    }
    PyObject *receiver = Py_NewRef(self->receiver); /* a become may replace it meanwhile */
    PyObject *arguments[] = {(PyObject *)self, message};
    PyObject *result = PyObject_Vectorcall(receiver, arguments, 2, NULL);
    Py_DECREF(receiver);
    return result;
}

PyObject *esc_py_context_call(esc_py_context *self, PyObject *message)
{
    PyObject *before = self->message;
    self->message = Py_NewRef(message);
    PyObject *result;
    if (self->chain == NULL) {
        result = call_receiver(self, message);
    } else {
        PyObject *chain = Py_NewRef(self->chain);
        PyObject *arguments[] = {(PyObject *)self, message};
        result = PyObject_Vectorcall(chain, arguments, 2, NULL);
        Py_DECREF(chain);
    }
    PyObject *handled = self->message;
    self->message = before;
    Py_XDECREF(handled);
    return result;
}

/* "LookupError: no such thing" and the traceback. */
static PyObject *fault_text(PyObject *exception)
{
    PyObject *text = PyUnicode_FromFormat("%s: %S", Py_TYPE(exception)->tp_name, exception);
    if (text == NULL) {
        PyErr_Clear();
        text = PyUnicode_FromString(Py_TYPE(exception)->tp_name);
    }
    PyObject *notes = PyObject_GetAttrString(exception, "__notes__");
    if (notes != NULL && PyList_Check(notes) && PyList_GET_SIZE(notes) > 0 && text != NULL) {
        PyObject *note = PyList_GET_ITEM(notes, PyList_GET_SIZE(notes) - 1);
        if (PyUnicode_Check(note)) {
            PyUnicode_AppendAndDel(&text, PyUnicode_FromFormat("\n%U", note));
        }
    }
    Py_XDECREF(notes);
    PyErr_Clear();
    return text;
}

static escqrs_turn_end fail_core(esc_py_context *self, escqrs_context *core, PyObject *message)
{
    char path[512] = "/";
    escqrs_ref_path(escqrs_context_self(core), path + 1, sizeof path - 1);
    PyObject *what =
        message == NULL ? PyUnicode_FromString("its producer") : PyType_GetName(Py_TYPE(message));
    if (what == NULL) {
        PyErr_Clear();
    }
    esc_py_actor_system *system =
        self != NULL ? self->system : ((esc_py_recipe *)escqrs_context_user_data(core))->system;
    esc_py_fault *fault = esc_py_fault_take(system, path, what == NULL ? Py_None : what);
    Py_XDECREF(what);
    PyObject *text = fault == NULL ? NULL : fault_text(fault->exception);
    const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    PyErr_Clear();
    escqrs_turn_end end =
        escqrs_context_fail(core, fault == NULL ? ESCQRS_NO_MEMORY : ESCQRS_REJECTED, fault, "%s",
                            utf8 == NULL ? "the actor raised" : utf8);
    Py_XDECREF(text);
    return end;
}

escqrs_turn_end esc_py_context_fail(esc_py_context *self)
{
    return fail_core(self, self->core, self->message);
}

/* ---- instances ---------------------------------------------------------------------------------- */

static esc_py_context *context_new(escqrs_context *core, esc_py_recipe *recipe)
{
    esc_py_actor_system *system = recipe->system;
    esc_py_context *self = PyObject_GC_New(esc_py_context, system->state->actor.context_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->system = (esc_py_actor_system *)Py_NewRef((PyObject *)system);
    self->recipe = (esc_py_recipe *)Py_NewRef((PyObject *)recipe);
    self->core = core;
    self->ref = escqrs_context_self(core);
    escqrs_ref_hold(self->ref);
    esc_list_push_back(&system->contexts, &self->listed);
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* compose(middleware, innermost) where there is any; new reference or NULL without an exception */
static PyObject *compose(esc_py_context *self, PyObject *middleware, const char *innermost)
{
    if (!PyTuple_Check(middleware) || PyTuple_GET_SIZE(middleware) == 0) {
        return NULL;
    }
    PyObject *inner = PyObject_GetAttrString((PyObject *)self, innermost);
    PyObject *chain = inner == NULL
                          ? NULL
                          : PyObject_CallFunctionObjArgs(self->system->state->actor.compose,
                                                         middleware, inner, NULL);
    Py_XDECREF(inner);
    return chain;
}

static int context_begin(esc_py_context *self)
{
    esc_py_recipe *recipe = self->recipe;
    esc_py_state *state = self->system->state;
    self->actor = PyObject_CallNoArgs(recipe->producer);
    if (self->actor == NULL) {
        return -1;
    }
    self->receiver = PyObject_GetAttr(self->actor, state->actor.receive_name);
    if (self->receiver == NULL || !PyCallable_Check(self->receiver)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "the producer %R made a %s, which is no actor: it has no method "
                     "receive(ctx, message)",
                     recipe->producer, Py_TYPE(self->actor)->tp_name);
        return -1;
    }
    self->chain = compose(self, recipe->middleware, "_receive");
    if (PyErr_Occurred()) {
        return -1;
    }
    self->send_chain = compose(self, recipe->sender_middleware, "_send");
    if (PyErr_Occurred()) {
        return -1;
    }
    self->spawn_chain = compose(self, recipe->spawn_middleware, "_spawn");
    if (PyErr_Occurred()) {
        return -1;
    }
    return esc_py_persist_begin(self);
}

static void instance_end(esc_py_context *self)
{
    esc_py_persist_end(self);
    Py_CLEAR(self->actor);
    Py_CLEAR(self->receiver);
    Py_CLEAR(self->chain);
    Py_CLEAR(self->send_chain);
    Py_CLEAR(self->spawn_chain);
    Py_CLEAR(self->behaviours);
}

/* Its task does not wait any more, as far as the graph of waits knows. */
static void end_wait(esc_py_context *self)
{
    if (self->waits_for != NULL) {
        escqrs_actor_wait_end((escqrs_actor *)self->ref);
        escqrs_ref_release(self->waits_for);
        self->waits_for = NULL;
    }
}

static void context_end(esc_py_context *self)
{
    end_wait(self);
    self->core = NULL;
    if (esc_list_contains_node(&self->listed)) {
        esc_list_remove(&self->listed);
    }
    instance_end(self);
    Py_CLEAR(self->outcome);
    Py_CLEAR(self->inside);
}

static escqrs_turn_end actor_create(escqrs_context *core, void *user_data, void **state)
{
    esc_py_recipe *recipe = user_data;
    esc_py_context *self = context_new(core, recipe);
    if (self == NULL) {
        return fail_core(NULL, core, NULL);
    }
    if (context_begin(self) < 0) {
        escqrs_turn_end end = fail_core(self, core, NULL);
        context_end(self);
        Py_DECREF((PyObject *)self);
        return end;
    }
    *state = self; /* the core's reference */
    return ESCQRS_TURN_NEXT;
}

static void actor_destroy(void *state, void *Py_UNUSED(user_data))
{
    esc_py_context *self = state;
    context_end(self);
    Py_DECREF((PyObject *)self);
}

/* ---- receiving ---------------------------------------------------------------------------------- */

/* The Python object of a message that is not a mail; new reference. */
static PyObject *lifecycle_message(esc_py_context *self, escqrs_envelope *envelope)
{
    esc_py_actor_state *section = &self->system->state->actor;
    const escqrs_message_type *type = envelope->type;
    if (type == &escqrs_started) {
        return Py_NewRef(section->started);
    }
    if (type == &escqrs_stopping) {
        return Py_NewRef(section->stopping);
    }
    if (type == &escqrs_stopped) {
        return Py_NewRef(section->stopped);
    }
    if (type == &escqrs_restarting) {
        return Py_NewRef(section->restarting);
    }
    if (type == &escqrs_receive_timeout) {
        return Py_NewRef(section->receive_timeout);
    }
    if (type == &escqrs_terminated) {
        PyObject *who = esc_py_ref_new(self->system, ((escqrs_terminated_message *)envelope)->who);
        PyObject *message = who == NULL ? NULL : PyObject_CallOneArg(section->terminated, who);
        Py_XDECREF(who);
        return message;
    }
    PyErr_Format(PyExc_TypeError, "a message of the C type %s reached a Python actor", type->name);
    return NULL;
}

/* The message is handled: an asker that nobody can answer any more hears of it. */
static void refuse_silence(esc_py_context *self)
{
    escqrs_ref *sender = escqrs_context_sender(self->core);
    esc_py_answer *reply = sender == NULL ? NULL : esc_py_answer_of(sender);
    /* the message's, the turn's that is to tell it of failures, and the asker's own; what is held
     * back has its own. relaxed: those are this thread's, so where no other is left, nobody else
     * changes it */
    if (reply == NULL) {
        return;
    }
    uint32_t own = 1 + esc_py_persist_asks(self) + reply->asking;
    if (escqrs_future_is_complete(&reply->future) ||
        atomic_load_explicit(&reply->future.references, memory_order_relaxed) != own) {
        return;
    }
    PyObject *path = esc_py_ref_path(self->ref);
    const char *name = self->message == NULL ? "message" : Py_TYPE(self->message)->tp_name;
    if (path != NULL) {
        PyErr_Format(self->system->state->actor.unanswered,
                     "%U has handled the %s and did not answer: neither ctx.respond nor ctx.sender "
                     "was used",
                     path, name);
        Py_DECREF(path);
    }
    esc_py_answer_raise(self->system, sender);
}

/* An async receive: it runs on a loop while the actor is suspended. */
static escqrs_turn_end begin_task(esc_py_context *self, PyObject *coroutine)
{
    escqrs_ref *sender = escqrs_context_sender(self->core);
    if (sender != NULL) {
        escqrs_ref_hold(sender);
    }
    self->asker = sender;
    self->suspended = true;
    self->system->state->actor.tasks = true;
    (void)esc_py_persist_suspend(); /* this thread goes on with other actors */
    escqrs_envelope *envelope = escqrs_context_message(self->core);
    PyObject *headers = envelope != NULL && envelope->type == &esc_py_mail_type
                            ? esc_py_mail_headers(esc_py_mail_of(envelope))
                            : NULL;
    self->task_headers = Py_XNewRef(headers);
    PyObject *result = PyObject_CallFunctionObjArgs(self->system->state->actor.start_task,
                                                    (PyObject *)self, coroutine, NULL);
    if (result == NULL) {
        self->suspended = false;
        escqrs_ref_release(self->asker);
        self->asker = NULL;
        return esc_py_context_fail(self);
    }
    Py_DECREF(result);
    return ESCQRS_TURN_SUSPEND;
}

/* After the actor's code: `result` is stolen; NULL: it raised. */
static escqrs_turn_end finish(esc_py_context *self, PyObject *result)
{
    if (result != NULL && result != Py_None && PyCoro_CheckExact(result)) {
        escqrs_turn_end end = begin_task(self, result);
        Py_DECREF(result);
        return end;
    }
    if (result != NULL && self->forwarded && !self->continued) {
        /* the answer is others' matter: this actor is not to be asked for it */
        escqrs_envelope_destroy(escqrs_context_take(self->core));
    } else if (result != NULL && !self->continued) {
        refuse_silence(self);
    }
    self->continued = self->forwarded = false;
    if (self->persist != NULL) {
        result = esc_py_persist_finish(self, result);
    }
    if (result == NULL) {
        return esc_py_context_fail(self);
    }
    Py_DECREF(result);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end actor_receive(escqrs_context *core, void *state, escqrs_envelope *envelope)
{
    esc_py_context *self = state;
    PyObject *message;
    bool is_mail = envelope->type == &esc_py_mail_type;
    self->core = core;
    if (is_mail) {
        message = Py_NewRef(esc_py_mail_object(esc_py_mail_of(envelope)));
    } else if ((message = lifecycle_message(self, envelope)) == NULL) {
        return esc_py_context_fail(self);
    }
    self->message = message; /* for failures and repr; call replaces it meanwhile */
    PyObject *result = NULL;
    int opened = self->persist == NULL ? 0 : esc_py_persist_open(self, envelope);
    if (opened > 0) {
        Py_CLEAR(self->message);
        return ESCQRS_TURN_NEXT;
    }
    if (opened == 0) {
        result = esc_py_context_call(self, message);
        if (result != NULL && envelope->type == &escqrs_started && self->persist != NULL) {
            result = esc_py_persist_recover(self, result);
        }
    }
    escqrs_turn_end end = finish(self, result);
    if (end != ESCQRS_TURN_SUSPEND) {
        Py_CLEAR(self->message);
    }
    return end;
}

/* What the loop wants done in the actor. It may wait for others itself (middleware): an actor
 * waits for one at a time. */
static void run_inside(esc_py_context *self)
{
    end_wait(self);
    self->works_inside = true;
    while (self->inside != NULL && PyList_GET_SIZE(self->inside) > 0) {
        PyObject *jobs = self->inside;
        self->inside = NULL;
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(jobs); i++) {
            PyObject *result = PyObject_CallNoArgs(PyList_GET_ITEM(jobs, i));
            if (result == NULL) {
                PyErr_WriteUnraisable(PyList_GET_ITEM(jobs, i));
            }
            Py_XDECREF(result);
        }
        Py_DECREF(jobs);
    }
    self->works_inside = false;
}

static escqrs_turn_end actor_resume(escqrs_context *core, void *state)
{
    esc_py_context *self = state;
    self->core = core;
    run_inside(self);
    if (self->outcome == NULL) {
        return ESCQRS_TURN_SUSPEND;
    }
    PyObject *result = self->outcome;
    self->outcome = NULL;
    self->suspended = false;
    end_wait(self);
    Py_CLEAR(self->task_headers);
    escqrs_ref_release(self->asker);
    self->asker = NULL;
    (void)esc_py_persist_enter(self);
    if (result != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(result), result);
        Py_CLEAR(result);
    }
    escqrs_turn_end end = finish(self, result);
    if (end != ESCQRS_TURN_SUSPEND) {
        Py_CLEAR(self->message);
    }
    return end;
}

const escqrs_actor_class esc_py_actor_class = {
    .name = "Python",
    .create = actor_create,
    .receive = actor_receive,
    .resume = actor_resume,
    .destroy = actor_destroy,
    .failure_release = esc_py_fault_release,
};

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
    escqrs_turn_end end = finish(self, result);
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
    return PyBool_FromLong(self->fork_generation == escqrs_fork_generation() &&
                           escqrs_timer_cancel(self->core));
}

static void timer_dealloc(PyObject *object)
{
    actor_timer *self = (actor_timer *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->fork_generation == escqrs_fork_generation()) {
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

/* ---- methods: entering the core ------------------------------------------------------------------ */

static int refuse_outside(esc_py_context *self, const char *method)
{
    esc_py_state *state = self->system->state;
    if (self->core == NULL) {
        PyErr_Format(esc_py_error_class(state, ESCQRS_CLOSED),
                     "ctx.%s: this actor's instance is gone; it was restarted or stopped", method);
    } else {
        PyErr_Format(state->errors.error,
                     "ctx.%s was called outside of the actor's receive; elsewhere use the "
                     "reference, ctx.self",
                     method);
    }
    return -1;
}

static bool is_inside(esc_py_context *self)
{
    return self->core != NULL && escqrs_context_current() == self->core;
}

typedef PyObject *context_method(esc_py_context *self, PyObject *args, PyObject *kwargs);

/* Run it here; or, from an async receive, inside the actor. */
static PyObject *enter(PyObject *object, PyObject *args, PyObject *kwargs, const char *name,
                       context_method *method)
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    if (is_inside(self)) {
        return method(self, args, kwargs);
    }
    if (self->core == NULL || !self->suspended) {
        refuse_outside(self, name);
        return NULL;
    }
    PyObject *given = kwargs == NULL ? PyDict_New() : Py_NewRef(kwargs);
    PyObject *result = given == NULL ? NULL
                                     : PyObject_CallFunction(self->system->state->actor.inside,
                                                             "OsOO", object, name, args, given);
    Py_XDECREF(given);
    return result;
}

#define ENTERED(name)                                                                              \
    static PyObject *context_##name(PyObject *object, PyObject *args, PyObject *kwargs)            \
    {                                                                                              \
        return enter(object, args, kwargs, #name, do_##name);                                      \
    }

static PyObject *raise_core(esc_py_context *self, escqrs_status status, escqrs_error *error)
{
    if (error->status == ESCQRS_OK) {
        (void)escqrs_error_set(error, status, "%s", escqrs_status_name(status));
    }
    return esc_py_raise(self->system->state, error);
}

/* ---- methods: sending ----------------------------------------------------------------------------- */

/* Send as this actor does: through its sender middleware. 0 or -1. */
static int send_as(esc_py_context *self, PyObject *to, PyObject *message, PyObject *headers,
                   PyObject *sender)
{
    esc_py_state *state = self->system->state;
    if (self->send_chain == NULL) {
        escqrs_ref *from;
        if (esc_py_ref_sender(state, sender, &from) < 0) {
            return -1;
        }
        const void *turn = esc_py_persist_enter(self);
        int result = esc_py_ref_tell((esc_py_ref *)to, message, headers, from);
        esc_py_persist_leave(self, turn);
        return result;
    }
    PyObject *envelope = PyObject_CallFunctionObjArgs(state->actor.envelope, message,
                                                      sender == NULL ? Py_None : sender,
                                                      headers == NULL ? Py_None : headers, NULL);
    PyObject *result =
        envelope == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(self->send_chain, (PyObject *)self, to, envelope, NULL);
    Py_XDECREF(envelope);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* _send(ctx, target, envelope): the innermost of the sender middleware. */
static PyObject *context_send_innermost(PyObject *object, PyObject *args)
{
    esc_py_context *self = (esc_py_context *)object;
    esc_py_state *state = self->system->state;
    PyObject *ctx, *target, *envelope, *message = NULL, *sender = NULL, *headers = NULL;
    escqrs_ref *from;
    int result = -1;
    if (!PyArg_ParseTuple(args, "OOO", &ctx, &target, &envelope) ||
        esc_py_ref_cast(state, target, "target") == NULL) {
        return NULL;
    }
    message = PyObject_GetAttrString(envelope, "message");
    sender = PyObject_GetAttrString(envelope, "sender");
    headers = PyObject_GetAttrString(envelope, "headers");
    if (message != NULL && sender != NULL && headers != NULL &&
        esc_py_ref_sender(state, sender, &from) == 0) {
        if (headers != Py_None && !PyDict_Check(headers)) {
            PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                         Py_TYPE(headers)->tp_name);
        } else {
            const void *turn = esc_py_persist_enter(self);
            result = esc_py_ref_tell((esc_py_ref *)target, message,
                                     headers == Py_None ? NULL : headers, from);
            esc_py_persist_leave(self, turn);
        }
    }
    Py_XDECREF(message);
    Py_XDECREF(sender);
    Py_XDECREF(headers);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *self_ref(esc_py_context *self) /* borrowed */
{
    if (self->self == NULL) {
        self->self = esc_py_ref_new(self->system, self->ref);
    }
    return self->self;
}

static int check_use(esc_py_context *self, const char *method)
{
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return -1;
    }
    return is_inside(self) || (self->core != NULL && self->suspended)
               ? 0
               : refuse_outside(self, method);
}

static PyObject *context_tell(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *headers = NULL;
    if (names != NULL && PyTuple_GET_SIZE(names) == 1 && count == 2 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "headers") == 0) {
        headers = args[2] == Py_None ? NULL : args[2];
    } else if (count != 2 || (names != NULL && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "ctx.tell(ref, message, *, headers=None)");
        return NULL;
    }
    if (headers != NULL && !PyDict_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                     Py_TYPE(headers)->tp_name);
        return NULL;
    }
    if (esc_py_ref_cast(self->system->state, args[0], "the first argument of ctx.tell") == NULL ||
        check_use(self, "tell") < 0 || send_as(self, args[0], args[1], headers, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *context_request(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ref", "message", "sender", "headers", NULL};
    esc_py_context *self = (esc_py_context *)object;
    PyObject *to, *message, *sender = Py_None, *headers = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|$OO", names,
                                     self->system->state->actor.ref_type, &to, &message, &sender,
                                     &headers) ||
        check_use(self, "request") < 0) {
        return NULL;
    }
    if (sender == Py_None && (sender = self_ref(self)) == NULL) {
        return NULL;
    }
    if (headers != Py_None && !PyDict_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                     Py_TYPE(headers)->tp_name);
        return NULL;
    }
    if (send_as(self, to, message, headers == Py_None ? NULL : headers, sender) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The sender of the current message, borrowed; NULL: none. */
static escqrs_ref *sender_of(esc_py_context *self)
{
    return self->suspended   ? self->asker
           : is_inside(self) ? escqrs_context_sender(self->core)
                             : NULL;
}

static PyObject *context_respond(PyObject *object, PyObject *message)
{
    esc_py_context *self = (esc_py_context *)object;
    if (check_use(self, "respond") < 0) {
        return NULL;
    }
    escqrs_ref *sender = sender_of(self);
    if (sender == NULL) {
        esc_py_mail *mail = esc_py_mail_new(self->system, message, NULL);
        if (mail == NULL) {
            return NULL;
        }
        if (is_inside(self)) {
            (void)escqrs_context_respond(self->core, &mail->envelope);
        } else {
            escqrs_envelope_destroy(&mail->envelope);
        }
        Py_RETURN_NONE;
    }
    if (self->send_chain == NULL && self->persist == NULL) { /* the common way */
        esc_py_mail *mail = esc_py_mail_new(self->system, message, NULL);
        if (mail == NULL) {
            return NULL;
        }
        if (escqrs_ref_kind_of(sender) == ESCQRS_REF_FUTURE) {
            (void)escqrs_tell(sender, &mail->envelope, self->ref);
            Py_RETURN_NONE;
        }
        escqrs_envelope_destroy(&mail->envelope);
    }
    PyObject *to = esc_py_ref_new(self->system, sender);
    PyObject *from = to == NULL ? NULL : self_ref(self);
    int result = from == NULL ? -1 : send_as(self, to, message, NULL, from);
    Py_XDECREF(to);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *do_forward(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ref", NULL};
    PyObject *to;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, self->system->state->actor.ref_type,
                                     &to)) {
        return NULL;
    }
    escqrs_envelope *envelope = escqrs_context_message(self->core);
    if (envelope == NULL || envelope->type != &esc_py_mail_type) {
        PyErr_SetString(self->system->state->errors.error,
                        "ctx.forward: the actor handles no message that could be sent on");
        return NULL;
    }
    esc_py_mail *mail = esc_py_mail_of(envelope);
    escqrs_ref *sender = escqrs_context_sender(self->core);
    PyObject *from = sender == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(self->system, sender);
    if (from == NULL) {
        return NULL;
    }
    int result = send_as(self, to, esc_py_mail_object(mail), esc_py_mail_headers(mail), from);
    Py_DECREF(from);
    self->forwarded = self->forwarded || result == 0;
    return result < 0 ? NULL : Py_NewRef(Py_None);
}
ENTERED(forward)

/* ---- methods: children and others ----------------------------------------------------------------- */

/* _spawn(ctx, props, name): the innermost of the spawn middleware. */
static PyObject *context_spawn_innermost(PyObject *object, PyObject *args)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *ctx, *what, *name;
    if (!PyArg_ParseTuple(args, "OOO", &ctx, &what, &name)) {
        return NULL;
    }
    return is_inside(self) ? esc_py_spawn(self->system, self, what, name)
                           : (refuse_outside(self, "spawn"), NULL);
}

static PyObject *do_spawn(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"producer_or_props", "name", NULL};
    PyObject *what, *name = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O", names, &what, &name)) {
        return NULL;
    }
    if (self->spawn_chain != NULL) {
        return PyObject_CallFunctionObjArgs(self->spawn_chain, (PyObject *)self, what, name, NULL);
    }
    return esc_py_spawn(self->system, self, what, name);
}
ENTERED(spawn)

static PyObject *end_one(PyObject *object, PyObject *args, bool poison)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *ref = Py_None;
    if (!PyArg_ParseTuple(args, "|O", &ref) || check_use(self, poison ? "poison" : "stop") < 0) {
        return NULL;
    }
    escqrs_ref *core = self->ref;
    if (ref != Py_None) {
        esc_py_ref *other = esc_py_ref_cast(self->system->state, ref, "what is to be stopped");
        if (other == NULL) {
            return NULL;
        }
        core = other->core;
    }
    if (!poison) {
        escqrs_stop(core);
    } else if (escqrs_poison(core) == ESCQRS_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *context_stop(PyObject *object, PyObject *args)
{
    return end_one(object, args, false);
}

static PyObject *context_poison(PyObject *object, PyObject *args)
{
    return end_one(object, args, true);
}

static PyObject *watch_one(esc_py_context *self, PyObject *args, bool watch)
{
    PyObject *ref;
    escqrs_error error = {0};
    if (!PyArg_ParseTuple(args, "O!", self->system->state->actor.ref_type, &ref)) {
        return NULL;
    }
    if (!watch) {
        escqrs_context_unwatch(self->core, ((esc_py_ref *)ref)->core);
        Py_RETURN_NONE;
    }
    escqrs_status status = escqrs_context_watch(self->core, ((esc_py_ref *)ref)->core, &error);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : raise_core(self, status, &error);
}

static PyObject *do_watch(esc_py_context *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return watch_one(self, args, true);
}
ENTERED(watch)

static PyObject *do_unwatch(esc_py_context *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return watch_one(self, args, false);
}
ENTERED(unwatch)

/* ---- methods: behaviour and stash ------------------------------------------------------------------ */

static PyObject *context_become(PyObject *object, PyObject *function)
{
    esc_py_context *self = (esc_py_context *)object;
    if (check_use(self, "become") < 0) {
        return NULL;
    }
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "ctx.become takes a function (ctx, message), not %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    if (self->behaviours == NULL && (self->behaviours = PyList_New(0)) == NULL) {
        return NULL;
    }
    if (PyList_GET_SIZE(self->behaviours) >= 256) {
        PyErr_SetString(esc_py_error_class(self->system->state, ESCQRS_TOO_LARGE),
                        "256 behaviours lie upon each other: ctx.unbecome takes one away");
        return NULL;
    }
    if (PyList_Append(self->behaviours, self->receiver) < 0) {
        return NULL;
    }
    Py_XSETREF(self->receiver, Py_NewRef(function));
    Py_RETURN_NONE;
}

static PyObject *context_unbecome(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_context *self = (esc_py_context *)object;
    if (check_use(self, "unbecome") < 0) {
        return NULL;
    }
    Py_ssize_t count = self->behaviours == NULL ? 0 : PyList_GET_SIZE(self->behaviours);
    if (count > 0) {
        Py_XSETREF(self->receiver, Py_NewRef(PyList_GET_ITEM(self->behaviours, count - 1)));
        if (PyList_SetSlice(self->behaviours, count - 1, count, NULL) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *do_stash(esc_py_context *self, PyObject *Py_UNUSED(args),
                          PyObject *Py_UNUSED(kwargs))
{
    escqrs_error error = {0};
    escqrs_status status = escqrs_context_stash(self->core, &error);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : raise_core(self, status, &error);
}
ENTERED(stash)

static PyObject *do_unstash_all(esc_py_context *self, PyObject *Py_UNUSED(args),
                                PyObject *Py_UNUSED(kwargs))
{
    escqrs_context_unstash_all(self->core);
    Py_RETURN_NONE;
}
ENTERED(unstash_all)

/* ---- methods: time --------------------------------------------------------------------------------- */

static int seconds_of(PyObject *object, const char *what, bool zero, int64_t *ns)
{
    double seconds = -1;
    if (PyFloat_Check(object) || (PyLong_Check(object) && !PyBool_Check(object))) {
        seconds = PyFloat_AsDouble(object);
        if (PyErr_Occurred()) {
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
    *ns = seconds >= 9e9 ? INT64_MAX : (int64_t)(seconds * 1e9);
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
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : raise_core(self, status, &error);
}
ENTERED(set_receive_timeout)

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
        return raise_core(self, status, &error);
    }
    return (PyObject *)timer;
}

static PyObject *do_schedule_once(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    return schedule(self, args, kwargs, false);
}
ENTERED(schedule_once)

static PyObject *do_schedule_every(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    return schedule(self, args, kwargs, true);
}
ENTERED(schedule_every)

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
ENTERED(reenter_after)

/* ---- async ------------------------------------------------------------------------------------------ */

/* _post(job): a function to be called in the actor, which is suspended. */
static PyObject *context_post(PyObject *object, PyObject *job)
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->core == NULL || !self->suspended) {
        refuse_outside(self, "_post");
        return NULL;
    }
    if (self->inside == NULL && (self->inside = PyList_New(0)) == NULL) {
        return NULL;
    }
    if (PyList_Append(self->inside, job) < 0) {
        return NULL;
    }
    escqrs_ref_resume(self->ref);
    Py_RETURN_NONE;
}

/* _begin_wait(ref): its task waits for an answer of that actor; False: it is not noted. Deadlock
 * where that would never end. */
static PyObject *context_begin_wait(PyObject *object, PyObject *ref)
{
    esc_py_context *self = (esc_py_context *)object;
    escqrs_actor *target = esc_py_ref_actor(ref);
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    if (!self->suspended || self->works_inside || self->waits_for != NULL || target == NULL) {
        Py_RETURN_FALSE;
    }
    escqrs_error error = {0};
    if (escqrs_actor_wait_begin((escqrs_actor *)self->ref, target, &error) != ESCQRS_OK) {
        return esc_py_raise(self->system->state, &error);
    }
    self->waits_for = (escqrs_ref *)target;
    escqrs_ref_hold(self->waits_for);
    Py_RETURN_TRUE;
}

static PyObject *context_end_wait(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->system->fork_generation == escqrs_fork_generation()) {
        end_wait(self);
    }
    Py_RETURN_NONE;
}

/* _settle(exception or None): the coroutine has ended. */
static PyObject *context_settle(PyObject *object, PyObject *outcome)
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->core == NULL || !self->suspended || self->outcome != NULL) {
        Py_RETURN_NONE;
    }
    self->outcome = Py_NewRef(outcome);
    escqrs_ref_resume(self->ref);
    Py_RETURN_NONE;
}

/* ---- attributes ------------------------------------------------------------------------------------- */

static PyObject *get_self(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_XNewRef(self_ref((esc_py_context *)object));
}

static PyObject *get_system(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((esc_py_context *)object)->system);
}

static PyObject *get_parent(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    escqrs_ref *parent = escqrs_ref_parent(self->ref);
    return parent == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(self->system, parent);
}

static PyObject *get_sender(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    escqrs_ref *sender = sender_of(self);
    return sender == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(self->system, sender);
}

PyObject *esc_py_refs(esc_py_actor_system *system, escqrs_ref *of, esc_py_list_refs *list)
{
    size_t room = 16, count;
    escqrs_ref **refs = NULL;
    for (;;) {
        escqrs_ref **grown = escqrs_realloc(refs, room * sizeof *refs);
        if (grown == NULL) {
            escqrs_free(refs);
            return PyErr_NoMemory();
        }
        refs = grown;
        count = list(system, of, refs, room);
        if (count <= room) {
            break;
        }
        for (size_t i = 0; i < room; i++) {
            escqrs_ref_release(refs[i]);
        }
        room = count + 16;
    }
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; i < count; i++) {
        PyObject *ref = result == NULL ? NULL : esc_py_ref_new(system, refs[i]);
        if (ref == NULL) {
            Py_CLEAR(result);
        } else {
            PyTuple_SET_ITEM(result, (Py_ssize_t)i, ref);
        }
        escqrs_ref_release(refs[i]);
    }
    escqrs_free(refs);
    return result;
}

static size_t children_of(esc_py_actor_system *system, escqrs_ref *parent, escqrs_ref **refs,
                          size_t max)
{
    return escqrs_actor_system_children(system->core, parent, refs, max);
}

PyObject *esc_py_children(esc_py_actor_system *system, escqrs_ref *parent)
{
    return esc_py_refs(system, parent, children_of);
}

static PyObject *get_children(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_context *self = (esc_py_context *)object;
    return esc_py_actor_system_check_fork(self->system) < 0
               ? NULL
               : esc_py_children(self->system, self->ref);
}

static PyObject *get_message(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *message = ((esc_py_context *)object)->message;
    return Py_NewRef(message == NULL ? Py_None : message);
}

static PyObject *get_headers(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_context *self = (esc_py_context *)object;
    escqrs_envelope *envelope = is_inside(self) ? escqrs_context_message(self->core) : NULL;
    PyObject *headers = NULL;
    if (envelope != NULL && envelope->type == &esc_py_mail_type) {
        headers = esc_py_mail_headers(esc_py_mail_of(envelope));
    } else if (self->suspended && self->task_headers != NULL) {
        headers = self->task_headers;
    }
    return headers == NULL ? Py_NewRef(self->system->state->actor.empty_headers)
                           : PyDictProxy_New(headers);
}

static PyObject *get_log(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->log == NULL) {
        self->log = PyObject_CallOneArg(self->system->state->actor.make_log, object);
    }
    return Py_XNewRef(self->log);
}

static PyObject *get_actor(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *actor = ((esc_py_context *)object)->actor;
    return Py_NewRef(actor == NULL ? Py_None : actor);
}

/* _receive(ctx, message): the innermost of the middleware. */
static PyObject *context_receive_innermost(PyObject *object, PyObject *args)
{
    PyObject *ctx, *message;
    return PyArg_ParseTuple(args, "OO", &ctx, &message)
               ? call_receiver((esc_py_context *)object, message)
               : NULL;
}

/* _call(message): as if it had come; what an async receive would wait for is refused. */
static PyObject *context_call(PyObject *object, PyObject *message)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *result = esc_py_context_call(self, message);
    if (result != NULL && PyCoro_CheckExact(result)) {
        PyObject *ran =
            PyObject_CallFunctionObjArgs(self->system->state->actor.run_now, result, NULL);
        Py_SETREF(result, ran);
    }
    return result;
}

static PyObject *context_repr(PyObject *object)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *ref = self_ref(self);
    return ref == NULL ? NULL : PyUnicode_FromFormat("<es.Context of %S>", ref);
}

/* ---- the type --------------------------------------------------------------------------------------- */

static int context_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_context *self = (esc_py_context *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT((PyObject *)self->recipe);
    Py_VISIT(self->self);
    Py_VISIT(self->actor);
    Py_VISIT(self->receiver);
    Py_VISIT(self->chain);
    Py_VISIT(self->behaviours);
    Py_VISIT(self->message);
    Py_VISIT(self->send_chain);
    Py_VISIT(self->spawn_chain);
    Py_VISIT(self->log);
    Py_VISIT(self->outcome);
    Py_VISIT(self->inside);
    Py_VISIT(self->task_headers);
    return 0;
}

static int context_clear(PyObject *object)
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->core == NULL) { /* else the core uses it, and the system's finalizer ends it */
        Py_CLEAR(self->self);
        Py_CLEAR(self->log);
        Py_CLEAR(self->message);
    }
    return 0;
}

static void context_dealloc(PyObject *object)
{
    esc_py_context *self = (esc_py_context *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    if (self->system->fork_generation == escqrs_fork_generation()) {
        context_end(self);
        escqrs_ref_release(self->asker);
        escqrs_ref_release(self->ref);
    }
    Py_CLEAR(self->self);
    Py_CLEAR(self->message);
    Py_CLEAR(self->log);
    Py_CLEAR(self->task_headers);
    Py_DECREF((PyObject *)self->recipe);
    Py_DECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef context_methods[] = {
    {"tell", _PyCFunction_CAST(context_tell), METH_FASTCALL | METH_KEYWORDS,
     "tell($self, ref, message, /, *, headers=None)\n--\n\nSend, without a sender."},
    {"request", _PyCFunction_CAST(context_request), KEYWORDS,
     "request($self, ref, message, *, sender=None, headers=None)\n--\n\nSend with this actor, or "
     "`sender`, as the one to be answered."},
    {"respond", context_respond, METH_O,
     "respond($self, message, /)\n--\n\nAnswer the sender of the current message; where there is "
     "none it is a dead letter."},
    {"forward", _PyCFunction_CAST(context_forward), KEYWORDS,
     "forward($self, ref)\n--\n\nSend the current message on, with its sender and headers."},
    {"spawn", _PyCFunction_CAST(context_spawn), KEYWORDS,
     "spawn($self, producer_or_props, *, name=None)\n--\n\nMake a child; es.NameExists (.ref) "
     "where "
     "a child has that name, es.Closed while this actor stops."},
    {"stop", context_stop, METH_VARARGS,
     "stop($self, ref=None, /)\n--\n\nStop an actor, this one by default, after the message it is "
     "in."},
    {"poison", context_poison, METH_VARARGS,
     "poison($self, ref=None, /)\n--\n\nStop an actor, this one by default, after the messages "
     "that were sent before."},
    {"watch", _PyCFunction_CAST(context_watch), KEYWORDS,
     "watch($self, ref, /)\n--\n\nGet es.Terminated(ref) when it has stopped; at once where it "
     "has."},
    {"unwatch", _PyCFunction_CAST(context_unwatch), KEYWORDS,
     "unwatch($self, ref, /)\n--\n\nNo es.Terminated of it comes any more."},
    {"become", context_become, METH_O,
     "become($self, receive, /)\n--\n\nHandle what comes with receive(ctx, message); a restart "
     "forgets it."},
    {"unbecome", context_unbecome, METH_NOARGS,
     "unbecome($self, /)\n--\n\nGo back to what was before the last become."},
    {"stash", _PyCFunction_CAST(context_stash), KEYWORDS,
     "stash($self)\n--\n\nPut the current message aside; es.MailboxFull beyond the limit."},
    {"unstash_all", _PyCFunction_CAST(context_unstash_all), KEYWORDS,
     "unstash_all($self)\n--\n\nWhat was put aside comes next, the oldest first."},
    {"reenter_after", _PyCFunction_CAST(context_reenter_after), KEYWORDS,
     "reenter_after($self, reply, function)\n--\n\nCall function(reply) in this actor when the "
     "reply is there; until then it handles other messages.\n\n"
     "ctx.respond answers the message that is current now. Nothing is called where the actor was "
     "restarted or stopped meanwhile."},
    {"set_receive_timeout", _PyCFunction_CAST(context_set_receive_timeout), KEYWORDS,
     "set_receive_timeout($self, seconds)\n--\n\nGet es.ReceiveTimeout when no message came for so "
     "long; None: no more."},
    {"schedule_once", _PyCFunction_CAST(context_schedule_once), KEYWORDS,
     "schedule_once($self, seconds, message, *, to=None)\n--\n\nTell `to`, or this actor, after so "
     "many seconds, unless this actor has ended."},
    {"schedule_every", _PyCFunction_CAST(context_schedule_every), KEYWORDS,
     "schedule_every($self, seconds, message, *, to=None)\n--\n\nThe same again and again."},
    {"_receive", context_receive_innermost, METH_VARARGS, NULL},
    {"_send", context_send_innermost, METH_VARARGS, NULL},
    {"_spawn", context_spawn_innermost, METH_VARARGS, NULL},
    {"_call", context_call, METH_O, NULL},
    {"_begin_wait", context_begin_wait, METH_O, NULL},
    {"_end_wait", context_end_wait, METH_NOARGS, NULL},
    {"_post", context_post, METH_O, NULL},
    {"_settle", context_settle, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef context_getset[] = {
    {"self", get_self, NULL, "The reference to this actor.", NULL},
    {"system", get_system, NULL, "The es.ActorSystem.", NULL},
    {"parent", get_parent, NULL, "The reference of its parent, or None.", NULL},
    {"sender", get_sender, NULL,
     "Who sent the current message, or None; it may be kept and answered later.", NULL},
    {"children", get_children, NULL, "The references of its children, a tuple.", NULL},
    {"message", get_message, NULL, "The message that is being handled, or None.", NULL},
    {"headers", get_headers, NULL, "What was sent with it, read-only.", NULL},
    {"log", get_log, NULL, "A logger that says the actor's address.", NULL},
    {"actor", get_actor, NULL, "The instance that the producer made, or None once it is gone.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef context_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_context, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot context_slots[] = {
    {Py_tp_doc, "An actor's view of itself and of the message that it handles. It belongs to the "
                "actor's receive; elsewhere use references."},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_traverse, context_traverse},
    {Py_tp_clear, context_clear},
    {Py_tp_repr, context_repr},
    {Py_tp_methods, context_methods},
    {Py_tp_getset, context_getset},
    {Py_tp_members, context_members},
    {0, NULL},
};

PyType_Spec esc_py_context_spec = {
    .name = "escqrs._core.Context",
    .basicsize = sizeof(esc_py_context),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = context_slots,
};
