/* Following the feed: exactly once, in order, through failures, restarts and rebuilds. */
#include "readmodel/fixture.h"

static void test_follows_live(void **state)
{
    fixture *self = *state;
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_item(self, "book", 2);
    append_item(self, "pen", 1);
    flush(self, items);
    assert_look(
        self, "SELECT group_concat(id || name || quantity) FROM (SELECT * FROM items ORDER BY id)",
        "1book2,2pen1");
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(items, &status);
    assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
    assert_int_equal(status.position, 2);
    assert_int_equal(status.head, 2);
}

static void test_catches_up(void **state)
{
    fixture *self = *state;
    append_many(self, 0, 20000);
    escqrs_readmodel *items = add_items(self);
    start(self);
    flush(self, items);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM items", "20000 20000");
    append_many(self, 20000, 500);
    flush(self, items);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM items", "20500 20500");
}

static void test_goes_on_after_reopening(void **state)
{
    fixture *self = *state;
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_many(self, 0, 100);
    flush(self, items);
    for (int round = 1; round < 4; round++) {
        fixture_close(self);
        fixture_open_store(self);
        fixture_open_projector(self);
        items = add_items(self);
        append_many(self, round * 100, 100);
        start(self);
        flush(self, items);
    }
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM items", "400 400");
    assert_look(self, "SELECT position FROM escqrs_readmodel", "400");
}

static void test_several_share_a_batch(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *sums = NULL;
    append_many(self, 0, 3000);
    escqrs_readmodel *items = add_items(self);
    check(try_add(self, "Sums", "CREATE TABLE sums (k INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
                  "INSERT INTO sums VALUES (:_position % 10, :quantity) ON CONFLICT (k) DO UPDATE "
                  "SET n = n + "
                  "excluded.n",
                  "", &sums, &error),
          &error);
    start(self);
    append_many(self, 3000, 1000);
    flush(self, items);
    flush(self, sums);
    assert_look(self, "SELECT count(*) FROM items", "4000");
    assert_look(self, "SELECT sum(n) || ' ' || min(n) || ' ' || max(n) FROM sums", "4000 400 400");
}

static void test_new_one_beside_old_one(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self), *late = NULL;
    start(self);
    append_many(self, 0, 9000);
    flush(self, items);
    fixture_close(self);
    fixture_open_store(self);
    fixture_open_projector(self);
    items = add_items(self);
    check(try_add(self, "Late", "CREATE TABLE late (id INTEGER PRIMARY KEY)",
                  "INSERT INTO late VALUES (:_position)", "", &late, &error),
          &error);
    start(self);
    append_many(self, 9000, 1000);
    flush(self, items);
    flush(self, late);
    assert_look(self, "SELECT count(*) FROM items", "10000");
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM late", "10000 10000");
}

static void test_failing_event_stops_that_one(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *all = NULL;
    escqrs_readmodel *items = add_items(self);
    check(try_add(self, "All", "CREATE TABLE everything (id INTEGER PRIMARY KEY)",
                  "INSERT INTO everything VALUES (:_position)", "", &all, &error),
          &error);
    append_item(self, "book", 1);
    append_item(self, "pen", 1);
    append_item(self, "book", 2); /* UNIQUE */
    append_item(self, "ink", 1);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_non_null(strstr(error.message, "Items"));
    assert_non_null(strstr(error.message, "UNIQUE constraint failed: items.name"));
    assert_non_null(strstr(error.message, "Cart/cart-1"));
    assert_int_equal(error.position, 3);
    assert_string_equal(error.subject, "Items");
    flush(self, all);
    assert_look(self, "SELECT count(*) FROM everything", "4");
    assert_look(self, "SELECT group_concat(name) FROM (SELECT * FROM items ORDER BY id)",
                "book,pen");
    assert_look(self, "SELECT position FROM escqrs_readmodel WHERE name = 'Items'", "2");
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(items, &status);
    assert_int_equal(status.state, ESCQRS_READMODEL_STOPPED);
    assert_int_equal(status.position, 2);
    assert_int_equal(status.error.position, 3);
    assert_true(self->errors_logged >= 1);

    /* the position before it is there */
    check(escqrs_readmodel_wait(items, 2, 0, &error), &error);

    /* trying again stops at the same place */
    check(escqrs_readmodel_retry(items, &error), &error);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 3);

    check(escqrs_readmodel_skip(items, escqrs_slice_of("known"), &error), &error);
    flush(self, items);
    assert_look(self, "SELECT group_concat(id || name) FROM (SELECT * FROM items ORDER BY id)",
                "1book,2pen,4ink");
    assert_int_equal(self->warnings_logged, 1);
    assert_int_equal(escqrs_readmodel_skip(items, escqrs_slice_of("known"), &error),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_readmodel_retry(items, &error), ESCQRS_INVALID);
}

