/* Who waits for whom: one edge an actor, `waits_for`, under one lock for the whole process, since a
 * cycle may lead through several runtimes: of two threads that close it together the second one
 * always sees it. In a child of fork() the lock begins anew: the thread that held it is not there.
 *
 * An actor with an edge to it is held by the one that waits, until wait_end has taken the lock; so
 * the walk may follow the edges, and may hold the actors whose names it will ask for when the lock
 * is released. A wait whose answer is there is over, though its thread may not have gone on: the
 * walk ends at it, for the one that answered may ask back. Names of a cycle that is longer than
 * NAMES_MAX are left out in its middle.
 */
#include <escqrs/runtime.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "runtime/runtime.h"

#define NAMES_MAX 8
#define NAME_SIZE 100
#define UNTIL ((uintptr_t)1) /* in waits_for: it is an escqrs_wait, not an actor */

static esc_mutex lock;

static void lock_begin(void)
{
    esc_mutex_init(&lock);
}

__attribute__((constructor)) static void lock_register(void)
{
    lock_begin();
    int failed = pthread_atfork(NULL, NULL, lock_begin);
    ESC_ASSERT(failed == 0);
}

typedef struct cycle {
    escqrs_actor *head[NAMES_MAX / 2]; /* the first ones, in order; held */
    escqrs_actor *tail[NAMES_MAX / 2]; /* the last ones, a ring */
    size_t length;
} cycle;

static void cycle_add(cycle *found, escqrs_actor *actor)
{
    if (found->length < NAMES_MAX / 2) {
        found->head[found->length] = actor;
    } else {
        found->tail[found->length % (NAMES_MAX / 2)] = actor;
    }
    found->length++;
}

static escqrs_actor *cycle_at(const cycle *found, size_t index)
{
    return index < NAMES_MAX / 2 ? found->head[index] : found->tail[index % (NAMES_MAX / 2)];
}

/* Is the name of the index-th one kept? */
static bool cycle_keeps(const cycle *found, size_t index)
{
    return index < NAMES_MAX / 2 || index + NAMES_MAX / 2 >= found->length;
}

/* With the lock held: whom it still waits for. */
static escqrs_actor *waits_for(const escqrs_actor *actor)
{
    if ((actor->waits_for & UNTIL) == 0) {
        return (escqrs_actor *)actor->waits_for;
    }
    const escqrs_wait *wait = (const escqrs_wait *)(actor->waits_for & ~UNTIL);
    /* relaxed: nothing is read that the answer brings */
    bool over = (atomic_load_explicit(wait->word, memory_order_relaxed) & 1) != 0;
    return over ? NULL : wait->target;
}

/* With the lock held: does a way lead from `target` to `waiter`? Then the actors on it, from
 * `waiter` on, are held. */
static bool find_cycle(escqrs_actor *waiter, escqrs_actor *target, cycle *found)
{
    cycle_add(found, waiter);
    for (escqrs_actor *actor = target; actor != waiter; actor = waits_for(actor)) {
        if (actor == NULL) {
            return false;
        }
        cycle_add(found, actor);
    }
    for (size_t i = 0; i < found->length; i++) {
        if (cycle_keeps(found, i)) {
            escqrs_actor_hold(cycle_at(found, i));
        }
    }
    return true;
}

static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* Without the lock; lets go of the actors. */
static void name_cycle(const cycle *found, char *text, size_t size)
{
    char first[NAME_SIZE] = "";
    text[0] = '\0';
    for (size_t i = 0; i < found->length; i++) {
        if (!cycle_keeps(found, i)) {
            continue;
        }
        char name[NAME_SIZE] = "";
        escqrs_actor *actor = cycle_at(found, i);
        actor->ops->describe(actor, name, sizeof name);
        escqrs_actor_release(actor);
        if (i == 0) {
            memcpy(first, name, sizeof first);
        }
        append(text, size, name);
        append(text, size, " -> ");
        if (i + 1 == NAMES_MAX / 2 && found->length > NAMES_MAX) {
            char left_out[64];
            snprintf(left_out, sizeof left_out, "... (%zu more) ... -> ",
                     found->length - NAMES_MAX);
            append(text, size, left_out);
        }
    }
    append(text, size, first);
}

/* Lets go of the actors of the cycle. */
static escqrs_status refuse(const cycle *found, escqrs_error *error)
{
    char text[NAMES_MAX * (NAME_SIZE + 4) + NAME_SIZE + 64];
    name_cycle(found, text, sizeof text);
    return escqrs_error_set(error, ESCQRS_DEADLOCK, "waiting would never end: %s", text);
}

escqrs_status escqrs_actor_wait_begin(escqrs_actor *waiter, escqrs_actor *target,
                                      escqrs_error *error)
{
    if (waiter == NULL) {
        return ESCQRS_OK;
    }
    cycle found = {0};
    esc_mutex_lock(&lock);
    ESC_ASSERT(waiter->waits_for == 0);
    bool closes = find_cycle(waiter, target, &found);
    if (!closes) {
        waiter->waits_for = (uintptr_t)target;
    }
    esc_mutex_unlock(&lock);
    return closes ? refuse(&found, error) : ESCQRS_OK;
}

escqrs_status escqrs_actor_wait_check(escqrs_actor *waiter, escqrs_actor *target,
                                      escqrs_error *error)
{
    cycle found = {0};
    esc_mutex_lock(&lock);
    bool closes = find_cycle(waiter, target, &found);
    esc_mutex_unlock(&lock);
    return closes ? refuse(&found, error) : ESCQRS_OK;
}

void escqrs_actor_wait_until(escqrs_actor *waiter, escqrs_wait *wait, const _Atomic(uint32_t) *word)
{
    if (waiter == NULL) {
        return;
    }
    esc_mutex_lock(&lock);
    ESC_ASSERT(waiter->waits_for != 0 && (waiter->waits_for & UNTIL) == 0);
    *wait = (escqrs_wait){(escqrs_actor *)waiter->waits_for, word};
    waiter->waits_for = (uintptr_t)wait | UNTIL;
    esc_mutex_unlock(&lock);
}

void escqrs_actor_wait_end(escqrs_actor *waiter)
{
    if (waiter == NULL) {
        return;
    }
    esc_mutex_lock(&lock);
    ESC_ASSERT(waiter->waits_for != 0);
    waiter->waits_for = 0;
    esc_mutex_unlock(&lock);
}
