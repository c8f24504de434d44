/* See commit_check.h. Locks: none. */
#include "store/commit_check.h"

#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "base/utf8.h"

#define KEY_BYTES_MAX 4096
#define TAGS_MAX 1000
#define METADATA_MAX 1000
#define ID_BYTES_MAX 255 /* of an id that is no UUID */

static escqrs_status invalid(escqrs_error *error, const char *what)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "%s", what);
}

static bool is_name(escqrs_slice text, size_t max)
{
    return text.size >= 1 && text.size <= max && memchr(text.data, 0, text.size) == NULL &&
           esc_utf8_valid(text);
}

static bool is_text(escqrs_slice text, size_t max)
{
    return text.size <= max && (text.size == 0 || esc_utf8_valid(text));
}

static escqrs_status check_id_text(escqrs_slice text, escqrs_error *error)
{
    return is_text(text, ID_BYTES_MAX)
               ? ESCQRS_OK
               : escqrs_error_set(error, ESCQRS_INVALID, "an id has at most %d bytes of UTF-8",
                                  ID_BYTES_MAX);
}

/* Of an event, or of a commit for all of its events. */
static escqrs_status check_metadata(const char *of, const escqrs_pair *metadata, size_t count,
                                    size_t *size, escqrs_error *error)
{
    if (count > METADATA_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "%s has at most %d pieces of metadata", of,
                                METADATA_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_text(metadata[i].key, SIZE_MAX) || !is_text(metadata[i].value, SIZE_MAX)) {
            return invalid(error, "a piece of metadata is text in UTF-8");
        }
        *size += metadata[i].key.size + metadata[i].value.size;
    }
    return ESCQRS_OK;
}

static escqrs_status check_origin(const escqrs_origin *origin, size_t *size, escqrs_error *error)
{
    escqrs_status status = check_id_text(origin->correlation_text, error);
    if (status == ESCQRS_OK) {
        status = check_id_text(origin->causation_text, error);
    }
    return status == ESCQRS_OK
               ? check_metadata("an event", origin->metadata, origin->metadata_count, size, error)
               : status;
}

