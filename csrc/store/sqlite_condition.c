/* See sqlite_provider.h. What a commit may ask of the events before it: conditions, and ids that
 * are unique; and the two indexes for that, which have rows only where tags and ids were given.
 *
 * Tags: escqrs_tag has a row for each tag of each event. Several tags are intersected by leaping:
 * each tag in turn is asked for its next position, until all name the same.
 *
 * Types have no index. Memory knows of each type the last position in the part of the journal that
 * it has watched: all that was written since the file was opened, and what a scan for a condition
 * has seen. A condition on types that did not occur since `after` costs no look at the file; one
 * that reaches back further than was ever watched scans that part once.
 *
 * All of it but esc_sqlite_next_tagged is the journal's leader's. */
#include "store/sqlite_provider.h"

#include <string.h>

#include "base/error.h"
#include "store/event_header.h"

/* ---- tags ------------------------------------------------------------------------------------- */

/* The tag's first position in low .. high (the last one if `reverse`); 0 where there is none. */
static escqrs_status look_tag(const esc_sqlite *sqlite, esc_connection *connection,
                              escqrs_slice tag, int64_t low, int64_t high, bool reverse,
                              int64_t *position, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(
        sqlite, connection, reverse ? ESC_SQL_TAG_BEFORE : ESC_SQL_TAG_AFTER, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_text(statement, 1, tag.size > 0 ? tag.data : "", (int)tag.size, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 2, low);
    sqlite3_bind_int64(statement, 3, high);
    int code = sqlite3_step(statement);
    *position = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = esc_sqlite_error(sqlite, connection->db, code, error, "cannot read");
    }
    sqlite3_reset(statement);
    return status;
}

/* The first position in low .. high (the last one if `reverse`) whose event bears all tags; 0 where
 * there is none. */
