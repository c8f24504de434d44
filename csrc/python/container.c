/* python/container.c - see container.h.
 *
 * Locks: none; the GIL guards everything. Checking a value may run Python code (a time zone's),
 * which may define the aggregate anew: the layout is held meanwhile.
 */
#include "python/container.h"

#include "python/definition_parts.h"

/* Whose it is. */
typedef struct belonging {
    const esc_py_instance *owner; /* only compared, unless it is being applied */
    PyObject *title;              /* str: "Cart.items" */
} belonging;

typedef struct list_object {
    PyListObject list;
    belonging in;
} list_object;

typedef struct dict_object {
    PyDictObject dict;
    belonging in;
} dict_object;

/* Where a value goes that is put in. */
typedef struct target {
    esc_py_layout *layout; /* strong */
    uint32_t index;
} target;

static belonging *belonging_of(PyObject *self)
{
    return PyList_Check(self) ? &((list_object *)self)->in : &((dict_object *)self)->in;
}

static const char *plain_name(PyObject *self)
{
    return PyList_Check(self) ? "list" : "dict";
}

static int check_changeable(PyObject *self)
{
    const belonging *in = belonging_of(self);
    if (esc_py_instance_is_applying(in->owner)) {
        return 0;
    }
    PyErr_Format(PyExc_AttributeError,
                 "%U can be changed in an @es.applies method only: emit an event, and change it "
                 "where that is applied; %s(...) of it is a copy of your own",
                 in->title, plain_name(self));
    return -1;
}

/* The field that it belongs to, or -1. Another definition of the class, taken up while this state
 * was at work, has titles of its own. */
static Py_ssize_t find_title(const esc_py_definition *definition, PyObject *self)
{
    PyObject *title = belonging_of(self)->title;
    escqrs_label label = PyList_Check(self) ? ESCQRS_LIST : ESCQRS_MAP;
    Py_ssize_t count = PyTuple_GET_SIZE(definition->titles);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyTuple_GET_ITEM(definition->titles, i) == title) {
            return i;
        }
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const esc_py_field *field = &definition->layout->fields[i];
        if (field->label == label && field->collection == ESC_PY_LIST &&
            PyUnicode_Compare(PyTuple_GET_ITEM(definition->titles, i), title) == 0) {
            return i;
        }
    }
    return -1;
}

/* 0: it may be changed, and target_leave is due. */
static int target_enter(PyObject *self, target *at)
{
    if (check_changeable(self) < 0) {
        return -1;
    }
    const belonging *in = belonging_of(self);
    const esc_py_definition *definition = in->owner->definition;
    Py_ssize_t index = find_title(definition, self);
    if (index < 0) {
        PyErr_Format(PyExc_AttributeError,
                     "%U is no field of the newest definition of its class: it cannot be changed "
                     "any more",
                     in->title);
        return -1;
    }
    at->layout = (esc_py_layout *)Py_NewRef((PyObject *)definition->layout);
    at->index = (uint32_t)index;
    return 0;
}

static void target_leave(target *at)
{
    Py_DECREF((PyObject *)at->layout);
}

/* Whether a value is in the stored form of its kind: the common ones, seen at a glance. */
static bool is_stored_form(escqrs_kind kind, PyObject *value)
{
    switch (kind) {
    case ESCQRS_KIND_STRING:
        return PyUnicode_CheckExact(value) && PyUnicode_IS_COMPACT_ASCII(value);
    case ESCQRS_KIND_INT:
#if PY_VERSION_HEX >= 0x030C0000
        return PyLong_CheckExact(value) && PyUnstable_Long_IsCompact((PyLongObject *)value);
#else
        return PyLong_CheckExact(value) && Py_SIZE(value) >= -2 && Py_SIZE(value) <= 2;
#endif
    case ESCQRS_KIND_FLOAT:
        return PyFloat_CheckExact(value);
    default:
        return false;
    }
}

/* esc_py_item_check and esc_py_key_check, for what is on its way into `at`. */
static PyObject *stored_item(const target *at, PyObject *key, Py_ssize_t index, PyObject *item)
{
    const esc_py_field *field = &at->layout->fields[at->index];
    return field->literals == NULL && is_stored_form(field->kind, item)
               ? Py_NewRef(item)
               : esc_py_item_check(at->layout, at->index, key, index, item);
}

