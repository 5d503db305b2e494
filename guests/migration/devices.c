/*
 * devices.c: what the devices of a PC's board hold: latches, indices, flip-flops, queues and the levels of lines.
 *
 * 8254, MC146818A, 8237A, PC16550D, IA-PC HPET, 82371AB, PCI 3.0, the PS/2 keyboard controller; QEMU's fw_cfg and pc-testdev.
 */
#include "lib/apic.h"
#include "migration/board.h"
#include "migration/migration.h"

static void nothing(struct story_frame *frame) { (void)frame; }

/* ---- pc-testdev, diagnostic ports ---- */

STORY(latches_kept)
{
	if (!board_has_testdev())
		return;
	machine_out32(0xe0, 0x89abcdef);
	HELD("latch", 0x89abcdef, machine_in32(0xe0));
	for (uint64_t at = 0xff000000; at < 0xff010000; at += 0xff8)
		*mmio64(at) = at * 0x0101010101010101ull;
	hold();
	for (uint64_t at = 0xff000000; at < 0xff010000; at += 0xff8)
		story_check("memory", at * 0x0101010101010101ull, *mmio64(at));
	hold();
	story_check("memory_still", 0xff000000ull * 0x0101010101010101ull, *mmio64(0xff000000));
}

/* Which of two sources drives a line matters to its level: the line of the test device stays its own. */
STORY(test_lines_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(nothing);
	machine_out8(ELCR, 0x28); /* lines 3 and 5: levels */
	machine_out8(0x2000 + 5, 1);
	hold();
	story_check("raised", 0x20, board_pic_read(MASTER, 0x0a) & 0x28);
	machine_out8(0x2000 + 3, 1);
	HELD("both", 0x28, board_pic_read(MASTER, 0x0a) & 0x28);
	if (machine.control_device) /* others may not let it be read */
		HELD("level", 1, machine_in8(0x2000 + 5));
	machine_out8(0x2000 + 5, 0);
	HELD("one", 0x08, board_pic_read(MASTER, 0x0a) & 0x28);
	machine_out8(0x2000 + 3, 0);
	HELD("none", 0, board_pic_read(MASTER, 0x0a) & 0x28);
	machine_out8(ELCR, 0);
}

/* Line 4 has two sources: the serial port and the test device. It falls when both have let go. */
STORY(shared_line_kept)
{
	unsigned first = (unsigned)GIVEN(index);

	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(nothing);
	machine_out8(ELCR, 0x10);
	machine_out8(0x3fc, 0x0b);
	machine_out8(0x3f9, 2); /* the transmitter is empty */
	machine_out8(0x2000 + 4, 1);
	HELD("both", 0x10, board_pic_read(MASTER, 0x0a) & 0x10);
	if (first)
		machine_out8(0x3f9, 0);
	else
		machine_out8(0x2000 + 4, 0);
	HELD("one", 0x10, board_pic_read(MASTER, 0x0a) & 0x10);
	machine_out8(0x3f9, 0);
	machine_out8(0x2000 + 4, 0);
	HELD("none", 0, board_pic_read(MASTER, 0x0a) & 0x10);
	machine_out8(0x3fc, 0x03);
	machine_out8(ELCR, 0);
}

/* Diagnostic ports read back, as the unused DMA page registers that they are on a PC (82371AB 4.1.4). */
STORY(post_kept)
{
	if (!story_needs(machine.control_device, "no control device: port 80H may be anything"))
		return;
	for (uint16_t i = 0; i < 4; i++)
		machine_out8((uint16_t)(0x80 + i), (uint8_t)(0x5a + 0x11 * i));
	hold();
	for (uint16_t i = 0; i < 4; i++)
		story_check_at("port", i, 0x5au + 0x11u * i, machine_in8((uint16_t)(0x80 + i)));
	hold();
	story_check("still", 0x5a, machine_in8(0x80));
}

/* ---- 8254 ---- */

/* A count that is latched stays until it is read, both halves of it (8254, counter latch command). */
STORY(pit_latch_kept)
{
	unsigned first;

	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 1));
	machine_out8(PIT_CONTROL, 0xb0); /* mode 0 */
	machine_out8(PIT_COUNTER2, 0xff);
	hold(); /* between the two halves of a write */
	machine_out8(PIT_COUNTER2, 0xff);
	story_pause(3000);
	machine_out8(PIT_CONTROL, 0x80);
	hold();
	machine_out8(PIT_CONTROL, 0x80); /* again: the first one counts */
	first = machine_in8(PIT_COUNTER2);
	hold(); /* between the halves of a read */
	first |= (unsigned)machine_in8(PIT_COUNTER2) << 8;
	story_check("latched", 1, first > 0xf000 && first < 0xffff);
	machine_out8(PIT_CONTROL, 0x80);
	hold();
	story_check("later_is_less", 1,
		    (machine_in8(PIT_COUNTER2) | (unsigned)machine_in8(PIT_COUNTER2) << 8) <= first);
}

