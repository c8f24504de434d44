/* Names and definitions of read models: which are refused, and what opening one writes. */
#include "readmodel/fixture.h"

static void assert_refused(fixture *self, escqrs_status expected, const char *schema,
                           const char *sql, const char *text)
{
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    escqrs_status status = try_add(self, "Bad", schema, sql, "", &model, &error);
    if (status != expected || strstr(error.message, text) == NULL) {
        print_error("%s, %s: %s, %s\n", schema, sql, escqrs_status_name(status), error.message);
    }
    assert_int_equal(status, expected);
    assert_non_null(strstr(error.message, "Bad"));
    assert_non_null(strstr(error.message, text));
    assert_null(model);
}

static void test_bad_definitions(void **state)
{
    fixture *self = *state;
    const char *t = "CREATE TABLE t (a, b)";
    assert_refused(self, ESCQRS_INVALID, "CREATE TABL t (a)", NULL, "syntax error");
    assert_refused(self, ESCQRS_INVALID, "-- nothing", NULL, "makes no table");
    assert_refused(self, ESCQRS_INVALID, "CREATE TABLE t (a); PRAGMA foreign_keys = 1", NULL,
                   "PRAGMA");
    assert_refused(self, ESCQRS_INVALID, "ATTACH 'x.db' AS x", NULL, "attach");
    assert_refused(self, ESCQRS_INVALID, "CREATE TEMP TABLE t (a)", NULL, "temporary");
    assert_refused(self, ESCQRS_INVALID, "CREATE TABLE t (a); COMMIT", NULL, "transactions");
    assert_refused(self, ESCQRS_NAME_CLASH, "CREATE TABLE escqrs_x (a)", NULL, "escqrs");
    assert_refused(self, ESCQRS_INVALID, t, "", "empty SQL");
    assert_refused(self, ESCQRS_INVALID, t, " ; -- nothing", "empty SQL");
    assert_refused(self, ESCQRS_INVALID, t, "INSERT INTO nowhere VALUES (1)", "no such table");
    assert_refused(self, ESCQRS_INVALID, t, "INSERT INTO t VALUES (:nothing, 1)", ":nothing");
    assert_refused(self, ESCQRS_INVALID, t, "INSERT INTO t VALUES (:_nothing, 1)", ":_nothing");
    assert_refused(self, ESCQRS_INVALID, t, "INSERT INTO t VALUES (?, 1)", "without a name");
    assert_refused(self, ESCQRS_INVALID, t, "INSERT INTO t VALUES (1, 1); DELETE FROM t",
                   "more than one");
    assert_refused(self, ESCQRS_INVALID, t, "SELECT * FROM t", "changes nothing");
    assert_refused(self, ESCQRS_INVALID, t, "DROP TABLE t", "schema");
    assert_refused(self, ESCQRS_INVALID, t, "BEGIN", "transactions");
    assert_refused(self, ESCQRS_INVALID, t, "ATTACH 'x' AS y", "attach");
    assert_refused(self, ESCQRS_INVALID, t, "PRAGMA user_version = 7", "PRAGMA");
    assert_refused(self, ESCQRS_INVALID, t, "DELETE FROM sqlite_schema", "");
}

static void test_names_clash(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    (void)add_items(self);
    assert_int_equal(try_add(self, "Other", "CREATE TABLE ITEMS (a)", NULL, "", &model, &error),
                     ESCQRS_NAME_CLASH);
    assert_non_null(strstr(error.message, "Items"));
    assert_non_null(strstr(error.message, "Other"));
    assert_int_equal(try_add(self, "Items", "CREATE TABLE i (a)", NULL, "", &model, &error),
                     ESCQRS_NAME_CLASH);
    start(self);
    fixture_reopen(self); /* Items is not opened, but its table is there */
    assert_int_equal(try_add(self, "Other", "CREATE TABLE x (a); CREATE INDEX items ON x (a)", NULL,
                             "", &model, &error),
                     ESCQRS_NAME_CLASH);
    assert_non_null(strstr(error.message, "Items"));
    check(try_add(self, "Other", "DROP TABLE IF EXISTS items; CREATE TABLE IF NOT EXISTS x (a)",
                  NULL, "", &model, &error),
          &error);
    start(self);
    assert_look(self, "SELECT count(*) FROM items", "0"); /* is not dropped: it is another's */
}

#define MADE                                                                                       \
    "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%readmodel%' OR name IN ('items', "       \
    "'other')"

