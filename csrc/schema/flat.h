/* The usual bytes of the commonest messages, proved and decoded in one pass.
 *
 * A plan is flat if its message has neither lists, maps nor nested messages: then what it takes is
 * known before a byte was read. Its usual bytes are those that writers make: each field at most
 * once, in the order of numbers, none unknown. Everything else, all that is wrong among it, is left
 * to check.c and decode.c, which name what they refuse. */
#ifndef ESC_SCHEMA_FLAT_H
#define ESC_SCHEMA_FLAT_H

#include "schema/schema.h"

/* Of the data. Within it a flat message stays below every default limit, so that none is asked. */
#define ESC_FLAT_DATA_MAX ((size_t)64 * 1024)

/* May `data` be tried, and within the limits (NULL: the defaults)? */
static inline bool esc_flat_fits(const esc_plan *plan, escqrs_slice data,
                                 const escqrs_limits *limits)
{
    return plan->flat && data.size <= ESC_FLAT_DATA_MAX &&
           (limits == NULL || ((limits->bytes_max == 0 || data.size <= limits->bytes_max) &&
                               limits->memory_max == 0));
}

/* Bytes of memory that esc_flat_decode wants. */
static inline size_t esc_flat_size(const esc_plan *plan, size_t data_size)
{
    return plan->flat_size + data_size + sizeof(uint64_t);
}

/* The message at the start of `memory`, which is aligned to 8, text and bytes in a copy of the data
 * behind it. False where the bytes are not the usual ones; `memory` holds nothing then. */
bool esc_flat_decode(const esc_plan *plan, escqrs_slice data, void *memory) ESCQRS_MUST_USE;

#endif
