/* sleep.c: S3: the alarm of the real-time clock wakes the machine, which goes on in real mode. */
#include "pc.h"

extern const uint8_t resume[], resume_end[];

#define RESUME_PAGE 0x7000u
#define RTC_ENABLE  0x400u /* of PM1 */
#define SLEEP       0x2000u
#define KEPT        0x00600000u

static void cmos_write(unsigned at, unsigned value)
{
	outb(0x70, at);
	outb(0x71, value);
}

static uint32_t get32(const uint8_t *from)
{
	uint32_t value;

	copy(&value, from, 4);
	return value;
}

void acpi_sleep(void)
{
	const uint8_t *fadt = acpi_table("FACP"), *facs;
	uint32_t vector = RESUME_PAGE, event, control;

	if (!fadt) {
		check("FADT", false);
		return;
	}
	facs = at(get32(fadt + 36));
	event = get32(fadt + 56);
	control = get32(fadt + 64);
	print_number("sleep: PM1 events", event);
	copy(at(RESUME_PAGE), resume, (size_t)(resume_end - resume));
	copy(at((uintptr_t)facs + 12), &vector, 4);
	MMIO(uint32_t, KEPT) = 0x600df00d;
	/* The alarm comes with the next second: whatever hour, minute and second. */
	cmos_write(0x01, 0xc0);
	cmos_write(0x03, 0xc0);
	cmos_write(0x05, 0xc0);
	outb(0x70, 0x0b);
	cmos_write(0x0b, inb(0x71) | 0x20);
	outb(0x70, 0x0c);
	inb(0x71);
	outw(event + 2, RTC_ENABLE);
	outw(event, RTC_ENABLE);
	print("sleeping\n");
	outw(control, SLEEP | acpi_sleep_type("_S3_") << 10);
	for (;;)
		__asm__ volatile("cli\nhlt");
}
