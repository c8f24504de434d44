/* escqrs/actor.h - the actor system: actors that spawn, watch and supervise each other.
 *
 * It stands on runtime.h, which knows mailboxes and threads; here are names, references, messages
 * with a type, lifecycle, supervision, timers, topics and routers. A program:
 *
 *     static escqrs_turn_end receive(escqrs_context *context, void *state,
 *                                    escqrs_envelope *message)
 *     {
 *         if (message->type == &HELLO) { ... }
 *         return ESCQRS_TURN_NEXT;
 *     }
 *     static const escqrs_actor_class GREETER = {.name = "Greeter", .receive = receive};
 *
 *     escqrs_props *props; escqrs_ref *greeter;
 *     escqrs_props_create(&(escqrs_props_options){.actor_class = &GREETER}, &props, &error);
 *     escqrs_actor_system_spawn(system, props, escqrs_slice_of("greeter"), &greeter, &error);
 *     escqrs_tell(greeter, &hello->envelope, NULL);
 *
 * Who may call. A function that takes an escqrs_context: only the thread that handles a message of
 * that actor, from within one of its callbacks. Every other function: any thread. Unless its
 * comment says so, none blocks. No callback is made under a lock.
 *
 * Hosts. All callbacks of an actor whose props name a host are made attached to it: create,
 * receive, resume, destroy, decide, middleware, continuations. These are not (they may be made on
 * any thread, attached or not): the functions of a message type, of a future, of a sink, of a
 * stream, of a subscription; release of props.
 *
 * Order. Messages of one sender to one actor arrive in the order sent. Signals (watch, stop,
 * Terminated, decisions of a supervisor, continuations) go before messages that wait, after the
 * message that is being handled.
 *
 * Fork: nothing here may be called in the child.
 */
#ifndef ESCQRS_ACTOR_H
#define ESCQRS_ACTOR_H

#include <escqrs/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct escqrs_actor_system escqrs_actor_system;
typedef struct escqrs_props escqrs_props;     /* how to make an actor; counted, immutable */
typedef struct escqrs_context escqrs_context; /* an actor, seen from inside its own callbacks */
typedef struct escqrs_timer escqrs_timer;
typedef struct escqrs_subscription escqrs_subscription;
typedef struct escqrs_envelope escqrs_envelope;
typedef struct escqrs_failure escqrs_failure;

/* ---- references ------------------------------------------------------------------------------- */

/* Something that messages can be sent to: an actor, a future or a sink (also a stream). Counted;
 * two references are the same if and only if their addresses are. An actor's is its escqrs_actor
 * (for escqrs_actor_wait_begin: cast it). It outlives the actor: what is sent to it then is a dead
 * letter. Whoever stores one holds it. */
typedef struct escqrs_ref {
    const escqrs_actor_ops *ops; /* the kind's */
} escqrs_ref;

void escqrs_ref_hold(escqrs_ref *ref);
void escqrs_ref_release(escqrs_ref *ref); /* NULL is fine */

typedef enum escqrs_ref_kind {
    ESCQRS_REF_ACTOR = 0,
    ESCQRS_REF_FUTURE = 1,
    ESCQRS_REF_SINK = 2,
} escqrs_ref_kind;

typedef enum escqrs_ref_state {
    ESCQRS_REF_STARTING = 0,   /* not yet through create and Started */
    ESCQRS_REF_RUNNING = 1,    /* idle, or handling messages */
    ESCQRS_REF_FAILED = 2,     /* waits for its supervisor's decision, or for a backoff */
    ESCQRS_REF_RESTARTING = 3, /* waits for its children to stop */
    ESCQRS_REF_STOPPING = 4,   /* the same */
    ESCQRS_REF_STOPPED = 5,
} escqrs_ref_state;

escqrs_ref_kind escqrs_ref_kind_of(const escqrs_ref *ref);
/* At this moment. A future or a sink: RUNNING; a stream that is closed: STOPPED. */
escqrs_ref_state escqrs_ref_state_of(const escqrs_ref *ref);
const char *escqrs_ref_state_name(escqrs_ref_state state); /* "running", ... */
/* The first line of what an actor's failure said: while it waits to be restarted, and for ever
 * where it has stopped after it. Written as below; 0: there is none. Any thread. */
size_t escqrs_ref_failure(const escqrs_ref *ref, char *text, size_t size);
/* Of an actor: unique in the process; of a manual runtime's: in its system. 0: no actor. */
uint64_t escqrs_ref_id(const escqrs_ref *ref);
/* An actor's own name ("cart-1"; "$7f" where none was given) and its path from the top
 * ("shop/cart-1", without a leading slash). Written to `text` with its NUL, cut to `size`; returns
 * the whole length. Others: "future", "stream", "sink". */
size_t escqrs_ref_name(const escqrs_ref *ref, char *text, size_t size);
size_t escqrs_ref_path(const escqrs_ref *ref, char *text, size_t size);
/* Borrowed, as long as `ref` is held. NULL: a child of the system, or no actor. */
escqrs_ref *escqrs_ref_parent(const escqrs_ref *ref);
/* What props were given as user_data; NULL for other kinds. Lives as long as the reference. */
void *escqrs_ref_user_data(const escqrs_ref *ref);
/* The class of its props; NULL for other kinds. Routers have one of their own. */
const struct escqrs_actor_class *escqrs_ref_class(const escqrs_ref *ref);
/* Of an actor; NULL for others. Valid until the system is destroyed. */
escqrs_actor_system *escqrs_ref_system(const escqrs_ref *ref);

/* ---- messages --------------------------------------------------------------------------------- */

