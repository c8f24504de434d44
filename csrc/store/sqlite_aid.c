/* See sqlite_provider.h. What is read beside events: checkpoints, keys. */
#include "store/sqlite_provider.h"

#include <string.h>

#include "base/error.h"

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

escqrs_status esc_sqlite_checkpoint(escqrs_provider *self, escqrs_slice name, int64_t *position,
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

escqrs_status esc_sqlite_key(escqrs_provider *self, escqrs_slice scope, escqrs_slice key,
                             void **reply, size_t *size, int64_t *position, escqrs_error *error)
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
