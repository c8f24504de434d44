/* Deleting when calls of the system or allocations fail and when the power goes: what was answered
 * OK is gone, what was not is there whole or, after a final failure, gone whole, and the file
 * verifies. */
#include "fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "support/fault_vfs.h"
#include "support/power_vfs.h"

#define EVENTS 300
#define STEPS 4
#define COUNT_MAX 24 /* the n-th call that fails, at most; then now and then */

static void ignore_log(void *context, escqrs_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

static const escqrs_store_options faulty = {
    .sqlite_vfs = FAULT_VFS_NAME,
    .log = {ignore_log, NULL},
    .tail_events_max = 48,
    .manual = true,
};

/* What became of the steps: truncate "a" to 130, then to 290; close "b"; compact. */
typedef struct outcome {
    escqrs_status status[STEPS];
    bool is_final[STEPS];
} outcome;

static void fill(escqrs_store *store)
{
    for (int i = 0; i < EVENTS; i += 10) {
        append(store, "a", i, 10);
        append(store, "b", i, 10);
        append(store, "c", i, 10);
    }
}

static escqrs_status erase(escqrs_store *store, const char *stream, int64_t upto,
                           escqrs_error *error)
{
    escqrs_erasure erasure = {
        .stream = text(stream), .upto = upto, .close = upto == 0, .force = true};
    return escqrs_store_erase(store, &erasure, 1, error);
}

static escqrs_status take_step(escqrs_store *store, int step, escqrs_error *error)
{
    int64_t bytes;
    switch (step) {
    case 0:
        return erase(store, "a", 130, error);
    case 1:
        return erase(store, "a", 290, error);
    case 2:
        return erase(store, "b", 0, error);
    default:
        return escqrs_store_compact(store, &bytes, error);
    }
}

static void work(const char *what, outcome *result)
{
    escqrs_store *store = NULL;
    for (int i = 0; i < STEPS; i++) {
        escqrs_error error = {0};
        result->status[i] = ESCQRS_IO;
        result->is_final[i] = false;
        if (store == NULL &&
            escqrs_store_open(fixture_path, &faulty, &store, &error) != ESCQRS_OK) {
            continue;
        }
        escqrs_status status = take_step(store, i, &error);
        result->status[i] = status;
        if (status != ESCQRS_OK && status != ESCQRS_FULL && status != ESCQRS_IO &&
            status != ESCQRS_NO_MEMORY && status != ESCQRS_READ_ONLY) {
            fail_msg("%s: step %d gives %s: %s", what, i, escqrs_status_name(status),
                     error.message);
        }
        if (status == ESCQRS_IO) { /* perhaps final: nobody knows */
            result->is_final[i] = true;
            escqrs_store_destroy(store);
            store = NULL;
        }
    }
    escqrs_store_destroy(store);
}

static bool print_problem(void *context, const escqrs_problem *problem)
{
    print_error("%s: %s (version %lld, position %lld): %s\n", (const char *)context, problem->part,
                (long long)problem->version, (long long)problem->position, problem->text);
    return true;
}

static void prove(escqrs_store *store, const char *what)
{
    escqrs_observer observer = {.problem = print_problem, .context = (void *)what};
    escqrs_verification found = {0};
    escqrs_error error = {0};
    assert_int_equal(escqrs_store_verify(store, &observer, &found, &error), ESCQRS_OK);
    if (found.problems != 0) {
        fail_msg("%s: %lld problems", what, (long long)found.problems);
    }
}

static int64_t gone_of(escqrs_store *store, const char *stream, bool *closed)
{
    escqrs_erased erased;
    assert_int_equal(escqrs_store_erased(store, text(stream), &erased, NULL), ESCQRS_OK);
    *closed = erased.closed;
    return erased.upto;
}

/* Events of the stream that are left; all after the deleted ones. */
static int64_t left_of(escqrs_store *store, const char *stream, int64_t after)
{
    escqrs_range range = {.after = after};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    int64_t count = 0;
    assert_int_equal(escqrs_store_history(store, text(stream), &range, &cursor, &error), ESCQRS_OK);
    escqrs_status status;
    while ((status = escqrs_cursor_next(cursor, &recorded, &error)) == ESCQRS_OK) {
        assert_int_equal(recorded->version, after + ++count);
    }
    escqrs_cursor_close(cursor);
    if (status != ESCQRS_DONE) {
        fail_msg("history of %s: %s", stream, error.message);
    }
    return count;
}

static void check_store(escqrs_store *store, const char *what, bool may[STEPS], bool must[STEPS])
{
    bool closed;
    int64_t gone = gone_of(store, "a", &closed);
    assert_false(closed);
    if ((gone != 0 && gone != 130 && gone != 290) || (gone == 130 && !may[0]) ||
        (gone == 290 && !may[1]) || (gone == 0 && (must[0] || must[1])) ||
        (gone == 130 && must[1])) {
        fail_msg("%s: %lld versions of a are gone", what, (long long)gone);
    }
    assert_int_equal(version_of(store, "a"), EVENTS);
    assert_int_equal(left_of(store, "a", gone), EVENTS - gone);
    gone = gone_of(store, "b", &closed);
    if ((closed && !may[2]) || (!closed && must[2]) || gone != (closed ? EVENTS : 0)) {
        fail_msg("%s: b is %s, %lld versions are gone", what, closed ? "closed" : "open",
                 (long long)gone);
    }
    assert_int_equal(left_of(store, "b", gone), EVENTS - gone);
    assert_int_equal(check_stream(store, "c"), EVENTS);
    assert_int_equal(escqrs_store_head(store), 3 * EVENTS);
    prove(store, what);
    append(store, "after", 0, 1);
    if (closed) {
        assert_int_equal(append_many(store, "b", -1, 1, NULL, NULL), ESCQRS_DELETED);
    }
    prove(store, what);
}

static void check(const char *what, const outcome *result)
{
    bool may[STEPS], must[STEPS];
    fault_vfs_arm(FAULT_NONE, 0, false);
    for (int i = 0; i < STEPS; i++) {
        must[i] = result->status[i] == ESCQRS_OK;
        may[i] = must[i] || result->is_final[i];
    }
    escqrs_store *store = open_store(fixture_path);
    check_store(store, what, may, must);
    escqrs_store_destroy(store);
}

static void begin_anew(void)
{
    fault_vfs_arm(FAULT_NONE, 0, false);
    teardown_folder(NULL);
    assert_int_equal(setup_folder(NULL), 0);
    escqrs_store *store = open_with(fixture_path, &faulty);
    fill(store);
    escqrs_store_destroy(store);
}

static void check_calls(fault_call call, const char *name)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        bool reached = true;
        for (long n = 1; n <= COUNT_MAX * 4 && reached;
             n += (n < COUNT_MAX ? 1 : 17) * test_stride(5)) {
            char what[64];
            outcome result;
            snprintf(what, sizeof what, "%s %ld%s", name, n, sticky ? " and later" : "");
            begin_anew();
            fault_vfs_arm(call, n, sticky != 0);
            work(what, &result);
            reached = fault_vfs_failures() > 0;
            check(what, &result);
        }
    }
}

