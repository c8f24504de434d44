/* python/message.c - messages as objects: their memory, comparing, copying, pickling; the section
 * of the module's state and the functions to_bytes, from_bytes, proto, new_id.
 *
 * What is decoded begins with empty slots over the struct it was unpacked to (see message.h); what
 * is made (message_make.c) has all of them filled. No locks; the GIL is held throughout.
 */
#include "python/message_parts.h"

#include <string.h>

#include "python/adopted.h"
#include "python/simulation.h"
#include "schema/flat.h"

#define SCRATCH_MAX                                                                                \
    ((size_t)1 << 16) /* bytes of the packing buffer that are kept between calls                   \
                       */

/* ---- memory ----------------------------------------------------------------------------------- */

/* An object with empty slots and `extra` bytes behind them. */
static inline esc_py_message *alloc_with(esc_py_message_type *type, size_t extra)
{
    PyTypeObject *cls = &type->base.ht_type;
    esc_py_message *message = PyObject_Malloc((size_t)cls->tp_basicsize + extra);
    if (message == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    message->packed = NULL;
    message->block = NULL;
    message->depth = 0;
    message->within = (uint32_t)extra;
    for (uint32_t i = 0; i < type->field_count; i++) {
        message->slots[i] = NULL;
    }
    (void)PyObject_Init((PyObject *)message, cls);
    return message;
}

esc_py_message *esc_py_message_alloc(esc_py_message_type *type)
{
    return alloc_with(type, 0);
}

static void release_block(esc_py_message *message)
{
    if (message->within > 0) {
        return;
    }
    if (message->block == NULL) {
        escqrs_message_free(message->packed);
    } else if (--message->block->references == 0) {
        escqrs_message_free(message->block->root);
        PyMem_Free(message->block);
    }
}

void esc_py_message_dealloc(PyObject *self)
{
    esc_py_message *message = (esc_py_message *)self;
    PyTypeObject *cls = Py_TYPE(self);
    uint32_t count = ((esc_py_message_type *)cls)->field_count;
    for (uint32_t i = 0; i < count; i++) {
        Py_XDECREF(message->slots[i]);
    }
    if (message->packed != NULL) {
        release_block(message);
    }
    PyObject_Free(self);
    Py_DECREF(cls);
}

PyObject *esc_py_message_inside(PyTypeObject *cls, ProtobufCMessage *packed, esc_py_message *from)
{
    if (from->block == NULL) { /* from now on it is shared */
        from->block = PyMem_Malloc(sizeof *from->block);
        if (from->block == NULL) {
            return PyErr_NoMemory();
        }
        from->block->references = 1;
        from->block->root = from->packed;
    }
    esc_py_message *message = esc_py_message_alloc((esc_py_message_type *)cls);
    if (message != NULL) {
        message->packed = packed;
        message->block = from->block;
        from->block->references++;
    }
    return (PyObject *)message;
}

static int verify(esc_py_layout *layout, const ProtobufCMessage *packed)
{
    escqrs_error error; /* large, and read only where the status says that it was filled */
    if (esc_py_layout_verify(layout, packed, &error) == ESCQRS_OK) {
        return 0;
    }
    esc_py_raise(layout->state, &error);
    return -1;
}

PyObject *esc_py_message_wrap(PyTypeObject *cls, ProtobufCMessage *packed)
{
    if (esc_py_is_twin(cls)) {
        return esc_py_adopted_wrap(cls, packed);
    }
    esc_py_layout *layout = esc_py_class_layout(cls);
    if (layout == NULL || (layout->checked && verify(layout, packed) < 0)) {
        goto fail;
    }
    esc_py_message *message = esc_py_message_alloc((esc_py_message_type *)cls);
    if (message == NULL) {
        goto fail;
    }
    message->packed = packed;
    return (PyObject *)message;
fail:
    escqrs_message_free(packed);
    return NULL;
}

/* With all its memory in one piece; NULL without an exception where the bytes are not the usual
 * ones. */
static PyObject *decode_flat(PyTypeObject *cls, const esc_plan *plan, escqrs_slice data)
{
    esc_py_message *message =
        alloc_with((esc_py_message_type *)cls, esc_flat_size(plan, data.size));
    if (message == NULL) {
        return NULL;
    }
    void *memory = (char *)message + cls->tp_basicsize;
    if (!esc_flat_decode(plan, data, memory)) {
        Py_DECREF(message);
        return NULL;
    }
    message->packed = memory;
    return (PyObject *)message;
}

PyObject *esc_py_message_decode(PyTypeObject *cls, escqrs_slice data, const escqrs_limits *limits)
{
    if (esc_py_is_twin(cls)) {
        return esc_py_adopted_decode(cls, data, limits);
    }
    esc_py_layout *layout = ((esc_py_message_type *)cls)->layout;
    if (layout == NULL || !layout->ready) {
        layout = esc_py_class_layout(cls);
    }
    if (layout == NULL) {
        return NULL;
    }
    if (esc_flat_fits(&layout->schema->plan, data, limits)) {
        PyObject *message = decode_flat(cls, &layout->schema->plan, data);
        if (message != NULL && layout->checked &&
            verify(layout, ((esc_py_message *)message)->packed) < 0) {
            Py_CLEAR(message);
        }
        if (message != NULL || PyErr_Occurred()) {
            return message;
        }
    }
    ProtobufCMessage *packed = NULL;
    escqrs_error error; /* large, and read only where the status says that it was filled */
    escqrs_status status = escqrs_message_unpack(layout->schema, data, limits, &packed, &error);
    if (status != ESCQRS_OK) {
        return esc_py_raise(layout->state, &error);
    }
    return esc_py_message_wrap(cls, packed);
}

/* ---- comparing -------------------------------------------------------------------------------- */

/* Same class, or two definitions of it with the same fields. */
static bool comparable(PyObject *a, PyObject *b)
{
    if (Py_IS_TYPE(a, Py_TYPE(b))) {
        return true;
    }
    esc_py_message_type *type_a = esc_py_type_of(a);
    if (!PyObject_TypeCheck(b, type_a->state->message.base)) {
        return false;
    }
    esc_py_message_type *type_b = esc_py_type_of(b);
    if (!esc_py_same_name(Py_TYPE(a), Py_TYPE(b))) {
        return false;
    }
    int same = PyObject_RichCompareBool(type_a->field_names, type_b->field_names, Py_EQ);
    if (same < 0) {
        PyErr_Clear();
    }
    return same == 1;
}

static PyObject *message_richcompare(PyObject *a, PyObject *b, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !comparable(a, b)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    uint32_t count = esc_py_type_of(a)->field_count;
    int equal = 1;
    for (uint32_t i = 0; a != b && equal == 1 && i < count; i++) {
        PyObject *x = esc_py_message_slot((esc_py_message *)a, i);
        PyObject *y = x == NULL ? NULL : esc_py_message_slot((esc_py_message *)b, i);
        equal = y == NULL ? -1 : PyObject_RichCompareBool(x, y, Py_EQ);
    }
    if (equal < 0) {
        return NULL;
    }
    return PyBool_FromLong(operation == Py_EQ ? equal : !equal);
}

/* Of a stored dict: whatever the order of its items. */
static PyObject *hashable(PyObject *value)
{
    if (!PyDict_CheckExact(value)) {
        return Py_NewRef(value);
    }
    PyObject *items = PyDict_Items(value);
    PyObject *frozen = items == NULL ? NULL : PyFrozenSet_New(items);
    Py_XDECREF(items);
    return frozen;
}

static Py_hash_t message_hash(PyObject *self)
{
    esc_py_message_type *type = esc_py_type_of(self);
    PyObject *values = PyTuple_New((Py_ssize_t)type->field_count + 1);
    if (values == NULL) {
        return -1;
    }
    Py_hash_t hash = -1;
    for (uint32_t i = 0; i < type->field_count; i++) {
        PyObject *value = esc_py_message_slot((esc_py_message *)self, i);
        PyObject *item = value == NULL ? NULL : hashable(value);
        if (item == NULL) {
            goto done;
        }
        PyTuple_SET_ITEM(values, i, item);
    }
    PyTuple_SET_ITEM(values, type->field_count, Py_NewRef(type->layout->title));
    hash = PyObject_Hash(values);
done:
    Py_DECREF(values);
    return hash;
}

/* ---- showing ---------------------------------------------------------------------------------- */

static PyObject *shown_value(const esc_py_field *field, PyObject *value)
{
    PyObject *copy = esc_py_value_copy(field, value);
    PyObject *text = copy == NULL ? NULL : PyObject_Repr(copy);
    Py_XDECREF(copy);
    return text;
}

static PyObject *message_repr(PyObject *self)
{
    esc_py_message_type *type = esc_py_type_of(self);
    PyObject *parts = PyList_New(0);
    PyObject *name = PyType_GetName(Py_TYPE(self));
    PyObject *text = NULL;
    if (parts == NULL || name == NULL) {
        goto done;
    }
    for (uint32_t i = 0; i < type->field_count; i++) {
        PyObject *value = esc_py_message_slot((esc_py_message *)self, i);
        PyObject *shown = value == NULL ? NULL : shown_value(&type->layout->fields[i], value);
        PyObject *part =
            shown == NULL
                ? NULL
                : PyUnicode_FromFormat("%U=%U", PyTuple_GET_ITEM(type->field_names, i), shown);
        int failed = part == NULL || PyList_Append(parts, part) < 0;
        Py_XDECREF(shown);
        Py_XDECREF(part);
        if (failed) {
            goto done;
        }
    }
    PyObject *inner = esc_py_joined(parts);
    if (inner != NULL) {
        text = PyUnicode_FromFormat("%U(%U)", name, inner);
        Py_DECREF(inner);
    }
done:
    Py_XDECREF(parts);
    Py_XDECREF(name);
    return text;
}

static int message_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    PyErr_Format(
        PyExc_AttributeError,
        "%s is immutable: %R cannot be %s; make a changed copy with copy.replace(message, ...) "
        "or message.__replace__(...)",
        Py_TYPE(self)->tp_name, name, value == NULL ? "deleted" : "assigned");
    return -1;
}