/* A type is known by its address. */
typedef struct escqrs_message_type {
    const char *name; /* for people */
    /* Free the message; `sender` has been released already. NULL: escqrs_free(envelope). Any
     * thread, attached or not, at any time. Who would rather send the same memory again may do so
     * from here on, not before: an answer comes while the worker still has the question. */
    void (*destroy)(escqrs_envelope *envelope);
    /* Another message with the same content, its `message` and `sender` zero; NULL: out of memory.
     * Needed for what goes to several: broadcast, subscribing actors, repeating timers. May be
     * NULL. */
    escqrs_envelope *(*copy)(const escqrs_envelope *envelope);
    /* A name for people that depends on the content; may be NULL: `name`. */
    void (*describe)(const escqrs_envelope *envelope, char *text, size_t size);
    /* Does not count as activity for the receive timeout. */
    bool quiet;
} escqrs_message_type;

/* Begins every message. The owner fills `type` and leaves the rest zero. It belongs to whoever
 * made it until a call that sends it; such a call takes it always, also when it answers an error,
 * unless the comment says otherwise. */
struct escqrs_envelope {
    escqrs_message message; /* the mailbox's */
    const escqrs_message_type *type;
    escqrs_ref *sender; /* a reference held by the message, or NULL; set by the sending call */
};

/* Release the sender (an asker whose last chance it was gets "stopped without answering"), then
 * the type's destroy. NULL is fine. */
void escqrs_envelope_destroy(escqrs_envelope *envelope);
void escqrs_envelope_describe(const escqrs_envelope *envelope, char *text, size_t size);

/* Lifecycle messages: the receive of each actor gets them. Static: never destroyed, copied, kept or
 * stashed. Compare `message->type`. */
extern const escqrs_message_type escqrs_started;  /* first of each instance */
extern const escqrs_message_type escqrs_stopping; /* before the children are stopped */
extern const escqrs_message_type escqrs_stopped;  /* last of the last instance; children are gone */
extern const escqrs_message_type escqrs_restarting; /* last of an instance that gets a successor */
extern const escqrs_message_type escqrs_receive_timeout;
extern const escqrs_message_type escqrs_terminated; /* an escqrs_terminated_message */

typedef struct escqrs_terminated_message {
    escqrs_envelope envelope;
    escqrs_ref *who; /* valid during the call; hold it to keep it */
} escqrs_terminated_message;

/* ---- sending ---------------------------------------------------------------------------------- */

/* The message is taken always; the status says what became of it:
 * OK           it is in the mailbox
 * CLOSED       the actor has stopped; it became a dead letter (an asker gets the same error)
 * MAILBOX_FULL a bounded mailbox with `fail`, or with `block` when an actor sends: it is destroyed
 *              (an asker gets the same error); with `drop_new` the status is OK and it is a dead
 *              letter
 * NO_MEMORY    no room for it in a mailbox with bounds, priorities or statistics: as MAILBOX_FULL
 * Blocks only outside of actors and only for a mailbox with `block` that is full. `sender` may be
 * NULL. The status may be ignored: nothing is lost silently. */
escqrs_status escqrs_tell(escqrs_ref *to, escqrs_envelope *envelope, escqrs_ref *sender);
/* Never blocks, and does not take the message when the answer is MAILBOX_FULL. For callers that
 * must leave an interpreter before they wait; then escqrs_ref_wait_room, or one of the two below.
 */
ESCQRS_MUST_USE escqrs_status escqrs_tell_now(escqrs_ref *to, escqrs_envelope *envelope,
                                              escqrs_ref *sender);
/* What tell_now did not take is given up, and taken: destroyed, or made a dead letter. Where it is
 * a question, its asker gets MAILBOX_FULL. */
void escqrs_untold_destroy(escqrs_ref *to, escqrs_envelope *envelope);
void escqrs_untold_publish(escqrs_ref *to, escqrs_envelope *envelope);
/* May a tell to it have to wait? (a bounded mailbox with `block`) */
bool escqrs_ref_may_block(const escqrs_ref *ref);
/* Blocks until there was room, the actor has stopped, or the deadline (monotonic ns) has passed:
 * TIMEOUT. DEADLOCK, at once, inside an actor. Call it detached. */
ESCQRS_MUST_USE escqrs_status escqrs_ref_wait_room(escqrs_ref *ref, int64_t deadline_ns,
                                                   escqrs_error *error);
/* *Caller runs*: where the actor is idle with an empty mailbox, handle the message here and now and
 * answer true; otherwise false and the message is still the caller's. The calling thread is
 * attached to the actor's host, if it has one. */
bool escqrs_ref_run(escqrs_ref *to, escqrs_envelope *envelope, escqrs_ref *sender);

/* Stop at once: after the message it is in; what waits in its mailbox becomes dead letters. */
void escqrs_stop(escqrs_ref *ref);
/* Stop after the messages before it. NO_MEMORY: nothing happens. CLOSED: it has stopped. */
escqrs_status escqrs_poison(escqrs_ref *ref);
/* Blocks until it has stopped (its Stopped handled, its name free). TIMEOUT; DEADLOCK inside a
 * handler of the actor itself. Call it detached. */
ESCQRS_MUST_USE escqrs_status escqrs_ref_wait_stopped(escqrs_ref *ref, int64_t deadline_ns,
                                                      escqrs_error *error);

/* ---- asking ----------------------------------------------------------------------------------- */

/* The sender of a question: a reference that takes one answer. Embedded first in the asker's own
 * struct. Its count is of those who may still answer: each message that carries it as sender, and
 * each escqrs_ref_hold. It ends, once, in `complete`:
 * - with the first message told to it;
 * - with a failure when the question cannot be delivered (CLOSED, MAILBOX_FULL), when the handler
 * of the question fails (the failure's own status, text and detail), and when the last who could
 *   answer is gone: CLOSED, "x stopped without answering".
 * An actor that has handled a question without answering remembers it until it stops, so that the
 * asker hears of its end; asking on does not cost it anything once the answer is there. */
