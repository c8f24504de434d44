/* See sqlite_provider.h and stream_index.h.
 *
 * A row of escqrs_index holds the positions of up to 128 consecutive versions of a stream: the
 * first as a varint, then the distances. Rows begin at versions 1, 129, 257 ..., so a merge that is
 * repeated after a crash writes the same rows again, and a version is found without a search. */
#include "store/sqlite_provider.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/varint.h"

#define ROW_BYTES_MAX (ESC_INDEX_ROW_POSITIONS * ESC_VARINT_SIZE_MAX)

static int64_t row_of(int64_t version)
{
    return (version - 1) / ESC_INDEX_ROW_POSITIONS * ESC_INDEX_ROW_POSITIONS + 1;
}

static escqrs_status corrupt(const esc_sqlite *sqlite, int64_t stream, int64_t version,
                             escqrs_error *error)
{
    (void)escqrs_error_set(
        error, ESCQRS_CORRUPT,
        "%s is damaged: the index of streams does not have version %lld of stream "
        "number %lld",
        sqlite->shown, (long long)version, (long long)stream);
    if (error != NULL) {
        error->version = version;
    }
    return ESCQRS_CORRUPT;
}

/* `said` positions out of the bytes of a row; false where the bytes are others. */
static bool decode_row(int64_t said, escqrs_slice bytes, int64_t positions[ESC_INDEX_ROW_POSITIONS])
{
    uint64_t position = 0;
    size_t done = 0;
    if (said < 1 || said > ESC_INDEX_ROW_POSITIONS) {
        return false;
    }
    for (int64_t i = 0; i < said; i++) {
        uint64_t distance;
        size_t used =
            esc_varint_decode((const uint8_t *)bytes.data + done, bytes.size - done, &distance);
        if (used == 0 || distance == 0 || distance > (uint64_t)ESC_POSITION_MAX - position) {
            return false;
        }
        position += distance;
        positions[i] = (int64_t)position;
        done += used;
    }
    return done == bytes.size;
}

static escqrs_slice blob_of(sqlite3_stmt *statement, int column)
{
    const void *data = sqlite3_column_blob(statement, column);
    size_t size = (size_t)sqlite3_column_bytes(statement, column);
    return (escqrs_slice){data != NULL ? data : "", data != NULL ? size : 0};
}

escqrs_status esc_sqlite_index_last_of(const esc_sqlite *sqlite, sqlite3_stmt *statement,
                                       int column, int64_t stream, int64_t *version,
                                       escqrs_error *error)
{
    int64_t positions[ESC_INDEX_ROW_POSITIONS];
    int64_t first = sqlite3_column_int64(statement, column);
    int64_t count = sqlite3_column_int64(statement, column + 1);
    *version = 0;
    /* No version is above the position that it has. */
    if (first < 1 || first > ESC_POSITION_MAX || first != row_of(first) ||
        !decode_row(count, blob_of(statement, column + 2), positions) ||
        positions[count - 1] < first + count - 1) {
        return corrupt(sqlite, stream, first, error);
    }
    *version = first + count - 1;
    return ESCQRS_OK;
}

