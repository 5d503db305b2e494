/*
 * lapic_registers.c: the local APIC's registers as software sees them: the page of xAPIC mode (SDM 3A table
 * 11-1, APM 2 table 16-2) and the MSRs of x2APIC mode (SDM 3A table 11-6). Both are numbered by the offset in
 * the page; MSR 800H + n is offset 16 n.
 */
#include "chip/lapic_parts.h"

enum offset {
	REG_ID = 0x20,
	REG_VERSION = 0x30,
	REG_TPR = 0x80,
	REG_APR = 0x90,
	REG_PPR = 0xa0,
	REG_EOI = 0xb0,
	REG_REMOTE_READ = 0xc0,
	REG_LDR = 0xd0,
	REG_DFR = 0xe0,
	REG_SVR = 0xf0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_LVT_CMCI = 0x2f0,
	REG_ICR = 0x300,
	REG_ICR_HIGH = 0x310,
	REG_LVT_TIMER = 0x320,
	REG_LVT_ERROR = 0x370,
	REG_INITIAL_COUNT = 0x380,
	REG_CURRENT_COUNT = 0x390,
	REG_DIVIDE = 0x3e0,
	REG_SELF_IPI = 0x3f0, /* x2APIC mode */
	/* AMD's extended space */
	REG_EXTENDED = 0x400,
	REG_EXTENDED_CONTROL = 0x410,
	REG_SEOI = 0x420,
	REG_IER = 0x480,
	REG_LVT_EXTENDED = 0x500
};

#define ICR_WRITABLE      0x000ccfffu /* all but delivery status and what is reserved */
#define ICR_REMOTE_STATUS (3u << 16)
#define EXTENDED_LVTS     4u

/* ---- the local vector table ---- */

static int lvt_at(const struct lapic *lapic, unsigned offset)
{
	if (offset == REG_LVT_CMCI)
		return lapic->model.cmci ? LVT_CMCI : -1;
	if (offset >= REG_LVT_TIMER && offset <= REG_LVT_ERROR)
		return LVT_TIMER + (int)((offset - REG_LVT_TIMER) >> 4);
	if (lapic->model.extended && offset >= REG_LVT_EXTENDED &&
	    offset < REG_LVT_EXTENDED + 16 * EXTENDED_LVTS)
		return LVT_EXTENDED + (int)((offset - REG_LVT_EXTENDED) >> 4);
	return -1;
}

/* The bits that an entry has (SDM 3A figure 11-8), but for delivery status and remote IRR, which read only.
 */
static uint32_t lvt_bits(const struct lapic *lapic, enum lapic_lvt source)
{
	uint32_t common = APIC_VECTOR | APIC_MASKED;

	switch (source) {
	case LVT_TIMER: return common | (lapic->model.tsc_deadline ? LVT_TIMER_MODE : 1u << 17);
	case LVT_ERROR: return common;
	case LVT_LINT0:
	case LVT_LINT1: return common | APIC_DELIVERY | APIC_POLARITY | APIC_LEVEL;
	default: return common | APIC_DELIVERY;
	}
}

static uint32_t lvt_read_only(enum lapic_lvt source)
{
	return APIC_STATUS | (source == LVT_LINT0 || source == LVT_LINT1 ? APIC_REMOTE_IRR : 0);
}

/* A software-disabled APIC keeps all entries masked (SDM 3A 11.4.7.2). */
static void write_lvt(struct lapic *lapic, enum lapic_lvt source, uint32_t value)
{
	value &= lvt_bits(lapic, source);
	if (CHIP_CHECK(LAPIC_DISABLED_LVT, !lapic_software_enabled(lapic)))
		value |= APIC_MASKED;
	if (source == LVT_TIMER)
		lapic_timer_write_lvt(lapic, value);
	else if (source == LVT_LINT0 || source == LVT_LINT1)
		lapic_write_lint(lapic, source - LVT_LINT0, value);
	else
		lapic->lvt[source] = value;
}

/* ---- single registers ---- */

