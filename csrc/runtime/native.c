/* The workers of native actors.
 *
 * Each has a ring of its own; what it makes runnable goes there, and it takes from there without a
 * lock. What comes from other threads, or does not fit, goes to the pool's shared stack, from which
 * workers fetch some at a time under the pool's lock. A worker with nothing to do steals half of
 * another's ring, also under the lock. Who finds more than it needs while a licence is free gets
 * another worker going.
 *
 * A licence is not exclusive here: a worker whose licence the monitor took away notices after its
 * visit, and for a moment there may be one more running. What it left in its ring is stolen.
 */
#include "runtime/ring.h"
#include "runtime/runtime.h"

#define SHARED_LOOK_EVERY 64 /* visits; so that a busy ring does not starve the shared queue */

/* With the pool's lock held. */
static void collect_shared(esc_pool *pool)
{
    escqrs_actor *newest;
    escqrs_actor *oldest = esc_pool_take_shared(pool, &newest);
    if (oldest == NULL) {
        return;
    }
    if (atomic_load_explicit(&pool->first, memory_order_relaxed) == NULL) {
        atomic_store_explicit(&pool->first, oldest, memory_order_relaxed);
    } else {
        pool->last->next = oldest;
    }
    pool->last = newest;
}

static escqrs_actor *take_shared(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    /* relaxed: a look; before it sleeps the worker looks again */
    if (atomic_load_explicit(&pool->first, memory_order_relaxed) == NULL &&
        atomic_load_explicit(&pool->shared, memory_order_relaxed) == NULL) {
        return NULL;
    }
    esc_mutex_lock(&pool->lock);
    collect_shared(pool);
    /* relaxed: `first` is written under the lock */
    escqrs_actor *taken = atomic_load_explicit(&pool->first, memory_order_relaxed);
    escqrs_actor *next = taken == NULL ? NULL : taken->next;
    for (int i = 1; i < ESC_SHARED_TAKE_MAX && next != NULL; i++) {
        escqrs_actor *after = next->next; /* in the ring it may be run at once by a thief */
        if (!esc_ring_push(worker->ring, next)) {
            break;
        }
        next = after;
    }
    atomic_store_explicit(&pool->first, next, memory_order_relaxed);
    bool more = (next != NULL || esc_ring_count(worker->ring) > 0) &&
                atomic_load_explicit(&pool->free, memory_order_relaxed) > 0;
    esc_mutex_unlock(&pool->lock);
    if (more) {
        esc_pool_kick(pool);
    }
    return taken;
}

static escqrs_actor *steal(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    escqrs_actor *stolen[ESC_SHARED_TAKE_MAX];
    unsigned count = 0;
    esc_mutex_lock(&pool->lock);
    for (esc_list_node *node = esc_list_first(&pool->workers); node != NULL && count == 0;
         node = esc_list_next(&pool->workers, node)) {
        esc_worker *victim = ESC_CONTAINER_OF(node, esc_worker, in_pool);
        /* the only one is the next turn of a worker that runs */
        uint64_t least = victim->licensed ? 2 : 1;
        if (victim != worker && esc_ring_count(victim->ring) >= least) {
            count = esc_ring_steal(victim->ring, stolen, ESC_SHARED_TAKE_MAX);
        }
    }
    esc_mutex_unlock(&pool->lock);
    for (unsigned i = 1; i < count; i++) {
        bool pushed = esc_ring_push(worker->ring, stolen[i]);
        ESC_ASSERT(pushed); /* it was empty */
    }
    if (count > 1 && atomic_load_explicit(&pool->free, memory_order_relaxed) > 0) {
        esc_pool_kick(pool);
    }
    return count == 0 ? NULL : stolen[0];
}

static inline escqrs_actor *next_actor(esc_worker *worker)
{
    if (++worker->visit_count % SHARED_LOOK_EVERY == 0) {
        escqrs_actor *actor = take_shared(worker);
        if (actor != NULL) {
            return actor;
        }
    }
    escqrs_actor *actor = esc_ring_pop(worker->ring);
    if (actor != NULL) {
        return actor;
    }
    actor = take_shared(worker);
    return actor != NULL ? actor : steal(worker);
}

void esc_native_run(esc_worker *worker)
{
    escqrs_runtime *runtime = worker->pool->runtime;
    esc_pool_start_succeeded(worker->pool);
    do {
        esc_monitor_arm(runtime);
        bool licensed = true;
        while (licensed && !esc_runtime_is_stopping(runtime)) {
            escqrs_actor *actor = next_actor(worker);
            if (actor == NULL) {
                break;
            }
            licensed = esc_actor_work_native(worker, actor);
        }
    } while (esc_pool_await_licence(worker));
}

void esc_native_flush(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    for (escqrs_actor *actor = esc_ring_pop(worker->ring); actor != NULL;
         actor = esc_ring_pop(worker->ring)) {
        escqrs_actor *newest = atomic_load_explicit(&pool->shared, memory_order_relaxed);
        do {
            actor->next = newest;
            /* release: pairs with esc_pool_take_shared; who calls looks for free licences later,
             * under the lock */
        } while (!atomic_compare_exchange_weak_explicit(
            &pool->shared, &newest, actor, memory_order_release, memory_order_relaxed));
    }
}
