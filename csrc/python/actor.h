/* python/actor.h - what the files of the actor binding share; see docs/architecture.md.
 *
 * Objects. An ActorSystem owns runtime, host and core system. A Ref wraps a core reference. A
 * Context is one instance of an actor: the core's state of it; it lives from `create` to `destroy`.
 * A recipe (es.Props) says how to make one. A mail is a Python object on its way.
 *
 * The GIL. Actors run attached. What the core gives back on other threads (mails, exceptions,
 * answers) goes on the system's queue of errands, which whoever has the GIL next drains.
 *
 * Garbage. Contexts and recipes are owned by the core, whose references the collector cannot see:
 * the system visits them in its place (the lists below), so that a system nobody can reach is
 * collected, though its actors hold references to it and to each other. What lies in mailboxes is
 * not visited: it keeps alive what it refers to until it is handled.
 */
#ifndef ESC_PYTHON_ACTOR_H
#define ESC_PYTHON_ACTOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/actor.h>

#include "base/list.h"
#include "base/queue.h"
#include "python/log.h"
#include "python/simulation.h"
#include "python/wait.h"

struct esc_py_state;
struct esc_py_persist;
struct esc_py_context;

/* ---- errands: what needs the GIL and comes without it -------------------------------------------- */

typedef struct esc_py_errand {
    esc_queue_node node;
    void (*run)(struct esc_py_errand *self); /* with the GIL */
} esc_py_errand;

typedef struct esc_py_mail esc_py_mail;

typedef struct esc_py_actor_system {
    PyObject_HEAD
    struct esc_py_state *state;
    PyInterpreterState *interpreter;
    escqrs_runtime *runtime;
    escqrs_host *host;
    escqrs_actor_system *core;
    unsigned fork_generation;
    _Atomic uint32_t closed; /* written with the GIL: 0 open, 1 closing, 2 closed */
    bool left_behind;        /* an actor did not come back: nothing of the core is destroyed */
    _Atomic bool listening;  /* somebody subscribed to events: the core's are wanted, too */
    escqrs_subscription *letters;
    escqrs_subscription *failures;
    esc_py_log log;
    esc_queue errands;
    /* The rest is guarded by the GIL. */
    esc_list contexts; /* esc_py_context.listed */
    esc_list recipes;  /* esc_py_recipe.listed */
    esc_py_mail *free_mails;
    unsigned free_mail_count;
    PyObject *supervisor;         /* es.OneForOne or None */
    struct esc_py_recipe *recent; /* of the producer that was spawned last, to be used again */
    bool manual;                  /* a seeded system of one thread: who waits runs the actors */
    esc_py_seeded *seeded;        /* then; see simulation.h */
    unsigned long thread;         /* the one that made it */
    escqrs_ref *loop;             /* held; the actor that runs its event loop, or NULL */
    esc_list simulated;           /* esc_py_system.simulated: what is open beside the actors */
    size_t simulated_count;
    PyObject *interruption;      /* seeded: a KeyboardInterrupt for who runs it; strong, or NULL */
    size_t objects, objects_max; /* references and contexts; the most since memory was given back */
    PyObject *weakrefs;
} esc_py_actor_system;

/* With the GIL: a reference or a context is made, or gone. Where most of very many are gone, the
 * memory of their actors goes back to the operating system. */
void esc_py_actor_made(esc_py_actor_system *system);
void esc_py_actor_gone(esc_py_actor_system *system);

/* Section of the module's state. */
typedef struct esc_py_actor_state {
    PyTypeObject *system_type;
    PyTypeObject *ref_type;
    PyTypeObject *context_type;
    PyTypeObject *reply_type; /* ActorReply */
    PyTypeObject *stream_type;
    PyTypeObject *recipe_type;
    PyTypeObject *timer_type;
    PyTypeObject *reentry_type;
    PyTypeObject *persistent_type; /* PersistentBase */
    PyObject *receive_name;        /* "receive" */
    bool priorities;               /* some recipe has an es.priority */
    bool tasks;                    /* some actor is async */
    PyObject *empty_headers;       /* a read-only mapping */
    /* What _actor.py binds, once, at import: see BOUND in actor_system.c. */
    PyObject *started, *stopping, *stopped, *restarting, *receive_timeout; /* instances */
    PyObject *terminated;                                                  /* class */
    PyObject *props;                                                       /* class */
    PyObject *envelope;                                                    /* class */
    PyObject *unanswered;                                                  /* class of errors.py */
    PyObject *abandoned;        /* abandoned(system, own_thread) */
    PyObject *await_reply;      /* await_reply(reply) -> iterator */
    PyObject *begin_blocking;   /* begin_blocking(system, reply, outside) -> tuple */
    PyObject *end_blocking;     /* end_blocking(*tuple) */
    PyObject *look_at_blocked;  /* look_at_blocked(system) */
    PyObject *compose;          /* compose(middleware, innermost) -> callable */
    PyObject *make_log;         /* make_log(context) -> logger */
    PyObject *letter;           /* letter(system, target, message, sender): a dead letter */
    PyObject *failed;           /* failed(system, ref, exception, message, directive) */
    PyObject *decide;           /* decide(supervisor, exception, seeded) -> number of a directive */
    PyObject *start_task;       /* start_task(context, coroutine) */
    PyObject *inside;           /* inside(context, method, args, kwargs): called in its actor */
    PyObject *run_now;          /* run_now(coroutine): to its end, which must not wait */
    PyObject *recover;          /* recover(context, store, name) -> version */
    PyObject *commit_provider;  /* commit_provider(store, name, events, expected, snapshot) */
    PyObject *delete_events;    /* delete_events(store, name, upto) */
    PyObject *delete_snapshots; /* likewise */
    PyObject *request_snapshot; /* RequestSnapshot() */
    PyObject *replay_complete;  /* class */
} esc_py_actor_state;