static uint32_t svr_bits(const struct lapic *lapic)
{
	return lapic->model.amd ? APIC_VECTOR | SVR_ENABLE | SVR_FOCUS_OFF
				: APIC_VECTOR | SVR_ENABLE | SVR_EOI_SUPPRESS;
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
	lapic->svr = value & svr_bits(lapic);
	if (lapic_software_enabled(lapic))
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		write_lvt(lapic, (enum lapic_lvt)i, lapic->lvt[i]);
}

/* Version 1xH is that of an APIC within the processor; what is in the high half differs (SDM 3A 11.4.8, APM 2
 * 16.3.4). */
static uint32_t version(const struct lapic *lapic)
{
	uint32_t last = lapic->model.cmci ? 6 : 5;

	if (lapic->model.amd)
		return 0x10 | last << 16 | (uint32_t)lapic->model.extended << 31;
	return 0x15 | last << 16 | 1u << 24;
}

/* A write shows the errors since the write before, and lets the next one ask again (SDM 3A 11.5.3). */
static void write_esr(struct lapic *lapic)
{
	lapic->esr = lapic->esr_pending;
	lapic->esr_pending = 0;
}

static void write_tpr(struct lapic *lapic, uint32_t value)
{
	lapic->tpr = value & 0xff;
	lapic->cpu.tpr_written(lapic->cpu.owner, (uint8_t)lapic->tpr);
}

/* Of 32-bit registers of 256 bits, the word at @offset. */
static bool in_range(unsigned offset, unsigned first, unsigned *word)
{
	*word = (offset - first) >> 4;
	return offset >= first && *word < 8;
}

static uint32_t id_register(const struct lapic *lapic)
{
	return lapic_x2apic(lapic) ? lapic->id : lapic->apic_id << 24;
}

/* ---- reading ---- */

static uint32_t read_extended(struct lapic *lapic, unsigned offset, bool *exists)
{
	unsigned word;

	if (lapic->model.extended) {
		if (in_range(offset, REG_IER, &word))
			return lapic->ier[word];
		switch (offset) {
		case REG_EXTENDED: return EXTENDED_LVTS << 16 | EXTENDED_IER | EXTENDED_SEOI | EXTENDED_ID8;
		case REG_EXTENDED_CONTROL: return lapic->extended_control;
		case REG_SEOI: return 0;
		default: break;
		}
	}
	*exists = false;
	return 0;
}

static uint32_t read_sets(struct lapic *lapic, unsigned offset, bool *exists)
{
	unsigned word;

	if (in_range(offset, REG_ISR, &word))
		return lapic->isr[word];
	if (in_range(offset, REG_TMR, &word))
		return lapic->tmr[word];
	if (in_range(offset, REG_IRR, &word))
		return lapic->irr[word];
	return read_extended(lapic, offset, exists);
}

uint32_t lapic_read(struct lapic *lapic, unsigned offset, bool *exists)
{
	int source = lvt_at(lapic, offset);

	*exists = true;
	if (source >= 0)
		return lapic->lvt[source];
	switch (offset) {
	case REG_ID: return id_register(lapic);
	case REG_VERSION: return version(lapic);
	case REG_TPR: return lapic->tpr;
	/* These two a newer Intel processor has not, without calling them illegal (SDM 3A table 11-1). */
	case REG_APR: return lapic->model.amd ? lapic_apr(lapic) : 0;
	case REG_REMOTE_READ: return lapic->model.amd ? lapic->remote_read : 0;
	case REG_PPR: return lapic_ppr(lapic);
	case REG_EOI: return 0;
	case REG_LDR: return lapic->ldr;
	case REG_DFR: return lapic->dfr;
	case REG_SVR: return lapic->svr;
	case REG_ESR: return lapic->esr;
	case REG_ICR: return (uint32_t)lapic->icr;
	case REG_ICR_HIGH: return (uint32_t)(lapic->icr >> 32);
	case REG_INITIAL_COUNT: return lapic->initial_count;
	case REG_CURRENT_COUNT: return lapic_timer_current(lapic);
	case REG_DIVIDE: return lapic->divide;
	default: return read_sets(lapic, offset, exists);
	}
}

/* ---- writing ---- */

