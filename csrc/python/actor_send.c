/* python/actor_send.c - what a Context sends: tell, request, respond, forward, through the sender
 * middleware. What a persistent actor sends is held back (actor_persist.h). Locks: none; the GIL.
 */
#include "python/actor.h"

#include "python/actor_context.h"
#include "python/actor_persist.h"
#include "python/state.h"

/* ---- methods: sending ----------------------------------------------------------------------------- */

/* Send as this actor does: through its sender middleware. 0 or -1. */
static int send_as(esc_py_context *self, PyObject *to, PyObject *message, PyObject *headers,
                   PyObject *sender)
{
    esc_py_state *state = self->system->state;
    if (self->send_chain == NULL) {
        escqrs_ref *from;
        if (esc_py_ref_sender(state, sender, &from) < 0) {
            return -1;
        }
        const void *turn = esc_py_persist_enter(self);
        int result = esc_py_ref_tell((esc_py_ref *)to, message, headers, from);
        esc_py_persist_leave(self, turn);
        return result;
    }
    PyObject *envelope = PyObject_CallFunctionObjArgs(state->actor.envelope, message,
                                                      sender == NULL ? Py_None : sender,
                                                      headers == NULL ? Py_None : headers, NULL);
    PyObject *result =
        envelope == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(self->send_chain, (PyObject *)self, to, envelope, NULL);
    Py_XDECREF(envelope);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* _send(ctx, target, envelope): the innermost of the sender middleware. */
PyObject *esc_py_context_send_innermost(PyObject *object, PyObject *args)
{
    esc_py_context *self = (esc_py_context *)object;
    esc_py_state *state = self->system->state;
    PyObject *ctx, *target, *envelope, *message = NULL, *sender = NULL, *headers = NULL;
    escqrs_ref *from;
    int result = -1;
    if (!PyArg_ParseTuple(args, "OOO", &ctx, &target, &envelope) ||
        esc_py_ref_cast(state, target, "target") == NULL) {
        return NULL;
    }
    message = PyObject_GetAttrString(envelope, "message");
    sender = PyObject_GetAttrString(envelope, "sender");
    headers = PyObject_GetAttrString(envelope, "headers");
    if (message != NULL && sender != NULL && headers != NULL &&
        esc_py_ref_sender(state, sender, &from) == 0) {
        if (headers != Py_None && !PyDict_Check(headers)) {
            PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                         Py_TYPE(headers)->tp_name);
        } else {
            const void *turn = esc_py_persist_enter(self);
            result = esc_py_ref_tell((esc_py_ref *)target, message,
                                     headers == Py_None ? NULL : headers, from);
            esc_py_persist_leave(self, turn);
        }
    }
    Py_XDECREF(message);
    Py_XDECREF(sender);
    Py_XDECREF(headers);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *esc_py_context_tell(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    esc_py_context *self = (esc_py_context *)object;
    PyObject *headers = NULL;
    if (names != NULL && PyTuple_GET_SIZE(names) == 1 && count == 2 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "headers") == 0) {
        headers = args[2] == Py_None ? NULL : args[2];
    } else if (count != 2 || (names != NULL && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "ctx.tell(ref, message, *, headers=None)");
        return NULL;
    }
    if (headers != NULL && !PyDict_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                     Py_TYPE(headers)->tp_name);
        return NULL;
    }
    if (esc_py_ref_cast(self->system->state, args[0], "the first argument of ctx.tell") == NULL ||
        esc_py_context_check_use(self, "tell") < 0 ||
        send_as(self, args[0], args[1], headers, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *esc_py_context_request(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ref", "message", "sender", "headers", NULL};
    esc_py_context *self = (esc_py_context *)object;
    PyObject *to, *message, *sender = Py_None, *headers = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|$OO", names,
                                     self->system->state->actor.ref_type, &to, &message, &sender,
                                     &headers) ||
        esc_py_context_check_use(self, "request") < 0) {
        return NULL;
    }
    if (sender == Py_None && (sender = esc_py_context_self(self)) == NULL) {
        return NULL;
    }
    if (headers != Py_None && !PyDict_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "headers is a dict or None, not %s",
                     Py_TYPE(headers)->tp_name);
        return NULL;
    }
    if (send_as(self, to, message, headers == Py_None ? NULL : headers, sender) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *esc_py_context_respond(PyObject *object, PyObject *message)
{
    esc_py_context *self = (esc_py_context *)object;
    if (esc_py_context_check_use(self, "respond") < 0) {
        return NULL;
    }
    escqrs_ref *sender = esc_py_context_sender(self);
    if (sender == NULL) {
        esc_py_mail *mail = esc_py_mail_new(self->system, message, NULL);
        if (mail == NULL) {
            return NULL;
        }
        if (esc_py_context_is_inside(self)) {
            (void)escqrs_context_respond(self->core, &mail->envelope);
        } else {
            esc_py_letter_publish(self->system, NULL, &mail->envelope);
            escqrs_envelope_destroy(&mail->envelope);
        }
        Py_RETURN_NONE;
    }
    if (self->send_chain == NULL && self->persist == NULL) { /* the common way */
        esc_py_mail *mail = esc_py_mail_new(self->system, message, NULL);
        if (mail == NULL) {
            return NULL;
        }
        if (escqrs_ref_kind_of(sender) == ESCQRS_REF_FUTURE) {
            (void)escqrs_tell(sender, &mail->envelope, self->ref);
            Py_RETURN_NONE;
        }
        escqrs_envelope_destroy(&mail->envelope);
    }
    PyObject *to = esc_py_ref_new(self->system, sender);
    PyObject *from = to == NULL ? NULL : esc_py_context_self(self);
    int result = from == NULL ? -1 : send_as(self, to, message, NULL, from);
    Py_XDECREF(to);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *do_forward(esc_py_context *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ref", NULL};
    PyObject *to;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, self->system->state->actor.ref_type,
                                     &to)) {
        return NULL;
    }
    escqrs_envelope *envelope = escqrs_context_message(self->core);
    if (envelope == NULL || envelope->type != &esc_py_mail_type) {
        PyErr_SetString(self->system->state->errors.error,
                        "ctx.forward: the actor handles no message that could be sent on");
        return NULL;
    }
    esc_py_mail *mail = esc_py_mail_of(envelope);
    escqrs_ref *sender = escqrs_context_sender(self->core);
    PyObject *from = sender == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(self->system, sender);
    if (from == NULL) {
        return NULL;
    }
    int result = send_as(self, to, esc_py_mail_object(mail), esc_py_mail_headers(mail), from);
    Py_DECREF(from);
    self->forwarded = self->forwarded || result == 0;
    return result < 0 ? NULL : Py_NewRef(Py_None);
}
ESC_PY_ENTERED(esc_py_context_forward, forward)
