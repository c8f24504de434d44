/* What the files of an actor system share: the cell (an actor of the system), its rare parts, the
 * system.
 *
 * A *cell* is one block of memory for as long as a reference to it exists; the instance (state)
 * lives only from create to destroy. Cells form a tree whose root lies in the system's own block;
 * each holds its parent, so that the system's memory outlives all references, and the tree holds
 * one reference to each actor that has not stopped.
 *
 * Fields marked *actor's* belong to the thread that runs the actor (its mailbox is BUSY). What few
 * actors need is in esc_extra, made when first used.
 *
 * Locks; leaves but for this order: esc_tree.lock of a parent, then the pool's (a signal to a
 * child). Alone: the locks of timers, topics, boxes, streams, and of those who wait for a stop.
 */
#ifndef ESC_RUNTIME_CELL_H
#define ESC_RUNTIME_CELL_H

#include <escqrs/actor.h>

#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "base/thread.h"
#include "base/vector.h"
#include "runtime/runtime.h"

#define ESC_ALLOC_ALIGNMENT 16 /* of what escqrs_alloc returns */
#define ESC_STASH_MAX_DEFAULT 1000
#define ESC_BEHAVIOUR_MAX 256
#define ESC_RESTARTS_DEFAULT 10
#define ESC_WITHIN_NS_DEFAULT (INT64_C(10) * 1000000000)
#define ESC_BACKOFF_MAX_NS_DEFAULT (INT64_C(30) * 1000000000)
#define ESC_NAME_MAX 1024
#define ESC_TEXT_SIZE 256 /* of a message's description; longer ones are cut */
#define ESC_PATH_SIZE 512 /* of a path in a text; longer ones are cut */

typedef struct esc_cell esc_cell;
typedef struct esc_extra esc_extra;
typedef struct esc_box esc_box;
typedef struct esc_router esc_router;

/* ---- signals ---------------------------------------------------------------------------------- */

/* esc_cell.requests: signals that need no memory. */
#define ESC_REQUEST_STOP 1u
#define ESC_REQUEST_RESTART 2u /* at once */
#define ESC_REQUEST_RESUME 4u
#define ESC_REQUEST_CHILDREN 8u         /* the last child is gone */
#define ESC_REQUEST_RECEIVE_TIMEOUT 16u /* its timer has gone off */
#define ESC_REQUEST_BOX 32u             /* there is something in the box */

typedef enum esc_signal_kind {
    ESC_SIGNAL_WATCH = 0,
    ESC_SIGNAL_UNWATCH = 1,
    ESC_SIGNAL_FAILURE = 2,
    ESC_SIGNAL_TERMINATED = 3,
    ESC_SIGNAL_CONTINUATION = 4,
} esc_signal_kind;

/* In a queue of signals; begins escqrs_continuation, too. */
typedef struct esc_signal {
    struct esc_signal *next;
    uintptr_t kind;
} esc_signal;

/* ---- guards ----------------------------------------------------------------------------------- */

/* Stands around all that an actor handles; all on the actor's thread. See guard.c. */
typedef struct esc_guard {
    const char *unnamed; /* why an actor without a name is not spawned; NULL: it may be */
    /* Before the instance handles `message`; NULL: a continuation. False: it does not, and *turn
     * stands for what it would have answered. */
    bool (*before)(esc_cell *cell, const escqrs_envelope *message, escqrs_turn_end *turn);
    /* It has answered `turn`; returns what that comes to. The message may be gone. */
    escqrs_turn_end (*after)(esc_cell *cell, escqrs_turn_end turn);
    /* A suspension has ended. True: the guard's own, and *turn is what the turn comes to. */
    bool (*resume)(esc_cell *cell, escqrs_turn_end *turn);
    /* In place of escqrs_tell, for what the actor sends by its context. */
    escqrs_status (*send)(esc_cell *cell, escqrs_ref *to, escqrs_envelope *envelope,
                          escqrs_ref *sender);
    void (*end)(esc_cell *cell); /* the instance has ended */
} esc_guard;

/* ---- props ------------------------------------------------------------------------------------ */

