#include "lib/report.h"

#include "lib/machine.h"
#include "x86/control_device.h"

#define REPORT_BUFFER 16384u /* the longest line: every field and every quadword of two pages */

static char buffer[REPORT_BUFFER];
static unsigned used;

static void serial_send(const char *text, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		while (!(machine_in8(SERIAL1_PORT + 5) & 0x20))
			;
		machine_out8(SERIAL1_PORT, (uint8_t)text[i]);
	}
}

static void report_send(void)
{
	if (machine.console)
		machine_out_string(DEBUG_CONSOLE_PORT, buffer, used);
	if (machine.serial)
		serial_send(buffer, used);
	used = 0;
}

static void report_character(char c)
{
	if (used == sizeof(buffer))
		report_send();
	buffer[used++] = c;
}

void report_text(const char *text)
{
	while (*text)
		report_character(*text++);
}

void report_hex(uint64_t value)
{
	int shift = 60;

	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		report_character("0123456789abcdef"[value >> shift & 15]);
}

void report_decimal(uint64_t value)
{
	char digits[20];
	unsigned count = 0;

	do {
		digits[count++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	while (count)
		report_character(digits[--count]);
}

void report_bytes(const void *data, unsigned size)
{
	const uint8_t *byte = data;

	report_text("0x");
	while (size--) {
		report_character("0123456789abcdef"[byte[size] >> 4]);
		report_character("0123456789abcdef"[byte[size] & 15]);
	}
}

void report_field(const char *name, uint64_t value)
{
	report_character(' ');
	report_text(name);
	report_text("=0x");
	report_hex(value);
}

void report_memory(uint32_t address, const void *data, unsigned size)
{
	report_text(" [0x");
	report_hex(address);
	report_character(':');
	report_decimal(size);
	report_text("]=");
	report_bytes(data, size);
}

void report_discard(void) { used = 0; }

void report_end_line(void)
{
	report_character('\n');
	report_send();
}
