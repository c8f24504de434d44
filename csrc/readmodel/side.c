/* Read models in files of their own, and in memory.
 *
 * Design
 *   - Such a file has what the store's has of a read model: its tables, its checkpoint, its dead
 *     letters; and escqrs_origin, the salt of the store that it follows. So it is exactly once by
 *     itself: an older copy of it catches up, a deleted one is built anew, one that is ahead of the
 *     store or follows another one is refused.
 *   - One connection writes: the projector's. Readers have connections of their own. In memory they
 *     share the database by SQLite's memdb, where a long query keeps the writer waiting.
 *
 * Lock order: the projector's mutex guards the idle readers and is a leaf. */
#include "readmodel/projector.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/error.h"
#include "readmodel/sql.h"

#define BUSY_TIMEOUT_MS 5000

/* ---- paths ----------------------------------------------------------------------------------- */

/* A database in memory is one of this store and read model. */
static char *memory_path(const escqrs_readmodel *model)
{
    char text[128];
    snprintf(text, sizeof text, "file:/escqrs-%ld-%p-%016llx?vfs=memdb", (long)getpid(),
             (const void *)model->projector->store,
             (unsigned long long)esc_hash(escqrs_slice_of(model->definition.name), 1));
    return escqrs_strdup(escqrs_slice_of(text));
}

static char *resolve(const escqrs_readmodel *model)
{
    const char *file = model->definition.file;
    const char *store = escqrs_store_path(model->projector->store);
    const char *slash = strrchr(store, '/');
    if (strcmp(file, ":memory:") == 0) {
        return memory_path(model);
    }
    if (file[0] == '/' || slash == NULL) {
        return escqrs_strdup(escqrs_slice_of(file));
    }
    esc_buffer path = {0};
    if (esc_buffer_append(&path, store, (size_t)(slash - store) + 1) != ESCQRS_OK ||
        esc_buffer_append_slice(&path, escqrs_slice_of(file)) != ESCQRS_OK ||
        esc_buffer_terminate(&path) != ESCQRS_OK) {
        esc_buffer_fini(&path);
        return NULL;
    }
    return (char *)esc_buffer_take(&path);
}

bool esc_side_is_in_memory(const escqrs_readmodel *model)
{
    return model->definition.file != NULL && strcmp(model->definition.file, ":memory:") == 0;
}

static escqrs_status open_connection(escqrs_readmodel *model, int flags, sqlite3 **db,
                                     escqrs_error *error)
{
    flags |= SQLITE_OPEN_NOMUTEX | (esc_side_is_in_memory(model) ? SQLITE_OPEN_URI : 0);
    int code = sqlite3_open_v2(model->side.path, db, flags, NULL);
    if (code != SQLITE_OK) {
        escqrs_status status = esc_rmsql_error(error, *db, code, "read model %s: cannot open %s",
                                               model->definition.name, model->definition.file);
        (void)sqlite3_close(*db);
        *db = NULL;
        return status;
    }
    (void)sqlite3_busy_timeout(*db, BUSY_TIMEOUT_MS);
    (void)sqlite3_limit(*db, SQLITE_LIMIT_ATTACHED, 0);
    return ESCQRS_OK;
}

/* ---- whose it is ----------------------------------------------------------------------------- */

/* One number; OK and `fallback` where there is no row, and where there is no such table. */
static escqrs_status read_number(sqlite3 *db, const char *sql, int64_t fallback, int64_t *number,
                                 escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(db, escqrs_slice_of(sql), &look, error);
    *number = fallback;
    if (status == ESCQRS_OK) {
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            *number = sqlite3_column_int64(look, 0);
        } else if (code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "%s", sql);
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

static escqrs_status read_salt(escqrs_readmodel *model, escqrs_error *error)
{
    void *reader = NULL;
    escqrs_status status = escqrs_store_reader(model->projector->store, &reader, error);
    if (status == ESCQRS_OK) {
        status = read_number(reader, "SELECT value FROM escqrs_store WHERE name = 'salt'", 0,
                             &model->side.salt, error);
        escqrs_store_reader_return(model->projector->store, reader);
    }
    return status;
}

static escqrs_status check_origin(escqrs_readmodel *model, escqrs_error *error)
{
    int64_t tables = 0, known = 0, salt = 0;
    const esc_definition *definition = &model->definition;
    escqrs_status status =
        read_number(model->live.db, "SELECT count(*) FROM sqlite_schema", 0, &tables, error);
    if (status == ESCQRS_OK) {
        status = read_number(model->live.db,
                             "SELECT count(*) FROM sqlite_schema WHERE name = 'escqrs_origin'", 0,
                             &known, error);
    }
    if (status == ESCQRS_OK && known > 0) {
        status = read_number(model->live.db, "SELECT salt FROM escqrs_origin", 0, &salt, error);
    }
    if (status != ESCQRS_OK || tables == 0) {
        return status;
    }
    if (known == 0) {
        return escqrs_error_set(error, ESCQRS_NOT_A_STORE,
                                "read model %s: %s is an SQLite file that no read model made",
                                definition->name, definition->file);
    }
    return salt == model->side.salt
               ? ESCQRS_OK
               : escqrs_error_set(error, ESCQRS_NOT_A_STORE,
                                  "read model %s: %s belongs to another store; choose another "
                                  "file, or delete it to have it built anew",
                                  definition->name, definition->file);
}

/* ---- open and close -------------------------------------------------------------------------- */

escqrs_status esc_side_open(escqrs_readmodel *model, escqrs_error *error)
{
    if (model->definition.file == NULL) {
        return ESCQRS_OK;
    }
    model->side.path = resolve(model);
    if (model->side.path == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                model->definition.name);
    }
    bool readonly = model->projector->readonly && !esc_side_is_in_memory(model);
    escqrs_status status = read_salt(model, error);
    if (status == ESCQRS_OK) {
        status = open_connection(
            model, readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
            &model->live.db, error);
    }
    return status == ESCQRS_OK ? check_origin(model, error) : status;
}

