/* Systems: entities, a runtime and a store, from the first command to the last answer.
 *
 * Phases. OPEN; CLOSING: accepts nothing from outside, but what handlers send; DROPPING: the
 * deadline has passed, turns answer CLOSED instead of handling; CLOSED: the runtime has no threads,
 * nobody touches runtime or store. Who accepts counts first and looks at the phase afterwards,
 * close sets the phase first and looks at the count afterwards: so nothing slips in unseen.
 *
 * Close waits until nothing is in flight; at the deadline it drops: workers answer what is queued,
 * for as long as it gets less, the runtime stops, and what is left in mailboxes then is answered
 * here. A handler that does not come back keeps its own command and those behind it: they are
 * answered when it ends, and until then close says TIMEOUT and nothing is freed.
 *
 * Lifetime. The struct is held by its owner and by every entity, so that handles may outlive it.
 *
 * Threads of the journal answer commands, workers handle them, callers ask: everything they share
 * is in the entity (entity.h), in the counts (drain.c) and in the list of live entities (live.c).
 *
 * Lock order: close_lock, then nothing or one of: aggregates_lock, an aggregate's lock, live_lock,
 * drain_lock, the record pool's lock (all leaves). No callback is made under a lock other than
 * close_lock. */
#include "entity/system.h"

#include "base/assert.h"
#include "base/error.h"
#include "base/vector.h"
#include "entity/aggregate.h"
#include "entity/snapshot.h"

#define IN_FLIGHT_DEFAULT 100000
#define IN_FLIGHT_LIMIT ((size_t)1 << 30)
#define LIVE_DEFAULT 100000
#define CLOSE_GRACE_NS                                                                             \
    INT64_C(200000000)                  /* for threads that end, though the deadline has passed    \
                                         */
#define CLOSE_STEP_NS INT64_C(20000000) /* within which what is dropped gets less */
#define CLOSE_STEPS_MAX 10

/* ---- create --------------------------------------------------------------------------------- */

