/* python/definition.c - see definition.h.
 *
 * Locks: none; the GIL guards everything but `decode`, which reads the published array of events.
 */
#include "python/definition.h"

#include <stdatomic.h>
#include <string.h>

#include "base/buffer.h"
#include "python/state.h"

#define SCRATCH_BYTES_MAX 65536 /* of packing space that a definition keeps */

/* How one type of event is applied. Never changes; lives as long as its definition. */
typedef struct event_entry {
    struct event_entry *older; /* the list that owns them all */
    PyTypeObject *cls;         /* strong */
    PyObject *applier;         /* strong */
    PyObject *name;            /* strong: the stored name */
    esc_py_layout *layout;     /* borrowed from cls */
    const escqrs_schema *schema;
    escqrs_type *type; /* with the class's own schema, for writing; NULL until first written */
} event_entry;

typedef struct event_array {
    struct event_array *older; /* retired ones */
    size_t count;
    event_entry *by_type[]; /* by escqrs_type_id; NULL: not looked up yet */
} event_array;

struct esc_py_definition {
    PyObject_HEAD
    esc_py_state *state;
    esc_py_system *system; /* borrowed */
    escqrs_aggregate *core;
    PyObject *cls;
    PyObject *name;         /* str */
    PyObject *handlers;     /* dict: command class -> (function, check) */
    PyObject *layout_object;
    esc_py_layout *layout;
    PyObject *fingerprint;  /* str: the state's type name with it is "Cart@..." */
    escqrs_type *state_type; /* NULL until the first snapshot */
    uint64_t generation;
    uint64_t seen; /* definitions in the process when the tables were made */
    size_t applied_count;
    event_entry **applied; /* entries in force */
    event_entry *entries;  /* all */
    esc_buffer scratch;    /* for packing an event */
    _Atomic(event_array *) events;
};

static _Thread_local esc_py_turn *turn_now;
static _Thread_local int applying_now;
static _Thread_local PyObject *interruption;

PyObject *esc_py_definition_interruption(void)
{
    PyObject *taken = interruption;
    interruption = NULL;
    return taken;
}

const esc_py_turn *esc_py_turn_current(void)
{
    return turn_now;
}

bool esc_py_is_applying(void)
{
    return applying_now != 0;
}

escqrs_aggregate *esc_py_definition_core(esc_py_definition *self)
{
    return self->core;
}

PyObject *esc_py_definition_name(esc_py_definition *self)
{
    return self->name;
}

PyObject *esc_py_definition_class(esc_py_definition *self)
{
    return self->cls;
}

static escqrs_slice slice_of(PyObject *text) /* str that is valid UTF-8 */
{
    Py_ssize_t size = 0;
    const char *data = PyUnicode_AsUTF8AndSize(text, &size);
    return (escqrs_slice){data, data == NULL ? 0 : (size_t)size};
}

/* The current exception as "KeyError: 'x'" into `text`; cleared. */
static void exception_text(char *text, size_t size)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *shown = value == NULL ? NULL : PyObject_Str(value);
    const char *utf8 = shown == NULL ? NULL : PyUnicode_AsUTF8(shown);
    snprintf(text, size, "%s: %s", type == NULL ? "?" : ((PyTypeObject *)type)->tp_name,
             utf8 == NULL ? "?" : utf8);
    Py_XDECREF(shown);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_Clear();
}

static escqrs_status python_failure(escqrs_error *error, escqrs_status status, const char *what)
{
    bool memory = PyErr_ExceptionMatches(PyExc_MemoryError);
    char text[512];
    exception_text(text, sizeof text);
    return escqrs_error_set(error, memory ? ESCQRS_NO_MEMORY : status, "%s: %s", what, text);
}

/* ---- tables -------------------------------------------------------------------------------------- */

static event_entry *entry_of_class(const esc_py_definition *self, PyTypeObject *cls)
{
    for (size_t i = 0; i < self->applied_count; i++) {
        if (self->applied[i]->cls == cls) {
            return self->applied[i];
        }
    }
    return NULL;
}

static event_entry *entry_of_name(const esc_py_definition *self, escqrs_slice name)
{
    for (size_t i = 0; i < self->applied_count; i++) {
        if (escqrs_slice_equal(slice_of(self->applied[i]->name), name)) {
            return self->applied[i];
        }
    }
    return NULL;
}

