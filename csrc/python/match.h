/* python/match.h - which events somebody wants (es.Match). */
#ifndef ESC_PYTHON_MATCH_H
#define ESC_PYTHON_MATCH_H

#include "python/store.h"
#include "python/upcast.h"

/* What es.Match asks for, as the core takes it. */
typedef struct esc_py_matches {
    PyObject *list; /* strong: what the items borrow from */
    escqrs_match *items;
    size_t count;
} esc_py_matches;

/* From a match, a list of them, or None; all zero after a failure. For who reads with `parts` (else
 * NULL, and NULL for `backing`), types that may become wanted ones are among them. */
int esc_py_matches_init(esc_py_matches *self, struct esc_py_state *state, PyObject *match,
                        esc_py_backing *backing, esc_py_parts *parts);
void esc_py_matches_fini(esc_py_matches *self);

#endif
