/*
 * events.c: interrupts in every state that they can be in: requested, in service, held back, blocked, half acknowledged; and
 * processors that wait.
 *
 * SDM 3A 6.7, 6.8, 9.4, chapter 11; 8259A, 82093AA; APM 2 8.1.4, chapter 16.
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "migration/board.h"
#include "migration/migration.h"
#include "x86/msr.h"

#define LONG_WHILE 100000u

void apic_send_nmi(void);

static void leave(struct story_frame *frame) { (void)frame; }

/* ---- the local APIC ---- */

/* Many requested at once, and delivered in their order; those in service hold back what is below. */
STORY(requests_kept)
{
	static const uint8_t vectors[] = {0x31, 0x45, 0x46, 0x7f, 0x80, 0xc1, 0xfe};
	unsigned count = sizeof(vectors);

	if (!story_apic_mode())
		return;
	for (unsigned i = 0; i < count; i++) {
		apic_send(apic_id(), ICR_FIXED | ICR_ASSERT | vectors[i]);
		hold();
	}
	for (unsigned i = 0; i < count; i++)
		story_check_at("requested", i, 1, apic_bit(APIC_IRR, vectors[i]));
	hold();
	story_check("not_others", 0, apic_bit(APIC_IRR, 0x47) | apic_bit(APIC_ISR, 0x31));
	story_check("nothing_came", 0, story_total());
	story_open();
	for (unsigned i = 0; i < 40 && story_total() < count; i++)
		story_open();
	for (unsigned i = 0; i < count; i++)
		story_check_at("order", i, vectors[count - 1 - i], story_order(i));
	story_check("in_all", count, story_total());
}

/* Three in service, one within the other, another requested below them. */
static void nest(struct story_frame *frame)
{
	if (frame->vector == 0x41 || frame->vector == 0x62) {
		apic_send(apic_id(), ICR_ASSERT | (frame->vector == 0x41 ? 0x62 : 0xa3));
		hold();
		__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	} else if (frame->vector == 0xa3) {
		apic_send(apic_id(), ICR_ASSERT | 0x52);
		for (unsigned i = 0; i < 2; i++) {
			hold();
			story_check("in_service_41", 1, apic_bit(APIC_ISR, 0x41));
			story_check("in_service_62", 1, apic_bit(APIC_ISR, 0x62));
			story_check("in_service_a3", 1, apic_bit(APIC_ISR, 0xa3));
			story_check("requested_52", 1, apic_bit(APIC_IRR, 0x52));
			story_check("ppr", 0xa0, apic_read(APIC_PPR));
		}
	}
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
	hold();
}

STORY(services_kept)
{
	if (!story_apic_mode())
		return;
	story_handle(nest);
	apic_send(apic_id(), ICR_ASSERT | 0x41);
	hold();
	story_open();
	story_check("first", 0x41, story_order(0));
	story_check("second", 0x62, story_order(1));
	story_check("third", 0xa3, story_order(2));
	story_check("fourth", 0x52, story_order(3));
	story_check("in_all", 4, story_total());
	HELD("none_in_service", 0, apic_bit(APIC_ISR, 0x41) | apic_bit(APIC_ISR, 0x62) | apic_bit(APIC_ISR, 0xa3));
}

/* A register (@index) keeps its value (@value). */
STORY(apic_register_kept)
{
	enum apic_register at = (enum apic_register)GIVEN(index);
	uint32_t value = (uint32_t)GIVEN(value), old;

	if (!story_apic_mode())
		return;
	if (apic_is_x2apic() && !story_needs(at != APIC_LDR && at != APIC_DFR && at != APIC_ICR_HIGH,
					     "not writable in x2APIC mode"))
		return;
	old = apic_read(at);
	apic_write(at, value);
	HELD("register", value, apic_read(at));
	apic_write(at, old);
	HELD("back", old, apic_read(at));
}

