/* python/reply.c - es.Reply; see reply.h for states, references and queues. */
#include "python/reply.h"

#include <limits.h>
#include <string.h>

#include "base/thread.h"
#include "python/actor.h"
#include "python/definition.h"
#include "python/loop.h"
#include "python/readmodel.h"
#include "python/state.h"
#include "python/text.h"

esc_py_reply *esc_py_reply_new(esc_py_state *state, esc_py_system *system,
                               esc_py_definition *definition, escqrs_entity *entity,
                               PyObject *message)
{
    esc_py_reply *self = PyObject_GC_New(esc_py_reply, state->reply.type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->command.ops = &esc_py_reply_ops;
    self->system = (esc_py_system *)Py_NewRef((PyObject *)system);
    escqrs_entity_hold(entity);
    self->entity = entity;
    self->definition = definition;
    self->message = Py_XNewRef(message);
    PyObject_GC_Track((PyObject *)self);
    return self;
}

void esc_py_reply_hand_over(esc_py_reply *self)
{
    Py_INCREF((PyObject *)self);
    esc_list_push_back(&self->system->replies, &self->listed);
}

void esc_py_reply_take_back(esc_py_reply *self)
{
    esc_list_remove(&self->listed);
    Py_DECREF((PyObject *)self);
}

static int reply_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_reply *self = (esc_py_reply *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->system);
    Py_VISIT(self->message);
    Py_VISIT(self->value);
    Py_VISIT(self->exception);
    Py_VISIT(self->future);
    Py_VISIT(self->loop);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->keep);
    return 0;
}

static int reply_clear(PyObject *object)
{
    esc_py_reply *self = (esc_py_reply *)object;
    Py_CLEAR(self->message);
    Py_CLEAR(self->value);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->future);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->keep);
    return 0;
}

