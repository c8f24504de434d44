/* Pools: who has a licence, who sleeps, and the start and end of worker threads.
 *
 * What holds: where there is work and a free licence, somebody is about to look: who adds work
 * looks at `free` after it (esc_pool_push), who frees a licence looks at the work after it
 * (esc_pool_await_licence and whoever calls esc_pool_kick). The exception is a thread that cannot
 * be started, or may not because of worker_count_max: then the next send, the monitor's next tick,
 * or a worker that comes back, tries again.
 *
 * A worker that has nothing to do sleeps on its own futex, without a timer; the last to fall asleep
 * is the first to be woken. What exceeds ESC_POOL_IDLE_MAX ends at once. A worker that ends joins
 * the one that ended before it, so at most one ended thread is left for escqrs_runtime_stop to
 * join.
 */
#include <stdio.h>

#include "runtime/cell.h"
#include "runtime/ring.h"
#include "runtime/runtime.h"

void esc_pool_init(esc_pool *pool, escqrs_runtime *runtime, escqrs_host *host, int licence_count,
                   void (*run)(esc_worker *worker))
{
    *pool =
        (esc_pool){.runtime = runtime, .host = host, .run = run, .licence_count = licence_count};
    atomic_init(&pool->shared, NULL);
    atomic_init(&pool->poked, false);
    atomic_init(&pool->free, licence_count);
    atomic_init(&pool->first, NULL);
    esc_mutex_init(&pool->lock);
    esc_list_init(&pool->workers);
    esc_list_init(&pool->sleepers);
}

void esc_pool_fini(esc_pool *pool)
{
    ESC_ASSERT(pool->worker_count == 0);
    esc_mutex_fini(&pool->lock);
}

/* ---- work ------------------------------------------------------------------------------------- */

static void push_manual(esc_pool *pool, escqrs_actor *actor)
{
    actor->next = NULL;
    esc_mutex_lock(&pool->lock);
    if (atomic_load_explicit(&pool->first, memory_order_relaxed) == NULL) {
        atomic_store_explicit(&pool->first, actor, memory_order_relaxed);
    } else {
        pool->last->next = actor;
    }
    pool->last = actor;
    pool->count++;
    esc_mutex_unlock(&pool->lock);
}

void esc_pool_push(esc_pool *pool, escqrs_actor *actor)
{
    if (pool->runtime->manual) {
        push_manual(pool, actor);
        return;
    }
    escqrs_actor *newest = atomic_load_explicit(&pool->shared, memory_order_relaxed);
    do {
        actor->next = newest;
        /* seq_cst: release pairs with esc_pool_take_shared; and it stands before the load of `free`
         */
    } while (!atomic_compare_exchange_weak_explicit(&pool->shared, &newest, actor,
                                                    memory_order_seq_cst, memory_order_relaxed));
    if (atomic_load_explicit(&pool->free, memory_order_seq_cst) > 0) {
        esc_pool_kick(pool);
    }
}

escqrs_actor *esc_pool_take_shared(esc_pool *pool, escqrs_actor **newest)
{
    /* relaxed: a look; what comes later finds the licence taken, or kicks */
    if (atomic_load_explicit(&pool->shared, memory_order_relaxed) == NULL) {
        *newest = NULL;
        return NULL;
    }
    /* acquire: pairs with the release of every push */
    escqrs_actor *actor = atomic_exchange_explicit(&pool->shared, NULL, memory_order_acquire);
    escqrs_actor *oldest = NULL;
    *newest = actor;
    while (actor != NULL) {
        escqrs_actor *next = actor->next;
        actor->next = oldest;
        oldest = actor;
        actor = next;
    }
    return oldest;
}

bool esc_pool_has_work(esc_pool *pool)
{
    /* seq_cst: stand after the return of a licence */
    return atomic_load_explicit(&pool->shared, memory_order_seq_cst) != NULL ||
           atomic_load_explicit(&pool->first, memory_order_seq_cst) != NULL ||
           atomic_load_explicit(&pool->poked, memory_order_seq_cst);
}

