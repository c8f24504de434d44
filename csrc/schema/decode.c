/* Bytes that passed the check to protobuf-c's structs, in memory that is large enough.
 *
 * The data is copied whole to the end of the memory; text, bytes and unknown fields point into that
 * copy, and structs and arrays are laid one behind the other before it. A message that can have
 * lists, or data with unknown fields, is gone over twice: items are counted first, so that each
 * array is allocated once. Nothing is checked for bounds again; that memory suffices is asserted.
 */
#include "schema/decode.h"

#include <string.h>

#include "base/assert.h"
#include "schema/check.h"
#include "schema/wire.h"

#define ALIGNMENT ((size_t)8)

typedef struct decoder {
    uint8_t *next; /* free memory: from here ... */
    uint8_t *end;  /* ... to here, where the copy of the data begins */
    bool unknown;
} decoder;

/* One field as it stands in the data. */
typedef struct occurrence {
    const esc_plan_field *field; /* NULL: unknown */
    uint32_t tag;
    unsigned step;
    const uint8_t *start; /* behind the tag */
    const uint8_t *data;  /* payload; behind the length, if there is one */
    size_t size;          /* of the payload */
} occurrence;

static void decode_message(decoder *d, const esc_plan *plan, const uint8_t *at, const uint8_t *end,
                           ProtobufCMessage **out);

static void *take(decoder *d, size_t size)
{
    size_t rounded = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    ESC_ASSERT(rounded <= (size_t)(d->end - d->next));
    void *piece = d->next;
    d->next += rounded;
    return piece;
}

static inline const uint8_t *read_varint(const uint8_t *at, uint64_t *value)
{
    uint64_t result = *at & 0x7f;
    for (unsigned shift = 7; *at >= 0x80; shift += 7) {
        at++;
        result |= (uint64_t)(*at & 0x7f) << shift;
    }
    *value = result;
    return at + 1;
}

/* The field at `at`, which is before the end; *expected is where its plan is looked for first.
 * Returns what is behind it. */
static inline const uint8_t *read_field(const esc_plan *plan, const esc_plan_field **expected,
                                        const uint8_t *at, occurrence *o)
{
    uint32_t wire;
    o->field = *expected;
    if (*at == o->field->short_tag) {
        o->tag = *at++;
        wire = o->field->wire;
        o->step = o->field->step;
    } else {
        uint64_t tag = 0;
        at = read_varint(at, &tag);
        o->tag = (uint32_t)tag;
        wire = (uint32_t)tag & 7;
        o->field = esc_plan_find(plan, (uint32_t)tag >> 3);
        if (o->field != NULL) {
            o->step = wire == o->field->wire ? o->field->step : o->field->item_step;
        }
    }
    if (o->field != NULL) {
        *expected = o->field->repeated ? o->field : o->field + 1;
    }
    o->start = at;
    o->data = at;
    uint64_t size = 0;
    switch (wire) {
    case ESC_WIRE_VARINT:
        while (*at >= 0x80) {
            at++;
        }
        at++;
        break;
    case ESC_WIRE_64BIT:
        at += 8;
        break;
    case ESC_WIRE_32BIT:
        at += 4;
        break;
    default:
        at = read_varint(at, &size);
        o->data = at;
        at += size;
        break;
    }
    o->size = (size_t)(at - o->data);
    return at;
}

static size_t count_items(const occurrence *o)
{
    size_t count = 0;
    switch (o->step) {
    case ESC_STEP_PACKED_VARINT:
        for (size_t i = 0; i < o->size; i++) {
            count += o->data[i] < 0x80 ? 1 : 0;
        }
        return count;
    case ESC_STEP_PACKED_BOOL:
        return o->size;
    case ESC_STEP_PACKED_64BIT:
        return o->size / 8;
    case ESC_STEP_PACKED_32BIT:
        return o->size / 4;
    default:
        return 1;
    }
}

static inline size_t *count_of(uint8_t *message, const esc_plan_field *field)
{
    return (size_t *)(void *)(message + field->count_offset);
}

/* Count the items of each list and take memory for the arrays; all counts are zero again after. */
static __attribute__((noinline)) void take_arrays(decoder *d, const esc_plan *plan,
                                                  uint8_t *message, const uint8_t *at,
                                                  const uint8_t *end)
{
    const esc_plan_field *expected = plan->fields;
    size_t unknown = 0;
    while (at < end) {
        occurrence o;
        at = read_field(plan, &expected, at, &o);
        if (o.field == NULL) {
            unknown++;
        } else if (o.field->repeated) {
            *count_of(message, o.field) += count_items(&o);
        }
    }
    for (uint32_t i = 0; i < plan->count && plan->repeated_count > 0; i++) {
        const esc_plan_field *field = &plan->fields[i];
        if (field->repeated && *count_of(message, field) > 0) {
            void *items = take(d, *count_of(message, field) * field->item_size);
            memcpy(message + field->offset, &items, sizeof items);
            *count_of(message, field) = 0;
        }
    }
    if (unknown > 0) {
        ((ProtobufCMessage *)(void *)message)->unknown_fields =
            take(d, unknown * sizeof(ProtobufCMessageUnknownField));
    }
}