typedef struct escqrs_future escqrs_future;
typedef struct escqrs_future_ops {
    /* Exactly once, on any thread. Either `answer` (the future's from now on) or `failure` (valid
     * during the call). */
    void (*complete)(escqrs_future *future, escqrs_envelope *answer, const escqrs_failure *failure);
    /* After complete: nobody refers to it any more; free it. Exactly once, any thread. */
    void (*released)(escqrs_future *future);
} escqrs_future_ops;

struct escqrs_future {
    escqrs_ref ref;
    ESCQRS_ATOMIC(uint32_t) references;
    ESCQRS_ATOMIC(uint32_t) completed;
    const escqrs_future_ops *future_ops;
    escqrs_ref *target;               /* who was asked; held */
    ESCQRS_ATOMIC(uintptr_t) sent_to; /* the actor it was last sent on to; the runtime's */
};

/* One reference, for the caller: it gives it to escqrs_tell or escqrs_ref_run as the sender (which
 * hold their own), and releases it when it has sent. `target` may be NULL. */
void escqrs_future_init(escqrs_future *future, const escqrs_future_ops *ops, escqrs_ref *target);
/* A message that carries it was sent on to that actor; routers say so themselves. */
void escqrs_future_send_on(escqrs_future *future, const escqrs_ref *to);
/* Whether that actor is the last it was sent on to, by a router or somebody who said so. */
bool escqrs_future_was_sent_to(const escqrs_future *future, const escqrs_ref *ref);
/* The asker gives up (a timeout): true, and `complete` will not be called any more; false: it has
 * been, or is being called. What is answered later is destroyed, without being a dead letter. */
bool escqrs_future_abandon(escqrs_future *future);
bool escqrs_future_is_complete(const escqrs_future *future);

/* Ask and wait. Runs the actor on this thread where it is idle. *answer is the caller's.
 * TIMEOUT; DEADLOCK (asking oneself, or a cycle of askers; named); CLOSED (it has stopped, or stops
 * without answering); or the failure of the handler with its own status and text. The deadline is
 * in monotonic ns; INT64_MAX: none. Blocks; call it without a host. */
ESCQRS_MUST_USE escqrs_status escqrs_ask(escqrs_ref *to, escqrs_envelope *envelope,
                                         int64_t deadline_ns, escqrs_envelope **answer,
                                         escqrs_error *error);

/* ---- sinks ------------------------------------------------------------------------------------ */

/* A reference of one's own kind. Embedded first. */
typedef struct escqrs_sink escqrs_sink;
typedef struct escqrs_sink_ops {
    /* Any thread, also of several at once; attached as the sender is. Takes the message where it
     * answers true; false: it is closed, and the message becomes a dead letter. Must not block. */
    bool (*deliver)(escqrs_sink *sink, escqrs_envelope *envelope);
    void (*released)(escqrs_sink *sink); /* the last reference is gone; any thread */
} escqrs_sink_ops;

struct escqrs_sink {
    escqrs_ref ref;
    ESCQRS_ATOMIC(uint32_t) references;
    const escqrs_sink_ops *sink_ops;
    escqrs_actor_system *system; /* for its dead letters; may be NULL */
};

/* One reference for the caller. */
void escqrs_sink_init(escqrs_sink *sink, const escqrs_sink_ops *ops, escqrs_actor_system *system);

/* ---- streams ---------------------------------------------------------------------------------- */

/* A reference to send to, and a queue to read from: how a thread outside of all actors gets what
 * actors send. (Not a stream of events of store.h.) Its reference is one like others: it is told,
 * is the sender of a message, so that what is responded comes here, a subscriber, a routee of a
 * group; not watched. What each sender tells it comes in the order told; none of it is lost or
 * comes twice. It is unbounded: who is told more than is read fills the memory.
 *
 *     escqrs_stream *stream;
 *     escqrs_envelope *answer;
 *     escqrs_stream_open(system, NULL, &stream, &error);
 *     escqrs_tell(cart, add_item, escqrs_stream_ref(stream));
 *     escqrs_stream_next(stream, INT64_MAX, &answer, &error);
 *     escqrs_envelope_destroy(answer);
 *     escqrs_stream_release(stream);
 *
 * Readers: any threads, also several; each message goes to one of them. Once it is closed, by
 * escqrs_stream_close or because its system has stopped, it takes nothing more (a tell to it is
 * CLOSED and a dead letter, a subscription of it ends, escqrs_ref_state_of says STOPPED), and what
 * had come can still be read. It is what es.Stream is in Python. */
typedef struct escqrs_stream escqrs_stream;

typedef struct escqrs_stream_options {
    /* See escqrs_stream_arm; may be NULL. On the thread of whoever sends or closes, attached as it
     * is; must neither block nor touch the stream. */
    void (*ready)(void *data);
    void (*released)(void *data); /* `ready` will not be called any more; may be NULL. Any thread */
    void *data;
} escqrs_stream_options;

/* `options` may be NULL, and is copied. *stream is the caller's to release, before or after the
 * system's end. INVALID (no system, or no place for the stream), NO_MEMORY, CLOSED (the system has
 * stopped). */
ESCQRS_MUST_USE escqrs_status escqrs_stream_open(escqrs_actor_system *system,
                                                 const escqrs_stream_options *options,
                                                 escqrs_stream **stream, escqrs_error *error);
/* Borrowed, as long as the stream is there; hold it to keep it longer (what is sent to it then is a
 * dead letter). */
