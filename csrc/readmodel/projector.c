/* The projector: one thread that keeps all read models of a store level with its events.
 *
 * Design
 *   - A turn takes the followers (see projector.h) that stand at one position, reads a batch behind
 *     it, up to where the next group stands, and applies it in one transaction. Turns alternate
 *     between the group that is furthest behind and the one that is furthest ahead, so that a new
 *     read model that catches up does not keep the others from being live.
 *   - A transaction on the writing connection ends early when commits wait; the rest of the batch
 *     follows in the next.
 *   - A rebuild fills a copy in a database of its own, outside the store's file, without the
 *     writing connection. When it is level, one transaction drops the old tables, makes the new
 *     ones with the copy's rows, and writes the checkpoint. A crash before that leaves the old
 *     ones, and the rebuild begins again.
 *   - What is said about a read model (status, wait) is guarded by the mutex. The thread writes it,
 *     with two exceptions: retry and skip act on a stopped follower, which the thread leaves alone.
 *
 * Sleeping: the thread waits in escqrs_store_wait for the head to move. Whoever wants it for
 * something else sets what he wants under the mutex, sets `cancel`, and then wakes the store; the
 * thread clears `cancel` before it looks.
 *
 * Lock order: the mutex is a leaf: nothing is called while it is held, neither the store nor the
 * log nor the host. */
#include "readmodel/projector.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/sql.h"

#define RETRY_AFTER_NS 1000000000LL /* after a full disk and the like */

static escqrs_readmodel *model_at(const escqrs_projector *projector, size_t index)
{
    return ESC_VECTOR_AT(&projector->models, escqrs_readmodel *, index);
}

static bool is_forked(const escqrs_projector *projector)
{
    return projector->fork_generation != escqrs_fork_generation();
}

static escqrs_slice topic_key(const void *topic)
{
    return escqrs_slice_of(((const esc_topic *)topic)->type);
}

/* Not under the mutex. Release: pairs with the acquire of escqrs_store_wait, which then sees what
 * was wanted. */
static void wake_up(escqrs_projector *projector)
{
    atomic_store_explicit(&projector->cancel, 1, memory_order_release);
    escqrs_store_wake(projector->store);
}

/* ---- work on the writing connection ------------------------------------------------------------------- */

typedef struct writer_call {
    escqrs_projector *projector;
    escqrs_readmodel *model;
    esc_run *run;
    sqlite3 *from;
    int64_t position;
    bool changed;  /* result of add: the live tables are of another definition */
    bool refilled; /* result of add: they were, and are empty now */
} writer_call;

static escqrs_status end_transaction(sqlite3 *db, escqrs_status status, escqrs_error *error)
{
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(db, "COMMIT", error);
    }
    if (status != ESCQRS_OK && !sqlite3_get_autocommit(db)) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}

static escqrs_status work_run(void *context, void *sqlite, escqrs_error *error)
{
    writer_call *call = context;
    return esc_run_transaction(call->run, sqlite, &call->projector->control, error);
}

/* Put the rows of another database in the place of the read model's tables. */
static escqrs_status work_replace(void *context, void *sqlite, escqrs_error *error)
{
    writer_call *call = context;
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_check_names(sqlite, &call->model->definition, error);
    if (status == ESCQRS_OK) {
        status = esc_checkpoint_replace(sqlite, &call->model->definition, call->from,
                                        call->position, error);
    }
    return end_transaction(sqlite, status, error);
}

/* Move the checkpoint of a stopped read model past the event. */
static escqrs_status work_skip(void *context, void *sqlite, escqrs_error *error)
{
    writer_call *call = context;
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

static escqrs_status work_finalize(void *context, void *sqlite, escqrs_error *error)
{
    (void)sqlite;
    (void)error;
    escqrs_projector *projector = context;
    for (size_t i = 0; i < projector->models.count; i++) {
        esc_follower_finalize(&model_at(projector, i)->live);
    }
    esc_control_fini(&projector->control);
    return ESCQRS_OK;
}

/* Asks whether there is a writing connection. */
static escqrs_status work_nothing(void *context, void *sqlite, escqrs_error *error)
{
    (void)context;
    (void)sqlite;
    (void)error;
    return ESCQRS_OK;
}

/* ---- what happened to a read model -------------------------------------------------------------------- */

static void log_error(escqrs_projector *projector, const char *text)
{
    escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR, "%s", text);
}

static bool counts(const esc_follower *follower) /* does it stand for its read model? */
{
    const escqrs_readmodel *model = follower->model;
    return model->frozen ? follower == model->copy : follower == &model->live;
}

