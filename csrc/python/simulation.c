/* python/simulation.c - see simulation.h.
 *
 * Design
 *   - The actors' runtime, and of each system its entities' runtime, its journal and its projector
 *     are manual: each does one piece of work when it is stepped. A step draws from the seed which
 *     of them is next; the runtimes draw which actor. So the seed decides the order of messages,
 *     how many commands make one batch of the journal, and how far a read model is behind.
 *   - What is written in Python and would have a thread (a process) is stepped as well, outside of
 *     every message only: what it does then is nobody's.
 *   - Nothing runs but while the thread waits for something, or steps. Outside of every message it
 *     steps all. Inside of one it stands upon that message, which cannot go on meanwhile: a handler
 *     of an entity therefore steps no entity but the one that it waits for (whose handler may do
 *     the same, and a cycle is found as ever), an actor no actor.
 *   - Ids, times, retries and timers come from the seed and from the virtual clock; so the same
 *     seed stores the same bytes.
 *
 * Threads: the one that made the actor system, or that closes it; another one that waits sleeps as
 * it would elsewhere, and what it sends has no place in the order. Locks: none; the GIL. */
#include "python/simulation.h"

#include <string.h>

#include "python/actor.h"
#include "python/definition.h"
#include "python/system.h"

#define SYSTEMS_MAX 16 /* of one simulation */
/* 2000-01-01, where every simulation begins */
#define EPOCH_US INT64_C(946684800000000)

/* ---- what the seed decides -------------------------------------------------------------------- */

static _Thread_local esc_py_seeded *seeded_here; /* held; that of this thread's last simulation */

/* splitmix64, by Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next_number(uint64_t *seed)
{
    uint64_t number = *seed += UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ (number >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ (number >> 27)) * UINT64_C(0x94d049bb133111eb);
    return number ^ (number >> 31);
}

static void draw(void *context, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        uint64_t number = next_number(context);
        size_t part = size - done < sizeof number ? size - done : sizeof number;
        memcpy((char *)buffer + done, &number, part);
        done += part;
    }
}

static void seeded_release(esc_py_seeded *self)
{
    if (self != NULL && --self->references == 0) {
        escqrs_free(self);
    }
}

esc_py_seeded *esc_py_seeded_new(uint64_t seed)
{
    esc_py_seeded *self = escqrs_alloc_zero(sizeof *self);
    if (self != NULL) {
        self->references = 2;
        self->order = seed;
        self->ids = ~seed;
        seeded_release(seeded_here);
        seeded_here = self;
    }
    return self;
}

void esc_py_seeded_leave(esc_py_seeded *self)
{
    if (self != NULL && self == seeded_here) {
        seeded_here = NULL;
        seeded_release(self);
    }
}

void esc_py_seeded_end(esc_py_seeded *self)
{
    if (self != NULL) {
        self->core = NULL;
        seeded_release(self);
    }
}

escqrs_random esc_py_seeded_order(esc_py_seeded *self)
{
    return (escqrs_random){draw, &self->order};
}

escqrs_random esc_py_seeded_ids(esc_py_seeded *self)
{
    return (escqrs_random){draw, &self->ids};
}

static int64_t now_ns(void *context)
{
    const esc_py_seeded *self = context;
    return self->core == NULL ? 0 : escqrs_actor_system_now(self->core);
}

static int64_t now_us(void *context)
{
    return EPOCH_US + now_ns(context) / 1000;
}

escqrs_clock esc_py_seeded_clock(esc_py_seeded *self)
{
    return (escqrs_clock){now_us, now_ns, self};
}

escqrs_uuid esc_py_new_uuid(void)
{
    esc_py_seeded *self = seeded_here;
    if (self == NULL) {
        return escqrs_uuid_new(NULL, NULL);
    }
    if (self->core == NULL) {
        seeded_here = NULL;
        seeded_release(self);
        return escqrs_uuid_new(NULL, NULL);
    }
    escqrs_clock clock = esc_py_seeded_clock(self);
    escqrs_random random = esc_py_seeded_ids(self);
    return escqrs_uuid_new(&clock, &random);
}

/* ---- steps ------------------------------------------------------------------------------------ */

typedef enum part {
    ENTITIES,
    COMMITS,
    READ_MODELS,
    PART_COUNT,
} part;

static bool step_commits(esc_py_system *system)
{
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = escqrs_store_pump(system->store) > 0;
    Py_END_ALLOW_THREADS
    return done;
}

static bool step_read_models(esc_py_system *system)
{
    if (system->projector == NULL || system->readonly) {
        return false;
    }
    bool done;
    system->outside = PyEval_SaveThread();
    done = escqrs_projector_step(system->projector);
    PyEval_RestoreThread(system->outside);
    system->outside = NULL;
    return done;
}

