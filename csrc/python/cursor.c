/* python/cursor.c - see cursor.h. The GIL guards a cursor; `reading` keeps others out while it is
 * given up, or may be, within a page. */
#include "python/cursor.h"

#include <string.h>

#include "python/argument.h"
#include "python/log.h"
#include "python/match.h"
#include "python/state.h"
#include "python/text.h"

#define PAGE_EVENTS 256
#define STREAMS_KEPT 1024 /* of the whole store; 2^10, see name_slot */

typedef struct cursor_object {
    PyObject_HEAD
    esc_py_store *store;
    PyObject *owner;       /* whom the iteration keeps alive: the system or the store */
    escqrs_cursor *cursor; /* NULL: no (more) events */
    const escqrs_recorded *page;
    size_t next, count;
    bool reading;        /* a thread is in the core with it */
    PyObject **streams;  /* names seen, by slot; each NULL or ASCII */
    size_t stream_slots; /* a power of two: 1 where there is one stream */
    bool raw;            /* events are given as they are stored */
    bool reverse;
    int64_t left;       /* stored events that it may go on with; -1: all */
    esc_py_parts parts; /* of the event read last */
} cursor_object;

/* Where a name is kept: what tells streams apart stands at the end of their names. */
static size_t name_slot(escqrs_slice name, size_t slots)
{
    uint64_t tail = 0;
    size_t size = name.size < sizeof tail ? name.size : sizeof tail;
    memcpy(&tail, (const char *)name.data + name.size - size, size);
    tail *= 0x9E3779B97F4A7C15u;
    return (size_t)((tail ^ tail >> 32) * 0x9E3779B97F4A7C15u >> 54) & (slots - 1);
}

/* The name of the event's stream: most often one that came before. New reference. */
static PyObject *stream_name(cursor_object *self, escqrs_slice name)
{
    PyObject **kept = &self->streams[name_slot(name, self->stream_slots)];
    if (*kept != NULL && (size_t)PyUnicode_GET_LENGTH(*kept) == name.size &&
        memcmp(PyUnicode_DATA(*kept), name.data, name.size) == 0) {
        return Py_NewRef(*kept);
    }
    PyObject *text = esc_py_text(name);
    if (text != NULL && PyUnicode_IS_ASCII(text)) {
        Py_XSETREF(*kept, Py_NewRef(text));
    }
    return text;
}

/* The next stored event as it is stored; *type is its type. NULL at the end, or with an exception.
 */
static PyObject *next_stored(cursor_object *self, const escqrs_type **type)
{
    esc_py_store *store = self->store;
    if (self->next == self->count) {
        escqrs_error error = {0};
        escqrs_status status;
        self->reading = true;
        self->next = self->count = 0;
        Py_BEGIN_ALLOW_THREADS
        status = escqrs_cursor_read(self->cursor, PAGE_EVENTS, &self->page, &self->count, &error);
        Py_END_ALLOW_THREADS
        self->reading = false;
        if (status != ESCQRS_OK) {
            self->count = 0;
            if (status == ESCQRS_DONE) {
                escqrs_cursor_close(self->cursor);
                self->cursor = NULL;
            } else {
                esc_py_raise(store->state, &error);
            }
            esc_py_log_drain(&store->log);
            return NULL;
        }
    }
    /* making the object may run the collector, and so other threads: the page must stay */
    self->reading = true;
    const escqrs_recorded *next = &self->page[self->next++];
    *type = next->type;
    PyObject *recorded =
        esc_py_recorded_read(store, next, stream_name(self, next->stream), self->raw);
    self->reading = false;
    return recorded;
}

/* With upcasters: the parts of one stored event stay together, also at the limit. */
static PyObject *next_evolved(cursor_object *self)
{
    PyObject *recorded = esc_py_parts_take(&self->parts);
    while (recorded == NULL && !PyErr_Occurred() && self->left != 0) {
        const escqrs_type *type = NULL;
        PyObject *stored = next_stored(self, &type);
        if (stored == NULL) {
            return NULL;
        }
        self->reading = true;
        recorded = esc_py_parts_put(&self->parts, self->store, type, stored, self->reverse);
        self->reading = false;
        if (recorded == NULL && PyErr_Occurred()) {
            self->next--; /* asked again, it fails again: it never ends short */
        }
    }
    if (recorded != NULL && self->left > 0) {
        self->left--;
    }
    return recorded;
}

static PyObject *cursor_next(PyObject *object)
{
    cursor_object *self = (cursor_object *)object;
    if (self->cursor == NULL && self->parts.list == NULL) {
        return NULL;
    }
    if (self->reading) {
        PyErr_SetString(PyExc_ValueError, "another thread is reading from this iterator");
        return NULL;
    }
    if (esc_py_store_check(self->store) < 0) {
        return NULL;
    }
    const escqrs_type *type;
    return self->store->backing->evolves && !self->raw ? next_evolved(self)
                                                       : next_stored(self, &type);
}