static void copy_destroy(esc_follower *copy)
{
    if (copy != NULL) {
        esc_follower_finalize(copy);
        (void)sqlite3_close(copy->db);
        escqrs_free(copy);
    }
}

static void drop_copy(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    esc_follower *copy = model->copy;
    model->copy = NULL;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    copy_destroy(copy);
}

/* It cannot take an event. */
static void stop_follower(esc_follower *follower, const escqrs_error *error)
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
        drop_copy(model);
    }
}

/* The machine is to blame: later again. */
static void trouble_model(escqrs_readmodel *model, const escqrs_error *error)
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
        log_error(projector, shown.message);
    }
}

static void advance(esc_follower *follower, int64_t position, int64_t head)
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

/* ---- rebuilding ----------------------------------------------------------------------------------------- */

static escqrs_status make_copy(escqrs_readmodel *model, esc_follower **copy, escqrs_error *error)
{
    *copy = escqrs_alloc_zero(sizeof(esc_follower));
    if (*copy == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to rebuild a read model");
    }
    (*copy)->model = model;
    escqrs_status status = esc_definition_make_copy(&model->definition, model->projector->in_memory,
                                                    &(*copy)->db, error);
    if (status != ESCQRS_OK) {
        escqrs_free(*copy);
        *copy = NULL;
    }
    return status;
}

/* Make the live tables anew with these rows. */
static escqrs_status replace(escqrs_readmodel *model, sqlite3 *from, int64_t position,
                             escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    writer_call call = {.projector = projector, .model = model, .from = from, .position = position};
    escqrs_status status = escqrs_store_run(projector->store, false, work_replace, &call, error);
    if (status == ESCQRS_OK) {
        int64_t head = escqrs_store_head(projector->store);
        esc_mutex_lock(&projector->mutex);
        model->live.position = position;
        model->frozen = false;
        model->level = position >= head;
        model->refilling = position == 0 && head > 0;
        model->stopped = false;
        model->troubled = false;
        model->error = (escqrs_error){0};
        esc_cond_broadcast(&projector->changed);
        esc_mutex_unlock(&projector->mutex);
    }
    return status;
}

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
    drop_copy(model);
    if (model->definition.has_virtual) {
        status = replace(model, model->definition.scratch, 0, &error);
    } else {
        status = make_copy(model, &copy, &error);
    }
    if (status != ESCQRS_OK) {
        trouble_model(model, &error);
        return false;
    }
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    model->copy = copy;
    model->rebuild_wanted = false;
    if (copy != NULL && model->stopped) { /* its tables end at an event that it could not take */
        model->frozen = true;
    }
    model->stopped = false;
    model->troubled = false;
    model->error = (escqrs_error){0};
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    return true;
}

static void swap(escqrs_readmodel *model)
{
    escqrs_error error = {0};
    escqrs_status status = replace(model, model->copy->db, model->copy->position, &error);
    if (status == ESCQRS_OK) {
        drop_copy(model);
    } else if (status == ESCQRS_INVALID || status == ESCQRS_NAME_CLASH ||
               status == ESCQRS_CORRUPT) {
        error.position = model->copy->position;
        stop_follower(model->copy, &error);
    } else {
        trouble_model(model, &error);
    }
}

/* ---- a turn --------------------------------------------------------------------------------------------- */

/* May the thread work on it now? `*wake_ns` becomes the earliest time at which one that may not,
 * may. */
static bool is_free(escqrs_readmodel *model, int64_t now_ns, int64_t *wake_ns)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool is_early = model->troubled && model->retry_at_ns > now_ns;
    bool is_free = !model->busy && !is_early;
    if (is_early && !model->busy && model->retry_at_ns < *wake_ns) {
        *wake_ns = model->retry_at_ns;
    }
    esc_mutex_unlock(&projector->mutex);
    return is_free;
}

static bool wants_rebuild(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool wants = model->rebuild_wanted || (model->frozen && model->copy == NULL && !model->stopped);
    esc_mutex_unlock(&projector->mutex);
    return wants;
}

static bool is_stopped(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool stopped = model->stopped;
    esc_mutex_unlock(&projector->mutex);
    return stopped;
}

typedef struct choice {
    size_t count; /* of projector->members */
    int64_t position;
    int64_t bound;
    bool copies;
} choice;

typedef struct looks {
    int64_t low, high; /* of all followers that have something to do */
    bool any;
} looks;

