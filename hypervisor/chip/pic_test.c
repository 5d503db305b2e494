#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "chip/check.h"
#include "chip/pic.h"
#include "dev/state.h"

struct bench {
	struct pic pic;
	bool raised;
	unsigned told;
};

static void output(void *owner, bool raised)
{
	struct bench *bench = owner;

	bench->raised = raised;
	bench->told++;
}

/* ICW1 to ICW4 of both, as on a PC: vectors 20H and 28H, the slave on line 2; all unmasked. */
static void initialize(struct pic *pic, uint8_t master_icw4, uint8_t slave_icw4)
{
	pic_write(pic, PIC_MASTER, 0x11);
	pic_write(pic, PIC_MASTER_DATA, 0x20);
	pic_write(pic, PIC_MASTER_DATA, 0x04);
	pic_write(pic, PIC_MASTER_DATA, master_icw4);
	pic_write(pic, PIC_SLAVE, 0x11);
	pic_write(pic, PIC_SLAVE_DATA, 0x28);
	pic_write(pic, PIC_SLAVE_DATA, 0x02);
	pic_write(pic, PIC_SLAVE_DATA, slave_icw4);
}

static void set_up(struct bench *bench)
{
	*bench = (struct bench){0};
	pic_init(&bench->pic, output, bench);
	initialize(&bench->pic, 1, 1);
}

static uint8_t isr(struct pic *pic, uint16_t port)
{
	pic_write(pic, port, 0x0b);
	return pic_read(pic, port);
}
static uint8_t irr(struct pic *pic, uint16_t port)
{
	pic_write(pic, port, 0x0a);
	return pic_read(pic, port);
}
static void pulse(struct pic *pic, unsigned line)
{
	pic_line(pic, line, false);
	pic_line(pic, line, true);
}

static void initialize_and_mask(void **state)
{
	struct pic pic;

	(void)state;
	pic_init(&pic, NULL, NULL);
	pic_write(&pic, PIC_SLAVE_DATA, 0x5a);
	assert_int_equal(pic_read(&pic, PIC_SLAVE_DATA), 0x5a);
	assert_int_equal(pic_read(&pic, PIC_MASTER_DATA), 0xff);
	/* The usual sequence: four words, then the mask again. */
	pic_write(&pic, PIC_MASTER, 0x11);
	assert_int_equal(pic_read(&pic, PIC_MASTER_DATA), 0);
	pic_write(&pic, PIC_MASTER_DATA, 0x20);
	pic_write(&pic, PIC_MASTER_DATA, 0x04);
	pic_write(&pic, PIC_MASTER_DATA, 0x01);
	assert_memory_equal(pic.chip[0].icw, ((uint8_t[4]){0x11, 0x20, 0x04, 0x01}), 4);
	pic_write(&pic, PIC_MASTER_DATA, 0xfb);
	assert_int_equal(pic_read(&pic, PIC_MASTER_DATA), 0xfb);
	/* A single chip without ICW4 takes two words. */
	pic_write(&pic, PIC_MASTER, 0x12);
	pic_write(&pic, PIC_MASTER_DATA, 0x30);
	pic_write(&pic, PIC_MASTER_DATA, 0x77);
	assert_int_equal(pic_read(&pic, PIC_MASTER_DATA), 0x77);
	assert_int_equal(pic.chip[0].icw[2], 0);
	assert_int_equal(pic_read(&pic, PIC_SLAVE_DATA), 0x5a);
}

static void every_line(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	for (unsigned line = 0; line < 16; line++) {
		uint16_t port = line < 8 ? PIC_MASTER : PIC_SLAVE;
		uint8_t bit = (uint8_t)(1u << (line & 7));

		if (line == PIC_CASCADE)
			continue;
		set_up(&bench);
		assert_false(bench.raised);
		pic_line(pic, line, true);
		assert_true(bench.raised);
		assert_int_equal(irr(pic, port), bit);
		if (line >= 8)
			assert_int_equal(irr(pic, PIC_MASTER), 4);
		assert_int_equal(pic_acknowledge(pic), 0x20 + line);
		assert_false(bench.raised);
		assert_int_equal(irr(pic, port), 0);
		assert_int_equal(isr(pic, port), bit);
		assert_int_equal(isr(pic, PIC_MASTER), line < 8 ? bit : 4);
		/* High is not enough: an edge must come, and the last one be ended. */
		pic_write(pic, PIC_SLAVE, 0x20);
		pic_write(pic, PIC_MASTER, 0x20);
		assert_int_equal(isr(pic, port) | isr(pic, PIC_MASTER), 0);
		pic_line(pic, line, true);
		assert_false(bench.raised);
		pulse(pic, line);
		assert_true(bench.raised);
		/* Masked. */
		pic_write(pic, port + 1, bit);
		assert_false(bench.raised);
		assert_int_equal(irr(pic, port), bit);
		pic_write(pic, port + 1, (uint8_t)~bit);
		assert_true(bench.raised);
		/* Gone before it was acknowledged. */
		pic_line(pic, line, false);
		assert_false(bench.raised);
		assert_int_equal(irr(pic, port), 0);
	}
}