/* Positions of one row; *count is 0 where there is none. */
static escqrs_status read_row(const esc_sqlite *sqlite, esc_connection *connection, int64_t stream,
                              int64_t first, int64_t positions[ESC_INDEX_ROW_POSITIONS],
                              size_t *count, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_INDEX_ROW, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    sqlite3_bind_int64(statement, 2, first);
    *count = 0;
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        int64_t said = sqlite3_column_int64(statement, 0);
        if (decode_row(said, blob_of(statement, 1), positions)) {
            *count = (size_t)said;
        } else {
            status = corrupt(sqlite, stream, first, error);
        }
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

escqrs_status esc_sqlite_index_look(const esc_sqlite *sqlite, esc_connection *connection,
                                    int64_t stream, int64_t first, size_t count, int64_t *positions,
                                    escqrs_error *error)
{
    int64_t row[ESC_INDEX_ROW_POSITIONS];
    size_t done = 0;
    while (done < count) {
        int64_t version = first + (int64_t)done;
        int64_t row_first = row_of(version);
        size_t row_count;
        escqrs_status status =
            read_row(sqlite, connection, stream, row_first, row, &row_count, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        size_t offset = (size_t)(version - row_first);
        if (offset >= row_count) {
            return corrupt(sqlite, stream, version, error);
        }
        while (offset < row_count && done < count) {
            positions[done++] = row[offset++];
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_index_last(const esc_sqlite *sqlite, esc_connection *connection,
                                    int64_t stream, int64_t *version, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_INDEX_LAST, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    int code = sqlite3_step(statement);
    *version = 0;
    if (code == SQLITE_ROW) {
        status = esc_sqlite_index_last_of(sqlite, statement, 0, stream, version, error);
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

/* ---- merge ------------------------------------------------------------------------------------ */

static escqrs_status write_row(esc_sqlite *sqlite, int64_t stream, int64_t first,
                               const int64_t *positions, size_t count, escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    uint8_t bytes[ROW_BYTES_MAX];
    size_t size = 0;
    int64_t last = 0;
    for (size_t i = 0; i < count; i++) {
        ESC_ASSERT(positions[i] > last);
        size += esc_varint_encode((uint64_t)(positions[i] - last), bytes + size);
        last = positions[i];
    }
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_PUT_INDEX, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    sqlite3_bind_int64(statement, 2, first);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)count);
    sqlite3_bind_blob(statement, 4, bytes, (int)size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (code != SQLITE_DONE) {
        return esc_sqlite_error(sqlite, connection->db, code, error, "cannot write");
    }
    return ESCQRS_OK;
}

/* The first `count` positions of a row that does not read, from the journal: all of it is read, and
 * once. CORRUPT where the journal does not have them either. */
static escqrs_status rebuild_row(esc_sqlite *sqlite, int64_t stream, int64_t first, size_t count,
                                 int64_t positions[ESC_INDEX_ROW_POSITIONS], escqrs_error *error)
{
    sqlite3 *db = sqlite->writer.connection.db;
    sqlite3_stmt *statement = NULL;
    size_t found = 0;
    int code = sqlite3_prepare_v2(db,
                                  "SELECT version, position FROM escqrs_journal WHERE stream = ?1"
                                  " AND version >= ?2 AND version < ?3 ORDER BY position",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, stream);
        sqlite3_bind_int64(statement, 2, first);
        sqlite3_bind_int64(statement, 3, first + (int64_t)count);
        while ((code = sqlite3_step(statement)) == SQLITE_ROW && found < count &&
               sqlite3_column_int64(statement, 0) == first + (int64_t)found) {
            positions[found++] = sqlite3_column_int64(statement, 1);
        }
    }
    sqlite3_finalize(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return esc_sqlite_error(sqlite, db, code, error, "cannot read");
    }
    if (found < count) {
        return corrupt(sqlite, stream, first + (int64_t)found, error);
    }
    escqrs_log_write(
        &sqlite->log, ESCQRS_LOG_WARNING,
        "%s: the index of stream number %lld was damaged at version %lld, and was made "
        "anew there",
        sqlite->shown, (long long)stream, (long long)first);
    return ESCQRS_OK;
}

/* The first `count` positions of a row that is there in part; those of the tail follow `before`. */
static escqrs_status begin_row(esc_sqlite *sqlite, int64_t stream, int64_t first, size_t count,
                               int64_t before, int64_t positions[ESC_INDEX_ROW_POSITIONS],
                               escqrs_error *error)
{
    size_t there;
    escqrs_status status =
        read_row(sqlite, &sqlite->writer.connection, stream, first, positions, &there, error);
    bool reads = status == ESCQRS_OK && there >= count && positions[count - 1] < before;
    if (!reads && (status == ESCQRS_OK || status == ESCQRS_CORRUPT)) {
        status = rebuild_row(sqlite, stream, first, count, positions, error);
        if (status == ESCQRS_OK && positions[count - 1] >= before) {
            status = corrupt(sqlite, stream, first + (int64_t)count, error);
        }
    }
    return status;
}

/* All frozen positions of one stream; adds the rows written. */
static escqrs_status merge_stream(esc_sqlite *sqlite, esc_stream *stream, size_t *rows,
                                  escqrs_error *error)
{
    int64_t row[ESC_INDEX_ROW_POSITIONS] = {0};
    size_t frozen = esc_stream_frozen_count(&sqlite->index, stream);
    const int64_t *tail = esc_stream_tail(stream);
    size_t done = 0;
    while (done < frozen) {
        int64_t version = stream->tail_first + (int64_t)done;
        int64_t row_first = row_of(version);
        size_t count = (size_t)(version - row_first);
        if (count > 0) { /* the row is there already in part */
            escqrs_status status =
                begin_row(sqlite, stream->id, row_first, count, tail[done], row, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
        while (count < ESC_INDEX_ROW_POSITIONS && done < frozen) {
            row[count++] = tail[done++];
        }
        escqrs_status status = write_row(sqlite, stream->id, row_first, row, count, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        (*rows)++;
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_index_merge(esc_sqlite *sqlite, size_t rows_max, escqrs_error *error)
{
    esc_stream_index *index = &sqlite->index;
    size_t rows = 0;
    while (rows < rows_max && sqlite->writer.merge_next < index->frozen.count) {
        esc_stream *stream = ESC_VECTOR_AT(&index->frozen, esc_stream *, sqlite->writer.merge_next);
        escqrs_status status = merge_stream(sqlite, stream, &rows, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        sqlite->writer.merge_next++;
    }
    if (sqlite->writer.merge_next < index->frozen.count) {
        return ESCQRS_OK;
    }
    sqlite3_stmt *statement = NULL;
    esc_connection *connection = &sqlite->writer.connection;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_SET_META, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, "indexed", -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 2, index->frozen_upto);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (code != SQLITE_DONE) {
        return esc_sqlite_error(sqlite, connection->db, code, error, "cannot write");
    }
    return ESCQRS_OK;
}

/* ---- the tail at open ------------------------------------------------------------------------- */

static escqrs_status scan_row(esc_sqlite *sqlite, esc_stream_index *index, int64_t position,
                              int64_t id, int64_t version, escqrs_error *error)
{
    esc_stream *stream = esc_stream_index_find_id(index, id);
    escqrs_status status = ESCQRS_OK;
    if (id < 1 || id > ESC_POSITION_MAX || version < 1 || version > position) {
        return corrupt(sqlite, id, version, error);
    }
    if (id > sqlite->writer.last_stream) {
        sqlite->writer.last_stream = id;
    }
    if (stream == NULL) {
        status =
            esc_stream_index_add(index, id, (escqrs_slice){NULL, 0}, version - 1, true, &stream);
    } else if (version != stream->pending + 1) {
        return corrupt(sqlite, id, stream->pending + 1, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_stream_index_push(index, stream, position);
    }
    return status == ESCQRS_OK ? status
                               : escqrs_error_set(error, status, "no memory for the index");
}

escqrs_status esc_sqlite_index_scan(esc_sqlite *sqlite, esc_stream_index *index,
                                    esc_connection *connection, int64_t after, int64_t upto,
                                    escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_TAIL, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, after);
    int64_t last = after;
    int code = SQLITE_DONE;
    while (status == ESCQRS_OK && last < upto && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t position = sqlite3_column_int64(statement, 0);
        if (position != last + 1) {
            break;
        }
        status = scan_row(sqlite, index, position, sqlite3_column_int64(statement, 1),
                          sqlite3_column_int64(statement, 2), error);
        last = position;
    }
    if (status == ESCQRS_OK && code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    } else if (status == ESCQRS_OK && last != upto) {
        status = escqrs_error_set(error, ESCQRS_CORRUPT,
                                  "%s is damaged: the event at position %lld is missing",
                                  sqlite->shown, (long long)last + 1);
        if (error != NULL) {
            error->position = last + 1;
        }
    }
    sqlite3_reset(statement);
    if (status == ESCQRS_OK) {
        esc_stream_index_publish(index);
    } else {
        esc_stream_index_revert(index);
    }
    return status;
}
