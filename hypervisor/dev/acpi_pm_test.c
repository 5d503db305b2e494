#include "dev/test_bench.h"

#include "dev/acpi_pm.h"

#define SECOND 1000000000ull

struct session {
	struct test_bench bench;
	struct acpi_pm pm;
	unsigned raised, off, smis;
	bool line;
};

static void on_interrupt(void *owner, bool raised)
{
	struct session *s = owner;

	s->line = raised;
	s->raised += raised;
}

static void on_off(void *owner) { ((struct session *)owner)->off++; }
static void on_smi(void *owner) { ((struct session *)owner)->smis++; }

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->pm.owner = s;
	s->pm.interrupt = on_interrupt;
	s->pm.power_off = on_off;
	assert_true(acpi_pm_init(&s->pm, &s->bench.clock));
	assert_int_equal(acpi_pm_attach(&s->pm, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void counts(void **state)
{
	struct session *s = *state;

	assert_int_equal(test_in(&s->bench, 0x608, 4), 0);
	s->bench.time = SECOND;
	assert_int_equal(test_in(&s->bench, 0x608, 4), 3579545);
	assert_int_equal(test_in(&s->bench, 0x609, 1), 3579545 >> 8 & 0xff);
	test_out(&s->bench, 0x608, 4, 0);
	assert_int_equal(test_in(&s->bench, 0x608, 4), 3579545);
	s->bench.time = 10 * SECOND;
	assert_int_equal(test_in(&s->bench, 0x608, 4), 35795450 & 0xffffff); /* 24 bits */
	assert_int_equal(s->bench.unclaimed, 0);
}

static void overflows(void **state)
{
	struct session *s = *state;

	/* The status comes each time bit 23 changes; in legacy mode without an interrupt. */
	test_out(&s->bench, 0x602, 2, 0xffff);
	assert_int_equal(test_in(&s->bench, 0x602, 2), 0x21);
	test_bench_pass(&s->bench, 2343484437);
	assert_int_equal(test_in(&s->bench, 0x600, 2), 0);
	test_bench_pass(&s->bench, 1);
	assert_int_equal(test_in(&s->bench, 0x608, 4), 0x800000);
	assert_int_equal(test_in(&s->bench, 0x600, 2), 1);
	assert_false(s->line);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0);
	test_out(&s->bench, 0xb2, 1, 0xf1);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 1);
	assert_true(s->line);
	test_out(&s->bench, 0x600, 2, 0xfffe);
	assert_true(s->line);
	test_out(&s->bench, 0x600, 1, 0x01);
	assert_false(s->line);
	assert_int_equal(test_in(&s->bench, 0x602, 1), 0x21);
	for (unsigned i = 2; i < 6; i++) {
		test_bench_pass(&s->bench, 2343484438);
		assert_int_equal(s->raised, i);
		test_out(&s->bench, 0x600, 4, 0x00010001);
		assert_false(s->line);
	}
	test_out(&s->bench, 0xb2, 1, 0xf0);
	assert_int_equal(s->bench.clock.next, CLOCK_NEVER);
}

static void sleeps(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0x604, 2, 0x0c02);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0x0c02);
	test_out(&s->bench, 0x604, 2, 0x0001); /* SCI_EN is not software's */
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0);
	assert_int_equal(s->off, 0);
	test_out(&s->bench, 0x604, 2, 0x2400);
	assert_int_equal(s->off, 0);
	assert_int_equal(s->bench.unclaimed, 1);
	test_out(&s->bench, 0x604, 2, 0x2000);
	assert_int_equal(s->off, 1);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0);
	test_out(&s->bench, 0x605, 1, 0x20);
	assert_int_equal(s->off, 2);
}

static void apm(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0xb3, 1, 0x55);
	test_out(&s->bench, 0xb2, 1, 0x12);
	assert_int_equal(test_in(&s->bench, 0xb2, 2), 0x5512);
	s->pm.smi = on_smi;
	test_out(&s->bench, 0xb2, 1, 0x13);
	test_out(&s->bench, 0xb3, 1, 0x13);
	assert_int_equal(s->smis, 1);
}

static void saved(void **state)
{
	struct session *s = *state, *other;
	void *made;

	setup(&made);
	other = made;
	test_out(&s->bench, 0x602, 2, 1);
	test_out(&s->bench, 0xb2, 1, 0xf1);
	test_bench_pass(&s->bench, SECOND);
	other->bench.time = s->bench.time;
	test_state(&acpi_pm_state, &s->pm, &other->pm, offsetof(struct acpi_pm, clock));
	assert_int_equal(other->bench.clock.next, 2343484438);
	teardown(&made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(counts), TEST(overflows), TEST(sleeps), TEST(apm),
					   TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
