/* python/recorded.c - see recorded.h. Recorded is immutable but for what it decodes when first
 * read. */
#include "python/recorded.h"

#define PY_SSIZE_T_CLEAN
#include <datetime.h>
#include <string.h>

#include "python/adopted.h"
#include "python/argument.h"
#include "python/cursor.h"
#include "python/state.h"
#include "python/metadata.h"
#include "python/text.h"
#include "python/upcast.h"

/* One block of memory: the stored bytes, ob_size of them, are at its end. */
typedef struct recorded_object {
    PyObject_VAR_HEAD
    esc_py_backing *store;     /* held; NULL: made in Python, without one */
    const escqrs_type *stored; /* lives as long as that; NULL: made in Python */
    int64_t position, version, time_us;
    uint32_t part, parts; /* of the events that the stored one is read as */
    escqrs_uuid id, correlation_id, causation_id;
    PyObject *stream;
    PyObject *type;
    PyObject *own_id;      /* str; NULL: id counts */
    PyObject *correlation; /* str; NULL: correlation_id counts */
    PyObject *causation;   /* str; NULL: causation_id counts */
    PyObject *metadata;    /* mappingproxy; NULL: empty */
    PyObject *tags;        /* tuple; NULL: empty */
    PyObject *event;       /* NULL until read */
    char data[];
} recorded_object;

/* The name of a stored type: made once for a store. Borrowed. */
static PyObject *type_name(esc_py_store *store, const escqrs_type *type)
{
    int64_t id = escqrs_type_id(type);
    while (PyList_GET_SIZE(store->names) <= id) {
        if (PyList_Append(store->names, Py_None) < 0) {
            return NULL;
        }
    }
    PyObject *name = PyList_GET_ITEM(store->names, id);
    if (name == Py_None) {
        name = esc_py_text(escqrs_type_name(type));
        if (name == NULL) {
            return NULL;
        }
        PyUnicode_InternInPlace(&name);
        (void)PyList_SetItem(store->names, id, name);
    }
    return name;
}

static PyObject *proxy(PyObject *dict)
{
    PyObject *result = dict == NULL ? NULL : PyDictProxy_New(dict);
    Py_XDECREF(dict);
    return result;
}

static PyObject *slices_tuple(const escqrs_slice *slices, size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *text = esc_py_text(slices[i]);
        if (text == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, text);
        }
    }
    return tuple;
}

/* The text, where it is not empty. */
static int take_text(escqrs_slice text, PyObject **result)
{
    *result = text.size == 0 ? NULL : esc_py_text(text);
    return text.size > 0 && *result == NULL ? -1 : 0;
}

/* An event whose class was renamed is of the type that it is now. */
static int take_current_name(recorded_object *self, esc_py_store *store)
{
    if (!store->backing->evolves) {
        return 0;
    }
    PyObject *reading = esc_py_reading(store->backing, self->stored);
    if (reading != NULL && PyType_Check(reading)) {
        Py_SETREF(self->type, Py_NewRef(esc_py_class_stored_name((PyTypeObject *)reading)));
    }
    return reading == NULL ? -1 : 0;
}