/* Whether this thread has the GIL. */
static inline bool esc_py_is_attached(void)
{
    PyThreadState *own = PyGILState_GetThisThreadState();
#if PY_VERSION_HEX >= 0x030D0000
    return own != NULL && own == PyThreadState_GetUnchecked();
#else
    return own != NULL && own == _PyThreadState_UncheckedGet();
#endif
}

/* Any thread: run it with the GIL, soon. */
void esc_py_errand_push(esc_py_actor_system *system, esc_py_errand *errand);
/* Run what is there. With the GIL; keeps the exception that is set. */
void esc_py_errands_run(esc_py_actor_system *system);
static inline void esc_py_errands_tidy(esc_py_actor_system *system)
{
    if (!esc_queue_is_empty(&system->errands)) {
        esc_py_errands_run(system);
    }
}

/* 0, or -1 with Forked, or (open) Closed. */
int esc_py_actor_system_check_fork(esc_py_actor_system *system);
/* As esc_py_deadline for those that follow: by a seeded system's own time where this thread runs
 * it. NULL: no such system. */
int esc_py_actor_deadline(esc_py_actor_system *self, PyObject *timeout, int64_t *deadline_ns);
/* esc_py_wait for something that the system's actors do. A seeded system runs them here, on this
 * thread, until `wait` is content; TIMEOUT when its own time is the deadline's, to which it moves
 * where nothing is left to do before. `first`, or NULL: the actor that goes before all others,
 * where this thread is inside another one, which cannot go on before this wait is over. */
int esc_py_actor_wait(esc_py_actor_system *self, esc_py_wait_function *wait, void *context,
                      escqrs_actor *first, int64_t deadline_ns);
/* A KeyboardInterrupt that met the code of an actor or of a supervisor, and that no asker gets: on
 * a seeded system it is raised where that is run. */
void esc_py_actor_interrupted(esc_py_actor_system *self, PyObject *exception);
int esc_py_actor_system_check_open(esc_py_actor_system *system);
/* Subscribers to the core's dead letters and failures: `data` is the system. Any thread. */
void esc_py_on_letter(void *data, const escqrs_envelope *event);
void esc_py_on_failure(void *data, const escqrs_envelope *event);

/* ---- mails --------------------------------------------------------------------------------------- */

/* A Python object as a message. A copy borrows from its master, which it keeps: so the core may
 * copy without the GIL. */
struct esc_py_mail {
    union {
        escqrs_envelope envelope; /* on its way */
        esc_py_errand errand;     /* afterwards, without the GIL */
        esc_py_mail *next_free;
    };
    esc_py_actor_system *system;
    PyObject *object;    /* strong; of a master */
    PyObject *headers;   /* strong, or NULL */
    escqrs_error *error; /* heap: an answer that is this failure; or NULL */
    bool is_exception;   /* an answer that is to be raised */
    int64_t priority;
    esc_py_mail *master;         /* NULL: it is one */
    _Atomic uint32_t references; /* of a master: itself and its copies */
    /* held back by a persistent actor's turn: */
    escqrs_ref *to;     /* held */
    escqrs_ref *sender; /* held, or NULL */
    esc_py_mail *next_held;
};