static void fully_nested(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	for (unsigned line = 0; line < 16; line++)
		pic_line(pic, line, true);
	assert_int_equal(pic_acknowledge(pic), 0x20);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_int_equal(pic_acknowledge(pic), 0x21);
	/* While 1 is in service, 0 comes through, and itself and 3 do not. */
	pulse(pic, 1);
	pulse(pic, 3);
	assert_false(bench.raised);
	pulse(pic, 0);
	assert_true(bench.raised);
	assert_int_equal(pic_acknowledge(pic), 0x20);
	assert_int_equal(isr(pic, PIC_MASTER), 3);
	pic_write(pic, PIC_MASTER, 0x20); /* the highest: 0 */
	assert_int_equal(isr(pic, PIC_MASTER), 2);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_int_equal(pic_acknowledge(pic), 0x21);
	pic_write(pic, PIC_MASTER, 0x61); /* specific */
	/* The slave's eight have line 2's place, each after an end at both. */
	for (unsigned line = 8; line < 16; line++) {
		assert_int_equal(pic_acknowledge(pic), 0x20 + line);
		assert_false(bench.raised);
		pic_write(pic, PIC_SLAVE, 0x20);
		assert_false(bench.raised);
		pic_write(pic, PIC_MASTER, 0x20);
		assert_true(bench.raised);
	}
	for (unsigned line = 3; line < 8; line++) {
		assert_int_equal(pic_acknowledge(pic), 0x20 + line);
		pic_write(pic, PIC_MASTER, 0x20);
	}
	assert_false(bench.raised);
}

static void spurious(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	assert_int_equal(pic_acknowledge(pic), 0x27);
	assert_int_equal(isr(pic, PIC_MASTER), 0);
	/* The slave's request goes between its INT and INTA: only the master has it in service. */
	pic->chip[0].irr = 4;
	assert_int_equal(pic_acknowledge(pic), 0x2f);
	assert_int_equal(isr(pic, PIC_MASTER), 4);
	assert_int_equal(isr(pic, PIC_SLAVE), 0);
}

static void level_triggered(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	pic_write(pic, PIC_ELCR, 0xff);
	pic_write(pic, PIC_ELCR_SLAVE, 0xff);
	assert_int_equal(pic_read(pic, PIC_ELCR), 0xf8);
	assert_int_equal(pic_read(pic, PIC_ELCR_SLAVE), 0xde);
	pic_line(pic, 11, true);
	assert_int_equal(pic_acknowledge(pic), 0x2b);
	assert_int_equal(irr(pic, PIC_SLAVE), 8);
	assert_false(bench.raised);
	pic_write(pic, PIC_SLAVE, 0x20);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_true(bench.raised);
	assert_int_equal(pic_acknowledge(pic), 0x2b);
	pic_line(pic, 11, false);
	assert_int_equal(irr(pic, PIC_SLAVE), 0);
	pic_write(pic, PIC_SLAVE, 0x20);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_false(bench.raised);
	/* A level outlives ICW1, an edge does not. */
	pic_line(pic, 5, true);
	pic_line(pic, 1, true);
	pic_write(pic, PIC_MASTER, 0x11);
	assert_int_equal(irr(pic, PIC_MASTER), 0x20);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER_DATA, 0x20);
	pic_write(pic, PIC_MASTER_DATA, 0x04);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER_DATA, 0x01);
	assert_true(bench.raised);
	/* To edge and back. */
	pic_write(pic, PIC_ELCR, 0);
	pic_line(pic, 5, false);
	pic_line(pic, 5, true);
	pic_acknowledge(pic);
	pic_write(pic, PIC_ELCR, 0x20);
	assert_int_equal(irr(pic, PIC_MASTER), 0x20);
}

