/* An actor's mailbox and its state, in one word: so that a send is one compare-and-swap, and a
 * message can never arrive unseen beside a change of state.
 *
 * The word is the address of the newest message, or 0; a state; and ORPHAN. The states, and who may
 * touch the actor meanwhile:
 *
 * - IDLE: nobody; there is no message. Left for BUSY by a send, a run or a visit.
 * - BUSY: the run queue that holds it, or the one thread that runs it, which leaves it for IDLE or
 *   SUSPENDED.
 * - SUSPENDED: nobody; messages pile up. Left for BUSY by a resume or a nudge.
 * - CLOSED: nobody, and no message, ever again. Never left.
 *
 * Whoever makes it BUSY schedules or runs it: exactly one thread wins. ORPHAN says that the last
 * reference is gone.
 *
 * Orders. Every change of the word is a read-modify-write, so each belongs to the release sequences
 * of all before it: the acquire of whoever takes the actor next sees what every sender wrote before
 * its push, and what the thread that ran the actor last wrote before it let go, though operations
 * that order nothing lie between. */
#ifndef ESC_RUNTIME_MAILBOX_H
#define ESC_RUNTIME_MAILBOX_H

#include <stdatomic.h>

#include "runtime/runtime.h"

#define ESC_MAILBOX_IDLE ((uintptr_t)0)
#define ESC_MAILBOX_BUSY ((uintptr_t)1)
#define ESC_MAILBOX_SUSPENDED ((uintptr_t)2)
#define ESC_MAILBOX_CLOSED ((uintptr_t)3)
#define ESC_MAILBOX_STATE ((uintptr_t)3)
#define ESC_MAILBOX_ORPHAN ((uintptr_t)4)
#define ESC_MAILBOX_FLAGS ((uintptr_t)(ESCQRS_MESSAGE_ALIGNMENT - 1))

static inline escqrs_message *esc_mailbox_newest(uintptr_t word)
{
    return (escqrs_message *)(word & ~ESC_MAILBOX_FLAGS);
}

typedef enum esc_pushed {
    ESC_PUSHED = 0,
    ESC_PUSHED_STARTS = 1, /* the caller has made the actor BUSY and must schedule it */
    ESC_PUSHED_CLOSED = 2, /* the message is still the caller's */
} esc_pushed;

/* Any thread. It starts where it was idle, or suspended and `resumes`. */
static inline __attribute__((always_inline)) esc_pushed esc_mailbox_push(escqrs_actor *actor,
                                                                         escqrs_message *message,
                                                                         bool resumes)
{
    uintptr_t word = atomic_load_explicit(&actor->mailbox, memory_order_relaxed);
    /* first what most sends to a busy actor find; the general case comes to the same */
    while (__builtin_expect((word & ESC_MAILBOX_FLAGS) == ESC_MAILBOX_BUSY, 1)) {
        message->next = (escqrs_message *)(word - ESC_MAILBOX_BUSY);
        /* orders: as below */
        if (__builtin_expect(atomic_compare_exchange_weak_explicit(
                                 &actor->mailbox, &word, (uintptr_t)message + ESC_MAILBOX_BUSY,
                                 memory_order_acq_rel, memory_order_relaxed),
                             1)) {
            return ESC_PUSHED;
        }
    }
    uintptr_t next;
    bool starts;
    do {
        uintptr_t state = word & ESC_MAILBOX_STATE;
        if (__builtin_expect(state == ESC_MAILBOX_CLOSED, 0)) {
            return ESC_PUSHED_CLOSED;
        }
        starts = state == ESC_MAILBOX_IDLE || (resumes && state == ESC_MAILBOX_SUSPENDED);
        message->next = esc_mailbox_newest(word);
        uintptr_t flags = word & ESC_MAILBOX_FLAGS;
        if (starts) {
            flags = (flags & ESC_MAILBOX_ORPHAN) | ESC_MAILBOX_BUSY;
        }
        next = (uintptr_t)message | flags;
        /* release: pairs with the acquire in esc_mailbox_drain. acquire: pairs with come_to_rest of
         * the thread that ran the actor last, for whoever gets it from this thread's queue reads
         * its other fields first. */
    } while (!atomic_compare_exchange_weak_explicit(&actor->mailbox, &word, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return starts ? ESC_PUSHED_STARTS : ESC_PUSHED;
}

/* It is `resume` or `nudge`. */
static inline bool esc_mailbox_is_own(const escqrs_actor *actor, const escqrs_message *message)
{
    return (uintptr_t)message - (uintptr_t)actor < sizeof *actor;
}

/* The owner of the actor at this moment: append what was taken from the mailbox to `pending`,
 * oldest first. */
static inline void esc_mailbox_accept(escqrs_actor *actor, escqrs_message *message)
{
    escqrs_message *oldest = NULL;
    escqrs_message *newest = message;
    while (message != NULL) {
        escqrs_message *next = message->next;
        if (__builtin_expect(esc_mailbox_is_own(actor, message), 0)) {
            *(message == &actor->resume ? &actor->resumed : &actor->nudge_here) = true;
            newest = newest == message ? next : newest;
        } else {
            message->next = oldest;
            oldest = message;
        }
        message = next;
    }
    if (oldest == NULL) {
        return;
    }
    if (actor->pending == NULL) {
        actor->pending = oldest;
    } else {
        actor->pending_last->next = oldest;
    }
    actor->pending_last = newest;
}

/* The thread that runs the actor, which is BUSY: move what has arrived to `pending`. */
static inline void esc_mailbox_drain(escqrs_actor *actor)
{
    /* relaxed: only a look; what comes later is seen when the actor is brought to rest */
    if (esc_mailbox_newest(atomic_load_explicit(&actor->mailbox, memory_order_relaxed)) == NULL) {
        return;
    }
    /* acquire: pairs with the release of every push in it */
    uintptr_t word =
        atomic_exchange_explicit(&actor->mailbox, ESC_MAILBOX_BUSY, memory_order_acquire);
    if (__builtin_expect((word & ESC_MAILBOX_ORPHAN) != 0, 0)) {
        /* relaxed: this thread is the one that will read it */
        atomic_fetch_or_explicit(&actor->mailbox, ESC_MAILBOX_ORPHAN, memory_order_relaxed);
    }
    esc_mailbox_accept(actor, esc_mailbox_newest(word));
}

#endif
