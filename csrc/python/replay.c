/* python/replay.c - folding stored events into a state: for the core, and for state_at.
 *
 * Locks: none. Decoding runs without the GIL, all else with it.
 */
#include "python/definition_parts.h"
#include "python/recorded.h"
#include "python/text.h"
#include "python/upcast.h"

static _Thread_local PyObject *interruption;

PyObject *esc_py_definition_interruption(void)
{
    PyObject *taken = interruption;
    interruption = NULL;
    return taken;
}

/* An applier, an upcaster or the class's look-up raised: keep what is no Exception. */
static escqrs_status raised(escqrs_error *error, const char *what)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        Py_XSETREF(interruption, Py_XNewRef(value));
        PyErr_Restore(type, value, traceback);
    }
    return esc_py_failure(error, ESCQRS_REPLAY, what);
}

/* The entry for events of that class; NULL with `error` filled. */
static esc_py_entry *entry_for(esc_py_definition *self, PyTypeObject *cls, escqrs_error *error)
{
    esc_py_entry *entry = esc_py_entry_of_class(self, cls);
    if (entry == NULL) {
        entry = esc_py_entry_of_name(self, esc_py_slice_of(esc_py_class_stored_name(cls)));
    }
    if (entry == NULL) {
        (void)escqrs_error_set(error, ESCQRS_REPLAY,
                               "no @es.applies method of %s takes %s; write one, be it one that "
                               "passes",
                               PyUnicode_AsUTF8(self->name),
                               PyUnicode_AsUTF8(esc_py_class_stored_name(cls)));
    }
    return entry;
}

/* Where the type's entry is not published yet: find and publish it. NULL with `error` filled, or
 * with `*upcasts`: events of that type have to be upcast. */
static esc_py_entry *look_up(esc_py_definition *self, const escqrs_recorded *recorded,
                             bool *upcasts, escqrs_error *error)
{
    PyObject *reading = esc_py_reading(self->system->keeper->backing, recorded->type);
    if (reading == NULL) {
        (void)raised(error, "its class cannot be used");
        return NULL;
    }
    *upcasts = esc_py_reading_upcasts(reading);
    if (*upcasts) {
        return NULL;
    }
    if (PyExceptionInstance_Check(reading)) {
        PyObject *text = PyObject_Str(reading);
        const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);
        (void)escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH, "%s", utf8 == NULL ? "?" : utf8);
        Py_XDECREF(text);
        PyErr_Clear();
        return NULL;
    }
    if (reading == Py_None) {
        (void)escqrs_error_set(error, ESCQRS_UNKNOWN_TYPE,
                               "no @es.applies method of %s takes it; write one, be it one that "
                               "passes",
                               PyUnicode_AsUTF8(self->name));
        return NULL;
    }
    esc_py_entry *entry = entry_for(self, (PyTypeObject *)reading, error);
    if (entry == NULL) {
        return NULL;
    }
    if (esc_py_entry_publish(self, recorded->type, entry) < 0) {
        (void)escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for the types of events");
        return NULL;
    }
    return entry;
}

static escqrs_status unpack_event(esc_py_definition *self, const esc_py_entry *entry,
                                  const escqrs_recorded *recorded, ProtobufCMessage **message,
                                  escqrs_error *error)
{
    escqrs_limits limits = {.bytes_max = self->system->message_bytes_max};
    return escqrs_message_unpack(entry->schema, recorded->data, &limits, message, error);
}

escqrs_status esc_py_replay_decode(void *context, const escqrs_recorded *recorded, void **decoded,
                                   escqrs_error *error)
{
    esc_py_definition *self = context;
    const esc_py_entry *entry = esc_py_entry_published(self, recorded->type);
    *decoded = NULL;
    if (entry == NULL) {
        return ESCQRS_OK; /* `apply` has the GIL and looks the type up */
    }
    return unpack_event(self, entry, recorded, (ProtobufCMessage **)decoded, error);
}

