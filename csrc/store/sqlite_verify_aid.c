/* See sqlite_verifier.h. What stands beside the journal: tags, ids, snapshots, checkpoints, keys,
 * read models. */
#include "store/sqlite_verifier.h"

#include <inttypes.h>

#include "base/checksum.h"
#include "base/varint.h"
#include "store/event_header.h"

/* ---- tags and ids ----------------------------------------------------------------------------- */

/* A row (key, position, and the event's time, ordinal, header): does the event bear it? */
static escqrs_status aid_row(esc_verifier *in, sqlite3_stmt *statement, bool is_tag)
{
    escqrs_slice key = esc_verifier_column(statement, 0),
                 header = esc_verifier_column(statement, 4);
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
                : esc_verifier_report(in, is_tag ? "tag" : "id",
                                      (esc_verified_place){0, 0, recorded.position},
                                      "the table has a row that no event bears");
}

static escqrs_status tag_row(esc_verifier *in, sqlite3_stmt *statement)
{
    return aid_row(in, statement, true);
}

static escqrs_status id_row(esc_verifier *in, sqlite3_stmt *statement)
{
    return aid_row(in, statement, false);
}

escqrs_status esc_verifier_check_aids(esc_verifier *in)
{
    escqrs_verification *counts = in->counts;
    escqrs_status status =
        esc_verifier_number(in, "tag", "SELECT count(*) FROM escqrs_tag", in->tags, &counts->tags);
    if (status == ESCQRS_OK) {
        status =
            esc_verifier_number(in, "id", "SELECT count(*) FROM escqrs_id", in->ids, &counts->ids);
    }
    if (status == ESCQRS_OK && counts->tags > in->tags && !in->partial) {
        status = esc_verifier_each(
            in, "tag",
            "SELECT t.tag, t.position, j.time, j.ordinal, j.header FROM escqrs_tag AS t"
            " LEFT JOIN escqrs_journal AS j ON j.position = t.position",
            tag_row);
    }
    if (status == ESCQRS_OK && counts->ids > in->ids && !in->partial) {
        status = esc_verifier_each(
            in, "id",
            "SELECT i.id, i.position, j.time, j.ordinal, j.header FROM escqrs_id AS i"
            " LEFT JOIN escqrs_journal AS j ON j.position = i.position",
            id_row);
    }
    return status;
}

/* ---- snapshots, checkpoints, keys, read models ------------------------------------------------ */

escqrs_status esc_verifier_snapshot_row(esc_verifier *in, sqlite3_stmt *statement)
{
    esc_verified_place where = {sqlite3_column_int64(statement, 0),
                                sqlite3_column_int64(statement, 1), 0};
    const esc_checked_stream *stream = esc_verifier_find(&in->streams, where.stream);
    const esc_checked_type *type =
        esc_verifier_find(&in->types, sqlite3_column_int64(statement, 2));
    escqrs_slice data = esc_verifier_column(statement, 3);
    in->counts->snapshots++;
    if (stream == NULL || type == NULL) {
        return esc_verifier_report(in, "snapshot", where, "it is of no known %s",
                                   stream == NULL ? "stream" : "type");
    }
    escqrs_type hashed = {.id = type->id, .hash = type->hash};
    if (esc_snapshot_checksum(where.stream, where.version, &hashed, data, in->sqlite->salt) !=
        sqlite3_column_int64(statement, 4)) {
        return esc_verifier_report(in, "snapshot", where, "it does not match its checksum");
    }
    if (stream->closed) {
        return esc_verifier_report(in, "snapshot", where, "its stream was deleted");
    }
    if (where.version < 1 || (where.version > stream->version && !in->partial)) {
        return esc_verifier_report(in, "snapshot", where, "its stream has %" PRId64 " versions",
                                   stream->version);
    }
    return esc_verifier_check_message(in, "snapshot", where, type, data);
}

