/* Reading ahead: long iterations, several at once, ended early, across a close, a fork, damage. */
#include "fixture.h"

#include <sqlite3.h>

#include "store/ahead.h"

#define EVENTS 6000 /* a dozen pages */

static void fill(escqrs_store *store)
{
    for (int64_t done = 0; done < EVENTS; done += 1000) {
        append(store, "a", done, 1000);
        append(store, "b", done, 1000);
    }
}

static escqrs_cursor *open_history(escqrs_store *store, const char *stream, bool reverse)
{
    escqrs_cursor *cursor = NULL;
    escqrs_range range = {.reverse = reverse};
    assert_int_equal(escqrs_store_history(store, text(stream), &range, &cursor, NULL), ESCQRS_OK);
    return cursor;
}

static void check_next(escqrs_cursor *cursor, const char *stream, int64_t version)
{
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    char expected[64];
    snprintf(expected, sizeof expected, "%s:%lld", stream, (long long)version);
    if (escqrs_cursor_next(cursor, &recorded, &error) != ESCQRS_OK) {
        fail_msg("%s: %s", expected, error.message);
    }
    assert_int_equal(recorded->version, version);
    assert_true(escqrs_slice_equal(recorded->stream, text(stream)));
    assert_true(escqrs_slice_equal(recorded->data, text(expected)));
}