/* IDs that software writes (AMD's, and early ones). */
STORY(apic_id_kept)
{
	uint32_t old;

	if (!story_apic_mode())
		return;
	old = apic_read(APIC_ID);
	apic_write(APIC_ID, 0x0b000000);
	if (!story_needs(apic_read(APIC_ID) == 0x0b000000, "the APIC ID is read-only"))
		return;
	HELD("id", 0x0b000000, apic_read(APIC_ID));
	apic_send(0x0b, ICR_ASSERT | 0x55);
	hold();
	story_check("found", 1, apic_bit(APIC_IRR, 0x55));
	apic_write(APIC_ID, old);
	story_open();
	HELD("back", old, apic_read(APIC_ID));
}

/* AMD's extended space: the interrupt-enable register lets a vector wait. */
STORY(apic_extended_kept)
{
	if (!story_apic_mode() || !story_needs(!machine.intel && apic_read(APIC_VERSION) >> 31, "no extended APIC space"))
		return;
	apic_write(0x410, 1); /* IER is used */
	HELD("control", 1, apic_read(0x410) & 7);
	apic_write(0x480 + 0x20, 0xffffffdf); /* vectors 40H to 5FH, less 45H */
	HELD("enables", 0xffffffdf, apic_read(0x480 + 0x20));
	apic_send(apic_id(), ICR_ASSERT | 0x45);
	hold();
	story_open();
	story_check("waits", 0, story_total());
	hold();
	apic_write(0x480 + 0x20, 0xffffffff);
	story_open();
	story_check("comes", 1, story_count(0x45));
	for (unsigned n = 0; n < 4; n++) {
		apic_write(0x500 + 0x10 * n, LVT_MASKED | (0x70 + n));
		hold();
		story_check_at("lvt", n, LVT_MASKED | (0x70 + n), apic_read(0x500 + 0x10 * n));
		hold();
		story_check_at("lvt_still", n, LVT_MASKED | (0x70 + n), apic_read(0x500 + 0x10 * n));
	}
	apic_write(0x410, 0);
}

/* Errors are gathered until ESR is written, and then read until it is written again. */
STORY(apic_errors_kept)
{
	if (!story_apic_mode() || !story_needs(!apic_is_x2apic(), "an x2APIC refuses such vectors"))
		return;
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_LVT_ERROR, LVT_MASKED | 0xe1);
	apic_send(apic_id(), ICR_ASSERT | 5); /* an illegal vector: sent, and received */
	hold();
	story_check("not_yet", 0, apic_read(APIC_ESR));
	hold();
	story_check("not_still", 0, apic_read(APIC_ESR));
	apic_write(APIC_ESR, 0);
	story_check("told", 1, (apic_read(APIC_ESR) & 0x60) != 0);
	HELD("told_for_long", apic_read(APIC_ESR), apic_read(APIC_ESR));
	apic_write(APIC_ESR, 0);
	HELD("gone", 0, apic_read(APIC_ESR));
}

/* What was read of another local APIC stays in the register for it (APM 2 16.6.1). */
STORY(remote_read_kept)
{
	uint32_t id;

	if (!cpus_needs(2) || !story_needs(!machine.intel, "no remote read on this vendor's processors"))
		return;
	id = cpus_apic_id(1);
	apic_send(id, 3u << 8 | ICR_ASSERT | APIC_ID >> 4);
	for (unsigned i = 0; i < 100; i++)
		hold();
	if (!story_needs((apic_read(APIC_ICR) >> 16 & 3) == 2, "no remote read"))
		return;
	HELD("register", id << 24, apic_read(APIC_RRD));
}

/* Mode and place of the APIC: x2APIC mode is on as long as nobody leaves it. */
STORY(apic_base_kept)
{
	uint64_t base;

	if (!story_apic_mode())
		return;
	base = machine_read_msr(APIC_BASE_MSR);
	HELD("base", base, machine_read_msr(APIC_BASE_MSR));
	story_check("enabled", GIVEN(apic) ? APIC_BASE_EN | APIC_BASE_EXT : APIC_BASE_EN,
		    base & (APIC_BASE_EN | APIC_BASE_EXT));
	story_check("bsp", APIC_BASE_BSP_BIT, base & APIC_BASE_BSP_BIT);
	HELD("svr", SVR_ENABLE | 0xff, apic_read(APIC_SVR));
}

