/* Followers: their statements, and what becomes of one in a run.
 *
 * The thread that projects calls all of this. What is said about a read model (status, wait) is
 * written here under the projector's mutex. Lock order: the mutex is a leaf: neither the log nor
 * SQLite is called while it is held. */
#include "readmodel/projector.h"

#include "base/error.h"
#include "readmodel/sql.h"

#define RETRY_AFTER_NS 1000000000LL /* after a full disk and the like */

/* ---- statements ------------------------------------------------------------------------------ */

void esc_control_fini(esc_control *control)
{
    (void)sqlite3_finalize(control->begin);
    (void)sqlite3_finalize(control->commit);
    (void)sqlite3_finalize(control->savepoint);
    (void)sqlite3_finalize(control->release);
    (void)sqlite3_finalize(control->undo);
    (void)sqlite3_finalize(control->move);
    *control = (esc_control){0};
}

void esc_follower_finalize(esc_follower *follower)
{
    if (follower->statements != NULL) {
        for (size_t i = 0; i < follower->model->definition.projection_count; i++) {
            (void)sqlite3_finalize(follower->statements[i]);
        }
        escqrs_free(follower->statements);
        follower->statements = NULL;
    }
    if (follower->cache != NULL) {
        for (size_t i = 0; i < follower->cache->count; i++) {
            (void)sqlite3_finalize(follower->cache->entries[i].statement);
            escqrs_free(follower->cache->entries[i].sql);
        }
        escqrs_free(follower->cache);
        follower->cache = NULL;
    }
    esc_control_fini(&follower->control);
}

escqrs_status esc_follower_statement(esc_follower *follower, size_t index, sqlite3 *db,
                                     sqlite3_stmt **statement, escqrs_error *error)
{
    const esc_definition *definition = &follower->model->definition;
    if (follower->statements == NULL) {
        follower->statements =
            escqrs_alloc_zero(definition->projection_count * sizeof(sqlite3_stmt *));
        if (follower->statements == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for statements");
        }
    }
    if (follower->statements[index] == NULL) {
        escqrs_status status =
            esc_rmsql_prepare(db, escqrs_slice_of(definition->projections[index].sql),
                              &follower->statements[index], error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    *statement = follower->statements[index];
    return ESCQRS_OK;
}

/* ---- what happened --------------------------------------------------------------------------- */

static bool counts(const esc_follower *follower) /* does it stand for its read model? */
{
    const escqrs_readmodel *model = follower->model;
    return model->frozen ? follower == model->copy : follower == &model->live;
}

/* It cannot take an event. */
void esc_follower_stop(esc_follower *follower, const escqrs_error *error)
{
    escqrs_readmodel *model = follower->model;
    escqrs_projector *projector = model->projector;
    bool is_model = counts(follower);
    esc_mutex_lock(&projector->mutex);
    model->error = *error;
    model->troubled = false;
    model->stopped = model->stopped || is_model;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (is_model) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
                         "%s. Mend the cause and call retry(), or leave the event out with skip()",
                         error->message);
    } else {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
                         "rebuilding was given up, the old rows stay: %s", error->message);
        esc_copy_drop(model);
    }
}

/* The machine is to blame: later again. */
void esc_model_trouble(escqrs_readmodel *model, const escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool first = !model->troubled;
    model->troubled = true;
    model->failures++;
    model->retry_at_ns = esc_deadline_after(RETRY_AFTER_NS);
    model->error = *error;
    esc_error_prefix(&model->error, "read model %s is kept from going on, and tries again: ",
                     model->definition.name);
    esc_error_subject(&model->error, escqrs_slice_of(model->definition.name));
    escqrs_error shown = model->error;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (first) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR, "%s", shown.message);
    }
}

void esc_follower_advance(esc_follower *follower, int64_t position, int64_t head)
{
    escqrs_readmodel *model = follower->model;
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    follower->position = position;
    if (follower == &model->live && !model->frozen && position >= head) {
        model->level = true;
        model->refilling = false;
    }
    if (model->troubled) {
        model->troubled = false;
        model->error = (escqrs_error){0};
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}
