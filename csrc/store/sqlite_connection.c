/* See sqlite_provider.h. Connections, their statements, and what is said when SQLite refuses. */
#include "store/sqlite_provider.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

#define TEXT_OF(macro) TEXT_OF_TOKENS(macro)
#define TEXT_OF_TOKENS(tokens) #tokens

/* One connection alone checkpoints, and when it chooses to. */
#define WRITER_SETTINGS                                                                            \
    "PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384;"       \
    "PRAGMA journal_size_limit = " TEXT_OF(ESC_LONG_WAL_BYTES)
#define READER_SETTINGS                                                                            \
    "PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA query_only = 1"

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

/* system_error: what the system said, or 0. */
static escqrs_status say(const esc_sqlite *sqlite, sqlite3 *db, int code, int system_error,
                         escqrs_error *error, const char *doing)
{
    int extended = db != NULL ? sqlite3_extended_errcode(db) : code;
    if ((extended & 0xff) != (code & 0xff)) {
        extended = code;
    }
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
    } else if (system_error == EFBIG) {
        (void)esc_error_system(error, status, system_error,
                               "%s %s: a limit of the process (ulimit -f, RLIMIT_FSIZE) or of the "
                               "file system is in the way of a larger file; raise it, or move the "
                               "store (SQLite code %d)",
                               doing, sqlite->shown, extended);
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

escqrs_status esc_sqlite_error(const esc_sqlite *sqlite, sqlite3 *db, int code, escqrs_error *error,
                               const char *doing)
{
    bool said = db != NULL && (code & 0xff) != SQLITE_NOMEM;
    return say(sqlite, db, code, said ? sqlite3_system_errno(db) : 0, error, doing);
}

escqrs_status esc_sqlite_commit_error(const esc_sqlite *sqlite, sqlite3 *db, int code,
                                      int system_error, escqrs_error *error)
{
    static const char doing[] = "cannot write to";
    return code == SQLITE_IOERR_WRITE ? say(sqlite, db, code, system_error, error, doing)
                                      : esc_sqlite_error(sqlite, db, code, error, doing);
}

/* ---- connections ------------------------------------------------------------------------------ */

int esc_sqlite_execute(sqlite3 *db, const char *text)
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
        code = esc_sqlite_execute(connection->db, writes ? WRITER_SETTINGS : READER_SETTINGS);
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
    esc_stream_names_fini(&connection->names);
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
