/* Turns: an entity handles one command, from the mailbox to the journal.
 *
 * receive:  dropping? -> CLOSED
 *           stale state, or its stream was deleted -> suspend until nothing is in flight, reset
 *           key -> suspend while a keyed commit is in flight, look it up, perhaps repeat its reply
 *           no state -> load
 *           handle (or visit)
 *           events, or a key, or earlier commits in flight -> a record to the journal; else answer
 * at once
 *
 * Everything that was decided on a state which is not durable yet goes through the journal behind
 * it, in the entity's lane, even a refusal: its commit is empty, but it is answered in its turn,
 * and fails if what it saw was never stored. When a commit fails, `done` marks the entity stale and
 * the journal fails the rest of the lane; the next command waits for the lane to empty and loads
 * anew. A handler that failed after it applied events leaves a stale state as well; so does a
 * definition that changed.
 *
 * A turn on a worker submits, and the worker goes on. A turn that escqrs_entity_ask runs on the
 * caller's thread commits: the caller waits anyway, so it may as well lead the batch.
 *
 * `stale` is set by the running thread here only while it owns the state, and by `done` before it
 * lowers in_flight. No lock is held anywhere here. */
#include "entity/turn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "entity/aggregate.h"
#include "entity/snapshot.h"
#include "entity/system.h"

_Thread_local esc_turn_thread esc_turn_here;

/* An error that nobody has filled reads as empty, without clearing all of it. */
static void error_begin(escqrs_error *error)
{
    error->status = ESCQRS_OK;
    error->version = error->position = error->expected = error->actual = 0;
    error->system_error = 0;
    error->subject[0] = '\0';
    error->message[0] = '\0';
}

/* ---- what a handler may do ------------------------------------------------------------------ */

escqrs_turn *escqrs_turn_current(void)
{
    return esc_turn_here.turn;
}

escqrs_entity *escqrs_turn_entity(escqrs_turn *turn)
{
    return turn->entity;
}

escqrs_command *escqrs_turn_command(escqrs_turn *turn)
{
    return turn->command;
}

int64_t escqrs_turn_version(const escqrs_turn *turn)
{
    return turn->entity->version + (turn->record != NULL ? (int64_t)turn->record->event_count : 0);
}

void escqrs_turn_spoil(escqrs_turn *turn)
{
    turn->spoiled = true;
}

esc_record *esc_turn_record(escqrs_turn *turn, escqrs_error *error)
{
    if (turn->record == NULL) {
        turn->record = esc_record_acquire(&esc_entity_system(turn->entity)->records);
        if (turn->record == NULL) {
            (void)escqrs_error_set(error, ESCQRS_NO_MEMORY,
                                   "no memory to store a command's events");
        }
    }
    return turn->record;
}

static escqrs_status turn_broken(escqrs_turn *turn, escqrs_status status)
{
    if (status != ESCQRS_OK && turn->broken == ESCQRS_OK) {
        turn->broken = status;
    }
    return status;
}

escqrs_status escqrs_turn_emit(escqrs_turn *turn, escqrs_type *type, escqrs_slice data,
                               escqrs_error *error)
{
    if (type == NULL || (data.data == NULL && data.size > 0)) {
        return turn_broken(
            turn, escqrs_error_set(error, ESCQRS_INVALID, "an event needs a type and data"));
    }
    esc_record *record = esc_turn_record(turn, error);
    return turn_broken(turn, record == NULL ? ESCQRS_NO_MEMORY
                                            : esc_record_add_event(record, type, data, error));
}

escqrs_status escqrs_turn_reply(escqrs_turn *turn, escqrs_slice reply, escqrs_error *error)
{
    esc_record *record = esc_turn_record(turn, error);
    return turn_broken(turn, record == NULL ? ESCQRS_NO_MEMORY
                                            : esc_record_set_reply(record, reply, error));
}

escqrs_status escqrs_turn_send(escqrs_turn *turn, escqrs_entity *entity, escqrs_command *command,
                               escqrs_error *error)
{
    escqrs_system *system = esc_entity_system(entity);
    if (esc_system_phase_now(system) >= ESC_SYSTEM_DROPPING) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "the system is closed");
    }
    esc_command_inherit(command, turn->command);
    command->entity = entity;
    command->sent_next = NULL;
    escqrs_entity_hold(entity);
    *turn->outbox_end = command;
    turn->outbox_end = &command->sent_next;
    return ESCQRS_OK;
}

/* ---- answering ------------------------------------------------------------------------------ */

