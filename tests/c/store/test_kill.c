/* A process that is killed at any step, of committing, closing and opening again, and one that is
 * killed while it recovers what that one left: what was acknowledged is there, each commit is there
 * whole or not at all, and the next writer opens the file at once. */
#include "fixture.h"

#include <signal.h>
#include <sys/mman.h>

#include "support/fault_vfs.h"

#define COMMITS 16
#define EVENTS 3 /* a commit on its own stream, and one more on a common one */
#define EACH_MAX 40
#define STEP 7 /* from there on */

/* Shared with the process that is killed. */
typedef struct progress {
    _Atomic int tried, acknowledged;
} progress;

static const escqrs_store_options options = {
    .sqlite_vfs = FAULT_VFS_NAME,
    .tail_events_max = 24, /* merges happen as well */
    .manual = true,
};

static escqrs_status commit_next(escqrs_store *store, progress *now, escqrs_error *error)
{
    static char data[5000]; /* more than a page */
    char stream[32];
    memset(data, 'x', sizeof data);
    snprintf(stream, sizeof stream, "s/%d", now->tried++);
    escqrs_new_event events[EVENTS];
    for (int i = 0; i < EVENTS; i++) {
        events[i] = (escqrs_new_event){.type = type_of(store, "Test"), .data = {data, sizeof data}};
    }
    escqrs_write writes[2] = {
        {.stream = text(stream), .expected = 0, .events = events, .event_count = EVENTS},
        {.stream = text("common"), .expected = now->tried - 1, .events = events, .event_count = 1},
    };
    escqrs_commit commit = {.writes = writes, .write_count = 2};
    return escqrs_store_commit(store, &commit, error);
}

/* Opens the file three times; another process's assertions would end in the parent's tests. */
static void work(progress *now)
{
    for (int i = 0; i < COMMITS;) {
        escqrs_store *store = NULL;
        if (escqrs_store_open(fixture_path, &options, &store, NULL) != ESCQRS_OK) {
            _exit(2);
        }
        for (int end = i + (COMMITS + 2) / 3; i < end && i < COMMITS; i++) {
            if (commit_next(store, now, NULL) != ESCQRS_OK) {
                _exit(3);
            }
            now->acknowledged = now->tried;
        }
        escqrs_store_destroy(store);
    }
}

static void open_and_close(progress *now)
{
    (void)now;
    escqrs_store *store = NULL;
    if (escqrs_store_open(fixture_path, &options, &store, NULL) != ESCQRS_OK) {
        _exit(4);
    }
    escqrs_store_destroy(store);
}

/* In a process that dies at its n-th step. False: it came to its end before. */
static bool is_killed(void (*body)(progress *now), progress *now, long n)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fault_vfs_arm(FAULT_KILL, n, false);
        body(now);
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFEXITED(how)) {
        assert_int_equal(WEXITSTATUS(how), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(how), SIGKILL);
    return true;
}

static void look_at(const progress *now, long n)
{
    char stream[32];
    escqrs_store *store = open_store(fixture_path);
    int64_t commits = version_of(store, "common");
    if (commits < now->acknowledged || commits > now->tried) {
        fail_msg("killed at step %ld: %d commits acknowledged, %d tried, %lld are there", n,
                 now->acknowledged, now->tried, (long long)commits);
    }
    for (int i = 0; i <= now->tried; i++) {
        snprintf(stream, sizeof stream, "s/%d", i);
        if (version_of(store, stream) != (i < commits ? EVENTS : 0)) {
            fail_msg("killed at step %ld: %s has %lld events, %lld commits are there", n, stream,
                     (long long)version_of(store, stream), (long long)commits);
        }
    }
    assert_int_equal(check_all(store), commits * (EVENTS + 1));
    append(store, "after", 0, 1);
    escqrs_store_destroy(store);
}

static void test_killed_at_each_step(void **state)
{
    (void)state;
    progress *now =
        mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(now != MAP_FAILED);
    bool killed = true;
    long kills = 0;
    for (long n = 1; killed; n += n < EACH_MAX ? 1 : STEP) {
        teardown_folder(NULL);
        assert_int_equal(setup_folder(NULL), 0);
        now->tried = 0;
        now->acknowledged = 0;
        killed = is_killed(work, now, n);
        kills += killed;
        (void)is_killed(open_and_close, now, n % STEP + 1); /* the recovery may need fewer steps */
        look_at(now, n);
    }
    assert_true(kills > EACH_MAX);
    assert_int_equal(now->acknowledged, COMMITS);
    munmap(now, sizeof *now);
}

static int setup_kill(void **state)
{
    fault_vfs_register();
    fault_vfs_arm(FAULT_NONE, 0, false);
    return setup_folder(state);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_killed_at_each_step, setup_kill, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
