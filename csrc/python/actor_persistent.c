/* python/actor_persistent.c - es.PersistentActor: what an instance persists, and its properties.
 * Locks: none; the GIL.
 */
#include "python/actor_persist_parts.h"

#include <structmember.h>

#include "python/errors.h"
#include "python/state.h"

/* ---- events --------------------------------------------------------------------------------------- */

static escqrs_type *type_of(esc_py_persist *self, PyTypeObject *cls)
{
    esc_py_store *store = (esc_py_store *)self->store;
    PyObject *known = PyDict_GetItemWithError(store->types, (PyObject *)cls);
    if (known != NULL || PyErr_Occurred()) {
        return known == NULL ? NULL : PyLong_AsVoidPtr(known);
    }
    PyObject *claimed =
        PyObject_CallFunctionObjArgs(store->state->store.claim, self->store, (PyObject *)cls, NULL);
    const escqrs_schema *schema = claimed == NULL ? NULL : esc_py_message_schema(cls);
    Py_XDECREF(claimed);
    if (schema == NULL) {
        return NULL;
    }
    Py_ssize_t size = 0;
    const char *name = PyUnicode_AsUTF8AndSize(esc_py_class_stored_name(cls), &size);
    void *record = NULL;
    size_t record_size = 0;
    escqrs_error error = {0};
    escqrs_type *type = NULL;
    escqrs_status status =
        name == NULL ? ESCQRS_INVALID : escqrs_schema_record(schema, &record, &record_size, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(self->core, (escqrs_slice){name, (size_t)size},
                                   (escqrs_slice){record, record_size}, &type, &error);
    }
    escqrs_free(record);
    if (status != ESCQRS_OK) {
        return PyErr_Occurred() ? NULL : esc_py_raise(store->state, &error);
    }
    PyObject *number = PyLong_FromVoidPtr(type);
    int kept = number == NULL ? -1 : PyDict_SetItem(store->types, (PyObject *)cls, number);
    Py_XDECREF(number);
    return kept < 0 ? NULL : type;
}

static int too_large(esc_py_persist *self, PyTypeObject *cls, size_t size, size_t limit)
{
    PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TOO_LARGE),
                 "%s of %zu bytes is larger than the limit of %zu; es.Store(max_message_bytes=) "
                 "sets it",
                 cls->tp_name, size, limit);
    return -1;
}

/* Collect an event, as bytes. */
static int add_event(esc_py_persist *self, PyObject *event)
{
    esc_py_flight *turn = self->turn;
    size_t limit = ((esc_py_store *)self->store)->backing->message_bytes_max;
    escqrs_type *type = type_of(self, Py_TYPE(event));
    if (type == NULL) {
        return -1;
    }
    if (turn->event_count == ESCQRS_COMMIT_EVENTS_MAX) {
        PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TOO_LARGE),
                     "one message persists at most %d events", ESCQRS_COMMIT_EVENTS_MAX);
        return -1;
    }
    if (turn->event_count == turn->event_capacity) {
        size_t capacity = turn->event_capacity == 0 ? 2 : turn->event_capacity * 2;
        escqrs_new_event *grown = escqrs_realloc(turn->events, capacity * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        turn->events = grown;
        turn->event_capacity = capacity;
    }
    size_t before = turn->data.size;
    if (esc_py_message_pack(event, &turn->data) < 0) {
        turn->data.size = before;
        return -1;
    }
    size_t size = turn->data.size - before;
    if (size > limit) {
        turn->data.size = before;
        return too_large(self, Py_TYPE(event), size, limit);
    }
    /* the data's address is set when all are there */
    turn->events[turn->event_count++] = (escqrs_new_event){.type = type, .data = {NULL, size}};
    return 0;
}

