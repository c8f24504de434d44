/* See sqlite_provider.h. The proof that all that a file holds is whole.
 *
 * It reads in one transaction of a reading connection, so it sees the store as it was at one moment
 * and blocks nobody; the WAL grows until it has ended. The journal is read once, in order; what
 * repeats it is compared with it:
 *
 *   index of streams   sums of a hash of (version, position), from the journal and from the index,
 *                      agree for each stream as far as the index goes; where they do not, the
 *                      stream's index is compared position by position
 *   tags and ids       each that an event bears is looked up; if the tables have more rows than
 *                      that, each row is compared with its event
 *
 *   hash chain         each link is made anew from the one that stands before it, so that one event
 *                      that was changed is one problem
 *   deleted events     the positions that are missing are exactly those of the gaps, and as many as
 *                      the streams say that they have lost
 *
 * What cannot be read is a problem as well, and the other parts are read all the same. Memory: some
 * 40 bytes a stream. */
#include "store/sqlite_verifier.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <escqrs/schema.h>

#include "base/arena.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/utf8.h"
#include "base/varint.h"
#include "base/vector.h"
#include "store/chain.h"

#define PROGRESS_OPS 10000000 /* of SQLite, while it looks at its own pages */
#define TEXT_MAX 512

/* ---- problems --------------------------------------------------------------------------------- */

static escqrs_status stop(esc_verifier *in)
{
    in->stopped = true;
    return ESCQRS_DONE;
}

/* The name of a stream into `buffer`; empty where it cannot be read. */
static escqrs_slice name_of(esc_verifier *in, int64_t id, char buffer[ESCQRS_STREAM_NAME_MAX])
{
    sqlite3_stmt *statement = NULL;
    escqrs_slice name = {buffer, 0};
    if (id != 0 &&
        sqlite3_prepare_v2(in->db, "SELECT name FROM escqrs_stream WHERE id = ?1", -1, &statement,
                           NULL) == SQLITE_OK &&
        sqlite3_bind_int64(statement, 1, id) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        const void *text = sqlite3_column_text(statement, 0);
        size_t size = (size_t)sqlite3_column_bytes(statement, 0);
        if (text != NULL && size <= ESCQRS_STREAM_NAME_MAX) {
            memcpy(buffer, text, size);
            name.size = size;
        }
    }
    sqlite3_finalize(statement);
    return name;
}

escqrs_status esc_verifier_report(esc_verifier *in, const char *part, esc_verified_place where,
                                  const char *format, ...) ESCQRS_PRINTF(4, 5) ESCQRS_MUST_USE;

/* Tell the observer; DONE when it wants no more. */
escqrs_status esc_verifier_report(esc_verifier *in, const char *part, esc_verified_place where,
                                  const char *format, ...)
{
    char text[TEXT_MAX], name[ESCQRS_STREAM_NAME_MAX];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    escqrs_problem problem = {
        .part = part,
        .text = text,
        .stream = name_of(in, where.stream, name),
        .version = where.version,
        .position = where.position,
    };
    in->counts->problems++;
    return in->observer->problem == NULL || in->observer->problem(in->observer->context, &problem)
               ? ESCQRS_OK
               : stop(in);
}

escqrs_status esc_verifier_refused(esc_verifier *in, const char *part, esc_verified_place where,
                                   int code)
{
    escqrs_error error = {0};
    if (in->stopped) {
        return ESCQRS_DONE;
    }
    escqrs_status status = esc_sqlite_error(in->sqlite, in->db, code, &error, "cannot read");
    if (status == ESCQRS_CORRUPT || (code & 0xff) == SQLITE_ERROR) {
        return esc_verifier_report(in, part, where, "%s", sqlite3_errmsg(in->db));
    }
    if (in->error != NULL) {
        *in->error = error;
    }
    return status;
}

escqrs_status esc_verifier_no_memory(esc_verifier *in)
{
    return escqrs_error_set(in->error, ESCQRS_NO_MEMORY, "no memory to verify a store");
}