/* `target` is for who waits in an entity's handler: of the entities, that one alone. */
static bool step_part(esc_py_system *system, part which, escqrs_actor *target)
{
    switch (which) {
    case ENTITIES:
        return target != NULL ? escqrs_runtime_step_actor(target)
                              : escqrs_runtime_step(escqrs_system_runtime(system->system));
    /* not where a read model's handler waits: it has the writer, and comes before what is next */
    case COMMITS:
        return system->outside == NULL && step_commits(system);
    case READ_MODELS:
        return system->outside == NULL && step_read_models(system);
    case PART_COUNT:
        break;
    }
    return false;
}

/* Whether what stands beside a system may go on: it commits, for which the writer is needed, and
 * what it sends is to be no handler's. */
static bool may_step_beside(const esc_py_system *system)
{
    return system->beside != NULL && system->outside == NULL && escqrs_actor_current() == NULL &&
           esc_py_turn_current() == NULL;
}

static bool take_turn(PyObject *one)
{
    PyObject *result = PyObject_CallMethod(one, "take_turn", NULL);
    int done = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (done < 0) {
        PyErr_WriteUnraisable(one);
    }
    return done > 0;
}

/* One of them, the first that has something to do from one that is drawn on. */
static bool step_beside(esc_py_actor_system *self, esc_py_system *system)
{
    if (!may_step_beside(system)) {
        return false;
    }
    PyObject *beside = Py_NewRef(system->beside);
    Py_ssize_t count = PyTuple_GET_SIZE(beside);
    uint64_t first = count > 1 ? next_number(&self->seeded->order) % (uint64_t)count : 0;
    bool done = false;
    for (Py_ssize_t i = 0; i < count && !done; i++) {
        done = take_turn(PyTuple_GET_ITEM(beside, (i + (Py_ssize_t)first) % count));
    }
    Py_DECREF(beside);
    return done;
}

/* Seconds from now, in ns; INT64_MAX: never. What is left of a ns, since a float is not exact, is
 * one: else time would not go on. */
static int64_t due_in_ns(PyObject *one)
{
    PyObject *result = PyObject_CallMethod(one, "due_in", NULL);
    double seconds = result == NULL || result == Py_None ? 1e9 : PyFloat_AsDouble(result);
    Py_XDECREF(result);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(one);
        return INT64_MAX;
    }
    int64_t left_ns = seconds >= 1e9 ? INT64_MAX : (int64_t)(seconds * 1e9 + 0.5);
    return left_ns == 0 && seconds > 0 ? 1 : left_ns;
}

static int64_t beside_due_ns(esc_py_actor_system *self, const esc_py_system *system)
{
    int64_t due_ns = INT64_MAX;
    if (!may_step_beside(system)) {
        return due_ns;
    }
    int64_t now_ns = escqrs_actor_system_now(self->core);
    PyObject *beside = Py_NewRef(system->beside);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(beside); i++) {
        int64_t left_ns = due_in_ns(PyTuple_GET_ITEM(beside, i));
        if (left_ns != INT64_MAX && now_ns + left_ns < due_ns) {
            due_ns = now_ns + left_ns;
        }
    }
    Py_DECREF(beside);
    return due_ns;
}

/* One of `count` that has something to do, drawn; false: none has. */
static bool step_any(esc_py_actor_system *self, size_t count,
                     bool (*step)(esc_py_actor_system *self, size_t index, void *context),
                     void *context)
{
    size_t left[1 + SYSTEMS_MAX * (PART_COUNT + 1)];
    for (size_t i = 0; i < count; i++) {
        left[i] = i;
    }
    while (count > 0) {
        size_t drawn = (size_t)(next_number(&self->seeded->order) % count);
        if (step(self, left[drawn], context)) {
            return true;
        }
        left[drawn] = left[--count];
    }
    return false;
}

static esc_py_system *simulated_at(esc_py_actor_system *self, size_t index)
{
    esc_list_node *node = esc_list_first(&self->simulated);
    for (; index > 0 && node != NULL; index--) {
        node = esc_list_next(&self->simulated, node);
    }
    return node == NULL ? NULL : ESC_CONTAINER_OF(node, esc_py_system, simulated);
}

/* The actors, the parts of each system, and what stands beside each. */
static bool step_outside(esc_py_actor_system *self, size_t index, void *Py_UNUSED(context))
{
    if (index == 0) {
        return escqrs_runtime_step(self->runtime);
    }
    size_t parts = self->simulated_count * PART_COUNT;
    if (--index < parts) {
        esc_py_system *system = simulated_at(self, index / PART_COUNT);
        return system != NULL && step_part(system, (part)(index % PART_COUNT), NULL);
    }
    esc_py_system *system = simulated_at(self, index - parts);
    return system != NULL && step_beside(self, system);
}

