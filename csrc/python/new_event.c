/* python/new_event.c - see new_event.h. */
#include "python/new_event.h"

#include <structmember.h>

#include "python/metadata.h"
#include "python/state.h"

/* 0 where it is a str of valid UTF-8. */
static int check_text(PyObject *value, const char *what)
{
    Py_ssize_t size;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "es.NewEvent: %s is a str, not %s", what,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    return PyUnicode_AsUTF8AndSize(value, &size) == NULL ? -1 : 0;
}

static int check_id(PyObject *value, const char *what)
{
    if (value == Py_None) {
        return 0;
    }
    if (check_text(value, what) < 0) {
        return -1;
    }
    if (PyUnicode_GET_LENGTH(value) == 0) {
        PyErr_Format(PyExc_ValueError, "es.NewEvent: %s is not empty", what);
        return -1;
    }
    return 0;
}

static PyObject *take_data(PyObject *given)
{
    if (PyBytes_CheckExact(given)) {
        return Py_NewRef(given);
    }
    if (!PyObject_CheckBuffer(given)) {
        PyErr_Format(PyExc_TypeError, "es.NewEvent: data is bytes, not %s",
                     Py_TYPE(given)->tp_name);
        return NULL;
    }
    return PyBytes_FromObject(given);
}

static PyObject *take_tags(PyObject *given)
{
    if (given == NULL) {
        return PyTuple_New(0);
    }
    if (PyUnicode_Check(given) || PyBytes_Check(given)) {
        PyErr_Format(PyExc_TypeError, "es.NewEvent: tags is a sequence of str, not %R", given);
        return NULL;
    }
    PyObject *tags = PySequence_Tuple(given);
    for (Py_ssize_t i = 0; tags != NULL && i < PyTuple_GET_SIZE(tags); i++) {
        if (check_text(PyTuple_GET_ITEM(tags, i), "a tag") < 0) {
            Py_CLEAR(tags);
        }
    }
    return tags;
}