static size_t or_default(size_t value, size_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static void copy_options(escqrs_system *system, const escqrs_system_options *options)
{
    system->in_flight_max = or_default(options->in_flight_max, IN_FLIGHT_DEFAULT);
    if (system->in_flight_max > IN_FLIGHT_LIMIT) {
        system->in_flight_max = IN_FLIGHT_LIMIT;
    }
    system->room_mark = system->in_flight_max - 1 - system->in_flight_max / 8;
    system->live_max = or_default(options->live_max, LIVE_DEFAULT);
    system->manual = options->manual;
    system->clock = options->clock;
    system->random = options->random;
    system->log = options->log;
}

static escqrs_status create_runtime(escqrs_system *system, const escqrs_system_options *options,
                                    escqrs_error *error)
{
    escqrs_runtime_options runtime = options->runtime;
    runtime.manual = options->manual;
    if (runtime.random.fill == NULL) {
        runtime.random = options->random;
    }
    if (runtime.clock.now_us == NULL && runtime.clock.monotonic_ns == NULL) {
        runtime.clock = options->clock;
    }
    if (runtime.log.function == NULL) {
        runtime.log = options->log;
    }
    return escqrs_runtime_create(&runtime, &system->runtime, error);
}

escqrs_status escqrs_system_create(escqrs_store *store, const escqrs_system_options *options,
                                   escqrs_system **system, escqrs_error *error)
{
    static const escqrs_system_options defaults;
    options = options != NULL ? options : &defaults;
    *system = NULL;
    escqrs_system *created = escqrs_alloc_zero(sizeof *created);
    if (created == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a system");
    }
    copy_options(created, options);
    created->store = store;
    created->fork_generation = escqrs_fork_generation();
    atomic_init(&created->references, 1);
    escqrs_status status = create_runtime(created, options, error);
    if (status != ESCQRS_OK) {
        escqrs_free(created);
        return status;
    }
    esc_mutex_init(&created->drain_lock);
    esc_mutex_init(&created->live_lock);
    esc_list_init(&created->live);
    esc_mutex_init(&created->aggregates_lock);
    esc_mutex_init(&created->close_lock);
    esc_record_pool_init(&created->records);
    *system = created;
    return ESCQRS_OK;
}

/* ---- lifetime ------------------------------------------------------------------------------- */

void esc_system_hold(escqrs_system *system)
{
    /* relaxed: the caller has a reference, its own or that of an aggregate's owner */
    atomic_fetch_add_explicit(&system->references, 1, memory_order_relaxed);
}

void esc_system_release(escqrs_system *system)
{
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&system->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    while (system->aggregates != NULL) {
        escqrs_aggregate *aggregate = system->aggregates;
        system->aggregates = aggregate->next;
        esc_aggregate_destroy(aggregate);
    }
    esc_record_pool_fini(&system->records);
    esc_mutex_fini(&system->close_lock);
    esc_mutex_fini(&system->aggregates_lock);
    esc_mutex_fini(&system->live_lock);
    esc_mutex_fini(&system->drain_lock);
    escqrs_free(system);
}

escqrs_status esc_system_check(const escqrs_system *system, escqrs_error *error)
{
    if (system->fork_generation != escqrs_fork_generation()) {
        return escqrs_error_set(
            error, ESCQRS_FORKED,
            "the system belongs to the parent process; open the store again in this one");
    }
    return ESCQRS_OK;
}

escqrs_runtime *escqrs_system_runtime(escqrs_system *system)
{
    return system->runtime;
}

escqrs_store *escqrs_system_store(escqrs_system *system)
{
    return system->store;
}

/* ---- manual --------------------------------------------------------------------------------- */

bool escqrs_system_step(escqrs_system *system)
{
    uint8_t choice = 1;
    if (system->random.fill != NULL) {
        escqrs_random_fill(&system->random, &choice, sizeof choice);
    }
    if ((choice & 1) != 0) {
        return escqrs_runtime_step(system->runtime) || escqrs_store_pump(system->store) > 0;
    }
    return escqrs_store_pump(system->store) > 0 || escqrs_runtime_step(system->runtime);
}

/* ---- close ---------------------------------------------------------------------------------- */

static void set_phase(escqrs_system *system, esc_system_phase phase)
{
    if (esc_system_phase_now(system) < (uint32_t)phase) {
        /* seq_cst: pairs with the load in esc_system_accept */
        atomic_store_explicit(&system->phase, (uint32_t)phase, memory_order_seq_cst);
    }
}

/* Call `visit` for each entity that exists, without a lock. False when out of memory. */
static bool each_entity(escqrs_system *system, void (*visit)(escqrs_entity *entity, void *context),
                        void *context)
{
    esc_mutex_lock(&system->aggregates_lock);
    escqrs_aggregate *aggregate = system->aggregates;
    esc_mutex_unlock(&system->aggregates_lock);
    bool complete = true;
    for (; aggregate != NULL; aggregate = aggregate->next) {
        complete = esc_aggregate_each(aggregate, visit, context) && complete;
    }
    return complete;
}

static void drop_visit(escqrs_entity *entity, void *context)
{
    (void)context;
    esc_entity_drop(entity);
}

static void name_busy_visit(escqrs_entity *entity, void *context)
{
    escqrs_error *error = context;
    if (error->subject[0] == '\0' && !escqrs_actor_is_idle(&entity->actor)) {
        esc_error_subject(error, escqrs_entity_stream(entity));
    }
}

static escqrs_status busy_error(escqrs_system *system, escqrs_error *error)
{
    escqrs_error busy = {0};
    each_entity(system, name_busy_visit, &busy);
    escqrs_status status = escqrs_error_set(
        error, ESCQRS_TIMEOUT, "%s has not come back from a command; the system is not closed yet",
        busy.subject[0] != '\0' ? busy.subject : "an entity");
    esc_error_subject(error, escqrs_slice_of(busy.subject));
    return status;
}

/* The deadline has passed: true when nothing is in flight any more; false when it does not get
 * less. */
static bool wait_while_falling(escqrs_system *system)
{
    size_t before = escqrs_system_in_flight(system);
    for (int i = 0; i < CLOSE_STEPS_MAX; i++) {
        if (esc_system_wait_idle(system, esc_deadline_after(CLOSE_STEP_NS))) {
            return true;
        }
        size_t now = escqrs_system_in_flight(system);
        if (now >= before) {
            break;
        }
        before = now;
    }
    return false;
}

/* Nothing new comes in. Answer or drop what is there, and stop the threads. */
static escqrs_status close_locked(escqrs_system *system, int64_t deadline_ns, escqrs_error *error)
{
    bool idle = esc_system_wait_idle(system, deadline_ns);
    if (idle) {
        esc_snapshot_order_all(system);
        idle = esc_system_wait_idle(system, deadline_ns);
    }
    if (!idle) {
        set_phase(system, ESC_SYSTEM_DROPPING);
        idle = wait_while_falling(system);
    }
    /* what is left is a handler that does not come back, or a commit: other threads end at once */
    int64_t grace_ns = esc_deadline_after(idle ? CLOSE_GRACE_NS : CLOSE_STEP_NS);
    escqrs_status status = escqrs_runtime_stop(
        system->runtime, deadline_ns > grace_ns ? deadline_ns : grace_ns, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    /* seq_cst: pairs with the addition in escqrs_entity_ask; an ask that comes later sees the phase
     */
    if (!idle && atomic_load_explicit(&system->asks, memory_order_seq_cst) == 0) {
        each_entity(system, drop_visit, NULL);
        idle = esc_system_wait_idle(system,
                                    esc_deadline_after(CLOSE_GRACE_NS)); /* commits under way */
    }
    if (!idle) {
        return busy_error(system, error);
    }
    set_phase(system, ESC_SYSTEM_CLOSED);
    system->stopped = true;
    return ESCQRS_OK;
}

escqrs_actor *esc_system_actor_here(const escqrs_system *system)
{
    escqrs_actor *actor = escqrs_actor_current();
    return actor != NULL && escqrs_actor_runtime(actor) == system->runtime ? actor : NULL;
}

escqrs_status escqrs_system_close(escqrs_system *system, int64_t deadline_ns, escqrs_error *error)
{
    escqrs_status status = esc_system_check(system, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (esc_system_actor_here(system) != NULL) {
        return escqrs_error_set(error, ESCQRS_DEADLOCK,
                                "a handler cannot close the system that waits for it to end");
    }
    set_phase(system, ESC_SYSTEM_CLOSING);
    esc_system_wake_room(system); /* senders that wait for room need not */
    esc_mutex_lock(&system->close_lock);
    if (!system->stopped) {
        status = close_locked(system, deadline_ns, error);
    }
    esc_mutex_unlock(&system->close_lock);
    return status;
}

void escqrs_system_destroy(escqrs_system *system)
{
    if (system == NULL || system->fork_generation != escqrs_fork_generation() || !system->stopped) {
        return;
    }
    esc_live_clear(system);
    escqrs_runtime_destroy(system->runtime);
    esc_system_release(system);
}