void esc_py_replay_discard(void *context, void *decoded)
{
    (void)context;
    escqrs_message_free(decoded);
}

/* Apply what upcasting makes of it. */
static escqrs_status apply_upcast(esc_py_definition *self, esc_py_instance *instance,
                                  const escqrs_recorded *recorded, escqrs_error *error)
{
    esc_py_store *store = self->system->keeper;
    PyObject *reading = esc_py_reading(store->backing, recorded->type);
    PyObject *stored = reading == NULL ? NULL : esc_py_recorded_new(store, recorded);
    reading = stored == NULL ? NULL : esc_py_reading(store->backing, recorded->type);
    PyObject *events = reading == NULL ? NULL : esc_py_upcast(reading, stored);
    Py_XDECREF(stored);
    if (events == NULL) {
        return raised(error, "upcasting it failed");
    }
    escqrs_status status = ESCQRS_OK;
    instance->version = recorded->version;
    for (Py_ssize_t i = 0; status == ESCQRS_OK && i < PyList_GET_SIZE(events); i++) {
        PyObject *event = PyList_GET_ITEM(events, i);
        esc_py_entry *entry = entry_for(self, Py_TYPE(event), error);
        if (entry == NULL) {
            status = error->status;
        } else if (esc_py_instance_apply(instance, entry->applier, event) < 0) {
            status = raised(error, "@es.applies raised");
        }
    }
    Py_DECREF(events);
    return status;
}

