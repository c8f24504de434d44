/* python/upcast.c - see upcast.h. The GIL is held throughout; nothing here blocks.
 *
 * Making a reading runs Python code, which may define a class anew and have the plan learn of it:
 * then what was made is of the plan before, and is made again. */
#include "python/upcast.h"

#include <string.h>

#include "python/message.h"
#include "python/recorded.h"
#include "python/state.h"
#include "python/text.h"

#define ATTEMPTS_MAX 100

/* ---- readings --------------------------------------------------------------------------------- */

/* Without a plan: by name alone. Borrowed. */
static PyObject *reading_by_name(esc_py_backing *backing, const escqrs_type *type)
{
    escqrs_slice name = escqrs_type_name(type);
    PyObject *text = esc_py_text(name);
    PyObject *cls = text == NULL ? NULL : PyDict_GetItemWithError(backing->events, text);
    Py_XDECREF(text);
    return cls == NULL && !PyErr_Occurred() ? Py_None : cls;
}

static PyObject *ask_plan(esc_py_backing *backing, const escqrs_type *type)
{
    escqrs_slice name = escqrs_type_name(type);
    escqrs_slice record = escqrs_type_record(type);
    PyObject *text = esc_py_text(name);
    PyObject *bytes =
        text == NULL ? NULL : PyBytes_FromStringAndSize(record.data, (Py_ssize_t)record.size);
    PyObject *plan = Py_NewRef(backing->plan);
    PyObject *made = NULL;
    if (bytes != NULL) {
        made = PyObject_CallFunctionObjArgs(plan, text, bytes, NULL);
    }
    Py_DECREF(plan);
    Py_XDECREF(bytes);
    Py_XDECREF(text);
    return made;
}

static PyObject **place_of(esc_py_backing *backing, const escqrs_type *type)
{
    size_t id = (size_t)escqrs_type_id(type);
    if (id >= backing->reading_count) {
        size_t count = id + 16;
        PyObject **grown = PyMem_Realloc(backing->readings, count * sizeof(PyObject *));
        if (grown == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memset(grown + backing->reading_count, 0,
               (count - backing->reading_count) * sizeof(PyObject *));
        backing->readings = grown;
        backing->reading_count = count;
    }
    return &backing->readings[id];
}

PyObject *esc_py_reading(esc_py_backing *backing, const escqrs_type *type)
{
    size_t id = (size_t)escqrs_type_id(type);
    if (id < backing->reading_count && backing->readings[id] != NULL) {
        return backing->readings[id];
    }
    if (backing->plan == NULL) {
        return reading_by_name(backing, type);
    }
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        uint64_t learned = backing->learned;
        PyObject *made = ask_plan(backing, type);
        if (made == NULL) {
            return NULL;
        }
        PyObject **place = place_of(backing, type);
        if (place == NULL || learned != backing->learned) {
            Py_DECREF(made);
            if (place == NULL) {
                return NULL;
            }
            continue;
        }
        PyObject *before = *place;
        *place = made;
        Py_XDECREF(before);
        return made;
    }
    PyErr_SetString(PyExc_RuntimeError, "event classes are defined anew whenever one is read");
    return NULL;
}

bool esc_py_reading_upcasts(PyObject *reading)
{
    return reading != Py_None && !PyType_Check(reading) && !PyExceptionInstance_Check(reading);
}

void esc_py_reading_raise(PyObject *reading)
{
    PyObject *copy = PyObject_CallMethod(reading, "_again", NULL);
    if (copy != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(copy), copy);
        Py_DECREF(copy);
    }
}

PyObject *esc_py_upcast(PyObject *reading, PyObject *recorded)
{
    Py_INCREF(reading); /* the plan may learn meanwhile */
    PyObject *events = PyObject_CallOneArg(reading, recorded);
    Py_DECREF(reading);
    if (events != NULL && !PyList_CheckExact(events)) {
        PyErr_SetString(PyExc_TypeError, "upcasting makes a list of events");
        Py_CLEAR(events);
    }
    return events;
}

