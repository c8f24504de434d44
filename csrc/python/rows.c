/* python/rows.c - see rows.h.
 *
 * Threads: the GIL guards the objects; `busy` keeps code that runs inside a wait (a signal handler) from using the
 * connection while SQLite is in it. No locks. Within a projection SQLite is called attached: the statements are short and
 * nobody else can hold the connection.
 */
#include "python/rows.h"

#define PY_SSIZE_T_CLEAN
#include <datetime.h>
#include <math.h>
#include <sqlite3.h>
#include <string.h>

#include "base/buffer.h"
#include "base/vector.h"
#include "python/state.h"

#define CHUNK_ROWS_MAX 512
#define CHUNK_BYTES_MAX (1u << 20)
#define LOOK_EVERY_OPS 20000            /* of SQLite's machine, some 0.2 ms */
#define LOOK_EVERY_NS (50 * 1000000LL)  /* for Ctrl-C */
#define SQL_BYTES_MAX 1000000

typedef struct cursor_object cursor_object;

struct esc_py_rows {
    PyObject_HEAD
    esc_py_system *system;   /* strong */
    sqlite3 *db;             /* NULL: the call is over */
    escqrs_readmodel *model; /* NULL: a query */
    cursor_object *cursors;  /* those that have a statement */
    esc_vector orphans;      /* sqlite3_stmt * of cursors that were dropped while they could not be ended */
    unsigned long thread;
    bool busy;
    PyThreadState *detached; /* while SQLite runs detached */
    int64_t looked_ns;
    bool interrupted;        /* an exception is set: a signal's */
};

/* One value of a row that was fetched; text and blobs are in `bytes`. */
typedef struct cell {
    int type;
    union {
        int64_t integer;
        double real;
        struct {
            size_t offset, size;
        } bytes;
    } value;
} cell;

struct cursor_object {
    PyObject_HEAD
    esc_py_rows *rows;       /* strong while there is a statement */
    sqlite3_stmt *statement; /* NULL: at its end, or the call is over */
    cursor_object *next, *previous;
    PyObject *columns;       /* tuple of str */
    int column_count;
    Py_ssize_t row_count;    /* changed; -1 for what reads */
    esc_vector cells;
    esc_buffer bytes;
    size_t fetched, taken;   /* rows in `cells` */
    size_t chunk;            /* rows to fetch next */
    bool cut;                /* the call ended before the rows did */
};

/* ---- errors ------------------------------------------------------------------------------------------ */

static PyObject *error_class(esc_py_system *system, int code)
{
    switch (code & 0xff) {
    case SQLITE_READONLY:
        return esc_py_error_class(system->state, ESCQRS_READ_ONLY);
    case SQLITE_FULL:
        return esc_py_error_class(system->state, ESCQRS_FULL);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return esc_py_error_class(system->state, ESCQRS_CORRUPT);
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
        return esc_py_error_class(system->state, ESCQRS_IO);
    default:
        return system->state->errors.error;
    }
}

/* "{what SQLite says}, in: {sql}" */
static void raise_sqlite(esc_py_rows *rows, int code, const char *sql)
{
    if (rows->interrupted) {
        rows->interrupted = false;
        if (PyErr_Occurred()) {
            return;
        }
    }
    if ((code & 0xff) == SQLITE_NOMEM) {
        PyErr_NoMemory();
        return;
    }
    PyErr_Format(error_class(rows->system, code), "%s, in: %.500s", sqlite3_errmsg(rows->db),
                 sql == NULL ? "" : sql);
}

static void raise_over(esc_py_system *system)
{
    PyErr_SetString(esc_py_error_class(system->state, ESCQRS_CLOSED),
                    "the query or handler that this belongs to has ended; fetch the rows before it "
                    "returns, for example with fetchall()");
}

/* May this thread use the connection now? */
static int check_usable(esc_py_rows *rows)
{
    if (rows->db == NULL) {
        raise_over(rows->system);
        return -1;
    }
    if (rows->thread != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "es.Rows belongs to the thread of its query; call the query in the other thread");
        return -1;
    }
    if (rows->busy) {
        PyErr_SetString(PyExc_RuntimeError, "es.Rows is in use: a statement is running");
        return -1;
    }
    return 0;
}

/* ---- running detached ---------------------------------------------------------------------------------- */

