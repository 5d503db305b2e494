/*
 * The interrupt chips of the kvm engine, and its time: those of chips.h, here and not in the kernel, so that
 * their state is the same tables under every engine, and a KVM without chips will do. The local APIC's
 * registers are accesses to device memory that no slot holds; INTR becomes KVM_INTERRUPT when the guest can
 * take one.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "x86/msr.h"

#define NS_PER_SECOND 1000000000ull

/* ---- time: the host's, from where the machine's stood when it was loaded ---- */

uint64_t kvm_host_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t now(void *owner)
{
	const struct kvm_engine *kvm = owner;

	return (kvm->time.held ? kvm->time.held : kvm_host_ns()) - kvm->time.began;
}

void kvm_time_hold(struct kvm_engine *kvm, bool hold) { kvm->time.held = hold ? kvm_host_ns() : 0; }

static void timer_changed(void *owner) { kvm_timer_moved(owner); }

static void time_loaded(void *device)
{
	struct kvm_time *time = device;

	time->began = kvm_host_ns() - time->state.ns;
	time->passed = false;
	time->held = 0;
}

/* Everything that is saved while no vCPU runs is of one moment. */
void kvm_time_fetch(struct kvm_engine *kvm)
{
	if (kvm->time.passed)
		kvm->time.state.ns = now(kvm);
	kvm->time.passed = false;
}

static const struct state_field time_fields[] = {TIME_FIELDS};
static STATE_TABLE(time_state, "time", 1, time_fields, time_loaded);

void kvm_chips_open(struct kvm_engine *kvm, struct clock *clock)
{
	if (!clock) {
		clock_init(&kvm->own_clock);
		clock = &kvm->own_clock;
	}
	kvm->clock = clock;
	kvm->time.began = kvm_host_ns();
	kvm->time.passed = true;
	clock->owner = kvm;
	clock->now = now;
	clock->changed = timer_changed;
	chips_init(&kvm->chips);
}

/* ---- from a local APIC to its processor ---- */

static void interrupt_line(void *owner, bool raised)
{
	struct kvm_vcpu *vcpu = owner;

	vcpu->line = raised;
	if (raised)
		kvm_kick(vcpu);
}

static void nmi(void *owner)
{
	struct kvm_vcpu *vcpu = owner;

	vcpu->nmi_pending = true;
	kvm_kick(vcpu);
}

static void smi(void *owner)
{
	struct kvm_vcpu *vcpu = owner;

	vcpu->smi_pending = true;
	kvm_kick(vcpu);
}

/* A SIPI that came before it came too early. */
static void init(void *owner)
{
	struct kvm_vcpu *vcpu = owner;

	vcpu->init_pending = true;
	vcpu->sipi_pending = false;
	kvm_kick(vcpu);
}

/* Of several the first counts. */
static void sipi(void *owner, uint8_t vector)
{
	struct kvm_vcpu *vcpu = owner;

	if (vcpu->sipi_pending || !(vcpu->init_pending || vcpu->activity == ACTIVITY_WAIT_FOR_SIPI))
		return;
	vcpu->sipi_pending = true;
	vcpu->sipi_vector = vector;
	kvm_kick(vcpu);
}

/* Its own thread's doing, as are resets. */
static void tpr_written(void *owner, uint8_t tpr) { ((struct kvm_vcpu *)owner)->run->cr8 = tpr >> 4; }

static uint64_t tsc(void *owner) { return kvm_tsc(owner); }
static uint64_t tsc_time(void *owner, uint64_t value) { return kvm_tsc_time(owner, value); }

static struct lapic *lapic_of(struct kvm_vcpu *vcpu)
{
	return &kvm_engine_of(vcpu)->chips.lapic[vcpu->vcpu.number];
}

void kvm_chips_drop(struct kvm_vcpu *vcpu)
{
	vcpu->init_pending = vcpu->sipi_pending = vcpu->smi_pending = vcpu->nmi_pending = false;
	vcpu->refused = NULL;
}

