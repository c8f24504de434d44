/* Persistent actors in C: see escqrs/persistent.h.
 *
 * A guard (runtime/cell.h) stands around all that the actor handles, so that behaviours, middleware
 * and continuations need to know nothing of it. A *turn* is one message from `before` to `after`,
 * with the suspensions in between. What it persists and sends is collected in its *flight*, which
 * is made when first needed. At the end of the turn the flight becomes one commit, and the actor is
 * suspended until `stored` has resumed it; then what was held back leaves. A turn that stores
 * nothing sends at its end.
 *
 * `stale`: the instance has seen events that are not stored. It handles nothing more, and is
 * restarted before the next message.
 *
 * Who touches what: all belongs to the actor's thread, but the flight's commit, which is the
 * journal's from submit until `landed`. Locks: none.
 */
#include <escqrs/entity.h>
#include <escqrs/persistent.h>

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/vector.h"
#include "runtime/cell.h"

const escqrs_message_type escqrs_replay = {.name = "Replay"};
const escqrs_message_type escqrs_offer_snapshot = {.name = "OfferSnapshot"};
const escqrs_message_type escqrs_persisted = {.name = "Persisted"};
const escqrs_message_type escqrs_replay_complete = {.name = "ReplayComplete"};
const escqrs_message_type escqrs_request_snapshot = {.name = "RequestSnapshot"};

/* Never written: they have no sender and are in no mailbox. */
static escqrs_envelope replay_message = {.type = &escqrs_replay};
static escqrs_envelope replay_complete_message = {.type = &escqrs_replay_complete};
static escqrs_envelope request_snapshot_message = {.type = &escqrs_request_snapshot};

/* A message that waits until what it rests on is durable. */
typedef struct held {
    struct held *next;
    escqrs_ref *to; /* held */
    escqrs_envelope *envelope;
    escqrs_ref *sender; /* held, or NULL */
} held;

/* What one message persists and sends. */
typedef struct flight {
    esc_vector events; /* escqrs_new_event, whose addresses of data are set at the end */
    esc_buffer data;
    escqrs_new_snapshot snapshot;
    esc_buffer snapshot_data;
    bool has_snapshot;
    held *outbox;
    held **outbox_end;

    escqrs_commit commit;
    escqrs_write write;
    escqrs_error error;
    escqrs_ref *actor; /* held while the journal has the commit */
    _Atomic(bool) landed;
} flight;

typedef enum phase {
    PHASE_FREE = 0,       /* no message is being handled */
    PHASE_OPEN = 1,       /* one is */
    PHASE_COMMITTING = 2, /* one was, and its commit is under way */
} phase;

/* What receive is in, besides a message: nothing may be persisted then. */
typedef enum within {
    WITHIN_MESSAGE = 0,
    WITHIN_EVENT = 1,
    WITHIN_SNAPSHOT = 2,
} within;

typedef struct persistent {
    const escqrs_persistence *persistence; /* the props' */
    int64_t version;                       /* with what is under way */
    int64_t version_before;                /* at the beginning of the turn */
    phase phase;
    within within;
    bool starting; /* Started was handled, or is; recovery is to come */
    bool recovering;
    bool recovered; /* to its end, ReplayComplete, or at that */
    bool applied;   /* the turn has persisted something */
    bool broken;    /* receive has refused an event of the turn */
    bool stale;
    bool worked; /* the instance has begun a message; before, a commit that fails is its start's */
    escqrs_ref *asker; /* of the message of the turn: a future, held; or NULL */
    flight *flight;    /* the turn's, or NULL */
    escqrs_slice stream;
    char name[]; /* of the stream, with its NUL */
} persistent;

static persistent *persistent_of(const esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    return cell->props->guard == NULL || extra == NULL ? NULL : extra->guarded;
}

/* ---- flights ---------------------------------------------------------------------------------- */

