#include "migrate/checksum.h"

/* All of it inline: a checksum of a few hundred bytes is faster than the call. */
#define XXH_INLINE_ALL
#include <xxhash.h>

/* From here on vectors are worth a call. */
#define LARGE 1024u

uint64_t checksum(uint64_t seed, const void *bytes, size_t size)
{
#ifdef __x86_64__
	if (size >= LARGE && __builtin_cpu_supports("avx2"))
		return checksum_avx2(seed, bytes, size);
#endif
	return XXH3_64bits_withSeed(bytes, size, seed);
}
