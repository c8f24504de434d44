/* python/feed.c - see feed.h.
 *
 * A feed reads what is there with one cursor up to the head, then waits for the head to move. All
 * of it is guarded by the GIL and `busy`, but for `cancelled`, which close() sets from any thread,
 * and what the watch's mutex guards. Lock order: the watch's mutex is a leaf; it is held over a
 * write to an eventfd, which does not block. */
#include "python/feed.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/list.h"
#include "python/actor.h"
#include "python/cursor.h"
#include "python/match.h"
#include "python/readmodel.h"
#include "python/recorded.h"
#include "python/state.h"
#include "python/system.h"
#include "python/upcast.h"

#define PAGE_EVENTS 256

typedef struct feed {
    PyObject_HEAD
    esc_py_store *store;
    esc_py_matches matches;
    esc_py_parts parts;    /* of the event read last */
    escqrs_cursor *cursor; /* up to `upto`; NULL: all up to `after` was read */
    const escqrs_recorded *page;
    size_t next, count;
    _Atomic int64_t after; /* all up to it was looked at; written by the thread that is in it */
    int64_t upto;          /* by the cursor */
    int64_t position;      /* of the last event given, with all its parts */
    int64_t given;         /* of the event read last */
    bool busy;             /* a thread is in it */
    bool skip_deleted;
    _Atomic int cancelled;
    int descriptor;      /* of the loop that awaits; -1: none yet */
    esc_list_node node;  /* watch's mutex: in its list */
    bool armed;          /* watch's mutex */
    int64_t armed_after; /* watch's mutex: what it waits for */
} feed;

struct esc_py_watch {
    escqrs_store *core;
    esc_mutex mutex;
    esc_cond changed; /* mutex */
    esc_list armed;   /* mutex: feeds that are to be woken */
    int64_t lowest;   /* mutex: the thread waits for the head to pass it; INT64_MAX: it does not */
    bool ends;        /* mutex */
    bool running;     /* mutex: the thread is to be joined */
    _Atomic int interrupted;
    esc_thread thread;
};

/* ---- the watch -------------------------------------------------------------------------------- */

