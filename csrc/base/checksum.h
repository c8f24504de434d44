/* XXH3: checksums of what is stored and hashes of what is looked up. Any thread; nothing blocks. */
#ifndef ESC_BASE_CHECKSUM_H
#define ESC_BASE_CHECKSUM_H

#include <escqrs/base.h>

/* XXH3_64bits_withSeed: the same on every machine, so it may be stored. */
uint64_t esc_hash(escqrs_slice key, uint64_t seed);

#endif
