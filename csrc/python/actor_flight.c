/* python/actor_flight.c - a flight: what one message of a persistent actor stores and sends, on its
 * way to the store. See actor_persist_parts.h for who touches what. Locks: none.
 */
#include "python/actor_persist_parts.h"

#include <limits.h>
#include <string.h>

#include "base/thread.h"
#include "python/actor_reply.h"
#include "python/state.h"

static _Thread_local const escqrs_envelope *asked_now; /* what this thread asks, and runs itself */

/* ---- making ---------------------------------------------------------------------------------------- */

esc_py_flight *esc_py_flight_new(esc_py_persist *persist)
{
    esc_py_flight *self = escqrs_alloc(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(self, 0, offsetof(esc_py_flight, error));
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

void esc_py_persist_release(esc_py_persist *self)
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

void esc_py_flight_free(esc_py_flight *self)
{
    esc_py_persist *persist = self->persist;
    escqrs_free(self->events);
    esc_buffer_fini(&self->data);
    esc_buffer_fini(&self->snapshot_data);
    escqrs_ref_release(self->asker);
    escqrs_free(self);
    esc_py_persist_release(persist);
}

void esc_py_flight_deliver(esc_py_flight *self)
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

void esc_py_flight_drop(esc_py_flight *self)
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
static void fail(esc_py_flight *self, escqrs_status status)
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
    esc_py_flight_drop(self);
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
    esc_py_flight *self = commit->context;
    esc_py_persist *persist = self->persist;
    if (commit->status == ESCQRS_OK) {
        esc_py_flight_deliver(self);
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
    esc_py_flight_free(self);
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

void esc_py_flights_await(esc_py_persist *self)
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

/* ---- taking off ------------------------------------------------------------------------------------ */

const void *esc_py_persist_asks_here(const escqrs_envelope *envelope)
{
    const void *before = asked_now;
    asked_now = envelope;
    return before;
}

static void seal(esc_py_flight *self)
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
static escqrs_status commit_here(esc_py_persist *self, esc_py_flight *turn, escqrs_error *error)
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
        esc_py_flight_free(turn);
        return ESCQRS_OK;
    }
    return status;
}

void esc_py_flight_take_off(esc_py_persist *self, const escqrs_envelope *envelope)
{
    esc_py_flight *turn = self->turn;
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
        esc_py_flight_free(turn);
    }
}