/* The status that is latched, and the mode, access and null count in it (@mode: 0 to 5). */
STORY(pit_status_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);

	machine_out8(PORT_61, machine_in8(PORT_61) & 0xfc);
	machine_out8(PIT_CONTROL, (uint8_t)(0xb0 | mode << 1));
	machine_out8(PIT_CONTROL, 0xe8);
	hold();
	story_check("status", 0x40u | 0x30 | mode << 1, machine_in8(PIT_COUNTER2) & 0x7fu);
	machine_out8(PIT_CONTROL, 0xe8);
	hold();
	story_check("status_still", 0x40u | 0x30 | mode << 1, machine_in8(PIT_COUNTER2) & 0x7fu);
}

/* Counter 2 with its gate closed does not count; opened, it counts on (mode 0). */
STORY(pit_gate_kept)
{
	unsigned before, after;

	if (!board_has_port_61())
		return;
	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 1));
	machine_out8(PIT_CONTROL, 0xb0);
	machine_out8(PIT_COUNTER2, 0x00);
	machine_out8(PIT_COUNTER2, 0x80);
	story_pause(2000);
	machine_out8(PORT_61, machine_in8(PORT_61) & 0xfc);
	hold();
	before = machine_in8(PIT_COUNTER2);
	before |= (unsigned)machine_in8(PIT_COUNTER2) << 8;
	story_pause(1000);
	after = machine_in8(PIT_COUNTER2);
	after |= (unsigned)machine_in8(PIT_COUNTER2) << 8;
	story_check("stands", before, after);
	story_check("counted", 1, before < 0x8000 && before > 0x7000);
	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 1));
	story_pause(2000);
	after = machine_in8(PIT_COUNTER2);
	after |= (unsigned)machine_in8(PIT_COUNTER2) << 8;
	story_check("goes_on", 1, after < before);
	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 0x0e));
	HELD("port_61", 0x0e, machine_in8(PORT_61) & 0x0f);
	machine_out8(PORT_61, 0);
}

/* OUT of counter 2, as port 61H shows it: low in mode 0 until the count is through, then high for good. */
STORY(pit_output_kept)
{
	if (!board_has_port_61())
		return;
	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 1));
	machine_out8(PIT_CONTROL, 0xb0);
	HELD("low", 0, machine_in8(PORT_61) & 0x20);
	machine_out8(PIT_COUNTER2, 2);
	machine_out8(PIT_COUNTER2, 0);
	story_pause(4000);
	HELD("high", 0x20, machine_in8(PORT_61) & 0x20);
}

/* ---- MC146818 ---- */

STORY(cmos_kept)
{
	unsigned old;

	if (!board_has_rtc())
		return;
	old = rtc_read(0x3f);
	rtc_write(0x3f, 0xa7);
	HELD("byte", 0xa7, rtc_read(0x3f));
	machine_out8(0x70, 0x3f); /* the index alone */
	hold();
	story_check("index", 0xa7, machine_in8(0x71));
	hold();
	machine_out8(0x71, 0x7a);
	hold();
	story_check("written_there", 0x7a, rtc_read(0x3f));
	rtc_write(0x3f, old);
	for (unsigned n = 1; n < 6; n += 2)
		rtc_write(n, 0x11 * n);
	hold();
	for (unsigned n = 1; n < 6; n += 2)
		story_check_at("alarm", n, 0x11 * n, rtc_read(n));
}

/* The line of IRQ 8 is high as long as register C has not been read. */
STORY(rtc_line_kept)
{
	if (!board_pic() || !board_has_rtc())
		return;
	story_handle(nothing);
	rtc_write(0xa, 0x23);
	rtc_write(0xb, 2 | 0x40);
	for (unsigned i = 0; i < 100 && !(board_pic_read(SLAVE, 0x0a) & 1); i++)
		board_nap(10000);
	rtc_write(0xa, 0x20); /* no more of them */
	machine_out8(SLAVE + 1, 0xff);
	HELD("request", 1, board_pic_read(SLAVE, 0x0a) & 1);
	hold();
	story_check("flags", 0xc0, rtc_read(0xc) & 0xc0);
	story_check("flags_taken", 0, rtc_read(0xc) & 0xc0);
	rtc_write(0xa, 0x26);
	rtc_write(0xb, 2);
}