/* `done` of every record's commit, called by the journal. */
static void record_done(escqrs_commit *commit)
{
    esc_record *record = commit->context;
    escqrs_entity *entity = record->entity;
    escqrs_command *command = record->command;
    escqrs_system *system = esc_entity_system(entity);
    bool repeat = commit->status == ESCQRS_OK && commit->repeated;
    escqrs_status status = record->result;
    const escqrs_error *error = status != ESCQRS_OK ? record->error : NULL;
    if (commit->status != ESCQRS_OK) {
        status = commit->status;
        error = record->error;
        if (record->event_count > 0) { /* else the state did not change by it */
            esc_entity_fail(entity, status, error);
        }
        if (status == ESCQRS_ABORTED) {
            status = esc_entity_explain(entity, record->error);
        }
    } else if (repeat && record->event_count > 0) {
        /* Somebody used the key since we looked: what we applied is not what is stored. */
        atomic_store_explicit(&entity->stale, true, memory_order_relaxed); /* as esc_entity_fail */
    }
    if (repeat || status != ESCQRS_OK) {
        esc_outbox_drop(record->outbox);
    } else {
        esc_outbox_deliver(record->outbox, command->epoch);
    }
    if (repeat) {
        escqrs_entity_hold(entity); /* for the landing: the command's reference goes on with it */
        escqrs_actor_send(&entity->actor,
                          &command->message); /* it finds the key now; still counted */
        esc_entity_landed(entity);
    } else {
        esc_entity_landed(entity);
        command->position = commit->position;
        esc_command_answer(command, status, error);
    }
    if (record->waits) {
        record->finished = true;
    } else {
        esc_record_recycle(&system->records, record); /* while the entity keeps the system */
    }
    escqrs_entity_release(entity);
}

/* Answer without the journal: nothing was decided that is not durable. */
static void answer(escqrs_turn *turn, escqrs_status status, const escqrs_error *error)
{
    if (turn->record != NULL) {
        esc_record_recycle(&esc_entity_system(turn->entity)->records, turn->record);
        turn->record = NULL;
    }
    if (status == ESCQRS_OK) {
        esc_outbox_deliver(turn->outbox, turn->command->epoch);
    } else {
        esc_outbox_drop(turn->outbox);
    }
    esc_command_complete(turn->command, status, error);
}

/* ---- storing -------------------------------------------------------------------------------- */

/* Hand the record to the journal; on this thread where `waits`. A status: it was refused, `done` is
 * not called. */
static escqrs_status hand_over(escqrs_entity *entity, esc_record *record, escqrs_error *error)
{
    escqrs_system *system = esc_entity_system(entity);
    bool waits = record->waits;
    esc_entity_took_off(entity);
    if (!waits) {
        escqrs_status status = escqrs_store_submit(system->store, &record->commit, error);
        if (status != ESCQRS_OK) {
            esc_entity_landed(entity);
        }
        return status; /* OK: the record may be gone */
    }
    escqrs_entity_hold(entity); /* the command's reference may go with its answer */
    escqrs_host *host = entity->aggregate->host;
    void *token = escqrs_host_detach(host);
    (void)escqrs_runtime_block(); /* a commit needs no worker */
    escqrs_status status =
        escqrs_store_commit_or_leave(system->store, &record->commit, &record->waits, error);
    escqrs_runtime_unblock();
    escqrs_host_attach(host, token);
    if (status == ESCQRS_DONE) {
        status =
            ESCQRS_OK; /* the caller waits for its answer as others do; the record may be gone */
    } else if (record->finished) {
        esc_record_recycle(&system->records, record);
        status = ESCQRS_OK;
    } else {
        esc_entity_landed(entity);
    }
    escqrs_entity_release(entity);
    return status;
}

static void fill_commit(const escqrs_turn *turn, esc_record *record)
{
    escqrs_entity *entity = turn->entity;
    escqrs_command *command = turn->command;
    escqrs_commit *commit = &record->commit;
    esc_record_seal(record);
    if (record->event_count > 0) {
        record->write = (escqrs_write){.stream = escqrs_entity_stream(entity),
                                       .expected = entity->version,
                                       .events = record->events,
                                       .event_count = record->event_count};
        commit->writes = &record->write;
        commit->write_count = 1;
        commit->metadata = command->metadata;
        commit->metadata_count = command->metadata_count;
        if (!escqrs_uuid_is_nil(&command->id)) {
            commit->causation_id = &command->id;
        }
        if (!escqrs_uuid_is_nil(&command->correlation_id)) {
            commit->correlation_id = &command->correlation_id;
        }
        commit->correlation_text =
            (escqrs_slice){command->correlation_text, command->correlation_size};
    }
    if (command->key.size > 0 && record->result == ESCQRS_OK && !command->special) {
        commit->key = command->key;
        commit->key_scope = escqrs_entity_stream(entity);
        entity->keyed = true;
    } else {
        commit->reply = (escqrs_slice){NULL, 0};
    }
    commit->lane = &entity->lane;
    commit->done = record_done;
    commit->context = record;
    commit->error = record->error;
    record->entity = entity;
    record->command = command;
    record->outbox = turn->outbox;
}

