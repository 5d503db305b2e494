#include "dev/test_bench.h"

#include "dev/hpet.h"

struct session {
	struct test_bench bench;
	struct hpet hpet;
	unsigned raised[32];
	uint32_t lines;
	bool replaced;
};

static void on_interrupt(void *owner, unsigned input, bool raised)
{
	struct session *s = owner;

	assert_int_not_equal(s->lines >> input & 1, raised);
	s->lines ^= 1u << input;
	s->raised[input] += raised;
}

static void on_legacy(void *owner, bool replaced) { ((struct session *)owner)->replaced = replaced; }

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->hpet.owner = s;
	s->hpet.interrupt = on_interrupt;
	s->hpet.legacy = on_legacy;
	s->bench.time = 12345;
	assert_true(hpet_init(&s->hpet, &s->bench.clock));
	assert_int_equal(hpet_attach(&s->hpet, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint64_t get(struct session *s, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	bus_mmio_read(&s->bench.bus, HPET_BASE + offset, &value, size);
	return value;
}

static void set(struct session *s, unsigned offset, unsigned size, uint64_t value)
{
	bus_mmio_write(&s->bench.bus, HPET_BASE + offset, &value, size);
}

static void counter(void **state)
{
	struct session *s = *state;

	assert_int_equal(get(s, 0, 4), 0x8086a201);
	assert_int_equal(get(s, 4, 4), 10000000);
	assert_int_equal(get(s, 0, 8), 10000000ull << 32 | 0x8086a201);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(get(s, 0xf0, 8), 0);
	set(s, 0x10, 8, ~0ull);
	assert_int_equal(get(s, 0x10, 8), 3);
	set(s, 0x10, 4, 1);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(get(s, 0xf0, 8), 100);
	set(s, 0x10, 4, 0);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(get(s, 0xf0, 8), 100);
	set(s, 0xf4, 4, 5);
	assert_int_equal(get(s, 0xf0, 8), 5ull << 32 | 100);
	set(s, 0xf0, 8, 0xffffffff);
	set(s, 0x10, 4, 1);
	test_bench_pass(&s->bench, 20);
	assert_int_equal(get(s, 0xf0, 4), 1);
	assert_int_equal(get(s, 0xf4, 4), 1);
	set(s, 0, 8, 0); /* read-only */
	assert_int_equal(get(s, 0, 4), 0x8086a201);
	assert_int_equal(get(s, 0x108, 8), ~0ull);
	assert_int_equal(get(s, 0x100, 8), 0x00f00000ull << 32 | 0x30);
	set(s, 0x100, 8, ~0ull);
	/* No FSB, and no reserved bit. */
	assert_int_equal(get(s, 0x100, 8), 0x00f00000ull << 32 | 0x3f7e);
	assert_int_equal(get(s, 0x3f8, 8), 0);
}

static void one_shot(void **state)
{
	struct session *s = *state;

	set(s, 0x10, 4, 1);
	set(s, 0x120, 4, 20 << 9 | 4);
	set(s, 0x128, 8, 100);
	test_bench_pass(&s->bench, 999);
	assert_int_equal(s->raised[20], 0);
	test_bench_pass(&s->bench, 1);
	assert_int_equal(s->raised[20], 1);
	assert_int_equal(s->lines, 1u << 20);
	assert_int_equal(get(s, 0x20, 8), 0);
	test_bench_pass(&s->bench, 100000000000);
	assert_int_equal(s->raised[20], 1);
	/* What is passed waits for the wrap. */
	set(s, 0x128, 8, 100);
	test_bench_pass(&s->bench, 1000000);
	assert_int_equal(s->raised[20], 1);
	assert_int_equal(s->bench.clock.next, CLOCK_NEVER);
	/* In 32-bit mode the wrap comes soon, and again. */
	set(s, 0xf0, 8, 200);
	set(s, 0x120, 4, 20 << 9 | 4 | 0x100);
	test_bench_pass(&s->bench, ((1ull << 32) - 100) * 10 - 1);
	assert_int_equal(s->raised[20], 1);
	test_bench_pass(&s->bench, 1);
	assert_int_equal(s->raised[20], 2);
	test_bench_pass(&s->bench, (1ull << 32) * 10);
	assert_int_equal(s->raised[20], 3);
	/* Edges keep their line raised in between. */
	set(s, 0x120, 4, 20 << 9);
	assert_int_equal(s->lines, 0);
	/* An input that the timer has not: nothing. */
	set(s, 0x120, 4, 5 << 9 | 4);
	set(s, 0x128, 8, get(s, 0xf0, 8) + 10);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(s->raised[5], 0);
	/* Disabled as a whole. */
	set(s, 0x120, 4, 20 << 9 | 4);
	set(s, 0x128, 8, get(s, 0xf0, 8) + 10);
	set(s, 0x10, 4, 0);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(s->raised[20], 3);
	set(s, 0x10, 4, 1);
	test_bench_pass(&s->bench, 100);
	assert_int_equal(s->raised[20], 4);
}

static void periodic(void **state)
{
	struct session *s = *state;

	set(s, 0x100, 4, 20 << 9 | 0x4c);
	set(s, 0x108, 8, 1000);
	assert_int_equal(get(s, 0x100, 4) & 0x40, 0);
	set(s, 0x10, 4, 1);
	test_bench_pass(&s->bench, 99999);
	assert_int_equal(s->raised[20], 9);
	assert_int_equal(get(s, 0x108, 8), 10000);
	test_bench_pass(&s->bench, 1);
	assert_int_equal(s->raised[20], 10);
	/* The comparator, then another period, as two writes. */
	set(s, 0x100, 4, 20 << 9 | 0x14c);
	set(s, 0x108, 4, (uint32_t)get(s, 0xf0, 4) + 500);
	set(s, 0x108, 4, 200);
	test_bench_pass(&s->bench, 5000);
	assert_int_equal(s->raised[20], 11);
	test_bench_pass(&s->bench, 2000);
	assert_int_equal(s->raised[20], 12);
	/* Nobody looked for a while: one interrupt, and in step again. */
	s->bench.time += 20001;
	clock_run(&s->bench.clock);
	assert_int_equal(s->raised[20], 13);
	test_bench_pass(&s->bench, 1999);
	assert_int_equal(s->raised[20], 14);
	/* A period of one tick does not hang, nor does none. */
	set(s, 0x108, 4, 1);
	s->bench.time += 1000000000;
	clock_run(&s->bench.clock);
	set(s, 0x108, 4, 0);
	s->bench.time += 1000000000;
	clock_run(&s->bench.clock);
	assert_true(s->bench.clock.next > s->bench.time);
	/* Two halves: the bit stays until the upper one. */
	set(s, 0x100, 4, 20 << 9 | 0x4c);
	set(s, 0x108, 4, 7);
	assert_int_equal(get(s, 0x100, 4) & 0x40, 0x40);
	set(s, 0x10c, 4, 9);
	assert_int_equal(get(s, 0x108, 8), 9ull << 32 | 7);
	assert_int_equal(get(s, 0x100, 4) & 0x40, 0);
}

static void level(void **state)
{
	struct session *s = *state;

	set(s, 0x10, 4, 1);
	set(s, 0x140, 4, 21 << 9 | 6);
	set(s, 0x120, 4, 21 << 9 | 6);
	set(s, 0x148, 8, 100);
	set(s, 0x128, 8, 200);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(s->lines, 1u << 21);
	assert_int_equal(get(s, 0x20, 8), 4);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(get(s, 0x20, 8), 6);
	set(s, 0x20, 4, 4);
	assert_int_equal(s->lines, 1u << 21);
	set(s, 0x140, 4, 21 << 9);
	set(s, 0x120, 4, 22 << 9 | 6);
	assert_int_equal(s->lines, 1u << 22);
	set(s, 0x120, 4, 22 << 9 | 2);
	assert_int_equal(s->lines, 0);
	assert_int_equal(get(s, 0x20, 8), 2);
	set(s, 0x120, 4, 22 << 9 | 6);
	assert_int_equal(s->lines, 1u << 22);
	set(s, 0x20, 4, 2);
	assert_int_equal(s->lines, 0);
	/* The status comes without the interrupt. */
	set(s, 0x120, 4, 22 << 9 | 2);
	set(s, 0x128, 8, 300);
	test_bench_pass(&s->bench, 10000);
	assert_int_equal(get(s, 0x20, 8), 2);
	assert_int_equal(s->lines, 0);
	set(s, 0x120, 4, 22 << 9 | 6);
	hpet_reset(&s->hpet);
	assert_int_equal(s->lines, 0);
	assert_int_equal(s->bench.clock.next, CLOCK_NEVER);
}

static void legacy(void **state)
{
	struct session *s = *state;

	set(s, 0x10, 4, 2);
	assert_false(hpet_replaces_legacy(&s->hpet));
	set(s, 0x10, 4, 3);
	assert_true(hpet_replaces_legacy(&s->hpet));
	assert_true(s->replaced);
	for (unsigned i = 0; i < 3; i++) {
		set(s, 0x100 + 0x20 * i, 4, 23 << 9 | 4);
		set(s, 0x108 + 0x20 * i, 8, 1000);
	}
	test_bench_pass(&s->bench, 10000);
	assert_int_equal(s->raised[0], 1);
	assert_int_equal(s->raised[8], 1);
	assert_int_equal(s->raised[23], 1);
	hpet_reset(&s->hpet);
	assert_false(s->replaced);
}

static void saved(void **state)
{
	struct session *s = *state;
	struct session *other;
	void *made;

	setup(&made);
	other = made;
	set(s, 0x10, 4, 1);
	set(s, 0x100, 4, 20 << 9 | 0x4c);
	set(s, 0x108, 8, 1000);
	test_bench_pass(&s->bench, 123456);
	other->bench.time = s->bench.time;
	other->lines = s->lines;
	test_state(&hpet_state, &s->hpet, &other->hpet, offsetof(struct hpet, clock));
	assert_int_equal(other->bench.clock.next, s->bench.clock.next);
	test_bench_pass(&other->bench, 10000);
	assert_int_equal(other->raised[20], 1);
	teardown(&made);
}

/* Saved and loaded within the tick in which it has fired, it does not fire again; armed and not fired yet, it does. */
static void saved_at_match(void **state)
{
	struct session *s = *state;
	struct session *other;
	void *made;

	setup(&made);
	other = made;
	set(s, 0x10, 4, 1);
	set(s, 0x100, 4, 20 << 9 | 4);
	set(s, 0x108, 8, 100);
	test_bench_pass(&s->bench, 1000);
	assert_int_equal(s->raised[20], 1);
	other->bench.time = s->bench.time;
	other->lines = s->lines;
	test_state(&hpet_state, &s->hpet, &other->hpet, offsetof(struct hpet, clock));
	test_bench_pass(&other->bench, 1);
	assert_int_equal(other->raised[20], 0);
	set(s, 0x108, 8, get(s, 0xf0, 8));
	test_state(&hpet_state, &s->hpet, &other->hpet, offsetof(struct hpet, clock));
	test_bench_pass(&other->bench, 1);
	assert_int_equal(other->raised[20], 1);
	teardown(&made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(counter), TEST(one_shot), TEST(periodic), TEST(level), TEST(legacy), TEST(saved),
		TEST(saved_at_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
