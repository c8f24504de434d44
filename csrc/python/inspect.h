/* python/inspect.h - methods of es.Store that read all of it. */
#ifndef ESC_PYTHON_INSPECT_H
#define ESC_PYTHON_INSPECT_H

#include <stdbool.h>

#include "python/store.h"

/* _verify(problem, progress): problem(part, text, stream, version, position) and progress(position,
 * head) or None; (events, streams, types, snapshots, checkpoints, keys, tags, ids, read models,
 * problems). */
PyObject *esc_py_store_verify(PyObject *object, PyObject *args);

/* _chain_hash(position): bytes, or None */
PyObject *esc_py_store_chain_hash(PyObject *self, PyObject *position);
/* _snapshots(number, version): the next ones after that stream's of that version, as (number,
 * stream, version, type or None, verifies) */
PyObject *esc_py_store_snapshots(PyObject *self, PyObject *args);
/* _stats(): (head, events, streams, snapshots, checkpoints, keys, tags, ids, bytes, and in
 * microseconds: created, first, last; {type: events}). */
PyObject *esc_py_store_stats(PyObject *object, PyObject *ignored);

/* Is this thread inside a callback of such a call for the store? */
bool esc_py_inspects(const esc_py_store *store);

#endif
