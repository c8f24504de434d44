/* python/rows.h - es.Rows: a database as a query or a handler of a read model sees it.
 *
 * A Rows lives for one call: on a reading connection for @es.query, on the writing one (within the
 * projection's transaction) for @es.on. Only the thread of that call may use it. execute() answers
 * a Cursor; what it has not been asked for when the call ends can no longer be had.
 *
 * A query runs detached from Python: rows are fetched in chunks into plain memory and become
 * objects afterwards. While it runs, SQLite asks now and then whether Ctrl-C was pressed.
 */
#ifndef ESC_PYTHON_ROWS_H
#define ESC_PYTHON_ROWS_H

#include "python/system.h"

typedef struct esc_py_rows esc_py_rows;

typedef struct esc_py_rows_state {
    PyTypeObject *type;   /* Rows */
    PyTypeObject *cursor; /* Cursor */
    PyObject *enum_type;  /* enum.Enum */
} esc_py_rows_state;

/* On a connection (sqlite3 *). `model`: within its projection; NULL: a query. Statements that run
 * beyond the deadline (monotonic, INT64_MAX: none) are ended. New reference. */
PyObject *esc_py_rows_new(esc_py_system *system, void *sqlite, escqrs_readmodel *model,
                          int64_t deadline_ns);
/* The call is over: end its cursors; all later use raises. */
void esc_py_rows_end(PyObject *rows);

int esc_py_rows_exec(PyObject *module);
int esc_py_rows_traverse_state(esc_py_rows_state *section, visitproc visit, void *arg);
void esc_py_rows_clear_state(esc_py_rows_state *section);

#endif
