/* Inline read models and parked events, with several threads at once. */
#include "readmodel/fixture.h"

#define APPENDS 60
#define THREADS 3

static escqrs_readmodel *add_model(fixture *self, const char *sql, bool is_inline,
                                   escqrs_failure_action then)
{
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    escqrs_projection projection = {
        .type = escqrs_slice_of("ItemAdded"), .schema = self->schema, .sql = escqrs_slice_of(sql)};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Items"),
                                  .schema = escqrs_slice_of(ITEMS_SCHEMA),
                                  .projections = &projection,
                                  .projection_count = 1,
                                  .is_inline = is_inline,
                                  .on_error = {.then = then}};
    check(escqrs_readmodel_add(self->projector, &spec, &model, &error), &error);
    return model;
}

typedef struct appender {
    fixture *self;
    int number;
    int refused;
} appender;

/* Half of the names are taken by the others. */
static void append_some(void *context)
{
    appender *me = context;
    for (int i = 0; i < APPENDS; i++) {
        char name[32];
        esc_buffer data = {0};
        escqrs_error error = {0};
        snprintf(name, sizeof name, "%d-%d", i % 2 == 0 ? 9 : me->number, i);
        pack_item(&data, name, 1);
        escqrs_new_event event = {.type = me->self->type, .data = esc_buffer_slice(&data)};
        escqrs_write write = {.stream = escqrs_slice_of(name),
                              .expected = ESCQRS_EXPECT_ANY,
                              .events = &event,
                              .event_count = 1};
        escqrs_commit commit = {.writes = &write, .write_count = 1, .error = &error};
        escqrs_status status = escqrs_store_commit(me->self->store, &commit, &error);
        assert_true(status == ESCQRS_OK || status == ESCQRS_REJECTED);
        me->refused += status == ESCQRS_REJECTED;
        esc_buffer_fini(&data);
    }
}

static void test_commits_of_threads_beside_rebuilds(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_model(self, ITEMS_SQL, true, ESCQRS_FAILURE_STOP);
    start(self);
    esc_thread threads[THREADS];
    appender appenders[THREADS];
    for (int i = 0; i < THREADS; i++) {
        appenders[i] = (appender){.self = self, .number = i};
        check(esc_thread_create(&threads[i], "append", 0, append_some, &appenders[i], &error),
              &error);
    }
    for (int i = 0; i < 5; i++) {
        escqrs_readmodel_status status;
        check(escqrs_readmodel_rebuild(items, &error), &error);
        check(escqrs_readmodel_wait_rebuilt(items, esc_deadline_after(PATIENCE_NS), &error),
              &error);
        escqrs_readmodel_get_status(items, &status);
        assert_int_not_equal(status.state, ESCQRS_READMODEL_STOPPED);
    }
    int refused = 0;
    for (int i = 0; i < THREADS; i++) {
        esc_thread_join(&threads[i]);
        refused += appenders[i].refused;
    }
    assert_int_equal(refused, (THREADS - 1) * APPENDS / 2);
    assert_int_equal(escqrs_store_head(self->store), THREADS * APPENDS - refused);
    assert_look(self,
                "SELECT (SELECT count(*) FROM items) = (SELECT position FROM escqrs_readmodel)"
                " AND (SELECT max(id) FROM items) = (SELECT position FROM escqrs_readmodel)",
                "1");
}

static void test_a_checkpoint_elsewhere_fails_the_batch(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_model(self, ITEMS_SQL, true, ESCQRS_FAILURE_STOP);
    start(self);
    append_item(self, "book", 1);
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(self->path, &other), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(other, "UPDATE escqrs_readmodel SET position = 9", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(other);
    esc_buffer data = {0};
    pack_item(&data, "pen", 1);
    escqrs_new_event event = {.type = self->type, .data = esc_buffer_slice(&data)};
    escqrs_write write = {.stream = escqrs_slice_of("Cart/cart-1"),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1, .error = &error};
    assert_int_equal(escqrs_store_commit(self->store, &commit, &error), ESCQRS_CORRUPT);
    assert_non_null(strstr(error.message, "Items is no longer at 1"));
    assert_int_equal(escqrs_store_head(self->store), 1);
    esc_buffer_fini(&data);
    append_item(self, "pen", 1); /* without it */
    escqrs_readmodel_status status;
    escqrs_readmodel_get_status(items, &status);
    assert_int_equal(status.state, ESCQRS_READMODEL_STOPPED);
    check(escqrs_readmodel_rebuild(items, &error), &error);
    flush(self, items);
    append_item(self, "ink", 1);
    assert_look(self, "SELECT group_concat(name) FROM (SELECT name FROM items ORDER BY id)",
                "book,pen,ink");
}

static void unpark_some(void *context)
{
    escqrs_readmodel *items = context;
    for (int i = 0; i < 20; i++) {
        escqrs_error error = {0};
        escqrs_unpark wanted = {0};
        uint64_t ticket = 0;
        check(escqrs_readmodel_unpark(items, &wanted, &ticket, &error), &error);
        check(
            escqrs_readmodel_wait_unparked(items, ticket, esc_deadline_after(PATIENCE_NS), &error),
            &error);
    }
}

static void test_unparking_beside_new_events(void **state)
{
    fixture *self = *state;
    escqrs_error error = {0};
    escqrs_readmodel *items = add_model(self, ITEMS_SQL, false, ESCQRS_FAILURE_PARK);
    start(self);
    append_many(self, 0, 10);
    append_item(self, "item-3", 1); /* UNIQUE: parked, and its stream behind it */
    append_item(self, "later", 1);
    flush(self, items);
    assert_look(self, "SELECT group_concat(state) FROM escqrs_dead_letter", "parked,held");
    esc_thread threads[2];
    for (int i = 0; i < 2; i++) {
        check(esc_thread_create(&threads[i], "unpark", 0, unpark_some, items, &error), &error);
    }
    append_many(self, 10, 200);
    for (int i = 0; i < 2; i++) {
        esc_thread_join(&threads[i]);
    }
    flush(self, items);
    assert_look(self, "SELECT count(*) FROM items", "210");
    assert_look(self, "SELECT attempts FROM escqrs_dead_letter WHERE state = 'parked'", "41");
    escqrs_unpark skip = {.skip = 11, .reason = escqrs_slice_of("a twin")};
    uint64_t ticket = 0;
    check(escqrs_readmodel_unpark(items, &skip, &ticket, &error), &error);
    check(escqrs_readmodel_wait_unparked(items, ticket, esc_deadline_after(PATIENCE_NS), &error),
          &error);
    assert_look(self, "SELECT count(*) FROM items", "211");
    assert_look(self, "SELECT group_concat(state || ' ' || reason) FROM escqrs_dead_letter",
                "skipped a twin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commits_of_threads_beside_rebuilds, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_commits_of_threads_beside_rebuilds,
                                        fixture_setup_in_memory, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_checkpoint_elsewhere_fails_the_batch, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_unparking_beside_new_events, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
