/* The hash chain under failures; what it proves is tested in tests/python/test_store_chain.py. */
#include "store/fixture.h"

static const escqrs_store_options chained = {.chain = true};

static void whole(escqrs_store *store, int64_t links)
{
    escqrs_verification found;
    escqrs_observer observer = {NULL, NULL, NULL};
    assert_int_equal(escqrs_store_verify(store, &observer, &found, NULL), ESCQRS_OK);
    assert_int_equal(found.problems, 0);
    assert_int_equal(found.links, links);
}

/* An event with all that a link is made of, to stream "s". */
static escqrs_status append_rich(escqrs_store *store)
{
    escqrs_type *type = NULL;
    escqrs_slice tags[] = {text("one"), text("two")};
    escqrs_pair metadata[] = {{text("z"), text("1")}, {text("a"), text("2")}};
    escqrs_error error;
    escqrs_status status =
        escqrs_store_type(store, text("Rich"), (escqrs_slice){NULL, 0}, &type, &error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_new_event event = {.type = type, .data = text("rich"), .tags = tags, .tag_count = 2};
    escqrs_write write = {
        .stream = text("s"), .expected = ESCQRS_EXPECT_ANY, .events = &event, .event_count = 1};
    escqrs_commit commit = {
        .writes = &write, .write_count = 1, .metadata = metadata, .metadata_count = 2};
    return escqrs_store_commit(store, &commit, &error);
}

/* The n-th allocation fails: what was answered OK is there, and the chain is whole. */
static void test_an_allocation_fails(void **state)
{
    (void)state;
    enum { CLEAN_RUNS = 20 };
    int clean = 0;
    for (long countdown = 1; clean < CLEAN_RUNS; countdown++) {
        assert_true(countdown < 5000);
        escqrs_store *store = open_with(":memory:", &chained);
        int64_t stored = 0;
        bool failed = false;
        escqrs_alloc_fail(countdown, false);
        for (int i = 0; i < 3; i++) {
            escqrs_status status = append_rich(store);
            assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
            stored += status == ESCQRS_OK;
            failed = failed || status != ESCQRS_OK;
        }
        escqrs_alloc_fail(0, false);
        assert_int_equal(escqrs_store_head(store), stored);
        whole(store, stored);
        assert_int_equal(append_rich(store), ESCQRS_OK);
        whole(store, stored + 1);
        escqrs_store_destroy(store);
        clean = failed ? 0 : clean + 1;
    }
}

static void test_verifying_without_memory(void **state)
{
    (void)state;
    enum { CLEAN_RUNS = 20 };
    escqrs_store *store = open_with(":memory:", &chained);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(append_rich(store), ESCQRS_OK);
    }
    int clean = 0;
    for (long countdown = 1; clean < CLEAN_RUNS; countdown++) {
        assert_true(countdown < 5000);
        escqrs_verification found = {0};
        escqrs_observer observer = {NULL, NULL, NULL};
        escqrs_alloc_fail(countdown, false);
        escqrs_status status = escqrs_store_verify(store, &observer, &found, NULL);
        escqrs_alloc_fail(0, false);
        assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
        clean = status == ESCQRS_OK ? clean + 1 : 0;
    }
    whole(store, 3);
    escqrs_store_destroy(store);
}

static void ignore(escqrs_commit *commit)
{
    (void)commit;
}

/* Commits of one batch: one of them fails, and the chain is that of the others. */
static void test_one_commit_of_a_batch_fails(void **state)
{
    (void)state;
    escqrs_store_options options = {.chain = true, .manual = true};
    escqrs_store *store = open_with(fixture_path, &options);
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = text("x")};
    escqrs_write writes[3];
    escqrs_commit commits[3];
    for (int i = 0; i < 3; i++) {
        writes[i] = (escqrs_write){.stream = text("s"),
                                   .expected = i == 1 ? 7 : ESCQRS_EXPECT_ANY,
                                   .events = &event,
                                   .event_count = 1};
        commits[i] = (escqrs_commit){.writes = &writes[i], .write_count = 1, .done = ignore};
        assert_int_equal(escqrs_store_submit(store, &commits[i], NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_store_pump(store), 3);
    assert_int_equal(commits[0].status, ESCQRS_OK);
    assert_int_equal(commits[1].status, ESCQRS_WRONG_VERSION);
    assert_int_equal(commits[2].status, ESCQRS_OK);
    whole(store, 2);
    uint8_t last[ESCQRS_CHAIN_LINK_SIZE], none[ESCQRS_CHAIN_LINK_SIZE];
    assert_int_equal(escqrs_store_chain(store, 2, last, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_chain(store, 3, none, NULL), ESCQRS_DONE);
    escqrs_store_destroy(store);
    store = open_with(fixture_path, NULL);
    uint8_t again[ESCQRS_CHAIN_LINK_SIZE];
    assert_int_equal(escqrs_store_chain(store, 2, again, NULL), ESCQRS_OK);
    assert_memory_equal(last, again, sizeof last);
    assert_int_equal(append_rich(store), ESCQRS_OK);
    whole(store, 3);
    escqrs_store_destroy(store);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_allocation_fails),
        cmocka_unit_test(test_verifying_without_memory),
        cmocka_unit_test_setup_teardown(test_one_commit_of_a_batch_fails, setup_folder,
                                        teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
