/* Read models: checked, compared with the file, and made in it.
 *
 * Design
 *   - Adding looks and writes nothing. What has to be written, the tables of all new read models
 * and their checkpoints, is written by start in one transaction: an open that fails leaves the file
 * as it was.
 *   - What the file has in another definition is left as it is, and a rebuild replaces it (see
 * rebuild.c). Locks: none are held; the thread that projects does not run yet. */
#include "readmodel/projector.h"

#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/dead_letter.h"
#include "readmodel/sql.h"

/* ---- siblings -------------------------------------------------------------------------------- */

static escqrs_status check_pair(const esc_definition *one, const esc_definition *other,
                                escqrs_error *error)
{
    if (strcmp(one->name, other->name) == 0) {
        return escqrs_error_set(error, ESCQRS_NAME_CLASH, "two read models are called %s",
                                one->name);
    }
    for (size_t i = 0; i < one->objects.count; i++) {
        const char *name = ESC_VECTOR_AT(&one->objects, esc_object, i).name;
        for (size_t j = 0; j < other->objects.count; j++) {
            if (sqlite3_stricmp(name, ESC_VECTOR_AT(&other->objects, esc_object, j).name) == 0) {
                return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                        "read models %s and %s both make %s; choose another name",
                                        one->name, other->name, name);
            }
        }
    }
    return ESCQRS_OK;
}

/* Two read models of this projector may want one name though neither has made it yet. */
static escqrs_status check_siblings(escqrs_projector *projector, const esc_definition *definition,
                                    escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; status == ESCQRS_OK && i < projector->models.count; i++) {
        status = check_pair(&esc_projector_model(projector, i)->definition, definition, error);
    }
    return status;
}

escqrs_status escqrs_readmodel_check(const escqrs_readmodel_spec *specs, size_t count,
                                     escqrs_error *error)
{
    esc_definition *definitions = escqrs_alloc_zero((count + 1) * sizeof(esc_definition));
    escqrs_status status = ESCQRS_OK;
    size_t made = 0;
    if (definitions == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read models");
    }
    for (; status == ESCQRS_OK && made < count; made += status == ESCQRS_OK) {
        status = esc_definition_init(&definitions[made], &specs[made], error);
    }
    for (size_t i = 0; i < made; i++) {
        for (size_t j = 0; status == ESCQRS_OK && j < i; j++) {
            status = check_pair(&definitions[j], &definitions[i], error);
        }
    }
    for (size_t i = 0; i < made; i++) {
        esc_definition_fini(&definitions[i]);
    }
    escqrs_free(definitions);
    return status;
}

/* ---- what the file has ----------------------------------------------------------------------- */

static bool is_same(const escqrs_readmodel *model, const esc_checkpoint *checkpoint)
{
    return esc_checkpoint_is_of(checkpoint, &model->definition);
}

