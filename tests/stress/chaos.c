/* Delays at random where threads meet, loaded before a program (LD_PRELOAD): races that take days
 * of repetition show in minutes. `make chaos` runs the tests of the runtime so.
 *
 * Before and after each call of the functions below, one time in ESCQRS_CHAOS_ONE_IN (50), the
 * thread yields or sleeps for up to 2 ms. ESCQRS_CHAOS_SEED is the seed, which is printed: it
 * repeats what each thread does, in the order in which threads begin; the kernel's part it cannot
 * repeat. No lock, and nothing is allocated. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SLEEP_US_MAX 2000u
#define OUTSIDE __attribute__((visibility("default")))

static uint64_t seed = 1;
static uint64_t one_in = 50;
static _Atomic(uint64_t) thread_count;
static _Thread_local uint64_t state;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t number = text == NULL ? 0 : strtoull(text, NULL, 10);
    return number == 0 ? otherwise : number;
}

__attribute__((constructor)) static void begin(void)
{
    seed = number_of("ESCQRS_CHAOS_SEED", (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid());
    one_in = number_of("ESCQRS_CHAOS_ONE_IN", one_in);
    fprintf(stderr, "ESCQRS_CHAOS_SEED=%llu\n", (unsigned long long)seed);
}

/* xorshift64*, a sequence for each thread */
static uint64_t chance(void)
{
    if (state == 0) {
        /* relaxed: only different */
        uint64_t number = atomic_fetch_add_explicit(&thread_count, 1, memory_order_relaxed) + 1;
        state = (seed + number * UINT64_C(0x9E3779B97F4A7C15)) | 1;
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(0x2545F4914F6CDD1D)) >> 16;
}

/* glibc has conditions of an older kind under the same names, which dlsym may find. */
static void *after_this(const char *name, _Atomic(void *) *found)
{
    /* relaxed: whoever looks finds the same */
    void *function = atomic_load_explicit(found, memory_order_relaxed);
    if (function == NULL) {
        function = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
        function = function == NULL ? dlsym(RTLD_NEXT, name) : function;
        atomic_store_explicit(found, function, memory_order_relaxed);
    }
    return function;
}

/* The function of that name in the next library. */
#define NEXT(name)                                                                                 \
    ({                                                                                             \
        static _Atomic(void *) found;                                                              \
        (__typeof__(&(name)))after_this(#name, &found);                                            \
    })

static void delay(void)
{
    if (chance() % one_in != 0) {
        return;
    }
    int error = errno;
    uint64_t number = chance();
    if (number % 4 == 0) {
        NEXT(sched_yield)();
    } else {
        uint64_t us = (number >> 8) % (number % 4 == 1 ? SLEEP_US_MAX : SLEEP_US_MAX / 20);
        nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
    }
    errno = error;
}

/* A call with a delay on both sides. */
#define DELAYED(call)                                                                              \
    delay();                                                                                       \
    __typeof__(call) result = call;                                                                \
    delay();                                                                                       \
    return result

OUTSIDE int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    DELAYED(NEXT(pthread_mutex_lock)(mutex));
}

OUTSIDE int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    DELAYED(NEXT(pthread_mutex_trylock)(mutex));
}

OUTSIDE int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    DELAYED(NEXT(pthread_mutex_unlock)(mutex));
}

OUTSIDE int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    DELAYED(NEXT(pthread_cond_wait)(cond, mutex));
}

OUTSIDE int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                   const struct timespec *until)
{
    DELAYED(NEXT(pthread_cond_timedwait)(cond, mutex, until));
}

OUTSIDE int pthread_cond_signal(pthread_cond_t *cond)
{
    DELAYED(NEXT(pthread_cond_signal)(cond));
}

OUTSIDE int pthread_cond_broadcast(pthread_cond_t *cond)
{
    DELAYED(NEXT(pthread_cond_broadcast)(cond));
}

OUTSIDE int sched_yield(void)
{
    DELAYED(NEXT(sched_yield)());
}

/* The futexes. */
OUTSIDE long syscall(long number, ...)
{
    va_list given;
    long a[6];
    va_start(given, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(given, long);
    }
    va_end(given);
    DELAYED(NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