/* ---- writing ---------------------------------------------------------------------------------- */

int esc_py_record_of(esc_py_backing *backing, PyTypeObject *cls, void **record, size_t *size)
{
    const escqrs_schema *schema = esc_py_message_schema(cls);
    unsigned long version = 1;
    if (schema != NULL && backing->plan != NULL) {
        PyObject *answer = PyObject_CallMethod(backing->plan, "version_of", "O", (PyObject *)cls);
        version = answer == NULL ? 0 : PyLong_AsUnsignedLong(answer);
        Py_XDECREF(answer);
    }
    if (schema == NULL || PyErr_Occurred()) {
        return -1;
    }
    escqrs_error error = {0};
    void *plain = NULL;
    escqrs_status status = escqrs_schema_record(schema, &plain, size, &error);
    *record = plain;
    if (status == ESCQRS_OK && version > 1) {
        status = escqrs_record_set_version((escqrs_slice){plain, *size}, (uint32_t)version, record,
                                           size, &error);
        escqrs_free(plain);
    }
    if (status != ESCQRS_OK) {
        *record = NULL;
        esc_py_raise(backing->state, &error);
        return -1;
    }
    return 0;
}

escqrs_type *esc_py_type_of_class(esc_py_backing *backing, PyTypeObject *cls)
{
    void *record = NULL;
    size_t size = 0;
    const escqrs_slice name = esc_py_slice_of(esc_py_class_stored_name(cls));
    if (name.data == NULL || esc_py_record_of(backing, cls, &record, &size) < 0) {
        return NULL;
    }
    escqrs_type *type = NULL;
    escqrs_error error = {0};
    escqrs_status status =
        escqrs_store_type(backing->core, name, (escqrs_slice){record, size}, &type, &error);
    escqrs_free(record);
    if (status != ESCQRS_OK) {
        return esc_py_raise(backing->state, &error);
    }
    return type;
}

/* ---- what an iteration gives out -------------------------------------------------------------- */

PyObject *esc_py_parts_init(esc_py_parts *self, esc_py_backing *backing, PyObject *matches)
{
    *self = (esc_py_parts){NULL, NULL, 0};
    if (!backing->evolves || PyList_GET_SIZE(matches) == 0) {
        return Py_NewRef(matches);
    }
    PyObject *pair = PyObject_CallMethod(backing->plan, "widen", "O", matches);
    PyObject *widened = NULL;
    if (pair != NULL &&
        PyArg_ParseTuple(pair, "O!O!", &PyList_Type, &widened, &PyList_Type, &self->wanted)) {
        Py_INCREF(widened);
        Py_INCREF(self->wanted);
    } else {
        self->wanted = widened = NULL;
    }
    Py_XDECREF(pair);
    return widened;
}

void esc_py_parts_fini(esc_py_parts *self)
{
    Py_CLEAR(self->wanted);
    Py_CLEAR(self->list);
}

/* 1: the reader wants it; -1 with an exception. */
static int is_wanted(const esc_py_parts *self, PyObject *recorded)
{
    if (self->wanted == NULL) {
        return 1;
    }
    PyObject *type = PyObject_GetAttrString(recorded, "type");
    PyObject *tags = type == NULL ? NULL : PyObject_GetAttrString(recorded, "tags");
    int found = tags == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; found == 0 && i < PyList_GET_SIZE(self->wanted); i++) {
        PyObject *pair = PyList_GET_ITEM(self->wanted, i);
        PyObject *types = PyTuple_GET_ITEM(pair, 0);
        PyObject *borne = PyTuple_GET_ITEM(pair, 1);
        found = PyTuple_GET_SIZE(types) == 0 ? 1 : PySequence_Contains(types, type);
        for (Py_ssize_t j = 0; found > 0 && j < PyTuple_GET_SIZE(borne); j++) {
            found = PySequence_Contains(tags, PyTuple_GET_ITEM(borne, j));
        }
    }
    Py_XDECREF(type);
    Py_XDECREF(tags);
    return found;
}

