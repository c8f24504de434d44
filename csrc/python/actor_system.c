/* python/actor_system.c - es.ActorSystem: host, runtime and core system, from open to close.
 *
 * close(): refuse spawns, stop the tree, join the workers, run what they left. Waits are without
 * the GIL and in slices. A system that is dropped is closed by its finalizer; where that cannot be
 * done (an actor does not come back) its threads and memory stay for ever. Locks: none; the GIL.
 */

#include "python/actor.h"

#include <structmember.h>

#include "base/thread.h"
#include "python/actor_reply.h"
#include "python/errors.h"
#include "python/state.h"

static _Thread_local const esc_py_actor_system *own_system; /* whose worker this thread is */

/* ---- the host ----------------------------------------------------------------------------------- */

static void *host_thread_begin(void *context)
{
    own_system = context;
    return PyThreadState_New(((esc_py_actor_system *)context)->interpreter);
}

static void host_after_batch(void *context)
{
    esc_py_actor_system *self = context;
    esc_py_errands_run(self);
}

static const escqrs_host_ops host_ops = {
    .thread_begin = host_thread_begin,
    .thread_end = esc_py_thread_end,
    .attach = esc_py_thread_attach,
    .detach = esc_py_thread_detach,
    .after_batch = host_after_batch,
};

/* ---- entering ----------------------------------------------------------------------------------- */

int esc_py_actor_system_check_fork(esc_py_actor_system *self)
{
    if (esc_py_is_own(self->fork_generation)) {
        return 0;
    }
    escqrs_error error = {0};
    (void)escqrs_error_set(&error, ESCQRS_FORKED,
                           "this actor system belongs to the parent process and cannot be used "
                           "after fork; make one in this process");
    esc_py_raise(self->state, &error);
    return -1;
}

void esc_py_actor_interrupted(esc_py_actor_system *self, PyObject *exception)
{
    if (self->manual && PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt)) {
        Py_XSETREF(self->interruption, Py_NewRef(exception));
    }
}

/* 0, or -1 with what esc_py_actor_interrupted was given. */
static int raise_interruption(esc_py_actor_system *self)
{
    PyObject *exception = self->interruption;
    if (exception == NULL) {
        return 0;
    }
    self->interruption = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return -1;
}

/* ---- open --------------------------------------------------------------------------------------- */

static escqrs_directive system_decide(void *context, escqrs_ref *Py_UNUSED(child),
                                      const escqrs_failure *failure)
{
    esc_py_actor_system *self = context;
    return esc_py_supervise(self, self->supervisor, failure);
}

