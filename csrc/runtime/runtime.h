/* What the files of this folder share: workers, pools, the runtime, and what a thread knows of
 * itself.
 *
 * Threads. A *pool* is a group of workers with a fixed number of *licences*: a host has one (the
 * public header calls it the token), the native actors have as many as there are cores. A worker
 * runs actors only while it has a licence. It gives it up when there is no work, when it blocks, or
 * when the monitor takes it away because one turn lasts too long. The *monitor* is one thread of
 * the runtime that ticks while something is going on and sleeps without a timer otherwise.
 *
 * Locks, in the order they are taken; none is held while a callback runs:
 * - first esc_pool.lock: who sleeps, who has a licence;
 * - then escqrs_runtime.lock: counts of workers, list of hosts, start and end of threads;
 * - alone, never with another: the lock of the waits, one for the process (waits.c).
 */
#ifndef ESC_RUNTIME_RUNTIME_H
#define ESC_RUNTIME_RUNTIME_H

#include <escqrs/runtime.h>

#include <stdatomic.h>

#include "base/list.h"
#include "base/thread.h"

#define ESC_CACHE_LINE 64
#define ESC_WORKER_COUNT_MAX_DEFAULT 256
#define ESC_BATCH_MAX_DEFAULT 64
#define ESC_TAKEOVER_MS_DEFAULT 5
#define ESC_HOST_BATCH_MAX 256    /* messages between two calls of after_batch */
#define ESC_POOL_IDLE_MAX 4       /* workers kept asleep beyond the number of licences */
#define ESC_MONITOR_QUIET_MS 50   /* of quiet before the monitor's timer stops */
#define ESC_MONITOR_RETRY_MAX 200 /* ticks between two tries to start a worker */
#define ESC_RING_SIZE 1024        /* actors in a native worker's own queue; a power of two */
#define ESC_SHARED_TAKE_MAX 64    /* actors taken from the shared queue at once */

typedef struct esc_worker esc_worker;
typedef struct esc_ring esc_ring;

/* ---- pool ------------------------------------------------------------------------------------- */

typedef struct esc_pool {
    escqrs_runtime *runtime;
    escqrs_host *host;               /* NULL: native */
    void (*run)(esc_worker *worker); /* a worker thread, from its first licence to its end */
    int licence_count;

    /* Senders write. */
    _Atomic(escqrs_actor *) shared; /* actors pushed by other threads, newest first */
    _Atomic(bool) poked;            /* host: an after_batch was asked for */

    /* Licences not given out. Dekker with `shared` and `poked`: who adds work looks here
     * afterwards, who gives a licence back looks there afterwards, all seq_cst, so that one of them
     * sees the other. */
    _Atomic(int) free;

    /* Taken from `shared`, oldest first. Host: written by the holder of the licence outside of a
     * turn. Native and manual: guarded by `lock`. Everybody else may look whether it is NULL. */
    _Atomic(escqrs_actor *) first;
    escqrs_actor *last; /* native and manual; valid while `first` is not NULL */
    size_t count;       /* manual */

    esc_mutex lock;
    /* The rest is guarded by `lock`. */
    esc_list workers;  /* esc_worker.in_pool */
    esc_list sleepers; /* esc_worker.asleep, the last to fall asleep first */
    int worker_count;
    int blocked_count;
    int sleeper_count;
    uint64_t grant_count; /* licences ever given out */
    uint64_t grant_seen;  /* the monitor's */
    unsigned retry_wait;  /* ticks until the monitor tries again to start a worker; doubles */
    unsigned retry_left;
} esc_pool;

struct escqrs_host {
    esc_pool pool;
    const escqrs_host_ops *ops;
    void *context;
    escqrs_host *next; /* in the runtime's list; does not change */
};

/* ---- worker ----------------------------------------------------------------------------------- */

/* esc_worker.turn: a count of messages (host) or visits (native), and: */
#define ESC_TURN_IN UINT64_C(1)   /* in an actor's code */
#define ESC_TURN_LOST UINT64_C(2) /* the licence is gone (host) */
#define ESC_TURN_STEP UINT64_C(4)
#define ESC_TURN_LEAVE (ESC_TURN_STEP - ESC_TURN_IN)

#define ESC_WAKE_NONE 0u
#define ESC_WAKE_LICENCE 1u
#define ESC_WAKE_STOP 2u

