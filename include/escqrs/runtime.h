/* escqrs/runtime.h - actors: mailboxes, and the worker threads that run them.
 *
 * An actor handles one message at a time, on at most one thread at a time; different actors are
 * independent. Messages of one sender arrive in the order sent. Nothing polls: an idle runtime uses
 * no CPU.
 *
 * Hosts. Actors whose code needs an interpreter share a *host*. At most one worker runs a host's
 * actors (it holds the host's token), attached once for many messages. When that worker stays in
 * one message for longer than `takeover_ms`, or says that it blocks (escqrs_runtime_block), another
 * worker takes the token and goes on with the rest; the old one finishes its message and finds the
 * token gone. Actors without a host (native) run on any worker.
 *
 * Who may call: every function, from any thread, unless its comment says otherwise. No callback is
 * made under a lock of the runtime.
 */
#ifndef ESCQRS_RUNTIME_H
#define ESCQRS_RUNTIME_H

#include <escqrs/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct escqrs_runtime escqrs_runtime;
typedef struct escqrs_host escqrs_host;
typedef struct escqrs_actor escqrs_actor;

/* Begins every message. Whoever sends hands it over; the actor's `receive` owns it. Aligned to 8
 * bytes: the mailbox uses the low bits of its address. */
#define ESCQRS_MESSAGE_ALIGNMENT 8
typedef struct escqrs_message {
    struct escqrs_message *next; /* the mailbox's */
} __attribute__((aligned(ESCQRS_MESSAGE_ALIGNMENT))) escqrs_message;

/* ---- host ------------------------------------------------------------------------------------- */

typedef struct escqrs_host_ops {
    /* In a new worker thread, before anything else of the host; detached. What it returns is that
     * thread's state (NULL: the worker ends). `thread_end` in the same thread; detached. */
    void *(*thread_begin)(void *context);
    void (*thread_end)(void *context, void *state);
    /* Enter and leave the interpreter. `detach` returns the state that the same thread gives to
     * `attach`. */
    void (*attach)(void *context, void *state);
    void *(*detach)(void *context);
    /* After a batch, attached: a place to release what piled up. May be NULL. Mostly on the worker
     * that holds the token; one that lost it calls it once more before it leaves. */
    void (*after_batch)(void *context);
} escqrs_host_ops;

/* ---- actor ------------------------------------------------------------------------------------ */

typedef enum escqrs_turn_end {
    ESCQRS_TURN_NEXT = 0, /* ready for the next message */
    /* no further message until escqrs_actor_resume (which may have come already) */
    ESCQRS_TURN_SUSPEND = 1,
    ESCQRS_TURN_FAILED = 2, /* of actors of an actor system only, see actor.h */
} escqrs_turn_end;

typedef struct escqrs_actor_ops {
    /* Handle one message. Runs on a worker or, by escqrs_actor_run, on a caller's thread; attached
     * where the actor has a host. `message` is NULL for the turn that follows a resume: a place to
     * go on with what was suspended. */
    escqrs_turn_end (*receive)(escqrs_actor *actor, escqrs_message *message);
    /* The last reference is gone; no thread runs the actor. Attached only if the releaser was;
     * where the last release came while the actor was queued or running, its thread destroys it
     * after its last message (a host's worker: attached), or escqrs_runtime_destroy does. Messages
     * never handled are found with escqrs_actor_take. */
    void (*destroy)(escqrs_actor *actor);
    /* A name for people, e.g. "Cart/cart-1", written to `text`; any thread. */
    void (*describe)(const escqrs_actor *actor, char *text, size_t size);
} escqrs_actor_ops;

/* Embedded first in the owner's struct. Fields are the runtime's (csrc/runtime/actor.c explains
 * them). */