static bool write_extended(struct lapic *lapic, unsigned offset, uint32_t value)
{
	unsigned word;

	if (in_range(offset, REG_IER, &word)) {
		lapic->ier[word] = value;
		return true;
	}
	switch (offset) {
	case REG_EXTENDED: return true;
	case REG_EXTENDED_CONTROL:
		lapic->extended_control = value & (EXTENDED_IER | EXTENDED_SEOI | EXTENDED_ID8);
		return true;
	case REG_SEOI:
		if (lapic->extended_control & EXTENDED_SEOI)
			lapic_specific_eoi(lapic, (uint8_t)value);
		return true;
	default: return false;
	}
}

/* What can be written in both modes; false: nothing there. */
static bool write_common(struct lapic *lapic, unsigned offset, uint32_t value)
{
	int source = lvt_at(lapic, offset);

	if (source >= 0) {
		write_lvt(lapic, (enum lapic_lvt)source, value);
		return true;
	}
	switch (offset) {
	case REG_TPR: write_tpr(lapic, value); return true;
	case REG_EOI: lapic_eoi(lapic); return true;
	case REG_SVR: write_svr(lapic, value); return true;
	case REG_ESR: write_esr(lapic); return true;
	case REG_INITIAL_COUNT: lapic_timer_write_initial(lapic, value); return true;
	case REG_DIVIDE: lapic_timer_write_divide(lapic, value); return true;
	default: return lapic->model.extended && write_extended(lapic, offset, value);
	}
}

/* Only AMD's APIC id can be written (APM 2 16.3.3); of 8 bits, or 4 where the control register says so. */
static void write_id(struct lapic *lapic, uint32_t value)
{
	uint32_t width = lapic->model.extended && !(lapic->extended_control & EXTENDED_ID8) ? 0xf : 0xff;

	if (lapic->model.amd)
		lapic->apic_id = value >> 24 & width;
}

/* The page. Writing what only reads is no error, a register that does not exist is one (SDM 3A 11.5.3). */
static void write_page(struct lapic *lapic, unsigned offset, uint32_t value)
{
	bool exists;

	switch (offset) {
	case REG_ID: write_id(lapic, value); break;
	case REG_LDR: lapic->ldr = value & 0xff000000; break;
	case REG_DFR: lapic->dfr = value | 0x0fffffff; break;
	case REG_ICR_HIGH: lapic->icr = (uint32_t)lapic->icr | (uint64_t)(value & 0xff000000) << 32; break;
	case REG_ICR:
		lapic->icr = (lapic->icr & ~0xffffffffull) | (value & ICR_WRITABLE);
		lapic_send(lapic, lapic->icr);
		break;
	default:
		if (write_common(lapic, offset, value))
			break;
		lapic_read(lapic, offset, &exists);
		if (CHIP_CHECK(LAPIC_ILLEGAL_REGISTER, !exists))
			lapic_error(lapic, ERROR_REGISTER);
	}
	lapic_update(lapic);
	if (offset == REG_ID || offset == REG_LDR || offset == REG_DFR || offset == REG_SVR)
		apic_bus_retry(lapic->bus);
}

