/* What the core keeps for a provider (escqrs/provider.h), beside what the provider keeps itself. */
#ifndef ESC_STORE_PROVIDER_H
#define ESC_STORE_PROVIDER_H

#include <escqrs/provider.h>

#include <stdatomic.h>

#include "store/page.h"
#include "store/type.h"

typedef struct esc_provider_core {
    escqrs_provider_functions functions; /* the provider's, and stand-ins for absent ones */
    esc_type_registry types;
    _Atomic int64_t head;      /* durable; written with release, read with acquire by all */
    _Atomic int64_t deletions; /* likewise */
} esc_provider_core;

/* How often events were deleted; 0: never. */
static inline int64_t esc_provider_deletions(const escqrs_provider *provider)
{
    /* acquire: pairs with the release in escqrs_provider_set_deletions */
    return atomic_load_explicit(&provider->core->deletions, memory_order_acquire);
}

/* The head as readers may rely on it: every event up to it can be read. */
static inline int64_t esc_provider_head(const escqrs_provider *provider)
{
    /* acquire: pairs with the release in escqrs_provider_set_head, after the commit */
    return atomic_load_explicit(&provider->core->head, memory_order_acquire);
}

#endif
