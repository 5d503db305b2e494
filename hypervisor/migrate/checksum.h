/* checksum.h: XXH3 of 64 bits, as fast as the processor can. */
#ifndef TRAPLINE_MIGRATE_CHECKSUM_H
#define TRAPLINE_MIGRATE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum(uint64_t seed, const void *bytes, size_t size);

/* The same with vectors of 32 bytes, which nobody calls but checksum(): the processor needs AVX2. */
uint64_t checksum_avx2(uint64_t seed, const void *bytes, size_t size);

#endif
