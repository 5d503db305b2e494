/*
 * legacy.c: stories of the 8259As, the I/O APIC and the 8254, whose inputs lines.h drives.
 *
 * 8259A, 82093AA and 8254 data sheets; SDM 3A 11.5.1 (ExtINT), 11.8.5, 11.11.
 */
#include "interrupts/lines.h"
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/machine.h"
#include "lib/story.h"

#define MASTER          0x20u
#define SLAVE           0xa0u
#define ELCR            0x4d0u /* edge or level, a bit a line */
#define BASE            0x50u  /* of the master; the slave's is 8 further */
#define OCW2_EOI        0x20u
#define OCW2_SPECIFIC   0x60u
#define OCW2_ROTATE_EOI 0xa0u
#define OCW2_PRIORITY   0xc0u
#define OCW3_IRR        0x0au
#define OCW3_ISR        0x0bu
#define OCW3_POLL       0x0cu
#define OCW3_SPECIAL    0x68u
#define OCW3_NORMAL     0x48u

/* ---- the 8259As ---- */

/* ICW1 begins without special mask mode; where one leaves it, that is a story of its own (pic_again). */
static void pic_init(unsigned icw4)
{
	machine_out8(MASTER, OCW3_NORMAL);
	machine_out8(SLAVE, OCW3_NORMAL);
	machine_out8(MASTER, 0x11);
	machine_out8(MASTER + 1, BASE);
	machine_out8(MASTER + 1, 4);
	machine_out8(MASTER + 1, (uint8_t)icw4);
	machine_out8(SLAVE, 0x11);
	machine_out8(SLAVE + 1, BASE + 8);
	machine_out8(SLAVE + 1, 2);
	machine_out8(SLAVE + 1, (uint8_t)icw4);
	machine_out8(MASTER + 1, 0);
	machine_out8(SLAVE + 1, 0);
}

static unsigned chip_of(unsigned n) { return n < 8 ? MASTER : SLAVE; }

static unsigned pic_read(unsigned chip, unsigned ocw3)
{
	machine_out8((uint16_t)chip, (uint8_t)ocw3);
	return machine_in8((uint16_t)chip);
}

static void pic_eoi(unsigned n)
{
	if (n >= 8)
		machine_out8(SLAVE, OCW2_EOI);
	machine_out8(MASTER, OCW2_EOI);
}

static void leave_in_service(struct story_frame *frame) { (void)frame; }

/* The 8259As by way of LINT0, all lines low, all masks clear. */
static bool pic_story(unsigned icw4)
{
	if (!story_apic_mode())
		return false;
	lines_lower();
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	story_handle(leave_in_service);
	machine_out8(ELCR, 0);
	machine_out8(ELCR + 1, 0);
	pic_init(icw4);
	/* What other devices may ask for is not part of the story. */
	machine_out8(MASTER + 1, 0xfb);
	machine_out8(SLAVE + 1, 0xff);
	return true;
}

static void unmask(unsigned n)
{
	uint16_t port = (uint16_t)(chip_of(n) + 1);

	machine_out8(port, (uint8_t)(machine_in8(port) & ~(1u << (n & 7))));
}

static void mask(unsigned n)
{
	uint16_t port = (uint16_t)(chip_of(n) + 1);

	machine_out8(port, (uint8_t)(machine_in8(port) | 1u << (n & 7)));
}

/* An edge: requested, in service, ended; a line that stays high asks once. */
STORY(pic_line)
{
	unsigned n = (unsigned)GIVEN(input), bit = 1u << (n & 7);

	if (!lines_can_drive(n) || !pic_story(1))
		return;
	unmask(n);
	lines_set(n, true);
	story_check("irr", bit, pic_read(chip_of(n), OCW3_IRR) & bit);
	story_check("isr_before", 0, pic_read(chip_of(n), OCW3_ISR));
	story_open();
	story_check("delivered", 1, story_count(BASE + n));
	story_check("isr", bit, pic_read(chip_of(n), OCW3_ISR));
	story_check("irr_in_service", 0, pic_read(chip_of(n), OCW3_IRR) & bit);
	if (n >= 8)
		story_check("cascade_isr", 4, pic_read(MASTER, OCW3_ISR));
	pic_eoi(n);
	story_check("ended", 0, pic_read(chip_of(n), OCW3_ISR) | pic_read(MASTER, OCW3_ISR));
	lines_set(n, true); /* it is high already */
	story_open();
	story_check("once", 1, story_total());
	lines_set(n, false);
	lines_set(n, true);
	story_open();
	story_check("again", 2, story_count(BASE + n));
	lines_set(n, false);
	story_check("apic_isr", 0, apic_bit(APIC_ISR, BASE + n));
}

