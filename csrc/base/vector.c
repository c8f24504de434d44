/* See vector.h. */
#include "base/vector.h"

#include <string.h>

#include "base/assert.h"

#define CAPACITY_MIN 8

static void *item_at(const esc_vector *vector, size_t index)
{
    return (uint8_t *)vector->items + index * vector->item_size;
}

void esc_vector_init(esc_vector *vector, size_t item_size)
{
    *vector = (esc_vector){.item_size = item_size};
}

void esc_vector_fini(esc_vector *vector)
{
    escqrs_free(vector->items);
    esc_vector_init(vector, vector->item_size);
}

void esc_vector_clear(esc_vector *vector)
{
    vector->count = 0;
}

escqrs_status esc_vector_reserve(esc_vector *vector, size_t extra)
{
    ESC_ASSERT(vector->item_size > 0);
    size_t needed = 0;
    if (__builtin_add_overflow(vector->count, extra, &needed)) {
        return ESCQRS_NO_MEMORY;
    }
    if (needed <= vector->capacity) {
        return ESCQRS_OK;
    }
    size_t capacity = vector->capacity < CAPACITY_MIN / 2 ? CAPACITY_MIN : vector->capacity;
    while (capacity < needed) {
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    }
    size_t size = 0;
    if (__builtin_mul_overflow(capacity, vector->item_size, &size)) {
        return ESCQRS_NO_MEMORY;
    }
    void *items = escqrs_realloc(vector->items, size);
    if (items == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    vector->items = items;
    vector->capacity = capacity;
    return ESCQRS_OK;
}

escqrs_status esc_vector_push(esc_vector *vector, const void *item)
{
    escqrs_status status = esc_vector_reserve(vector, 1);
    if (status == ESCQRS_OK) {
        memcpy(item_at(vector, vector->count++), item, vector->item_size);
    }
    return status;
}

void esc_vector_pop(esc_vector *vector)
{
    ESC_ASSERT(vector->count > 0);
    vector->count--;
}

void esc_vector_remove_unordered(esc_vector *vector, size_t index)
{
    ESC_ASSERT(index < vector->count);
    vector->count--;
    if (index != vector->count) {
        memcpy(item_at(vector, index), item_at(vector, vector->count), vector->item_size);
    }
}
