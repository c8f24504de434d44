/* python/erase.h - methods of StoreBase that delete events: see docs/deleting.md. */
#ifndef ESC_PYTHON_ERASE_H
#define ESC_PYTHON_ERASE_H

#include "python/store.h"

/* _erase(items): list of (stream, upto or None to close it, force); the events deleted of each, as
 * a list. All in one transaction. */
PyObject *esc_py_store_erase(PyObject *store, PyObject *items);
/* _erased(stream): (version up to which events are gone, whether it was closed) */
PyObject *esc_py_store_erased(PyObject *store, PyObject *stream);
/* _compact(): bytes given back */
PyObject *esc_py_store_compact(PyObject *store, PyObject *ignored);

#endif
