/* python/message_type.c - the metaclass of message classes, and the registry.
 *
 * A message class is made in three steps: _message.py prepares the namespace (it reads fields and
 * defaults), type.__new__ makes the class, and then its instances are given one slot a field
 * behind the head of esc_py_message, with no dictionary, no weak references and no garbage
 * collection, also where a base class that is no message would bring them. Its annotations are
 * resolved at once where they can be, else at the first use. No locks; the GIL is held throughout.
 */
#include "python/message_parts.h"

#include <structmember.h>

#if PY_VERSION_HEX >= 0x030D0000
#define DICT_FLAGS (Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF | Py_TPFLAGS_INLINE_VALUES)
#elif PY_VERSION_HEX >= 0x030C0000
#define DICT_FLAGS (Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF)
#else
#define DICT_FLAGS Py_TPFLAGS_MANAGED_DICT
#endif

/* ---- registry --------------------------------------------------------------------------------- */

static PyObject *registry_key(PyObject *cls)
{
    PyObject *module = PyObject_GetAttrString(cls, "__module__");
    PyObject *name = module == NULL ? NULL : PyObject_GetAttrString(cls, "__qualname__");
    PyObject *key = name == NULL ? NULL : PyTuple_Pack(2, module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return key;
}

/* Enter a class (message, aggregate, read model) as the newest of its module and qualified name. */
static int enter_class(esc_py_state *state, PyObject *cls)
{
    PyObject *key = registry_key(cls);
    PyObject *weak = key == NULL ? NULL : PyWeakref_NewRef(cls, NULL);
    int result = weak == NULL ? -1 : PyDict_SetItem(state->message.registry, key, weak);
    Py_XDECREF(key);
    Py_XDECREF(weak);
    if (result == 0) {
        state->message.generation++;
    }
    return result;
}

/* New reference; NULL without an exception where there is none. */
static PyObject *registered(esc_py_state *state, PyObject *key)
{
    PyObject *weak = PyDict_GetItemWithError(state->message.registry, key);
    if (weak == NULL) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *cls = NULL;
    (void)PyWeakref_GetRef(weak, &cls);
    return cls;
#else
    PyObject *cls = PyWeakref_GetObject(weak);
    return cls == Py_None ? NULL : Py_XNewRef(cls);
#endif
}

PyObject *esc_py_newest(esc_py_state *state, PyObject *cls)
{
    PyObject *key = registry_key(cls);
    if (key == NULL) {
        return NULL;
    }
    PyObject *found = registered(state, key);
    Py_DECREF(key);
    if (found == NULL && !PyErr_Occurred()) {
        found = Py_NewRef(cls);
    }
    return found;
}

uint64_t esc_py_definition_generation(esc_py_state *state)
{
    return state->message.generation;
}

bool esc_py_same_name(PyTypeObject *a, PyTypeObject *b)
{
    if (a == b) {
        return true;
    }
    if (strcmp(a->tp_name, b->tp_name) != 0) {
        return false;
    }
    PyObject *key_a = registry_key((PyObject *)a);
    PyObject *key_b = key_a == NULL ? NULL : registry_key((PyObject *)b);
    int same = key_b == NULL ? -1 : PyObject_RichCompareBool(key_a, key_b, Py_EQ);
    Py_XDECREF(key_a);
    Py_XDECREF(key_b);
    if (same < 0) {
        PyErr_Clear();
    }
    return same == 1;
}

/* ---- looking at classes ----------------------------------------------------------------------- */

esc_py_kind esc_py_class_kind(esc_py_state *state, PyObject *object)
{
    PyTypeObject *meta = state->message.meta;
    if (Py_IS_TYPE(object, meta) || PyType_IsSubtype(Py_TYPE(object), meta)) {
        return ((esc_py_message_type *)object)->kind;
    }
    return ESC_PY_NONE;
}

esc_py_kind esc_py_message_kind(esc_py_state *state, PyObject *object)
{
    return esc_py_class_kind(state, (PyObject *)Py_TYPE(object));
}

int esc_py_class_resolve(esc_py_message_type *type)
{
    if (type->layout == NULL) {
        PyErr_Format(PyExc_TypeError, "%s: used before its definition is complete",
                     type->base.ht_type.tp_name);
        return -1;
    }
    return esc_py_layout_ready(type->layout);
}

esc_py_layout *esc_py_class_layout(PyTypeObject *cls)
{
    esc_py_message_type *type = (esc_py_message_type *)cls;
    return esc_py_class_resolve(type) < 0 ? NULL : type->layout;
}

const escqrs_schema *esc_py_message_schema(PyTypeObject *cls)
{
    esc_py_layout *layout = esc_py_class_layout(cls);
    return layout == NULL ? NULL : layout->schema;
}

PyObject *esc_py_class_stored_name(PyTypeObject *cls)
{
    return ((esc_py_message_type *)cls)->stored_name;
}

/* ---- making a class --------------------------------------------------------------------------- */

/* What _prepare of _message.py returns; all but `reply` borrowed from the tuple. */
typedef struct prepared {
    PyObject *namespace;
    PyObject *declared; /* tuple of all fields */
    PyObject *own;      /* tuple of the names of those declared here */
    PyObject *stored_name;
    PyObject *reply; /* or None */
} prepared;

static PyObject *names_of(PyObject *declared)
{
    Py_ssize_t count = PyTuple_GET_SIZE(declared);
    PyObject *names = PyTuple_New(count);
    for (Py_ssize_t i = 0; names != NULL && i < count; i++) {
        PyObject *name = PyObject_GetAttrString(PyTuple_GET_ITEM(declared, i), "name");
        if (name == NULL || !PyUnicode_CheckExact(name)) {
            if (name != NULL) {
                PyErr_SetString(PyExc_TypeError, "a field's name is a str");
            }
            Py_XDECREF(name);
            Py_CLEAR(names);
            break;
        }
        PyUnicode_InternInPlace(&name);
        PyTuple_SET_ITEM(names, i, name);
    }
    return names;
}

static int add_descriptors(esc_py_state *state, const prepared *made, PyObject *names)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int own = PySequence_Contains(made->own, name);
        if (own < 0) {
            return -1;
        }
        if (own == 0) {
            continue;
        }
        PyObject *field = esc_py_field_new(state, name, (uint32_t)i);
        int result = field == NULL ? -1 : PyDict_SetItem(made->namespace, name, field);
        Py_XDECREF(field);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

/* The descriptors of its own fields learn which class they are of. */
static int claim_descriptors(esc_py_state *state, PyTypeObject *cls, const prepared *made)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(made->own); i++) {
        PyObject *field = PyDict_GetItemWithError(cls->tp_dict, PyTuple_GET_ITEM(made->own, i));
        if (field == NULL || !Py_IS_TYPE(field, state->message.field)) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_TypeError, "%s.%U: replaced while the class was made",
                             cls->tp_name, PyTuple_GET_ITEM(made->own, i));
            }
            return -1;
        }
        esc_py_field_claim(field, cls);
    }
    return 0;
}