static void test_event_that_cannot_be_decoded(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    append_item(self, "book", 1);
    append_data(self, self->type, (escqrs_slice){"\x0a\x7fxx", 4});
    append_item(self, "pen", 1);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 2);
    check(escqrs_readmodel_skip(items, escqrs_slice_of("known"), &error), &error);
    flush(self, items);
    assert_look(self, "SELECT group_concat(name) FROM (SELECT * FROM items ORDER BY id)",
                "book,pen");
}

static void test_several_statements_are_one(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    escqrs_projection projections[] = {
        {.type = escqrs_slice_of("ItemAdded"),
         .schema = self->schema,
         .sql = escqrs_slice_of("INSERT INTO first VALUES (:_position)")},
        {.type = escqrs_slice_of("ItemAdded"),
         .schema = self->schema,
         .sql = escqrs_slice_of("INSERT INTO second VALUES (:name)")},
    };
    escqrs_readmodel_spec spec = {
        .name = escqrs_slice_of("Two"),
        .schema =
            escqrs_slice_of("CREATE TABLE first (id); CREATE TABLE second (name UNIQUE); -- two"),
        .projections = projections,
        .projection_count = 2};
    check(escqrs_readmodel_add(self->projector, &spec, &model, &error), &error);
    append_item(self, "book", 1);
    append_item(self, "book", 1);
    start(self);
    assert_int_equal(wait_head(self, model, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_look(self, "SELECT group_concat(id) FROM first", "1");
}

static void test_or_rollback(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    check(try_add(self, "Items", ITEMS_SCHEMA,
                  "INSERT OR ROLLBACK INTO items VALUES (:_position, :name, 1)", "", &model,
                  &error),
          &error);
    append_many(self, 0, 50);
    append_item(self, "item-7", 1);
    start(self);
    assert_int_equal(wait_head(self, model, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_look(self, "SELECT count(*) FROM items", "50");
}

static void test_stopped_one_is_tried_when_opened(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    append_item(self, "book", 1);
    append_item(self, "book", 1);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    fixture_close(self);
    fixture_open_store(self);
    fixture_open_projector(self);
    items = add_items(self);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 2);
    assert_look(self, "SELECT count(*) FROM items", "1");
}

/* ---- rebuild ---------------------------------------------------------------------------------------- */

static void reopen(fixture *self)
{
    fixture_close(self);
    fixture_open_store(self);
    fixture_open_projector(self);
}

static void test_changed_one_is_built_anew(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_many(self, 0, 5000);
    flush(self, items);

    reopen(self);
    check(try_add(self, "Items",
                  "CREATE TABLE items (name TEXT PRIMARY KEY, double INTEGER) WITHOUT ROWID;"
                  "CREATE INDEX items_by_double ON items (double); CREATE VIEW names AS SELECT "
                  "name FROM items",
                  "INSERT INTO items VALUES (:name, :quantity * 2)", "", &items, &error),
          &error);
    assert_look(self, "SELECT count(*) FROM items WHERE quantity = 1", "5000"); /* the old rows */
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(items, &status);
    assert_true(status.rebuilding);
    assert_int_equal(status.state, ESCQRS_READMODEL_CATCHING_UP);
    start(self);
    append_many(self, 5000, 10);
    flush(self, items);
    escqrs_readmodel_get_status(items, &status);
    assert_false(status.rebuilding);
    assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
    assert_look(self, "SELECT count(*) || ' ' || sum(double) FROM items", "5010 10020");
    assert_look(self, "SELECT count(*) FROM names", "5010");
    assert_look(self, "SELECT count(*) FROM escqrs_readmodel_object", "3");

    /* not again */
    reopen(self);
    check(try_add(self, "Items",
                  "CREATE TABLE items (name TEXT PRIMARY KEY, double INTEGER) WITHOUT ROWID;"
                  "CREATE INDEX items_by_double ON items (double); CREATE VIEW names AS SELECT "
                  "name FROM items",
                  "INSERT INTO items VALUES (:name, :quantity * 2)", "", &items, &error),
          &error);
    escqrs_readmodel_get_status(items, &status);
    assert_false(status.rebuilding);
    assert_int_equal(status.position, 5010);
}

static void test_version_builds_anew(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_many(self, 0, 10);
    flush(self, items);
    reopen(self);
    check(try_add(self, "Items", ITEMS_SCHEMA, ITEMS_SQL, "2", &items, &error), &error);
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(items, &status);
    assert_true(status.rebuilding);
    start(self);
    flush(self, items);
    assert_look(self, "SELECT count(*) FROM items", "10");
}

static void test_rebuild_refused(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_many(self, 0, 10);
    flush(self, items);
    reopen(self);
    escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                    .schema = self->schema,
                                    .sql = escqrs_slice_of(ITEMS_SQL)};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Items"),
                                  .schema = escqrs_slice_of(ITEMS_SCHEMA " STRICT"),
                                  .rebuild_manual = true,
                                  .projections = &projection,
                                  .projection_count = 1};
    assert_int_equal(escqrs_readmodel_add(self->projector, &spec, &items, &error),
                     ESCQRS_SCHEMA_MISMATCH);
    assert_look(self, "SELECT count(*) FROM items", "10");
}

static void test_rebuild_on_demand(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    append_many(self, 0, 10000);
    start(self);
    flush(self, items);
    check(escqrs_readmodel_rebuild(items, &error), &error);
    append_many(self, 10000, 100);
    flush(self, items);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM items", "10100 10100");
    assert_look(self, "SELECT position FROM escqrs_readmodel", "10100");
    append_many(self, 10100, 1);
    flush(self, items);
    assert_look(self, "SELECT count(*) FROM items", "10101");
}

static void test_rebuild_of_a_stopped_one(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    append_item(self, "book", 1);
    append_item(self, "book", 1);
    append_item(self, "pen", 1);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    check(escqrs_readmodel_rebuild(items, &error), &error);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_look(self, "SELECT count(*) FROM items", "1"); /* still the old rows */
    check(escqrs_readmodel_skip(items, escqrs_slice_of("known"), &error), &error);
    flush(self, items);
    assert_look(self, "SELECT group_concat(id || name) FROM (SELECT * FROM items ORDER BY id)",
                "1book,3pen");
}

static void test_virtual_tables(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    const char *schema = "CREATE VIRTUAL TABLE words USING fts5(name)";
    const char *sql = "INSERT INTO words (rowid, name) VALUES (:_position, :name)";
    check(try_add(self, "Words", schema, sql, "", &model, &error), &error);
    append_item(self, "red book", 1);
    append_item(self, "blue pen", 1);
    start(self);
    flush(self, model);
    assert_look(self, "SELECT rowid FROM words WHERE words MATCH 'pen'", "2");
    check(escqrs_readmodel_rebuild(model, &error), &error);
    flush(self, model);
    assert_look(self, "SELECT count(*) FROM words WHERE words MATCH 'red OR blue'", "2");
    reopen(self);
    check(try_add(self, "Words", schema, sql, "2", &model, &error), &error);
    start(self);
    flush(self, model);
    assert_look(self, "SELECT count(*) FROM words WHERE words MATCH 'red OR blue'", "2");
}

static void test_rows_are_copied_as_they_are(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    const char *schema =
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v, w GENERATED ALWAYS AS (v || '!') "
        "STORED);"
        "CREATE TABLE b (\"odd \"\"name\" TEXT);"
        "CREATE TABLE log (id INTEGER PRIMARY KEY, n INTEGER);"
        "INSERT INTO log VALUES (1, 0);"
        "CREATE TRIGGER counts AFTER INSERT ON a BEGIN UPDATE log SET n = n + 1; END";
    const char *sql = "INSERT INTO a (v) VALUES (:name)";
    check(try_add(self, "A", schema, sql, "", &model, &error), &error);
    append_item(self, "x", 1);
    append_item(self, "y", 1);
    start(self);
    flush(self, model);
    check(escqrs_readmodel_rebuild(model, &error), &error);
    flush(self, model);
    append_item(self, "z", 1);
    flush(self, model);
    assert_look(self, "SELECT group_concat(id || v || w) FROM a", "1xx!,2yy!,3zz!");
    assert_look(self, "SELECT n FROM log", "3");
}

/* ---- names and definitions --------------------------------------------------------------------------- */

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
    reopen(self); /* Items is not opened, but its table is there */
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

static void test_readonly(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_item(self, "book", 1);
    flush(self, items);

    escqrs_store_options options = {.readonly = true};
    fixture reader = {.schema = self->schema, .log = self->log};
    check(escqrs_store_open(self->path, &options, &reader.store, &error), &error);
    fixture_open_projector(&reader);
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
    check(escqrs_readmodel_wait(same, 2, esc_deadline_after(60 * SECONDS), &error), &error);
    assert_look(&reader, "SELECT count(*) FROM items", "2");
    assert_int_equal(escqrs_readmodel_rebuild(same, &error), ESCQRS_READ_ONLY);
    fixture_close(&reader);
}

/* Whoever else looks at a read-only read model takes no change from who waits for one. */
static void test_readonly_change_is_told_to_all(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_item(self, "book", 1);
    flush(self, items);

    escqrs_store_options options = {.readonly = true};
    fixture reader = {.schema = self->schema, .log = self->log};
    check(escqrs_store_open(self->path, &options, &reader.store, &error), &error);
    fixture_open_projector(&reader);
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
    check(escqrs_readmodel_wait_changed(same, &seen, esc_deadline_after(60 * SECONDS), &error),
          &error);
    fixture_close(&reader);
}

static void test_wait_times_out_and_ends(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_items(self);
    start(self);
    assert_int_equal(escqrs_readmodel_wait(items, 99, esc_deadline_after(1000000), &error),
                     ESCQRS_TIMEOUT);
    escqrs_projector_stop(self->projector);
    assert_int_equal(escqrs_readmodel_wait(items, 99, esc_deadline_after(60 * SECONDS), &error),
                     ESCQRS_CLOSED);
}

static void test_step(void **state)
{
    fixture *self = *state;
    (void)add_items(self);
    assert_false(escqrs_projector_step(self->projector));
    append_item(self, "book", 1);
    assert_true(escqrs_projector_step(self->projector));
    assert_false(escqrs_projector_step(self->projector));
    assert_look(self, "SELECT count(*) FROM items", "1");
}

/* ---- the log ---------------------------------------------------------------------------------- */

typedef struct listener {
    escqrs_readmodel *model;
    _Atomic(int) errors, late; /* late: the change was to be seen already */
} listener;

static void listen_to(void *context, escqrs_log_level level, const char *text)
{
    listener *self = context;
    escqrs_readmodel_status status;
    (void)text;
    if (level >= ESCQRS_LOG_ERROR) {
        escqrs_readmodel_get_status(self->model, &status);
        self->late += status.state == ESCQRS_READMODEL_STOPPED || status.parked > 0;
        self->errors++;
    }
}

/* Who waited for a read model to stop, or to park an event, finds in the log why. */
static void test_the_log_is_written_first(void **state)
{
    fixture *self = *state;
    append_item(self, "book", 1);
    append_item(self, "book", 2);
    for (int parks = 0; parks < 2; parks++) {
        escqrs_error error = {0};
        listener heard = {0};
        escqrs_projector_destroy(self->projector);
        self->log = (escqrs_log){listen_to, &heard};
        fixture_open_projector(self);
        escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                        .schema = self->schema,
                                        .sql = escqrs_slice_of(ITEMS_SQL)};
        escqrs_readmodel_spec spec = {
            .name = escqrs_slice_of("Items"),
            .schema = escqrs_slice_of(ITEMS_SCHEMA),
            .projections = &projection,
            .projection_count = 1,
            .on_error = {.then = parks ? ESCQRS_FAILURE_PARK : ESCQRS_FAILURE_STOP}};
        check(escqrs_readmodel_add(self->projector, &spec, &heard.model, &error), &error);
        start(self);
        assert_int_equal(wait_head(self, heard.model, &error),
                         parks ? ESCQRS_OK : ESCQRS_READ_MODEL_STOPPED);
        assert_int_equal(heard.errors, 1);
        assert_int_equal(heard.late, 0);
        escqrs_projector_destroy(self->projector);
        self->log = (escqrs_log){fixture_log, self};
        fixture_open_projector(self);
    }
}