static void ring(const feed *self)
{
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(self->descriptor, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
}

/* Under the mutex: wake those for whom there is something, or all. */
static void wake_armed(esc_py_watch *self, int64_t head, bool all)
{
    esc_list_node *node = esc_list_first(&self->armed);
    while (node != NULL) {
        feed *one = ESC_CONTAINER_OF(node, feed, node);
        node = esc_list_next(&self->armed, node);
        if (all || one->armed_after < head) {
            esc_list_remove(&one->node);
            one->armed = false;
            ring(one);
        }
    }
}

static void run_watch(void *context)
{
    esc_py_watch *self = context;
    esc_mutex_lock(&self->mutex);
    while (!self->ends) {
        self->lowest = INT64_MAX;
        for (esc_list_node *node = esc_list_first(&self->armed); node != NULL;
             node = esc_list_next(&self->armed, node)) {
            feed *one = ESC_CONTAINER_OF(node, feed, node);
            self->lowest = one->armed_after < self->lowest ? one->armed_after : self->lowest;
        }
        if (self->lowest == INT64_MAX) {
            esc_cond_wait(&self->changed, &self->mutex);
            continue;
        }
        int64_t lowest = self->lowest;
        /* relaxed: it is set under the mutex, which we have */
        atomic_store_explicit(&self->interrupted, 0, memory_order_relaxed);
        esc_mutex_unlock(&self->mutex);
        escqrs_status status =
            escqrs_store_wait(self->core, lowest, &self->interrupted, ESC_DEADLINE_NEVER);
        int64_t head = escqrs_store_head(self->core);
        esc_mutex_lock(&self->mutex);
        bool over = status != ESCQRS_OK && status != ESCQRS_DONE;
        wake_armed(self, head, over);
        self->ends = self->ends || over;
    }
    wake_armed(self, 0, true);
    esc_mutex_unlock(&self->mutex);
}

void esc_py_watch_stop(esc_py_watch *self)
{
    if (self == NULL) {
        return;
    }
    esc_mutex_lock(&self->mutex);
    bool running = self->running;
    self->running = false;
    self->ends = true;
    esc_cond_signal(&self->changed);
    esc_mutex_unlock(&self->mutex);
    if (running) {
        esc_thread_join(&self->thread);
    }
}

void esc_py_watch_destroy(esc_py_watch *self)
{
    if (self == NULL) {
        return;
    }
    esc_py_watch_stop(self);
    esc_mutex_fini(&self->mutex);
    esc_cond_fini(&self->changed);
    escqrs_free(self);
}

/* The store's, made when first needed; NULL with an exception. */
static esc_py_watch *watch_of(esc_py_store *store)
{
    if (store->watch != NULL) {
        return store->watch;
    }
    esc_py_watch *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    escqrs_error error = {0};
    self->core = store->core;
    self->lowest = INT64_MAX;
    esc_mutex_init(&self->mutex);
    esc_cond_init(&self->changed);
    esc_list_init(&self->armed);
    if (esc_thread_create(&self->thread, "escqrs-watch", 0, run_watch, self, &error) != ESCQRS_OK) {
        esc_py_watch_destroy(self);
        return esc_py_raise(store->state, &error);
    }
    self->running = true;
    store->watch = self;
    return self;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* From any thread. */
static int64_t looked(const feed *self)
{
    /* relaxed: pairs with `look`; it is a number and says nothing of other memory */
    return atomic_load_explicit(&self->after, memory_order_relaxed);
}

/* Look for more: 1, there is a page; 0, nothing more now; -1 with an exception. */
static int look(feed *self)
{
    escqrs_error error = {0};
    escqrs_status status = ESCQRS_OK;
    bool more = true;
    Py_BEGIN_ALLOW_THREADS
    self->next = self->count = 0;
    while (self->count == 0 && more && status == ESCQRS_OK) {
        if (self->cursor == NULL) {
            escqrs_range range = {.after = looked(self),
                                  .upto = escqrs_store_head(self->store->core),
                                  .skip_deleted = self->skip_deleted,
                                  .matches = self->matches.items,
                                  .match_count = self->matches.count};
            self->upto = range.upto;
            more = range.upto > range.after;
            if (more) {
                status = escqrs_store_events(self->store->core, &range, &self->cursor, &error);
            }
            continue;
        }
        status = escqrs_cursor_read(self->cursor, PAGE_EVENTS, &self->page, &self->count, &error);
        if (status == ESCQRS_DONE) {
            escqrs_cursor_close(self->cursor);
            self->cursor = NULL;
            /* relaxed: pairs with `looked` */
            atomic_store_explicit(&self->after, self->upto, memory_order_relaxed);
            status = ESCQRS_OK;
        }
    }
    Py_END_ALLOW_THREADS
    esc_py_log_drain(&self->store->log);
    if (status != ESCQRS_OK) {
        self->count = 0;
        esc_py_raise(self->store->state, &error);
        return -1;
    }
    return self->count > 0;
}

static bool is_cancelled(const feed *self)
{
    /* acquire: pairs with the release in close */
    return atomic_load_explicit(&self->cancelled, memory_order_acquire) != 0;
}

static escqrs_status wait_slice(void *context, int64_t deadline_ns)
{
    feed *self = context;
    return escqrs_store_wait(self->store->core, looked(self), &self->cancelled, deadline_ns);
}

/* The position counts once the last part of an event is given. */
static void note_given(feed *self, PyObject *recorded)
{
    if (recorded != NULL &&
        (self->parts.list == NULL || self->parts.next == PyList_GET_SIZE(self->parts.list))) {
        self->position = self->given;
    }
}

/* The next event; NULL without an exception where the feed was closed, or, with `now`, where there
 * is none yet. Without the GIL in between; `busy` is set. */
static PyObject *take(feed *self, int64_t deadline_ns, bool now)
{
    while (!is_cancelled(self)) {
        if (esc_py_store_check(self->store) < 0) {
            return NULL;
        }
        PyObject *part = esc_py_parts_take(&self->parts);
        if (part != NULL || PyErr_Occurred()) {
            note_given(self, part);
            return part;
        }
        int found = self->next < self->count ? 1 : look(self);
        if (found < 0) {
            return NULL;
        }
        if (found > 0 && !is_cancelled(self)) {
            const escqrs_recorded *stored = &self->page[self->next];
            PyObject *recorded = esc_py_parts_put(&self->parts, self->store, stored->type,
                                                  esc_py_recorded_new(self->store, stored), false);
            if (recorded != NULL || !PyErr_Occurred()) {
                self->given = stored->position;
                self->next++;
                note_given(self, recorded);
            }
            if (recorded != NULL || PyErr_Occurred()) {
                return recorded;
            }
            continue; /* it was dropped, or is not wanted as what it is now */
        }
        if (now) {
            return NULL;
        }
        int status =
            found > 0 ? ESCQRS_OK : esc_py_store_wait(self->store, wait_slice, self, deadline_ns);
        if (status == ESCQRS_TIMEOUT) {
            PyErr_Format(esc_py_error_class(self->store->state, ESCQRS_TIMEOUT),
                         "no event after position %lld came in time", (long long)looked(self));
        }
        if (status < 0 || status == ESCQRS_TIMEOUT) {
            return NULL;
        }
    }
    return NULL;
}

static PyObject *enter(feed *self, int64_t deadline_ns, bool now)
{
    if (self->busy) {
        PyErr_SetString(PyExc_ValueError, "another thread is reading from this feed");
        return NULL;
    }
    if (esc_py_in_projection()) {
        PyErr_SetString(esc_py_error_class(self->store->state, ESCQRS_DEADLOCK),
                        "a read model that handles an event holds the store's writer, so it cannot "
                        "wait for it");
        return NULL;
    }
    self->busy = true;
    PyObject *recorded = take(self, deadline_ns, now);
    self->busy = false;
    return recorded;
}

static PyObject *feed_iternext(PyObject *object)
{
    return enter((feed *)object, INT64_MAX, false);
}

static PyObject *feed_next(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    feed *self = (feed *)object;
    PyObject *timeout = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &timeout) ||
        esc_py_actor_deadline(self->store->simulation, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    PyObject *recorded = enter(self, deadline_ns, false);
    if (recorded == NULL && !PyErr_Occurred()) {
        PyErr_SetString(esc_py_error_class(self->store->state, ESCQRS_CLOSED),
                        "the feed is closed");
    }
    return recorded;
}

/* _poll(): the next event, or None where there is none now */
static PyObject *feed_poll(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    PyObject *recorded = enter((feed *)object, 0, true);
    return recorded == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : recorded;
}

/* ---- for event loops -------------------------------------------------------------------------- */

/* _arm(): the descriptor that becomes readable when there is something after what was read, when
 * the feed is closed, or the store is */
static PyObject *feed_arm(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    feed *self = (feed *)object;
    if (esc_py_store_check(self->store) < 0) {
        return NULL;
    }
    if (self->descriptor < 0) {
        self->descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (self->descriptor < 0) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    esc_py_watch *watch = watch_of(self->store);
    if (watch == NULL) {
        return NULL;
    }
    bool interrupt = false;
    Py_BEGIN_ALLOW_THREADS
    int64_t head = escqrs_store_head(self->store->core);
    esc_mutex_lock(&watch->mutex);
    if (is_cancelled(self) || watch->ends || head > looked(self)) {
        ring(self);
    } else if (!self->armed) {
        self->armed = true;
        self->armed_after = looked(self);
        esc_list_push_back(&watch->armed, &self->node);
        interrupt = watch->lowest != INT64_MAX && self->armed_after < watch->lowest;
        if (interrupt) {
            atomic_store_explicit(&watch->interrupted, 1, memory_order_release);
        }
        esc_cond_signal(&watch->changed);
    }
    esc_mutex_unlock(&watch->mutex);
    if (interrupt) {
        escqrs_store_wake(self->store->core);
    }
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(self->descriptor);
}

static void disarm(feed *self)
{
    esc_py_watch *watch = self->store->watch;
    if (watch == NULL) {
        return;
    }
    esc_mutex_lock(&watch->mutex);
    if (self->armed) {
        self->armed = false;
        esc_list_remove(&self->node);
    }
    esc_mutex_unlock(&watch->mutex);
}

/* _disarm(): the descriptor is not readable any more */
static PyObject *feed_disarm(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    feed *self = (feed *)object;
    uint64_t count;
    disarm(self);
    if (self->descriptor >= 0) {
        ssize_t got = read(self->descriptor, &count, sizeof count);
        (void)got; /* EAGAIN: nobody rang */
    }
    Py_RETURN_NONE;
}

/* ---- life ------------------------------------------------------------------------------------- */

/* FeedBase(store, after, matches) */
static PyObject *feed_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *object, *match, *deleted = Py_None;
    long long after;
    bool skip;
    esc_py_state *state = esc_py_state_of_type(type);
    if (state == NULL || !PyArg_ParseTuple(args, "OLO|O", &object, &after, &match, &deleted) ||
        esc_py_skips_deleted(deleted, &skip) < 0) {
        return NULL;
    }
    esc_py_store *store = esc_py_store_cast(state, object);
    feed *self = store == NULL ? NULL : (feed *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->store = (esc_py_store *)Py_NewRef(object);
    atomic_init(&self->after, after);
    self->position = after;
    self->skip_deleted = skip;
    self->descriptor = -1;
    if (esc_py_matches_init(&self->matches, state, match, store->backing, &self->parts) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *feed_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    feed *self = (feed *)object;
    if (esc_py_is_own(self->store->fork_generation)) {
        /* release: pairs with is_cancelled and with the look in escqrs_store_wait */
        atomic_store_explicit(&self->cancelled, 1, memory_order_release);
        escqrs_store_wake(self->store->core);
        if (self->descriptor >= 0) {
            ring(self);
        }
    }
    Py_RETURN_NONE;
}

/* No tp_clear: a cycle through it ends at the attributes of its owner. */
static int feed_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)((feed *)object)->store);
    return 0;
}

static void feed_dealloc(PyObject *object)
{
    feed *self = (feed *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->store != NULL && esc_py_is_own(self->store->fork_generation)) {
        disarm(self);
        escqrs_cursor_close(self->cursor);
        if (self->descriptor >= 0) {
            close(self->descriptor);
        }
    }
    esc_py_matches_fini(&self->matches);
    esc_py_parts_fini(&self->parts);
    Py_XDECREF((PyObject *)self->store);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *feed_get_position(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(((feed *)object)->position);
}

static PyObject *feed_get_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(is_cancelled((feed *)object));
}

static PyObject *feed_get_store(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)((feed *)object)->store);
}