/* Flags are made of the time that has passed since the last look, however often the machine was moved. */
STORY(rtc_flags_kept)
{
	if (!story_apic_mode() || !board_has_rtc())
		return;
	rtc_write(0xb, 2);
	rtc_write(0xa, 0x23);
	(void)rtc_read(0xc);
	board_nap(20000);
	board_nap(400000); /* longer than 122 microseconds, wherever a tick is some nanoseconds */
	hold();
	story_check("flag", 0x40, rtc_read(0xc) & 0x40);
	rtc_write(0xa, 0x2f); /* twice a second */
	(void)rtc_read(0xc);
	hold();
	story_check("none_yet", 0, rtc_read(0xc) & 0x40);
	hold();
	story_check("none_still", 0, rtc_read(0xc) & 0x40);
	rtc_write(0xa, 0x26);
}

/* ---- 8237 ---- */

STORY(dma_kept)
{
	uint16_t first = GIVEN(index) ? 0xc0 : 0, step = GIVEN(index) ? 2 : 1;

	machine_out8((uint16_t)(first + 13 * step), 0); /* master clear */
	if (!story_needs(machine_in8((uint16_t)(first + 8 * step)) != 0xff, "no 8237A"))
		return;
	machine_out8((uint16_t)(first + 10 * step), 5); /* masks channel 1 */
	machine_out8((uint16_t)(first + 11 * step), 0x45);
	machine_out8((uint16_t)(first + 2 * step), 0x34);
	hold(); /* between the bytes of the address */
	machine_out8((uint16_t)(first + 2 * step), 0x12);
	machine_out8((uint16_t)(first + 3 * step), 0x78);
	machine_out8((uint16_t)(first + 3 * step), 0x56);
	hold();
	story_check("address_low", 0x34, machine_in8((uint16_t)(first + 2 * step)));
	hold();
	story_check("address_high", 0x12, machine_in8((uint16_t)(first + 2 * step)));
	story_check("count_low", 0x78, machine_in8((uint16_t)(first + 3 * step)));
	hold();
	story_check("count_high", 0x56, machine_in8((uint16_t)(first + 3 * step)));
	machine_out8((uint16_t)(first + 9 * step), 5); /* a request by software, on a masked channel */
	HELD("status", 0x20, machine_in8((uint16_t)(first + 8 * step)) & 0xf0);
	machine_out8((uint16_t)(first + 13 * step), 0);
	for (uint16_t i = 0; i < 8; i++) {
		static const uint16_t pages[8] = {0x87, 0x89, 0x8a, 0x8b, 0x8f, 0x84, 0x85, 0x86};

		machine_out8(pages[i], (uint8_t)(0x31 + 7 * i));
		hold();
		story_check_at("page", i, 0x31u + 7u * i, machine_in8(pages[i]));
		hold();
		story_check_at("page_still", i, 0x31u + 7u * i, machine_in8(pages[i]));
	}
}

/* ---- the keyboard controller ---- */

#define KB_DATA    0x60
#define KB_COMMAND 0x64

static bool keyboard_ready(void)
{
	for (unsigned i = 0; i < 1000; i++)
		if (!(machine_in8(KB_COMMAND) & 2))
			return true;
	return false;
}

static void keyboard_command(unsigned command)
{
	keyboard_ready();
	machine_out8(KB_COMMAND, (uint8_t)command);
}

static void keyboard_data(unsigned value)
{
	keyboard_ready();
	machine_out8(KB_DATA, (uint8_t)value);
}

/* 100H: nothing comes. */
static unsigned keyboard_take(void)
{
	for (unsigned i = 0; i < 2000; i++)
		if (machine_in8(KB_COMMAND) & 1)
			return machine_in8(KB_DATA);
	return 0x100;
}

static bool has_keyboard(void)
{
	if (!story_needs(machine_in8(KB_COMMAND) != 0xff, "no keyboard controller (port 64H)"))
		return false;
	for (unsigned i = 0; i < 32 && machine_in8(KB_COMMAND) & 1; i++)
		(void)machine_in8(KB_DATA);
	keyboard_command(0x60);
	keyboard_data(0x34); /* no interrupts, no translation, the auxiliary port off, the keyboard off */
	return true;
}

static unsigned command_byte(void)
{
	keyboard_command(0x20);
	return keyboard_take();
}

