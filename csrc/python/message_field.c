/* python/message_field.c - reading the fields of messages: the descriptor of one field, and the way
 * past it.
 *
 * A field is a data descriptor in its class, for whoever looks. Reading `message.name` finds it by
 * the address of the interned name in a small table of the class, which spares the lookup in the
 * type; whatever is not found there goes the ordinary way. The table holds for one version of the
 * type (tp_version_tag, which Python changes with every assignment to the class or a base) and is
 * made anew after a change, with those fields that are still what they were. No locks; the GIL is
 * held throughout.
 */
#include "python/message_parts.h"

#include <structmember.h>

typedef struct field_descriptor {
    PyObject_HEAD
    PyTypeObject *owner; /* the class that declared it */
    PyObject *name;
    uint32_t index; /* of the slot */
} field_descriptor;

static PyObject *field_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(owner))
{
    field_descriptor *field = (field_descriptor *)self;
    if (object == NULL) {
        return Py_NewRef(self);
    }
    if (!Py_IS_TYPE(object, field->owner) &&
        (field->owner == NULL || !PyType_IsSubtype(Py_TYPE(object), field->owner))) {
        PyErr_Format(PyExc_TypeError, "the field %R is not one of %s", field->name,
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    esc_py_message *message = (esc_py_message *)object;
    PyObject *value = message->slots[field->index];
    if (value == NULL) {
        value = esc_py_message_slot(message, field->index);
        if (value == NULL) {
            return NULL;
        }
    }
    PyTypeObject *type = Py_TYPE(value); /* of a container or of nothing else: */
    if (type == &PyTuple_Type || type == &PyDict_Type || type == &PyFrozenSet_Type) {
        return esc_py_value_copy(&esc_py_type_of(object)->layout->fields[field->index], value);
    }
    return Py_NewRef(value);
}

static int immutable(PyObject *object, PyObject *name, PyObject *value)
{
    PyErr_Format(PyExc_AttributeError,
                 "%s is immutable: its field %R cannot be %s; make a changed copy with "
                 "copy.replace(message, ...) or message.__replace__(...)",
                 Py_TYPE(object)->tp_name, name, value == NULL ? "deleted" : "assigned");
    return -1;
}

static int field_set(PyObject *self, PyObject *object, PyObject *value)
{
    return immutable(object, ((field_descriptor *)self)->name, value);
}

static PyObject *field_repr(PyObject *self)
{
    field_descriptor *field = (field_descriptor *)self;
    return PyUnicode_FromFormat("<field %R of %s>", field->name,
                                field->owner == NULL ? "?" : field->owner->tp_name);
}

static int field_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((field_descriptor *)self)->owner);
    return 0;
}

static int field_clear(PyObject *self)
{
    Py_CLEAR(((field_descriptor *)self)->owner);
    return 0;
}

