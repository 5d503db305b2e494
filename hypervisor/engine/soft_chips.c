/* soft_chips.c: what a vCPU reaches outside itself: the bus, and its interrupt chips. */
#include <errno.h>
#include <stdio.h>

#include "engine/soft.h"

#include "cpu/control.h"
#include "cpu/mem/phys.h"
#include "x86/msr.h"

static struct soft *soft_behind(void *owner) { return ((struct soft_vcpu *)owner)->soft; }

/* ---- ports and memory ---- */

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	struct soft *soft = soft_behind(owner);

	return chips_port_in(&soft->chips, &soft->bus, port, size);
}

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct soft *soft = soft_behind(owner);

	chips_port_out(&soft->chips, &soft->bus, port, size, value);
}

static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	const struct soft_vcpu *vcpu = owner;

	chips_mmio_read(&vcpu->soft->chips, &vcpu->soft->bus, vcpu->vcpu.number, address, to, size);
}

static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	const struct soft_vcpu *vcpu = owner;

	chips_mmio_write(&vcpu->soft->chips, &vcpu->soft->bus, vcpu->vcpu.number, address, from, size);
}

/* ---- from the processor to its local APIC ---- */

static struct lapic *lapic_of(struct soft_vcpu *vcpu)
{
	vcpu->soft->chips.changed = true;
	return &vcpu->soft->chips.lapic[vcpu->vcpu.number];
}

static bool apic_read(void *owner, uint32_t index, uint64_t *value)
{
	if (soft_kvmclock_msr(index)) {
		*value = soft_kvmclock_read(owner, index);
		return true;
	}
	return lapic_msr_read(lapic_of(owner), index, value);
}

/* The page of registers hides memory that lies there; elsewhere its accesses are device accesses anyway. */
void soft_place_apic(struct soft_vcpu *vcpu)
{
	uint64_t base = vcpu->soft->chips.lapic[vcpu->vcpu.number].base;
	uint64_t page = base & vcpu->cpu->physical_mask & ~0xfffull;
	bool there = (base & (APIC_BASE_ENABLE | APIC_BASE_EXTD)) == APIC_BASE_ENABLE;

	cpu_set_apic_page(vcpu->cpu, there && phys_host(vcpu->soft->memory, page, NULL) ? page : CPU_NO_PAGE);
}

static bool apic_write(void *owner, uint32_t index, uint64_t value)
{
	if (soft_kvmclock_msr(index)) {
		soft_kvmclock_write(owner, index, value);
		soft_behind(owner)->chips.changed = true;
		return true;
	}
	if (!lapic_msr_write(lapic_of(owner), index, value))
		return false;
	if (index == MSR_APIC_BASE)
		soft_place_apic(owner);
	return true;
}

static int interrupt_acknowledge(void *owner) { return lapic_acknowledge(lapic_of(owner)); }
static void interrupt_end(void *owner) { lapic_eoi(lapic_of(owner)); }
static void cr8_written(void *owner, uint64_t cr8) { lapic_write_cr8(lapic_of(owner), cr8); }
static void tsc_moved(void *owner)
{
	lapic_tsc_changed(lapic_of(owner));
	soft_kvmclock_update(owner);
}

/* The bootstrap processor starts at the reset vector, all others wait for a SIPI (SDM 3A 9.4.2). */
static void start(struct soft_vcpu *vcpu)
{
	if (!(lapic_of(vcpu)->base & APIC_BASE_BSP))
		vcpu->cpu->activity = ACTIVITY_WAIT_FOR_SIPI;
}

static void init_taken(void *owner)
{
	lapic_reset(lapic_of(owner), true);
	start(owner);
}

struct cpu_bus soft_chips_bus(struct soft_vcpu *vcpu)
{
	return (struct cpu_bus){
		.owner = vcpu,
		.port_in = port_in,
		.port_out = port_out,
		.mmio_read = mmio_read,
		.mmio_write = mmio_write,
		.interrupt_acknowledge = interrupt_acknowledge,
		.interrupt_end = interrupt_end,
		.cr8_written = cr8_written,
		.init_taken = init_taken,
		.tsc_moved = tsc_moved,
		.counters_moved = soft_counters_moved,
		.msr_read = apic_read,
		.msr_write = apic_write,
	};
}

/* ---- from the local APIC to its processor ---- */

static struct cpu *cpu_of(void *owner) { return ((struct soft_vcpu *)owner)->cpu; }

static void interrupt_line(void *owner, bool raised) { cpu_set_interrupt_line(cpu_of(owner), raised); }
static void nmi(void *owner) { cpu_raise_nmi(cpu_of(owner)); }
static void smi(void *owner) { cpu_raise_smi(cpu_of(owner)); }
static void init(void *owner) { cpu_raise_init(cpu_of(owner), soft_behind(owner)->running == owner); }
static void sipi(void *owner, uint8_t vector) { cpu_start(cpu_of(owner), vector); }
static void tpr_written(void *owner, uint8_t tpr) { cpu_of(owner)->cr8 = tpr >> 4; }