/* The bootstrap processor starts at the reset vector, all others wait for a SIPI (SDM 3A 9.4.2). */
static void start(struct kvm_vcpu *vcpu)
{
	vcpu->activity = lapic_of(vcpu)->base & APIC_BASE_BSP ? ACTIVITY_ACTIVE : ACTIVITY_WAIT_FOR_SIPI;
}

/* INIT leaves x87, vectors and MSRs (SDM 3A table 10-1), and CR0.CD and NW. */
static void take_init(struct kvm_vcpu *vcpu)
{
	struct vcpu_state state, *reset = &vcpu->reset;
	uint64_t cache;

	vcpu->init_pending = false;
	lapic_reset(lapic_of(vcpu), true);
	kvm_vcpu_save(&vcpu->vcpu, &state);
	cache = state.cr0 & (CR0_CD | CR0_NW);
	memcpy(state.gpr, reset->gpr, sizeof(state.gpr));
	memcpy(state.segment, reset->segment, sizeof(state.segment));
	memcpy(state.dr, reset->dr, sizeof(state.dr));
	state.rip = reset->rip;
	state.rflags = reset->rflags;
	state.ldtr = reset->ldtr;
	state.tr = reset->tr;
	state.gdtr = reset->gdtr;
	state.idtr = reset->idtr;
	state.cr0 = (reset->cr0 & ~(uint64_t)(CR0_CD | CR0_NW)) | cache;
	state.cr2 = reset->cr2;
	state.cr3 = reset->cr3;
	state.cr4 = reset->cr4;
	state.cr8 = 0;
	state.efer = reset->efer;
	state.dr6 = reset->dr6;
	state.dr7 = reset->dr7;
	state.shadow = SHADOW_NONE;
	state.nmi_blocked = state.nmi_pending = false;
	kvm_vcpu_load(&vcpu->vcpu, &state);
	start(vcpu);
}

static void take_sipi(struct kvm_vcpu *vcpu)
{
	struct vcpu_state state;

	vcpu->sipi_pending = false;
	if (vcpu->activity != ACTIVITY_WAIT_FOR_SIPI)
		return;
	kvm_vcpu_save(&vcpu->vcpu, &state);
	state.activity = ACTIVITY_ACTIVE;
	state.rip = 0;
	state.segment[CS].selector = (uint16_t)(vcpu->sipi_vector << 8);
	state.segment[CS].base = (uint64_t)vcpu->sipi_vector << 12;
	kvm_vcpu_load(&vcpu->vcpu, &state);
}

/* A device that has no SMI says so when it is asked; the run ends by name then. */
void kvm_chips_settle(struct kvm_vcpu *vcpu)
{
	if (vcpu->init_pending && vcpu->activity != ACTIVITY_SHUTDOWN) /* that ends the machine */
		take_init(vcpu);
	if (vcpu->sipi_pending)
		take_sipi(vcpu);
	if (vcpu->smi_pending && ioctl(vcpu->fd, KVM_SMI))
		vcpu->refused = "SMI";
	if (vcpu->nmi_pending && ioctl(vcpu->fd, KVM_NMI))
		vcpu->refused = "KVM_NMI";
	vcpu->smi_pending = vcpu->nmi_pending = false;
}

static struct lapic_model lapic_model(const struct kvm_engine *kvm)
{
	uint32_t bits = kvm_cpuid(kvm, 0x80000008, 0, 0) & 0xff;

	return (struct lapic_model){.amd = kvm->amd,
				    .x2apic = kvm_cpuid(kvm, 1, 0, 2) & LEAF1_ECX_X2APIC,
				    .tsc_deadline = kvm_cpuid(kvm, 1, 0, 2) & LEAF1_ECX_TSC_DEADLINE,
				    .physical_bits = bits ? bits : 36,
				    .timer_ns = kvm->guest.apic_timer_ns};
}

void kvm_chips_remodel(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);

	lapic_of(vcpu)->model = lapic_model(kvm);
	kvm->chips.absent = !(kvm_cpuid(kvm, 1, 0, 3) & 1u << 9);
}

