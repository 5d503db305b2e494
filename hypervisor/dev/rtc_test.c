#include <stdio.h>

#include "dev/test_bench.h"

#include "dev/rtc.h"

#define SECOND 1000000000ull

struct session {
	struct test_bench bench;
	struct rtc rtc;
	unsigned raised;
	bool line;
};

static void on_interrupt(void *owner, bool raised)
{
	struct session *s = owner;

	s->line = raised;
	s->raised += raised;
}

static struct session *start_at(int64_t start)
{
	struct session *s = calloc(1, sizeof(*s));
	struct rtc_config config = {.start = start, .memory = 512ull << 20, .above = 0x123450000, .cpus = 4};

	test_bench_init(&s->bench);
	s->rtc.owner = s;
	s->rtc.interrupt = on_interrupt;
	assert_true(rtc_init(&s->rtc, &config, &s->bench.clock));
	assert_int_equal(rtc_attach(&s->rtc, &s->bench.bus), 0);
	return s;
}

static int setup(void **state)
{
	*state = start_at(RTC_START_DEFAULT);
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint8_t get(struct session *s, unsigned index)
{
	test_out(&s->bench, 0x70, 1, index);
	return (uint8_t)test_in(&s->bench, 0x71, 1);
}

static void set(struct session *s, unsigned index, unsigned value)
{
	test_out(&s->bench, 0x70, 1, index);
	test_out(&s->bench, 0x71, 1, value);
}

static void assert_time(struct session *s, const char *wanted)
{
	static const uint8_t order[] = {0x32, 9, 8, 7, 4, 2, 0, 6};
	char text[32] = "";

	for (unsigned i = 0; i < 8; i++)
		snprintf(text + 2 * i, 3, "%02x", get(s, order[i]));
	assert_string_equal(text, wanted);
}

static void dates(void **state)
{
	int64_t seconds;

	(void)state;
	assert_true(rtc_seconds(1970, 1, 1, 0, 0, 0, &seconds));
	assert_int_equal(seconds, 0);
	assert_true(rtc_seconds(2026, 1, 1, 0, 0, 0, &seconds));
	assert_int_equal(seconds, RTC_START_DEFAULT);
	assert_true(rtc_seconds(2000, 2, 29, 23, 59, 59, &seconds));
	assert_int_equal(seconds, 951868799);
	assert_true(rtc_seconds(1969, 12, 31, 23, 59, 59, &seconds));
	assert_int_equal(seconds, -1);
	assert_false(rtc_seconds(2023, 2, 29, 0, 0, 0, &seconds));
	assert_false(rtc_seconds(2100, 2, 29, 0, 0, 0, &seconds));
	assert_false(rtc_seconds(2023, 13, 1, 0, 0, 0, &seconds));
	assert_false(rtc_seconds(2023, 4, 31, 0, 0, 0, &seconds));
	assert_false(rtc_seconds(2023, 4, 30, 24, 0, 0, &seconds));
}

static void time_passes(void **state)
{
	struct session *s = *state;

	assert_time(s, "2026010100000005"); /* a Thursday */
	s->bench.time = 59 * SECOND;
	assert_time(s, "2026010100005905");
	s->bench.time = 60 * SECOND - 1;
	assert_time(s, "2026010100005905");
	s->bench.time = 60 * SECOND;
	assert_time(s, "2026010100010005");
	s->bench.time = (31 * 86400ull + 13 * 3600) * SECOND;
	assert_time(s, "2026020113000001"); /* a Sunday */
	s->bench.time = (365 * 86400ull - 1) * SECOND;
	assert_time(s, "2026123123595905");
	s->bench.time += SECOND;
	assert_time(s, "2027010100000006");
}

static void century(void **state)
{
	struct session *s;
	int64_t start;

	(void)state;
	assert_true(rtc_seconds(1999, 12, 31, 23, 59, 59, &start));
	s = start_at(start);
	assert_time(s, "1999123123595906");
	s->bench.time = SECOND;
	assert_time(s, "2000010100000007");
	free(s);
}

static void formats(void **state)
{
	struct session *s = *state;

	/* As software does it: the format, then the registers, under SET. */
	set(s, 0xb, 0x80 | 0x04);
	set(s, 4, 11 | 0x80);
	set(s, 2, 59);
	set(s, 0, 58);
	set(s, 7, 28);
	set(s, 8, 2);
	set(s, 9, 24);
	set(s, 0x32, 20);
	set(s, 6, 4);
	s->bench.time = 10 * SECOND; /* held */
	assert_int_equal(get(s, 0), 58);
	set(s, 0xb, 0x04);
	assert_time(s, "1418021c8b3b3a04");
	s->bench.time = 12 * SECOND;
	assert_time(s, "1418021d0c000005"); /* 12 in the morning; the 29th of a leap year */
	s->bench.time = (12 + 12 * 3600) * SECOND;
	assert_int_equal(get(s, 4), 0x8c);
	set(s, 0xb, 0x02 | 0x80);
	set(s, 4, 0x23);
	set(s, 0xb, 0x02);
	assert_int_equal(get(s, 4), 0x23);
}

static void update_in_progress(void **state)
{
	struct session *s = *state;

	s->bench.time = SECOND - 2228001;
	assert_int_equal(get(s, 0xa), 0x26);
	s->bench.time = SECOND - 2228000;
	assert_int_equal(get(s, 0xa), 0xa6);
	s->bench.time = SECOND - 1;
	assert_int_equal(get(s, 0xa), 0xa6);
	s->bench.time = SECOND;
	assert_int_equal(get(s, 0xa), 0x26);
	s->bench.time = 2 * SECOND - 1;
	set(s, 0xb, 0x82);
	assert_int_equal(get(s, 0xa), 0x26);
	set(s, 0xa, 0xa6);
	assert_int_equal(get(s, 0xa), 0x26);
}

static void divider(void **state)
{
	struct session *s = *state;

	s->bench.time = SECOND / 4;
	set(s, 0xa, 0x66);
	s->bench.time = 100 * SECOND;
	assert_int_equal(get(s, 0), 0);
	set(s, 0xa, 0x26);
	s->bench.time += SECOND / 2 - 1;
	assert_int_equal(get(s, 0), 0);
	s->bench.time += 1;
	assert_int_equal(get(s, 0), 1);
	/* For a crystal of 4.194304 MHz, ours is 128 times too slow. */
	set(s, 0xa, 0x06);
	s->bench.time += 64 * SECOND;
	assert_int_equal(get(s, 0), 2);
	s->bench.time += 127 * SECOND;
	assert_int_equal(get(s, 0), 2);
	assert_int_equal(s->bench.unclaimed, 0);
	set(s, 0xa, 0x36);
	assert_int_equal(s->bench.unclaimed, 1);
	assert_int_equal(get(s, 0xa), 0x06);
}

static void periodic(void **state)
{
	struct session *s = *state;

	/* The flag comes without the interrupt. */
	s->bench.time = 976562;
	assert_int_equal(get(s, 0xc), 0);
	s->bench.time = 976563;
	assert_int_equal(get(s, 0xc), 0x40);
	assert_int_equal(get(s, 0xc), 0);
	s->bench.time = 0;
	s->rtc.synced = 0;
	set(s, 0xb, 0x42);
	test_bench_pass(&s->bench, SECOND);
	assert_int_equal(s->raised, 1); /* nobody reads register C */
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(get(s, 0xc) & 0xc0, 0xc0);
		assert_false(s->line);
		test_bench_pass(&s->bench, 976563);
		assert_true(s->line);
	}
	set(s, 0xa, 0x2f);
	get(s, 0xc);
	s->raised = 0;
	for (unsigned i = 0; i < 100; i++) {
		test_bench_pass(&s->bench, SECOND / 10);
		get(s, 0xc);
	}
	assert_int_equal(s->raised, 20);
	set(s, 0xa, 0x20);
	test_bench_pass(&s->bench, SECOND);
	assert_int_equal(get(s, 0xc) & 0x40, 0);
	set(s, 0xa, 0x23); /* the fastest: 8192 Hz */
	s->raised = 0;
	for (unsigned i = 0; i < 10000; i++) {
		test_bench_pass(&s->bench, SECOND / 10000);
		get(s, 0xc);
	}
	assert_int_equal(s->raised, 8192);
}

