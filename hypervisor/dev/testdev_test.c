#include "dev/test_bench.h"

#include "dev/debug.h"
#include "dev/testdev.h"

struct session {
	struct test_bench bench;
	struct testdev testdev;
	struct debug debug;
	uint32_t lines;
	unsigned told, printed;
};

static void on_interrupt(void *owner, unsigned gsi, bool raised)
{
	struct session *s = owner;

	s->told++;
	s->lines = (s->lines & ~(1u << gsi)) | (uint32_t)raised << gsi;
}

static void on_printed(void *owner, uint8_t byte)
{
	(void)byte;
	((struct session *)owner)->printed++;
}

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->testdev.owner = s->debug.owner = s;
	s->testdev.interrupt = on_interrupt;
	s->debug.printed = on_printed;
	assert_int_equal(debug_attach(&s->debug, &s->bench.bus), 0);
	assert_int_equal(testdev_attach(&s->testdev, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void latch(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0xe0, 4, 0x12345678);
	assert_int_equal(test_in(&s->bench, 0xe0, 4), 0x12345678);
	assert_int_equal(test_in(&s->bench, 0xe1, 1), 0x56);
	assert_int_equal(test_in(&s->bench, 0xe2, 2), 0x1234);
	test_out(&s->bench, 0xe3, 1, 0xab);
	assert_int_equal(test_in(&s->bench, 0xe8, 4), 0xab345678);
	test_out(&s->bench, 0xe8, 2, 0x9988);
	test_out(&s->bench, 0xeb, 1, 0x11);
	assert_int_equal(test_in(&s->bench, 0xe0, 4), 0x11349988);
	assert_int_equal(test_in(&s->bench, 0xea, 2), 0x1134);
	assert_int_equal(s->printed, 0);
	test_out(&s->bench, 0xe9, 1, 'x');
	assert_int_equal(s->printed, 1);
	test_out(&s->bench, 0xe4, 4, 0x1000);
	assert_int_equal(s->bench.unclaimed, 0);
}

static void lines(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0x2000, 1, 1);
	test_out(&s->bench, 0x2017, 1, 0x80);
	assert_int_equal(s->lines, 1u | 1u << 23);
	assert_int_equal(test_in(&s->bench, 0x2017, 1), 1);
	test_out(&s->bench, 0x2000, 1, 0);
	assert_int_equal(s->lines, 1u << 23);
	assert_int_equal(s->told, 3);
	test_out(&s->bench, 0x2018, 1, 1);
	assert_int_equal(s->bench.unclaimed, 1);
}

static void memory(void **state)
{
	struct session *s = *state;
	uint8_t bytes[16];

	for (unsigned i = 0; i < 16; i++)
		bytes[i] = (uint8_t)(i + 1);
	bus_mmio_write(&s->bench.bus, TESTDEV_MEMORY + 3, bytes, 16);
	memset(bytes, 0, 16);
	bus_mmio_read(&s->bench.bus, TESTDEV_MEMORY + 5, bytes, 8);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(bytes[i], i + 3);
	bus_mmio_read(&s->bench.bus, TESTDEV_MEMORY + 0xffff, bytes, 1);
	assert_int_equal(bytes[0], 0);
	assert_int_equal(s->bench.unclaimed, 0);
	bus_mmio_write(&s->bench.bus, TESTDEV_MEMORY + 0xfffd, bytes, 4);
	assert_int_equal(s->bench.unclaimed, 1);
}

static void saved(void **state)
{
	struct session *s = *state;
	struct testdev *other = calloc(1, sizeof(*other));

	test_out(&s->bench, 0xe0, 4, 0x12345678);
	test_out(&s->bench, 0x2005, 1, 1);
	bus_mmio_write(&s->bench.bus, TESTDEV_MEMORY + 77, "abc", 3);
	test_state(&testdev_state, &s->testdev, other, offsetof(struct testdev, owner));
	free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(latch), TEST(lines), TEST(memory), TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
