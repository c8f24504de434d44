/* See suite.h and escqrs/provider_suite.h. The runner opens nothing itself: each test opens a
 * provider of its own, and what it leaves open is closed when it has ended, passed or failed.
 * No locks. */
#include "testing/suite.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- checks ----------------------------------------------------------------------------------- */

void esc_suite_fail(esc_suite *suite, const char *file, int line, const char *format, ...)
{
    va_list arguments;
    int size = snprintf(suite->why, sizeof suite->why, "%s:%d: ", file, line);
    va_start(arguments, format);
    vsnprintf(suite->why + size, sizeof suite->why - (size_t)size, format, arguments);
    va_end(arguments);
    longjmp(suite->failed, 1);
}

void esc_suite_same(esc_suite *suite, const char *file, int line, const char *what, int64_t found,
                    int64_t wanted)
{
    if (found != wanted) {
        esc_suite_fail(suite, file, line, "%s is %" PRId64 ", not %" PRId64, what, found, wanted);
    }
}

void esc_suite_gives(esc_suite *suite, const char *file, int line, const char *call,
                     escqrs_status found, escqrs_status wanted)
{
    if (found != wanted) {
        esc_suite_fail(suite, file, line, "%s answers %s, not %s%s%s", call,
                       escqrs_status_name(found), escqrs_status_name(wanted),
                       suite->error.message[0] != '\0' ? ": " : "", suite->error.message);
    }
}

void esc_suite_reads(esc_suite *suite, const char *file, int line, const char *what,
                     escqrs_slice found, const char *wanted)
{
    if (!escqrs_slice_equal(found, escqrs_slice_of(wanted))) {
        esc_suite_fail(suite, file, line, "%s is \"%.*s\", not \"%s\"", what, (int)found.size,
                       found.size > 0 ? (const char *)found.data : "", wanted);
    }
}

/* ---- what most tests do ----------------------------------------------------------------------- */

void esc_suite_close_cursor(esc_suite *suite)
{
    escqrs_cursor_close(suite->cursor);
    suite->cursor = NULL;
}

void esc_suite_close(esc_suite *suite)
{
    escqrs_store_destroy(suite->store);
    suite->store = NULL;
}

static escqrs_store *open_store(esc_suite *suite, bool fresh, const escqrs_store_options *options)
{
    const escqrs_provider_suite *of = suite->of;
    GIVES(suite, of->open(of->context, fresh, options, &suite->store, &suite->error), ESCQRS_OK);
    CHECK(suite, suite->store != NULL);
    return suite->store;
}

escqrs_store *esc_suite_open(esc_suite *suite, const escqrs_store_options *options)
{
    return open_store(suite, true, options);
}

escqrs_store *esc_suite_open_again(esc_suite *suite)
{
    esc_suite_close(suite);
    return suite->of->forgets ? NULL : open_store(suite, false, NULL);
}

escqrs_type *esc_suite_type(esc_suite *suite, const char *name)
{
    escqrs_type *type = NULL;
    GIVES(suite,
          escqrs_store_type(suite->store, escqrs_slice_of(name), escqrs_slice_of(""), &type,
                            &suite->error),
          ESCQRS_OK);
    return type;
}

escqrs_new_event esc_suite_event(esc_suite *suite, const char *type, const char *data)
{
    return (escqrs_new_event){.type = esc_suite_type(suite, type), .data = escqrs_slice_of(data)};
}

void esc_suite_one_init(esc_suite *suite, esc_suite_one *one, const char *stream, int64_t expected,
                        const char *data)
{
    memset(one, 0, sizeof *one);
    one->event = esc_suite_event(suite, "Test", data);
    one->write = (escqrs_write){.stream = escqrs_slice_of(stream),
                                .expected = expected,
                                .events = &one->event,
                                .event_count = 1};
    one->commit = (escqrs_commit){.writes = &one->write, .write_count = 1};
}

escqrs_status esc_suite_one_commit(esc_suite *suite, esc_suite_one *one)
{
    return escqrs_store_commit(suite->store, &one->commit, &suite->error);
}

