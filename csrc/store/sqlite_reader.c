/* See sqlite_provider.h. Pages of events, read with a connection of the pool.
 *
 * A page is read in one short transaction and copied out, so no reader keeps the WAL from being
 * recycled for longer than that. The rows of a page are taken by a function that is part of the
 * statement's condition and ends it, so that a page is one step: a step and nine calls for columns
 * cost more instructions a row than all that is done with it. Each row is checked before it is
 * handed out: its checksum, and that it is the one that was looked for. Positions that are durable
 * are never skipped: what is missing is CORRUPT, unless the same transaction sees that it was
 * deleted (sqlite_erase.c). */
#include "store/sqlite_provider.h"

#include <endian.h>
#include <string.h>

#include "base/assert.h"
#include "base/checksum.h"
#include "base/error.h"
#include "store/event_header.h"

#define REFRESH_TAILS 4 /* that many of the writer's before it is read anew */

static esc_sqlite *of(escqrs_provider *self)
{
    return (esc_sqlite *)self;
}

/* ---- checksums -------------------------------------------------------------------------------- */

int32_t esc_row_checksum(const esc_row *row, escqrs_slice header, escqrs_slice data, uint64_t salt)
{
    uint64_t fields[8] = {
        htole64((uint64_t)row->position), htole64((uint64_t)row->stream),
        htole64((uint64_t)row->version),  htole64((uint64_t)row->type),
        htole64((uint64_t)row->time_us),  htole64((uint64_t)row->ordinal),
        htole64(row->name_hash),          htole64(row->type_hash),
    };
    uint64_t hash = esc_hash((escqrs_slice){fields, sizeof fields}, salt);
    if (header.size > 0) {
        hash = esc_hash(header, hash);
    }
    return (int32_t)(uint32_t)esc_hash(data, hash);
}

int32_t esc_snapshot_checksum(int64_t stream, int64_t version, const escqrs_type *type,
                              escqrs_slice data, uint64_t salt)
{
    uint64_t fields[4] = {htole64((uint64_t)stream), htole64((uint64_t)version),
                          htole64((uint64_t)type->id), htole64(type->hash)};
    uint64_t hash = esc_hash((escqrs_slice){fields, sizeof fields}, salt);
    return (int32_t)(uint32_t)esc_hash(data, hash);
}

/* ---- streams ---------------------------------------------------------------------------------- */

/* A refresh may build the stream index of a read-only store anew: nobody looks at it half built. */
static void hold_index(esc_sqlite *sqlite)
{
    if (sqlite->readonly) {
        esc_mutex_lock(&sqlite->refresh_mutex);
    }
}

static void release_index(esc_sqlite *sqlite)
{
    if (sqlite->readonly) {
        esc_mutex_unlock(&sqlite->refresh_mutex);
    }
}

/* The number of a stream by its name, from disk, and the last version that the index there has; 0
 * where it is unknown. */
