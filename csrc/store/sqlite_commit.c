/* See sqlite_provider.h. One commit in the running batch: all of its checks, then its rows. */
#include "store/sqlite_provider.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/varint.h"
#include "store/event_header.h"

/* ---- checks ----------------------------------------------------------------------------------- */

escqrs_status esc_sqlite_resolve(esc_sqlite *sqlite, escqrs_slice name, esc_stream **result,
                                 escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    esc_stream_index *index = &sqlite->index;
    *result = esc_stream_index_find(index, name);
    if (*result != NULL) {
        return ESCQRS_OK;
    }
    sqlite3_stmt *statement = NULL;
    escqrs_erased erased = {0};
    escqrs_status status =
        esc_connection_statement(sqlite, connection, ESC_SQL_STREAM_ID, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, name.data, (int)name.size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    int64_t id = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    if (code == SQLITE_DONE) {
        status =
            esc_stream_index_add(index, sqlite->writer.last_stream + 1, name, 0, false, result);
        sqlite->writer.last_stream += status == ESCQRS_OK;
    } else if (code != SQLITE_ROW) {
        return esc_sqlite_fail(sqlite, code, error);
    } else if (id < 1 || ((*result = esc_stream_index_find_id(index, id)) != NULL &&
                          (*result)->name != NULL)) { /* two names of one stream */
        return esc_sqlite_bad_number(sqlite, name, id, error);
    } else if (esc_provider_deletions(&sqlite->base) > 0 &&
               (status = esc_sqlite_erased_of(sqlite, connection, id, &erased, error)) !=
                   ESCQRS_OK) {
        return status;
    } else if (*result != NULL) {
        status = esc_stream_index_name(index, *result, name);
    } else {
        int64_t version;
        status = esc_sqlite_index_last(sqlite, connection, id, &version, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        version = version > erased.upto ? version : erased.upto;
        if (version == 0) { /* it would be written to from version 1 once more */
            return esc_sqlite_not_indexed(sqlite, name, id, error);
        }
        status = esc_stream_index_add(index, id, name, version, true, result);
    }
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status, "no memory for a stream's entry");
    }
    (*result)->closed = (*result)->closed || erased.closed;
    return ESCQRS_OK;
}

static escqrs_status check_write(esc_sqlite *sqlite, const escqrs_write *write, esc_stream **stream,
                                 escqrs_error *error)
{
    escqrs_status status = esc_sqlite_resolve(sqlite, write->stream, stream, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    ESC_ASSERT(*stream != NULL);
    int64_t actual = (*stream)->pending + (*stream)->planned;
    if ((*stream)->closed) {
        return esc_sqlite_say_closed(write->stream, actual, error);
    }
    if (write->expected != ESCQRS_EXPECT_ANY && write->expected != actual) {
        status = escqrs_error_set(error, ESCQRS_WRONG_VERSION,
                                  "stream %.*s is at version %lld, not %lld",
                                  (int)write->stream.size, (const char *)write->stream.data,
                                  (long long)actual, (long long)write->expected);
        if (error != NULL) {
            error->expected = write->expected;
            error->actual = error->version = actual;
            esc_error_subject(error, write->stream);
        }
        return status;
    }
    status =
        esc_stream_index_reserve(&sqlite->index, *stream, (*stream)->planned + write->event_count);
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status, "no memory for a stream's entry");
    }
    (*stream)->planned += (uint32_t)write->event_count;
    return ESCQRS_OK;
}

static escqrs_status check_checkpoint(esc_sqlite *sqlite, const escqrs_commit *commit,
                                      escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, &sqlite->writer.connection,
                                                    ESC_SQL_CHECKPOINT, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, commit->checkpoint.data, (int)commit->checkpoint.size,
                      SQLITE_STATIC);
    int code = sqlite3_step(statement);
    int64_t current = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_reset(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return esc_sqlite_fail(sqlite, code, error);
    }
    if (commit->checkpoint_position > current) {
        return ESCQRS_OK;
    }
    (void)escqrs_error_set(error, ESCQRS_CHECKPOINT_BEHIND,
                           "checkpoint %.*s is at %lld already and does not move to %lld",
                           (int)commit->checkpoint.size, (const char *)commit->checkpoint.data,
                           (long long)current, (long long)commit->checkpoint_position);
    if (error != NULL) {
        error->expected = commit->checkpoint_position;
        error->actual = current;
        esc_error_subject(error, commit->checkpoint);
    }
    return ESCQRS_CHECKPOINT_BEHIND;
}

