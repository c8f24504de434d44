/* python/actor_persist_parts.h - what the files of persistent actors share; see actor_persist.h.
 *
 * Who touches what. The turn belongs to the thread that handles the message, with the GIL. A flight
 * belongs to the journal from submit to `done`, which comes on any thread without the GIL. Between
 * them stand `in_flight` (a futex word), `stale`, and `failure`, which is written by the first
 * `done` that fails before it sets `stale`. Locks: none.
 */
#ifndef ESC_PYTHON_ACTOR_PERSIST_PARTS_H
#define ESC_PYTHON_ACTOR_PERSIST_PARTS_H

#include "python/actor_persist.h"

#include "base/buffer.h"

/* One message's way to the store. */
typedef struct esc_py_flight {
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
} esc_py_flight;

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
    bool recovered;      /* to its end, ReplayComplete, or at that */
    bool applying;       /* an event that was just persisted is being handled */
    bool snapshotting;   /* RequestSnapshot is being handled */
    bool broken;         /* an event was not taken: the message has failed, whatever it does */
    esc_py_flight *turn; /* what the open turn has collected; or NULL */
    PyObject *pending;   /* list of the turn's events, for a provider in Python */
    PyObject *pending_snapshot;

    _Atomic(uint32_t) in_flight;
    _Atomic(bool) stale;
    _Atomic(bool) failed; /* `failure` is being, or was, written */
    escqrs_error failure;
};

/* The instance's side, es.PersistentActor's base. */
typedef struct esc_py_persistent {
    PyObject_HEAD
    esc_py_context *context; /* strong; NULL before its actor has begun, and after */
    PyObject *dict;
    PyObject *weakrefs;
} esc_py_persistent;

/* ---- actor_flight.c ------------------------------------------------------------------------------- */

/* NULL with MemoryError. */
esc_py_flight *esc_py_flight_new(esc_py_persist *persist);
void esc_py_flight_free(esc_py_flight *self);
/* Send what was held back. Any thread, with or without the GIL. */
void esc_py_flight_deliver(esc_py_flight *self);
/* What was held back never leaves. */
void esc_py_flight_drop(esc_py_flight *self);
/* Hand the turn to the journal; the actor goes on. */
void esc_py_flight_take_off(esc_py_persist *self, const escqrs_envelope *envelope);
/* Wait, without the GIL, until all have landed. */
void esc_py_flights_await(esc_py_persist *self);
void esc_py_persist_release(esc_py_persist *self);

/* ---- actor_persist.c ------------------------------------------------------------------------------ */

/* What an async receive returned is run to its end, which must not wait; steals. */
PyObject *esc_py_persist_run_now(esc_py_context *context, PyObject *result);
/* Give the receiver a message, likewise. New reference or NULL. */
PyObject *esc_py_persist_call(esc_py_context *context, PyObject *message);

#endif
