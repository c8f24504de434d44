/* python/recorded.h - stored events as Python sees them (es.Recorded), and iterations over them. */
#ifndef ESC_PYTHON_RECORDED_H
#define ESC_PYTHON_RECORDED_H

#include "python/store.h"
#include "python/upcast.h"

typedef struct esc_py_recorded_state {
    PyTypeObject *type;   /* Recorded */
    PyTypeObject *cursor; /* EventIterator */
    PyObject *matches;    /* matches(match) of _match.py -> list of (types, tags) */
    PyObject *epoch;      /* datetime of 1970 in UTC */
} esc_py_recorded_state;

/* What es.Match asks for, as the core takes it. */
typedef struct esc_py_matches {
    PyObject *list; /* strong: what the items borrow from */
    escqrs_match *items;
    size_t count;
} esc_py_matches;

/* From a match, a list of them, or None; all zero after a failure. */
int esc_py_matches_init(esc_py_matches *self, struct esc_py_state *state, PyObject *match);
/* The same for who reads with `parts`: types that may become wanted ones are among them. */
int esc_py_matches_widen(esc_py_matches *self, struct esc_py_state *state, PyObject *match,
                         esc_py_backing *backing, esc_py_parts *parts);
void esc_py_matches_fini(esc_py_matches *self);

/* A copy of all that `recorded` says; its event is decoded when read. New reference. It has not
 * been upcast: see esc_py_parts_put. */
PyObject *esc_py_recorded_new(esc_py_store *store, const escqrs_recorded *recorded);
/* What upcasting made of a stored event (an es.Recorded): the same, but with this event, the part
 * of so many. New reference. */
PyObject *esc_py_recorded_part(esc_py_store *store, PyObject *recorded, PyObject *event,
                               uint32_t part, uint32_t parts);
/* What `deleted=` says: "raise" (or None) or "skip". -1 with ValueError for anything else. */
int esc_py_skips_deleted(PyObject *deleted, bool *skips);
/* An iterator over the events of a stream (or of the whole store: stream empty), from the Python
 * arguments (*, after=0, upto=None, match=(), reverse=False, limit=None, deleted="raise"). `owner`
 * lives as long as it. New reference. */
PyObject *esc_py_cursor_new(esc_py_store *store, PyObject *owner, escqrs_slice stream,
                            PyObject *args, PyObject *kwargs);

int esc_py_recorded_exec(PyObject *module);
int esc_py_recorded_traverse_state(esc_py_recorded_state *section, visitproc visit, void *arg);
void esc_py_recorded_clear_state(esc_py_recorded_state *section);

#endif