struct escqrs_actor {
    /* Within one cache line, where it begins one: all that a message touches. */
    const escqrs_actor_ops *ops;
    struct esc_pool *pool;            /* whose workers run it */
    ESCQRS_ATOMIC(uintptr_t) mailbox; /* newest message and, in the low bits, the state */
    escqrs_message *pending;      /* taken from the mailbox, oldest first; the running thread's */
    escqrs_message *pending_last; /* valid while `pending` is not NULL; the running thread's */
    bool waiting;                 /* the last turn ended with SUSPEND; the running thread's */
    bool paused;                  /* no messages but nudges are handled; the running thread's */
    bool nudge_here;              /* `nudge` has arrived; the running thread's */
    bool nudge_again;             /* another nudge turn is due; the running thread's */
    bool resumed;                 /* `resume` has arrived; the running thread's */
    bool closing;                 /* close the mailbox when it is empty; the running thread's */
    bool slow;                    /* an actor system's (cell.h); the running thread's */
    bool kept;                    /* the same */
    /* Atomics stay apart from the flags, which are read at once. */
    ESCQRS_ATOMIC(uint32_t) references;
    ESCQRS_ATOMIC(bool) resume_sent; /* `resume` is on its way or not yet used up */
    ESCQRS_ATOMIC(bool) nudge_sent;  /* `nudge` is on its way */
    escqrs_actor *next;              /* in a run queue */

    escqrs_host *host;     /* NULL: native */
    escqrs_message resume; /* stands in the mailbox for escqrs_actor_resume */
    escqrs_message nudge;  /* stands in the mailbox for a signal */
    uintptr_t waits_for;   /* guarded by the lock of the waits, waits.c */
};

typedef struct escqrs_runtime_options {
    unsigned worker_count_max; /* workers that may exist because others stay away; 0: 256. Workers
                                  that said that they block do not count */
    unsigned native_worker_count; /* 0: the number of cores */
    unsigned batch_max;           /* messages of one actor before it yields; 0: 64 */
    unsigned takeover_ms;         /* 0: 5 */
    bool manual;                  /* no threads; escqrs_runtime_step runs one message (tests) */
    escqrs_random random;         /* manual: picks who runs next; zero: first come, first served */
    escqrs_clock clock;
    escqrs_log log;
} escqrs_runtime_options;

ESCQRS_MUST_USE escqrs_status escqrs_runtime_create(const escqrs_runtime_options *options,
                                                    escqrs_runtime **runtime, escqrs_error *error);
/* Workers finish the message they are in and end; messages not yet handled stay in their mailboxes
 * (escqrs_actor_take). Waits for the workers until the deadline (monotonic ns; INT64_MAX: for
 * ever); TIMEOUT names the actor that did not come back (its worker is left alone, and the runtime
 * must then not be destroyed; calling it again waits again). Call it detached. DEADLOCK on a worker
 * of this runtime. */
ESCQRS_MUST_USE escqrs_status escqrs_runtime_stop(escqrs_runtime *runtime, int64_t deadline_ns,
                                                  escqrs_error *error);
/* After a stop that answered OK; NULL is fine. Nothing may be sent afterwards; actors may be
 * released. */
void escqrs_runtime_destroy(escqrs_runtime *runtime);

/* `context` is handed to every function of `ops`. Belongs to the runtime, dies with it. Threads of
 * a host start when there is work for them. */
ESCQRS_MUST_USE escqrs_status escqrs_host_create(escqrs_runtime *runtime,
                                                 const escqrs_host_ops *ops, void *context,
                                                 escqrs_host **host, escqrs_error *error);
/* Leave and enter the host's interpreter on the calling thread, which must be attached. host NULL:
 * nothing. */
void *escqrs_host_detach(escqrs_host *host);
void escqrs_host_attach(escqrs_host *host, void *state);
/* Ask for an `after_batch` soon, on a worker, though no actor has a message. */
void escqrs_host_poke(escqrs_host *host);

/* One reference for the caller. */
void escqrs_actor_init(escqrs_actor *actor, escqrs_runtime *runtime, escqrs_host *host,
                       const escqrs_actor_ops *ops);
escqrs_runtime *escqrs_actor_runtime(const escqrs_actor *actor);
void escqrs_actor_hold(escqrs_actor *actor);
void escqrs_actor_release(escqrs_actor *actor);