struct esc_worker {
    /* The worker writes, often. */
    _Atomic(uint64_t) turn;          /* see host.c and native.c */
    _Atomic(escqrs_actor *) current; /* the actor it visits; cleared before it lets go (actor.c) */
    uint64_t handled;                /* messages, after each visit; the worker's alone */
    esc_ring *ring;                  /* native: its own queue */
    esc_pool *pool;
    unsigned block_depth; /* the worker's alone */
    unsigned visit_count; /* native: the worker's alone */
    void *state;          /* host: what detach returned; the worker's alone */
    void *spare;          /* blocks of cells that are gone, for the next ones (cell.c); its own */
    unsigned spare_count;
    _Atomic(bool) lost;     /* native: the licence is gone; read without lock */
    _Atomic(uint32_t) wake; /* futex, ESC_WAKE_* */

    /* Guarded by the pool's lock. */
    esc_list_node in_pool;
    esc_list_node asleep;
    bool licensed;
    bool blocked;
    uint64_t turn_seen; /* the monitor's */
};

/* What a thread knows of itself; zero in a thread that is no worker. The model: a shared library
 * would call a function for each access otherwise, on the path of every send. */
typedef struct esc_here {
    esc_worker *worker;
    escqrs_actor *actor; /* whose message it handles, the innermost */
    unsigned run_depth;  /* of escqrs_actor_run */
} esc_here;

extern _Thread_local esc_here esc_thread_here __attribute__((tls_model("initial-exec")));

/* ---- runtime ---------------------------------------------------------------------------------- */

/* escqrs_runtime.monitor_state, a futex */
#define ESC_MONITOR_ASLEEP 0u
#define ESC_MONITOR_ARMED 1u
#define ESC_MONITOR_STOP 2u

struct escqrs_runtime {
    esc_pool native;
    unsigned batch_max;
    int worker_count_max;
    int64_t takeover_ns;
    bool manual;
    escqrs_random random;
    escqrs_log log;

    _Atomic(bool) stopping; /* written under `lock`; read everywhere */
    _Atomic(uint32_t) monitor_state;
    _Atomic(bool) start_failed; /* a failure to start a thread was logged; until one starts */

    esc_mutex lock;
    esc_cond worker_ended;
    /* The rest is guarded by `lock`. */
    escqrs_host *hosts;
    int worker_count;  /* threads that have not ended */
    int blocked_count; /* of these, in escqrs_runtime_block */
    bool has_ended;    /* `ended` is to be joined */
    esc_thread ended;  /* the worker that ended last; it joins the one before */
    bool monitor_started;
    esc_thread monitor;
    bool parked;           /* a stop has answered OK */
    escqrs_actor *orphans; /* parked and without a reference; destroyed with the runtime */
};

/* What chance is for an actor of it: as given or, where that is zero, a manual runtime's own. */
static inline const escqrs_random *esc_runtime_random(const escqrs_runtime *self,
                                                      const escqrs_random *given)
{
    return given->fill == NULL && self->manual ? &self->random : given;
}

/* ---- actor.c ---------------------------------------------------------------------------------- */

/* Handle up to batch_max messages of an actor that came from a queue; puts it back where more are
 * left. False: the worker has no licence any more. */
bool esc_actor_work_hosted(esc_worker *worker, escqrs_actor *actor);
bool esc_actor_work_native(esc_worker *worker, escqrs_actor *actor);
/* The manual runtime's: one message. */
void esc_actor_work_manual(escqrs_actor *actor);
/* Nobody will run this queued actor: let go of it. True: it has no reference left and is the
 * caller's to destroy. */
bool esc_actor_park(escqrs_actor *actor);
void esc_actor_destroy(escqrs_actor *actor);
/* As escqrs_actor_release; true: it was the last one, and the caller destroys the actor. */
bool esc_actor_let_go(escqrs_actor *actor);
/* Give it a turn before all messages, in which `receive` gets &actor->nudge. False: it is closed.
 */
bool esc_actor_nudge(escqrs_actor *actor);
/* The actor is BUSY and the caller's to pass on: it runs soon. */
void esc_actor_schedule(escqrs_actor *actor);
/* A first turn that is a nudge, instead of sending one. Reserve, or take it back, while nobody else
 * knows the actor; then, whatever has been sent to it meanwhile, schedule it. */
