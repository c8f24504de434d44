/* python/message_layout.c - layouts: from what _annotation.py read of the annotations to sealed
 * schemas.
 *
 * A layout's escqrs_schema exists from the start, so that classes may nest each other before either
 * is complete. It is sealed when all annotations of its class could be read, and `ready` when that
 * holds for everything it nests. The schema is destroyed with the layout; the garbage collector may
 * end a cycle of layouts in any order, which escqrs/schema.h allows. No locks; the GIL is held
 * throughout. Sealing itself runs no Python code.
 */
#include "python/message_parts.h"

#include "python/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "base/arena.h"
#include "base/varint.h"

#define SPEC_WAS 13 /* in the tuple that spec_of of _annotation.py makes of a field */
#define WAS_MAX 64

/* ---- life ------------------------------------------------------------------------------------- */

/* A definition that cannot be accepted is a TypeError, whatever part of it refuses. */
static int raise_definition(esc_py_state *state, const escqrs_error *error)
{
    if (error->status == ESCQRS_INVALID || error->status == ESCQRS_TOO_LARGE) {
        PyErr_SetString(PyExc_TypeError, error->message);
    } else {
        esc_py_raise(state, error);
    }
    return -1;
}

esc_py_layout *esc_py_layout_new(esc_py_state *state, PyObject *title, PyObject *name,
                                 PyObject *owner)
{
    PyTypeObject *type = state->message.layout;
    escqrs_slice text = esc_py_slice_of(name);
    if (text.data == NULL) {
        return NULL;
    }
    esc_py_layout *layout = (esc_py_layout *)type->tp_alloc(type, 0);
    if (layout == NULL) {
        return NULL;
    }
    layout->state = state;
    layout->owner = owner;
    layout->title = Py_NewRef(title);
    escqrs_error error = {0};
    if (escqrs_schema_create(text, &layout->schema, &error) != ESCQRS_OK) {
        raise_definition(state, &error);
        Py_DECREF(layout);
        return NULL;
    }
    return layout;
}

static int layout_traverse(PyObject *self, visitproc visit, void *arg)
{
    esc_py_layout *layout = (esc_py_layout *)self;
    Py_VISIT(Py_TYPE(self));
    for (uint32_t i = 0; layout->fields != NULL && i < layout->count; i++) {
        esc_py_field *field = &layout->fields[i];
        Py_VISIT(field->default_value);
        Py_VISIT(field->default_factory);
        Py_VISIT(field->type);
        Py_VISIT((PyObject *)field->parts);
        for (size_t k = 0; k < field->key_count; k++) {
            Py_VISIT(field->keys[k].object);
        }
        for (size_t k = 0; k < field->member_count; k++) {
            Py_VISIT(field->by_object[k].object);
        }
    }
    return 0;
}

/* Only what can be part of a cycle; encoding and decoding are over when this runs. */
static int layout_clear(PyObject *self)
{
    esc_py_layout *layout = (esc_py_layout *)self;
    for (uint32_t i = 0; layout->fields != NULL && i < layout->count; i++) {
        esc_py_field *field = &layout->fields[i];
        Py_CLEAR(field->default_value);
        Py_CLEAR(field->default_factory);
        for (size_t k = 0; k < field->member_count; k++) {
            Py_CLEAR(field->by_object[k].object);
        }
        field->member_count = 0;
        for (size_t k = 0; k < field->key_count; k++) {
            Py_CLEAR(field->keys[k].object);
        }
    }
    return 0;
}

static void free_fields(esc_py_field *fields, uint32_t count)
{
    for (uint32_t i = 0; fields != NULL && i < count; i++) {
        esc_py_field *field = &fields[i];
        Py_CLEAR(field->name);
        Py_CLEAR(field->default_value);
        Py_CLEAR(field->default_factory);
        for (size_t k = 0; k < field->member_count; k++) {
            Py_CLEAR(field->by_object[k].object);
        }
        for (size_t k = 0; k < field->literal_count; k++) {
            Py_CLEAR(field->literals[k].object);
        }
        for (size_t k = 0; k < field->key_count; k++) {
            Py_CLEAR(field->keys[k].object);
            Py_CLEAR(field->keys[k].name);
        }
        PyMem_Free(field->literals);
        PyMem_Free(field->keys);
        PyMem_Free(field->by_object);
        PyMem_Free(field->by_number);
    }
}

