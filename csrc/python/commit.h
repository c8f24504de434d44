/* python/commit.h - methods of StoreBase that write: see commit.c. */
#ifndef ESC_PYTHON_COMMIT_H
#define ESC_PYTHON_COMMIT_H

#include "python/store.h"

/* _commit(writes, condition, checkpoint, key, moved=None) */
PyObject *esc_py_store_commit(PyObject *store, PyObject *args);
/* _save_snapshot(stream, version, type, data) */
PyObject *esc_py_store_save_snapshot(PyObject *store, PyObject *args);

#endif