/* ---- bytes ------------------------------------------------------------------------------------ */

/* In the module's buffer, which is taken while it is used: packing may run Python code. */
static PyObject *bytes_of(esc_py_state *state, PyObject *message)
{
    esc_buffer scratch = state->message.scratch;
    state->message.scratch = (esc_buffer){0};
    esc_buffer_reset(&scratch);
    PyObject *bytes = NULL;
    if (esc_py_message_pack(message, &scratch) == 0) {
        bytes = PyBytes_FromStringAndSize((const char *)scratch.data, (Py_ssize_t)scratch.size);
    }
    if (scratch.capacity > SCRATCH_MAX || state->message.scratch.data != NULL) {
        esc_buffer_fini(&scratch);
    } else {
        state->message.scratch = scratch;
    }
    return bytes;
}

static PyObject *core_to_bytes(PyObject *module, PyObject *message)
{
    esc_py_state *state = esc_py_state_of(module);
    if (esc_py_message_kind(state, message) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "to_bytes: expected a message, got %s",
                     Py_TYPE(message)->tp_name);
        return NULL;
    }
    return bytes_of(state, message);
}

static PyObject *decode_object(PyObject *cls, PyObject *data, size_t bytes_max)
{
    escqrs_limits limits = {.bytes_max = bytes_max};
    if (PyBytes_CheckExact(data)) {
        escqrs_slice slice = {PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)};
        return esc_py_message_decode((PyTypeObject *)cls, slice, &limits);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    escqrs_slice slice = {view.buf, (size_t)view.len};
    PyObject *message = esc_py_message_decode((PyTypeObject *)cls, slice, &limits);
    PyBuffer_Release(&view);
    return message;
}