PyObject *esc_py_recorded_read(esc_py_store *store, const escqrs_recorded *recorded,
                               PyObject *stream, bool raw)
{
    recorded_object *self = NULL;
    if (stream != NULL) {
        self = PyObject_NewVar(recorded_object, store->state->recorded.type,
                               (Py_ssize_t)recorded->data.size);
    }
    if (self == NULL) {
        Py_XDECREF(stream);
        return NULL;
    }
    self->stream = stream;
    self->own_id = self->correlation = self->causation = self->metadata = self->tags = self->event =
        NULL;
    if (recorded->data.size > 0) {
        memcpy(self->data, recorded->data.data, recorded->data.size);
    }
    self->store = esc_py_backing_hold(store->backing);
    self->stored = recorded->type;
    self->position = recorded->position;
    self->version = recorded->version;
    self->time_us = recorded->time_us;
    self->part = recorded->part;
    self->parts = recorded->part_count > 0 ? recorded->part_count : 1;
    self->id = recorded->id;
    self->correlation_id = recorded->correlation_id;
    self->causation_id = recorded->causation_id;
    self->type = Py_XNewRef(type_name(store, recorded->type));
    if (self->type == NULL || (!raw && take_current_name(self, store) < 0)) {
        goto fail;
    }
    if (take_text(recorded->id_text, &self->own_id) < 0 ||
        take_text(recorded->correlation_text, &self->correlation) < 0 ||
        take_text(recorded->causation_text, &self->causation) < 0) {
        goto fail;
    }
    if (recorded->metadata_count > 0) {
        self->metadata = proxy(esc_py_metadata_dict(recorded->metadata, recorded->metadata_count));
        if (self->metadata == NULL) {
            goto fail;
        }
    }
    if (recorded->tag_count > 0) {
        self->tags = slices_tuple(recorded->tags, recorded->tag_count);
        if (self->tags == NULL) {
            goto fail;
        }
    }
    return (PyObject *)self;
fail:
    Py_DECREF((PyObject *)self);
    return NULL;
}

/* ---- made in Python, by providers ------------------------------------------------------------- */

static int take_time(esc_py_state *state, PyObject *time, int64_t *time_us)
{
    if (!PyDateTime_Check(time) ||
        ((PyDateTime_DateTime *)time)->hastzinfo == 0) { /* a naive one cannot be subtracted */
        PyErr_Format(PyExc_TypeError, "es.Recorded: time is an aware datetime, not %R", time);
        return -1;
    }
    PyObject *delta = PyNumber_Subtract(time, state->recorded.epoch);
    if (delta == NULL) {
        return -1;
    }
    *time_us =
        ((int64_t)PyDateTime_DELTA_GET_DAYS(delta) * 86400 + PyDateTime_DELTA_GET_SECONDS(delta)) *
            1000000 +
        PyDateTime_DELTA_GET_MICROSECONDS(delta);
    Py_DECREF(delta);
    return 0;
}

/* A str; None becomes NULL. */
static int take_cause(PyObject **given)
{
    if (*given == Py_None) {
        *given = NULL;
    }
    if (*given != NULL && !PyUnicode_Check(*given)) {
        PyErr_Format(PyExc_TypeError, "es.Recorded: an id is a str, not %R", *given);
        return -1;
    }
    return 0;
}

/* A tuple of str; NULL where it is empty or with an exception. */
static PyObject *take_tags(PyObject *given)
{
    PyObject *tags = given == NULL ? NULL : PySequence_Tuple(given);
    for (Py_ssize_t i = 0; tags != NULL && i < PyTuple_GET_SIZE(tags); i++) {
        if (!PyUnicode_Check(PyTuple_GET_ITEM(tags, i))) {
            PyErr_SetString(PyExc_TypeError, "es.Recorded: a tag is a str");
            Py_CLEAR(tags);
        }
    }
    if (tags != NULL && PyTuple_GET_SIZE(tags) == 0) {
        Py_CLEAR(tags);
    }
    return tags;
}

/* A read-only mapping of str to str; NULL where it is empty or with an exception. */
static PyObject *take_metadata(PyObject *given)
{
    PyObject *dict = given == NULL ? NULL : PyDict_New();
    PyObject *key, *value;
    Py_ssize_t place = 0;
    bool fits = dict != NULL && PyMapping_Check(given) && !PySequence_Check(given);
    if (fits && PyDict_Update(dict, given) < 0) {
        Py_CLEAR(dict);
    }
    while (fits && dict != NULL && PyDict_Next(dict, &place, &key, &value)) {
        fits = PyUnicode_Check(key) && PyUnicode_Check(value);
    }
    if (dict != NULL && !fits) {
        PyErr_SetString(PyExc_TypeError, "es.Recorded: metadata is a mapping of str to str");
        Py_CLEAR(dict);
    }
    if (dict != NULL && PyDict_GET_SIZE(dict) == 0) {
        Py_CLEAR(dict);
    }
    return dict == NULL ? NULL : proxy(dict);
}

