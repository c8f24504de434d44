/* python/readmodel.c - see readmodel.h.
 *
 * Threads: the GIL guards every object here. The core is called detached wherever it may wait:
 * adding, waiting, skipping, getting a reading connection. `run_handler` is called by the core on
 * the projector's thread, attached. Life: a core's contexts are the projector's until it is
 * stopped, which the system does before it lets its read models go. */
#include "python/readmodel.h"

#include <sqlite3.h>
#include <string.h>

#include "base/buffer.h"
#include "python/actor.h"
#include "python/comparison.h"
#include "python/recorded.h"
#include "python/rows.h"
#include "python/state.h"
#include "python/text.h"
#include "python/upcast.h"

typedef struct core_object core_object;

/* Of one projection: the context of its function. */
typedef struct handler_context {
    core_object *core;  /* borrowed */
    PyObject *function; /* strong */
    /* the event's class, strong: its schema is the projection's; NULL: every event */
    PyObject *cls;
    escqrs_slice *tags; /* of the description alone */
    bool wants_recorded;
} handler_context;

struct core_object {
    PyObject_HEAD
    /* borrowed; only for the projector's thread, which the system outlives */
    esc_py_system *system;
    PyObject *reference; /* weak, to the system */
    PyObject *instance;  /* of the user's class: `self` of its methods */
    PyObject *failure;   /* of a handler, the last: (position, traceback, exception), or NULL */
    escqrs_readmodel *model;
    PyObject *name;
    handler_context *handlers;
    size_t handler_count;
};

/* A query under way on this thread. Queries that it calls use the same connection and see the same
 * snapshot. */
typedef struct query_frame {
    struct query_frame *outer;
    esc_py_system *system;
    escqrs_readmodel *model; /* whose file it reads; NULL: the store's */
    PyObject *rows;
} query_frame;

static _Thread_local int projections; /* @es.on methods running on this thread */
static _Thread_local query_frame *queries;

bool esc_py_in_projection(void)
{
    return projections > 0;
}

/* ---- entering -------------------------------------------------------------------------------------------- */

/* The system, pinned, a new reference; NULL with Closed or Forked. */
static esc_py_system *core_enter(core_object *self)
{
    PyObject *system = NULL;
#if PY_VERSION_HEX >= 0x030D0000
    if (PyWeakref_GetRef(self->reference, &system) < 0) {
        return NULL;
    }
#else
    system = PyWeakref_GetObject(self->reference); /* borrowed */
    if (system == NULL) {
        return NULL;
    }
    system = system == Py_None ? NULL : Py_NewRef(system);
#endif
    if (system == NULL || self->model == NULL) {
        Py_XDECREF(system);
        esc_py_state *state = esc_py_state_of_type(Py_TYPE((PyObject *)self));
        if (state != NULL) {
            PyErr_Format(esc_py_error_class(state, ESCQRS_CLOSED),
                         "the system of read model %U was closed", self->name);
        }
        return NULL;
    }
    if (esc_py_system_pin((esc_py_system *)system) < 0) {
        Py_DECREF(system);
        return NULL;
    }
    return (esc_py_system *)system;
}

static void core_leave(esc_py_system *system)
{
    esc_py_system_unpin(system);
    Py_DECREF((PyObject *)system);
}

static int refuse_in_projection(esc_py_system *system, const char *what)
{
    if (projections == 0) {
        return 0;
    }
    PyErr_Format(esc_py_error_class(system->state, ESCQRS_DEADLOCK),
                 "%s cannot be called in an @es.on method: it would wait for the very transaction "
                 "that the method is part "
                 "of",
                 what);
    return -1;
}

static int slice_of(PyObject *text, escqrs_slice *slice)
{
    Py_ssize_t size = 0;
    const char *data = PyUnicode_AsUTF8AndSize(text, &size);
    *slice = (escqrs_slice){data, (size_t)size};
    return data == NULL ? -1 : 0;
}

/* ---- handlers: the projector's thread ------------------------------------------------------------------------ */

