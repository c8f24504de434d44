/* The proof that bytes from outside can be decoded, in one pass and without memory.
 *
 * Everything is decided here: size, depth, counts, wire types, lengths, UTF-8, the range of times.
 * What comes after trusts it: the decoder (decode.c) looks at no bounds, and protobuf-c, which
 * packs, has no limit of depth and counts items in 32 bits. The pass also adds up the memory that
 * the decoded message takes, so that codec.c can have it in one block, and sees whether the merge
 * (merge.c) is needed before. */
#include "schema/check.h"

#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "schema/form.h"
#include "schema/wire.h"

#define ALIGNMENT ((size_t)8)

/* 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, what google.protobuf.Timestamp and datetime can
 * say. */
#define SECONDS_MIN (-62135596800LL)
#define SECONDS_MAX 253402300799LL
#define NANOS_MAX 999999999LL
#define SPAN_SECONDS_MAX 315576000000LL /* of google.protobuf.Duration */

typedef struct check {
    const uint8_t *data; /* of the outermost message, for offsets in texts */
    size_t memory;
    size_t items;
    size_t unknown;
    size_t items_max;
    unsigned depth_max;
    bool duplicates;
    /* the failure, if there is one: */
    escqrs_status status;
    const uint8_t *at;
    const esc_plan *plan;
    const esc_plan_field *field; /* or NULL */
    const char *reason;
} check;

escqrs_limits esc_limits_resolve(const escqrs_limits *limits)
{
    escqrs_limits resolved = limits != NULL ? *limits : (escqrs_limits){0};
    if (resolved.bytes_max == 0) {
        resolved.bytes_max = ESC_LIMIT_BYTES_DEFAULT;
    }
    if (resolved.bytes_max > ESC_LIMIT_BYTES_MAX) {
        resolved.bytes_max = ESC_LIMIT_BYTES_MAX;
    }
    if (resolved.depth_max == 0) {
        resolved.depth_max = ESC_LIMIT_DEPTH_DEFAULT;
    }
    if (resolved.depth_max > ESC_LIMIT_DEPTH_MAX) {
        resolved.depth_max = ESC_LIMIT_DEPTH_MAX;
    }
    if (resolved.items_max == 0) {
        resolved.items_max = resolved.bytes_max;
    }
    if (resolved.memory_max == 0) {
        resolved.memory_max = resolved.bytes_max * ESC_LIMIT_MEMORY_FACTOR;
        if (resolved.memory_max < ESC_LIMIT_MEMORY_MIN) {
            resolved.memory_max = ESC_LIMIT_MEMORY_MIN;
        }
    }
    return resolved;
}

static inline size_t round_up(size_t size)
{
    return (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

/* Remembers the first failure; the text is made when the recursion has unwound. */
static __attribute__((noinline)) bool fail(check *c, escqrs_status status, const uint8_t *at,
                                           const esc_plan *plan, const esc_plan_field *field,
                                           const char *reason)
{
    c->status = status;
    c->at = at;
    c->plan = plan;
    c->field = field;
    c->reason = reason;
    return false;
}

static inline bool is_text(const uint8_t *at, size_t size)
{
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, at + i, 8);
        if ((word & 0x8080808080808080u) != 0) {
            return esc_utf8_valid((escqrs_slice){at + i, size - i});
        }
    }
    for (; i < size; i++) {
        if (at[i] >= 0x80) {
            return esc_utf8_valid((escqrs_slice){at + i, size - i});
        }
    }
    return true;
}

/* Why there is no varint at `at`. */
static const char *number_fault(const uint8_t *at, const uint8_t *end)
{
    return end - at < (ptrdiff_t)ESC_WIRE_VARINT_SIZE_MAX ? "a number that is cut off"
                                                          : "a varint of more than 10 bytes";
}

/* Why there is no tag at `at`. */
static const char *tag_fault(const uint8_t *at, const uint8_t *end)
{
    for (size_t i = 0; i < ESC_WIRE_SHORT_SIZE_MAX; i++) {
        if (at + i == end) {
            return "a tag that is cut off";
        }
        if (at[i] < 0x80) {
            return "a tag with a field number that does not exist";
        }
    }
    return "a tag whose varint has more than 5 bytes";
}