static uint64_t tsc(void *owner)
{
	soft_time_set(soft_behind(owner), cpu_of(owner));
	return control_tsc(cpu_of(owner));
}

static uint64_t tsc_time(void *owner, uint64_t value)
{
	uint64_t now = tsc(owner), ticks = soft_ticks(soft_behind(owner));
	uint64_t due = value > now ? ticks + (value - now) : ticks;

	return due < ticks || due > CLOCK_NEVER / PROFILE_TICK_NS ? CLOCK_NEVER : due * PROFILE_TICK_NS;
}

/* ---- life ---- */

void soft_lapic_model(const struct soft *soft, struct lapic_model *model)
{
	const struct profile *profile = &soft->profile;

	*model = (struct lapic_model){.x2apic = profile_has(profile, FEATURE_x2apic),
				      .tsc_deadline = profile_has(profile, FEATURE_tsc_deadline),
				      .amd = profile->vendor == VENDOR_AMD,
				      .physical_bits = profile->physical_bits,
				      .timer_ns = profile->guest ? profile->guest->apic_timer_ns : PROFILE_CRYSTAL_NS};
}

bool soft_chips_add(struct soft_vcpu *vcpu)
{
	struct soft *soft = vcpu->soft;
	const struct profile *profile = &soft->profile;
	struct lapic_model model;
	struct lapic_cpu cpu = {.owner = vcpu,
				.interrupt_line = interrupt_line,
				.nmi = nmi,
				.smi = smi,
				.init = init,
				.sipi = sipi,
				.tpr_written = tpr_written,
				.tsc = tsc,
				.tsc_time = tsc_time};

	soft_lapic_model(soft, &model);
	if (!chips_add_lapic(&soft->chips, &model, &cpu, soft->clock, profile_has(profile, FEATURE_apic)))
		return false;
	start(vcpu);
	return true;
}

void soft_chips_reset(struct soft *soft)
{
	chips_reset(&soft->chips);
	for (unsigned i = 0; i < soft->count; i++)
		start(&soft->vcpu[i]);
}

/* ---- what struct vcpu_state has of a local APIC ---- */

void soft_chips_save(struct soft_vcpu *vcpu, struct vcpu_state *to)
{
	const struct lapic *lapic = &vcpu->soft->chips.lapic[vcpu->vcpu.number];

	to->apic_base = lapic->base;
	to->tsc_deadline = lapic->tsc_deadline;
}

void soft_chips_load(struct soft_vcpu *vcpu, const struct vcpu_state *from)
{
	struct lapic *lapic = &vcpu->soft->chips.lapic[vcpu->vcpu.number];

	if (lapic->base == from->apic_base && lapic->tsc_deadline == from->tsc_deadline &&
	    lapic->tpr >> 4 == from->cr8)
		return;
	vcpu->soft->chips.changed = true;
	lapic->base = from->apic_base;
	lapic->tsc_deadline = from->tsc_deadline;
	if (lapic->tpr >> 4 != from->cr8)
		lapic_write_cr8(lapic, from->cr8);
	lapic_state.loaded(lapic);
}

/* ---- from outside ---- */

/* Firmware also decides on VT-x, and locks the decision. */
void soft_firmware(struct engine *engine, uint16_t level)
{
	struct soft *soft = soft_of(engine);

	for (unsigned i = 0; i < soft->count; i++) {
		struct cpu *cpu = soft->vcpu[i].cpu;

		if (cpu_has(cpu, FEATURE_vmx))
			cpu->msr.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	}
	chips_firmware(&soft->chips, level);
}

void soft_interrupt_input(struct engine *engine, unsigned gsi, bool raised)
{
	chips_input(&soft_of(engine)->chips, gsi, raised);
}

void soft_msi(struct engine *engine, uint64_t address, uint32_t data)
{
	chips_msi(&soft_of(engine)->chips, address, data);
}

void soft_nmi(struct engine *engine, unsigned vcpu) { lapic_nmi_pin(lapic_of(&soft_of(engine)->vcpu[vcpu])); }

void soft_smi(struct engine *engine, unsigned vcpu)
{
	soft_of(engine)->chips.changed = true;
	smi(&soft_of(engine)->vcpu[vcpu]);
}

bool soft_smi_for_board(const struct engine *engine)
{
	return ((const struct soft *)engine)->profile.vendor == VENDOR_AMD;
}

/* ---- state ---- */