/* A dict of our own, or NULL: with an exception, or where it is empty. */
static PyObject *take_metadata(PyObject *given)
{
    if (given == NULL) {
        return NULL;
    }
    PyObject *items = esc_py_metadata_items(given, "es.NewEvent: ");
    PyObject *copy = items == NULL || PyList_GET_SIZE(items) == 0 ? NULL : PyDict_New();
    for (Py_ssize_t i = 0; copy != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (check_text(PyTuple_GET_ITEM(pair, 0), "a name in metadata") < 0 ||
            check_text(PyTuple_GET_ITEM(pair, 1), "a value in metadata") < 0 ||
            PyDict_SetItem(copy, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0) {
            Py_CLEAR(copy);
        }
    }
    Py_XDECREF(items);
    return copy;
}

static PyObject *new_event_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"type",     "data",           "id",           "tags",
                            "metadata", "correlation_id", "causation_id", NULL};
    PyObject *name, *data, *id = Py_None, *tags = NULL, *metadata = NULL;
    PyObject *correlation = Py_None, *causation = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOOO:NewEvent", names, &name, &data, &id,
                                     &tags, &metadata, &correlation, &causation) ||
        check_text(name, "type") < 0 || check_id(id, "id") < 0 ||
        check_id(correlation, "correlation_id") < 0 || check_id(causation, "causation_id") < 0) {
        return NULL;
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (size == 0 || memchr(text, 0, (size_t)size) != NULL) {
        PyErr_Format(PyExc_ValueError, "es.NewEvent: type is not empty and holds no NUL: %R", name);
        return NULL;
    }
    esc_py_new_event *self = (esc_py_new_event *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->type = Py_NewRef(name);
    self->id = Py_NewRef(id);
    self->correlation_id = Py_NewRef(correlation);
    self->causation_id = Py_NewRef(causation);
    self->data = take_data(data);
    self->tags = self->data == NULL ? NULL : take_tags(tags);
    self->metadata = self->tags == NULL ? NULL : take_metadata(metadata);
    if (self->tags == NULL || (self->metadata == NULL && PyErr_Occurred())) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static void new_event_dealloc(PyObject *object)
{
    esc_py_new_event *self = (esc_py_new_event *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->type);
    Py_XDECREF(self->data);
    Py_XDECREF(self->id);
    Py_XDECREF(self->tags);
    Py_XDECREF(self->metadata);
    Py_XDECREF(self->correlation_id);
    Py_XDECREF(self->causation_id);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *metadata_of(esc_py_new_event *self)
{
    return self->metadata != NULL ? Py_NewRef(self->metadata) : PyDict_New();
}

static PyObject *get_metadata(PyObject *object, void *Py_UNUSED(closure))
{
    PyObject *metadata = metadata_of((esc_py_new_event *)object);
    PyObject *proxy = metadata == NULL ? NULL : PyDictProxy_New(metadata);
    Py_XDECREF(metadata);
    return proxy;
}

/* All fields as keywords. */
static PyObject *fields_of(esc_py_new_event *self)
{
    PyObject *metadata = metadata_of(self);
    return metadata == NULL
               ? NULL
               : Py_BuildValue("{sOsOsOsOsNsOsO}", "type", self->type, "data", self->data, "id",
                               self->id, "tags", self->tags, "metadata", metadata, "correlation_id",
                               self->correlation_id, "causation_id", self->causation_id);
}

static PyObject *new_event_compare(PyObject *left, PyObject *right, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || Py_TYPE(left) != Py_TYPE(right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *a = fields_of((esc_py_new_event *)left);
    PyObject *b = a == NULL ? NULL : fields_of((esc_py_new_event *)right);
    PyObject *result = b == NULL ? NULL : PyObject_RichCompare(a, b, operation);
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

static Py_hash_t new_event_hash(PyObject *object)
{
    esc_py_new_event *self = (esc_py_new_event *)object;
    PyObject *parts = PyTuple_Pack(4, self->type, self->data, self->id, self->tags);
    Py_hash_t hash = parts == NULL ? -1 : PyObject_Hash(parts);
    Py_XDECREF(parts);
    return hash;
}

static PyObject *new_event_repr(PyObject *object)
{
    esc_py_new_event *self = (esc_py_new_event *)object;
    PyObject *text = PyUnicode_FromFormat("NewEvent(%R, %R", self->type, self->data);
    const struct {
        const char *name;
        PyObject *value;
    } rest[] = {{"id", self->id == Py_None ? NULL : self->id},
                {"tags", PyTuple_GET_SIZE(self->tags) == 0 ? NULL : self->tags},
                {"metadata", self->metadata},
                {"correlation_id", self->correlation_id == Py_None ? NULL : self->correlation_id},
                {"causation_id", self->causation_id == Py_None ? NULL : self->causation_id}};
    for (size_t i = 0; text != NULL && i < sizeof rest / sizeof rest[0]; i++) {
        if (rest[i].value != NULL) {
            Py_SETREF(text, PyUnicode_FromFormat("%U, %s=%R", text, rest[i].name, rest[i].value));
        }
    }
    if (text != NULL) {
        Py_SETREF(text, PyUnicode_FromFormat("%U)", text));
    }
    return text;
}

/* new(cls, **fields), for pickle */
static PyObject *new_event_reduce(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *copyreg = PyImport_ImportModule("copyreg");
    PyObject *rebuild = copyreg == NULL ? NULL : PyObject_GetAttrString(copyreg, "__newobj_ex__");
    PyObject *fields = rebuild == NULL ? NULL : fields_of((esc_py_new_event *)object);
    PyObject *result = NULL;
    if (fields != NULL) {
        esc_py_new_event *self = (esc_py_new_event *)object;
        (void)PyDict_DelItemString(fields, "type");
        (void)PyDict_DelItemString(fields, "data");
        result = Py_BuildValue("O(O(OO)O)", rebuild, (PyObject *)Py_TYPE(object), self->type,
                               self->data, fields);
    }
    Py_XDECREF(copyreg);
    Py_XDECREF(rebuild);
    Py_XDECREF(fields);
    return result;
}

static PyObject *new_event_replace(PyObject *object, PyObject *args, PyObject *changes)
{
    if (PyTuple_GET_SIZE(args) > 0) {
        PyErr_SetString(PyExc_TypeError, "__replace__ takes keywords only");
        return NULL;
    }
    PyObject *fields = fields_of((esc_py_new_event *)object), *result = NULL;
    if (fields != NULL && (changes == NULL || PyDict_Update(fields, changes) == 0)) {
        PyObject *none = PyTuple_New(0);
        result = none == NULL ? NULL : PyObject_Call((PyObject *)Py_TYPE(object), none, fields);
        Py_XDECREF(none);
    }
    Py_XDECREF(fields);
    return result;
}

static PyMemberDef new_event_members[] = {
    {"type", T_OBJECT_EX, offsetof(esc_py_new_event, type), READONLY, "Name of its type."},
    {"data", T_OBJECT_EX, offsetof(esc_py_new_event, data), READONLY,
     "Its bytes, stored as they are."},
    {"id", T_OBJECT_EX, offsetof(esc_py_new_event, id), READONLY,
     "A text that no other event of the store has, or None: one is made."},
    {"tags", T_OBJECT_EX, offsetof(esc_py_new_event, tags), READONLY, "A tuple of texts."},
    {"correlation_id", T_OBJECT_EX, offsetof(esc_py_new_event, correlation_id), READONLY,
     "A text, or None: the same as the causation id."},
    {"causation_id", T_OBJECT_EX, offsetof(esc_py_new_event, causation_id), READONLY,
     "A text, or None: one is made for the commit."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef new_event_getset[] = {
    {"metadata", get_metadata, NULL, "A read-only mapping of text to text.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef new_event_methods[] = {
    {"__reduce__", new_event_reduce, METH_NOARGS, NULL},
    {"__replace__", _PyCFunction_CAST(new_event_replace), METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot new_event_slots[] = {
    {Py_tp_doc,
     "NewEvent(type, data, *, id=None, tags=(), metadata={}, correlation_id=None, "
     "causation_id=None)\n--\n\n"
     "An event that is to be stored.\n\n"
     "type: name of its type, 1 to 255 bytes of UTF-8 without NUL. data: bytes, stored "
     "as they are. id: a text of at\n"
     "most 255 bytes that no other event of the store has (es.KeyReused otherwise); made "
     "where it is None. tags:\n"
     "texts by which it can be found and asked for in conditions. metadata: a mapping of "
     "str to str.\n"
     "correlation_id, causation_id: texts of at most 255 bytes. TypeError and ValueError "
     "for what cannot be."},
    {Py_tp_new, new_event_new},
    {Py_tp_dealloc, new_event_dealloc},
    {Py_tp_repr, new_event_repr},
    {Py_tp_richcompare, new_event_compare},
    {Py_tp_hash, new_event_hash},
    {Py_tp_members, new_event_members},
    {Py_tp_getset, new_event_getset},
    {Py_tp_methods, new_event_methods},
    {0, NULL},
};

static PyType_Spec new_event_spec = {
    .name = "escqrs.NewEvent",
    .basicsize = sizeof(esc_py_new_event),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = new_event_slots,
};

int esc_py_new_event_exec(PyObject *module)
{
    esc_py_store_state *section = &esc_py_state_of(module)->store;
    section->new_event = (PyTypeObject *)PyType_FromModuleAndSpec(module, &new_event_spec, NULL);
    if (section->new_event == NULL) {
        return -1;
    }
    PyObject *match_args = Py_BuildValue("(ss)", "type", "data");
    int failed = match_args == NULL || PyObject_SetAttrString((PyObject *)section->new_event,
                                                              "__match_args__", match_args) < 0;
    Py_XDECREF(match_args);
    return failed ? -1 : PyModule_AddType(module, section->new_event);
}
