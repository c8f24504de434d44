/* The table of dead letters; see the header. */
#include "readmodel/dead_letter.h"

#include "readmodel/sql.h"

#define OPEN_STATES "state IN ('parked', 'held')"

escqrs_status esc_dead_letter_make_table(sqlite3 *db, escqrs_error *error)
{
    return esc_rmsql_exec(
        db,
        "CREATE TABLE IF NOT EXISTS escqrs_dead_letter(readmodel TEXT NOT NULL,"
        " position INTEGER NOT NULL, stream TEXT NOT NULL, version INTEGER NOT NULL,"
        " type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT,"
        " traceback TEXT, event TEXT, time TEXT NOT NULL, reason TEXT,"
        " PRIMARY KEY (readmodel, position)) WITHOUT ROWID",
        error);
}

static escqrs_status has_table(sqlite3 *db, bool *exists, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db, escqrs_slice_of("SELECT 1 FROM sqlite_schema WHERE name = 'escqrs_dead_letter'"), &look,
        error);
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

/* ---- writing --------------------------------------------------------------------------------- */

static void bind(sqlite3_stmt *statement, int index, escqrs_slice text)
{
    if (text.size > 0) {
        (void)sqlite3_bind_text64(statement, index, text.data, text.size, SQLITE_STATIC,
                                  SQLITE_UTF8);
    } else {
        (void)sqlite3_bind_null(statement, index);
    }
}

static void bind_name(sqlite3_stmt *statement, int index, escqrs_slice text)
{
    (void)sqlite3_bind_text64(statement, index, text.size == 0 ? "" : text.data, text.size,
                              SQLITE_STATIC, SQLITE_UTF8);
}