STORY(pic_masked)
{
	unsigned n = (unsigned)GIVEN(input), bit = 1u << (n & 7);

	if (!lines_can_drive(n) || !pic_story(1))
		return;
	lines_set(n, true);
	story_open();
	story_check("held", 0, story_total());
	story_check("irr", bit, pic_read(chip_of(n), OCW3_IRR) & bit);
	unmask(n);
	story_open();
	story_check("delivered", 1, story_count(BASE + n));
	mask(n);
	story_check("imr", bit, machine_in8((uint16_t)(chip_of(n) + 1)) & bit);
	lines_set(n, false);
}

/* In fully nested mode a request comes through only above what is in service; the slave counts as line 2. */
STORY(pic_nesting)
{
	unsigned a = (unsigned)GIVEN(input), b = (unsigned)GIVEN(other);
	unsigned level_a = a < 8 ? a : 2, level_b = b < 8 ? b : 2;
	bool nests = level_b < level_a;

	if (!lines_can_drive(a) || !lines_can_drive(b) || !pic_story(1))
		return;
	unmask(a);
	unmask(b);
	lines_set(a, true);
	story_open();
	story_check("first", BASE + a, story_order(0));
	lines_set(b, true);
	story_open();
	story_check("nested", nests, story_count(BASE + b));
	pic_eoi(nests ? b : a);
	story_open();
	story_check("second", 1, story_count(BASE + b));
	story_check("in_all", 2, story_total());
	lines_set(a, false);
	lines_set(b, false);
}

/* All lines of the master but the cascade that can be driven, as bits. */
static unsigned master_lines(void)
{
	unsigned bits = 0;

	for (unsigned n = 0; n < 8; n++)
		bits |= n != 2 && lines_has(n) ? 1u << n : 0;
	return bits;
}

/* Of several requests at once the highest comes first; OCW2 names the lowest (@index). */
STORY(pic_rotation)
{
	unsigned bottom = (unsigned)GIVEN(index), expected = 0, first, lines = master_lines();

	if ((GIVEN(mode) && !lines_can_drive(bottom)) || !lines_can_drive(4) || !pic_story(1))
		return;
	if (GIVEN(mode)) { /* by the EOI of that line */
		unmask(bottom);
		lines_set(bottom, true);
		story_open();
		machine_out8(MASTER, OCW2_ROTATE_EOI);
		lines_set(bottom, false);
		first = story_total();
	} else {
		machine_out8(MASTER, (uint8_t)(OCW2_PRIORITY | bottom));
		first = 0;
	}
	for (unsigned n = 0; n < 8; n++) {
		if (lines >> n & 1) {
			unmask(n);
			lines_set(n, true);
		}
	}
	for (unsigned i = 0; i < 8; i++) {
		unsigned n = (bottom + 1 + i) & 7;

		if (!(lines >> n & 1))
			continue;
		story_open();
		story_check_at("came", expected, BASE + n, story_order(first + expected));
		machine_out8(MASTER, (uint8_t)(OCW2_SPECIFIC | n));
		expected++;
	}
	lines_lower();
	story_check("in_all", first + expected, story_total());
}

STORY(pic_automatic_eoi)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!lines_can_drive(n) || !pic_story(3))
		return;
	unmask(n);
	lines_set(n, true);
	story_open();
	story_check("delivered", 1, story_count(BASE + n));
	story_check("isr", 0, pic_read(chip_of(n), OCW3_ISR));
	lines_set(n, false);
	lines_set(n, true);
	story_open();
	story_check("again", 2, story_count(BASE + n));
	lines_set(n, false);
}