/* The turn's; NULL: out of memory. */
static flight *flight_of(persistent *self)
{
    if (self->flight == NULL) {
        flight *made = escqrs_alloc(sizeof *made);
        if (made == NULL) {
            return NULL;
        }
        memset(made, 0, offsetof(flight, error));
        esc_error_init(&made->error);
        esc_vector_init(&made->events, sizeof(escqrs_new_event));
        made->outbox_end = &made->outbox;
        made->actor = NULL;
        atomic_init(&made->landed, false);
        self->flight = made;
    }
    return self->flight;
}

static void held_free(held *one)
{
    escqrs_ref_release(one->to);
    escqrs_ref_release(one->sender);
    escqrs_free(one);
}

/* What was held back never leaves. */
static void drop_outbox(flight *self)
{
    held *next;
    for (held *one = self->outbox; one != NULL; one = next) {
        next = one->next;
        escqrs_envelope_destroy(one->envelope);
        held_free(one);
    }
    self->outbox = NULL;
    self->outbox_end = &self->outbox;
}

static void send_held(const persistent *self, esc_cell *cell, const held *one)
{
    if (escqrs_tell_now(one->to, one->envelope, one->sender) != ESCQRS_MAILBOX_FULL) {
        return;
    }
    char path[ESC_PATH_SIZE];
    escqrs_ref_path(one->to, path, sizeof path);
    escqrs_log_write(&cell->system->log, ESCQRS_LOG_ERROR,
                     "%s: its mailbox is full; a message of the persistent actor %s, held back "
                     "until its events were durable, is a dead letter",
                     path, self->name);
    escqrs_untold_publish(one->to, one->envelope);
}

static void send_outbox(persistent *self, esc_cell *cell)
{
    held *next;
    for (held *one = self->flight->outbox; one != NULL; one = next) {
        next = one->next;
        send_held(self, cell, one);
        held_free(one);
    }
    self->flight->outbox = NULL;
    self->flight->outbox_end = &self->flight->outbox;
}

static void flight_drop(persistent *self)
{
    flight *gone = self->flight;
    if (gone == NULL) {
        return;
    }
    self->flight = NULL;
    drop_outbox(gone);
    esc_vector_fini(&gone->events);
    esc_buffer_fini(&gone->data);
    esc_buffer_fini(&gone->snapshot_data);
    escqrs_free(gone);
}

/* ---- turns ------------------------------------------------------------------------------------ */

static void turn_open(persistent *self, escqrs_ref *sender)
{
    self->phase = PHASE_OPEN;
    self->applied = self->broken = false;
    self->version_before = self->version;
    if (sender != NULL && escqrs_ref_kind_of(sender) == ESCQRS_REF_FUTURE) {
        escqrs_ref_hold(sender);
        self->asker = sender;
    }
}

static void turn_close(persistent *self)
{
    self->phase = PHASE_FREE;
    flight_drop(self);
    escqrs_ref *asker = self->asker;
    self->asker = NULL;
    escqrs_ref_release(asker);
}

/* What the failure of the present callback says. */
static escqrs_status failure_said(const esc_cell *cell, escqrs_error *error)
{
    const esc_extra *extra = esc_cell_has(cell);
    const escqrs_failure *said = extra->failure == NULL ? NULL : &extra->failure->failure;
    return escqrs_error_set(error, said == NULL ? ESCQRS_REJECTED : said->status, "%s",
                            said == NULL ? "it failed" : said->text);
}

/* The failure that has been said, also to an asker whose message is not here any more. */
static void tell_asker(esc_cell *cell, const persistent *self)
{
    esc_extra *extra = esc_cell_has(cell);
    if (self->asker != NULL && extra->failure != NULL) {
        esc_future_fail((escqrs_future *)self->asker, &extra->failure->failure);
    }
}

/* What the message has failed with stands in the cell, if it was said. */
static escqrs_turn_end turn_failed(esc_cell *cell, persistent *self)
{
    self->stale = self->stale || self->applied;
    self->recovered = self->recovered && cell->step != ESC_STEP_STARTED;
    tell_asker(cell, self);
    turn_close(self);
    return ESCQRS_TURN_FAILED;
}