STORY(keyboard_controller_kept)
{
	unsigned kept = machine.control_device ? 0x22 : 2; /* bit 5 of port 92H is nobody's: ours keeps it */

	if (!has_keyboard())
		return;
	HELD("command_byte", 0x34, command_byte());
	keyboard_command(0x60);
	hold(); /* between the command and its byte */
	keyboard_data(0x70);
	HELD("command_byte_new", 0x70, command_byte());
	keyboard_command(0x71); /* a byte of its RAM */
	keyboard_data(0x9e);
	hold();
	keyboard_command(0x31);
	story_check("ram", 0x9e, keyboard_take());
	keyboard_command(0x20);
	hold();
	story_check("last_was_command", 8, machine_in8(KB_COMMAND) & 8);
	hold();
	story_check("last_was_command_still", 8, machine_in8(KB_COMMAND) & 8);
	(void)keyboard_take();
	keyboard_command(0xd0);
	story_check("output_port", 3, keyboard_take() & 3);
	keyboard_command(0xd1);
	keyboard_data(0x4f);
	hold();
	keyboard_command(0xd0);
	story_check("output_port_new", 0x4f, keyboard_take() & 0xcf);
	hold();
	keyboard_command(0xd0);
	story_check("output_port_still", 0x4f, keyboard_take() & 0xcf);
	machine_out8(0x92, (uint8_t)(machine_in8(0x92) | 0x20));
	HELD("port_a", kept, machine_in8(0x92) & kept);
	machine_out8(0x92, 2);
}

/* The output buffer and what stands behind it, with where it comes from. */
STORY(keyboard_queue_kept)
{
	if (!has_keyboard())
		return;
	keyboard_command(0x60);
	keyboard_data(0x04); /* both ports on */
	keyboard_command(0xd3);
	keyboard_data(0x5a); /* as from the auxiliary port */
	HELD("auxiliary", 0x21, machine_in8(KB_COMMAND) & 0x21);
	story_check("byte", 0x5a, keyboard_take());
	hold();
	story_check("empty", 0, machine_in8(KB_COMMAND) & 1);
	hold();
	story_check("empty_still", 0, machine_in8(KB_COMMAND) & 1);
	keyboard_command(0xd2);
	keyboard_data(0xa5);
	HELD("keyboard", 0x01, machine_in8(KB_COMMAND) & 0x21);
	story_check("other_byte", 0xa5, keyboard_take());
}

/* The keyboard's own: an answer of three bytes, a command that waits for its byte, the set of codes, the last answer. */
STORY(keyboard_kept)
{
	static const unsigned identity[] = {0xfa, 0xab, 0x83};

	if (!has_keyboard())
		return;
	keyboard_command(0x60);
	keyboard_data(0x24);
	keyboard_data(0xf2);
	for (unsigned i = 0; i < 3; i++) {
		hold();
		story_check_at("identity", i, identity[i], keyboard_take());
	}
	hold();
	keyboard_data(0xed);
	story_check("lamps", 0xfa, keyboard_take());
	hold();
	keyboard_data(0x02);
	story_check("lamps_set", 0xfa, keyboard_take());
	keyboard_data(0xf0);
	story_check("set", 0xfa, keyboard_take());
	hold();
	keyboard_data(1);
	story_check("set_1", 0xfa, keyboard_take());
	for (unsigned i = 0; i < 2; i++) {
		hold();
		keyboard_data(0xf0);
		story_check("ask", 0xfa, keyboard_take());
		keyboard_data(0);
		story_check("asked", 0xfa, keyboard_take());
		story_check("is", 1, keyboard_take());
		hold();
	}
	keyboard_data(0xee); /* echo */
	story_check("echo", 0xee, keyboard_take());
	hold();
	keyboard_data(0xfe); /* once more */
	story_check("echo_again", 0xee, keyboard_take());
	hold();
	keyboard_data(0xfe);
	story_check("echo_still", 0xee, keyboard_take());
	keyboard_data(0xff);
	(void)keyboard_take();
	(void)keyboard_take();
}

/* Its line is high while there is a byte, and falls with it. */
STORY(keyboard_line_kept)
{
	if (!board_pic() || !has_keyboard())
		return;
	story_handle(nothing);
	machine_out8(ELCR, 0);
	keyboard_command(0x60);
	keyboard_data(0x05);
	keyboard_command(0xd2);
	keyboard_data(0x11);
	HELD("request", 2, board_pic_read(MASTER, 0x0a) & 2);
	hold();
	(void)machine_in8(KB_DATA);
	hold();
	story_check("gone", 0, board_pic_read(MASTER, 0x0a) & 2);
	keyboard_command(0xd2);
	keyboard_data(0x12); /* another edge */
	HELD("again", 2, board_pic_read(MASTER, 0x0a) & 2);
	(void)machine_in8(KB_DATA);
	keyboard_command(0x60);
	keyboard_data(0x34);
}