/* Why there is no length at `at`, or one that is too long. */
static const char *length_fault(const uint8_t *at, const uint8_t *end)
{
    size_t i = 0;
    while (i < ESC_WIRE_SHORT_SIZE_MAX && at + i < end && at[i] >= 0x80) {
        i++;
    }
    return i == ESC_WIRE_SHORT_SIZE_MAX ? "a length whose varint has more than 5 bytes"
                                        : "a length beyond the end of its message";
}

/* How many varints the bytes are, all of them whole. NULL, or the one that is cut off or too
 * long. */
static const uint8_t *count_varints(const uint8_t *at, const uint8_t *end, size_t *count)
{
    size_t made = 0;
    while (at < end) {
        const uint8_t *stop = esc_wire_skip_varint(at, end);
        if (stop == NULL) {
            return at;
        }
        at = stop;
        made++;
    }
    *count = made;
    return NULL;
}

static bool are_bools(const uint8_t *at, const uint8_t *end)
{
    uint8_t all = 0;
    for (; at < end; at++) {
        all |= *at;
    }
    return all <= 1;
}

static const uint8_t *check_packed(check *c, const esc_plan *plan, const esc_plan_field *field,
                                   unsigned step, const uint8_t *at, size_t size)
{
    size_t count = 0;
    const uint8_t *end = at + size;
    bool good = false;
    const uint8_t *fault = at;
    const char *reason = "a packed list that does not decode";
    switch (step) {
    case ESC_STEP_PACKED_VARINT:
        fault = count_varints(at, end, &count);
        good = fault == NULL;
        reason = good ? NULL : number_fault(fault, end);
        break;
    case ESC_STEP_PACKED_BOOL:
        /* protobuf-c takes one byte for one item */
        good = are_bools(at, end);
        count = size;
        break;
    case ESC_STEP_PACKED_32BIT:
        good = size % 4 == 0;
        count = size / 4;
        break;
    default:
        good = size % 8 == 0;
        count = size / 8;
        break;
    }
    if (!good) {
        fail(c, ESCQRS_CORRUPT, fault, plan, field, reason);
        return NULL;
    }
    c->items += count;
    c->memory += count * field->item_size;
    if (c->items > c->items_max) {
        fail(c, ESCQRS_TOO_LARGE, at, plan, field, "more items than are allowed");
        return NULL;
    }
    return end;
}

static const char *unknown_fault(uint32_t wire, const uint8_t *at, const uint8_t *end)
{
    bool number = wire == ESC_WIRE_VARINT && end - at >= (ptrdiff_t)ESC_WIRE_VARINT_SIZE_MAX;
    return number ? "an unknown field with a varint of more than 10 bytes"
                  : "an unknown field that is cut off";
}

static const uint8_t *check_unknown(check *c, const esc_plan *plan, uint32_t wire,
                                    const uint8_t *at, const uint8_t *end)
{
    const uint8_t *stop = NULL;
    uint64_t size = 0;
    switch (wire) {
    case ESC_WIRE_VARINT:
        stop = esc_wire_skip_varint(at, end);
        break;
    case ESC_WIRE_64BIT:
        stop = end - at >= 8 ? at + 8 : NULL;
        break;
    case ESC_WIRE_32BIT:
        stop = end - at >= 4 ? at + 4 : NULL;
        break;
    case ESC_WIRE_BYTES:
        stop = esc_wire_read_short(at, end, &size);
        stop = stop != NULL && size <= (uint64_t)(end - stop) ? stop + size : NULL;
        break;
    default:
        fail(c, ESCQRS_CORRUPT, at, plan, NULL, "a group or a wire type that does not exist");
        return NULL;
    }
    if (stop == NULL) {
        fail(c, ESCQRS_CORRUPT, at, plan, NULL, unknown_fault(wire, at, end));
        return NULL;
    }
    c->items++;
    c->unknown++;
    c->memory += sizeof(ProtobufCMessageUnknownField);
    if (c->items > c->items_max) {
        fail(c, ESCQRS_TOO_LARGE, at, plan, NULL, "more items than are allowed");
        return NULL;
    }
    return stop;
}