escqrs_status esc_verifier_progress(esc_verifier *in, int64_t done)
{
    return in->observer->progress == NULL ||
                   in->observer->progress(in->observer->context, done, in->head)
               ? ESCQRS_OK
               : stop(in);
}

/* ---- rows ------------------------------------------------------------------------------------- */

escqrs_status esc_verifier_each(esc_verifier *in, const char *part, const char *query,
                                escqrs_status (*row)(esc_verifier *in, sqlite3_stmt *statement))
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = ESCQRS_OK;
    int code = sqlite3_prepare_v2(in->db, query, -1, &statement, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(statement);
        if (code == SQLITE_ROW && (status = row(in, statement)) != ESCQRS_OK) {
            break;
        }
    }
    if (status == ESCQRS_OK && code != SQLITE_DONE) {
        status = esc_verifier_refused(in, part, (esc_verified_place){0}, code);
    }
    sqlite3_finalize(statement);
    return status;
}

escqrs_status esc_verifier_number(esc_verifier *in, const char *part, const char *query,
                                  int64_t missing, int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(in->db, query, -1, &statement, NULL);
    *number = missing;
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *number = sqlite3_column_int64(statement, 0);
    }
    escqrs_status status = code == SQLITE_ROW || code == SQLITE_DONE
                               ? ESCQRS_OK
                               : esc_verifier_refused(in, part, (esc_verified_place){0}, code);
    sqlite3_finalize(statement);
    return status;
}

escqrs_slice esc_verifier_column(sqlite3_stmt *statement, int index)
{
    const void *bytes = sqlite3_column_blob(statement, index);
    return (escqrs_slice){bytes, (size_t)sqlite3_column_bytes(statement, index)};
}

