/* python/definition.c - see definition.h: the tables of a definition, and its Python type.
 *
 * Locks: none; the GIL guards everything but the published array of events, which `decode` reads
 * without it.
 *
 * A definition is read (build) in two steps: first all that runs Python code or may fail, then the
 * exchange, which does neither. A reading within a reading does nothing: the outer one sees to it,
 * or the next command does.
 */
#include "python/adopted.h"
#include "python/definition_parts.h"
#include "python/text.h"

#include <stdatomic.h>
#include <string.h>

escqrs_aggregate *esc_py_definition_core(esc_py_definition *self)
{
    return self->core;
}

PyObject *esc_py_definition_name(esc_py_definition *self)
{
    return self->name;
}

escqrs_status esc_py_failure(escqrs_error *error, escqrs_status status, const char *what)
{
    bool memory = PyErr_ExceptionMatches(PyExc_MemoryError);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *shown = value == NULL ? NULL : PyObject_Str(value);
    const char *utf8 = shown == NULL ? NULL : PyUnicode_AsUTF8(shown);
    char text[512];
    snprintf(text, sizeof text, "%s: %s", type == NULL ? "?" : ((PyTypeObject *)type)->tp_name,
             utf8 == NULL ? "?" : utf8);
    Py_XDECREF(shown);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_Clear();
    return escqrs_error_set(error, memory ? ESCQRS_NO_MEMORY : status, "%s: %s", what, text);
}

/* ---- classes of one name -------------------------------------------------------------------------- */

int esc_py_same_class(esc_py_definition *self, PyTypeObject *one, PyTypeObject *other)
{
    PyObject *first = esc_py_newest(self->state, (PyObject *)one);
    PyObject *second = first == NULL ? NULL : esc_py_newest(self->state, (PyObject *)other);
    int same = second == NULL ? -1 : first == second;
    Py_XDECREF(first);
    Py_XDECREF(second);
    return same;
}

