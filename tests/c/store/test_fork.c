/* Forking while other threads are inside SQLite. A child that waits for what it never gets is ended
 * by its alarm. */
#include "store/fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>

#define THREAD_COUNT 3
#define FORK_COUNT 300
#define FORK_SECONDS 30   /* fewer forks where they are slow, as under valgrind */
#define CHILD_SECONDS 120 /* of one that hangs; a disk may be slow */

static _Atomic bool stops;

/* What a child may not meet: memory, randomness, opening, WAL, locks of one file. */
static void *use_sqlite(void *context)
{
    const char *path = context;
    while (!atomic_load(&stops)) {
        sqlite3 *db;
        sqlite3_int64 number;
        assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
        sqlite3_close(db);
        sqlite3_randomness(sizeof number, &number);
    }
    return NULL;
}

static void *use_store(void *context)
{
    escqrs_store *store = context;
    int64_t version = version_of(store, "busy");
    while (!atomic_load(&stops)) {
        append(store, "busy", version++, 1);
        assert_int_equal(version_of(store, "busy"), version);
        assert_int_equal(check_stream(store, "s"), 1);
    }
    return NULL;
}

static void child_of_a_busy_process(const char *own)
{
    escqrs_store_options readonly = {.readonly = true};
    alarm(CHILD_SECONDS);
    escqrs_store *store = open_store(own);
    append(store, "mine", 0, 3);
    assert_int_equal(check_stream(store, "mine"), 3);
    escqrs_store_destroy(store);
    store = open_with(fixture_path, &readonly);
    assert_int_equal(check_stream(store, "s"), 1);
    escqrs_store_destroy(store);
    store = open_store(":memory:");
    append(store, "mine", 0, 3);
    escqrs_store_destroy(store);
}

static void remove_store(const char *path)
{
    static const char *const suffixes[] = {"", "-lock", "-wal", "-shm"};
    char name[420];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
}

static void test_children_of_a_busy_process(void **state)
{
    skip_fork_among_threads();
    (void)state;
    char own[400], other[400];
    pthread_t threads[THREAD_COUNT];
    sqlite3 *db;
    snprintf(other, sizeof other, "%s-other", fixture_path);
    assert_int_equal(sqlite3_open(other, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1);
    atomic_store(&stops, false);
    assert_int_equal(pthread_create(&threads[0], NULL, use_store, store), 0);
    for (int i = 1; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use_sqlite, other), 0);
    }
    const int64_t end_ns = escqrs_clock_monotonic_ns(NULL) + FORK_SECONDS * INT64_C(1000000000);
    for (int i = 0; i < FORK_COUNT && escqrs_clock_monotonic_ns(NULL) < end_ns; i++) {
        int status;
        snprintf(own, sizeof own, "%s-%d", fixture_path, i);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            child_of_a_busy_process(own);
            test_child_end(true);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        remove_store(own);
    }
    atomic_store(&stops, true);
    for (int i = 0; i < THREAD_COUNT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    escqrs_store_destroy(store);
}

/* What the parent has locked, the child has not: it takes locks of its own on the same file, and
 * the parent leaves the child what it reads. */
static void test_a_child_takes_its_own_locks(void **state)
{
    (void)state;
    int ready[2], done[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 10);
    assert_int_equal(check_stream(store, "s"), 10);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        escqrs_store_options readonly = {.readonly = true};
        alarm(CHILD_SECONDS);
        escqrs_store *reader = open_with(fixture_path, &readonly);
        assert_int_equal(write(ready[1], "", 1), 1);
        close(done[1]);
        assert_int_equal(read(done[0], &byte, 1), 0);
        assert_int_equal(check_stream(reader, "s"), 20);
        escqrs_store_destroy(reader);
        test_child_end(true);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    append(store, "s", 10, 10);
    escqrs_store_destroy(store);
    assert_true(exists(fixture_path, "-wal")); /* SQLite takes it away when nobody else reads */
    close(done[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(ready[0]);
    close(done[0]);
    store = open_store(fixture_path);
    assert_int_equal(check_all(store), 20);
    escqrs_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_children_of_a_busy_process, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_child_takes_its_own_locks, setup_folder,
                                        teardown_folder),
    };
    alarm(TIME_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
