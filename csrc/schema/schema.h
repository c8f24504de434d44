/* Inside of a schema: what schema.c builds and check.c, codec.c, json.c and the others read.
 *
 * A sealed schema holds the same fields three times, each for one reader: `fields` in the order of
 * declaration for the binding, `descriptor` sorted by number for protobuf-c, and `plan` for the
 * check. */
#ifndef ESC_SCHEMA_SCHEMA_H
#define ESC_SCHEMA_SCHEMA_H

#include <escqrs/schema.h>

#include "base/arena.h"
#include "schema/wire.h"

#define ESC_SCHEMA_FIELDS_MAX 1000
#define ESC_SCHEMA_NAME_SIZE_MAX 255
#define ESC_SCHEMA_ENUM_VALUES_MAX 10000
#define ESC_SCHEMA_NUMBER_MAX 536870911u
#define ESC_SCHEMA_NUMBER_RESERVED_FIRST 19000u
#define ESC_SCHEMA_NUMBER_RESERVED_LAST 19999u

/* What the check does with one occurrence of a field. */
typedef enum esc_plan_step {
    ESC_STEP_VARINT,
    ESC_STEP_64BIT,
    ESC_STEP_32BIT,
    ESC_STEP_BYTES,
    ESC_STEP_TEXT,
    ESC_STEP_MESSAGE,
    ESC_STEP_PACKED_VARINT,
    ESC_STEP_PACKED_BOOL,
    ESC_STEP_PACKED_64BIT,
    ESC_STEP_PACKED_32BIT,
    ESC_STEP_SECONDS,
    ESC_STEP_NANOS,
    ESC_STEP_SPAN_SECONDS, /* of a duration */
    ESC_STEP_SPAN_NANOS,
} esc_plan_step;

/* The C type that a varint becomes. */
typedef enum esc_plan_store {
    ESC_STORE_INT64,
    ESC_STORE_INT32,
    ESC_STORE_BOOL,
    ESC_STORE_SINT64,
    ESC_STORE_SINT32,
} esc_plan_store;

typedef struct esc_plan esc_plan;

typedef struct esc_plan_field {
    uint16_t short_tag; /* the one byte of the tag as usually written, or ESC_PLAN_NO_SHORT_TAG */
    uint8_t step;       /* esc_plan_step of an occurrence written as usual */
    uint8_t item_step;  /* of a single item; differs from `step` where lists are packed */
    uint8_t wire;       /* of `step` */
    uint8_t item_wire;  /* of `item_step` */
    uint8_t store;      /* esc_plan_store */
    uint8_t form;       /* escqrs_kind of a text that is more than UTF-8; else 0 */
    bool repeated;
    uint16_t slot; /* 1, 2, ... among the singular messages; else 0 */
    uint32_t number;
    uint32_t item_size; /* repeated: bytes of an item in the array */
    uint32_t offset;
    uint32_t has_offset;   /* 0: none */
    uint32_t count_offset; /* repeated */
    const esc_plan *nested;
    const char *name;
} esc_plan_field;

#define ESC_PLAN_NO_SHORT_TAG 0xffffu
#define ESC_PLAN_SLOTS 64u /* that the check tells apart; later ones share the last */
#define ESC_PLAN_DENSE_MAX 256u

/* The table that check.c and decode.c run over the bytes. */
struct esc_plan {
    const char *name; /* of the message; NULL while its schema is not sealed */
    size_t cost;      /* bytes of memory for a message without any item */
    const ProtobufCMessageDescriptor *descriptor;
    const esc_plan_field *fields; /* by number, then one that matches no tag */
    uint32_t count;
    uint32_t dense_count;  /* numbers below it are looked up in `dense`, others by bisection */
    const uint16_t *dense; /* index of the field with that number, or `count` */
    uint32_t slot_count;   /* how many singular messages there are */
    uint32_t repeated_count;
    uint32_t flat_size; /* of the struct, rounded up to 8 */
    bool flat;          /* see flat.h */
};

/* Put a varint's bits where the field's value goes. */
static inline void esc_plan_store_varint(const esc_plan_field *field, uint64_t value, uint8_t *to)
{
    switch (field->store) {
    case ESC_STORE_INT64:
        *(int64_t *)(void *)to = (int64_t)value;
        break;
    case ESC_STORE_INT32:
        *(int32_t *)(void *)to = (int32_t)(uint32_t)value;
        break;
    case ESC_STORE_SINT64:
        *(int64_t *)(void *)to = esc_wire_unzigzag(value);
        break;
    case ESC_STORE_SINT32:
        *(int32_t *)(void *)to = (int32_t)esc_wire_unzigzag((uint32_t)value);
        break;
    default:
        *(protobuf_c_boolean *)(void *)to = value != 0;
        break;
    }
}

struct escqrs_schema {
    ProtobufCMessageDescriptor descriptor; /* magic is 0 until sealed */
    esc_plan plan;
    escqrs_field *fields; /* in order of addition */
    size_t field_count;
    size_t field_capacity;
    const uint32_t *by_name;   /* indices of `fields`, sorted by name */
    const uint32_t *by_number; /* the same, sorted by number */
    escqrs_schema **owned;     /* entries of maps; of a loaded schema all that it nests */
    size_t owned_count;
    size_t owned_capacity;
    esc_arena arena; /* names, descriptors, tables */
    bool sealed;
    const char **was; /* former names */
    size_t was_count;
    bool is_entry; /* of a map */
    bool is_union;
    _Atomic uint64_t fingerprint; /* 0: not yet computed */
};

/* Build plan and descriptor of a schema whose fields are complete. NO_MEMORY. */
escqrs_status esc_plan_build(escqrs_schema *schema) ESCQRS_MUST_USE;
escqrs_status esc_descriptor_build(escqrs_schema *schema) ESCQRS_MUST_USE;

/* The field of that number, or NULL. Sealed schemas only. */
const escqrs_field *esc_schema_find_number(const escqrs_schema *schema, uint32_t number);

static inline bool esc_kind_is_packable(escqrs_kind kind)
{
    return !escqrs_kind_is_pointer(kind) && !escqrs_kind_is_text(kind) && kind != ESCQRS_KIND_BYTES;
}

#endif
