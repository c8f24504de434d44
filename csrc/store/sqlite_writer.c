/* See sqlite_provider.h. The writing connection; all of it belongs to the journal's leader.
 *
 * A commit that fails: SQLite rolls back, and the frames it has written to the WAL will be
 * overwritten by the next transaction; but if the process dies before that, recovery may find them,
 * whole, and take them. So after a failed COMMIT, unless it failed for want of room (then its last
 * frame is not whole), a small transaction of our own must succeed and overwrite them before
 * anybody is told that nothing was stored. If it fails too, or if it was an fsync that failed,
 * nobody knows what the disk has: `failed` is final. */
#include "store/sqlite_provider.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

#define MERGE_REST_SLICE 16384
#define LONG_WAL_FRAMES (ESC_LONG_WAL_BYTES / ESC_PAGE_SIZE)
#define FRAMES_IN_MB (1048576 / ESC_PAGE_SIZE)

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

/* ---- start and stop --------------------------------------------------------------------------- */

static int note_wal_frames(void *context, sqlite3 *db, const char *name, int frames)
{
    (void)db;
    (void)name;
    esc_sqlite *sqlite = context;
    sqlite->writer.wal_frames = frames;
    sqlite->writer.wal_end = frames;
    return SQLITE_OK;
}

static int set_synced(esc_sqlite *sqlite, bool synced)
{
    if (sqlite->writer.synced == synced) {
        return SQLITE_OK;
    }
    int code = sqlite3_exec(sqlite->writer.connection.db,
                            synced ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        sqlite->writer.synced = synced;
    }
    return code;
}