static void leave(escqrs_commit *commit)
{
    (void)commit; /* the test looks at it after the pump */
}

void esc_suite_one_submit(esc_suite *suite, esc_suite_one *one)
{
    one->commit.error = &one->error;
    one->commit.done = leave;
    GIVES(suite, escqrs_store_submit(suite->store, &one->commit, &suite->error), ESCQRS_OK);
}

void esc_suite_append(esc_suite *suite, const char *stream, int64_t expected, const char *data)
{
    esc_suite_one added;
    esc_suite_one_init(suite, &added, stream, expected, data);
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
}

int64_t esc_suite_version(esc_suite *suite, const char *stream)
{
    int64_t version = -1;
    GIVES(suite,
          escqrs_store_version(suite->store, escqrs_slice_of(stream), &version, &suite->error),
          ESCQRS_OK);
    return version;
}

int64_t esc_suite_checkpoint(esc_suite *suite, const char *name)
{
    int64_t position = -2;
    GIVES(suite,
          escqrs_store_checkpoint(suite->store, escqrs_slice_of(name), &position, &suite->error),
          ESCQRS_OK);
    return position;
}

escqrs_slice esc_suite_texts(esc_suite *suite, const char *stream, const escqrs_range *range)
{
    static _Thread_local char found[4096];
    const escqrs_recorded *recorded;
    size_t size = 0;
    suite->error = (escqrs_error){0};
    escqrs_status status =
        stream == NULL ? escqrs_store_events(suite->store, range, &suite->cursor, &suite->error)
                       : escqrs_store_history(suite->store, escqrs_slice_of(stream), range,
                                              &suite->cursor, &suite->error);
    while (status == ESCQRS_OK) {
        status = escqrs_cursor_next(suite->cursor, &recorded, &suite->error);
        if (status == ESCQRS_OK) {
            CHECK(suite, size + recorded->data.size + 1 <= sizeof found);
            if (recorded->data.size > 0) {
                memcpy(found + size, recorded->data.data, recorded->data.size);
            }
            size += recorded->data.size;
            found[size++] = ' ';
        }
    }
    esc_suite_gives(suite, __FILE__, __LINE__, stream == NULL ? "reading all" : "reading a stream",
                    status, ESCQRS_DONE);
    esc_suite_close_cursor(suite);
    return (escqrs_slice){found, size};
}

const escqrs_recorded *esc_suite_next(esc_suite *suite)
{
    const escqrs_recorded *recorded = NULL;
    GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_OK);
    return recorded;
}

/* ---- the runner ------------------------------------------------------------------------------- */

static void print_line(const char *name, const char *test, const char *failure)
{
    if (failure == NULL) {
        printf("%s: %s: ok\n", name, test);
    } else {
        printf("%s: %s: FAILED: %s\n", name, test, failure);
    }
    fflush(stdout);
}

/* Nothing of this frame is changed before it is come back to. */
static void attempt(esc_suite *suite, const esc_suite_test *test)
{
    if (setjmp(suite->failed) == 0) {
        test->run(suite);
    }
}

/* Whether it passed. */
static bool run_test(const escqrs_provider_suite *of, const esc_suite_test *test)
{
    esc_suite suite = {.of = of};
    attempt(&suite, test);
    esc_suite_close_cursor(&suite);
    esc_suite_close(&suite);
    escqrs_free(suite.memory);
    const char *failure = suite.why[0] != '\0' ? suite.why : NULL;
    if (of->report != NULL) {
        of->report(of->context, test->name, failure);
    } else {
        print_line(of->name, test->name, failure);
    }
    return failure == NULL;
}

size_t escqrs_provider_suite_run(const escqrs_provider_suite *suite)
{
    static const esc_suite_test *const parts[] = {esc_suite_commits, esc_suite_readings,
                                                  esc_suite_aids};
    size_t failed = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        for (const esc_suite_test *test = parts[i]; test->name != NULL; test++) {
            failed += !run_test(suite, test);
        }
    }
    return failed;
}
