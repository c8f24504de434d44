/* python/actor_events.c - what the core says of dead letters and failures, for those who subscribed
 * in Python: an errand each. Locks: none.
 */
#include "python/actor.h"

#include <stdio.h>

#include "python/errors.h"
#include "python/state.h"

typedef struct letter {
    esc_py_errand errand;
    esc_py_actor_system *system;
    escqrs_ref *to;     /* held, or NULL */
    escqrs_ref *sender; /* likewise */
    escqrs_envelope *copy;
} letter;

static PyObject *ref_or_none(esc_py_actor_system *system, escqrs_ref *core)
{
    return core == NULL ? Py_NewRef(Py_None) : esc_py_ref_new(system, core);
}

static void letter_errand(esc_py_errand *errand)
{
    letter *self = ESC_CONTAINER_OF(errand, letter, errand);
    esc_py_actor_system *system = self->system;
    PyObject *to = ref_or_none(system, self->to);
    PyObject *sender = ref_or_none(system, self->sender);
    PyObject *object = esc_py_mail_object(esc_py_mail_of(self->copy));
    PyObject *result = NULL;
    if (to != NULL && sender != NULL && object != NULL) {
        result = PyObject_CallFunctionObjArgs(system->state->actor.letter, (PyObject *)system, to,
                                              object, sender, NULL);
    }
    if (result == NULL && PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)system);
    }
    Py_XDECREF(result);
    Py_XDECREF(to);
    Py_XDECREF(sender);
    escqrs_ref_release(self->to);
    escqrs_ref_release(self->sender);
    escqrs_envelope_destroy(self->copy);
    escqrs_free(self);
}

void esc_py_letter_publish(esc_py_actor_system *system, escqrs_ref *to,
                           const escqrs_envelope *envelope)
{
    /* relaxed: who subscribes now gets what comes later */
    if (!atomic_load_explicit(&system->listening, memory_order_relaxed) ||
        envelope->type != &esc_py_mail_type) {
        return;
    }
    letter *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL || (self->copy = esc_py_mail_type.copy(envelope)) == NULL) {
        escqrs_free(self);
        return;
    }
    self->system = system;
    self->to = to;
    self->sender = envelope->sender;
    if (self->to != NULL) {
        escqrs_ref_hold(self->to);
    }
    if (self->sender != NULL && escqrs_ref_kind_of(self->sender) == ESCQRS_REF_FUTURE) {
        self->sender = NULL; /* who waits for an answer is told by itself, and now */
    }
    if (self->sender != NULL) {
        escqrs_ref_hold(self->sender);
    }
    self->errand.run = letter_errand;
    esc_py_errand_push(system, &self->errand);
}

void esc_py_on_letter(void *data, const escqrs_envelope *event)
{
    const escqrs_dead_letter_event *dead = (const escqrs_dead_letter_event *)event;
    esc_py_letter_publish(data, dead->to, dead->letter);
}

typedef struct failed {
    esc_py_errand errand;
    esc_py_actor_system *system;
    escqrs_ref *who;     /* held, or NULL */
    esc_py_fault *fault; /* held, or NULL */
    escqrs_error error;  /* where there is no fault */
    escqrs_directive directive;
    char message[256];
} failed;

static void failed_errand(esc_py_errand *errand)
{
    failed *self = ESC_CONTAINER_OF(errand, failed, errand);
    esc_py_actor_system *system = self->system;
    PyObject *who = ref_or_none(system, self->who);
    PyObject *exception = NULL, *result = NULL;
    if (self->fault != NULL) {
        exception = Py_NewRef(self->fault->exception);
    } else {
        exception = esc_py_error_new(system->state, &self->error);
    }
    if (who != NULL && exception != NULL) {
        result = PyObject_CallFunction(system->state->actor.failed, "OOOsi", (PyObject *)system,
                                       who, exception, self->message, (int)self->directive);
    }
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)system);
    }
    Py_XDECREF(result);
    Py_XDECREF(exception);
    Py_XDECREF(who);
    escqrs_ref_release(self->who);
    esc_py_fault_release(self->fault);
    escqrs_free(self);
}

/* Tell who has subscribed to ActorFailed. Any thread. */
static void failed_push(esc_py_actor_system *system, escqrs_ref *who, esc_py_fault *fault,
                        const escqrs_error *error, const char *message, escqrs_directive directive)
{
    /* relaxed: as for letters */
    if (!atomic_load_explicit(&system->listening, memory_order_relaxed)) {
        return;
    }
    failed *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        return;
    }
    self->system = system;
    self->who = who;
    if (who != NULL) {
        escqrs_ref_hold(who);
    }
    self->fault = fault;
    if (fault != NULL) {
        esc_py_fault_hold(fault);
    }
    self->error = *error;
    self->directive = directive;
    snprintf(self->message, sizeof self->message, "%s", message);
    self->errand.run = failed_errand;
    esc_py_errand_push(system, &self->errand);
}

void esc_py_on_failure(void *data, const escqrs_envelope *event)
{
    const escqrs_failure_message *message = (const escqrs_failure_message *)event;
    const escqrs_failure *failure = message->failure;
    escqrs_error error = {0};
    (void)escqrs_error_set(&error, failure->status, "%s", failure->text);
    failed_push(data, failure->who, failure->detail, &error, failure->message, message->directive);
}

void esc_py_failed_publish(esc_py_actor_system *system, escqrs_ref *who, esc_py_fault *fault,
                           const escqrs_error *error, const char *message,
                           escqrs_directive directive)
{
    char path[512];
    escqrs_ref_path(who, path, sizeof path);
    escqrs_log_write(escqrs_actor_system_log(system->core), ESCQRS_LOG_ERROR,
                     "actor %s failed%s%s (%s): %s", path, message[0] == '\0' ? "" : " in ",
                     message, directive == ESCQRS_DIRECTIVE_RESUME ? "resume" : "restart",
                     error->message);
    failed_push(system, who, fault, error, message, directive);
}