/* ---- functions ------------------------------------------------------------------------------------------ */

typedef struct handler {
    escqrs_readmodel *model;
    int calls;
    int fail_at; /* position */
} handler;

static escqrs_status apply(void *context, const escqrs_recorded *recorded, void *sqlite,
                           escqrs_error *error)
{
    handler *self = context;
    void *statement = NULL;
    self->calls++;
    escqrs_status status = escqrs_readmodel_statement(
        self->model, sqlite, escqrs_slice_of("INSERT INTO seen VALUES (?)"), &statement, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    sqlite3_bind_int64(statement, 1, recorded->position);
    int code = sqlite3_step(statement);
    escqrs_readmodel_statement_return(self->model, sqlite, statement);
    if (recorded->position == self->fail_at || code != SQLITE_DONE) {
        return escqrs_error_set(error, ESCQRS_REJECTED, "on purpose");
    }
    return ESCQRS_OK;
}

static void test_functions(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    handler context = {.fail_at = 30};
    escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                    .apply = apply,
                                    .context = &context,
                                    .name = escqrs_slice_of("apply")};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Seen"),
                                  .schema =
                                      escqrs_slice_of("CREATE TABLE seen (id INTEGER PRIMARY KEY)"),
                                  .projections = &projection,
                                  .projection_count = 1};
    check(escqrs_readmodel_add(self->projector, &spec, &context.model, &error), &error);
    /* in the same transactions, and failing at another event */
    escqrs_readmodel *items = add_items(self);
    append_many(self, 0, 20);
    append_many(self, 0, 1);
    append_many(self, 21, 29);
    start(self);
    assert_int_equal(wait_head(self, context.model, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 30);
    assert_non_null(strstr(error.message, "on purpose"));
    assert_int_equal(context.calls, 30); /* none was called again because of the other's failure */
    assert_look(self, "SELECT count(*) FROM seen", "29");
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 21);
    check(escqrs_readmodel_skip(items, escqrs_slice_of("known"), &error), &error);
    check(escqrs_readmodel_skip(context.model, escqrs_slice_of("known"), &error), &error);
    flush(self, items);
    flush(self, context.model);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM seen", "49 50");
    assert_look(self, "SELECT count(*) FROM items", "49");
}

