/* Merging repeated occurrences of singular nested messages before they are decoded.
 *
 * protobuf allows a singular message field to occur several times and calls for the occurrences to
 * be merged; no writer that we know does it. Merging pairwise copies lists again and again, which a
 * hostile message makes quadratic. But two encodings of one message, joined, are the encoding of
 * the merged message; so here all occurrences are joined, level by level, in linear time, and the
 * decoder needs not know of it. Only messages in which the check has seen such a thing come here.
 */
#include "schema/merge.h"

#include "base/assert.h"
#include "schema/check.h"
#include "schema/wire.h"

typedef struct merge {
    size_t copied; /* bytes of occurrences joined so far */
    size_t copied_max;
} merge;

/* All occurrences of one field: the first as it stands, or all of them joined. */
typedef struct occurrence {
    const esc_plan_field *field; /* NULL: none yet */
    escqrs_slice first;
    esc_buffer joined; /* empty while there is one */
} occurrence;

static escqrs_status merge_message(merge *m, const esc_plan *plan, escqrs_slice data,
                                   esc_buffer *out);

static escqrs_status append_varint(esc_buffer *out, uint64_t value)
{
    uint8_t bytes[ESC_WIRE_VARINT_SIZE_MAX];
    size_t size = 0;
    while (value >= 0x80) {
        bytes[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[size++] = (uint8_t)value;
    return esc_buffer_append(out, bytes, size);
}

/* A nested message's size is known only when it is written, so its length always takes five bytes;
 * the result is decoded at once and stored nowhere. */
static escqrs_status append_message(merge *m, const esc_plan_field *field, escqrs_slice data,
                                    esc_buffer *out)
{
    escqrs_status status = append_varint(out, (uint64_t)field->number << 3 | ESC_WIRE_BYTES);
    uint8_t *length = NULL;
    if (status == ESCQRS_OK) {
        status = esc_buffer_extend(out, ESC_WIRE_SHORT_SIZE_MAX, &length);
    }
    size_t start = out->size;
    if (status == ESCQRS_OK) {
        status = merge_message(m, field->nested, data, out);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    size_t size = out->size - start;
    length = out->data + start - ESC_WIRE_SHORT_SIZE_MAX;
    for (size_t i = 0; i < ESC_WIRE_SHORT_SIZE_MAX; i++) {
        length[i] =
            (uint8_t)((size >> (7 * i)) & 0x7f) | (i + 1 < ESC_WIRE_SHORT_SIZE_MAX ? 0x80 : 0);
    }
    return ESCQRS_OK;
}

static escqrs_status remember(merge *m, occurrence *slot, const esc_plan_field *field,
                              escqrs_slice data)
{
    if (slot->field == NULL) {
        slot->field = field;
        slot->first = data;
        return ESCQRS_OK;
    }
    escqrs_status status = ESCQRS_OK;
    m->copied += data.size;
    if (slot->joined.size == 0) {
        m->copied += slot->first.size;
        status = esc_buffer_append_slice(&slot->joined, slot->first);
    }
    if (m->copied > m->copied_max) {
        return ESCQRS_TOO_LARGE;
    }
    return status == ESCQRS_OK ? esc_buffer_append_slice(&slot->joined, data) : status;
}

/* One pass over a level: what is no singular message is written at once, the others when all their
 * occurrences are known. */
static escqrs_status merge_fields(merge *m, const esc_plan *plan, escqrs_slice data,
                                  occurrence *slots, esc_buffer *out)
{
    const uint8_t *at = data.data;
    const uint8_t *end = at + data.size;
    while (at < end) {
        const uint8_t *start = at;
        uint64_t tag = 0;
        uint64_t size = 0;
        at = esc_wire_read_short(at, end, &tag);
        ESC_ASSERT(at != NULL);
        switch ((uint32_t)tag & 7) {
        case ESC_WIRE_VARINT:
            at = esc_wire_skip_varint(at, end);
            break;
        case ESC_WIRE_64BIT:
            at += 8;
            break;
        case ESC_WIRE_32BIT:
            at += 4;
            break;
        default:
            at = esc_wire_read_short(at, end, &size);
            ESC_ASSERT(at != NULL);
            at += size;
            break;
        }
        ESC_ASSERT(at != NULL && at <= end); /* the check has seen these bytes */
        const esc_plan_field *field = esc_plan_find(plan, (uint32_t)(tag >> 3));
        escqrs_slice payload = {at - size, size};
        escqrs_status status;
        if (field == NULL || field->nested == NULL) {
            status = esc_buffer_append(out, start, (size_t)(at - start));
        } else if (field->repeated) {
            status = append_message(m, field, payload, out);
        } else {
            ESC_ASSERT(slots != NULL); /* a plan with such a field has slots */
            status = remember(m, &slots[field->slot - 1], field, payload);
        }
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

/* Recursion is bounded: the check has bounded the depth, and joining does not add to it. */
static escqrs_status merge_message(merge *m, const esc_plan *plan, escqrs_slice data,
                                   esc_buffer *out)
{
    if (data.size == 0) {
        return ESCQRS_OK;
    }
    occurrence *slots = NULL;
    if (plan->slot_count > 0) {
        slots = escqrs_alloc_zero(plan->slot_count * sizeof *slots);
        if (slots == NULL) {
            return ESCQRS_NO_MEMORY;
        }
    }
    escqrs_status status = merge_fields(m, plan, data, slots, out);
    for (uint32_t i = 0; i < plan->slot_count; i++) {
        occurrence *slot = &slots[i];
        if (status == ESCQRS_OK && slot->field != NULL) {
            escqrs_slice all =
                slot->joined.size > 0 ? esc_buffer_slice(&slot->joined) : slot->first;
            status = append_message(m, slot->field, all, out);
        }
        esc_buffer_fini(&slot->joined);
    }
    escqrs_free(slots);
    return status;
}

escqrs_status esc_merge(const esc_plan *plan, escqrs_slice data, size_t bytes_max, esc_buffer *out,
                        escqrs_error *error)
{
    merge m = {.copied_max = bytes_max};
    escqrs_status status = merge_message(&m, plan, data, out);
    if (status == ESCQRS_TOO_LARGE) {
        return escqrs_error_set(
            error, status, "%s: the same nested messages occur too often to be merged", plan->name);
    }
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status, "%s: out of memory for a message", plan->name);
    }
    return ESCQRS_OK;
}
