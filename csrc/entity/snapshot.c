/* Snapshots: when one is taken, and how it comes to the journal without a command waiting for it.
 *
 * A turn that finds one due leaves an order in its own outbox. So the order reaches the entity's
 * mailbox when the turn's events are durable and before its reply is, it is carried out on a worker
 * by a turn of its own, and the snapshot has a commit of its own: neither the command that made it
 * due nor its caller waits for the packing or the writing. The entity's next command waits for the
 * packing, as the state may not change meanwhile. The commit goes in the entity's lane: should
 * earlier events fail that the state had already, so does the snapshot. When it fails itself,
 * nothing else does: nothing was built on it.
 *
 * Three rules, any of which makes one due: the version passes a multiple of `every`; the events
 * since the last one would take `replay_ns` to replay, as measured when the entity, or one of its
 * aggregate, was loaded; the state leaves memory and has changed since the last one.
 *
 * snapshot_version of an entity is that of the newest snapshot that was used or ordered since it
 * was loaded, though it may not be stored yet: it is but a measure. One order at a time waits to be
 * carried out.
 *
 * Lock order: esc_snapshot_order_all takes live_lock, a leaf. */
#include "entity/snapshot.h"

#include "entity/system.h"

static int64_t setting(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed); /* nothing hangs on when it is seen */
}

bool esc_snapshot_is_due(const escqrs_entity *entity, int64_t version)
{
    const escqrs_aggregate *aggregate = entity->aggregate;
    int64_t every = setting(&aggregate->snapshot_every);
    int64_t replay_ns = setting(&aggregate->snapshot_replay_ns);
    int64_t last = entity->snapshot_version;
    if (version <= last || aggregate->ops->pack == NULL) {
        return false;
    }
    if (every > 0 && last / every != version / every) {
        return true;
    }
    int64_t event_ns = entity->event_ns > 0 ? entity->event_ns : setting(&aggregate->event_ns);
    return replay_ns > 0 && event_ns > 0 && version - last >= (replay_ns + event_ns - 1) / event_ns;
}

/* ---- orders --------------------------------------------------------------------------------- */

/* None was taken. Of a system that closes, of events that failed, and of a store that is read only,
 * others tell. */
static void say(const escqrs_entity *entity, escqrs_status status, const escqrs_error *error)
{
    if (status != ESCQRS_OK && status != ESCQRS_ABORTED && status != ESCQRS_CLOSED &&
        status != ESCQRS_READ_ONLY) {
        escqrs_log_write(&esc_entity_system(entity)->log, ESCQRS_LOG_WARNING,
                         "no snapshot of %s was taken (%s): %s", entity->stream,
                         escqrs_status_name(status), error != NULL ? error->message : "");
    }
}

static void order_done(escqrs_command *command, escqrs_status status, const escqrs_error *error)
{
    escqrs_entity *entity = command->entity;
    say(entity, status, error);
    if (command->snapshot) { /* it was not carried out, so it stands no more; relaxed: a hint */
        atomic_store_explicit(&entity->snapshot_ordered, false, memory_order_relaxed);
    }
    escqrs_free(command);
}

static const escqrs_command_ops order_ops = {.done = order_done};

bool esc_snapshot_is_order(const escqrs_command *command)
{
    return command->ops == &order_ops;
}

/* NULL where one is under way already, or for want of memory. */
static escqrs_command *order_new(escqrs_entity *entity)
{
    /* relaxed: it guards nothing but itself */
    if (atomic_exchange_explicit(&entity->snapshot_ordered, true, memory_order_relaxed)) {
        return NULL;
    }
    escqrs_command *command = escqrs_alloc_zero(sizeof *command);
    if (command == NULL) {
        atomic_store_explicit(&entity->snapshot_ordered, false, memory_order_relaxed);
        return NULL;
    }
    command->ops = &order_ops;
    command->special = true;
    command->snapshot = true;
    command->entity = entity;
    return command;
}

void esc_snapshot_order(escqrs_turn *turn)
{
    escqrs_command *command = order_new(turn->entity);
    if (command == NULL) {
        return;
    }
    escqrs_entity_hold(turn->entity);
    *turn->outbox_end = command;
    turn->outbox_end = &command->sent_next;
}

/* Into the record. DONE: there is none to take. */
static escqrs_status pack(escqrs_entity *entity, esc_record *record, escqrs_error *error)
{
    const escqrs_aggregate *aggregate = entity->aggregate;
    escqrs_type *type = NULL;
    void *data = NULL;
    size_t size = 0;
    escqrs_status status =
        aggregate->ops->pack(aggregate->context, entity->state, &type, &data, &size, error);
    if (status == ESCQRS_OK) {
        record->snapshot = (escqrs_new_snapshot){.stream = escqrs_entity_stream(entity),
                                                 .version = entity->version,
                                                 .type = type,
                                                 .data = {data, size},
                                                 .keep = setting(&aggregate->snapshot_keep)};
        record->commit.snapshot = &record->snapshot;
    }
    if (status == ESCQRS_OK || status == ESCQRS_INVALID) { /* not again at the same version */
        entity->snapshot_version = entity->version;
    }
    return status;
}

