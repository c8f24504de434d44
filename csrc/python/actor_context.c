/* python/actor_context.c - es.Context: an actor's own side.
 *
 * A Context belongs to the thread that handles a message of its actor. From an async receive, what
 * needs the core is sent inside, run at a resume (actor_instance.c), and waited for. Locks: none;
 * the GIL.
 */
#include "python/actor.h"

#include <structmember.h>

#include "python/actor_context.h"
#include "python/actor_persist.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/state.h"

/* ---- methods: entering the core ------------------------------------------------------------------ */

int esc_py_context_refuse_outside(esc_py_context *self, const char *method)
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

/* Run it here; or, from an async receive, inside the actor. */
PyObject *esc_py_context_enter(PyObject *object, PyObject *args, PyObject *kwargs, const char *name,
                               esc_py_context_method *method)
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    if (esc_py_context_is_inside(self)) {
        return method(self, args, kwargs);
    }
    if (self->core == NULL || !self->suspended) {
        esc_py_context_refuse_outside(self, name);
        return NULL;
    }
    PyObject *given = kwargs == NULL ? PyDict_New() : Py_NewRef(kwargs);
    PyObject *result = given == NULL ? NULL
                                     : PyObject_CallFunction(self->system->state->actor.inside,
                                                             "OsOO", object, name, args, given);
    Py_XDECREF(given);
    return result;
}

PyObject *esc_py_context_raise(esc_py_context *self, escqrs_status status, escqrs_error *error)
{
    if (error->status == ESCQRS_OK) {
        (void)escqrs_error_set(error, status, "%s", escqrs_status_name(status));
    }
    return esc_py_raise(self->system->state, error);
}

int esc_py_context_check_use(esc_py_context *self, const char *method)
{
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return -1;
    }
    return esc_py_context_is_inside(self) || (self->core != NULL && self->suspended)
               ? 0
               : esc_py_context_refuse_outside(self, method);
}

PyObject *esc_py_context_self(esc_py_context *self)
{
    if (self->self == NULL) {
        self->self = esc_py_ref_new(self->system, self->ref);
    }
    return self->self;
}

/* The sender of the current message, borrowed; NULL: none. */
escqrs_ref *esc_py_context_sender(esc_py_context *self)
{
    return self->suspended                  ? self->asker
           : esc_py_context_is_inside(self) ? escqrs_context_sender(self->core)
                                            : NULL;
}

/* ---- methods: children and others ----------------------------------------------------------------- */

/* _spawn(ctx, props, name): the innermost of the spawn middleware. */
static PyObject *context_spawn_innermost(PyObject *object, PyObject *args)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *ctx, *what, *name;
    if (!PyArg_ParseTuple(args, "OOO", &ctx, &what, &name)) {
        return NULL;
    }
    return esc_py_context_is_inside(self) ? esc_py_spawn(self->system, self, what, name)
                                          : (esc_py_context_refuse_outside(self, "spawn"), NULL);
}

/* Through the middleware, which gets props, whatever was given. */
static PyObject *spawn_by_chain(esc_py_context *self, PyObject *what, PyObject *name)
{
    esc_py_state *state = self->system->state;
    int is_props = PyObject_IsInstance(what, state->actor.props);
    if (is_props < 0) {
        return NULL;
    }
    PyObject *props = is_props ? Py_NewRef(what)
                               : PyObject_CallOneArg(PyTuple_GET_ITEM(state->actor.props, 0), what);
    PyObject *made =
        props == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(self->spawn_chain, (PyObject *)self, props, name, NULL);
    Py_XDECREF(props);
    if (made != NULL && !PyObject_TypeCheck(made, state->actor.ref_type)) {
        PyErr_Format(PyExc_TypeError,
                     "spawn middleware returns the es.Ref that the next one did, not %s",
                     Py_TYPE(made)->tp_name);
        Py_CLEAR(made);
    }
    return made;
}

