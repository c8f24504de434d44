/* python/lifetime.h - what the objects that own a part of the core share: whose process they are
 * of, how they refuse to be used, and how their memory goes. All of it with the GIL. */
#ifndef ESC_PYTHON_LIFETIME_H
#define ESC_PYTHON_LIFETIME_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/base.h>

struct esc_py_state;

/* Made in this process, with that generation; false: in a parent of it, before a fork. */
static inline bool esc_py_is_own(unsigned fork_generation)
{
    return __builtin_expect(fork_generation == escqrs_fork_generation(), 1);
}

/* -1 with the exception for a file that is used after close() or, when `own` is false, after fork.
 */
int esc_py_refuse_file(struct esc_py_state *state, PyObject *path, bool own);

/* The beginning of a tp_dealloc with a tp_finalize: false where that has brought the object back,
 * which is to be left alone. */
bool esc_py_dealloc_begin(PyObject *object, PyObject **weakrefs);

/* Of escqrs_host_ops: a worker's own PyThreadState, which host_thread_begin has made. */
void esc_py_thread_end(void *context, void *state);
void esc_py_thread_attach(void *context, void *state);
void *esc_py_thread_detach(void *context);

#endif
