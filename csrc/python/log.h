/* python/log.h - lines that the core logs, on their way to Python's logging.
 *
 * They come on any thread, without the GIL: they go on a lock-free queue, and whoever has the GIL
 * and uses the store or its system next hands them over; a worker of the system is woken for them.
 * A store has one, and the system and the read models on it use that one. `mutex` is a leaf; a
 * worker's wake-up is all that it covers. */
#ifndef ESC_PYTHON_LOG_H
#define ESC_PYTHON_LOG_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <escqrs/runtime.h>

#include "base/queue.h"
#include "base/thread.h"

struct esc_py_state;

typedef struct esc_py_log {
    struct esc_py_state *state;
    esc_queue lines;
    esc_mutex mutex;
    escqrs_host *host; /* mutex: whom to poke when a line has come; or NULL */
} esc_py_log;

typedef struct esc_py_log_state {
    PyObject *text; /* function of _log.py: text(level, text) */
} esc_py_log_state;

void esc_py_log_init(esc_py_log *self, struct esc_py_state *state);
/* Hands over what is left. */
void esc_py_log_fini(esc_py_log *self);
/* An escqrs_log_function; its context is the esc_py_log. Any thread. */
void esc_py_log_write(void *log, escqrs_log_level level, const char *text);
/* Who is to be woken for lines; NULL: nobody any more. */
void esc_py_log_set_host(esc_py_log *self, escqrs_host *host);
/* Hand the lines to Python. Holds the GIL; keeps the exception that is set. */
void esc_py_log_drain(esc_py_log *self);

int esc_py_log_exec(PyObject *module);
int esc_py_log_traverse_state(esc_py_log_state *section, visitproc visit, void *arg);
void esc_py_log_clear_state(esc_py_log_state *section);

#endif
