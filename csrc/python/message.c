/* python/message.c - messages: making, reading as a whole, comparing, copying, pickling; the
 * section of the module's state and the functions to_bytes, from_bytes, proto, new_id.
 *
 * Making a message fills every slot with a checked value, so what is made can be stored. What is
 * decoded begins with empty slots over the struct it was unpacked to (see message.h for both). No
 * locks; the GIL is held throughout.
 */
#include "python/message_parts.h"

#include <string.h>

#define SCRATCH_MAX                                                                                \
    ((size_t)1 << 16) /* bytes of the packing buffer that are kept between calls                   \
                       */

/* ---- memory ----------------------------------------------------------------------------------- */

esc_py_message *esc_py_message_alloc(esc_py_message_type *type)
{
    PyTypeObject *cls = &type->base.ht_type;
    esc_py_message *message = PyObject_Malloc((size_t)cls->tp_basicsize);
    if (message == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    message->packed = NULL;
    message->block = NULL;
    message->depth = 0;
    for (uint32_t i = 0; i < type->field_count; i++) {
        message->slots[i] = NULL;
    }
    (void)PyObject_Init((PyObject *)message, cls);
    return message;
}

static void release_block(esc_py_message *message)
{
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

PyObject *esc_py_message_decode(PyTypeObject *cls, escqrs_slice data, const escqrs_limits *limits)
{
    esc_py_layout *layout = esc_py_class_layout(cls);
    if (layout == NULL) {
        return NULL;
    }
    ProtobufCMessage *packed = NULL;
    escqrs_error error; /* large, and read only where the status says that it was filled */
    escqrs_status status = escqrs_message_unpack(layout->schema, data, limits, &packed, &error);
    if (status != ESCQRS_OK) {
        return esc_py_raise(layout->state, &error);
    }
    return esc_py_message_wrap(cls, packed);
}

/* ---- depth ------------------------------------------------------------------------------------ */

/* Of a decoded message; bounded, since decoding bounds it. */
static size_t depth_of_struct(const esc_py_layout *layout, const ProtobufCMessage *packed);

static size_t depth_of_value(const esc_py_field *field, const ProtobufCMessage *inner)
{
    if (inner == NULL) {
        return 0;
    }
    if (!field->is_union) {
        return depth_of_struct(((esc_py_message_type *)field->type)->layout, inner);
    }
    const esc_py_member *member = NULL;
    inner = esc_py_union_value(field, inner, &member);
    return 1 + (inner == NULL ? 0 : depth_of_struct(esc_py_member_layout(member), inner));
}

static size_t depth_of_field(const esc_py_field *field, const ProtobufCMessage *packed)
{
    const char *base = (const char *)packed;
    size_t deepest = 0;
    if (field->label == ESCQRS_ONE || field->label == ESCQRS_OPTIONAL) {
        return depth_of_value(field, *(ProtobufCMessage *const *)(base + field->in->value_offset));
    }
    size_t count = *(const size_t *)(base + field->in->count_offset);
    ProtobufCMessage *const *items =
        *(ProtobufCMessage *const *const *)(base + field->in->value_offset);
    const escqrs_field *value =
        field->label == ESCQRS_MAP ? escqrs_schema_field(field->in->entry, 1) : NULL;
    for (size_t i = 0; i < count; i++) {
        const ProtobufCMessage *inner = items[i];
        if (value != NULL) {
            inner = *(ProtobufCMessage *const *)((const char *)items[i] + value->value_offset);
        }
        size_t depth = depth_of_value(field, inner) + (value != NULL);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest;
}

static size_t depth_of_struct(const esc_py_layout *layout, const ProtobufCMessage *packed)
{
    size_t deepest = layout->leaf_depth;
    for (uint32_t i = 0; layout->nests && i < layout->count; i++) {
        if (layout->fields[i].kind == ESCQRS_KIND_MESSAGE) {
            size_t depth = depth_of_field(&layout->fields[i], packed) + 1;
            deepest = depth > deepest ? depth : deepest;
        }
    }
    return deepest;
}

size_t esc_py_message_depth(PyObject *object)
{
    esc_py_message *message = (esc_py_message *)object;
    if (message->depth == 0 && message->packed != NULL) {
        message->depth = depth_of_struct(esc_py_type_of(object)->layout, message->packed);
    }
    return message->depth;
}

/* After all slots are filled: how deep it is, and whether that can be stored. */
static int measure(esc_py_message *message, const esc_py_layout *layout)
{
    size_t deepest = layout->leaf_depth;
    for (uint32_t i = 0; layout->nests && i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (field->kind == ESCQRS_KIND_MESSAGE) {
            size_t depth = esc_py_value_depth(field, message->slots[i]) + 1;
            if (depth > ESC_PY_DEPTH_MAX) {
                PyErr_Format(PyExc_ValueError, "%U.%U: messages are nested deeper than %d",
                             layout->title, field->name, ESC_PY_DEPTH_MAX);
                return -1;
            }
            deepest = depth > deepest ? depth : deepest;
        }
    }
    message->depth = deepest;
    return 0;
}

/* ---- making ----------------------------------------------------------------------------------- */

/* The common case of a plain value first; everything else goes the long way. */
static inline PyObject *checked(esc_py_layout *layout, uint32_t index, PyObject *value)
{
    const esc_py_field *field = &layout->fields[index];
    if (field->label == ESCQRS_ONE) {
        if (field->kind == ESCQRS_KIND_STRING && field->literals == NULL) {
            if (PyUnicode_CheckExact(value) && PyUnicode_IS_READY(value) &&
                PyUnicode_KIND(value) == PyUnicode_1BYTE_KIND) {
                return Py_NewRef(value);
            }
        } else if (field->kind == ESCQRS_KIND_FLOAT) {
            if (PyFloat_CheckExact(value)) {
                return Py_NewRef(value);
            }
        }
    }
    return esc_py_value_check(layout, index, value);
}

static PyObject *joined(PyObject *names)
{
    PyObject *comma = PyUnicode_FromString(", ");
    PyObject *text = comma == NULL ? NULL : PyUnicode_Join(comma, names);
    Py_XDECREF(comma);
    return text;
}

static void raise_too_many(esc_py_message_type *type, Py_ssize_t given)
{
    const esc_py_layout *layout = type->layout;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < layout->count; i++) {
        if (!layout->fields[i].keyword_only && PyList_Append(list, layout->fields[i].name) < 0) {
            Py_CLEAR(list);
        }
    }
    PyObject *names = list == NULL ? NULL : joined(list);
    if (names != NULL) {
        const char *kind = layout->positional < layout->count ? " by position" : "";
        PyErr_Format(PyExc_TypeError, "%U takes %u value%s%s (%U), got %zd", layout->title,
                     layout->positional, layout->positional == 1 ? "" : "s", kind, names, given);
        Py_DECREF(names);
    }
    Py_XDECREF(list);
}

static void raise_unknown(esc_py_message_type *type, PyObject *name)
{
    PyObject *names = joined(type->field_names);
    if (names != NULL) {
        PyErr_Format(PyExc_TypeError, "%U has no field %R; its fields are: %U", type->layout->title,
                     name, names);
        Py_DECREF(names);
    }
}

static void raise_missing(esc_py_message *message, esc_py_message_type *type)
{
    PyObject *missing = PyList_New(0);
    esc_py_layout *layout = type->layout;
    for (uint32_t i = 0; missing != NULL && i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (message->slots[i] == NULL && field->default_value == NULL &&
            field->default_factory == NULL) {
            PyObject *name = PyUnicode_FromFormat("%R", field->name);
            if (name == NULL || PyList_Append(missing, name) < 0) {
                Py_CLEAR(missing);
            }
            Py_XDECREF(name);
        }
    }
    PyObject *names = missing == NULL ? NULL : joined(missing);
    if (names != NULL) {
        PyErr_Format(PyExc_TypeError, "%U: missing %s %U", layout->title,
                     PyList_GET_SIZE(missing) == 1 ? "field" : "fields", names);
    }
    Py_XDECREF(names);
    Py_XDECREF(missing);
}

/* Index of a field by name, tried first at `guess`; -1 without an exception. */
static Py_ssize_t find_field(const esc_py_layout *layout, PyObject *name, Py_ssize_t guess)
{
    if (guess < (Py_ssize_t)layout->count && layout->fields[guess].name == name) {
        return guess;
    }
    return esc_py_layout_find(layout, name);
}

static int take_keywords(esc_py_message *message, esc_py_message_type *type,
                         PyObject *const *values, PyObject *names, Py_ssize_t guess)
{
    esc_py_layout *layout = type->layout;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        Py_ssize_t index = find_field(layout, name, guess);
        if (index < 0) {
            raise_unknown(type, name);
            return -1;
        }
        if (message->slots[index] != NULL) {
            PyErr_Format(PyExc_TypeError, "%U: the field %R is given twice", layout->title, name);
            return -1;
        }
        message->slots[index] = checked(layout, (uint32_t)index, values[i]);
        if (message->slots[index] == NULL) {
            return -1;
        }
        guess = index + 1;
    }
    return 0;
}

static int take_defaults(esc_py_message *message, esc_py_message_type *type)
{
    esc_py_layout *layout = type->layout;
    for (uint32_t i = 0; i < layout->count; i++) {
        if (message->slots[i] != NULL) {
            continue;
        }
        message->slots[i] = esc_py_default(layout, i);
        if (message->slots[i] == NULL) {
            if (!PyErr_Occurred()) {
                raise_missing(message, type);
            }
            return -1;
        }
    }
    return 0;
}

/* The last steps of every message made in Python. Takes `message` over. */
static PyObject *finish(esc_py_message *message, esc_py_message_type *type)
{
    const esc_py_layout *layout = type->layout;
    if (layout->nests) {
        if (measure(message, layout) < 0) {
            goto fail;
        }
    } else {
        message->depth = layout->leaf_depth;
    }
    if (type->post_init != NULL) {
        PyObject *result = PyObject_CallOneArg(type->post_init, (PyObject *)message);
        if (result == NULL) {
            goto fail;
        }
        Py_DECREF(result);
    }
    return (PyObject *)message;
fail:
    Py_DECREF(message);
    return NULL;
}

static int can_be_made(esc_py_message_type *type)
{
    if (type->abstract) {
        PyErr_Format(PyExc_TypeError, "es.%s is a base class: derive your own from it",
                     type->base.ht_type.tp_name);
        return -1;
    }
    return esc_py_class_resolve(type);
}

PyObject *esc_py_message_vectorcall(PyObject *cls, PyObject *const *args, size_t nargsf,
                                    PyObject *kwnames)
{
    esc_py_message_type *type = (esc_py_message_type *)cls;
    esc_py_layout *layout = type->layout;
    if ((layout == NULL || !layout->ready || type->abstract)) {
        if (can_be_made(type) < 0) {
            return NULL;
        }
        layout = type->layout;
    }
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    if (given > (Py_ssize_t)layout->positional) {
        raise_too_many(type, given);
        return NULL;
    }
    esc_py_message *message = esc_py_message_alloc(type);
    if (message == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < given; i++) {
        uint32_t index = layout->positions == NULL ? (uint32_t)i : layout->positions[i];
        message->slots[index] = checked(layout, index, args[i]);
        if (message->slots[index] == NULL) {
            goto fail;
        }
    }
    if (kwnames != NULL) {
        if (take_keywords(message, type, args + given, kwnames, given) < 0) {
            goto fail;
        }
        given += PyTuple_GET_SIZE(kwnames);
    }
    if (given < (Py_ssize_t)layout->count && take_defaults(message, type) < 0) {
        goto fail;
    }
    return finish(message, type);
fail:
    Py_DECREF(message);
    return NULL;
}

/* cls.__new__(cls, ...): the same as a call. */
static PyObject *message_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModuleByDef(cls, &esc_py_module);
    if (module == NULL) {
        return NULL;
    }
    if (esc_py_class_kind(esc_py_state_of(module), (PyObject *)cls) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "%s cannot be instantiated", cls->tp_name);
        return NULL;
    }
    return PyVectorcall_Call((PyObject *)cls, args, kwargs);
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
    PyObject *inner = joined(parts);
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
    if (kwnames != NULL && take_keywords(message, type, args, kwnames, 0) < 0) {
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
    PyObject *changed = finish(message, type);
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
    if (message->packed != NULL && message->block == NULL) {
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
    {Py_tp_new, message_new},
    {Py_tp_dealloc, esc_py_message_dealloc},
    {Py_tp_repr, message_repr},
    {Py_tp_hash, message_hash},
    {Py_tp_richcompare, message_richcompare},
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
        if (esc_py_class_kind(state, args[i]) == ESC_PY_NONE ||
            ((esc_py_message_type *)args[i])->abstract) {
            PyErr_Format(PyExc_TypeError, "proto: expected a message class, got %R", args[i]);
            goto done;
        }
        schemas[i] = esc_py_message_schema((PyTypeObject *)args[i]);
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
    escqrs_uuid uuid = escqrs_uuid_new(NULL, NULL);
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

int esc_py_message_object_exec(PyObject *module)
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
    if (esc_py_message_value_exec(module) < 0 || esc_py_form_exec(module) < 0 ||
        esc_py_message_pack_exec(module) < 0 || esc_py_message_layout_exec(module) < 0 ||
        esc_py_message_type_exec(module) < 0 || esc_py_message_object_exec(module) < 0) {
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
    esc_buffer_fini(&section->scratch);
}