static void layout_dealloc(PyObject *self)
{
    esc_py_layout *layout = (esc_py_layout *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    escqrs_schema_destroy(layout->schema);
    layout->schema = NULL;
    free_fields(layout->fields, layout->count);
    /* Nested classes last: their schemas are to outlive the one that refers to them. */
    for (uint32_t i = 0; layout->fields != NULL && i < layout->count; i++) {
        Py_CLEAR(layout->fields[i].type);
        Py_CLEAR(layout->fields[i].parts);
    }
    PyMem_Free(layout->fields);
    PyMem_Free(layout->order);
    PyMem_Free(layout->positions);
    Py_CLEAR(layout->title);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *layout_repr(PyObject *self)
{
    esc_py_layout *layout = (esc_py_layout *)self;
    return PyUnicode_FromFormat("<layout of %U%s>", layout->title,
                                layout->sealed ? "" : ", not resolved yet");
}

/* ---- sealing ---------------------------------------------------------------------------------- */

static int compare_objects(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const esc_py_member *)a)->object;
    uintptr_t y = (uintptr_t)((const esc_py_member *)b)->object;
    return (x > y) - (x < y);
}

static int compare_members(const void *a, const void *b)
{
    int32_t x = ((const esc_py_member *)a)->number;
    int32_t y = ((const esc_py_member *)b)->number;
    return (x > y) - (x < y);
}

/* `literals`: tuple of exact str or of exact int. */
static int read_literals(esc_py_field *field, PyObject *literals)
{
    Py_ssize_t count = PyTuple_GET_SIZE(literals);
    if (count == 0) {
        return 0;
    }
    field->literals = PyMem_Calloc((size_t)count, sizeof *field->literals);
    if (field->literals == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *object = PyTuple_GET_ITEM(literals, i);
        esc_py_literal *literal = &field->literals[i];
        if (field->kind == ESCQRS_KIND_STRING) {
            escqrs_slice text = esc_py_slice_of(object);
            literal->text = text.data;
            literal->size = text.size;
        } else {
            literal->number = PyLong_AsLongLong(object);
        }
        if (PyErr_Occurred()) {
            return -1;
        }
        literal->object = Py_NewRef(object);
        field->literal_count++;
    }
    return 0;
}

/* `members`: tuple of (member, name, number). */
static int read_members(esc_py_field *field, PyObject *members)
{
    Py_ssize_t count = PyTuple_GET_SIZE(members);
    if (count == 0) {
        return 0;
    }
    field->by_object = PyMem_Calloc((size_t)count, sizeof *field->by_object);
    field->by_number = PyMem_Calloc((size_t)count, sizeof *field->by_number);
    if (field->by_object == NULL || field->by_number == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *object = NULL;
        PyObject *name = NULL;
        int number = 0;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(members, i), "OUi", &object, &name, &number)) {
            return -1;
        }
        field->by_object[i] = (esc_py_member){Py_NewRef(object), number};
        field->by_number[i] = (esc_py_member){object, number};
        field->member_count++;
    }
    qsort(field->by_object, (size_t)count, sizeof *field->by_object, compare_objects);
    qsort(field->by_number, (size_t)count, sizeof *field->by_number, compare_members);
    return 0;
}

static bool is_message_class(esc_py_state *state, PyObject *object)
{
    return esc_py_class_kind(state, object) != ESC_PY_NONE;
}

static int check_classes(const esc_py_layout *layout, const esc_py_field *field)
{
    bool good =
        field->is_union || field->parts != NULL || is_message_class(layout->state, field->type);
    for (size_t i = 0; field->is_union && i < field->member_count; i++) {
        good = good && is_message_class(layout->state, field->by_number[i].object) &&
               field->by_number[i].number == (int32_t)i + 1;
    }
    if (!good) {
        PyErr_Format(PyExc_TypeError, "%U.%U: not a message class", layout->title, field->name);
    }
    return good ? 0 : -1;
}

