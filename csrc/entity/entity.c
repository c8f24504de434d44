/* Entities: the registry, their references, and the count of their commits in flight.
 *
 * An entity is found by its id in its aggregate's map. It is held by handles, by each accepted
 * command, and by its own loaded state; when none is left it leaves the map and is freed. Letting
 * go of the last reference happens under the aggregate's lock, because escqrs_entity_get may find
 * the entity there and raise the count from zero. The runtime counts references of its own (of the
 * actor); ours together are one of them.
 *
 * Entities keep the system's struct alive, so a handle may outlive escqrs_system_destroy and finds
 * it closed.
 *
 * in_flight: the running thread raises it, `done` lowers it. Whoever needs it to be zero leaves a
 * bit in the same word, and the commit that takes the count to zero clears the bits in the same
 * step and acts on them.
 *
 * Lock order: an aggregate's lock is a leaf. */
#include "entity/entity.h"

#include <limits.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/utf8.h"
#include "entity/system.h"

escqrs_slice esc_entity_key(const void *value)
{
    return escqrs_entity_id(value);
}

escqrs_slice escqrs_entity_stream(const escqrs_entity *entity)
{
    return (escqrs_slice){entity->stream, entity->stream_size};
}

escqrs_slice escqrs_entity_id(const escqrs_entity *entity)
{
    return (escqrs_slice){entity->stream + entity->id_offset,
                          (size_t)(entity->stream_size - entity->id_offset)};
}

escqrs_aggregate *escqrs_entity_aggregate(const escqrs_entity *entity)
{
    return entity->aggregate;
}

escqrs_actor *escqrs_entity_actor(escqrs_entity *entity)
{
    return &entity->actor;
}

int64_t escqrs_entity_version(const escqrs_entity *entity)
{
    return entity->version;
}

/* ---- registry ------------------------------------------------------------------------------- */

static escqrs_status check_id(const escqrs_aggregate *aggregate, escqrs_slice id,
                              escqrs_error *error)
{
    if (id.size == 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "an id of %s may not be empty",
                                aggregate->name);
    }
    if (id.size > ESCQRS_ENTITY_ID_MAX) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "an id of %s has %zu bytes; at most %d are possible",
                                aggregate->name, id.size, ESCQRS_ENTITY_ID_MAX);
    }
    if (memchr(id.data, '\0', id.size) != NULL || !esc_utf8_valid(id)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "an id of %s must be valid UTF-8 without NUL", aggregate->name);
    }
    return ESCQRS_OK;
}

/* With one reference for the caller; not in the map yet. */
static escqrs_entity *entity_create(escqrs_aggregate *aggregate, escqrs_slice id)
{
    size_t stream_size = aggregate->name_size + 1 + id.size;
    escqrs_entity *entity = escqrs_alloc_zero(sizeof *entity + stream_size + 1);
    if (entity == NULL) {
        return NULL;
    }
    entity->aggregate = aggregate;
    atomic_init(&entity->references, 1);
    entity->stream_size = (uint16_t)stream_size;
    entity->id_offset = (uint16_t)(aggregate->name_size + 1);
    memcpy(entity->stream, aggregate->name, aggregate->name_size);
    entity->stream[aggregate->name_size] = '/';
    memcpy(entity->stream + entity->id_offset, id.data, id.size);
    return entity;
}

