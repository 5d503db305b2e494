#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dev/pic.h"

static void initialize_and_mask(void **state)
{
	struct bus *bus = calloc(1, sizeof(*bus));
	struct pic pic;

	(void)state;
	pic_reset(&pic);
	assert_int_equal(pic_attach(&pic, bus), 0);
	bus_port_out(bus, 0xa1, 1, 0x5a);
	assert_int_equal(bus_port_in(bus, 0xa1, 1), 0x5a);
	assert_int_equal(bus_port_in(bus, 0x21, 1), 0xff);
	/* The usual sequence: four words, then the mask again. */
	bus_port_out(bus, 0x20, 1, 0x11);
	assert_int_equal(bus_port_in(bus, 0x21, 1), 0);
	bus_port_out(bus, 0x21, 1, 0x20);
	bus_port_out(bus, 0x21, 1, 0x04);
	bus_port_out(bus, 0x21, 1, 0x01);
	assert_int_equal(pic.chip[0].icw[1], 0x20);
	assert_int_equal(pic.chip[0].icw[2], 0x04);
	assert_int_equal(pic.chip[0].icw[3], 0x01);
	bus_port_out(bus, 0x21, 1, 0xfb);
	assert_int_equal(bus_port_in(bus, 0x21, 1), 0xfb);
	/* A single chip without ICW4 takes two words. */
	bus_port_out(bus, 0x20, 1, 0x12);
	bus_port_out(bus, 0x21, 1, 0x30);
	bus_port_out(bus, 0x21, 1, 0x77);
	assert_int_equal(bus_port_in(bus, 0x21, 1), 0x77);
	assert_int_equal(pic.chip[0].icw[2], 0);
	/* Nothing requested, nothing in service, an end of interrupt does no harm. */
	bus_port_out(bus, 0x20, 1, 0x0b);
	assert_int_equal(bus_port_in(bus, 0x20, 1), 0);
	assert_int_equal(pic.chip[0].read_isr, 1);
	bus_port_out(bus, 0x20, 1, 0x0a);
	assert_int_equal(pic.chip[0].read_isr, 0);
	bus_port_out(bus, 0x20, 1, 0x20);
	bus_port_out(bus, 0x20, 1, 0xc3);
	assert_int_equal(pic.chip[0].priority, 3);
	assert_int_equal(pic.chip[1].imr, 0x5a);
	free(bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(initialize_and_mask)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
