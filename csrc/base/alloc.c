/* malloc with a switch for tests: the n-th allocation from now fails. The switch costs one relaxed
 * load where it is off. */
#include <escqrs/base.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/alloc.h"

/* How many allocations until one fails; 0 is off. Relaxed throughout: it guards no other memory. */
static atomic_long fail_countdown;
static atomic_bool fail_sticky;

static bool must_fail_slowly(void)
{
    long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left > 0) {
        bool last = left == 1;
        if (last && atomic_load_explicit(&fail_sticky, memory_order_relaxed)) {
            return true; /* stays at 1: all later ones fail too */
        }
        if (atomic_compare_exchange_weak_explicit(&fail_countdown, &left, left - 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {
            return last;
        }
    }
    return false;
}

static inline bool must_fail(void)
{
    if (__builtin_expect(atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0, 1)) {
        return false;
    }
    return must_fail_slowly();
}

void *escqrs_alloc(size_t size)
{
    /* of size 0 too a block comes back, for NULL means out of memory */
    return must_fail() ? NULL : malloc(size == 0 ? 1 : size);
}

void *escqrs_alloc_zero(size_t size)
{
    return must_fail() ? NULL : calloc(1, size == 0 ? 1 : size);
}

void *escqrs_alloc_array(size_t count, size_t item_size)
{
    size_t size = 0;
    if (__builtin_mul_overflow(count, item_size, &size)) {
        return NULL;
    }
    return escqrs_alloc(size);
}

void *escqrs_realloc(void *memory, size_t size)
{
    return must_fail() ? NULL : realloc(memory, size == 0 ? 1 : size);
}

char *escqrs_strdup(escqrs_slice text)
{
    if (text.size == SIZE_MAX) {
        return NULL;
    }
    char *copy = escqrs_alloc(text.size + 1);
    if (copy == NULL) {
        return NULL;
    }
    if (text.size > 0) {
        memcpy(copy, text.data, text.size);
    }
    copy[text.size] = '\0';
    return copy;
}

void escqrs_free(void *memory)
{
    free(memory);
}

void esc_alloc_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

void escqrs_alloc_fail(long countdown, bool sticky)
{
    atomic_store_explicit(&fail_sticky, sticky, memory_order_relaxed);
    atomic_store_explicit(&fail_countdown, countdown > 0 ? countdown : 0, memory_order_relaxed);
}
