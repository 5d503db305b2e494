#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/state.h"

struct thing {
	uint8_t one;
	uint32_t host_only;
	uint64_t eight;
	uint16_t array[3];
};

static const struct state_field fields[] = {STATE(struct thing, one), STATE(struct thing, eight),
					    STATE(struct thing, array)};
static STATE_TABLE(table, "thing", 3, fields);

static const struct thing sample = {1, 0xabcd, 0x1122334455667788, {1, 2, 0xfffe}};

static void there_and_back(void **state)
{
	uint8_t saved[64];
	struct thing other = {.host_only = 5};

	(void)state;
	assert_int_equal(state_size(&table), 4 + 1 + 8 + 6);
	state_save(&table, &sample, saved);
	assert_string_equal(state_difference(&table, &sample, &other), "one");
	assert_int_equal(state_load(&table, &other, saved, state_size(&table)), 0);
	assert_null(state_difference(&table, &sample, &other));
	assert_int_equal(other.eight, sample.eight);
	assert_int_equal(other.array[2], 0xfffe);
	assert_int_equal(other.host_only, 5);
	other.array[1] = 7;
	assert_string_equal(state_difference(&table, &sample, &other), "array");
}

static void refused(void **state)
{
	uint8_t saved[64];
	struct thing other = {0};

	(void)state;
	state_save(&table, &sample, saved);
	assert_int_equal(state_load(&table, &other, saved, state_size(&table) - 1), -EINVAL);
	assert_int_equal(state_load(&table, &other, saved, state_size(&table) + 1), -EINVAL);
	saved[0] ^= 1;
	assert_int_equal(state_load(&table, &other, saved, state_size(&table)), -EINVAL);
	assert_int_equal(other.one, 0);
}

static void dumped(void **state)
{
	char text[64];

	(void)state;
	state_dump(&table, &sample, 2, text, sizeof(text));
	assert_string_equal(text, "thing.array=01000200feff");
	state_dump(&table, &sample, 3, text, sizeof(text));
	assert_string_equal(text, "");
	state_dump(&table, &sample, 2, text, 16);
	assert_int_equal(strlen(text) < 16, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(refused),
					   cmocka_unit_test(dumped)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