escqrs_status esc_snapshot_pack(escqrs_turn *turn, escqrs_error *error)
{
    escqrs_entity *entity = turn->entity;
    bool ordered = esc_snapshot_is_order(turn->command);
    if (ordered) { /* its commit may take its time: the next one can be ordered */
        turn->command->snapshot = false;
        atomic_store_explicit(&entity->snapshot_ordered, false, memory_order_relaxed);
    }
    if (entity->version == 0 || entity->aggregate->ops->pack == NULL ||
        (ordered && entity->version <= entity->snapshot_version)) {
        return ESCQRS_OK;
    }
    esc_record *record = esc_turn_record(turn, error);
    escqrs_status status = record == NULL ? ESCQRS_NO_MEMORY : pack(entity, record, error);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

/* ---- passivation ---------------------------------------------------------------------------- */

static void leave_done(escqrs_commit *commit)
{
    esc_record *record = commit->context;
    escqrs_entity *entity = record->entity;
    escqrs_system *system = esc_entity_system(entity);
    say(entity, commit->status, record->error);
    uint8_t epoch = record->epoch;
    esc_record_recycle(&system->records, record);
    esc_system_uncount(system, epoch); /* close waits for it, and then nobody touches the store */
    escqrs_entity_release(entity);
}

static void leave_with(escqrs_entity *entity, esc_record *record)
{
    escqrs_system *system = esc_entity_system(entity);
    escqrs_error error = {0};
    escqrs_status status = pack(entity, record, &error);
    if (status != ESCQRS_OK) {
        say(entity, status == ESCQRS_DONE ? ESCQRS_OK : status, &error);
        esc_record_recycle(&system->records, record);
        return;
    }
    record->entity = entity;
    record->commit.done = leave_done;
    record->commit.context = record;
    record->commit.error = record->error;
    /* seq_cst: as in esc_system_accept: counted first, then looked */
    record->epoch = (uint8_t)atomic_load_explicit(&system->epoch, memory_order_seq_cst);
    uint8_t epoch = record->epoch;
    esc_system_count(system, epoch);
    escqrs_entity_hold(entity);
    if (esc_system_phase_now(system) >= ESC_SYSTEM_DROPPING ||
        escqrs_store_submit(system->store, &record->commit, NULL) != ESCQRS_OK) {
        esc_record_recycle(&system->records, record);
        esc_system_uncount(system, epoch);
        escqrs_entity_release(entity);
    }
}

static bool wants_to_leave_one(const escqrs_aggregate *aggregate)
{
    /* relaxed: a setting */
    return atomic_load_explicit(&aggregate->snapshot_on_passivation, memory_order_relaxed) &&
           aggregate->ops->pack != NULL;
}

void esc_snapshot_leave(escqrs_entity *entity)
{
    if (!wants_to_leave_one(entity->aggregate) || entity->version <= entity->snapshot_version ||
        esc_entity_is_stale(entity)) {
        return;
    }
    esc_record *record = esc_record_acquire(&esc_entity_system(entity)->records);
    if (record != NULL) {
        leave_with(entity, record);
    }
}

/* The entities with a state, each held. NULL where there are none or memory is short. */
static escqrs_entity **loaded(escqrs_system *system, size_t *count)
{
    *count = 0;
    size_t room = escqrs_system_live(system) + 1;
    escqrs_entity **found = escqrs_alloc_array(room, sizeof *found);
    if (found == NULL) {
        return NULL;
    }
    esc_mutex_lock(&system->live_lock);
    for (esc_list_node *node = esc_list_first(&system->live); node != NULL && *count < room;
         node = esc_list_next(&system->live, node)) {
        escqrs_entity *entity = ESC_CONTAINER_OF(node, escqrs_entity, live);
        if (wants_to_leave_one(entity->aggregate)) {
            escqrs_entity_hold(entity); /* its state's reference is there while it is in the list */
            found[(*count)++] = entity;
        }
    }
    esc_mutex_unlock(&system->live_lock);
    return found;
}

void esc_snapshot_order_all(escqrs_system *system)
{
    size_t count;
    escqrs_entity **entities = loaded(system, &count);
    for (size_t i = 0; i < count; i++) {
        escqrs_command *command = order_new(entities[i]);
        if (command == NULL) {
            escqrs_entity_release(entities[i]);
            continue;
        }
        command->epoch = (uint8_t)atomic_load_explicit(&system->epoch, memory_order_seq_cst);
        esc_system_count(system, command->epoch);
        esc_command_deliver(command); /* has the reference */
    }
    escqrs_free(entities);
}