PyObject *esc_py_parts_take(esc_py_parts *self)
{
    if (self->list != NULL && self->next < PyList_GET_SIZE(self->list)) {
        return Py_NewRef(PyList_GET_ITEM(self->list, self->next++));
    }
    Py_CLEAR(self->list);
    return NULL;
}

/* Those that the reader wants, so that the last one that it gets is known as the last. */
static PyObject *only_wanted(const esc_py_parts *self, PyObject *parts)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < PyList_GET_SIZE(parts); i++) {
        PyObject *part = PyList_GET_ITEM(parts, i);
        int wanted = is_wanted(self, part);
        if (wanted < 0 || (wanted > 0 && PyList_Append(found, part) < 0)) {
            Py_CLEAR(found);
        }
    }
    Py_DECREF(parts);
    return found;
}

/* A list of es.Recorded for the events that the stored one is now. */
static PyObject *split(esc_py_store *store, PyObject *reading, PyObject *recorded, bool reverse)
{
    PyObject *events = esc_py_upcast(reading, recorded);
    if (events == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(events);
    PyObject *parts = PyList_New(0);
    for (Py_ssize_t i = 0; parts != NULL && i < count; i++) {
        PyObject *part = esc_py_recorded_part(store, recorded, PyList_GET_ITEM(events, i),
                                              (uint32_t)i, (uint32_t)count);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_CLEAR(parts);
        }
        Py_XDECREF(part);
    }
    Py_DECREF(events);
    if (parts != NULL && reverse && PyList_Reverse(parts) < 0) {
        Py_CLEAR(parts);
    }
    return parts;
}

PyObject *esc_py_parts_put(esc_py_parts *self, esc_py_store *store, const escqrs_type *type,
                           PyObject *recorded, bool reverse)
{
    if (recorded == NULL || !store->backing->evolves) {
        return recorded;
    }
    PyObject *reading = esc_py_reading(store->backing, type);
    if (reading != NULL && esc_py_reading_upcasts(reading)) {
        self->next = 0;
        PyObject *parts = split(store, reading, recorded, reverse);
        Py_DECREF(recorded);
        Py_XSETREF(self->list, parts == NULL ? NULL : only_wanted(self, parts));
        return esc_py_parts_take(self);
    }
    int wanted = reading == NULL ? -1 : is_wanted(self, recorded);
    if (wanted <= 0) {
        Py_CLEAR(recorded);
    }
    return recorded;
}

/* ---- for read models --------------------------------------------------------------------------- */

/* The current exception, cleared, as an error of the core's. */
static escqrs_status failed(escqrs_error *error, escqrs_status status)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    bool memory = type != NULL && PyErr_GivenExceptionMatches(type, PyExc_MemoryError);
    PyObject *shown = value == NULL ? NULL : PyObject_Str(value);
    const char *text = shown == NULL ? NULL : PyUnicode_AsUTF8(shown);
    status = escqrs_error_set(error, memory ? ESCQRS_NO_MEMORY : status, "upcasting failed: %s: %s",
                              type == NULL ? "?" : ((PyTypeObject *)type)->tp_name,
                              text == NULL ? "?" : text);
    Py_XDECREF(shown);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_Clear();
    return status;
}

