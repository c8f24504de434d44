/* See sqlite_provider.h. How a file is opened for writing:
 *
 *   1. What is no regular file is refused. The lock is taken. What has several names is refused
 * (lock.c), once more at the end.
 *   2. The first 100 bytes are read through SQLite's own VFS (a descriptor of ours, closed, would
 * drop the POSIX locks that other connections of this process hold on the file). Only an empty
 * file, or one that bears our application id and a format we know, goes on to SQLite; others are
 * not touched.
 *   3. SQLite opens it, recovers the WAL or rolls back a creation that was cut short. If it is
 * empty, the tables are made in one rollback-journal transaction, so a file is ours or empty at any
 * moment.
 *   4. Numbers, types and the tail are read and checked. Until all of that has succeeded the
 * connection will not checkpoint when it is closed: a file that is refused stays as it was. */
#include "store/sqlite_provider.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "store/fork_vfs.h"
#include "store/network.h"

#define READER_COUNT_DEFAULT 8

/* ---- its place -------------------------------------------------------------------------------- */

/* Which file has that name: 0 or errno. Not asked for its times; see fork_vfs.c. */
static int find_place(const char *path, esc_place *place)
{
    struct statx now;
    if (statx(AT_FDCWD, path, 0, STATX_INO, &now) != 0) {
        return errno;
    }
    *place = (esc_place){((uint64_t)now.stx_dev_major << 32) | now.stx_dev_minor, now.stx_ino};
    return 0;
}

static escqrs_status refuse_place(const esc_sqlite *sqlite, const char *suffix, const char *what,
                                  escqrs_error *error)
{
    (void)escqrs_error_set(error, ESCQRS_IO, "%s%s was %s while it was open", sqlite->shown, suffix,
                           what);
    esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    return ESCQRS_IO;
}

/* The WAL's name is gone, but SQLite still has the WAL, and nobody who opens the store will find
 * it: what was committed goes into the file. Not where another WAL has that name: it would be read
 * into the file later; and not after a failed fsync, when nobody knows what is in it. */
static void rescue_wal(esc_sqlite *sqlite)
{
    int in_wal = 0, done = -1;
    escqrs_error error = {0};
    if ((sqlite->base.failed && !sqlite->writer.to_rescue) || !esc_lock_is_held(sqlite->lock) ||
        esc_sqlite_has_companion(sqlite, "-wal", true) ||
        esc_sqlite_set_synced(sqlite, NULL) != ESCQRS_OK) {
        return;
    }
    sqlite3 *db = sqlite->writer.connection.db;
    int code = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_wal, &done);
    sqlite->writer.to_rescue = code != SQLITE_OK || done < in_wal; /* once more when it is closed */
    if (!sqlite->writer.to_rescue) {
        escqrs_log_write(&sqlite->log, ESCQRS_LOG_WARNING,
                         "%s-wal was deleted or moved; all that was committed to it was moved into "
                         "%s",
                         sqlite->shown, sqlite->shown);
    } else if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY) {
        (void)esc_sqlite_error(sqlite, db, code, &error, "cannot move events from the WAL into");
        escqrs_log_write(&sqlite->log, ESCQRS_LOG_ERROR, "%s", error.message);
    }
}

