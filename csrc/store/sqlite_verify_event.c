/* See sqlite_verifier.h. The journal: each event, its place in stream and index, its ids and tags,
 * and its link in the hash chain. */
#include "store/sqlite_verifier.h"

#include <inttypes.h>
#include <string.h>

#include "base/checksum.h"
#include "store/event_header.h"

/* ---- events ----------------------------------------------------------------------------------- */

static escqrs_status look(esc_verifier *in, sqlite3_stmt *statement, esc_verified_place where,
                          const char *part, const char *what, int64_t *count)
{
    sqlite3_bind_int64(statement, 2, where.position);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (code == SQLITE_ROW) {
        (*count)++;
        return ESCQRS_OK;
    }
    return code == SQLITE_DONE
               ? esc_verifier_report(in, part, where, "%s is not in the table", what)
               : esc_verifier_refused(in, part, where, code);
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
static bool has_own_id(const esc_verifier *in, const escqrs_recorded *recorded)
{
    escqrs_uuid derived =
        esc_event_id(recorded->time_us, recorded->position, (uint32_t)in->sqlite->salt);
    return recorded->id_text.size > 0 || memcmp(&recorded->id, &derived, sizeof derived) != 0;
}

static escqrs_status check_header(esc_verifier *in, esc_verified_place where, escqrs_slice header,
                                  int64_t ordinal, escqrs_recorded *recorded)
{
    esc_arena_reset(&in->arena);
    escqrs_status status =
        esc_event_header_decode(header, ordinal, (uint32_t)in->sqlite->salt, &in->arena, recorded);
    if (status == ESCQRS_NO_MEMORY) {
        return esc_verifier_no_memory(in);
    }
    if (status != ESCQRS_OK) {
        return esc_verifier_report(in, "event", where, "its header does not read");
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
static escqrs_status check_order(esc_verifier *in, const esc_row *row, esc_checked_stream *stream)
{
    esc_verified_place where = {row->stream, row->version, row->position};
    int64_t before = stream == NULL ? 0 : stream->version;
    int64_t expected = esc_verifier_behind_gaps(in, in->last_position + 1);
    escqrs_status status = ESCQRS_OK;
    bool follows = row->position == in->last_position + 1;
    if (row->position < expected || (stream != NULL && stream->closed)) {
        status =
            esc_verifier_report(in, "deleted", where, "it is said to be deleted, and is there");
    } else if (row->position != expected) {
        status = esc_verifier_report(in, "event", (esc_verified_place){0, 0, expected},
                                     "positions %" PRId64 " to %" PRId64 " are missing", expected,
                                     row->position - 1);
    }
    if (status == ESCQRS_OK && stream != NULL && row->version != before + 1) {
        status = esc_verifier_report(in, "event", where, "it follows version %" PRId64, before);
    }
    if (status == ESCQRS_OK && row->time_us < in->last_time_us) {
        status = esc_verifier_report(in, "event", where, "it is older than the event before it");
    }
    if (status == ESCQRS_OK && row->ordinal != 0 && follows &&
        row->ordinal != in->last_ordinal + 1) {
        status = esc_verifier_report(in, "event", where, "it does not continue its commit");
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

static escqrs_status check_index(esc_verifier *in, const esc_row *row, esc_checked_stream *stream)
{
    if (row->version <= stream->indexed) {
        stream->sum -= esc_verifier_index_hash(row->version, row->position);
        return ESCQRS_OK;
    }
    return row->position > in->watermark
               ? ESCQRS_OK
               : esc_verifier_report(in, "index",
                                     (esc_verified_place){row->stream, row->version, row->position},
                                     "it lacks the event");
}

/* The link that stands in the file at that position. OK and *found false where none does. */
static escqrs_status stored_link(esc_verifier *in, esc_verified_place where, int64_t position,
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
    return code == SQLITE_ROW || code == SQLITE_DONE
               ? ESCQRS_OK
               : esc_verifier_refused(in, "chain", where, code);
}

/* The link of the event, made from the one that stands before it. */
static escqrs_status make_link(esc_verifier *in, esc_verified_place where,
                               const esc_checked_type *type, escqrs_recorded *recorded)
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
        recorded->stream = esc_verifier_column(in->look_name, 0);
    }
    escqrs_status status = esc_chain_add(&in->chain, recorded, type->digest, in->error);
    sqlite3_reset(in->look_name);
    return status;
}

/* Is its link the one that stands in the file? */
static escqrs_status check_link(esc_verifier *in, esc_verified_place where,
                                const esc_checked_type *type, escqrs_recorded *recorded)
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
        return esc_verifier_report(in, "chain", where, "its link is missing");
    }
    in->counts->links++;
    if (memcmp(stored, in->chain.link, sizeof stored) == 0) {
        return ESCQRS_OK;
    }
    memcpy(in->chain.link, stored, sizeof stored);
    return esc_verifier_report(
        in, "chain", where,
        "the chain is broken here: the event is not the one that was stored, or does not "
        "follow the one before");
}

/* The same for an event whose row was found to be wrong. */
static escqrs_status check_wrong_link(esc_verifier *in, const esc_row *row,
                                      const esc_checked_type *type, escqrs_slice header,
                                      escqrs_recorded *recorded)
{
    esc_arena_reset(&in->arena);
    escqrs_status status = esc_event_header_decode(header, row->ordinal, (uint32_t)in->sqlite->salt,
                                                   &in->arena, recorded);
    return status == ESCQRS_NO_MEMORY ? esc_verifier_no_memory(in)
           : status != ESCQRS_OK
               ? ESCQRS_OK
               : check_link(in, (esc_verified_place){row->stream, row->version, row->position},
                            type, recorded);
}

/* Links without events, at the end. */
escqrs_status esc_verifier_check_chain(esc_verifier *in)
{
    int64_t last = 0;
    if (in->look_link == NULL || in->partial) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_verifier_number(in, "chain", "SELECT max(position) FROM escqrs_chain", 0, &last);
    return status != ESCQRS_OK || last <= in->last_position
               ? status
               : esc_verifier_report(in, "chain", (esc_verified_place){0, 0, in->last_position + 1},
                                     "events up to position %" PRId64 " were removed", last);
}

/* SQLite puts any value into any column; what is no number would be read as 0. */
static bool has_numbers(sqlite3_stmt *statement)
{
    static const int columns[] = {0, 1, 2, 3, 4, 5, 8};
    bool all = true;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        all = all && sqlite3_column_type(statement, columns[i]) == SQLITE_INTEGER;
    }
    return all;
}

