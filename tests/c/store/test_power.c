/* The power goes at any moment, and the disk has any part of what was not synced: what was
 * acknowledged is there, each commit is there whole or not at all, and the file opens. */
#include "fixture.h"

#include <sqlite3.h>

#include "support/power_vfs.h"

#define EVENTS 3    /* a commit on its own stream, and one more on a common one */
#define CUTS_MAX 64 /* images that wait to be looked at */

typedef struct cut {
    power_loss loss;
    uint64_t seed;
    int tried, acknowledged; /* commits, then */
} cut;

typedef struct scene {
    test_random random;
    uint64_t every; /* about so many steps between two cuts */
    size_t data_size;
    int tried, acknowledged;
    cut cuts[CUTS_MAX];
    int cut_count;
    int looked_at;
} scene;

static const char *image_folder(int number)
{
    static char folder[400];
    snprintf(folder, sizeof folder, "%s/%d", fixture_folder, number);
    return folder;
}

static void step(void *context)
{
    scene *now = context;
    if (now->cut_count == CUTS_MAX || test_random_below(&now->random, now->every) != 0) {
        return;
    }
    cut *one = &now->cuts[now->cut_count];
    *one = (cut){.loss = (power_loss)test_random_below(&now->random, POWER_LOSSES),
                 .seed = test_random_next(&now->random),
                 .tried = now->tried,
                 .acknowledged = now->acknowledged};
    assert_int_equal(mkdir(image_folder(now->cut_count), 0700), 0);
    power_vfs_cut(image_folder(now->cut_count++), one->loss, one->seed);
}

static escqrs_status commit_next(escqrs_store *store, scene *now, escqrs_error *error)
{
    static char data[400000];
    char stream[32];
    memset(data, 'x', sizeof data);
    snprintf(stream, sizeof stream, "s/%d", now->tried++);
    escqrs_new_event events[EVENTS];
    for (int i = 0; i < EVENTS; i++) {
        events[i] =
            (escqrs_new_event){.type = type_of(store, "Test"), .data = {data, now->data_size}};
    }
    escqrs_write writes[2] = {
        {.stream = text(stream), .expected = 0, .events = events, .event_count = EVENTS},
        {.stream = text("common"), .expected = now->tried - 1, .events = events, .event_count = 1},
    };
    escqrs_commit commit = {.writes = writes, .write_count = 2};
    return escqrs_store_commit(store, &commit, error);
}

static void look_at(const char *folder, const cut *one, bool synced)
{
    char path[500], what[200], stream[32];
    const escqrs_store_options options = {.manual = true};
    escqrs_store *store = NULL;
    escqrs_error error = {0};
    snprintf(what, sizeof what, "loss %d, seed %llu, %d of %d commits acknowledged", one->loss,
             (unsigned long long)one->seed, one->acknowledged, one->tried);
    snprintf(path, sizeof path, "%s/test.db", folder);
    if (escqrs_store_open(path, &options, &store, &error) != ESCQRS_OK) {
        fail_msg("%s: %s", what, error.message);
    }
    int64_t commits = version_of(store, "common");
    if (commits > one->tried || (synced && commits < one->acknowledged)) {
        fail_msg("%s: %lld are there", what, (long long)commits);
    }
    for (int i = 0; i < one->tried + 1; i++) { /* the first ones, and none of the others */
        snprintf(stream, sizeof stream, "s/%d", i);
        if (version_of(store, stream) != (i < commits ? EVENTS : 0)) {
            fail_msg("%s: %lld are there, %s has %lld events", what, (long long)commits, stream,
                     (long long)version_of(store, stream));
        }
    }
    assert_int_equal(check_all(store), commits * (EVENTS + 1));
    append(store, "after", 0, 1);
    escqrs_store_destroy(store);
}

static void look_at_all(scene *now, bool synced)
{
    for (int i = 0; i < now->cut_count; i++) {
        look_at(image_folder(i), &now->cuts[i], synced);
        remove_folder(image_folder(i));
    }
    now->looked_at += now->cut_count;
    now->cut_count = 0;
}