escqrs_status esc_sqlite_check_places(esc_sqlite *sqlite, escqrs_error *error)
{
    static const char *const suffixes[2] = {"", "-wal"};
    char path[PATH_MAX + 8];
    for (size_t i = 0; sqlite->lock != NULL && i < 2; i++) {
        esc_place now = {0}, *known = &sqlite->writer.places[i];
        stpcpy(stpcpy(path, sqlite->path), suffixes[i]);
        int failed = find_place(path, &now);
        if (failed == 0 && known->number == 0) {
            *known = now;
        } else if (failed == ENOENT || failed == ENOTDIR ||
                   (failed == 0 && (known->device != now.device || known->number != now.number))) {
            if (i == 1) {
                rescue_wal(sqlite);
            }
            return refuse_place(sqlite, suffixes[i], "deleted, moved or replaced", error);
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_check_opened(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_place now = {0};
    if (sqlite->opened.number == 0) {
        return ESCQRS_OK;
    }
    int failed = find_place(sqlite->path, &now);
    bool gone = failed == ENOENT || failed == ENOTDIR ||
                (failed == 0 &&
                 (sqlite->opened.device != now.device || sqlite->opened.number != now.number));
    return gone ? refuse_place(sqlite, "", "deleted, moved or replaced", error) : ESCQRS_OK;
}

/* -1 where SQLite does not say. */
static int64_t size_of(sqlite3 *db, int which)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size;
    return sqlite3_file_control(db, "main", which, &file) == SQLITE_OK && file != NULL &&
                   file->pMethods != NULL && file->pMethods->xFileSize(file, &size) == SQLITE_OK
               ? size
               : -1;
}

void esc_sqlite_note_size(esc_sqlite *sqlite)
{
    int64_t size = size_of(sqlite->writer.connection.db, SQLITE_FCNTL_FILE_POINTER);
    sqlite->writer.file_size = size > 0 ? size : 0;
}

/* What the WAL is when it was opened. It may have more frames than SQLite counts, never fewer; who
 * finds it shorter asks SQLite. */
static void note_wal(esc_sqlite *sqlite)
{
    char path[PATH_MAX + 8];
    int64_t size = size_of(sqlite->writer.connection.db, SQLITE_FCNTL_JOURNAL_POINTER);
    snprintf(path, sizeof path, "%s-wal", sqlite->path);
    if (size >= ESC_WAL_HEADER_SIZE && find_place(path, &sqlite->writer.places[1]) == 0) {
        sqlite->writer.wal_end = (int)((size - ESC_WAL_HEADER_SIZE) / ESC_WAL_FRAME_SIZE);
    }
}

/* Another program may have given pages back, which does no harm: then SQLite counts fewer. */
static escqrs_status check_file_size(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int64_t pages = 0;
    int64_t size = size_of(db, SQLITE_FCNTL_FILE_POINTER);
    if (size < 0 || size >= sqlite->writer.file_size) {
        return ESCQRS_OK;
    }
    int code = esc_sqlite_pragma(db, "PRAGMA page_count", &pages);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_CORRUPT) {
        return esc_sqlite_error(sqlite, db, code, error, "cannot read");
    }
    if (code != SQLITE_OK || size < pages * ESC_PAGE_SIZE) {
        return refuse_place(sqlite, "", "truncated", error);
    }
    sqlite->writer.file_size = size;
    return ESCQRS_OK;
}

static bool wal_is_short(sqlite3 *db, int frames)
{
    int64_t size = size_of(db, SQLITE_FCNTL_JOURNAL_POINTER);
    return frames > 0 && size >= 0 &&
           size < ESC_WAL_HEADER_SIZE + (int64_t)frames * ESC_WAL_FRAME_SIZE;
}

/* Another program may have moved all of the WAL into the file and truncated it, which does no harm:
 * then SQLite knows of fewer frames, and says so when it is asked for a checkpoint. */
static escqrs_status check_wal_size(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    int frames = 0, done = 0;
    if (!wal_is_short(db, sqlite->writer.wal_end)) {
        return ESCQRS_OK;
    }
    int code = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &done);
    if ((code & 0xff) == SQLITE_BUSY) {
        return ESCQRS_OK; /* it is about to: the next batch asks again */
    }
    if (code != SQLITE_OK || wal_is_short(db, frames)) {
        return refuse_place(sqlite, "-wal", "truncated", error);
    }
    sqlite->writer.wal_end = frames;
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_check_sizes(esc_sqlite *sqlite, escqrs_error *error)
{
    if (sqlite->lock == NULL) {
        return ESCQRS_OK;
    }
    escqrs_status status = check_wal_size(sqlite, error);
    return status == ESCQRS_OK ? check_file_size(sqlite, error) : status;
}

escqrs_status esc_sqlite_check_lock(esc_sqlite *sqlite, escqrs_error *error)
{
    if (sqlite->lock == NULL || esc_lock_is_held(sqlite->lock)) {
        return ESCQRS_OK;
    }
    (void)escqrs_error_set(error, ESCQRS_IO,
                           "%s-lock was deleted, moved or replaced while it was open: another "
                           "process may be writing too",
                           sqlite->shown);
    esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    return ESCQRS_IO;
}

/* ---- open ------------------------------------------------------------------------------------- */

/* A read-only connection leaves the empty WAL that it needed. One that may write takes it away when
 * it is closed, unless somebody else has the file open. */
static void tidy_after_reading(const esc_sqlite *sqlite)
{
    sqlite3 *db = NULL;
    int64_t version;
    if (sqlite->had_wal || sqlite->immutable || !esc_sqlite_has_companion(sqlite, "-wal", false) ||
        esc_sqlite_has_companion(sqlite, "-wal", true)) {
        return;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    if (sqlite3_open_v2(sqlite->path, &db, flags, sqlite->vfs) == SQLITE_OK) {
        (void)esc_sqlite_pragma(db, "PRAGMA schema_version", &version); /* opens the WAL */
    }
    sqlite3_close(db);
}

static void sqlite_close(escqrs_provider *self)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    esc_sqlite_close_readers(sqlite);
    if (sqlite->readonly) {
        tidy_after_reading(sqlite);
    }
    if (sqlite->writer.connection.db != NULL) {
        esc_sqlite_writer_stop(sqlite);
    }
    esc_lock_release(sqlite->lock, false);
    sqlite->lock = NULL;
}

static void sqlite_destroy(escqrs_provider *self)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    esc_vector_fini(&sqlite->writer.streams);
    esc_vector_fini(&sqlite->writer.types);
    esc_vector_fini(&sqlite->writer.inlined);
    esc_buffer_fini(&sqlite->writer.header);
    esc_chain_fini(&sqlite->writer.chain);
    esc_memory_vfs_destroy(sqlite->memory);
    esc_stream_index_fini(&sqlite->index);
    escqrs_provider_fini(&sqlite->base);
    esc_mutex_fini(&sqlite->pool.mutex);
    esc_cond_fini(&sqlite->pool.returned);
    esc_mutex_fini(&sqlite->refresh_mutex);
    escqrs_free(sqlite->path);
    escqrs_free(sqlite->lock_path);
    escqrs_free(sqlite->shown);
    escqrs_free(sqlite);
}

