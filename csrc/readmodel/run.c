/* A transaction of projections: events applied to followers, checkpoints moved with them.
 *
 * Design
 *   - A follower that cannot take an event keeps all before it: its `limit` becomes that event, and
 *     either the savepoint before the event is taken back, or the whole transaction is, and done
 *     again without it. Where functions take part there are savepoints, so that a function never
 *     sees an event twice; SQL alone is cheaper without them, and a failure is rare.
 *   - A follower that parks what it cannot take goes on behind it: the event's savepoint is taken
 *     back, and the event is listed in the same transaction (see park.c). Where there were no
 *     savepoints the transaction begins anew with them.
 *   - A full disk and the like is nobody's fault: the transaction is given up as a whole.
 *   - A checkpoint moves from exactly the position where the follower stands; if it is not there,
 *     somebody else has written it, and the transaction is given up as CORRUPT.
 *   - The host (Python) is entered with the writing connection in hand, never the other way round:
 *     whoever is in the host may not wait for the connection.
 * Locks: none are taken here. */
#include "readmodel/projector.h"

#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/sql.h"

#define YIELD_AFTER_NS 2000000 /* with commits waiting */
#define YIELD_LOOK_EVERY 16    /* items; a power of two */
#define COPY_AFTER_NS                                                                              \
    50000000 /* what a crash costs a rebuild, and how long it keeps the others                     \
              */

/* ---- statements ------------------------------------------------------------------------------------- */