static event_entry *entry_new(esc_py_definition *self, PyObject *cls, PyObject *applier)
{
    if (esc_py_class_kind(self->state, cls) != ESC_PY_EVENT) {
        PyErr_Format(PyExc_TypeError, "%U applies %R, which is no event class", self->name, cls);
        return NULL;
    }
    const escqrs_schema *schema = esc_py_message_schema((PyTypeObject *)cls);
    if (schema == NULL) {
        return NULL;
    }
    event_entry *entry = escqrs_alloc_zero(sizeof *entry);
    if (entry == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    entry->cls = (PyTypeObject *)Py_NewRef(cls);
    entry->applier = Py_NewRef(applier);
    entry->name = Py_NewRef(esc_py_class_stored_name((PyTypeObject *)cls));
    entry->layout = esc_py_class_layout((PyTypeObject *)cls);
    entry->schema = schema;
    entry->older = self->entries;
    self->entries = entry;
    return entry;
}

/* `list` is a list of (event class, function). An unchanged pair keeps its entry. */
static int set_appliers(esc_py_definition *self, PyObject *list, bool *changed)
{
    size_t count = (size_t)PyList_GET_SIZE(list);
    event_entry **applied = escqrs_alloc_array(count + 1, sizeof *applied);
    if (applied == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *changed = count != self->applied_count;
    for (size_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GET_ITEM(list, (Py_ssize_t)i);
        PyObject *cls = PyTuple_GET_ITEM(pair, 0), *function = PyTuple_GET_ITEM(pair, 1);
        event_entry *entry = entry_of_class(self, (PyTypeObject *)cls);
        if (entry == NULL || entry->applier != function) {
            *changed = true;
            entry = entry_new(self, cls, function);
            if (entry == NULL) {
                escqrs_free(applied);
                return -1;
            }
        }
        applied[i] = entry;
        if (PyDict_SetItem(self->system->events, entry->name, cls) < 0) {
            escqrs_free(applied);
            return -1;
        }
    }
    escqrs_free(self->applied);
    self->applied = applied;
    self->applied_count = count;
    return 0;
}

/* Retire the published array, so that types are looked up again. */
static int publish(esc_py_definition *self, size_t count, const event_array *from)
{
    event_array *array = escqrs_alloc_zero(sizeof *array + count * sizeof array->by_type[0]);
    if (array == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    array->count = count;
    array->older = atomic_load_explicit(&self->events, memory_order_relaxed); /* the GIL orders writers */
    if (from != NULL) {
        memcpy(array->by_type, from->by_type, from->count * sizeof array->by_type[0]);
    }
    /* release: pairs with the acquire in published */
    atomic_store_explicit(&self->events, array, memory_order_release);
    return 0;
}

static event_entry *published(const esc_py_definition *self, const escqrs_type *type)
{
    const event_array *array = atomic_load_explicit(&self->events, memory_order_acquire);
    size_t id = (size_t)escqrs_type_id(type);
    return array != NULL && id < array->count ? array->by_type[id] : NULL;
}

/* Read the class: -1 with TypeError where it cannot be accepted. */
static int build(esc_py_definition *self, PyObject *cls)
{
    bool changed = false;
    PyObject *description = PyObject_CallOneArg(self->state->definition.describe, cls);
    PyObject *name, *layout, *fingerprint, *handlers, *appliers;
    long long snapshot_every;
    if (description == NULL) {
        return -1;
    }
    if (!PyArg_ParseTuple(description, "UOUO!O!L", &name, &layout, &fingerprint, &PyDict_Type, &handlers,
                          &PyList_Type, &appliers, &snapshot_every)) {
        goto fail;
    }
    esc_py_layout *cast = esc_py_layout_cast(self->state, layout);
    if (cast != NULL && self->core != NULL) { /* SchemaMismatch: what was in force stays so */
        PyObject *checked = PyObject_CallFunctionObjArgs(self->state->definition.check,
                                                         (PyObject *)self->system, appliers, NULL);
        if (checked == NULL) {
            goto fail;
        }
        Py_DECREF(checked);
    }
    if (cast == NULL || set_appliers(self, appliers, &changed) < 0 || publish(self, 0, NULL) < 0) {
        goto fail;
    }
    if (changed || self->cls != cls) {
        self->generation++;
    }
    Py_XSETREF(self->name, Py_NewRef(name));
    Py_XSETREF(self->handlers, Py_NewRef(handlers));
    Py_XSETREF(self->layout_object, Py_NewRef(layout));
    Py_XSETREF(self->fingerprint, Py_NewRef(fingerprint));
    Py_XSETREF(self->cls, Py_NewRef(cls));
    self->layout = cast;
    self->state_type = NULL;
    if (self->core != NULL) {
        escqrs_aggregate_set_snapshot_every(self->core, snapshot_every);
    } else {
        escqrs_error error = {0};
        escqrs_status status =
            escqrs_aggregate_add(self->system->system, slice_of(name), &esc_py_aggregate_ops, self,
                                 self->system->host, snapshot_every, &self->core, &error);
        if (status != ESCQRS_OK) {
            esc_py_raise(self->state, &error);
            goto fail;
        }
    }
    Py_DECREF(description);
    return 0;
fail:
    Py_DECREF(description);
    return -1;
}

/* Take newer definitions of the class and of its messages up. */
static int refresh(esc_py_definition *self)
{
    uint64_t now = esc_py_definition_generation(self->state);
    if (now == self->seen) {
        return 0;
    }
    PyObject *cls = esc_py_newest(self->state, self->cls);
    if (cls == NULL) {
        return -1;
    }
    int result = build(self, cls);
    Py_DECREF(cls);
    if (result == 0) {
        self->seen = now;
    }
    return result;
}

int esc_py_definition_refresh(esc_py_definition *self)
{
    return refresh(self);
}

/* (function, check) of a command's class; borrowed, NULL without an exception. */
static PyObject *handler_of(esc_py_definition *self, PyTypeObject *cls)
{
    PyObject *entry = PyDict_GetItemWithError(self->handlers, (PyObject *)cls);
    if (entry != NULL || PyErr_Occurred()) {
        return entry;
    }
    PyObject *newest = esc_py_newest(self->state, (PyObject *)cls);
    if (newest == NULL) {
        return NULL;
    }
    entry = PyDict_GetItemWithError(self->handlers, newest);
    Py_DECREF(newest);
    return entry;
}

int esc_py_definition_accepts(esc_py_definition *self, PyObject *command)
{
    if (refresh(self) < 0) {
        return -1;
    }
    if (esc_py_message_kind(self->state, command) != ESC_PY_COMMAND) {
        PyErr_Format(PyExc_TypeError, "%U takes commands (instances of es.Command), not %s", self->name,
                     Py_TYPE(command)->tp_name);
        return -1;
    }
    PyObject *handler = handler_of(self, Py_TYPE(command));
    if (handler == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "%U has no @es.handles method for %s", self->name,
                     Py_TYPE(command)->tp_name);
    }
    return handler == NULL ? -1 : 0;
}

/* ---- applying ------------------------------------------------------------------------------------ */

static int apply_event(esc_py_aggregate *instance, PyObject *applier, PyObject *event)
{
    PyObject *arguments[] = {(PyObject *)instance, event};
    esc_py_mode mode = instance->mode;
    instance->mode = ESC_PY_APPLYING;
    applying_now++;
    PyObject *result = PyObject_Vectorcall(applier, arguments, 2, NULL);
    applying_now--;
    instance->mode = mode;
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Where the type's entry is not published yet: find and publish it. NULL with `error` filled. */
static event_entry *look_up(esc_py_definition *self, const escqrs_recorded *recorded, escqrs_error *error)
{
    escqrs_slice name = escqrs_type_name(recorded->type);
    event_entry *entry = entry_of_name(self, name);
    if (entry == NULL) {
        PyObject *text = PyUnicode_DecodeUTF8(name.data, (Py_ssize_t)name.size, "replace");
        bool known = text != NULL && esc_py_system_event_class(self->system, text) != NULL;
        Py_XDECREF(text);
        PyErr_Clear();
        (void)escqrs_error_set(error, known ? ESCQRS_REPLAY : ESCQRS_UNKNOWN_TYPE,
                               "%.*s cannot be replayed: no @es.applies method of %s takes version %lld (%.*s); "
                               "write one, be it one that passes",
                               (int)recorded->stream.size, (const char *)recorded->stream.data,
                               PyUnicode_AsUTF8(self->name), (long long)recorded->version, (int)name.size,
                               (const char *)name.data);
        return NULL;
    }
    event_array *array = atomic_load_explicit(&self->events, memory_order_relaxed); /* writers hold the GIL */
    size_t id = (size_t)escqrs_type_id(recorded->type);
    if (array == NULL || id >= array->count) {
        if (publish(self, id + 16, array) < 0) {
            PyErr_Clear();
            (void)escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for the types of events");
            return NULL;
        }
        array = atomic_load_explicit(&self->events, memory_order_relaxed);
    }
    /* A reader sees NULL or the entry, which was complete before: pointers are written whole. */
    __atomic_store_n(&array->by_type[id], entry, __ATOMIC_RELEASE);
    return entry;
}

static escqrs_status unpack_event(esc_py_definition *self, const event_entry *entry,
                                  const escqrs_recorded *recorded, ProtobufCMessage **message,
                                  escqrs_error *error)
{
    escqrs_limits limits = {.bytes_max = self->system->message_bytes_max};
    escqrs_error cause = {0};
    escqrs_status status = escqrs_message_unpack(entry->schema, recorded->data, &limits, message, &cause);
    if (status != ESCQRS_OK) {
        escqrs_slice name = escqrs_type_name(recorded->type);
        (void)escqrs_error_set(error, status, "%.*s, version %lld (%.*s) cannot be decoded: %s",
                               (int)recorded->stream.size, (const char *)recorded->stream.data,
                               (long long)recorded->version, (int)name.size, (const char *)name.data,
                               cause.message);
        error->version = recorded->version;
        error->position = recorded->position;
    }
    return status;
}

static escqrs_status definition_decode(void *context, const escqrs_recorded *recorded, void **decoded,
                                       escqrs_error *error)
{
    esc_py_definition *self = context;
    const event_entry *entry = published(self, recorded->type);
    *decoded = NULL;
    if (entry == NULL) {
        return ESCQRS_OK; /* `apply` has the GIL and looks the type up */
    }
    return unpack_event(self, entry, recorded, (ProtobufCMessage **)decoded, error);
}

static void definition_discard(void *context, void *decoded)
{
    (void)context;
    escqrs_message_free(decoded);
}

static escqrs_status definition_apply(void *context, void *state, const escqrs_recorded *recorded,
                                      void *decoded, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_aggregate *instance = state;
    ProtobufCMessage *message = decoded;
    event_entry *entry = published(self, recorded->type);
    if (entry == NULL && (entry = look_up(self, recorded, error)) == NULL) {
        escqrs_message_free(message);
        return error->status;
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
    int result = event == NULL ? -1 : apply_event(instance, entry->applier, event);
    Py_XDECREF(event);
    if (result < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            PyErr_NormalizeException(&type, &value, &traceback);
            Py_XSETREF(interruption, Py_XNewRef(value));
            PyErr_Restore(type, value, traceback);
        }
        char what[512];
        escqrs_slice name = escqrs_type_name(recorded->type);
        snprintf(what, sizeof what, "%.*s cannot be replayed: version %lld (%.*s, position %lld)",
                 (int)recorded->stream.size > 256 ? 256 : (int)recorded->stream.size,
                 (const char *)recorded->stream.data, (long long)recorded->version, (int)name.size,
                 (const char *)name.data, (long long)recorded->position);
        escqrs_status status = python_failure(error, ESCQRS_REPLAY, what);
        error->version = recorded->version;
        error->position = recorded->position;
        return status;
    }
    return ESCQRS_OK;
}

/* ---- states -------------------------------------------------------------------------------------- */

static esc_py_aggregate *instance_new(esc_py_definition *self, escqrs_entity *entity, bool copy)
{
    PyTypeObject *cls = (PyTypeObject *)self->cls;
    esc_py_aggregate *instance = (esc_py_aggregate *)cls->tp_alloc(cls, 0);
    if (instance == NULL) {
        return NULL;
    }
    instance->copy = copy;
    instance->definition = self;
    instance->system = self->system;
    if (copy) {
        Py_INCREF((PyObject *)self);
        Py_INCREF((PyObject *)self->system);
    }
    escqrs_slice id = escqrs_entity_id(entity);
    instance->id = PyUnicode_DecodeUTF8(id.data, (Py_ssize_t)id.size, NULL);
    if (instance->id == NULL) {
        Py_DECREF((PyObject *)instance);
        return NULL;
    }
    return instance;
}

/* A field's value as it stands; new reference, NULL without an exception where it is unset. */
static PyObject *field_get(esc_py_aggregate *instance, const esc_py_field *field)
{
    PyObject *value = PyObject_GenericGetAttr((PyObject *)instance, field->name);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

/* The state before the first event, every field of its own. */
static esc_py_aggregate *instance_initial(esc_py_definition *self, escqrs_entity *entity, bool copy)
{
    esc_py_aggregate *instance = instance_new(self, entity, copy);
    for (uint32_t i = 0; instance != NULL && i < self->layout->count; i++) {
        PyObject *value = esc_py_value_initial(self->layout, i);
        if (value == NULL && !PyErr_Occurred()) {
            continue;
        }
        if (value == NULL ||
            PyObject_GenericSetAttr((PyObject *)instance, self->layout->fields[i].name, value) < 0) {
            Py_CLEAR(instance);
        }
        Py_XDECREF(value);
    }
    return instance;
}

static esc_py_aggregate *instance_copy(esc_py_definition *self, escqrs_entity *entity,
                                       esc_py_aggregate *live)
{
    esc_py_aggregate *copy = instance_new(self, entity, true);
    for (uint32_t i = 0; copy != NULL && i < self->layout->count; i++) {
        const esc_py_field *field = &self->layout->fields[i];
        PyObject *value = field_get(live, field);
        if (value == NULL) {
            continue;
        }
        PyObject *own = esc_py_value_copy(field, value);
        if (own == NULL || PyObject_GenericSetAttr((PyObject *)copy, field->name, own) < 0) {
            Py_CLEAR(copy);
        }
        Py_XDECREF(own);
        Py_DECREF(value);
    }
    return copy;
}

static escqrs_status definition_create(void *context, escqrs_entity *entity, void **state,
                                       escqrs_error *error)
{
    *state = instance_initial(context, entity, false);
    return *state != NULL ? ESCQRS_OK : python_failure(error, ESCQRS_REPLAY, "the initial state cannot be made");
}

static void definition_destroy(void *context, void *state)
{
    (void)context;
    esc_py_aggregate *instance = state;
    /* somebody may still hold it (a handler that kept self): cut it off */
    instance->definition = NULL;
    instance->system = NULL;
    instance->turn = NULL;
    Py_DECREF((PyObject *)instance);
}

static int state_type(esc_py_definition *self, escqrs_error *error)
{
    if (self->state_type != NULL) {
        return 0;
    }
    PyObject *name = PyUnicode_FromFormat("%U@%U", self->name, self->fingerprint);
    void *record = NULL;
    size_t size = 0;
    escqrs_status status = name == NULL ? escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory")
                                        : escqrs_schema_record(self->layout->schema, &record, &size, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(self->system->store, slice_of(name), (escqrs_slice){record, size},
                                   &self->state_type, error);
    }
    escqrs_free(record);
    Py_XDECREF(name);
    PyErr_Clear();
    return status == ESCQRS_OK ? 0 : -1;
}

static escqrs_status definition_pack(void *context, void *state, escqrs_type **type, void **data,
                                     size_t *size, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_aggregate *instance = state;
    if (instance->definition != self || Py_TYPE(instance) != (PyTypeObject *)self->cls) {
        return ESCQRS_DONE; /* of an older definition, about to be loaded anew */
    }
    if (state_type(self, error) < 0) {
        return error == NULL ? ESCQRS_NO_MEMORY : error->status;
    }
    esc_buffer buffer = {0};
    PyObject **values = PyMem_Calloc(self->layout->count + 1, sizeof *values);
    int result = -1;
    if (values != NULL) {
        for (uint32_t i = 0; i < self->layout->count; i++) {
            values[i] = field_get(instance, &self->layout->fields[i]);
        }
        result = esc_py_values_pack(self->layout, values, &buffer);
        for (uint32_t i = 0; i < self->layout->count; i++) {
            Py_XDECREF(values[i]);
        }
        PyMem_Free(values);
    } else {
        PyErr_NoMemory();
    }
    if (result == 0 && esc_buffer_reserve(&buffer, 1) != ESCQRS_OK) {
        PyErr_NoMemory();
        result = -1;
    }
    if (result < 0) {
        esc_buffer_fini(&buffer);
        return python_failure(error, ESCQRS_INVALID, "the state cannot be kept as a snapshot");
    }
    *type = self->state_type;
    *size = buffer.size;
    *data = esc_buffer_take(&buffer);
    return ESCQRS_OK;
}

static escqrs_status definition_unpack(void *context, void *state, const escqrs_snapshot *snapshot,
                                       escqrs_error *error)
{
    esc_py_definition *self = context;
    if (state_type(self, error) < 0) {
        return error == NULL ? ESCQRS_NO_MEMORY : error->status;
    }
    if (snapshot->type != self->state_type) {
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH, "it was taken by another definition of %s",
                                PyUnicode_AsUTF8(self->name));
    }
    ProtobufCMessage *message = NULL;
    escqrs_limits limits = {.bytes_max = SIZE_MAX};
    escqrs_status status = escqrs_message_unpack(
        self->layout->schema, (escqrs_slice){snapshot->data, snapshot->size}, &limits, &message, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    PyObject **values = PyMem_Calloc(self->layout->count + 1, sizeof *values);
    int result = values == NULL ? -1 : esc_py_values_unpack(self->layout, message, values);
    for (uint32_t i = 0; result == 0 && i < self->layout->count; i++) {
        if (values[i] != NULL &&
            PyObject_GenericSetAttr(state, self->layout->fields[i].name, values[i]) < 0) {
            result = -1;
        }
    }
    for (uint32_t i = 0; values != NULL && i < self->layout->count; i++) {
        Py_XDECREF(values[i]);
    }
    PyMem_Free(values);
    escqrs_message_free(message);
    if (result < 0) {
        return PyErr_Occurred() ? python_failure(error, ESCQRS_CORRUPT, "the snapshot cannot be read")
                                : escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a snapshot");
    }
    ((esc_py_aggregate *)state)->version = snapshot->version;
    return ESCQRS_OK;
}

/* Attached: also a command that was sent before the class was defined anew is handled by the new one. */
static uint64_t definition_generation(void *context)
{
    esc_py_definition *self = context;
    if (refresh(self) < 0) {
        PyErr_Clear(); /* the next command that is sent raises it */
    }
    return self->generation;
}

escqrs_status esc_py_definition_visit(escqrs_command *command, escqrs_entity *entity, void *state,
                                      int64_t version, escqrs_error *error)
{
    esc_py_reply *reply = esc_py_reply_of(command);
    esc_py_aggregate *copy = instance_copy(reply->definition, entity, state);
    if (copy == NULL) {
        return python_failure(error, ESCQRS_INVALID, "the state cannot be copied");
    }
    copy->version = version;
    reply->value = (PyObject *)copy;
    return ESCQRS_OK;
}

/* ---- handling ------------------------------------------------------------------------------------ */

static int answer_matches(PyObject *check, PyObject *value)
{
    if (check == Py_None) {
        return 1;
    }
    if (!PyType_Check(check)) {
        PyObject *result = PyObject_CallOneArg(check, value);
        int matches = result == NULL ? -1 : PyObject_IsTrue(result);
        Py_XDECREF(result);
        return matches;
    }
    if (check == (PyObject *)&PyLong_Type) {
        return PyLong_Check(value) && !PyBool_Check(value);
    }
    if (check == (PyObject *)&PyFloat_Type) {
        return PyFloat_Check(value) || (PyLong_Check(value) && !PyBool_Check(value));
    }
    return PyObject_TypeCheck(value, (PyTypeObject *)check);
}

/* Check the handler's answer; store it where the command has a key. */
static int take_answer(esc_py_definition *self, esc_py_reply *reply, escqrs_turn *turn, PyObject *check,
                       PyObject *answer)
{
    int matches = answer_matches(check, answer);
    if (matches < 0) {
        return -1;
    }
    if (!matches) {
        PyErr_Format(PyExc_TypeError, "%U answered %s with %.200R (%s), which is not the type in es.Command[...]; "
                     "nothing was stored", self->name, Py_TYPE(reply->message)->tp_name, answer,
                     Py_TYPE(answer)->tp_name);
        return -1;
    }
    if (reply->command.key.size == 0) {
        return 0;
    }
    PyObject *bytes = PyObject_CallOneArg(self->state->definition.encode_reply, answer);
    if (bytes == NULL) {
        return -1;
    }
    escqrs_error error = {0};
    escqrs_slice slice = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    escqrs_status status = escqrs_turn_reply(turn, slice, &error);
    Py_DECREF(bytes);
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

static void take_failure(esc_py_reply *reply)
{
    char where[300];
    escqrs_slice stream = escqrs_entity_stream(reply->entity);
    snprintf(where, sizeof where, "%.*s", stream.size > 256 ? 256 : (int)stream.size,
             (const char *)stream.data);
    PyObject *what = PyType_GetName(Py_TYPE(reply->message));
    if (what == NULL) {
        PyErr_Clear();
        what = PyUnicode_FromString("?");
    }
    reply->exception = esc_py_exception_take(where, what == NULL ? Py_None : what);
    Py_XDECREF(what);
}

static escqrs_status definition_handle(void *context, void *state, escqrs_turn *turn,
                                       escqrs_command *command, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_aggregate *instance = state;
    esc_py_reply *reply = esc_py_reply_of(command);
    PyObject *handler = Py_XNewRef(handler_of(self, Py_TYPE(reply->message)));
    if (handler == NULL) { /* the class was defined anew, without it, after the command was sent */
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "%U has no @es.handles method for %s any more", self->name,
                         Py_TYPE(reply->message)->tp_name);
        }
        take_failure(reply);
        return escqrs_error_set(error, ESCQRS_REJECTED, "no handler");
    }
    esc_py_turn frame = {.outer = turn_now,
                         .system = self->system,
                         .turn = turn,
                         .serial = ++self->state->definition.turn_serial};
    int64_t before = escqrs_turn_version(turn);
    PyObject *arguments[] = {(PyObject *)instance, reply->message};
    turn_now = &frame;
    instance->turn = &frame;
    instance->mode = ESC_PY_DECIDING;
    instance->version = before;
    PyObject *answer = PyObject_Vectorcall(PyTuple_GET_ITEM(handler, 0), arguments, 2, NULL);
    instance->mode = ESC_PY_FROZEN;
    instance->turn = NULL;
    turn_now = frame.outer;
    if (frame.failure != NULL) {
        Py_CLEAR(answer);
        PyErr_Clear();
        PyErr_SetObject((PyObject *)Py_TYPE(frame.failure), frame.failure);
        Py_CLEAR(frame.failure);
    }
    if (answer != NULL && take_answer(self, reply, turn, PyTuple_GET_ITEM(handler, 1), answer) < 0) {
        Py_CLEAR(answer);
    }
    Py_DECREF(handler);
    if (answer == NULL) {
        take_failure(reply);
        if (escqrs_turn_version(turn) != before) {
            escqrs_turn_spoil(turn);
        }
        return escqrs_error_set(error, ESCQRS_REJECTED, "the handler raised");
    }
    reply->value = answer;
    if (!reply->told && command->key.size == 0) { /* with a key the stored reply may still be asked for */
        Py_CLEAR(reply->message);
    }
    return ESCQRS_OK;
}

/* Whether two classes are definitions of one: -1 with an exception. */
static int same_class(esc_py_definition *self, PyTypeObject *one, PyTypeObject *other)
{
    PyObject *first = esc_py_newest(self->state, (PyObject *)one);
    PyObject *second = first == NULL ? NULL : esc_py_newest(self->state, (PyObject *)other);
    int same = second == NULL ? -1 : first == second;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return same;
}

/* The event was defined anew while the handler ran: take this definition up in the place of the other. */
static event_entry *replace_entry(esc_py_definition *self, event_entry *old, PyTypeObject *cls)
{
    event_entry *made = self->entries;
    while (made != NULL && (made->cls != cls || made->applier != old->applier)) {
        made = made->older;
    }
    for (size_t i = 0; i < self->applied_count; i++) {
        if (self->applied[i] == old) {
            event_entry *entry = made != NULL ? made : entry_new(self, (PyObject *)cls, old->applier);
            if (entry != NULL && publish(self, 0, NULL) == 0) {
                self->applied[i] = entry;
                return entry;
            }
        }
    }
    return NULL;
}

static event_entry *entry_to_emit(esc_py_definition *self, PyObject *event)
{
    event_entry *entry = entry_of_class(self, Py_TYPE(event));
    if (entry == NULL && esc_py_message_kind(self->state, event) != ESC_PY_EVENT) {
        PyErr_Format(PyExc_TypeError, "%U.emit takes an event (an instance of es.Event), not %s", self->name,
                     Py_TYPE(event)->tp_name);
        return NULL;
    }
    if (entry == NULL) { /* another definition of the same event? */
        entry = entry_of_name(self, slice_of(esc_py_class_stored_name(Py_TYPE(event))));
        if (entry == NULL) {
            PyErr_Format(PyExc_TypeError, "no @es.applies method of %U takes %s; write one, be it one that passes",
                         self->name, Py_TYPE(event)->tp_name);
            return NULL;
        }
        int same = same_class(self, entry->cls, Py_TYPE(event));
        if (same > 0) {
            entry = replace_entry(self, entry, Py_TYPE(event));
        }
        if (same < 0 || (same > 0 && entry == NULL)) {
            return NULL;
        }
        if (same == 0) {
            PyErr_Format(esc_py_error_class(self->state, ESCQRS_NAME_CLASH),
                         "%U emitted a %s that is not the one that its @es.applies takes, but another class of that "
                         "name", self->name, Py_TYPE(event)->tp_name);
            return NULL;
        }
    }
    if (entry->type == NULL) {
        escqrs_error error = {0};
        void *record = NULL;
        size_t size = 0;
        escqrs_status status = escqrs_schema_record(entry->schema, &record, &size, &error);
        if (status == ESCQRS_OK) {
            status = escqrs_store_type(self->system->store, slice_of(entry->name),
                                       (escqrs_slice){record, size}, &entry->type, &error);
        }
        escqrs_free(record);
        if (status != ESCQRS_OK) {
            esc_py_raise(self->state, &error);
            return NULL;
        }
    }
    return entry;
}

static PyObject *aggregate_emit(PyObject *object, PyObject *event)
{
    esc_py_aggregate *instance = (esc_py_aggregate *)object;
    esc_py_definition *self = instance->definition;
    if (instance->mode != ESC_PY_DECIDING || instance->turn != turn_now || self == NULL) {
        esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
        if (state != NULL) {
            PyErr_Format(state->errors.error, "%s.emit was called %s; events are emitted in @es.handles methods, "
                         "by the entity that handles the command", Py_TYPE(object)->tp_name,
                         instance->mode == ESC_PY_APPLYING ? "in an @es.applies method" : "outside of a handler");
        }
        return NULL;
    }
    event_entry *entry = entry_to_emit(self, event);
    if (entry == NULL) {
        return NULL;
    }
    esc_buffer buffer = self->scratch;
    self->scratch = (esc_buffer){0}; /* taken: should packing run Python, others find none */
    esc_buffer_reset(&buffer);
    escqrs_error error = {0};
    int result = esc_py_message_pack(event, &buffer);
    if (result == 0 && buffer.size > self->system->message_bytes_max) {
        (void)escqrs_error_set(&error, ESCQRS_TOO_LARGE,
                               "a %s of %zu bytes is larger than the limit of %zu; es.open(max_message_bytes=) "
                               "sets it", Py_TYPE(event)->tp_name, buffer.size,
                               self->system->message_bytes_max);
        esc_py_raise(self->state, &error);
        result = -1;
    }
    if (result == 0 &&
        escqrs_turn_emit(instance->turn->turn, entry->type, esc_buffer_slice(&buffer), &error) != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        result = -1;
    }
    if (buffer.capacity > SCRATCH_BYTES_MAX) {
        esc_buffer_fini(&buffer);
    }
    esc_buffer_fini(&self->scratch);
    self->scratch = buffer;
    if (result < 0) {
        return NULL;
    }
    instance->version++;
    if (apply_event(instance, entry->applier, event) < 0) {
        if (instance->turn->failure == NULL) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            PyErr_NormalizeException(&type, &value, &traceback);
            if (traceback != NULL) {
                PyException_SetTraceback(value, traceback);
            }
            instance->turn->failure = Py_NewRef(value);
            PyErr_Restore(type, value, traceback);
        }
        return NULL;
    }
    return Py_NewRef(event);
}

/* ---- reading an earlier state ---------------------------------------------------------------------- */

typedef struct folding {
    esc_py_definition *definition;
    escqrs_entity *entity;
    escqrs_cursor *cursor;
    esc_py_aggregate *instance;
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
        status = definition_decode(self, &recorded[ready], &decoded[ready], &error);
        ready += status == ESCQRS_OK;
    }
    Py_END_ALLOW_THREADS
    size_t applied = 0;
    while (status == ESCQRS_OK && applied < ready) {
        status = definition_apply(self, fold->instance, &recorded[applied], decoded[applied], &error);
        applied++;
        if (status == ESCQRS_OK && PyErr_CheckSignals() < 0) {
            break;
        }
    }
    for (; applied < ready; applied++) {
        definition_discard(self, decoded[applied]);
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

/* Begin from the newest usable snapshot at or below `version`. */
static int fold_begin(folding *fold, int64_t version)
{
    esc_py_definition *self = fold->definition;
    escqrs_slice stream = escqrs_entity_stream(fold->entity);
    escqrs_snapshot snapshot = {0};
    escqrs_error error = {0};
    escqrs_status status;
    fold->instance = instance_initial(self, fold->entity, true);
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
        if (definition_unpack(self, fold->instance, &snapshot, &error) != ESCQRS_OK) {
            fold->instance->version = 0; /* fall back to the whole history */
            Py_SETREF(fold->instance, instance_initial(self, fold->entity, true));
        }
        escqrs_free(snapshot.data);
        if (fold->instance == NULL) {
            return -1;
        }
    } else if (status != ESCQRS_DONE) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    if (fold->instance->version == version) {
        return 0;
    }
    escqrs_range range = {.after = fold->instance->version, .upto = version};
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_history(self->system->store, stream, &range, &fold->cursor, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

PyObject *esc_py_definition_state_at(esc_py_definition *self, escqrs_entity *entity, int64_t version)
{
    folding fold = {.definition = self, .entity = entity};
    int result = fold_begin(&fold, version);
    while (result == 0 && fold.cursor != NULL) {
        result = fold_page(&fold);
    }
    escqrs_cursor_close(fold.cursor);
    if (result < 0) {
        Py_CLEAR(fold.instance);
    }
    return (PyObject *)fold.instance;
}

const escqrs_aggregate_ops esc_py_aggregate_ops = {
    .create = definition_create,
    .destroy = definition_destroy,
    .decode = definition_decode,
    .discard = definition_discard,
    .apply = definition_apply,
    .handle = definition_handle,
    .pack = definition_pack,
    .unpack = definition_unpack,
    .generation = definition_generation,
};

/* ---- Definition, the Python type --------------------------------------------------------------------- */

static PyObject *definition_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *system_object, *cls;
    if (!PyArg_ParseTuple(args, "OO!", &system_object, &PyType_Type, &cls)) {
        return NULL;
    }
    esc_py_system *system = esc_py_system_cast(system_object);
    if (system == NULL) {
        return NULL;
    }
    esc_py_definition *self = (esc_py_definition *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = system->state;
    self->system = system;
    self->seen = esc_py_definition_generation(self->state);
    if (build(self, cls) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int definition_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_definition *self = (esc_py_definition *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->cls);
    Py_VISIT(self->handlers);
    Py_VISIT(self->layout_object);
    for (event_entry *entry = self->entries; entry != NULL; entry = entry->older) {
        Py_VISIT((PyObject *)entry->cls);
        Py_VISIT(entry->applier);
    }
    return 0;
}

/* No tp_clear: core threads may use it until the system is gone; cycles through it end at the system. */
static void definition_dealloc(PyObject *object)
{
    esc_py_definition *self = (esc_py_definition *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->cls);
    Py_XDECREF(self->name);
    Py_XDECREF(self->handlers);
    Py_XDECREF(self->layout_object);
    Py_XDECREF(self->fingerprint);
    while (self->entries != NULL) {
        event_entry *entry = self->entries;
        self->entries = entry->older;
        Py_DECREF((PyObject *)entry->cls);
        Py_DECREF(entry->applier);
        Py_DECREF(entry->name);
        escqrs_free(entry);
    }
    event_array *array = atomic_load_explicit(&self->events, memory_order_relaxed);
    while (array != NULL) {
        event_array *older = array->older;
        escqrs_free(array);
        array = older;
    }
    escqrs_free(self->applied);
    esc_buffer_fini(&self->scratch);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *definition_get_name(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((esc_py_definition *)object)->name);
}

static PyObject *definition_get_class(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((esc_py_definition *)object)->cls);
}

static PyGetSetDef definition_getset[] = {
    {"name", definition_get_name, NULL, "The aggregate's name in the store.", NULL},
    {"cls", definition_get_class, NULL, "Its newest class.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot definition_slots[] = {
    {Py_tp_doc, "What a system knows of one aggregate class."},
    {Py_tp_new, definition_new},
    {Py_tp_dealloc, definition_dealloc},
    {Py_tp_traverse, definition_traverse},
    {Py_tp_getset, definition_getset},
    {0, NULL},
};

static PyType_Spec definition_spec = {
    .name = "escqrs._core.Definition",
    .basicsize = sizeof(esc_py_definition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = definition_slots,
};

/* ---- AggregateBase ------------------------------------------------------------------------------------ */

static PyObject *aggregate_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyErr_Format(PyExc_TypeError, "%s is made by its system: shop[%s, id].state", type->tp_name, type->tp_name);
    return NULL;
}

static int aggregate_setattro(PyObject *object, PyObject *name, PyObject *value)
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    esc_py_definition *definition = self->definition;
    Py_ssize_t index = definition == NULL ? -1 : esc_py_layout_find(definition->layout, name);
    if (self->mode != ESC_PY_APPLYING) {
        if (index < 0 && definition != NULL) {
            PyErr_Format(PyExc_AttributeError, "%s has no field %R; annotate it in the class, and assign it in an "
                         "@es.applies method", Py_TYPE(object)->tp_name, name);
        } else {
            PyErr_Format(PyExc_AttributeError, "%s.%U can be assigned in an @es.applies method only: %s",
                         Py_TYPE(object)->tp_name, name,
                         self->copy ? "this is a read-only copy of a state"
                                    : "emit an event, and change the state where it is applied");
        }
        return -1;
    }
    if (index < 0) {
        PyErr_Format(PyExc_AttributeError, "%s has no field %R; annotate it in the class: what is not declared is "
                     "not in snapshots", Py_TYPE(object)->tp_name, name);
        return -1;
    }
    const esc_py_field *field = &definition->layout->fields[index];
    if (value == NULL || field->label == ESCQRS_LIST || field->label == ESCQRS_MAP) {
        PyTypeObject *wanted = field->label == ESCQRS_LIST ? &PyList_Type : &PyDict_Type;
        if (value != NULL && !PyObject_TypeCheck(value, wanted)) {
            PyErr_Format(PyExc_TypeError, "%s.%U is a %s, not %s", Py_TYPE(object)->tp_name, name,
                         wanted->tp_name, Py_TYPE(value)->tp_name);
            return -1;
        }
        return PyObject_GenericSetAttr(object, name, value);
    }
    PyObject *checked = esc_py_value_check(definition->layout, (uint32_t)index, value);
    if (checked == NULL) {
        return -1;
    }
    int result = PyObject_GenericSetAttr(object, name, checked);
    Py_DECREF(checked);
    return result;
}

static int aggregate_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    Py_VISIT(Py_TYPE(object));
    if (self->copy) {
        Py_VISIT((PyObject *)self->definition);
        Py_VISIT((PyObject *)self->system);
    }
    return 0;
}

static int aggregate_clear(PyObject *object)
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    if (self->copy) {
        Py_CLEAR(self->definition);
        Py_CLEAR(self->system);
    }
    return 0;
}

static void aggregate_dealloc(PyObject *object)
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)aggregate_clear(object);
    Py_XDECREF(self->id);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *aggregate_get_id(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(((esc_py_aggregate *)object)->id);
}

static PyObject *aggregate_get_version(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((esc_py_aggregate *)object)->version);
}

