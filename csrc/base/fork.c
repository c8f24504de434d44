/* A counter that the child of every fork() finds increased.
 *
 * It is the one thing here that is global and changes: a handler of pthread_atfork has no context.
 * The handler runs in the child's only thread before fork() returns there; an increment is
 * async-signal-safe. It is registered when the library is loaded, before anybody can ask. */
#include <escqrs/base.h>

#include <pthread.h>
#include <stdatomic.h>

#include "base/assert.h"

/* Relaxed: the child's other threads do not exist yet when it is written. */
static atomic_uint generation;

static void count_fork(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

__attribute__((constructor)) static void register_handler(void)
{
    int failed = pthread_atfork(NULL, NULL, count_fork);
    ESC_ASSERT(failed == 0);
}

unsigned escqrs_fork_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}