static PyObject *do_spawn(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"producer_or_props", "name", NULL};
    PyObject *what, *name = Py_None;
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 1) { /* the usual, quickly */
        what = PyTuple_GET_ITEM(args, 0);
    } else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O", names, &what, &name)) {
        return NULL;
    }
    if (self->spawn_chain != NULL) {
        return spawn_by_chain(self, what, name);
    }
    return esc_py_spawn(self->system, self, what, name);
}
static ESC_PY_ENTERED(context_spawn, spawn)

    static PyObject *end_one(PyObject *object, PyObject *args, bool poison)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *ref = Py_None;
    if (!PyArg_ParseTuple(args, "|O", &ref) ||
        esc_py_context_check_use(self, poison ? "poison" : "stop") < 0) {
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
    PyObject *given;
    escqrs_error error = {0};
    if (!PyArg_ParseTuple(args, "O", &given)) {
        return NULL;
    }
    esc_py_ref *ref = esc_py_ref_cast(self->system->state, given, "what is watched");
    if (ref == NULL) {
        return NULL;
    }
    if (!watch) {
        escqrs_context_unwatch(self->core, ref->core);
        Py_RETURN_NONE;
    }
    escqrs_status status = escqrs_context_watch(self->core, ref->core, &error);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_context_raise(self, status, &error);
}

