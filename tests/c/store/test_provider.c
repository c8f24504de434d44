/* Providers: the public suite that each has to pass, on SQLite's file, the store in memory and the
 * example of one's own; and what the core makes of providers that are wrong. */
#include "fixture.h"

#include <escqrs/provider_suite.h>

int example_main(void);
#define main example_main
#include "../../../examples/provider.c"
#undef main

/* ---- the suite -------------------------------------------------------------------------------- */

static int suite_numbers; /* files that the suite was given */

static escqrs_status open_file(void *context, bool fresh, const escqrs_store_options *options,
                               escqrs_store **store, escqrs_error *error)
{
    char path[400];
    (void)context;
    suite_numbers += fresh;
    snprintf(path, sizeof path, "%s-%d", fixture_path, suite_numbers);
    return escqrs_store_open(path, options, store, error);
}

static escqrs_status open_memory(void *context, bool fresh, const escqrs_store_options *options,
                                 escqrs_store **store, escqrs_error *error)
{
    (void)context, (void)fresh;
    return escqrs_store_open(":memory:", options, store, error);
}

static void run_suite(const escqrs_provider_suite *suite)
{
    assert_int_equal(escqrs_provider_suite_run(suite), 0);
}

static void test_file(void **state)
{
    (void)state;
    run_suite(&(escqrs_provider_suite){
        .name = "sqlite", .open = open_file, .deletes = true, .begins_new = true});
}

static void test_memory(void **state)
{
    (void)state;
    run_suite(&(escqrs_provider_suite){.name = "memory",
                                       .open = open_memory,
                                       .forgets = true,
                                       .deletes = true,
                                       .begins_new = true});
}

static void test_shelf(void **state)
{
    shelf *kept = NULL;
    (void)state;
    run_suite(&(escqrs_provider_suite){
        .name = "shelf", .open = shelf_suite_open, .context = &kept, .begins_new = true});
    shelf_destroy(kept);
}

typedef struct told {
    size_t count, failed;
    char failures[4096];
} told;

static void note_result(void *context, const char *test, const char *failure)
{
    told *all = context;
    all->count++;
    if (failure != NULL) {
        size_t size = strlen(all->failures);
        all->failed++;
        snprintf(all->failures + size, sizeof all->failures - size, "%s|%s\n", test, failure);
    }
}

static told suite_told;
static shelf *suite_shelf;

static escqrs_status open_told(void *context, bool fresh, const escqrs_store_options *options,
                               escqrs_store **store, escqrs_error *error)
{
    (void)context;
    return shelf_suite_open(&suite_shelf, fresh, options, store, error);
}

/* What a provider does not do as it says is told, test by test, and the others go on. */
static void test_suite_tells(void **state)
{
    (void)state;
    escqrs_provider_suite suite = {.name = "boastful",
                                   .open = open_told,
                                   .report = note_result,
                                   .context = &suite_told,
                                   .begins_new = true,
                                   .deletes = true};
    assert_int_equal(escqrs_provider_suite_run(&suite), 2);
    assert_int_equal(suite_told.failed, 2);
    assert_true(suite_told.count > 30);
    assert_non_null(strstr(suite_told.failures, "deleting|"));
    assert_non_null(strstr(suite_told.failures, "deleting is refused|"));
    assert_non_null(strstr(suite_told.failures, "INVALID, not OK: a provider of the kind"));
    shelf_destroy(suite_shelf);
    suite_shelf = NULL;
}

static escqrs_status open_none(void *context, bool fresh, const escqrs_store_options *options,
                               escqrs_store **store, escqrs_error *error)
{
    (void)context, (void)fresh, (void)options, (void)store;
    return escqrs_error_set(error, ESCQRS_IO, "the server is away");
}

static void test_suite_without_a_store(void **state)
{
    (void)state;
    suite_told = (told){0};
    escqrs_provider_suite suite = {
        .name = "away", .open = open_none, .report = note_result, .context = &suite_told};
    size_t failed = escqrs_provider_suite_run(&suite);
    assert_int_equal(failed, suite_told.count);
    assert_non_null(strstr(suite_told.failures, "IO, not OK: the server is away"));
}

/* ---- providers that go wrong ------------------------------------------------------------------ */

static escqrs_provider_functions spoiled; /* the shelf's, but for what a test changes */
static bool loses;                        /* `read` leaves out what stands at position 2 */
static int fails_at_end;                  /* batches left until `end` fails for good */

