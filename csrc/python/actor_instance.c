/* python/actor_instance.c - an actor's instance: the core's callbacks.
 *
 * `create` makes the instance and its Context, `receive` hands it a message, through the
 * middleware. An async receive runs on an event loop's thread while the core keeps the actor
 * suspended; what it wants done in the actor, and its end, come as `resume`. Locks: none; the GIL.
 */
#include "python/actor.h"

#include <string.h>

#include "python/actor_context.h"
#include "python/actor_persist.h"
#include "python/actor_reply.h"
#include "python/state.h"

/* ---- calling the actor -------------------------------------------------------------------------- */

/* The receiver alone, without middleware. */
PyObject *esc_py_context_call_receiver(esc_py_context *self, PyObject *message)
{
    if (self->receiver == NULL) {
        PyErr_SetString(self->system->state->errors.error,
                        "this actor has no instance: it could not be made anew");
        return NULL;
    }
    PyObject *receiver = Py_NewRef(self->receiver);       /* a become may replace it meanwhile */
    PyObject *room[] = {NULL, (PyObject *)self, message}; /* a bound method puts its self there */
    PyObject *result =
        PyObject_Vectorcall(receiver, room + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(receiver);
    return result;
}

PyObject *esc_py_context_call(esc_py_context *self, PyObject *message)
{
    PyObject *before = self->message;
    self->message = Py_NewRef(message);
    PyObject *result;
    if (self->chain == NULL) {
        result = esc_py_context_call_receiver(self, message);
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

/* The current exception, as that of the actor; `message`: NULL: its producer's. NULL: no memory. */
static esc_py_fault *take_fault(esc_py_actor_system *system, escqrs_ref *ref, PyObject *message)
{
    char path[512] = "/";
    escqrs_ref_path(ref, path + 1, sizeof path - 1);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *what =
        message == NULL ? PyUnicode_FromString("its producer") : PyType_GetName(Py_TYPE(message));
    if (what == NULL) {
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
    esc_py_fault *fault = esc_py_fault_take(system, path, what == NULL ? Py_None : what);
    Py_XDECREF(what);
    return fault;
}

escqrs_turn_end esc_py_fail(esc_py_actor_system *system, escqrs_context *core, PyObject *message)
{
    esc_py_fault *fault = take_fault(system, escqrs_context_self(core), message);
    const escqrs_ref *asker = escqrs_context_sender(core);
    if (fault != NULL && (asker == NULL || escqrs_ref_kind_of(asker) != ESCQRS_REF_FUTURE)) {
        esc_py_actor_interrupted(system, fault->exception);
    }
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
    return esc_py_fail(self->system, self->core, self->message);
}

void esc_py_context_note(esc_py_context *self, PyObject *message)
{
    esc_py_fault *fault = take_fault(self->system, self->ref, message);
    PyObject *text = fault == NULL ? NULL : fault_text(fault->exception);
    const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    PyErr_Clear();
    escqrs_error error = {0};
    (void)escqrs_error_set(&error, fault == NULL ? ESCQRS_NO_MEMORY : ESCQRS_REJECTED, "%s",
                           utf8 == NULL ? "the actor raised" : utf8);
    esc_py_failed_publish(self->system, self->ref, fault, &error, Py_TYPE(message)->tp_name,
                          ESCQRS_DIRECTIVE_RESUME);
    esc_py_fault_release(fault);
    Py_XDECREF(text);
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
    esc_py_actor_made(system);
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
        PyErr_Format(
            PyExc_TypeError,
            "the producer %R made an object of type %s, which is no actor: it has no method "
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
void esc_py_context_end_wait(esc_py_context *self)
{
    if (self->waits_for != NULL) {
        escqrs_actor_wait_end((escqrs_actor *)self->ref);
        escqrs_ref_release(self->waits_for);
        self->waits_for = NULL;
        Py_CLEAR(self->waits_until);
    }
}

void esc_py_context_end(esc_py_context *self)
{
    esc_py_context_end_wait(self);
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
        return esc_py_fail(recipe->system, core, NULL);
    }
    if (context_begin(self) < 0) {
        escqrs_turn_end end = esc_py_fail(recipe->system, core, NULL);
        esc_py_context_end(self);
        Py_DECREF((PyObject *)self);
        return end;
    }
    *state = self; /* the core's reference */
    return ESCQRS_TURN_NEXT;
}

static void actor_destroy(void *state, void *Py_UNUSED(user_data))
{
    esc_py_context *self = state;
    esc_py_context_end(self);
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
        Py_CLEAR(self->outcome); /* close() may have settled it meanwhile: its loop was closed */
        escqrs_ref_release(self->asker);
        self->asker = NULL;
        return esc_py_context_fail(self);
    }
    Py_DECREF(result);
    return ESCQRS_TURN_SUSPEND;
}

static escqrs_turn_end end_turn(esc_py_context *self, PyObject *result)
{
    if (result == NULL) {
        return esc_py_context_fail(self);
    }
    Py_DECREF(result);
    return esc_py_persist_is_landing(self) ? ESCQRS_TURN_SUSPEND : ESCQRS_TURN_NEXT;
}

/* Of a receive with a `yield`: nothing of it has run. Steals; NULL with TypeError. */
static PyObject *refuse_generator(PyObject *result)
{
    if (!PyGen_CheckExact(result) && !PyAsyncGen_CheckExact(result)) {
        return result;
    }
    PyObject *name = PyObject_GetAttrString(result, "__qualname__");
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError, "%U has a yield: it made a generator, which nobody runs",
                     name);
        Py_DECREF(name);
    }
    Py_DECREF(result);
    return NULL;
}

/* After the actor's code: `result` is stolen; NULL: it raised. */
escqrs_turn_end esc_py_context_finish(esc_py_context *self, PyObject *result)
{
    if (result != NULL && result != Py_None) {
        if (PyCoro_CheckExact(result)) {
            escqrs_turn_end end = begin_task(self, result);
            Py_DECREF(result);
            return end;
        }
        result = refuse_generator(result);
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
    return end_turn(self, result);
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
    escqrs_turn_end end = esc_py_context_finish(self, result);
    if (end != ESCQRS_TURN_SUSPEND) {
        Py_CLEAR(self->message);
    }
    return end;
}

/* What the loop wants done in the actor. It may wait for others itself (middleware): an actor
 * waits for one at a time. */
static void run_inside(esc_py_context *self)
{
    esc_py_context_end_wait(self);
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

/* What the turn has persisted was under way. */
static escqrs_turn_end resume_landing(esc_py_context *self)
{
    escqrs_turn_end end = end_turn(self, esc_py_persist_land(self));
    if (end != ESCQRS_TURN_SUSPEND) {
        Py_CLEAR(self->message);
    }
    return end;
}

static escqrs_turn_end actor_resume(escqrs_context *core, void *state)
{
    esc_py_context *self = state;
    self->core = core;
    if (esc_py_persist_is_landing(self)) {
        return resume_landing(self);
    }
    run_inside(self);
    if (self->outcome == NULL) {
        return ESCQRS_TURN_SUSPEND;
    }
    PyObject *result = self->outcome;
    self->outcome = NULL;
    self->suspended = false;
    esc_py_context_end_wait(self);
    Py_CLEAR(self->task_headers);
    escqrs_ref_release(self->asker);
    self->asker = NULL;
    (void)esc_py_persist_enter(self);
    if (result != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(result), result);
        Py_CLEAR(result);
    }
    escqrs_turn_end end = esc_py_context_finish(self, result);
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