static int64_t read_number(void *context)
{
    return *(int64_t *)context;
}

/* A further attempt is made when the clock says so, and at no other time. */
static void test_step_by_a_clock(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    int64_t now_ns = 1000;
    const escqrs_clock clock = {.monotonic_ns = read_number, .context = &now_ns};
    handler context = {.fail_at = 2};
    escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                    .apply = apply,
                                    .context = &context,
                                    .name = escqrs_slice_of("apply")};
    escqrs_readmodel_spec spec = {
        .name = escqrs_slice_of("Seen"),
        .schema = escqrs_slice_of("CREATE TABLE seen (id INTEGER PRIMARY KEY)"),
        .projections = &projection,
        .projection_count = 1,
        .on_error = {.retry_count = 1, .retry_delay_ns = 500, .retry_delay_max_ns = 500}};
    escqrs_projector_set_clock(self->projector, &clock);
    check(escqrs_readmodel_add(self->projector, &spec, &context.model, &error), &error);
    check(escqrs_projector_prepare(self->projector, &error), &error);
    assert_look(self, "SELECT count(*) FROM seen", "0");
    append_many(self, 0, 2);
    while (escqrs_projector_step(self->projector)) {
    }
    assert_look(self, "SELECT count(*) FROM seen", "1");
    assert_int_equal(escqrs_projector_next_due_ns(self->projector), 1500);
    now_ns = 1499;
    assert_false(escqrs_projector_step(self->projector));
    now_ns = 1500;
    context.fail_at = 0;
    assert_true(escqrs_projector_step(self->projector));
    assert_int_equal(escqrs_projector_next_due_ns(self->projector), INT64_MAX);
    assert_look(self, "SELECT count(*) FROM seen", "2");
}