/* The ends, the last time, and the number of the last stream. */
static escqrs_status read_ends(esc_sqlite *sqlite, esc_ends *ends, escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_sqlite_ends(sqlite, connection, ends, error);
    sqlite->writer.last_time_us = ends->time_us;
    if (status == ESCQRS_OK) {
        status =
            esc_connection_statement(sqlite, connection, ESC_SQL_LAST_STREAM, &statement, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_provider_set_deletions(&sqlite->base, ends->deletions);
    int code = sqlite3_step(statement);
    sqlite->writer.last_stream = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    return ESCQRS_OK;
}

/* Into a stream index of its own, which becomes the store's: readers never meet half of one. */
static escqrs_status index_anew(esc_sqlite *sqlite, int64_t head, int64_t indexed,
                                escqrs_error *error)
{
    esc_stream_index fresh;
    esc_stream_index_init(&fresh);
    fresh.watermark = indexed;
    escqrs_status status =
        esc_sqlite_index_scan(sqlite, &fresh, &sqlite->writer.connection, indexed, head, error);
    if (status == ESCQRS_OK) {
        esc_stream_index_replace(&sqlite->index, &fresh);
    }
    esc_stream_index_fini(&fresh);
    return status;
}

escqrs_status esc_sqlite_remember(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_ends ends = {0};
    escqrs_status status = read_ends(sqlite, &ends, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_ends(sqlite, ends.head, ends.indexed, error);
    }
    if (status == ESCQRS_OK && sqlite->writer.last_stream > ESC_POSITION_MAX) {
        status =
            esc_sqlite_bad_number(sqlite, (escqrs_slice){"", 0}, sqlite->writer.last_stream, error);
    }
    if (status == ESCQRS_OK) {
        status = index_anew(sqlite, ends.head, ends.indexed, error);
    }
    if (status == ESCQRS_OK && sqlite->chained) {
        status = esc_sqlite_chain_start(sqlite, ends.head, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite->writer.next_position = ends.head + 1;
    sqlite->writer.merge_next = sqlite->writer.merge_credit = 0;
    escqrs_provider_set_head(&sqlite->base, ends.head);
    return ESCQRS_OK;
}

/* What the recovery of a WAL has found may be in memory alone: where an fsync has failed, Linux
 * goes on showing what it did not write, and no later fsync writes it. A commit behind it would be
 * lost with it when the power goes. So the WAL is written once more, as it is. */
static int write_wal(sqlite3 *db)
{
    enum { PIECE = 1 << 16 };
    sqlite3_file *wal = NULL;
    sqlite3_int64 size = 0;
    int code = sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (code != SQLITE_OK || wal == NULL || wal->pMethods == NULL) {
        return code;
    }
    code = wal->pMethods->xFileSize(wal, &size);
    unsigned char *piece = code == SQLITE_OK && size > 0 ? escqrs_alloc(PIECE) : NULL;
    if (piece == NULL) {
        return code != SQLITE_OK || size == 0 ? code : SQLITE_NOMEM;
    }
    for (sqlite3_int64 at = 0; code == SQLITE_OK && at < size; at += PIECE) {
        int part = (int)(size - at < PIECE ? size - at : PIECE);
        code = wal->pMethods->xRead(wal, piece, part, at);
        code = code == SQLITE_OK ? wal->pMethods->xWrite(wal, piece, part, at) : code;
    }
    escqrs_free(piece);
    return code == SQLITE_OK ? wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL) : code;
}

int esc_sqlite_write_wal_again(sqlite3 *db)
{
    int code = esc_sqlite_execute(db, "BEGIN IMMEDIATE"); /* nobody else writes to it meanwhile */
    if (code == SQLITE_OK) {
        code = write_wal(db);
        int ended = esc_sqlite_execute(db, "ROLLBACK");
        code = code == SQLITE_OK ? ended : code;
    }
    return code;
}

escqrs_status esc_sqlite_writer_start(esc_sqlite *sqlite, escqrs_error *error)
{
    escqrs_status status = esc_sqlite_remember(sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite->writer.opened_at = esc_provider_head(&sqlite->base);
    sqlite->writer.checkpoint_at = ESC_CHECKPOINT_FRAMES;
    sqlite->writer.long_wal_frames = LONG_WAL_FRAMES;
    sqlite->writer.synced = false;
    sqlite3_wal_hook(sqlite->writer.connection.db, note_wal_frames, sqlite);
    int code =
        sqlite3_exec(sqlite->writer.connection.db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = set_synced(sqlite, sqlite->durability == ESCQRS_DURABILITY_FULL);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_write_wal_again(sqlite->writer.connection.db);
    }
    return code == SQLITE_OK
               ? ESCQRS_OK
               : esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error, "cannot open");
}

/* ---- batches ---------------------------------------------------------------------------------- */

escqrs_status esc_sqlite_fail(esc_sqlite *sqlite, int code, escqrs_error *error)
{
    sqlite->base.broken = true;
    if (esc_sqlite_is_final(sqlite3_extended_errcode(sqlite->writer.connection.db))) {
        sqlite->base.failed = true;
    }
    return esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error, "cannot write to");
}

escqrs_status esc_sqlite_no_memory(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite->base.broken = true;
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to write an event");
}

escqrs_status esc_sqlite_begin(escqrs_provider *self, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    ESC_ASSERT(!sqlite->writer.in_batch && !self->failed);
    self->broken = false;
    escqrs_status status = esc_sqlite_check_lock(sqlite, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_sizes(sqlite, error);
    }
    if (status != ESCQRS_OK) {
        self->failed = status == ESCQRS_IO;
        return status;
    }
    int code = set_synced(sqlite, sqlite->durability == ESCQRS_DURABILITY_FULL);
    if (code != SQLITE_OK) {
        status = esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error, "cannot use");
    }
    if (status == ESCQRS_OK) {
        status = esc_connection_run(sqlite, &sqlite->writer.connection, ESC_SQL_BEGIN_WRITE, error);
    }
    sqlite->writer.in_batch = status == ESCQRS_OK;
    sqlite->writer.batch_time_us = sqlite->writer.last_time_us;
    memcpy(sqlite->writer.batch_link, sqlite->writer.chain.link, ESCQRS_CHAIN_LINK_SIZE);
    sqlite->writer.merge_next = sqlite->index.frozen_next;
    return status;
}

static void forget_batch(esc_sqlite *sqlite)
{
    esc_stream_index_revert(&sqlite->index);
    for (size_t i = 0; i < sqlite->writer.types.count; i++) {
        ESC_VECTOR_AT(&sqlite->writer.types, escqrs_type *, i)->pending = false;
    }
    esc_vector_clear(&sqlite->writer.types);
    sqlite->writer.next_position = esc_provider_head(&sqlite->base) + 1;
    sqlite->writer.last_time_us = sqlite->writer.batch_time_us;
    memcpy(sqlite->writer.chain.link, sqlite->writer.batch_link, ESCQRS_CHAIN_LINK_SIZE);
    sqlite->writer.in_batch = false;
    sqlite->base.broken = false;
}

void esc_sqlite_rollback(escqrs_provider *self)
{
    esc_sqlite *sqlite = of(self);
    if (!sqlite3_get_autocommit(sqlite->writer.connection.db) &&
        esc_connection_run(sqlite, &sqlite->writer.connection, ESC_SQL_ROLLBACK, NULL) !=
            ESCQRS_OK &&
        !sqlite3_get_autocommit(sqlite->writer.connection.db)) {
        self->failed = true; /* the connection is stuck in a transaction */
    }
    forget_batch(sqlite);
}

/* ---- end of a batch --------------------------------------------------------------------------- */

/* A slice of the merge that is under way, in proportion to what the batch wrote: twice as many
 * index rows as events, so that it is done long before the tail is full again. */
static escqrs_status merge_slice(esc_sqlite *sqlite, escqrs_error *error)
{
    if (sqlite->index.frozen_upto == 0) {
        return ESCQRS_OK;
    }
    int64_t written = sqlite->writer.next_position - 1 - esc_provider_head(&sqlite->base);
    sqlite->writer.merge_credit += 2 * (size_t)written;
    if (sqlite->writer.merge_credit < ESC_MERGE_SLICE_MIN) {
        return ESCQRS_OK;
    }
    size_t rows = sqlite->writer.merge_credit;
    sqlite->writer.merge_credit = 0;
    return esc_sqlite_index_merge(sqlite, rows < ESC_MERGE_SLICE_MAX ? rows : ESC_MERGE_SLICE_MAX,
                                  error);
}

/* The merge of the running transaction is durable. */
static void merge_done(esc_sqlite *sqlite)
{
    esc_stream_index *index = &sqlite->index;
    index->frozen_next = sqlite->writer.merge_next;
    if (index->frozen_upto > 0 && index->frozen_next == index->frozen.count) {
        esc_stream_index_thaw(index);
    }
}

static void publish(esc_sqlite *sqlite)
{
    esc_stream_index_publish(&sqlite->index);
    for (size_t i = 0; i < sqlite->writer.types.count; i++) {
        escqrs_type *type = ESC_VECTOR_AT(&sqlite->writer.types, escqrs_type *, i);
        type->pending = false;
        /* release: pairs with the acquire of who asks whether it is used */
        atomic_store_explicit(&type->stored, true, memory_order_release);
    }
    esc_vector_clear(&sqlite->writer.types);
    merge_done(sqlite);
    sqlite->writer.in_batch = false;
    /* release: pairs with esc_provider_head; whoever sees it can read the events */
    atomic_store_explicit(&sqlite->base.core->head, sqlite->writer.next_position - 1,
                          memory_order_release);
}

int esc_sqlite_overwrite_remains(esc_sqlite *sqlite)
{
    /* There and back: SQLite writes no page for a row that is set to what it was. */
    int code =
        esc_sqlite_execute(sqlite->writer.connection.db,
                           "BEGIN IMMEDIATE;"
                           "UPDATE escqrs_store SET value = value + 1 WHERE name = 'indexed';"
                           "UPDATE escqrs_store SET value = value - 1 WHERE name = 'indexed';"
                           "COMMIT");
    if (code != SQLITE_OK && !sqlite3_get_autocommit(sqlite->writer.connection.db)) {
        sqlite3_exec(sqlite->writer.connection.db, "ROLLBACK", NULL, NULL, NULL);
    }
    return code;
}

escqrs_status esc_sqlite_end(escqrs_provider *self, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    ESC_ASSERT(sqlite->writer.in_batch && !self->broken);
    escqrs_status status = merge_slice(sqlite, error);
    sqlite3_stmt *statement = NULL;
    if (status == ESCQRS_OK && self->inliner != NULL) {
        status = self->inliner->end(self->inliner->context, sqlite->writer.connection.db,
                                    sqlite->writer.next_position - 1, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_connection_statement(sqlite, &sqlite->writer.connection, ESC_SQL_COMMIT,
                                          &statement, error);
    }
    if (status != ESCQRS_OK) {
        esc_sqlite_rollback(self);
        return status;
    }
    errno = 0;
    int code = sqlite3_step(statement);
    int system_error = errno;
    int extended = sqlite3_extended_errcode(sqlite->writer.connection.db);
    sqlite3_reset(statement);
    if (code == SQLITE_DONE) {
        status = esc_sqlite_check_places(sqlite, error);
        if (status != ESCQRS_OK) {
            forget_batch(sqlite);
            self->failed = true;
            return status;
        }
        publish(sqlite);
        if (self->inliner != NULL) {
            self->inliner->durable(self->inliner->context, esc_provider_head(self));
        }
        esc_lock_announce(sqlite->lock);
        return ESCQRS_OK;
    }
    status = esc_sqlite_commit_error(sqlite, sqlite->writer.connection.db, extended, system_error,
                                     error);
    esc_sqlite_rollback(self);
    bool nothing_whole = (extended & 0xff) == SQLITE_FULL || (extended & 0xff) == SQLITE_BUSY;
    if (esc_sqlite_is_final(extended) ||
        (!nothing_whole && esc_sqlite_overwrite_remains(sqlite) != SQLITE_OK)) {
        self->failed = true;
    }
    return status;
}

/* ---- upkeep ----------------------------------------------------------------------------------- */

/* Said again when it has doubled: who watches the disk wants to know whose space it is. */
static void say_long_wal(esc_sqlite *sqlite)
{
    int frames = sqlite->writer.wal_frames;
    if (frames < sqlite->writer.long_wal_frames) {
        return;
    }
    sqlite->writer.long_wal_frames = 2 * frames;
    escqrs_log_write(&sqlite->log, ESCQRS_LOG_WARNING,
                     "the WAL of %s has grown to %d MB, as a reader stays in an old state: a "
                     "query or a transaction that was not ended. Commits go on; it shrinks once "
                     "the reader has gone",
                     sqlite->shown, frames / FRAMES_IN_MB);
}

void esc_sqlite_checkpoint_wal(esc_sqlite *sqlite)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int in_wal = 0, done = 0;
    escqrs_error error = {0};
    if (esc_sqlite_check_sizes(sqlite, &error) == ESCQRS_IO) {
        sqlite->base.failed =
            true; /* the next commit says so, too; nothing covers it up till then */
        escqrs_log_write(&sqlite->log, ESCQRS_LOG_WARNING, "%s", error.message);
        return;
    }
    if (set_synced(sqlite, sqlite->durability == ESCQRS_DURABILITY_FULL) != SQLITE_OK) {
        return;
    }
    int code = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_wal, &done);
    esc_sqlite_note_size(sqlite);
    if (code == SQLITE_OK && in_wal == done) {
        sqlite->writer.checkpoint_at = ESC_CHECKPOINT_FRAMES; /* the next commit begins it anew */
        sqlite->writer.wal_frames = 0;
        sqlite->writer.long_wal_frames = LONG_WAL_FRAMES;
        sqlite->writer.half_moved = false;
        return;
    }
    /* A reader still needs what is in the WAL, or there is no room: the events are safe there. */
    sqlite->writer.checkpoint_at = sqlite->writer.wal_frames + ESC_CHECKPOINT_FRAMES;
    if (code == SQLITE_OK || (code & 0xff) == SQLITE_BUSY) {
        sqlite->writer.half_moved = sqlite->writer.half_moved || done > 0;
        say_long_wal(sqlite);
        return;
    }
    (void)esc_sqlite_error(sqlite, db, code, &error, "cannot move events from the WAL into");
    if (esc_sqlite_is_final(sqlite3_extended_errcode(db))) {
        sqlite->base.failed = true;
        sqlite->writer.lost = sqlite->writer.half_moved;
    }
    escqrs_log_write(&sqlite->log, ESCQRS_LOG_WARNING, "%s", error.message);
}

