/* What is said about a read model, and waiting for it.
 *
 * Any thread. Lock order: the projector's mutex is a leaf; a readonly store is looked at without
 * it. */
#include "readmodel/projector.h"

#include "base/error.h"

#define LOOK_EVERY_NS 20000000LL /* at the file of another process */

/* Under the mutex. */
static int64_t position_of(const escqrs_readmodel *model)
{
    if (model->frozen) {
        return model->copy == NULL ? 0 : model->copy->position;
    }
    return model->live.position;
}

/* Under the mutex. */
static bool is_rebuilt(const escqrs_readmodel *model)
{
    return !model->frozen && model->copy == NULL && !model->rebuild_wanted && !model->refilling;
}

/* How long the first event behind `position` has been there; 0: there is none, or it cannot be
 * read. */
static int64_t lag_of(const escqrs_projector *projector, int64_t position, int64_t head)
{
    escqrs_range range = {.after = position, .limit = 1};
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *next = NULL;
    int64_t lag_us = 0;
    if (position >= head ||
        escqrs_store_events(projector->store, &range, &cursor, NULL) != ESCQRS_OK) {
        return 0;
    }
    if (escqrs_cursor_next(cursor, &next, NULL) == ESCQRS_OK) {
        lag_us = escqrs_clock_now_us(&projector->clock) - next->time_us;
    }
    escqrs_cursor_close(cursor);
    return lag_us > 0 ? lag_us : 1;
}

/* Under the mutex: how far a rebuild is; -1: it has not begun, or none is under way. */
static int64_t rebuilt_position(const escqrs_readmodel *model)
{
    if (model->copy != NULL) {
        return model->copy->position;
    }
    return model->refilling ? model->live.position : -1;
}

void escqrs_readmodel_get_status(escqrs_readmodel *model, escqrs_readmodel_status *status)
{
    escqrs_projector *projector = model->projector;
    *status = (escqrs_readmodel_status){0};
    if (projector->readonly) {
        esc_checkpoint checkpoint;
        escqrs_error error = {0};
        if (esc_model_look_up(model, &checkpoint, &error) == ESCQRS_OK && checkpoint.found) {
            esc_mutex_lock(&projector->mutex);
            if (model->live.position != checkpoint.position) {
                /* Whoever sees it first, here or in wait_changed, tells all who wait. */
                model->live.position = checkpoint.position;
                model->changes++;
                esc_cond_broadcast(&projector->changed);
            }
            esc_mutex_unlock(&projector->mutex);
        }
    }
    int64_t head = escqrs_store_head(projector->store);
    esc_mutex_lock(&projector->mutex);
    status->position = position_of(model);
    status->rebuilding = !is_rebuilt(model);
    status->rebuilt = rebuilt_position(model);
    status->error = model->error;
    status->parked = model->parked;
    status->rate = esc_rate_now(&model->rate);
    const esc_follower *counting = model->frozen ? model->copy : &model->live;
    bool stopped = model->stopped;
    bool retrying = model->retrying;
    if ((stopped || retrying) && counting != NULL &&
        counting->attempt_position == model->error.position) {
        status->attempts = counting->attempts;
    }
    bool level = projector->readonly ? status->position >= head : model->level && !model->frozen;
    esc_mutex_unlock(&projector->mutex);
    status->head = head > status->position ? head : status->position;
    status->state = stopped    ? ESCQRS_READMODEL_STOPPED
                    : retrying ? ESCQRS_READMODEL_RETRYING
                    : level    ? ESCQRS_READMODEL_LIVE
                               : ESCQRS_READMODEL_CATCHING_UP;
    status->lag_us = lag_of(projector, status->position, head);
}

/* ---- changes --------------------------------------------------------------------------------- */

void escqrs_readmodel_kick(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    if (!esc_projector_is_forked(projector)) {
        esc_mutex_lock(&projector->mutex);
        model->changes++;
        esc_cond_broadcast(&projector->changed);
        esc_mutex_unlock(&projector->mutex);
    }
}