/* In special mask mode what is in service and masked holds back nothing. */
STORY(pic_special_mask)
{
	unsigned a = (unsigned)GIVEN(input), b = (unsigned)GIVEN(other);

	if (!lines_can_drive(a) || !lines_can_drive(b) || !pic_story(1))
		return;
	unmask(a);
	unmask(b);
	lines_set(a, true);
	story_open();
	lines_set(b, true);
	story_open();
	story_check("held", 0, story_count(BASE + b));
	machine_out8(MASTER, OCW3_SPECIAL);
	mask(a);
	story_open();
	story_check("let_through", 1, story_count(BASE + b));
	lines_set(a, false);
	lines_set(b, false);
}

/* The poll word: the line, and that it is in service from then on. */
STORY(pic_poll)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!lines_can_drive(n) || !pic_story(1))
		return;
	unmask(n);
	story_check("nothing", 0, pic_read(MASTER, OCW3_POLL) & 0x80);
	lines_set(n, true);
	story_check("line", 0x80 | n, pic_read(MASTER, OCW3_POLL));
	story_check("isr", 1u << n, pic_read(MASTER, OCW3_ISR));
	lines_set(n, false);
	story_open();
	story_check("silent", 0, story_total());
}

/*
 * A request that goes before it is acknowledged: none, as INT goes with it, or, where the processor has seen
 * it, line 7 of its chip, with nothing in service. Never the line itself.
 */
STORY(pic_spurious)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!lines_can_drive(n) || !pic_story(1))
		return;
	unmask(n);
	lines_set(n, true);
	lines_set(n, false);
	story_open();
	story_check("isr", 0, pic_read(chip_of(n), OCW3_ISR));
	story_check("itself", 0, (n & 7) != 7 && story_count(BASE + n));
	if (!story_total())
		return;
	story_check("vector", BASE + (n < 8 ? 7 : 15), story_order(0));
	if (n >= 8)
		story_check("cascade_isr", 4, pic_read(MASTER, OCW3_ISR));
}

/* In special fully nested mode the master lets a higher line of the same slave through. */
STORY(pic_special_nested)
{
	unsigned a = (unsigned)GIVEN(input), b = (unsigned)GIVEN(other);

	if (!lines_can_drive(a) || !lines_can_drive(b) || !pic_story(0x11))
		return;
	unmask(a);
	unmask(b);
	lines_set(a, true);
	story_open();
	lines_set(b, true);
	story_open();
	story_check("nested", b < a, story_count(BASE + b));
	lines_set(a, false);
	lines_set(b, false);
}

/* Between ICW1 and the last word there is no request. */
STORY(pic_initializing)
{
	unsigned words = (unsigned)GIVEN(count);
	static const uint8_t icw[] = {BASE, 4, 1};

	if (!lines_can_drive(4) || !pic_story(1))
		return;
	machine_out8(MASTER, 0x11);
	for (unsigned i = 0; i < words; i++)
		machine_out8(MASTER + 1, icw[i]);
	lines_set(4, true);
	story_open();
	story_check("silent", 0, story_total());
	lines_set(4, false);
	for (unsigned i = words; i < 3; i++)
		machine_out8(MASTER + 1, icw[i]);
	machine_out8(MASTER + 1, 0xef);
	lines_set(4, true);
	story_open();
	story_check("then", 1, story_count(BASE + 4));
	lines_set(4, false);
}

/* ICW1 ends special mask mode (mode 0), the order that OCW2 has set (1), and makes IRR what is read (2). */
STORY(pic_again)
{
	if (!lines_can_drive(3) || !lines_can_drive(4) || !pic_story(1))
		return;
	machine_out8(MASTER, GIVEN(mode) == 0   ? OCW3_SPECIAL
			     : GIVEN(mode) == 1 ? OCW2_PRIORITY | 3
						: OCW3_ISR);
	machine_out8(MASTER, 0x11);
	machine_out8(MASTER + 1, BASE);
	machine_out8(MASTER + 1, 4);
	machine_out8(MASTER + 1, 1);
	machine_out8(MASTER + 1, 0xe7);
	if (GIVEN(mode) == 2) {
		lines_set(3, true);
		story_check("irr", 8, machine_in8(MASTER) & 8);
	} else {
		lines_set(3, true);
		story_open();
		lines_set(4, true);
		if (GIVEN(mode) == 0)
			mask(3); /* which is in service, and would hold back nothing */
		story_open();
		story_check("held", 0, story_count(BASE + 4));
	}
	lines_set(3, false);
	lines_set(4, false);
	machine_out8(MASTER, OCW3_NORMAL);
}

