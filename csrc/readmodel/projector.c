/* The projector: one thread that keeps all read models of a store level with its events.
 *
 * Design
 *   - A turn takes the followers (see projector.h) that stand at one position, reads a batch behind
 *     it, up to where the next group stands, and applies it in one transaction. Turns alternate
 *     between the group that is furthest behind and the one that is furthest ahead, so that a new
 *     read model that catches up does not keep the others from being live.
 *   - A transaction on the writing connection ends early when commits wait; the rest of the batch
 *     follows in the next. One on a copy ends after a while, and then it is another group's turn.
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

#include <string.h>

#include "base/assert.h"
#include "base/error.h"

/* ---- work on the writing connection ---------------------------------------------------------- */

/* Not under the mutex. Release: pairs with the acquire of escqrs_store_wait, which then sees what
 * was wanted. */
void esc_projector_wake(escqrs_projector *projector)
{
    atomic_store_explicit(&projector->cancel, 1, memory_order_release);
    escqrs_store_wake(projector->store);
}

int64_t esc_projector_deadline(const escqrs_projector *projector, int64_t delay_ns)
{
    int64_t due_ns;
    return __builtin_add_overflow(escqrs_clock_monotonic_ns(&projector->clock), delay_ns, &due_ns)
               ? INT64_MAX
               : due_ns;
}

static escqrs_status work_run(void *context, void *sqlite, escqrs_error *error)
{
    esc_run *run = context;
    escqrs_status status = esc_run_transaction(run, sqlite, &run->projector->control, error);
    for (size_t i = 0; status == ESCQRS_OK && i < run->member_count; i++) {
        esc_follower *follower = run->members[i];
        if (follower->limit > run->upto && run->upto == escqrs_store_head(run->projector->store)) {
            esc_inline_enter(follower->model, run->upto);
        }
    }
    return status;
}

