/* python/provider.c - a provider written in Python as one of the core's: the table of functions
 * that the journal and the readers call, each of which takes the GIL and asks a bridge
 * (_provider.py), which asks the provider.
 *
 * Threads. Any thread of the core or of the program may come here, always without a lock of the
 * core and, but for calls from the facade, without the GIL: `commit` from who leads the journal,
 * one at a time; everything else from many at once. PyGILState_Ensure finds the thread state that a
 * worker or a caller has put down, so nothing is held that the provider's code could wait for but
 * the lead: a method that waits for a commit of this store would wait for itself, so commands are
 * refused in it (Deadlock).
 *
 * A batch is no transaction here. Each commit is one call, atomic and durable when it returns; one
 * that fails has stored nothing, and the others of the batch stand. So `end` has nothing left to
 * do, and nothing is ever rolled back.
 *
 * Read models need SQL: their tables are in a store of their own in memory (`rows`), and are made
 * from the events each time the provider is opened. Those in files of their own stay: such a file
 * knows the store it belongs to by a number, which the provider keeps.
 *
 * Schemas are not kept by providers, so types have no record here. A snapshot's type has a hash of
 * the record in its name. */
#include "python/provider.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/error.h"
#include "python/simulation.h"
#include "python/state.h"
#include "python/metadata.h"
#include "python/text.h"
#include "store/provider.h"

#define RECORD_HASH_SIZE 17 /* '#' and 16 digits */

typedef struct py_provider {
    escqrs_provider base;
    esc_py_state *state;
    PyObject *bridge;   /* strong */
    escqrs_store *rows; /* of read models */
} py_provider;

static _Thread_local unsigned calls_inside;

bool esc_py_in_provider(void)
{
    return calls_inside > 0;
}

static py_provider *of(escqrs_provider *self)
{
    return (py_provider *)self;
}

static PyGILState_STATE enter(void)
{
    PyGILState_STATE held = PyGILState_Ensure();
    calls_inside++;
    return held;
}

static void leave(PyGILState_STATE held)
{
    calls_inside--;
    PyGILState_Release(held);
}

/* ---- errors ----------------------------------------------------------------------------------- */

static int64_t number_of(PyObject *exception, const char *name)
{
    PyObject *value = PyObject_GetAttrString(exception, name);
    int64_t number = value == NULL || value == Py_None ? 0 : PyLong_AsLongLong(value);
    Py_XDECREF(value);
    PyErr_Clear();
    return number;
}

static void set_subject(PyObject *exception, const char *name, escqrs_error *error)
{
    PyObject *value = PyObject_GetAttrString(exception, name);
    Py_ssize_t size = 0;
    const char *text =
        value != NULL && PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, &size) : NULL;
    if (text != NULL) {
        esc_error_subject(error, (escqrs_slice){text, (size_t)size});
    }
    Py_XDECREF(value);
    PyErr_Clear();
}

static escqrs_status status_of(const py_provider *self, PyObject *exception)
{
    escqrs_status found = ESCQRS_IO; /* StorageError has subclasses, and is what all else becomes */
    for (int i = 0; i < ESC_PY_STATUS_MAX; i++) {
        PyObject *cls = self->state->errors.classes[i];
        if (cls != NULL && i != ESCQRS_IO && PyErr_GivenExceptionMatches(exception, cls)) {
            found = (escqrs_status)i;
            break;
        }
    }
    return found;
}

static void set_details(PyObject *exception, escqrs_error *error)
{
    if (error->status == ESCQRS_WRONG_VERSION) {
        error->expected = number_of(exception, "expected");
        error->actual = error->version = number_of(exception, "actual");
        set_subject(exception, "stream", error);
    } else if (error->status == ESCQRS_CHECKPOINT_BEHIND) {
        error->expected = number_of(exception, "given");
        error->actual = number_of(exception, "current");
        set_subject(exception, "name", error);
    } else if (error->status == ESCQRS_KEY_REUSED) {
        set_subject(exception, "key", error);
    } else if (error->status == ESCQRS_CONDITION_FAILED || error->status == ESCQRS_CORRUPT) {
        error->position = number_of(exception, "position");
        if (error->status == ESCQRS_CORRUPT) {
            error->version = number_of(exception, "version");
            set_subject(exception, "stream", error);
        }
    }
}

