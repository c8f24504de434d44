/* Calls of the system that fail: what was acknowledged stays, what was not is there whole or not at
 * all, and the store either goes on or says that it must be opened again. */
#include "fixture.h"

#include <sqlite3.h>

#include "support/fault_vfs.h"

#define COMMITS 24
#define EVENTS 3     /* a commit, on one stream each */
#define COUNT_MAX 36 /* the n-th call that fails, at most */

static bool acknowledged[COMMITS], tried[COMMITS];
static bool restarts;         /* what was final is taken back by a restart, where it can be */
static bool missing[COMMITS]; /* as a restart found it */

static void ignore_log(void *context, escqrs_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

static const escqrs_store_options faulty = {
    .sqlite_vfs = FAULT_VFS_NAME,
    .log = {ignore_log, NULL},
    .tail_events_max = 48, /* merges happen as well */
    .manual = true,
};

/* One commit: three events of its own stream, one of a common stream. */
static escqrs_status commit_one(escqrs_store *store, int number, escqrs_error *error)
{
    static char big[3000]; /* several pages */
    char stream[32];
    escqrs_type *type;
    memset(big, 'x', sizeof big);
    snprintf(stream, sizeof stream, "s/%d", number);
    if (escqrs_store_type(store, text("Test"), text(""), &type, error) != ESCQRS_OK) {
        return ESCQRS_NO_MEMORY;
    }
    escqrs_new_event events[EVENTS];
    for (int i = 0; i < EVENTS; i++) {
        events[i] = (escqrs_new_event){.type = type, .data = {big, sizeof big}};
    }
    escqrs_write writes[2] = {
        {.stream = text(stream), .expected = 0, .events = events, .event_count = EVENTS},
        {.stream = text("common"),
         .expected = ESCQRS_EXPECT_ANY,
         .events = events,
         .event_count = 1},
    };
    escqrs_commit commit = {.writes = writes, .write_count = 2};
    return escqrs_store_commit(store, &commit, error);
}

static void copy_file(const char *suffix)
{
    char command[700];
    snprintf(command, sizeof command, "cp '%s%s' '%s.copy%s'", fixture_path, suffix, fixture_path,
             suffix);
    assert_int_equal(system(command), 0);
}

/* Begin anew; what it says of the commits before it has to stay so. */
static bool restart(escqrs_store *store, int last)
{
    escqrs_error error = {0};
    escqrs_status status = escqrs_store_restart(store, &error);
    for (int i = 0; i <= last && status == ESCQRS_OK; i++) {
        char stream[32];
        snprintf(stream, sizeof stream, "s/%d", i);
        missing[i] = version_of(store, stream) == 0;
    }
    return status == ESCQRS_OK;
}

/* Commit until the end, going on after failures as long as the store does; opens again where it
 * must. With `restarts` the files are copied at the end, as a crash would leave them. */
static void work(const char *what)
{
    memset(acknowledged, 0, sizeof acknowledged);
    memset(tried, 0, sizeof tried);
    memset(missing, 0, sizeof missing);
    escqrs_store *store = NULL;
    escqrs_error error = {0};
    for (int i = 0; i < COMMITS; i++) {
        if (store == NULL &&
            escqrs_store_open(fixture_path, &faulty, &store, &error) != ESCQRS_OK) {
            continue;
        }
        escqrs_status status = commit_one(store, i, &error);
        tried[i] = true;
        acknowledged[i] = status == ESCQRS_OK;
        if (status != ESCQRS_OK && status != ESCQRS_FULL && status != ESCQRS_IO &&
            status != ESCQRS_NO_MEMORY && status != ESCQRS_READ_ONLY) {
            fail_msg("%s: commit %d gives %s: %s", what, i, escqrs_status_name(status),
                     error.message);
        }
        if (status == ESCQRS_IO && strstr(error.message, "open it again") != NULL &&
            !(restarts && restart(store, i))) {
            escqrs_store_destroy(store);
            store = NULL;
        }
    }
    if (restarts) {
        copy_file("");
        copy_file(exists(fixture_path, "-wal") ? "-wal" : "");
    }
    escqrs_store_destroy(store);
}

/* Opened without faults: acknowledged commits are there, all are whole. */
static void verify(const char *what)
{
    char copy[400];
    fault_vfs_arm(FAULT_NONE, 0, false);
    snprintf(copy, sizeof copy, "%s.copy", fixture_path);
    escqrs_store *store = open_store(restarts ? copy : fixture_path);
    int64_t commits = 0;
    for (int i = 0; i < COMMITS; i++) {
        char stream[32];
        snprintf(stream, sizeof stream, "s/%d", i);
        int64_t version = version_of(store, stream);
        if ((version != 0 && version != EVENTS) || (acknowledged[i] && version == 0) ||
            ((!tried[i] || missing[i]) && version != 0)) {
            fail_msg("%s: commit %d (%s) has %lld events", what, i,
                     acknowledged[i] ? "acknowledged" : "not acknowledged", (long long)version);
        }
        commits += version == EVENTS;
    }
    assert_int_equal(version_of(store, "common"), commits);
    assert_int_equal(check_all(store), commits * (EVENTS + 1));
    append(store, "after", 0, 1);
    escqrs_store_destroy(store);
}

static void check_calls(fault_call call, const char *name)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        bool reached = true;
        for (long n = 1; n <= COUNT_MAX * 3 && reached;
             n += (n < COUNT_MAX ? 1 : 13) * test_stride(5)) {
            char what[64];
            snprintf(what, sizeof what, "%s %ld%s", name, n, sticky ? " and later" : "");
            teardown_folder(NULL);
            assert_int_equal(setup_folder(NULL), 0);
            fault_vfs_arm(call, n, sticky != 0);
            work(what);
            reached = fault_vfs_failures() > 0;
            verify(what);
        }
    }
}

