/* python/store.c - es.Store: open, read, close. See store.h for its life, commit.c for writing. */
#include "python/store.h"

#include <string.h>
#include <structmember.h>

#include "base/arena.h"
#include "python/actor.h"
#include "python/argument.h"
#include "python/commit.h"
#include "python/cursor.h"
#include "python/erase.h"
#include "python/feed.h"
#include "python/inspect.h"
#include "python/provider.h"
#include "python/new_event.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/state.h"
#include "python/upcast.h"

/* ---- entering --------------------------------------------------------------------------------- */

int esc_py_store_check(esc_py_store *self)
{
    if (self->core != NULL && esc_py_is_own(self->fork_generation) &&
        !atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        return 0;
    }
    if (self->core == NULL) {
        PyErr_Format(
            PyExc_TypeError,
            "%s has no file of its own: a provider of one's own overrides commit, history, "
            "events, version, head, checkpoint, save_snapshot, snapshot, delete_snapshots "
            "and close",
            Py_TYPE(self)->tp_name);
        return -1;
    }
    return esc_py_refuse_file(self->state, self->path, esc_py_is_own(self->fork_generation));
}

esc_py_store *esc_py_store_cast(struct esc_py_state *state, PyObject *object)
{
    if (!PyObject_TypeCheck(object, state->store.type)) {
        PyErr_Format(PyExc_TypeError, "this is no es.Store: %R", object);
        return NULL;
    }
    esc_py_store *self = (esc_py_store *)object;
    return esc_py_store_check(self) < 0 ? NULL : self;
}

PyObject *esc_py_store_raise(esc_py_store *self, const escqrs_error *error)
{
    esc_py_log_drain(&self->log);
    return esc_py_raise(self->state, error);
}

int esc_py_store_refuse_in_projection(esc_py_store *self)
{
    if (esc_py_in_projection()) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "a read model that handles an event holds the store's writer, so it cannot "
                        "wait for it");
        return -1;
    }
    return 0;
}

/* ---- what it shares with its events ------------------------------------------------------------ */

static esc_py_backing *backing_new(esc_py_state *state)
{
    esc_py_backing *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->references = 1;
    self->state = state;
    self->events = PyDict_New();
    if (self->events == NULL) {
        esc_py_backing_release(self);
        return NULL;
    }
    return self;
}

esc_py_backing *esc_py_backing_hold(esc_py_backing *self)
{
    self->references++;
    return self;
}

void esc_py_backing_release(esc_py_backing *self)
{
    if (self == NULL || --self->references > 0) {
        return;
    }
    if (self->core != NULL && esc_py_is_own(self->fork_generation)) {
        escqrs_store_destroy(self->core);
    }
    esc_py_readings_fini(self);
    Py_XDECREF(self->events);
    escqrs_free(self);
}

/* ---- open and close --------------------------------------------------------------------------- */

static PyObject *store_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                           PyObject *Py_UNUSED(kwargs))
{
    esc_py_state *state = esc_py_state_of_type(type);
    esc_py_store *self = state == NULL ? NULL : (esc_py_store *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->fork_generation = escqrs_fork_generation();
    esc_py_log_init(&self->log, state);
    self->path = PyUnicode_FromString("");
    self->backing = backing_new(state);
    self->names = PyList_New(0);
    self->types = PyDict_New();
    if (self->path == NULL || self->backing == NULL || self->names == NULL || self->types == NULL) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

int esc_py_store_take_simulation(esc_py_store *self, PyObject *given, escqrs_store_options *options)
{
    if (given == Py_None) {
        return 0;
    }
    esc_py_actor_system *simulation = (esc_py_actor_system *)given;
    if (!PyObject_TypeCheck(given, self->state->actor.system_type) || !simulation->manual ||
        esc_py_actor_system_check_fork(simulation) < 0) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "this is no seeded system: %R", given);
        }
        return -1;
    }
    options->manual = true;
    options->clock = esc_py_seeded_clock(simulation->seeded);
    options->random = esc_py_seeded_ids(simulation->seeded);
    self->simulation = (esc_py_actor_system *)Py_NewRef(given);
    return 0;
}

