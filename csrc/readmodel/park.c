/* Parking: events that could not be applied, and those of their streams behind them.
 *
 * Design
 *   - The table of dead letters is the truth. A follower keeps the names of the streams in it, so
 *     that an event costs one look-up while something is parked and nothing otherwise; after a
 *     transaction that was taken back the names are read anew.
 *   - An event that was parked is applied in a transaction of its own, together with its removal
 *     from the table: exactly once, whatever happens.
 *
 * The thread that projects calls what is in projector.h; unpark and its wait are called by any
 * thread. Lock order: the projector's mutex is a leaf. */
#include "readmodel/projector.h"

#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/dead_letter.h"
#include "readmodel/sql.h"

/* ---- streams --------------------------------------------------------------------------------- */

static escqrs_slice stream_key(const void *stream)
{
    return escqrs_slice_of(stream);
}

void esc_park_init(esc_follower *follower)
{
    esc_map_init(&follower->parked_streams, stream_key, NULL);
}

void esc_park_forget(esc_follower *follower)
{
    size_t cursor = 0;
    char *stream;
    while ((stream = esc_map_next(&follower->parked_streams, &cursor)) != NULL) {
        escqrs_free(stream);
    }
    esc_map_clear(&follower->parked_streams);
    follower->parked_events = 0;
    follower->parked_known = false;
}

void esc_park_fini(esc_follower *follower)
{
    esc_park_forget(follower);
    esc_map_fini(&follower->parked_streams);
}

/* Takes the name over. */
static escqrs_status add_stream(esc_follower *follower, char *stream, escqrs_error *error)
{
    escqrs_status status =
        stream == NULL ? ESCQRS_NO_MEMORY : esc_map_insert(&follower->parked_streams, stream);
    if (status != ESCQRS_OK) {
        escqrs_free(stream);
    }
    return status == ESCQRS_NO_MEMORY
               ? escqrs_error_set(error, status, "no memory for dead letters")
               : ESCQRS_OK;
}

escqrs_status esc_park_load(esc_follower *follower, sqlite3 *db, escqrs_error *error)
{
    if (follower->parked_known) {
        return ESCQRS_OK;
    }
    esc_vector streams = ESC_VECTOR_OF(char *);
    int64_t events = 0;
    escqrs_status status =
        esc_dead_letter_streams(db, follower->model->definition.name, &streams, &events, error);
    for (size_t i = 0; i < streams.count; i++) {
        char *stream = ESC_VECTOR_AT(&streams, char *, i);
        if (status == ESCQRS_OK) {
            status = add_stream(follower, stream, error);
        } else {
            escqrs_free(stream);
        }
    }
    esc_vector_fini(&streams);
    if (status != ESCQRS_OK) {
        esc_park_forget(follower);
        return status;
    }
    follower->parked_events = events;
    follower->parked_known = true;
    return ESCQRS_OK;
}

bool esc_park_holds(const esc_follower *follower, escqrs_slice stream)
{
    return follower->parked_events > 0 && esc_map_get(&follower->parked_streams, stream) != NULL;
}

/* ---- parking --------------------------------------------------------------------------------- */

static bool write_json(void *context, const char *text, size_t size)
{
    return esc_buffer_append(context, text, size) == ESCQRS_OK;
}

/* The event as JSON into the buffer; nothing where it cannot be decoded. */
static void render(const esc_follower *follower, const esc_item *item, esc_buffer *json)
{
    const escqrs_schema *schema = item->schema;
    ProtobufCMessage *message = item->message;
    for (size_t i = 0; schema == NULL && i < follower->model->definition.projection_count; i++) {
        const esc_projection *projection = &follower->model->definition.projections[i];
        if (escqrs_slice_equal(escqrs_slice_of(projection->type),
                               escqrs_type_name(item->recorded.type))) {
            schema = projection->schema;
        }
    }
    if (schema == NULL) {
        return;
    }
    if (message == NULL &&
        (item->recorded.data.data == NULL ||
         escqrs_message_unpack(schema, item->recorded.data, NULL, &message, NULL) != ESCQRS_OK)) {
        return;
    }
    if (escqrs_message_to_json(schema, message, write_json, json, NULL) != ESCQRS_OK) {
        esc_buffer_reset(json);
    }
    if (message != item->message) {
        escqrs_message_free(message);
    }
}

escqrs_status esc_park_put(esc_follower *follower, const esc_item *item, sqlite3 *db,
                           const escqrs_error *failure, escqrs_error *error)
{
    const escqrs_recorded *recorded = &item->recorded;
    escqrs_readmodel *model = follower->model;
    esc_buffer json = {0};
    render(follower, item, &json);
    esc_dead_letter letter = {.readmodel = model->definition.name,
                              .state = failure == NULL ? "held" : "parked",
                              .position = recorded->position,
                              .version = recorded->version,
                              .stream = recorded->stream,
                              .type = escqrs_type_name(recorded->type),
                              .event = esc_buffer_slice(&json)};
    if (failure != NULL) {
        letter.attempts = follower->attempt_position == recorded->position ? follower->attempts : 0;
        letter.attempts++;
        letter.error = escqrs_slice_of(failure->message);
        letter.traceback = escqrs_slice_of(model->detail);
    }
    escqrs_status status = esc_dead_letter_make_table(db, error);
    if (status == ESCQRS_OK) {
        status = esc_dead_letter_put(db, &letter, error);
    }
    if (status == ESCQRS_OK && failure != NULL) {
        status = add_stream(follower, escqrs_strdup(recorded->stream), error);
        follower->parked_in_run++;
        follower->failure = *failure;
    }
    esc_buffer_fini(&json);
    follower->parked_events++;
    follower->parked_position = recorded->position;
    return status;
}

