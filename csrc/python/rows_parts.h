/* python/rows_parts.h - what the rows*.c files share among themselves. */
#ifndef ESC_PYTHON_ROWS_PARTS_H
#define ESC_PYTHON_ROWS_PARTS_H

#include <sqlite3.h>

#include "base/buffer.h"
#include "base/vector.h"
#include "python/rows.h"
#include "python/state.h"

typedef struct esc_py_rows_cursor esc_py_rows_cursor;

struct esc_py_rows {
    PyObject_HEAD
    esc_py_system *system;       /* strong */
    sqlite3 *db;                 /* NULL: the call is over */
    escqrs_readmodel *model;     /* NULL: a query */
    esc_py_rows_cursor *cursors; /* those that have a statement */
    esc_vector
        orphans; /* sqlite3_stmt * of cursors that were dropped while they could not be ended */
    unsigned long thread;
    bool busy;
    PyThreadState *detached; /* while SQLite runs detached */
    int64_t looked_ns;
    int64_t deadline_ns; /* of a query, monotonic; INT64_MAX: none */
    bool interrupted;    /* an exception is set: a signal's */
};

/* ---- rows.c ---- */

/* May this thread use the connection now? -1 with an exception. */
int esc_py_rows_check(esc_py_rows *rows);
/* Around every use of SQLite that may take long: detached where it is a query. */
void esc_py_rows_enter(esc_py_rows *rows);
void esc_py_rows_leave(esc_py_rows *rows);
/* A statement that was prepared by these rows is no longer used. */
void esc_py_rows_give_back(esc_py_rows *rows, sqlite3_stmt *statement);
/* "{what SQLite says}, in: {sql}" */
void esc_py_rows_raise(esc_py_rows *rows, int code, const char *sql);
/* The call is over. */
void esc_py_rows_raise_over(esc_py_system *system);

/* ---- rows_parameter.c ---- */

int esc_py_rows_parameter_exec(PyObject *module);
/* Bind what was given to execute(): a mapping, a sequence, or NULL. -1 with an exception. */
int esc_py_rows_bind(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *parameters);

/* ---- rows_cursor.c ---- */

int esc_py_rows_cursor_exec(PyObject *module);
/* Takes the statement over, also on failure. New reference. */
PyObject *esc_py_rows_cursor_new(esc_py_rows *rows, sqlite3_stmt *statement);
/* The call is over: no more rows from SQLite, and whoever asks for more is told so. */
void esc_py_rows_cursor_cut(esc_py_rows_cursor *cursor);

#endif
