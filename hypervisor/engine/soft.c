/* The software reference CPU as an engine: the only file that sees both cpu/ and engine.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/engine.h"

#include "chip/check.h"
#include "cpu/checks.h"
#include "cpu/cpu.h"
#include "cpu/decode.h"
#include "cpu/events.h"
#include "cpu/mem/phys.h"
#include "cpu/trace.h"
#include "x86/msr.h"

struct soft_vcpu {
	struct engine_vcpu vcpu;
	struct cpu *cpu;
	struct engine_trace trace;
};

struct soft {
	struct engine engine;
	struct profile profile;
	struct engine_bus bus;
	struct phys_memory *memory;
	struct soft_vcpu one; /* one processor until there is an interrupt controller to start others */
};

static struct soft *soft_of(struct engine *engine) { return (struct soft *)engine; }
static struct soft_vcpu *of(struct engine_vcpu *vcpu) { return (struct soft_vcpu *)vcpu; }
static const struct soft_vcpu *const_of(const struct engine_vcpu *vcpu)
{
	return (const struct soft_vcpu *)vcpu;
}

/* ---- the CPU's bus ---- */

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	struct soft *soft = owner;

	return soft->bus.port_in(soft->bus.owner, port, size);
}

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct soft *soft = owner;

	soft->bus.port_out(soft->bus.owner, port, size, value);
}

static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	struct soft *soft = owner;

	soft->bus.mmio_read(soft->bus.owner, address, to, size);
}

static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	struct soft *soft = owner;

	soft->bus.mmio_write(soft->bus.owner, address, from, size);
}

static int interrupt_acknowledge(void *owner)
{
	struct soft *soft = owner;

	return soft->bus.interrupt_acknowledge ? soft->bus.interrupt_acknowledge(soft->bus.owner) : -1;
}

/* CR8 is the CPU's own; nothing here has a task-priority register to follow it. */
static void cr8_written(void *owner, uint64_t cr8)
{
	(void)owner;
	(void)cr8;
}

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
	struct soft *soft = owner;
	struct cpu *cpu = soft->one.cpu;

	switch (index) {
	case MSR_APIC_BASE: *value = cpu->msr.apic_base; return profile_has(&soft->profile, FEATURE_apic);
	case MSR_TSC_DEADLINE:
		*value = cpu->msr.tsc_deadline;
		return profile_has(&soft->profile, FEATURE_tsc_deadline);
	default:
		/* The x2APIC range outside x2APIC mode (SDM 3A 11.12.2). */
		if (cpu->msr.apic_base & APIC_BASE_EXTD)
			cpu_unmodelled(cpu, "RDMSR of the local APIC in x2APIC mode");
		return false;
	}
}

static bool msr_write(void *owner, uint32_t index, uint64_t value)
{
	struct soft *soft = owner;
	struct cpu *cpu = soft->one.cpu;

	switch (index) {
	case MSR_APIC_BASE:
		if (!profile_has(&soft->profile, FEATURE_apic) || !apic_base_valid(soft, value))
			return false;
		cpu->msr.apic_base = value;
		return true;
	case MSR_TSC_DEADLINE:
		if (!profile_has(&soft->profile, FEATURE_tsc_deadline))
			return false;
		/* Outside TSC-deadline mode, which only the local APIC can enter, it is ignored (SDM
		 * 3A 11.5.4.1). */
		return true;
	default:
		if (cpu->msr.apic_base & APIC_BASE_EXTD)
			cpu_unmodelled(cpu, "WRMSR to the local APIC in x2APIC mode");
		return false;
	}
}

static void trace_insn(void *owner, struct cpu *cpu, const struct insn *insn)
{
	struct soft *soft = owner;
	const struct engine_trace *trace = &soft->one.trace;
	char text[160];

	if (!trace->insn)
		return;
	disassemble(insn, cpu->rip, text, sizeof(text));
	trace->insn(trace->owner, cpu->rip, text);
}