/* SQLite asks every LOOK_EVERY_OPS operations; true ends the statement. */
static int look(void *context)
{
    esc_py_rows *rows = context;
    int64_t now = escqrs_clock_monotonic_ns(NULL);
    if (now - rows->looked_ns < LOOK_EVERY_NS || rows->detached == NULL) {
        return 0;
    }
    rows->looked_ns = now;
    PyEval_RestoreThread(rows->detached);
    int failed = PyErr_CheckSignals();
    if (failed == 0 && rows->system->closed == 2) {
        PyErr_SetString(esc_py_error_class(rows->system->state, ESCQRS_CLOSED), "the system was closed");
        failed = -1;
    }
    rows->interrupted = failed < 0;
    rows->detached = PyEval_SaveThread();
    return failed < 0;
}

static void enter(esc_py_rows *rows)
{
    rows->busy = true;
    rows->interrupted = false;
    if (rows->model == NULL) {
        rows->looked_ns = escqrs_clock_monotonic_ns(NULL);
        rows->detached = PyEval_SaveThread();
    }
}

static void leave(esc_py_rows *rows)
{
    if (rows->detached != NULL) {
        PyThreadState *thread = rows->detached;
        rows->detached = NULL;
        PyEval_RestoreThread(thread);
    }
    rows->busy = false;
}

/* ---- parameters ------------------------------------------------------------------------------------------ */

static int bind_time(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    PyObject *zone = PyObject_GetAttrString(value, "tzinfo");
    if (zone == NULL) {
        return -1;
    }
    bool naive = zone == Py_None;
    Py_DECREF(zone);
    if (naive) {
        PyErr_Format(PyExc_ValueError, "a datetime without a time zone: %R; events hold times in UTC", value);
        return -1;
    }
    PyObject *utc = PyObject_CallMethod(value, "astimezone", "O", rows->system->state->rows.utc);
    PyObject *text = utc == NULL ? NULL : PyObject_CallMethod(utc, "isoformat", "ss", " ", "microseconds");
    Py_XDECREF(utc);
    Py_ssize_t size = 0;
    const char *bytes = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &size);
    int code = bytes == NULL ? -1
                             : sqlite3_bind_text64(statement, index, bytes, (sqlite3_uint64)size,
                                                   SQLITE_TRANSIENT, SQLITE_UTF8);
    Py_XDECREF(text);
    return code;
}

static int bind_text(sqlite3_stmt *statement, int index, PyObject *value)
{
    Py_ssize_t size = 0;
    const char *bytes = PyUnicode_AsUTF8AndSize(value, &size);
    if (bytes == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "text that is not valid Unicode: %R", value);
        }
        return -1;
    }
    return sqlite3_bind_text64(statement, index, bytes, (sqlite3_uint64)size, SQLITE_TRANSIENT, SQLITE_UTF8);
}

static int bind_integer(sqlite3_stmt *statement, int index, PyObject *value)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        PyErr_Format(PyExc_ValueError, "an integer beyond 64 bits: %R", value);
        return -1;
    }
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    return sqlite3_bind_int64(statement, index, number);
}

static int bind_bytes(sqlite3_stmt *statement, int index, PyObject *value)
{
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int code = sqlite3_bind_blob64(statement, index, view.len == 0 ? "" : view.buf, (sqlite3_uint64)view.len,
                                   SQLITE_TRANSIENT);
    PyBuffer_Release(&view);
    return code;
}