/* A level-triggered line asks again as long as it is high; lowered, not even once more. */
STORY(pic_level)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!lines_can_drive(n) || !pic_story(1))
		return;
	machine_out8((uint16_t)(ELCR + n / 8), (uint8_t)(1u << (n & 7)));
	unmask(n);
	lines_set(n, true);
	story_open();
	story_check("delivered", 1, story_count(BASE + n));
	pic_eoi(n);
	story_open();
	story_check("again", 2, story_count(BASE + n));
	lines_set(n, false);
	pic_eoi(n);
	story_open();
	story_check("no_more", 2, story_total());
	story_check("irr", 0, pic_read(chip_of(n), OCW3_IRR) & 1u << (n & 7));
	machine_out8((uint16_t)(ELCR + n / 8), 0);
}

/* ICW2 gives the upper five bits of the vector; ICW1 clears masks and service. */
STORY(pic_vectors)
{
	unsigned base = (unsigned)GIVEN(vector);

	if (!lines_can_drive(3) || !lines_can_drive(4) || !pic_story(1))
		return;
	unmask(3);
	lines_set(3, true);
	story_open();
	lines_set(3, false);
	machine_out8(MASTER, 0x11);
	machine_out8(MASTER + 1, (uint8_t)base);
	machine_out8(MASTER + 1, 4);
	machine_out8(MASTER + 1, 1);
	story_check("imr", 0, machine_in8(MASTER + 1));
	story_check("isr", 0, pic_read(MASTER, OCW3_ISR));
	machine_out8(MASTER + 1, 0xef);
	lines_set(4, true);
	story_open();
	story_check("vector", base | 4, story_order(1));
	lines_set(4, false);
}

/* ---- the I/O APIC ---- */

#define IOAPIC_PAGE  0xfec00000u
#define ENTRY_LEVEL  (1u << 15)
#define ENTRY_REMOTE (1u << 14)
#define ENTRY_LOW    (1u << 13)

static uint32_t ioapic_read(unsigned index)
{
	*(volatile uint32_t *)(uintptr_t)IOAPIC_PAGE = index;
	return *(volatile uint32_t *)(uintptr_t)(IOAPIC_PAGE + 0x10);
}

static void ioapic_write(unsigned index, uint32_t value)
{
	*(volatile uint32_t *)(uintptr_t)IOAPIC_PAGE = index;
	*(volatile uint32_t *)(uintptr_t)(IOAPIC_PAGE + 0x10) = value;
}

static uint32_t entry_low(unsigned n) { return ioapic_read(0x10 + 2 * n); }

static void entry_set(unsigned n, uint32_t low, uint32_t destination)
{
	ioapic_write(0x10 + 2 * n, LVT_MASKED);
	ioapic_write(0x11 + 2 * n, destination << 24);
	ioapic_write(0x10 + 2 * n, low);
}

static bool ioapic_story(void)
{
	if (!story_apic_mode() || !lines_can_drive((unsigned)GIVEN(input)) ||
	    !story_needs(ioapic_read(1) != 0xffffffff && (ioapic_read(1) & 0xff) >= 0x11,
			 "no I/O APIC at fec00000H"))
		return false;
	lines_lower();
	for (unsigned n = 0; n < 24; n++) {
		ioapic_write(0x10 + 2 * n, LVT_MASKED);
	}
	return true;
}

STORY(ioapic_edge)
{
	unsigned n = (unsigned)GIVEN(input), vector = (unsigned)GIVEN(vector);

	if (!ioapic_story())
		return;
	entry_set(n, vector, apic_id());
	lines_set(n, true);
	story_check("irr", 1, apic_bit(APIC_IRR, vector));
	story_check("tmr", 0, apic_bit(APIC_TMR, vector));
	story_check("remote_irr", 0, entry_low(n) & ENTRY_REMOTE);
	story_open();
	story_check("once", 1, story_count(vector));
	lines_set(n, false);
	story_open();
	story_check("not_falling", 1, story_count(vector));
	lines_set(n, true);
	story_open();
	story_check("again", 2, story_count(vector));
	lines_set(n, false);
	entry_set(n, LVT_MASKED | vector, apic_id());
	lines_set(n, true);
	story_open();
	story_check("masked", 2, story_count(vector));
	ioapic_write(0x10 + 2 * n, vector);
	story_open();
	story_check("lost", 2, story_count(vector));
	lines_set(n, false);
}