static void test_adding_writes_nothing(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    append_many(self, 0, 3);
    (void)add_items(self);
    assert_int_equal(try_add(self, "Other", "CREATE TABLE other (a)", "INSERT", "", &model, &error),
                     ESCQRS_INVALID);
    assert_look(self, MADE, "0");
    check(try_add(self, "Other", "CREATE TABLE other (a)", NULL, "", &model, &error), &error);
    escqrs_projector_destroy(self->projector);
    fixture_open_projector(self);
    assert_look(self, MADE, "0");
    model = add_items(self);
    start(self);
    flush(self, model);
    assert_look(self, "SELECT count(*) FROM items", "3");
}

static void test_check_needs_no_store(void **state)
{
    (void)state;
    escqrs_error error = {0};
    escqrs_readmodel_spec specs[] = {
        {.name = escqrs_slice_of("A"), .schema = escqrs_slice_of("CREATE TABLE a (n)")},
        {.name = escqrs_slice_of("B"), .schema = escqrs_slice_of("CREATE TABLE b (n)")},
        {.name = escqrs_slice_of("C"), .schema = escqrs_slice_of("CREATE VIEW B AS SELECT 1")},
    };
    check(escqrs_readmodel_check(specs, 2, &error), &error);
    check(escqrs_readmodel_check(NULL, 0, &error), &error);
    assert_int_equal(escqrs_readmodel_check(specs, 3, &error), ESCQRS_NAME_CLASH);
    assert_non_null(strstr(error.message, "read models B and C both make"));
    specs[2].name = specs[0].name;
    specs[2].schema = escqrs_slice_of("CREATE TABLE c (n)");
    assert_int_equal(escqrs_readmodel_check(specs, 3, &error), ESCQRS_NAME_CLASH);
    specs[1].schema = escqrs_slice_of("CREATE TABLE");
    assert_int_equal(escqrs_readmodel_check(specs, 3, &error), ESCQRS_INVALID);
    for (long n = 1; n < 60; n++) {
        escqrs_alloc_fail(n, false);
        escqrs_status status = escqrs_readmodel_check(specs, 1, &error);
        escqrs_alloc_fail(0, false);
        assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
    }
}

static void test_create_as_fails_alone(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    assert_int_equal(try_add(self, "", "CREATE TABLE t (a)", NULL, "", &model, &error),
                     ESCQRS_INVALID);
    assert_look(self, "SELECT count(*) FROM sqlite_schema WHERE name = 't'", "0");
}

/* A read model that has one item, and is level. */
static escqrs_readmodel *add_one_item(fixture *self)
{
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_item(self, "book", 1);
    flush(self, items);
    return items;
}

/* The same file, read-only. */
static fixture open_reader(const fixture *self)
{
    const escqrs_store_options options = {.readonly = true};
    fixture reader = {.schema = self->schema, .log = self->log};
    escqrs_error error = {0};
    check(escqrs_store_open(self->path, &options, &reader.store, &error), &error);
    fixture_open_projector(&reader);
    return reader;
}

static void test_readonly(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    (void)add_one_item(self);
    fixture reader = open_reader(self);
    escqrs_readmodel *missing = NULL;
    assert_int_equal(try_add(&reader, "Missing", "CREATE TABLE m (a)", NULL, "", &missing, &error),
                     ESCQRS_READ_ONLY);
    escqrs_readmodel *same = add_items(&reader);
    start(&reader);
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(same, &status);
    assert_int_equal(status.position, 1);
    assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
    append_item(self, "pen", 1);
    check(escqrs_readmodel_wait(same, 2, esc_deadline_after(PATIENCE_NS), &error), &error);
    assert_look(&reader, "SELECT count(*) FROM items", "2");
    assert_int_equal(escqrs_readmodel_rebuild(same, &error), ESCQRS_READ_ONLY);
    fixture_close(&reader);
}

/* Whoever else looks at a read-only read model takes no change from who waits for one. */
static void test_readonly_change_is_told_to_all(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_one_item(self);
    fixture reader = open_reader(self);
    escqrs_readmodel *same = add_items(&reader);
    start(&reader);
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(same, &status);
    uint64_t seen = 0;
    while (escqrs_readmodel_wait_changed(same, &seen, 0, &error) == ESCQRS_OK) {
    }
    append_item(self, "pen", 1);
    flush(self, items);
    escqrs_readmodel_get_status(same, &status);
    assert_int_equal(status.position, 2);
    check(escqrs_readmodel_wait_changed(same, &seen, esc_deadline_after(PATIENCE_NS), &error),
          &error);
    fixture_close(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_ONLY(test_bad_definitions),
        FILE_ONLY(test_names_clash),
        BOTH(test_adding_writes_nothing),
        cmocka_unit_test(test_check_needs_no_store),
        FILE_ONLY(test_create_as_fails_alone),
        FILE_ONLY(test_readonly),
        FILE_ONLY(test_readonly_change_is_told_to_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
