/* escqrs/entity.h - aggregates: entities that decide on commands, and the system they live in.
 *
 * An entity is an actor whose state is the fold of one stream. It is loaded by replay when first
 * used, handles one command at a time, and stores the events of each command in one atomic commit.
 * While the events of one command are on their way to disk it may handle the next; every reply
 * waits until what it rests on is durable. An append that fails takes the state back to what is
 * stored, and fails the commands that were built on it.
 *
 * The author of an aggregate gives functions (escqrs_aggregate_ops); Python's classes are one
 * author, a C program can be another. They run attached to the aggregate's host, if it has one,
 * never under a lock, one at a time for one entity.
 */
#ifndef ESCQRS_ENTITY_H
#define ESCQRS_ENTITY_H

#include <escqrs/base.h>
#include <escqrs/runtime.h>
#include <escqrs/store.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ESCQRS_ENTITY_ID_MAX 1024       /* bytes */
#define ESCQRS_CORRELATION_TEXT_MAX 120 /* bytes */

typedef struct escqrs_system escqrs_system;
typedef struct escqrs_aggregate escqrs_aggregate; /* a definition within a system */
typedef struct escqrs_entity escqrs_entity;
typedef struct escqrs_command escqrs_command;
typedef struct escqrs_turn escqrs_turn; /* one command being handled */

/* ---- system --------------------------------------------------------------------------------- */

typedef struct escqrs_system_options {
    size_t in_flight_max; /* commands accepted and not yet answered; 0: 100,000 */
    size_t live_max;      /* entities kept in memory while idle; 0: 100,000 */
    escqrs_runtime_options runtime;
    bool manual; /* runtime and store are pumped by escqrs_system_step (tests) */
    escqrs_clock clock;
    escqrs_random random;
    escqrs_log log;
} escqrs_system_options;

/* The system uses `store`, does not own it; close the system first. */
ESCQRS_MUST_USE escqrs_status escqrs_system_create(escqrs_store *store,
                                                   const escqrs_system_options *options,
                                                   escqrs_system **system, escqrs_error *error);
/* Refuse new commands (CLOSED), finish those accepted, and what they send, until the deadline; then
 * drop the rest: their `done` says CLOSED. Joins the workers. Call it detached. TIMEOUT names an
 * entity whose handler did not come back: its own command and those behind it are answered when it
 * does; system, runtime and store must stay until a later close answers OK. DEADLOCK from inside a
 * turn. Twice is once. */
ESCQRS_MUST_USE escqrs_status escqrs_system_close(escqrs_system *system, int64_t deadline_ns,
                                                  escqrs_error *error);
/* After a close that answered OK; otherwise it does nothing, and memory is left behind. States are
 * destroyed here: call it attached to the hosts. Handles that are still held are released later as
 * ever; they find the system closed. NULL is fine. */
void escqrs_system_destroy(escqrs_system *system);
escqrs_runtime *escqrs_system_runtime(escqrs_system *system);
escqrs_store *escqrs_system_store(escqrs_system *system);
/* Wait until every command accepted before the call, and every command these sent, is answered. OK,
 * or DONE when the deadline passed first. DEADLOCK from inside a turn. Call detached. It is
 * drain_begin and drain_wait in one. */
ESCQRS_MUST_USE escqrs_status escqrs_system_drain(escqrs_system *system, int64_t deadline_ns,
                                                  escqrs_error *error);
/* The same for who waits in slices: take one ticket, then wait for it as often as needed (DONE: the
 * slice ended, call again with the same ticket). So commands accepted after the ticket was taken
 * are never waited for twice. Neither has anything to release; drain_wait blocks, call it detached.
 */
uint64_t escqrs_system_drain_begin(escqrs_system *system);
ESCQRS_MUST_USE escqrs_status escqrs_system_drain_wait(escqrs_system *system, uint64_t ticket,
                                                       int64_t deadline_ns, escqrs_error *error);
/* Is that over? Never blocks; any thread, attached or not. */
bool escqrs_system_is_drained(escqrs_system *system, uint64_t ticket);
/* Commands accepted and not answered; wait (detached) until they are fewer than in_flight_max. */
size_t escqrs_system_in_flight(escqrs_system *system);
ESCQRS_MUST_USE escqrs_status escqrs_system_wait_room(escqrs_system *system, int64_t deadline_ns);
size_t escqrs_system_live(escqrs_system *system); /* entities with a state in memory */
bool escqrs_system_step(
    escqrs_system *system); /* manual: one message or one batch of commits; false: nothing to do */

/* ---- aggregate ------------------------------------------------------------------------------ */

