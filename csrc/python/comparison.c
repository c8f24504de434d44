/* python/comparison.c - see comparison.h.
 *
 * Threads: the GIL guards the object. The core is called detached; handlers in Python that it runs
 * attach with this thread's own state. */
#include "python/comparison.h"

#include "python/readmodel.h"

#include "python/rows.h"
#include "python/state.h"
#include "python/store.h"

typedef struct comparison_object {
    PyObject_HEAD
    esc_py_system *system; /* strong */
    PyObject *core;        /* strong */
    escqrs_comparison *comparison;
    PyObject *rows[2]; /* live, fresh; or NULL */
} comparison_object;

static void comparison_end(comparison_object *self)
{
    for (int i = 0; i < 2; i++) {
        if (self->rows[i] != NULL) {
            esc_py_rows_end(self->rows[i]);
            Py_CLEAR(self->rows[i]);
        }
    }
    escqrs_comparison *comparison = self->comparison;
    self->comparison = NULL;
    Py_BEGIN_ALLOW_THREADS
    escqrs_comparison_close(comparison);
    Py_END_ALLOW_THREADS
}

PyObject *esc_py_comparison_new(esc_py_system *system, PyObject *core,
                                const escqrs_readmodel_spec *spec, escqrs_readmodel **model)
{
    PyTypeObject *type = system->state->readmodel.comparison;
    comparison_object *self = (comparison_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->system = (esc_py_system *)Py_NewRef((PyObject *)system);
    self->core = Py_NewRef(core);
    if (esc_py_system_pin(system) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    const escqrs_event_reader reader = esc_py_readmodel_reader(system);
    escqrs_log log = {esc_py_log_write, &system->keeper->log};
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_comparison_open(system->store, &esc_py_host_ops, system, &reader, &log, spec,
                                    &self->comparison, model, &error);
    Py_END_ALLOW_THREADS
    esc_py_system_unpin(system);
    if (status != ESCQRS_OK) {
        esc_py_raise(system->state, &error);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static int check_open(const comparison_object *self)
{
    if (self->comparison == NULL) {
        PyErr_SetString(PyExc_ValueError, "the comparison is over");
        return -1;
    }
    return 0;
}

/* step() -> (position, target), or None where the fresh rows are complete */
static PyObject *comparison_step(PyObject *object, PyObject *unused)
{
    (void)unused;
    comparison_object *self = (comparison_object *)object;
    if (check_open(self) < 0 || esc_py_system_pin(self->system) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    void *state = PyEval_SaveThread();
    escqrs_status status = escqrs_comparison_step(self->comparison, &state, &error);
    PyEval_RestoreThread(state);
    esc_py_system_unpin(self->system);
    if (status == ESCQRS_DONE) {
        Py_RETURN_NONE;
    }
    if (status != ESCQRS_OK) {
        return esc_py_raise(self->system->state, &error);
    }
    return Py_BuildValue("LL", (long long)escqrs_comparison_position(self->comparison),
                         (long long)escqrs_comparison_target(self->comparison));
}

/* rows(fresh) -> Rows */
static PyObject *comparison_rows(PyObject *object, PyObject *given)
{
    comparison_object *self = (comparison_object *)object;
    int fresh = PyObject_IsTrue(given);
    if (fresh < 0 || check_open(self) < 0) {
        return NULL;
    }
    if (self->rows[fresh] == NULL) {
        self->rows[fresh] = esc_py_rows_new(
            self->system, escqrs_comparison_rows(self->comparison, fresh != 0), NULL, INT64_MAX);
    }
    return Py_XNewRef(self->rows[fresh]);
}

static PyObject *comparison_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    comparison_end((comparison_object *)object);
    Py_RETURN_NONE;
}

static int comparison_traverse(PyObject *object, visitproc visit, void *arg)
{
    comparison_object *self = (comparison_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT(self->core);
    return 0;
}

static void comparison_dealloc(PyObject *object)
{
    comparison_object *self = (comparison_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    comparison_end(self);
    Py_XDECREF(self->core);
    Py_XDECREF((PyObject *)self->system);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef comparison_methods[] = {
    {"step", comparison_step, METH_NOARGS, NULL},
    {"rows", comparison_rows, METH_O, NULL},
    {"close", comparison_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot comparison_slots[] = {
    {Py_tp_dealloc, comparison_dealloc},
    {Py_tp_traverse, comparison_traverse},
    {Py_tp_methods, comparison_methods},
    {0, NULL},
};

static PyType_Spec comparison_spec = {
    .name = "escqrs._core.Comparison",
    .basicsize = sizeof(comparison_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = comparison_slots,
};

int esc_py_comparison_exec(PyObject *module)
{
    esc_py_readmodel_state *section = &esc_py_state_of(module)->readmodel;
    section->comparison = (PyTypeObject *)PyType_FromModuleAndSpec(module, &comparison_spec, NULL);
    return section->comparison == NULL
               ? -1
               : PyModule_AddObjectRef(module, "Comparison", (PyObject *)section->comparison);
}
