/* python/reply.h - a command on its way, and what came of it (es.Reply).
 *
 * One object serves as the core's command, the caller's future, and the carrier of the result.
 *
 * References. While the core has the command it owns one reference. `done` comes on any thread
 * without the GIL, so it cannot drop it: the reply goes on one of two lock-free queues of its
 * system (released, or completed where Python code must run: callbacks, futures, a failure to log)
 * or on the queue of one event loop, and whoever holds the GIL next drains them.
 *
 * State word: DONE is set once by `done` with release order, after status and error are written;
 * SLEEPERS and NOTIFY are set by threads with the GIL, before they rely on being told. Whoever sets
 * NOTIFY and finds DONE already there completes the reply himself. `value` and `exception` are
 * written with the GIL before `done` can come.
 */
#ifndef ESC_PYTHON_REPLY_H
#define ESC_PYTHON_REPLY_H

#include "python/system.h"

struct esc_py_handle;
struct esc_py_definition;

#define ESC_PY_REPLY_DONE 1u
#define ESC_PY_REPLY_SLEEPERS 2u
#define ESC_PY_REPLY_NOTIFY 4u
#define ESC_PY_REPLY_LOOP 8u     /* with NOTIFY: tell `loop`, not the system */
#define ESC_PY_REPLY_DROPPED 16u /* with DONE: by close(), which gave up; `done` may still come */

typedef struct esc_py_reply {
    PyObject_HEAD
    escqrs_command command;
    esc_queue_node queued;
    esc_list_node listed; /* in system->replies, once handed over; with the GIL */
    _Atomic uint32_t word;
    bool asked;           /* its sender waits, and tidies up himself */
    bool told;            /* nobody looks at the result: failures are logged */
    bool explained;       /* `exception` says why it failed, not what the handler raised */
    escqrs_status status; /* valid once DONE, unless DROPPED */
    escqrs_error *error;  /* heap; NULL where memory was short or status says all */
    uint64_t
        held_turn; /* serial of the turn that holds it back until its events are durable; 0: none */
    esc_py_system *system;                /* strong */
    escqrs_entity *entity;                /* held */
    struct esc_py_definition *definition; /* borrowed: lives as long as the system */
    PyObject *message;                    /* the command; dropped once handled */
    PyObject *value;                      /* the handler's answer */
    PyObject *exception;                  /* what the handler raised */
    PyObject *future;                     /* of the first awaiting loop */
    PyObject *loop;                       /* LoopQueue of that loop */
    PyObject *callbacks;                  /* list of callables and (loop, future) pairs */
    PyObject *keep;        /* objects whose memory `command` borrows: metadata, key */
    escqrs_pair *metadata; /* heap */
    void *repeated;        /* stored reply of a repeated key, heap */
    size_t repeated_size;
} esc_py_reply;

typedef struct esc_py_reply_state {
    PyTypeObject *type; /* Reply */
    PyTypeObject *await_type;
    PyTypeObject *loop_type;    /* LoopQueue */
    PyObject *loops;            /* WeakKeyDictionary: loop -> LoopQueue */
    PyObject *get_running_loop; /* asyncio's, fetched when first needed */
    PyObject *decode_reply;     /* _aggregate.decode_reply(definition class, command, text) */
    PyObject *loop_cache;       /* the LoopQueue used last */
    PyObject *set_future; /* function of _system.py: settle a future from another thread's loop */
} esc_py_reply_state;

/* A reply for sending `message` to `entity`; the caller then sets key, metadata and the like. */
esc_py_reply *esc_py_reply_new(struct esc_py_state *state, esc_py_system *system,
                               struct esc_py_definition *definition, escqrs_entity *entity,
                               PyObject *message);
/* The core's reference: before the command is given to it, and where it was refused. With the GIL.
 */
void esc_py_reply_hand_over(esc_py_reply *reply);
void esc_py_reply_take_back(esc_py_reply *reply);
extern const escqrs_command_ops esc_py_reply_ops;
static inline esc_py_reply *esc_py_reply_of(escqrs_command *command)
{
    return (esc_py_reply *)((char *)command - offsetof(esc_py_reply, command));
}
bool esc_py_reply_is_done(esc_py_reply *reply);
/* What the handler raised; takes the exception over. With the GIL. */
void esc_py_reply_fail(esc_py_reply *reply, PyObject *exception);
/* Wait (signals checked) until it is done: 0; -1 with an exception: Timeout, Deadlock,
 * KeyboardInterrupt. */
int esc_py_reply_wait(esc_py_reply *reply, int64_t deadline_ns);
/* -1 with Deadlock where a handler that this thread is in has sent it, so that it leaves only
 * afterwards. */
int esc_py_reply_refuse_own(esc_py_reply *reply);
/* The value (new reference), or NULL with the handler's or the engine's exception set. Done replies
 * only. */
PyObject *esc_py_reply_result(esc_py_reply *reply);
/* Callbacks, futures, log; then drop the core's reference. With the GIL. */
void esc_py_reply_complete(esc_py_reply *reply);
/* close() gives up: unless it is done, the reply is Closed from now on, and whoever waits is told.
 * The core keeps its reference. With the GIL; runs callbacks. */
void esc_py_reply_drop(esc_py_reply *reply);

/* Take the current exception off the thread, note where it was raised ("in Cart/cart-1 handling
 * AddItem" and the frames of its traceback as text) and let go of its frames. New reference. */
PyObject *esc_py_exception_take(const char *where, PyObject *what);
/* Set it again at a caller, without growing it. */
void esc_py_exception_raise(PyObject *exception);

int esc_py_reply_exec(PyObject *module);
int esc_py_reply_traverse_state(esc_py_reply_state *section, visitproc visit, void *arg);
void esc_py_reply_clear_state(esc_py_reply_state *section);

#endif
