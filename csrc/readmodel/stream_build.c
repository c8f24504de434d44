/* Making the rows of one stream anew.
 *
 * Design
 *   - It is possible where the author says by which column rows belong to streams
 *     (`stream_column`): every table has it, and it holds the name of the stream whose events
 *     alone have made the row.
 *   - The stream's events are applied to empty tables in a temporary database, up to where the live
 *     rows stand. Then one transaction deletes the live rows of that name and puts the new ones in
 *     their place, with the stream's dead letters; all other rows, and the checkpoint, stay. A
 *     crash before it has changed nothing.
 *   - Refused, with nothing changed: an event that cannot be applied and is not parked; a new row
 *     with another name in the column; a new row that collides with one of another stream.
 *   - Where commits write the live rows, what came meanwhile is applied with the writing connection
 *     in hand, when none can come.
 *   - Triggers have run in the temporary database; they do not run again for the rows that move.
 *
 * The thread that projects calls it, for whoever asked (park.c has the queue). Lock order: the
 * projector's mutex is a leaf. */
#include "readmodel/projector.h"

#include "base/error.h"
#include "readmodel/dead_letter.h"
#include "readmodel/install.h"
#include "readmodel/sql.h"

typedef struct stream_build {
    escqrs_readmodel *model;
    esc_follower *fresh;
    const char *stream;
    int64_t version; /* of the stream's last event that is applied */
    int64_t removed; /* rows */
} stream_build;

/* ---- the new rows ---------------------------------------------------------------------------- */

static escqrs_status refuse(const stream_build *self, escqrs_error *error)
{
    esc_error_prefix(
        error, "building stream %.200s of read model %s anew was given up, the old rows stay: ",
        self->stream, self->model->definition.name);
    esc_error_subject(error, escqrs_slice_of(self->model->definition.name));
    return error->status;
}

/* Apply the batch. */
static escqrs_status apply_batch(stream_build *self, escqrs_error *error)
{
    escqrs_projector *projector = self->model->projector;
    esc_follower *fresh = self->fresh;
    escqrs_status status = ESCQRS_OK;
    size_t first = 0;
    while (status == ESCQRS_OK && fresh->position < projector->batch.upto) {
        esc_run run = {.projector = projector,
                       .members = &fresh,
                       .member_count = 1,
                       .first = first,
                       .copies = true,
                       .savepoints = self->model->definition.has_apply};
        fresh->active = true;
        fresh->limit = INT64_MAX;
        status = esc_run_transaction(&run, fresh->db, &fresh->control, error);
        fresh->active = false;
        if (status == ESCQRS_OK && fresh->limit <= run.upto) {
            *error = fresh->failure;
            status = error->status = ESCQRS_READ_MODEL_STOPPED;
        } else if (status == ESCQRS_OK) {
            fresh->position = run.upto;
            first = run.next;
        }
    }
    return status;
}

/* Apply the stream's events up to a position. */
static escqrs_status build(stream_build *self, int64_t upto, escqrs_error *error)
{
    escqrs_projector *projector = self->model->projector;
    escqrs_cursor *cursor = NULL;
    escqrs_range range = {.after = self->version};
    escqrs_status status = escqrs_store_history(projector->store, escqrs_slice_of(self->stream),
                                                &range, &cursor, error);
    while (status == ESCQRS_OK) {
        status = esc_batch_read_stream(projector, cursor, upto, &self->version, error);
        if (status == ESCQRS_OK) {
            status = apply_batch(self, error);
        }
        esc_batch_clear(&projector->batch);
    }
    escqrs_cursor_close(cursor);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

/* ---- in the place of the old ones ------------------------------------------------------------ */

/* Run "{before}{table}{between}{column}{after}" with the stream as ?1; `*count`: its first column.
 */
static escqrs_status run_on(const stream_build *self, sqlite3 *db, const char *table,
                            const char *const texts[3], int64_t *count, escqrs_error *error)
{
    esc_buffer sql = {0};
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_buffer_append_format(&sql, "%s", texts[0]);
    if (status == ESCQRS_OK && (status = esc_install_quote(&sql, table)) == ESCQRS_OK &&
        (status = esc_buffer_append_format(&sql, "%s", texts[1])) == ESCQRS_OK &&
        (status = esc_install_quote(&sql, self->model->definition.stream_column)) == ESCQRS_OK) {
        status = esc_buffer_append_format(&sql, "%s", texts[2]);
    }
    if (status != ESCQRS_OK) {
        (void)escqrs_error_set(error, status, "no memory to build table %s", table);
    } else {
        status = esc_rmsql_prepare(db, esc_buffer_slice(&sql), &statement, error);
    }
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(statement, 1, self->stream, -1, SQLITE_STATIC);
        int code = sqlite3_step(statement);
        *count = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : sqlite3_changes(db);
        if (code != SQLITE_ROW && code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "building table %s", table);
        }
    }
    (void)sqlite3_finalize(statement);
    esc_buffer_fini(&sql);
    return status;
}