bool kvm_chips_add(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	struct lapic_model model = lapic_model(kvm);
	struct lapic_cpu cpu = {.owner = vcpu,
				.interrupt_line = interrupt_line,
				.nmi = nmi,
				.smi = smi,
				.init = init,
				.sipi = sipi,
				.tpr_written = tpr_written,
				.tsc = tsc,
				.tsc_time = tsc_time};

	if (!chips_add_lapic(&kvm->chips, &model, &cpu, kvm->clock, kvm_cpuid(kvm, 1, 0, 3) & 1u << 9))
		return false;
	start(vcpu);
	return true;
}

/* ---- around an entry ---- */

static bool interruptible(const struct kvm_vcpu *vcpu)
{
	struct kvm_regs regs = {0};

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && regs.rflags & RFLAGS_IF;
}

static bool nmi_waits(const struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events = {0};

	return ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) == 0 && events.nmi.pending && !events.nmi.masked;
}

bool kvm_chips_runnable(struct kvm_vcpu *vcpu)
{
	kvm_chips_settle(vcpu);
	if (vcpu->activity == ACTIVITY_HLT && ((vcpu->line && interruptible(vcpu)) || nmi_waits(vcpu)))
		vcpu->activity = ACTIVITY_ACTIVE;
	return vcpu->activity == ACTIVITY_ACTIVE;
}

/* What the last exit would have told, so that an interrupt comes at the boundary at which the guest has come. */
static bool can_take_interrupt(const struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events = {0};

	return interruptible(vcpu) && ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) == 0 &&
	       !(events.interrupt.shadow | events.interrupt.injected | events.exception.injected |
		 events.nmi.injected | events.nmi.pending) &&
	       !(events.exception.pending);
}

void kvm_chips_before(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (vcpu->fresh && vcpu->line)
		run->ready_for_interrupt_injection = run->if_flag = can_take_interrupt(vcpu);
	vcpu->fresh = false;
	run->cr8 = lapic_of(vcpu)->tpr >> 4;
	if (vcpu->line && run->ready_for_interrupt_injection && run->if_flag) {
		int vector = lapic_acknowledge(lapic_of(vcpu));
		struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};

		kvm_engine_of(vcpu)->chips.changed = true;
		if (vector >= 0 && ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt))
			vcpu->refused = "KVM_INTERRUPT";
		run->ready_for_interrupt_injection = 0;
	}
	run->request_interrupt_window = vcpu->line;
}

/* Before an exit is handled: what the guest has done to its APIC without one. */
void kvm_chips_after(struct kvm_vcpu *vcpu)
{
	struct lapic *lapic = lapic_of(vcpu);
	const struct kvm_run *run = vcpu->run;

	if (lapic->tpr >> 4 != run->cr8) {
		kvm_engine_of(vcpu)->chips.changed = true;
		lapic_write_cr8(lapic, run->cr8);
	}
	if (lapic->base != run->apic_base) {
		kvm_engine_of(vcpu)->chips.changed = true;
		lapic_msr_write(lapic, MSR_APIC_BASE, run->apic_base);
	}
}

/* ---- engine_ops ---- */

void kvm_firmware(struct engine *engine, uint16_t level) { chips_firmware(&kvm_of(engine)->chips, level); }

void kvm_interrupt_input(struct engine *engine, unsigned gsi, bool raised)
{
	chips_input(&kvm_of(engine)->chips, gsi, raised);
}

void kvm_msi(struct engine *engine, uint64_t address, uint32_t data)
{
	chips_msi(&kvm_of(engine)->chips, address, data);
}

void kvm_nmi(struct engine *engine, unsigned vcpu) { lapic_nmi_pin(lapic_of(&kvm_of(engine)->vcpu[vcpu])); }

void kvm_smi(struct engine *engine, unsigned vcpu) { smi(&kvm_of(engine)->vcpu[vcpu]); }

/* No SMRAM address space is made, so the device would refuse it. */
bool kvm_smi_for_board(const struct engine *engine)
{
	(void)engine;
	return false;
}