/* The lock file: see esc_lock_announce. */
static const char *sqlite_announced(escqrs_provider *self)
{
    return ((esc_sqlite *)self)->lock_path;
}

static const escqrs_provider_functions sqlite_functions = {
    .interface_version = ESCQRS_PROVIDER_VERSION,
    .size = sizeof(escqrs_provider_functions),
    .name = "sqlite",
    .begin = esc_sqlite_begin,
    .apply = esc_sqlite_apply,
    .end = esc_sqlite_end,
    .rollback = esc_sqlite_rollback,
    .upkeep = esc_sqlite_upkeep,
    .run = esc_sqlite_run,
    .delete_snapshots = esc_sqlite_delete_snapshots,
    .erase = esc_sqlite_erase,
    .compact = esc_sqlite_compact,
    .restart = esc_sqlite_restart,
    .erased = esc_sqlite_erased,
    .streams = esc_sqlite_streams,
    .backup = esc_sqlite_backup,
    .stats = esc_sqlite_stats,
    .verify = esc_sqlite_verify,
    .read = esc_sqlite_read,
    .version = esc_sqlite_version,
    .checkpoint = esc_sqlite_checkpoint,
    .snapshot = esc_sqlite_snapshot,
    .snapshots = esc_sqlite_snapshots,
    .chain = esc_sqlite_chain,
    .key = esc_sqlite_key,
    .refresh = esc_sqlite_refresh,
    .announced = sqlite_announced,
    .reader = esc_sqlite_reader,
    .reader_return = esc_sqlite_reader_return,
    .stop_readers = esc_sqlite_stop_readers,
    .close = sqlite_close,
    .destroy = sqlite_destroy,
};

bool esc_sqlite_is(const escqrs_provider *provider)
{
    return provider->functions->begin == esc_sqlite_begin;
}

/* Absolute, symbolic links followed, so that every name of a file has the same lock. */
static escqrs_status resolve_path(const char *path, char **absolute, escqrs_error *error)
{
    char *copy = NULL;
    char *found = realpath(path, NULL);
    if (found == NULL && errno == ENOENT) { /* a new file: its folder must be there */
        const char *slash = strrchr(path, '/');
        const char *name = slash == NULL ? path : slash + 1;
        char *folder =
            escqrs_strdup(slash == NULL ? escqrs_slice_of(".")
                                        : (escqrs_slice){path, (size_t)(slash - path) + 1});
        if (folder == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to open %s", path);
        }
        found = realpath(folder, NULL);
        escqrs_free(folder);
        if (found != NULL && name[0] != '\0') {
            size_t size = strlen(found) + strlen(name) + 2;
            copy = escqrs_alloc(size);
            if (copy != NULL) {
                snprintf(copy, size, "%s%s%s", found, strcmp(found, "/") == 0 ? "" : "/", name);
            }
        } else if (found != NULL) {
            errno = EISDIR;
            free(found);
            found = NULL;
        }
    } else if (found != NULL) {
        copy = escqrs_strdup(escqrs_slice_of(found));
    }
    if (found == NULL) {
        int failure = errno;
        return esc_error_system(error, failure == EACCES ? ESCQRS_READ_ONLY : ESCQRS_IO, failure,
                                "cannot open %s", path);
    }
    free(found);
    if (copy == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to open %s", path);
    }
    *absolute = copy;
    return ESCQRS_OK;
}