/* ---- 16550 ---- */

#define COM 0x3f8

static uint8_t uart_in(unsigned n) { return machine_in8((uint16_t)(COM + n)); }
static void uart_out(unsigned n, unsigned value) { machine_out8((uint16_t)(COM + n), (uint8_t)value); }

/* Waits until what was sent has gone: a character takes its time, also where it comes back. */
static void uart_sent(void)
{
	for (unsigned i = 0; i < 100000 && (uart_in(5) & 0x60) != 0x60; i++)
		;
}

static bool has_uart(void)
{
	uart_out(7, 0x5a);
	if (!story_needs(uart_in(7) == 0x5a, "no 16550 (port 3f8H)"))
		return false;
	uart_sent();
	for (unsigned i = 0; i < 32 && uart_in(5) & 1; i++)
		(void)uart_in(0);
	return true;
}

/* As the library wants it to print with. */
static void uart_back(void)
{
	uart_out(3, 0x03);
	uart_out(1, 0);
	uart_out(2, 0x07);
	uart_out(2, 0);
	uart_out(4, 0x03);
	(void)uart_in(5);
	(void)uart_in(6);
}

STORY(uart_registers_kept)
{
	if (!has_uart())
		return;
	uart_out(4, 0x13); /* loopback: nobody hears of it */
	uart_out(7, 0xc3);
	HELD("scratch", 0xc3, uart_in(7));
	uart_out(1, 0x0a);
	HELD("ier", 0x0a, uart_in(1));
	uart_out(3, 0x9f);
	HELD("lcr", 0x9f, uart_in(3));
	uart_out(0, 0x34);
	hold();
	uart_out(1, 0x12);
	HELD("divisor_low", 0x34, uart_in(0));
	HELD("divisor_high", 0x12, uart_in(1));
	uart_out(0, 12);
	uart_out(1, 0);
	uart_out(3, 0x03);
	uart_out(1, 0);
	HELD("mcr", 0x13, uart_in(4));
	(void)uart_in(6);
	HELD("msr", 0x30, uart_in(6));
	uart_out(4, 0x1f);
	hold();
	story_check("deltas", 0xf8, uart_in(6)); /* RI came: no delta; DCD: one */
	hold();
	story_check("deltas_read", 0xf0, uart_in(6));
	uart_out(4, 0x1b); /* RI goes */
	hold();
	story_check("ring", 0xb4, uart_in(6));
	uart_back();
}

/* Bytes that have been received, in their order, with their errors, the overrun, and the interrupt that they make (@mode: 1: with
 * FIFOs). */
STORY(uart_fifo_kept)
{
	unsigned count = GIVEN(mode) ? 12 : 1;

	if (!has_uart())
		return;
	uart_out(4, 0x13);
	uart_out(2, GIVEN(mode) ? 0x87 : 0); /* trigger at 8 */
	HELD("iir", GIVEN(mode) ? 0xc1 : 1, uart_in(2));
	(void)uart_in(5);
	for (unsigned i = 0; i < count; i++) {
		uart_out(0, 0x41 + 3 * i);
		uart_sent();
		hold();
	}
	HELD("ready", 0x61, uart_in(5));
	uart_out(1, 1);
	HELD("received", GIVEN(mode) ? 0xc4 : 4, uart_in(2));
	for (unsigned i = 0; i < count; i++) {
		story_check_at("byte", i, 0x41 + 3 * i, uart_in(0));
		hold();
	}
	story_check("empty", 0x60, uart_in(5));
	hold();
	uart_out(0, 0x55);
	uart_sent();
	uart_out(3, 0x43); /* break: a NUL with a framing error */
	uart_out(3, 0x03);
	hold();
	if (GIVEN(mode)) {
		story_check("error_behind", 0x80, uart_in(5) & 0x9e);
		story_check("good", 0x55, uart_in(0));
		hold();
		story_check("error", 0x98, uart_in(5) & 0x9e);
		hold();
		story_check("nul", 0, uart_in(0));
	} else {
		story_check("overrun", 2, uart_in(5) & 2);
		hold();
		story_check("told_once", 0, uart_in(5) & 2);
		(void)uart_in(0);
	}
	uart_back();
}

