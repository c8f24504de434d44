/* python/store.c - es.Store: open, commit, read, close. See store.h for its life.
 *
 * A commit is made in three steps: with the GIL everything is checked and pointed at (the objects
 * are pinned by tuples of our own, which nobody else can change; messages are packed into an
 * arena); without it the core commits; with it again the result becomes Python's. */
#include "python/store.h"

#include <string.h>
#include <structmember.h>

#include "base/arena.h"
#include "python/feed.h"
#include "python/inspect.h"
#include "python/new_event.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/state.h"

#define ARENA_BLOCK_BYTES 32768

typedef struct log_line {
    esc_queue_node queued;
    escqrs_log_level level;
    char text[];
} log_line;

/* ---- log -------------------------------------------------------------------------------------- */

static void log_function(void *context, escqrs_log_level level, const char *text)
{
    esc_py_store *self = context;
    size_t size = strlen(text) + 1;
    log_line *line = escqrs_alloc(sizeof *line + size);
    if (line == NULL) {
        escqrs_log_write(NULL, level, "%s", text);
        return;
    }
    line->level = level;
    memcpy(line->text, text, size);
    esc_queue_push(&self->logged, &line->queued);
    esc_mutex_lock(&self->host_mutex);
    if (self->host != NULL) {
        escqrs_host_poke(self->host);
    }
    esc_mutex_unlock(&self->host_mutex);
}

void esc_py_store_set_host(esc_py_store *self, escqrs_host *host)
{
    esc_mutex_lock(&self->host_mutex);
    self->host = host;
    esc_mutex_unlock(&self->host_mutex);
}

