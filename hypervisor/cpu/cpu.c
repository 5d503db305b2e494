/* cpu.c: life of a CPU, and what is derived from its mode. */
#include <stdlib.h>

#include "cpu/branch_record.h"
#include "cpu/control.h"
#include "cpu/decode.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/segment.h"
#include "cpu/guest.h"
#include "cpu/trace.h"
#include "x86/msr.h"

struct cpu *cpu_new(const struct profile *profile, const struct cpu_bus *bus, struct phys_memory *memory)
{
	struct cpu *cpu;

	if (decode_init() >= 0)
		return NULL;
	cpu = aligned_alloc(64, (sizeof(*cpu) + 63) / 64 * 64);
	if (!cpu)
		return NULL;
	*cpu = (struct cpu){.profile = profile, .bus = *bus, .memory = memory};
	cpu->physical_mask = (1ull << profile->physical_bits) - 1;
	vmx_prepare(cpu);
	cpu->apic_page = CPU_NO_PAGE;
	cpu->traces = trace_cache_new(cpu);
	if (!cpu->traces || tlb_create(cpu) < 0 || phys_attach(memory, cpu) < 0) {
		tlb_destroy(cpu);
		trace_cache_free(cpu->traces);
		free(cpu);
		return NULL;
	}
	cpu_reset(cpu, false);
	return cpu;
}

void cpu_profile_changed(struct cpu *cpu)
{
	cpu->physical_mask = (1ull << cpu->profile->physical_bits) - 1;
	vmx_prepare(cpu);
	for (unsigned i = 0; i < CPUID_ANSWERS; i++)
		cpu->cpuid[i].known = false;
	trace_drop_all(cpu->traces);
	tlb_flush_spaces(cpu, 0, 0);
}

void cpu_free(struct cpu *cpu)
{
	if (!cpu)
		return;
	phys_detach(cpu->memory, cpu);
	tlb_destroy(cpu);
	trace_cache_free(cpu->traces);
	free(cpu);
}

/* ---- mode ---- */

void cpu_step_changed(struct cpu *cpu)
{
	bool breakpoints = cpu->dr7 & 0xff;
	bool step = breakpoints || cpu->tracing || cpu->rflags & RFLAGS_TF || guest_must_step(cpu) ||
		    branch_recorded(cpu);

	/* A locked instruction costs as much as several guest instructions; mostly nothing changes. */
	if (likely(step == !!(cpu->pending & PENDING_STEP)))
		return;
	if (step)
		__atomic_fetch_or(&cpu->pending, PENDING_STEP, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&cpu->pending, ~(uint32_t)PENDING_STEP, __ATOMIC_RELAXED);
}

static uint32_t current_cpl(const struct cpu *cpu)
{
	if (!cpu_protected(cpu))
		return 0;
	return cpu_vm86(cpu) ? 3 : (cpu->segment[SS].s.attributes & SEG_DPL) >> SEG_DPL_SHIFT;
}

static uint32_t current_code_mode(const struct cpu *cpu)
{
	uint32_t code = cpu->segment[CS].s.attributes;
	uint32_t mode = code & SEG_DB ? CODE_32 : CODE_16;

	if (cpu_ia32e(cpu) && code & SEG_L)
		mode = CODE_64;
	if (cpu_protected(cpu))
		mode |= CODE_PE;
	if (cpu_protected(cpu) && cpu_vm86(cpu))
		mode |= CODE_VM86;
	if (cpu_ia32e(cpu))
		mode |= CODE_LMA;
	if (mode & CODE_64 || cpu->segment[SS].s.attributes & SEG_DB)
		mode |= CODE_STACK32;
	if (cpu->cpl == 3)
		mode |= CODE_CPL3;
	if (!(cpu->cr0 & (CR0_EM | CR0_TS)) && cpu->cr4 & CR4_OSFXSR)
		mode |= CODE_FP;
	if (unlikely(cpu->msr.svm_guest | cpu->msr.vmx_guest))
		mode |= CODE_GUEST;
	return mode;
}

