/* python/simulation.h - the seeded scheduler of tests: entities and read models that a seeded actor
 * system (`manual`) runs beside its actors, on one thread, by its clock. See simulation.c.
 *
 * A store that was opened for one holds it; systems on that store stand in its list from their
 * opening to their close. All of it is guarded by the GIL.
 */
#ifndef ESC_PYTHON_SIMULATION_H
#define ESC_PYTHON_SIMULATION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/actor.h>
#include <escqrs/readmodel.h>

#include "python/wait.h"

struct esc_py_actor_system;
struct esc_py_store;
struct esc_py_system;

/* What the seed decides. Ids have numbers of their own, so that making one more changes no order;
 * threads hold it to make ids (esc_py_new_uuid), so it may outlive the actor system. */
typedef struct esc_py_seeded {
    unsigned references;
    uint64_t order, ids;       /* move on with each number drawn */
    escqrs_actor_system *core; /* NULL: it is over */
} esc_py_seeded;

/* For this thread, which makes its ids by it from now on. NULL without an exception: no memory. */
esc_py_seeded *esc_py_seeded_new(uint64_t seed);
void esc_py_seeded_leave(esc_py_seeded *self); /* the thread makes its ids as ever; NULL is fine */
void esc_py_seeded_end(esc_py_seeded *self);   /* and release it; NULL is fine */
escqrs_random esc_py_seeded_order(esc_py_seeded *self);
escqrs_random esc_py_seeded_ids(esc_py_seeded *self);
/* Its virtual time, since a fixed day. */
escqrs_clock esc_py_seeded_clock(esc_py_seeded *self);
/* An id of a seeded system that this thread has made and that is not over, or of chance. */
escqrs_uuid esc_py_new_uuid(void);

escqrs_stepper esc_py_simulation_stepper(struct esc_py_actor_system *self);
/* Of the projector, whose context is the esc_py_system. */
extern const escqrs_host_ops esc_py_simulation_host_ops;
/* 0, or -1 with ValueError where it has too many. */
int esc_py_simulation_enter(struct esc_py_system *system);
void esc_py_simulation_leave(struct esc_py_system *system); /* twice is once */

/* Whether this thread runs the simulation: the one that made it, or that closes it. NULL, or an
 * actor system that is none: no. */
bool esc_py_simulation_is_here(struct esc_py_actor_system *self);

/* esc_py_wait for something that the system or the store does: the thread of a simulation runs it
 * instead, and TIMEOUT says that nothing is left to do. `target`, or NULL: the entity that is
 * waited for. */
int esc_py_system_wait(struct esc_py_system *self, esc_py_wait_function *wait, void *context,
                       escqrs_actor *target, int64_t deadline_ns);
int esc_py_store_wait(struct esc_py_store *self, esc_py_wait_function *wait, void *context,
                      int64_t deadline_ns);

#endif