/* Put the message into the mailbox; the actor runs soon. Never blocks. The sender holds a
 * reference. Where no worker can be started the message waits, the log says so once, and the next
 * send to an actor of that host tries again. */
void escqrs_actor_send(escqrs_actor *actor, escqrs_message *message);
/* The oldest message not handled yet, which is the caller's from now on; NULL: none. Only from the
 * actor's own `receive`, `destroy` or a visit, or after escqrs_runtime_stop has answered OK. */
escqrs_message *escqrs_actor_take(escqrs_actor *actor);
/* *Caller runs*: when the actor is idle with an empty mailbox, handle the message here and now
 * (attached if the actor has a host) and answer true; otherwise answer false and leave the message
 * alone. Also false when this thread is already ESCQRS_RUN_DEPTH_MAX such calls deep, so that a
 * chain goes on on another thread's stack. */
#define ESCQRS_RUN_DEPTH_MAX 24
bool escqrs_actor_run(escqrs_actor *actor, escqrs_message *message);
/* When idle with an empty mailbox: own it, call `visit` (attached as the caller is), give it back;
 * else false. For eviction and the like. */
bool escqrs_actor_visit(escqrs_actor *actor, void (*visit)(escqrs_actor *actor, void *context),
                        void *context);
/* End a suspension, from any thread; if the actor is not suspended yet, the suspension to come ends
 * at once. The next turn has message NULL. Never runs the actor on the calling thread. */
void escqrs_actor_resume(escqrs_actor *actor);
/* A hint: nothing queued, nothing running, at this moment. */
bool escqrs_actor_is_idle(const escqrs_actor *actor);

/* The actor whose message this thread is handling (the innermost), or NULL. */
escqrs_actor *escqrs_actor_current(void);

/* ---- waiting ---------------------------------------------------------------------------------- */

/* Around a wait of the thread inside a message: says that `waiter` (may be NULL: a thread outside)
 * can't go on before `target` has; DEADLOCK if that closes a cycle: the text names it ("Cart/a ->
 * Stock/b -> Cart/a"). Edges of a nested escqrs_actor_run are the caller's to declare as well. One
 * edge a waiter at a time. */
ESCQRS_MUST_USE escqrs_status escqrs_actor_wait_begin(escqrs_actor *waiter, escqrs_actor *target,
                                                      escqrs_error *error);
void escqrs_actor_wait_end(escqrs_actor *waiter);
/* What it has begun to wait for is there when bit 0 of the word is set: from then on it closes no
 * cycle, though its thread may not have gone on yet. Only of one that sleeps: not while its thread
 * runs others. `wait` and the word stay until wait_end. `waiter` may be NULL. */
typedef struct escqrs_wait {
    escqrs_actor *target; /* the runtime's */
    const ESCQRS_ATOMIC(uint32_t) *word;
} escqrs_wait;
void escqrs_actor_wait_until(escqrs_actor *waiter, escqrs_wait *wait,
                             const ESCQRS_ATOMIC(uint32_t) *word);
/* Whether wait_begin would answer DEADLOCK; declares nothing. `waiter` may wait for another. */
ESCQRS_MUST_USE escqrs_status escqrs_actor_wait_check(escqrs_actor *waiter, escqrs_actor *target,
                                                      escqrs_error *error);

/* Around a wait on a worker thread of any runtime (elsewhere they do nothing): other workers of it
 * may run meanwhile. It does not matter what the thread waits for. Call them detached; they nest.
 * False: messages wait, every worker blocks, and no thread can be started: who waits for another
 * actor may wait for ever. */
bool escqrs_runtime_block(void);
void escqrs_runtime_unblock(void);

/* Manual runtimes: run one message of one actor on this thread (attached where it has a host: the
 * caller is attached already); false when no actor is runnable. */
bool escqrs_runtime_step(escqrs_runtime *runtime);
/* The same of this actor alone: what a thread runs that waits for it inside a message, so that
 * nobody else's message comes to stand upon that one. False: it is not runnable. */
bool escqrs_runtime_step_actor(escqrs_actor *actor);

#ifdef __cplusplus
}
#endif

#endif