void esc_sqlite_upkeep(escqrs_provider *self)
{
    esc_sqlite *sqlite = of(self);
    esc_stream_index *index = &sqlite->index;
    if (self->failed) {
        return;
    }
    if (index->frozen_upto == 0 && index->tail_events >= sqlite->tail_events_max) {
        /* Without memory it is tried again after the next batch. */
        (void)!esc_stream_index_freeze(index, esc_provider_head(self));
        sqlite->writer.merge_credit = 0;
    }
    esc_stream_index_trim(index);
    if (sqlite->writer.wal_frames >= sqlite->writer.checkpoint_at) {
        esc_sqlite_checkpoint_wal(sqlite);
    }
}

/* ---- work of others --------------------------------------------------------------------------- */

escqrs_status esc_sqlite_run(escqrs_provider *self, bool sync,
                             escqrs_status (*work)(void *, void *, escqrs_error *), void *context,
                             escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    sqlite3 *db = sqlite->writer.connection.db;
    int code = set_synced(sqlite, sync && sqlite->durability == ESCQRS_DURABILITY_FULL);
    if (code != SQLITE_OK) {
        return esc_sqlite_error(sqlite, db, code, error, "cannot use");
    }
    escqrs_status status = work(context, db, error);
    if (esc_sqlite_is_final(sqlite3_extended_errcode(db)) && status != ESCQRS_OK) {
        self->failed = true;
    }
    if (!sqlite3_get_autocommit(db)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        if (status == ESCQRS_OK) {
            status =
                escqrs_error_set(error, ESCQRS_INVALID,
                                 "work on the writing connection left a transaction open; it was "
                                 "rolled back");
        }
    }
    return status;
}

