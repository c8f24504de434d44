/* python/commit.c - what a program commits to an es.Store.
 *
 * A commit is made in three steps: with the GIL everything is checked and pointed at (the objects
 * are pinned by tuples of our own, which nobody else can change; messages are packed into an
 * arena); without it the core commits; with it again the result becomes Python's.
 *
 * A commit that stands behind a read model at work (its transaction lasts as long as its handlers
 * do) is left to the journal, and waited for as anything else is: Ctrl-C takes it back. */
#include "python/commit.h"

#include <limits.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/thread.h"
#include "python/adopted.h"
#include "python/argument.h"
#include "python/new_event.h"
#include "python/state.h"
#include "python/upcast.h"
#include "python/wait.h"

#define ARENA_BLOCK_BYTES 32768

typedef struct batch {
    esc_py_store *store;
    esc_arena arena;
    esc_buffer packed; /* one message */
    PyObject *keep;    /* list: what the memory below borrows from */
    PyObject *moved;   /* borrowed: a tuple of (time, record, link), one an event; or NULL */
    Py_ssize_t moved_next;
    escqrs_write *writes;
    size_t write_count;
    escqrs_condition condition;
    escqrs_commit commit;
    escqrs_error error;
    bool waits;     /* the call that commits does; else `answered` says that it is over */
    unsigned forks; /* when it began */
    _Atomic uint32_t answered; /* a futex */
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
        if (esc_py_text_slice(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i), what, &slices[i]) < 0) {
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
    if (type != NULL || PyErr_Occurred() || esc_py_text_slice(name, "type", &text) < 0) {
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
    bool good = claimed != NULL;
    Py_XDECREF(claimed);
    escqrs_slice name;
    void *record = NULL;
    size_t size = 0;
    if (!good ||
        esc_py_text_slice(esc_py_class_stored_name((PyTypeObject *)cls), "name", &name) < 0 ||
        esc_py_record_of(store->backing, (PyTypeObject *)cls, &record, &size) < 0) {
        return NULL;
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
    if (type == NULL && !PyErr_Occurred() && esc_py_text_slice(name, "type", &text) == 0) {
        type = note_type(store, key, text, bytes);
    }
    Py_XDECREF(key);
    return type;
}

/* Of an event that is moved here from elsewhere: the time and schema that it has there, and the
 * link of one that stands for a deleted one. */
static int take_moved(batch *self, PyObject *name, escqrs_new_event *event)
{
    long long time;
    PyObject *record;
    const char *link;
    Py_ssize_t link_size;
    if (self->moved_next >= PyTuple_GET_SIZE(self->moved)) {
        PyErr_SetString(PyExc_ValueError, "an event without time and schema");
        return -1;
    }
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(self->moved, self->moved_next++), "LSz#", &time, &record,
                          &link, &link_size)) {
        return -1;
    }
    if (link != NULL && link_size != ESCQRS_CHAIN_LINK_SIZE) {
        PyErr_SetString(PyExc_ValueError, "a link of a hash chain has 32 bytes");
        return -1;
    }
    event->link = (const uint8_t *)link;
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
    if (esc_py_text_slice(id, "id", text) < 0) {
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
        if (esc_py_text_slice(key, "a name in metadata", &pair->key) < 0 ||
            esc_py_text_slice(value, "a value in metadata", &pair->value) < 0) {
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

static int take_message(batch *self, PyTypeObject *cls, PyObject *message, escqrs_new_event *event)
{
    event->type = type_by_class(self->store, (PyObject *)cls);
    esc_buffer_reset(&self->packed);
    if (event->type == NULL || esc_py_event_pack(cls, message, &self->packed) < 0) {
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
        PyTypeObject *cls;
        if (PyObject_TypeCheck(one, state->store.new_event)) {
            failed = take_new_event(self, (esc_py_new_event *)one, &events[i]);
        } else if ((cls = esc_py_class_for(state, one, ESC_PY_EVENT)) != NULL) {
            failed = take_message(self, cls, one, &events[i]);
        } else if (PyErr_Occurred()) {
            failed = -1;
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
            esc_py_text_slice(stream, "stream", &write->stream) < 0 ||
            esc_py_number(expected, "expected", ESCQRS_EXPECT_ANY, &write->expected) < 0 ||
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
        esc_py_number(after, "after", 0, &self->condition.after) < 0) {
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
        esc_py_text_slice(name, "the name of a checkpoint", &self->commit.checkpoint) < 0 ||
        esc_py_number(position, "the position of a checkpoint", 0,
                      &self->commit.checkpoint_position) < 0) {
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
    if (esc_py_text_slice(given, "key", &self->commit.key) < 0) {
        return -1;
    }
    if (self->commit.key.size == 0) {
        PyErr_SetString(PyExc_ValueError, "key is not empty");
        return -1;
    }
    return 0;
}

/* On the thread that led the batch. */
static void commit_done(escqrs_commit *commit)
{
    batch *self = commit->context;
    if (self->waits) {
        return;
    }
    /* release: pairs with the acquire in wait_answered; after it the batch may be gone, and waking
     * an address that is nobody's does no harm */
    atomic_store_explicit(&self->answered, 1, memory_order_release);
    esc_futex_wake(&self->answered, INT_MAX);
}

static escqrs_status wait_answered(void *context, int64_t deadline_ns)
{
    batch *self = context;
    /* acquire: pairs with the release in commit_done: the results are there */
    while (atomic_load_explicit(&self->answered, memory_order_acquire) == 0) {
        if (!esc_futex_wait(&self->answered, 0, deadline_ns)) {
            return escqrs_fork_generation() == self->forks ? ESCQRS_TIMEOUT : ESCQRS_FORKED;
        }
    }
    return ESCQRS_OK;
}

/* What the journal was left with: its status, or -1 with an exception set. The batch is not the
 * journal's any more then. */
static int await_answer(batch *self)
{
    int waited = esc_py_wait(wait_answered, self, INT64_MAX);
    if (waited == ESCQRS_OK) {
        return (int)self->commit.status;
    }
    escqrs_status status;
    if (escqrs_fork_generation() != self->forks) { /* by a signal handler: it is the parent's */
        status = escqrs_error_set(&self->error, ESCQRS_FORKED,
                                  "the store belongs to the parent process; open it again");
    } else if (escqrs_store_withdraw(self->store->core, &self->commit)) {
        status = escqrs_error_set(&self->error, ESCQRS_NO_MEMORY, "no memory to wait for a commit");
    } else { /* it is being committed */
        Py_BEGIN_ALLOW_THREADS
        status = wait_answered(self, INT64_MAX);
        Py_END_ALLOW_THREADS
        ESC_ASSERT(status == ESCQRS_OK);
        status = self->commit.status;
    }
    return waited < 0 ? -1 : (int)status;
}

/* Its status, or -1 with an exception set. */
static int commit_detached(batch *self)
{
    escqrs_status status;
    self->waits = true;
    self->forks = escqrs_fork_generation();
    self->commit.done = commit_done;
    self->commit.context = self;
    self->commit.error = &self->error;
    Py_BEGIN_ALLOW_THREADS
    escqrs_runtime_block();
    status =
        escqrs_store_commit_or_leave(self->store->core, &self->commit, &self->waits, &self->error);
    escqrs_runtime_unblock();
    Py_END_ALLOW_THREADS
    return status == ESCQRS_DONE ? await_answer(self) : (int)status;
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
    esc_py_log_drain(&self->store->log);
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
 * schema's record, link of the hash chain or None) for each event, all of them es.NewEvent */
PyObject *esc_py_store_commit(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *writes, *condition, *checkpoint, *key, *moved = NULL, *result = NULL;
    batch made;
    if (!PyArg_ParseTuple(args, "OOOO|O!", &writes, &condition, &checkpoint, &key, &PyTuple_Type,
                          &moved) ||
        esc_py_store_check(self) < 0 || esc_py_store_refuse_in_projection(self) < 0 ||
        batch_init(&made, self) < 0) {
        return NULL;
    }
    made.moved = moved;
    if (take_writes(&made, writes) == 0 && take_condition(&made, condition) == 0 &&
        take_checkpoint(&made, checkpoint) == 0 && take_key(&made, key) == 0) {
        int status = commit_detached(&made);
        result = status == ESCQRS_OK ? answer(&made) : status < 0 ? NULL : raise_refusal(&made);
    }
    batch_fini(&made);
    esc_py_log_drain(&self->log);
    return result;
}

/* _save_snapshot(stream, version, type, data) */
PyObject *esc_py_store_save_snapshot(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *stream, *version, *type, *data;
    escqrs_new_snapshot snapshot = {0};
    batch made;
    if (!PyArg_ParseTuple(args, "OOOS", &stream, &version, &type, &data) ||
        esc_py_store_check(self) < 0 || esc_py_store_refuse_in_projection(self) < 0 ||
        esc_py_text_slice(stream, "stream", &snapshot.stream) < 0 ||
        esc_py_number(version, "version", 0, &snapshot.version) < 0 ||
        batch_init(&made, self) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    escqrs_slice name;
    snapshot.data = (escqrs_slice){PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
    if (esc_py_text_slice(type, "type", &name) == 0 &&
        (snapshot.type = type_by_name(self, type)) != NULL) {
        made.commit.snapshot = &snapshot;
        int status = commit_detached(&made);
        result = status == ESCQRS_OK ? Py_NewRef(Py_None)
                 : status < 0        ? NULL
                                     : esc_py_store_raise(self, &made.error);
    }
    batch_fini(&made);
    esc_py_log_drain(&self->log);
    return result;
}
