/*
 * rtc.c: stories of the interrupt of the real-time clock, IRQ 8: periodic, alarm and update-ended, told by
 * register C, which holds the line until it is read.
 *
 * MC146818A: registers A to D, interrupts.
 */
#include "lib/apic.h"
#include "lib/machine.h"
#include "lib/story.h"

#define INDEX 0x70
#define DATA  0x71
#define A     0x0au
#define B     0x0bu
#define C     0x0cu
#define D     0x0du

#define IRQF 0x80u /* in register C; PF, AF and UF stand where B has their enables */
#define PIE  0x40u
#define AIE  0x20u
#define UIE  0x10u

#define MASTER 0x20
#define SLAVE  0xa0
#define BASE   0x50u /* of the master; the slave's is 8 further */
#define IRQ8   (BASE + 8)

static volatile unsigned flags;   /* of register C, as the handler read them */
static volatile bool leave_alone; /* the handler does not read it */

static unsigned rtc_read(unsigned index)
{
	machine_out8(INDEX, (uint8_t)index);
	return machine_in8(DATA);
}

static void rtc_write(unsigned index, unsigned value)
{
	machine_out8(INDEX, (uint8_t)index);
	machine_out8(DATA, (uint8_t)value);
}

static void take(struct story_frame *frame)
{
	if (frame->vector != IRQ8)
		return;
	if (!leave_alone)
		flags = rtc_read(C);
	machine_out8(SLAVE, 0x20);
	machine_out8(MASTER, 0x20);
}

static void pic_init(unsigned chip, unsigned base, unsigned cascade, unsigned masks)
{
	machine_out8((uint16_t)chip, 0x11);
	machine_out8((uint16_t)(chip + 1), (uint8_t)base);
	machine_out8((uint16_t)(chip + 1), (uint8_t)cascade);
	machine_out8((uint16_t)(chip + 1), 1);
	machine_out8((uint16_t)(chip + 1), (uint8_t)masks);
}

/* IRQ 8 alone by way of LINT0; the clock runs, with none of its interrupts on. */
static bool rtc_story(void)
{
	if (!story_apic_mode())
		return false;
	rtc_write(B, 2);
	if (!story_needs(rtc_read(B) == 2 && rtc_read(D) & 0x80, "no RTC (port 70H)"))
		return false;
	flags = 0;
	leave_alone = false;
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	story_handle(take);
	pic_init(MASTER, BASE, 4, 0xfb);
	pic_init(SLAVE, BASE + 8, 2, 0xfe);
	(void)rtc_read(C);
	return true;
}

static void rtc_over(void)
{
	rtc_write(B, 2);
	rtc_write(A, 0x26);
	(void)rtc_read(C);
}

/* Halts until IRQ 8 has come @count times. */
static void halt_until(unsigned count)
{
	while (story_count(IRQ8) < count)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* One of the three (@value: its bit in registers B and C), more than once, with the flag that tells it. */
STORY(rtc_interrupts)
{
	unsigned kind = (unsigned)GIVEN(value), times = kind == PIE ? 3 : 1;

	if (!rtc_story())
		return;
	rtc_write(A, kind == PIE ? 0x20 | (unsigned)GIVEN(divide) : 0x26);
	for (unsigned n = 1; n < 6; n += 2)
		rtc_write(n, 0xff); /* an alarm at any second, minute and hour */
	(void)rtc_read(C);
	rtc_write(B, 2 | kind);
	halt_until(times);
	story_check("flags", IRQF | kind, flags & (IRQF | kind));
	story_check("others", 0, story_total() - story_count(IRQ8));
	rtc_over();
}

/* Register C holds the line: until it is read there is no other edge. */
STORY(rtc_holds)
{
	if (!rtc_story())
		return;
	leave_alone = true;
	rtc_write(A, 0x23);
	rtc_write(B, 2 | PIE);
	halt_until(1);
	for (unsigned i = 0; i < 50; i++) {
		story_pause(1000);
		story_open();
	}
	story_check("once", 1, story_count(IRQ8));
	story_check("flags", IRQF | PIE, rtc_read(C) & (IRQF | PIE));
	halt_until(2);
	story_check("again", 2, story_count(IRQ8));
	rtc_over();
}

/* The flags are set without their enables, without IRQF and without an interrupt; reading clears them. */
STORY(rtc_flags)
{
	if (!rtc_story())
		return;
	rtc_write(A, 0x23);
	(void)rtc_read(C);
	for (unsigned i = 0; i < 50; i++) {
		story_pause(1000);
		story_open();
	}
	story_check("flag", PIE, rtc_read(C) & (IRQF | PIE));
	story_check("silent", 0, story_total());
	rtc_write(A, 0x2f); /* twice a second from now on */
	(void)rtc_read(C);
	story_check("cleared", 0, rtc_read(C) & (IRQF | PIE));
	rtc_over();
}
