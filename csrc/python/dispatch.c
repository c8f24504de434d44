/* python/dispatch.c - a command on its way through a handler, and emit.
 *
 * Locks: none; the GIL guards everything. A turn lies on the stack of the thread that runs the
 * handler; `turn_now` is the innermost, since a handler may ask other entities.
 */
#include "python/adopted.h"
#include "python/definition_parts.h"
#include "python/text.h"
#include "python/upcast.h"

#define SCRATCH_BYTES_MAX 65536 /* of packing space that a definition keeps */

static _Thread_local esc_py_turn *turn_now;

const esc_py_turn *esc_py_turn_current(void)
{
    return turn_now;
}

/* ---- the reply ------------------------------------------------------------------------------------ */

/* `check` is what _reply_check of _aggregate.py made. */
static int answer_matches(PyObject *check, PyObject *value)
{
    if (check == Py_None) {
        return 1;
    }
    if (check == (PyObject *)&PyLong_Type) {
        return PyLong_Check(value) && !PyBool_Check(value);
    }
    if (check == (PyObject *)&PyFloat_Type) {
        return PyFloat_Check(value) || (PyLong_Check(value) && !PyBool_Check(value));
    }
    if (PyType_Check(check)) {
        return PyObject_TypeCheck(value, (PyTypeObject *)check);
    }
    PyObject *result = PyObject_CallOneArg(check, value);
    int matches = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return matches;
}

/* What the caller gets of an answer: nothing that changes later. New reference. */
static PyObject *leave_state(esc_py_definition *self, esc_py_instance *state, PyObject *answer)
{
    if (answer != (PyObject *)state) {
        return esc_py_container_plain(self->state, answer);
    }
    esc_py_instance *copy = esc_py_instance_copy(state);
    if (copy != NULL) {
        copy->version = state->version;
    }
    return (PyObject *)copy;
}

/* Check the handler's answer; store it where the command has a key. What goes to the caller: new
 * reference. */
static PyObject *take_answer(esc_py_definition *self, esc_py_reply *reply, const esc_py_turn *turn,
                             PyObject *check, PyObject *answer)
{
    if (PyCoro_CheckExact(answer)) {
        PyErr_Format(PyExc_TypeError,
                     "the handler of %U for %s is async behind its decorator; it has to be a plain "
                     "method: it runs to its end on a thread of the engine",
                     self->name, Py_TYPE(reply->message)->tp_name);
        esc_py_coroutine_close(answer);
        return NULL;
    }
    int matches = answer_matches(check, answer);
    if (matches < 0) {
        return NULL;
    }
    if (!matches) {
        PyErr_Format(PyExc_TypeError,
                     "%U answered %s with %.200R (%s), which is not the type in es.Command[...]; "
                     "nothing was stored",
                     self->name, Py_TYPE(reply->message)->tp_name, answer,
                     Py_TYPE(answer)->tp_name);
        return NULL;
    }
    PyObject *own = leave_state(self, turn->instance, answer);
    if (own == NULL || reply->command.key.size == 0) {
        return own;
    }
    PyObject *bytes = PyObject_CallOneArg(self->state->definition.encode_reply, own);
    if (bytes == NULL) {
        Py_DECREF(own);
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_slice slice = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    escqrs_status status = escqrs_turn_reply(turn->turn, slice, &error);
    Py_DECREF(bytes);
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        Py_CLEAR(own);
    }
    return own;
}

static void take_failure(esc_py_reply *reply)
{
    char where[300];
    escqrs_slice stream = escqrs_entity_stream(reply->entity);
    snprintf(where, sizeof where, "%.*s", stream.size > 256 ? 256 : (int)stream.size,
             (const char *)stream.data);
    PyObject *what = PyType_GetName(Py_TYPE(reply->message));
    if (what == NULL) {
        PyErr_Clear();
        what = PyUnicode_FromString("?");
    }
    esc_py_reply_fail(reply, esc_py_exception_take(where, what == NULL ? Py_None : what));
    Py_XDECREF(what);
}

/* ---- handling ------------------------------------------------------------------------------------- */

/* Call the handler; what it answers, or NULL with an exception. */
static PyObject *run_handler(esc_py_definition *self, esc_py_turn *frame, PyObject *handler,
                             PyObject *message)
{
    PyObject *arguments[] = {(PyObject *)frame->instance, message};
    frame->outer = turn_now;
    frame->serial = ++self->state->definition.turn_serial;
    frame->instance->version = escqrs_turn_version(frame->turn);
    turn_now = frame;
    void *applying = esc_py_applying_suspend();
    PyObject *answer = PyObject_Vectorcall(PyTuple_GET_ITEM(handler, 0), arguments, 2, NULL);
    esc_py_applying_resume(applying);
    turn_now = frame->outer;
    if (frame->failure != NULL) {
        Py_CLEAR(answer);
        PyErr_Clear();
        PyErr_SetObject((PyObject *)Py_TYPE(frame->failure), frame->failure);
        Py_CLEAR(frame->failure);
    }
    return answer;
}

