#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "chip/check.h"
#include "chip/pit.h"
#include "dev/state.h"

struct bench {
	struct clock clock;
	struct pit pit;
	uint64_t time;
	bool output;
	unsigned rising, falling;
	uint64_t changed_at;
};

static uint64_t now(void *owner) { return ((struct bench *)owner)->time; }

static void output(void *owner, bool level)
{
	struct bench *bench = owner;

	if (level && !bench->output)
		bench->rising++;
	if (!level && bench->output)
		bench->falling++;
	bench->output = level;
	bench->changed_at = bench->time;
}

static void set_up(struct bench *bench)
{
	*bench = (struct bench){0};
	clock_init(&bench->clock);
	bench->clock.owner = bench;
	bench->clock.now = now;
	assert_true(pit_init(&bench->pit, &bench->clock, output, bench));
}

/* The first nanosecond at which @pulse has come. */
static uint64_t time_of(uint64_t pulse)
{
	return (uint64_t)(((unsigned __int128)pulse * 1000000000 + PIT_HZ - 1) / PIT_HZ);
}

static void go_to(struct bench *bench, uint64_t time)
{
	while (bench->clock.next <= time) {
		bench->time = bench->clock.next;
		clock_run(&bench->clock);
	}
	bench->time = time;
}

static void write_count(struct bench *bench, unsigned counter, uint8_t control, uint16_t count)
{
	pit_write(&bench->pit, PIT_CONTROL, (uint8_t)(counter << 6 | 0x30 | control));
	pit_write(&bench->pit, (uint16_t)(PIT_COUNTER0 + counter), (uint8_t)count);
	pit_write(&bench->pit, (uint16_t)(PIT_COUNTER0 + counter), (uint8_t)(count >> 8));
}

static uint16_t read_count(struct bench *bench, unsigned counter)
{
	uint16_t port = (uint16_t)(PIT_COUNTER0 + counter);
	uint8_t low = pit_read(&bench->pit, port);

	return (uint16_t)(low | pit_read(&bench->pit, port) << 8);
}

static uint8_t status(struct bench *bench, unsigned counter)
{
	pit_write(&bench->pit, PIT_CONTROL, (uint8_t)(0xe0 | 2u << counter));
	return pit_read(&bench->pit, (uint16_t)(PIT_COUNTER0 + counter));
}

/* ---- the datasheet's steps, pulse by pulse ---- */

struct model {
	unsigned mode;
	bool bcd, gate, output, loaded, half_done, strobe, armed, load, null, running;
	uint32_t reload, count;
};

static uint32_t all(const struct model *m) { return m->bcd ? 10000 : 65536; }

static void model_control(struct model *m, unsigned mode, bool bcd)
{
	*m = (struct model){.mode = mode, .bcd = bcd, .gate = m->gate, .count = m->count, .null = true};
	m->output = mode != 0;
}

static void model_write(struct model *m, uint32_t count)
{
	m->reload = count;
	m->null = true;
	if (m->mode == 0)
		m->output = m->armed = false;
	if (m->mode == 0 || m->mode == 4 || (!m->loaded && (m->mode == 2 || m->mode == 3)))
		m->load = true;
	m->loaded = true;
}

static void model_gate(struct model *m, bool gate)
{
	bool rises = gate && !m->gate;

	if (!gate && (m->mode == 2 || m->mode == 3))
		m->output = true;
	m->gate = gate;
	if (rises && m->loaded && m->mode != 0 && m->mode != 4)
		m->load = true;
}

static void model_load(struct model *m)
{
	m->load = m->null = false;
	m->running = m->armed = true;
	m->strobe = false;
	if (m->mode == 1)
		m->output = false;
	if (m->mode >= 4)
		m->output = true;
	m->count = m->mode == 3 ? m->reload & ~1u : m->reload;
	if (m->mode == 3 && m->reload == 1)
		m->count = 0;
	m->half_done = false;
}

static void down(struct model *m, uint32_t by) { m->count = (m->count + all(m) - by) % all(m); }

static void model_square(struct model *m)
{
	bool odd = m->reload & 1;

	/* An odd count's high half lasts a pulse longer, at 0. */
	if (m->count == 2 && m->output && odd && !m->half_done) {
		m->count = 0;
		m->half_done = true;
		return;
	}
	if (m->count == 2 || m->half_done) {
		m->output = !m->output;
		m->count = m->reload & ~1u;
		m->half_done = m->null = false;
		return;
	}
	down(m, 2);
}

