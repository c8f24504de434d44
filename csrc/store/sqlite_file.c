/* See sqlite_provider.h. How a file is opened for writing:
 *
 *   1. What is no regular file is refused. The lock is taken.
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

#include "base/assert.h"
#include "base/error.h"
#include "store/fork_vfs.h"

#define HEADER_SIZE 100
#define READER_COUNT_DEFAULT 8

#define EVENT_COLUMNS "position, stream, version, type, time, ordinal, header, data, checksum"
#define EVENT_COLUMNS_J "j." EVENT_COLUMNS /* `position` alone is in both tables */

static const char *const statement_texts[ESC_SQL_COUNT] = {
    [ESC_SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [ESC_SQL_BEGIN_READ] = "BEGIN",
    [ESC_SQL_COMMIT] = "COMMIT",
    [ESC_SQL_ROLLBACK] = "ROLLBACK",
    [ESC_SQL_META] = "SELECT value FROM escqrs_store WHERE name = ?1",
    [ESC_SQL_SET_META] = "INSERT OR REPLACE INTO escqrs_store(name, value) VALUES (?1, ?2)",
    [ESC_SQL_ADD_EVENT] =
        "INSERT INTO escqrs_journal(" EVENT_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [ESC_SQL_ADD_STREAM] = "INSERT INTO escqrs_stream(id, name) VALUES (?1, ?2)",
    [ESC_SQL_ADD_TYPE] = "INSERT INTO escqrs_type(id, name, record) VALUES (?1, ?2, ?3)",
    [ESC_SQL_TYPES] = "SELECT id, name, record FROM escqrs_type ORDER BY id",
    [ESC_SQL_TYPE] = "SELECT name, record FROM escqrs_type WHERE id = ?1",
    [ESC_SQL_HEAD] = "SELECT position, time FROM escqrs_journal ORDER BY position DESC LIMIT 1",
    [ESC_SQL_TAIL] = "SELECT position, stream, version FROM escqrs_journal"
                     " WHERE position > ?1 ORDER BY position",
    /* Of a stream whose name was lost events may be left. */
    [ESC_SQL_LAST_STREAM] = "SELECT max(0, ifnull((SELECT max(id) FROM escqrs_stream), 0),"
                            " ifnull((SELECT stream FROM escqrs_index"
                            " WHERE stream <= 9223372036854775807"
                            " ORDER BY stream DESC LIMIT 1), 0))",
    [ESC_SQL_STREAM_ID] = "SELECT id FROM escqrs_stream WHERE name = ?1",
    [ESC_SQL_STREAM] = "SELECT s.id, i.first_version, i.count, i.positions FROM escqrs_stream AS s"
                       " LEFT JOIN escqrs_index AS i ON i.stream = s.id WHERE s.name = ?1"
                       " ORDER BY i.first_version DESC LIMIT 1",
    [ESC_SQL_STREAM_NAME] = "SELECT name FROM escqrs_stream WHERE id = ?1",
    /* Rows go to sqlite_reader.c, which says when it has enough; then there is one of the result.
     */
    [ESC_SQL_EVENTS_WANTED] = "SELECT 1 FROM escqrs_wanted AS w"
                              " CROSS JOIN escqrs_journal AS j ON j.position = w.position"
                              " WHERE escqrs_take(" EVENT_COLUMNS_J ")",
    [ESC_SQL_EVENT_TAKEN] = "SELECT 1 FROM escqrs_journal"
                            " WHERE position = ?1 AND escqrs_take(" EVENT_COLUMNS ")",
    [ESC_SQL_EVENTS] = "SELECT 1 FROM escqrs_journal"
                       " WHERE position >= ?1 AND escqrs_take(" EVENT_COLUMNS ")"
                       " ORDER BY position",
    [ESC_SQL_EVENTS_REVERSE] = "SELECT 1 FROM escqrs_journal"
                               " WHERE position <= ?1 AND escqrs_take(" EVENT_COLUMNS ")"
                               " ORDER BY position DESC",
    [ESC_SQL_EVENT] = "SELECT " EVENT_COLUMNS " FROM escqrs_journal WHERE position = ?1",
    [ESC_SQL_INDEX_ROW] = "SELECT count, positions FROM escqrs_index"
                          " WHERE stream = ?1 AND first_version = ?2",
    [ESC_SQL_INDEX_LAST] = "SELECT first_version, count, positions FROM escqrs_index"
                           " WHERE stream = ?1 ORDER BY first_version DESC LIMIT 1",
    [ESC_SQL_PUT_INDEX] =
        "INSERT OR REPLACE INTO escqrs_index(stream, first_version, count, positions)"
        " VALUES (?1, ?2, ?3, ?4)",
    [ESC_SQL_SNAPSHOTS] = "SELECT version, type, data, checksum FROM escqrs_snapshot"
                          " WHERE stream = ?1 AND version <= ?2 ORDER BY version DESC",
    [ESC_SQL_PUT_SNAPSHOT] =
        "INSERT OR REPLACE INTO escqrs_snapshot(stream, version, type, data, checksum)"
        " VALUES (?1, ?2, ?3, ?4, ?5)",
    [ESC_SQL_ALL_SNAPSHOTS] =
        "SELECT s.stream, n.name, s.version, s.type, s.data, s.checksum FROM escqrs_snapshot s"
        " LEFT JOIN escqrs_stream n ON n.id = s.stream WHERE (s.stream, s.version) > (?1, ?2)"
        " ORDER BY s.stream, s.version LIMIT ?3",
    [ESC_SQL_TRIM_SNAPSHOTS] =
        "DELETE FROM escqrs_snapshot WHERE stream = ?1 AND version <= (SELECT version FROM"
        " escqrs_snapshot WHERE stream = ?1 ORDER BY version DESC LIMIT 1 OFFSET ?2)",
    [ESC_SQL_DELETE_SNAPSHOTS] = "DELETE FROM escqrs_snapshot WHERE stream = ?1 AND version <= ?2",
    [ESC_SQL_KEY] = "SELECT position, versions, fingerprint, reply FROM escqrs_key"
                    " WHERE scope = ?1 AND key = ?2",
    [ESC_SQL_PUT_KEY] = "INSERT INTO escqrs_key(scope, key, position, versions, fingerprint, reply)"
                        " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [ESC_SQL_CHECKPOINT] = "SELECT position FROM escqrs_checkpoint WHERE name = ?1",
    [ESC_SQL_PUT_CHECKPOINT] =
        "INSERT OR REPLACE INTO escqrs_checkpoint(name, position) VALUES (?1, ?2)",
    [ESC_SQL_EVENT_TYPES] = "SELECT position, type FROM escqrs_journal"
                            " WHERE position > ?1 AND position <= ?2 ORDER BY position",
    [ESC_SQL_TAG_AFTER] = "SELECT position FROM escqrs_tag WHERE tag = ?1"
                          " AND position BETWEEN ?2 AND ?3 ORDER BY position LIMIT 1",
    [ESC_SQL_TAG_BEFORE] = "SELECT position FROM escqrs_tag WHERE tag = ?1"
                           " AND position BETWEEN ?2 AND ?3 ORDER BY position DESC LIMIT 1",
    [ESC_SQL_PUT_TAG] = "INSERT OR IGNORE INTO escqrs_tag(tag, position) VALUES (?1, ?2)",
    [ESC_SQL_ID] = "SELECT position FROM escqrs_id WHERE id = ?1",
    [ESC_SQL_LINK] = "SELECT hash FROM escqrs_chain WHERE position = ?1",
    [ESC_SQL_LAST_LINK] = "SELECT position, hash FROM escqrs_chain ORDER BY position DESC LIMIT 1",
    [ESC_SQL_PUT_LINK] = "INSERT INTO escqrs_chain(position, hash) VALUES (?1, ?2)",
    [ESC_SQL_STREAMS] = "SELECT id, name FROM escqrs_stream WHERE id > ?1 ORDER BY id",
    [ESC_SQL_GAP_AT] = "SELECT first, last, time, checksum FROM escqrs_gap WHERE first <= ?1"
                       " ORDER BY first DESC LIMIT 1",
    [ESC_SQL_GAP_AFTER] = "SELECT first, last, time, checksum FROM escqrs_gap WHERE first > ?1"
                          " ORDER BY first LIMIT 1",
    [ESC_SQL_PUT_GAP] = "INSERT OR REPLACE INTO escqrs_gap(first, last, time, checksum)"
                        " VALUES (?1, ?2, ?3, ?4)",
    [ESC_SQL_DELETE_GAP] = "DELETE FROM escqrs_gap WHERE first = ?1",
    [ESC_SQL_ERASED] = "SELECT upto, closed, time, checksum FROM escqrs_deleted WHERE stream = ?1",
    [ESC_SQL_PUT_ERASED] =
        "INSERT OR REPLACE INTO escqrs_deleted(stream, upto, closed, time, checksum)"
        " VALUES (?1, ?2, ?3, ?4, ?5)",
    [ESC_SQL_DELETE_EVENT] = "DELETE FROM escqrs_journal WHERE position = ?1",
    [ESC_SQL_DELETE_TAG] = "DELETE FROM escqrs_tag WHERE tag = ?1 AND position = ?2",
    [ESC_SQL_DELETE_ID] = "DELETE FROM escqrs_id WHERE id = ?1 AND position = ?2",
    [ESC_SQL_DELETE_INDEX] = "DELETE FROM escqrs_index WHERE stream = ?1 AND first_version <= ?2",
    [ESC_SQL_DELETE_KEYS] = "DELETE FROM escqrs_key WHERE scope = ?1",
    [ESC_SQL_PUT_ID] = "INSERT INTO escqrs_id(id, position) VALUES (?1, ?2)",
};

/* Of format 2; a file of format 1 gets them with its first deletion. */
#define DELETED_TABLES                                                                             \
    "CREATE TABLE IF NOT EXISTS escqrs_gap(first INTEGER PRIMARY KEY, last INTEGER NOT NULL,"      \
    " time INTEGER NOT NULL, checksum INTEGER NOT NULL);"                                          \
    "CREATE TABLE IF NOT EXISTS escqrs_deleted(stream INTEGER PRIMARY KEY, upto INTEGER NOT NULL," \
    " closed INTEGER NOT NULL, time INTEGER NOT NULL, checksum INTEGER NOT NULL);"

static const char schema_text[] =
    "CREATE TABLE escqrs_store(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE escqrs_stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE escqrs_type(id INTEGER PRIMARY KEY, name TEXT NOT NULL, record BLOB NOT NULL);"
    "CREATE TABLE escqrs_journal(position INTEGER PRIMARY KEY, stream INTEGER NOT NULL,"
    " version INTEGER NOT NULL, type INTEGER NOT NULL, time INTEGER NOT NULL, ordinal INTEGER NOT "
    "NULL,"
    " header BLOB, data BLOB NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE TABLE escqrs_index(stream INTEGER NOT NULL, first_version INTEGER NOT NULL,"
    " count INTEGER NOT NULL, positions BLOB NOT NULL, PRIMARY KEY(stream, first_version)) WITHOUT "
    "ROWID;"
    "CREATE TABLE escqrs_snapshot(stream INTEGER NOT NULL, version INTEGER NOT NULL, type INTEGER "
    "NOT NULL,"
    " data BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY(stream, version));"
    "CREATE TABLE escqrs_key(scope TEXT NOT NULL, key TEXT NOT NULL, position INTEGER NOT NULL,"
    " versions BLOB NOT NULL, fingerprint INTEGER NOT NULL, reply BLOB NOT NULL,"
    " PRIMARY KEY(scope, key)) WITHOUT ROWID;"
    "CREATE TABLE escqrs_checkpoint(name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT "
    "ROWID;"
    "CREATE TABLE escqrs_tag(tag TEXT NOT NULL, position INTEGER NOT NULL,"
    " PRIMARY KEY(tag, position)) WITHOUT ROWID;"
    "CREATE TABLE escqrs_id(id BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT "
    "ROWID;" DELETED_TABLES
    "CREATE VIEW escqrs_events AS SELECT j.position, s.name AS stream, j.version, t.name AS type,"
    " strftime('%Y-%m-%dT%H:%M:%S', j.time / 1000000, 'unixepoch')"
    " || printf('.%06dZ', j.time % 1000000) AS time, j.data"
    " FROM escqrs_journal j LEFT JOIN escqrs_stream s ON s.id = j.stream"
    " LEFT JOIN escqrs_type t ON t.id = j.type;";

/* ---- errors ----------------------------------------------------------------------------------- */

bool esc_sqlite_is_final(int code)
{
    return code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC;
}

static escqrs_status status_of(int code, int system_error)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
    case SQLITE_ROW:
        return ESCQRS_OK;
    case SQLITE_FULL:
        return ESCQRS_FULL;
    case SQLITE_NOMEM:
        return ESCQRS_NO_MEMORY;
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return ESCQRS_READ_ONLY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ESCQRS_CORRUPT;
    case SQLITE_INTERRUPT: /* only close interrupts */
        return ESCQRS_CLOSED;
    case SQLITE_TOOBIG:
        return ESCQRS_TOO_LARGE;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_NOMEM) {
            return ESCQRS_NO_MEMORY;
        }
        return system_error == ENOSPC || system_error == EDQUOT ? ESCQRS_FULL : ESCQRS_IO;
    case SQLITE_CANTOPEN:
        return system_error == EACCES || system_error == EROFS ? ESCQRS_READ_ONLY : ESCQRS_IO;
    default:
        return ESCQRS_IO;
    }
}

