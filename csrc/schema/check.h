/* The proof that bytes can be unpacked, and how much memory that takes. */
#ifndef ESC_SCHEMA_CHECK_H
#define ESC_SCHEMA_CHECK_H

#include "schema/schema.h"

#define ESC_LIMIT_BYTES_DEFAULT ((size_t)16 * 1024 * 1024)
#define ESC_LIMIT_BYTES_MAX ((size_t)INT32_MAX) /* what protobuf allows */
#define ESC_LIMIT_DEPTH_DEFAULT 100u
#define ESC_LIMIT_DEPTH_MAX 500u /* each level takes stack, in packing some hundred bytes */
#define ESC_LIMIT_MEMORY_FACTOR 32u
/* The default is never below: structs are large beside few bytes. */
#define ESC_LIMIT_MEMORY_MIN ((size_t)1024 * 1024)

/* `limits` (may be NULL) with the defaults filled in. */
escqrs_limits esc_limits_resolve(const escqrs_limits *limits);

typedef struct esc_check_result {
    size_t memory;   /* bytes of structs, arrays and a copy of the data */
    bool unknown;    /* there are unknown fields */
    bool duplicates; /* perhaps a singular nested message occurs more than once: see esc_merge */
} esc_check_result;

escqrs_status esc_check(const esc_plan *plan, escqrs_slice data, const escqrs_limits *resolved,
                        esc_check_result *result, escqrs_error *error) ESCQRS_MUST_USE;

/* The field of that number, or NULL. */
const esc_plan_field *esc_plan_find(const esc_plan *plan, uint32_t number);

#endif
