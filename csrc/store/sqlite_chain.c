/* See sqlite_provider.h and chain.h. The links of the hash chain in the table escqrs_chain, written
 * by the leader in the transaction of their events. */
#include "store/sqlite_provider.h"

#include <string.h>

#include "base/error.h"
#include "store/event_header.h"

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

int esc_sqlite_chain_create(sqlite3 *db)
{
    return sqlite3_exec(db,
                        "CREATE TABLE escqrs_chain(position INTEGER PRIMARY KEY, hash BLOB NOT "
                        "NULL); INSERT INTO escqrs_store VALUES ('chain', 1)",
                        NULL, NULL, NULL);
}

/* The link in that column; false where it is none. */
static bool take_link(sqlite3_stmt *statement, int column, uint8_t link[ESCQRS_CHAIN_LINK_SIZE])
{
    const void *bytes = sqlite3_column_blob(statement, column);
    if (bytes == NULL || sqlite3_column_bytes(statement, column) != ESCQRS_CHAIN_LINK_SIZE) {
        return false;
    }
    memcpy(link, bytes, ESCQRS_CHAIN_LINK_SIZE);
    return true;
}

escqrs_status esc_sqlite_chain_start(esc_sqlite *sqlite, int64_t head, escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_LAST_LINK, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code = sqlite3_step(statement);
    int64_t position = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    bool reads = code == SQLITE_DONE || take_link(statement, 1, sqlite->writer.chain.link);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    } else if (!reads || position != head) {
        (void)escqrs_error_set(
            error, ESCQRS_CORRUPT,
            "%s was changed: its hash chain ends at position %lld, its events at %lld; open it "
            "read-only, and verify() says more",
            sqlite->shown, (long long)position, (long long)head);
        esc_error_subject(error, escqrs_slice_of(sqlite->shown));
        status = ESCQRS_CORRUPT;
    }
    sqlite3_reset(statement);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------- */

static escqrs_status next_link(esc_sqlite *sqlite, escqrs_recorded *recorded, escqrs_type *type,
                               escqrs_slice header, int64_t ordinal, escqrs_error *error)
{
    esc_chain *chain = &sqlite->writer.chain;
    if (!type->digested) {
        escqrs_status status = esc_chain_type(chain, type->name, type->record, type->digest, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        type->digested = true;
    }
    esc_arena_reset(&chain->arena);
    escqrs_status status =
        esc_event_header_decode(header, ordinal, (uint32_t)sqlite->salt, &chain->arena, recorded);
    if (status != ESCQRS_OK) { /* it was encoded a moment ago */
        return escqrs_error_set(error, status, "no memory for a link of the hash chain");
    }
    return esc_chain_add(chain, recorded, type->digest, error);
}

static escqrs_status put_link(esc_sqlite *sqlite, int64_t position, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, &sqlite->writer.connection,
                                                    ESC_SQL_PUT_LINK, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, position);
    sqlite3_bind_blob(statement, 2, sqlite->writer.chain.link, ESCQRS_CHAIN_LINK_SIZE,
                      SQLITE_STATIC);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (code == SQLITE_DONE) {
        return ESCQRS_OK;
    }
    sqlite3 *db = sqlite->writer.connection.db;
    sqlite->base.failed = sqlite->base.failed || esc_sqlite_is_final(sqlite3_extended_errcode(db));
    return esc_sqlite_error(sqlite, db, code, error, "cannot write to");
}

escqrs_status esc_sqlite_chain_add(esc_sqlite *sqlite, const esc_row *row, escqrs_slice stream,
                                   const escqrs_new_event *event, escqrs_slice header,
                                   escqrs_error *error)
{
    escqrs_recorded recorded = {.position = row->position,
                                .version = row->version,
                                .time_us = row->time_us,
                                .stream = stream,
                                .data = event->data};
    escqrs_status status = ESCQRS_OK;
    if (event->link != NULL) {
        memcpy(sqlite->writer.chain.link, event->link, ESCQRS_CHAIN_LINK_SIZE);
    } else {
        status = next_link(sqlite, &recorded, event->type, header, row->ordinal, error);
    }
    if (status == ESCQRS_OK) {
        status = put_link(sqlite, row->position, error);
    }
    sqlite->base.broken = sqlite->base.broken || status != ESCQRS_OK;
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------- */

escqrs_status esc_sqlite_chain(escqrs_provider *self, int64_t position, uint8_t *link,
                               escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    if (!sqlite->chained) {
        return ESCQRS_DONE;
    }
    if (position == 0) {
        memset(link, 0, ESCQRS_CHAIN_LINK_SIZE);
        return ESCQRS_OK;
    }
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_stmt *statement = NULL;
    status = esc_connection_statement(sqlite, connection, ESC_SQL_LINK, &statement, error);
    if (status == ESCQRS_OK) {
        sqlite3_bind_int64(statement, 1, position);
        int code = sqlite3_step(statement);
        if (code != SQLITE_ROW && code != SQLITE_DONE) {
            status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
        } else if (code == SQLITE_DONE || !take_link(statement, 0, link)) {
            status = ESCQRS_DONE;
        }
        sqlite3_reset(statement);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}
