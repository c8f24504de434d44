/* python/loop.h - awaiting a reply or a stream in an asyncio event loop.
 *
 * Each loop that awaits has a LoopQueue: lock-free queues of replies that are done and of errands,
 * and an eventfd that the loop watches. `done` pushes without the GIL, and writes the eventfd only
 * when the queue was empty: one wake-up for all that is done until the loop comes to look. The loop
 * holds its queue (through add_reader), never the reverse.
 */
#ifndef ESC_PYTHON_LOOP_H
#define ESC_PYTHON_LOOP_H

#include "python/actor.h"
#include "python/reply.h"

/* tp_as_async.am_await of a reply. */
PyObject *esc_py_loop_await(PyObject *reply);
/* Hand a reply that is done to a LoopQueue, with the core's reference. Any thread, without the GIL.
 */
void esc_py_loop_push(PyObject *queue, esc_py_reply *reply);
/* Have an errand run by the loop of a LoopQueue, soon. Any thread, without the GIL. */
void esc_py_loop_push_errand(PyObject *queue, esc_py_loop_errand *errand);
/* A new future of the running loop, and, where `queue` is not NULL, the loop's LoopQueue (new
 * references); NULL without an exception: none runs on this thread. */
PyObject *esc_py_loop_future(struct esc_py_state *state, PyObject **queue);
/* What tp_iternext does to return a value, which is stolen: NULL with StopIteration. */
PyObject *esc_py_loop_return(PyObject *value);
/* Somebody else is to be told as well, and the loop of the first awaiter may have stopped or be
 * gone: completion goes by way of the system from now on. 0, or -1 with an exception. */
int esc_py_loop_leave(esc_py_reply *reply);
/* Wake a future of the running loop; one that is cancelled or done is left alone. */
void esc_py_loop_settle(PyObject *future);
/* Whether an event loop runs on this thread: 1, 0; -1 with an exception. */
int esc_py_loop_is_running(struct esc_py_state *state);
/* (reply.c) Ask to be notified with these bits; 1 if it was done already and has been notified
 * here. */
int esc_py_reply_notify_later(esc_py_reply *reply, uint32_t bits);

int esc_py_loop_exec(PyObject *module);

#endif