STORY(apic_moved_kept)
{
	uint64_t base;

	if (!story_apic_mode())
		return;
	story_spoils();
	base = machine_read_msr(APIC_BASE_MSR);
	apic_write(APIC_TPR, 0x30);
	machine_write_msr(APIC_BASE_MSR, (base & 0xfff) | 0xfe000000);
	HELD("tpr_there", 0x30, *mmio32(0xfe000080));
	story_check("base", (base & 0xfff) | 0xfe000000, machine_read_msr(APIC_BASE_MSR));
	machine_write_msr(APIC_BASE_MSR, base);
	HELD("tpr_here", 0x30, apic_read(APIC_TPR));
	apic_write(APIC_TPR, 0);
}

/* TPR is CR8, from either side (SDM 3A 11.8.6). */
STORY(task_priority_kept)
{
	if (!story_apic_mode())
		return;
	machine_write_cr8(0xb);
	HELD("tpr", 0xb0, apic_read(APIC_TPR));
	apic_send(apic_id(), ICR_ASSERT | 0xa5);
	hold();
	story_open();
	story_check("held", 0, story_total());
	apic_write(APIC_TPR, 0x25);
	HELD("cr8", 2, machine_read_cr8());
	HELD("subclass", 0x25, apic_read(APIC_TPR));
	story_open();
	story_check("comes", 1, story_count(0xa5));
	machine_write_cr8(0);
}

/* ---- shadows: one instruction behind STI or MOV SS ---- */

uint64_t shadow_sti(void), shadow_mov_ss(void); /* vectors.S */
static volatile uint64_t met_at;

