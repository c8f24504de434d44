/* python/rows.c - see rows.h.
 *
 * Threads: the GIL guards the objects; `busy` keeps code that runs inside a wait (a signal handler)
 * from using the connection while SQLite is in it. No locks. Within a projection SQLite is called
 * attached: the statements are short and nobody else can hold the connection.
 */
#include "python/rows_parts.h"

#include <string.h>

#define LOOK_EVERY_OPS 20000           /* of SQLite's machine, some 0.2 ms */
#define LOOK_EVERY_NS (50 * 1000000LL) /* for Ctrl-C */
#define SQL_BYTES_MAX 1000000

/* ---- errors ------------------------------------------------------------------------------------------ */

static PyObject *error_class(esc_py_system *system, int code)
{
    switch (code & 0xff) {
    case SQLITE_READONLY:
        return esc_py_error_class(system->state, ESCQRS_READ_ONLY);
    case SQLITE_INTERRUPT: /* signals raise their own: only close interrupts otherwise */
        return esc_py_error_class(system->state, ESCQRS_CLOSED);
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
void esc_py_rows_raise(esc_py_rows *rows, int code, const char *sql)
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
    const char *reason = (code & 0xff) == SQLITE_INTERRUPT ? "the system was closed while this ran"
                                                           : sqlite3_errmsg(rows->db);
    PyErr_Format(error_class(rows->system, code), "%s, in: %.500s", reason, sql == NULL ? "" : sql);
}

void esc_py_rows_raise_over(esc_py_system *system)
{
    PyErr_SetString(esc_py_error_class(system->state, ESCQRS_CLOSED),
                    "the query or handler that this belongs to has ended; fetch the rows before it "
                    "returns, for example with fetchall()");
}

/* May this thread use the connection now? */
int esc_py_rows_check(esc_py_rows *rows)
{
    if (rows->db == NULL) {
        esc_py_rows_raise_over(rows->system);
        return -1;
    }
    if (rows->thread != PyThread_get_thread_ident()) {
        PyErr_SetString(
            PyExc_RuntimeError,
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
    bool late = now >= rows->deadline_ns;
    if ((!late && now - rows->looked_ns < LOOK_EVERY_NS) || rows->detached == NULL) {
        return 0;
    }
    rows->looked_ns = now;
    PyEval_RestoreThread(rows->detached);
    int failed = PyErr_CheckSignals();
    if (failed == 0 && late) {
        PyErr_SetString(esc_py_error_class(rows->system->state, ESCQRS_TIMEOUT),
                        "the query took longer than its timeout");
        failed = -1;
    }
    if (failed == 0 && rows->system->closed == 2) {
        PyErr_SetString(esc_py_error_class(rows->system->state, ESCQRS_CLOSED),
                        "the system was closed");
        failed = -1;
    }
    rows->interrupted = failed < 0;
    rows->detached = PyEval_SaveThread();
    return failed < 0;
}

void esc_py_rows_enter(esc_py_rows *rows)
{
    rows->busy = true;
    rows->interrupted = false;
    if (rows->model == NULL) {
        rows->looked_ns = escqrs_clock_monotonic_ns(NULL);
        rows->detached = PyEval_SaveThread();
    }
}

void esc_py_rows_leave(esc_py_rows *rows)
{
    if (rows->detached != NULL) {
        PyThreadState *thread = rows->detached;
        rows->detached = NULL;
        PyEval_RestoreThread(thread);
    }
    rows->busy = false;
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

/* A query only reads. The connection is read-only besides; this keeps out what changes the
 * connection itself: PRAGMA, ATTACH, BEGIN. */
static const char *const reading_words[] = {"select", "with", "values", "explain", NULL};
static const char *const other_words[] = {"insert",  "replace", "update",  "delete",   "create",
                                          "drop",    "alter",   "attach",  "detach",   "pragma",
                                          "begin",   "end",     "commit",  "rollback", "savepoint",
                                          "release", "vacuum",  "reindex", "analyze",  NULL};

static void raise_readonly(esc_py_rows *rows, const char *sql)
{
    PyErr_Format(esc_py_error_class(rows->system->state, ESCQRS_READ_ONLY),
                 "a query only reads (SELECT, WITH, VALUES, EXPLAIN); what events do to the tables "
                 "is the matter of "
                 "es.sql and es.on: %.500s",
                 sql);
}

static sqlite3_stmt *prepare_query(esc_py_rows *rows, const char *sql, Py_ssize_t size)
{
    sqlite3_stmt *statement = NULL;
    const char *tail = NULL;
    esc_py_rows_enter(rows);
    int code = sqlite3_prepare_v2(rows->db, sql, (int)size + 1, &statement, &tail);
    esc_py_rows_leave(rows);
    if (code != SQLITE_OK) {
        if (begins_with(sql, other_words)) {
            raise_readonly(rows, sql);
        } else {
            esc_py_rows_raise(rows, code, sql);
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
        PyErr_Format(PyExc_ValueError, "more than one statement; execute them one by one: %.500s",
                     sql);
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
        PyErr_SetString(PyExc_ValueError,
                        "SQL with a NUL character or of more than 1,000,000 bytes");
        return NULL;
    }
    if (rows->model == NULL) {
        return prepare_query(rows, text, size);
    }
    void *statement = NULL;
    escqrs_error error = {0};
    escqrs_status status = escqrs_readmodel_statement(
        rows->model, rows->db, (escqrs_slice){text, (size_t)size}, &statement, &error);
    if (status == ESCQRS_INVALID) {
        PyErr_SetString(rows->system->state->errors.error, error.message);
    } else if (status != ESCQRS_OK) {
        esc_py_raise(rows->system->state, &error);
    }
    return statement;
}

void esc_py_rows_give_back(esc_py_rows *rows, sqlite3_stmt *statement)
{
    if (rows->model != NULL) {
        escqrs_readmodel_statement_return(rows->model, rows->db, statement);
    } else {
        (void)sqlite3_finalize(statement);
    }
}

/* ---- Rows ---------------------------------------------------------------------------------------------------------- */

static PyObject *rows_execute(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords)
{
    esc_py_rows *self = (esc_py_rows *)object;
    PyObject *parameters = count > 1 ? args[1] : NULL;
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    if (named == 1 && count == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "parameters") == 0) {
        parameters = args[1];
    } else if (named > 0 || count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError,
                        "execute(sql, parameters=()) takes a statement and its values");
        return NULL;
    }
    if (esc_py_rows_check(self) < 0) {
        return NULL;
    }
    sqlite3_stmt *statement = prepare(self, args[0]);
    if (statement == NULL) {
        return NULL;
    }
    if (esc_py_rows_bind(self, statement, parameters) < 0) {
        esc_py_rows_give_back(self, statement);
        return NULL;
    }
    return esc_py_rows_cursor_new(self, statement);
}

PyObject *esc_py_rows_new(esc_py_system *system, void *sqlite, escqrs_readmodel *model,
                          int64_t deadline_ns)
{
    esc_py_rows *self = PyObject_GC_New(esc_py_rows, system->state->rows.type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->system = (esc_py_system *)Py_NewRef((PyObject *)system);
    self->db = sqlite;
    self->model = model;
    self->deadline_ns = deadline_ns;
    self->thread = PyThread_get_thread_ident();
    esc_vector_init(&self->orphans, sizeof(sqlite3_stmt *));
    PyObject_GC_Track((PyObject *)self);
    if (model == NULL) {
        sqlite3_progress_handler(self->db, LOOK_EVERY_OPS, look, self);
    }
    return (PyObject *)self;
}

void esc_py_rows_end(PyObject *object)
{
    esc_py_rows *self = (esc_py_rows *)object;
    while (self->cursors != NULL) {
        esc_py_rows_cursor_cut(self->cursors);
    }
    for (size_t i = 0; i < self->orphans.count; i++) {
        esc_py_rows_give_back(self, ESC_VECTOR_AT(&self->orphans, sqlite3_stmt *, i));
    }
    esc_vector_fini(&self->orphans);
    if (self->model == NULL && self->db != NULL) {
        sqlite3_progress_handler(self->db, 0, NULL, NULL);
    }
    self->db = NULL;
}

/* No tp_clear: a cycle (a read model that keeps it) ends at the read model's attributes. */
static int rows_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)((esc_py_rows *)object)->system);
    return 0;
}

static void rows_dealloc(PyObject *object)
{
    esc_py_rows *self = (esc_py_rows *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF((PyObject *)self->system);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- types ----------------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(
    execute_doc,
    "execute($self, sql, /, parameters=())\n--\n\nRun one statement and return a Cursor. "
    "``parameters`` are a mapping for ``:name`` or a sequence for ``?``. Values are bound as "
    "es.sql "
    "binds fields: a bool as 0 or 1, an enum by its name, a datetime as text in UTC, lists, dicts "
    "and messages as JSON.\n\nRaises ReadOnly for a statement that writes in a query, ValueError "
    "or "
    "TypeError for a value that SQL cannot hold (NaN among them), and Error with SQLite's text for "
    "a statement that is wrong.");
PyDoc_STRVAR(rows_doc,
             "The database in a query or a handler of a read model; usable during the call alone.");

static PyMethodDef rows_methods[] = {
    {"execute", (PyCFunction)(void (*)(void))rows_execute, METH_FASTCALL | METH_KEYWORDS,
     execute_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot rows_slots[] = {
    {Py_tp_doc, (void *)rows_doc},
    {Py_tp_dealloc, rows_dealloc},
    {Py_tp_traverse, rows_traverse},
    {Py_tp_methods, rows_methods},
    {0, NULL},
};

static PyType_Spec rows_spec = {
    .name = "escqrs.Rows",
    .basicsize = sizeof(esc_py_rows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rows_slots,
};

int esc_py_rows_exec(PyObject *module)
{
    esc_py_rows_state *section = &esc_py_state_of(module)->rows;
    section->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &rows_spec, NULL);
    if (section->type == NULL ||
        PyModule_AddObjectRef(module, "Rows", (PyObject *)section->type) < 0 ||
        esc_py_rows_cursor_exec(module) < 0 || esc_py_rows_parameter_exec(module) < 0) {
        return -1;
    }
    return 0;
}

int esc_py_rows_traverse_state(esc_py_rows_state *section, visitproc visit, void *arg)
{
    Py_VISIT(section->type);
    Py_VISIT(section->cursor);
    Py_VISIT(section->enum_type);
    return 0;
}

void esc_py_rows_clear_state(esc_py_rows_state *section)
{
    Py_CLEAR(section->type);
    Py_CLEAR(section->cursor);
    Py_CLEAR(section->enum_type);
}