/* "shop.Cart": module and qualified name. */
static PyObject *full_name(PyTypeObject *cls)
{
    PyObject *module = PyObject_GetAttrString((PyObject *)cls, "__module__");
    PyObject *name = module == NULL ? NULL : PyType_GetQualName(cls);
    PyObject *full = name == NULL ? NULL : PyUnicode_FromFormat("%S.%U", module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return full;
}

void esc_py_raise_clash(esc_py_state *state, const char *what, PyObject *stored_name,
                        PyTypeObject *one, PyTypeObject *other)
{
    PyObject *first = full_name(one);
    PyObject *second = first == NULL ? NULL : full_name(other);
    if (second != NULL) {
        PyErr_Format(esc_py_error_class(state, ESCQRS_NAME_CLASH),
                     "two %s are named %R: %U and %U; give one of them another name: "
                     "class %s(..., name=\"...\")",
                     what, stored_name, first, second, other->tp_name);
    }
    Py_XDECREF(first);
    Py_XDECREF(second);
}

/* ---- entries -------------------------------------------------------------------------------------- */

esc_py_entry *esc_py_entry_of_class(const esc_py_definition *self, PyTypeObject *cls)
{
    for (size_t i = 0; i < self->applied_count; i++) {
        if (self->applied[i]->cls == cls) {
            return self->applied[i];
        }
    }
    return NULL;
}

esc_py_entry *esc_py_entry_of_name(const esc_py_definition *self, escqrs_slice name)
{
    for (size_t i = 0; i < self->applied_count; i++) {
        if (escqrs_slice_equal(esc_py_slice_of(self->applied[i]->name), name)) {
            return self->applied[i];
        }
    }
    return NULL;
}

/* Runs Python code where the class's annotations were not read yet. */
static esc_py_entry *entry_new(esc_py_definition *self, PyObject *cls, PyObject *applier)
{
    if (esc_py_class_kind(self->state, cls) != ESC_PY_EVENT) {
        PyErr_Format(PyExc_TypeError, "@es.applies is for an event class, not %R", cls);
        return NULL;
    }
    const escqrs_schema *schema = esc_py_message_schema((PyTypeObject *)cls);
    if (schema == NULL) {
        return NULL;
    }
    esc_py_entry *entry = escqrs_alloc_zero(sizeof *entry);
    if (entry == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    entry->cls = (PyTypeObject *)Py_NewRef(cls);
    entry->applier = Py_NewRef(applier);
    entry->name = Py_NewRef(esc_py_class_stored_name((PyTypeObject *)cls));
    entry->schema = schema;
    entry->older = self->entries;
    self->entries = entry;
    return entry;
}

/* Retire the published array for one with `count` places, so that types are looked up again. */
static int publish(esc_py_definition *self, size_t count, const esc_py_events *from)
{
    esc_py_events *array = escqrs_alloc_zero(sizeof *array + count * sizeof array->by_type[0]);
    if (array == NULL) {
        return -1;
    }
    array->count = count;
    /* relaxed: the GIL orders writers */
    array->older = atomic_load_explicit(&self->events, memory_order_relaxed);
    if (from != NULL) {
        memcpy(array->by_type, from->by_type, from->count * sizeof array->by_type[0]);
    }
    /* release: pairs with the acquire in esc_py_entry_published */
    atomic_store_explicit(&self->events, array, memory_order_release);
    return 0;
}

esc_py_entry *esc_py_entry_published(const esc_py_definition *self, const escqrs_type *type)
{
    /* acquire: pairs with the release in publish */
    esc_py_events *array = atomic_load_explicit(&self->events, memory_order_acquire);
    size_t id = (size_t)escqrs_type_id(type);
    if (array == NULL || id >= array->count) {
        return NULL;
    }
    return __atomic_load_n(&array->by_type[id], __ATOMIC_ACQUIRE); /* with esc_py_entry_publish */
}

int esc_py_entry_publish(esc_py_definition *self, const escqrs_type *type, esc_py_entry *entry)
{
    /* relaxed: writers hold the GIL */
    esc_py_events *array = atomic_load_explicit(&self->events, memory_order_relaxed);
    size_t id = (size_t)escqrs_type_id(type);
    if (array == NULL || id >= array->count) {
        if (publish(self, id + 16, array) < 0) {
            return -1;
        }
        array = atomic_load_explicit(&self->events, memory_order_relaxed);
    }
    /* release: a reader (esc_py_entry_published) sees NULL or the entry, complete */
    __atomic_store_n(&array->by_type[id], entry, __ATOMIC_RELEASE);
    return 0;
}

esc_py_entry *esc_py_entry_replace(esc_py_definition *self, esc_py_entry *old, PyTypeObject *cls)
{
    esc_py_entry *made = self->entries;
    while (made != NULL && (made->cls != cls || made->applier != old->applier)) {
        made = made->older;
    }
    if (made == NULL && (made = entry_new(self, (PyObject *)cls, old->applier)) == NULL) {
        return NULL;
    }
    /* From here on no Python code: what was true above may not be by now. */
    esc_py_entry *in_force = esc_py_entry_of_class(self, cls);
    if (in_force != NULL) {
        return in_force;
    }
    for (size_t i = 0; i < self->applied_count; i++) {
        if (self->applied[i] == old) {
            if (publish(self, 0, NULL) < 0) {
                PyErr_NoMemory();
                return NULL;
            }
            self->applied[i] = made;
            return made;
        }
    }
    PyErr_Format(PyExc_TypeError,
                 "%U was defined anew while it emitted %s, and has no @es.applies method for it "
                 "any more",
                 self->name, cls->tp_name);
    return NULL;
}

/* ---- reading the class ------------------------------------------------------------------------------ */

/* What a class says, read and not yet in force. */
typedef struct reading {
    PyObject *cls;         /* borrowed */
    PyObject *description; /* strong; the next five borrow from it */
    PyObject *name;
    PyObject *layout;
    PyObject *fingerprint;
    PyObject *handlers;
    PyObject *appliers; /* list of (event class, function) */
    escqrs_snapshot_policy snapshots;
    PyObject *titles;       /* strong */
    esc_py_entry **applied; /* owned */
    size_t applied_count;
    bool changed; /* replay does something else than before */
} reading;

static PyObject *titles_of(const esc_py_layout *layout)
{
    PyObject *titles = PyTuple_New(layout->count);
    for (uint32_t i = 0; titles != NULL && i < layout->count; i++) {
        PyObject *title = PyUnicode_FromFormat("%U.%U", layout->title, layout->fields[i].name);
        if (title == NULL) {
            Py_CLEAR(titles);
        } else {
            PyTuple_SET_ITEM(titles, i, title);
        }
    }
    return titles;
}

/* Enter an event class as the one that serves its stored name in this system. */
static int claim_event(esc_py_definition *self, PyTypeObject *cls)
{
    PyObject *name = esc_py_class_stored_name(cls);
    PyTypeObject *before = esc_py_system_event_class(self->system, name);
    if (before == NULL && PyErr_Occurred()) {
        return -1;
    }
    int same = before == NULL ? 1 : esc_py_same_class(self, before, cls);
    if (same == 0) {
        esc_py_raise_clash(self->state, "events", name, before, cls);
    }
    return same <= 0 ? -1 : PyDict_SetItem(self->system->events, name, (PyObject *)cls);
}

/* An unchanged pair of class and function keeps its entry. */
static int read_appliers(esc_py_definition *self, reading *out)
{
    out->applied_count = (size_t)PyList_GET_SIZE(out->appliers);
    out->applied = escqrs_alloc_array(out->applied_count + 1, sizeof(esc_py_entry *));
    if (out->applied == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    out->changed = out->applied_count != self->applied_count;
    for (size_t i = 0; i < out->applied_count; i++) {
        PyObject *pair = PyList_GET_ITEM(out->appliers, (Py_ssize_t)i);
        PyTypeObject *cls = (PyTypeObject *)PyTuple_GET_ITEM(pair, 0);
        PyObject *function = PyTuple_GET_ITEM(pair, 1);
        esc_py_entry *entry = esc_py_entry_of_class(self, cls);
        if (entry == NULL || entry->applier != function) {
            out->changed = true;
            entry = entry_new(self, (PyObject *)cls, function);
        }
        if (entry == NULL || claim_event(self, cls) < 0) {
            return -1;
        }
        out->applied[i] = entry;
    }
    return 0;
}

/* All that may fail or runs Python code; TypeError where the class cannot be accepted. */
static int read_class(esc_py_definition *self, reading *out)
{
    long long every, replay_ns, keep;
    int on_passivation;
    out->description = PyObject_CallOneArg(self->state->definition.describe, out->cls);
    if (out->description == NULL ||
        !PyArg_ParseTuple(out->description, "UOUO!O!(LLLp)", &out->name, &out->layout,
                          &out->fingerprint, &PyDict_Type, &out->handlers, &PyList_Type,
                          &out->appliers, &every, &replay_ns, &keep, &on_passivation)) {
        return -1;
    }
    out->snapshots = (escqrs_snapshot_policy){every, replay_ns, keep, on_passivation != 0};
    esc_py_layout *layout = esc_py_layout_cast(self->state, out->layout);
    if (layout == NULL) {
        return -1;
    }
    if (self->core != NULL) { /* SchemaMismatch: what was in force stays so */
        PyObject *checked = PyObject_CallFunctionObjArgs(
            self->state->definition.check, (PyObject *)self->system, out->appliers, NULL);
        if (checked == NULL) {
            return -1;
        }
        Py_DECREF(checked);
    }
    /* Containers of live states know their field by its title. */
    out->titles = layout == self->layout ? Py_NewRef(self->titles) : titles_of(layout);
    if (out->titles == NULL || read_appliers(self, out) < 0) {
        return -1;
    }
    if (publish(self, 0, NULL) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Put it in force; what was before is left in `from`. */
static void exchange(esc_py_definition *self, reading *from)
{
    if (from->changed || self->cls != from->cls) {
        self->generation++;
    }
    reading old = {
        .cls = self->cls,
        .name = self->name,
        .layout = (PyObject *)self->layout,
        .fingerprint = self->fingerprint,
        .handlers = self->handlers,
        .titles = self->titles,
        .applied = self->applied,
    };
    self->cls = Py_NewRef(from->cls);
    self->name = Py_NewRef(from->name);
    self->layout = (esc_py_layout *)Py_NewRef(from->layout);
    self->fingerprint = Py_NewRef(from->fingerprint);
    self->handlers = Py_NewRef(from->handlers);
    self->titles = Py_NewRef(from->titles);
    self->applied = from->applied;
    self->applied_count = from->applied_count;
    self->state_type = NULL;
    from->applied = old.applied;
    if (self->core != NULL) {
        escqrs_aggregate_set_snapshots(self->core, &from->snapshots);
    }
    Py_XDECREF(old.cls); /* may run Python code, when all is in its place */
    Py_XDECREF(old.name);
    Py_XDECREF(old.layout);
    Py_XDECREF(old.fingerprint);
    Py_XDECREF(old.handlers);
    Py_XDECREF(old.titles);
}

static int build(esc_py_definition *self, PyObject *cls)
{
    reading made = {.cls = cls};
    self->building = true;
    int result = read_class(self, &made);
    if (result == 0) {
        exchange(self, &made);
    }
    self->building = false;
    if (result == 0 && self->core == NULL) {
        escqrs_error error = {0};
        escqrs_status status = escqrs_aggregate_add(
            self->system->system, esc_py_slice_of(self->name), &esc_py_aggregate_ops, self,
            self->system->host, &made.snapshots, &self->core, &error);
        if (status != ESCQRS_OK) {
            esc_py_raise(self->state, &error);
            result = -1;
        }
    }
    escqrs_free(made.applied);
    Py_XDECREF(made.titles);
    Py_XDECREF(made.description);
    return result;
}

/* Where the store has learned to read events otherwise, types are looked up again and states are
 * made anew. */
static int learn(esc_py_definition *self)
{
    uint64_t learned = self->system->keeper->backing->learned;
    if (learned == self->learned) {
        return 0;
    }
    if (publish(self, 0, NULL) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    self->learned = learned;
    self->state_type = NULL;
    self->generation++;
    return 0;
}

int esc_py_definition_refresh(esc_py_definition *self)
{
    uint64_t now = esc_py_definition_generation(self->state);
    if (self->building) {
        return 0;
    }
    if (now == self->seen) {
        return learn(self);
    }
    PyObject *cls = esc_py_newest(self->state, self->cls);
    if (cls == NULL) {
        return -1;
    }
    int result = build(self, cls);
    Py_DECREF(cls);
    if (result == 0) {
        self->seen = now;
        result = learn(self);
    }
    return result;
}

/* Attached: also a command that was sent before the class was defined anew is handled by the new
 * one. */
static uint64_t definition_generation(void *context)
{
    esc_py_definition *self = context;
    if (esc_py_definition_refresh(self) < 0) {
        PyErr_Clear(); /* the next command that is sent raises it */
    }
    return self->generation;
}

/* ---- commands ---------------------------------------------------------------------------------------- */

PyObject *esc_py_handler_of(esc_py_definition *self, PyTypeObject *cls)
{
    PyObject *entry = PyDict_GetItemWithError(self->handlers, (PyObject *)cls);
    if (entry != NULL || PyErr_Occurred()) {
        return Py_XNewRef(entry);
    }
    PyObject *newest = esc_py_newest(self->state, (PyObject *)cls);
    if (newest == NULL) {
        return NULL;
    }
    entry = Py_XNewRef(PyDict_GetItemWithError(self->handlers, newest));
    Py_DECREF(newest);
    return entry;
}

/* No handler takes commands of that class: say what is wrong. */
static void refuse_command(esc_py_definition *self, PyTypeObject *cls)
{
    PyObject *name = esc_py_class_stored_name(cls);
    Py_ssize_t position = 0;
    PyObject *handled;
    PyObject *entry;
    while (PyDict_Next(self->handlers, &position, &handled, &entry)) {
        if (PyUnicode_Compare(esc_py_class_stored_name((PyTypeObject *)handled), name) == 0) {
            esc_py_raise_clash(self->state, "commands", name, (PyTypeObject *)handled, cls);
            return;
        }
    }
    PyErr_Format(PyExc_TypeError, "%U has no @es.handles method for %s", self->name, cls->tp_name);
}

int esc_py_definition_accepts(esc_py_definition *self, PyObject *command)
{
    if (esc_py_definition_refresh(self) < 0) {
        return -1;
    }
    PyTypeObject *cls = esc_py_class_for(self->state, command, ESC_PY_COMMAND);
    if (cls == NULL) {
        if (!PyErr_Occurred() && PyType_Check(command)) {
            const char *name = ((PyTypeObject *)command)->tp_name;
            PyErr_Format(PyExc_TypeError,
                         "%U takes commands (instances of es.Command), and %s is a "
                         "class: make an instance, %s(...)",
                         self->name, name, name);
        } else if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "%U takes commands (instances of es.Command), not %s",
                         self->name, Py_TYPE(command)->tp_name);
        }
        return -1;
    }
    PyObject *handler = esc_py_handler_of(self, cls);
    if (handler == NULL && !PyErr_Occurred()) {
        refuse_command(self, cls);
    }
    Py_XDECREF(handler);
    return handler == NULL ? -1 : 0;
}

/* ---- states ------------------------------------------------------------------------------------------ */

static escqrs_status definition_create(void *context, escqrs_entity *entity, void **state,
                                       escqrs_error *error)
{
    *state = esc_py_instance_initial(context, entity, false);
    return *state != NULL
               ? ESCQRS_OK
               : esc_py_failure(error, ESCQRS_REPLAY, "the initial state cannot be made");
}

static void definition_destroy(void *context, void *state)
{
    (void)context;
    esc_py_instance_cut_off(state);
    Py_DECREF((PyObject *)state);
}

escqrs_status esc_py_definition_visit(escqrs_command *command, escqrs_entity *entity, void *state,
                                      int64_t version, escqrs_error *error)
{
    (void)entity;
    esc_py_reply *reply = esc_py_reply_of(command);
    if (command->snapshot) {
        reply->value = PyLong_FromLongLong(version);
        return reply->value != NULL ? ESCQRS_OK
                                    : esc_py_failure(error, ESCQRS_NO_MEMORY, "no memory");
    }
    esc_py_instance *copy = esc_py_instance_copy(state);
    if (copy == NULL) {
        return esc_py_failure(error, ESCQRS_INVALID, "the state cannot be copied");
    }
    copy->version = version;
    reply->value = (PyObject *)copy;
    return ESCQRS_OK;
}

const escqrs_aggregate_ops esc_py_aggregate_ops = {
    .create = definition_create,
    .destroy = definition_destroy,
    .decode = esc_py_replay_decode,
    .discard = esc_py_replay_discard,
    .apply = esc_py_replay_apply,
    .handle = esc_py_dispatch_handle,
    .pack = esc_py_snapshot_pack,
    .unpack = esc_py_snapshot_unpack,
    .generation = definition_generation,
};

/* ---- Definition, the Python type ---------------------------------------------------------------------- */

static PyObject *definition_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)kwargs;
    PyObject *system_object;
    PyObject *cls;
    if (!PyArg_ParseTuple(args, "OO!", &system_object, &PyType_Type, &cls)) {
        return NULL;
    }
    esc_py_system *system = esc_py_system_cast(system_object);
    if (system == NULL) {
        return NULL;
    }
    esc_py_definition *self = (esc_py_definition *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = system->state;
    self->system = system;
    self->seen = esc_py_definition_generation(self->state);
    if (build(self, cls) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int definition_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_definition *self = (esc_py_definition *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->cls);
    Py_VISIT(self->handlers);
    Py_VISIT((PyObject *)self->layout);
    for (esc_py_entry *entry = self->entries; entry != NULL; entry = entry->older) {
        Py_VISIT((PyObject *)entry->cls);
        Py_VISIT(entry->applier);
    }
    return 0;
}

/* No tp_clear: core threads may use it until the system is gone; cycles through it end at the
 * system. */
static void definition_dealloc(PyObject *object)
{
    esc_py_definition *self = (esc_py_definition *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->cls);
    Py_XDECREF(self->name);
    Py_XDECREF(self->handlers);
    Py_XDECREF((PyObject *)self->layout);
    Py_XDECREF(self->titles);
    Py_XDECREF(self->fingerprint);
    while (self->entries != NULL) {
        esc_py_entry *entry = self->entries;
        self->entries = entry->older;
        Py_DECREF((PyObject *)entry->cls);
        Py_DECREF(entry->applier);
        Py_DECREF(entry->name);
        escqrs_free(entry);
    }
    /* relaxed: nobody else has it any more */
    esc_py_events *array = atomic_load_explicit(&self->events, memory_order_relaxed);
    while (array != NULL) {
        esc_py_events *older = array->older;
        escqrs_free(array);
        array = older;
    }
    escqrs_free(self->applied);
    esc_buffer_fini(&self->scratch);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *definition_get_name(PyObject *object, void *closure)
{
    (void)closure;
    return Py_NewRef(((esc_py_definition *)object)->name);
}

static PyObject *definition_get_class(PyObject *object, void *closure)
{
    (void)closure;
    return Py_NewRef(((esc_py_definition *)object)->cls);
}

static PyGetSetDef definition_getset[] = {
    {"name", definition_get_name, NULL, "The aggregate's name in the store.", NULL},
    {"cls", definition_get_class, NULL, "Its newest class.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot definition_slots[] = {
    {Py_tp_doc, "What a system knows of one aggregate class."},
    {Py_tp_new, definition_new},
    {Py_tp_dealloc, definition_dealloc},
    {Py_tp_traverse, definition_traverse},
    {Py_tp_getset, definition_getset},
    {0, NULL},
};

static PyType_Spec definition_spec = {
    .name = "escqrs._core.Definition",
    .basicsize = sizeof(esc_py_definition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = definition_slots,
};

int esc_py_definition_exec(PyObject *module)
{
    esc_py_definition_state *section = &esc_py_state_of(module)->definition;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &definition_spec, NULL);
    if (section->type == NULL || PyModule_AddType(module, section->type) < 0) {
        return -1;
    }
    return esc_py_instance_exec(module);
}

int esc_py_definition_traverse_state(esc_py_definition_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->instance);
    Py_VISIT(section->describe);
    Py_VISIT(section->encode_reply);
    Py_VISIT(section->check);
    return 0;
}

void esc_py_definition_clear_state(esc_py_definition_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->instance);
    Py_CLEAR(section->describe);
    Py_CLEAR(section->encode_reply);
    Py_CLEAR(section->check);
}