static PyObject *stored_key(const target *at, PyObject *key)
{
    const esc_py_field *field = &at->layout->fields[at->index];
    return field->keys == NULL && is_stored_form(field->key_kind, key)
               ? Py_NewRef(key)
               : esc_py_key_check(at->layout, at->index, key);
}

/* ---- lists -------------------------------------------------------------------------------------- */

/* The items of any iterable in stored form, as a new list; `first` is the index of the first one.
 */
static PyObject *checked_items(const target *at, Py_ssize_t first, PyObject *iterable)
{
    PyObject *items = PySequence_List(iterable);
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i));
        PyObject *checked = stored_item(at, NULL, first + i, item);
        Py_DECREF(item);
        if (checked == NULL || PyList_SetItem(items, i, checked) < 0) {
            Py_CLEAR(items);
        }
    }
    return items;
}

static int list_put(PyObject *self, Py_ssize_t before, PyObject *item)
{
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *checked = stored_item(&at, NULL, before, item);
    int result = checked == NULL ? -1 : PyList_Insert(self, before, checked);
    Py_XDECREF(checked);
    target_leave(&at);
    return result;
}

static PyObject *list_append(PyObject *self, PyObject *item)
{
    return list_put(self, PyList_GET_SIZE(self), item) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *list_insert(PyObject *self, PyObject *args)
{
    Py_ssize_t before;
    PyObject *item;
    if (!PyArg_ParseTuple(args, "nO:insert", &before, &item) || list_put(self, before, item) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int list_put_all(PyObject *self, PyObject *iterable)
{
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *items = checked_items(&at, PyList_GET_SIZE(self), iterable);
    Py_ssize_t end = PyList_GET_SIZE(self);
    int result = items == NULL ? -1 : PyList_SetSlice(self, end, end, items);
    Py_XDECREF(items);
    target_leave(&at);
    return result;
}

static PyObject *list_extend(PyObject *self, PyObject *iterable)
{
    return list_put_all(self, iterable) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *list_inplace_concat(PyObject *self, PyObject *iterable)
{
    return list_put_all(self, iterable) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *list_inplace_repeat(PyObject *self, Py_ssize_t times)
{
    return check_changeable(self) < 0 ? NULL
                                      : PyList_Type.tp_as_sequence->sq_inplace_repeat(self, times);
}

static int list_set_index(PyObject *self, Py_ssize_t index, PyObject *item)
{
    if (item == NULL) {
        return check_changeable(self) < 0
                   ? -1
                   : PyList_Type.tp_as_sequence->sq_ass_item(self, index, NULL);
    }
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *checked = stored_item(&at, NULL, index, item);
    int result =
        checked == NULL ? -1 : PyList_Type.tp_as_sequence->sq_ass_item(self, index, checked);
    Py_XDECREF(checked);
    target_leave(&at);
    return result;
}

static int list_set_slice(PyObject *self, PyObject *slice, PyObject *iterable)
{
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *items = checked_items(&at, 0, iterable);
    int result =
        items == NULL ? -1 : PyList_Type.tp_as_mapping->mp_ass_subscript(self, slice, items);
    Py_XDECREF(items);
    target_leave(&at);
    return result;
}

static int list_set(PyObject *self, PyObject *key, PyObject *value)
{
    if (value != NULL && PySlice_Check(key)) {
        return list_set_slice(self, key, value);
    }
    if (value != NULL && PyIndex_Check(key)) {
        Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
        if (index == -1 && PyErr_Occurred()) {
            return -1;
        }
        return list_set_index(self, index < 0 ? index + PyList_GET_SIZE(self) : index, value);
    }
    return check_changeable(self) < 0
               ? -1
               : PyList_Type.tp_as_mapping->mp_ass_subscript(self, key, value);
}

static int list_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *iterable = NULL;
    static char *names[] = {"", NULL};
    if (check_changeable(self) < 0 ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:list", names, &iterable) ||
        PyList_SetSlice(self, 0, PyList_GET_SIZE(self), NULL) < 0) {
        return -1;
    }
    return iterable == NULL ? 0 : list_put_all(self, iterable);
}

/* ---- dicts -------------------------------------------------------------------------------------- */

static int dict_set(PyObject *self, PyObject *key, PyObject *value)
{
    if (value == NULL) {
        return check_changeable(self) < 0 ? -1 : PyDict_DelItem(self, key);
    }
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *own_key = stored_key(&at, key);
    PyObject *own = own_key == NULL ? NULL : stored_item(&at, key, -1, value);
    int result = own == NULL ? -1 : PyDict_SetItem(self, own_key, own);
    Py_XDECREF(own_key);
    Py_XDECREF(own);
    target_leave(&at);
    return result;
}

static PyObject *dict_setdefault(PyObject *self, PyObject *args)
{
    PyObject *key;
    PyObject *value = Py_None;
    if (!PyArg_ParseTuple(args, "O|O:setdefault", &key, &value)) {
        return NULL;
    }
    PyObject *found = PyDict_GetItemWithError(self, key);
    if (found == NULL && PyErr_Occurred()) {
        return NULL;
    }
    if (found == NULL && dict_set(self, key, value) == 0) {
        found = PyDict_GetItemWithError(self, key);
        if (found == NULL && !PyErr_Occurred()) {
            PyErr_SetObject(PyExc_KeyError, key); /* checking the value took it out again */
        }
        return Py_XNewRef(found);
    }
    return found == NULL || check_changeable(self) < 0 ? NULL : Py_NewRef(found);
}

/* As dict.update: from a mapping or pairs, and keywords. */
static int dict_put_all(PyObject *self, PyObject *args, PyObject *kwargs)
{
    target at;
    if (target_enter(self, &at) < 0) {
        return -1;
    }
    PyObject *given = PyObject_Call((PyObject *)&PyDict_Type, args, kwargs);
    PyObject *checked = given == NULL ? NULL : esc_py_value_check(at.layout, at.index, given);
    int result = checked == NULL ? -1 : PyDict_Update(self, checked);
    Py_XDECREF(given);
    Py_XDECREF(checked);
    target_leave(&at);
    return result;
}

static PyObject *dict_update(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return dict_put_all(self, args, kwargs) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *dict_inplace_or(PyObject *self, PyObject *other)
{
    PyObject *args = PyTuple_Pack(1, other);
    int result = args == NULL ? -1 : dict_put_all(self, args, NULL);
    Py_XDECREF(args);
    return result < 0 ? NULL : Py_NewRef(self);
}

static int dict_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return dict_put_all(self, args, kwargs);
}

/* ---- both --------------------------------------------------------------------------------------- */

static esc_py_container_state *section_of(PyObject *self)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(self));
    return state == NULL ? NULL : &state->container;
}

/* Go on to the method of list or dict, which stands in the module's state. */
static PyObject *go_on(PyObject *self, size_t which, PyObject *const *args, Py_ssize_t count,
                       PyObject *names)
{
    enum { ARGUMENTS_MAX = 4 };
    PyObject *all[ARGUMENTS_MAX + 1];
    esc_py_container_state *section = section_of(self);
    Py_ssize_t given = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    if (section == NULL || check_changeable(self) < 0) {
        return NULL;
    }
    if (given > ARGUMENTS_MAX) {
        PyErr_Format(PyExc_TypeError, "too many arguments for a method of a %s", plain_name(self));
        return NULL;
    }
    all[0] = self;
    for (Py_ssize_t i = 0; i < given; i++) {
        all[i + 1] = args[i];
    }
    return PyObject_Vectorcall(section->methods[which], all, (size_t)count + 1, names);
}

#define GOES_ON(function, which)                                                                   \
    static PyObject *function(PyObject *self, PyObject *const *args, Py_ssize_t count,             \
                              PyObject *names)                                                     \
    {                                                                                              \
        return go_on(self, which, args, count, names);                                             \
    }
GOES_ON(list_clear, ESC_PY_LIST_CLEAR)
GOES_ON(list_pop, ESC_PY_LIST_POP)
GOES_ON(list_remove, ESC_PY_LIST_REMOVE)
GOES_ON(list_reverse, ESC_PY_LIST_REVERSE)
GOES_ON(list_sort, ESC_PY_LIST_SORT)
GOES_ON(dict_clear, ESC_PY_DICT_CLEAR)
GOES_ON(dict_pop, ESC_PY_DICT_POP)
GOES_ON(dict_popitem, ESC_PY_DICT_POPITEM)

static const char *const method_names[ESC_PY_CONTAINER_METHODS] = {
    [ESC_PY_LIST_CLEAR] = "clear",   [ESC_PY_LIST_POP] = "pop",
    [ESC_PY_LIST_REMOVE] = "remove", [ESC_PY_LIST_REVERSE] = "reverse",
    [ESC_PY_LIST_SORT] = "sort",     [ESC_PY_DICT_CLEAR] = "clear",
    [ESC_PY_DICT_POP] = "pop",       [ESC_PY_DICT_POPITEM] = "popitem",
};

static PyObject *plain_copy(PyObject *self)
{
    return PyList_Check(self) ? PySequence_List(self) : PyDict_Copy(self);
}

/* For copy and pickle: what they make is a plain one. */
static PyObject *container_reduce(PyObject *self, PyObject *protocol)
{
    (void)protocol;
    PyTypeObject *plain = PyList_Check(self) ? &PyList_Type : &PyDict_Type;
    PyObject *copy = plain_copy(self);
    return copy == NULL ? NULL : Py_BuildValue("O(N)", plain, copy);
}

/* type(self.items)(...) is a plain one too. */
static PyObject *list_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type;
    return PyObject_Call((PyObject *)&PyList_Type, args, kwargs);
}

static PyObject *dict_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type;
    return PyObject_Call((PyObject *)&PyDict_Type, args, kwargs);
}