void esc_actor_reserve(escqrs_actor *actor);
void esc_actor_unreserve(escqrs_actor *actor);
/* The name of the actor that the worker visits, empty for one that has none; the pool's lock is
 * held on entry and released. */
void esc_actor_describe_current(esc_pool *pool, esc_worker *worker, char *text, size_t size);

/* The licensed worker goes into code that may not come back soon; returns the `turn` for
 * esc_worker_count. */
static inline uint64_t esc_worker_enter(esc_worker *worker)
{
    /* relaxed: while it is not IN nobody else writes it */
    uint64_t turn = atomic_load_explicit(&worker->turn, memory_order_relaxed);
    turn = (turn + ESC_TURN_STEP) | ESC_TURN_IN;
    /* release: pairs with the monitor's acquire. What the holder of the licence wrote to the pool
     * goes over to whoever gets the licence next. */
    atomic_store_explicit(&worker->turn, turn, memory_order_release);
    return turn;
}

/* Host: count a message, or (ESC_TURN_LEAVE) come out. False: the licence was taken away meanwhile,
 * or given up. */
static inline bool esc_worker_count(esc_worker *worker, uint64_t *turn, uint64_t step)
{
    /* release pairs with the monitor's acquire; acquire, so that nothing of the pool is touched
     * before */
    if (atomic_compare_exchange_strong_explicit(&worker->turn, turn, *turn + step,
                                                memory_order_acq_rel, memory_order_acquire)) {
        *turn += step;
        return true;
    }
    return false;
}

/* ---- runtime.c -------------------------------------------------------------------------------- */

/* The name of an actor that a worker is inside at this moment, of one that has been for long if
 * there is any; false: there is none. */
bool esc_runtime_name_busy(escqrs_runtime *runtime, char *text, size_t size);

/* ---- pool.c ----------------------------------------------------------------------------------- */

void esc_pool_init(esc_pool *pool, escqrs_runtime *runtime, escqrs_host *host, int licence_count,
                   void (*run)(esc_worker *worker));
void esc_pool_fini(esc_pool *pool);
/* Add an actor that is due to run; wakes or starts a worker where a licence is free. */
void esc_pool_push(esc_pool *pool, escqrs_actor *actor);
/* Give a free licence to a worker: one that sleeps, or a new one. Does nothing when none is free.
 * False: none could be started, and all that there are block. */
bool esc_pool_kick(esc_pool *pool);
/* Take all of `shared`, oldest first, linked by next. */
escqrs_actor *esc_pool_take_shared(esc_pool *pool, escqrs_actor **newest);
bool esc_pool_has_work(esc_pool *pool);
/* Give up the licence if the worker still has it, and wait for one. False: the worker is to end.
 * Called detached. */
bool esc_pool_await_licence(esc_worker *worker);
/* With the lock held: the worker has no licence any more. */
void esc_pool_take_away(esc_worker *worker);
bool esc_pool_may_start(esc_pool *pool); /* with the lock held: kick would find or start a worker */
void esc_pool_wake_all(esc_pool *pool);  /* when stopping */
/* A worker could not be started, or its thread could not begin; or it did. */
void esc_pool_start_failed(esc_pool *pool, const escqrs_error *error);
void esc_pool_start_succeeded(esc_pool *pool);

/* ---- native.c, host.c, monitor.c -------------------------------------------------------------- */

void esc_native_run(esc_worker *worker);
void esc_native_flush(
    esc_worker *worker); /* its own queue to the shared one, without waking anybody */
void esc_host_run(esc_worker *worker);
void esc_host_destroy(escqrs_host *host);

void esc_monitor_arm_slowly(escqrs_runtime *runtime);
void esc_monitor_stop(escqrs_runtime *runtime); /* joins it */

/* A worker that has got a licence calls it before it runs anything. */
static inline void esc_monitor_arm(escqrs_runtime *runtime)
{
    /* seq_cst: Dekker with the monitor, which says ASLEEP and then looks whether a licence is out
     */
    if (atomic_load_explicit(&runtime->monitor_state, memory_order_seq_cst) == ESC_MONITOR_ASLEEP) {
        esc_monitor_arm_slowly(runtime);
    }
}

static inline bool esc_runtime_is_stopping(escqrs_runtime *runtime)
{
    /* acquire: pairs with the release in escqrs_runtime_stop; no data depends on it */
    return atomic_load_explicit(&runtime->stopping, memory_order_acquire);
}

#endif