struct escqrs_props {
    _Atomic(uint32_t) references;
    bool boxed;       /* its mailboxes are boxes */
    bool wraps_sends; /* by middleware, or by its guard */
    const escqrs_actor_class *actor_class;
    void (*failure_release)(void *detail); /* the class's; of a router its options' */
    void *user_data;
    void (*release)(void *release_data);
    void *release_data;
    escqrs_host *host;
    escqrs_mailbox_options mailbox;
    escqrs_supervisor supervisor;
    escqrs_receive_middleware *receive_middleware;
    size_t receive_middleware_count;
    escqrs_send_middleware *send_middleware;
    size_t send_middleware_count;
    escqrs_spawn_middleware *spawn_middleware;
    size_t spawn_middleware_count;
    int64_t receive_timeout_ns;
    size_t stash_max;
    const esc_guard *guard; /* NULL: none */
    void *guard_data;       /* freed with the props */
};

/* The same, whose mailboxes have statistics. */
ESCQRS_MUST_USE escqrs_status esc_props_with_statistics(escqrs_props *props, escqrs_props **made,
                                                        escqrs_error *error);

/* ---- cell ------------------------------------------------------------------------------------- */

/* esc_cell.step: which lifecycle callback a turn is in. */
typedef enum esc_step {
    ESC_STEP_NONE = 0, /* a message, or another callback without consequence */
    ESC_STEP_STARTED = 1,
    ESC_STEP_RESTARTING = 2,
    ESC_STEP_STOPPING = 3,
    ESC_STEP_STOPPED = 4,
} esc_step;

struct esc_cell {
    /* Of its flags these are the cell's: `slow`, each message needs a look; `kept`, `current` is
     * not the callback's to take: of the lifecycle, or continuations share it (extra->lease). */
    escqrs_actor actor;

    /* Up to here and these four, in two cache lines: all that a message touches. */
    escqrs_receive receive;   /* actor's: the behaviour, or the middleware around it */
    void *instance;           /* actor's: what create gave */
    escqrs_envelope *current; /* actor's: the message being handled */
    escqrs_props *props;

    esc_cell *parent; /* NULL: the root */
    escqrs_actor_system *system;
    _Atomic(esc_extra *) extra; /* made by the actor's thread or before it begins; then it stays */
    _Atomic(esc_signal *) signals; /* newest first */
    _Atomic(uint32_t) requests;    /* ESC_REQUEST_* */
    uint32_t wanted;               /* actor's: requests that wait for their time */
    uint32_t instance_number;      /* actor's: counts instances */
    _Atomic(uint8_t) state;        /* escqrs_ref_state; the actor's thread writes */
    uint8_t step;                  /* actor's: esc_step */
    bool has_instance;             /* actor's: create has answered, destroy has not */
    bool waits_for_children;       /* guarded by the own tree's lock */
    _Atomic(bool) ended;           /* it is out of the tree, and its watchers know */
    uint64_t id;
    char *name;              /* NULL: made from the id */
    esc_list_node in_parent; /* guarded by the parent's tree's lock */
    void *block;             /* the memory that it lies in; the root's is the system's */
};

static inline esc_cell *esc_cell_of(escqrs_actor *actor)
{
    return (esc_cell *)actor;
}

static inline escqrs_ref *esc_cell_ref(esc_cell *cell)
{
    return (escqrs_ref *)cell;
}

static inline esc_cell *esc_context_cell(const escqrs_context *context)
{
    return (esc_cell *)(uintptr_t)context;
}

static inline escqrs_context *esc_cell_context(esc_cell *cell)
{
    return (escqrs_context *)cell;
}

static inline escqrs_ref_state esc_cell_state(const esc_cell *cell)
{
    /* acquire: who sees STOPPED sees what was done before */
    return (escqrs_ref_state)atomic_load_explicit(&cell->state, memory_order_acquire);
}

extern const escqrs_actor_ops esc_cell_ops;       /* messages go to the actor's own mailbox */
extern const escqrs_actor_ops esc_boxed_cell_ops; /* they go to its box */
extern const escqrs_actor_ops esc_future_ops;
extern const escqrs_actor_ops esc_sink_ops;

