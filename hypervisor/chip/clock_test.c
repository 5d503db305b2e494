#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "chip/clock.h"

struct bench {
	struct clock clock;
	struct clock_timer timer[3];
	uint64_t time;
	unsigned changed, fired_count;
	struct {
		unsigned timer;
		uint64_t due;
	} fired[8];
	struct owner {
		struct bench *bench;
		unsigned index;
		uint64_t period; /* 0: once */
	} owner[3];
};

static uint64_t now(void *owner) { return ((struct bench *)owner)->time; }
static void changed(void *owner) { ((struct bench *)owner)->changed++; }

static void fired(void *of, uint64_t due)
{
	struct owner *owner = of;
	struct bench *bench = owner->bench;

	bench->fired[bench->fired_count].timer = owner->index;
	bench->fired[bench->fired_count++].due = due;
	if (owner->period)
		clock_arm(&bench->timer[owner->index], due + owner->period);
}

static void set_up(struct bench *bench)
{
	*bench = (struct bench){0};
	clock_init(&bench->clock);
	bench->clock.owner = bench;
	bench->clock.now = now;
	bench->clock.changed = changed;
	for (unsigned i = 0; i < 3; i++) {
		bench->owner[i] = (struct owner){bench, i, 0};
		assert_true(clock_add(&bench->clock, &bench->timer[i], fired, &bench->owner[i]));
	}
}

static void test_order(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	clock_arm(&bench.timer[0], 30);
	clock_arm(&bench.timer[1], 10);
	clock_arm(&bench.timer[2], 10);
	assert_int_equal(bench.clock.next, 10);
	bench.time = 9;
	clock_run(&bench.clock);
	assert_int_equal(bench.fired_count, 0);
	bench.time = 30;
	clock_run(&bench.clock);
	assert_int_equal(bench.fired_count, 3);
	assert_int_equal(bench.fired[0].timer, 1);
	assert_int_equal(bench.fired[1].timer, 2);
	assert_int_equal(bench.fired[2].timer, 0);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
}

static void test_period_counts_from_due(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	bench.owner[0].period = 7;
	clock_arm(&bench.timer[0], 10);
	bench.time = 25;
	clock_run(&bench.clock);
	assert_int_equal(bench.fired_count, 3);
	assert_int_equal(bench.fired[2].due, 24);
	assert_int_equal(bench.clock.next, 31);
}

static void test_disarm_and_change(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	clock_arm(&bench.timer[0], 10);
	assert_int_equal(bench.changed, 1);
	clock_arm(&bench.timer[1], 20);
	assert_int_equal(bench.changed, 1);
	clock_arm(&bench.timer[0], CLOCK_NEVER);
	assert_int_equal(bench.clock.next, 20);
	bench.time = 15;
	clock_run(&bench.clock);
	assert_int_equal(bench.fired_count, 0);
}

static void test_room(void **state)
{
	static struct clock_timer timer[CLOCK_TIMERS_MAX + 1];
	struct clock clock;

	(void)state;
	clock_init(&clock);
	for (unsigned i = 0; i < CLOCK_TIMERS_MAX; i++)
		assert_true(clock_add(&clock, &timer[i], fired, NULL));
	assert_false(clock_add(&clock, &timer[CLOCK_TIMERS_MAX], fired, NULL));
	assert_int_equal(clock_now(&clock), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_period_counts_from_due),
		cmocka_unit_test(test_disarm_and_change),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