static const char *const event_kinds[] = {
	[EVENT_FAULT] = "fault",
	[EVENT_TRAP] = "trap",
	[EVENT_SOFTWARE_INTERRUPT] = "software interrupt",
	[EVENT_SOFTWARE_EXCEPTION] = "software exception",
	[EVENT_PRIVILEGED_SOFTWARE_EXCEPTION] = "privileged software exception",
	[EVENT_EXTERNAL_INTERRUPT] = "external interrupt",
	[EVENT_NMI] = "NMI",
};

static void trace_event(void *owner, struct cpu *cpu, const struct event *event)
{
	struct soft *soft = owner;
	const struct engine_trace *trace = &soft->one.trace;
	char text[160];
	int used;

	if (!trace->event)
		return;
	used = snprintf(text, sizeof(text), "%s vector=%u", event_kinds[event->kind], event->vector);
	if (event->has_error_code)
		used += snprintf(text + used, sizeof(text) - (size_t)used, " error=0x%x", event->error_code);
	if (event->vector == VECTOR_PF && event->kind == EVENT_FAULT)
		snprintf(text + used, sizeof(text) - (size_t)used, " cr2=0x%" PRIx64, cpu->cr2);
	trace->event(trace->owner, event->return_rip, text);
}

/* ---- life ---- */

static bool soft_describe(const char *device, char *text, size_t size)
{
	int used = snprintf(text, size, "software reference CPU; profiles:");

	(void)device;
	for (unsigned i = 0; profile_name(i) && used > 0 && (size_t)used < size; i++)
		used += snprintf(text + used, size - (size_t)used, " %s", profile_name(i));
	return true;
}

static void soft_close(struct engine *engine)
{
	struct soft *soft = soft_of(engine);

	if (soft->one.cpu)
		cpu_free(soft->one.cpu);
	if (soft->memory)
		phys_free(soft->memory);
	check_break(NULL);
	chip_check_break(NULL);
	free(soft);
}

static int soft_open(struct engine **engine, const struct engine_config *config, char *why, size_t size)
{
	struct soft *soft = calloc(1, sizeof(*soft));
	int error;

	if (!soft)
		return -ENOMEM;
	soft->engine.ops = &engine_soft;
	soft->bus = config->bus;
	error = profile_parse(&soft->profile, config->cpu, why, size);
	if (!error) {
		soft->memory = phys_new();
		error = soft->memory ? 0 : -ENOMEM;
	}
	if (error) {
		free(soft);
		return error;
	}
	*engine = &soft->engine;
	return 0;
}

/* ---- memory ---- */

static int soft_memory_add(struct engine *engine, uint64_t base, uint64_t size, void *host, bool read_only)
{
	return phys_add(soft_of(engine)->memory, base, size, host, read_only);
}

static bool soft_memory_write(struct engine *engine, uint64_t address, const void *from, size_t size)
{
	return phys_write(soft_of(engine)->memory, address, from, size);
}

static void soft_dirty_pages(struct engine *engine, const uint64_t **pages, size_t *count)
{
	*pages = soft_of(engine)->memory->dirty;
	*count = soft_of(engine)->memory->dirty_count;
}

static void soft_dirty_reset(struct engine *engine) { phys_dirty_reset(soft_of(engine)->memory); }

static void soft_dirty_restore(struct engine *engine, const uint8_t *image, uint64_t size)
{
	phys_restore_dirty(soft_of(engine)->memory, image, size);
}

/* ---- vCPUs ---- */

static int soft_vcpu_new(struct engine *engine, struct engine_vcpu **vcpu)
{
	struct soft *soft = soft_of(engine);
	struct cpu_bus bus = {
		.owner = soft,
		.port_in = port_in,
		.port_out = port_out,
		.mmio_read = mmio_read,
		.mmio_write = mmio_write,
		.interrupt_acknowledge = interrupt_acknowledge,
		.cr8_written = cr8_written,
		.msr_read = msr_read,
		.msr_write = msr_write,
		.trace_insn = trace_insn,
		.trace_event = trace_event,
	};

	if (soft->one.cpu)
		return -ENOSPC;
	soft->one.vcpu.engine = engine;
	soft->one.cpu = cpu_new(&soft->profile, &bus, soft->memory);
	if (!soft->one.cpu)
		return -ENOMEM;
	*vcpu = &soft->one.vcpu;
	return 0;
}