/* The store has refused. Not by way of the supervisor: the instance is not to be gone on with. */
static escqrs_turn_end commit_failed(esc_cell *cell, persistent *self, escqrs_status status,
                                     const escqrs_error *error)
{
    escqrs_context *context = esc_cell_context(cell);
    escqrs_context_fail(context, status, NULL, "%s: its events could not be stored: %s", self->name,
                        error->message[0] == '\0' ? escqrs_status_name(status) : error->message);
    self->stale = true;
    /* it starts, which would fail again for ever if nobody counted it, or ends anyway */
    if (cell->step != ESC_STEP_NONE || !self->worked) {
        self->recovered = self->recovered && self->worked;
        return turn_failed(cell, self);
    }
    if (escqrs_context_restart(context, false, NULL) != ESCQRS_OK) {
        return turn_failed(cell, self);
    }
    escqrs_error said = {0};
    (void)failure_said(cell, &said);                                 /* in the error */
    esc_failure_note(cell, cell->current, ESCQRS_DIRECTIVE_RESTART); /* before its asker goes on */
    if (self->asker != NULL) {
        escqrs_failure failure = {.status = said.status,
                                  .text = said.message,
                                  .path = self->name,
                                  .message = "",
                                  .who = esc_cell_ref(cell)};
        esc_future_fail((escqrs_future *)self->asker, &failure);
    }
    turn_close(self);
    return ESCQRS_TURN_NEXT;
}

/* ---- commits ---------------------------------------------------------------------------------- */

/* Any thread: the commit is durable, or has failed. */
static void stored(escqrs_commit *commit)
{
    flight *self = commit->context;
    escqrs_ref *actor = self->actor;
    /* release: pairs with the acquire in guard_resume, after which the flight may be gone */
    atomic_store_explicit(&self->landed, true, memory_order_release);
    escqrs_ref_resume(actor);
    escqrs_ref_release(actor);
}

static void seal(persistent *self)
{
    flight *given = self->flight;
    const uint8_t *data = given->data.data;
    escqrs_new_event *events = given->events.items;
    for (size_t i = 0; i < given->events.count; i++) {
        events[i].data.data = data;
        data += events[i].data.size;
    }
    given->commit = (escqrs_commit){.done = stored, .context = given, .error = &given->error};
    if (given->events.count > 0) {
        given->write = (escqrs_write){.stream = self->stream,
                                      .expected = self->version - (int64_t)given->events.count,
                                      .events = events,
                                      .event_count = given->events.count};
        given->commit.writes = &given->write;
        given->commit.write_count = 1;
    }
    if (given->has_snapshot) {
        given->snapshot.data = esc_buffer_slice(&given->snapshot_data);
        given->commit.snapshot = &given->snapshot;
    }
}

/* A manual system has one thread, which commits itself. */
static escqrs_status commit_here(const persistent *self, escqrs_error *error)
{
    self->flight->commit.done = NULL;
    return escqrs_store_commit(self->persistence->store, &self->flight->commit, error);
}

static escqrs_status submit(esc_cell *cell, persistent *self, escqrs_error *error)
{
    flight *given = self->flight;
    given->actor = esc_cell_ref(cell);
    escqrs_ref_hold(given->actor);
    self->phase = PHASE_COMMITTING; /* `stored` may come before submit has returned */
    escqrs_status status = escqrs_store_submit(self->persistence->store, &given->commit, error);
    if (status != ESCQRS_OK) {
        self->phase = PHASE_OPEN;
        escqrs_ref_release(given->actor);
    }
    return status;
}

/* Without the snapshot, which is an aid only. */
static bool leave_snapshot_out(esc_cell *cell, persistent *self, escqrs_status status)
{
    if (status != ESCQRS_TOO_LARGE || !self->flight->has_snapshot) {
        return false;
    }
    escqrs_log_write(&cell->system->log, ESCQRS_LOG_WARNING,
                     "%s: the snapshot at version %" PRId64 " is too large, and is left out",
                     self->name, self->flight->snapshot.version);
    self->flight->has_snapshot = false;
    return true;
}

