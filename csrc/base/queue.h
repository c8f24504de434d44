/* A lock-free queue of many producers and one consumer at a time, of nodes inside its items.
 *
 * Producers push on a stack; the consumer takes the whole stack in one exchange and turns it round,
 * so there is no ABA and no node is touched after it was taken. Items of one producer stay in
 * order. Nothing blocks or allocates.
 *
 * Whoever sleeps when the queue is empty and is woken by the push that finds it empty needs no
 * other ordering: esc_queue_push returns true exactly once per taking. Where the consumer says
 * "asleep" in a word of its own and producers look at that word after the push, both sides need a
 * seq_cst fence between. */
#ifndef ESC_BASE_QUEUE_H
#define ESC_BASE_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct esc_queue_node {
    struct esc_queue_node *next;
} esc_queue_node;

typedef struct esc_queue {
    _Atomic(esc_queue_node *) newest; /* NULL: empty */
} esc_queue;

static inline void esc_queue_init(esc_queue *queue)
{
    atomic_init(&queue->newest, NULL);
}

/* Any thread. True if the queue was empty: the pusher wakes the consumer. */
static inline bool esc_queue_push(esc_queue *queue, esc_queue_node *node)
{
    /* relaxed: only the value is used, and the exchange below checks it */
    esc_queue_node *newest = atomic_load_explicit(&queue->newest, memory_order_relaxed);
    do {
        node->next = newest;
        /* release: pairs with the acquire of esc_queue_take_all, which then sees the item and its
         * next */
    } while (!atomic_compare_exchange_weak_explicit(&queue->newest, &newest, node,
                                                    memory_order_release, memory_order_relaxed));
    return newest == NULL;
}

/* Any thread; at once out of date unless the caller is the consumer and it says false. */
static inline bool esc_queue_is_empty(const esc_queue *queue)
{
    /* acquire: who sees an item here may act on what its producer did before */
    return atomic_load_explicit(&queue->newest, memory_order_acquire) == NULL;
}

/* The consumer: all that was pushed, oldest first, linked by next; NULL if there is nothing. */
static inline esc_queue_node *esc_queue_take_all(esc_queue *queue)
{
    /* acquire: pairs with the release of every push in the stack (each push is a read-modify-write
     * of the same word, so all belong to one release sequence) */
    esc_queue_node *node = atomic_exchange_explicit(&queue->newest, NULL, memory_order_acquire);
    esc_queue_node *oldest = NULL;
    while (node != NULL) {
        esc_queue_node *next = node->next;
        node->next = oldest;
        oldest = node;
        node = next;
    }
    return oldest;
}

#endif