static PyObject *aggregate_get_system(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    if (self->system == NULL) {
        PyErr_Format(PyExc_AttributeError, "this %s is no longer in its system", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return Py_NewRef((PyObject *)self->system);
}

static PyObject *aggregate_get_fields(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_aggregate *self = (esc_py_aggregate *)object;
    PyObject *fields = PyDict_New();
    for (uint32_t i = 0; fields != NULL && self->definition != NULL && i < self->definition->layout->count; i++) {
        const esc_py_field *field = &self->definition->layout->fields[i];
        PyObject *value = field_get(self, field);
        if (value != NULL && PyDict_SetItem(fields, field->name, value) < 0) {
            Py_CLEAR(fields);
        }
        Py_XDECREF(value);
    }
    return fields;
}

static PyGetSetDef aggregate_getset[] = {
    {"id", aggregate_get_id, NULL, "The entity's id.", NULL},
    {"version", aggregate_get_version, NULL, "Events applied so far, those of this command included.", NULL},
    {"system", aggregate_get_system, NULL, "The system that the entity lives in: self.system[Other, \"x\"].", NULL},
    {"__escqrs_fields__", aggregate_get_fields, NULL, "The state as a dict of its fields.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef aggregate_methods[] = {
    {"emit", aggregate_emit, METH_O,
     "emit(event)\n--\n\nApply the event now, store it with the others of this command when the handler returns, and "
     "return it.\n\nRaises TypeError where no @es.applies method takes it, es.TooLarge beyond a limit."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot aggregate_slots[] = {
    {Py_tp_doc, "The part of es.Aggregate that is written in C."},
    {Py_tp_new, aggregate_new},
    {Py_tp_dealloc, aggregate_dealloc},
    {Py_tp_traverse, aggregate_traverse},
    {Py_tp_clear, aggregate_clear},
    {Py_tp_setattro, aggregate_setattro},
    {Py_tp_getset, aggregate_getset},
    {Py_tp_methods, aggregate_methods},
    {0, NULL},
};

static PyType_Spec aggregate_spec = {
    .name = "escqrs._core.AggregateBase",
    .basicsize = sizeof(esc_py_aggregate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = aggregate_slots,
};

int esc_py_definition_exec(PyObject *module)
{
    esc_py_definition_state *section = &esc_py_state_of(module)->definition;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &definition_spec, NULL);
    section->aggregate = (PyTypeObject *)PyType_FromModuleAndSpec(module, &aggregate_spec, NULL);
    return section->type == NULL || section->aggregate == NULL ||
                   PyModule_AddType(module, section->type) < 0 ||
                   PyModule_AddType(module, section->aggregate) < 0
               ? -1
               : 0;
}

int esc_py_definition_traverse_state(esc_py_definition_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->aggregate);
    Py_VISIT(section->describe);
    Py_VISIT(section->encode_reply);
    Py_VISIT(section->check);
    return 0;
}

void esc_py_definition_clear_state(esc_py_definition_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->aggregate);
    Py_CLEAR(section->describe);
    Py_CLEAR(section->encode_reply);
    Py_CLEAR(section->check);
}