static escqrs_status look(esc_py_backing *backing, const escqrs_type *type, escqrs_reading *reading,
                          const escqrs_type **as, escqrs_error *error)
{
    PyObject *found = esc_py_reading(backing, type);
    if (found == NULL) {
        return failed(error, ESCQRS_SCHEMA_MISMATCH);
    }
    *reading = ESCQRS_READING_AS_STORED;
    if (PyExceptionInstance_Check(found)) {
        PyObject *text = PyObject_Str(found);
        const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8(text);
        (void)escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH, "%s", utf8 == NULL ? "?" : utf8);
        Py_XDECREF(text);
        PyErr_Clear();
        return ESCQRS_SCHEMA_MISMATCH;
    }
    if (esc_py_reading_upcasts(found)) {
        *reading = ESCQRS_READING_UPCAST;
        return ESCQRS_OK;
    }
    escqrs_slice name = escqrs_type_name(type);
    if (found != Py_None) {
        const escqrs_slice now = esc_py_slice_of(esc_py_class_stored_name((PyTypeObject *)found));
        if (now.data != NULL && !escqrs_slice_equal(name, now)) {
            *as = esc_py_type_of_class(backing, (PyTypeObject *)found);
            *reading = ESCQRS_READING_AS_TYPE;
        }
        if (now.data == NULL || *as == NULL) {
            *as = type;
            return failed(error, ESCQRS_SCHEMA_MISMATCH);
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_py_upcast_look(void *store, const escqrs_type *type, escqrs_reading *reading,
                                 const escqrs_type **as, escqrs_error *error)
{
    PyGILState_STATE held = PyGILState_Ensure();
    escqrs_status status = look(((esc_py_store *)store)->backing, type, reading, as, error);
    PyGILState_Release(held);
    return status;
}

/* One of the events that a stored one has become, to the core. */
static escqrs_status give(esc_py_backing *backing, PyObject *event, PyObject *stored_id,
                          const escqrs_recorded *of, uint32_t part, uint32_t count,
                          escqrs_status (*add)(void *sink, const escqrs_recorded *event,
                                               escqrs_error *error),
                          void *sink, escqrs_error *error)
{
    escqrs_recorded recorded = *of;
    recorded.type = esc_py_type_of_class(backing, Py_TYPE(event));
    recorded.part = part;
    recorded.part_count = count;
    esc_buffer packed = {0};
    PyObject *id = part == 0 ? NULL : PyUnicode_FromFormat("%U.%u", stored_id, part);
    Py_ssize_t size = 0;
    const char *text = id == NULL ? NULL : PyUnicode_AsUTF8AndSize(id, &size);
    if (text != NULL) {
        recorded.id_text = (escqrs_slice){text, (size_t)size};
    }
    escqrs_status status;
    if (recorded.type == NULL || (part > 0 && text == NULL) ||
        esc_py_message_pack(event, &packed) < 0) {
        status = failed(error, ESCQRS_REJECTED);
    } else {
        recorded.data = esc_buffer_slice(&packed);
        status = add(sink, &recorded, error);
    }
    esc_buffer_fini(&packed);
    Py_XDECREF(id);
    return status;
}

escqrs_status esc_py_upcast_apply(void *context, const escqrs_recorded *recorded,
                                  escqrs_status (*add)(void *sink, const escqrs_recorded *event,
                                                       escqrs_error *error),
                                  void *sink, escqrs_error *error)
{
    esc_py_store *store = context;
    PyGILState_STATE held = PyGILState_Ensure();
    PyObject *stored = esc_py_recorded_new(store, recorded);
    PyObject *reading = stored == NULL ? NULL : esc_py_reading(store->backing, recorded->type);
    PyObject *events = NULL;
    if (reading != NULL && esc_py_reading_upcasts(reading)) {
        events = esc_py_upcast(reading, stored);
    } else if (reading != NULL) {
        PyErr_SetString(PyExc_TypeError, "its upcaster was taken away; open the store again");
    }
    PyObject *id = events == NULL ? NULL : PyObject_GetAttrString(stored, "id");
    escqrs_status status = id == NULL ? failed(error, ESCQRS_REJECTED) : ESCQRS_OK;
    for (Py_ssize_t i = 0; status == ESCQRS_OK && i < PyList_GET_SIZE(events); i++) {
        status = give(store->backing, PyList_GET_ITEM(events, i), id, recorded, (uint32_t)i,
                      (uint32_t)PyList_GET_SIZE(events), add, sink, error);
    }
    Py_XDECREF(id);
    Py_XDECREF(events);
    Py_XDECREF(stored);
    PyGILState_Release(held);
    return status;
}

/* ---- life ------------------------------------------------------------------------------------- */

static void forget(esc_py_backing *backing)
{
    PyObject **before = backing->readings;
    size_t count = backing->reading_count;
    backing->readings = NULL;
    backing->reading_count = 0;
    for (size_t i = 0; i < count; i++) {
        Py_XDECREF(before[i]);
    }
    PyMem_Free(before);
}

int esc_py_readings_learn(esc_py_store *store, PyObject *plan, bool evolves)
{
    esc_py_backing *backing = store->backing;
    Py_XSETREF(backing->plan, Py_NewRef(plan));
    backing->learned++;
    backing->evolves = evolves;
    PyDict_Clear(store->types);
    if (PyList_SetSlice(store->names, 0, PY_SSIZE_T_MAX, NULL) < 0) {
        return -1;
    }
    forget(backing);
    return 0;
}

void esc_py_readings_fini(esc_py_backing *backing)
{
    forget(backing);
    Py_CLEAR(backing->plan);
}

/* ---- functions for _upcast.py and _record.py -------------------------------------------------- */

/* _schema_record(cls, version=1) -> bytes */
static PyObject *schema_record(PyObject *module, PyObject *args)
{
    esc_py_state *state = esc_py_state_of(module);
    PyObject *cls;
    unsigned version = 1;
    if (!PyArg_ParseTuple(args, "O|I", &cls, &version)) {
        return NULL;
    }
    if (esc_py_class_kind(state, cls) == ESC_PY_NONE) {
        return PyErr_Format(PyExc_TypeError, "%R is no message class", cls);
    }
    const escqrs_schema *schema = esc_py_message_schema((PyTypeObject *)cls);
    if (schema == NULL) {
        return NULL;
    }
    escqrs_error error = {0};
    void *record = NULL;
    void *versioned = NULL;
    size_t size = 0;
    escqrs_status status = escqrs_schema_record(schema, &record, &size, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_record_set_version((escqrs_slice){record, size}, version, &versioned, &size,
                                           &error);
    }
    PyObject *bytes = status != ESCQRS_OK ? esc_py_raise(state, &error)
                                          : PyBytes_FromStringAndSize(versioned, (Py_ssize_t)size);
    escqrs_free(record);
    escqrs_free(versioned);
    return bytes;
}

static void note_change(void *context, const escqrs_change *change)
{
    PyObject *list = context;
    PyObject *item = PyErr_Occurred() ? NULL
                                      : Py_BuildValue("isss", (int)change->kind, change->message,
                                                      change->field, change->text);
    if (item != NULL) {
        (void)PyList_Append(list, item); /* an exception stays set */
    }
    Py_XDECREF(item);
}

/* _schema_changes(cls, record) -> list of (kind, message, field, text) */
static PyObject *schema_changes(PyObject *module, PyObject *args)
{
    esc_py_state *state = esc_py_state_of(module);
    PyObject *cls;
    Py_buffer record;
    if (!PyArg_ParseTuple(args, "Oy*", &cls, &record)) {
        return NULL;
    }
    PyObject *list = NULL;
    const escqrs_schema *schema = NULL;
    if (esc_py_class_kind(state, cls) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "%R is no message class", cls);
    } else {
        schema = esc_py_message_schema((PyTypeObject *)cls);
        list = schema == NULL ? NULL : PyList_New(0);
    }
    if (list != NULL) {
        escqrs_error error = {0};
        escqrs_status status = escqrs_schema_changes(
            schema, (escqrs_slice){record.buf, (size_t)record.len}, note_change, list, &error);
        if (status != ESCQRS_OK) {
            esc_py_raise(state, &error);
        }
        if (PyErr_Occurred()) {
            Py_CLEAR(list);
        }
    }
    PyBuffer_Release(&record);
    return list;
}

static PyObject *names_tuple(const char *const *names, size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (name == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, name);
        }
    }
    return tuple;
}