/* _open(path, durability, readonly, max_message_bytes, chain, source=None, simulation=None): with a
 * source, as a copy of it and with its max_message_bytes; with a seeded system, to be run by it */
static PyObject *store_open(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *path;
    const char *durability;
    int readonly, chain;
    Py_ssize_t message_bytes_max;
    PyObject *given = Py_None, *simulation = Py_None;
    if (!PyArg_ParseTuple(args, "Uspnp|OO", &path, &durability, &readonly, &message_bytes_max,
                          &chain, &given, &simulation)) {
        return NULL;
    }
    esc_py_store *source = given == Py_None ? NULL : esc_py_store_cast(self->state, given);
    if (source == NULL && given != Py_None) {
        return NULL;
    }
    const char *name = PyUnicode_AsUTF8(path);
    if (name == NULL) {
        return NULL;
    }
    if (self->core != NULL) {
        PyErr_SetString(PyExc_TypeError, "this store has been opened before");
        return NULL;
    }
    message_bytes_max =
        source == NULL ? message_bytes_max : (Py_ssize_t)source->backing->message_bytes_max;
    escqrs_store_options options = {
        .durability =
            strcmp(durability, "normal") == 0 ? ESCQRS_DURABILITY_NORMAL : ESCQRS_DURABILITY_FULL,
        .readonly = readonly,
        .chain = chain,
        .event_bytes_max = (size_t)message_bytes_max,
        .log = {esc_py_log_write, &self->log},
    };
    if (esc_py_store_take_simulation(self, simulation, &options) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status;
    escqrs_store *core = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = source == NULL ? escqrs_store_open(name, &options, &core, &error)
                            : escqrs_store_clone(source->core, name, &options, &core, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return esc_py_store_raise(self, &error);
    }
    self->core = self->backing->core = core;
    self->fork_generation = self->backing->fork_generation = escqrs_fork_generation();
    self->readonly = readonly;
    self->backing->message_bytes_max = (size_t)message_bytes_max;
    Py_SETREF(self->path, Py_NewRef(path));
    esc_py_log_drain(&self->log);
    Py_RETURN_NONE;
}

void esc_py_store_close(esc_py_store *self)
{
    if (self->core == NULL || !esc_py_is_own(self->fork_generation)) {
        return;
    }
    atomic_store_explicit(&self->closed, 1, memory_order_relaxed);
    Py_BEGIN_ALLOW_THREADS
    escqrs_store_close(self->core);
    esc_py_watch_stop(self->watch);
    Py_END_ALLOW_THREADS
    esc_py_log_drain(&self->log);
}

static PyObject *store_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    if (esc_py_in_projection()) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "close() waits for the read models, so it cannot be called by one");
        return NULL;
    }
    if (esc_py_inspects(self)) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "close() waits for those who read, so it cannot be called by one");
        return NULL;
    }
    esc_py_store_close(self);
    Py_RETURN_NONE;
}

