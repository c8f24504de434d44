/* python/message_depth.c - how deep messages nest, in protobuf's terms: a message that is deeper
 * than the codec reads is refused when it is made.
 *
 * No locks; the GIL is held.
 */
#include "python/message_parts.h"

/* Of a decoded message; bounded, since decoding bounds it. */
static size_t depth_of_struct(const esc_py_layout *layout, const ProtobufCMessage *packed);

static size_t depth_of_value(const esc_py_field *field, const ProtobufCMessage *inner)
{
    if (inner == NULL) {
        return 0;
    }
    if (field->parts != NULL) {
        return depth_of_struct(field->parts, inner);
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
        message->depth = (uint32_t)depth_of_struct(esc_py_type_of(object)->layout, message->packed);
    }
    return message->depth;
}

int esc_py_message_measure(esc_py_message *message, const esc_py_layout *layout)
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
    message->depth = (uint32_t)deepest;
    return 0;
}

/* Of one value that is a message, a member of a union or a tuple of fixed size. */
static size_t depth_of_item(const esc_py_field *field, PyObject *item)
{
    if (field->parts == NULL) {
        return esc_py_message_depth(item) + (field->is_union ? 1 : 0);
    }
    size_t deepest = field->parts->leaf_depth;
    for (uint32_t i = 0; i < field->parts->count; i++) {
        size_t depth = esc_py_value_depth(&field->parts->fields[i], PyTuple_GET_ITEM(item, i));
        deepest = depth + 1 > deepest ? depth + 1 : deepest;
    }
    return deepest;
}

size_t esc_py_value_depth(const esc_py_field *field, PyObject *value)
{
    size_t deepest = 0;
    if (field->kind != ESCQRS_KIND_MESSAGE || value == Py_None) {
        return 0;
    }
    if (field->label == ESCQRS_LIST && esc_py_is_set(field)) {
        PyObject *iterator = PyObject_GetIter(value);
        PyObject *item;
        while (iterator != NULL && (item = PyIter_Next(iterator)) != NULL) {
            size_t depth = depth_of_item(field, item);
            deepest = depth > deepest ? depth : deepest;
            Py_DECREF(item);
        }
        Py_XDECREF(iterator);
        return deepest;
    }
    if (field->label == ESCQRS_LIST) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); i++) {
            size_t depth = depth_of_item(field, PyTuple_GET_ITEM(value, i));
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest;
    }
    if (field->label == ESCQRS_MAP) {
        Py_ssize_t position = 0;
        PyObject *key;
        PyObject *item;
        while (PyDict_Next(value, &position, &key, &item)) {
            size_t depth = depth_of_item(field, item) + 1; /* the entry */
            deepest = depth > deepest ? depth : deepest;
        }
        return deepest;
    }
    return depth_of_item(field, value);
}
