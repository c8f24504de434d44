/* python/actor_ref.c - es.Ref: sending, asking, stopping, and what is known of an actor outside.
 *
 * Locks: none; the GIL. A reference holds its system. In a child of fork() it touches nothing.
 */

#include "python/actor.h"

#include <string.h>
#include <structmember.h>

#include "base/alloc.h"
#include "python/actor_persist.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/loop.h"
#include "python/state.h"

#define PATH_SIZE 512
#define TRIM_MIN 100000 /* objects: fewer are not worth the time */

void esc_py_actor_made(esc_py_actor_system *system)
{
    system->objects++;
    if (system->objects > system->objects_max) {
        system->objects_max = system->objects;
    }
}

void esc_py_actor_gone(esc_py_actor_system *system)
{
    system->objects--;
    if (system->objects_max >= TRIM_MIN && system->objects < system->objects_max / 8) {
        system->objects_max = system->objects;
        esc_alloc_trim();
    }
}

PyObject *esc_py_ref_new(esc_py_actor_system *system, escqrs_ref *core)
{
    esc_py_ref *self = PyObject_GC_New(esc_py_ref, system->state->actor.ref_type);
    if (self == NULL) {
        return NULL;
    }
    self->system = (esc_py_actor_system *)Py_NewRef((PyObject *)system);
    escqrs_ref_hold(core);
    self->core = core;
    self->weakrefs = NULL;
    esc_py_actor_made(system);
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

esc_py_ref *esc_py_ref_cast(esc_py_state *state, PyObject *object, const char *what)
{
    if (!PyObject_TypeCheck(object, state->actor.ref_type)) {
        PyErr_Format(PyExc_TypeError, "%s is an es.Ref, not %s", what, Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (esc_py_ref *)object;
}

int esc_py_ref_sender(esc_py_state *state, PyObject *object, escqrs_ref **sender)
{
    *sender = NULL;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    esc_py_ref *ref = esc_py_ref_cast(state, object, "sender");
    if (ref == NULL) {
        return -1;
    }
    *sender = ref->core;
    return 0;
}

static PyObject *text_of(escqrs_ref *core, size_t (*function)(const escqrs_ref *, char *, size_t),
                         const char *prefix)
{
    char small[PATH_SIZE];
    char *text = small;
    size_t size = function(core, small, sizeof small);
    if (size >= sizeof small) {
        text = escqrs_alloc(size + 1);
        if (text == NULL) {
            return PyErr_NoMemory();
        }
        function(core, text, size + 1);
    }
    PyObject *result = PyUnicode_FromFormat("%s%s", prefix, text);
    if (text != small) {
        escqrs_free(text);
    }
    return result;
}

PyObject *esc_py_ref_path(escqrs_ref *core)
{
    return text_of(core, escqrs_ref_path, "/");
}

/* ---- sending ------------------------------------------------------------------------------------ */

typedef struct room {
    escqrs_ref *ref;
    escqrs_error error;
} room;

static escqrs_status wait_room(void *context, int64_t deadline_ns)
{
    room *self = context;
    return escqrs_ref_wait_room(self->ref, deadline_ns, &self->error);
}

/* The mailbox is full: wait where one may. 1: try again; 0: the mail is gone; -1. */
static int wait_or_refuse(esc_py_ref *to)
{
    int looped = esc_py_loop_is_running(to->system->state); /* which is not to stand still */
    if (looped < 0) {
        return -1;
    }
    if (!looped && escqrs_context_current() == NULL && escqrs_ref_may_block(to->core)) {
        room wait = {.ref = to->core};
        int status = esc_py_actor_wait(to->system, wait_room, &wait, NULL, INT64_MAX);
        if (status == ESCQRS_OK) {
            return 1;
        }
        if (status < 0) {
            return -1;
        }
    }
    PyObject *path = esc_py_ref_path(to->core);
    if (path != NULL) {
        PyErr_Format(esc_py_error_class(to->system->state, ESCQRS_MAILBOX_FULL),
                     "the mailbox of %U is full; the message was not sent", path);
        Py_DECREF(path);
    }
    return -1;
}

int esc_py_send(esc_py_ref *to, esc_py_mail *mail, escqrs_ref *sender)
{
    if (sender != NULL && escqrs_ref_kind_of(sender) == ESCQRS_REF_FUTURE) {
        escqrs_future_send_on(ESC_CONTAINER_OF(sender, escqrs_future, ref), to->core);
    }
    if (esc_py_persist_holds()) {
        esc_py_persist_hold(to->core, mail, sender);
        return 0;
    }
    while (escqrs_tell_now(to->core, &mail->envelope, sender) == ESCQRS_MAILBOX_FULL) {
        if (wait_or_refuse(to) < 0) {
            escqrs_untold_destroy(to->core, &mail->envelope);
            return -1;
        }
    }
    return 0;
}

/* What the methods that send are given. */
typedef struct sending {
    PyObject *message;
    PyObject *sender;
    PyObject *headers; /* dict, or NULL */
    PyObject *timeout;
} sending;

static int take_keyword(sending *self, PyObject *name, PyObject *value, bool asks)
{
    if (PyUnicode_CompareWithASCIIString(name, "headers") == 0) {
        if (value != Py_None && !PyDict_Check(value)) {
            PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                         Py_TYPE(value)->tp_name);
            return -1;
        }
        self->headers = value == Py_None || PyDict_GET_SIZE(value) == 0 ? NULL : value;
        return 0;
    }
    if (asks && PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
        self->timeout = value;
        return 0;
    }
    if (!asks && PyUnicode_CompareWithASCIIString(name, "sender") == 0) {
        self->sender = value;
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "message") == 0 && self->message == NULL) {
        self->message = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "unexpected keyword argument %R", name);
    return -1;
}

/* Borrows. `asks`: timeout= in the place of sender=. */
static int take_arguments(sending *self, PyObject *const *args, Py_ssize_t count, PyObject *names,
                          const char *method, bool asks)
{
    *self = (sending){.message = count > 0 ? args[0] : NULL};
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (take_keyword(self, PyTuple_GET_ITEM(names, i), args[count + i], asks) < 0) {
            return -1;
        }
    }
    if (count > 1 || self->message == NULL) {
        PyErr_Format(PyExc_TypeError, "%s takes one message%s", method,
                     count > 1 ? "; sender, headers and timeout are keywords" : "");
        return -1;
    }
    return 0;
}

