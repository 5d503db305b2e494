/*
 * apic.c: stories of the local APIC: vectors, priorities, EOI, errors, register rules, modes.
 *
 * SDM 3A chapter 11; APM 2 chapter 16. Most run through the register page and through MSRs.
 */
#include "lib/apic.h"
#include "lib/machine.h"
#include "lib/story.h"

static void no_eoi(struct story_frame *frame) { (void)frame; }

static void send_self(unsigned vector) { apic_send(0, ICR_SELF | ICR_ASSERT | vector); }
static unsigned class_of(unsigned vector) { return vector >> 4; }

/* A fixed interrupt to itself: pending, in service, ended (SDM 3A 11.8.4). */
STORY(apic_self_ipi)
{
	uint8_t vector = (uint8_t)GIVEN(vector);

	if (!story_apic_mode())
		return;
	story_handle(no_eoi);
	send_self(vector);
	story_check("irr", 1, apic_bit(APIC_IRR, vector));
	story_check("isr_before", 0, apic_bit(APIC_ISR, vector));
	story_open();
	story_check("delivered", 1, story_count(vector));
	story_check("irr_in_service", 0, apic_bit(APIC_IRR, vector));
	story_check("isr", 1, apic_bit(APIC_ISR, vector));
	story_check("tmr", 0, apic_bit(APIC_TMR, vector));
	story_check("ppr", vector & 0xf0, apic_read(APIC_PPR));
	apic_write(APIC_EOI, 0);
	story_check("isr_after_eoi", 0, apic_bit(APIC_ISR, vector));
	story_check("ppr_after_eoi", 0, apic_read(APIC_PPR));
	story_open();
	story_check("once", 1, story_total());
}

/* The x2APIC's own register for it (SDM 3A 11.12.11). */
STORY(apic_self_ipi_register)
{
	uint8_t vector = (uint8_t)GIVEN(vector);

	if (!story_apic_mode())
		return;
	apic_write(APIC_SELF_IPI, vector);
	story_check("irr", 1, apic_bit(APIC_IRR, vector));
	story_check("tmr", 0, apic_bit(APIC_TMR, vector));
	story_open();
	story_check("delivered", 1, story_count(vector));
	story_check("ended", 0, apic_bit(APIC_ISR, vector));
}

/*
 * TPR holds back what is of its class or below (SDM 3A 11.8.3.1), whether it is written as a register or as
 * CR8 (@mode).
 */
STORY(apic_tpr)
{
	unsigned vector = (unsigned)GIVEN(vector), level = (unsigned)GIVEN(value);
	bool passes = class_of(vector) > level;

	if (!story_apic_mode())
		return;
	if (GIVEN(mode))
		machine_write_cr8(level);
	else
		apic_write(APIC_TPR, level << 4);
	story_check("cr8", level, machine_read_cr8());
	story_check("tpr", level << 4, apic_read(APIC_TPR));
	story_check("ppr", level << 4, apic_read(APIC_PPR));
	send_self(vector);
	story_open();
	story_check("delivered", passes, story_count(vector));
	story_check("held", !passes, apic_bit(APIC_IRR, vector));
	machine_write_cr8(0);
	story_check("tpr_zero", 0, apic_read(APIC_TPR));
	story_open();
	story_check("let_through", 1, story_count(vector));
}

/* Bits 3:0 of TPR are the subclass, which PPR shows and CR8 does not; writing CR8 clears them. */
STORY(apic_tpr_subclass)
{
	unsigned value = (unsigned)GIVEN(value);

	if (!story_apic_mode())
		return;
	apic_write(APIC_TPR, value);
	story_check("tpr", value, apic_read(APIC_TPR));
	story_check("ppr", value, apic_read(APIC_PPR));
	story_check("cr8", value >> 4, machine_read_cr8());
	machine_write_cr8(value >> 4);
	story_check("tpr_by_cr8", value & 0xf0, apic_read(APIC_TPR));
}

static unsigned second;

static void send_second_once(struct story_frame *frame)
{
	if (frame->vector == second)
		return;
	send_self(second);
	story_open();
}

