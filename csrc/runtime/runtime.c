/* The runtime's life: create, stop, destroy; and the manual one's steps.
 *
 * Stop: `stopping` is set, so that no thread starts and no worker begins another message; the
 * monitor is joined; sleeping workers are woken and end; busy ones end when they come back. When
 * the count of workers is 0 the last of them is joined. Then nobody but callers is left, and the
 * actors that are still queued are parked: put into SUSPENDED, where a release destroys them at
 * once; those without a reference are destroyed with the runtime.
 */
#include <escqrs/runtime.h>

#include <sched.h>
#include <stdio.h>

#include "base/error.h"
#include "runtime/runtime.h"

#define NS_PER_MS INT64_C(1000000)
#define NAME_SIZE 256

static unsigned core_count(void)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof cores, &cores) != 0) {
        return 1; /* more than CPU_SETSIZE of them, or not to be known */
    }
    return (unsigned)CPU_COUNT(&cores);
}

static unsigned or_default(unsigned value, unsigned default_value)
{
    return value == 0 ? default_value : value;
}

escqrs_status escqrs_runtime_create(const escqrs_runtime_options *options, escqrs_runtime **runtime,
                                    escqrs_error *error)
{
    escqrs_runtime_options given = options == NULL ? (escqrs_runtime_options){0} : *options;
    unsigned native_count = or_default(given.native_worker_count, core_count());
    unsigned worker_count_max = or_default(given.worker_count_max, ESC_WORKER_COUNT_MAX_DEFAULT);
    if (native_count > INT16_MAX || worker_count_max > INT32_MAX) {
        return escqrs_error_set(error, ESCQRS_INVALID, "too many workers: %u native, at most %u",
                                native_count, worker_count_max);
    }
    escqrs_runtime *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making a runtime");
    }
    made->batch_max = or_default(given.batch_max, ESC_BATCH_MAX_DEFAULT);
    made->worker_count_max = (int)worker_count_max;
    made->takeover_ns = or_default(given.takeover_ms, ESC_TAKEOVER_MS_DEFAULT) * NS_PER_MS;
    made->manual = given.manual;
    made->random = given.random;
    made->log = given.log;
    atomic_init(&made->monitor_state, ESC_MONITOR_ASLEEP);
    esc_mutex_init(&made->lock);
    esc_cond_init(&made->worker_ended);
    esc_pool_init(&made->native, made, NULL, (int)native_count, esc_native_run);
    *runtime = made;
    return ESCQRS_OK;
}

/* ---- stop ------------------------------------------------------------------------------------- */

static escqrs_host *first_host(escqrs_runtime *runtime)
{
    esc_mutex_lock(&runtime->lock);
    escqrs_host *host = runtime->hosts;
    esc_mutex_unlock(&runtime->lock);
    return host;
}

/* All workers are gone. True if it found an actor. */
static bool park_all(escqrs_runtime *runtime, esc_pool *pool)
{
    escqrs_actor *newest;
    /* relaxed: joined the workers that wrote it */
    escqrs_actor *lists[] = {atomic_exchange_explicit(&pool->first, NULL, memory_order_relaxed),
                             esc_pool_take_shared(pool, &newest)};
    pool->count = 0;
    bool found = false;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (escqrs_actor *actor = lists[i]; actor != NULL;) {
            escqrs_actor *next = actor->next;
            if (esc_actor_park(actor)) {
                actor->next = runtime->orphans;
                runtime->orphans = actor;
            }
            actor = next;
            found = true;
        }
    }
    return found;
}

static bool park_everywhere(escqrs_runtime *runtime)
{
    bool found = park_all(runtime, &runtime->native);
    for (escqrs_host *host = first_host(runtime); host != NULL; host = host->next) {
        found = park_all(runtime, &host->pool) || found;
    }
    return found;
}

/* Has the worker been in the same turn for a tick of the monitor's or longer? With the pool's lock
 * held. */