escqrs_status esc_sqlite_error(const esc_sqlite *sqlite, sqlite3 *db, int code, escqrs_error *error,
                               const char *doing)
{
    int extended = db != NULL ? sqlite3_extended_errcode(db) : code;
    if ((extended & 0xff) != (code & 0xff)) {
        extended = code;
    }
    int system_error = db != NULL && (code & 0xff) != SQLITE_NOMEM ? sqlite3_system_errno(db) : 0;
    const char *text = db != NULL && extended != code ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    if (db != NULL && (sqlite3_errcode(db) & 0xff) == (code & 0xff)) {
        text = sqlite3_errmsg(db);
    }
    escqrs_status status = status_of(extended, system_error);
    if (status == ESCQRS_OK) {
        status = ESCQRS_IO;
    }
    if (status == ESCQRS_FULL && system_error == 0) {
        system_error = ENOSPC; /* SQLite keeps no number for that one */
    }
    if ((code & 0xff) == SQLITE_BUSY) {
        (void)escqrs_error_set(error, status, "%s %s: another program is writing to the file",
                               doing, sqlite->shown);
    } else if (system_error != 0 && status != ESCQRS_CORRUPT) {
        (void)esc_error_system(error, status, system_error, "%s %s: %s (SQLite code %d)", doing,
                               sqlite->shown, text, extended);
    } else {
        (void)escqrs_error_set(error, status, "%s %s: %s (SQLite code %d)", doing, sqlite->shown,
                               text, extended);
    }
    esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    return status;
}