/* May the read model be opened with what this connection sees? `*checkpoint` is what there is. */
static escqrs_status compare(escqrs_readmodel *model, sqlite3 *db, esc_checkpoint *checkpoint,
                             escqrs_error *error)
{
    const esc_definition *definition = &model->definition;
    escqrs_status status = esc_checkpoint_load(db, definition, checkpoint, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (checkpoint->found && is_same(model, checkpoint)) {
        int64_t head = escqrs_store_head(model->projector->store);
        if (checkpoint->position < 0 || checkpoint->position > head) {
            return escqrs_error_set(
                error, ESCQRS_CORRUPT,
                "read model %s has seen event %lld, but the store ends at %lld; change "
                "its `version` to build it anew",
                definition->name, (long long)checkpoint->position, (long long)head);
        }
        return ESCQRS_OK;
    }
    if (checkpoint->found && definition->rebuild_manual) {
        return escqrs_error_set(
            error, ESCQRS_SCHEMA_MISMATCH,
            "read model %s has changed since the file was written (schema, SQL, handlers "
            "or version), and its `rebuild` is \"manual\"; open it once with rebuild = "
            "\"auto\" to build it anew",
            definition->name);
    }
    return esc_checkpoint_check_names(db, definition, error);
}

/* Where it stands by its checkpoint. */
static void settle(escqrs_readmodel *model, const esc_checkpoint *checkpoint)
{
    bool same = checkpoint->found && is_same(model, checkpoint);
    bool changed = checkpoint->found && !same && checkpoint->position > 0;
    model->live.position = same ? checkpoint->position : 0;
    model->frozen = changed && !model->definition.has_virtual;
    model->refilling = changed && model->definition.has_virtual;
    model->level =
        !model->frozen && model->live.position >= escqrs_store_head(model->projector->store);
}

/* A read-only store: it must be there as specified. */
escqrs_status esc_model_look_up(escqrs_readmodel *model, esc_checkpoint *checkpoint,
                                escqrs_error *error)
{
    void *sqlite = NULL;
    escqrs_status status = escqrs_readmodel_reader(model, &sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_load(sqlite, &model->definition, checkpoint, error);
    escqrs_readmodel_reader_return(model, sqlite);
    return status;
}
static escqrs_status look_writable(escqrs_readmodel *model, escqrs_error *error)
{
    void *sqlite = NULL;
    esc_checkpoint checkpoint;
    if (model->live.db != NULL) {
        escqrs_status own = compare(model, model->live.db, &checkpoint, error);
        if (own == ESCQRS_OK) {
            settle(model, &checkpoint);
        }
        return own;
    }
    escqrs_status status = escqrs_store_reader(model->projector->store, &sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = compare(model, sqlite, &checkpoint, error);
    escqrs_store_reader_return(model->projector->store, sqlite);
    if (status == ESCQRS_OK) {
        settle(model, &checkpoint);
    }
    return status;
}

static escqrs_status look_readonly(escqrs_readmodel *model, escqrs_error *error)
{
    esc_checkpoint checkpoint;
    escqrs_status status = esc_model_look_up(model, &checkpoint, error);
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
    settle(model, &checkpoint);
    return ESCQRS_OK;
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Within the transaction of start. */
static escqrs_status make_one(escqrs_readmodel *model, sqlite3 *db, escqrs_error *error)
{
    esc_checkpoint checkpoint;
    escqrs_status status = compare(model, db, &checkpoint, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    settle(model, &checkpoint);
    if (model->frozen || (checkpoint.found && is_same(model, &checkpoint))) {
        return ESCQRS_OK;
    }
    return esc_checkpoint_replace(db, &model->definition, model->definition.scratch, 0, error);
}

static escqrs_status work_make(void *context, void *sqlite, escqrs_error *error)
{
    escqrs_projector *projector = context;
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_dead_letter_make_table(sqlite, error);
    for (size_t i = 0; status == ESCQRS_OK && i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        status = model->live.db == NULL ? make_one(model, sqlite, error) : ESCQRS_OK;
    }
    status = esc_rmsql_end(sqlite, status, error);
    int64_t head = escqrs_store_head(projector->store);
    for (size_t i = 0; status == ESCQRS_OK && i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (!model->frozen && model->live.position == head) {
            esc_inline_enter(model, head);
        }
    }
    return status;
}

/* In its own file, or in memory. */
static escqrs_status make_side(escqrs_readmodel *model, escqrs_error *error)
{
    sqlite3 *db = model->live.db;
    escqrs_status status =
        esc_rmsql_exec(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", error);
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(db, "BEGIN IMMEDIATE", error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_side_make(model, error);
    if (status == ESCQRS_OK) {
        status = esc_dead_letter_make_table(db, error);
    }
    if (status == ESCQRS_OK) {
        status = make_one(model, db, error);
    }
    return esc_rmsql_end(db, status, error);
}

escqrs_status esc_models_make(escqrs_projector *projector, escqrs_error *error)
{
    escqrs_status status = escqrs_store_run(projector->store, false, work_make, projector, error);
    for (size_t i = 0; status == ESCQRS_OK && i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        status = model->live.db != NULL ? make_side(model, error) : ESCQRS_OK;
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    for (size_t i = 0; i < projector->models.count; i++) {
        escqrs_readmodel *model = esc_projector_model(projector, i);
        if (model->frozen) {
            escqrs_log_write(&projector->log, ESCQRS_LOG_INFO,
                             "read model %s has changed; it is built anew beside the old rows",
                             model->definition.name);
        }
        if ((status = esc_copy_resume(model, error)) != ESCQRS_OK) {
            return status;
        }
    }
    projector->made = true;
    return ESCQRS_OK;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static escqrs_status reserve(escqrs_projector *projector)
{
    esc_follower **members =
        escqrs_realloc(projector->members, (projector->models.count + 1) * sizeof(esc_follower *));
    if (members == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    projector->members = members;
    return esc_vector_reserve(&projector->models, 1);
}

static escqrs_status subscribe(escqrs_readmodel *model, escqrs_error *error)
{
    esc_topic_set *topics = &model->projector->topics;
    esc_topic_set *inlined = &model->projector->inliner.topics;
    escqrs_status status = esc_topic_set_subscribe(topics, model, error);
    if (status == ESCQRS_OK && model->definition.is_inline) {
        status = esc_topic_set_subscribe(inlined, model, error);
    }
    if (status != ESCQRS_OK) {
        esc_topic_set_unsubscribe(topics, model);
        esc_topic_set_unsubscribe(inlined, model);
    }
    return status;
}

escqrs_status esc_model_create(escqrs_projector *projector, const escqrs_readmodel_spec *spec,
                               escqrs_readmodel **model, escqrs_error *error)
{
    escqrs_readmodel *made = escqrs_alloc_zero(sizeof(escqrs_readmodel));
    *model = NULL;
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a read model");
    }
    made->projector = projector;
    made->live.model = made;
    esc_park_init(&made->live);
    escqrs_status status = esc_definition_init(&made->definition, spec, error);
    if (status != ESCQRS_OK) {
        esc_park_end(made);
        escqrs_free(made);
        return status;
    }
    *model = made;
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_add(escqrs_projector *projector, const escqrs_readmodel_spec *spec,
                                   escqrs_readmodel **readmodel, escqrs_error *error)
{
    ESC_ASSERT(!projector->started && !projector->made);
    *readmodel = NULL;
    if (reserve(projector) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a read model");
    }
    escqrs_readmodel *model = NULL;
    escqrs_status status = esc_model_create(projector, spec, &model, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    ESC_ASSERT(model != NULL);
    if ((status = check_siblings(projector, &model->definition, error)) != ESCQRS_OK ||
        (status = esc_side_open(model, error)) != ESCQRS_OK) {
        goto fail;
    }
    status = projector->readonly ? look_readonly(model, error) : look_writable(model, error);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    if ((status = subscribe(model, error)) != ESCQRS_OK) {
        goto fail;
    }
    status = esc_vector_push(&projector->models, &model);
    ESC_ASSERT(status == ESCQRS_OK); /* there is room for it */
    *readmodel = model;
    return ESCQRS_OK;

fail:
    esc_model_destroy(model);
    return status;
}

void esc_model_destroy(escqrs_readmodel *model)
{
    esc_copy_destroy(model->copy);
    escqrs_free(model->copy_path);
    esc_park_end(model);
    esc_side_close(model);
    escqrs_free(model->side.path);
    esc_definition_fini(&model->definition);
    escqrs_free(model);
}
