/* Hosts, and the workers that run their actors.
 *
 * A host's pool has one licence. Its holder attaches, takes what was pushed, runs it, and detaches
 * before it gives the licence back or sleeps. `first` is the holder's, outside of turns: inside a
 * turn (esc_worker_enter) the monitor may pass the licence on, by a compare-and-swap on
 * esc_worker.turn that fails as soon as the turn is over. While a worker waits in attach() it is in
 * no turn, so it keeps the licence and no second one joins it there.
 */
#include <escqrs/runtime.h>

#include "runtime/runtime.h"

escqrs_status escqrs_host_create(escqrs_runtime *runtime, const escqrs_host_ops *ops, void *context,
                                 escqrs_host **host, escqrs_error *error)
{
    escqrs_host *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making a host");
    }
    made->ops = ops;
    made->context = context;
    esc_pool_init(&made->pool, runtime, made, 1, esc_host_run);

    esc_mutex_lock(&runtime->lock);
    bool stopping = esc_runtime_is_stopping(runtime);
    if (!stopping) {
        made->next = runtime->hosts;
        runtime->hosts = made;
    }
    esc_mutex_unlock(&runtime->lock);
    if (stopping) {
        esc_host_destroy(made);
        return escqrs_error_set(error, ESCQRS_CLOSED, "the runtime is stopped");
    }
    *host = made;
    return ESCQRS_OK;
}

void esc_host_destroy(escqrs_host *host)
{
    esc_pool_fini(&host->pool);
    escqrs_free(host);
}

void *escqrs_host_detach(escqrs_host *host)
{
    return host == NULL ? NULL : host->ops->detach(host->context);
}

void escqrs_host_attach(escqrs_host *host, void *state)
{
    if (host != NULL) {
        host->ops->attach(host->context, state);
    }
}

void escqrs_host_poke(escqrs_host *host)
{
    esc_pool *pool = &host->pool;
    /* seq_cst: stands before the load of `free`, as a push does */
    if (atomic_exchange_explicit(&pool->poked, true, memory_order_seq_cst) ||
        pool->runtime->manual) {
        return;
    }
    if (atomic_load_explicit(&pool->free, memory_order_seq_cst) > 0) {
        esc_pool_kick(pool);
    }
}

/* The holder of the licence, outside of a turn. */
static escqrs_actor *next_actor(esc_pool *pool)
{
    /* relaxed: the licence changes hands with the pool's lock */
    escqrs_actor *actor = atomic_load_explicit(&pool->first, memory_order_relaxed);
    if (actor == NULL) {
        escqrs_actor *newest;
        actor = esc_pool_take_shared(pool, &newest);
    }
    if (actor != NULL) {
        atomic_store_explicit(&pool->first, actor->next, memory_order_relaxed);
    }
    return actor;
}

/* False: the licence is gone. It is the author's code, so it counts as a turn. */
static bool after_batch(esc_worker *worker, bool licensed)
{
    escqrs_host *host = worker->pool->host;
    if (host->ops->after_batch == NULL) {
        return licensed;
    }
    if (!licensed) {
        host->ops->after_batch(host->context);
        return false;
    }
    uint64_t turn = esc_worker_enter(worker);
    host->ops->after_batch(host->context);
    return esc_worker_count(worker, &turn, ESC_TURN_LEAVE);
}

/* Attached: until there is nothing to do, the licence is gone, or the runtime stops. */
static void run_attached(esc_worker *worker)
{
    esc_pool *pool = worker->pool;
    uint64_t batch_start = worker->handled;
    bool licensed = true;
    while (licensed && !esc_runtime_is_stopping(pool->runtime)) {
        escqrs_actor *actor = next_actor(pool);
        if (actor == NULL) {
            break;
        }
        licensed = esc_actor_work_hosted(worker, actor);
        if (worker->handled - batch_start >= ESC_HOST_BATCH_MAX) {
            licensed = after_batch(worker, licensed);
            batch_start = worker->handled;
        }
    }
    /* acq_rel: pairs with escqrs_host_poke; a poke after it is seen when the licence is given back
     */
    bool poked = licensed && atomic_exchange_explicit(&pool->poked, false, memory_order_acq_rel);
    if (poked || worker->handled != batch_start) {
        after_batch(worker, licensed);
    }
}

void esc_host_run(esc_worker *worker)
{
    escqrs_host *host = worker->pool->host;
    escqrs_runtime *runtime = worker->pool->runtime;
    worker->state = host->ops->thread_begin(host->context);
    if (worker->state == NULL) {
        if (!esc_runtime_is_stopping(runtime)) {
            escqrs_error error = {0};
            escqrs_status status = escqrs_error_set(
                &error, ESCQRS_NO_MEMORY, "a worker thread could not enter the interpreter");
            (void)status; /* known */
            esc_pool_start_failed(worker->pool, &error);
        }
        return;
    }
    esc_pool_start_succeeded(worker->pool);
    do {
        esc_monitor_arm(runtime);
        host->ops->attach(host->context, worker->state);
        run_attached(worker);
        worker->state = host->ops->detach(host->context);
    } while (esc_pool_await_licence(worker));
    host->ops->thread_end(host->context, worker->state);
}
