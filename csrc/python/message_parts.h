/* python/message_parts.h - what the message_*.c files share among themselves. */
#ifndef ESC_PYTHON_MESSAGE_PARTS_H
#define ESC_PYTHON_MESSAGE_PARTS_H

#include "python/message.h"
#include "python/state.h"

/* An exact int that is small, so that it fits in 64 bits: its value is at hand. */
static inline bool esc_py_is_small(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyLong_CheckExact(value) && PyUnstable_Long_IsCompact((PyLongObject *)value);
#else
    return PyLong_CheckExact(value) && Py_SIZE(value) >= -1 && Py_SIZE(value) <= 1;
#endif
}

static inline int64_t esc_py_small_value(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Long_CompactValue((PyLongObject *)value);
#else
    return (int64_t)Py_SIZE(value) * ((PyLongObject *)value)->ob_digit[0];
#endif
}

#define ESC_PY_DEPTH_MAX 100 /* of nesting; what the codec accepts by default */

/* Microseconds and days. */
#define ESC_PY_SECONDS_A_DAY 86400
#define ESC_PY_SECONDS_MIN INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define ESC_PY_SECONDS_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

/* ---- message_type.c ---- */
int esc_py_message_type_exec(PyObject *module);
/* Resolve the annotations of a class and of all it nests. */
int esc_py_class_resolve(esc_py_message_type *type);

static inline esc_py_message_type *esc_py_type_of(PyObject *message)
{
    return (esc_py_message_type *)Py_TYPE(message);
}

/* ---- message_keys.c: dicts whose keys are members of an enum ---- */
/* `keys`: tuple of (member, name). */
int esc_py_keys_load(esc_py_field *field, PyObject *keys);
/* The key that an object is, or that a text means; NULL where it is none. The first takes members
 * of an older definition of the enum, too, and may run Python code. */
const esc_py_literal *esc_py_key_of_object(const esc_py_field *field, PyObject *object);
const esc_py_literal *esc_py_key_of_text(const esc_py_field *field,
                                         const ProtobufCBinaryData *text);

/* ---- message_field.c ---- */
int esc_py_message_field_exec(PyObject *module);
/* The descriptor of the field in that slot; it is of a class once claimed. New reference. */
PyObject *esc_py_field_new(esc_py_state *state, PyObject *name, uint32_t index);
void esc_py_field_claim(PyObject *field, PyTypeObject *cls);
PyObject *esc_py_message_getattro(PyObject *self, PyObject *name);

/* ---- message_layout.c ---- */
int esc_py_message_layout_exec(PyObject *module);
/* A layout without fields; `name` is the stored name. New reference. */
esc_py_layout *esc_py_layout_new(esc_py_state *state, PyObject *title, PyObject *name,
                                 PyObject *owner);
/* Give it its fields: a tuple of the tuples that _annotation.py makes, and the former names of the
 * message (or NULL). Does nothing if it has them. */
int esc_py_layout_seal(esc_py_layout *layout, PyObject *specs, PyObject *was);
/* Make sure that it and all that it nests are sealed. */
int esc_py_layout_ready(esc_py_layout *layout);

/* ---- message_check.c: see message.h too ---- */
int esc_py_message_check_exec(PyObject *module);

/* ---- message_value.c ---- */
int esc_py_message_value_exec(PyObject *module);
/* The default in stored form. New reference; NULL without an exception where there is none. */
PyObject *esc_py_default(esc_py_layout *layout, uint32_t index);
/* The stored form of the field's zero value. NULL without an exception where there is none. */
PyObject *esc_py_zero(esc_py_state *state, const esc_py_field *field);
/* Stored form of an absent field: default, else zero, else NULL without an exception. */
PyObject *esc_py_absent_value(esc_py_layout *layout, uint32_t index);
/* The literal that is the zero value of its type, or NULL. */
const esc_py_literal *esc_py_zero_literal(const esc_py_field *field);

static inline bool esc_py_is_set(const esc_py_field *field)
{
    return field->collection == ESC_PY_SET || field->collection == ESC_PY_FROZENSET;
}

/* ---- message_read.c ---- */
#define ESC_PY_NO_KEY "an entry has no key"
#define ESC_PY_NO_VALUE "an entry has no value"
#define ESC_PY_UNKNOWN_KEY "an entry's key is not the name of a member of the enum"
#define ESC_PY_NOT_ONE "the stored union is none of the classes that the field may hold, or several"

int esc_py_message_read_exec(PyObject *module);
/* One field of a message, filled into its slot if need be. Borrowed. */
PyObject *esc_py_message_slot(esc_py_message *message, uint32_t index);
/* Stored form that a decoded field has in `packed`; `from` is the message it belongs to (its block
 * is shared with nested ones), or NULL (they are copied). New reference. */
