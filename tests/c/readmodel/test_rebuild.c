/* Rebuilds that die: what is found at each step, and that they go on from there. */
#include "readmodel/fixture.h"

#include <dirent.h>
#include <stdlib.h>

#include "readmodel/projector.h"

#define EVENTS 9000 /* more than two batches */
#define TWICE "INSERT INTO items VALUES (:_position, :name, :quantity * 2)"
#define SUM "SELECT sum(quantity) FROM items"

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

static void reopen(fixture *self)
{
    fixture_open_store(self);
    fixture_open_projector(self);
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
    reopen(life);
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
    reopen(self);
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
    reopen(self);
    escqrs_readmodel *model = add(self, TWICE);
    while (model->copy == NULL || model->copy->position == 0) {
        assert_true(escqrs_projector_step(self->projector));
    }
    return model;
}

static void check_begins_again(fixture *life)
{
    reopen(life);
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
    reopen(life);
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
    reopen(life);
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
    reopen(life);
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

#define TEST(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_changed_one_goes_on),
        TEST(test_one_that_was_asked_for_goes_on),
        TEST(test_copy_that_is_none),
        TEST(test_copy_that_was_left_over),
        TEST(test_back_to_the_old_definition),
        TEST(test_cancelled_one_stays_cancelled),
        cmocka_unit_test_setup_teardown(test_copy_of_what_is_in_memory, fixture_setup_in_memory,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