escqrs_ref *escqrs_stream_ref(escqrs_stream *stream);
/* The oldest message, which is the caller's: to read (its sender in it), to send on, or for
 * escqrs_envelope_destroy. Blocks until there is one:
 * TIMEOUT    none came until the deadline (monotonic ns: escqrs_clock_monotonic_ns(NULL) plus so
 *            many; INT64_MAX: none). One in the past waits for nothing
 * CLOSED     it is closed, and everything has been read
 * NO_MEMORY  on a worker: all of them wait, and no thread can be started for those that would send
 * INVALID    no stream, or no place for the message
 * Where the answer is not OK *message is NULL. A signal that the program handles does not end the
 * wait, but its handler may, by escqrs_stream_close. Manual: runs the actors instead of waiting;
 * TIMEOUT also when nothing is left to do. In an actor it holds up that actor, as escqrs_ask does
 * (other workers run meanwhile), and is CLOSED as soon as the system begins to stop; it finds no
 * circles: what only this actor itself could send does not come. Call it detached. */
ESCQRS_MUST_USE escqrs_status escqrs_stream_next(escqrs_stream *stream, int64_t deadline_ns,
                                                 escqrs_envelope **message, escqrs_error *error);
/* The same without waiting: OK, TIMEOUT (there is nothing now), CLOSED, INVALID. Manual: runs
 * nothing. */
ESCQRS_MUST_USE escqrs_status escqrs_stream_try_next(escqrs_stream *stream,
                                                     escqrs_envelope **message);
/* Until there is something to take, which another reader may take first: OK; otherwise as
 * escqrs_stream_next, but that it runs no actors. For each message one of those that wait is woken:
 * whoever gets OK takes. For callers that must leave an interpreter before they wait. */
ESCQRS_MUST_USE escqrs_status escqrs_stream_wait(escqrs_stream *stream, int64_t deadline_ns,
                                                 escqrs_error *error);
/* For an event loop of the program's own, which cannot block in escqrs_stream_next: true, and
 * `ready` is called once, when there is something to take or the stream is closed (it may be under
 * way already); false: there is, or it is, and `ready` is not called for it. Then take until
 * TIMEOUT and arm again. One at a time: armed twice is armed once. `ready` must have been given. */
bool escqrs_stream_arm(escqrs_stream *stream);
/* True: it was armed, and is not any more. False: it was not, or `ready` has been called, or is
 * being called. */
bool escqrs_stream_disarm(escqrs_stream *stream);
/* Take nothing more, and wake the readers. Any thread, also within a reader's loop or a signal
 * handler (where `ready`, if it is armed, is called, too). Twice is once; NULL is fine. */
void escqrs_stream_close(escqrs_stream *stream);
/* Close it, and let go of it; what has not been read becomes dead letters. Nobody may be reading
 * from it, now or later. NULL is fine. */
void escqrs_stream_release(escqrs_stream *stream);

/* ---- failures and supervision ----------------------------------------------------------------- */

/* What an actor could not handle. Also an event of type escqrs_failure_event. */
struct escqrs_failure {
    escqrs_status status;
    const char *text;       /* what happened, for people; never NULL */
    void *detail;           /* opaque, of the class; e.g. an exception. Borrowed */
    escqrs_ref *who;        /* the actor that failed first; NULL: none (an undelivered question) */
    const char *path;       /* its path */
    const char *message;    /* description of the message's type; "" if none */
    unsigned restart_count; /* of the supervised child, within the window, before this failure */
};

typedef enum escqrs_directive {
    ESCQRS_DIRECTIVE_RESTART = 0,
    ESCQRS_DIRECTIVE_RESUME = 1,
    ESCQRS_DIRECTIVE_STOP = 2,
    ESCQRS_DIRECTIVE_ESCALATE = 3,
} escqrs_directive;

/* How an actor supervises its children. docs/actors.md has a table of what each directive does to
 * message, mailbox, stash, timers and children. Zero: one for one, restart, 10 times in 10 s,
 * without backoff. */
typedef struct escqrs_supervisor {
    bool all_for_one; /* RESTART and STOP go to all children; RESUME to the one that failed */
    /* On the parent's thread, as part of it (attached to its host). NULL: always RESTART. Where
     * `decide` itself fails it answers ESCALATE. */
    escqrs_directive (*decide)(void *context, escqrs_ref *child, const escqrs_failure *failure);
    void *context;
    unsigned max_restarts; /* within `within_ns`; one more is a STOP. 0: 10 */
    bool never_restart;    /* max_restarts is 0 indeed */
    int64_t within_ns;     /* 0: 10 s; INT64_MAX: ever */
    /* Before the nth restart in a row wait first * factor^(n-1), at most `max`, then less or more
     * by up to jitter; 0: restart at once. n begins again after `within_ns` without a failure. */
    int64_t backoff_first_ns;
    int64_t backoff_max_ns;       /* 0: 30 s */
    double backoff_factor;        /* 0: 2 */
    double backoff_jitter;        /* share, 0 to 1; 0: none */
    escqrs_random backoff_random; /* zero: a manual runtime's, else chance */
} escqrs_supervisor;

/* ---- props ------------------------------------------------------------------------------------ */

/* An actor as a struct of functions. `state` is what create gave. */
typedef struct escqrs_actor_class {
    const char *name; /* for people */
    /* Make an instance: at the start and at each restart, on the actor's own thread. May be NULL:
     * `state` is user_data then. A failure here (escqrs_context_fail, then FAILED) is one of the
     * actor, with no message. */
    escqrs_turn_end (*create)(escqrs_context *context, void *user_data, void **state);
    /* Handle one message, which it borrows: it is destroyed after the call unless
     * escqrs_context_take was called. FAILED: after escqrs_context_fail. SUSPEND: the message stays
     * the current one, no other is handled, and `resume` goes on after escqrs_ref_resume. */
    escqrs_turn_end (*receive)(escqrs_context *context, void *state, escqrs_envelope *message);
    /* Go on with what was suspended; answers like receive. May be NULL where nothing suspends; else
     * that is a failure of the actor then (INVALID). */
    escqrs_turn_end (*resume)(escqrs_context *context, void *state);
    /* The instance ends: after Restarting or Stopped, or because its Started failed. May be NULL.
     */
    void (*destroy)(void *state, void *user_data);
    /* A failure is over (decided, published, told to the asker): let go of `detail`. Any thread. */
    void (*failure_release)(void *detail);
} escqrs_actor_class;