/* ---- connections ------------------------------------------------------------------------------ */

static int execute(sqlite3 *db, const char *text)
{
    return sqlite3_exec(db, text, NULL, NULL, NULL);
}

/* "file:/path?immutable=1" with what has a meaning in a URI escaped. */
static char *immutable_uri(const char *path)
{
    ESC_ASSERT(path != NULL); /* a store in memory is never read-only */
    static const char hex[] = "0123456789abcdef", scheme[] = "file:", query[] = "?immutable=1";
    char *uri = escqrs_alloc(strlen(path) * 3 + sizeof scheme + sizeof query);
    if (uri == NULL) {
        return NULL;
    }
    char *out = (char *)memcpy(uri, scheme, sizeof scheme) + sizeof scheme - 1;
    for (const char *c = path; *c != '\0'; c++) {
        if (*c == '%' || *c == '?' || *c == '#') {
            *out++ = '%';
            *out++ = hex[(unsigned char)*c >> 4];
            *out++ = hex[*c & 15];
        } else {
            *out++ = *c;
        }
    }
    memcpy(out, query, sizeof query);
    return uri;
}

escqrs_status esc_connection_open(const esc_sqlite *sqlite, bool writes, esc_connection *connection,
                                  escqrs_error *error)
{
    memset(connection, 0, sizeof *connection);
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE |
                (writes ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
    char *uri = NULL;
    if (sqlite->immutable) {
        uri = immutable_uri(sqlite->path);
        if (uri == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a connection");
        }
        flags |= SQLITE_OPEN_URI;
    }
    int code =
        sqlite3_open_v2(uri != NULL ? uri : sqlite->path, &connection->db, flags, sqlite->vfs);
    escqrs_free(uri);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(connection->db, ESC_BUSY_TIMEOUT_MS);
        code = sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    }
    if (code == SQLITE_OK) {
        /* One connection alone checkpoints, and when it chooses to. Readers map the file: beside a
         * writer the cache of a connection is dropped with each of its transactions. */
        code = execute(connection->db, writes ? "PRAGMA wal_autocheckpoint = 0;"
                                                "PRAGMA temp_store = MEMORY;"
                                                "PRAGMA cache_size = -16384;"
                                              : "PRAGMA wal_autocheckpoint = 0;"
                                                "PRAGMA query_only = 1;"
                                                "PRAGMA temp_store = MEMORY;"
                                                "PRAGMA mmap_size = 2147418112;");
    }
    if (code == SQLITE_OK && !writes) {
        code = esc_wanted_register(connection->db, &connection->wanted);
    }
    if (code == SQLITE_OK && !writes) {
        code = esc_sqlite_register_take(connection);
    }
    if (code != SQLITE_OK) {
        escqrs_status status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot open");
        esc_connection_close(sqlite, connection);
        return status;
    }
    return ESCQRS_OK;
}

