/* A native worker's own run queue: a ring that its owner fills, and from which the owner and, one
 * at a time, thieves take the oldest.
 *
 * `head` moves by compare-and-swap, whoever takes; `tail` moves by plain stores of the owner.
 * Indices never wrap (64 bits), so there is no ABA. A slot is written only after its index was seen
 * taken: the owner's acquire of `head` pairs with the release of whoever moved it. Nothing blocks
 * or allocates. */
#ifndef ESC_RUNTIME_RING_H
#define ESC_RUNTIME_RING_H

#include <stdatomic.h>

#include "runtime/runtime.h"

struct esc_ring {
    _Atomic(uint64_t) head; /* the oldest */
    char apart[ESC_CACHE_LINE];
    _Atomic(uint64_t) tail; /* after the newest */
    _Atomic(escqrs_actor *) slots[ESC_RING_SIZE];
};

/* Any thread; a hint for all but the owner. */
static inline uint64_t esc_ring_count(esc_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return tail > head ? tail - head : 0; /* the two loads are not one */
}

/* The owner. False: full. */
static inline bool esc_ring_push(esc_ring *ring, escqrs_actor *actor)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* its own */
    /* acquire: pairs with the taking of the slot's last content */
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (tail - head >= ESC_RING_SIZE) {
        return false;
    }
    atomic_store_explicit(&ring->slots[tail % ESC_RING_SIZE], actor, memory_order_relaxed);
    /* release: pairs with the thief's acquire of tail */
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

/* The owner. NULL: empty. */
static inline escqrs_actor *esc_ring_pop(esc_ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* its own */
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    while (head != tail) {
        escqrs_actor *actor =
            atomic_load_explicit(&ring->slots[head % ESC_RING_SIZE], memory_order_relaxed);
        /* release: pairs with the acquire in push; what is in the slot is the owner's own writing
         */
        if (atomic_compare_exchange_weak_explicit(&ring->head, &head, head + 1,
                                                  memory_order_release, memory_order_relaxed)) {
            /* the turn after this one; it may be stolen and gone, which a prefetch does not mind */
            const char *after = (const char *)atomic_load_explicit(
                &ring->slots[(head + 1) % ESC_RING_SIZE], memory_order_relaxed);
            __builtin_prefetch(after);
            __builtin_prefetch(after + ESC_CACHE_LINE);
            return actor;
        }
    }
    return NULL;
}

/* A thief, one at a time (the pool's lock). At most `max` and, with more than one there, at most
 * half. */
static inline unsigned esc_ring_steal(esc_ring *ring, escqrs_actor **stolen, unsigned max)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    for (;;) {
        /* acquire: pairs with the owner's release of tail, so that the slots are filled and the
         * actors whole */
        uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (tail <= head) {
            return 0;
        }
        uint64_t wanted = (tail - head + 1) / 2;
        unsigned count = wanted > max ? max : (unsigned)wanted;
        for (unsigned i = 0; i < count; i++) {
            stolen[i] = atomic_load_explicit(&ring->slots[(head + i) % ESC_RING_SIZE],
                                             memory_order_relaxed);
        }
        /* release: pairs with the acquire in push, which may then overwrite the slots */
        if (atomic_compare_exchange_weak_explicit(&ring->head, &head, head + count,
                                                  memory_order_release, memory_order_relaxed)) {
            return count;
        }
    }
}

#endif
