/* Read models whose events go to functions of the program. */
#include "readmodel/fixture.h"

typedef struct handler {
    escqrs_readmodel *model;
    int calls;
    int fail_at; /* position */
} handler;

/* The read model Seen, all of whose events go to the function that the projection names. */
static void add_seen(fixture *self, handler *context, escqrs_projection projection,
                     escqrs_failure_policy on_error)
{
    escqrs_error error = {0};
    projection.type = escqrs_slice_of("ItemAdded");
    projection.context = context;
    projection.name = escqrs_slice_of("apply");
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of("Seen"),
                                  .schema =
                                      escqrs_slice_of("CREATE TABLE seen (id INTEGER PRIMARY KEY)"),
                                  .projections = &projection,
                                  .projection_count = 1,
                                  .on_error = on_error};
    check(escqrs_readmodel_add(self->projector, &spec, &context->model, &error), &error);
}

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
    add_seen(self, &context, (escqrs_projection){.apply = apply}, (escqrs_failure_policy){0});
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
    escqrs_projector_set_clock(self->projector, &clock);
    add_seen(self, &context, (escqrs_projection){.apply = apply},
             (escqrs_failure_policy){
                 .retry_count = 1, .retry_delay_ns = 500, .retry_delay_max_ns = 500});
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
    add_seen(self, &context, (escqrs_projection){.apply = apply_rolling_back},
             (escqrs_failure_policy){0});
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_functions),
        BOTH(test_step_by_a_clock),
        BOTH(test_function_that_hides_a_rollback),
        FILE_ONLY(test_what_functions_may_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
