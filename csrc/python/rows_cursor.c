/* python/rows_cursor.c - the rows of a statement.
 *
 * Rows are fetched in chunks into plain memory, detached from Python where it is a query, and
 * become objects afterwards, one by one. The chunks grow, so that fetchone() reads little and
 * fetchall() seldom comes back. Threads: the GIL guards the objects; only the thread of the call
 * may fetch. No locks.
 */
#include "python/rows_parts.h"

#include <string.h>

#define CHUNK_ROWS_MAX 512
#define CHUNK_BYTES_MAX (1u << 20)

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

struct esc_py_rows_cursor {
    PyObject_HEAD
    esc_py_rows *rows;       /* strong while there is a statement */
    sqlite3_stmt *statement; /* NULL: at its end, or the call is over */
    esc_py_rows_cursor *next, *previous;
    PyObject *columns; /* tuple of str */
    int column_count;
    Py_ssize_t row_count; /* changed; -1 for what reads */
    esc_vector cells;
    esc_buffer bytes;
    size_t fetched, taken; /* rows in `cells` */
    size_t chunk;          /* rows to fetch next */
    bool cut;              /* the call ended before the rows did */
};

/* ---- fetching -------------------------------------------------------------------------------- */

/* No more rows from SQLite. */
static void cursor_end(esc_py_rows_cursor *self)
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
        esc_py_rows_give_back(rows, self->statement);
    }
    self->statement = NULL;
    self->rows = NULL;
    Py_DECREF((PyObject *)rows);
}