escqrs_status escqrs_entity_get(escqrs_aggregate *aggregate, escqrs_slice id,
                                escqrs_entity **entity, escqrs_error *error)
{
    *entity = NULL;
    escqrs_status status = esc_system_check(aggregate->system, error);
    if (status == ESCQRS_OK) {
        status = check_id(aggregate, id, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    esc_mutex_lock(&aggregate->lock);
    escqrs_entity *found = esc_map_get(&aggregate->entities, id);
    if (found != NULL) {
        /* relaxed: raising it, perhaps from zero, is guarded by the lock */
        atomic_fetch_add_explicit(&found->references, 1, memory_order_relaxed);
    } else {
        found = entity_create(aggregate, id);
        if (found != NULL && esc_map_insert(&aggregate->entities, found) != ESCQRS_OK) {
            escqrs_free(found);
            found = NULL;
        }
        if (found != NULL) {
            escqrs_actor_init(&found->actor, aggregate->system->runtime, aggregate->host,
                              &esc_entity_actor_ops);
            esc_system_hold(aggregate->system);
        }
    }
    esc_mutex_unlock(&aggregate->lock);
    if (found == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for an entity");
    }
    *entity = found;
    return ESCQRS_OK;
}

void escqrs_entity_hold(escqrs_entity *entity)
{
    /* relaxed: the caller has a reference, so it is not zero and nobody acts on it */
    uint32_t before = atomic_fetch_add_explicit(&entity->references, 1, memory_order_relaxed);
    ESC_ASSERT(before > 0);
}

void escqrs_entity_release(escqrs_entity *entity)
{
    if (entity == NULL) {
        return;
    }
    escqrs_aggregate *aggregate = entity->aggregate;
    if (aggregate->system->fork_generation != escqrs_fork_generation()) {
        return;
    }
    uint32_t references = atomic_load_explicit(&entity->references, memory_order_relaxed);
    while (references > 1) {
        /* release: pairs with the acquire of the last one, below */
        if (atomic_compare_exchange_weak_explicit(&entity->references, &references, references - 1,
                                                  memory_order_release, memory_order_relaxed)) {
            return;
        }
    }
    esc_mutex_lock(&aggregate->lock);
    bool last = atomic_fetch_sub_explicit(&entity->references, 1, memory_order_acq_rel) == 1;
    if (last) {
        esc_map_remove(&aggregate->entities, escqrs_entity_id(entity));
    }
    esc_mutex_unlock(&aggregate->lock);
    if (last) {
        escqrs_actor_release(&entity->actor);
    }
}

/* ---- commits in flight ---------------------------------------------------------------------- */

void esc_entity_took_off(escqrs_entity *entity)
{
    /* relaxed: the submission that follows orders it */
    uint32_t before = atomic_fetch_add_explicit(&entity->in_flight, 1, memory_order_relaxed);
    ESC_ASSERT((before & ESC_FLIGHT_COUNT) < ESC_FLIGHT_COUNT);
}

void esc_entity_landed(escqrs_entity *entity)
{
    uint32_t before = atomic_load_explicit(&entity->in_flight, memory_order_relaxed);
    uint32_t after;
    do {
        ESC_ASSERT((before & ESC_FLIGHT_COUNT) > 0);
        after = (before & ESC_FLIGHT_COUNT) == 1 ? 0 : before - 1; /* at zero the bits go as well */
        /* acq_rel: the release pairs with esc_entity_flights; the acquire with earlier landings, of
         * which this one is the last to speak for all */
    } while (!atomic_compare_exchange_weak_explicit(&entity->in_flight, &before, after,
                                                    memory_order_acq_rel, memory_order_relaxed));
    if (after == 0 && (before & ESC_FLIGHT_RESUME) != 0) {
        escqrs_actor_resume(&entity->actor);
    }
    if (after == 0 && (before & ESC_FLIGHT_WAIT) != 0) {
        esc_futex_wake(&entity->in_flight, INT_MAX);
    }
}

/* Set a bit while something is in flight; false when nothing is. *word is the word then. */
static bool flight_mark(escqrs_entity *entity, uint32_t bit, uint32_t *word)
{
    /* acquire: as esc_entity_flights */
    uint32_t before = atomic_load_explicit(&entity->in_flight, memory_order_acquire);
    while ((before & ESC_FLIGHT_COUNT) > 0) {
        *word = before | bit;
        /* release: pairs with esc_entity_landed, which then resumes an actor whose `held` is set */
        if (atomic_compare_exchange_weak_explicit(&entity->in_flight, &before, *word,
                                                  memory_order_release, memory_order_acquire)) {
            return true;
        }
    }
    return false;
}

bool esc_entity_suspend(escqrs_entity *entity, escqrs_command *command)
{
    uint32_t word;
    entity->held = command;
    if (flight_mark(entity, ESC_FLIGHT_RESUME, &word)) {
        return true;
    }
    entity->held = NULL;
    return false;
}

void esc_entity_wait_landed(escqrs_entity *entity)
{
    escqrs_system *system = esc_entity_system(entity);
    uint32_t word;
    while (esc_entity_flights(entity) > 0) {
        if (system->manual) {
            size_t finished = escqrs_store_pump(system->store);
            ESC_ASSERT(finished > 0);
        } else if (flight_mark(entity, ESC_FLIGHT_WAIT, &word)) {
            esc_futex_wait(&entity->in_flight, word, ESC_DEADLINE_NEVER);
        }
    }
}

/* ---- a state that is not what is stored ----------------------------------------------------- */

void esc_entity_fail(escqrs_entity *entity, escqrs_status status, const escqrs_error *error)
{
    if (entity->failure == NULL && status != ESCQRS_ABORTED) {
        entity->failure = escqrs_alloc(sizeof *entity->failure);
        if (entity->failure != NULL) {
            entity->failure->error = *error;
        }
    }
    /* relaxed: lowering in_flight, which follows, releases it */
    atomic_store_explicit(&entity->stale, true, memory_order_relaxed);
}

escqrs_status esc_entity_explain(const escqrs_entity *entity, escqrs_error *error)
{
    if (entity->failure == NULL) {
        return escqrs_error_set(error, ESCQRS_ABORTED,
                                "an earlier command of this entity could not be stored");
    }
    if (error != NULL) {
        *error = entity->failure->error;
        esc_error_prefix(error, "an earlier command of this entity could not be stored: ");
    }
    return entity->failure->error.status;
}

void esc_entity_reset(escqrs_entity *entity)
{
    ESC_ASSERT(esc_entity_flights(entity) == 0);
    esc_entity_unload(entity);
    escqrs_free(entity->failure);
    entity->failure = NULL;
    entity->lane = (escqrs_lane){0};
    entity->keyed = false;
    atomic_store_explicit(&entity->stale, false,
                          memory_order_relaxed); /* the running thread's now */
}
