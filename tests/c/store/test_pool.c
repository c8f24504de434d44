/* The pool of readers, when the store is closed while one is opened, or about to be used. */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "store/store.h"

static sqlite3_vfs slow_vfs;
static sqlite3_vfs *platform;
static _Atomic bool holds;
static sem_t opening, stopped;
static escqrs_provider_functions wrapped;
static const escqrs_provider_functions *provided;

/* Opening waits until the store has stopped its readers. */
static int slow_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                     int *out_flags)
{
    (void)vfs;
    if (atomic_exchange(&holds, false)) {
        sem_post(&opening);
        sem_wait(&stopped);
    }
    return platform->xOpen(platform, name, file, flags, out_flags);
}

static void stop_readers(escqrs_provider *provider)
{
    provided->stop_readers(provider);
    sem_post(&stopped);
}

static void *take_reader(void *context)
{
    void *db = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_store_reader(context, &db, &error), ESCQRS_CLOSED);
    assert_null(db);
    return NULL;
}

static void test_close_while_one_is_opened(void **state)
{
    (void)state;
    pthread_t thread;
    platform = sqlite3_vfs_find(NULL);
    slow_vfs = *platform;
    slow_vfs.zName = "escqrs-slow";
    slow_vfs.xOpen = slow_open;
    assert_int_equal(sqlite3_vfs_register(&slow_vfs, 0), SQLITE_OK);
    assert_int_equal(sem_init(&opening, 0, 0), 0);
    assert_int_equal(sem_init(&stopped, 0, 0), 0);
    escqrs_store *store =
        open_with(fixture_path, &(escqrs_store_options){.sqlite_vfs = slow_vfs.zName});
    append(store, "s", 0, 1);
    provided = store->provider->functions;
    wrapped = *provided;
    wrapped.stop_readers = stop_readers;
    store->provider->functions = &wrapped;
    atomic_store(&holds, true);
    assert_int_equal(pthread_create(&thread, NULL, take_reader, store), 0);
    sem_wait(&opening);
    escqrs_store_close(store);
    assert_int_equal(pthread_join(thread, NULL), 0);
    escqrs_store_destroy(store);
    assert_int_equal(sqlite3_vfs_unregister(&slow_vfs), SQLITE_OK);
    sem_destroy(&opening);
    sem_destroy(&stopped);
}

static void *close_store(void *context)
{
    escqrs_store_close(context);
    return NULL;
}

/* A statement that begins after the readers were interrupted is interrupted too. */
static void test_close_before_a_long_query(void **state)
{
    (void)state;
    pthread_t thread;
    void *db = NULL;
    int64_t version;
    sqlite3_stmt *statement = NULL;
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(escqrs_store_reader(store, &db, NULL), ESCQRS_OK);
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1"
                                        " FROM n) SELECT count(*) FROM n",
                                        -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(pthread_create(&thread, NULL, close_store, store), 0);
    while (escqrs_store_version(store, text("s"), &version, NULL) != ESCQRS_CLOSED) {
        sched_yield();
    }
    for (int i = 0; i < 10000; i++) { /* most probably it has interrupted by then */
        sched_yield();
    }
    assert_int_equal(sqlite3_step(statement), SQLITE_INTERRUPT);
    sqlite3_finalize(statement);
    escqrs_store_reader_return(store, db);
    assert_int_equal(pthread_join(thread, NULL), 0);
    escqrs_store_destroy(store);
}

/* What takes the rows of a page is there in every reader, and nobody else's. */
static void test_pages_are_not_for_others(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    void *db = NULL;
    append(store, "s", 0, 3);
    assert_int_equal(escqrs_store_reader(store, &db, NULL), ESCQRS_OK);
    assert_int_equal(
        sqlite3_exec(db, "SELECT escqrs_take(1, 1, 1, 1, 1, 0, NULL, x'00', 0)", NULL, NULL, NULL),
        SQLITE_ERROR);
    escqrs_store_reader_return(store, db);
    assert_int_equal(check_all(store), 3);
    escqrs_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_close_while_one_is_opened, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_pages_are_not_for_others, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_close_before_a_long_query, setup_folder,
                                        teardown_folder),
    };
    alarm(TIME_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
