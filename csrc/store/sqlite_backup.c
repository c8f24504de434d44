/* See sqlite_provider.h. What reads the file as a whole: a copy of it, and the list of its streams.
 *
 * A backup reads in one transaction of a reading connection, so the copy is the store as it was at
 * one moment; the writer goes on, and its WAL grows until the backup has ended. */
#include "store/sqlite_provider.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"

#define BACKUP_PAGES 1024 /* copied between two looks whether the store closes */

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

/* ---- backup ----------------------------------------------------------------------------------- */

static bool is_stopped(esc_sqlite *sqlite)
{
    esc_mutex_lock(&sqlite->pool.mutex);
    bool stopped = sqlite->pool.stopped;
    esc_mutex_unlock(&sqlite->pool.mutex);
    return stopped;
}

/* All pages into `copy`, an empty database. */
static escqrs_status copy_pages(esc_sqlite *sqlite, sqlite3 *from, sqlite3 *copy, const char *path,
                                escqrs_error *error)
{
    sqlite3_backup *backup = sqlite3_backup_init(copy, "main", from, "main");
    int code = backup == NULL ? sqlite3_errcode(copy) : SQLITE_OK;
    bool stopped = false;
    while (code == SQLITE_OK && !(stopped = is_stopped(sqlite))) {
        code = sqlite3_backup_step(backup, BACKUP_PAGES);
    }
    int ended = sqlite3_backup_finish(backup);
    if (stopped) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store was closed during a backup");
    }
    if (code == SQLITE_DONE && ended == SQLITE_OK) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_sqlite_error(sqlite, copy, code == SQLITE_DONE ? ended : code, error, "cannot copy");
    esc_error_prefix(error, "backup to %s: ", path);
    return status;
}

/* In a transaction that sees the store as it is now. */
static escqrs_status copy_to(esc_sqlite *sqlite, esc_connection *connection, const char *path,
                             const char *vfs, escqrs_error *error)
{
    sqlite3 *copy = NULL;
    int64_t salt;
    bool found;
    escqrs_status status = esc_connection_run(sqlite, connection, ESC_SQL_BEGIN_READ, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_sqlite_meta(sqlite, connection, "salt", &salt, &found, error); /* begins it */
    if (status == ESCQRS_OK) {
        int code = sqlite3_open_v2(
            path, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, vfs);
        status = code == SQLITE_OK
                     ? copy_pages(sqlite, connection->db, copy, path, error)
                     : esc_sqlite_error(sqlite, copy, code, error, "cannot open the copy of");
    }
    if (sqlite3_close(copy) != SQLITE_OK && status == ESCQRS_OK) {
        status = escqrs_error_set(error, ESCQRS_IO, "cannot close %s", path);
    }
    (void)!esc_connection_run(sqlite, connection, ESC_SQL_COMMIT, NULL);
    return status;
}

escqrs_status esc_sqlite_copy(escqrs_provider *self, const char *path, const char *vfs,
                              escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status == ESCQRS_OK) {
        status = copy_to(sqlite, connection, path, vfs, error);
        esc_sqlite_give_reader(sqlite, connection);
    }
    return status;
}

escqrs_status esc_sqlite_backup(escqrs_provider *self, const char *path, escqrs_error *error)
{
    int descriptor = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (descriptor < 0) {
        int failure = errno;
        return esc_error_system(error, failure == EACCES ? ESCQRS_READ_ONLY : ESCQRS_IO, failure,
                                "cannot make %s", path);
    }
    close(descriptor);
    escqrs_status status = esc_sqlite_copy(self, path, NULL, error);
    if (status != ESCQRS_OK) {
        (void)unlink(path);
    }
    return status;
}

/* ---- streams ---------------------------------------------------------------------------------- */

escqrs_status esc_sqlite_streams(escqrs_provider *self, int64_t after, size_t max,
                                 bool (*visit)(void *context, const escqrs_stream_info *stream),
                                 void *context, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_connection_statement(sqlite, connection, ESC_SQL_STREAMS, &statement, error);
    if (status == ESCQRS_OK) {
        sqlite3_bind_int64(statement, 1, after);
        int code = SQLITE_DONE;
        bool more = true;
        while (more && max-- > 0 && status == ESCQRS_OK &&
               (code = sqlite3_step(statement)) == SQLITE_ROW) {
            int64_t number;
            escqrs_stream_info stream = {
                .number = sqlite3_column_int64(statement, 0),
                .name = {sqlite3_column_text(statement, 1),
                         (size_t)sqlite3_column_bytes(statement, 1)},
            };
            status =
                esc_sqlite_stream(sqlite, connection, stream.name, &number, &stream.version, error);
            if (status == ESCQRS_OK && esc_provider_deletions(self) > 0) {
                status =
                    esc_sqlite_erased_of(sqlite, connection, stream.number, &stream.erased, error);
            }
            /* without a version it was written a moment ago and is not answered yet */
            more = status == ESCQRS_OK && (stream.version == 0 || visit(context, &stream));
        }
        if (status == ESCQRS_OK && code != SQLITE_ROW && code != SQLITE_DONE) {
            status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
        }
        sqlite3_reset(statement);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}