static void model_pulse(struct model *m)
{
	/* A strobe is one pulse, whatever the gate. */
	if (m->strobe) {
		m->strobe = m->armed = false;
		m->output = true;
	}
	if (m->load) {
		model_load(m);
		return;
	}
	if (!m->running || (!m->gate && m->mode != 1 && m->mode != 5))
		return;
	switch (m->mode) {
	case 2:
		if (m->count == 1) {
			m->count = m->reload;
			m->null = false;
		} else {
			down(m, 1);
		}
		m->output = m->count != 1;
		break;
	case 3: model_square(m); break;
	default:
		down(m, 1);
		if (m->count || !m->armed)
			break;
		if (m->mode < 4) {
			m->output = true;
			m->armed = false;
		} else {
			m->output = false;
			m->strobe = true;
		}
	}
}

static uint16_t model_value(const struct model *m)
{
	uint32_t v = m->count % all(m);

	return (uint16_t)(m->bcd ? v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10 : v);
}

static uint32_t random_below(uint32_t n)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x % n);
}

/* Short counts, so that much happens; now and then the largest. New counts of modes 2 and 3 stay even there,
 * as the datasheet does not say what parity the half under way has. */
static uint32_t random_count(const struct model *m)
{
	uint32_t count = 3 + random_below(14);

	if (!random_below(20))
		count = all(m);
	return m->mode == 3 && m->loaded && m->reload % 2 != count % 2 ? count - 1 : count;
}

static uint16_t encoded(const struct model *m, uint32_t count)
{
	struct model of = {.bcd = m->bcd, .count = count};

	return model_value(&of);
}

static void do_something(struct bench *bench, struct model *m)
{
	uint32_t count;
	unsigned mode;

	switch (random_below(12)) {
	case 0:
		mode = random_below(6);
		model_control(m, mode, random_below(2));
		pit_write(&bench->pit, PIT_CONTROL, (uint8_t)(0xb0 | mode << 1 | m->bcd));
		/* fall through */
	case 1:
		count = random_count(m);
		pit_write(&bench->pit, PIT_COUNTER2, (uint8_t)encoded(m, count));
		pit_write(&bench->pit, PIT_COUNTER2, (uint8_t)(encoded(m, count) >> 8));
		model_write(m, count);
		break;
	case 2:
	case 3:
		model_gate(m, !m->gate);
		pit_write(&bench->pit, PIT_PORT61, m->gate);
		break;
	default: break;
	}
}

static void test_against_steps(void **state)
{
	struct bench bench;
	struct model m = {0};
	uint64_t pulse = 5;

	(void)state;
	set_up(&bench);
	go_to(&bench, time_of(pulse));
	model_control(&m, 0, false);
	pit_write(&bench.pit, PIT_CONTROL, 0xb0);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned pulses = 1 + random_below(9);

		do_something(&bench, &m);
		for (unsigned i = 0; i < pulses; i++)
			model_pulse(&m);
		pulse += pulses;
		go_to(&bench, time_of(pulse) + random_below(800));
		assert_int_equal(!!(pit_read(&bench.pit, PIT_PORT61) & 0x20), m.output);
		assert_int_equal(status(&bench, 2) & 0xc0, m.output << 7 | m.null << 6);
		if (m.running)
			assert_int_equal(read_count(&bench, 2), model_value(&m));
	}
}

/* ---- counter 0's output, told to the nanosecond ---- */

static void test_mode_0(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	go_to(&bench, time_of(10));
	write_count(&bench, 0, 0, 1000);
	assert_false(bench.output);
	/* N + 1 pulses behind the write. */
	go_to(&bench, time_of(1011) - 1);
	assert_false(bench.output);
	go_to(&bench, time_of(1011));
	assert_true(bench.output);
	assert_int_equal(bench.changed_at, time_of(1011));
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	go_to(&bench, time_of(1012));
	assert_int_equal(read_count(&bench, 0), 0xffff);
	/* The first byte stops it and lowers the output. */
	pit_write(&bench.pit, PIT_COUNTER0, 5);
	assert_false(bench.output);
	go_to(&bench, time_of(2000));
	assert_false(bench.output);
	pit_write(&bench.pit, PIT_COUNTER0, 0);
	go_to(&bench, time_of(2006));
	assert_true(bench.output);
}

