/* python/instance.c - instances of aggregate classes: the live state of an entity, and frozen
 * copies.
 *
 * Locks: none; the GIL guards everything.
 *
 * What an instance allows depends on what its thread is at: its fields may change inside one of its
 * appliers (`applying_now`), it may emit inside one of its handlers (the turn, see dispatch.c), and
 * otherwise it is frozen. So other threads that hold it find it frozen at all times.
 *
 * A list or dict that an applier assigns is the applier's own as long as it runs; when it returns,
 * the field gets a container of the state with a checked copy (settle). Aliases that are left
 * elsewhere are then no part of the state, and no two fields share one container.
 */
#include "python/definition_parts.h"

/* An applier that runs on this thread; on its stack. */
typedef struct applying {
    const esc_py_instance *instance;
    bool assigned; /* a list or dict to a field */
} applying;

static _Thread_local applying *applying_now;

bool esc_py_is_applying(void)
{
    return applying_now != NULL;
}

bool esc_py_instance_is_applying(const esc_py_instance *self)
{
    return applying_now != NULL && applying_now->instance == self;
}

void *esc_py_applying_suspend(void)
{
    applying *suspended = applying_now;
    applying_now = NULL;
    return suspended;
}

void esc_py_applying_resume(void *suspended)
{
    applying_now = suspended;
}

/* ---- fields --------------------------------------------------------------------------------------- */

/* A tuple or a frozenset is a value like any other. */
static bool is_container_field(const esc_py_field *field)
{
    return (field->label == ESCQRS_LIST && field->collection == ESC_PY_LIST) ||
           field->label == ESCQRS_MAP;
}

PyObject *esc_py_instance_get(esc_py_instance *self, const esc_py_field *field)
{
    PyObject *value = PyObject_GenericGetAttr((PyObject *)self, field->name);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

static int set_field(esc_py_instance *self, const esc_py_definition *definition, uint32_t index,
                     PyObject *stored)
{
    const esc_py_field *field = &definition->layout->fields[index];
    if (!is_container_field(field)) {
        return PyObject_GenericSetAttr((PyObject *)self, field->name, stored);
    }
    PyObject *container = esc_py_container_new(definition->state, self,
                                               PyTuple_GET_ITEM(definition->titles, index), stored);
    int result =
        container == NULL ? -1 : PyObject_GenericSetAttr((PyObject *)self, field->name, container);
    Py_XDECREF(container);
    return result;
}

int esc_py_instance_set(esc_py_instance *self, uint32_t index, PyObject *stored)
{
    return set_field(self, self->definition, index, stored);
}

/* Give the fields that hold lists and dicts of the applier's containers of their own. */
static int settle(esc_py_instance *self)
{
    esc_py_definition *definition = self->definition;
    esc_py_layout *layout = (esc_py_layout *)Py_NewRef((PyObject *)definition->layout);
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < layout->count && layout == definition->layout; i++) {
        if (!is_container_field(&layout->fields[i])) {
            continue;
        }
        PyObject *value = esc_py_instance_get(self, &layout->fields[i]);
        if (value == NULL || esc_py_container_is_of(definition->state, value, self,
                                                    PyTuple_GET_ITEM(definition->titles, i))) {
            Py_XDECREF(value);
            continue;
        }
        PyObject *stored = esc_py_value_check(layout, i, value);
        /* A check that ran Python code may have changed the class: then all is loaded anew. */
        if (stored == NULL ||
            (layout == definition->layout && set_field(self, definition, i, stored) < 0)) {
            result = -1;
        }
        Py_XDECREF(stored);
        Py_DECREF(value);
    }
    Py_DECREF((PyObject *)layout);
    return result;
}

void esc_py_coroutine_close(PyObject *coroutine)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *closed = PyObject_CallMethod(coroutine, "close", NULL);
    if (closed == NULL) {
        PyErr_WriteUnraisable(coroutine);
    }
    Py_XDECREF(closed);
    PyErr_Restore(type, value, traceback);
}

