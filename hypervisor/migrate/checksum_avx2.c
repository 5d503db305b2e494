/* Built with -mavx2, of which nothing else may be in this file. */
#include "migrate/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t checksum_avx2(uint64_t seed, const void *bytes, size_t size)
{
	return XXH3_64bits_withSeed(bytes, size, seed);
}