typedef enum escqrs_on_full {
    ESCQRS_ON_FULL_BLOCK = 0,
    ESCQRS_ON_FULL_DROP_NEW = 1,
    ESCQRS_ON_FULL_DROP_OLD = 2,
    ESCQRS_ON_FULL_FAIL = 3,
} escqrs_on_full;

/* Zero: unbounded, lock-free, without statistics. All others have a lock of their own. */
typedef struct escqrs_mailbox_options {
    size_t capacity; /* 0: unbounded */
    escqrs_on_full on_full;
    /* Higher goes first; the same in the order sent. Called by the sender, on any thread, attached
     * as it is. NULL: all the same. A poison comes after all. */
    int64_t (*priority)(void *context, const escqrs_envelope *envelope);
    void *context;
    bool statistics; /* escqrs_ref_mailbox_stats has them all */
} escqrs_mailbox_options;

/* Middleware: functions around others, the first outermost. Each calls the next with
 * escqrs_next_receive (_send, _spawn), or does not. Not calling: the message is handled
 * (destroyed); a send is over (its status is that of the middleware, which then owns the message);
 * a spawn has the status of the middleware. */
typedef struct escqrs_next escqrs_next; /* valid during the call */

typedef struct escqrs_receive_middleware {
    /* Around every message, lifecycle ones included. `resume` after a suspension is not wrapped. */
    escqrs_turn_end (*receive)(void *data, escqrs_context *context, escqrs_envelope *message,
                               const escqrs_next *next);
    void *data;
} escqrs_receive_middleware;

typedef struct escqrs_send_middleware {
    /* Around escqrs_context_tell, _request, _respond and _forward of this actor. */
    escqrs_status (*send)(void *data, escqrs_context *context, escqrs_ref *to,
                          escqrs_envelope *envelope, escqrs_ref *sender, const escqrs_next *next);
    void *data;
} escqrs_send_middleware;

typedef struct escqrs_spawn_middleware {
    /* Around escqrs_context_spawn of this actor, and around escqrs_actor_system_spawn where it is
     * the system's (context NULL then). */
    escqrs_status (*spawn)(void *data, escqrs_context *context, escqrs_props *props,
                           escqrs_slice name, escqrs_ref **ref, escqrs_error *error,
                           const escqrs_next *next);
    void *data;
} escqrs_spawn_middleware;

escqrs_turn_end escqrs_next_receive(const escqrs_next *next, escqrs_context *context,
                                    escqrs_envelope *message);
escqrs_status escqrs_next_send(const escqrs_next *next, escqrs_context *context, escqrs_ref *to,
                               escqrs_envelope *envelope, escqrs_ref *sender);
escqrs_status escqrs_next_spawn(const escqrs_next *next, escqrs_context *context,
                                escqrs_props *props, escqrs_slice name, escqrs_ref **ref,
                                escqrs_error *error);

typedef struct escqrs_props_options {
    const escqrs_actor_class *actor_class; /* must outlive the system */
    void *user_data;                       /* for create and destroy */
    void (*release)(void *user_data);      /* the last user of the props is gone; may be NULL */
    escqrs_host *host;                     /* NULL: native */
    escqrs_mailbox_options mailbox;
    const escqrs_supervisor *supervisor; /* of its children; copied; NULL: the default */
    const escqrs_receive_middleware *receive_middleware; /* copied */
    size_t receive_middleware_count;
    const escqrs_send_middleware *send_middleware; /* copied */
    size_t send_middleware_count;
    const escqrs_spawn_middleware *spawn_middleware; /* copied */
    size_t spawn_middleware_count;
    int64_t receive_timeout_ns; /* 0: none */
    size_t stash_max;           /* 0: 1,000 */
} escqrs_props_options;

/* One reference for the caller; each actor holds one. INVALID: no class or no receive. */
ESCQRS_MUST_USE escqrs_status escqrs_props_create(const escqrs_props_options *options,
                                                  escqrs_props **props, escqrs_error *error);
void escqrs_props_hold(escqrs_props *props);
void escqrs_props_release(escqrs_props *props); /* NULL is fine */

/* Around receive: says each message and its time at this level; put into receive_middleware. `data`
 * is the escqrs_log to write to (NULL: the system's). */
escqrs_turn_end escqrs_logging_middleware(void *data, escqrs_context *context,
                                          escqrs_envelope *message, const escqrs_next *next);
/* Counts what the actors that share it do; `data` is an escqrs_timing. */
typedef struct escqrs_timing {
    ESCQRS_ATOMIC(uint64_t) count;
    ESCQRS_ATOMIC(uint64_t) failed;
    ESCQRS_ATOMIC(uint64_t) total_ns;
    ESCQRS_ATOMIC(uint64_t) max_ns;
} escqrs_timing;
escqrs_turn_end escqrs_timing_middleware(void *data, escqrs_context *context,
                                         escqrs_envelope *message, const escqrs_next *next);

/* ---- the system ------------------------------------------------------------------------------- */

/* What stands beside the actors of a manual runtime and is run in one order with them, e.g. the
 * entities of a store. */
typedef struct escqrs_stepper {
    /* In place of escqrs_runtime_step, which it calls where the actors are to go next; false:
     * nobody can go on at this time. */
    bool (*step)(void *context);
    /* When somebody beside the actors goes on because of the time; INT64_MAX: nobody does. */
    int64_t (*next_due_ns)(void *context);
    void *context;
} escqrs_stepper;