/* "payment_method" of "shop.Order": "shop.Order.PaymentMethod". NULL with an exception. */
static PyObject *nested_name(const esc_py_layout *layout, const esc_py_field *field)
{
    const char *name = PyUnicode_AsUTF8(field->name);
    char *camel = name == NULL ? NULL : PyMem_Malloc(strlen(name) + 1);
    if (camel == NULL) {
        return name == NULL ? NULL : PyErr_NoMemory();
    }
    size_t used = 0;
    bool upper = true;
    for (; *name != '\0'; name++) {
        if (*name == '_') {
            upper = true;
            continue;
        }
        bool lower = *name >= 'a' && *name <= 'z';
        camel[used++] = (char)(upper && lower ? *name - 'a' + 'A' : *name);
        upper = false;
    }
    camel[used] = '\0';
    PyObject *full = PyUnicode_FromFormat("%s.%s", escqrs_schema_name(layout->schema), camel);
    PyMem_Free(camel);
    return full;
}

/* A layout for the items of a tuple of fixed size; `parts` are their specs. */
static int load_parts(esc_py_layout *layout, esc_py_field *field, PyObject *parts)
{
    PyObject *name = nested_name(layout, field);
    PyObject *title =
        name == NULL ? NULL : PyUnicode_FromFormat("%U.%U", layout->title, field->name);
    if (title != NULL) {
        field->parts = esc_py_layout_new(layout->state, title, name, NULL);
    }
    int result = -1;
    if (field->parts != NULL) {
        field->parts->is_parts = true;
        result = esc_py_layout_seal(field->parts, parts, NULL);
    }
    Py_XDECREF(name);
    Py_XDECREF(title);
    return result;
}

/* `spec`: see spec_of in _annotation.py. */
static int read_field(esc_py_layout *layout, esc_py_field *field, PyObject *spec,
                      PyObject **members)
{
    PyObject *name = NULL;
    PyObject *value = NULL;
    PyObject *factory = NULL;
    PyObject *type = NULL;
    PyObject *literals = NULL;
    unsigned number = 0;
    PyObject *was = NULL; /* add_to_schema sees to it */
    PyObject *parts = NULL;
    PyObject *keys = NULL;
    int kind = 0, label = 0, key_kind = 0, has_default = 0, collection = 0, keyword_only = 0;
    if (!PyArg_ParseTuple(spec, "UIiiipOOOO!iO!pO!O!O!", &name, &number, &kind, &label, &key_kind,
                          &has_default, &value, &factory, &type, &PyTuple_Type, members,
                          &collection, &PyTuple_Type, &literals, &keyword_only, &PyTuple_Type, &was,
                          &PyTuple_Type, &parts, &PyTuple_Type, &keys)) {
        return -1;
    }
    field->name = Py_NewRef(name);
    PyUnicode_InternInPlace(&field->name);
    field->number = number;
    field->kind = (escqrs_kind)kind;
    field->label = (escqrs_label)label;
    field->key_kind = (escqrs_kind)key_kind;
    field->collection = (esc_py_collection)collection;
    field->keyword_only = keyword_only != 0;
    if (factory != Py_None) {
        field->default_factory = Py_NewRef(factory);
    } else if (has_default) {
        field->default_value = Py_NewRef(value);
    }
    if (PyTuple_GET_SIZE(parts) > 0 && load_parts(layout, field, parts) < 0) {
        return -1;
    }
    field->is_union = field->kind == ESCQRS_KIND_MESSAGE && type == Py_None && field->parts == NULL;
    if (type != Py_None) {
        field->type = Py_NewRef(type);
    }
    if (read_members(field, *members) < 0 || esc_py_keys_load(field, keys) < 0 ||
        read_literals(field, literals) < 0 || esc_py_form_load(layout->state, field->kind) < 0 ||
        (field->label == ESCQRS_MAP && esc_py_form_load(layout->state, field->key_kind) < 0) ||
        (field->kind == ESCQRS_KIND_MESSAGE && check_classes(layout, field) < 0)) {
        return -1;
    }
    bool single = field->label == ESCQRS_ONE || field->label == ESCQRS_OPTIONAL;
    uint32_t wire = single ? esc_py_wire_of(field->kind) : 2; /* bytes */
    uint8_t tag[ESC_VARINT_SIZE_MAX];
    field->tag_size = (uint8_t)esc_varint_encode((uint64_t)number << 3 | wire, tag);
    if (field->tag_size > sizeof field->tag) {
        PyErr_Format(PyExc_TypeError, "%U.%U: number %u", layout->title, name, number);
        return -1;
    }
    memcpy(field->tag, tag, field->tag_size);
    return 0;
}