static bool is_long_busy(const esc_worker *worker)
{
    /* acquire: pairs with esc_worker_enter */
    uint64_t turn = atomic_load_explicit(&worker->turn, memory_order_acquire);
    return (turn & ESC_TURN_IN) != 0 && (!worker->licensed || turn == worker->turn_seen);
}

/* The worker after `skip` others that are busy, with the pool's lock held; NULL: so many are not.
 */
static esc_worker *find_busy(esc_pool *pool, bool long_busy, int skip)
{
    for (esc_list_node *node = esc_list_first(&pool->workers); node != NULL;
         node = esc_list_next(&pool->workers, node)) {
        esc_worker *worker = ESC_CONTAINER_OF(node, esc_worker, in_pool);
        if (atomic_load_explicit(&worker->current, memory_order_relaxed) != NULL &&
            (!long_busy || is_long_busy(worker)) && skip-- == 0) {
            return worker;
        }
    }
    return NULL;
}

/* The first one that has a name: what the runtime itself put there has none, and is soon done. */
static bool name_busy_actor(esc_pool *pool, bool long_busy, char *text, size_t size)
{
    text[0] = '\0';
    for (int skip = 0; text[0] == '\0'; skip++) {
        esc_mutex_lock(&pool->lock);
        esc_worker *worker = find_busy(pool, long_busy, skip);
        if (worker == NULL) {
            esc_mutex_unlock(&pool->lock);
            return false;
        }
        esc_actor_describe_current(pool, worker, text, size); /* unlocks */
    }
    return true;
}

static bool name_busy(escqrs_runtime *runtime, bool long_busy, char *text, size_t size)
{
    bool named = name_busy_actor(&runtime->native, long_busy, text, size);
    for (escqrs_host *host = first_host(runtime); host != NULL && !named; host = host->next) {
        named = name_busy_actor(&host->pool, long_busy, text, size);
    }
    return named;
}

bool esc_runtime_name_busy(escqrs_runtime *runtime, char *text, size_t size)
{
    return name_busy(runtime, true, text, size) || name_busy(runtime, false, text, size);
}

static escqrs_status report_busy(escqrs_runtime *runtime, int count, escqrs_error *error)
{
    char name[NAME_SIZE] = "";
    if (!esc_runtime_name_busy(runtime, name, sizeof name)) {
        return escqrs_error_set(error, ESCQRS_TIMEOUT, "%d worker%s did not end in time", count,
                                count == 1 ? "" : "s");
    }
    escqrs_status status = escqrs_error_set(
        error, ESCQRS_TIMEOUT, "%s did not come back from a message in time (%d worker%s busy)",
        name, count, count == 1 ? "" : "s");
    esc_error_subject(error, escqrs_slice_of(name));
    return status;
}

escqrs_status escqrs_runtime_stop(escqrs_runtime *runtime, int64_t deadline_ns, escqrs_error *error)
{
    esc_worker *worker = esc_thread_here.worker;
    if (worker != NULL && worker->pool->runtime == runtime) {
        return escqrs_error_set(error, ESCQRS_DEADLOCK, "a worker cannot stop its own runtime");
    }
    esc_mutex_lock(&runtime->lock);
    /* release: pairs with esc_runtime_is_stopping */
    atomic_store_explicit(&runtime->stopping, true, memory_order_release);
    esc_mutex_unlock(&runtime->lock);
    esc_monitor_stop(runtime);
    esc_pool_wake_all(&runtime->native);
    for (escqrs_host *host = first_host(runtime); host != NULL; host = host->next) {
        esc_pool_wake_all(&host->pool);
    }

    esc_mutex_lock(&runtime->lock);
    bool in_time = true;
    while (runtime->worker_count > 0 && in_time) {
        in_time = esc_cond_wait_until(&runtime->worker_ended, &runtime->lock, deadline_ns);
    }
    int busy_count = runtime->worker_count;
    bool join = busy_count == 0 && runtime->has_ended;
    runtime->has_ended = runtime->has_ended && !join;
    esc_mutex_unlock(&runtime->lock);
    if (busy_count > 0) {
        return report_busy(runtime, busy_count, error);
    }
    if (join) {
        esc_thread_join(&runtime->ended);
    }
    park_everywhere(runtime);
    esc_mutex_lock(&runtime->lock);
    runtime->parked = true;
    esc_mutex_unlock(&runtime->lock);
    return ESCQRS_OK;
}

