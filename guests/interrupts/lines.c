#include "interrupts/lines.h"

#include "lib/machine.h"
#include "lib/story.h"

#define TESTDEV_LINES 0x2000
#define TESTDEV_LATCH 0xe0
#define PIT_COUNTER0  0x40
#define PIT_CONTROL   0x43
#define KEYBOARD_DATA 0x60
#define KEYBOARD      0x64 /* status; commands */
#define RTC_INDEX     0x70
#define RTC_DATA      0x71

#define ISA_LINES 16u
#define ALL_LINES 24u
#define A_WHILE   20000u

/* What drives a line: whether it is there, and its two levels. */
struct driver {
	unsigned line;
	bool (*present)(void);
	void (*set)(bool high);
	const char *absent;
};

/* ---- the 8254: OUT of counter 0 is low in mode 0 until the count is through ---- */

static unsigned pit_status(void)
{
	machine_out8(PIT_CONTROL, 0xe2); /* read back the status of counter 0 */
	return machine_in8(PIT_COUNTER0);
}

static void pit_set(bool high)
{
	machine_out8(PIT_CONTROL, 0x30);
	if (!high)
		return;
	machine_out8(PIT_COUNTER0, 2);
	machine_out8(PIT_COUNTER0, 0);
	for (unsigned i = 0; i < A_WHILE && !(pit_status() & 0x80); i++)
		;
}

static bool pit_present(void)
{
	machine_out8(PIT_CONTROL, 0x30);
	return (pit_status() & 0x3f) == 0x30;
}

/* ---- 16550: the transmitter is empty for as long as that interrupt is enabled; OUT2 opens the line ---- */

static void serial_set(uint16_t port, bool high)
{
	machine_out8((uint16_t)(port + 4), (uint8_t)(high ? 0x0b : 0x03));
	machine_out8((uint16_t)(port + 1), high ? 2 : 0);
}

static bool serial_present(uint16_t port)
{
	machine_out8((uint16_t)(port + 7), 0x5a);
	return machine_in8((uint16_t)(port + 7)) == 0x5a;
}

static void com1_set(bool high) { serial_set(0x3f8, high); }
static void com2_set(bool high) { serial_set(0x2f8, high); }
static bool com1_present(void) { return serial_present(0x3f8); }
static bool com2_present(void) { return serial_present(0x2f8); }

/* ---- 8042: a byte in the output buffer, put there by command, until it is read ---- */

static bool keyboard_ready(void)
{
	for (unsigned i = 0; i < A_WHILE; i++)
		if (!(machine_in8(KEYBOARD) & 2))
			return true;
	return false;
}

static void keyboard_send(uint8_t command, uint8_t value)
{
	keyboard_ready();
	machine_out8(KEYBOARD, command);
	keyboard_ready();
	machine_out8(KEYBOARD_DATA, value);
	keyboard_ready();
}

static void keyboard_empty(void)
{
	for (unsigned i = 0; i < 32 && machine_in8(KEYBOARD) & 1; i++)
		(void)machine_in8(KEYBOARD_DATA);
}

static void keyboard_set(bool high)
{
	if (high) {
		keyboard_send(0x60, 0x32); /* the mouse's interrupt */
		keyboard_send(0xd3, 0x5a); /* as if it had come from the mouse */
		story_pause(A_WHILE);
	} else {
		keyboard_empty();
		keyboard_send(0x60, 0x30); /* both ports off, no interrupts */
	}
}

static bool keyboard_present(void)
{
	if (machine_in8(KEYBOARD) == 0xff || !keyboard_ready())
		return false;
	keyboard_send(0x60, 0x30);
	keyboard_empty();
	return true;
}

/* ---- MC146818: the periodic flag, until register C is read ---- */

static uint8_t rtc_read(uint8_t index)
{
	machine_out8(RTC_INDEX, index);
	return machine_in8(RTC_DATA);
}

static void rtc_write(uint8_t index, uint8_t value)
{
	machine_out8(RTC_INDEX, index);
	machine_out8(RTC_DATA, value);
}

static void rtc_set(bool high)
{
	rtc_write(0xb, (uint8_t)(rtc_read(0xb) & 0x0f));
	(void)rtc_read(0xc);
	if (!high)
		return;
	rtc_write(0xa, 0x23); /* every 122 µs */
	rtc_write(0xb, (uint8_t)(rtc_read(0xb) | 0x40));
	story_pause(A_WHILE);
}

static bool rtc_present(void)
{
	uint8_t was = rtc_read(0xb);

	rtc_write(0xb, (uint8_t)(was & 0x0f));
	return rtc_read(0xb) == (was & 0x0f) && rtc_read(0xd) & 0x80;
}

static const struct driver drivers[] = {
	{0, pit_present, pit_set, "no pc-testdev (port e0H), no 8254 (port 40H)"},
	{3, com2_present, com2_set, "no pc-testdev (port e0H), no 16550 (port 2f8H)"},
	{4, com1_present, com1_set, "no pc-testdev (port e0H), no 16550 (port 3f8H)"},
	{8, rtc_present, rtc_set, "no pc-testdev (port e0H), no RTC (port 70H)"},
	{12, keyboard_present, keyboard_set, "no pc-testdev (port e0H), no 8042 (port 64H)"},
};

#define DRIVERS (sizeof(drivers) / sizeof(drivers[0]))

static const struct driver *driver_of(unsigned n)
{
	for (const struct driver *driver = drivers; driver < drivers + DRIVERS; driver++)
		if (driver->line == n)
			return driver;
	return NULL;
}

static bool has_testdev(void)
{
	uint8_t was = machine_in8(TESTDEV_LATCH);

	machine_out8(TESTDEV_LATCH, 0x5a);
	if (machine_in8(TESTDEV_LATCH) != 0x5a)
		return false;
	machine_out8(TESTDEV_LATCH, was);
	return true;
}

/* QEMU's has the 16 lines of its ISA bus, and dies of a write behind them. */
static unsigned testdev_lines(void) { return machine.control_device ? ALL_LINES : ISA_LINES; }

bool lines_has(unsigned n)
{
	const struct driver *driver = driver_of(n);

	return has_testdev() ? n < testdev_lines() : driver && driver->present();
}

bool lines_can_drive(unsigned n)
{
	const struct driver *driver = driver_of(n);

	if (lines_has(n))
		return true;
	if (has_testdev())
		return story_needs(false, "a pc-testdev (port e0H) of 16 lines");
	return story_needs(false, driver ? driver->absent
					 : "no pc-testdev (port e0H), and no device that holds this line");
}

static uint32_t high_lines; /* of devices */

void lines_set(unsigned n, bool high)
{
	const struct driver *driver = driver_of(n);

	if (has_testdev()) {
		machine_out8((uint16_t)(TESTDEV_LINES + n), high);
	} else if (driver && (high_lines >> n & 1) != high) {
		driver->set(high);
		high_lines ^= 1u << n;
	}
}

void lines_lower(void)
{
	if (has_testdev()) {
		for (unsigned n = 0; n < testdev_lines(); n++)
			machine_out8((uint16_t)(TESTDEV_LINES + n), 0);
		return;
	}
	high_lines = 0;
	for (const struct driver *driver = drivers; driver < drivers + DRIVERS; driver++) {
		if (driver->present())
			driver->set(false);
	}
}
