/* python/readmodel_description.c - what Python says of a read model, as the core takes it.
 *
 * Locks: none; the GIL. */
#include "python/readmodel_parts.h"
#include "python/text.h"

static int read_text(PyObject *text, escqrs_slice *slice)
{
    *slice = esc_py_slice_of(text);
    return slice->data == NULL ? -1 : 0;
}

/* The defaults of a class's fields as a packed message. */
static int pack_defaults(PyTypeObject *cls, esc_buffer *out)
{
    esc_py_layout *layout = esc_py_class_layout(cls);
    if (layout == NULL) {
        return -1;
    }
    PyObject **values = PyMem_Calloc(layout->count + 1, sizeof(PyObject *));
    int failed = values == NULL ? -1 : 0;
    if (failed) {
        PyErr_NoMemory();
    }
    for (uint32_t i = 0; !failed && i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (field->label == ESCQRS_ONE &&
            (field->default_value != NULL || field->default_factory != NULL)) {
            values[i] = esc_py_value_initial(layout, i);
            failed = values[i] == NULL ? -1 : 0;
        }
    }
    if (!failed) {
        failed = esc_py_values_pack(layout, values, out);
    }
    for (uint32_t i = 0; values != NULL && i < layout->count; i++) {
        Py_XDECREF(values[i]);
    }
    PyMem_Free(values);
    return failed;
}

/* The event's class, or None for every event. */
static int read_class(esc_py_state *state, esc_py_handler *handler, PyObject *cls,
                      escqrs_projection *spec)
{
    if (cls == Py_None) {
        return 0;
    }
    if (esc_py_class_kind(state, cls) != ESC_PY_EVENT) {
        PyErr_Format(PyExc_TypeError, "a projection is for an event class, not %R", cls);
        return -1;
    }
    handler->cls = Py_NewRef(cls);
    spec->schema = esc_py_message_schema((PyTypeObject *)cls);
    return spec->schema == NULL
               ? -1
               : read_text(esc_py_class_stored_name((PyTypeObject *)cls), &spec->type);
}

/* The tuple lives longer than the description. */
static int read_tags(esc_py_handler *handler, PyObject *tags, escqrs_projection *spec)
{
    size_t count = (size_t)PyTuple_GET_SIZE(tags);
    handler->tags = PyMem_Calloc(count + 1, sizeof(escqrs_slice));
    if (handler->tags == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (read_text(PyTuple_GET_ITEM(tags, (Py_ssize_t)i), &handler->tags[i]) < 0) {
            return -1;
        }
    }
    spec->tags = handler->tags;
    spec->tag_count = count;
    return 0;
}

/* One of (class or None, sql or None, function or None, wants_recorded, name, each, tags). */
static int read_projection(esc_py_state *state, esc_py_handler *handler, PyObject *given,
                           escqrs_projection *spec, esc_buffer *defaults)
{
    PyObject *cls, *sql, *function, *name, *each, *tags;
    int wants_recorded;
    if (!PyArg_ParseTuple(given, "OOOpUUO!", &cls, &sql, &function, &wants_recorded, &name, &each,
                          &PyTuple_Type, &tags)) {
        return -1;
    }
    handler->function = function == Py_None ? NULL : Py_NewRef(function);
    handler->wants_recorded = wants_recorded != 0;
    if (read_class(state, handler, cls, spec) < 0 || read_text(name, &spec->name) < 0 ||
        read_text(each, &spec->each) < 0 || read_tags(handler, tags, spec) < 0) {
        return -1;
    }
    if (handler->function != NULL) {
        spec->apply = esc_py_handler_run;
        spec->context = handler;
        return 0;
    }
    if (read_text(sql, &spec->sql) < 0 ||
        (cls != Py_None && pack_defaults((PyTypeObject *)cls, defaults) < 0)) {
        return -1;
    }
    spec->defaults = esc_buffer_slice(defaults);
    return 0;
}

void esc_py_description_fini(esc_py_description *self)
{
    for (size_t i = 0; self->defaults != NULL && i < self->count; i++) {
        esc_buffer_fini(&self->defaults[i]);
    }
    PyMem_Free(self->defaults);
    PyMem_Free(self->projections);
    Py_XDECREF((PyObject *)self->core);
}

/* (further attempts, delay, longest delay, park), delays in seconds */
static int read_policy(PyObject *given, escqrs_failure_policy *policy)
{
    unsigned attempts;
    double delay, delay_max;
    int park;
    if (!PyArg_ParseTuple(given, "Iddp", &attempts, &delay, &delay_max, &park)) {
        return -1;
    }
    *policy = (escqrs_failure_policy){.retry_count = attempts,
                                      .retry_delay_ns = (int64_t)(delay * 1e9),
                                      .retry_delay_max_ns = (int64_t)(delay_max * 1e9),
                                      .then = park ? ESCQRS_FAILURE_PARK : ESCQRS_FAILURE_STOP};
    return 0;
}

int esc_py_description_init(esc_py_description *self, esc_py_state *state, PyObject *given,
                            escqrs_readmodel_spec *spec)
{
    PyObject *name, *schema, *version, *file, *policy_given, *projections_given, *column;
    int manual, is_inline;
    escqrs_failure_policy policy;
    *self = (esc_py_description){0};
    if (!PyArg_ParseTuple(given, "UUUUppO!O!U", &name, &schema, &version, &file, &manual,
                          &is_inline, &PyTuple_Type, &policy_given, &PyTuple_Type,
                          &projections_given, &column) ||
        read_policy(policy_given, &policy) < 0) {
        return -1;
    }
    self->count = (size_t)PyTuple_GET_SIZE(projections_given);
    self->core = (esc_py_readmodel *)state->readmodel.core->tp_alloc(state->readmodel.core, 0);
    self->projections = PyMem_Calloc(self->count + 1, sizeof(escqrs_projection));
    self->defaults = PyMem_Calloc(self->count + 1, sizeof(esc_buffer));
    esc_py_handler *handlers = PyMem_Calloc(self->count + 1, sizeof(esc_py_handler));
    if (self->core == NULL) {
        PyMem_Free(handlers);
        return -1;
    }
    self->core->handlers = handlers;
    self->core->name = Py_NewRef(name);
    if (self->projections == NULL || self->defaults == NULL || handlers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->core->handler_count = self->count;
    for (size_t i = 0; i < self->count; i++) {
        handlers[i].core = self->core;
        if (read_projection(state, &handlers[i], PyTuple_GET_ITEM(projections_given, (Py_ssize_t)i),
                            &self->projections[i], &self->defaults[i]) < 0) {
            return -1;
        }
    }
    *spec = (escqrs_readmodel_spec){.rebuild_manual = manual != 0,
                                    .projections = self->projections,
                                    .projection_count = self->count,
                                    .on_error = policy,
                                    .is_inline = is_inline != 0};
    return read_text(name, &spec->name) < 0 || read_text(schema, &spec->schema) < 0 ||
                   read_text(version, &spec->version) < 0 || read_text(file, &spec->file) < 0 ||
                   read_text(column, &spec->stream_column) < 0
               ? -1
               : 0;
}