static void note(struct story_frame *frame)
{
	met_at = frame->rip;
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

/* @mode: which; an interrupt that is pending comes behind the instruction behind it, and nowhere else. */
STORY(shadow_kept)
{
	static uint64_t (*const ways[])(void) = {shadow_sti, shadow_mov_ss};
	uint64_t wanted;

	if (!story_apic_mode())
		return;
	story_handle(note);
	for (unsigned i = 0; i < 3; i++) {
		met_at = 0;
		apic_pend_interrupt(0x44);
		wanted = ways[GIVEN(mode)]();
		story_check_at("met", i, wanted, met_at);
	}
	story_check("count", 3, story_count(0x44));
}

/* ---- NMIs ---- */

static volatile unsigned depth, deepest;

static void within(struct story_frame *frame)
{
	if (frame->vector != 2) {
		leave(frame);
		return;
	}
	depth++;
	deepest = depth > deepest ? depth : deepest;
	if (story_count(2) == 1) {
		apic_send_nmi(); /* blocked */
		hold();
		apic_send_nmi(); /* one is remembered */
		hold();
		story_check("blocked", 1, story_count(2));
	}
	depth--;
}

/* In the handler of an NMI another one waits for IRET; a third is the second. */
STORY(nmi_kept)
{
	if (!story_apic_mode())
		return;
	depth = deepest = 0;
	story_handle(within);
	apic_send_nmi();
	hold();
	story_check("count", 2, story_count(2));
	story_check("not_nested", 1, deepest);
}

/* ---- the 8259As ---- */

/* Requests, service, masks, and what is read: of both chips, by the latches of pc-testdev. */
STORY(pic_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	board_pic_unmask(4);
	board_pic_unmask(11);
	HELD("imr", 0xeb, machine_in8(MASTER + 1));
	HELD("imr_slave", 0xf7, machine_in8(SLAVE + 1));
	machine_out8(0x2000 + 4, 1);
	machine_out8(0x2000 + 6, 1);
	machine_out8(0x2000 + 11, 1);
	HELD("irr", 0x54, board_pic_read(MASTER, 0x0a));
	HELD("irr_slave", 0x08, board_pic_read(SLAVE, 0x0a));
	story_open(); /* line 11 by way of line 2 */
	story_check("first", BASE + 11, story_order(0));
	HELD("isr", 4, board_pic_read(MASTER, 0x0b));
	HELD("isr_slave", 8, machine_in8((board_pic_read(SLAVE, 0x0b), SLAVE)));
	hold();
	story_check("ocw3_kept", 8, machine_in8(SLAVE));
	story_open();
	story_check("held_back", 1, story_total());
	machine_out8(SLAVE, 0x20);
	machine_out8(MASTER, 0x20);
	hold();
	story_open();
	story_check("second", BASE + 4, story_order(1));
	machine_out8(MASTER, 0x20);
	for (unsigned n = 4; n < 12; n++)
		machine_out8((uint16_t)(0x2000 + n), 0);
	HELD("lowered", 0, board_pic_read(MASTER, 0x0a) & 0x50);
}

/* Half of an initialization: the next words go where they belong (@count: how many came before the while). */
STORY(pic_initialization_kept)
{
	unsigned count = (unsigned)GIVEN(count);
	static const uint8_t words[] = {0x68, 4, 1, 0xef};

	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	machine_out8(MASTER, 0x11);
	for (unsigned i = 0; i < 4; i++) {
		if (i == count) {
			hold();
			hold();
		}
		machine_out8(MASTER + 1, words[i]);
	}
	HELD("imr", 0xef, machine_in8(MASTER + 1));
	machine_out8(0x2000 + 4, 1);
	story_open();
	story_check("vector", 0x6c, story_order(0));
	machine_out8(0x2000 + 4, 0);
	machine_out8(MASTER, 0x20);
}

/* Modes that OCW2 and OCW3 set (@mode). */
STORY(pic_modes_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	board_pic_unmask(3);
	board_pic_unmask(6);
	switch (GIVEN(mode)) {
	case 0: /* special mask mode */
		machine_out8(0x2000 + 3, 1);
		story_open();
		machine_out8(MASTER, 0x68);
		machine_out8(MASTER + 1, (uint8_t)(machine_in8(MASTER + 1) | 8));
		hold();
		machine_out8(0x2000 + 6, 1);
		hold();
		story_open();
		story_check("let_through", 1, story_count(BASE + 6));
		machine_out8(MASTER, 0x48);
		break;
	case 1: /* line 3 is the lowest */
		machine_out8(MASTER, 0xc3);
		hold();
		machine_out8(0x2000 + 3, 1);
		machine_out8(0x2000 + 6, 1);
		hold();
		story_open();
		story_check("rotated", BASE + 6, story_order(0));
		break;
	case 2: /* poll: the next read is one */
		machine_out8(0x2000 + 3, 1);
		machine_out8(MASTER, 0x0c);
		hold();
		story_check("polled", 0x83, machine_in8(MASTER));
		HELD("in_service", 8, board_pic_read(MASTER, 0x0b));
		break;
	case 3: /* automatic EOI, rotating */
		machine_out8(MASTER, 0x11);
		machine_out8(MASTER + 1, BASE);
		machine_out8(MASTER + 1, 4);
		machine_out8(MASTER + 1, 3);
		machine_out8(MASTER + 1, 0xb7);
		machine_out8(MASTER, 0x80);
		hold();
		machine_out8(0x2000 + 3, 1);
		story_open();
		HELD("ended", 0, board_pic_read(MASTER, 0x0b));
		machine_out8(0x2000 + 3, 0);
		machine_out8(0x2000 + 3, 1);
		machine_out8(0x2000 + 6, 1);
		hold();
		story_open();
		story_check("order", BASE + 6, story_order(1));
		break;
	}
	machine_out8(0x2000 + 3, 0);
	machine_out8(0x2000 + 6, 0);
	(void)board_pic_read(MASTER, 0x0a);
	machine_out8(MASTER, 0x20);
}

/* Which lines are levels (ELCR), and a line that is high before it is one. */
STORY(pic_levels_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	machine_out8(ELCR, 0x20);
	machine_out8(ELCR + 1, 0x0c);
	HELD("elcr", 0x20, machine_in8(ELCR));
	HELD("elcr_slave", 0x0c, machine_in8(ELCR + 1));
	board_pic_unmask(5);
	machine_out8(0x2000 + 5, 1);
	hold();
	story_open();
	machine_out8(MASTER, 0x20);
	hold();
	story_open();
	story_check("again", 2, story_count(BASE + 5));
	machine_out8(0x2000 + 5, 0);
	hold();
	machine_out8(MASTER, 0x20);
	story_open();
	story_check("no_more", 2, story_count(BASE + 5));
	machine_out8(ELCR, 0);
	machine_out8(ELCR + 1, 0);
}

/* The 8259As ask, and IF is 0: the line to the processor stays, and falls with the request. */
STORY(pic_asks)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	board_pic_unmask(4);
	machine_out8(0x2000 + 4, 1);
	hold();
	hold();
	story_check("not_taken", 0x10, board_pic_read(MASTER, 0x0a) & 0x10);
	story_open();
	story_check("taken", 1, story_count(BASE + 4));
	machine_out8(MASTER, 0x20);
	machine_out8(0x2000 + 4, 0);
	hold();
	story_open();
	story_check("once", 1, story_total());
}

