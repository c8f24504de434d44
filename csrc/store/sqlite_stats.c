/* See sqlite_provider.h. What a file holds, counted in one transaction of a reading connection: the
 * journal is read once, for the counts of its types. */
#include "store/sqlite_provider.h"

static escqrs_status one_number(const esc_sqlite *sqlite, sqlite3 *db, const char *query,
                                int64_t *number, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, query, -1, &statement, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *number = sqlite3_column_int64(statement, 0);
    }
    escqrs_status status =
        code == SQLITE_ROW ? ESCQRS_OK : esc_sqlite_error(sqlite, db, code, error, "cannot read");
    sqlite3_finalize(statement);
    return status;
}

static escqrs_status count_types(const esc_sqlite *sqlite, sqlite3 *db,
                                 void (*visit)(void *context, escqrs_slice type, int64_t count),
                                 void *context, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db,
                                  "SELECT t.name, sum(c.n) FROM (SELECT type, count(*) AS n FROM"
                                  " escqrs_journal GROUP BY type) AS c"
                                  " JOIN escqrs_type AS t ON t.id = c.type"
                                  " GROUP BY t.name ORDER BY t.name",
                                  -1, &statement, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code == SQLITE_ROW) {
            escqrs_slice name = {sqlite3_column_text(statement, 0),
                                 (size_t)sqlite3_column_bytes(statement, 0)};
            visit(context, name, sqlite3_column_int64(statement, 1));
        }
    }
    escqrs_status status =
        code == SQLITE_DONE ? ESCQRS_OK : esc_sqlite_error(sqlite, db, code, error, "cannot read");
    sqlite3_finalize(statement);
    return status;
}

static escqrs_status count_all(const esc_sqlite *sqlite, esc_connection *connection,
                               escqrs_statistics *found, escqrs_error *error)
{
    sqlite3 *db = connection->db;
    esc_ends ends = {0};
    int64_t closed = 0;
    const struct {
        const char *query;
        int64_t *number;
    } counts[] = {
        {"SELECT count(*) FROM escqrs_journal", &found->events},
        {"SELECT count(*) FROM escqrs_stream", &found->streams},
        {"SELECT count(*) FROM escqrs_snapshot", &found->snapshots},
        {"SELECT count(*) FROM escqrs_checkpoint", &found->checkpoints},
        {"SELECT count(*) FROM escqrs_key", &found->keys},
        {"SELECT count(*) FROM escqrs_tag", &found->tags},
        {"SELECT count(*) FROM escqrs_id", &found->ids},
        {"SELECT coalesce((SELECT value FROM escqrs_store WHERE name = 'created'), 0)",
         &found->created_us},
        {"SELECT coalesce((SELECT time FROM escqrs_journal ORDER BY position LIMIT 1), 0)",
         &found->first_us},
        {"SELECT coalesce((SELECT time FROM escqrs_journal ORDER BY position DESC LIMIT 1), 0)",
         &found->last_us},
        {"SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", &found->bytes},
    };
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0] && status == ESCQRS_OK; i++) {
        status = one_number(sqlite, db, counts[i].query, counts[i].number, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_ends(sqlite, connection, &ends, error);
    }
    if (status == ESCQRS_OK && ends.deletions > 0) {
        status = one_number(sqlite, db, "SELECT coalesce(sum(last - first + 1), 0) FROM escqrs_gap",
                            &found->deleted, error);
    }
    if (status == ESCQRS_OK && ends.deletions > 0) {
        status = one_number(sqlite, db, "SELECT count(*) FROM escqrs_deleted WHERE closed <> 0",
                            &closed, error);
    }
    found->streams -= closed;
    found->head = ends.head;
    return status;
}

escqrs_status esc_sqlite_stats(escqrs_provider *self, escqrs_statistics *found,
                               void (*visit)(void *context, escqrs_slice type, int64_t count),
                               void *context, escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_connection_run(sqlite, connection, ESC_SQL_BEGIN_READ, error);
    if (status == ESCQRS_OK) {
        status = count_all(sqlite, connection, found, error);
    }
    if (status == ESCQRS_OK && visit != NULL) {
        status = count_types(sqlite, connection->db, visit, context, error);
    }
    (void)!esc_connection_run(sqlite, connection, ESC_SQL_COMMIT, NULL);
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}
