/* The arithmetic of pre-copy: when it is over, how fast it may go, how much the guest rests. */
#include "migrate/converge.h"
#include "vm/test.h"

#define MS  1000000u
#define SEC 1000000000u
#define MIB (1u << 20)

static void times(void **state)
{
	(void)state;
	assert_int_equal(converge_time(0, 0), 0);
	assert_true(converge_time(1, 0) == UINT64_MAX);
	assert_int_equal(converge_time(1000, 1000), SEC);
	assert_int_equal(converge_time(1, 3 * (uint64_t)SEC), 1); /* rounded up */
	assert_true(converge_time(UINT64_MAX, 1) == UINT64_MAX);
}

/* A guest that writes less than is sent: rounds shrink, and the last stop is short. */
static void shrinks(void **state)
{
	const struct converge_limits limits = {.downtime = 300 * MS};
	struct converge converge = {0};

	(void)state;
	/* 1 GiB/s; 64 MiB are left: 63 ms, allowed, but a further round makes it less. */
	assert_false(converge_round(&converge, &limits, 1024u * MIB, SEC, SEC, 64 * MIB));
	assert_in_range(converge.expected, 62 * MS, 63 * MS);
	assert_false(converge_round(&converge, &limits, 64 * MIB, SEC / 16, SEC / 16, 4 * MIB));
	assert_true(converge_round(&converge, &limits, 4 * MIB, 4 * MS, 4 * MS, MIB / 4));
	assert_true(converge.expected < MS / 2);
}

/* One that keeps writing as much: stopped at once where the limit allows it, never where it does not. */
static void stays(void **state)
{
	const struct converge_limits loose = {.downtime = 300 * MS}, tight = {.downtime = 10 * MS};
	struct converge a = {0}, b = {0};

	(void)state;
	assert_false(converge_round(&a, &loose, 1024u * MIB, SEC, SEC, 64 * MIB));
	assert_true(converge_round(&a, &loose, 64 * MIB, SEC / 16, SEC / 16, 64 * MIB));
	for (unsigned i = 0; i < 100; i++)
		assert_false(converge_round(&b, &tight, 64 * MIB, SEC / 16, SEC / 16, 64 * MIB));
	assert_int_equal(b.throttle, 0);
}

static void told_bandwidth(void **state)
{
	const struct converge_limits slow = {.downtime = 300 * MS, .bandwidth = 10 * MIB};
	struct converge converge = {0};

	(void)state;
	assert_false(converge_round(&converge, &slow, 1024u * MIB, SEC, SEC, 4 * MIB));
	assert_int_equal(converge.expected, 400 * MS);
}

static void throttles(void **state)
{
	const struct converge_limits limits = {.downtime = 10 * MS,
					       .throttles = true,
					       .initial = 20,
					       .increment = 30,
					       .most = 75,
					       .threshold = 50};
	static const unsigned wanted[] = {0, 20, 20, 50, 50, 75, 75, 75};
	struct converge converge = {0};

	(void)state;
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		assert_false(converge_round(&converge, &limits, 64 * MIB, SEC / 16, SEC / 16, 48 * MIB));
		assert_int_equal(converge.throttle, wanted[i]);
	}
	/* Below the threshold the guest is not slowed further, and the count begins again. */
	converge = (struct converge){0};
	assert_false(converge_round(&converge, &limits, 64 * MIB, SEC / 16, SEC / 16, 48 * MIB));
	assert_false(converge_round(&converge, &limits, 64 * MIB, SEC / 16, SEC / 16, 20 * MIB));
	assert_false(converge_round(&converge, &limits, 64 * MIB, SEC / 16, SEC / 16, 48 * MIB));
	assert_int_equal(converge.throttle, 0);
}

static void rates(void **state)
{
	struct rate rate = {0};
	uint64_t now = 5 * (uint64_t)SEC, began = now;

	(void)state;
	assert_int_equal(rate_wait(&rate, 0, now, 1000 * MIB), 0);
	for (unsigned i = 0; i < 100; i++)
		now += rate_wait(&rate, 10 * MIB, now, MIB / 2);
	assert_int_equal(now - began, 5 * (uint64_t)SEC); /* 50 MiB at 10 MiB/s */
	/* Rests that are too short for a system to keep are put together. */
	began = now;
	for (unsigned i = 0; i < 2560; i++) {
		uint64_t rest = rate_wait(&rate, 10 * MIB, now, MIB / 256); /* 0.39 ms of it */

		assert_true(rest == 0 || rest >= MS);
		now += rest;
	}
	assert_in_range(now - began, SEC - MS, SEC + MS);
	/* What was not used for long is lost. */
	now += 10 * (uint64_t)SEC;
	assert_int_equal(rate_wait(&rate, 10 * MIB, now, MIB), 0);
	assert_int_equal(rate_wait(&rate, 10 * MIB, now, MIB), 100 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(times),     cmocka_unit_test(shrinks),
					   cmocka_unit_test(stays),     cmocka_unit_test(told_bandwidth),
					   cmocka_unit_test(throttles), cmocka_unit_test(rates)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