static escqrs_status losing_read(escqrs_provider *self, const escqrs_query *query,
                                 escqrs_page *page, escqrs_error *error)
{
    escqrs_status status = escqrs_page_begin(page, query, error);
    for (int64_t position = query->after + 1; position <= query->upto && status == ESCQRS_OK;
         position++) {
        const escqrs_recorded *recorded =
            &AT(&of(self)->events, kept_event, (size_t)position - 1)->recorded;
        if (!loses || position != 2) {
            status = escqrs_page_add(page, query, recorded, error);
        }
    }
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status failing_end(escqrs_provider *self, escqrs_error *error)
{
    if (--fails_at_end != 0) {
        return ESCQRS_OK;
    }
    self->failed = true;
    return escqrs_error_set(error, ESCQRS_IO, "the shelf fell down");
}

static escqrs_status empty_read(escqrs_provider *self, const escqrs_query *query, escqrs_page *page,
                                escqrs_error *error)
{
    (void)self;
    return escqrs_page_begin(page, query, error);
}

static escqrs_store *open_spoiled(shelf *kept)
{
    escqrs_store *store = NULL;
    shelf_provider *provider = escqrs_alloc_zero(sizeof *provider);
    assert_non_null(provider);
    assert_int_equal(escqrs_provider_init(&provider->base, &spoiled, NULL), ESCQRS_OK);
    provider->shelf = kept;
    assert_int_equal(escqrs_store_open(":memory:", NULL, &provider->rows, NULL), ESCQRS_OK);
    assert_int_equal(shelf_restart(&provider->base, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_open_provider(&provider->base, "spoiled", NULL, &store, NULL),
                     ESCQRS_OK);
    return store;
}

static escqrs_status read_all(escqrs_store *store, int64_t *count, escqrs_error *error)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    *count = 0;
    escqrs_status status = escqrs_store_events(store, NULL, &cursor, error);
    while (status == ESCQRS_OK &&
           (status = escqrs_cursor_next(cursor, &recorded, error)) == ESCQRS_OK) {
        (*count)++;
    }
    escqrs_cursor_close(cursor);
    return status;
}

/* What is lost is an error, never a shorter result. */
static void test_lost_events(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    escqrs_error error = {0};
    int64_t count;
    spoiled = shelf_functions;
    spoiled.read = losing_read;
    loses = true;
    escqrs_store *store = open_spoiled(kept);
    append(store, "a", 0, 3);
    assert_int_equal(read_all(store, &count, &error), ESCQRS_CORRUPT);
    assert_int_equal(count, 1); /* the one before it is given */
    assert_int_equal(error.position, 2);
    escqrs_store_destroy(store);
    spoiled.read = empty_read;
    store = open_spoiled(kept);
    assert_int_equal(read_all(store, &count, &error), ESCQRS_CORRUPT);
    assert_int_equal(count, 0);
    assert_int_equal(error.position, 1);
    escqrs_store_destroy(store);
    shelf_destroy(kept);
}

static void test_restart_after_failure(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    escqrs_error error = {0};
    spoiled = shelf_functions;
    spoiled.end = failing_end;
    fails_at_end = 2;
    escqrs_store *store = open_spoiled(kept);
    append(store, "a", 0, 1);
    assert_int_equal(append_many(store, "a", 1, 1, NULL, &error), ESCQRS_IO);
    assert_non_null(strstr(error.message, "the shelf fell down"));
    assert_int_equal(append_many(store, "b", 0, 1, NULL, &error), ESCQRS_IO); /* final */
    assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_OK);
    assert_int_equal(escqrs_store_head(store), 2); /* it had been stored after all */
    append(store, "b", 0, 1);
    assert_int_equal(check_all(store), 3);
    escqrs_store_destroy(store);
    shelf_destroy(kept);
}

/* What was taken back is never acknowledged, whatever the provider answers. */
static bool breaks;

static escqrs_status breaking_apply(escqrs_provider *self, escqrs_commit *commit,
                                    escqrs_error *error)
{
    self->broken = breaks;
    return breaks ? ESCQRS_OK : shelf_apply(self, commit, error);
}

static void test_broken_without_a_reason(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    escqrs_error error = {0};
    spoiled = shelf_functions;
    spoiled.apply = breaking_apply;
    escqrs_store *store = open_spoiled(kept);
    breaks = true;
    assert_int_equal(append_many(store, "a", 0, 1, NULL, &error), ESCQRS_IO);
    assert_non_null(strstr(error.message, "took a batch back"));
    breaks = false;
    append(store, "a", 0, 1);
    assert_int_equal(check_all(store), 1);
    escqrs_store_destroy(store);
    shelf_destroy(kept);
}

/* Commits past the store are seen when it is told of them. */
static void *wait_for_two(void *context)
{
    return escqrs_store_wait(context, 1, NULL, INT64_MAX) == ESCQRS_OK ? NULL : context;
}

static escqrs_status growing_refresh(escqrs_provider *self, escqrs_error *error)
{
    (void)error;
    escqrs_provider_set_head(self, (int64_t)of(self)->events.count);
    return ESCQRS_OK;
}

