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
#include "store/sqlite_provider.h"

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
#include "store/event_header.h"

#define PROGRESS_EVENTS 8192  /* read between two calls of `progress` */
#define PROGRESS_OPS 10000000 /* of SQLite, while it looks at its own pages */
#define TEXT_MAX 512

typedef struct checked_stream {
    int64_t id;
    int64_t version; /* last one seen */
    int64_t erased;  /* versions up to it were deleted */
    bool closed;
    int64_t indexed; /* last version in the index */
    uint64_t name_hash;
    uint64_t sum; /* of the index, less that of the journal */
} checked_stream;

typedef struct checked_type {
    int64_t id;
    uint64_t hash;                          /* of the name */
    escqrs_schema *schema;                  /* NULL: foreign data */
    uint8_t digest[ESCQRS_CHAIN_LINK_SIZE]; /* where there is a chain */
} checked_type;

typedef struct verifier {
    esc_sqlite *sqlite;
    sqlite3 *db;
    const escqrs_observer *observer;
    escqrs_verification *counts;
    escqrs_error *error;
    esc_vector streams; /* checked_stream, by id */
    esc_vector types;   /* checked_type, by id */
    esc_vector gaps;    /* esc_gap, in order */
    size_t next_gap;    /* the first that is not passed */
    int64_t erased;     /* events, as the streams say; and the gaps: */
    int64_t missing;
    esc_arena arena; /* lists of one header */
    sqlite3_stmt *look_tag, *look_id;
    sqlite3_stmt *look_link, *look_name; /* NULL: no hash chain is kept */
    esc_chain chain;
    int64_t link_position; /* of chain.link */
    int64_t head, watermark;
    int64_t last_position;
    int64_t tags, ids; /* borne by events, found in the tables */
    int64_t last_time_us, last_ordinal;
    bool partial; /* the journal could not be read to its end */
    bool stopped; /* by the observer */
} verifier;

/* ---- problems --------------------------------------------------------------------------------- */

typedef struct place { /* where: zeros where it does not apply */
    int64_t stream, version, position;
} place;

static escqrs_status stop(verifier *in)
{
    in->stopped = true;
    return ESCQRS_DONE;
}

/* The name of a stream into `buffer`; empty where it cannot be read. */
static escqrs_slice name_of(verifier *in, int64_t id, char buffer[ESCQRS_STREAM_NAME_MAX])
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

static escqrs_status report(verifier *in, const char *part, place where, const char *format, ...)
    ESCQRS_PRINTF(4, 5) ESCQRS_MUST_USE;

/* Tell the observer; DONE when it wants no more. */
static escqrs_status report(verifier *in, const char *part, place where, const char *format, ...)
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

/* What SQLite could not read: a problem where the file is damaged, or an error. */
static escqrs_status refused(verifier *in, const char *part, place where, int code)
{
    escqrs_error error = {0};
    if (in->stopped) {
        return ESCQRS_DONE;
    }
    escqrs_status status = esc_sqlite_error(in->sqlite, in->db, code, &error, "cannot read");
    if (status == ESCQRS_CORRUPT || (code & 0xff) == SQLITE_ERROR) {
        return report(in, part, where, "%s", sqlite3_errmsg(in->db));
    }
    if (in->error != NULL) {
        *in->error = error;
    }
    return status;
}

static escqrs_status no_memory(verifier *in)
{
    return escqrs_error_set(in->error, ESCQRS_NO_MEMORY, "no memory to verify a store");
}

static escqrs_status progress(verifier *in, int64_t done)
{
    return in->observer->progress == NULL ||
                   in->observer->progress(in->observer->context, done, in->head)
               ? ESCQRS_OK
               : stop(in);
}

/* ---- rows ------------------------------------------------------------------------------------- */

/* Call `row` for each row of the query. */
static escqrs_status each(verifier *in, const char *part, const char *query,
                          escqrs_status (*row)(verifier *in, sqlite3_stmt *statement))
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
        status = refused(in, part, (place){0}, code);
    }
    sqlite3_finalize(statement);
    return status;
}

/* The first number of the query's first row; `missing` where there is none. */
static escqrs_status one_number(verifier *in, const char *part, const char *query, int64_t missing,
                                int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(in->db, query, -1, &statement, NULL);
    *number = missing;
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *number = sqlite3_column_int64(statement, 0);
    }
    escqrs_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? ESCQRS_OK : refused(in, part, (place){0}, code);
    sqlite3_finalize(statement);
    return status;
}