/* An async or generator function behind a decorator has not run at all. */
static int refuse_coroutine(esc_py_instance *self, PyObject *event, PyObject *result)
{
    if (!PyCoro_CheckExact(result) && !PyGen_CheckExact(result)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "the @es.applies method of %s for %s is async or a generator behind its "
                 "decorator; it has to be a plain method",
                 Py_TYPE(self)->tp_name, Py_TYPE(event)->tp_name);
    esc_py_coroutine_close(result);
    return -1;
}

int esc_py_instance_apply(esc_py_instance *self, PyObject *applier, PyObject *event)
{
    PyObject *arguments[] = {(PyObject *)self, event};
    applying here = {.instance = self};
    applying *outer = applying_now;
    applying_now = &here;
    PyObject *result = PyObject_Vectorcall(applier, arguments, 2, NULL);
    applying_now = outer;
    if (result == NULL || (result != Py_None && refuse_coroutine(self, event, result) < 0)) {
        Py_XDECREF(result);
        return -1;
    }
    Py_DECREF(result);
    return here.assigned ? settle(self) : 0;
}

static int refuse_assignment(esc_py_instance *self, PyObject *name, bool known)
{
    const char *cls = Py_TYPE(self)->tp_name;
    if (!known && self->definition != NULL) {
        PyErr_Format(PyExc_AttributeError,
                     "%s has no field %R; annotate it in the class, and assign it in an "
                     "@es.applies method",
                     cls, name);
    } else {
        PyErr_Format(PyExc_AttributeError,
                     "%s.%U can be assigned in an @es.applies method only: %s", cls, name,
                     self->copy ? "this is a read-only copy of a state"
                                : "emit an event, and change the state where it is applied");
    }
    return -1;
}

static int assign_container(esc_py_instance *self, uint32_t index, PyObject *value)
{
    const esc_py_definition *definition = self->definition;
    const esc_py_field *field = &definition->layout->fields[index];
    PyTypeObject *wanted = field->label == ESCQRS_LIST ? &PyList_Type : &PyDict_Type;
    if (!PyObject_TypeCheck(value, wanted)) {
        PyErr_Format(PyExc_TypeError, "%s.%U is a %s, not %s", Py_TYPE(self)->tp_name, field->name,
                     wanted->tp_name, Py_TYPE(value)->tp_name);
        return -1;
    }
    if (!esc_py_container_is_of(definition->state, value, self,
                                PyTuple_GET_ITEM(definition->titles, index))) {
        applying_now->assigned = true;
    }
    return PyObject_GenericSetAttr((PyObject *)self, field->name, value);
}

static int instance_setattro(PyObject *object, PyObject *name, PyObject *value)
{
    esc_py_instance *self = (esc_py_instance *)object;
    esc_py_definition *definition = self->definition;
    Py_ssize_t index = definition == NULL ? -1 : esc_py_layout_find(definition->layout, name);
    if (definition == NULL || !esc_py_instance_is_applying(self)) {
        return refuse_assignment(self, name, index >= 0);
    }
    if (index < 0) {
        PyErr_Format(PyExc_AttributeError,
                     "%s has no field %R; annotate it in the class: what is not declared is "
                     "not in snapshots",
                     Py_TYPE(object)->tp_name, name);
        return -1;
    }
    if (value == NULL) {
        return PyObject_GenericSetAttr(object, name, NULL);
    }
    if (is_container_field(&definition->layout->fields[index])) {
        return assign_container(self, (uint32_t)index, value);
    }
    PyObject *checked = esc_py_value_check(definition->layout, (uint32_t)index, value);
    int result = checked == NULL ? -1 : PyObject_GenericSetAttr(object, name, checked);
    Py_XDECREF(checked);
    return result;
}

/* ---- life ------------------------------------------------------------------------------------------- */

/* Whether `of` is the id as a str. */
static bool has_id(const esc_py_instance *self)
{
    return self->copy || self->definition == NULL;
}

