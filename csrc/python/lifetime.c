/* python/lifetime.c - see lifetime.h. Locks: none; the GIL. */
#include "python/lifetime.h"

#include "python/errors.h"
#include "python/state.h"

/* Apart from its callers: an error is large, and what is called for each event should not clear
 * one.
 */
int esc_py_refuse_file(esc_py_state *state, PyObject *path, bool own)
{
    escqrs_error error = {0};
    if (own) {
        (void)escqrs_error_set(&error, ESCQRS_CLOSED, "%s is closed", PyUnicode_AsUTF8(path));
    } else {
        (void)escqrs_error_set(&error, ESCQRS_FORKED,
                               "%s was opened by the parent process and cannot be used after "
                               "fork; open it in this process, once the parent has closed it",
                               PyUnicode_AsUTF8(path));
    }
    esc_py_raise(state, &error);
    return -1;
}

bool esc_py_dealloc_begin(PyObject *object, PyObject **weakrefs)
{
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
        return false;
    }
    PyObject_GC_UnTrack(object);
    if (*weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    return true;
}

void esc_py_thread_end(void *Py_UNUSED(context), void *state)
{
    PyEval_RestoreThread(state);
    PyThreadState_Clear(state);
    PyThreadState_DeleteCurrent();
}

void esc_py_thread_attach(void *Py_UNUSED(context), void *state)
{
    PyEval_RestoreThread(state);
}

void *esc_py_thread_detach(void *Py_UNUSED(context))
{
    return PyEval_SaveThread();
}