static PyObject *core_from_bytes(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "from_bytes(cls, data) takes 2 arguments, got %zd", nargs);
        return NULL;
    }
    if (esc_py_class_kind(esc_py_state_of(module), args[0]) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "from_bytes: expected a message class, got %R", args[0]);
        return NULL;
    }
    if (((esc_py_message_type *)args[0])->abstract) {
        PyErr_Format(PyExc_TypeError,
                     "from_bytes: es.%s is a base class; name the message's own class",
                     ((PyTypeObject *)args[0])->tp_name);
        return NULL;
    }
    return decode_object(args[0], args[1], 0);
}

/* For pickle: a message of any size. */
static PyObject *core_rebuild(PyObject *module, PyObject *args)
{
    PyObject *cls = NULL;
    PyObject *data = NULL;
    if (!PyArg_ParseTuple(args, "OS:_rebuild", &cls, &data)) {
        return NULL;
    }
    if (esc_py_class_kind(esc_py_state_of(module), cls) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "expected a message class, got %R", cls);
        return NULL;
    }
    return decode_object(cls, data, (size_t)PyBytes_GET_SIZE(data) + 1);
}

static PyObject *message_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    esc_py_state *state = esc_py_type_of(self)->state;
    PyObject *cls = esc_py_newest(state, (PyObject *)Py_TYPE(self));
    PyObject *bytes = cls == NULL ? NULL : bytes_of(state, self);
    PyObject *result = NULL;
    if (bytes != NULL) {
        result = Py_BuildValue("O(OO)", state->message.rebuild, cls, bytes);
    }
    Py_XDECREF(cls);
    Py_XDECREF(bytes);
    return result;
}