/* What struct vcpu_state has no field for. vcpu_load() makes it as if none of this were under way. */
static const struct state_field latch_fields[] = {LATCH_FIELDS};

static struct soft_vcpu *vcpu_of(void *latches)
{
	return (struct soft_vcpu *)((char *)latches - offsetof(struct soft_vcpu, latches));
}

static uint64_t to_ns(uint64_t ticks) { return ticks < UINT64_MAX / PROFILE_TICK_NS ? ticks * PROFILE_TICK_NS : UINT64_MAX; }
static uint64_t to_ticks(uint64_t ns) { return ns == UINT64_MAX ? ns : ns / PROFILE_TICK_NS; }

/*
 * An interrupt that another engine was given, and whose vector the local APIC shows in service, comes before the next
 * instruction. INT n and faults, which come from executing the instruction at RIP, come again when it is executed.
 */
static void latches_loaded(void *device)
{
	const struct latches *latches = device;
	struct cpu *cpu = vcpu_of(device)->cpu;

	cpu->init_pending = latches->init_pending;
	cpu->smi_pending = latches->smi_pending;
	cpu->dr6_pending = latches->debug_pending;
	cpu->wait = (struct cpu_wait){.armed = latches->wait_armed,
				      .masked = latches->wait_masked,
				      .carry = latches->wait_carry,
				      .line = latches->wait_line,
				      .until = to_ticks(latches->wait_until)};
	cpu_latches_changed(cpu);
	if (latches->event == LATCHED_INTERRUPT)
		cpu_inject_interrupt(cpu, latches->vector);
}

static STATE_TABLE(latch_state, "latches", 1, latch_fields, latches_loaded, latches_wrong);

static void latches_fetch(struct soft_vcpu *vcpu)
{
	const struct cpu *cpu = vcpu->cpu;

	vcpu->latches = (struct latches){.init_pending = cpu->init_pending,
					 .smi_pending = cpu->smi_pending,
					 .debug_pending = cpu->dr6_pending,
					 .wait_armed = cpu->wait.armed,
					 .wait_masked = cpu->wait.masked,
					 .wait_carry = cpu->wait.carry,
					 .wait_line = cpu->wait.line,
					 .wait_until = to_ns(cpu->wait.until)};
	if (cpu->injecting && cpu->injected.kind == EVENT_EXTERNAL_INTERRUPT) {
		vcpu->latches.event = LATCHED_INTERRUPT;
		vcpu->latches.vector = cpu->injected.vector;
	}
}

static bool has_latches(const struct cpu *cpu)
{
	return cpu->init_pending || cpu->smi_pending || cpu->dr6_pending || cpu->wait.armed || cpu->injecting ||
	       cpu->activity == ACTIVITY_MWAIT;
}

/* The time, each vCPU's latches and clock, as of every engine; the chips. */
void *soft_chip(struct engine *engine, unsigned index, const struct state_table **table)
{
	struct soft *soft = soft_of(engine);

	if (index == 0) {
		*table = &soft_time_state;
		return &soft->time;
	}
	index--;
	if (index < soft->count) {
		*table = &latch_state;
		return &soft->vcpu[index].latches;
	}
	index -= soft->count;
	if (index < soft->count) {
		*table = &soft_kvmclock_state;
		return &soft->vcpu[index].kvmclock;
	}
	return chips_at(&soft->chips, index - soft->count, table);
}

/* Latches that are set now must be set again by every load that brings this state back. */
int soft_chips_fetch(struct engine *engine)
{
	struct soft *soft = soft_of(engine);

	soft->chips.changed = soft->latched = false;
	soft_time_fetch(soft);
	for (unsigned i = 0; i < soft->count; i++) {
		latches_fetch(&soft->vcpu[i]);
		soft->latched |= has_latches(soft->vcpu[i].cpu);
	}
	return 0;
}

/* A second NMI would have to be pending while the first is: there is one latch. */
int soft_chips_store(struct engine *engine)
{
	struct soft *soft = soft_of(engine);

	soft->chips.changed = false;
	for (unsigned i = 0; i < soft->count; i++) {
		const struct latches *latches = &soft->vcpu[i].latches;
		const char *what = latches->nmi_behind ? "an NMI behind another one"
				   : latches->event > LATCHED_EXCEPTION ? "an event of no kind"
									: NULL;

		if (what) {
			snprintf(soft->reason, sizeof(soft->reason), "vCPU %u: %s, which soft cannot take", i, what);
			soft->failure = soft->reason;
			return -EINVAL;
		}
		soft_kvmclock_arrived(&soft->vcpu[i]);
	}
	return 0;
}

bool soft_chips_changed(const struct engine *engine)
{
	const struct soft *soft = (const struct soft *)engine;

	return soft->chips.changed || soft->latched;
}
