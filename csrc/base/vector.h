/* A growable array of items of one size. Not thread-safe. Growing moves the items. */
#ifndef ESC_BASE_VECTOR_H
#define ESC_BASE_VECTOR_H

#include <escqrs/base.h>

#include "base/buffer.h"

typedef struct esc_vector {
    void *items; /* NULL while capacity is 0 */
    size_t count;
    size_t capacity; /* in items */
    size_t item_size;
} esc_vector;

#define ESC_VECTOR_OF(type) ((esc_vector){NULL, 0, 0, sizeof(type)})

/* vector[index] of that type, an lvalue: ESC_VECTOR_AT(&v, int, 3) = 7. Index below count,
 * unchecked. */
#define ESC_VECTOR_AT(vector, type, index) (((type *)(vector)->items)[index])

void esc_vector_init(esc_vector *vector, size_t item_size);
void esc_vector_fini(esc_vector *vector);  /* frees the array; usable again */
void esc_vector_clear(esc_vector *vector); /* count 0, memory kept */

/* NO_MEMORY, and then the vector is as it was. */
escqrs_status esc_vector_reserve(esc_vector *vector,
                                 size_t extra) ESCQRS_MUST_USE; /* beyond count */
/* Append a copy of *item. */
escqrs_status esc_vector_push(esc_vector *vector, const void *item) ESCQRS_MUST_USE;

void esc_vector_pop(esc_vector *vector); /* the last; count must not be 0 */
void esc_vector_remove_unordered(esc_vector *vector, size_t index); /* the last takes its place */

#endif