static escqrs_status check_snapshot(esc_sqlite *sqlite, const escqrs_new_snapshot *snapshot,
                                    escqrs_error *error)
{
    esc_stream *stream;
    escqrs_status status = esc_sqlite_resolve(sqlite, snapshot->stream, &stream, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int64_t actual = stream->pending + stream->planned;
    if (stream->closed) {
        return esc_sqlite_say_closed(snapshot->stream, actual, error);
    }
    if (snapshot->version >= 1 && snapshot->version <= actual) {
        return ESCQRS_OK;
    }
    status = escqrs_error_set(error, ESCQRS_INVALID,
                              "a snapshot of stream %.*s at version %lld, which has %lld",
                              (int)snapshot->stream.size, (const char *)snapshot->stream.data,
                              (long long)snapshot->version, (long long)actual);
    esc_error_subject(error, snapshot->stream);
    return status;
}

/* The result of the first commit with the key, from its row. */
static escqrs_status take_result(esc_sqlite *sqlite, sqlite3_stmt *statement, escqrs_commit *commit,
                                 escqrs_error *error)
{
    int64_t position = sqlite3_column_int64(statement, 0);
    const uint8_t *bytes = sqlite3_column_blob(statement, 1);
    size_t size = (size_t)sqlite3_column_bytes(statement, 1), done = 0;
    bool fine = position >= 0 && position < sqlite->writer.next_position &&
                sqlite3_column_type(statement, 1) == SQLITE_BLOB;
    for (size_t i = 0; fine && i < commit->write_count; i++) {
        uint64_t version = 0;
        size_t used = size > done ? esc_varint_decode(bytes + done, size - done, &version) : 0;
        fine = used > 0 && version <= (uint64_t)position;
        commit->writes[i].version = (int64_t)version;
        done += used;
    }
    if (!fine || done != size) {
        (void)escqrs_error_set(error, ESCQRS_CORRUPT,
                               "%s is damaged: the result of key %.*s does not read", sqlite->shown,
                               (int)commit->key.size, (const char *)commit->key.data);
        esc_error_subject(error, commit->key);
        return ESCQRS_CORRUPT;
    }
    commit->repeated = true;
    commit->position = position;
    return ESCQRS_OK;
}

/* *found: the key was used. Then the first result is filled in, or the status is KEY_REUSED. */
static escqrs_status check_key(esc_sqlite *sqlite, escqrs_commit *commit, uint64_t hash,
                               bool *found, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, &sqlite->writer.connection, ESC_SQL_KEY,
                                                    &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, commit->key_scope.size > 0 ? commit->key_scope.data : "",
                      (int)commit->key_scope.size, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, commit->key.data, (int)commit->key.size, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    *found = code == SQLITE_ROW;
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_fail(sqlite, code, error);
    } else if (*found && (uint64_t)sqlite3_column_int64(statement, 2) != hash) {
        status = escqrs_error_set(error, ESCQRS_KEY_REUSED, "key %.*s was used for other events",
                                  (int)commit->key.size, (const char *)commit->key.data);
        esc_error_subject(error, commit->key);
    } else if (*found) {
        status = take_result(sqlite, statement, commit, error);
    }
    sqlite3_reset(statement);
    return status;
}

/* ---- writes ----------------------------------------------------------------------------------- */

static escqrs_status step(esc_sqlite *sqlite, sqlite3_stmt *statement, escqrs_error *error)
{
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? ESCQRS_OK : esc_sqlite_fail(sqlite, code, error);
}

/* As esc_connection_statement, in the middle of writing. */
static escqrs_status statement_for(esc_sqlite *sqlite, esc_statement which,
                                   sqlite3_stmt **statement, escqrs_error *error)
{
    escqrs_status status =
        esc_connection_statement(sqlite, &sqlite->writer.connection, which, statement, error);
    sqlite->base.broken = sqlite->base.broken || status != ESCQRS_OK;
    return status;
}