static int open_core(esc_py_actor_system *self)
{
    escqrs_error error = {0};
    escqrs_supervisor supervisor = {.decide = system_decide, .context = self};
    escqrs_log log = {esc_py_log_write, &self->log};
    escqrs_runtime_options runtime = {.log = log, .manual = self->manual};
    escqrs_actor_system_options options = {.log = log, .virtual_time = self->manual};
    if (self->manual) {
        runtime.random = esc_py_seeded_order(self->seeded);
        options.stepper = esc_py_simulation_stepper(self);
    }
    if (self->supervisor != Py_None) {
        if (esc_py_supervisor_fill(self->supervisor, &supervisor) < 0) {
            return -1;
        }
        options.supervisor = &supervisor;
    }
    escqrs_status status = escqrs_runtime_create(&runtime, &self->runtime, &error);
    if (status == ESCQRS_OK) {
        status = escqrs_host_create(self->runtime, &host_ops, self, &self->host, &error);
    }
    if (status == ESCQRS_OK) {
        esc_py_log_set_host(&self->log, self->host);
        options.runtime = self->runtime;
        options.host = self->host;
        status = escqrs_actor_system_create(&options, &self->core, &error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_subscribe(self->core, &escqrs_dead_letter, esc_py_on_letter, self, NULL,
                                  &self->letters, &error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_subscribe(self->core, &escqrs_failure_event, esc_py_on_failure, self, NULL,
                                  &self->failures, &error);
    }
    if (status != ESCQRS_OK) {
        esc_py_raise(self->state, &error);
        return -1;
    }
    return 0;
}

static PyObject *system_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"supervisor", "seed", NULL};
    PyObject *supervisor = Py_None, *seed = Py_None;
    esc_py_state *state = esc_py_state_of_type(type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|OO", names, &supervisor, &seed)) {
        return NULL;
    }
    uint64_t number = seed == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(seed);
    if (PyErr_Occurred()) {
        return NULL;
    }
    esc_py_actor_system *self = (esc_py_actor_system *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    atomic_init(&self->closed, 2); /* until it is open */
    self->state = state;
    self->interpreter = PyInterpreterState_Get();
    self->fork_generation = escqrs_fork_generation();
    self->supervisor = Py_NewRef(supervisor);
    self->manual = seed != Py_None;
    self->thread = PyThread_get_thread_ident();
    esc_list_init(&self->simulated);
    esc_queue_init(&self->errands);
    esc_list_init(&self->contexts);
    esc_list_init(&self->recipes);
    esc_py_log_init(&self->log, state);
    if (self->manual && (self->seeded = esc_py_seeded_new(number)) == NULL) {
        PyErr_NoMemory();
    }
    if (PyErr_Occurred() || open_core(self) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (self->manual) {
        self->seeded->core = self->core;
    }
    atomic_store_explicit(&self->closed, 0, memory_order_relaxed);
    return (PyObject *)self;
}

/* ---- close -------------------------------------------------------------------------------------- */

typedef struct stopping {
    esc_py_actor_system *system;
    escqrs_error error;
} stopping;

static escqrs_status stop_actors(void *context, int64_t deadline_ns)
{
    stopping *self = context;
    self->error = (escqrs_error){0};
    return escqrs_actor_system_stop(self->system->core, deadline_ns, &self->error);
}

static escqrs_status stop_runtime(void *context, int64_t deadline_ns)
{
    stopping *self = context;
    self->error = (escqrs_error){0};
    return escqrs_runtime_stop(self->system->runtime, deadline_ns, &self->error);
}

/* Seeded: actors run on this thread, attached. */
static int stop_manual(stopping *wait)
{
    escqrs_status status = stop_actors(wait, INT64_MAX);
    if (status == ESCQRS_OK) {
        status = stop_runtime(wait, INT64_MAX);
    }
    return raise_interruption(wait->system) < 0 ? -1 : (int)status;
}

/* _stop(timeout): the whole tree, then the threads. */
static PyObject *system_stop(PyObject *object, PyObject *timeout)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    int64_t deadline_ns;
    if (esc_py_deadline(timeout, &deadline_ns) < 0) {
        return NULL;
    }
    if (!esc_py_is_own(self->fork_generation) ||
        atomic_load_explicit(&self->closed, memory_order_relaxed) == 2) {
        Py_RETURN_NONE;
    }
    atomic_store_explicit(&self->closed, 1, memory_order_relaxed);
    stopping wait = {.system = self};
    int status =
        self->manual ? stop_manual(&wait) : esc_py_wait_in_slices(stop_actors, &wait, deadline_ns);
    if (status == ESCQRS_OK && !self->manual) {
        esc_py_errands_run(self);
        status = esc_py_wait_in_slices(stop_runtime, &wait, deadline_ns);
    }
    if (status < 0) {
        return NULL;
    }
    esc_py_errands_run(self);
    if (status != ESCQRS_OK) {
        if (wait.error.status == ESCQRS_OK) {
            (void)escqrs_error_set(&wait.error, (escqrs_status)status,
                                   "the actors have not stopped in time");
        }
        return esc_py_raise(self->state, &wait.error);
    }
    escqrs_unsubscribe(self->letters);
    escqrs_unsubscribe(self->failures);
    self->letters = self->failures = NULL;
    atomic_store_explicit(&self->closed, 2, memory_order_relaxed);
    esc_py_seeded_leave(self->seeded);
    Py_RETURN_NONE;
}

/* _begin_close(): nothing is spawned from outside any more. */
static PyObject *system_begin_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) == 0) {
        atomic_store_explicit(&self->closed, 1, memory_order_relaxed);
    }
    Py_RETURN_NONE;
}

/* _leave_behind(): somebody does not come back; what runs may go on, and its memory stays. */
static PyObject *system_leave_behind(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    if (!self->left_behind) {
        self->left_behind = true;
        Py_INCREF(object);
    }
    Py_RETURN_NONE;
}