/* ---- the I/O APIC ---- */

STORY(ioapic_kept)
{
	if (!story_apic_mode() || !board_ioapic_entry(20, LVT_MASKED | 0x64))
		return;
	for (unsigned n = 3; n < 24; n++) {
		board_ioapic_write(0x10 + 2 * n, LVT_MASKED | 0x30 | n << 11 | 0x80 | n);
		board_ioapic_write(0x11 + 2 * n, (0x5au + n) << 24);
	}
	hold();
	for (unsigned n = 3; n < 24; n++) {
		story_check_at("low", n, (LVT_MASKED | 0x30 | n << 11 | 0x80 | n) & 0x1afff,
			       board_ioapic_read(0x10 + 2 * n) & 0x1afff);
		story_check_at("high", n, (0x5au + n) << 24 & 0xff000000, board_ioapic_read(0x11 + 2 * n));
	}
	board_ioapic_write(0, 0x07000000);
	HELD("id", 0x07000000, board_ioapic_read(0) & 0x0f000000);
	*mmio32(0xfec00000) = 0x13; /* the index alone */
	hold();
	story_check("index", 0x13, *mmio32(0xfec00000) & 0xff);
	hold();
	story_check("selected", board_ioapic_read(0x13), (*mmio32(0xfec00000) = 0x13, *mmio32(0xfec00010)));
	for (unsigned n = 0; n < 24; n++)
		board_ioapic_write(0x10 + 2 * n, LVT_MASKED);
	board_ioapic_write(0, 0);
}

/* A level: sent once, remote IRR until EOI, the vector's trigger mode in TMR, and sent again while it is high. */
STORY(ioapic_level_kept)
{
	if (!board_has_testdev() || !story_apic_mode() || !board_ioapic_entry(14, 1u << 15 | 0x74))
		return;
	story_handle(leave);
	machine_out8(0x2000 + 14, 1);
	HELD("remote_irr", 1u << 14, board_ioapic_read(0x10 + 28) & 1u << 14);
	HELD("requested", 1, apic_bit(APIC_IRR, 0x74));
	story_open();
	story_check("taken", 1, story_count(0x74));
	HELD("tmr", 1, apic_bit(APIC_TMR, 0x74));
	HELD("remote_irr_in_service", 1u << 14, board_ioapic_read(0x10 + 28) & 1u << 14);
	apic_write(APIC_EOI, 0);
	HELD("again", 1, apic_bit(APIC_IRR, 0x74));
	machine_out8(0x2000 + 14, 0);
	story_open();
	apic_write(APIC_EOI, 0);
	HELD("ended", 0, board_ioapic_read(0x10 + 28) & 1u << 14);
	story_check("in_all", 2, story_count(0x74));
	board_ioapic_write(0x10 + 28, LVT_MASKED);
}

/* An edge that nobody accepts is delivered when somebody does: its destination comes to be. */
STORY(ioapic_pending_kept)
{
	if (!board_has_testdev() || !story_apic_mode() || !story_needs(!apic_is_x2apic(), "logical IDs are fixed") ||
	    !board_ioapic_entry(14, LVT_MASKED))
		return;
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 1u << 24);
	board_ioapic_write(0x11 + 28, 0x80u << 24);
	board_ioapic_write(0x10 + 28, 1u << 11 | 0x75);
	machine_out8(0x2000 + 14, 1);
	hold();
	if (!story_needs(board_ioapic_read(0x10 + 28) >> 12 & 1, "edges without a destination are lost here"))
		return;
	HELD("pending", 1u << 12, board_ioapic_read(0x10 + 28) & 1u << 12);
	machine_out8(0x2000 + 14, 0);
	hold();
	apic_write(APIC_LDR, 0x80u << 24);
	hold();
	story_check("sent", 1, apic_bit(APIC_IRR, 0x75));
	story_open();
	story_check("came", 1, story_count(0x75));
	board_ioapic_write(0x10 + 28, LVT_MASKED);
	apic_write(APIC_LDR, 0);
}

