/* Calls of SQLite with errors as statuses; see the header. */
#include "readmodel/sql.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

bool esc_rmsql_is_transient(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_NOMEM:
    case SQLITE_CANTOPEN:
    case SQLITE_PROTOCOL:
    case SQLITE_READONLY:
    case SQLITE_INTERRUPT:
        return true;
    default:
        return false;
    }
}

escqrs_status esc_rmsql_status(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return ESCQRS_OK;
    case SQLITE_FULL:
        return ESCQRS_FULL;
    case SQLITE_NOMEM:
        return ESCQRS_NO_MEMORY;
    case SQLITE_READONLY:
        return ESCQRS_READ_ONLY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ESCQRS_CORRUPT;
    case SQLITE_TOOBIG:
        return ESCQRS_TOO_LARGE;
    default:
        return esc_rmsql_is_transient(code) ? ESCQRS_IO : ESCQRS_INVALID;
    }
}

escqrs_status esc_rmsql_error(escqrs_error *error, sqlite3 *db, int code, const char *format, ...)
{
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof text, format, arguments) < 0) {
        text[0] = '\0';
    }
    va_end(arguments);
    /* The connection remembers the text of its last error; it may be of another call by now. */
    bool same = db != NULL && (sqlite3_errcode(db) & 0xff) == (code & 0xff);
    const char *reason = same ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    return escqrs_error_set(error, esc_rmsql_status(code), "%s: %s", text, reason);
}

escqrs_status esc_rmsql_exec(sqlite3 *db, const char *sql, escqrs_error *error)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        return esc_rmsql_error(error, db, code, "%.300s", sql);
    }
    return ESCQRS_OK;
}

escqrs_status esc_rmsql_end(sqlite3 *db, escqrs_status status, escqrs_error *error)
{
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(db, "COMMIT", error);
    }
    if (status != ESCQRS_OK && !sqlite3_get_autocommit(db)) {
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}

escqrs_status esc_rmsql_prepare(sqlite3 *db, escqrs_slice sql, sqlite3_stmt **statement,
                                escqrs_error *error)
{
    *statement = NULL;
    if (sql.size > INT_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "a statement of more than 2 GiB");
    }
    int code =
        sqlite3_prepare_v3(db, sql.data, (int)sql.size, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    if (code != SQLITE_OK) {
        int shown = sql.size > 300 ? 300 : (int)sql.size;
        return esc_rmsql_error(error, db, code, "%.*s", shown, (const char *)sql.data);
    }
    return ESCQRS_OK;
}

escqrs_status esc_rmsql_run(sqlite3_stmt *statement, escqrs_error *error)
{
    int code = SQLITE_ROW;
    while (code == SQLITE_ROW) {
        code = sqlite3_step(statement);
    }
    escqrs_status status = ESCQRS_OK;
    if (code != SQLITE_DONE) {
        status = esc_rmsql_error(error, sqlite3_db_handle(statement), code, "%.300s",
                                 sqlite3_sql(statement));
    }
    (void)sqlite3_reset(statement); /* repeats the error of the step */
    return status;
}

escqrs_slice esc_rmsql_column(sqlite3_stmt *statement, int column)
{
    const void *text = sqlite3_column_text(statement, column); /* before bytes: it may convert */
    return (escqrs_slice){text, (size_t)sqlite3_column_bytes(statement, column)};
}