void esc_py_store_tidy(esc_py_store *self)
{
    if (esc_queue_is_empty(&self->logged)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    esc_queue_node *node = esc_queue_take_all(&self->logged);
    while (node != NULL) {
        log_line *line = (log_line *)((char *)node - offsetof(log_line, queued));
        node = node->next;
        PyObject *result =
            PyObject_CallFunction(self->state->store.log_text, "is", (int)line->level, line->text);
        if (result == NULL) {
            PyErr_WriteUnraisable(NULL);
        }
        Py_XDECREF(result);
        escqrs_free(line);
    }
    PyErr_Restore(type, value, traceback);
}

/* ---- entering --------------------------------------------------------------------------------- */

int esc_py_store_check(esc_py_store *self)
{
    escqrs_error error = {0};
    if (self->core == NULL) {
        PyErr_Format(
            PyExc_TypeError,
            "%s has no file of its own: a provider of one's own overrides commit, history, "
            "events, version, head, checkpoint, save_snapshot, snapshot, delete_snapshots "
            "and close",
            Py_TYPE(self)->tp_name);
        return -1;
    }
    if (self->fork_generation != escqrs_fork_generation()) {
        (void)escqrs_error_set(&error, ESCQRS_FORKED,
                               "%s was opened by the parent process and cannot be used after "
                               "fork; open it in this process, once the parent has closed it",
                               PyUnicode_AsUTF8(self->path));
    } else if (atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        (void)escqrs_error_set(&error, ESCQRS_CLOSED, "%s is closed", PyUnicode_AsUTF8(self->path));
    } else {
        return 0;
    }
    esc_py_raise(self->state, &error);
    return -1;
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

/* Raise what the core said; keeps NULL handy for `return`. */
static PyObject *raise(esc_py_store *self, const escqrs_error *error)
{
    esc_py_store_tidy(self);
    return esc_py_raise(self->state, error);
}

/* A str as bytes that live as long as it; its lone surrogates are a ValueError. */
static int text_slice(PyObject *text, const char *what, escqrs_slice *slice)
{
    Py_ssize_t size;
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s is a str, not %s", what, Py_TYPE(text)->tp_name);
        return -1;
    }
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    *slice = (escqrs_slice){bytes, (size_t)size};
    return bytes == NULL ? -1 : 0;
}

/* A position or version: an int of 0 or more; None is `missing`. One beyond 64 bits is the largest.
 */
static int number(PyObject *object, const char *what, int64_t missing, int64_t *value)
{
    if (object == Py_None) {
        *value = missing;
        return 0;
    }
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s is an int, not %s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow < 0 || (overflow == 0 && *value < 0)) {
        PyErr_Format(PyExc_ValueError, "%s is not negative: %S", what, object);
        return -1;
    }
    if (overflow > 0) {
        *value = INT64_MAX;
    }
    return 0;
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
    esc_queue_init(&self->logged);
    esc_mutex_init(&self->host_mutex);
    self->path = PyUnicode_FromString("");
    self->events = PyDict_New();
    self->names = PyList_New(0);
    self->types = PyDict_New();
    if (self->path == NULL || self->events == NULL || self->names == NULL || self->types == NULL) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

/* _open(path, durability, readonly, max_message_bytes, source=None): with a source, as a copy of it
 * and with its max_message_bytes */
static PyObject *store_open(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *path;
    const char *durability;
    int readonly;
    Py_ssize_t message_bytes_max;
    PyObject *given = Py_None;
    if (!PyArg_ParseTuple(args, "Uspn|O", &path, &durability, &readonly, &message_bytes_max,
                          &given)) {
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
    message_bytes_max = source == NULL ? message_bytes_max : (Py_ssize_t)source->message_bytes_max;
    escqrs_store_options options = {
        .durability =
            strcmp(durability, "normal") == 0 ? ESCQRS_DURABILITY_NORMAL : ESCQRS_DURABILITY_FULL,
        .readonly = readonly,
        .event_bytes_max = (size_t)message_bytes_max,
        .log = {log_function, self},
    };
    escqrs_error error = {0};
    escqrs_status status;
    escqrs_store *core = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = source == NULL ? escqrs_store_open(name, &options, &core, &error)
                            : escqrs_store_clone(source->core, name, &options, &core, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return raise(self, &error);
    }
    self->core = core;
    self->fork_generation = escqrs_fork_generation();
    self->readonly = readonly;
    self->message_bytes_max = (size_t)message_bytes_max;
    Py_SETREF(self->path, Py_NewRef(path));
    esc_py_store_tidy(self);
    Py_RETURN_NONE;
}

void esc_py_store_close(esc_py_store *self)
{
    if (self->core == NULL || self->fork_generation != escqrs_fork_generation()) {
        return;
    }
    atomic_store_explicit(&self->closed, 1, memory_order_relaxed);
    Py_BEGIN_ALLOW_THREADS
    escqrs_store_close(self->core);
    esc_py_watch_stop(self->watch);
    Py_END_ALLOW_THREADS
    esc_py_store_tidy(self);
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
    if (self->core == NULL || atomic_load(&self->closed) ||
        self->fork_generation != escqrs_fork_generation()) {
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
    Py_VISIT(self->events);
    Py_VISIT(self->types);
    return 0;
}

static void store_dealloc(PyObject *object)
{
    esc_py_store *self = (esc_py_store *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
        return; /* resurrected */
    }
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    bool own = self->fork_generation == escqrs_fork_generation();
    if (own) {
        escqrs_store_destroy(self->core);
        esc_py_watch_destroy(self->watch);
        esc_py_store_tidy(self);
        esc_mutex_fini(&self->host_mutex);
    }
    Py_XDECREF(self->path);
    Py_XDECREF(self->events);
    Py_XDECREF(self->names);
    Py_XDECREF(self->types);
    if (own) {
        type->tp_free(object);
    }
    Py_DECREF(type);
}

/* ---- what is committed ------------------------------------------------------------------------ */

typedef struct batch {
    esc_py_store *store;
    esc_arena arena;
    esc_buffer packed; /* one message */
    PyObject *keep;    /* list: what the memory below borrows from */
    PyObject *moved;   /* borrowed: a tuple of (time, schema's record), one an event; or NULL */
    Py_ssize_t moved_next;
    escqrs_write *writes;
    size_t write_count;
    escqrs_condition condition;
    escqrs_commit commit;
    escqrs_error error;
} batch;

static void batch_fini(batch *self)
{
    esc_arena_fini(&self->arena);
    esc_buffer_fini(&self->packed);
    Py_XDECREF(self->keep);
}

static int batch_init(batch *self, esc_py_store *store)
{
    memset(self, 0, sizeof *self);
    self->store = store;
    esc_arena_init(&self->arena, ARENA_BLOCK_BYTES);
    self->keep = PyList_New(0);
    return self->keep == NULL ? -1 : 0;
}

static void *reserve(batch *self, size_t size)
{
    void *memory = esc_arena_alloc_zero(&self->arena, size);
    if (memory == NULL) {
        PyErr_NoMemory();
    }
    return memory;
}

/* `items` becomes a tuple that the batch holds. Borrowed. */
static PyObject *pin(batch *self, PyObject *items)
{
    PyObject *tuple = PySequence_Tuple(items);
    int failed = tuple == NULL || PyList_Append(self->keep, tuple) < 0;
    Py_XDECREF(tuple);
    return failed ? NULL : tuple;
}

/* The slices of a tuple of str. */
static const escqrs_slice *texts(batch *self, PyObject *tuple, const char *what, size_t *count)
{
    *count = (size_t)PyTuple_GET_SIZE(tuple);
    escqrs_slice *slices = reserve(self, (*count + 1) * sizeof *slices);
    for (size_t i = 0; slices != NULL && i < *count; i++) {
        if (text_slice(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i), what, &slices[i]) < 0) {
            return NULL;
        }
    }
    return slices;
}

static escqrs_type *known_type(esc_py_store *store, PyObject *key)
{
    PyObject *known = PyDict_GetItemWithError(store->types, key);
    return known == NULL ? NULL : PyLong_AsVoidPtr(known);
}

static escqrs_type *note_type(esc_py_store *store, PyObject *key, escqrs_slice name,
                              escqrs_slice record)
{
    escqrs_type *type = NULL;
    escqrs_error error = {0};
    if (escqrs_store_type(store->core, name, record, &type, &error) != ESCQRS_OK) {
        return esc_py_raise(store->state, &error);
    }
    PyObject *number = PyLong_FromVoidPtr(type);
    int failed = number == NULL || PyDict_SetItem(store->types, key, number) < 0;
    Py_XDECREF(number);
    return failed ? NULL : type;
}

static escqrs_type *type_by_name(esc_py_store *store, PyObject *name)
{
    escqrs_type *type = known_type(store, name);
    escqrs_slice text;
    if (type != NULL || PyErr_Occurred() || text_slice(name, "type", &text) < 0) {
        return type;
    }
    return note_type(store, name, text, (escqrs_slice){NULL, 0});
}

/* With the schema of the class, which must fit what is stored. */
static escqrs_type *type_by_class(esc_py_store *store, PyObject *cls)
{
    escqrs_type *type = known_type(store, cls);
    if (type != NULL || PyErr_Occurred()) {
        return type;
    }
    PyObject *claimed =
        PyObject_CallFunctionObjArgs(store->state->store.claim, (PyObject *)store, cls, NULL);
    const escqrs_schema *schema =
        claimed == NULL ? NULL : esc_py_message_schema((PyTypeObject *)cls);
    Py_XDECREF(claimed);
    escqrs_slice name;
    if (schema == NULL ||
        text_slice(esc_py_class_stored_name((PyTypeObject *)cls), "name", &name) < 0) {
        return NULL;
    }
    void *record = NULL;
    size_t size = 0;
    escqrs_error error = {0};
    if (escqrs_schema_record(schema, &record, &size, &error) != ESCQRS_OK) {
        return esc_py_raise(store->state, &error);
    }
    type = note_type(store, cls, name, (escqrs_slice){record, size});
    escqrs_free(record);
    return type;
}

/* With that schema, as it was stored elsewhere. */
static escqrs_type *type_by_record(esc_py_store *store, PyObject *name, PyObject *record)
{
    escqrs_slice text, bytes = {PyBytes_AS_STRING(record), (size_t)PyBytes_GET_SIZE(record)};
    if (bytes.size == 0) {
        return type_by_name(store, name);
    }
    PyObject *key = PyTuple_Pack(2, name, record);
    escqrs_type *type = key == NULL ? NULL : known_type(store, key);
    if (type == NULL && !PyErr_Occurred() && text_slice(name, "type", &text) == 0) {
        type = note_type(store, key, text, bytes);
    }
    Py_XDECREF(key);
    return type;
}

/* Of an event that is moved here from elsewhere: the time and schema that it has there. */
static int take_moved(batch *self, PyObject *name, escqrs_new_event *event)
{
    long long time;
    PyObject *record;
    if (self->moved_next >= PyTuple_GET_SIZE(self->moved)) {
        PyErr_SetString(PyExc_ValueError, "an event without time and schema");
        return -1;
    }
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(self->moved, self->moved_next++), "LS", &time,
                          &record)) {
        return -1;
    }
    event->time_us = time;
    event->type = type_by_record(self->store, name, record);
    return event->type == NULL ? -1 : 0;
}