/* ---- applying after all ---------------------------------------------------------------------- */

typedef struct unpark_call {
    escqrs_readmodel *model;
    esc_run run;
    int64_t position;
    bool has_event; /* in the batch; else the read model no longer takes its type */
    escqrs_slice reason;
    const char *stream;
    int64_t next; /* result */
    char *found;  /* result, to be freed */
    esc_vector streams;
} unpark_call;

/* Apply one and take it off the list. REPLAY: it failed again, and is listed with why. */
static escqrs_status work_apply(void *context, void *sqlite, escqrs_error *error)
{
    unpark_call *call = context;
    const char *name = call->model->definition.name;
    esc_control *control = call->model->live.db != NULL ? &call->model->live.control
                                                        : &call->model->projector->control;
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (call->has_event) {
        status = esc_run_parked(&call->run, sqlite, control, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_dead_letter_delete(sqlite, name, call->position, error);
    }
    status = esc_rmsql_end(sqlite, status, error);
    if (status == ESCQRS_REPLAY) {
        const escqrs_error *failure = &call->model->live.failure;
        escqrs_status noted =
            esc_dead_letter_fail(sqlite, name, call->position, escqrs_slice_of(failure->message),
                                 escqrs_slice_of(call->model->detail), error);
        return noted == ESCQRS_OK ? ESCQRS_REPLAY : noted;
    }
    return status;
}

static escqrs_status work_next(void *context, void *sqlite, escqrs_error *error)
{
    unpark_call *call = context;
    return esc_dead_letter_next(sqlite, call->model->definition.name, call->stream, 0, &call->next,
                                error);
}

/* DONE: no such event is parked. */
static escqrs_status work_leave_out(void *context, void *sqlite, escqrs_error *error)
{
    unpark_call *call = context;
    const char *name = call->model->definition.name;
    escqrs_status status =
        esc_dead_letter_stream(sqlite, name, call->position, &call->found, error);
    if (status == ESCQRS_OK) {
        status = call->found == NULL
                     ? ESCQRS_DONE
                     : esc_dead_letter_skip(sqlite, name, call->position, call->reason, error);
    }
    return status;
}

static escqrs_status work_streams(void *context, void *sqlite, escqrs_error *error)
{
    unpark_call *call = context;
    int64_t events = 0;
    return esc_dead_letter_streams(sqlite, call->model->definition.name, &call->streams, &events,
                                   error);
}

/* One stream's, in order, until one fails again. */
static escqrs_status apply_stream(escqrs_readmodel *model, const char *stream, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_status status = ESCQRS_OK;
    while (status == ESCQRS_OK) {
        unpark_call call = {.model = model, .stream = stream};
        esc_follower *member = &model->live;
        status = esc_side_run(model, work_next, &call, error);
        if (status != ESCQRS_OK || call.next == 0) {
            return status;
        }
        call.position = call.next;
        status = esc_batch_read(projector, call.position - 1, call.position, error);
        if (status == ESCQRS_OK) {
            call.has_event = projector->batch.items.count > 0;
            call.run = (esc_run){.projector = projector,
                                 .members = &member,
                                 .member_count = 1,
                                 .savepoints = true,
                                 .parked = true};
            status = esc_side_run(model, work_apply, &call, error);
        }
        esc_batch_clear(&projector->batch);
    }
    return status == ESCQRS_REPLAY ? ESCQRS_OK : status;
}

static escqrs_status apply_all(escqrs_readmodel *model, escqrs_error *error)
{
    unpark_call call = {.model = model, .streams = ESC_VECTOR_OF(char *)};
    escqrs_status status = esc_side_run(model, work_streams, &call, error);
    for (size_t i = 0; i < call.streams.count; i++) {
        char *stream = ESC_VECTOR_AT(&call.streams, char *, i);
        if (status == ESCQRS_OK) {
            status = apply_stream(model, stream, error);
        }
        escqrs_free(stream);
    }
    esc_vector_fini(&call.streams);
    return status;
}

static escqrs_status leave_out(escqrs_readmodel *model, int64_t position, const char *reason,
                               escqrs_error *error)
{
    unpark_call call = {.model = model, .position = position, .reason = escqrs_slice_of(reason)};
    escqrs_status status = esc_side_run(model, work_leave_out, &call, error);
    if (status == ESCQRS_DONE) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s has not parked the event at position %lld",
                                  model->definition.name, (long long)position);
    } else if (status == ESCQRS_OK) {
        escqrs_log_write(&model->projector->log, ESCQRS_LOG_WARNING,
                         "read model %s leaves out the parked event at position %lld: %s",
                         model->definition.name, (long long)position, reason);
        status = apply_stream(model, call.found, error);
    }
    escqrs_free(call.found);
    return status;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* What is left of them, for the status. */