static escqrs_slice column(sqlite3_stmt *statement, int index)
{
    const void *bytes = sqlite3_column_blob(statement, index);
    return (escqrs_slice){bytes, (size_t)sqlite3_column_bytes(statement, index)};
}

/* In a vector of structs that begin with their id, in its order. Most often ids have no gaps. */
static void *find(const esc_vector *vector, int64_t id)
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

static escqrs_status page_row(verifier *in, sqlite3_stmt *statement)
{
    const char *text = (const char *)sqlite3_column_text(statement, 0);
    if (text != NULL && strcmp(text, "ok") == 0) {
        return ESCQRS_OK;
    }
    return report(in, "file", (place){0}, "%s", text == NULL ? "" : text);
}

static escqrs_status stream_row(verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = column(statement, 1);
    checked_stream stream = {.id = sqlite3_column_int64(statement, 0),
                             .name_hash = esc_hash(name, 0)};
    if (esc_vector_push(&in->streams, &stream) != ESCQRS_OK) {
        return no_memory(in);
    }
    in->counts->streams++;
    if (stream.id >= 1 && name.size >= 1 && name.size <= ESCQRS_STREAM_NAME_MAX &&
        memchr(name.data, 0, name.size) == NULL && esc_utf8_valid(name)) {
        return ESCQRS_OK;
    }
    return report(in, "stream", (place){0}, "stream number %" PRId64 " has no valid name",
                  stream.id);
}

static escqrs_status type_row(verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = column(statement, 1), record = column(statement, 2);
    checked_type type = {.id = sqlite3_column_int64(statement, 0), .hash = esc_hash(name, 0)};
    escqrs_error error = {0};
    if (in->sqlite->chained &&
        esc_chain_type(&in->chain, name, record, type.digest, in->error) != ESCQRS_OK) {
        return ESCQRS_NO_MEMORY;
    }
    escqrs_status status =
        record.size > 0 ? escqrs_schema_load(record, &type.schema, &error) : ESCQRS_OK;
    if (status == ESCQRS_NO_MEMORY || esc_vector_push(&in->types, &type) != ESCQRS_OK) {
        escqrs_schema_destroy(type.schema);
        return no_memory(in);
    }
    in->counts->types++;
    if (name.size == 0 || !esc_utf8_valid(name)) {
        return report(in, "type", (place){0}, "type number %" PRId64 " has no valid name", type.id);
    }
    return status == ESCQRS_OK
               ? ESCQRS_OK
               : report(in, "type", (place){0}, "the schema of type %.*s does not read: %s",
                        (int)name.size, (const char *)name.data, error.message);
}

/* Can it be decoded as what it was stored as? */
static escqrs_status check_message(verifier *in, const char *part, place where,
                                   const checked_type *type, escqrs_slice data)
{
    escqrs_error error = {0};
    escqrs_limits limits = {.bytes_max = data.size + 1};
    if (type->schema == NULL ||
        escqrs_message_check(type->schema, data, &limits, &error) == ESCQRS_OK) {
        return ESCQRS_OK;
    }
    return report(in, part, where, "its data is no %s: %s", escqrs_schema_name(type->schema),
                  error.message);
}

/* ---- what was deleted ------------------------------------------------------------------------- */

static escqrs_status gap_row(verifier *in, sqlite3_stmt *statement)
{
    esc_gap gap = {sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
                   sqlite3_column_int64(statement, 2)};
    const esc_gap *before =
        in->gaps.count == 0 ? NULL : &ESC_VECTOR_AT(&in->gaps, esc_gap, in->gaps.count - 1);
    place where = {0, 0, gap.first};
    if (esc_gap_checksum(&gap, in->sqlite->salt) != sqlite3_column_int64(statement, 3)) {
        return report(in, "deleted", where, "its row does not match its checksum");
    }
    if (gap.first < 1 || gap.last < gap.first || gap.last > ESC_POSITION_MAX ||
        (before != NULL && gap.first <= before->last + 1)) {
        return report(in, "deleted", where, "its row does not follow the one before");
    }
    in->missing += gap.last - gap.first + 1;
    in->head = gap.last > in->head ? gap.last : in->head;
    return esc_vector_push(&in->gaps, &gap) == ESCQRS_OK ? ESCQRS_OK : no_memory(in);
}