static void system_finalize(PyObject *object)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) == 2 ||
        !esc_py_is_own(self->fork_generation)) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool inside = own_system == self || escqrs_context_current() != NULL;
    PyObject *result = PyObject_CallFunction(self->state->actor.abandoned, "OO", object,
                                             inside ? Py_True : Py_False);
    if (result == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_XDECREF(result);
    if (!inside && atomic_load_explicit(&self->closed, memory_order_relaxed) != 2) {
        Py_XDECREF(system_leave_behind(object, NULL));
    }
    PyErr_Restore(type, value, traceback);
}

/* The collector sees through the core: what it holds are references of the system's. */
static int system_traverse(PyObject *object, visitproc visit, void *arg)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->supervisor);
    Py_VISIT((PyObject *)self->recent);
    Py_VISIT(self->interruption);
    if (!esc_py_is_own(self->fork_generation)) {
        return 0;
    }
    for (esc_list_node *node = esc_list_first(&self->contexts); node != NULL;
         node = esc_list_next(&self->contexts, node)) {
        Py_VISIT((PyObject *)ESC_CONTAINER_OF(node, esc_py_context, listed));
    }
    for (esc_list_node *node = esc_list_first(&self->recipes); node != NULL;
         node = esc_list_next(&self->recipes, node)) {
        Py_VISIT((PyObject *)ESC_CONTAINER_OF(node, esc_py_recipe, listed));
    }
    return 0;
}

static void system_dealloc(PyObject *object)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (!esc_py_dealloc_begin(object, &self->weakrefs)) {
        return;
    }
    bool own = esc_py_is_own(self->fork_generation);
    if (own) {
        escqrs_ref_release(self->loop);
        escqrs_actor_system_destroy(self->core);
        escqrs_runtime_destroy(self->runtime);
        esc_queue_node *node = esc_queue_take_all(&self->errands);
        while (node != NULL) {
            esc_py_errand *errand = ESC_CONTAINER_OF(node, esc_py_errand, node);
            node = node->next;
            errand->run(errand);
        }
        esc_py_mail_free_list(self);
        esc_py_log_fini(&self->log);
    }
    Py_XDECREF(self->supervisor);
    Py_XDECREF((PyObject *)self->recent);
    Py_XDECREF(self->interruption);
    esc_py_seeded_end(self->seeded);
    if (own) {
        type->tp_free(object);
    }
    Py_DECREF(type);
}

/* ---- methods ------------------------------------------------------------------------------------ */

static PyObject *system_spawn(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    PyObject *what = count > 0 ? args[0] : NULL, *name = Py_None;
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(names, i);
        if (PyUnicode_CompareWithASCIIString(keyword, "name") == 0) {
            name = args[count + i];
        } else if (PyUnicode_CompareWithASCIIString(keyword, "producer_or_props") == 0 &&
                   what == NULL) {
            what = args[count + i];
        } else {
            PyErr_Format(PyExc_TypeError, "unexpected keyword argument %R", keyword);
            return NULL;
        }
    }
    if (what == NULL || count > 1) {
        PyErr_SetString(PyExc_TypeError, "spawn(producer_or_props, *, name=None)");
        return NULL;
    }
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    if (esc_py_actor_system_check_fork(self) < 0) {
        return NULL;
    }
    if (atomic_load_explicit(&self->closed, memory_order_relaxed) != 0) {
        PyErr_SetString(esc_py_error_class(self->state, ESCQRS_CLOSED),
                        "the actor system is closed: nothing can be spawned any more");
        return NULL;
    }
    return esc_py_spawn(self, NULL, what, name);
}

/* _spawn_loop(producer, name): the actor that runs a seeded system's event loop; also while the
 * actors are being ended, one of which may have begun to need it. */
static PyObject *system_spawn_loop(PyObject *object, PyObject *args)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    PyObject *producer, *name;
    if (!PyArg_ParseTuple(args, "OO", &producer, &name)) {
        return NULL;
    }
    PyObject *ref = esc_py_spawn(self, NULL, producer, name);
    if (ref != NULL) {
        escqrs_ref_release(self->loop);
        self->loop = ((esc_py_ref *)ref)->core;
        escqrs_ref_hold(self->loop);
    }
    return ref;
}

