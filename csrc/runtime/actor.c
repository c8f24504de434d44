/* Actors: send, run, suspend and resume, references.
 *
 * mailbox.h has the states and the memory orders of the one word in which they are. The
 * transitions:
 *
 * - IDLE to BUSY by a push (escqrs_actor_send, _resume): acq_rel; the winner schedules.
 * - IDLE to BUSY by escqrs_actor_run and _visit: only with an empty mailbox; acquire; the winner
 *   runs it itself.
 * - SUSPENDED to BUSY by the push of `resume`: acq_rel; the winner schedules.
 * - BUSY, messages taken, by the thread that runs it (esc_mailbox_drain): acquire.
 * - BUSY to IDLE by come_to_rest, when mailbox and `pending` are empty: release.
 * - BUSY to SUSPENDED by come_to_rest, when the last turn said SUSPEND and no resume has come, or
 *   the actor is paused and no nudge has; the mailbox was looked through (it is empty at that
 *   moment; `pending` need not be): release.
 * - BUSY to CLOSED by come_to_rest, when the actor is closing and everything is empty: release.
 * - Any to the same and ORPHAN by escqrs_actor_release of the last reference: acq_rel.
 *
 * A resume is a message: actor->resume is pushed like others, so it cannot be missed by a
 * suspension that is just coming, and needs no state. `resume_sent` keeps it from being pushed
 * twice.
 *
 * Nudges. An actor system's signals are in queues of its own. A nudge says that there are some: a
 * message, too, which is found by whoever drains the mailbox and gives a turn before all messages,
 * also to an actor that is paused. `nudge_sent` keeps it from being pushed twice: it is cleared
 * when the nudge has come out of the mailbox, before its turn looks at the queues. While it is set
 * and the nudge is not here, each turn looks into the mailbox for it.
 *
 * References. Queues and threads that run an actor hold none, for that would cost two atomic
 * operations a visit: BUSY stands for it. Whoever drops `references` to 0 sets ORPHAN as its last
 * touch: found at rest, it destroys; found BUSY, the thread that runs the actor finds ORPHAN when
 * it wants to bring it to rest, and destroys. A handler may hold its own actor even at 0; it first
 * waits for the ORPHAN that this 0 sets, and takes it back: so at most one is ever under way.
 *
 * Destroying against a stop that wants the name of the actor that a worker is stuck in: a hazard
 * pointer, `described`.
 */
#include <escqrs/runtime.h>

#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cell.h"
#include "runtime/mailbox.h"
#include "runtime/ring.h"
#include "runtime/runtime.h"

_Thread_local esc_here esc_thread_here __attribute__((tls_model("initial-exec")));

/* The actor that a stop is describing: the only global. It is none of a runtime's, because actors
 * may outlive it. */
static _Atomic(escqrs_actor *) described;

/* ---- references ------------------------------------------------------------------------------- */

void escqrs_actor_init(escqrs_actor *actor, escqrs_runtime *runtime, escqrs_host *host,
                       const escqrs_actor_ops *ops)
{
    *actor = (escqrs_actor){
        .ops = ops,
        .host = host,
        .pool = host == NULL || runtime->manual ? &runtime->native : &host->pool,
    };
    atomic_init(&actor->mailbox, ESC_MAILBOX_IDLE);
    atomic_init(&actor->references, 1);
    atomic_init(&actor->resume_sent, false);
    atomic_init(&actor->nudge_sent, false);
}

escqrs_runtime *escqrs_actor_runtime(const escqrs_actor *actor)
{
    return actor->pool->runtime;
}

/* The thread that runs an actor without references takes the first one. */
static void take_orphan_back(escqrs_actor *actor)
{
    /* acquire: pairs with the release of the thread that dropped the last one; it is between two
     * instructions */
    while ((atomic_load_explicit(&actor->mailbox, memory_order_acquire) & ESC_MAILBOX_ORPHAN) ==
           0) {
        sched_yield();
    }
    atomic_fetch_and_explicit(&actor->mailbox, ~ESC_MAILBOX_ORPHAN, memory_order_relaxed);
}

void escqrs_actor_hold(escqrs_actor *actor)
{
    /* relaxed: whoever holds has been given the actor in an ordered way */
    uint32_t before = atomic_fetch_add_explicit(&actor->references, 1, memory_order_relaxed);
    if (__builtin_expect(before == 0, 0)) {
        take_orphan_back(actor);
    }
}