/* ---- licences; all with the pool's lock held --------------------------------------------------- */

static bool take_licence(esc_pool *pool)
{
    /* relaxed: written under the lock */
    int count = atomic_load_explicit(&pool->free, memory_order_relaxed);
    if (count == 0) {
        return false;
    }
    /* seq_cst: Dekker with the monitor that wants to sleep, see esc_monitor_arm */
    atomic_store_explicit(&pool->free, count - 1, memory_order_seq_cst);
    pool->grant_count++;
    return true;
}

static void return_licence(esc_pool *pool)
{
    /* relaxed: written under the lock */
    int count = atomic_load_explicit(&pool->free, memory_order_relaxed);
    ESC_ASSERT(count < pool->licence_count);
    /* seq_cst: Dekker with esc_pool_push, see runtime.h */
    atomic_store_explicit(&pool->free, count + 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
}

void esc_pool_take_away(esc_worker *worker)
{
    ESC_ASSERT(worker->licensed);
    worker->licensed = false;
    return_licence(worker->pool);
}

static void wake(esc_worker *worker, uint32_t reason)
{
    /* release: pairs with the sleeper's acquire. Woken under the lock, for the worker may end and
     * be freed after it. */
    atomic_store_explicit(&worker->wake, reason, memory_order_release);
    esc_futex_wake(&worker->wake, 1);
}

static esc_worker *pop_sleeper(esc_pool *pool)
{
    esc_list_node *node = esc_list_pop_front(&pool->sleepers);
    if (node == NULL) {
        return NULL;
    }
    pool->sleeper_count--;
    return ESC_CONTAINER_OF(node, esc_worker, asleep);
}

void esc_pool_wake_all(esc_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    for (esc_worker *worker = pop_sleeper(pool); worker != NULL; worker = pop_sleeper(pool)) {
        wake(worker, ESC_WAKE_STOP);
    }
    esc_mutex_unlock(&pool->lock);
}

bool esc_pool_await_licence(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    if (worker->ring != NULL) {
        esc_native_flush(worker);
    }
    esc_mutex_lock(&pool->lock);
    if (worker->licensed) {
        esc_pool_take_away(worker);
    }
    /* relaxed: the lock orders both. Out of all turns: the monitor must not take the next licence
     * for the last one's. */
    uint64_t turn = atomic_load_explicit(&worker->turn, memory_order_relaxed);
    atomic_store_explicit(&worker->turn, (turn & ~(ESC_TURN_IN | ESC_TURN_LOST)) + ESC_TURN_STEP,
                          memory_order_relaxed);
    atomic_store_explicit(&worker->lost, false, memory_order_relaxed);
    if (esc_runtime_is_stopping(pool->runtime)) {
        esc_mutex_unlock(&pool->lock);
        return false;
    }
    if (esc_pool_has_work(pool) && take_licence(pool)) {
        worker->licensed = true;
        esc_mutex_unlock(&pool->lock);
        return true;
    }
    if (pool->sleeper_count >= pool->licence_count + ESC_POOL_IDLE_MAX) {
        esc_mutex_unlock(&pool->lock);
        return false;
    }
    /* relaxed: the lock orders it */
    atomic_store_explicit(&worker->wake, ESC_WAKE_NONE, memory_order_relaxed);
    esc_list_push_front(&pool->sleepers, &worker->asleep);
    pool->sleeper_count++;
    esc_mutex_unlock(&pool->lock);

    uint32_t reason;
    /* acquire: pairs with wake() */
    while ((reason = atomic_load_explicit(&worker->wake, memory_order_acquire)) == ESC_WAKE_NONE) {
        esc_futex_wait(&worker->wake, ESC_WAKE_NONE, ESC_DEADLINE_NEVER);
    }
    return reason == ESC_WAKE_LICENCE;
}

/* ---- start and end of workers ----------------------------------------------------------------- */

static void end_worker(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    escqrs_runtime *runtime = pool->runtime;
    esc_mutex_lock(&pool->lock);
    if (worker->licensed) {
        esc_pool_take_away(worker);
    }
    esc_list_remove(&worker->in_pool);
    pool->worker_count--;
    esc_mutex_unlock(&pool->lock);
    esc_cell_blocks_free(worker);
    escqrs_free(worker->ring);
    escqrs_free(worker);

    esc_mutex_lock(&runtime->lock);
    bool join = runtime->has_ended;
    esc_thread before = runtime->ended;
    runtime->has_ended = true;
    runtime->ended = (esc_thread){pthread_self()};
    runtime->worker_count--;
    esc_cond_broadcast(&runtime->worker_ended);
    esc_mutex_unlock(&runtime->lock);
    /* from here the runtime may be gone as soon as this thread is joined */
    if (join) {
        esc_thread_join(&before);
    }
}

static void worker_main(void *context)
{
    esc_worker *worker = context;
    esc_thread_here.worker = worker;
    worker->pool->run(worker);
    esc_thread_here.worker = NULL;
    end_worker(worker);
}

static esc_worker *worker_create(esc_pool *pool, escqrs_error *error)
{
    esc_worker *worker = escqrs_alloc_zero(sizeof *worker);
    if (worker == NULL) {
        goto fail;
    }
    worker->pool = pool;
    worker->licensed = true;
    if (pool->host == NULL) {
        worker->ring = escqrs_alloc_zero(sizeof *worker->ring);
        if (worker->ring == NULL) {
            goto fail;
        }
    }
    return worker;

fail:
    escqrs_free(worker);
    escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory starting a worker thread");
    return NULL;
}

/* Both locks are taken in their order; each pool may have as many workers that do not block as it
 * has licences. */
static bool may_start(esc_pool *pool)
{
    escqrs_runtime *runtime = pool->runtime;
    if (pool->worker_count - pool->blocked_count < pool->licence_count) {
        return true;
    }
    esc_mutex_lock(&runtime->lock);
    bool may = runtime->worker_count - runtime->blocked_count < runtime->worker_count_max;
    esc_mutex_unlock(&runtime->lock);
    return may;
}

bool esc_pool_may_start(esc_pool *pool)
{
    return pool->sleeper_count > 0 || may_start(pool);
}

void esc_pool_start_failed(esc_pool *pool, const escqrs_error *error)
{
    escqrs_runtime *runtime = pool->runtime;
    esc_mutex_lock(&pool->lock);
    pool->retry_wait = pool->retry_wait == 0 ? 1 : pool->retry_wait * 2;
    if (pool->retry_wait > ESC_MONITOR_RETRY_MAX) {
        pool->retry_wait = ESC_MONITOR_RETRY_MAX;
    }
    pool->retry_left = pool->retry_wait;
    esc_mutex_unlock(&pool->lock);
    /* relaxed: only whether it was said */
    if (!atomic_exchange_explicit(&runtime->start_failed, true, memory_order_relaxed)) {
        escqrs_log_write(&runtime->log, ESCQRS_LOG_ERROR,
                         "%s; messages wait until a thread can be started", error->message);
    }
    esc_monitor_arm(runtime);
}

void esc_pool_start_succeeded(esc_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    pool->retry_wait = 0;
    pool->retry_left = 0;
    esc_mutex_unlock(&pool->lock);
    atomic_store_explicit(&pool->runtime->start_failed, false, memory_order_relaxed);
}

/* The caller has taken a licence for it and counted it in the pool. False: it could not be started,
 * and all that there are block. */
static bool start_worker(esc_pool *pool)
{
    escqrs_runtime *runtime = pool->runtime;
    escqrs_error error = {0};
    esc_worker *worker = worker_create(pool, &error);
    if (worker == NULL) {
        goto fail;
    }

    esc_mutex_lock(&runtime->lock);
    bool stopping = esc_runtime_is_stopping(runtime);
    if (!stopping) {
        runtime->worker_count++;
    }
    esc_mutex_unlock(&runtime->lock);
    if (stopping) {
        goto discard;
    }

    esc_mutex_lock(&pool->lock);
    esc_list_push_back(&pool->workers, &worker->in_pool);
    esc_mutex_unlock(&pool->lock);
    esc_thread thread; /* joined by its own handle, see end_worker */
    if (esc_thread_create(&thread, pool->host == NULL ? "esc-native" : "esc-host", 0, worker_main,
                          worker, &error) == ESCQRS_OK) {
        return true;
    }
    esc_mutex_lock(&pool->lock);
    esc_list_remove(&worker->in_pool);
    esc_mutex_unlock(&pool->lock);
    esc_mutex_lock(&runtime->lock);
    runtime->worker_count--;
    esc_cond_broadcast(&runtime->worker_ended);
    esc_mutex_unlock(&runtime->lock);

discard:
    escqrs_free(worker->ring);
    escqrs_free(worker);
fail:
    esc_mutex_lock(&pool->lock);
    pool->worker_count--;
    return_licence(pool);
    bool others = pool->worker_count > pool->blocked_count;
    esc_mutex_unlock(&pool->lock);
    if (error.status == ESCQRS_OK) { /* stopping */
        return true;
    }
    esc_pool_start_failed(pool, &error);
    return others;
}

bool esc_pool_kick(esc_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    if (esc_runtime_is_stopping(pool->runtime) ||
        atomic_load_explicit(&pool->free, memory_order_relaxed) == 0) {
        esc_mutex_unlock(&pool->lock);
        return true;
    }
    if (!esc_pool_may_start(pool)) {
        esc_mutex_unlock(&pool->lock);
        esc_monitor_arm(pool->runtime); /* it tries again */
        return true;
    }
    take_licence(pool);
    esc_worker *worker = pop_sleeper(pool);
    if (worker != NULL) {
        worker->licensed = true;
        wake(worker, ESC_WAKE_LICENCE);
        esc_mutex_unlock(&pool->lock);
        return true;
    }
    pool->worker_count++;
    esc_mutex_unlock(&pool->lock);
    return start_worker(pool);
}

/* ---- blocking --------------------------------------------------------------------------------- */

bool escqrs_runtime_block(void)
{
    esc_worker *worker = esc_thread_here.worker;
    if (worker == NULL || worker->block_depth++ > 0) {
        return true;
    }
    esc_pool *pool = worker->pool;
    escqrs_runtime *runtime = pool->runtime;
    if (worker->ring != NULL) {
        esc_native_flush(worker);
    }
    esc_mutex_lock(&pool->lock);
    pool->blocked_count++;
    if (worker->licensed) {
        /* relaxed: this thread reads them, and the monitor under the lock */
        atomic_fetch_or_explicit(&worker->turn, ESC_TURN_LOST, memory_order_relaxed);
        atomic_store_explicit(&worker->lost, true, memory_order_relaxed);
        esc_pool_take_away(worker);
    }
    esc_mutex_lock(&runtime->lock);
    runtime->blocked_count++;
    esc_mutex_unlock(&runtime->lock);
    bool go =
        esc_pool_has_work(pool) && atomic_load_explicit(&pool->free, memory_order_relaxed) > 0;
    esc_mutex_unlock(&pool->lock);
    return !go || esc_pool_kick(pool);
}

void escqrs_runtime_unblock(void)
{
    esc_worker *worker = esc_thread_here.worker;
    if (worker == NULL) {
        return;
    }
    ESC_ASSERT(worker->block_depth > 0);
    if (--worker->block_depth > 0) {
        return;
    }
    esc_pool *pool = worker->pool;
    escqrs_runtime *runtime = pool->runtime;
    esc_mutex_lock(&pool->lock);
    pool->blocked_count--;
    esc_mutex_lock(&runtime->lock);
    runtime->blocked_count--;
    esc_mutex_unlock(&runtime->lock);
    esc_mutex_unlock(&pool->lock);
}