static void soft_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *to) { cpu_save(of(vcpu)->cpu, to); }

static int soft_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *from)
{
	cpu_load(of(vcpu)->cpu, from);
	return 0;
}

static enum engine_exit soft_run(struct engine_vcpu *vcpu, uint64_t budget)
{
	struct cpu *cpu = of(vcpu)->cpu;

	if (__builtin_add_overflow(cpu->retired, budget, &cpu->stop_at))
		cpu->stop_at = UINT64_MAX;
	cpu->event_at = cpu->stop_at; /* no timers here: what an earlier run left is no event of this one */
	switch (cpu_run(cpu)) {
	case CPU_STOP_BUDGET: return ENGINE_BUDGET;
	case CPU_STOP_REQUESTED: return ENGINE_STOPPED;
	case CPU_STOP_HALT: return ENGINE_HALTED;
	case CPU_STOP_SHUTDOWN: return ENGINE_SHUTDOWN;
	case CPU_STOP_UNMODELLED: break;
	}
	return ENGINE_FAILED;
}

static void soft_request_stop(struct engine_vcpu *vcpu) { cpu_request_stop(of(vcpu)->cpu); }

static const char *soft_failure(const struct engine_vcpu *vcpu) { return const_of(vcpu)->cpu->unmodelled; }

static uint64_t soft_retired(const struct engine_vcpu *vcpu) { return const_of(vcpu)->cpu->retired; }

static uint64_t soft_rip(const struct engine_vcpu *vcpu) { return const_of(vcpu)->cpu->rip; }

static void soft_interrupt_line(struct engine_vcpu *vcpu, bool raised)
{
	cpu_set_interrupt_line(of(vcpu)->cpu, raised);
}

static int soft_trace(struct engine_vcpu *vcpu, const struct engine_trace *trace)
{
	struct soft_vcpu *soft = of(vcpu);

	soft->trace = trace ? *trace : (struct engine_trace){0};
	soft->cpu->tracing = trace != NULL;
	cpu_mode_changed(soft->cpu);
	return 0;
}

static bool soft_statistic(struct engine_vcpu *vcpu, unsigned index, char *name, size_t size, uint64_t *value)
{
	snprintf(name, size, "instructions");
	*value = soft_retired(vcpu);
	return index == 0;
}

/* The chips' checks, and then the CPU's. */
static const char *soft_check_name(unsigned index)
{
	return index < CHIP_CHECK_COUNT ? chip_check_name(index) : check_name(index - CHIP_CHECK_COUNT);
}

/* Decoded code carries its gates, so it must go. */
static bool soft_break_check(struct engine *engine, const char *name)
{
	struct soft *soft = soft_of(engine);

	/* A name that the one does not know mends it, and is the other's. */
	if (chip_check_break(name))
		check_break(NULL);
	else if (!check_break(name))
		return false;
	if (soft->one.cpu)
		trace_drop_all(soft->one.cpu->traces);
	return true;
}

static void soft_take_reached(struct engine *engine, void (*take)(void *owner, const char *name), void *owner)
{
	(void)engine;
	chip_check_take_reached(take, owner);
	check_take_reached(take, owner);
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.cpu_default = "amd",
	.counts = true,
	.describe = soft_describe,
	.open = soft_open,
	.close = soft_close,
	.memory_add = soft_memory_add,
	.memory_write = soft_memory_write,
	.dirty_pages = soft_dirty_pages,
	.dirty_reset = soft_dirty_reset,
	.dirty_restore = soft_dirty_restore,
	.vcpu_new = soft_vcpu_new,
	.vcpu_save = soft_vcpu_save,
	.vcpu_load = soft_vcpu_load,
	.run = soft_run,
	.request_stop = soft_request_stop,
	.failure = soft_failure,
	.retired = soft_retired,
	.rip = soft_rip,
	.interrupt_line = soft_interrupt_line,
	.trace = soft_trace,
	.statistic = soft_statistic,
	.break_check = soft_break_check,
	.check_name = soft_check_name,
	.take_reached = soft_take_reached,
};