bool esc_actor_let_go(escqrs_actor *actor)
{
    /* acq_rel: the last one sees what all others did before they let go */
    uint32_t before = atomic_fetch_sub_explicit(&actor->references, 1, memory_order_acq_rel);
    ESC_ASSERT(before > 0);
    if (before > 1) {
        return false;
    }
    /* acq_rel: pairs with come_to_rest on both sides */
    uintptr_t word =
        atomic_fetch_or_explicit(&actor->mailbox, ESC_MAILBOX_ORPHAN, memory_order_acq_rel);
    return (word & ESC_MAILBOX_STATE) != ESC_MAILBOX_BUSY;
}

void escqrs_actor_release(escqrs_actor *actor)
{
    if (esc_actor_let_go(actor)) {
        esc_actor_destroy(actor);
    }
}

void esc_actor_destroy(escqrs_actor *actor)
{
    /* seq_cst fence: pairs with the one in esc_actor_describe_current. The worker cleared `current`
     * before it brought the actor to rest, which happened before this: so either the describer sees
     * that, or it is seen here. */
    atomic_thread_fence(memory_order_seq_cst);
    while (atomic_load_explicit(&described, memory_order_acquire) == actor) {
        sched_yield();
    }
    actor->ops->destroy(actor);
}

void esc_actor_describe_current(esc_pool *pool, esc_worker *worker, char *text, size_t size)
{
    escqrs_actor *actor = atomic_load_explicit(&worker->current, memory_order_acquire);
    text[0] = '\0';
    if (actor != NULL) {
        escqrs_actor *nobody = NULL;
        while (!atomic_compare_exchange_weak_explicit(&described, &nobody, actor,
                                                      memory_order_relaxed, memory_order_relaxed)) {
            nobody = NULL; /* another runtime's stop */
            sched_yield();
        }
        atomic_thread_fence(memory_order_seq_cst); /* pairs with esc_actor_destroy */
        if (atomic_load_explicit(&worker->current, memory_order_acquire) != actor) {
            atomic_store_explicit(&described, NULL, memory_order_release);
            actor = NULL; /* it has just come back */
        }
    }
    esc_mutex_unlock(&pool->lock);
    if (actor != NULL) {
        actor->ops->describe(actor, text, size);
        /* release: pairs with the acquire in esc_actor_destroy */
        atomic_store_explicit(&described, NULL, memory_order_release);
    }
}

/* ---- scheduling ------------------------------------------------------------------------------- */

void esc_actor_schedule(escqrs_actor *actor)
{
    esc_pool *pool = actor->pool;
    esc_worker *worker = esc_thread_here.worker;
    /* relaxed: a licence lost at this moment leaves the actor in a ring from which it will be
     * stolen */
    if (worker != NULL && worker->pool == pool && worker->ring != NULL &&
        !atomic_load_explicit(&worker->lost, memory_order_relaxed) &&
        esc_ring_push(worker->ring, actor)) {
        /* relaxed: a hint. One actor is this worker's own next turn; more may be shared. */
        if (esc_ring_count(worker->ring) > 1 &&
            atomic_load_explicit(&pool->free, memory_order_relaxed) > 0) {
            esc_pool_kick(pool);
        }
        return;
    }
    esc_pool_push(pool, actor);
}

void escqrs_actor_send(escqrs_actor *actor, escqrs_message *message)
{
    ESC_ASSERT(((uintptr_t)message & ESC_MAILBOX_FLAGS) == 0);
    esc_pushed pushed = esc_mailbox_push(actor, message, false);
    if (pushed == ESC_PUSHED_STARTS) {
        esc_actor_schedule(actor);
    }
    ESC_ASSERT(pushed != ESC_PUSHED_CLOSED); /* only an actor system closes, and sends otherwise */
}