/* A mail for it, with a copy of the headers and the priority that the target's mailbox gives. */
static esc_py_mail *make_mail(esc_py_ref *to, PyObject *message, PyObject *headers)
{
    esc_py_actor_system *system = to->system;
    PyObject *copy = headers == NULL ? NULL : PyDict_Copy(headers);
    if (headers != NULL && copy == NULL) {
        return NULL;
    }
    esc_py_mail *mail = esc_py_mail_new(system, message, copy);
    Py_XDECREF(copy);
    if (mail != NULL && esc_py_recipe_prioritize(to, mail) < 0) {
        escqrs_envelope_destroy(&mail->envelope);
        return NULL;
    }
    return mail;
}

int esc_py_ref_tell(esc_py_ref *to, PyObject *message, PyObject *headers, escqrs_ref *sender)
{
    if (esc_py_actor_system_check_fork(to->system) < 0) {
        return -1;
    }
    esc_py_mail *mail = make_mail(to, message, headers);
    return mail == NULL ? -1 : esc_py_send(to, mail, sender);
}

static PyObject *ref_tell(PyObject *object, PyObject *const *args, Py_ssize_t count,
                          PyObject *names)
{
    esc_py_ref *self = (esc_py_ref *)object;
    sending given;
    escqrs_ref *sender;
    if (take_arguments(&given, args, count, names, "tell", false) < 0 ||
        esc_py_ref_sender(self->system->state, given.sender, &sender) < 0 ||
        esc_py_ref_tell(self, given.message, given.headers, sender) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *ref_request(PyObject *object, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    esc_py_ref *self = (esc_py_ref *)object;
    sending given;
    escqrs_ref *sender;
    if (take_arguments(&given, args, count, names, "request", false) < 0 ||
        esc_py_ref_sender(self->system->state, given.sender, &sender) < 0) {
        return NULL;
    }
    if (sender == NULL) {
        PyErr_SetString(PyExc_TypeError, "request needs a sender to answer to: request(message, "
                                         "sender=ref); inside an actor use ctx.request");
        return NULL;
    }
    if (esc_py_ref_tell(self, given.message, given.headers, sender) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- asking ------------------------------------------------------------------------------------- */

static int check_asked(esc_py_ref *self)
{
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return -1;
    }
    if (escqrs_ref_kind_of(self->core) != ESCQRS_REF_ACTOR) {
        PyErr_SetString(PyExc_TypeError, "only actors can be asked: a stream or the sender of an "
                                         "ask takes answers");
        return -1;
    }
    return 0;
}

static PyObject *ref_submit(PyObject *object, PyObject *const *args, Py_ssize_t count,
                            PyObject *names)
{
    esc_py_ref *self = (esc_py_ref *)object;
    sending given;
    if (take_arguments(&given, args, count, names, "submit", true) < 0 || check_asked(self) < 0) {
        return NULL;
    }
    if (given.timeout != NULL) {
        PyErr_SetString(PyExc_TypeError, "submit takes no timeout: reply.result(timeout) does");
        return NULL;
    }
    esc_py_mail *mail = make_mail(self, given.message, given.headers);
    esc_py_answer *reply = mail == NULL ? NULL : esc_py_answer_new(self->system, self);
    if (reply == NULL) {
        if (mail != NULL) {
            escqrs_envelope_destroy(&mail->envelope);
        }
        return NULL;
    }
    reply->held_by = esc_py_persist_holds();
    int sent = esc_py_send(self, mail, &reply->future.ref);
    escqrs_ref_release(&reply->future.ref);
    if (sent < 0) {
        Py_DECREF((PyObject *)reply);
        return NULL;
    }
    return (PyObject *)reply;
}

/* Run the actor here, if it is idle: whether that was done; -1 with Deadlock. */
static int run_here(esc_py_ref *self, esc_py_mail *mail, esc_py_answer *reply)
{
    esc_py_waiting waiting = {0};
    if ((escqrs_actor_current() != NULL || self->system->state->actor.tasks) &&
        esc_py_waiting_begin(&waiting, reply) < 0) {
        return -1;
    }
    const void *asked = esc_py_persist_asks_here(&mail->envelope);
    reply->asking = true;
    bool ran = escqrs_ref_run(self->core, &mail->envelope, &reply->future.ref);
    reply->asking = false;
    (void)esc_py_persist_asks_here(asked);
    esc_py_waiting_end(&waiting, reply);
    return ran;
}

static PyObject *ref_ask(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    esc_py_ref *self = (esc_py_ref *)object;
    sending given;
    int64_t deadline_ns;
    if (take_arguments(&given, args, count, names, "ask", true) < 0 || check_asked(self) < 0 ||
        esc_py_actor_deadline(self->system, given.timeout, &deadline_ns) < 0) {
        return NULL;
    }
    esc_py_mail *mail = make_mail(self, given.message, given.headers);
    esc_py_answer *reply = mail == NULL ? NULL : esc_py_answer_new(self->system, self);
    if (reply == NULL) {
        if (mail != NULL) {
            escqrs_envelope_destroy(&mail->envelope);
        }
        return NULL;
    }
    const void *held = esc_py_persist_suspend();
    int sent = run_here(self, mail, reply);
    if (sent < 0) {
        escqrs_envelope_destroy(&mail->envelope);
    } else if (sent == 0) {
        sent = esc_py_send(self, mail, &reply->future.ref);
    }
    esc_py_persist_resume(held);
    escqrs_ref_release(&reply->future.ref);
    PyObject *result = NULL;
    if (sent >= 0 && esc_py_answer_wait(reply, deadline_ns) == 0) {
        result = esc_py_answer_result(reply);
    }
    Py_DECREF((PyObject *)reply);
    esc_py_errands_tidy(self->system);
    return result;
}

/* ---- stopping ----------------------------------------------------------------------------------- */

static PyObject *ref_stop(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_ref *self = (esc_py_ref *)object;
    if (check_asked(self) < 0) {
        return NULL;
    }
    escqrs_stop(self->core);
    Py_RETURN_NONE;
}

static PyObject *ref_poison(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_ref *self = (esc_py_ref *)object;
    if (check_asked(self) < 0) {
        return NULL;
    }
    if (escqrs_poison(self->core) == ESCQRS_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static escqrs_status wait_stopped(void *context, int64_t deadline_ns)
{
    room *self = context;
    return escqrs_ref_wait_stopped(self->ref, deadline_ns, &self->error);
}

static PyObject *ref_wait_stopped(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    esc_py_ref *self = (esc_py_ref *)object;
    PyObject *timeout = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &timeout) ||
        esc_py_actor_deadline(self->system, timeout, &deadline_ns) < 0 || check_asked(self) < 0) {
        return NULL;
    }
    room wait = {.ref = self->core};
    int status = esc_py_actor_wait(self->system, wait_stopped, &wait, NULL, deadline_ns);
    esc_py_errands_tidy(self->system);
    if (status < 0) {
        return NULL;
    }
    if (status == ESCQRS_TIMEOUT) {
        PyObject *path = esc_py_ref_path(self->core);
        if (path != NULL) {
            PyErr_Format(esc_py_error_class(self->system->state, ESCQRS_TIMEOUT),
                         "%U has not stopped in time", path);
            Py_DECREF(path);
        }
        return NULL;
    }
    if (status != ESCQRS_OK) {
        if (wait.error.status == ESCQRS_OK) {
            (void)escqrs_error_set(&wait.error, (escqrs_status)status, "cannot wait for the stop");
        }
        return esc_py_raise(self->system->state, &wait.error);
    }
    Py_RETURN_NONE;
}

/* ---- what is known ------------------------------------------------------------------------------ */

static PyObject *ref_get_name(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_ref *self = (esc_py_ref *)object;
    return esc_py_actor_system_check_fork(self->system) < 0
               ? NULL
               : text_of(self->core, escqrs_ref_name, "");
}

static PyObject *ref_get_address(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_ref *self = (esc_py_ref *)object;
    return esc_py_actor_system_check_fork(self->system) < 0 ? NULL : esc_py_ref_path(self->core);
}

static PyObject *ref_get_state(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_ref *self = (esc_py_ref *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    return PyUnicode_FromString(escqrs_ref_state_name(escqrs_ref_state_of(self->core)));
}

static PyObject *ref_get_parent(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_ref *self = (esc_py_ref *)object;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    escqrs_ref *parent = escqrs_ref_parent(self->core);
    return parent == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(self->system, parent);
}

/* (length, length_max, handled, waited, waited_max, dropped) or None */
static PyObject *ref_get_mailbox(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_ref *self = (esc_py_ref *)object;
    escqrs_mailbox_stats stats;
    if (esc_py_actor_system_check_fork(self->system) < 0) {
        return NULL;
    }
    if (!escqrs_ref_mailbox_stats(self->core, &stats)) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(nnKddK)", (Py_ssize_t)stats.length, (Py_ssize_t)stats.length_max,
                         (unsigned long long)stats.handled, (double)stats.waited_ns / 1e9,
                         (double)stats.waited_max_ns / 1e9, (unsigned long long)stats.dropped);
}

static PyObject *ref_repr(PyObject *object)
{
    esc_py_ref *self = (esc_py_ref *)object;
    if (!esc_py_is_own(self->system->fork_generation)) {
        return PyUnicode_FromString("<es.Ref, forked>");
    }
    PyObject *path = esc_py_ref_path(self->core);
    if (path == NULL) {
        return NULL;
    }
    PyObject *result =
        escqrs_ref_kind_of(self->core) != ESCQRS_REF_ACTOR
            ? PyUnicode_FromFormat(
                  "<es.Ref to a %s>",
                  escqrs_ref_kind_of(self->core) == ESCQRS_REF_FUTURE ? "waiting asker" : "stream")
            : PyUnicode_FromFormat("<es.Ref %U, %s>", path,
                                   escqrs_ref_state_name(escqrs_ref_state_of(self->core)));
    Py_DECREF(path);
    return result;
}

static PyObject *ref_str(PyObject *object)
{
    return ref_get_address(object, NULL);
}

static Py_hash_t ref_hash(PyObject *object)
{
    const esc_py_ref *self = (const esc_py_ref *)object;
    /* a seeded system's: a set of references has the same order in each run */
    uint64_t id = self->system->manual ? escqrs_ref_id(self->core) : 0;
    Py_hash_t hash = id != 0 ? (Py_hash_t)id : (Py_hash_t)((uintptr_t)self->core >> 4);
    return hash == -1 ? -2 : hash;
}

static PyObject *ref_compare(PyObject *a, PyObject *b, int operation)
{
    esc_py_state *state = ((esc_py_ref *)a)->system->state;
    if ((operation != Py_EQ && operation != Py_NE) ||
        !PyObject_TypeCheck(b, state->actor.ref_type)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    bool same = ((esc_py_ref *)a)->core == ((esc_py_ref *)b)->core;
    return PyBool_FromLong(same == (operation == Py_EQ));
}

static int ref_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)((esc_py_ref *)object)->system);
    return 0;
}

static void ref_dealloc(PyObject *object)
{
    esc_py_ref *self = (esc_py_ref *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    if (self->core != NULL && esc_py_is_own(self->system->fork_generation)) {
        escqrs_ref_release(self->core);
    }
    esc_py_actor_gone(self->system);
    Py_DECREF((PyObject *)self->system);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *ref_reduce(PyObject *Py_UNUSED(object), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_TypeError, "a reference to an actor belongs to its process and cannot be "
                                     "pickled");
    return NULL;
}

/* __copy__, __deepcopy__: it changes nothing of its own, so it is its own copy. */
static PyObject *ref_copy(PyObject *object, PyObject *Py_UNUSED(memo))
{
    return Py_NewRef(object);
}

static PyMethodDef ref_methods[] = {
    {"tell", _PyCFunction_CAST(ref_tell), METH_FASTCALL | METH_KEYWORDS,
     "tell($self, message, *, sender=None, headers=None)\n--\n\nSend and go on. A message to an "
     "actor that has stopped is a dead letter.\n\n"
     "sender: the reference that ctx.respond answers. headers: a dict, ctx.headers there.\n"
     "es.MailboxFull where a bounded mailbox does not take it."},
    {"request", _PyCFunction_CAST(ref_request), METH_FASTCALL | METH_KEYWORDS,
     "request($self, message, *, sender, headers=None)\n--\n\ntell with a sender, which gets the "
     "answer."},
    {"ask", _PyCFunction_CAST(ref_ask), METH_FASTCALL | METH_KEYWORDS,
     "ask($self, message, *, timeout=None, headers=None)\n--\n\nSend, wait and return the "
     "answer.\n\n"
     "Raises what the actor raised, es.Closed at once where it has stopped, es.Unanswered where "
     "nobody can answer\nany more, es.Timeout after so many seconds, es.Deadlock where waiting "
     "would never end. An idle\nactor handles the message on this thread, where no timeout ends "
     "it: submit(message).result(timeout) waits no longer."},
    {"submit", _PyCFunction_CAST(ref_submit), METH_FASTCALL | METH_KEYWORDS,
     "submit($self, message, *, headers=None)\n--\n\nSend, and return the es.ActorReply that the "
     "answer comes to."},
    {"stop", ref_stop, METH_NOARGS,
     "stop($self, /)\n--\n\nStop after the message it is in; what waits becomes dead letters."},
    {"poison", ref_poison, METH_NOARGS,
     "poison($self, /)\n--\n\nStop after the messages that were sent before."},
    {"wait_stopped", _PyCFunction_CAST(ref_wait_stopped), METH_VARARGS | METH_KEYWORDS,
     "wait_stopped($self, timeout=None)\n--\n\nWait until it has handled Stopped and its name is "
     "free. es.Timeout; es.Deadlock in an actor that would wait for itself."},
    {"__reduce__", ref_reduce, METH_NOARGS, NULL},
    {"__copy__", ref_copy, METH_NOARGS, NULL},
    {"__deepcopy__", ref_copy, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_system(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((esc_py_ref *)object)->system);
}

static PyGetSetDef ref_getset[] = {
    {"name", ref_get_name, NULL, "Its own name: as spawned, or one of its own.", NULL},
    {"address", ref_get_address, NULL, "The names from the top: \"/shop/cart-1\".", NULL},
    {"state", ref_get_state, NULL,
     "\"starting\", \"running\", \"failed\", \"restarting\", \"stopping\" or \"stopped\".", NULL},
    {"parent", ref_get_parent, NULL, "Whose child it is, or None.", NULL},
    {"_system", get_system, NULL, NULL, NULL},
    {"_mailbox", ref_get_mailbox, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef ref_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_ref, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot ref_slots[] = {
    {Py_tp_doc,
     "A reference to an actor (or to a stream, or whoever asked): equal to every other of the same "
     "one, hashable. It outlives the actor; the system lives as long as it."},
    {Py_tp_dealloc, ref_dealloc},
    {Py_tp_traverse, ref_traverse},
    {Py_tp_repr, ref_repr},
    {Py_tp_str, ref_str},
    {Py_tp_hash, ref_hash},
    {Py_tp_richcompare, ref_compare},
    {Py_tp_methods, ref_methods},
    {Py_tp_getset, ref_getset},
    {Py_tp_members, ref_members},
    {0, NULL},
};

PyType_Spec esc_py_ref_spec = {
    .name = "escqrs._core.Ref",
    .basicsize = sizeof(esc_py_ref),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ref_slots,
};