/* The transmitter's interrupt is pending until IIR is read. */
STORY(uart_transmitter_kept)
{
	if (!has_uart())
		return;
	uart_out(4, 0x13);
	uart_out(1, 2);
	hold();
	story_check("pending", 2, uart_in(2) & 0x0f);
	hold();
	story_check("taken", 1, uart_in(2) & 0x0f);
	uart_out(0, 0x21);
	uart_sent();
	hold();
	story_check("again", 2, uart_in(2) & 0x0f);
	hold();
	story_check("taken_again", 1, uart_in(2) & 0x0f);
	uart_back();
}

/* Bytes below the trigger level are told after four characters' time: not before, and without another move of theirs. */
STORY(uart_timeout_kept)
{
	uint64_t began;
	unsigned i;

	if (!has_uart() || !story_apic_mode())
		return;
	uart_out(4, 0x13);
	uart_out(3, 0x83);
	uart_out(0, 1); /* 115200 baud: four characters are 347 microseconds */
	uart_out(1, 0);
	uart_out(3, 0x03);
	uart_out(2, 0xc7);
	uart_out(1, 1);
	began = read_tsc();
	uart_out(0, 0x77);
	uart_sent();
	hold();
	story_check("not_yet", 0xc1, uart_in(2));
	for (i = 0; i < 200 && uart_in(2) == 0xc1; i++)
		board_nap(20000);
	story_check("timed_out", 0xcc, uart_in(2));
	HELD("held", 0xcc, uart_in(2));
	story_check("took_time", 1, read_tsc() - began > 1000 && i > 0);
	story_check("byte", 0x77, uart_in(0));
	story_check("over", 0xc1, uart_in(2));
	uart_out(3, 0x83);
	uart_out(0, 12);
	uart_back();
}

/* ---- PCI ---- */

#define HOST_BRIDGE 0x12378086u
#define ISA_BRIDGE  0x70008086u

STORY(pci_address_kept)
{
	if (!story_needs(pci_find(HOST_BRIDGE) || (pci_read(0) & 0xffff) == 0x8086, "no PCI host bridge of Intel's"))
		return;
	machine_out32(0xcf8, 0x80000000);
	hold();
	story_check("address", 0x80000000, machine_in32(0xcf8));
	hold();
	story_check("id", 0x8086, machine_in32(0xcfc) & 0xffff);
	machine_out32(0xcf8, 0x80000800);
	HELD("address_new", 0x80000800, machine_in32(0xcf8));
	machine_out8(0xcf9, 2); /* a hard reset is chosen, and not asked for */
	HELD("reset_control", 2, machine_in8(0xcf9) & 2);
	machine_out8(0xcf9, 0);
}

/* A register that keeps what is written, of the bridges (@index) and of power management. */
STORY(pci_config_kept)
{
	static const struct {
		uint32_t id, at, value;
	} registers[] = {{HOST_BRIDGE, 0x3c, 0x5a}, {ISA_BRIDGE, 0x3c, 0x5a}, {0x71138086, 0x58, 0x00123456},
			 {ISA_BRIDGE, 0x04, 0x0007}, {HOST_BRIDGE, 0x58, 0x33221100}};
	unsigned n = (unsigned)GIVEN(index);
	uint32_t at = pci_find(registers[n].id), old, kept;

	if (!story_needs(at || pci_read(0) == registers[n].id, "no such PCI function"))
		return;
	old = pci_read(at | registers[n].at);
	pci_write(at | registers[n].at, registers[n].value);
	kept = pci_read(at | registers[n].at);
	if (!story_needs(kept != old, "this register is read-only here"))
		return;
	HELD("register", kept, pci_read(at | registers[n].at));
	pci_write(at | registers[n].at, old);
	HELD("back", old, pci_read(at | registers[n].at));
}

/* ---- power management ---- */

STORY(pm_registers_kept)
{
	if (!board_has_pm())
		return;
	out16(PM_EVENT + 2, 0x0521 & 0x0420);
	HELD("enable", 0x0420, in16(PM_EVENT + 2));
	out16(PM_CONTROL, 0x1402);
	HELD("control", 0x1402, in16(PM_CONTROL) & 0x1c02);
	out16(PM_EVENT + 2, 0);
	out16(PM_CONTROL, 0);
	machine_out8(APM + 1, 0x6d);
	HELD("apm_status", 0x6d, machine_in8(APM + 1));
	HELD("control_0", 0, in16(PM_CONTROL) & 0x1c02);
}

static volatile unsigned sci;
static void take_sci(struct story_frame *frame)
{
	if (frame->vector < 32)
		return;
	sci++;
	out16(PM_EVENT, 1); /* clears TMR_STS, and the level */
	apic_write(APIC_EOI, 0);
}