static void test_commits_of_others(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    pthread_t waiter;
    void *failed;
    spoiled = shelf_functions;
    spoiled.refresh = growing_refresh;
    escqrs_store *store = open_spoiled(kept), *other = NULL;
    append(store, "a", 0, 1);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_two, store), 0);
    assert_int_equal(shelf_open(kept, NULL, &other, NULL), ESCQRS_OK);
    append(other, "b", 0, 1);
    escqrs_store_changed(store);
    assert_int_equal(pthread_join(waiter, &failed), 0);
    assert_null(failed);
    escqrs_store_destroy(other);
    escqrs_store_destroy(store);
    shelf_destroy(kept);
}

static void test_without_sql(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    escqrs_store *store, *clone = NULL;
    escqrs_verification found;
    void *sqlite = NULL;
    int64_t bytes;
    spoiled = shelf_functions;
    spoiled.run = NULL;
    spoiled.reader = NULL;
    spoiled.reader_return = NULL;
    spoiled.stop_readers = NULL;
    store = open_spoiled(kept);
    assert_int_equal(escqrs_store_reader(store, &sqlite, NULL), ESCQRS_NOT_A_STORE);
    assert_int_equal(escqrs_store_run(store, true, NULL, NULL, NULL), ESCQRS_NOT_A_STORE);
    assert_int_equal(escqrs_store_backup(store, "x", NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_verify(store, NULL, &found, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_compact(store, &bytes, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_clone(store, ":memory:", NULL, &clone, NULL), ESCQRS_INVALID);
    escqrs_store_destroy(store);
    shelf_destroy(kept);
}

/* Every allocation of opening and of a commit fails once: nothing is half done, nothing leaks. */
static void test_without_memory(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    bool whole = false;
    for (long countdown = 1; !whole; countdown++) {
        escqrs_store *store = NULL;
        escqrs_alloc_fail(countdown, false);
        escqrs_status status = shelf_open(kept, NULL, &store, NULL);
        if (status == ESCQRS_OK) {
            escqrs_error error = {0};
            status = note(store, "x", ESCQRS_EXPECT_ANY, &error);
        }
        escqrs_alloc_fail(0, false);
        assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
        whole = status == ESCQRS_OK && kept->events.count == 1;
        assert_int_equal(kept->events.count, whole ? 1 : 0);
        escqrs_store_destroy(store);
    }
    shelf_destroy(kept);
}

/* ---- tables that are refused ------------------------------------------------------------------ */

static void refused_table(const escqrs_provider_functions *functions, const char *why)
{
    escqrs_provider provider;
    escqrs_error error = {0};
    assert_int_equal(escqrs_provider_init(&provider, functions, &error), ESCQRS_INVALID);
    assert_non_null(strstr(error.message, why));
    escqrs_provider_fini(&provider); /* there is nothing to free */
}

static void test_versions(void **state)
{
    (void)state;
    escqrs_provider_functions other = shelf_functions;
    other.interface_version = ESCQRS_PROVIDER_VERSION + 1;
    refused_table(&other, "version 2");
    other.interface_version = 0;
    refused_table(&other, "version 0");
    other = shelf_functions;
    other.apply = NULL;
    refused_table(&other, "`apply`");
    other = shelf_functions;
    other.size = offsetof(escqrs_provider_functions, destroy); /* it ends before that one */
    refused_table(&other, "`destroy`");
    other = shelf_functions;
    other.begin = failing_end;
    refused_table(&other, "`end`");
    other.end = failing_end;
    refused_table(&other, "`rollback`");
    other = shelf_functions;
    other.reader_return = NULL;
    refused_table(&other, "`reader_return`");
    other.reader = NULL;
    refused_table(&other, "`reader`");
    other = shelf_functions;
    other.run = NULL;
    refused_table(&other, "`run`");
}

static void test_a_longer_table(void **state)
{
    (void)state;
    struct {
        escqrs_provider_functions known;
        void (*later)(void);
    } longer = {.known = shelf_functions};
    escqrs_provider provider;
    longer.known.size = sizeof longer;
    assert_int_equal(escqrs_provider_init(&provider, &longer.known, NULL), ESCQRS_OK);
    assert_ptr_equal(provider.functions->apply, shelf_functions.apply);
    escqrs_provider_fini(&provider);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_shelf),
        cmocka_unit_test(test_suite_tells),
        cmocka_unit_test(test_suite_without_a_store),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_a_longer_table),
        cmocka_unit_test(test_lost_events),
        cmocka_unit_test(test_restart_after_failure),
        cmocka_unit_test(test_broken_without_a_reason),
        cmocka_unit_test(test_commits_of_others),
        cmocka_unit_test(test_without_sql),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests_name("providers", tests, setup_folder, teardown_folder);
}