PyObject *esc_py_value_read(esc_py_layout *layout, uint32_t index, const ProtobufCMessage *packed,
                            esc_py_message *from);
/* An enum's or a union's member of that number, or NULL. */
const esc_py_member *esc_py_member_numbered(const esc_py_field *field, int32_t number);

/* Of a field without list or map. */
static inline bool esc_py_is_absent(const escqrs_field *field, const ProtobufCMessage *packed)
{
    const char *base = (const char *)packed;
    if (escqrs_kind_is_pointer(field->kind)) {
        return *(void *const *)(base + field->value_offset) == NULL;
    }
    return !*(const protobuf_c_boolean *)(base + field->has_offset);
}

/* ---- message_depth.c ---- */
size_t esc_py_message_depth(PyObject *message);
/* Depth of nesting of a stored form that holds messages; 0 for none. */
size_t esc_py_value_depth(const esc_py_field *field, PyObject *value);
/* After all slots are filled: how deep it is, and whether that can be stored. */
int esc_py_message_measure(esc_py_message *message, const esc_py_layout *layout);

/* ---- message_verify.c ---- */
/* Has decoding something to verify of it? See esc_py_layout_verify. */
static inline bool esc_py_field_is_verified(const esc_py_field *field)
{
    return field->kind == ESCQRS_KIND_ENUM || escqrs_kind_is_pointer(field->kind) ||
           (escqrs_kind_is_text(field->kind) && field->kind != ESCQRS_KIND_STRING) ||
           (field->label == ESCQRS_MAP && escqrs_kind_is_text(field->key_kind) &&
            field->key_kind != ESCQRS_KIND_STRING) ||
           field->literals != NULL || field->keys != NULL;
}
/* What a decoded union holds, and its member; NULL unless it is exactly one of them. */
ProtobufCMessage *esc_py_union_value(const esc_py_field *field, const ProtobufCMessage *packed,
                                     const esc_py_member **member);
/* The member of a class or an enum's member; NULL where it is none. */
const esc_py_member *esc_py_member_find(const esc_py_field *field, const PyObject *object);

static inline esc_py_layout *esc_py_member_layout(const esc_py_member *member)
{
    return ((esc_py_message_type *)member->object)->layout;
}

/* ---- message_form.c: values that are written as text, and timedelta ---- */
int esc_py_form_exec(PyObject *module);
/* Import what values of that kind are made of. */
int esc_py_form_load(esc_py_state *state, escqrs_kind kind);
/* The value in stored form, a new reference. NULL with an exception; or without one: *fault says
 * what is wrong with the value, or is NULL where it is of another type. */
PyObject *esc_py_form_check(esc_py_state *state, escqrs_kind kind, PyObject *value,
                            const char **fault);
/* Append the value behind its length. */
int esc_py_form_pack(escqrs_kind kind, PyObject *value, esc_buffer *out);
PyObject *esc_py_form_read(esc_py_state *state, escqrs_kind kind, const ProtobufCBinaryData *text);
PyObject *esc_py_duration_read(const escqrs_duration *duration);

/* ---- message.c ---- */
void esc_py_message_dealloc(PyObject *self);
/* An object with empty slots. */
esc_py_message *esc_py_message_alloc(esc_py_message_type *type);
/* The message nested in `from` at `packed`, which lies in its block. New reference. */
PyObject *esc_py_message_inside(PyTypeObject *cls, ProtobufCMessage *packed, esc_py_message *from);

/* ---- message_make.c ---- */
PyObject *esc_py_message_vectorcall(PyObject *cls, PyObject *const *args, size_t nargsf,
                                    PyObject *kwnames);
/* cls.__new__(cls, ...): the same as a call. */
PyObject *esc_py_message_new(PyTypeObject *cls, PyObject *args, PyObject *kwargs);
/* Fill slots by name; a field's slot is tried first at `guess`. */
int esc_py_message_keywords(esc_py_message *message, esc_py_message_type *type,
                            PyObject *const *values, PyObject *names, Py_ssize_t guess);
/* The last steps of every message made in Python. Takes `message` over. */
PyObject *esc_py_message_finish(esc_py_message *message, esc_py_message_type *type);
/* "a, b, c" of a tuple or list of str. */
PyObject *esc_py_joined(PyObject *names);

/* ---- message_pack.c ---- */
int esc_py_message_pack_exec(PyObject *module);
/* The wire type of a value of that kind. */
uint8_t esc_py_wire_of(escqrs_kind kind);
/* Append one field in stored form. */
int esc_py_field_pack(const esc_py_field *field, PyObject *value, esc_buffer *out);
/* Do two classes bear one module and qualified name? */
bool esc_py_same_name(PyTypeObject *a, PyTypeObject *b);

#endif