void cpu_mode_changed(struct cpu *cpu)
{
	bool was_64 = cpu_64bit(cpu), is_64;

	cpu->cpl = current_cpl(cpu);
	cpu->code_mode = current_code_mode(cpu);
	is_64 = cpu_64bit(cpu);
	cpu->linear_mask = is_64 ? ~0ull : 0xffffffffu;
	cpu->stack_mask = is_64 ? ~0ull : cpu->code_mode & CODE_STACK32 ? 0xffffffffu : 0xffff;
	cpu->code_end = is_64 ? ~0ull : (uint64_t)cpu->segment[CS].s.limit + 1;
	cpu->jump_tag = (cpu->jump_tag & ~(uint64_t)(CODE_MODES - 1)) | cpu->code_mode;
	if (was_64 != is_64)
		segment_derive_all(cpu);
	tlb_select(cpu);
	cpu_step_changed(cpu);
}

/* ---- reset: SDM 3A table 9-1 ---- */

static void reset_segment(struct cpu_segment *segment, uint16_t selector, uint64_t base, uint32_t attributes)
{
	*segment = (struct cpu_segment){
		.s = {.selector = selector, .base = base, .limit = 0xffff, .attributes = attributes}};
}

static void reset_segments(struct cpu *cpu)
{
	const uint32_t data = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED;

	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		reset_segment(&cpu->segment[i], 0, 0, data);
	reset_segment(&cpu->segment[CS], 0xf000, 0xffff0000,
		      SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED);
	reset_segment(&cpu->ldtr, 0, 0, SEG_P | TYPE_LDT);
	reset_segment(&cpu->tr, 0, 0, SEG_P | TYPE_TSS_BUSY);
	cpu->gdtr = cpu->idtr = (struct table_register){.base = 0, .limit = 0xffff};
}

/* What INIT leaves alone. */
static void reset_power_up(struct cpu *cpu)
{
	cpu->fcw = 0x40;
	cpu->ftw = 0x5555;
	cpu->fsw = cpu->fop = cpu->fcs = cpu->fds = 0;
	cpu->fip = cpu->fdp = 0;
	cpu->mxcsr = MXCSR_RESET;
	for (unsigned i = 0; i < 8; i++)
		cpu->st[i] = (struct x87_register){0};
	for (unsigned i = 0; i < 64; i++)
		cpu->vector[i] = 0;
	cpu->xcr0 = XCR0_X87;
	cpu->pkru = 0;
	cpu->cr0 = CR0_CD | CR0_NW;
	cpu->tsc_offset = -cpu_ticks(cpu);
	msr_reset(cpu);
}