bool esc_actor_nudge(escqrs_actor *actor)
{
    /* acq_rel: release pairs with next_turn, which then sees the signal; acquire pairs with its
     * release, after which `nudge` is free again */
    if (atomic_exchange_explicit(&actor->nudge_sent, true, memory_order_acq_rel)) {
        return true;
    }
    esc_pushed pushed = esc_mailbox_push(actor, &actor->nudge, true);
    if (pushed == ESC_PUSHED_STARTS) {
        esc_actor_schedule(actor);
    }
    if (pushed == ESC_PUSHED_CLOSED) {
        /* acq_rel: who was told that a nudge is on its way has pushed its signal before; the
         * caller sees it now */
        atomic_exchange_explicit(&actor->nudge_sent, false, memory_order_acq_rel);
        return false;
    }
    return true;
}

void esc_actor_reserve(escqrs_actor *actor)
{
    actor->nudge_again = true;
    /* relaxed: nobody else knows it yet */
    atomic_store_explicit(&actor->mailbox, ESC_MAILBOX_BUSY, memory_order_relaxed);
}

void esc_actor_unreserve(escqrs_actor *actor)
{
    atomic_store_explicit(&actor->mailbox, ESC_MAILBOX_IDLE, memory_order_relaxed);
}

void escqrs_actor_resume(escqrs_actor *actor)
{
    /* acq_rel: acquire pairs with next_turn's release, after which `resume` is free again; release
     * as for a push */
    if (atomic_exchange_explicit(&actor->resume_sent, true, memory_order_acq_rel)) {
        return;
    }
    if (esc_mailbox_push(actor, &actor->resume, true) == ESC_PUSHED_STARTS) {
        esc_actor_schedule(actor);
    }
}

escqrs_message *escqrs_actor_take(escqrs_actor *actor)
{
    if (actor->pending == NULL) {
        /* in any state, which stays; acquire: pairs with the pushes */
        uintptr_t word =
            atomic_fetch_and_explicit(&actor->mailbox, ESC_MAILBOX_FLAGS, memory_order_acquire);
        esc_mailbox_accept(actor, esc_mailbox_newest(word));
    }
    escqrs_message *message = actor->pending;
    if (message != NULL) {
        actor->pending = message->next;
    }
    return message;
}

bool escqrs_actor_is_idle(const escqrs_actor *actor)
{
    /* relaxed: a hint */
    return atomic_load_explicit(&actor->mailbox, memory_order_relaxed) == ESC_MAILBOX_IDLE;
}

escqrs_actor *escqrs_actor_current(void)
{
    return esc_thread_here.actor;
}

/* ---- turns ------------------------------------------------------------------------------------ */

/* A nudge is here, on its way, or due again: is it the next turn? */
static bool next_nudge(escqrs_actor *actor)
{
    if (!actor->nudge_here) {
        esc_mailbox_drain(actor);
    }
    if (actor->nudge_here) {
        actor->nudge_here = false;
        /* acq_rel: pairs with esc_actor_nudge on both sides */
        atomic_exchange_explicit(&actor->nudge_sent, false, memory_order_acq_rel);
    } else if (!actor->nudge_again) {
        return false;
    }
    actor->nudge_again = false;
    return true;
}

/* Suspended: has it been resumed? */
static bool next_resume(escqrs_actor *actor)
{
    if (!actor->resumed) {
        esc_mailbox_drain(actor);
        if (!actor->resumed) {
            return false;
        }
    }
    actor->waiting = false;
    actor->resumed = false;
    /* release: pairs with escqrs_actor_resume */
    atomic_store_explicit(&actor->resume_sent, false, memory_order_release);
    return true;
}

_Static_assert(offsetof(escqrs_actor, kept) == offsetof(escqrs_actor, waiting) + 7,
               "eight flags are read at once");

/* Any of them is set: there may be more to do than to hand a message over. */
static inline bool has_flags(const escqrs_actor *actor)
{
    uint64_t flags;
    memcpy(&flags, &actor->waiting, sizeof flags);
    return flags != 0;
}

typedef enum turn_kind {
    TURN_NONE,  /* there is nothing for it to do now */
    TURN_PLAIN, /* a message, and no flag is set */
    TURN_OTHER, /* a nudge, after a resume, or a message that may need a look */
} turn_kind;

/* The oldest message. */
static inline bool next_message(escqrs_actor *actor, escqrs_message **message)
{
    if (actor->pending == NULL) {
        esc_mailbox_drain(actor);
        if (actor->pending == NULL) {
            return false;
        }
    }
    *message = actor->pending;
    actor->pending = (*message)->next;
    return true;
}