/* The command was decided. `error` is filled if status is not OK. */
static void turn_finish(escqrs_turn *turn, escqrs_status status, escqrs_error *error, bool sync)
{
    escqrs_entity *entity = turn->entity;
    if (status != ESCQRS_OK) {
        esc_outbox_drop(turn->outbox);
        turn->outbox = NULL;
        if (turn->record != NULL) { /* its events are dropped with it */
            esc_record_recycle(&esc_entity_system(entity)->records, turn->record);
            turn->record = NULL;
        }
        if (turn->spoiled) {
            /* relaxed: this thread runs the actor and is the next to look */
            atomic_store_explicit(&entity->stale, true, memory_order_relaxed);
        }
    }
    bool keyed = status == ESCQRS_OK && turn->command->key.size > 0 && !turn->command->special;
    size_t events = turn->record != NULL ? turn->record->event_count : 0;
    bool snapshot = turn->record != NULL && turn->record->commit.snapshot != NULL;
    if (status == ESCQRS_OK && esc_snapshot_is_due(entity, entity->version + (int64_t)events)) {
        esc_snapshot_order(turn);
    }
    if (events == 0 && !keyed && !snapshot && esc_entity_flights(entity) == 0) {
        if (esc_entity_is_stale(entity) && !turn->spoiled) {
            /* what it rested on has failed while it ran */
            status = esc_entity_explain(entity, error);
        }
        answer(turn, status, error);
        return;
    }
    escqrs_error missing;
    esc_record *record = esc_turn_record(turn, &missing);
    if (record == NULL) {
        /* The answer cannot wait in the lane, so it must not rest on what is in there. */
        answer(turn, ESCQRS_NO_MEMORY, &missing);
        return;
    }
    record->result = status;
    record->waits = sync;
    if (status != ESCQRS_OK) {
        *record->error = *error;
    }
    fill_commit(turn, record);
    entity->version += (int64_t)events;
    escqrs_error refused;
    escqrs_status handed = hand_over(entity, record, &refused);
    if (handed != ESCQRS_OK) {
        /* relaxed: as above */
        atomic_store_explicit(&entity->stale, true, memory_order_relaxed);
        answer(turn, handed, &refused);
    }
}

/* ---- receiving ------------------------------------------------------------------------------ */

static bool definition_changed(const escqrs_entity *entity)
{
    const escqrs_aggregate *aggregate = entity->aggregate;
    return entity->state != NULL && aggregate->ops->generation != NULL &&
           aggregate->ops->generation(aggregate->context) != entity->generation;
}

/* Was its stream deleted since the state was made? Then loading says so. */
static bool was_deleted(escqrs_entity *entity)
{
    escqrs_store *store = esc_entity_system(entity)->store;
    int64_t deletions = escqrs_store_deletions(store);
    if (entity->state == NULL || entity->deletions == deletions) {
        return false;
    }
    escqrs_erased erased;
    escqrs_error error;
    escqrs_host *host = entity->aggregate->host;
    void *token = escqrs_host_detach(host);
    escqrs_status status =
        escqrs_store_erased(store, escqrs_entity_stream(entity), &erased, &error);
    escqrs_host_attach(host, token);
    if (status != ESCQRS_OK || erased.closed) {
        return true;
    }
    entity->deletions = deletions;
    return false;
}

