/* python/handle.c - sending commands to an entity and reading its state and history.
 *
 * A handle keeps its system alive and is nothing but a name: equal handles name the same entity.
 * All methods may be called from any thread.
 */
#include "python/handle.h"

#include <string.h>

#include "python/actor.h"
#include "python/adopted.h"
#include "python/argument.h"
#include "python/cursor.h"
#include "python/loop.h"
#include "python/metadata.h"
#include "python/provider.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/state.h"
#include "python/text.h"

typedef struct handle_object {
    PyObject_HEAD
    esc_py_system *system;
    esc_py_definition *definition; /* strong */
    escqrs_entity *entity;         /* held */
} handle_object;

/* What may be said with a command beside the command. */
typedef struct sending {
    PyObject *command, *timeout, *key, *metadata, *correlation_id;
} sending;

PyObject *esc_py_handle_new(esc_py_system *system, PyObject *definition, PyObject *id)
{
    escqrs_slice text;
    if (esc_py_text_slice(id, "an id", &text) < 0) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_entity *entity;
    escqrs_status status = escqrs_entity_get(
        esc_py_definition_core((esc_py_definition *)definition), text, &entity, &error);
    if (status != ESCQRS_OK) {
        return esc_py_raise(system->state, &error);
    }
    handle_object *self = PyObject_GC_New(handle_object, system->state->handle.type);
    if (self == NULL) {
        escqrs_entity_release(entity);
        return NULL;
    }
    self->system = (esc_py_system *)Py_NewRef((PyObject *)system);
    self->definition = (esc_py_definition *)Py_NewRef(definition);
    self->entity = entity;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static int handle_traverse(PyObject *object, visitproc visit, void *arg)
{
    handle_object *self = (handle_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT((PyObject *)self->definition);
    return 0;
}

static void handle_dealloc(PyObject *object)
{
    handle_object *self = (handle_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (esc_py_is_own(self->system->fork_generation)) {
        escqrs_entity_release(self->entity);
    }
    Py_DECREF((PyObject *)self->definition);
    Py_DECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- sending ---------------------------------------------------------------------------------------- */

static int parse_sending(const char *method, bool with_timeout, PyObject *const *args,
                         Py_ssize_t count, PyObject *names, sending *out)
{
    *out = (sending){NULL, NULL, NULL, NULL, NULL};
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count > 1) {
        PyErr_Format(PyExc_TypeError, "%s(command, *, ...) takes one positional argument, not %zd",
                     method, count);
        return -1;
    }
    out->command = count == 1 ? args[0] : NULL;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i), *value = args[count + i];
        if (with_timeout && PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
            out->timeout = value;
        } else if (PyUnicode_CompareWithASCIIString(name, "key") == 0) {
            out->key = value;
        } else if (PyUnicode_CompareWithASCIIString(name, "metadata") == 0) {
            out->metadata = value;
        } else if (PyUnicode_CompareWithASCIIString(name, "correlation_id") == 0) {
            out->correlation_id = value;
        } else {
            PyErr_Format(PyExc_TypeError,
                         "%s() takes no argument %R; it takes command%s, key, metadata, "
                         "correlation_id",
                         method, name, with_timeout ? ", timeout" : "");
            return -1;
        }
    }
    if (out->command == NULL) {
        PyErr_Format(PyExc_TypeError, "%s(command) needs a command", method);
        return -1;
    }
    return 0;
}

static int set_metadata(esc_py_reply *reply, PyObject *metadata)
{
    PyObject *items = esc_py_metadata_items(metadata, "");
    if (items == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_GET_SIZE(items);
    reply->metadata = escqrs_alloc_array((size_t)count + 1, sizeof *reply->metadata);
    if (reply->metadata == NULL || PyList_Append(reply->keep, items) < 0) {
        Py_DECREF(items);
        PyErr_NoMemory();
        return -1;
    }
    Py_DECREF(items); /* reply->keep has it */
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);
        if (esc_py_text_slice(PyTuple_GET_ITEM(pair, 0), "a name in metadata",
                              &reply->metadata[i].key) < 0 ||
            esc_py_text_slice(PyTuple_GET_ITEM(pair, 1), "a value in metadata",
                              &reply->metadata[i].value) < 0) {
            return -1;
        }
    }
    reply->command.metadata = reply->metadata;
    reply->command.metadata_count = (size_t)count;
    return 0;
}