/* No dictionary, no weak references, no garbage collection; one slot a field. */
static int shape_instances(PyTypeObject *cls, Py_ssize_t count)
{
    if (cls->tp_flags & (unsigned long)DICT_FLAGS || cls->tp_dictoffset != 0) {
        static const char *const names[] = {"__dict__", "__weakref__"};
        for (size_t i = 0; i < 2; i++) {
            PyObject *name = PyUnicode_InternFromString(names[i]);
            if (name == NULL) {
                return -1;
            }
            int has = PyDict_Contains(cls->tp_dict, name);
            if (has < 0 || (has == 1 && PyDict_DelItem(cls->tp_dict, name) < 0)) {
                Py_DECREF(name);
                return -1;
            }
            Py_DECREF(name);
        }
    }
    cls->tp_flags &= ~((unsigned long)DICT_FLAGS | Py_TPFLAGS_HAVE_GC);
    cls->tp_dictoffset = 0;
    cls->tp_weaklistoffset = 0;
    cls->tp_traverse = NULL;
    cls->tp_clear = NULL;
    cls->tp_free = PyObject_Free;
    cls->tp_dealloc = esc_py_message_dealloc;
    cls->tp_basicsize =
        (Py_ssize_t)offsetof(esc_py_message, slots) + count * (Py_ssize_t)sizeof(PyObject *);
    cls->tp_vectorcall = esc_py_message_vectorcall;
    PyType_Modified(cls);
    return 0;
}

