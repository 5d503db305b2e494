/* The MP table walked as software walks it. */
#include "dev/test_bench.h"

#include "dev/mptable.h"

#define BASE 0xf9000u

static unsigned pci_irq(unsigned slot, unsigned pin) { return (slot + pin) % 2 ? 11 : 10; }

static uint8_t sum_of(const uint8_t *at, size_t size)
{
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *at++);
	return sum;
}

static unsigned number(const uint8_t *at, unsigned size)
{
	unsigned value = 0;

	memcpy(&value, at, size);
	return value;
}

static void walk(unsigned cpus)
{
	static uint8_t bytes[MPTABLE_SIZE_MAX];
	const struct mptable_config config = {.cpus = cpus, .pci_irq = pci_irq};
	size_t size = mptable_make(&config, BASE, bytes);
	const uint8_t *table = bytes + 16, *at = table + 44;
	unsigned entries = 0, count[5] = {0}, bsps = 0;
	uint32_t isa = 0;

	assert_true(size <= sizeof(bytes));
	assert_memory_equal(bytes, "_MP_", 4);
	assert_int_equal(sum_of(bytes, 16), 0);
	assert_int_equal(number(bytes + 4, 4), BASE + 16);
	assert_memory_equal(table, "PCMP", 4);
	assert_int_equal(number(table + 4, 2), size - 16);
	assert_int_equal(sum_of(table, size - 16), 0);
	assert_int_equal(number(table + 36, 4), 0xfee00000);
	for (; at < bytes + size; entries++) {
		assert_true(*at < 5);
		count[*at]++;
		if (*at == 0) {
			assert_int_equal(at[1], count[0] - 1);
			assert_true(at[3] & 1);
			bsps += at[3] >> 1 & 1;
		}
		if (*at == 2)
			assert_int_equal(number(at + 4, 4), 0xfec00000);
		if (*at == 3 && at[4] == 0)
			assert_int_equal(at[7], pci_irq(at[5] / 4, at[5] % 4));
		if (*at == 3 && at[4] == 1) {
			assert_int_equal(at[7], at[5] ? at[5] : 2);
			isa |= 1u << at[5];
		}
		at += *at == 0 ? 20 : 8;
	}
	assert_ptr_equal(at, bytes + size);
	assert_int_equal(number(table + 34, 2), entries);
	assert_int_equal(count[0], cpus);
	assert_int_equal(bsps, 1);
	assert_int_equal(count[1], 2);
	assert_int_equal(count[2], 1);
	assert_int_equal(count[4], 2);
	assert_int_equal(isa, 0xf3fb); /* but for the cascade, and PCI's 10 and 11 */
}

static void one(void **state)
{
	(void)state;
	walk(1);
}

static void as_many_as_there_can_be(void **state)
{
	(void)state;
	walk(64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(one), cmocka_unit_test(as_many_as_there_can_be)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