typedef struct escqrs_actor_system_options {
    escqrs_runtime *runtime; /* whose workers it uses; NULL: one of its own, made with `own` */
    escqrs_runtime_options own;
    escqrs_host *host; /* where the decisions of `supervisor` are made; NULL: on a native worker.
                          Only with `runtime` */
    const escqrs_supervisor *supervisor; /* of the system's own children; copied; NULL: default */
    const escqrs_spawn_middleware *spawn_middleware; /* copied */
    size_t spawn_middleware_count;
    escqrs_log log; /* failures are said here */
    /* Timers run by a clock that moves only in escqrs_actor_system_advance, and no thread is made.
     * It is meant for a manual runtime. */
    bool virtual_time;
    escqrs_stepper stepper; /* with virtual time; zeroed: there are only the actors */
} escqrs_actor_system_options;

ESCQRS_MUST_USE escqrs_status escqrs_actor_system_create(const escqrs_actor_system_options *options,
                                                         escqrs_actor_system **system,
                                                         escqrs_error *error);
/* Refuse further spawns, stop the whole tree (children before parents), wait for it until the
 * deadline, and stop the runtime if it is the system's own. TIMEOUT names the actor whose handler
 * does not return, or one that has not stopped; call it again to wait on. DEADLOCK inside an actor.
 * Manual: runs the actors itself. Blocks; call it detached. */
ESCQRS_MUST_USE escqrs_status escqrs_actor_system_stop(escqrs_actor_system *system,
                                                       int64_t deadline_ns, escqrs_error *error);
/* After a stop that answered OK. References may be released later; NULL is fine. */
void escqrs_actor_system_destroy(escqrs_actor_system *system);

/* `name`: 1 to 1,024 bytes without '/' and NUL, not beginning with '$'; empty: a name of its own.
 * *ref is held for the caller, and set also for NAME_EXISTS (the one that has the name, held).
 * `ref` may be NULL. CLOSED while the system stops, INVALID, TOO_LARGE, NO_MEMORY. A name is free
 * again when its actor has handled Stopped. */
ESCQRS_MUST_USE escqrs_status escqrs_actor_system_spawn(escqrs_actor_system *system,
                                                        escqrs_props *props, escqrs_slice name,
                                                        escqrs_ref **ref, escqrs_error *error);
/* The living actor of that path, held; NULL: none. */
escqrs_ref *escqrs_actor_system_find(escqrs_actor_system *system, escqrs_slice path);
/* The children of the system (parent NULL) or of an actor, each held, into refs[0..max); returns
 * how many there are. */
size_t escqrs_actor_system_children(escqrs_actor_system *system, escqrs_ref *parent,
                                    escqrs_ref **refs, size_t max);
escqrs_runtime *escqrs_actor_system_runtime(escqrs_actor_system *system);
const escqrs_log *escqrs_actor_system_log(escqrs_actor_system *system);
size_t escqrs_actor_system_actor_count(escqrs_actor_system *system); /* not yet stopped */

/* Now, for timers: monotonic ns, or the virtual time (which begins at 0). */
int64_t escqrs_actor_system_now(escqrs_actor_system *system);
/* Virtual time: when the next timer is due, or the stepper; INT64_MAX: none. */
int64_t escqrs_actor_system_next_due(escqrs_actor_system *system);
/* Virtual time: move on to `now_ns` and fire what is due, in its order. */
void escqrs_actor_system_advance(escqrs_actor_system *system, int64_t now_ns);
/* Manual: escqrs_runtime_step, or that of the stepper; false: nothing is left to do at this time.
 */
bool escqrs_actor_system_step_now(escqrs_actor_system *system);
/* The same, and where time is virtual, advance to what is due next; false: nothing is left to do.
 */
bool escqrs_actor_system_step(escqrs_actor_system *system);

/* ---- inside an actor -------------------------------------------------------------------------- */

escqrs_ref *escqrs_context_self(escqrs_context *context);   /* borrowed */
escqrs_ref *escqrs_context_parent(escqrs_context *context); /* borrowed; NULL: the system */
escqrs_actor_system *escqrs_context_system(escqrs_context *context);
void *escqrs_context_user_data(escqrs_context *context);
void *escqrs_context_state(escqrs_context *context); /* what create gave; NULL before */
/* The context of the actor that this thread is in; NULL: none. */
escqrs_context *escqrs_context_current(void);
/* The message being handled, and its sender (borrowed); NULL: none, e.g. in create. */
escqrs_envelope *escqrs_context_message(escqrs_context *context);
escqrs_ref *escqrs_context_sender(escqrs_context *context);
/* The message being handled becomes the caller's; it is not destroyed after the call. NULL: none,
 * or a lifecycle message. Its sender goes with it: respond before. Where continuations share it, it
 * is a copy (NULL: its type has none). */
escqrs_envelope *escqrs_context_take(escqrs_context *context);

/* As escqrs_tell, through the middleware, and never blocking. `request` names this actor as the
 * sender, or `sender` where that is not NULL. `respond` tells the sender of the current message;
 * where there is none it is a dead letter. `forward` sends the current message on with its sender;
 * it is gone from here then. */
escqrs_status escqrs_context_tell(escqrs_context *context, escqrs_ref *to,
                                  escqrs_envelope *envelope);
escqrs_status escqrs_context_request(escqrs_context *context, escqrs_ref *to,
                                     escqrs_envelope *envelope, escqrs_ref *sender);
escqrs_status escqrs_context_respond(escqrs_context *context, escqrs_envelope *envelope);
escqrs_status escqrs_context_forward(escqrs_context *context, escqrs_ref *to);

