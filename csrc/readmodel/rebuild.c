/* Rebuilding: a copy beside the live tables, and the swap.
 *
 * Design
 *   - A copy is filled in a database of its own (copy.c), without the writing connection. When it
 *     is level, one transaction drops the old tables, makes the new ones with the copy's rows, and
 *     writes the checkpoint. A crash before that leaves the old ones, which are followed all the
 *     time, and the rebuild goes on where the copy ends.
 *   - A read model with virtual tables cannot be copied row by row; it is emptied and filled in
 *     place.
 *
 * The thread that projects calls all of this. Lock order: the projector's mutex is a leaf. */
#include "readmodel/projector.h"

#include "base/error.h"
#include "readmodel/dead_letter.h"
#include "readmodel/sql.h"

/* ---- the live tables made anew --------------------------------------------------------------- */

typedef struct replacement {
    escqrs_readmodel *model;
    sqlite3 *from;
    int64_t position;
} replacement;

/* What is said about the read model, once its tables are made anew. */
static void settle(escqrs_readmodel *model, int64_t position)
{
    escqrs_projector *projector = model->projector;
    int64_t head = escqrs_store_head(projector->store);
    int64_t parked = model->copy == NULL ? 0 : model->copy->parked_events;
    esc_park_forget(&model->live);
    esc_inline_leave(model);
    esc_mutex_lock(&projector->mutex);
    model->parked = parked;
    model->live.position = position;
    model->changes++;
    model->frozen = false;
    model->level = position >= head;
    model->refilling = position == 0 && head > 0;
    model->stopped = false;
    model->troubled = false;
    model->retrying = false;
    model->rebuild_failed = false;
    model->error_is_rebuild = false;
    if (parked == 0) {
        model->error = (escqrs_error){0};
    } else if (model->copy->parked_position > 0) {
        model->error = model->copy->failure;
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (position == head) {
        esc_inline_enter(model, head);
    }
}

/* Nobody commits meanwhile: bring the copy to the very end, so that what is inline stays it. */
static escqrs_status catch_up(esc_follower *copy, escqrs_error *error)
{
    escqrs_projector *projector = copy->model->projector;
    int64_t head = escqrs_store_head(projector->store);
    escqrs_status status = ESCQRS_OK;
    while (status == ESCQRS_OK && copy->position < head) {
        esc_run run = {.projector = projector, .members = &copy, .member_count = 1, .copies = true};
        status = esc_batch_read(projector, copy->position, head, error);
        if (status == ESCQRS_OK) {
            copy->active = true;
            copy->limit = INT64_MAX;
            status = esc_run_transaction(&run, copy->db, &copy->control, error);
            copy->active = false;
        }
        bool failed = status == ESCQRS_OK && copy->limit <= run.upto;
        if (status == ESCQRS_OK) {
            esc_mutex_lock(&projector->mutex);
            copy->position = failed ? copy->limit - 1 : run.upto;
            esc_mutex_unlock(&projector->mutex);
        }
        if (failed) {
            *error = copy->failure;
            status = error->status = ESCQRS_INVALID;
        }
        esc_batch_clear(&projector->batch);
    }
    return status;
}

/* Put the rows of another database in the place of the read model's tables. */
static escqrs_status work_replace(void *context, void *sqlite, escqrs_error *error)
{
    replacement *call = context;
    escqrs_readmodel *model = call->model;
    escqrs_status status = ESCQRS_OK;
    if (model->definition.is_inline && model->copy != NULL) {
        status = catch_up(model->copy, error);
        call->position = model->copy->position;
    }
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_check_names(sqlite, &model->definition, error);
    if (status == ESCQRS_OK) {
        status =
            esc_checkpoint_replace(sqlite, &model->definition, call->from, call->position, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_dead_letter_replace(sqlite, model->definition.name, (escqrs_slice){NULL, 0},
                                         call->from, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_copy_forget(model, sqlite, error);
    }
    status = esc_rmsql_end(sqlite, status, error);
    if (status == ESCQRS_OK) {
        settle(model, call->position);
    }
    return status;
}

/* Make the live tables anew with these rows. */
static escqrs_status replace(escqrs_readmodel *model, sqlite3 *from, int64_t position,
                             escqrs_error *error)
{
    replacement call = {.model = model, .from = from, .position = position};
    return esc_side_run(model, work_replace, &call, error);
}

/* ---- rebuild --------------------------------------------------------------------------------- */

/* Keep skip and retry off, as they keep the thread off. */
static bool claim(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool claimed = !model->busy;
    model->busy = true;
    esc_mutex_unlock(&projector->mutex);
    return claimed;
}

static void unclaim(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    model->busy = false;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}

/* False where it has to be tried again later. */
static bool begin_rebuild(escqrs_readmodel *model)
{
    escqrs_error error = {0};
    esc_follower *copy = NULL;
    escqrs_status status;
    esc_copy_remove(model);
    if (model->definition.has_virtual) {
        status = replace(model, model->definition.scratch, 0, &error);
    } else {
        status = esc_copy_begin(model, &copy, &error);
    }
    if (status != ESCQRS_OK) {
        esc_model_trouble(model, &error);
        return false;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    model->copy = copy;
    model->rebuild_wanted = false;
    model->rebuild_failed = false;
    if (copy != NULL && model->stopped) { /* its tables end at an event that it could not take */
        model->frozen = true;
    }
    model->stopped = false;
    model->troubled = false;
    model->retrying = false;
    if (model->parked == 0 || model->error_is_rebuild) {
        model->error = (escqrs_error){0};
    }
    model->error_is_rebuild = false;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    return true;
}

static void swap(escqrs_readmodel *model)
{
    escqrs_error error = {0};
    escqrs_status status = replace(model, model->copy->db, model->copy->position, &error);
    if (status == ESCQRS_OK) {
        esc_copy_remove(model);
    } else if (status == ESCQRS_INVALID || status == ESCQRS_NAME_CLASH ||
               status == ESCQRS_CORRUPT || status == ESCQRS_DELETED) {
        int64_t deleted = status == ESCQRS_DELETED;
        error.actual = deleted ? error.position : error.actual; /* where it ends, for skip */
        error.position = model->copy->position + deleted;
        esc_follower_stop(model->copy, &error);
    } else {
        esc_model_trouble(model, &error);
    }
}

static bool wants_rebuild(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool wants = model->rebuild_wanted || (model->frozen && model->copy == NULL && !model->stopped);
    esc_mutex_unlock(&projector->mutex);
    return wants;
}

/* Is the copy ready to take the place of the live tables? Never before it knows what they know;
 * where commits write these, the rest follows while none can come. */
static bool is_level(escqrs_readmodel *model, int64_t head)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    int64_t rest = model->definition.is_inline ? ESC_BATCH_EVENTS_MAX : 0;
    bool level = model->copy != NULL && !(model->frozen && model->stopped) &&
                 model->copy->position + rest >= (model->frozen ? head : model->live.position);
    esc_mutex_unlock(&projector->mutex);
    return level;
}

/* The copy is not wanted any more. */
static void cancel(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool wanted = model->cancel_wanted;
    bool has_copy = model->copy != NULL && !model->frozen;
    wanted = wanted && !model->frozen;
    model->cancel_wanted = false;
    if (wanted && has_copy && model->retrying && !model->troubled) {
        model->retrying = false; /* the copy's, if not the live one's, which then fails again */
    }
    esc_mutex_unlock(&projector->mutex);
    if (wanted) {
        esc_copy_drop(model);
    }
    if (wanted && has_copy) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_INFO,
                         "rebuilding read model %s was cancelled; the old rows stay",
                         model->definition.name);
    }
}

bool esc_rebuild_turn(escqrs_readmodel *model, int64_t head)
{
    cancel(model);
    bool wanted = wants_rebuild(model);
    if ((!wanted && !is_level(model, head)) || !claim(model)) {
        return false;
    }
    bool done = true;
    if (wanted) {
        done = begin_rebuild(model);
    } else {
        swap(model);
    }
    unclaim(model);
    return done;
}