/* A UUID is kept as one, where its text comes back the same; any other short text as it is. */
static int set_correlation(esc_py_reply *reply, escqrs_slice text)
{
    escqrs_command *command = &reply->command;
    char again[ESCQRS_UUID_TEXT_SIZE];
    if (escqrs_uuid_parse(text, &command->correlation_id)) {
        escqrs_uuid_format(&command->correlation_id, again);
        if (memcmp(again, text.data, text.size) == 0 &&
            !escqrs_uuid_is_nil(&command->correlation_id)) {
            return 0;
        }
        memset(&command->correlation_id, 0, sizeof command->correlation_id);
    }
    if (text.size == 0 || text.size > ESCQRS_CORRELATION_TEXT_MAX) {
        PyErr_Format(PyExc_ValueError, "correlation_id is a text of 1 to %d bytes, not of %zu",
                     ESCQRS_CORRELATION_TEXT_MAX, text.size);
        return -1;
    }
    memcpy(command->correlation_text, text.data, text.size);
    command->correlation_size = (uint8_t)text.size;
    return 0;
}

static int set_options(esc_py_reply *reply, const sending *how)
{
    bool key = how->key != NULL && how->key != Py_None;
    bool metadata = how->metadata != NULL && how->metadata != Py_None;
    if ((key || metadata) && (reply->keep = PyList_New(0)) == NULL) {
        return -1;
    }
    if (key) {
        if (esc_py_text_slice(how->key, "key", &reply->command.key) < 0 ||
            PyList_Append(reply->keep, how->key) < 0) {
            return -1;
        }
        if (reply->command.key.size == 0) {
            PyErr_SetString(PyExc_ValueError, "key is not empty; leave it out where there is none");
            return -1;
        }
    }
    if (metadata && set_metadata(reply, how->metadata) < 0) {
        return -1;
    }
    if (how->correlation_id != NULL && how->correlation_id != Py_None) {
        escqrs_slice text;
        if (esc_py_text_slice(how->correlation_id, "correlation_id", &text) < 0) {
            return -1;
        }
        return set_correlation(reply, text);
    }
    return 0;
}

/* Whether this thread may send at all; `turn` is the turn of this system that it is in, or NULL. */
static int may_send(handle_object *self, const esc_py_turn **turn)
{
    *turn = esc_py_turn_current();
    if (*turn != NULL && (*turn)->system != self->system) {
        *turn = NULL;
    }
    esc_py_state *state = self->system->state;
    if (*turn == NULL ? esc_py_system_pin(self->system) < 0
                      : esc_py_system_pin_inside(self->system) < 0) {
        return -1;
    }
    if (self->system->readonly) {
        PyErr_Format(esc_py_error_class(state, ESCQRS_READ_ONLY),
                     "%U was opened with readonly=True and takes no commands", self->system->path);
    } else if (esc_py_is_applying()) {
        PyErr_SetString(state->errors.error,
                        "an @es.applies method only changes the state: it runs again in every "
                        "replay, so it sends no commands");
    } else if (esc_py_in_provider()) {
        PyErr_SetString(esc_py_error_class(state, ESCQRS_DEADLOCK),
                        "a provider's method runs while commits wait for it, so it sends no "
                        "commands");
    } else if (esc_py_in_projection()) {
        PyErr_SetString(
            esc_py_error_class(state, ESCQRS_DEADLOCK),
            "a read model's handler only writes rows: it holds the writer, and runs again in every "
            "rebuild, so it sends no commands");
    } else {
        return 0;
    }
    esc_py_system_unpin(self->system);
    return -1;
}

static escqrs_status room_wait(void *context, int64_t deadline_ns)
{
    return escqrs_system_wait_room(context, deadline_ns);
}