static escqrs_status store_type(esc_sqlite *sqlite, escqrs_type *type, escqrs_error *error)
{
    /* relaxed: only the leader sets it */
    if (type->pending || atomic_load_explicit(&type->stored, memory_order_relaxed)) {
        return ESCQRS_OK;
    }
    if (esc_vector_push(&sqlite->writer.types, &type) != ESCQRS_OK) {
        return esc_sqlite_no_memory(sqlite, error);
    }
    type->pending = true;
    sqlite3_stmt *statement = NULL;
    escqrs_status status = statement_for(sqlite, ESC_SQL_ADD_TYPE, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, type->id);
    sqlite3_bind_text(statement, 2, type->name.data, (int)type->name.size, SQLITE_STATIC);
    sqlite3_bind_blob(statement, 3, type->record.data, (int)type->record.size, SQLITE_STATIC);
    return step(sqlite, statement, error);
}

static escqrs_status store_stream(esc_sqlite *sqlite, esc_stream *stream, escqrs_error *error)
{
    if (stream->stored || stream->made) {
        return ESCQRS_OK;
    }
    if (esc_stream_index_touch(&sqlite->index, stream) != ESCQRS_OK) {
        return esc_sqlite_no_memory(sqlite, error);
    }
    sqlite3_stmt *statement = NULL;
    escqrs_status status = statement_for(sqlite, ESC_SQL_ADD_STREAM, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream->id);
    sqlite3_bind_text(statement, 2, stream->name, (int)stream->name_size, SQLITE_STATIC);
    status = step(sqlite, statement, error);
    stream->made = status == ESCQRS_OK;
    return status;
}