/* TMR_STS is set when bit 23 of the timer changes: the SCI comes, and stays until it is cleared. */
STORY(pm_timer_told)
{
	if (!story_apic_mode() || !board_has_pm())
		return;
	machine_out8(APM, 0xf1); /* ACPI mode */
	for (unsigned i = 0; i < 1000 && !(in16(PM_CONTROL) & 1); i++)
		;
	if (!story_needs(in16(PM_CONTROL) & 1, "no SCI_EN by port b2H"))
		return;
	HELD("sci_en", 1, in16(PM_CONTROL) & 1);
	out16(PM_EVENT, 1);
	sci = 0;
	story_handle(take_sci);
	if (!board_ioapic_entry(9, 0x71 | 1u << 15))
		return;
	out16(PM_EVENT + 2, 1);
	hold();
	for (unsigned i = 0; i < 4 && !sci; i++)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	story_check("came", 1, sci);
	story_handle(nothing);
	while (!(in16(PM_EVENT) & 1)) /* and once more, not taken */
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	HELD("status", 1, in16(PM_EVENT) & 1);
	hold();
	out16(PM_EVENT, 1);
	HELD("cleared", 0, in16(PM_EVENT) & 1);
	out16(PM_EVENT + 2, 0);
	apic_write(APIC_EOI, 0);
	machine_out8(APM, 0xf0);
	HELD("sci_off", 0, in16(PM_CONTROL) & 1);
}

/* ---- fw_cfg ---- */

STORY(fw_cfg_kept)
{
	static const char signature[] = "QEMU";
	static uint8_t request[16] __attribute__((aligned(16))), answer[16] __attribute__((aligned(16)));
	uint64_t to = (uintptr_t)answer;

	out16(0x510, 0);
	for (unsigned i = 0; i < 4; i++) {
		uint8_t byte = machine_in8(0x511);

		if (!i && !story_needs(byte == 'Q', "no fw_cfg (port 510H)"))
			return;
		story_check_at("signature", i, (uint8_t)signature[i], byte);
		hold();
	}
	out16(0x510, 1);
	if (!story_needs(machine_in8(0x511) & 2, "no fw_cfg DMA"))
		return;
	machine_fill(request, 0, sizeof(request));
	machine_fill(answer, 0, sizeof(answer));
	request[1] = 0; /* key 0 */
	request[3] = 0x0a; /* select, read */
	request[7] = 4;
	for (unsigned i = 0; i < 8; i++)
		request[8 + i] = (uint8_t)(to >> 8 * (7 - i));
	machine_out32(0x514, __builtin_bswap32((uint32_t)((uintptr_t)request >> 32)));
	hold(); /* between the halves of the address */
	machine_out32(0x518, __builtin_bswap32((uint32_t)(uintptr_t)request));
	hold();
	story_check("done", 0, *(volatile uint32_t *)request);
	/* the same request 4 GiB further up is another one, which is not there */
	request[3] = 0x0a;
	machine_out32(0x514, __builtin_bswap32(1 + (uint32_t)((uintptr_t)request >> 32)));
	hold();
	machine_out32(0x518, __builtin_bswap32((uint32_t)(uintptr_t)request));
	hold();
	story_check("not_this_one", 0x0a000000, *(volatile uint32_t *)request);
	for (unsigned i = 0; i < 4; i++)
		story_check_at("by_dma", i, (uint8_t)signature[i], ((volatile uint8_t *)answer)[i]);
}

/* ---- HPET ---- */

STORY(hpet_registers_kept)
{
	if (!board_has_hpet())
		return;
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = 0x123456789abcull;
	HELD("counter", 0x123456789abcull, *mmio64(HPET + HPET_COUNTER));
	for (unsigned n = 0; n < 3; n++) {
		*mmio64(HPET + HPET_TIMER(n)) = (20u + n) << 9 | 0x100 | (n == 1 ? 2 : 0);
		*mmio64(HPET + HPET_TIMER(n) + 8) = 0x11223344u * (n + 1);
		hold();
		story_check_at("config", n, (20u + n) << 9 | 0x100 | (n == 1 ? 2u : 0u), *mmio64(HPET + HPET_TIMER(n)) & 0x3f0eu);
		story_check_at("comparator", n, (uint32_t)(0x11223344u * (n + 1)), (uint32_t)*mmio64(HPET + HPET_TIMER(n) + 8));
		hold();
		story_check_at("comparator_still", n, (uint32_t)(0x11223344u * (n + 1)), (uint32_t)*mmio64(HPET + HPET_TIMER(n) + 8));
		*mmio64(HPET + HPET_TIMER(n)) = 0;
	}
	*mmio64(HPET + HPET_CONFIG) = 2;
	HELD("config", 2, *mmio64(HPET + HPET_CONFIG));
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = 0;
}

