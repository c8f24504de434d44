/* verify, stats and clone; times that a commit gives. What a damaged file gives is tested in
 * tests/python/test_store_verify.py. */
#include "store/fixture.h"

typedef struct seen {
    size_t problems, calls;
    size_t calls_max; /* the observer ends it after so many calls of `progress` */
    char first[200];
} seen;

static bool on_problem(void *context, const escqrs_problem *problem)
{
    seen *self = context;
    if (self->problems++ == 0) {
        snprintf(self->first, sizeof self->first, "%s: %s", problem->part, problem->text);
    }
    return true;
}

static bool on_progress(void *context, int64_t position, int64_t head)
{
    seen *self = context;
    assert_true(position <= head);
    return ++self->calls < self->calls_max;
}

static escqrs_status verify(escqrs_store *store, seen *what, escqrs_verification *found)
{
    escqrs_observer observer = {on_problem, on_progress, what};
    escqrs_error error = {0};
    *what = (seen){.calls_max = what->calls_max == 0 ? SIZE_MAX : what->calls_max};
    return escqrs_store_verify(store, &observer, found, &error);
}

static void whole(escqrs_store *store, int64_t events)
{
    seen what = {0};
    escqrs_verification found;
    escqrs_statistics counts;
    assert_int_equal(verify(store, &what, &found), ESCQRS_OK);
    assert_string_equal(what.first, "");
    assert_int_equal(found.problems, 0);
    assert_int_equal(found.events, events);
    assert_int_equal(escqrs_store_stats(store, &counts, NULL, NULL, NULL), ESCQRS_OK);
    assert_int_equal(counts.events, events);
    assert_int_equal(counts.streams, found.streams);
}

/* At every state of the index: nothing merged, a merge under way, all merged. */
static void test_while_the_index_is_merged(void **state)
{
    (void)state;
    escqrs_store_options options = {.tail_events_max = 100};
    escqrs_store *store = open_with(fixture_path, &options);
    char name[32];
    for (int round = 0; round < 60; round++) {
        for (int stream = 0; stream < 7; stream++) {
            snprintf(name, sizeof name, "stream-%d", stream);
            assert_int_equal(
                append_many(store, name, ESCQRS_EXPECT_ANY, (size_t)stream + 1, NULL, NULL),
                ESCQRS_OK);
        }
        whole(store, (round + 1) * 28);
    }
    escqrs_store_destroy(store);
    store = open_with(fixture_path, NULL);
    whole(store, 60 * 28);
    escqrs_store_destroy(store);
}

static void test_the_observer_ends_it(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    seen what = {.calls_max = 1};
    escqrs_verification found;
    assert_int_equal(append_many(store, "a", 0, 10, NULL, NULL), ESCQRS_OK);
    assert_int_equal(verify(store, &what, &found), ESCQRS_DONE);
    whole(store, 10);
    escqrs_store_close(store);
    assert_int_equal(verify(store, &what, &found), ESCQRS_CLOSED);
    escqrs_store_destroy(store);
}

static void test_without_memory(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_verification found;
    escqrs_status status = ESCQRS_NO_MEMORY;
    assert_int_equal(append_many(store, "a", 0, 300, NULL, NULL), ESCQRS_OK);
    for (long countdown = 1; status != ESCQRS_OK; countdown++) {
        seen what = {0};
        escqrs_alloc_fail(countdown, false);
        status = verify(store, &what, &found);
        escqrs_alloc_fail(0, false);
        assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
        assert_int_equal(what.problems, 0);
    }
    escqrs_store_destroy(store);
}

static void test_a_clone(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path), *clone = NULL, *second = NULL;
    char path[320];
    snprintf(path, sizeof path, "%s2", fixture_path);
    assert_int_equal(append_many(store, "a", 0, 10, NULL, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_clone(store, ":memory:", NULL, &clone, NULL), ESCQRS_OK);
    assert_int_equal(append_many(clone, "a", 10, 1, NULL, NULL), ESCQRS_OK);
    whole(clone, 11);
    whole(store, 10);
    assert_int_equal(escqrs_store_clone(clone, path, NULL, &second, NULL), ESCQRS_OK);
    whole(second, 11);
    escqrs_store_destroy(second);
    assert_int_equal(escqrs_store_clone(clone, path, NULL, &second, NULL), ESCQRS_IO);
    escqrs_store_close(store);
    assert_int_equal(escqrs_store_clone(store, ":memory:", NULL, &second, NULL), ESCQRS_CLOSED);
    escqrs_store_destroy(store);
    escqrs_store_destroy(clone);
}

/* ---- times ------------------------------------------------------------------------------------ */

static escqrs_status put_at(escqrs_store *store, int64_t first, int64_t second, const char *key)
{
    escqrs_new_event events[2] = {
        {.type = type_of(store, "T"), .data = text("1"), .time_us = first},
        {.type = type_of(store, "T"), .data = text("2"), .time_us = second},
    };
    escqrs_write write = {
        .stream = text("s"), .expected = ESCQRS_EXPECT_ANY, .events = events, .event_count = 2};
    escqrs_commit commit = {.writes = &write, .write_count = 1, .key = text(key)};
    return escqrs_store_commit(store, &commit, NULL);
}

static int64_t last_time(escqrs_store *store)
{
    escqrs_statistics counts;
    assert_int_equal(escqrs_store_stats(store, &counts, NULL, NULL, NULL), ESCQRS_OK);
    return counts.last_us;
}

static int64_t stopped_clock(void *context)
{
    (void)context;
    return 1000;
}

static void test_times_only_go_on(void **state)
{
    (void)state;
    escqrs_store_options options = {.clock = {.now_us = stopped_clock}};
    escqrs_store *store = open_with(":memory:", &options);
    assert_int_equal(put_at(store, 10, 20, ""), ESCQRS_OK);
    assert_int_equal(last_time(store), 20);
    assert_int_equal(put_at(store, 19, 30, ""), ESCQRS_INVALID);
    assert_int_equal(put_at(store, 30, 29, ""), ESCQRS_INVALID);
    assert_int_equal(put_at(store, 30, 0, ""), ESCQRS_INVALID);
    assert_int_equal(put_at(store, -1, -1, ""), ESCQRS_INVALID);
    assert_int_equal(last_time(store), 20);
    assert_int_equal(put_at(store, 20, 20, ""), ESCQRS_OK);
    assert_int_equal(put_at(store, 0, 0, ""), ESCQRS_OK);
    assert_int_equal(last_time(store), 1000);
    assert_int_equal(put_at(store, 5000, 6000, ""), ESCQRS_OK);
    assert_int_equal(put_at(store, 0, 0, ""), ESCQRS_OK); /* the clock is behind: time stands */
    assert_int_equal(last_time(store), 6000);
    whole(store, 10);
    escqrs_store_destroy(store);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_while_the_index_is_merged, setup_folder,
                                        teardown_folder),
        cmocka_unit_test(test_the_observer_ends_it),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test_setup_teardown(test_a_clone, setup_folder, teardown_folder),
        cmocka_unit_test(test_times_only_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