static inline bool esc_ref_is_cell(const escqrs_ref *ref)
{
    return ref->ops == &esc_cell_ops || ref->ops == &esc_boxed_cell_ops;
}

static inline bool esc_ref_is_future(const escqrs_ref *ref)
{
    return ref->ops == &esc_future_ops;
}

static inline bool esc_type_is_lifecycle(const escqrs_message_type *type)
{
    return type == &escqrs_started || type == &escqrs_stopping || type == &escqrs_stopped ||
           type == &escqrs_restarting || type == &escqrs_receive_timeout ||
           type == &escqrs_terminated;
}

/* Types of messages that the system itself handles, in esc_cell_look. */
typedef enum esc_internal {
    ESC_INTERNAL_POISON = 0,
    ESC_INTERNAL_TICK = 1,
    ESC_INTERNAL_ROUTER = 2,
    ESC_INTERNAL_COUNT = 3,
} esc_internal;
extern const escqrs_message_type esc_internal_types[ESC_INTERNAL_COUNT];

static inline bool esc_type_is_internal(const escqrs_message_type *type)
{
    return (uintptr_t)type - (uintptr_t)esc_internal_types < sizeof esc_internal_types;
}

/* ---- rare parts ------------------------------------------------------------------------------- */

typedef struct esc_tree {
    esc_mutex lock;
    esc_list children; /* esc_cell.in_parent */
    size_t count;
    esc_map names; /* the cells that have one */
} esc_tree;

/* A failure that is not over: the signal to the supervisor, and what events share. */
typedef struct esc_failure_record {
    esc_signal signal;
    escqrs_failure failure; /* first of what others see */
    _Atomic(uint32_t) references;
    esc_cell *child; /* who is to be decided on; held */
    struct esc_failure_record
        *origin;         /* of an escalated one: whose texts and detail it has; held */
    esc_cell *escalated; /* whose failure this one was at first; held; NULL: its own */
    struct esc_failure_record
        *earlier; /* of another child, escalated and not decided on when this one was; held */
    void (*detail_release)(void *detail);
    bool again; /* it has failed with that text already, and has not run since */
    char text[768];
    char path[ESC_PATH_SIZE];
    char message[ESC_TEXT_SIZE];
} esc_failure_record;

struct esc_extra {
    _Atomic(esc_tree *)
        tree; /* made by whoever spawns first; the actor's thread, or for the root any */
    esc_box *box;

    /* The rest is the actor's, but `restarts` to `backoff_count`, which are its supervisor's while
     * it has failed. */
    esc_signal *deferred; /* Terminated and continuations that wait, oldest first */
    esc_signal *deferred_last;
    esc_list watchers;     /* esc_watch.in_target */
    esc_map watching;      /* esc_watch by target */
    esc_vector behaviours; /* escqrs_receive, the newest last */
    escqrs_message *stash; /* oldest first */
    escqrs_message *stash_last;
    size_t stash_count;
    escqrs_message *front; /* taken before the box; what came back from the stash */
    escqrs_message *front_last;
    esc_vector unanswered; /* escqrs_future *, each a reference */
    esc_list timers;       /* escqrs_timer.in_owner; guarded by the timers' lock */
    int64_t receive_timeout_ns;
    int64_t active_ns; /* the last message that counts */
    escqrs_timer *receive_timer;
    esc_failure_record
        *failure; /* what escqrs_context_fail has said, or what waits for a decision */
    _Atomic(esc_router *) router; /* of a router */
    struct esc_lease *lease;      /* of `current`, where continuations share it */
    void *guarded;                /* the guard's */

    char *last_words; /* what its failure said, until it runs again; the actor's thread writes, with
                         the system's words_lock, which others read with */

    int64_t *restarts; /* times, a ring of max_restarts */
    unsigned restart_capacity;
    unsigned restart_count;
    unsigned restart_next;
    unsigned backoff_count;
    int64_t failed_last_ns;
};

