/* Nanoseconds a message of the runtime alone, beside the floor of an indirect call with a
 * compare-and-swap. Prints the median of some rounds with the best and the worst. */
#include <escqrs/runtime.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_COUNT 5

typedef struct peer peer;

typedef struct letter {
    escqrs_message message;
    int64_t hops_left;
    uint32_t random;
} letter;

struct peer {
    _Alignas(64) escqrs_actor actor;
    peer *all;
    unsigned count;
    _Atomic int64_t *finished;
    _Atomic int64_t handled;
};

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static int64_t now_ns(void)
{
    return escqrs_clock_monotonic_ns(NULL);
}

/* ---- hosts and actors ------------------------------------------------------------------------- */

static pthread_mutex_t interpreter = PTHREAD_MUTEX_INITIALIZER;

static void *thread_begin(void *context)
{
    return context;
}

static void thread_end(void *context, void *state)
{
    (void)context;
    (void)state;
}

static void attach(void *context, void *state)
{
    (void)context;
    (void)state;
    pthread_mutex_lock(&interpreter);
}

static void *detach(void *context)
{
    pthread_mutex_unlock(&interpreter);
    return context;
}

static const escqrs_host_ops HOST_OPS = {thread_begin, thread_end, attach, detach, NULL};

static void destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void describe(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "Peer");
}

