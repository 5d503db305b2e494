/* svm_exits.c: exits of the guest (APM 2 15.6 to 15.14, appendix C). */
#include "kmod/core/svm.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define INT1         0xf1
#define DR6_REASONS  0xe00full /* BT, BS, BD, B3 to B0 */
#define CONTRIBUTORY (1u << VECTOR_DE | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP)

/* ---- events that an exit has interrupted ---- */

static unsigned event_type(uint64_t event) { return (unsigned)(event >> SVM_EVENT_TYPE_SHIFT) & 7; }

/*
 * INT n, INT3, INTO and INT1 are executed again instead: RIP is still at them. A #DB that is none of INT1's
 * has left its reason in DR6 (15.12.2).
 */
static bool by_instruction(struct core_vcpu *vcpu, uint64_t event)
{
	unsigned vector = event & SVM_EVENT_VECTOR;
	uint8_t byte = 0;

	if (event_type(event) != SVM_EVENT_EXCEPTION)
		return event_type(event) == SVM_EVENT_SOFTWARE;
	if (vector == VECTOR_DB && !(*vmcb64(vcpu->svm->vmcb, VMCB_DR6) & DR6_REASONS))
		return svm_fetch(vcpu, &byte, 1) && byte == INT1;
	return vector == VECTOR_BP || vector == VECTOR_OF;
}

/*
 * A #DB that is a fault pushes RF as set, which the injection of a #DB does not do by itself: DR7.GD, and
 * breakpoints on instructions.
 */
static bool is_debug_fault(uint8_t *vmcb, uint64_t event)
{
	uint64_t dr6 = *vmcb64(vmcb, VMCB_DR6), dr7 = *vmcb64(vmcb, VMCB_DR7);

	if (event_type(event) != SVM_EVENT_EXCEPTION || (event & SVM_EVENT_VECTOR) != VECTOR_DB)
		return false;
	for (unsigned n = 0; n < 4; n++)
		if (dr6 >> n & 1 && !(dr7 >> (16 + 4 * n) & 3))
			return true;
	return dr6 & DR6_BD;
}

void svm_redeliver(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t event = *vmcb64(vmcb, VMCB_EXITINTINFO);

	if (!(event & SVM_EVENT_VALID) || by_instruction(vcpu, event))
		return;
	*vmcb64(vmcb, VMCB_EVENTINJ) = event;
	if (is_debug_fault(vmcb, event))
		*vmcb64(vmcb, VMCB_RFLAGS) |= RFLAGS_RF;
}

/* Whether @second on top of @first is a double fault. */
static bool doubles(unsigned first, unsigned second)
{
	if (first == VECTOR_PF)
		return second == VECTOR_PF || CONTRIBUTORY >> second & 1;
	return CONTRIBUTORY >> first & 1 && CONTRIBUTORY >> second & 1;
}

void svm_raise_upon(struct core_vcpu *vcpu, unsigned vector, bool has_error, uint32_t error)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t event = *vmcb64(vmcb, VMCB_EXITINTINFO);
	unsigned first = event & SVM_EVENT_VECTOR;

	(void)has_error;
	if (!(event & SVM_EVENT_VALID) || event_type(event) != SVM_EVENT_EXCEPTION ||
	    (vcpu->svm->nested.running && svm_nested_wants(vcpu, SVM_EXIT_EXCEPTION + vector))) {
		svm_raise(vcpu, vector, error);
	} else if (first == VECTOR_DF) {
		/* The processor shuts down by itself. */
		svm_intercept(vmcb, SVM_EXIT_EXCEPTION + vector, false);
		svm_redeliver(vcpu);
	} else if (doubles(first, vector)) {
		svm_raise(vcpu, VECTOR_DF, 0);
	} else {
		svm_raise(vcpu, vector, error);
	}
}

/* ---- #GP ---- */

/* Whether the guest is at an instruction of AMD-V: 0F 01 D8 to DF. */
static bool at_extension(struct core_vcpu *vcpu)
{
	uint8_t bytes[15];
	unsigned size = svm_fetch(vcpu, bytes, sizeof(bytes)), at = svm_prefixes(vcpu, bytes, size);

	return at + 3 <= size && bytes[at] == 0x0f && bytes[at + 1] == 0x01 && bytes[at + 2] >> 3 == 0x1b;
}

/* For a guest without AMD-V its instructions are undefined before they are anything else. */
static void exit_gp(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint32_t error = (uint32_t)*vmcb64(vmcb, VMCB_EXITINFO1);
	bool delivering = *vmcb64(vmcb, VMCB_EXITINTINFO) & SVM_EVENT_VALID;

	if (!delivering && error == 0 && !vcpu->svm->nested.svme && at_extension(vcpu))
		svm_raise(vcpu, VECTOR_UD, 0);
	else
		svm_raise_upon(vcpu, VECTOR_GP, true, error);
}