extern const escqrs_message_type esc_py_mail_type;
static inline esc_py_mail *esc_py_mail_of(escqrs_envelope *envelope)
{
    return (esc_py_mail *)envelope;
}
static inline PyObject *esc_py_mail_object(const esc_py_mail *mail) /* borrowed */
{
    return mail->master != NULL ? mail->master->object : mail->object;
}
static inline PyObject *esc_py_mail_headers(const esc_py_mail *mail) /* borrowed; or NULL */
{
    return mail->master != NULL ? mail->master->headers : mail->headers;
}
/* With the GIL; NULL with an exception. */
esc_py_mail *esc_py_mail_new(esc_py_actor_system *system, PyObject *object, PyObject *headers);
/* An answer that is a failure; any thread; NULL: no memory. */
esc_py_mail *esc_py_mail_new_error(esc_py_actor_system *system, const escqrs_error *error);
/* Tell who has subscribed to dead letters of a copy. Any thread. `to` may be NULL. */
void esc_py_letter_publish(esc_py_actor_system *system, escqrs_ref *to,
                           const escqrs_envelope *envelope);
void esc_py_mail_free_list(esc_py_actor_system *system);

/* ---- exceptions on their way --------------------------------------------------------------------- */

typedef struct esc_py_fault {
    esc_py_errand errand;
    esc_py_actor_system *system;
    _Atomic uint32_t references;
    PyObject *exception; /* strong */
} esc_py_fault;

/* Takes the current exception off the thread; `where` is the actor's path. NULL without an
 * exception: no memory. With the GIL. */
esc_py_fault *esc_py_fault_take(esc_py_actor_system *system, const char *where, PyObject *what);
void esc_py_fault_hold(esc_py_fault *fault);
void esc_py_fault_release(void *fault); /* any thread; NULL is fine */

/* ---- references ----------------------------------------------------------------------------------- */

typedef struct esc_py_ref {
    PyObject_HEAD
    esc_py_actor_system *system; /* strong */
    escqrs_ref *core;            /* held */
    PyObject *weakrefs;
} esc_py_ref;

/* New reference; holds `core` itself. */
PyObject *esc_py_ref_new(esc_py_actor_system *system, escqrs_ref *core);
/* Borrowed cast; NULL with TypeError. `what` names the argument. */
esc_py_ref *esc_py_ref_cast(struct esc_py_state *state, PyObject *object, const char *what);
/* The core's reference of what may stand as a sender: a Ref, or None (NULL); -1 with TypeError. */
int esc_py_ref_sender(struct esc_py_state *state, PyObject *object, escqrs_ref **sender);
/* Send; the mail is taken. Holds it back where this thread handles a message of a persistent actor.
 * 0, or -1 with MailboxFull, Timeout, KeyboardInterrupt. With the GIL. */
int esc_py_send(esc_py_ref *to, esc_py_mail *mail, escqrs_ref *sender);
static inline escqrs_actor *esc_py_ref_actor(PyObject *ref) /* for the graph of waits; or NULL */
{
    escqrs_ref *core = ref == NULL ? NULL : ((esc_py_ref *)ref)->core;
    return core == NULL || escqrs_ref_kind_of(core) != ESCQRS_REF_ACTOR ? NULL
                                                                        : (escqrs_actor *)core;
}
/* The same with a mail made for it. 0 or -1. */
int esc_py_ref_tell(esc_py_ref *to, PyObject *message, PyObject *headers, escqrs_ref *sender);
PyObject *esc_py_ref_path(escqrs_ref *core); /* "/a/b"; new reference */

/* ---- recipes -------------------------------------------------------------------------------------- */

typedef struct esc_py_recipe {
    PyObject_HEAD
    PyObject *producer;
    PyObject *middleware;        /* tuple without es.persistence */
    PyObject *sender_middleware; /* tuple */
    PyObject *spawn_middleware;
    PyObject *supervisor;  /* or None */
    PyObject *priority;    /* function or None */
    PyObject *persistence; /* (store, snapshot_every) or None */
    PyObject *router;      /* (routing, key or None, size or tuple of Ref) or None */
    Py_ssize_t capacity;
    int on_full;
    bool statistics;
    double receive_timeout; /* seconds; 0: none */
    Py_ssize_t stash_max;
    /* What it is in one system. */
    esc_py_actor_system *system; /* borrowed: whose `props` they are; reset with it */
    escqrs_props *props;         /* one reference */
    bool owned;                  /* the core's props hold a reference to this object */
    esc_list_node listed;        /* while they do */
    esc_py_errand errand;
} esc_py_recipe;

/* A Props as it is, or one around a producer. New reference; TypeError. */
esc_py_recipe *esc_py_recipe_from(struct esc_py_state *state, PyObject *object);
/* Props of the core, one reference for the caller; NULL with an exception. */
escqrs_props *esc_py_recipe_props(esc_py_recipe *self, esc_py_actor_system *system);
/* Ask the function of es.priority, where the target has one. 0, or -1 with its exception. */
int esc_py_recipe_prioritize(esc_py_ref *to, esc_py_mail *mail);
/* What a supervisor decides about a failure. Attached. */
escqrs_directive esc_py_supervise(esc_py_actor_system *system, PyObject *supervisor,
                                  const escqrs_failure *failure);
