/* python/loop.h - awaiting a reply in an asyncio event loop.
 *
 * Each loop that awaits replies has a LoopQueue: a lock-free queue of replies that are done, and an
 * eventfd that the loop watches. `done` pushes without the GIL, and writes the eventfd only when
 * the queue was empty: one wake-up for all that is done until the loop comes to look. The loop
 * holds its queue (through add_reader), never the reverse.
 */
#ifndef ESC_PYTHON_LOOP_H
#define ESC_PYTHON_LOOP_H

#include "python/reply.h"

/* tp_as_async.am_await of a reply. */
PyObject *esc_py_loop_await(PyObject *reply);
/* Hand a reply that is done to a LoopQueue, with the core's reference. Any thread, without the GIL.
 */
void esc_py_loop_push(PyObject *queue, esc_py_reply *reply);
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