/* A level is sent once until its EOI, and again if it is still there. */
STORY(ioapic_level)
{
	unsigned n = (unsigned)GIVEN(input), vector = (unsigned)GIVEN(vector);

	if (!ioapic_story())
		return;
	story_handle(leave_in_service);
	entry_set(n, ENTRY_LEVEL | vector, apic_id());
	lines_set(n, true);
	story_check("remote_irr", ENTRY_REMOTE, entry_low(n) & ENTRY_REMOTE);
	story_open();
	story_check("delivered", 1, story_count(vector));
	story_check("tmr", 1, apic_bit(APIC_TMR, vector));
	lines_set(n, false);
	lines_set(n, true);
	story_check("not_sent_again", 0, apic_bit(APIC_IRR, vector));
	story_open();
	story_check("once", 1, story_count(vector));
	apic_write(APIC_EOI, 0);
	story_check("sent_again", 1, apic_bit(APIC_IRR, vector));
	story_open();
	story_check("again", 2, story_count(vector));
	lines_set(n, false);
	apic_write(APIC_EOI, 0);
	story_check("remote_irr_after", 0, entry_low(n) & ENTRY_REMOTE);
	story_open();
	story_check("no_more", 2, story_count(vector));
	/* Masked it waits, and comes when it is unmasked. */
	entry_set(n, LVT_MASKED | ENTRY_LEVEL | vector, apic_id());
	lines_set(n, true);
	story_open();
	story_check("masked", 2, story_count(vector));
	entry_set(n, ENTRY_LEVEL | vector, apic_id());
	story_open();
	story_check("unmasked", 3, story_count(vector));
	lines_set(n, false);
	apic_write(APIC_EOI, 0);
}

/* Two levels, one in service above the other: an EOI ends its own vector alone. */
STORY(ioapic_two_levels)
{
	unsigned n = (unsigned)GIVEN(input), other = (unsigned)GIVEN(other);

	if (!ioapic_story() || !lines_can_drive(other))
		return;
	story_handle(leave_in_service);
	entry_set(n, ENTRY_LEVEL | 0x48, apic_id());
	entry_set(other, ENTRY_LEVEL | 0x68, apic_id());
	lines_set(n, true);
	story_open();
	lines_set(other, true);
	story_open();
	lines_set(n, false);
	lines_set(other, false);
	story_check("nested", 0x68, story_order(1));
	apic_write(APIC_EOI, 0);
	story_check("other_ended", 0, entry_low(other) & ENTRY_REMOTE);
	story_check("still_remote", ENTRY_REMOTE, entry_low(n) & ENTRY_REMOTE);
	apic_write(APIC_EOI, 0);
	story_check("ended", 0, entry_low(n) & ENTRY_REMOTE);
}

/* The EOI of an edge is not told to the I/O APIC, though it has a level with that vector for another. */
STORY(ioapic_edge_eoi)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!ioapic_story() || !cpus_needs(2))
		return;
	entry_set(n, ENTRY_LEVEL | 0x6a, cpus_apic_id(1));
	lines_set(n, true);
	lines_set(n, false);
	story_check("remote_irr", ENTRY_REMOTE, entry_low(n) & ENTRY_REMOTE);
	apic_send(0, ICR_SELF | ICR_ASSERT | 0x6a);
	story_open();
	story_check("delivered", 1, story_count(0x6a));
	story_check("still_remote", ENTRY_REMOTE, entry_low(n) & ENTRY_REMOTE);
}

static void set_priority(void *argument)
{
	apic_write(APIC_LDR, 1u << (24 + cpus_current()));
	apic_write(APIC_TPR, (uint32_t)(uintptr_t)argument);
}

static volatile unsigned taken[CPUS_MAX];
static volatile bool over;