/* More iterations than the thread can serve: what it has not begun is read by its owner. */
static void test_several_at_once(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    fill(store);
    enum { CURSORS = 6 };
    escqrs_cursor *cursors[CURSORS], *all;
    for (int i = 0; i < CURSORS; i++) {
        cursors[i] = open_history(store, i % 2 == 0 ? "a" : "b", i >= 4);
    }
    assert_int_equal(escqrs_store_events(store, NULL, &all, NULL), ESCQRS_OK);
    const escqrs_recorded *recorded;
    for (int64_t version = 1; version <= EVENTS; version++) {
        for (int i = 0; i < CURSORS; i++) {
            check_next(cursors[i], i % 2 == 0 ? "a" : "b", i >= 4 ? EVENTS + 1 - version : version);
        }
        for (int64_t i = 1; i >= 0; i--) {
            assert_int_equal(escqrs_cursor_next(all, &recorded, NULL), ESCQRS_OK);
            assert_int_equal(recorded->position, 2 * version - i);
        }
    }
    assert_int_equal(escqrs_cursor_next(all, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(all);
    for (int i = 0; i < CURSORS; i++) {
        assert_int_equal(escqrs_cursor_next(cursors[i], &recorded, NULL), ESCQRS_DONE);
        escqrs_cursor_close(cursors[i]);
    }
    escqrs_store_destroy(store);
}

/* Large events make pages short: the one behind the next does not begin where one would think. */
static void test_short_pages(void **state)
{
    (void)state;
    enum { LARGE = 4096, COUNT = 3000 };
    static char data[LARGE];
    escqrs_store *store = open_store(fixture_path);
    escqrs_type *type = type_of(store, "Test");
    for (int64_t version = 0; version < COUNT; version += 100) {
        escqrs_new_event events[100];
        for (int i = 0; i < 100; i++) {
            events[i] = (escqrs_new_event){.type = type, .data = {data, sizeof data}};
        }
        escqrs_write write = {text("large"), version, events, 100, 0};
        escqrs_commit commit = {.writes = &write, .write_count = 1};
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    }
    for (int way = 0; way < 4; way++) {
        escqrs_range range = {.reverse = way % 2 == 1};
        escqrs_cursor *cursor = NULL;
        const escqrs_recorded *recorded;
        assert_int_equal(way < 2
                             ? escqrs_store_events(store, &range, &cursor, NULL)
                             : escqrs_store_history(store, text("large"), &range, &cursor, NULL),
                         ESCQRS_OK);
        for (int64_t i = 1; i <= COUNT; i++) {
            assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
            assert_int_equal(recorded->position, range.reverse ? COUNT + 1 - i : i);
            assert_int_equal(recorded->version, recorded->position);
        }
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
        escqrs_cursor_close(cursor);
    }
    escqrs_store_destroy(store);
}

static void test_limit_and_filter(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    fill(store);
    escqrs_slice types[] = {text("Test")}, others[] = {text("Other")};
    escqrs_match match = {.types = types, .type_count = 1},
                 none = {.types = others, .type_count = 1};
    escqrs_range range = {.after = 10, .limit = 3000, .matches = &match, .match_count = 1};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    assert_int_equal(escqrs_store_events(store, &range, &cursor, NULL), ESCQRS_OK);
    for (int64_t position = 11; position <= 3010; position++) {
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
        assert_int_equal(recorded->position, position);
    }
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(cursor);
    range.matches = &none;
    assert_int_equal(escqrs_store_events(store, &range, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

/* Ended anywhere, while the next page is asked for, being read, or there. */
static void test_ended_early(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    fill(store);
    for (int64_t end = 400; end < 2200; end += 7) {
        escqrs_cursor *cursor = open_history(store, "b", false);
        const escqrs_recorded *recorded;
        size_t count = 0;
        for (int64_t read = 0; read < end; read += (int64_t)count) {
            assert_int_equal(escqrs_cursor_read(cursor, 97, &recorded, &count, NULL), ESCQRS_OK);
            assert_int_equal(recorded[0].version, read + 1);
        }
        escqrs_cursor_close(cursor);
    }
    escqrs_store_destroy(store);
}

/* An iteration that meets the close says so, and never ends short. */
static void test_close(void **state)
{
    (void)state;
    for (int64_t read = 511; read <= 1537; read += 171) {
        escqrs_store *store = open_store(fixture_path);
        if (escqrs_store_head(store) == 0) {
            fill(store);
        }
        escqrs_cursor *cursor = open_history(store, "a", false);
        escqrs_cursor *other = open_history(store, "b", true);
        for (int64_t version = 1; version <= read; version++) {
            check_next(cursor, "a", version);
            check_next(other, "b", EVENTS + 1 - version);
        }
        escqrs_store_close(store);
        const escqrs_recorded *recorded;
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_CLOSED);
        escqrs_cursor_close(cursor);
        escqrs_cursor_close(other);
        escqrs_store_destroy(store);
    }
}

static void test_damage(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    fill(store);
    escqrs_store_destroy(store);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(fixture_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE escqrs_journal SET data = 'x' WHERE stream = 2 AND"
                                  " version = 4321",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    store = open_store(fixture_path);
    for (int way = 0; way < 2; way++) {
        escqrs_cursor *cursor = open_history(store, "b", way == 1);
        int64_t sound = way == 0 ? 4320 : EVENTS - 4321;
        for (int64_t i = 1; i <= sound; i++) {
            check_next(cursor, "b", way == 0 ? i : EVENTS + 1 - i);
        }
        const escqrs_recorded *recorded;
        for (int again = 0; again < 2; again++) {
            escqrs_error error = {0};
            assert_int_equal(escqrs_cursor_next(cursor, &recorded, &error), ESCQRS_CORRUPT);
            assert_int_equal(error.version, 4321);
        }
        escqrs_cursor_close(cursor);
    }
    escqrs_store_destroy(store);
}

static void test_fork(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    fill(store);
    escqrs_cursor *cursor = open_history(store, "a", false);
    for (int64_t version = 1; version <= 1025; version++) {
        check_next(cursor, "a", version);
    }
    pid_t child = fork();
    if (child == 0) {
        const escqrs_recorded *recorded;
        escqrs_status status = escqrs_cursor_next(cursor, &recorded, NULL);
        escqrs_cursor_close(cursor);
        escqrs_store_destroy(store);
        test_child_end(status == ESCQRS_FORKED);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    for (int64_t version = 1026; version <= EVENTS; version++) {
        check_next(cursor, "a", version);
    }
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

/* ---- the thread alone ------------------------------------------------------------------------- */

typedef struct task {
    esc_ahead_request request;
    _Atomic uint32_t begun, go, dropped;
} task;

static void run_task(esc_ahead_request *request)
{
    task *t = ESC_CONTAINER_OF(request, task, request);
    atomic_store(&t->begun, 1);
    esc_futex_wake(&t->begun, 1);
    while (atomic_load(&t->go) == 0) {
        esc_futex_wait(&t->go, 0, ESC_DEADLINE_NEVER);
    }
}

static void drop_task(esc_ahead_request *request)
{
    task *t = ESC_CONTAINER_OF(request, task, request);
    atomic_store(&t->dropped, 1);
}

static void let_go(task *t)
{
    atomic_store(&t->go, 1);
    esc_futex_wake(&t->go, 1);
}

static void test_requests(void **state)
{
    (void)state;
    esc_ahead ahead;
    int64_t waited;
    task first = {.request = {.run = run_task, .drop = drop_task}}, second = first, third = first;
    esc_ahead_init(&ahead, true);
    if (!esc_ahead_submit(&ahead, &first.request)) {
        esc_ahead_stop(&ahead);
        esc_ahead_fini(&ahead);
        skip(); /* one processor */
    }
    while (atomic_load(&first.begun) == 0) {
        esc_futex_wait(&first.begun, 0, ESC_DEADLINE_NEVER);
    }
    assert_true(esc_ahead_submit(&ahead, &second.request));
    assert_true(esc_ahead_submit(&ahead, &third.request));
    assert_false(esc_ahead_take(&ahead, &second.request, &waited)); /* not begun */
    assert_true(esc_ahead_give_up(&ahead, &third.request));         /* nor this */
    assert_false(esc_ahead_give_up(&ahead, &first.request));        /* it runs */
    assert_true(esc_ahead_submit(&ahead, &second.request));
    let_go(&second);
    let_go(&first);
    while (atomic_load(&second.begun) == 0) {
        esc_futex_wait(&second.begun, 0, ESC_DEADLINE_NEVER);
    }
    assert_int_equal(atomic_load(&first.dropped), 1);
    assert_true(esc_ahead_take(&ahead, &second.request, &waited));
    assert_int_equal(atomic_load(&third.begun), 0);
    esc_ahead_stop(&ahead);
    esc_ahead_stop(&ahead);
    assert_false(esc_ahead_submit(&ahead, &third.request));
    esc_ahead_fini(&ahead);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_several_at_once, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_short_pages, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_limit_and_filter, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_ended_early, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_close, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_damage, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_fork, setup_folder, teardown_folder),
        cmocka_unit_test(test_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
