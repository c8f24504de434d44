/* Mutexes, condition variables, threads and futexes on pthreads and Linux.
 *
 * Deadlines are absolute nanoseconds of the system's CLOCK_MONOTONIC
 * (escqrs_clock_monotonic_ns(NULL)), whatever clock a test has put in place of it: a thread sleeps
 * in real time or not at all. Misuse (unlocking what is not locked, joining twice) aborts. */
#ifndef ESC_BASE_THREAD_H
#define ESC_BASE_THREAD_H

#include <escqrs/base.h>

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"

/* ---- deadlines ------------------------------------------------------------------------------ */

#define ESC_DEADLINE_NEVER INT64_MAX

/* Now plus `timeout_ns`, never beyond ESC_DEADLINE_NEVER; a negative timeout is now. */
int64_t esc_deadline_after(int64_t timeout_ns);

/* ---- mutex ---------------------------------------------------------------------------------- */

typedef struct esc_mutex {
    pthread_mutex_t handle;
} esc_mutex;

#define ESC_MUTEX_INITIALIZER                                                                      \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER                                                                  \
    }

void esc_mutex_init(esc_mutex *mutex);
void esc_mutex_fini(esc_mutex *mutex);

static inline void esc_mutex_lock(esc_mutex *mutex)
{
    int failed = pthread_mutex_lock(&mutex->handle);
    ESC_ASSERT(failed == 0);
}

/* True if the caller has it now; does not block. */
ESCQRS_MUST_USE static inline bool esc_mutex_try_lock(esc_mutex *mutex)
{
    return pthread_mutex_trylock(&mutex->handle) == 0;
}

static inline void esc_mutex_unlock(esc_mutex *mutex)
{
    int failed = pthread_mutex_unlock(&mutex->handle);
    ESC_ASSERT(failed == 0);
}

/* ---- condition ------------------------------------------------------------------------------ */

typedef struct esc_cond {
    pthread_cond_t handle;
} esc_cond;

void esc_cond_init(esc_cond *cond);
void esc_cond_fini(esc_cond *cond);

/* Both block, and may return early: look at what was waited for in a loop. The mutex is held. */
void esc_cond_wait(esc_cond *cond, esc_mutex *mutex);
bool esc_cond_wait_until(esc_cond *cond, esc_mutex *mutex,
                         int64_t deadline_ns); /* false: it is over */

void esc_cond_signal(esc_cond *cond);
void esc_cond_broadcast(esc_cond *cond);

/* ---- thread --------------------------------------------------------------------------------- */

typedef struct esc_thread {
    pthread_t handle;
} esc_thread;

/* Start a thread that runs run(context). The name (at most 15 bytes, longer ones are cut) shows in
 * debuggers and /proc; `stack_size` 0 is the system's default. Signals that a process handles
 * (SIGINT and the like) are blocked in it, so that they interrupt the embedding program's threads
 * and none of the core's. Errors: NO_MEMORY, IO (the system has no more threads). Whoever created
 * it joins it. */
escqrs_status esc_thread_create(esc_thread *thread, const char *name, size_t stack_size,
                                void (*run)(void *context), void *context,
                                escqrs_error *error) ESCQRS_MUST_USE;

void esc_thread_join(
    esc_thread *thread); /* blocks until it has ended; aborts on the thread itself */

/* ---- futex ---------------------------------------------------------------------------------- */

/* Sleep while *address is `expected`, until a wake or the deadline. False if the deadline passed;
 * true may be spurious: look again. Blocks. Of one process only. */
bool esc_futex_wait(_Atomic uint32_t *address, uint32_t expected, int64_t deadline_ns);

/* Wake at most `count` sleepers (INT_MAX: all). A system call of about a microsecond: skip it where
 * nobody sleeps. Does not block. */
void esc_futex_wake(_Atomic uint32_t *address, int count);

#endif
