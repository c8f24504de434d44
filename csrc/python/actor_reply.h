/* python/actor_reply.h - the answer to what an actor is asked (es.ActorReply).
 *
 * It is the core's future and the caller's at once. The future's `complete` comes on any thread,
 * with or without the GIL: it keeps the mail, exception or error as it is, and sets DONE with
 * release order; SLEEPERS and NOTIFY are set by threads with the GIL before they rely on being
 * told. What Python sees of it (value, exception) is made when it is read.
 *
 * References. The core's are counted by the future; together they are one of the Python object,
 * which `released` gives back. A second one stands for the callbacks, from the first until they
 * ran.
 */
#ifndef ESC_PYTHON_ACTOR_REPLY_H
#define ESC_PYTHON_ACTOR_REPLY_H

#include "python/actor.h"

#define ESC_PY_ANSWER_DONE 1u /* bit 0: escqrs_actor_wait_until */
#define ESC_PY_ANSWER_SLEEPERS 2u
#define ESC_PY_ANSWER_NOTIFY 4u

typedef struct esc_py_answer {
    PyObject_HEAD
    escqrs_future future;
    _Atomic uint32_t word;
    esc_py_errand completed; /* to run callbacks */
    esc_py_errand released;
    esc_py_actor_system *system; /* strong */
    PyObject *target;            /* strong: the Ref that was asked */
    esc_py_mail *mail;           /* what came: an answer, */
    esc_py_fault *fault;         /* or what the actor raised, */
    escqrs_error *error;         /* or why there is none; NULL with neither: no memory */
    PyObject *exception;         /* made of them when first read */
    PyObject *callbacks;         /* list, or NULL */
    bool asking;         /* the asker's thread runs the actor, and has a reference meanwhile */
    const void *held_by; /* the turn that holds the question back; compared only */
} esc_py_answer;

/* A reply, and with it the core's reference, which the caller gives back with
 * escqrs_ref_release(&reply->future.ref) once it has sent. New reference. */
esc_py_answer *esc_py_answer_new(esc_py_actor_system *system, esc_py_ref *target);
/* The reply whose future this is; NULL: it is none. */
esc_py_answer *esc_py_answer_of(escqrs_ref *ref);
bool esc_py_answer_is_done(esc_py_answer *self);
/* Wait: 0, or -1 with Timeout, Deadlock, KeyboardInterrupt. */
int esc_py_answer_wait(esc_py_answer *self, int64_t deadline_ns);
/* What a thread that is about to wait for a reply says, and what a circle of waits is found by. */
typedef struct esc_py_waiting {
    escqrs_actor *actor; /* that it runs; or NULL */
    escqrs_wait wait;
    PyObject *loop; /* what end_blocking takes, where it runs an event loop; or NULL */
} esc_py_waiting;
/* 0, or -1 with Deadlock. `end` keeps the exception that is set. */
int esc_py_waiting_begin(esc_py_waiting *self, esc_py_answer *reply);
void esc_py_waiting_end(esc_py_waiting *self, esc_py_answer *reply);
/* Of one that is done: the value (new reference), or NULL with its exception set. */
PyObject *esc_py_answer_result(esc_py_answer *self);
/* Tell an asker the current exception, which is cleared. With the GIL. */
void esc_py_answer_raise(esc_py_actor_system *system, escqrs_ref *asker);

#endif