static void automatic_eoi(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	initialize(pic, 3, 3);
	pulse(pic, 12);
	assert_int_equal(pic_acknowledge(pic), 0x2c);
	assert_int_equal(isr(pic, PIC_MASTER) | isr(pic, PIC_SLAVE), 0);
	pulse(pic, 3);
	pulse(pic, 4);
	assert_int_equal(pic_acknowledge(pic), 0x23);
	assert_true(bench.raised);
	assert_int_equal(pic_acknowledge(pic), 0x24);
	/* Rotating: what was served is last. */
	pic_write(pic, PIC_MASTER, 0x80);
	pulse(pic, 3);
	assert_int_equal(pic_acknowledge(pic), 0x23);
	pulse(pic, 3);
	pulse(pic, 4);
	assert_int_equal(pic_acknowledge(pic), 0x24);
	assert_int_equal(pic_acknowledge(pic), 0x23);
	pic_write(pic, PIC_MASTER, 0x00);
	pulse(pic, 5);
	pic_acknowledge(pic);
	assert_int_equal(pic->chip[0].priority, 3);
}

static void rotation(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	/* Each line as the lowest: the order goes around from there. */
	for (unsigned lowest = 0; lowest < 8; lowest++) {
		pic_write(pic, PIC_MASTER, (uint8_t)(0xc0 | lowest));
		for (unsigned line = 0; line < 8; line++)
			pulse(pic, line);
		for (unsigned i = 1; i <= 8; i++) {
			unsigned line = (lowest + i) & 7;

			if (line == 2)
				continue;
			assert_int_equal(pic_acknowledge(pic), 0x20 + line);
			pic_write(pic, PIC_MASTER, 0x20);
		}
		assert_false(bench.raised);
	}
	/* With the end of what is in service, and of a given one. */
	pic_write(pic, PIC_MASTER, 0xc7);
	pulse(pic, 3);
	pulse(pic, 4);
	pic_acknowledge(pic);
	pic_write(pic, PIC_MASTER, 0xa0);
	assert_int_equal(pic->chip[0].priority, 3);
	assert_int_equal(isr(pic, PIC_MASTER), 0);
	pic_acknowledge(pic);
	pic_write(pic, PIC_MASTER, 0xe4);
	assert_int_equal(pic->chip[0].priority, 4);
	assert_int_equal(isr(pic, PIC_MASTER), 0);
	pic_write(pic, PIC_MASTER, 0xa0); /* nothing in service: nothing turns */
	assert_int_equal(pic->chip[0].priority, 4);
	pulse(pic, 6);
	pic_acknowledge(pic);
	pic_write(pic, PIC_MASTER, 0x46); /* no operation */
	assert_int_equal(isr(pic, PIC_MASTER), 0x40);
	assert_int_equal(pic->chip[0].priority, 4);
}

static void special_mask(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	pulse(pic, 3);
	pic_acknowledge(pic);
	pulse(pic, 5);
	pic_write(pic, PIC_MASTER_DATA, 0x08);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER, 0x68);
	assert_true(bench.raised);
	assert_int_equal(pic_acknowledge(pic), 0x25);
	/* What is masked is not ended but by name. */
	pic_write(pic, PIC_MASTER, 0x20);
	assert_int_equal(isr(pic, PIC_MASTER), 0x08);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_int_equal(isr(pic, PIC_MASTER), 0x08);
	/* Bit 5 without bit 6 changes nothing; off again. */
	pic_write(pic, PIC_MASTER, 0x08);
	pulse(pic, 6);
	assert_true(bench.raised);
	pic_write(pic, PIC_MASTER, 0x48);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER, 0x63);
	assert_true(bench.raised);
}

static void special_nested(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	initialize(pic, 0x11, 1);
	pulse(pic, 12);
	pic_acknowledge(pic);
	pulse(pic, 14); /* lower within the slave */
	assert_false(bench.raised);
	pulse(pic, 9);
	assert_true(bench.raised);
	assert_int_equal(pic_acknowledge(pic), 0x29);
	assert_int_equal(isr(pic, PIC_SLAVE), 0x12);
	/* Without it, the master waits. */
	initialize(pic, 1, 1);
	pulse(pic, 12);
	pic_acknowledge(pic);
	pulse(pic, 9);
	assert_false(bench.raised);
}

