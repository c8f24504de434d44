/* python/module.c - the extension module escqrs._core: multi-phase init and one exec a part.
 *
 * The state struct (state.h) holds everything of Python; exec below is the table of contents.
 */
#include "python/state.h"
#include "python/upcast.h"

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    esc_py_state *state = esc_py_state_of(module);
    int result;
    if ((result = esc_py_errors_traverse(&state->errors, visit, arg)) != 0 ||
        (result = esc_py_message_traverse(&state->message, visit, arg)) != 0 ||
        (result = esc_py_system_traverse_state(&state->system, visit, arg)) != 0 ||
        (result = esc_py_definition_traverse_state(&state->definition, visit, arg)) != 0 ||
        (result = esc_py_container_traverse_state(&state->container, visit, arg)) != 0 ||
        (result = esc_py_handle_traverse_state(&state->handle, visit, arg)) != 0 ||
        (result = esc_py_reply_traverse_state(&state->reply, visit, arg)) != 0 ||
        (result = esc_py_actor_traverse_state(&state->actor, visit, arg)) != 0 ||
        (result = esc_py_recorded_traverse_state(&state->recorded, visit, arg)) != 0 ||
        (result = esc_py_rows_traverse_state(&state->rows, visit, arg)) != 0 ||
        (result = esc_py_store_traverse_state(&state->store, visit, arg)) != 0 ||
        (result = esc_py_readmodel_traverse_state(&state->readmodel, visit, arg)) != 0 ||
        (result = esc_py_log_traverse_state(&state->log, visit, arg)) != 0) {
        return result;
    }
    return 0;
}

static int module_clear(PyObject *module)
{
    esc_py_state *state = esc_py_state_of(module);
    esc_py_log_clear_state(&state->log);
    esc_py_readmodel_clear_state(&state->readmodel);
    esc_py_store_clear_state(&state->store);
    esc_py_rows_clear_state(&state->rows);
    esc_py_recorded_clear_state(&state->recorded);
    esc_py_actor_clear_state(&state->actor);
    esc_py_reply_clear_state(&state->reply);
    esc_py_handle_clear_state(&state->handle);
    esc_py_container_clear_state(&state->container);
    esc_py_definition_clear_state(&state->definition);
    esc_py_system_clear_state(&state->system);
    esc_py_message_clear(&state->message);
    esc_py_errors_clear(&state->errors);
    return 0;
}

static void module_free(void *module)
{
    if (esc_py_state_of(module) != NULL) { /* NULL where exec never ran */
        (void)module_clear(module);
    }
}

static int module_exec(PyObject *module)
{
    if (esc_py_errors_exec(module) < 0 || esc_py_message_exec(module) < 0 ||
        esc_py_system_exec(module) < 0 || esc_py_definition_exec(module) < 0 ||
        esc_py_container_exec(module) < 0 || esc_py_handle_exec(module) < 0 ||
        esc_py_reply_exec(module) < 0 || esc_py_actor_exec(module) < 0 ||
        esc_py_recorded_exec(module) < 0 || esc_py_rows_exec(module) < 0 ||
        esc_py_store_exec(module) < 0 || esc_py_readmodel_exec(module) < 0 ||
        esc_py_upcast_exec(module) < 0 || esc_py_log_exec(module) < 0) {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

struct PyModuleDef esc_py_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "escqrs._core",
    .m_doc = "The C core of escqrs. Private: use the names in escqrs.",
    .m_size = sizeof(esc_py_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&esc_py_module);
}