static int inherit_kind(esc_py_message_type *type, const prepared *made)
{
    PyTypeObject *cls = &type->base.ht_type;
    esc_py_state *state = type->state;
    PyObject *mro = cls->tp_mro;
    type->kind = ESC_PY_MESSAGE;
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *base = PyTuple_GET_ITEM(mro, i);
        esc_py_kind kind = esc_py_class_kind(state, base);
        if (kind > type->kind) {
            type->kind = kind;
        }
        if (kind == ESC_PY_COMMAND && type->reply == NULL) {
            type->reply = Py_XNewRef(((esc_py_message_type *)base)->reply);
        }
    }
    if (made->reply != Py_None) {
        Py_XSETREF(type->reply, Py_NewRef(made->reply));
    }
    PyObject *post_init = PyObject_GetAttrString((PyObject *)cls, "__post_init__");
    if (post_init == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    type->post_init = post_init;
    return 0;
}

static int complete(esc_py_state *state, esc_py_message_type *type, const prepared *made,
                    PyObject *names)
{
    PyTypeObject *cls = &type->base.ht_type;
    if (!PyType_IsSubtype(cls, state->message.base) ||
        !PyType_IsSubtype(cls->tp_base, state->message.base)) {
        PyErr_Format(PyExc_TypeError,
                     "%s: a class that is no message and has slots cannot be a base of a message",
                     cls->tp_name);
        return -1;
    }
    type->state = state;
    type->field_names = Py_NewRef(names);
    type->field_count = (uint32_t)PyTuple_GET_SIZE(names);
    type->declared = Py_NewRef(made->declared);
    type->stored_name = Py_NewRef(made->stored_name);
    if (shape_instances(cls, PyTuple_GET_SIZE(names)) < 0 ||
        claim_descriptors(state, cls, made) < 0 || inherit_kind(type, made) < 0) {
        return -1;
    }
    PyObject *title = PyType_GetName(cls);
    if (title == NULL) {
        return -1;
    }
    type->layout = esc_py_layout_new(state, title, made->stored_name, (PyObject *)cls);
    Py_DECREF(title);
    if (type->layout == NULL) {
        return -1;
    }
    PyObject *done = PyObject_CallFunction(state->message.resolve, "OO", cls, Py_False);
    if (done == NULL) {
        return -1;
    }
    Py_DECREF(done);
    return enter_class(state, (PyObject *)cls);
}

static PyObject *make_class(PyTypeObject *meta, PyObject *name, PyObject *bases,
                            const prepared *made, PyObject *keywords)
{
    PyObject *args = PyTuple_Pack(3, name, bases, made->namespace);
    if (args == NULL) {
        return NULL;
    }
    PyObject *cls = PyType_Type.tp_new(meta, args, keywords);
    Py_DECREF(args);
    return cls;
}

/* The class keywords that say what the class has been before, taken out of `keywords` (or NULL): a
 * new dict. */
static PyObject *take_history(PyObject *keywords)
{
    static const char *const names[] = {"was", "version", "reserved"};
    PyObject *history = PyDict_New();
    for (size_t i = 0; history != NULL && keywords != NULL && i < sizeof names / sizeof names[0];
         i++) {
        PyObject *value = PyDict_GetItemString(keywords, names[i]);
        if (value != NULL && (PyDict_SetItemString(history, names[i], value) < 0 ||
                              PyDict_DelItemString(keywords, names[i]) < 0)) {
            Py_CLEAR(history);
        }
    }
    return history;
}