static int setup_fault(void **state)
{
    restarts = false;
    fault_vfs_register();
    fault_vfs_arm(FAULT_NONE, 0, false);
    return setup_folder(state);
}

static int teardown_fault(void **state)
{
    fault_vfs_arm(FAULT_NONE, 0, false);
    return teardown_folder(state);
}

static void test_write_fails(void **state)
{
    (void)state;
    check_calls(FAULT_WRITE, "write");
}

static void test_short_write(void **state)
{
    (void)state;
    check_calls(FAULT_SHORT, "short write");
}

static void test_disk_full(void **state)
{
    (void)state;
    check_calls(FAULT_FULL, "full disk");
}

static void test_sync_fails(void **state)
{
    (void)state;
    check_calls(FAULT_SYNC, "sync");
}

static void test_sync_fails_and_a_restart(void **state)
{
    (void)state;
    restarts = true;
    check_calls(FAULT_SYNC, "sync, restarted");
    check_calls(FAULT_SHORT, "short write, restarted");
}

static void test_others_fail(void **state)
{
    (void)state;
    check_calls(FAULT_TRUNCATE, "truncate");
    check_calls(FAULT_OPEN, "open");
    check_calls(FAULT_READ, "read");
    check_calls(FAULT_DELETE, "delete");
    check_calls(FAULT_SHM, "map");
}

/* A failed fsync is final until a restart succeeds, which says what is stored, for good. */
static void test_restart(void **state)
{
    (void)state;
    char copy[400];
    escqrs_error error = {0};
    escqrs_store *store = open_with(fixture_path, &faulty);
    assert_int_equal(commit_one(store, 0, &error), ESCQRS_OK);
    fault_vfs_arm(FAULT_SYNC, 1, true);
    assert_int_equal(commit_one(store, 1, &error), ESCQRS_IO);
    assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_IO); /* the disk still fails */
    assert_int_equal(commit_one(store, 1, &error), ESCQRS_IO);
    assert_non_null(strstr(error.message, "restart it"));
    fault_vfs_arm(FAULT_NONE, 0, false);
    assert_int_equal(commit_one(store, 1, &error), ESCQRS_IO); /* not by itself */
    assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_OK);
    assert_int_equal(version_of(store, "s/1"), 0);
    copy_file(""); /* what a crash would leave now */
    copy_file("-wal");
    assert_int_equal(commit_one(store, 2, &error), ESCQRS_OK);
    assert_int_equal(check_all(store), 2 * (EVENTS + 1));
    escqrs_store_destroy(store);
    snprintf(copy, sizeof copy, "%s.copy", fixture_path);
    store = open_store(copy);
    assert_int_equal(version_of(store, "s/1"), 0); /* it has not come back */
    assert_int_equal(check_all(store), EVENTS + 1);
    escqrs_store_destroy(store);
}