static const uint8_t *check_time(check *c, const esc_plan *plan, const esc_plan_field *field,
                                 const uint8_t *at, const uint8_t *end)
{
    const uint8_t *stop = esc_wire_skip_varint(at, end);
    if (stop == NULL) {
        fail(c, ESCQRS_CORRUPT, at, plan, field, number_fault(at, end));
        return NULL;
    }
    /* Put together as protobuf-c does: bits beyond 64 are dropped, nanos are the low 32. */
    uint64_t bits = 0;
    for (size_t i = 0; at + i < stop; i++) {
        bits |= (uint64_t)(at[i] & 0x7f) << (7 * i);
    }
    int64_t value =
        field->store == ESC_STORE_INT64 ? (int64_t)bits : (int64_t)(int32_t)(uint32_t)bits;
    bool good = false;
    switch (field->step) {
    case ESC_STEP_SECONDS:
        good = value >= SECONDS_MIN && value <= SECONDS_MAX;
        break;
    case ESC_STEP_NANOS:
        good = value >= 0 && value <= NANOS_MAX;
        break;
    case ESC_STEP_SPAN_SECONDS:
        good = value >= -SPAN_SECONDS_MAX && value <= SPAN_SECONDS_MAX;
        break;
    default:
        good = value >= -NANOS_MAX && value <= NANOS_MAX;
        break;
    }
    if (!good) {
        bool span = field->step == ESC_STEP_SPAN_SECONDS || field->step == ESC_STEP_SPAN_NANOS;
        fail(c, ESCQRS_CORRUPT, at, plan, field,
             span ? "a duration beyond 10,000 years" : "a time outside the years 1 to 9999");
        return NULL;
    }
    return stop;
}

/* The tag at *at where it is not the one looked for first; NULL if it is none. *field is NULL for a
 * number that the message does not have. */
static __attribute__((noinline)) const uint8_t *read_tag(check *c, const esc_plan *plan,
                                                         const uint8_t *at, const uint8_t *end,
                                                         const esc_plan_field **field,
                                                         uint32_t *wire)
{
    uint64_t tag = 0;
    const uint8_t *stop = esc_wire_read_short(at, end, &tag);
    if (stop == NULL || tag > UINT32_MAX || tag >> 3 == 0) {
        fail(c, ESCQRS_CORRUPT, at, plan, NULL, tag_fault(at, end));
        return NULL;
    }
    *wire = (uint32_t)tag & 7;
    *field = esc_plan_find(plan, (uint32_t)(tag >> 3));
    if (*field != NULL && *wire != (*field)->wire && *wire != (*field)->item_wire) {
        fail(c, ESCQRS_CORRUPT, at, plan, *field, "another wire type than the field's");
        return NULL;
    }
    return stop;
}

static bool check_message(check *c, const esc_plan *plan, const uint8_t *at, const uint8_t *end,
                          unsigned depth)
{
    const esc_plan_field *expected = plan->fields;
    uint64_t seen = 0;
    c->memory += plan->cost;
    while (at < end) {
        const uint8_t *start = at;
        const esc_plan_field *field = expected;
        unsigned step = field->step;
        if (*at == field->short_tag) {
            at++;
        } else {
            uint32_t wire = 0;
            at = read_tag(c, plan, at, end, &field, &wire);
            if (at == NULL) {
                return false;
            }
            if (field == NULL) {
                at = check_unknown(c, plan, wire, at, end);
                if (at == NULL) {
                    return false;
                }
                continue;
            }
            step = wire == field->wire ? field->step : field->item_step;
        }
        expected = field->repeated ? field : field + 1;

        uint64_t size = 0;
        switch (step) {
        case ESC_STEP_VARINT: {
            const uint8_t *number = at;
            at = esc_wire_skip_varint(at, end);
            if (at == NULL) {
                return fail(c, ESCQRS_CORRUPT, start, plan, field, number_fault(number, end));
            }
            break;
        }
        case ESC_STEP_64BIT:
            if (end - at < 8) {
                return fail(c, ESCQRS_CORRUPT, start, plan, field, "a number that is cut off");
            }
            at += 8;
            break;
        case ESC_STEP_32BIT:
            if (end - at < 4) {
                return fail(c, ESCQRS_CORRUPT, start, plan, field, "a number that is cut off");
            }
            at += 4;
            break;
        case ESC_STEP_SECONDS:
        case ESC_STEP_NANOS:
        case ESC_STEP_SPAN_SECONDS:
        case ESC_STEP_SPAN_NANOS:
            at = check_time(c, plan, field, at, end);
            if (at == NULL) {
                return false;
            }
            break;
        default: {
            const uint8_t *length = at;
            at = esc_wire_read_short(at, end, &size);
            if (at == NULL || size > (uint64_t)(end - at)) {
                return fail(c, ESCQRS_CORRUPT, start, plan, field, length_fault(length, end));
            }
            if (step == ESC_STEP_TEXT) {
                if (!is_text(at, size)) {
                    return fail(c, ESCQRS_CORRUPT, start, plan, field, "text that is not UTF-8");
                }
                if (field->form != 0 && !esc_form_valid((escqrs_kind)field->form, at, size)) {
                    return fail(c, ESCQRS_CORRUPT, start, plan, field,
                                esc_form_fault((escqrs_kind)field->form));
                }
                at += size;
            } else if (step == ESC_STEP_BYTES) {
                at += size;
            } else if (step == ESC_STEP_MESSAGE) {
                if (depth >= c->depth_max) {
                    return fail(c, ESCQRS_TOO_LARGE, start, plan, field, "nesting too deep");
                }
                if (field->nested->name == NULL) {
                    return fail(c, ESCQRS_INVALID, start, plan, field,
                                "the nested message's schema is not sealed");
                }
                if (field->slot != 0) {
                    unsigned slot = field->slot < ESC_PLAN_SLOTS ? field->slot : ESC_PLAN_SLOTS;
                    uint64_t bit = (uint64_t)1 << (slot - 1);
                    c->duplicates |= (seen & bit) != 0;
                    seen |= bit;
                }
                if (!check_message(c, field->nested, at, at + size, depth + 1)) {
                    return false;
                }
                at += size;
            } else {
                at = check_packed(c, plan, field, step, at, size);
                if (at == NULL) {
                    return false;
                }
                continue; /* the items are counted */
            }
            break;
        }
        }
        if (field->repeated) {
            c->items++;
            c->memory += field->item_size;
            if (c->items > c->items_max) {
                return fail(c, ESCQRS_TOO_LARGE, start, plan, field, "more items than are allowed");
            }
        }
    }
    return true;
}