/* Passes the letter on: to the next (count 2) or to a random one. */
static escqrs_turn_end pass_on(escqrs_actor *actor, escqrs_message *message)
{
    peer *self = (peer *)actor;
    letter *given = (letter *)message;
    if (--given->hops_left < 0) {
        atomic_fetch_add_explicit(self->finished, 1, memory_order_release);
        return ESCQRS_TURN_NEXT;
    }
    peer *next;
    if (self->count == 2) {
        next = self == self->all ? self + 1 : self - 1;
    } else {
        given->random = given->random * 1664525u + 1013904223u;
        next = &self->all[((uint64_t)given->random * self->count) >> 32];
    }
    escqrs_actor_send(&next->actor, message);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end count_it(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    peer *self = (peer *)actor;
    int64_t handled = atomic_load_explicit(&self->handled, memory_order_relaxed) + 1;
    atomic_store_explicit(&self->handled, handled, memory_order_release);
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_ops PASS_OPS = {pass_on, destroy, describe};
static const escqrs_actor_ops COUNT_OPS = {count_it, destroy, describe};

static void wait_for(_Atomic int64_t *value, int64_t wanted)
{
    while (atomic_load_explicit(value, memory_order_acquire) < wanted) {
        struct timespec pause = {.tv_nsec = 100000};
        nanosleep(&pause, NULL);
    }
}

/* Each at the beginning of a cache line. */
static peer *peers_new(size_t count)
{
    peer *all = aligned_alloc(_Alignof(peer), count * sizeof *all);
    require(all != NULL, "memory");
    memset(all, 0, count * sizeof *all);
    return all;
}

static escqrs_runtime *begin(unsigned native_count)
{
    escqrs_runtime *runtime;
    escqrs_runtime_options options = {.native_worker_count = native_count};
    require(escqrs_runtime_create(&options, &runtime, NULL) == ESCQRS_OK, "create");
    return runtime;
}

static void end(escqrs_runtime *runtime)
{
    require(escqrs_runtime_stop(runtime, INT64_MAX, NULL) == ESCQRS_OK, "stop");
    escqrs_runtime_destroy(runtime);
}

/* ---- the workloads; each answers nanoseconds a message ------------------------------------------ */

static double floor_call(void)
{
    enum { COUNT = 20000000 };
    peer self = {0};
    escqrs_turn_end (*volatile function)(escqrs_actor *, escqrs_message *) = count_it;
    _Atomic uintptr_t word = 0;
    int64_t start = now_ns();
    for (int i = 0; i < COUNT; i++) {
        uintptr_t expected = 0;
        atomic_compare_exchange_strong(&word, &expected, 1);
        function(&self.actor, NULL);
        atomic_store_explicit(&word, 0, memory_order_release);
    }
    return (double)(now_ns() - start) / COUNT;
}

static double caller_run(void)
{
    enum { COUNT = 10000000 };
    escqrs_runtime *runtime = begin(1);
    peer self = {0};
    escqrs_actor_init(&self.actor, runtime, NULL, &COUNT_OPS);
    letter message = {0};
    int64_t start = now_ns();
    for (int i = 0; i < COUNT; i++) {
        require(escqrs_actor_run(&self.actor, &message.message), "run");
    }
    double result = (double)(now_ns() - start) / COUNT;
    end(runtime);
    return result;
}

/* One thread sends to many actors of a host; what it costs until all is handled. */
static double send_through_host(void)
{
    enum { COUNT = 1000000, ACTORS = 1000 };
    escqrs_runtime *runtime = begin(1);
    escqrs_host *host;
    require(escqrs_host_create(runtime, &HOST_OPS, &interpreter, &host, NULL) == ESCQRS_OK, "host");
    peer *all = peers_new(ACTORS);
    letter *letters = calloc(COUNT, sizeof *letters);
    require(letters != NULL, "memory");
    for (int i = 0; i < ACTORS; i++) {
        escqrs_actor_init(&all[i].actor, runtime, host, &COUNT_OPS);
    }
    int64_t start = now_ns();
    for (int i = 0; i < COUNT; i++) {
        escqrs_actor_send(&all[i % ACTORS].actor, &letters[i].message);
    }
    for (int i = 0; i < ACTORS; i++) {
        wait_for(&all[i].handled, COUNT / ACTORS);
    }
    double result = (double)(now_ns() - start) / COUNT;
    end(runtime);
    free(letters);
    free(all);
    return result;
}

/* `letters` letters wander among `actors` native actors. */
static double wander(unsigned workers, unsigned actors, unsigned letters, int64_t count)
{
    escqrs_runtime *runtime = begin(workers);
    _Atomic int64_t finished = 0;
    peer *all = peers_new(actors);
    letter *mail = calloc(letters, sizeof *mail);
    require(mail != NULL, "memory");
    for (unsigned i = 0; i < actors; i++) {
        all[i].all = all;
        all[i].count = actors;
        all[i].finished = &finished;
        escqrs_actor_init(&all[i].actor, runtime, NULL, &PASS_OPS);
    }
    int64_t start = now_ns();
    for (unsigned i = 0; i < letters; i++) {
        mail[i].hops_left = count / letters;
        mail[i].random = i * 2654435761u;
        escqrs_actor_send(&all[i % actors].actor, &mail[i].message);
    }
    wait_for(&finished, letters);
    double result = (double)(now_ns() - start) / (double)count;
    end(runtime);
    free(mail);
    free(all);
    return result;
}

static double ping_pong(void)
{
    return wander(1, 2, 1, 10000000);
}

static double ping_pong_many(void)
{
    return wander(1, 2, 100, 20000000);
}

static double random_thousand(void)
{
    return wander(1, 1000, 1000, 10000000);
}

static double random_thousand_all_cores(void)
{
    return wander(0, 1000, 1000, 10000000);
}

static double random_million(void)
{
    return wander(1, 1000000, 1000, 5000000);
}

typedef struct flood {
    pthread_t thread;
    peer *target;
    letter *letters;
    int count;
} flood;

static void *flood_main(void *context)
{
    flood *self = context;
    for (int i = 0; i < self->count; i++) {
        escqrs_actor_send(&self->target->actor, &self->letters[i].message);
    }
    return NULL;
}

static double many_to_one(void)
{
    enum { THREADS = 2, COUNT = 1000000 };
    escqrs_runtime *runtime = begin(1);
    peer self = {0};
    escqrs_actor_init(&self.actor, runtime, NULL, &COUNT_OPS);
    flood floods[THREADS];
    for (int i = 0; i < THREADS; i++) {
        floods[i] = (flood){.target = &self, .count = COUNT};
        floods[i].letters = malloc(COUNT * sizeof(letter));
        require(floods[i].letters != NULL, "memory");
        memset(floods[i].letters, 1, COUNT * sizeof(letter));
    }
    int64_t start = now_ns();
    for (int i = 0; i < THREADS; i++) {
        require(pthread_create(&floods[i].thread, NULL, flood_main, &floods[i]) == 0, "thread");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(floods[i].thread, NULL);
    }
    wait_for(&self.handled, THREADS * COUNT);
    double result = (double)(now_ns() - start) / (THREADS * COUNT);
    end(runtime);
    for (int i = 0; i < THREADS; i++) {
        free(floods[i].letters);
    }
    return result;
}

/* ---- table ------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void measure(const char *name, double (*run)(void))
{
    double results[ROUND_COUNT];
    for (int i = 0; i < ROUND_COUNT; i++) {
        results[i] = run();
    }
    qsort(results, ROUND_COUNT, sizeof results[0], compare);
    double median = results[ROUND_COUNT / 2];
    printf("%-52s %8.1f %8.1f %8.1f %10.1f\n", name, median, results[0], results[ROUND_COUNT - 1],
           1e3 / median);
    fflush(stdout);
}

int main(void)
{
    printf("%-52s %8s %8s %8s %10s\n", "ns a message", "median", "best", "worst", "M/s");
    measure("floor: compare-and-swap and indirect call", floor_call);
    measure("caller-run", caller_run);
    measure("send to 1,000 actors of a host", send_through_host);
    measure("ping-pong, 1 in flight, one worker", ping_pong);
    measure("ping-pong, 100 in flight, one worker", ping_pong_many);
    measure("random among 1,000, 1,000 in flight, one worker", random_thousand);
    measure("random among 1,000, 1,000 in flight, all cores", random_thousand_all_cores);
    measure("random among 1,000,000, 1,000 in flight, one worker", random_million);
    measure("many-to-one, 2 threads", many_to_one);
    printf("an actor: %zu bytes\n", sizeof(escqrs_actor));
    return 0;
}