static void test_rates(void **state)
{
	struct bench bench;

	(void)state;
	/* Mode 2, also as 6: low for the last pulse of N. */
	for (unsigned alias = 0; alias < 2; alias++) {
		set_up(&bench);
		write_count(&bench, 0, (uint8_t)(4 + 8 * alias), 100);
		assert_true(bench.output);
		for (uint64_t n = 1; n <= 50; n++) {
			go_to(&bench, time_of(n * 100));
			assert_false(bench.output);
			assert_int_equal(bench.changed_at, time_of(n * 100));
			go_to(&bench, time_of(n * 100 + 1));
			assert_true(bench.output);
		}
		assert_int_equal(bench.rising, 51);
		/* Mode 3: 51 high and 50 low of 101. */
		set_up(&bench);
		write_count(&bench, 0, (uint8_t)(6 + 8 * alias), 101);
		for (uint64_t n = 0; n < 50; n++) {
			go_to(&bench, time_of(n * 101 + 51));
			assert_true(bench.output);
			go_to(&bench, time_of(n * 101 + 52));
			assert_false(bench.output);
			go_to(&bench, time_of(n * 101 + 101));
			assert_false(bench.output);
			go_to(&bench, time_of(n * 101 + 102));
			assert_true(bench.output);
		}
	}
	/* An hour of 65536ths: nothing drifts. */
	set_up(&bench);
	write_count(&bench, 0, 4, 0);
	go_to(&bench, 3600ull * 1000000000);
	assert_int_equal(bench.rising, 1 + (3600ull * PIT_HZ - 1) / 65536);
	/* Nobody looked for three periods: no edge is left out. */
	set_up(&bench);
	write_count(&bench, 0, 4, 100);
	bench.time = time_of(350);
	pit_read(&bench.pit, PIT_COUNTER0);
	assert_int_equal(bench.rising, 4);
	assert_int_equal(bench.falling, 3);
}

static void test_new_count(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	write_count(&bench, 0, 4, 100);
	go_to(&bench, time_of(50));
	pit_write(&bench.pit, PIT_COUNTER0, 30);
	pit_write(&bench.pit, PIT_COUNTER0, 0);
	assert_int_equal(status(&bench, 0), 0xf4);
	go_to(&bench, time_of(101));
	assert_int_equal(status(&bench, 0), 0xb4);
	assert_int_equal(read_count(&bench, 0), 30);
	go_to(&bench, time_of(130));
	assert_false(bench.output);
	/* Count 1 is none that modes 2 and 3 take: nothing hangs on it. */
	write_count(&bench, 0, 4, 1);
	go_to(&bench, time_of(200));
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	write_count(&bench, 0, 6, 1);
	go_to(&bench, time_of(300));
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
}

static void test_access(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	/* Low byte alone, high byte alone. */
	pit_write(&bench.pit, PIT_CONTROL, 0x90);
	pit_write(&bench.pit, PIT_COUNTER2, 0x34);
	pit_write(&bench.pit, PIT_PORT61, 1);
	assert_int_equal(status(&bench, 2), 0x50);
	go_to(&bench, time_of(1));
	assert_int_equal(status(&bench, 2), 0x10);
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER2), 0x34);
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER2), 0x34);
	pit_write(&bench.pit, PIT_CONTROL, 0xa0);
	pit_write(&bench.pit, PIT_COUNTER2, 0x12);
	go_to(&bench, time_of(2));
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER2), 0x12);
	go_to(&bench, time_of(3));
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER2), 0x11);
	/* Nobody is at the control word's address, and no count goes in before one. */
	assert_int_equal(pit_read(&bench.pit, PIT_CONTROL), 0xff);
	pit_write(&bench.pit, PIT_COUNTER1, 0x55);
	assert_int_equal(status(&bench, 1), 0x40);
}

/* A count that is read back at once is the one that was written. */
static void test_read_at_once(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	bench.time = 12345;
	pit_write(&bench.pit, PIT_PORT61, 1);
	write_count(&bench, 2, 0, 0xffff);
	assert_int_equal(status(&bench, 2) & 0x40, 0x40);
	assert_int_equal(read_count(&bench, 2), 0xffff);
	assert_int_equal(status(&bench, 2) & 0x40, 0);
	write_count(&bench, 0, 4, 0x4321);
	pit_write(&bench.pit, PIT_CONTROL, 0x00);
	assert_int_equal(read_count(&bench, 0), 0x4321);
	go_to(&bench, time_of(12345ull * PIT_HZ / 1000000000 + 1));
	assert_int_equal(read_count(&bench, 2), 0xfffe);
}

