/* interrupts.c: the IDT, both kinds of interrupt controllers, and their tests. */
#include "pc.h"

volatile unsigned counts[256];
void (*handlers[256])(void);

extern uint8_t stubs[], idt[], idtr[];

void pc_interrupt(unsigned long vector);
void pc_interrupt(unsigned long vector)
{
	if (vector < 32 && vector != 2) {
		print_number("exception", (uint32_t)vector);
		leave(0x7f);
	}
	if (handlers[vector])
		handlers[vector]();
	counts[vector]++;
}

void interrupts_init(void)
{
	for (unsigned i = 0; i < 256; i++) {
		uintptr_t stub = (uintptr_t)stubs + 16 * i;
#ifdef __x86_64__
		uint32_t *gate = (uint32_t *)(idt + 16 * i);

		gate[0] = 24u << 16 | (uint32_t)(stub & 0xffff);
		gate[2] = (uint32_t)(stub >> 32);
#else
		uint32_t *gate = (uint32_t *)(idt + 8 * i);

		gate[0] = 8u << 16 | (uint32_t)(stub & 0xffff);
#endif
		gate[1] = ((uint32_t)stub & 0xffff0000u) | 0x8e00;
	}
	__asm__ volatile("lidt %0" ::"m"(*(const uint16_t *)idtr));
	pic_init(0);
}

/* STI and HLT are one here: nothing comes between them. */
void wait_for(unsigned vector, unsigned count)
{
	__asm__ volatile("cli");
	while (counts[vector] < count)
		__asm__ volatile("sti\nhlt\ncli" ::: "memory");
}

void settle(void)
{
	__asm__ volatile("sti" ::: "memory");
	for (unsigned i = 0; i < 1000; i++)
		inb(0x80);
	__asm__ volatile("cli" ::: "memory");
}

/* ---- 8259A ---- */

void pic_init(unsigned unmasked)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 0x04);
	outb(0x21, 0x01);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 0x02);
	outb(0xa1, 0x01);
	outb(0x21, ~(unmasked | (unmasked >> 8 ? 4 : 0)) & 0xff);
	outb(0xa1, ~(unmasked >> 8) & 0xff);
}

