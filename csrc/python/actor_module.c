/* python/actor_module.c - the actors' part of the module: its state, types and functions. Locks:
 * none; the GIL. */

#include "python/actor.h"

#include "python/actor_persist.h"
#include "python/state.h"

/* ---- what the facade binds ------------------------------------------------------------------------ */

#define BOUND(name)                                                                                \
    {                                                                                              \
#name, offsetof(esc_py_actor_state, name)                                                  \
    }

static const struct {
    const char *name;
    size_t offset;
} bound[] = {
    BOUND(started),
    BOUND(stopping),
    BOUND(stopped),
    BOUND(restarting),
    BOUND(receive_timeout),
    BOUND(terminated),
    BOUND(props),
    BOUND(envelope),
    BOUND(unanswered),
    BOUND(abandoned),
    BOUND(await_reply),
    BOUND(compose),
    BOUND(begin_blocking),
    BOUND(end_blocking),
    BOUND(make_log),
    BOUND(letter),
    BOUND(failed),
    BOUND(decide),
    BOUND(start_task),
    BOUND(inside),
    BOUND(run_now),
    BOUND(recover),
    BOUND(commit_provider),
    BOUND(delete_events),
    BOUND(delete_snapshots),
    BOUND(request_snapshot),
    BOUND(replay_complete),
    BOUND(look_at_blocked),
};

static PyObject **bound_slot(esc_py_actor_state *section, size_t index)
{
    return (PyObject **)((char *)section + bound[index].offset);
}

static PyObject *bind(PyObject *module, PyObject *args, PyObject *kwargs)
{
    esc_py_actor_state *section = &esc_py_state_of(module)->actor;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(bound); i++) {
        PyObject *value = kwargs == NULL ? NULL : PyDict_GetItemString(kwargs, bound[i].name);
        if (value == NULL || PyTuple_GET_SIZE(args) != 0) {
            PyErr_Format(PyExc_TypeError, "_bind_actor needs %s", bound[i].name);
            return NULL;
        }
        Py_XSETREF(*bound_slot(section, i), Py_NewRef(value));
    }
    Py_RETURN_NONE;
}

/* ---- functions ---------------------------------------------------------------------------------- */

/* What a weak reference of the registry refers to; NULL without an exception where it is gone. New
 * reference. */
static PyObject *alive(PyObject *weak)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target = NULL;
    if (PyWeakref_GetRef(weak, &target) < 0) {
        PyErr_Clear(); /* the registry has weak references only */
    }
    return target;
#else
    PyObject *target = PyWeakref_GetObject(weak);
    return target == NULL || target == Py_None ? NULL : Py_NewRef(target);
#endif
}

/* _message_classes(): every message class that is alive. */
static PyObject *message_classes(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    esc_py_state *state = esc_py_state_of(module);
    PyObject *result = PyList_New(0);
    PyObject *weak;
    Py_ssize_t at = 0;
    while (result != NULL && PyDict_Next(state->message.registry, &at, NULL, &weak)) {
        PyObject *cls = alive(weak);
        if (cls != NULL && esc_py_class_kind(state, cls) != ESC_PY_NONE &&
            PyList_Append(result, cls) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(cls);
    }
    return result;
}

static PyMethodDef module_functions[] = {
    {"_message_classes", message_classes, METH_NOARGS, NULL},
    {"_bind_actor", _PyCFunction_CAST(bind), METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- the module's state ------------------------------------------------------------------------- */

static PyObject *empty_mapping(void)
{
    PyObject *dict = PyDict_New();
    PyObject *proxy = dict == NULL ? NULL : PyDictProxy_New(dict);
    Py_XDECREF(dict);
    return proxy;
}

int esc_py_actor_exec(PyObject *module)
{
    esc_py_actor_state *section = &esc_py_state_of(module)->actor;
    struct {
        PyTypeObject **type;
        PyType_Spec *spec;
        bool is_public;
    } types[] = {
        {&section->system_type, &esc_py_actor_system_spec, true},
        {&section->ref_type, &esc_py_ref_spec, true},
        {&section->context_type, &esc_py_context_spec, true},
        {&section->reply_type, &esc_py_answer_spec, true},
        {&section->recipe_type, &esc_py_recipe_spec, true},
        {&section->timer_type, &esc_py_timer_spec, true},
        {&section->reentry_type, &esc_py_reentry_spec, false},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        *types[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (*types[i].type == NULL ||
            (types[i].is_public && PyModule_AddType(module, *types[i].type) < 0)) {
            return -1;
        }
    }
    section->stream_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &esc_py_stream_spec,
                                                                    (PyObject *)section->ref_type);
    section->receive_name = PyUnicode_InternFromString("receive");
    section->empty_headers = empty_mapping();
    if (section->stream_type == NULL || section->receive_name == NULL ||
        section->empty_headers == NULL || PyModule_AddType(module, section->stream_type) < 0 ||
        PyModule_AddFunctions(module, module_functions) < 0) {
        return -1;
    }
    return esc_py_persist_exec(module);
}

int esc_py_actor_traverse_state(esc_py_actor_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->system_type);
    Py_VISIT(section->ref_type);
    Py_VISIT(section->context_type);
    Py_VISIT(section->reply_type);
    Py_VISIT(section->stream_type);
    Py_VISIT(section->recipe_type);
    Py_VISIT(section->timer_type);
    Py_VISIT(section->reentry_type);
    Py_VISIT(section->persistent_type);
    Py_VISIT(section->receive_name);
    Py_VISIT(section->empty_headers);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(bound); i++) {
        Py_VISIT(*bound_slot(section, i));
    }
    return 0;
}

void esc_py_actor_clear_state(esc_py_actor_state *section)
{
    Py_CLEAR(section->system_type);
    Py_CLEAR(section->ref_type);
    Py_CLEAR(section->context_type);
    Py_CLEAR(section->reply_type);
    Py_CLEAR(section->stream_type);
    Py_CLEAR(section->recipe_type);
    Py_CLEAR(section->timer_type);
    Py_CLEAR(section->reentry_type);
    Py_CLEAR(section->persistent_type);
    Py_CLEAR(section->receive_name);
    Py_CLEAR(section->empty_headers);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(bound); i++) {
        Py_CLEAR(*bound_slot(section, i));
    }
}