escqrs_status esc_py_replay_apply(void *context, void *state, const escqrs_recorded *recorded,
                                  void *decoded, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_instance *instance = state;
    ProtobufCMessage *message = decoded;
    esc_py_entry *entry = esc_py_entry_published(self, recorded->type);
    bool upcasts = false;
    if (entry == NULL && (entry = look_up(self, recorded, &upcasts, error)) == NULL) {
        escqrs_message_free(message);
        return upcasts ? apply_upcast(self, instance, recorded, error) : error->status;
    }
    /* decoded with an older definition, or not at all */
    if (message != NULL && message->descriptor != escqrs_schema_descriptor(entry->schema)) {
        escqrs_message_free(message);
        message = NULL;
    }
    if (message == NULL) {
        escqrs_status status = unpack_event(self, entry, recorded, &message, error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    PyObject *event = esc_py_message_wrap(entry->cls, message);
    instance->version = recorded->version;
    int result = event == NULL ? -1 : esc_py_instance_apply(instance, entry->applier, event);
    Py_XDECREF(event);
    if (result < 0) {
        return raised(error, "@es.applies raised");
    }
    return ESCQRS_OK;
}

/* ---- reading an earlier state ---------------------------------------------------------------------- */

typedef struct folding {
    esc_py_definition *definition;
    escqrs_entity *entity;
    escqrs_cursor *cursor;
    esc_py_instance *instance;
} folding;

/* 0; 1 at the end; -1 with an exception. */
static int fold_page(folding *fold)
{
    enum { PAGE = 256 };
    esc_py_definition *self = fold->definition;
    const escqrs_recorded *recorded = NULL;
    void *decoded[PAGE];
    size_t count = 0, ready = 0;
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_cursor_read(fold->cursor, PAGE, &recorded, &count, &error);
    while (status == ESCQRS_OK && ready < count) {
        status = esc_py_replay_decode(self, &recorded[ready], &decoded[ready], &error);
        if (status != ESCQRS_OK) {
            (void)escqrs_replay_explain(&recorded[ready], "read", status, &error);
            break;
        }
        ready++;
    }
    Py_END_ALLOW_THREADS
    size_t applied = 0;
    while (status == ESCQRS_OK && applied < ready) {
        status =
            esc_py_replay_apply(self, fold->instance, &recorded[applied], decoded[applied], &error);
        if (status != ESCQRS_OK) {
            (void)escqrs_replay_explain(&recorded[applied], "applied", status, &error);
        }
        applied++;
        if (status == ESCQRS_OK && PyErr_CheckSignals() < 0) {
            break;
        }
    }
    for (; applied < ready; applied++) {
        esc_py_replay_discard(self, decoded[applied]);
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    if (status == ESCQRS_DONE) {
        return 1;
    }
    PyObject *exception = esc_py_definition_interruption();
    if (exception != NULL) {
        esc_py_exception_raise(exception);
        Py_DECREF(exception);
        return -1;
    }
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

/* Read the events after the instance's version, up to `version`. */
static int fold_open(folding *fold, int64_t version)
{
    esc_py_definition *self = fold->definition;
    escqrs_range range = {.after = fold->instance->version, .upto = version};
    escqrs_error error = {0};
    escqrs_status status;
    if (range.after == version) {
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_history(self->system->store, escqrs_entity_stream(fold->entity), &range,
                                  &fold->cursor, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

/* Begin from the newest usable snapshot at or below `version`. */
static int fold_begin(folding *fold, int64_t version)
{
    esc_py_definition *self = fold->definition;
    escqrs_slice stream = escqrs_entity_stream(fold->entity);
    escqrs_snapshot snapshot = {0};
    escqrs_error error = {0};
    escqrs_status status;
    fold->instance = esc_py_instance_initial(self, fold->entity, true);
    if (fold->instance == NULL) {
        return -1;
    }
    if (version == 0) {
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_snapshot(self->system->store, stream, version, &snapshot, &error);
    Py_END_ALLOW_THREADS
    if (status == ESCQRS_OK) {
        if (esc_py_snapshot_unpack(self, fold->instance, &snapshot, &error) != ESCQRS_OK) {
            fold->instance->version = 0; /* fall back to the whole history */
            Py_SETREF(fold->instance, esc_py_instance_initial(self, fold->entity, true));
        }
        escqrs_free(snapshot.data);
        if (fold->instance == NULL) {
            return -1;
        }
    } else if (status != ESCQRS_DONE) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return fold_open(fold, version);
}

static PyObject *fold_rest(folding *fold, int result)
{
    while (result == 0 && fold->cursor != NULL) {
        result = fold_page(fold);
    }
    escqrs_cursor_close(fold->cursor);
    if (result < 0) {
        Py_CLEAR(fold->instance);
    }
    return (PyObject *)fold->instance;
}

PyObject *esc_py_definition_state_at(esc_py_definition *self, escqrs_entity *entity,
                                     int64_t version)
{
    folding fold = {.definition = self, .entity = entity};
    return fold_rest(&fold, fold_begin(&fold, version));
}

PyObject *esc_py_definition_refold(esc_py_definition *self, escqrs_entity *entity, int64_t version)
{
    folding fold = {.definition = self, .entity = entity};
    fold.instance = esc_py_instance_initial(self, entity, true);
    return fold_rest(&fold, fold.instance == NULL ? -1 : fold_open(&fold, version));
}

PyObject *esc_py_definition_snapshot(esc_py_definition *self, escqrs_entity *entity,
                                     int64_t version)
{
    escqrs_snapshot found = {0};
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_snapshot(self->system->store, escqrs_entity_stream(entity), version,
                                   &found, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK && status != ESCQRS_DONE) {
        return esc_py_raise(self->state, &error);
    }
    esc_py_instance *instance = NULL;
    if (status == ESCQRS_OK && found.version == version) {
        instance = esc_py_instance_initial(self, entity, true);
        status =
            instance == NULL ? ESCQRS_OK : esc_py_snapshot_unpack(self, instance, &found, &error);
        if (status != ESCQRS_OK) {
            Py_CLEAR(instance);
            esc_py_raise(self->state, &error);
        }
    } else {
        instance = (esc_py_instance *)Py_NewRef(Py_None);
    }
    escqrs_free(found.data);
    return (PyObject *)instance;
}