void esc_connection_close(const esc_sqlite *sqlite, esc_connection *connection)
{
    for (size_t i = 0; i < ESC_SQL_COUNT; i++) {
        sqlite3_finalize(connection->statements[i]);
        connection->statements[i] = NULL;
    }
    if (sqlite3_close(connection->db) != SQLITE_OK) {
        /* Statements of others: the file is let go when they are finalized. */
        escqrs_log_write(&sqlite->log, ESCQRS_LOG_WARNING,
                         "%s was closed while a statement of it was still open", sqlite->shown);
        sqlite3_close_v2(connection->db);
    }
    connection->db = NULL;
}

escqrs_status esc_connection_statement(const esc_sqlite *sqlite, esc_connection *connection,
                                       esc_statement which, sqlite3_stmt **statement,
                                       escqrs_error *error)
{
    if (connection->statements[which] == NULL) {
        int code =
            sqlite3_prepare_v3(connection->db, statement_texts[which], -1,
                               SQLITE_PREPARE_PERSISTENT, &connection->statements[which], NULL);
        if (code == SQLITE_ERROR && connection->wanted.failure != SQLITE_OK) {
            code = connection->wanted.failure; /* e.g. INTERRUPT while the store is closed */
            connection->wanted.failure = SQLITE_OK;
        }
        if (code != SQLITE_OK) {
            connection->statements[which] = NULL;
            escqrs_status status =
                esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
            if ((code & 0xff) == SQLITE_ERROR) { /* a table of ours is missing or altered */
                status = escqrs_error_set(error, ESCQRS_CORRUPT,
                                          "the tables of %s are not as escqrs made them: %s",
                                          sqlite->shown, sqlite3_errmsg(connection->db));
                esc_error_subject(error, escqrs_slice_of(sqlite->shown));
            }
            return status;
        }
    }
    *statement = connection->statements[which];
    return ESCQRS_OK;
}

escqrs_status esc_connection_run(const esc_sqlite *sqlite, esc_connection *connection,
                                 esc_statement which, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, connection, which, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code = sqlite3_step(statement);
    if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot use");
    }
    sqlite3_reset(statement);
    return status;
}

/* ---- its place -------------------------------------------------------------------------------- */

/* Which file has that name: 0 or errno. It asks for nothing but the number: a kernel that was asked
 * for times gives the next write one of its own, and that costs the WAL 100 us a commit. */
static int find_place(const char *path, esc_place *place)
{
    struct statx now;
    if (statx(AT_FDCWD, path, 0, STATX_INO, &now) != 0) {
        return errno;
    }
    *place = (esc_place){((uint64_t)now.stx_dev_major << 32) | now.stx_dev_minor, now.stx_ino};
    return 0;
}

