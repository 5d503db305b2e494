#include "vm/memory_map.h"

#include "vm/test.h"

#define GIB (1ull << 30)

static uint64_t ram(const struct memory_range *range, unsigned count)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += range[i].type == MEMORY_RAM ? range[i].end - range[i].base : 0;
	return sum;
}

static void in_order(const struct memory_range *range, unsigned count)
{
	assert_true(count <= MEMORY_RANGES_MAX);
	for (unsigned i = 0; i < count; i++) {
		assert_true(range[i].base < range[i].end);
		assert_true(i == 0 || range[i - 1].end <= range[i].base);
	}
}

/* All memory is told of but for what lies under a PC's video memory and firmware. */
static void all_of_it(void **state)
{
	static const uint64_t sizes[] = {2 << 20, GIB, 3 * GIB, 3 * GIB + 4096, 64 * GIB};
	struct memory_range range[MEMORY_RANGES_MAX];

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned count = memory_map(sizes[i], 0x20000, range);

		in_order(range, count);
		assert_int_equal(ram(range, count), sizes[i] - (0x100000 - 0x9fc00));
	}
}

static void the_hole(void **state)
{
	struct memory_range range[MEMORY_RANGES_MAX];
	unsigned count = memory_map(5 * GIB, 0, range);

	(void)state;
	assert_int_equal(count, 5);
	assert_int_equal(range[3].end, 3 * GIB);
	assert_int_equal(range[4].base, 4 * GIB);
	assert_int_equal(range[4].end, 6 * GIB);
	assert_int_equal(memory_low(5 * GIB), 3 * GIB);
	assert_int_equal(memory_low(GIB), GIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(all_of_it), cmocka_unit_test(the_hole)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