static bool has_beside(esc_py_actor_system *self)
{
    bool found = false;
    for (esc_list_node *node = esc_list_first(&self->simulated); node != NULL && !found;
         node = esc_list_next(&self->simulated, node)) {
        found = ESC_CONTAINER_OF(node, esc_py_system, simulated)->beside != NULL;
    }
    return found;
}

static bool step_all(void *context)
{
    esc_py_actor_system *self = context;
    if (self->simulated_count == 0) {
        return escqrs_runtime_step(self->runtime);
    }
    size_t each = PART_COUNT + (has_beside(self) ? 1 : 0);
    return step_any(self, 1 + self->simulated_count * each, step_outside, NULL);
}

static int64_t next_due_ns(void *context)
{
    esc_py_actor_system *self = context;
    int64_t due_ns = INT64_MAX;
    for (esc_list_node *node = esc_list_first(&self->simulated); node != NULL;
         node = esc_list_next(&self->simulated, node)) {
        esc_py_system *system = ESC_CONTAINER_OF(node, esc_py_system, simulated);
        if (system->projector != NULL) {
            int64_t one_ns = escqrs_projector_next_due_ns(system->projector);
            due_ns = one_ns < due_ns ? one_ns : due_ns;
        }
        int64_t beside_ns = beside_due_ns(self, system);
        due_ns = beside_ns < due_ns ? beside_ns : due_ns;
    }
    return due_ns;
}

escqrs_stepper esc_py_simulation_stepper(esc_py_actor_system *self)
{
    return (escqrs_stepper){step_all, next_due_ns, self};
}

/* ---- the projector's host: the thread that steps ---------------------------------------------- */

static void host_attach(void *context, void *Py_UNUSED(state))
{
    PyEval_RestoreThread(((esc_py_system *)context)->outside);
}

static void *host_detach(void *Py_UNUSED(context))
{
    return PyEval_SaveThread();
}

const escqrs_host_ops esc_py_simulation_host_ops = {.attach = host_attach, .detach = host_detach};

/* ---- systems ---------------------------------------------------------------------------------- */

int esc_py_simulation_enter(esc_py_system *system)
{
    esc_py_actor_system *self = system->keeper->simulation;
    if (self == NULL) {
        return 0;
    }
    if (self->simulated_count == SYSTEMS_MAX) {
        PyErr_Format(PyExc_ValueError, "a seeded system has at most %d open beside its actors",
                     SYSTEMS_MAX);
        return -1;
    }
    esc_list_push_back(&self->simulated, &system->simulated);
    self->simulated_count++;
    return 0;
}

void esc_py_simulation_leave(esc_py_system *system)
{
    if (esc_list_contains_node(&system->simulated)) {
        esc_list_remove(&system->simulated);
        system->keeper->simulation->simulated_count--;
    }
}

/* ---- waiting ---------------------------------------------------------------------------------- */

bool esc_py_simulation_is_here(esc_py_actor_system *self)
{
    /* relaxed: with the GIL */
    return self != NULL && self->manual &&
           (self->thread == PyThread_get_thread_ident() ||
            atomic_load_explicit(&self->closed, memory_order_relaxed) != 0);
}

/* The simulation that this thread is to run; NULL: it sleeps. */
static esc_py_actor_system *simulation_here(const esc_py_store *store)
{
    return esc_py_simulation_is_here(store->simulation) ? store->simulation : NULL;
}

typedef struct inside {
    esc_py_system *system;
    escqrs_actor *target;
    bool entities; /* may go on */
} inside;

static bool step_inside(esc_py_actor_system *Py_UNUSED(self), size_t index, void *context)
{
    const inside *here = context;
    return (index != ENTITIES || here->entities) &&
           step_part(here->system, (part)index, here->target);
}

int esc_py_system_wait(esc_py_system *self, esc_py_wait_function *wait, void *context,
                       escqrs_actor *target, int64_t deadline_ns)
{
    esc_py_actor_system *simulation = simulation_here(self->keeper);
    if (simulation == NULL) {
        return esc_py_wait(wait, context, deadline_ns);
    }
    if (escqrs_actor_current() == NULL) {
        return esc_py_actor_wait(simulation, wait, context, NULL, deadline_ns);
    }
    bool decides = esc_py_turn_current() != NULL;
    inside here = {self, decides ? target : NULL, !decides || target != NULL};
    for (;;) {
        escqrs_status status = wait(context, 0);
        if (status != ESCQRS_TIMEOUT) {
            return (int)status;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        if (!step_any(simulation, PART_COUNT, step_inside, &here)) {
            return ESCQRS_TIMEOUT;
        }
    }
}

int esc_py_store_wait(esc_py_store *self, esc_py_wait_function *wait, void *context,
                      int64_t deadline_ns)
{
    esc_py_actor_system *simulation = simulation_here(self);
    return simulation == NULL ? esc_py_wait(wait, context, deadline_ns)
                              : esc_py_actor_wait(simulation, wait, context, NULL, deadline_ns);
}
