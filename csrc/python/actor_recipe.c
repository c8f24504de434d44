/* python/actor_recipe.c - what es.Props says, for the core: mailbox, supervisor, router; and spawn.
 *
 * A recipe is made into props of one system when it is first spawned there. The core's props hold
 * the recipe; the system visits it for the collector meanwhile (actor.h). Locks: none; the GIL.
 */

#include "python/actor.h"

#include <math.h>
#include <string.h>

#include "base/checksum.h"
#include "python/actor_persist.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/reply.h"
#include "python/state.h"

/* ---- supervisors -------------------------------------------------------------------------------- */

static PyObject *exception_of(esc_py_actor_system *system, const escqrs_failure *failure)
{
    if (failure->detail != NULL) {
        return Py_NewRef(((esc_py_fault *)failure->detail)->exception);
    }
    escqrs_error error = {0};
    (void)escqrs_error_set(&error, failure->status, "%s", failure->text);
    return esc_py_error_new(system->state, &error);
}

/* What decide let through. */
static void interrupted_or_unraisable(esc_py_actor_system *system, PyObject *supervisor)
{
    if (!system->manual || !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_WriteUnraisable(supervisor);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    esc_py_actor_interrupted(system, value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

escqrs_directive esc_py_supervise(esc_py_actor_system *system, PyObject *supervisor,
                                  const escqrs_failure *failure)
{
    PyObject *exception = exception_of(system, failure);
    PyObject *result =
        exception == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(system->state->actor.decide, supervisor, exception,
                                           system->manual ? Py_True : Py_False, NULL);
    long number = result == NULL ? -1 : PyLong_AsLong(result);
    Py_XDECREF(exception);
    Py_XDECREF(result);
    if (number < 0) { /* decide failed itself: it is said, and somebody above decides */
        interrupted_or_unraisable(system, supervisor);
        return ESCQRS_DIRECTIVE_ESCALATE;
    }
    return (escqrs_directive)number;
}

static escqrs_directive recipe_decide(void *context, escqrs_ref *Py_UNUSED(child),
                                      const escqrs_failure *failure)
{
    esc_py_recipe *self = context;
    return esc_py_supervise(self->system, self->supervisor, failure);
}

static int number_of(PyObject *object, const char *name, double *number)
{
    PyObject *value = PyObject_GetAttrString(object, name);
    *number = -1.0;
    int result = value == NULL ? -1 : esc_py_as_double(value, number);
    Py_XDECREF(value);
    return result;
}

/* Seconds to ns, what is beyond is for ever. */
static int64_t ns_of(double seconds)
{
    return seconds >= 9e9 ? INT64_MAX : (int64_t)(seconds * 1e9);
}

int esc_py_supervisor_fill(PyObject *supervisor, escqrs_supervisor *out)
{
    double restarts, within, all, first, limit, factor, jitter;
    if (number_of(supervisor, "max_restarts", &restarts) < 0 ||
        number_of(supervisor, "within", &within) < 0 ||
        number_of(supervisor, "all_for_one", &all) < 0) {
        return -1;
    }
    out->all_for_one = all != 0;
    out->never_restart = restarts == 0;
    out->max_restarts = restarts > 1e9 ? 1000000000 : (unsigned)restarts;
    out->within_ns = ns_of(within);
    PyObject *backoff = PyObject_GetAttrString(supervisor, "backoff");
    if (backoff == NULL) {
        return -1;
    }
    int result = 0;
    if (backoff != Py_None) {
        if (number_of(backoff, "first", &first) < 0 || number_of(backoff, "limit", &limit) < 0 ||
            number_of(backoff, "factor", &factor) < 0 ||
            number_of(backoff, "jitter", &jitter) < 0) {
            result = -1;
        } else {
            out->backoff_first_ns = ns_of(first);
            out->backoff_max_ns = ns_of(limit);
            out->backoff_factor = factor;
            out->backoff_jitter = jitter;
        }
    }
    Py_DECREF(backoff);
    return result;
}

/* ---- mailboxes ---------------------------------------------------------------------------------- */

static int64_t mail_priority(void *Py_UNUSED(context), const escqrs_envelope *envelope)
{
    return envelope->type == &esc_py_mail_type ? ((const esc_py_mail *)envelope)->priority : 0;
}

int esc_py_recipe_prioritize(esc_py_ref *to, esc_py_mail *mail)
{
    if (!to->system->state->actor.priorities || escqrs_ref_class(to->core) != &esc_py_actor_class) {
        return 0;
    }
    esc_py_recipe *recipe = escqrs_ref_user_data(to->core);
    if (recipe->priority == Py_None) {
        return 0;
    }
    PyObject *value = PyObject_CallOneArg(recipe->priority, esc_py_mail_object(mail));
    if (value == NULL) {
        return -1;
    }
    int overflow = 0;
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "the key of es.priority is an int, not %s",
                     Py_TYPE(value)->tp_name);
        Py_DECREF(value);
        return -1;
    }
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    mail->priority = overflow == 0 ? number : overflow > 0 ? INT64_MAX : INT64_MIN;
    Py_DECREF(value);
    return 0;
}

/* ---- routers ------------------------------------------------------------------------------------ */

/* The same in each process where Python's own would not be: texts, bytes and None. */
static Py_hash_t hash_key(PyObject *key)
{
    escqrs_slice bytes = {NULL, 0};
    if (key == Py_None) {
        return 0;
    }
    if (PyBytes_CheckExact(key)) {
        bytes = (escqrs_slice){PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key)};
    } else if (PyUnicode_CheckExact(key)) {
        bytes = (escqrs_slice){PyUnicode_DATA(key),
                               (size_t)PyUnicode_GET_LENGTH(key) * (size_t)PyUnicode_KIND(key)};
    } else {
        return PyObject_Hash(key);
    }
    Py_hash_t hash = (Py_hash_t)esc_hash(bytes, 0);
    return hash == -1 ? -2 : hash;
}