static void look_at(looks *look, const esc_follower *follower, int64_t bound)
{
    if (follower->position < bound) {
        look->low = !look->any || follower->position < look->low ? follower->position : look->low;
        look->high =
            !look->any || follower->position > look->high ? follower->position : look->high;
        look->any = true;
    }
}

/* Which of a model's followers follow now. */
static bool live_follows(escqrs_readmodel *model)
{
    return !model->frozen && !is_stopped(model);
}

/* How far the copy may go now; 0: it does not follow. Not beyond the live tables that it will
 * replace. */
static int64_t copy_bound(escqrs_readmodel *model, int64_t head)
{
    escqrs_projector *projector = model->projector;
    int64_t bound = 0;
    esc_mutex_lock(&projector->mutex);
    if (model->copy != NULL && !(model->frozen && model->stopped)) {
        bound = model->frozen || model->live.position > head ? head : model->live.position;
    }
    esc_mutex_unlock(&projector->mutex);
    return bound;
}

static bool choose(escqrs_projector *projector, int64_t head, int64_t now_ns, int64_t *wake_ns,
                   choice *chosen)
{
    looks look = {0};
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = model_at(projector, i);
        if (!is_free(model, now_ns, wake_ns)) {
            continue;
        }
        if (live_follows(model)) {
            look_at(&look, &model->live, head);
        }
        int64_t bound = copy_bound(model, head);
        if (bound > 0) { /* else skip may be moving it */
            look_at(&look, model->copy, bound);
        }
    }
    *chosen = (choice){.bound = head};
    if (!look.any) {
        return false;
    }
    chosen->position = (projector->turn++ & 1) != 0 ? look.high : look.low;
    esc_follower *copy = NULL;
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = model_at(projector, i);
        if (!is_free(model, now_ns, wake_ns)) {
            continue;
        }
        if (live_follows(model)) {
            if (model->live.position == chosen->position) {
                projector->members[chosen->count++] = &model->live;
            } else if (model->live.position > chosen->position &&
                       model->live.position < chosen->bound) {
                chosen->bound = model->live.position;
            }
        }
        if (copy == NULL && copy_bound(model, head) > chosen->position &&
            model->copy->position == chosen->position) {
            copy = model->copy;
        }
    }
    if (chosen->count == 0) {
        /* a copy goes alone, and not beyond the live one that it will replace */
        ESC_ASSERT(copy != NULL);
        projector->members[0] = copy;
        chosen->count = 1;
        chosen->copies = true;
        chosen->bound = copy_bound(copy->model, head);
    }
    return true;
}

/* Apply what of the batch is left in one transaction. False: no more of this batch. */
static bool run_once(escqrs_projector *projector, const choice *chosen, size_t *first, int64_t head)
{
    escqrs_error error = {0};
    esc_run run = {.projector = projector,
                   .members = projector->members,
                   .member_count = chosen->count,
                   .first = *first,
                   .copies = chosen->copies};
    for (size_t i = 0; i < chosen->count; i++) {
        projector->members[i]->active = true;
        projector->members[i]->limit = INT64_MAX;
        run.savepoints = run.savepoints || projector->members[i]->model->definition.has_apply;
    }
    escqrs_status status;
    if (chosen->copies) {
        status = esc_run_transaction(&run, projector->members[0]->db,
                                     &projector->members[0]->control, &error);
    } else {
        writer_call call = {.projector = projector, .run = &run};
        status = escqrs_store_run(projector->store, false, work_run, &call, &error);
    }
    bool whole = status == ESCQRS_OK && run.next < projector->batch.items.count;
    for (size_t i = 0; i < chosen->count; i++) {
        esc_follower *follower = projector->members[i];
        follower->active = false;
        if (status == ESCQRS_OK) {
            bool failed = follower->limit <= run.upto;
            advance(follower, failed ? follower->limit - 1 : run.upto, head);
            if (failed) {
                stop_follower(follower, &follower->failure);
                whole = false; /* the group has changed */
            }
        } else if (run.culprit == follower) {
            error.position = follower->position;
            stop_follower(follower, &error);
        } else if (run.culprit == NULL && status != ESCQRS_CLOSED) {
            trouble_model(follower->model, &error);
        }
    }
    *first = run.next;
    return whole;
}

static bool is_stopping(escqrs_projector *projector)
{
    esc_mutex_lock(&projector->mutex);
    bool stopping = projector->stopping;
    esc_mutex_unlock(&projector->mutex);
    return stopping;
}

