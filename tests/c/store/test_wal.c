/* A reader that stays in an old state: commits go on, what they write stays in the WAL meanwhile,
 * and once the reader has gone the WAL is used again from its beginning. */
#include "fixture.h"

#include <sqlite3.h>

#define COMMITS 120
#define EVENTS 400        /* in each */
#define FRAME_BYTES 4120  /* a page of the WAL with its header */
#define CHECKPOINT 1000   /* frames; sqlite_provider.h */
#define COMMIT_FRAMES 200 /* more than a commit of so many events writes */

static int64_t wal_bytes(void)
{
    char path[400];
    struct stat found;
    snprintf(path, sizeof path, "%s-wal", fixture_path);
    assert_int_equal(stat(path, &found), 0);
    return (int64_t)found.st_size;
}

static void commit_many(escqrs_store *store, int64_t *version)
{
    for (int i = 0; i < COMMITS; i++, *version += EVENTS) {
        append(store, "s", *version, EVENTS);
    }
}

static int64_t count_of(sqlite3 *db)
{
    sqlite3_stmt *statement;
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT count(*) FROM escqrs_journal", -1, &statement, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return count;
}

static void test_a_reader_that_stays(void **state)
{
    (void)state;
    escqrs_store_options options = {.durability = ESCQRS_DURABILITY_NORMAL};
    escqrs_store *store = open_with(fixture_path, &options);
    int64_t version = 1;
    void *db;
    append(store, "s", 0, 1);
    assert_int_equal(escqrs_store_reader(store, &db, NULL), ESCQRS_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(count_of(db), 1);
    while (version == 1 || wal_bytes() < 2 * CHECKPOINT * FRAME_BYTES) {
        commit_many(store, &version);
    }
    assert_int_equal(count_of(db), 1); /* it sees what it saw */
    assert_int_equal(check_all(store), version);
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    escqrs_store_reader_return(store, db);
    int64_t grown = wal_bytes(), before = version;
    while (version < 2 * before) {
        commit_many(store, &version);
    }
    assert_true(wal_bytes() < grown + (CHECKPOINT + COMMIT_FRAMES) * FRAME_BYTES);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    assert_int_equal(check_all(store), version);
    escqrs_store_destroy(store);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_reader_that_stays, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