static escqrs_status control_run(sqlite3 *db, sqlite3_stmt **statement, const char *sql,
                                 escqrs_error *error)
{
    if (*statement == NULL) {
        escqrs_status status = esc_rmsql_prepare(db, escqrs_slice_of(sql), statement, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return esc_rmsql_run(*statement, error);
}

/* ---- one event, one projection ------------------------------------------------------------------------ */

/* Bind and step once. `*transient`: the machine is to blame. */
static escqrs_status step_once(esc_run *run, const esc_projection *projection,
                               sqlite3_stmt *statement, const esc_binding_event *event, size_t item,
                               bool *transient, escqrs_error *error)
{
    int code = SQLITE_OK;
    escqrs_status status =
        esc_binding_plan_bind(&projection->plan, statement, event, item,
                              run->json != NULL ? run->json : &run->projector->json, &code, error);
    if (status != ESCQRS_OK) {
        *transient = code == SQLITE_NOMEM || status == ESCQRS_NO_MEMORY;
        return status;
    }
    do {
        code = sqlite3_step(statement);
    } while (code == SQLITE_ROW);
    if (code != SQLITE_DONE) {
        *transient = esc_rmsql_is_transient(code);
        status = escqrs_error_set(error, esc_rmsql_status(code), "%s",
                                  sqlite3_errmsg(sqlite3_db_handle(statement)));
    }
    (void)sqlite3_reset(statement);
    return status;
}

static escqrs_status apply_sql(esc_run *run, esc_follower *follower, size_t index,
                               const esc_item *item, sqlite3 *db, bool *transient,
                               escqrs_error *error)
{
    const esc_projection *projection = &follower->model->definition.projections[index];
    sqlite3_stmt *statement = NULL;
    if (item->failure != NULL && (projection->schema != NULL || projection->plan.wants_event)) {
        *error = *item->failure;
        return error->status;
    }
    escqrs_status status = esc_follower_statement(follower, index, db, &statement, error);
    if (status != ESCQRS_OK) {
        *transient = status == ESCQRS_NO_MEMORY || status == ESCQRS_IO || status == ESCQRS_FULL;
        return status;
    }
    esc_binding_event event = {.recorded = &item->recorded,
                               .message = item->message,
                               .schema = item->schema,
                               .defaults = projection->defaults};
    size_t times = esc_binding_plan_times(&projection->plan, item->message);
    for (size_t i = 0; status == ESCQRS_OK && i < times; i++) {
        status = step_once(run, projection, statement, &event, i, transient, error);
    }
    return status;
}

static escqrs_status apply_function(esc_run *run, esc_follower *follower, size_t index,
                                    const esc_item *item, sqlite3 *db, bool *transient,
                                    escqrs_error *error)
{
    escqrs_projector *projector = run->projector;
    const esc_projection *projection = &follower->model->definition.projections[index];
    if (!run->attached && projector->has_host) {
        projector->host.attach(projector->host_context, projector->host_state);
        run->attached = true;
    }
    escqrs_status status = projection->apply(projection->context, &item->recorded, db, error);
    if (status == ESCQRS_OK && sqlite3_get_autocommit(db)) { /* and it has kept that to itself */
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "a statement of the function failed and rolled the transaction "
                                  "back; the function must let its error pass");
    }
    *transient = status == ESCQRS_FULL || status == ESCQRS_IO;
    if (status != ESCQRS_OK) {
        error->status = status;
    }
    return status;
}

/* Say which event of whom it was. */
static void describe_failure(esc_follower *follower, const esc_item *item, bool parks,
                             escqrs_error *error)
{
    const escqrs_recorded *recorded = &item->recorded;
    escqrs_slice type = escqrs_type_name(recorded->type);
    int stream_size = recorded->stream.size > 200 ? 200 : (int)recorded->stream.size;
    bool stops = !parks && esc_follower_attempts_left(follower, recorded->position) == 0;
    const char *verb = stops ? "stopped at" : "could not apply";
    esc_error_prefix(error, "read model %s %s position %lld (%.*s, stream %.*s, version %lld): ",
                     follower->model->definition.name, verb, (long long)recorded->position,
                     (int)type.size, (const char *)type.data, stream_size,
                     (const char *)recorded->stream.data, (long long)recorded->version);
    error->position = recorded->position;
    error->version = recorded->version;
    esc_error_subject(error, escqrs_slice_of(follower->model->definition.name));
}

/* ---- items ---------------------------------------------------------------------------------------------- */

typedef enum outcome {
    GO_ON,
    DO_AGAIN, /* a follower has a limit now; take the transaction back and begin anew */
    GIVE_UP,
} outcome;

/* Is the event one that the follower does not get: behind its limit, or of a parked stream? Then it
 * is listed. */
static outcome pass_over(esc_run *run, esc_follower *follower, const esc_item *item, sqlite3 *db,
                         bool *passed, escqrs_error *error)
{
    int64_t position = item->recorded.position;
    *passed = position >= follower->limit || position == follower->parked_position;
    if (*passed || run->parked) {
        return GO_ON;
    }
    const escqrs_error *failure =
        run->doomed == follower && run->doomed_position == position ? &run->doomed_failure : NULL;
    *passed = failure != NULL || esc_park_holds(follower, item->recorded.stream);
    if (!*passed) {
        return GO_ON;
    }
    return esc_park_put(follower, item, db, failure, error) == ESCQRS_OK ? GO_ON : GIVE_UP;
}

static bool is_forgiven(const escqrs_readmodel *model, int64_t position)
{
    for (size_t i = 0; model->forgiven != NULL && i < model->forgiven->count; i++) {
        if (ESC_VECTOR_AT(model->forgiven, int64_t, i) == position) {
            return true;
        }
    }
    return false;
}

/* An event cannot be applied: it is parked, or becomes the follower's limit. */
static outcome refuse(esc_run *run, esc_follower *follower, const esc_item *item, sqlite3 *db,
                      esc_control *control, bool saved, escqrs_error *failure, escqrs_error *error)
{
    int64_t position = item->recorded.position;
    bool parks = !run->parked && follower->model->definition.on_error.then == ESCQRS_FAILURE_PARK &&
                 esc_follower_attempts_left(follower, position) == 0;
    describe_failure(follower, item, parks || run->parked, failure);
    /* INSERT OR ROLLBACK and its like; and of what an upcaster made of one event, all or nothing is
     * applied */
    bool is_over = sqlite3_get_autocommit(db) || item->recorded.part > 0;
    bool forgiven = !is_over && is_forgiven(follower->model, position);
    if (forgiven && !saved) {
        run->savepoints = true;
        return DO_AGAIN;
    }
    if (forgiven) {
        follower->parked_position = position; /* left out, and not listed */
        return control_run(db, &control->undo, "ROLLBACK TO escqrs_event", error) == ESCQRS_OK
                   ? GO_ON
                   : GIVE_UP;
    }
    if (!parks) {
        follower->failure = *failure;
        follower->limit = position;
        if (!saved || is_over) {
            return DO_AGAIN;
        }
    } else if (!saved) {
        run->savepoints = true;
        return DO_AGAIN;
    } else if (is_over && run->doomed == NULL) {
        run->doomed = follower;
        run->doomed_position = position;
        run->doomed_failure = *failure;
        return DO_AGAIN;
    } else if (is_over) { /* one of this kind in a transaction is enough */
        run->end_before = position;
        return DO_AGAIN;
    }
    if (control_run(db, &control->undo, "ROLLBACK TO escqrs_event", error) != ESCQRS_OK) {
        return GIVE_UP;
    }
    return !parks || esc_park_put(follower, item, db, failure, error) == ESCQRS_OK ? GO_ON
                                                                                   : GIVE_UP;
}

static bool bears_all(const escqrs_recorded *recorded, char *const *tags, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        for (size_t j = 0; !found && j < recorded->tag_count; j++) {
            found = escqrs_slice_equal(recorded->tags[j], escqrs_slice_of(tags[i]));
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static outcome apply_item(esc_run *run, const esc_item *item, sqlite3 *db, esc_control *control,
                          escqrs_error *error)
{
    const esc_follower *saved = NULL; /* whose savepoint is open */
    const esc_vector *subscriptions = &item->topic->subscriptions;
    for (size_t i = 0; i < subscriptions->count; i++) {
        esc_subscription *subscription = &ESC_VECTOR_AT(subscriptions, esc_subscription, i);
        escqrs_readmodel *model = subscription->model;
        esc_follower *follower = run->copies ? run->members[0] : &model->live;
        const esc_projection *projection = &model->definition.projections[subscription->index];
        bool passed = false;
        if (follower->model != model || !follower->active ||
            (!item->blocked &&
             !bears_all(&item->recorded, projection->tags, projection->tag_count))) {
            continue;
        }
        if (pass_over(run, follower, item, db, &passed, error) != GO_ON) {
            return GIVE_UP;
        }
        if (passed) {
            continue;
        }
        if (run->savepoints && saved != follower) {
            if ((saved != NULL &&
                 control_run(db, &control->release, "RELEASE escqrs_event", error) != ESCQRS_OK) ||
                control_run(db, &control->savepoint, "SAVEPOINT escqrs_event", error) !=
                    ESCQRS_OK) {
                return GIVE_UP;
            }
            saved = follower;
        }
        bool transient = false;
        escqrs_error failure;
        esc_error_init(&failure);
        bool is_sql = projection->sql != NULL;
        escqrs_status status;
        if (item->blocked) {
            failure = *item->failure;
            status = failure.status;
        } else if (is_sql) {
            status = apply_sql(run, follower, subscription->index, item, db, &transient, &failure);
        } else {
            status =
                apply_function(run, follower, subscription->index, item, db, &transient, &failure);
        }
        if (status == ESCQRS_OK) {
            continue;
        }
        if (transient) {
            if (error != NULL) {
                *error = failure;
            }
            return GIVE_UP;
        }
        if (is_sql) {
            escqrs_readmodel_explain(model, (escqrs_slice){NULL, 0});
        }
        outcome result =
            refuse(run, follower, item, db, control, saved == follower, &failure, error);
        if (result != GO_ON) {
            return result;
        }
    }
    if (saved != NULL &&
        control_run(db, &control->release, "RELEASE escqrs_event", error) != ESCQRS_OK) {
        return GIVE_UP;
    }
    return GO_ON;
}

/* Is it time to commit before the item? */
static bool is_long(const esc_run *run, size_t index)
{
    if (index == run->first) {
        return false;
    }
    if (run->copies) {
        return escqrs_clock_monotonic_ns(NULL) - run->begun_ns > COPY_AFTER_NS;
    }
    return (index & (YIELD_LOOK_EVERY - 1)) == 0 &&
           escqrs_store_backlog(run->projector->store) > 0 &&
           escqrs_clock_monotonic_ns(&run->projector->clock) - run->begun_ns > YIELD_AFTER_NS;
}

static outcome apply_items(esc_run *run, sqlite3 *db, esc_control *control, escqrs_error *error)
{
    const esc_batch *batch = &run->projector->batch;
    for (size_t i = run->first; i < batch->items.count; i++) {
        const esc_item *item = &ESC_VECTOR_AT(&batch->items, esc_item, i);
        bool is_first = item->recorded.part == 0 || i == run->first;
        if ((is_first && is_long(run, i)) || item->recorded.position == run->end_before) {
            run->upto = item->recorded.position - 1;
            run->next = i;
            return GO_ON;
        }
        outcome result = apply_item(run, item, db, control, error);
        if (result != GO_ON) {
            return result;
        }
    }
    run->upto = batch->upto;
    run->next = batch->items.count;
    return GO_ON;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

escqrs_status esc_run_move(const esc_follower *follower, int64_t to, sqlite3 *db,
                           esc_control *control, escqrs_error *error)
{
    const char *name = follower->model->definition.name;
    if (control->move == NULL) {
        escqrs_status status =
            esc_rmsql_prepare(db, escqrs_slice_of(esc_checkpoint_move_sql), &control->move, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    (void)sqlite3_bind_text(control->move, 1, name, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(control->move, 2, follower->position);
    (void)sqlite3_bind_int64(control->move, 3, to);
    escqrs_status status = esc_rmsql_run(control->move, error);
    if (status == ESCQRS_OK && sqlite3_changes(db) != 1) {
        return escqrs_error_set(
            error, ESCQRS_CORRUPT,
            "the checkpoint of read model %s is no longer at %lld: somebody else has "
            "written it; rebuild the read model",
            name, (long long)follower->position);
    }
    return status;
}

static escqrs_status move_checkpoints(esc_run *run, sqlite3 *db, esc_control *control,
                                      escqrs_error *error)
{
    for (size_t i = 0; i < run->member_count; i++) {
        esc_follower *follower = run->members[i];
        int64_t to = follower->limit <= run->upto ? follower->limit - 1 : run->upto;
        ESC_ASSERT(to >= follower->position);
        if (to > follower->position) {
            escqrs_status status = esc_run_move(follower, to, db, control, error);
            if (status != ESCQRS_OK) {
                run->culprit = status == ESCQRS_CORRUPT ? follower : NULL;
                return status;
            }
        }
    }
    return ESCQRS_OK;
}

/* ---- transaction -------------------------------------------------------------------------------------------- */

static void roll_back(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db)) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
}

/* Within the transaction, before the first item. */
static escqrs_status prepare_members(esc_run *run, sqlite3 *db, escqrs_error *error)
{
    for (size_t i = 0; i < run->member_count; i++) {
        esc_follower *follower = run->members[i];
        follower->parked_position = 0;
        follower->parked_in_run = 0;
        escqrs_status status = esc_park_load(follower, db, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

/* What the transaction listed is taken back with it. */
static void forget_parked(esc_run *run)
{
    for (size_t i = 0; i < run->member_count; i++) {
        if (run->members[i]->parked_position > 0) {
            esc_park_forget(run->members[i]);
        }
    }
}

static void detach(esc_run *run)
{
    if (run->attached) {
        run->projector->host_state = run->projector->host.detach(run->projector->host_context);
        run->attached = false;
    }
}

escqrs_status esc_run_transaction(esc_run *run, sqlite3 *db, esc_control *control,
                                  escqrs_error *error)
{
    ESC_ASSERT(error != NULL);
    run->begun_ns = escqrs_clock_monotonic_ns(&run->projector->clock);
    outcome result = DO_AGAIN;
    escqrs_status status = ESCQRS_OK;
    while (result == DO_AGAIN) {
        /* a few times more for each member: each time one has got its limit, or savepoints */
        roll_back(db);
        status = control_run(db, &control->begin, "BEGIN IMMEDIATE", error);
        if (status == ESCQRS_OK) {
            status = prepare_members(run, db, error);
        }
        if (status != ESCQRS_OK) {
            roll_back(db);
            return status;
        }
        result = apply_items(run, db, control, error);
        if (result != GO_ON) {
            forget_parked(run);
        }
    }
    detach(run);
    status = result == GIVE_UP ? error->status : ESCQRS_OK;
    if (status == ESCQRS_OK) {
        status = move_checkpoints(run, db, control, error);
    }
    if (status == ESCQRS_OK) {
        status = control_run(db, &control->commit, "COMMIT", error);
    }
    if (status != ESCQRS_OK) {
        roll_back(db);
        forget_parked(run);
    }
    return status;
}

escqrs_status esc_run_parked(esc_run *run, sqlite3 *db, esc_control *control, escqrs_error *error)
{
    esc_follower *follower = run->members[0];
    follower->active = true;
    follower->limit = INT64_MAX;
    follower->parked_position = 0;
    outcome result = apply_items(run, db, control, error);
    follower->active = false;
    detach(run);
    if (result == GIVE_UP) {
        return error->status;
    }
    return follower->limit == INT64_MAX ? ESCQRS_OK : ESCQRS_REPLAY;
}

/* ---- within commits --------------------------------------------------------------------------- */

escqrs_status esc_run_inline(esc_run *run, const esc_item *item, sqlite3 *db, escqrs_error *error)
{
    const esc_vector *subscriptions = &item->topic->subscriptions;
    for (size_t i = 0; i < subscriptions->count; i++) {
        const esc_subscription *subscription = &ESC_VECTOR_AT(subscriptions, esc_subscription, i);
        escqrs_readmodel *model = subscription->model;
        const esc_projection *projection = &model->definition.projections[subscription->index];
        if (!model->inlined ||
            !bears_all(&item->recorded, projection->tags, projection->tag_count)) {
            continue;
        }
        bool transient = false;
        escqrs_status status =
            apply_sql(run, &model->live, subscription->index, item, db, &transient, error);
        if (status == ESCQRS_OK) {
            continue;
        }
        if (!transient) {
            escqrs_slice type = escqrs_type_name(item->recorded.type);
            esc_error_prefix(error,
                             "inline read model %s could not apply %.*s: ", model->definition.name,
                             (int)type.size, (const char *)type.data);
            esc_error_subject(error, escqrs_slice_of(model->definition.name));
            error->status = status = ESCQRS_REJECTED;
        }
        return status;
    }
    return ESCQRS_OK;
}