/* Simulated: the sender tries again after each step. */
static escqrs_status room_step(void *context, int64_t Py_UNUSED(deadline_ns))
{
    bool *stepped = context;
    bool before = *stepped;
    *stepped = true;
    return before ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

/* After MAILBOX_FULL: 0 to try again; -1 with an exception. */
static int wait_room(handle_object *self, const escqrs_error *error, int64_t deadline_ns)
{
    int running = esc_py_loop_is_running(self->system->state);
    if (running != 0) {
        if (running > 0) {
            esc_py_raise(self->system->state, error);
        }
        return -1;
    }
    bool stepped = false;
    int status = self->system->keeper->simulation == NULL
                     ? esc_py_wait(room_wait, self->system->system, deadline_ns)
                     : esc_py_system_wait(self->system, room_step, &stepped, NULL, deadline_ns);
    if (status == ESCQRS_TIMEOUT) {
        esc_py_raise(self->system->state, error);
    } else if (status > 0) { /* closed meanwhile */
        escqrs_error ended = {0};
        (void)escqrs_error_set(&ended, (escqrs_status)status,
                               "%s was closed while this command waited for room",
                               PyUnicode_AsUTF8(self->system->path));
        esc_py_raise(self->system->state, &ended);
    }
    return status == ESCQRS_OK ? 0 : -1;
}

static esc_py_reply *new_reply(handle_object *self, const sending *how)
{
    if (esc_py_definition_accepts(self->definition, how->command) < 0) {
        return NULL;
    }
    PyObject *command = esc_py_command_keep(self->system->state, how->command);
    if (command == NULL) {
        return NULL;
    }
    esc_py_reply *reply = esc_py_reply_new(self->system->state, self->system, self->definition,
                                           self->entity, command);
    Py_DECREF(command);
    if (reply != NULL && set_options(reply, how) < 0) {
        Py_CLEAR(reply);
    }
    return reply;
}

/* Accept the command without running it. The core's reference is taken where it is accepted. */
static int send(handle_object *self, esc_py_reply *reply, const esc_py_turn *turn,
                int64_t deadline_ns)
{
    escqrs_error error = {0};
    for (;;) {
        escqrs_status status;
        esc_py_reply_hand_over(reply);
        if (turn != NULL) {
            reply->held_turn = turn->serial;
            status = escqrs_turn_send(turn->turn, self->entity, &reply->command, &error);
        } else {
            status = escqrs_entity_send(self->entity, &reply->command, &error);
        }
        if (status == ESCQRS_OK) {
            return 0;
        }
        esc_py_reply_take_back(reply);
        if (status != ESCQRS_MAILBOX_FULL || turn != NULL) {
            esc_py_raise(self->system->state, &error);
            return -1;
        }
        if (wait_room(self, &error, deadline_ns) < 0) {
            return -1;
        }
    }
}

static PyObject *send_later(PyObject *object, const char *method, bool told, PyObject *const *args,
                            Py_ssize_t count, PyObject *names)
{
    handle_object *self = (handle_object *)object;
    const esc_py_turn *turn;
    sending how;
    if (parse_sending(method, false, args, count, names, &how) < 0 || may_send(self, &turn) < 0) {
        return NULL;
    }
    esc_py_reply *reply = new_reply(self, &how);
    if (reply != NULL) {
        reply->told = told;
        if (send(self, reply, turn, INT64_MAX) < 0) {
            Py_CLEAR(reply);
        }
    }
    esc_py_system_unpin(self->system);
    if (!esc_queue_is_empty(&self->system->released)) {
        esc_py_system_tidy(self->system);
    }
    return (PyObject *)reply;
}

static PyObject *handle_submit(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    return send_later(object, "submit", false, args, count, names);
}

static PyObject *handle_tell(PyObject *object, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    PyObject *reply = send_later(object, "tell", true, args, count, names);
    if (reply == NULL) {
        return NULL;
    }
    Py_DECREF(reply);
    Py_RETURN_NONE;
}

/* Run or queue the reply's command, wait, and take its result; the system is pinned. */
static PyObject *ask(handle_object *self, esc_py_reply *reply, const esc_py_turn *turn,
                     PyObject *timeout)
{
    int64_t deadline_ns = INT64_MAX;
    if (timeout != NULL && timeout != Py_None &&
        esc_py_actor_deadline(self->system->keeper->simulation, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    reply->asked = true;
    bool simulated = self->system->keeper->simulation != NULL;
    if ((deadline_ns != INT64_MAX || simulated) && turn == NULL) {
        /* a handler that takes too long must not hold the asker: it runs on a worker; and a
         * simulation draws who is next */
        if (send(self, reply, NULL, deadline_ns) < 0) {
            return NULL;
        }
    } else {
        escqrs_error error = {0};
        escqrs_status status;
        for (;;) {
            esc_py_reply_hand_over(reply);
            status = escqrs_entity_ask(self->entity, &reply->command, &error);
            if (status == ESCQRS_OK) {
                break;
            }
            esc_py_reply_take_back(reply);
            if (status != ESCQRS_MAILBOX_FULL || turn != NULL) {
                return esc_py_raise(self->system->state, &error);
            }
            if (wait_room(self, &error, deadline_ns) < 0) {
                return NULL;
            }
        }
    }
    PyObject *result =
        esc_py_reply_wait(reply, deadline_ns) < 0 ? NULL : esc_py_reply_result(reply);
    PyObject *exception = esc_py_definition_interruption();
    if (exception != NULL) {
        if (result == NULL) {
            PyErr_Clear();
            esc_py_exception_raise(exception);
        }
        Py_DECREF(exception);
    }
    return result;
}

static PyObject *handle_ask(PyObject *object, PyObject *const *args, Py_ssize_t count,
                            PyObject *names)
{
    handle_object *self = (handle_object *)object;
    const esc_py_turn *turn;
    sending how;
    if (parse_sending("ask", true, args, count, names, &how) < 0 || may_send(self, &turn) < 0) {
        return NULL;
    }
    esc_py_reply *reply = new_reply(self, &how);
    PyObject *result = reply == NULL ? NULL : ask(self, reply, turn, how.timeout);
    Py_XDECREF((PyObject *)reply);
    esc_py_system_unpin(self->system);
    if (!esc_queue_is_empty(&self->system->released)) {
        esc_py_system_tidy(self->system);
    }
    return result;
}

/* ---- snapshots --------------------------------------------------------------------------------------- */

static PyObject *handle_snapshot(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    handle_object *self = (handle_object *)object;
    const esc_py_turn *turn;
    PyObject *result = NULL;
    if (may_send(self, &turn) < 0) {
        return NULL;
    }
    esc_py_reply *reply = esc_py_definition_refresh(self->definition) < 0
                              ? NULL
                              : esc_py_reply_new(self->system->state, self->system,
                                                 self->definition, self->entity, NULL);
    if (reply != NULL) {
        reply->command.special = true;
        reply->command.snapshot = true;
        result = ask(self, reply, turn, NULL);
        Py_DECREF((PyObject *)reply);
    }
    esc_py_system_unpin(self->system);
    return result;
}

/* _refold(version) and _snapshot_state(version), for System.verify_snapshots */
static PyObject *read_state(PyObject *object, PyObject *asked,
                            PyObject *(*read)(esc_py_definition *, escqrs_entity *, int64_t))
{
    handle_object *self = (handle_object *)object;
    long long version = PyLong_AsLongLong(asked);
    if ((version == -1 && PyErr_Occurred()) || esc_py_system_pin_inside(self->system) < 0) {
        return NULL;
    }
    PyObject *result = esc_py_definition_refresh(self->definition) < 0
                           ? NULL
                           : read(self->definition, self->entity, version);
    esc_py_system_unpin(self->system);
    return result;
}

static PyObject *handle_refold(PyObject *object, PyObject *version)
{
    return read_state(object, version, esc_py_definition_refold);
}

static PyObject *handle_snapshot_state(PyObject *object, PyObject *version)
{
    return read_state(object, version, esc_py_definition_snapshot);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static int current_version(handle_object *self, int64_t *version)
{
    escqrs_error error = {0};
    escqrs_status status;
    Py_BEGIN_ALLOW_THREADS
    status = escqrs_store_version(self->system->store, escqrs_entity_stream(self->entity), version,
                                  &error);
    Py_END_ALLOW_THREADS
    if (status != ESCQRS_OK) {
        esc_py_raise(self->system->state, &error);
        return -1;
    }
    return 0;
}

static PyObject *handle_get_state(PyObject *object, void *Py_UNUSED(closure))
{
    handle_object *self = (handle_object *)object;
    const esc_py_turn *turn = esc_py_turn_current();
    if (turn != NULL && turn->system != self->system) {
        turn = NULL;
    }
    if (esc_py_in_projection()) {
        PyErr_SetString(
            esc_py_error_class(self->system->state, ESCQRS_DEADLOCK),
            "a read model's handler holds the writer, which an entity's state may wait for");
        return NULL;
    }
    if ((turn == NULL ? esc_py_system_pin(self->system) : esc_py_system_pin_inside(self->system)) <
        0) {
        return NULL;
    }
    esc_py_reply *reply = NULL;
    PyObject *result = NULL;
    int64_t version = 0;
    bool ready = esc_py_definition_refresh(self->definition) == 0;
    if (ready &&
        self->system->readonly) { /* another process writes: what is in memory may be old */
        if (current_version(self, &version) == 0) {
            result = esc_py_definition_state_at(self->definition, self->entity, version);
        }
    } else if (ready) {
        reply = esc_py_reply_new(self->system->state, self->system, self->definition, self->entity,
                                 NULL);
    }
    if (reply != NULL) {
        reply->command.special = true;
        result = ask(self, reply, turn, NULL);
        Py_DECREF((PyObject *)reply);
    }
    esc_py_system_unpin(self->system);
    return result;
}

static PyObject *handle_get_version(PyObject *object, void *Py_UNUSED(closure))
{
    handle_object *self = (handle_object *)object;
    int64_t version = 0;
    if (esc_py_system_pin_inside(self->system) < 0) {
        return NULL;
    }
    int result = current_version(self, &version);
    esc_py_system_unpin(self->system);
    return result < 0 ? NULL : PyLong_FromLongLong(version);
}

static PyObject *handle_state_at(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"version", NULL};
    handle_object *self = (handle_object *)object;
    PyObject *asked, *result = NULL;
    int64_t current = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &asked)) {
        return NULL;
    }
    if (!PyLong_Check(asked) || PyBool_Check(asked)) {
        PyErr_Format(PyExc_TypeError, "version is an int, not %s", Py_TYPE(asked)->tp_name);
        return NULL;
    }
    if (esc_py_system_pin_inside(self->system) < 0) {
        return NULL;
    }
    int overflow = 0;
    long long version = PyLong_AsLongLongAndOverflow(asked, &overflow);
    if (esc_py_definition_refresh(self->definition) == 0 && current_version(self, &current) == 0) {
        if (overflow != 0 || version < 0 || version > current) {
            escqrs_slice stream = escqrs_entity_stream(self->entity);
            PyObject *name = esc_py_text(stream);
            if (name != NULL) {
                PyErr_Format(PyExc_ValueError, "%U has the versions 0 to %lld, not %S", name,
                             (long long)current, asked);
                Py_DECREF(name);
            }
        } else {
            result = esc_py_definition_state_at(self->definition, self->entity, version);
        }
    }
    esc_py_system_unpin(self->system);
    return result;
}

static PyObject *handle_history(PyObject *object, PyObject *args, PyObject *kwargs)
{
    handle_object *self = (handle_object *)object;
    if (esc_py_system_pin_inside(self->system) < 0) {
        return NULL;
    }
    PyObject *cursor = esc_py_cursor_new(self->system->keeper, (PyObject *)self->system,
                                         escqrs_entity_stream(self->entity), args, kwargs);
    esc_py_system_unpin(self->system);
    return cursor;
}

static PyObject *handle_get_id(PyObject *object, void *Py_UNUSED(closure))
{
    return esc_py_text(escqrs_entity_id(((handle_object *)object)->entity));
}

static PyObject *handle_get_stream(PyObject *object, void *Py_UNUSED(closure))
{
    return esc_py_text(escqrs_entity_stream(((handle_object *)object)->entity));
}

static PyObject *handle_get_system(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((handle_object *)object)->system);
}

