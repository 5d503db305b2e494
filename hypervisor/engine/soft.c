/* The software reference CPU as an engine: its life, memory and vCPUs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/guest_cpu.h"
#include "engine/soft.h"
#include "engine/vendor_state.h"

#include "chip/check.h"
#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/events.h"
#include "cpu/mem/phys.h"
#include "cpu/trace.h"
#include "x86/msr.h"

/* ---- traces ---- */

static void trace_insn(void *owner, struct cpu *cpu, const struct insn *insn)
{
	const struct soft_vcpu *vcpu = owner;
	const struct engine_trace *trace = &vcpu->soft->trace;
	char text[160];

	if (!trace->insn)
		return;
	disassemble(insn, cpu->rip, text, sizeof(text));
	trace->insn(trace->owner, vcpu->vcpu.number, cpu->rip, text);
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
	const struct soft_vcpu *vcpu = owner;
	const struct engine_trace *trace = &vcpu->soft->trace;
	char text[160];
	int used;

	if (!trace->event)
		return;
	used = snprintf(text, sizeof(text), "%s vector=%u", event_kinds[event->kind], event->vector);
	if (event->has_error_code)
		used += snprintf(text + used, sizeof(text) - (size_t)used, " error=0x%x", event->error_code);
	if (event->vector == VECTOR_PF && event->kind == EVENT_FAULT)
		snprintf(text + used, sizeof(text) - (size_t)used, " cr2=0x%" PRIx64, cpu->cr2);
	trace->event(trace->owner, vcpu->vcpu.number, event->return_rip, text);
}

