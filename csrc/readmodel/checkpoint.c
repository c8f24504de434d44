/* Tables of the engine about read models; see the header. */
#include "readmodel/checkpoint.h"

#include <stdio.h>
#include <string.h>

#include "readmodel/install.h"
#include "readmodel/sql.h"

const char *const esc_checkpoint_move_sql =
    "UPDATE escqrs_readmodel SET position = ?3 WHERE name = ?1 AND position = ?2";

static escqrs_status table_exists(sqlite3 *db, bool *exists, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db, escqrs_slice_of("SELECT 1 FROM sqlite_schema WHERE name = 'escqrs_readmodel_object'"),
        &look, error);
    *exists = false;
    if (status == ESCQRS_OK) {
        int code = sqlite3_step(look);
        *exists = code == SQLITE_ROW;
        if (code != SQLITE_ROW && code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "reading the file's schema");
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

static escqrs_status load_row(sqlite3 *db, const esc_definition *definition,
                              esc_checkpoint *checkpoint, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db, escqrs_slice_of("SELECT position, fingerprint FROM escqrs_readmodel WHERE name = ?1"),
        &look, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, definition->name, -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            checkpoint->found = true;
            checkpoint->position = sqlite3_column_int64(look, 0);
            const unsigned char *text = sqlite3_column_text(look, 1);
            snprintf(checkpoint->fingerprint, sizeof checkpoint->fingerprint, "%s",
                     text == NULL ? "" : (const char *)text);
        } else if (code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "reading the checkpoint of read model %s",
                                     definition->name);
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

static escqrs_status count_objects(sqlite3 *db, const esc_definition *definition,
                                   esc_checkpoint *checkpoint, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db,
        escqrs_slice_of("SELECT 1 FROM sqlite_schema AS s JOIN escqrs_readmodel_object AS o"
                        " ON o.name = s.name WHERE s.name = ?1 AND o.readmodel = ?2"),
        &look, error);
    checkpoint->complete = true;
    for (size_t i = 0; status == ESCQRS_OK && i < definition->objects.count; i++) {
        const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        (void)sqlite3_bind_text(look, 1, object->name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_text(look, 2, definition->name, -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code == SQLITE_DONE) {
            checkpoint->complete = false;
        } else if (code != SQLITE_ROW) {
            status = esc_rmsql_error(error, db, code, "reading the file's schema");
        }
        (void)sqlite3_reset(look);
    }
    (void)sqlite3_finalize(look);
    return status;
}

escqrs_status esc_checkpoint_load(sqlite3 *db, const esc_definition *definition,
                                  esc_checkpoint *checkpoint, escqrs_error *error)
{
    *checkpoint = (esc_checkpoint){0};
    bool exists = false;
    escqrs_status status = table_exists(db, &exists, error);
    if (status != ESCQRS_OK || !exists) {
        return status;
    }
    if ((status = load_row(db, definition, checkpoint, error)) == ESCQRS_OK && checkpoint->found) {
        status = count_objects(db, definition, checkpoint, error);
    }
    return status;
}

bool esc_checkpoint_is_of(const esc_checkpoint *checkpoint, const esc_definition *definition)
{
    return checkpoint->complete && strcmp(checkpoint->fingerprint, definition->fingerprint) == 0;
}

escqrs_status esc_checkpoint_check_names(sqlite3 *db, const esc_definition *definition,
                                         escqrs_error *error)
{
    bool exists = false;
    escqrs_status status = table_exists(db, &exists, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_stmt *look = NULL;
    status = esc_rmsql_prepare(
        db,
        escqrs_slice_of(
            exists ? "SELECT s.type, o.readmodel FROM sqlite_schema AS s"
                     " LEFT JOIN escqrs_readmodel_object AS o ON o.name = s.name COLLATE NOCASE"
                     " WHERE s.name = ?1 COLLATE NOCASE"
                   : "SELECT type, NULL FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE"),
        &look, error);
    for (size_t i = 0; status == ESCQRS_OK && i < definition->objects.count; i++) {
        const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        (void)sqlite3_bind_text(look, 1, object->name, -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            const char *type = (const char *)sqlite3_column_text(look, 0);
            const char *owner = (const char *)sqlite3_column_text(look, 1);
            if (owner == NULL) {
                status =
                    escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                     "read model %s makes %s, but the file has a %s of that name "
                                     "which no read model made; choose another name",
                                     definition->name, object->name, type);
            } else if (strcmp(owner, definition->name) != 0) {
                status = escqrs_error_set(
                    error, ESCQRS_NAME_CLASH,
                    "read model %s makes %s, but the %s of that name belongs to read "
                    "model %s; choose another name, or give the class name=\"%s\" if "
                    "it is the same read model",
                    definition->name, object->name, type, owner, owner);
            }
        } else if (code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "reading the file's schema");
        }
        (void)sqlite3_reset(look);
    }
    (void)sqlite3_finalize(look);
    return status;
}

/* ---- replace ---------------------------------------------------------------------------------------- */