/* A UUID is kept as one, where its text comes back the same; any other text as it is. */
static int take_id(batch *self, PyObject *id, const escqrs_uuid **uuid, escqrs_slice *text)
{
    char again[ESCQRS_UUID_TEXT_SIZE];
    escqrs_uuid parsed;
    if (id == Py_None) {
        return 0;
    }
    if (text_slice(id, "id", text) < 0) {
        return -1;
    }
    if (!escqrs_uuid_parse(*text, &parsed)) {
        return 0;
    }
    escqrs_uuid_format(&parsed, again);
    if (memcmp(again, text->data, text->size) == 0) {
        escqrs_uuid *kept = reserve(self, sizeof *kept);
        if (kept == NULL) {
            return -1;
        }
        *kept = parsed;
        *uuid = kept;
        *text = (escqrs_slice){NULL, 0};
    }
    return 0;
}

static int take_metadata(batch *self, PyObject *metadata, escqrs_origin *origin)
{
    PyObject *key, *value;
    Py_ssize_t place = 0;
    escqrs_pair *pairs = reserve(self, (size_t)PyDict_GET_SIZE(metadata) * sizeof *pairs);
    if (pairs == NULL) {
        return -1;
    }
    origin->metadata = pairs;
    while (PyDict_Next(metadata, &place, &key, &value)) {
        escqrs_pair *pair = &pairs[origin->metadata_count++];
        if (text_slice(key, "a name in metadata", &pair->key) < 0 ||
            text_slice(value, "a value in metadata", &pair->value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int take_new_event(batch *self, esc_py_new_event *given, escqrs_new_event *event)
{
    if (self->moved != NULL) {
        if (take_moved(self, given->type, event) < 0) {
            return -1;
        }
    } else {
        event->type = type_by_name(self->store, given->type);
    }
    event->data =
        (escqrs_slice){PyBytes_AS_STRING(given->data), (size_t)PyBytes_GET_SIZE(given->data)};
    if (event->type == NULL || take_id(self, given->id, &event->id, &event->id_text) < 0) {
        return -1;
    }
    if (PyTuple_GET_SIZE(given->tags) > 0) {
        event->tags = texts(self, given->tags, "a tag", &event->tag_count);
        if (event->tags == NULL) {
            return -1;
        }
    }
    if (given->metadata == NULL && given->correlation_id == Py_None &&
        given->causation_id == Py_None) {
        return 0;
    }
    escqrs_origin *origin = reserve(self, sizeof *origin);
    event->origin = origin;
    return origin == NULL ||
                   take_id(self, given->correlation_id, &origin->correlation_id,
                           &origin->correlation_text) < 0 ||
                   take_id(self, given->causation_id, &origin->causation_id,
                           &origin->causation_text) < 0 ||
                   (given->metadata != NULL && take_metadata(self, given->metadata, origin) < 0)
               ? -1
               : 0;
}

static int take_message(batch *self, PyObject *message, escqrs_new_event *event)
{
    event->type = type_by_class(self->store, (PyObject *)Py_TYPE(message));
    esc_buffer_reset(&self->packed);
    if (event->type == NULL || esc_py_message_pack(message, &self->packed) < 0) {
        return -1;
    }
    void *copy = reserve(self, self->packed.size + 1);
    if (copy == NULL) {
        return -1;
    }
    if (self->packed.size > 0) {
        memcpy(copy, self->packed.data, self->packed.size);
    }
    event->data = (escqrs_slice){copy, self->packed.size};
    return 0;
}

static int take_events(batch *self, PyObject *given, escqrs_write *write)
{
    esc_py_state *state = self->store->state;
    PyObject *tuple = pin(self, given);
    if (tuple == NULL) {
        return -1;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(tuple);
    escqrs_new_event *events = reserve(self, (count + 1) * sizeof *events);
    write->events = events;
    write->event_count = count;
    for (size_t i = 0; events != NULL && i < count; i++) {
        PyObject *one = PyTuple_GET_ITEM(tuple, (Py_ssize_t)i);
        int failed;
        if (PyObject_TypeCheck(one, state->store.new_event)) {
            failed = take_new_event(self, (esc_py_new_event *)one, &events[i]);
        } else if (esc_py_message_kind(state, one) == ESC_PY_EVENT) {
            failed = take_message(self, one, &events[i]);
        } else {
            PyErr_Format(PyExc_TypeError,
                         "what is stored is an es.NewEvent or an instance of es.Event, not %s",
                         Py_TYPE(one)->tp_name);
            failed = -1;
        }
        if (failed < 0) {
            return -1;
        }
    }
    return events == NULL ? -1 : 0;
}

/* `given`: a list of (stream, events, expected). */
static int take_writes(batch *self, PyObject *given)
{
    PyObject *tuple = pin(self, given);
    if (tuple == NULL) {
        return -1;
    }
    self->write_count = (size_t)PyTuple_GET_SIZE(tuple);
    self->writes = reserve(self, (self->write_count + 1) * sizeof *self->writes);
    for (size_t i = 0; self->writes != NULL && i < self->write_count; i++) {
        escqrs_write *write = &self->writes[i];
        PyObject *stream, *events, *expected;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i), "OOO", &stream, &events,
                              &expected) ||
            text_slice(stream, "stream", &write->stream) < 0 ||
            number(expected, "expected", ESCQRS_EXPECT_ANY, &write->expected) < 0 ||
            take_events(self, events, write) < 0) {
            return -1;
        }
    }
    self->commit.writes = self->writes;
    self->commit.write_count = self->write_count;
    return self->writes == NULL ? -1 : 0;
}

/* `given`: None or (list of (types, tags), after). */
static int take_condition(batch *self, PyObject *given)
{
    PyObject *list, *after;
    if (given == Py_None) {
        return 0;
    }
    if (!PyArg_ParseTuple(given, "OO", &list, &after) ||
        number(after, "after", 0, &self->condition.after) < 0) {
        return -1;
    }
    PyObject *tuple = pin(self, list);
    if (tuple == NULL) {
        return -1;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(tuple);
    escqrs_match *matches = reserve(self, (count + 1) * sizeof *matches);
    for (size_t i = 0; matches != NULL && i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(tuple, (Py_ssize_t)i);
        matches[i].types = texts(self, PyTuple_GET_ITEM(pair, 0), "a type", &matches[i].type_count);
        matches[i].tags = texts(self, PyTuple_GET_ITEM(pair, 1), "a tag", &matches[i].tag_count);
        if (matches[i].types == NULL || matches[i].tags == NULL) {
            return -1;
        }
    }
    self->condition.matches = matches;
    self->condition.match_count = count;
    self->commit.condition = &self->condition;
    return matches == NULL ? -1 : 0;
}

/* `given`: None or (name, position). */
static int take_checkpoint(batch *self, PyObject *given)
{
    PyObject *name, *position;
    if (given == Py_None) {
        return 0;
    }
    if (!PyArg_ParseTuple(given, "OO", &name, &position) ||
        text_slice(name, "the name of a checkpoint", &self->commit.checkpoint) < 0 ||
        number(position, "the position of a checkpoint", 0, &self->commit.checkpoint_position) <
            0) {
        return -1;
    }
    if (self->commit.checkpoint_position == INT64_MAX) {
        PyErr_SetString(PyExc_ValueError, "the position of a checkpoint is below 2**63 - 1");
        return -1;
    }
    if (self->commit.checkpoint.size == 0) {
        PyErr_SetString(PyExc_ValueError, "the name of a checkpoint is not empty");
        return -1;
    }
    return 0;
}

static int take_key(batch *self, PyObject *given)
{
    if (given == Py_None) {
        return 0;
    }
    if (text_slice(given, "key", &self->commit.key) < 0) {
        return -1;
    }
    if (self->commit.key.size == 0) {
        PyErr_SetString(PyExc_ValueError, "key is not empty");
        return -1;
    }
    return 0;
}

static int refuse_in_projection(esc_py_store *self)
{
    if (esc_py_in_projection()) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_DEADLOCK),
                        "a read model that handles an event holds the store's writer, so it cannot "
                        "wait for it");
        return -1;
    }
    return 0;
}