/* None may be NULL but where that is said. */
typedef struct escqrs_aggregate_ops {
    /* The state before the first event, never NULL. `entity` lives longer than the state. */
    escqrs_status (*create)(void *context, escqrs_entity *entity, void **state,
                            escqrs_error *error);
    void (*destroy)(void *context, void *state);
    /* Decode one stored event, detached from the host (any thread); `*decoded` goes to `apply` or
     * `discard`. */
    escqrs_status (*decode)(void *context, const escqrs_recorded *recorded, void **decoded,
                            escqrs_error *error);
    void (*discard)(void *context, void *decoded); /* attached */
    /* Replay: fold one event into the state; consumes `decoded`. `version` is that of the event. */
    escqrs_status (*apply)(void *context, void *state, const escqrs_recorded *recorded,
                           void *decoded, escqrs_error *error);
    /* Decide. Calls escqrs_turn_* for what it wants done. OK: store the events, then `done`.
     * Anything else (usually REJECTED, the command remembers why): nothing is stored. If it applied
     * events to `state` before failing it says so with escqrs_turn_spoil, and the state is loaded
     * anew. */
    escqrs_status (*handle)(void *context, void *state, escqrs_turn *turn, escqrs_command *command,
                            escqrs_error *error);
    /* The state as bytes in memory from escqrs_alloc, and back; both NULL: there are no snapshots.
     * pack: DONE to take none.
     * unpack into a state fresh from `create`; any error: the snapshot is skipped and said in the
     * log. `type` gives its schema. */
    escqrs_status (*pack)(void *context, void *state, escqrs_type **type, void **data, size_t *size,
                          escqrs_error *error);
    escqrs_status (*unpack)(void *context, void *state, const escqrs_snapshot *snapshot,
                            escqrs_error *error);
    /* Changes when the definition has changed: states of an older generation are loaded anew before
     * the next command. NULL: never. */
    uint64_t (*generation)(void *context);
} escqrs_aggregate_ops;

/* What the core makes of an error of `decode` ("read") or `apply` ("applied"), which give the
 * reason alone: stream, version and type stand before it. For those who fold events themselves.
 * Returns `status`; `error` may be NULL. */
escqrs_status escqrs_replay_explain(const escqrs_recorded *recorded, const char *what,
                                    escqrs_status status, escqrs_error *error);

/* When the state of an entity is put down as a snapshot, beside the commands that ask for one. No
 * command waits for it, and it is answered when it is stored; a snapshot that cannot be taken is
 * said in the log. Zeroed: never. */
typedef struct escqrs_snapshot_policy {
    int64_t every; /* when the version passes a multiple of so many events; 0: not for that */
    /* When the events since the last one take that long to replay, by what loading the entity (or
     * another of the aggregate) took; 0: not for that. */
    int64_t replay_ns;
    int64_t keep; /* the newest ones of a stream; those before them are deleted; 0: all are kept */
    bool on_passivation; /* when a changed state leaves memory, which closing the system does too */
} escqrs_snapshot_policy;

/* `ops` and `context` must outlive the system. `snapshots` may be NULL: none but on demand. `host`:
 * NULL: none. Errors: INVALID (the name, a function that is absent, a negative number of the
 * policy), NAME_CLASH, NO_MEMORY, FORKED. */
ESCQRS_MUST_USE escqrs_status escqrs_aggregate_add(escqrs_system *system, escqrs_slice name,
                                                   const escqrs_aggregate_ops *ops, void *context,
                                                   escqrs_host *host,
                                                   const escqrs_snapshot_policy *snapshots,
                                                   escqrs_aggregate **aggregate,
                                                   escqrs_error *error);
void escqrs_aggregate_set_snapshots(escqrs_aggregate *aggregate,
                                    const escqrs_snapshot_policy *policy); /* or NULL: none */

/* The entity with that id; made if there is none. `id`: 1 to ESCQRS_ENTITY_ID_MAX bytes of UTF-8
 * without NUL. The caller holds a reference: escqrs_entity_release. Nothing is loaded. */
ESCQRS_MUST_USE escqrs_status escqrs_entity_get(escqrs_aggregate *aggregate, escqrs_slice id,
                                                escqrs_entity **entity, escqrs_error *error);
void escqrs_entity_hold(escqrs_entity *entity);
void escqrs_entity_release(escqrs_entity *entity);
escqrs_slice escqrs_entity_stream(
    const escqrs_entity *entity); /* "Cart/cart-1"; lives as long as the entity */
escqrs_slice escqrs_entity_id(const escqrs_entity *entity);
escqrs_aggregate *escqrs_entity_aggregate(const escqrs_entity *entity);
escqrs_actor *escqrs_entity_actor(escqrs_entity *entity);

/* ---- command -------------------------------------------------------------------------------- */

