/* escqrs/persistent.h - actors whose state is the events that they have persisted.
 *
 * An actor of actor.h, made with props of escqrs_persistent_props and spawned with a name, under
 * which its events are stored: the name is the stream's, not the path. Its receive gets, beside the
 * messages of others:
 *
 *     Started, Replay, OfferSnapshot (if there is one), the events after it, ReplayComplete
 *                       when it begins, and when it is restarted; messages wait meanwhile
 *     an event          when it persists one, at once; and again in each replay
 *     RequestSnapshot   when its version has passed a multiple of `snapshot_every`
 *
 * For example (examples/cart_actors.c is a program of such actors):
 *
 *     static escqrs_turn_end receive(escqrs_context *context, void *state,
 *                                    escqrs_envelope *message)
 *     {
 *         cart *self = state;
 *         if (message->type == &escqrs_persisted) {
 *             cart_change(self, ((escqrs_persisted_message *)message)->data);
 *         } else if (message->type == &ADD_ITEM) {
 *             if (escqrs_context_persist(context, self->item_added, data, &error) != ESCQRS_OK) {
 *                 return escqrs_context_fail(context, error.status, NULL, "%s", error.message);
 *             }
 *             escqrs_context_respond(context, &answer->envelope);
 *         }
 *         return ESCQRS_TURN_NEXT;
 *     }
 *
 * One message. All that it persists is one atomic commit. All that it sends with
 * escqrs_context_tell, _request, _respond and _forward waits until that is durable, and so does the
 * next message; meanwhile the worker runs other actors. What goes by escqrs_tell,
 * escqrs_context_ask, spawn, watch and timers is not held back. A message that turns out to have no
 * room is a dead letter then.
 *
 * Failures. Where the commit fails (WRONG_VERSION: another writer; FULL, CLOSED, TOO_LARGE ...),
 * nothing of the message is stored and nothing leaves; its asker gets the error; the failure is
 * logged and published; and the actor is restarted from what is stored, whatever its supervisor
 * would say, for its state has seen what is not there. The old instance gets nothing more. While it
 * starts (a ReplayComplete that persists) its supervisor decides, so that it does not try for ever;
 * one that could not be recovered has nothing to go on with: where its supervisor says resume, it
 * stops at its next message. In Restarting, Stopping and Stopped what had begun goes on. A message
 * whose handling fails leaves neither events nor messages behind; a supervisor that says resume
 * gets an actor that is restarted before its next message.
 *
 * An event that cannot be read (CORRUPT) or that receive answers with FAILED (its own status) is a
 * failure of the actor, with stream, version and type in its text. A snapshot that cannot be read,
 * or that receive answers with FAILED, having left the state as it was, is said in the log, and an
 * older one is offered, or all events. RequestSnapshot answered with FAILED is logged and published
 * as a failure, and its message goes on, without a snapshot.
 *
 * Threads: as in actor.h; all functions that take a context are called in the actor.
 */
#ifndef ESCQRS_PERSISTENT_H
#define ESCQRS_PERSISTENT_H

#include <escqrs/actor.h>
#include <escqrs/store.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what receive gets ------------------------------------------------------------------------ */

/* Static or on the stack: never destroyed, copied, kept or stashed. None may be answered with
 * SUSPEND, but for ReplayComplete. Middleware does not see them. The current message stays what it
 * was: the one that persists, or Started. */
extern const escqrs_message_type escqrs_replay;           /* recovery begins */
extern const escqrs_message_type escqrs_offer_snapshot;   /* an escqrs_offer_snapshot_message */
extern const escqrs_message_type escqrs_persisted;        /* an event: escqrs_persisted_message */
extern const escqrs_message_type escqrs_replay_complete;  /* escqrs_context_version says how far */
extern const escqrs_message_type escqrs_request_snapshot; /* escqrs_context_persist_snapshot */

typedef struct escqrs_offer_snapshot_message {
    escqrs_envelope envelope;
    int64_t version;
    escqrs_type *type;
    escqrs_slice data; /* valid during the call */
} escqrs_offer_snapshot_message;

typedef struct escqrs_persisted_message {
    escqrs_envelope envelope;
    int64_t version; /* of this event */
    escqrs_type *type;
    escqrs_slice data;               /* valid during the call */
    const escqrs_recorded *recorded; /* in replay; NULL: it was just persisted */
} escqrs_persisted_message;

/* ---- props ------------------------------------------------------------------------------------ */

typedef struct escqrs_persistence {
    escqrs_store *store;    /* outlives the actors: stop their system first */
    int64_t snapshot_every; /* RequestSnapshot when the version passes a multiple of it; 0: never */
} escqrs_persistence;

/* As escqrs_props_create. INVALID also for props with a host, and where there is no store or
 * `snapshot_every` is negative. To spawn an actor of theirs without a name is INVALID.
 */
ESCQRS_MUST_USE escqrs_status escqrs_persistent_props(const escqrs_props_options *options,
                                                      const escqrs_persistence *persistence,
                                                      escqrs_props **props, escqrs_error *error);

/* ---- inside a persistent actor ---------------------------------------------------------------- */

/* Store an event with the message that is being handled, and hand it to receive at once, as an
 * escqrs_persisted; `data` is copied. INVALID, with nothing done: in no persistent actor; before
 * ReplayComplete; while an event, OfferSnapshot or RequestSnapshot is handled; without a type, or
 * without the data. TOO_LARGE beyond ESCQRS_COMMIT_EVENTS_MAX events or ESCQRS_COMMIT_BYTES_MAX
 * bytes of one message, NO_MEMORY. Where receive answers the event with FAILED it is that failure's
 * status, and the message fails, whatever it answers. */
ESCQRS_MUST_USE escqrs_status escqrs_context_persist(escqrs_context *context, escqrs_type *type,
                                                     escqrs_slice data, escqrs_error *error);
/* Store a state as that of the present version, with the message that is being handled; mostly in
 * answer to RequestSnapshot. Several in one message: the last. At version 0 nothing is stored.
 * Errors as above. One that the store finds too large is said in the log and left out. */
ESCQRS_MUST_USE escqrs_status escqrs_context_persist_snapshot(escqrs_context *context,
                                                              escqrs_type *type, escqrs_slice data,
                                                              escqrs_error *error);
/* Delete this actor's stored events up to a version (0: all that are stored), for which a snapshot
 * stands, else NOT_COVERED; or its snapshots. At once, not with the message. Blocks the worker's
 * thread, others go on. INVALID; as escqrs_store_erase and escqrs_store_delete_snapshots. */
ESCQRS_MUST_USE escqrs_status escqrs_context_delete_events(escqrs_context *context, int64_t upto,
                                                           escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_context_delete_snapshots(escqrs_context *context, int64_t upto,
                                                              escqrs_error *error);
/* Does what is received come from the store? Do nothing then but change the state. False also in
 * other actors. */
bool escqrs_context_is_recovering(escqrs_context *context);
/* How many events it has, with those of the message that is being handled; 0 in other actors. */
int64_t escqrs_context_version(escqrs_context *context);

#ifdef __cplusplus
}
#endif

#endif
