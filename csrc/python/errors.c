/* python/errors.c - from a status of the core to an exception of escqrs.errors.
 *
 * The classes are Python's (errors.py draws their tree); they are fetched once, when the module is
 * made. No locks; the GIL is held throughout.
 */
#include "python/state.h"
#include "python/text.h"

static const struct {
    escqrs_status status;
    const char *name;
} error_classes[] = {
    {ESCQRS_IO, "StorageError"},
    {ESCQRS_TOO_LARGE, "TooLarge"},
    {ESCQRS_WRONG_VERSION, "WrongVersion"},
    {ESCQRS_CONDITION_FAILED, "ConditionFailed"},
    {ESCQRS_CHECKPOINT_BEHIND, "CheckpointBehind"},
    {ESCQRS_KEY_REUSED, "KeyReused"},
    {ESCQRS_DEADLOCK, "Deadlock"},
    {ESCQRS_TIMEOUT, "Timeout"},
    {ESCQRS_MAILBOX_FULL, "MailboxFull"},
    {ESCQRS_CLOSED, "Closed"},
    {ESCQRS_FORKED, "Forked"},
    {ESCQRS_LOCKED, "Locked"},
    {ESCQRS_FULL, "Full"},
    {ESCQRS_READ_ONLY, "ReadOnly"},
    {ESCQRS_NOT_A_STORE, "NotAStore"},
    {ESCQRS_CORRUPT, "Corrupt"},
    {ESCQRS_UNKNOWN_TYPE, "UnknownType"},
    {ESCQRS_NAME_CLASH, "NameClash"},
    {ESCQRS_NAME_EXISTS, "NameExists"},
    {ESCQRS_SCHEMA_MISMATCH, "SchemaMismatch"},
    {ESCQRS_READ_MODEL_STOPPED, "ReadModelStopped"},
    {ESCQRS_REJECTED, "Rejected"},
    {ESCQRS_ABORTED, "Aborted"},
    {ESCQRS_DELETED, "Deleted"},
    {ESCQRS_NOT_COVERED, "NotCovered"},
};

int esc_py_errors_exec(PyObject *module)
{
    esc_py_errors_state *section = &esc_py_state_of(module)->errors;
    PyObject *errors = PyImport_ImportModule("escqrs.errors");
    if (errors == NULL) {
        return -1;
    }
    section->error = PyObject_GetAttrString(errors, "Error");
    if (section->error == NULL) {
        goto fail;
    }
    for (size_t i = 0; i < sizeof error_classes / sizeof error_classes[0]; i++) {
        PyObject *cls = PyObject_GetAttrString(errors, error_classes[i].name);
        if (cls == NULL) {
            goto fail;
        }
        section->classes[error_classes[i].status] = cls;
    }
    section->classes[ESCQRS_NO_MEMORY] = Py_NewRef(PyExc_MemoryError);
    section->classes[ESCQRS_INVALID] = Py_NewRef(PyExc_ValueError);
    Py_DECREF(errors);
    return 0;
fail:
    Py_DECREF(errors);
    return -1;
}

int esc_py_errors_traverse(esc_py_errors_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->error);
    for (int i = 0; i < ESC_PY_STATUS_MAX; i++) {
        Py_VISIT(section->classes[i]);
    }
    return 0;
}

void esc_py_errors_clear(esc_py_errors_state *section)
{
    Py_CLEAR(section->error);
    for (int i = 0; i < ESC_PY_STATUS_MAX; i++) {
        Py_CLEAR(section->classes[i]);
    }
}

PyObject *esc_py_error_class(struct esc_py_state *state, escqrs_status status)
{
    PyObject *cls = NULL;
    if ((int)status >= 0 && (int)status < ESC_PY_STATUS_MAX) {
        cls = state->errors.classes[status];
    }
    return cls != NULL ? cls : state->errors.error;
}

/* Takes `value` over. An attribute that was not filled in stays None. */
static int set_attribute(PyObject *exception, const char *name, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    int result = PyObject_SetAttrString(exception, name, value);
    Py_DECREF(value);
    return result;
}

static int set_subject(PyObject *exception, const char *name, const escqrs_error *error)
{
    return error->subject[0] == 0
               ? 0
               : set_attribute(exception, name, esc_py_text(escqrs_slice_of(error->subject)));
}

static int set_number(PyObject *exception, const char *name, int64_t number)
{
    return set_attribute(exception, name, PyLong_FromLongLong(number));
}

static int set_place(PyObject *exception, const escqrs_error *error)
{
    if (set_subject(exception, "stream", error) < 0 ||
        (error->version != 0 && set_number(exception, "version", error->version) < 0) ||
        (error->position != 0 && set_number(exception, "position", error->position) < 0)) {
        return -1;
    }
    return 0;
}

static int set_attributes(PyObject *exception, const escqrs_error *error)
{
    switch (error->status) {
    case ESCQRS_WRONG_VERSION:
        if (set_subject(exception, "stream", error) < 0 ||
            set_number(exception, "expected", error->expected) < 0) {
            return -1;
        }
        return set_number(exception, "actual", error->actual);
    case ESCQRS_CONDITION_FAILED:
        return set_number(exception, "position", error->position);
    case ESCQRS_CHECKPOINT_BEHIND:
        if (set_subject(exception, "name", error) < 0 ||
            set_number(exception, "given", error->expected) < 0) {
            return -1;
        }
        return set_number(exception, "current", error->actual);
    case ESCQRS_KEY_REUSED:
        return set_subject(exception, "key", error);
    case ESCQRS_CORRUPT:
    case ESCQRS_UNKNOWN_TYPE:
    case ESCQRS_DELETED:
    case ESCQRS_NOT_COVERED:
        return set_place(exception, error);
    case ESCQRS_READ_MODEL_STOPPED:
        if (set_subject(exception, "name", error) < 0) {
            return -1;
        }
        return error->position == 0 ? 0 : set_number(exception, "position", error->position);
    case ESCQRS_LOCKED:
    case ESCQRS_NOT_A_STORE:
        return set_subject(exception, "path", error);
    case ESCQRS_IO:
    case ESCQRS_FULL:
    case ESCQRS_READ_ONLY:
        return error->system_error == 0 ? 0 : set_number(exception, "errno", error->system_error);
    default:
        return 0;
    }
}

PyObject *esc_py_error_new(struct esc_py_state *state, const escqrs_error *error)
{
    PyObject *cls = esc_py_error_class(state, error->status);
    if (error->status == ESCQRS_NO_MEMORY && error->message[0] == 0) {
        return PyObject_CallNoArgs(cls);
    }
    PyObject *text = esc_py_text(escqrs_slice_of(
        error->message[0] != 0 ? error->message : escqrs_status_name(error->status)));
    if (text == NULL) {
        return NULL;
    }
    PyObject *exception = PyObject_CallOneArg(cls, text);
    Py_DECREF(text);
    if (exception != NULL && set_attributes(exception, error) < 0) {
        Py_CLEAR(exception);
    }
    return exception;
}

void *esc_py_raise(struct esc_py_state *state, const escqrs_error *error)
{
    PyObject *exception = esc_py_error_new(state, error);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}
