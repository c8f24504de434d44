/* See sqlite_provider.h. Beginning anew, after a failure that left open what is on the disk, or
 * because a program says so. The leader's, between two batches.
 *
 * The connections stay: statements of read models live on the writing one, and as long as one is
 * open SQLite knows, in the WAL's index, which commits it has answered as done. A commit whose
 * fsync failed is not among them, but may stand whole behind their end in the WAL, where the
 * recovery after a crash would take it for one, and nobody knows whether the disk has it. So it is
 * overwritten, by a commit that changes nothing and is synced: what failed is not stored then, for
 * good, and the disk has shown that it takes writes again. Then all that memory knows is read anew.
 *
 * What stands in the WAL before it may be on no disk either: work of read models is synced with the
 * next commit, and a sync that fails leaves the cache of the system saying that its pages are
 * written. Commits behind such a hole would be lost with it when the power goes. So the WAL is
 * written again, as it stands, before the store goes on, as an open does.
 *
 * Refused, so that the store is closed and opened, which recovers the WAL from its beginning:
 *   - where the names of the file, its WAL or its lock stand for something else than what is open,
 *     or the file or its WAL were truncated;
 *   - where a checkpoint had moved a part of the WAL for a reader's sake, and the sync of a later
 *     one failed: nobody would write that part again, and only that sync would have made it safe.
 */
#include "store/sqlite_provider.h"

#include "base/error.h"

static escqrs_status check_files(esc_sqlite *sqlite, escqrs_error *error)
{
    escqrs_status status = esc_sqlite_check_lock(sqlite, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_places(sqlite, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_sizes(sqlite, error);
    }
    if (status == ESCQRS_OK && sqlite->writer.lost) {
        (void)escqrs_error_set(error, ESCQRS_IO,
                               "what a reader kept from being synced to %s may be lost with the "
                               "sync that failed: close the store and open it again",
                               sqlite->shown);
        esc_error_subject(error, escqrs_slice_of(sqlite->shown));
        status = ESCQRS_IO;
    }
    return status;
}

static escqrs_status leave_transaction(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int code = sqlite3_get_autocommit(db) ? SQLITE_OK : esc_sqlite_execute(db, "ROLLBACK");
    return code == SQLITE_OK || sqlite3_get_autocommit(db)
               ? ESCQRS_OK
               : esc_sqlite_error(sqlite, db, code, error, "cannot roll back in");
}

static escqrs_status write_again(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int code = esc_sqlite_execute(db, "PRAGMA synchronous = FULL");
    if (code == SQLITE_OK) {
        sqlite->writer.synced = true;
        code = esc_sqlite_overwrite_remains(sqlite);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_write_wal_again(db);
    }
    sqlite->base.failed = sqlite->base.failed || esc_sqlite_is_final(code);
    return code == SQLITE_OK ? ESCQRS_OK
                             : esc_sqlite_error(sqlite, db, code, error, "cannot write to");
}

escqrs_status esc_sqlite_restart(escqrs_provider *self, escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    if (sqlite->readonly) {
        return esc_sqlite_refresh(self, error);
    }
    escqrs_status status = check_files(sqlite, error);
    if (status == ESCQRS_OK) {
        status = leave_transaction(sqlite, error);
    }
    if (status == ESCQRS_OK) {
        status = write_again(sqlite, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_load_types(sqlite, &sqlite->writer.connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_remember(sqlite, error);
    }
    if (status == ESCQRS_OK && self->inliner != NULL) {
        self->inliner->durable(self->inliner->context, esc_provider_head(self));
    }
    if (status == ESCQRS_OK) {
        esc_lock_announce(sqlite->lock);
    }
    return status;
}
