/* readmodel/sql.h - the few calls of SQLite that all of this folder makes, with errors as statuses.
 *
 * Not thread-safe: whoever has the connection calls. Nothing here waits but for SQLite itself. */
#ifndef ESC_READMODEL_SQL_H
#define ESC_READMODEL_SQL_H

#include <escqrs/base.h>
#include <sqlite3.h>

/* FULL, NO_MEMORY, READ_ONLY, CORRUPT, IO (also busy and locked); INVALID for all that a statement
 * or its values are to blame for. */
escqrs_status esc_rmsql_status(int code);
/* Is it the machine's fault, so that trying again later may help? */
bool esc_rmsql_is_transient(int code);

/* Fill the error with "{text}: {what SQLite says}"; returns its status. */
escqrs_status esc_rmsql_error(escqrs_error *error, sqlite3 *db, int code, const char *format, ...)
    ESCQRS_PRINTF(4, 5);

/* Run statements whose text is ours. */
escqrs_status esc_rmsql_exec(sqlite3 *db, const char *sql, escqrs_error *error) ESCQRS_MUST_USE;
/* End a transaction: commit where `status` is OK, else, or where that fails, take it back. Its
 * status. */
escqrs_status esc_rmsql_end(sqlite3 *db, escqrs_status status, escqrs_error *error) ESCQRS_MUST_USE;
/* Prepare one statement, to be kept. */
escqrs_status esc_rmsql_prepare(sqlite3 *db, escqrs_slice sql, sqlite3_stmt **statement,
                                escqrs_error *error) ESCQRS_MUST_USE;
/* Step a statement that gives no rows (or whose rows do not matter) to its end and reset it. */
escqrs_status esc_rmsql_run(sqlite3_stmt *statement, escqrs_error *error) ESCQRS_MUST_USE;

/* Text of a column, valid until the next step; empty for NULL. */
escqrs_slice esc_rmsql_column(sqlite3_stmt *statement, int column);

#endif
