/* See sqlite_provider.h. What is in a file: whether it is one of ours, of a format that is known
 * and whole as far as its ends tell, its numbers and types; and making it. */
#include "store/sqlite_provider.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define HEADER_SIZE 100

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

int esc_sqlite_pragma(sqlite3 *db, const char *text, int64_t *value)
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

escqrs_status esc_sqlite_not_indexed(const esc_sqlite *sqlite, escqrs_slice stream, int64_t number,
                                     escqrs_error *error)
{
    (void)escqrs_error_set(error, ESCQRS_CORRUPT,
                           "%s is damaged: stream %.*s has the number %lld, and the index of "
                           "streams has none of its events",
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

escqrs_status esc_sqlite_refuse(const esc_sqlite *sqlite, escqrs_status status, escqrs_error *error,
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

bool esc_sqlite_has_companion(const esc_sqlite *sqlite, const char *suffix, bool with_bytes)
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
escqrs_status esc_sqlite_check_header(const esc_sqlite *sqlite, escqrs_error *error)
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
                   : esc_sqlite_refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                                       "is empty; open it for writing once to make it a store");
    }
    static const uint8_t zeros[HEADER_SIZE];
    if (memcmp(header, zeros, HEADER_SIZE) == 0 &&
        esc_sqlite_has_companion(sqlite, "-journal", true)) {
        return ESCQRS_OK; /* a power loss cut its creation short; SQLite rolls that back */
    }
    size_t compared = size < (sqlite3_int64)sizeof magic ? (size_t)size : sizeof magic;
    if (memcmp(header, magic, compared) != 0) {
        return esc_sqlite_refuse(
            sqlite, ESCQRS_NOT_A_STORE, error,
            "is not a store of escqrs: it is no SQLite file. It was left as it is");
    }
    if (size < HEADER_SIZE) {
        return esc_sqlite_refuse(sqlite, ESCQRS_CORRUPT, error, "is cut off in its first page");
    }
    if (big_endian(header + 68, 4) != ESC_APPLICATION_ID) {
        return esc_sqlite_refuse(sqlite, ESCQRS_NOT_A_STORE, error,
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
        return esc_sqlite_refuse(sqlite, ESCQRS_CORRUPT, error,
                                 "is damaged: its first page does not read");
    }
    if (!esc_sqlite_has_companion(sqlite, "-wal", true) &&
        !esc_sqlite_has_companion(sqlite, "-journal", true) &&
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
    int code = esc_sqlite_execute(db, text);
    if (code == SQLITE_OK) {
        /* not IMMEDIATE: that would make the first page, which decides on the second line */
        code = esc_sqlite_execute(db, "BEGIN; PRAGMA auto_vacuum = INCREMENTAL");
    }
    if (code == SQLITE_OK) {
        snprintf(text, sizeof text, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                 ESC_APPLICATION_ID, ESC_FORMAT_VERSION);
        code = esc_sqlite_execute(db, text);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_execute(db, schema_text);
    }
    if (code == SQLITE_OK) {
        snprintf(
            text, sizeof text,
            "INSERT INTO escqrs_store VALUES ('created', %lld), ('indexed', 0), ('salt', %lld)",
            (long long)escqrs_clock_now_us(&sqlite->clock), (long long)salt);
        code = esc_sqlite_execute(db, text);
    }
    if (code == SQLITE_OK && sqlite->chained) {
        code = esc_sqlite_chain_create(db);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_execute(db, "COMMIT");
    }
    if (code != SQLITE_OK) {
        escqrs_status status = esc_sqlite_error(sqlite, db, code, error, "cannot create");
        esc_sqlite_execute(db, "ROLLBACK");
        return status;
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_upgrade(esc_sqlite *sqlite, escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    char text[64];
    snprintf(text, sizeof text, "PRAGMA user_version = %d", ESC_FORMAT_VERSION);
    int code = esc_sqlite_execute(db, DELETED_TABLES);
    if (code == SQLITE_OK) {
        code = esc_sqlite_execute(db, text);
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
        code = esc_sqlite_pragma(connection->db, "PRAGMA page_size", &page_size);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_pragma(connection->db, "PRAGMA page_count", &page_count);
    }
    if (code != SQLITE_OK) {
        return esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    if (page_size > 0 && size / page_size < page_count &&
        !esc_sqlite_has_companion(sqlite, "-wal", true)) {
        return esc_sqlite_refuse(sqlite, ESCQRS_CORRUPT, error,
                                 "is cut off: pages are missing at its end");
    }
    return ESCQRS_OK;
}

/* The connection is open: make the tables, or see that they are ours. */
escqrs_status esc_sqlite_prepare(esc_sqlite *sqlite, esc_connection *connection,
                                 escqrs_error *error)
{
    sqlite3 *db = connection->db;
    int64_t table_count = 0, application = 0, format = 0;
    int code = esc_sqlite_pragma(db, "SELECT count(*) FROM sqlite_schema", &table_count);
    if (code == SQLITE_OK) {
        code = esc_sqlite_pragma(db, "PRAGMA application_id", &application);
    }
    if (code == SQLITE_OK) {
        code = esc_sqlite_pragma(db, "PRAGMA user_version", &format);
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
        return esc_sqlite_refuse(
            sqlite, ESCQRS_NOT_A_STORE, error,
            "is not a store of escqrs, or of a newer format. It was left as it is");
    }
    if (!sqlite->readonly) {
        code = esc_sqlite_execute(db, "PRAGMA journal_mode = WAL");
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

/* Gaps in a file whose number of deletions is lost: nobody would look at them. In one statement, as
 * the first deletion may be written meanwhile. */
static escqrs_status check_deletions(const esc_sqlite *sqlite, sqlite3 *db, escqrs_error *error)
{
    int64_t tables = 0, lost = 0;
    int code = esc_sqlite_pragma(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'escqrs_gap'",
                                 &tables);
    if (code == SQLITE_OK && tables > 0) {
        code = esc_sqlite_pragma(db,
                                 "SELECT EXISTS(SELECT 1 FROM escqrs_gap) AND NOT EXISTS(SELECT 1"
                                 " FROM escqrs_store WHERE name = 'deletions' AND value > 0 AND"
                                 " typeof(value) = 'integer')",
                                 &lost);
    }
    if (code != SQLITE_OK) {
        return esc_sqlite_error(sqlite, db, code, error, "cannot read");
    }
    return lost == 0 ? ESCQRS_OK
                     : esc_sqlite_refuse(sqlite, ESCQRS_CORRUPT, error,
                                         "is damaged: its table escqrs_store lacks the number of "
                                         "deletions");
}

/* Does it keep a hash chain? Its table says so as well: a file does not cease to keep one with the
 * row that says it. */
static escqrs_status read_chain(esc_sqlite *sqlite, esc_connection *connection, bool *chained,
                                escqrs_error *error)
{
    int64_t chain = 0, tables = 0;
    escqrs_status status = esc_sqlite_meta(sqlite, connection, "chain", &chain, chained, error);
    if (status == ESCQRS_OK && *chained && chain != 1) {
        return esc_sqlite_refuse(sqlite, ESCQRS_NOT_A_STORE, error,
                                 "keeps a hash chain of a kind that this escqrs does not know");
    }
    if (status != ESCQRS_OK || *chained) {
        return status;
    }
    int code = esc_sqlite_pragma(
        connection->db, "SELECT count(*) FROM sqlite_schema WHERE name = 'escqrs_chain'", &tables);
    *chained = tables > 0;
    return code == SQLITE_OK ? status
                             : esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
}

escqrs_status esc_sqlite_read_numbers(esc_sqlite *sqlite, esc_connection *connection,
                                      escqrs_error *error)
{
    int64_t salt = 0, indexed = 0;
    bool found[3] = {false, false, false};
    escqrs_status status = esc_sqlite_meta(sqlite, connection, "salt", &salt, &found[0], error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_meta(sqlite, connection, "indexed", &indexed, &found[1], error);
    }
    if (status == ESCQRS_OK && (!found[0] || !found[1] || indexed < 0)) {
        status = esc_sqlite_refuse(sqlite, ESCQRS_CORRUPT, error,
                                   "is damaged: its table escqrs_store lacks rows");
    }
    if (status == ESCQRS_OK) {
        status = check_deletions(sqlite, connection->db, error);
    }
    if (status == ESCQRS_OK) {
        status = read_chain(sqlite, connection, &found[2], error);
    }
    if (status == ESCQRS_OK && sqlite->chained && !found[2]) {
        status = esc_sqlite_refuse(
            sqlite, ESCQRS_INVALID, error,
            "keeps no hash chain, and one begins with the first event: export it, and "
            "import it into a new store that keeps one");
    }
    sqlite->chained = found[2];
    sqlite->salt = (uint64_t)salt;
    sqlite->index.watermark = sqlite->scanned = indexed;
    return status;
}