static PyObject *id_of(const esc_py_instance *self)
{
    if (has_id(self)) {
        return Py_XNewRef(self->of.id);
    }
    escqrs_slice id = escqrs_entity_id(self->of.entity);
    return PyUnicode_DecodeUTF8(id.data, (Py_ssize_t)id.size, NULL);
}

/* object.__new__ rather than tp_alloc: it makes room for the fields beside the object (CPython 3.11
 * and 3.12), which otherwise are in a dict of their own, 300 bytes more. */
static esc_py_instance *allocate(const esc_py_definition *definition)
{
    PyObject *args = PyTuple_New(0);
    PyObject *made =
        args == NULL ? NULL : PyBaseObject_Type.tp_new((PyTypeObject *)definition->cls, args, NULL);
    Py_XDECREF(args);
    return (esc_py_instance *)made;
}

static esc_py_instance *make_live(esc_py_definition *definition, escqrs_entity *entity)
{
    esc_py_instance *self = allocate(definition);
    if (self != NULL) {
        self->definition = definition;
        self->of.entity = entity;
    }
    return self;
}

static esc_py_instance *make_copy(esc_py_definition *definition, PyObject *id)
{
    esc_py_instance *self = id == NULL ? NULL : allocate(definition);
    if (self != NULL) {
        self->copy = 1;
        self->of.id = Py_NewRef(id);
        self->definition = (esc_py_definition *)Py_NewRef((PyObject *)definition);
        Py_INCREF((PyObject *)definition->system);
    }
    return self;
}

esc_py_instance *esc_py_instance_initial(esc_py_definition *definition, escqrs_entity *entity,
                                         bool copy)
{
    esc_py_instance *self = NULL;
    if (copy) {
        escqrs_slice slice = escqrs_entity_id(entity);
        PyObject *id = PyUnicode_DecodeUTF8(slice.data, (Py_ssize_t)slice.size, NULL);
        self = make_copy(definition, id);
        Py_XDECREF(id);
    } else {
        self = make_live(definition, entity);
    }
    esc_py_layout *layout = (esc_py_layout *)Py_NewRef((PyObject *)definition->layout);
    for (uint32_t i = 0; self != NULL && i < layout->count; i++) {
        PyObject *value = esc_py_value_initial(layout, i); /* may call a default_factory */
        if (value == NULL && !PyErr_Occurred()) {
            continue;
        }
        if (value != NULL && layout != definition->layout) {
            PyErr_Format(PyExc_TypeError, "%U was defined anew by one of its own defaults",
                         definition->name);
            Py_CLEAR(value);
        }
        if (value == NULL || set_field(self, definition, i, value) < 0) {
            esc_py_instance_cut_off(self);
            Py_CLEAR(self);
        }
        Py_XDECREF(value);
    }
    Py_DECREF((PyObject *)layout);
    return self;
}

esc_py_instance *esc_py_instance_copy(esc_py_instance *live)
{
    esc_py_definition *definition = live->definition;
    PyObject *id = id_of(live);
    esc_py_instance *copy = make_copy(definition, id);
    Py_XDECREF(id);
    for (uint32_t i = 0; copy != NULL && i < definition->layout->count; i++) {
        PyObject *value = esc_py_instance_get(live, &definition->layout->fields[i]);
        if (value != NULL && set_field(copy, definition, i, value) < 0) {
            Py_CLEAR(copy);
        }
        Py_XDECREF(value);
    }
    return copy;
}

void esc_py_instance_cut_off(esc_py_instance *self)
{
    if (self->copy || self->definition == NULL) {
        return;
    }
    PyObject *id = NULL;
    if (Py_REFCNT(self) > 1 || Py_TYPE(self)->tp_finalize != NULL) { /* a __del__ may ask for it */
        id = id_of(self);
        if (id == NULL) {
            PyErr_Clear();
        }
    }
    self->definition = NULL;
    self->of.id = id;
}

static int instance_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_instance *self = (esc_py_instance *)object;
    Py_VISIT(Py_TYPE(object));
    if (self->copy && self->definition != NULL) {
        Py_VISIT((PyObject *)self->definition->system);
        Py_VISIT((PyObject *)self->definition);
    }
    return 0;
}

