/* Waiting in one process for what another one commits. */
#include "store/fixture.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>

#define COMMIT_COUNT 200
#define DESCRIPTORS_MAX 256

typedef struct writer { /* another process, which commits one event for each byte */
    pid_t process;
    int commands;
} writer;

static _Atomic bool is_blind;

static void note_blind(void *context, escqrs_log_level level, const char *line)
{
    (void)context;
    (void)level;
    if (strstr(line, "cannot be watched") != NULL) {
        atomic_store(&is_blind, true);
    }
}

static const escqrs_store_options readonly = {.readonly = true, .log = {note_blind, NULL}};

static writer start_writer(int64_t version)
{
    int commands[2];
    char byte;
    assert_int_equal(pipe(commands), 0);
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        alarm(TIME_LIMIT_S);
        close(commands[1]);
        escqrs_store *store = NULL;
        while (read(commands[0], &byte, 1) == 1) {
            store = store == NULL ? open_store(fixture_path) : store;
            append(store, "s", version++, 1);
        }
        escqrs_store_destroy(store);
        test_child_end(true);
    }
    close(commands[0]);
    return (writer){process, commands[1]};
}

static void stop_writer(writer *other)
{
    int status;
    close(other->commands);
    assert_int_equal(waitpid(other->process, &status, 0), other->process);
    assert_int_equal(status, 0);
}

static void make(int64_t events)
{
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, (size_t)events);
    escqrs_store_destroy(store);
}

/* Each commit is told, however the waiting and the committing fall in with each other. */
static void check_waits(escqrs_store *reader, writer *other, int64_t head)
{
    for (int i = 0; i < COMMIT_COUNT; i++) {
        assert_int_equal(write(other->commands, "", 1), 1);
        assert_int_equal(escqrs_store_wait(reader, head, NULL, INT64_MAX), ESCQRS_OK);
        head++;
        assert_int_equal(version_of(reader, "s"), head);
    }
}

static void test_commits_of_another_process(void **state)
{
    (void)state;
    make(1);
    writer other = start_writer(1);
    escqrs_store *reader = open_with(fixture_path, &readonly);
    atomic_store(&is_blind, false);
    check_waits(reader, &other, 1);
    assert_false(atomic_load(&is_blind));
    stop_writer(&other);
    escqrs_store_destroy(reader);
}

/* A lock file that is made only now, and one that somebody has taken away. */
static void test_a_lock_file_that_comes(void **state)
{
    (void)state;
    skip_fork_among_threads();
    char lock[400];
    snprintf(lock, sizeof lock, "%s-lock", fixture_path);
    make(1);
    assert_int_equal(unlink(lock), 0);
    escqrs_store *reader = open_with(fixture_path, &readonly);
    atomic_store(&is_blind, false);
    writer other = start_writer(1);
    check_waits(reader, &other, 1);
    stop_writer(&other);
    assert_int_equal(unlink(lock), 0);
    other = start_writer(1 + COMMIT_COUNT);
    check_waits(reader, &other, 1 + COMMIT_COUNT);
    stop_writer(&other);
    assert_false(atomic_load(&is_blind));
    escqrs_store_destroy(reader);
}

/* No descriptor is left for inotify. */
static void test_without_inotify(void **state)
{
    (void)state;
    skip_fork_among_threads();
    static int descriptors[DESCRIPTORS_MAX];
    int count = 0;
    make(1);
    escqrs_store *reader = open_with(fixture_path, &readonly);
    assert_int_equal(version_of(reader, "s"), 1);
    writer other = start_writer(1);
    struct rlimit limit, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = (struct rlimit){DESCRIPTORS_MAX, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (count < DESCRIPTORS_MAX && (descriptors[count] = dup(0)) >= 0) {
        count++;
    }
    assert_true(count > 0 && count < DESCRIPTORS_MAX);
    close(descriptors[--count]); /* for what wakes the thread */
    atomic_store(&is_blind, false);
    int64_t soon = escqrs_clock_monotonic_ns(NULL) + 1;
    assert_int_equal(escqrs_store_wait(reader, 1, NULL, soon), ESCQRS_TIMEOUT);
    while (count > 0) {
        close(descriptors[--count]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int64_t head = 1; head < 4; head++) {
        assert_int_equal(write(other.commands, "", 1), 1);
        assert_int_equal(escqrs_store_wait(reader, head, NULL, INT64_MAX), ESCQRS_OK);
    }
    assert_true(atomic_load(&is_blind));
    stop_writer(&other);
    escqrs_store_destroy(reader);
}

static void *wait_for_ever(void *context)
{
    escqrs_status status = escqrs_store_wait(context, 1, NULL, INT64_MAX);
    assert_true(status == ESCQRS_CLOSED);
    return NULL;
}

static void test_close_ends_the_waiting(void **state)
{
    (void)state;
    make(1);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        escqrs_store *reader = open_with(fixture_path, &readonly);
        assert_int_equal(pthread_create(&thread, NULL, wait_for_ever, reader), 0);
        escqrs_store_close(reader);
        assert_int_equal(pthread_join(thread, NULL), 0);
        escqrs_store_destroy(reader);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commits_of_another_process, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_lock_file_that_comes, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_without_inotify, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_close_ends_the_waiting, setup_folder, teardown_folder),
    };
    alarm(TIME_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