static void field_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)field_clear(self);
    Py_CLEAR(((field_descriptor *)self)->name);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef field_members[] = {
    {"__name__", T_OBJECT, offsetof(field_descriptor, name), READONLY, "the field's name"},
    {"__objclass__", T_OBJECT, offsetof(field_descriptor, owner), READONLY,
     "the class that declared it"},
    {"index", T_UINT, offsetof(field_descriptor, index), READONLY,
     "position among the class's fields"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot field_slots[] = {
    {Py_tp_doc, "A field of a message class."},
    {Py_tp_descr_get, field_get},
    {Py_tp_descr_set, field_set},
    {Py_tp_repr, field_repr},
    {Py_tp_traverse, field_traverse},
    {Py_tp_clear, field_clear},
    {Py_tp_dealloc, field_dealloc},
    {Py_tp_members, field_members},
    {0, NULL},
};

static PyType_Spec field_spec = {
    .name = "escqrs._core.FieldDescriptor",
    .basicsize = sizeof(field_descriptor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = field_slots,
};

PyObject *esc_py_field_new(esc_py_state *state, PyObject *name, uint32_t index)
{
    PyTypeObject *type = state->message.field;
    field_descriptor *field = (field_descriptor *)type->tp_alloc(type, 0);
    if (field != NULL) {
        field->name = Py_NewRef(name);
        field->index = index;
    }
    return (PyObject *)field;
}

void esc_py_field_claim(PyObject *field, PyTypeObject *cls)
{
    ((field_descriptor *)field)->owner = (PyTypeObject *)Py_NewRef(cls);
}

/* ---- past the descriptor ---------------------------------------------------------------------- */

#define KNOWN_MAX 256u /* entries of a table */

static inline size_t place_of(const PyObject *name, size_t mask)
{
    return ((uintptr_t)name >> 4) & mask;
}

/* Is the field still read by its own descriptor? */
static int is_own(PyTypeObject *cls, PyTypeObject *kind, PyObject *name, uint32_t index)
{
    PyObject *found = PyObject_GetAttr((PyObject *)cls, name);
    if (found == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    bool own = Py_IS_TYPE(found, kind) && ((field_descriptor *)found)->index == index;
    Py_DECREF(found);
    return own;
}

/* A table as large as it takes for each name to have a place of its own, within limits; of two that
 * share one, the first is known. */
static esc_py_known *make_known(const esc_py_layout *layout, size_t *mask)
{
    size_t size = 4;
    while (size < 4 * (size_t)layout->count && size < KNOWN_MAX) {
        size *= 2;
    }
    for (;; size *= 2) {
        esc_py_known *known = PyMem_Calloc(size, sizeof *known);
        bool apart = true;
        *mask = size - 1;
        for (uint32_t i = 0; known != NULL && i < layout->count; i++) {
            const esc_py_field *field = &layout->fields[i];
            esc_py_known *at = &known[place_of(field->name, *mask)];
            apart = apart && at->name == NULL;
            if (at->name == NULL) {
                bool copied = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
                *at = (esc_py_known){field->name, i, copied};
            }
        }
        if (known == NULL || apart || size >= KNOWN_MAX) {
            return known;
        }
        PyMem_Free(known);
    }
}

/* After the class has changed, and at first. */
static int learn(esc_py_message_type *type)
{
    PyTypeObject *cls = &type->base.ht_type;
    PyMem_Free(type->known);
    type->known = NULL;
    type->known_version = 0;
    if (type->layout == NULL || !type->layout->ready) {
        return 0;
    }
    size_t mask = 0;
    esc_py_known *known = make_known(type->layout, &mask);
    for (size_t i = 0; known != NULL && i <= mask; i++) {
        int own = known[i].name == NULL
                      ? 0
                      : is_own(cls, type->state->message.field, known[i].name, known[i].index);
        if (own < 0) {
            PyMem_Free(known);
            return -1;
        }
        known[i].name = own ? known[i].name : NULL;
    }
    if (known == NULL) {
        return 0; /* no memory: the ordinary way will do */
    }
    bool valid = PyType_HasFeature(cls, Py_TPFLAGS_VALID_VERSION_TAG) && cls->tp_version_tag != 0;
    if (!valid) {
        PyMem_Free(known);
        return 0;
    }
    type->known = known;
    type->known_mask = mask;
    type->known_version = cls->tp_version_tag;
    return 0;
}

PyObject *esc_py_message_getattro(PyObject *self, PyObject *name)
{
    esc_py_message_type *type = esc_py_type_of(self);
    if (type->known_version == type->base.ht_type.tp_version_tag && type->known != NULL) {
        const esc_py_known *known = &type->known[place_of(name, type->known_mask)];
        if (known->name == name) {
            esc_py_message *message = (esc_py_message *)self;
            PyObject *value = message->slots[known->index];
            if (value == NULL) {
                value = esc_py_message_slot(message, known->index);
                if (value == NULL) {
                    return NULL;
                }
            }
            return known->copied ? esc_py_value_copy(&type->layout->fields[known->index], value)
                                 : Py_NewRef(value);
        }
    } else if (learn(type) < 0) {
        return NULL;
    }
    return PyObject_GenericGetAttr(self, name);
}

/* ---- module ----------------------------------------------------------------------------------- */

int esc_py_message_field_exec(PyObject *module)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    section->field = (PyTypeObject *)PyType_FromModuleAndSpec(module, &field_spec, NULL);
    if (section->field == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "FieldDescriptor", (PyObject *)section->field);
}
