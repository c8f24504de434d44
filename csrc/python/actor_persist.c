/* python/actor_persist.c - see actor_persist.h.
 *
 * Who touches what. The turn belongs to the thread that handles the message, with the GIL. A flight
 * belongs to the journal from submit to `done`, which comes on any thread without the GIL. Between
 * them stand `in_flight` (a futex word), `stale`, and `failure`, which is written by the first
 * `done` that fails before it sets `stale`. Locks: none.
 */
#include "python/actor.h"

#include <string.h>
#include <structmember.h>

#include "python/actor_persist.h"

#include <inttypes.h>
#include <limits.h>

#include "base/buffer.h"
#include "base/thread.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/state.h"

/* One message's way to the store. */
typedef struct flight {
    escqrs_commit commit;
    escqrs_write write;
    esc_py_persist *persist; /* held */
    escqrs_new_event *events;
    size_t event_count, event_capacity;
    esc_buffer data; /* of the events, one after the other */
    escqrs_new_snapshot snapshot;
    esc_buffer snapshot_data;
    esc_py_mail *outbox;
    esc_py_mail **outbox_end;
    escqrs_ref *asker; /* held, or NULL */
    bool awaited;      /* the actor is, and fails with it: see early */
    bool waits;        /* a thread waits for the commit and frees it */
    bool finished;     /* `done` was called; written there, read by who waited for it */
    escqrs_error error;
    char message[64]; /* the name of the type of the message, cut; "": a continuation */
} flight;

struct esc_py_persist {
    _Atomic(uint32_t) references; /* the context's, and one each flight */
    esc_py_errand errand;
    esc_py_actor_system *system; /* outlives it: close() waits for actors and errands */
    PyObject *store;             /* es.Store, strong */
    escqrs_store *core;          /* NULL: a provider in Python */
    PyObject *name;              /* str: the stream */
    escqrs_slice stream;         /* its UTF-8 */
    int64_t snapshot_every;
    escqrs_ref *actor; /* held */
    escqrs_lane lane;

    /* The turn's, with the GIL. */
    int64_t version;        /* with what is under way */
    int64_t version_before; /* at the beginning of the turn */
    bool open;
    bool applied;  /* the turn has persisted something */
    bool starting; /* Started is being handled */
    bool early;    /* it, or what comes before the first message: the turn awaits its flight */
    bool worked;   /* the instance has begun a message, so that not all that it does is early */
    bool landing;  /* the turn was early, and the actor is suspended until its flight has landed */
    bool recovering;
    bool recovered;    /* to its end, ReplayComplete, or at that */
    bool applying;     /* an event that was just persisted is being handled */
    bool snapshotting; /* RequestSnapshot is being handled */
    bool broken;       /* an event was not taken: the message has failed, whatever it does */
    flight *turn;      /* what the open turn has collected; or NULL */
    PyObject *pending; /* list of the turn's events, for a provider in Python */
    PyObject *pending_snapshot;

    _Atomic(uint32_t) in_flight;
    _Atomic(bool) stale;
    _Atomic(bool) failed; /* `failure` is being, or was, written */
    escqrs_error failure;
};

/* The instance's side, es.PersistentActor's base. */
typedef struct persistent {
    PyObject_HEAD
    esc_py_context *context; /* strong; NULL before its actor has begun, and after */
    PyObject *dict;
    PyObject *weakrefs;
} persistent;

static _Thread_local esc_py_persist *turn_now;
static _Thread_local const escqrs_envelope *asked_now; /* what this thread asks, and runs itself */

/* ---- flights -------------------------------------------------------------------------------------- */