/* An ExtINT message (by the I/O APIC's entry for line 0, or LINT0) waits for IF. */
STORY(extint_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	if (!board_ioapic_entry(0, 7u << 8))
		return;
	board_pic_unmask(4);
	machine_out8(0x2000 + 4, 1);
	hold();
	story_check("not_taken", 0, story_total());
	hold();
	story_open();
	story_check("taken", 1, story_count(BASE + 4));
	machine_out8(MASTER, 0x20);
	machine_out8(0x2000 + 4, 0);
	board_ioapic_write(0x10, LVT_MASKED);
	hold();
	story_open();
	story_check("once", 1, story_total());
}

/* LINT0 as the 8259As' INT holds it, masked and unmasked. */
STORY(lint_kept)
{
	if (!board_has_testdev() || !board_pic())
		return;
	story_handle(leave);
	apic_write(APIC_LVT_LINT0, LVT_MASKED | ICR_EXTINT);
	board_pic_unmask(4);
	machine_out8(0x2000 + 4, 1);
	hold();
	story_open();
	story_check("masked", 0, story_total());
	hold();
	apic_write(APIC_LVT_LINT0, ICR_EXTINT);
	hold();
	story_open();
	story_check("taken", 1, story_count(BASE + 4));
	machine_out8(MASTER, 0x20);
	machine_out8(0x2000 + 4, 0);
}

/* ---- processors that wait ---- */

static volatile unsigned steps;
static volatile uint64_t watched[16] __attribute__((aligned(64)));
static unsigned how;

static void wait_in(void *argument)
{
	(void)argument;
	steps = 1;
	switch (how) {
	case 0: /* HLT, IF = 1 */
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		break;
	case 1: /* HLT, IF = 0: an NMI */
		__asm__ volatile("hlt" : : : "memory");
		break;
	case 2: /* MWAIT */
	case 3: /* MWAIT that interrupts end with IF = 0 */
		__asm__ volatile("monitor" : : "a"(watched), "c"(0), "d"(0) : "memory");
		hold();
		__asm__ volatile("mwait" : : "a"(0), "c"(how == 3) : "memory");
		break;
	}
	steps = 2;
}

/* Another processor waits (@mode), for long, and goes on for the reason that it waits for. */
STORY(wait_kept)
{
	how = (unsigned)GIVEN(mode);
	if (!cpus_needs(2))
		return;
	if (how >= 2 && !story_needs(cpuid_bit(1, 2, 3), "cpuid.1.0.ecx[3]=0"))
		return;
	if (how == 3) {
		uint32_t r[4];

		machine_cpuid(5, 0, r);
		if (!story_needs(r[2] & 2, "cpuid.5.0.ecx[1]=0"))
			return;
	}
	steps = 0;
	cpus_tell(1, wait_in, NULL);
	for (unsigned i = 0; i < 20000 && !steps; i++)
		story_pause(10);
	story_pause(800);
	hold();
	/* Other events may end MWAIT as well, which are the processor's own (SDM 2B MWAIT): ours has none. */
	if (how >= 2 && !story_needs(machine.control_device || steps == 1, "MWAIT ends by itself here"))
		return;
	story_check("waits", 1, steps);
	watched[8] = 1; /* another line */
	hold();
	story_check("waits_still", 1, steps);
	if (how == 0)
		apic_send(cpus_apic_id(1), ICR_ASSERT | 0x48);
	else if (how == 1)
		apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT);
	else if (how == 2)
		watched[1] = 1;
	else
		apic_send(cpus_apic_id(1), ICR_ASSERT | 0x49);
	story_check("over", 1, cpus_wait(1));
	story_check("went_on", 2, steps);
}

/* An armed monitor whose line is written before MWAIT does not wait (@mode 0), and one that is not touched does until then: by the same
 * processor there would be nobody to end it. */