static PyObject *recorded_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "position",       "stream",       "version",  "type", "time",  "id", "data",
        "correlation_id", "causation_id", "metadata", "tags", "store", NULL};
    esc_py_state *state = esc_py_state_of_type(type);
    PyObject *stream = NULL, *name = NULL, *time = NULL, *id = NULL, *data = NULL;
    PyObject *correlation = NULL, *causation = NULL, *metadata = NULL, *tags = NULL;
    PyObject *store = Py_None;
    long long position = 0, version = 0;
    int64_t time_us;
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|$LULUOUSOOOOO:Recorded", names, &position,
                                     &stream, &version, &name, &time, &id, &data, &correlation,
                                     &causation, &metadata, &tags, &store)) {
        return NULL;
    }
    if (stream == NULL || name == NULL || time == NULL || id == NULL || data == NULL) {
        PyErr_SetString(PyExc_TypeError, "es.Recorded needs position, stream, version, type, time, "
                                         "id and data");
        return NULL;
    }
    if (take_time(state, time, &time_us) < 0 || take_cause(&correlation) < 0 ||
        take_cause(&causation) < 0) {
        return NULL;
    }
    if (position < 1 || version < 1) {
        PyErr_SetString(PyExc_ValueError, "es.Recorded: position and version count from 1");
        return NULL;
    }
    if (store != Py_None && !PyObject_TypeCheck(store, state->store.type)) {
        PyErr_SetString(PyExc_TypeError, "es.Recorded: store is an es.Store");
        return NULL;
    }
    recorded_object *self = PyObject_NewVar(recorded_object, type, PyBytes_GET_SIZE(data));
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + offsetof(recorded_object, store), 0,
           offsetof(recorded_object, data) - offsetof(recorded_object, store));
    memcpy(self->data, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    self->store = store == Py_None ? NULL : esc_py_backing_hold(((esc_py_store *)store)->backing);
    self->position = position;
    self->version = version;
    self->time_us = time_us;
    self->parts = 1;
    self->stream = Py_NewRef(stream);
    self->type = Py_NewRef(name);
    self->own_id = Py_NewRef(id);
    self->causation = Py_NewRef(causation != NULL ? causation : id);
    self->correlation = Py_NewRef(correlation != NULL ? correlation : self->causation);
    self->metadata = take_metadata(metadata);
    self->tags = PyErr_Occurred() ? NULL : take_tags(tags);
    if (PyErr_Occurred()) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static esc_py_state *state_of(const recorded_object *self)
{
    return self->store != NULL ? self->store->state : esc_py_state_of_type(Py_TYPE(self));
}

PyObject *esc_py_recorded_new(esc_py_store *store, const escqrs_recorded *recorded)
{
    return esc_py_recorded_read(store, recorded, esc_py_text(recorded->stream), false);
}

static void recorded_dealloc(PyObject *object)
{
    recorded_object *self = (recorded_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    esc_py_backing *store = self->store;
    Py_XDECREF(self->stream);
    Py_XDECREF(self->type);
    Py_XDECREF(self->own_id);
    Py_XDECREF(self->correlation);
    Py_XDECREF(self->causation);
    Py_XDECREF(self->metadata);
    Py_XDECREF(self->tags);
    Py_XDECREF(self->event);
    PyObject_Free(self);
    esc_py_backing_release(store);
    Py_DECREF(type);
}

static PyObject *get_position(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((recorded_object *)object)->position);
}

static PyObject *get_version(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((recorded_object *)object)->version);
}

static PyObject *get_time(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    int64_t day_us = 86400LL * 1000000;
    int64_t days = self->time_us / day_us, rest = self->time_us % day_us;
    PyObject *delta = PyDelta_FromDSU((int)days, (int)(rest / 1000000), (int)(rest % 1000000));
    PyObject *time = delta == NULL ? NULL : PyNumber_Add(state_of(self)->recorded.epoch, delta);
    Py_XDECREF(delta);
    return time;
}

static PyObject *get_uuid(PyObject *object, void *closure)
{
    char text[ESCQRS_UUID_TEXT_SIZE];
    escqrs_uuid_format((const escqrs_uuid *)((char *)object + (size_t)closure), text);
    return PyUnicode_FromString(text);
}

