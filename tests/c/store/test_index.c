/* The index of streams: tail, merge in slices, a crash in the middle of it, read-only stores that
 * follow. */
#include "fixture.h"

#include <sqlite3.h>

#define STREAMS 1500
#define COMMIT 250
#define TAIL 8192

static const escqrs_store_options short_tail = {.tail_events_max = TAIL};
static const escqrs_store_options short_tail_readonly = {.tail_events_max = TAIL, .readonly = true};

static int64_t model[STREAMS];
static uint64_t seed;

static uint64_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

/* Stream 0 takes an eighth of all, the others the rest. */
static size_t draw_stream(void)
{
    uint64_t number = draw();
    return number % 8 == 0 ? 0 : number / 8 % STREAMS;
}

static void name_of(size_t stream, char name[32])
{
    snprintf(name, 32, "Stream/%zu", stream);
}

/* Write `count` events, in commits of 1,000, each event "<stream>:<version>". */
static void write_events(escqrs_store *store, size_t count)
{
    static char data[COMMIT][64], names[COMMIT][32];
    static escqrs_write writes[COMMIT];
    static escqrs_new_event events[COMMIT];
    for (size_t done = 0; done < count; done += COMMIT) {
        for (size_t i = 0; i < COMMIT; i++) {
            size_t stream = draw_stream();
            name_of(stream, names[i]);
            int64_t version = model[stream]++;
            snprintf(data[i], sizeof data[i], "%s:%lld", names[i], (long long)version + 1);
            events[i] = (escqrs_new_event){.type = type_of(store, "Test"), .data = text(data[i])};
            writes[i] = (escqrs_write){.stream = text(names[i]),
                                       .expected = version,
                                       .events = &events[i],
                                       .event_count = 1};
        }
        escqrs_commit commit = {.writes = writes, .write_count = COMMIT};
        escqrs_error error = {0};
        if (escqrs_store_commit(store, &commit, &error) != ESCQRS_OK) {
            fail_msg("commit: %s", error.message);
        }
    }
}

static void check_model(escqrs_store *store, size_t step)
{
    for (size_t i = 0; i < STREAMS; i += step) {
        char name[32];
        name_of(i, name);
        assert_int_equal(version_of(store, name), model[i]);
        assert_int_equal(check_stream(store, name), model[i]);
    }
}

static int64_t meta(const char *path, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    int64_t value = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return value;
}

static int setup_model(void **state)
{
    memset(model, 0, sizeof model);
    seed = 42;
    return setup_folder(state);
}

static void test_merge_while_writing(void **state)
{
    (void)state;
    escqrs_store *store = open_with(fixture_path, &short_tail);
    int64_t indexed = 0;
    for (int i = 0; i < 15; i++) {
        write_events(store, 3000);
        check_model(store, 101);
        int64_t now = meta(fixture_path, "SELECT value FROM escqrs_store WHERE name = 'indexed'");
        assert_true(now >= indexed);
        indexed = now;
    }
    assert_true(indexed >= TAIL);
    assert_int_equal(check_all(store), 15 * 3000);
    check_model(store, 3 * (size_t)test_stride(7));
    escqrs_store_destroy(store);
    assert_int_equal(meta(fixture_path, "SELECT value FROM escqrs_store WHERE name = 'indexed'"),
                     15 * 3000);
    assert_int_equal(meta(fixture_path, "SELECT sum(count) FROM escqrs_index"), 15 * 3000);
    store = open_with(fixture_path, &short_tail);
    check_model(store, (size_t)test_stride(7));
    write_events(store, 10000);
    check_model(store, (size_t)test_stride(7));
    escqrs_store_destroy(store);
}

static size_t crash_after;

static void write_and_die(void *context)
{
    (void)context;
    escqrs_store *store = open_with(fixture_path, &short_tail);
    write_events(store, crash_after);
    _exit(7);
}

/* Die at several stages of a merge, open again, go on. */
static void test_crash_in_merge(void **state)
{
    (void)state;
    static const size_t after[] = {8000, 1000, 1000, 1000, 1000, 4000, 9000, 1000, 1000};
    bool in_middle = false;
    for (size_t i = 0; i < sizeof after / sizeof after[0]; i++) {
        crash_after = after[i];
        uint64_t seed_before = seed;
        int status = in_child(write_and_die, NULL);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
        seed = seed_before; /* what the child did */
        for (size_t j = 0; j < crash_after; j++) {
            model[draw_stream()]++;
        }
        int64_t indexed =
            meta(fixture_path, "SELECT value FROM escqrs_store WHERE name = 'indexed'");
        int64_t rows = meta(fixture_path, "SELECT coalesce(sum(count), 0) FROM escqrs_index");
        in_middle = in_middle || rows > indexed;
        escqrs_store *store = open_with(fixture_path, &short_tail_readonly);
        check_model(store, 101);
        escqrs_store_destroy(store);
    }
    assert_true(in_middle);
    escqrs_store *store = open_with(fixture_path, &short_tail);
    check_model(store, (size_t)test_stride(7));
    write_events(store, 5000);
    check_model(store, (size_t)test_stride(7));
    escqrs_store_destroy(store);
    store = open_with(fixture_path, &short_tail);
    check_model(store, (size_t)test_stride(7));
    escqrs_store_destroy(store);
}