/* The cell's extra where it has one. */
static inline esc_extra *esc_cell_has(const esc_cell *cell)
{
    /* acquire: pairs with the release in esc_cell_extra */
    return atomic_load_explicit(&cell->extra, memory_order_acquire);
}

/* The cell's extra; NULL: out of memory. The actor's thread. */
esc_extra *esc_cell_extra(esc_cell *cell);
/* NULL: out of memory. */
esc_tree *esc_cell_tree(esc_cell *cell);

/* ---- cell.c ----------------------------------------------------------------------------------- */

ESCQRS_MUST_USE escqrs_status esc_cell_create(escqrs_actor_system *system, esc_cell *parent,
                                              escqrs_props *props, escqrs_slice name,
                                              esc_cell **cell, escqrs_error *error);
/* For the root, whose memory is the system's. */
ESCQRS_MUST_USE escqrs_status esc_cell_init(esc_cell *cell, escqrs_actor_system *system,
                                            esc_cell *parent, escqrs_props *props,
                                            escqrs_slice name, escqrs_error *error);
/* What the worker, which ends, has kept of cells that are gone. */
void esc_cell_blocks_free(esc_worker *worker);
void esc_cell_request(esc_cell *cell, uint32_t requests);
/* Its mailbox has just been closed; the last touch of the actor's thread (actor.c). */
void esc_cell_closed(escqrs_actor *actor);
/* The behaviour that is in force, for the middleware's end. */
escqrs_turn_end esc_cell_behave(esc_cell *cell, escqrs_envelope *message);
void esc_cell_set_receive(esc_cell *cell);
/* Destroy the message; where it was a question without an answer, remember it. */
void esc_cell_finish(esc_cell *cell, escqrs_envelope *envelope);
/* The same of the present one, which may be kept. */
void esc_cell_finish_current(esc_cell *cell);
void esc_cell_set_slow(esc_cell *cell);
/* A callback of it has answered: finish the message, or the step, or fail. */
escqrs_turn_end esc_cell_after_callback(esc_cell *cell, escqrs_turn_end turn);
/* A message of the mailbox that may need more than to be handed over. */
escqrs_turn_end esc_cell_look(esc_cell *cell, escqrs_envelope *envelope);
/* Run user code other than for a message from the mailbox, e.g. Terminated. */
escqrs_turn_end esc_cell_deliver(esc_cell *cell, escqrs_envelope *message);

/* A message goes to the actor's receive. */
static inline __attribute__((always_inline)) escqrs_turn_end esc_cell_hand_over(
    esc_cell *cell, escqrs_envelope *envelope)
{
    cell->current = envelope;
    escqrs_turn_end turn = cell->receive(esc_cell_context(cell), cell->instance, envelope);
    if (__builtin_expect(turn != ESCQRS_TURN_NEXT, 0)) {
        return esc_cell_after_callback(cell, turn);
    }
    if (__builtin_expect(cell->actor.kept, 0)) {
        esc_cell_finish_current(cell);
        return ESCQRS_TURN_NEXT;
    }
    envelope = cell->current;
    if (envelope != NULL) {
        cell->current = NULL;
        esc_cell_finish(cell, envelope);
    }
    return ESCQRS_TURN_NEXT;
}

/* A message of the mailbox, and the actor is not `slow`. For the loop over them (actor.c). */
static inline __attribute__((always_inline)) escqrs_turn_end esc_cell_handle(
    esc_cell *cell, escqrs_envelope *envelope)
{
    if (__builtin_expect(esc_type_is_internal(envelope->type), 0)) {
        return esc_cell_look(cell, envelope);
    }
    return esc_cell_hand_over(cell, envelope);
}

/* ---- guard.c ---------------------------------------------------------------------------------- */

/* Of actors that have a guard: their receive, the end of a suspension, a continuation. */
escqrs_turn_end esc_guard_receive(escqrs_context *context, void *state, escqrs_envelope *message);
escqrs_turn_end esc_guard_resume(esc_cell *cell);
/* The class's, without the guard; a failure of the actor where it has none. */
escqrs_turn_end esc_cell_call_resume(esc_cell *cell);
escqrs_turn_end esc_guard_continue(esc_cell *cell, escqrs_continuation *continuation);

