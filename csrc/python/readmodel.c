/* python/readmodel.c - see readmodel.h.
 *
 * Threads: the GIL guards every object here. The core is called detached wherever it may wait:
 * adding, waiting, skipping. Life: a core's contexts are the projector's until it is stopped, which
 * the system does before it lets its read models go. */
#include "python/readmodel_parts.h"

#include "python/actor.h"
#include "python/comparison.h"
#include "python/text.h"
#include "python/upcast.h"

/* ---- entering -------------------------------------------------------------------------------- */

esc_py_system *esc_py_readmodel_enter(esc_py_readmodel *self)
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

void esc_py_readmodel_leave(esc_py_system *system)
{
    esc_py_system_unpin(system);
    Py_DECREF((PyObject *)system);
}

/* ---- adding ---------------------------------------------------------------------------------- */

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
    esc_py_description *descriptions = PyMem_Calloc(count + 1, sizeof(esc_py_description));
    int failed = 0;
    if (specs == NULL || descriptions == NULL) {
        PyErr_NoMemory();
        failed = -1;
    }
    for (size_t i = 0; !failed && i < count; i++) {
        failed = esc_py_description_init(&descriptions[i], state,
                                         PyTuple_GET_ITEM(given, (Py_ssize_t)i), &specs[i]);
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
        esc_py_description_fini(&descriptions[i]);
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
    esc_py_description described;
    esc_py_readmodel *self = NULL;
    if (esc_py_description_init(&described, state, given, &spec) < 0) {
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
    esc_py_description_fini(&described);
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
    esc_py_description described = {0};
    PyObject *result = NULL;
    if (system == NULL || esc_py_refuse_in_projection(system, "compare()") < 0 ||
        esc_py_description_init(&described, state, given, &spec) < 0) {
        goto end;
    }
    esc_py_readmodel *core = described.core;
    core->system = system;
    core->instance = Py_NewRef(instance);
    core->reference = PyWeakref_NewRef(object, NULL);
    if (core->reference != NULL) {
        result = esc_py_comparison_new(system, (PyObject *)core, &spec, &core->model);
    }
end:
    esc_py_description_fini(&described);
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
    return PyBool_FromLong(esc_py_in_projection());
}

static PyObject *module_bind(PyObject *module, PyObject *failed)
{
    esc_py_readmodel_state *section = &esc_py_state_of(module)->readmodel;
    Py_XSETREF(section->failed, Py_NewRef(failed));
    Py_RETURN_NONE;
}

/* ---- status and waiting ---------------------------------------------------------------------- */

/* (state, position, head, rebuilding, error or None, failed position, lag in microseconds, rate,
 * parked, attempts, rebuilt or -1) */
static PyObject *core_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    escqrs_readmodel_status status;
    Py_BEGIN_ALLOW_THREADS
    escqrs_readmodel_get_status(self->model, &status);
    Py_END_ALLOW_THREADS
    esc_py_readmodel_leave(system);
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    long long position;
    PyObject *timeout;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "LO", &position, &timeout)) {
        return NULL;
    }
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int status = -1;
    wait_call call = {.model = self->model, .position = position};
    if (esc_py_actor_deadline(system->keeper->simulation, timeout, &deadline_ns) == 0 &&
        esc_py_refuse_in_projection(system, "wait()") == 0 &&
        refuse_beyond(system, position) == 0) {
        status = esc_py_system_wait(system, wait_core, &call, NULL, deadline_ns);
    }
    if (status > 0) {
        esc_py_raise(system->state, &call.error);
    }
    esc_py_readmodel_leave(system);
    if (status != 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *call_core(PyObject *object, const char *what,
                           escqrs_status (*function)(escqrs_readmodel *model, escqrs_error *error))
{
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (esc_py_refuse_in_projection(system, what) == 0) {
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
    esc_py_readmodel_leave(system);
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    long long seen = PyLong_AsLongLong(given);
    if (seen == -1 && PyErr_Occurred()) {
        return NULL;
    }
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    progress_call call = {.model = self->model, .seen = seen};
    int status = esc_py_refuse_in_projection(system, "rebuild()") < 0
                     ? -1
                     : esc_py_system_wait(system, wait_progress, &call, NULL, INT64_MAX);
    if (status > 0 && status != ESCQRS_DONE) {
        esc_py_raise(system->state, &call.error);
    }
    esc_py_readmodel_leave(system);
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    unsigned long long seen = PyLong_AsUnsignedLongLong(given);
    if (seen == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    change_call call = {.model = self->model, .seen = seen};
    int status = esc_py_wait(wait_changed, &call, INT64_MAX);
    if (status > 0) {
        esc_py_raise(system->state, &call.error);
    }
    esc_py_readmodel_leave(system);
    return status == ESCQRS_OK ? PyLong_FromUnsignedLongLong(call.seen) : NULL;
}

static PyObject *core_kick(PyObject *object, PyObject *unused)
{
    (void)unused;
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    escqrs_readmodel_kick(self->model); /* its lock is held for a few instructions */
    esc_py_readmodel_leave(system);
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    const escqrs_slice reason = esc_py_slice_of(given);
    if (reason.data == NULL) {
        return NULL;
    }
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int failed = esc_py_refuse_in_projection(system, "skip()");
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
    esc_py_readmodel_leave(system);
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    PyObject *stream, *reason;
    long long skip;
    escqrs_unpark wanted = {0};
    int rebuild;
    if (!PyArg_ParseTuple(args, "ULUp", &stream, &skip, &reason, &rebuild) ||
        (wanted.stream = esc_py_slice_of(stream)).data == NULL ||
        (wanted.reason = esc_py_slice_of(reason)).data == NULL) {
        return NULL;
    }
    wanted.skip = skip;
    wanted.rebuild = rebuild != 0;
    esc_py_system *system = esc_py_readmodel_enter(self);
    if (system == NULL) {
        return NULL;
    }
    int failed = esc_py_refuse_in_projection(system, "retry(), skip() or rebuild()");
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
    esc_py_readmodel_leave(system);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* The system, while it is open. */
static PyObject *core_system(PyObject *object, PyObject *unused)
{
    (void)unused;
    esc_py_system *system = esc_py_readmodel_enter((esc_py_readmodel *)object);
    if (system == NULL) {
        return NULL;
    }
    esc_py_system_unpin(system);
    return (PyObject *)system; /* the reference of esc_py_readmodel_enter */
}

/* ---- type ------------------------------------------------------------------------------------ */

static PyObject *core_failure(PyObject *object, void *unused)
{
    (void)unused;
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    return Py_NewRef(self->failure == NULL ? Py_None : self->failure);
}

static int core_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_readmodel *self = (esc_py_readmodel *)object;
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
    esc_py_readmodel *self = (esc_py_readmodel *)object;
    Py_CLEAR(self->failure);
    Py_CLEAR(self->instance);
    return 0;
}

static void core_dealloc(PyObject *object)
{
    esc_py_readmodel *self = (esc_py_readmodel *)object;
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
    {"query", esc_py_readmodel_query, METH_VARARGS, NULL},
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
    .basicsize = sizeof(esc_py_readmodel),
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
