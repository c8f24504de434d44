/* What the files of this folder share of an entity. See entity.c for its design. */
#ifndef ESC_ENTITY_ENTITY_H
#define ESC_ENTITY_ENTITY_H

#include <escqrs/entity.h>

#include <stdatomic.h>

#include "base/list.h"
#include "base/map.h"
#include "base/thread.h"

struct escqrs_aggregate {
    escqrs_system *system;
    const escqrs_aggregate_ops *ops;
    void *context;
    escqrs_host *host;
    _Atomic int64_t snapshot_every; /* the policy, see escqrs_snapshot_policy */
    _Atomic int64_t snapshot_replay_ns;
    _Atomic int64_t snapshot_keep;
    _Atomic bool snapshot_on_passivation;
    _Atomic int64_t event_ns; /* an event of a replay, as measured last; 0: not yet */
    escqrs_aggregate *next;   /* in the system's list; fixed once there */
    esc_mutex lock;
    esc_map entities;      /* lock; by id */
    escqrs_actor sweeper;  /* unloads idle entities, attached to the host */
    escqrs_message sweep;  /* the sweeper's only message */
    _Atomic bool sweeping; /* it is on its way */
    size_t sweep_looks;    /* the sweeper's: entities it may still look at in vain */
    size_t name_size;
    char name[];
};

/* `in_flight` of an entity: a count of commits, and who wants to know when it is zero. */
#define ESC_FLIGHT_COUNT 0x3fffffffu
#define ESC_FLIGHT_RESUME 0x40000000u /* the actor is suspended until then */
#define ESC_FLIGHT_WAIT 0x80000000u   /* a thread sleeps on the word until then */

/* Why the state cannot be trusted: the first commit that failed since the state was loaded. */
typedef struct esc_failure {
    escqrs_error error;
} esc_failure;

/* "The running thread" is the one that runs the actor, in a turn or a visit. */
struct escqrs_entity {
    escqrs_actor actor;
    escqrs_aggregate *aggregate; /* fixed */

    /* the running thread's */
    void *state;              /* NULL: not loaded */
    int64_t version;          /* of `state`, with the events on their way to disk */
    uint64_t generation;      /* of the definition that made `state` */
    int64_t deletions;        /* of the store, when `state` was made or looked at last */
    int64_t snapshot_version; /* of the newest snapshot, as far as known; see snapshot.c */
    int64_t event_ns;         /* an event of its last replay took that long; 0: none was replayed */
    escqrs_command *held;     /* taken from the mailbox, waits until nothing is in flight */
    bool keyed;               /* a commit in flight bears a key */

    _Atomic bool snapshot_ordered; /* an order is under way */
    _Atomic bool used;             /* since the evictor last passed */
    /* Written by `done` before it lowers in_flight, or by the running thread; read and reset by the
     * running thread once in_flight (acquire) is zero. Other reads are hints. */
    _Atomic bool stale;
    escqrs_lane lane; /* the journal's while commits are in flight */
    _Atomic uint32_t in_flight;
    /* Handles, commands accepted, the state and the evictor hold one each. The last one is let go
     * under the aggregate's lock, because escqrs_entity_get may raise it from zero there. */
    _Atomic uint32_t references;
    esc_failure *failure; /* as `stale`; may be NULL though stale, when memory was short */
    esc_list_node live;   /* system->live_lock */
    uint16_t stream_size;
    uint16_t id_offset;
    char stream[]; /* NUL-terminated; the id is its end */
};

static inline escqrs_system *esc_entity_system(const escqrs_entity *entity)
{
    return entity->aggregate->system;
}

/* Commits in flight. The running thread alone raises it, so it trusts a zero. */
static inline uint32_t esc_entity_flights(const escqrs_entity *entity)
{
    /* acquire: pairs with esc_entity_landed, so that `stale` and `failure` are seen */
    return atomic_load_explicit(&entity->in_flight, memory_order_acquire) & ESC_FLIGHT_COUNT;
}

static inline bool esc_entity_is_stale(const escqrs_entity *entity)
{
    /* relaxed: what it guards is read only once in_flight, which orders it, is zero */
    return atomic_load_explicit(&entity->stale, memory_order_relaxed);
}

/* ---- entity.c ------------------------------------------------------------------------------- */

escqrs_slice esc_entity_key(const void *entity); /* for the map */

void esc_entity_took_off(
    escqrs_entity *entity); /* the running thread: a commit is about to be submitted */
/* Any thread that holds a reference: it is answered. The last one wakes who waits for it. */
void esc_entity_landed(escqrs_entity *entity);
/* Keep `command` until nothing is in flight: true, and the turn ends with SUSPEND; false: nothing
 * is. */
bool esc_entity_suspend(escqrs_entity *entity, escqrs_command *command);
/* The running thread, detached: wait until nothing is in flight. Blocks. */
void esc_entity_wait_landed(escqrs_entity *entity);
/* A commit failed: remember why, if it is the first. Called by `done`, in the lane's order. */
void esc_entity_fail(escqrs_entity *entity, escqrs_status status, const escqrs_error *error);
/* Fill `error` with what the first failure means for a command that was built on it. */
escqrs_status esc_entity_explain(const escqrs_entity *entity, escqrs_error *error);
/* Nothing is in flight: forget failure, lane and state. Attached. */
void esc_entity_reset(escqrs_entity *entity);

/* ---- replay.c ------------------------------------------------------------------------------- */

/* Make the state from what is stored. Attached before and after; detached while it reads. */
escqrs_status esc_entity_load(escqrs_entity *entity, escqrs_error *error) ESCQRS_MUST_USE;
/* Destroy the state, if any. Attached. The caller holds a reference. */
void esc_entity_unload(escqrs_entity *entity);

/* ---- turn.c --------------------------------------------------------------------------------- */

extern const escqrs_actor_ops esc_entity_actor_ops;

/* Hand an accepted and counted command to the mailbox, or answer it CLOSED when it is too late. */
void esc_command_deliver(escqrs_command *command);
/* Answer CLOSED what its mailbox holds. The thread that runs it, or any once the runtime has
 * stopped. */
void esc_entity_drop(escqrs_entity *entity);
/* Answer a counted command and uncount it. The command's reference to the entity is the caller's
 * then. */
void esc_command_answer(escqrs_command *command, escqrs_status status, const escqrs_error *error);
/* The same, and let go of its entity. */
void esc_command_complete(escqrs_command *command, escqrs_status status, const escqrs_error *error);
/* A command that a handler sends: it inherits what the one being handled passes on. */
void esc_command_inherit(escqrs_command *command, escqrs_command *parent);
/* Send the commands linked by sent_next. */
void esc_outbox_deliver(escqrs_command *first, uint8_t epoch);
void esc_outbox_drop(escqrs_command *first);

#endif
