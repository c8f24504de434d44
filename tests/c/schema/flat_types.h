/* A message type that is flat (schema/flat.h), with a field of each kind that it may have: for the
 * tests here and for tests/fuzz/fuzz_flat.c. */
#ifndef ESC_TESTS_SCHEMA_FLAT_TYPES_H
#define ESC_TESTS_SCHEMA_FLAT_TYPES_H

#include <escqrs/schema.h>

static const escqrs_enum_value flat_colors[] = {{"RED", 0}, {"GREEN", 7}};

/* The fields' numbers are their places from 1, but for the last, which has no short tag. */
static const struct {
    const char *name;
    escqrs_kind kind;
    escqrs_label label;
} flat_fields[] = {
    {"text", ESCQRS_KIND_STRING, ESCQRS_ONE},      {"number", ESCQRS_KIND_INT, ESCQRS_ONE},
    {"ratio", ESCQRS_KIND_FLOAT, ESCQRS_ONE},      {"flag", ESCQRS_KIND_BOOL, ESCQRS_ONE},
    {"raw", ESCQRS_KIND_BYTES, ESCQRS_OPTIONAL},   {"color", ESCQRS_KIND_ENUM, ESCQRS_ONE},
    {"small", ESCQRS_KIND_INT32, ESCQRS_OPTIONAL}, {"natural", ESCQRS_KIND_UINT64, ESCQRS_ONE},
    {"zigzag", ESCQRS_KIND_SINT32, ESCQRS_ONE},    {"zagzig", ESCQRS_KIND_SINT64, ESCQRS_ONE},
    {"day", ESCQRS_KIND_DATE, ESCQRS_ONE},         {"price", ESCQRS_KIND_DECIMAL, ESCQRS_OPTIONAL},
    {"id", ESCQRS_KIND_UUID, ESCQRS_ONE},          {"far", ESCQRS_KIND_INT, ESCQRS_ONE},
};

#define FLAT_FIELDS (sizeof flat_fields / sizeof flat_fields[0])
#define FLAT_FAR 4000u

/* OK, or the failure; then nothing is left of it. */
static inline escqrs_status flat_create(escqrs_schema **schema, escqrs_error *error)
{
    escqrs_status status = escqrs_schema_create(escqrs_slice_of("tests.Flat"), schema, error);
    for (size_t i = 0; status == ESCQRS_OK && i < FLAT_FIELDS; i++) {
        escqrs_field_spec spec = {
            .name = flat_fields[i].name,
            .number = i + 1 < FLAT_FIELDS ? (uint32_t)i + 1 : FLAT_FAR,
            .kind = flat_fields[i].kind,
            .label = flat_fields[i].label,
        };
        if (spec.kind == ESCQRS_KIND_ENUM) {
            spec.enum_name = "Color";
            spec.enum_values = flat_colors;
            spec.enum_value_count = sizeof flat_colors / sizeof flat_colors[0];
        }
        status = escqrs_schema_add(*schema, &spec, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_schema_seal(*schema, error);
    }
    if (status != ESCQRS_OK) {
        escqrs_schema_destroy(*schema);
        *schema = NULL;
    }
    return status;
}

#endif