void cpu_reset(struct cpu *cpu, bool init)
{
	cpu->insn = NULL;
	if (!init) {
		reset_power_up(cpu);
		cpu->init_pending = cpu->smi_pending = false;
	}
	for (unsigned i = 0; i < REG_SLOTS; i++)
		cpu->reg[i] = 0;
	cpu->reg[RDX] = cpu->profile->signature;
	flags_set(&cpu->lazy, 0);
	cpu->rflags = RFLAGS_FIXED;
	cpu->rip = 0xfff0;
	reset_segments(cpu);
	cpu->cr0 = (cpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
	cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = cpu->efer = 0;
	for (unsigned i = 0; i < 4; i++)
		cpu->dr[i] = cpu->pdpte[i] = 0;
	cpu->dr6 = DR6_FIXED_1;
	cpu->dr7 = DR7_FIXED_1;
	cpu->activity = ACTIVITY_ACTIVE;
	cpu->shadow = SHADOW_NONE;
	cpu->nmi_blocked = cpu->nmi_pending = cpu->smm = false;
	cpu->dr6_pending = 0;
	cpu->pending &= PENDING_STOP | PENDING_STEP;
	cpu->wait = (struct cpu_wait){0};
	cpu->delivering_depth = 0;
	cpu->step_tf = false;
	svm_reset(cpu);
	vmx_reset(cpu);
	segment_derive_all(cpu);
	tlb_flush_spaces(cpu, 0, 0);
	cpu_mode_changed(cpu);
}

/* ---- state out and in ---- */

/* Fields of the same name and type in struct cpu and struct vcpu_state, the arrays apart. */
#define SAME_FIELDS(f)                                                                                       \
	f(rip) f(gdtr) f(idtr) f(cr0) f(cr2) f(cr3) f(cr4) f(cr8) f(xcr0) f(dr6) f(dr7) f(efer) f(pkru)      \
		f(mxcsr) f(fcw) f(fsw) f(ftw) f(fop) f(fip) f(fdp) f(fcs) f(fds) f(nmi_blocked)              \
			f(nmi_pending) f(smm)

#define COPY_ARRAY(to, from) __builtin_memcpy((to), (from), sizeof(to))

void cpu_save(struct cpu *cpu, struct vcpu_state *to)
{
	*to = cpu->msr;
#define SAVE(name) to->name = cpu->name;
	SAME_FIELDS(SAVE)
#undef SAVE
	COPY_ARRAY(to->gpr, cpu->reg);
	to->rflags = (cpu->rflags & ~(uint64_t)RFLAGS_STATUS) | flags_get(&cpu->lazy);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		to->segment[i] = cpu->segment[i].s;
	to->ldtr = cpu->ldtr.s;
	to->tr = cpu->tr.s;
	COPY_ARRAY(to->dr, cpu->dr);
	COPY_ARRAY(to->pdpte, cpu->pdpte);
	COPY_ARRAY(to->st, cpu->st);
	COPY_ARRAY(to->vector, cpu->vector);
	to->tsc = control_tsc(cpu);
	msr_counters_move(to, cpu->retired - to->tsc);
	to->activity = cpu->activity;
	to->shadow = cpu->shadow;
	vcpu_state_clear_padding(to);
}

/* What instructions cannot make, and what the model would stumble over: anything else is a guest's own
 * affair. */
const char *cpu_state_wrong(const struct cpu *cpu, const struct vcpu_state *state)
{
	bool paged = state->cr0 & CR0_PG, protected = state->cr0 & CR0_PE;

	if (state->activity > ACTIVITY_MWAIT)
		return "activity";
	if (state->shadow > SHADOW_MOV_SS)
		return "shadow";
	if (state->nmi_blocked > 1 || state->nmi_pending > 1)
		return "nmi";
	if (state->smm > 1)
		return "smm";
	if (state->svm_gif_clear > 1 || state->svm_guest > 1 || state->vmx_on > 1 || state->vmx_guest > 1 ||
	    (state->svm_guest && !cpu_has(cpu, FEATURE_svm)) ||
	    (state->vmx_on && !cpu_has(cpu, FEATURE_vmx)) || (state->vmx_guest && !state->vmx_on))
		return "guest";
	if (paged && !protected && !state->svm_guest && !state->vmx_guest)
		return "cr0";
	if (state->efer & EFER_LMA && !paged)
		return "efer";
	if (state->cr8 > 15)
		return "cr8";
	if (state->svm_vmcb % PAGE_SIZE)
		return "svm_vmcb";
	if (state->vmx_vmcs != VMX_NO_VMCS && state->vmx_vmcs % PAGE_SIZE)
		return "vmx_vmcs";
	/* Without XSAVE it is as after RESET. */
	if (state->xcr0 & ~(profile_xcr0_valid(cpu->profile) | XCR0_X87) || !(state->xcr0 & XCR0_X87))
		return "xcr0";
	return NULL;
}

void cpu_load(struct cpu *cpu, const struct vcpu_state *from)
{
	cpu->msr = *from;
#define LOAD(name) cpu->name = from->name;
	SAME_FIELDS(LOAD)
#undef LOAD
	__builtin_memcpy(cpu->reg, from->gpr, sizeof(from->gpr));
	cpu->insn = NULL;
	cpu->rflags = (from->rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_FIXED;
	flags_set(&cpu->lazy, from->rflags);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		cpu->segment[i].s = from->segment[i];
	cpu->ldtr.s = from->ldtr;
	cpu->tr.s = from->tr;
	COPY_ARRAY(cpu->dr, from->dr);
	COPY_ARRAY(cpu->pdpte, from->pdpte);
	COPY_ARRAY(cpu->st, from->st);
	COPY_ARRAY(cpu->vector, from->vector);
	cpu->tsc_offset += from->tsc - control_tsc(cpu);
	msr_counters_move(&cpu->msr, from->tsc - cpu->retired);
	cpu->init_pending = cpu->smi_pending = cpu->injecting = false;
	cpu->wait = (struct cpu_wait){0};
	cpu->activity = (enum activity)from->activity;
	cpu->shadow = (enum shadow)from->shadow;
	cpu->dr6_pending = 0;
	cpu->pending &= PENDING_STOP;
	cpu->delivering_depth = 0;
	cpu->step_tf = false;
	tlb_flush_spaces(cpu, 0, 0);
	cpu_mode_changed(cpu);
	segment_derive_all(cpu);
}
