/* The monitor: one thread that takes the licence of a worker whose turn lasts longer than
 * takeover_ms, and gives it to another where others wait for it. Where none waits, the licence lies
 * free for the next that is sent; so a turn that waits for hours costs no more than an idle system.
 *
 * It ticks every takeover_ms while licences are out, and for ESC_MONITOR_QUIET_MS after, so that a
 * worker that goes to sleep and wakes up all the time does not wake the monitor each time. Then it
 * sleeps without a timer: nothing runs in an idle process. It starts with the first worker that
 * gets a licence.
 *
 * It also tries again what could not be done before: start a worker for work that waits.
 */
#include "runtime/ring.h"
#include "runtime/runtime.h"

#define NS_PER_MS INT64_C(1000000)

/* With the pool's lock held: take the licence if the worker is in the same turn as a tick ago. */
static void take_over(esc_pool *pool, esc_worker *worker, uint64_t turn)
{
    if ((turn & ESC_TURN_IN) == 0 || turn != worker->turn_seen || !esc_pool_may_start(pool)) {
        return;
    }
    if (pool->host == NULL) {
        /* relaxed: a hint, which the worker reads after its visit */
        atomic_store_explicit(&worker->lost, true, memory_order_relaxed);
    } else if (!atomic_compare_exchange_strong_explicit(&worker->turn, &turn, turn | ESC_TURN_LOST,
                                                        memory_order_acq_rel,
                                                        memory_order_relaxed)) {
        return; /* it has just come back; acq_rel pairs with esc_worker_enter and _count */
    }
    esc_pool_take_away(worker);
}

/* With the pool's lock held: take what is to be taken. True: something waits that needs a licence.
 */
static bool look_at_workers(esc_pool *pool)
{
    bool work = esc_pool_has_work(pool);
    for (esc_list_node *node = esc_list_first(&pool->workers); node != NULL;
         node = esc_list_next(&pool->workers, node)) {
        esc_worker *worker = ESC_CONTAINER_OF(node, esc_worker, in_pool);
        if (worker->licensed) {
            /* acquire: pairs with esc_worker_enter */
            uint64_t turn = atomic_load_explicit(&worker->turn, memory_order_acquire);
            take_over(pool, worker, turn);
            worker->turn_seen = turn;
        }
        work =
            work || (!worker->licensed && worker->ring != NULL && esc_ring_count(worker->ring) > 0);
    }
    return work;
}

/* True: nothing goes on here and nothing has since the last tick. */
static bool tick(esc_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    bool work = look_at_workers(pool);
    int free = atomic_load_explicit(&pool->free, memory_order_relaxed); /* written under the lock */
    bool quiet = !work && free == pool->licence_count && pool->grant_count == pool->grant_seen;
    pool->grant_seen = pool->grant_count;
    bool kick = work && free > 0;
    if (kick && pool->retry_left > 0) {
        pool->retry_left--;
        kick = false;
    }
    esc_mutex_unlock(&pool->lock);
    if (kick) {
        esc_pool_kick(pool);
    }
    return quiet;
}

static bool rests(esc_pool *pool)
{
    esc_mutex_lock(&pool->lock);
    /* written under the lock, by a seq_cst store before esc_monitor_arm looks at the monitor's
     * state */
    int free = atomic_load_explicit(&pool->free, memory_order_seq_cst);
    bool result = free == pool->licence_count && !esc_pool_has_work(pool);
    esc_mutex_unlock(&pool->lock);
    return result;
}

/* Does `look` say so of every pool? It is called for all. */
static bool of_all(escqrs_runtime *runtime, bool (*look)(esc_pool *pool))
{
    bool result = look(&runtime->native);
    esc_mutex_lock(&runtime->lock);
    escqrs_host *host = runtime->hosts;
    esc_mutex_unlock(&runtime->lock);
    for (; host != NULL; host = host->next) {
        bool one = look(&host->pool);
        result = result && one;
    }
    return result;
}

