/* What is asked of a read model: rebuild, retry, skip.
 *
 * Any thread. Retry and skip act on a stopped follower, which the thread that projects leaves
 * alone; `busy` keeps it off while skip works without the mutex, and keeps skip and retry off while
 * a rebuild begins or ends. Lock order: the projector's mutex is a leaf. */
#include "readmodel/projector.h"

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/sql.h"

static escqrs_status check_writable(escqrs_readmodel *model, escqrs_error *error)
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
    escqrs_status status = check_writable(model, error);
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

static escqrs_status say_not_stopped(const escqrs_readmodel *model, escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "read model %s has not stopped",
                            model->definition.name);
}

escqrs_status escqrs_readmodel_retry(escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    while (model->busy) {
        esc_cond_wait(&projector->changed, &projector->mutex);
    }
    bool stopped = model->stopped;
    if (stopped) {
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
    int64_t position;
} skip_call;

/* Move the checkpoint of a stopped read model past the event. */
static escqrs_status work_skip(void *context, void *sqlite, escqrs_error *error)
{
    skip_call *call = context;
    sqlite3_stmt *move = NULL;
    escqrs_status status =
        esc_rmsql_prepare(sqlite, escqrs_slice_of(esc_checkpoint_move_sql), &move, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(move, 1, call->model->definition.name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(move, 2, call->position);
        (void)sqlite3_bind_int64(move, 3, call->position + 1);
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

escqrs_status escqrs_readmodel_skip(escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    while (model->busy) {
        esc_cond_wait(&projector->changed, &projector->mutex);
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
    } else if (follower == &model->live) {
        skip_call call = {.model = model, .position = follower->position};
        status = escqrs_store_run(projector->store, false, work_skip, &call, error);
    }
    esc_mutex_lock(&projector->mutex);
    model->busy = false;
    if (status == ESCQRS_OK) {
        ESC_ASSERT(follower != NULL);
        follower->position++;
        model->stopped = false;
        model->level = false;
        model->error = (escqrs_error){0};
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (status == ESCQRS_OK) {
        escqrs_log_write(
            &projector->log, ESCQRS_LOG_WARNING,
            "read model %s leaves out the event at position %lld; it had stopped because of: %s",
            model->definition.name, (long long)skipped.position, skipped.message);
        esc_projector_wake(projector);
    }
    return status;
}
