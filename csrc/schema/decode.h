/* The decoder behind the check. */
#ifndef ESC_SCHEMA_DECODE_H
#define ESC_SCHEMA_DECODE_H

#include "schema/schema.h"

/* The message at the start of `memory`, which has `size` bytes as esc_check found for this data and
 * is aligned to 8. `unknown`: whether the data has unknown fields. Cannot fail: the data has been
 * checked and may not have changed since. */
ProtobufCMessage *esc_decode(const esc_plan *plan, escqrs_slice data, bool unknown, void *memory,
                             size_t size);

#endif