/* SQLite's code, or -1 with an exception. As the parameters of es.sql are bound, so that the two compare. */
static int bind_value(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    if (value == Py_None) {
        return sqlite3_bind_null(statement, index);
    }
    if (PyBool_Check(value)) {
        return sqlite3_bind_int(statement, index, value == Py_True);
    }
    int is_enum = PyObject_IsInstance(value, rows->system->state->rows.enum_type);
    if (is_enum != 0) {
        PyObject *name = is_enum < 0 ? NULL : PyObject_GetAttrString(value, "name");
        int code = -1;
        if (name != NULL && PyUnicode_Check(name)) {
            code = bind_text(statement, index, name);
        } else if (name != NULL) {
            PyErr_Format(PyExc_TypeError, "an enum value without a name: %R", value);
        }
        Py_XDECREF(name);
        return code;
    }
    if (PyLong_Check(value)) {
        return bind_integer(statement, index, value);
    }
    if (PyFloat_Check(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        if (isnan(number)) {
            PyErr_SetString(PyExc_ValueError, "NaN, which SQL cannot hold");
            return -1;
        }
        return sqlite3_bind_double(statement, index, number);
    }
    if (PyUnicode_Check(value)) {
        return bind_text(statement, index, value);
    }
    if (PyBytes_Check(value) || PyByteArray_Check(value) || PyMemoryView_Check(value)) {
        return bind_bytes(statement, index, value);
    }
    if (PyDateTime_Check(value)) {
        return bind_time(rows, statement, index, value);
    }
    PyErr_Format(PyExc_TypeError,
                 "a parameter is None, bool, int, float, str, bytes, datetime or an Enum, not %.200s",
                 Py_TYPE(value)->tp_name);
    return -1;
}

/* Say which parameter an exception is about. */
static void name_parameter(const char *name, int index)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type != NULL && value != NULL &&
        (PyErr_GivenExceptionMatches(type, PyExc_TypeError) || PyErr_GivenExceptionMatches(type, PyExc_ValueError))) {
        PyObject *text = PyObject_Str(value);
        if (text != NULL) {
            if (name != NULL) {
                PyErr_Format(type, "parameter %s: %U", name, text);
            } else {
                PyErr_Format(type, "parameter %d: %U", index, text);
            }
            Py_DECREF(text);
            Py_DECREF(type);
            Py_DECREF(value);
            Py_XDECREF(traceback);
            return;
        }
        PyErr_Clear();
    }
    PyErr_Restore(type, value, traceback);
}

static int bind_at(esc_py_rows *rows, sqlite3_stmt *statement, int index, PyObject *value)
{
    int code = bind_value(rows, statement, index, value);
    if (code == -1) {
        name_parameter(sqlite3_bind_parameter_name(statement, index), index);
        return -1;
    }
    if (code != SQLITE_OK) {
        raise_sqlite(rows, code, sqlite3_sql(statement));
        return -1;
    }
    return 0;
}

/* Every key has its parameter. */
static int check_keys(sqlite3_stmt *statement, PyObject *keys)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys); i++) {
        PyObject *key = PyList_GET_ITEM(keys, i);
        const char *text = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
        if (text == NULL) {
            PyErr_Clear();
            PyErr_Format(PyExc_TypeError, "the name of a parameter is a str, not %R", key);
            return -1;
        }
        bool known = false;
        int count = sqlite3_bind_parameter_count(statement);
        for (int j = 1; j <= count && !known; j++) {
            const char *name = sqlite3_bind_parameter_name(statement, j);
            known = name != NULL && strcmp(name + 1, text) == 0;
        }
        if (!known) {
            PyErr_Format(PyExc_ValueError, "the statement has no parameter :%s: %.500s", text,
                         sqlite3_sql(statement));
            return -1;
        }
    }
    return 0;
}

static int bind_mapping(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *mapping)
{
    PyObject *keys = PyMapping_Keys(mapping);
    if (keys == NULL) {
        return -1;
    }
    int failed = check_keys(statement, keys);
    Py_DECREF(keys);
    int count = sqlite3_bind_parameter_count(statement);
    for (int i = 1; failed == 0 && i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name == NULL || name[0] == '?') {
            PyErr_Format(PyExc_ValueError, "a parameter without a name cannot be had from a mapping: %.500s",
                         sqlite3_sql(statement));
            return -1;
        }
        PyObject *value = PyMapping_GetItemString(mapping, name + 1);
        if (value == NULL) {
            if (PyErr_ExceptionMatches(PyExc_KeyError)) {
                PyErr_Format(PyExc_ValueError, "no value for the parameter %s: %.500s", name,
                             sqlite3_sql(statement));
            }
            return -1;
        }
        failed = bind_at(rows, statement, i, value);
        Py_DECREF(value);
    }
    return failed;
}

