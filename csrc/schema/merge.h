/* Messages whose singular nested messages occur more than once. */
#ifndef ESC_SCHEMA_MERGE_H
#define ESC_SCHEMA_MERGE_H

#include "base/buffer.h"
#include "schema/schema.h"

/* The same message with every singular nested message written once: occurrences are put one behind
 * the other, which is what protobuf means by merging them. `data` has passed the check; `bytes_max`
 * bounds what is copied on the way. `out` is empty. NO_MEMORY, TOO_LARGE. */
escqrs_status esc_merge(const esc_plan *plan, escqrs_slice data, size_t bytes_max, esc_buffer *out,
                        escqrs_error *error) ESCQRS_MUST_USE;

#endif
