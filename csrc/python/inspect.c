/* python/inspect.c - es.Store read as a whole: verify and stats. See inspect.h.
 *
 * The core reads without the GIL and calls back on the same thread, which takes it for the time of
 * the call. It holds a reading connection meanwhile and is inside the store: close() there would
 * wait for itself, so it is refused (esc_py_inspects). */
#include "python/inspect.h"

#include <string.h>

#include "python/state.h"
#include "python/text.h"

typedef struct inspection {
    PyObject *problem, *progress; /* borrowed from the call's arguments; None: nobody asks */
    PyThreadState *thread;
} inspection;

static _Thread_local const esc_py_store *inspected; /* this thread is inside a call for it */

bool esc_py_inspects(const esc_py_store *store)
{
    return inspected == store;
}

/* Did it return without an exception? Steals `result`. */
static bool went_well(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL && PyErr_CheckSignals() == 0;
}

static bool on_problem(void *context, const escqrs_problem *problem)
{
    inspection *self = context;
    PyEval_RestoreThread(self->thread);
    PyObject *text = esc_py_text(escqrs_slice_of(problem->text));
    PyObject *stream =
        problem->stream.size == 0 ? Py_NewRef(Py_None) : esc_py_text(problem->stream);
    PyObject *result = NULL;
    if (text != NULL && stream != NULL) {
        result = PyObject_CallFunction(self->problem, "sOOLL", problem->part, text, stream,
                                       (long long)problem->version, (long long)problem->position);
    }
    Py_XDECREF(text);
    Py_XDECREF(stream);
    bool more = went_well(result);
    self->thread = PyEval_SaveThread();
    return more;
}

static bool on_progress(void *context, int64_t position, int64_t head)
{
    inspection *self = context;
    PyEval_RestoreThread(self->thread);
    PyObject *result =
        self->progress == Py_None
            ? Py_NewRef(Py_None)
            : PyObject_CallFunction(self->progress, "LL", (long long)position, (long long)head);
    bool more = went_well(result);
    self->thread = PyEval_SaveThread();
    return more;
}

PyObject *esc_py_store_verify(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    inspection made;
    if (!PyArg_ParseTuple(args, "OO", &made.problem, &made.progress) ||
        esc_py_store_check(self) < 0) {
        return NULL;
    }
    escqrs_observer observer = {on_problem, on_progress, &made};
    escqrs_verification found = {0};
    escqrs_error error = {0};
    const esc_py_store *outer = inspected;
    inspected = self;
    made.thread = PyEval_SaveThread();
    escqrs_status status = escqrs_store_verify(self->core, &observer, &found, &error);
    PyEval_RestoreThread(made.thread);
    inspected = outer;
    esc_py_log_drain(&self->log);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (status != ESCQRS_OK) {
        return esc_py_raise(self->state, &error);
    }
    return Py_BuildValue("(LLLLLLLLLLL)", (long long)found.events, (long long)found.streams,
                         (long long)found.types, (long long)found.snapshots,
                         (long long)found.checkpoints, (long long)found.keys, (long long)found.tags,
                         (long long)found.ids, (long long)found.read_models, (long long)found.links,
                         (long long)found.problems);
}

typedef struct type_counts {
    PyObject *counts; /* dict; NULL after a failure */
    PyThreadState *thread;
} type_counts;

static void on_type(void *context, escqrs_slice type, int64_t count)
{
    type_counts *self = context;
    PyEval_RestoreThread(self->thread);
    PyObject *name = esc_py_text(type);
    PyObject *number = PyLong_FromLongLong(count);
    if (self->counts != NULL &&
        (name == NULL || number == NULL || PyDict_SetItem(self->counts, name, number) < 0)) {
        Py_CLEAR(self->counts);
    }
    Py_XDECREF(name);
    Py_XDECREF(number);
    self->thread = PyEval_SaveThread();
}