static void store_finalize(PyObject *object)
{
    esc_py_store *self = (esc_py_store *)object;
    if (self->core == NULL || atomic_load_explicit(&self->closed, memory_order_relaxed) ||
        !esc_py_is_own(self->fork_generation)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallOneArg(self->state->store.abandoned, object);
    if (result == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(result);
    esc_py_store_close(self);
    PyErr_Restore(type, value, traceback);
}

static int store_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_store *self = (esc_py_store *)object;
    Py_VISIT(Py_TYPE(object));
    if (self->backing != NULL && self->backing->references == 1) { /* else events have it too */
        Py_VISIT(self->backing->events);
        Py_VISIT(self->backing->plan);
    }
    Py_VISIT(self->types);
    Py_VISIT((PyObject *)self->simulation);
    return 0;
}

static void store_dealloc(PyObject *object)
{
    esc_py_store *self = (esc_py_store *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (!esc_py_dealloc_begin(object, &self->weakrefs)) {
        return;
    }
    bool own = esc_py_is_own(self->fork_generation);
    if (own) {
        if (self->core != NULL) { /* nothing is logged once it is closed */
            escqrs_store_close(self->core);
        }
        esc_py_watch_destroy(self->watch);
        esc_py_log_fini(&self->log);
    }
    Py_XDECREF(self->path);
    esc_py_backing_release(self->backing);
    Py_XDECREF(self->names);
    Py_XDECREF(self->types);
    Py_XDECREF((PyObject *)self->simulation); /* after the core, which has its clock */
    if (own) {
        type->tp_free(object);
    }
    Py_DECREF(type);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static PyObject *store_history(PyObject *object, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 1) {
        PyErr_Format(PyExc_TypeError,
                     "history(stream, *, ...) takes 1 positional argument, not %zd",
                     PyTuple_GET_SIZE(args));
        return NULL;
    }
    escqrs_slice stream;
    esc_py_store *self = (esc_py_store *)object;
    PyObject *name = PyTuple_GET_ITEM(args, 0); /* args holds it */
    if (esc_py_store_check(self) < 0 || esc_py_text_slice(name, "stream", &stream) < 0) {
        return NULL;
    }
    if (stream.size == 0) {
        PyErr_SetString(PyExc_ValueError, "the name of a stream is not empty");
        return NULL;
    }
    PyObject *none = PyTuple_New(0);
    PyObject *result = none == NULL ? NULL : esc_py_cursor_new(self, object, stream, none, kwargs);
    Py_XDECREF(none);
    return result;
}

static PyObject *store_events(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return esc_py_cursor_new((esc_py_store *)object, object, (escqrs_slice){NULL, 0}, args, kwargs);
}

static PyObject *store_version(PyObject *object, PyObject *name)
{
    esc_py_store *self = (esc_py_store *)object;
    escqrs_slice stream;
    escqrs_error error = {0};
    escqrs_status status;
    int64_t version = 0;
    if (esc_py_store_check(self) < 0 || esc_py_text_slice(name, "stream", &stream) < 0) {
        return NULL;
    }
    Py_INCREF(name);
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_version(self->core, stream, &version, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    return status == ESCQRS_OK ? PyLong_FromLongLong(version) : esc_py_store_raise(self, &error);
}

static PyObject *store_checkpoint(PyObject *object, PyObject *name)
{
    esc_py_store *self = (esc_py_store *)object;
    escqrs_slice text;
    escqrs_error error = {0};
    escqrs_status status;
    int64_t position = -1;
    if (esc_py_store_check(self) < 0 ||
        esc_py_text_slice(name, "the name of a checkpoint", &text) < 0) {
        return NULL;
    }
    Py_INCREF(name);
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_checkpoint(self->core, text, &position, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    if (status != ESCQRS_OK) {
        return esc_py_store_raise(self, &error);
    }
    return position < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(position);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

/* _snapshot(stream, upto): (version, type, data) or None */
static PyObject *store_snapshot(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *name, *upto_given;
    escqrs_slice stream;
    int64_t upto;
    if (!PyArg_ParseTuple(args, "OO", &name, &upto_given) || esc_py_store_check(self) < 0 ||
        esc_py_text_slice(name, "stream", &stream) < 0 ||
        esc_py_number(upto_given, "upto", -1, &upto) < 0) {
        return NULL;
    }
    if (upto == 0) {
        Py_RETURN_NONE;
    }
    escqrs_error error = {0};
    escqrs_status status;
    escqrs_snapshot found = {0};
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_snapshot(self->core, stream, upto < 0 ? 0 : upto, &found, &error);
    Py_END_ALLOW_THREADS
    esc_py_log_drain(&self->log);
    if (status == ESCQRS_DONE) {
        Py_RETURN_NONE;
    }
    if (status != ESCQRS_OK) {
        return esc_py_store_raise(self, &error);
    }
    escqrs_slice type = escqrs_type_name(found.type);
    PyObject *result =
        Py_BuildValue("(Ls#y#)", (long long)found.version, (const char *)type.data,
                      (Py_ssize_t)type.size, (const char *)found.data, (Py_ssize_t)found.size);
    escqrs_free(found.data);
    return result;
}

/* _delete_snapshots(stream, upto) */
static PyObject *store_delete_snapshots(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *name, *upto_given;
    escqrs_slice stream;
    int64_t upto;
    if (!PyArg_ParseTuple(args, "OO", &name, &upto_given) || esc_py_store_check(self) < 0 ||
        esc_py_store_refuse_in_projection(self) < 0 ||
        esc_py_text_slice(name, "stream", &stream) < 0 ||
        esc_py_number(upto_given, "upto", -1, &upto) < 0) {
        return NULL;
    }
    if (upto == 0) {
        Py_RETURN_NONE;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status = escqrs_store_delete_snapshots(self->core, stream, upto < 0 ? 0 : upto, &error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_store_raise(self, &error);
}

/* ---- the whole -------------------------------------------------------------------------------- */

#define STREAMS_PAGE 1000

typedef struct stream_page {
    esc_arena arena;
    escqrs_stream_info items[STREAMS_PAGE];
    size_t count;
    bool no_memory;
} stream_page;

/* Without the GIL. */
static bool keep_stream(void *context, const escqrs_stream_info *stream)
{
    stream_page *page = context;
    char *name = esc_arena_strdup(&page->arena, stream->name);
    page->no_memory = name == NULL;
    if (name != NULL) {
        page->items[page->count] = *stream;
        page->items[page->count++].name.data = name;
    }
    return name != NULL;
}

static PyObject *streams_list(const stream_page *page)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < page->count; i++) {
        const escqrs_stream_info *stream = &page->items[i];
        PyObject *item = Py_BuildValue(
            "(Ls#LLO)", (long long)stream->number, (const char *)stream->name.data,
            (Py_ssize_t)stream->name.size, (long long)stream->version,
            (long long)stream->erased.upto, stream->erased.closed ? Py_True : Py_False);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* _streams(after): list of (number, name, version, truncated, deleted), the next of them */
static PyObject *store_streams(PyObject *object, PyObject *after_given)
{
    esc_py_store *self = (esc_py_store *)object;
    int64_t after;
    if (esc_py_store_check(self) < 0 || esc_py_number(after_given, "after", 0, &after) < 0) {
        return NULL;
    }
    stream_page *page = escqrs_alloc_zero(sizeof *page);
    if (page == NULL) {
        return PyErr_NoMemory();
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_streams(self->core, after, STREAMS_PAGE, keep_stream, page, &error);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (status != ESCQRS_OK) {
        esc_py_store_raise(self, &error);
    } else if (page->no_memory) {
        PyErr_NoMemory();
    } else {
        result = streams_list(page);
    }
    esc_arena_fini(&page->arena);
    escqrs_free(page);
    return result;
}

/* _deletions(): how often events were deleted */
static PyObject *store_deletions(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    return esc_py_store_check(self) < 0 ? NULL
                                        : PyLong_FromLongLong(escqrs_store_deletions(self->core));
}

/* _backup(path) */
static PyObject *store_backup(PyObject *object, PyObject *given)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *path = NULL;
    if (esc_py_store_check(self) < 0 || !PyUnicode_FSConverter(given, &path)) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status = escqrs_store_backup(self->core, PyBytes_AS_STRING(path), &error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    Py_DECREF(path);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_store_raise(self, &error);
}

/* _restart() */
static PyObject *store_restart(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    if (esc_py_store_check(self) < 0 || esc_py_store_refuse_in_projection(self) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status = escqrs_store_restart(self->core, &error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_store_raise(self, &error);
}

/* ---- types ------------------------------------------------------------------------------------ */

typedef struct type_list {
    PyObject *list;
    PyThreadState *thread;
} type_list;

static bool visit_type(void *context, escqrs_type *type, bool used)
{
    type_list *types = context;
    escqrs_slice name = escqrs_type_name(type), record = escqrs_type_record(type);
    PyEval_RestoreThread(types->thread);
    PyObject *item = Py_BuildValue("(s#y#O)", (const char *)name.data, (Py_ssize_t)name.size,
                                   (const char *)record.data, (Py_ssize_t)record.size,
                                   used ? Py_True : Py_False);
    bool ok = item != NULL && PyList_Append(types->list, item) == 0;
    Py_XDECREF(item);
    types->thread = PyEval_SaveThread();
    return ok;
}

/* _types(): list of (name, record, used) */
static PyObject *store_types(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    escqrs_error error = {0};
    if (esc_py_store_check(self) < 0) {
        return NULL;
    }
    type_list types = {.list = PyList_New(0)};
    if (types.list == NULL) {
        return NULL;
    }
    types.thread = PyEval_SaveThread();
    escqrs_status status = escqrs_store_types(self->core, visit_type, &types, &error);
    PyEval_RestoreThread(types.thread);
    if (status != ESCQRS_OK && !PyErr_Occurred()) {
        esc_py_store_raise(self, &error);
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(types.list);
    }
    return types.list;
}

/* _learn(plan, evolves): see upcast.h */
static PyObject *store_learn(PyObject *object, PyObject *args)
{
    PyObject *plan;
    int evolves;
    if (!PyArg_ParseTuple(args, "Op", &plan, &evolves) ||
        esc_py_readings_learn((esc_py_store *)object, plan, evolves != 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *store_get_plan(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *plan = ((esc_py_store *)object)->backing->plan;
    return Py_NewRef(plan == NULL ? Py_None : plan);
}

/* ---- the class -------------------------------------------------------------------------------- */

static PyObject *store_get_head(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_store *self = (esc_py_store *)object;
    int64_t head;
    if (esc_py_store_check(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    head = escqrs_store_head(self->core);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(head);
}

static PyObject *store_get_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(
        atomic_load_explicit(&((esc_py_store *)object)->closed, memory_order_relaxed) != 0);
}

static PyObject *store_get_forked(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!esc_py_is_own(((esc_py_store *)object)->fork_generation));
}

static PyObject *store_get_opened(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_store *)object)->core != NULL);
}

static PyObject *store_get_readonly(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_store *)object)->readonly);
}

static PyObject *store_get_classes(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((esc_py_store *)object)->backing->events);
}

static PyObject *store_get_object(PyObject *object, void *closure)
{
    return Py_NewRef(*(PyObject **)((char *)object + (size_t)closure));
}

/* The functions of the facade that C calls; once, at import. */
static PyObject *store_bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"claim", "abandoned", NULL};
    esc_py_store_state *section = &esc_py_state_of(module)->store;
    PyObject *claim, *abandoned;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OO", names, &claim, &abandoned)) {
        return NULL;
    }
    Py_XSETREF(section->claim, Py_NewRef(claim));
    Py_XSETREF(section->abandoned, Py_NewRef(abandoned));
    Py_RETURN_NONE;
}

static PyMethodDef module_functions[] = {
    {"_bind_store", _PyCFunction_CAST(store_bind), METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef store_methods[] = {
    {"close", store_close, METH_NOARGS,
     "close($self, /)\n--\n\nRefuse new commits, finish those under way, end the feeds with "
     "es.Closed, and let go of the file. Twice is once."},
    {"_history", _PyCFunction_CAST(store_history), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_events", _PyCFunction_CAST(store_events), METH_VARARGS | METH_KEYWORDS, NULL},
    {"_version", store_version, METH_O, NULL},
    {"_checkpoint", store_checkpoint, METH_O, NULL},
    {"_open", store_open, METH_VARARGS, NULL},
    {"_commit", esc_py_store_commit, METH_VARARGS, NULL},
    {"_save_snapshot", esc_py_store_save_snapshot, METH_VARARGS, NULL},
    {"_snapshot", store_snapshot, METH_VARARGS, NULL},
    {"_delete_snapshots", store_delete_snapshots, METH_VARARGS, NULL},
    {"_erase", esc_py_store_erase, METH_O, NULL},
    {"_erased", esc_py_store_erased, METH_O, NULL},
    {"_compact", esc_py_store_compact, METH_NOARGS, NULL},
    {"_streams", store_streams, METH_O, NULL},
    {"_backup", store_backup, METH_O, NULL},
    {"_restart", store_restart, METH_NOARGS, NULL},
    {"_deletions", store_deletions, METH_NOARGS, NULL},
    {"_types", store_types, METH_NOARGS, NULL},
    {"_learn", store_learn, METH_VARARGS, NULL},
    {"_open_provider", esc_py_store_open_provider, METH_VARARGS, NULL},
    {"_provider_changed", esc_py_store_provider_changed, METH_NOARGS, NULL},
    {"_name_rows", esc_py_store_name_rows, METH_O, NULL},
    {"_chain_hash", esc_py_store_chain_hash, METH_O, NULL},
    {"_snapshots", esc_py_store_snapshots, METH_VARARGS, NULL},
    {"_stats", esc_py_store_stats, METH_NOARGS, NULL},
    {"_verify", esc_py_store_verify, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *store_get_simulation(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *simulation = (PyObject *)((esc_py_store *)object)->simulation;
    return Py_NewRef(simulation == NULL ? Py_None : simulation);
}

static PyGetSetDef store_getset[] = {
    {"head", store_get_head, NULL, "Position of the last event; 0 in an empty store.", NULL},
    {"path", store_get_object, NULL, "The file's path, or \":memory:\".",
     (void *)offsetof(esc_py_store, path)},
    {"closed", store_get_closed, NULL, "Whether close() was called.", NULL},
    {"readonly", store_get_readonly, NULL, "Whether it was opened with readonly=True.", NULL},
    {"_classes", store_get_classes, NULL, NULL, NULL},
    {"_plan", store_get_plan, NULL, NULL, NULL},
    {"_forked", store_get_forked, NULL, NULL, NULL},
    {"_opened", store_get_opened, NULL, NULL, NULL},
    {"_simulation", store_get_simulation, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef store_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_store, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_doc, "The part of es.Store that is written in C."},
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_finalize, store_finalize},
    {Py_tp_traverse, store_traverse},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_getset},
    {Py_tp_members, store_members},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "escqrs._core.StoreBase",
    .basicsize = sizeof(esc_py_store),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};

int esc_py_store_exec(PyObject *module)
{
    esc_py_store_state *section = &esc_py_state_of(module)->store;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &store_spec, NULL);
    return section->type == NULL || PyModule_AddType(module, section->type) < 0 ||
                   PyModule_AddFunctions(module, module_functions) < 0 ||
                   esc_py_new_event_exec(module) < 0 || esc_py_feed_exec(module) < 0
               ? -1
               : 0;
}

int esc_py_store_traverse_state(esc_py_store_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->new_event);
    Py_VISIT(section->feed);
    Py_VISIT(section->claim);
    Py_VISIT(section->abandoned);
    return 0;
}

void esc_py_store_clear_state(esc_py_store_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->new_event);
    Py_CLEAR(section->feed);
    Py_CLEAR(section->claim);
    Py_CLEAR(section->abandoned);
}