/* A failed fsync is final; a full disk is not. */
static void test_final_or_not(void **state)
{
    (void)state;
    escqrs_error error = {0};
    escqrs_store *store = open_with(fixture_path, &faulty);
    assert_int_equal(commit_one(store, 0, &error), ESCQRS_OK);
    fault_vfs_arm(FAULT_FULL, 1, true);
    assert_int_equal(commit_one(store, 1, &error), ESCQRS_FULL);
    assert_int_equal(commit_one(store, 2, &error), ESCQRS_FULL);
    fault_vfs_arm(FAULT_NONE, 0, false);
    assert_int_equal(commit_one(store, 1, &error), ESCQRS_OK);
    fault_vfs_arm(FAULT_WRITE, 1, false);
    assert_int_equal(commit_one(store, 2, &error), ESCQRS_IO);
    assert_int_equal(commit_one(store, 2, &error), ESCQRS_OK);
    fault_vfs_arm(FAULT_SYNC, 1, false);
    assert_int_equal(commit_one(store, 3, &error), ESCQRS_IO);
    assert_int_equal(commit_one(store, 4, &error), ESCQRS_IO);
    assert_non_null(strstr(error.message, "open it again"));
    assert_int_equal(version_of(store, "common"), 3); /* reading goes on */
    escqrs_store_destroy(store);
    store = open_with(fixture_path, &faulty);
    int64_t version = version_of(store, "s/3");
    assert_true(version == 0 || version == EVENTS);
    assert_int_equal(version_of(store, "s/4"), 0);
    assert_int_equal(commit_one(store, 4, &error), ESCQRS_OK);
    escqrs_store_destroy(store);
}

static void keep_error(void *context, escqrs_log_level level, const char *line)
{
    if (level == ESCQRS_LOG_ERROR) {
        snprintf(context, 1000, "%s", line);
    }
}

static void ignore_done(escqrs_commit *commit)
{
    (void)commit;
}

/* What makes a journal final while it tidies up is not laid to a commit that failed before it. */
static void test_the_cause_of_the_end(void **state)
{
    (void)state;
    static char big[6 << 20], line[1000];
    escqrs_store_options options = faulty;
    options.log = (escqrs_log){keep_error, line};
    line[0] = '\0';
    escqrs_store *store = open_with(fixture_path, &options);
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = {big, sizeof big}};
    escqrs_write writes[2] = {
        {.stream = text("refused"), .expected = 7, .events = &event, .event_count = 1},
        {.stream = text("s"), .expected = 0, .events = &event, .event_count = 1},
    };
    escqrs_commit commits[2] = {{.writes = &writes[0], .write_count = 1, .done = ignore_done},
                                {.writes = &writes[1], .write_count = 1, .done = ignore_done}};
    assert_int_equal(escqrs_store_submit(store, &commits[0], NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_submit(store, &commits[1], NULL), ESCQRS_OK);
    fault_vfs_arm(FAULT_SYNC, 4, true); /* after those of the commit */
    assert_int_equal(escqrs_store_pump(store), 2);
    assert_int_equal(commits[0].status, ESCQRS_WRONG_VERSION);
    assert_int_equal(commits[1].status, ESCQRS_OK);
    assert_non_null(strstr(line, "moving the WAL failed"));
    escqrs_store_destroy(store);
    fault_vfs_arm(FAULT_NONE, 0, false);
}

/* Every allocation fails once, in opening, committing and reading. */
static void test_no_memory(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 1; failed; n += test_stride(5)) {
        escqrs_store *store = NULL;
        escqrs_cursor *cursor = NULL;
        const escqrs_recorded *r;
        escqrs_error error = {0};
        size_t count;
        teardown_folder(NULL);
        assert_int_equal(setup_folder(NULL), 0);
        memset(acknowledged, 0, sizeof acknowledged);
        memset(tried, 0, sizeof tried);
        escqrs_alloc_fail(n, false);
        escqrs_status status = escqrs_store_open(fixture_path, &faulty, &store, &error);
        failed = status != ESCQRS_OK;
        assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
        for (int i = 0; store != NULL && i < 15; i++) {
            status = commit_one(store, i, &error);
            assert_true(status == ESCQRS_OK || status == ESCQRS_NO_MEMORY);
            tried[i] = true;
            acknowledged[i] = status == ESCQRS_OK;
            failed = failed || status != ESCQRS_OK;
        }
        if (store != NULL) {
            status = escqrs_store_history(store, text("common"), NULL, &cursor, &error);
            while (status == ESCQRS_OK) {
                status = escqrs_cursor_read(cursor, 100, &r, &count, &error);
            }
            failed = failed || status != ESCQRS_DONE;
            assert_true(status == ESCQRS_DONE || status == ESCQRS_NO_MEMORY);
            escqrs_cursor_close(cursor);
        }
        escqrs_store_destroy(store);
        escqrs_alloc_fail(0, false);
        verify("no memory");
        failed = failed || n < 40; /* failures that only put off upkeep answer nothing */
    }
}

int main(void)
{
    use_memory_for_files();
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_final_or_not, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_restart, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_the_cause_of_the_end, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_write_fails, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_short_write, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_disk_full, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_sync_fails, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_sync_fails_and_a_restart, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_others_fail, setup_fault, teardown_fault),
        cmocka_unit_test_setup_teardown(test_no_memory, setup_fault, teardown_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