void *esc_verifier_find(const esc_vector *vector, int64_t id)
{
    size_t size = vector->item_size, low = 0, high = vector->count;
    const char *items = vector->items;
    if (id >= 1 && (uint64_t)id <= high &&
        *(const int64_t *)(items + size * (size_t)(id - 1)) == id) {
        return (void *)(items + size * (size_t)(id - 1));
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int64_t found = *(const int64_t *)(items + size * middle);
        if (found == id) {
            return (void *)(items + size * middle);
        }
        if (found < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* ---- pages, streams, types -------------------------------------------------------------------- */

static escqrs_status page_row(esc_verifier *in, sqlite3_stmt *statement)
{
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    if (text != NULL && strcmp(text, "ok") == 0) {
        return ESCQRS_OK;
    }
    return esc_verifier_report(in, "file", (esc_verified_place){0}, "%s", text == NULL ? "" : text);
}

static escqrs_status stream_row(esc_verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = esc_verifier_column(statement, 1);
    esc_checked_stream stream = {.id = sqlite3_column_int64(statement, 0),
                                 .name_hash = esc_hash(name, 0)};
    if (esc_vector_push(&in->streams, &stream) != ESCQRS_OK) {
        return esc_verifier_no_memory(in);
    }
    in->counts->streams++;
    if (stream.id >= 1 && name.size >= 1 && name.size <= ESCQRS_STREAM_NAME_MAX &&
        memchr(name.data, 0, name.size) == NULL && esc_utf8_valid(name)) {
        return ESCQRS_OK;
    }
    return esc_verifier_report(in, "stream", (esc_verified_place){0},
                               "stream number %" PRId64 " has no valid name", stream.id);
}

static escqrs_status type_row(esc_verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = esc_verifier_column(statement, 1),
                 record = esc_verifier_column(statement, 2);
    esc_checked_type type = {.id = sqlite3_column_int64(statement, 0), .hash = esc_hash(name, 0)};
    escqrs_error error = {0};
    if (in->sqlite->chained &&
        esc_chain_type(&in->chain, name, record, type.digest, in->error) != ESCQRS_OK) {
        return ESCQRS_NO_MEMORY;
    }
    escqrs_status status =
        record.size > 0 ? escqrs_schema_load(record, &type.schema, &error) : ESCQRS_OK;
    if (status == ESCQRS_NO_MEMORY || esc_vector_push(&in->types, &type) != ESCQRS_OK) {
        escqrs_schema_destroy(type.schema);
        return esc_verifier_no_memory(in);
    }
    in->counts->types++;
    if (name.size == 0 || !esc_utf8_valid(name)) {
        return esc_verifier_report(in, "type", (esc_verified_place){0},
                                   "type number %" PRId64 " has no valid name", type.id);
    }
    return status == ESCQRS_OK
               ? ESCQRS_OK
               : esc_verifier_report(in, "type", (esc_verified_place){0},
                                     "the schema of type %.*s does not read: %s", (int)name.size,
                                     (const char *)name.data, error.message);
}

escqrs_status esc_verifier_check_message(esc_verifier *in, const char *part,
                                         esc_verified_place where, const esc_checked_type *type,
                                         escqrs_slice data)
{
    escqrs_error error = {0};
    escqrs_limits limits = {.bytes_max = data.size + 1};
    if (type->schema == NULL ||
        escqrs_message_check(type->schema, data, &limits, &error) == ESCQRS_OK) {
        return ESCQRS_OK;
    }
    return esc_verifier_report(in, part, where, "its data is no %s: %s",
                               escqrs_schema_name(type->schema), error.message);
}

/* ---- what was deleted ------------------------------------------------------------------------- */

static escqrs_status gap_row(esc_verifier *in, sqlite3_stmt *statement)
{
    esc_gap gap = {sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
                   sqlite3_column_int64(statement, 2)};
    const esc_gap *before =
        in->gaps.count == 0 ? NULL : &ESC_VECTOR_AT(&in->gaps, esc_gap, in->gaps.count - 1);
    esc_verified_place where = {0, 0, gap.first};
    if (esc_gap_checksum(&gap, in->sqlite->salt) != sqlite3_column_int64(statement, 3)) {
        return esc_verifier_report(in, "deleted", where, "its row does not match its checksum");
    }
    if (gap.first < 1 || gap.last < gap.first || gap.last > ESC_POSITION_MAX ||
        (before != NULL && gap.first <= before->last + 1)) {
        return esc_verifier_report(in, "deleted", where, "its row does not follow the one before");
    }
    in->missing += gap.last - gap.first + 1;
    in->head = gap.last > in->head ? gap.last : in->head;
    return esc_vector_push(&in->gaps, &gap) == ESCQRS_OK ? ESCQRS_OK : esc_verifier_no_memory(in);
}

static escqrs_status erased_row(esc_verifier *in, sqlite3_stmt *statement)
{
    int64_t id = sqlite3_column_int64(statement, 0), upto = sqlite3_column_int64(statement, 1);
    int64_t closed = sqlite3_column_int64(statement, 2);
    esc_checked_stream *stream = esc_verifier_find(&in->streams, id);
    if (stream == NULL) {
        return esc_verifier_report(in, "deleted", (esc_verified_place){0},
                                   "it has a row of stream number %" PRId64 ", which is not known",
                                   id);
    }
    if (upto < 1 || upto > in->head ||
        esc_erased_checksum(id, upto, closed, sqlite3_column_int64(statement, 3),
                            in->sqlite->salt) != sqlite3_column_int64(statement, 4)) {
        return esc_verifier_report(in, "deleted", (esc_verified_place){id, 0, 0},
                                   "its row does not match its checksum");
    }
    stream->version = stream->erased = upto;
    stream->closed = closed != 0;
    in->counts->streams -= stream->closed; /* as statistics count them, and streams() */
    in->erased += upto;
    return ESCQRS_OK;
}

static escqrs_status read_deletions(esc_verifier *in, const char *query,
                                    escqrs_status (*row)(esc_verifier *in, sqlite3_stmt *statement))
{
    int64_t deletions;
    escqrs_status status = esc_verifier_number(
        in, "file", "SELECT value FROM escqrs_store WHERE name = 'deletions'", 0, &deletions);
    return status == ESCQRS_OK && deletions > 0 ? esc_verifier_each(in, "deleted", query, row)
                                                : status;
}

static escqrs_status read_gaps(esc_verifier *in)
{
    return read_deletions(in, "SELECT first, last, time, checksum FROM escqrs_gap ORDER BY first",
                          gap_row);
}

static escqrs_status read_erased(esc_verifier *in)
{
    escqrs_status status = read_deletions(
        in, "SELECT stream, upto, closed, time, checksum FROM escqrs_deleted", erased_row);
    return status != ESCQRS_OK || in->erased == in->missing
               ? status
               : esc_verifier_report(in, "deleted", (esc_verified_place){0},
                                     "streams have lost %" PRId64 " events, and %" PRId64
                                     " positions are said to be deleted",
                                     in->erased, in->missing);
}

/* The position behind the gaps that begin there. */
int64_t esc_verifier_behind_gaps(esc_verifier *in, int64_t position)
{
    while (in->next_gap < in->gaps.count &&
           ESC_VECTOR_AT(&in->gaps, esc_gap, in->next_gap).first <= position) {
        const esc_gap *gap = &ESC_VECTOR_AT(&in->gaps, esc_gap, in->next_gap++);
        position = gap->last >= position ? gap->last + 1 : position;
    }
    return position;
}

/* ---- the index of streams --------------------------------------------------------------------- */

uint64_t esc_verifier_index_hash(int64_t version, int64_t position)
{
    int64_t pair[2] = {version, position};
    return esc_hash((escqrs_slice){pair, sizeof pair}, 0);
}

static escqrs_status index_row(esc_verifier *in, sqlite3_stmt *statement)
{
    int64_t id = sqlite3_column_int64(statement, 0), first = sqlite3_column_int64(statement, 1);
    int64_t count = sqlite3_column_int64(statement, 2);
    escqrs_slice rest = esc_verifier_column(statement, 3);
    esc_checked_stream *stream = esc_verifier_find(&in->streams, id);
    esc_verified_place where = {id, first, 0};
    if (stream == NULL) {
        return esc_verifier_report(in, "index", (esc_verified_place){0},
                                   "it has a row of stream number %" PRId64 ", which is not known",
                                   id);
    }
    if ((first != stream->indexed + 1 && (stream->indexed != 0 || first > stream->erased + 1)) ||
        (first - 1) % ESC_INDEX_ROW_POSITIONS != 0 || count < 1 ||
        count > ESC_INDEX_ROW_POSITIONS) {
        return esc_verifier_report(in, "index", where, "its row does not follow the one before");
    }
    uint64_t position = 0, distance;
    for (int64_t i = 0; i < count; i++) {
        size_t used = esc_varint_decode(rest.data, rest.size, &distance);
        if (used == 0 || distance == 0 || distance > (uint64_t)in->head - position) {
            return esc_verifier_report(in, "index", where, "its row does not read");
        }
        position += distance;
        rest = (escqrs_slice){(const uint8_t *)rest.data + used, rest.size - used};
        if (first + i > stream->erased) {
            stream->sum += esc_verifier_index_hash(first + i, (int64_t)position);
        }
    }
    stream->indexed = first + count - 1;
    return rest.size == 0 ? ESCQRS_OK
                          : esc_verifier_report(in, "index", where, "its row does not read");
}

/* A stream whose index differs from the journal: say where. */
static escqrs_status compare_index(esc_verifier *in, const esc_checked_stream *stream)
{
    sqlite3_stmt *statement = NULL;
    int64_t upto = stream->indexed > stream->version ? stream->indexed : stream->version;
    escqrs_status status = ESCQRS_OK;
    esc_connection connection = {.db = in->db};
    int code = sqlite3_prepare_v2(in->db,
                                  "SELECT 1 FROM escqrs_journal WHERE position = ?1 AND stream = ?2"
                                  " AND version = ?3",
                                  -1, &statement, NULL);
    bool found = false;
    for (int64_t version = stream->erased + 1; code == SQLITE_OK && version <= upto && !found;
         version++) {
        int64_t position = 0;
        escqrs_status looked =
            esc_sqlite_index_look(in->sqlite, &connection, stream->id, version, 1, &position, NULL);
        if (looked == ESCQRS_OK) {
            sqlite3_bind_int64(statement, 1, position);
            sqlite3_bind_int64(statement, 2, stream->id);
            sqlite3_bind_int64(statement, 3, version);
            code = sqlite3_step(statement);
            found = code == SQLITE_DONE;
            code = code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
            sqlite3_reset(statement);
        }
        if (found || looked != ESCQRS_OK) {
            found = true;
            status = esc_verifier_report(in, "index",
                                         (esc_verified_place){stream->id, version, position},
                                         "it does not lead to the event");
        }
    }
    if (!found && code == SQLITE_OK) {
        status = esc_verifier_report(in, "index", (esc_verified_place){stream->id, 0, 0},
                                     "it differs from the journal");
    } else if (code != SQLITE_OK) {
        status = esc_verifier_refused(in, "index", (esc_verified_place){stream->id, 0, 0}, code);
    }
    for (size_t i = 0; i < ESC_SQL_COUNT; i++) {
        sqlite3_finalize(connection.statements[i]);
    }
    sqlite3_finalize(statement);
    return status;
}

static escqrs_status check_streams(esc_verifier *in)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < in->streams.count && status == ESCQRS_OK && !in->partial; i++) {
        const esc_checked_stream *stream = &ESC_VECTOR_AT(&in->streams, esc_checked_stream, i);
        if (stream->version == 0) {
            status = esc_verifier_report(in, "stream", (esc_verified_place){stream->id, 0, 0},
                                         "it has no events");
        } else if (stream->sum != 0 || stream->indexed > stream->version) {
            status = compare_index(in, stream);
        }
    }
    return status;
}

/* ---- the whole -------------------------------------------------------------------------------- */

static escqrs_status stored_row(esc_verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = esc_verifier_column(statement, 0);
    return esc_verifier_report(in, "file", (esc_verified_place){0},
                               "escqrs_store lacks the number \"%.*s\"", (int)name.size,
                               (const char *)name.data);
}

/* Without them it does not open, or is read as what it is not. */
static escqrs_status check_stored(esc_verifier *in)
{
    return esc_verifier_each(
        in, "file",
        "SELECT column1 FROM (VALUES ('created'), ('indexed'), ('salt'), ('chain')) WHERE"
        " (column1 <> 'chain' OR EXISTS(SELECT 1 FROM sqlite_schema WHERE name = 'escqrs_chain'))"
        " AND NOT EXISTS(SELECT 1 FROM escqrs_store WHERE name = column1 AND"
        " typeof(value) = 'integer')",
        stored_row);
}

static escqrs_status check_numbers(esc_verifier *in)
{
    int64_t salt = 0;
    escqrs_status status =
        esc_verifier_number(in, "file", "SELECT max(position) FROM escqrs_journal", 0,
                            &in->head); /* begins the transaction */
    if (status == ESCQRS_OK) {
        status = read_gaps(in);
    }
    if (status == ESCQRS_OK) {
        status =
            esc_verifier_number(in, "file", "SELECT value FROM escqrs_store WHERE name = 'indexed'",
                                -1, &in->watermark);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_number(
            in, "file", "SELECT value FROM escqrs_store WHERE name = 'salt'", 0, &salt);
    }
    if (status == ESCQRS_OK && (uint64_t)salt != in->sqlite->salt) {
        status = esc_verifier_report(in, "file", (esc_verified_place){0},
                                     "its salt was changed while it was open");
    }
    if (status == ESCQRS_OK && (in->watermark < 0 || in->watermark > in->head)) {
        status = esc_verifier_report(in, "index", (esc_verified_place){0, 0, in->watermark},
                                     "it goes on to position %" PRId64
                                     ", and the store ends at %" PRId64,
                                     in->watermark, in->head);
    }
    if (status == ESCQRS_OK) {
        status = check_stored(in);
    }
    return status == ESCQRS_OK ? esc_verifier_progress(in, 0) : status;
}

typedef struct step {
    const char *part, *query;
    escqrs_status (*row)(esc_verifier *in, sqlite3_stmt *statement);
} step;

static escqrs_status check_tables(esc_verifier *in, const step *steps, size_t count)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
        status = esc_verifier_each(in, steps[i].part, steps[i].query, steps[i].row);
    }
    return status;
}

