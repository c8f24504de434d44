/* The actor system: making it, stopping the tree, waiting for ends, stepping.
 *
 * The root is a cell like others, of a class that ignores what it gets; it is never FAILED.
 * Stopping the system stops the root, which stops its children first. Who waits for an actor to
 * stop, or for the root, sleeps on one condition that each end looks at where somebody waits.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

static escqrs_turn_end ignore(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)context;
    (void)state;
    (void)message;
    return ESCQRS_TURN_NEXT;
}

const escqrs_actor_class esc_root_class = {.name = "ActorSystem", .receive = ignore};

/* ---- life ------------------------------------------------------------------------------------- */

static escqrs_status make_root(escqrs_actor_system *system,
                               const escqrs_actor_system_options *options, escqrs_error *error)
{
    escqrs_props *props;
    escqrs_props_options root = {
        .actor_class = &esc_root_class, .host = options->host, .supervisor = options->supervisor};
    escqrs_status status = escqrs_props_create(&root, &props, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_cell_init(&system->root, system, NULL, props, (escqrs_slice){0}, error);
    escqrs_props_release(props);
    if (status == ESCQRS_OK && esc_cell_tree(&system->root) == NULL) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making an actor system");
    }
    return status;
}

static escqrs_status copy_middleware(escqrs_actor_system *system,
                                     const escqrs_actor_system_options *options,
                                     escqrs_error *error)
{
    size_t count = options->spawn_middleware_count;
    if (count == 0) {
        return ESCQRS_OK;
    }
    system->spawn_middleware = escqrs_alloc_array(count, sizeof *system->spawn_middleware);
    if (system->spawn_middleware == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making an actor system");
    }
    memcpy(system->spawn_middleware, options->spawn_middleware,
           count * sizeof *system->spawn_middleware);
    system->spawn_middleware_count = count;
    return ESCQRS_OK;
}

escqrs_status escqrs_actor_system_create(const escqrs_actor_system_options *options,
                                         escqrs_actor_system **system, escqrs_error *error)
{
    escqrs_actor_system_options given =
        options == NULL ? (escqrs_actor_system_options){0} : *options;
    escqrs_runtime *own = NULL;
    escqrs_runtime *runtime = given.runtime;
    if (runtime == NULL) {
        if (given.own.log.function == NULL) {
            given.own.log = given.log;
        }
        escqrs_status status = escqrs_runtime_create(&given.own, &own, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        runtime = own;
    }
    ESC_ASSERT(runtime != NULL);
    escqrs_status status = ESCQRS_NO_MEMORY;
    escqrs_actor_system *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making an actor system");
        goto fail;
    }
    made->runtime = runtime;
    made->owns_runtime = own != NULL;
    made->manual = made->runtime->manual;
    made->stepper = given.stepper;
    made->log = given.log;
    esc_timers_init(&made->timers, given.virtual_time);
    esc_topics_init(&made->topics);
    esc_streams_init(&made->streams);
    esc_mutex_init(&made->stop_lock);
    esc_mutex_init(&made->words_lock);
    esc_cond_init(&made->stopped);
    status = copy_middleware(made, &given, error);
    if (status == ESCQRS_OK) {
        status = make_root(made, &given, error);
    }
    if (status != ESCQRS_OK) {
        if (made->root.props != NULL) {
            escqrs_actor_release(&made->root.actor); /* frees it */
        } else {
            esc_system_free(made);
        }
        goto fail;
    }
    escqrs_actor_hold(&made->root.actor); /* the tree's, and the caller's */
    esc_actor_reserve(&made->root.actor);
    esc_actor_schedule(&made->root.actor);
    *system = made;
    return ESCQRS_OK;

fail:
    if (own != NULL) {
        if (escqrs_runtime_stop(own, ESC_DEADLINE_NEVER, NULL) == ESCQRS_OK) {
            escqrs_runtime_destroy(own);
        }
    }
    return status;
}

void esc_system_free(escqrs_actor_system *system)
{
    esc_timers_fini(&system->timers);
    esc_topics_fini(&system->topics);
    esc_streams_fini(&system->streams);
    esc_mutex_fini(&system->stop_lock);
    esc_mutex_fini(&system->words_lock);
    esc_cond_fini(&system->stopped);
    escqrs_free(system->spawn_middleware);
    escqrs_free(system);
}

void escqrs_actor_system_destroy(escqrs_actor_system *system)
{
    if (system == NULL) {
        return;
    }
    ESC_ASSERT(esc_cell_state(&system->root) == ESCQRS_REF_STOPPED);
    if (system->owns_runtime) {
        escqrs_runtime_destroy(system->runtime);
    }
    escqrs_actor_release(&system->root.actor);
}

escqrs_runtime *escqrs_actor_system_runtime(escqrs_actor_system *system)
{
    return system->runtime;
}

const escqrs_log *escqrs_actor_system_log(escqrs_actor_system *system)
{
    return &system->log;
}

size_t escqrs_actor_system_actor_count(escqrs_actor_system *system)
{
    return atomic_load_explicit(&system->actor_count, memory_order_relaxed);
}

/* ---- waiting for an end ----------------------------------------------------------------------- */

void esc_system_actor_stopped(escqrs_actor_system *system)
{
    /* seq_cst: Dekker with wait_until_ended: who waits is seen here, or sees `ended` there */
    if (atomic_load_explicit(&system->waiting, memory_order_seq_cst) > 0) {
        esc_mutex_lock(&system->stop_lock);
        esc_cond_broadcast(&system->stopped);
        esc_mutex_unlock(&system->stop_lock);
    }
}