static int setup_fault(void **state)
{
    fault_vfs_register();
    fault_vfs_arm(FAULT_NONE, 0, false);
    return setup_folder(state);
}

static int teardown_fault(void **state)
{
    fault_vfs_arm(FAULT_NONE, 0, false);
    return teardown_folder(state);
}

static void test_calls_fail(void **state)
{
    (void)state;
    check_calls(FAULT_WRITE, "write");
    check_calls(FAULT_SHORT, "short write");
    check_calls(FAULT_FULL, "full disk");
    check_calls(FAULT_SYNC, "sync");
    check_calls(FAULT_READ, "read");
    check_calls(FAULT_TRUNCATE, "truncate");
}

static void test_no_memory(void **state)
{
    (void)state;
    bool failed = true;
    begin_anew();
    for (long n = 1; failed; n += (n < 100 ? 1 : 7) * test_stride(5)) {
        outcome result;
        escqrs_alloc_fail(n, false);
        work("no memory", &result);
        escqrs_alloc_fail(0, false);
        failed = false;
        for (int i = 0; i < STEPS; i++) {
            failed = failed || result.status[i] != ESCQRS_OK;
        }
        check("no memory", &result);
        begin_anew();
    }
}

/* ---- power ------------------------------------------------------------------------------------ */

#define CUTS_MAX 64

typedef struct scene {
    test_random random;
    int begun, done;       /* steps */
    int cuts[CUTS_MAX][2]; /* both, then */
    int cut_count;
} scene;

static const char *image(int number)
{
    static char folder[300];
    snprintf(folder, sizeof folder, "%s/%d", fixture_folder, number);
    return folder;
}

