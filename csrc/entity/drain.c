/* Counting commands in flight, waiting for room, and waiting until what was sent is done.
 *
 * Every accepted command is counted in one of two buckets until its `done` has been called: a
 * command from outside in the bucket of the current epoch, a command sent by a handler in the
 * bucket of the command being handled. A handler's command is counted before the one that sent it
 * is uncounted, so a bucket that is empty holds no cascade that could go on.
 *
 * A drain is a period: (1) wait until the bucket that is not current is empty, (2) make it the
 * current one, (3) wait until the other is empty. Whatever was counted before the period began sits
 * in one of the two buckets, and both were seen empty after it began; whatever comes later goes to
 * the bucket of step 2 and delays nobody. (Step 1 matters for a thread that read the epoch, slept,
 * and counted after an earlier period had flipped it.) Periods follow each other; a ticket is the
 * number of the first period that begins after the ticket was taken, or of one that has not flipped
 * yet. There is no thread for it: those who wait move it on, and sleep on a futex that a bucket's
 * last command advances.
 *
 * Room: senders sleep on another futex, which advances when the count has fallen an eighth below
 * the maximum, so that they are not woken one by one.
 *
 * Lock order: drain_lock is a leaf. */
#include "entity/system.h"

#include <limits.h>

#include "base/assert.h"

size_t escqrs_system_in_flight(escqrs_system *system)
{
    /* seq_cst: pairs with the additions of esc_system_accept */
    return (size_t)atomic_load_explicit(&system->buckets[0], memory_order_seq_cst) +
           atomic_load_explicit(&system->buckets[1], memory_order_seq_cst);
}