/* While one is in service, another comes through only if its class is higher (SDM 3A 11.8.3.1, 11.8.4). */
STORY(apic_nesting)
{
	unsigned vector = (unsigned)GIVEN(vector);
	bool nests = class_of((unsigned)GIVEN(other)) > class_of(vector);

	second = (unsigned)GIVEN(other);
	if (!story_apic_mode())
		return;
	story_handle(send_second_once);
	send_self(vector);
	story_open();
	story_check("first", vector, story_order(0));
	story_check("nested", nests, story_count(second));
	story_check("isr_first", 1, apic_bit(APIC_ISR, vector));
	story_check("isr_second", nests, apic_bit(APIC_ISR, second));
	story_check("irr_second", !nests, apic_bit(APIC_IRR, second));
	story_check("ppr", (nests ? second : vector) & 0xf0, apic_read(APIC_PPR));
	/* EOI ends the one with the highest priority. */
	story_handle(no_eoi);
	apic_write(APIC_EOI, 0);
	story_check("ended_first", !nests, !apic_bit(APIC_ISR, vector));
	story_check("ended_second", 0, apic_bit(APIC_ISR, second));
	story_open();
	story_check("second", 1, story_count(second));
	story_check("in_all", 2, story_total());
}

/* Of what is pending the highest vector comes first; each waits for the EOI of the one before. */
STORY(apic_order)
{
	static const uint8_t vectors[] = {0x31, 0x3f, 0x42, 0x55, 0x80, 0x81, 0xa7, 0xf0};
	unsigned count = sizeof(vectors), from = (unsigned)GIVEN(from);

	if (!story_apic_mode())
		return;
	/* Sent in some order of @from's. */
	for (unsigned i = 0; i < count; i++)
		send_self(vectors[(i * 3 + from) % count]);
	for (unsigned i = 0; i < count; i++)
		story_open();
	story_check("in_all", count, story_total());
	for (unsigned i = 0; i < count; i++)
		story_check_at("came", i, vectors[count - 1 - i], story_order(i));
}

/* One in service and one pending: more of the same are one (SDM 3A 11.8.4). */
STORY(apic_two_of_a_vector)
{
	unsigned vector = (unsigned)GIVEN(vector);

	if (!story_apic_mode())
		return;
	story_handle(no_eoi);
	send_self(vector);
	story_open();
	for (unsigned i = 0; i < 3; i++)
		send_self(vector);
	story_open();
	story_check("one", 1, story_count(vector));
	story_check("isr", 1, apic_bit(APIC_ISR, vector));
	story_check("irr", 1, apic_bit(APIC_IRR, vector));
	apic_write(APIC_EOI, 0);
	story_open();
	story_check("two", 2, story_count(vector));
	apic_write(APIC_EOI, 0);
	story_open();
	story_check("no_more", 2, story_count(vector));
	apic_write(APIC_EOI, 0);
	story_check("eoi_of_none", 0, apic_bit(APIC_ISR, vector));
}

/* Disabled in software it takes no fixed interrupt, keeps NMIs, and masks its LVT for good (SDM 3A 11.4.7.2).
 */
STORY(apic_software_disabled)
{
	static const enum apic_register table[] = {APIC_LVT_TIMER, APIC_LVT_LINT0, APIC_LVT_LINT1,
						   APIC_LVT_ERROR};
	unsigned vector = (unsigned)GIVEN(vector);

	if (!story_apic_mode())
		return;
	for (unsigned i = 0; i < 4; i++)
		apic_write(table[i], 0x70 + i);
	apic_write(APIC_SVR, 0xff);
	for (unsigned i = 0; i < 4; i++)
		story_check_at("masked", i, LVT_MASKED | (0x70 + i), apic_read(table[i]));
	send_self(vector);
	story_check("irr", 0, apic_bit(APIC_IRR, vector));
	story_open();
	story_check("delivered", 0, story_count(vector));
	apic_write(APIC_LVT_TIMER, 0x70);
	story_check("stays_masked", LVT_MASKED | 0x70, apic_read(APIC_LVT_TIMER));
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	story_pause(100);
	story_check("nmi", 1, story_count(2));
	apic_enable(0xff);
	story_check("masked_after", LVT_MASKED | 0x71, apic_read(APIC_LVT_LINT0));
	apic_write(APIC_LVT_TIMER, 0x70);
	story_check("unmasked_now", 0x70, apic_read(APIC_LVT_TIMER));
	story_open();
	story_check("lost", 0, story_count(vector));
}

