#include "support/test.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"

typedef struct shared {
    esc_mutex mutex;
    esc_cond cond;
    int turn; /* guarded by mutex */
    _Atomic uint32_t word;
    char name[32];
    bool interrupt_blocked;
    bool fault_blocked;
    esc_thread thread;
} shared;

static void play(void *context)
{
    shared *self = context;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    self->interrupt_blocked = sigismember(&mask, SIGINT) == 1;
    self->fault_blocked = sigismember(&mask, SIGSEGV) == 1;
    pthread_getname_np(pthread_self(), self->name, sizeof self->name);
    for (int i = 0; i < 100; i++) {
        esc_mutex_lock(&self->mutex);
        while (self->turn % 2 == 0) {
            esc_cond_wait(&self->cond, &self->mutex);
        }
        self->turn++;
        esc_cond_signal(&self->cond);
        esc_mutex_unlock(&self->mutex);
    }
    /* release: pairs with the acquire of whoever waits */
    atomic_store_explicit(&self->word, 1, memory_order_release);
    esc_futex_wake(&self->word, INT_MAX);
}

static void two_threads_take_turns(void **state)
{
    (void)state;
    shared both = {0};
    esc_mutex_init(&both.mutex);
    esc_cond_init(&both.cond);
    esc_mutex_lock(&both.mutex);
    assert_int_equal(
        esc_thread_create(&both.thread, "a name that is too long", 256 * 1024, play, &both, NULL),
        ESCQRS_OK);
    esc_mutex_unlock(&both.mutex);
    for (int i = 0; i < 100; i++) {
        esc_mutex_lock(&both.mutex);
        both.turn++;
        esc_cond_broadcast(&both.cond);
        while (both.turn % 2 == 1) {
            assert_true(esc_cond_wait_until(&both.cond, &both.mutex, ESC_DEADLINE_NEVER));
        }
        esc_mutex_unlock(&both.mutex);
    }
    /* acquire: pairs with the release in play() */
    while (atomic_load_explicit(&both.word, memory_order_acquire) == 0) {
        assert_true(esc_futex_wait(&both.word, 0, ESC_DEADLINE_NEVER));
    }
    esc_thread_join(&both.thread);
    assert_int_equal(both.turn, 200);
    assert_string_equal(both.name, "a name that is ");
    assert_true(both.interrupt_blocked);
    assert_false(both.fault_blocked);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_int_equal(sigismember(&mask, SIGINT), 0); /* ours is as it was */
    esc_cond_fini(&both.cond);
    esc_mutex_fini(&both.mutex);
}

static void deadlines_pass(void **state)
{
    (void)state;
    esc_mutex mutex;
    esc_cond cond;
    esc_mutex_init(&mutex);
    esc_cond_init(&cond);
    int64_t deadline = esc_deadline_after(2000000);
    esc_mutex_lock(&mutex);
    while (esc_cond_wait_until(&cond, &mutex, deadline)) {
    }
    assert_true(escqrs_clock_monotonic_ns(NULL) >= deadline);
    assert_false(esc_cond_wait_until(&cond, &mutex, 0));
    assert_false(esc_mutex_try_lock(&mutex));
    esc_mutex_unlock(&mutex);
    assert_true(esc_mutex_try_lock(&mutex));
    esc_mutex_unlock(&mutex);
    _Atomic uint32_t word = 5;
    deadline = esc_deadline_after(2000000);
    while (esc_futex_wait(&word, 5, deadline)) {
    }
    assert_true(escqrs_clock_monotonic_ns(NULL) >= deadline);
    assert_true(esc_futex_wait(&word, 4, ESC_DEADLINE_NEVER)); /* is not 4: comes back at once */
    esc_cond_fini(&cond);
    esc_mutex_fini(&mutex);
}

static void deadlines_do_not_overflow(void **state)
{
    (void)state;
    assert_true(esc_deadline_after(INT64_MAX) == ESC_DEADLINE_NEVER);
    int64_t now = escqrs_clock_monotonic_ns(NULL);
    assert_true(esc_deadline_after(-1) >= now);
    assert_true(esc_deadline_after(INT64_MIN) >= now);
    assert_true(esc_deadline_after(INT64_C(3600000000000)) >= now + INT64_C(3600000000000));
}

static void starting_without_memory_says_so(void **state)
{
    (void)state;
    esc_thread thread;
    escqrs_error error = {0};
    escqrs_alloc_fail(1, false);
    assert_int_equal(esc_thread_create(&thread, "worker", 0, play, NULL, &error), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_non_null(strstr(error.message, "worker"));
}

static void a_failed_assertion_aborts(void **state)
{
    (void)state;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(pipes[1], STDERR_FILENO);
        ESC_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(pipes[1]);
    char text[512] = {0};
    size_t size = 0;
    ssize_t got = 0;
    while (size < sizeof text - 1 &&
           (got = read(pipes[0], text + size, sizeof text - 1 - size)) > 0) {
        size += (size_t)got;
    }
    close(pipes[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "test_thread.c:"));
    assert_non_null(strstr(text, "1 + 1 == 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads_take_turns),
        cmocka_unit_test(deadlines_pass),
        cmocka_unit_test(deadlines_do_not_overflow),
        cmocka_unit_test(starting_without_memory_says_so),
        cmocka_unit_test(a_failed_assertion_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