static flight *flight_new(esc_py_persist *persist)
{
    flight *self = escqrs_alloc(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(self, 0, offsetof(flight, error));
    self->error.status = ESCQRS_OK;
    self->error.version = self->error.position = self->error.expected = self->error.actual = 0;
    self->error.system_error = 0;
    self->error.subject[0] = self->error.message[0] = self->message[0] = '\0';
    self->outbox_end = &self->outbox;
    self->persist = persist;
    (void)atomic_fetch_add_explicit(&persist->references, 1, memory_order_relaxed);
    return self;
}

static void persist_free(esc_py_errand *errand)
{
    esc_py_persist *self = ESC_CONTAINER_OF(errand, esc_py_persist, errand);
    PyObject *store = self->store, *name = self->name;
    escqrs_ref_release(self->actor);
    escqrs_free(self);
    Py_XDECREF(store);
    Py_XDECREF(name);
}

static void persist_release(esc_py_persist *self)
{
    /* acq_rel: the last one sees what all others did with it */
    if (atomic_fetch_sub_explicit(&self->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    self->errand.run = persist_free;
    if (esc_py_is_attached()) {
        persist_free(&self->errand);
    } else {
        esc_py_errand_push(self->system, &self->errand);
    }
}

static void flight_free(flight *self)
{
    esc_py_persist *persist = self->persist;
    escqrs_free(self->events);
    esc_buffer_fini(&self->data);
    esc_buffer_fini(&self->snapshot_data);
    escqrs_ref_release(self->asker);
    escqrs_free(self);
    persist_release(persist);
}

/* Send what was held back. Any thread, with or without the GIL. */
static void deliver(flight *self)
{
    esc_py_mail *mail = self->outbox;
    self->outbox = NULL;
    while (mail != NULL) {
        esc_py_mail *next = mail->next_held;
        escqrs_ref *to = mail->to, *sender = mail->sender;
        mail->to = mail->sender = NULL;
        if (escqrs_tell_now(to, &mail->envelope, sender) == ESCQRS_MAILBOX_FULL) {
            char path[256];
            escqrs_ref_path(to, path, sizeof path);
            escqrs_log_write(escqrs_actor_system_log(self->persist->system->core), ESCQRS_LOG_ERROR,
                             "/%s: its mailbox is full; a message of the persistent actor %.*s, "
                             "held back until its events were durable, is a dead letter",
                             path, (int)self->persist->stream.size,
                             (const char *)self->persist->stream.data);
            escqrs_untold_publish(to, &mail->envelope);
        }
        escqrs_ref_release(to);
        escqrs_ref_release(sender);
        mail = next;
    }
    self->outbox_end = &self->outbox;
}

/* What was held back never leaves. */
static void drop(flight *self)
{
    esc_py_mail *mail = self->outbox;
    self->outbox = NULL;
    while (mail != NULL) {
        esc_py_mail *next = mail->next_held;
        escqrs_ref *to = mail->to, *sender = mail->sender;
        mail->to = mail->sender = NULL;
        escqrs_envelope_destroy(&mail->envelope);
        escqrs_ref_release(to);
        escqrs_ref_release(sender);
        mail = next;
    }
    self->outbox_end = &self->outbox;
}

/* Why the store refused; its asker hears of it. */
static void fail(flight *self, escqrs_status status)
{
    esc_py_persist *persist = self->persist;
    escqrs_error *error = &self->error;
    if (error->status == ESCQRS_OK) {
        (void)escqrs_error_set(error, status, "%.*s: its events could not be stored: %s",
                               (int)persist->stream.size, (const char *)persist->stream.data,
                               escqrs_status_name(status));
    }
    /* acq_rel: the first one writes; those behind it in the lane come after it on the same thread
     * or by way of the journal */
    if (!atomic_exchange_explicit(&persist->failed, true, memory_order_acq_rel)) {
        persist->failure = *error;
    } else if (status == ESCQRS_ABORTED) {
        *error = persist->failure;
    }
    /* Before the asker hears of it: what it sends next is handled by the new instance. release:
     * pairs with the acquire in esc_py_persist_open */
    atomic_store_explicit(&persist->stale, true, memory_order_release);
    drop(self);
    if (!self->awaited) { /* else it is its supervisor's matter, which says so */
        esc_py_failed_publish(persist->system, persist->actor, NULL, error, self->message,
                              ESCQRS_DIRECTIVE_RESTART);
    }
    if (self->asker != NULL) {
        esc_py_mail *mail = esc_py_mail_new_error(persist->system, error);
        if (mail != NULL) {
            (void)escqrs_tell(self->asker, &mail->envelope, NULL);
        }
    }
}

static void landed(esc_py_persist *self)
{
    /* release: what `done` did comes before whoever waits for zero */
    if (atomic_fetch_sub_explicit(&self->in_flight, 1, memory_order_acq_rel) == 1) {
        esc_futex_wake(&self->in_flight, INT_MAX);
    }
}

static void flight_done(escqrs_commit *commit)
{
    flight *self = commit->context;
    esc_py_persist *persist = self->persist;
    if (commit->status == ESCQRS_OK) {
        deliver(self);
    } else {
        fail(self, commit->status);
    }
    bool waits = self->waits, resumes = self->awaited && !persist->system->manual; /* see landing */
    self->finished = true;
    landed(persist);
    if (waits) { /* the flight may be gone, and what it held with it */
        return;
    }
    if (resumes) {
        escqrs_ref_resume(persist->actor);
    }
    flight_free(self);
}

static escqrs_status wait_landed(void *context, int64_t deadline_ns)
{
    esc_py_persist *self = context;
    uint32_t now;
    while ((now = atomic_load_explicit(&self->in_flight, memory_order_acquire)) != 0) {
        if (!esc_futex_wait(&self->in_flight, now, deadline_ns)) {
            return ESCQRS_TIMEOUT;
        }
    }
    return ESCQRS_OK;
}

static void await_flights(esc_py_persist *self)
{
    if (atomic_load_explicit(&self->in_flight, memory_order_acquire) == 0) {
        return;
    }
    PyThreadState *thread = PyEval_SaveThread();
    (void)escqrs_runtime_block();
    (void)wait_landed(self, INT64_MAX);
    escqrs_runtime_unblock();
    PyEval_RestoreThread(thread);
}

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

const void *esc_py_persist_asks_here(const escqrs_envelope *envelope)
{
    const void *before = asked_now;
    asked_now = envelope;
    return before;
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
    flight *self = turn_now->turn;
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
    self->turn = flight_new(self);
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
        drop(self->turn);
        flight_free(self->turn);
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
        await_flights(self);
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

/* ---- events --------------------------------------------------------------------------------------- */

static escqrs_type *type_of(esc_py_persist *self, PyTypeObject *cls)
{
    esc_py_store *store = (esc_py_store *)self->store;
    PyObject *known = PyDict_GetItemWithError(store->types, (PyObject *)cls);
    if (known != NULL || PyErr_Occurred()) {
        return known == NULL ? NULL : PyLong_AsVoidPtr(known);
    }
    PyObject *claimed =
        PyObject_CallFunctionObjArgs(store->state->store.claim, self->store, (PyObject *)cls, NULL);
    const escqrs_schema *schema = claimed == NULL ? NULL : esc_py_message_schema(cls);
    Py_XDECREF(claimed);
    if (schema == NULL) {
        return NULL;
    }
    Py_ssize_t size = 0;
    const char *name = PyUnicode_AsUTF8AndSize(esc_py_class_stored_name(cls), &size);
    void *record = NULL;
    size_t record_size = 0;
    escqrs_error error = {0};
    escqrs_type *type = NULL;
    escqrs_status status =
        name == NULL ? ESCQRS_INVALID : escqrs_schema_record(schema, &record, &record_size, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(self->core, (escqrs_slice){name, (size_t)size},
                                   (escqrs_slice){record, record_size}, &type, &error);
    }
    escqrs_free(record);
    if (status != ESCQRS_OK) {
        return PyErr_Occurred() ? NULL : esc_py_raise(store->state, &error);
    }
    PyObject *number = PyLong_FromVoidPtr(type);
    int kept = number == NULL ? -1 : PyDict_SetItem(store->types, (PyObject *)cls, number);
    Py_XDECREF(number);
    return kept < 0 ? NULL : type;
}

static int too_large(esc_py_persist *self, PyTypeObject *cls, size_t size, size_t limit)
{
    PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TOO_LARGE),
                 "%s of %zu bytes is larger than the limit of %zu; es.Store(max_message_bytes=) "
                 "sets it",
                 cls->tp_name, size, limit);
    return -1;
}

/* Collect an event, as bytes. */
static int add_event(esc_py_persist *self, PyObject *event)
{
    flight *turn = self->turn;
    size_t limit = ((esc_py_store *)self->store)->backing->message_bytes_max;
    escqrs_type *type = type_of(self, Py_TYPE(event));
    if (type == NULL) {
        return -1;
    }
    if (turn->event_count == ESCQRS_COMMIT_EVENTS_MAX) {
        PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TOO_LARGE),
                     "one message persists at most %d events", ESCQRS_COMMIT_EVENTS_MAX);
        return -1;
    }
    if (turn->event_count == turn->event_capacity) {
        size_t capacity = turn->event_capacity == 0 ? 2 : turn->event_capacity * 2;
        escqrs_new_event *grown = escqrs_realloc(turn->events, capacity * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        turn->events = grown;
        turn->event_capacity = capacity;
    }
    size_t before = turn->data.size;
    if (esc_py_message_pack(event, &turn->data) < 0) {
        turn->data.size = before;
        return -1;
    }
    size_t size = turn->data.size - before;
    if (size > limit) {
        turn->data.size = before;
        return too_large(self, Py_TYPE(event), size, limit);
    }
    /* the data's address is set when all are there */
    turn->events[turn->event_count++] = (escqrs_new_event){.type = type, .data = {NULL, size}};
    return 0;
}

static esc_py_persist *persist_of(PyObject *object, const char *method)
{
    persistent *self = (persistent *)object;
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    if (self->context == NULL) {
        PyErr_Format(state->errors.error,
                     "%s.%s: this instance belongs to no running actor; spawn it with "
                     "es.Props(..., middleware=[es.persistence(store)])",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    return self->context->persist;
}

/* Whether this thread handles the message of the open turn: it runs the actor, or the event loop of
 * its async receive. -1 with an exception. */
static int is_turn_here(esc_py_persist *self, esc_py_context *context)
{
    if (!self->open || turn_now == self || !context->suspended) {
        return self->open && turn_now == self;
    }
    PyObject *result = PyObject_CallMethod((PyObject *)self->system, "_is_on_loop", NULL);
    int here = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return here;
}

/* As above, with its turn open on this thread's actor. */
static esc_py_persist *writing(PyObject *object, const char *method)
{
    esc_py_persist *self = persist_of(object, method);
    if (self == NULL) {
        return NULL;
    }
    int own = is_turn_here(self, ((persistent *)object)->context);
    if (own <= 0) {
        if (own == 0) {
            PyErr_Format(self->system->state->errors.error, "%s.%s was called %s",
                         Py_TYPE(object)->tp_name, method,
                         self->open ? "by a thread that does not handle the actor's message; what "
                                      "is persisted belongs to a message: persist there, or tell "
                                      "the actor"
                                    : "outside of a message");
        }
        return NULL;
    }
    if (self->applying) { /* what replay would refuse is refused at once */
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called while the actor handles an event that it has persisted; a "
                     "replay gives it the event again, so it only changes its state then, and "
                     "calls %s where it handles the command",
                     Py_TYPE(object)->tp_name, method, method);
        return NULL;
    }
    if (self->recovering) {
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called while it is recovered from what is stored",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    if (!self->recovered) { /* what is stored is not known yet, so it would stand before that */
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called before the actor was recovered from what is stored: call it "
                     "when ReplayComplete comes",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    return self;
}

/* What an async receive returned is run to its end, which must not wait; steals. */
static PyObject *run_now(esc_py_context *context, PyObject *result)
{
    if (result != NULL && PyCoro_CheckExact(result)) {
        PyObject *ran =
            PyObject_CallFunctionObjArgs(context->system->state->actor.run_now, result, NULL);
        Py_SETREF(result, ran);
    }
    return result;
}

static PyObject *call_now(esc_py_context *context, PyObject *message)
{
    return run_now(context, esc_py_context_call(context, message));
}

/* Give the event to the receiver. */
static int apply(persistent *self, PyObject *event)
{
    esc_py_context *context = (esc_py_context *)Py_NewRef((PyObject *)self->context);
    esc_py_persist *persist = context->persist;
    persist->applying = true;
    PyObject *result = call_now(context, event);
    persist->applying = false;
    Py_DECREF((PyObject *)context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *persistent_persist(PyObject *object, PyObject *event)
{
    esc_py_persist *self = writing(object, "persist");
    if (self == NULL) {
        return NULL;
    }
    esc_py_state *state = self->system->state;
    esc_py_kind kind = esc_py_message_kind(state, event);
    if (kind != ESC_PY_EVENT && kind != ESC_PY_MESSAGE) {
        PyErr_Format(PyExc_TypeError, "persist takes an es.Event or an es.Message, not %s",
                     Py_TYPE(event)->tp_name);
        return NULL;
    }
    if (self->snapshotting) {
        PyErr_SetString(state->errors.error, "persist was called while the actor handles "
                                             "RequestSnapshot: answer it with persist_snapshot");
        return NULL;
    }
    if (self->core != NULL) {
        if (add_event(self, event) < 0) {
            return NULL;
        }
    } else if ((self->pending == NULL && (self->pending = PyList_New(0)) == NULL) ||
               PyList_Append(self->pending, event) < 0) {
        return NULL;
    }
    self->version++;
    self->applied = true;
    if (apply((persistent *)object, event) < 0) {
        self->broken = true; /* what it said is the message's failure, even if it is caught */
        return NULL;
    }
    return Py_NewRef(event);
}

static PyObject *persistent_persist_snapshot(PyObject *object, PyObject *snapshot)
{
    esc_py_persist *self = writing(object, "persist_snapshot");
    if (self == NULL) {
        return NULL;
    }
    esc_py_kind kind = esc_py_message_kind(self->system->state, snapshot);
    if (kind == ESC_PY_NONE || kind == ESC_PY_COMMAND) {
        PyErr_Format(PyExc_TypeError, "persist_snapshot takes an es.Message, not %s",
                     Py_TYPE(snapshot)->tp_name);
        return NULL;
    }
    if (self->version == 0) {
        Py_RETURN_NONE; /* there is nothing that it could save from being replayed */
    }
    if (self->core == NULL) {
        Py_XSETREF(self->pending_snapshot,
                   Py_BuildValue("(LO)", (long long)self->version, snapshot));
        return self->pending_snapshot == NULL ? NULL : Py_NewRef(Py_None);
    }
    escqrs_type *type = type_of(self, Py_TYPE(snapshot));
    flight *turn = self->turn;
    turn->commit.snapshot = NULL; /* one that was there before is no more */
    esc_buffer_reset(&turn->snapshot_data);
    if (type == NULL || esc_py_message_pack(snapshot, &turn->snapshot_data) < 0) {
        return NULL;
    }
    turn->snapshot =
        (escqrs_new_snapshot){.stream = self->stream, .version = self->version, .type = type};
    turn->commit.snapshot = &turn->snapshot;
    Py_RETURN_NONE;
}

/* ---- the end of a turn ------------------------------------------------------------------------------ */

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
    PyObject *result = call_now(context, self->system->state->actor.request_snapshot);
    self->snapshotting = false;
    if (result == NULL) {
        esc_py_context_note(context, self->system->state->actor.request_snapshot);
    }
    Py_XDECREF(result);
}

static void seal(flight *self)
{
    esc_py_persist *persist = self->persist;
    const uint8_t *data = self->data.data;
    for (size_t i = 0; i < self->event_count; i++) {
        self->events[i].data.data = data;
        data += self->events[i].data.size;
    }
    escqrs_commit *commit = &self->commit;
    if (self->event_count > 0) {
        self->write = (escqrs_write){.stream = persist->stream,
                                     .expected = persist->version - (int64_t)self->event_count,
                                     .events = self->events,
                                     .event_count = self->event_count};
        commit->writes = &self->write;
        commit->write_count = 1;
    }
    self->snapshot.data = esc_buffer_slice(&self->snapshot_data);
    commit->lane = &persist->lane;
    commit->done = flight_done;
    commit->context = self;
    commit->error = &self->error;
}

/* The asker's thread runs the actor and would wait anyway: it may lead the batch. */
static escqrs_status commit_here(esc_py_persist *self, flight *turn, escqrs_error *error)
{
    turn->waits = true;
    PyThreadState *thread = PyEval_SaveThread();
    (void)escqrs_runtime_block(); /* a commit needs no worker */
    escqrs_status status =
        escqrs_store_commit_or_leave(self->core, &turn->commit, &turn->waits, error);
    escqrs_runtime_unblock();
    PyEval_RestoreThread(thread);
    if (status == ESCQRS_DONE) { /* the asker waits as others do; the turn may be gone */
        return ESCQRS_OK;
    }
    if (turn->finished) { /* the commit is ours again now that the call has returned, not before */
        flight_free(turn);
        return ESCQRS_OK;
    }
    return status;
}

/* Hand the turn to the journal; the actor goes on. */
static void take_off(esc_py_persist *self, const escqrs_envelope *envelope)
{
    flight *turn = self->turn;
    self->turn = NULL;
    if (envelope != NULL) {
        escqrs_envelope_describe(envelope, turn->message, sizeof turn->message);
    }
    turn->awaited = self->early;
    seal(turn);
    (void)atomic_fetch_add_explicit(&self->in_flight, 1, memory_order_relaxed);
    escqrs_error error;
    error.status = ESCQRS_OK;
    error.message[0] = error.subject[0] = '\0';
    bool here = self->system->manual || (envelope != NULL && envelope == asked_now);
    escqrs_status status = here ? commit_here(self, turn, &error)
                                : escqrs_store_submit(self->core, &turn->commit, &error);
    self->landing = self->early && !here && status == ESCQRS_OK;
    if (status != ESCQRS_OK) { /* `done` was not called */
        turn->error = error;
        fail(turn, status);
        landed(self);
        flight_free(turn);
    }
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
    await_flights(self); /* one thread, which has committed, or left it to one that does */
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
    flight *turn = self->turn;
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
        take_off(self, escqrs_context_message(context->core));
    } else {
        deliver(turn);
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
    if ((result = run_now(context, result)) == NULL) {
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
    result = complete == NULL ? NULL : call_now(context, complete);
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
    persistent *actor = (persistent *)context->actor;
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
    self->core = ((esc_py_store *)self->store)->core;
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
        ((persistent *)context->actor)->context == context) {
        Py_CLEAR(((persistent *)context->actor)->context);
    }
    if (self->turn != NULL) {
        turn_close(self);
    }
    await_flights(self);
    persist_release(self);
}

/* ---- the type ------------------------------------------------------------------------------------------ */

/* delete_events(upto=None), delete_snapshots(upto=None): functions of _persist.py. */
static PyObject *delete_from(PyObject *object, PyObject *args, PyObject *kwargs, const char *method,
                             PyObject *function)
{
    static char *names[] = {"upto", NULL};
    PyObject *upto = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &upto)) {
        return NULL;
    }
    esc_py_persist *self = persist_of(object, method);
    return self == NULL
               ? NULL
               : PyObject_CallFunctionObjArgs(function, self->store, self->name, upto, NULL);
}

static PyObject *persistent_delete_snapshots(PyObject *object, PyObject *args, PyObject *kwargs)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    return state == NULL ? NULL
                         : delete_from(object, args, kwargs, "delete_snapshots",
                                       state->actor.delete_snapshots);
}

static PyObject *persistent_delete_events(PyObject *object, PyObject *args, PyObject *kwargs)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    return state == NULL
               ? NULL
               : delete_from(object, args, kwargs, "delete_events", state->actor.delete_events);
}

