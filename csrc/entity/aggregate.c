/* Aggregates: a definition within a system, with the map of its entities (entity.c keeps it) and
 * its sweeper.
 *
 * The sweeper is an actor on the aggregate's host, so that states can be destroyed attached when no
 * turn is about to do it. It has one message, which it sends to itself again while it finds
 * something to unload and the list of live entities is too long. It lives in the aggregate and is
 * never freed by the runtime.
 *
 * Aggregates are never taken out: entities point at them. They are freed with the system's struct.
 */
#include "entity/aggregate.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "entity/system.h"

#define NAME_MAX_SIZE 255

/* ---- sweeper -------------------------------------------------------------------------------- */

static escqrs_turn_end sweeper_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    escqrs_aggregate *aggregate = ESC_CONTAINER_OF(actor, escqrs_aggregate, sweeper);
    escqrs_system *system = aggregate->system;
    if (aggregate->sweep_looks == 0) { /* each twice: the first passing clears the marks */
        aggregate->sweep_looks = 2 * escqrs_system_live(system);
    }
    size_t evicted = esc_live_evict(system, aggregate->host);
    size_t looks = evicted > 0 ? 0 : ESC_LIVE_LOOK_MAX;
    bool again = esc_live_is_over(system) && aggregate->sweep_looks > looks;
    aggregate->sweep_looks = again ? aggregate->sweep_looks - looks : 0;
    if (again) {
        escqrs_actor_send(actor, &aggregate->sweep);
    } else {
        /* release: pairs with the exchange in esc_aggregate_sweep, which may send the message anew
         */
        atomic_store_explicit(&aggregate->sweeping, false, memory_order_release);
    }
    return ESCQRS_TURN_NEXT;
}

static void sweeper_destroy(escqrs_actor *actor)
{
    (void)actor; /* part of the aggregate, which goes with the system */
}

static void sweeper_describe(const escqrs_actor *actor, char *text, size_t size)
{
    const escqrs_aggregate *aggregate = ESC_CONTAINER_OF(actor, escqrs_aggregate, sweeper);
    snprintf(text, size, "%s (unloading)", aggregate->name);
}

static const escqrs_actor_ops sweeper_ops = {sweeper_receive, sweeper_destroy, sweeper_describe};

void esc_aggregate_sweep(escqrs_aggregate *aggregate)
{
    /* acquire: pairs with the release in sweeper_receive */
    if (!atomic_exchange_explicit(&aggregate->sweeping, true, memory_order_acquire)) {
        escqrs_actor_send(&aggregate->sweeper, &aggregate->sweep);
    }
}

/* ---- definition ----------------------------------------------------------------------------- */

static escqrs_status check_name(escqrs_slice name, escqrs_error *error)
{
    if (name.size == 0 || name.size > NAME_MAX_SIZE) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "an aggregate's name has 1 to %d bytes, not %zu", NAME_MAX_SIZE,
                                name.size);
    }
    if (memchr(name.data, '\0', name.size) != NULL || memchr(name.data, '/', name.size) != NULL ||
        !esc_utf8_valid(name)) {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "an aggregate's name must be valid UTF-8 without NUL and without '/'");
    }
    return ESCQRS_OK;
}

static escqrs_aggregate *find_aggregate(escqrs_aggregate *first, escqrs_slice name)
{
    for (escqrs_aggregate *other = first; other != NULL; other = other->next) {
        if (escqrs_slice_equal((escqrs_slice){other->name, other->name_size}, name)) {
            return other;
        }
    }
    return NULL;
}

static escqrs_aggregate *aggregate_create(escqrs_system *system, escqrs_slice name)
{
    escqrs_aggregate *aggregate = escqrs_alloc_zero(sizeof *aggregate + name.size + 1);
    if (aggregate != NULL) {
        aggregate->system = system;
        aggregate->name_size = name.size;
        memcpy(aggregate->name, name.data, name.size);
        esc_mutex_init(&aggregate->lock);
        esc_map_init(&aggregate->entities, esc_entity_key, &system->random);
    }
    return aggregate;
}

