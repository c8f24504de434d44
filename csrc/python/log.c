/* See log.h. */
#include "python/log.h"

#include <string.h>

#include "python/state.h"

typedef struct log_line {
    esc_queue_node queued;
    escqrs_log_level level;
    char text[];
} log_line;

void esc_py_log_init(esc_py_log *self, esc_py_state *state)
{
    self->state = state;
    self->host = NULL;
    esc_queue_init(&self->lines);
    esc_mutex_init(&self->mutex);
}

void esc_py_log_fini(esc_py_log *self)
{
    esc_py_log_drain(self);
    esc_mutex_fini(&self->mutex);
}

void esc_py_log_write(void *log, escqrs_log_level level, const char *text)
{
    esc_py_log *self = log;
    size_t size = strlen(text) + 1;
    log_line *line = escqrs_alloc(sizeof *line + size);
    if (line == NULL) {
        escqrs_log_write(NULL, level, "%s", text);
        return;
    }
    line->level = level;
    memcpy(line->text, text, size);
    esc_queue_push(&self->lines, &line->queued);
    esc_mutex_lock(&self->mutex);
    if (self->host != NULL) {
        escqrs_host_poke(self->host);
    }
    esc_mutex_unlock(&self->mutex);
}

void esc_py_log_set_host(esc_py_log *self, escqrs_host *host)
{
    esc_mutex_lock(&self->mutex);
    self->host = host;
    esc_mutex_unlock(&self->mutex);
}

void esc_py_log_drain(esc_py_log *self)
{
    if (esc_queue_is_empty(&self->lines)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    esc_queue_node *node = esc_queue_take_all(&self->lines);
    while (node != NULL) {
        log_line *line = (log_line *)((char *)node - offsetof(log_line, queued));
        node = node->next;
        PyObject *result =
            PyObject_CallFunction(self->state->log.text, "is", (int)line->level, line->text);
        if (result == NULL) {
            PyErr_WriteUnraisable(NULL);
        }
        Py_XDECREF(result);
        escqrs_free(line);
    }
    PyErr_Restore(type, value, traceback);
}

/* ---- the module ------------------------------------------------------------------------------- */

/* The function of the facade that C calls; once, at import. */
static PyObject *bind(PyObject *module, PyObject *text)
{
    Py_XSETREF(esc_py_state_of(module)->log.text, Py_NewRef(text));
    Py_RETURN_NONE;
}

static PyMethodDef module_functions[] = {
    {"_bind_log", bind, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

int esc_py_log_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, module_functions);
}

int esc_py_log_traverse_state(esc_py_log_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->text);
    return 0;
}

void esc_py_log_clear_state(esc_py_log_state *section)
{
    Py_CLEAR(section->text);
}
