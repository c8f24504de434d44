/* python/wait.h - waiting for the core without the GIL, so that Ctrl-C works and other workers run.
 *
 * Only the thread on which Python runs signal handlers wakes now and then to look for them: of the
 * others there may be thousands, in asks of handlers.
 */
#ifndef ESC_PYTHON_WAIT_H
#define ESC_PYTHON_WAIT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/runtime.h>

#define ESC_PY_SLICE_NS 100000000 /* between two looks for signals */

/* Wait: OK or another status of what is waited for; TIMEOUT where `deadline_ns` (monotonic) has
 * passed. Detached. */
typedef escqrs_status esc_py_wait_function(void *context, int64_t deadline_ns);
/* Call it until it answers something else than TIMEOUT or `deadline_ns` (INT64_MAX: never) has
 * passed, and return that (NO_MEMORY: every worker waits and no thread can be started); or -1 with
 * an exception set (Ctrl-C): on the thread that runs Python's signal handlers it is called in
 * slices of at most 100 ms. Lets other workers run meanwhile. What it waits for must be pinned. */
int esc_py_wait(esc_py_wait_function *wait, void *context, int64_t deadline_ns);
/* The same in slices on any thread, for what another thread may change meanwhile. */
int esc_py_wait_in_slices(esc_py_wait_function *wait, void *context, int64_t deadline_ns);
/* Seconds from Python (None: never; negative: now) as a monotonic deadline; -1 with an exception
 * set. */
int esc_py_deadline(PyObject *timeout, int64_t *deadline_ns);
/* The same as ns from now; INT64_MAX: never. */
int esc_py_timeout(PyObject *timeout, int64_t *left_ns);
/* A float or an int, which is infinite where a double cannot hold it; -1 with an exception set. */
int esc_py_as_double(PyObject *number, double *value);

#endif
