/* xxHash's header compiled in here: nothing to link, and short inputs cost a few nanoseconds. */
#include "base/checksum.h"

#include <string.h>

#include "base/assert.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define JOIN_MAX 1024 /* joining so many bytes costs less than setting up a stream */

uint64_t esc_hash(escqrs_slice key, uint64_t seed)
{
    return XXH3_64bits_withSeed(key.data, key.size, seed);
}

uint32_t esc_checksum(const void *data, size_t size, uint64_t seed)
{
    return (uint32_t)XXH3_64bits_withSeed(data, size, seed);
}

static uint32_t checksum_streamed(const escqrs_slice *pieces, size_t count, uint64_t seed)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH_errorcode failed = XXH3_64bits_reset_withSeed(&state, seed);
    ESC_ASSERT(failed == XXH_OK);
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > 0) {
            failed = XXH3_64bits_update(&state, pieces[i].data, pieces[i].size);
            ESC_ASSERT(failed == XXH_OK);
        }
    }
    return (uint32_t)XXH3_64bits_digest(&state);
}

uint32_t esc_checksum_pieces(const escqrs_slice *pieces, size_t count, uint64_t seed)
{
    uint8_t joined[JOIN_MAX];
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > sizeof joined - size) {
            return checksum_streamed(pieces, count, seed);
        }
        if (pieces[i].size > 0) {
            memcpy(joined + size, pieces[i].data, pieces[i].size);
            size += pieces[i].size;
        }
    }
    return esc_checksum(joined, size, seed);
}
