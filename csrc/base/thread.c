/* pthreads with the failures that cannot happen turned into assertions. Condition variables and
 * futexes count in CLOCK_MONOTONIC, so that setting the wall clock moves no deadline. */
#include "base/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

#define NS_PER_S INT64_C(1000000000)
#define NAME_SIZE 16 /* Linux: 15 bytes and the NUL */

static struct timespec timespec_of(int64_t ns)
{
    ns = ns < 0 ? 0 : ns;
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

int64_t esc_deadline_after(int64_t timeout_ns)
{
    int64_t now = escqrs_clock_monotonic_ns(NULL);
    if (timeout_ns <= 0) {
        return now;
    }
    return timeout_ns > ESC_DEADLINE_NEVER - now ? ESC_DEADLINE_NEVER : now + timeout_ns;
}

/* ---- mutex and condition -------------------------------------------------------------------- */

void esc_mutex_init(esc_mutex *mutex)
{
    int failed = pthread_mutex_init(&mutex->handle, NULL);
    ESC_ASSERT(failed == 0);
}

void esc_mutex_fini(esc_mutex *mutex)
{
    int failed = pthread_mutex_destroy(&mutex->handle);
    ESC_ASSERT(failed == 0);
}

void esc_cond_init(esc_cond *cond)
{
    pthread_condattr_t attributes;
    int failed = pthread_condattr_init(&attributes);
    ESC_ASSERT(failed == 0);
    failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    ESC_ASSERT(failed == 0);
    failed = pthread_cond_init(&cond->handle, &attributes);
    ESC_ASSERT(failed == 0);
    pthread_condattr_destroy(&attributes);
}

void esc_cond_fini(esc_cond *cond)
{
    int failed = pthread_cond_destroy(&cond->handle);
    ESC_ASSERT(failed == 0);
}

void esc_cond_wait(esc_cond *cond, esc_mutex *mutex)
{
    int failed = pthread_cond_wait(&cond->handle, &mutex->handle);
    ESC_ASSERT(failed == 0);
}

bool esc_cond_wait_until(esc_cond *cond, esc_mutex *mutex, int64_t deadline_ns)
{
    if (deadline_ns == ESC_DEADLINE_NEVER) {
        esc_cond_wait(cond, mutex);
        return true;
    }
    struct timespec until = timespec_of(deadline_ns);
    int failed = pthread_cond_timedwait(&cond->handle, &mutex->handle, &until);
    ESC_ASSERT(failed == 0 || failed == ETIMEDOUT);
    return failed == 0;
}

void esc_cond_signal(esc_cond *cond)
{
    pthread_cond_signal(&cond->handle);
}

void esc_cond_broadcast(esc_cond *cond)
{
    pthread_cond_broadcast(&cond->handle);
}

/* ---- thread --------------------------------------------------------------------------------- */

typedef struct thread_start {
    void (*run)(void *context);
    void *context;
    char name[NAME_SIZE];
} thread_start;

static void *thread_main(void *argument)
{
    thread_start start = *(thread_start *)argument;
    escqrs_free(argument);
    pthread_setname_np(pthread_self(), start.name);
    start.run(start.context);
    return NULL;
}

/* All that a program may handle; not those that a fault raises in the thread itself, nor the
 * profiler's. */
static void signals_to_block(sigset_t *signals)
{
    static const int unblocked[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                    SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigfillset(signals);
    for (size_t i = 0; i < sizeof unblocked / sizeof unblocked[0]; i++) {
        sigdelset(signals, unblocked[i]);
    }
}

escqrs_status esc_thread_create(esc_thread *thread, const char *name, size_t stack_size,
                                void (*run)(void *context), void *context, escqrs_error *error)
{
    thread_start *start = escqrs_alloc(sizeof *start);
    if (start == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory starting thread %s", name);
    }
    *start = (thread_start){.run = run, .context = context};
    snprintf(start->name, sizeof start->name, "%s", name);

    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    ESC_ASSERT(failed == 0);
    if (stack_size > 0) {
        failed = pthread_attr_setstacksize(&attributes, stack_size);
        ESC_ASSERT(failed == 0); /* below PTHREAD_STACK_MIN */
    }
    /* A new thread inherits the mask: block here, so that no signal slips in before it could
     * itself. */
    sigset_t blocked;
    sigset_t before;
    signals_to_block(&blocked);
    failed = pthread_sigmask(SIG_SETMASK, &blocked, &before);
    ESC_ASSERT(failed == 0);
    int created = pthread_create(&thread->handle, &attributes, thread_main, start);
    failed = pthread_sigmask(SIG_SETMASK, &before, NULL);
    ESC_ASSERT(failed == 0);
    pthread_attr_destroy(&attributes);
    if (created != 0) {
        escqrs_free(start);
        return esc_error_system(error, created == ENOMEM ? ESCQRS_NO_MEMORY : ESCQRS_IO, created,
                                "cannot start thread %s", name);
    }
    return ESCQRS_OK;
}

void esc_thread_join(esc_thread *thread)
{
    int failed = pthread_join(thread->handle, NULL);
    ESC_ASSERT(failed == 0);
}

/* ---- futex ---------------------------------------------------------------------------------- */

bool esc_futex_wait(_Atomic uint32_t *address, uint32_t expected, int64_t deadline_ns)
{
    struct timespec until = timespec_of(deadline_ns);
    /* of the waiting operations only the one with a bit set takes an absolute deadline */
    long result =
        syscall(SYS_futex, address, FUTEX_WAIT_BITSET_PRIVATE, expected,
                deadline_ns == ESC_DEADLINE_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
    if (result == 0) {
        return true;
    }
    ESC_ASSERT(errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT);
    return errno != ETIMEDOUT;
}

void esc_futex_wake(_Atomic uint32_t *address, int count)
{
    long result = syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    ESC_ASSERT(result >= 0);
}
