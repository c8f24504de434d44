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

/* ---- lines alone ------------------------------------------------------------------------------ */

/* A page is read when the test lets it: `begun` counts pages. */
typedef struct slow_line {
    esc_ahead_line line;
    _Atomic uint32_t begun, allowed, dropped;
    int64_t bad; /* reading fails from this position on; 0: never */
    int64_t gap; /* a page ends before this position; 0: none does */
} slow_line;

static escqrs_status read_slowly(esc_ahead_line *line, const escqrs_query *query, escqrs_page *page,
                                 escqrs_error *error)
{
    slow_line *slow = ESC_CONTAINER_OF(line, slow_line, line);
    uint32_t turn = atomic_fetch_add(&slow->begun, 1), allowed;
    esc_futex_wake(&slow->begun, INT32_MAX);
    while ((allowed = atomic_load(&slow->allowed)) <= turn) {
        esc_futex_wait(&slow->allowed, allowed, ESC_DEADLINE_NEVER);
    }
    if (slow->bad > 0 && query->after + ESC_PAGE_EVENTS_MAX >= slow->bad) {
        return escqrs_error_set(error, ESCQRS_IO, "cannot read");
    }
    int64_t end = query->after + ESC_PAGE_EVENTS_MAX;
    end = slow->gap > query->after + 1 && slow->gap <= end ? slow->gap - 1 : end;
    page->examined = end < query->upto ? end : query->upto;
    page->count = (size_t)(page->examined - query->after);
    return ESCQRS_OK;
}

static void note_drop(esc_ahead_line *line)
{
    slow_line *slow = ESC_CONTAINER_OF(line, slow_line, line);
    atomic_store(&slow->dropped, 1);
    esc_futex_wake(&slow->dropped, 1);
}

static void allow(slow_line *slow, uint32_t pages)
{
    atomic_store(&slow->allowed, pages);
    esc_futex_wake(&slow->allowed, INT32_MAX);
}

static void wait_begun(slow_line *slow, uint32_t pages)
{
    uint32_t begun;
    while ((begun = atomic_load(&slow->begun)) < pages) {
        esc_futex_wait(&slow->begun, begun, ESC_DEADLINE_NEVER);
    }
}

static void begin(slow_line *slow, bool in_steps)
{
    memset(slow, 0, sizeof *slow);
    slow->line.read = read_slowly;
    slow->line.drop = note_drop;
    esc_ahead_begin(&slow->line, in_steps);
}

static const escqrs_query ten_pages = {.upto = INT64_C(10) * ESC_PAGE_EVENTS_MAX};

static bool has_thread(esc_ahead *ahead)
{
    slow_line slow;
    begin(&slow, true);
    allow(&slow, UINT32_MAX);
    esc_ahead_plan(ahead, &slow.line, &ten_pages, INT64_MAX);
    bool has = slow.line.count > 0;
    if (has) {
        wait_begun(&slow, 1);
    }
    if (!esc_ahead_leave(ahead, &slow.line)) {
        while (atomic_load(&slow.dropped) == 0) {
            esc_futex_wait(&slow.dropped, 0, ESC_DEADLINE_NEVER);
        }
    }
    return has;
}

/* Take pages until the query ends or a page fails; how many events they had. */
static int64_t take_all(esc_ahead *ahead, slow_line *slow, escqrs_query *query,
                        escqrs_status *status)
{
    escqrs_page page = {0};
    int64_t events = 0;
    *status = ESCQRS_OK;
    while (query->upto > query->after) {
        esc_ahead_plan(ahead, &slow->line, query, INT64_MAX);
        bool found = esc_ahead_take(ahead, &slow->line, query, &page, status, NULL);
        if (!found) {
            *status = read_slowly(&slow->line, query, &page, NULL);
        }
        if (*status != ESCQRS_OK) {
            assert_int_equal(slow->line.count, 0);
            break;
        }
        events += (int64_t)page.count;
        esc_query_move(query, page.examined);
    }
    return events;
}