/* A failure that ends the transaction, and that the function keeps to itself. */
static escqrs_status apply_rolling_back(void *context, const escqrs_recorded *recorded,
                                        void *sqlite, escqrs_error *error)
{
    static const char *const texts[] = {"INSERT INTO seen VALUES (?)",
                                        "INSERT OR ROLLBACK INTO seen VALUES (?)",
                                        "INSERT INTO seen VALUES (1000 + ?)"};
    handler *self = context;
    self->calls++;
    for (size_t i = 0; i < (recorded->position == self->fail_at ? 3 : 1); i++) {
        void *statement = NULL;
        if (escqrs_readmodel_statement(self->model, sqlite, escqrs_slice_of(texts[i]), &statement,
                                       error) == ESCQRS_OK) {
            sqlite3_bind_int64(statement, 1, recorded->position);
            (void)sqlite3_step(statement);
            escqrs_readmodel_statement_return(self->model, sqlite, statement);
        }
    }
    return ESCQRS_OK;
}

static void test_function_that_hides_a_rollback(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    handler context = {.fail_at = 7};
    escqrs_projection projection = {.type = escqrs_slice_of("ItemAdded"),
                                    .apply = apply_rolling_back,
                                    .context = &context,
                                    .name = escqrs_slice_of("apply")};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Seen"),
                                  .schema =
                                      escqrs_slice_of("CREATE TABLE seen (id INTEGER PRIMARY KEY)"),
                                  .projections = &projection,
                                  .projection_count = 1};
    check(escqrs_readmodel_add(self->projector, &spec, &context.model, &error), &error);
    append_many(self, 0, 10);
    start(self);
    assert_int_equal(wait_head(self, context.model, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 7);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM seen", "6 6");
    context.fail_at = 0;
    check(escqrs_readmodel_retry(context.model, &error), &error);
    flush(self, context.model);
    assert_look(self, "SELECT count(*) || ' ' || max(id) FROM seen", "10 10");
}