/* The message was handled: store what it has persisted, then send. */
static escqrs_turn_end commit(esc_cell *cell, persistent *self)
{
    while (self->flight != NULL && (self->flight->events.count > 0 || self->flight->has_snapshot)) {
        escqrs_error error;
        esc_error_init(&error);
        seal(self);
        bool here = cell->system->manual;
        escqrs_status status = here ? commit_here(self, &error) : submit(cell, self, &error);
        if (status == ESCQRS_OK && !here) {
            return ESCQRS_TURN_SUSPEND;
        }
        if (status == ESCQRS_OK) {
            break;
        }
        if (!leave_snapshot_out(cell, self, status)) {
            return commit_failed(cell, self, status, &error);
        }
    }
    if (self->flight != NULL) {
        send_outbox(self, cell);
    }
    turn_close(self);
    return ESCQRS_TURN_NEXT;
}

/* ---- what receive is given -------------------------------------------------------------------- */

static escqrs_turn_end give(esc_cell *cell, escqrs_envelope *message)
{
    escqrs_turn_end turn = esc_cell_behave(cell, message);
    if (turn == ESCQRS_TURN_SUSPEND && message->type != &escqrs_replay_complete) {
        return escqrs_context_fail(esc_cell_context(cell), ESCQRS_INVALID, NULL,
                                   "%s cannot be answered with SUSPEND", message->type->name);
    }
    return turn;
}

static escqrs_turn_end give_within(esc_cell *cell, persistent *self, escqrs_envelope *message,
                                   within what)
{
    within before = self->within;
    self->within = what;
    escqrs_turn_end turn = give(cell, message);
    self->within = before;
    return turn;
}

static void request_snapshot(esc_cell *cell, persistent *self)
{
    int64_t every = self->persistence->snapshot_every;
    if (!self->applied || every <= 0 || self->version_before / every == self->version / every) {
        return;
    }
    if (give_within(cell, self, &request_snapshot_message, WITHIN_SNAPSHOT) == ESCQRS_TURN_FAILED) {
        esc_failure_note(cell, &request_snapshot_message, ESCQRS_DIRECTIVE_RESUME);
        if (self->flight != NULL) {
            self->flight->has_snapshot = false;
        }
    }
}

/* ---- recovery --------------------------------------------------------------------------------- */

/* OK: receive has taken it; DONE: it was passed over. */
static escqrs_status offer(esc_cell *cell, persistent *self, const escqrs_snapshot *snapshot)
{
    escqrs_offer_snapshot_message message = {.envelope = {.type = &escqrs_offer_snapshot},
                                             .version = snapshot->version,
                                             .type = snapshot->type,
                                             .data = {snapshot->data, snapshot->size}};
    self->version = snapshot->version;
    if (give_within(cell, self, &message.envelope, WITHIN_SNAPSHOT) == ESCQRS_TURN_NEXT) {
        return ESCQRS_OK;
    }
    escqrs_error error = {0};
    (void)failure_said(cell, &error); /* in the error */
    esc_failure_forget(cell);
    escqrs_log_write(&cell->system->log, ESCQRS_LOG_WARNING,
                     "%s: the snapshot at version %" PRId64 " is not used: %s", self->name,
                     snapshot->version, error.message);
    self->version = 0;
    return ESCQRS_DONE;
}

/* The newest snapshot that receive takes; DONE: none. */
static escqrs_status replay_snapshot(esc_cell *cell, persistent *self, escqrs_error *error)
{
    escqrs_status status = ESCQRS_DONE;
    for (int64_t upto = 0; upto >= 0;) {
        escqrs_snapshot snapshot = {0};
        status =
            escqrs_store_snapshot(self->persistence->store, self->stream, upto, &snapshot, error);
        if (status != ESCQRS_OK) {
            break;
        }
        status = offer(cell, self, &snapshot);
        upto = status == ESCQRS_OK || snapshot.version == 1 ? -1 : snapshot.version - 1;
        escqrs_free(snapshot.data);
    }
    return status;
}