static void test_latches(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	write_count(&bench, 0, 4, 0x1234);
	go_to(&bench, time_of(1));
	pit_write(&bench.pit, PIT_CONTROL, 0x00);
	go_to(&bench, time_of(11));
	pit_write(&bench.pit, PIT_CONTROL, 0x00); /* already latched */
	assert_int_equal(read_count(&bench, 0), 0x1234);
	assert_int_equal(read_count(&bench, 0), 0x122a);
	/* Read-back of all three, status first. */
	write_count(&bench, 1, 4, 0x0500);
	go_to(&bench, time_of(12));
	pit_write(&bench.pit, PIT_CONTROL, 0xce);
	go_to(&bench, time_of(20));
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER0), 0xb4);
	assert_int_equal(read_count(&bench, 0), 0x1229);
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER1), 0xb4);
	assert_int_equal(read_count(&bench, 1), 0x0500);
	assert_int_equal(read_count(&bench, 1), 0x04f8);
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER2), 0x40);
	/* Counts alone; a new control word drops what is latched. */
	pit_write(&bench.pit, PIT_CONTROL, 0xd2);
	assert_int_equal(read_count(&bench, 0), 0x1221);
	pit_write(&bench.pit, PIT_CONTROL, 0xd2);
	write_count(&bench, 0, 4, 0x777);
	go_to(&bench, time_of(21));
	assert_int_equal(read_count(&bench, 0), 0x777);
	/* The second byte waits, whatever comes between. */
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER0), 0x77);
	go_to(&bench, time_of(22));
	assert_int_equal(pit_read(&bench.pit, PIT_COUNTER0), 0x07);
}

static void test_bcd(void **state)
{
	struct bench bench;

	(void)state;
	set_up(&bench);
	write_count(&bench, 0, 5, 0x1000);
	go_to(&bench, time_of(2));
	assert_int_equal(read_count(&bench, 0), 0x0999);
	go_to(&bench, time_of(1000));
	assert_false(bench.output);
	write_count(&bench, 0, 1, 0);
	go_to(&bench, time_of(1001));
	assert_int_equal(read_count(&bench, 0), 0);
	go_to(&bench, time_of(1002));
	assert_int_equal(read_count(&bench, 0), 0x9999);
	go_to(&bench, time_of(11001));
	assert_true(bench.output);
	assert_int_equal(bench.changed_at, time_of(11001));
}

static void test_port61(void **state)
{
	struct bench bench;
	unsigned turned = 0;
	uint8_t was = 0;

	(void)state;
	set_up(&bench);
	pit_write(&bench.pit, PIT_PORT61, 0xff);
	assert_int_equal(pit_read(&bench.pit, PIT_PORT61) & 0xcf, 0x0f);
	pit_write(&bench.pit, PIT_PORT61, 0);
	assert_int_equal(pit_read(&bench.pit, PIT_PORT61), 0);
	for (uint64_t time = 0; time < 1000000; time += 500) {
		go_to(&bench, time);
		turned += (pit_read(&bench.pit, PIT_PORT61) ^ was) >> 4 & 1;
		was = pit_read(&bench.pit, PIT_PORT61);
	}
	assert_int_equal(turned, 66);
	/* The output of counter 2, as software waits for it. */
	write_count(&bench, 2, 0, 100);
	pit_write(&bench.pit, PIT_PORT61, 1);
	go_to(&bench, 1200000);
	assert_int_equal(pit_read(&bench.pit, PIT_PORT61) & 0x2f, 0x21);
}

static void test_state(void **state)
{
	struct bench bench, other;
	uint8_t bytes[256];

	(void)state;
	set_up(&bench);
	set_up(&other);
	write_count(&bench, 0, 4, 1000);
	go_to(&bench, time_of(300));
	state_save(&pit_state, &bench.pit, bytes);
	other.time = bench.time;
	assert_int_equal(state_load(&pit_state, &other.pit, bytes, state_size(&pit_state)), 0);
	assert_true(other.output);
	assert_int_equal(other.clock.next, time_of(1000));
	go_to(&other, time_of(1000));
	assert_false(other.output);
	pit_reset(&other.pit);
	assert_int_equal(other.clock.next, CLOCK_NEVER);
	assert_int_equal(status(&other, 0), 0x40);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_steps), cmocka_unit_test(test_mode_0),
		cmocka_unit_test(test_rates),         cmocka_unit_test(test_new_count),
		cmocka_unit_test(test_access),        cmocka_unit_test(test_latches),
		cmocka_unit_test(test_read_at_once),  cmocka_unit_test(test_bcd),
		cmocka_unit_test(test_port61),        cmocka_unit_test(test_state),
	};

	if (argc > 1 && !chip_check_break(argv[1]))
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