static esc_py_persist *persist_of(PyObject *object, const char *method)
{
    esc_py_persistent *self = (esc_py_persistent *)object;
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    if (self->context == NULL) {
        PyErr_Format(state->errors.error,
                     "%s.%s: this instance belongs to no running actor; spawn it with "
                     "es.Props(..., middleware=[es.persistence(store)])",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    return self->context->persist;
}

/* Whether this thread handles the message of the open turn: it runs the actor, or the event loop of
 * its async receive. -1 with an exception. */
static int is_turn_here(esc_py_persist *self, esc_py_context *context)
{
    if (!self->open || esc_py_persist_holds() == self || !context->suspended) {
        return self->open && esc_py_persist_holds() == self;
    }
    PyObject *result = PyObject_CallMethod((PyObject *)self->system, "_is_on_loop", NULL);
    int here = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return here;
}

/* As above, with its turn open on this thread's actor. */
static esc_py_persist *writing(PyObject *object, const char *method)
{
    esc_py_persist *self = persist_of(object, method);
    if (self == NULL) {
        return NULL;
    }
    int own = is_turn_here(self, ((esc_py_persistent *)object)->context);
    if (own <= 0) {
        if (own == 0) {
            PyErr_Format(self->system->state->errors.error, "%s.%s was called %s",
                         Py_TYPE(object)->tp_name, method,
                         self->open ? "by a thread that does not handle the actor's message; what "
                                      "is persisted belongs to a message: persist there, or tell "
                                      "the actor"
                                    : "outside of a message");
        }
        return NULL;
    }
    if (self->applying) { /* what replay would refuse is refused at once */
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called while the actor handles an event that it has persisted; a "
                     "replay gives it the event again, so it only changes its state then, and "
                     "calls %s where it handles the command",
                     Py_TYPE(object)->tp_name, method, method);
        return NULL;
    }
    if (self->recovering) {
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called while it is recovered from what is stored",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    if (!self->recovered) { /* what is stored is not known yet, so it would stand before that */
        PyErr_Format(self->system->state->errors.error,
                     "%s.%s was called before the actor was recovered from what is stored: call it "
                     "when ReplayComplete comes",
                     Py_TYPE(object)->tp_name, method);
        return NULL;
    }
    return self;
}

/* Give the event to the receiver. */
static int apply(esc_py_persistent *self, PyObject *event)
{
    esc_py_context *context = (esc_py_context *)Py_NewRef((PyObject *)self->context);
    esc_py_persist *persist = context->persist;
    persist->applying = true;
    PyObject *result = esc_py_persist_call(context, event);
    persist->applying = false;
    Py_DECREF((PyObject *)context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *persistent_persist(PyObject *object, PyObject *event)
{
    esc_py_persist *self = writing(object, "persist");
    if (self == NULL) {
        return NULL;
    }
    esc_py_state *state = self->system->state;
    esc_py_kind kind = esc_py_message_kind(state, event);
    if (kind != ESC_PY_EVENT && kind != ESC_PY_MESSAGE) {
        PyErr_Format(PyExc_TypeError, "persist takes an es.Event or an es.Message, not %s",
                     Py_TYPE(event)->tp_name);
        return NULL;
    }
    if (self->snapshotting) {
        PyErr_SetString(state->errors.error, "persist was called while the actor handles "
                                             "RequestSnapshot: answer it with persist_snapshot");
        return NULL;
    }
    if (self->core != NULL) {
        if (add_event(self, event) < 0) {
            return NULL;
        }
    } else if ((self->pending == NULL && (self->pending = PyList_New(0)) == NULL) ||
               PyList_Append(self->pending, event) < 0) {
        return NULL;
    }
    self->version++;
    self->applied = true;
    if (apply((esc_py_persistent *)object, event) < 0) {
        self->broken = true; /* what it said is the message's failure, even if it is caught */
        return NULL;
    }
    return Py_NewRef(event);
}

static PyObject *persistent_persist_snapshot(PyObject *object, PyObject *snapshot)
{
    esc_py_persist *self = writing(object, "persist_snapshot");
    if (self == NULL) {
        return NULL;
    }
    esc_py_kind kind = esc_py_message_kind(self->system->state, snapshot);
    if (kind == ESC_PY_NONE || kind == ESC_PY_COMMAND) {
        PyErr_Format(PyExc_TypeError, "persist_snapshot takes an es.Message, not %s",
                     Py_TYPE(snapshot)->tp_name);
        return NULL;
    }
    if (self->version == 0) {
        Py_RETURN_NONE; /* there is nothing that it could save from being replayed */
    }
    if (self->core == NULL) {
        Py_XSETREF(self->pending_snapshot,
                   Py_BuildValue("(LO)", (long long)self->version, snapshot));
        return self->pending_snapshot == NULL ? NULL : Py_NewRef(Py_None);
    }
    escqrs_type *type = type_of(self, Py_TYPE(snapshot));
    esc_py_flight *turn = self->turn;
    turn->commit.snapshot = NULL; /* one that was there before is no more */
    esc_buffer_reset(&turn->snapshot_data);
    if (type == NULL || esc_py_message_pack(snapshot, &turn->snapshot_data) < 0) {
        return NULL;
    }
    turn->snapshot =
        (escqrs_new_snapshot){.stream = self->stream, .version = self->version, .type = type};
    turn->commit.snapshot = &turn->snapshot;
    Py_RETURN_NONE;
}

/* ---- the type ------------------------------------------------------------------------------------------ */

/* delete_events(upto=None), delete_snapshots(upto=None): functions of _persist.py. */
static PyObject *delete_from(PyObject *object, PyObject *args, PyObject *kwargs, const char *method,
                             PyObject *function)
{
    static char *names[] = {"upto", NULL};
    PyObject *upto = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &upto)) {
        return NULL;
    }
    esc_py_persist *self = persist_of(object, method);
    return self == NULL
               ? NULL
               : PyObject_CallFunctionObjArgs(function, self->store, self->name, upto, NULL);
}

static PyObject *persistent_delete_snapshots(PyObject *object, PyObject *args, PyObject *kwargs)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    return state == NULL ? NULL
                         : delete_from(object, args, kwargs, "delete_snapshots",
                                       state->actor.delete_snapshots);
}