static PyObject *get_id(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    return self->own_id != NULL ? Py_NewRef(self->own_id)
                                : get_uuid(object, (void *)offsetof(recorded_object, id));
}

static PyObject *get_correlation_id(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    return self->correlation != NULL
               ? Py_NewRef(self->correlation)
               : get_uuid(object, (void *)offsetof(recorded_object, correlation_id));
}

static PyObject *get_causation_id(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    return self->causation != NULL
               ? Py_NewRef(self->causation)
               : get_uuid(object, (void *)offsetof(recorded_object, causation_id));
}

static PyObject *get_object(PyObject *object, void *closure)
{
    return Py_NewRef(*(PyObject **)((char *)object + (size_t)closure));
}

static PyObject *get_part(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((recorded_object *)object)->part);
}

static PyObject *get_parts(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((recorded_object *)object)->parts);
}

static PyObject *get_data(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBytes_FromStringAndSize(((recorded_object *)object)->data, Py_SIZE(object));
}

static PyObject *get_schema(PyObject *object, void *Py_UNUSED(closure))
{
    const escqrs_type *stored = ((recorded_object *)object)->stored;
    escqrs_slice record = stored == NULL ? (escqrs_slice){"", 0} : escqrs_type_record(stored);
    return PyBytes_FromStringAndSize(record.data, (Py_ssize_t)record.size);
}

static PyObject *get_metadata(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    return self->metadata != NULL ? Py_NewRef(self->metadata) : proxy(PyDict_New());
}

static PyObject *get_tags(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    return self->tags != NULL ? Py_NewRef(self->tags) : PyTuple_New(0);
}

static void raise_unknown(recorded_object *self, const escqrs_error *error)
{
    PyObject *exception = esc_py_error_new(state_of(self), error);
    if (exception != NULL && PyObject_SetAttrString(exception, "type", self->type) == 0 &&
        PyObject_SetAttrString(exception, "stream", self->stream) == 0) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    Py_XDECREF(exception);
}

/* What it is decoded as; borrowed, NULL where there is no such class, or with an exception. */
static PyTypeObject *class_of(const recorded_object *self)
{
    if (self->store == NULL) {
        return NULL;
    }
    if (self->stored == NULL) {
        return (PyTypeObject *)PyDict_GetItemWithError(self->store->events, self->type);
    }
    PyObject *reading = esc_py_reading(self->store, self->stored);
    if (reading == NULL || PyType_Check(reading)) {
        return (PyTypeObject *)reading;
    }
    if (PyExceptionInstance_Check(reading)) {
        esc_py_reading_raise(reading);
    } else if (reading != Py_None) {
        PyErr_Format(PyExc_TypeError,
                     "version %lld of %U was read as it is stored (%U), and is upcast only where "
                     "events are iterated over",
                     (long long)self->version, self->stream, self->type);
    }
    return NULL;
}

static PyObject *get_event(PyObject *object, void *Py_UNUSED(closure))
{
    recorded_object *self = (recorded_object *)object;
    if (self->event != NULL) {
        return Py_NewRef(self->event);
    }
    PyTypeObject *cls = class_of(self);
    if (cls == NULL) {
        if (!PyErr_Occurred()) {
            escqrs_error error = {.version = self->version, .position = self->position};
            (void)escqrs_error_set(
                &error, ESCQRS_UNKNOWN_TYPE,
                "%s, version %lld, is of type %s, and no event class of that name was given to "
                "es.open or es.Store; recorded.data has its bytes",
                PyUnicode_AsUTF8(self->stream), (long long)self->version,
                PyUnicode_AsUTF8(self->type));
            error.version = self->version;
            error.position = self->position;
            raise_unknown(self, &error);
        }
        return NULL;
    }
    escqrs_limits limits = {.bytes_max = self->store->message_bytes_max};
    escqrs_slice data = {self->data, (size_t)Py_SIZE(object)};
    Py_INCREF((PyObject *)cls);      /* decoding may run Python code, which may define it anew */
    bool twin = esc_py_is_twin(cls); /* what can be changed is read anew each time */
    PyObject *event = esc_py_message_decode(cls, data, &limits);
    Py_DECREF((PyObject *)cls);
    if (event != NULL && self->event == NULL && !twin) {
        self->event = Py_NewRef(event);
    }
    return event;
}

