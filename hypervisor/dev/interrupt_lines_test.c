#include "dev/test_bench.h"

#include "dev/interrupt_lines.h"

static uint32_t levels;
static unsigned told;

static void changed(void *owner, unsigned line, bool raised)
{
	(void)owner;
	assert_int_not_equal(levels >> line & 1, raised);
	levels ^= 1u << line;
	told++;
}

static void shared_and_cut(void **state)
{
	struct interrupt_lines lines = {.changed = changed};

	(void)state;
	interrupt_lines_set(&lines, LINE_RTC, 8, true);
	interrupt_lines_set(&lines, LINE_TEST, 8, true);
	interrupt_lines_set(&lines, LINE_PCI, 31, true);
	assert_int_equal(levels, 1u << 31 | 1u << 8);
	assert_int_equal(told, 2);
	interrupt_lines_set(&lines, LINE_RTC, 8, false);
	assert_int_equal(told, 2);
	interrupt_lines_set(&lines, LINE_TEST, 8, false);
	assert_int_equal(levels, 1u << 31);
	interrupt_lines_cut(&lines, LINE_RTC, true);
	interrupt_lines_set(&lines, LINE_RTC, 8, true);
	assert_int_equal(levels, 1u << 31);
	interrupt_lines_set(&lines, LINE_HPET, 8, true);
	assert_int_equal(levels, 1u << 31 | 1u << 8);
	interrupt_lines_set(&lines, LINE_HPET, 8, false);
	interrupt_lines_cut(&lines, LINE_RTC, false);
	assert_int_equal(levels, 1u << 31 | 1u << 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(shared_and_cut)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