static PyObject *members_tuple(const escqrs_field *field)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)field->enum_value_count);
    for (size_t i = 0; tuple != NULL && i < field->enum_value_count; i++) {
        PyObject *member =
            Py_BuildValue("si", field->enum_values[i].name, (int)field->enum_values[i].number);
        if (member == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, member);
        }
    }
    return tuple;
}

/* Its place among the schemas met so far; they are visited in that order. */
static Py_ssize_t place_in(PyObject *met, const escqrs_schema *schema)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(met); i++) {
        if (PyLong_AsVoidPtr(PyList_GET_ITEM(met, i)) == (const void *)schema) {
            return i;
        }
    }
    PyObject *one = PyLong_FromVoidPtr((void *)schema);
    int failed = one == NULL || PyList_Append(met, one) < 0;
    Py_XDECREF(one);
    return failed ? -1 : PyList_GET_SIZE(met) - 1;
}

static PyObject *describe_field(PyObject *met, const escqrs_field *field)
{
    Py_ssize_t nested = field->message == NULL ? -1 : place_in(met, field->message);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return Py_BuildValue("sIiiiNnzNNNN", field->name, (unsigned)field->number, (int)field->kind,
                         (int)field->label, (int)field->key_kind,
                         PyBool_FromLong(field->has_default), nested, field->enum_name,
                         members_tuple(field), names_tuple(field->was, field->was_count),
                         names_tuple(field->literals, field->literal_count),
                         names_tuple(field->key_names, field->key_name_count));
}