/* More streams than the cache of streams holds; each must still be found and checked. */
static void test_cache_of_streams(void **state)
{
    (void)state;
    const escqrs_store_options options = {.tail_events_max = TAIL,
                                          .durability = ESCQRS_DURABILITY_NORMAL};
    escqrs_store *store = open_with(fixture_path, &options);
    static escqrs_write writes[COMMIT];
    static char names[COMMIT][32];
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = text("x")};
    const size_t streams = 300000 / (size_t)test_stride(10);
    for (size_t first = 0; first < streams; first += COMMIT) {
        for (size_t i = 0; i < COMMIT; i++) {
            snprintf(names[i], sizeof names[i], "Many/%zu", first + i);
            writes[i] = (escqrs_write){
                .stream = text(names[i]), .expected = 0, .events = &event, .event_count = 1};
        }
        escqrs_commit commit = {.writes = writes, .write_count = COMMIT};
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    }
    for (size_t i = 0; i < streams; i += 9973) {
        char name[32];
        snprintf(name, sizeof name, "Many/%zu", i);
        assert_int_equal(version_of(store, name), 1);
        escqrs_write write = {
            .stream = text(name), .expected = 0, .events = &event, .event_count = 1};
        escqrs_commit commit = {.writes = &write, .write_count = 1};
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_WRONG_VERSION);
        write.expected = 1;
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
        assert_int_equal(version_of(store, name), 2);
    }
    escqrs_store_destroy(store);
}

static void test_readonly_follows(void **state)
{
    (void)state;
    escqrs_store *store = open_with(fixture_path, &short_tail);
    write_events(store, 1000);
    escqrs_store *reader = open_with(fixture_path, &short_tail_readonly);
    assert_int_equal(escqrs_store_head(reader), 1000);
    check_model(reader, 97);
    for (int i = 0; i < 8; i++) {
        write_events(store, 6000);
        check_model(reader, 97);
        assert_int_equal(escqrs_store_head(reader), 1000 + (i + 1) * 6000);
    }
    escqrs_type *fresh = type_of(store, "Fresh");
    escqrs_new_event event = {.type = fresh, .data = text("x")};
    escqrs_write write = {.stream = text("new"), .expected = 0, .events = &event, .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_wait(reader, 49000, NULL, INT64_MAX), ESCQRS_OK);
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    assert_int_equal(escqrs_store_history(reader, text("new"), NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &r, NULL), ESCQRS_OK);
    assert_true(escqrs_slice_equal(escqrs_type_name(r->type), text("Fresh")));
    escqrs_cursor_close(cursor);
    assert_int_equal(escqrs_store_commit(reader, &commit, NULL), ESCQRS_READ_ONLY);
    escqrs_store_destroy(store);
    check_model(reader, 97);
    escqrs_store_destroy(reader);
}

/* Somebody damages the index while the store is open: no commit fails by it, and the rows that are
 * written next are right. */
static void test_a_damaged_row_is_made_anew(void **state)
{
    (void)state;
    escqrs_store_options options = {.tail_events_max = 100};
    escqrs_store *store = open_with(fixture_path, &options);
    int64_t version = 0;
    for (; version < 450; version++) {
        assert_int_equal(append_many(store, "s", version, 1, NULL, NULL), ESCQRS_OK);
    }
    sqlite3 *db;
    assert_int_equal(sqlite3_open(fixture_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE escqrs_index SET positions = x'00' WHERE first_version ="
                                  " (SELECT max(first_version) FROM escqrs_index)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
    for (; version < 1200; version++) {
        assert_int_equal(append_many(store, "s", version, 1, NULL, NULL), ESCQRS_OK);
    }
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    escqrs_verification found;
    escqrs_observer observer = {NULL, NULL, NULL};
    assert_int_equal(escqrs_store_verify(store, &observer, &found, NULL), ESCQRS_OK);
    assert_int_equal(found.problems, 0);
    escqrs_store_destroy(store);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_damaged_row_is_made_anew, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_merge_while_writing, setup_model, teardown_folder),
        cmocka_unit_test_setup_teardown(test_crash_in_merge, setup_model, teardown_folder),
        cmocka_unit_test_setup_teardown(test_cache_of_streams, setup_model, teardown_folder),
        cmocka_unit_test_setup_teardown(test_readonly_follows, setup_model, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