static PyObject *get_recovering(PyObject *object, void *Py_UNUSED(closure))
{
    persistent *self = (persistent *)object;
    return PyBool_FromLong(self->context != NULL && self->context->persist != NULL &&
                           self->context->persist->recovering);
}

static PyObject *get_version(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_persist *self = persist_of(object, "version");
    return self == NULL ? NULL : PyLong_FromLongLong(self->version);
}

static PyObject *get_name(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_persist *self = persist_of(object, "name");
    return self == NULL ? NULL : Py_NewRef(self->name);
}

/* _at(version): recovery has come so far. */
static PyObject *persistent_at(PyObject *object, PyObject *version)
{
    esc_py_persist *self = persist_of(object, "_at");
    int64_t number = self == NULL ? -1 : PyLong_AsLongLong(version);
    if (number < 0) {
        return NULL;
    }
    self->version = number;
    Py_RETURN_NONE;
}

static int persistent_traverse(PyObject *object, visitproc visit, void *arg)
{
    persistent *self = (persistent *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->context);
    Py_VISIT(self->dict);
    return 0;
}

static int persistent_clear(PyObject *object)
{
    Py_CLEAR(((persistent *)object)->dict);
    return 0;
}

static void persistent_dealloc(PyObject *object)
{
    persistent *self = (persistent *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    Py_CLEAR(self->context);
    Py_CLEAR(self->dict);
    type->tp_free(object);
    Py_DECREF(type);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef persistent_methods[] = {
    {"persist", persistent_persist, METH_O,
     "persist($self, event, /)\n--\n\nStore an event with the message that is being handled: hand "
     "it to receive at once and return it.\n\n"
     "All events of one message are one atomic append, and what the message sends or answers "
     "leaves when they are\ndurable."},
    {"persist_snapshot", persistent_persist_snapshot, METH_O,
     "persist_snapshot($self, state, /)\n--\n\nStore a state, an es.Message, as that of the "
     "present version; mostly in answer to es.RequestSnapshot."},
    {"delete_snapshots", _PyCFunction_CAST(persistent_delete_snapshots), KEYWORDS,
     "delete_snapshots($self, upto=None)\n--\n\nDelete this actor's snapshots up to a version, or "
     "all."},
    {"delete_events", _PyCFunction_CAST(persistent_delete_events), KEYWORDS,
     "delete_events($self, upto=None)\n--\n\nDelete this actor's events up to a version, or all "
     "that "
     "are stored, for which a snapshot stands.\n\n"
     "es.NotCovered where there is none at that version or later."},
    {"_at", persistent_at, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef persistent_getset[] = {
    {"recovering", get_recovering, NULL,
     "Whether what is received comes from the store: do nothing then but change the state.", NULL},
    {"version", get_version, NULL, "How many events the actor has, with those under way.", NULL},
    {"name", get_name, NULL, "The name it was spawned under, which is its stream's.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef persistent_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(persistent, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(persistent, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot persistent_slots[] = {
    {Py_tp_doc, "The part of es.PersistentActor that is written in C."},
    {Py_tp_dealloc, persistent_dealloc},
    {Py_tp_traverse, persistent_traverse},
    {Py_tp_clear, persistent_clear},
    {Py_tp_methods, persistent_methods},
    {Py_tp_getset, persistent_getset},
    {Py_tp_members, persistent_members},
    {0, NULL},
};

static PyType_Spec persistent_spec = {
    .name = "escqrs._core.PersistentActorBase",
    .basicsize = sizeof(persistent),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = persistent_slots,
};

int esc_py_persist_exec(PyObject *module)
{
    esc_py_actor_state *section = &esc_py_state_of(module)->actor;
    section->persistent_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &persistent_spec, NULL);
    return section->persistent_type == NULL ||
                   PyModule_AddType(module, section->persistent_type) < 0
               ? -1
               : 0;
}