/* Items of a packed list behind those that are there; how many. */
static size_t decode_packed(const occurrence *o, uint8_t *to)
{
    const uint8_t *at = o->data;
    const uint8_t *end = at + o->size;
    size_t count = 0;
    if (o->step == ESC_STEP_PACKED_64BIT || o->step == ESC_STEP_PACKED_32BIT) {
        if (o->size > 0) {
            memcpy(to, at, o->size);
        }
        return o->size / o->field->item_size;
    }
    while (at < end) {
        uint64_t value = 0;
        at = read_varint(at, &value);
        esc_plan_store_varint(o->field, value, to + count * o->field->item_size);
        count++;
    }
    return count;
}

static void keep_unknown(uint8_t *message, const occurrence *o, const uint8_t *end)
{
    ProtobufCMessage *base = (ProtobufCMessage *)(void *)message;
    base->unknown_fields[base->n_unknown_fields++] = (ProtobufCMessageUnknownField){
        .tag = o->tag >> 3,
        .wire_type = (ProtobufCWireType)(o->tag & 7),
        .len = (size_t)(end - o->start),
        .data = (uint8_t *)o->start, /* in the copy, which is ours */
    };
}

/* Where the next value of the field goes. */
static inline uint8_t *place_of(uint8_t *message, const esc_plan_field *field)
{
    uint8_t *to = message + field->offset;
    if (field->repeated) {
        uint8_t *items = NULL;
        memcpy(&items, to, sizeof items);
        size_t count = *count_of(message, field);
        return count > 0 ? items + count * field->item_size : items;
    }
    if (field->has_offset != 0) {
        *(protobuf_c_boolean *)(void *)(message + field->has_offset) = 1;
    }
    return to;
}

static void decode_message(decoder *d, const esc_plan *plan, const uint8_t *at, const uint8_t *end,
                           ProtobufCMessage **out)
{
    size_t struct_size = plan->descriptor->sizeof_message;
    uint8_t *message = take(d, struct_size);
    memset(message, 0, struct_size);
    *out = (ProtobufCMessage *)(void *)message;
    (*out)->descriptor = plan->descriptor;
    if (plan->repeated_count > 0 || d->unknown) {
        take_arrays(d, plan, message, at, end);
    }
    const esc_plan_field *expected = plan->fields;
    while (at < end) {
        occurrence o = {0};
        at = read_field(plan, &expected, at, &o);
        if (o.field == NULL) {
            keep_unknown(message, &o, at);
            continue;
        }
        uint8_t *to = place_of(message, o.field);
        uint64_t value = 0;
        size_t count = 1;
        switch (o.step) {
        case ESC_STEP_VARINT:
        case ESC_STEP_SECONDS:
        case ESC_STEP_NANOS:
        case ESC_STEP_SPAN_SECONDS:
        case ESC_STEP_SPAN_NANOS:
            read_varint(o.data, &value);
            esc_plan_store_varint(o.field, value, to);
            break;
        case ESC_STEP_64BIT:
            memcpy(to, o.data, 8);
            break;
        case ESC_STEP_32BIT:
            memcpy(to, o.data, 4);
            break;
        case ESC_STEP_BYTES:
        case ESC_STEP_TEXT:
            *(ProtobufCBinaryData *)(void *)to =
                (ProtobufCBinaryData){o.size, (uint8_t *)o.data}; /* in the copy, which is ours */
            break;
        case ESC_STEP_MESSAGE:
            decode_message(d, o.field->nested, o.data, at, (ProtobufCMessage **)(void *)to);
            break;
        default:
            count = decode_packed(&o, to);
            break;
        }
        if (o.field->repeated) {
            *count_of(message, o.field) += count;
        }
    }
}

ProtobufCMessage *esc_decode(const esc_plan *plan, escqrs_slice data, bool unknown, void *memory,
                             size_t size)
{
    ESC_ASSERT(size >= data.size);
    decoder d = {
        .next = memory,
        .end = (uint8_t *)memory + (size - data.size),
        .unknown = unknown,
    };
    if (data.size > 0) {
        memcpy(d.end, data.data, data.size);
    }
    ProtobufCMessage *message = NULL;
    decode_message(&d, plan, d.end, d.end + data.size, &message);
    return message;
}
