/* A doubly linked list of nodes inside its items. Not thread-safe: the owner's lock guards it. */
#ifndef ESC_BASE_LIST_H
#define ESC_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"

/* The item that holds a node (of this or any other kind) as a member; NULL stays NULL. */
#define ESC_CONTAINER_OF(node, type, member)                                                       \
    ((type *)esc_container_of((node), offsetof(type, member)))

static inline void *esc_container_of(const void *node, size_t offset)
{
    return node == NULL ? NULL : (void *)((uintptr_t)node - offset);
}

typedef struct esc_list_node {
    struct esc_list_node *next; /* NULL: in no list */
    struct esc_list_node *previous;
} esc_list_node;

/* A ring through a root of its own, so that removing needs no list. It must not move in memory. */
typedef struct esc_list {
    esc_list_node root;
} esc_list;

static inline void esc_list_init(esc_list *list)
{
    list->root.next = list->root.previous = &list->root;
}

static inline bool esc_list_is_empty(const esc_list *list)
{
    return list->root.next == &list->root;
}

static inline bool esc_list_contains_node(
    const esc_list_node *node) /* in some list? zero it at first */
{
    return node->next != NULL;
}

static inline void esc_list_insert_after(esc_list_node *place, esc_list_node *node)
{
    node->previous = place;
    node->next = place->next;
    place->next->previous = node;
    place->next = node;
}

static inline void esc_list_push_front(esc_list *list, esc_list_node *node)
{
    esc_list_insert_after(&list->root, node);
}

static inline void esc_list_push_back(esc_list *list, esc_list_node *node)
{
    esc_list_insert_after(list->root.previous, node);
}

static inline void esc_list_remove(esc_list_node *node)
{
    ESC_ASSERT(node->previous != NULL && node->next != NULL); /* it is in a list */
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = NULL;
}

/* NULL at the end. Take the next before removing the node itself. */
static inline esc_list_node *esc_list_first(const esc_list *list)
{
    return list->root.next == &list->root ? NULL : list->root.next;
}

static inline esc_list_node *esc_list_last(const esc_list *list)
{
    return list->root.previous == &list->root ? NULL : list->root.previous;
}

static inline esc_list_node *esc_list_next(const esc_list *list, const esc_list_node *node)
{
    return node->next == &list->root ? NULL : node->next;
}

static inline esc_list_node *esc_list_pop_front(esc_list *list)
{
    esc_list_node *node = esc_list_first(list);
    if (node != NULL) {
        esc_list_remove(node);
    }
    return node;
}

#endif
