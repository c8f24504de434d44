/* What the tests of the store share: a folder of their own, opening, appending, comparing. */
#ifndef TEST_STORE_FIXTURE_H
#define TEST_STORE_FIXTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <escqrs/store.h>

#include "support/test.h"

#define TIME_LIMIT_S 900 /* alarm() ends a test program that hangs, where the Makefile did not */

static char fixture_folder[256];
static char fixture_path[300]; /* of the store in it */

static inline escqrs_slice text(const char *s)
{
    return escqrs_slice_of(s);
}

static inline void remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char path[600];
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    rmdir(folder);
}

static inline int setup_folder(void **state)
{
    (void)state;
    const char *root = getenv("TMPDIR");
    snprintf(fixture_folder, sizeof fixture_folder, "%s/escqrs-store-XXXXXX",
             root != NULL && strlen(root) < 200 ? root : "/tmp");
    if (mkdtemp(fixture_folder) == NULL) {
        return -1;
    }
    snprintf(fixture_path, sizeof fixture_path, "%s/test.db", fixture_folder);
    return 0;
}

static inline int teardown_folder(void **state)
{
    (void)state;
    remove_folder(fixture_folder);
    return 0;
}

static inline escqrs_store *open_with(const char *path, const escqrs_store_options *options)
{
    escqrs_store *store = NULL;
    escqrs_error error = {0};
    escqrs_status status = escqrs_store_open(path, options, &store, &error);
    if (status != ESCQRS_OK) {
        fail_msg("open %s: %s: %s", path, escqrs_status_name(status), error.message);
    }
    return store;
}

static inline escqrs_store *open_store(const char *path)
{
    return open_with(path, NULL);
}

/* Opening fails with that status; the text is in *error. */
static inline void refused(const char *path, const escqrs_store_options *options,
                           escqrs_status expected, escqrs_error *error)
{
    escqrs_store *store = NULL;
    memset(error, 0, sizeof *error);
    escqrs_status status = escqrs_store_open(path, options, &store, error);
    if (status != expected) {
        fail_msg("open %s gives %s (%s), not %s", path, escqrs_status_name(status), error->message,
                 escqrs_status_name(expected));
    }
    assert_true(error->message[0] != '\0');
}

static inline escqrs_type *type_of(escqrs_store *store, const char *name)
{
    escqrs_type *type = NULL;
    assert_int_equal(escqrs_store_type(store, text(name), text(""), &type, NULL), ESCQRS_OK);
    return type;
}

/* Append `count` events to one stream; data is "<stream>:<version as expected + i + 1>" where
 * `expected` is known, else "<stream>". */
static inline escqrs_status append_many(escqrs_store *store, const char *stream, int64_t expected,
                                        size_t count, escqrs_commit *result, escqrs_error *error)
{
    escqrs_new_event *events = calloc(count + 1, sizeof *events);
    char(*data)[300] = calloc(count + 1, sizeof *data);
    for (size_t i = 0; i < count; i++) {
        if (expected >= 0) {
            snprintf(data[i], sizeof data[i], "%.200s:%lld", stream,
                     (long long)(expected + 1 + (int64_t)i));
        } else {
            snprintf(data[i], sizeof data[i], "%.200s", stream);
        }
        events[i] = (escqrs_new_event){.type = type_of(store, "Test"), .data = text(data[i])};
    }
    escqrs_write write = {
        .stream = text(stream), .expected = expected, .events = events, .event_count = count};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    escqrs_status status = escqrs_store_commit(store, &commit, error);
    if (result != NULL) {
        *result = commit;
        result->writes = NULL;
    }
    free(events);
    free(data);
    return status;
}

static inline void append(escqrs_store *store, const char *stream, int64_t expected, size_t count)
{
    escqrs_error error = {0};
    escqrs_status status = append_many(store, stream, expected, count, NULL, &error);
    if (status != ESCQRS_OK) {
        fail_msg("append to %s: %s: %s", stream, escqrs_status_name(status), error.message);
    }
}

static inline int64_t version_of(escqrs_store *store, const char *stream)
{
    int64_t version = -1;
    assert_int_equal(escqrs_store_version(store, text(stream), &version, NULL), ESCQRS_OK);
    return version;
}

/* Read a whole stream of append()ed events and compare each; the number of events. */
static inline int64_t check_stream(escqrs_store *store, const char *stream)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    int64_t count = 0, position = 0;
    assert_int_equal(escqrs_store_history(store, text(stream), NULL, &cursor, &error), ESCQRS_OK);
    escqrs_status status;
    while ((status = escqrs_cursor_next(cursor, &recorded, &error)) == ESCQRS_OK) {
        char expected[300];
        count++;
        snprintf(expected, sizeof expected, "%.200s:%lld", stream, (long long)count);
        assert_int_equal(recorded->version, count);
        assert_true(recorded->position > position);
        position = recorded->position;
        assert_true(escqrs_slice_equal(recorded->stream, text(stream)));
        assert_true(escqrs_slice_equal(recorded->data, text(expected)));
        assert_true(escqrs_slice_equal(escqrs_type_name(recorded->type), text("Test")));
    }
    if (status != ESCQRS_DONE) {
        fail_msg("history of %s: %s: %s", stream, escqrs_status_name(status), error.message);
    }
    escqrs_cursor_close(cursor);
    return count;
}

/* Read all by position; the number of events. */
static inline int64_t check_all(escqrs_store *store)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    int64_t position = 0, time_us = 0;
    escqrs_uuid id = {{0}};
    size_t count;
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, &error), ESCQRS_OK);
    escqrs_status status;
    while ((status = escqrs_cursor_read(cursor, 1000, &recorded, &count, &error)) == ESCQRS_OK) {
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(recorded[i].position, ++position);
            assert_true(recorded[i].time_us >= time_us);
            time_us = recorded[i].time_us;
            assert_true(memcmp(recorded[i].id.bytes, id.bytes, 16) > 0);
            id = recorded[i].id;
        }
    }
    if (status != ESCQRS_DONE) {
        fail_msg("events: %s: %s", escqrs_status_name(status), error.message);
    }
    escqrs_cursor_close(cursor);
    return position;
}

static inline bool exists(const char *path, const char *suffix)
{
    char name[400];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return access(name, F_OK) == 0;
}

/* For tests that make very many files and need no disk: called before they make the first. */
static inline void use_memory_for_files(void)
{
    if (access("/dev/shm", W_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 0);
    }
}

/* Ends a test that forks while other threads run, where they are not known after it. */
static inline void skip_fork_among_threads(void)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    /* ThreadSanitizer starts no thread in such a child, and AddressSanitizer's allocator may be
     * locked in it by a thread that it does not have. */
    skip();
#endif
}

/* Run in a child and wait for its end; its wait status. */
static inline int in_child(void (*body)(void *context), void *context)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        body(context);
        test_child_end(true);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#endif