static PyObject *do_watch(esc_py_context *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return watch_one(self, args, true);
}
static ESC_PY_ENTERED(context_watch, watch)

    static PyObject *do_unwatch(esc_py_context *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    return watch_one(self, args, false);
}
static ESC_PY_ENTERED(context_unwatch, unwatch)

    /* ---- methods: behaviour and stash ------------------------------------------------------------------ */

    static PyObject *context_become(PyObject *object, PyObject *function)
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_context_check_use(self, "become") < 0) {
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
    if (esc_py_context_check_use(self, "unbecome") < 0) {
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
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_context_raise(self, status, &error);
}
static ESC_PY_ENTERED(context_stash, stash)

    static PyObject *do_unstash_all(esc_py_context *self, PyObject *Py_UNUSED(args),
                                    PyObject *Py_UNUSED(kwargs))
{
    escqrs_context_unstash_all(self->core);
    Py_RETURN_NONE;
}
static ESC_PY_ENTERED(context_unstash_all, unstash_all)

    /* ---- async ------------------------------------------------------------------------------------------ */

    /* _post(job): a function to be called in the actor, which is suspended. */
    static PyObject *context_post(PyObject *object, PyObject *job)
{
    esc_py_context *self = (esc_py_context *)object;
    if (self->core == NULL || !self->suspended) {
        esc_py_context_refuse_outside(self, "_post");
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

/* _begin_wait(ref, reply): its task waits for an answer of that actor; False: it is not noted.
 * Deadlock where that would never end. `reply`: what its task sleeps for; None: the thread may run
 * others for it. */
static PyObject *context_begin_wait(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    esc_py_context *self = (esc_py_context *)object;
    PyTypeObject *reply_type = self->system->state->actor.reply_type;
    if (count != 2 || (args[1] != Py_None && !PyObject_TypeCheck(args[1], reply_type))) {
        PyErr_SetString(PyExc_TypeError, "_begin_wait takes a reference, and a reply or None");
        return NULL;
    }
    escqrs_actor *target = esc_py_ref_actor(args[0]);
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
    if (args[1] != Py_None && !self->system->manual) {
        self->waits_until = Py_NewRef(args[1]);
        escqrs_actor_wait_until((escqrs_actor *)self->ref, &self->wait,
                                &((esc_py_answer *)args[1])->word);
    }
    Py_RETURN_TRUE;
}

/* _check_wait(ref): Deadlock where its waiting for an answer of that actor would never end; nothing
 * is noted. */
static PyObject *context_check_wait(PyObject *object, PyObject *ref)
{
    esc_py_context *self = (esc_py_context *)object;
    escqrs_actor *target = esc_py_ref_actor(ref);
    escqrs_error error = {0};
    if (self->suspended && target != NULL &&
        escqrs_actor_wait_check((escqrs_actor *)self->ref, target, &error) != ESCQRS_OK) {
        return esc_py_raise(self->system->state, &error);
    }
    Py_RETURN_NONE;
}

/* _holds_up(reply): whether the reply cannot come before the async receive that is under way has
 * ended: who was asked is this actor or waits for it, or the question was sent on to it and nobody
 * else can answer. */
static PyObject *context_holds_up(PyObject *object, PyObject *argument)
{
    esc_py_context *self = (esc_py_context *)object;
    esc_py_answer *reply = (esc_py_answer *)argument;
    escqrs_actor *target = esc_py_ref_actor(reply->target);
    if (!self->suspended || target == NULL) {
        Py_RETURN_FALSE;
    }
    if (escqrs_future_was_sent_to(&reply->future, self->ref)) {
        /* the message's, the asker's own, and those of the receive. relaxed: a hint, and seen anew
         * by the next look; where others have it, they may answer */
        bool here = self->asker == &reply->future.ref;
        uint32_t own = 1 + reply->asking + (here ? 1 + esc_py_persist_asks(self) : 0);
        if (atomic_load_explicit(&reply->future.references, memory_order_relaxed) == own) {
            Py_RETURN_TRUE;
        }
    }
    escqrs_error error = {0};
    return PyBool_FromLong(escqrs_actor_wait_check((escqrs_actor *)self->ref, target, &error) !=
                           ESCQRS_OK);
}

static PyObject *context_end_wait(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_is_own(self->system->fork_generation)) {
        esc_py_context_end_wait(self);
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
    return Py_XNewRef(esc_py_context_self((esc_py_context *)object));
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
    escqrs_ref *sender = esc_py_context_sender(self);
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
    escqrs_envelope *envelope =
        esc_py_context_is_inside(self) ? escqrs_context_message(self->core) : NULL;
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
               ? esc_py_context_call_receiver((esc_py_context *)object, message)
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
    PyObject *ref = esc_py_context_self(self);
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
    Py_VISIT(self->waits_until);
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
    if (esc_py_is_own(self->system->fork_generation)) {
        esc_py_context_end(self);
        escqrs_ref_release(self->asker);
        escqrs_ref_release(self->ref);
    }
    Py_CLEAR(self->self);
    Py_CLEAR(self->message);
    Py_CLEAR(self->log);
    Py_CLEAR(self->task_headers);
    Py_DECREF((PyObject *)self->recipe);
    esc_py_actor_gone(self->system);
    Py_DECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef context_methods[] = {
    {"tell", _PyCFunction_CAST(esc_py_context_tell), METH_FASTCALL | METH_KEYWORDS,
     "tell($self, ref, message, /, *, headers=None)\n--\n\nSend, without a sender."},
    {"request", _PyCFunction_CAST(esc_py_context_request), KEYWORDS,
     "request($self, ref, message, *, sender=None, headers=None)\n--\n\nSend with this actor, or "
     "`sender`, as the one to be answered."},
    {"respond", esc_py_context_respond, METH_O,
     "respond($self, message, /)\n--\n\nAnswer the sender of the current message; where there is "
     "none it is a dead letter."},
    {"forward", _PyCFunction_CAST(esc_py_context_forward), KEYWORDS,
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
    {"reenter_after", _PyCFunction_CAST(esc_py_context_reenter_after), KEYWORDS,
     "reenter_after($self, reply, function)\n--\n\nCall function(reply) in this actor when the "
     "reply is there; until then it handles other messages.\n\n"
     "ctx.respond answers the message that is current now. Nothing is called where the actor was "
     "restarted or stopped meanwhile."},
    {"set_receive_timeout", _PyCFunction_CAST(esc_py_context_set_receive_timeout), KEYWORDS,
     "set_receive_timeout($self, seconds)\n--\n\nGet es.ReceiveTimeout when no message came for so "
     "long; None: no more."},
    {"schedule_once", _PyCFunction_CAST(esc_py_context_schedule_once), KEYWORDS,
     "schedule_once($self, seconds, message, *, to=None)\n--\n\nTell `to`, or this actor, after so "
     "many seconds, unless this actor has ended."},
    {"schedule_every", _PyCFunction_CAST(esc_py_context_schedule_every), KEYWORDS,
     "schedule_every($self, seconds, message, *, to=None)\n--\n\nThe same again and again."},
    {"_receive", context_receive_innermost, METH_VARARGS, NULL},
    {"_send", esc_py_context_send_innermost, METH_VARARGS, NULL},
    {"_spawn", context_spawn_innermost, METH_VARARGS, NULL},
    {"_call", context_call, METH_O, NULL},
    {"_begin_wait", (PyCFunction)(void (*)(void))context_begin_wait, METH_FASTCALL, NULL},
    {"_end_wait", context_end_wait, METH_NOARGS, NULL},
    {"_check_wait", context_check_wait, METH_O, NULL},
    {"_holds_up", context_holds_up, METH_O, NULL},
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
