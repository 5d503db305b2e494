#include "dev/test_bench.h"

#include "dev/acpi_pm.h"

#define SECOND 1000000000ull

struct session {
	struct test_bench bench;
	struct pci pci;
	struct acpi_pm pm;
	unsigned raised, off, smis, sleeps, wakes;
	bool line;
};

static void on_interrupt(void *owner, bool raised)
{
	struct session *s = owner;

	s->line = raised;
	s->raised += raised;
}

static void on_off(void *owner) { ((struct session *)owner)->off++; }
static void on_sleep(void *owner) { ((struct session *)owner)->sleeps++; }
static void on_wake(void *owner) { ((struct session *)owner)->wakes++; }
static void on_smi(void *owner) { ((struct session *)owner)->smis++; }

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->pm.owner = s;
	s->pm.interrupt = on_interrupt;
	s->pm.power_off = on_off;
	s->pm.sleep = on_sleep;
	s->pm.wake = on_wake;
	s->pm.smi = on_smi;
	assert_true(acpi_pm_init(&s->pm, &s->bench.clock));
	assert_int_equal(pci_attach(&s->pci, &s->bench.bus), 0);
	assert_int_equal(acpi_pm_attach(&s->pm, &s->pci, &s->bench.bus), 0);
	acpi_pm_firmware(&s->pm);
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
	assert_int_equal(test_in(&s->bench, 0x602, 2), 0x521);
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
	assert_int_equal(test_in(&s->bench, 0x603, 1), 0x05);
	for (unsigned i = 2; i < 6; i++) {
		test_bench_pass(&s->bench, 2343484438);
		assert_int_equal(s->raised, i);
		test_out(&s->bench, 0x600, 4, 0x00010001);
		assert_false(s->line);
	}
	test_out(&s->bench, 0xb2, 1, 0xf0);
	assert_int_equal(s->bench.clock.next, CLOCK_NEVER);
}

/* The power button: its status, and the SCI once both are enabled (ACPI 4.8.3.1, 4.8.2.2.1.1). */
static void button(void **state)
{
	struct session *s = *state;

	acpi_pm_button(&s->pm);
	assert_int_equal(test_in(&s->bench, 0x600, 2), 0x100);
	assert_false(s->line);
	test_out(&s->bench, 0xb2, 1, 0xf1);
	test_out(&s->bench, 0x602, 2, 0x100);
	assert_true(s->line);
	test_out(&s->bench, 0x600, 2, 0x100);
	assert_false(s->line);
	assert_int_equal(test_in(&s->bench, 0x600, 2), 0);
}

static void sleeps(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0x604, 2, 0x0c02);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0x0c02);
	test_out(&s->bench, 0x604, 2, 0x0001); /* SCI_EN is not software's */
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0);
	assert_int_equal(s->off, 0);
	test_out(&s->bench, 0x604, 2, 0x2c00);
	assert_int_equal(s->off, 0);
	assert_int_equal(s->bench.unclaimed, 1);
	assert_int_equal(s->bench.last_unclaimed.address, 0x604);
	test_out(&s->bench, 0x604, 2, 0x2000);
	assert_int_equal(s->off, 1);
	assert_int_equal(test_in(&s->bench, 0x604, 2), 0);
	test_out(&s->bench, 0x605, 1, 0x20);
	assert_int_equal(s->off, 2);
	test_out(&s->bench, 0x604, 2, 0x2800); /* S4 */
	assert_int_equal(s->off, 3);
}