static escqrs_status check_event(const escqrs_store *store, const escqrs_write *write,
                                 const escqrs_new_event *event, size_t *bytes, escqrs_error *error)
{
    if (event->type == NULL || (event->data.data == NULL && event->data.size > 0)) {
        return invalid(error, "an event needs a type and data");
    }
    if (event->time_us < 0) {
        return invalid(error, "the time of an event is 0 or more");
    }
    size_t size = event->data.size;
    if (event->tag_count > TAGS_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "an event has at most %d tags", TAGS_MAX);
    }
    for (size_t i = 0; i < event->tag_count; i++) {
        if (!is_text(event->tags[i], store->options.event_bytes_max)) {
            return invalid(error, "a tag is text in UTF-8");
        }
        size += event->tags[i].size;
    }
    escqrs_status status = check_id_text(event->id_text, error);
    if (status == ESCQRS_OK && event->origin != NULL) {
        status = check_origin(event->origin, &size, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    if (size > store->options.event_bytes_max) {
        (void)escqrs_error_set(
            error, ESCQRS_TOO_LARGE,
            "an event of type %s for stream %.*s has %zu bytes, more than the %zu that "
            "are allowed",
            (const char *)event->type->name.data, (int)write->stream.size,
            (const char *)write->stream.data, size, store->options.event_bytes_max);
        esc_error_subject(error, write->stream);
        return ESCQRS_TOO_LARGE;
    }
    *bytes += size + sizeof(escqrs_new_event);
    return ESCQRS_OK;
}

static escqrs_status check_writes(const escqrs_store *store, const escqrs_commit *commit,
                                  size_t *events, size_t *bytes, escqrs_error *error)
{
    size_t timed = 0;
    for (size_t i = 0; i < commit->write_count; i++) {
        const escqrs_write *write = &commit->writes[i];
        if (!is_name(write->stream, ESCQRS_STREAM_NAME_MAX)) {
            return escqrs_error_set(error, ESCQRS_INVALID,
                                    "the name of a stream is 1 to %d bytes of UTF-8 without NUL",
                                    ESCQRS_STREAM_NAME_MAX);
        }
        if (write->expected < ESCQRS_EXPECT_ANY) {
            return invalid(error, "an expected version is 0 or more, or ESCQRS_EXPECT_ANY");
        }
        *events += write->event_count;
        if (*events > ESCQRS_COMMIT_EVENTS_MAX) {
            return escqrs_error_set(error, ESCQRS_TOO_LARGE, "a commit has at most %d events",
                                    ESCQRS_COMMIT_EVENTS_MAX);
        }
        for (size_t j = 0; j < write->event_count; j++) {
            escqrs_status status = check_event(store, write, &write->events[j], bytes, error);
            if (status != ESCQRS_OK) {
                return status;
            }
            timed += write->events[j].time_us != 0;
        }
    }
    if (timed != 0 && timed != *events) {
        return invalid(error, "all events of a commit have a time, or none has");
    }
    return ESCQRS_OK;
}

static escqrs_slice event_id(const void *value)
{
    const escqrs_new_event *event = value;
    return event->id != NULL ? (escqrs_slice){event->id->bytes, sizeof event->id->bytes}
                             : event->id_text;
}

static bool has_ids(const escqrs_commit *commit)
{
    for (size_t i = 0; i < commit->write_count; i++) {
        for (size_t j = 0; j < commit->writes[i].event_count; j++) {
            const escqrs_new_event *event = &commit->writes[i].events[j];
            if (event->id != NULL || event->id_text.size > 0) {
                return true;
            }
        }
    }
    return false;
}

/* The ids that the commit gives differ; whether they are new the provider knows. */
static escqrs_status check_ids(const escqrs_commit *commit, escqrs_error *error)
{
    if (!has_ids(commit)) {
        return ESCQRS_OK; /* most have none, and the map costs a call of the kernel */
    }
    esc_map ids;
    escqrs_status status = ESCQRS_OK;
    esc_map_init(&ids, event_id, NULL);
    for (size_t i = 0; i < commit->write_count && status == ESCQRS_OK; i++) {
        for (size_t j = 0; j < commit->writes[i].event_count && status == ESCQRS_OK; j++) {
            const escqrs_new_event *event = &commit->writes[i].events[j];
            if (event->id == NULL && event->id_text.size == 0) {
                continue;
            }
            if (esc_map_get(&ids, event_id(event)) != NULL) {
                status = escqrs_error_set(error, ESCQRS_KEY_REUSED,
                                          "two events of the commit have the same id");
            } else if (esc_map_insert(&ids, (void *)event) != ESCQRS_OK) {
                status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a commit");
            }
        }
    }
    esc_map_fini(&ids);
    return status;
}

static escqrs_status check_aids(const escqrs_commit *commit, size_t *bytes, escqrs_error *error)
{
    if (commit->key.size > KEY_BYTES_MAX || commit->key_scope.size > KEY_BYTES_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "a key has at most %d bytes",
                                KEY_BYTES_MAX);
    }
    if (commit->checkpoint.size > 0 &&
        (!is_name(commit->checkpoint, ESCQRS_STREAM_NAME_MAX) || commit->checkpoint_position < 0)) {
        return invalid(error,
                       "a checkpoint has a name of UTF-8 without NUL and a position of 0 or more");
    }
    if (commit->condition != NULL && commit->condition->after < 0) {
        return invalid(error, "a condition looks at events after a position of 0 or more");
    }
    escqrs_status status = check_id_text(commit->correlation_text, error);
    if (status == ESCQRS_OK) {
        status = check_metadata("a commit", commit->metadata, commit->metadata_count, bytes, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    const escqrs_new_snapshot *snapshot = commit->snapshot;
    if (snapshot != NULL && (snapshot->type == NULL || snapshot->version < 1 ||
                             !is_name(snapshot->stream, ESCQRS_STREAM_NAME_MAX))) {
        return invalid(error, "a snapshot needs a stream, a version of 1 or more and a type");
    }
    if (snapshot != NULL && snapshot->keep < 0) {
        return invalid(error, "of snapshots 1 or more are kept, or 0: all");
    }
    *bytes += commit->reply.size + (snapshot != NULL ? snapshot->data.size : 0);
    return ESCQRS_OK;
}

escqrs_status esc_commit_check(const escqrs_store *store, escqrs_commit *commit,
                               escqrs_error *error)
{
    size_t events = 0, bytes = 0;
    if (store->options.readonly) {
        return escqrs_error_set(error, ESCQRS_READ_ONLY, "%s was opened read-only", store->path);
    }
    escqrs_status status = check_writes(store, commit, &events, &bytes, error);
    if (status == ESCQRS_OK) {
        status = check_aids(commit, &bytes, error);
    }
    if (status == ESCQRS_OK) {
        status = check_ids(commit, error);
    }
    if (status == ESCQRS_OK &&
        (bytes > ESCQRS_COMMIT_BYTES_MAX || commit->reply.size > ESC_EVENT_BYTES_MAX ||
         (commit->snapshot != NULL && commit->snapshot->data.size > ESC_EVENT_BYTES_MAX))) {
        status = escqrs_error_set(error, ESCQRS_TOO_LARGE, "a commit has at most %lld bytes",
                                  ESCQRS_COMMIT_BYTES_MAX);
    }
    commit->event_count = (uint32_t)events;
    commit->bytes = bytes;
    return status;
}