/* ---- copies ----------------------------------------------------------------------------------- */

static PyObject *message_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *message_deepcopy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return Py_NewRef(self);
}

/* Unknown fields of a decoded message go along: the bytes of the changed one and theirs, decoded
 * again. */
static PyObject *with_unknown(PyObject *changed, const ProtobufCMessage *old)
{
    esc_buffer bytes = {0};
    PyObject *result = NULL;
    if (esc_py_message_pack(changed, &bytes) < 0) {
        goto done;
    }
    for (unsigned i = 0; i < old->n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &old->unknown_fields[i];
        uint64_t tag = (uint64_t)field->tag << 3 | (uint64_t)field->wire_type;
        uint8_t *at = NULL;
        uint8_t encoded[10];
        size_t size = 0;
        do {
            encoded[size++] = (uint8_t)((tag & 0x7F) | (tag > 0x7F ? 0x80 : 0));
            tag >>= 7;
        } while (tag != 0);
        if (esc_buffer_extend(&bytes, size + field->len, &at) != ESCQRS_OK) {
            PyErr_NoMemory();
            goto done;
        }
        memcpy(at, encoded, size);
        if (field->len > 0) {
            memcpy(at + size, field->data, field->len);
        }
    }
    escqrs_limits limits = {.bytes_max = bytes.size + 1};
    result = esc_py_message_decode(Py_TYPE(changed), esc_buffer_slice(&bytes), &limits);
done:
    esc_buffer_fini(&bytes);
    Py_DECREF(changed);
    return result;
}

static PyObject *message_replace(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    esc_py_message_type *type = esc_py_type_of(self);
    esc_py_message *old = (esc_py_message *)self;
    if (nargs != 0) {
        PyErr_Format(PyExc_TypeError, "%s.__replace__ takes keyword arguments only",
                     Py_TYPE(self)->tp_name);
        return NULL;
    }
    esc_py_message *message = esc_py_message_alloc(type);
    if (message == NULL) {
        return NULL;
    }
    if (kwnames != NULL && esc_py_message_keywords(message, type, args, kwnames, 0) < 0) {
        goto fail;
    }
    for (uint32_t i = 0; i < type->field_count; i++) {
        if (message->slots[i] == NULL) {
            PyObject *value = esc_py_message_slot(old, i);
            if (value == NULL) {
                goto fail;
            }
            message->slots[i] = Py_NewRef(value);
        }
    }
    PyObject *changed = esc_py_message_finish(message, type);
    if (changed != NULL && old->packed != NULL && old->packed->n_unknown_fields > 0) {
        return with_unknown(changed, old->packed);
    }
    return changed;
fail:
    Py_DECREF(message);
    return NULL;
}