PyObject *esc_py_recorded_part(esc_py_store *store, PyObject *recorded, PyObject *event,
                               uint32_t part, uint32_t parts)
{
    recorded_object *of = (recorded_object *)recorded;
    esc_buffer packed = {0};
    PyObject *id = part == 0 ? Py_XNewRef(of->own_id) : get_id(recorded, NULL);
    recorded_object *self = NULL;
    if (part > 0 && id != NULL) {
        Py_SETREF(id, PyUnicode_FromFormat("%U.%u", id, part));
    }
    if ((part == 0 || id != NULL) && esc_py_message_pack(event, &packed) == 0) {
        self =
            PyObject_NewVar(recorded_object, store->state->recorded.type, (Py_ssize_t)packed.size);
    }
    if (self == NULL) {
        Py_XDECREF(id);
        esc_buffer_fini(&packed);
        return NULL;
    }
    memset((char *)self + offsetof(recorded_object, store), 0,
           offsetof(recorded_object, data) - offsetof(recorded_object, store));
    if (packed.size > 0) {
        memcpy(self->data, packed.data, packed.size);
    }
    esc_buffer_fini(&packed);
    self->store = esc_py_backing_hold(store->backing);
    self->position = of->position;
    self->version = of->version;
    self->time_us = of->time_us;
    self->part = part;
    self->parts = parts;
    self->id = of->id;
    self->correlation_id = of->correlation_id;
    self->causation_id = of->causation_id;
    self->stream = Py_NewRef(of->stream);
    self->type = Py_NewRef(esc_py_class_stored_name(Py_TYPE(event)));
    self->own_id = id;
    self->correlation = Py_XNewRef(of->correlation);
    self->causation = Py_XNewRef(of->causation);
    self->metadata = Py_XNewRef(of->metadata);
    self->tags = Py_XNewRef(of->tags);
    self->event = Py_NewRef(event);
    return (PyObject *)self;
}

static PyObject *recorded_repr(PyObject *object)
{
    recorded_object *self = (recorded_object *)object;
    PyObject *time = get_time(object, NULL), *text = NULL;
    PyObject *event = get_event(object, NULL);
    if (event == NULL) {
        PyErr_Clear();
        event = get_data(object, NULL);
    }
    if (time != NULL && event != NULL) {
        PyObject *iso = PyObject_CallMethod(time, "isoformat", NULL);
        if (iso != NULL) {
            text = PyUnicode_FromFormat(
                "Recorded(position=%lld, stream=%R, version=%lld, type=%R, time=%U, event=%R)",
                (long long)self->position, self->stream, (long long)self->version, self->type, iso,
                event);
            Py_DECREF(iso);
        }
    }
    Py_XDECREF(time);
    Py_XDECREF(event);
    return text;
}

