/* See sqlite_provider.h. Snapshots: the newest one of a stream that verifies, and all of them. */
#include "store/sqlite_provider.h"

#include <string.h>

#include "base/checksum.h"
#include "base/error.h"

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

/* The row, whose columns are version, type, data, checksum from `first` on: DONE where it does not
 * verify. `data` is the statement's. */
static escqrs_status read_row(esc_sqlite *sqlite, esc_connection *connection,
                              sqlite3_stmt *statement, int first, int64_t stream,
                              escqrs_snapshot *snapshot, escqrs_slice *data, escqrs_error *error)
{
    *data = (escqrs_slice){sqlite3_column_blob(statement, first + 2),
                           (size_t)sqlite3_column_bytes(statement, first + 2)};
    snapshot->version = sqlite3_column_int64(statement, first);
    escqrs_type *type = NULL;
    escqrs_status status = esc_sqlite_type(
        sqlite, connection, sqlite3_column_int64(statement, first + 1), &type, error);
    if (status != ESCQRS_OK && status != ESCQRS_CORRUPT) {
        return status;
    }
    snapshot->type = type;
    bool verifies = type != NULL &&
                    esc_snapshot_checksum(stream, snapshot->version, type, *data, sqlite->salt) ==
                        sqlite3_column_int64(statement, first + 3);
    return verifies ? ESCQRS_OK : ESCQRS_DONE;
}

/* The row as a snapshot; DONE where it does not verify. */
static escqrs_status take_snapshot(esc_sqlite *sqlite, esc_connection *connection,
                                   sqlite3_stmt *statement, int64_t stream,
                                   escqrs_snapshot *snapshot, escqrs_error *error)
{
    escqrs_slice data;
    escqrs_status status =
        read_row(sqlite, connection, statement, 0, stream, snapshot, &data, error);
    if (status != ESCQRS_OK) {
        return status;
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

escqrs_status esc_sqlite_snapshot(escqrs_provider *self, escqrs_slice stream, int64_t upto,
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

escqrs_status esc_sqlite_snapshot_version(esc_sqlite *sqlite, esc_connection *connection,
                                          int64_t stream, int64_t least, int64_t *version,
                                          escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_SNAPSHOTS, &statement, error);
    *version = 0;
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    sqlite3_bind_int64(statement, 2, INT64_MAX);
    int code;
    status = ESCQRS_DONE;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW && status == ESCQRS_DONE &&
           sqlite3_column_int64(statement, 0) >= least) {
        escqrs_snapshot snapshot = {0};
        escqrs_slice data;
        status = read_row(sqlite, connection, statement, 0, stream, &snapshot, &data, error);
        *version = status == ESCQRS_OK ? snapshot.version : 0;
    }
    if (status == ESCQRS_DONE && code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

/* ---- all of them ------------------------------------------------------------------------------ */

/* OK to go on; DONE: the visitor ended it. */
static escqrs_status visit_row(esc_sqlite *sqlite, esc_connection *connection,
                               sqlite3_stmt *statement, const escqrs_snapshot_visitor *visitor,
                               escqrs_error *error)
{
    escqrs_snapshot snapshot = {0};
    escqrs_slice data;
    int64_t stream = sqlite3_column_int64(statement, 0);
    escqrs_status status =
        read_row(sqlite, connection, statement, 2, stream, &snapshot, &data, error);
    if (status != ESCQRS_OK && status != ESCQRS_DONE) {
        return status;
    }
    escqrs_snapshot_info info = {
        .number = stream,
        .stream = {sqlite3_column_text(statement, 1), (size_t)sqlite3_column_bytes(statement, 1)},
        .version = snapshot.version,
        .type = snapshot.type,
        .verifies = status == ESCQRS_OK,
    };
    return visitor->visit(visitor->context, &info) ? ESCQRS_OK : ESCQRS_DONE;
}

escqrs_status esc_sqlite_snapshots(escqrs_provider *self, const escqrs_snapshot_visitor *visitor,
                                   escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_stmt *statement = NULL;
    status = esc_connection_statement(sqlite, connection, ESC_SQL_ALL_SNAPSHOTS, &statement, error);
    if (status == ESCQRS_OK) {
        sqlite3_bind_int64(statement, 1, visitor->after_number);
        sqlite3_bind_int64(statement, 2, visitor->after_version);
        sqlite3_bind_int64(statement, 3, (int64_t)visitor->max);
        int code;
        while ((code = sqlite3_step(statement)) == SQLITE_ROW && status == ESCQRS_OK) {
            status = visit_row(sqlite, connection, statement, visitor, error);
        }
        if (status == ESCQRS_OK && code != SQLITE_DONE) {
            status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
        }
        sqlite3_reset(statement);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

/* ---- deleting --------------------------------------------------------------------------------- */

typedef struct deletion {
    esc_sqlite *sqlite;
    escqrs_slice stream;
    int64_t upto;
} deletion;

/* Would a snapshot go that stands for deleted events, and none be left that does? */
static escqrs_status check_needed(esc_sqlite *sqlite, const esc_stream *stream, int64_t upto,
                                  escqrs_error *error)
{
    escqrs_erased erased;
    int64_t newest, left = 0;
    esc_connection *connection = &sqlite->writer.connection;
    escqrs_status status = esc_sqlite_erased_of(sqlite, connection, stream->id, &erased, error);
    if (status != ESCQRS_OK || erased.upto == 0) {
        return status;
    }
    status =
        esc_sqlite_snapshot_version(sqlite, connection, stream->id, erased.upto, &newest, error);
    if (status == ESCQRS_OK && newest != 0 && upto < INT64_MAX) {
        status =
            esc_sqlite_snapshot_version(sqlite, connection, stream->id, upto + 1, &left, error);
    }
    if (status != ESCQRS_OK || newest == 0 || left != 0) {
        return status;
    }
    (void)escqrs_error_set(error, ESCQRS_NOT_COVERED,
                           "the snapshot of stream %.*s at version %lld stands for events up to "
                           "version %lld, which have been deleted",
                           (int)stream->name_size, stream->name, (long long)newest,
                           (long long)erased.upto);
    if (error != NULL) {
        error->version = erased.upto;
    }
    esc_error_subject(error, (escqrs_slice){stream->name, stream->name_size});
    return ESCQRS_NOT_COVERED;
}

static escqrs_status delete_rows(void *context, void *db, escqrs_error *error)
{
    deletion *wanted = context;
    esc_sqlite *sqlite = wanted->sqlite;
    esc_stream *stream;
    (void)db;
    escqrs_status status = esc_sqlite_resolve(sqlite, wanted->stream, &stream, error);
    sqlite3_stmt *statement = NULL;
    if (status == ESCQRS_OK) {
        status = esc_connection_statement(sqlite, &sqlite->writer.connection,
                                          ESC_SQL_DELETE_SNAPSHOTS, &statement, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    int64_t upto = wanted->upto == 0 ? INT64_MAX : wanted->upto;
    status = check_needed(sqlite, stream, upto, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream->id);
    sqlite3_bind_int64(statement, 2, upto);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK
                               : esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error,
                                                  "cannot write to");
}

escqrs_status esc_sqlite_delete_snapshots(escqrs_provider *self, escqrs_slice stream, int64_t upto,
                                          escqrs_error *error)
{
    deletion wanted = {of(self), stream, upto};
    return esc_sqlite_run(self, false, delete_rows, &wanted, error);
}