/* ---- close ------------------------------------------------------------------------------------ */

/* At most 262,144 events: well under a second. */
escqrs_status esc_sqlite_merge_rest(esc_sqlite *sqlite, escqrs_error *error)
{
    while (sqlite->index.tail_events > 0) {
        escqrs_status status = ESCQRS_OK;
        if (sqlite->index.frozen_upto == 0) {
            status = esc_stream_index_freeze(&sqlite->index, esc_provider_head(&sqlite->base));
        }
        if (status != ESCQRS_OK) {
            return escqrs_error_set(error, status, "no memory for the index of streams");
        }
        status = esc_sqlite_begin(&sqlite->base, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        status = esc_sqlite_index_merge(sqlite, MERGE_REST_SLICE, error);
        if (status != ESCQRS_OK) {
            esc_sqlite_rollback(&sqlite->base);
            return status;
        }
        sqlite->writer.merge_credit = 0;
        status = esc_sqlite_end(&sqlite->base, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        esc_sqlite_upkeep(&sqlite->base);
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_set_synced(esc_sqlite *sqlite, escqrs_error *error)
{
    int code = set_synced(sqlite, sqlite->durability == ESCQRS_DURABILITY_FULL);
    return code == SQLITE_OK
               ? ESCQRS_OK
               : esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error, "cannot use");
}

/* Where the tail cannot go to disk nothing is lost: the next open reads it. */
void esc_sqlite_writer_stop(esc_sqlite *sqlite)
{
    esc_connection *connection = &sqlite->writer.connection;
    if (!sqlite->base.failed) {
        (void)!esc_sqlite_merge_rest(sqlite, NULL);
    }
    sqlite3_wal_hook(connection->db, NULL, NULL);
    if (esc_sqlite_check_places(sqlite, NULL) != ESCQRS_OK) {
        sqlite->base.failed = true; /* a WAL without a name was moved into the file */
    }
    if (!sqlite->base.failed) {
        /* Closing checkpoints and takes the WAL away, if no other process reads. */
        (void)set_synced(sqlite, sqlite->durability == ESCQRS_DURABILITY_FULL);
        sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    }
    esc_connection_close(sqlite, connection);
}