static PyObject *meta_new(PyTypeObject *meta, PyObject *args, PyObject *kwargs)
{
    PyObject *name = NULL;
    PyObject *bases = NULL;
    PyObject *namespace = NULL;
    PyObject *keywords = NULL;
    PyObject *history = NULL;
    PyObject *answer = NULL;
    PyObject *names = NULL;
    PyObject *cls = NULL;
    PyObject *module = PyType_GetModuleByDef(meta, &esc_py_module);
    if (module == NULL || !PyArg_ParseTuple(args, "UO!O!:MessageMeta", &name, &PyTuple_Type, &bases,
                                            &PyDict_Type, &namespace)) {
        return NULL;
    }
    esc_py_state *state = esc_py_state_of(module);
    if (state->message.prepare == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "import escqrs, not escqrs._core");
        return NULL;
    }
    PyObject *stored = name;
    PyObject *given = NULL;
    if (kwargs != NULL) {
        keywords = PyDict_Copy(kwargs);
        if (keywords == NULL) {
            return NULL;
        }
        given = PyDict_GetItemString(keywords, "name");
        if (given != NULL) {
            stored = Py_NewRef(given);
            given = stored;
            if (PyDict_DelItemString(keywords, "name") < 0) {
                goto done;
            }
        }
    }
    history = take_history(keywords);
    if (history == NULL) {
        goto done;
    }
    answer = PyObject_CallFunction(state->message.prepare, "OOOOO", name, bases, namespace, stored,
                                   history);
    if (answer == NULL) {
        goto done;
    }
    prepared made;
    if (!PyArg_ParseTuple(answer, "O!O!O!UO", &PyDict_Type, &made.namespace, &PyTuple_Type,
                          &made.declared, &PyTuple_Type, &made.own, &made.stored_name,
                          &made.reply)) {
        goto done;
    }
    names = names_of(made.declared);
    if (names == NULL || add_descriptors(state, &made, names) < 0) {
        goto done;
    }
    cls = make_class(meta, name, bases, &made, keywords);
    if (cls != NULL && complete(state, (esc_py_message_type *)cls, &made, names) < 0) {
        Py_CLEAR(cls);
    }
done:
    Py_XDECREF(given);
    Py_XDECREF(history);
    Py_XDECREF(keywords);
    Py_XDECREF(answer);
    Py_XDECREF(names);
    return cls;
}

static int meta_traverse(PyObject *self, visitproc visit, void *arg)
{
    esc_py_message_type *type = (esc_py_message_type *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(type->layout);
    Py_VISIT(type->declared);
    Py_VISIT(type->post_init);
    Py_VISIT(type->reply);
    Py_VISIT(type->adopted);
    return PyType_Type.tp_traverse(self, visit, arg);
}

static int meta_clear(PyObject *self)
{
    esc_py_message_type *type = (esc_py_message_type *)self;
    if (type->layout != NULL) {
        type->layout->owner = NULL;
    }
    Py_CLEAR(type->layout);
    Py_CLEAR(type->declared);
    Py_CLEAR(type->post_init);
    Py_CLEAR(type->reply);
    Py_CLEAR(type->adopted);
    return PyType_Type.tp_clear(self);
}

static void meta_dealloc(PyObject *self)
{
    esc_py_message_type *type = (esc_py_message_type *)self;
    PyTypeObject *meta = Py_TYPE(self);
    if (type->layout != NULL) {
        type->layout->owner = NULL;
    }
    Py_CLEAR(type->layout);
    Py_CLEAR(type->declared);
    Py_CLEAR(type->post_init);
    Py_CLEAR(type->reply);
    Py_CLEAR(type->adopted);
    Py_CLEAR(type->field_names);
    Py_CLEAR(type->stored_name);
    PyMem_Free(type->known);
    PyType_Type.tp_dealloc(self); /* untracks and frees */
    Py_DECREF(meta);
}

/* ---- what Python sees of a class ---------------------------------------------------------------- */

static PyObject *meta_get_fields(PyObject *self, void *closure)
{
    (void)closure;
    esc_py_message_type *type = (esc_py_message_type *)self;
    return type->field_names == NULL ? PyTuple_New(0) : Py_NewRef(type->field_names);
}

static PyObject *meta_get_name(PyObject *self, void *closure)
{
    (void)closure;
    esc_py_message_type *type = (esc_py_message_type *)self;
    return Py_NewRef(type->stored_name == NULL ? Py_None : type->stored_name);
}

static PyObject *meta_get_kind(PyObject *self, void *closure)
{
    (void)closure;
    static const char *const names[] = {"message", "message", "event", "command"};
    return PyUnicode_FromString(names[((esc_py_message_type *)self)->kind]);
}

static PyObject *meta_get_reply(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *reply = ((esc_py_message_type *)self)->reply;
    return Py_NewRef(reply == NULL ? Py_None : reply);
}

static PyObject *meta_get_abstract(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((esc_py_message_type *)self)->abstract);
}

static PyObject *meta_get_signature(PyObject *self, void *closure)
{
    (void)closure;
    esc_py_message_type *type = (esc_py_message_type *)self;
    if (type->state == NULL) {
        PyErr_SetString(PyExc_AttributeError, "__signature__");
        return NULL;
    }
    return PyObject_CallOneArg(type->state->message.signature, self);
}

