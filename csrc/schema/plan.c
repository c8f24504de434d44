/* The table that check and decoder run over incoming bytes: for each field what one occurrence must
 * look like, what it costs in memory and where it goes. Built once at sealing; fields stand in the
 * order of their numbers, which is the order in which messages are written, so they mostly find the
 * next field where they look first. */
#include <string.h>

#include "schema/check.h"
#include "schema/wire.h"

#define ALIGNMENT 8

static const esc_plan_field timestamp_plan_fields[] = {
    {.short_tag = 1 << 3 | ESC_WIRE_VARINT,
     .step = ESC_STEP_SECONDS,
     .item_step = ESC_STEP_SECONDS,
     .wire = ESC_WIRE_VARINT,
     .item_wire = ESC_WIRE_VARINT,
     .store = ESC_STORE_INT64,
     .number = 1,
     .offset = offsetof(escqrs_timestamp, seconds),
     .has_offset = offsetof(escqrs_timestamp, has_seconds),
     .name = "seconds"},
    {.short_tag = 2 << 3 | ESC_WIRE_VARINT,
     .step = ESC_STEP_NANOS,
     .item_step = ESC_STEP_NANOS,
     .wire = ESC_WIRE_VARINT,
     .item_wire = ESC_WIRE_VARINT,
     .store = ESC_STORE_INT32,
     .number = 2,
     .offset = offsetof(escqrs_timestamp, nanos),
     .has_offset = offsetof(escqrs_timestamp, has_nanos),
     .name = "nanos"},
    {.short_tag = ESC_PLAN_NO_SHORT_TAG},
};
static const esc_plan_field duration_plan_fields[] = {
    {.short_tag = 1 << 3 | ESC_WIRE_VARINT,
     .step = ESC_STEP_SPAN_SECONDS,
     .item_step = ESC_STEP_SPAN_SECONDS,
     .wire = ESC_WIRE_VARINT,
     .item_wire = ESC_WIRE_VARINT,
     .store = ESC_STORE_INT64,
     .number = 1,
     .offset = offsetof(escqrs_duration, seconds),
     .has_offset = offsetof(escqrs_duration, has_seconds),
     .name = "seconds"},
    {.short_tag = 2 << 3 | ESC_WIRE_VARINT,
     .step = ESC_STEP_SPAN_NANOS,
     .item_step = ESC_STEP_SPAN_NANOS,
     .wire = ESC_WIRE_VARINT,
     .item_wire = ESC_WIRE_VARINT,
     .store = ESC_STORE_INT32,
     .number = 2,
     .offset = offsetof(escqrs_duration, nanos),
     .has_offset = offsetof(escqrs_duration, has_nanos),
     .name = "nanos"},
    {.short_tag = ESC_PLAN_NO_SHORT_TAG},
};
static const uint16_t timestamp_dense[] = {2, 0, 1};

static const esc_plan timestamp_plan = {
    .name = "google.protobuf.Timestamp",
    .cost = sizeof(escqrs_timestamp),
    .descriptor = &escqrs_timestamp_descriptor,
    .fields = timestamp_plan_fields,
    .count = 2,
    .dense_count = 3,
    .dense = timestamp_dense,
};

static const esc_plan duration_plan = {
    .name = "google.protobuf.Duration",
    .cost = sizeof(escqrs_duration),
    .descriptor = &escqrs_duration_descriptor,
    .fields = duration_plan_fields,
    .count = 2,
    .dense_count = 3,
    .dense = timestamp_dense,
};

static void fill_step(esc_plan_field *out, const escqrs_field *field)
{
    bool packed = field->label == ESCQRS_LIST && esc_kind_is_packable(field->kind);
    switch (field->label == ESCQRS_MAP ? ESCQRS_KIND_MESSAGE : field->kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_ENUM:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_SINT64:
        out->item_step = ESC_STEP_VARINT;
        out->item_wire = ESC_WIRE_VARINT;
        out->step = ESC_STEP_PACKED_VARINT;
        break;
    case ESCQRS_KIND_BOOL:
        out->item_step = ESC_STEP_VARINT;
        out->item_wire = ESC_WIRE_VARINT;
        out->step = ESC_STEP_PACKED_BOOL;
        break;
    case ESCQRS_KIND_FLOAT32:
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_SFIXED32:
        out->item_step = ESC_STEP_32BIT;
        out->item_wire = ESC_WIRE_32BIT;
        out->step = ESC_STEP_PACKED_32BIT;
        break;
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED64:
    case ESCQRS_KIND_FLOAT:
        out->item_step = ESC_STEP_64BIT;
        out->item_wire = ESC_WIRE_64BIT;
        out->step = ESC_STEP_PACKED_64BIT;
        break;
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        out->item_step = ESC_STEP_TEXT;
        out->item_wire = ESC_WIRE_BYTES;
        break;
    case ESCQRS_KIND_BYTES:
        out->item_step = ESC_STEP_BYTES;
        out->item_wire = ESC_WIRE_BYTES;
        break;
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DURATION:
    case ESCQRS_KIND_MESSAGE:
        out->item_step = ESC_STEP_MESSAGE;
        out->item_wire = ESC_WIRE_BYTES;
        break;
    }
    out->wire = ESC_WIRE_BYTES;
    if (!packed) {
        out->step = out->item_step;
        out->wire = out->item_wire;
    }
}

