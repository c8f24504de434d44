/* The pool of readers, when the store is closed while one is being opened. */
#include "fixture.h"

#include <pthread.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "store/store.h"

static sqlite3_vfs slow_vfs;
static sqlite3_vfs *platform;
static _Atomic bool holds;
static sem_t opening, stopped;
static esc_provider_class wrapped;
static const esc_provider_class *provided;

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

static void stop_readers(esc_provider *provider)
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
    provided = store->provider->class;
    wrapped = *provided;
    wrapped.stop_readers = stop_readers;
    store->provider->class = &wrapped;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_close_while_one_is_opened, setup_folder,
                                        teardown_folder),
    };
    alarm(TIME_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
