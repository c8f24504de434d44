/* What others write in the transaction of a commit; see escqrs_inliner.
 *
 * They come before the events, when all checks of the commit are done: a commit that they refuse is
 * one more failed check. What they wrote of it by then is taken back by a savepoint, but only where
 * the batch is done `careful`ly; a batch without refusals has no savepoints. */
#include "store/sqlite_provider.h"

#include "base/assert.h"
#include "base/error.h"
#include "store/event_header.h"

static escqrs_recorded describe(const esc_sqlite *sqlite, const escqrs_commit *commit,
                                const escqrs_write *write, const escqrs_new_event *event,
                                int64_t position, int64_t version)
{
    escqrs_recorded recorded = {
        .position = position,
        .version = version,
        .time_us = event->time_us != 0 ? event->time_us : sqlite->writer.last_time_us,
        .stream = write->stream,
        .type = event->type,
        .data = event->data,
        .id_text = event->id_text,
        .metadata = event->origin != NULL ? event->origin->metadata : commit->metadata,
        .metadata_count =
            event->origin != NULL ? event->origin->metadata_count : commit->metadata_count,
        .tags = event->tags,
        .tag_count = event->tag_count,
    };
    recorded.id = event->id != NULL
                      ? *event->id
                      : esc_event_id(recorded.time_us, position, (uint32_t)sqlite->salt);
    return recorded;
}

static escqrs_status collect_write(esc_sqlite *sqlite, const escqrs_commit *commit,
                                   const escqrs_write *write, int64_t *position, int64_t version)
{
    for (size_t i = 0; i < write->event_count; i++) {
        escqrs_recorded recorded =
            describe(sqlite, commit, write, &write->events[i], (*position)++, ++version);
        if (esc_vector_push(&sqlite->writer.inlined, &recorded) != ESCQRS_OK) {
            return ESCQRS_NO_MEMORY;
        }
    }
    return ESCQRS_OK;
}

/* `planned` counts the events of each stream in the writes before, and is zero again afterwards. */
static escqrs_status collect(esc_sqlite *sqlite, const escqrs_commit *commit)
{
    int64_t position = sqlite->writer.next_position;
    escqrs_status status = ESCQRS_OK;
    esc_vector_clear(&sqlite->writer.inlined);
    for (size_t i = 0; i < commit->write_count && status == ESCQRS_OK; i++) {
        const escqrs_write *write = &commit->writes[i];
        esc_stream *stream = esc_sqlite_stream_of(sqlite, i);
        status = collect_write(sqlite, commit, write, &position, stream->pending + stream->planned);
        stream->planned += (uint32_t)write->event_count;
    }
    esc_sqlite_unplan(sqlite);
    return status;
}

static bool run(esc_sqlite *sqlite, const char *sql)
{
    return sqlite3_exec(sqlite->writer.connection.db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

escqrs_status esc_sqlite_inline(esc_sqlite *sqlite, const escqrs_commit *commit,
                                escqrs_error *error)
{
    escqrs_provider *self = &sqlite->base;
    const escqrs_inliner *inliner = self->inliner;
    sqlite3 *db = sqlite->writer.connection.db;
    if (collect(sqlite, commit) != ESCQRS_OK) {
        self->broken = true;
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for inline read models");
    }
    esc_vector *events = &sqlite->writer.inlined;
    if (events->count == 0) {
        return ESCQRS_OK;
    }
    if (self->careful && !run(sqlite, "SAVEPOINT escqrs_commit")) {
        self->broken = true;
        return esc_sqlite_error(sqlite, db, sqlite3_errcode(db), error, "cannot write to");
    }
    escqrs_status status =
        inliner->events(inliner->context, db, events->items, events->count, error);
    if (status == ESCQRS_OK) {
        self->broken = self->careful && !run(sqlite, "RELEASE escqrs_commit");
        return self->broken
                   ? esc_sqlite_error(sqlite, db, sqlite3_errcode(db), error, "cannot write to")
                   : ESCQRS_OK;
    }
    /* ROLLBACK TO fails after a statement that rolled back all there was. */
    bool is_taken_back = status == ESCQRS_REJECTED && self->careful &&
                         run(sqlite, "ROLLBACK TO escqrs_commit; RELEASE escqrs_commit");
    self->broken = !is_taken_back;
    self->refused = status == ESCQRS_REJECTED && !self->careful;
    return status;
}
