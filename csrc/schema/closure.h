/* A schema with all that it nests. */
#ifndef ESC_SCHEMA_CLOSURE_H
#define ESC_SCHEMA_CLOSURE_H

#include "base/vector.h"
#include "schema/schema.h"

/* Append to `out`, a vector of const escqrs_schema *, the given schemas and all that they nest,
 * each name once: breadth first, fields in the order of their numbers. NAME_CLASH where two
 * different messages have one name, INVALID where one is not sealed, NO_MEMORY. */
escqrs_status esc_closure_collect(const escqrs_schema *const *schemas, size_t count,
                                  esc_vector *out, escqrs_error *error) ESCQRS_MUST_USE;

/* The index of the schema with that name in a closure; it must be there. */
size_t esc_closure_index(const esc_vector *closure, const char *name);

/* Are the two enums the same: the same members with the same numbers? */
bool esc_enum_equal(const escqrs_field *a, const escqrs_field *b);

#endif