/* A child. As escqrs_actor_system_spawn; CLOSED also when this actor is stopping. */
ESCQRS_MUST_USE escqrs_status escqrs_context_spawn(escqrs_context *context, escqrs_props *props,
                                                   escqrs_slice name, escqrs_ref **ref,
                                                   escqrs_error *error);
/* The child of that name, held; NULL: none. */
escqrs_ref *escqrs_context_child(escqrs_context *context, escqrs_slice name);

/* A Terminated when `other` has stopped: one, however often it was watched; at once if it has
 * already. No actor: INVALID. */
ESCQRS_MUST_USE escqrs_status escqrs_context_watch(escqrs_context *context, escqrs_ref *other,
                                                   escqrs_error *error);
/* No Terminated of it will be handled after this. */
void escqrs_context_unwatch(escqrs_context *context, escqrs_ref *other);

/* Say why, then return the result (FAILED) from the callback. `detail` is handed to the class's
 * failure_release in the end. `text` is copied. */
escqrs_turn_end escqrs_context_fail(escqrs_context *context, escqrs_status status, void *detail,
                                    const char *format, ...) ESCQRS_PRINTF(4, 5);

/* Restart this actor when its turn is over, as its supervisor would, and without asking it; it is
 * not counted. `again`: the message being handled, where it is a Terminated or no lifecycle
 * message, goes back before those that wait. NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_context_restart(escqrs_context *context, bool again,
                                                     escqrs_error *error);

/* Another receive function for the messages to come, above the present one; unbecome takes the
 * newest away (nothing happens where there is none). A restart forgets them. Lifecycle messages go
 * to it, too. TOO_LARGE: more than 256 deep; INVALID: no function; NO_MEMORY. */
typedef escqrs_turn_end (*escqrs_receive)(escqrs_context *context, void *state,
                                          escqrs_envelope *message);
ESCQRS_MUST_USE escqrs_status escqrs_context_become(escqrs_context *context, escqrs_receive receive,
                                                    escqrs_error *error);
void escqrs_context_unbecome(escqrs_context *context);

/* Put the current message aside. MAILBOX_FULL: there are stash_max already, and the message stays;
 * INVALID: a lifecycle message, none, or one without a copy that a continuation shares;
 * NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_context_stash(escqrs_context *context, escqrs_error *error);
/* All that were put aside are handled next, the oldest first, before what is in the mailbox. */
void escqrs_context_unstash_all(escqrs_context *context);
size_t escqrs_context_stash_count(const escqrs_context *context);

/* A ReceiveTimeout when no message (but `quiet` ones and signals) has been handled for so long;
 * again and again. 0: none. INVALID: negative; NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_context_set_receive_timeout(escqrs_context *context,
                                                                 int64_t timeout_ns,
                                                                 escqrs_error *error);

/* Tell `to` (NULL: this actor) the message after `delay_ns`; and again every `interval_ns` where
 * that is not 0 (its type needs a copy; a tick whose message is still in the mailbox is left out).
 * It ends with this actor's instance: at stop and restart. *timer (may be NULL) is held for the
 * caller. The message is taken always. INVALID: a negative time, or again without a copy;
 * NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_context_schedule(escqrs_context *context, escqrs_ref *to,
                                                      escqrs_envelope *envelope, int64_t delay_ns,
                                                      int64_t interval_ns, escqrs_timer **timer,
                                                      escqrs_error *error);
/* Any thread. Nothing of it is handled by an actor that cancels its own timer, after the call.
 * True: there was something left to cancel. */
bool escqrs_timer_cancel(escqrs_timer *timer);
void escqrs_timer_hold(escqrs_timer *timer);
void escqrs_timer_release(escqrs_timer *timer); /* it runs on; NULL is fine */

/* ---- going on later --------------------------------------------------------------------------- */

/* Something to be run inside an actor, before the messages that wait. Embedded in the caller's
 * struct. The message that was current when it was made is so again, with its sender: `respond`
 * answers the right one. It is destroyed when the turn and all continuations made in it are
 * through. */
typedef struct escqrs_continuation escqrs_continuation;
struct escqrs_continuation {
    struct escqrs_continuation *next; /* the runtime's, as is `kind` */
    uintptr_t kind;
    /* In the actor. It answers like receive (a failure is the actor's). */
    escqrs_turn_end (*run)(escqrs_context *context, void *state, escqrs_continuation *self);
    /* Once at the end: after run, or instead of it where the actor has been restarted or stopped
     * meanwhile. Free it here. Any thread. */
    void (*done)(escqrs_continuation *self);
    escqrs_ref *actor; /* the rest is the runtime's */
    struct esc_lease *lease;
    uint64_t instance;
};

/* In the actor: it will go on with this. It must be posted then, once. NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_context_continuation_init(escqrs_context *context,
                                                               escqrs_continuation *continuation,
                                                               escqrs_error *error);
/* Any thread, once: let it run now. */
void escqrs_continuation_post(escqrs_continuation *continuation);

/* Ask without blocking: `then` runs in this actor when the answer, a failure (`failure` is valid
 * during the call) or the timeout (status TIMEOUT; 0: none) is there, unless it has been restarted
 * or stopped. `answer` is destroyed after the call. The question is taken always; it does not pass
 * the actor's send middleware. INVALID: no `then`; NO_MEMORY. */
typedef escqrs_turn_end (*escqrs_then)(escqrs_context *context, void *state, void *data,
                                       escqrs_envelope *answer, const escqrs_failure *failure);
ESCQRS_MUST_USE escqrs_status escqrs_context_ask(escqrs_context *context, escqrs_ref *to,
                                                 escqrs_envelope *question, int64_t timeout_ns,
                                                 escqrs_then then, void *data, escqrs_error *error);

/* End a suspension (ESCQRS_TURN_SUSPEND), from any thread; one that is just coming ends at once. */
void escqrs_ref_resume(escqrs_ref *ref);