/* The current exception as an error, cleared. */
static escqrs_status take_exception(const py_provider *self, escqrs_error *error)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (PyErr_GivenExceptionMatches(type, PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt(); /* the main thread has it once more, outside of the core */
    }
    escqrs_status status = status_of(self, value);
    PyObject *text = PyObject_Str(value);
    const char *message = text == NULL ? NULL : PyUnicode_AsUTF8(text);
    PyErr_Clear();
    bool known = PyErr_GivenExceptionMatches(value, self->state->errors.error);
    status = escqrs_error_set(error, status, "%s%s%s", known ? "" : "the provider raised ",
                              known ? "" : Py_TYPE(value)->tp_name,
                              known && message != NULL ? message : "");
    if (error != NULL) {
        if (!known && message != NULL && message[0] != '\0') {
            size_t size = strlen(error->message);
            snprintf(error->message + size, sizeof error->message - size, ": %s", message);
        }
        set_details(value, error);
    }
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return status;
}

/* ---- values ----------------------------------------------------------------------------------- */

static PyObject *bytes_of(escqrs_slice data)
{
    return PyBytes_FromStringAndSize(data.size > 0 ? data.data : "", (Py_ssize_t)data.size);
}

static PyObject *id_text(escqrs_slice text, const escqrs_uuid *id)
{
    char formatted[ESCQRS_UUID_TEXT_SIZE];
    if (text.size > 0) {
        return esc_py_text(text);
    }
    if (id == NULL) {
        return Py_NewRef(Py_None);
    }
    escqrs_uuid_format(id, formatted);
    return esc_py_text(escqrs_slice_of(formatted));
}

static PyObject *texts_of(const escqrs_slice *texts, size_t count)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *text = esc_py_text(texts[i]);
        if (text == NULL || PyList_Append(list, text) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(text);
    }
    return list;
}

/* ---- commit ----------------------------------------------------------------------------------- */

static PyObject *event_of(const escqrs_commit *commit, const escqrs_new_event *event,
                          escqrs_uuid *cause)
{
    escqrs_recorded made;
    escqrs_event_resolve(commit, event, cause, &made);
    /* N takes the references, and fails with what could not be made; the provider makes ids */
    return Py_BuildValue("(NNNNNNN)", esc_py_text(escqrs_type_name(made.type)), bytes_of(made.data),
                         id_text(event->id_text, event->id), texts_of(made.tags, made.tag_count),
                         esc_py_metadata_dict(made.metadata, made.metadata_count),
                         id_text(made.correlation_text, &made.correlation_id),
                         id_text(made.causation_text, &made.causation_id));
}

static PyObject *write_of(const escqrs_commit *commit, const escqrs_write *write,
                          escqrs_uuid *cause)
{
    PyObject *events = PyList_New(0);
    for (size_t i = 0; events != NULL && i < write->event_count; i++) {
        PyObject *event = event_of(commit, &write->events[i], cause);
        if (event == NULL || PyList_Append(events, event) < 0) {
            Py_CLEAR(events);
        }
        Py_XDECREF(event);
    }
    return Py_BuildValue("(NLN)", esc_py_text(write->stream), (long long)write->expected, events);
}

static PyObject *writes_of(const escqrs_commit *commit)
{
    escqrs_uuid cause = esc_py_new_uuid(); /* a seeded system has its own */
    PyObject *writes = PyList_New(0);
    for (size_t i = 0; writes != NULL && i < commit->write_count; i++) {
        PyObject *write = write_of(commit, &commit->writes[i], &cause);
        if (write == NULL || PyList_Append(writes, write) < 0) {
            Py_CLEAR(writes);
        }
        Py_XDECREF(write);
    }
    return writes;
}