static void run_group(escqrs_projector *projector, const choice *chosen, int64_t head)
{
    escqrs_error error = {0};
    escqrs_status status = esc_batch_read(projector, chosen->position, chosen->bound, &error);
    if (status == ESCQRS_DONE) { /* the store says that there are more events, and gives none */
        status = escqrs_error_set(&error, ESCQRS_CORRUPT, "event %lld cannot be found",
                                  (long long)chosen->position + 1);
    }
    if (status != ESCQRS_OK) {
        for (size_t i = 0; i < chosen->count; i++) {
            esc_follower *follower = projector->members[i];
            if (status == ESCQRS_CORRUPT) {
                escqrs_error own = error;
                own.position = chosen->position + 1;
                esc_error_prefix(&own, "read model %s stopped at position %lld: ",
                                 follower->model->definition.name, (long long)own.position);
                esc_error_subject(&own, escqrs_slice_of(follower->model->definition.name));
                stop_follower(follower, &own);
            } else if (status != ESCQRS_CLOSED) {
                trouble_model(follower->model, &error);
            }
        }
        return;
    }
    size_t next = 0;
    while (run_once(projector, chosen, &next, head) && !is_stopping(projector)) {
    }
    esc_batch_clear(&projector->batch);
}

/* Is the copy ready to take the place of the live tables? Never before it knows what they know. */
static bool is_level(escqrs_readmodel *model, int64_t head)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool level = model->copy != NULL && !(model->frozen && model->stopped) &&
                 model->copy->position >= (model->frozen ? head : model->live.position);
    esc_mutex_unlock(&projector->mutex);
    return level;
}

/* One piece of work. False: nothing to do before the head is above `*head`, `*wake_ns`, or a
 * wake-up. */
static bool take_turn(escqrs_projector *projector, int64_t *head, int64_t *wake_ns)
{
    int64_t now_ns = escqrs_clock_monotonic_ns(NULL);
    *head = escqrs_store_head(projector->store);
    *wake_ns = ESC_DEADLINE_NEVER;
    bool done = false;
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = model_at(projector, i);
        if (!is_free(model, now_ns, wake_ns)) {
            continue;
        }
        bool wanted = wants_rebuild(model);
        if ((wanted || is_level(model, *head)) && claim(model)) {
            done = true;
            if (!wanted) {
                swap(model);
            } else if (!begin_rebuild(model)) {
                done = false;
            }
            unclaim(model);
        }
    }
    choice chosen;
    if (choose(projector, *head, now_ns, wake_ns, &chosen)) {
        run_group(projector, &chosen, *head);
        done = true;
    }
    return done;
}

/* ---- thread --------------------------------------------------------------------------------------------- */

static void follow(escqrs_projector *projector)
{
    while (!is_stopping(projector)) {
        int64_t head = 0;
        int64_t wake_ns = ESC_DEADLINE_NEVER;
        /* Before looking at what is wanted; pairs with the release in wake_up. */
        (void)atomic_exchange_explicit(&projector->cancel, 0, memory_order_acq_rel);
        if (is_stopping(projector)) {
            return;
        }
        if (take_turn(projector, &head, &wake_ns)) {
            continue;
        }
        if (escqrs_store_wait(projector->store, head, &projector->cancel, wake_ns) ==
            ESCQRS_CLOSED) {
            return;
        }
    }
}

static void run_thread(void *context)
{
    escqrs_projector *projector = context;
    bool usable = true;
    if (projector->has_host) {
        projector->host_state = projector->host.thread_begin(projector->host_context);
        usable = projector->host_state != NULL;
    }
    if (usable) {
        follow(projector);
    } else {
        log_error(projector,
                  "the projector's thread cannot enter its host; read models stand still");
    }
    if (projector->has_host && usable) {
        projector->host.thread_end(projector->host_context, projector->host_state);
        projector->host_state = NULL;
    }
    esc_mutex_lock(&projector->mutex);
    projector->ended = true;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}

escqrs_status escqrs_projector_start(escqrs_projector *projector, escqrs_error *error)
{
    if (is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a projector was used in a child of fork()");
    }
    if (projector->readonly || projector->models.count == 0) {
        return ESCQRS_OK;
    }
    ESC_ASSERT(!projector->started);
    escqrs_status status =
        esc_thread_create(&projector->thread, "escqrs-project", 0, run_thread, projector, error);
    projector->started = status == ESCQRS_OK;
    return status;
}

bool escqrs_projector_step(escqrs_projector *projector)
{
    ESC_ASSERT(!projector->started);
    int64_t head = 0;
    int64_t wake_ns = 0;
    return take_turn(projector, &head, &wake_ns);
}