escqrs_status esc_dead_letter_put(sqlite3 *db, const esc_dead_letter *letter, escqrs_error *error)
{
    sqlite3_stmt *put = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db,
        escqrs_slice_of("INSERT OR REPLACE INTO escqrs_dead_letter VALUES (?1, ?2, ?3, ?4, ?5, ?6,"
                        " ?7, ?8, ?9, ?10, strftime('%Y-%m-%d %H:%M:%f+00:00'), ?11)"),
        &put, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(put, 1, letter->readmodel, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(put, 2, letter->position);
        bind_name(put, 3, letter->stream);
        (void)sqlite3_bind_int64(put, 4, letter->version);
        bind_name(put, 5, letter->type);
        (void)sqlite3_bind_text(put, 6, letter->state, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(put, 7, letter->attempts);
        bind(put, 8, letter->error);
        bind(put, 9, letter->traceback);
        bind(put, 10, letter->event);
        bind(put, 11, letter->reason);
        status = esc_rmsql_run(put, error);
    }
    (void)sqlite3_finalize(put);
    return status;
}

/* Run a statement with ?1 read model, ?2 position, ?3 and ?4 texts that it may not have. */
static escqrs_status change(sqlite3 *db, const char *sql, const char *readmodel, int64_t position,
                            escqrs_slice first, escqrs_slice second, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_rmsql_prepare(db, escqrs_slice_of(sql), &statement, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(statement, 1, readmodel, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(statement, 2, position);
        bind(statement, 3, first);
        bind(statement, 4, second);
        status = esc_rmsql_run(statement, error);
    }
    (void)sqlite3_finalize(statement);
    return status;
}

escqrs_status esc_dead_letter_delete(sqlite3 *db, const char *readmodel, int64_t position,
                                     escqrs_error *error)
{
    escqrs_slice none = {NULL, 0};
    return change(db, "DELETE FROM escqrs_dead_letter WHERE readmodel = ?1 AND position = ?2",
                  readmodel, position, none, none, error);
}

escqrs_status esc_dead_letter_skip(sqlite3 *db, const char *readmodel, int64_t position,
                                   escqrs_slice reason, escqrs_error *error)
{
    escqrs_slice none = {NULL, 0};
    escqrs_status status = change(db,
                                  "UPDATE escqrs_dead_letter SET state = 'skipped', reason = ?3"
                                  " WHERE readmodel = ?1 AND position = ?2 AND " OPEN_STATES,
                                  readmodel, position, reason, none, error);
    return status == ESCQRS_OK && sqlite3_changes(db) != 1 ? ESCQRS_DONE : status;
}

escqrs_status esc_dead_letter_fail(sqlite3 *db, const char *readmodel, int64_t position,
                                   escqrs_slice text, escqrs_slice traceback, escqrs_error *error)
{
    return change(db,
                  "UPDATE escqrs_dead_letter SET state = 'parked', attempts = attempts + 1,"
                  " error = ?3, traceback = ?4 WHERE readmodel = ?1 AND position = ?2",
                  readmodel, position, text, traceback, error);
}

/* ---- reading --------------------------------------------------------------------------------- */

static escqrs_status read_streams(sqlite3 *db, const char *readmodel, esc_vector *streams,
                                  int64_t *events, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status =
        esc_rmsql_prepare(db,
                          escqrs_slice_of("SELECT stream, count(*) FROM escqrs_dead_letter"
                                          " WHERE readmodel = ?1 AND " OPEN_STATES
                                          " GROUP BY stream ORDER BY min(position)"),
                          &look, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, readmodel, -1, SQLITE_STATIC);
    }
    while (status == ESCQRS_OK) {
        int code = sqlite3_step(look);
        if (code == SQLITE_DONE) {
            break;
        }
        if (code != SQLITE_ROW) {
            status = esc_rmsql_error(error, db, code, "reading escqrs_dead_letter");
            break;
        }
        char *stream = escqrs_strdup(esc_rmsql_column(look, 0));
        if (stream == NULL || esc_vector_push(streams, &stream) != ESCQRS_OK) {
            escqrs_free(stream);
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for dead letters");
        }
        *events += sqlite3_column_int64(look, 1);
    }
    (void)sqlite3_finalize(look);
    return status;
}

escqrs_status esc_dead_letter_streams(sqlite3 *db, const char *readmodel, esc_vector *streams,
                                      int64_t *events, escqrs_error *error)
{
    bool exists = false;
    *events = 0;
    escqrs_status status = has_table(db, &exists, error);
    return status == ESCQRS_OK && exists ? read_streams(db, readmodel, streams, events, error)
                                         : status;
}

escqrs_status esc_dead_letter_next(sqlite3 *db, const char *readmodel, const char *stream,
                                   int64_t after, int64_t *position, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db,
        escqrs_slice_of("SELECT min(position) FROM escqrs_dead_letter WHERE readmodel = ?1"
                        " AND position > ?2 AND stream = ?3 AND " OPEN_STATES),
        &look, error);
    *position = 0;
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, readmodel, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(look, 2, after);
        (void)sqlite3_bind_text(look, 3, stream, -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            *position = sqlite3_column_int64(look, 0); /* NULL reads as 0 */
        } else {
            status = esc_rmsql_error(error, db, code, "reading escqrs_dead_letter");
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

escqrs_status esc_dead_letter_stream(sqlite3 *db, const char *readmodel, int64_t position,
                                     char **stream, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    escqrs_status status = esc_rmsql_prepare(
        db,
        escqrs_slice_of("SELECT stream FROM escqrs_dead_letter WHERE readmodel = ?1"
                        " AND position = ?2 AND " OPEN_STATES),
        &look, error);
    *stream = NULL;
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, readmodel, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(look, 2, position);
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            *stream = escqrs_strdup(esc_rmsql_column(look, 0));
            if (*stream == NULL) {
                status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for dead letters");
            }
        } else if (code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "reading escqrs_dead_letter");
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

/* ---- from one database into another ---------------------------------------------------------- */

#define COLUMNS 12

static escqrs_status copy_rows(sqlite3_stmt *read, sqlite3_stmt *write, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    while (status == ESCQRS_OK) {
        int code = sqlite3_step(read);
        if (code == SQLITE_DONE) {
            break;
        }
        if (code != SQLITE_ROW) {
            return esc_rmsql_error(error, sqlite3_db_handle(read), code,
                                   "reading escqrs_dead_letter");
        }
        for (int i = 0; i < COLUMNS; i++) {
            (void)sqlite3_bind_value(write, i + 1, sqlite3_column_value(read, i));
        }
        status = esc_rmsql_run(write, error);
    }
    return status;
}

escqrs_status esc_dead_letter_replace(sqlite3 *db, const char *readmodel, escqrs_slice stream,
                                      sqlite3 *from, escqrs_error *error)
{
    sqlite3_stmt *read = NULL, *write = NULL;
    escqrs_slice none = {NULL, 0};
    bool exists = false;
    escqrs_status status = esc_dead_letter_make_table(db, error);
    if (status == ESCQRS_OK) {
        status = change(db,
                        "DELETE FROM escqrs_dead_letter WHERE readmodel = ?1"
                        " AND (?3 IS NULL OR stream = ?3)",
                        readmodel, 0, stream, none, error);
    }
    if (status == ESCQRS_OK) {
        status = has_table(from, &exists, error);
    }
    if (status != ESCQRS_OK || !exists) {
        return status;
    }
    status = esc_rmsql_prepare(
        from, escqrs_slice_of("SELECT * FROM escqrs_dead_letter WHERE readmodel = ?1"), &read,
        error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(read, 1, readmodel, -1, SQLITE_STATIC);
        status = esc_rmsql_prepare(db,
                                   escqrs_slice_of("INSERT INTO escqrs_dead_letter VALUES"
                                                   " (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
                                   &write, error);
    }
    if (status == ESCQRS_OK) {
        status = copy_rows(read, write, error);
    }
    (void)sqlite3_finalize(read);
    (void)sqlite3_finalize(write);
    return status;
}