static escqrs_status store_event(esc_sqlite *sqlite, const escqrs_commit *commit,
                                 esc_stream *stream, const escqrs_new_event *event, int64_t ordinal,
                                 escqrs_error *error)
{
    escqrs_status status = store_type(sqlite, event->type, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    esc_buffer *buffer = &sqlite->writer.header;
    esc_buffer_reset(buffer);
    if (esc_event_header_encode(commit, event, buffer) != ESCQRS_OK) {
        return esc_sqlite_no_memory(sqlite, error);
    }
    escqrs_slice header = esc_buffer_slice(buffer);
    if (event->time_us != 0) {
        sqlite->writer.last_time_us = event->time_us;
    }
    esc_row row = {
        .position = sqlite->writer.next_position,
        .stream = stream->id,
        .version = stream->pending + 1,
        .type = event->type->id,
        .time_us = sqlite->writer.last_time_us,
        .ordinal = ordinal,
        .name_hash = stream->name_hash,
        .type_hash = event->type->hash,
    };
    sqlite3_stmt *statement = NULL;
    status = statement_for(sqlite, ESC_SQL_ADD_EVENT, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, row.position);
    sqlite3_bind_int64(statement, 2, row.stream);
    sqlite3_bind_int64(statement, 3, row.version);
    sqlite3_bind_int64(statement, 4, row.type);
    sqlite3_bind_int64(statement, 5, row.time_us);
    sqlite3_bind_int64(statement, 6, row.ordinal);
    if (header.size > 0) {
        sqlite3_bind_blob(statement, 7, header.data, (int)header.size, SQLITE_STATIC);
    } else {
        sqlite3_bind_null(statement, 7);
    }
    sqlite3_bind_blob(statement, 8, event->data.size > 0 ? event->data.data : "",
                      (int)event->data.size, SQLITE_STATIC);
    sqlite3_bind_int(statement, 9, esc_row_checksum(&row, header, event->data, sqlite->salt));
    status = step(sqlite, statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (sqlite->chained) {
        status = esc_sqlite_chain_add(sqlite, &row, (escqrs_slice){stream->name, stream->name_size},
                                      event, header, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    if (event->tag_count > 0 || event->id != NULL || event->id_text.size > 0) {
        int code = esc_sqlite_index_event(sqlite, event, row.position, error);
        if (code != SQLITE_DONE) {
            return esc_sqlite_fail(sqlite, code, error);
        }
    }
    if (esc_stream_index_push(&sqlite->index, stream, row.position) != ESCQRS_OK) {
        return esc_sqlite_no_memory(sqlite, error);
    }
    event->type->last_position = row.position;
    sqlite->writer.next_position++;
    return ESCQRS_OK;
}

static escqrs_status store_snapshot(esc_sqlite *sqlite, const escqrs_new_snapshot *snapshot,
                                    escqrs_error *error)
{
    esc_stream *stream = esc_stream_index_find(&sqlite->index, snapshot->stream);
    escqrs_status status = store_type(sqlite, snapshot->type, error);
    sqlite3_stmt *statement = NULL;
    if (status == ESCQRS_OK) {
        status = statement_for(sqlite, ESC_SQL_PUT_SNAPSHOT, &statement, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream->id);
    sqlite3_bind_int64(statement, 2, snapshot->version);
    sqlite3_bind_int64(statement, 3, snapshot->type->id);
    sqlite3_bind_blob(statement, 4, snapshot->data.size > 0 ? snapshot->data.data : "",
                      (int)snapshot->data.size, SQLITE_STATIC);
    sqlite3_bind_int(statement, 5,
                     esc_snapshot_checksum(stream->id, snapshot->version, snapshot->type,
                                           snapshot->data, sqlite->salt));
    status = step(sqlite, statement, error);
    if (status == ESCQRS_OK && snapshot->keep > 0) {
        status = statement_for(sqlite, ESC_SQL_TRIM_SNAPSHOTS, &statement, error);
    }
    if (status != ESCQRS_OK || snapshot->keep <= 0) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, stream->id);
    sqlite3_bind_int64(statement, 2, snapshot->keep);
    return step(sqlite, statement, error);
}

static escqrs_status store_checkpoint(esc_sqlite *sqlite, const escqrs_commit *commit,
                                      escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = statement_for(sqlite, ESC_SQL_PUT_CHECKPOINT, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, commit->checkpoint.data, (int)commit->checkpoint.size,
                      SQLITE_STATIC);
    sqlite3_bind_int64(statement, 2, commit->checkpoint_position);
    return step(sqlite, statement, error);
}

static escqrs_status store_key(esc_sqlite *sqlite, const escqrs_commit *commit, uint64_t hash,
                               escqrs_error *error)
{
    esc_buffer *versions = &sqlite->writer.header;
    esc_buffer_reset(versions);
    for (size_t i = 0; i < commit->write_count; i++) {
        uint8_t bytes[ESC_VARINT_SIZE_MAX];
        size_t size = esc_varint_encode((uint64_t)commit->writes[i].version, bytes);
        if (esc_buffer_append(versions, bytes, size) != ESCQRS_OK) {
            return esc_sqlite_no_memory(sqlite, error);
        }
    }
    sqlite3_stmt *statement = NULL;
    escqrs_status status = statement_for(sqlite, ESC_SQL_PUT_KEY, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, commit->key_scope.size > 0 ? commit->key_scope.data : "",
                      (int)commit->key_scope.size, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, commit->key.data, (int)commit->key.size, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, commit->position);
    sqlite3_bind_blob(statement, 4, versions->size > 0 ? (const void *)versions->data : "",
                      (int)versions->size, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 5, (int64_t)hash);
    sqlite3_bind_blob(statement, 6, commit->reply.size > 0 ? commit->reply.data : "",
                      (int)commit->reply.size, SQLITE_STATIC);
    return step(sqlite, statement, error);
}

/* All of its events have one, or none. */
static bool has_times(const escqrs_commit *commit)
{
    for (size_t i = 0; i < commit->write_count; i++) {
        if (commit->writes[i].event_count > 0) {
            return commit->writes[i].events[0].time_us != 0;
        }
    }
    return false;
}

/* Do the times that the commit gives go on from the last one? */
static escqrs_status check_times(const esc_sqlite *sqlite, const escqrs_commit *commit,
                                 escqrs_error *error)
{
    int64_t last = sqlite->writer.last_time_us;
    for (size_t i = 0; has_times(commit) && i < commit->write_count; i++) {
        for (size_t j = 0; j < commit->writes[i].event_count; j++) {
            int64_t time = commit->writes[i].events[j].time_us;
            if (time < last) {
                return escqrs_error_set(error, ESCQRS_INVALID,
                                        "the time of an event is %lld us, before the %lld us of "
                                        "the event before it",
                                        (long long)time, (long long)last);
            }
            last = time;
        }
    }
    return ESCQRS_OK;
}

/* The time of the commit's events, unless they have their own. */
static void take_time(esc_sqlite *sqlite, const escqrs_commit *commit)
{
    int64_t now = has_times(commit) ? 0 : escqrs_clock_now_us(&sqlite->clock);
    if (now > sqlite->writer.last_time_us) { /* or the clock went back: time stands */
        sqlite->writer.last_time_us = now;
    }
}

static escqrs_status store_writes(esc_sqlite *sqlite, escqrs_commit *commit, escqrs_error *error)
{
    int64_t ordinal = 0;
    for (size_t i = 0; i < commit->write_count; i++) {
        escqrs_write *write = &commit->writes[i];
        esc_stream *stream = esc_sqlite_stream_of(sqlite, i);
        escqrs_status status =
            write->event_count > 0 ? store_stream(sqlite, stream, error) : ESCQRS_OK;
        for (size_t j = 0; j < write->event_count && status == ESCQRS_OK; j++) {
            status = store_event(sqlite, commit, stream, &write->events[j], ordinal++, error);
        }
        if (status != ESCQRS_OK) {
            return status;
        }
        write->version = stream->pending;
    }
    commit->position = sqlite->writer.next_position - 1;
    return ESCQRS_OK;
}

/* Checks the writes; their streams are in writer.streams then, those before the one that failed. */
static escqrs_status check_writes(esc_sqlite *sqlite, const escqrs_commit *commit,
                                  escqrs_error *error)
{
    esc_vector *streams = &sqlite->writer.streams;
    esc_vector_clear(streams);
    if (esc_vector_reserve(streams, commit->write_count) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a commit");
    }
    for (size_t i = 0; i < commit->write_count; i++) {
        esc_stream *stream;
        escqrs_status status = check_write(sqlite, &commit->writes[i], &stream, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        ESC_VECTOR_AT(streams, esc_stream *, i) = stream;
        streams->count++;
    }
    return ESCQRS_OK;
}

void esc_sqlite_unplan(esc_sqlite *sqlite)
{
    for (size_t i = 0; i < sqlite->writer.streams.count; i++) {
        esc_sqlite_stream_of(sqlite, i)->planned = 0;
    }
}

/* All checks. *repeated: the key was used for the same, and nothing is to be written. */
static escqrs_status check(esc_sqlite *sqlite, escqrs_commit *commit, uint64_t hash, bool *repeated,
                           escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (commit->key.size > 0) {
        status = check_key(sqlite, commit, hash, repeated, error);
        if (status != ESCQRS_OK || *repeated) {
            return status;
        }
    }
    status = check_writes(sqlite, commit, error);
    if (status == ESCQRS_OK && commit->snapshot != NULL) {
        status = check_snapshot(sqlite, commit->snapshot, error);
    }
    esc_sqlite_unplan(sqlite);
    if (status == ESCQRS_OK && commit->condition != NULL) {
        status = esc_sqlite_check_condition(sqlite, commit->condition, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_sqlite_check_ids(sqlite, commit, error);
    }
    if (status == ESCQRS_OK) {
        status = check_times(sqlite, commit, error);
    }
    if (status == ESCQRS_OK && commit->checkpoint.size > 0) {
        status = check_checkpoint(sqlite, commit, error);
    }
    return status;
}

escqrs_status esc_sqlite_apply(escqrs_provider *self, escqrs_commit *commit, escqrs_error *error)
{
    esc_sqlite *sqlite = (esc_sqlite *)self;
    uint64_t hash = commit->key.size > 0 ? escqrs_commit_fingerprint(commit) : 0;
    bool repeated = false;
    commit->repeated = false;
    escqrs_status status = check(sqlite, commit, hash, &repeated, error);
    if (status != ESCQRS_OK || repeated) {
        /* A read that failed badly has rolled back the whole batch. */
        self->broken = self->broken || sqlite3_get_autocommit(sqlite->writer.connection.db);
        return status;
    }
    take_time(sqlite, commit);
    if (self->inliner != NULL && (status = esc_sqlite_inline(sqlite, commit, error)) != ESCQRS_OK) {
        return status;
    }
    status = store_writes(sqlite, commit, error);
    if (status == ESCQRS_OK && commit->snapshot != NULL) {
        status = store_snapshot(sqlite, commit->snapshot, error);
    }
    if (status == ESCQRS_OK && commit->checkpoint.size > 0) {
        status = store_checkpoint(sqlite, commit, error);
    }
    if (status == ESCQRS_OK && commit->key.size > 0) {
        status = store_key(sqlite, commit, hash, error);
    }
    ESC_ASSERT(status == ESCQRS_OK || self->broken);
    return status;
}