static PyGetSetDef meta_getset[] = {
    {"__escqrs_fields__", meta_get_fields, NULL, "names of the fields in order", NULL},
    {"__escqrs_name__", meta_get_name, NULL, "the name in a store", NULL},
    {"__escqrs_kind__", meta_get_kind, NULL, "'message', 'event' or 'command'", NULL},
    {"__escqrs_reply__", meta_get_reply, NULL,
     "the R of Command[R] as written; None for a bare Command", NULL},
    {"__escqrs_abstract__", meta_get_abstract, NULL,
     "True for Message, Event and Command themselves", NULL},
    {"__signature__", meta_get_signature, NULL, "for inspect and help()", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef meta_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(PyTypeObject, tp_vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot meta_slots[] = {
    {Py_tp_doc, "The class of message classes."},
    {Py_tp_new, meta_new},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, meta_traverse},
    {Py_tp_clear, meta_clear},
    {Py_tp_dealloc, meta_dealloc},
    {Py_tp_getset, meta_getset},
    {Py_tp_members, meta_members},
    {0, NULL},
};

static PyType_Spec meta_spec = {
    .name = "escqrs._core.MessageMeta",
    .basicsize = sizeof(esc_py_message_type),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_TYPE_SUBCLASS | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = meta_slots,
};

/* ---- functions for _message.py ------------------------------------------------------------------ */

static PyObject *core_bind(PyObject *module, PyObject *args)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    PyObject *prepare = NULL;
    PyObject *resolve = NULL;
    PyObject *signature = NULL;
    if (!PyArg_ParseTuple(args, "OOO:bind", &prepare, &resolve, &signature)) {
        return NULL;
    }
    Py_XSETREF(section->prepare, Py_NewRef(prepare));
    Py_XSETREF(section->resolve, Py_NewRef(resolve));
    Py_XSETREF(section->signature, Py_NewRef(signature));
    Py_RETURN_NONE;
}

static esc_py_message_type *class_of(PyObject *module, PyObject *object)
{
    if (esc_py_class_kind(esc_py_state_of(module), object) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "expected a message class, got %R", object);
        return NULL;
    }
    return (esc_py_message_type *)object;
}

static PyObject *core_declared(PyObject *module, PyObject *cls)
{
    esc_py_message_type *type = class_of(module, cls);
    return type == NULL ? NULL : Py_NewRef(type->declared);
}

static PyObject *core_layout_of(PyObject *module, PyObject *cls)
{
    esc_py_message_type *type = class_of(module, cls);
    if (type == NULL) {
        return NULL;
    }
    if (type->layout == NULL) {
        PyErr_Format(PyExc_TypeError, "%R: its definition is not complete", cls);
        return NULL;
    }
    return Py_NewRef((PyObject *)type->layout);
}

static PyObject *core_new_layout(PyObject *module, PyObject *args)
{
    PyObject *title = NULL;
    PyObject *name = NULL;
    if (!PyArg_ParseTuple(args, "UU:new_layout", &title, &name)) {
        return NULL;
    }
    return (PyObject *)esc_py_layout_new(esc_py_state_of(module), title, name, NULL);
}