static uint32_t error_status(void)
{
	apic_write(APIC_ESR, 0);
	return apic_read(APIC_ESR);
}

#define ERROR_VECTOR 0x4eu

/* A vector below 16 (SDM 3A 11.5.3): an error where it is sent, and its interrupt. */
STORY(apic_illegal_vector)
{
	unsigned vector = (unsigned)GIVEN(vector);
	uint32_t found;

	if (!story_apic_mode())
		return;
	error_status();
	apic_write(APIC_LVT_ERROR, ERROR_VECTOR);
	send_self(vector);
	story_open();
	story_check("error_interrupt", 1, story_count(ERROR_VECTOR) > 0);
	story_check("delivered", 0, story_count(vector));
	story_check("irr", 0, apic_bit(APIC_IRR, vector));
	found = error_status();
	story_check("sent", 0x20, found & 0x20);
	story_check("no_other", 0, found & ~0x60u);
	story_check("cleared", 0, error_status());
}

/* ESR is loaded by a write, and read until the next. */
STORY(apic_error_latch)
{
	if (!story_apic_mode())
		return;
	error_status();
	send_self(5);
	story_check("not_loaded", 0, apic_read(APIC_ESR));
	apic_write(APIC_ESR, 0);
	story_check("loaded", 1, (apic_read(APIC_ESR) & 0x60) != 0);
	story_check("kept", 1, (apic_read(APIC_ESR) & 0x60) != 0);
	apic_write(APIC_ESR, 0);
	story_check("empty", 0, apic_read(APIC_ESR));
}

/* Registers of the page that are none (SDM 3A 11.5.3, table 11-1): an illegal register address. */
STORY(apic_illegal_register)
{
	uint32_t offset = (uint32_t)GIVEN(index);

	if (!story_apic_mode())
		return;
	error_status();
	(void)apic_read((enum apic_register)offset);
	story_check("read", 0x80, error_status());
	apic_write((enum apic_register)offset, 0);
	story_check("write", 0x80, error_status());
}

/* ---- the register page and the MSRs ---- */

/* What stands there after reset; the library has enabled it and set TPR. */
STORY(apic_reset_values)
{
	bool x2apic = GIVEN(apic);
	uint64_t base;

	if (!story_has_apic() || (x2apic && !story_has_x2apic()))
		return;
	base = machine_read_msr(APIC_BASE_MSR);
	machine_write_msr(APIC_BASE_MSR, base & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXT));
	machine_write_msr(APIC_BASE_MSR, base | APIC_BASE_EN);
	if (x2apic)
		machine_write_msr(APIC_BASE_MSR, base | APIC_BASE_EN | APIC_BASE_EXT);
	story_check("svr", 0xff, apic_read(APIC_SVR));
	story_check("tpr", 0, apic_read(APIC_TPR));
	story_check("ppr", 0, apic_read(APIC_PPR));
	for (unsigned i = 0; i < 8; i++) {
		story_check_at("isr", i, 0, apic_read(APIC_ISR + 0x10 * i));
		story_check_at("tmr", i, 0, apic_read(APIC_TMR + 0x10 * i));
		story_check_at("irr", i, 0, apic_read(APIC_IRR + 0x10 * i));
	}
	story_check("lvt_timer", LVT_MASKED, apic_read(APIC_LVT_TIMER));
	story_check("lvt_lint0", LVT_MASKED, apic_read(APIC_LVT_LINT0));
	story_check("lvt_lint1", LVT_MASKED, apic_read(APIC_LVT_LINT1));
	story_check("lvt_error", LVT_MASKED, apic_read(APIC_LVT_ERROR));
	story_check("initial_count", 0, apic_read(APIC_INITIAL_COUNT));
	story_check("current_count", 0, apic_read(APIC_CURRENT_COUNT));
	story_check("divide", 0, apic_read(APIC_DIVIDE));
	story_check("esr", 0, apic_read(APIC_ESR));
	story_check("version", 0x10, apic_read(APIC_VERSION) & 0xf0);
	story_check("max_lvt", 1, (apic_read(APIC_VERSION) >> 16 & 0xff) >= 3);
	if (x2apic) {
		uint32_t id = apic_read(APIC_ID);

		story_check("ldr", (id >> 4) << 16 | 1u << (id & 15), apic_read(APIC_LDR));
	} else {
		story_check("ldr", 0, apic_read(APIC_LDR));
		story_check("dfr", 0xffffffff, apic_read(APIC_DFR));
	}
}