static escqrs_status replay_event(esc_cell *cell, persistent *self, const escqrs_recorded *recorded,
                                  escqrs_error *error)
{
    escqrs_persisted_message message = {.envelope = {.type = &escqrs_persisted},
                                        .version = recorded->version,
                                        .type = recorded->type,
                                        .data = recorded->data,
                                        .recorded = recorded};
    self->version = recorded->version;
    if (give_within(cell, self, &message.envelope, WITHIN_EVENT) == ESCQRS_TURN_NEXT) {
        return ESCQRS_OK;
    }
    return escqrs_replay_explain(recorded, "applied", failure_said(cell, error), error);
}

static escqrs_status replay_events(esc_cell *cell, persistent *self, escqrs_error *error)
{
    escqrs_cursor *cursor = NULL;
    escqrs_range range = {.after = self->version};
    escqrs_status status =
        escqrs_store_history(self->persistence->store, self->stream, &range, &cursor, error);
    while (status == ESCQRS_OK) {
        const escqrs_recorded *recorded;
        status = escqrs_cursor_next(cursor, &recorded, error);
        if (status == ESCQRS_OK) {
            status = replay_event(cell, self, recorded, error);
        }
    }
    escqrs_cursor_close(cursor);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status replay(esc_cell *cell, persistent *self, escqrs_error *error)
{
    int64_t version = 0; /* of a new one it is known from memory */
    escqrs_status status =
        escqrs_store_version(self->persistence->store, self->stream, &version, error);
    if (status != ESCQRS_OK || version == 0) {
        return status;
    }
    status = replay_snapshot(cell, self, error);
    return status == ESCQRS_OK || status == ESCQRS_DONE ? replay_events(cell, self, error) : status;
}

static escqrs_turn_end recover(esc_cell *cell, persistent *self)
{
    self->starting = false;
    self->recovering = true;
    self->version = 0;
    escqrs_turn_end turn = give(cell, &replay_message);
    if (turn == ESCQRS_TURN_NEXT) {
        escqrs_error error = {0};
        escqrs_status status = replay(cell, self, &error);
        if (status != ESCQRS_OK) {
            turn = escqrs_context_fail(esc_cell_context(cell), status, NULL, "%s", error.message);
        }
    }
    self->recovering = false;
    if (turn != ESCQRS_TURN_NEXT) {
        return turn;
    }
    self->recovered = true;
    self->version_before = self->version;
    return give(cell, &replay_complete_message);
}

/* ---- the guard -------------------------------------------------------------------------------- */

/* It has got Started: its side with the store is made. */
static escqrs_turn_end begin(esc_cell *cell)
{
    escqrs_context *context = esc_cell_context(cell);
    char name[ESC_NAME_MAX + 1];
    size_t size = escqrs_ref_name(esc_cell_ref(cell), name, sizeof name);
    esc_extra *extra = esc_cell_extra(cell);
    persistent *self = extra == NULL ? NULL : escqrs_alloc_zero(sizeof *self + size + 1);
    if (self == NULL) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL,
                                   "out of memory for a persistent actor");
    }
    self->persistence = cell->props->guard_data;
    memcpy(self->name, name, size + 1);
    self->stream = (escqrs_slice){self->name, size};
    self->starting = true;
    extra->guarded = self;
    return ESCQRS_TURN_NEXT;
}

static bool ends(const escqrs_envelope *message)
{
    return message != NULL &&
           (message->type == &escqrs_restarting || message->type == &escqrs_stopping ||
            message->type == &escqrs_stopped);
}

/* No continuation, and nothing that the start itself may bring about. */
static bool is_of_mailbox(const escqrs_envelope *message)
{
    return message != NULL && message->type != &escqrs_started && !ends(message) &&
           message->type != &escqrs_terminated && message->type != &escqrs_receive_timeout;
}

/* Its instance is not to handle anything any more. */
static void instead_of_stale(esc_cell *cell, const escqrs_envelope *message, escqrs_turn_end *turn)
{
    escqrs_error error = {0};
    *turn = ESCQRS_TURN_NEXT;
    if (!ends(message) &&
        escqrs_context_restart(esc_cell_context(cell), message != NULL, &error) != ESCQRS_OK) {
        *turn =
            escqrs_context_fail(esc_cell_context(cell), error.status, NULL, "%s", error.message);
    }
}