/* The key was used before: answer with its reply. OK: not used; DONE: answered. */
static escqrs_status repeat_reply(escqrs_entity *entity, escqrs_command *command,
                                  escqrs_error *error)
{
    escqrs_system *system = esc_entity_system(entity);
    escqrs_host *host = entity->aggregate->host;
    void *reply = NULL;
    size_t size = 0;
    int64_t position = 0;
    void *token = escqrs_host_detach(host);
    escqrs_status status = escqrs_store_key(system->store, escqrs_entity_stream(entity),
                                            command->key, &reply, &size, &position, error);
    if (status == ESCQRS_OK) {
        if (command->ops->repeated != NULL) {
            command->ops->repeated(command, reply, size);
        } else {
            escqrs_free(reply);
        }
    }
    escqrs_host_attach(host, token);
    if (status == ESCQRS_OK) {
        command->position = position;
        esc_command_complete(command, ESCQRS_OK, NULL);
        return ESCQRS_DONE;
    }
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status decide(escqrs_turn *turn, escqrs_error *error)
{
    escqrs_entity *entity = turn->entity;
    escqrs_command *command = turn->command;
    const escqrs_aggregate *aggregate = entity->aggregate;
    if (command->special) {
        escqrs_status visited =
            command->ops->visit == NULL
                ? ESCQRS_OK
                : command->ops->visit(command, entity, entity->state, entity->version, error);
        return visited == ESCQRS_OK && command->snapshot ? esc_snapshot_pack(turn, error) : visited;
    }
    esc_turn_here.turn = turn;
    escqrs_status status =
        aggregate->ops->handle(aggregate->context, entity->state, turn, command, error);
    esc_turn_here.turn = NULL;
    if (status == ESCQRS_OK && turn->broken != ESCQRS_OK) {
        turn->spoiled = true; /* it went on as if the event had been taken */
        status = escqrs_error_set(
            error, turn->broken, "the handler ignored that an event or reply was not accepted (%s)",
            escqrs_status_name(turn->broken));
    }
    return status;
}

static void handle(escqrs_entity *entity, escqrs_command *command, bool sync)
{
    escqrs_error error;
    error_begin(&error);
    escqrs_turn turn = {.entity = entity, .command = command};
    turn.outbox_end = &turn.outbox;
    escqrs_status status = ESCQRS_OK;
    if (entity->state == NULL && esc_snapshot_is_order(command)) {
        esc_command_complete(command, ESCQRS_OK, NULL); /* nothing worth loading it for */
        return;
    }
    if (entity->state == NULL) {
        status = esc_entity_load(entity, &error);
    } else if (!atomic_load_explicit(&entity->used,
                                     memory_order_relaxed)) { /* a hint for the evictor */
        atomic_store_explicit(&entity->used, true, memory_order_relaxed);
    }
    if (status == ESCQRS_OK) {
        status = decide(&turn, &error);
    }
    if (status != ESCQRS_OK && error.status == ESCQRS_OK) {
        error.status = status; /* the author gave no reason */
    }
    turn_finish(&turn, status, &error, sync);
}

/* One command; or SUSPEND, and it is held. */
static escqrs_turn_end receive_command(escqrs_entity *entity, escqrs_command *command, bool sync)
{
    escqrs_system *system = esc_entity_system(entity);
    if (esc_system_phase_now(system) >= ESC_SYSTEM_DROPPING) {
        entity->held = command;
        esc_entity_drop(entity);
        return ESCQRS_TURN_NEXT;
    }
    if (esc_entity_is_stale(entity) || definition_changed(entity) || was_deleted(entity)) {
        if (esc_entity_suspend(entity, command)) {
            return ESCQRS_TURN_SUSPEND;
        }
        esc_entity_reset(entity);
    }
    if (command->key.size > 0 && !command->special) {
        if (entity->keyed && esc_entity_suspend(entity, command)) {
            return ESCQRS_TURN_SUSPEND;
        }
        entity->keyed = false;
        escqrs_error error;
        escqrs_status status = repeat_reply(entity, command, &error);
        if (status != ESCQRS_OK) {
            if (status != ESCQRS_DONE) {
                esc_command_complete(command, status, &error);
            }
            return ESCQRS_TURN_NEXT;
        }
    }
    handle(entity, command, sync);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end entity_receive(escqrs_actor *actor, escqrs_message *message)
{
    escqrs_entity *entity = ESC_CONTAINER_OF(actor, escqrs_entity, actor);
    escqrs_system *system = esc_entity_system(entity);
    escqrs_command *command = ESC_CONTAINER_OF(message, escqrs_command, message);
    if (command == NULL) { /* resumed */
        command = entity->held;
        entity->held = NULL;
        if (command == NULL) {
            return ESCQRS_TURN_NEXT;
        }
    }
    ESC_ASSERT(entity->held == NULL);
    esc_turn_thread outer = esc_turn_here;
    esc_turn_here = (esc_turn_thread){NULL, NULL};
    /* The command's reference may be the last; the runtime keeps the actor until this returns. */
    escqrs_turn_end end = receive_command(entity, command, outer.ask == command);
    if (end == ESCQRS_TURN_NEXT && esc_system_phase_now(system) >= ESC_SYSTEM_DROPPING) {
        esc_entity_drop(entity);
    }
    if (esc_live_is_over(system)) {
        esc_live_evict(system, entity->aggregate->host);
    }
    esc_turn_here = outer;
    return end;
}

static void entity_destroy(escqrs_actor *actor)
{
    escqrs_entity *entity = ESC_CONTAINER_OF(actor, escqrs_entity, actor);
    escqrs_system *system = esc_entity_system(entity);
    ESC_ASSERT(entity->state == NULL && entity->held == NULL && esc_entity_flights(entity) == 0);
    escqrs_free(entity->failure);
    escqrs_free(entity);
    esc_system_release(system);
}

static void entity_describe(const escqrs_actor *actor, char *text, size_t size)
{
    const escqrs_entity *entity = ESC_CONTAINER_OF(actor, escqrs_entity, actor);
    snprintf(text, size, "%s", entity->stream);
}

const escqrs_actor_ops esc_entity_actor_ops = {entity_receive, entity_destroy, entity_describe};