static void poll(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	pic_write(pic, PIC_MASTER, 0x0c);
	assert_int_equal(pic_read(pic, PIC_MASTER), 0);
	assert_int_equal(irr(pic, PIC_MASTER), 0); /* one read is a poll */
	pulse(pic, 5);
	pulse(pic, 10);
	pic_write(pic, PIC_MASTER, 0x0c);
	assert_int_equal(pic_read(pic, PIC_MASTER), 0x82);
	assert_int_equal(isr(pic, PIC_MASTER), 4);
	assert_int_equal(isr(pic, PIC_SLAVE), 0);
	pic_write(pic, PIC_SLAVE, 0x0c);
	assert_int_equal(pic_read(pic, PIC_SLAVE_DATA), 0x82);
	assert_int_equal(isr(pic, PIC_SLAVE), 4);
	assert_false(bench.raised);
	pic_write(pic, PIC_MASTER, 0x20);
	assert_true(bench.raised);
	pic_write(pic, PIC_MASTER, 0x0c);
	assert_int_equal(pic_read(pic, PIC_MASTER), 0x85);
	assert_false(bench.raised);
}

/* MCS-80 mode: the second byte is the low half of an address, in steps of 4 or 8. */
static void mcs80(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	pic_write(pic, PIC_MASTER, 0xf6); /* A7 to A5, interval 4, single */
	pic_write(pic, PIC_MASTER_DATA, 0x12);
	pulse(pic, 3);
	assert_int_equal(pic_acknowledge(pic), 0xec);
	pic_write(pic, PIC_MASTER, 0xd2);
	pic_write(pic, PIC_MASTER_DATA, 0x12);
	pulse(pic, 3);
	assert_int_equal(pic_acknowledge(pic), 0xd8);
}

/* What ICW3 says is who answers. */
static void cascade(void **state)
{
	struct bench bench;
	struct pic *pic = &bench.pic;

	(void)state;
	set_up(&bench);
	pic_write(pic, PIC_SLAVE, 0x11);
	pic_write(pic, PIC_SLAVE_DATA, 0x28);
	pic_write(pic, PIC_SLAVE_DATA, 0x03);
	pic_write(pic, PIC_SLAVE_DATA, 0x01);
	pulse(pic, 9);
	assert_int_equal(pic_acknowledge(pic), 0xff);
	/* A master that knows of no slave gives its own vector. */
	set_up(&bench);
	pic_write(pic, PIC_MASTER, 0x11);
	pic_write(pic, PIC_MASTER_DATA, 0x20);
	pic_write(pic, PIC_MASTER_DATA, 0x00);
	pic_write(pic, PIC_MASTER_DATA, 0x01);
	pulse(pic, 9);
	assert_int_equal(pic_acknowledge(pic), 0x22);
	assert_int_equal(isr(pic, PIC_SLAVE), 0);
}

static void reset_and_state(void **state)
{
	struct bench bench, other;
	uint8_t bytes[256];

	(void)state;
	set_up(&bench);
	set_up(&other);
	pic_line(&bench.pic, 4, true);
	state_save(&pic_state, &bench.pic, bytes);
	assert_int_equal(state_load(&pic_state, &other.pic, bytes, state_size(&pic_state)), 0);
	assert_true(other.raised);
	assert_int_equal(pic_acknowledge(&other.pic), 0x24);
	pic_line(&bench.pic, 2, true);
	pic_line(&bench.pic, 16, true);
	assert_null(state_difference(&pic_state, &bench.pic, &bench.pic));
	pic_reset(&bench.pic);
	assert_false(bench.raised);
	assert_int_equal(pic_read(&bench.pic, PIC_MASTER_DATA), 0xff);
	assert_int_equal(bench.pic.chip[0].lines, 0x10);
	assert_int_equal(bench.told, 2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(initialize_and_mask),
		cmocka_unit_test(every_line),
		cmocka_unit_test(fully_nested),
		cmocka_unit_test(spurious),
		cmocka_unit_test(level_triggered),
		cmocka_unit_test(automatic_eoi),
		cmocka_unit_test(rotation),
		cmocka_unit_test(special_mask),
		cmocka_unit_test(special_nested),
		cmocka_unit_test(poll),
		cmocka_unit_test(mcs80),
		cmocka_unit_test(cascade),
		cmocka_unit_test(reset_and_state),
	};

	if (argc > 1 && !chip_check_break(argv[1]))
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