static escqrs_status check_all(esc_verifier *in)
{
    static const step before[] = {
        {"file", "PRAGMA integrity_check(100)", page_row},
        {"stream", "SELECT id, name FROM escqrs_stream ORDER BY id", stream_row},
        {"type", "SELECT id, name, record FROM escqrs_type ORDER BY id", type_row},
    };
    static const step index[] = {
        {"index",
         "SELECT stream, first_version, count, positions FROM escqrs_index"
         " ORDER BY stream, first_version",
         index_row},
    };
    static const step after[] = {
        {"snapshot", "SELECT stream, version, type, data, checksum FROM escqrs_snapshot",
         esc_verifier_snapshot_row},
        {"checkpoint", "SELECT name, position FROM escqrs_checkpoint", esc_verifier_checkpoint_row},
        {"key", "SELECT key, position, versions FROM escqrs_key", esc_verifier_key_row},
    };
    escqrs_status status = check_numbers(in);
    if (status == ESCQRS_OK) {
        status = check_tables(in, before, sizeof before / sizeof before[0]);
    }
    if (status == ESCQRS_OK) {
        status = read_erased(in);
    }
    if (status == ESCQRS_OK) {
        status = check_tables(in, index, 1);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_check_events(in);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_check_chain(in);
    }
    if (status == ESCQRS_OK) {
        status = check_streams(in);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_check_aids(in);
    }
    if (status == ESCQRS_OK) {
        status = check_tables(in, after, sizeof after / sizeof after[0]);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_check_read_models(in);
    }
    return status == ESCQRS_OK ? esc_verifier_progress(in, in->head) : status;
}