/* _interrupt(exception): what a callback of a seeded system's event loop let through. */
static PyObject *system_interrupt(PyObject *object, PyObject *exception)
{
    esc_py_actor_interrupted((esc_py_actor_system *)object, exception);
    Py_RETURN_NONE;
}

static bool step_first(const esc_py_actor_system *self, escqrs_actor *first)
{
    return first != NULL && escqrs_actor_runtime(first) == self->runtime &&
           escqrs_runtime_step_actor(first);
}

int esc_py_actor_wait(esc_py_actor_system *self, esc_py_wait_function *wait, void *context,
                      escqrs_actor *first, int64_t deadline_ns)
{
    if (!esc_py_simulation_is_here(self)) {
        return esc_py_wait(wait, context, deadline_ns);
    }
    for (;;) {
        if (raise_interruption(self) < 0) {
            return -1;
        }
        escqrs_status status = wait(context, 0);
        if (status != ESCQRS_TIMEOUT) {
            return (int)status;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (step_first(self, first) || escqrs_actor_system_step_now(self->core)) {
            continue;
        }
        int64_t due_ns = escqrs_actor_system_next_due(self->core);
        bool due = due_ns != INT64_MAX && due_ns <= deadline_ns;
        if (due || deadline_ns != INT64_MAX) {
            escqrs_actor_system_advance(self->core, due ? due_ns : deadline_ns);
        }
        if (!due) {
            return ESCQRS_TIMEOUT;
        }
    }
}

int esc_py_actor_deadline(esc_py_actor_system *self, PyObject *timeout, int64_t *deadline_ns)
{
    if (!esc_py_simulation_is_here(self)) {
        return esc_py_deadline(timeout, deadline_ns);
    }
    int64_t left_ns;
    if (esc_py_timeout(timeout, &left_ns) < 0) {
        return -1;
    }
    int64_t now_ns = escqrs_actor_system_now(self->core);
    *deadline_ns = left_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + left_ns;
    return 0;
}

/* _step(until): run one message, or move the clock to the next timer, which is due at `until`
 * (seconds) at the latest; False: nothing is left to do until then. */
static PyObject *system_step(PyObject *object, PyObject *until)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    double seconds = PyFloat_AsDouble(until);
    if ((seconds == -1.0 && PyErr_Occurred()) || esc_py_actor_system_check_fork(self) < 0) {
        return NULL;
    }
    if (!self->manual || atomic_load_explicit(&self->closed, memory_order_relaxed) == 2) {
        Py_RETURN_FALSE;
    }
    bool stepped = escqrs_actor_system_step_now(self->core);
    if (raise_interruption(self) < 0) {
        return NULL;
    }
    if (stepped) {
        Py_RETURN_TRUE;
    }
    int64_t due_ns = escqrs_actor_system_next_due(self->core);
    bool due = due_ns != INT64_MAX && (double)due_ns <= seconds * 1e9;
    if (due) {
        escqrs_actor_system_advance(self->core, due_ns);
    } else if (seconds < 1e9) {
        escqrs_actor_system_advance(self->core, (int64_t)(seconds * 1e9));
    }
    return PyBool_FromLong(due);
}

static escqrs_status wait_condition(void *context, int64_t Py_UNUSED(deadline_ns))
{
    PyObject *result = PyObject_CallNoArgs(context);
    int met = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return met < 0 ? ESCQRS_DONE : met > 0 ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

/* _wait(condition, seconds, first=None): run a seeded system until the condition is met, the actor
 * `first` before all others; False where so much of its time has passed, or nothing is left to do;
 * None where another thread runs it. */
static PyObject *system_wait(PyObject *object, PyObject *args)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    PyObject *condition, *timeout, *given = Py_None;
    int64_t deadline_ns;
    if (!PyArg_ParseTuple(args, "OO|O", &condition, &timeout, &given) ||
        esc_py_actor_system_check_fork(self) < 0 ||
        esc_py_actor_deadline(self, timeout, &deadline_ns) < 0) {
        return NULL;
    }
    if (!esc_py_simulation_is_here(self)) {
        Py_RETURN_NONE;
    }
    escqrs_actor *first = given == Py_None ? NULL : esc_py_ref_actor(given);
    int status = esc_py_actor_wait(self, wait_condition, condition, first, deadline_ns);
    if (status == ESCQRS_TIMEOUT) { /* the last step may have met it */
        status = (int)wait_condition(condition, 0);
    }
    return PyErr_Occurred() ? NULL : PyBool_FromLong(status == ESCQRS_OK);
}