/* Apart, for it is rare. */
static __attribute__((noinline)) turn_kind next_other(escqrs_actor *actor, escqrs_message **message)
{
    if (actor->waiting) {
        *message = NULL;
        return next_resume(actor) ? TURN_OTHER : TURN_NONE;
    }
    if (next_nudge(actor)) {
        *message = &actor->nudge;
        return TURN_OTHER;
    }
    return !actor->paused && next_message(actor, message) ? TURN_OTHER : TURN_NONE;
}

/* The thread that runs the actor: its next turn, if there is one now. */
static inline turn_kind next_turn(escqrs_actor *actor, escqrs_message **message)
{
    /* relaxed: a look; the nudge itself comes with the mailbox */
    if (__builtin_expect(has_flags(actor), 0) ||
        __builtin_expect(atomic_load_explicit(&actor->nudge_sent, memory_order_relaxed), 0)) {
        return next_other(actor, message);
    }
    /* what comes out of the mailbox with it and sets flags has its turn after it */
    return next_message(actor, message) ? TURN_PLAIN : TURN_NONE;
}

/* Have its next turn; false: there is none now. Inlined, as what an actor of a system does with a
 * plain message is into it: what is done for every message counts. */
static inline __attribute__((always_inline)) bool run_next(escqrs_actor *actor)
{
    escqrs_message *message;
    turn_kind next = next_turn(actor, &message);
    if (next == TURN_NONE) {
        return false;
    }
    escqrs_turn_end end = next == TURN_PLAIN && __builtin_expect(actor->ops == &esc_cell_ops, 1)
                              ? esc_cell_handle(esc_cell_of(actor), (escqrs_envelope *)message)
                              : actor->ops->receive(actor, message);
    if (end == ESCQRS_TURN_SUSPEND) {
        actor->waiting = true;
    }
    return true;
}

/* Let go of the actor where it has nothing to do: true, and it is not to be touched any more.
 * False: it has. */
static inline bool come_to_rest(escqrs_actor *actor, esc_worker *worker)
{
    uintptr_t rest = ESC_MAILBOX_IDLE;
    if (__builtin_expect(actor->waiting, 0)) {
        if (actor->resumed) {
            return false;
        }
        rest = ESC_MAILBOX_SUSPENDED;
    } else {
        if (actor->nudge_again || actor->nudge_here || (!actor->paused && actor->pending != NULL)) {
            return false;
        }
        if (__builtin_expect(actor->paused || actor->closing, 0)) {
            rest = actor->paused ? ESC_MAILBOX_SUSPENDED : ESC_MAILBOX_CLOSED;
        }
    }
    if (worker != NULL) {
        /* relaxed: the release below covers it; see esc_actor_destroy */
        atomic_store_explicit(&worker->current, NULL, memory_order_relaxed);
    }
    uintptr_t word = ESC_MAILBOX_BUSY;
    /* release: pairs with the acquire of whoever takes the actor next. Failing, acquire: pairs with
     * the release that set ORPHAN, so that destroy sees what others did with the actor. */
    if (atomic_compare_exchange_strong_explicit(&actor->mailbox, &word, rest, memory_order_release,
                                                memory_order_acquire)) {
        if (__builtin_expect(rest == ESC_MAILBOX_CLOSED, 0)) {
            esc_cell_closed(actor);
        }
        return true;
    }
    if (esc_mailbox_newest(word) != NULL) {
        if (worker != NULL) {
            atomic_store_explicit(&worker->current, actor, memory_order_release);
        }
        return false;
    }
    ESC_ASSERT(word == (ESC_MAILBOX_BUSY | ESC_MAILBOX_ORPHAN));
    esc_actor_destroy(actor);
    return true;
}

