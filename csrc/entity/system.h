/* What the files of this folder share of a system. See system.c for its design and lock order. */
#ifndef ESC_ENTITY_SYSTEM_H
#define ESC_ENTITY_SYSTEM_H

#include <escqrs/entity.h>

#include <stdatomic.h>

#include "base/list.h"
#include "base/thread.h"
#include "entity/record.h"

typedef enum esc_system_phase {
    ESC_SYSTEM_OPEN = 0,
    ESC_SYSTEM_CLOSING = 1, /* nothing new from outside; what turns send is still accepted */
    ESC_SYSTEM_DROPPING =
        2, /* the deadline passed: whatever is not being handled is answered CLOSED */
    ESC_SYSTEM_CLOSED = 3, /* runtime and store are not touched any more */
} esc_system_phase;

typedef enum esc_drain_phase {
    ESC_DRAIN_IDLE = 0,
    ESC_DRAIN_BEFORE_FLIP =
        1, /* waits for stragglers in the bucket that is about to become current */
    ESC_DRAIN_AFTER_FLIP = 2, /* waits for the bucket that was current */
} esc_drain_phase;

/* The padding keeps the counts, which every command changes, on a cache line of their own.
 * NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct escqrs_system {
    /* fixed after creation */
    escqrs_store *store;
    escqrs_runtime *runtime;
    size_t in_flight_max;
    size_t
        room_mark; /* senders that wait for room are woken when no more are in flight than this */
    size_t live_max;
    bool manual;
    escqrs_clock clock;
    escqrs_random random;
    escqrs_log log;
    unsigned fork_generation;

    _Atomic uint32_t references; /* one of the owner, one of each entity that exists */
    _Atomic uint32_t phase;      /* esc_system_phase; only grows */
    _Atomic uint32_t
        asks; /* calls of escqrs_entity_ask under way, which run actors on threads of callers */

    /* commands in flight, by epoch; see drain.c */
    char apart[64]; /* from what seldom changes, whatever the allocator's alignment */
    _Atomic uint32_t buckets[2];
    _Atomic uint32_t epoch;        /* 0 or 1: the bucket of commands from outside */
    _Atomic uint32_t idle_waiters; /* threads that wait for a bucket to become empty */
    _Atomic uint32_t idle_wakes;   /* futex: grows when a bucket became empty */
    _Atomic uint32_t room_waiters;
    _Atomic uint32_t room_wakes; /* futex: grows when there is room again */

    char apart_too[64];
    esc_mutex drain_lock;
    uint64_t drain_completed;    /* drain_lock; periods that are over */
    uint64_t drain_wanted;       /* drain_lock; the last period somebody waits for */
    esc_drain_phase drain_phase; /* drain_lock */

    esc_mutex live_lock;
    esc_list live; /* live_lock; entities with a state, the one to evict next first */
    _Atomic size_t live_count;

    esc_mutex aggregates_lock;
    escqrs_aggregate *aggregates; /* aggregates_lock; only grows, so a walk may go on without it */

    esc_mutex close_lock; /* held by the thread that closes; before all other locks */
    bool stopped;         /* close_lock; the runtime has no threads any more */

    esc_record_pool records;
};

void esc_system_hold(escqrs_system *system);
void esc_system_release(escqrs_system *system); /* the last one frees it */

static inline uint32_t esc_system_phase_now(escqrs_system *system)
{
    /* seq_cst: pairs with the stores in escqrs_system_close, see esc_system_accept */
    return atomic_load_explicit(&system->phase, memory_order_seq_cst);
}

/* FORKED in a child of fork(), else OK. */
escqrs_status esc_system_check(const escqrs_system *system, escqrs_error *error) ESCQRS_MUST_USE;
/* The actor of this system that this thread runs at the moment, or NULL. */
escqrs_actor *esc_system_actor_here(const escqrs_system *system);

/* ---- drain.c: counting what is in flight ---------------------------------------------------- */

/* Count a command. `parent` is the command whose handler sends it, or NULL. FORKED, CLOSED,
 * MAILBOX_FULL: not counted. */
escqrs_status esc_system_accept(escqrs_system *system, escqrs_command *command,
                                const escqrs_command *parent, escqrs_error *error) ESCQRS_MUST_USE;
/* Count a command that was sent by one that is counted, whatever the phase. */
void esc_system_count(escqrs_system *system, uint8_t epoch);
void esc_system_uncount(escqrs_system *system, uint8_t epoch);
/* Wake all who wait for room. */
void esc_system_wake_room(escqrs_system *system);
/* Wait until nothing is in flight; false when the deadline passed. Blocks. */
bool esc_system_wait_idle(escqrs_system *system, int64_t deadline_ns);

#define ESC_LIVE_LOOK_MAX 16 /* entities that one call of esc_live_evict looks at */

static inline bool esc_live_is_over(escqrs_system *system)
{
    return escqrs_system_live(system) > system->live_max;
}

/* ---- live.c: entities with a state ---------------------------------------------------------- */

void esc_live_add(escqrs_system *system, escqrs_entity *entity);
void esc_live_remove(escqrs_system *system, escqrs_entity *entity);
/* Unload a few idle entities of that host while there are too many; attached to the host. Bounded
 * work: how many were unloaded. */
size_t esc_live_evict(escqrs_system *system, escqrs_host *host);
/* Unload all of them, after the runtime has stopped; attached. */
void esc_live_clear(escqrs_system *system);

#endif