typedef struct escqrs_command_ops {
    /* Called exactly once for a command that was accepted: its events are durable (OK), or it
     * failed (the error is valid during the call). Any thread; attached or not; must not block nor
     * call an interpreter. The command is the owner's again. For a REJECTED the owner knows the
     * reason from `handle`. */
    void (*done)(escqrs_command *command, escqrs_status status, const escqrs_error *error);
    /* Instead of `handle`, for commands with `special` set: attached, with the loaded state; used
     * for reading the state. Its result leaves when what it saw is durable. May be NULL. */
    escqrs_status (*visit)(escqrs_command *command, escqrs_entity *entity, void *state,
                           int64_t version, escqrs_error *error);
    /* The stored reply of a repeated key, detached: `size` bytes that the owner gives to
     * escqrs_free. It stands for whatever `handle` answered: it may come after a handling whose
     * commit found the key in use. NULL: not wanted. */
    void (*repeated)(escqrs_command *command, void *reply, size_t size);
} escqrs_command_ops;

/* Begins the owner's struct. Zero it, set `ops`; the other fields as needed; all memory stays valid
 * until `done`. */
struct escqrs_command {
    escqrs_message message; /* the mailbox's */
    const escqrs_command_ops *ops;
    bool special;  /* call `visit`, if it is there */
    bool snapshot; /* with `special`: store a snapshot of the state; none where there are no events
                      yet, or `pack` has none to give. `done` comes when it is durable */
    const escqrs_pair *metadata; /* of its events */
    size_t metadata_count;
    escqrs_slice key;           /* empty: none */
    escqrs_uuid id;             /* nil: made when needed; becomes the causation id of its events */
    escqrs_uuid correlation_id; /* nil: a new one (its id), or inherited from the command whose
                                   handler sent it */
    uint8_t correlation_size;   /* bytes of correlation_text; not 0: it stands for correlation_id */
    char correlation_text[ESCQRS_CORRELATION_TEXT_MAX]; /* a text that is no UUID */
    /* the system's */
    escqrs_entity *entity;
    escqrs_command *sent_next;
    uint8_t epoch;
    bool withheld; /* the handler that sent it failed, so it never left: `done` says ABORTED */
    /* result, in `done` where that says OK: of its last event, or of the last event that there was
     * where it stored none; whoever has seen that has seen all that it did */
    int64_t position;
};

/* Accept a command and return at once. Never blocks: MAILBOX_FULL above in_flight_max (not for
 * commands sent from inside a turn). From inside a turn use escqrs_turn_send. On an error `done` is
 * not called. */
ESCQRS_MUST_USE escqrs_status escqrs_entity_send(escqrs_entity *entity, escqrs_command *command,
                                                 escqrs_error *error);
/* Accept it and, where the entity is idle, handle it on this thread, which is attached to the
 * aggregate's host; otherwise it is queued. Returns when `done` was called or when the command had
 * to be queued or its commit is led by another thread: the owner then waits for `done` by its own
 * means (detached, and inside escqrs_runtime_block). Inside a turn, the wait edge and the order
 * (commits of the sender's earlier commands are durable first) are taken care of until this
 * returns; for the wait after it, call escqrs_actor_wait_begin. DEADLOCK, MAILBOX_FULL, CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_entity_ask(escqrs_entity *entity, escqrs_command *command,
                                                escqrs_error *error);

/* ---- turn: what a handler may do; on its thread, during `handle` ---------------------------- */

escqrs_turn *escqrs_turn_current(void); /* of this thread, or NULL */
escqrs_entity *escqrs_turn_entity(escqrs_turn *turn);
escqrs_command *escqrs_turn_command(escqrs_turn *turn);
/* Version of the entity's stream with the events emitted so far. */
int64_t escqrs_turn_version(const escqrs_turn *turn);
int64_t escqrs_entity_version(
    const escqrs_entity *entity); /* of the loaded state, by the thread that runs it */
/* Add an event; the data is copied. INVALID without a type, or without the data; TOO_LARGE beyond
 * ESCQRS_COMMIT_EVENTS_MAX events or ESCQRS_COMMIT_BYTES_MAX bytes; NO_MEMORY. Then the command
 * fails with that, whatever `handle` answers. One that the store finds too large is TOO_LARGE when
 * it is committed. */
ESCQRS_MUST_USE escqrs_status escqrs_turn_emit(escqrs_turn *turn, escqrs_type *type,
                                               escqrs_slice data, escqrs_error *error);
/* Send a command once the events are durable; if the turn fails it is dropped: `done` says ABORTED.
 */
ESCQRS_MUST_USE escqrs_status escqrs_turn_send(escqrs_turn *turn, escqrs_entity *entity,
                                               escqrs_command *command, escqrs_error *error);
/* The reply as bytes, stored with the command's key; copied. */
ESCQRS_MUST_USE escqrs_status escqrs_turn_reply(escqrs_turn *turn, escqrs_slice reply,
                                                escqrs_error *error);
void escqrs_turn_spoil(escqrs_turn *turn);

#ifdef __cplusplus
}
#endif

#endif