escqrs_status esc_side_make(escqrs_readmodel *model, escqrs_error *error)
{
    char insert[120];
    snprintf(insert, sizeof insert,
             "INSERT INTO escqrs_origin SELECT %lld WHERE NOT EXISTS (SELECT * FROM escqrs_origin)",
             (long long)model->side.salt);
    escqrs_status status = esc_rmsql_exec(
        model->live.db, "CREATE TABLE IF NOT EXISTS escqrs_origin(salt INTEGER NOT NULL)", error);
    return status == ESCQRS_OK ? esc_rmsql_exec(model->live.db, insert, error) : status;
}

void esc_side_close(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    sqlite3 *readers[ESC_SIDE_READERS_MAX];
    esc_mutex_lock(&projector->mutex);
    size_t count = model->side.reader_count;
    memcpy(readers, model->side.readers, count * sizeof readers[0]);
    model->side.reader_count = 0;
    esc_mutex_unlock(&projector->mutex);
    for (size_t i = 0; i < count; i++) {
        (void)sqlite3_close(readers[i]);
    }
    if (model->live.db != NULL) {
        esc_follower_finalize(&model->live);
        (void)sqlite3_close(model->live.db);
        model->live.db = NULL;
    }
}

escqrs_status esc_side_run(escqrs_readmodel *model,
                           escqrs_status (*work)(void *context, void *sqlite, escqrs_error *error),
                           void *context, escqrs_error *error)
{
    if (model->side.path == NULL) {
        return escqrs_store_run(model->projector->store, false, work, context, error);
    }
    return model->live.db != NULL ? work(context, model->live.db, error)
                                  : escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
}

/* ---- readers --------------------------------------------------------------------------------- */

bool escqrs_readmodel_is_in_store(const escqrs_readmodel *model)
{
    return model->side.path == NULL;
}

escqrs_status escqrs_readmodel_reader(escqrs_readmodel *model, void **sqlite, escqrs_error *error)
{
    escqrs_projector *projector = model->projector;
    if (model->side.path == NULL) {
        return escqrs_store_reader(projector->store, sqlite, error);
    }
    sqlite3 *reader = NULL;
    esc_mutex_lock(&projector->mutex);
    bool closed = projector->stopping;
    if (!closed && model->side.reader_count > 0) {
        reader = model->side.readers[--model->side.reader_count];
    }
    esc_mutex_unlock(&projector->mutex);
    escqrs_status status = ESCQRS_OK;
    if (closed) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed");
    }
    if (reader == NULL) {
        bool readonly = projector->readonly && !esc_side_is_in_memory(model);
        status = open_connection(model, readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE,
                                 &reader, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(reader, "PRAGMA query_only = 1", error);
    }
    if (status != ESCQRS_OK) {
        (void)sqlite3_close(reader);
        return status;
    }
    *sqlite = reader;
    return ESCQRS_OK;
}

void escqrs_readmodel_reader_return(escqrs_readmodel *model, void *sqlite)
{
    escqrs_projector *projector = model->projector;
    if (model->side.path == NULL) {
        escqrs_store_reader_return(projector->store, sqlite);
        return;
    }
    esc_mutex_lock(&projector->mutex);
    bool kept = model->side.reader_count < ESC_SIDE_READERS_MAX && !projector->stopping;
    if (kept) {
        model->side.readers[model->side.reader_count++] = sqlite;
    }
    esc_mutex_unlock(&projector->mutex);
    if (!kept) {
        (void)sqlite3_close(sqlite);
    }
}
