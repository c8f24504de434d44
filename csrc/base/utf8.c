/* One table-free decoder; runs of ASCII are skipped eight bytes at a time. */
#include "base/utf8.h"

#include <string.h>

/* The size of the well-formed character at `bytes`, or 0. */
static size_t character_size(const uint8_t *bytes, size_t size)
{
    uint8_t first = bytes[0];
    if (first < 0x80) {
        return 1;
    }
    size_t length = 0;
    uint8_t low = 0x80; /* what the second byte may be: narrower at the edges of the ranges */
    uint8_t high = 0xbf;
    if (first >= 0xc2 && first <= 0xdf) {
        length = 2;
    } else if (first >= 0xe0 && first <= 0xef) {
        length = 3;
        low = first == 0xe0 ? 0xa0 : low;   /* overlong below */
        high = first == 0xed ? 0x9f : high; /* surrogates above */
    } else if (first >= 0xf0 && first <= 0xf4) {
        length = 4;
        low = first == 0xf0 ? 0x90 : low;   /* overlong below */
        high = first == 0xf4 ? 0x8f : high; /* beyond U+10FFFF above */
    } else {
        return 0;
    }
    if (length > size || bytes[1] < low || bytes[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

bool esc_utf8_valid(escqrs_slice text)
{
    const uint8_t *bytes = text.data;
    size_t at = 0;
    while (at < text.size) {
        uint64_t word = 0;
        while (text.size - at >= sizeof word) {
            memcpy(&word, bytes + at, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) != 0) {
                break;
            }
            at += sizeof word;
        }
        if (at < text.size) {
            size_t length = character_size(bytes + at, text.size - at);
            if (length == 0) {
                return false;
            }
            at += length;
        }
    }
    return true;
}

size_t esc_utf8_cut(escqrs_slice text, size_t limit)
{
    if (text.size <= limit) {
        return text.size;
    }
    const uint8_t *bytes = text.data;
    size_t cut = limit;
    /* at most three steps back: what has no first byte there is not UTF-8 and is cut where it is */
    for (int back = 0; back < 3 && cut > 0 && (bytes[cut] & 0xc0) == 0x80; back++) {
        cut--;
    }
    return (bytes[cut] & 0xc0) == 0x80 ? limit : cut;
}