/* A supervisor said resume to one that could not be recovered, which has nothing to go on with: it
 * stops, and what it was sent are dead letters. */
static void instead_of_unrecovered(esc_cell *cell, const escqrs_envelope *message,
                                   escqrs_turn_end *turn)
{
    instead_of_stale(cell, message, turn);
    escqrs_stop(esc_cell_ref(cell)); /* goes before a restart */
}

static bool guard_before(esc_cell *cell, const escqrs_envelope *message, escqrs_turn_end *turn)
{
    bool starts = message != NULL && message->type == &escqrs_started;
    if (starts && persistent_of(cell) == NULL) {
        *turn = begin(cell);
        if (*turn != ESCQRS_TURN_NEXT) {
            return false;
        }
    }
    persistent *self = persistent_of(cell);
    if (!starts && !ends(message) && (self == NULL || !self->recovered)) {
        instead_of_unrecovered(cell, message, turn);
        return false;
    }
    if (self == NULL) { /* its beginning has failed: it ends, and has nothing to lose */
        return true;
    }
    if (self->stale) {
        instead_of_stale(cell, message, turn);
        return false;
    }
    self->worked = self->worked || is_of_mailbox(message);
    turn_open(self, escqrs_context_sender(esc_cell_context(cell)));
    return true;
}

static escqrs_turn_end guard_after(esc_cell *cell, escqrs_turn_end turn)
{
    persistent *self = persistent_of(cell);
    if (self == NULL || turn == ESCQRS_TURN_SUSPEND) {
        return turn;
    }
    if (turn == ESCQRS_TURN_NEXT && self->starting) {
        turn = recover(cell, self);
    }
    if (turn == ESCQRS_TURN_SUSPEND) {
        return turn;
    }
    if (turn == ESCQRS_TURN_NEXT && self->broken) {
        esc_extra *extra = esc_cell_has(cell);
        turn = extra->failure != NULL
                   ? ESCQRS_TURN_FAILED
                   : escqrs_context_fail(esc_cell_context(cell), ESCQRS_REJECTED, NULL,
                                         "the message went on though its event was refused");
    }
    if (turn == ESCQRS_TURN_FAILED) {
        return turn_failed(cell, self);
    }
    request_snapshot(cell, self);
    return commit(cell, self);
}

static bool guard_resume(esc_cell *cell, escqrs_turn_end *turn)
{
    persistent *self = persistent_of(cell);
    if (self == NULL || self->phase != PHASE_COMMITTING) {
        return false;
    }
    flight *given = self->flight;
    /* acquire: pairs with the release in stored */
    if (!atomic_load_explicit(&given->landed, memory_order_acquire)) {
        *turn = ESCQRS_TURN_SUSPEND; /* a resume of somebody else */
        return true;
    }
    self->phase = PHASE_OPEN;
    if (given->commit.status != ESCQRS_OK) {
        *turn = commit_failed(cell, self, given->commit.status, &given->error);
        return true;
    }
    send_outbox(self, cell);
    turn_close(self);
    *turn = ESCQRS_TURN_NEXT;
    return true;
}

static escqrs_status guard_send(esc_cell *cell, escqrs_ref *to, escqrs_envelope *envelope,
                                escqrs_ref *sender)
{
    persistent *self = persistent_of(cell);
    if (self == NULL || self->phase != PHASE_OPEN) {
        return escqrs_tell(to, envelope, sender);
    }
    flight *given = flight_of(self);
    held *one = given == NULL ? NULL : escqrs_alloc(sizeof *one);
    if (one == NULL) {
        if (sender != NULL) {
            escqrs_ref_hold(sender);
            escqrs_ref_release(envelope->sender);
            envelope->sender = sender;
        }
        esc_question_refuse(envelope, ESCQRS_NO_MEMORY, to, "has no memory");
        escqrs_envelope_destroy(envelope);
        return ESCQRS_NO_MEMORY;
    }
    *one = (held){.to = to, .envelope = envelope, .sender = sender};
    escqrs_ref_hold(to);
    if (sender != NULL) {
        escqrs_ref_hold(sender);
    }
    *given->outbox_end = one;
    given->outbox_end = &one->next;
    return ESCQRS_OK;
}

