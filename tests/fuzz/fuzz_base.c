/* Hostile bytes for the readers of csrc/base: numbers, text, ids. Each answer is checked against
 * another way to find it. */
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "base/varint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_varint(const uint8_t *data, size_t size)
{
    uint64_t value = 0;
    size_t used = esc_varint_decode(data, size, &value);
    ESC_ASSERT(used <= size && used <= ESC_VARINT_SIZE_MAX);
    if (used > 0) {
        uint8_t again[ESC_VARINT_SIZE_MAX];
        size_t length = esc_varint_encode(value, again);
        ESC_ASSERT(length == esc_varint_size(value) && length <= used);
        uint64_t decoded = 0;
        ESC_ASSERT(esc_varint_decode(again, length, &decoded) == length && decoded == value);
        ESC_ASSERT(esc_zigzag_encode(esc_zigzag_decode(value)) == value);
    }
}

/* By the value of each character, where the engine goes by ranges of bytes. */
static bool is_valid(const uint8_t *data, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < size;) {
        uint8_t first = data[at];
        size_t length = first < 0x80       ? 1
                        : first >> 5 == 6  ? 2
                        : first >> 4 == 14 ? 3
                        : first >> 3 == 30 ? 4
                                           : 0;
        if (length == 0 || length > size - at) {
            return false;
        }
        uint32_t value = length == 1 ? first : first & (0x7fU >> length);
        for (size_t i = 1; i < length; i++) {
            if (data[at + i] >> 6 != 2) {
                return false;
            }
            value = value << 6 | (data[at + i] & 0x3f);
        }
        if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
            return false;
        }
        at += length;
    }
    return true;
}

static void check_utf8(const uint8_t *data, size_t size)
{
    bool valid = esc_utf8_valid((escqrs_slice){data, size});
    ESC_ASSERT(valid == is_valid(data, size));
    for (size_t limit = 0; limit <= size; limit++) {
        size_t cut = esc_utf8_cut((escqrs_slice){data, size}, limit);
        ESC_ASSERT(cut <= limit && limit - cut <= 3);
        ESC_ASSERT(!valid || esc_utf8_valid((escqrs_slice){data, cut}));
    }
}

static void check_uuid(const uint8_t *data, size_t size)
{
    escqrs_uuid uuid;
    if (escqrs_uuid_parse((escqrs_slice){data, size}, &uuid)) {
        char text[ESCQRS_UUID_TEXT_SIZE];
        escqrs_uuid_format(&uuid, text);
        ESC_ASSERT(strlen(text) == size);
        for (size_t i = 0; i < size; i++) {
            ESC_ASSERT((text[i] | 0x20) == (data[i] | 0x20));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size = size > 256 ? 256 : size;
    check_varint(data, size);
    check_utf8(data, size);
    check_uuid(data, size);
    return 0;
}