static escqrs_status erased_row(verifier *in, sqlite3_stmt *statement)
{
    int64_t id = sqlite3_column_int64(statement, 0), upto = sqlite3_column_int64(statement, 1);
    int64_t closed = sqlite3_column_int64(statement, 2);
    checked_stream *stream = find(&in->streams, id);
    if (stream == NULL) {
        return report(in, "deleted", (place){0},
                      "it has a row of stream number %" PRId64 ", which is not known", id);
    }
    if (upto < 1 || upto > in->head ||
        esc_erased_checksum(id, upto, closed, sqlite3_column_int64(statement, 3),
                            in->sqlite->salt) != sqlite3_column_int64(statement, 4)) {
        return report(in, "deleted", (place){id, 0, 0}, "its row does not match its checksum");
    }
    stream->version = stream->erased = upto;
    stream->closed = closed != 0;
    in->erased += upto;
    return ESCQRS_OK;
}

static escqrs_status read_deletions(verifier *in, const char *query,
                                    escqrs_status (*row)(verifier *in, sqlite3_stmt *statement))
{
    int64_t deletions;
    escqrs_status status = one_number(
        in, "file", "SELECT value FROM escqrs_store WHERE name = 'deletions'", 0, &deletions);
    return status == ESCQRS_OK && deletions > 0 ? each(in, "deleted", query, row) : status;
}

static escqrs_status read_gaps(verifier *in)
{
    return read_deletions(in, "SELECT first, last, time, checksum FROM escqrs_gap ORDER BY first",
                          gap_row);
}

static escqrs_status read_erased(verifier *in)
{
    escqrs_status status = read_deletions(
        in, "SELECT stream, upto, closed, time, checksum FROM escqrs_deleted", erased_row);
    return status != ESCQRS_OK || in->erased == in->missing
               ? status
               : report(in, "deleted", (place){0},
                        "streams have lost %" PRId64 " events, and %" PRId64
                        " positions are said to be deleted",
                        in->erased, in->missing);
}

/* The position behind the gaps that begin there. */
static int64_t behind_gaps(verifier *in, int64_t position)
{
    while (in->next_gap < in->gaps.count &&
           ESC_VECTOR_AT(&in->gaps, esc_gap, in->next_gap).first <= position) {
        const esc_gap *gap = &ESC_VECTOR_AT(&in->gaps, esc_gap, in->next_gap++);
        position = gap->last >= position ? gap->last + 1 : position;
    }
    return position;
}

/* ---- the index of streams --------------------------------------------------------------------- */

static uint64_t index_hash(int64_t version, int64_t position)
{
    int64_t pair[2] = {version, position};
    return esc_hash((escqrs_slice){pair, sizeof pair}, 0);
}

static escqrs_status index_row(verifier *in, sqlite3_stmt *statement)
{
    int64_t id = sqlite3_column_int64(statement, 0), first = sqlite3_column_int64(statement, 1);
    int64_t count = sqlite3_column_int64(statement, 2);
    escqrs_slice rest = column(statement, 3);
    checked_stream *stream = find(&in->streams, id);
    place where = {id, first, 0};
    if (stream == NULL) {
        return report(in, "index", (place){0},
                      "it has a row of stream number %" PRId64 ", which is not known", id);
    }
    if ((first != stream->indexed + 1 && (stream->indexed != 0 || first > stream->erased + 1)) ||
        (first - 1) % ESC_INDEX_ROW_POSITIONS != 0 || count < 1 ||
        count > ESC_INDEX_ROW_POSITIONS) {
        return report(in, "index", where, "its row does not follow the one before");
    }
    uint64_t position = 0, distance;
    for (int64_t i = 0; i < count; i++) {
        size_t used = esc_varint_decode(rest.data, rest.size, &distance);
        if (used == 0 || distance == 0 || distance > (uint64_t)in->head - position) {
            return report(in, "index", where, "its row does not read");
        }
        position += distance;
        rest = (escqrs_slice){(const uint8_t *)rest.data + used, rest.size - used};
        if (first + i > stream->erased) {
            stream->sum += index_hash(first + i, (int64_t)position);
        }
    }
    stream->indexed = first + count - 1;
    return rest.size == 0 ? ESCQRS_OK : report(in, "index", where, "its row does not read");
}

/* A stream whose index differs from the journal: say where. */
static escqrs_status compare_index(verifier *in, const checked_stream *stream)
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
            status = report(in, "index", (place){stream->id, version, position},
                            "it does not lead to the event");
        }
    }
    if (!found && code == SQLITE_OK) {
        status = report(in, "index", (place){stream->id, 0, 0}, "it differs from the journal");
    } else if (code != SQLITE_OK) {
        status = refused(in, "index", (place){stream->id, 0, 0}, code);
    }
    for (size_t i = 0; i < ESC_SQL_COUNT; i++) {
        sqlite3_finalize(connection.statements[i]);
    }
    sqlite3_finalize(statement);
    return status;
}