static escqrs_status replace_table(stream_build *self, sqlite3 *db, const char *table,
                                   escqrs_error *error)
{
    static const char *const strange[] = {"SELECT count(*) FROM ", " WHERE ",
                                          " COLLATE BINARY IS NOT ?1"};
    static const char *const old[] = {"DELETE FROM ", " WHERE ", " = ?1 COLLATE BINARY"};
    const esc_definition *definition = &self->model->definition;
    int64_t count = 0;
    escqrs_status status = run_on(self, self->fresh->db, table, strange, &count, error);
    if (status == ESCQRS_OK && count > 0) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "its events make rows of table %s whose %s is not the stream's "
                                "name; rows of such a read model cannot be told by stream",
                                table, definition->stream_column);
    }
    if (status == ESCQRS_OK) {
        status = run_on(self, db, table, old, &count, error);
        self->removed += count;
    }
    return status == ESCQRS_OK ? esc_install_add_rows(self->fresh->db, db, table, error) : status;
}

static escqrs_status replace_all(stream_build *self, sqlite3 *db, escqrs_error *error)
{
    const esc_definition *definition = &self->model->definition;
    escqrs_status status = esc_rmsql_exec(db, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    for (size_t i = 0; status == ESCQRS_OK && i < definition->objects.count; i++) {
        const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        if (object->kind == ESC_OBJECT_TABLE) {
            status = replace_table(self, db, object->name, error);
        }
    }
    if (status == ESCQRS_OK) {
        status = esc_dead_letter_replace(db, definition->name, escqrs_slice_of(self->stream),
                                         self->fresh->db, error);
    }
    if (status == ESCQRS_OK && self->version == 0 && self->removed == 0) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "it has no events, and the read model no rows of it");
    }
    return esc_rmsql_end(db, status, error);
}

static escqrs_status work_replace(void *context, void *sqlite, escqrs_error *error)
{
    stream_build *self = context;
    escqrs_status status = ESCQRS_OK;
    int triggers = 1;
    if (self->model->inlined) { /* what was committed meanwhile */
        status = build(self, escqrs_store_head(self->model->projector->store), error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    (void)sqlite3_db_config(sqlite, SQLITE_DBCONFIG_ENABLE_TRIGGER, -1, &triggers);
    (void)sqlite3_db_config(sqlite, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    status = replace_all(self, sqlite, error);
    (void)sqlite3_db_config(sqlite, SQLITE_DBCONFIG_ENABLE_TRIGGER, triggers, NULL);
    return status;
}

escqrs_status esc_stream_build(escqrs_readmodel *model, const char *stream, escqrs_error *error)
{
    stream_build self = {.model = model, .stream = stream};
    if (model->definition.stream_column == NULL) {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "read model %s does not say which of its rows are a stream's: name the column that "
            "holds the stream as its stream_column, or rebuild all of it",
            model->definition.name);
    }
    escqrs_status status = esc_copy_make_temporary(model, &self.fresh, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    model->fresh = self.fresh;
    status = build(&self, model->live.position, error);
    if (status == ESCQRS_OK) {
        status = esc_side_run(model, work_replace, &self, error);
    }
    model->fresh = NULL;
    esc_copy_destroy(self.fresh);
    if (status != ESCQRS_OK) {
        return refuse(&self, error);
    }
    escqrs_log_write(&model->projector->log, ESCQRS_LOG_INFO,
                     "read model %s: stream %.200s was built anew", model->definition.name, stream);
    return ESCQRS_OK;
}