/* Commit, close and open again; the power goes now and then. */
static void run(escqrs_durability durability, uint64_t every, int commits, size_t data_size)
{
    scene now = {.random = test_random_new(), .every = every, .data_size = data_size};
    const escqrs_store_options options = {
        .sqlite_vfs = POWER_VFS_NAME,
        .durability = durability,
        .tail_events_max = 48, /* merges happen as well */
        .manual = true,
    };
    const bool synced = durability == ESCQRS_DURABILITY_FULL;
    escqrs_error error = {0};
    escqrs_store *store = NULL;
    power_vfs_register();
    power_vfs_begin(step, &now);
    for (int i = 0; i < commits; i++) {
        if (store == NULL) {
            store = open_with(fixture_path, &options);
        }
        assert_int_equal(commit_next(store, &now, &error), ESCQRS_OK);
        now.acknowledged = now.tried;
        if (test_random_below(&now.random, 20) == 0) {
            escqrs_store_destroy(store);
            store = NULL;
        }
        look_at_all(&now, synced);
    }
    escqrs_store_destroy(store);
    look_at_all(&now, synced);
    power_vfs_begin(NULL, NULL);
    assert_true(now.looked_at > commits / 2);
}

static void test_small_commits(void **state)
{
    (void)state;
    run(ESCQRS_DURABILITY_FULL, 6, 80 / (int)test_stride(4), 700);
}

/* The WAL fills, is moved into the file and begins anew. */
static void test_big_commits(void **state)
{
    (void)state;
    run(ESCQRS_DURABILITY_FULL, 150, 12, 190000);
}

/* The weaker mode may lose the newest, never one from among the others. */
static void test_normal(void **state)
{
    (void)state;
    run(ESCQRS_DURABILITY_NORMAL, 6, 50 / (int)test_stride(4), 700);
    teardown_folder(NULL);
    setup_folder(NULL);
    run(ESCQRS_DURABILITY_NORMAL, 150, 10, 190000);
}

static const escqrs_store_options by_hand = {.sqlite_vfs = POWER_VFS_NAME, .manual = true};

/* A store whose power goes when the test says so. */
static escqrs_store *open_manual(void)
{
    power_vfs_register();
    power_vfs_begin(NULL, NULL);
    return open_with(fixture_path, &by_hand);
}

/* What a failed sync has left in the WAL is read by who opens the file anew, and by no disk kept:
 * nothing is acknowledged behind it before it is safe. */
static void test_behind_a_failed_sync(void **state)
{
    (void)state;
    scene now = {.random = test_random_new(), .data_size = 700};
    escqrs_error error = {0};
    escqrs_store *store = open_manual();
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_OK);
    power_vfs_fail_sync();
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_IO);
    escqrs_store_destroy(store);
    store = open_with(fixture_path, &by_hand);
    assert_int_equal(version_of(store, "common"), 2); /* as who was told of an error may find */
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_OK);
    cut one = {.loss = POWER_KEEPS_NOTHING, .tried = now.tried, .acknowledged = now.tried};
    assert_int_equal(mkdir(image_folder(0), 0700), 0);
    power_vfs_cut(image_folder(0), one.loss, 0);
    look_at(image_folder(0), &one, true);
    escqrs_store_destroy(store);
}

static escqrs_status write_rows(void *context, void *sqlite, escqrs_error *error)
{
    (void)context;
    (void)error;
    return sqlite3_exec(sqlite,
                        "CREATE TABLE rows (a);"
                        "INSERT INTO rows VALUES (zeroblob(9000)), (zeroblob(9000))",
                        NULL, NULL, NULL) == SQLITE_OK
               ? ESCQRS_OK
               : ESCQRS_IO;
}

/* What a read model has written without a sync of its own stands in the WAL before the commits; a
 * sync that fails may leave it on no disk, and the commits behind it would be lost with it. */
static void test_restart_behind_a_failed_sync(void **state)
{
    (void)state;
    scene now = {.random = test_random_new(), .data_size = 700};
    escqrs_error error = {0};
    escqrs_store *store = open_manual();
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_OK);
    assert_int_equal(escqrs_store_run(store, false, write_rows, NULL, &error), ESCQRS_OK);
    power_vfs_fail_sync();
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_IO);
    now.tried--; /* it does not come back */
    assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_OK);
    assert_int_equal(commit_next(store, &now, &error), ESCQRS_OK);
    now.acknowledged = now.tried;
    now.every = 1; /* the power goes now */
    step(&now);
    escqrs_store_destroy(store);
    look_at_all(&now, true);
    assert_int_equal(now.looked_at, 1);
}

int main(void)
{
    use_memory_for_files();
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_small_commits, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_big_commits, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_normal, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_behind_a_failed_sync, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_restart_behind_a_failed_sync, setup_folder,
                                        teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