static uint64_t router_key(void *context, const escqrs_envelope *envelope)
{
    esc_py_recipe *self = context;
    if (envelope->type != &esc_py_mail_type) {
        return 0;
    }
    PyObject *object = esc_py_mail_object((const esc_py_mail *)envelope);
    PyObject *key = PyObject_CallOneArg(PyTuple_GET_ITEM(self->router, 1), object);
    Py_hash_t hash = key == NULL ? -1 : hash_key(key);
    if (hash == -1) { /* a failure of the router: the message goes to nobody */
        esc_py_fail(self->system, escqrs_context_current(), object);
        hash = 0;
    }
    Py_XDECREF(key);
    /* hashes of small ints stand close together: spread them over the ring */
    uint64_t x = (uint64_t)hash + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- the core's props --------------------------------------------------------------------------- */

static void recipe_let_go(esc_py_errand *errand)
{
    esc_py_recipe *self = ESC_CONTAINER_OF(errand, esc_py_recipe, errand);
    esc_list_remove(&self->listed);
    self->owned = false;
    Py_DECREF((PyObject *)self);
}

static void recipe_release(void *user_data)
{
    esc_py_recipe *self = user_data;
    self->errand.run = recipe_let_go;
    if (esc_py_is_attached()) {
        recipe_let_go(&self->errand);
    } else {
        esc_py_errand_push(self->system, &self->errand);
    }
}

static int fill_options(esc_py_recipe *self, esc_py_actor_system *system,
                        escqrs_supervisor *supervisor, escqrs_props_options *options)
{
    *options = (escqrs_props_options){
        .actor_class = &esc_py_actor_class,
        .user_data = self,
        .release = recipe_release,
        .host = system->host,
        .mailbox = {.capacity = (size_t)self->capacity,
                    .on_full = (escqrs_on_full)self->on_full,
                    .statistics = self->statistics},
        .receive_timeout_ns = ns_of(self->receive_timeout),
        .stash_max = (size_t)self->stash_max,
    };
    if (self->priority != Py_None) {
        options->mailbox.priority = mail_priority;
    }
    if (self->supervisor != Py_None) {
        *supervisor = (escqrs_supervisor){.decide = recipe_decide, .context = self};
        options->supervisor = supervisor;
        return esc_py_supervisor_fill(self->supervisor, supervisor);
    }
    return 0;
}

static escqrs_status make_router(esc_py_recipe *self, escqrs_props *pool, escqrs_props **props,
                                 escqrs_error *error)
{
    PyObject *routees = PyTuple_GET_ITEM(self->router, 2);
    size_t count = PyTuple_Check(routees) ? (size_t)PyTuple_GET_SIZE(routees) : 0;
    escqrs_ref **group = escqrs_alloc_array(count + 1, sizeof(escqrs_ref *));
    if (group == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a router");
    }
    for (size_t i = 0; i < count; i++) {
        group[i] = ((esc_py_ref *)PyTuple_GET_ITEM(routees, i))->core;
    }
    escqrs_supervisor supervisor = {.decide = recipe_decide, .context = self};
    escqrs_router_options options = {
        .routing = (escqrs_routing)PyLong_AsLong(PyTuple_GET_ITEM(self->router, 0)),
        .key = PyTuple_GET_ITEM(self->router, 1) == Py_None ? NULL : router_key,
        .context = self,
        .host = self->system->host,
        .pool = pool,
        .pool_size = pool == NULL ? 0 : (size_t)PyLong_AsSsize_t(routees),
        .group = group,
        .group_size = count,
        .failure_release = esc_py_fault_release,
        .release = pool == NULL ? recipe_release : NULL,
    };
    escqrs_status status = ESCQRS_OK;
    if (self->supervisor != Py_None) {
        status =
            esc_py_supervisor_fill(self->supervisor, &supervisor) < 0 ? ESCQRS_INVALID : ESCQRS_OK;
        options.supervisor = &supervisor;
    }
    if (status == ESCQRS_OK) {
        status = escqrs_router_props(&options, props, error);
    }
    escqrs_free(group);
    return status;
}

static esc_py_recipe *recipe_copy(esc_py_recipe *from)
{
    esc_py_recipe *self = PyObject_GC_New(esc_py_recipe, Py_TYPE((PyObject *)from));
    if (self == NULL) {
        return NULL;
    }
    memcpy((char *)self + sizeof(PyObject), (char *)from + sizeof(PyObject),
           sizeof *self - sizeof(PyObject));
    Py_INCREF(self->producer);
    Py_INCREF(self->middleware);
    Py_INCREF(self->sender_middleware);
    Py_INCREF(self->spawn_middleware);
    Py_INCREF(self->supervisor);
    Py_INCREF(self->priority);
    Py_INCREF(self->persistence);
    Py_INCREF(self->router);
    self->owned = false;
    self->listed = (esc_list_node){NULL, NULL};
    PyObject_GC_Track((PyObject *)self);
    return self;
}

escqrs_props *esc_py_recipe_props(esc_py_recipe *self, esc_py_actor_system *system)
{
    if (self->owned && self->system == system) {
        escqrs_props_hold(self->props);
        return self->props;
    }
    if (self->owned) { /* by another system */
        esc_py_recipe *copy = recipe_copy(self);
        escqrs_props *made = copy == NULL ? NULL : esc_py_recipe_props(copy, system);
        Py_XDECREF((PyObject *)copy);
        return made;
    }
    escqrs_supervisor supervisor;
    escqrs_props_options options;
    escqrs_error error = {0};
    escqrs_props *props = NULL, *routed = NULL;
    self->system = system;
    if (fill_options(self, system, &supervisor, &options) < 0) {
        return NULL;
    }
    bool group = self->router != Py_None && PyTuple_Check(PyTuple_GET_ITEM(self->router, 2));
    escqrs_status status = group ? ESCQRS_OK : escqrs_props_create(&options, &props, &error);
    if (status == ESCQRS_OK) {
        /* the core's; from here on `release` gives it back */
        Py_INCREF((PyObject *)self);
        self->owned = true;
        esc_list_push_back(&system->recipes, &self->listed);
    }
    if (status == ESCQRS_OK && self->router != Py_None) {
        status = make_router(self, props, &routed, &error);
        if (status != ESCQRS_OK && props == NULL) {
            recipe_let_go(&self->errand);
        }
        escqrs_props_release(props); /* the router's pool holds it */
        props = routed;
    }
    if (status != ESCQRS_OK) {
        return PyErr_Occurred() ? NULL : esc_py_raise(system->state, &error);
    }
    self->props = props;
    return props;
}

/* ---- spawning ----------------------------------------------------------------------------------- */

esc_py_recipe *esc_py_recipe_from(esc_py_state *state, PyObject *object)
{
    if (Py_TYPE(object) == state->actor.recipe_type) {
        return (esc_py_recipe *)Py_NewRef(object);
    }
    int is_props = PyObject_IsInstance(object, state->actor.props);
    if (is_props < 0) {
        return NULL;
    }
    if (is_props) {
        PyObject *recipe = PyObject_GetAttrString(object, "_recipe");
        if (recipe != NULL && Py_TYPE(recipe) != state->actor.recipe_type) {
            Py_CLEAR(recipe);
            PyErr_SetString(PyExc_TypeError, "these Props were not initialised");
        }
        return (esc_py_recipe *)recipe;
    }
    if (!PyCallable_Check(object)) {
        PyErr_Format(PyExc_TypeError,
                     "spawn takes es.Props or a producer (a class, or a function that returns an "
                     "actor), not %s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    esc_py_recipe *self = PyObject_GC_New(esc_py_recipe, state->actor.recipe_type);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->producer = Py_NewRef(object);
    self->middleware = Py_NewRef(Py_None);
    self->sender_middleware = Py_NewRef(Py_None);
    self->spawn_middleware = Py_NewRef(Py_None);
    self->supervisor = Py_NewRef(Py_None);
    self->priority = Py_NewRef(Py_None);
    self->persistence = Py_NewRef(Py_None);
    self->router = Py_NewRef(Py_None);
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* What an actor of these props could never begin with is refused here: a restart would not help. A
 * function as the producer is known when it has made one (actor_persist.c). 0, or -1. */
static int check_persistence(const esc_py_recipe *self, esc_py_state *state, escqrs_slice name)
{
    bool has_store = self->persistence != Py_None;
    bool is_class = PyType_Check(self->producer);
    PyTypeObject *cls = (PyTypeObject *)self->producer;
    bool is_persistent = is_class && PyType_IsSubtype(cls, state->actor.persistent_type);
    if (has_store && name.size == 0) {
        PyErr_SetString(PyExc_ValueError, "a persistent actor is spawned with a name, under which "
                                          "its events are stored: spawn(props, name=\"cart-1\")");
        return -1;
    }
    if (is_persistent && !has_store) {
        esc_py_persist_refuse_storeless(cls);
        return -1;
    }
    if (is_class && !is_persistent && has_store &&
        PyObject_HasAttr(self->producer, state->actor.receive_name)) {
        esc_py_persist_refuse_other(cls);
        return -1;
    }
    return 0;
}

static void raise_spawn(esc_py_actor_system *system, escqrs_status status, escqrs_error *error,
                        escqrs_ref *taken)
{
    if (status != ESCQRS_NAME_EXISTS) {
        esc_py_raise(system->state, error);
        return;
    }
    PyObject *exception = esc_py_error_new(system->state, error);
    PyObject *ref = exception == NULL || taken == NULL ? NULL : esc_py_ref_new(system, taken);
    if (ref != NULL) {
        (void)PyObject_SetAttrString(exception, "ref", ref); // where it fails, that is raised
    }
    if (exception != NULL && !PyErr_Occurred()) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    Py_XDECREF(ref);
    Py_XDECREF(exception);
}

PyObject *esc_py_spawn(esc_py_actor_system *system, esc_py_context *parent, PyObject *what,
                       PyObject *name)
{
    escqrs_slice slice = {NULL, 0};
    if (name != NULL && name != Py_None) {
        if (!PyUnicode_Check(name)) {
            PyErr_Format(PyExc_TypeError, "name is a str or None, not %s", Py_TYPE(name)->tp_name);
            return NULL;
        }
        Py_ssize_t size;
        slice.data = PyUnicode_AsUTF8AndSize(name, &size);
        slice.size = (size_t)size;
        if (slice.data == NULL) {
            return NULL;
        }
        if (size == 0) {
            PyErr_SetString(PyExc_ValueError, "the name of an actor is not empty");
            return NULL;
        }
    }
    if (esc_py_actor_system_check_fork(system) < 0) {
        return NULL;
    }
    esc_py_recipe *recipe;
    if (system->recent != NULL && system->recent->producer == what) {
        recipe = (esc_py_recipe *)Py_NewRef((PyObject *)system->recent);
    } else {
        recipe = esc_py_recipe_from(system->state, what);
        if (recipe != NULL && recipe->producer == what) { /* a producer alone */
            Py_XDECREF((PyObject *)system->recent);
            system->recent = (esc_py_recipe *)Py_NewRef((PyObject *)recipe);
        }
    }
    escqrs_props *props = recipe == NULL || check_persistence(recipe, system->state, slice) < 0
                              ? NULL
                              : esc_py_recipe_props(recipe, system);
    Py_XDECREF((PyObject *)recipe);
    if (props == NULL) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_ref *ref = NULL;
    escqrs_status status = parent == NULL
                               ? escqrs_actor_system_spawn(system->core, props, slice, &ref, &error)
                               : escqrs_context_spawn(parent->core, props, slice, &ref, &error);
    escqrs_props_release(props);
    PyObject *result = NULL;
    if (status == ESCQRS_OK) {
        result = esc_py_ref_new(system, ref);
    } else {
        raise_spawn(system, status, &error, ref);
    }
    escqrs_ref_release(ref);
    return result;
}

/* ---- the type ----------------------------------------------------------------------------------- */

static PyObject *recipe_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    esc_py_state *state = esc_py_state_of_type(type);
    PyObject *objects[8];
    Py_ssize_t capacity, stash_max;
    int on_full, statistics;
    double receive_timeout;
    if (state == NULL ||
        !PyArg_ParseTuple(args, "OOOOOOOOnipdn", &objects[0], &objects[1], &objects[2], &objects[3],
                          &objects[4], &objects[5], &objects[6], &objects[7], &capacity, &on_full,
                          &statistics, &receive_timeout, &stash_max)) {
        return NULL;
    }
    esc_py_recipe *self = (esc_py_recipe *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    PyObject **slots[] = {&self->producer,         &self->middleware, &self->sender_middleware,
                          &self->spawn_middleware, &self->supervisor, &self->priority,
                          &self->persistence,      &self->router};
    for (size_t i = 0; i < 8; i++) {
        *slots[i] = Py_NewRef(objects[i]);
    }
    self->capacity = capacity;
    self->on_full = on_full;
    self->statistics = statistics != 0;
    self->receive_timeout = receive_timeout;
    self->stash_max = stash_max;
    if (self->priority != Py_None) {
        state->actor.priorities = true;
    }
    return (PyObject *)self;
}

static int recipe_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_recipe *self = (esc_py_recipe *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->producer);
    Py_VISIT(self->middleware);
    Py_VISIT(self->sender_middleware);
    Py_VISIT(self->spawn_middleware);
    Py_VISIT(self->supervisor);
    Py_VISIT(self->priority);
    Py_VISIT(self->persistence);
    Py_VISIT(self->router);
    return 0;
}

/* No tp_clear: what it refers to is needed until the core lets go of it, and a cycle through it
 * leads through the system, whose finalizer breaks it. */
static void recipe_dealloc(PyObject *object)
{
    esc_py_recipe *self = (esc_py_recipe *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->producer);
    Py_XDECREF(self->middleware);
    Py_XDECREF(self->sender_middleware);
    Py_XDECREF(self->spawn_middleware);
    Py_XDECREF(self->supervisor);
    Py_XDECREF(self->priority);
    Py_XDECREF(self->persistence);
    Py_XDECREF(self->router);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot recipe_slots[] = {
    {Py_tp_doc, "What es.Props says, for the core."},
    {Py_tp_new, recipe_new},
    {Py_tp_dealloc, recipe_dealloc},
    {Py_tp_traverse, recipe_traverse},
    {0, NULL},
};

PyType_Spec esc_py_recipe_spec = {
    .name = "escqrs._core.Recipe",
    .basicsize = sizeof(esc_py_recipe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = recipe_slots,
};