static void wakes(void **state)
{
	struct session *s = *state;

	/* The clock's interrupt is an event in any state, and ends S3 where it is enabled. */
	acpi_pm_rtc(&s->pm, true);
	acpi_pm_rtc(&s->pm, false);
	assert_int_equal(test_in(&s->bench, 0x600, 2), 0x400);
	test_out(&s->bench, 0x600, 2, 0x400);
	test_out(&s->bench, 0x604, 2, 0x2400);
	assert_int_equal(s->sleeps, 1);
	acpi_pm_rtc(&s->pm, true);
	assert_int_equal(s->wakes, 0);
	test_out(&s->bench, 0x600, 2, 0x400);
	test_out(&s->bench, 0x602, 2, 0x400);
	assert_int_equal(s->wakes, 0);
	acpi_pm_rtc(&s->pm, false);
	assert_int_equal(s->wakes, 0);
	acpi_pm_rtc(&s->pm, true);
	assert_int_equal(s->wakes, 1);
	acpi_pm_rtc(&s->pm, true); /* awake already */
	assert_int_equal(s->wakes, 1);
	acpi_pm_reset(&s->pm);
	acpi_pm_firmware(&s->pm);
	acpi_pm_woken(&s->pm);
	assert_int_equal(test_in(&s->bench, 0x600, 4), 0x8400);
	/* An event that waits. */
	test_out(&s->bench, 0x602, 2, 0x400);
	test_out(&s->bench, 0x604, 2, 0x2400);
	assert_int_equal(s->sleeps, 2);
	assert_int_equal(s->wakes, 2);
	/* In ACPI mode, it is an interrupt as well. */
	assert_false(s->line);
	test_out(&s->bench, 0xb2, 1, 0xf1);
	assert_true(s->line);
}

static void config_write(struct session *s, unsigned at, unsigned size, uint32_t value)
{
	test_out(&s->bench, 0xcf8, 4, 0x80000b00 | (at & 0xfc)); /* slot 1, function 3 */
	test_out(&s->bench, 0xcfc + at % 4, size, value);
}

static uint32_t config_read(struct session *s, unsigned at, unsigned size)
{
	test_out(&s->bench, 0xcf8, 4, 0x80000b00 | (at & 0xfc));
	return test_in(&s->bench, 0xcfc + at % 4, size);
}

static void moves(void **state)
{
	struct session *s = *state;

	assert_int_equal(config_read(s, 0, 4), 0x71138086);
	assert_int_equal(config_read(s, 8, 4), 0x06800003);
	assert_int_equal(config_read(s, 0x3c, 2), 0x0109);
	assert_int_equal(config_read(s, 0x40, 4), 0x601);
	test_out(&s->bench, 0xcf8, 4, 0x8000080c);
	assert_int_equal(test_in(&s->bench, 0xcfe, 1), 0x80); /* the slot has several functions */
	test_in(&s->bench, 0x60c, 1);
	assert_int_equal(s->bench.unclaimed, 1);
	config_write(s, 0x40, 4, 0xffffb03f);
	assert_int_equal(config_read(s, 0x40, 4), 0xb001);
	test_out(&s->bench, 0xb002, 2, 1);
	assert_int_equal(test_in(&s->bench, 0xb002, 2), 1);
	test_in(&s->bench, 0x602, 2);
	assert_int_equal(s->bench.unclaimed, 2);
	config_write(s, 0x80, 1, 0xfe);
	test_in(&s->bench, 0xb002, 2);
	assert_int_equal(s->bench.unclaimed, 3);
	acpi_pm_reset(&s->pm);
	assert_int_equal(config_read(s, 0x40, 4), 1);
}

static void apm(void **state)
{
	struct session *s = *state;

	test_out(&s->bench, 0xb3, 1, 0x55);
	test_out(&s->bench, 0xb2, 1, 0x12);
	assert_int_equal(test_in(&s->bench, 0xb2, 2), 0x5512);
	assert_int_equal(s->smis, 0);
	config_write(s, 0x5b, 1, 2); /* APMC_EN */
	test_out(&s->bench, 0xb2, 1, 0x13);
	test_out(&s->bench, 0xb3, 1, 0x13);
	assert_int_equal(s->smis, 1);
	acpi_pm_without_smi(&s->pm);
	config_write(s, 0x5b, 1, 0);
	assert_int_equal(config_read(s, 0x5b, 1), 2);
	acpi_pm_reset(&s->pm);
	assert_int_equal(config_read(s, 0x5b, 1), 2);
	test_out(&s->bench, 0xb2, 1, 0x13);
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
	test_state(&acpi_pm_state, &s->pm, &other->pm, offsetof(struct acpi_pm, function));
	assert_int_equal(other->bench.clock.next, 2343484438);
	teardown(&made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(counts), TEST(overflows), TEST(button), TEST(sleeps),
					   TEST(wakes),  TEST(moves),     TEST(apm),    TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
