/* python/upcast.h - how stored events are read: as they are, under another name, or by functions
 * that make the events of today of them (@es.upcast).
 *
 * A *plan* (_upcast.py) knows a store's event classes and upcasters. Asked for a stored type, a
 * name with the schema that was recorded with it, it answers once with a *reading*:
 *
 *   a class       the events are decoded as that class, whatever name they were stored under
 *   None          no class of that name was given
 *   an exception  the class would misread them; whoever needs the event gets it
 *   a callable    called with an es.Recorded as it was stored: a list of the events that it is now
 *
 * Readings are kept by the number of the type, so that an event that needs no upcasting costs one
 * look into an array. All of it is guarded by the GIL. */
#ifndef ESC_PYTHON_UPCAST_H
#define ESC_PYTHON_UPCAST_H

#include <escqrs/readmodel.h>

#include "python/store.h"

/* How events of that type are read; borrowed, NULL with an exception. May run Python code. */
PyObject *esc_py_reading(esc_py_backing *backing, const escqrs_type *type);
/* Is it the fourth kind? */
bool esc_py_reading_upcasts(PyObject *reading);
/* What the stored event is now: new reference to a list of event instances, or NULL with an
 * exception that says which event it was. */
PyObject *esc_py_upcast(PyObject *reading, PyObject *recorded);
/* Raise what a reading of the third kind is, anew each time. */
void esc_py_reading_raise(PyObject *reading);

/* The record that events of a class are stored with here, its version in it; freed with
 * escqrs_free. -1 with an exception. */
int esc_py_record_of(esc_py_backing *backing, PyTypeObject *cls, void **record, size_t *size);
/* The type that they are stored with; NULL with an exception. */
escqrs_type *esc_py_type_of_class(esc_py_backing *backing, PyTypeObject *cls);

/* ---- what an iteration gives out -------------------------------------------------------------- */

/* The events that one stored event is read as, on their way out, and whom the reader wants. */
typedef struct esc_py_parts {
    PyObject *wanted; /* list of (types, tags) that events must match as they are read; or NULL */
    PyObject *list;   /* of es.Recorded; NULL: none are left */
    Py_ssize_t next;
} esc_py_parts;

/* The list (see esc_py_matches_init) that has the store look for what may become wanted: a new
 * reference; `parts` keeps what to hold it against. NULL with an exception. */
PyObject *esc_py_parts_init(esc_py_parts *self, esc_py_backing *backing, PyObject *matches);
void esc_py_parts_fini(esc_py_parts *self);
/* The next one that is left; new reference, NULL without an exception where there is none. */
PyObject *esc_py_parts_take(esc_py_parts *self);
/* A stored event comes: `recorded` is taken over. What is to be given out, or NULL without an
 * exception: nothing of it, or what esc_py_parts_take gives. */
PyObject *esc_py_parts_put(esc_py_parts *self, esc_py_store *store, const escqrs_type *type,
                           PyObject *recorded, bool reverse);

/* ---- for read models --------------------------------------------------------------------------- */

/* An escqrs_event_reader's; its context is the esc_py_store. They enter Python themselves, on any
 * thread. */
escqrs_status esc_py_upcast_look(void *store, const escqrs_type *type, escqrs_reading *reading,
                                 const escqrs_type **as, escqrs_error *error);
escqrs_status esc_py_upcast_apply(void *store, const escqrs_recorded *recorded,
                                  escqrs_status (*add)(void *sink, const escqrs_recorded *event,
                                                       escqrs_error *error),
                                  void *sink, escqrs_error *error);

/* ---- life ------------------------------------------------------------------------------------- */

/* The store's plan changed, or is given: all that was kept is forgotten. `evolves`: some type has
 * upcasters or former names. */
int esc_py_readings_learn(esc_py_store *store, PyObject *plan, bool evolves);
void esc_py_readings_fini(esc_py_backing *backing);

int esc_py_upcast_exec(PyObject *module);

#endif