static PyObject *message_sizeof(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    esc_py_message *message = (esc_py_message *)self;
    size_t size = (size_t)Py_TYPE(self)->tp_basicsize;
    if (message->within > 0) {
        size += message->within;
    } else if (message->packed != NULL && message->block == NULL) {
        size += escqrs_message_memory(message->packed);
    }
    return PyLong_FromSize_t(size);
}

static PyMethodDef message_methods[] = {
    {"__copy__", message_copy, METH_NOARGS, "The message itself: it is immutable."},
    {"__deepcopy__", message_deepcopy, METH_O, "The message itself: it is immutable."},
    {"__replace__", (PyCFunction)(void (*)(void))message_replace, METH_FASTCALL | METH_KEYWORDS,
     "__replace__(**changes): a copy with other values; copy.replace() of Python 3.13 calls it."},
    {"__reduce__", message_reduce, METH_NOARGS, "For pickle: the class and the stored bytes."},
    {"__sizeof__", message_sizeof, METH_NOARGS, "Bytes, with those it was decoded to."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot base_slots[] = {
    {Py_tp_doc, "What all messages share."},
    {Py_tp_new, esc_py_message_new},
    {Py_tp_dealloc, esc_py_message_dealloc},
    {Py_tp_repr, message_repr},
    {Py_tp_hash, message_hash},
    {Py_tp_richcompare, message_richcompare},
    {Py_tp_getattro, esc_py_message_getattro},
    {Py_tp_setattro, message_setattro},
    {Py_tp_methods, message_methods},
    {0, NULL},
};

static PyType_Spec base_spec = {
    .name = "escqrs._core.MessageBase",
    .basicsize = offsetof(esc_py_message, slots),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = base_slots,
};

/* ---- functions of the module ------------------------------------------------------------------ */

static bool write_text(void *context, const char *text, size_t size)
{
    return esc_buffer_append(context, text, size) == ESCQRS_OK;
}

static PyObject *core_proto(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    esc_py_state *state = esc_py_state_of(module);
    if (nargs == 0) {
        PyErr_SetString(PyExc_TypeError, "proto: name at least one message class");
        return NULL;
    }
    const escqrs_schema **schemas = PyMem_Calloc((size_t)nargs, sizeof(void *));
    if (schemas == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *text = NULL;
    esc_buffer out = {0};
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTypeObject *cls = esc_py_class_standing_for(state, args[i]);
        if (cls == NULL || ((esc_py_message_type *)cls)->abstract) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_TypeError, "proto: expected a message class, got %R", args[i]);
            }
            goto done;
        }
        schemas[i] = esc_py_message_schema(cls);
        if (schemas[i] == NULL) {
            goto done;
        }
    }
    escqrs_error error = {0};
    if (escqrs_schema_print_proto(schemas, (size_t)nargs, write_text, &out, &error) != ESCQRS_OK) {
        esc_py_raise(state, &error);
        goto done;
    }
    text = PyUnicode_DecodeUTF8((const char *)out.data, (Py_ssize_t)out.size, NULL);
done:
    esc_buffer_fini(&out);
    PyMem_Free(schemas);
    return text;
}

static PyObject *core_new_id(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    escqrs_uuid uuid = esc_py_new_uuid();
    char text[ESCQRS_UUID_TEXT_SIZE];
    escqrs_uuid_format(&uuid, text);
    return PyUnicode_FromStringAndSize(text, ESCQRS_UUID_TEXT_SIZE - 1);
}