/* ---- children.c ------------------------------------------------------------------------------- */

/* The middleware is through. */
ESCQRS_MUST_USE escqrs_status esc_spawn(escqrs_actor_system *system, esc_cell *parent,
                                        escqrs_props *props, escqrs_slice name, escqrs_ref **ref,
                                        escqrs_error *error);
void esc_children_request(esc_cell *parent, uint32_t requests, const esc_cell *except);
/* None are left. Otherwise the last one to go requests CHILDREN. */
bool esc_children_gone(esc_cell *parent);
/* The cell leaves its parent's tree: its name is free. */
void esc_tree_leave(esc_cell *cell);
size_t esc_children_list(esc_cell *parent, escqrs_ref **refs, size_t max);
void esc_tree_destroy(esc_tree *tree);

/* ---- signal.c, watch.c, continuation.c -------------------------------------------------------- */

/* Any thread. Signals to an actor that has stopped are answered for it, on this thread. */
void esc_signal_send(esc_cell *cell, esc_signal *signal);
/* The actor's thread: handle what can be handled at once, put the rest on `deferred`. */
void esc_signals_collect(esc_cell *cell);
/* It has stopped: answer for it. */
void esc_signals_answer(esc_cell *cell);
void esc_deferred_answer(esc_cell *cell); /* the actor's thread */

typedef struct esc_watch {
    esc_signal signal;  /* WATCH to the target, then TERMINATED to the watcher */
    esc_signal unwatch; /* UNWATCH to the target */
    escqrs_terminated_message terminated;
    esc_cell *watcher; /* held */
    esc_cell *target;  /* held */
    esc_list_node in_target;
    bool cancelled;               /* the watcher's thread */
    _Atomic(uint32_t) references; /* one a signal under way or the list, one of `watching` */
} esc_watch;

void esc_watch_begin(esc_cell *cell, esc_watch *watch); /* WATCH has come to the target */
void esc_watch_end(esc_watch *watch);                   /* UNWATCH has */
void esc_watch_terminate(esc_watch *watch);             /* the target has stopped */
escqrs_turn_end esc_watch_deliver(esc_cell *cell, esc_watch *watch); /* TERMINATED has come */
bool esc_watch_again(esc_cell *cell, esc_watch *watch); /* its Terminated is to come again */
void esc_watch_drop(esc_watch *watch);
void esc_watchers_tell(esc_cell *cell); /* this actor has stopped */
void esc_watching_end(esc_cell *cell);  /* and watches no more */

/* A message that continuations share. */
typedef struct esc_lease {
    _Atomic(uint32_t) shares;
    escqrs_envelope *envelope;
} esc_lease;
/* `cell`: whose thread this is, where the message was its own; NULL: elsewhere. */
void esc_lease_drop(esc_cell *cell, esc_lease *lease);

escqrs_turn_end esc_continuation_run(esc_cell *cell, escqrs_continuation *continuation);
void esc_continuation_drop(escqrs_continuation *continuation);

/* ---- supervise.c ------------------------------------------------------------------------------ */

/* It runs again. */
void esc_last_words_forget(esc_cell *cell);
/* The cell's present callback has failed, with extra->failure where it said why. It waits for its
 * supervisor from now on. */
void esc_failure_raise(esc_cell *cell, const escqrs_envelope *message);
/* The same in a callback after which things go on as they would; published with `directive`. */
void esc_failure_note(esc_cell *cell, const escqrs_envelope *message, escqrs_directive directive);
/* A child's failure has come to its supervisor. */
void esc_failure_decide(esc_cell *parent, esc_failure_record *record);
void esc_failure_drop(esc_failure_record *record);
void esc_failure_forget(esc_cell *cell); /* the cell's own is over */
void esc_failure_resume_escalated(esc_cell *cell);
/* It has escalated a child's failure: FAILED, without a callback of its own. */
void esc_cell_fail_for_child(esc_cell *cell);