static PyObject *condition_of(const escqrs_condition *condition)
{
    if (condition == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *matches = PyList_New(0);
    for (size_t i = 0; matches != NULL && i < condition->match_count; i++) {
        const escqrs_match *from = &condition->matches[i];
        PyObject *match = Py_BuildValue("(NN)", texts_of(from->types, from->type_count),
                                        texts_of(from->tags, from->tag_count));
        if (match == NULL || PyList_Append(matches, match) < 0) {
            Py_CLEAR(matches);
        }
        Py_XDECREF(match);
    }
    return Py_BuildValue("(NL)", matches, (long long)condition->after);
}

/* The name under which a snapshot is saved. */
static PyObject *snapshot_type(const escqrs_type *type)
{
    if (type->record.size == 0) {
        return esc_py_text(type->name);
    }
    char hash[RECORD_HASH_SIZE + 1];
    snprintf(hash, sizeof hash, "#%016" PRIx64, esc_hash(type->record, 0));
    PyObject *name = esc_py_text(type->name);
    PyObject *made = name == NULL ? NULL : PyUnicode_FromFormat("%U%s", name, hash);
    Py_XDECREF(name);
    return made;
}

static PyObject *snapshot_of(const escqrs_new_snapshot *snapshot)
{
    if (snapshot == NULL) {
        return Py_NewRef(Py_None);
    }
    return Py_BuildValue("(NLNNL)", esc_py_text(snapshot->stream), (long long)snapshot->version,
                         snapshot_type(snapshot->type), bytes_of(snapshot->data),
                         (long long)snapshot->keep);
}

static PyObject *key_of(const escqrs_commit *commit)
{
    return commit->key.size == 0 ? Py_NewRef(Py_None)
                                 : Py_BuildValue("(NNN)", esc_py_text(commit->key_scope),
                                                 esc_py_text(commit->key), bytes_of(commit->reply));
}

static PyObject *checkpoint_of(const escqrs_commit *commit)
{
    return commit->checkpoint.size == 0 ? Py_NewRef(Py_None)
                                        : Py_BuildValue("(NL)", esc_py_text(commit->checkpoint),
                                                        (long long)commit->checkpoint_position);
}

/* Take (position, [versions], repeated). */
static int take_result(escqrs_commit *commit, PyObject *result)
{
    long long position;
    PyObject *versions;
    int repeated;
    if (!PyArg_ParseTuple(result, "LO!p", &position, &PyList_Type, &versions, &repeated)) {
        return -1;
    }
    if ((size_t)PyList_GET_SIZE(versions) != commit->write_count) {
        PyErr_SetString(PyExc_TypeError, "commit() did not answer with a version of each stream");
        return -1;
    }
    for (size_t i = 0; i < commit->write_count; i++) {
        commit->writes[i].version = PyLong_AsLongLong(PyList_GET_ITEM(versions, (Py_ssize_t)i));
        if (commit->writes[i].version == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    commit->position = position;
    commit->repeated = repeated != 0;
    return 0;
}

static escqrs_status provider_apply(escqrs_provider *base, escqrs_commit *commit,
                                    escqrs_error *error)
{
    py_provider *self = of(base);
    if (base->inliner != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a provider of one's own has no inline read models");
    }
    PyGILState_STATE held = enter();
    PyObject *writes = writes_of(commit), *condition = condition_of(commit->condition);
    PyObject *checkpoint = checkpoint_of(commit), *key = key_of(commit);
    PyObject *snapshot = snapshot_of(commit->snapshot);
    PyObject *result = NULL;
    if (writes != NULL && condition != NULL && checkpoint != NULL && key != NULL &&
        snapshot != NULL) {
        result = PyObject_CallMethod(self->bridge, "commit", "OOOOO", writes, condition, checkpoint,
                                     key, snapshot);
    }
    commit->repeated = false;
    escqrs_status status = ESCQRS_OK;
    if (result == NULL || take_result(commit, result) < 0) {
        status = take_exception(self, error);
    }
    Py_XDECREF(result);
    Py_XDECREF(writes);
    Py_XDECREF(condition);
    Py_XDECREF(checkpoint);
    Py_XDECREF(key);
    Py_XDECREF(snapshot);
    leave(held);
    return status;
}

static escqrs_status provider_refresh(escqrs_provider *base, escqrs_error *error)
{
    py_provider *self = of(base);
    escqrs_status status = ESCQRS_OK;
    PyGILState_STATE held = enter();
    PyObject *head = PyObject_CallMethod(self->bridge, "head", NULL);
    int64_t position = head == NULL ? -1 : PyLong_AsLongLong(head);
    if (position == -1 && PyErr_Occurred()) {
        status = take_exception(self, error);
    } else {
        escqrs_provider_set_head(base, position);
    }
    Py_XDECREF(head);
    leave(held);
    return status;
}

static escqrs_status provider_end(escqrs_provider *base, escqrs_error *error)
{
    (void)error;
    (void)!provider_refresh(base, NULL); /* all of it is stored; a head that lags is seen later */
    return ESCQRS_OK;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* A str as its UTF-8, which lives as long as it. False with an exception. */
static bool take_text(PyObject *text, escqrs_slice *slice)
{
    Py_ssize_t size;
    const char *utf8 = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &size) : NULL;
    if (utf8 == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "an event of the provider has no str there");
        }
        return false;
    }
    *slice = (escqrs_slice){utf8, (size_t)size};
    return true;
}

/* An id is a UUID where its text comes back the same. */
static bool take_id(PyObject *text, escqrs_slice *slice, escqrs_uuid *id)
{
    char again[ESCQRS_UUID_TEXT_SIZE];
    if (!take_text(text, slice)) {
        return false;
    }
    if (escqrs_uuid_parse(*slice, id)) {
        escqrs_uuid_format(id, again);
        if (escqrs_slice_equal(*slice, escqrs_slice_of(again))) {
            *slice = (escqrs_slice){NULL, 0};
        }
    }
    return true;
}

/* The lists of an event: as many as any has, used again. */
typedef struct event_lists {
    escqrs_slice *tags;
    escqrs_pair *pairs;
    size_t tag_capacity, pair_capacity;
} event_lists;

static bool take_tags(event_lists *lists, PyObject *tags, escqrs_recorded *recorded)
{
    size_t count = (size_t)PyTuple_GET_SIZE(tags);
    if (count > lists->tag_capacity) {
        escqrs_slice *grown = escqrs_realloc(lists->tags, count * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return false;
        }
        lists->tags = grown;
        lists->tag_capacity = count;
    }
    for (size_t i = 0; i < count; i++) {
        if (!take_text(PyTuple_GET_ITEM(tags, (Py_ssize_t)i), &lists->tags[i])) {
            return false;
        }
    }
    recorded->tags = lists->tags;
    recorded->tag_count = count;
    return true;
}

static bool take_metadata(event_lists *lists, PyObject *metadata, escqrs_recorded *recorded)
{
    size_t count = (size_t)PyDict_GET_SIZE(metadata), i = 0;
    PyObject *key, *value;
    Py_ssize_t place = 0;
    if (count > lists->pair_capacity) {
        escqrs_pair *grown = escqrs_realloc(lists->pairs, count * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return false;
        }
        lists->pairs = grown;
        lists->pair_capacity = count;
    }
    while (i < count && PyDict_Next(metadata, &place, &key, &value)) {
        if (!take_text(key, &lists->pairs[i].key) || !take_text(value, &lists->pairs[i].value)) {
            return false;
        }
        i++;
    }
    recorded->metadata = lists->pairs;
    recorded->metadata_count = i;
    return true;
}

/* A tuple of the bridge as an event, which borrows from it and from the lists. */
static int take_event(py_provider *self, PyObject *row, event_lists *lists,
                      escqrs_recorded *recorded)
{
    PyObject *stream, *type, *data, *id, *correlation, *causation, *metadata, *tags;
    long long position, version, time_us;
    escqrs_slice name;
    *recorded = (escqrs_recorded){0};
    if (!PyArg_ParseTuple(row, "LLLOOSOOOO!O!", &position, &version, &time_us, &stream, &type,
                          &data, &id, &correlation, &causation, &PyDict_Type, &metadata,
                          &PyTuple_Type, &tags)) {
        return -1;
    }
    recorded->position = position;
    recorded->version = version;
    recorded->time_us = time_us;
    recorded->data = (escqrs_slice){PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
    if (!take_text(stream, &recorded->stream) || !take_text(type, &name) ||
        !take_id(id, &recorded->id_text, &recorded->id) ||
        !take_id(correlation, &recorded->correlation_text, &recorded->correlation_id) ||
        !take_id(causation, &recorded->causation_text, &recorded->causation_id) ||
        !take_metadata(lists, metadata, recorded) || !take_tags(lists, tags, recorded)) {
        return -1;
    }
    escqrs_error error = {0};
    escqrs_status status =
        escqrs_provider_type(&self->base, name, (escqrs_slice){NULL, 0}, &recorded->type, &error);
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

static escqrs_status take_rows(py_provider *self, const escqrs_query *query, PyObject *rows,
                               escqrs_page *page, escqrs_error *error)
{
    event_lists lists = {0};
    escqrs_status status = ESCQRS_OK;
    Py_ssize_t count = PyList_Check(rows) ? PyList_GET_SIZE(rows) : 0;
    for (Py_ssize_t i = 0; i < count && status == ESCQRS_OK; i++) {
        escqrs_recorded recorded;
        status = take_event(self, PyList_GET_ITEM(rows, i), &lists, &recorded) < 0
                     ? take_exception(self, error)
                     : escqrs_page_add(page, query, &recorded, error);
    }
    escqrs_free(lists.tags);
    escqrs_free(lists.pairs);
    return status == ESCQRS_DONE ? ESCQRS_OK : status;
}

static escqrs_status provider_read(escqrs_provider *base, const escqrs_query *query,
                                   escqrs_page *page, escqrs_error *error)
{
    py_provider *self = of(base);
    escqrs_status status = escqrs_page_begin(page, query, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    PyGILState_STATE held = enter();
    PyObject *stream = query->stream.size > 0 ? esc_py_text(query->stream) : Py_NewRef(Py_None);
    PyObject *rows =
        stream == NULL
            ? NULL
            : PyObject_CallMethod(self->bridge, "read", "OLLOn", stream, (long long)query->after,
                                  (long long)query->upto, query->reverse ? Py_True : Py_False,
                                  (Py_ssize_t)query->count_max);
    status = rows == NULL ? take_exception(self, error) : take_rows(self, query, rows, page, error);
    Py_XDECREF(stream);
    Py_XDECREF(rows);
    leave(held);
    return status;
}

/* Call a method that takes a text and answers with a number or None (`none` then). */
static escqrs_status ask_number(escqrs_provider *base, const char *method, escqrs_slice text,
                                int64_t none, int64_t *number, escqrs_error *error)
{
    py_provider *self = of(base);
    escqrs_status status = ESCQRS_OK;
    PyGILState_STATE held = enter();
    PyObject *name = esc_py_text(text);
    PyObject *result = name == NULL ? NULL : PyObject_CallMethod(self->bridge, method, "O", name);
    *number = result == Py_None ? none : result == NULL ? -1 : PyLong_AsLongLong(result);
    if (PyErr_Occurred()) {
        status = take_exception(self, error);
    }
    Py_XDECREF(name);
    Py_XDECREF(result);
    leave(held);
    return status;
}

static escqrs_status provider_version(escqrs_provider *base, escqrs_slice stream, int64_t *version,
                                      int64_t *hint, escqrs_error *error)
{
    *hint = 0;
    return ask_number(base, "version", stream, 0, version, error);
}

static escqrs_status provider_checkpoint(escqrs_provider *base, escqrs_slice name,
                                         int64_t *position, escqrs_error *error)
{
    return ask_number(base, "checkpoint", name, -1, position, error);
}

/* ---- snapshots and keys ----------------------------------------------------------------------- */

/* The type that was saved under that name: one that is known, with a record of that hash. */
static escqrs_status saved_type(py_provider *self, escqrs_slice saved, escqrs_type **type,
                                escqrs_error *error)
{
    const char *text = saved.data;
    size_t cut = saved.size > RECORD_HASH_SIZE ? saved.size - (RECORD_HASH_SIZE - 1) - 1 : 0;
    if (cut > 0 && text[cut] == '#') {
        uint64_t hash = strtoull(text + cut + 1, NULL, 16);
        escqrs_slice name = {text, cut};
        int64_t last = esc_type_registry_last(&self->base.core->types);
        for (int64_t id = 1; id <= last; id++) {
            escqrs_type *known = esc_type_registry_find(&self->base.core->types, id);
            if (known != NULL && escqrs_slice_equal(known->name, name) && known->record.size > 0 &&
                esc_hash(known->record, 0) == hash) {
                *type = known;
                return ESCQRS_OK;
            }
        }
    }
    return escqrs_provider_type(&self->base, saved, (escqrs_slice){NULL, 0}, type, error);
}

static escqrs_status take_snapshot(py_provider *self, PyObject *result, escqrs_snapshot *snapshot,
                                   escqrs_error *error)
{
    long long version;
    PyObject *type;
    Py_buffer data;
    if (!PyArg_ParseTuple(result, "LUy*", &version, &type, &data)) {
        return take_exception(self, error);
    }
    const escqrs_slice name = esc_py_slice_of(type);
    escqrs_status status = name.data == NULL ? take_exception(self, error)
                                             : saved_type(self, name, &snapshot->type, error);
    snapshot->version = version;
    snapshot->size = (size_t)data.len;
    snapshot->data = status == ESCQRS_OK ? escqrs_alloc((size_t)data.len + 1) : NULL;
    if (status == ESCQRS_OK && snapshot->data == NULL) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a snapshot");
    } else if (status == ESCQRS_OK) {
        memcpy(snapshot->data, data.buf, (size_t)data.len);
    }
    PyBuffer_Release(&data);
    return status;
}

static escqrs_status provider_snapshot(escqrs_provider *base, escqrs_slice stream, int64_t upto,
                                       escqrs_snapshot *snapshot, escqrs_error *error)
{
    py_provider *self = of(base);
    *snapshot = (escqrs_snapshot){0};
    PyGILState_STATE held = enter();
    PyObject *name = esc_py_text(stream);
    PyObject *result =
        name == NULL ? NULL
                     : PyObject_CallMethod(self->bridge, "snapshot", "OL", name, (long long)upto);
    escqrs_status status = ESCQRS_DONE;
    if (result == NULL) {
        status = take_exception(self, error);
    } else if (result != Py_None) {
        status = take_snapshot(self, result, snapshot, error);
    }
    Py_XDECREF(name);
    Py_XDECREF(result);
    leave(held);
    return status;
}

static escqrs_status provider_delete_snapshots(escqrs_provider *base, escqrs_slice stream,
                                               int64_t upto, escqrs_error *error)
{
    py_provider *self = of(base);
    PyGILState_STATE held = enter();
    PyObject *name = esc_py_text(stream);
    PyObject *result = name == NULL ? NULL
                                    : PyObject_CallMethod(self->bridge, "delete_snapshots", "OL",
                                                          name, (long long)upto);
    escqrs_status status = result == NULL ? take_exception(self, error) : ESCQRS_OK;
    Py_XDECREF(name);
    Py_XDECREF(result);
    leave(held);
    return status;
}

static escqrs_status take_reply(py_provider *self, PyObject *result, void **reply, size_t *size,
                                int64_t *position, escqrs_error *error)
{
    PyObject *data;
    long long at;
    if (!PyArg_ParseTuple(result, "SL", &data, &at)) {
        return take_exception(self, error);
    }
    *size = (size_t)PyBytes_GET_SIZE(data);
    *position = at;
    *reply = escqrs_alloc(*size + 1);
    if (*reply == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a reply");
    }
    memcpy(*reply, PyBytes_AS_STRING(data), *size);
    return ESCQRS_OK;
}

static escqrs_status provider_key(escqrs_provider *base, escqrs_slice scope, escqrs_slice key,
                                  void **reply, size_t *size, int64_t *position,
                                  escqrs_error *error)
{
    py_provider *self = of(base);
    PyGILState_STATE held = enter();
    PyObject *result =
        PyObject_CallMethod(self->bridge, "key", "NN", esc_py_text(scope), esc_py_text(key));
    escqrs_status status = ESCQRS_DONE;
    if (result == NULL) {
        status = take_exception(self, error);
    } else if (result != Py_None) {
        status = take_reply(self, result, reply, size, position, error);
    }
    Py_XDECREF(result);
    leave(held);
    return status;
}

/* ---- rows of read models ---------------------------------------------------------------------- */

static escqrs_status provider_run(escqrs_provider *base, bool sync,
                                  escqrs_status (*work)(void *context, void *sqlite,
                                                        escqrs_error *error),
                                  void *context, escqrs_error *error)
{
    return escqrs_store_run(of(base)->rows, sync, work, context, error);
}

static escqrs_status provider_reader(escqrs_provider *base, void **sqlite, escqrs_error *error)
{
    return escqrs_store_reader(of(base)->rows, sqlite, error);
}

static void provider_reader_return(escqrs_provider *base, void *sqlite)
{
    escqrs_store_reader_return(of(base)->rows, sqlite);
}

static void provider_stop_readers(escqrs_provider *base)
{
    escqrs_store_close(of(base)->rows); /* the journal has ended: nobody runs work there any more */
}

/* ---- life ------------------------------------------------------------------------------------- */

static void provider_destroy(escqrs_provider *base)
{
    py_provider *self = of(base);
    escqrs_store_destroy(self->rows);
    PyGILState_STATE held = PyGILState_Ensure();
    Py_XDECREF(self->bridge);
    PyGILState_Release(held);
    escqrs_provider_fini(base);
    escqrs_free(self);
}

static const escqrs_provider_functions provider_functions = {
    .interface_version = ESCQRS_PROVIDER_VERSION,
    .size = sizeof(escqrs_provider_functions),
    .name = "python",
    .apply = provider_apply,
    .end = provider_end,
    .run = provider_run,
    .delete_snapshots = provider_delete_snapshots,
    .read = provider_read,
    .version = provider_version,
    .checkpoint = provider_checkpoint,
    .snapshot = provider_snapshot,
    .key = provider_key,
    .refresh = provider_refresh,
    .reader = provider_reader,
    .reader_return = provider_reader_return,
    .stop_readers = provider_stop_readers,
    .destroy = provider_destroy,
};

/* With the GIL. NULL with `error` filled. */
static py_provider *provider_new(esc_py_state *state, PyObject *bridge,
                                 const escqrs_store_options *rows, escqrs_error *error)
{
    py_provider *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        (void)escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a provider");
        return NULL;
    }
    if (escqrs_provider_init(&made->base, &provider_functions, error) != ESCQRS_OK) {
        escqrs_free(made);
        return NULL;
    }
    made->state = state;
    made->bridge = Py_NewRef(bridge);
    if (escqrs_store_open(":memory:", rows, &made->rows, error) != ESCQRS_OK) {
        provider_destroy(&made->base);
        return NULL;
    }
    return made;
}

PyObject *esc_py_store_open_provider(PyObject *object, PyObject *args)
{
    esc_py_store *self = (esc_py_store *)object;
    PyObject *bridge, *name, *simulation = Py_None;
    Py_ssize_t message_bytes_max;
    if (!PyArg_ParseTuple(args, "OUn|O", &bridge, &name, &message_bytes_max, &simulation)) {
        return NULL;
    }
    const char *shown = PyUnicode_AsUTF8(name);
    if (shown == NULL) {
        return NULL;
    }
    if (self->core != NULL) {
        PyErr_SetString(PyExc_TypeError, "this store has been opened before");
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_store_options options = {.event_bytes_max = (size_t)message_bytes_max,
                                    .log = {esc_py_log_write, &self->log}};
    if (esc_py_store_take_simulation(self, simulation, &options) < 0) {
        return NULL;
    }
    const escqrs_store_options rows = {.manual = options.manual};
    py_provider *provider = provider_new(self->state, bridge, &rows, &error);
    if (provider == NULL) {
        return esc_py_store_raise(self, &error);
    }
    escqrs_status status;
    escqrs_store *core = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = provider_refresh(&provider->base, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_open_provider(&provider->base, shown, &options, &core, &error);
    } else {
        provider_destroy(&provider->base);
    }
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return esc_py_store_raise(self, &error);
    }
    self->core = self->backing->core = core;
    self->fork_generation = self->backing->fork_generation = escqrs_fork_generation();
    self->backing->message_bytes_max = (size_t)message_bytes_max;
    Py_SETREF(self->path, Py_NewRef(name));
    Py_RETURN_NONE;
}

PyObject *esc_py_store_provider_changed(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_store *self = (esc_py_store *)object;
    if (self->core == NULL || !esc_py_is_own(self->fork_generation) ||
        atomic_load_explicit(&self->closed, memory_order_relaxed)) {
        Py_RETURN_NONE;
    }
    Py_BEGIN_ALLOW_THREADS
    escqrs_store_changed(self->core);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static escqrs_status work_name(void *context, void *sqlite, escqrs_error *error)
{
    char update[80];
    snprintf(update, sizeof update, "UPDATE escqrs_store SET value = %lld WHERE name = 'salt'",
             *(const long long *)context);
    if (sqlite3_exec(sqlite, update, NULL, NULL, NULL) != SQLITE_OK) {
        return escqrs_error_set(error, ESCQRS_IO, "the store of rows: %s", sqlite3_errmsg(sqlite));
    }
    return ESCQRS_OK;
}

PyObject *esc_py_store_name_rows(PyObject *object, PyObject *argument)
{
    esc_py_store *self = (esc_py_store *)object;
    long long number = PyLong_AsLongLong(argument);
    if ((number == -1 && PyErr_Occurred()) || esc_py_store_check(self) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_run(self->core, false, work_name, &number, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return esc_py_store_raise(self, &error);
    }
    Py_RETURN_NONE;
}
