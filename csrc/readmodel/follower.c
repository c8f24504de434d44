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

/* ---- rate ------------------------------------------------------------------------------------ */

#define RATE_WINDOW_NS 1000000000LL

static double per_second(int64_t count, int64_t elapsed_ns)
{
    return elapsed_ns <= 0 ? 0.0 : (double)count * 1e9 / (double)elapsed_ns;
}

void esc_rate_add(esc_rate *rate, int64_t count)
{
    int64_t now_ns = escqrs_clock_monotonic_ns(NULL);
    if (rate->begun_ns == 0) {
        *rate = (esc_rate){.begun_ns = now_ns, .before = -1.0};
    } else if (now_ns - rate->begun_ns >= RATE_WINDOW_NS) {
        rate->before = per_second(rate->count, now_ns - rate->begun_ns);
        rate->begun_ns = now_ns;
        rate->count = 0;
    }
    rate->count += count;
}

double esc_rate_now(const esc_rate *rate)
{
    int64_t elapsed_ns = escqrs_clock_monotonic_ns(NULL) - rate->begun_ns;
    if (rate->begun_ns == 0) {
        return 0.0;
    }
    return rate->before < 0.0 || elapsed_ns >= RATE_WINDOW_NS
               ? per_second(rate->count, elapsed_ns > 1000000 ? elapsed_ns : 1000000)
               : rate->before;
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

/* Attempts that have failed at this event so far. */
static uint32_t attempts_at(const esc_follower *follower, int64_t position)
{
    return follower->attempt_position == position ? follower->attempts : 0;
}

uint32_t esc_follower_attempts_left(const esc_follower *follower, int64_t position)
{
    const escqrs_readmodel *model = follower->model; /* whoever has one stream made waits for it */
    uint32_t allowed = follower == model->fresh ? 0 : model->definition.on_error.retry_count;
    uint32_t made = attempts_at(follower, position);
    return made < allowed ? allowed - made : 0;
}

static int64_t delay_before(const escqrs_failure_policy *policy, uint32_t attempt)
{
    int64_t delay_ns = policy->retry_delay_ns;
    for (uint32_t i = 1; i < attempt && delay_ns < policy->retry_delay_max_ns; i++) {
        delay_ns = delay_ns > INT64_MAX / 2 ? INT64_MAX : delay_ns * 2;
    }
    return delay_ns < policy->retry_delay_max_ns ? delay_ns : policy->retry_delay_max_ns;
}

/* It is tried again after a while. Here as below the log is written first: who waits for the change
 * finds it there. */
static void wait_and_retry(esc_follower *follower, const escqrs_error *error)
{
    escqrs_readmodel *model = follower->model;
    escqrs_projector *projector = model->projector;
    const escqrs_failure_policy *policy = &model->definition.on_error;
    int64_t delay_ns = delay_before(policy, follower->attempts);
    escqrs_log_write(&projector->log, ESCQRS_LOG_WARNING,
                     "%s. It is tried again in %.1f s, %u of %u times", error->message,
                     (double)delay_ns / 1e9, (unsigned)follower->attempts,
                     (unsigned)policy->retry_count);
    esc_mutex_lock(&projector->mutex);
    model->error = *error;
    model->error_is_rebuild = false;
    model->retrying = true;
    model->retry_at_ns = esc_projector_deadline(projector, delay_ns);
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}

/* It cannot take an event, for good. */
static void give_up(esc_follower *follower, const escqrs_error *error)
{
    escqrs_readmodel *model = follower->model;
    escqrs_projector *projector = model->projector;
    bool is_model = counts(follower);
    if (is_model) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
                         "%s. Mend the cause and call retry(), or leave the event out with skip()",
                         error->message);
    } else {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
                         "rebuilding was given up, the old rows stay: %s", error->message);
    }
    esc_mutex_lock(&projector->mutex);
    model->error = *error;
    model->troubled = false;
    model->retrying = false;
    model->stopped = model->stopped || is_model;
    model->rebuild_failed = model->rebuild_failed || !is_model;
    model->error_is_rebuild = !is_model;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (!is_model) {
        esc_copy_drop(model);
    }
}

void esc_follower_stop(esc_follower *follower, const escqrs_error *error)
{
    if (follower->attempt_position != error->position) {
        follower->attempt_position = error->position;
        follower->attempts = 0;
    }
    bool again = error->position > follower->position &&
                 esc_follower_attempts_left(follower, error->position) > 0;
    follower->attempts++;
    if (again) {
        wait_and_retry(follower, error);
    } else {
        give_up(follower, error);
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
    model->retry_at_ns = esc_projector_deadline(projector, RETRY_AFTER_NS);
    model->error = *error;
    model->error_is_rebuild = false;
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
    bool is_model = counts(follower);
    if (follower->parked_in_run > 0) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
                         "%s. The event is parked (%zu in this batch), and the later ones of its "
                         "stream behind it: see the table escqrs_dead_letter",
                         follower->failure.message, follower->parked_in_run);
    }
    esc_mutex_lock(&projector->mutex);
    if (position > follower->position) { /* else commits have moved it already */
        if (is_model) {
            esc_rate_add(&model->rate, position - follower->position);
        }
        follower->position = position;
        model->changes += follower == &model->live;
    }
    if (follower == &model->live && !model->frozen && position >= head) {
        model->level = true;
        model->refilling = false;
    }
    if (model->troubled || (model->retrying && position >= model->error.position)) {
        model->troubled = false;
        model->retrying = false;
        model->error = (escqrs_error){0};
    }
    if (is_model && follower->parked_position > 0) {
        model->parked = follower->parked_events;
        if (follower->parked_in_run > 0) {
            model->error = follower->failure;
            model->error_is_rebuild = false;
        }
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}