static void test_what_functions_may_do(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    void *statement = NULL;
    escqrs_readmodel *items = add_items(self);
    static const char *const refused[] = {"SELECT * FROM escqrs_readmodel", "DROP TABLE items",
                                          "COMMIT", "nonsense"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_int_equal(escqrs_readmodel_statement(items, NULL, escqrs_slice_of(refused[i]),
                                                    &statement, &error),
                         ESCQRS_INVALID);
        assert_null(statement);
    }
}

/* The n-th allocation fails, for every n: an error, or nothing noticed, but never a crash or a
 * half-made thing. */
static void test_out_of_memory(void **state)
{
    fixture *self = *state;
    for (long n = 1; n < 200; n++) {
        escqrs_error error = {0};
        escqrs_readmodel *model = NULL;
        escqrs_alloc_fail(n, false);
        escqrs_status status = try_add(self, "Items", ITEMS_SCHEMA, ITEMS_SQL, "", &model, &error);
        escqrs_alloc_fail(0, false);
        if (status == ESCQRS_OK) {
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
    }
    append_many(self, 0, 10);
    assert_true(escqrs_projector_step(self->projector));
    assert_look(self, "SELECT count(*) FROM items", "10");
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown),                        \
        cmocka_unit_test_setup_teardown(test, fixture_setup_in_memory, fixture_teardown)
#define FILE_ONLY(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_follows_live),
        BOTH(test_catches_up),
        FILE_ONLY(test_goes_on_after_reopening),
        BOTH(test_several_share_a_batch),
        FILE_ONLY(test_new_one_beside_old_one),
        BOTH(test_failing_event_stops_that_one),
        BOTH(test_event_that_cannot_be_decoded),
        BOTH(test_several_statements_are_one),
        BOTH(test_or_rollback),
        FILE_ONLY(test_stopped_one_is_tried_when_opened),
        FILE_ONLY(test_changed_one_is_built_anew),
        FILE_ONLY(test_version_builds_anew),
        FILE_ONLY(test_rebuild_refused),
        BOTH(test_rebuild_on_demand),
        BOTH(test_rebuild_of_a_stopped_one),
        FILE_ONLY(test_virtual_tables),
        BOTH(test_rows_are_copied_as_they_are),
        FILE_ONLY(test_bad_definitions),
        FILE_ONLY(test_names_clash),
        BOTH(test_adding_writes_nothing),
        cmocka_unit_test(test_check_needs_no_store),
        FILE_ONLY(test_create_as_fails_alone),
        FILE_ONLY(test_readonly),
        FILE_ONLY(test_readonly_change_is_told_to_all),
        BOTH(test_wait_times_out_and_ends),
        FILE_ONLY(test_step),
        BOTH(test_the_log_is_written_first),
        BOTH(test_functions),
        BOTH(test_step_by_a_clock),
        BOTH(test_function_that_hides_a_rollback),
        FILE_ONLY(test_what_functions_may_do),
        FILE_ONLY(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
