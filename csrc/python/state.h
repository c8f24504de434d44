/* python/state.h - the state of the extension module escqrs._core: one section for each file.
 *
 * A part adds its section struct in its own header, one member here, and in module.c one call each
 * of its exec, traverse and clear. Nothing of Python is kept in static storage.
 */
#ifndef ESC_PYTHON_STATE_H
#define ESC_PYTHON_STATE_H

#include "python/actor.h"
#include "python/container.h"
#include "python/definition.h"
#include "python/errors.h"
#include "python/handle.h"
#include "python/lifetime.h"
#include "python/log.h"
#include "python/message.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/reply.h"
#include "python/rows.h"
#include "python/store.h"
#include "python/system.h"

typedef struct esc_py_state {
    esc_py_errors_state errors;
    esc_py_message_state message;
    esc_py_system_state system;
    esc_py_definition_state definition;
    esc_py_container_state container;
    esc_py_handle_state handle;
    esc_py_reply_state reply;
    esc_py_actor_state actor;
    esc_py_recorded_state recorded;
    esc_py_rows_state rows;
    esc_py_store_state store;
    esc_py_readmodel_state readmodel;
    esc_py_log_state log;
} esc_py_state;

extern struct PyModuleDef esc_py_module;

/* Of the module object itself; never NULL. */
static inline esc_py_state *esc_py_state_of(PyObject *module)
{
    return (esc_py_state *)PyModule_GetState(module);
}

/* Of a class that this module defines, or one derived from it; NULL with an exception for others.
 */
static inline esc_py_state *esc_py_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &esc_py_module);
    return module == NULL ? NULL : esc_py_state_of(module);
}

#endif
