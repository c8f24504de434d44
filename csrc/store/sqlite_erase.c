/* See sqlite_provider.h and docs/deleting.md. Deleting events: what goes, and what says that it was
 * there.
 *
 * An erasure is a batch of its own: begin, delete, enter, end. Before it the tail of the stream
 * index is merged, so that all that is deleted is in the index on disk and the tail that the next
 * open reads has no gaps. What is known in memory of a stream - number, version - does not change
 * but for `closed`. */
#include "store/sqlite_provider.h"

#include <endian.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/vector.h"
#include "store/event_header.h"

#define CHUNK_EVENTS 512

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

/* ---- what says so ----------------------------------------------------------------------------- */

int32_t esc_gap_checksum(const esc_gap *gap, uint64_t salt)
{
    uint64_t fields[3] = {htole64((uint64_t)gap->first), htole64((uint64_t)gap->last),
                          htole64((uint64_t)gap->time_us)};
    return (int32_t)(uint32_t)esc_hash((escqrs_slice){fields, sizeof fields}, salt);
}

int32_t esc_erased_checksum(int64_t stream, int64_t upto, int64_t closed, int64_t time_us,
                            uint64_t salt)
{
    uint64_t fields[4] = {htole64((uint64_t)stream), htole64((uint64_t)upto),
                          htole64((uint64_t)closed), htole64((uint64_t)time_us)};
    return (int32_t)(uint32_t)esc_hash((escqrs_slice){fields, sizeof fields}, salt);
}

static escqrs_status corrupt(const esc_sqlite *sqlite, const char *what, int64_t number,
                             escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_CORRUPT,
                            "%s is damaged: what it says of deleted %s %lld does not verify",
                            sqlite->shown, what, (long long)number);
}

/* In the file, as the connection sees it. */
static escqrs_status has_deletions(const esc_sqlite *sqlite, esc_connection *connection,
                                   bool *found, escqrs_error *error)
{
    int64_t deletions = 0;
    escqrs_status status =
        esc_sqlite_meta(sqlite, connection, "deletions", &deletions, found, error);
    *found = *found && deletions > 0;
    return status;
}