static escqrs_status report(const check *c, const esc_plan *root, const escqrs_limits *limits,
                            escqrs_error *error)
{
    size_t offset = (size_t)(c->at - c->data);
    const char *inside = c->plan == root ? "" : " inside of ";
    const char *nested = c->plan == root ? "" : c->plan->name;
    if (c->field == NULL) {
        return escqrs_error_set(
            error, c->status, "%s%s%s: byte %zu: %s (limits: depth %u, items %zu)", root->name,
            inside, nested, offset, c->reason, limits->depth_max, limits->items_max);
    }
    return escqrs_error_set(error, c->status,
                            "%s%s%s: byte %zu: field %lu (`%s`): %s (limits: depth %u, items %zu)",
                            root->name, inside, nested, offset, (unsigned long)c->field->number,
                            c->field->name, c->reason, limits->depth_max, limits->items_max);
}

escqrs_status esc_check(const esc_plan *plan, escqrs_slice data, const escqrs_limits *resolved,
                        esc_check_result *result, escqrs_error *error)
{
    if (data.size > resolved->bytes_max) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "%s: a message of %zu bytes, more than the %zu that are allowed",
                                plan->name, data.size, resolved->bytes_max);
    }
    check c = {
        .data = data.data,
        .items_max = resolved->items_max,
        .depth_max = resolved->depth_max,
    };
    const uint8_t *end = data.size > 0 ? c.data + data.size : c.data;
    if (!check_message(&c, plan, c.data, end, 0)) {
        return report(&c, plan, resolved, error);
    }
    c.memory += round_up(data.size); /* for the copy that text and bytes point into */
    if (c.memory > resolved->memory_max) {
        return escqrs_error_set(
            error, ESCQRS_TOO_LARGE,
            "%s: a message of %zu bytes would take %zu bytes of memory, more than "
            "the %zu that are allowed",
            plan->name, data.size, c.memory, resolved->memory_max);
    }
    result->memory = c.memory;
    result->unknown = c.unknown > 0;
    result->duplicates = c.duplicates;
    return ESCQRS_OK;
}

escqrs_status escqrs_message_check(const escqrs_schema *schema, escqrs_slice data,
                                   const escqrs_limits *limits, escqrs_error *error)
{
    ESC_ASSERT(schema->sealed);
    escqrs_limits resolved = esc_limits_resolve(limits);
    esc_check_result result;
    return esc_check(&schema->plan, data, &resolved, &result, error);
}
