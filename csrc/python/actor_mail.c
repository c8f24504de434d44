/* python/actor_mail.c - mails, exceptions on their way, and errands; see actor.h.
 *
 * Locks: none. Mails are made with the GIL, from a free list; the core may destroy and copy them
 * without it.
 */

#include "python/actor.h"

#include <stdio.h>
#include <string.h>

#include "python/errors.h"
#include "python/reply.h"
#include "python/state.h"

#define FREE_MAILS_MAX 4096

/* ---- errands ------------------------------------------------------------------------------------ */

void esc_py_errand_push(esc_py_actor_system *system, esc_py_errand *errand)
{
    if (esc_queue_push(&system->errands, &errand->node)) {
        escqrs_host_poke(system->host);
    }
}

void esc_py_errands_run(esc_py_actor_system *system)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF((PyObject *)system); /* the last of them may hold the last reference */
    esc_queue_node *node = esc_queue_take_all(&system->errands);
    while (node != NULL) {
        esc_py_errand *errand = ESC_CONTAINER_OF(node, esc_py_errand, node);
        node = node->next;
        errand->run(errand);
    }
    esc_py_log_drain(&system->log);
    Py_DECREF((PyObject *)system);
    PyErr_Restore(type, value, traceback);
}

/* ---- mails -------------------------------------------------------------------------------------- */

esc_py_mail *esc_py_mail_new(esc_py_actor_system *system, PyObject *object, PyObject *headers)
{
    esc_py_mail *mail = system->free_mails;
    if (mail != NULL) {
        system->free_mails = mail->next_free;
        system->free_mail_count--;
    } else if ((mail = escqrs_alloc(sizeof *mail)) == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(mail, 0, sizeof *mail);
    mail->envelope.type = &esc_py_mail_type;
    mail->system = system;
    mail->object = Py_NewRef(object);
    mail->headers = Py_XNewRef(headers);
    atomic_init(&mail->references, 1);
    return mail;
}

esc_py_mail *esc_py_mail_new_error(esc_py_actor_system *system, const escqrs_error *error)
{
    esc_py_mail *mail = escqrs_alloc_zero(sizeof *mail);
    escqrs_error *copy = escqrs_alloc(sizeof *copy);
    if (mail == NULL || copy == NULL) {
        escqrs_free(mail);
        escqrs_free(copy);
        return NULL;
    }
    *copy = *error;
    mail->envelope.type = &esc_py_mail_type;
    mail->system = system;
    mail->error = copy;
    atomic_init(&mail->references, 1);
    return mail;
}

/* With the GIL. */
static void mail_free(esc_py_mail *mail)
{
    esc_py_actor_system *system = mail->system;
    PyObject *object = mail->object, *headers = mail->headers;
    escqrs_free(mail->error);
    if (system->free_mail_count < FREE_MAILS_MAX) {
        mail->next_free = system->free_mails;
        system->free_mails = mail;
        system->free_mail_count++;
    } else {
        escqrs_free(mail);
    }
    Py_XDECREF(object); /* runs Python code: last */
    Py_XDECREF(headers);
}

static void mail_errand(esc_py_errand *errand)
{
    mail_free((esc_py_mail *)errand);
}

static void mail_destroy(escqrs_envelope *envelope)
{
    esc_py_mail *mail = esc_py_mail_of(envelope);
    if (mail->master != NULL) {
        esc_py_mail *master = mail->master;
        escqrs_free(mail);
        mail = master;
    }
    /* acq_rel: the last one sees what all others did with it */
    if (atomic_fetch_sub_explicit(&mail->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (esc_py_is_attached()) {
        mail_free(mail);
    } else {
        mail->errand.run = mail_errand;
        esc_py_errand_push(mail->system, &mail->errand);
    }
}

static escqrs_envelope *mail_copy(const escqrs_envelope *envelope)
{
    esc_py_mail *mail = (esc_py_mail *)envelope;
    esc_py_mail *master = mail->master != NULL ? mail->master : mail;
    esc_py_mail *copy = escqrs_alloc_zero(sizeof *copy);
    if (copy == NULL) {
        return NULL;
    }
    /* relaxed: whoever copies has the mail */
    (void)atomic_fetch_add_explicit(&master->references, 1, memory_order_relaxed);
    copy->envelope.type = &esc_py_mail_type;
    copy->system = mail->system;
    copy->priority = mail->priority;
    copy->master = master;
    return &copy->envelope;
}

static void mail_describe(const escqrs_envelope *envelope, char *text, size_t size)
{
    const esc_py_mail *mail = (const esc_py_mail *)envelope;
    PyObject *object = esc_py_mail_object(mail);
    /* the name of a type that its object keeps: a C string that does not change but by assignment
     * to __name__, which is with the GIL */
    snprintf(text, size, "%s", object == NULL ? "an error" : Py_TYPE(object)->tp_name);
}

const escqrs_message_type esc_py_mail_type = {
    .name = "message",
    .destroy = mail_destroy,
    .copy = mail_copy,
    .describe = mail_describe,
};

void esc_py_mail_free_list(esc_py_actor_system *system)
{
    while (system->free_mails != NULL) {
        esc_py_mail *mail = system->free_mails;
        system->free_mails = mail->next_free;
        escqrs_free(mail);
    }
    system->free_mail_count = 0;
}

/* ---- exceptions --------------------------------------------------------------------------------- */

esc_py_fault *esc_py_fault_take(esc_py_actor_system *system, const char *where, PyObject *what)
{
    PyObject *exception = esc_py_exception_take(where, what);
    esc_py_fault *fault = escqrs_alloc(sizeof *fault);
    if (fault == NULL) {
        Py_XDECREF(exception);
        return NULL;
    }
    fault->system = system;
    fault->exception = exception;
    atomic_init(&fault->references, 1);
    return fault;
}

void esc_py_fault_hold(esc_py_fault *fault)
{
    /* relaxed: whoever holds has it */
    (void)atomic_fetch_add_explicit(&fault->references, 1, memory_order_relaxed);
}

static void fault_errand(esc_py_errand *errand)
{
    esc_py_fault *fault = ESC_CONTAINER_OF(errand, esc_py_fault, errand);
    PyObject *exception = fault->exception;
    escqrs_free(fault);
    Py_XDECREF(exception);
}

void esc_py_fault_release(void *detail)
{
    esc_py_fault *fault = detail;
    /* acq_rel: the last one sees what all others did with it */
    if (fault == NULL ||
        atomic_fetch_sub_explicit(&fault->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    fault->errand.run = fault_errand;
    if (esc_py_is_attached()) {
        fault_errand(&fault->errand);
    } else {
        esc_py_errand_push(fault->system, &fault->errand);
    }
}