/* The gap that the statement finds; DONE where it finds none. */
static escqrs_status look_gap(const esc_sqlite *sqlite, esc_connection *connection,
                              esc_statement which, int64_t bound, esc_gap *gap, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, connection, which, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, bound);
    int code = sqlite3_step(statement);
    *gap = (esc_gap){0};
    if (code == SQLITE_ROW) {
        *gap = (esc_gap){sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
                         sqlite3_column_int64(statement, 2)};
        if (gap->first < 1 || gap->last < gap->first || gap->last > ESC_POSITION_MAX ||
            esc_gap_checksum(gap, sqlite->salt) != sqlite3_column_int64(statement, 3)) {
            status = corrupt(sqlite, "position", gap->first, error);
        }
    } else {
        status = code == SQLITE_DONE
                     ? ESCQRS_DONE
                     : esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

escqrs_status esc_sqlite_gap(const esc_sqlite *sqlite, esc_connection *connection, int64_t low,
                             int64_t high, bool reverse, esc_gap *gap, escqrs_error *error)
{
    bool found;
    *gap = (esc_gap){0};
    escqrs_status status = has_deletions(sqlite, connection, &found, error);
    if (status != ESCQRS_OK || !found) {
        return status;
    }
    status = look_gap(sqlite, connection, ESC_SQL_GAP_AT, reverse ? high : low, gap, error);
    if (!reverse && (status == ESCQRS_DONE || (status == ESCQRS_OK && gap->last < low))) {
        status = look_gap(sqlite, connection, ESC_SQL_GAP_AFTER, low, gap, error);
    }
    if (status == ESCQRS_DONE || (status == ESCQRS_OK && (gap->last < low || gap->first > high))) {
        *gap = (esc_gap){0};
        return ESCQRS_OK;
    }
    return status;
}

escqrs_status esc_sqlite_last_gap(const esc_sqlite *sqlite, esc_connection *connection,
                                  esc_gap *gap, escqrs_error *error)
{
    return esc_sqlite_gap(sqlite, connection, 1, ESC_POSITION_MAX, true, gap, error);
}

escqrs_status esc_sqlite_erased_of(const esc_sqlite *sqlite, esc_connection *connection,
                                   int64_t stream, escqrs_erased *erased, escqrs_error *error)
{
    bool found;
    *erased = (escqrs_erased){0};
    escqrs_status status = has_deletions(sqlite, connection, &found, error);
    sqlite3_stmt *statement = NULL;
    if (status == ESCQRS_OK && found) {
        status = esc_connection_statement(sqlite, connection, ESC_SQL_ERASED, &statement, error);
    }
    if (status != ESCQRS_OK || !found) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        int64_t upto = sqlite3_column_int64(statement, 0);
        int64_t closed = sqlite3_column_int64(statement, 1);
        if (upto < 1 || upto > ESC_POSITION_MAX ||
            esc_erased_checksum(stream, upto, closed, sqlite3_column_int64(statement, 2),
                                sqlite->salt) != sqlite3_column_int64(statement, 3)) {
            status = corrupt(sqlite, "stream number", stream, error);
        }
        *erased = (escqrs_erased){upto, closed != 0};
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

escqrs_status esc_sqlite_erased(escqrs_provider *self, escqrs_slice stream, escqrs_erased *erased,
                                escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    esc_connection *connection;
    int64_t id, version;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_sqlite_stream(sqlite, connection, stream, &id, &version, error);
    if (status == ESCQRS_OK && id != 0) {
        status = esc_sqlite_erased_of(sqlite, connection, id, erased, error);
    }
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}

escqrs_status esc_sqlite_say_closed(escqrs_slice stream, int64_t version, escqrs_error *error)
{
    (void)escqrs_error_set(error, ESCQRS_DELETED,
                           "stream %.*s was deleted at version %lld, and its name is not used "
                           "again",
                           (int)stream.size, (const char *)stream.data, (long long)version);
    if (error != NULL) {
        error->version = version;
    }
    esc_error_subject(error, stream);
    return ESCQRS_DELETED;
}

/* ---- rows ------------------------------------------------------------------------------------- */

typedef struct eraser {
    esc_sqlite *sqlite;
    esc_connection *connection;
    esc_arena arena; /* lists of one header */
    esc_gap run;     /* positions deleted and not entered yet; last 0: none */
    int64_t now_us;
    escqrs_error *error;
} eraser;

static escqrs_status fail(const eraser *in, int code)
{
    if (esc_sqlite_is_final(sqlite3_extended_errcode(in->connection->db))) {
        in->sqlite->base.failed = true;
    }
    return esc_sqlite_error(in->sqlite, in->connection->db, code, in->error, "cannot write to");
}

static escqrs_status statement_of(const eraser *in, esc_statement which, sqlite3_stmt **statement)
{
    *statement = NULL;
    return esc_connection_statement(in->sqlite, in->connection, which, statement, in->error);
}

/* Run a statement of up to two numbers. */
static escqrs_status run(const eraser *in, esc_statement which, int64_t first, int64_t second)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, which, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, first);
    if (sqlite3_bind_parameter_count(statement) > 1) {
        sqlite3_bind_int64(statement, 2, second);
    }
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

static escqrs_status put_gap(const eraser *in, const esc_gap *gap)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, ESC_SQL_PUT_GAP, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, gap->first);
    sqlite3_bind_int64(statement, 2, gap->last);
    sqlite3_bind_int64(statement, 3, gap->time_us);
    sqlite3_bind_int(statement, 4, esc_gap_checksum(gap, in->sqlite->salt));
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

