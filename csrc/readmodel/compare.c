/* Comparing: the rows of a read model beside those of a fresh build, both in databases of their
 * own.
 *
 * Design
 *   - The live rows are copied from one state of the file, together with the position that they
 *     stand for; nothing of the store is held afterwards. The fresh build then goes exactly to that
 *     position, on the caller's thread, batch by batch.
 *   - It is a projector of its own that follows with one copy and has no live tables.
 *   - Events that were left out of the live rows on purpose are left out here, where they fail.
 * One thread at a time. Locks: none, but what a projector takes. */
#include "readmodel/projector.h"

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/sql.h"

struct escqrs_comparison {
    escqrs_projector *projector; /* never started */
    escqrs_readmodel *model;     /* its only one */
    sqlite3 *live;
    int64_t target;
    esc_vector skipped; /* int64_t, ascending */
};

/* ---- the live rows --------------------------------------------------------------------------- */

static escqrs_status load_skipped(escqrs_comparison *self, sqlite3 *reader, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    if (sqlite3_table_column_metadata(reader, "main", "escqrs_dead_letter", "state", NULL, NULL,
                                      NULL, NULL, NULL) != SQLITE_OK) {
        return ESCQRS_OK;
    }
    escqrs_status status = esc_rmsql_prepare(
        reader,
        escqrs_slice_of("SELECT position FROM escqrs_dead_letter WHERE readmodel = ?1"
                        " AND state = 'skipped' ORDER BY position"),
        &look, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, self->model->definition.name, -1, SQLITE_STATIC);
    }
    while (status == ESCQRS_OK && sqlite3_step(look) == SQLITE_ROW) {
        int64_t position = sqlite3_column_int64(look, 0);
        if (esc_vector_push(&self->skipped, &position) != ESCQRS_OK) {
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a comparison");
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

static escqrs_status copy_live(escqrs_comparison *self, sqlite3 *reader, escqrs_error *error)
{
    const esc_definition *definition = &self->model->definition;
    esc_checkpoint checkpoint;
    escqrs_status status = esc_rmsql_exec(reader, "BEGIN", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_load(reader, definition, &checkpoint, error);
    if (status == ESCQRS_OK &&
        (!checkpoint.found || !esc_checkpoint_is_of(&checkpoint, definition))) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s is being built anew; compare it afterwards",
                                  definition->name);
    }
    self->model->forgiven = &self->skipped;
    if (status == ESCQRS_OK) {
        self->target = checkpoint.position;
        status = load_skipped(self, reader, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_definition_make_copy(definition, reader, self->projector->in_memory,
                                          &self->live, error);
    }
    (void)sqlite3_exec(reader, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* ---- open and close -------------------------------------------------------------------------- */

static escqrs_status open_model(escqrs_comparison *self, const escqrs_readmodel_spec *spec,
                                escqrs_error *error)
{
    escqrs_readmodel_spec plain = *spec;
    plain.on_error.retry_count = 0;
    escqrs_status status = esc_model_create(self->projector, &plain, &self->model, error);
    if (status == ESCQRS_OK && self->model->definition.has_virtual) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s has virtual tables, which cannot be compared",
                                  self->model->definition.name);
    }
    if (status == ESCQRS_OK) {
        status = esc_topic_set_subscribe(&self->projector->topics, self->model, error);
    }
    return status == ESCQRS_OK ? esc_copy_make_temporary(self->model, &self->model->copy, error)
                               : status;
}

escqrs_status escqrs_comparison_open(escqrs_store *store, const escqrs_host_ops *host,
                                     void *host_context, const escqrs_event_reader *event_reader,
                                     const escqrs_log *log, const escqrs_readmodel_spec *spec,
                                     escqrs_comparison **comparison, escqrs_readmodel **readmodel,
                                     escqrs_error *error)
{
    *comparison = NULL;
    escqrs_comparison *self = escqrs_alloc_zero(sizeof *self);
    void *reader = NULL;
    if (self == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a comparison");
    }
    esc_vector_init(&self->skipped, sizeof(int64_t));
    escqrs_status status =
        escqrs_projector_create(store, host, host_context, log, &self->projector, error);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    self->projector->readonly = true; /* it writes nothing into the store */
    if (event_reader != NULL) {
        escqrs_projector_set_reader(self->projector, event_reader);
    }
    if ((status = open_model(self, spec, error)) != ESCQRS_OK ||
        (status = esc_side_open(self->model, error)) != ESCQRS_OK ||
        (status = escqrs_readmodel_reader(self->model, &reader, error)) != ESCQRS_OK) {
        goto fail;
    }
    status = copy_live(self, reader, error);
    escqrs_readmodel_reader_return(self->model, reader);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    *comparison = self;
    *readmodel = self->model;
    return ESCQRS_OK;

fail:
    escqrs_comparison_close(self);
    return status;
}

void escqrs_comparison_close(escqrs_comparison *self)
{
    if (self == NULL || (self->projector != NULL && esc_projector_is_forked(self->projector))) {
        return;
    }
    (void)sqlite3_close(self->live);
    if (self->model != NULL) {
        esc_model_destroy(self->model);
    }
    escqrs_projector_destroy(self->projector);
    esc_vector_fini(&self->skipped);
    escqrs_free(self);
}

/* ---- the fresh rows -------------------------------------------------------------------------- */

/* One transaction of what of the batch is left. */
static escqrs_status apply_rest(escqrs_comparison *self, size_t *first, escqrs_error *error)
{
    esc_follower *copy = self->model->copy;
    esc_run run = {.projector = self->projector,
                   .members = &copy,
                   .member_count = 1,
                   .first = *first,
                   .copies = true,
                   .savepoints = self->model->definition.has_apply};
    copy->active = true;
    copy->limit = INT64_MAX;
    escqrs_status status = esc_run_transaction(&run, copy->db, &copy->control, error);
    copy->active = false;
    if (status != ESCQRS_OK) {
        return status;
    }
    *first = run.next;
    if (copy->limit > run.upto) {
        copy->position = run.upto;
    } else {
        *error = copy->failure;
        return error->status;
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_comparison_step(escqrs_comparison *self, void **host_state,
                                     escqrs_error *error)
{
    escqrs_projector *projector = self->projector;
    const esc_follower *copy = self->model->copy;
    if (copy->position >= self->target) {
        return ESCQRS_DONE;
    }
    escqrs_status status = esc_batch_read(projector, copy->position, self->target, error);
    size_t first = 0;
    projector->host_state = *host_state;
    while (status == ESCQRS_OK && copy->position < projector->batch.upto) {
        status = apply_rest(self, &first, error);
    }
    *host_state = projector->host_state;
    esc_batch_clear(&projector->batch);
    return status == ESCQRS_DONE ? ESCQRS_CLOSED : status;
}

int64_t escqrs_comparison_position(const escqrs_comparison *self)
{
    return self->model->copy->position;
}

int64_t escqrs_comparison_target(const escqrs_comparison *self)
{
    return self->target;
}

void *escqrs_comparison_rows(escqrs_comparison *self, bool fresh)
{
    return fresh ? self->model->copy->db : self->live;
}