static bool has_ended(esc_cell *cell)
{
    /* seq_cst: pairs with esc_cell_closed, and stands after the count of who waits */
    return atomic_load_explicit(&cell->ended, memory_order_seq_cst);
}

/* False: the deadline has passed. */
static bool wait_until_ended(escqrs_actor_system *system, esc_cell *cell, int64_t deadline_ns)
{
    bool in_time = true;
    esc_mutex_lock(&system->stop_lock);
    /* seq_cst: pairs with esc_system_actor_stopped */
    atomic_fetch_add_explicit(&system->waiting, 1, memory_order_seq_cst);
    while (!has_ended(cell) && in_time) {
        in_time = esc_cond_wait_until(&system->stopped, &system->stop_lock, deadline_ns);
    }
    atomic_fetch_sub_explicit(&system->waiting, 1, memory_order_relaxed);
    esc_mutex_unlock(&system->stop_lock);
    return has_ended(cell);
}

/* Manual: run the actors instead of waiting; where the time is virtual, an actor that fails for
 * ever goes on for ever. */
static bool step_until_ended(escqrs_actor_system *system, esc_cell *cell, int64_t deadline_ns)
{
    while (!has_ended(cell) && esc_deadline_after(0) < deadline_ns) {
        if (!escqrs_actor_system_step(system)) {
            break;
        }
    }
    return has_ended(cell);
}

/* Would the calling thread wait for itself? */
static bool is_inside(const esc_cell *cell)
{
    escqrs_context *current = escqrs_context_current();
    for (const esc_cell *at = current == NULL ? NULL : esc_context_cell(current); at != NULL;
         at = at->parent) {
        if (at == cell) {
            return true;
        }
    }
    return false;
}

static bool await_end(escqrs_actor_system *system, esc_cell *cell, int64_t deadline_ns)
{
    if (system->manual) {
        return step_until_ended(system, cell, deadline_ns);
    }
    escqrs_runtime_block();
    bool ended = wait_until_ended(system, cell, deadline_ns);
    escqrs_runtime_unblock();
    return ended;
}

escqrs_status escqrs_ref_wait_stopped(escqrs_ref *ref, int64_t deadline_ns, escqrs_error *error)
{
    if (!esc_ref_is_cell(ref) || has_ended((esc_cell *)ref)) {
        return ESCQRS_OK;
    }
    esc_cell *cell = (esc_cell *)ref;
    if (is_inside(cell)) {
        return escqrs_error_set(error, ESCQRS_DEADLOCK, "an actor cannot wait for its own end");
    }
    if (await_end(cell->system, cell, deadline_ns)) {
        return ESCQRS_OK;
    }
    char path[ESC_PATH_SIZE];
    escqrs_ref_path(ref, path, sizeof path);
    return escqrs_error_set(error, ESCQRS_TIMEOUT, "/%s has not stopped in time", path);
}

/* ---- stopping --------------------------------------------------------------------------------- */

/* A cell that has not stopped and waits for no child, from the top down; held. */
static esc_cell *find_last(esc_cell *cell)
{
    escqrs_actor_hold(&cell->actor);
    for (;;) {
        escqrs_ref *child = NULL;
        if (esc_children_list(cell, &child, 1) == 0 || child == NULL) {
            return cell;
        }
        escqrs_actor_release(&cell->actor);
        cell = (esc_cell *)child;
    }
}

static escqrs_status report(escqrs_actor_system *system, escqrs_error *error)
{
    char name[ESC_PATH_SIZE] = "";
    if (esc_runtime_name_busy(system->runtime, name, sizeof name)) {
        escqrs_status status = escqrs_error_set(
            error, ESCQRS_TIMEOUT, "/%s has not come back from a message in time", name);
        esc_error_subject(error, escqrs_slice_of(name));
        return status;
    }
    esc_cell *last = find_last(&system->root);
    escqrs_ref_path(esc_cell_ref(last), name, sizeof name);
    escqrs_actor_release(&last->actor);
    escqrs_status status =
        escqrs_error_set(error, ESCQRS_TIMEOUT, "/%s has not stopped in time", name);
    esc_error_subject(error, escqrs_slice_of(name));
    return status;
}

escqrs_status escqrs_actor_system_stop(escqrs_actor_system *system, int64_t deadline_ns,
                                       escqrs_error *error)
{
    if (is_inside(&system->root)) {
        return escqrs_error_set(error, ESCQRS_DEADLOCK, "an actor cannot stop its own system");
    }
    esc_tree *tree = esc_cell_tree(&system->root);
    esc_mutex_lock(&tree->lock);
    system->closing = true;
    esc_mutex_unlock(&tree->lock);
    esc_streams_stop(&system->streams);
    esc_cell_request(&system->root, ESC_REQUEST_STOP);
    if (!has_ended(&system->root) && !await_end(system, &system->root, deadline_ns)) {
        return report(system, error);
    }
    esc_streams_close(&system->streams);
    esc_timers_stop(&system->timers);
    esc_topics_close(&system->topics);
    return system->owns_runtime ? escqrs_runtime_stop(system->runtime, deadline_ns, error)
                                : ESCQRS_OK;
}

bool escqrs_actor_system_step_now(escqrs_actor_system *system)
{
    return system->stepper.step != NULL ? system->stepper.step(system->stepper.context)
                                        : escqrs_runtime_step(system->runtime);
}

bool escqrs_actor_system_step(escqrs_actor_system *system)
{
    if (escqrs_actor_system_step_now(system)) {
        return true;
    }
    if (!system->timers.is_virtual) {
        return false;
    }
    int64_t due_ns = escqrs_actor_system_next_due(system);
    if (due_ns == INT64_MAX) {
        return false;
    }
    escqrs_actor_system_advance(system, due_ns);
    return true;
}