static escqrs_status check_streams(verifier *in)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < in->streams.count && status == ESCQRS_OK && !in->partial; i++) {
        const checked_stream *stream = &ESC_VECTOR_AT(&in->streams, checked_stream, i);
        if (stream->version == 0) {
            status = report(in, "stream", (place){stream->id, 0, 0}, "it has no events");
        } else if (stream->sum != 0 || stream->indexed > stream->version) {
            status = compare_index(in, stream);
        }
    }
    return status;
}

/* ---- events ----------------------------------------------------------------------------------- */

static escqrs_status look(verifier *in, sqlite3_stmt *statement, place where, const char *part,
                          const char *what, int64_t *count)
{
    sqlite3_bind_int64(statement, 2, where.position);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (code == SQLITE_ROW) {
        (*count)++;
        return ESCQRS_OK;
    }
    return code == SQLITE_DONE ? report(in, part, where, "%s is not in the table", what)
                               : refused(in, part, where, code);
}

static bool is_repeated(const escqrs_recorded *recorded, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (escqrs_slice_equal(recorded->tags[i], recorded->tags[index])) {
            return true;
        }
    }
    return false;
}

/* Was the id given, or derived from the position? */
static bool has_own_id(const verifier *in, const escqrs_recorded *recorded)
{
    escqrs_uuid derived =
        esc_event_id(recorded->time_us, recorded->position, (uint32_t)in->sqlite->salt);
    return recorded->id_text.size > 0 || memcmp(&recorded->id, &derived, sizeof derived) != 0;
}

static escqrs_status check_header(verifier *in, place where, escqrs_slice header, int64_t ordinal,
                                  escqrs_recorded *recorded)
{
    esc_arena_reset(&in->arena);
    escqrs_status status =
        esc_event_header_decode(header, ordinal, (uint32_t)in->sqlite->salt, &in->arena, recorded);
    if (status == ESCQRS_NO_MEMORY) {
        return no_memory(in);
    }
    if (status != ESCQRS_OK) {
        return report(in, "event", where, "its header does not read");
    }
    if (has_own_id(in, recorded)) {
        if (recorded->id_text.size > 0) {
            sqlite3_bind_text(in->look_id, 1, recorded->id_text.data, (int)recorded->id_text.size,
                              SQLITE_STATIC);
        } else {
            sqlite3_bind_blob(in->look_id, 1, recorded->id.bytes, sizeof recorded->id.bytes,
                              SQLITE_STATIC);
        }
        status = look(in, in->look_id, where, "id", "its id", &in->ids);
    }
    for (size_t i = 0; i < recorded->tag_count && status == ESCQRS_OK; i++) {
        if (!is_repeated(recorded, i)) {
            escqrs_slice tag = recorded->tags[i];
            sqlite3_bind_text(in->look_tag, 1, tag.size > 0 ? tag.data : "", (int)tag.size,
                              SQLITE_STATIC);
            status = look(in, in->look_tag, where, "tag", "a tag of it", &in->tags);
        }
    }
    return status;
}

/* Does it follow the one before, in the store, in its commit and in its stream? */
static escqrs_status check_order(verifier *in, const esc_row *row, checked_stream *stream)
{
    place where = {row->stream, row->version, row->position};
    int64_t before = stream == NULL ? 0 : stream->version;
    int64_t expected = behind_gaps(in, in->last_position + 1);
    escqrs_status status = ESCQRS_OK;
    bool follows = row->position == in->last_position + 1;
    if (row->position < expected || (stream != NULL && stream->closed)) {
        status = report(in, "deleted", where, "it is said to be deleted, and is there");
    } else if (row->position != expected) {
        status =
            report(in, "event", (place){0, 0, expected},
                   "positions %" PRId64 " to %" PRId64 " are missing", expected, row->position - 1);
    }
    if (status == ESCQRS_OK && stream != NULL && row->version != before + 1) {
        status = report(in, "event", where, "it follows version %" PRId64, before);
    }
    if (status == ESCQRS_OK && row->time_us < in->last_time_us) {
        status = report(in, "event", where, "it is older than the event before it");
    }
    if (status == ESCQRS_OK && row->ordinal != 0 && follows &&
        row->ordinal != in->last_ordinal + 1) {
        status = report(in, "event", where, "it does not continue its commit");
    }
    if (stream != NULL) {
        stream->version = row->version;
    }
    in->last_time_us = row->time_us;
    in->last_ordinal = row->ordinal;
    in->last_position = row->position;
    in->counts->events++;
    return status;
}

