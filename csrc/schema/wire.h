/* Reading protobuf's wire format where base/varint.h is too general: tags and lengths of at most
 * five bytes, as protobuf-c takes them, and varints that are only skipped. */
#ifndef ESC_SCHEMA_WIRE_H
#define ESC_SCHEMA_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define ESC_WIRE_VARINT 0u
#define ESC_WIRE_64BIT 1u
#define ESC_WIRE_BYTES 2u
#define ESC_WIRE_32BIT 5u /* 3 and 4 are groups, which are refused */

#define ESC_WIRE_SHORT_SIZE_MAX 5u
#define ESC_WIRE_VARINT_SIZE_MAX 10u

/* Of sint32 and sint64: 0, -1, 1, -2 are written as 0, 1, 2, 3. */
static inline uint64_t esc_wire_zigzag(int64_t value)
{
    return (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0);
}

static inline int64_t esc_wire_unzigzag(uint64_t value)
{
    return (int64_t)(value >> 1 ^ (~(value & 1) + 1));
}

/* Behind the varint at `at`, or NULL if it is cut off or longer than ten bytes. */
static inline const uint8_t *esc_wire_skip_varint(const uint8_t *at, const uint8_t *end)
{
    size_t rest = (size_t)(end - at);
    size_t size = rest < ESC_WIRE_VARINT_SIZE_MAX ? rest : ESC_WIRE_VARINT_SIZE_MAX;
    for (size_t i = 0; i < size; i++) {
        if (at[i] < 0x80) {
            return at + i + 1;
        }
    }
    return NULL;
}

/* Behind the tag or length at `at`; NULL if it is cut off or longer than five bytes. */
static inline const uint8_t *esc_wire_read_short(const uint8_t *at, const uint8_t *end,
                                                 uint64_t *value)
{
    if (at < end && *at < 0x80) {
        *value = *at;
        return at + 1;
    }
    uint64_t result = 0;
    size_t rest = (size_t)(end - at);
    size_t size = rest < ESC_WIRE_SHORT_SIZE_MAX ? rest : ESC_WIRE_SHORT_SIZE_MAX;
    for (size_t i = 0; i < size; i++) {
        result |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (at[i] < 0x80) {
            *value = result;
            return at + i + 1;
        }
    }
    return NULL;
}

#endif