/* Who is faster than the thread reads the other planned pages, and has them all in order. */
static void test_shared_work(void **state)
{
    (void)state;
    esc_ahead ahead;
    esc_ahead_init(&ahead, true);
    if (!has_thread(&ahead)) {
        esc_ahead_stop(&ahead);
        esc_ahead_fini(&ahead);
        skip(); /* one processor */
    }
    for (int in_steps = 0; in_steps < 2; in_steps++) {
        for (int64_t gap = 0; gap < 4 * ESC_PAGE_EVENTS_MAX; gap += 300) {
            slow_line slow;
            begin(&slow, in_steps == 1);
            slow.gap = gap;
            allow(&slow, UINT32_MAX);
            escqrs_query query = ten_pages;
            escqrs_status status;
            assert_int_equal(take_all(&ahead, &slow, &query, &status), ten_pages.upto);
            assert_int_equal(status, ESCQRS_OK);
            if (!esc_ahead_leave(&ahead, &slow.line)) {
                fail_msg("a page is in work behind the last one");
            }
        }
    }
    esc_ahead_stop(&ahead);
    esc_ahead_fini(&ahead);
}

/* What cannot be read is said where it is, and what is before it is given. */
static void test_failing_page(void **state)
{
    (void)state;
    esc_ahead ahead;
    esc_ahead_init(&ahead, true);
    for (int in_steps = 0; in_steps < 2; in_steps++) {
        slow_line slow;
        begin(&slow, in_steps == 1);
        slow.bad = INT64_C(4) * ESC_PAGE_EVENTS_MAX + 1;
        allow(&slow, UINT32_MAX);
        escqrs_query query = ten_pages;
        escqrs_status status;
        assert_int_equal(take_all(&ahead, &slow, &query, &status),
                         INT64_C(4) * ESC_PAGE_EVENTS_MAX);
        assert_int_equal(status, ESCQRS_IO);
        slow.bad = 0; /* it is asked for again */
        assert_int_equal(take_all(&ahead, &slow, &query, &status),
                         INT64_C(6) * ESC_PAGE_EVENTS_MAX);
        assert_int_equal(status, ESCQRS_OK);
        assert_true(esc_ahead_leave(&ahead, &slow.line));
    }
    esc_ahead_stop(&ahead);
    esc_ahead_fini(&ahead);
}

/* A line that is left while a page of it is read ends with that page; others are served. */
static void test_left_in_work(void **state)
{
    (void)state;
    esc_ahead ahead;
    esc_ahead_init(&ahead, true);
    if (!has_thread(&ahead)) {
        esc_ahead_stop(&ahead);
        esc_ahead_fini(&ahead);
        skip(); /* one processor */
    }
    slow_line first, second;
    begin(&first, true);
    begin(&second, true);
    esc_ahead_plan(&ahead, &first.line, &ten_pages, INT64_MAX);
    wait_begun(&first, 1);
    esc_ahead_plan(&ahead, &second.line, &ten_pages, INT64_MAX);
    assert_false(esc_ahead_leave(&ahead, &first.line)); /* a page is in work */
    assert_int_equal(atomic_load(&first.dropped), 0);
    allow(&first, 1);
    wait_begun(&second, 1);
    assert_int_equal(atomic_load(&first.dropped), 1);
    assert_int_equal(atomic_load(&first.begun), 1);
    allow(&second, UINT32_MAX);
    escqrs_query query = ten_pages;
    escqrs_status status;
    assert_int_equal(take_all(&ahead, &second, &query, &status), ten_pages.upto);
    assert_true(esc_ahead_leave(&ahead, &second.line));
    esc_ahead_stop(&ahead);
    esc_ahead_stop(&ahead);
    begin(&second, true);
    esc_ahead_plan(&ahead, &second.line, &ten_pages, INT64_MAX);
    assert_int_equal(second.line.count, 0); /* nothing is read ahead any more */
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
        cmocka_unit_test(test_shared_work),
        cmocka_unit_test(test_failing_page),
        cmocka_unit_test(test_left_in_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
