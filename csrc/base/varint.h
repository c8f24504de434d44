/* Variable-length integers as protobuf writes them: unsigned LEB128, and zigzag for signed ones. */
#ifndef ESC_BASE_VARINT_H
#define ESC_BASE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define ESC_VARINT_SIZE_MAX 10 /* bytes of a 64-bit number */

/* How many bytes esc_varint_encode writes. */
static inline size_t esc_varint_size(uint64_t value)
{
    size_t bits = 64 - (size_t)__builtin_clzll(value | 1);
    return (bits + 6) / 7;
}

/* Writes 1 to 10 bytes; returns how many. */
static inline size_t esc_varint_encode(uint64_t value, uint8_t *out)
{
    size_t size = 0;
    while (value >= 0x80) {
        out[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    out[size++] = (uint8_t)value;
    return size;
}

/* Reads one number of at most `size` bytes; returns how many it took, or 0 if it is cut off or
 * beyond 64 bits (then *value is not set). */
static inline size_t esc_varint_decode(const void *data, size_t size, uint64_t *value)
{
    const uint8_t *bytes = data;
    size_t end = size < ESC_VARINT_SIZE_MAX ? size : ESC_VARINT_SIZE_MAX;
    uint64_t result = 0;
    for (size_t i = 0; i < end; i++) {
        uint8_t byte = bytes[i];
        if (i == ESC_VARINT_SIZE_MAX - 1 && byte > 1) {
            return 0; /* the tenth byte holds bit 63 alone */
        }
        result |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *value = result;
            return i + 1;
        }
    }
    return 0;
}

/* Small numbers of either sign become small unsigned ones: 0 -1 1 -2 become 0 1 2 3. */
static inline uint64_t esc_zigzag_encode(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value < 0 ? -1 : 0);
}

static inline int64_t esc_zigzag_decode(uint64_t value)
{
    return (int64_t)((value >> 1) ^ (~(value & 1) + 1));
}

#endif