escqrs_status esc_system_accept(escqrs_system *system, escqrs_command *command,
                                const escqrs_command *parent, escqrs_error *error)
{
    escqrs_status status = esc_system_check(system, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (parent == NULL && esc_system_phase_now(system) == ESC_SYSTEM_OPEN &&
        escqrs_system_in_flight(system) >= system->in_flight_max) {
        return escqrs_error_set(error, ESCQRS_MAILBOX_FULL,
                                "%zu commands are under way already; wait for some of them",
                                system->in_flight_max);
    }
    /* seq_cst: a drain that flips afterwards finds the command in a bucket, whichever it is */
    command->epoch = parent != NULL
                         ? parent->epoch
                         : (uint8_t)atomic_load_explicit(&system->epoch, memory_order_seq_cst);
    esc_system_count(system, command->epoch);
    /* Counted first, then looked: close stores the phase first and then looks at the count (both
     * seq_cst), so either we see that it closes or it sees the command. */
    uint32_t phase = esc_system_phase_now(system);
    if (phase == ESC_SYSTEM_OPEN || (phase == ESC_SYSTEM_CLOSING && parent != NULL)) {
        return ESCQRS_OK;
    }
    esc_system_uncount(system, command->epoch);
    return escqrs_error_set(error, ESCQRS_CLOSED, "the system is closed");
}

void esc_system_count(escqrs_system *system, uint8_t epoch)
{
    /* seq_cst: see esc_system_accept */
    atomic_fetch_add_explicit(&system->buckets[epoch], 1, memory_order_seq_cst);
}

/* Advance the futex and wake all who sleep on it. */
static void wake(_Atomic uint32_t *futex)
{
    /* release: who wakes sees what led to it */
    atomic_fetch_add_explicit(futex, 1, memory_order_release);
    esc_futex_wake(futex, INT_MAX);
}

void esc_system_uncount(escqrs_system *system, uint8_t epoch)
{
    /* seq_cst here and in the waiters: they announce themselves and then look at the count, we
     * lower the count and then look for them */
    uint32_t before = atomic_fetch_sub_explicit(&system->buckets[epoch], 1, memory_order_seq_cst);
    ESC_ASSERT(before > 0);
    if (before == 1 && atomic_load_explicit(&system->idle_waiters, memory_order_seq_cst) > 0) {
        wake(&system->idle_wakes);
    }
    if (atomic_load_explicit(&system->room_waiters, memory_order_seq_cst) > 0 &&
        escqrs_system_in_flight(system) <= system->room_mark) {
        wake(&system->room_wakes);
    }
}

void esc_system_wake_room(escqrs_system *system)
{
    wake(&system->room_wakes);
}

/* ---- room ----------------------------------------------------------------------------------- */

escqrs_status escqrs_system_wait_room(escqrs_system *system, int64_t deadline_ns)
{
    escqrs_status status = esc_system_check(system, NULL);
    if (status != ESCQRS_OK || esc_system_actor_here(system) != NULL) {
        return status; /* commands sent by a handler need no room */
    }
    atomic_fetch_add_explicit(&system->room_waiters, 1, memory_order_seq_cst); /* see uncount */
    for (;;) {
        uint32_t wakes = atomic_load_explicit(&system->room_wakes, memory_order_acquire);
        if (esc_system_phase_now(system) != ESC_SYSTEM_OPEN) {
            status = ESCQRS_CLOSED;
            break;
        }
        if (escqrs_system_in_flight(system) < system->in_flight_max) {
            break;
        }
        if (system->manual) {
            if (!escqrs_system_step(system)) {
                status = ESCQRS_TIMEOUT;
                break;
            }
        } else if (!esc_futex_wait(&system->room_wakes, wakes, deadline_ns)) {
            status = ESCQRS_TIMEOUT;
            break;
        }
    }
    atomic_fetch_sub_explicit(&system->room_waiters, 1, memory_order_seq_cst);
    return status;
}

/* ---- drain ---------------------------------------------------------------------------------- */

static bool bucket_is_empty(escqrs_system *system, uint32_t bucket)
{
    return atomic_load_explicit(&system->buckets[bucket], memory_order_seq_cst) == 0;
}

/* Move the period on as far as it goes. Under drain_lock. */
static void drain_advance(escqrs_system *system)
{
    for (;;) {
        uint32_t epoch =
            atomic_load_explicit(&system->epoch, memory_order_relaxed); /* ours to write */
        switch (system->drain_phase) {
        case ESC_DRAIN_IDLE:
            if (system->drain_wanted == system->drain_completed) {
                return;
            }
            system->drain_phase = ESC_DRAIN_BEFORE_FLIP;
            break;
        case ESC_DRAIN_BEFORE_FLIP:
            if (!bucket_is_empty(system, 1 - epoch)) {
                return;
            }
            /* seq_cst: pairs with the load in esc_system_accept */
            atomic_store_explicit(&system->epoch, 1 - epoch, memory_order_seq_cst);
            system->drain_phase = ESC_DRAIN_AFTER_FLIP;
            break;
        case ESC_DRAIN_AFTER_FLIP:
            if (!bucket_is_empty(system, 1 - epoch)) {
                return;
            }
            system->drain_completed++;
            system->drain_phase = ESC_DRAIN_IDLE;
            break;
        }
    }
}

uint64_t escqrs_system_drain_begin(escqrs_system *system)
{
    if (esc_system_check(system, NULL) != ESCQRS_OK) {
        return 0; /* drain_wait says why; the lock may be held by a thread that does not exist here
                   */
    }
    esc_mutex_lock(&system->drain_lock);
    uint64_t ticket =
        system->drain_completed + (system->drain_phase == ESC_DRAIN_AFTER_FLIP ? 2 : 1);
    if (system->drain_wanted < ticket) {
        system->drain_wanted = ticket;
    }
    drain_advance(system);
    esc_mutex_unlock(&system->drain_lock);
    return ticket;
}

static bool drain_is_over(escqrs_system *system, uint64_t ticket)
{
    esc_mutex_lock(&system->drain_lock);
    uint64_t before = system->drain_completed;
    drain_advance(system);
    uint64_t completed = system->drain_completed;
    esc_mutex_unlock(&system->drain_lock);
    if (completed != before) {
        wake(&system->idle_wakes); /* another waiter's ticket may be over by our doing */
    }
    return completed >= ticket;
}

bool escqrs_system_is_drained(escqrs_system *system, uint64_t ticket)
{
    return esc_system_check(system, NULL) == ESCQRS_OK && drain_is_over(system, ticket);
}

escqrs_status escqrs_system_drain_wait(escqrs_system *system, uint64_t ticket, int64_t deadline_ns,
                                       escqrs_error *error)
{
    escqrs_status status = esc_system_check(system, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_actor *actor = esc_system_actor_here(system);
    if (actor != NULL) {
        char name[128];
        actor->ops->describe(actor, name, sizeof name);
        return escqrs_error_set(error, ESCQRS_DEADLOCK,
                                "%s waits for all commands to end, and so for itself", name);
    }
    atomic_fetch_add_explicit(&system->idle_waiters, 1, memory_order_seq_cst); /* see uncount */
    for (;;) {
        uint32_t wakes = atomic_load_explicit(&system->idle_wakes, memory_order_acquire);
        if (drain_is_over(system, ticket)) {
            break;
        }
        if (system->manual ? !escqrs_system_step(system)
                           : !esc_futex_wait(&system->idle_wakes, wakes, deadline_ns)) {
            status = drain_is_over(system, ticket) ? ESCQRS_OK : ESCQRS_DONE;
            break;
        }
    }
    atomic_fetch_sub_explicit(&system->idle_waiters, 1, memory_order_seq_cst);
    return status;
}

escqrs_status escqrs_system_drain(escqrs_system *system, int64_t deadline_ns, escqrs_error *error)
{
    escqrs_status status = esc_system_check(system, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    return escqrs_system_drain_wait(system, escqrs_system_drain_begin(system), deadline_ns, error);
}

bool esc_system_wait_idle(escqrs_system *system, int64_t deadline_ns)
{
    bool idle = false;
    atomic_fetch_add_explicit(&system->idle_waiters, 1, memory_order_seq_cst); /* see uncount */
    for (;;) {
        uint32_t wakes = atomic_load_explicit(&system->idle_wakes, memory_order_acquire);
        idle = escqrs_system_in_flight(system) == 0;
        if (idle || (system->manual ? !escqrs_system_step(system)
                                    : !esc_futex_wait(&system->idle_wakes, wakes, deadline_ns))) {
            break;
        }
    }
    idle = idle || escqrs_system_in_flight(system) == 0;
    atomic_fetch_sub_explicit(&system->idle_waiters, 1, memory_order_seq_cst);
    return idle;
}