static PyObject *describe_message(PyObject *met, const escqrs_schema *schema)
{
    size_t count = escqrs_schema_field_count(schema);
    PyObject *fields = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; fields != NULL && i < count; i++) {
        PyObject *field = describe_field(met, escqrs_schema_field(schema, i));
        if (field == NULL) {
            Py_CLEAR(fields);
        } else {
            PyTuple_SET_ITEM(fields, (Py_ssize_t)i, field);
        }
    }
    if (fields == NULL) {
        return NULL;
    }
    size_t was_count = 0;
    const char *const *was = escqrs_schema_was(schema, &was_count);
    return Py_BuildValue("sNNN", escqrs_schema_name(schema),
                         PyBool_FromLong(escqrs_schema_is_union(schema)),
                         names_tuple(was, was_count), fields);
}

/* _describe_record(record) -> (version, list of (name, is union, was, fields)); a field is (name,
 * number, kind, label, key kind, has default, index of its message, enum's name, members, was,
 * values of a Literal, names of an enum's members as keys) */
static PyObject *describe_record(PyObject *module, PyObject *object)
{
    esc_py_state *state = esc_py_state_of(module);
    Py_buffer record;
    if (PyObject_GetBuffer(object, &record, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    escqrs_slice bytes = {record.buf, (size_t)record.len};
    escqrs_error error = {0};
    escqrs_schema *schema = NULL;
    uint32_t version = 1;
    escqrs_status status = escqrs_record_version(bytes, &version, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_schema_load(bytes, &schema, &error);
    }
    PyBuffer_Release(&record);
    if (status != ESCQRS_OK) {
        return esc_py_raise(state, &error);
    }
    PyObject *met = PyList_New(0);
    PyObject *messages = met == NULL ? NULL : PyList_New(0);
    if (messages != NULL && place_in(met, schema) < 0) {
        Py_CLEAR(messages);
    }
    for (Py_ssize_t i = 0; messages != NULL && i < PyList_GET_SIZE(met); i++) {
        PyObject *message = describe_message(met, PyLong_AsVoidPtr(PyList_GET_ITEM(met, i)));
        if (message == NULL || PyList_Append(messages, message) < 0) {
            Py_CLEAR(messages);
        }
        Py_XDECREF(message);
    }
    escqrs_schema_destroy(schema);
    Py_XDECREF(met);
    return messages == NULL ? NULL : Py_BuildValue("IN", (unsigned)version, messages);
}

static PyMethodDef functions[] = {
    {"_schema_record", schema_record, METH_VARARGS, NULL},
    {"_schema_changes", schema_changes, METH_VARARGS, NULL},
    {"_describe_record", describe_record, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

int esc_py_upcast_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
