/* Replay: an entity's state from its snapshot and its history.
 *
 * The thread that runs the actor reads: detached from the host it asks for the stream's history (an
 * unknown stream costs no more), the newest snapshot and the first page of events after it, and
 * decodes that page; then it attaches and makes the state; further pages alternate. So the host's
 * interpreter is never held while the disk is read, and a short history needs one detachment.
 *
 * A snapshot that the definition cannot read is passed over for an older one, at last for the whole
 * history. An event that cannot be read or applied is an error that names stream, version and type;
 * the entity stays unloaded and the next command tries again. So are events that were deleted and
 * that no usable snapshot stands for. */
#include <inttypes.h>

#include "base/assert.h"
#include "base/error.h"
#include "entity/entity.h"
#include "entity/system.h"

#define PAGE_EVENTS 256

typedef struct replay {
    escqrs_entity *entity;
    escqrs_aggregate *aggregate;
    escqrs_store *store;
    escqrs_slice stream;
    int64_t target;           /* version at the end */
    int64_t version;          /* of what was read so far */
    escqrs_snapshot snapshot; /* version 0: none */
    bool passed_over;         /* a snapshot that does not fit, and it was said */
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded; /* the page; the cursor's */
    size_t count;                    /* of decoded events in the page */
    void *state;
    void *decoded[PAGE_EVENTS];
} replay;

escqrs_status escqrs_replay_explain(const escqrs_recorded *recorded, const char *what,
                                    escqrs_status status, escqrs_error *error)
{
    escqrs_slice type = escqrs_type_name(recorded->type);
    if (error != NULL) {
        if (error->status == ESCQRS_OK) { /* the author gave no reason */
            escqrs_error_set(error, status, "%s", escqrs_status_name(status));
        }
        esc_error_prefix(error, "%.*s, version %" PRId64 ": event %.*s cannot be %s: ",
                         (int)recorded->stream.size, (const char *)recorded->stream.data,
                         recorded->version, (int)type.size, (const char *)type.data, what);
        esc_error_subject(error, recorded->stream);
        error->version = recorded->version;
        error->position = recorded->position;
    }
    return status;
}

/* ---- detached ------------------------------------------------------------------------------- */

static void snapshot_drop(replay *r)
{
    escqrs_free(r->snapshot.data);
    r->snapshot = (escqrs_snapshot){0};
}

/* The stream's history, and its end: the version to reach. */
static escqrs_status open_history(replay *r, escqrs_error *error)
{
    escqrs_cursor_close(r->cursor);
    r->cursor = NULL;
    escqrs_status status = escqrs_store_history(r->store, r->stream, NULL, &r->cursor, error);
    if (status == ESCQRS_OK) {
        r->target = escqrs_cursor_upto(r->cursor);
    }
    return status;
}

/* The newest usable snapshot at or below `upto` (0: any), if there is one. */
static escqrs_status fetch_snapshot(replay *r, int64_t upto, escqrs_error *error)
{
    snapshot_drop(r);
    escqrs_status status = escqrs_store_snapshot(r->store, r->stream, upto, &r->snapshot, error);
    if (status == ESCQRS_DONE) {
        r->snapshot = (escqrs_snapshot){0};
        return ESCQRS_OK;
    }
    if (status == ESCQRS_OK && r->snapshot.version > r->target) {
        status = open_history(r, error); /* another's commit came between the two questions */
    }
    if (status == ESCQRS_OK && r->snapshot.version > r->target) {
        status = escqrs_error_set(
            error, ESCQRS_CORRUPT,
            "%.*s has a snapshot of version %" PRId64 " and events up to %" PRId64 " only",
            (int)r->stream.size, (const char *)r->stream.data, r->snapshot.version, r->target);
        esc_error_subject(error, r->stream);
    }
    return status;
}

/* Read and decode the next page. On an error those decoded before it are counted, to be discarded.
 */