static escqrs_status drop_one(sqlite3 *db, const char *what, const char *name, escqrs_error *error)
{
    esc_buffer sql = {0};
    escqrs_status status = esc_buffer_append_format(&sql, "DROP %s IF EXISTS ", what);
    if (status == ESCQRS_OK && (status = esc_install_quote(&sql, name)) == ESCQRS_OK) {
        status = esc_buffer_terminate(&sql);
    }
    status = status == ESCQRS_OK ? esc_rmsql_exec(db, (const char *)sql.data, error)
                                 : escqrs_error_set(error, status, "no memory to drop %s", name);
    esc_buffer_fini(&sql);
    return status;
}

/* Names first, then the drops: no statement may read the schema while it changes. */
static escqrs_status drop_kind(sqlite3 *db, const esc_definition *definition, const char *kind,
                               const char *what, escqrs_error *error)
{
    esc_vector names = ESC_VECTOR_OF(char *);
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db,
        escqrs_slice_of(
            "SELECT name FROM escqrs_readmodel_object WHERE readmodel = ?1 AND kind = ?2"),
        &look, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, definition->name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_text(look, 2, kind, -1, SQLITE_STATIC);
    }
    while (status == ESCQRS_OK) {
        int code = sqlite3_step(look);
        if (code == SQLITE_DONE) {
            break;
        }
        if (code != SQLITE_ROW) {
            status = esc_rmsql_error(error, db, code, "reading the tables of read model %s",
                                     definition->name);
            break;
        }
        char *name = escqrs_strdup(esc_rmsql_column(look, 0));
        if (name == NULL || esc_vector_push(&names, &name) != ESCQRS_OK) {
            escqrs_free(name);
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a table's name");
        }
    }
    (void)sqlite3_finalize(look);
    for (size_t i = 0; i < names.count; i++) {
        char *name = ESC_VECTOR_AT(&names, char *, i);
        if (status == ESCQRS_OK) {
            status = drop_one(db, what, name, error);
        }
        escqrs_free(name);
    }
    esc_vector_fini(&names);
    return status;
}

static const char *const kind_names[] = {"table", "virtual", "shadow", "index", "view", "trigger"};

static escqrs_status drop_all(sqlite3 *db, const esc_definition *definition, escqrs_error *error)
{
    /* Indexes go with their tables, shadow tables with their virtual ones. */
    static const struct {
        const char *kind;
        const char *what;
    } order[] = {
        {"trigger", "TRIGGER"}, {"view", "VIEW"}, {"virtual", "TABLE"}, {"table", "TABLE"}};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        escqrs_status status = drop_kind(db, definition, order[i].kind, order[i].what, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

static escqrs_status run_with(sqlite3 *db, const char *sql, const char *first, const char *second,
                              const char *third, int64_t number, escqrs_error *error)
{
    sqlite3_stmt *write = NULL;
    escqrs_status status = esc_rmsql_prepare(db, escqrs_slice_of(sql), &write, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(write, 1, first, -1, SQLITE_STATIC);
        if (second != NULL) {
            (void)sqlite3_bind_text(write, 2, second, -1, SQLITE_STATIC);
        }
        if (third != NULL) {
            (void)sqlite3_bind_text(write, 3, third, -1, SQLITE_STATIC);
        } else if (second != NULL) {
            (void)sqlite3_bind_int64(write, 3, number);
        }
        status = esc_rmsql_run(write, error);
    }
    (void)sqlite3_finalize(write);
    return status;
}

escqrs_status esc_checkpoint_replace(sqlite3 *db, const esc_definition *definition, sqlite3 *from,
                                     int64_t position, escqrs_error *error)
{
    escqrs_status status =
        esc_rmsql_exec(db,
                       "CREATE TABLE IF NOT EXISTS escqrs_readmodel(name TEXT NOT NULL PRIMARY KEY,"
                       " position INTEGER NOT NULL, fingerprint TEXT NOT NULL) WITHOUT ROWID;"
                       "CREATE TABLE IF NOT EXISTS escqrs_readmodel_object(name TEXT NOT NULL "
                       "PRIMARY KEY COLLATE NOCASE,"
                       " kind TEXT NOT NULL, readmodel TEXT NOT NULL) WITHOUT ROWID",
                       error);
    if (status == ESCQRS_OK) {
        status = drop_all(db, definition, error);
    }
    if (status == ESCQRS_OK) {
        status = run_with(db, "DELETE FROM escqrs_readmodel_object WHERE readmodel = ?1",
                          definition->name, NULL, NULL, 0, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_install(definition, from, db, error);
    }
    for (size_t i = 0; status == ESCQRS_OK && i < definition->objects.count; i++) {
        const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        status = run_with(
            db, "INSERT INTO escqrs_readmodel_object (name, kind, readmodel) VALUES (?1, ?2, ?3)",
            object->name, kind_names[object->kind], definition->name, 0, error);
    }
    if (status == ESCQRS_OK) {
        status = run_with(
            db,
            "INSERT INTO escqrs_readmodel (name, fingerprint, position) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint,"
            " position = excluded.position",
            definition->name, definition->fingerprint, NULL, position, error);
    }
    return status;
}