static escqrs_status stream_row(const esc_sqlite *sqlite, esc_connection *connection,
                                escqrs_slice name, int64_t *id, int64_t *version,
                                escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_STREAM, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, name.data, (int)name.size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    *id = *version = 0;
    if (code == SQLITE_ROW) {
        *id = sqlite3_column_int64(statement, 0);
        status = *id < 1 ? esc_sqlite_bad_number(sqlite, name, *id, error) : ESCQRS_OK;
        if (status == ESCQRS_OK && sqlite3_column_type(statement, 1) != SQLITE_NULL) {
            status = esc_sqlite_index_last_of(sqlite, statement, 1, *id, version, error);
        }
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

static escqrs_status find_stream(esc_sqlite *sqlite, esc_connection *connection, escqrs_slice name,
                                 int64_t *id, int64_t *version, escqrs_error *error)
{
    if (esc_stream_index_look(&sqlite->index, name, id, version)) {
        return ESCQRS_OK;
    }
    int64_t watermark = esc_stream_index_watermark(&sqlite->index), gone = 0;
    escqrs_status status = stream_row(sqlite, connection, name, id, version, error);
    if (status != ESCQRS_OK || *id == 0 || esc_stream_index_look_id(&sqlite->index, *id, version)) {
        return status;
    }
    if (status == ESCQRS_OK && (sqlite->readonly || esc_provider_deletions(&sqlite->base) > 0)) {
        escqrs_erased erased;
        status = esc_sqlite_erased_of(sqlite, connection, *id, &erased, error);
        gone = erased.upto;
    }
    /* Memory knows nothing of it. If it did when the row was read, the row may be older than what
     * was forgotten since; that is on disk now. */
    if (status == ESCQRS_OK && esc_stream_index_watermark(&sqlite->index) != watermark) {
        status = esc_sqlite_index_last(sqlite, connection, *id, version, error);
    }
    *version = *version > gone ? *version : gone;
    return status;
}

escqrs_status esc_sqlite_stream(esc_sqlite *sqlite, esc_connection *connection, escqrs_slice name,
                                int64_t *id, int64_t *version, escqrs_error *error)
{
    hold_index(sqlite);
    escqrs_status status = find_stream(sqlite, connection, name, id, version, error);
    release_index(sqlite);
    return status;
}

/* A stream with a number and no version: it was made a moment ago and memory knows it, or its row
 * of the index is lost. Its connection is in no transaction, so what memory forgot is read. */
static escqrs_status prove_empty(esc_sqlite *sqlite, esc_connection *connection,
                                 escqrs_slice stream, int64_t id, int64_t *version,
                                 escqrs_error *error)
{
    escqrs_erased erased = {0};
    escqrs_status status = ESCQRS_OK;
    hold_index(sqlite);
    bool known = esc_stream_index_look_id(&sqlite->index, id, version);
    if (!known) {
        status = esc_sqlite_index_last(sqlite, connection, id, version, error);
    }
    if (!known && status == ESCQRS_OK) {
        status = esc_sqlite_erased_of(sqlite, connection, id, &erased, error);
    }
    release_index(sqlite);
    *version = *version > erased.upto ? *version : erased.upto;
    return known || status != ESCQRS_OK || *version > 0
               ? status
               : esc_sqlite_not_indexed(sqlite, stream, id, error);
}

escqrs_status esc_sqlite_version(escqrs_provider *self, escqrs_slice stream, int64_t *version,
                                 int64_t *hint, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    if (!sqlite->readonly && esc_stream_index_look(&sqlite->index, stream, hint, version)) {
        return ESCQRS_OK;
    }
    esc_connection *connection;
    escqrs_status status = esc_sqlite_take_reader(sqlite, &connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_sqlite_stream(sqlite, connection, stream, hint, version, error);
    esc_sqlite_give_reader(sqlite, connection);
    if (status != ESCQRS_OK || *hint == 0 || *version > 0) {
        return status;
    }
    status = esc_sqlite_refresh(self, error); /* it may be younger than what is known here */
    if (status == ESCQRS_OK &&
        (status = esc_sqlite_take_reader(sqlite, &connection, error)) == ESCQRS_OK) {
        status = prove_empty(sqlite, connection, stream, *hint, version, error);
        esc_sqlite_give_reader(sqlite, connection);
    }
    return status;
}

static const esc_stream_name *load_name(const esc_sqlite *sqlite, esc_connection *connection,
                                        int64_t id, escqrs_status *status, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    const esc_stream_name *name = NULL;
    *status = esc_connection_statement(sqlite, connection, ESC_SQL_STREAM_NAME, &statement, error);
    if (*status != ESCQRS_OK) {
        return NULL;
    }
    sqlite3_bind_int64(statement, 1, id);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        bool has_name = sqlite3_column_type(statement, 0) != SQLITE_NULL;
        escqrs_slice text = {sqlite3_column_text(statement, 0),
                             (size_t)sqlite3_column_bytes(statement, 0)};
        if (text.data != NULL) {
            name = esc_stream_names_keep(&connection->names, id, text, esc_hash(text, 0));
        }
        if (name == NULL && has_name) {
            *status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a stream's name");
        }
    } else if (code != SQLITE_DONE) {
        *status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return name;
}

/* ---- rows ------------------------------------------------------------------------------------- */

typedef struct esc_page_reader page_reader;
/* What a statement does with each of its rows. False: it ends here, and `status` says how. */
typedef bool row_taker(page_reader *in, sqlite3_value **columns);

struct esc_page_reader {
    esc_sqlite *sqlite;
    esc_connection *connection;
    const escqrs_query *query;
    escqrs_page *page;
    esc_stream_name stream; /* of a query for one stream; id 0 otherwise */
    escqrs_error *error;
    escqrs_type *type; /* of the row before, mostly that of the next; or NULL */
    int64_t named;     /* the stream of the row before, and its name in the page; or 0 */
    escqrs_slice name;
    /* while a statement runs */
    row_taker *take;
    escqrs_status status;
    int64_t step;             /* 1, or -1 in reverse */
    int64_t position;         /* that the next row has to have; by version, the first of these: */
    const int64_t *positions; /* of the rows to come */
    int64_t version;          /* by version: that the next row has to have; else 0 */
    size_t left;              /* rows to be looked at */
};

static escqrs_status row_corrupt(const page_reader *in, int64_t position, int64_t version,
                                 escqrs_slice stream, const char *what)
{
    (void)escqrs_error_set(
        in->error, ESCQRS_CORRUPT,
        "%s is damaged: the event at position %lld (stream %.*s, version %lld) %s",
        in->sqlite->shown, (long long)position, (int)stream.size,
        stream.size > 0 ? (const char *)stream.data : "", (long long)version, what);
    if (in->error != NULL) {
        in->error->position = position;
        in->error->version = version;
        esc_error_subject(in->error, stream);
    }
    return ESCQRS_CORRUPT;
}

escqrs_status esc_sqlite_type(esc_sqlite *sqlite, esc_connection *connection, int64_t id,
                              escqrs_type **type, escqrs_error *error)
{
    *type = esc_type_registry_find(&sqlite->base.core->types, id);
    if (*type != NULL) {
        return ESCQRS_OK;
    }
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_TYPE, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, id);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        escqrs_slice name = {sqlite3_column_text(statement, 0),
                             (size_t)sqlite3_column_bytes(statement, 0)};
        escqrs_slice record = {sqlite3_column_blob(statement, 1),
                               (size_t)sqlite3_column_bytes(statement, 1)};
        status = esc_type_registry_load(&sqlite->base.core->types, id, name, record, type, error);
    } else if (code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

/* A copy in the page's memory. */
static bool copy_to_page(page_reader *in, escqrs_slice *slice)
{
    uint8_t *copy = esc_arena_alloc(&in->page->arena, slice->size + 1);
    if (copy != NULL && slice->size > 0) {
        memcpy(copy, slice->data, slice->size);
    }
    slice->data = copy;
    return copy != NULL;
}

/* The name of a query's stream is its owner's, others may be forgotten by the reader: a copy, or
 * that of the row before. */
static bool name_row(page_reader *in, const esc_stream_name *name, escqrs_recorded *recorded)
{
    if (name != &in->stream && name->id != in->named) {
        in->name = name->text;
        in->named = copy_to_page(in, &in->name) ? name->id : 0;
    }
    recorded->stream = name == &in->stream ? name->text : in->name;
    return recorded->stream.data != NULL;
}

/* A row that was checked becomes the page's next event, if it matches the query. */
static escqrs_status keep_row(page_reader *in, const esc_row *row, const esc_stream_name *name,
                              escqrs_slice header, escqrs_slice data)
{
    escqrs_page *page = in->page;
    escqrs_recorded *recorded = &page->items[page->count];
    recorded->part = recorded->part_count = 0;
    recorded->position = row->position;
    recorded->version = row->version;
    recorded->time_us = row->time_us;
    recorded->type = in->type;
    escqrs_status status = ESCQRS_NO_MEMORY;
    if (name_row(in, name, recorded) && (header.size == 0 || copy_to_page(in, &header))) {
        status = esc_event_header_decode(header, row->ordinal, (uint32_t)in->sqlite->salt,
                                         &page->arena, recorded);
    }
    if (status == ESCQRS_CORRUPT) {
        return row_corrupt(in, row->position, row->version, name->text,
                           "has a header that does not read");
    }
    if (status == ESCQRS_OK && in->query->match_count > 0 &&
        !escqrs_query_matches(in->query, recorded)) {
        return ESCQRS_OK;
    }
    if (status != ESCQRS_OK || !copy_to_page(in, &data)) {
        return escqrs_error_set(in->error, ESCQRS_NO_MEMORY, "no memory for an event");
    }
    recorded->data = data;
    page->bytes += header.size + data.size;
    page->count++;
    return ESCQRS_OK;
}

/* Name and type of a row: NULL where there is none. */
static escqrs_status describe_row(page_reader *in, const esc_row *row, const esc_stream_name **name)
{
    escqrs_status status = ESCQRS_OK;
    *name = &in->stream;
    if (in->stream.id == 0) {
        *name = esc_stream_names_look(&in->connection->names, row->stream);
        if (*name == NULL && row->stream > 0) {
            *name = load_name(in->sqlite, in->connection, row->stream, &status, in->error);
        }
    }
    if (status == ESCQRS_OK && (in->type == NULL || in->type->id != row->type)) {
        status = esc_sqlite_type(in->sqlite, in->connection, row->type, &in->type, in->error);
    }
    return status;
}

/* Check a row, and take it. */
static escqrs_status take_row(page_reader *in, sqlite3_value **columns, int64_t position,
                              int64_t version)
{
    esc_row row = {
        .position = sqlite3_value_int64(columns[0]),
        .stream = sqlite3_value_int64(columns[1]),
        .version = sqlite3_value_int64(columns[2]),
        .type = sqlite3_value_int64(columns[3]),
        .time_us = sqlite3_value_int64(columns[4]),
        .ordinal = sqlite3_value_int64(columns[5]),
    };
    escqrs_slice header = {NULL, 0};
    if (sqlite3_value_type(columns[6]) != SQLITE_NULL) {
        header =
            (escqrs_slice){sqlite3_value_blob(columns[6]), (size_t)sqlite3_value_bytes(columns[6])};
    }
    escqrs_slice data = {sqlite3_value_blob(columns[7]), (size_t)sqlite3_value_bytes(columns[7])};
    int64_t checksum = sqlite3_value_int64(columns[8]);
    const esc_stream_name *name;
    escqrs_status status = describe_row(in, &row, &name);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (name == NULL || in->type == NULL || row.stream != name->id || row.position != position ||
        (version != 0 && row.version != version) || row.ordinal < 0 || row.ordinal >= position) {
        return row_corrupt(in, position, version != 0 ? version : row.version,
                           name != NULL ? name->text : (escqrs_slice){NULL, 0},
                           name == NULL       ? "belongs to no known stream"
                           : in->type == NULL ? "is of no known type"
                                              : "is not the one that should be there");
    }
    row.name_hash = name->hash;
    row.type_hash = in->type->hash;
    if (esc_row_checksum(&row, header, data, in->sqlite->salt) != checksum) {
        return row_corrupt(in, position, row.version, name->text, "does not match its checksum");
    }
    return keep_row(in, &row, name, header, data);
}

/* Always DELETED: the event that comes next was, with those up to a version or position. */
static escqrs_status say_deleted(const page_reader *in, int64_t version, int64_t position)
{
    if (version > 0) {
        (void)escqrs_error_set(in->error, ESCQRS_DELETED,
                               "the events of stream %.*s up to version %lld have been deleted",
                               (int)in->stream.text.size, (const char *)in->stream.text.data,
                               (long long)version);
    } else {
        (void)escqrs_error_set(in->error, ESCQRS_DELETED,
                               "events up to position %lld have been deleted", (long long)position);
    }
    if (in->error != NULL) {
        in->error->version = version;
        in->error->position = position;
        esc_error_subject(in->error, in->stream.text);
    }
    return ESCQRS_DELETED;
}

static bool is_full(const page_reader *in)
{
    return in->page->count >= in->query->count_max || in->page->bytes >= ESC_PAGE_BYTES_MAX;
}

/* The event at the position is not there: DELETED, or, to be left out, *position moves to the end
 * of the gap and *gap is true; false where there is no gap. */
static escqrs_status pass_gap(page_reader *in, int64_t *position, bool *found)
{
    esc_gap gap;
    bool reverse = in->query->reverse;
    escqrs_status status =
        esc_sqlite_gap(in->sqlite, in->connection, *position, *position, reverse, &gap, in->error);
    *found = status == ESCQRS_OK && gap.last != 0;
    if (*found && !in->query->skip_deleted) {
        return say_deleted(in, 0, gap.last);
    }
    if (*found) {
        *position = reverse ? gap.first : gap.last;
    }
    return status;
}

/* ---- runs of rows ----------------------------------------------------------------------------- */

/* The SQL function `escqrs_take`: true where the statement is to end. */
static void take(sqlite3_context *context, int count, sqlite3_value **columns)
{
    const esc_connection *connection = sqlite3_user_data(context);
    page_reader *in = connection->taking;
    ESC_ASSERT(count == ESC_EVENT_COLUMN_COUNT);
    if (in == NULL) {
        sqlite3_result_error(context, "escqrs_take is for the engine's own statements", -1);
        return;
    }
    sqlite3_result_int(context, !in->take(in, columns));
}

int esc_sqlite_register_take(esc_connection *connection)
{
    return sqlite3_create_function_v2(connection->db, "escqrs_take", ESC_EVENT_COLUMN_COUNT,
                                      SQLITE_UTF8 | SQLITE_DIRECTONLY, connection, take, NULL, NULL,
                                      NULL);
}

/* Have the statement's rows taken. *ended: there were no more, though more were wanted. */
static escqrs_status run_rows(page_reader *in, sqlite3_stmt *statement, row_taker *taker,
                              bool *ended)
{
    in->take = taker;
    in->status = ESCQRS_OK;
    in->connection->taking = in;
    int code = sqlite3_step(statement);
    in->connection->taking = NULL;
    *ended = code == SQLITE_DONE;
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        in->status =
            esc_sqlite_error(in->sqlite, in->connection->db, code, in->error, "cannot read");
    }
    sqlite3_reset(statement);
    return in->status;
}

static bool is_within(const page_reader *in)
{
    return in->position > in->query->after && in->position <= in->query->upto;
}

/* No row is at the next position: it was deleted, or is lost. */
static bool pass_missing(page_reader *in)
{
    bool is_gap = false;
    in->status = pass_gap(in, &in->position, &is_gap);
    if (in->status == ESCQRS_OK && !is_gap) {
        in->status = row_corrupt(in, in->position, 0, (escqrs_slice){NULL, 0}, "is missing");
    }
    if (in->status == ESCQRS_OK) {
        in->position += in->step;
    }
    return in->status == ESCQRS_OK && is_within(in);
}

static bool take_at_position(page_reader *in, sqlite3_value **columns)
{
    int64_t position = sqlite3_value_int64(columns[0]);
    while (in->position != position) {
        if (!pass_missing(in)) {
            return false;
        }
    }
    in->status = take_row(in, columns, position, 0);
    if (in->status != ESCQRS_OK) {
        return false;
    }
    in->position += in->step;
    in->left--;
    return in->left > 0 && !is_full(in) && is_within(in);
}

/* By position, all of them between the bounds. */
static escqrs_status read_positions(page_reader *in)
{
    const escqrs_query *query = in->query;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(
        in->sqlite, in->connection, query->reverse ? ESC_SQL_EVENTS_REVERSE : ESC_SQL_EVENTS,
        &statement, in->error);
    if (status != ESCQRS_OK) {
        return status;
    }
    bool ended;
    in->position = query->reverse ? query->upto : query->after + 1;
    in->left = ESC_PAGE_EXAMINED_MAX;
    sqlite3_bind_int64(statement, 1, in->position);
    (void)!run_rows(in, statement, take_at_position, &ended); /* in->status */
    while (ended && pass_missing(in)) {
    }
    in->page->examined = in->position - in->step;
    return in->status;
}

static bool by_tags(const escqrs_query *query)
{
    for (size_t i = 0; i < query->match_count; i++) {
        if (query->matches[i].tag_count == 0) {
            return false;
        }
    }
    return query->match_count > 0;
}

static bool take_one(page_reader *in, sqlite3_value **columns)
{
    in->status = take_row(in, columns, in->position, 0);
    return false;
}

static escqrs_status read_one(page_reader *in, sqlite3_stmt *statement, int64_t position)
{
    bool ended;
    in->position = position;
    sqlite3_bind_int64(statement, 1, position);
    escqrs_status status = run_rows(in, statement, take_one, &ended);
    return ended ? row_corrupt(in, position, 0, in->stream.text, "is missing") : status;
}

/* Those that were deleted might have borne the tags: read up to the first gap, or DELETED where it
 * comes next. */
static escqrs_status bound_by_gap(page_reader *in, int64_t *low, int64_t *high)
{
    esc_gap gap;
    bool reverse = in->query->reverse;
    if (in->query->skip_deleted) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_sqlite_gap(in->sqlite, in->connection, *low, *high, reverse, &gap, in->error);
    if (status != ESCQRS_OK || gap.last == 0) {
        return status;
    }
    if (reverse ? gap.last >= *high : gap.first <= *low) {
        return say_deleted(in, 0, gap.last);
    }
    *low = reverse ? gap.last + 1 : *low;
    *high = reverse ? *high : gap.first - 1;
    return ESCQRS_OK;
}

/* By position, those that the index of tags names. */
static escqrs_status read_tagged(page_reader *in)
{
    const escqrs_query *query = in->query;
    int64_t low = query->after + 1, high = query->upto;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = bound_by_gap(in, &low, &high);
    int64_t before = low - 1;
    if (status == ESCQRS_OK) {
        status = esc_connection_statement(in->sqlite, in->connection, ESC_SQL_EVENT_TAKEN,
                                          &statement, in->error);
    }
    for (int examined = 0;
         examined < ESC_PAGE_EXAMINED_MAX && !is_full(in) && low <= high && status == ESCQRS_OK;
         examined++) {
        int64_t position;
        status =
            esc_sqlite_next_tagged(in->sqlite, in->connection, query->matches, query->match_count,
                                   low, high, query->reverse, &position, in->error);
        if (status == ESCQRS_OK && position == 0) {
            low = high + 1;
            high = before;
            break;
        }
        if (status == ESCQRS_OK) {
            status = read_one(in, statement, position);
        }
        if (status == ESCQRS_OK && query->reverse) {
            high = position - 1;
        } else if (status == ESCQRS_OK) {
            low = position + 1;
        }
    }
    in->page->examined = query->reverse ? high + 1 : low - 1;
    return status;
}

static bool take_wanted(page_reader *in, sqlite3_value **columns)
{
    int64_t wanted = *in->positions;
    if (sqlite3_value_int64(columns[0]) != wanted) {
        in->status = row_corrupt(in, wanted, in->version, in->stream.text, "is missing");
    } else {
        in->status = take_row(in, columns, wanted, in->version);
    }
    if (in->status != ESCQRS_OK) {
        return false;
    }
    in->page->examined = in->version;
    in->positions++;
    in->version += in->step;
    in->left--;
    return in->left > 0 && !is_full(in);
}

/* The rows at these positions; the first of them is that version, the others follow it. */
static escqrs_status read_wanted(page_reader *in, const int64_t *positions, size_t count,
                                 int64_t version)
{
    esc_connection *connection = in->connection;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(in->sqlite, connection, ESC_SQL_EVENTS_WANTED,
                                                    &statement, in->error);
    if (status != ESCQRS_OK) {
        return status;
    }
    bool ended;
    in->positions = positions;
    in->version = version;
    in->left = count;
    connection->wanted = (esc_wanted){.positions = positions, .count = count};
    status = run_rows(in, statement, take_wanted, &ended);
    connection->wanted = (esc_wanted){0};
    if (ended) {
        status = row_corrupt(in, *in->positions, in->version, in->stream.text, "is missing");
    }
    in->positions = NULL; /* they are the caller's */
    return status;
}

static void turn_around(int64_t *positions, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        int64_t position = positions[i];
        positions[i] = positions[count - 1 - i];
        positions[count - 1 - i] = position;
    }
}

/* In the page's transaction: how many of `count` versions from `first` on are gone, of those that a
 * page reads. DELETED where the next one is; *end: there is nothing more to read. */
static escqrs_status pass_erased(page_reader *in, int64_t first, size_t count, size_t *gone,
                                 bool *end)
{
    const escqrs_query *query = in->query;
    escqrs_erased erased = {0};
    escqrs_status status = ESCQRS_OK;
    *gone = 0;
    if (in->sqlite->readonly || esc_provider_deletions(&in->sqlite->base) > 0) {
        status =
            esc_sqlite_erased_of(in->sqlite, in->connection, in->stream.id, &erased, in->error);
    }
    if (status != ESCQRS_OK || erased.upto < first) {
        return status;
    }
    int64_t next = query->reverse ? first + (int64_t)count - 1 : first;
    if (next <= erased.upto && !query->skip_deleted) {
        return say_deleted(in, erased.upto, 0);
    }
    *gone = erased.upto - first + 1 < (int64_t)count ? (size_t)(erased.upto - first + 1) : count;
    *end = *gone == count;
    if (*end) {
        in->page->examined = query->reverse              ? query->after + 1
                             : erased.upto < query->upto ? erased.upto
                                                         : query->upto;
    }
    return ESCQRS_OK;
}

/* By version: positions from the tail in memory, then from the index on disk, then the rows. */
static escqrs_status read_versions(page_reader *in)
{
    const escqrs_query *query = in->query;
    int64_t known[ESC_PAGE_EVENTS_MAX], *positions = known;
    int64_t left = query->upto - query->after;
    size_t count = left < (int64_t)query->count_max ? (size_t)left : query->count_max, gone;
    int64_t first = query->reverse ? query->upto - (int64_t)count + 1 : query->after + 1;
    bool end = false;
    hold_index(in->sqlite);
    size_t on_disk =
        esc_stream_index_positions(&in->sqlite->index, in->stream.id, first, count, positions);
    release_index(in->sqlite);
    in->page->examined = query->reverse ? query->upto + 1 : query->after;
    escqrs_status status = pass_erased(in, first, count, &gone, &end);
    if (status != ESCQRS_OK || end) {
        return status;
    }
    first += (int64_t)gone;
    positions += gone;
    count -= gone;
    on_disk = on_disk > gone ? on_disk - gone : 0;
    if (on_disk > 0) {
        status = esc_sqlite_index_look(in->sqlite, in->connection, in->stream.id, first, on_disk,
                                       positions, in->error);
    }
    if (query->reverse) {
        turn_around(positions, count);
    }
    return status == ESCQRS_OK
               ? read_wanted(in, positions, count, query->reverse ? query->upto : first)
               : status;
}

static escqrs_status in_transaction(page_reader *in, escqrs_status (*read)(page_reader *in))
{
    escqrs_status status =
        esc_connection_run(in->sqlite, in->connection, ESC_SQL_BEGIN_READ, in->error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = read(in);
    escqrs_status ended = esc_connection_run(in->sqlite, in->connection, ESC_SQL_COMMIT,
                                             status == ESCQRS_OK ? in->error : NULL);
    return status != ESCQRS_OK ? status : ended;
}

escqrs_status esc_sqlite_read(escqrs_provider *self, const escqrs_query *query, escqrs_page *page,
                              escqrs_error *error)
{
    page_reader in = {.sqlite = of(self),
                      .query = query,
                      .page = page,
                      .error = error,
                      .step = query->reverse ? -1 : 1};
    ESC_ASSERT(query->after >= 0 && query->upto > query->after && query->count_max >= 1 &&
               query->count_max <= ESC_PAGE_EVENTS_MAX);
    int64_t left = query->upto - query->after;
    size_t room = left < (int64_t)query->count_max ? (size_t)left : query->count_max;
    escqrs_status status = esc_page_reset(page, room);
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status, "no memory for a page of events");
    }
    int64_t deletions = esc_provider_deletions(self);
    status = esc_sqlite_take_reader(in.sqlite, &in.connection, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    ESC_ASSERT(in.connection != NULL);
    esc_stream_names_trim(&in.connection->names);
    if (query->stream.size == 0 && by_tags(query)) {
        status = in_transaction(&in, read_tagged);
    } else if (query->stream.size == 0) {
        status = read_positions(&in);
    } else {
        int64_t version;
        in.stream.text = query->stream;
        in.stream.hash = esc_hash(query->stream, 0);
        in.stream.id = query->hint;
        if (in.stream.id == 0) {
            status = esc_sqlite_stream(in.sqlite, in.connection, query->stream, &in.stream.id,
                                       &version, error);
        }
        if (status == ESCQRS_OK && in.stream.id == 0) {
            status = row_corrupt(&in, 0, query->after + 1, query->stream, "is of no known stream");
        }
        if (status == ESCQRS_OK) {
            page->hint = in.stream.id;
            status = in_transaction(&in, read_versions);
        }
    }
    esc_sqlite_give_reader(in.sqlite, in.connection);
    if (status == ESCQRS_CORRUPT && deletions != esc_provider_deletions(self)) {
        return esc_sqlite_read(self, query, page, error); /* it was deleted a moment ago */
    }
    return status;
}

/* ---- read-only stores ------------------------------------------------------------------------- */

/* In one transaction: the new head, and the tail up to it. When this store's tail has grown too
 * long, and the writer's index has caught up with it, it is read anew from the writer's watermark.
 */
static escqrs_status follow(esc_sqlite *sqlite, esc_connection *connection, escqrs_error *error)
{
    esc_ends ends;
    escqrs_status status = esc_sqlite_ends(sqlite, connection, &ends, error);
    int64_t head = ends.head, indexed = ends.indexed;
    bool deleted = ends.deletions != esc_provider_deletions(&sqlite->base);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_ends(sqlite, head, indexed, error);
    }
    if (status != ESCQRS_OK || (head == sqlite->scanned && !deleted)) {
        return status;
    }
    /* release: pairs with esc_provider_deletions */
    atomic_store_explicit(&sqlite->base.core->deletions, ends.deletions, memory_order_release);
    if (deleted || sqlite->scanned < indexed ||
        sqlite->index.tail_events > REFRESH_TAILS * sqlite->tail_events_max) {
        esc_stream_index_clear(&sqlite->index);
        sqlite->scanned = sqlite->index.watermark = indexed;
    }
    if (head > sqlite->scanned) {
        status =
            esc_sqlite_index_scan(sqlite, &sqlite->index, connection, sqlite->scanned, head, error);
    }
    if (status == ESCQRS_OK) {
        sqlite->scanned = head;
    }
    return status;
}

escqrs_status esc_sqlite_refresh(escqrs_provider *self, escqrs_error *error)
{
    esc_sqlite *sqlite = of(self);
    if (!sqlite->readonly) {
        return ESCQRS_OK;
    }
    esc_connection *connection = NULL;
    escqrs_status status = esc_sqlite_check_opened(sqlite, error);
    if (status == ESCQRS_OK) {
        status = esc_sqlite_take_reader(sqlite, &connection, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    ESC_ASSERT(connection != NULL);
    esc_mutex_lock(&sqlite->refresh_mutex);
    status = esc_connection_run(sqlite, connection, ESC_SQL_BEGIN_READ, error);
    if (status == ESCQRS_OK) {
        status = follow(sqlite, connection, error);
        (void)!esc_connection_run(sqlite, connection, ESC_SQL_COMMIT, NULL);
    }
    if (status == ESCQRS_OK) {
        /* release: pairs with esc_provider_head */
        atomic_store_explicit(&self->core->head, sqlite->scanned, memory_order_release);
    }
    esc_mutex_unlock(&sqlite->refresh_mutex);
    esc_sqlite_give_reader(sqlite, connection);
    return status;
}
