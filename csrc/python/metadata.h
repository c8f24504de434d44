/* python/metadata.h - metadata as it is given to the binding: any mapping of str to str. */
#ifndef ESC_PYTHON_METADATA_H
#define ESC_PYTHON_METADATA_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Its items: a new list of tuples of two objects, of any type. TypeError, beginning with `where`,
 * for what is no mapping. Runs Python code. */
PyObject *esc_py_metadata_items(PyObject *given, const char *where);

#endif
