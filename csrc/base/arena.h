/* A bump allocator: many small allocations, freed together. Not thread-safe; nothing blocks. */
#ifndef ESC_BASE_ARENA_H
#define ESC_BASE_ARENA_H

#include <escqrs/base.h>

typedef struct esc_arena_block esc_arena_block;

typedef struct esc_arena {
    uint8_t *next;          /* the free part of the newest block: from here ... */
    uint8_t *end;           /* ... to here */
    esc_arena_block *first; /* kept by reset */
    esc_arena_block *newest;
    size_t block_size; /* of payload; 0: ESC_ARENA_BLOCK_SIZE */
} esc_arena;           /* all zero is an empty one */

#define ESC_ARENA_ALIGNMENT 8
#define ESC_ARENA_BLOCK_SIZE 4096

void esc_arena_init(esc_arena *arena, size_t block_size); /* allocates nothing */
void esc_arena_reset(esc_arena *arena);                   /* frees all but the first block */
size_t esc_arena_capacity(const esc_arena *arena);        /* bytes of its blocks, used or not */
void esc_arena_fini(esc_arena *arena);                    /* frees all; usable again */

/* Memory that lives until reset or fini, aligned to 8, not zeroed. NULL when out of memory. */
void *esc_arena_alloc(esc_arena *arena, size_t size);
void *esc_arena_alloc_zero(esc_arena *arena, size_t size);
/* A copy with a NUL behind it. NULL when out of memory. */
char *esc_arena_strdup(esc_arena *arena, escqrs_slice text);

#endif