/* A level-triggered match stays in the status register, and on the line, until it is cleared. */
STORY(hpet_level_kept)
{
	if (!story_apic_mode() || !board_has_hpet() || !board_ioapic_entry(21, LVT_MASKED | 1u << 15 | 0x62))
		return;
	story_handle(nothing);
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = 0;
	*mmio64(HPET + HPET_TIMER(1)) = 21u << 9 | 2 | 4;
	*mmio64(HPET + HPET_TIMER(1) + 8) = 4;
	*mmio64(HPET + HPET_CONFIG) = 1;
	for (unsigned i = 0; i < 50 && !(*mmio64(HPET + HPET_STATUS) & 2); i++)
		hold();
	HELD("status", 2, *mmio64(HPET + HPET_STATUS) & 7);
	board_ioapic_write(0x10 + 2 * 21, 1u << 15 | 0x62); /* unmasked: the level is still there */
	hold();
	story_check("requested", 1, apic_bit(APIC_IRR, 0x62));
	story_open();
	story_check("taken", 1, story_count(0x62));
	*mmio64(HPET + HPET_STATUS) = 2;
	hold();
	apic_write(APIC_EOI, 0);
	hold();
	story_open();
	story_check("gone", 1, story_count(0x62));
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_TIMER(1)) = 0;
	board_ioapic_write(0x10 + 2 * 21, LVT_MASKED);
}

/* An edge-triggered timer raises its line again with its next match: each is an edge of its own. */
STORY(hpet_edges_kept)
{
	unsigned ticks = 30u << first_try();

	if (!story_apic_mode() || !board_has_hpet() || !board_ioapic_entry(22, 0x63))
		return;
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = 0;
	*mmio64(HPET + HPET_TIMER(2)) = 22u << 9 | 4;
	*mmio64(HPET + HPET_CONFIG) = 1;
	for (unsigned i = 0; i < 4; i++) {
		*mmio64(HPET + HPET_TIMER(2) + 8) = *mmio64(HPET + HPET_COUNTER) + ticks;
		for (unsigned k = 0; k < 40; k++)
			hold();
		story_open();
		for (unsigned k = 0; k < 1000 && story_count(0x63) <= i; k++)
			story_open();
		story_check_at("edge", i, i + 1, story_count(0x63));
	}
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_TIMER(2)) = 0;
	board_ioapic_write(0x10 + 2 * 22, LVT_MASKED);
}

/* The line of an edge stays high until the next one, whatever is done to other timers: an 8259A would forget it. */
STORY(hpet_line_kept)
{
	if (!board_pic() || !board_has_hpet())
		return;
	story_handle(nothing);
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = 0;
	*mmio64(HPET + HPET_TIMER(0)) = 4;
	*mmio64(HPET + HPET_TIMER(0) + 8) = 3;
	*mmio64(HPET + HPET_CONFIG) = 3;
	for (unsigned i = 0; i < 20; i++)
		hold();
	story_check("requested", 1, board_pic_read(MASTER, 0x0a) & 1);
	for (unsigned i = 0; i < 3; i++) {
		hold();
		*mmio64(HPET + HPET_TIMER(2)) = 22u << 9;
		hold();
		*mmio64(HPET + HPET_TIMER(2)) = 23u << 9;
		story_check_at("still", i, 1, board_pic_read(MASTER, 0x0a) & 1);
	}
	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_TIMER(0)) = 0;
	*mmio64(HPET + HPET_TIMER(2)) = 0;
}

/* Legacy replacement cuts the PIT from line 0 and the RTC from line 8. */
STORY(hpet_legacy_kept)
{
	if (!board_pic() || !board_has_hpet())
		return;
	story_handle(nothing);
	machine_out8(PIT_CONTROL, 0x30); /* OUT is low */
	*mmio64(HPET + HPET_CONFIG) = 3;
	hold();
	machine_out8(PIT_COUNTER0, 2);
	machine_out8(PIT_COUNTER0, 0);
	story_pause(4000);
	HELD("cut", 0, board_pic_read(MASTER, 0x0a) & 1);
	*mmio64(HPET + HPET_CONFIG) = 0;
	HELD("joined", 1, board_pic_read(MASTER, 0x0a) & 1);
	machine_out8(PIT_CONTROL, 0x30);
}