/* ---- memory ---- */

static void exit_memory(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t error = *vmcb64(vmcb, VMCB_EXITINFO1);
	unsigned access = CORE_READ | (error & PF_W ? CORE_WRITE : 0u) | (error & PF_I ? CORE_EXECUTE : 0u);

	svm_redeliver(vcpu);
	core_exit_memory(vcpu, *vmcb64(vmcb, VMCB_EXITINFO2), access);
}

/* ---- all ---- */

/* Whether the exit @code is the hypervisor's business, not the record's alone. */
static bool needed(struct core_vcpu *vcpu, unsigned code)
{
	bool write = *vmcb64(vcpu->svm->vmcb, VMCB_EXITINFO1) & 1;

	switch (code) {
	case SVM_EXIT_MSR: return svm_msr_intercepted(vcpu->svm->msrpm, (uint32_t)vcpu->gpr[RCX], write);
	case SVM_EXIT_CPUID:
	case SVM_EXIT_VMRUN:
	case SVM_EXIT_VMLOAD:
	case SVM_EXIT_VMSAVE:
	case SVM_EXIT_STGI:
	case SVM_EXIT_CLGI:
	case SVM_EXIT_SKINIT:
	case SVM_EXIT_INVLPGA: return true;
	default: return false;
	}
}

/* CPUID above CPL 0 where the guest has asked for it to fault (CpuidUserDis, APM 3 CPUID Fn8000_0021_EAX). */
static bool cpuid_faults(struct core_vcpu *vcpu)
{
	uint32_t r[4];

	if (vcpu->svm->vmcb[VMCB_CPL] == 0)
		return false;
	hw_cpuid(0x80000000u, 0, r);
	if (r[0] < 0x80000021u)
		return false;
	hw_cpuid(0x80000021u, 0, r);
	return r[0] >> 17 & 1 && hw_read_msr(MSR_HWCR) & HWCR_CPUID_USER_DISABLE;
}

static void exit_cpuid(struct core_vcpu *vcpu)
{
	if (cpuid_faults(vcpu))
		svm_raise(vcpu, VECTOR_GP, 0);
	else
		core_exit_cpuid(vcpu);
}

static void exit_instruction(struct core_vcpu *vcpu, unsigned code)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t info1 = *vmcb64(vmcb, VMCB_EXITINFO1), info2 = *vmcb64(vmcb, VMCB_EXITINFO2);

	if (record_exit(vcpu, code, info1, info2, needed(vcpu, code))) {
		svm_redeliver(vcpu); /* a task switch that an event has asked for */
		return;
	}
	switch (code) {
	case SVM_EXIT_CPUID: exit_cpuid(vcpu); break;
	case SVM_EXIT_MSR: info1 & 1 ? core_exit_wrmsr(vcpu) : core_exit_rdmsr(vcpu); break;
	case SVM_EXIT_VMRUN:
	case SVM_EXIT_VMLOAD:
	case SVM_EXIT_VMSAVE:
	case SVM_EXIT_VMMCALL:
	case SVM_EXIT_STGI:
	case SVM_EXIT_CLGI:
	case SVM_EXIT_SKINIT:
	case SVM_EXIT_INVLPGA: svm_nested_instruction(vcpu, code); break;
	default: hw_stop("an exit that nobody asked for", code);
	}
}

void svm_exit(struct core_vcpu *vcpu)
{
	/* All are numbers of 32 bits; how the one below 0 is extended differs. */
	int32_t code = (int32_t)*vmcb32(vcpu->svm->vmcb, VMCB_EXITCODE);

	if (vcpu->step.on && svm_stepped(vcpu))
		return;
	if (vcpu->svm->nested.running && svm_nested_exit(vcpu))
		return;
	switch (code) {
	case SVM_EXIT_NPF: exit_memory(vcpu); break;
	case SVM_EXIT_EXCEPTION + VECTOR_GP: exit_gp(vcpu); break;
	case SVM_EXIT_EXCEPTION + VECTOR_SX:
	case SVM_EXIT_EXCEPTION + VECTOR_DB:
		if (!(code == SVM_EXIT_EXCEPTION + VECTOR_SX ? svm_gif_sx(vcpu) : svm_gif_debug(vcpu)))
			hw_stop("an exception that nobody asked for", (unsigned)code);
		break;
	case SVM_EXIT_NMI: vcpu->svm->nested.nmi |= hw_svm_take_nmi(); break;
	case SVM_EXIT_INVALID: hw_stop("the processor refuses the guest's state", vcpu->rip); break;
	case SVM_EXIT_SHUTDOWN: hw_shutdown(); /* some exit without being asked */
	default: exit_instruction(vcpu, (unsigned)code);
	}
}
