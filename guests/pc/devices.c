/* devices.c: what can be asked of devices without an interrupt, the HPET, and what the loader said. */
#include "pc.h"

static uint32_t field(const uint8_t *information, unsigned offset)
{
	uint32_t value;

	copy(&value, information + offset, 4);
	return value;
}

void test_boot(uint32_t magic, const uint8_t *information)
{
	uint32_t flags = field(information, 0), low = 0;
	const uint8_t *entry, *end;

	print_number("boot: magic", magic);
	check("boot: memory sizes",
	      (flags & 1) && field(information, 4) >= 600 && field(information, 4) <= 640);
	check("boot: command line", flags & 4);
	check("boot: memory map", flags & 64);
	entry = at(field(information, 48));
	end = entry + field(information, 44);
	for (; entry < end; entry += field(entry, 0) + 4)
		if (field(entry, 20) == 1 && field(entry, 4) == 0x100000)
			low = field(entry, 12);
	check("boot: RAM at 1 MiB", low > 500u << 20 && low <= 511u << 20);
	print_number("fw_cfg: signature", fw_cfg(0, 4));
	print_number("fw_cfg: id", fw_cfg(1, 4));
	print_number("fw_cfg: RAM size", fw_cfg(3, 4));
	print_number("fw_cfg: CPUs", fw_cfg(5, 2));
	print_number("fw_cfg: most CPUs", fw_cfg(15, 2));
	print_number("fw_cfg: unknown key", fw_cfg(0x3abc, 4));
	print_number("fw_cfg: DMA", inl(0x514));
}

/* PIT counter 2 counts @pulses of 1193182 Hz down while port 0x61 shows its output. */
static void pit_wait(unsigned pulses)
{
	outb(0x61, (inb(0x61) & ~3u) | 1);
	outb(0x43, 0xb0);
	outb(0x42, pulses & 0xff);
	outb(0x42, pulses >> 8);
	while (!(inb(0x61) & 0x20))
		;
}

static void test_serial(void)
{
	bool good;

	outb(0x3f8 + 4, 0x1b);
	outb(0x3f8, 0x5a);
	good = inb(0x3f8 + 5) & 1;
	good = good && inb(0x3f8) == 0x5a;
	good = good && (inb(0x3f8 + 6) & 0xf0) == 0xb0;
	outb(0x3f8 + 4, 0x03);
	check("serial: loopback", good);
	outb(0x3f8 + 7, 0xa5);
	check("serial: scratch", inb(0x3f8 + 7) == 0xa5);
}

static void test_testdev(void)
{
	outl(0xe0, 0x12345678);
	check("testdev: latch", inl(0xe0) == 0x12345678 && inb(0xe1) == 0x56 && inw(0xe2) == 0x1234);
	check("testdev: split latch", inl(0xe8) == 0x12345678);
	MMIO(uint32_t, 0xff000004) = 0xdeadbeef;
	MMIO(uint8_t, 0xff000005) = 0x11;
	check("testdev: memory", MMIO(uint32_t, 0xff000004) == 0xdead11ef);
}

static uint8_t keyboard(void)
{
	while (!(inb(0x64) & 1))
		;
	return inb(0x60);
}

static void test_keyboard(void)
{
	outb(0x64, 0xad);
	while (inb(0x64) & 1)
		inb(0x60);
	outb(0x64, 0xaa);
	check("8042: self-test", keyboard() == 0x55);
	outb(0x64, 0xab);
	check("8042: interface test", keyboard() == 0);
	outb(0x64, 0x60);
	outb(0x60, 0x44);
	outb(0x64, 0x20);
	check("8042: command byte", keyboard() == 0x44);
	outb(0x60, 0xee);
	check("8042: echo", keyboard() == 0xee);
	outb(0x64, 0xd0);
	check("8042: A20 is open", keyboard() & 2);
}

void test_devices(void)
{
	uint32_t before, ticks;

	before = inl(0x608);
	pit_wait(11932); /* 10 ms */
	ticks = (inl(0x608) - before) & 0xffffff;
	check("PM timer: at least 10 ms", ticks >= 35790);
	check("PM timer: at most a second", ticks < 3579545);
	outb(0x61, inb(0x61) & ~3u);
	check("PCI: host bridge", (outl(0xcf8, 0x80000000), inl(0xcfc)) == 0x12378086);
	check("PCI: nothing", (outl(0xcf8, 0x8000f800), inl(0xcfc)) == 0xffffffff);
	test_serial();
	test_testdev();
	test_keyboard();
}

void test_hpet(void)
{
	volatile uint32_t *hpet = at(0xfed00000u);
	uint32_t inputs = hpet[0x104 / 4], input = 0, before;

	print_number("HPET: period", hpet[1]);
	print_number("HPET: vendor", hpet[0] >> 16);
	hpet[0x10 / 4] = 0;
	hpet[0xf0 / 4] = 0;
	hpet[0xf4 / 4] = 0;
	hpet[0x10 / 4] = 1;
	before = hpet[0xf0 / 4];
	pit_wait(1193);
	check("HPET: counts", hpet[0xf0 / 4] - before >= 90000);
	hpet[0x10 / 4] = 0;
	before = hpet[0xf0 / 4];
	pit_wait(1193);
	check("HPET: stands still", hpet[0xf0 / 4] == before);
	while (!(inputs >> input & 1))
		input++;
	lapic_init();
	pic_init(0);
	handlers[0x70] = lapic_eoi;
	ioapic_route(input, 0x70, LAPIC(LAPIC_ID) >> 24);
	counts[0x70] = 0;
	hpet[0xf0 / 4] = 0;
	hpet[0x100 / 4] = input << 9 | 0x104;
	hpet[0x108 / 4] = 100000;
	hpet[0x10 / 4] = 1;
	wait_for(0x70, 1);
	check("HPET: one shot", hpet[0xf0 / 4] >= 99000);
	hpet[0x10 / 4] = 0;
	hpet[0xf0 / 4] = 0;
	hpet[0x100 / 4] = input << 9 | 0x14c;
	hpet[0x108 / 4] = 100000;
	counts[0x70] = 0;
	hpet[0x10 / 4] = 1;
	wait_for(0x70, 4);
	check("HPET: periodic", hpet[0xf0 / 4] >= 290000);
	hpet[0x10 / 4] = 0;
	hpet[0x100 / 4] = 0;
	ioapic_route(input, 0x10000, 0);
}
