/* python/readmodel_query.c - @es.query methods: a reading connection and its snapshot for one call.
 *
 * Locks: none; the GIL. Detached from it while a connection is had and given back. */
#include "python/readmodel_parts.h"

#include <sqlite3.h>

#include "python/rows.h"

/* A query under way on this thread. Queries that it calls use the same connection and see the same
 * snapshot. */
typedef struct query_frame {
    struct query_frame *outer;
    esc_py_system *system;
    escqrs_readmodel *model; /* whose file it reads; NULL: the store's */
    PyObject *rows;
} query_frame;

static _Thread_local query_frame *queries;

static PyObject *call_with(PyObject *function, PyObject *instance, PyObject *rows, PyObject *args,
                           PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    PyObject *all = PyTuple_New(count + 2);
    if (all == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(all, 0, Py_NewRef(instance));
    PyTuple_SET_ITEM(all, 1, Py_NewRef(rows));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(all, i + 2, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    PyObject *result = PyObject_Call(function, all, kwargs);
    Py_DECREF(all);
    return result;
}

/* A connection with a snapshot that all statements of the query see. Reading something at once
 * begins it, and has SQLite look whether the tables have changed: else a statement might be
 * compiled for those of before, with their columns. */
static escqrs_status acquire(escqrs_readmodel *model, void **sqlite, escqrs_error *error)
{
    escqrs_status status = escqrs_readmodel_reader(model, sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code =
        sqlite3_exec(*sqlite, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    if (code == SQLITE_INTERRUPT) { /* only close interrupts */
        status =
            escqrs_error_set(error, ESCQRS_CLOSED, "a query cannot begin: the system is closed");
    } else if (code != SQLITE_OK) {
        status =
            escqrs_error_set(error, ESCQRS_IO, "a query cannot begin: %s", sqlite3_errmsg(*sqlite));
    }
    if (status != ESCQRS_OK) {
        escqrs_readmodel_reader_return(model, *sqlite);
    }
    return status;
}

static escqrs_readmodel *own_file(escqrs_readmodel *model)
{
    return escqrs_readmodel_is_in_store(model) ? NULL : model;
}

static PyObject *run_query(esc_py_system *system, escqrs_readmodel *model, PyObject *function,
                           PyObject *instance, PyObject *args, PyObject *kwargs,
                           int64_t deadline_ns)
{
    escqrs_error error = {0};
    escqrs_status status;
    void *sqlite = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = acquire(model, &sqlite, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return esc_py_raise(system->state, &error);
    }
    PyObject *result = NULL;
    PyObject *rows = esc_py_rows_new(system, sqlite, NULL, deadline_ns);
    if (rows != NULL) {
        query_frame frame = {queries, system, own_file(model), rows};
        queries = &frame;
        result = call_with(function, instance, rows, args, kwargs);
        queries = frame.outer;
        esc_py_rows_end(rows);
        Py_DECREF(rows);
    }
    Py_BEGIN_ALLOW_THREADS(void)
    sqlite3_exec(sqlite, "ROLLBACK", NULL, NULL, NULL);
    escqrs_readmodel_reader_return(model, sqlite);
    Py_END_ALLOW_THREADS
    return result;
}

/* query(function, instance, args, kwargs, timeout) */
PyObject *esc_py_readmodel_query(PyObject *object, PyObject *args)
{
    PyObject *function, *instance, *given, *kwargs, *timeout;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "OOO!O!O", &function, &instance, &PyTuple_Type, &given,
                          &PyDict_Type, &kwargs, &timeout) ||
        esc_py_deadline(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    esc_py_system *system = esc_py_readmodel_enter((esc_py_readmodel *)object);
    if (system == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    escqrs_readmodel *model = ((esc_py_readmodel *)object)->model;
    if (queries != NULL && queries->system == system && queries->model == own_file(model)) {
        result = call_with(function, instance, queries->rows, given, kwargs);
    } else if (esc_py_refuse_in_projection(system, "a query") == 0) {
        result = run_query(system, model, function, instance, given, kwargs, deadline_ns);
    }
    esc_py_readmodel_leave(system);
    return result;
}