escqrs_status esc_sqlite_check_places(esc_sqlite *sqlite, escqrs_error *error)
{
    static const char *const suffixes[2] = {"", "-wal"};
    char path[PATH_MAX + 8];
    for (size_t i = 0; sqlite->lock != NULL && i < 2; i++) {
        esc_place now = {0}, *known = &sqlite->writer.places[i];
        snprintf(path, sizeof path, "%s%s", sqlite->path, suffixes[i]);
        int failed = find_place(path, &now);
        if (failed == 0 && known->number == 0) {
            *known = now;
        } else if (failed == ENOENT || failed == ENOTDIR ||
                   (failed == 0 && (known->device != now.device || known->number != now.number))) {
            (void)escqrs_error_set(error, ESCQRS_IO,
                                   "%s%s was deleted, moved or replaced while it was open",
                                   sqlite->shown, suffixes[i]);
            esc_error_subject(error, escqrs_slice_of(sqlite->shown));
            return ESCQRS_IO;
        }
    }
    return ESCQRS_OK;
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

/* ---- what is in the file ---------------------------------------------------------------------- */

escqrs_status esc_sqlite_meta(const esc_sqlite *sqlite, esc_connection *connection,
                              const char *name, int64_t *value, bool *found, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_META, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    *found = code == SQLITE_ROW;
    if (*found) {
        *value = sqlite3_column_int64(statement, 0);
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

escqrs_status esc_sqlite_load_types(esc_sqlite *sqlite, esc_connection *connection,
                                    escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_TYPES, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code;
    while (status == ESCQRS_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        escqrs_slice name = {sqlite3_column_text(statement, 1),
                             (size_t)sqlite3_column_bytes(statement, 1)};
        escqrs_slice record = {sqlite3_column_blob(statement, 2),
                               (size_t)sqlite3_column_bytes(statement, 2)};
        escqrs_type *type;
        status =
            esc_type_registry_load(&sqlite->base.core->types, sqlite3_column_int64(statement, 0),
                                   name, record, &type, error);
    }
    if (status == ESCQRS_OK && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

static int read_pragma(sqlite3 *db, const char *text, int64_t *value)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &statement, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(statement);
    }
    if (code == SQLITE_ROW) {
        *value = sqlite3_column_int64(statement, 0);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    return code;
}

escqrs_status esc_sqlite_check_ends(const esc_sqlite *sqlite, int64_t head, int64_t indexed,
                                    escqrs_error *error)
{
    if (indexed >= 0 && indexed <= head && head <= ESC_POSITION_MAX) {
        return ESCQRS_OK;
    }
    (void)escqrs_error_set(error, ESCQRS_CORRUPT,
                           "%s is damaged: it ends at position %lld, but its index goes on to %lld",
                           sqlite->shown, (long long)head, (long long)indexed);
    esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    return ESCQRS_CORRUPT;
}

escqrs_status esc_sqlite_bad_number(const esc_sqlite *sqlite, escqrs_slice stream, int64_t number,
                                    escqrs_error *error)
{
    (void)escqrs_error_set(error, ESCQRS_CORRUPT, "%s is damaged: stream %.*s has the number %lld",
                           sqlite->shown, (int)stream.size, (const char *)stream.data,
                           (long long)number);
    esc_error_subject(error, stream);
    return ESCQRS_CORRUPT;
}

/* ---- before SQLite opens it ------------------------------------------------------------------- */

static uint32_t big_endian(const uint8_t *bytes, unsigned count)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < count; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static escqrs_status refuse(const esc_sqlite *sqlite, escqrs_status status, escqrs_error *error,
                            const char *why)
{
    (void)escqrs_error_set(error, status, "%s %s", sqlite->shown, why);
    esc_error_subject(error, escqrs_slice_of(sqlite->shown));
    return status;
}

/* First bytes and size, through SQLite's VFS; a missing file has size -1. */
static int read_header(const esc_sqlite *sqlite, uint8_t header[HEADER_SIZE], sqlite3_int64 *size)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(sqlite->vfs);
    if (vfs == NULL) {
        return SQLITE_MISUSE;
    }
    int exists = 0;
    int code = vfs->xAccess(vfs, sqlite->path, SQLITE_ACCESS_EXISTS, &exists);
    struct stat status;
    *size = -1;
    memset(header, 0, HEADER_SIZE);
    if (code != SQLITE_OK || !exists) { /* SQLite's VFS says so of an empty file as well */
        *size = code == SQLITE_OK && stat(sqlite->path, &status) == 0 ? 0 : -1;
        return code;
    }
    sqlite3_file *file = sqlite3_malloc(vfs->szOsFile);
    if (file == NULL) {
        return SQLITE_NOMEM;
    }
    memset(file, 0, (size_t)vfs->szOsFile);
    /* As SQLite passes names: behind it two NULs, where parameters of a URI would stand. */
    const char *name = sqlite3_create_filename(sqlite->path, "", "", 0, NULL);
    if (name == NULL) {
        sqlite3_free(file);
        return SQLITE_NOMEM;
    }
    code = vfs->xOpen(vfs, name, file, SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB, NULL);
    if (code == SQLITE_OK) {
        code = file->pMethods->xFileSize(file, size);
        if (code == SQLITE_OK && *size > 0) {
            code = file->pMethods->xRead(file, header, HEADER_SIZE, 0);
            code = code == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : code;
        }
    }
    if (file->pMethods != NULL) {
        file->pMethods->xClose(file);
    }
    sqlite3_free_filename((char *)name);
    sqlite3_free(file);
    return code;
}

static bool has_companion(const esc_sqlite *sqlite, const char *suffix, bool with_bytes)
{
    struct stat status;
    size_t size = strlen(sqlite->path) + strlen(suffix) + 1;
    char *path = escqrs_alloc(size);
    if (path == NULL) {
        return true; /* the careful answer */
    }
    snprintf(path, size, "%s%s", sqlite->path, suffix);
    bool there =
        sqlite->memory == NULL && stat(path, &status) == 0 && (!with_bytes || status.st_size > 0);
    escqrs_free(path);
    return there;
}

/* Is it a file that we may give to SQLite? */
static escqrs_status check_header(const esc_sqlite *sqlite, escqrs_error *error)
{
    static const char magic[16] = "SQLite format 3";
    uint8_t header[HEADER_SIZE];
    sqlite3_int64 size;
    int code = read_header(sqlite, header, &size);
    if (code != SQLITE_OK) {
        if ((code & 0xff) == SQLITE_CANTOPEN && access(sqlite->path, R_OK) != 0) {
            int failure = errno;
            return esc_error_system(error, failure == EACCES ? ESCQRS_READ_ONLY : ESCQRS_IO,
                                    failure, "cannot open %s", sqlite->shown);
        }
        return esc_sqlite_error(sqlite, NULL, code, error, "cannot read");
    }
    if (size <= 0) {
        if (!sqlite->readonly) {
            return ESCQRS_OK;
        }
        return size < 0
                   ? esc_error_system(error, ESCQRS_IO, ENOENT, "cannot open %s", sqlite->shown)
                   : refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                            "is empty; open it for writing once to make it a store");
    }
    static const uint8_t zeros[HEADER_SIZE];
    if (memcmp(header, zeros, HEADER_SIZE) == 0 && has_companion(sqlite, "-journal", true)) {
        return ESCQRS_OK; /* a power loss cut its creation short; SQLite rolls that back */
    }
    size_t compared = size < (sqlite3_int64)sizeof magic ? (size_t)size : sizeof magic;
    if (memcmp(header, magic, compared) != 0) {
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                      "is not a store of escqrs: it is no SQLite file. It was left as it is");
    }
    if (size < HEADER_SIZE) {
        return refuse(sqlite, ESCQRS_CORRUPT, error, "is cut off in its first page");
    }
    if (big_endian(header + 68, 4) != ESC_APPLICATION_ID) {
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                      "is a SQLite file of another program. It was left as it is");
    }
    uint32_t format = big_endian(header + 60, 4);
    if (format > ESC_FORMAT_VERSION) {
        return escqrs_error_set(
            error, ESCQRS_NOT_A_STORE,
            "%s has format %u, newer than the format %d that this escqrs knows: "
            "use a newer escqrs. It was left as it is",
            sqlite->shown, format, ESC_FORMAT_VERSION);
    }
    uint32_t page_size = big_endian(header + 16, 2);
    page_size = page_size == 1 ? 65536 : page_size;
    uint32_t page_count = big_endian(header + 28, 4);
    if (format == 0 || page_size < 512 || (page_size & (page_size - 1)) != 0) {
        return refuse(sqlite, ESCQRS_CORRUPT, error, "is damaged: its first page does not read");
    }
    if (!has_companion(sqlite, "-wal", true) && !has_companion(sqlite, "-journal", true) &&
        size < (sqlite3_int64)page_size * page_count) {
        return escqrs_error_set(error, ESCQRS_CORRUPT,
                                "%s is cut off: it has %lld bytes of %lld. It was left as it is",
                                sqlite->shown, (long long)size, (long long)page_size * page_count);
    }
    return ESCQRS_OK;
}