/* ---- stash.c ---------------------------------------------------------------------------------- */

void esc_stash_return(esc_cell *cell); /* before the mailbox */
void esc_behaviours_clear(esc_cell *cell);

/* ---- timer.c ---------------------------------------------------------------------------------- */

typedef struct esc_timers {
    esc_mutex lock;
    esc_cond changed;
    /* guarded by `lock` */
    escqrs_timer **heap;
    size_t count;
    size_t capacity;
    uint64_t sequence;
    bool started;
    bool stopping;
    esc_thread thread;
    bool is_virtual;
    int64_t virtual_ns;
} esc_timers;

void esc_timers_init(esc_timers *timers, bool is_virtual);
void esc_timers_stop(
    esc_timers *timers); /* joins the thread; the timers that are left are dropped */
void esc_timers_fini(esc_timers *timers);
int64_t esc_timers_now(esc_timers *timers);
void esc_timers_of_cell_cancel(esc_cell *cell);
/* The cell's request after a delay. The timer is held for the caller. */
ESCQRS_MUST_USE escqrs_status esc_timer_request(esc_cell *cell, uint32_t request, int64_t delay_ns,
                                                escqrs_timer **timer, escqrs_error *error);
/* A function after a delay, on the timers' thread; `released` when it has been called or cancelled.
 */
ESCQRS_MUST_USE escqrs_status esc_timer_call(escqrs_actor_system *system, int64_t delay_ns,
                                             void (*function)(void *data),
                                             void (*released)(void *data), void *data,
                                             escqrs_timer **timer, escqrs_error *error);
/* The message that the tick stands for; NULL: none any more. Takes the tick. */
escqrs_envelope *esc_tick_take(esc_cell *cell, escqrs_envelope *tick);
void esc_tick_destroy(escqrs_envelope *tick);
void esc_receive_timeout_arm(esc_cell *cell);
escqrs_turn_end esc_receive_timeout_due(esc_cell *cell);

/* ---- box.c ------------------------------------------------------------------------------------ */

ESCQRS_MUST_USE escqrs_status esc_box_create(const escqrs_mailbox_options *options, esc_box **box);
void esc_box_destroy(esc_box *box); /* with what is in it */
typedef enum esc_put {
    ESC_PUT_OK = 0,
    ESC_PUT_WAKE = 1, /* the caller requests BOX */
    ESC_PUT_FULL = 2,
    ESC_PUT_CLOSED = 3,
    ESC_PUT_NO_MEMORY = 4,
    ESC_PUT_DROPPED = 5, /* drop_new */
} esc_put;
/* *dropped: the one that made room (drop_old), or NULL. `forced`: not bounded. */
esc_put esc_box_put(esc_box *box, escqrs_envelope *envelope, bool forced, int64_t now_ns,
                    escqrs_envelope **dropped);
/* The next; NULL: none, and the next put wakes. */
escqrs_envelope *esc_box_take(esc_box *box, int64_t now_ns);
void esc_box_close(esc_box *box); /* what is in it stays */
escqrs_status esc_box_wait_room(esc_box *box, int64_t deadline_ns);
bool esc_box_wants_time(const esc_box *box);
bool esc_box_blocks(const esc_box *box);
bool esc_box_stats(esc_box *box, escqrs_mailbox_stats *stats);
size_t esc_box_length(esc_box *box);

/* ---- send.c ----------------------------------------------------------------------------------- */

/* Past the bounds of its mailbox; CLOSED: it is still the caller's. */
ESCQRS_MUST_USE escqrs_status esc_send_forced(esc_cell *cell, escqrs_envelope *envelope);
/* As escqrs_tell, with the sender that the message has. */
escqrs_status esc_tell_set(escqrs_ref *to, escqrs_envelope *envelope);
/* Takes the message. */
void esc_dead_letter_send(escqrs_actor_system *system, escqrs_ref *to, escqrs_envelope *envelope);

/* ---- future.c --------------------------------------------------------------------------------- */