/* ---- mailboxes -------------------------------------------------------------------------------- */

typedef struct escqrs_mailbox_stats {
    size_t length;      /* messages that wait */
    size_t length_max;  /* the most that ever waited */
    uint64_t handled;   /* messages taken out */
    uint64_t waited_ns; /* the sum of the times they waited */
    int64_t waited_max_ns;
    uint64_t dropped; /* by drop_new and drop_old */
} escqrs_mailbox_stats;

/* False: it has none (no actor, or mailbox.statistics was not asked for). */
bool escqrs_ref_mailbox_stats(const escqrs_ref *ref, escqrs_mailbox_stats *stats);

/* ---- dead letters and topics ------------------------------------------------------------------ */

/* A message that nobody took. An event, published when it happens. */
extern const escqrs_message_type escqrs_dead_letter;
typedef struct escqrs_dead_letter_event {
    escqrs_envelope envelope;
    escqrs_ref *to;                /* NULL: a respond without sender */
    const escqrs_envelope *letter; /* what was not delivered, its sender in it; borrowed */
} escqrs_dead_letter_event;

/* Every failure of an actor, after it was decided on. */
extern const escqrs_message_type escqrs_failure_event;
typedef struct escqrs_failure_message {
    escqrs_envelope envelope;
    const escqrs_failure *failure;
    escqrs_directive directive; /* what was decided */
} escqrs_failure_message;

/* Receive what is published. `function` is called on the publisher's thread (attached as that is),
 * for every event of that type, or all where type is NULL; `event` is borrowed for the call. A call
 * may be under way on another thread when an unsubscribe returns. `released` (may be NULL): it will
 * not be called any more; it is not called where subscribing fails. INVALID: no function; CLOSED:
 * the system has stopped; NO_MEMORY. */
typedef void (*escqrs_event_function)(void *data, const escqrs_envelope *event);
ESCQRS_MUST_USE escqrs_status escqrs_subscribe(escqrs_actor_system *system,
                                               const escqrs_message_type *type,
                                               escqrs_event_function function, void *data,
                                               void (*released)(void *data),
                                               escqrs_subscription **subscription,
                                               escqrs_error *error);
/* The reference gets a copy of each (the type needs a copy function; without one it gets nothing).
 * Ends by itself when the actor has stopped, or the stream is closed. `subscription` may be NULL.
 * Errors as above. */
ESCQRS_MUST_USE escqrs_status escqrs_subscribe_ref(escqrs_actor_system *system,
                                                   const escqrs_message_type *type, escqrs_ref *ref,
                                                   escqrs_subscription **subscription,
                                                   escqrs_error *error);
void escqrs_unsubscribe(escqrs_subscription *subscription); /* frees the handle; NULL is fine */
/* Takes the event. Costs a load where nobody has subscribed. */
void escqrs_publish(escqrs_actor_system *system, escqrs_envelope *event);
bool escqrs_has_subscribers(escqrs_actor_system *system);

/* ---- routers ---------------------------------------------------------------------------------- */

/* A router is an actor that hands each message on, with its sender, to one or all of its routees.
 * A pool spawns them as its children and supervises them; a group is given references. Without
 * routees a message is a dead letter. A routee that stops is dropped. */
typedef enum escqrs_routing {
    ESCQRS_ROUTING_ROUND_ROBIN = 0,
    ESCQRS_ROUTING_RANDOM = 1,
    ESCQRS_ROUTING_BROADCAST = 2,        /* the message's type needs a copy */
    ESCQRS_ROUTING_CONSISTENT_HASH = 3,  /* needs `key` */
    ESCQRS_ROUTING_SMALLEST_MAILBOX = 4, /* routees of a pool count theirs; in a group one without
                                            statistics counts as 0 idle, 1 busy */
} escqrs_routing;

typedef struct escqrs_router_options {
    escqrs_routing routing;
    /* The hash of what decides; in the router, attached to its host. Where it cannot tell, it calls
     * escqrs_context_fail with escqrs_context_current(): the message is a failure of the router,
     * and what it returns does not count. */
    uint64_t (*key)(void *context, const escqrs_envelope *envelope);
    void *context;
    void (*failure_release)(void *detail); /* as an actor class has; of what `key` fails with */
    escqrs_host *host;                     /* of the router itself; NULL: native */
    escqrs_props *pool;                    /* of the routees; NULL: a group */
    size_t pool_size;
    escqrs_ref *const *group; /* the first routees of a group; held */
    size_t group_size;
    const escqrs_supervisor *supervisor; /* of a pool's routees; NULL: default */
    escqrs_random random;                /* RANDOM; zero: a manual runtime's, else chance */
    void (*release)(void *context);      /* the props are gone; may be NULL */
} escqrs_router_options;

/* Props of a router, to be spawned under any name. INVALID. */
ESCQRS_MUST_USE escqrs_status escqrs_router_props(const escqrs_router_options *options,
                                                  escqrs_props **props, escqrs_error *error);
/* While it runs, in the order of messages of this sender. To a pool, add with routee NULL spawns
 * one more, and removing poisons the routee. INVALID: no router; CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_router_add(escqrs_ref *router, escqrs_ref *routee,
                                                escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_router_remove(escqrs_ref *router, escqrs_ref *routee,
                                                   escqrs_error *error);
/* `asker` ends (CLOSED, without an answer) when the router has carried out what this sender ordered
 * before, or has stopped: escqrs_router_routees shows it then. INVALID: no router; CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_router_report(escqrs_ref *router, escqrs_future *asker,
                                                   escqrs_error *error);
/* The routees as of the last message that the router has handled, each held; returns how many. */
size_t escqrs_router_routees(escqrs_ref *router, escqrs_ref **refs, size_t max);

#ifdef __cplusplus
}
#endif

#endif