void pic_eoi(unsigned line)
{
	if (line >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static unsigned in_service;

static void timer_tick(void)
{
	outb(0x20, 0x0b);
	in_service = inb(0x20);
	pic_eoi(0);
}

static void rtc_tick(void)
{
	outb(0x70, 0x0c);
	inb(0x71);
	pic_eoi(8);
}

static void pit_rate(unsigned divisor)
{
	outb(0x43, 0x34);
	outb(0x40, divisor & 0xff);
	outb(0x40, divisor >> 8);
}

/* The 8259As reach this processor through its LINT0. */
static void wire_pic(void)
{
	LAPIC(LAPIC_SVR) = 0x1ff;
	LAPIC(LAPIC_LINT0) = 0x700;
}

void test_pic(void)
{
	wire_pic();
	handlers[0x20] = timer_tick;
	pit_rate(11932); /* 100 Hz */
	pic_init(1);
	counts[0x20] = 0;
	wait_for(0x20, 3);
	check("PIC: PIT ticks", true);
	check("PIC: in service", in_service == 1);
	/* A masked line is pending, and comes when it is opened. */
	outb(0x21, 0xff);
	counts[0x20] = 0;
	outb(0x20, 0x0a);
	while (!(inb(0x20) & 1))
		;
	settle();
	check("PIC: masked", counts[0x20] == 0);
	outb(0x21, 0xfe);
	settle();
	check("PIC: opened", counts[0x20] >= 1);
	/* The slave, by the test device's line 14. */
	pic_init(1 << 14);
	counts[0x2e] = 0;
	outb(0x200e, 1);
	settle();
	check("PIC: slave", counts[0x2e] == 1);
	outb(0xa0, 0x0b);
	check("PIC: slave in service", inb(0xa0) == 0x40);
	outb(0x20, 0x0b);
	check("PIC: cascade in service", inb(0x20) == 0x04);
	pic_eoi(14);
	outb(0x200e, 0);
	settle();
	check("PIC: one edge", counts[0x2e] == 1);
	pic_init(0);
}

void test_rtc(void)
{
	wire_pic();
	handlers[0x28] = rtc_tick;
	pic_init(1 << 8);
	outb(0x70, 0x0c);
	inb(0x71);
	counts[0x28] = 0;
	outb(0x70, 0x0b);
	outb(0x71, 0x42);
	wait_for(0x28, 5);
	check("RTC: periodic interrupts", true);
	outb(0x70, 0x0b);
	outb(0x71, 0x12);
	counts[0x28] = 0;
	wait_for(0x28, 1);
	outb(0x70, 0x0a);
	check("RTC: no update right behind one", !(inb(0x71) & 0x80));
	/* An alarm at any time: within a second. */
	for (unsigned i = 1; i <= 5; i += 2) {
		outb(0x70, i);
		outb(0x71, 0xff);
	}
	outb(0x70, 0x0b);
	outb(0x71, 0x22);
	counts[0x28] = 0;
	wait_for(0x28, 1);
	check("RTC: alarm", true);
	outb(0x70, 0x0b);
	outb(0x71, 0x02);
	outb(0x70, 0x0d);
	check("RTC: battery", inb(0x71) == 0x80);
	outb(0x70, 0x0f);
	outb(0x71, 0x5a);
	outb(0x70, 0x0f);
	check("RTC: CMOS byte", inb(0x71) == 0x5a);
	outb(0x71, 0);
	outb(0x70, 0x5f);
	print_number("RTC: CPUs but one", inb(0x71));
	outb(0x70, 0x15);
	print_number("RTC: base memory, low byte", inb(0x71));
	pic_init(0);
}

/* ---- local APIC ---- */

void lapic_init(void)
{
	LAPIC(LAPIC_SVR) = 0x1ff;
	LAPIC(LAPIC_TPR) = 0;
	LAPIC(LAPIC_LINT0) = 0x10000;
}

void lapic_eoi(void) { LAPIC(LAPIC_EOI) = 0; }

static bool irr(unsigned vector) { return LAPIC(LAPIC_IRR + vector / 32 * 16) >> (vector % 32) & 1; }
static bool isr(unsigned vector) { return LAPIC(LAPIC_ISR + vector / 32 * 16) >> (vector % 32) & 1; }

static bool seen_isr;
static void ipi_arrives(void)
{
	seen_isr = isr(0x51);
	lapic_eoi();
}

void test_lapic(void)
{
	uint32_t left;

	lapic_init();
	handlers[0x50] = lapic_eoi;
	handlers[0x51] = ipi_arrives;
	check("LAPIC: SVR", LAPIC(LAPIC_SVR) == 0x1ff);
	/* Self-IPI, held by the task priority. */
	LAPIC(LAPIC_TPR) = 0x50;
	counts[0x51] = 0;
	LAPIC(LAPIC_ICR) = 0x40051;
	settle();
	check("LAPIC: held by TPR", counts[0x51] == 0 && irr(0x51));
	LAPIC(LAPIC_TPR) = 0x40;
	settle();
	check("LAPIC: TPR lowered", counts[0x51] == 1 && !irr(0x51));
	check("LAPIC: in service in the handler", seen_isr && !isr(0x51));
	LAPIC(LAPIC_TPR) = 0;
	/* The timer: once, then periodically. */
	LAPIC(LAPIC_DIVIDE) = 0x3;
	LAPIC(LAPIC_TIMER) = 0x50;
	counts[0x50] = 0;
	LAPIC(LAPIC_INITIAL) = 10000;
	wait_for(0x50, 1);
	check("LAPIC: one shot", LAPIC(LAPIC_CURRENT) == 0);
	LAPIC(LAPIC_TIMER) = 0x20050;
	LAPIC(LAPIC_INITIAL) = 100000;
	wait_for(0x50, 4);
	check("LAPIC: periodic", true);
	LAPIC(LAPIC_TIMER) = 0x30050;
	LAPIC(LAPIC_INITIAL) = 0xffffffff;
	left = LAPIC(LAPIC_CURRENT);
	settle();
	check("LAPIC: counts down", LAPIC(LAPIC_CURRENT) < left);
	LAPIC(LAPIC_INITIAL) = 0;
	check("LAPIC: stopped", LAPIC(LAPIC_CURRENT) == 0);
	LAPIC(LAPIC_TIMER) = 0x10000;
}

/* ---- I/O APIC ---- */

uint32_t ioapic_read(unsigned index)
{
	MMIO(uint32_t, 0xfec00000u) = index;
	return MMIO(uint32_t, 0xfec00010u);
}

void ioapic_write(unsigned index, uint32_t value)
{
	MMIO(uint32_t, 0xfec00000u) = index;
	MMIO(uint32_t, 0xfec00010u) = value;
}

void ioapic_route(unsigned input, uint32_t low, unsigned destination)
{
	ioapic_write(0x10 + 2 * input, 0x10000);
	ioapic_write(0x11 + 2 * input, destination << 24);
	ioapic_write(0x10 + 2 * input, low);
}

static unsigned remote_irr_seen, level_left;

/* Lowers the line after as many interrupts as it was told. */
static void level_arrives(void)
{
	remote_irr_seen = ioapic_read(0x10 + 2 * 14) >> 14 & 1;
	if (--level_left == 0)
		outb(0x200e, 0);
	lapic_eoi();
}

void test_ioapic(void)
{
	unsigned self = LAPIC(LAPIC_ID) >> 24;

	lapic_init();
	pic_init(0);
	handlers[0x60] = handlers[0x61] = lapic_eoi;
	handlers[0x62] = level_arrives;
	print_number("IOAPIC: highest input", ioapic_read(1) >> 16 & 0xff);
	/* The PIT comes on input 2. */
	counts[0x60] = 0;
	pit_rate(11932);
	ioapic_route(2, 0x60, self);
	wait_for(0x60, 2);
	check("IOAPIC: PIT", true);
	ioapic_route(2, 0x10060, self);
	/* Edges, and one while masked, which is lost. */
	counts[0x61] = 0;
	ioapic_route(15, 0x61, self);
	outb(0x200f, 1);
	settle();
	outb(0x200f, 0);
	settle();
	check("IOAPIC: edge", counts[0x61] == 1);
	outb(0x200f, 1);
	outb(0x200f, 0);
	settle();
	check("IOAPIC: second edge", counts[0x61] == 2);
	/* Level: again and again until the line falls. */
	counts[0x62] = 0;
	level_left = 3;
	ioapic_route(14, 0x8062, self);
	outb(0x200e, 1);
	settle();
	check("IOAPIC: level", counts[0x62] == 3);
	check("IOAPIC: remote IRR", remote_irr_seen == 1 && !(ioapic_read(0x10 + 28) >> 14 & 1));
	/* Logical destination. */
	MMIO(uint32_t, 0xfee000d0) = 0x01000000;
	MMIO(uint32_t, 0xfee000e0) = 0xffffffff;
	counts[0x61] = 0;
	ioapic_route(15, 0x0861, 0x01);
	outb(0x200f, 1);
	outb(0x200f, 0);
	settle();
	check("IOAPIC: logical", counts[0x61] == 1);
	ioapic_route(15, 0x0861, 0x02);
	outb(0x200f, 1);
	outb(0x200f, 0);
	settle();
	check("IOAPIC: logical, not ours", counts[0x61] == 1);
	ioapic_route(14, 0x10000, 0);
	ioapic_route(15, 0x10000, 0);
}
