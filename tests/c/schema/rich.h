/* A message type with a field of every kind and label, that also contains itself: for the tests
 * here and for tests/fuzz/fuzz_message.c.
 *
 *     tests.Rich                                   tests.Leaf
 *      1 text: str              30 children: list[Rich]      1 label: str
 *      2 number: int            31 numbers: list[int]        2 weight: float | None
 *      3 ratio: float           32 flags: list[bool]
 *      4 flag: bool             33 ratios: list[float]
 *      5 raw: bytes             34 names: list[str]
 *      6 time: datetime         35 times: list[datetime]
 *      7 color: Color           36 colors: list[Color]
 *      8 leaf: Leaf             40 counts: dict[str, int]
 *      9 self: Rich | None      41 leaves: dict[int, Leaf]
 *     10 maybe: int | None      300 far: int (beyond the dense part of the table)
 */
#ifndef ESC_TESTS_SCHEMA_RICH_H
#define ESC_TESTS_SCHEMA_RICH_H

#include <escqrs/schema.h>

#include <stdlib.h>
#include <string.h>

typedef struct rich {
    escqrs_schema *root;
    escqrs_schema *leaf;
} rich;

static const escqrs_enum_value rich_colors[] = {{"RED", 1}, {"GREEN", 2}, {"DARK", -7}};

static inline escqrs_status rich_add(escqrs_schema *schema, const char *name, uint32_t number,
                                     escqrs_kind kind, escqrs_label label,
                                     const escqrs_schema *message, escqrs_error *error)
{
    escqrs_field_spec spec = {.name = name,
                              .number = number,
                              .kind = kind,
                              .label = label,
                              .message = message,
                              .key_kind = ESCQRS_KIND_STRING};
    if (kind == ESCQRS_KIND_ENUM) {
        spec.enum_name = "Color";
        spec.enum_values = rich_colors;
        spec.enum_value_count = sizeof rich_colors / sizeof rich_colors[0];
    }
    if (label == ESCQRS_MAP && kind == ESCQRS_KIND_MESSAGE) {
        spec.key_kind = ESCQRS_KIND_INT;
    }
    return escqrs_schema_add(schema, &spec, error);
}

static inline void rich_destroy(rich *r)
{
    escqrs_schema_destroy(r->root);
    escqrs_schema_destroy(r->leaf);
    *r = (rich){0};
}

/* OK, or the failure; then nothing is left of it. */
static inline escqrs_status rich_create(rich *r, escqrs_error *error)
{
    static const struct {
        const char *name;
        uint32_t number;
        escqrs_kind kind;
        escqrs_label label;
    } fields[] = {
        {"text", 1, ESCQRS_KIND_STRING, ESCQRS_ONE},
        {"number", 2, ESCQRS_KIND_INT, ESCQRS_ONE},
        {"ratio", 3, ESCQRS_KIND_FLOAT, ESCQRS_ONE},
        {"flag", 4, ESCQRS_KIND_BOOL, ESCQRS_ONE},
        {"raw", 5, ESCQRS_KIND_BYTES, ESCQRS_ONE},
        {"time", 6, ESCQRS_KIND_TIME, ESCQRS_ONE},
        {"color", 7, ESCQRS_KIND_ENUM, ESCQRS_ONE},
        {"maybe", 10, ESCQRS_KIND_INT, ESCQRS_OPTIONAL},
        {"far", 300, ESCQRS_KIND_INT, ESCQRS_ONE}, /* declared before lower numbers */
        {"numbers", 31, ESCQRS_KIND_INT, ESCQRS_LIST},
        {"flags", 32, ESCQRS_KIND_BOOL, ESCQRS_LIST},
        {"ratios", 33, ESCQRS_KIND_FLOAT, ESCQRS_LIST},
        {"names", 34, ESCQRS_KIND_STRING, ESCQRS_LIST},
        {"times", 35, ESCQRS_KIND_TIME, ESCQRS_LIST},
        {"colors", 36, ESCQRS_KIND_ENUM, ESCQRS_LIST},
        {"counts", 40, ESCQRS_KIND_INT, ESCQRS_MAP},
    };
    *r = (rich){0};
    escqrs_status status = escqrs_schema_create(escqrs_slice_of("tests.Leaf"), &r->leaf, error);
    if (status == ESCQRS_OK) {
        status = escqrs_schema_create(escqrs_slice_of("tests.Rich"), &r->root, error);
    }
    for (size_t i = 0; status == ESCQRS_OK && i < sizeof fields / sizeof fields[0]; i++) {
        status = rich_add(r->root, fields[i].name, fields[i].number, fields[i].kind,
                          fields[i].label, NULL, error);
    }
    if (status == ESCQRS_OK) {
        status = rich_add(r->root, "leaf", 8, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, r->leaf, error);
    }
    if (status == ESCQRS_OK) {
        status = rich_add(r->root, "self", 9, ESCQRS_KIND_MESSAGE, ESCQRS_OPTIONAL, r->root, error);
    }
    if (status == ESCQRS_OK) {
        status =
            rich_add(r->root, "children", 30, ESCQRS_KIND_MESSAGE, ESCQRS_LIST, r->root, error);
    }
    if (status == ESCQRS_OK) {
        status = rich_add(r->root, "leaves", 41, ESCQRS_KIND_MESSAGE, ESCQRS_MAP, r->leaf, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_schema_seal(r->root, error); /* before what it nests */
    }
    if (status == ESCQRS_OK) {
        status = rich_add(r->leaf, "label", 1, ESCQRS_KIND_STRING, ESCQRS_ONE, NULL, error);
    }
    if (status == ESCQRS_OK) {
        status = rich_add(r->leaf, "weight", 2, ESCQRS_KIND_FLOAT, ESCQRS_OPTIONAL, NULL, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_schema_seal(r->leaf, error);
    }
    if (status != ESCQRS_OK) {
        rich_destroy(r);
    }
    return status;
}

/* Where a field's value, flag and count are. The field must be there. */
static inline void *rich_at(const escqrs_schema *schema, ProtobufCMessage *message,
                            const char *name)
{
    const escqrs_field *field = escqrs_schema_find(schema, escqrs_slice_of(name));
    return field != NULL ? (uint8_t *)message + field->value_offset : NULL;
}

static inline protobuf_c_boolean *rich_has(const escqrs_schema *schema, ProtobufCMessage *message,
                                           const char *name)
{
    const escqrs_field *field = escqrs_schema_find(schema, escqrs_slice_of(name));
    return (protobuf_c_boolean *)(void *)((uint8_t *)message + field->has_offset);
}

static inline size_t *rich_count(const escqrs_schema *schema, ProtobufCMessage *message,
                                 const char *name)
{
    const escqrs_field *field = escqrs_schema_find(schema, escqrs_slice_of(name));
    return (size_t *)(void *)((uint8_t *)message + field->count_offset);
}

#endif
