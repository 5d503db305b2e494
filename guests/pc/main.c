/* main.c: printing, ending, and which tests the command line asks for. */
#include "pc.h"

#define COM1 0x3f8

unsigned failures;

static void print_char(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (uint8_t)c);
}

void print(const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			print_char('\r');
		print_char(*text);
	}
}

void print_number(const char *name, uint32_t value)
{
	bool begun = false;

	print(name);
	print("=0x");
	for (int shift = 28; shift >= 0; shift -= 4) {
		unsigned digit = value >> shift & 15;

		begun = begun || digit || shift == 0;
		if (begun)
			print_char((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
	}
	print("\n");
}

bool same(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;

	while (size--)
		if (*x++ != *y++)
			return false;
	return true;
}

void copy(void *to, const void *from, size_t size)
{
	volatile uint8_t *x = to;
	const uint8_t *y = from;

	while (size--)
		*x++ = *y++;
}

void check(const char *name, bool good)
{
	print(good ? "ok " : "FAIL ");
	print(name);
	print("\n");
	failures += !good;
}

_Noreturn void leave(unsigned value)
{
	outl(0xf4, value);
	for (;;)
		__asm__ volatile("cli\nhlt");
}

uint32_t fw_cfg(unsigned key, unsigned bytes)
{
	uint32_t value = 0;

	outw(0x510, key);
	for (unsigned i = 0; i < bytes; i++)
		value |= (uint32_t)inb(0x511) << (8 * i);
	return value;
}

/* ---- endings ---- */

static void triple_fault(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none = {0, 0};

	__asm__ volatile("lidt %0\nint3" ::"m"(none));
}

static void reset_8042(void)
{
	outb(0x64, 0xfe);
	for (;;)
		__asm__ volatile("hlt");
}

static void reset_cf9(void)
{
	outb(0xcf9, 0x02);
	outb(0xcf9, 0x06);
	for (;;)
		__asm__ volatile("hlt");
}

static void reset_port_a(void)
{
	outb(0x92, inb(0x92) | 1);
	for (;;)
		__asm__ volatile("hlt");
}

/* Ports and memory that no PC has: an empty bus reads as ones, and a guest goes on. */
static void nobody(void)
{
	check("empty port", inb(0x1234) == 0xff && inw(0x1234) == 0xffff && inl(0x1234) == 0xffffffff);
	outb(0x1234, 0);
	check("empty memory", MMIO(uint32_t, 0xfed40000u) == 0xffffffff);
}

static void exit_byte(void) { outb(0xf4, 0x15); }
static void exit_word(void) { outw(0xf4, 0x16); }
static void exit_long(void) { outl(0xf4, 0x17); }

/* ---- choosing ---- */

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{"devices", test_devices}, {"pic", test_pic},         {"ioapic", test_ioapic},
	{"lapic", test_lapic},     {"rtc", test_rtc},         {"hpet", test_hpet},
	{"smp", test_smp},         {"acpi", test_acpi},       {"triple-fault", triple_fault},
	{"8042", reset_8042},      {"cf9", reset_cf9},        {"port92", reset_port_a},
	{"poweroff", acpi_power_off}, {"exit1", exit_byte},   {"exit2", exit_word},
	{"exit4", exit_long},      {"nobody", nobody},
	{"sleep", acpi_sleep},
};

/* Runs what the next word of the command line names; returns what is behind it. */
static const char *run_word(const char *word, uint32_t magic, const uint8_t *information)
{
	size_t size = 0;
	bool known = false;

	while (word[size] && word[size] != ' ')
		size++;
	if (size == 4 && same(word, "boot", 4)) {
		test_boot(magic, information);
		known = true;
	}
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		if (same(word, tests[i].name, size) && tests[i].name[size] == 0) {
			tests[i].run();
			known = true;
		}
	if (!known)
		check("known test", false);
	return word + size;
}

void pc_main(uint32_t magic, const uint8_t *information);
void pc_main(uint32_t magic, const uint8_t *information)
{
	uint32_t flags, text;
	const char *word;

	interrupts_init();
	copy(&flags, information, 4);
	copy(&text, information + 16, 4);
	word = flags & 4 ? at(text) : "";
	while (*word && *word != ' ')
		word++; /* the image's name */
	while (*word) {
		while (*word == ' ')
			word++;
		if (*word)
			word = run_word(word, magic, information);
	}
	print(failures ? "FAILED\n" : "PASSED\n");
	leave(failures ? 1 : 0);
}