/* What the handler is called with besides self and db. New reference. */
static PyObject *argument_of(const handler_context *handler, const escqrs_recorded *recorded)
{
    esc_py_system *system = handler->core->system;
    if (handler->wants_recorded) {
        return esc_py_recorded_new(system->keeper, recorded);
    }
    if (handler->cls == NULL) { /* every event: whatever class it has now, or UnknownType */
        PyObject *whole = esc_py_recorded_new(system->keeper, recorded);
        PyObject *event = whole == NULL ? NULL : PyObject_GetAttrString(whole, "event");
        Py_XDECREF(whole);
        return event;
    }
    /* the core gives no event that has to be upcast, or would be misread */
    PyTypeObject *newest =
        esc_py_system_event_class(system, esc_py_class_stored_name((PyTypeObject *)handler->cls));
    return esc_py_message_decode(newest != NULL ? newest : (PyTypeObject *)handler->cls,
                                 recorded->data, NULL);
}

/* The exception becomes the event's failure; it is kept, and its traceback goes to the log. */
static escqrs_status report(core_object *core, const escqrs_recorded *recorded, escqrs_error *error)
{
    PyObject *type, *value, *traceback;
    esc_py_state *state = core->system->state;
    bool full = PyErr_ExceptionMatches(esc_py_error_class(state, ESCQRS_FULL));
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    PyObject *text = PyObject_Str(value);
    const char *name = type == NULL ? "" : ((PyTypeObject *)type)->tp_name;
    const char *shown = text == NULL ? "" : PyUnicode_AsUTF8(text);
    escqrs_status status = escqrs_error_set(error, full ? ESCQRS_FULL : ESCQRS_REJECTED, "%s: %s",
                                            name, shown == NULL ? "" : shown);
    PyErr_Clear();
    Py_XDECREF(text);
    if (!full) {
        PyObject *detail = PyObject_CallFunction(state->readmodel.failed, "OLO", core->name,
                                                 (long long)recorded->position, value);
        escqrs_slice traceback_text = {NULL, 0};
        if (detail == NULL || slice_of(detail, &traceback_text) < 0) {
            PyErr_WriteUnraisable(core->name);
        }
        escqrs_readmodel_explain(core->model, traceback_text);
        PyObject *failure =
            detail == NULL ? NULL
                           : Py_BuildValue("LNO", (long long)recorded->position, detail, value);
        if (failure == NULL) {
            PyErr_Clear();
        }
        Py_XSETREF(core->failure, failure);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return status;
}

static escqrs_status run_handler(void *context, const escqrs_recorded *recorded, void *sqlite,
                                 escqrs_error *error)
{
    const handler_context *handler = context;
    core_object *core = handler->core;
    escqrs_status status = ESCQRS_OK;
    PyObject *result = NULL;
    projections++;
    PyObject *rows = esc_py_rows_new(core->system, sqlite, core->model, INT64_MAX);
    PyObject *argument = rows == NULL ? NULL : argument_of(handler, recorded);
    if (argument != NULL) {
        PyObject *arguments[] = {NULL, core->instance, rows, argument};
        result = PyObject_Vectorcall(handler->function, arguments + 1,
                                     3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (rows != NULL) {
        esc_py_rows_end(rows);
    }
    if (result == NULL) {
        status = report(core, recorded, error);
    }
    Py_XDECREF(result);
    Py_XDECREF(argument);
    Py_XDECREF(rows);
    projections--;
    return status;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

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
static int read_class(esc_py_state *state, handler_context *handler, PyObject *cls,
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
               : slice_of(esc_py_class_stored_name((PyTypeObject *)cls), &spec->type);
}

/* The tuple lives longer than the description. */
static int read_tags(handler_context *handler, PyObject *tags, escqrs_projection *spec)
{
    size_t count = (size_t)PyTuple_GET_SIZE(tags);
    handler->tags = PyMem_Calloc(count + 1, sizeof(escqrs_slice));
    if (handler->tags == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (slice_of(PyTuple_GET_ITEM(tags, (Py_ssize_t)i), &handler->tags[i]) < 0) {
            return -1;
        }
    }
    spec->tags = handler->tags;
    spec->tag_count = count;
    return 0;
}

/* One of (class or None, sql or None, function or None, wants_recorded, name, each, tags). */
static int read_projection(esc_py_state *state, handler_context *handler, PyObject *given,
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
    if (read_class(state, handler, cls, spec) < 0 || slice_of(name, &spec->name) < 0 ||
        slice_of(each, &spec->each) < 0 || read_tags(handler, tags, spec) < 0) {
        return -1;
    }
    if (handler->function != NULL) {
        spec->apply = run_handler;
        spec->context = handler;
        return 0;
    }
    if (slice_of(sql, &spec->sql) < 0 ||
        (cls != Py_None && pack_defaults((PyTypeObject *)cls, defaults) < 0)) {
        return -1;
    }
    spec->defaults = esc_buffer_slice(defaults);
    return 0;
}

/* A read model as Python describes it, with the memory that the core's description borrows. */
typedef struct description {
    core_object *core; /* strong; has the contexts of the handlers */
    escqrs_projection *projections;
    esc_buffer *defaults;
    size_t count;
} description;

static void description_fini(description *self)
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

/* `given`: (name, schema, version, file, manual, inline, policy, projections, stream column). Fini
 * also after a failure.
 */
static int description_init(description *self, esc_py_state *state, PyObject *given,
                            escqrs_readmodel_spec *spec)
{
    PyObject *name, *schema, *version, *file, *policy_given, *projections_given, *column;
    int manual, is_inline;
    escqrs_failure_policy policy;
    *self = (description){0};
    if (!PyArg_ParseTuple(given, "UUUUppO!O!U", &name, &schema, &version, &file, &manual,
                          &is_inline, &PyTuple_Type, &policy_given, &PyTuple_Type,
                          &projections_given, &column) ||
        read_policy(policy_given, &policy) < 0) {
        return -1;
    }
    self->count = (size_t)PyTuple_GET_SIZE(projections_given);
    self->core = (core_object *)state->readmodel.core->tp_alloc(state->readmodel.core, 0);
    self->projections = PyMem_Calloc(self->count + 1, sizeof(escqrs_projection));
    self->defaults = PyMem_Calloc(self->count + 1, sizeof(esc_buffer));
    handler_context *handlers = PyMem_Calloc(self->count + 1, sizeof(handler_context));
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
    return slice_of(name, &spec->name) < 0 || slice_of(schema, &spec->schema) < 0 ||
                   slice_of(version, &spec->version) < 0 || slice_of(file, &spec->file) < 0 ||
                   slice_of(column, &spec->stream_column) < 0
               ? -1
               : 0;
}

/* readmodel_check(descriptions): as much as can be said before a store is opened */
static PyObject *module_check(PyObject *module, PyObject *given)
{
    if (!PyTuple_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "readmodel_check takes a tuple");
        return NULL;
    }
    esc_py_state *state = esc_py_state_of(module);
    size_t count = (size_t)PyTuple_GET_SIZE(given);
    escqrs_readmodel_spec *specs = PyMem_Calloc(count + 1, sizeof(escqrs_readmodel_spec));
    description *descriptions = PyMem_Calloc(count + 1, sizeof(description));
    int failed = 0;
    if (specs == NULL || descriptions == NULL) {
        PyErr_NoMemory();
        failed = -1;
    }
    for (size_t i = 0; !failed && i < count; i++) {
        failed = description_init(&descriptions[i], state, PyTuple_GET_ITEM(given, (Py_ssize_t)i),
                                  &specs[i]);
    }
    if (!failed) {
        escqrs_error error = {0};
        escqrs_status status;
        Py_BEGIN_ALLOW_THREADS
        status = escqrs_readmodel_check(specs, count, &error);
        Py_END_ALLOW_THREADS
        if (status != ESCQRS_OK) {
            esc_py_raise(state, &error);
            failed = -1;
        }
    }
    for (size_t i = 0; descriptions != NULL && i < count; i++) {
        description_fini(&descriptions[i]);
    }
    PyMem_Free(descriptions);
    PyMem_Free(specs);
    return failed ? NULL : Py_NewRef(Py_None);
}

escqrs_event_reader esc_py_readmodel_reader(esc_py_system *system)
{
    return (escqrs_event_reader){
        .look = esc_py_upcast_look, .upcast = esc_py_upcast_apply, .context = system->keeper};
}

static int ensure_projector(esc_py_system *system)
{
    if (system->projector != NULL) {
        return 0;
    }
    escqrs_log log = {esc_py_log_write, &system->keeper->log};
    escqrs_error error = {0};
    escqrs_status status;
    escqrs_projector *projector = NULL;
    esc_py_actor_system *simulation = system->keeper->simulation;
    const escqrs_host_ops *host =
        simulation == NULL ? &esc_py_host_ops : &esc_py_simulation_host_ops;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_projector_create(system->store, host, system, &log, &projector, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(system->state, &error);
        return -1;
    }
    const escqrs_event_reader reader = esc_py_readmodel_reader(system);
    escqrs_projector_set_reader(projector, &reader);
    if (simulation != NULL) {
        const escqrs_clock clock = esc_py_seeded_clock(simulation->seeded);
        escqrs_projector_set_clock(projector, &clock);
    }
    system->projector = projector;
    return 0;
}

/* readmodel_add(system, instance, description) -> ReadModelCore */
static PyObject *module_add(PyObject *module, PyObject *args)
{
    PyObject *object, *instance, *given;
    if (!PyArg_ParseTuple(args, "OOO!", &object, &instance, &PyTuple_Type, &given)) {
        return NULL;
    }
    esc_py_state *state = esc_py_state_of(module);
    esc_py_system *system = esc_py_system_cast(object);
    if (system == NULL || ensure_projector(system) < 0) {
        return NULL;
    }
    escqrs_readmodel_spec spec;
    description described;
    core_object *self = NULL;
    if (description_init(&described, state, given, &spec) < 0) {
        goto end;
    }
    self = described.core;
    self->system = system;
    self->instance = Py_NewRef(instance);
    self->reference = PyWeakref_NewRef(object, NULL);
    if (self->reference == NULL) {
        self = NULL;
        goto end;
    }
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_readmodel_add(system->projector, &spec, &self->model, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(state, &error);
        self = NULL;
    }
end:
    Py_XINCREF((PyObject *)self);
    description_fini(&described);
    return (PyObject *)self;
}

/* readmodel_compare(system, instance, description) -> Comparison */
static PyObject *module_compare(PyObject *module, PyObject *args)
{
    PyObject *object, *instance, *given;
    if (!PyArg_ParseTuple(args, "OOO!", &object, &instance, &PyTuple_Type, &given)) {
        return NULL;
    }
    esc_py_state *state = esc_py_state_of(module);
    esc_py_system *system = esc_py_system_cast(object);
    escqrs_readmodel_spec spec;
    description described = {0};
    PyObject *result = NULL;
    if (system == NULL || refuse_in_projection(system, "compare()") < 0 ||
        description_init(&described, state, given, &spec) < 0) {
        goto end;
    }
    core_object *core = described.core;
    core->system = system;
    core->instance = Py_NewRef(instance);
    core->reference = PyWeakref_NewRef(object, NULL);
    if (core->reference != NULL) {
        result = esc_py_comparison_new(system, (PyObject *)core, &spec, &core->model);
    }
end:
    description_fini(&described);
    return result;
}

/* readmodel_start(system) */
static PyObject *module_start(PyObject *module, PyObject *object)
{
    esc_py_system *system = esc_py_system_cast(object);
    if (system == NULL) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status = ESCQRS_OK;
    if (system->projector != NULL) {
        bool steps = system->keeper->simulation != NULL && !system->readonly;
        system->outside = PyEval_SaveThread();
        status = steps ? escqrs_projector_prepare(system->projector, &error)
                       : escqrs_projector_start(system->projector, &error);
        PyEval_RestoreThread(system->outside);
        system->outside = NULL;
    }
    if (status != ESCQRS_OK) {
        return esc_py_raise(esc_py_state_of(module), &error);
    }
    Py_RETURN_NONE;
}

static PyObject *module_in_projection(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(projections > 0);
}

static PyObject *module_bind(PyObject *module, PyObject *failed)
{
    esc_py_readmodel_state *section = &esc_py_state_of(module)->readmodel;
    Py_XSETREF(section->failed, Py_NewRef(failed));
    Py_RETURN_NONE;
}

/* ---- status and waiting ----------------------------------------------------------------------------------------------- */

/* (state, position, head, rebuilding, error or None, failed position, lag in microseconds, rate,
 * parked, attempts, rebuilt or -1) */
static PyObject *core_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    core_object *self = (core_object *)object;
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    escqrs_readmodel_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_readmodel_get_status(self->model, &status);
    Py_END_ALLOW_THREADS
    core_leave(system);
    PyObject *error = status.error.status == ESCQRS_OK
                          ? Py_NewRef(Py_None)
                          : esc_py_text(escqrs_slice_of(status.error.message));
    if (error == NULL) {
        return NULL;
    }
    return Py_BuildValue("iLLNNLLdLIL", (int)status.state, (long long)status.position,
                         (long long)status.head, PyBool_FromLong(status.rebuilding), error,
                         (long long)status.error.position, (long long)status.lag_us, status.rate,
                         (long long)status.parked, (unsigned)status.attempts,
                         (long long)status.rebuilt);
}

typedef struct wait_call {
    escqrs_readmodel *model;
    int64_t position; /* -1: until it is rebuilt */
    escqrs_error error;
} wait_call;

static escqrs_status wait_core(void *context, int64_t deadline_ns)
{
    wait_call *call = context;
    return call->position < 0
               ? escqrs_readmodel_wait_rebuilt(call->model, deadline_ns, &call->error)
               : escqrs_readmodel_wait(call->model, call->position, deadline_ns, &call->error);
}

/* In a handler: an event that is not there yet may be one of its own. */
static int refuse_beyond(esc_py_system *system, long long position)
{
    for (const esc_py_turn *turn = esc_py_turn_current(); turn != NULL; turn = turn->outer) {
        if (turn->system == system && position > escqrs_store_head(system->store)) {
            PyErr_Format(
                esc_py_error_class(system->state, ESCQRS_DEADLOCK),
                "a handler waits for position %lld, which no event has yet: its own events "
                "get theirs when it has finished",
                position);
            return -1;
        }
    }
    return 0;
}

/* wait(position, timeout); position -1: until no rebuild is under way */
static PyObject *core_wait(PyObject *object, PyObject *args)
{
    core_object *self = (core_object *)object;
    long long position;
    PyObject *timeout;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "LO", &position, &timeout) ||
        esc_py_deadline(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int status = -1;
    wait_call call = {.model = self->model, .position = position};
    if (refuse_in_projection(system, "wait()") == 0 && refuse_beyond(system, position) == 0) {
        status = esc_py_system_wait(system, wait_core, &call, NULL, deadline_ns);
    }
    if (status > 0) {
        esc_py_raise(system->state, &call.error);
    }
    core_leave(system);
    if (status != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *call_core(PyObject *object, const char *what,
                           escqrs_status (*function)(escqrs_readmodel *model, escqrs_error *error))
{
    core_object *self = (core_object *)object;
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (refuse_in_projection(system, what) == 0) {
        escqrs_error error = {0};
        escqrs_status status;
        Py_BEGIN_ALLOW_THREADS
        status = function(self->model, &error);
        Py_END_ALLOW_THREADS
        if (status == ESCQRS_OK) {
            result = Py_NewRef(Py_None);
        } else {
            esc_py_raise(system->state, &error);
        }
    }
    core_leave(system);
    return result;
}

static PyObject *core_rebuild(PyObject *object, PyObject *unused)
{
    (void)unused;
    return call_core(object, "rebuild()", escqrs_readmodel_rebuild);
}

static PyObject *core_cancel(PyObject *object, PyObject *unused)
{
    (void)unused;
    return call_core(object, "cancel_rebuild()", escqrs_readmodel_cancel_rebuild);
}

typedef struct progress_call {
    escqrs_readmodel *model;
    int64_t seen;
    escqrs_error error;
} progress_call;

static escqrs_status wait_progress(void *context, int64_t deadline_ns)
{
    progress_call *call = context;
    return escqrs_readmodel_wait_progress(call->model, &call->seen, deadline_ns, &call->error);
}

/* progress(seen) -> position of the rebuild, once it is another; None: it is over */
static PyObject *core_progress(PyObject *object, PyObject *given)
{
    core_object *self = (core_object *)object;
    long long seen = PyLong_AsLongLong(given);
    if (seen == -1 && PyErr_Occurred()) {
        return NULL;
    }
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    progress_call call = {.model = self->model, .seen = seen};
    int status = refuse_in_projection(system, "rebuild()") < 0
                     ? -1
                     : esc_py_system_wait(system, wait_progress, &call, NULL, INT64_MAX);
    if (status > 0 && status != ESCQRS_DONE) {
        esc_py_raise(system->state, &call.error);
    }
    core_leave(system);
    if (status == ESCQRS_DONE) {
        Py_RETURN_NONE;
    }
    return status == ESCQRS_OK ? PyLong_FromLongLong(call.seen) : NULL;
}

typedef struct change_call {
    escqrs_readmodel *model;
    uint64_t seen;
    escqrs_error error;
} change_call;

static escqrs_status wait_changed(void *context, int64_t deadline_ns)
{
    change_call *call = context;
    return escqrs_readmodel_wait_changed(call->model, &call->seen, deadline_ns, &call->error);
}

/* changed(seen) -> another number, once the rows that queries see may be others, or at a kick */
static PyObject *core_changed(PyObject *object, PyObject *given)
{
    core_object *self = (core_object *)object;
    unsigned long long seen = PyLong_AsUnsignedLongLong(given);
    if (seen == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    change_call call = {.model = self->model, .seen = seen};
    int status = esc_py_wait(wait_changed, &call, INT64_MAX);
    if (status > 0) {
        esc_py_raise(system->state, &call.error);
    }
    core_leave(system);
    return status == ESCQRS_OK ? PyLong_FromUnsignedLongLong(call.seen) : NULL;
}

static PyObject *core_kick(PyObject *object, PyObject *unused)
{
    (void)unused;
    core_object *self = (core_object *)object;
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    escqrs_readmodel_kick(self->model); /* its lock is held for a few instructions */
    core_leave(system);
    Py_RETURN_NONE;
}

static PyObject *core_retry(PyObject *object, PyObject *unused)
{
    (void)unused;
    return call_core(object, "retry()", escqrs_readmodel_retry);
}

/* skip(reason) */
static PyObject *core_skip(PyObject *object, PyObject *given)
{
    core_object *self = (core_object *)object;
    escqrs_slice reason;
    if (slice_of(given, &reason) < 0) {
        return NULL;
    }
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int failed = refuse_in_projection(system, "skip()");
    if (!failed) {
        escqrs_error error = {0};
        escqrs_status status;
        Py_BEGIN_ALLOW_THREADS
        status = escqrs_readmodel_skip(self->model, reason, &error);
        Py_END_ALLOW_THREADS
        if (status != ESCQRS_OK) {
            esc_py_raise(system->state, &error);
            failed = -1;
        }
    }
    core_leave(system);
    return failed ? NULL : Py_NewRef(Py_None);
}

typedef struct unpark_call {
    escqrs_readmodel *model;
    uint64_t ticket;
    escqrs_error error;
} unpark_call;

static escqrs_status wait_unparked(void *context, int64_t deadline_ns)
{
    unpark_call *call = context;
    return escqrs_readmodel_wait_unparked(call->model, call->ticket, deadline_ns, &call->error);
}

/* unpark(stream or "", skipped position or 0, reason, whether to make the stream anew): have parked
 * events applied, and wait for it */
static PyObject *core_unpark(PyObject *object, PyObject *args)
{
    core_object *self = (core_object *)object;
    PyObject *stream, *reason;
    long long skip;
    escqrs_unpark wanted = {0};
    int rebuild;
    if (!PyArg_ParseTuple(args, "ULUp", &stream, &skip, &reason, &rebuild) ||
        slice_of(stream, &wanted.stream) < 0 || slice_of(reason, &wanted.reason) < 0) {
        return NULL;
    }
    wanted.skip = skip;
    wanted.rebuild = rebuild != 0;
    esc_py_system *system = core_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int failed = refuse_in_projection(system, "retry(), skip() or rebuild()");
    if (!failed) {
        unpark_call call = {.model = self->model};
        escqrs_status asked;
        Py_BEGIN_ALLOW_THREADS
        asked = escqrs_readmodel_unpark(self->model, &wanted, &call.ticket, &call.error);
        Py_END_ALLOW_THREADS
        int status = asked == ESCQRS_OK
                         ? esc_py_system_wait(system, wait_unparked, &call, NULL, INT64_MAX)
                         : (int)asked;
        if (status > 0) {
            esc_py_raise(system->state, &call.error);
        }
        failed = status != 0;
    }
    core_leave(system);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* ---- queries -------------------------------------------------------------------------------------------------------------- */

static PyObject *call_with(PyObject *function, PyObject *instance, PyObject *rows, PyObject *args,
                           PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    PyObject *all = PyTuple_New(count + 2);
    if (all == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(all, 0, Py_NewRef(instance));
    PyTuple_SET_ITEM(all, 1, Py_NewRef(rows));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(all, i + 2, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    }
    PyObject *result = PyObject_Call(function, all, kwargs);
    Py_DECREF(all);
    return result;
}

/* A connection with a snapshot that all statements of the query see. Reading something at once
 * begins it, and has SQLite look whether the tables have changed: else a statement might be
 * compiled for those of before, with their columns. */
static escqrs_status acquire(escqrs_readmodel *model, void **sqlite, escqrs_error *error)
{
    escqrs_status status = escqrs_readmodel_reader(model, sqlite, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int code =
        sqlite3_exec(*sqlite, "BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL);
    if (code == SQLITE_INTERRUPT) { /* only close interrupts */
        status =
            escqrs_error_set(error, ESCQRS_CLOSED, "a query cannot begin: the system is closed");
    } else if (code != SQLITE_OK) {
        status =
            escqrs_error_set(error, ESCQRS_IO, "a query cannot begin: %s", sqlite3_errmsg(*sqlite));
    }
    if (status != ESCQRS_OK) {
        escqrs_readmodel_reader_return(model, *sqlite);
    }
    return status;
}

static escqrs_readmodel *own_file(escqrs_readmodel *model)
{
    return escqrs_readmodel_is_in_store(model) ? NULL : model;
}

static PyObject *run_query(esc_py_system *system, escqrs_readmodel *model, PyObject *function,
                           PyObject *instance, PyObject *args, PyObject *kwargs,
                           int64_t deadline_ns)
{
    escqrs_error error = {0};
    escqrs_status status;
    void *sqlite = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = acquire(model, &sqlite, &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        return esc_py_raise(system->state, &error);
    }
    PyObject *result = NULL;
    PyObject *rows = esc_py_rows_new(system, sqlite, NULL, deadline_ns);
    if (rows != NULL) {
        query_frame frame = {queries, system, own_file(model), rows};
        queries = &frame;
        result = call_with(function, instance, rows, args, kwargs);
        queries = frame.outer;
        esc_py_rows_end(rows);
        Py_DECREF(rows);
    }
    Py_BEGIN_ALLOW_THREADS(void)
    sqlite3_exec(sqlite, "ROLLBACK", NULL, NULL, NULL);
    escqrs_readmodel_reader_return(model, sqlite);
    Py_END_ALLOW_THREADS
    return result;
}

/* query(function, instance, args, kwargs, timeout) */
static PyObject *core_query(PyObject *object, PyObject *args)
{
    PyObject *function, *instance, *given, *kwargs, *timeout;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "OOO!O!O", &function, &instance, &PyTuple_Type, &given,
                          &PyDict_Type, &kwargs, &timeout) ||
        esc_py_deadline(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    esc_py_system *system = core_enter((core_object *)object);
    if (system == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    escqrs_readmodel *model = ((core_object *)object)->model;
    if (queries != NULL && queries->system == system && queries->model == own_file(model)) {
        result = call_with(function, instance, queries->rows, given, kwargs);
    } else if (refuse_in_projection(system, "a query") == 0) {
        result = run_query(system, model, function, instance, given, kwargs, deadline_ns);
    }
    core_leave(system);
    return result;
}

/* The system, while it is open. */
static PyObject *core_system(PyObject *object, PyObject *unused)
{
    (void)unused;
    esc_py_system *system = core_enter((core_object *)object);
    if (system == NULL) {
        return NULL;
    }
    esc_py_system_unpin(system);
    return (PyObject *)system; /* the reference of core_enter */
}

/* ---- type ------------------------------------------------------------------------------------------------------------------ */

static PyObject *core_failure(PyObject *object, void *unused)
{
    (void)unused;
    core_object *self = (core_object *)object;
    return Py_NewRef(self->failure == NULL ? Py_None : self->failure);
}

static int core_traverse(PyObject *object, visitproc visit, void *arg)
{
    core_object *self = (core_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->instance);
    Py_VISIT(self->failure);
    Py_VISIT(self->reference);
    for (size_t i = 0; i < self->handler_count; i++) {
        Py_VISIT(self->handlers[i].function);
        Py_VISIT(self->handlers[i].cls);
    }
    return 0;
}

static int core_clear(PyObject *object)
{
    core_object *self = (core_object *)object;
    Py_CLEAR(self->failure);
    Py_CLEAR(self->instance);
    return 0;
}

static void core_dealloc(PyObject *object)
{
    core_object *self = (core_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)core_clear(object);
    Py_XDECREF(self->reference);
    Py_XDECREF(self->name);
    for (size_t i = 0; i < self->handler_count; i++) {
        Py_XDECREF(self->handlers[i].function);
        Py_XDECREF(self->handlers[i].cls);
        PyMem_Free(self->handlers[i].tags);
    }
    PyMem_Free(self->handlers);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef core_methods[] = {
    {"system", core_system, METH_NOARGS, NULL},
    {"status", core_status, METH_NOARGS, NULL},
    {"wait", core_wait, METH_VARARGS, NULL},
    {"rebuild", core_rebuild, METH_NOARGS, NULL},
    {"cancel_rebuild", core_cancel, METH_NOARGS, NULL},
    {"progress", core_progress, METH_O, NULL},
    {"retry", core_retry, METH_NOARGS, NULL},
    {"skip", core_skip, METH_O, NULL},
    {"changed", core_changed, METH_O, NULL},
    {"kick", core_kick, METH_NOARGS, NULL},
    {"unpark", core_unpark, METH_VARARGS, NULL},
    {"query", core_query, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef core_getset[] = {
    {"failure", core_failure, NULL,
     "Of a handler, the last: (position, traceback, exception), or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_dealloc, core_dealloc}, {Py_tp_traverse, core_traverse}, {Py_tp_clear, core_clear},
    {Py_tp_methods, core_methods}, {Py_tp_getset, core_getset},     {0, NULL},
};

static PyType_Spec core_spec = {
    .name = "escqrs._core.ReadModelCore",
    .basicsize = sizeof(core_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = core_slots,
};

static PyMethodDef module_methods[] = {
    {"readmodel_check", module_check, METH_O, NULL},
    {"readmodel_add", module_add, METH_VARARGS, NULL},
    {"readmodel_compare", module_compare, METH_VARARGS, NULL},
    {"readmodel_start", module_start, METH_O, NULL},
    {"readmodel_bind", module_bind, METH_O, NULL},
    {"in_projection", module_in_projection, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int esc_py_readmodel_exec(PyObject *module)
{
    esc_py_readmodel_state *section = &esc_py_state_of(module)->readmodel;
    section->core = (PyTypeObject *)PyType_FromModuleAndSpec(module, &core_spec, NULL);
    if (section->core == NULL ||
        PyModule_AddObjectRef(module, "ReadModelCore", (PyObject *)section->core) < 0 ||
        esc_py_comparison_exec(module) < 0 || PyModule_AddFunctions(module, module_methods) < 0) {
        return -1;
    }
    return 0;
}

int esc_py_readmodel_traverse_state(esc_py_readmodel_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->core);
    Py_VISIT(section->comparison);
    Py_VISIT(section->failed);
    return 0;
}

void esc_py_readmodel_clear_state(esc_py_readmodel_state *section)
{
    Py_CLEAR(section->core);
    Py_CLEAR(section->comparison);
    Py_CLEAR(section->failed);
}