/* No tp_clear: a cycle through it ends at the attributes of its owner. */
static int cursor_traverse(PyObject *object, visitproc visit, void *arg)
{
    cursor_object *self = (cursor_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)self->store);
    Py_VISIT(self->owner);
    return 0;
}

static void cursor_dealloc(PyObject *object)
{
    cursor_object *self = (cursor_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->cursor != NULL && esc_py_is_own(self->store->fork_generation)) {
        escqrs_cursor_close(self->cursor);
    }
    for (size_t i = 0; i < self->stream_slots; i++) {
        Py_XDECREF(self->streams[i]);
    }
    PyMem_Free(self->streams);
    esc_py_parts_fini(&self->parts);
    Py_XDECREF((PyObject *)self->store);
    Py_XDECREF(self->owner);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

int esc_py_skips_deleted(PyObject *deleted, bool *skips)
{
    *skips = PyUnicode_Check(deleted) && PyUnicode_CompareWithASCIIString(deleted, "skip") == 0;
    if (*skips || deleted == Py_None ||
        (PyUnicode_Check(deleted) && PyUnicode_CompareWithASCIIString(deleted, "raise") == 0)) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "deleted is \"raise\" or \"skip\", not %R", deleted);
    return -1;
}

static int keep_streams(cursor_object *self, size_t slots)
{
    self->streams = PyMem_Calloc(slots, sizeof(PyObject *));
    if (self->streams == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->stream_slots = slots;
    return 0;
}

PyObject *esc_py_cursor_new(esc_py_store *store, PyObject *owner, escqrs_slice stream,
                            PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"after", "upto", "match", "reverse", "limit", "raw", "deleted", NULL};
    PyObject *after_object = Py_None, *upto_object = Py_None, *match = Py_None,
             *limit_object = Py_None, *deleted = Py_None;
    int reverse = 0, raw = 0;
    bool skip;
    int64_t after, upto, limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOpOpO", names, &after_object, &upto_object,
                                     &match, &reverse, &limit_object, &raw, &deleted) ||
        esc_py_number(after_object, "after", 0, &after) < 0 ||
        esc_py_number(upto_object, "upto", -1, &upto) < 0 ||
        esc_py_number(limit_object, "limit", -1, &limit) < 0 ||
        esc_py_skips_deleted(deleted, &skip) < 0 || esc_py_store_check(store) < 0) {
        return NULL;
    }
    cursor_object *self = PyObject_GC_New(cursor_object, store->state->recorded.cursor);
    esc_py_matches matches = {0};
    bool failed = self == NULL;
    bool evolves = store->backing->evolves && !raw;
    if (self != NULL) {
        memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
        self->store = (esc_py_store *)Py_NewRef((PyObject *)store);
        self->owner = Py_NewRef(owner);
        self->raw = raw != 0;
        self->reverse = reverse != 0;
        self->left = evolves && limit >= 0 ? limit : -1;
        PyObject_GC_Track((PyObject *)self);
        failed = keep_streams(self, stream.size == 0 ? STREAMS_KEPT : 1) < 0 ||
                 esc_py_matches_init(&matches, store->state, match, store->backing,
                                     raw ? NULL : &self->parts) < 0;
    }
    if (!failed && upto != 0 && limit != 0) { /* with either nothing can be meant */
        escqrs_range range = {.after = after,
                              .upto = upto < 0 ? 0 : upto,
                              .limit = limit < 0 || evolves ? 0 : limit,
                              .reverse = reverse,
                              .skip_deleted = skip,
                              .matches = matches.items,
                              .match_count = matches.count};
        escqrs_error error = {0};
        escqrs_status status;
        Py_BEGIN_ALLOW_THREADS
        status = stream.size == 0
                     ? escqrs_store_events(store->core, &range, &self->cursor, &error)
                     : escqrs_store_history(store->core, stream, &range, &self->cursor, &error);
        Py_END_ALLOW_THREADS
        if (status != ESCQRS_OK) {
            self->cursor = NULL;
            esc_py_raise(store->state, &error);
            failed = true;
        }
    }
    esc_py_matches_fini(&matches);
    if (failed) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyType_Slot cursor_slots[] = {
    {Py_tp_doc,
     "An iteration over stored events. Raises es.Closed when the store is closed under it."},
    {Py_tp_dealloc, cursor_dealloc},
    {Py_tp_traverse, cursor_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cursor_next},
    {0, NULL},
};

PyType_Spec esc_py_cursor_spec = {
    .name = "escqrs._core.EventIterator",
    .basicsize = sizeof(cursor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = cursor_slots,
};