/* ---- creation --------------------------------------------------------------------------------- */

static escqrs_status create_tables(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    char text[256];
    int64_t salt;
    escqrs_random_fill(&sqlite->random, &salt, sizeof salt);
    snprintf(text, sizeof text, "PRAGMA page_size = %d", ESC_PAGE_SIZE);
    int code = execute(db, text);
    if (code == SQLITE_OK) {
        /* not IMMEDIATE: that would make the first page, which decides on the second line */
        code = execute(db, "BEGIN; PRAGMA auto_vacuum = INCREMENTAL");
    }
    if (code == SQLITE_OK) {
        snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 ESC_APPLICATION_ID, ESC_FORMAT_VERSION);
        code = execute(db, text);
    }
    if (code == SQLITE_OK) {
        code = execute(db, schema_text);
    }
    if (code == SQLITE_OK) {
        snprintf(
            text, sizeof text,
            "INSERT INTO escqrs_store VALUES ('created', %lld), ('indexed', 0), ('salt', %lld)",
            (long long)escqrs_clock_now_us(&sqlite->clock), (long long)salt);
        code = execute(db, text);
    }
    if (code == SQLITE_OK && sqlite->chained) {
        code = esc_sqlite_chain_create(db);
    }
    if (code == SQLITE_OK) {
        code = execute(db, "COMMIT");
    }
    if (code != SQLITE_OK) {
        escqrs_status status = esc_sqlite_error(sqlite, db, code, error, "cannot create");
        execute(db, "ROLLBACK");
        return status;
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_upgrade(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    char text[64];
    snprintf(text, sizeof text, "PRAGMA user_version = %d", ESC_FORMAT_VERSION);
    int code = execute(db, DELETED_TABLES);
    if (code == SQLITE_OK) {
        code = execute(db, text);
    }
    return code == SQLITE_OK ? ESCQRS_OK
                             : esc_sqlite_error(sqlite, db, code, error, "cannot write to");
}

/* Pages that the file lacks must all be in the WAL. SQLite would read them as zeros. */
static escqrs_status check_size(esc_sqlite *sqlite, esc_connection *connection, escqrs_error *error)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    int64_t page_size = 0, page_count = 0;
    int code = sqlite3_file_control(connection->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (code == SQLITE_OK) {
        code = file->pMethods->xFileSize(file, &size);
    }
    if (code == SQLITE_OK) {
        code = read_pragma(connection->db, "PRAGMA page_size", &page_size);
    }
    if (code == SQLITE_OK) {
        code = read_pragma(connection->db, "PRAGMA page_count", &page_count);
    }
    if (code != SQLITE_OK) {
        return esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    if (page_size > 0 && size / page_size < page_count && !has_companion(sqlite, "-wal", true)) {
        return refuse(sqlite, ESCQRS_CORRUPT, error, "is cut off: pages are missing at its end");
    }
    return ESCQRS_OK;
}

/* The connection is open: make the tables, or see that they are ours. */
static escqrs_status prepare_file(esc_sqlite *sqlite, esc_connection *connection,
                                  escqrs_error *error)
{
    sqlite3 *db = connection->db;
    int64_t table_count = 0, application = 0, format = 0;
    int code = read_pragma(db, "SELECT count(*) FROM sqlite_schema", &table_count);
    if (code == SQLITE_OK) {
        code = read_pragma(db, "PRAGMA application_id", &application);
    }
    if (code == SQLITE_OK) {
        code = read_pragma(db, "PRAGMA user_version", &format);
    }
    if (code != SQLITE_OK) {
        return esc_sqlite_error(sqlite, db, code, error, "cannot open");
    }
    if (table_count == 0 && application == 0 && !sqlite->readonly) {
        escqrs_status status = create_tables(sqlite, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    } else if (application != ESC_APPLICATION_ID || format > ESC_FORMAT_VERSION) {
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                      "is not a store of escqrs, or of a newer format. It was left as it is");
    }
    if (!sqlite->readonly) {
        code = execute(db, "PRAGMA journal_mode = WAL");
        if (code != SQLITE_OK) {
            return esc_sqlite_error(sqlite, db, code, error, "cannot open");
        }
    }
    return check_size(sqlite, connection, error);
}

escqrs_status esc_sqlite_ends(const esc_sqlite *sqlite, esc_connection *connection, esc_ends *ends,
                              escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    esc_gap gap;
    bool found;
    *ends = (esc_ends){0};
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_HEAD, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        ends->head = sqlite3_column_int64(statement, 0);
        ends->time_us = sqlite3_column_int64(statement, 1);
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_meta(sqlite, connection, "indexed", &ends->indexed, &found, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_meta(sqlite, connection, "deletions", &ends->deletions, &found, error);
    }
    if (status == ESCQRS_OK && ends->deletions > 0) {
        status = esc_sqlite_last_gap(sqlite, connection, &gap, error);
        if (status == ESCQRS_CORRUPT) { /* the index ends behind each gap: check_ends sees it */
            status = ESCQRS_OK;
        } else if (status == ESCQRS_OK && gap.last > ends->head) {
            ends->head = gap.last;
            ends->time_us = gap.time_us;
        }
    }
    return status;
}

static escqrs_status read_numbers(esc_sqlite *sqlite, esc_connection *connection,
                                  escqrs_error *error)
{
    int64_t salt = 0, indexed = 0, chain = 0;
    bool found[3] = {false, false, false};
    escqrs_status status = esc_sqlite_meta(sqlite, connection, "salt", &salt, &found[0], error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_meta(sqlite, connection, "indexed", &indexed, &found[1], error);
    }
    if (status == ESCQRS_OK && (!found[0] || !found[1] || indexed < 0)) {
        status =
            refuse(sqlite, ESCQRS_CORRUPT, error, "is damaged: its table escqrs_store lacks rows");
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_meta(sqlite, connection, "chain", &chain, &found[2], error);
    }
    if (status == ESCQRS_OK && found[2] && chain != 1) {
        status = refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                        "keeps a hash chain of a kind that this escqrs does not know");
    }
    if (status == ESCQRS_OK && sqlite->chained && !found[2]) {
        status = refuse(sqlite, ESCQRS_INVALID, error,
                        "keeps no hash chain, and one begins with the first event: export it, and "
                        "import it into a new store that keeps one");
    }
    sqlite->chained = found[2];
    sqlite->salt = (uint64_t)salt;
    sqlite->index.watermark = sqlite->scanned = indexed;
    return status;
}

/* ---- open ------------------------------------------------------------------------------------- */

/* A read-only connection leaves the empty WAL that it needed. One that may write takes it away when
 * it is closed, unless somebody else has the file open. */
static void tidy_after_reading(const esc_sqlite *sqlite)
{
    sqlite3 *db = NULL;
    int64_t version;
    if (sqlite->had_wal || sqlite->immutable || !has_companion(sqlite, "-wal", false) ||
        has_companion(sqlite, "-wal", true)) {
        return;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    if (sqlite3_open_v2(sqlite->path, &db, flags, sqlite->vfs) == SQLITE_OK) {
        (void)read_pragma(db, "PRAGMA schema_version", &version); /* opens the WAL */
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
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error, "is a folder, not a store");
    }
    if (!S_ISREG(status.st_mode)) {
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error, "is no regular file");
    }
    if (status.st_size == 1) { /* SQLite takes it for an empty file */
        return refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                      "is not a store of escqrs: it is no SQLite file. It was left as it is");
    }
    return ESCQRS_OK;
}