/* What can be written to a register of the page: ones everywhere, and zeros, with what reads back. */
STORY(apic_writable_bits)
{
	enum apic_register offset = (enum apic_register)GIVEN(index);
	uint32_t bits = (uint32_t)GIVEN(value);

	if (!story_apic_mode())
		return;
	apic_write(offset, 0xffffffff & ~(uint32_t)GIVEN(other));
	story_check("ones", bits, apic_read(offset) & ~(uint32_t)GIVEN(other));
	apic_write(offset, offset == APIC_SVR ? SVR_ENABLE : 0);
	story_check("zeros", offset == APIC_SVR ? SVR_ENABLE : 0,
		    apic_read(offset) & ~(uint32_t)GIVEN(other));
}

/* MSRs 800H to 8FFH (SDM 3A table 11-6): what may be read in x2APIC mode (@mode 1), and none outside it. */
STORY(x2apic_read)
{
	uint64_t value;

	if (!story_has_x2apic() || !story_apic_mode())
		return;
	story_check("vector", GIVEN(value) ? STORY_NO_FAULT : 13,
		    story_try_rdmsr((uint32_t)GIVEN(index), &value));
}

STORY(x2apic_write)
{
	if (!story_has_x2apic() || !story_apic_mode())
		return;
	story_check("vector", GIVEN(count) ? STORY_NO_FAULT : 13,
		    story_try_wrmsr((uint32_t)GIVEN(index), GIVEN(value)));
	story_check("error", 0, story_fault_error());
}

/* ---- IA32_APIC_BASE: from one state to another (SDM 3A 11.12.5, figure 11-27) ---- */

static const uint64_t states[4] = {0, APIC_BASE_EN, APIC_BASE_EXT, APIC_BASE_EN | APIC_BASE_EXT};

static void enter_state(uint64_t base, unsigned state)
{
	machine_write_msr(APIC_BASE_MSR, base);
	machine_write_msr(APIC_BASE_MSR, base | APIC_BASE_EN);
	if (state == 3)
		machine_write_msr(APIC_BASE_MSR, base | states[3]);
	else if (state == 0)
		machine_write_msr(APIC_BASE_MSR, base);
}

static bool may_go(unsigned from, unsigned to)
{
	if (to == 2)
		return false;
	return from == to || (from == 0 && to == 1) || (from == 1) || (from == 3 && to == 0);
}

STORY(apic_base)
{
	unsigned from = (unsigned)GIVEN(from), to = (unsigned)GIVEN(to);
	uint64_t base, now;
	uint32_t r[4];

	if (!story_has_x2apic())
		return;
	base = machine_read_msr(APIC_BASE_MSR) & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXT);
	enter_state(base, from);
	story_check("from", states[from], machine_read_msr(APIC_BASE_MSR) & states[3]);
	story_check("vector", may_go(from, to) ? STORY_NO_FAULT : 13,
		    story_try_wrmsr(APIC_BASE_MSR, base | states[to]));
	now = may_go(from, to) ? states[to] : states[from];
	story_check("to", now, machine_read_msr(APIC_BASE_MSR) & states[3]);
	machine_cpuid(1, 0, r);
	story_check("cpuid", now != 0, r[3] >> 9 & 1);
	enter_state(base, 0);
	machine_write_msr(APIC_BASE_MSR, base | APIC_BASE_EN);
}

/* Reserved bits of it (SDM 3A 11.4.4). */
STORY(apic_base_reserved)
{
	uint64_t base;

	if (!story_has_apic())
		return;
	base = machine_read_msr(APIC_BASE_MSR);
	story_check("vector", 13, story_try_wrmsr(APIC_BASE_MSR, base | 1ull << GIVEN(index)));
	story_check("unchanged", base, machine_read_msr(APIC_BASE_MSR));
}

/* ---- destinations, of one processor ---- */