static uint8_t store_of(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_BOOL:
        return ESC_STORE_BOOL;
    case ESCQRS_KIND_ENUM:
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
        return ESC_STORE_INT32;
    case ESCQRS_KIND_SINT32:
        return ESC_STORE_SINT32;
    case ESCQRS_KIND_SINT64:
        return ESC_STORE_SINT64;
    default:
        return ESC_STORE_INT64;
    }
}

static void fill_field(esc_plan_field *out, const escqrs_field *field)
{
    memset(out, 0, sizeof *out);
    fill_step(out, field);
    out->name = field->name;
    out->number = field->number;
    out->repeated = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
    out->offset = (uint32_t)field->value_offset;
    out->has_offset = (uint32_t)field->has_offset;
    out->count_offset = (uint32_t)field->count_offset;
    out->store = store_of(field->kind);
    if (escqrs_kind_is_text(field->kind) && field->kind != ESCQRS_KIND_STRING) {
        out->form = (uint8_t)field->kind;
    }
    uint64_t tag = (uint64_t)field->number << 3 | out->wire;
    out->short_tag = tag < 0x80 ? (uint16_t)tag : ESC_PLAN_NO_SHORT_TAG;
    if (field->label == ESCQRS_MAP) {
        out->item_size = sizeof(ProtobufCMessage *);
        out->nested = &field->entry->plan;
        return;
    }
    out->item_size = (uint32_t)escqrs_kind_size(field->kind);
    if (field->kind == ESCQRS_KIND_MESSAGE) {
        out->nested = &field->message->plan;
    } else if (field->kind == ESCQRS_KIND_TIME) {
        out->nested = &timestamp_plan;
    } else if (field->kind == ESCQRS_KIND_DURATION) {
        out->nested = &duration_plan;
    }
}

/* What one message costs before any item: its struct, and the rounding of the arrays whose items
 * have four bytes. */
static size_t base_cost(const escqrs_schema *schema)
{
    size_t cost = schema->descriptor.sizeof_message;
    for (size_t i = 0; i < schema->field_count; i++) {
        const escqrs_field *field = &schema->fields[i];
        if (field->label == ESCQRS_LIST && escqrs_kind_size(field->kind) % ALIGNMENT != 0) {
            cost += ALIGNMENT;
        }
    }
    return cost;
}

escqrs_status esc_plan_build(escqrs_schema *schema)
{
    uint32_t count = (uint32_t)schema->field_count;
    esc_plan_field *fields = esc_arena_alloc(&schema->arena, (count + 1) * sizeof *fields);
    if (fields == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        esc_plan_field made;
        fill_field(&made, &schema->fields[i]);
        uint32_t at = i;
        while (at > 0 && fields[at - 1].number > made.number) {
            fields[at] = fields[at - 1];
            at--;
        }
        fields[at] = made;
    }
    memset(&fields[count], 0, sizeof fields[count]);
    fields[count].short_tag = ESC_PLAN_NO_SHORT_TAG;

    uint32_t slots = 0;
    uint32_t repeated = 0;
    for (uint32_t i = 0; i < count; i++) {
        repeated += fields[i].repeated ? 1 : 0;
        if (fields[i].nested != NULL && !fields[i].repeated) {
            fields[i].slot = (uint16_t)++slots;
        }
    }
    uint32_t dense_count = count == 0 ? 0 : fields[count - 1].number + 1;
    if (dense_count > ESC_PLAN_DENSE_MAX) {
        dense_count = ESC_PLAN_DENSE_MAX;
    }
    uint16_t *dense = esc_arena_alloc(&schema->arena, (dense_count + 1) * sizeof *dense);
    if (dense == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    for (uint32_t number = 0; number < dense_count; number++) {
        dense[number] = (uint16_t)count;
    }
    for (uint32_t i = 0; i < count && fields[i].number < dense_count; i++) {
        dense[fields[i].number] = (uint16_t)i;
    }
    schema->plan = (esc_plan){
        .name = schema->descriptor.name,
        .cost = base_cost(schema),
        .descriptor = &schema->descriptor,
        .fields = fields,
        .count = count,
        .dense_count = dense_count,
        .dense = dense,
        .slot_count = slots,
        .repeated_count = repeated,
        .flat_size = (uint32_t)((schema->descriptor.sizeof_message + ALIGNMENT - 1) &
                                ~(size_t)(ALIGNMENT - 1)),
        .flat = slots == 0 && repeated == 0,
    };
    return ESCQRS_OK;
}

const esc_plan_field *esc_plan_find(const esc_plan *plan, uint32_t number)
{
    if (number < plan->dense_count) {
        uint32_t index = plan->dense[number];
        return index < plan->count ? &plan->fields[index] : NULL;
    }
    size_t low = 0;
    size_t high = plan->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (plan->fields[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < plan->count && plan->fields[low].number == number;
    return found ? &plan->fields[low] : NULL;
}
