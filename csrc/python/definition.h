/* python/definition.h - what a system knows of one aggregate class.
 *
 * A Definition is the context of the core's escqrs_aggregate_ops: handlers by command class,
 * appliers by event class, the layout of the state. _aggregate.py reads the class; here is what
 * runs for every command and event. It belongs to its system, which it borrows, and lives as long.
 * When a class is defined anew (a notebook cell run again) the tables are made again before the
 * next command, and `generation` grows.
 *
 * This is what the rest of the binding needs; what the parts (definition.c, instance.c, dispatch.c,
 * replay.c, snapshot.c) share among themselves stands in definition_parts.h.
 */
#ifndef ESC_PYTHON_DEFINITION_H
#define ESC_PYTHON_DEFINITION_H

#include "python/message.h"
#include "python/reply.h"
#include "python/system.h"

typedef struct esc_py_definition esc_py_definition;
struct esc_py_instance;

/* A command being handled on this thread; on its stack. */
typedef struct esc_py_turn {
    struct esc_py_turn *outer;
    esc_py_system *system;
    struct esc_py_instance *instance; /* that decides */
    escqrs_turn *turn;
    uint64_t serial; /* unique in the process */
    PyObject
        *failure; /* an applier's exception: the command fails even if the handler catches it */
} esc_py_turn;

const esc_py_turn *esc_py_turn_current(void);
/* What is no Exception and ended a replay on this thread (Ctrl-C while an @es.applies method ran):
 * new reference, handed out once; or NULL. For the caller to raise, instead of the error that the
 * entity answers with. */
PyObject *esc_py_definition_interruption(void);
/* Whether this thread is inside an @es.applies method. */
bool esc_py_is_applying(void);

typedef struct esc_py_definition_state {
    PyTypeObject *type;     /* Definition */
    PyTypeObject *instance; /* AggregateBase */
    PyObject *describe;     /* functions of _aggregate.py: describe(cls) -> description */
    PyObject *encode_reply; /* encode_reply(value) -> bytes */
    uint64_t turn_serial;   /* turns so far */
    PyObject *check; /* check(system): SchemaMismatch where a class would misread what is stored */
} esc_py_definition_state;

/* What the handle needs. */
escqrs_aggregate *esc_py_definition_core(esc_py_definition *self);
PyObject *esc_py_definition_name(esc_py_definition *self); /* borrowed str */
extern const escqrs_aggregate_ops esc_py_aggregate_ops;    /* their context: the Definition */
/* Take newer definitions of the class and its messages up; -1 with an exception. */
int esc_py_definition_refresh(esc_py_definition *self);
/* 0 if the aggregate handles commands of this one's class; -1 with TypeError, UnknownType or
 * NameClash. Takes newer definitions up. */
int esc_py_definition_accepts(esc_py_definition *self, PyObject *command);
/* A frozen copy of the state with the first `version` events of the entity; reads the store. New
 * reference. */
PyObject *esc_py_definition_state_at(esc_py_definition *self, escqrs_entity *entity,
                                     int64_t version);
/* The same, of all its events, whatever snapshots there are. */
PyObject *esc_py_definition_refold(esc_py_definition *self, escqrs_entity *entity, int64_t version);
/* The state in the entity's snapshot of that version; None where there is no such one that
 * verifies, SchemaMismatch where it is another definition's. */
PyObject *esc_py_definition_snapshot(esc_py_definition *self, escqrs_entity *entity,
                                     int64_t version);
/* The core's special command: puts a frozen copy of the state into the reply's value. */
escqrs_status esc_py_definition_visit(escqrs_command *command, escqrs_entity *entity, void *state,
                                      int64_t version, escqrs_error *error);

int esc_py_definition_exec(PyObject *module);
int esc_py_definition_traverse_state(esc_py_definition_state *section, visitproc visit, void *arg);
void esc_py_definition_clear_state(esc_py_definition_state *section);

#endif