STORY(monitor_kept)
{
	if (!story_needs(cpuid_bit(1, 2, 3), "cpuid.1.0.ecx[3]=0") || !story_apic_mode())
		return;
	__asm__ volatile("monitor" : : "a"(watched), "c"(0), "d"(0) : "memory");
	hold();
	watched[0]++;
	hold();
	__asm__ volatile("mwait" : : "a"(0), "c"(0) : "memory"); /* over at once */
	story_check("went_on", 1, 1);
	/* armed: a timer ends it */
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x66);
	apic_write(APIC_INITIAL_COUNT, 600);
	for (unsigned i = 0; i < (machine.control_device ? 1 : LONG_WHILE) && !story_count(0x66); i++) { /* as above */
		__asm__ volatile("monitor" : : "a"(watched), "c"(0), "d"(0) : "memory");
		hold();
		__asm__ volatile("sti; mwait; cli" : : "a"(0), "c"(0) : "memory");
	}
	story_check("woken", 1, story_count(0x66));
}

/* TPAUSE and UMWAIT (@mode) until a deadline, and CF where IA32_UMWAIT_CONTROL made it an earlier one (@value). */
STORY(timed_wait_kept)
{
	uint64_t began, end;
	uint8_t carry;
	bool limited = GIVEN(value);

	if (!story_needs(cpuid_bit(7, 2, 5), "cpuid.7.0.ecx[5]=0"))
		return;
	machine_write_msr(MSR_UMWAIT_CONTROL, limited ? 400 : 0);
	HELD("control", limited ? 400 : 0, machine_read_msr(MSR_UMWAIT_CONTROL));
	if (GIVEN(mode))
		__asm__ volatile("umonitor %0" : : "r"(watched) : "memory");
	hold();
	began = read_tsc();
	end = began + 3000;
	if (GIVEN(mode))
		__asm__ volatile("umwait %1; setc %0" : "=q"(carry) : "r"(0), "a"((uint32_t)end), "d"((uint32_t)(end >> 32)) : "memory", "cc");
	else
		__asm__ volatile("tpause %1; setc %0" : "=q"(carry) : "r"(0), "a"((uint32_t)end), "d"((uint32_t)(end >> 32)) : "memory", "cc");
	story_check("carry", limited, carry);
	story_check("not_late", 1, read_tsc() < end + 2000);
	if (!limited)
		story_check("not_early", 1, read_tsc() >= end);
	machine_write_msr(MSR_UMWAIT_CONTROL, 0);
}

static void tpause_long(void *argument)
{
	uint64_t end = read_tsc() + 30000;
	uint8_t carry;

	(void)argument;
	steps = 1;
	__asm__ volatile("tpause %1; setc %0" : "=q"(carry) : "r"(0), "a"((uint32_t)end), "d"((uint32_t)(end >> 32)) : "memory", "cc");
	steps = carry ? 3 : read_tsc() >= end ? 2 : 4;
}

/* The same on another processor, while this one runs on. */
STORY(timed_wait_of_another)
{
	if (!story_needs(cpuid_bit(7, 2, 5), "cpuid.7.0.ecx[5]=0") || !cpus_needs(2))
		return;
	steps = 0;
	cpus_tell(1, tpause_long, NULL);
	for (unsigned i = 0; i < 20000 && !steps; i++)
		story_pause(10);
	story_pause(300);
	story_check("waits", 1, steps);
	for (unsigned i = 0; i < 400 && steps == 1; i++)
		story_pause(200);
	story_check("over", 1, cpus_wait(1));
	story_check("at_its_time", 2, steps);
}

static volatile unsigned lives;
static void count_on(void *argument)
{
	(void)argument;
	for (;;) {
		lives++;
		hold();
	}
}

/* A processor after INIT waits for a SIPI, and does nothing else. */
STORY(wait_for_sipi_kept)
{
	unsigned seen;

	if (!cpus_needs(2))
		return;
	lives = 0;
	cpus_tell(1, count_on, NULL);
	for (unsigned i = 0; i < 20000 && !lives; i++)
		story_pause(10);
	story_check("lives", 1, lives > 0);
	apic_send(cpus_apic_id(1), ICR_INIT | ICR_ASSERT);
	story_pause(100);
	seen = lives;
	for (unsigned i = 0; i < 20; i++)
		hold();
	apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT); /* is no SIPI */
	story_pause(400);
	story_check("stands", seen, lives);
}