static PyObject *system_get_now(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    return esc_py_actor_system_check_fork(self) < 0
               ? NULL
               : PyFloat_FromDouble((double)escqrs_actor_system_now(self->core) / 1e9);
}

static PyObject *system_find(PyObject *object, PyObject *address)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    Py_ssize_t size;
    if (!PyUnicode_Check(address)) {
        PyErr_Format(PyExc_TypeError, "an address is a str, not %s", Py_TYPE(address)->tp_name);
        return NULL;
    }
    const char *text = PyUnicode_AsUTF8AndSize(address, &size);
    if (text == NULL || esc_py_actor_system_check_fork(self) < 0) {
        return NULL;
    }
    if (size > 0 && text[0] == '/') {
        text++;
        size--;
    }
    escqrs_ref *ref = escqrs_actor_system_find(self->core, (escqrs_slice){text, (size_t)size});
    if (ref == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result = esc_py_ref_new(self, ref);
    escqrs_ref_release(ref);
    return result;
}

static PyObject *system_get_children(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    return esc_py_actor_system_check_fork(self) < 0 ? NULL : esc_py_children(self, NULL);
}

static PyObject *system_get_count(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    return esc_py_actor_system_check_fork(self) < 0
               ? NULL
               : PyLong_FromSize_t(escqrs_actor_system_actor_count(self->core));
}

static PyObject *system_get_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(
        atomic_load_explicit(&((esc_py_actor_system *)object)->closed, memory_order_relaxed) != 0);
}

static PyObject *system_get_ended(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(
        atomic_load_explicit(&((esc_py_actor_system *)object)->closed, memory_order_relaxed) == 2);
}

static PyObject *system_get_forked(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!esc_py_is_own(((esc_py_actor_system *)object)->fork_generation));
}

/* _runs_here: whether this thread runs the seeded system that it is. */
static PyObject *system_get_runs_here(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(esc_py_simulation_is_here((esc_py_actor_system *)object));
}

/* _rests: whether nothing is left that would move the clock of a seeded system. */
static PyObject *system_get_rests(PyObject *object, void *Py_UNUSED(closure))
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    return PyBool_FromLong(self->manual && escqrs_actor_system_next_due(self->core) == INT64_MAX);
}

static PyObject *system_get_inside(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(own_system == (esc_py_actor_system *)object ||
                           escqrs_context_current() != NULL);
}

/* _listen(bool): whether anybody wants dead letters and failures. */
static PyObject *system_listen(PyObject *object, PyObject *given)
{
    int wanted = PyObject_IsTrue(given);
    if (wanted < 0) {
        return NULL;
    }
    atomic_store_explicit(&((esc_py_actor_system *)object)->listening, wanted != 0,
                          memory_order_relaxed);
    Py_RETURN_NONE;
}

static PyObject *change_routee(PyObject *object, PyObject *args, bool add)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    PyObject *router, *routee;
    PyTypeObject *type = self->state->actor.ref_type;
    escqrs_error error = {0};
    if (!PyArg_ParseTuple(args, "O!O", type, &router, &routee) ||
        (routee != Py_None && esc_py_ref_cast(self->state, routee, "a routee") == NULL) ||
        esc_py_actor_system_check_fork(self) < 0) {
        return NULL;
    }
    escqrs_ref *other = routee == Py_None ? NULL : ((esc_py_ref *)routee)->core;
    escqrs_ref *core = ((esc_py_ref *)router)->core;
    escqrs_status status =
        add ? escqrs_router_add(core, other, &error) : escqrs_router_remove(core, other, &error);
    return status == ESCQRS_OK ? Py_NewRef(Py_None) : esc_py_raise(self->state, &error);
}

static PyObject *system_add_routee(PyObject *object, PyObject *args)
{
    return change_routee(object, args, true);
}

static PyObject *system_remove_routee(PyObject *object, PyObject *args)
{
    return change_routee(object, args, false);
}

