/* The same sum whatever computes it: a stream goes from one processor to another. */
#include "migrate/checksum.h"

/* Without vectors: neither of those that are tested. */
#define XXH_INLINE_ALL
#define XXH_VECTOR 0
#include <xxhash.h>

#include "vm/test.h"

#define MOST 5000u

static uint8_t bytes[MOST];

static void fill(void)
{
	for (unsigned i = 0; i < MOST; i++)
		bytes[i] = (uint8_t)(i * 167 + (i >> 8) * 13);
}

/* Values of the published test vectors of XXH3: of no bytes, with seed 0. */
static void known(void **state)
{
	(void)state;
	assert_int_equal(checksum(0, bytes, 0), 0x2d06800538d394c2);
}

static void every_size(void **state)
{
	(void)state;
	fill();
	for (size_t size = 0; size < MOST; size++) {
		uint64_t wanted = XXH3_64bits_withSeed(bytes, size, size * 77);

		assert_int_equal(checksum(size * 77, bytes, size), wanted);
		if (__builtin_cpu_supports("avx2"))
			assert_int_equal(checksum_avx2(size * 77, bytes, size), wanted);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(known), cmocka_unit_test(every_size)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