/* (name, position) */
static escqrs_status position_row(esc_verifier *in, sqlite3_stmt *statement, const char *part)
{
    bool is_number = sqlite3_column_type(statement, 1) == SQLITE_INTEGER;
    escqrs_slice name = esc_verifier_column(statement, 0);
    int64_t position = sqlite3_column_int64(statement, 1);
    if (!is_number) {
        return esc_verifier_report(
            in, part, (esc_verified_place){0}, "the position of %.*s is no number",
            (int)(name.size < 128 ? name.size : 128), (const char *)name.data);
    }
    return position >= 0 && position <= in->head
               ? ESCQRS_OK
               : esc_verifier_report(in, part, (esc_verified_place){0, 0, position},
                                     "%.*s is at position %" PRId64
                                     ", and the store ends at %" PRId64,
                                     (int)(name.size < 128 ? name.size : 128),
                                     (const char *)name.data, position, in->head);
}

escqrs_status esc_verifier_checkpoint_row(esc_verifier *in, sqlite3_stmt *statement)
{
    in->counts->checkpoints++;
    return position_row(in, statement, "checkpoint");
}

static escqrs_status read_model_row(esc_verifier *in, sqlite3_stmt *statement)
{
    in->counts->read_models++;
    return position_row(in, statement, "read model");
}

escqrs_status esc_verifier_key_row(esc_verifier *in, sqlite3_stmt *statement)
{
    int64_t position = sqlite3_column_int64(statement, 1);
    escqrs_slice key = esc_verifier_column(statement, 0), rest = esc_verifier_column(statement, 2);
    uint64_t version;
    in->counts->keys++;
    while (rest.size > 0) {
        size_t used = esc_varint_decode(rest.data, rest.size, &version);
        if (used == 0 || version > (uint64_t)(position > 0 ? position : 0)) {
            return esc_verifier_report(in, "key", (esc_verified_place){0, 0, position},
                                       "the versions of key %.*s do not read",
                                       (int)(key.size < 128 ? key.size : 128),
                                       (const char *)key.data);
        }
        rest = (escqrs_slice){(const uint8_t *)rest.data + used, rest.size - used};
    }
    return position_row(in, statement, "key");
}

static escqrs_status object_row(esc_verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice name = esc_verifier_column(statement, 0),
                 model = esc_verifier_column(statement, 1);
    return esc_verifier_report(in, "read model", (esc_verified_place){0}, "%.*s lacks its %.*s",
                               (int)model.size, (const char *)model.data, (int)name.size,
                               (const char *)name.data);
}

static escqrs_status owner_row(esc_verifier *in, sqlite3_stmt *statement)
{
    escqrs_slice model = esc_verifier_column(statement, 0);
    return esc_verifier_report(
        in, "read model", (esc_verified_place){0}, "%.*s has tables, and its position is lost",
        (int)(model.size < 128 ? model.size : 128), (const char *)model.data);
}

escqrs_status esc_verifier_check_read_models(esc_verifier *in)
{
    int64_t tables;
    escqrs_status status =
        esc_verifier_number(in, "file",
                            "SELECT count(*) FROM sqlite_schema WHERE name IN ('escqrs_readmodel',"
                            " 'escqrs_readmodel_object')",
                            0, &tables);
    if (status != ESCQRS_OK || tables == 0) {
        return status;
    }
    status = esc_verifier_each(in, "read model", "SELECT name, position FROM escqrs_readmodel",
                               read_model_row);
    if (status == ESCQRS_OK) {
        status = esc_verifier_each(in, "read model",
                                   "SELECT DISTINCT readmodel FROM escqrs_readmodel_object WHERE"
                                   " readmodel NOT IN (SELECT name FROM escqrs_readmodel)",
                                   owner_row);
    }
    return status != ESCQRS_OK
               ? status
               : esc_verifier_each(
                     in, "read model",
                     "SELECT name, readmodel FROM escqrs_readmodel_object AS o WHERE NOT EXISTS"
                     " (SELECT 1 FROM sqlite_schema AS s WHERE s.name = o.name COLLATE NOCASE)",
                     object_row);
}