static void guard_end(esc_cell *cell)
{
    persistent *self = persistent_of(cell);
    if (self == NULL) {
        return;
    }
    esc_cell_has(cell)->guarded = NULL;
    turn_close(self);
    escqrs_free(self);
}

static const esc_guard persistent_guard = {.unnamed = "a persistent actor is spawned with a name, "
                                                      "under which its events are stored",
                                           .before = guard_before,
                                           .after = guard_after,
                                           .resume = guard_resume,
                                           .send = guard_send,
                                           .end = guard_end};

escqrs_status escqrs_persistent_props(const escqrs_props_options *options,
                                      const escqrs_persistence *persistence, escqrs_props **props,
                                      escqrs_error *error)
{
    if (persistence->store == NULL || persistence->snapshot_every < 0) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                persistence->store == NULL
                                    ? "a persistent actor needs a store"
                                    : "an interval of snapshots cannot be negative");
    }
    if (options->host != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a persistent actor has no host");
    }
    escqrs_persistence *copy = escqrs_alloc(sizeof *copy);
    if (copy == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making props");
    }
    *copy = *persistence;
    escqrs_status status = escqrs_props_create(options, props, error);
    if (status != ESCQRS_OK) {
        escqrs_free(copy);
        return status;
    }
    (*props)->guard = &persistent_guard;
    (*props)->guard_data = copy;
    (*props)->wraps_sends = true;
    return ESCQRS_OK;
}

/* ---- inside ----------------------------------------------------------------------------------- */

/* NULL: it is none, and the error says so (INVALID). */
static persistent *own(escqrs_context *context, escqrs_error *error)
{
    persistent *self = persistent_of(esc_context_cell(context));
    if (self == NULL) {
        escqrs_error_set(error, ESCQRS_INVALID,
                         "this is no persistent actor, or one that has not begun: see "
                         "escqrs_persistent_props");
    }
    return self;
}

/* May it persist here? */
static escqrs_status check_writing(const persistent *self, escqrs_error *error)
{
    if (!self->recovered) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s persists before it was recovered from what is stored: do it "
                                "when ReplayComplete comes",
                                self->name);
    }
    if (self->phase != PHASE_OPEN) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s persists outside of a message",
                                self->name);
    }
    if (self->within == WITHIN_EVENT) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s persists while it handles an event, which a replay gives it "
                                "again: persist where the command is handled",
                                self->name);
    }
    return ESCQRS_OK;
}

static escqrs_status add_event(persistent *self, escqrs_type *type, escqrs_slice data,
                               escqrs_error *error)
{
    flight *given = flight_of(self);
    if (given == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory persisting");
    }
    if (given->events.count >= ESCQRS_COMMIT_EVENTS_MAX ||
        data.size > (size_t)ESCQRS_COMMIT_BYTES_MAX - given->data.size) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "one message persists at most %d events of %lld bytes",
                                ESCQRS_COMMIT_EVENTS_MAX, ESCQRS_COMMIT_BYTES_MAX);
    }
    escqrs_new_event event = {.type = type, .data = {NULL, data.size}};
    if (esc_buffer_reserve(&given->data, data.size) != ESCQRS_OK ||
        esc_vector_push(&given->events, &event) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory persisting");
    }
    return esc_buffer_append_slice(&given->data, data); /* there is room */
}

