/* python/recorded.h - stored events as Python sees them (es.Recorded). */
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

/* A copy of all that `recorded` says; its event is decoded when read. New reference. It has not
 * been upcast: see esc_py_parts_put. */
PyObject *esc_py_recorded_new(esc_py_store *store, const escqrs_recorded *recorded);
/* The same for who has the name of its stream already, which is stolen and may be NULL with an
 * exception. `raw`: under the name of type that it was stored with. */
PyObject *esc_py_recorded_read(esc_py_store *store, const escqrs_recorded *recorded,
                               PyObject *stream, bool raw);
/* What upcasting made of a stored event (an es.Recorded): the same, but with this event, the part
 * of so many. New reference. */
PyObject *esc_py_recorded_part(esc_py_store *store, PyObject *recorded, PyObject *event,
                               uint32_t part, uint32_t parts);
int esc_py_recorded_exec(PyObject *module);
int esc_py_recorded_traverse_state(esc_py_recorded_state *section, visitproc visit, void *arg);
void esc_py_recorded_clear_state(esc_py_recorded_state *section);

#endif
