/* Which entities have a state in memory, and which of them go when there are too many.
 *
 * A clock: the list is passed from its front; an entity that was used since the last passing goes
 * to the end with its mark cleared, another one is unloaded if it is idle. A loaded entity begins
 * unmarked, so states that are used once leave in the order they came. Each call looks at a bounded
 * number of entities. Nobody's state is taken from a running actor: the evictor must come to own it
 * (escqrs_actor_visit).
 *
 * A state must be destroyed attached to its host, so turns do the work at their end. When a burst
 * ends and the last turns found every entity busy, the list would stay too long until the next
 * turn; so the last `done` of a burst starts the aggregate's sweeper (aggregate.c).
 *
 * Lock order: live_lock is a leaf; states are destroyed outside of it. */
#include "entity/entity.h"
#include "entity/snapshot.h"
#include "entity/system.h"

#define EVICT_MAX 4 /* entities unloaded by one call */

size_t escqrs_system_live(escqrs_system *system)
{
    return atomic_load_explicit(&system->live_count, memory_order_relaxed); /* a count for people */
}

void esc_live_add(escqrs_system *system, escqrs_entity *entity)
{
    esc_mutex_lock(&system->live_lock);
    esc_list_push_back(&system->live, &entity->live);
    esc_mutex_unlock(&system->live_lock);
    atomic_fetch_add_explicit(&system->live_count, 1,
                              memory_order_relaxed); /* a hint, as all its uses */
}

void esc_live_remove(escqrs_system *system, escqrs_entity *entity)
{
    esc_mutex_lock(&system->live_lock);
    esc_list_remove(&entity->live);
    esc_mutex_unlock(&system->live_lock);
    atomic_fetch_sub_explicit(&system->live_count, 1, memory_order_relaxed);
}

static void unload_visit(escqrs_actor *actor, void *context)
{
    escqrs_entity *entity = ESC_CONTAINER_OF(actor, escqrs_entity, actor);
    bool *unloaded = context;
    if (entity->state != NULL && entity->held == NULL && esc_entity_flights(entity) == 0) {
        esc_snapshot_leave(entity);
        esc_entity_unload(entity);
        *unloaded = true;
    }
}

/* The next candidate, with a reference, or NULL. Passes over marked ones; counts down *looks. */
static escqrs_entity *live_next(escqrs_system *system, unsigned *looks)
{
    escqrs_entity *candidate = NULL;
    esc_mutex_lock(&system->live_lock);
    while (candidate == NULL && *looks > 0) {
        esc_list_node *node = esc_list_pop_front(&system->live);
        if (node == NULL) {
            break;
        }
        (*looks)--;
        esc_list_push_back(&system->live, node);
        escqrs_entity *entity = ESC_CONTAINER_OF(node, escqrs_entity, live);
        /* relaxed: a hint */
        if (!atomic_exchange_explicit(&entity->used, false, memory_order_relaxed)) {
            escqrs_entity_hold(entity); /* its state's reference is there while it is in the list */
            candidate = entity;
        }
    }
    esc_mutex_unlock(&system->live_lock);
    return candidate;
}

size_t esc_live_evict(escqrs_system *system, escqrs_host *host)
{
    unsigned looks = ESC_LIVE_LOOK_MAX;
    size_t evicted = 0;
    while (evicted < EVICT_MAX && esc_live_is_over(system)) {
        escqrs_entity *entity = live_next(system, &looks);
        if (entity == NULL) {
            break;
        }
        bool unloaded = false;
        if (entity->aggregate->host == host) {
            escqrs_actor_visit(&entity->actor, unload_visit, &unloaded);
        }
        evicted += unloaded;
        escqrs_entity_release(entity);
    }
    return evicted;
}

/* No thread runs an actor any more, so it need not be owned: one that was still queued when the
 * runtime stopped never comes to rest. */
void esc_live_clear(escqrs_system *system)
{
    for (;;) {
        esc_mutex_lock(&system->live_lock);
        esc_list_node *node = esc_list_first(&system->live);
        escqrs_entity *entity = node == NULL ? NULL : ESC_CONTAINER_OF(node, escqrs_entity, live);
        if (entity != NULL) {
            escqrs_entity_hold(entity); /* its state's reference is there while it is in the list */
        }
        esc_mutex_unlock(&system->live_lock);
        if (entity == NULL) {
            return;
        }
        esc_entity_unload(entity);
        escqrs_entity_release(entity);
    }
}