void escqrs_runtime_destroy(escqrs_runtime *runtime)
{
    if (runtime == NULL) {
        return;
    }
    ESC_ASSERT(runtime->parked);
    /* destroying an actor may queue others */
    while (park_everywhere(runtime) || runtime->orphans != NULL) {
        escqrs_actor *orphan = runtime->orphans;
        if (orphan != NULL) {
            runtime->orphans = orphan->next;
            esc_actor_destroy(orphan);
        }
    }
    for (escqrs_host *host = runtime->hosts; host != NULL;) {
        escqrs_host *next = host->next;
        esc_host_destroy(host);
        host = next;
    }
    esc_pool_fini(&runtime->native);
    esc_cond_fini(&runtime->worker_ended);
    esc_mutex_fini(&runtime->lock);
    escqrs_free(runtime);
}

/* ---- manual ----------------------------------------------------------------------------------- */

/* The actor at `index` of the queue, or NULL; with the lock held. */
static escqrs_actor *remove_at(esc_pool *pool, size_t index)
{
    escqrs_actor *before = NULL;
    escqrs_actor *actor = atomic_load_explicit(&pool->first, memory_order_relaxed);
    for (size_t i = 0; i < index; i++) {
        before = actor;
        actor = actor->next;
    }
    if (actor == NULL) {
        return NULL;
    }
    if (before == NULL) {
        atomic_store_explicit(&pool->first, actor->next, memory_order_relaxed);
    } else {
        before->next = actor->next;
    }
    if (pool->last == actor) {
        pool->last = before;
    }
    pool->count--;
    return actor;
}

static size_t pick(const escqrs_runtime *runtime, size_t count)
{
    if (runtime->random.fill == NULL || count < 2) {
        return 0;
    }
    uint64_t number;
    escqrs_random_fill(&runtime->random, &number, sizeof number);
    return (size_t)(number % count);
}

static void after_step(escqrs_host *host)
{
    atomic_store_explicit(&host->pool.poked, false,
                          memory_order_relaxed); /* before, so none is lost */
    if (host->ops->after_batch != NULL) {
        host->ops->after_batch(host->context);
    }
}

static void step_one(escqrs_actor *actor)
{
    escqrs_host *host = actor->host; /* the actor may be gone afterwards */
    esc_actor_work_manual(actor);
    if (host != NULL) {
        after_step(host);
    }
}

bool escqrs_runtime_step_actor(escqrs_actor *actor)
{
    esc_pool *pool = actor->pool;
    ESC_ASSERT(pool->runtime->manual);
    size_t index = 0;
    esc_mutex_lock(&pool->lock);
    escqrs_actor *found = atomic_load_explicit(&pool->first, memory_order_relaxed);
    for (; found != NULL && found != actor; found = found->next) {
        index++;
    }
    if (found != NULL) {
        (void)remove_at(pool, index);
    }
    esc_mutex_unlock(&pool->lock);
    if (found != NULL) {
        step_one(found);
    }
    return found != NULL;
}

bool escqrs_runtime_step(escqrs_runtime *runtime)
{
    ESC_ASSERT(runtime->manual);
    esc_pool *pool = &runtime->native;
    esc_mutex_lock(&pool->lock);
    escqrs_actor *actor = remove_at(pool, pick(runtime, pool->count));
    esc_mutex_unlock(&pool->lock);
    if (actor != NULL) {
        step_one(actor);
        return true;
    }
    for (escqrs_host *host = first_host(runtime); host != NULL; host = host->next) {
        if (atomic_load_explicit(&host->pool.poked, memory_order_relaxed)) {
            after_step(host);
            return true;
        }
    }
    return false;
}