static escqrs_status fetch_page(replay *r, escqrs_error *error)
{
    r->count = 0;
    if (r->version == r->target) {
        return ESCQRS_OK;
    }
    size_t count = 0;
    escqrs_status status = escqrs_cursor_read(r->cursor, PAGE_EVENTS, &r->recorded, &count, error);
    if (status == ESCQRS_DONE) {
        status = ESCQRS_OK;
    }
    if (status == ESCQRS_OK && count == 0) {
        status = escqrs_error_set(
            error, ESCQRS_CORRUPT, "%.*s ends at version %" PRId64 ", but %" PRId64 " are known of",
            (int)r->stream.size, (const char *)r->stream.data, r->version, r->target);
        esc_error_subject(error, r->stream);
    }
    const escqrs_aggregate *aggregate = r->aggregate;
    while (status == ESCQRS_OK && r->count < count) {
        const escqrs_recorded *recorded = &r->recorded[r->count];
        status = aggregate->ops->decode(aggregate->context, recorded, &r->decoded[r->count], error);
        if (status != ESCQRS_OK) {
            return escqrs_replay_explain(recorded, "read", status, error);
        }
        r->count++;
    }
    return status;
}

static escqrs_status fetch_first(replay *r, int64_t upto, escqrs_error *error)
{
    escqrs_status status = open_history(r, error);
    if (status == ESCQRS_OK && r->aggregate->ops->unpack != NULL && r->target > 0 && upto >= 0) {
        status = fetch_snapshot(r, upto, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    r->version = r->snapshot.version;
    escqrs_cursor_skip(r->cursor, r->version);
    return fetch_page(r, error);
}

/* ---- attached ------------------------------------------------------------------------------- */

static void discard_from(replay *r, size_t first)
{
    for (size_t i = first; i < r->count; i++) {
        r->aggregate->ops->discard(r->aggregate->context, r->decoded[i]);
    }
    r->count = 0;
}

static void destroy_state(replay *r)
{
    if (r->state != NULL) {
        r->aggregate->ops->destroy(r->aggregate->context, r->state);
        r->state = NULL;
    }
}

/* DONE: the snapshot does not fit; it is passed over. */
static escqrs_status begin_state(replay *r, escqrs_error *error)
{
    const escqrs_aggregate_ops *ops = r->aggregate->ops;
    r->entity->version = 0;
    escqrs_status status = ops->create(r->aggregate->context, r->entity, &r->state, error);
    if (status != ESCQRS_OK) {
        r->state = NULL;
        return status;
    }
    if (r->snapshot.version == 0) {
        return ESCQRS_OK;
    }
    ESC_ASSERT(ops->unpack != NULL); /* or there would be no snapshot */
    escqrs_error reason;
    reason.message[0] = '\0';
    status = ops->unpack(r->aggregate->context, r->state, &r->snapshot, &reason);
    r->entity->version = r->snapshot.version;
    if (status == ESCQRS_OK) {
        return ESCQRS_OK;
    }
    destroy_state(r);
    if (!r->passed_over) { /* the older ones seldom fit better: one line a load */
        escqrs_log_write(&esc_entity_system(r->entity)->log, ESCQRS_LOG_WARNING,
                         "the snapshot of %s at version %" PRId64
                         " is not used, nor are older ones that do not fit (%s): %s",
                         r->entity->stream, r->snapshot.version, escqrs_status_name(status),
                         reason.message);
        r->passed_over = true;
    }
    return ESCQRS_DONE;
}

static escqrs_status apply_page(replay *r, escqrs_error *error)
{
    const escqrs_aggregate *aggregate = r->aggregate;
    for (size_t i = 0; i < r->count; i++) {
        const escqrs_recorded *recorded = &r->recorded[i];
        r->version = recorded->version;
        r->entity->version = recorded->version;
        escqrs_status status =
            aggregate->ops->apply(aggregate->context, r->state, recorded, r->decoded[i], error);
        if (status != ESCQRS_OK) {
            discard_from(r, i + 1);
            return escqrs_replay_explain(recorded, "applied", status, error);
        }
    }
    r->count = 0;
    return ESCQRS_OK;
}

/* Snapshot and first page, attached at the end; older snapshots where the newest does not fit. */
static escqrs_status replay_begin(replay *r, escqrs_error *error)
{
    escqrs_host *host = r->aggregate->host;
    int64_t upto = 0;
    for (;;) {
        void *token = escqrs_host_detach(host);
        escqrs_status status = fetch_first(r, upto, error);
        escqrs_host_attach(host, token);
        if (status != ESCQRS_OK) {
            return status;
        }
        status = begin_state(r, error);
        if (status != ESCQRS_DONE) {
            return status;
        }
        discard_from(r, 0);
        upto =
            r->snapshot.version > 1 ? r->snapshot.version - 1 : -1; /* -1: no snapshot any more */
        snapshot_drop(r);
    }
}

static escqrs_status replay_run(replay *r, escqrs_error *error)
{
    escqrs_status status = replay_begin(r, error);
    while (status == ESCQRS_OK) {
        status = apply_page(r, error);
        if (status != ESCQRS_OK || r->version == r->target) {
            break;
        }
        void *token = escqrs_host_detach(r->aggregate->host);
        status = fetch_page(r, error);
        escqrs_host_attach(r->aggregate->host, token);
    }
    return status;
}

/* What the load took an event, for the policy of snapshots. A few events tell of this entity alone.
 */
static void measure(replay *r, int64_t began_ns)
{
    enum { TELLING_EVENTS = 16 };
    int64_t events = r->target - r->snapshot.version;
    r->entity->snapshot_version = r->snapshot.version;
    r->entity->event_ns = 0;
    if (events == 0) {
        return;
    }
    int64_t took_ns = escqrs_clock_monotonic_ns(&esc_entity_system(r->entity)->clock) - began_ns;
    r->entity->event_ns = took_ns > events ? took_ns / events : 1;
    if (events >= TELLING_EVENTS) {
        /* relaxed: an estimate */
        atomic_store_explicit(&r->aggregate->event_ns, r->entity->event_ns, memory_order_relaxed);
    }
}

escqrs_status esc_entity_load(escqrs_entity *entity, escqrs_error *error)
{
    ESC_ASSERT(entity->state == NULL && esc_entity_flights(entity) == 0);
    escqrs_aggregate *aggregate = entity->aggregate;
    escqrs_system *system = aggregate->system;
    replay r;
    r.entity = entity;
    r.aggregate = aggregate;
    r.store = system->store;
    r.stream = escqrs_entity_stream(entity);
    r.target = 0;
    r.version = 0;
    r.snapshot = (escqrs_snapshot){0};
    r.passed_over = false;
    r.cursor = NULL;
    r.count = 0;
    r.state = NULL;
    int64_t began_ns = escqrs_clock_monotonic_ns(&system->clock);
    uint64_t generation =
        aggregate->ops->generation != NULL ? aggregate->ops->generation(aggregate->context) : 0;
    int64_t deletions = escqrs_store_deletions(system->store);
    escqrs_status status = replay_run(&r, error);
    discard_from(&r, 0);
    if (status == ESCQRS_OK) {
        measure(&r, began_ns);
    }
    snapshot_drop(&r);
    if (status != ESCQRS_OK) {
        destroy_state(&r);
        entity->version = 0;
    } else {
        entity->state = r.state;
        entity->version = r.target;
        entity->generation = generation;
        entity->deletions = deletions;
        escqrs_entity_hold(entity); /* the state's */
        esc_live_add(system, entity);
    }
    escqrs_cursor_close(r.cursor);
    return status;
}

void esc_entity_unload(escqrs_entity *entity)
{
    if (entity->state == NULL) {
        return;
    }
    void *state = entity->state;
    entity->state = NULL;
    esc_live_remove(esc_entity_system(entity), entity);
    entity->aggregate->ops->destroy(entity->aggregate->context, state);
    escqrs_entity_release(entity); /* the state's; the caller has another */
}