/* While SQLite is busy with its own pages. */
static int interrupted(void *context)
{
    esc_verifier *in = context;
    return esc_verifier_progress(in, in->last_position) != ESCQRS_OK;
}

escqrs_status esc_sqlite_verify(escqrs_provider *self, const escqrs_observer *observer,
                                escqrs_verification *counts, escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    esc_connection *connection;
    esc_verifier in = {.sqlite = sqlite, .observer = observer, .counts = counts, .error = error};
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    in.db = connection->db;
    esc_vector_init(&in.streams, sizeof(esc_checked_stream));
    esc_vector_init(&in.types, sizeof(esc_checked_type));
    esc_vector_init(&in.gaps, sizeof(esc_gap));
    esc_arena_init(&in.arena, 4096);
    esc_chain_init(&in.chain);
    status = esc_connection_run(sqlite, connection, ESC_SQL_BEGIN_READ, error);
    if (status == ESCQRS_OK) {
        sqlite3_progress_handler(in.db, PROGRESS_OPS, interrupted, &in);
        status = check_all(&in);
        sqlite3_progress_handler(in.db, 0, NULL, NULL);
    }
    sqlite3_finalize(in.look_tag);
    sqlite3_finalize(in.look_id);
    sqlite3_finalize(in.look_link);
    sqlite3_finalize(in.look_name);
    (void)!esc_connection_run(sqlite, connection, ESC_SQL_COMMIT, NULL);
    esc_sqlite_give_reader(sqlite, connection);
    for (size_t i = 0; i < in.types.count; i++) {
        escqrs_schema_destroy(ESC_VECTOR_AT(&in.types, esc_checked_type, i).schema);
    }
    esc_vector_fini(&in.streams);
    esc_vector_fini(&in.types);
    esc_vector_fini(&in.gaps);
    esc_arena_fini(&in.arena);
    esc_chain_fini(&in.chain);
    return status;
}