escqrs_status escqrs_context_persist(escqrs_context *context, escqrs_type *type, escqrs_slice data,
                                     escqrs_error *error)
{
    persistent *self = own(context, error);
    if (self == NULL) {
        return ESCQRS_INVALID;
    }
    escqrs_status status = check_writing(self, error);
    if (status == ESCQRS_OK && self->within == WITHIN_SNAPSHOT) {
        status =
            escqrs_error_set(error, ESCQRS_INVALID,
                             "%s persists an event while it handles RequestSnapshot", self->name);
    }
    if (status == ESCQRS_OK && (type == NULL || (data.data == NULL && data.size > 0))) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "an event needs a type and data");
    }
    if (status == ESCQRS_OK) {
        status = add_event(self, type, data, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    self->version++;
    self->applied = true;
    escqrs_persisted_message message = {.envelope = {.type = &escqrs_persisted},
                                        .version = self->version,
                                        .type = type,
                                        .data = data};
    esc_cell *cell = esc_context_cell(context);
    if (give_within(cell, self, &message.envelope, WITHIN_EVENT) != ESCQRS_TURN_NEXT) {
        self->broken = true;
        return failure_said(cell, error);
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_context_persist_snapshot(escqrs_context *context, escqrs_type *type,
                                              escqrs_slice data, escqrs_error *error)
{
    persistent *self = own(context, error);
    if (self == NULL) {
        return ESCQRS_INVALID;
    }
    escqrs_status status = check_writing(self, error);
    if (status == ESCQRS_OK && (type == NULL || (data.data == NULL && data.size > 0))) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "a snapshot needs a type and data");
    }
    if (status != ESCQRS_OK || self->version == 0) {
        return status;
    }
    flight *given = flight_of(self);
    if (given != NULL) {
        esc_buffer_reset(&given->snapshot_data);
        given->has_snapshot = false;
    }
    if (given == NULL || esc_buffer_append_slice(&given->snapshot_data, data) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory persisting a snapshot");
    }
    given->snapshot =
        (escqrs_new_snapshot){.stream = self->stream, .version = self->version, .type = type};
    given->has_snapshot = true;
    return ESCQRS_OK;
}

/* NULL: INVALID. */
static persistent *deleting(escqrs_context *context, int64_t upto, escqrs_error *error)
{
    persistent *self = own(context, error);
    if (self != NULL && upto < 0) {
        escqrs_error_set(error, ESCQRS_INVALID, "a version is not negative");
        return NULL;
    }
    return self;
}

static escqrs_status erase(const persistent *self, int64_t upto, escqrs_error *error)
{
    escqrs_store *store = self->persistence->store;
    int64_t version = 0;
    escqrs_erased erased = {0};
    escqrs_status status = escqrs_store_version(store, self->stream, &version, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_erased(store, self->stream, &erased, error);
    }
    version = upto == 0 || upto > version ? version : upto;
    if (status != ESCQRS_OK || version <= erased.upto) {
        return status;
    }
    escqrs_erasure erasure = {.stream = self->stream, .upto = version};
    return escqrs_store_erase(store, &erasure, 1, error);
}

escqrs_status escqrs_context_delete_events(escqrs_context *context, int64_t upto,
                                           escqrs_error *error)
{
    const persistent *self = deleting(context, upto, error);
    if (self == NULL) {
        return ESCQRS_INVALID;
    }
    (void)escqrs_runtime_block(); /* the store needs no worker */
    escqrs_status status = erase(self, upto, error);
    escqrs_runtime_unblock();
    return status;
}

escqrs_status escqrs_context_delete_snapshots(escqrs_context *context, int64_t upto,
                                              escqrs_error *error)
{
    const persistent *self = deleting(context, upto, error);
    if (self == NULL) {
        return ESCQRS_INVALID;
    }
    (void)escqrs_runtime_block(); /* the store needs no worker */
    escqrs_status status =
        escqrs_store_delete_snapshots(self->persistence->store, self->stream, upto, error);
    escqrs_runtime_unblock();
    return status;
}

bool escqrs_context_is_recovering(escqrs_context *context)
{
    const persistent *self = persistent_of(esc_context_cell(context));
    return self != NULL && self->recovering;
}

int64_t escqrs_context_version(escqrs_context *context)
{
    const persistent *self = persistent_of(esc_context_cell(context));
    return self == NULL ? 0 : self->version;
}