static void update_ended(void **state)
{
	struct session *s = *state;

	set(s, 0xb, 0x12);
	for (unsigned i = 1; i <= 5; i++) {
		test_bench_pass(&s->bench, SECOND);
		assert_int_equal(s->raised, i);
		assert_int_equal(get(s, 0), i);
		assert_int_equal(get(s, 0xc) & 0xb0, 0x90);
		assert_false(s->line);
	}
	/* SET clears UIE. */
	set(s, 0xb, 0x92);
	assert_int_equal(get(s, 0xb), 0x82);
	/* An interrupt that is enabled when its flag is there comes at once. */
	set(s, 0xb, 0x02);
	test_bench_pass(&s->bench, SECOND);
	assert_false(s->line);
	set(s, 0xb, 0x12);
	assert_true(s->line);
	rtc_reset(&s->rtc);
	assert_false(s->line);
	assert_int_equal(get(s, 0xb), 0x02);
}

static void alarm_of(struct session *s, unsigned hours, unsigned minutes, unsigned seconds)
{
	set(s, 5, hours);
	set(s, 3, minutes);
	set(s, 1, seconds);
}

static void alarms(void **state)
{
	struct session *s = *state;

	alarm_of(s, 0x13, 0x30, 0x15);
	set(s, 0xb, 0x22);
	test_bench_pass(&s->bench, (13 * 3600 + 30 * 60 + 15) * SECOND - 1);
	assert_false(s->line);
	test_bench_pass(&s->bench, 1);
	assert_true(s->line);
	assert_int_equal(get(s, 0xc) & 0xa0, 0xa0);
	test_bench_pass(&s->bench, 86400 * SECOND - 1);
	assert_int_equal(s->raised, 1);
	test_bench_pass(&s->bench, 1);
	assert_int_equal(s->raised, 2);
	get(s, 0xc);
	alarm_of(s, 0xff, 0x30, 0x15); /* each hour */
	test_bench_pass(&s->bench, 3600 * SECOND);
	assert_int_equal(s->raised, 3);
	get(s, 0xc);
	alarm_of(s, 0xff, 0xc0, 0x20); /* each minute */
	test_bench_pass(&s->bench, 5 * SECOND);
	assert_int_equal(s->raised, 4);
	get(s, 0xc);
	alarm_of(s, 0xc0, 0xe0, 0xff); /* each second */
	test_bench_pass(&s->bench, SECOND);
	assert_int_equal(s->raised, 5);
	get(s, 0xc);
	alarm_of(s, 0x24, 0x00, 0x00); /* never */
	test_bench_pass(&s->bench, 3 * 86400 * SECOND);
	assert_int_equal(s->raised, 5);
	assert_int_equal(s->bench.clock.next, CLOCK_NEVER);
	/* The flag comes without the interrupt as well. */
	set(s, 0xb, 0x02);
	alarm_of(s, 0xff, 0xff, 0xff);
	test_bench_pass(&s->bench, SECOND);
	assert_int_equal(get(s, 0xc) & 0xa0, 0x20);
	assert_false(s->line);
	/* In 12-hour mode bit 7 is the afternoon's. */
	set(s, 0xb, 0x80);
	set(s, 4, 0x11);
	set(s, 2, 0x59);
	set(s, 0, 0x59);
	alarm_of(s, 0x92, 0x00, 0x00);
	set(s, 0xb, 0x20);
	get(s, 0xc);
	test_bench_pass(&s->bench, SECOND);
	assert_true(s->line);
}

