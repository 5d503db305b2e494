#include "chip/lapic_parts.h"

/* ---- sets of vectors ---- */

static bool in_set(const uint32_t *set, unsigned vector) { return set[vector >> 5] >> (vector & 31) & 1; }
static void set_in(uint32_t *set, unsigned vector) { set[vector >> 5] |= 1u << (vector & 31); }
static void clear_in(uint32_t *set, unsigned vector) { set[vector >> 5] &= ~(1u << (vector & 31)); }

/* The highest vector in @set that is in @among too, where that is not NULL; -1: none. */
static int highest(const uint32_t *set, const uint32_t *among)
{
	for (int i = 7; i >= 0; i--) {
		uint32_t word = among ? set[i] & among[i] : set[i];

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

/* ---- priorities (SDM 3A 11.8.3) ---- */

static const uint32_t *enabled_vectors(const struct lapic *lapic)
{
	return lapic->extended_control & EXTENDED_IER ? lapic->ier : NULL;
}

static uint32_t in_service_class(const struct lapic *lapic)
{
	int vector = highest(lapic->isr, NULL);

	return vector < 0 ? 0 : (uint32_t)vector & 0xf0;
}

/* Of equal classes it is the whole of TPR, which the manual leaves to the model. */
uint32_t lapic_ppr(const struct lapic *lapic)
{
	uint32_t served = in_service_class(lapic);

	return (lapic->tpr & 0xf0) >= served ? lapic->tpr : served;
}

/* Arbitration priority (SDM 3A 11.6.2.4, APM 2 16.6.1): what has been accepted counts as well. */
uint32_t lapic_apr(const struct lapic *lapic)
{
	int vector = highest(lapic->irr, NULL);
	uint32_t requested = vector < 0 ? 0 : (uint32_t)vector & 0xf0, served = in_service_class(lapic);
	uint32_t task = lapic->tpr & 0xf0;

	if (task >= requested && task > served)
		return lapic->tpr;
	if (requested < task)
		requested = task;
	return requested > served ? requested : served;
}

/* The vector that would be dispensed now, or -1: its class must exceed the processor priority's. */
static int deliverable(const struct lapic *lapic)
{
	int vector = highest(lapic->irr, enabled_vectors(lapic));

	if (vector < 0 || !lapic_enabled(lapic))
		return -1;
	if (CHIP_CHECK(LAPIC_PRIORITY, ((uint32_t)vector & 0xf0) <= (lapic_ppr(lapic) & 0xf0)))
		return -1;
	return vector;
}

/* ---- pins ---- */

static enum lapic_lvt lvt_of_pin(unsigned pin) { return pin ? LVT_LINT1 : LVT_LINT0; }

static bool asserted(const struct lapic *lapic, unsigned pin)
{
	bool low_active = lapic->lvt[lvt_of_pin(pin)] & APIC_POLARITY;

	return (lapic->lint >> pin & 1) != low_active;
}

/* ExtINT goes past all priorities: it is the level of the pin. A disabled APIC leaves LINT0 to be INTR. */
static bool extint_asked(const struct lapic *lapic)
{
	if (!lapic_enabled(lapic))
		return lapic->lint & 1;
	if (lapic->extint)
		return true;
	for (unsigned pin = 0; pin < 2; pin++) {
		uint32_t entry = lapic->lvt[lvt_of_pin(pin)];

		if (CHIP_CHECK(LAPIC_LVT_MASK, entry & APIC_MASKED))
			continue;
		if (apic_delivery_of(entry) == APIC_EXTINT && asserted(lapic, pin))
			return true;
	}
	return false;
}

void lapic_update(struct lapic *lapic)
{
	uint8_t line = deliverable(lapic) >= 0 || extint_asked(lapic);

	if (line == lapic->line)
		return;
	lapic->line = line;
	lapic->cpu.interrupt_line(lapic->cpu.owner, line);
}

/* ---- acceptance ---- */

/* Into IRR, and TMR says how (SDM 3A 11.8.4); 0 to 15 are no vectors. */
static void accept(struct lapic *lapic, uint8_t vector, bool level)
{
	if (CHIP_CHECK(LAPIC_RECEIVE_VECTOR, vector < 16)) {
		lapic_error(lapic, ERROR_RECEIVE_VECTOR);
		return;
	}
	set_in(lapic->irr, vector);
	if (level)
		set_in(lapic->tmr, vector);
	else
		clear_in(lapic->tmr, vector);
	lapic_update(lapic);
}

/* An error waits for a write to ESR to be seen; until then it asks once (SDM 3A 11.5.3). */
void lapic_error(struct lapic *lapic, uint32_t error)
{
	bool first = !lapic->esr_pending;

	lapic->esr_pending |= error;
	if (first)
		lapic_deliver_local(lapic, LVT_ERROR);
}

/* What an entry's delivery mode does, for all but ExtINT (SDM 3A 11.5.1). */
static void deliver_mode(struct lapic *lapic, enum lapic_lvt source, bool level)
{
	uint32_t entry = lapic->lvt[source];
	void *owner = lapic->cpu.owner;
	bool pin = source == LVT_LINT0 || source == LVT_LINT1;

	/* Timer and error have no delivery mode: their bits read 0, which is fixed. */
	switch (apic_delivery_of(entry)) {
	case APIC_FIXED: accept(lapic, (uint8_t)entry, level); break;
	case APIC_SMI: lapic->cpu.smi(owner); break;
	case APIC_NMI: lapic->cpu.nmi(owner); break;
	case APIC_INIT:
		if (pin)
			lapic->cpu.init(owner);
		break;
	case APIC_LOWEST_PRIORITY:
	case APIC_REMOTE_READ:
	case APIC_STARTUP:
	case APIC_EXTINT: break;
	}
}

void lapic_deliver_local(struct lapic *lapic, enum lapic_lvt source)
{
	if (CHIP_CHECK(LAPIC_LVT_MASK, lapic->lvt[source] & APIC_MASKED))
		return;
	/* The vector is taken before; the handler of a counter's overflow finds the entry masked. */
	deliver_mode(lapic, source, false);
	if (source == LVT_PERFORMANCE && CHIP_CHECK(LAPIC_PERFORMANCE_MASK, !lapic->model.amd))
		lapic->lvt[source] |= APIC_MASKED;
}

void lapic_local(struct lapic *lapic, enum lapic_lvt source)
{
	if (lapic_enabled(lapic))
		lapic_deliver_local(lapic, source);
}

/*
 * A pin after its level or its entry may have changed. Only fixed interrupts of LINT0 can be level-triggered
 * (SDM 3A 11.5.1); what is accepted so is not accepted again before its EOI.
 */
static void pin_changed(struct lapic *lapic, unsigned pin, bool was)
{
	enum lapic_lvt source = lvt_of_pin(pin);
	uint32_t *entry = &lapic->lvt[source];
	bool now = asserted(lapic, pin);
	bool level = !pin && (*entry & APIC_LEVEL) && apic_delivery_of(*entry) == APIC_FIXED;

	if (!lapic_enabled(lapic)) {
		if (pin && now && !was)
			lapic->cpu.nmi(lapic->cpu.owner);
	} else if (!CHIP_CHECK(LAPIC_LVT_MASK, *entry & APIC_MASKED)) {
		if (level && now && !(*entry & APIC_REMOTE_IRR)) {
			*entry |= APIC_REMOTE_IRR;
			deliver_mode(lapic, source, true);
		} else if (!level && now && !was) {
			deliver_mode(lapic, source, false);
		}
	}
	lapic_update(lapic);
}

void lapic_set_lint(struct lapic *lapic, unsigned pin, bool level)
{
	bool was = asserted(lapic, pin);

	lapic->lint = (uint8_t)((lapic->lint & ~(1u << pin)) | (level ? 1u << pin : 0));
	pin_changed(lapic, pin, was);
}

/* An edge needs a pin that moves: what turns the pin's meaning around is none. */
void lapic_write_lint(struct lapic *lapic, unsigned pin, uint32_t entry)
{
	uint32_t *old = &lapic->lvt[lvt_of_pin(pin)];
	uint32_t remote_irr = entry & APIC_LEVEL ? *old & APIC_REMOTE_IRR : 0;

	*old = (entry & ~APIC_REMOTE_IRR) | remote_irr;
	pin_changed(lapic, pin, asserted(lapic, pin));
}

void lapic_nmi_pin(struct lapic *lapic)
{
	lapic_set_lint(lapic, 1, true);
	lapic_set_lint(lapic, 1, false);
}

/* What a processor with a software-disabled APIC still hears (SDM 3A 11.4.7.2). */
bool lapic_deliver(struct lapic *lapic, const struct apic_message *message)
{
	void *owner = lapic->cpu.owner;

	switch (message->delivery) {
	case APIC_FIXED:
	case APIC_LOWEST_PRIORITY:
		if (CHIP_CHECK(LAPIC_SOFTWARE_DISABLED, !lapic_software_enabled(lapic)))
			return false;
		accept(lapic, message->vector, message->level);
		return true;
	case APIC_SMI: lapic->cpu.smi(owner); return true;
	case APIC_NMI: lapic->cpu.nmi(owner); return true;
	case APIC_INIT:
		/* INIT level de-assert would set arbitration ids, which no bus of today has (SDM 3A 11.6.1).
		 */
		if (!CHIP_CHECK(LAPIC_INIT_DEASSERT, message->level && !message->assert))
			lapic->cpu.init(owner);
		return true;
	case APIC_STARTUP: lapic->cpu.sipi(owner, message->vector); return true;
	case APIC_EXTINT:
		lapic->extint = 1;
		lapic_update(lapic);
		return true;
	case APIC_REMOTE_READ: break;
	}
	return false;
}

int lapic_acknowledge(struct lapic *lapic)
{
	int vector;

	if (extint_asked(lapic)) {
		lapic->extint = 0;
		vector = lapic->bus->extint_acknowledge(lapic->bus->owner);
	} else {
		vector = deliverable(lapic);
		if (vector < 0)
			return -1;
		clear_in(lapic->irr, (unsigned)vector);
		set_in(lapic->isr, (unsigned)vector);
	}
	lapic_update(lapic);
	return vector;
}

/* ---- end of interrupt (SDM 3A 11.8.5) ---- */

static bool broadcasts(const struct lapic *lapic, unsigned vector)
{
	if (CHIP_CHECK(LAPIC_EOI_EDGE, !in_set(lapic->tmr, vector)))
		return false;
	return !CHIP_CHECK(LAPIC_EOI_SUPPRESS, lapic->svr & SVR_EOI_SUPPRESS);
}

static void end(struct lapic *lapic, unsigned vector)
{
	uint32_t *lint0 = &lapic->lvt[LVT_LINT0];

	clear_in(lapic->isr, vector);
	if (broadcasts(lapic, vector) && lapic->bus->eoi)
		lapic->bus->eoi(lapic->bus->owner, (uint8_t)vector);
	if ((*lint0 & APIC_REMOTE_IRR) && (*lint0 & APIC_VECTOR) == vector) {
		*lint0 &= ~APIC_REMOTE_IRR;
		pin_changed(lapic, 0, true);
	}
	lapic_update(lapic);
}

void lapic_eoi(struct lapic *lapic)
{
	int vector = highest(lapic->isr, NULL);

	if (vector >= 0)
		end(lapic, (unsigned)vector);
}

void lapic_specific_eoi(struct lapic *lapic, uint8_t vector)
{
	if (in_set(lapic->isr, vector))
		end(lapic, vector);
}

void lapic_write_cr8(struct lapic *lapic, uint64_t cr8)
{
	lapic->tpr = (uint32_t)(cr8 & 0xf) << 4;
	lapic_update(lapic);
}

/* ---- life ---- */

static uint32_t logical_x2apic_id(uint32_t id) { return id >> 4 << 16 | 1u << (id & 15); }

/* State after power-up, reset and INIT (SDM 3A 11.4.7.1, 11.4.7.3, 11.12.5.1). */
static void reset_registers(struct lapic *lapic)
{
	lapic->tpr = lapic->esr = lapic->esr_pending = lapic->remote_read = 0;
	lapic->dfr = 0xffffffff;
	lapic->svr = 0xff;
	lapic->icr = 0;
	lapic->ldr = lapic_x2apic(lapic) ? logical_x2apic_id(lapic->id) : 0;
	lapic->extended_control = 0;
	for (unsigned i = 0; i < 8; i++) {
		lapic->irr[i] = lapic->isr[i] = lapic->tmr[i] = 0;
		lapic->ier[i] = 0xffffffff;
	}
	for (unsigned i = 0; i < LVT_COUNT; i++)
		lapic->lvt[i] = APIC_MASKED;
	lapic->initial_count = lapic->divide = lapic->timer_count = 0;
	lapic->timer_began = lapic->tsc_deadline = 0;
	lapic->extint = 0;
}

void lapic_reset(struct lapic *lapic, bool init)
{
	if (!init) {
		lapic->base = APIC_DEFAULT_BASE | APIC_BASE_ENABLE | (lapic->bsp ? APIC_BASE_BSP : 0);
		lapic->apic_id = lapic->id & 0xff;
	}
	reset_registers(lapic);
	lapic_timer_arm(lapic);
	lapic_update(lapic);
	lapic->cpu.tpr_written(lapic->cpu.owner, 0);
	apic_bus_retry(lapic->bus);
}

void lapic_virtual_wire(struct lapic *lapic)
{
	lapic->svr |= SVR_ENABLE;
	lapic->lvt[LVT_LINT0] = APIC_EXTINT << 8 | APIC_LEVEL;
	lapic->lvt[LVT_LINT1] = APIC_NMI << 8 | APIC_LEVEL;
	lapic_update(lapic);
	apic_bus_retry(lapic->bus);
}

bool lapic_init(struct lapic *lapic, uint32_t id, const struct lapic_model *model,
		const struct lapic_cpu *cpu, struct apic_bus *bus, struct clock *clock)
{
	if (bus->count == APICS_MAX || !clock_add(clock, &lapic->timer, lapic_timer_fired, lapic))
		return false;
	lapic->id = id;
	lapic->bsp = !bus->count;
	lapic->model = *model;
	lapic->cpu = *cpu;
	lapic->bus = bus;
	lapic->lint = bus->extint;
	bus->apic[bus->count++] = lapic;
	lapic_reset(lapic, false);
	return true;
}

/* ---- IA32_APIC_BASE (SDM 3A 11.4.3, 11.12.5; APM 2 16.3.1) ---- */

bool lapic_claims(const struct lapic *lapic, uint64_t address)
{
	return (lapic->base & (APIC_BASE_ENABLE | APIC_BASE_EXTD)) == APIC_BASE_ENABLE &&
	       address >> 12 == lapic->base >> 12;
}

static bool base_valid(const struct lapic *lapic, uint64_t value)
{
	const uint64_t modes = APIC_BASE_ENABLE | APIC_BASE_EXTD;
	uint64_t address = ((1ull << lapic->model.physical_bits) - 1) & ~0xfffull;
	uint64_t defined =
		address | APIC_BASE_BSP | APIC_BASE_ENABLE | (lapic->model.x2apic ? APIC_BASE_EXTD : 0);
	uint64_t was = lapic->base & modes, now = value & modes;

	if (CHIP_CHECK(LAPIC_BASE_RESERVED, value & ~defined))
		return false;
	if (CHIP_CHECK(LAPIC_BASE_INVALID, now == APIC_BASE_EXTD))
		return false;
	/* From x2APIC mode only to disabled, from there only to xAPIC mode. */
	if (CHIP_CHECK(LAPIC_BASE_X2APIC_TO_XAPIC, was == modes && now == APIC_BASE_ENABLE))
		return false;
	return !CHIP_CHECK(LAPIC_BASE_DISABLED_TO_X2APIC, !was && now == modes);
}

/* What a disabled APIC knew is lost, as the manual permits; xAPIC to x2APIC keeps it, but for LDR. */
bool lapic_write_base(struct lapic *lapic, uint64_t value)
{
	uint64_t was = lapic->base;

	if (!base_valid(lapic, value))
		return false;
	lapic_timer_settle(lapic);
	lapic->base = value;
	if ((was ^ value) & APIC_BASE_ENABLE) {
		reset_registers(lapic);
		lapic->cpu.tpr_written(lapic->cpu.owner, 0);
	} else if ((was ^ value) & APIC_BASE_EXTD) {
		lapic->apic_id = lapic->id & 0xff;
		lapic->ldr = logical_x2apic_id(lapic->id);
		lapic->icr &= 0xffffffff;
	}
	lapic_timer_arm(lapic);
	lapic_update(lapic);
	apic_bus_retry(lapic->bus);
	return true;
}

/* ---- state ---- */

static void loaded(void *device)
{
	struct lapic *lapic = device;

	lapic_timer_arm(lapic);
	lapic->cpu.tpr_written(lapic->cpu.owner, (uint8_t)lapic->tpr);
	lapic->cpu.interrupt_line(lapic->cpu.owner, lapic->line);
}

static const struct state_field fields[] = {
	STATE(struct lapic, base),
	STATE(struct lapic, apic_id),
	STATE(struct lapic, tpr),
	STATE(struct lapic, ldr),
	STATE(struct lapic, dfr),
	STATE(struct lapic, svr),
	STATE(struct lapic, esr),
	STATE(struct lapic, esr_pending),
	STATE(struct lapic, remote_read),
	STATE(struct lapic, irr),
	STATE(struct lapic, isr),
	STATE(struct lapic, tmr),
	STATE(struct lapic, icr),
	STATE(struct lapic, lvt),
	STATE(struct lapic, extended_control),
	STATE(struct lapic, ier),
	STATE(struct lapic, initial_count),
	STATE(struct lapic, divide),
	STATE(struct lapic, timer_count),
	STATE(struct lapic, timer_began),
	STATE(struct lapic, tsc_deadline),
	STATE(struct lapic, lint),
	STATE(struct lapic, extint),
	STATE(struct lapic, line),
};
STATE_TABLE(lapic_state, "lapic", 1, fields, loaded);