/* Enter the run, joined with those that it touches. */
static escqrs_status end_run(eraser *in)
{
    esc_gap run_ = in->run, other;
    if (run_.last == 0) {
        return ESCQRS_OK;
    }
    in->run = (esc_gap){0};
    escqrs_status status =
        look_gap(in->sqlite, in->connection, ESC_SQL_GAP_AT, run_.first, &other, in->error);
    if (status == ESCQRS_OK && other.last >= run_.first) {
        return corrupt(in->sqlite, "position", run_.first, in->error);
    }
    if (status == ESCQRS_OK && other.last == run_.first - 1) {
        run_.first = other.first; /* PUT_GAP replaces its row */
    }
    if (status == ESCQRS_OK || status == ESCQRS_DONE) {
        status =
            look_gap(in->sqlite, in->connection, ESC_SQL_GAP_AT, run_.last + 1, &other, in->error);
    }
    if (status == ESCQRS_OK && other.first == run_.last + 1) {
        run_.last = other.last;
        run_.time_us = other.time_us;
        status = run(in, ESC_SQL_DELETE_GAP, other.first, 0);
    }
    return status == ESCQRS_OK || status == ESCQRS_DONE ? put_gap(in, &run_) : status;
}

static escqrs_status note_position(eraser *in, int64_t position, int64_t time_us)
{
    if (in->run.last != 0 && position == in->run.last + 1) {
        in->run.last = position;
        in->run.time_us = time_us;
        return ESCQRS_OK;
    }
    escqrs_status status = end_run(in);
    in->run = (esc_gap){position, position, time_us};
    return status;
}

static escqrs_status delete_tags(eraser *in, const escqrs_recorded *recorded)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < recorded->tag_count && status == ESCQRS_OK; i++) {
        sqlite3_stmt *statement;
        status = statement_of(in, ESC_SQL_DELETE_TAG, &statement);
        if (status == ESCQRS_OK) {
            escqrs_slice tag = recorded->tags[i];
            sqlite3_bind_text(statement, 1, tag.size > 0 ? tag.data : "", (int)tag.size,
                              SQLITE_STATIC);
            sqlite3_bind_int64(statement, 2, recorded->position);
            int code = sqlite3_step(statement);
            sqlite3_reset(statement);
            status = code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
        }
    }
    return status;
}

/* Where the id was derived there is no such row. */
static escqrs_status delete_id(eraser *in, const escqrs_recorded *recorded)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, ESC_SQL_DELETE_ID, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (recorded->id_text.size > 0) {
        sqlite3_bind_text(statement, 1, recorded->id_text.data, (int)recorded->id_text.size,
                          SQLITE_STATIC);
    } else {
        sqlite3_bind_blob(statement, 1, recorded->id.bytes, sizeof recorded->id.bytes,
                          SQLITE_STATIC);
    }
    sqlite3_bind_int64(statement, 2, recorded->position);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

static escqrs_status missing(const eraser *in, const esc_stream *stream, int64_t version,
                             int64_t position)
{
    (void)escqrs_error_set(in->error, ESCQRS_CORRUPT,
                           "%s is damaged: version %lld of stream %.*s is not at position %lld",
                           in->sqlite->shown, (long long)version, (int)stream->name_size,
                           stream->name, (long long)position);
    if (in->error != NULL) {
        in->error->version = version;
        in->error->position = position;
    }
    esc_error_subject(in->error, (escqrs_slice){stream->name, stream->name_size});
    return ESCQRS_CORRUPT;
}

/* The event's tags and id, as far as its header reads: what does not is no longer there anyway. */
static escqrs_status delete_aids(eraser *in, sqlite3_stmt *statement, int64_t position,
                                 int64_t *time_us)
{
    escqrs_slice header = {sqlite3_column_blob(statement, 6),
                           (size_t)sqlite3_column_bytes(statement, 6)};
    *time_us = sqlite3_column_int64(statement, 4);
    if (header.size == 0) {
        return ESCQRS_OK;
    }
    escqrs_recorded recorded = {.position = position, .time_us = *time_us};
    esc_arena_reset(&in->arena);
    escqrs_status status =
        esc_event_header_decode(header, sqlite3_column_int64(statement, 5),
                                (uint32_t)in->sqlite->salt, &in->arena, &recorded);
    if (status == ESCQRS_NO_MEMORY) {
        return escqrs_error_set(in->error, status, "no memory to delete an event");
    }
    status = status == ESCQRS_OK ? delete_tags(in, &recorded) : ESCQRS_OK;
    return status == ESCQRS_OK ? delete_id(in, &recorded) : status;
}