/* seq_cst in the change to ASLEEP and in the look at the licences after it: Dekker with
 * esc_monitor_arm, whose caller has taken one before. */
static void sleep_if_quiet(escqrs_runtime *runtime)
{
    uint32_t armed = ESC_MONITOR_ARMED;
    if (!atomic_compare_exchange_strong_explicit(&runtime->monitor_state, &armed,
                                                 ESC_MONITOR_ASLEEP, memory_order_seq_cst,
                                                 memory_order_seq_cst)) {
        return;
    }
    if (!of_all(runtime, rests)) {
        uint32_t asleep = ESC_MONITOR_ASLEEP;
        atomic_compare_exchange_strong_explicit(&runtime->monitor_state, &asleep, ESC_MONITOR_ARMED,
                                                memory_order_seq_cst, memory_order_seq_cst);
    }
}

static void monitor_main(void *context)
{
    escqrs_runtime *runtime = context;
    int64_t quiet_ns = 0;
    for (;;) {
        /* acquire: pairs with the release of whoever changed it */
        uint32_t state = atomic_load_explicit(&runtime->monitor_state, memory_order_acquire);
        if (state == ESC_MONITOR_STOP) {
            return;
        }
        if (state == ESC_MONITOR_ASLEEP) {
            esc_futex_wait(&runtime->monitor_state, state, ESC_DEADLINE_NEVER);
            quiet_ns = 0;
            continue;
        }
        esc_futex_wait(&runtime->monitor_state, state, esc_deadline_after(runtime->takeover_ns));
        quiet_ns = of_all(runtime, tick) ? quiet_ns + runtime->takeover_ns : 0;
        if (quiet_ns >= ESC_MONITOR_QUIET_MS * NS_PER_MS) {
            sleep_if_quiet(runtime);
            quiet_ns = 0;
        }
    }
}

void esc_monitor_arm_slowly(escqrs_runtime *runtime)
{
    uint32_t asleep = ESC_MONITOR_ASLEEP;
    if (!atomic_compare_exchange_strong_explicit(&runtime->monitor_state, &asleep,
                                                 ESC_MONITOR_ARMED, memory_order_seq_cst,
                                                 memory_order_relaxed)) {
        return;
    }
    escqrs_error error = {0};
    esc_mutex_lock(&runtime->lock);
    bool start = !runtime->monitor_started && !esc_runtime_is_stopping(runtime);
    if (start) {
        runtime->monitor_started = esc_thread_create(&runtime->monitor, "esc-monitor", 0,
                                                     monitor_main, runtime, &error) == ESCQRS_OK;
    }
    bool failed = start && !runtime->monitor_started;
    esc_mutex_unlock(&runtime->lock);
    if (!start) {
        esc_futex_wake(&runtime->monitor_state, 1);
    } else if (failed) {
        uint32_t armed = ESC_MONITOR_ARMED; /* whoever gets the next licence tries again */
        atomic_compare_exchange_strong_explicit(&runtime->monitor_state, &armed, ESC_MONITOR_ASLEEP,
                                                memory_order_seq_cst, memory_order_relaxed);
        if (!atomic_exchange_explicit(&runtime->start_failed, true, memory_order_relaxed)) {
            escqrs_log_write(&runtime->log, ESCQRS_LOG_ERROR,
                             "%s; a message that takes long delays all others", error.message);
        }
    }
}

void esc_monitor_stop(escqrs_runtime *runtime)
{
    atomic_store_explicit(&runtime->monitor_state, ESC_MONITOR_STOP, memory_order_seq_cst);
    esc_futex_wake(&runtime->monitor_state, 1);
    esc_mutex_lock(&runtime->lock);
    bool join = runtime->monitor_started;
    runtime->monitor_started = false;
    esc_mutex_unlock(&runtime->lock);
    if (join) {
        esc_thread_join(&runtime->monitor);
    }
}
