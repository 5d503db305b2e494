/* soft_chips.c: what a vCPU reaches outside itself: the bus, and its interrupt chips. */
#include "engine/soft.h"

#include "x86/msr.h"

static struct soft *soft_behind(void *owner) { return ((struct soft_vcpu *)owner)->soft; }

/* ---- ports and memory ---- */

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	const struct engine_bus *bus = &soft_behind(owner)->bus;

	return bus->port_in(bus->owner, port, size);
}

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	const struct engine_bus *bus = &soft_behind(owner)->bus;

	bus->port_out(bus->owner, port, size, value);
}

static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	const struct engine_bus *bus = &soft_behind(owner)->bus;

	bus->mmio_read(bus->owner, address, to, size);
}

static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	const struct engine_bus *bus = &soft_behind(owner)->bus;

	bus->mmio_write(bus->owner, address, from, size);
}

/* ---- MSRs ---- */

/* IA32_APIC_BASE (SDM 3A 11.4.4): bits that no processor here has are reserved. */
static bool apic_base_valid(const struct soft *soft, uint64_t value)
{
	uint64_t address = (1ull << soft->profile.physical_bits) - 1;
	uint64_t flags = APIC_BASE_BSP | APIC_BASE_ENABLE;

	if (profile_has(&soft->profile, FEATURE_x2apic))
		flags |= APIC_BASE_EXTD;
	if (value & ~((address & ~0xfffull) | flags))
		return false;
	/* x2APIC mode without the APIC is an invalid state (SDM 3A 11.12.1). */
	return (value & (APIC_BASE_ENABLE | APIC_BASE_EXTD)) != APIC_BASE_EXTD;
}

static bool msr_read(void *owner, uint32_t index, uint64_t *value)
{
	struct cpu *cpu = ((struct soft_vcpu *)owner)->cpu;

	switch (index) {
	case MSR_APIC_BASE: *value = cpu->msr.apic_base; return cpu_has(cpu, FEATURE_apic);
	case MSR_TSC_DEADLINE: *value = cpu->msr.tsc_deadline; return cpu_has(cpu, FEATURE_tsc_deadline);
	default:
		/* The x2APIC range outside x2APIC mode (SDM 3A 11.12.2). */
		if (cpu->msr.apic_base & APIC_BASE_EXTD)
			cpu_unmodelled(cpu, "RDMSR of the local APIC in x2APIC mode");
		return false;
	}
}

static bool msr_write(void *owner, uint32_t index, uint64_t value)
{
	struct cpu *cpu = ((struct soft_vcpu *)owner)->cpu;

	switch (index) {
	case MSR_APIC_BASE:
		if (!cpu_has(cpu, FEATURE_apic) || !apic_base_valid(soft_behind(owner), value))
			return false;
		cpu->msr.apic_base = value;
		return true;
	case MSR_TSC_DEADLINE:
		/* Outside TSC-deadline mode, which only the local APIC can enter, it is ignored (SDM
		 * 3A 11.5.4.1). */
		return cpu_has(cpu, FEATURE_tsc_deadline);
	default:
		if (cpu->msr.apic_base & APIC_BASE_EXTD)
			cpu_unmodelled(cpu, "WRMSR to the local APIC in x2APIC mode");
		return false;
	}
}

static void cr8_written(void *owner, uint64_t cr8)
{
	(void)owner;
	(void)cr8;
}

/* ---- INIT ---- */

/* The bootstrap processor starts at the reset vector, all others wait (SDM 3A 9.4.2). */
static void init_taken(void *owner)
{
	struct cpu *cpu = ((struct soft_vcpu *)owner)->cpu;

	if (!(cpu->msr.apic_base & APIC_BASE_BSP))
		cpu->activity = ACTIVITY_WAIT_FOR_SIPI;
}

void soft_vcpu_reset(struct soft_vcpu *vcpu)
{
	if (vcpu->vcpu.number)
		vcpu->cpu->msr.apic_base &= ~(uint64_t)APIC_BASE_BSP;
	init_taken(vcpu);
}

struct cpu_bus soft_chips_bus(struct soft_vcpu *vcpu)
{
	return (struct cpu_bus){
		.owner = vcpu,
		.port_in = port_in,
		.port_out = port_out,
		.mmio_read = mmio_read,
		.mmio_write = mmio_write,
		.cr8_written = cr8_written,
		.init_taken = init_taken,
		.msr_read = msr_read,
		.msr_write = msr_write,
	};
}

/* ---- from outside ---- */

void soft_nmi(struct engine *engine, unsigned vcpu) { cpu_raise_nmi(soft_of(engine)->vcpu[vcpu].cpu); }

/* ---- state ---- */

void *soft_chip(struct engine *engine, unsigned index, const struct state_table **table)
{
	*table = &soft_time_state;
	return index == 0 ? &soft_of(engine)->time : NULL;
}

int soft_chips_fetch(struct engine *engine)
{
	(void)engine;
	return 0;
}

int soft_chips_store(struct engine *engine)
{
	(void)engine;
	return 0;
}

bool soft_chips_changed(const struct engine *engine)
{
	(void)engine;
	return false;
}
