/* Rebuilds: what is built anew, and that those that die go on from where they were. */
#include "readmodel/fixture.h"

#include <dirent.h>
#include <stdlib.h>

#include "readmodel/projector.h"

#define EVENTS 9000 /* more than two batches */
#define TWICE "INSERT INTO items VALUES (:_position, :name, :quantity * 2)"
#define SUM "SELECT sum(quantity) FROM items"

/* ---- what is built anew ---------------------------------------------------------------------- */

/* Items by another definition: with an index and a view. */
static escqrs_readmodel *add_doubles(fixture *self)
{
    escqrs_error error = {0};
    escqrs_readmodel *items = NULL;
    check(try_add(self, "Items",
                  "CREATE TABLE items (name TEXT PRIMARY KEY, double INTEGER) WITHOUT ROWID;"
                  "CREATE INDEX items_by_double ON items (double); CREATE VIEW names AS SELECT "
                  "name FROM items",
                  "INSERT INTO items VALUES (:name, :quantity * 2)", "", &items, &error),
          &error);
    return items;
}

static void test_changed_one_is_built_anew(void **state)
{
    fixture *self = *state;
    escqrs_readmodel *items = add_items(self);
    start(self);
    append_many(self, 0, 5000);
    flush(self, items);

    fixture_reopen(self);
    items = add_doubles(self);
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
    fixture_reopen(self);
    items = add_doubles(self);
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
    fixture_reopen(self);
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
    fixture_reopen(self);
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
    fixture_reopen(self);
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

/* ---- a life after a crash -------------------------------------------------------------------- */

/* The files as they are now, in a folder of their own: what a process finds after kill -9. */
static fixture *crash(const fixture *self)
{
    fixture *next = escqrs_alloc_zero(sizeof *next);
    char command[1200];
    next->log = (escqrs_log){fixture_log, next};
    next->folder = test_folder_new();
    next->schema = self->schema;
    snprintf(next->path, sizeof next->path, "%s/shop.db", next->folder);
    snprintf(command, sizeof command, "cp -r '%s/.' '%s/'", self->folder, next->folder);
    assert_int_equal(system(command), 0);
    return next;
}

static void end(fixture *self)
{
    fixture_close(self);
    test_folder_remove(self->folder);
    escqrs_free(self);
}

static escqrs_readmodel *add(fixture *self, const char *sql)
{
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    check(try_add(self, "Items", ITEMS_SCHEMA, sql, "", &model, &error), &error);
    return model;
}

static void make(fixture *self)
{
    escqrs_error error = {0};
    check(esc_models_make(self->projector, &error), &error);
}

static void finish(fixture *self)
{
    while (escqrs_projector_step(self->projector)) {
    }
}

/* The file with the copy, or NULL. */
static char *copy_of(const fixture *self)
{
    static char path[1200];
    DIR *folder = opendir(self->folder);
    bool found = false;
    assert_non_null(folder);
    for (struct dirent *one = readdir(folder); one != NULL; one = readdir(folder)) {
        if (strstr(one->d_name, "-rebuild-") != NULL) {
            bool shorter = !found || strlen(one->d_name) + strlen(self->folder) + 1 < strlen(path);
            if (shorter) {
                snprintf(path, sizeof path, "%s/%s", self->folder, one->d_name);
            }
            found = true;
        }
    }
    closedir(folder);
    return found ? path : NULL;
}

static void fill(fixture *self)
{
    append_many(self, 0, EVENTS);
    (void)add(self, ITEMS_SQL);
    finish(self);
    assert_look(self, SUM, "9000");
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* At each step: the old rows or the new ones, and a rebuild that goes on where it was. */
static void check_life(const fixture *before, const escqrs_readmodel *model, const char *sql,
                       bool is_over)
{
    fixture *life = crash(before);
    const esc_follower *copy = model->copy;
    const char *all = strcmp(sql, TWICE) == 0 ? "18000" : "9000";
    fixture_open(life);
    escqrs_readmodel *again = add(life, sql);
    make(life);
    assert_look(life, SUM, is_over ? all : "9000");
    if (copy == NULL) {
        assert_null(again->copy);
        assert_null(copy_of(life));
    } else {
        assert_non_null(again->copy);
        assert_int_equal(again->copy->position, copy->position);
    }
    append_item(life, "one more", 1);
    finish(life);
    assert_look(life, SUM, strcmp(sql, TWICE) == 0 ? "18002" : "9001");
    assert_look(life, "SELECT count(*) || ' ' || count(DISTINCT id) FROM items", "9001 9001");
    assert_null(copy_of(life));
    assert_look(life, "SELECT count(*) FROM escqrs_rebuild", "0");
    end(life);
}

static void test_changed_one_goes_on(void **state)
{
    fixture *self = *state;
    fill(self);
    fixture_close(self);
    fixture_open(self);
    escqrs_readmodel *model = add(self, TWICE);
    int64_t last = -1;
    int resumed = 0;
    while (escqrs_projector_step(self->projector)) {
        bool is_over = model->copy == NULL;
        check_life(self, model, TWICE, is_over);
        resumed += !is_over && model->copy->position > 0;
        assert_true(is_over || model->copy->position > last || last <= 0);
        last = is_over ? last : model->copy->position;
    }
    assert_true(resumed >= 2);
    assert_look(self, SUM, "18000");
}

static void test_one_that_was_asked_for_goes_on(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    append_many(self, 0, EVENTS);
    escqrs_readmodel *model = add(self, ITEMS_SQL);
    finish(self);
    check(escqrs_readmodel_rebuild(model, &error), &error);
    int resumed = 0;
    while (escqrs_projector_step(self->projector)) {
        check_life(self, model, ITEMS_SQL, model->copy == NULL);
        resumed += model->copy != NULL && model->copy->position > 0;
    }
    assert_true(resumed >= 2);
}

/* Begin one, and stop it in the middle. */
static escqrs_readmodel *begin(fixture *self)
{
    fill(self);
    fixture_close(self);
    fixture_open(self);
    escqrs_readmodel *model = add(self, TWICE);
    while (model->copy == NULL || model->copy->position == 0) {
        assert_true(escqrs_projector_step(self->projector));
    }
    return model;
}

static void check_begins_again(fixture *life)
{
    fixture_open(life);
    escqrs_readmodel *model = add(life, TWICE);
    make(life);
    assert_null(model->copy);
    assert_look(life, SUM, "9000");
    finish(life);
    assert_look(life, SUM, "18000");
    assert_null(copy_of(life));
    end(life);
}

static void write_over(const char *path, long offset, const char *text)
{
    FILE *file = fopen(path, offset == 0 ? "w" : "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* What is no copy of this rebuild is not built upon. */
static void test_copy_that_is_none(void **state)
{
    fixture *self = *state;
    (void)begin(self);
    static const char *const harms[] = {
        "UPDATE escqrs_rebuild SET number = number + 1", "DELETE FROM escqrs_rebuild",
        "UPDATE escqrs_readmodel SET position = 1000000", "DROP TABLE items",
        "UPDATE escqrs_readmodel SET fingerprint = 'another'"};
    for (size_t i = 0; i < sizeof harms / sizeof harms[0]; i++) {
        fixture *life = crash(self);
        run_sql(copy_of(life), harms[i]);
        check_begins_again(life);
    }
    fixture *gone = crash(self);
    char command[1300];
    snprintf(command, sizeof command, "rm '%s'*", copy_of(gone));
    assert_int_equal(system(command), 0);
    check_begins_again(gone);

    fixture *garbage = crash(self);
    run_sql(copy_of(garbage), "PRAGMA wal_checkpoint(TRUNCATE)");
    write_over(copy_of(garbage), 0, "this is not a database, and never was one");
    check_begins_again(garbage);
}

/* The process died between the swap and the removal of the copy. */
static void test_copy_that_was_left_over(void **state)
{
    fixture *self = *state;
    char command[1300];
    escqrs_readmodel *model = begin(self);
    while (model->copy->position < EVENTS) {
        assert_true(escqrs_projector_step(self->projector));
    }
    fixture *kept = crash(self);
    finish(self);
    fixture *life = crash(self);
    snprintf(command, sizeof command, "cp '%s'* '%s/'", copy_of(kept), life->folder);
    assert_int_equal(system(command), 0);
    assert_non_null(copy_of(life));
    fixture_open(life);
    model = add(life, TWICE);
    make(life);
    assert_null(model->copy);
    assert_null(copy_of(life));
    assert_look(life, SUM, "18000");
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(model, &status);
    assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
    end(life);
    check(escqrs_store_open(kept->path, NULL, &kept->store, NULL), NULL);
    end(kept);
}

static void test_back_to_the_old_definition(void **state)
{
    fixture *self = *state;
    (void)begin(self);
    fixture *life = crash(self);
    fixture_open(life);
    escqrs_readmodel *model = add(life, ITEMS_SQL);
    make(life);
    assert_null(model->copy);
    assert_null(copy_of(life));
    assert_false(escqrs_projector_step(life->projector));
    assert_look(life, SUM, "9000");
    assert_look(life, "SELECT count(*) FROM escqrs_rebuild", "0");
    end(life);
}

static void test_cancelled_one_stays_cancelled(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    append_many(self, 0, EVENTS);
    escqrs_readmodel *model = add(self, ITEMS_SQL);
    finish(self);
    check(escqrs_readmodel_rebuild(model, &error), &error);
    while (model->copy == NULL || model->copy->position == 0) {
        assert_true(escqrs_projector_step(self->projector));
    }
    check(escqrs_readmodel_cancel_rebuild(model, &error), &error);
    finish(self);
    assert_null(copy_of(self));
    fixture *life = crash(self);
    fixture_open(life);
    model = add(life, ITEMS_SQL);
    make(life);
    assert_null(model->copy);
    assert_false(escqrs_projector_step(life->projector));
    end(life);
}

/* The path of a store in memory is nobody's file: nothing may be written by that name. */
static void test_copy_of_what_is_in_memory(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *model = add(self, ITEMS_SQL);
    make(self);
    append_item(self, "book", 1);
    finish(self);
    assert_null(model->copy_path);
    check(escqrs_readmodel_rebuild(model, &error), &error);
    finish(self);
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(model, &status);
    assert_false(status.rebuilding);
    assert_int_equal(status.state, ESCQRS_READMODEL_LIVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_ONLY(test_changed_one_is_built_anew),
        FILE_ONLY(test_version_builds_anew),
        FILE_ONLY(test_rebuild_refused),
        BOTH(test_rebuild_on_demand),
        BOTH(test_rebuild_of_a_stopped_one),
        FILE_ONLY(test_virtual_tables),
        BOTH(test_rows_are_copied_as_they_are),
        FILE_ONLY(test_changed_one_goes_on),
        FILE_ONLY(test_one_that_was_asked_for_goes_on),
        FILE_ONLY(test_copy_that_is_none),
        FILE_ONLY(test_copy_that_was_left_over),
        FILE_ONLY(test_back_to_the_old_definition),
        FILE_ONLY(test_cancelled_one_stays_cancelled),
        cmocka_unit_test_setup_teardown(test_copy_of_what_is_in_memory, fixture_setup_in_memory,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