static escqrs_status event_row(esc_verifier *in, sqlite3_stmt *statement)
{
    bool numbers = has_numbers(statement);
    esc_row row = {
        .position = sqlite3_column_int64(statement, 0),
        .stream = sqlite3_column_int64(statement, 1),
        .version = sqlite3_column_int64(statement, 2),
        .type = sqlite3_column_int64(statement, 3),
        .time_us = sqlite3_column_int64(statement, 4),
        .ordinal = sqlite3_column_int64(statement, 5),
    };
    escqrs_slice header = esc_verifier_column(statement, 6),
                 data = esc_verifier_column(statement, 7);
    esc_verified_place where = {row.stream, row.version, row.position};
    esc_checked_stream *stream = esc_verifier_find(&in->streams, row.stream);
    const esc_checked_type *type = esc_verifier_find(&in->types, row.type);
    escqrs_recorded recorded = {
        .position = row.position, .version = row.version, .time_us = row.time_us, .data = data};
    escqrs_status status = check_order(in, &row, stream);
    if (status == ESCQRS_OK && !numbers) {
        status = esc_verifier_report(in, "event", where, "a column of numbers has something else");
    }
    if (status == ESCQRS_OK && (stream == NULL || type == NULL)) {
        return esc_verifier_report(in, "event", where, "it is of no known %s",
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
        status = esc_verifier_report(in, "event", where, "it does not match its checksum");
        return status == ESCQRS_OK ? check_wrong_link(in, &row, type, header, &recorded) : status;
    }
    if (status == ESCQRS_OK) {
        status = check_header(in, where, header, row.ordinal, &recorded);
    }
    if (status == ESCQRS_OK) {
        status = esc_verifier_check_message(in, "event", where, type, data);
    }
    if (status == ESCQRS_OK) {
        status = check_link(in, where, type, &recorded);
    }
    return status == ESCQRS_OK && row.position % ESC_VERIFIED_EVENTS == 0
               ? esc_verifier_progress(in, row.position)
               : status;
}

escqrs_status esc_verifier_check_events(esc_verifier *in)
{
    int code =
        sqlite3_prepare_v2(in->db, "SELECT 1 FROM escqrs_tag WHERE tag = ?1 AND position = ?2", -1,
                           &in->look_tag, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(in->db, "SELECT 1 FROM escqrs_id WHERE id = ?1 AND position = ?2",
                                  -1, &in->look_id, NULL);
    }
    if (code != SQLITE_OK) {
        in->partial = true;
        return esc_verifier_refused(in, "file", (esc_verified_place){0}, code);
    }
    if (in->sqlite->chained &&
        (sqlite3_prepare_v2(in->db, "SELECT hash FROM escqrs_chain WHERE position = ?1", -1,
                            &in->look_link, NULL) != SQLITE_OK ||
         sqlite3_prepare_v2(in->db, "SELECT name FROM escqrs_stream WHERE id = ?1", -1,
                            &in->look_name, NULL) != SQLITE_OK)) {
        sqlite3_finalize(in->look_link);
        in->look_link = NULL;
        escqrs_status status =
            esc_verifier_report(in, "chain", (esc_verified_place){0}, "%s", sqlite3_errmsg(in->db));
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    int64_t before = in->counts->problems;
    escqrs_status status = esc_verifier_each(
        in, "event",
        "SELECT position, stream, version, type, time, ordinal, header, data, checksum"
        " FROM escqrs_journal ORDER BY position",
        event_row);
    in->last_position = esc_verifier_behind_gaps(in, in->last_position + 1) - 1;
    if (status == ESCQRS_OK && in->last_position < in->head) {
        in->partial = true;
        if (in->counts->problems == before) {
            status =
                esc_verifier_report(in, "event", (esc_verified_place){0, 0, in->last_position + 1},
                                    "events from here on cannot be read");
        }
    }
    return status;
}
