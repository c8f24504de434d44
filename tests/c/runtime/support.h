/* What the runtime's tests share: counting actors, a host with a mutex for an interpreter, waiting
 * for a number. */
#ifndef TEST_RUNTIME_SUPPORT_H
#define TEST_RUNTIME_SUPPORT_H

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <escqrs/runtime.h>

#include "base/thread.h"

#define TEST_SECONDS_MAX 900 /* of one executable; valgrind is slow */

/* A number that threads wait for. */
typedef struct tally {
    esc_mutex lock;
    esc_cond changed;
    int64_t value;
} tally;

#define TALLY_ZERO                                                                                 \
    {                                                                                              \
        ESC_MUTEX_INITIALIZER, {PTHREAD_COND_INITIALIZER}, 0                                       \
    }

static inline void tally_add(tally *count, int64_t by)
{
    esc_mutex_lock(&count->lock);
    count->value += by;
    esc_cond_broadcast(&count->changed);
    esc_mutex_unlock(&count->lock);
}

static inline int64_t tally_get(tally *count)
{
    esc_mutex_lock(&count->lock);
    int64_t value = count->value;
    esc_mutex_unlock(&count->lock);
    return value;
}

static inline void tally_wait(tally *count, int64_t at_least)
{
    esc_mutex_lock(&count->lock);
    while (count->value < at_least) {
        esc_cond_wait(&count->changed, &count->lock);
    }
    esc_mutex_unlock(&count->lock);
}

/* ---- a host ----------------------------------------------------------------------------------- */

typedef struct fake_host {
    esc_mutex gil;
    _Atomic int threads; /* begun and not ended */
    _Atomic int thread_max;
    _Atomic int attach_count;
    _Atomic int attaching; /* inside attach, of workers */
    _Atomic int attaching_max;
    _Atomic int batches;
    _Atomic int refuse; /* thread_begin answers NULL */
} fake_host;

#define FAKE_HOST_ZERO                                                                             \
    {                                                                                              \
        .gil = ESC_MUTEX_INITIALIZER                                                               \
    }

static _Thread_local bool fake_attached;

static inline void *fake_thread_begin(void *context)
{
    fake_host *host = context;
    if (atomic_load(&host->refuse) > 0) {
        return NULL;
    }
    int count = atomic_fetch_add(&host->threads, 1) + 1;
    if (count > atomic_load(&host->thread_max)) {
        atomic_store(&host->thread_max, count);
    }
    return host;
}

static inline void fake_thread_end(void *context, void *state)
{
    assert_ptr_equal(context, state);
    assert_false(fake_attached);
    atomic_fetch_sub(&((fake_host *)context)->threads, 1);
}

static inline void fake_attach(void *context, void *state)
{
    fake_host *host = context;
    assert_ptr_equal(context, state);
    assert_false(fake_attached);
    atomic_fetch_add(&host->attach_count, 1);
    int waiting = atomic_fetch_add(&host->attaching, 1) + 1;
    if (waiting > atomic_load(&host->attaching_max)) {
        atomic_store(&host->attaching_max, waiting);
    }
    esc_mutex_lock(&host->gil);
    atomic_fetch_sub(&host->attaching, 1);
    fake_attached = true;
}

static inline void *fake_detach(void *context)
{
    fake_host *host = context;
    assert_true(fake_attached);
    fake_attached = false;
    esc_mutex_unlock(&host->gil);
    return context;
}

static inline void fake_after_batch(void *context)
{
    assert_true(fake_attached);
    atomic_fetch_add(&((fake_host *)context)->batches, 1);
}

static const escqrs_host_ops FAKE_HOST_OPS = {
    .thread_begin = fake_thread_begin,
    .thread_end = fake_thread_end,
    .attach = fake_attach,
    .detach = fake_detach,
    .after_batch = fake_after_batch,
};

/* ---- runtimes --------------------------------------------------------------------------------- */

static inline escqrs_runtime *runtime_make(const escqrs_runtime_options *options)
{
    escqrs_runtime *runtime = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_runtime_create(options, &runtime, &error), ESCQRS_OK);
    return runtime;
}

static inline escqrs_host *host_make(escqrs_runtime *runtime, fake_host *fake)
{
    escqrs_host *host = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_host_create(runtime, &FAKE_HOST_OPS, fake, &host, &error), ESCQRS_OK);
    return host;
}

static inline void runtime_stop(escqrs_runtime *runtime)
{
    escqrs_error error = {0};
    escqrs_status status = escqrs_runtime_stop(runtime, ESC_DEADLINE_NEVER, &error);
    if (status != ESCQRS_OK) {
        fail_msg("stop: %s", error.message);
    }
}

static inline void runtime_end(escqrs_runtime *runtime)
{
    runtime_stop(runtime);
    escqrs_runtime_destroy(runtime);
}

#endif