static escqrs_status work_count(void *context, void *sqlite, escqrs_error *error)
{
    return esc_park_load(context, sqlite, error);
}

static void finish(escqrs_readmodel *model, const escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    esc_follower *live = &model->live;
    esc_park_forget(live);
    escqrs_status status = esc_side_run(model, work_count, live, NULL);
    esc_mutex_lock(&projector->mutex);
    char *stream = model->unparks.stream;
    char *reason = model->unparks.reason;
    model->unparks.stream = NULL;
    model->unparks.reason = NULL;
    model->unparks.error = *error;
    model->unparks.done = model->unparks.asked;
    model->changes++;
    if (status == ESCQRS_OK && !model->frozen) {
        model->parked = live->parked_events;
        if (model->parked == 0 && !model->stopped && !model->retrying && !model->troubled &&
            !model->rebuild_failed) {
            model->error = (escqrs_error){0};
        }
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    escqrs_free(stream);
    escqrs_free(reason);
}

bool esc_park_turn(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    bool asked = model->unparks.asked > model->unparks.done && !model->busy;
    bool possible = !model->frozen;
    int64_t skip = model->unparks.skip;
    bool rebuild = model->unparks.rebuild;
    const char *stream = model->unparks.stream; /* the queue's, until `done` */
    const char *reason = model->unparks.reason;
    esc_mutex_unlock(&projector->mutex);
    if (!asked) {
        return false;
    }
    escqrs_error error = {0};
    escqrs_status status = ESCQRS_OK;
    if (!possible) {
        status = escqrs_error_set(&error, ESCQRS_INVALID,
                                  "read model %s is being built anew; its rows and parked "
                                  "events are still the old ones",
                                  model->definition.name);
    } else if (rebuild) {
        status = esc_stream_build(model, stream, &error);
    } else if (skip > 0) {
        status = leave_out(model, skip, reason == NULL ? "" : reason, &error);
    } else if (stream != NULL) {
        status = apply_stream(model, stream, &error);
    } else {
        status = apply_all(model, &error);
    }
    error.status = status;
    finish(model, &error);
    return true;
}

void esc_park_end(escqrs_readmodel *model)
{
    escqrs_free(model->unparks.stream);
    escqrs_free(model->unparks.reason);
    escqrs_free(model->detail);
    esc_park_fini(&model->live);
}

escqrs_status escqrs_readmodel_unpark(escqrs_readmodel *model, const escqrs_unpark *wanted,
                                      uint64_t *ticket, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_status status = esc_model_check_writable(model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    char *stream = wanted->stream.size > 0 ? escqrs_strdup(wanted->stream) : NULL;
    char *reason = wanted->reason.size > 0 ? escqrs_strdup(wanted->reason) : NULL;
    if ((wanted->stream.size > 0 && stream == NULL) ||
        (wanted->reason.size > 0 && reason == NULL)) {
        escqrs_free(stream);
        escqrs_free(reason);
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to unpark events");
    }
    esc_mutex_lock(&projector->mutex);
    esc_unpark_queue *queue = &model->unparks;
    while (queue->asked > queue->done && !projector->stopping && !projector->ended) {
        esc_cond_wait(&projector->changed, &projector->mutex);
    }
    bool closed = projector->stopping || projector->ended;
    if (!closed) {
        queue->stream = stream;
        queue->reason = reason;
        queue->skip = wanted->skip;
        queue->rebuild = wanted->rebuild;
        *ticket = ++queue->asked;
    }
    esc_mutex_unlock(&projector->mutex);
    if (closed) {
        escqrs_free(stream);
        escqrs_free(reason);
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
    }
    esc_projector_wake(projector);
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_wait_unparked(escqrs_readmodel *model, uint64_t ticket,
                                             int64_t deadline_ns, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_status status = ESCQRS_OK;
    if (esc_projector_is_forked(projector)) {
        return escqrs_error_set(error, ESCQRS_FORKED, "a read model was used in a child of fork()");
    }
    esc_mutex_lock(&projector->mutex);
    while (model->unparks.done < ticket && status == ESCQRS_OK) {
        if (projector->stopping || projector->ended) {
            status = escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
        } else if (!esc_cond_wait_until(&projector->changed, &projector->mutex, deadline_ns) &&
                   model->unparks.done < ticket) {
            status = escqrs_error_set(error, ESCQRS_TIMEOUT,
                                      "the parked events of read model %s are still being tried",
                                      model->definition.name);
        }
    }
    if (status == ESCQRS_OK && model->unparks.done == ticket) {
        status = model->unparks.error.status;
        if (error != NULL && status != ESCQRS_OK) {
            *error = model->unparks.error;
        }
    }
    esc_mutex_unlock(&projector->mutex);
    return status;
}

void escqrs_readmodel_explain(escqrs_readmodel *model, escqrs_slice detail)
{
    escqrs_free(model->detail);
    model->detail = escqrs_strdup(detail);
}