static void note_taken(struct story_frame *frame)
{
	if (frame->vector == 0x98)
		taken[cpus_current()]++;
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

static void take(void *argument)
{
	(void)argument;
	while (!over)
		__asm__ volatile("sti; nop; nop; cli; pause" : : : "memory");
}

/* Lowest priority: of those that are meant the one with the lowest task priority. */
STORY(ioapic_lowest)
{
	unsigned n = (unsigned)GIVEN(input), lowest = (unsigned)GIVEN(to);

	if (!ioapic_story() || !cpus_needs(4))
		return;
	over = false;
	apic_write(APIC_LDR, 1u << 24);
	for (unsigned i = 0; i < 4; i++)
		taken[i] = 0;
	for (unsigned i = 1; i < 4; i++) {
		cpus_tell(i, set_priority, (void *)(uintptr_t)(i == lowest ? 0x10 : 0x50 + 0x10 * i));
		story_check_at("set", i, 1, cpus_wait(i));
	}
	story_handle(note_taken);
	for (unsigned i = 1; i < 4; i++)
		cpus_tell(i, take, NULL);
	entry_set(n, ICR_LOWEST | ICR_LOGICAL | 0x98, 0x0e);
	lines_set(n, true);
	for (unsigned i = 0; i < 100 && !(taken[1] | taken[2] | taken[3]); i++)
		story_pause(2000);
	over = true;
	for (unsigned i = 1; i < 4; i++) {
		story_check_at("back", i, 1, cpus_wait(i));
		story_check_at("taken", i, i == lowest, taken[i]);
	}
	lines_set(n, false);
}

/* Without the broadcast of EOIs (SVR bit 12) the level stays pending there until it is told. */
STORY(ioapic_eoi_suppressed)
{
	unsigned n = (unsigned)GIVEN(input), vector = 0x66;

	if (!ioapic_story() || !story_needs(apic_read(APIC_VERSION) >> 24 & 1,
					    "no suppression of EOI broadcasts (version bit 24)"))
		return;
	story_handle(leave_in_service);
	apic_write(APIC_SVR, SVR_ENABLE | 1 << 12 | 0xff);
	entry_set(n, ENTRY_LEVEL | vector, apic_id());
	lines_set(n, true);
	story_open();
	lines_set(n, false);
	apic_write(APIC_EOI, 0);
	story_check("delivered", 1, story_count(vector));
	story_check("still_remote", ENTRY_REMOTE, entry_low(n) & ENTRY_REMOTE);
	if ((ioapic_read(1) & 0xff) >= 0x20) {
		*(volatile uint32_t *)(uintptr_t)(IOAPIC_PAGE + 0x40) = vector;
		story_check("told", 0, entry_low(n) & ENTRY_REMOTE);
	}
	apic_enable(0xff);
}

/* To whom: logical and physical destinations, and delivery modes. */
STORY(ioapic_delivery)
{
	unsigned n = (unsigned)GIVEN(input), mode = (unsigned)GIVEN(mode);
	bool meant = !GIVEN(other);
	uint32_t destination = meant ? apic_id() : 0x77;

	if (!ioapic_story())
		return;
	if (GIVEN(value)) {
		apic_write(APIC_LDR, 4u << 24);
		destination = meant ? 0x0c : 0x08;
	}
	entry_set(n, mode << 8 | (GIVEN(value) ? ICR_LOGICAL : 0) | 0x67, destination);
	lines_set(n, true);
	story_pause(100);
	story_open();
	lines_set(n, false);
	story_check("vector", meant && mode < 2, story_count(0x67));
	story_check("nmi", meant && mode == 4, story_count(2));
}

/* What an entry keeps: bits 12 and 14 are the chip's. */
STORY(ioapic_entry)
{
	unsigned n = (unsigned)GIVEN(input);

	if (!ioapic_story())
		return;
	ioapic_write(0x10 + 2 * n, 0x1afff);
	ioapic_write(0x11 + 2 * n, 0xff000000);
	story_check("low", 0x1afff, entry_low(n) & ~(1u << 12));
	story_check("high", 0xff000000, ioapic_read(0x11 + 2 * n) & 0xff000000);
	ioapic_write(0x10 + 2 * n, LVT_MASKED | 0x5000);
	story_check("read_only", LVT_MASKED, entry_low(n));
	story_check("inputs", 23, ioapic_read(1) >> 16 & 0xff);
}

/* ---- the 8254 ---- */

static bool out2(void) { return machine_in8(0x61) >> 5 & 1; }
static void gate2(bool level) { machine_out8(0x61, (uint8_t)((machine_in8(0x61) & 0xfc) | level)); }

static bool wait_out2(bool level)
{
	for (unsigned i = 0; i < 200000; i++)
		if (out2() == level)
			return true;
	return false;
}

static bool has_pit(void)
{
	machine_out8(0x43, 0xb0);
	machine_out8(0x43, 0xe8); /* read back the status of counter 2 */
	return story_needs((machine_in8(0x42) & 0x3f) == 0x30, "no 8254 at 40H");
}

/* OUT of counter 2 in every mode: where it begins, what the gate does, where it comes to. */
STORY(pit_mode)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!has_pit())
		return;
	gate2(mode != 1 && mode != 5);
	machine_out8(0x43, (uint8_t)(0xb0 | mode << 1));
	story_check("begins", mode != 0, out2());
	machine_out8(0x43, 0xe8);
	story_check("status", 0x30 | mode << 1, machine_in8(0x42) & 0x3f);
	machine_out8(0x42, 0x00);
	machine_out8(0x42, 0x02); /* 512 pulses */
	switch (mode) {
	case 0:
		story_check("low", 0, out2());
		gate2(false);
		story_check("rises_with_gate", 1, (gate2(true), wait_out2(true)));
		story_pause(1000);
		story_check("stays", 1, out2());
		break;
	case 1:
		story_check("waits", 1, out2());
		gate2(true);
		story_check("falls", 1, wait_out2(false));
		story_check("rises", 1, wait_out2(true));
		story_pause(1000);
		story_check("stays", 1, out2());
		break;
	case 3:
		for (unsigned i = 0; i < 4; i++)
			story_check_at("toggles", i, 1, wait_out2(i & 1));
		gate2(false);
		story_check("gate_sets", 1, out2());
		break;
	default: /* short strobes and pulses: OUT is high but for one pulse */
		story_check("high", 1, wait_out2(true));
		break;
	}
}