static void trace_note(void *owner, struct cpu *cpu, const char *text)
{
	struct soft_vcpu *vcpu = owner;
	const struct engine_trace *trace = &vcpu->soft->trace;

	if (trace->event)
		trace->event(trace->owner, vcpu->vcpu.number, cpu->rip, text);
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

	for (unsigned i = 0; i < soft->count; i++)
		cpu_free(soft->vcpu[i].cpu);
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
	soft->wall_clock = config->wall_clock;
	soft->bus = config->bus;
	soft->wanted = config->vcpus ? config->vcpus : 1;
	soft->clock = config->clock;
	if (!soft->clock) {
		clock_init(&soft->own_clock);
		soft->clock = &soft->own_clock;
	}
	chips_init(&soft->chips);
	soft_time_open(soft, config->seed, config->slice);
	error = profile_parse(&soft->profile, config->cpu, why, size);
	if (soft->wanted > ENGINE_VCPUS_MAX)
		error = -ENOSPC;
	if (!error) {
		soft->profile.processors = soft->wanted;
		soft->own = soft->profile;
		snprintf(soft->cpu, sizeof(soft->cpu), "%s", config->cpu);
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

static bool soft_memory_replace(struct engine *engine, uint64_t address, const void *page)
{
	return phys_replace(soft_of(engine)->memory, address, page);
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

/* ---- the processor that the guest knows ---- */

static void tell(const struct soft *soft, const struct profile *profile, struct guest_cpu *to)
{
	profile_tell(profile, to);
	if (!profile->guest)
		snprintf(to->name, sizeof(to->name), "%s", soft->cpu);
}

static void soft_cpu_tell(struct engine *engine, struct guest_cpu *to)
{
	tell(soft_of(engine), &soft_of(engine)->profile, to);
}

/* What was made of the profile when the vCPU was. */
static void cpu_changed(struct soft_vcpu *vcpu)
{
	struct lapic_model *model = &vcpu->soft->chips.lapic[vcpu->vcpu.number].model;

	cpu_profile_changed(vcpu->cpu);
	soft_lapic_model(vcpu->soft, model);
}

static int soft_cpu_take(struct engine *engine, const struct guest_cpu *from, char *why, size_t size)
{
	struct soft *soft = soft_of(engine);
	struct profile profile = soft->own;
	struct guest_cpu own;
	int error;

	tell(soft, &soft->own, &own);
	error = guest_cpu_check(from, &own, why, size);
	if (!error)
		error = profile_take(&profile, from, why, size);
	if (error)
		return error;
	soft->guest = *from;
	profile.guest = &soft->guest;
	soft->profile = profile;
	for (unsigned i = 0; i < soft->count; i++)
		cpu_changed(&soft->vcpu[i]);
	soft->chips.absent = !profile_has(&soft->profile, FEATURE_apic);
	return 0;
}

/* ---- vCPUs ---- */

static int soft_vcpu_new(struct engine *engine, struct engine_vcpu **made)
{
	struct soft *soft = soft_of(engine);
	struct soft_vcpu *vcpu = &soft->vcpu[soft->count];
	struct cpu_bus bus = soft_chips_bus(vcpu);

	if (soft->count == soft->wanted)
		return -ENOSPC;
	bus.trace_insn = trace_insn;
	bus.trace_event = trace_event;
	bus.trace_note = trace_note;
	vcpu->vcpu = (struct engine_vcpu){.engine = engine, .number = soft->count};
	vcpu->soft = soft;
	vcpu->cpu = cpu_new(&soft->profile, &bus, soft->memory);
	if (!vcpu->cpu)
		return -ENOMEM;
	vcpu->cpu->apic_id = soft->count;
	vcpu->cpu->shares = soft->wanted > 1;
	if (!soft_chips_add(vcpu)) {
		cpu_free(vcpu->cpu);
		return -ENOSPC;
	}
	soft->count++;
	*made = &vcpu->vcpu;
	return 0;
}

static void soft_reset(struct engine *engine)
{
	struct soft *soft = soft_of(engine);

	for (unsigned i = 0; i < soft->count; i++) {
		soft_time_set(soft, soft->vcpu[i].cpu);
		cpu_reset(soft->vcpu[i].cpu, false);
		soft->vcpu[i].kvmclock = (struct kvmclock){0};
	}
	soft_chips_reset(soft);
	soft->time.state.left = 0;
	soft->time.state.turn = 0;
}

/* @name: of a field or two; @why: what is wrong with it. -EINVAL. */
static int refuse_state(struct engine_vcpu *vcpu, const char *name, const char *why)
{
	struct soft *soft = soft_of(vcpu->engine);

	snprintf(soft->reason, sizeof(soft->reason), "vCPU %u: %s %s", vcpu->number, name, why);
	soft->failure = soft->reason;
	return -EINVAL;
}

/* State is told, and comes, in the form of the processor that the guest knows. */
static int convert(struct engine_vcpu *vcpu, struct vcpu_state *state, enum vendor to)
{
	struct soft *soft = soft_of(vcpu->engine);
	const char *name;

	if (soft->profile.told == soft->profile.vendor)
		return 0;
	name = vendor_state_convert(state, to == VENDOR_AMD);
	return name ? refuse_state(vcpu, name,
				   "is not as after RESET, and the other vendor's processors do not have it, "
				   "or otherwise")
		    : 0;
}

static int soft_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *to)
{
	struct cpu *cpu = soft_vcpu_of(vcpu)->cpu;

	soft_time_set(soft_of(vcpu->engine), cpu);
	cpu_save(cpu, to);
	soft_chips_save(soft_vcpu_of(vcpu), to);
	return convert(vcpu, to, cpu->profile->told);
}

static int soft_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *from)
{
	struct cpu *cpu = soft_vcpu_of(vcpu)->cpu;
	struct vcpu_state converted;
	const char *wrong;

	if (cpu->profile->told != cpu->profile->vendor) {
		converted = *from;
		if (convert(vcpu, &converted, cpu->profile->vendor))
			return -EINVAL;
		from = &converted;
	}
	wrong = cpu_state_wrong(cpu, from);
	if (wrong)
		return refuse_state(vcpu, wrong, "is what no processor can hold");
	soft_time_set(soft_of(vcpu->engine), cpu);
	cpu_load(cpu, from);
	soft_chips_load(soft_vcpu_of(vcpu), from);
	return 0;
}

static const char *soft_failure(const struct engine *engine)
{
	return ((const struct soft *)engine)->failure;
}

static uint64_t soft_rip(const struct engine_vcpu *vcpu)
{
	return ((const struct soft_vcpu *)vcpu)->cpu->rip;
}

static int soft_trace(struct engine *engine, const struct engine_trace *trace)
{
	struct soft *soft = soft_of(engine);

	soft->trace = trace ? *trace : (struct engine_trace){0};
	for (unsigned i = 0; i < soft->count; i++) {
		soft->vcpu[i].cpu->tracing = trace != NULL;
		cpu_mode_changed(soft->vcpu[i].cpu);
	}
	return 0;
}

static bool soft_statistic(struct engine_vcpu *vcpu, unsigned index, char *name, size_t size, uint64_t *value)
{
	snprintf(name, size, "instructions");
	*value = soft_vcpu_of(vcpu)->cpu->retired;
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
	for (unsigned i = 0; i < soft->count; i++)
		trace_drop_all(soft->vcpu[i].cpu->traces);
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
	.memory_replace = soft_memory_replace,
	.dirty_pages = soft_dirty_pages,
	.dirty_reset = soft_dirty_reset,
	.dirty_restore = soft_dirty_restore,
	.cpu_tell = soft_cpu_tell,
	.cpu_take = soft_cpu_take,
	.vcpu_new = soft_vcpu_new,
	.vcpu_save = soft_vcpu_save,
	.vcpu_load = soft_vcpu_load,
	.reset = soft_reset,
	.run = soft_run,
	.request_stop = soft_request_stop,
	.failure = soft_failure,
	.retired = soft_retired,
	.rip = soft_rip,
	.firmware = soft_firmware,
	.interrupt_input = soft_interrupt_input,
	.msi = soft_msi,
	.nmi = soft_nmi,
	.smi = soft_smi,
	.smi_for_board = soft_smi_for_board,
	.chip = soft_chip,
	.chips_fetch = soft_chips_fetch,
	.chips_store = soft_chips_store,
	.chips_changed = soft_chips_changed,
	.trace = soft_trace,
	.statistic = soft_statistic,
	.break_check = soft_break_check,
	.check_name = soft_check_name,
	.take_reached = soft_take_reached,
};
