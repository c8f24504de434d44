/* See sqlite_provider.h. What is read beside events: checkpoints, snapshots, keys. */
#include "store/sqlite_provider.h"

#include <string.h>

#include "base/checksum.h"
#include "base/error.h"

static esc_sqlite *of(esc_provider *self)
{
    return (esc_sqlite *)self;
}

escqrs_status esc_sqlite_checkpoint(esc_provider *self, escqrs_slice name, int64_t *position,
                                    escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_stmt *statement = NULL;
    status = esc_connection_statement(sqlite, connection, ESC_SQL_CHECKPOINT, &statement, error);
    if (status == ESCQRS_OK) {
        sqlite3_bind_text(statement, 1, name.size > 0 ? name.data : "", (int)name.size,
                          SQLITE_STATIC);
        int code = sqlite3_step(statement);
        *position = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
        if (code != SQLITE_ROW && code != SQLITE_DONE) {
            status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
        }
        sqlite3_reset(statement);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}

/* The row as a snapshot; DONE where it does not verify. */
static escqrs_status take_snapshot(esc_sqlite *sqlite, esc_connection *connection,
                                   sqlite3_stmt *statement, int64_t stream,
                                   escqrs_snapshot *snapshot, escqrs_error *error)
{
    escqrs_slice data = {sqlite3_column_blob(statement, 2),
                         (size_t)sqlite3_column_bytes(statement, 2)};
    snapshot->version = sqlite3_column_int64(statement, 0);
    escqrs_type *type;
    escqrs_status status =
        esc_sqlite_type(sqlite, connection, sqlite3_column_int64(statement, 1), &type, error);
    if (status != ESCQRS_OK && status != ESCQRS_CORRUPT) {
        return status;
    }
    snapshot->type = type;
    if (type == NULL || esc_snapshot_checksum(stream, snapshot->version, snapshot->type, data,
                                              sqlite->salt) != sqlite3_column_int64(statement, 3)) {
        return ESCQRS_DONE;
    }
    snapshot->data = escqrs_alloc(data.size + 1);
    if (snapshot->data == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a snapshot");
    }
    if (data.size > 0) {
        memcpy(snapshot->data, data.data, data.size);
    }
    snapshot->size = data.size;
    return ESCQRS_OK;
}

static escqrs_status find_snapshot(esc_sqlite *sqlite, esc_connection *connection,
                                   escqrs_slice name, int64_t upto, escqrs_snapshot *snapshot,
                                   int64_t *skipped, escqrs_error *error)
{
    int64_t stream, version;
    escqrs_status status = esc_sqlite_stream(sqlite, connection, name, &stream, &version, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (stream == 0) {
        return ESCQRS_DONE;
    }
    sqlite3_stmt *statement = NULL;
    status = esc_connection_statement(sqlite, connection, ESC_SQL_SNAPSHOTS, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    sqlite3_bind_int64(statement, 2, upto > 0 && upto < version ? upto : version);
    int code;
    status = ESCQRS_DONE;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        status = take_snapshot(sqlite, connection, statement, stream, snapshot, error);
        if (status != ESCQRS_DONE) {
            break;
        }
        *skipped = snapshot->version;
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

escqrs_status esc_sqlite_snapshot(esc_provider *self, escqrs_slice stream, int64_t upto,
                                  escqrs_snapshot *snapshot, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    int64_t skipped = 0;
    memset(snapshot, 0, sizeof *snapshot);
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = find_snapshot(sqlite, connection, stream, upto, snapshot, &skipped, error);
    esc_sqlite_give_reader(sqlite, connection);
    if (skipped > 0) {
        escqrs_log_write(
            &sqlite->log, ESCQRS_LOG_WARNING,
            "%s: a snapshot of stream %.*s at version %lld does not verify and was passed over",
            sqlite->shown, (int)stream.size, (const char *)stream.data, (long long)skipped);
    }
    return status;
}

escqrs_status esc_sqlite_key(esc_provider *self, escqrs_slice scope, escqrs_slice key, void **reply,
                             size_t *size, int64_t *position, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_stmt *statement = NULL;
    status = esc_connection_statement(sqlite, connection, ESC_SQL_KEY, &statement, error);
    if (status == ESCQRS_OK) {
        sqlite3_bind_text(statement, 1, scope.size > 0 ? scope.data : "", (int)scope.size,
                          SQLITE_STATIC);
        sqlite3_bind_text(statement, 2, key.size > 0 ? key.data : "", (int)key.size, SQLITE_STATIC);
        int code = sqlite3_step(statement);
        status = code == SQLITE_DONE ? ESCQRS_DONE : ESCQRS_OK;
        if (code == SQLITE_ROW) {
            *position = sqlite3_column_int64(statement, 0);
            const void *stored = sqlite3_column_blob(statement, 3);
            *size = (size_t)sqlite3_column_bytes(statement, 3);
            *reply = escqrs_alloc(*size + 1);
            if (*reply == NULL) {
                status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a reply");
            } else if (*size > 0) {
                memcpy(*reply, stored, *size);
            }
        } else if (code != SQLITE_DONE) {
            status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
        }
        sqlite3_reset(statement);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}