static escqrs_status check_kind(const esc_sqlite *sqlite, escqrs_error *error)
{
    struct stat status;
    if (stat(sqlite->path, &status) != 0) {
        return ESCQRS_OK; /* new, or said later */
    }
    if (S_ISDIR(status.st_mode)) {
        return esc_sqlite_refuse(sqlite, ESCQRS_NOT_A_STORE, error, "is a folder, not a store");
    }
    if (!S_ISREG(status.st_mode)) {
        return esc_sqlite_refuse(sqlite, ESCQRS_NOT_A_STORE, error, "is no regular file");
    }
    if (status.st_size == 1) { /* SQLite takes it for an empty file */
        return esc_sqlite_refuse(
            sqlite, ESCQRS_NOT_A_STORE, error,
            "is not a store of escqrs: it is no SQLite file. It was left as it is");
    }
    return ESCQRS_OK;
}

static escqrs_status open_for_writing(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    escqrs_status status = esc_connection_open(sqlite, true, connection, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_prepare(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_read_numbers(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_load_types(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_writer_start(sqlite, error);
    }
    if (status == ESCQRS_OK && sqlite->lock != NULL) {
        (void)find_place(sqlite->path, &sqlite->writer.places[0]);
        esc_sqlite_note_size(sqlite);
        note_wal(sqlite);
    }
    return status;
}

static escqrs_status open_for_reading(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_connection *connection;
    (void)find_place(sqlite->path, &sqlite->opened); /* 0 where it is not there: refused below */
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_prepare(sqlite, connection, error);
        if (status != ESCQRS_OK && status != ESCQRS_NOT_A_STORE && status != ESCQRS_CORRUPT &&
            sqlite->memory == NULL && !esc_sqlite_has_companion(sqlite, "-wal", true)) {
            /* A folder where no WAL index can be made, and nobody writes: the file as it stands. */
            esc_sqlite_give_reader(sqlite, connection);
            esc_sqlite_close_readers(sqlite);
            sqlite->immutable = true;
            status = esc_sqlite_take_reader(sqlite, &connection, error);
            if (status != ESCQRS_OK) {
                return status;
            }
            status = esc_sqlite_prepare(sqlite, connection, error);
        }
        if (status == ESCQRS_OK) {
            status = esc_sqlite_read_numbers(sqlite, connection, error);
        }
        if (status == ESCQRS_OK) {
            status = esc_sqlite_load_types(sqlite, connection, error);
        }
        esc_sqlite_give_reader(sqlite, connection);
    }
    return status == ESCQRS_OK ? esc_sqlite_refresh(&sqlite->base, error) : status;
}

/* After a refused open: nothing of ours stays beside a file that is not ours. */
static void abandon(esc_sqlite *sqlite)
{
    esc_connection *connection = &sqlite->writer.connection;
    esc_sqlite_close_readers(sqlite);
    if (connection->db != NULL) {
        if (!sqlite->had_wal) { /* nothing is in the WAL that SQLite made: let it take it away */
            sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        }
        esc_connection_close(sqlite, connection);
    }
    esc_lock_release(sqlite->lock, true);
    sqlite->lock = NULL;
    sqlite_destroy(&sqlite->base);
}

/* What the options say, without any file. */
static escqrs_status take_options(esc_sqlite *sqlite, const char *path,
                                  const escqrs_store_options *options, escqrs_error *error)
{
    esc_stream_index_init(&sqlite->index);
    esc_mutex_init(&sqlite->pool.mutex);
    esc_cond_init(&sqlite->pool.returned);
    esc_list_init(&sqlite->pool.idle);
    esc_list_init(&sqlite->pool.busy);
    sqlite->pool.count_max =
        options->reader_count_max == 0 ? READER_COUNT_DEFAULT : options->reader_count_max;
    esc_mutex_init(&sqlite->refresh_mutex);
    esc_vector_init(&sqlite->writer.streams, sizeof(esc_stream *));
    esc_vector_init(&sqlite->writer.types, sizeof(escqrs_type *));
    esc_vector_init(&sqlite->writer.inlined, sizeof(escqrs_recorded));
    esc_chain_init(&sqlite->writer.chain);
    sqlite->readonly = options->readonly;
    sqlite->chained = options->chain;
    sqlite->tail_events_max = options->tail_events_max == 0 || options->tail_events_max > INT32_MAX
                                  ? ESC_TAIL_EVENTS_MAX
                                  : (int64_t)options->tail_events_max;
    sqlite->durability = options->durability;
    sqlite->clock = options->clock;
    sqlite->random = options->random;
    sqlite->log = options->log;
    sqlite->shown = escqrs_strdup(escqrs_slice_of(path));
    return sqlite->shown != NULL
               ? ESCQRS_OK
               : escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
}

static escqrs_status find_memory(esc_sqlite *sqlite, escqrs_provider *source, escqrs_error *error)
{
    escqrs_status status = esc_memory_vfs_create(&sqlite->memory, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite->vfs = esc_memory_vfs_name(sqlite->memory);
    sqlite->path = escqrs_strdup(escqrs_slice_of("/store"));
    if (sqlite->path == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    return source == NULL ? ESCQRS_OK : esc_sqlite_copy(source, sqlite->path, sqlite->vfs, error);
}

/* The file, what it is and whether it may be opened; a writer has its lock then. */
static escqrs_status find_file(esc_sqlite *sqlite, escqrs_error *error)
{
    escqrs_status status = resolve_path(sqlite->shown, &sqlite->path, error);
    if (status == ESCQRS_OK) {
        status = check_kind(sqlite, error);
    }
    /* a copy that nobody writes may be read anywhere */
    if (status == ESCQRS_OK &&
        (!sqlite->readonly || esc_sqlite_has_companion(sqlite, "-wal", true))) {
        status = esc_network_check(sqlite->path, &sqlite->log, error);
    }
    if (status == ESCQRS_OK && sqlite->readonly &&
        (sqlite->lock_path = esc_lock_path(sqlite->path)) == NULL) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    if (status == ESCQRS_OK && !sqlite->readonly) {
        status = esc_lock_acquire(sqlite->path, &sqlite->lock, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_lock_check_names(sqlite->path, !sqlite->readonly, error);
    }
    if (status == ESCQRS_OK) {
        sqlite->had_wal = esc_sqlite_has_companion(sqlite, "-wal", false);
        status = esc_sqlite_check_header(sqlite, error);
    }
    return status;
}

static escqrs_status find(esc_sqlite *sqlite, const char *vfs, escqrs_provider *source,
                          escqrs_error *error)
{
    bool in_memory = strcmp(sqlite->shown, ":memory:") == 0;
    if (sqlite3_threadsafe() == 0 || sqlite3_initialize() != SQLITE_OK) {
        return escqrs_error_set(error, ESCQRS_IO, "this SQLite was built without threads");
    }
    if ((sqlite->vfs = esc_fork_vfs_name()) == NULL) {
        return escqrs_error_set(error, ESCQRS_IO, "SQLite does not start");
    }
    if (sqlite->shown[0] == '\0' || (in_memory && sqlite->readonly)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                in_memory ? "a store in memory cannot be opened read-only"
                                          : "the path of a store is empty");
    }
    if (in_memory) {
        return find_memory(sqlite, source, error);
    }
    sqlite->vfs = vfs != NULL ? vfs : sqlite->vfs;
    return find_file(sqlite, error);
}

escqrs_status esc_sqlite_open(const char *path, const escqrs_store_options *options,
                              escqrs_provider *source, escqrs_provider **provider,
                              escqrs_error *error)
{
    esc_sqlite *sqlite = escqrs_alloc_zero(sizeof *sqlite);
    if (sqlite == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    escqrs_status status = escqrs_provider_init(&sqlite->base, &sqlite_functions, error);
    if (status != ESCQRS_OK) {
        escqrs_free(sqlite);
        return status;
    }
    status = take_options(sqlite, path, options, error);
    if (status == ESCQRS_OK) {
        status = find(sqlite, options->sqlite_vfs, source, error);
    }
    if (status == ESCQRS_OK) {
        status =
            sqlite->readonly ? open_for_reading(sqlite, error) : open_for_writing(sqlite, error);
    }
    if (status == ESCQRS_OK && sqlite->lock != NULL) {
        status = esc_lock_check_one_name(sqlite->path, error);
    }
    if (status == ESCQRS_LOCKED || status == ESCQRS_IO) {
        esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    }
    if (status != ESCQRS_OK) {
        abandon(sqlite);
        return status;
    }
    *provider = &sqlite->base;
    return ESCQRS_OK;
}