void escqrs_projector_stop(escqrs_projector *projector)
{
    if (is_forked(projector)) {
        return;
    }
    esc_mutex_lock(&projector->mutex);
    bool join = projector->started;
    bool first = !projector->stopping;
    projector->stopping = true;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (!first) {
        return; /* the store may be gone by now */
    }
    wake_up(projector);
    if (join) {
        esc_thread_join(&projector->thread);
    }
    esc_projector_close_feeds(projector);
    if (!projector->readonly) {
        escqrs_error error = {0};
        escqrs_status status =
            escqrs_store_run(projector->store, false, work_finalize, projector, &error);
        if (status != ESCQRS_OK) {
            /* closed before its projector: statements are left open */
            log_error(projector, error.message);
        }
    }
}

/* ---- create and destroy ------------------------------------------------------------------------------------ */

escqrs_status escqrs_projector_create(escqrs_store *store, const escqrs_host_ops *host,
                                      void *host_context, const escqrs_log *log,
                                      escqrs_projector **projector, escqrs_error *error)
{
    escqrs_projector *made = escqrs_alloc_zero(sizeof(escqrs_projector));
    *projector = NULL;
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a projector");
    }
    made->store = store;
    if (host != NULL) {
        made->host = *host;
        made->has_host = host->attach != NULL;
    }
    made->host_context = host_context;
    if (log != NULL) {
        made->log = *log;
    }
    made->in_memory = strcmp(escqrs_store_path(store), ":memory:") == 0;
    made->readonly = escqrs_store_run(store, false, work_nothing, NULL, NULL) == ESCQRS_READ_ONLY;
    made->fork_generation = escqrs_fork_generation();
    esc_vector_init(&made->models, sizeof(escqrs_readmodel *));
    esc_vector_init(&made->topics, sizeof(esc_topic *));
    esc_map_init(&made->topics_by_type, topic_key, NULL);
    esc_vector_init(&made->batch.items, sizeof(esc_item));
    esc_arena_init(&made->batch.arena, 1u << 16);
    esc_mutex_init(&made->mutex);
    esc_cond_init(&made->changed);
    *projector = made;
    return ESCQRS_OK;
}

static void topic_destroy(esc_topic *topic)
{
    escqrs_free(topic->type);
    esc_vector_fini(&topic->subscriptions);
    escqrs_free(topic);
}

static void model_destroy(escqrs_readmodel *model)
{
    copy_destroy(model->copy);
    esc_definition_fini(&model->definition);
    escqrs_free(model);
}

void escqrs_projector_destroy(escqrs_projector *projector)
{
    if (projector == NULL || is_forked(projector)) {
        return;
    }
    escqrs_projector_stop(projector);
    for (size_t i = 0; i < projector->topics.count; i++) {
        topic_destroy(ESC_VECTOR_AT(&projector->topics, esc_topic *, i));
    }
    for (size_t i = 0; i < projector->models.count; i++) {
        model_destroy(model_at(projector, i));
    }
    esc_map_fini(&projector->topics_by_type);
    esc_vector_fini(&projector->topics);
    esc_vector_fini(&projector->models);
    esc_batch_fini(&projector->batch);
    esc_buffer_fini(&projector->json);
    escqrs_free(projector->members);
    esc_cond_fini(&projector->changed);
    esc_mutex_fini(&projector->mutex);
    escqrs_free(projector);
}

escqrs_readmodel *escqrs_projector_find(escqrs_projector *projector, escqrs_slice name)
{
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = model_at(projector, i);
        if (escqrs_slice_equal(escqrs_slice_of(model->definition.name), name)) {
            return model;
        }
    }
    return NULL;
}

/* ---- adding ------------------------------------------------------------------------------------------------- */

/* Two read models of this projector may want one name though neither has made it yet. */
static escqrs_status check_siblings(escqrs_projector *projector, const esc_definition *definition,
                                    escqrs_error *error)
{
    if (escqrs_projector_find(projector, escqrs_slice_of(definition->name)) != NULL) {
        return escqrs_error_set(error, ESCQRS_NAME_CLASH, "two read models are called %s",
                                definition->name);
    }
    for (size_t i = 0; i < projector->models.count; i++) {
        const esc_definition *other = &model_at(projector, i)->definition;
        for (size_t j = 0; j < other->objects.count; j++) {
            for (size_t k = 0; k < definition->objects.count; k++) {
                const char *name = ESC_VECTOR_AT(&definition->objects, esc_object, k).name;
                if (sqlite3_stricmp(name, ESC_VECTOR_AT(&other->objects, esc_object, j).name) ==
                    0) {
                    return escqrs_error_set(
                        error, ESCQRS_NAME_CLASH,
                        "read models %s and %s both make %s; choose another name", other->name,
                        definition->name, name);
                }
            }
        }
    }
    return ESCQRS_OK;
}