static escqrs_status delete_event(eraser *in, const esc_stream *stream, int64_t version,
                                  int64_t position)
{
    sqlite3_stmt *statement;
    int64_t time_us = 0;
    escqrs_status status = statement_of(in, ESC_SQL_EVENT, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, position);
    int code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = fail(in, code);
    } else if (code == SQLITE_DONE || sqlite3_column_int64(statement, 1) != stream->id ||
               sqlite3_column_int64(statement, 2) != version) {
        status = missing(in, stream, version, position);
    } else {
        status = delete_aids(in, statement, position, &time_us);
    }
    sqlite3_reset(statement);
    if (status == ESCQRS_OK) {
        status = run(in, ESC_SQL_DELETE_EVENT, position, 0);
    }
    return status == ESCQRS_OK ? note_position(in, position, time_us) : status;
}

static escqrs_status delete_events(eraser *in, const esc_stream *stream, int64_t after,
                                   int64_t upto)
{
    int64_t positions[CHUNK_EVENTS];
    escqrs_status status = ESCQRS_OK;
    while (after < upto && status == ESCQRS_OK) {
        size_t count = upto - after < CHUNK_EVENTS ? (size_t)(upto - after) : CHUNK_EVENTS;
        status = esc_sqlite_index_look(in->sqlite, in->connection, stream->id, after + 1, count,
                                       positions, in->error);
        for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
            status = delete_event(in, stream, ++after, positions[i]);
        }
    }
    return status == ESCQRS_OK ? end_run(in) : status;
}

/* ---- one stream ------------------------------------------------------------------------------- */

static escqrs_status refuse(const eraser *in, const escqrs_erasure *erasure, escqrs_status status,
                            int64_t version, const char *text)
{
    (void)escqrs_error_set(in->error, status, text, (int)erasure->stream.size,
                           (const char *)erasure->stream.data, (long long)version,
                           (long long)erasure->upto);
    if (in->error != NULL && status == ESCQRS_NOT_COVERED) {
        in->error->version = erasure->upto;
    }
    esc_error_subject(in->error, erasure->stream);
    return status;
}

/* Is there a snapshot at `upto` or later that verifies? */
static escqrs_status check_covered(const eraser *in, const escqrs_erasure *erasure,
                                   const esc_stream *stream)
{
    int64_t version;
    escqrs_status status = esc_sqlite_snapshot_version(in->sqlite, in->connection, stream->id,
                                                       erasure->upto, &version, in->error);
    if (status != ESCQRS_OK || version != 0) {
        return status;
    }
    return refuse(in, erasure, ESCQRS_NOT_COVERED, stream->version,
                  "stream %.*s, which is at version %lld, has no snapshot at version %lld or "
                  "later that verifies: what these events say would be lost");
}

static escqrs_status put_erased(const eraser *in, int64_t stream, int64_t upto, bool closed)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, ESC_SQL_PUT_ERASED, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream);
    sqlite3_bind_int64(statement, 2, upto);
    sqlite3_bind_int64(statement, 3, closed);
    sqlite3_bind_int64(statement, 4, in->now_us);
    sqlite3_bind_int(statement, 5,
                     esc_erased_checksum(stream, upto, closed, in->now_us, in->sqlite->salt));
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

static escqrs_status delete_keys(const eraser *in, escqrs_slice scope)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, ESC_SQL_DELETE_KEYS, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, scope.data, (int)scope.size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

/* All that goes with the events; index rows that may take no further version. */
static escqrs_status delete_rest(const eraser *in, const escqrs_erasure *erasure, int64_t stream,
                                 int64_t upto)
{
    escqrs_status status =
        run(in, ESC_SQL_DELETE_INDEX, stream, upto - (ESC_INDEX_ROW_POSITIONS - 1));
    if (status == ESCQRS_OK) {
        status = run(in, ESC_SQL_DELETE_SNAPSHOTS, stream, erasure->close ? INT64_MAX : upto - 1);
    }
    if (status == ESCQRS_OK && erasure->close) {
        status = delete_keys(in, erasure->stream);
    }
    return status == ESCQRS_OK ? put_erased(in, stream, upto, erasure->close) : status;
}

