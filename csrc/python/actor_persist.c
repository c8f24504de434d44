/* python/actor_persist.c - turns of a persistent actor, its recovery and its end: see
 * actor_persist.h. A thread's open turn is `turn_now`. Locks: none; the GIL.
 */
#include "python/actor_persist_parts.h"

#include "python/errors.h"
#include "python/state.h"

static _Thread_local esc_py_persist *turn_now;

/* ---- turns ---------------------------------------------------------------------------------------- */

const void *esc_py_persist_holds(void)
{
    return turn_now;
}

const void *esc_py_persist_suspend(void)
{
    const void *turn = turn_now;
    turn_now = NULL;
    return turn;
}

void esc_py_persist_resume(const void *turn)
{
    turn_now = (esc_py_persist *)turn;
}

bool esc_py_persist_is_open(const void *turn)
{
    return turn != NULL && turn == turn_now;
}

unsigned esc_py_persist_asks(esc_py_context *context)
{
    const esc_py_persist *self = context->persist;
    return self != NULL && self->turn != NULL && self->turn->asker != NULL;
}

const void *esc_py_persist_enter(esc_py_context *context)
{
    const void *before = turn_now;
    turn_now = context->persist != NULL && context->persist->open ? context->persist : NULL;
    return before;
}

void esc_py_persist_leave(esc_py_context *context, const void *turn)
{
    (void)context;
    turn_now = (esc_py_persist *)turn;
}

void esc_py_persist_hold(escqrs_ref *to, esc_py_mail *mail, escqrs_ref *sender)
{
    esc_py_flight *self = turn_now->turn;
    escqrs_ref_hold(to);
    if (sender != NULL) {
        escqrs_ref_hold(sender);
    }
    mail->to = to;
    mail->sender = sender;
    mail->next_held = NULL;
    *self->outbox_end = mail;
    self->outbox_end = &mail->next_held;
}

static int turn_begin(esc_py_persist *self)
{
    self->turn = esc_py_flight_new(self);
    if (self->turn == NULL) {
        return -1;
    }
    self->open = true;
    self->broken = false;
    turn_now = self;
    return 0;
}

static void turn_close(esc_py_persist *self)
{
    self->open = false;
    turn_now = NULL;
    Py_CLEAR(self->pending);
    Py_CLEAR(self->pending_snapshot);
    if (self->turn != NULL) {
        esc_py_flight_drop(self->turn);
        esc_py_flight_free(self->turn);
        self->turn = NULL;
    }
}

/* The instance is not to handle it: the next one is. Where a supervisor said resume to one that
 * could not be recovered, there is nothing to go on with: it stops, which goes before a restart,
 * and what it was sent are dead letters. */
static int instead_of_handling(esc_py_context *context, const escqrs_envelope *envelope)
{
    esc_py_persist *self = context->persist;
    escqrs_error error = {0};
    if (escqrs_context_restart(context->core, envelope != NULL, &error) != ESCQRS_OK) {
        esc_py_raise(self->system->state, &error);
        return -1;
    }
    if (!self->recovered) {
        escqrs_stop(self->actor);
    }
    return 1;
}

int esc_py_persist_open(esc_py_context *context, escqrs_envelope *envelope)
{
    esc_py_persist *self = context->persist;
    bool ends = envelope != NULL &&
                (envelope->type == &escqrs_restarting || envelope->type == &escqrs_stopping ||
                 envelope->type == &escqrs_stopped);
    if (ends) { /* it may still turn out to have seen what is not stored */
        esc_py_flights_await(self);
    }
    /* acquire: pairs with the release in fail */
    bool stale = atomic_load_explicit(&self->stale, memory_order_acquire);
    if (stale && ends) {
        return 1;
    }
    self->starting = envelope != NULL && envelope->type == &escqrs_started;
    if ((stale || !self->recovered) && !self->starting && !ends) {
        return instead_of_handling(context, envelope);
    }
    self->worked = self->worked || (envelope != NULL && envelope->type == &esc_py_mail_type);
    self->early = !self->worked && !ends;
    if (turn_begin(self) < 0) {
        return -1;
    }
    escqrs_ref *sender = escqrs_context_sender(context->core);
    if (sender != NULL && escqrs_ref_kind_of(sender) == ESCQRS_REF_FUTURE) {
        escqrs_ref_hold(sender);
        self->turn->asker = sender;
    }
    return 0;
}

/* ---- the end of a turn ------------------------------------------------------------------------------ */