static int container_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return (PyList_Check(self) ? &PyList_Type : &PyDict_Type)->tp_traverse(self, visit, arg);
}

/* Its values are no part of cycles, but list.append(self.items, ...) puts in whatever it is given.
 */
static int container_clear(PyObject *self)
{
    return (PyList_Check(self) ? &PyList_Type : &PyDict_Type)->tp_clear(self);
}

static void container_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(belonging_of(self)->title);
    (PyList_Check(self) ? &PyList_Type : &PyDict_Type)->tp_dealloc(self);
    Py_DECREF(type);
}

#define GO_ON(name, function)                                                                      \
    {                                                                                              \
        name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS,              \
            "As in its base."                                                                      \
    }

static PyMethodDef list_methods[] = {
    {"append", list_append, METH_O, "As in list."},
    {"extend", list_extend, METH_O, "As in list."},
    {"insert", list_insert, METH_VARARGS, "As in list."},
    GO_ON("clear", list_clear),
    GO_ON("pop", list_pop),
    GO_ON("remove", list_remove),
    GO_ON("reverse", list_reverse),
    GO_ON("sort", list_sort),
    {"__reduce_ex__", container_reduce, METH_O, "Copies are plain lists."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef dict_methods[] = {
    {"setdefault", dict_setdefault, METH_VARARGS, "As in dict."},
    {"update", (PyCFunction)(void (*)(void))dict_update, METH_VARARGS | METH_KEYWORDS,
     "As in dict."},
    GO_ON("clear", dict_clear),
    GO_ON("pop", dict_pop),
    GO_ON("popitem", dict_popitem),
    {"__reduce_ex__", container_reduce, METH_O, "Copies are plain dicts."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot list_slots[] = {
    {Py_tp_doc, "The list of a state's field: only @es.applies methods can change it."},
    {Py_tp_new, list_new},
    {Py_tp_init, list_init},
    {Py_tp_dealloc, container_dealloc},
    {Py_tp_traverse, container_traverse},
    {Py_tp_clear, container_clear},
    {Py_tp_methods, list_methods},
    {Py_mp_ass_subscript, list_set},
    {Py_sq_ass_item, list_set_index},
    {Py_sq_inplace_concat, list_inplace_concat},
    {Py_sq_inplace_repeat, list_inplace_repeat},
    {0, NULL},
};

static PyType_Slot dict_slots[] = {
    {Py_tp_doc, "The dict of a state's field: only @es.applies methods can change it."},
    {Py_tp_new, dict_new},
    {Py_tp_init, dict_init},
    {Py_tp_dealloc, container_dealloc},
    {Py_tp_traverse, container_traverse},
    {Py_tp_clear, container_clear},
    {Py_tp_methods, dict_methods},
    {Py_mp_ass_subscript, dict_set},
    {Py_nb_inplace_or, dict_inplace_or},
    {0, NULL},
};

#define CONTAINER_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec list_spec = {
    .name = "escqrs._core.StateList",
    .basicsize = sizeof(list_object),
    .flags = CONTAINER_FLAGS,
    .slots = list_slots,
};

static PyType_Spec dict_spec = {
    .name = "escqrs._core.StateDict",
    .basicsize = sizeof(dict_object),
    .flags = CONTAINER_FLAGS,
    .slots = dict_slots,
};

/* ---- for the rest of the binding ------------------------------------------------------------------ */

PyObject *esc_py_container_new(esc_py_state *state, const esc_py_instance *owner, PyObject *title,
                               PyObject *from)
{
    bool dict = PyDict_Check(from);
    PyTypeObject *plain = dict ? &PyDict_Type : &PyList_Type;
    PyTypeObject *type = dict ? state->container.dict : state->container.list;
    Py_INCREF(title); /* before Python code can run: making an object may collect garbage */
    PyObject *args = PyTuple_New(0);
    PyObject *made = args == NULL ? NULL : plain->tp_new(type, args, NULL);
    Py_XDECREF(args);
    if (made == NULL) {
        Py_DECREF(title);
        return NULL;
    }
    *belonging_of(made) = (belonging){owner, title};
    if (dict ? PyDict_Merge(made, from, 1) < 0 : PyList_SetSlice(made, 0, 0, from) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

static bool is_container(const esc_py_state *state, PyObject *value)
{
    return Py_IS_TYPE(value, state->container.list) || Py_IS_TYPE(value, state->container.dict);
}

bool esc_py_container_is_of(esc_py_state *state, PyObject *value, const esc_py_instance *owner,
                            PyObject *title)
{
    return is_container(state, value) && belonging_of(value)->owner == owner &&
           belonging_of(value)->title == title;
}

/* What may have a container in it; others are values, or beyond what is searched. */
static bool is_collection(PyObject *value)
{
    return PyList_CheckExact(value) || PyDict_CheckExact(value) || PyTuple_CheckExact(value);
}

/* An answer on its way out. It may hold itself, and one object at many places. */
typedef struct leaving {
    esc_py_state *state;
    PyObject *found; /* list: the collections in it, each once; so their addresses stay theirs */
    PyObject *known; /* dict: address of each -> None, later its copy */
} leaving;

/* 1: it is a container. 0: if it is a collection, it is in `found`. */
static int search_item(leaving *self, PyObject *item)
{
    if (is_container(self->state, item)) {
        return 1;
    }
    if (!is_collection(item)) {
        return 0;
    }
    PyObject *address = PyLong_FromVoidPtr(item);
    int known = address == NULL ? -1 : PyDict_Contains(self->known, address);
    if (known == 0 && (PyDict_SetItem(self->known, address, Py_None) < 0 ||
                       PyList_Append(self->found, item) < 0)) {
        known = -1;
    }
    Py_XDECREF(address);
    return known < 0 ? -1 : 0;
}

/* Whether there is a container in it, however deep; runs no Python code. */
static int search(leaving *self, PyObject *answer)
{
    int result = search_item(self, answer);
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(self->found); i++) {
        PyObject *collection = PyList_GET_ITEM(self->found, i);
        if (PyDict_CheckExact(collection)) {
            Py_ssize_t position = 0;
            PyObject *item;
            while (result == 0 && PyDict_Next(collection, &position, NULL, &item)) {
                result = search_item(self, item);
            }
        } else {
            for (Py_ssize_t j = 0; result == 0 && j < PySequence_Fast_GET_SIZE(collection); j++) {
                result = search_item(self, PySequence_Fast_GET_ITEM(collection, j));
            }
        }
    }
    return result;
}

static PyObject *copy_of(leaving *self, PyObject *value);

/* `made` is a copy that nobody else has yet. */
static int fill_dict(leaving *self, PyObject *made)
{
    Py_ssize_t position = 0;
    PyObject *key;
    PyObject *item;
    while (PyDict_Next(made, &position, &key, &item)) { /* its keys stay as they are */
        PyObject *copy = copy_of(self, item);
        int result = copy == NULL ? -1 : PyDict_SetItem(made, key, copy);
        Py_XDECREF(copy);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

static int fill_list(leaving *self, PyObject *made)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(made); i++) {
        PyObject *copy = copy_of(self, PyList_GET_ITEM(made, i));
        if (copy == NULL || PyList_SetItem(made, i, copy) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A list or dict is known before it is filled, since it may hold itself; a tuple can do so only by
 * way of one. */
static PyObject *copy_collection(leaving *self, PyObject *address, PyObject *value)
{
    bool dict = PyDict_CheckExact(value);
    bool tuple = PyTuple_CheckExact(value);
    PyObject *made = dict ? PyDict_Copy(value) : PySequence_List(value);
    if (made == NULL || (!tuple && PyDict_SetItem(self->known, address, made) < 0) ||
        (dict ? fill_dict(self, made) : fill_list(self, made)) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    if (tuple) {
        Py_SETREF(made, PyList_AsTuple(made));
        if (made != NULL && PyDict_SetItem(self->known, address, made) < 0) {
            Py_CLEAR(made);
        }
    }
    return made;
}

static PyObject *copy_of(leaving *self, PyObject *value)
{
    if (is_container(self->state, value)) {
        return plain_copy(value);
    }
    if (!is_collection(value)) {
        return Py_NewRef(value);
    }
    PyObject *address = PyLong_FromVoidPtr(value);
    PyObject *made = address == NULL ? NULL : PyDict_GetItemWithError(self->known, address);
    if (made != NULL && made != Py_None) {
        Py_INCREF(made);
    } else if (PyErr_Occurred() || Py_EnterRecursiveCall(" in a handler's answer")) {
        made = NULL;
    } else {
        made = copy_collection(self, address, value);
        Py_LeaveRecursiveCall();
    }
    Py_XDECREF(address);
    return made;
}

PyObject *esc_py_container_plain(esc_py_state *state, PyObject *value)
{
    if (is_container(state, value)) {
        return plain_copy(value);
    }
    if (!is_collection(value)) {
        return Py_NewRef(value);
    }
    leaving self = {state, PyList_New(0), PyDict_New()};
    PyObject *made = NULL;
    if (self.found != NULL && self.known != NULL) {
        int holds = search(&self, value);
        made = holds < 0 ? NULL : holds ? copy_of(&self, value) : Py_NewRef(value);
    }
    Py_XDECREF(self.found);
    Py_XDECREF(self.known);
    return made;
}

static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec, PyTypeObject *plain)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)plain);
}

int esc_py_container_exec(PyObject *module)
{
    esc_py_container_state *section = &esc_py_state_of(module)->container;
    section->list = make_type(module, &list_spec, &PyList_Type);
    section->dict = make_type(module, &dict_spec, &PyDict_Type);
    if (section->list == NULL || section->dict == NULL) {
        return -1;
    }
    for (size_t i = 0; i < ESC_PY_CONTAINER_METHODS; i++) {
        PyTypeObject *plain = i < ESC_PY_DICT_CLEAR ? &PyList_Type : &PyDict_Type;
        section->methods[i] = PyObject_GetAttrString((PyObject *)plain, method_names[i]);
        if (section->methods[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

int esc_py_container_traverse_state(esc_py_container_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->list);
    Py_VISIT(section->dict);
    for (size_t i = 0; i < ESC_PY_CONTAINER_METHODS; i++) {
        Py_VISIT(section->methods[i]);
    }
    return 0;
}

void esc_py_container_clear_state(esc_py_container_state *section)
{
    Py_CLEAR(section->list);
    Py_CLEAR(section->dict);
    for (size_t i = 0; i < ESC_PY_CONTAINER_METHODS; i++) {
        Py_CLEAR(section->methods[i]);
    }
}
