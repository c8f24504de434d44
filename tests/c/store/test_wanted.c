/* The table of positions: what a statement finds in it, and why it could not be made. */
#include "support/test.h"

#include "store/wanted.h"

static sqlite3 *open_with(esc_wanted *wanted)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(esc_wanted_register(db, wanted), SQLITE_OK);
    return db;
}

static void test_positions_in_their_order(void **state)
{
    (void)state;
    const int64_t positions[] = {7, 3, 5, 3};
    esc_wanted wanted = {.positions = positions, .count = 4};
    sqlite3 *db = open_with(&wanted);
    sqlite3_stmt *statement = NULL;
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT position FROM escqrs_wanted", -1, &statement, NULL),
        SQLITE_OK);
    for (size_t i = 0; i < wanted.count; i++) {
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int64(statement, 0), positions[i]);
    }
    assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* SQLite says ERROR whatever the reason, which would pass for a damaged file. A limit on the length
 * of SQL gets between here as an interrupt does. */
static void test_the_reason_of_a_failure_is_kept(void **state)
{
    (void)state;
    esc_wanted wanted = {0};
    sqlite3 *db = open_with(&wanted);
    sqlite3_stmt *statement = NULL;
    const char *query = "SELECT * FROM escqrs_wanted";
    assert_int_equal(sqlite3_exec(db, "SELECT * FROM sqlite_schema", NULL, NULL, NULL), SQLITE_OK);
    int before =
        sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, 32); /* the table's own text is longer */
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_ERROR);
    assert_int_equal(wanted.failure, SQLITE_INTERRUPT);
    (void)sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, before);
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(wanted.failure, SQLITE_OK);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions_in_their_order),
        cmocka_unit_test(test_the_reason_of_a_failure_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