static int bind_sequence(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *sequence)
{
    int count = sqlite3_bind_parameter_count(statement);
    for (int i = 1; i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name(statement, i);
        if (name != NULL && name[0] != '?') {
            PyErr_Format(PyExc_ValueError, "the parameter %s has a name: give the values as a mapping: %.500s",
                         name, sqlite3_sql(statement));
            return -1;
        }
    }
    Py_ssize_t given = PySequence_Size(sequence);
    if (given < 0) {
        return -1;
    }
    if (given != count) {
        PyErr_Format(PyExc_ValueError, "%zd values for %d parameters: %.500s", given, count,
                     sqlite3_sql(statement));
        return -1;
    }
    for (int i = 1; i <= count; i++) {
        PyObject *value = PySequence_GetItem(sequence, i - 1);
        if (value == NULL) {
            return -1;
        }
        int failed = bind_at(rows, statement, i, value);
        Py_DECREF(value);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static int bind(esc_py_rows *rows, sqlite3_stmt *statement, PyObject *parameters)
{
    if (parameters == NULL || parameters == Py_None ||
        (PyTuple_CheckExact(parameters) && PyTuple_GET_SIZE(parameters) == 0)) {
        if (sqlite3_bind_parameter_count(statement) == 0) {
            return 0;
        }
        const char *name = sqlite3_bind_parameter_name(statement, 1);
        PyErr_Format(PyExc_ValueError, "no value for the parameter %s: %.500s", name == NULL ? "?" : name,
                     sqlite3_sql(statement));
        return -1;
    }
    if (PyUnicode_Check(parameters) || PyBytes_Check(parameters)) {
        PyErr_SetString(PyExc_TypeError, "parameters are a mapping or a sequence of values, not one text");
        return -1;
    }
    if (PyTuple_Check(parameters) || PyList_Check(parameters)) {
        return bind_sequence(rows, statement, parameters);
    }
    if (PyMapping_Check(parameters) && PyObject_HasAttrString(parameters, "keys")) {
        return bind_mapping(rows, statement, parameters);
    }
    if (PySequence_Check(parameters)) {
        return bind_sequence(rows, statement, parameters);
    }
    PyErr_Format(PyExc_TypeError, "parameters are a mapping or a sequence of values, not %.200s",
                 Py_TYPE(parameters)->tp_name);
    return -1;
}

/* ---- preparing ------------------------------------------------------------------------------------------------ */

static bool is_blank(const char *text)
{
    for (;;) {
        while (*text != '\0' && (strchr(" \t\r\n\f;", *text) != NULL)) {
            text++;
        }
        if (text[0] == '-' && text[1] == '-') {
            text += strcspn(text, "\n");
        } else if (text[0] == '/' && text[1] == '*') {
            const char *end = strstr(text + 2, "*/");
            text = end == NULL ? text + strlen(text) : end + 2;
        } else {
            return *text == '\0';
        }
    }
}

static const char *first_word(const char *text)
{
    for (;;) {
        while (*text != '\0' && (strchr(" \t\r\n\f;(", *text) != NULL)) {
            text++;
        }
        if (text[0] == '-' && text[1] == '-') {
            text += strcspn(text, "\n");
        } else if (text[0] == '/' && text[1] == '*') {
            const char *end = strstr(text + 2, "*/");
            text = end == NULL ? text + strlen(text) : end + 2;
        } else {
            return text;
        }
    }
}

/* Is the first word of the statement one of these? */
static bool begins_with(const char *sql, const char *const *words)
{
    const char *word = first_word(sql);
    for (size_t i = 0; words[i] != NULL; i++) {
        size_t size = strlen(words[i]);
        if (sqlite3_strnicmp(word, words[i], (int)size) == 0) {
            char next = word[size];
            return !(next == '_' || (next >= '0' && next <= '9') || (next >= 'a' && next <= 'z') ||
                     (next >= 'A' && next <= 'Z'));
        }
    }
    return false;
}

/* A query only reads. The connection is read-only besides; this keeps out what changes the connection itself: PRAGMA,
 * ATTACH, BEGIN. */
static const char *const reading_words[] = {"select", "with", "values", "explain", NULL};
static const char *const other_words[] = {"insert",   "replace",   "update",   "delete",  "create", "drop",    "alter",
                                          "attach",   "detach",    "pragma",   "begin",   "end",    "commit",  "rollback",
                                          "savepoint", "release",  "vacuum",   "reindex", "analyze", NULL};

static void raise_readonly(esc_py_rows *rows, const char *sql)
{
    PyErr_Format(esc_py_error_class(rows->system->state, ESCQRS_READ_ONLY),
                 "a query only reads (SELECT, WITH, VALUES, EXPLAIN); what events do to the tables is the matter of "
                 "es.sql and es.on: %.500s", sql);
}

static sqlite3_stmt *prepare_query(esc_py_rows *rows, const char *sql, Py_ssize_t size)
{
    sqlite3_stmt *statement = NULL;
    const char *tail = NULL;
    enter(rows);
    int code = sqlite3_prepare_v2(rows->db, sql, (int)size + 1, &statement, &tail);
    leave(rows);
    if (code != SQLITE_OK) {
        if (begins_with(sql, other_words)) {
            raise_readonly(rows, sql);
        } else {
            raise_sqlite(rows, code, sql);
        }
        return NULL;
    }
    if (statement == NULL) {
        PyErr_SetString(PyExc_ValueError, "empty SQL");
        return NULL;
    }
    if (!begins_with(sql, reading_words) || !sqlite3_stmt_readonly(statement)) {
        raise_readonly(rows, sql);
    } else if (!is_blank(tail)) {
        PyErr_Format(PyExc_ValueError, "more than one statement; execute them one by one: %.500s", sql);
    } else {
        return statement;
    }
    (void)sqlite3_finalize(statement);
    return NULL;
}

static sqlite3_stmt *prepare(esc_py_rows *rows, PyObject *sql)
{
    Py_ssize_t size = 0;
    if (!PyUnicode_Check(sql)) {
        PyErr_Format(PyExc_TypeError, "SQL is a str, not %.200s", Py_TYPE(sql)->tp_name);
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8AndSize(sql, &size);
    if (text == NULL) {
        return NULL;
    }
    if (size > SQL_BYTES_MAX || strlen(text) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError, "SQL with a NUL character or of more than 1,000,000 bytes");
        return NULL;
    }
    if (rows->model == NULL) {
        return prepare_query(rows, text, size);
    }
    void *statement = NULL;
    escqrs_error error = {0};
    escqrs_status status =
        escqrs_readmodel_statement(rows->model, rows->db, (escqrs_slice){text, (size_t)size}, &statement, &error);
    if (status == ESCQRS_INVALID) {
        PyErr_SetString(rows->system->state->errors.error, error.message);
    } else if (status != ESCQRS_OK) {
        esc_py_raise(rows->system->state, &error);
    }
    return statement;
}

static void give_back(esc_py_rows *rows, sqlite3_stmt *statement)
{
    if (rows->model != NULL) {
        escqrs_readmodel_statement_return(rows->model, rows->db, statement);
    } else {
        (void)sqlite3_finalize(statement);
    }
}

/* ---- cursor ------------------------------------------------------------------------------------------------------ */

/* No more rows from SQLite. */
static void cursor_end(cursor_object *self)
{
    if (self->statement == NULL) {
        return;
    }
    esc_py_rows *rows = self->rows;
    if (self->next != NULL) {
        self->next->previous = self->previous;
    }
    if (self->previous != NULL) {
        self->previous->next = self->next;
    } else {
        rows->cursors = self->next;
    }
    if ((rows->busy || rows->thread != PyThread_get_thread_ident()) &&
        esc_vector_push(&rows->orphans, &self->statement) == ESCQRS_OK) {
        /* the connection is another thread's, or SQLite is in it: later */
    } else {
        give_back(rows, self->statement);
    }
    self->statement = NULL;
    self->rows = NULL;
    Py_DECREF((PyObject *)rows);
}

static int take_cell(cursor_object *self, int column)
{
    cell one = {.type = sqlite3_column_type(self->statement, column)};
    const void *bytes = NULL;
    switch (one.type) {
    case SQLITE_INTEGER:
        one.value.integer = sqlite3_column_int64(self->statement, column);
        break;
    case SQLITE_FLOAT:
        one.value.real = sqlite3_column_double(self->statement, column);
        break;
    case SQLITE_TEXT:
        bytes = sqlite3_column_text(self->statement, column);
        break;
    case SQLITE_BLOB:
        bytes = sqlite3_column_blob(self->statement, column);
        break;
    default:
        break;
    }
    if (one.type == SQLITE_TEXT || one.type == SQLITE_BLOB) {
        one.value.bytes.size = (size_t)sqlite3_column_bytes(self->statement, column);
        one.value.bytes.offset = self->bytes.size;
        if ((bytes == NULL && one.value.bytes.size > 0) ||
            esc_buffer_append(&self->bytes, bytes, one.value.bytes.size) != ESCQRS_OK) {
            return SQLITE_NOMEM;
        }
    }
    return esc_vector_push(&self->cells, &one) == ESCQRS_OK ? SQLITE_OK : SQLITE_NOMEM;
}

/* Detached where it is a query. SQLITE_ROW: there may be more. */
static int fetch_rows(cursor_object *self)
{
    int code = SQLITE_ROW;
    while (self->fetched < self->chunk && (self->chunk == SIZE_MAX || self->bytes.size < CHUNK_BYTES_MAX) &&
           (code = sqlite3_step(self->statement)) == SQLITE_ROW) {
        for (int i = 0; i < self->column_count; i++) {
            if (take_cell(self, i) != SQLITE_OK) {
                return SQLITE_NOMEM;
            }
        }
        self->fetched++;
    }
    return code;
}

/* Fill an empty cursor; -1 with an exception. Afterwards it has rows, or is at its end. */
static int cursor_fetch(cursor_object *self)
{
    esc_vector_clear(&self->cells);
    esc_buffer_reset(&self->bytes);
    self->fetched = self->taken = 0;
    if (self->statement == NULL) {
        return 0;
    }
    esc_py_rows *rows = self->rows;
    if (check_usable(rows) < 0) {
        return -1;
    }
    enter(rows);
    int code = fetch_rows(self);
    leave(rows);
    self->chunk = self->chunk * 4 < CHUNK_ROWS_MAX ? self->chunk * 4 : CHUNK_ROWS_MAX;
    if (code == SQLITE_ROW) {
        return 0;
    }
    if (code == SQLITE_DONE) {
        if (self->row_count >= 0) {
            self->row_count = (Py_ssize_t)sqlite3_changes64(rows->db);
        }
        cursor_end(self);
        return 0;
    }
    raise_sqlite(rows, code, sqlite3_sql(self->statement));
    cursor_end(self);
    return -1;
}

static PyObject *cell_object(const cursor_object *self, const cell *one)
{
    const char *bytes = (const char *)self->bytes.data;
    switch (one->type) {
    case SQLITE_INTEGER:
        return PyLong_FromLongLong(one->value.integer);
    case SQLITE_FLOAT:
        return PyFloat_FromDouble(one->value.real);
    case SQLITE_TEXT:
        return PyUnicode_DecodeUTF8(one->value.bytes.size == 0 ? "" : bytes + one->value.bytes.offset,
                                    (Py_ssize_t)one->value.bytes.size, "strict");
    case SQLITE_BLOB:
        return PyBytes_FromStringAndSize(one->value.bytes.size == 0 ? "" : bytes + one->value.bytes.offset,
                                         (Py_ssize_t)one->value.bytes.size);
    default:
        return Py_NewRef(Py_None);
    }
}

/* The next row as a tuple; NULL without an exception at the end. */
static PyObject *cursor_next(PyObject *object)
{
    cursor_object *self = (cursor_object *)object;
    if (self->taken == self->fetched) {
        if (self->cut) {
            raise_over(self->rows->system);
            return NULL;
        }
        if (cursor_fetch(self) < 0 || self->fetched == 0) {
            return NULL;
        }
    }
    PyObject *row = PyTuple_New(self->column_count);
    size_t base = self->taken * (size_t)self->column_count;
    for (int i = 0; row != NULL && i < self->column_count; i++) {
        PyObject *value = cell_object(self, &ESC_VECTOR_AT(&self->cells, cell, base + (size_t)i));
        if (value == NULL) {
            Py_CLEAR(row);
        } else {
            PyTuple_SET_ITEM(row, i, value);
        }
    }
    self->taken++;
    return row;
}

static PyObject *cursor_take(PyObject *object, Py_ssize_t limit)
{
    PyObject *list = PyList_New(0);
    cursor_object *self = (cursor_object *)object;
    if (limit < 0 && self->chunk < CHUNK_ROWS_MAX) {
        self->chunk = CHUNK_ROWS_MAX; /* all are wanted */
    }
    while (list != NULL && (limit < 0 || PyList_GET_SIZE(list) < limit)) {
        PyObject *row = cursor_next(object);
        if (row == NULL) {
            if (PyErr_Occurred()) {
                Py_CLEAR(list);
            }
            break;
        }
        if (PyList_Append(list, row) < 0) {
            Py_CLEAR(list);
        }
        Py_DECREF(row);
    }
    return list;
}

static PyObject *cursor_fetchall(PyObject *object, PyObject *unused)
{
    (void)unused;
    return cursor_take(object, -1);
}

static PyObject *cursor_fetchmany(PyObject *object, PyObject *argument)
{
    Py_ssize_t limit = PyNumber_AsSsize_t(argument, PyExc_OverflowError);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (limit < 0) {
        PyErr_SetString(PyExc_ValueError, "fetchmany: a number of rows cannot be negative");
        return NULL;
    }
    return cursor_take(object, limit);
}

static PyObject *cursor_fetchone(PyObject *object, PyObject *unused)
{
    (void)unused;
    PyObject *row = cursor_next(object);
    if (row == NULL && !PyErr_Occurred()) {
        Py_RETURN_NONE;
    }
    return row;
}

/* All the rows that are left, each as a dict by column. */
static PyObject *cursor_dicts(PyObject *object, PyObject *unused)
{
    (void)unused;
    cursor_object *self = (cursor_object *)object;
    PyObject *list = cursor_take(object, -1);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *row = PyList_GET_ITEM(list, i);
        PyObject *dict = PyDict_New();
        for (int j = 0; dict != NULL && j < self->column_count; j++) {
            if (PyDict_SetItem(dict, PyTuple_GET_ITEM(self->columns, j), PyTuple_GET_ITEM(row, j)) < 0) {
                Py_CLEAR(dict);
            }
        }
        if (dict == NULL || PyList_SetItem(list, i, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *cursor_columns(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(((cursor_object *)object)->columns);
}

static PyObject *cursor_rowcount(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((cursor_object *)object)->row_count);
}

static PyObject *cursor_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<Cursor of the columns %R>", ((cursor_object *)object)->columns);
}

static void cursor_dealloc(PyObject *object)
{
    cursor_object *self = (cursor_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    cursor_end(self);
    Py_XDECREF((PyObject *)self->rows); /* of one that was cut */
    Py_XDECREF(self->columns);
    esc_vector_fini(&self->cells);
    esc_buffer_fini(&self->bytes);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *column_names(sqlite3_stmt *statement, int count)
{
    PyObject *names = PyTuple_New(count);
    for (int i = 0; names != NULL && i < count; i++) {
        const char *name = sqlite3_column_name(statement, i);
        PyObject *text = name == NULL ? PyErr_NoMemory() : PyUnicode_FromString(name);
        if (text == NULL) {
            Py_CLEAR(names);
        } else {
            PyTuple_SET_ITEM(names, i, text);
        }
    }
    return names;
}

/* Takes the statement over, also on failure. */
static PyObject *cursor_new(esc_py_rows *rows, sqlite3_stmt *statement)
{
    cursor_object *self = PyObject_New(cursor_object, rows->system->state->rows.cursor);
    if (self == NULL) {
        give_back(rows, statement);
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->rows = (esc_py_rows *)Py_NewRef((PyObject *)rows);
    self->statement = statement;
    self->next = rows->cursors;
    if (self->next != NULL) {
        self->next->previous = self;
    }
    rows->cursors = self;
    self->column_count = sqlite3_column_count(statement);
    self->row_count = sqlite3_stmt_readonly(statement) ? -1 : 0;
    esc_vector_init(&self->cells, sizeof(cell));
    self->columns = column_names(statement, self->column_count);
    if (self->columns == NULL) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    /* What writes is done at once, with all that it returns; of what reads, the first row. */
    self->chunk = self->row_count < 0 ? 1 : SIZE_MAX;
    if (cursor_fetch(self) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->chunk = 16;
    return (PyObject *)self;
}

/* ---- Rows ---------------------------------------------------------------------------------------------------------- */

static PyObject *rows_execute(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    esc_py_rows *self = (esc_py_rows *)object;
    PyObject *parameters = count > 1 ? args[1] : NULL;
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    if (named == 1 && count == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "parameters") == 0) {
        parameters = args[1];
    } else if (named > 0 || count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "execute(sql, parameters=()) takes a statement and its values");
        return NULL;
    }
    if (check_usable(self) < 0) {
        return NULL;
    }
    sqlite3_stmt *statement = prepare(self, args[0]);
    if (statement == NULL) {
        return NULL;
    }
    if (bind(self, statement, parameters) < 0) {
        give_back(self, statement);
        return NULL;
    }
    return cursor_new(self, statement);
}

PyObject *esc_py_rows_new(esc_py_system *system, void *sqlite, escqrs_readmodel *model)
{
    esc_py_rows *self = PyObject_New(esc_py_rows, system->state->rows.type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->system = (esc_py_system *)Py_NewRef((PyObject *)system);
    self->db = sqlite;
    self->model = model;
    self->thread = PyThread_get_thread_ident();
    esc_vector_init(&self->orphans, sizeof(sqlite3_stmt *));
    if (model == NULL) {
        sqlite3_progress_handler(self->db, LOOK_EVERY_OPS, look, self);
    }
    return (PyObject *)self;
}

void esc_py_rows_end(PyObject *object)
{
    esc_py_rows *self = (esc_py_rows *)object;
    while (self->cursors != NULL) {
        cursor_object *cursor = self->cursors;
        cursor_end(cursor);
        cursor->cut = true;
        cursor->rows = (esc_py_rows *)Py_NewRef(object);
    }
    for (size_t i = 0; i < self->orphans.count; i++) {
        give_back(self, ESC_VECTOR_AT(&self->orphans, sqlite3_stmt *, i));
    }
    esc_vector_fini(&self->orphans);
    if (self->model == NULL && self->db != NULL) {
        sqlite3_progress_handler(self->db, 0, NULL, NULL);
    }
    self->db = NULL;
}

static void rows_dealloc(PyObject *object)
{
    esc_py_rows *self = (esc_py_rows *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF((PyObject *)self->system);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- types ----------------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(execute_doc,
             "execute(sql, parameters=()) -> Cursor\n\nRun one statement. ``parameters`` are a mapping for "
             "``:name`` or a sequence for ``?``.\n\nRaises ReadOnly for a statement that writes in a query, and "
             "Error with SQLite's text for one that is wrong.");
PyDoc_STRVAR(rows_doc, "The database in a query or a handler of a read model; usable during the call alone.");
PyDoc_STRVAR(cursor_doc, "The rows of a statement: tuples of None, int, float, str and bytes.");

static PyMethodDef cursor_methods[] = {
    {"fetchall", cursor_fetchall, METH_NOARGS, PyDoc_STR("All the rows that are left, as a list.")},
    {"fetchone", cursor_fetchone, METH_NOARGS, PyDoc_STR("The next row, or None.")},
    {"fetchmany", cursor_fetchmany, METH_O, PyDoc_STR("At most so many of the next rows, as a list.")},
    {"dicts", cursor_dicts, METH_NOARGS, PyDoc_STR("All the rows that are left, each a dict by column.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef cursor_getset[] = {
    {"columns", cursor_columns, NULL, PyDoc_STR("The columns' names, a tuple."), NULL},
    {"rowcount", cursor_rowcount, NULL, PyDoc_STR("Rows that were changed; -1 for what reads."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot cursor_slots[] = {
    {Py_tp_doc, (void *)cursor_doc}, {Py_tp_dealloc, cursor_dealloc}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cursor_next},   {Py_tp_repr, cursor_repr},       {Py_tp_methods, cursor_methods},
    {Py_tp_getset, cursor_getset},   {0, NULL},
};

static PyType_Spec cursor_spec = {
    .name = "escqrs.Cursor",
    .basicsize = sizeof(cursor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cursor_slots,
};

static PyMethodDef rows_methods[] = {
    {"execute", (PyCFunction)(void (*)(void))rows_execute, METH_FASTCALL | METH_KEYWORDS, execute_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot rows_slots[] = {
    {Py_tp_doc, (void *)rows_doc},
    {Py_tp_dealloc, rows_dealloc},
    {Py_tp_methods, rows_methods},
    {0, NULL},
};

static PyType_Spec rows_spec = {
    .name = "escqrs.Rows",
    .basicsize = sizeof(esc_py_rows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rows_slots,
};

static PyObject *attribute_of(const char *module, const char *first, const char *second)
{
    PyObject *found = PyImport_ImportModule(module);
    const char *names[] = {first, second};
    for (size_t i = 0; i < 2 && found != NULL && names[i] != NULL; i++) {
        Py_SETREF(found, PyObject_GetAttrString(found, names[i]));
    }
    return found;
}

int esc_py_rows_exec(PyObject *module)
{
    PyDateTime_IMPORT;
    if (PyDateTimeAPI == NULL) {
        return -1;
    }
    esc_py_rows_state *section = &esc_py_state_of(module)->rows;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &rows_spec, NULL);
    section->cursor = (PyTypeObject *)PyType_FromModuleAndSpec(module, &cursor_spec, NULL);
    section->enum_type = attribute_of("enum", "Enum", NULL);
    section->utc = attribute_of("datetime", "timezone", "utc");
    if (section->type == NULL || section->cursor == NULL || section->enum_type == NULL || section->utc == NULL ||
        PyModule_AddObjectRef(module, "Rows", (PyObject *)section->type) < 0 ||
        PyModule_AddObjectRef(module, "Cursor", (PyObject *)section->cursor) < 0) {
        return -1;
    }
    return 0;
}

int esc_py_rows_traverse_state(esc_py_rows_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->cursor);
    Py_VISIT(section->enum_type);
    Py_VISIT(section->utc);
    return 0;
}

void esc_py_rows_clear_state(esc_py_rows_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->cursor);
    Py_CLEAR(section->enum_type);
    Py_CLEAR(section->utc);
}