static PyObject *recorded_compare(PyObject *left, PyObject *right, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || Py_TYPE(left) != Py_TYPE(right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    recorded_object *a = (recorded_object *)left, *b = (recorded_object *)right;
    int equal = a->position == b->position && a->version == b->version && a->time_us == b->time_us;
    if (equal && a->own_id == NULL && b->own_id == NULL) {
        equal = memcmp(&a->id, &b->id, sizeof a->id) == 0;
    } else if (equal) {
        PyObject *left_id = get_id(left, NULL), *right_id = get_id(right, NULL);
        equal = left_id == NULL || right_id == NULL
                    ? -1
                    : PyObject_RichCompareBool(left_id, right_id, Py_EQ);
        Py_XDECREF(left_id);
        Py_XDECREF(right_id);
    }
    if (equal < 0) {
        return NULL;
    }
    equal = equal && a->part == b->part ? PyObject_RichCompareBool(a->stream, b->stream, Py_EQ) : 0;
    if (equal > 0) {
        equal = Py_SIZE(a) == Py_SIZE(b) && memcmp(a->data, b->data, (size_t)Py_SIZE(a)) == 0;
    }
    return equal < 0 ? NULL : PyBool_FromLong((operation == Py_EQ) == (equal != 0));
}

static Py_hash_t recorded_hash(PyObject *object)
{
    recorded_object *self = (recorded_object *)object;
    Py_hash_t hash = (Py_hash_t)(self->position * 1000003 ^ self->time_us);
    return hash == -1 ? -2 : hash;
}

static PyGetSetDef recorded_getset[] = {
    {"position", get_position, NULL, "In the whole store, counted from 1.", NULL},
    {"stream", get_object, NULL, "Name of the stream, e.g. \"Cart/cart-1\".",
     (void *)offsetof(recorded_object, stream)},
    {"version", get_version, NULL, "In its stream, counted from 1.", NULL},
    {"type", get_object, NULL, "Name of the event's type.",
     (void *)offsetof(recorded_object, type)},
    {"time", get_time, NULL, "When it was stored: an aware datetime in UTC; never goes back.",
     NULL},
    {"id", get_id, NULL, "Its id: the text of a UUID that sorts by time.", NULL},
    {"correlation_id", get_correlation_id, NULL,
     "Given with the command from outside that began it all, or its id.", NULL},
    {"causation_id", get_causation_id, NULL, "Of the command that caused it.", NULL},
    {"metadata", get_metadata, NULL, "A read-only mapping of text to text.", NULL},
    {"tags", get_tags, NULL, "A tuple of texts.", NULL},
    {"data", get_data, NULL, "The stored bytes; of an upcast event, the bytes that it has now.",
     NULL},
    {"part", get_part, NULL,
     "0; of the events that an upcaster has split a stored one into: 0, 1, 2 ... They share "
     "position, version and time.",
     NULL},
    {"parts", get_parts, NULL, "How many events the stored one is read as: 1 unless it was split.",
     NULL},
    {"_schema", get_schema, NULL, NULL, NULL},
    {"event", get_event, NULL,
     "The event itself, decoded when first read. Raises es.UnknownType, es.Corrupt.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot recorded_slots[] = {
    {Py_tp_doc,
     "Recorded(*, position, stream, version, type, time, id, data, correlation_id=None, "
     "causation_id=None, metadata={}, tags=(), store=None)\n--\n\n"
     "An event as it was stored. A provider of one's own makes them: the causation is the id and "
     "the correlation the causation where they are not given; `store` knows the classes that "
     "`event` is decoded with."},
    {Py_tp_new, recorded_make},
    {Py_tp_dealloc, recorded_dealloc},
    {Py_tp_repr, recorded_repr},
    {Py_tp_richcompare, recorded_compare},
    {Py_tp_hash, recorded_hash},
    {Py_tp_getset, recorded_getset},
    {0, NULL},
};

static PyType_Spec recorded_spec = {
    .name = "escqrs.Recorded",
    .basicsize = sizeof(recorded_object),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = recorded_slots,
};

int esc_py_recorded_exec(PyObject *module)
{
    esc_py_recorded_state *section = &esc_py_state_of(module)->recorded;
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL) {
        return -1;
    }
    section->epoch = PyDateTimeAPI->DateTime_FromDateAndTime(
        1970, 1, 1, 0, 0, 0, 0, PyDateTime_TimeZone_UTC, PyDateTimeAPI->DateTimeType);
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &recorded_spec, NULL);
    section->cursor = (PyTypeObject *)PyType_FromModuleAndSpec(module, &esc_py_cursor_spec, NULL);
    return section->epoch == NULL || section->type == NULL || section->cursor == NULL ||
                   PyModule_AddType(module, section->type) < 0 ||
                   PyModule_AddType(module, section->cursor) < 0
               ? -1
               : 0;
}

int esc_py_recorded_traverse_state(esc_py_recorded_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->cursor);
    Py_VISIT(section->matches);
    Py_VISIT(section->epoch);
    return 0;
}

void esc_py_recorded_clear_state(esc_py_recorded_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->cursor);
    Py_CLEAR(section->matches);
    Py_CLEAR(section->epoch);
}