static escqrs_status check_index(verifier *in, const esc_row *row, checked_stream *stream)
{
    if (row->version <= stream->indexed) {
        stream->sum -= index_hash(row->version, row->position);
        return ESCQRS_OK;
    }
    return row->position > in->watermark
               ? ESCQRS_OK
               : report(in, "index", (place){row->stream, row->version, row->position},
                        "it lacks the event");
}

/* The link that stands in the file at that position. OK and *found false where none does. */
static escqrs_status stored_link(verifier *in, place where, int64_t position,
                                 uint8_t link[ESCQRS_CHAIN_LINK_SIZE], bool *found)
{
    sqlite3_bind_int64(in->look_link, 1, position);
    int code = sqlite3_step(in->look_link);
    const void *bytes = code == SQLITE_ROW ? sqlite3_column_blob(in->look_link, 0) : NULL;
    *found = bytes != NULL && sqlite3_column_bytes(in->look_link, 0) == ESCQRS_CHAIN_LINK_SIZE;
    if (*found) {
        memcpy(link, bytes, ESCQRS_CHAIN_LINK_SIZE);
    }
    sqlite3_reset(in->look_link);
    return code == SQLITE_ROW || code == SQLITE_DONE ? ESCQRS_OK
                                                     : refused(in, "chain", where, code);
}