/* 0, or -1 with an exception: from an es.OneForOne. */
int esc_py_supervisor_fill(PyObject *supervisor, escqrs_supervisor *out);
/* The children of an actor (NULL: of the system) as a tuple of references. */
PyObject *esc_py_children(esc_py_actor_system *system, escqrs_ref *parent);
/* A tuple of all that `list` gives, which puts at most `max` into refs and returns how many there
 * are. */
typedef size_t esc_py_list_refs(esc_py_actor_system *system, escqrs_ref *of, escqrs_ref **refs,
                                size_t max);
PyObject *esc_py_refs(esc_py_actor_system *system, escqrs_ref *of, esc_py_list_refs *list);
/* Spawn under `parent` (NULL: the system). New reference to a Ref. */
PyObject *esc_py_spawn(esc_py_actor_system *system, struct esc_py_context *parent, PyObject *what,
                       PyObject *name);
extern const escqrs_actor_class esc_py_actor_class;

/* ---- contexts ------------------------------------------------------------------------------------- */

typedef struct esc_py_context {
    PyObject_HEAD
    esc_py_actor_system *system; /* strong */
    escqrs_context *core;        /* NULL once the instance is gone */
    esc_py_recipe *recipe;       /* strong */
    escqrs_ref *ref;             /* held */
    PyObject *self;              /* Ref, once asked for */
    PyObject *actor;             /* the instance */
    PyObject *receiver;          /* receive(ctx, message): the instance's, or the last become */
    PyObject *chain;             /* with middleware around it; NULL: there is none */
    PyObject *behaviours;        /* list of earlier receivers; or NULL */
    PyObject *message;           /* being handled, or NULL */
    escqrs_envelope *envelope;   /* likewise; NULL: a lifecycle message, or it was taken */
    PyObject *send_chain;
    PyObject *spawn_chain;
    PyObject *log;
    struct esc_py_persist *persist; /* or NULL */
    /* An async receive that is under way: */
    escqrs_ref *asker; /* sender of its message, held */
    PyObject *outcome; /* None, or the exception it ended with; NULL: not yet */
    bool suspended;
    bool forwarded;         /* the message went on to another actor, which may answer */
    bool continued;         /* the message goes on in a continuation: its asker waits for that */
    PyObject *task_headers; /* of its message; or NULL */
    PyObject *inside;      /* list of [function, result, exception, event] to be run in the actor */
    bool works_inside;     /* one of them is being run */
    escqrs_ref *waits_for; /* held: whom its task waits for, in the graph of waits; or NULL */
    PyObject *waits_until; /* strong: the reply that it waits for there, or NULL */
    escqrs_wait wait;
    esc_list_node listed;
    PyObject *weakrefs;
} esc_py_context;

/* Give the receiver a message: through middleware, and with ctx.message set to it. New reference or
 * NULL. */
PyObject *esc_py_context_call(esc_py_context *self, PyObject *message);
/* The current exception is a failure of the actor. */
escqrs_turn_end esc_py_context_fail(esc_py_context *self);
/* The same without a context; `message`: what was handled; NULL: the producer raised. */
escqrs_turn_end esc_py_fail(esc_py_actor_system *system, escqrs_context *core, PyObject *message);
/* The current exception is that of something the actor did beside its message, which goes on: it
 * is logged and published as a failure in `message`. */
void esc_py_context_note(esc_py_context *self, PyObject *message);
/* Log and publish a failure that no supervisor decides on: `fault` or, where that is NULL, `error`,
 * whose text is logged; `message`: the name of the message's type, "" for none. RESTART or RESUME.
 * Any thread, with or without the GIL. */
void esc_py_failed_publish(esc_py_actor_system *system, escqrs_ref *who, esc_py_fault *fault,
                           const escqrs_error *error, const char *message,
                           escqrs_directive directive);

/* ---- module --------------------------------------------------------------------------------------- */

extern PyType_Spec esc_py_answer_spec, esc_py_ref_spec, esc_py_context_spec, esc_py_recipe_spec,
    esc_py_stream_spec, esc_py_timer_spec, esc_py_reentry_spec, esc_py_actor_system_spec;

int esc_py_actor_exec(PyObject *module);
int esc_py_actor_traverse_state(esc_py_actor_state *section, visitproc visit, void *arg);
void esc_py_actor_clear_state(esc_py_actor_state *section);

#endif