static PyObject *persistent_delete_events(PyObject *object, PyObject *args, PyObject *kwargs)
{
    esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
    return state == NULL
               ? NULL
               : delete_from(object, args, kwargs, "delete_events", state->actor.delete_events);
}

static PyObject *get_recovering(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_persistent *self = (esc_py_persistent *)object;
    return PyBool_FromLong(self->context != NULL && self->context->persist != NULL &&
                           self->context->persist->recovering);
}

static PyObject *get_version(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_persist *self = persist_of(object, "version");
    return self == NULL ? NULL : PyLong_FromLongLong(self->version);
}

static PyObject *get_name(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_persist *self = persist_of(object, "name");
    return self == NULL ? NULL : Py_NewRef(self->name);
}

/* _at(version): recovery has come so far. */
static PyObject *persistent_at(PyObject *object, PyObject *version)
{
    esc_py_persist *self = persist_of(object, "_at");
    int64_t number = self == NULL ? -1 : PyLong_AsLongLong(version);
    if (number < 0) {
        return NULL;
    }
    self->version = number;
    Py_RETURN_NONE;
}

static int persistent_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_persistent *self = (esc_py_persistent *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->context);
    Py_VISIT(self->dict);
    return 0;
}

static int persistent_clear(PyObject *object)
{
    Py_CLEAR(((esc_py_persistent *)object)->dict);
    return 0;
}

static void persistent_dealloc(PyObject *object)
{
    esc_py_persistent *self = (esc_py_persistent *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    Py_CLEAR(self->context);
    Py_CLEAR(self->dict);
    type->tp_free(object);
    Py_DECREF(type);
}

#define KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef persistent_methods[] = {
    {"persist", persistent_persist, METH_O,
     "persist($self, event, /)\n--\n\nStore an event with the message that is being handled: hand "
     "it to receive at once and return it.\n\n"
     "All events of one message are one atomic append, and what the message sends or answers "
     "leaves when they are\ndurable."},
    {"persist_snapshot", persistent_persist_snapshot, METH_O,
     "persist_snapshot($self, state, /)\n--\n\nStore a state, an es.Message, as that of the "
     "present version; mostly in answer to es.RequestSnapshot."},
    {"delete_snapshots", _PyCFunction_CAST(persistent_delete_snapshots), KEYWORDS,
     "delete_snapshots($self, upto=None)\n--\n\nDelete this actor's snapshots up to a version, or "
     "all."},
    {"delete_events", _PyCFunction_CAST(persistent_delete_events), KEYWORDS,
     "delete_events($self, upto=None)\n--\n\nDelete this actor's events up to a version, or all "
     "that "
     "are stored, for which a snapshot stands.\n\n"
     "es.NotCovered where there is none at that version or later."},
    {"_at", persistent_at, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef persistent_getset[] = {
    {"recovering", get_recovering, NULL,
     "Whether what is received comes from the store: do nothing then but change the state.", NULL},
    {"version", get_version, NULL, "How many events the actor has, with those under way.", NULL},
    {"name", get_name, NULL, "The name it was spawned under, which is its stream's.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef persistent_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(esc_py_persistent, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_persistent, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot persistent_slots[] = {
    {Py_tp_doc, "The part of es.PersistentActor that is written in C."},
    {Py_tp_dealloc, persistent_dealloc},
    {Py_tp_traverse, persistent_traverse},
    {Py_tp_clear, persistent_clear},
    {Py_tp_methods, persistent_methods},
    {Py_tp_getset, persistent_getset},
    {Py_tp_members, persistent_members},
    {0, NULL},
};

static PyType_Spec persistent_spec = {
    .name = "escqrs._core.PersistentActorBase",
    .basicsize = sizeof(esc_py_persistent),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = persistent_slots,
};

int esc_py_persist_exec(PyObject *module)
{
    esc_py_actor_state *section = &esc_py_state_of(module)->actor;
    section->persistent_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &persistent_spec, NULL);
    return section->persistent_type == NULL ||
                   PyModule_AddType(module, section->persistent_type) < 0
               ? -1
               : 0;
}
