/* XXH3: checksums of what is stored and hashes of what is looked up. Any thread; nothing blocks. */
#ifndef ESC_BASE_CHECKSUM_H
#define ESC_BASE_CHECKSUM_H

#include <escqrs/base.h>

/* The low 32 bits of XXH3_64bits_withSeed: the same on every machine, so it may be stored. */
uint32_t esc_checksum(const void *data, size_t size, uint64_t seed);

/* The checksum of the pieces one behind the other, without joining them. */
uint32_t esc_checksum_pieces(const escqrs_slice *pieces, size_t count, uint64_t seed);

/* All 64 bits of it. */
uint64_t esc_hash(escqrs_slice key, uint64_t seed);

#endif
