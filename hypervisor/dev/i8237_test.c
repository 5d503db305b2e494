#include "dev/test_bench.h"

#include "dev/i8237.h"

struct session {
	struct test_bench bench;
	struct i8237 controllers;
};

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	i8237_reset(&s->controllers);
	assert_int_equal(i8237_attach(&s->controllers, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

/* A controller's registers, @step ports apart. */
static void programs(struct session *s, unsigned base, unsigned step)
{
	test_out(&s->bench, base + 12 * step, 1, 0);
	test_out(&s->bench, base + 4 * step, 1, 0x34);
	test_out(&s->bench, base + 4 * step, 1, 0x12);
	test_out(&s->bench, base + 5 * step, 1, 0xff);
	assert_int_equal(test_in(&s->bench, base + 4 * step, 1), 0x12); /* the flip-flop is shared */
	assert_int_equal(test_in(&s->bench, base + 4 * step, 1), 0x34);
	test_out(&s->bench, base + 5 * step, 1, 0x01);
	test_out(&s->bench, base + 12 * step, 1, 0);
	assert_int_equal(test_in(&s->bench, base + 5 * step, 1), 0xff);
	assert_int_equal(test_in(&s->bench, base + 5 * step, 1), 0x01);
	assert_int_equal(test_in(&s->bench, base + 15 * step, 1), 0xff);
	test_out(&s->bench, base + 10 * step, 1, 0x02);
	assert_int_equal(test_in(&s->bench, base + 15 * step, 1), 0xfb);
	test_out(&s->bench, base + 10 * step, 1, 0x06);
	assert_int_equal(test_in(&s->bench, base + 15 * step, 1), 0xff);
	test_out(&s->bench, base + 14 * step, 1, 0);
	assert_int_equal(test_in(&s->bench, base + 15 * step, 1), 0xf0);
	test_out(&s->bench, base + 11 * step, 1, 0x56);
	test_out(&s->bench, base + 9 * step, 1, 0x05);
	assert_int_equal(test_in(&s->bench, base + 8 * step, 1), 0x20);
	test_out(&s->bench, base + 13 * step, 1, 0);
	assert_int_equal(test_in(&s->bench, base + 8 * step, 1), 0);
	assert_int_equal(test_in(&s->bench, base + 15 * step, 1), 0xff);
	assert_int_equal(s->bench.unclaimed, 0);
}

static void first(void **state) { programs(*state, 0x00, 1); }
static void second(void **state) { programs(*state, 0xc0, 2); }

static void pages(void **state)
{
	struct session *s = *state;

	for (unsigned port = 0x84; port <= 0x8f; port++)
		test_out(&s->bench, port, 1, port ^ 0x55);
	for (unsigned port = 0x84; port <= 0x8f; port++)
		assert_int_equal(test_in(&s->bench, port, 1), port ^ 0x55);
}

static void transfers_are_refused(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0x0b, 1, 0x85);
	test_out(&s->bench, 0x09, 1, 0x05);
	assert_int_equal(s->bench.unclaimed, 0);
	test_out(&s->bench, 0x08, 1, 0x04);
	test_out(&s->bench, 0x0a, 1, 0x01);
	assert_int_equal(s->bench.unclaimed, 0);
	test_out(&s->bench, 0x08, 1, 0x00);
	assert_int_equal(s->bench.unclaimed, 1);
	test_out(&s->bench, 0x0d, 1, 0x00);
	test_out(&s->bench, 0x08, 1, 0x01);
	assert_int_equal(s->bench.unclaimed, 2);
}

static void saved(void **state)
{
	struct session *s = *state;
	struct i8237 other = {0};

	programs(s, 0xc0, 2);
	test_out(&s->bench, 0x87, 1, 9);
	test_state(&i8237_state, &s->controllers, &other, offsetof(struct i8237, bus));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(first), TEST(second), TEST(pages),
					   TEST(transfers_are_refused), TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