static void daylight(void **state)
{
	struct session *s;
	int64_t start;

	(void)state;
	assert_true(rtc_seconds(2026, 4, 26, 1, 59, 58, &start));
	s = start_at(start);
	set(s, 0xb, 0x03);
	s->bench.time = SECOND;
	assert_time(s, "2026042601595901");
	s->bench.time = 2 * SECOND;
	assert_time(s, "2026042603000001");
	free(s);
	assert_true(rtc_seconds(2026, 10, 25, 1, 59, 59, &start));
	s = start_at(start);
	set(s, 0xb, 0x03);
	s->bench.time = SECOND;
	assert_time(s, "2026102501000001");
	s->bench.time = 3600 * SECOND;
	assert_time(s, "2026102501595901");
	s->bench.time = 3601 * SECOND;
	assert_time(s, "2026102502000001");
	free(s);
}

static void memory(void **state)
{
	struct session *s = *state;

	assert_int_equal(get(s, 0xd), 0x80);
	set(s, 0xd, 0);
	assert_int_equal(get(s, 0xd), 0x80);
	assert_int_equal(get(s, 0x15) | get(s, 0x16) << 8, 640);
	assert_int_equal(get(s, 0x17) | get(s, 0x18) << 8, 0xffff);
	assert_int_equal(get(s, 0x34) | get(s, 0x35) << 8, (512 - 16) * 16);
	assert_int_equal(get(s, 0x5b) | get(s, 0x5c) << 8 | get(s, 0x5d) << 16, 0x12345);
	assert_int_equal(get(s, 0x5f), 3);
	set(s, RTC_SHUTDOWN, 0x0a);
	set(s, 0x7f, 0x55);
	rtc_reset(&s->rtc);
	assert_int_equal(get(s, RTC_SHUTDOWN), 0x0a);
	assert_int_equal(get(s, 0x7f), 0x55);
	assert_int_equal(test_in(&s->bench, 0x70, 1), 0xff);
	assert_false(rtc_nmi_masked(&s->rtc));
	test_out(&s->bench, 0x70, 1, 0x8d);
	assert_true(rtc_nmi_masked(&s->rtc));
	assert_int_equal(test_in(&s->bench, 0x71, 1), 0x80);
}

static void saved(void **state)
{
	struct session *s = *state, *other = start_at(0);

	test_bench_pass(&s->bench, 1234567890);
	alarm_of(s, 0xff, 0xff, 0x05);
	set(s, 0xb, 0x22);
	other->bench.time = s->bench.time;
	test_state(&rtc_state, &s->rtc, &other->rtc, offsetof(struct rtc, clock));
	assert_int_equal(other->rtc.timer.at, s->rtc.timer.at);
	assert_int_equal(s->rtc.timer.at, 5 * SECOND);
	free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dates),
		TEST(time_passes),
		cmocka_unit_test(century),
		TEST(formats),
		TEST(update_in_progress),
		TEST(divider),
		TEST(periodic),
		TEST(update_ended),
		TEST(alarms),
		cmocka_unit_test(daylight),
		TEST(memory),
		TEST(saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
