/* python/actor_context.h - what the files of es.Context share. All of it with the GIL. */
#ifndef ESC_PYTHON_ACTOR_CONTEXT_H
#define ESC_PYTHON_ACTOR_CONTEXT_H

#include "python/actor.h"

/* ---- actor_instance.c ---------------------------------------------------------------------------- */

/* The receiver alone, without middleware. New reference or NULL. */
PyObject *esc_py_context_call_receiver(esc_py_context *self, PyObject *message);
/* After the actor's code: `result` is stolen; NULL: it raised. */
escqrs_turn_end esc_py_context_finish(esc_py_context *self, PyObject *result);
/* The core has done with it, and with the instance. Twice is once. */
void esc_py_context_end(esc_py_context *self);
/* Its task does not wait any more, as far as the graph of waits knows. */
void esc_py_context_end_wait(esc_py_context *self);

/* ---- actor_context.c ----------------------------------------------------------------------------- */

/* This thread runs the actor. */
static inline bool esc_py_context_is_inside(const esc_py_context *self)
{
    return self->core != NULL && escqrs_context_current() == self->core;
}
/* -1, with the exception for a method that was called elsewhere. */
int esc_py_context_refuse_outside(esc_py_context *self, const char *method);
/* 0 in the actor, and in its async receive; -1 with an exception. */
int esc_py_context_check_use(esc_py_context *self, const char *method);
PyObject *esc_py_context_self(esc_py_context *self); /* its Ref, borrowed */
/* The sender of the current message, borrowed; NULL: none. */
escqrs_ref *esc_py_context_sender(esc_py_context *self);
/* NULL with the exception for what the core said. */
PyObject *esc_py_context_raise(esc_py_context *self, escqrs_status status, escqrs_error *error);

/* A method that needs the core: run here, or from an async receive, inside the actor. */
typedef PyObject *esc_py_context_method(esc_py_context *self, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_enter(PyObject *object, PyObject *args, PyObject *kwargs, const char *name,
                               esc_py_context_method *method);
#define ESC_PY_ENTERED(function, name)                                                             \
    PyObject *function(PyObject *object, PyObject *args, PyObject *kwargs)                         \
    {                                                                                              \
        return esc_py_context_enter(object, args, kwargs, #name, do_##name);                       \
    }

/* ---- methods: actor_send.c, actor_later.c --------------------------------------------------------- */

PyObject *esc_py_context_tell(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names);
PyObject *esc_py_context_request(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_respond(PyObject *object, PyObject *message);
PyObject *esc_py_context_forward(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_send_innermost(PyObject *object, PyObject *args);
PyObject *esc_py_context_reenter_after(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_set_receive_timeout(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_schedule_once(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *esc_py_context_schedule_every(PyObject *object, PyObject *args, PyObject *kwargs);

#endif