PyObject *esc_py_persist_run_now(esc_py_context *context, PyObject *result)
{
    if (result != NULL && PyCoro_CheckExact(result)) {
        PyObject *ran =
            PyObject_CallFunctionObjArgs(context->system->state->actor.run_now, result, NULL);
        Py_SETREF(result, ran);
    }
    return result;
}

PyObject *esc_py_persist_call(esc_py_context *context, PyObject *message)
{
    return esc_py_persist_run_now(context, esc_py_context_call(context, message));
}

/* Ask for a snapshot where the version has passed a multiple of the interval. One that cannot be
 * made is said and left out: the events are the truth. */
static void request_snapshot(esc_py_context *context, int64_t before)
{
    esc_py_persist *self = context->persist;
    if (self->snapshot_every <= 0 ||
        before / self->snapshot_every == self->version / self->snapshot_every) {
        return;
    }
    self->snapshotting = true;
    PyObject *result = esc_py_persist_call(context, self->system->state->actor.request_snapshot);
    self->snapshotting = false;
    if (result == NULL) {
        esc_py_context_note(context, self->system->state->actor.request_snapshot);
    }
    Py_XDECREF(result);
}

/* A provider in Python: commit here and now. 0, or -1 with its exception. */
static int commit_provider(esc_py_persist *self)
{
    Py_ssize_t count = self->pending == NULL ? 0 : PyList_GET_SIZE(self->pending);
    if (count == 0 && self->pending_snapshot == NULL) {
        return 0;
    }
    PyObject *events = self->pending == NULL ? PyTuple_New(0) : PyList_AsTuple(self->pending);
    PyObject *result = events == NULL
                           ? NULL
                           : PyObject_CallFunction(
                                 self->system->state->actor.commit_provider, "OOOLO", self->store,
                                 self->name, events, (long long)(self->version - count),
                                 self->pending_snapshot == NULL ? Py_None : self->pending_snapshot);
    Py_XDECREF(events);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What the actor has persisted before its first message is durable, or its start has failed, to
 * which that belongs: it would be tried again for ever if it did not count. Steals the result and
 * gives it back; NULL with the store's error. */
static PyObject *end_early(esc_py_persist *self, PyObject *result)
{
    if (self->landing) { /* flight_done resumes it, and may have done so */
        return result;
    }
    esc_py_flights_await(self); /* one thread, which has committed, or left it to one that does */
    /* acquire: pairs with the release in fail */
    if (!atomic_load_explicit(&self->stale, memory_order_acquire)) {
        return result;
    }
    self->recovered = false;
    Py_DECREF(result);
    return esc_py_raise(self->system->state, &self->failure);
}

bool esc_py_persist_is_landing(const esc_py_context *context)
{
    return context->persist != NULL && context->persist->landing;
}

PyObject *esc_py_persist_land(esc_py_context *context)
{
    esc_py_persist *self = context->persist;
    /* acquire: pairs with the release in landed */
    self->landing = atomic_load_explicit(&self->in_flight, memory_order_acquire) > 0;
    return end_early(self, Py_NewRef(Py_None));
}

PyObject *esc_py_persist_finish(esc_py_context *context, PyObject *result)
{
    esc_py_persist *self = context->persist;
    if (!self->open) { /* it never began: recovery failed */
        return result;
    }
    esc_py_flight *turn = self->turn;
    if (result != NULL && self->broken) {
        Py_CLEAR(result);
        PyErr_SetString(self->system->state->errors.error,
                        "the message went on though its event could not be applied");
    }
    if (result != NULL && self->applied) {
        request_snapshot(context, self->version_before);
    }
    if (result != NULL && self->core == NULL && commit_provider(self) < 0) {
        Py_CLEAR(result);
    }
    if (result == NULL) {
        self->recovered = self->recovered && !self->starting;
        if (self->applied) { /* the instance has seen what is not stored */
            atomic_store_explicit(&self->stale, true, memory_order_relaxed);
        }
    } else if (self->core != NULL &&
               (turn->event_count > 0 || turn->commit.snapshot != NULL ||
                /* acquire: what has landed was delivered */
                atomic_load_explicit(&self->in_flight, memory_order_acquire) > 0 ||
                atomic_load_explicit(&self->stale, memory_order_acquire))) {
        esc_py_flight_take_off(self, escqrs_context_message(context->core));
    } else {
        esc_py_flight_deliver(turn);
    }
    self->applied = false;
    self->version_before = self->version;
    turn_close(self);
    return self->early && result != NULL ? end_early(self, result) : result;
}

/* ---- recovery ----------------------------------------------------------------------------------------- */

PyObject *esc_py_persist_recover(esc_py_context *context, PyObject *result)
{
    esc_py_persist *self = context->persist;
    if ((result = esc_py_persist_run_now(context, result)) == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    self->recovering = true;
    PyObject *version = PyObject_CallFunctionObjArgs(
        self->system->state->actor.recover, (PyObject *)context, self->store, self->name, NULL);
    self->recovering = false;
    int64_t number = version == NULL ? -1 : PyLong_AsLongLong(version);
    Py_XDECREF(version);
    if (number < 0) {
        return NULL;
    }
    self->version = self->version_before = number;
    self->recovered = true;
    PyObject *complete =
        PyObject_CallFunction(self->system->state->actor.replay_complete, "L", (long long)number);
    result = complete == NULL ? NULL : esc_py_persist_call(context, complete);
    Py_XDECREF(complete);
    return result;
}

static int64_t snapshot_interval(PyObject *given)
{
    return given == Py_None ? 0 : PyLong_AsLongLong(given);
}

void esc_py_persist_refuse_storeless(PyTypeObject *cls)
{
    PyErr_Format(PyExc_TypeError,
                 "%s is a PersistentActor and has no store: spawn it with es.Props(..., "
                 "middleware=[es.persistence(store)])",
                 cls->tp_name);
}

void esc_py_persist_refuse_other(PyTypeObject *cls)
{
    PyErr_Format(PyExc_TypeError,
                 "es.persistence is for actors derived from es.PersistentActor, and %s is none",
                 cls->tp_name);
}

/* Whether the store is written to by methods of its class's own, though it has a file. */
static int writes_itself(PyObject *store)
{
    PyObject *answer = PyObject_GetAttrString(store, "_writes_itself");
    int written = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return written;
}

int esc_py_persist_begin(esc_py_context *context)
{
    esc_py_state *state = context->system->state;
    PyObject *given = context->recipe->persistence;
    bool is_persistent = PyObject_TypeCheck(context->actor, state->actor.persistent_type);
    if (given == NULL || given == Py_None) {
        if (is_persistent) {
            esc_py_persist_refuse_storeless(Py_TYPE(context->actor));
            return -1;
        }
        return 0;
    }
    if (!is_persistent) {
        esc_py_persist_refuse_other(Py_TYPE(context->actor));
        return -1;
    }
    esc_py_persistent *actor = (esc_py_persistent *)context->actor;
    if (actor->context != NULL) {
        PyErr_SetString(PyExc_TypeError, "the producer returned the instance of another actor; "
                                         "each actor needs one of its own");
        return -1;
    }
    esc_py_persist *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    char name[ESCQRS_STREAM_NAME_MAX + 1];
    escqrs_ref_name(context->ref, name, sizeof name);
    atomic_init(&self->references, 1);
    self->system = context->system;
    self->store = Py_NewRef(PyTuple_GET_ITEM(given, 0));
    self->snapshot_every = snapshot_interval(PyTuple_GET_ITEM(given, 1));
    self->actor = context->ref;
    escqrs_ref_hold(self->actor);
    self->name = PyUnicode_FromString(name);
    context->persist = self;
    Py_ssize_t size = 0;
    const char *text = self->name == NULL ? NULL : PyUnicode_AsUTF8AndSize(self->name, &size);
    if (text == NULL) {
        return -1;
    }
    self->stream = (escqrs_slice){text, (size_t)size};
    int written = writes_itself(self->store);
    if (written < 0) {
        return -1;
    }
    self->core = written ? NULL : ((esc_py_store *)self->store)->core;
    actor->context = (esc_py_context *)Py_NewRef((PyObject *)context);
    return 0;
}

void esc_py_persist_end(esc_py_context *context)
{
    esc_py_persist *self = context->persist;
    if (self == NULL) {
        return;
    }
    context->persist = NULL;
    if (context->actor != NULL &&
        PyObject_TypeCheck(context->actor, context->system->state->actor.persistent_type) &&
        ((esc_py_persistent *)context->actor)->context == context) {
        Py_CLEAR(((esc_py_persistent *)context->actor)->context);
    }
    if (self->turn != NULL) {
        turn_close(self);
    }
    esc_py_flights_await(self);
    esc_py_persist_release(self);
}
