/* Blocks in a chain, the newest first; each is as large as asked for at least, so that a huge
 * allocation gets a block of its own. Blocks grow with what is in use, so that a large message
 * takes few of them. */
#include "base/arena.h"

#include <string.h>

struct esc_arena_block {
    esc_arena_block *older;
    size_t size; /* of payload */
    _Alignas(ESC_ARENA_ALIGNMENT) uint8_t payload[];
};

#define GROWTH_LIMIT ((size_t)1 << 20) /* blocks double up to here */

void esc_arena_init(esc_arena *arena, size_t block_size)
{
    *arena = (esc_arena){.block_size = block_size};
}

static void use_block(esc_arena *arena, esc_arena_block *block)
{
    arena->newest = block;
    arena->next = block->payload;
    arena->end = block->payload + block->size;
}

void esc_arena_reset(esc_arena *arena)
{
    if (arena->first == NULL) {
        return;
    }
    while (arena->newest != arena->first) {
        esc_arena_block *block = arena->newest;
        arena->newest = block->older;
        escqrs_free(block);
    }
    use_block(arena, arena->first);
}

size_t esc_arena_capacity(const esc_arena *arena)
{
    size_t capacity = 0;
    for (const esc_arena_block *block = arena->newest; block != NULL; block = block->older) {
        capacity += block->size;
    }
    return capacity;
}

void esc_arena_fini(esc_arena *arena)
{
    esc_arena_reset(arena);
    escqrs_free(arena->first);
    esc_arena_init(arena, arena->block_size);
}

static bool add_block(esc_arena *arena, size_t needed)
{
    size_t size = arena->block_size == 0 ? ESC_ARENA_BLOCK_SIZE : arena->block_size;
    if (arena->newest != NULL && arena->newest->size < GROWTH_LIMIT) {
        size = arena->newest->size > size / 2 ? arena->newest->size * 2 : size;
    }
    size = size < needed ? needed : size;
    size_t total = 0;
    if (__builtin_add_overflow(size, sizeof(esc_arena_block), &total)) {
        return false;
    }
    esc_arena_block *block = escqrs_alloc(total);
    if (block == NULL) {
        return false;
    }
    block->older = arena->newest;
    block->size = size;
    if (arena->first == NULL) {
        arena->first = block;
    }
    use_block(arena, block);
    return true;
}

void *esc_arena_alloc(esc_arena *arena, size_t size)
{
    size_t rounded = 0;
    if (__builtin_add_overflow(size, ESC_ARENA_ALIGNMENT - 1, &rounded)) {
        return NULL;
    }
    rounded &= ~(size_t)(ESC_ARENA_ALIGNMENT - 1);
    rounded = rounded == 0 ? ESC_ARENA_ALIGNMENT : rounded; /* distinct addresses, and never NULL */
    if ((arena->next == NULL || (size_t)(arena->end - arena->next) < rounded) &&
        !add_block(arena, rounded)) {
        return NULL;
    }
    void *memory = arena->next;
    arena->next += rounded;
    return memory;
}

void *esc_arena_alloc_zero(esc_arena *arena, size_t size)
{
    void *memory = esc_arena_alloc(arena, size);
    if (memory != NULL) {
        memset(memory, 0, size);
    }
    return memory;
}

char *esc_arena_strdup(esc_arena *arena, escqrs_slice text)
{
    char *copy = text.size == SIZE_MAX ? NULL : esc_arena_alloc(arena, text.size + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (text.size > 0) {
        memcpy(copy, text.data, text.size);
    }
    copy[text.size] = '\0';
    return copy;
}