escqrs_status escqrs_readmodel_wait_changed(escqrs_readmodel *model, uint64_t *seen,
                                            int64_t deadline_ns, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_status status = ESCQRS_OK;
    if (esc_projector_is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    esc_mutex_lock(&projector->mutex);
    while (status == ESCQRS_OK && model->changes == *seen) {
        int64_t slice_ns = projector->readonly ? esc_deadline_after(LOOK_EVERY_NS) : deadline_ns;
        bool last = slice_ns >= deadline_ns;
        if (projector->stopping || projector->ended) {
            status = escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
        } else if (!esc_cond_wait_until(&projector->changed, &projector->mutex,
                                        last ? deadline_ns : slice_ns) &&
                   last && model->changes == *seen) {
            status = escqrs_error_set(error, ESCQRS_TIMEOUT, "read model %s has not changed",
                                      model->definition.name);
        } else if (projector->readonly && !projector->stopping) {
            esc_mutex_unlock(&projector->mutex);
            escqrs_readmodel_status found; /* not there for a moment: it is looked again */
            escqrs_readmodel_get_status(model, &found);
            esc_mutex_lock(&projector->mutex);
        }
    }
    *seen = model->changes;
    esc_mutex_unlock(&projector->mutex);
    return status;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static escqrs_status say_stopped(const escqrs_readmodel *model, escqrs_error *error)
{
    if (error != NULL) {
        *error = model->error;
        error->status = ESCQRS_READ_MODEL_STOPPED;
        esc_error_subject(error, escqrs_slice_of(model->definition.name));
    }
    return ESCQRS_READ_MODEL_STOPPED;
}

/* Once: whoever waits next is not to blame for it. */
static escqrs_status say_rebuild_failed(escqrs_readmodel *model, escqrs_error *error)
{
    model->rebuild_failed = false;
    escqrs_status status = say_stopped(model, error);
    if (error != NULL) {
        esc_error_prefix(error, "rebuilding was given up, the old rows stay: ");
    }
    return status;
}

/* The file belongs to another process: nothing tells us when it has moved on. */
static escqrs_status wait_readonly(escqrs_readmodel *model, int64_t position, int64_t deadline_ns,
                                   escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    for (;;) {
        escqrs_readmodel_status status;
        escqrs_readmodel_get_status(model, &status);
        if (status.position >= position) {
            return ESCQRS_OK;
        }
        if (escqrs_clock_monotonic_ns(NULL) >= deadline_ns) {
            return escqrs_error_set(
                error, ESCQRS_TIMEOUT, "read model %s is at %lld, not yet at %lld",
                model->definition.name, (long long)status.position, (long long)position);
        }
        int64_t slice = esc_deadline_after(LOOK_EVERY_NS);
        esc_mutex_lock(&projector->mutex);
        bool stopping = projector->stopping;
        if (!stopping) {
            (void)esc_cond_wait_until(&projector->changed, &projector->mutex,
                                      slice < deadline_ns ? slice : deadline_ns);
        }
        esc_mutex_unlock(&projector->mutex);
        if (stopping) {
            return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
        }
    }
}

static bool is_there(const escqrs_readmodel *model, int64_t position, bool rebuilt)
{
    if (rebuilt) {
        return is_rebuilt(model);
    }
    return !model->frozen && model->live.position >= position;
}

static escqrs_status wait_for(escqrs_readmodel *model, int64_t position, bool rebuilt,
                              int64_t deadline_ns, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    if (esc_projector_is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    if (projector->readonly) {
        return rebuilt ? ESCQRS_OK : wait_readonly(model, position, deadline_ns, error);
    }
    escqrs_status status = ESCQRS_OK;
    esc_mutex_lock(&projector->mutex);
    uint64_t failures = model->failures;
    if (model->troubled && !is_there(model, position, rebuilt)) { /* perhaps there is room by now */
        model->retry_at_ns = 0;
        esc_mutex_unlock(&projector->mutex);
        esc_projector_wake(projector);
        esc_mutex_lock(&projector->mutex);
    }
    if (rebuilt && is_there(model, position, rebuilt) && model->rebuild_failed) {
        status = say_rebuild_failed(model, error);
    }
    while (status == ESCQRS_OK && !is_there(model, position, rebuilt)) {
        if (model->stopped && !model->rebuild_wanted) {
            status = say_stopped(model, error);
        } else if (projector->stopping || projector->ended) {
            status = escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
        } else if (model->failures != failures && model->troubled) {
            status = model->error.status;
            if (error != NULL) {
                *error = model->error;
            }
        } else if (!esc_cond_wait_until(&projector->changed, &projector->mutex, deadline_ns) &&
                   !is_there(model, position, rebuilt)) {
            status = escqrs_error_set(
                error, ESCQRS_TIMEOUT, "read model %s is at %lld, not yet at %lld",
                model->definition.name, (long long)position_of(model), (long long)position);
        }
        if (status == ESCQRS_OK && rebuilt && is_there(model, position, rebuilt) &&
            model->rebuild_failed) {
            status = say_rebuild_failed(model, error);
        }
    }
    esc_mutex_unlock(&projector->mutex);
    return status;
}

escqrs_status escqrs_readmodel_wait(escqrs_readmodel *model, int64_t position, int64_t deadline_ns,
                                    escqrs_error *error)
{
    return wait_for(model, position, false, deadline_ns, error);
}

escqrs_status escqrs_readmodel_wait_rebuilt(escqrs_readmodel *model, int64_t deadline_ns,
                                            escqrs_error *error)
{
    return wait_for(model, 0, true, deadline_ns, error);
}

escqrs_status escqrs_readmodel_wait_progress(escqrs_readmodel *model, int64_t *seen,
                                             int64_t deadline_ns, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_status status = ESCQRS_OK;
    if (esc_projector_is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    esc_mutex_lock(&projector->mutex);
    for (;;) {
        int64_t position = rebuilt_position(model);
        if (is_rebuilt(model) || (model->stopped && !model->rebuild_wanted)) {
            status = ESCQRS_DONE;
            break;
        }
        if (position >= 0 && position != *seen) {
            *seen = position;
            break;
        }
        if (projector->stopping || projector->ended) {
            status = escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
            break;
        }
        if (!esc_cond_wait_until(&projector->changed, &projector->mutex, deadline_ns)) {
            status = escqrs_error_set(error, ESCQRS_TIMEOUT, "read model %s is at %lld",
                                      model->definition.name, (long long)position);
            break;
        }
    }
    esc_mutex_unlock(&projector->mutex);
    return status;
}
