/* python/handle.h - a reference to one entity: what shop[Cart, "cart-1"] answers. */
#ifndef ESC_PYTHON_HANDLE_H
#define ESC_PYTHON_HANDLE_H

#include "python/definition.h"

typedef struct esc_py_handle_state {
    PyTypeObject *type; /* Handle */
} esc_py_handle_state;

/* New reference; ValueError/TypeError for an id that is none. */
PyObject *esc_py_handle_new(esc_py_system *system, PyObject *definition, PyObject *id);

int esc_py_handle_exec(PyObject *module);
int esc_py_handle_traverse_state(esc_py_handle_state *section, visitproc visit, void *arg);
void esc_py_handle_clear_state(esc_py_handle_state *section);

#endif