/* The message type that stands for a union: one field a class. It belongs to the layout's. */
static escqrs_schema *make_union(esc_py_layout *layout, const esc_py_field *field,
                                 PyObject *members)
{
    escqrs_error error = {0};
    escqrs_schema *made = NULL;
    PyObject *name = nested_name(layout, field);
    escqrs_slice text = name == NULL ? (escqrs_slice){0} : esc_py_slice_of(name);
    if (text.data == NULL) {
        Py_XDECREF(name);
        return NULL;
    }
    escqrs_status status = escqrs_schema_create(text, &made, &error);
    Py_DECREF(name);
    if (status == ESCQRS_OK) {
        escqrs_schema_make_union(made);
        status = escqrs_schema_own(layout->schema, made);
        if (status != ESCQRS_OK) {
            escqrs_schema_destroy(made);
            PyErr_NoMemory();
            return NULL;
        }
    }
    for (size_t i = 0; status == ESCQRS_OK && i < field->member_count; i++) {
        PyObject *member = PyTuple_GET_ITEM(members, (Py_ssize_t)i);
        escqrs_field_spec spec = {
            .name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(member, 1)),
            .number = (uint32_t)i + 1,
            .kind = ESCQRS_KIND_MESSAGE,
            .label = ESCQRS_OPTIONAL,
            .message = esc_py_member_layout(&field->by_number[i])->schema,
        };
        if (spec.name == NULL) {
            return NULL;
        }
        status = escqrs_schema_add(made, &spec, &error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_schema_seal(made, &error);
    }
    if (status != ESCQRS_OK) {
        raise_definition(layout->state, &error);
        return NULL;
    }
    return made;
}

/* `was`: tuple of str, the field's former names. */
/* A record's texts hold no NUL; where a value does, any is taken to be allowed. */
static bool has_nul(const esc_py_literal *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (values[i].size > 0 && memchr(values[i].text, 0, values[i].size) != NULL) {
            return true;
        }
    }
    return false;
}

/* As the schema has them, in the arena. NULL: out of memory. */
static const char **value_texts(esc_arena *arena, const esc_py_literal *values, size_t count)
{
    const char **texts = esc_arena_alloc(arena, (count + 1) * sizeof *texts);
    for (size_t i = 0; texts != NULL && i < count; i++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)values[i].number);
        texts[i] = esc_arena_strdup(arena, values[i].text == NULL
                                               ? escqrs_slice_of(number)
                                               : (escqrs_slice){values[i].text, values[i].size});
        texts = texts[i] != NULL ? texts : NULL;
    }
    return texts;
}

