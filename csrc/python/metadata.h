/* python/metadata.h - metadata: as it is given to the binding, any mapping of str to str; and as it
 * is stored. */
#ifndef ESC_PYTHON_METADATA_H
#define ESC_PYTHON_METADATA_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/store.h>

/* Its items: a new list of tuples of two objects, of any type. TypeError, beginning with `where`,
 * for what is no mapping. Runs Python code. */
PyObject *esc_py_metadata_items(PyObject *given, const char *where);

/* A new dict of what is stored. */
PyObject *esc_py_metadata_dict(const escqrs_pair *pairs, size_t count);

#endif