static PyObject *handle_repr(PyObject *object)
{
    handle_object *self = (handle_object *)object;
    PyObject *id = handle_get_id(object, NULL);
    PyObject *text = NULL;
    if (id != NULL) {
        text = PyUnicode_FromFormat(
            "<%U %R in %U%s>", esc_py_definition_name(self->definition), id, self->system->path,
            atomic_load_explicit(&self->system->closed, memory_order_relaxed) ? ", closed" : "");
        Py_DECREF(id);
    }
    return text;
}

static PyObject *handle_compare(PyObject *left, PyObject *right, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || Py_TYPE(left) != Py_TYPE(right)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    handle_object *a = (handle_object *)left, *b = (handle_object *)right;
    bool equal = a->system == b->system && escqrs_slice_equal(escqrs_entity_stream(a->entity),
                                                              escqrs_entity_stream(b->entity));
    return PyBool_FromLong((operation == Py_EQ) == equal);
}

static Py_hash_t handle_hash(PyObject *object)
{
    handle_object *self = (handle_object *)object;
    PyObject *stream = esc_py_text(escqrs_entity_stream(self->entity));
    Py_hash_t hash = stream == NULL ? -1 : PyObject_Hash(stream);
    Py_XDECREF(stream);
    return hash;
}

static PyMethodDef handle_methods[] = {
    {"ask", _PyCFunction_CAST(handle_ask), METH_FASTCALL | METH_KEYWORDS,
     "ask($self, command, *, timeout=None, key=None, metadata=None, correlation_id=None)\n--\n\n"
     "Send the command and return the handler's answer, once its events are durable.\n\n"
     "timeout: seconds; then es.Timeout, and the command may still be carried out. key: a name for "
     "this command: one\n"
     "that was used for this entity runs nothing and answers the first reply. metadata: mapping of "
     "str to str, stored\n"
     "with the events. correlation_id: a text; a new UUID by default, in a handler that of its "
     "command.\n"
     "Raises what the handler raises; TypeError for what is no command of this aggregate; "
     "es.Deadlock; es.Closed;\n"
     "es.MailboxFull on an event loop with max_in_flight commands under way (elsewhere it waits)."},
    {"submit", _PyCFunction_CAST(handle_submit), METH_FASTCALL | METH_KEYWORDS,
     "submit($self, command, *, key=None, metadata=None, correlation_id=None)\n--\n\n"
     "Send the command and return a Reply at once: reply.result(timeout) or await reply. Arguments "
     "as of ask."},
    {"tell", _PyCFunction_CAST(handle_tell), METH_FASTCALL | METH_KEYWORDS,
     "tell($self, command, *, key=None, metadata=None, correlation_id=None)\n--\n\n"
     "Send the command and forget it. A failure is logged to the logger \"escqrs\" and kept in "
     "system.dead_letters. Arguments as of ask."},
    {"state_at", _PyCFunction_CAST(handle_state_at), METH_VARARGS | METH_KEYWORDS,
     "state_at($self, version)\n--\n\nA read-only state as it was with the first `version` events; "
     "ValueError outside of "
     "0 to the current version."},
    {"snapshot", handle_snapshot, METH_NOARGS,
     "snapshot($self)\n--\n\nStore a snapshot of the state, as of all that this thread sent "
     "before, "
     "and return its version once it is durable: 0, and none, where there are no events."},
    {"_refold", handle_refold, METH_O, NULL},
    {"_snapshot_state", handle_snapshot_state, METH_O, NULL},
    {"history", _PyCFunction_CAST(handle_history), METH_VARARGS | METH_KEYWORDS,
     "history($self, *, after=0, upto=None, match=(), reverse=False, limit=None, "
     "deleted='raise')\n--\n\n"
     "Iterate over the stored events of this entity, oldest first; after and upto are versions."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Handle[Cart], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"state", handle_get_state, NULL,
     "A read-only copy of the state, as of all that this thread sent before and as durable as a "
     "reply.",
     NULL},
    {"version", handle_get_version, NULL, "Stored events of this entity; 0 where there are none.",
     NULL},
    {"id", handle_get_id, NULL, "The entity's id.", NULL},
    {"stream", handle_get_stream, NULL, "Name of its stream: \"{aggregate}/{id}\".", NULL},
    {"system", handle_get_system, NULL, "The system it lives in.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc,
     "A reference to one entity: shop[Cart, \"cart-1\"]. The entity is loaded when first used."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_repr, handle_repr},
    {Py_tp_richcompare, handle_compare},
    {Py_tp_hash, handle_hash},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "escqrs._core.Handle",
    .basicsize = sizeof(handle_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

int esc_py_handle_exec(PyObject *module)
{
    esc_py_handle_state *section = &esc_py_state_of(module)->handle;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    return section->type == NULL || PyModule_AddType(module, section->type) < 0 ? -1 : 0;
}

int esc_py_handle_traverse_state(esc_py_handle_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    return 0;
}

void esc_py_handle_clear_state(esc_py_handle_state *section)
{
    Py_CLEAR(section->type);
}
