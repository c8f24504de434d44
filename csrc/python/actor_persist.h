/* python/actor_persist.h - es.PersistentActor: what a message persists, and what waits for it.
 *
 * A *turn* is one message of a persistent actor. What it persists is applied at once and collected;
 * what it sends and answers is held back. At its end that goes to the store as one commit, a
 * *flight*, and the actor goes on with the next message; when the flight has landed, what was held
 * back leaves, in order, on the thread that led the batch and without the GIL. A turn without
 * events, while flights are under way, is a flight too: its answers rest on what may still fail.
 *
 * When a flight fails, nothing of it leaves, its asker gets the error, those behind it fail as well
 * (they are of one lane), and the actor is *stale*: before the next message it waits for the lane
 * to empty, and is made anew and recovered from what is stored. What it persists before its
 * first message (at ReplayComplete, in a continuation, at Terminated) belongs to its start: the
 * actor is suspended until that has landed, and a flight that fails then is its supervisor's
 * matter, for whom restarts are counted.
 */
#ifndef ESC_PYTHON_ACTOR_PERSIST_H
#define ESC_PYTHON_ACTOR_PERSIST_H

#include "python/actor.h"

typedef struct esc_py_persist esc_py_persist;

/* The open turn that this thread is in, for comparison; NULL: none, sends leave at once. */
const void *esc_py_persist_holds(void);
/* Keep the mail for the end of that turn; takes it. */
void esc_py_persist_hold(escqrs_ref *to, esc_py_mail *mail, escqrs_ref *sender);
/* Around an ask, which leaves at once, as what it runs on this thread does. */
const void *esc_py_persist_suspend(void);
void esc_py_persist_resume(const void *turn);
/* Around an ask that runs the actor on this thread: it commits here, too. Gives what was before. */
const void *esc_py_persist_asks_here(const escqrs_envelope *envelope);
/* How many references its turn has of the message's asker: 0 or 1. */
unsigned esc_py_persist_asks(esc_py_context *context);
/* Whether that turn is open still. */
bool esc_py_persist_is_open(const void *turn);
/* Around what a context sends, on whatever thread (an async receive). */
const void *esc_py_persist_enter(esc_py_context *context);
void esc_py_persist_leave(esc_py_context *context, const void *turn);

/* Set the TypeError for a PersistentActor without es.persistence, and for another one with it. */
void esc_py_persist_refuse_storeless(PyTypeObject *cls);
void esc_py_persist_refuse_other(PyTypeObject *cls);
/* The new instance is a PersistentActor. 0, or -1 with an exception. */
int esc_py_persist_begin(esc_py_context *context);
/* It is over: waits for its flights. Twice is once. */
void esc_py_persist_end(esc_py_context *context);
/* A message begins; or with NULL, a continuation. 1: not with this instance, which is stale: the
 * actor restarts, and the message comes again, unless it was about the end of this instance. 0, or
 * -1 with an exception. */
int esc_py_persist_open(esc_py_context *context, escqrs_envelope *envelope);
/* Its Started was handled with this result, which is stolen and given back; NULL: an exception. */
PyObject *esc_py_persist_recover(esc_py_context *context, PyObject *result);
/* The message was handled with this result (NULL: an exception), which is stolen. Gives it back;
 * NULL with an exception where the message has failed. */
PyObject *esc_py_persist_finish(esc_py_context *context, PyObject *result);
/* What was handled belongs to the start, and what it has persisted is under way: the actor is to be
 * suspended until it is resumed, and this is false after esc_py_persist_land. */
bool esc_py_persist_is_landing(const esc_py_context *context);
/* It was resumed. None; NULL with an exception where the flight has failed. New reference. */
PyObject *esc_py_persist_land(esc_py_context *context);

int esc_py_persist_exec(PyObject *module);

#endif