static escqrs_status look_tags(const esc_sqlite *sqlite, esc_connection *connection,
                               const escqrs_match *match, int64_t low, int64_t high, bool reverse,
                               int64_t *position, escqrs_error *error)
{
    size_t agreed = 0; /* tags in a row that name the same position */
    *position = 0;
    for (size_t i = 0; agreed < match->tag_count && low <= high; i = (i + 1) % match->tag_count) {
        int64_t found;
        escqrs_status status =
            look_tag(sqlite, connection, match->tags[i], low, high, reverse, &found, error);
        if (status != ESCQRS_OK || found == 0) {
            *position = 0;
            return status;
        }
        agreed = found == *position ? agreed + 1 : 1;
        *position = found;
        if (reverse) {
            high = found;
        } else {
            low = found;
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_sqlite_next_tagged(const esc_sqlite *sqlite, esc_connection *connection,
                                     const escqrs_match *matches, size_t count, int64_t low,
                                     int64_t high, bool reverse, int64_t *position,
                                     escqrs_error *error)
{
    *position = 0;
    for (size_t i = 0; i < count && low <= high; i++) {
        int64_t found;
        escqrs_status status =
            look_tags(sqlite, connection, &matches[i], low, high, reverse, &found, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        if (found != 0) {
            *position = found;
            if (reverse) { /* only a nearer one is of interest */
                low = found + 1;
            } else {
                high = found - 1;
            }
        }
    }
    return ESCQRS_OK;
}

/* ---- types ------------------------------------------------------------------------------------ */

/* Every event of the type above this position is known of. */
static int64_t watched_from(const esc_sqlite *sqlite, const escqrs_type *type)
{
    /* relaxed: only the leader sets it */
    if (!type->pending && !atomic_load_explicit(&type->stored, memory_order_relaxed)) {
        return 0;
    }
    return type->watched ? type->watched_from : sqlite->writer.opened_at;
}

static bool names_type(const escqrs_match *match, const escqrs_type *type)
{
    for (size_t i = 0; i < match->type_count; i++) {
        if (escqrs_slice_equal(match->types[i], type->name)) {
            return true;
        }
    }
    return match->type_count == 0;
}

/* How far beyond `after` an event of the match's types may be; `after` itself: there is none. */
static int64_t types_upto(esc_sqlite *sqlite, const escqrs_match *match, int64_t after)
{
    int64_t upto = after;
    int64_t last = esc_type_registry_last(&sqlite->base.core->types);
    for (int64_t id = 1; id <= last; id++) {
        const escqrs_type *type = esc_type_registry_find(&sqlite->base.core->types, id);
        if (type != NULL && names_type(match, type)) {
            int64_t from = watched_from(sqlite, type);
            upto = type->last_position > upto ? type->last_position : upto;
            upto = from > upto ? from : upto;
        }
    }
    return upto;
}

/* No event of these types stands above `after`. */
static void note_absence(esc_sqlite *sqlite, const escqrs_match *match, int64_t after)
{
    int64_t last = esc_type_registry_last(&sqlite->base.core->types);
    for (int64_t id = 1; id <= last; id++) {
        escqrs_type *type = esc_type_registry_find(&sqlite->base.core->types, id);
        if (type != NULL && names_type(match, type) && watched_from(sqlite, type) > after) {
            type->watched = true;
            type->watched_from = after;
        }
    }
}

static bool is_of_type(esc_sqlite *sqlite, const escqrs_match *match, int64_t id)
{
    const escqrs_type *type = esc_type_registry_find(&sqlite->base.core->types, id);
    return type != NULL && names_type(match, type);
}

/* ---- conditions ------------------------------------------------------------------------------- */

static escqrs_status bad_read(esc_sqlite *sqlite, int code, escqrs_error *error)
{
    return esc_sqlite_error(sqlite, sqlite->writer.connection.db, code, error, "cannot read");
}

/* The first event after .. upto of the match's types; 0 where there is none. */
static escqrs_status scan_types(esc_sqlite *sqlite, const escqrs_match *match, int64_t after,
                                int64_t upto, int64_t *position, escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, &sqlite->writer.connection,
                                                    ESC_SQL_EVENT_TYPES, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, after);
    sqlite3_bind_int64(statement, 2, upto);
    int code;
    *position = 0;
    int64_t last_type = 0;
    bool last_fits = false; /* neighbours often are of one type */
    while (*position == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        int64_t type = sqlite3_column_int64(statement, 1);
        if (type != last_type) {
            last_type = type;
            last_fits = is_of_type(sqlite, match, type);
        }
        *position = last_fits ? sqlite3_column_int64(statement, 0) : 0;
    }
    if (*position == 0 && code != SQLITE_DONE) {
        status = bad_read(sqlite, code, error);
    }
    sqlite3_reset(statement);
    return status;
}

/* The first event after .. upto that bears the match's tags and is of its types. */
static escqrs_status scan_tags(esc_sqlite *sqlite, const escqrs_match *match, int64_t after,
                               int64_t upto, int64_t *position, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    esc_connection *connection = &sqlite->writer.connection;
    for (;;) {
        status = look_tags(sqlite, connection, match, after + 1, upto, false, position, error);
        if (status != ESCQRS_OK || *position == 0 || match->type_count == 0) {
            return status;
        }
        int64_t found;
        status = scan_types(sqlite, match, *position - 1, *position, &found, error);
        if (status != ESCQRS_OK || found != 0) {
            return status;
        }
        after = *position;
    }
}

/* The first event above `after` that matches; 0 where there is none. */
static escqrs_status first_match(esc_sqlite *sqlite, const escqrs_match *match, int64_t after,
                                 int64_t *position, escqrs_error *error)
{
    int64_t upto = sqlite->writer.next_position - 1;
    *position = 0;
    if (match->type_count > 0) {
        upto = types_upto(sqlite, match, after);
    }
    if (upto <= after) {
        return ESCQRS_OK;
    }
    if (match->tag_count > 0) {
        return scan_tags(sqlite, match, after, upto, position, error);
    }
    if (match->type_count == 0) {
        *position = after + 1;
        return ESCQRS_OK;
    }
    escqrs_status status = scan_types(sqlite, match, after, upto, position, error);
    if (status == ESCQRS_OK && *position == 0) {
        note_absence(sqlite, match, after);
    }
    return status;
}

escqrs_status esc_sqlite_check_condition(esc_sqlite *sqlite, const escqrs_condition *condition,
                                         escqrs_error *error)
{
    static const escqrs_match every;
    const escqrs_match *matches = condition->match_count > 0 ? condition->matches : &every;
    size_t count = condition->match_count > 0 ? condition->match_count : 1;
    int64_t first = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t position;
        escqrs_status status = first_match(sqlite, &matches[i], condition->after, &position, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        if (position != 0 && (first == 0 || position < first)) {
            first = position;
        }
    }
    if (first == 0) {
        return ESCQRS_OK;
    }
    (void)escqrs_error_set(error, ESCQRS_CONDITION_FAILED,
                           "the event at position %lld matches what the commit wants to be absent "
                           "after position %lld",
                           (long long)first, (long long)condition->after);
    if (error != NULL) {
        error->position = first;
    }
    return ESCQRS_CONDITION_FAILED;
}

/* ---- ids -------------------------------------------------------------------------------------- */

static void bind_id(sqlite3_stmt *statement, const escqrs_new_event *event)
{
    if (event->id != NULL) {
        sqlite3_bind_blob(statement, 1, event->id->bytes, sizeof event->id->bytes, SQLITE_STATIC);
    } else {
        sqlite3_bind_text(statement, 1, event->id_text.data, (int)event->id_text.size,
                          SQLITE_STATIC);
    }
}

static bool has_id(const escqrs_new_event *event)
{
    return event->id != NULL || event->id_text.size > 0;
}

/* The position of an event that the store itself gave that id; 0 where there is none. */
static escqrs_status look_own_id(esc_sqlite *sqlite, const escqrs_uuid *id, int64_t *position,
                                 escqrs_error *error)
{
    *position = 0;
    int64_t candidate = esc_event_id_position(id, (uint32_t)sqlite->salt);
    if (candidate == 0 || candidate >= sqlite->writer.next_position) {
        return ESCQRS_OK;
    }
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_connection_statement(sqlite, &sqlite->writer.connection,
                                                    ESC_SQL_EVENT, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, candidate);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        escqrs_uuid own =
            esc_event_id(sqlite3_column_int64(statement, 4), candidate, (uint32_t)sqlite->salt);
        *position = memcmp(own.bytes, id->bytes, sizeof own.bytes) == 0 ? candidate : 0;
    } else if (code != SQLITE_DONE) {
        status = bad_read(sqlite, code, error);
    }
    sqlite3_reset(statement);
    return status;
}

static escqrs_status look_id(esc_sqlite *sqlite, const escqrs_new_event *event, int64_t *position,
                             escqrs_error *error)
{
    sqlite3_stmt *statement = NULL;
    escqrs_status status =
        esc_connection_statement(sqlite, &sqlite->writer.connection, ESC_SQL_ID, &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    bind_id(statement, event);
    int code = sqlite3_step(statement);
    *position = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = bad_read(sqlite, code, error);
    }
    sqlite3_reset(statement);
    if (status == ESCQRS_OK && *position == 0 && event->id != NULL) {
        status = look_own_id(sqlite, event->id, position, error);
    }
    return status;
}

static escqrs_status check_id(esc_sqlite *sqlite, const escqrs_new_event *event,
                              escqrs_error *error)
{
    int64_t position;
    escqrs_status status = look_id(sqlite, event, &position, error);
    if (status != ESCQRS_OK || position == 0) {
        return status;
    }
    char uuid[ESCQRS_UUID_TEXT_SIZE] = "";
    escqrs_slice id = event->id_text;
    if (event->id != NULL) {
        escqrs_uuid_format(event->id, uuid);
        id = escqrs_slice_of(uuid);
    }
    (void)escqrs_error_set(error, ESCQRS_KEY_REUSED,
                           "the event at position %lld has the id %.*s already",
                           (long long)position, (int)id.size, (const char *)id.data);
    esc_error_subject(error, id);
    return ESCQRS_KEY_REUSED;
}

escqrs_status esc_sqlite_check_ids(esc_sqlite *sqlite, const escqrs_commit *commit,
                                   escqrs_error *error)
{
    for (size_t i = 0; i < commit->write_count; i++) {
        for (size_t j = 0; j < commit->writes[i].event_count; j++) {
            const escqrs_new_event *event = &commit->writes[i].events[j];
            escqrs_status status = has_id(event) ? check_id(sqlite, event, error) : ESCQRS_OK;
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    return ESCQRS_OK;
}

/* ---- writing ---------------------------------------------------------------------------------- */

int esc_sqlite_index_event(esc_sqlite *sqlite, const escqrs_new_event *event, int64_t position,
                           escqrs_error *error)
{
    esc_connection *connection = &sqlite->writer.connection;
    sqlite3_stmt *statement = NULL;
    int code = SQLITE_DONE;
    if (has_id(event)) {
        if (esc_connection_statement(sqlite, connection, ESC_SQL_PUT_ID, &statement, error) !=
            ESCQRS_OK) {
            return sqlite3_errcode(connection->db);
        }
        bind_id(statement, event);
        sqlite3_bind_int64(statement, 2, position);
        code = sqlite3_step(statement);
        sqlite3_reset(statement);
    }
    if (event->tag_count > 0 && code == SQLITE_DONE &&
        esc_connection_statement(sqlite, connection, ESC_SQL_PUT_TAG, &statement, error) !=
            ESCQRS_OK) {
        return sqlite3_errcode(connection->db);
    }
    for (size_t i = 0; i < event->tag_count && code == SQLITE_DONE; i++) {
        sqlite3_bind_text(statement, 1, event->tags[i].size > 0 ? event->tags[i].data : "",
                          (int)event->tags[i].size, SQLITE_STATIC);
        sqlite3_bind_int64(statement, 2, position);
        code = sqlite3_step(statement);
        sqlite3_reset(statement);
    }
    return code;
}