bool escqrs_actor_run(escqrs_actor *actor, escqrs_message *message)
{
    if (esc_thread_here.run_depth >= ESCQRS_RUN_DEPTH_MAX) {
        return false;
    }
    uintptr_t word = ESC_MAILBOX_IDLE;
    /* acquire: pairs with the release of come_to_rest in the thread that ran it last */
    if (!atomic_compare_exchange_strong_explicit(&actor->mailbox, &word, ESC_MAILBOX_BUSY,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return false;
    }
    escqrs_actor *outer = esc_thread_here.actor; /* the thread may be inside another one */
    esc_thread_here.actor = actor;
    esc_thread_here.run_depth++;
    if (actor->ops->receive(actor, message) == ESCQRS_TURN_SUSPEND) {
        actor->waiting = true;
    }
    esc_thread_here.run_depth--;
    esc_thread_here.actor = outer;
    if (!come_to_rest(actor, NULL)) {
        esc_actor_schedule(actor);
    }
    return true;
}

bool escqrs_actor_visit(escqrs_actor *actor, void (*visit)(escqrs_actor *actor, void *context),
                        void *context)
{
    uintptr_t word = ESC_MAILBOX_IDLE;
    /* acquire: as in escqrs_actor_run */
    if (!atomic_compare_exchange_strong_explicit(&actor->mailbox, &word, ESC_MAILBOX_BUSY,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return false;
    }
    visit(actor, context);
    if (!come_to_rest(actor, NULL)) {
        esc_actor_schedule(actor);
    }
    return true;
}

/* ---- a worker's visit ------------------------------------------------------------------------- */

/* Host: inside [enter, leave] the licence can be lost, and nothing that belongs to its holder is
 * touched. Native: the count is for the monitor only, and the licence is a hint. Inlined: one for
 * each. */
static inline __attribute__((always_inline)) bool work(esc_worker *worker, escqrs_actor *actor,
                                                       bool hosted)
{
    escqrs_runtime *runtime = worker->pool->runtime;
    unsigned left = runtime->batch_max;
    bool licensed = true;
    uint64_t turn = esc_worker_enter(worker);
    /* release: pairs with the describer's acquire */
    atomic_store_explicit(&worker->current, actor, memory_order_release);

    for (bool rests = false; !rests;) {
        esc_thread_here.actor = actor;
        bool stay = true;
        while (stay && run_next(actor)) {
            left--;
            licensed = hosted ? licensed && esc_worker_count(worker, &turn, ESC_TURN_STEP)
                              : !atomic_load_explicit(&worker->lost, memory_order_relaxed);
            stay = left > 0 && licensed && !esc_runtime_is_stopping(runtime);
        }
        esc_thread_here.actor = NULL;
        /* what arrived is looked at by whoever takes the actor next; only a mailbox empty now lets
         * it rest */
        rests = come_to_rest(actor, worker);
        if (!rests && !stay) {
            atomic_store_explicit(&worker->current, NULL, memory_order_relaxed);
            esc_actor_schedule(actor);
            break;
        }
    }
    worker->handled += runtime->batch_max - left;
    if (hosted) {
        return licensed && esc_worker_count(worker, &turn, ESC_TURN_LEAVE);
    }
    atomic_store_explicit(&worker->turn, turn + ESC_TURN_LEAVE, memory_order_release);
    return !atomic_load_explicit(&worker->lost, memory_order_relaxed);
}

bool esc_actor_work_hosted(esc_worker *worker, escqrs_actor *actor)
{
    return work(worker, actor, true);
}

bool esc_actor_work_native(esc_worker *worker, escqrs_actor *actor)
{
    return work(worker, actor, false);
}

void esc_actor_work_manual(escqrs_actor *actor)
{
    escqrs_actor *outer = esc_thread_here.actor; /* the thread may be inside another one */
    for (bool done = false; !done;) {
        esc_thread_here.actor = actor;
        done = run_next(actor);
        esc_thread_here.actor = outer;
        if (!done && come_to_rest(actor, NULL)) {
            return;
        }
    }
    if (!come_to_rest(actor, NULL)) {
        esc_actor_schedule(actor);
    }
}

bool esc_actor_park(escqrs_actor *actor)
{
    /* BUSY and SUSPENDED are one bit each, both flip; acq_rel: pairs with the last release and the
     * pushes */
    uintptr_t word = atomic_fetch_xor_explicit(
        &actor->mailbox, ESC_MAILBOX_BUSY | ESC_MAILBOX_SUSPENDED, memory_order_acq_rel);
    ESC_ASSERT((word & ESC_MAILBOX_STATE) == ESC_MAILBOX_BUSY);
    return (word & ESC_MAILBOX_ORPHAN) != 0;
}
