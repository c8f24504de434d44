/* python/wait.c - see wait.h. Locks: none. */
#include "python/wait.h"

#include "base/thread.h"

int esc_py_as_double(PyObject *number, double *value)
{
    *value = PyFloat_AsDouble(number);
    if (*value != -1.0 || !PyErr_Occurred()) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
        return -1;
    }
    PyErr_Clear(); /* an int of more than 300 digits */
    int positive = PyObject_RichCompareBool(number, Py_False, Py_GT);
    *value = positive ? Py_HUGE_VAL : -Py_HUGE_VAL;
    return positive < 0 ? -1 : 0;
}

int esc_py_timeout(PyObject *timeout, int64_t *left_ns)
{
    *left_ns = INT64_MAX;
    if (timeout == NULL || timeout == Py_None) {
        return 0;
    }
    if (PyBool_Check(timeout) || (!PyFloat_Check(timeout) && !PyLong_Check(timeout))) {
        PyErr_Format(PyExc_TypeError, "timeout is a number of seconds or None, not %s",
                     Py_TYPE(timeout)->tp_name);
        return -1;
    }
    double seconds;
    if (esc_py_as_double(timeout, &seconds) < 0) {
        return -1;
    }
    if (seconds != seconds) {
        PyErr_SetString(PyExc_ValueError, "timeout is NaN");
        return -1;
    }
    if (seconds < 1e9) {
        *left_ns = seconds <= 0 ? 0 : (int64_t)(seconds * 1e9 + 0.5);
    }
    return 0;
}

int esc_py_deadline(PyObject *timeout, int64_t *deadline_ns)
{
    int64_t left_ns;
    if (esc_py_timeout(timeout, &left_ns) < 0) {
        return -1;
    }
    *deadline_ns = left_ns == INT64_MAX ? INT64_MAX : esc_deadline_after(left_ns);
    return 0;
}

/* Whether Python runs signal handlers on this thread; -1 with an exception. Looked up once a
 * thread. */
static int runs_signal_handlers(void)
{
    static _Thread_local struct {
        unsigned generation; /* after fork the thread that forked is the main one */
        bool known, is_main;
    } here;
    if (here.known && here.generation == escqrs_fork_generation()) {
        return here.is_main;
    }
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *main = NULL, *ident = NULL;
    if (threading != NULL) {
        main = PyObject_CallMethod(threading, "main_thread", NULL);
        Py_DECREF(threading);
    }
    if (main != NULL) {
        ident = PyObject_GetAttrString(main, "ident");
        Py_DECREF(main);
    }
    if (ident == NULL) {
        return -1;
    }
    unsigned long number = PyLong_AsUnsignedLongMask(ident);
    Py_DECREF(ident);
    if (PyErr_Occurred()) {
        return -1;
    }
    here.is_main = number == PyThread_get_thread_ident();
    here.generation = escqrs_fork_generation();
    here.known = true;
    return here.is_main;
}

static escqrs_status wait_detached(esc_py_wait_function *wait, void *context, int64_t deadline_ns)
{
    escqrs_status status = escqrs_runtime_block() ? wait(context, deadline_ns) : ESCQRS_NO_MEMORY;
    escqrs_runtime_unblock();
    return status;
}

int esc_py_wait_in_slices(esc_py_wait_function *wait, void *context, int64_t deadline_ns)
{
    for (;;) {
        escqrs_status status;
        int64_t slice_ns = esc_deadline_after(ESC_PY_SLICE_NS);
        bool last = slice_ns >= deadline_ns;
        Py_BEGIN_ALLOW_THREADS
        status = wait_detached(wait, context, last ? deadline_ns : slice_ns);
        Py_END_ALLOW_THREADS
        if (status != ESCQRS_TIMEOUT) {
            return (int)status;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (last) {
            return ESCQRS_TIMEOUT;
        }
    }
}

int esc_py_wait(esc_py_wait_function *wait, void *context, int64_t deadline_ns)
{
    int sliced = runs_signal_handlers();
    if (sliced != 0) {
        return sliced < 0 ? -1 : esc_py_wait_in_slices(wait, context, deadline_ns);
    }
    /* Thousands may wait at once, in asks of handlers: none of them wakes for nothing. */
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = wait_detached(wait, context, deadline_ns);
    Py_END_ALLOW_THREADS
    return (int)status;
}
