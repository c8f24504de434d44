/* python/readmodel_handler.c - the functions of read models that are written in Python.
 *
 * They run on the projector's thread (on the committing one, where the read model is inline),
 * attached, within the transaction of their events. Locks: none; the GIL. */
#include "python/readmodel_parts.h"
#include "python/recorded.h"
#include "python/rows.h"
#include "python/text.h"

static _Thread_local int projections; /* @es.on methods running on this thread */

bool esc_py_in_projection(void)
{
    return projections > 0;
}

int esc_py_refuse_in_projection(esc_py_system *system, const char *what)
{
    if (projections == 0) {
        return 0;
    }
    PyErr_Format(esc_py_error_class(system->state, ESCQRS_DEADLOCK),
                 "%s cannot be called in an @es.on method: it would wait for the very transaction "
                 "that the method is part of",
                 what);
    return -1;
}

/* What the handler is called with besides self and db. New reference. */
static PyObject *argument_of(const esc_py_handler *handler, const escqrs_recorded *recorded)
{
    esc_py_system *system = handler->core->system;
    if (handler->wants_recorded) {
        return esc_py_recorded_new(system->keeper, recorded);
    }
    if (handler->cls == NULL) { /* every event: whatever class it has now, or UnknownType */
        PyObject *whole = esc_py_recorded_new(system->keeper, recorded);
        PyObject *event = whole == NULL ? NULL : PyObject_GetAttrString(whole, "event");
        Py_XDECREF(whole);
        return event;
    }
    /* the core gives no event that has to be upcast, or would be misread */
    PyTypeObject *newest =
        esc_py_system_event_class(system, esc_py_class_stored_name((PyTypeObject *)handler->cls));
    return esc_py_message_decode(newest != NULL ? newest : (PyTypeObject *)handler->cls,
                                 recorded->data, NULL);
}

/* The exception becomes the event's failure; it is kept, and its traceback goes to the log. */
static escqrs_status report(esc_py_readmodel *core, const escqrs_recorded *recorded,
                            escqrs_error *error)
{
    PyObject *type, *value, *traceback;
    esc_py_state *state = core->system->state;
    bool full = PyErr_ExceptionMatches(esc_py_error_class(state, ESCQRS_FULL));
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    PyObject *text = PyObject_Str(value);
    const char *name = type == NULL ? "" : ((PyTypeObject *)type)->tp_name;
    const char *shown = text == NULL ? "" : PyUnicode_AsUTF8(text);
    escqrs_status status = escqrs_error_set(error, full ? ESCQRS_FULL : ESCQRS_REJECTED, "%s: %s",
                                            name, shown == NULL ? "" : shown);
    PyErr_Clear();
    Py_XDECREF(text);
    if (!full) {
        PyObject *detail = PyObject_CallFunction(state->readmodel.failed, "OLO", core->name,
                                                 (long long)recorded->position, value);
        const escqrs_slice traceback_text =
            detail == NULL ? (escqrs_slice){NULL, 0} : esc_py_slice_of(detail);
        if (traceback_text.data == NULL) {
            PyErr_WriteUnraisable(core->name);
        }
        escqrs_readmodel_explain(core->model, traceback_text);
        PyObject *failure =
            detail == NULL ? NULL
                           : Py_BuildValue("LNO", (long long)recorded->position, detail, value);
        if (failure == NULL) {
            PyErr_Clear();
        }
        Py_XSETREF(core->failure, failure);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return status;
}

escqrs_status esc_py_handler_run(void *context, const escqrs_recorded *recorded, void *sqlite,
                                 escqrs_error *error)
{
    const esc_py_handler *handler = context;
    esc_py_readmodel *core = handler->core;
    escqrs_status status = ESCQRS_OK;
    PyObject *result = NULL;
    projections++;
    PyObject *rows = esc_py_rows_new(core->system, sqlite, core->model, INT64_MAX);
    PyObject *argument = rows == NULL ? NULL : argument_of(handler, recorded);
    if (argument != NULL) {
        PyObject *arguments[] = {NULL, core->instance, rows, argument};
        result = PyObject_Vectorcall(handler->function, arguments + 1,
                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (rows != NULL) {
        esc_py_rows_end(rows);
    }
    if (result == NULL) {
        status = report(core, recorded, error);
    }
    Py_XDECREF(result);
    Py_XDECREF(argument);
    Py_XDECREF(rows);
    projections--;
    return status;
}