/* _looked: all up to it was read, where _poll() has answered None, or a thread waits in next();
 * from any thread */
static PyObject *feed_get_looked(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(looked((feed *)object));
}

static PyMethodDef feed_methods[] = {
    {"next", _PyCFunction_CAST(feed_next), METH_VARARGS | METH_KEYWORDS,
     "next($self, timeout=None)\n--\n\nThe next event; waits for one. timeout: seconds, then "
     "es.Timeout (a TimeoutError). es.Closed when the\n"
     "feed or the store is closed."},
    {"close", feed_close, METH_NOARGS,
     "close($self, /)\n--\n\nEnd the iteration, whoever waits in it. From any thread; twice is "
     "once."},
    {"_poll", feed_poll, METH_NOARGS, NULL},
    {"_arm", feed_arm, METH_NOARGS, NULL},
    {"_disarm", feed_disarm, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef feed_getset[] = {
    {"position", feed_get_position, NULL,
     "That of the last event given; before the first one, where the feed begins.", NULL},
    {"closed", feed_get_closed, NULL, "Whether close() was called.", NULL},
    {"store", feed_get_store, NULL, "The store that it follows.", NULL},
    {"_looked", feed_get_looked, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot feed_slots[] = {
    {Py_tp_doc, "The part of es.Feed that is written in C."},
    {Py_tp_new, feed_new},
    {Py_tp_dealloc, feed_dealloc},
    {Py_tp_traverse, feed_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, feed_iternext},
    {Py_tp_methods, feed_methods},
    {Py_tp_getset, feed_getset},
    {0, NULL},
};

static PyType_Spec feed_spec = {
    .name = "escqrs._core.FeedBase",
    .basicsize = sizeof(feed),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = feed_slots,
};

int esc_py_feed_exec(PyObject *module)
{
    esc_py_store_state *section = &esc_py_state_of(module)->store;
    section->feed = (PyTypeObject *)PyType_FromModuleAndSpec(module, &feed_spec, NULL);
    return section->feed == NULL || PyModule_AddType(module, section->feed) < 0 ? -1 : 0;
}