static int say_values(esc_arena *arena, const esc_py_field *field, escqrs_field_spec *spec)
{
    if (field->literal_count > 0 && !has_nul(field->literals, field->literal_count)) {
        spec->literals = value_texts(arena, field->literals, field->literal_count);
        spec->literal_count = field->literal_count;
    }
    if (field->key_count > 0) {
        spec->key_names = value_texts(arena, field->keys, field->key_count);
        spec->key_name_count = field->key_count;
    }
    if ((spec->literal_count > 0 && spec->literals == NULL) ||
        (spec->key_name_count > 0 && spec->key_names == NULL)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int add_to_schema(esc_py_layout *layout, const esc_py_field *field, PyObject *members,
                         PyObject *was)
{
    escqrs_field_spec spec = {
        .name = PyUnicode_AsUTF8(field->name),
        .number = field->number,
        .kind = field->kind,
        .label = field->label,
        .key_kind = field->key_kind,
        .has_default = field->default_value != NULL || field->default_factory != NULL,
    };
    const char *names[WAS_MAX];
    if (spec.name == NULL || PyTuple_GET_SIZE(was) > WAS_MAX) {
        if (spec.name != NULL) {
            PyErr_Format(PyExc_TypeError, "%U.%U: a field has at most %d former names",
                         layout->title, field->name, WAS_MAX);
        }
        return -1;
    }
    spec.was = names;
    while (spec.was_count < (size_t)PyTuple_GET_SIZE(was)) {
        names[spec.was_count] = PyUnicode_AsUTF8(PyTuple_GET_ITEM(was, (Py_ssize_t)spec.was_count));
        if (names[spec.was_count++] == NULL) {
            return -1;
        }
    }
    if (field->is_union) {
        spec.message = make_union(layout, field, members);
        if (spec.message == NULL) {
            return -1;
        }
    } else if (field->parts != NULL) {
        spec.message = field->parts->schema;
    } else if (field->kind == ESCQRS_KIND_MESSAGE) {
        spec.message = ((esc_py_message_type *)field->type)->layout->schema;
    }
    escqrs_enum_value *values = NULL;
    if (field->kind == ESCQRS_KIND_ENUM) {
        spec.enum_name = ((PyTypeObject *)field->type)->tp_name;
        spec.enum_value_count = (size_t)PyTuple_GET_SIZE(members);
        values = PyMem_Calloc(spec.enum_value_count + 1, sizeof *values);
        if (values == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < spec.enum_value_count; i++) {
            PyObject *member = PyTuple_GET_ITEM(members, (Py_ssize_t)i);
            values[i].name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(member, 1));
            values[i].number = (int32_t)PyLong_AsLong(PyTuple_GET_ITEM(member, 2));
            if (values[i].name == NULL) {
                PyMem_Free(values);
                return -1;
            }
        }
        spec.enum_values = values;
    }
    esc_arena arena;
    esc_arena_init(&arena, 0);
    int failed = say_values(&arena, field, &spec);
    escqrs_error error = {0};
    if (failed == 0 && escqrs_schema_add(layout->schema, &spec, &error) != ESCQRS_OK) {
        failed = raise_definition(layout->state, &error);
    }
    esc_arena_fini(&arena);
    PyMem_Free(values);
    return failed;
}

/* Indices by number where the order of declaration is another. */
static int make_order(esc_py_layout *layout)
{
    bool sorted = true;
    for (uint32_t i = 1; i < layout->count; i++) {
        sorted = sorted && layout->fields[i - 1].number < layout->fields[i].number;
    }
    if (sorted) {
        return 0;
    }
    layout->order = PyMem_Calloc(layout->count, sizeof *layout->order);
    if (layout->order == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        uint32_t at = i;
        while (at > 0 && layout->fields[layout->order[at - 1]].number > layout->fields[i].number) {
            layout->order[at] = layout->order[at - 1];
            at--;
        }
        layout->order[at] = i;
    }
    return 0;
}

/* Indices of the fields that may be given by position where a keyword-only one is among them. */
static int make_positions(esc_py_layout *layout)
{
    uint32_t count = 0;
    bool first = true; /* so far all are */
    for (uint32_t i = 0; i < layout->count; i++) {
        first = first && (layout->fields[i].keyword_only || count == i);
        count += layout->fields[i].keyword_only ? 0 : 1;
    }
    layout->positional = count;
    if (first) {
        return 0;
    }
    layout->positions = PyMem_Calloc(count, sizeof *layout->positions);
    if (layout->positions == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    count = 0;
    for (uint32_t i = 0; i < layout->count; i++) {
        if (!layout->fields[i].keyword_only) {
            layout->positions[count++] = i;
        }
    }
    return 0;
}

static void look_over(esc_py_layout *layout)
{
    layout->leaf_depth = 1;
    for (uint32_t i = 0; i < layout->count; i++) {
        esc_py_field *field = &layout->fields[i];
        bool time = field->kind == ESCQRS_KIND_TIME || field->kind == ESCQRS_KIND_DURATION;
        bool common = field->kind == ESCQRS_KIND_STRING || field->kind == ESCQRS_KIND_INT ||
                      field->kind == ESCQRS_KIND_FLOAT || field->kind == ESCQRS_KIND_BOOL;
        bool plain = common && field->label == ESCQRS_ONE && field->literals == NULL;
        field->plain = plain ? (uint8_t)field->kind : 0;
        layout->nests = layout->nests || field->kind == ESCQRS_KIND_MESSAGE;
        layout->checked = layout->checked || esc_py_field_is_verified(field);
        uint32_t depth = 1u + (field->label == ESCQRS_MAP) + time;
        layout->leaf_depth = depth > layout->leaf_depth ? depth : layout->leaf_depth;
    }
}

/* Former names of the message: a tuple of str, or NULL. */
static int add_names(esc_py_layout *layout, PyObject *was)
{
    for (Py_ssize_t i = 0; was != NULL && i < PyTuple_GET_SIZE(was); i++) {
        escqrs_error error = {0};
        escqrs_slice name = esc_py_slice_of(PyTuple_GET_ITEM(was, i));
        if (name.data == NULL) {
            return -1;
        }
        if (escqrs_schema_add_was(layout->schema, name, &error) != ESCQRS_OK) {
            return raise_definition(layout->state, &error);
        }
    }
    return 0;
}

int esc_py_layout_seal(esc_py_layout *layout, PyObject *specs, PyObject *was)
{
    if (layout->sealed) {
        return 0; /* another thread was faster */
    }
    if (layout->broken) {
        PyErr_Format(PyExc_TypeError, "%U: the definition was refused before", layout->title);
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(specs);
    esc_py_field *fields = PyMem_Calloc((size_t)count + 1, sizeof *fields);
    if (fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    layout->broken = true; /* until all went well: the schema cannot be taken back */
    if (add_names(layout, was) < 0) {
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *members = NULL;
        if (read_field(layout, &fields[i], PyTuple_GET_ITEM(specs, i), &members) < 0 ||
            add_to_schema(layout, &fields[i], members,
                          PyTuple_GET_ITEM(PyTuple_GET_ITEM(specs, i), SPEC_WAS)) < 0) {
            goto fail;
        }
    }
    escqrs_error error = {0};
    if (escqrs_schema_seal(layout->schema, &error) != ESCQRS_OK) {
        raise_definition(layout->state, &error);
        goto fail;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        fields[i].in = escqrs_schema_field(layout->schema, (size_t)i);
    }
    layout->fields = fields;
    layout->count = (uint32_t)count;
    if (make_order(layout) < 0 || make_positions(layout) < 0) {
        return -1; /* what was made goes with the layout */
    }
    look_over(layout);
    layout->sealed = true;
    layout->broken = false;
    /* Defaults are wrong when the class is defined, not when they are first used. */
    for (Py_ssize_t i = 0; i < count; i++) {
        if (fields[i].default_value != NULL) {
            PyObject *stored = esc_py_default(layout, (uint32_t)i);
            if (stored == NULL) {
                return -1;
            }
            Py_DECREF(stored);
        }
    }
    return 0;
fail:
    free_fields(fields, (uint32_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_CLEAR(fields[i].type);
        Py_CLEAR(fields[i].parts);
    }
    PyMem_Free(fields);
    return -1;
}

/* ---- readiness -------------------------------------------------------------------------------- */

static int close_over(esc_py_layout *layout, PyObject *seen)
{
    if (layout->ready) {
        return 0;
    }
    int known = PySet_Contains(seen, (PyObject *)layout);
    if (known != 0) {
        return known < 0 ? -1 : 0;
    }
    if (PySet_Add(seen, (PyObject *)layout) < 0) {
        return -1;
    }
    if (!layout->sealed) {
        if (layout->broken || layout->owner == NULL) {
            PyErr_Format(PyExc_TypeError, "%U: the definition was refused before", layout->title);
            return -1;
        }
        PyObject *done =
            PyObject_CallFunction(layout->state->message.resolve, "OO", layout->owner, Py_True);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
        if (!layout->sealed) {
            PyErr_Format(PyExc_TypeError, "%U: its annotations could not be read", layout->title);
            return -1;
        }
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (field->parts != NULL && close_over(field->parts, seen) < 0) {
            return -1;
        }
        if (field->kind == ESCQRS_KIND_MESSAGE && !field->is_union && field->parts == NULL &&
            close_over(((esc_py_message_type *)field->type)->layout, seen) < 0) {
            return -1;
        }
        for (size_t k = 0; field->is_union && k < field->member_count; k++) {
            if (close_over(esc_py_member_layout(&field->by_number[k]), seen) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

int esc_py_layout_ready(esc_py_layout *layout)
{
    if (layout->ready) {
        return 0;
    }
    PyObject *seen = PySet_New(NULL);
    if (seen == NULL) {
        return -1;
    }
    int result = close_over(layout, seen);
    if (result == 0) {
        PyObject *iterator = PyObject_GetIter(seen);
        PyObject *each;
        while (iterator != NULL && (each = PyIter_Next(iterator)) != NULL) {
            ((esc_py_layout *)each)->ready = true;
            Py_DECREF(each);
        }
        result = iterator == NULL ? -1 : 0;
        Py_XDECREF(iterator);
    }
    Py_DECREF(seen);
    return result;
}

esc_py_layout *esc_py_layout_cast(esc_py_state *state, PyObject *object)
{
    if (!Py_IS_TYPE(object, state->message.layout)) {
        PyErr_Format(PyExc_TypeError, "expected a layout, got %s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    esc_py_layout *layout = (esc_py_layout *)object;
    return esc_py_layout_ready(layout) < 0 ? NULL : layout;
}

Py_ssize_t esc_py_layout_find(const esc_py_layout *layout, PyObject *name)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        if (layout->fields[i].name == name) {
            return (Py_ssize_t)i;
        }
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        if (PyUnicode_Check(name) && PyUnicode_Compare(layout->fields[i].name, name) == 0) {
            return (Py_ssize_t)i;
        }
    }
    return -1;
}

/* ---- the type --------------------------------------------------------------------------------- */

static PyObject *layout_names(PyObject *self, void *closure)
{
    (void)closure;
    esc_py_layout *layout = (esc_py_layout *)self;
    if (esc_py_layout_ready(layout) < 0) {
        return NULL;
    }
    PyObject *names = PyTuple_New(layout->count);
    for (uint32_t i = 0; names != NULL && i < layout->count; i++) {
        PyTuple_SET_ITEM(names, i, Py_NewRef(layout->fields[i].name));
    }
    return names;
}

static PyObject *layout_initial(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    esc_py_layout *layout = (esc_py_layout *)self;
    if (esc_py_layout_ready(layout) < 0) {
        return NULL;
    }
    PyObject *values = PyDict_New();
    for (uint32_t i = 0; values != NULL && i < layout->count; i++) {
        PyObject *value = esc_py_value_initial(layout, i);
        if (value == NULL && !PyErr_Occurred()) {
            continue;
        }
        if (value == NULL || PyDict_SetItem(values, layout->fields[i].name, value) < 0) {
            Py_CLEAR(values);
        }
        Py_XDECREF(value);
    }
    return values;
}

static PyObject *layout_check(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    esc_py_layout *layout = (esc_py_layout *)self;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "check(name, value)");
        return NULL;
    }
    if (esc_py_layout_ready(layout) < 0) {
        return NULL;
    }
    Py_ssize_t index = esc_py_layout_find(layout, args[0]);
    if (index < 0) {
        PyErr_Format(PyExc_TypeError, "%U has no field %R", layout->title, args[0]);
        return NULL;
    }
    PyObject *stored = esc_py_value_check(layout, (uint32_t)index, args[1]);
    PyObject *value = stored == NULL ? NULL : esc_py_value_copy(&layout->fields[index], stored);
    Py_XDECREF(stored);
    return value;
}

static PyGetSetDef layout_getset[] = {
    {"names", layout_names, NULL, "the fields' names in order", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef layout_methods[] = {
    {"initial", layout_initial, METH_NOARGS,
     "New dict of the values that fields begin with; without those that have none."},
    {"check", (PyCFunction)(void (*)(void))layout_check, METH_FASTCALL,
     "check(name, value): a copy of the value in the field's type, or TypeError or ValueError."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot layout_slots[] = {
    {Py_tp_doc, "What the core knows of a list of fields."},
    {Py_tp_traverse, layout_traverse},
    {Py_tp_clear, layout_clear},
    {Py_tp_dealloc, layout_dealloc},
    {Py_tp_repr, layout_repr},
    {Py_tp_getset, layout_getset},
    {Py_tp_methods, layout_methods},
    {0, NULL},
};

static PyType_Spec layout_spec = {
    .name = "escqrs._core.Layout",
    .basicsize = sizeof(esc_py_layout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = layout_slots,
};

int esc_py_message_layout_exec(PyObject *module)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    section->layout = (PyTypeObject *)PyType_FromModuleAndSpec(module, &layout_spec, NULL);
    if (section->layout == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "Layout", (PyObject *)section->layout);
}