static escqrs_status work_finalize(void *context, void *sqlite, escqrs_error *error)
{
    (void)sqlite;
    (void)error;
    escqrs_projector *projector = context;
    esc_inliner_end(projector);
    for (size_t i = 0; i < projector->models.count; i++) {
        esc_follower_finalize(&esc_projector_model(projector, i)->live);
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

/* ---- a turn ---------------------------------------------------------------------------------- */

/* May the thread work on it now? `*wake_ns` becomes the earliest time at which one that may not,
 * may. */
static bool is_free(escqrs_readmodel *model, int64_t now_ns, int64_t *wake_ns)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool is_early = (model->troubled || model->retrying) && model->retry_at_ns > now_ns;
    bool is_free =
        !model->busy && !is_early && (model->definition.is_inline || !projector->inline_only);
    if (is_early && !model->busy && model->retry_at_ns < *wake_ns) {
        *wake_ns = model->retry_at_ns;
    }
    esc_mutex_unlock(&projector->mutex);
    return is_free;
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
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool follows = !model->frozen && !model->stopped && !model->inlined;
    esc_mutex_unlock(&projector->mutex);
    return follows;
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
        escqrs_readmodel *model = esc_projector_model(projector, i);
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
    esc_follower *side = NULL; /* in a file of its own */
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (!is_free(model, now_ns, wake_ns)) {
            continue;
        }
        if (live_follows(model)) {
            if (model->live.position == chosen->position && model->live.db != NULL) {
                side = side == NULL ? &model->live : side;
            } else if (model->live.position == chosen->position) {
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
    if (chosen->count == 0 && side != NULL) { /* its transaction is another one */
        projector->members[0] = side;
        chosen->count = 1;
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
    if (projector->members[0]->db != NULL) {
        status = esc_run_transaction(&run, projector->members[0]->db,
                                     &projector->members[0]->control, &error);
    } else {
        status = escqrs_store_run(projector->store, false, work_run, &run, &error);
    }
    bool whole = status == ESCQRS_OK && run.next < projector->batch.items.count;
    for (size_t i = 0; i < chosen->count; i++) {
        esc_follower *follower = projector->members[i];
        follower->active = false;
        if (status == ESCQRS_OK) {
            bool failed = follower->limit <= run.upto;
            esc_follower_advance(follower, failed ? follower->limit - 1 : run.upto, head);
            if (failed) {
                esc_follower_stop(follower, &follower->failure);
                whole = false; /* the group has changed */
            }
        } else if (run.culprit == follower) {
            error.position = follower->position;
            esc_follower_stop(follower, &error);
        } else if (run.culprit == NULL && status != ESCQRS_CLOSED) {
            esc_model_trouble(follower->model, &error);
        }
    }
    *first = run.next;
    return whole;
}

static bool is_stopping(escqrs_projector *projector)
{
    esc_mutex_lock(&projector->mutex);
    bool stopping = projector->stopping || projector->pausing;
    esc_mutex_unlock(&projector->mutex);
    return stopping;
}

/* The thread, between transactions: while it is asked to. False: it is to end. */
static bool rest(escqrs_projector *projector)
{
    esc_mutex_lock(&projector->mutex);
    while (projector->pausing && !projector->stopping) {
        projector->resting = true;
        esc_cond_broadcast(&projector->changed);
        esc_cond_wait(&projector->changed, &projector->mutex);
    }
    projector->resting = false;
    bool stopping = projector->stopping;
    esc_mutex_unlock(&projector->mutex);
    return !stopping;
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
            if (status == ESCQRS_CORRUPT || status == ESCQRS_DELETED) {
                escqrs_error own = error;
                own.actual = error.position; /* where what was deleted ends, for skip */
                own.position = chosen->position + 1;
                esc_error_prefix(&own, "read model %s stopped at position %lld: ",
                                 follower->model->definition.name, (long long)own.position);
                esc_error_subject(&own, escqrs_slice_of(follower->model->definition.name));
                esc_follower_stop(follower, &own);
            } else if (status != ESCQRS_CLOSED) {
                esc_model_trouble(follower->model, &error);
            }
        }
        return;
    }
    size_t next = 0;
    while (run_once(projector, chosen, &next, head) && !chosen->copies && !is_stopping(projector)) {
    }
    esc_batch_clear(&projector->batch);
}

/* One piece of work. False: nothing to do before the head is above `*head`, `*wake_ns`, or a
 * wake-up. */
static bool take_turn(escqrs_projector *projector, int64_t *head, int64_t *wake_ns)
{
    int64_t now_ns = escqrs_clock_monotonic_ns(&projector->clock);
    *head = escqrs_store_head(projector->store);
    *wake_ns = ESC_DEADLINE_NEVER;
    bool done = false;
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (!is_free(model, now_ns, wake_ns)) {
            continue;
        }
        if (esc_rebuild_turn(model, *head) || esc_park_turn(model)) {
            done = true;
        }
    }
    choice chosen;
    if (choose(projector, *head, now_ns, wake_ns, &chosen)) {
        run_group(projector, &chosen, *head);
        done = true;
    }
    return done;
}

/* ---- thread ---------------------------------------------------------------------------------- */

static void follow(escqrs_projector *projector)
{
    while (rest(projector)) {
        int64_t head = 0;
        int64_t wake_ns = ESC_DEADLINE_NEVER;
        /* Before looking at what is wanted; pairs with the release in wake_up. */
        (void)atomic_exchange_explicit(&projector->cancel, 0, memory_order_acq_rel);
        if (is_stopping(projector)) {
            continue;
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
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR,
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

/* Has every inline read model what the store has, or a reason not to? */
static bool inline_is_level(escqrs_projector *projector)
{
    bool level = true;
    esc_mutex_lock(&projector->mutex);
    for (size_t i = 0; i < projector->models.count; i++) {
        const escqrs_readmodel *model = esc_projector_model(projector, i);
        level = level && (!model->definition.is_inline || model->inlined || model->stopped ||
                          model->troubled || model->retrying);
    }
    esc_mutex_unlock(&projector->mutex);
    return level;
}

/* On the thread that starts it, as commits may follow at once. */
static void bring_inline_level(escqrs_projector *projector)
{
    int64_t head = 0;
    int64_t wake_ns = 0;
    projector->inline_only = true;
    while (!inline_is_level(projector) && take_turn(projector, &head, &wake_ns)) {
    }
    projector->inline_only = false;
}

escqrs_status escqrs_projector_prepare(escqrs_projector *projector, escqrs_error *error)
{
    ESC_ASSERT(!projector->started);
    escqrs_status status = esc_models_make(projector, error);
    if (status == ESCQRS_OK) {
        bring_inline_level(projector);
    }
    return status;
}

escqrs_status escqrs_projector_start(escqrs_projector *projector, escqrs_error *error)
{
    if (esc_projector_is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a projector was used in a child of fork()");
    }
    if (projector->readonly || projector->models.count == 0) {
        return ESCQRS_OK;
    }
    escqrs_status status = escqrs_projector_prepare(projector, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status =
        esc_thread_create(&projector->thread, "escqrs-project", 0, run_thread, projector, error);
    /* Under the mutex, though the thread does not read it: the compiler may load its neighbours at
     * once. */
    esc_mutex_lock(&projector->mutex);
    projector->started = status == ESCQRS_OK;
    esc_mutex_unlock(&projector->mutex);
    return status;
}

bool escqrs_projector_step(escqrs_projector *projector)
{
    ESC_ASSERT(!projector->started);
    escqrs_error error = {0};
    if (!projector->made && esc_models_make(projector, &error) != ESCQRS_OK) {
        escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR, "%s", error.message);
        return false;
    }
    int64_t head = 0;
    int64_t wake_ns = 0;
    return take_turn(projector, &head, &wake_ns);
}

int64_t escqrs_projector_next_due_ns(escqrs_projector *projector)
{
    int64_t now_ns = escqrs_clock_monotonic_ns(&projector->clock);
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < projector->models.count; i++) {
        (void)is_free(esc_projector_model(projector, i), now_ns, &due_ns);
    }
    return due_ns;
}

escqrs_status escqrs_projector_pause(escqrs_projector *projector, int64_t deadline_ns)
{
    if (esc_projector_is_forked(projector) || !projector->started) {
        return ESCQRS_OK;
    }
    esc_mutex_lock(&projector->mutex);
    bool wake = !projector->pausing;
    projector->pausing = true;
    esc_mutex_unlock(&projector->mutex);
    if (wake) {
        esc_projector_wake(projector);
    }
    esc_mutex_lock(&projector->mutex);
    bool in_time = true;
    while (!projector->resting && !projector->ended && in_time) {
        in_time = esc_cond_wait_until(&projector->changed, &projector->mutex, deadline_ns);
    }
    bool rests = projector->resting || projector->ended;
    esc_mutex_unlock(&projector->mutex);
    return rests ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

void escqrs_projector_resume(escqrs_projector *projector)
{
    if (!esc_projector_is_forked(projector)) {
        esc_mutex_lock(&projector->mutex);
        projector->pausing = false;
        esc_cond_broadcast(&projector->changed);
        esc_mutex_unlock(&projector->mutex);
    }
}

/* All that are not the store's: whoever opens it next opens them, too. */
static void close_databases(escqrs_projector *projector)
{
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        esc_mutex_lock(&projector->mutex);
        while (model->busy) { /* a skip */
            esc_cond_wait(&projector->changed, &projector->mutex);
        }
        esc_mutex_unlock(&projector->mutex);
        if (model->copy != NULL) {
            esc_copy_close(model->copy);
        }
        esc_side_close(model);
    }
}

void escqrs_projector_stop(escqrs_projector *projector)
{
    if (esc_projector_is_forked(projector)) {
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
    esc_projector_wake(projector);
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
            escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR, "%s", error.message);
        }
    }
    close_databases(projector);
}

/* ---- create and destroy ---------------------------------------------------------------------- */

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
    esc_topic_set_init(&made->topics);
    esc_readings_init(&made->readings);
    esc_inliner_init(made);
    esc_vector_init(&made->batch.items, sizeof(esc_item));
    esc_arena_init(&made->batch.arena, 1u << 16);
    esc_mutex_init(&made->mutex);
    esc_cond_init(&made->changed);
    *projector = made;
    return ESCQRS_OK;
}

void escqrs_projector_set_reader(escqrs_projector *projector, const escqrs_event_reader *reader)
{
    ESC_ASSERT(!projector->started && projector->models.count == 0);
    projector->reader = *reader;
}

void escqrs_projector_set_clock(escqrs_projector *projector, const escqrs_clock *clock)
{
    ESC_ASSERT(!projector->started && projector->models.count == 0);
    projector->clock = *clock;
}

void escqrs_projector_destroy(escqrs_projector *projector)
{
    if (projector == NULL || esc_projector_is_forked(projector)) {
        return;
    }
    escqrs_projector_stop(projector);
    for (size_t i = 0; i < projector->models.count; i++) {
        esc_model_destroy(esc_projector_model(projector, i));
    }
    esc_topic_set_fini(&projector->topics);
    esc_readings_fini(&projector->readings);
    esc_inliner_fini(projector);
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
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (escqrs_slice_equal(escqrs_slice_of(model->definition.name), name)) {
            return model;
        }
    }
    return NULL;
}