static void reply_dealloc(PyObject *object)
{
    esc_py_reply *self = (esc_py_reply *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)reply_clear(object);
    escqrs_free(self->error);
    escqrs_free(self->metadata);
    escqrs_free(self->repeated);
    if (self->system != NULL) {
        if (esc_list_contains_node(&self->listed)) {
            esc_list_remove(&self->listed);
        }
        if (esc_py_is_own(self->system->fork_generation)) {
            escqrs_entity_release(self->entity);
        }
        Py_DECREF((PyObject *)self->system);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- the core's side: any thread, without the GIL ---------------------------------------------- */

/* Nobody else will hear that it failed; of what never left the sender's failure says enough. */
static bool is_lost(const esc_py_reply *self, escqrs_status status)
{
    return self->told && status != ESCQRS_OK && !self->command.withheld;
}

static void reply_done(escqrs_command *command, escqrs_status status, const escqrs_error *error)
{
    esc_py_reply *self = esc_py_reply_of(command);
    esc_py_system *system = self->system;
    self->status = status;
    /* A handler that raised has left its exception; an inline read model refuses with an error. */
    bool raised = status == ESCQRS_REJECTED && self->exception != NULL;
    if (status != ESCQRS_OK && !raised && error != NULL) {
        self->error = escqrs_alloc(sizeof *self->error);
        if (self->error != NULL) {
            *self->error = *error;
            self->error->status = status;
        }
    }
    bool log = is_lost(self, status);
    /* acq_rel: release pairs with the acquire of esc_py_reply_is_done, which then sees status and
     * error; acquire pairs with the release of NOTIFY in loop.c, so that `loop` is seen here */
    uint32_t before =
        atomic_fetch_or_explicit(&self->word, ESC_PY_REPLY_DONE, memory_order_acq_rel);
    if (before & ESC_PY_REPLY_SLEEPERS) {
        esc_futex_wake(&self->word, INT_MAX);
    }
    if (!(before & ESC_PY_REPLY_DROPPED) && (before & ESC_PY_REPLY_LOOP)) {
        esc_py_loop_push(self->loop, self);
    } else if (!(before & ESC_PY_REPLY_DROPPED) && ((before & ESC_PY_REPLY_NOTIFY) || log)) {
        esc_py_system_push_completed(system, self);
    } else {
        /* read before the push: afterwards the reply may be gone */
        bool asked = self->asked;
        if (esc_queue_push(&system->released, &self->queued) && !asked) {
            escqrs_host_poke(system->host);
        }
    }
}

static void reply_repeated(escqrs_command *command, void *stored, size_t size)
{
    esc_py_reply *self = esc_py_reply_of(command);
    self->repeated = stored;
    self->repeated_size = size;
}

const escqrs_command_ops esc_py_reply_ops = {
    .done = reply_done,
    .visit = esc_py_definition_visit,
    .repeated = reply_repeated,
};

/* ---- waiting ----------------------------------------------------------------------------------- */

bool esc_py_reply_is_done(esc_py_reply *self)
{
    /* acquire: pairs with the release in reply_done */
    return (atomic_load_explicit(&self->word, memory_order_acquire) & ESC_PY_REPLY_DONE) != 0;
}

static bool is_dropped(esc_py_reply *self)
{
    /* acquire: as is_done */
    return (atomic_load_explicit(&self->word, memory_order_acquire) & ESC_PY_REPLY_DROPPED) != 0;
}

/* Of a reply that is done. */
static escqrs_status outcome(esc_py_reply *self)
{
    return is_dropped(self) ? ESCQRS_CLOSED : self->status;
}

static escqrs_status reply_sleep(void *context, int64_t deadline_ns)
{
    esc_py_reply *self = context;
    /* acq_rel: as is_done; and `done`, coming later, sees SLEEPERS */
    uint32_t word =
        atomic_fetch_or_explicit(&self->word, ESC_PY_REPLY_SLEEPERS, memory_order_acq_rel) |
        ESC_PY_REPLY_SLEEPERS;
    while (!(word & ESC_PY_REPLY_DONE)) {
        if (!esc_futex_wait(&self->word, word, deadline_ns)) {
            return esc_py_reply_is_done(self) ? ESCQRS_OK : ESCQRS_TIMEOUT;
        }
        word = atomic_load_explicit(&self->word, memory_order_acquire);
    }
    return ESCQRS_OK;
}

/* `format` has one %U, for the entity's stream. */
static int raise_waiting(esc_py_reply *self, escqrs_status status, const char *format)
{
    escqrs_slice stream = escqrs_entity_stream(self->entity);
    PyObject *name = esc_py_text(stream);
    if (name != NULL) {
        PyErr_Format(esc_py_error_class(self->system->state, status), format, name);
        Py_DECREF(name);
    }
    return -1;
}

int esc_py_reply_refuse_own(esc_py_reply *self)
{
    for (const esc_py_turn *turn = esc_py_turn_current(); turn != NULL; turn = turn->outer) {
        if (self->held_turn == turn->serial) {
            return raise_waiting(self, ESCQRS_DEADLOCK,
                                 "this handler waits for its own command to %U, which leaves only "
                                 "when the handler has finished and its events are durable; use "
                                 "ask");
        }
    }
    return 0;
}

int esc_py_reply_wait(esc_py_reply *self, int64_t deadline_ns)
{
    if (esc_py_reply_is_done(self)) {
        return 0;
    }
    esc_py_system *system = self->system;
    if (!esc_py_is_own(system->fork_generation)) {
        escqrs_error error = {0};
        (void)escqrs_error_set(
            &error, ESCQRS_FORKED,
            "this reply belongs to the parent process and never comes after fork; "
            "open the store in this one");
        esc_py_raise(system->state, &error);
        return -1;
    }
    if (esc_py_in_projection()) {
        return raise_waiting(self, ESCQRS_DEADLOCK,
                             "a read model's handler waits for %U, which waits for the "
                             "handler's transaction: read models only project");
    }
    if (esc_py_reply_refuse_own(self) < 0) {
        return -1;
    }
    escqrs_actor *waiter = escqrs_actor_current();
    if (waiter != NULL) {
        escqrs_error error = {0};
        escqrs_status status =
            escqrs_actor_wait_begin(waiter, escqrs_entity_actor(self->entity), &error);
        if (status != ESCQRS_OK) {
            esc_py_raise(system->state, &error);
            return -1;
        }
    }
    int result = esc_py_system_wait(system, reply_sleep, self, escqrs_entity_actor(self->entity),
                                    deadline_ns);
    if (waiter != NULL) {
        escqrs_actor_wait_end(waiter);
    }
    if (result == ESCQRS_NO_MEMORY) {
        return raise_waiting(self, ESCQRS_NO_MEMORY,
                             "no thread can be started to handle the command to %U, for which this "
                             "one waits; it may still be carried out");
    }
    if (result == ESCQRS_TIMEOUT) {
        return raise_waiting(self, ESCQRS_TIMEOUT,
                             "%U has not answered in time; the command may still be carried out");
    }
    return result == ESCQRS_OK ? 0 : -1;
}

/* For a status that came without an error. */
static void explain(esc_py_reply *self, escqrs_status status, escqrs_error *error)
{
    if (status == ESCQRS_CLOSED) {
        escqrs_slice stream = escqrs_entity_stream(self->entity);
        (void)escqrs_error_set(error, status,
                               "the system was closed before %.*s came back to this command; "
                               "nothing of it is stored",
                               (int)stream.size, (const char *)stream.data);
    } else {
        (void)escqrs_error_set(error, status, "the command failed: %s", escqrs_status_name(status));
    }
}

/* The exception of a failed reply, made once; borrowed, NULL with an exception set if it cannot be
 * made. */
static PyObject *failure(esc_py_reply *self)
{
    escqrs_status status = outcome(self);
    if (status != ESCQRS_REJECTED && !self->explained) {
        /* what the handler raised does not count: it rested on events that could not be stored */
        self->explained = true;
        Py_CLEAR(self->exception);
    }
    if (self->exception == NULL) {
        escqrs_error plain = {0};
        const escqrs_error *error = is_dropped(self) ? NULL : self->error;
        if (error == NULL) {
            explain(self, status, &plain);
        }
        PyObject *made = esc_py_error_new(self->system->state, error != NULL ? error : &plain);
        if (self->exception == NULL) {
            self->exception = made;
        } else { /* another thread has made it meanwhile */
            Py_XDECREF(made);
            PyErr_Clear();
        }
    }
    return self->exception;
}

void esc_py_reply_fail(esc_py_reply *self, PyObject *exception)
{
    if (self->explained) { /* dropped: nobody is to hear of it */
        Py_DECREF(exception);
    } else {
        Py_XSETREF(self->exception, exception);
    }
}

/* What is stored with the key is the answer, whatever a handler has answered before the key was
 * found in use. */
static int decode_repeated(esc_py_reply *self)
{
    PyObject *value = NULL;
    PyObject *text = PyBytes_FromStringAndSize(self->repeated, (Py_ssize_t)self->repeated_size);
    if (text != NULL) {
        value = PyObject_CallFunctionObjArgs(self->system->state->reply.decode_reply,
                                             (PyObject *)self->system, self->message, text, NULL);
        Py_DECREF(text);
    }
    if (value == NULL) {
        return -1;
    }
    Py_XSETREF(self->value, value);
    escqrs_free(self->repeated);
    self->repeated = NULL;
    return 0;
}

PyObject *esc_py_reply_result(esc_py_reply *self)
{
    if (outcome(self) == ESCQRS_OK) {
        if (self->repeated != NULL && decode_repeated(self) < 0) {
            return NULL;
        }
        return Py_NewRef(self->value != NULL ? self->value : Py_None);
    }
    PyObject *exception = failure(self);
    if (exception != NULL) {
        esc_py_exception_raise(exception);
    }
    return NULL;
}

/* ---- completion, with the GIL ------------------------------------------------------------------- */

static void notify(esc_py_reply *self)
{
    esc_py_state *state = self->system->state;
    if (self->future != NULL) {
        PyObject *future = self->future;
        self->future = NULL;
        esc_py_loop_settle(future);
        Py_DECREF(future);
    }
    PyObject *callbacks = self->callbacks;
    self->callbacks = NULL;
    for (Py_ssize_t i = 0; callbacks != NULL && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *item = PyList_GET_ITEM(callbacks, i);
        PyObject *result = PyTuple_CheckExact(item)
                               ? PyObject_Call(state->reply.set_future, item, NULL)
                               : PyObject_CallOneArg(item, (PyObject *)self);
        if (result == NULL) {
            PyErr_WriteUnraisable(item);
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(callbacks);
}

static void log_if_told(esc_py_reply *self)
{
    if (is_lost(self, outcome(self))) {
        escqrs_slice stream = escqrs_entity_stream(self->entity);
        PyObject *exception = failure(self);
        PyObject *result = NULL;
        if (exception != NULL) {
            result = PyObject_CallFunction(
                self->system->state->system.log_failure, "Os#OO", (PyObject *)self->system,
                (const char *)stream.data, (Py_ssize_t)stream.size,
                self->message != NULL ? self->message : Py_None, exception);
        }
        if (result == NULL) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        Py_XDECREF(result);
    }
}

void esc_py_reply_complete(esc_py_reply *self)
{
    notify(self);
    log_if_told(self);
    Py_DECREF((PyObject *)self);
}

void esc_py_reply_drop(esc_py_reply *self)
{
    uint32_t word = atomic_load_explicit(&self->word, memory_order_relaxed);
    if ((word & ESC_PY_REPLY_DONE)) {
        return;
    }
    if (esc_py_loop_leave(self) < 0) { /* out of memory: its loop is not told */
        PyErr_WriteUnraisable((PyObject *)self);
    }
    do {
        word = atomic_load_explicit(&self->word, memory_order_relaxed);
        if (word & ESC_PY_REPLY_DONE) {
            return;
        }
        /* acq_rel: as in reply_done, with which it competes */
    } while (!atomic_compare_exchange_weak_explicit(&self->word, &word,
                                                    word | ESC_PY_REPLY_DONE | ESC_PY_REPLY_DROPPED,
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (word & ESC_PY_REPLY_SLEEPERS) {
        esc_futex_wake(&self->word, INT_MAX);
    }
    notify(self);
    log_if_told(self);
}

int esc_py_reply_notify_later(esc_py_reply *self, uint32_t bits)
{
    /* acq_rel: release publishes future, loop or callbacks to `done`; acquire as in is_done */
    uint32_t before =
        atomic_fetch_or_explicit(&self->word, ESC_PY_REPLY_NOTIFY | bits, memory_order_acq_rel);
    if (before & ESC_PY_REPLY_DONE) {
        notify(self);
        return 1;
    }
    return 0;
}

/* ---- methods ------------------------------------------------------------------------------------ */

static int wait_argument(esc_py_reply *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *names, const char *method)
{
    PyObject *timeout = Py_None;
    Py_ssize_t given = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    if (given > 1 ||
        (given == 1 && count == 0 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
        PyErr_Format(PyExc_TypeError, "Reply.%s(timeout=None) takes one argument", method);
        return -1;
    }
    if (given == 1) {
        timeout = args[0];
    }
    int64_t deadline_ns;
    if (esc_py_actor_deadline(self->system->keeper->simulation, timeout, &deadline_ns) < 0) {
        return -1;
    }
    return esc_py_reply_wait(self, deadline_ns);
}

static PyObject *reply_result(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    esc_py_reply *self = (esc_py_reply *)object;
    if (wait_argument(self, args, count, names, "result") < 0) {
        return NULL;
    }
    return esc_py_reply_result(self);
}

static PyObject *reply_exception(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                 PyObject *names)
{
    esc_py_reply *self = (esc_py_reply *)object;
    if (wait_argument(self, args, count, names, "exception") < 0) {
        return NULL;
    }
    if (outcome(self) == ESCQRS_OK) {
        Py_RETURN_NONE;
    }
    return Py_XNewRef(failure(self));
}

static PyObject *reply_is_done_method(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(esc_py_reply_is_done((esc_py_reply *)object));
}

static PyObject *reply_false(PyObject *Py_UNUSED(object), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static PyObject *reply_add_done_callback(PyObject *object, PyObject *function)
{
    esc_py_reply *self = (esc_py_reply *)object;
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "add_done_callback takes a function of one argument, not %s",
                     Py_TYPE(function)->tp_name);
        return NULL;
    }
    if (esc_py_loop_leave(self) < 0) {
        return NULL;
    }
    if (self->callbacks == NULL && (self->callbacks = PyList_New(0)) == NULL) {
        return NULL;
    }
    if (PyList_Append(self->callbacks, function) < 0) {
        return NULL;
    }
    (void)esc_py_reply_notify_later(self, 0);
    Py_RETURN_NONE;
}

static PyObject *reply_repr(PyObject *object)
{
    esc_py_reply *self = (esc_py_reply *)object;
    escqrs_slice stream = escqrs_entity_stream(self->entity);
    PyObject *name = PyUnicode_FromStringAndSize(stream.data, (Py_ssize_t)stream.size);
    if (name == NULL) {
        return NULL;
    }
    PyObject *text;
    if (!esc_py_reply_is_done(self)) {
        text = PyUnicode_FromFormat("<Reply of %U: pending>", name);
    } else if (outcome(self) == ESCQRS_OK) {
        PyObject *value = esc_py_reply_result(self);
        text = value == NULL ? NULL : PyUnicode_FromFormat("<Reply of %U: %R>", name, value);
        Py_XDECREF(value);
    } else {
        PyObject *exception = failure(self);
        text =
            exception == NULL ? NULL : PyUnicode_FromFormat("<Reply of %U: %R>", name, exception);
    }
    Py_DECREF(name);
    return text;
}

static PyMethodDef reply_methods[] = {
    {"result", _PyCFunction_CAST(reply_result), METH_FASTCALL | METH_KEYWORDS,
     "result($self, timeout=None)\n--\n\nWait and return the handler's answer, once its events are "
     "durable.\n\n"
     "timeout: seconds; None waits for ever. Raises what the handler raised, es.Timeout (the "
     "command may still\n"
     "be carried out), or es.Deadlock where waiting here would never end."},
    {"exception", _PyCFunction_CAST(reply_exception), METH_FASTCALL | METH_KEYWORDS,
     "exception($self, timeout=None)\n--\n\nWait and return the exception, or None where the "
     "command succeeded."},
    {"done", reply_is_done_method, METH_NOARGS,
     "done($self, /)\n--\n\nWhether result() would return at once."},
    {"cancel", reply_false, METH_NOARGS,
     "cancel($self, /)\n--\n\nFalse: a command that was accepted cannot be called back."},
    {"cancelled", reply_false, METH_NOARGS, "cancelled($self, /)\n--\n\nFalse, always."},
    {"add_done_callback", reply_add_done_callback, METH_O,
     "add_done_callback($self, function, /)\n--\n\nCall function(reply) once it is done: at once "
     "if it is, "
     "else on a "
     "thread of the engine."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Reply[str], for annotations."},
    {NULL, NULL, 0, NULL},
};

static PyObject *reply_position(PyObject *object, void *unused)
{
    (void)unused;
    esc_py_reply *self = (esc_py_reply *)object;
    if (!esc_py_reply_is_done(self) || outcome(self) != ESCQRS_OK) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLongLong(self->command.position);
}

/* For processes, which try again what the engine could not do and hear of what a handler refused:
 * both may be exceptions of one class. */
static PyObject *reply_rejected(PyObject *object, void *unused)
{
    (void)unused;
    esc_py_reply *self = (esc_py_reply *)object;
    return PyBool_FromLong(esc_py_reply_is_done(self) && outcome(self) == ESCQRS_REJECTED);
}

static PyGetSetDef reply_getset[] = {
    {"position", reply_position, NULL,
     "Of its last event, or of the last event that there was where it stored none: a read model "
     "that has seen it has seen all that the command did. None until it is done, and where it "
     "failed.",
     NULL},
    {"_rejected", reply_rejected, NULL, "Whether the handler has raised, or an inline read model.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reply_slots[] = {
    {Py_tp_doc, "The answer to a command that was submitted; awaitable in any event loop, as often "
                "as one likes."},
    {Py_tp_dealloc, reply_dealloc},
    {Py_tp_traverse, reply_traverse},
    {Py_tp_clear, reply_clear},
    {Py_tp_repr, reply_repr},
    {Py_tp_methods, reply_methods},
    {Py_tp_getset, reply_getset},
    {Py_am_await, esc_py_loop_await},
    {0, NULL},
};

static PyType_Spec reply_spec = {
    .name = "escqrs._core.Reply",
    .basicsize = sizeof(esc_py_reply),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reply_slots,
};

int esc_py_reply_exec(PyObject *module)
{
    esc_py_reply_state *section = &esc_py_state_of(module)->reply;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &reply_spec, NULL);
    if (section->type == NULL || PyModule_AddType(module, section->type) < 0) {
        return -1;
    }
    return esc_py_loop_exec(module);
}

int esc_py_reply_traverse_state(esc_py_reply_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->await_type);
    Py_VISIT(section->loop_type);
    Py_VISIT(section->loops);
    Py_VISIT(section->get_running_loop);
    Py_VISIT(section->decode_reply);
    Py_VISIT(section->loop_cache);
    Py_VISIT(section->set_future);
    return 0;
}

void esc_py_reply_clear_state(esc_py_reply_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->await_type);
    Py_CLEAR(section->loop_type);
    Py_CLEAR(section->loops);
    Py_CLEAR(section->get_running_loop);
    Py_CLEAR(section->decode_reply);
    Py_CLEAR(section->loop_cache);
    Py_CLEAR(section->set_future);
}