static escqrs_status open_for_writing(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    escqrs_status status = esc_connection_open(sqlite, true, connection, error);
    if (status == ESCQRS_OK) {
        status = prepare_file(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = read_numbers(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_load_types(sqlite, connection, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_writer_start(sqlite, error);
    }
    if (status == ESCQRS_OK && sqlite->lock != NULL) {
        (void)find_place(sqlite->path, &sqlite->writer.places[0]);
    }
    return status;
}

static escqrs_status open_for_reading(esc_sqlite *sqlite, escqrs_error *error)
{
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status == ESCQRS_OK) {
        status = prepare_file(sqlite, connection, error);
        if (status != ESCQRS_OK && status != ESCQRS_NOT_A_STORE && status != ESCQRS_CORRUPT &&
            sqlite->memory == NULL && !has_companion(sqlite, "-wal", true)) {
            /* A folder where no WAL index can be made, and nobody writes: the file as it stands. */
            esc_sqlite_give_reader(sqlite, connection);
            esc_sqlite_close_readers(sqlite);
            sqlite->immutable = true;
            status = esc_sqlite_take_reader(sqlite, &connection, error);
            if (status != ESCQRS_OK) {
                return status;
            }
            status = prepare_file(sqlite, connection, error);
        }
        if (status == ESCQRS_OK) {
            status = read_numbers(sqlite, connection, error);
        }
        if (status == ESCQRS_OK) {
            status = esc_sqlite_load_types(sqlite, connection, error);
        }
        esc_sqlite_give_reader(sqlite, connection);
    }
    return status == ESCQRS_OK ? esc_sqlite_refresh(&sqlite->base, error) : status;
}

/* After a refused open: nothing of ours stays beside a file that is not ours. */
static void abandon(esc_sqlite *sqlite, bool had_wal)
{
    esc_connection *connection = &sqlite->writer.connection;
    esc_sqlite_close_readers(sqlite);
    if (connection->db != NULL) {
        if (!had_wal) { /* nothing is in the WAL that SQLite made: let it take it away */
            sqlite3_db_config(connection->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        }
        esc_connection_close(sqlite, connection);
    }
    esc_lock_release(sqlite->lock, true);
    sqlite->lock = NULL;
    sqlite_destroy(&sqlite->base);
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
    esc_stream_index_init(&sqlite->index);
    esc_mutex_init(&sqlite->pool.mutex);
    esc_cond_init(&sqlite->pool.returned);
    esc_list_init(&sqlite->pool.idle);
    esc_list_init(&sqlite->pool.busy);
    sqlite->pool.count_max =
        options->reader_count_max == 0 ? READER_COUNT_DEFAULT : options->reader_count_max;
    esc_mutex_init(&sqlite->refresh_mutex);
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

    bool in_memory = strcmp(path, ":memory:") == 0;
    bool had_wal = false;
    if (sqlite->shown == NULL) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    } else if (sqlite3_threadsafe() == 0 || sqlite3_initialize() != SQLITE_OK) {
        status = escqrs_error_set(error, ESCQRS_IO, "this SQLite was built without threads");
    } else if ((sqlite->vfs = esc_fork_vfs_name()) == NULL) {
        status = escqrs_error_set(error, ESCQRS_IO, "SQLite does not start");
    } else if (path[0] == '\0' || (in_memory && options->readonly)) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  in_memory ? "a store in memory cannot be opened read-only"
                                            : "the path of a store is empty");
    } else if (in_memory) {
        status = esc_memory_vfs_create(&sqlite->memory, error);
        if (status == ESCQRS_OK) {
            sqlite->vfs = esc_memory_vfs_name(sqlite->memory);
            sqlite->path = escqrs_strdup(escqrs_slice_of("/store"));
            if (sqlite->path == NULL) {
                status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
            }
        }
        if (status == ESCQRS_OK && source != NULL) {
            status = esc_sqlite_copy(source, sqlite->path, sqlite->vfs, error);
        }
    } else {
        sqlite->vfs = options->sqlite_vfs != NULL ? options->sqlite_vfs : sqlite->vfs;
        status = resolve_path(path, &sqlite->path, error);
        if (status == ESCQRS_OK) {
            status = check_kind(sqlite, error);
        }
        if (status == ESCQRS_OK && sqlite->readonly &&
            (sqlite->lock_path = esc_lock_path(sqlite->path)) == NULL) {
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
        }
        if (status == ESCQRS_OK && !sqlite->readonly) {
            status = esc_lock_acquire(sqlite->path, &sqlite->lock, error);
            if (status == ESCQRS_LOCKED) {
                esc_error_subject(error, escqrs_slice_of(sqlite->shown));
            }
        }
        if (status == ESCQRS_OK) {
            had_wal = sqlite->had_wal = has_companion(sqlite, "-wal", false);
            status = check_header(sqlite, error);
        }
    }
    if (status == ESCQRS_OK) {
        status =
            sqlite->readonly ? open_for_reading(sqlite, error) : open_for_writing(sqlite, error);
    }
    if (status != ESCQRS_OK) {
        abandon(sqlite, had_wal);
        return status;
    }
    *provider = &sqlite->base;
    return ESCQRS_OK;
}
