/* python/cursor.h - iterations over stored events. */
#ifndef ESC_PYTHON_CURSOR_H
#define ESC_PYTHON_CURSOR_H

#include "python/recorded.h"

extern PyType_Spec esc_py_cursor_spec;

/* What `deleted=` says: "raise" (or None) or "skip". -1 with ValueError for anything else. */
int esc_py_skips_deleted(PyObject *deleted, bool *skips);
/* An iterator over the events of a stream (or of the whole store: stream empty), from the Python
 * arguments (*, after=0, upto=None, match=(), reverse=False, limit=None, deleted="raise"). `owner`
 * lives as long as it. New reference. */
PyObject *esc_py_cursor_new(esc_py_store *store, PyObject *owner, escqrs_slice stream,
                            PyObject *args, PyObject *kwargs);

#endif
