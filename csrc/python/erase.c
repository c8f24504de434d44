/* See erase.h. */
#include "python/erase.h"

#include "python/argument.h"
#include "python/state.h"

/* One item; its strings are held by `items`. */
static int take_erasure(PyObject *item, escqrs_erasure *erasure)
{
    PyObject *stream, *upto;
    int force;
    if (!PyArg_ParseTuple(item, "OOp", &stream, &upto, &force) ||
        esc_py_text_slice(stream, "stream", &erasure->stream) < 0 ||
        esc_py_number(upto, "upto", 0, &erasure->upto) < 0) {
        return -1;
    }
    if (erasure->stream.size == 0) {
        PyErr_SetString(PyExc_ValueError, "the name of a stream is not empty");
        return -1;
    }
    erasure->close = upto == Py_None;
    erasure->force = force;
    return 0;
}

static PyObject *counts_of(const escqrs_erasure *erasures, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(erasures[i].count);
        if (number == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, i, number);
        }
    }
    return list;
}

PyObject *esc_py_store_erase(PyObject *object, PyObject *items)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *result = NULL;
    if (esc_py_store_check(self) < 0 || esc_py_store_refuse_in_projection(self) < 0) {
        return NULL;
    }
    PyObject *tuple = PySequence_Tuple(items); /* nobody else can change it meanwhile */
    if (tuple == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    escqrs_erasure *erasures = escqrs_alloc_zero(((size_t)count + 1) * sizeof *erasures);
    bool failed = erasures == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        failed = take_erasure(PyTuple_GET_ITEM(tuple, i), &erasures[i]) < 0;
    }
    if (!failed) {
        escqrs_error error = {0};
        escqrs_status status;
        Py_BEGIN_ALLOW_THREADS
        escqrs_runtime_block();
        status = escqrs_store_erase(self->core, erasures, (size_t)count, &error);
        escqrs_runtime_unblock();
        Py_END_ALLOW_THREADS
        result =
            status == ESCQRS_OK ? counts_of(erasures, count) : esc_py_store_raise(self, &error);
        esc_py_log_drain(&self->log);
    }
    escqrs_free(erasures);
    Py_DECREF(tuple);
    return result;
}

PyObject *esc_py_store_erased(PyObject *object, PyObject *name)
{
    esc_py_store *self = (esc_py_store *)object;
    escqrs_slice stream;
    escqrs_erased erased;
    escqrs_error error = {0};
    escqrs_status status;
    if (esc_py_store_check(self) < 0 || esc_py_text_slice(name, "stream", &stream) < 0) {
        return NULL;
    }
    Py_INCREF(name);
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_erased(self->core, stream, &erased, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    return status == ESCQRS_OK
               ? Py_BuildValue("(LO)", (long long)erased.upto, erased.closed ? Py_True : Py_False)
               : esc_py_store_raise(self, &error);
}

PyObject *esc_py_store_compact(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    int64_t bytes = 0;
    escqrs_error error = {0};
    escqrs_status status;
    if (esc_py_store_check(self) < 0 || esc_py_store_refuse_in_projection(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status = escqrs_store_compact(self->core, &bytes, &error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    return status == ESCQRS_OK ? PyLong_FromLongLong(bytes) : esc_py_store_raise(self, &error);
}
