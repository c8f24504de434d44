/* Inline read models: written in the transactions of the commits themselves.
 *
 * Design
 *   - A read model that is to be inline catches up like any other. When it is level, seen with the
 *     writing connection in hand, it is `inlined`: from then on the store asks it with each commit,
 *     and the thread that projects leaves it alone. Between the two no commit can come.
 *   - Its checkpoint moves once a batch, in the batch's transaction, from exactly where it stands.
 *     If it is not there, somebody else has written it: the batch fails, the read model stops, and
 *     commits go on without it.
 *   - A commit whose events it cannot apply fails, and leaves nothing (see sqlite_inline.c).
 *
 * All of it is called by whoever has the writing connection. Lock order: the projector's mutex is a
 * leaf. */
#include "readmodel/projector.h"

#include "base/error.h"

/* ---- what the store calls -------------------------------------------------------------------- */

static escqrs_status apply_one(esc_run *run, const escqrs_recorded *recorded, sqlite3 *db,
                               escqrs_error *error)
{
    escqrs_projector *projector = run->projector;
    esc_inliner *self = &projector->inliner;
    esc_topic *topic = NULL;
    const esc_reading *reading = NULL;
    escqrs_status found =
        esc_readings_find(&self->readings, projector, recorded->type, &reading, error);
    if (found != ESCQRS_OK) {
        return found;
    }
    if (esc_topic_set_find(&self->topics, reading == NULL ? recorded->type : reading->as, &topic) !=
        ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for inline read models");
    }
    if (reading != NULL && reading->how == ESCQRS_READING_UPCAST) {
        return escqrs_error_set(error, ESCQRS_REJECTED,
                                "events of an older version (%.*s) cannot be stored beside inline "
                                "read models: what they would be upcast to is not known in time",
                                (int)escqrs_type_name(recorded->type).size,
                                (const char *)escqrs_type_name(recorded->type).data);
    }
    if (topic == NULL) {
        return ESCQRS_OK;
    }
    if (reading != NULL && reading->how == ESCQRS_READING_REFUSED) {
        *error = reading->failure;
        error->status = ESCQRS_REJECTED;
        return ESCQRS_REJECTED;
    }
    esc_item item = {
        .recorded = *recorded, .topic = topic, .schema = esc_topic_schema(topic, recorded->type)};
    escqrs_error failure;
    esc_error_init(&failure);
    if (item.schema != NULL) {
        escqrs_status status =
            escqrs_message_unpack(item.schema, recorded->data, NULL, &item.message, &failure);
        if (status == ESCQRS_NO_MEMORY) {
            return escqrs_error_set(error, status, "no memory for inline read models");
        }
        item.failure = status == ESCQRS_OK ? NULL : &failure;
    }
    escqrs_status status = esc_run_inline(run, &item, db, error);
    escqrs_message_free(item.message);
    return status;
}

static escqrs_status inline_events(void *context, void *sqlite, const escqrs_recorded *events,
                                   size_t count, escqrs_error *error)
{
    escqrs_projector *projector = context;
    esc_run run = {.projector = projector, .json = &projector->inliner.json};
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; status == ESCQRS_OK && i < count; i++) {
        status = apply_one(&run, &events[i], sqlite, error);
    }
    return status;
}

/* Its checkpoint is not where it was left. */
static void stop(escqrs_readmodel *model, const escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    escqrs_log_write(&projector->log, ESCQRS_LOG_ERROR, "%s", error->message);
    esc_mutex_lock(&projector->mutex);
    model->inlined = false;
    model->stopped = true;
    model->error = *error;
    model->error_is_rebuild = false;
    model->error.position = model->live.position;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}

static escqrs_status inline_end(void *context, void *sqlite, int64_t head, escqrs_error *error)
{
    escqrs_projector *projector = context;
    escqrs_error own = {0};
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (!model->inlined || model->live.position == head) {
            continue;
        }
        escqrs_status status = esc_run_move(&model->live, head, sqlite, &projector->control, &own);
        if (status != ESCQRS_OK) {
            if (status == ESCQRS_CORRUPT) {
                stop(model, &own);
            }
            if (error != NULL) {
                *error = own;
            }
            return status;
        }
    }
    return ESCQRS_OK;
}

static void inline_durable(void *context, int64_t head)
{
    escqrs_projector *projector = context;
    esc_mutex_lock(&projector->mutex);
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (model->inlined) {
            esc_rate_add(&model->rate, head - model->live.position);
            model->changes += head > model->live.position;
            model->live.position = head;
        }
    }
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
}

/* ---- entering and leaving -------------------------------------------------------------------- */

void esc_inline_enter(escqrs_readmodel *model, int64_t head)
{
    escqrs_projector *projector = model->projector;
    if (!model->definition.is_inline) {
        return;
    }
    esc_mutex_lock(&projector->mutex);
    if (!model->stopped) {
        model->live.position = head;
        model->inlined = true;
        model->level = true;
        model->refilling = false;
    }
    esc_mutex_unlock(&projector->mutex);
    if (!projector->inliner.is_set) {
        projector->inliner.is_set = true;
        escqrs_store_set_inliner(projector->store, &projector->inliner.hook);
    }
}

void esc_inline_leave(escqrs_readmodel *model)
{
    esc_mutex_lock(&model->projector->mutex);
    model->inlined = false;
    esc_mutex_unlock(&model->projector->mutex);
}

void esc_inliner_end(escqrs_projector *projector)
{
    if (projector->inliner.is_set) {
        escqrs_store_set_inliner(projector->store, NULL);
        projector->inliner.is_set = false;
    }
}

void esc_inliner_init(escqrs_projector *projector)
{
    projector->inliner.hook = (escqrs_inliner){.events = inline_events,
                                               .end = inline_end,
                                               .durable = inline_durable,
                                               .context = projector};
    esc_topic_set_init(&projector->inliner.topics);
    esc_readings_init(&projector->inliner.readings);
}

void esc_inliner_fini(escqrs_projector *projector)
{
    esc_topic_set_fini(&projector->inliner.topics);
    esc_readings_fini(&projector->inliner.readings);
    esc_buffer_fini(&projector->inliner.json);
}
