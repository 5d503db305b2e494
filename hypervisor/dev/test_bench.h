/* A bus, a clock that the test sets, and interrupt lines that it sees: what tests of devices need. */
#ifndef TRAPLINE_DEV_TEST_BENCH_H
#define TRAPLINE_DEV_TEST_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/state.h"

struct test_bench {
	struct bus bus;
	struct clock clock;
	uint64_t time;
	unsigned unclaimed; /* accesses that nobody claimed or that were refused */
	struct bus_access last_unclaimed;
};

static inline uint64_t test_bench_now(void *owner) { return ((struct test_bench *)owner)->time; }

static inline void test_bench_unclaimed(void *owner, const struct bus_access *access)
{
	struct test_bench *bench = owner;

	bench->unclaimed++;
	bench->last_unclaimed = *access;
}

static inline void test_bench_init(struct test_bench *bench)
{
	bench->bus.owner = bench;
	bench->bus.unclaimed = test_bench_unclaimed;
	clock_init(&bench->clock);
	bench->clock.owner = bench;
	bench->clock.now = test_bench_now;
}

/* Time passes, timer by timer, as an engine does it. */
static inline void test_bench_pass(struct test_bench *bench, uint64_t ns)
{
	uint64_t end = bench->time + ns;

	while (bench->clock.next <= end) {
		if (bench->time < bench->clock.next)
			bench->time = bench->clock.next;
		clock_run(&bench->clock);
	}
	bench->time = end;
}

static inline uint32_t test_in(struct test_bench *bench, unsigned port, unsigned size)
{
	return bus_port_in(&bench->bus, (uint16_t)port, size);
}

static inline void test_out(struct test_bench *bench, unsigned port, unsigned size, uint32_t value)
{
	bus_port_out(&bench->bus, (uint16_t)port, size, value);
}

/* Saves @device, loads it into @other, and compares all of both up to @end, the offset of what the table leaves
 * out. */
static inline void test_state(const struct state_table *table, const void *device, void *other, size_t end)
{
	uint8_t *saved = malloc(state_size(table));

	state_save(table, device, saved);
	assert_int_equal(state_load(table, other, saved, state_size(table)), 0);
	assert_null(state_difference(table, device, other));
	assert_memory_equal(device, other, end);
	free(saved);
}

#endif