static uint32_t word_at(const uint8_t *byte)
{
	return byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

void lapic_mmio_read(struct lapic *lapic, unsigned offset, void *to, unsigned size)
{
	uint8_t *byte = to;

	while (size) {
		unsigned within = offset & 15;
		bool exists;
		uint32_t value = lapic_read(lapic, offset & 0xff0, &exists);

		if (CHIP_CHECK(LAPIC_ILLEGAL_REGISTER, !exists))
			lapic_error(lapic, ERROR_REGISTER);
		for (; size && within < 16; size--, within++, offset++)
			*byte++ = (uint8_t)(within < 4 ? value >> 8 * within : 0);
	}
}

void lapic_mmio_write(struct lapic *lapic, unsigned offset, const void *from, unsigned size)
{
	const uint8_t *byte = from;

	if (offset & 15 || size < 4)
		return;
	write_page(lapic, offset & 0xff0, word_at(byte));
}

/* ---- x2APIC mode ---- */

static bool is_icr_half(unsigned offset) { return offset == REG_ICR || offset == REG_ICR_HIGH; }

/* Registers of the page that have no MSR, or one that can only be written. */
static bool x2apic_reads(const struct lapic *lapic, unsigned offset)
{
	switch (offset) {
	case REG_EOI:
	case REG_REMOTE_READ:
	case REG_DFR:
	case REG_SELF_IPI:
	case REG_ICR_HIGH: return false;
	case REG_APR: return lapic->model.amd;
	default: return true;
	}
}

static bool read_x2apic(struct lapic *lapic, unsigned offset, uint64_t *value)
{
	bool exists;

	if (CHIP_CHECK(LAPIC_X2APIC_READ, !x2apic_reads(lapic, offset)))
		return false;
	*value = is_icr_half(offset) ? lapic->icr : lapic_read(lapic, offset, &exists);
	return is_icr_half(offset) || exists;
}

/* The bits that may be set in a write, or 0 with @exists false where there is no such register to write. */
static uint64_t x2apic_writable(const struct lapic *lapic, unsigned offset, bool *exists)
{
	int source = lvt_at(lapic, offset);
	unsigned word;

	*exists = true;
	if (source >= 0)
		return lvt_bits(lapic, (enum lapic_lvt)source) | lvt_read_only((enum lapic_lvt)source);
	switch (offset) {
	case REG_TPR: return 0xff;
	case REG_EOI:
	case REG_ESR: return 0;
	case REG_SVR: return svr_bits(lapic);
	case REG_ICR: return 0xffffffff00000000 | ICR_WRITABLE | APIC_STATUS;
	case REG_INITIAL_COUNT: return 0xffffffff;
	case REG_DIVIDE: return 0xb;
	case REG_SELF_IPI: return APIC_VECTOR;
	default: break;
	}
	*exists = lapic->model.extended &&
		  (offset == REG_EXTENDED_CONTROL || offset == REG_SEOI || in_range(offset, REG_IER, &word));
	if (offset == REG_EXTENDED_CONTROL)
		return EXTENDED_IER | EXTENDED_SEOI | EXTENDED_ID8;
	return offset == REG_SEOI ? 0xff : 0xffffffff;
}

static bool write_x2apic(struct lapic *lapic, unsigned offset, uint64_t value)
{
	bool exists;
	uint64_t writable = x2apic_writable(lapic, offset, &exists);

	if (!exists || CHIP_CHECK(LAPIC_X2APIC_RESERVED, value & ~writable))
		return false;
	if (offset == REG_ICR) {
		lapic->icr = value & (0xffffffff00000000 | ICR_WRITABLE);
		lapic_send(lapic, lapic->icr);
	} else if (offset == REG_SELF_IPI) {
		/* Fixed, edge, to itself (SDM 3A 11.12.11); ICR is not changed. */
		lapic_send(lapic, 1u << 18 | APIC_ASSERT | (value & APIC_VECTOR));
	} else {
		write_common(lapic, offset, (uint32_t)value);
	}
	lapic_update(lapic);
	if (offset == REG_SVR)
		apic_bus_retry(lapic->bus);
	return true;
}

bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *value)
{
	if (index == MSR_APIC_BASE) {
		*value = lapic->base;
		return true;
	}
	if (index == MSR_TSC_DEADLINE) {
		*value = lapic_timer_deadline(lapic);
		return lapic->model.tsc_deadline;
	}
	if (CHIP_CHECK(LAPIC_X2APIC_MODE, !lapic_x2apic(lapic)) ||
	    index - MSR_X2APIC_FIRST >= MSR_X2APIC_COUNT)
		return false;
	return read_x2apic(lapic, (index - MSR_X2APIC_FIRST) << 4, value);
}

bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t value)
{
	if (index == MSR_APIC_BASE)
		return lapic_write_base(lapic, value);
	if (index == MSR_TSC_DEADLINE) {
		if (lapic->model.tsc_deadline)
			lapic_timer_write_deadline(lapic, value);
		return lapic->model.tsc_deadline;
	}
	if (CHIP_CHECK(LAPIC_X2APIC_MODE, !lapic_x2apic(lapic)) ||
	    index - MSR_X2APIC_FIRST >= MSR_X2APIC_COUNT)
		return false;
	return write_x2apic(lapic, (index - MSR_X2APIC_FIRST) << 4, value);
}