/* The link of the event, made from the one that stands before it. */
static escqrs_status make_link(verifier *in, place where, const checked_type *type,
                               escqrs_recorded *recorded)
{
    bool found = true;
    if (in->link_position != where.position - 1) { /* what was between them could not be read */
        escqrs_status status = stored_link(in, where, where.position - 1, in->chain.link, &found);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    sqlite3_bind_int64(in->look_name, 1, where.stream);
    if (sqlite3_step(in->look_name) == SQLITE_ROW) {
        recorded->stream = column(in->look_name, 0);
    }
    escqrs_status status = esc_chain_add(&in->chain, recorded, type->digest, in->error);
    sqlite3_reset(in->look_name);
    return status;
}

/* Is its link the one that stands in the file? */
static escqrs_status check_link(verifier *in, place where, const checked_type *type,
                                escqrs_recorded *recorded)
{
    uint8_t stored[ESCQRS_CHAIN_LINK_SIZE];
    bool found;
    if (in->look_link == NULL) {
        return ESCQRS_OK;
    }
    escqrs_status status = make_link(in, where, type, recorded);
    if (status == ESCQRS_OK) {
        status = stored_link(in, where, where.position, stored, &found);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    in->link_position = where.position;
    if (!found) {
        return report(in, "chain", where, "its link is missing");
    }
    in->counts->links++;
    if (memcmp(stored, in->chain.link, sizeof stored) == 0) {
        return ESCQRS_OK;
    }
    memcpy(in->chain.link, stored, sizeof stored);
    return report(in, "chain", where,
                  "the chain is broken here: the event is not the one that was stored, or does not "
                  "follow the one before");
}

/* The same for an event whose row was found to be wrong. */
static escqrs_status check_wrong_link(verifier *in, const esc_row *row, const checked_type *type,
                                      escqrs_slice header, escqrs_recorded *recorded)
{
    esc_arena_reset(&in->arena);
    escqrs_status status = esc_event_header_decode(header, row->ordinal, (uint32_t)in->sqlite->salt,
                                                   &in->arena, recorded);
    return status == ESCQRS_NO_MEMORY ? no_memory(in)
           : status != ESCQRS_OK
               ? ESCQRS_OK
               : check_link(in, (place){row->stream, row->version, row->position}, type, recorded);
}

/* Links without events, at the end. */
static escqrs_status check_chain(verifier *in)
{
    int64_t last = 0;
    if (in->look_link == NULL || in->partial) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        one_number(in, "chain", "SELECT max(position) FROM escqrs_chain", 0, &last);
    return status != ESCQRS_OK || last <= in->last_position
               ? status
               : report(in, "chain", (place){0, 0, in->last_position + 1},
                        "events up to position %" PRId64 " were removed", last);
}

static escqrs_status event_row(verifier *in, sqlite3_stmt *statement)
{
    esc_row row = {
        .position = sqlite3_column_int64(statement, 0),
        .stream = sqlite3_column_int64(statement, 1),
        .version = sqlite3_column_int64(statement, 2),
        .type = sqlite3_column_int64(statement, 3),
        .time_us = sqlite3_column_int64(statement, 4),
        .ordinal = sqlite3_column_int64(statement, 5),
    };
    escqrs_slice header = column(statement, 6), data = column(statement, 7);
    place where = {row.stream, row.version, row.position};
    checked_stream *stream = find(&in->streams, row.stream);
    const checked_type *type = find(&in->types, row.type);
    escqrs_recorded recorded = {
        .position = row.position, .version = row.version, .time_us = row.time_us, .data = data};
    escqrs_status status = check_order(in, &row, stream);
    if (status == ESCQRS_OK && (stream == NULL || type == NULL)) {
        return report(in, "event", where, "it is of no known %s",
                      stream == NULL ? "stream" : "type");
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    row.name_hash = stream->name_hash;
    row.type_hash = type->hash;
    status = check_index(in, &row, stream);
    if (status == ESCQRS_OK && esc_row_checksum(&row, header, data, in->sqlite->salt) !=
                                   sqlite3_column_int64(statement, 8)) {
        status = report(in, "event", where, "it does not match its checksum");
        return status == ESCQRS_OK ? check_wrong_link(in, &row, type, header, &recorded) : status;
    }
    if (status == ESCQRS_OK) {
        status = check_header(in, where, header, row.ordinal, &recorded);
    }
    if (status == ESCQRS_OK) {
        status = check_message(in, "event", where, type, data);
    }
    if (status == ESCQRS_OK) {
        status = check_link(in, where, type, &recorded);
    }
    return status == ESCQRS_OK && row.position % PROGRESS_EVENTS == 0 ? progress(in, row.position)
                                                                      : status;
}

static escqrs_status check_events(verifier *in)
{
    sqlite3_prepare_v2(in->db, "SELECT 1 FROM escqrs_tag WHERE tag = ?1 AND position = ?2", -1,
                       &in->look_tag, NULL);
    sqlite3_prepare_v2(in->db, "SELECT 1 FROM escqrs_id WHERE id = ?1 AND position = ?2", -1,
                       &in->look_id, NULL);
    if (in->look_tag == NULL || in->look_id == NULL) {
        in->partial = true;
        return refused(in, "file", (place){0}, sqlite3_errcode(in->db));
    }
    if (in->sqlite->chained &&
        (sqlite3_prepare_v2(in->db, "SELECT hash FROM escqrs_chain WHERE position = ?1", -1,
                            &in->look_link, NULL) != SQLITE_OK ||
         sqlite3_prepare_v2(in->db, "SELECT name FROM escqrs_stream WHERE id = ?1", -1,
                            &in->look_name, NULL) != SQLITE_OK)) {
        sqlite3_finalize(in->look_link);
        in->look_link = NULL;
        escqrs_status status = report(in, "chain", (place){0}, "%s", sqlite3_errmsg(in->db));
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    int64_t before = in->counts->problems;
    escqrs_status status =
        each(in, "event",
             "SELECT position, stream, version, type, time, ordinal, header, data, checksum"
             " FROM escqrs_journal ORDER BY position",
             event_row);
    in->last_position = behind_gaps(in, in->last_position + 1) - 1;
    if (status == ESCQRS_OK && in->last_position < in->head) {
        in->partial = true;
        if (in->counts->problems == before) {
            status = report(in, "event", (place){0, 0, in->last_position + 1},
                            "events from here on cannot be read");
        }
    }
    return status;
}

/* ---- tags and ids ----------------------------------------------------------------------------- */

/* A row (key, position, and the event's time, ordinal, header): does the event bear it? */
static escqrs_status aid_row(verifier *in, sqlite3_stmt *statement, bool is_tag)
{
    escqrs_slice key = column(statement, 0), header = column(statement, 4);
    escqrs_recorded recorded = {.position = sqlite3_column_int64(statement, 1),
                                .time_us = sqlite3_column_int64(statement, 2)};
    bool fits = false;
    esc_arena_reset(&in->arena);
    if (sqlite3_column_type(statement, 2) != SQLITE_NULL &&
        esc_event_header_decode(header, sqlite3_column_int64(statement, 3),
                                (uint32_t)in->sqlite->salt, &in->arena, &recorded) == ESCQRS_OK) {
        if (!is_tag) {
            escqrs_slice id = recorded.id_text.size > 0
                                  ? recorded.id_text
                                  : (escqrs_slice){recorded.id.bytes, sizeof recorded.id.bytes};
            fits = escqrs_slice_equal(id, key);
        }
        for (size_t i = 0; is_tag && i < recorded.tag_count && !fits; i++) {
            fits = escqrs_slice_equal(recorded.tags[i], key);
        }
    }
    return fits ? ESCQRS_OK
                : report(in, is_tag ? "tag" : "id", (place){0, 0, recorded.position},
                         "the table has a row that no event bears");
}

static escqrs_status tag_row(verifier *in, sqlite3_stmt *statement)
{
    return aid_row(in, statement, true);
}

static escqrs_status id_row(verifier *in, sqlite3_stmt *statement)
{
    return aid_row(in, statement, false);
}

static escqrs_status check_aids(verifier *in)
{
    escqrs_verification *counts = in->counts;
    escqrs_status status =
        one_number(in, "tag", "SELECT count(*) FROM escqrs_tag", in->tags, &counts->tags);
    if (status == ESCQRS_OK) {
        status = one_number(in, "id", "SELECT count(*) FROM escqrs_id", in->ids, &counts->ids);
    }
    if (status == ESCQRS_OK && counts->tags > in->tags && !in->partial) {
        status = each(in, "tag",
                      "SELECT t.tag, t.position, j.time, j.ordinal, j.header FROM escqrs_tag AS t"
                      " LEFT JOIN escqrs_journal AS j ON j.position = t.position",
                      tag_row);
    }
    if (status == ESCQRS_OK && counts->ids > in->ids && !in->partial) {
        status = each(in, "id",
                      "SELECT i.id, i.position, j.time, j.ordinal, j.header FROM escqrs_id AS i"
                      " LEFT JOIN escqrs_journal AS j ON j.position = i.position",
                      id_row);
    }
    return status;
}

/* ---- snapshots, checkpoints, keys, read models ------------------------------------------------ */

static escqrs_status snapshot_row(verifier *in, sqlite3_stmt *statement)
{
    place where = {sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1), 0};
    const checked_stream *stream = find(&in->streams, where.stream);
    const checked_type *type = find(&in->types, sqlite3_column_int64(statement, 2));
    escqrs_slice data = column(statement, 3);
    in->counts->snapshots++;
    if (stream == NULL || type == NULL) {
        return report(in, "snapshot", where, "it is of no known %s",
                      stream == NULL ? "stream" : "type");
    }
    escqrs_type hashed = {.id = type->id, .hash = type->hash};
    if (esc_snapshot_checksum(where.stream, where.version, &hashed, data, in->sqlite->salt) !=
        sqlite3_column_int64(statement, 4)) {
        return report(in, "snapshot", where, "it does not match its checksum");
    }
    if (stream->closed) {
        return report(in, "snapshot", where, "its stream was deleted");
    }
    if (where.version < 1 || (where.version > stream->version && !in->partial)) {
        return report(in, "snapshot", where, "its stream has %" PRId64 " versions",
                      stream->version);
    }
    return check_message(in, "snapshot", where, type, data);
}

/* (name, position) */
static escqrs_status position_row(verifier *in, sqlite3_stmt *statement, const char *part)
{
    escqrs_slice name = column(statement, 0);
    int64_t position = sqlite3_column_int64(statement, 1);
    return position >= 0 && position <= in->head
               ? ESCQRS_OK
               : report(in, part, (place){0, 0, position},
                        "%.*s is at position %" PRId64 ", and the store ends at %" PRId64,
                        (int)(name.size < 128 ? name.size : 128), (const char *)name.data, position,
                        in->head);
}

static escqrs_status checkpoint_row(verifier *in, sqlite3_stmt *statement)
{
    in->counts->checkpoints++;
    return position_row(in, statement, "checkpoint");
}

static escqrs_status read_model_row(verifier *in, sqlite3_stmt *statement)
{
    in->counts->read_models++;
    return position_row(in, statement, "read model");
}

static escqrs_status key_row(verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice key = column(statement, 0), rest = column(statement, 2);
    uint64_t version;
    in->counts->keys++;
    while (rest.size > 0) {
        size_t used = esc_varint_decode(rest.data, rest.size, &version);
        if (used == 0 || version > (uint64_t)in->head) {
            return report(in, "key", (place){0, 0, sqlite3_column_int64(statement, 1)},
                          "the versions of key %.*s do not read",
                          (int)(key.size < 128 ? key.size : 128), (const char *)key.data);
        }
        rest = (escqrs_slice){(const uint8_t *)rest.data + used, rest.size - used};
    }
    return position_row(in, statement, "key");
}

static escqrs_status object_row(verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = column(statement, 0), model = column(statement, 1);
    return report(in, "read model", (place){0}, "%.*s lacks its %.*s", (int)model.size,
                  (const char *)model.data, (int)name.size, (const char *)name.data);
}

static escqrs_status check_read_models(verifier *in)
{
    int64_t tables;
    escqrs_status status =
        one_number(in, "file",
                   "SELECT count(*) FROM sqlite_schema WHERE name IN ('escqrs_readmodel',"
                   " 'escqrs_readmodel_object')",
                   0, &tables);
    if (status != ESCQRS_OK || tables == 0) {
        return status;
    }
    status = each(in, "read model", "SELECT name, position FROM escqrs_readmodel", read_model_row);
    return status != ESCQRS_OK
               ? status
               : each(in, "read model",
                      "SELECT name, readmodel FROM escqrs_readmodel_object AS o WHERE NOT EXISTS"
                      " (SELECT 1 FROM sqlite_schema AS s WHERE s.name = o.name COLLATE NOCASE)",
                      object_row);
}

/* ---- the whole -------------------------------------------------------------------------------- */

static escqrs_status check_numbers(verifier *in)
{
    int64_t salt = 0;
    escqrs_status status = one_number(in, "file", "SELECT max(position) FROM escqrs_journal", 0,
                                      &in->head); /* begins the transaction */
    if (status == ESCQRS_OK) {
        status = read_gaps(in);
    }
    if (status == ESCQRS_OK) {
        status = one_number(in, "file", "SELECT value FROM escqrs_store WHERE name = 'indexed'", -1,
                            &in->watermark);
    }
    if (status == ESCQRS_OK) {
        status =
            one_number(in, "file", "SELECT value FROM escqrs_store WHERE name = 'salt'", 0, &salt);
    }
    if (status == ESCQRS_OK && (uint64_t)salt != in->sqlite->salt) {
        status = report(in, "file", (place){0}, "its salt was changed while it was open");
    }
    if (status == ESCQRS_OK && (in->watermark < 0 || in->watermark > in->head)) {
        status = report(in, "index", (place){0, 0, in->watermark},
                        "it goes on to position %" PRId64 ", and the store ends at %" PRId64,
                        in->watermark, in->head);
    }
    return status == ESCQRS_OK ? progress(in, 0) : status;
}

typedef struct step {
    const char *part, *query;
    escqrs_status (*row)(verifier *in, sqlite3_stmt *statement);
} step;

static escqrs_status check_tables(verifier *in, const step *steps, size_t count)
{
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
        status = each(in, steps[i].part, steps[i].query, steps[i].row);
    }
    return status;
}

static escqrs_status check_all(verifier *in)
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
         snapshot_row},
        {"checkpoint", "SELECT name, position FROM escqrs_checkpoint", checkpoint_row},
        {"key", "SELECT key, position, versions FROM escqrs_key", key_row},
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
        status = check_events(in);
    }
    if (status == ESCQRS_OK) {
        status = check_chain(in);
    }
    if (status == ESCQRS_OK) {
        status = check_streams(in);
    }
    if (status == ESCQRS_OK) {
        status = check_aids(in);
    }
    if (status == ESCQRS_OK) {
        status = check_tables(in, after, sizeof after / sizeof after[0]);
    }
    if (status == ESCQRS_OK) {
        status = check_read_models(in);
    }
    return status == ESCQRS_OK ? progress(in, in->head) : status;
}

/* While SQLite is busy with its own pages. */
static int interrupted(void *context)
{
    verifier *in = context;
    return progress(in, in->last_position) != ESCQRS_OK;
}

escqrs_status esc_sqlite_verify(escqrs_provider *self, const escqrs_observer *observer,
                                escqrs_verification *counts, escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    esc_connection *connection;
    verifier in = {.sqlite = sqlite, .observer = observer, .counts = counts, .error = error};
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    in.db = connection->db;
    esc_vector_init(&in.streams, sizeof(checked_stream));
    esc_vector_init(&in.types, sizeof(checked_type));
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
        escqrs_schema_destroy(ESC_VECTOR_AT(&in.types, checked_type, i).schema);
    }
    esc_vector_fini(&in.streams);
    esc_vector_fini(&in.types);
    esc_vector_fini(&in.gaps);
    esc_arena_fini(&in.arena);
    esc_chain_fini(&in.chain);
    return status;
}
