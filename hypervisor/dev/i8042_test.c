#include "dev/test_bench.h"

#include "dev/i8042.h"

struct session {
	struct test_bench bench;
	struct i8042 controller;
	unsigned resets, raised[16];
	uint16_t lines;
};

static void on_interrupt(void *owner, unsigned irq, bool raised)
{
	struct session *s = owner;

	assert_int_not_equal(s->lines >> irq & 1, raised);
	s->lines ^= (uint16_t)(1u << irq);
	s->raised[irq] += raised;
}

static void on_reset(void *owner) { ((struct session *)owner)->resets++; }

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->controller.owner = s;
	s->controller.interrupt = on_interrupt;
	s->controller.reset_asked = on_reset;
	i8042_reset(&s->controller);
	assert_int_equal(i8042_attach(&s->controller, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void command(struct session *s, uint8_t value) { test_out(&s->bench, 0x64, 1, value); }
static void data(struct session *s, uint8_t value) { test_out(&s->bench, 0x60, 1, value); }
static uint8_t status(struct session *s) { return (uint8_t)test_in(&s->bench, 0x64, 1); }

static uint8_t get(struct session *s)
{
	assert_int_equal(status(s) & 1, 1);
	return (uint8_t)test_in(&s->bench, 0x60, 1);
}

static void controller(void **state)
{
	struct session *s = *state;

	assert_int_equal(status(s), 0x14);
	command(s, 0xaa);
	assert_int_equal(status(s), 0x1d);
	assert_int_equal(get(s), 0x55);
	assert_int_equal(status(s), 0x1c);
	assert_int_equal(test_in(&s->bench, 0x60, 1), 0x55);
	command(s, 0x20);
	assert_int_equal(get(s), 0x34);
	command(s, 0x60);
	data(s, 0xff);
	assert_int_equal(status(s), 0x14);
	command(s, 0x20);
	assert_int_equal(get(s), 0x77);
	command(s, 0x7f);
	data(s, 0xa5);
	command(s, 0x3f);
	assert_int_equal(get(s), 0xa5);
	command(s, 0xab);
	assert_int_equal(get(s), 0);
	command(s, 0xa9);
	assert_int_equal(get(s), 0);
	command(s, 0xa8);
	command(s, 0xae);
	command(s, 0x20);
	assert_int_equal(get(s), 0x47);
	command(s, 0xa7);
	command(s, 0xad);
	command(s, 0x20);
	assert_int_equal(get(s), 0x77);
	command(s, 0xc0);
	assert_int_equal(get(s), 0xbf);
	assert_int_equal(s->bench.unclaimed, 0);
	command(s, 0xb0);
	assert_int_equal(s->bench.unclaimed, 1);
}

static void reset_and_a20(void **state)
{
	struct session *s = *state;

	command(s, 0xd0);
	assert_int_equal(get(s), 0xcf);
	command(s, 0xd1);
	data(s, 0xdf);
	command(s, 0xff);
	assert_int_equal(s->resets, 0);
	command(s, 0xfe);
	assert_int_equal(s->resets, 1);
	command(s, 0xf0);
	assert_int_equal(s->resets, 2);
	command(s, 0xd1);
	data(s, 0xfe);
	assert_int_equal(s->resets, 3);
	assert_int_equal(test_in(&s->bench, 0x92, 1), 0x02);
	test_out(&s->bench, 0x92, 1, 0x03);
	assert_int_equal(s->resets, 4);
	test_out(&s->bench, 0x92, 1, 0x03);
	assert_int_equal(s->resets, 4);
	assert_int_equal(s->bench.unclaimed, 0);
	/* Either port closes the gate, both show it; it is refused by name. */
	test_out(&s->bench, 0x92, 1, 0x00);
	assert_int_equal(s->bench.unclaimed, 1);
	command(s, 0xd0);
	assert_int_equal(get(s) & 2, 0);
	command(s, 0xd1);
	data(s, 0xdf);
	assert_int_equal(test_in(&s->bench, 0x92, 1) & 2, 2);
	command(s, 0xdd);
	assert_int_equal(s->bench.unclaimed, 2);
	assert_int_equal(test_in(&s->bench, 0x92, 1) & 2, 0);
	command(s, 0xdf);
	assert_int_equal(test_in(&s->bench, 0x92, 1) & 2, 2);
	command(s, 0xfd);
	assert_int_equal(s->bench.unclaimed, 3);
}

static void keyboard(void **state)
{
	struct session *s = *state;

	data(s, 0xff);
	assert_int_equal(s->lines, 1u << 1);
	assert_int_equal(get(s), 0xfa);
	assert_int_equal(s->raised[1], 2); /* an edge for each byte */
	assert_int_equal(get(s), 0xaa);
	assert_int_equal(s->lines, 0);
	data(s, 0xf2);
	assert_int_equal(get(s), 0xfa);
	assert_int_equal(get(s), 0xab);
	assert_int_equal(get(s), 0x41);
	data(s, 0xed);
	assert_int_equal(get(s), 0xfa);
	data(s, 0x07);
	assert_int_equal(get(s), 0xfa);
	data(s, 0xf0);
	assert_int_equal(get(s), 0xfa);
	data(s, 0x01);
	assert_int_equal(get(s), 0xfa);
	data(s, 0xf0);
	get(s);
	data(s, 0x00);
	assert_int_equal(get(s), 0xfa);
	assert_int_equal(get(s), 0x43);
	data(s, 0xf0);
	get(s);
	data(s, 0x04);
	assert_int_equal(get(s), 0xfe);
	data(s, 0xee);
	assert_int_equal(get(s), 0xee);
	data(s, 0xfe);
	assert_int_equal(get(s), 0xee);
	data(s, 0x12);
	assert_int_equal(get(s), 0xfe);
	/* A command in place of a parameter. */
	data(s, 0xed);
	get(s);
	data(s, 0xf4);
	assert_int_equal(get(s), 0xfa);
	data(s, 0x00);
	assert_int_equal(get(s), 0xfe);
	/* Without translation and interrupt. */
	command(s, 0x60);
	data(s, 0x00);
	data(s, 0xf2);
	assert_int_equal(s->lines, 0);
	get(s);
	get(s);
	assert_int_equal(get(s), 0x83);
	/* A disabled interface holds its bytes; the next byte to the keyboard enables it. */
	data(s, 0xee);
	command(s, 0xad);
	assert_int_equal(status(s) & 1, 0);
	command(s, 0xae);
	assert_int_equal(get(s), 0xee);
	for (unsigned i = 0; i < 100; i++)
		data(s, 0xee);
	for (unsigned i = 0; i < I8042_QUEUE; i++)
		assert_int_equal(get(s), 0xee);
	assert_int_equal(status(s) & 1, 0);
}

static void auxiliary(void **state)
{
	struct session *s = *state;

	command(s, 0x60);
	data(s, 0x03);
	command(s, 0xd3);
	data(s, 0x5a);
	assert_int_equal(status(s), 0x31);
	assert_int_equal(s->lines, 1u << 12);
	command(s, 0xd0);
	assert_int_equal(get(s) & 0x30, 0x20);
	command(s, 0xd3);
	data(s, 0x5a);
	assert_int_equal(get(s), 0x5a);
	assert_int_equal(s->lines, 0);
	command(s, 0xd4);
	data(s, 0xff);
	assert_int_equal(status(s), 0x71);
	assert_int_equal(get(s), 0xfe);
	command(s, 0xd2);
	data(s, 0x1c);
	assert_int_equal(status(s), 0x11);
	assert_int_equal(s->lines, 1u << 1);
	assert_int_equal(get(s), 0x1c);
}

static void saved(void **state)
{
	struct session *s = *state;
	struct i8042 other = {0};

	data(s, 0xf2);
	get(s);
	command(s, 0xd1);
	test_state(&i8042_state, &s->controller, &other, offsetof(struct i8042, bus));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(controller), TEST(reset_and_a20), TEST(keyboard),
					   TEST(auxiliary), TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