static int instance_clear(PyObject *object)
{
    esc_py_instance *self = (esc_py_instance *)object;
    esc_py_definition *definition = self->definition;
    if (self->copy && definition != NULL) {
        esc_py_system *system = definition->system;
        self->definition = NULL;
        Py_DECREF((PyObject *)definition);
        Py_DECREF((PyObject *)system);
    }
    return 0;
}

static void instance_dealloc(PyObject *object)
{
    esc_py_instance *self = (esc_py_instance *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (has_id(self)) {
        Py_CLEAR(self->of.id);
    }
    (void)instance_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* ---- AggregateBase, the Python type ------------------------------------------------------------------ */

static PyObject *instance_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    PyErr_Format(PyExc_TypeError, "%s is made by its system: shop[%s, id].state", type->tp_name,
                 type->tp_name);
    return NULL;
}

static PyObject *instance_get_id(PyObject *object, void *closure)
{
    (void)closure;
    PyObject *id = id_of((esc_py_instance *)object);
    if (id == NULL && !PyErr_Occurred()) {
        PyErr_NoMemory(); /* when it was cut off */
    }
    return id;
}

static PyObject *instance_get_version(PyObject *object, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(((esc_py_instance *)object)->version);
}

static PyObject *instance_get_system(PyObject *object, void *closure)
{
    (void)closure;
    esc_py_instance *self = (esc_py_instance *)object;
    if (self->definition == NULL) {
        PyErr_Format(PyExc_AttributeError, "this %s is no longer in its system",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return Py_NewRef((PyObject *)self->definition->system);
}

static PyObject *instance_get_fields(PyObject *object, void *closure)
{
    (void)closure;
    esc_py_instance *self = (esc_py_instance *)object;
    const esc_py_layout *layout = self->definition == NULL ? NULL : self->definition->layout;
    PyObject *fields = PyDict_New();
    for (uint32_t i = 0; fields != NULL && layout != NULL && i < layout->count; i++) {
        PyObject *value = esc_py_instance_get(self, &layout->fields[i]);
        if (value != NULL && PyDict_SetItem(fields, layout->fields[i].name, value) < 0) {
            Py_CLEAR(fields);
        }
        Py_XDECREF(value);
    }
    return fields;
}

static PyGetSetDef instance_getset[] = {
    {"id", instance_get_id, NULL, "The entity's id.", NULL},
    {"version", instance_get_version, NULL,
     "Events applied so far, those of this command included.", NULL},
    {"system", instance_get_system, NULL,
     "The system that the entity lives in: self.system[Other, \"x\"].", NULL},
    {"__escqrs_fields__", instance_get_fields, NULL, "The state as a dict of its fields.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef instance_methods[] = {
    {"emit", esc_py_dispatch_emit, METH_O,
     "emit($self, event, /)\n--\n\nApply the event now, store it with the others of this command "
     "when the handler returns, and return it.\n\nRaises TypeError where no @es.applies method "
     "takes it, "
     "es.TooLarge beyond a limit."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot instance_slots[] = {
    {Py_tp_doc, "The part of es.Aggregate that is written in C."},
    {Py_tp_new, instance_new},
    {Py_tp_dealloc, instance_dealloc},
    {Py_tp_traverse, instance_traverse},
    {Py_tp_clear, instance_clear},
    {Py_tp_setattro, instance_setattro},
    {Py_tp_getset, instance_getset},
    {Py_tp_methods, instance_methods},
    {0, NULL},
};

static PyType_Spec instance_spec = {
    .name = "escqrs._core.AggregateBase",
    .basicsize = sizeof(esc_py_instance),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = instance_slots,
};

int esc_py_instance_exec(PyObject *module)
{
    esc_py_definition_state *section = &esc_py_state_of(module)->definition;
    section->instance = (PyTypeObject *)PyType_FromModuleAndSpec(module, &instance_spec, NULL);
    return section->instance == NULL ? -1 : PyModule_AddType(module, section->instance);
}