/* What an IPI to @destination does here, logically (@mode 1: flat, 2: cluster) or physically (0). */
STORY(apic_destination)
{
	uint32_t destination = (uint32_t)GIVEN(destination), own = (uint32_t)GIVEN(value),
		 mode = (uint32_t)GIVEN(mode);
	bool meant;

	if (!story_apic_mode())
		return;
	if (mode == 0) {
		meant = destination == apic_id() || destination == 0xff;
	} else {
		apic_write(APIC_DFR, mode == 1 ? 0xffffffff : 0x0fffffff);
		apic_write(APIC_LDR, own << 24);
		story_check("ldr", own << 24, apic_read(APIC_LDR));
		story_check("dfr", mode == 1 ? 0xffffffff : 0x0fffffff, apic_read(APIC_DFR));
		if (mode == 1)
			meant = destination & own;
		else
			meant = (destination == 0xff) ||
				(destination >> 4 == own >> 4 && (destination & own & 15)) ||
				(destination >> 4 == 15 && (destination & own & 15));
	}
	apic_send(destination, ICR_ASSERT | (mode ? ICR_LOGICAL : 0) | 0x52);
	story_open();
	story_check("delivered", meant, story_count(0x52));
}

/* The same of an x2APIC, whose logical ID follows from its ID (SDM 3A 11.12.10). */
STORY(x2apic_destination)
{
	uint32_t id, own, destination;
	bool meant, logical = GIVEN(mode);

	if (!story_apic_mode())
		return;
	id = apic_id();
	own = (id >> 4) << 16 | 1u << (id & 15);
	destination = (uint32_t)GIVEN(destination) ^ (GIVEN(value) ? (logical ? own : id) : 0);
	if (logical)
		meant = destination == 0xffffffff ||
			(destination >> 16 == own >> 16 && (destination & own & 0xffff));
	else
		meant = destination == 0xffffffff || destination == id;
	apic_send(destination, ICR_ASSERT | (logical ? ICR_LOGICAL : 0) | 0x52);
	story_open();
	story_check("delivered", meant, story_count(0x52));
}

/* Shorthands: 1 self, 2 all, 3 all others. */
STORY(apic_shorthand)
{
	unsigned shorthand = (unsigned)GIVEN(shorthand), vector = (unsigned)GIVEN(vector);

	if (!story_apic_mode())
		return;
	apic_send(0x77, shorthand << 18 | ICR_ASSERT | vector);
	story_open();
	story_check("delivered", shorthand != 3, story_count(vector));
	story_check("in_all", shorthand != 3, story_total());
	story_check("idle", 0, apic_read(APIC_ICR) & ICR_PENDING);
}

/* ---- NMI ---- */

static void nmi_again(struct story_frame *frame)
{
	if (frame->vector != 2)
		return;
	if (story_count(2) > 1)
		return;
	/* Blocked until IRET, however long that takes; several are one (SDM 3A 6.7.1). */
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	story_pause(100);
	story_check("blocked", 1, story_count(2));
	/* An exception in between is none of its business, but its IRET is. */
	if (GIVEN(mode)) {
		__asm__ volatile("int3");
		story_check("unblocked_by_iret", 2, story_count(2));
	}
}

STORY(nmi_blocking)
{
	if (!story_apic_mode())
		return;
	story_handle(nmi_again);
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	story_pause(100);
	story_check("both", 2, story_count(2));
	story_check("in_service", 0, apic_bit(APIC_ISR, 2));
}

/* NMI before an interrupt (SDM 3A table 6-2), and whatever TPR and IF are. */
STORY(nmi_priority)
{
	unsigned vector = (unsigned)GIVEN(vector);

	if (!story_apic_mode())
		return;
	apic_write(APIC_TPR, 0xf0);
	send_self(vector);
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	story_pause(100);
	story_check("nmi", 1, story_count(2));
	story_check("held", 0, story_count(vector));
	apic_write(APIC_TPR, 0);
	story_open();
	story_check("order", vector, story_order(1));
}

/* INT 2 is no NMI: it blocks none. */
static void nmi_in_int2(struct story_frame *frame)
{
	if (frame->vector == 2 && story_count(2) == 1) {
		apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
		story_pause(100);
		story_check("nested", 2, story_count(2));
	}
}

STORY(nmi_within_int2)
{
	if (!story_apic_mode())
		return;
	story_handle(nmi_in_int2);
	__asm__ volatile("int $2");
	story_check("both", 2, story_count(2));
}
