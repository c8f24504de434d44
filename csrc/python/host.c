/* python/host.c - how C threads enter Python.
 *
 * A worker keeps one PyThreadState for its whole life and attaches with it, which is ten times
 * cheaper than PyGILState_Ensure. It is attached only while it runs Python code: never while it
 * sleeps, waits for the disk or holds a lock of the core. Every worker is joined by close(), so
 * none is alive when Python finalizes.
 */
#include "python/definition.h"
#include "python/state.h"
#include "python/system.h"

static _Thread_local const esc_py_system *own_system; /* whose worker this thread is */

bool esc_py_host_is_own_thread(const esc_py_system *system)
{
    return own_system == system;
}

static void *host_thread_begin(void *context)
{
    own_system = context;
    return PyThreadState_New(((esc_py_system *)context)->interpreter);
}

static void host_after_batch(void *context)
{
    Py_XDECREF(esc_py_definition_interruption()); /* a worker has no caller */
    esc_py_system_tidy(context);
}

const escqrs_host_ops esc_py_host_ops = {
    .thread_begin = host_thread_begin,
    .thread_end = esc_py_thread_end,
    .attach = esc_py_thread_attach,
    .detach = esc_py_thread_detach,
    .after_batch = host_after_batch,
};