escqrs_status esc_py_dispatch_handle(void *context, void *state, escqrs_turn *turn,
                                     escqrs_command *command, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_reply *reply = esc_py_reply_of(command);
    PyTypeObject *cls = esc_py_class_for(self->state, reply->message, ESC_PY_COMMAND);
    PyObject *handler = cls == NULL ? NULL : esc_py_handler_of(self, cls);
    if (handler == NULL) { /* the class was defined anew, without it, after the command was sent */
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "%U has no @es.handles method for %s any more",
                         self->name, Py_TYPE(reply->message)->tp_name);
        }
        take_failure(reply);
        return escqrs_error_set(error, ESCQRS_REJECTED, "no handler");
    }
    esc_py_turn frame = {.system = self->system, .instance = state, .turn = turn};
    int64_t before = escqrs_turn_version(turn);
    PyObject *answer = run_handler(self, &frame, handler, reply->message);
    PyObject *own = NULL;
    if (answer != NULL) {
        own = take_answer(self, reply, &frame, PyTuple_GET_ITEM(handler, 1), answer);
        Py_DECREF(answer);
    }
    Py_DECREF(handler);
    if (own == NULL) {
        take_failure(reply);
        if (escqrs_turn_version(turn) != before) {
            escqrs_turn_spoil(turn);
        }
        return escqrs_error_set(error, ESCQRS_REJECTED, "the handler raised");
    }
    reply->value = own;
    if (!reply->told &&
        command->key.size == 0) { /* with a key the stored reply may still be asked for */
        Py_CLEAR(reply->message);
    }
    return ESCQRS_OK;
}

/* ---- emitting ------------------------------------------------------------------------------------- */

/* The type that the entry's events are stored with. */
static int store_type(esc_py_definition *self, esc_py_entry *entry)
{
    esc_py_backing *backing = self->system->keeper->backing;
    uint64_t learned = backing->learned;
    escqrs_type *type = esc_py_type_of_class(backing, entry->cls);
    if (type == NULL) {
        return -1;
    }
    entry->type = type;
    entry->learned = learned;
    return 0;
}

/* For an event of a class that no applier was read with: another definition of one that was? */
static esc_py_entry *entry_of_namesake(esc_py_definition *self, PyTypeObject *cls)
{
    PyObject *name = esc_py_class_stored_name(cls);
    esc_py_entry *entry = esc_py_entry_of_name(self, esc_py_slice_of(name));
    if (entry == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "no @es.applies method of %U takes %s; write one, be it one that passes",
                     self->name, cls->tp_name);
        return NULL;
    }
    int same = esc_py_same_class(self, entry->cls, cls);
    if (same > 0) {
        return esc_py_entry_replace(self, entry, cls);
    }
    if (same == 0) {
        esc_py_raise_clash(self->state, "events", name, entry->cls, cls);
    }
    return NULL;
}

static esc_py_entry *entry_to_emit(esc_py_definition *self, PyObject *event)
{
    esc_py_entry *entry = esc_py_entry_of_class(self, Py_TYPE(event));
    if (entry == NULL) {
        PyTypeObject *cls = esc_py_class_for(self->state, event, ESC_PY_EVENT);
        if (cls == NULL) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_TypeError,
                             "%U.emit takes an event (an instance of es.Event), not %s", self->name,
                             Py_TYPE(event)->tp_name);
            }
            return NULL;
        }
        entry = esc_py_entry_of_class(self, cls); /* it may be a twin */
        entry = entry != NULL ? entry : entry_of_namesake(self, cls);
    }
    bool known = entry != NULL && entry->type != NULL &&
                 entry->learned == self->system->keeper->backing->learned;
    if (entry != NULL && !known && store_type(self, entry) < 0) {
        return NULL;
    }
    return entry;
}

/* Add the event's bytes to the turn. */
static int emit_bytes(esc_py_definition *self, escqrs_turn *turn, esc_py_entry *entry,
                      PyObject *event)
{
    esc_buffer buffer = self->scratch;
    self->scratch = (esc_buffer){0}; /* taken: should packing run Python, others find none */
    esc_buffer_reset(&buffer);
    escqrs_error error = {0};
    int result = esc_py_event_pack(entry->cls, event, &buffer);
    if (result == 0 && buffer.size > self->system->message_bytes_max) {
        (void)escqrs_error_set(&error, ESCQRS_TOO_LARGE,
                               "%s of %zu bytes is larger than the limit of %zu; "
                               "es.open(max_message_bytes=) sets it",
                               Py_TYPE(event)->tp_name, buffer.size,
                               self->system->message_bytes_max);
        esc_py_raise(self->state, &error);
        result = -1;
    }
    if (result == 0 &&
        escqrs_turn_emit(turn, entry->type, esc_buffer_slice(&buffer), &error) != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        result = -1;
    }
    if (buffer.capacity > SCRATCH_BYTES_MAX) {
        esc_buffer_fini(&buffer);
    }
    esc_buffer_fini(&self->scratch);
    self->scratch = buffer;
    return result;
}

/* The applier's exception fails the command, even if the handler catches it. */
static void keep_failure(esc_py_turn *turn)
{
    if (turn->failure != NULL) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    turn->failure = Py_NewRef(value);
    PyErr_Restore(type, value, traceback);
}

PyObject *esc_py_dispatch_emit(PyObject *object, PyObject *event)
{
    esc_py_instance *instance = (esc_py_instance *)object;
    esc_py_definition *self = instance->definition;
    esc_py_turn *turn = turn_now;
    if (turn == NULL || turn->instance != instance || self == NULL || esc_py_is_applying()) {
        esc_py_state *state = esc_py_state_of_type(Py_TYPE(object));
        if (state != NULL) {
            PyErr_Format(state->errors.error,
                         "%s.emit was called %s; events are emitted in @es.handles methods, by the "
                         "entity that handles the command",
                         Py_TYPE(object)->tp_name,
                         esc_py_is_applying() ? "in an @es.applies method"
                                              : "outside of a handler");
        }
        return NULL;
    }
    esc_py_entry *entry = entry_to_emit(self, event);
    if (entry == NULL || emit_bytes(self, turn->turn, entry, event) < 0) {
        return NULL;
    }
    instance->version++;
    if (esc_py_instance_apply(instance, entry->applier, event) < 0) {
        keep_failure(turn);
        return NULL;
    }
    return Py_NewRef(event);
}