static void cut_now(void *context)
{
    scene *now = context;
    if (now->begun == 0 || now->cut_count == CUTS_MAX || test_random_below(&now->random, 3) != 0) {
        return;
    }
    now->cuts[now->cut_count][0] = now->begun;
    now->cuts[now->cut_count][1] = now->done;
    assert_int_equal(mkdir(image(now->cut_count), 0700), 0);
    power_loss loss = (power_loss)test_random_below(&now->random, POWER_LOSSES);
    power_vfs_cut(image(now->cut_count++), loss, test_random_next(&now->random));
}

static void look_at(int number, const int begun_done[2])
{
    char path[500], what[64];
    bool may[STEPS], must[STEPS];
    for (int i = 0; i < STEPS; i++) {
        may[i] = i < begun_done[0];
        must[i] = i < begun_done[1];
    }
    snprintf(path, sizeof path, "%s/test.db", image(number));
    snprintf(what, sizeof what, "power, %d steps begun, %d done", begun_done[0], begun_done[1]);
    escqrs_store *store = open_store(path);
    check_store(store, what, may, must);
    escqrs_store_destroy(store);
    remove_folder(image(number));
}

static void test_power_goes(void **state)
{
    (void)state;
    const escqrs_store_options options = {
        .sqlite_vfs = POWER_VFS_NAME, .tail_events_max = 48, .manual = true};
    scene now = {.random = test_random_new()};
    power_vfs_register();
    power_vfs_begin(cut_now, &now);
    escqrs_store *store = open_with(fixture_path, &options);
    fill(store);
    for (int i = 0; i < STEPS; i++) {
        escqrs_error error = {0};
        now.begun = i + 1;
        assert_int_equal(take_step(store, i, &error), ESCQRS_OK);
        now.done = i + 1;
    }
    escqrs_store_destroy(store);
    power_vfs_begin(NULL, NULL);
    for (int i = 0; i < now.cut_count; i++) {
        look_at(i, now.cuts[i]);
    }
    assert_true(now.cut_count > 3);
}

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct reading {
    escqrs_store *store;
    _Atomic bool ends;
} reading;

/* A cursor gives what was not deleted, in order, whatever goes meanwhile. */
static void read_once(escqrs_store *store, const char *stream, bool reverse)
{
    escqrs_range range = {.skip_deleted = true, .reverse = reverse};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    int64_t last = reverse ? INT64_MAX : 0;
    escqrs_status status = stream == NULL
                               ? escqrs_store_events(store, &range, &cursor, &error)
                               : escqrs_store_history(store, text(stream), &range, &cursor, &error);
    assert_int_equal(status, ESCQRS_OK);
    while ((status = escqrs_cursor_next(cursor, &recorded, &error)) == ESCQRS_OK) {
        int64_t now = stream == NULL ? recorded->position : recorded->version;
        assert_true(reverse ? now < last : now > last);
        last = now;
    }
    if (status != ESCQRS_DONE) {
        fail_msg("reading: %s: %s", escqrs_status_name(status), error.message);
    }
    escqrs_cursor_close(cursor);
}

static void *read_on(void *context)
{
    reading *shared = context;
    escqrs_erased erased;
    for (int i = 0; !shared->ends; i++) {
        read_once(shared->store, i % 3 == 0 ? NULL : "a", i % 2 == 0);
        assert_int_equal(escqrs_store_erased(shared->store, text("a"), &erased, NULL), ESCQRS_OK);
        assert_true(version_of(shared->store, "a") >= erased.upto);
    }
    return NULL;
}

static void test_readers_beside(void **state)
{
    (void)state;
    const escqrs_store_options options = {.tail_events_max = 48};
    reading shared = {.store = open_with(fixture_path, &options)};
    pthread_t readers[2];
    append(shared.store, "a", 0, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, &shared), 0);
    }
    for (int64_t i = 1; i < 60; i++) {
        escqrs_error error = {0};
        int64_t bytes;
        append(shared.store, "a", (i - 1) * 40 + 1, 40);
        append(shared.store, "b", (i - 1) * 3, 3);
        if (erase(shared.store, "a", i * 40 - 20, &error) != ESCQRS_OK) {
            fail_msg("%s", error.message);
        }
        if (i % 8 == 0) {
            assert_int_equal(escqrs_store_compact(shared.store, &bytes, &error), ESCQRS_OK);
        }
    }
    shared.ends = true;
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
    prove(shared.store, "readers beside");
    escqrs_store_destroy(shared.store);
}

int main(void)
{
    use_memory_for_files();
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_calls_fail, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_no_memory, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_power_goes, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_readers_beside, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