static PyMethodDef functions[] = {
    {"to_bytes", core_to_bytes, METH_O,
     "to_bytes($module, message, /)\n--\n\nThe message as protobuf bytes: what a store keeps of "
     "it."},
    {"from_bytes", (PyCFunction)(void (*)(void))core_from_bytes, METH_FASTCALL,
     "from_bytes($module, cls, data, /)\n--\n\n"
     "The message of class `cls` that protobuf bytes hold. Corrupt where they are not such a "
     "message,\n"
     "TooLarge beyond 16 MiB or 100 levels of nesting."},
    {"proto", (PyCFunction)(void (*)(void))core_proto, METH_FASTCALL,
     "proto($module, /, *classes)\n--\n\n"
     "The text of a .proto file for message classes and all that they nest."},
    {"new_id", core_new_id, METH_NOARGS,
     "new_id($module, /)\n--\n\n"
     "A new identifier: the text of a UUID of version 7 (RFC 9562), which sorts by time."},
    {"_rebuild", core_rebuild, METH_VARARGS, "_rebuild(cls, data): for pickle."},
    {NULL, NULL, 0, NULL},
};

/* ---- section ---------------------------------------------------------------------------------- */

static int object_exec(PyObject *module)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    section->base = (PyTypeObject *)PyType_FromModuleAndSpec(module, &base_spec, NULL);
    if (section->base == NULL ||
        PyModule_AddObjectRef(module, "MessageBase", (PyObject *)section->base) < 0 ||
        PyModule_AddFunctions(module, functions) < 0) {
        return -1;
    }
    section->rebuild = PyObject_GetAttrString(module, "_rebuild");
    return section->rebuild == NULL ? -1 : 0;
}

int esc_py_message_exec(PyObject *module)
{
    if (esc_py_message_check_exec(module) < 0 || esc_py_message_value_exec(module) < 0 ||
        esc_py_message_read_exec(module) < 0 || esc_py_form_exec(module) < 0 ||
        esc_py_message_pack_exec(module) < 0 || esc_py_message_layout_exec(module) < 0 ||
        esc_py_adopted_exec(module) < 0 || esc_py_message_field_exec(module) < 0 ||
        esc_py_message_type_exec(module) < 0 || object_exec(module) < 0) {
        return -1;
    }
    return 0;
}

int esc_py_message_traverse(esc_py_message_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->meta);
    Py_VISIT(section->base);
    Py_VISIT(section->field);
    Py_VISIT(section->layout);
    Py_VISIT(section->prepare);
    Py_VISIT(section->resolve);
    Py_VISIT(section->signature);
    Py_VISIT(section->registry);
    Py_VISIT(section->utc);
    Py_VISIT(section->decimal);
    Py_VISIT(section->uuid);
    Py_VISIT(section->uuid_safety);
    Py_VISIT(section->rebuild);
    Py_VISIT(section->adopt);
    Py_VISIT(section->event_twins);
    Py_VISIT(section->command_twins);
    Py_VISIT(section->to_string_names);
    return 0;
}

void esc_py_message_clear(esc_py_message_state *section)
{
    Py_CLEAR(section->meta);
    Py_CLEAR(section->base);
    Py_CLEAR(section->field);
    Py_CLEAR(section->layout);
    Py_CLEAR(section->prepare);
    Py_CLEAR(section->resolve);
    Py_CLEAR(section->signature);
    Py_CLEAR(section->registry);
    Py_CLEAR(section->utc);
    Py_CLEAR(section->decimal);
    Py_CLEAR(section->uuid);
    Py_CLEAR(section->uuid_safety);
    Py_CLEAR(section->rebuild);
    Py_CLEAR(section->adopt);
    Py_CLEAR(section->event_twins);
    Py_CLEAR(section->command_twins);
    Py_CLEAR(section->from_string);
    Py_CLEAR(section->to_string);
    Py_CLEAR(section->to_string_names);
    esc_buffer_fini(&section->scratch);
}