void kvm_chips_reset(struct kvm_engine *kvm)
{
	chips_reset(&kvm->chips);
	for (unsigned i = 0; i < kvm->count; i++) {
		kvm_chips_drop(&kvm->vcpu[i]);
		kvm->vcpu[i].kvmclock = (struct kvmclock){0};
		start(&kvm->vcpu[i]);
	}
}

static const struct state_field latch_fields[] = {LATCH_FIELDS};
static STATE_TABLE(latch_state, "latches", 1, latch_fields, NULL, latches_wrong);
static const struct state_field kvmclock_fields[] = {KVMCLOCK_FIELDS};
static STATE_TABLE(kvmclock_state, "kvmclock", 1, kvmclock_fields);
static const struct state_field only_fields[] = {
	STATE(struct kvm_vcpu, only.msr_count),
	STATE(struct kvm_vcpu, only.msr),
	STATE(struct kvm_vcpu, only.xsave),
	STATE(struct kvm_vcpu, only.nested),
};
static const struct state_table only_state = {.device = "kvm",
					      .version = 1,
					      .count = sizeof(only_fields) / sizeof(only_fields[0]),
					      .field = only_fields,
					      .idle = kvm_only_idle,
					      .clear = kvm_only_clear};

/* The time, each vCPU's latches and clock, as of every engine; what kvm alone has; the chips. */
void *kvm_chip(struct engine *engine, unsigned index, const struct state_table **table)
{
	struct kvm_engine *kvm = kvm_of(engine);
	unsigned kind, number;

	if (index == 0) {
		*table = &time_state;
		return &kvm->time;
	}
	kind = (index - 1) / kvm->count;
	number = (index - 1) % kvm->count;
	switch (kind) {
	case 0: *table = &latch_state; return &kvm->vcpu[number].latches;
	case 1: *table = &kvmclock_state; return &kvm->vcpu[number].kvmclock;
	case 2: *table = &only_state; return &kvm->vcpu[number];
	default: return chips_at(&kvm->chips, index - 1 - 3 * kvm->count, table);
	}
}

/* Latches that are set now must be set again by every load that brings this state back. */
int kvm_chips_fetch(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);
	int error = 0;

	kvm_time_fetch(kvm);
	kvm->chips.changed = kvm->latched = false;
	for (unsigned i = 0; i < kvm->count && !error; i++) {
		kvm_chips_settle(&kvm->vcpu[i]);
		error = kvm_latches_fetch(&kvm->vcpu[i]);
		if (!error)
			error = kvm_only_fetch(&kvm->vcpu[i]);
		kvm->latched |= kvm_latches_set(&kvm->vcpu[i]);
	}
	return error;
}

int kvm_chips_store(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);
	int error = 0;

	kvm->chips.changed = false;
	for (unsigned i = 0; i < kvm->count && !error; i++) {
		error = kvm_only_store(&kvm->vcpu[i]);
		if (!error)
			error = kvm_latches_store(&kvm->vcpu[i]);
		if (!error)
			kvm_clock_arrived(&kvm->vcpu[i]);
	}
	return error;
}

bool kvm_chips_changed(const struct engine *engine)
{
	const struct kvm_engine *kvm = (const struct kvm_engine *)engine;

	return kvm->chips.changed || kvm->latched;
}

/* What struct vcpu_state has of a local APIC, as it is loaded into the vCPU. */
void kvm_chips_load(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct lapic *lapic = lapic_of(vcpu);

	vcpu->fresh = true;
	vcpu->run->ready_for_interrupt_injection = vcpu->run->if_flag = 0;
	vcpu->run->apic_base = from->apic_base;
	if (vcpu->vcpu.number >= kvm_engine_of(vcpu)->chips.count ||
	    (lapic->base == from->apic_base && lapic->tsc_deadline == from->tsc_deadline &&
	     lapic->tpr >> 4 == from->cr8))
		return;
	kvm_engine_of(vcpu)->chips.changed = true;
	lapic->base = from->apic_base;
	lapic->tsc_deadline = from->tsc_deadline;
	if (lapic->tpr >> 4 != from->cr8)
		lapic_write_cr8(lapic, from->cr8);
	lapic_state.loaded(lapic);
}
