/* What is asked of a read model: rebuild, retry, skip.
 *
 * Any thread. Retry and skip act on a stopped follower, which the thread that projects leaves
 * alone; `busy` keeps it off while skip works without the mutex, and keeps skip and retry off while
 * a rebuild begins or ends. Lock order: the projector's mutex is a leaf. */
#include "readmodel/projector.h"

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/dead_letter.h"
#include "readmodel/sql.h"

escqrs_status esc_model_check_writable(const escqrs_readmodel *model, escqrs_error *error)
{
    if (esc_projector_is_forked(model->projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    if (model->projector->readonly) {
        return escqrs_error_set(error, ESCQRS_READ_ONLY,
                                "read model %s: the store was opened readonly",
                                model->definition.name);
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_rebuild(escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = esc_model_check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool closed = projector->stopping || projector->ended;
    model->rebuild_wanted = model->rebuild_wanted || !closed;
    esc_mutex_unlock(&projector->mutex);
    if (closed) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
    }
    esc_projector_wake(projector);
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_cancel_rebuild(escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = esc_model_check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool possible = !model->frozen && (model->rebuild_wanted || model->copy != NULL);
    bool frozen = model->frozen || model->refilling;
    bool seen = !possible && model->error_is_rebuild;
    if (seen) {
        model->error = (escqrs_error){0};
        model->error_is_rebuild = false;
        model->rebuild_failed = false;
    }
    if (possible) {
        model->rebuild_wanted = false;
        model->cancel_wanted = true;
        esc_cond_broadcast(&projector->changed);
    }
    esc_mutex_unlock(&projector->mutex);
    if (seen) {
        return ESCQRS_OK;
    }
    if (!possible) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                frozen ? "read model %s has no other rows to go on with than those "
                                         "that are being made"
                                       : "read model %s is not being built anew",
                                model->definition.name);
    }
    esc_projector_wake(projector);
    return ESCQRS_OK;
}

static escqrs_status say_not_stopped(const escqrs_readmodel *model, escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "read model %s has not stopped",
                            model->definition.name);
}

escqrs_status escqrs_readmodel_retry(escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = esc_model_check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    while (model->busy) {
        esc_cond_wait(&projector->changed, &projector->mutex);
    }
    bool stopped = model->stopped || model->retrying;
    if (model->retrying) {
        model->retry_at_ns = 0;
    }
    if (model->stopped) {
        model->stopped = false;
        model->level = false;
        model->error = (escqrs_error){0};
    }
    esc_mutex_unlock(&projector->mutex);
    if (!stopped) {
        return say_not_stopped(model, error);
    }
    esc_projector_wake(projector);
    return ESCQRS_OK;
}

/* ---- skip ------------------------------------------------------------------------------------ */

typedef struct skip_call {
    escqrs_readmodel *model;
    int64_t position; /* where it stands, before the event */
    int64_t to;       /* where it will: at the event, or at the last of those that were deleted */
    escqrs_slice reason;
    const escqrs_error *failure;
    const escqrs_recorded *event; /* NULL: it cannot be read */
} skip_call;

/* List the event among the dead letters, for whoever asks later why it is not there. */
static escqrs_status note_skip(const skip_call *call, sqlite3 *db, escqrs_error *error)
{
    esc_dead_letter letter = {.readmodel = call->model->definition.name,
                              .state = "skipped",
                              .position = call->to,
                              .version = call->failure->version,
                              .attempts = 1,
                              .error = escqrs_slice_of(call->failure->message),
                              .reason = call->reason};
    if (call->event != NULL) {
        letter.stream = call->event->stream;
        letter.type = escqrs_type_name(call->event->type);
        letter.version = call->event->version;
    }
    escqrs_status status = esc_dead_letter_make_table(db, error);
    return status == ESCQRS_OK ? esc_dead_letter_put(db, &letter, error) : status;
}

/* Where a read model goes that leaves out what it stopped at. */
static int64_t behind(const escqrs_error *failure)
{
    return failure->status == ESCQRS_DELETED ? failure->actual : failure->position;
}

/* Move the checkpoint of a stopped read model past the event. */
static escqrs_status move_past(const skip_call *call, sqlite3 *sqlite, escqrs_error *error)
{
    sqlite3_stmt *move = NULL;
    escqrs_status status =
        esc_rmsql_prepare(sqlite, escqrs_slice_of(esc_checkpoint_move_sql), &move, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(move, 1, call->model->definition.name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(move, 2, call->position);
        (void)sqlite3_bind_int64(move, 3, call->to);
        status = esc_rmsql_run(move, error);
    }
    (void)sqlite3_finalize(move);
    if (status == ESCQRS_OK && sqlite3_changes(sqlite) != 1) {
        status =
            escqrs_error_set(error, ESCQRS_CORRUPT,
                             "the checkpoint of read model %s is no longer at %lld; rebuild it",
                             call->model->definition.name, (long long)call->position);
    }
    return status;
}

static escqrs_status work_skip(void *context, void *sqlite, escqrs_error *error)
{
    skip_call *call = context;
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = move_past(call, sqlite, error);
    if (status == ESCQRS_OK) {
        status = note_skip(call, sqlite, error);
    }
    return esc_rmsql_end(sqlite, status, error);
}

/* The event is read first, to be listed. */
static escqrs_status skip_event(esc_follower *follower, const escqrs_error *failure,
                                escqrs_slice reason, escqrs_error *error)
{
    escqrs_store *store = follower->model->projector->store;
    skip_call call = {.model = follower->model,
                      .position = follower->position,
                      .to = behind(failure),
                      .reason = reason,
                      .failure = failure};
    escqrs_range range = {.after = follower->position, .limit = 1};
    escqrs_cursor *cursor = NULL;
    if (escqrs_store_events(store, &range, &cursor, NULL) == ESCQRS_OK &&
        escqrs_cursor_next(cursor, &call.event, NULL) != ESCQRS_OK) {
        call.event = NULL;
    }
    escqrs_status status = follower == &follower->model->live
                               ? esc_side_run(follower->model, work_skip, &call, error)
                               : work_skip(&call, follower->db, error);
    escqrs_cursor_close(cursor);
    return status;
}

escqrs_status escqrs_readmodel_skip(escqrs_readmodel *model, escqrs_slice reason,
                                    escqrs_error *error)
{
    escqrs_status status = esc_model_check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    while (model->busy) {
        esc_cond_wait(&projector->changed, &projector->mutex);
    }
    if (projector->stopping) {
        esc_mutex_unlock(&projector->mutex);
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
    }
    if (!model->stopped) {
        esc_mutex_unlock(&projector->mutex);
        return say_not_stopped(model, error);
    }
    model->busy = true; /* the thread keeps off */
    esc_follower *follower = model->frozen ? model->copy : &model->live;
    escqrs_error skipped = model->error;
    esc_mutex_unlock(&projector->mutex);

    if (follower == NULL || skipped.position != follower->position + 1) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s did not stop at an event; rebuild it: %s",
                                  model->definition.name, skipped.message);
    } else {
        status = skip_event(follower, &skipped, reason, error);
    }
    esc_mutex_lock(&projector->mutex);
    model->busy = false;
    if (status == ESCQRS_OK) {
        ESC_ASSERT(follower != NULL);
        follower->position = behind(&skipped);
        model->stopped = false;
        model->level = false;
        model->error = (escqrs_error){0};
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (status == ESCQRS_OK) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_WARNING,
                         "read model %s leaves out the event at position %lld%s%.*s; it had "
                         "stopped because of: %s",
                         model->definition.name, (long long)skipped.position,
                         reason.size > 0 ? ": " : "", reason.size > 300 ? 300 : (int)reason.size,
                         reason.size == 0 ? "" : (const char *)reason.data, skipped.message);
        esc_projector_wake(projector);
    }
    return status;
}
