/* See sqlite_provider.h. Giving free pages back to the file system.
 *
 * A file that was made with auto_vacuum = INCREMENTAL gives back some pages at a time, each slice a
 * transaction of its own in the leader's role, so that commits go on in between. One that was not
 * (format 1) is rewritten by SQLite's VACUUM, which takes the writer for as long as that takes, and
 * is of the other kind afterwards. The file itself gets shorter with a checkpoint, as soon as no
 * reader looks at an older state. */
#include "store/sqlite_provider.h"

#include <stdio.h>

#include "base/error.h"

static escqrs_status number_of(const esc_sqlite *sqlite, const char *pragma, int64_t *value,
                               escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, pragma, -1, &statement, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *value = sqlite3_column_int64(statement, 0);
    }
    escqrs_status status =
        code == SQLITE_ROW ? ESCQRS_OK : esc_sqlite_error(sqlite, db, code, error, "cannot read");
    sqlite3_finalize(statement);
    return status;
}

static escqrs_status execute(esc_sqlite *sqlite, const char *text, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int code = sqlite3_exec(db, text, NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        return ESCQRS_OK;
    }
    int extended = sqlite3_extended_errcode(db);
    escqrs_status status = esc_sqlite_error(sqlite, db, code, error, "cannot compact");
    if (!sqlite3_get_autocommit(db)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    sqlite->base.failed = sqlite->base.failed || esc_sqlite_is_final(extended);
    return status;
}

/* Rewrite the whole file. */
static escqrs_status rewrite(esc_sqlite *sqlite, escqrs_error *error)
{
    return execute(sqlite, "PRAGMA auto_vacuum = INCREMENTAL; VACUUM", error);
}

static escqrs_status release_pages(esc_sqlite *sqlite, int64_t pages, escqrs_error *error)
{
    char text[96];
    /* incremental_vacuum gives back a page with each of its steps, which exec makes */
    snprintf(text, sizeof text, "BEGIN IMMEDIATE; PRAGMA incremental_vacuum(%lld); COMMIT",
             (long long)pages);
    return execute(sqlite, text, error);
}

escqrs_status esc_sqlite_compact(escqrs_provider *self, int64_t pages, int64_t *bytes, bool *more,
                                 escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    int64_t before = 0, after = 0, free_pages = 0, mode = 0, page_size = 0;
    *more = false;
    *bytes = 0;
    escqrs_status status = number_of(sqlite, "PRAGMA freelist_count", &free_pages, error);
    if (status == ESCQRS_OK) {
        status = number_of(sqlite, "PRAGMA auto_vacuum", &mode, error);
    }
    if (status == ESCQRS_OK) {
        status = number_of(sqlite, "PRAGMA page_count", &before, error);
    }
    if (status == ESCQRS_OK) {
        status = number_of(sqlite, "PRAGMA page_size", &page_size, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_set_synced(sqlite, error);
    }
    if (status == ESCQRS_OK && free_pages > 0) {
        status = mode == 2 ? release_pages(sqlite, pages, error) : rewrite(sqlite, error);
    }
    if (status == ESCQRS_OK) {
        status = number_of(sqlite, "PRAGMA page_count", &after, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    *bytes = (before - after) * page_size;
    *more = free_pages > pages && mode == 2 && after < before;
    if (!*more) {
        esc_sqlite_checkpoint_wal(sqlite);
    }
    return ESCQRS_OK;
}
