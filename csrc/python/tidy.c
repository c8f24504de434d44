/* python/tidy.c - what piles up without the GIL and is done by whoever has it next: replies that
 * the core has let go of are dropped, callbacks run, log lines reach Python's logging.
 *
 * Any thread pushes on the system's lock-free queues; the GIL orders those who take from them.
 */
#include <limits.h>
#include <string.h>

#include "base/thread.h"
#include "python/definition.h"
#include "python/reply.h"
#include "python/simulation.h"
#include "python/state.h"

static _Thread_local int tidying; /* callbacks that this thread is in */

void esc_py_system_push_completed(esc_py_system *self, esc_py_reply *reply)
{
    /* relaxed: whoever waits for zero has seen the reply done, which comes after the command is
     * counted out */
    (void)atomic_fetch_add_explicit(&self->completing, 1, memory_order_relaxed);
    esc_queue_push(&self->completed, &reply->queued);
    escqrs_host_poke(self->host);
}

static void complete(esc_py_system *self, esc_py_reply *reply)
{
    tidying++;
    esc_py_reply_complete(reply);
    tidying--;
    /* release: pairs with the acquire in wait_completed */
    if (atomic_fetch_sub_explicit(&self->completing, 1, memory_order_release) == 1) {
        esc_futex_wake(&self->completing, INT_MAX);
    }
}

static escqrs_status wait_completed(void *context, int64_t deadline_ns)
{
    _Atomic uint32_t *completing = context;
    uint32_t now;
    while ((now = atomic_load_explicit(completing, memory_order_acquire)) != 0) {
        if (!esc_futex_wait(completing, now, deadline_ns)) {
            return ESCQRS_TIMEOUT;
        }
    }
    return ESCQRS_OK;
}

int esc_py_system_wait_completed(esc_py_system *self, int64_t deadline_ns)
{
    return esc_py_system_wait(self, wait_completed, &self->completing, NULL, deadline_ns);
}

bool esc_py_is_tidying(void)
{
    return tidying > 0;
}

void esc_py_system_tidy(esc_py_system *self)
{
    PyObject *error_type, *value,
        *traceback; /* the caller may be about to raise; destructors and callbacks run here */
    PyErr_Fetch(&error_type, &value, &traceback);
    Py_INCREF((PyObject *)self); /* the last reply may hold the last reference */
    esc_queue_node *node = esc_queue_take_all(&self->released);
    while (node != NULL) {
        esc_queue_node *next = node->next;
        Py_DECREF((PyObject *)((char *)node - offsetof(esc_py_reply, queued)));
        node = next;
    }
    node = esc_py_turn_current() == NULL ? esc_queue_take_all(&self->completed) : NULL;
    while (node != NULL) {
        esc_queue_node *next = node->next;
        complete(self, (esc_py_reply *)((char *)node - offsetof(esc_py_reply, queued)));
        node = next;
    }
    esc_py_log_drain(&self->keeper->log);
    Py_DECREF((PyObject *)self);
    PyErr_Restore(error_type, value, traceback);
}

/* What the core has not answered says so now. */
void esc_py_system_drop_replies(esc_py_system *self)
{
    /* Callbacks may send and let go of replies: each is held while it is dropped, and stays in its
     * place. */
    esc_list_node *node = esc_list_first(&self->replies);
    PyObject *held = NULL;
    tidying++;
    while (node != NULL) {
        esc_py_reply *reply = ESC_CONTAINER_OF(node, esc_py_reply, listed);
        Py_XSETREF(held, Py_NewRef((PyObject *)reply));
        esc_py_reply_drop(reply);
        node = esc_list_next(&self->replies, node);
    }
    tidying--;
    Py_XDECREF(held);
}