/* A latched count stays until it is read; a status with it comes first. */
STORY(pit_latch)
{
	unsigned first, second_;

	if (!has_pit())
		return;
	gate2(true);
	machine_out8(0x43, 0xb0);
	machine_out8(0x42, 0xff);
	machine_out8(0x42, 0xff);
	story_pause(2000); /* the count is loaded with the next pulse */
	machine_out8(0x43, 0x80);
	story_pause(2000);
	machine_out8(0x43, 0x80); /* ignored: it is latched */
	first = machine_in8(0x42);
	first |= (unsigned)machine_in8(0x42) << 8;
	machine_out8(0x43, 0xc8); /* count and status */
	story_pause(2000);
	story_check("status", 0x30, machine_in8(0x42) & 0x3f);
	second_ = machine_in8(0x42);
	second_ |= (unsigned)machine_in8(0x42) << 8;
	story_check("counts_down", 1, second_ < first);
	/* BCD counts stay decimal. */
	machine_out8(0x43, 0xb1);
	machine_out8(0x42, 0x00);
	machine_out8(0x42, 0x10);
	for (unsigned i = 0; i < 20; i++) {
		unsigned count;

		machine_out8(0x43, 0x80);
		count = machine_in8(0x42);
		count |= (unsigned)machine_in8(0x42) << 8;
		story_check_at("decimal", i, 1,
			       (count & 15) < 10 && (count >> 4 & 15) < 10 && (count >> 8 & 15) < 10);
	}
}

/* Counter 0 is IRQ 0: once in mode 0, again and again in modes 2 and 3. */
STORY(pit_irq0)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!has_pit() || !story_apic_mode())
		return;
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	story_handle(leave_in_service);
	pic_init(3);
	machine_out8(MASTER + 1, 0xfe);
	machine_out8(SLAVE + 1, 0xff);
	machine_out8(0x43, (uint8_t)(0x30 | mode << 1));
	machine_out8(0x40, 0x00);
	machine_out8(0x40, 0x02);
	story_check("fires", 1, story_wait(BASE, mode ? 3 : 1));
	if (!mode) {
		story_pause(3000);
		story_open();
		story_check("once", 1, story_count(BASE));
	}
	machine_out8(0x43, 0x30);
	machine_out8(MASTER + 1, 0xff);
}
