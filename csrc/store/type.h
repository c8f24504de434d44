/* The message types of a store: small numbers for names and schema records.
 *
 * A type gets its number when it is first asked for and is written with the first event that uses
 * it; `stored` says whether that has happened. Types live as long as the registry.
 *
 * Threads: any. A mutex guards finding and adding; looking up a number, which readers do for every
 * event, takes no lock: the array is replaced when it grows, and the old ones are kept until the
 * end. */
#ifndef ESC_STORE_TYPE_H
#define ESC_STORE_TYPE_H

#include <escqrs/store.h>

#include <stdatomic.h>

#include "base/map.h"
#include "base/thread.h"

#define ESC_TYPE_COUNT_MAX 1000000

struct escqrs_type {
    int64_t id;
    escqrs_slice name;                      /* NUL-terminated, behind the struct */
    escqrs_slice record;                    /* behind the name */
    escqrs_slice identity;                  /* name, NUL, record: what the registry looks up */
    uint64_t hash;                          /* of the name, as in the checksum of an event */
    _Atomic bool stored;                    /* an event of it is durable */
    bool pending;                           /* the leader's: written in the running batch */
    bool digested;                          /* the leader's: `digest` is there */
    uint8_t digest[ESCQRS_CHAIN_LINK_SIZE]; /* the leader's: see store/chain.h */
    /* The leader's, for conditions: no event of the type stands above `last_position` but at or
     * below `watched_from` (where it is not `watched`: where the writer opened the file). A batch
     * that was rolled back may leave `last_position` too high, which costs a look and no more. */
    bool watched;
    int64_t watched_from;
    int64_t last_position; /* 0: none was written */
};

typedef struct esc_type_table { /* by number */
    struct esc_type_table *older;
    size_t capacity;
    _Atomic(escqrs_type *) types[];
} esc_type_table;

typedef struct esc_type_registry {
    esc_mutex mutex;
    esc_map by_identity;             /* mutex */
    int64_t last_id;                 /* mutex */
    _Atomic(esc_type_table *) table; /* written under the mutex */
} esc_type_registry;

void esc_type_registry_init(esc_type_registry *registry);
void esc_type_registry_fini(esc_type_registry *registry);

/* Found or made. TOO_LARGE, INVALID, NO_MEMORY. */
escqrs_status esc_type_registry_get(esc_type_registry *registry, escqrs_slice name,
                                    escqrs_slice record, escqrs_type **type,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* A type as read from the file, under the number it has there; already known is fine. CORRUPT,
 * NO_MEMORY. */
escqrs_status esc_type_registry_load(esc_type_registry *registry, int64_t id, escqrs_slice name,
                                     escqrs_slice record, escqrs_type **type,
                                     escqrs_error *error) ESCQRS_MUST_USE;
/* NULL if there is none of that number. */
escqrs_type *esc_type_registry_find(esc_type_registry *registry, int64_t id);
/* Numbers run from 1 to this; some may be missing. */
int64_t esc_type_registry_last(esc_type_registry *registry);

#endif