static escqrs_status commit_detached(batch *self)
{
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status = escqrs_store_commit(self->store->core, &self->commit, &self->error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    return status;
}

/* (position, {stream: version}, repeated) */
static PyObject *answer(const batch *self)
{
    PyObject *versions = PyDict_New();
    for (size_t i = 0; versions != NULL && i < self->write_count; i++) {
        const escqrs_write *write = &self->writes[i];
        PyObject *stream =
            PyUnicode_DecodeUTF8(write->stream.data, (Py_ssize_t)write->stream.size, NULL);
        PyObject *version = stream == NULL ? NULL : PyLong_FromLongLong(write->version);
        if (version == NULL || PyDict_SetItem(versions, stream, version) < 0) {
            Py_CLEAR(versions);
        }
        Py_XDECREF(stream);
        Py_XDECREF(version);
    }
    return versions == NULL ? NULL
                            : Py_BuildValue("(LNO)", (long long)self->commit.position, versions,
                                            self->commit.repeated ? Py_True : Py_False);
}

/* The name that the core's error is about, whole: the error itself has room for its beginning. */
static escqrs_slice subject_of(const batch *self, const char **attribute)
{
    size_t size = strlen(self->error.subject);
    const escqrs_commit *commit = &self->commit;
    switch (self->error.status) {
    case ESCQRS_WRONG_VERSION:
        *attribute = "stream";
        for (size_t i = 0; i < self->write_count; i++) {
            escqrs_slice stream = self->writes[i].stream;
            if (stream.size >= size && memcmp(stream.data, self->error.subject, size) == 0 &&
                self->writes[i].expected == self->error.expected) {
                return stream;
            }
        }
        break;
    case ESCQRS_CHECKPOINT_BEHIND:
        *attribute = "name";
        return commit->checkpoint;
    case ESCQRS_KEY_REUSED:
        *attribute = "key";
        if (commit->key.size > size && memcmp(commit->key.data, self->error.subject, size) == 0) {
            return commit->key;
        }
        break;
    default:
        break;
    }
    return (escqrs_slice){NULL, 0};
}

static PyObject *raise_refusal(batch *self)
{
    const char *attribute = NULL;
    esc_py_store_tidy(self->store);
    PyObject *exception = esc_py_error_new(self->store->state, &self->error);
    escqrs_slice subject = subject_of(self, &attribute);
    if (exception != NULL && subject.size > strlen(self->error.subject)) {
        PyObject *whole = PyUnicode_DecodeUTF8(subject.data, (Py_ssize_t)subject.size, NULL);
        if (whole == NULL || PyObject_SetAttrString(exception, attribute, whole) < 0) {
            Py_CLEAR(exception);
        }
        Py_XDECREF(whole);
    }
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

/* _commit(writes, condition, checkpoint, key, moved=None); moved: a tuple of (time in microseconds,
 * schema's record) for each event, all of them es.NewEvent */
static PyObject *store_commit(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *writes, *condition, *checkpoint, *key, *moved = NULL, *result = NULL;
    batch made;
    if (!PyArg_ParseTuple(args, "OOOO|O!", &writes, &condition, &checkpoint, &key, &PyTuple_Type,
                          &moved) ||
        esc_py_store_check(self) < 0 || refuse_in_projection(self) < 0 ||
        batch_init(&made, self) < 0) {
        return NULL;
    }
    made.moved = moved;
    if (take_writes(&made, writes) == 0 && take_condition(&made, condition) == 0 &&
        take_checkpoint(&made, checkpoint) == 0 && take_key(&made, key) == 0) {
        escqrs_status status = commit_detached(&made);
        result = status == ESCQRS_OK ? answer(&made) : raise_refusal(&made);
    }
    batch_fini(&made);
    esc_py_store_tidy(self);
    return result;
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
    if (esc_py_store_check(self) < 0 || text_slice(name, "stream", &stream) < 0) {
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
    if (esc_py_store_check(self) < 0 || text_slice(name, "stream", &stream) < 0) {
        return NULL;
    }
    Py_INCREF(name);
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_version(self->core, stream, &version, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    return status == ESCQRS_OK ? PyLong_FromLongLong(version) : raise(self, &error);
}

static PyObject *store_checkpoint(PyObject *object, PyObject *name)
{
    esc_py_store *self = (esc_py_store *)object;
    escqrs_slice text;
    escqrs_error error = {0};
    escqrs_status status;
    int64_t position = -1;
    if (esc_py_store_check(self) < 0 || text_slice(name, "the name of a checkpoint", &text) < 0) {
        return NULL;
    }
    Py_INCREF(name);
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_checkpoint(self->core, text, &position, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    if (status != ESCQRS_OK) {
        return raise(self, &error);
    }
    return position < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(position);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

/* _save_snapshot(stream, version, type, data) */
static PyObject *store_save_snapshot(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *stream, *version, *type, *data;
    escqrs_new_snapshot snapshot = {0};
    batch made;
    if (!PyArg_ParseTuple(args, "OOOS", &stream, &version, &type, &data) ||
        esc_py_store_check(self) < 0 || refuse_in_projection(self) < 0 ||
        text_slice(stream, "stream", &snapshot.stream) < 0 ||
        number(version, "version", 0, &snapshot.version) < 0 || batch_init(&made, self) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    escqrs_slice name;
    snapshot.data = (escqrs_slice){PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
    if (text_slice(type, "type", &name) == 0 &&
        (snapshot.type = type_by_name(self, type)) != NULL) {
        made.commit.snapshot = &snapshot;
        escqrs_status status = commit_detached(&made);
        result = status == ESCQRS_OK ? Py_NewRef(Py_None) : raise(self, &made.error);
    }
    batch_fini(&made);
    esc_py_store_tidy(self);
    return result;
}

/* _snapshot(stream, upto): (version, type, data) or None */
static PyObject *store_snapshot(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *name, *upto_given;
    escqrs_slice stream;
    int64_t upto;
    if (!PyArg_ParseTuple(args, "OO", &name, &upto_given) || esc_py_store_check(self) < 0 ||
        text_slice(name, "stream", &stream) < 0 || number(upto_given, "upto", -1, &upto) < 0) {
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
    esc_py_store_tidy(self);
    if (status == ESCQRS_DONE) {
        Py_RETURN_NONE;
    }
    if (status != ESCQRS_OK) {
        return raise(self, &error);
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
        refuse_in_projection(self) < 0 || text_slice(name, "stream", &stream) < 0 ||
        number(upto_given, "upto", -1, &upto) < 0) {
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
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : raise(self, &error);
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
        PyObject *item =
            Py_BuildValue("(Ls#L)", (long long)stream->number, (const char *)stream->name.data,
                          (Py_ssize_t)stream->name.size, (long long)stream->version);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* _streams(after): list of (number, name, version), the next of them */
static PyObject *store_streams(PyObject *object, PyObject *after_given)
{
    esc_py_store *self = (esc_py_store *)object;
    int64_t after;
    if (esc_py_store_check(self) < 0 || number(after_given, "after", 0, &after) < 0) {
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
        raise(self, &error);
    } else if (page->no_memory) {
        PyErr_NoMemory();
    } else {
        result = streams_list(page);
    }
    esc_arena_fini(&page->arena);
    escqrs_free(page);
    return result;
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
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : raise(self, &error);
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
        raise(self, &error);
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(types.list);
    }
    return types.list;
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
    return PyBool_FromLong(atomic_load(&((esc_py_store *)object)->closed) != 0);
}

static PyObject *store_get_forked(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_store *)object)->fork_generation != escqrs_fork_generation());
}

static PyObject *store_get_opened(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_store *)object)->core != NULL);
}

static PyObject *store_get_readonly(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((esc_py_store *)object)->readonly);
}

static PyObject *store_get_object(PyObject *object, void *closure)
{
    return Py_NewRef(*(PyObject **)((char *)object + (size_t)closure));
}

/* The functions of the facade that C calls; once, at import. */
static PyObject *store_bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"claim", "abandoned", "log_text", NULL};
    esc_py_store_state *section = &esc_py_state_of(module)->store;
    PyObject *claim, *abandoned, *log_text;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOO", names, &claim, &abandoned, &log_text)) {
        return NULL;
    }
    Py_XSETREF(section->claim, Py_NewRef(claim));
    Py_XSETREF(section->abandoned, Py_NewRef(abandoned));
    Py_XSETREF(section->log_text, Py_NewRef(log_text));
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
    {"_commit", store_commit, METH_VARARGS, NULL},
    {"_save_snapshot", store_save_snapshot, METH_VARARGS, NULL},
    {"_snapshot", store_snapshot, METH_VARARGS, NULL},
    {"_delete_snapshots", store_delete_snapshots, METH_VARARGS, NULL},
    {"_streams", store_streams, METH_O, NULL},
    {"_backup", store_backup, METH_O, NULL},
    {"_types", store_types, METH_NOARGS, NULL},
    {"_stats", esc_py_store_stats, METH_NOARGS, NULL},
    {"_verify", esc_py_store_verify, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef store_getset[] = {
    {"head", store_get_head, NULL, "Position of the last event; 0 in an empty store.", NULL},
    {"path", store_get_object, NULL, "The file's path, or \":memory:\".",
     (void *)offsetof(esc_py_store, path)},
    {"closed", store_get_closed, NULL, "Whether close() was called.", NULL},
    {"readonly", store_get_readonly, NULL, "Whether it was opened with readonly=True.", NULL},
    {"_classes", store_get_object, NULL, NULL, (void *)offsetof(esc_py_store, events)},
    {"_forked", store_get_forked, NULL, NULL, NULL},
    {"_opened", store_get_opened, NULL, NULL, NULL},
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
    Py_VISIT(section->log_text);
    return 0;
}

void esc_py_store_clear_state(esc_py_store_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->new_event);
    Py_CLEAR(section->feed);
    Py_CLEAR(section->claim);
    Py_CLEAR(section->abandoned);
    Py_CLEAR(section->log_text);
}