static escqrs_status erase_stream(eraser *in, escqrs_erasure *erasure)
{
    esc_stream *stream;
    escqrs_erased before;
    erasure->count = 0;
    escqrs_status status = esc_sqlite_resolve(in->sqlite, erasure->stream, &stream, in->error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_erased_of(in->sqlite, in->connection, stream->id, &before, in->error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    int64_t upto = erasure->close ? stream->version : erasure->upto;
    if (before.closed) {
        return erasure->close ? ESCQRS_OK
                              : esc_sqlite_say_closed(erasure->stream, before.upto, in->error);
    }
    if (stream->version == 0) {
        return refuse(in, erasure, ESCQRS_INVALID, 0, "there is no stream %.*s");
    }
    if (upto > stream->version) {
        return refuse(in, erasure, ESCQRS_INVALID, stream->version,
                      "stream %.*s is at version %lld, not at %lld");
    }
    if (upto <= before.upto && !erasure->close) {
        return ESCQRS_OK; /* gone already */
    }
    if (!erasure->close && !erasure->force) {
        status = check_covered(in, erasure, stream);
    }
    if (status == ESCQRS_OK) {
        status = delete_events(in, stream, before.upto, upto);
    }
    if (status == ESCQRS_OK) {
        status = delete_rest(in, erasure, stream->id, upto);
    }
    erasure->count = upto - before.upto;
    stream->closes = status == ESCQRS_OK && erasure->close;
    return status;
}

/* ---- the whole -------------------------------------------------------------------------------- */

static escqrs_status count_deletion(const eraser *in, int64_t deletions)
{
    sqlite3_stmt *statement;
    escqrs_status status = statement_of(in, ESC_SQL_SET_META, &statement);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, "deletions", -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 2, deletions);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : fail(in, code);
}

/* In the running batch. */
static escqrs_status erase_all(eraser *in, escqrs_erasure *erasures, size_t count, bool *changed)
{
    escqrs_status status = ESCQRS_OK;
    int64_t deletions = esc_provider_deletions(&in->sqlite->base);
    if (deletions == 0) {
        status = esc_sqlite_upgrade(in->sqlite, in->error);
    }
    for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
        status = erase_stream(in, &erasures[i]);
        *changed = *changed || erasures[i].count > 0 || erasures[i].close;
    }
    if (status == ESCQRS_OK && *changed) {
        status = count_deletion(in, deletions + 1);
    }
    if (status == ESCQRS_OK && *changed) {
        /* release: pairs with esc_provider_deletions. Before the commit: who sees its effect sees
         * it; and should the commit fail, nobody is misled by a number that is too high. */
        atomic_store_explicit(&in->sqlite->base.core->deletions, deletions + 1,
                              memory_order_release);
    }
    return status;
}

/* The leader's knowledge of who is closed follows what became of the batch. */
static void settle(esc_sqlite *sqlite, const escqrs_erasure *erasures, size_t count, bool durable)
{
    for (size_t i = 0; i < count; i++) {
        esc_stream *stream = esc_stream_index_find(&sqlite->index, erasures[i].stream);
        if (stream != NULL && stream->closes) {
            stream->closes = false;
            stream->closed = stream->closed || durable;
        }
    }
}

escqrs_status esc_sqlite_erase(escqrs_provider *self, escqrs_erasure *erasures, size_t count,
                               escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    eraser in = {.sqlite = sqlite,
                 .connection = &sqlite->writer.connection,
                 .now_us = escqrs_clock_now_us(&sqlite->clock),
                 .error = error};
    bool changed = false;
    escqrs_status status = esc_sqlite_merge_rest(sqlite, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_begin(self, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    esc_arena_init(&in.arena, 4096);
    status = erase_all(&in, erasures, count, &changed);
    esc_arena_fini(&in.arena);
    if (status != ESCQRS_OK || !changed) {
        esc_sqlite_rollback(self);
    } else {
        status = esc_sqlite_end(self, error);
    }
    settle(sqlite, erasures, count, status == ESCQRS_OK && changed);
    for (size_t i = 0; i < count && status != ESCQRS_OK; i++) {
        erasures[i].count = 0;
    }
    return status;
}
