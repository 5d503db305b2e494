#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/serial.h"

#define BASE 0x3f8

struct session {
	struct bus bus;
	struct serial serial;
	char sent[64];
	size_t sent_size;
	int line;
};

static void on_sent(void *owner, uint8_t byte)
{
	struct session *session = owner;

	session->sent[session->sent_size++] = (char)byte;
}

static void on_interrupt(void *owner, bool raised) { ((struct session *)owner)->line = raised; }

static int setup(void **state)
{
	struct session *session = calloc(1, sizeof(*session));

	session->serial.owner = session;
	session->serial.sent = on_sent;
	session->serial.interrupt = on_interrupt;
	serial_reset(&session->serial);
	serial_attach(&session->serial, &session->bus, BASE);
	*state = session;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint8_t in(struct session *s, unsigned reg)
{
	return (uint8_t)bus_port_in(&s->bus, (uint16_t)(BASE + reg), 1);
}
static void out(struct session *s, unsigned reg, uint8_t value)
{
	bus_port_out(&s->bus, (uint16_t)(BASE + reg), 1, value);
}

static void polling(void **state)
{
	struct session *s = *state;

	assert_int_equal(in(s, 5), 0x60);
	out(s, 0, 'o');
	out(s, 0, 'k');
	assert_memory_equal(s->sent, "ok", 2);
	assert_int_equal(in(s, 5), 0x60);
	serial_receive(&s->serial, 'x');
	assert_int_equal(in(s, 5), 0x61);
	assert_int_equal(in(s, 0), 'x');
	assert_int_equal(in(s, 5), 0x60);
}

static void divisor_latch(void **state)
{
	struct session *s = *state;

	out(s, 3, 0x83);
	out(s, 0, 0x01);
	out(s, 1, 0x02);
	assert_int_equal(in(s, 0), 0x01);
	assert_int_equal(in(s, 1), 0x02);
	assert_int_equal(s->sent_size, 0);
	out(s, 3, 0x03);
	assert_int_equal(in(s, 1), 0);
	assert_int_equal(in(s, 3), 0x03);
	out(s, 0, 'a');
	assert_int_equal(s->sent_size, 1);
	out(s, 7, 0x5a);
	assert_int_equal(in(s, 7), 0x5a);
}

static void fifo(void **state)
{
	struct session *s = *state;

	assert_int_equal(in(s, 2), 0x01);
	assert_int_equal(serial_room(&s->serial), 1);
	out(s, 2, 0x01);
	assert_int_equal(in(s, 2), 0xc1);
	for (unsigned i = 0; i < SERIAL_FIFO; i++)
		serial_receive(&s->serial, (uint8_t)i);
	assert_int_equal(serial_room(&s->serial), 0);
	assert_int_equal(in(s, 5), 0x61);
	serial_receive(&s->serial, 99);
	assert_int_equal(in(s, 5), 0x63);
	assert_int_equal(in(s, 5), 0x61);
	for (unsigned i = 0; i < SERIAL_FIFO; i++)
		assert_int_equal(in(s, 0), i);
	assert_int_equal(in(s, 5), 0x60);
	serial_receive(&s->serial, 1);
	out(s, 2, 0x03);
	assert_int_equal(in(s, 5), 0x60);
}

static void overrun_without_fifo(void **state)
{
	struct session *s = *state;

	serial_receive(&s->serial, 1);
	serial_receive(&s->serial, 2);
	assert_int_equal(in(s, 5), 0x63);
	assert_int_equal(in(s, 0), 2);
}

static void loopback(void **state)
{
	struct session *s = *state;

	assert_int_equal(in(s, 6), 0xb0);
	out(s, 4, 0x1e);
	assert_int_equal(in(s, 6) & 0xf0, 0xd0);
	out(s, 0, 'l');
	assert_int_equal(s->sent_size, 0);
	assert_int_equal(in(s, 0), 'l');
	serial_receive(&s->serial, 'x');
	assert_int_equal(in(s, 5) & 1, 0);
	out(s, 4, 0x10);
	/* CTS and RI and DCD have gone. */
	assert_int_equal(in(s, 6), 0x0d);
	assert_int_equal(in(s, 6), 0);
}

static void interrupts(void **state)
{
	struct session *s = *state;

	out(s, 2, 0x41); /* trigger at 4 */
	out(s, 1, 0x01);
	for (unsigned i = 0; i < 4; i++)
		serial_receive(&s->serial, 'a');
	assert_int_equal(in(s, 2), 0xc4);
	assert_int_equal(s->line, 0);
	out(s, 4, 0x08);
	assert_int_equal(s->line, 1);
	in(s, 0);
	assert_int_equal(in(s, 2), 0xcc);
	for (unsigned i = 0; i < 3; i++)
		in(s, 0);
	assert_int_equal(s->line, 0);
	out(s, 1, 0x02);
	assert_int_equal(s->line, 1);
	assert_int_equal(in(s, 2), 0xc2);
	assert_int_equal(s->line, 0);
	assert_int_equal(in(s, 2), 0xc1);
	out(s, 0, 'x');
	assert_int_equal(in(s, 2), 0xc2);
	out(s, 1, 0x04);
	for (unsigned i = 0; i <= SERIAL_FIFO; i++)
		serial_receive(&s->serial, 'a');
	assert_int_equal(in(s, 2), 0xc6);
	in(s, 5);
	assert_int_equal(in(s, 2), 0xc1);
	out(s, 1, 0xff);
	assert_int_equal(in(s, 1), 0x0f);
}

static uint64_t time_now(void *owner) { return *(uint64_t *)owner; }

static void character_timeout(void **state)
{
	struct session *s = *state;
	struct clock clock;
	uint64_t time = 1000;

	clock_init(&clock);
	clock.owner = &time;
	clock.now = time_now;
	assert_true(serial_use_clock(&s->serial, &clock));
	out(s, 3, 0x80);
	out(s, 0, 1);
	out(s, 1, 0);
	out(s, 3, 0x03); /* 115200 8n1: a character takes 86806 ns */
	out(s, 2, 0xc1);
	out(s, 1, 0x01);
	out(s, 4, 0x08);
	serial_receive(&s->serial, 'a');
	assert_int_equal(in(s, 2), 0xc1);
	assert_int_equal(clock.next, 1000 + 347222);
	time = 300000;
	serial_receive(&s->serial, 'b');
	assert_int_equal(clock.next, 300000 + 347222);
	time = clock.next;
	clock_run(&clock);
	assert_int_equal(s->line, 1);
	assert_int_equal(in(s, 2), 0xcc);
	/* A read takes it away, and starts it again for what is left. */
	assert_int_equal(in(s, 0), 'a');
	assert_int_equal(s->line, 0);
	assert_int_equal(clock.next, time + 347222);
	assert_int_equal(in(s, 0), 'b');
	assert_int_equal(clock.next, CLOCK_NEVER);
	/* 14 bytes are the trigger. */
	for (unsigned i = 0; i < 13; i++)
		serial_receive(&s->serial, 'x');
	assert_int_equal(s->line, 0);
	serial_receive(&s->serial, 'x');
	assert_int_equal(in(s, 2), 0xc4);
	/* 5 bits, parity, one and a half stop bits at a divisor of 65536. */
	out(s, 2, 0x03);
	out(s, 3, 0x80);
	out(s, 0, 0);
	out(s, 3, 0x0c);
	serial_receive(&s->serial, 'y');
	assert_int_equal(clock.next, time + 4ull * 17 * 8 * 65536 * 1000000000 / 1843200);
}

static void breaks(void **state)
{
	struct session *s = *state;

	out(s, 2, 0x01);
	out(s, 4, 0x10);
	out(s, 1, 0x04);
	out(s, 0, 'a');
	out(s, 3, 0x43);
	out(s, 3, 0x03);
	assert_int_equal(in(s, 5), 0xe1); /* an error is behind the byte at the top */
	assert_int_equal(in(s, 0), 'a');
	assert_int_equal(in(s, 2), 0xc6);
	assert_int_equal(in(s, 5), 0xf9);
	assert_int_equal(in(s, 5), 0x61);
	assert_int_equal(in(s, 2), 0xc1);
	assert_int_equal(in(s, 0), 0);
	assert_int_equal(in(s, 5), 0x60);
}

static void its_state_is_all_of_it(void **state)
{
	struct session *s = *state;
	struct serial other = {0};
	uint8_t *saved = malloc(state_size(&serial_state));

	out(s, 2, 0x41);
	out(s, 3, 0x1b);
	out(s, 4, 0x0b);
	out(s, 1, 0x05);
	for (unsigned i = 0; i < 5; i++)
		serial_receive(&s->serial, (uint8_t)(i + 1));
	in(s, 0);
	state_save(&serial_state, &s->serial, saved);
	assert_int_equal(state_load(&serial_state, &other, saved, state_size(&serial_state)), 0);
	assert_null(state_difference(&serial_state, &s->serial, &other));
	/* What the table leaves out is not the device's own. */
	other.owner = s->serial.owner;
	other.sent = s->serial.sent;
	other.interrupt = s->serial.interrupt;
	assert_memory_equal(&other, &s->serial, offsetof(struct serial, clock));
	free(saved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(polling),
		TEST(divisor_latch),
		TEST(fifo),
		TEST(overrun_without_fifo),
		TEST(loopback),
		TEST(interrupts),
		TEST(character_timeout),
		TEST(breaks),
		TEST(its_state_is_all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
