/* See flat.h. The eight bytes behind the copy let text be looked at in words: what such a word has
 * beyond the text is masked. */
#include "schema/flat.h"

#include <endian.h>
#include <string.h>

#include "base/utf8.h"
#include "schema/form.h"
#include "schema/wire.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

static inline bool is_ascii(const uint8_t *at, size_t size)
{
    uint64_t word;
    uint64_t bits = 0;
    for (; size >= sizeof word; size -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        bits |= word;
    }
    memcpy(&word, at, sizeof word);
    bits |= htole64(word) & (((uint64_t)1 << (8 * size)) - 1);
    return (bits & HIGH_BITS) == 0;
}

/* Behind the varint; NULL where it is cut off or too long. */
static inline const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    if (at < end && *at < 0x80) {
        *value = *at;
        return at + 1;
    }
    const uint8_t *stop = esc_wire_skip_varint(at, end);
    uint64_t bits = 0;
    for (unsigned shift = 0; at < stop; at++, shift += 7) {
        bits |= (uint64_t)(*at & 0x7f) << shift;
    }
    *value = bits;
    return stop;
}

static inline const uint8_t *read_bytes(const esc_plan_field *field, const uint8_t *at,
                                        const uint8_t *end, uint8_t *to)
{
    uint64_t size = 0;
    at = esc_wire_read_short(at, end, &size);
    if (at == NULL || size > (uint64_t)(end - at)) {
        return NULL;
    }
    if (field->step == ESC_STEP_TEXT && !is_ascii(at, size) &&
        !esc_utf8_valid((escqrs_slice){at, size})) {
        return NULL;
    }
    if (field->form != 0 && !esc_form_valid((escqrs_kind)field->form, at, size)) {
        return NULL;
    }
    *(ProtobufCBinaryData *)(void *)to = (ProtobufCBinaryData){size, (uint8_t *)at};
    return at + size;
}

static inline const uint8_t *read_value(const esc_plan_field *field, const uint8_t *at,
                                        const uint8_t *end, uint8_t *to)
{
    uint64_t value = 0;
    switch (field->step) {
    case ESC_STEP_VARINT:
        at = read_varint(at, end, &value);
        esc_plan_store_varint(field, value, to);
        return at;
    case ESC_STEP_64BIT:
        if (end - at < 8) {
            return NULL;
        }
        memcpy(to, at, 8);
        return at + 8;
    case ESC_STEP_32BIT:
        if (end - at < 4) {
            return NULL;
        }
        memcpy(to, at, 4);
        return at + 4;
    default:
        return read_bytes(field, at, end, to);
    }
}

bool esc_flat_decode(const esc_plan *plan, escqrs_slice data, void *memory)
{
    uint8_t *message = memory;
    uint8_t *copy = message + plan->flat_size;
    memset(message, 0, plan->flat_size);
    if (data.size > 0) {
        memcpy(copy, data.data, data.size);
    }
    ((ProtobufCMessage *)memory)->descriptor = plan->descriptor;
    const uint8_t *at = copy;
    const uint8_t *end = copy + data.size;
    const esc_plan_field *field = plan->fields;
    const esc_plan_field *last = field + plan->count;
    while (at < end) {
        for (; *at != field->short_tag; field++) {
            if (field == last) {
                return false;
            }
        }
        at = read_value(field, at + 1, end, message + field->offset);
        if (at == NULL) {
            return false;
        }
        if (field->has_offset != 0) {
            *(protobuf_c_boolean *)(void *)(message + field->has_offset) = 1;
        }
        field++;
    }
    return true;
}
