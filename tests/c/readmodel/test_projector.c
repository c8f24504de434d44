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
        fixture_reopen(self);
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
    fixture_reopen(self);
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
    fixture_reopen(self);
    items = add_items(self);
    start(self);
    assert_int_equal(wait_head(self, items, &error), ESCQRS_READ_MODEL_STOPPED);
    assert_int_equal(error.position, 2);
    assert_look(self, "SELECT count(*) FROM items", "1");
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
    assert_int_equal(escqrs_readmodel_wait(items, 99, esc_deadline_after(PATIENCE_NS), &error),
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
        BOTH(test_wait_times_out_and_ends),
        FILE_ONLY(test_step),
        BOTH(test_the_log_is_written_first),
        FILE_ONLY(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