static int take_cell(esc_py_rows_cursor *self, int column)
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
static int fetch_rows(esc_py_rows_cursor *self)
{
    int code = SQLITE_ROW;
    while (self->fetched < self->chunk &&
           (self->chunk == SIZE_MAX || self->bytes.size < CHUNK_BYTES_MAX) &&
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
static int cursor_fetch(esc_py_rows_cursor *self)
{
    esc_vector_clear(&self->cells);
    esc_buffer_reset(&self->bytes);
    self->fetched = self->taken = 0;
    if (self->statement == NULL) {
        return 0;
    }
    esc_py_rows *rows = self->rows;
    if (esc_py_rows_check(rows) < 0) {
        return -1;
    }
    esc_py_rows_enter(rows);
    int code = fetch_rows(self);
    esc_py_rows_leave(rows);
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
    esc_py_rows_raise(rows, code, sqlite3_sql(self->statement));
    cursor_end(self);
    return -1;
}

static PyObject *cell_object(const esc_py_rows_cursor *self, const cell *one)
{
    const char *bytes = (const char *)self->bytes.data;
    switch (one->type) {
    case SQLITE_INTEGER:
        return PyLong_FromLongLong(one->value.integer);
    case SQLITE_FLOAT:
        return PyFloat_FromDouble(one->value.real);
    case SQLITE_TEXT:
        return PyUnicode_DecodeUTF8(one->value.bytes.size == 0 ? ""
                                                               : bytes + one->value.bytes.offset,
                                    (Py_ssize_t)one->value.bytes.size, "strict");
    case SQLITE_BLOB:
        return PyBytes_FromStringAndSize(
            one->value.bytes.size == 0 ? "" : bytes + one->value.bytes.offset,
            (Py_ssize_t)one->value.bytes.size);
    default:
        return Py_NewRef(Py_None);
    }
}

/* The next row as a tuple; NULL without an exception at the end. */
static PyObject *cursor_next(PyObject *object)
{
    esc_py_rows_cursor *self = (esc_py_rows_cursor *)object;
    if (self->taken == self->fetched) {
        if (self->cut) {
            esc_py_rows_raise_over(self->rows->system);
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
    esc_py_rows_cursor *self = (esc_py_rows_cursor *)object;
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
    esc_py_rows_cursor *self = (esc_py_rows_cursor *)object;
    PyObject *list = cursor_take(object, -1);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *row = PyList_GET_ITEM(list, i);
        PyObject *dict = PyDict_New();
        for (int j = 0; dict != NULL && j < self->column_count; j++) {
            if (PyDict_SetItem(dict, PyTuple_GET_ITEM(self->columns, j), PyTuple_GET_ITEM(row, j)) <
                0) {
                Py_CLEAR(dict);
            }
        }
        if (dict == NULL || PyList_SetItem(list, i, dict) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* All the rows that are left, each what `cls` makes of its columns as keyword arguments. */
static PyObject *cursor_objects(PyObject *object, PyObject *cls)
{
    esc_py_rows_cursor *self = (esc_py_rows_cursor *)object;
    if (!PyCallable_Check(cls)) {
        PyErr_Format(PyExc_TypeError, "objects() takes a class, not %R", cls);
        return NULL;
    }
    PyObject *list = cursor_take(object, -1);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *row = PyList_GET_ITEM(list, i);
        PyObject *made =
            PyObject_Vectorcall(cls, ((PyTupleObject *)row)->ob_item, 0, self->columns);
        if (made == NULL || PyList_SetItem(list, i, made) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *cursor_columns(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(((esc_py_rows_cursor *)object)->columns);
}

static PyObject *cursor_rowcount(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((esc_py_rows_cursor *)object)->row_count);
}

static PyObject *cursor_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<Cursor of the columns %R>",
                                ((esc_py_rows_cursor *)object)->columns);
}

/* No tp_clear: see Rows. */
static int cursor_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)((esc_py_rows_cursor *)object)->rows);
    return 0;
}

static void cursor_dealloc(PyObject *object)
{
    esc_py_rows_cursor *self = (esc_py_rows_cursor *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    cursor_end(self);
    Py_XDECREF((PyObject *)self->rows); /* of one that was cut */
    Py_XDECREF(self->columns);
    esc_vector_fini(&self->cells);
    esc_buffer_fini(&self->bytes);
    PyObject_GC_Del(self);
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
PyObject *esc_py_rows_cursor_new(esc_py_rows *rows, sqlite3_stmt *statement)
{
    esc_py_rows_cursor *self =
        PyObject_GC_New(esc_py_rows_cursor, rows->system->state->rows.cursor);
    if (self == NULL) {
        esc_py_rows_give_back(rows, statement);
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->rows = (esc_py_rows *)Py_NewRef((PyObject *)rows);
    PyObject_GC_Track((PyObject *)self);
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

void esc_py_rows_cursor_cut(esc_py_rows_cursor *cursor)
{
    esc_py_rows *rows = cursor->rows;
    Py_INCREF((PyObject *)rows);
    cursor_end(cursor);
    cursor->cut = true;
    cursor->rows = rows;
}

/* ---- type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(cursor_doc, "The rows of a statement: tuples of None, int, float, str and bytes.");

static PyMethodDef cursor_methods[] = {
    {"fetchall", cursor_fetchall, METH_NOARGS, PyDoc_STR("All the rows that are left, as a list.")},
    {"fetchone", cursor_fetchone, METH_NOARGS, PyDoc_STR("The next row, or None.")},
    {"fetchmany", cursor_fetchmany, METH_O,
     PyDoc_STR("At most so many of the next rows, as a list.")},
    {"dicts", cursor_dicts, METH_NOARGS,
     PyDoc_STR("All the rows that are left, each a dict by column.")},
    {"objects", cursor_objects, METH_O,
     PyDoc_STR("objects($self, cls, /)\n--\n\nAll the rows that are left, each made by cls (a "
               "dataclass, a NamedTuple, an es.Message) from its columns as keyword arguments.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef cursor_getset[] = {
    {"columns", cursor_columns, NULL, PyDoc_STR("The columns' names, a tuple."), NULL},
    {"rowcount", cursor_rowcount, NULL, PyDoc_STR("Rows that were changed; -1 for what reads."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot cursor_slots[] = {
    {Py_tp_doc, (void *)cursor_doc},
    {Py_tp_dealloc, cursor_dealloc},
    {Py_tp_traverse, cursor_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cursor_next},
    {Py_tp_repr, cursor_repr},
    {Py_tp_methods, cursor_methods},
    {Py_tp_getset, cursor_getset},
    {0, NULL},
};

static PyType_Spec cursor_spec = {
    .name = "escqrs.Cursor",
    .basicsize = sizeof(esc_py_rows_cursor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cursor_slots,
};

int esc_py_rows_cursor_exec(PyObject *module)
{
    esc_py_rows_state *section = &esc_py_state_of(module)->rows;
    section->cursor = (PyTypeObject *)PyType_FromModuleAndSpec(module, &cursor_spec, NULL);
    return section->cursor == NULL
               ? -1
               : PyModule_AddObjectRef(module, "Cursor", (PyObject *)section->cursor);
}