PyObject *esc_py_store_stats(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    type_counts types = {0};
    if (esc_py_store_check(self) < 0 || (types.counts = PyDict_New()) == NULL) {
        return NULL;
    }
    escqrs_statistics found;
    escqrs_error error = {0};
    types.thread = PyEval_SaveThread();
    escqrs_status status = escqrs_store_stats(self->core, &found, on_type, &types, &error);
    PyEval_RestoreThread(types.thread);
    if (status != ESCQRS_OK || types.counts == NULL) {
        Py_XDECREF(types.counts);
        return PyErr_Occurred() ? NULL : esc_py_raise(self->state, &error);
    }
    return Py_BuildValue("(LLLLLLLLLLLLLN)", (long long)found.head, (long long)found.events,
                         (long long)found.streams, (long long)found.snapshots,
                         (long long)found.checkpoints, (long long)found.keys, (long long)found.tags,
                         (long long)found.ids, (long long)found.bytes, (long long)found.created_us,
                         (long long)found.first_us, (long long)found.last_us,
                         (long long)found.deleted, types.counts);
}

PyObject *esc_py_store_chain_hash(PyObject *object, PyObject *asked)
{
    esc_py_store *self = (esc_py_store *)object;
    uint8_t link[ESCQRS_CHAIN_LINK_SIZE];
    long long position = PyLong_AsLongLong(asked);
    if ((position == -1 && PyErr_Occurred()) || esc_py_store_check(self) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_chain(self->core, position, link, &error);
    Py_END_ALLOW_THREADS
    if (status == ESCQRS_DONE) {
        Py_RETURN_NONE;
    }
    return status == ESCQRS_OK ? PyBytes_FromStringAndSize((const char *)link, sizeof link)
                               : esc_py_raise(self->state, &error);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

#define SNAPSHOTS_MAX 256 /* a call */

typedef struct snapshot_copy {
    int64_t number, version;
    escqrs_type *type;
    bool verifies;
    char *stream; /* heap */
    size_t stream_size;
} snapshot_copy;

typedef struct snapshot_page {
    snapshot_copy rows[SNAPSHOTS_MAX];
    size_t count;
    bool failed; /* for want of memory */
} snapshot_page;

static bool on_snapshot(void *context, const escqrs_snapshot_info *snapshot)
{
    snapshot_page *page = context;
    snapshot_copy *row = &page->rows[page->count];
    row->stream = escqrs_alloc(snapshot->stream.size + 1);
    page->failed = row->stream == NULL;
    if (page->failed) {
        return false;
    }
    if (snapshot->stream.size > 0) {
        memcpy(row->stream, snapshot->stream.data, snapshot->stream.size);
    }
    row->stream_size = snapshot->stream.size;
    row->number = snapshot->number;
    row->version = snapshot->version;
    row->type = snapshot->type;
    row->verifies = snapshot->verifies;
    page->count++;
    return true;
}

static PyObject *snapshot_row(const snapshot_copy *row)
{
    PyObject *stream = esc_py_text((escqrs_slice){row->stream, row->stream_size});
    PyObject *type =
        row->type == NULL ? Py_NewRef(Py_None) : esc_py_text(escqrs_type_name(row->type));
    PyObject *made = NULL;
    if (stream != NULL && type != NULL) {
        made = Py_BuildValue("(LOLOO)", (long long)row->number, stream, (long long)row->version,
                             type, row->verifies ? Py_True : Py_False);
    }
    Py_XDECREF(stream);
    Py_XDECREF(type);
    return made;
}

static PyObject *snapshot_rows(const snapshot_page *page)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < page->count; i++) {
        PyObject *row = snapshot_row(&page->rows[i]);
        if (row == NULL || PyList_Append(list, row) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(row);
    }
    return list;
}

PyObject *esc_py_store_snapshots(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    long long number, version;
    if (!PyArg_ParseTuple(args, "LL", &number, &version) || esc_py_store_check(self) < 0) {
        return NULL;
    }
    snapshot_page *page = PyMem_Calloc(1, sizeof *page);
    if (page == NULL) {
        return PyErr_NoMemory();
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_snapshots(self->core, number, version, SNAPSHOTS_MAX, on_snapshot, page,
                                    &error);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
    } else if (page->failed) {
        PyErr_NoMemory();
    } else {
        result = snapshot_rows(page);
    }
    for (size_t i = 0; i < page->count; i++) {
        escqrs_free(page->rows[i].stream);
    }
    PyMem_Free(page);
    return result;
}