static escqrs_status check_definition(const escqrs_aggregate_ops *ops,
                                      const escqrs_snapshot_policy *snapshots, escqrs_error *error)
{
    const char *absent = ops->create == NULL    ? "create"
                         : ops->destroy == NULL ? "destroy"
                         : ops->decode == NULL  ? "decode"
                         : ops->discard == NULL ? "discard"
                         : ops->apply == NULL   ? "apply"
                         : ops->handle == NULL  ? "handle"
                                                : NULL;
    if (absent != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "an aggregate needs a function `%s`",
                                absent);
    }
    if ((ops->pack == NULL) != (ops->unpack == NULL)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "an aggregate has both of `pack` and `unpack`, or neither");
    }
    if (snapshots != NULL &&
        (snapshots->every < 0 || snapshots->replay_ns < 0 || snapshots->keep < 0)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "the numbers of a snapshot policy are 0 or more");
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_aggregate_add(escqrs_system *system, escqrs_slice name,
                                   const escqrs_aggregate_ops *ops, void *context,
                                   escqrs_host *host, const escqrs_snapshot_policy *snapshots,
                                   escqrs_aggregate **aggregate, escqrs_error *error)
{
    *aggregate = NULL;
    escqrs_status status = esc_system_check(system, error);
    if (status == ESCQRS_OK) {
        status = check_name(name, error);
    }
    if (status == ESCQRS_OK) {
        status = check_definition(ops, snapshots, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_aggregate *added = aggregate_create(system, name);
    if (added == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for an aggregate");
    }
    added->ops = ops;
    added->context = context;
    added->host = host;
    escqrs_actor_init(&added->sweeper, system->runtime, host, &sweeper_ops);
    escqrs_aggregate_set_snapshots(added, snapshots);
    esc_mutex_lock(&system->aggregates_lock);
    bool clash = find_aggregate(system->aggregates, name) != NULL;
    if (!clash) {
        added->next = system->aggregates;
        system->aggregates = added;
    }
    esc_mutex_unlock(&system->aggregates_lock);
    if (clash) {
        esc_aggregate_destroy(added);
        return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                "the system has an aggregate %.*s already", (int)name.size,
                                (const char *)name.data);
    }
    *aggregate = added;
    return ESCQRS_OK;
}

void esc_aggregate_destroy(escqrs_aggregate *aggregate)
{
    ESC_ASSERT(esc_map_count(&aggregate->entities) == 0);
    esc_map_fini(&aggregate->entities);
    esc_mutex_fini(&aggregate->lock);
    escqrs_free(aggregate);
}

void escqrs_aggregate_set_snapshots(escqrs_aggregate *aggregate,
                                    const escqrs_snapshot_policy *policy)
{
    static const escqrs_snapshot_policy none;
    policy = policy != NULL ? policy : &none;
    /* relaxed: settings, nothing hangs on when they are seen */
    atomic_store_explicit(&aggregate->snapshot_every, policy->every, memory_order_relaxed);
    atomic_store_explicit(&aggregate->snapshot_replay_ns, policy->replay_ns, memory_order_relaxed);
    atomic_store_explicit(&aggregate->snapshot_keep, policy->keep, memory_order_relaxed);
    atomic_store_explicit(&aggregate->snapshot_on_passivation, policy->on_passivation,
                          memory_order_relaxed);
}

bool esc_aggregate_each(escqrs_aggregate *aggregate,
                        void (*visit)(escqrs_entity *entity, void *context), void *context)
{
    esc_mutex_lock(&aggregate->lock);
    size_t count = esc_map_count(&aggregate->entities);
    escqrs_entity **entities = escqrs_alloc_array(count > 0 ? count : 1, sizeof(void *));
    size_t cursor = 0;
    for (size_t i = 0; entities != NULL && i < count; i++) {
        entities[i] = esc_map_next(&aggregate->entities, &cursor);
        /* relaxed: raising it, perhaps from zero, is guarded by the lock, as in escqrs_entity_get
         */
        atomic_fetch_add_explicit(&entities[i]->references, 1, memory_order_relaxed);
    }
    esc_mutex_unlock(&aggregate->lock);
    for (size_t i = 0; entities != NULL && i < count; i++) {
        visit(entities[i], context);
        escqrs_entity_release(entities[i]);
    }
    escqrs_free(entities);
    return entities != NULL;
}