static PyObject *core_seal(PyObject *module, PyObject *args)
{
    PyObject *layout = NULL;
    PyObject *specs = NULL;
    PyObject *was = NULL;
    if (!PyArg_ParseTuple(args, "O!O!|O!:seal", esc_py_state_of(module)->message.layout, &layout,
                          &PyTuple_Type, &specs, &PyTuple_Type, &was) ||
        esc_py_layout_seal((esc_py_layout *)layout, specs, was) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_set_base(PyObject *module, PyObject *args)
{
    PyObject *cls = NULL;
    const char *kind = NULL;
    if (!PyArg_ParseTuple(args, "Os:set_base", &cls, &kind)) {
        return NULL;
    }
    esc_py_message_type *type = class_of(module, cls);
    if (type == NULL) {
        return NULL;
    }
    type->abstract = true;
    type->kind = strcmp(kind, "event") == 0     ? ESC_PY_EVENT
                 : strcmp(kind, "command") == 0 ? ESC_PY_COMMAND
                                                : ESC_PY_MESSAGE;
    Py_RETURN_NONE;
}

static PyObject *core_register(PyObject *module, PyObject *cls)
{
    if (enter_class(esc_py_state_of(module), cls) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_newest(PyObject *module, PyObject *cls)
{
    return esc_py_newest(esc_py_state_of(module), cls);
}

static PyObject *core_find_class(PyObject *module, PyObject *args)
{
    PyObject *place = NULL;
    PyObject *name = NULL;
    if (!PyArg_ParseTuple(args, "UU:find_class", &place, &name)) {
        return NULL;
    }
    PyObject *found = registered(esc_py_state_of(module), args);
    if (found == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return found;
}

static PyObject *core_generation(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(esc_py_definition_generation(esc_py_state_of(module)));
}

static PyMethodDef functions[] = {
    {"bind", core_bind, METH_VARARGS,
     "bind(prepare, resolve, signature): the functions of _message.py."},
    {"declared", core_declared, METH_O, "declared(cls): what _field.py knows of each field."},
    {"layout_of", core_layout_of, METH_O,
     "layout_of(cls): the layout of a message class, as far as it is."},
    {"new_layout", core_new_layout, METH_VARARGS,
     "new_layout(title, name): one without fields, for a state."},
    {"seal", core_seal, METH_VARARGS, "seal(layout, specs): give a layout its fields."},
    {"set_base", core_set_base, METH_VARARGS, "set_base(cls, kind): mark Message, Event, Command."},
    {"register", core_register, METH_O,
     "register(cls): the newest of its module and qualified name."},
    {"newest", core_newest, METH_O,
     "newest(cls): the newest class of its module and qualified name."},
    {"find_class", core_find_class, METH_VARARGS,
     "find_class(module, qualname): the newest registered class of that name, or None."},
    {"generation", core_generation, METH_NOARGS,
     "generation(): how many classes were registered so far."},
    {NULL, NULL, 0, NULL},
};

/* ---- module ----------------------------------------------------------------------------------- */

int esc_py_message_type_exec(PyObject *module)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"INT", ESCQRS_KIND_INT},
        {"FLOAT", ESCQRS_KIND_FLOAT},
        {"BOOL", ESCQRS_KIND_BOOL},
        {"STRING", ESCQRS_KIND_STRING},
        {"BYTES", ESCQRS_KIND_BYTES},
        {"TIME", ESCQRS_KIND_TIME},
        {"ENUM", ESCQRS_KIND_ENUM},
        {"MESSAGE", ESCQRS_KIND_MESSAGE},
        {"INT32", ESCQRS_KIND_INT32},
        {"UINT32", ESCQRS_KIND_UINT32},
        {"UINT64", ESCQRS_KIND_UINT64},
        {"SINT32", ESCQRS_KIND_SINT32},
        {"SINT64", ESCQRS_KIND_SINT64},
        {"DURATION", ESCQRS_KIND_DURATION},
        {"DATE", ESCQRS_KIND_DATE},
        {"CLOCK", ESCQRS_KIND_CLOCK},
        {"LOCAL", ESCQRS_KIND_LOCAL},
        {"DECIMAL", ESCQRS_KIND_DECIMAL},
        {"UUID", ESCQRS_KIND_UUID},
        {"FLOAT32", ESCQRS_KIND_FLOAT32},
        {"FIXED32", ESCQRS_KIND_FIXED32},
        {"FIXED64", ESCQRS_KIND_FIXED64},
        {"SFIXED32", ESCQRS_KIND_SFIXED32},
        {"SFIXED64", ESCQRS_KIND_SFIXED64},
        {"ONE", ESCQRS_ONE},
        {"OPTIONAL", ESCQRS_OPTIONAL},
        {"LIST", ESCQRS_LIST},
        {"MAP", ESCQRS_MAP},
        {"AS_LIST", ESC_PY_LIST},
        {"AS_TUPLE", ESC_PY_TUPLE},
        {"AS_SET", ESC_PY_SET},
        {"AS_FROZENSET", ESC_PY_FROZENSET},
    };
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    section->registry = PyDict_New();
    section->meta =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &meta_spec, (PyObject *)&PyType_Type);
    if (section->registry == NULL || section->meta == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    if (PyModule_AddObjectRef(module, "MessageMeta", (PyObject *)section->meta) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
