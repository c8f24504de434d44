/* python/definition_parts.h - what definition.c, instance.c, dispatch.c, replay.c and snapshot.c
 * share.
 *
 * `events` of a definition maps a type's id to how it is applied. It is read without the GIL by
 * `decode` and replaced with the GIL: readers see either array; old arrays and entries are kept
 * until the definition goes, so an entry may be held across calls of Python code.
 *
 * Python code that runs in the middle of something may define the class anew and so replace the
 * tables and the layout: whoever calls Python holds a reference of his own to the layout, and looks
 * again at what he found in a table before.
 */
#ifndef ESC_PYTHON_DEFINITION_PARTS_H
#define ESC_PYTHON_DEFINITION_PARTS_H

#include "base/buffer.h"
#include "python/definition.h"
#include "python/state.h"

/* How one type of event is applied. Never changes but for `type`; lives as long as its definition.
 */
typedef struct esc_py_entry {
    struct esc_py_entry *older; /* the list that owns them all */
    PyTypeObject *cls;          /* strong */
    PyObject *applier;          /* strong */
    PyObject *name;             /* strong: the stored name */
    const escqrs_schema *schema;
    escqrs_type *type; /* with the class's own schema, for writing; NULL until first written */
    uint64_t learned;  /* by the store when `type` was found: see upcast.h */
} esc_py_entry;

typedef struct esc_py_events {
    struct esc_py_events *older; /* retired ones */
    size_t count;
    esc_py_entry *by_type[]; /* by escqrs_type_id; NULL: not looked up yet */
} esc_py_events;

struct esc_py_definition {
    PyObject_HEAD
    esc_py_state *state;
    esc_py_system *system; /* borrowed */
    escqrs_aggregate *core;
    PyObject *cls;
    PyObject *name;     /* str */
    PyObject *handlers; /* dict: command class -> (function, check) */
    esc_py_layout *layout;
    PyObject *titles;        /* tuple of str: "Cart.items" for each field, for error texts */
    PyObject *fingerprint;   /* str: the state's type name with it is "Cart@..." */
    escqrs_type *state_type; /* NULL until the first snapshot */
    uint64_t generation;
    uint64_t seen;    /* definitions in the process when the tables were made */
    uint64_t learned; /* by the store then: see upcast.h */
    bool building;    /* the tables are being made, further up this stack */
    size_t applied_count;
    esc_py_entry **applied; /* entries in force */
    esc_py_entry *entries;  /* all */
    esc_buffer scratch;     /* for packing an event */
    _Atomic(esc_py_events *) events;
};

/* An instance of an aggregate class: the live state of an entity, or a frozen copy of it.
 *
 * Its fields may change only while an applier runs with it (see esc_py_instance_apply). The live
 * one belongs to the core: it borrows definition and entity, which outlive it, and is cut off from
 * both when the core lets it go. Small, since there may be millions. */
typedef struct esc_py_instance {
    PyObject_HEAD
    esc_py_definition *definition; /* borrowed while live; strong in copies; NULL once cut off */
    union {
        escqrs_entity *entity; /* borrowed: while live */
        PyObject *id;          /* str: copies, and what is cut off */
    } of;
    int64_t version : 62;
    uint64_t copy : 1; /* a frozen copy of a state, not the live one */
} esc_py_instance;

/* ---- definition.c ---- */
/* The current exception, cleared, as `what: KeyError: 'x'`; `status`, or NO_MEMORY. */
escqrs_status esc_py_failure(escqrs_error *error, escqrs_status status, const char *what);
/* How the class's events are applied; NULL without an exception. */
esc_py_entry *esc_py_entry_of_class(const esc_py_definition *self, PyTypeObject *cls);
esc_py_entry *esc_py_entry_of_name(const esc_py_definition *self, escqrs_slice name);
/* The event was defined anew after `old` was found: take this definition up in its place. NULL with
 * an exception. Runs Python code. */
esc_py_entry *esc_py_entry_replace(esc_py_definition *self, esc_py_entry *old, PyTypeObject *cls);
/* The published entry of a stored type, or NULL; any thread. */
esc_py_entry *esc_py_entry_published(const esc_py_definition *self, const escqrs_type *type);
/* Publish it; with the GIL. -1 for want of memory, no exception set. */
int esc_py_entry_publish(esc_py_definition *self, const escqrs_type *type, esc_py_entry *entry);
/* NameClash, naming two classes ("events", "commands") that bear one stored name. */
void esc_py_raise_clash(esc_py_state *state, const char *what, PyObject *stored_name,
                        PyTypeObject *one, PyTypeObject *other);
/* Whether two classes are definitions of one: -1 with an exception. */
int esc_py_same_class(esc_py_definition *self, PyTypeObject *one, PyTypeObject *other);
/* (function, check) for a command's class: a new reference, NULL without an exception where there
 * is none. */
PyObject *esc_py_handler_of(esc_py_definition *self, PyTypeObject *cls);

/* ---- instance.c ---- */
int esc_py_instance_exec(PyObject *module);
/* The state before the first event, every field of its own. New reference. */
esc_py_instance *esc_py_instance_initial(esc_py_definition *self, escqrs_entity *entity, bool copy);
/* A frozen copy. New reference. */
esc_py_instance *esc_py_instance_copy(esc_py_instance *live);
/* Cut a live one off from its entity: somebody may still hold it (a handler that kept self). */
void esc_py_instance_cut_off(esc_py_instance *self);
/* A field's value as it stands; new reference, NULL without an exception where it is unset. */
PyObject *esc_py_instance_get(esc_py_instance *self, const esc_py_field *field);
/* Set it to a value in stored form: lists (or tuples) and dicts are copied into containers of the
 * state. */
int esc_py_instance_set(esc_py_instance *self, uint32_t index, PyObject *stored);
/* Call an applier: the only time when fields may change. */
int esc_py_instance_apply(esc_py_instance *self, PyObject *applier, PyObject *event);
/* Close a coroutine that nobody is going to await, so that it does not warn; keeps the exception.
 */
void esc_py_coroutine_close(PyObject *coroutine);
/* Whether this thread is inside an applier of this instance; it is compared, never followed. */
bool esc_py_instance_is_applying(const esc_py_instance *self);
/* For who runs a handler inside an applier (it reads another entity's state, whose mailbox has
 * commands): no applier is running as long as that lasts. */
void *esc_py_applying_suspend(void);
void esc_py_applying_resume(void *suspended);

/* ---- dispatch.c ---- */
escqrs_status esc_py_dispatch_handle(void *context, void *state, escqrs_turn *turn,
                                     escqrs_command *command, escqrs_error *error);
PyObject *esc_py_dispatch_emit(PyObject *instance, PyObject *event);

/* ---- replay.c ---- */
escqrs_status esc_py_replay_decode(void *context, const escqrs_recorded *recorded, void **decoded,
                                   escqrs_error *error);
void esc_py_replay_discard(void *context, void *decoded);
escqrs_status esc_py_replay_apply(void *context, void *state, const escqrs_recorded *recorded,
                                  void *decoded, escqrs_error *error);

/* ---- snapshot.c ---- */
escqrs_status esc_py_snapshot_pack(void *context, void *state, escqrs_type **type, void **data,
                                   size_t *size, escqrs_error *error);
escqrs_status esc_py_snapshot_unpack(void *context, void *state, const escqrs_snapshot *snapshot,
                                     escqrs_error *error);

#endif