static bool is_same(const escqrs_readmodel *model, const esc_checkpoint *checkpoint)
{
    return checkpoint->complete &&
           strcmp(checkpoint->fingerprint, model->definition.fingerprint) == 0;
}

/* Within a transaction: compare with what the file has, and make what is new. */
static escqrs_status prepare_tables(writer_call *call, sqlite3 *db, escqrs_error *error)
{
    escqrs_readmodel *model = call->model;
    esc_checkpoint checkpoint;
    escqrs_status status = esc_checkpoint_load(db, &model->definition, &checkpoint, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (checkpoint.found && is_same(model, &checkpoint)) {
        call->position = checkpoint.position;
        int64_t head = escqrs_store_head(call->projector->store);
        if (checkpoint.position < 0 || checkpoint.position > head) {
            return escqrs_error_set(
                error, ESCQRS_CORRUPT,
                "read model %s has seen event %lld, but the store ends at %lld; change "
                "its `version` to build it anew",
                model->definition.name, (long long)checkpoint.position, (long long)head);
        }
        return ESCQRS_OK;
    }
    if (checkpoint.found && model->definition.rebuild_manual) {
        return escqrs_error_set(
            error, ESCQRS_SCHEMA_MISMATCH,
            "read model %s has changed since the file was written (schema, SQL, handlers "
            "or version), and its `rebuild` is \"manual\"; open it once with rebuild = "
            "\"auto\" to build it anew",
            model->definition.name);
    }
    status = esc_checkpoint_check_names(db, &model->definition, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    call->position = 0;
    if (checkpoint.found && checkpoint.position > 0 && !model->definition.has_virtual) {
        call->changed = true;
        return ESCQRS_OK;
    }
    call->refilled = checkpoint.found && checkpoint.position > 0;
    return esc_checkpoint_replace(db, &model->definition, model->definition.scratch, 0, error);
}

static escqrs_status work_add(void *context, void *sqlite, escqrs_error *error)
{
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    return end_transaction(sqlite, prepare_tables(context, sqlite, error), error);
}

/* A read-only store: it must be there as specified. */
static escqrs_status look_up(escqrs_readmodel *model, esc_checkpoint *checkpoint,
                             escqrs_error *error)
{
    void *sqlite = NULL;
    escqrs_status status = escqrs_store_reader(model->projector->store, &sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_load(sqlite, &model->definition, checkpoint, error);
    escqrs_store_reader_return(model->projector->store, sqlite);
    return status;
}

static escqrs_status add_readonly(escqrs_readmodel *model, escqrs_error *error)
{
    esc_checkpoint checkpoint;
    escqrs_status status = look_up(model, &checkpoint, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (!checkpoint.found || !is_same(model, &checkpoint)) {
        return escqrs_error_set(
            error, ESCQRS_READ_ONLY,
            "the file has no read model %s of this definition, and it was opened "
            "readonly; open it once for writing",
            model->definition.name);
    }
    model->live.position = checkpoint.position;
    return ESCQRS_OK;
}

static escqrs_status find_topic(escqrs_projector *projector, const char *type, esc_topic **topic)
{
    *topic = esc_map_get(&projector->topics_by_type, escqrs_slice_of(type));
    if (*topic != NULL) {
        return ESCQRS_OK;
    }
    esc_topic *made = escqrs_alloc_zero(sizeof(esc_topic));
    if (made == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    esc_vector_init(&made->subscriptions, sizeof(esc_subscription));
    made->type = escqrs_strdup(escqrs_slice_of(type));
    if (made->type == NULL || esc_map_insert(&projector->topics_by_type, made) != ESCQRS_OK) {
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    if (esc_vector_push(&projector->topics, &made) != ESCQRS_OK) {
        (void)esc_map_remove(&projector->topics_by_type, escqrs_slice_of(type));
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    *topic = made;
    return ESCQRS_OK;
}

static void unsubscribe(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    for (size_t i = 0; i < projector->topics.count; i++) {
        esc_vector *subscriptions =
            &ESC_VECTOR_AT(&projector->topics, esc_topic *, i)->subscriptions;
        while (subscriptions->count > 0 && /* the newest model's stand last */
               ESC_VECTOR_AT(subscriptions, esc_subscription, subscriptions->count - 1).model ==
                   model) {
            esc_vector_pop(subscriptions);
        }
    }
}

static escqrs_status subscribe(escqrs_readmodel *model, escqrs_error *error)
{
    for (size_t i = 0; i < model->definition.projection_count; i++) {
        const esc_projection *projection = &model->definition.projections[i];
        esc_subscription subscription = {.model = model, .index = i};
        esc_topic *topic = NULL;
        if (find_topic(model->projector, projection->type, &topic) != ESCQRS_OK ||
            esc_vector_push(&topic->subscriptions, &subscription) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                    model->definition.name);
        }
        if (projection->sql == NULL) {
            topic->whole = true;
        } else if (topic->schema == NULL) {
            topic->schema = projection->schema;
        } else if (topic->schema != projection->schema) {
            return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                    "two classes for one name: %s, in read model %s",
                                    projection->type, model->definition.name);
        }
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_add(escqrs_projector *projector, const escqrs_readmodel_spec *spec,
                                   escqrs_readmodel **readmodel, escqrs_error *error)
{
    ESC_ASSERT(!projector->started);
    *readmodel = NULL;
    escqrs_readmodel *model = escqrs_alloc_zero(sizeof(escqrs_readmodel));
    if (model == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a read model");
    }
    model->projector = projector;
    model->live.model = model;
    bool subscribed = false;
    bool refilled = false;
    escqrs_status status = esc_definition_init(&model->definition, spec, error);
    if (status != ESCQRS_OK) {
        escqrs_free(model);
        return status;
    }
    if ((status = check_siblings(projector, &model->definition, error)) != ESCQRS_OK) {
        goto fail;
    }
    subscribed = true;
    if ((status = subscribe(model, error)) != ESCQRS_OK) {
        goto fail;
    }
    esc_follower **members =
        escqrs_realloc(projector->members, (projector->models.count + 1) * sizeof(esc_follower *));
    if (members != NULL) {
        projector->members = members;
    }
    if (members == NULL || esc_vector_reserve(&projector->models, 1) != ESCQRS_OK) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a read model");
        goto fail;
    }
    if (projector->readonly) {
        status = add_readonly(model, error);
    } else {
        writer_call call = {.projector = projector, .model = model};
        status = escqrs_store_run(projector->store, false, work_add, &call, error);
        model->live.position = call.position;
        model->frozen = call.changed;
        refilled = call.refilled;
    }
    if (status == ESCQRS_OK) {
        status = esc_vector_push(&projector->models, &model);
    }
    if (status != ESCQRS_OK) {
        goto fail;
    }
    if (model->frozen) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_INFO,
                         "read model %s has changed; it is built anew beside the old rows",
                         model->definition.name);
    }
    int64_t head = escqrs_store_head(projector->store);
    model->level = !model->frozen && model->live.position >= head;
    model->refilling = refilled && head > 0;
    *readmodel = model;
    return ESCQRS_OK;

fail:
    if (subscribed) {
        unsubscribe(model);
    }
    esc_definition_fini(&model->definition);
    escqrs_free(model);
    return status;
}

/* ---- status and waiting ------------------------------------------------------------------------------------- */

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

void escqrs_readmodel_get_status(escqrs_readmodel *model, escqrs_readmodel_status *status)
{
    escqrs_projector *projector = model->projector;
    *status = (escqrs_readmodel_status){0};
    if (projector->readonly) {
        esc_checkpoint checkpoint;
        escqrs_error error = {0};
        if (look_up(model, &checkpoint, &error) == ESCQRS_OK && checkpoint.found) {
            esc_mutex_lock(&projector->mutex);
            model->live.position = checkpoint.position;
            esc_mutex_unlock(&projector->mutex);
        }
    }
    int64_t head = escqrs_store_head(projector->store);
    esc_mutex_lock(&projector->mutex);
    status->position = position_of(model);
    status->rebuilding = !is_rebuilt(model);
    status->error = model->error;
    bool stopped = model->stopped;
    bool level = projector->readonly ? status->position >= head : model->level && !model->frozen;
    esc_mutex_unlock(&projector->mutex);
    status->head = head > status->position ? head : status->position;
    status->state = stopped ? ESCQRS_READMODEL_STOPPED
                    : level ? ESCQRS_READMODEL_LIVE
                            : ESCQRS_READMODEL_CATCHING_UP;
}

static escqrs_status say_stopped(const escqrs_readmodel *model, escqrs_error *error)
{
    if (error != NULL) {
        *error = model->error;
        error->status = ESCQRS_READ_MODEL_STOPPED;
        esc_error_subject(error, escqrs_slice_of(model->definition.name));
    }
    return ESCQRS_READ_MODEL_STOPPED;
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
        int64_t slice = esc_deadline_after(20000000);
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
    if (is_forked(projector)) {
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
        wake_up(projector);
        esc_mutex_lock(&projector->mutex);
    }
    while (!is_there(model, position, rebuilt)) {
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
        if (status != ESCQRS_OK) {
            break;
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

/* ---- what is asked of a read model ---------------------------------------------------------------------------- */

static escqrs_status check_writable(escqrs_readmodel *model, escqrs_error *error)
{
    if (is_forked(model->projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    if (model->projector->readonly) {
        return escqrs_error_set(error, ESCQRS_READ_ONLY,
                                "read model %s: the store was opened readonly",
                                model->definition.name);
    }
    return ESCQRS_OK;
}

static escqrs_status say_not_stopped(const escqrs_readmodel *model, escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "read model %s has not stopped",
                            model->definition.name);
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
    wake_up(projector);
    return ESCQRS_OK;
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
    wake_up(projector);
    return ESCQRS_OK;
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
        writer_call call = {.projector = projector, .model = model, .position = follower->position};
        status = escqrs_store_run(projector->store, false, work_skip, &call, error);
    }
    esc_mutex_lock(&projector->mutex);
    model->busy = false;
    if (status == ESCQRS_OK) {
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
        wake_up(projector);
    }
    return status;
}

/* ---- statements of functions ------------------------------------------------------------------------------------- */

static esc_follower *follower_on(escqrs_readmodel *model, const void *sqlite)
{
    return model->copy != NULL && model->copy->db == sqlite ? model->copy : &model->live;
}

static esc_cached_statement *cache_find(esc_statement_cache *cache, escqrs_slice sql)
{
    for (size_t i = 0; i < cache->count; i++) {
        esc_cached_statement *entry = &cache->entries[i];
        if (!entry->in_use && escqrs_slice_equal(escqrs_slice_of(entry->sql), sql)) {
            return entry;
        }
    }
    return NULL;
}

/* A place for one more: the statement that was not used for longest gives way. NULL: all are in
 * use. */
static esc_cached_statement *cache_place(esc_statement_cache *cache)
{
    if (cache->count < ESC_STATEMENT_CACHE_MAX) {
        return &cache->entries[cache->count];
    }
    esc_cached_statement *oldest = NULL;
    for (size_t i = 0; i < cache->count; i++) {
        esc_cached_statement *entry = &cache->entries[i];
        if (!entry->in_use && (oldest == NULL || entry->used < oldest->used)) {
            oldest = entry;
        }
    }
    return oldest;
}

escqrs_status escqrs_readmodel_statement(escqrs_readmodel *model, void *sqlite, escqrs_slice sql,
                                         void **statement, escqrs_error *error)
{
    esc_follower *follower = follower_on(model, sqlite);
    *statement = NULL;
    if (follower->cache == NULL) {
        follower->cache = escqrs_alloc_zero(sizeof(esc_statement_cache));
        if (follower->cache == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for statements");
        }
    }
    esc_statement_cache *cache = follower->cache;
    esc_cached_statement *entry = cache_find(cache, sql);
    if (entry == NULL) {
        escqrs_status status = esc_definition_check(&model->definition, sql, false, NULL, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        entry = cache_place(cache);
        if (entry == NULL) {
            return escqrs_error_set(error, ESCQRS_INVALID,
                                    "read model %s: more than %d statements open at once",
                                    model->definition.name, ESC_STATEMENT_CACHE_MAX);
        }
        char *text = escqrs_strdup(sql);
        sqlite3_stmt *prepared = NULL;
        if (text == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for statements");
        }
        if ((status = esc_rmsql_prepare(sqlite, sql, &prepared, error)) != ESCQRS_OK) {
            escqrs_free(text);
            return status;
        }
        if (entry == &cache->entries[cache->count]) {
            cache->count++;
        }
        (void)sqlite3_finalize(entry->statement);
        escqrs_free(entry->sql);
        *entry = (esc_cached_statement){.sql = text, .statement = prepared};
    }
    entry->in_use = true;
    entry->used = ++cache->clock;
    *statement = entry->statement;
    return ESCQRS_OK;
}

void escqrs_readmodel_statement_return(escqrs_readmodel *model, void *sqlite, void *statement)
{
    esc_statement_cache *cache = follower_on(model, sqlite)->cache;
    for (size_t i = 0; cache != NULL && i < cache->count; i++) {
        if (cache->entries[i].statement == statement) {
            (void)sqlite3_reset(statement);
            (void)sqlite3_clear_bindings(statement);
            cache->entries[i].in_use = false;
            return;
        }
    }
}