bool esc_future_answer(escqrs_future *future, escqrs_envelope *answer); /* false: not taken */
void esc_future_fail(escqrs_future *future, const escqrs_failure *failure);
/* Where the message is a question, its asker gets the failure. */
void esc_question_fail(const escqrs_envelope *envelope, const escqrs_failure *failure);
void esc_question_refuse(const escqrs_envelope *envelope, escqrs_status status, escqrs_ref *to,
                         const char *what);
void esc_future_let_go(escqrs_future *future);
void esc_unanswered_keep(esc_cell *cell, escqrs_future *future); /* takes a reference */
void esc_unanswered_end(esc_cell *cell);

/* ---- middleware.c ----------------------------------------------------------------------------- */

escqrs_turn_end esc_middleware_receive(escqrs_context *context, void *state,
                                       escqrs_envelope *message);
escqrs_status esc_middleware_send(esc_cell *cell, escqrs_ref *to, escqrs_envelope *envelope,
                                  escqrs_ref *sender);
escqrs_status esc_middleware_spawn(escqrs_actor_system *system, esc_cell *parent,
                                   const escqrs_spawn_middleware *around, size_t count,
                                   escqrs_props *props, escqrs_slice name, escqrs_ref **ref,
                                   escqrs_error *error);

/* ---- router.c --------------------------------------------------------------------------------- */

escqrs_turn_end esc_router_handle(esc_cell *cell, escqrs_envelope *order);
void esc_router_order_destroy(escqrs_envelope *order);
void esc_router_stopped(esc_cell *cell);
void esc_router_fini(esc_router *router); /* NULL is fine */

/* ---- topic.c ---------------------------------------------------------------------------------- */

typedef struct esc_topics {
    esc_mutex lock;
    struct esc_subscriptions *list; /* guarded by `lock`; counted, immutable */
    bool closed;                    /* guarded by `lock` */
    _Atomic(size_t) count;
} esc_topics;

void esc_topics_init(esc_topics *topics);
void esc_topics_close(esc_topics *topics); /* ends all subscriptions */
void esc_topics_fini(esc_topics *topics);
void esc_topics_publish(esc_topics *topics, const escqrs_envelope *event); /* borrows it */
void esc_publish_failure(escqrs_actor_system *system, esc_failure_record *record,
                         escqrs_directive directive);

/* ---- stream.c --------------------------------------------------------------------------------- */

typedef struct esc_streams {
    esc_mutex lock;
    esc_list list; /* guarded by `lock`: escqrs_stream.in_system */
    bool stopping; /* guarded by `lock` */
    bool closed;   /* guarded by `lock` */
} esc_streams;

void esc_streams_init(esc_streams *streams);
void esc_streams_fini(esc_streams *streams);
void esc_streams_stop(esc_streams *streams);  /* actors that wait for one go on */
void esc_streams_close(esc_streams *streams); /* so do all others; none is opened any more */
bool esc_ref_is_stream(const escqrs_ref *ref);
bool esc_stream_is_closed(const escqrs_ref *ref); /* of a stream */

/* ---- system ----------------------------------------------------------------------------------- */

struct escqrs_actor_system {
    esc_cell root; /* first: its end frees the block */
    escqrs_runtime *runtime;
    bool owns_runtime;
    bool manual;
    escqrs_stepper stepper;
    escqrs_log log;
    escqrs_spawn_middleware *spawn_middleware;
    size_t spawn_middleware_count;
    esc_timers timers;
    esc_topics topics;
    esc_streams streams;
    _Atomic(size_t) actor_count;
    _Atomic(uint64_t) last_id; /* manual: of its actors, whatever else the process has */
    bool closing;              /* guarded by the root's tree's lock */

    esc_mutex words_lock; /* guards esc_extra.last_words of all actors */

    /* Who waits for an actor to stop; `waiting` is looked at without the lock. */
    _Atomic(uint32_t) waiting;
    esc_mutex stop_lock;
    esc_cond stopped;
};

extern const escqrs_actor_class esc_root_class;
void esc_system_free(escqrs_actor_system *system); /* the root's last reference is gone */
void esc_system_actor_stopped(escqrs_actor_system *system);

#endif