/* _report(router): a reply that ends once the router has carried out the orders before. */
static PyObject *system_report(PyObject *object, PyObject *router)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    esc_py_ref *ref = esc_py_ref_cast(self->state, router, "a router");
    if (ref == NULL || esc_py_actor_system_check_fork(self) < 0) {
        return NULL;
    }
    esc_py_answer *reply = esc_py_answer_new(ref->system, ref);
    if (reply == NULL) {
        return NULL;
    }
    escqrs_error error = {0};
    escqrs_status status = escqrs_router_report(ref->core, &reply->future, &error);
    escqrs_ref_release(&reply->future.ref);
    if (status != ESCQRS_OK) {
        Py_DECREF((PyObject *)reply);
        return esc_py_raise(self->state, &error);
    }
    return (PyObject *)reply;
}

static size_t routees_of(esc_py_actor_system *Py_UNUSED(self), escqrs_ref *router,
                         escqrs_ref **refs, size_t max)
{
    return escqrs_router_routees(router, refs, max);
}

static PyObject *system_routees(PyObject *object, PyObject *router)
{
    esc_py_actor_system *self = (esc_py_actor_system *)object;
    if (esc_py_actor_system_check_fork(self) < 0 ||
        esc_py_ref_cast(self->state, router, "a router") == NULL) {
        return NULL;
    }
    return esc_py_refs(self, ((esc_py_ref *)router)->core, routees_of);
}

/* ---- the type ------------------------------------------------------------------------------------ */

static PyMethodDef system_methods[] = {
    {"spawn", _PyCFunction_CAST(system_spawn), METH_FASTCALL | METH_KEYWORDS,
     "spawn($self, producer_or_props, *, name=None)\n--\n\nMake an actor and return its es.Ref.\n\n"
     "producer_or_props: es.Props, a class, or a function that returns an actor. name: unique "
     "among the\nsystem's own; es.NameExists (.ref) where it is taken. es.Closed once the system "
     "closes."},
    {"find", system_find, METH_O,
     "find($self, address, /)\n--\n\nThe reference of the living actor with that address, or "
     "None."},
    {"_begin_close", system_begin_close, METH_NOARGS, NULL},
    {"_stop", system_stop, METH_O, NULL},
    {"_step", system_step, METH_O, NULL},
    {"_wait", system_wait, METH_VARARGS, NULL},
    {"_spawn_loop", system_spawn_loop, METH_VARARGS, NULL},
    {"_interrupt", system_interrupt, METH_O, NULL},
    {"_leave_behind", system_leave_behind, METH_NOARGS, NULL},
    {"_listen", system_listen, METH_O, NULL},
    {"_add_routee", system_add_routee, METH_VARARGS, NULL},
    {"_remove_routee", system_remove_routee, METH_VARARGS, NULL},
    {"_report", system_report, METH_O, NULL},
    {"_routees", system_routees, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef system_getset[] = {
    {"children", system_get_children, NULL, "The references of its own actors, a tuple.", NULL},
    {"actor_count", system_get_count, NULL, "Actors that have not stopped.", NULL},
    {"closed", system_get_closed, NULL, "Whether close() was called.", NULL},
    {"_ended", system_get_ended, NULL, NULL, NULL},
    {"_forked", system_get_forked, NULL, NULL, NULL},
    {"_inside", system_get_inside, NULL, NULL, NULL},
    {"_runs_here", system_get_runs_here, NULL, NULL, NULL},
    {"_rests", system_get_rests, NULL, NULL, NULL},
    {"_now", system_get_now, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef system_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(esc_py_actor_system, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot system_slots[] = {
    {Py_tp_doc, "The part of es.ActorSystem that is written in C."},
    {Py_tp_new, system_new},
    {Py_tp_dealloc, system_dealloc},
    {Py_tp_finalize, system_finalize},
    {Py_tp_traverse, system_traverse},
    {Py_tp_methods, system_methods},
    {Py_tp_getset, system_getset},
    {Py_tp_members, system_members},
    {0, NULL},
};

PyType_Spec esc_py_actor_system_spec = {
    .name = "escqrs._core.ActorSystemBase",
    .basicsize = sizeof(esc_py_actor_system),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = system_slots,
};
